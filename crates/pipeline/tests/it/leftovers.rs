//! After a cancelled or timed-out run nothing is left: no process, no container, no lock, no lease.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    id::{Key, RunId},
    lease::{Leases, StoreLeases},
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    exec::{Executor, LocalExecutor},
    plan::{Limits, Planner, Policy},
    run::{Ended, Progress, Reporter},
    step::Effect,
    steps::{self, RunCommand},
};

use crate::{
    places::{Podman, Sshd, eventually},
    world::authority,
};

/// Cancels once the command says that it is up.
#[derive(Debug)]
struct CancelWhenUp(Cancel);

impl Reporter for CancelWhenUp {
    fn report(&self, progress: &Progress<'_>) {
        if matches!(progress, Progress::Line { line, .. } if line.bytes == b"up") {
            self.0.cancel();
        }
    }
}

/// Keeps what was said.
#[derive(Debug, Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Reporter for Said {
    fn report(&self, progress: &Progress<'_>) {
        if let Progress::Line { line, .. } = progress {
            self.0.lock().unwrap().push(line.text());
        }
    }
}

#[tokio::test]
async fn a_step_tells_what_it_left_behind() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(LocalExecutor::new(Arc::clone(&clock)))).unwrap();
    let registry = Arc::new(registry);
    for (script, left) in [("sleep 300 & setsid sleep 300 & sleep 0.2", 2), ("sleep 0.1 & wait", 0)] {
        let mut pipeline = Pipeline::new("leftovers", "storefront".parse().unwrap());
        let serve = RunCommand::new("/bin/sh", "/", Effect::idempotent())
            .args(["-c", script])
            .env("PATH", "/usr/bin:/bin");
        pipeline.step("serve", serve);
        let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let said = Said::default();
        let runner =
            Runner::new(Arc::new(MemoryStore::new()), Arc::clone(&registry), authority(), Arc::clone(&clock))
                .reporter(Arc::new(said.clone()));
        let report = runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap();
        assert!(report.succeeded(), "{report:?}");
        let said = said.0.lock().unwrap().join("\n");
        let found =
            said.split_once("left ").map_or(0, |(_, rest)| rest.split(' ').next().unwrap().parse().unwrap());
        assert_eq!(found, left, "{script}: {said}");
    }
}

/// How many processes of this host have `mark` in their environment.
fn marked(mark: &str) -> usize {
    let holds = |entry: &fs::DirEntry| {
        let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    fs::read_dir("/proc").unwrap().flatten().filter(holds).count()
}

/// What ends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Cancel,
    /// Its own limit, which its executor keeps.
    Limit,
    /// The limits of its step, which the run keeps.
    Attempt,
    Total,
    Heartbeat,
}

impl By {
    const ALL: [Self; 5] = [Self::Cancel, Self::Limit, Self::Attempt, Self::Total, Self::Heartbeat];

    fn limits(self, ms: u64) -> Limits {
        match self {
            Self::Cancel | Self::Limit => Limits::default(),
            Self::Attempt => Limits { attempt_ms: Some(ms), ..Limits::default() },
            Self::Total => Limits { total_ms: Some(ms), ..Limits::default() },
            Self::Heartbeat => Limits { heartbeat_ms: Some(ms), ..Limits::default() },
        }
    }

    fn says(self, ms: u64) -> String {
        match self {
            Self::Cancel => "cancelled".to_owned(),
            Self::Limit => "did not end within its limit".to_owned(),
            Self::Attempt | Self::Total => "the attempt took longer than".to_owned(),
            Self::Heartbeat => format!("gave no sign of life for {ms} ms"),
        }
    }
}

/// Runs a command that is deaf to SIGTERM and has children, and ends it.
async fn nothing_is_left(executor: Arc<dyn Executor>, name: &str, by: By, ms: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mark = format!("MARK={name}-{}-{by:?}", std::process::id());
    let script = "trap '' TERM; (sleep 300 & sleep 300) & setsid sh -c 'trap \"\" TERM; sleep 300 & exit' & echo up; \
                  while :; do sleep 1; done";
    let mut command = RunCommand::new("/bin/sh", dir.path(), Effect::idempotent())
        .args(["-c", script])
        .env("PATH", "/usr/bin:/bin")
        .env("MARK", mark.split_once('=').unwrap().1);
    command.limit_ms = (by == By::Limit).then_some(ms);
    let mut pipeline = Pipeline::new("leftovers", "storefront".parse().unwrap());
    let step = pipeline.step("serve", command);
    let mut policy = Policy::default();
    policy.limits = by.limits(ms);
    policy.locks = ["production".to_owned()].into();
    pipeline.policy(&step, policy);

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    steps::register(&mut registry, executor).unwrap();
    let registry = Arc::new(registry);
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let (store, cancel): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new()), Cancel::new());
    let mut runner = Runner::new(Arc::clone(&store), registry, authority(), Arc::clone(&clock));
    if by == By::Cancel {
        runner = runner.reporter(Arc::new(CancelWhenUp(cancel.clone())));
    }
    let report = runner.run(&RunId::new("one").unwrap(), &plan, &cancel).await.unwrap();
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{name}: {report:?}") };
    assert!(cause.to_string().contains(&by.says(ms)), "{name}: {cause}");

    let leases = StoreLeases::new(Arc::clone(&store), clock);
    for lease in ["lease/lock/production", "lease/run/one"] {
        assert_eq!(leases.holder(&Key::new(lease).unwrap()).await.unwrap(), None, "{name}: {lease}");
    }
    eventually("the end of every process", || marked(&mark) == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_on_this_host() {
    let executor = LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_millis(300));
    for by in By::ALL {
        nothing_is_left(Arc::new(executor.clone()), "local", by, 500).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_container() {
    let Some(podman) = Podman::start() else { return };
    let executor = podman.executor().await.with_grace(SignedDuration::from_millis(300));
    for by in By::ALL {
        // The engine's own work counts, too.
        nothing_is_left(Arc::new(executor.clone()), "container", by, 5_000).await;
        assert_eq!(podman.containers(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_on_another_host() {
    let Some(sshd) = Sshd::start() else { return };
    for by in By::ALL {
        nothing_is_left(Arc::new(sshd.executor()), "ssh", by, 500).await;
    }
}
