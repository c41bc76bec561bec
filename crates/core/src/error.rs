//! What every error of flowline can be asked: what it means ([`Kinded::kind`]) and whether trying again can help ([`Kinded::retry`]).
//!
//! Each operation family has its own error type with its own details. A caller that only decides what to do next asks these two
//! questions and need not know the type. Kinds are by *meaning to the caller*, after `object_store` and `opendal`.

use std::fmt;

/// What an error means to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is wrong; the same input will always be refused.
    Invalid,
    /// What was named does not exist.
    NotFound,
    /// What should be made is already there, or the world moved since it was looked at.
    Conflict,
    /// A grant is missing.
    Denied,
    /// Somebody else holds what is needed; it will come free.
    Busy,
    /// A limit of time was reached.
    TimedOut,
    /// The caller asked to stop.
    Cancelled,
    /// The other side cannot be reached, or is out of space; nothing is wrong with the request.
    Unavailable,
    /// Stored data is damaged.
    Corrupt,
    /// This backend or platform cannot do it.
    Unsupported,
    /// The work itself failed: a command's exit code, a failed verification.
    Failed,
    /// Anything else, with a source that says what.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::TimedOut => "timed out",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
            Self::Other => "other",
        })
    }
}

/// Whether trying the same again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// No: something must change first.
    Never,
    /// Yes, after looking at the world again: a conflict.
    Refreshed,
    /// Yes, after a while.
    Later,
}

/// The two questions that every error of flowline answers.
pub trait Kinded: std::error::Error {
    /// What the error means to the caller.
    fn kind(&self) -> ErrorKind;

    /// Whether trying the same again can help; by default decided by the kind.
    fn retry(&self) -> Retry {
        match self.kind() {
            ErrorKind::Conflict => Retry::Refreshed,
            ErrorKind::Busy | ErrorKind::TimedOut | ErrorKind::Unavailable => Retry::Later,
            ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Denied
            | ErrorKind::Cancelled
            | ErrorKind::Corrupt
            | ErrorKind::Unsupported
            | ErrorKind::Failed
            | ErrorKind::Other => Retry::Never,
        }
    }
}

/// A boxed error of any backend, kept as the source of a typed one.
pub type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error and all its sources on one line, joined by `: `; what a log or a journal entry keeps.
///
/// A source whose text the line already ends with is not repeated.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn chain_keeps_every_source() {
        let error = Outer(std::io::Error::other("disk is full"));
        assert_eq!(chain(&error), "cannot open the store: disk is full");
    }
}
