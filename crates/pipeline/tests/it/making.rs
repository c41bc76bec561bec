//! Whoever goes away while the engine makes or starts a container leaves none behind.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use flowline_core::{SignedDuration, clock::SystemClock};
use flowline_pipeline::{
    Cancel,
    exec::{Command, ContainerExecutor, Engine, ExecError, Executor},
};
use futures_util::future::{Either, select};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::{Notify, watch},
};

use crate::places::{Podman, eventually};

/// Stands before an engine, and holds back every request that names `needle` until it is let through.
struct Gate {
    socket: PathBuf,
    held: Arc<Notify>,
    open: watch::Sender<bool>,
    _dir: tempfile::TempDir,
}

impl Gate {
    fn before(podman: &Podman, needle: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, engine) = (dir.path().join("gate.sock"), podman.socket());
        let listener = UnixListener::bind(&socket).unwrap();
        let (held, (open, opened)) = (Arc::new(Notify::new()), watch::channel(false));
        let seen = Arc::clone(&held);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let engine = UnixStream::connect(&engine).await.unwrap();
                tokio::spawn(pass(client, engine, needle, Arc::clone(&seen), opened.clone()));
            }
        });
        Self { socket, held, open, _dir: dir }
    }

    async fn executor(&self, podman: &Podman) -> ContainerExecutor {
        let engine = Engine::connect(&self.socket).await.unwrap();
        ContainerExecutor::new(engine, podman.image(), Arc::new(SystemClock))
            .with_grace(SignedDuration::from_millis(300))
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

/// Passes everything on. An engine does what it was asked whether or not anybody waits for the answer, so its side stays open.
async fn pass(
    client: UnixStream,
    engine: UnixStream,
    needle: &str,
    held: Arc<Notify>,
    mut opened: watch::Receiver<bool>,
) {
    let ((mut asks, mut hears), (mut answers, mut does)) = (client.into_split(), engine.into_split());
    tokio::spawn(async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = answers.read(&mut buffer).await {
            hears.write_all(&buffer[..read]).await.ok();
        }
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = asks.read(&mut buffer).await {
        let asked = &buffer[..read];
        if asked.windows(needle.len()).any(|window| window == needle.as_bytes()) {
            held.notify_one();
            opened.wait_for(|open| *open).await.ok();
        }
        does.write_all(asked).await.unwrap();
    }
    std::future::pending::<()>().await;
}

fn sleeps() -> Command {
    Command::new("/bin/sh", "/").args(["-c", "sleep 300"])
}

/// What the request is called that makes, and the one that starts.
const REQUESTS: [&str; 2] = ["/containers/create", "/start"];

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_does_not_wait_for_the_engine_and_leaves_no_container() {
    let Some(podman) = Podman::start() else { return };
    for request in REQUESTS {
        let gate = Gate::before(&podman, request);
        let (executor, cancel) = (gate.executor(&podman).await, Cancel::new());
        let command = sleeps();
        let mut ignored = |_| {};
        let stop = async {
            gate.held.notified().await;
            cancel.cancel();
        };
        let (ended, ()) =
            futures_util::future::join(executor.run(&command, &mut ignored, &cancel), stop).await;
        assert!(matches!(ended, Err(ExecError::Cancelled { killed: false, .. })), "{request}: {ended:?}");
        gate.open();
        goes(&podman, &executor, request).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_counts_while_the_engine_works() {
    let Some(podman) = Podman::start() else { return };
    for request in REQUESTS {
        let gate = Gate::before(&podman, request);
        let executor = gate.executor(&podman).await;
        // Longer than it takes to get there.
        let command = sleeps().limit(SignedDuration::from_secs(3));
        let ended = executor.run(&command, &mut |_| {}, &Cancel::new()).await;
        assert!(matches!(ended, Err(ExecError::TimedOut { killed: false, .. })), "{request}: {ended:?}");
        gate.open();
        goes(&podman, &executor, request).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_meanwhile_leaves_no_container() {
    let Some(podman) = Podman::start() else { return };
    for request in REQUESTS {
        let gate = Gate::before(&podman, request);
        let (executor, cancel, command) = (gate.executor(&podman).await, Cancel::new(), sleeps());
        {
            let mut ignored = |_| {};
            let run = executor.run(&command, &mut ignored, &cancel);
            match select(run, std::pin::pin!(gate.held.notified())).await {
                Either::Left((ended, _)) => panic!("{request}: {ended:?}"),
                Either::Right(((), run)) => drop(run),
            }
        }
        gate.open();
        goes(&podman, &executor, request).await;
    }
}

/// The engine does what was held back, and then there is no container. Another one proves that requests get through.
async fn goes(podman: &Podman, executor: &ContainerExecutor, request: &str) {
    let quick = Command::new("/bin/true", "/");
    executor.run(&quick, &mut |_| {}, &Cancel::new()).await.unwrap();
    let mut empty = 0;
    eventually(&format!("{request}: the removal of every container"), || {
        empty = if podman.containers().is_empty() { empty + 1 } else { 0 };
        empty > 5
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_asked_for_before_it_was_killed_is_removed_by_the_next() {
    let Some(podman) = Podman::start() else { return };
    let gate = Gate::before(&podman, REQUESTS[0]);
    #[expect(clippy::disallowed_methods, reason = "the test kills a process of its own")]
    let mut other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "container::left_behind", "--ignored"])
        .env("FLOWLINE_TEST_SOCKET", &gate.socket)
        .env("FLOWLINE_TEST_IMAGE", podman.image().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    gate.held.notified().await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(podman.containers(), Vec::<String>::new());
    gate.open();
    tokio::task::block_in_place(|| eventually("the making", || podman.containers().len() == 1));
    let swept = Engine::connect(podman.socket()).await.unwrap().sweep().await.unwrap();
    assert!(matches!(&swept[..], [name] if name.starts_with("flowline-orphan-")), "{swept:?}");
    assert_eq!(podman.containers(), Vec::<String>::new());
}
