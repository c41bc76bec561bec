//! What follows when an attempt at a step ended: it is recorded as done, waits, is tried again, or stops the run.

use std::cmp::Reverse;

use flowline_core::{
    SignedDuration, Timestamp,
    error::{Kinded, Retry as Again, chain},
    lease::Lease,
    store::Durability,
};

use super::{
    Cause, How, Progress, RunError, Why,
    attempt::{Came, millis},
    front::{Alarm, Front, Settled, Stop, Then},
    record::{StepFailed, StepFinished},
    table::Done,
    walk::Walk,
};
use crate::{
    plan::Effect,
    step::{Happened, StepError},
};

impl Walk<'_> {
    /// An attempt ended: queues the record of it.
    pub(super) fn settle(&mut self, front: &mut Front, settled: Settled) -> Result<(), RunError> {
        let Settled { at, attempt, probing, started, result, entry } = settled;
        front.busy -= 1;
        let (output, how, why) = match result {
            Ok(Came::Done(output)) => (output, How::Ran, Why::Due),
            Ok(Came::Cached(output, run)) => (output, How::Cached, Why::Unchanged { run }),
            Ok(Came::Probed(Happened::Yes(output))) => (output, How::Probed, Why::Due),
            Ok(Came::Probed(Happened::No)) => {
                // Nothing happened, so it is as if it had never been started.
                self.table.wait(at);
                if front.stop.is_none() {
                    return self.prepare(front, at);
                }
                self.give_back(front, at);
                return Ok(());
            }
            Ok(Came::Probed(Happened::Unknown(reason))) => {
                front.needs_person(self.table.id(at), reason);
                self.give_back(front, at);
                return Ok(());
            }
            Ok(Came::Undone) => {
                return Err(RunError::Broken("a step was undone on the way forward".to_owned()));
            }
            Err(error) if error.is_waiting().is_some() => {
                let wake = error.is_waiting().and_then(|wake| wake.0);
                let reason = self.masked(&error.to_string());
                let id = self.table.id(at);
                self.runner.reporter.report(&Progress::Waiting { step: id, reason: &reason });
                front.wake = front.wake.into_iter().chain(wake).min();
                front.waits.insert(id.clone(), reason);
                self.table.wait(at);
                self.give_back(front, at);
                return Ok(());
            }
            // A world that does not answer says neither yes nor no.
            Err(error) if probing && error.retry() == Again::Never => {
                front.needs_person(self.table.id(at), self.masked(&chain(&error)));
                self.give_back(front, at);
                return Ok(());
            }
            Err(error) => return self.failed(front, at, attempt, &error),
        };
        let why = match entry {
            Some(entry) => {
                entry.put(&mut front.batch);
                if how == How::Cached { why } else { entry.why }
            }
            None => why,
        };
        self.finished(front, at, Done { attempt, started, how, output, why })
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

    /// An attempt failed: tries again, or stops the run.
    pub(super) fn failed(
        &mut self,
        front: &mut Front,
        at: usize,
        attempt: u32,
        error: &StepError,
    ) -> Result<(), RunError> {
        let node = self.table.node(at);
        let id = self.table.id(at).clone();
        let now = self.now();
        let helps = error.retry() != Again::Never;
        let seed = format!("{}/{id}", self.run);
        let delay = match &node.node.policy.retry {
            // What must not happen twice is never tried again by itself.
            Some(retry)
                if node.effect != Effect::Once && front.stop.is_none() && !front.cancel.is_cancelled() =>
            {
                retry.delay(attempt, error.kind(), helps, &seed)
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
        self.table.fail(at, attempt, text.clone());
        let again = delay.is_some();
        let fact = |step| StepFailed { step, attempt, error: text.clone(), again };
        self.record(front, at, fact, &format!("failed{attempt}"), Durability::Written, Then::Nothing)?;
        // A lock that was lost must not keep the failure from being recorded.
        if let Some(held) = front.held.remove(&at) {
            self.release(front, held);
        }
        match delay {
            Some(delay) => {
                let due = now.checked_add(delay).unwrap_or(Timestamp::MAX);
                front.timers.push(Reverse((due, Alarm::Again(at))));
            }
            // A step that stopped as it was asked to did not fail.
            None if front.cancel.is_cancelled() => front.halt(Stop::Cause(Cause::Cancelled)),
            None => front.halt(Stop::Cause(Cause::Failed { step: id, error: text })),
        }
        Ok(())
    }
}
