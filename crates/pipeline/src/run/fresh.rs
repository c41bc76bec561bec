//! Whether the world is still as the plan found it, and which steps are not needed because it is as it should be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::{Timestamp, id::ResourceId};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::{How, Moved, Phase, RunError, RunState, Runner, StepState, Why, record::StepFinished};
use crate::{
    exec::Masker,
    plan::{Action, Effect, Fingerprint, Plan, PlannedNode, Preview, StepId},
    step::PreviewContext,
};

impl Runner {
    /// Looks again at every resource that the run is still to touch and has not touched yet: what it changed itself has moved rightly.
    ///
    /// # Errors
    /// [`RunError::Stale`] names what moved; [`RunError::Denied`], [`RunError::Look`].
    pub(super) async fn check_fresh(&self, plan: &Plan, state: &RunState) -> Result<(), RunError> {
        const AT_ONCE: usize = 16;
        let begun = |node: &&PlannedNode| state.step(node.id()).is_some_and(StepState::may_have_happened);
        let touched: BTreeSet<_> = plan.nodes().iter().filter(begun).flat_map(|node| &node.touches).collect();
        // Made before the stream, so that the whole future can be sent between threads.
        let mut looks = Vec::new();
        for node in plan.nodes() {
            let ahead = state.step(node.id()).is_none_or(|step| {
                matches!(step.phase, Phase::Waiting | Phase::Failed { started: false, .. })
            });
            if ahead && node.touches.iter().any(|touch| !touched.contains(touch)) {
                looks.push(self.look(node));
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

    async fn look(&self, node: &PlannedNode) -> Result<Vec<Moved>, RunError> {
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
        let preview = bound.preview(&context).await.map_err(|source| RunError::Look {
            step: step(),
            source: source.masked(&Masker::new(self.secrets.values())),
        })?;
        let moved = preview.resources.into_iter().filter_map(|observed| {
            // Each step has its own way of looking at a resource, so it is compared with what it saw itself.
            let planned = fingerprint(node, &observed.resource)?;
            let (resource, found) = (observed.resource, observed.fingerprint);
            (planned != found).then(|| Moved { resource, step: step(), planned, found })
        });
        Ok(moved.collect())
    }
}

/// In which state the step saw `resource` when the plan was made.
fn fingerprint(node: &PlannedNode, resource: &ResourceId) -> Option<Fingerprint> {
    let mut seen = node.preview.as_ref()?.resources.iter();
    seen.find(|seen| seen.resource == *resource).map(|seen| seen.fingerprint)
}

/// What the step gives if it is not needed, as far as `preview` says: all that it touches is as it should be, and its output is known.
/// A template is never: its preview does not know what its instances are for.
fn kept(node: &PlannedNode, preview: &Preview) -> Option<Value> {
    let kept = preview.action == Action::Keep
        && node.effect != Effect::Pure
        && !node.touches.is_empty()
        && node.node.each.is_none();
    preview.known.clone().filter(|_| kept)
}

/// Whether it is worth asking again, when its turn comes, whether the step is needed.
pub(super) fn may_be_kept(node: &PlannedNode) -> bool {
    node.preview.as_ref().is_some_and(|preview| kept(node, preview).is_some())
}

/// What the step gives if by this later look at the world it is still not needed: everything is as the plan found it.
pub(super) fn still_kept(node: &PlannedNode, now: &Preview) -> Option<Value> {
    let same = |touch: &ResourceId| {
        let found = now.resources.iter().find(|seen| seen.resource == *touch);
        found.is_some_and(|found| fingerprint(node, touch) == Some(found.fingerprint))
    };
    kept(node, now).filter(|_| node.touches.iter().all(same))
}

/// The steps that need not run at all, whatever happens in the run: they found everything as it should be, their output is known, nothing
/// of the plan changes what they touch, and nothing before them runs. All others that found everything as it should be are asked again
/// when their turn comes, as what runs before them may make them needed.
pub(super) fn unneeded(plan: &Plan) -> impl Iterator<Item = (&PlannedNode, Value)> {
    let changed: BTreeSet<_> = plan
        .nodes()
        .iter()
        .filter(|node| node.action() != Action::Keep)
        .flat_map(|node| &node.touches)
        .collect();
    let mut still: BTreeSet<&StepId> = BTreeSet::new();
    plan.nodes().iter().filter_map(move |node| {
        let known = kept(node, node.preview.as_ref()?)?;
        let unneeded = node.node.when.is_empty()
            && node.touches.iter().all(|touch| !changed.contains(touch))
            && node.node.predecessors().all(|before| still.contains(before));
        unneeded.then(|| {
            still.insert(node.id());
            (node, known)
        })
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
