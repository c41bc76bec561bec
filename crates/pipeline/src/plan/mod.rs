//! What a deployment is, as data: a [`Draft`] as written, a [`Plan`] as checked against the world and the grants, and its seal.
//!
//! 1. [`Draft`]: nodes that refer to each other. Pure data, from [`Pipeline`](crate::Pipeline) or from a file.
//! 2. [`Planner::plan`] puts them in order, finds their code, asks the authority about everything that they touch and previews each: the
//!    [`Plan`]. What is not allowed is part of it ([`Denial`]).
//! 3. [`Plan::seal`] fixes the digest over all of that: [`Sealed`]. Only a sealed plan runs, and from disk it comes only through
//!    [`Sealed::open`].
//!
//! Freshness is kept for each touched resource, not as one serial: a plan goes stale when something that it touches moved, not when
//! anything did.

mod canonical;
mod draft;
mod id;
mod node;
mod policy;
mod render;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use flowline_core::{
    digest::Digest,
    grant::Pattern,
    id::ResourceId,
    name::{AppName, Person},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use self::canonical::sorted;
pub use self::{
    draft::{Draft, PlanError, Planner},
    id::{IdError, MAX_STEP_ID, StepId, StepKind},
    node::{
        Action, Declared, Denial, Each, Effect, Fingerprint, Input, Inputs, Node, Observed, OutputRef,
        PlannedNode, Policy, Preview, Undo,
    },
    policy::{ErrorClass, Limits, Retry},
    seal::{Approval, ApprovalError, FORMAT_VERSION, OpenError, SealError, Sealed},
};

/// A draft that was checked: in order, with what each step would do and what is denied. Made by [`Planner::plan`].
///
/// It can't be read from disk; what may be kept there is its sealed form.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(crate) data: PlanData,
}

/// The content of a plan, and the only shape in which one is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanData {
    pub(crate) name: String,
    pub(crate) app: AppName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<Person>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) build: Option<Digest>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) inputs: BTreeMap<String, Value>,
    pub(crate) grants: Vec<Pattern>,
    pub(crate) fingerprints: BTreeMap<ResourceId, Fingerprint>,
    pub(crate) denied: Vec<Denial>,
    pub(crate) nodes: Vec<PlannedNode>,
}

impl Plan {
    /// What the pipeline is called.
    pub fn name(&self) -> &str {
        &self.data.name
    }

    /// The application that it delivers.
    pub fn app(&self) -> &AppName {
        &self.data.app
    }

    /// Who asked for it.
    pub fn author(&self) -> Option<&Person> {
        self.data.author.as_ref()
    }

    /// The build of the deployer that its closures belong to, if it uses any.
    pub fn build(&self) -> Option<Digest> {
        self.data.build
    }

    /// The values that it was made with.
    pub fn inputs(&self) -> &BTreeMap<String, Value> {
        &self.data.inputs
    }

    /// What the application was granted when the plan was made.
    pub fn grants(&self) -> &[Pattern] {
        &self.data.grants
    }

    /// The state of each touched resource when the plan was made.
    pub fn fingerprints(&self) -> &BTreeMap<ResourceId, Fingerprint> {
        &self.data.fingerprints
    }

    /// What is not allowed. A plan with any can't be sealed.
    pub fn denied(&self) -> &[Denial] {
        &self.data.denied
    }

    /// The steps: each after all that it waits for, otherwise in the order in which they were written.
    pub fn nodes(&self) -> &[PlannedNode] {
        &self.data.nodes
    }

    /// The node that `step` is, or is an instance of.
    pub fn node_of(&self, step: &StepId) -> Option<&PlannedNode> {
        let nodes = self.nodes();
        let made = |node: &&PlannedNode| {
            let rest = step.as_str().strip_prefix(node.id().as_str());
            node.node.each.is_some() && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        nodes.iter().find(|node| node.id() == step).or_else(|| nodes.iter().find(made))
    }

    /// Whether anything would change: a step that is not pure and does not find everything as it should be.
    pub fn has_changes(&self) -> bool {
        self.nodes().iter().any(|node| node.action() != Action::Keep && node.effect != Effect::Pure)
    }

    /// The steps whose effect can't be taken back.
    pub fn irreversible(&self) -> impl Iterator<Item = &PlannedNode> {
        self.nodes().iter().filter(|node| node.undo == Undo::Irreversible)
    }
}

impl PlannedNode {
    /// What kind of change it makes; a denied step would do its work.
    pub fn action(&self) -> Action {
        self.preview.as_ref().map_or(Action::Run, |preview| preview.action)
    }

    /// The step's id.
    pub fn id(&self) -> &StepId {
        &self.node.id
    }
}
