//! Whether the world is still as the plan found it, and which steps are not needed because it is as it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::Timestamp;
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::{How, Moved, Phase, RunError, RunState, Runner, Why, record::StepFinished};
use crate::{
    plan::{Action, Effect, Plan, PlannedNode, StepId},
    step::PreviewContext,
};

impl Runner {
    /// Looks again at every resource that the run is still to touch and has not touched yet: what it changed itself has moved rightly.
    ///
    /// # Errors
    /// [`RunError::Stale`] names what moved; [`RunError::Denied`], [`RunError::Look`].
    pub(super) async fn check_fresh(&self, plan: &Plan, state: &RunState) -> Result<(), RunError> {
        const AT_ONCE: usize = 16;
        let begun = |node: &&PlannedNode| {
            state
                .step(node.id())
                .is_some_and(|step| !matches!(step.phase, Phase::Waiting) && !step.was_skipped())
        };
        let touched: BTreeSet<_> = plan.nodes().iter().filter(begun).flat_map(|node| &node.touches).collect();
        // Made before the stream, so that the whole future can be sent between threads.
        let mut looks = Vec::new();
        for node in plan.nodes() {
            let ahead = state.step(node.id()).is_none_or(|step| matches!(step.phase, Phase::Waiting));
            if ahead && node.touches.iter().any(|touch| !touched.contains(touch)) {
                looks.push(self.look(plan, node));
            }
        }
        let mut looks = stream::iter(looks).buffered(AT_ONCE);
        let mut moved: BTreeMap<_, Moved> = BTreeMap::new();
        while let Some(found) = looks.next().await {
            for found in found?.into_iter().filter(|found| !touched.contains(&found.resource)) {
                moved.entry(found.resource.clone()).or_insert(found);
            }
        }
        if moved.is_empty() { Ok(()) } else { Err(RunError::Stale(moved.into_values().collect())) }
    }

    async fn look(&self, plan: &Plan, node: &PlannedNode) -> Result<Vec<Moved>, RunError> {
        let step = || node.id().clone();
        let granted: Result<Vec<_>, _> =
            node.touches.iter().map(|touch| self.authority.grant(touch)).collect();
        let context = PreviewContext {
            step: step(),
            granted: granted.map_err(|source| RunError::Denied { step: step(), source })?,
            clock: Arc::clone(&self.clock),
            secrets: Arc::clone(&self.secrets),
        };
        let bound = self
            .registry
            .resolve(&node.node.kind, &node.node.params)
            .map_err(|source| RunError::Resolve { step: step(), source })?;
        let preview =
            bound.preview(&context).await.map_err(|source| RunError::Look { step: step(), source })?;
        let moved = preview.resources.into_iter().filter_map(|observed| {
            let planned = *plan.fingerprints().get(&observed.resource)?;
            let (resource, found) = (observed.resource, observed.fingerprint);
            (planned != found).then(|| Moved { resource, step: step(), planned, found })
        });
        Ok(moved.collect())
    }
}

/// The steps that found everything as it should be, whose output is known, and before which nothing of the plan changes what they touch.
pub(super) fn unneeded(plan: &Plan) -> impl Iterator<Item = (&PlannedNode, Value)> {
    let changed: BTreeSet<_> = plan
        .nodes()
        .iter()
        .filter(|node| node.action() != Action::Keep)
        .flat_map(|node| &node.touches)
        .collect();
    plan.nodes().iter().filter_map(move |node| {
        let known = node.preview.as_ref()?.known.clone()?;
        let kept = node.action() == Action::Keep
            && node.effect != Effect::Pure
            && !node.touches.is_empty()
            && node.touches.iter().all(|touch| !changed.contains(touch));
        kept.then_some((node, known))
    })
}

/// That a step was done before the run began.
pub(super) fn not_needed(step: &StepId, output: Value, now: Timestamp) -> StepFinished {
    StepFinished {
        step: step.clone(),
        attempt: 0,
        started: now,
        how: How::Skipped,
        output,
        why: Why::AsItShouldBe,
    }
}
