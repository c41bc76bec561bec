//! What reaches a run from outside: signals, approvals, and what a person says became of a step.

use flowline_core::{
    Timestamp,
    digest::Digest,
    id::RunId,
    store::{Batch, Durability},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Resolution, RunError, Runner,
    attempt::millis,
    record::{StepResolved, StepSignalled},
};
use crate::{
    exec::Masker,
    plan::{Approval, ApprovalError, StepId},
    step::{HoldsSecret, Kept, Spec, secret_in},
    steps::ApprovalGate,
};

impl Runner {
    /// What is said is recorded as it is, so it must hold no secret.
    fn refuse_secret(&self, step: &StepId, kept: Kept, value: &Value) -> Result<(), RunError> {
        match secret_in(&self.secrets, &Masker::new(self.secrets.values()), value) {
            Some(secret) => Err(HoldsSecret { step: step.clone(), kept, secret }.into()),
            None => Ok(()),
        }
    }

    /// Says for a person what became of a step that was cut short and can't be asked about. The run can then be resumed.
    ///
    /// # Errors
    /// [`RunError::NotWaiting`] if the step is not in that state, [`RunError::Holds`] if the output holds a secret of this runner, and as [`resume`](Self::resume).
    pub async fn resolve(&self, run: &RunId, step: &StepId, resolution: Resolution) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let names = self.names(run)?;
        self.held(names, "resolve", async |names, lease| {
            let state = self.fold(names).await?;
            let node = plan.plan().node_of(step);
            let found = state.step(step);
            let (Some(node), Some(found)) = (node, found.filter(|found| found.was_cut_short())) else {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            };
            if !node.effect.is_delicate() {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            }
            let happened = match resolution {
                Resolution::Happened(output) => {
                    self.refuse_secret(step, Kept::Resolution, &output)?;
                    Some(output)
                }
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
    /// [`RunError::NoRun`], [`RunError::NotWaiting`] if the plan has no such step, [`RunError::Holds`] if the signal holds a secret of this
    /// runner, and those of the store.
    pub async fn signal(&self, run: &RunId, step: &StepId, id: &str, signal: Value) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        if plan.plan().node_of(step).is_none() {
            return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
        }
        self.refuse_secret(step, Kept::Signal, &Value::Array(vec![id.into(), signal.clone()]))?;
        let names = self.names(run)?;
        let fact = StepSignalled { step: step.clone(), signal };
        let event = names.event(&fact, &format!("signal-{id}"), Some(step), self.clock.now())?;
        let batch = Batch::new().durably(Durability::Synced).append(names.stream.clone(), event);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Gives an approval to a gate of a run: [`signal`](Self::signal) with the digest of the approval as its id, so that one approval is heard
    /// once. It is held to what the gate asks for; a gate of a kind of one's own decides by itself whose approvals count.
    ///
    /// # Errors
    /// As `signal`, and [`RunError::Approval`] if it would not count: it is for another plan, ran out, is by the author or by somebody who is not
    /// asked, or comes after the gate's time.
    pub async fn approve(&self, run: &RunId, gate: &StepId, approval: &Approval) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let refused = |source| RunError::Approval { run: run.clone(), source };
        let no_gate = || RunError::NotWaiting { run: run.clone(), step: gate.clone() };
        let node = plan.plan().node_of(gate).ok_or_else(no_gate)?;
        let broken = |error: serde_json::Error| RunError::Broken(error.to_string());
        let asked = match node.node.kind.name() {
            ApprovalGate::KIND => Some(ApprovalGate::deserialize(&node.node.params).map_err(broken)?),
            _ => None,
        };
        let (now, by) = (self.clock.now(), approval.by.clone());
        let author_counts = asked.as_ref().is_none_or(|asked| asked.author_counts);
        approval.check(&plan, now, author_counts).map_err(refused)?;
        if let Some(asked) = asked.map(|asked| asked.by)
            && !asked.is_empty()
            && !asked.contains(&by)
        {
            return Err(refused(ApprovalError::NotAsked { by, asked }));
        }
        let state = self.fold(&self.names(run)?).await?;
        let since = state.step(gate).and_then(|step| step.waiting_since);
        let limit = node.node.policy.limits.total_ms.map(millis);
        let until = since.zip(limit).map(|(since, limit)| since.checked_add(limit).unwrap_or(Timestamp::MAX));
        if let Some(until) = until.filter(|until| now >= *until) {
            return Err(refused(ApprovalError::Late { by, until }));
        }
        let value = serde_json::to_value(approval).map_err(broken)?;
        // People's names may hold what an id may not.
        let id = Digest::of(value.to_string()).hex();
        self.signal(run, gate, &id, value).await
    }
}
