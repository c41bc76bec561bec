//! Why a store did not do what it was asked, and what to do next.

use super::Revision;
use crate::{
    error::{BoxError, ErrorKind, Kinded, Retry},
    id::Key,
};

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A document does not have the expected revision; read it again and decide anew.
    #[error("document `{key}` is at revision {} where {} was expected; read it again and decide anew", .found.0, .expected.0)]
    Conflict {
        /// The document.
        key: Key,
        /// What the batch expected.
        expected: Revision,
        /// What is there.
        found: Revision,
    },
    /// A lease is not held any more; stop what it protects.
    #[error("lease `{lease}` is not held with token {token} any more{}; stop what it protects", held_by(.found.as_ref()))]
    Fenced {
        /// The lease's document.
        lease: Key,
        /// The token that the batch demanded.
        token: u64,
        /// The token that is there now, if any.
        found: Option<u64>,
    },
    /// The batch contradicts itself.
    #[error("the batch cannot be committed: {0}")]
    Batch(String),
    /// A document has another shape than the reader expects.
    #[error("document `{key}` has another shape than expected; was it written by a newer version?")]
    Content {
        /// The document.
        key: Key,
        /// What does not fit.
        source: BoxError,
    },
    /// Another process holds the store for longer than the limit.
    #[error("the store at {place} is busy; another process has held it too long, try again")]
    Busy {
        /// Where the store is.
        place: String,
        /// The backend's error.
        source: BoxError,
    },
    /// The store can't be reached or written: a full or read-only disk, missing permissions.
    #[error("cannot {doing} the store at {place}: {help}")]
    Unavailable {
        /// What was being done: `open`, `write`.
        doing: &'static str,
        /// Where the store is.
        place: String,
        /// What to do about it.
        help: String,
        /// The backend's error.
        source: BoxError,
    },
    /// Stored data is damaged.
    #[error("the store at {place} is damaged: {help}")]
    Corrupt {
        /// Where the store is.
        place: String,
        /// How to recover.
        help: String,
        /// The backend's error.
        source: BoxError,
    },
    /// Anything else that the backend says.
    #[error("the store at {place} failed to {doing}")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// Where the store is.
        place: String,
        /// The backend's error.
        source: BoxError,
    },
}

impl Kinded for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Fenced { .. } => ErrorKind::Denied,
            Self::Batch(_) | Self::Content { .. } => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Backend { .. } => ErrorKind::Other,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } => Retry::Refreshed,
            Self::Busy { .. } | Self::Unavailable { .. } => Retry::Later,
            Self::Fenced { .. }
            | Self::Batch(_)
            | Self::Content { .. }
            | Self::Corrupt { .. }
            | Self::Backend { .. } => Retry::Never,
        }
    }
}

fn held_by(found: Option<&u64>) -> String {
    found.map_or_else(String::new, |token| format!(" (it carries {token} now)"))
}
