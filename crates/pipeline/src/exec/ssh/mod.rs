//! Commands on another host, through the system's `ssh` program.
//!
//! One connection is kept and shared by all commands (OpenSSH's multiplexing); its socket lies in a private directory that goes with it. A
//! session tells the far `/bin/sh` lines; what the command prints comes back as it is, and a mark that nobody can guess ends it.
//! While the command runs, the far side listens: a wish to stop, and the end of the connection, both end the command with all that it
//! started: its session, and on Linux whoever carries its [`MARK`](super::MARK), whatever session it made for itself.

mod files;
mod host;
mod mark;
mod script;
mod session;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration,
    clock::Clock,
    error::{BoxError, ErrorKind},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Child,
    sync::{Mutex, Semaphore},
};

pub use self::host::{SshHost, SshHostError};
use self::{
    files::{Carried, Returning},
    host::option_path,
    session::{Came, Session, refused, ssh, unreachable},
};
use super::{
    Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines, Stream,
    local::{before, wish},
    marked::new_mark,
    output::{Ending, Output, Stop},
};
use crate::cancel::Cancel;

/// An sshd refuses more than ten sessions of one connection by default.
const SESSIONS: usize = 8;
/// What a far host says that can't do it.
const NO_SETSID: &str = "the far host has no `setsid`, without which a command and what it starts cannot be ended together; install util-linux";

/// Runs commands on another host.
///
/// A command without declared files runs in its working directory of the far host, which must exist. One with declared files runs in a
/// fresh private directory that holds just these: each is sent once, by digest (what the far host has already is not sent again), verified
/// there before it is used; declared outputs come back and are verified here. Then the directory is removed.
///
/// The far host needs OpenSSH's server, a POSIX `/bin/sh`, `env`, `setsid`, and for files `find`, `head`, `tail` and `sha256sum`: nothing
/// of ours. Secrets travel over the connection and stand on no command line, but like every variable they can be read there by the same user
/// and by root. Secrets can only be given under names that a shell can set.
///
/// The connection is closed when the last clone is dropped. It ends by itself if the process dies, since the far side then reads an end.
#[derive(Clone)]
pub struct SshExecutor {
    host: Arc<SshHost>,
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
    connect: u64,
    root: String,
    shared: Arc<Shared>,
}

struct Shared {
    master: Mutex<Option<Master>>,
    turns: Arc<Semaphore>,
}

/// The connection that all sessions use.
struct Master {
    child: Child,
    dir: tempfile::TempDir,
}

impl fmt::Debug for SshExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SshExecutor")
            .field("host", &self.host.shown())
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}

impl SshExecutor {
    /// Runs commands on `host`: tries for 10 s to connect, keeps files below `.cache/flowline` of the login directory, and gives a command
    /// 5 s between SIGTERM and SIGKILL.
    pub fn new(host: SshHost, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared { master: Mutex::new(None), turns: Arc::new(Semaphore::new(SESSIONS)) };
        Self {
            host: Arc::new(host),
            clock,
            grace: SignedDuration::from_secs(5),
            connect: 10,
            root: ".cache/flowline".to_owned(),
            shared: Arc::new(shared),
        }
    }

    /// The same with this time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn with_grace(mut self, grace: SignedDuration) -> Self {
        self.grace = grace;
        self
    }

    /// The same, trying for so many seconds to connect; at least 1.
    #[must_use]
    pub fn with_connect_seconds(mut self, seconds: u64) -> Self {
        self.connect = seconds.max(1);
        self
    }

    /// The same, keeping files in this directory of the far host; relative to the login directory. A file that no command has needed for 30
    /// days is removed there.
    #[must_use]
    pub fn with_root(mut self, root: impl Into<String>) -> Self {
        self.root = root.into();
        self
    }

    fn place(&self) -> Arc<str> {
        self.host.shown().into()
    }

    fn check(&self, command: &Command) -> Result<(), ExecError> {
        if let Some(file) = self.host.odd_file() {
            let problem = format!(
                "`{}` must be an absolute path without quotes, `$` and backslashes, as ssh would read it differently",
                file.display()
            );
            return Err(command.invalid(problem));
        }
        if command.program.is_empty() || command.program.contains('=') || command.program.starts_with('-') {
            return Err(
                command.invalid("a program on another host may not be empty, hold `=` or begin with `-`")
            );
        }
        if let Some(name) = command.secret_env.keys().find(|name| !script::is_shell_name(name)) {
            return Err(
                command.invalid(format!("`{name}` cannot be the name of a secret variable on another host"))
            );
        }
        if command.dir.to_str().is_none() {
            return Err(
                command.invalid("its working directory is not UTF-8, so it cannot be named to another host")
            );
        }
        Ok(())
    }

    /// The words before the far command, over the shared connection, which is made if there is none.
    async fn words(&self, command: &Command) -> Result<Vec<String>, ExecError> {
        let mut master = self.shared.master.lock().await;
        if master.as_mut().is_some_and(|known| !matches!(known.child.try_wait(), Ok(None))) {
            *master = None;
        }
        if master.is_none() {
            *master = Some(self.connect(command).await?);
        }
        let path =
            master.as_ref().map(|master| option_path(&master.dir.path().join("s"))).unwrap_or_default();
        let mut words = self.host.options(self.connect);
        let more =
            ["-o".to_owned(), "ControlMaster=no".to_owned(), "-o".to_owned(), format!("ControlPath={path}")];
        words.extend(more);
        words.push(self.host.host().to_owned());
        Ok(words)
    }

    /// Makes the shared connection. It lasts as long as its standard input: if this process dies, the far `cat` ends, and with it the rest.
    async fn connect(&self, command: &Command) -> Result<Master, ExecError> {
        let place = self.place();
        let dir = tempfile::Builder::new().prefix("flowline-ssh-").tempdir_in("/tmp");
        let dir = dir.map_err(|source| {
            unreachable(command, "a private directory in /tmp for the connection", source)
        })?;
        let mut words = self.host.options(self.connect);
        let path = option_path(&dir.path().join("s"));
        words.extend([
            "-o".to_owned(),
            "ControlMaster=yes".to_owned(),
            "-o".to_owned(),
            format!("ControlPath={path}"),
        ]);
        words.extend([self.host.host().to_owned(), format!("echo {}; exec cat >/dev/null", script::READY)]);
        let mut child = ssh(&words).spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => unreachable(
                command,
                &place,
                "there is no `ssh` program on this host; install OpenSSH's client",
            ),
            _ => unreachable(command, &place, source),
        })?;
        let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(unreachable(command, &place, "ssh has no outputs"));
        };
        let ready = async {
            let mut lines = BufReader::new(out.take(64 * 1024)).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line == script::READY {
                    return true;
                }
            }
            false
        };
        let mut late =
            self.clock.sleep(SignedDuration::from_secs(i64::try_from(self.connect).unwrap_or(60) + 10));
        match before(ready, &mut late).await {
            Some(true) => Ok(Master { child, dir }),
            Some(false) => {
                let mut said = Vec::new();
                before((&mut err).take(4096).read_to_end(&mut said), &mut late).await;
                Err(refused(command, &place, &String::from_utf8_lossy(&said)))
            }
            None => Err(unreachable(command, &place, "it did not answer in time")),
        }
    }

    /// A session whose far side is ready, with its mark.
    async fn session(&self, command: &Command) -> Result<(Session, String), ExecError> {
        let place = self.place();
        let turn = Arc::clone(&self.shared.turns).acquire_owned().await;
        let turn = turn.map_err(|source| unreachable(command, &place, source))?;
        let words = self.words(command).await?;
        let mark = mark::new_mark().map_err(|source| unreachable(command, &place, source))?;
        let mut session = Session::start(command, &words, &mark, place, turn)?;
        session.ready(command).await?;
        Ok((session, mark))
    }

    /// A session that only moves files: what it printed.
    async fn exchange(
        &self,
        command: &Command,
        script: &str,
        files: &[&files::CarriedFile],
    ) -> Result<Vec<u8>, ExecError> {
        let (mut session, mark) = self.session(command).await?;
        session.tell(script::preamble(&mark, &self.root).as_bytes()).await;
        session.tell(script.as_bytes()).await;
        let mut buffer = vec![0; 64 * 1024];
        for file in files {
            use std::io::Read as _;
            let failed = |error: std::io::Error| command.files(&file.source, error);
            let mut source = std::fs::File::open(&file.source).map_err(failed)?.take(file.length);
            loop {
                let read = source.read(&mut buffer).map_err(failed)?;
                if read == 0 {
                    break;
                }
                session.tell(&buffer[..read]).await;
            }
        }
        if !files.is_empty() {
            session.told();
        }
        let mut printed = Vec::new();
        let mut said = None;
        while said.is_none() || !session.is_over() {
            match session.next().await {
                Ok(Came::Printed(Stream::Out, bytes)) => printed.extend(bytes),
                Ok(Came::Printed(..) | Came::Payload(_)) => {}
                Ok(Came::Said(text)) => said = Some(text),
                // Nothing of the command has begun: files that lie there are looked for again.
                Ok(Came::Closed) => {
                    return Err(unreachable(
                        command,
                        &self.place(),
                        "the connection broke while files were sent",
                    ));
                }
                Err(source) => return Err(unreachable(command, &self.place(), source)),
            }
        }
        match said.as_deref() {
            Some("end 0 0") => Ok(printed),
            other => Err(self.carrying_failed(command, other.unwrap_or_default())),
        }
    }

    fn carrying_failed(&self, command: &Command, said: &str) -> ExecError {
        let why: BoxError =
            format!("{} could not {}", self.place(), said.trim_start_matches("failed ")).into();
        command.files(&command.dir, why)
    }

    /// Sends what the far host lacks.
    async fn carry(&self, command: &Command) -> Result<Option<Carried>, ExecError> {
        let asked = command.clone();
        let looked = tokio::task::spawn_blocking(move || Carried::of(&asked)).await;
        let looked = looked.map_err(|source| command.files(&command.dir, source))?;
        let Some(carried) = looked? else { return Ok(None) };
        let contents = carried.contents();
        let digests: Vec<&str> = contents.keys().copied().collect();
        let answer = self.exchange(command, &script::missing(&digests), &[]).await?;
        let answer = String::from_utf8_lossy(&answer);
        let files: Vec<_> = answer.lines().filter_map(|line| contents.get(line.trim()).copied()).collect();
        if !files.is_empty() {
            let blobs = files.iter().map(|file| (file.digest.as_str(), file.length));
            self.exchange(command, &script::put(blobs), &files).await?;
        }
        Ok(Some(carried))
    }
}

#[async_trait]
impl Executor for SshExecutor {
    fn capabilities(&self) -> ExecutorCapabilities {
        ExecutorCapabilities { asks_all: true, tells_strays: true, ..ExecutorCapabilities::NONE }
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let cancelled = || ExecError::Cancelled { program: command.shown(), killed: false };
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        command.prepare()?;
        self.check(command)?;
        let going = async {
            let carried = self.carry(command).await?;
            Ok((carried, self.session(command).await?))
        };
        // Until the far side was told to start it, letting go is enough.
        let (carried, (session, mark)) =
            before(going, &mut cancel.cancelled().boxed()).await.ok_or_else(cancelled)??;
        let script = script::preamble(&mark, &self.root)
            + &script::run(command, carried.as_ref(), &new_mark(), self.grace);
        self.follow(session, &script, command, lines, cancel).await
    }
}

impl SshExecutor {
    /// Starts the command and follows it to its end.
    async fn follow(
        &self,
        mut session: Session,
        script: &str,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        session.tell(script.as_bytes()).await;
        let mut output = Output::new(command, lines);
        let mut returning = Returning::new(command);
        let mut stop: BoxFuture<'_, Option<Stop>> = wish(command, cancel, &self.clock);
        let (mut asked, mut killed) = (None, false);
        let mut said: Option<Said> = None;
        loop {
            let fetching = matches!(&said, Some(Said::End { code: 0, .. }))
                && !command.writes.is_empty()
                && asked.is_none();
            if said.is_some() && session.is_over() && (!fetching || returning.is_complete()) {
                break;
            }
            let event = match select(session.next().boxed(), &mut stop).await {
                Either::Left((came, _)) => Either::Left(came),
                Either::Right((why, _)) => Either::Right(why),
            };
            match event {
                Either::Left(Ok(Came::Printed(stream, bytes))) => output.take(stream, &bytes),
                Either::Left(Ok(Came::Payload(bytes))) => returning.push(&bytes)?,
                Either::Left(Ok(Came::Said(text))) => said = Some(Said::read(&text)),
                Either::Left(Ok(Came::Closed)) => return Err(session.broken(command, None)),
                Either::Left(Err(source)) => return Err(session.broken(command, Some(source))),
                Either::Right(Some(why)) => {
                    asked = Some(why);
                    session.tell(b"T\n").await;
                    stop = self.later(None);
                }
                Either::Right(None) if killed => return Err(session.broken(command, None)),
                Either::Right(None) => {
                    killed = said.is_none();
                    session.tell(b"K\n").await;
                    // The far side answers at once, or is lost.
                    stop = self.later(Some(SignedDuration::from_secs(15)));
                }
            }
        }
        output.end(Stream::Out);
        output.end(Stream::Err);
        match (said, asked) {
            (Some(Said::End { .. }), Some(why)) => Err(output.stopped(command, why, killed)),
            (Some(Said::End { code, strays }), None) => output.ended(command, Ending::of_shell(code), strays),
            (said, _) => Err(self.not_started(command, said)),
        }
    }

    fn later(&self, more: Option<SignedDuration>) -> BoxFuture<'static, Option<Stop>> {
        let (clock, time) = (Arc::clone(&self.clock), more.unwrap_or(self.grace));
        async move {
            clock.sleep(time).await;
            None
        }
        .boxed()
    }

    fn not_started(&self, command: &Command, said: Option<Said>) -> ExecError {
        let program = command.shown();
        let start =
            |kind, why: String| ExecError::Start { program: command.shown(), kind, source: why.into() };
        match said {
            Some(Said::NoDirectory) => {
                ExecError::NoDirectory { program, dir: command.shown_path(&command.dir) }
            }
            Some(Said::NoProgram) => {
                let looked = match command.env.get("PATH") {
                    _ if command.program.contains('/') => format!("that place on {}", self.place()),
                    Some(path) => format!("PATH `{path}` of {}", self.place()),
                    None => format!("the default PATH of {}", self.place()),
                };
                ExecError::NoProgram { program, looked }
            }
            Some(Said::NotExecutable) => start(ErrorKind::Denied, "it is not executable".to_owned()),
            Some(Said::NoSession) => start(ErrorKind::Unsupported, NO_SETSID.to_owned()),
            Some(Said::Other(text)) if text.starts_with("failed ") => self.carrying_failed(command, &text),
            other => start(ErrorKind::Other, format!("the far host's shell said {other:?}")),
        }
    }
}

/// How the far side says that it went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    End { code: i32, strays: u32 },
    NoDirectory,
    NoProgram,
    NotExecutable,
    NoSession,
    Other(String),
}

impl Said {
    fn read(text: &str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            ["end", code, strays] => match (code.parse(), strays.parse()) {
                (Ok(code), Ok(strays)) => Self::End { code, strays },
                _ => Self::Other(text.to_owned()),
            },
            ["nodir"] => Self::NoDirectory,
            ["noprogram"] => Self::NoProgram,
            ["noexec"] => Self::NotExecutable,
            ["nosetsid"] => Self::NoSession,
            _ => Self::Other(text.to_owned()),
        }
    }
}
