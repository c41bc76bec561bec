//! Which process is meant: an id alone is given to another process one day, so what is recorded about one also says when it started.
//!
//! Linux tells it in `/proc`; elsewhere nothing is found, and whoever asks falls back to what needs no process table, such as the end of a
//! lease.

use std::fs;

/// One process of this host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// When it started, in clock ticks since the [`boot`]: with the id, its identity.
    pub started: u64,
    /// It ended, and waits for its parent to ask how.
    pub zombie: bool,
    /// What it calls itself, for people; anybody may choose that.
    pub name: String,
}

impl Process {
    /// The process with this id now, if there is one.
    pub fn find(pid: u32) -> Option<Self> {
        Self::read(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Fields 1 to 22 of `/proc/PID/stat` (`proc_pid_stat(5)`). The name may hold anything, parentheses too, so fields count from its last `)`.
    fn read(pid: u32, stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        Some(Self {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
            // A leader whose other threads still live is shown as a zombie too, but the process has not ended.
            zombie: matches!(*fields.first()?, "Z" | "X" | "x") && matches!(*fields.get(17)?, "0" | "1"),
            name,
        })
    }
}

/// When the process with this id started, in clock ticks since the [`boot`]; nothing if there is none, or it has ended.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// assert!(flowline_core::process::started(std::process::id()).is_some());
/// assert_eq!(flowline_core::process::started(u32::MAX), None);
/// ```
pub fn started(pid: u32) -> Option<u64> {
    Process::find(pid).filter(|process| !process.zombie).map(|process| process.started)
}

/// The boot that start times count from. Empty if the system does not say, which then is equal on every boot.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = b"7 (a) (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        let process = Process::read(7, stat).unwrap();
        assert_eq!((process.parent, process.group, process.started), (1, 7, 4242));
        assert_eq!(process.name, "a) (b");
        assert!(!process.zombie);
        let state = |state: &str, threads: &str| {
            let stat = format!("7 (a) {state} 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 {threads} 0 4242 1 1");
            Process::read(7, stat.as_bytes()).unwrap().zombie
        };
        assert!(state("Z", "1") && !state("Z", "2") && !state("S", "1"));
    }
}
