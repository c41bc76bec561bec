//! Back: undoing what was done, in reverse order, whatever led to it.

use std::sync::Arc;

use flowline_core::{
    error::{Kinded, Retry as Again, chain},
    lease::Lease,
    store::Durability,
};
use serde_json::Value;

use super::{
    Cause, How, OnFailure, Phase, Progress, RunError,
    attempt::{Task, attempt, millis},
    front::Front,
    locks,
    record::{StepUndoFailed, StepUndone, UndoBegun},
    walk::Walk,
};
use crate::{
    cancel::Cancel,
    plan::Undo,
    step::{Context, StepError},
};

/// The record that undoing begins, with what tells it apart from the run's others.
fn begun(cause: &Cause) -> (UndoBegun, &'static str) {
    let which = if *cause == Cause::RolledBack { "rolled_back" } else { "undoing" };
    (UndoBegun { cause: cause.clone() }, which)
}

impl Walk<'_> {
    /// Undoes everything that took effect or may have. A step that can't be undone does not keep the others from it.
    pub(super) async fn backward(&mut self, cause: &Cause) -> Result<(), RunError> {
        if self.table.undoing() != Some(cause) {
            let (fact, which) = begun(cause);
            self.write(&fact, which, None, Durability::Synced).await?;
            self.table.undo(cause.clone());
        }
        self.runner.reporter.report(&Progress::Undoing { reason: &cause.to_string() });
        for (at, output) in self.to_undo() {
            self.undo(at, output).await?;
        }
        Ok(())
    }

    /// Queues the record that undoing begins, if it will: [`backward`](Self::backward) comes once nothing runs any more, and if this process
    /// does not live to see that, another one does.
    pub(super) fn record_undo(&self, front: &mut Front, cause: &Cause) -> Result<(), RunError> {
        if self.runner.on_failure == OnFailure::Stop || front.is_stopped_for_a_cause() {
            return Ok(());
        }
        let (fact, which) = begun(cause);
        self.record_run(front, &fact, which, Durability::Synced)
    }

    /// What is to be undone: first what was cut short or failed, the last of the plan first; then what was finished, the last first.
    fn to_undo(&self) -> Vec<(usize, Option<Value>)> {
        let mut list: Vec<_> = (0..self.table.len())
            .filter(|at| {
                let (node, place) = (self.table.node(*at), self.table.at(*at));
                // A template has no effect of its own; its instances have.
                node.undo == Undo::Compensate && (node.node.each.is_none() || place.item.is_some())
            })
            .filter_map(|at| {
                let (place, output) = match &self.table.at(at).step.phase {
                    // What was not needed was not done.
                    Phase::Finished { how: How::Skipped, .. }
                    | Phase::Failed { started: false, .. }
                    | Phase::Waiting
                    | Phase::Undone => return None,
                    Phase::Finished { place, output, .. } => (*place, Some(output.clone())),
                    Phase::UndoFailed { place, output, .. } if *place > 0 => (*place, output.clone()),
                    Phase::Started | Phase::Failed { .. } | Phase::UndoFailed { .. } => (u64::MAX, None),
                };
                Some((place, at, output))
            })
            .collect();
        list.sort_by_key(|(place, at, _)| std::cmp::Reverse((*place, *at)));
        list.into_iter().map(|(_, at, output)| (at, output)).collect()
    }

    /// Undoes one step and records it. Nobody can cancel it; its own limits and tries count, and its locks are held meanwhile.
    async fn undo(&mut self, at: usize, output: Option<Value>) -> Result<(), RunError> {
        let (node, step) = (self.table.node(at), self.table.id(at).clone());
        let held = self.hold(at).await?;
        let mut tried = 0;
        let result = loop {
            tried += 1;
            let error = match self.undo_once(at, output.clone(), &held).await? {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let seed = format!("{}/{step}/undo", self.run);
            let retry = node.node.policy.retry.as_ref();
            let helps = error.retry() != Again::Never;
            match retry.and_then(|retry| retry.delay(tried, error.kind(), helps, &seed)) {
                Some(delay) => {
                    let clock = Arc::clone(&self.runner.clock);
                    self.alive(clock.sleep(delay)).await?;
                }
                None => break Err(error),
            }
        };
        match result {
            Ok(()) => {
                let fact = StepUndone { step: step.clone() };
                self.write(&fact, "undone", Some(&step), Durability::Written).await?;
                self.table.undone(at);
                self.runner.reporter.report(&Progress::Undone { step: &step });
            }
            Err(error) => {
                let error = self.masked(&chain(&error));
                let before = self.table.at(at).step.undo_failures;
                let fact = StepUndoFailed { step: step.clone(), attempt: before + 1, error: error.clone() };
                let which = format!("undo_failed{}", before + 1);
                self.write(&fact, &which, Some(&step), Durability::Written).await?;
                self.runner.reporter.report(&Progress::UndoFailed { step: &step, error: &error });
                self.table.undo_failed(at, before + 1, error);
            }
        }
        locks::release(&*self.runner.leases, held).await;
        Ok(())
    }

    /// Takes the locks of a step, waiting for them as long as it takes.
    async fn hold(&mut self, at: usize) -> Result<Vec<Lease>, RunError> {
        if !self.table.node(at).node.policy.needs_locks() {
            return Ok(Vec::new());
        }
        let step = self.table.id(at).clone();
        // Names that can't be locks were refused on the way forward, so the step has no effect to protect.
        let Ok((wanted, taking)) = self.claims(at) else { return Ok(Vec::new()) };
        let (store, leases) = (Arc::clone(&self.runner.store), Arc::clone(&self.runner.leases));
        let clock = Arc::clone(&self.runner.clock);
        loop {
            let taken = self.alive(locks::take(&*store, &*leases, &*clock, &wanted, &taking)).await?;
            match taken.map_err(|source| RunError::Lock { step: step.clone(), source })? {
                Ok(held) => return Ok(held),
                Err(busy) => {
                    let reason = busy.to_string();
                    self.runner.reporter.report(&Progress::Waiting { step: &step, reason: &reason });
                    self.alive(locks::wait(&*store, &*clock, &busy)).await?;
                }
            }
        }
    }

    async fn undo_once(
        &mut self,
        at: usize,
        output: Option<Value>,
        held: &[Lease],
    ) -> Result<Result<(), StepError>, RunError> {
        let node = self.table.node(at);
        let bound = self.resolve(node)?;
        let granted: Result<Vec<_>, _> =
            node.touches.iter().map(|touch| self.runner.authority.grant(touch)).collect();
        let granted = match granted {
            Ok(granted) => granted,
            Err(denied) => return Ok(Err(StepError::of(denied))),
        };
        let context = Context::new(
            Arc::clone(&self.shared),
            self.table.id(at).clone(),
            self.table.at(at).step.attempts,
            granted,
            Cancel::new(),
            Vec::new(),
            held.iter().map(Lease::fence).collect(),
        );
        let limits = node.node.policy.limits;
        let limit = limits.attempt_ms.map(millis);
        let work = attempt(bound, Task::Undo(output), context, limits, limit, self.runner.grace);
        let leases = Arc::clone(&self.runner.leases);
        let (clock, ttl) = (Arc::clone(&self.runner.clock), self.runner.ttl);
        let held = held.to_vec();
        let work = async move {
            if held.is_empty() {
                return work.await;
            }
            let keep = std::pin::pin!(locks::keep(&*leases, held, ttl, &*clock));
            match futures_util::future::select(std::pin::pin!(work), keep).await {
                futures_util::future::Either::Left((result, _)) => result,
                futures_util::future::Either::Right((lost, _)) => Err(lost),
            }
        };
        Ok(self.alive(work).await?.map(drop))
    }
}
