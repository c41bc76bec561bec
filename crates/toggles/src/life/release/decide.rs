//! What a release does next, as a function of its steps, how far it came, and what is seen.

use flowline_core::{SignedDuration, Timestamp, verdict::Outcome};
use serde::{Deserialize, Serialize};

use super::{Fallout, Steps};
use crate::format::flowline::Percent;

/// How far a release has come: a fold over its facts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The step that it stands on, and since when; `None`: it has not begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<(usize, Timestamp)>,
    /// Since when it stands still, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<(Timestamp, Halt)>,
}

impl Progress {
    /// Step `step` was reached at `now`.
    pub fn raised(&mut self, step: usize, now: Timestamp) {
        self.at = Some((step, now));
    }

    /// It shall stand still. What it waited for until now counts later.
    pub fn pause(&mut self, now: Timestamp, why: Halt) {
        self.paused.get_or_insert((now, why));
    }

    /// It shall go on; the time of the pause does not count as time held.
    pub fn resume(&mut self, now: Timestamp) {
        if let (Some((paused, _)), Some((_, since))) = (self.paused.take(), self.at.as_mut()) {
            *since = since.checked_add(now.duration_since(paused)).unwrap_or(Timestamp::MAX);
        }
    }
}

/// Why a release stands still until somebody resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Halt {
    /// Somebody asked for it.
    Asked,
    /// The kill switch was pulled.
    Killed,
    /// Somebody switched the flag off or lowered its rollout by hand.
    Lowered,
    /// Its last step was undone.
    Undone,
}

/// What is seen of the flag where it is released, and of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// The present.
    pub now: Timestamp,
    /// Whether the flag is on.
    pub on: bool,
    /// To how many percent.
    pub rollout: Percent,
    /// Whether a kill switch holds it off.
    pub killed: bool,
    /// The newest judgement of the present step, where one was asked for.
    pub verdict: Option<Outcome>,
}

impl Sight {
    /// The flag is off at `now`.
    pub fn off(now: Timestamp) -> Self {
        Self { now, on: false, rollout: Percent::NONE, killed: false, verdict: None }
    }

    /// The flag is on at `now` for `rollout`.
    pub fn on(rollout: Percent, now: Timestamp) -> Self {
        Self { on: true, rollout, ..Self::off(now) }
    }

    /// For how many percent it is on, kill switch aside.
    pub fn share(&self) -> Percent {
        if self.on { self.rollout } else { Percent::NONE }
    }
}

/// What a release does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Next {
    /// Raise the rollout, and record that the step was reached. Never less than what is on already.
    Raise {
        /// The step.
        step: usize,
        /// To how many percent.
        to: Percent,
    },
    /// Nothing, until this time (or until somebody resumes it: `None`).
    Wait {
        /// When to ask again.
        until: Option<Timestamp>,
    },
    /// Stand still until somebody resumes it.
    Halt(Halt),
    /// It is over before its last step, or after it by its end.
    Stop {
        /// Why.
        because: Because,
        /// What becomes of those who have it.
        fallout: Fallout,
    },
    /// Nothing any more: everybody who shall have it has it.
    Done,
}

/// Why a release is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Because {
    /// Somebody gave it up.
    Aborted,
    /// A verdict failed.
    Failed,
    /// Its end has come.
    Ended,
    /// Its flag was removed.
    Removed,
    /// Its scope was closed.
    Closed,
}

/// What a release does next.
///
/// 1. Past its end it is stopped, and by a failing verdict, paused or not.
/// 2. A kill switch, and a hand that took something away, make it stand still: it never gives back by itself what somebody took.
/// 3. A step is left when its time is over and, where a judge is asked, the newest verdict passes.
/// 4. It is done when the last step was held. With an end, it waits for that instead.
pub fn decide(steps: &Steps, progress: &Progress, sight: &Sight) -> Next {
    let now = sight.now;
    if steps.end.is_some_and(|end| now >= end) {
        return Next::Stop { because: Because::Ended, fallout: steps.at_end };
    }
    if steps.is_judged() && progress.at.is_some() && sight.verdict == Some(Outcome::Fail) {
        return Next::Stop { because: Because::Failed, fallout: steps.on_failure };
    }
    let asked = steps.ask_every.filter(|_| progress.at.is_some());
    let ask = asked.map(|every| now.checked_add(every).unwrap_or(Timestamp::MAX));
    let wait =
        |time: Option<Timestamp>| Next::Wait { until: [time, ask, steps.end].into_iter().flatten().min() };
    if progress.paused.is_some() {
        return wait(None);
    }
    if sight.killed {
        return Next::Halt(Halt::Killed);
    }
    let raise = |step: usize| match steps.all.get(step) {
        Some(found) => Next::Raise { step, to: found.percent.max(sight.share()) },
        None => Next::Done,
    };
    let Some((step, since)) = progress.at else {
        return match steps.start.filter(|start| now < *start) {
            Some(start) => wait(Some(start)),
            None => raise(0),
        };
    };
    let Some(current) = steps.all.get(step) else { return Next::Done };
    if sight.share() < current.percent {
        return Next::Halt(Halt::Lowered);
    }
    let due = since.checked_add(current.hold).unwrap_or(Timestamp::MAX);
    if now < due {
        return wait(Some(due));
    }
    let last = step + 1 == steps.all.len();
    let unseen = last && current.hold == SignedDuration::ZERO;
    if steps.is_judged() && sight.verdict != Some(Outcome::Pass) && !unseen {
        return wait(None);
    }
    if last && steps.end.is_some() { wait(None) } else { raise(step + 1) }
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

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + hour(hours)
    }

    fn steps() -> Steps {
        Steps::new([(percent(1.0), hour(1)), (percent(10.0), hour(2)), (Percent::ALL, hour(0))]).unwrap()
    }

    /// Does what `decide` says until it is done: the percentages with their hours.
    fn run(steps: &Steps, mut sight: Sight) -> String {
        let (mut progress, mut seen) = (Progress::default(), Vec::new());
        for _ in 0..20 {
            let mut note = |what: &str| seen.push(format!("{what}@{}", sight.now.as_second() / 3_600));
            match decide(steps, &progress, &sight) {
                Next::Raise { step, to } => {
                    note(&to.to_string());
                    progress.raised(step, sight.now);
                    (sight.on, sight.rollout) = (true, to);
                }
                Next::Wait { until: Some(until) } if until > sight.now + hour(1) / 2 => sight.now = until,
                Next::Wait { .. } => {
                    note("waits");
                    break;
                }
                other => {
                    note(serde_json::to_string(&other).unwrap().trim_matches('"'));
                    break;
                }
            }
        }
        seen.join(" ")
    }

    #[test]
    fn steps_follow_each_other_in_time() {
        assert_eq!(run(&steps(), Sight::off(at(0))), "1@0 10@1 100@3 done@3");
        assert_eq!(
            run(&steps().starting(at(5)).ending(at(24)), Sight::off(at(0))),
            r#"1@5 10@6 100@8 {"stop":{"because":"ended","fallout":"withdraw"}}@24"#
        );
        let baked = Steps::new([(percent(50.0), hour(1)), (Percent::ALL, hour(2))]).unwrap();
        assert_eq!(run(&baked, Sight::off(at(0))), "50@0 100@1 done@3");
    }

    #[test]
    fn what_is_on_already_is_never_lowered() {
        assert_eq!(run(&steps(), Sight::on(percent(30.0), at(0))), "30@0 30@1 100@3 done@3");
    }

    #[test]
    fn a_verdict_holds_or_stops() {
        let steps = steps().by_verdict();
        let with = |outcome| run(&steps, Sight { verdict: Some(outcome), ..Sight::off(at(0)) });
        assert_eq!(with(Outcome::Inconclusive), "1@0 waits@0");
        assert_eq!(with(Outcome::Fail), r#"1@0 {"stop":{"because":"failed","fallout":"restore"}}@0"#);
        let mut progress = Progress::default();
        progress.raised(0, at(0));
        let seen = |hours, verdict| Sight { verdict, ..Sight::on(percent(1.0), at(hours)) };
        let minute = SignedDuration::from_mins(1);
        let wait = Next::Wait { until: Some(at(0) + minute) };
        assert_eq!(decide(&steps, &progress, &seen(0, Some(Outcome::Pass))), wait, "time counts as well");
        let wait = Next::Wait { until: Some(at(1) + minute) };
        for verdict in [None, Some(Outcome::Error), Some(Outcome::Inconclusive)] {
            assert_eq!(decide(&steps, &progress, &seen(1, verdict)), wait);
        }
        let raise = Next::Raise { step: 1, to: percent(10.0) };
        assert_eq!(decide(&steps, &progress, &seen(1, Some(Outcome::Pass))), raise);
        progress.pause(at(1), Halt::Asked);
        assert!(matches!(decide(&steps, &progress, &seen(1, Some(Outcome::Fail))), Next::Stop { .. }));
    }

    #[test]
    fn a_pause_does_not_count_as_time_held() {
        let mut progress = Progress::default();
        progress.raised(1, at(0));
        progress.pause(at(1), Halt::Asked);
        let sight = Sight::on(percent(10.0), at(9));
        assert_eq!(decide(&steps(), &progress, &sight), Next::Wait { until: None });
        progress.resume(at(9));
        assert_eq!(decide(&steps(), &progress, &sight), Next::Wait { until: Some(at(10)) });
    }

    #[test]
    fn what_a_hand_took_is_not_given_back() {
        let mut progress = Progress::default();
        progress.raised(1, at(0));
        let killed = Sight { killed: true, ..Sight::on(percent(10.0), at(9)) };
        assert_eq!(decide(&steps(), &progress, &killed), Next::Halt(Halt::Killed));
        for sight in [Sight::on(percent(9.0), at(9)), Sight::off(at(9))] {
            assert_eq!(decide(&steps(), &progress, &sight), Next::Halt(Halt::Lowered));
        }
    }

    #[test]
    fn steps_that_make_no_release_are_refused_wherever_they_come_from() {
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
        let read = |text: &str| serde_json::from_str::<Steps>(text).map_err(|error| error.to_string());
        let down = r#"{"steps": [{"percent": 10, "hold": "PT1H"}, {"percent": 5, "hold": "PT0S"}]}"#;
        assert!(read(down).unwrap_err().contains("would throw people out"));
        let steps = steps().ending_with(at(9), Fallout::Keep).by_verdict().on_failure(Fallout::Withdraw);
        assert_eq!(read(&serde_json::to_string(&steps).unwrap()), Ok(steps));
    }
}
