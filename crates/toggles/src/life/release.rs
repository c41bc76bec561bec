//! A release in steps, as data: to how many percent, for how long, and what happens next.
//!
//! Whoever runs releases asks [`decide`] and does what it says; nothing here waits. A release never lowers a rollout, except to nothing when it is
//! aborted.

use flowline_core::{SignedDuration, Timestamp, verdict::Outcome};
use serde::{Deserialize, Serialize};

use crate::format::flowline::Percent;

/// The steps of a release.
///
/// ```
/// use flowline_core::{SignedDuration, Timestamp};
/// use flowline_toggles::{format::flowline::Percent, life::release::{Next, Progress, Steps, decide}};
/// let day = SignedDuration::from_hours(24);
/// let steps = Steps::new([(Percent::new(1.0)?, day), (Percent::new(10.0)?, day), (Percent::ALL, SignedDuration::ZERO)])?;
/// let begin = Timestamp::UNIX_EPOCH;
/// let mut progress = Progress::default();
/// assert_eq!(decide(&steps, &progress, begin, None), Next::Raise { step: 0, to: Percent::new(1.0)? });
/// progress.raised(0, begin);
/// assert_eq!(decide(&steps, &progress, begin, None), Next::Wait { until: Some(begin + day) });
/// assert_eq!(decide(&steps, &progress, begin + day, None), Next::Raise { step: 1, to: Percent::new(10.0)? });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Steps {
    all: Vec<Step>,
    /// Not before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<Timestamp>,
    /// Everybody loses it here, and the release is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Timestamp>,
    /// Whether a step also needs a passing verdict to be left.
    by_verdict: bool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// To how many percent.
    pub percent: Percent,
    /// For how long at least, before the next.
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
    /// A step holds for less than nothing.
    #[error("step {step} holds for a negative time")]
    Hold {
        /// Counted from 1.
        step: usize,
    },
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
        Ok(Self { all: steps, start: None, end: None, by_verdict: false })
    }

    /// The same, beginning no earlier than `start`.
    #[must_use]
    pub fn starting(mut self, start: Timestamp) -> Self {
        self.start = Some(start);
        self
    }

    /// The same, taken from everybody at `end`.
    #[must_use]
    pub fn ending(mut self, end: Timestamp) -> Self {
        self.end = Some(end);
        self
    }

    /// The same, going on only with a passing verdict, and aborted by a failing one.
    #[must_use]
    pub fn by_verdict(mut self) -> Self {
        self.by_verdict = true;
        self
    }

    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.all
    }
}

/// How far a release has come: a fold over its facts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The step that it stands on, and since when; `None`: it has not begun.
    pub at: Option<(usize, Timestamp)>,
    /// Since when it stands still, by somebody's wish.
    pub paused: Option<Timestamp>,
    /// Whether it was given up.
    pub aborted: bool,
}

impl Progress {
    /// Step `step` was reached at `now`.
    pub fn raised(&mut self, step: usize, now: Timestamp) {
        self.at = Some((step, now));
    }

    /// It shall stand still. What it waited for until now counts later.
    pub fn pause(&mut self, now: Timestamp) {
        self.paused.get_or_insert(now);
    }

    /// It shall go on; the time of the pause does not count as time held.
    pub fn resume(&mut self, now: Timestamp) {
        if let (Some(paused), Some((_, since))) = (self.paused.take(), self.at.as_mut()) {
            *since = since.checked_add(now.duration_since(paused)).unwrap_or(Timestamp::MAX);
        }
    }

    /// It is given up.
    pub fn abort(&mut self) {
        self.aborted = true;
    }
}

/// What a release does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Next {
    /// Raise the rollout, and record that the step was reached.
    Raise {
        /// The step.
        step: usize,
        /// To how many percent.
        to: Percent,
    },
    /// Nothing, until this time (or until somebody resumes it or a verdict comes: `None`).
    Wait {
        /// When to ask again.
        until: Option<Timestamp>,
    },
    /// Take it from everybody: it was aborted, failed, or has reached its end.
    Withdraw,
    /// Nothing any more: everybody who shall have it has it.
    Done,
}

/// What a release does next. `verdict` is the newest judgement of the present step, where one was asked for.
///
/// An aborted or failed release, or one past its end, is withdrawn, paused or not.
pub fn decide(steps: &Steps, progress: &Progress, now: Timestamp, verdict: Option<Outcome>) -> Next {
    let failed = steps.by_verdict && verdict == Some(Outcome::Fail);
    if progress.aborted || failed || steps.end.is_some_and(|end| now >= end) {
        return Next::Withdraw;
    }
    if progress.paused.is_some() {
        return Next::Wait { until: steps.end };
    }
    let sooner = |time: Option<Timestamp>| [time, steps.end].into_iter().flatten().min();
    let Some((step, since)) = progress.at else {
        return match (steps.start, steps.all.first()) {
            (Some(start), _) if now < start => Next::Wait { until: sooner(Some(start)) },
            (_, Some(first)) => Next::Raise { step: 0, to: first.percent },
            (_, None) => Next::Done,
        };
    };
    let Some(next) = steps.all.get(step + 1) else {
        return if steps.end.is_some() { Next::Wait { until: steps.end } } else { Next::Done };
    };
    let hold = steps.all.get(step).map_or(SignedDuration::ZERO, |step| step.hold);
    let due = since.checked_add(hold).unwrap_or(Timestamp::MAX);
    if now < due {
        return Next::Wait { until: sooner(Some(due)) };
    }
    if steps.by_verdict && verdict != Some(Outcome::Pass) {
        return Next::Wait { until: steps.end };
    }
    Next::Raise { step: step + 1, to: next.percent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(percent: f64) -> Percent {
        Percent::new(percent).unwrap()
    }

    fn hour(hours: i64) -> SignedDuration {
        SignedDuration::from_hours(hours)
    }

    fn steps() -> Steps {
        Steps::new([(percent(1.0), hour(1)), (percent(10.0), hour(2)), (Percent::ALL, hour(0))]).unwrap()
    }

    /// Does what `decide` says until it is done: the percentages with their hours.
    fn run(steps: &Steps, verdict: Option<Outcome>) -> Vec<(String, i64)> {
        let (mut progress, mut now, mut seen) = (Progress::default(), Timestamp::UNIX_EPOCH, Vec::new());
        for _ in 0..20 {
            let hours = now.as_second() / 3_600;
            match decide(steps, &progress, now, verdict) {
                Next::Raise { step, to } => {
                    progress.raised(step, now);
                    seen.push((to.to_string(), hours));
                }
                Next::Wait { until: Some(until) } => now = until,
                Next::Wait { until: None } => {
                    seen.push(("waits".to_owned(), hours));
                    break;
                }
                Next::Withdraw => {
                    seen.push(("withdrawn".to_owned(), hours));
                    break;
                }
                Next::Done => break,
            }
        }
        seen
    }

    fn said(seen: &[(String, i64)]) -> String {
        seen.iter().map(|(what, hour)| format!("{what}@{hour}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn steps_follow_each_other_in_time() {
        assert_eq!(said(&run(&steps(), None)), "1@0 10@1 100@3");
        let scheduled =
            steps().starting(Timestamp::UNIX_EPOCH + hour(5)).ending(Timestamp::UNIX_EPOCH + hour(24));
        assert_eq!(said(&run(&scheduled, None)), "1@5 10@6 100@8 withdrawn@24");
    }

    #[test]
    fn a_verdict_holds_or_withdraws() {
        let steps = steps().by_verdict();
        assert_eq!(said(&run(&steps, Some(Outcome::Pass))), "1@0 10@1 100@3");
        assert_eq!(said(&run(&steps, Some(Outcome::Inconclusive))), "1@0 waits@1");
        assert_eq!(said(&run(&steps, Some(Outcome::Fail))), "withdrawn@0");
    }

    #[test]
    fn a_pause_does_not_count_as_time_held() {
        let mut progress = Progress::default();
        let at = |hours| Timestamp::UNIX_EPOCH + hour(hours);
        progress.raised(1, at(0));
        progress.pause(at(1));
        assert_eq!(decide(&steps(), &progress, at(9), None), Next::Wait { until: None });
        progress.resume(at(9));
        assert_eq!(decide(&steps(), &progress, at(9), None), Next::Wait { until: Some(at(10)) });
        progress.abort();
        assert_eq!(decide(&steps(), &progress, at(9), None), Next::Withdraw);
    }

    #[test]
    fn steps_that_go_down_are_refused() {
        let told = |steps: &[(Percent, SignedDuration)]| Steps::new(steps.to_vec()).unwrap_err().to_string();
        insta::assert_snapshot!(
            [
                told(&[]),
                told(&[(percent(10.0), hour(1)), (percent(5.0), hour(1))]),
                told(&[(percent(10.0), hour(-1))]),
            ]
            .join("\n"),
            @r"
            a release needs at least one step
            step 2 goes down from 10 to 5 percent, which would throw people out; steps only rise
            step 1 holds for a negative time
            "
        );
    }
}
