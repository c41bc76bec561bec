//! What every [`Executor`] must do, as cases that are named by the sentence that they check.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use flowline_pipeline::{exec::Executor, testkit};
//! # async fn example(mine: Arc<dyn Executor>, dir: std::path::PathBuf) {
//! testkit::executor(mine, &dir).await.assert();
//! # }
//! ```
//!
//! The commands are `/bin/sh`, `/usr/bin/env` and what POSIX puts beside them. Cancelling and killing take real time: give the executor under
//! test a grace of about 300 ms. What an executor says that it cannot do ([`capabilities`](Executor::capabilities)) is not asked of it, and named in the report.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    error::{ErrorKind, Kinded},
    secret::Secret,
    testkit::Report,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};

use super::{
    Outcome,
    Verdict::{DoesNotApply, Holds},
    note,
};
use crate::{
    cancel::Cancel,
    exec::{Command, ExecError, Executor, Exited, Line, MARK, Stream},
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
const PATIENCE: SignedDuration = SignedDuration::from_secs(100);

type Check = fn(Bench) -> BoxFuture<'static, Outcome>;

/// Runs all cases; `dir` is an empty directory that this host and the commands both see: for another host, a directory that is shared with
/// it.
pub async fn executor(executor: Arc<dyn Executor>, dir: &Path) -> Report {
    let shown = format!("{executor:?}");
    let backend = shown.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
    let mut report = Report::new("executor", backend);
    for promise in executor_promises() {
        if let Some((promise, checked)) = checked(Arc::clone(&executor), dir, promise).await {
            note(&mut report, promise, checked);
        }
    }
    report
}

/// Every promise that [`executor`] checks.
pub fn executor_promises() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(promise, _)| *promise)
}

/// Checks one of [`executor_promises`]. `None` if it holds, does not apply, or is none of them.
pub async fn executor_promise(executor: Arc<dyn Executor>, dir: &Path, promise: &str) -> Option<Broken> {
    let (promise, checked) = checked(executor, dir, promise).await?;
    checked.err().map(|seen| Broken { promise, seen })
}

async fn checked(executor: Arc<dyn Executor>, dir: &Path, promise: &str) -> Option<(&'static str, Outcome)> {
    let number = CASES.iter().position(|(known, _)| *known == promise)?;
    let (promise, check) = CASES[number];
    let dir = dir.join(format!("case-{number}"));
    let outcome = match std::fs::create_dir_all(&dir) {
        Ok(()) => match select(check(Bench { executor, dir }), SystemClock.sleep(PATIENCE)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err("it did not end".to_owned()),
        },
        Err(error) => Err(format!("cannot make {}: {error}", dir.display())),
    };
    Some((promise, outcome))
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
    ("what was not declared cannot be written", |bench| lost(bench).boxed()),
    ("the network is closed unless it is declared", |bench| network(bench).boxed()),
    ("lines arrive as they are printed, valid text or not", |bench| bytes(bench).boxed()),
    ("a long line arrives in pieces and whole", |bench| long_line(bench).boxed()),
    ("endless output takes bounded memory", |bench| endless(bench).boxed()),
    ("a secret is masked however it is printed", |bench| masked(bench).boxed()),
    ("a command that closed its outputs is still awaited", |bench| closed(bench).boxed()),
    ("what a command left behind holds nothing up and is ended", |bench| strays(bench, 0).boxed()),
    ("what went to a session of its own is ended too", |bench| strays(bench, 1).boxed()),
    ("what job control gave a group of its own is ended too", |bench| strays(bench, 2).boxed()),
    ("what became a daemon is ended too", |bench| strays(bench, DAEMON).boxed()),
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

    /// The same in a fresh directory below.
    fn below(&self, name: &str) -> Result<Self, String> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { executor: Arc::clone(&self.executor), dir })
    }

    /// Looks out for whoever runs [`WRITER`] from now on.
    async fn watch(&self) -> Watch {
        self.run(&self.sh("mkfifo alive")).await.0.ok();
        let (pipe, beat) = (self.dir.join("alive"), self.dir.join("beat"));
        let state = Arc::new(AtomicU8::new(UNSEEN));
        if pipe.exists() {
            let seen = Arc::clone(&state);
            // Waits until somebody holds the pipe, and then until nobody does: the kernel knows. One that waits in vain is left behind.
            std::thread::spawn(move || {
                let Ok(mut pipe) = std::fs::File::open(pipe) else { return };
                seen.store(HELD, Ordering::SeqCst);
                if std::io::copy(&mut pipe, &mut std::io::sink()).is_ok() {
                    seen.store(FREE, Ordering::SeqCst);
                }
            });
        }
        Watch { state, beat }
    }
}

/// Nobody was seen to hold the pipe.
const UNSEEN: u8 = 0;
/// Somebody holds it.
const HELD: u8 = 1;
/// All who held it are gone.
const FREE: u8 = 2;

/// Tells when all who run [`WRITER`] are gone: each of them, and each of their children, holds a pipe open whose other end is here.
struct Watch {
    state: Arc<AtomicU8>,
    beat: PathBuf,
}

impl Watch {
    /// Whether all are gone, after some time to end. Where the other end of the pipe is not on this host, whether nobody writes any more.
    async fn is_over(&self) -> Result<(), String> {
        let size = || std::fs::metadata(&self.beat).map_or(0, |file| file.len());
        let (mut quiet, mut before) = (0, size());
        for look in 0..400 {
            let state = self.state.load(Ordering::SeqCst);
            quiet = if size() == before { quiet + 1 } else { 0 };
            before = size();
            // Beats come every 50 ms; five seconds without one.
            if state == FREE || (state == UNSEEN && look > 100 && quiet > 250) {
                return Ok(());
            }
            SystemClock.sleep(SignedDuration::from_millis(20)).await;
        }
        Err("something of it still runs".to_owned())
    }
}

fn texts(lines: &[Line], stream: Stream) -> Vec<String> {
    lines.iter().filter(|line| line.stream == stream).map(Line::text).collect()
}

fn equal<T: PartialEq + std::fmt::Debug>(found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(Holds) } else { Err(format!("{found:?} instead of {expected:?}")) }
}

async fn environment(bench: Bench) -> Outcome {
    let command = Command::new("/usr/bin/env", &bench.dir)
        .env("ONE", "1")
        .env("TWO", "a b=c")
        .env("odd.name", "it's \"$HOME\" `x` \\ éŁĈ")
        .secret_env("KEY", Secret::new("s3cr3t-value"));
    let (_, lines) = bench.ok(&command).await?;
    let mut found = texts(&lines, Stream::Out);
    found.retain(|line| !line.starts_with(MARK) || !line[MARK.len()..].starts_with('='));
    found.sort();
    let odd = "odd.name=it's \"$HOME\" `x` \\ éŁĈ";
    equal(&found, &["KEY=***", "ONE=1", "TWO=a b=c", odd].map(str::to_owned).to_vec())
}

async fn directory(bench: Bench) -> Outcome {
    let (exited, lines) = bench.ok(&bench.sh("pwd -P; touch here")).await?;
    equal(&exited.strays, &0)?;
    if !bench.dir.join("here").exists() && bench.executor.capabilities().local {
        return Err(format!(
            "a relative file was not made there; it ran in {:?}",
            texts(&lines, Stream::Out)
        ));
    }
    Ok(Holds)
}

async fn arguments(bench: Bench) -> Outcome {
    let args = ["a b", "$HOME", "*", "", "\"'", "é", "-n", "\\n", "!x"];
    let command = Command::new("/usr/bin/printf", &bench.dir).arg("<%s>\n").args(args);
    let (exited, lines) = bench.ok(&command).await?;
    equal(&texts(&lines, Stream::Out), &args.map(|arg| format!("<{arg}>")).to_vec())?;
    equal(&exited.stdout, &args.map(|arg| format!("<{arg}>\n")).concat().into_bytes())
}

async fn input(bench: Bench) -> Outcome {
    let (_, lines) = bench.ok(&bench.sh("cat; echo end")).await?;
    equal(&texts(&lines, Stream::Out), &vec!["end".to_owned()])
}

async fn code(bench: Bench) -> Outcome {
    let (result, _) = bench.run(&bench.sh("echo first; echo last >&2; exit 3")).await;
    match result {
        Err(ExecError::Code { code: 3, last, .. }) if last.iter().any(|line| line == "last") => Ok(Holds),
        other => Err(format!("{other:?}")),
    }
}

async fn signal(bench: Bench) -> Outcome {
    let (result, _) = bench.run(&bench.sh("kill -9 $$")).await;
    match result {
        Err(ExecError::Signal { signal: 9, .. }) => Ok(Holds),
        other => Err(format!("{other:?}")),
    }
}

async fn missing(bench: Bench) -> Outcome {
    let nowhere = bench.dir.join("nowhere");
    let (path, name) = (Command::new("/no/such/program", &bench.dir), Command::new("no-such", &bench.dir));
    let input = bench.bare("echo started").reads("no-such-file");
    for command in [path, name, Command::new("/bin/sh", nowhere), input] {
        match bench.run(&command).await.0 {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
    Ok(Holds)
}

async fn refused(bench: Bench) -> Outcome {
    let sh = || bench.bare("echo started");
    for command in [
        sh().arg("a\0b"),
        sh().env("A\0", "b"),
        sh().env("A=", "b"),
        sh().env(MARK, "mine"),
        sh().reads("../x"),
        sh().writes("/etc"),
        sh().reads(""),
    ] {
        match bench.run(&command).await {
            (Err(error), lines) if error.kind() == ErrorKind::Invalid && lines.is_empty() => {}
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
    Ok(Holds)
}

async fn files(bench: Bench) -> Outcome {
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

async fn undeclared(bench: Bench) -> Outcome {
    if !bench.executor.capabilities().hermetic_files {
        return Ok(DoesNotApply);
    }
    bench.write("declared", "yes\n")?;
    bench.write("other", "no\n")?;
    let place = bench.dir.join("other");
    let script = format!("cat declared; cat other '{}'; ls -a . ..; exit 0", place.display());
    let (_, lines) = bench.ok(&bench.bare(&script).reads("declared")).await?;
    let out = texts(&lines, Stream::Out);
    let seen = |name: &str| out.iter().any(|line| line == name);
    if seen("yes") && seen("declared") && !seen("no") && !seen("other") {
        Ok(Holds)
    } else {
        Err(format!("{out:?}"))
    }
}

async fn unchanged(bench: Bench) -> Outcome {
    if !bench.executor.capabilities().hermetic_files {
        return Ok(DoesNotApply);
    }
    bench.write("in.txt", "as it was\n")?;
    bench.run(&bench.bare("echo changed >in.txt; rm -f in.txt; exit 0").reads("in.txt")).await.0.ok();
    equal(&bench.read("in.txt"), &"as it was\n".to_owned())
}

async fn lost(bench: Bench) -> Outcome {
    if !bench.executor.capabilities().hermetic_files {
        return Ok(DoesNotApply);
    }
    let script = "echo kept >out/file && echo lost >file";
    match bench.run(&bench.bare(script).writes("out")).await.0 {
        Err(ExecError::Code { .. }) => equal(&bench.read("out/file"), &"kept\n".to_owned()),
        other => Err(format!("{other:?}")),
    }
}

async fn network(bench: Bench) -> Outcome {
    if !bench.executor.capabilities().hermetic_network {
        return Ok(DoesNotApply);
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

async fn bytes(bench: Bench) -> Outcome {
    let (_, lines) = bench.ok(&bench.sh("printf 'a\\377b\\r\\n\\nlast'; printf 'err\\n' >&2")).await?;
    let out: Vec<_> =
        lines.iter().filter(|line| line.stream == Stream::Out).map(|line| line.bytes.clone()).collect();
    equal(&out, &vec![b"a\xffb\r".to_vec(), Vec::new(), b"last".to_vec()])?;
    equal(&texts(&lines, Stream::Err), &vec!["err".to_owned()])
}

async fn long_line(bench: Bench) -> Outcome {
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

async fn endless(bench: Bench) -> Outcome {
    let mut command = bench.sh("head -c 50000000 /dev/zero");
    command.keep = 1_000;
    let mut bytes = 0_usize;
    let mut take = |line: Line| bytes += line.bytes.len();
    let exited =
        bench.executor.run(&command, &mut take, &Cancel::new()).await.map_err(|error| error.to_string())?;
    equal(&bytes, &50_000_000)?;
    equal(&(exited.stdout.len(), exited.dropped), &(1_000, 49_999_000))
}

async fn masked(bench: Bench) -> Outcome {
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
    Ok(Holds)
}

async fn closed(bench: Bench) -> Outcome {
    bench.ok(&bench.sh("exec >&- 2>&-; sleep 0.3; touch done")).await?;
    if bench.dir.join("done").exists() {
        Ok(Holds)
    } else {
        Err("it returned before the command's end".to_owned())
    }
}

/// Writes to `beat` until it is killed, deaf to SIGTERM, and holds the pipe `alive` if there is one.
const WRITER: &str = "trap \"\" TERM; [ ! -p alive ] || exec 3<>alive; i=0; \
                      while [ $i -lt 2400 ]; do echo x >>beat; sleep 0.05; i=$((i+1)); done";

/// How a command leaves `WRITER` behind: in its own process group, or in none that it ever had.
const WAYS: [(&str, &str); 4] = [
    ("in the background", "(WRITER) &"),
    ("in a session of its own", "setsid sh -c 'WRITER' &"),
    ("under job control", "set -m; (WRITER) >/dev/null 2>&1 & set +m"),
    ("as a daemon", "setsid sh -c '(WRITER) </dev/null >/dev/null 2>&1 & exit 0' & wait"),
];
const DAEMON: usize = 3;

/// Starts [`WRITER`] in one of the [`WAYS`], and goes on once it writes.
fn leave(way: usize) -> String {
    format!("{}\nwhile [ ! -e beat ]; do sleep 0.02; done", WAYS[way].1.replace("WRITER", WRITER))
}

async fn strays(bench: Bench, way: usize) -> Outcome {
    let watch = bench.watch().await;
    let (exited, lines) = bench.ok(&bench.sh(&format!("{}; echo hi", leave(way)))).await?;
    equal(&texts(&lines, Stream::Out), &vec!["hi".to_owned()])?;
    watch.is_over().await?;
    if bench.executor.capabilities().tells_strays && exited.strays == 0 {
        return Err("it did not tell that something was left behind".to_owned());
    }
    Ok(Holds)
}

async fn cancelled(bench: Bench) -> Outcome {
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
        Err(ExecError::Cancelled { killed: false, .. }) if texts(&lines, Stream::Out) == ["bye"] => Ok(Holds),
        other => Err(format!("{other:?} {lines:?}")),
    }
}

async fn stubborn(bench: Bench) -> Outcome {
    // Where a command's end takes all with it, one way out is like another, and each takes its time.
    let told = bench.executor.capabilities().tells_strays;
    for way in (0..WAYS.len()).filter(|way| told || [0, DAEMON].contains(way)) {
        let bench = bench.below(&way.to_string())?;
        let watch = bench.watch().await;
        let (command, cancel) = (bench.sh(&format!("trap '' TERM; {}; {WRITER}", leave(way))), Cancel::new());
        let stop = async {
            bench.appears("beat").await?;
            cancel.cancel();
            Ok::<_, String>(())
        };
        let ((result, _), stopped) =
            futures_util::future::join(bench.run_with(&command, &cancel), stop).await;
        stopped?;
        if !matches!(result, Err(ExecError::Cancelled { killed: true, .. })) {
            return Err(format!("{}: {result:?}", WAYS[way].0));
        }
        watch.is_over().await.map_err(|error| format!("{}: {error}", WAYS[way].0))?;
    }
    Ok(Holds)
}

async fn limited(bench: Bench) -> Outcome {
    // Elsewhere it counts while things are made ready, too.
    let limit = SignedDuration::from_millis(if bench.executor.capabilities().local { 400 } else { 5_000 });
    let gentle = bench.run(&bench.sh("echo up; exec sleep 20").limit(limit)).await.0;
    if !matches!(&gentle, Err(ExecError::TimedOut { killed: false, last, .. }) if last == &["up"]) {
        return Err(format!("{gentle:?}"));
    }
    let watch = bench.watch().await;
    let limit = limit + SignedDuration::from_secs(1);
    let deaf =
        bench.run(&bench.sh(&format!("trap '' TERM; {}; {WRITER}", leave(DAEMON))).limit(limit)).await.0;
    match deaf {
        Err(ExecError::TimedOut { killed: true, .. }) => watch.is_over().await.map(|()| Holds),
        other => Err(format!("{other:?}")),
    }
}

async fn dropped(bench: Bench) -> Outcome {
    for way in [0, DAEMON] {
        let bench = bench.below(&way.to_string())?;
        let watch = bench.watch().await;
        let (command, cancel) = (bench.sh(&format!("{}; {WRITER}", leave(way))), Cancel::new());
        {
            let run = std::pin::pin!(bench.run_with(&command, &cancel));
            let up = std::pin::pin!(bench.appears("beat"));
            match select(run, up).await {
                Either::Left(((result, _), _)) => return Err(format!("it ended: {result:?}")),
                Either::Right((up, _)) => up?,
            }
        }
        watch.is_over().await.map_err(|error| format!("{}: {error}", WAYS[way].0))?;
    }
    Ok(Holds)
}
