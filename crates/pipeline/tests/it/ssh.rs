//! The executor over SSH against an sshd on loopback.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    digest::Digest,
    error::{ErrorKind, Kinded, Retry},
    id::RunId,
    secret::Secret,
    store::MemoryStore,
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    exec::{Command, ExecError, Executor, Line, SshExecutor, SshHost},
    plan::{Planner, Policy, Retry as Retries},
    run::{Progress, Reporter},
    step::Effect,
    steps::{self, RunCommand},
    testkit,
};
use futures_util::stream::{self, StreamExt};

use crate::{
    places::{Sshd, eventually},
    world::authority,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_ssh_executor_keeps_every_promise() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let executor: Arc<dyn Executor> = Arc::new(sshd.executor());
    let checks = testkit::executor_promises()
        .map(|promise| testkit::executor_promise(Arc::clone(&executor), dir.path(), promise));
    let broken: Vec<_> =
        stream::iter(checks).buffer_unordered(2).filter_map(std::future::ready).collect().await;
    assert!(broken.is_empty(), "{broken:#?}");
}

fn sh(script: &str, dir: &Path) -> Command {
    Command::new("/bin/sh", dir).args(["-c", script]).env("PATH", "/usr/bin:/bin")
}

async fn said(executor: &SshExecutor, command: &Command) -> Result<String, ExecError> {
    let exited = executor.run(command, &mut |_| {}, &Cancel::new()).await?;
    Ok(String::from_utf8(exited.stdout).unwrap().trim().to_owned())
}

#[tokio::test]
async fn only_the_known_host_is_spoken_to_and_nobody_is_asked() {
    let Some(sshd) = Sshd::start() else { return };
    let other = fs::read_to_string(sshd.path("known")).unwrap();
    let (address, _) = other.split_once(' ').unwrap();
    let user = fs::read_to_string(sshd.path("user.pub")).unwrap();
    fs::write(sshd.path("changed"), format!("{address} {user}")).unwrap();
    fs::write(sshd.path("empty"), "").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = |error: ExecError| match error {
        ExecError::Unreachable { kind, source, .. } => (kind, source.to_string()),
        other => panic!("{other:?}"),
    };
    for known in ["empty", "changed", "missing"] {
        let executor = SshExecutor::new(sshd.host_trusting(known), Arc::new(SystemClock));
        let (kind, why) = place(said(&executor, &sh("true", dir.path())).await.unwrap_err());
        assert_eq!(kind, ErrorKind::Denied, "{known}: {why}");
    }
    // The host's own key lets nobody in.
    let executor = SshExecutor::new(sshd.host().with_identity(sshd.path("host")), Arc::new(SystemClock));
    let (kind, why) = place(said(&executor, &sh("true", dir.path())).await.unwrap_err());
    assert_eq!(kind, ErrorKind::Denied, "{why}");
    assert!(why.contains("Permission denied"), "{why}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let executor = SshExecutor::new(sshd.host().with_port(nobody), Arc::new(SystemClock));
    let error = said(&executor, &sh("true", dir.path())).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unknown()), (ErrorKind::Unavailable, false), "{error:?}");
}

#[tokio::test]
async fn a_lost_connection_ends_the_far_process_and_leaves_the_effect_unknown() {
    let Some(mut sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let executor = sshd.executor();
    let script =
        "echo up; trap '' TERM; i=0; while [ $i -lt 1200 ]; do echo x >>beat; sleep 0.05; i=$((i+1)); done";
    let mut up = |line: Line| {
        assert_eq!(line.text(), "up");
        sshd.vanish();
    };
    let error = executor.run(&sh(script, dir.path()), &mut up, &Cancel::new()).await.unwrap_err();
    assert!(error.is_unknown() && matches!(error, ExecError::Interrupted { .. }), "{error:?}");
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later));
    let text = error.to_string();
    let (before, after) = (text.split(' ').next().unwrap(), text.split_once(" while ").unwrap().1);
    insta::assert_snapshot!(format!("{before} … while {after}"), @"lost … while `/bin/sh` ran there; whether it took effect is unknown: probe before running it again");
    let size = || fs::metadata(dir.path().join("beat")).map_or(0, |file| file.len());
    let mut before = size();
    let mut quiet = 0;
    eventually("the end of the far process", || {
        quiet = if size() == before { quiet + 1 } else { 0 };
        before = size();
        quiet > 15
    });
}

/// Once the command says that it is up, the host goes away and comes back.
#[derive(Debug)]
struct Outage(Mutex<Sshd>);

impl Reporter for Outage {
    fn report(&self, progress: &Progress<'_>) {
        if matches!(progress, Progress::Line { line, .. } if line.bytes == b"up") {
            let mut sshd = self.0.lock().unwrap();
            sshd.vanish();
            sshd.come_back();
        }
    }
}

#[tokio::test]
async fn after_a_lost_connection_the_world_is_asked_and_nothing_is_done_twice() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(sshd.executor())).unwrap();
    let registry = Arc::new(registry);
    let mut pipeline = Pipeline::new("deploy", "storefront".parse().unwrap());
    let command = RunCommand::new("/bin/sh", dir.path(), Effect::Probed)
        .args(["-c", "echo once >>did; echo up; exec sleep 300"])
        .env("PATH", "/usr/bin:/bin")
        .probed_by("/bin/sh", ["-c".to_owned(), "test -e did && cat did".to_owned()]);
    let step = pipeline.step("migrate", command);
    let mut policy = Policy::default();
    policy.retry = Some(Retries { attempts: 20, first_ms: 100, cap_ms: 200, ..Retries::default() });
    pipeline.policy(&step, policy);
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority(), clock)
        .reporter(Arc::new(Outage(Mutex::new(sshd))));
    let report = runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.state.output(&step).unwrap().unwrap().stdout, "once");
    assert_eq!(fs::read_to_string(dir.path().join("did")).unwrap(), "once\n");
}

#[tokio::test]
async fn a_file_is_sent_once_and_verified_each_time() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "same\n").unwrap();
    fs::write(dir.path().join("b"), "same\n").unwrap();
    fs::write(dir.path().join("c"), "other\n").unwrap();
    let executor = sshd.executor();
    let command = sh("cat a b c; ls", dir.path()).reads("a").reads("b").reads("c");
    let expected = "same\nsame\nother\na\nb\nc";
    assert_eq!(said(&executor, &command).await.unwrap(), expected);
    let blob = sshd.path("remote/blob").join(Digest::of("same\n").hex());
    let made = || fs::metadata(&blob).unwrap().modified().unwrap();
    let first = made();
    assert_eq!(fs::read_dir(sshd.path("remote/blob")).unwrap().count(), 2, "one for each content");
    assert_eq!(said(&executor, &command).await.unwrap(), expected);
    assert_eq!(made(), first, "it was there");

    fs::remove_file(&blob).unwrap();
    fs::write(&blob, "damaged").unwrap();
    assert_eq!(said(&executor, &command).await.unwrap(), expected);
    assert_eq!(fs::read(&blob).unwrap(), b"same\n");
    eventually("the removal of the last directory", || {
        fs::read_dir(sshd.path("remote/run")).unwrap().count() == 0
    });

    // What nobody needs any more goes; what is old and needed stays, and is young again.
    let unused = sshd.path("remote/blob/unused");
    fs::write(&unused, "").unwrap();
    let long_ago = made() - Duration::from_secs(40 * 24 * 3_600);
    for path in [&unused, &blob] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(said(&executor, &command).await.unwrap(), expected);
    assert!(!unused.exists() && made() > long_ago + Duration::from_secs(24 * 3_600));
}

#[tokio::test]
async fn a_secret_stands_on_no_command_line_and_the_connection_goes_with_the_executor() {
    let Some(sshd) = Sshd::start() else { return };
    let executor = sshd.executor();
    let look = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline; echo; done 2>/dev/null; echo \"=$KEY\"";
    let command = sh(look, "/".as_ref()).secret_env("KEY", Secret::new("correct-horse-battery"));
    let seen = said(&executor, &command).await.unwrap();
    assert!(seen.contains("ControlMaster=no") && seen.contains("StrictHostKeyChecking=yes"), "{seen}");
    assert!(seen.ends_with("=***") && !seen.trim_end_matches("=***").contains("***"), "{seen}");
    let marked = sshd.path("user").display().to_string();
    let ours = || {
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&marked))
        })
        .count()
    };
    assert!(ours() > 0);
    drop(executor);
    eventually("the end of the connection", || ours() == 0);
}

#[tokio::test]
async fn what_cannot_be_carried_over_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let executor =
        SshExecutor::new(SshHost::new("nobody@127.0.0.1", "/no/known").unwrap(), Arc::new(SystemClock))
            .with_grace(SignedDuration::from_millis(100));
    let odd = sh("true", dir.path()).secret_env("a.b", Secret::new("secret-value"));
    let program = Command::new("a=b", dir.path());
    for command in [odd, program] {
        let error = said(&executor, &command).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    }
}
