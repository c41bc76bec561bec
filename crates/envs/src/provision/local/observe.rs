//! What is there: the record, compared with the processes and files that really are.

use super::{
    Host,
    lock::Held,
    log,
    process::find_by_mark,
    procfs, readiness,
    record::{Place, Release, Start},
};
use crate::provision::{
    Instance, InstanceState, Observed, ProcessSpec, ProvisionError, RunningProcess, Workload, WorkloadKind,
};

impl Host {
    /// What is there. Takes no lock, so that a change in progress can be watched.
    pub(super) fn observe(&self, place: &Place) -> Result<Observed, ProvisionError> {
        let Some(mut record) = place.read()? else { return Ok(Observed::default()) };
        let active = place.active();
        record.settle(active);
        let seen: Vec<(u64, Look)> = record
            .releases
            .iter()
            .map(|(number, release)| (*number, look(place, *number, release)))
            .collect();
        self.keep_house(place, &seen);
        let instances = seen.into_iter().filter_map(|(number, look)| {
            let release = record.releases.get(&number)?;
            let process = look.process().cloned();
            Some(Instance {
                id: release.instance,
                artifact: release.workload.artifact,
                kind: release.workload.kind.clone(),
                number,
                state: look.state(&release.workload),
                staged: release.staged,
                activated: release.activated,
                log: matches!(release.workload.kind, WorkloadKind::Process(_)).then(|| place.log(number)),
                directory: Some(place.release(number)),
                process,
            })
        });
        Ok(Observed {
            instances: instances.collect(),
            active: active.and_then(|number| record.releases.get(&number)).map(|release| release.instance),
        })
    }

    /// Keeps how a process ended and bounds its log, if nobody is changing the resource; if not, another observation will.
    fn keep_house(&self, place: &Place, seen: &[(u64, Look)]) {
        let ended = seen.iter().any(|(_, look)| matches!(look, Look::Ended { news: true, .. }));
        let long = |number: &u64| log::length(&place.log(*number)) > self.options.log_limit;
        if !ended && !seen.iter().any(|(number, _)| long(number)) {
            return;
        }
        let Ok(Some(_lock)) = Held::attempt(&place.lock) else { return };
        for (number, _) in seen {
            log::bound(&place.log(*number), self.options.log_limit).ok();
        }
        let Ok(Some(mut record)) = place.read() else { return };
        for (number, look) in seen {
            let start = record.releases.get_mut(number).and_then(|release| release.start.as_mut());
            if let (Some(start), Look::Ended { token, why, news: true }) = (start, look)
                && start.token == *token
            {
                start.ended = Some(why.clone());
            }
        }
        place.write(&record).ok();
    }
}

/// How one release was found.
#[derive(Debug)]
pub(super) enum Look {
    /// Its files or its process were never there.
    Unfinished,
    /// Its files are there, and that is all it needs.
    Files,
    /// Its process runs.
    Running(RunningProcess),
    /// Its process ended; `news` if the record does not know how.
    Ended { token: String, why: String, news: bool },
    /// It was retired.
    Stopped,
}

impl Look {
    pub(super) fn process(&self) -> Option<&RunningProcess> {
        match self {
            Self::Running(process) => Some(process),
            _ => None,
        }
    }

    /// Asks a running process whether it answers.
    pub(super) fn state(&self, workload: &Workload) -> InstanceState {
        match self {
            Self::Unfinished => InstanceState::Starting,
            Self::Files => InstanceState::Ready,
            Self::Stopped => InstanceState::Stopped,
            Self::Ended { why, .. } => InstanceState::Failed { why: why.clone() },
            Self::Running(process) => match &workload.kind {
                WorkloadKind::Process(spec) if answers(process, spec).is_ok() => InstanceState::Ready,
                _ => InstanceState::Starting,
            },
        }
    }
}

pub(super) fn look(place: &Place, number: u64, release: &Release) -> Look {
    if release.stopped {
        return Look::Stopped;
    }
    if !place.release(number).is_dir() {
        return Look::Unfinished;
    }
    match (&release.workload.kind, &release.start) {
        (WorkloadKind::Static, _) => Look::Files,
        (WorkloadKind::Process(_), None) => Look::Unfinished,
        (WorkloadKind::Process(_), Some(start)) => look_at_start(start),
    }
}

pub(super) fn look_at_start(start: &Start) -> Look {
    let ended = |why: String, news| Look::Ended { token: start.token.clone(), why, news };
    if let Some(why) = &start.ended {
        return ended(why.clone(), false);
    }
    let Some(recorded) = &start.process else {
        // The deployer died between the start and its record, or before the start.
        return find_by_mark(&start.token, start.port).map_or(Look::Unfinished, Look::Running);
    };
    match procfs::same(recorded) {
        Some(found) if !found.zombie => Look::Running(recorded.clone()),
        Some(zombie) => {
            let why = procfs::reap(&zombie);
            ended(why.unwrap_or_else(|| "it ended".to_owned()), true)
        }
        None if recorded.boot == procfs::boot() => {
            ended("it ended while nobody was looking".to_owned(), true)
        }
        None => ended("the host was started again since".to_owned(), true),
    }
}

/// Whether the process answers, and nobody else in its place.
pub(super) fn answers(process: &RunningProcess, spec: &ProcessSpec) -> Result<(), String> {
    readiness::probe(process.port, spec.readiness())
}
