//! What a run writes into its stream, `run/RUN_ID`: one fact for each thing that happened, keyed by step id.
//!
//! CDEvents' words where it has them (`pipelinerun.*`, `taskrun.*`). A pure step, and an idempotent one that touches no resource and has
//! nothing to undo, leaves one event, `taskrun.finished`, which says when it started, unless its attempts are limited; all others also leave
//! `taskrun.started` before their effect, by which a later process tells the run's own traces from somebody else's, and counts its attempts.

use flowline_core::{
    Timestamp,
    digest::Digest,
    event::Event,
    id::{EventId, Key, RunId, StreamId},
    journal::Fact,
    name::NameError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Why;
use crate::plan::StepId;

/// A run began. Its plan is in the document `run/RUN_ID/plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunStarted {
    /// The plan.
    pub plan: Digest,
    /// How many steps it has.
    pub steps: usize,
}

/// A step is about to have its effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepStarted {
    /// The step.
    pub step: StepId,
    /// Which attempt, from 1.
    pub attempt: u32,
}

/// How a step came to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It ran.
    Ran,
    /// The world said that it had happened before a crash.
    Probed,
    /// A person said so.
    Resolved,
    /// It was not needed.
    Skipped,
    /// Its output was known from an earlier run.
    Cached,
}

/// A step is done. From here on it never runs again in this run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFinished {
    /// The step.
    pub step: StepId,
    /// The attempt that did it.
    pub attempt: u32,
    /// When that attempt started.
    pub started: Timestamp,
    /// How it came to be done.
    pub how: How,
    /// What it gives to others.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Why it ran, or did not.
    #[serde(default, skip_serializing_if = "Why::is_due")]
    pub why: Why,
}

/// An attempt failed, or the step's turn came to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepFailed {
    /// The step.
    pub step: StepId,
    /// The attempt; if none was started, the last one before.
    pub attempt: u32,
    /// Why, secrets masked.
    pub error: String,
    /// Whether it will be tried again.
    pub again: bool,
    /// Whether the attempt was started: not if it queued for too long, or its condition, input or locks could not be had.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub started: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// A step waits for something from outside. Said once, when it first waits, and again only for a step whose start is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepWaiting {
    /// The step.
    pub step: StepId,
    /// The attempt that found it waiting; 0 if its start was not recorded.
    pub attempt: u32,
    /// What it waits for, secrets masked.
    pub reason: String,
}

/// Something from outside reached a step: an approval, a callback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSignalled {
    /// The step that it is for.
    pub step: StepId,
    /// What it says.
    pub signal: Value,
}

/// A person said what became of a step that nobody could ask about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResolved {
    /// The step.
    pub step: StepId,
    /// Its output if it happened; it runs again if it did not.
    pub happened: Option<Value>,
}

/// Why a run is undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// A step failed for good.
    Failed {
        /// The step.
        step: StepId,
        /// Why.
        error: String,
    },
    /// Somebody wished to stop.
    Cancelled,
    /// The run took longer than it may ([`Runner::limit`](super::Runner::limit)).
    TimedOut,
    /// Somebody wants back what was before.
    RolledBack,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { step, error } => write!(f, "step `{step}` failed: {error}"),
            Self::Cancelled => f.write_str("it was cancelled"),
            Self::TimedOut => f.write_str("it took longer than it may"),
            Self::RolledBack => f.write_str("it is rolled back"),
        }
    }
}

/// Undoing began; nothing but undoing happens in the run from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UndoBegun {
    /// Why.
    pub cause: Cause,
}

/// A step was undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepUndone {
    /// The step.
    pub step: StepId,
}

/// A step could not be undone; undoing the run again tries it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepUndoFailed {
    /// The step.
    pub step: StepId,
    /// Which try, from 1.
    pub attempt: u32,
    /// Why, secrets masked.
    pub error: String,
}

/// A run reached an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// Every step is done.
    Succeeded,
    /// Everything that can be undone is.
    Undone,
}

/// The run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEnded {
    /// How.
    pub outcome: End,
}

macro_rules! facts {
    ($($fact:ident $kind:literal),+ $(,)?) => {
        $(impl Fact for $fact {
            const KIND: &'static str = $kind;
        })+
    };
}
facts! {
    RunStarted "pipelinerun.started",
    StepStarted "taskrun.started",
    StepFinished "taskrun.finished",
    StepFailed "taskrun.failed",
    StepWaiting "taskrun.waiting",
    StepResolved "taskrun.resolved",
    StepSignalled "taskrun.signalled",
    UndoBegun "pipelinerun.undoing",
    StepUndone "taskrun.undone",
    StepUndoFailed "taskrun.undo_failed",
    RunEnded "pipelinerun.finished",
}

/// Names everything that a run writes.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) run: RunId,
    pub(crate) stream: StreamId,
    pub(crate) plan: Key,
    pub(crate) lease: Key,
    subject: String,
    actor: String,
}

impl Names {
    /// Those of `run`. A run's id is a label, so none of them can be refused.
    pub(crate) fn of(run: &RunId, actor: &str) -> Result<Self, NameError> {
        Ok(Self {
            run: run.clone(),
            stream: StreamId::new(format!("run/{run}"))?,
            plan: Key::new(format!("run/{run}/plan"))?,
            lease: Key::new(format!("lease/run/{run}"))?,
            subject: format!("run/{run}"),
            actor: actor.to_owned(),
        })
    }

    /// The event that says `fact` about `step`, or about the run. `which` tells repetitions apart, such as `started2`.
    pub(crate) fn event<F: Fact>(
        &self,
        fact: &F,
        which: &str,
        step: Option<&StepId>,
        time: Timestamp,
    ) -> Result<Event, super::RunError> {
        let (id, subject) = match step {
            Some(step) => (format!("{}/{which}/{step}", self.run), format!("{}/{step}", self.subject)),
            None => (format!("{}/{which}", self.run), self.subject.clone()),
        };
        let id = EventId::new(id).map_err(|error| super::RunError::Name(error.to_string()))?;
        Ok(Event::of(fact, id, time, self.actor.as_str(), subject)?)
    }
}
