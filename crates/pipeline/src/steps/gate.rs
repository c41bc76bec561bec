//! Gates inside a run: waiting for people, for a time, for a signal. No process need live while a gate is closed.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use flowline_core::{Timestamp, digest::Digest, error::ErrorKind, name::Person};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    plan::Approval,
    step::{Context, Effect, Preview, PreviewContext, Spec, Step, StepError},
};

/// Opens once enough people approved this exact plan. Approvals come through [`Runner::approve`](crate::run::Runner::approve).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalGate {
    /// How many different people must approve: at least 1, and not more than there are in `by` if it names any. Anything else is refused when
    /// the plan is made.
    pub quorum: usize,
    /// Whose approval counts; empty for everybody's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub by: BTreeSet<Person>,
    /// Whether the author of the plan counts.
    #[serde(default)]
    pub author_counts: bool,
}

/// Who opened a gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// The people whose approval counted, in order of their names.
    pub by: BTreeSet<Person>,
}

impl Spec for ApprovalGate {
    const KIND: &'static str = "gate/approval";
    type Input = ();
    type Output = Approved;
}

/// Whether `approvals` open `gate` for `plan` at `now`: who counted, or what is missing and when it is worth asking again.
///
/// An approval counts if it names this plan, has not run out, comes from somebody who may, and not from the plan's author unless the gate says
/// so. Several by one person count once.
///
/// # Errors
/// What the gate still waits for, as a sentence.
pub fn decide_approval(
    gate: &ApprovalGate,
    approvals: &[Approval],
    plan: Digest,
    author: Option<&Person>,
    now: Timestamp,
) -> Result<Approved, String> {
    let mut ignored: BTreeMap<&Person, &'static str> = BTreeMap::new();
    let mut by = BTreeSet::new();
    for approval in approvals {
        let why = if approval.plan != plan {
            Some("approved another plan")
        } else if now >= approval.until {
            Some("has run out")
        } else if !gate.by.is_empty() && !gate.by.contains(&approval.by) {
            Some("is not asked")
        } else if !gate.author_counts && author == Some(&approval.by) {
            Some("made the plan")
        } else {
            None
        };
        match why {
            Some(why) => drop(ignored.insert(&approval.by, why)),
            None => drop(by.insert(approval.by.clone())),
        }
    }
    let missing = gate.quorum.max(1).saturating_sub(by.len());
    if missing == 0 {
        return Ok(Approved { by });
    }
    let mut text = format!("needs {missing} more {}", if missing == 1 { "approval" } else { "approvals" });
    if !gate.by.is_empty() {
        let people: Vec<_> = gate.by.difference(&by).map(|person| format!("`{person}`")).collect();
        text = format!("{text}, by one of {}", people.join(", "));
    }
    for (person, why) in ignored.into_iter().filter(|(person, _)| !by.contains(*person)) {
        text = format!("{text}; `{person}` does not count: {why}");
    }
    Err(text)
}

/// The code of [`ApprovalGate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ApprovalGateStep;

#[async_trait]
impl Step for ApprovalGateStep {
    type Spec = ApprovalGate;

    fn effect(&self, _: &ApprovalGate) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, spec: &ApprovalGate, _: &PreviewContext) -> Result<Preview, StepError> {
        if spec.quorum == 0 || (!spec.by.is_empty() && spec.quorum > spec.by.len()) {
            let problem = format!(
                "the gate asks for {} approvals by {}, which is never or always; ask for 1 or more, and name as many people",
                spec.quorum,
                if spec.by.is_empty() { "anybody".to_owned() } else { format!("{} people", spec.by.len()) },
            );
            return Err(StepError::new(ErrorKind::Invalid, problem));
        }
        let people = if spec.quorum == 1 { "1 person" } else { &format!("{} people", spec.quorum) };
        Ok(Preview::run(format!("waits until {people} approved this plan")))
    }

    async fn run(&self, spec: &ApprovalGate, (): (), context: &Context) -> Result<Approved, StepError> {
        // What is no approval was meant for something else.
        let approvals: Vec<Approval> =
            context.signals().iter().filter_map(|signal| Approval::deserialize(signal).ok()).collect();
        decide_approval(spec, &approvals, context.plan(), context.author(), context.clock().now())
            .map_err(|reason| StepError::waiting(reason, None))
    }
}

/// Opens at a time. Unlike [`WaitUntil`](super::WaitUntil), no process waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimeGate {
    /// When.
    pub opens: Timestamp,
}

impl Spec for TimeGate {
    const KIND: &'static str = "gate/time";
    type Input = ();
    type Output = ();
}

/// The code of [`TimeGate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeGateStep;

#[async_trait]
impl Step for TimeGateStep {
    type Spec = TimeGate;

    fn effect(&self, _: &TimeGate) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, spec: &TimeGate, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!("waits until {}", spec.opens)))
    }

    async fn run(&self, spec: &TimeGate, (): (), context: &Context) -> Result<(), StepError> {
        if context.clock().now() >= spec.opens {
            return Ok(());
        }
        Err(StepError::waiting(format!("opens at {}", spec.opens), Some(spec.opens)))
    }
}

/// Opens with the first signal, and gives it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalGate {
    /// What it waits for, for people: `the load test's callback`.
    pub what: String,
}

impl Spec for SignalGate {
    const KIND: &'static str = "gate/signal";
    type Input = ();
    type Output = Value;
}

/// The code of [`SignalGate`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SignalGateStep;

#[async_trait]
impl Step for SignalGateStep {
    type Spec = SignalGate;

    fn effect(&self, _: &SignalGate) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, spec: &SignalGate, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!("waits for {}", spec.what)))
    }

    async fn run(&self, spec: &SignalGate, (): (), context: &Context) -> Result<Value, StepError> {
        let first = context.signals().first().cloned();
        first.ok_or_else(|| StepError::waiting(format!("waits for {}", spec.what), None))
    }
}
