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
        StepStarted, StepUndoFailed, StepUndone, UndoBegun,
    },
};
use crate::{pipeline::Output, plan::StepId};

/// What became of a run so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunState {
    pub(super) plan: Option<Digest>,
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
    /// Its last attempt failed.
    Failed {
        /// Why.
        error: String,
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
            self.start(&fact.step, fact.attempt);
        } else if let Some(fact) = event.fact::<StepFailed>()? {
            self.fail(&fact.step, fact.attempt, fact.error);
        } else if let Some(fact) = event.fact::<RunStarted>()? {
            self.plan = Some(fact.plan);
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

    pub(super) fn begin(&mut self, plan: Digest) {
        self.plan = Some(plan);
    }

    fn start(&mut self, step: &StepId, attempt: u32) {
        let step = self.at(step);
        step.attempts = step.attempts.max(attempt);
        if !matches!(step.phase, Phase::Finished { .. }) {
            step.phase = Phase::Started;
        }
    }

    pub(super) fn finish(&mut self, fact: StepFinished, finished: Timestamp) {
        self.finished += 1;
        let place = self.finished;
        let step = self.at(&fact.step);
        step.attempts = step.attempts.max(fact.attempt);
        let StepFinished { how, started, output, why, .. } = fact;
        step.phase = Phase::Finished { output, place, how, why, started, finished };
    }

    fn fail(&mut self, step: &StepId, attempt: u32, error: String) {
        let step = self.at(step);
        step.attempts = step.attempts.max(attempt);
        step.phase = Phase::Failed { error };
    }

    fn resolve(&mut self, step: StepId, happened: Option<Value>, time: Timestamp) {
        match happened {
            Some(output) => {
                let attempt = self.at(&step).attempts;
                let how = How::Resolved;
                self.finish(StepFinished { step, attempt, started: time, how, output, why: Why::Due }, time);
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
