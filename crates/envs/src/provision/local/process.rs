//! Starting a process so that it outlives us and can be found again, and stopping exactly what was started.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal};

use super::{
    log,
    patience::{Patience, Pauses},
    procfs::{self, MARK, Process},
};
use crate::provision::{Placeholder, ProcessSpec, ProvisionError, RunningProcess, Workload, WorkloadError};
use flowline_core::id::ResourceId;

/// Everything that a start needs.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) resource: &'a ResourceId,
    pub(super) workload: &'a Workload,
    pub(super) spec: &'a ProcessSpec,
    /// The release's directory, absolute.
    pub(super) release: &'a Path,
    /// Its component's data directory, absolute.
    pub(super) data: &'a Path,
    pub(super) log: &'a Path,
    pub(super) path: &'a str,
    pub(super) port: u16,
    pub(super) token: &'a str,
}

/// What to execute, with all places filled.
#[derive(Debug)]
struct Filled {
    program: String,
    arguments: Vec<String>,
    env: BTreeMap<String, String>,
}

impl Launch<'_> {
    /// Starts the process in a group of its own, with nothing inherited but what is declared.
    ///
    /// It is not our session's foreground, has no terminal on its streams and is nobody's job, so it survives our death and the closing of
    /// our terminal.
    pub(super) fn start(&self) -> Result<RunningProcess, ProvisionError> {
        let filled = self.filled()?;
        let path = filled.env.get("PATH").map_or(self.path, String::as_str);
        let found = self.find(&filled.program, path)?;
        let output = log::open(self.log)
            .and_then(|log| Ok((log.try_clone()?, log)))
            .map_err(|error| super::files::unavailable("write", self.log, error))?;
        let pid = self.spawn(&found, &filled, output)?;
        // Not reaped by anybody but us, so the entry is there even if the process has already ended.
        let started = procfs::process(pid).map_or(0, |process| process.started);
        Ok(RunningProcess {
            pid,
            started,
            boot: procfs::boot(),
            port: self.port,
            token: self.token.to_owned(),
        })
    }

    fn filled(&self) -> Result<Filled, ProvisionError> {
        let value = |place| -> Result<String, WorkloadError> {
            Ok(match place {
                Placeholder::Release => self.release.display().to_string(),
                Placeholder::Data => self.data.display().to_string(),
                Placeholder::Port => self.port.to_string(),
                Placeholder::Environment => self.workload.environment.to_string(),
                Placeholder::Component => self.workload.component.to_string(),
            })
        };
        let malformed = |source| ProvisionError::Workload { resource: self.resource.clone(), source };
        let mut words = self.spec.command().iter().map(|word| word.fill(value).map_err(malformed));
        let program = words.next().unwrap_or_else(|| Err(malformed(WorkloadError::NoProgram)))?;
        let arguments = words.collect::<Result<_, _>>()?;
        let env =
            self.spec.env().map(|(name, text)| Ok((name.to_owned(), text.fill(value).map_err(malformed)?)));
        Ok(Filled { program, arguments, env: env.collect::<Result<_, ProvisionError>>()? })
    }

    /// The program's file: as given if absolute, in the release if it has a `/`, else in the `PATH` that the process gets.
    fn find(&self, program: &str, path: &str) -> Result<PathBuf, ProvisionError> {
        let refuse = |problem: String| ProvisionError::Start {
            resource: self.resource.clone(),
            program: program.to_owned(),
            problem,
            source: None,
        };
        if program.contains('/') {
            let path = self.release.join(program.trim_start_matches("./"));
            return match path.metadata() {
                Ok(found) if !found.is_file() => Err(refuse(format!("{} is no file", path.display()))),
                Ok(found) if found.permissions().mode() & 0o111 == 0 => {
                    Err(refuse(format!("{} is not executable; set its mode in the artifact", path.display())))
                }
                Ok(_) => Ok(path),
                Err(_) => Err(refuse(format!("{} is not there; is it in the artifact?", path.display()))),
            };
        }
        let runs = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(path)
            .map(|dir| dir.join(program))
            .find(runs)
            .ok_or_else(|| refuse(format!("it is in none of {path}; give its path or set another PATH")))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter that starts processes")]
    fn spawn(
        &self,
        program: &Path,
        filled: &Filled,
        (out, err): (std::fs::File, std::fs::File),
    ) -> Result<u32, ProvisionError> {
        // A program just written is busy while any other child, forked meanwhile, has not yet closed its copy of our descriptor.
        const TRIES: usize = 50;
        let mut command = std::process::Command::new(program);
        command
            .args(&filled.arguments)
            .env_clear()
            .env("PATH", self.path)
            .envs(&filled.env)
            .env(MARK, self.token)
            .current_dir(self.release)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0);
        let mut tries = 0;
        loop {
            match command.spawn() {
                Ok(child) => return Ok(child.id()),
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < TRIES => {
                    tries += 1;
                    std::thread::park_timeout(Duration::from_millis(10));
                }
                Err(error) => {
                    return Err(ProvisionError::Start {
                        resource: self.resource.clone(),
                        program: program.display().to_string(),
                        problem: "the system refused; is its interpreter there, and is it for this machine?"
                            .to_owned(),
                        source: Some(error.into()),
                    });
                }
            }
        }
    }
}

/// The process that carries exactly this mark and leads its group, if it runs: what a start left that was never recorded.
pub(super) fn find_by_mark(token: &str, port: u16) -> Option<RunningProcess> {
    let marked = |process: &Process| !process.zombie && procfs::mark(process.pid).as_deref() == Some(token);
    let found = procfs::all().into_iter().find(|process| process.group == process.pid && marked(process))?;
    Some(RunningProcess {
        pid: found.pid,
        started: found.started,
        boot: procfs::boot(),
        port,
        token: token.to_owned(),
    })
}

/// Which processes to stop.
#[derive(Debug)]
pub(super) struct Victims<'a> {
    pub(super) resource: &'a ResourceId,
    /// Every process whose mark is this, or starts with this if it ends with `/`.
    pub(super) mark: &'a str,
    /// Recorded processes, which may have lost their mark (a program may overwrite its environment), with their groups.
    pub(super) recorded: Vec<RunningProcess>,
}

impl Victims<'_> {
    /// Asks all to stop, waits up to `grace`, then makes those stop that are left. Nothing happens if none is there.
    pub(super) fn stop(&self, grace: Duration, patience: &Patience) -> Result<(), ProvisionError> {
        const KILLED: Duration = Duration::from_secs(10);
        let groups = self.groups();
        let living = self.living(&groups);
        if living.is_empty() {
            return Ok(());
        }
        signal(&living, &groups, Signal::TERM);
        let mut pauses = Pauses::new();
        while pauses.within(grace, patience)? {
            if self.living(&groups).is_empty() {
                return Ok(());
            }
        }
        let mut pauses = Pauses::new();
        loop {
            let living = self.living(&groups);
            let Some(first) = living.first() else { return Ok(()) };
            // Again in each round: what a dying process started meanwhile dies too.
            signal(&living, &groups, Signal::KILL);
            if !pauses.within(KILLED, patience)? {
                return Err(ProvisionError::Unstoppable { resource: self.resource.clone(), pid: first.pid });
            }
        }
    }

    /// The groups that are ours as a whole: led by a process that is certainly the recorded or marked one.
    fn groups(&self) -> BTreeSet<u32> {
        let recorded = self.recorded.iter().filter_map(procfs::same);
        let marked = procfs::all().into_iter().filter(|process| self.is_marked(process));
        recorded
            .chain(marked)
            .filter(|process| process.group == process.pid)
            .map(|process| process.pid)
            .collect()
    }

    /// Those that have not ended. Ended ones that are our children are reaped on the way.
    fn living(&self, groups: &BTreeSet<u32>) -> Vec<Process> {
        let own = std::process::id();
        let mut all = procfs::all();
        all.retain(|process| {
            let ours = process.pid != own && (groups.contains(&process.group) || self.is_marked(process));
            if ours {
                procfs::reap(process);
            }
            ours && !process.zombie
        });
        all
    }

    fn is_marked(&self, process: &Process) -> bool {
        !process.zombie
            && procfs::mark(process.pid).is_some_and(|mark| {
                mark == self.mark || self.mark.ends_with('/') && mark.starts_with(self.mark)
            })
    }
}

/// Sends `signal` to the groups whose leader lives, at once, and one by one to the others.
fn signal(living: &[Process], groups: &BTreeSet<u32>, signal: Signal) {
    let led: BTreeSet<u32> =
        living.iter().map(|process| process.pid).filter(|pid| groups.contains(pid)).collect();
    for leader in &led {
        if let Some(group) = pid(*leader) {
            // It may have ended since; then there is nothing to signal.
            rustix::process::kill_process_group(group, signal).ok();
        }
    }
    for process in living.iter().filter(|process| !led.contains(&process.group)) {
        signal_one(process, signal);
    }
}

/// Through a pidfd, which stays with the process: between our look and the signal the id cannot become another's.
#[cfg(target_os = "linux")]
fn signal_one(process: &Process, signal: Signal) {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    let Some(id) = pid(process.pid) else { return };
    let Ok(handle) = pidfd_open(id, PidfdFlags::empty()) else { return };
    if procfs::process(process.pid).is_some_and(|now| now.started == process.started) {
        pidfd_send_signal(&handle, signal).ok();
    }
}

/// Never called: without `/proc` there is no process to signal.
#[cfg(not(target_os = "linux"))]
fn signal_one(_process: &Process, _signal: Signal) {}

fn pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}
