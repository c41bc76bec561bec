//! What every [`Executor`] must do, as cases that are named by the sentence that they check.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use flowline_pipeline::{exec::Executor, testkit};
//! # async fn example(mine: Arc<dyn Executor>, dir: std::path::PathBuf) {
//! let broken = testkit::executor(mine, &dir).await;
//! assert!(broken.is_empty(), "{broken:#?}");
//! # }
//! ```
//!
//! The commands are `/bin/sh`, `/usr/bin/env` and what POSIX puts beside them. Cancelling and killing take real time: give the executor under
//! test a grace of about 300 ms. What an executor says that it cannot do ([`capabilities`](Executor::capabilities)) is not asked of it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    error::{ErrorKind, Kinded},
    secret::Secret,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};

use crate::{
    cancel::Cancel,
    exec::{Command, ExecError, Executor, Exited, Line, Stream},
};

/// A promise of the executor contract that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// What was seen instead.
    pub seen: String,
}

/// Longer than any of these commands takes, shorter than what they leave behind would.
const PATIENCE: SignedDuration = SignedDuration::from_secs(20);

type Check = fn(Bench) -> BoxFuture<'static, Result<(), String>>;

/// Runs all cases; `dir` is an empty directory that this host and the commands both see: for another host, a directory that is shared with
/// it. Answers the promises that were broken.
pub async fn executor(executor: Arc<dyn Executor>, dir: &Path) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (promise, _) in CASES {
        broken.extend(executor_promise(Arc::clone(&executor), dir, promise).await);
    }
    broken
}

/// Every promise that [`executor`] checks.
pub fn executor_promises() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(promise, _)| *promise)
}

/// Checks one of [`executor_promises`]. `None` if it holds.
pub async fn executor_promise(executor: Arc<dyn Executor>, dir: &Path, promise: &str) -> Option<Broken> {
    let number = CASES.iter().position(|(known, _)| *known == promise)?;
    let (promise, check) = CASES[number];
    let dir = dir.join(format!("case-{number}"));
    let seen = match std::fs::create_dir_all(&dir) {
        Ok(()) => match select(check(Bench { executor, dir }), SystemClock.sleep(PATIENCE)).await {
            Either::Left((result, _)) => result.err(),
            Either::Right(_) => Some("it did not end".to_owned()),
        },
        Err(error) => Some(format!("cannot make {}: {error}", dir.display())),
    };
    seen.map(|seen| Broken { promise, seen })
}

const CASES: &[(&str, Check)] = &[
    ("the command sees exactly the declared environment", |bench| environment(bench).boxed()),
    ("the command runs in the declared directory", |bench| directory(bench).boxed()),
    ("arguments arrive as they are", |bench| arguments(bench).boxed()),
    ("standard input is empty", |bench| input(bench).boxed()),
    ("an exit code is an error with the last lines", |bench| code(bench).boxed()),
    ("a signal is an error with its number", |bench| signal(bench).boxed()),
    ("a missing program, directory or input is not found", |bench| missing(bench).boxed()),
    ("what can run nowhere is refused", |bench| refused(bench).boxed()),
    ("declared inputs are there and declared outputs come back", |bench| files(bench).boxed()),
    ("what was not declared cannot be seen", |bench| undeclared(bench).boxed()),
    ("a declared input cannot be changed", |bench| unchanged(bench).boxed()),
    ("the network is closed unless it is declared", |bench| network(bench).boxed()),
    ("lines arrive as they are printed, valid text or not", |bench| bytes(bench).boxed()),
    ("a long line arrives in pieces and whole", |bench| long_line(bench).boxed()),
    ("endless output takes bounded memory", |bench| endless(bench).boxed()),
    ("a secret is masked however it is printed", |bench| masked(bench).boxed()),
    ("a command that closed its outputs is still awaited", |bench| closed(bench).boxed()),
    ("what a command left behind holds nothing up and is ended", |bench| strays(bench).boxed()),
    ("a cancelled command may stop by itself", |bench| cancelled(bench).boxed()),
    ("a command that ignores the cancel is killed with its children", |bench| stubborn(bench).boxed()),
    ("a command that takes longer than its limit is ended", |bench| limited(bench).boxed()),
    ("a dropped command leaves nothing running", |bench| dropped(bench).boxed()),
];

/// Where one case runs.
struct Bench {
    executor: Arc<dyn Executor>,
    dir: PathBuf,
}

type Ran = (Result<Exited, ExecError>, Vec<Line>);

impl Bench {
    /// A script that may do anything in the directory, and is watched there while it runs.
    fn sh(&self, script: &str) -> Command {
        let command = self.bare(script);
        if self.executor.capabilities().hermetic_files { command.writes(".") } else { command }
    }

    /// A script without declared files.
    fn bare(&self, script: &str) -> Command {
        Command::new("/bin/sh", &self.dir).args(["-c", script]).env("PATH", "/usr/local/bin:/usr/bin:/bin")
    }

    fn write(&self, path: &str, text: &str) -> Result<(), String> {
        let path = self.dir.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::write(&path, text))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    async fn run(&self, command: &Command) -> Ran {
        self.run_with(command, &Cancel::new()).await
    }

    async fn run_with(&self, command: &Command, cancel: &Cancel) -> Ran {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let mut take = move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        let result = self.executor.run(command, &mut take, cancel).await;
        let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
        (result, lines)
    }

    /// The lines of a command that must end well.
    async fn ok(&self, command: &Command) -> Result<(Exited, Vec<Line>), String> {
        let (result, lines) = self.run(command).await;
        Ok((result.map_err(|error| flowline_core::error::chain(&error))?, lines))
    }

    /// Waits until `file` is there, or for too long.
    async fn appears(&self, file: &str) -> Result<(), String> {
        for _ in 0..500 {
            if self.dir.join(file).exists() {
                return Ok(());
            }
            SystemClock.sleep(SignedDuration::from_millis(20)).await;
        }
        Err(format!("`{file}` did not appear"))
    }

    /// Whether nobody writes to `file` any more, after some time to stop.
    async fn is_quiet(&self, file: &str) -> bool {
        let size = || std::fs::metadata(self.dir.join(file)).map_or(0, |file| file.len());
        for _ in 0..20 {
            let before = size();
            SystemClock.sleep(SignedDuration::from_millis(300)).await;
            if size() == before {
                return true;
            }
        }
        false
    }
}

fn texts(lines: &[Line], stream: Stream) -> Vec<String> {
    lines.iter().filter(|line| line.stream == stream).map(Line::text).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found:?} instead of {expected:?}")) }
}

async fn environment(bench: Bench) -> Result<(), String> {
    let command = Command::new("/usr/bin/env", &bench.dir)
        .env("ONE", "1")
        .env("TWO", "a b=c")
        .env("odd.name", "it's \"$HOME\" `x` \\ éŁĈ")
        .secret_env("KEY", Secret::new("s3cr3t-value"));
    let (_, lines) = bench.ok(&command).await?;
    let mut found = texts(&lines, Stream::Out);
    found.sort();
    let odd = "odd.name=it's \"$HOME\" `x` \\ éŁĈ";
    equal(&found, &["KEY=***", "ONE=1", "TWO=a b=c", odd].map(str::to_owned).to_vec())
}

async fn directory(bench: Bench) -> Result<(), String> {
    let (_, lines) = bench.ok(&bench.sh("pwd -P; touch here")).await?;
    if !bench.dir.join("here").exists() && bench.executor.capabilities().local {
        return Err(format!(
            "a relative file was not made there; it ran in {:?}",
            texts(&lines, Stream::Out)
        ));
    }
    Ok(())
}

async fn arguments(bench: Bench) -> Result<(), String> {
    let args = ["a b", "$HOME", "*", "", "\"'", "é", "-n", "\\n", "!x"];
    let command = Command::new("/usr/bin/printf", &bench.dir).arg("<%s>\n").args(args);
    let (exited, lines) = bench.ok(&command).await?;
    equal(&texts(&lines, Stream::Out), &args.map(|arg| format!("<{arg}>")).to_vec())?;
    equal(&exited.stdout, &args.map(|arg| format!("<{arg}>\n")).concat().into_bytes())
}

async fn input(bench: Bench) -> Result<(), String> {
    let (_, lines) = bench.ok(&bench.sh("cat; echo end")).await?;
    equal(&texts(&lines, Stream::Out), &vec!["end".to_owned()])
}

async fn code(bench: Bench) -> Result<(), String> {
    let (result, _) = bench.run(&bench.sh("echo first; echo last >&2; exit 3")).await;
    match result {
        Err(ExecError::Code { code: 3, last, .. }) if last.iter().any(|line| line == "last") => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn signal(bench: Bench) -> Result<(), String> {
    let (result, _) = bench.run(&bench.sh("kill -9 $$")).await;
    match result {
        Err(ExecError::Signal { signal: 9, .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn missing(bench: Bench) -> Result<(), String> {
    let nowhere = bench.dir.join("nowhere");
    let (path, name) = (Command::new("/no/such/program", &bench.dir), Command::new("no-such", &bench.dir));
    let input = bench.bare("echo started").reads("no-such-file");
    for command in [path, name, Command::new("/bin/sh", nowhere), input] {
        match bench.run(&command).await.0 {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
    Ok(())
}

async fn refused(bench: Bench) -> Result<(), String> {
    let sh = || bench.bare("echo started");
    for command in [
        sh().arg("a\0b"),
        sh().env("A\0", "b"),
        sh().env("A=", "b"),
        sh().reads("../x"),
        sh().writes("/etc"),
        sh().reads(""),
    ] {
        match bench.run(&command).await {
            (Err(error), lines) if error.kind() == ErrorKind::Invalid && lines.is_empty() => {}
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
    Ok(())
}

async fn files(bench: Bench) -> Result<(), String> {
    bench.write("in.txt", "one\n")?;
    bench.write("tree/a b/two", "two\n")?;
    bench.write("log", "zero\n")?;
    let script = "mkdir -p out/deep && cat in.txt 'tree/a b/two' >out/deep/both && printf x >'out/o d' && echo one >>log";
    let command = bench.bare(script).reads("in.txt").reads("tree").writes("out").writes("log");
    bench.ok(&command).await?;
    equal(&bench.read("out/deep/both"), &"one\ntwo\n".to_owned())?;
    equal(&bench.read("out/o d"), &"x".to_owned())?;
    equal(&bench.read("log"), &"zero\none\n".to_owned())
}

async fn undeclared(bench: Bench) -> Result<(), String> {
    if !bench.executor.capabilities().hermetic_files {
        return Ok(());
    }
    bench.write("declared", "yes\n")?;
    bench.write("other", "no\n")?;
    let place = bench.dir.join("other");
    let script = format!("cat declared; cat other '{}'; ls -a . ..; exit 0", place.display());
    let (_, lines) = bench.ok(&bench.bare(&script).reads("declared")).await?;
    let out = texts(&lines, Stream::Out);
    let seen = |name: &str| out.iter().any(|line| line == name);
    if seen("yes") && seen("declared") && !seen("no") && !seen("other") {
        Ok(())
    } else {
        Err(format!("{out:?}"))
    }
}

async fn unchanged(bench: Bench) -> Result<(), String> {
    if !bench.executor.capabilities().hermetic_files {
        return Ok(());
    }
    bench.write("in.txt", "as it was\n")?;
    bench.run(&bench.bare("echo changed >in.txt; rm -f in.txt; exit 0").reads("in.txt")).await.0.ok();
    equal(&bench.read("in.txt"), &"as it was\n".to_owned())
}

async fn network(bench: Bench) -> Result<(), String> {
    if !bench.executor.capabilities().hermetic_network {
        return Ok(());
    }
    let listening =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|open| Ok((open.local_addr()?, open)));
    let (address, _open) = listening.map_err(|error| error.to_string())?;
    let script = format!(
        "tail -n +3 /proc/net/dev | cut -d: -f1; if nc -w 1 127.0.0.1 {} </dev/null; then echo reached; fi; exit 0",
        address.port()
    );
    let (_, lines) = bench.ok(&bench.bare(&script)).await?;
    let mut found: Vec<_> = texts(&lines, Stream::Out).iter().map(|line| line.trim().to_owned()).collect();
    found.retain(|interface| interface != "lo");
    equal(&found, &Vec::new())
}

async fn bytes(bench: Bench) -> Result<(), String> {
    let (_, lines) = bench.ok(&bench.sh("printf 'a\\377b\\r\\n\\nlast'; printf 'err\\n' >&2")).await?;
    let out: Vec<_> =
        lines.iter().filter(|line| line.stream == Stream::Out).map(|line| line.bytes.clone()).collect();
    equal(&out, &vec![b"a\xffb\r".to_vec(), Vec::new(), b"last".to_vec()])?;
    equal(&texts(&lines, Stream::Err), &vec!["err".to_owned()])
}

async fn long_line(bench: Bench) -> Result<(), String> {
    let (_, lines) = bench.ok(&bench.sh("head -c 200000 /dev/zero | tr '\\0' x; echo; echo end")).await?;
    let length: usize =
        lines.iter().take_while(|line| line.bytes != b"end").map(|line| line.bytes.len()).sum();
    equal(&length, &200_000)?;
    let cut = lines.iter().filter(|line| line.cut).count();
    if cut == 0 || lines.iter().any(|line| line.bytes.len() > 65_536) {
        return Err(format!("{cut} cuts, longest {:?}", lines.iter().map(|line| line.bytes.len()).max()));
    }
    equal(&lines.last().map(Line::text), &Some("end".to_owned()))
}

async fn endless(bench: Bench) -> Result<(), String> {
    let mut command = bench.sh("head -c 50000000 /dev/zero");
    command.keep = 1_000;
    let mut bytes = 0_usize;
    let mut take = |line: Line| bytes += line.bytes.len();
    let exited =
        bench.executor.run(&command, &mut take, &Cancel::new()).await.map_err(|error| error.to_string())?;
    equal(&bytes, &50_000_000)?;
    equal(&(exited.stdout.len(), exited.dropped), &(1_000, 49_999_000))
}

async fn masked(bench: Bench) -> Result<(), String> {
    let command = bench
        .sh("printf 'one hunt'; sleep 0.1; printf 'er2-secret!\\n'; echo aHVudGVyMi1zZWNyZXQh; echo hunter2-secret%21 >&2; exit 1")
        .secret_env("KEY", Secret::new("hunter2-secret!"));
    let (result, lines) = bench.run(&command).await;
    equal(&texts(&lines, Stream::Err), &vec!["***".to_owned()])?;
    let out = texts(&lines, Stream::Out).join("\n");
    let error = format!("{result:?} {command:?}");
    if out.contains("hunt")
        || out.contains("aHVudGVy")
        || error.contains("hunter2")
        || !out.contains("one ***")
    {
        return Err(format!("{out}\n{error}"));
    }
    Ok(())
}

async fn closed(bench: Bench) -> Result<(), String> {
    bench.ok(&bench.sh("exec >&- 2>&-; sleep 0.3; touch done")).await?;
    if bench.dir.join("done").exists() {
        Ok(())
    } else {
        Err("it returned before the command's end".to_owned())
    }
}

/// Writes to `file` until it is killed, deaf to SIGTERM.
const WRITER: &str =
    "trap '' TERM; i=0; while [ $i -lt 1200 ]; do echo x >>beat; sleep 0.05; i=$((i+1)); done";

async fn strays(bench: Bench) -> Result<(), String> {
    let script = format!("({WRITER}) & while [ ! -e beat ]; do sleep 0.02; done; echo hi");
    let (_, lines) = bench.ok(&bench.sh(&script)).await?;
    equal(&texts(&lines, Stream::Out), &vec!["hi".to_owned()])?;
    if bench.is_quiet("beat").await { Ok(()) } else { Err("it still runs".to_owned()) }
}

async fn cancelled(bench: Bench) -> Result<(), String> {
    let script =
        "trap 'echo bye; exit 0' TERM; touch up; i=0; while [ $i -lt 300 ]; do sleep 0.02; i=$((i+1)); done";
    let (command, cancel) = (bench.sh(script), Cancel::new());
    let stop = async {
        bench.appears("up").await?;
        cancel.cancel();
        Ok::<_, String>(())
    };
    let ((result, lines), stopped) =
        futures_util::future::join(bench.run_with(&command, &cancel), stop).await;
    stopped?;
    match result {
        Err(ExecError::Cancelled { killed: false, .. }) if texts(&lines, Stream::Out) == ["bye"] => Ok(()),
        other => Err(format!("{other:?} {lines:?}")),
    }
}

async fn stubborn(bench: Bench) -> Result<(), String> {
    let script = format!("trap '' TERM; ({WRITER}) & {WRITER}");
    let (command, cancel) = (bench.sh(&script), Cancel::new());
    let stop = async {
        bench.appears("beat").await?;
        cancel.cancel();
        Ok::<_, String>(())
    };
    let ((result, _), stopped) = futures_util::future::join(bench.run_with(&command, &cancel), stop).await;
    stopped?;
    match result {
        Err(ExecError::Cancelled { killed: true, .. }) if bench.is_quiet("beat").await => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn limited(bench: Bench) -> Result<(), String> {
    let limit = SignedDuration::from_millis(400);
    let gentle = bench.run(&bench.sh("echo up; exec sleep 6").limit(limit)).await.0;
    if !matches!(&gentle, Err(ExecError::TimedOut { killed: false, last, .. }) if last == &["up"]) {
        return Err(format!("{gentle:?}"));
    }
    let deaf = bench.run(&bench.sh(WRITER).limit(limit)).await.0;
    match deaf {
        Err(ExecError::TimedOut { killed: true, .. }) if bench.is_quiet("beat").await => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

async fn dropped(bench: Bench) -> Result<(), String> {
    let command = bench.sh(&format!("({WRITER}) & {WRITER}"));
    let cancel = Cancel::new();
    {
        let run = std::pin::pin!(bench.run_with(&command, &cancel));
        let up = std::pin::pin!(bench.appears("beat"));
        match select(run, up).await {
            Either::Left(((result, _), _)) => return Err(format!("it ended: {result:?}")),
            Either::Right((up, _)) => up?,
        }
    }
    if bench.is_quiet("beat").await { Ok(()) } else { Err("it still runs".to_owned()) }
}
