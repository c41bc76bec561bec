//! The steps of a release, checked: they only rise.

use flowline_core::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Fallout;
use crate::format::flowline::Percent;

/// The steps of a release.
///
/// ```
/// use flowline_core::{SignedDuration, Timestamp};
/// use flowline_toggles::{format::flowline::Percent, life::release::{Next, Progress, Sight, Steps, decide}};
/// let day = SignedDuration::from_hours(24);
/// let steps = Steps::new([(Percent::new(1.0)?, day), (Percent::new(10.0)?, day), (Percent::ALL, SignedDuration::ZERO)])?;
/// let begin = Timestamp::UNIX_EPOCH;
/// let mut progress = Progress::default();
/// assert_eq!(decide(&steps, &progress, &Sight::off(begin)), Next::Raise { step: 0, to: Percent::new(1.0)? });
/// progress.raised(0, begin);
/// let sight = Sight::on(Percent::new(1.0)?, begin);
/// assert_eq!(decide(&steps, &progress, &sight), Next::Wait { until: Some(begin + day) });
/// let sight = Sight::on(Percent::new(1.0)?, begin + day);
/// assert_eq!(decide(&steps, &progress, &sight), Next::Raise { step: 1, to: Percent::new(10.0)? });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Steps {
    #[serde(rename = "steps")]
    pub(super) all: Vec<Step>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end: Option<Timestamp>,
    pub(super) at_end: Fallout,
    /// How often a judge is asked; nothing: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ask_every: Option<SignedDuration>,
    pub(super) on_failure: Fallout,
}

/// The same before it was checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    steps: Vec<Step>,
    #[serde(default)]
    start: Option<Timestamp>,
    #[serde(default)]
    end: Option<Timestamp>,
    #[serde(default = "withdraw")]
    at_end: Fallout,
    #[serde(default)]
    ask_every: Option<SignedDuration>,
    #[serde(default)]
    on_failure: Fallout,
}

fn withdraw() -> Fallout {
    Fallout::Withdraw
}

impl TryFrom<Unchecked> for Steps {
    type Error = StepsError;

    fn try_from(unchecked: Unchecked) -> Result<Self, StepsError> {
        let Unchecked { steps, start, end, at_end, ask_every, on_failure } = unchecked;
        let checked = Self::new(steps.into_iter().map(|step| (step.percent, step.hold)))?;
        let mut checked = Self { start, end, at_end, on_failure, ..checked };
        checked.ends_after_its_start()?;
        if let Some(every) = ask_every {
            checked = checked.asking_every(every);
        }
        Ok(checked)
    }
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// To how many percent.
    pub percent: Percent,
    /// For how long at least, before the next, or before the release is done.
    pub hold: SignedDuration,
}

/// Steps that make no release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepsError {
    /// There are none.
    #[error("a release needs at least one step")]
    Empty,
    /// A step lowers the rollout, which would throw people out.
    #[error(
        "step {step} goes down from {from} to {to} percent, which would throw people out; steps only rise"
    )]
    Down {
        /// Counted from 1.
        step: usize,
        /// The step before.
        from: Percent,
        /// This step.
        to: Percent,
    },
    /// It would be over before it begins.
    #[error("the release ends at {end}, and does not start before {start}; let it end later")]
    EndsFirst {
        /// Its start.
        start: Timestamp,
        /// Its end.
        end: Timestamp,
    },
    /// It would be over at once, and take the flag from those who have it.
    #[error("the release ends at {end}, and it is {now}; let it end later, or none begins")]
    Over {
        /// Its end.
        end: Timestamp,
        /// The present.
        now: Timestamp,
    },
    /// A step holds for less than nothing.
    #[error("step {step} holds for a negative time")]
    Hold {
        /// Counted from 1.
        step: usize,
    },
}

impl flowline_core::error::Kinded for StepsError {
    fn kind(&self) -> flowline_core::error::ErrorKind {
        flowline_core::error::ErrorKind::Invalid
    }
}

impl Steps {
    /// A release by time alone.
    ///
    /// # Errors
    /// If there are no steps, one goes down, or one holds for a negative time.
    pub fn new(steps: impl IntoIterator<Item = (Percent, SignedDuration)>) -> Result<Self, StepsError> {
        let steps: Vec<Step> = steps.into_iter().map(|(percent, hold)| Step { percent, hold }).collect();
        if steps.is_empty() {
            return Err(StepsError::Empty);
        }
        for (index, pair) in steps.windows(2).enumerate() {
            if let [before, after] = pair
                && after.percent < before.percent
            {
                return Err(StepsError::Down { step: index + 2, from: before.percent, to: after.percent });
            }
        }
        if let Some(index) = steps.iter().position(|step| step.hold.is_negative()) {
            return Err(StepsError::Hold { step: index + 1 });
        }
        Ok(Self {
            all: steps,
            start: None,
            end: None,
            at_end: Fallout::Withdraw,
            ask_every: None,
            on_failure: Fallout::Restore,
        })
    }

    /// The same, beginning no earlier than `start`.
    #[must_use]
    pub fn starting(mut self, start: Timestamp) -> Self {
        self.start = Some(start);
        self
    }

    /// The same, over at `end`, when nobody has it any more. An end that is past when it is started, or not after its start, is refused then.
    #[must_use]
    pub fn ending(self, end: Timestamp) -> Self {
        self.ending_with(end, Fallout::Withdraw)
    }

    /// The same, over at `end`, with what then becomes of those who have it.
    #[must_use]
    pub fn ending_with(mut self, end: Timestamp, fallout: Fallout) -> Self {
        self.end = Some(end);
        self.at_end = fallout;
        self
    }

    /// The same, going on only with a passing verdict, and stopped by a failing one. A judge is asked every minute.
    #[must_use]
    pub fn by_verdict(self) -> Self {
        self.asking_every(SignedDuration::from_mins(1))
    }

    /// The same, asking a judge this often (a second, if it is less).
    #[must_use]
    pub fn asking_every(mut self, every: SignedDuration) -> Self {
        self.ask_every = Some(every.max(SignedDuration::from_secs(1)));
        self
    }

    /// The same, with what becomes of those who have it when a verdict fails; by default it is as before the release.
    #[must_use]
    pub fn on_failure(mut self, fallout: Fallout) -> Self {
        self.on_failure = fallout;
        self
    }

    fn ends_after_its_start(&self) -> Result<(), StepsError> {
        match (self.start, self.end) {
            (Some(start), Some(end)) if end <= start => Err(StepsError::EndsFirst { start, end }),
            _ => Ok(()),
        }
    }

    /// That its end, if it has one, is still to come at `now` and lies after its start.
    pub(crate) fn ends_after(&self, now: Timestamp) -> Result<(), StepsError> {
        self.ends_after_its_start()?;
        match self.end {
            Some(end) if end <= now => Err(StepsError::Over { end, now }),
            _ => Ok(()),
        }
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.all
    }

    /// Whether a judge is asked.
    pub fn is_judged(&self) -> bool {
        self.ask_every.is_some()
    }
}
