//! Who belongs to a command: every process that carries its mark in its environment, whatever group or session it made for itself.
//!
//! A process group is left with one call (`setsid`, `set -m`), and a parent that ended is no trace either; but what a process was given as
//! its environment can be read from `/proc` as long as it lives, by its own user. So a command gets one variable of ours, [`MARK`], and
//! after its end whoever still carries it is ended too. Nothing of the embedding process changes for it: it becomes no subreaper, and
//! its other children are not touched.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File},
    io::Read as _,
    os::unix::fs::FileExt as _,
    process,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

use super::MARK;

/// For so long, process numbers can't have come round, not at a fork every few microseconds: only those above the command's are looked at.
const YOUNG: Duration = Duration::from_millis(100);
/// More numbers than this are not looked at one by one.
const FEW: i32 = 256;
/// So many commands that were started last are remembered by their leaders.
const LATEST: usize = 64;
/// A process that is in the middle of `exec` shows no environment; so often it is looked at again.
const LOOKS: usize = 500;

/// The value of [`MARK`] for one command: no other command has it. It begins with the mark that this process itself carries, so that
/// whatever runs a deployer as its command finds the deployer's commands as well.
pub(super) fn new_mark() -> String {
    static START: OnceLock<String> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let start = START.get_or_init(|| {
        #[expect(
            clippy::disallowed_methods,
            reason = "what this process was marked with stands nowhere else"
        )]
        let outer = std::env::var(MARK).unwrap_or_default();
        let mut random = [0_u8; 8];
        let read = File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut random));
        let own = read.map_or_else(|_| u64::from(process::id()), |()| u64::from_be_bytes(random));
        format!("{outer}{own:016x}")
    });
    // Ends in a dot, so that no mark begins like another one of the same process.
    format!("{start}-{}.", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A command and all that it started: its process group, and whoever carries its mark.
#[derive(Debug)]
pub(super) struct Kin {
    leader: Pid,
    entry: Vec<u8>,
    begun: Instant,
}

/// What a look at the processes found.
#[derive(Default)]
struct Seen {
    kin: Vec<Pid>,
    /// Somebody is in the middle of `exec`.
    unsure: bool,
}

impl Kin {
    /// The command that `leader` leads and that was given `mark`.
    #[expect(
        clippy::disallowed_methods,
        reason = "how long process numbers lasted is not a matter of the run's clock"
    )]
    pub(super) fn new(leader: Pid, mark: &str) -> Self {
        let begun = Instant::now();
        let mut latest = latest();
        if latest.len() == LATEST {
            latest.pop_front();
        }
        latest.push_back((leader.as_raw_pid(), begun));
        Self { leader, entry: format!("{MARK}={mark}").into_bytes(), begun }
    }

    /// Sends `signal` to all.
    pub(super) fn signal(&self, signal: Signal) {
        // It fails only if nobody is left in the group.
        kill_process_group(self.leader, signal).ok();
        for process in self.look(&all()).kin {
            if State::of(process) != (State::Lives { group: self.leader.as_raw_pid() }) {
                self.send(process, signal);
            }
        }
    }

    /// Whether anybody lives.
    pub(super) fn is_alive(&self) -> bool {
        test_kill_process_group(self.leader).is_ok() || !self.look(&all()).kin.is_empty()
    }

    /// Kills whoever is left, until nobody is. How many there were; without `/proc`, 1 if there was anybody.
    ///
    /// A process with SIGKILL pending makes no more children, so a look that finds nobody new is the last one.
    pub(super) fn end(&self) -> u32 {
        let (mut known, mut ended, mut unsure) = (BTreeSet::new(), 0, 0);
        loop {
            let Some(numbers) = self.numbers() else {
                return u32::from(kill_process_group(self.leader, Signal::KILL).is_ok());
            };
            let seen = self.look(&numbers);
            let mut new = false;
            for process in seen.kin {
                if known.insert(process.as_raw_pid()) {
                    new = true;
                    ended += u32::from(self.send(process, Signal::KILL));
                }
            }
            // Also those in the group whose environment can't be read.
            kill_process_group(self.leader, Signal::KILL).ok();
            if !new && (!seen.unsure || unsure == LOOKS) {
                return ended;
            }
            if !new {
                unsure += 1;
                std::thread::yield_now();
            }
        }
    }

    /// Sends to exactly this process: its number may belong to another by now, which then does not carry the mark. Not to a thread, whose
    /// number shows its process's environment. Whether it was sent.
    #[cfg(target_os = "linux")]
    fn send(&self, process: Pid, signal: Signal) -> bool {
        use rustix::process::{PidfdFlags, kill_process, pidfd_open, pidfd_send_signal};
        let held = match pidfd_open(process, PidfdFlags::empty()) {
            Ok(held) => Some(held),
            Err(rustix::io::Errno::NOSYS) => None,
            Err(_) => return false,
        };
        self.owns(process) == Some(true)
            && held
                .map_or_else(|| kill_process(process, signal), |held| pidfd_send_signal(held, signal))
                .is_ok()
    }

    /// Nobody is found here.
    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "as on Linux")]
    fn send(&self, _: Pid, _: Signal) -> bool {
        false
    }

    fn look(&self, numbers: &[Pid]) -> Seen {
        let mut seen = Seen::default();
        for &process in numbers {
            match self.owns(process) {
                Some(true) => seen.kin.push(process),
                Some(false) => {}
                None => seen.unsure = true,
            }
        }
        seen
    }

    /// Whether this process is one of the command's and lives; unknown in the middle of `exec`.
    fn owns(&self, process: Pid) -> Option<bool> {
        // One whose environment this user may not read can't be ended either.
        let Ok(environment) = fs::read(format!("/proc/{}/environ", process.as_raw_pid())) else {
            return Some(false);
        };
        if environment.split(|byte| *byte == 0).any(|one| one.starts_with(&self.entry)) {
            return Some(true);
        }
        match State::of(process) {
            State::Lives { group } => Some(group == self.leader.as_raw_pid()),
            State::Gone => Some(false),
            State::Starts => None,
        }
    }

    /// The numbers of the processes that may belong to it; nothing if the system does not tell.
    fn numbers(&self) -> Option<Vec<Pid>> {
        let first = self.leader.as_raw_pid();
        if self.begun.elapsed() < YOUNG
            && let Some(last) = newest().filter(|last| (first..first.saturating_add(FEW)).contains(last))
        {
            let numbers = (first..=last).skip(1).collect();
            return Some(self.without_leaders(numbers).into_iter().filter_map(Pid::from_raw).collect());
        }
        let numbers = all();
        (!numbers.is_empty()).then_some(numbers)
    }

    /// Those of `numbers` that do not lead a command which this process started later: such a one belongs to that command alone. Where many
    /// short commands run side by side nobody else is left, and nobody is looked at: a look costs about as much as a twentieth of a process.
    fn without_leaders(&self, mut numbers: Vec<i32>) -> Vec<i32> {
        if !numbers.is_empty() {
            let latest = latest();
            let later = latest.iter().rev().take_while(|(_, begun)| *begun >= self.begun);
            let leaders: Vec<i32> = later.map(|(leader, _)| *leader).collect();
            numbers.retain(|number| !leaders.contains(number));
        }
        numbers
    }
}

/// The commands that this process started last: their leaders' numbers, and when.
fn latest() -> MutexGuard<'static, VecDeque<(i32, Instant)>> {
    static LATEST: Mutex<VecDeque<(i32, Instant)>> = Mutex::new(VecDeque::new());
    LATEST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers of all processes; none where the system does not tell.
fn all() -> Vec<Pid> {
    if !cfg!(target_os = "linux") {
        return Vec::new();
    }
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
    fs::read_dir("/proc").map(|entries| entries.flatten().filter_map(number).collect()).unwrap_or_default()
}

/// The number that was given out last. Numbers are given out in order, so who was started since has one above.
fn newest() -> Option<i32> {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let mut buffer = [0_u8; 128];
    let file = FILE.get_or_init(|| File::open("/proc/loadavg").ok()).as_ref()?;
    let length = file.read_at(&mut buffer, 0).ok()?;
    std::str::from_utf8(&buffer[..length]).ok()?.split_ascii_whitespace().last()?.parse().ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Lives {
        /// Its process group; 0 for those of the kernel.
        group: i32,
    },
    Gone,
    /// It is in the middle of `exec`: its new environment is not there yet.
    Starts,
}

impl State {
    /// Fields of `/proc/PID/stat` count from the last `)`, as the name may hold anything.
    fn of(process: Pid) -> Self {
        const EXITING: u64 = 0x4;
        const KERNEL: u64 = 0x0020_0000;
        let Ok(stat) = fs::read(format!("/proc/{}/stat", process.as_raw_pid())) else { return Self::Gone };
        let stat = String::from_utf8_lossy(&stat);
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_ascii_whitespace().collect())
            .unwrap_or_default();
        let number =
            |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        let (flags, environment_end) = (number(6), number(48));
        match fields.first() {
            None | Some(&("Z" | "X")) => Self::Gone,
            _ if flags & EXITING != 0 => Self::Gone,
            _ if flags & KERNEL == 0 && environment_end == 0 => Self::Starts,
            _ => Self::Lives { group: i32::try_from(number(2)).unwrap_or_default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_none_begins_like_another() {
        let marks: Vec<_> = (0..12).map(|_| new_mark()).collect();
        for (at, mark) in marks.iter().enumerate() {
            assert!(marks.iter().skip(at + 1).all(|other| !other.starts_with(mark.as_str())), "{marks:?}");
        }
    }

    #[test]
    fn who_leads_a_later_command_is_not_looked_at() {
        // Numbers that no system gives out.
        let numbers = [2_000_000_000, 2_000_000_001, 2_000_000_002, 2_000_000_003];
        let led = |number| Kin::new(Pid::from_raw(number).unwrap(), "mark");
        let _earlier = led(numbers[0]);
        let own = led(numbers[1]);
        let _later = led(numbers[3]);
        // An earlier command's number may belong to anybody by now.
        assert_eq!(own.without_leaders(numbers.to_vec()), [numbers[0], numbers[2]]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_lives_until_it_is_gone() {
        let group = rustix::process::getpgrp().as_raw_pid();
        assert_eq!(State::of(rustix::process::getpid()), State::Lives { group });
        assert_eq!(State::of(Pid::from_raw(i32::MAX).unwrap()), State::Gone);
        assert!(newest().unwrap() > 1 && all().contains(&rustix::process::getpid()));
    }
}
