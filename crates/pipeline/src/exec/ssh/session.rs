//! One call of `ssh`: what it is told, what comes of it, and whether anything may have happened there when it breaks.

use std::{collections::VecDeque, process::Stdio, sync::Arc};

use flowline_core::error::{BoxError, ErrorKind};
use tokio::{
    io::AsyncWriteExt as _,
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
};

use super::{
    mark::Parted,
    script::{BOOT, READY},
};
use crate::exec::{
    Command, ExecError, Stream,
    local::{Pipe, read_either},
};

/// So much is kept of what `ssh` itself says.
const COMPLAINT: usize = 4 * 1024;

/// An `ssh` that runs the constant part on the far host.
pub(super) struct Session {
    child: Child,
    input: Option<ChildStdin>,
    out: Pipe<ChildStdout>,
    err: Pipe<ChildStderr>,
    out_parted: Parted,
    err_parted: Parted,
    queue: VecDeque<Came>,
    /// What the far side said about the end, as far as it came.
    said: Vec<u8>,
    /// The end of standard error, for when the connection breaks.
    complaint: Vec<u8>,
    /// The far side may have done something.
    begun: bool,
    place: Arc<str>,
    _turn: tokio::sync::OwnedSemaphorePermit,
}

/// What comes from the far host.
pub(super) enum Came {
    /// The command printed this.
    Printed(Stream, Vec<u8>),
    /// Ours, after the end of the command's standard output.
    Payload(Vec<u8>),
    /// The far side said how it ended.
    Said(String),
    /// The connection ended. Nothing more comes.
    Closed,
}

#[expect(clippy::disallowed_methods, reason = "this is an adapter: it runs the system's ssh")]
pub(super) fn ssh(words: &[String]) -> tokio::process::Command {
    let mut ssh = tokio::process::Command::new("ssh");
    ssh.args(words)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .process_group(0);
    ssh
}

impl Session {
    pub(super) fn start(
        command: &Command,
        words: &[String],
        mark: &str,
        place: Arc<str>,
        turn: tokio::sync::OwnedSemaphorePermit,
    ) -> Result<Self, ExecError> {
        let mut words = words.to_vec();
        words.push(BOOT.to_owned());
        let mut child = ssh(&words).spawn().map_err(|source| unreachable(command, &place, source))?;
        Ok(Self {
            input: child.stdin.take(),
            out: Pipe::new(child.stdout.take()),
            err: Pipe::new(child.stderr.take()),
            child,
            out_parted: Parted::at(mark),
            err_parted: Parted::at(mark),
            queue: VecDeque::new(),
            said: Vec::new(),
            complaint: Vec::new(),
            begun: false,
            place,
            _turn: turn,
        })
    }

    /// Waits until the far side reads lines. Nothing has happened there before.
    pub(super) async fn ready(&mut self, command: &Command) -> Result<(), ExecError> {
        let mut seen: Vec<u8> = Vec::new();
        while self.err.is_open() {
            let (stream, read) = read_either(&mut self.out, &mut self.err).await;
            let read = read.map_err(|source| unreachable(command, &self.place, source))?;
            if stream == Stream::Out {
                // A login shell that greets on standard output is none of ours.
                self.out.bytes(read);
                continue;
            }
            let Some(bytes) = self.err.bytes(read) else { break };
            seen.extend_from_slice(bytes);
            if seen.split(|byte| *byte == b'\n').any(|line| line == READY.as_bytes()) {
                return Ok(());
            }
            seen.truncate(COMPLAINT);
        }
        self.child.wait().await.ok();
        Err(refused(command, &self.place, &String::from_utf8_lossy(&seen)))
    }

    /// Tells the far side something; from now on it may act. A connection that breaks shows when reading.
    pub(super) async fn tell(&mut self, text: &[u8]) {
        self.begun = true;
        if let Some(input) = &mut self.input {
            let told = async {
                input.write_all(text).await?;
                input.flush().await
            };
            if told.await.is_err() {
                self.input = None;
            }
        }
    }

    /// Nothing more is told.
    pub(super) fn told(&mut self) {
        self.input = None;
    }

    /// What comes next. May be dropped; nothing is lost.
    pub(super) async fn next(&mut self) -> std::io::Result<Came> {
        loop {
            if let Some(came) = self.queue.pop_front() {
                return Ok(came);
            }
            if !self.out.is_open() && !self.err.is_open() {
                return Ok(Came::Closed);
            }
            let (stream, read) = read_either(&mut self.out, &mut self.err).await;
            self.part(stream, read?);
        }
    }

    /// Whether the command's outputs both came to their end, and how it ended was said.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_empty() && self.out_parted.found() && self.said.contains(&b'\n')
    }

    fn part(&mut self, stream: Stream, read: usize) {
        let (bytes, parted) = match stream {
            Stream::Out => (self.out.bytes(read), &mut self.out_parted),
            Stream::Err => (self.err.bytes(read), &mut self.err_parted),
        };
        let (before, after) = bytes.map_or_else(Default::default, |bytes| parted.push(bytes));
        let before = if read == 0 { parted.rest() } else { before };
        if stream == Stream::Err {
            self.complaint.extend_from_slice(&before);
            let over = self.complaint.len().saturating_sub(COMPLAINT);
            self.complaint.drain(..over);
        }
        if !before.is_empty() {
            self.queue.push_back(Came::Printed(stream, before));
        }
        match stream {
            Stream::Out if !after.is_empty() => self.queue.push_back(Came::Payload(after)),
            Stream::Err if !self.said.contains(&b'\n') => {
                self.said.extend_from_slice(&after);
                if self.said.contains(&b'\n') {
                    self.queue.push_back(Came::Said(self.said_line()));
                }
            }
            _ => {}
        }
    }

    fn said_line(&self) -> String {
        let line = self.said.split(|byte| *byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).trim().to_owned()
    }

    /// Why the connection ended before the far side said how it went.
    pub(super) fn broken(&self, command: &Command, source: Option<std::io::Error>) -> ExecError {
        let said = String::from_utf8_lossy(&self.complaint).trim().to_owned();
        let source: BoxError = match source {
            Some(error) => error.into(),
            None if said.is_empty() => "the connection ended".into(),
            None => {
                let masked = command.masker().mask(said.as_bytes());
                String::from_utf8_lossy(&masked).into_owned().into()
            }
        };
        if !self.begun {
            return unreachable(command, &self.place, source);
        }
        ExecError::Interrupted { program: command.shown(), place: self.place.to_string(), source }
    }
}

pub(super) fn unreachable(command: &Command, place: &str, source: impl Into<BoxError>) -> ExecError {
    ExecError::Unreachable {
        program: command.shown(),
        place: place.to_owned(),
        kind: ErrorKind::Unavailable,
        source: source.into(),
    }
}

/// What `ssh` said when it gave up before the far side was ready.
pub(super) fn refused(command: &Command, place: &str, said: &str) -> ExecError {
    let denied = ["host key", "Host key", "Permission denied", "Too many authentication failures"];
    let kind = if denied.iter().any(|text| said.contains(text)) {
        ErrorKind::Denied
    } else {
        ErrorKind::Unavailable
    };
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(3)..].join(" / ");
    let source: BoxError = if last.is_empty() { "ssh ended without a word".into() } else { last.into() };
    ExecError::Unreachable { program: command.shown(), place: place.to_owned(), kind, source }
}
