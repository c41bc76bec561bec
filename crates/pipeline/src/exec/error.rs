//! Why a command did not end well, by meaning: the same for every executor.

use std::path::PathBuf;

use flowline_core::{
    SignedDuration,
    error::{BoxError, ErrorKind, Kinded},
};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The command can't be run as it is written.
    #[error("cannot run `{program}`: {problem}")]
    Invalid {
        /// The program.
        program: String,
        /// What is wrong, and what to do.
        problem: String,
    },
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
    /// A declared input does not exist.
    #[error("cannot start `{program}`: its declared input {} does not exist", .path.display())]
    NoFile {
        /// The program.
        program: String,
        /// The file.
        path: PathBuf,
    },
    /// A declared file could not be read, carried over, or brought back. The command had no chance to start, or had ended well.
    #[error("cannot carry the declared file {} for `{program}`", .path.display())]
    Files {
        /// The program.
        program: String,
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: BoxError,
    },
    /// There is no such image.
    #[error(
        "cannot start `{program}`: the container engine has no image `{image}`; pull it first, by its digest"
    )]
    NoImage {
        /// The program.
        program: String,
        /// The image.
        image: String,
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
    /// Where it should run cannot be reached: it was certainly not started.
    #[error("cannot reach {place} to start `{program}`; it was not started")]
    Unreachable {
        /// The program.
        program: String,
        /// Where it should have run.
        place: String,
        /// What kind of trouble: `Denied` for a wrong host key or a refused login, else `Unavailable`.
        kind: ErrorKind,
        /// What is known.
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
    /// It needed more memory than it may have, and was killed.
    #[error("`{program}` was killed because it needed more than its {limit} bytes of memory{}", last_lines(.last))]
    OutOfMemory {
        /// The program.
        program: String,
        /// How many bytes it may have.
        limit: u64,
        /// The last lines that it printed, secrets masked.
        last: Vec<String>,
    },
    /// It took longer than its limit, and was stopped.
    #[error("`{program}` did not end within its limit of {limit:#}{}{}", and_killed(*.killed), last_lines(.last))]
    TimedOut {
        /// The program.
        program: String,
        /// The limit.
        limit: SignedDuration,
        /// It did not stop within the grace.
        killed: bool,
        /// The last lines that it printed, secrets masked.
        last: Vec<String>,
    },
    /// It was stopped because somebody wished so.
    #[error("`{program}` was cancelled{}", and_killed(*.killed))]
    Cancelled {
        /// The program.
        program: String,
        /// It did not stop within the grace.
        killed: bool,
    },
    /// The connection to where it ran broke, or the engine that ran it went away. The other side ends it as soon as it notices, but how far
    /// it came nobody knows: ask the world before doing it again. The run engine does so by the effect that the step declares: one that is
    /// `Probed` is probed before another attempt, one that is `Once` is left to a person.
    #[error(
        "lost {place} while `{program}` ran there; whether it took effect is unknown: probe before running it again"
    )]
    Interrupted {
        /// The program.
        program: String,
        /// Where it ran.
        place: String,
        /// What is known.
        source: BoxError,
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

impl ExecError {
    /// Whether the command may have taken effect although nobody saw it end.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Lost { .. })
    }
}

impl Kinded for ExecError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Invalid { .. } => ErrorKind::Invalid,
            Self::NoProgram { .. }
            | Self::NoDirectory { .. }
            | Self::NoFile { .. }
            | Self::NoImage { .. } => ErrorKind::NotFound,
            Self::Start { kind, .. } | Self::Unreachable { kind, .. } => *kind,
            Self::Code { .. } | Self::Signal { .. } | Self::OutOfMemory { .. } => ErrorKind::Failed,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
            Self::Interrupted { .. } => ErrorKind::Unavailable,
            Self::Files { .. } | Self::Lost { .. } => ErrorKind::Other,
            Self::Unsupported => ErrorKind::Unsupported,
        }
    }
}

fn and_killed(killed: bool) -> &'static str {
    if killed { ", and killed because it did not stop by itself" } else { "" }
}

fn last_lines(last: &[String]) -> String {
    if last.is_empty() {
        return " and printed nothing".to_owned();
    }
    format!("; its last lines: {}", last.join(" / "))
}
