//! What became of a run so far: a fold over its events.

use std::collections::BTreeMap;

use flowline_core::{Timestamp, digest::Digest, error::BoxError, event::Recorded, journal::JournalError};
use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Why,
    record::{
        Cause, End, How, RunEnded, RunStarted, StepFailed, StepFinished, StepResolved, StepSignalled,
        StepStarted, StepUndoFailed, StepUndone, StepWaiting, UndoBegun,
    },
};
use crate::{pipeline::Output, plan::StepId};

/// What became of a run so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunState {
    pub(super) plan: Option<Digest>,
    pub(super) started: Option<Timestamp>,
    pub(super) undoing: Option<Cause>,
    pub(super) end: Option<End>,
    pub(super) steps: IndexMap<StepId, StepState>,
    pub(super) finished: u64,
    pub(super) signals: BTreeMap<StepId, Vec<Value>>,
}

/// What became of a step so far. A step that is not in the state was not started.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StepState {
    /// How often it was started.
    pub attempts: u32,
    /// How many of these count towards its limit of attempts: all but those that only found that it has to wait for something from outside.
    pub tries: u32,
    /// How often its turn came to nothing: it queued for too long, or its condition, input or locks could not be had.
    pub refused: u32,
    /// Since when it waits for something from outside. Its limit for all attempts counts from then, over all processes.
    pub waiting_since: Option<Timestamp>,
    /// Where it stands.
    pub phase: Phase,
    /// How often undoing it failed.
    pub undo_failures: u32,
}

/// Where a step stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Phase {
    /// It is not started, or a person said that it did not happen.
    #[default]
    Waiting,
    /// It was started, and nothing more is known.
    Started,
    /// It is done.
    Finished {
        /// What it gives to others.
        output: Value,
        /// Which step of the run it was to finish, from 1: undoing goes the other way.
        place: u64,
        /// How it came to be done.
        how: How,
        /// Why it ran, or did not.
        why: Why,
        /// When its last attempt started.
        started: Timestamp,
        /// When that was recorded.
        finished: Timestamp,
    },
    /// It failed.
    Failed {
        /// Why.
        error: String,
        /// Whether an attempt was started, which may have left something behind.
        started: bool,
    },
    /// It was undone.
    Undone,
    /// It could not be undone.
    UndoFailed {
        /// Why.
        error: String,
        /// The output that it had, for the next try.
        output: Option<Value>,
        /// Which step of the run it was to finish; 0 if it was not finished.
        place: u64,
    },
}

impl StepState {
    /// Whether it is done without having been needed.
    pub(super) fn was_skipped(&self) -> bool {
        matches!(self.phase, Phase::Finished { how: How::Skipped, .. })
    }

    /// Whether it may have touched the world, or did.
    pub(super) fn may_have_happened(&self) -> bool {
        match self.phase {
            Phase::Waiting => false,
            Phase::Failed { started, .. } => started,
            _ => !self.was_skipped(),
        }
    }

    /// Whether an attempt began and nobody knows how far it came.
    pub(super) fn was_cut_short(&self) -> bool {
        matches!(self.phase, Phase::Started | Phase::Failed { started: true, .. })
    }

    pub(super) fn start(&mut self, attempt: u32) {
        self.count(attempt);
        if !matches!(self.phase, Phase::Finished { .. }) {
            self.phase = Phase::Started;
        }
    }

    /// It waits for something from outside: as if it had not been started. `attempt` is 0 if no start was recorded.
    pub(super) fn wait_outside(&mut self, attempt: u32, now: Timestamp) {
        if attempt > 0 && attempt <= self.attempts {
            self.tries = self.tries.saturating_sub(1);
        }
        self.attempts = self.attempts.max(attempt);
        self.phase = Phase::Waiting;
        self.waiting_since.get_or_insert(now);
    }

    /// `attempt` failed, or its turn came to nothing.
    pub(super) fn fail(&mut self, attempt: Option<u32>, error: String, again: bool) {
        let before = self.was_cut_short();
        match attempt {
            Some(attempt) => self.count(attempt),
            None => self.refused += 1,
        }
        if !again {
            // Whoever goes on from here gives it its whole time anew.
            self.waiting_since = None;
        }
        self.phase = Phase::Failed { error, started: before || attempt.is_some() };
    }

    pub(super) fn count(&mut self, attempt: u32) {
        self.tries += u32::from(attempt > self.attempts);
        self.attempts = self.attempts.max(attempt);
    }

    pub(super) fn undo_failed(&mut self, attempt: u32, error: String) {
        self.undo_failures = self.undo_failures.max(attempt);
        let (output, place) = match std::mem::take(&mut self.phase) {
            Phase::Finished { output, place, .. } => (Some(output), place),
            Phase::UndoFailed { output, place, .. } => (output, place),
            _ => (None, 0),
        };
        self.phase = Phase::UndoFailed { error, output, place };
    }
}

impl RunState {
    /// The plan of the run; `None` if it never started.
    pub fn plan(&self) -> Option<Digest> {
        self.plan
    }

    /// When it started; `None` if it never did.
    pub fn started(&self) -> Option<Timestamp> {
        self.started
    }

    /// Why it is undone, if it is.
    pub fn undoing(&self) -> Option<&Cause> {
        self.undoing.as_ref()
    }

    /// How it ended, if it did.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What became of `step`, if it was started.
    pub fn step(&self, step: &StepId) -> Option<&StepState> {
        self.steps.get(step)
    }

    /// Every step that was started, in the order in which the journal first names it.
    pub fn steps(&self) -> impl Iterator<Item = (&StepId, &StepState)> {
        self.steps.iter()
    }

    /// What reached `step` from outside, in order.
    pub fn signals(&self, step: &StepId) -> &[Value] {
        self.signals.get(step).map_or(&[], Vec::as_slice)
    }

    /// How many steps are done.
    pub fn done(&self) -> usize {
        self.steps.values().filter(|step| matches!(step.phase, Phase::Finished { .. })).count()
    }

    /// What the step behind `output` gave, if it is done.
    ///
    /// # Errors
    /// If it has another shape.
    pub fn output<T: DeserializeOwned>(&self, output: &Output<T>) -> Result<Option<T>, BoxError> {
        let Some(Phase::Finished { output: value, .. }) = self.step(output.step()).map(|step| &step.phase)
        else {
            return Ok(None);
        };
        match value.pointer(output.pointer()) {
            Some(value) => Ok(Some(T::deserialize(value)?)),
            None => Err(format!("step `{}` gave nothing at `{}`", output.step(), output.pointer()).into()),
        }
    }

    /// Every step that could not be undone, with why.
    pub fn undo_failures(&self) -> BTreeMap<StepId, String> {
        let failed = self.steps.iter().filter_map(|(id, step)| match &step.phase {
            Phase::UndoFailed { error, .. } => Some((id.clone(), error.clone())),
            _ => None,
        });
        failed.collect()
    }

    /// Takes one more event of the run's stream. Kinds that this version doesn't know change nothing.
    ///
    /// # Errors
    /// If an event of a known kind has another shape.
    pub fn apply(&mut self, recorded: &Recorded) -> Result<(), JournalError> {
        let event = &recorded.event;
        if let Some(fact) = event.fact::<StepFinished>()? {
            self.finish(fact, event.time);
        } else if let Some(fact) = event.fact::<StepStarted>()? {
            self.at(&fact.step).start(fact.attempt);
        } else if let Some(fact) = event.fact::<StepFailed>()? {
            let attempt = fact.started.then_some(fact.attempt);
            self.at(&fact.step).fail(attempt, fact.error, fact.again);
        } else if let Some(fact) = event.fact::<StepWaiting>()? {
            self.at(&fact.step).wait_outside(fact.attempt, event.time);
        } else if let Some(fact) = event.fact::<RunStarted>()? {
            self.begin(fact.plan, event.time);
        } else if let Some(fact) = event.fact::<StepResolved>()? {
            self.resolve(fact.step, fact.happened, event.time);
        } else if let Some(fact) = event.fact::<StepSignalled>()? {
            self.signals.entry(fact.step).or_default().push(fact.signal);
        } else if let Some(fact) = event.fact::<UndoBegun>()? {
            self.undo(fact.cause);
        } else if let Some(fact) = event.fact::<StepUndone>()? {
            self.undone(&fact.step);
        } else if let Some(fact) = event.fact::<StepUndoFailed>()? {
            self.undo_failed(&fact.step, fact.attempt, fact.error);
        } else if let Some(fact) = event.fact::<RunEnded>()? {
            self.end = Some(fact.outcome);
        }
        Ok(())
    }

    pub(super) fn begin(&mut self, plan: Digest, now: Timestamp) {
        self.plan = Some(plan);
        self.started = Some(now);
    }

    pub(super) fn finish(&mut self, fact: StepFinished, finished: Timestamp) {
        self.finished += 1;
        let place = self.finished;
        let step = self.at(&fact.step);
        step.count(fact.attempt);
        let StepFinished { how, started, output, why, .. } = fact;
        step.phase = Phase::Finished { output, place, how, why, started, finished };
    }

    fn resolve(&mut self, step: StepId, happened: Option<Value>, time: Timestamp) {
        match happened {
            Some(output) => {
                let attempt = self.at(&step).attempts;
                let how = How::Resolved;
                self.finish(
                    StepFinished { step, attempt, started: time, how, output, why: Why::Happened },
                    time,
                );
            }
            None => self.at(&step).phase = Phase::Waiting,
        }
    }

    fn undo(&mut self, cause: Cause) {
        self.undoing = Some(cause);
        self.end = None;
    }

    fn undone(&mut self, step: &StepId) {
        self.at(step).phase = Phase::Undone;
    }

    fn undo_failed(&mut self, step: &StepId, attempt: u32, error: String) {
        self.at(step).undo_failed(attempt, error);
    }

    fn at(&mut self, step: &StepId) -> &mut StepState {
        self.steps.entry(step.clone()).or_default()
    }
}
