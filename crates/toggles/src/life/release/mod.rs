//! A release in steps, as data: to how many percent, for how long, and what happens next.
//!
//! [`decide`] is the one decision; [`Releases`](crate::flags::Releases) does what it says, over a store. A release never lowers a rollout, except when
//! it is stopped and its [`Fallout`] says so.

mod decide;
mod steps;

use std::fmt::Debug;

use async_trait::async_trait;
use flowline_core::{Timestamp, error::BoxError, verdict::Verdict};
use serde::{Deserialize, Serialize};

pub use decide::{Because, Halt, Next, Progress, Sight, decide};
pub use steps::{Step, Steps, StepsError};

use crate::{
    flags::Place,
    format::flowline::{FlagKey, Percent},
};

/// What becomes of those who have the flag when its release is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallout {
    /// Whoever had it before the release has it, and nobody else. Where fewer have it by now, since somebody switched the flag off or lowered its
    /// rollout by hand, a release that is stopped by a verdict or by its end leaves that as it is: only [`Keep`](Self::Keep) is done.
    #[default]
    Restore,
    /// Nobody has it any more.
    Withdraw,
    /// Those who have it keep it; it stays as far as it came.
    Keep,
}

/// What a judge is asked: is it well, now that so many have it?
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Question {
    /// The flag.
    pub flag: FlagKey,
    /// Where it is released.
    pub place: Place,
    /// The step on which the release stands, from 0.
    pub step: usize,
    /// How many percent have it.
    pub percent: Percent,
    /// Since when.
    pub since: Timestamp,
    /// The present.
    pub now: Timestamp,
}

/// Judges a release while it is on its way: by metrics, probes, people.
///
/// *Shape*: asked once whenever a release that goes by verdict is looked at ([`Steps::asking_every`] at least as often), by every process that drives
/// releases, one question at a time in each. May take its time; other releases wait meanwhile.
///
/// *What follows*: [`Outcome::Fail`](flowline_core::verdict::Outcome::Fail) stops the release at once, whatever time is left.
/// [`Outcome::Pass`](flowline_core::verdict::Outcome::Pass) lets it go on once its time has come; the last answer counts, an earlier pass does not. Anything else, an `Err`
/// included, leaves it where it is.
///
/// *Assumptions on the implementer*
/// 1. An answer is about the step asked for: what was measured before [`Question::since`] does not count.
/// 2. What could not be measured is no failure: it is `Inconclusive` or `Error`.
/// 3. The future may be dropped at any point.
///
/// *Errors*: any; they are told in [`Advanced::troubles`](crate::flags::Advanced::troubles).
#[async_trait]
pub trait Judge: Debug + Send + Sync {
    /// Judges.
    async fn judge(&self, question: &Question) -> Result<Verdict, BoxError>;
}
