//! Commands as processes of this host, each in a process group of its own.
//!
//! The order of things when a command ends: its own end is awaited, then what it left behind is killed by its process group, then the
//! pipes are read to their end. So a process that forked away and holds the outputs open can't keep the run waiting, and one that closed
//! them early is still awaited.

use std::{process::Stdio, sync::Arc};

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
    Command, ExecError, Executor, ExecutorCapabilities, Exited, Line, LineSplitter, Lines, Stream,
    mask::MaskStream,
};
use crate::cancel::Cancel;

/// Longer lines are cut.
const LONGEST_LINE: usize = 16 * 1024;
/// So many last lines go into an error.
const LAST_LINES: usize = 10;
/// So much of each of them.
const LAST_LINE: usize = 400;

/// So often it is looked, during the grace, whether a dropped command's group is gone.
const LOOKS: i32 = 20;

/// Runs commands on this host.
///
/// Hermetic in environment and standard input; files and network are those of the host. Must be used within a tokio runtime with I/O.
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
        ExecutorCapabilities { hermetic_files: false, hermetic_network: false, local: true }
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let program = || command.program.clone();
        if cancel.is_cancelled() {
            return Err(ExecError::Cancelled { program: program(), killed: false });
        }
        let mut child = start(command)?;
        let mut group = Group::of(&child, Arc::clone(&self.clock), self.grace);
        let lost = |source: std::io::Error| ExecError::Lost { program: program(), source: source.into() };
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let mut output = Output::new(command, lines);
        let (mut out, mut err) = (Pipe::new(out, Stream::Out, command), Pipe::new(err, Stream::Err, command));
        let mut stop: BoxFuture<'_, ()> = cancel.cancelled().boxed();
        let (mut asked, mut killed) = (false, false);
        let status = loop {
            let reading = select(out.read().boxed(), err.read().boxed()).map(|read| match read {
                Either::Left((chunk, _)) => (Stream::Out, chunk),
                Either::Right((chunk, _)) => (Stream::Err, chunk),
            });
            let event = {
                let ending = std::pin::pin!(child.wait());
                let reading = std::pin::pin!(reading);
                match select(select(ending, reading), &mut stop).await {
                    Either::Left((Either::Left((status, _)), _)) => Event::Ended(status),
                    Either::Left((Either::Right((read, _)), _)) => Event::Read(read.0, read.1),
                    Either::Right(_) => Event::Stop,
                }
            };
            match event {
                Event::Ended(status) => break status.map_err(lost)?,
                Event::Read(stream, chunk) => {
                    let read = chunk.map_err(lost)?;
                    match stream {
                        Stream::Out => out.take(read, &mut output),
                        Stream::Err => err.take(read, &mut output),
                    }
                }
                Event::Stop if asked => {
                    killed = true;
                    group.signal(Signal::KILL);
                    stop = std::future::pending().boxed();
                }
                Event::Stop => {
                    asked = true;
                    group.signal(Signal::TERM);
                    let (clock, grace) = (Arc::clone(&self.clock), self.grace);
                    stop = async move { clock.sleep(grace).await }.boxed();
                }
            }
        };
        // The command itself is gone. Whoever it left behind goes too; then nobody holds the pipes open, but a process that left the
        // group: it is not waited for.
        let strays = group.end();
        let mut patience = self.clock.sleep(self.grace);
        while out.is_open() || err.is_open() {
            let read = {
                let reading = select(out.read().boxed(), err.read().boxed()).map(|read| match read {
                    Either::Left((chunk, _)) => (Stream::Out, chunk),
                    Either::Right((chunk, _)) => (Stream::Err, chunk),
                });
                match select(std::pin::pin!(reading), &mut patience).await {
                    Either::Left((read, _)) => read,
                    Either::Right(_) => break,
                }
            };
            match read {
                (Stream::Out, read) => out.take(read.map_err(lost)?, &mut output),
                (Stream::Err, read) => err.take(read.map_err(lost)?, &mut output),
            }
        }
        out.end(&mut output);
        err.end(&mut output);
        if asked {
            return Err(ExecError::Cancelled { program: program(), killed });
        }
        output.ended(program(), status, strays)
    }
}

enum Event {
    Ended(std::io::Result<std::process::ExitStatus>),
    Read(Stream, std::io::Result<usize>),
    Stop,
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
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    process.spawn().map_err(|source| {
        let program = command.program.clone();
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound if !command.dir.is_dir() => {
                return ExecError::NoDirectory { program, dir: command.dir.clone() };
            }
            std::io::ErrorKind::NotFound => {
                let looked = match command.env.get("PATH") {
                    _ if program.contains('/') => "that place".to_owned(),
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

/// One of the two outputs: read, masked, cut into lines.
struct Pipe<R> {
    reader: Option<R>,
    buffer: Vec<u8>,
    stream: Stream,
    mask: MaskStream,
    splitter: LineSplitter,
    masked: Vec<u8>,
}

impl<R: AsyncRead + Unpin + Send> Pipe<R> {
    fn new(reader: Option<R>, stream: Stream, command: &Command) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            stream,
            mask: command.masker().stream(),
            splitter: LineSplitter::new(LONGEST_LINE),
            masked: Vec::new(),
        }
    }

    fn is_open(&self) -> bool {
        self.reader.is_some()
    }

    /// Reads more into the buffer; never returns once the pipe is at its end.
    async fn read(&mut self) -> std::io::Result<usize> {
        const CHUNK: usize = 32 * 1024;
        match &mut self.reader {
            Some(reader) => {
                self.buffer.resize(CHUNK, 0);
                reader.read(&mut self.buffer).await
            }
            None => std::future::pending().await,
        }
    }

    /// Passes on what was read; nothing read is the end.
    fn take(&mut self, read: usize, output: &mut Output<'_>) {
        if read == 0 {
            return self.end(output);
        }
        self.masked.clear();
        self.mask.push(&self.buffer[..read], &mut self.masked);
        self.pass(output);
    }

    /// Nothing more comes, or is waited for.
    fn end(&mut self, output: &mut Output<'_>) {
        self.reader = None;
        self.masked.clear();
        self.mask.finish(&mut self.masked);
        self.pass(output);
        let stream = self.stream;
        self.splitter.finish(|bytes, cut| output.line(stream, bytes, cut));
    }

    fn pass(&mut self, output: &mut Output<'_>) {
        let stream = self.stream;
        output.keep(stream, &self.masked);
        self.splitter.push(&self.masked, |bytes, cut| output.line(stream, bytes, cut));
    }
}

/// Where both outputs meet.
struct Output<'a> {
    lines: &'a mut dyn Lines,
    keep: usize,
    exited: Exited,
    last: std::collections::VecDeque<String>,
}

impl<'a> Output<'a> {
    fn new(command: &Command, lines: &'a mut dyn Lines) -> Self {
        Self { lines, keep: command.keep, exited: Exited::default(), last: std::collections::VecDeque::new() }
    }

    fn keep(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Err {
            return;
        }
        let kept = &mut self.exited.stdout;
        kept.extend_from_slice(bytes);
        // Cutting only now and then keeps the cost of each byte constant.
        if kept.len() > 2 * self.keep {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let over = self.exited.stdout.len().saturating_sub(self.keep);
        self.exited.stdout.drain(..over);
        self.exited.dropped += over as u64;
    }

    fn line(&mut self, stream: Stream, bytes: &[u8], cut: bool) {
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        let shown = &bytes[..bytes.len().min(LAST_LINE)];
        self.last.push_back(String::from_utf8_lossy(shown).trim_end().to_owned());
        self.lines.line(Line { stream, bytes: bytes.to_vec(), cut });
    }

    fn ended(
        mut self,
        program: String,
        status: std::process::ExitStatus,
        strays: bool,
    ) -> Result<Exited, ExecError> {
        use std::os::unix::process::ExitStatusExt;
        self.cut();
        self.exited.strays = strays;
        let last = self.last.into();
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(self.exited),
            (Some(code), _) => Err(ExecError::Code { program, code, last }),
            (None, signal) => Err(ExecError::Signal { program, signal: signal.unwrap_or(0), last }),
        }
    }
}
