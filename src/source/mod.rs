//! Where a component's files come from: a [`Source`] names trees by digest and exports them. [`git`] is the real one.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use flowline_core::{
    change::CommitId,
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
};

pub mod git;

pub use git::GitSource;

/// A history of commits with trees in it.
///
/// *Guarantees*: everything is by commit, so the same call gives the same answer for ever; nothing is written to the source; a text
/// that comes from outside (a branch's name) is only ever data, never an option or a path.
///
/// *Errors by kind*: `NotFound` for a revision or path that is not there, `Unavailable` if the source can't be read at all.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// The commit that `revision` (a branch, a tag, a commit's id) stands for now.
    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError>;

    /// The digest of what stands at `path` in `commit`: equal if and only if every file below is. `None` if nothing stands there.
    async fn tree(&self, commit: &CommitId, path: &str) -> Result<Option<Digest>, SourceError>;

    /// The text of the one file at `path` in `commit`; `None` if nothing stands there.
    async fn read(&self, commit: &CommitId, path: &str) -> Result<Option<String>, SourceError>;

    /// Writes all files below `path` in `commit` into the directory `into`, which is made if it is not there.
    async fn export(&self, commit: &CommitId, path: &str, into: &Path) -> Result<(), SourceError>;
}

/// Why a source could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The program that reads it is not there.
    #[error("cannot run `{program}`, which reads {repository}: install it or set its path")]
    NoProgram {
        /// The program.
        program: PathBuf,
        /// The repository.
        repository: PathBuf,
        /// What the system says.
        source: BoxError,
    },
    /// The directory is not a repository.
    #[error("{repository} is not a git repository that can be read: {said}")]
    NotARepository {
        /// The directory.
        repository: PathBuf,
        /// What git says.
        said: String,
    },
    /// No commit goes by that name.
    #[error("no commit goes by `{revision}` in {repository}; was it fetched?")]
    NoRevision {
        /// What was asked for.
        revision: String,
        /// The repository.
        repository: PathBuf,
    },
    /// The source refused for another reason.
    #[error("git could not {doing} in {repository}: {said}")]
    Failed {
        /// What was being done.
        doing: String,
        /// The repository.
        repository: PathBuf,
        /// What git says.
        said: String,
    },
    /// Files could not be written.
    #[error("cannot write the files of a commit to {to}")]
    Write {
        /// Where they should go.
        to: PathBuf,
        /// What the system says.
        source: BoxError,
    },
}

impl Kinded for SourceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProgram { .. } | Self::NotARepository { .. } | Self::Write { .. } => {
                ErrorKind::Unavailable
            }
            Self::NoRevision { .. } => ErrorKind::NotFound,
            Self::Failed { .. } => ErrorKind::Failed,
        }
    }
}
