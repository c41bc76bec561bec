//! How a walk ended, and what a person may say about it.

use std::collections::BTreeMap;

use flowline_core::{Timestamp, id::RunId};
use serde_json::Value;

use super::{Cause, RunState};
use crate::plan::{Plan, PlannedNode, StepId};

/// What happens when a step failed for good, or the run is cancelled. Steps that run already are let finish (or, on cancel, asked to stop);
/// nothing new starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Everything that was done is undone, in reverse order.
    #[default]
    Undo,
    /// It stays as it is; resuming the run tries the failed step again.
    Stop,
}

/// How a walk ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// Every step is done.
    Succeeded,
    /// Everything that can be undone is undone.
    Undone {
        /// Why.
        cause: Cause,
        /// Steps that took effect and can't be taken back, as the plan said.
        irreversible: Vec<StepId>,
    },
    /// Some steps could not be undone. Resuming the run tries them again.
    UndoIncomplete {
        /// Why the run is undone.
        cause: Cause,
        /// Each step that is left, with why.
        failures: BTreeMap<StepId, String>,
    },
    /// A step failed or the run was cancelled, and everything stays as it is. Resuming goes on from there.
    Stopped {
        /// Why.
        cause: Cause,
    },
    /// Everything else is done, and these steps wait for something from outside. Resuming the run after [`Runner::signal`](super::Runner::signal), or after `wake`,
    /// asks them again; no process need live meanwhile.
    Waiting {
        /// Each step, with what it waits for.
        steps: BTreeMap<StepId, String>,
        /// When asking again can help even if nothing was signalled.
        wake: Option<Timestamp>,
    },
    /// Nobody but a person can say whether these steps took effect; see [`Runner::resolve`](super::Runner::resolve).
    NeedsPerson {
        /// Each step, with why.
        steps: BTreeMap<StepId, String>,
    },
}

impl Ended {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Undone { .. } => "undone",
            Self::UndoIncomplete { .. } => "undone in part",
            Self::Stopped { .. } => "stopped",
            Self::Waiting { .. } => "is waiting",
            Self::NeedsPerson { .. } => "needs a person",
        }
    }
}

/// How a walk ended, and what became of every step.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a run that failed is no error; look how it ended"]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// How the walk ended.
    pub ended: Ended,
    /// What became of every step.
    pub state: RunState,
}

impl Report {
    /// Whether every step is done.
    pub fn succeeded(&self) -> bool {
        self.ended == Ended::Succeeded
    }
}

/// What a person says about a step that nobody can ask about.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// It took effect, and gave this.
    Happened(Value),
    /// It did not; it may run.
    DidNotHappen,
}

/// The steps that took effect, or may have, and can't be taken back.
pub(super) fn irreversible(plan: &Plan, state: &RunState) -> Vec<StepId> {
    let happened = |node: &&PlannedNode| {
        let of_it = |id: &StepId| match id.as_str().strip_prefix(node.id().as_str()) {
            Some(rest) => rest.is_empty() || node.node.each.is_some() && rest.starts_with('/'),
            None => false,
        };
        state.steps().any(|(id, step)| of_it(id) && step.may_have_happened())
    };
    plan.irreversible().filter(happened).map(|node| node.id().clone()).collect()
}
