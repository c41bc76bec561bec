//! Back: undoing what was done, in reverse order, whatever led to it.

use std::sync::Arc;

use flowline_core::{
    error::{Kinded, Retry as Again, chain},
    store::Durability,
};
use serde_json::Value;

use super::{
    Cause, Progress, RunError,
    attempt::{Task, attempt, millis},
    record::{StepUndoFailed, StepUndone, UndoBegun},
    state::Phase,
    walk::Walk,
};
use crate::{
    cancel::Cancel,
    plan::{PlannedNode, Undo},
    step::{Context, StepError},
};

impl<'a> Walk<'a> {
    /// Undoes everything that took effect or may have. A step that can't be undone does not keep the others from it.
    pub(super) async fn backward(&mut self, cause: &Cause) -> Result<(), RunError> {
        if self.state().undoing() != Some(cause) {
            let fact = UndoBegun { cause: cause.clone() };
            let which = if *cause == Cause::RolledBack { "rolled_back" } else { "undoing" };
            let event = self.names.event(&fact, which, None, self.now())?;
            let batch = self.batch().durably(Durability::Synced).append(self.names.stream.clone(), event);
            self.commit(batch).await?;
            self.state_mut().undo(cause.clone());
        }
        self.runner.reporter.report(&Progress::Undoing { reason: &cause.to_string() });
        for (node, output) in self.to_undo() {
            self.undo(node, output).await?;
        }
        Ok(())
    }

    /// What is to be undone: first what was cut short or failed, the last of the plan first; then what was finished, the last first.
    fn to_undo(&self) -> Vec<(&'a PlannedNode, Option<Value>)> {
        let nodes = self.sealed.plan().nodes().iter().enumerate();
        let mut list: Vec<_> = nodes
            .filter(|(_, node)| node.undo == Undo::Compensate)
            .filter_map(|(index, node)| {
                let (place, output) = match &self.state().step(node.id())?.phase {
                    Phase::Finished { place, output, .. } => (*place, Some(output.clone())),
                    Phase::UndoFailed { place, output, .. } if *place > 0 => (*place, output.clone()),
                    Phase::Started | Phase::Failed { .. } | Phase::UndoFailed { .. } => (u64::MAX, None),
                    Phase::Waiting | Phase::Undone => return None,
                };
                Some((place, index, node, output))
            })
            .collect();
        list.sort_by_key(|(place, index, ..)| std::cmp::Reverse((*place, *index)));
        list.into_iter().map(|(_, _, node, output)| (node, output)).collect()
    }

    /// Undoes one step and records it. Nobody can cancel it; its own limits and tries count.
    async fn undo(&mut self, node: &'a PlannedNode, output: Option<Value>) -> Result<(), RunError> {
        let mut tried = 0;
        let result = loop {
            tried += 1;
            let error = match self.undo_once(node, output.clone()).await? {
                Ok(()) => break Ok(()),
                Err(error) => error,
            };
            let seed = format!("{}/{}/undo", self.names.run, node.id());
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
        let step = node.id().clone();
        let now = self.now();
        match result {
            Ok(()) => {
                let fact = StepUndone { step: step.clone() };
                let event = self.names.event(&fact, "undone", Some(&step), now)?;
                self.commit(self.batch().append(self.names.stream.clone(), event)).await?;
                self.state_mut().undone(&step);
                self.runner.reporter.report(&Progress::Undone { step: &step });
            }
            Err(error) => {
                let error = self.masked(&chain(&error));
                let before = self.state().step(&step).map_or(0, |step| step.undo_failures);
                let fact = StepUndoFailed { step: step.clone(), attempt: before + 1, error: error.clone() };
                let which = format!("undo_failed{}", before + 1);
                let event = self.names.event(&fact, &which, Some(&step), now)?;
                self.commit(self.batch().append(self.names.stream.clone(), event)).await?;
                self.runner.reporter.report(&Progress::UndoFailed { step: &step, error: &error });
                self.state_mut().undo_failed(&step, before + 1, error);
            }
        }
        Ok(())
    }

    async fn undo_once(
        &mut self,
        node: &'a PlannedNode,
        output: Option<Value>,
    ) -> Result<Result<(), StepError>, RunError> {
        let bound = self.resolve(node)?;
        let granted: Result<Vec<_>, _> =
            node.touches.iter().map(|touch| self.runner.authority.grant(touch)).collect();
        let granted = match granted {
            Ok(granted) => granted,
            Err(denied) => return Ok(Err(StepError::of(denied))),
        };
        let attempts = self.state().step(node.id()).map_or(0, |step| step.attempts);
        let context = Context::new(
            Arc::clone(&self.shared),
            node.id().clone(),
            attempts,
            granted,
            Cancel::new(),
            Vec::new(),
        );
        let limits = node.node.policy.limits;
        let limit = limits.attempt_ms.map(millis);
        let work = attempt(bound, Task::Undo(output), context, limits, limit, self.runner.grace);
        Ok(self.alive(work).await?.map(drop))
    }
}
