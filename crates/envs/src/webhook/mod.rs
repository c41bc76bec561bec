//! What a forge tells of a pull request, turned into a [`Change`]: pure functions over the payload's bytes.
//!
//! Whatever stands in a payload comes from outside. A branch called `../../etc` is kept as text and never becomes a path or an address:
//! those are made from the pull request's number.

pub mod github;

use flowline_core::{
    change::Change,
    error::{BoxError, ErrorKind, Kinded},
};

/// What a payload says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A change as it stands now: opened, moved on, merged or closed.
    Change(Box<Change>),
    /// Something that does not move a change, such as a new label.
    Nothing {
        /// The action, as the forge calls it.
        action: String,
    },
}

/// Why a payload was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// It is not JSON.
    #[error("the payload is not JSON: line {line}, column {column}")]
    Json {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong.
        source: BoxError,
    },
    /// A field that is needed is not there.
    #[error("the payload has no `{path}`; is it a {forge} `{event}` event?")]
    Missing {
        /// Where: `pull_request.head.sha`.
        path: String,
        /// The forge.
        forge: &'static str,
        /// The event that was expected.
        event: &'static str,
    },
    /// A field has another type than the forge documents.
    #[error("`{path}` in the payload is {found}, where {expected} was expected")]
    Type {
        /// Where.
        path: String,
        /// What stands there.
        found: &'static str,
        /// What should.
        expected: &'static str,
    },
    /// A field has a value that can't be.
    #[error("`{path}` in the payload cannot be used: {problem}")]
    Value {
        /// Where.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The signature is missing, malformed, or of another secret or body.
    #[error("the payload's signature does not fit: {problem}")]
    Signature {
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Kinded for PayloadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Signature { .. } => ErrorKind::Denied,
            Self::Json { .. } | Self::Missing { .. } | Self::Type { .. } | Self::Value { .. } => {
                ErrorKind::Invalid
            }
        }
    }
}
