//! What reaches a run from outside: signals, approvals, and what a person says became of a step.

use flowline_core::{
    id::RunId,
    store::{Batch, Durability},
};
use serde_json::Value;

use super::{
    Phase, Resolution, RunError, Runner,
    record::{StepResolved, StepSignalled},
};
use crate::plan::{Approval, StepId};

impl Runner {
    /// Says for a person what became of a step that was cut short and can't be asked about. The run can then be resumed.
    ///
    /// # Errors
    /// [`RunError::NotWaiting`] if the step is not in that state, and as [`resume`](Self::resume).
    pub async fn resolve(&self, run: &RunId, step: &StepId, resolution: Resolution) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let names = self.names(run)?;
        self.held(names, "resolve", async |names, lease| {
            let state = self.fold(names).await?;
            let node = plan.plan().node_of(step);
            let found = state.step(step);
            let cut_short =
                matches!(found.map(|found| &found.phase), Some(Phase::Started | Phase::Failed { .. }));
            let (Some(node), Some(found), true) = (node, found, cut_short) else {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            };
            if !node.effect.is_delicate() {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            }
            let happened = match resolution {
                Resolution::Happened(output) => Some(output),
                Resolution::DidNotHappen => None,
            };
            let fact = StepResolved { step: step.clone(), happened };
            let which = format!("resolved{}", found.attempts);
            let event = names.event(&fact, &which, Some(step), self.clock.now())?;
            let batch = Batch::new().durably(Durability::Synced).fenced(lease.fence());
            self.store.commit(batch.append(names.stream.clone(), event)).await?;
            Ok(())
        })
        .await
    }

    /// Tells a step of a run something from outside: an approval, a callback. The same `id` is heard once. The run may be walked by
    /// somebody else meanwhile; whoever walks it next hands the signal to the step ([`Context::signals`](crate::step::Context::signals)).
    ///
    /// # Errors
    /// [`RunError::NoRun`], [`RunError::NotWaiting`] if the plan has no such step, and those of the store.
    pub async fn signal(&self, run: &RunId, step: &StepId, id: &str, signal: Value) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        if plan.plan().node_of(step).is_none() {
            return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
        }
        let names = self.names(run)?;
        let fact = StepSignalled { step: step.clone(), signal };
        let event = names.event(&fact, &format!("signal-{id}"), Some(step), self.clock.now())?;
        let batch = Batch::new().durably(Durability::Synced).append(names.stream.clone(), event);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Gives an approval to a gate of a run: [`signal`](Self::signal) with the approver as its id.
    ///
    /// # Errors
    /// As `signal`, and if the approval does not count for the run's plan now.
    pub async fn approve(&self, run: &RunId, gate: &StepId, approval: &Approval) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let counts = approval.check(&plan, self.clock.now(), true);
        counts.map_err(|source| RunError::Approval { run: run.clone(), source })?;
        let value = serde_json::to_value(approval).map_err(|error| RunError::Broken(error.to_string()))?;
        let id = format!("{}-{}", approval.by, approval.at.as_second());
        self.signal(run, gate, &id, value).await
    }
}
