//! Commands as processes of this host, each in a process group of its own.
//!
//! The order of things when a command ends: its own end is awaited, then what it left behind is killed (by its process group and by the
//! mark that it carries), then what is in the pipes is read. So a process that forked away and holds the outputs open can't keep the run
//! waiting, and one that closed them early is still awaited.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    process::Stdio,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock, error::ErrorKind};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use rustix::{
    io::Errno,
    process::{Pid, Signal},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStderr, ChildStdout},
};

use super::{
    Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines, MARK, Stream,
    marked::{Kin, new_mark},
    output::{Ending, Output, Stop},
};
use crate::cancel::Cancel;

/// Most commands print little; one that fills this buffer gets a larger one.
const FIRST: usize = 2 * 1024;
/// So often it is looked, during the grace, whether a dropped command and all that it started are gone.
const LOOKS: i32 = 20;

/// Runs commands on this host.
///
/// Hermetic in environment and standard input; files and network are those of the host. A command is the leader of a process group, and on
/// Linux also carries a [`MARK`] that what it starts inherits: a process that leaves the group (`setsid`, `set -m`, a daemon) is found by it,
/// and stopped and killed with the rest. One that means to outlive the command is started without the mark and in a session of its own:
/// `env -u FLOWLINE_MARK setsid server &`. On other systems, and for a process whose environment this user may not read (another user's,
/// one that overwrote it), the group is all that is known. Must be used within a tokio runtime with I/O.
#[derive(Debug, Clone)]
pub struct LocalExecutor {
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
}

impl LocalExecutor {
    /// Waits by `clock`; gives a command 5 s between SIGTERM and SIGKILL.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, grace: SignedDuration::from_secs(5) }
    }

    /// The same with this grace.
    #[must_use]
    pub fn with_grace(mut self, grace: SignedDuration) -> Self {
        self.grace = grace;
        self
    }
}

#[async_trait]
impl Executor for LocalExecutor {
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities {
            local: true,
            own_files: true,
            exact_signals: true,
            asks_all: true,
            tells_strays: true,
            ..ExecutorCapabilities::NONE
        }
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        if cancel.is_cancelled() {
            return Err(ExecError::Cancelled { program: command.shown(), killed: false });
        }
        command.prepare()?;
        let mark = new_mark();
        let Started { mut child, out, err, writers } = start(command, &mark)?;
        let mut group = Group::of(&child, &mark, Arc::clone(&self.clock), self.grace);
        let lost =
            |source: std::io::Error| ExecError::Lost { program: command.shown(), source: source.into() };
        let mut output = Output::new(command, lines);
        let (mut out, mut err) = (Pipe::new(Some(out)), Pipe::new(Some(err)));
        let mut stop: BoxFuture<'_, Option<Stop>> = wish(command, cancel, &self.clock);
        let (mut asked, mut killed) = (None, false);
        let status = loop {
            let event = {
                let ending = std::pin::pin!(child.wait());
                let reading = read_either(&mut out, &mut err).boxed();
                match select(select(ending, reading), &mut stop).await {
                    Either::Left((Either::Left((status, _)), _)) => Event::Ended(status),
                    Either::Left((Either::Right((read, _)), _)) => Event::Read(read.0, read.1),
                    Either::Right((why, _)) => Event::Stop(why),
                }
            };
            match event {
                Event::Ended(status) => break status.map_err(lost)?,
                Event::Read(Stream::Out, read) => out.take(read.map_err(lost)?, Stream::Out, &mut output),
                Event::Read(Stream::Err, read) => err.take(read.map_err(lost)?, Stream::Err, &mut output),
                Event::Stop(Some(why)) => {
                    asked = Some(why);
                    group.signal(Signal::TERM);
                    let (clock, grace) = (Arc::clone(&self.clock), self.grace);
                    stop = async move {
                        clock.sleep(grace).await;
                        None
                    }
                    .boxed();
                }
                Event::Stop(None) => {
                    killed = true;
                    group.signal(Signal::KILL);
                    stop = std::future::pending().boxed();
                }
            }
        };
        // The command itself is gone, and what it wrote is in the pipes. Whoever it left behind goes, too.
        let strays = group.end();
        drop(writers);
        out.rest(Stream::Out, &mut output).map_err(lost)?;
        err.rest(Stream::Err, &mut output).map_err(lost)?;
        // They may have written until they were gone. Nobody else is waited for: a command that is just being started holds all pipes until
        // it has come through `exec`, and a process that could not be found may hold them for ever.
        let mut patience = self.clock.sleep(self.grace);
        while strays > 0 && (out.is_open() || err.is_open()) {
            let Some((stream, read)) = before(read_either(&mut out, &mut err), &mut patience).await else {
                break;
            };
            match stream {
                Stream::Out => out.take(read.map_err(lost)?, stream, &mut output),
                Stream::Err => err.take(read.map_err(lost)?, stream, &mut output),
            }
        }
        out.end(Stream::Out, &mut output);
        err.end(Stream::Err, &mut output);
        match asked {
            Some(why) => Err(output.stopped(command, why, killed)),
            None => output.ended(command, ending(status), strays),
        }
    }
}

enum Event {
    Ended(std::io::Result<std::process::ExitStatus>),
    Read(Stream, std::io::Result<usize>),
    Stop(Option<Stop>),
}

/// Returns when the command should stop, with why.
pub(super) fn wish<'a>(
    command: &Command,
    cancel: &'a Cancel,
    clock: &Arc<dyn Clock>,
) -> BoxFuture<'a, Option<Stop>> {
    let cancelled = cancel.cancelled().map(|()| Some(Stop::Cancelled));
    let Some(limit) = command.limit else { return cancelled.boxed() };
    let clock = Arc::clone(clock);
    let late = async move {
        clock.sleep(limit).await;
        Some(Stop::Limit(limit))
    };
    select(cancelled.boxed(), late.boxed()).map(|first| first.factor_first().0).boxed()
}

/// What `work` gives, or nothing if `late` is over first.
pub(super) async fn before<T>(
    work: impl Future<Output = T> + Send,
    late: &mut BoxFuture<'_, ()>,
) -> Option<T> {
    match select(std::pin::pin!(work), late).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(_) => None,
    }
}

fn ending(status: std::process::ExitStatus) -> Ending {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, signal) => Ending::Signal(signal.unwrap_or(0)),
    }
}

/// A process with its outputs.
struct Started {
    child: Child,
    out: ChildStdout,
    err: ChildStderr,
    /// Holds the ends into which the process writes. As long as this process has them, too, the outputs don't end with the command, so
    /// that its end wakes us once and not three times.
    writers: tokio::process::Command,
}

#[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
fn start(command: &Command, mark: &str) -> Result<Started, ExecError> {
    let failed = |kind, source: std::io::Error| ExecError::Start {
        program: command.shown(),
        kind,
        source: source.into(),
    };
    let no_pipe = |source| failed(ErrorKind::Unavailable, source);
    let (out, out_writer) = std::io::pipe().map_err(no_pipe)?;
    let (err, err_writer) = std::io::pipe().map_err(no_pipe)?;
    // Before there is a process, which nobody would end if this failed.
    let out = ChildStdout::from_std(OwnedFd::from(out).into()).map_err(no_pipe)?;
    let err = ChildStderr::from_std(OwnedFd::from(err).into()).map_err(no_pipe)?;
    let mut process = tokio::process::Command::new(&command.program);
    process
        .args(&command.args)
        .env_clear()
        .envs(&command.env)
        .envs(command.secret_env.iter().map(|(name, value)| (name, value.expose())))
        .env(MARK, mark)
        .current_dir(&command.dir)
        .stdin(nothing())
        .stdout(out_writer)
        .stderr(err_writer)
        .process_group(0);
    let child = process.spawn().map_err(|source| {
        let program = command.shown();
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound if !command.dir.is_dir() => {
                return ExecError::NoDirectory { program, dir: command.shown_path(&command.dir) };
            }
            std::io::ErrorKind::NotFound => {
                let looked = match command.env.get("PATH") {
                    _ if command.program.contains('/') => "that place".to_owned(),
                    Some(path) => format!("PATH `{path}`"),
                    None => "the default PATH".to_owned(),
                };
                return ExecError::NoProgram { program, looked };
            }
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            std::io::ErrorKind::ArgumentListTooLong | std::io::ErrorKind::InvalidInput => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        };
        failed(kind, source)
    })?;
    Ok(Started { child, out, err, writers: process })
}

/// An empty standard input. The device is opened once: commands often live no longer than opening it takes.
fn nothing() -> Stdio {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    let null = NULL.get_or_init(|| File::open("/dev/null").ok());
    null.as_ref().and_then(|null| null.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
}

/// A command and all that it started. Dropped before its end, it is asked to stop, and killed after the grace by a task, or at once if
/// there is no runtime to wait in.
struct Group {
    kin: Option<Kin>,
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
}

impl Group {
    fn of(child: &Child, mark: &str, clock: Arc<dyn Clock>, grace: SignedDuration) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { kin: leader.map(|leader| Kin::new(leader, mark)), clock, grace }
    }

    fn signal(&self, signal: Signal) {
        if let Some(kin) = &self.kin {
            kin.signal(signal);
        }
    }

    /// The leader ended: kills whoever is left. How many there were.
    fn end(&mut self) -> u32 {
        self.kin.take().map_or(0, |kin| kin.end())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(kin) = self.kin.take() else { return };
        kin.signal(Signal::TERM);
        let killer = Killer(kin);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (clock, grace) = (Arc::clone(&self.clock), self.grace);
            runtime.spawn(async move {
                let killer = killer;
                for _ in 0..LOOKS {
                    if !killer.0.is_alive() {
                        break;
                    }
                    clock.sleep(grace / LOOKS).await;
                }
                drop(killer);
            });
        }
    }
}

/// Kills a command and all that it started when it is dropped, also with the runtime.
struct Killer(Kin);

impl Drop for Killer {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// One of the two outputs: read into a buffer of its own.
pub(super) struct Pipe<R> {
    reader: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin + Send> Pipe<R> {
    pub(super) fn new(reader: Option<R>) -> Self {
        Self { reader, buffer: Vec::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// Reads more into the buffer; never returns once the pipe is at its end.
    async fn read(&mut self) -> std::io::Result<usize> {
        const CHUNK: usize = 32 * 1024;
        match &mut self.reader {
            Some(reader) => {
                let filled = self.buffer.len() >= FIRST;
                self.buffer.clear();
                self.buffer.reserve(if filled { CHUNK } else { FIRST });
                reader.read_buf(&mut self.buffer).await
            }
            None => std::future::pending().await,
        }
    }

    /// What was read; nothing is the end.
    pub(super) fn bytes(&mut self, read: usize) -> Option<&[u8]> {
        if read == 0 {
            self.reader = None;
        }
        self.reader.as_ref().map(|_| &self.buffer[..read])
    }

    /// Passes on what was read.
    fn take(&mut self, read: usize, stream: Stream, output: &mut Output<'_>) {
        match self.bytes(read) {
            Some(bytes) => output.take(stream, bytes),
            None => output.end(stream),
        }
    }

    /// Passes on what there is without waiting: all of it if nobody writes any more, else about as much as a pipe holds.
    fn rest(&mut self, stream: Stream, output: &mut Output<'_>) -> std::io::Result<()>
    where
        R: AsFd,
    {
        for _ in 0..64 {
            let Some(reader) = &self.reader else { break };
            self.buffer.resize(FIRST, 0);
            match rustix::io::read(reader, &mut self.buffer[..]) {
                Ok(read) => self.take(read, stream, output),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Nothing more is waited for.
    fn end(&mut self, stream: Stream, output: &mut Output<'_>) {
        if self.reader.take().is_some() {
            output.end(stream);
        }
    }
}

/// Reads from whichever has something; loses nothing when dropped.
pub(super) async fn read_either<O, E>(
    out: &mut Pipe<O>,
    err: &mut Pipe<E>,
) -> (Stream, std::io::Result<usize>)
where
    O: AsyncRead + Unpin + Send,
    E: AsyncRead + Unpin + Send,
{
    match select(out.read().boxed(), err.read().boxed()).await {
        Either::Left((read, _)) => (Stream::Out, read),
        Either::Right((read, _)) => (Stream::Err, read),
    }
}
