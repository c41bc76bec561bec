//! Releases in steps over a store: who started what, how far it came, and what it does when its time has come.

mod drive;
mod over;
mod record;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use flowline_core::{
    error::{ErrorKind, Kinded, Retry},
    id::EventId,
    name::NameError,
    store::StoreError,
};

pub(super) use self::record::{all, named, prefix};
pub use self::{
    drive::Advanced,
    record::{Happened, Release, ReleaseChanged},
};
use super::{Flags, FlagsError, Place};
use crate::{
    format::flowline::FlagKey,
    life::release::{Judge, StepsError},
};

/// Starts releases in steps, and drives them: [`advance`](Self::advance) does what is due, [`run`](Self::run) for ever. Cheap to clone.
///
/// *Guarantees*
/// 1. Each step is one commit of the release, the flag's state and both facts; a process that dies anywhere leaves nothing half done, and the
///    next one goes on from there.
/// 2. Any number of processes may drive the same releases: each step is done once, by the first, whatever the others tried.
/// 3. A rollout is only ever raised, except by the [fallout](crate::life::release::Fallout) of a stop and by [`undo`](Self::undo).
/// 4. The kill switch wins: while it is pulled nobody has the flag, and the release stands still until somebody resumes it.
///    So it does when somebody lowers the rollout by hand.
/// 5. What happened is in the flag's [history](Flags::history), and as [`ReleaseChanged`] in its stream.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{SignedDuration, clock::{Clock, ManualClock}, id::ScopeId, store::MemoryStore};
/// # use flowline_toggles::{flags::{Author, Flags, Releases}, format::flowline::{Definition, FlagKey, Percent}, life::release::Steps};
/// # flowline_core::testkit::block_on(async {
/// let clock = ManualClock::default();
/// let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(clock.clone())).await?;
/// let (production, checkout, ada) = (ScopeId::new("production")?, FlagKey::new("checkout")?, Author::new("ada", "it is ready"));
/// flags.define(&checkout, Definition::default(), &ada).await?;
/// let hour = SignedDuration::from_hours(1);
/// let releases = Releases::new(flags.clone());
/// let steps = Steps::new([(Percent::new(10.0)?, hour), (Percent::ALL, hour)])?;
/// releases.start(&production, &checkout, steps, &ada).await?;
/// assert_eq!(flags.effective(&production, &checkout).rollout, Percent::new(10.0)?);
/// clock.advance(hour);
/// let advanced = releases.advance().await?;
/// assert_eq!(flags.effective(&production, &checkout).rollout, Percent::ALL);
/// assert_eq!(advanced.next_wake, Some(clock.now() + hour));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct Releases {
    flags: Flags,
    judge: Option<Arc<dyn Judge>>,
}

impl Releases {
    /// Releases of `flags`, by time alone: one that goes by verdict waits for ever.
    pub fn new(flags: Flags) -> Self {
        Self { flags, judge: None }
    }

    /// The same with somebody to ask.
    #[must_use]
    pub fn judged_by(mut self, judge: Arc<dyn Judge>) -> Self {
        self.judge = Some(judge);
        self
    }

    /// The flags.
    pub fn flags(&self) -> &Flags {
        &self.flags
    }
}

impl fmt::Debug for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Releases").field("flags", &self.flags).field("judge", &self.judge).finish()
    }
}

/// Why a release was not started or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// One is under way there.
    #[error("a release of flag `{flag}` {} is under way, started by {by}; abort it first", shown(.place))]
    Underway {
        /// The flag.
        flag: FlagKey,
        /// Where.
        place: Place,
        /// Who started it.
        by: String,
    },
    /// None is under way there.
    #[error("no release of flag `{flag}` {} is under way", shown(.place))]
    None {
        /// The flag.
        flag: FlagKey,
        /// Where.
        place: Place,
    },
    /// The kill switch is pulled.
    #[error("flag `{flag}` {} is held off by a kill switch; revive it first", shown(.place))]
    Killed {
        /// The flag.
        flag: FlagKey,
        /// Where.
        place: Place,
    },
    /// What should be undone is not as it was left.
    #[error(
        "what the release of flag `{flag}` did as `{event}` cannot be undone: it was changed again since"
    )]
    Moved {
        /// The flag.
        flag: FlagKey,
        /// What it did.
        event: EventId,
    },
    /// The steps make no release.
    #[error(transparent)]
    Steps(#[from] StepsError),
    /// The flags could not be read or changed.
    #[error(transparent)]
    Flags(#[from] FlagsError),
}

fn shown(place: &Place) -> String {
    match place {
        Place::Everywhere => "everywhere".to_owned(),
        Place::Scope(scope) => format!("in `{scope}`"),
    }
}

impl From<StoreError> for ReleaseError {
    fn from(error: StoreError) -> Self {
        Self::Flags(error.into())
    }
}

impl From<NameError> for ReleaseError {
    fn from(error: NameError) -> Self {
        Self::Flags(error.into())
    }
}

impl Kinded for ReleaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Underway { .. } | Self::Killed { .. } | Self::Moved { .. } => ErrorKind::Conflict,
            Self::None { .. } => ErrorKind::NotFound,
            Self::Steps(error) => error.kind(),
            Self::Flags(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Flags(error) => error.retry(),
            _ => Retry::Never,
        }
    }
}
