use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::SystemClock};
use flowline_pipeline::{
    Cancel,
    exec::{
        Command, ExecError, Executor, ExecutorCapabilities, Exited, Line, Lines, LocalExecutor, MARK, Masker,
    },
    testkit,
};

fn local() -> LocalExecutor {
    LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_millis(300))
}

#[tokio::test]
async fn the_local_executor_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let report = testkit::executor(Arc::new(local()), dir.path()).await;
    report.assert();
    let kept = ["what was not declared cannot be seen", "a declared input cannot be changed"];
    let kept = kept.into_iter().chain(["what was not declared cannot be written"]);
    assert!(
        kept.chain(["the network is closed unless it is declared"]).eq(report.skipped.iter().copied()),
        "{report}"
    );
    assert_eq!(report.passed.len() + report.skipped.len(), testkit::executor_promises().count());
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    MoreEnvironment,
    ShellArguments,
    OtherDirectory,
    SwallowsCode,
    LossyText,
    NoMask,
    WholeLinesOnly,
    IgnoresCancel,
    Detaches,
    IgnoresLimit,
    ForgetsFiles,
    Lenient,
    ClaimsFiles,
    ClaimsNetwork,
    DropsMark,
    Untold,
}

/// The local executor with one fault.
#[derive(Debug)]
struct Faulty(LocalExecutor, Fault);

#[async_trait]
impl Executor for Faulty {
    fn capabilities(&self) -> ExecutorCapabilities {
        let mut claimed = self.0.capabilities();
        claimed.hermetic_files = matches!(self.1, Fault::ClaimsFiles);
        claimed.hermetic_network = matches!(self.1, Fault::ClaimsNetwork);
        claimed
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let mut command = command.clone();
        match self.1 {
            Fault::MoreEnvironment => drop(command.env.insert("HOME".to_owned(), "/root".to_owned())),
            Fault::ShellArguments => command.args.retain(|arg| !arg.is_empty()),
            Fault::DropsMark => {
                let words = ["-u", MARK, &command.program].map(str::to_owned);
                command.args.splice(..0, words);
                command.program = "/usr/bin/env".to_owned();
            }
            Fault::OtherDirectory => command.dir = "/".into(),
            Fault::IgnoresLimit => command.limit = None,
            Fault::ForgetsFiles => {
                for path in std::mem::take(&mut command.reads) {
                    std::fs::remove_file(command.dir.join(path)).ok();
                }
            }
            Fault::Lenient => {
                command.args = command.args.iter().map(|arg| arg.replace('\0', "")).collect();
                command.reads.clear();
            }
            Fault::NoMask => {
                let secrets: Vec<_> = std::mem::take(&mut command.secret_env).into_iter().collect();
                command
                    .env
                    .extend(secrets.into_iter().map(|(name, value)| (name, value.expose().to_owned())));
                command.mask = Masker::default();
            }
            _ => {}
        }
        let never = Cancel::new();
        let cancel = if matches!(self.1, Fault::IgnoresCancel) { &never } else { cancel };
        if matches!(self.1, Fault::Detaches) {
            // Goes on although nobody waits for it any more.
            let (inner, cancel) = (self.0.clone(), cancel.clone());
            let task = tokio::spawn(async move { inner.run(&command, &mut |_| {}, &cancel).await });
            return task.await.unwrap();
        }
        let fault = self.1;
        let mut pass = |mut line: Line| match fault {
            Fault::LossyText => {
                line.bytes = line.text().into_bytes();
                lines.line(line);
            }
            Fault::WholeLinesOnly if line.cut => {}
            _ => lines.line(line),
        };
        match self.0.run(&command, &mut pass, cancel).await {
            Ok(exited) if matches!(fault, Fault::Untold) => Ok(Exited { strays: 0, ..exited }),
            Err(ExecError::Code { .. }) if matches!(fault, Fault::SwallowsCode) => Ok(Exited::default()),
            other => other,
        }
    }
}

#[tokio::test]
async fn each_fault_breaks_the_promise_that_it_should() {
    let faults = [
        (Fault::MoreEnvironment, "the command sees exactly the declared environment"),
        (Fault::ShellArguments, "arguments arrive as they are"),
        (Fault::OtherDirectory, "the command runs in the declared directory"),
        (Fault::SwallowsCode, "an exit code is an error with the last lines"),
        (Fault::LossyText, "lines arrive as they are printed, valid text or not"),
        (Fault::NoMask, "a secret is masked however it is printed"),
        (Fault::WholeLinesOnly, "a long line arrives in pieces and whole"),
        (Fault::IgnoresCancel, "a cancelled command may stop by itself"),
        (Fault::IgnoresLimit, "a command that takes longer than its limit is ended"),
        (Fault::ForgetsFiles, "declared inputs are there and declared outputs come back"),
        (Fault::Lenient, "what can run nowhere is refused"),
        (Fault::Lenient, "a missing program, directory or input is not found"),
        (Fault::ClaimsFiles, "what was not declared cannot be seen"),
        (Fault::ClaimsFiles, "a declared input cannot be changed"),
        (Fault::ClaimsFiles, "what was not declared cannot be written"),
        (Fault::ClaimsNetwork, "the network is closed unless it is declared"),
        (Fault::DropsMark, "what went to a session of its own is ended too"),
        (Fault::DropsMark, "what became a daemon is ended too"),
        (Fault::DropsMark, "a command that ignores the cancel is killed with its children"),
        (Fault::DropsMark, "a command that takes longer than its limit is ended"),
        (Fault::DropsMark, "a dropped command leaves nothing running"),
        (Fault::Untold, "what a command left behind holds nothing up and is ended"),
        (Fault::Detaches, "a dropped command leaves nothing running"),
    ];
    let checks = faults.map(|(fault, promise)| async move {
        let dir = tempfile::tempdir().unwrap();
        let broken = testkit::executor_promise(Arc::new(Faulty(local(), fault)), dir.path(), promise).await;
        assert!(broken.is_some(), "{fault:?} keeps: {promise}");
    });
    futures_util::future::join_all(checks).await;
}

/// On a clock that stands still, where any waiting would be for ever.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_means_to_outlive_the_command_is_not_waited_for_and_all_output_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "env -u {MARK} setsid sh -c 'echo $$ >pid; exec sleep 300' & until [ -s pid ]; do sleep 0.01; done; echo up; seq 2000; echo down >&2"
    );
    let command = Command::new("/bin/sh", dir.path()).args(["-c", &text]).env("PATH", "/usr/bin:/bin");
    let executor = LocalExecutor::new(Arc::new(flowline_core::clock::ManualClock::default()));
    let mut lines = Vec::new();
    let exited =
        executor.run(&command, &mut |line: Line| lines.push(line.bytes), &Cancel::new()).await.unwrap();
    let numbers: String = (1..=2_000).map(|number| number.to_string() + "\n").collect();
    assert_eq!(String::from_utf8(exited.stdout).unwrap(), format!("up\n{numbers}"));
    assert!(lines.contains(&b"down".to_vec()) && exited.strays == 0, "{}", exited.strays);
    let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// The most memory that this process ever used, in kilobytes.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

async fn a_gigabyte(executor: &dyn Executor) {
    let mut command = Command::new("/bin/sh", "/")
        .args(["-c", "head -c 1000000000 /dev/zero | tr '\\0' 'x'"])
        .env("PATH", "/usr/bin:/bin");
    command.keep = 1_000;
    let (before, mut bytes) = (most_memory(), 0_u64);
    let mut take = |line: Line| bytes += line.bytes.len() as u64;
    let exited = executor.run(&command, &mut take, &Cancel::new()).await.unwrap();
    assert_eq!((bytes, exited.dropped), (1_000_000_000, 999_999_000));
    let grew = most_memory() - before;
    println!("{executor:?}: {grew} kB more");
    assert!(grew < 16 * 1024, "{grew} kB");
}

/// In a process of its own, whose memory nobody else uses: see the next test.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "only started by another test"]
async fn a_gigabyte_alone() {
    a_gigabyte(&local()).await;
}

#[test]
fn a_gigabyte_of_output_takes_bounded_memory() {
    #[expect(clippy::disallowed_methods, reason = "the test starts itself again")]
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "exec::a_gigabyte_alone", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute or two; by hand"]
async fn a_gigabyte_from_elsewhere_takes_bounded_memory() {
    if let Some(sshd) = crate::places::Sshd::start() {
        a_gigabyte(&sshd.executor()).await;
    }
    if let Some(podman) = crate::places::Podman::start() {
        a_gigabyte(&podman.executor().await).await;
    }
}
