//! How a command runs: an [`Executor`] takes a [`Command`] that says everything it may see, and passes on what it prints.

mod lines;
#[cfg(all(feature = "process", unix))]
pub mod local;
mod mask;

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    path::PathBuf,
};

use async_trait::async_trait;
use flowline_core::{
    error::{BoxError, ErrorKind, Kinded},
    secret::Secret,
};
use serde::{Deserialize, Serialize};

#[cfg(all(feature = "process", unix))]
pub use self::local::LocalExecutor;
pub use self::{lines::LineSplitter, mask::Masker};
use crate::cancel::Cancel;

/// A command with everything that it may see. What is not named here, it does not get: no inherited environment, no standard input.
#[derive(Clone)]
pub struct Command {
    /// The program: a path, or a name that is looked up in the command's own `PATH`.
    pub program: String,
    /// Its arguments, passed as they are, without a shell.
    pub args: Vec<String>,
    /// Its environment, whole.
    pub env: BTreeMap<String, String>,
    /// Variables whose values must not be seen.
    pub secret_env: BTreeMap<String, Secret>,
    /// Its working directory.
    pub dir: PathBuf,
    /// Further values to mask in its output; those of `secret_env` always are.
    pub mask: Masker,
    /// How many bytes of its standard output are kept as the result; more is cut at the front.
    pub keep: usize,
}

impl Command {
    /// `program` without arguments in `dir`, with an empty environment.
    pub fn new(program: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            dir: dir.into(),
            mask: Masker::default(),
            keep: 64 * 1024,
        }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The same with these arguments too.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same with a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same with a variable whose value is masked in everything that it prints.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.secret_env.insert(name.into(), value);
        self
    }

    /// What must be masked: `mask`, and the values of `secret_env`.
    pub fn masker(&self) -> Masker {
        if self.secret_env.is_empty() {
            return self.mask.clone();
        }
        self.mask.with(self.secret_env.values())
    }
}

impl Debug for Command {
    /// The command line, with secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masker = self.masker();
        let shown = |text: &str| String::from_utf8_lossy(&masker.mask(text.as_bytes())).into_owned();
        f.debug_struct("Command")
            .field("program", &shown(&self.program))
            .field("args", &self.args.iter().map(|arg| shown(arg)).collect::<Vec<_>>())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("secret_env", &self.secret_env.keys().collect::<Vec<_>>())
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that a command printed, without its newline, secrets masked. The bytes are as they were, valid UTF-8 or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It was too long for one piece; the next line of the same stream continues it.
    pub cut: bool,
}

impl Line {
    /// The bytes as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Takes lines as they come. Called in order for each stream.
pub trait Lines: Send {
    /// Takes one line.
    fn line(&mut self, line: Line);
}

impl<F: FnMut(Line) + Send> Lines for F {
    fn line(&mut self, line: Line) {
        self(line);
    }
}

/// A command ended well, with exit code 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exited {
    /// The last [`Command::keep`] bytes of its standard output, secrets masked.
    pub stdout: Vec<u8>,
    /// How many bytes of standard output came before those.
    pub dropped: u64,
    /// It left processes behind, which were killed.
    pub strays: bool,
}

/// What an executor can do, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecutorCapabilities {
    /// Only declared files can be seen.
    pub hermetic_files: bool,
    /// The network is closed unless it was declared.
    pub hermetic_network: bool,
    /// It runs on this host: paths mean the same inside.
    pub local: bool,
}

/// Runs commands somewhere.
///
/// *Shape*: called from many tasks at once; `run` lasts as long as the command.
///
/// *Guarantees*
/// 1. The command sees exactly the declared environment, working directory and arguments, and an empty standard input.
/// 2. Lines arrive as they are printed, in order for each stream, with secrets masked however they were split over reads; memory stays bounded
///    whatever the command prints, also without newline.
/// 3. `run` returns once the command itself ended: not earlier, even if it closed its outputs; and not much later, even if a process that it
///    left behind holds them open. Nothing that it started is left behind.
/// 4. On cancel the whole process group is asked to stop, and killed after the grace. On drop the same happens without waiting.
///
/// *Errors by kind*: `NotFound` (no such program or directory), `Denied` (not executable), `Failed` (exit code or signal, with the last
/// lines), `Cancelled`, `Unavailable` (the host is out of processes), `Unsupported` (this platform).
///
/// *Where backends differ*: [`capabilities`](Self::capabilities). The suite is `testkit::executor`.
#[async_trait]
pub trait Executor: Debug + Send + Sync {
    /// What this executor can do.
    fn capabilities(&self) -> ExecutorCapabilities;

    /// Runs `command` to its end, passing its lines to `lines`.
    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError>;
}

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// There is no such program.
    #[error("cannot start `{program}`: there is no such program in {looked}; install it, or declare `PATH`")]
    NoProgram {
        /// The program.
        program: String,
        /// Where it was looked for.
        looked: String,
    },
    /// There is no such working directory.
    #[error("cannot start `{program}` in {}: there is no such directory", .dir.display())]
    NoDirectory {
        /// The program.
        program: String,
        /// The directory.
        dir: PathBuf,
    },
    /// It can't be started.
    #[error("cannot start `{program}`")]
    Start {
        /// The program.
        program: String,
        /// The system's answer, as a kind.
        kind: ErrorKind,
        /// The system's answer.
        source: BoxError,
    },
    /// It ended with another code than 0.
    #[error("`{program}` ended with exit code {code}{}", last_lines(.last))]
    Code {
        /// The program.
        program: String,
        /// The code.
        code: i32,
        /// The last lines that it printed, secrets masked.
        last: Vec<String>,
    },
    /// A signal ended it.
    #[error("`{program}` was ended by signal {signal}{}", last_lines(.last))]
    Signal {
        /// The program.
        program: String,
        /// The signal's number.
        signal: i32,
        /// The last lines that it printed, secrets masked.
        last: Vec<String>,
    },
    /// It was stopped because somebody wished so.
    #[error("`{program}` was cancelled{}", if *.killed { ", and killed because it did not stop by itself" } else { "" })]
    Cancelled {
        /// The program.
        program: String,
        /// It did not stop within the grace.
        killed: bool,
    },
    /// Its output could not be read or its end not be awaited.
    #[error("lost track of `{program}`")]
    Lost {
        /// The program.
        program: String,
        /// The system's answer.
        source: BoxError,
    },
    /// This platform can't do it.
    #[error("this platform cannot run commands hermetically; run on Unix, or in a container")]
    Unsupported,
}

impl Kinded for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProgram { .. } | Self::NoDirectory { .. } => ErrorKind::NotFound,
            Self::Start { kind, .. } => *kind,
            Self::Code { .. } | Self::Signal { .. } => ErrorKind::Failed,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Lost { .. } => ErrorKind::Other,
            Self::Unsupported => ErrorKind::Unsupported,
        }
    }
}

fn last_lines(last: &[String]) -> String {
    if last.is_empty() {
        return " and printed nothing".to_owned();
    }
    format!("; its last lines: {}", last.join(" / "))
}
