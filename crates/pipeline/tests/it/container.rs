//! The container executor against Podman's service.

use std::{process::Stdio, sync::Arc};

use flowline_core::{
    SignedDuration,
    clock::SystemClock,
    error::{ErrorKind, Kinded, Retry},
};
use flowline_pipeline::{
    Cancel,
    exec::{Command, ContainerExecutor, Engine, ExecError, Executor, Image, Line},
    testkit,
};
use futures_util::stream::{self, StreamExt};

use crate::places::{Podman, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn the_container_executor_keeps_every_promise() {
    let Some(podman) = Podman::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let executor: Arc<dyn Executor> = Arc::new(podman.executor().await);
    let checks = testkit::executor_promises()
        .map(|promise| testkit::executor_promise(Arc::clone(&executor), dir.path(), promise));
    let broken: Vec<_> =
        stream::iter(checks).buffer_unordered(4).filter_map(std::future::ready).collect().await;
    assert!(broken.is_empty(), "{broken:#?}");
    eventually("the removal of the last container", || podman.containers().is_empty());
}

fn sh(script: &str, dir: &std::path::Path) -> Command {
    Command::new("/bin/sh", dir).args(["-c", script])
}

async fn said(executor: &ContainerExecutor, command: &Command) -> Result<String, ExecError> {
    let exited = executor.run(command, &mut |_| {}, &Cancel::new()).await?;
    Ok(String::from_utf8(exited.stdout).unwrap().trim().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_given_little() {
    let Some(podman) = Podman::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let executor = podman.executor().await.with_user(1234, 5678).with_memory(32 << 20).with_pids(20);
    let look = "id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status | tr -d '\\t'; \
                touch /x 2>/dev/null || echo read-only; touch /tmp/x && echo scratch; touch here 2>&1 || echo declared";
    let seen = said(&executor, &sh(look, dir.path())).await.unwrap();
    insta::assert_snapshot!(seen, @r"
    1234
    5678
    CapEff:0000000000000000
    CapBnd:0000000000000000
    NoNewPrivs:1
    read-only
    scratch
    touch: here: Read-only file system
    declared
    ");
    let scratch = executor.clone().with_scratch_dir();
    assert_eq!(said(&scratch, &sh("touch here && ls", dir.path())).await.unwrap(), "here");
    assert!(!dir.path().join("here").exists());

    let forks = format!("for i in {}; do sleep 5 & done; echo all", "x ".repeat(25));
    let forked = said(&executor, &sh(&forks, dir.path())).await;
    assert!(!matches!(&forked, Ok(said) if said == "all"), "{forked:?}");

    // A pipe keeps as much as it is asked for, and the shell ends as its last command did.
    for eats in
        ["exec tail -c 100000000 /dev/zero", "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c"]
    {
        let eats = sh(&format!("set -o pipefail; {eats}"), dir.path()).limit(SignedDuration::from_secs(30));
        let error = said(&executor, &eats).await.unwrap_err();
        let limited = matches!(error, ExecError::OutOfMemory { limit, .. } if limit == 32 << 20);
        assert!(limited, "{error:?}");
    }
    let eats = sh("head -c 100000000 /dev/zero | tail -c 100000000 | wc -c", dir.path());
    assert_eq!(said(&executor.clone().with_memory(400 << 20), &eats).await.unwrap(), "100000000");
    let error = said(&executor, &sh("kill -9 $$", dir.path())).await.unwrap_err();
    assert!(matches!(error, ExecError::Signal { signal: 9, .. }), "{error:?}");

    let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reach = format!("nc -w 2 127.0.0.1 {} </dev/null && echo reached", open.local_addr().unwrap().port());
    // Whoever comes is sent away, so that `nc` ends.
    std::thread::spawn(move || open.accept().map(drop));
    let mut reach = sh(&reach, dir.path()).limit(SignedDuration::from_secs(20));
    assert!(said(&executor, &reach).await.is_err());
    reach.network = true;
    let other = executor.clone().with_network("host");
    assert_eq!(said(&other, &reach).await.unwrap(), "reached");

    let digest = format!("localhost/none@sha256:{}", "0".repeat(64));
    let none =
        ContainerExecutor::new(executor.engine().clone(), digest.parse().unwrap(), Arc::new(SystemClock));
    let error = said(&none, &sh("true", dir.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    insta::assert_snapshot!(error, @"cannot start `/bin/sh`: the container engine has no image `localhost/none@sha256:0000000000000000000000000000000000000000000000000000000000000000`; pull it first, by its digest");

    let tagged = Image::tagged("localhost/flowline-test:1").unwrap();
    let tagged = ContainerExecutor::new(executor.engine().clone(), tagged, Arc::new(SystemClock));
    assert_eq!(said(&tagged, &sh("echo hi", dir.path())).await.unwrap(), "hi");
    // Whoever runs `env` and fails like it is not taken for it.
    let other = sh("env nosuch", dir.path());
    let error = said(&tagged, &other).await.unwrap_err();
    assert!(matches!(&error, ExecError::Code { code: 127, last, .. } if last.len() == 1), "{error:?}");
    let error = said(&tagged, &Command::new("nosuch", dir.path()).env("PATH", "/bin")).await.unwrap_err();
    assert!(matches!(error, ExecError::NoProgram { .. }), "{error:?}");
    let no_env = tagged.with_env_program("/no/env");
    let error = said(&no_env, &sh("true", dir.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
    assert_eq!(podman.containers(), Vec::<String>::new());
}

/// Runs in a process of its own, which is killed: see the next test.
#[tokio::test]
#[ignore = "only started by another test"]
async fn left_behind() {
    #[expect(clippy::disallowed_methods, reason = "the test that starts this one says where")]
    let (Ok(socket), Ok(image)) =
        (std::env::var("FLOWLINE_TEST_SOCKET"), std::env::var("FLOWLINE_TEST_IMAGE"))
    else {
        return;
    };
    let engine = Engine::connect(socket).await.unwrap();
    let executor = ContainerExecutor::new(engine, image.parse().unwrap(), Arc::new(SystemClock));
    let mut command = sh("sleep 300", "/".as_ref());
    command.labels.insert("step".to_owned(), "orphan".to_owned());
    executor.run(&command, &mut |_| {}, &Cancel::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_left_is_removed_by_the_next_and_only_that() {
    let Some(podman) = Podman::start() else { return };
    let executor = podman.executor().await;
    let engine = executor.engine().clone();
    assert_eq!(engine.sweep().await.unwrap(), Vec::<String>::new());
    let cancel = Cancel::new();
    let living = tokio::spawn({
        let (executor, cancel) = (executor.clone(), cancel.clone());
        async move { executor.run(&sh("sleep 300", "/".as_ref()), &mut |_| {}, &cancel).await }
    });
    #[expect(clippy::disallowed_methods, reason = "the test kills a process of its own")]
    let mut other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "container::left_behind", "--ignored"])
        .env("FLOWLINE_TEST_SOCKET", podman.socket())
        .env("FLOWLINE_TEST_IMAGE", podman.image().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let orphan = |names: &[String]| names.iter().filter(|name| name.starts_with("flowline-orphan-")).count();
    eventually("both containers", || {
        let names = podman.containers();
        names.len() == 2 && orphan(&names) == 1
    });
    assert_eq!(engine.sweep().await.unwrap(), Vec::<String>::new(), "both processes live");
    other.kill().unwrap();
    other.wait().unwrap();
    let next = Engine::connect(podman.socket()).await.unwrap();
    let swept = next.sweep().await.unwrap();
    assert_eq!(orphan(&swept), 1, "{swept:?}");
    assert_eq!(podman.containers().len(), 1);
    cancel.cancel();
    let error = living.await.unwrap().unwrap_err();
    assert!(matches!(error, ExecError::Cancelled { .. }), "{error:?}");
    assert_eq!(podman.containers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_that_cannot_be_seen_left_is_removed_once_its_time_is_over() {
    let Some(podman) = Podman::start() else { return };
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let owner = format!("flowline.owner={}/pid:[1]/1/1", boot.trim());
    for (name, lifetime) in [("fresh", "3600"), ("late", "-5"), ("odd", "soon")] {
        podman.make(name, &[owner.clone(), format!("flowline.lifetime={lifetime}")]);
    }
    podman.make("foreign", &["flowline.lifetime=-5".to_owned()]);
    let swept = Engine::connect(podman.socket()).await.unwrap().sweep().await.unwrap();
    assert_eq!(swept, ["late"]);
    let mut left = podman.containers();
    left.sort();
    assert_eq!(left, ["foreign", "fresh", "odd"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_goes_away_leaves_the_effect_unknown() {
    let Some(mut podman) = Podman::start() else { return };
    let executor = podman.executor().await;
    let mut up = |line: Line| {
        assert_eq!(line.text(), "up");
        podman.vanish();
    };
    let error =
        executor.run(&sh("echo up; sleep 300", "/".as_ref()), &mut up, &Cancel::new()).await.unwrap_err();
    assert!(error.is_unknown() && matches!(error, ExecError::Interrupted { .. }), "{error:?}");
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Later));

    let error = executor.run(&sh("true", "/".as_ref()), &mut |_| {}, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, ExecError::Unreachable { .. }) && !error.is_unknown(), "{error:?}");
    let error = Engine::connect(podman.socket()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
