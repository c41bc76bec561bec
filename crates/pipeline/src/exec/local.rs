//! Commands as processes of this host, each in a process group of its own.
//!
//! The order of things when a command ends: its own end is awaited, then what it left behind is killed by its process group, then the
//! pipes are read to their end. So a process that forked away and holds the outputs open can't keep the run waiting, and one that closed
//! them early is still awaited.

use std::{
    fs::File,
    process::Stdio,
    sync::{Arc, OnceLock},
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock, error::ErrorKind};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Child,
};

use super::{
    Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines, Stream,
    output::{Ending, Output, Stop},
};
use crate::cancel::Cancel;

/// So often it is looked, during the grace, whether a dropped command's group is gone.
const LOOKS: i32 = 20;

/// Runs commands on this host.
///
/// Hermetic in environment and standard input; files and network are those of the host. A command is the leader of a process group, not of
/// a session, which would take `unsafe` code: a process that makes itself a session of its own leaves the group, and is neither waited for
/// nor killed. Must be used within a tokio runtime with I/O.
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
            exact_signals: true,
            asks_all: true,
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
        let mut child = start(command)?;
        let mut group = Group::of(&child, Arc::clone(&self.clock), self.grace);
        let lost =
            |source: std::io::Error| ExecError::Lost { program: command.shown(), source: source.into() };
        let mut output = Output::new(command, lines);
        let (mut out, mut err) = (Pipe::new(child.stdout.take()), Pipe::new(child.stderr.take()));
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
        // The command itself is gone. Whoever it left behind goes too; then nobody holds the pipes open, but a process that left the
        // group: it is not waited for.
        let strays = group.end();
        let mut patience = self.clock.sleep(self.grace);
        while out.is_open() || err.is_open() {
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

#[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
fn start(command: &Command) -> Result<Child, ExecError> {
    let mut process = tokio::process::Command::new(&command.program);
    process
        .args(&command.args)
        .env_clear()
        .envs(&command.env)
        .envs(command.secret_env.iter().map(|(name, value)| (name, value.expose())))
        .current_dir(&command.dir)
        .stdin(nothing())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    process.spawn().map_err(|source| {
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
        ExecError::Start { program, kind, source: source.into() }
    })
}

/// An empty standard input. The device is opened once: commands often live no longer than opening it takes.
fn nothing() -> Stdio {
    static NULL: OnceLock<Option<File>> = OnceLock::new();
    let null = NULL.get_or_init(|| File::open("/dev/null").ok());
    null.as_ref().and_then(|null| null.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
}

/// The process group of a command. Dropped before its end, it is asked to stop, and killed after the grace by a task, or at once if there
/// is no runtime to wait in.
struct Group {
    leader: Option<Pid>,
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
}

impl Group {
    fn of(child: &Child, clock: Arc<dyn Clock>, grace: SignedDuration) -> Self {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Self { leader, clock, grace }
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // It fails only if nobody is left.
            kill_process_group(leader, signal).ok();
        }
    }

    /// The leader ended: kills whoever is left. Whether anybody was.
    fn end(&mut self) -> bool {
        let Some(leader) = self.leader.take() else { return false };
        kill_process_group(leader, Signal::KILL).is_ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(leader) = self.leader.take() else { return };
        let killer = Killer(leader);
        if kill_process_group(leader, Signal::TERM).is_err() {
            std::mem::forget(killer);
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (clock, grace) = (Arc::clone(&self.clock), self.grace);
            runtime.spawn(async move {
                let killer = killer;
                for _ in 0..LOOKS {
                    if test_kill_process_group(killer.0).is_err() {
                        break;
                    }
                    clock.sleep(grace / LOOKS).await;
                }
                drop(killer);
            });
        }
    }
}

/// Kills a process group when it is dropped, also with the runtime.
struct Killer(Pid);

impl Drop for Killer {
    fn drop(&mut self) {
        kill_process_group(self.0, Signal::KILL).ok();
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
        // Most commands print little; one that fills the small buffer gets the large one.
        const FIRST: usize = 2 * 1024;
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
