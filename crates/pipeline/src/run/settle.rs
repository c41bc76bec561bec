//! What follows when an attempt at a step ended: it is recorded as done, waits, is tried again, or stops the run.

use std::cmp::Reverse;

use flowline_core::{
    SignedDuration, Timestamp,
    error::{ErrorKind, Kinded, Retry as Again, chain},
    lease::Lease,
    store::Durability,
};
use serde_json::Value;

use super::{
    Cause, How, Progress, RunError, Why,
    attempt::{Came, millis},
    begin::records_start,
    fresh::still_kept,
    front::{Alarm, Asked, Front, Settled, Stop, Then},
    record::{StepFailed, StepFinished, StepWaiting},
    table::Done,
    walk::Walk,
};
use crate::{
    plan::Effect,
    step::{Happened, HoldsSecret, Kept, Preview, StepError, secret_in},
};

/// How far a step came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tried {
    /// This attempt was started.
    Attempt(u32),
    /// Its turn came to nothing: no attempt was started.
    Never,
    /// Its time or its attempts ran out before another was started, so there will be none.
    TooLate,
}

impl Walk<'_> {
    /// An attempt ended: queues the record of it.
    pub(super) fn settle(&mut self, front: &mut Front, settled: Settled) -> Result<(), RunError> {
        let Settled { at, attempt, asked, started, result, entry } = settled;
        front.busy -= 1;
        let (output, how, why) = match result {
            Ok(Came::Looked(preview)) => {
                return self.looked(front, at, started, &preview);
            }
            Ok(Came::Done(output)) => (output, How::Ran, Why::ran(self.table.node(at), attempt)),
            Ok(Came::Cached(output, run)) => (output, How::Cached, Why::Unchanged { run }),
            Ok(Came::Probed(Happened::Yes(output))) => (output, How::Probed, Why::Happened),
            Ok(Came::Probed(Happened::No)) => {
                if let Some(error) = self.spent(at).filter(|_| front.stop.is_none()) {
                    return self.failed(front, at, Tried::TooLate, &error);
                }
                // Nothing happened, so it is as if it had never been started.
                self.table.wait(at);
                if front.stop.is_none() {
                    return self.prepare(front, at);
                }
                self.give_back(front, at);
                return Ok(());
            }
            Ok(Came::Probed(Happened::Unknown(reason))) => {
                front.needs_person(self.table.id(at), self.masked(&reason));
                self.give_back(front, at);
                return Ok(());
            }
            Ok(Came::Undone) => {
                return Err(RunError::Broken("a step was undone on the way forward".to_owned()));
            }
            Err(error) if error.is_waiting().is_some() => {
                return self.waits(front, at, attempt, &error);
            }
            // A world that does not answer says neither yes nor no.
            Err(error) if asked == Asked::Probe && error.retry() == Again::Never => {
                front.needs_person(self.table.id(at), self.masked(&chain(&error)));
                self.give_back(front, at);
                return Ok(());
            }
            Err(error) if asked == Asked::Look => {
                // It may be asked once more.
                front.looked.remove(&at);
                return self.failed(front, at, Tried::Never, &error);
            }
            Err(error) => return self.failed(front, at, Tried::Attempt(attempt), &error),
        };
        if let Some(error) = self.holds_secret(at, &output) {
            return self.failed(front, at, Tried::Attempt(attempt), &StepError::of(error));
        }
        let why = match entry {
            Some(entry) => {
                entry.put(&mut front.batch);
                if how == How::Cached || attempt > 1 { why } else { entry.why }
            }
            None => why,
        };
        self.finished(front, at, Done { attempt, started, how, output, why })
    }

    /// A step was asked again whether it is needed: it is done without having run, or begins.
    fn looked(
        &mut self,
        front: &mut Front,
        at: usize,
        started: Timestamp,
        preview: &Preview,
    ) -> Result<(), RunError> {
        if front.stop.is_some() {
            self.give_back(front, at);
            return Ok(());
        }
        match still_kept(self.table.node(at), preview) {
            Some(output) => {
                if let Some(error) = self.holds_secret(at, &output) {
                    return self.failed(front, at, Tried::Never, &StepError::of(error));
                }
                let done = Done { attempt: 0, started, how: How::Skipped, output, why: Why::AsItShouldBe };
                self.finished(front, at, done)
            }
            None => self.prepare(front, at),
        }
    }

    /// A step waits for something from outside, and not for ever if its time is limited.
    fn waits(
        &mut self,
        front: &mut Front,
        at: usize,
        attempt: u32,
        error: &StepError,
    ) -> Result<(), RunError> {
        let (now, step) = (self.now(), &self.table.at(at).step);
        let (first, since) = (step.waiting_since.is_none(), step.waiting_since.unwrap_or(now));
        let node = self.table.node(at);
        let limit = node.node.policy.limits.total_ms.map(millis);
        let deadline = limit.map(|limit| since.checked_add(limit).unwrap_or(Timestamp::MAX));
        let reason = self.masked(&error.to_string());
        if deadline.is_some_and(|deadline| now >= deadline) {
            let waited = limit.unwrap_or_default().as_millis();
            let error =
                StepError::new(ErrorKind::TimedOut, format!("it waited for {waited} ms, and {reason}"));
            return self.failed(front, at, Tried::TooLate, &error);
        }
        self.runner.reporter.report(&Progress::Waiting { step: self.table.id(at), reason: &reason });
        let wake = error.is_waiting().and_then(|wake| wake.0);
        front.wake = front.wake.into_iter().chain(wake).chain(deadline).min();
        front.waits.insert(self.table.id(at).clone(), reason.clone());
        let recorded = records_start(node);
        self.table.wait_outside(at, attempt, recorded, now);
        if first || recorded {
            let attempt = if recorded { attempt } else { 0 };
            let fact = |step| StepWaiting { step, attempt, reason };
            self.record(front, at, fact, &format!("waiting{attempt}"), Durability::Written, Then::Nothing)?;
        }
        self.give_back(front, at);
        Ok(())
    }

    /// That what a step gave holds a secret: it would be recorded, and handed to others, as it is.
    fn holds_secret(&self, at: usize, output: &Value) -> Option<HoldsSecret> {
        let secret = secret_in(&self.shared.secrets, &self.shared.masker, output)?;
        Some(HoldsSecret { step: self.table.id(at).clone(), kept: Kept::Output, secret })
    }

    /// A step is done: queues the record of it, under its locks, which are given back afterwards.
    pub(super) fn finished(&mut self, front: &mut Front, at: usize, done: Done) -> Result<(), RunError> {
        let now = self.now();
        if self.is_recorded() {
            let fact = |step| StepFinished {
                step,
                attempt: done.attempt,
                started: done.started,
                how: done.how,
                output: done.output.clone(),
                why: done.why.clone(),
            };
            let fact = fact(self.table.id(at).clone());
            let then = Then::Finished { at, done, now };
            self.record(front, at, |_| fact, "finished", Durability::Written, then)?;
        } else {
            front.due.push_back(Then::Finished { at, done, now });
        }
        self.give_back(front, at);
        Ok(())
    }

    /// Gives the locks of a step back once what is queued is written.
    fn give_back(&self, front: &mut Front, at: usize) {
        let Some(held) = front.held.remove(&at) else { return };
        if self.is_recorded() {
            front.batch.fence.extend(held.iter().map(Lease::fence));
            front.then.push(Then::Release(held));
        } else {
            front.due.push_back(Then::Release(held));
        }
    }

    /// An attempt failed, or a step's turn came to nothing: tries again, or stops the run.
    pub(super) fn failed(
        &mut self,
        front: &mut Front,
        at: usize,
        tried: Tried,
        error: &StepError,
    ) -> Result<(), RunError> {
        let node = self.table.node(at);
        let step = &self.table.at(at).step;
        let (before, refused, tries) = (step.attempts, step.refused, step.tries);
        let attempt = match tried {
            Tried::Attempt(attempt) => Some(attempt),
            Tried::Never | Tried::TooLate => None,
        };
        let times = tries + refused + u32::from(attempt.is_none_or(|attempt| attempt > before));
        let id = self.table.id(at).clone();
        let now = self.now();
        let helps = error.retry() != Again::Never;
        let seed = format!("{}/{id}", self.run);
        let delay = match &node.node.policy.retry {
            // What must not happen twice is never tried again by itself.
            Some(retry)
                if (attempt.is_none() || node.effect != Effect::Once)
                    && tried != Tried::TooLate
                    && front.stop.is_none()
                    && !front.cancel.is_cancelled() =>
            {
                retry.delay(times, error.kind(), helps, &seed)
            }
            _ => None,
        };
        let in_time = |delay: &SignedDuration| match (node.node.policy.limits.total_ms, front.ready_at(at)) {
            (Some(total), Some(ready)) => now.duration_since(ready) + *delay < millis(total),
            _ => true,
        };
        let delay = delay.filter(in_time);
        let text = self.masked(&chain(error));
        self.runner.reporter.report(&Progress::Failed { step: &id, error: &text, again: delay });
        let again = delay.is_some();
        self.table.fail(at, attempt, text.clone(), again);
        let which = match attempt {
            Some(attempt) => format!("failed{attempt}"),
            None => format!("refused{}", refused + 1),
        };
        let (attempt, started) = (attempt.unwrap_or(before), attempt.is_some());
        let fact = |step| StepFailed { step, attempt, error: text.clone(), again, started };
        self.record(front, at, fact, &which, Durability::Written, Then::Nothing)?;
        // A step that stopped as it was asked to did not fail.
        let cause = match delay {
            Some(_) => None,
            None if front.cancel.is_cancelled() => Some(Cause::Cancelled),
            None => Some(Cause::Failed { step: id, error: text }),
        };
        // Written together: whoever goes on after a kill undoes the run, too, instead of trying the step once more.
        if let Some(cause) = &cause {
            self.record_undo(front, cause)?;
        }
        // A lock that was lost must not keep the failure from being recorded.
        if let Some(held) = front.held.remove(&at) {
            self.release(front, held);
        }
        if let Some(delay) = delay {
            let due = now.checked_add(delay).unwrap_or(Timestamp::MAX);
            front.timers.push(Reverse((due, Alarm::Again(at))));
        }
        if let Some(cause) = cause {
            front.halt(Stop::Cause(cause));
        }
        Ok(())
    }
}
