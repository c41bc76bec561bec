//! How releases lie in the store: a document while one is under way, and facts in the flag's stream.
//!
//! | key | holds |
//! | --- | --- |
//! | `toggles/release/PLACE/FLAG` | a [`Release`]; PLACE as for states |

use flowline_core::{
    id::{EventId, Key, ScopeId},
    journal::Fact,
    name::NameError,
    verdict::Verdict,
};
use serde::{Deserialize, Serialize};

use super::super::{Place, record::PREFIX};
use crate::{
    format::flowline::{FlagKey, Percent, State},
    life::release::{Because, Fallout, Halt, Progress, Steps},
};

/// A release that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its steps.
    pub steps: Steps,
    /// How far it has come.
    pub progress: Progress,
    /// What was said at its place before it.
    #[serde(default, skip_serializing_if = "State::is_empty")]
    pub before: State,
    /// Who started it.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What happened to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happened {
    /// It was started (its first step may come later).
    Started,
    /// It reached a step.
    Raised {
        /// The step, from 0.
        step: usize,
        /// To how many percent.
        to: Percent,
    },
    /// It stands still.
    Paused(Halt),
    /// It goes on.
    Resumed,
    /// It is over before everybody has it.
    Stopped {
        /// Why.
        because: Because,
        /// What became of those who had it.
        fallout: Fallout,
    },
    /// It is over: everybody who shall have it has it.
    Done,
    /// The last of what changed the rollout was taken back.
    Undone,
}

impl std::fmt::Display for Happened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Started => f.write_str("started"),
            Self::Raised { step, to } => write!(f, "step {}: {to} %", step + 1),
            Self::Paused(Halt::Asked) => f.write_str("paused"),
            Self::Paused(Halt::Killed) => f.write_str("paused, as the kill switch was pulled"),
            Self::Paused(Halt::Lowered) => f.write_str("paused, as somebody lowered the rollout"),
            Self::Paused(Halt::Undone) => f.write_str("paused, as its last step was undone"),
            Self::Resumed => f.write_str("resumed"),
            Self::Stopped { because, fallout } => {
                f.write_str(match because {
                    Because::Aborted => "aborted",
                    Because::Failed => "stopped, as a verdict failed",
                    Because::Ended => "ended",
                    Because::Removed => "over, as its flag was removed",
                    Because::Closed => "over, as its scope was closed",
                })?;
                f.write_str(match fallout {
                    Fallout::Restore => "; as before it",
                    Fallout::Withdraw => "; nobody has it",
                    Fallout::Keep => "; who has it keeps it",
                })
            }
            Self::Done => f.write_str("done"),
            Self::Undone => f.write_str("undone"),
        }
    }
}

/// The fact that something happened to a release. The change of the flag's state, if there was one, is a fact of its own in the same commit
/// ([`FlagChanged`](super::super::FlagChanged)), caused by this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseChanged {
    /// The flag.
    pub flag: FlagKey,
    /// Where it is released.
    pub place: Place,
    /// What happened.
    pub happened: Happened,
    /// The release before; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Release>,
    /// The release after; absent: it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Release>,
    /// The judgement that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why.
    pub reason: String,
    /// What this takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<EventId>,
}

impl Fact for ReleaseChanged {
    const KIND: &'static str = "flag.release_changed";
}

pub(in super::super) fn prefix(place: &Place) -> String {
    format!("{}{}/", all(), place.name())
}

/// Where all releases lie.
pub(in super::super) fn all() -> String {
    format!("{PREFIX}release/")
}

pub(in super::super) fn key(place: &Place, flag: &FlagKey) -> Result<Key, NameError> {
    Key::new(format!("{}{flag}", prefix(place)))
}

/// What a release's key says; `None` for keys that this version does not know.
pub(in super::super) fn named(key: &Key) -> Option<(Place, FlagKey)> {
    let (place, flag) = key.as_str().strip_prefix(&all())?.split_once('/')?;
    let place = if place == "*" { Place::Everywhere } else { Place::Scope(ScopeId::new(place).ok()?) };
    Some((place, FlagKey::new(flag).ok()?))
}
