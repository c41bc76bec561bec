//! Why flags could not be read or changed, and what to do next.

use flowline_core::{
    error::{ErrorKind, Kinded, Retry},
    id::{EventId, ScopeId},
    journal::JournalError,
    name::NameError,
    store::StoreError,
};

use super::TRIES;
use crate::format::flowline::FlagKey;

/// Why flags could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlagsError {
    /// There is no such flag.
    #[error("there is no flag `{flag}`; define it first")]
    Unknown {
        /// The flag.
        flag: FlagKey,
    },
    /// A scope can't inherit from one that inherits from it.
    #[error("scope `{scope}` cannot have `{base}` as its base: `{base}` inherits from it")]
    Cycle {
        /// The scope.
        scope: ScopeId,
        /// What should be its base.
        base: ScopeId,
    },
    /// Flags can't depend on each other in a circle.
    #[error("flags would depend on each other: {circle}; take one of these dependencies away")]
    Circle {
        /// The way round: `a -> b -> a`.
        circle: String,
    },
    /// Another salt decides anew who has the flag.
    #[error(
        "another salt for flag `{flag}` would decide anew for everybody who has it; ask for `reshuffle` if that is meant"
    )]
    Salt {
        /// The flag.
        flag: FlagKey,
    },
    /// What should be undone is not as it was left.
    #[error(
        "change `{event}` of flag `{flag}` cannot be undone: what it changed was changed again since; set it as it should be"
    )]
    Moved {
        /// The flag.
        flag: FlagKey,
        /// The change.
        event: EventId,
    },
    /// Others changed the same flag again and again.
    #[error("flag `{flag}` was changed by others at the same time, {TRIES} times in a row; try again")]
    Contended {
        /// The flag.
        flag: FlagKey,
    },
    /// Others changed the same scope again and again.
    #[error("scope `{scope}` was changed by others at the same time, {TRIES} times in a row; try again")]
    ScopeContended {
        /// The scope.
        scope: ScopeId,
    },
    /// The scope was closed while something was said for it.
    #[error("scope `{scope}` was closed; nothing is said for it any more, unless it is opened again")]
    Closed {
        /// The scope.
        scope: ScopeId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A recorded fact can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key became too long for the store.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Kinded for FlagsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } | Self::Closed { .. } => ErrorKind::NotFound,
            Self::Cycle { .. } | Self::Circle { .. } | Self::Salt { .. } => ErrorKind::Invalid,
            Self::Moved { .. } => ErrorKind::Conflict,
            Self::Contended { .. } | Self::ScopeContended { .. } => ErrorKind::Busy,
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Name(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Moved { .. }
            | Self::Unknown { .. }
            | Self::Cycle { .. }
            | Self::Circle { .. }
            | Self::Closed { .. }
            | Self::Salt { .. } => Retry::Never,
            Self::Contended { .. } | Self::ScopeContended { .. } => Retry::Later,
            Self::Store(error) => error.retry(),
            Self::Journal(error) => error.retry(),
            Self::Name(error) => error.retry(),
        }
    }
}
