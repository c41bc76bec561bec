//! Runs afterwards: which there were, what each did and printed; and what reaches one from outside that waits: approvals, signals, what a
//! person knows.

use std::{collections::BTreeSet, sync::Arc};

use flowline_core::{
    SignedDuration, Timestamp,
    error::{ErrorKind, Retry},
    id::RunId,
    name::Person,
};
use flowline_pipeline::{
    Plan, Runner, Sealed,
    plan::{Approval, StepId},
    report::{Logs, RunView, StepView},
    run::{Phase, Resolution},
    step::{Registry, Spec},
    steps::{ApprovalGate, Approved, SignalGate, decide_approval},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Delivery, DeliveryError, serve};

impl Delivery {
    /// Every run that was ever started, by name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn runs(&self) -> Result<Vec<RunId>, DeliveryError> {
        let found = self.store().list("run/").await.map_err(DeliveryError::store("listing the runs"))?;
        let names = found.iter().filter_map(|(key, _)| {
            let name = key.as_str().strip_prefix("run/")?.strip_suffix("/plan")?;
            RunId::new(name).ok()
        });
        Ok(names.collect())
    }

    /// A run as it stands: its plan, what became of each step, and what it printed.
    ///
    /// # Errors
    /// If it was never started, or something of it can't be read.
    pub async fn run(&self, run: &RunId) -> Result<RunView, DeliveryError> {
        Ok(RunView::read(self.store(), Some(&self.logs()), run).await?)
    }

    /// Where the lines are kept that steps print: `logs` in the state directory.
    pub fn logs(&self) -> Logs {
        Logs::new(self.state_directory().join("logs"))
    }

    /// Whether some process serves this state directory now.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn is_served(&self) -> Result<bool, DeliveryError> {
        serve::is_served(self).await
    }

    /// Says that `by` agrees with the plan of `run`, for as long as `valid`: at the gate `step`, or at every approval that it has. The run
    /// goes on with the next call of the verb that started it. Who may write to the store may say so; that `by` is who it says is not
    /// checked here.
    ///
    /// Recorded is what counts and nothing else; the answer says for each gate whether it did, and what it lacks now.
    ///
    /// # Errors
    /// [`DeliveryError::NotAsked`] if the approval counts nowhere; if there is no such run, it has no such gate, or it is over.
    pub async fn approve(
        &self,
        run: &RunId,
        step: Option<&StepId>,
        by: &Person,
        valid: SignedDuration,
    ) -> Result<Vec<Gate>, DeliveryError> {
        let view = self.run(run).await?;
        let open = open_steps(&view, step, |kind| kind == ApprovalGate::KIND, "approval")?;
        let at = self.clock().now();
        let until = at.checked_add(valid).unwrap_or(Timestamp::MAX);
        let approval = Approval { plan: view.plan.digest(), by: by.clone(), at, until };
        let mut counted = BTreeSet::new();
        let mut reasons = Vec::new();
        for found in &open {
            match counts(&gate(found)?, &approval, &view.plan, at) {
                Ok(_) => drop(counted.insert(found.planned.id().clone())),
                Err(reason) => reasons.push(format!("`{}` {reason}", found.planned.id())),
            }
        }
        if counted.is_empty() {
            let (by, run) = (by.to_string(), run.to_string());
            return Err(DeliveryError::NotAsked { by, run, reasons: reasons.join("; ") });
        }
        let runner = self.outside(by.as_str());
        for step in &counted {
            let approved = runner.approve(run, step, &approval).await;
            approved.map_err(|error| DeliveryError::part(format!("approving run `{run}`"), error))?;
        }
        let view = self.run(run).await?;
        let asked: BTreeSet<_> = open.iter().map(|found| found.planned.id()).collect();
        let asked = view.steps.iter().filter(|found| asked.contains(found.planned.id()));
        asked.map(|found| standing(&view, found, counted.contains(found.planned.id()), at)).collect()
    }

    /// Says for a person what became of `step` of `run`, which was cut where nobody else can say it ([`DeliveryError::NeedsPerson`]). The
    /// run goes on with the next call of the verb that started it.
    ///
    /// # Errors
    /// If there is no such run, or the step needs nobody; if another process walks the run.
    pub async fn resolve(
        &self,
        run: &RunId,
        step: &StepId,
        resolution: Resolution,
    ) -> Result<(), DeliveryError> {
        let resolved = self.outside(self.actor()).resolve(run, step, resolution).await;
        resolved.map_err(|error| DeliveryError::part(format!("saying what became of `{step}`"), error))
    }

    /// Tells `run` something from outside: the step `step`, or every [signal gate](flowline_pipeline::steps::SignalGate) that is not open
    /// yet. The same `id` is heard once, so a caller that does not know whether it was heard calls again. Answers who was told.
    ///
    /// # Errors
    /// If there is no such run, it is over, or no such step of it can hear anything. An approval is no signal: see
    /// [`approve`](Self::approve).
    pub async fn signal(
        &self,
        run: &RunId,
        step: Option<&StepId>,
        id: &str,
        value: Value,
    ) -> Result<Vec<StepId>, DeliveryError> {
        let view = self.run(run).await?;
        let hears = |kind: &str| match step {
            Some(_) => kind != ApprovalGate::KIND,
            None => kind == SignalGate::KIND,
        };
        let open = open_steps(&view, step, hears, "gate for a signal")?;
        let runner = self.outside(self.actor());
        for found in &open {
            let told = runner.signal(run, found.planned.id(), id, value.clone()).await;
            told.map_err(|error| DeliveryError::part(format!("telling run `{run}`"), error))?;
        }
        Ok(open.iter().map(|found| found.planned.id().clone()).collect())
    }

    /// What writes to runs that somebody else walks.
    fn outside(&self, actor: &str) -> Runner {
        Runner::new(
            Arc::clone(self.store()),
            Arc::new(Registry::new()),
            self.authority().clone(),
            Arc::clone(self.clock()),
        )
        .actor(actor)
        .secrets(Arc::clone(self.secrets()))
    }
}

/// A gate after an approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Gate {
    /// The step that waits.
    pub step: StepId,
    /// Whether this approval counted there. It was recorded only then.
    pub counted: bool,
    /// Who agreed so far and counts.
    pub by: BTreeSet<Person>,
    /// What it lacks still, as a sentence without its subject: `needs 1 more approval, by one of …`. `None`: it opens when the run goes on.
    pub missing: Option<String>,
}

/// The steps of a run that are not done, of the kinds that `wanted` says: `step` alone, if one is named.
fn open_steps<'a>(
    view: &'a RunView,
    step: Option<&StepId>,
    wanted: impl Fn(&str) -> bool,
    what: &'static str,
) -> Result<Vec<&'a StepView>, DeliveryError> {
    let open: Vec<_> = view
        .steps
        .iter()
        .filter(|found| wanted(found.planned.node.kind.name()))
        .filter(|found| !matches!(found.phase, Phase::Finished { .. }))
        .filter(|found| step.is_none_or(|step| step == found.planned.id()))
        .collect();
    if open.is_empty() || view.state.end().is_some() {
        return Err(DeliveryError::NotOpen { what, run: view.run.to_string(), state: view.outcome().name() });
    }
    Ok(open)
}

/// What is written of a gate in the plan.
fn gate(found: &StepView) -> Result<ApprovalGate, DeliveryError> {
    ApprovalGate::deserialize(&found.planned.node.params).map_err(|error| DeliveryError::Part {
        doing: format!("reading who is asked at `{}`", found.planned.id()),
        kind: ErrorKind::Corrupt,
        retry: Retry::Never,
        source: error.into(),
    })
}

/// Whether one approval counts at a gate by itself; if not, why.
fn counts(
    gate: &ApprovalGate,
    approval: &Approval,
    plan: &Sealed<Plan>,
    now: Timestamp,
) -> Result<Approved, String> {
    let alone = ApprovalGate { quorum: 1, ..gate.clone() };
    decide_approval(&alone, std::slice::from_ref(approval), plan.digest(), plan.plan().author(), now)
}

/// How a gate stands by everything that reached it.
fn standing(view: &RunView, found: &StepView, counted: bool, now: Timestamp) -> Result<Gate, DeliveryError> {
    // What is no approval was meant for something else.
    let approvals: Vec<Approval> =
        found.signals.iter().filter_map(|(_, signal)| Approval::deserialize(signal).ok()).collect();
    let gate = gate(found)?;
    let missing =
        decide_approval(&gate, &approvals, view.plan.digest(), view.plan.plan().author(), now).err();
    let counting = approvals.iter().filter(|approval| counts(&gate, approval, &view.plan, now).is_ok());
    let by = counting.map(|approval| approval.by.clone()).collect();
    Ok(Gate { step: found.planned.id().clone(), counted, by, missing })
}
