//! From a draft to a plan: order, code, grants, previews.

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc};

use flowline_core::{
    clock::Clock,
    error::{ErrorKind, Kinded},
    grant::{Authority, Granted},
    graph::{Graph, GraphError},
    id::ResourceId,
    name::{AppName, NameError, Person},
    secret::SecretName,
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Denial, Node, Plan, PlanData, PlannedNode, Policy, StepId};
use crate::{
    exec::Masker,
    step::{BoundStep, Function, PreviewContext, Registry, ResolveError, Secrets, StepError, secret_in},
};

/// A pipeline as written: steps that refer to each other, not yet checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// What the pipeline is called, on one line.
    pub name: String,
    /// The application that it delivers.
    pub app: AppName,
    /// The values that it was made with, for people and for the seal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Value>,
    /// The steps, in any order.
    pub nodes: Vec<Node>,
}

/// Why a draft is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The pipeline was written wrongly.
    #[error("the pipeline cannot be planned: {0}")]
    Pipeline(#[from] crate::pipeline::PipelineError),
    /// The pipeline's name would break the lines that show it.
    #[error("`{}` cannot name a pipeline: it holds a control character; leave it out", .0.escape_debug())]
    Name(String),
    /// Two steps have one id.
    #[error("step `{0}` is there twice; give one of them another id")]
    Twice(StepId),
    /// A step waits for one that is not there.
    #[error("step `{step}` waits for `{missing}`, which is not in the plan")]
    Missing {
        /// The step.
        step: StepId,
        /// What it names.
        missing: StepId,
    },
    /// A step asks for an item, but is not repeated for any.
    #[error("step `{0}` takes an item as input, but is not repeated for any; write it with `Pipeline::each`")]
    Item(StepId),
    /// A step that is not pure asks for the cache.
    #[error("step `{0}` has an effect, so its output cannot come from a cache; only a pure step's can")]
    Cache(StepId),
    /// A lock's name is none.
    #[error("step `{step}` names a lock that there cannot be: {source}")]
    Lock {
        /// The step.
        step: StepId,
        /// What is wrong with the name.
        source: NameError,
    },
    /// A semaphore has too many permits.
    #[error(
        "step `{step}` shares the {permits} permits of `{name}`, and a semaphore has {} at most; each permit is a lease that is looked at",
        Policy::MAX_PERMITS
    )]
    Permits {
        /// The step.
        step: StepId,
        /// The semaphore.
        name: String,
        /// How many permits it would have.
        permits: u32,
    },
    /// Steps wait for each other.
    #[error("steps wait for each other in a circle: {}; take one of these edges away", circle(.0))]
    Cycle(Vec<StepId>),
    /// A step's code can't be had.
    #[error("step `{step}` cannot be planned")]
    Resolve {
        /// The step.
        step: StepId,
        /// Why.
        source: ResolveError,
    },
    /// A step could not be previewed.
    #[error("step `{step}` cannot say what it would do")]
    Preview {
        /// The step.
        step: StepId,
        /// Why.
        source: StepError,
    },
    /// A step's preview names another set of resources than it touches.
    #[error(
        "step `{step}` touches `{resource}` but its preview does not show in which state it is; fix the step"
    )]
    Unseen {
        /// The step.
        step: StepId,
        /// The resource.
        resource: ResourceId,
    },
    /// The value of a secret of the planner stands in the plan, which would be shown and kept.
    #[error(
        "{} holds the value of the secret `{secret}`, and a plan is shown to many; refer to the secret by its name (`secret_env`, `Context::secret`)",
        place(.step.as_ref())
    )]
    Secret {
        /// The step; `None` if it is the pipeline's name or one of its inputs, or if the secret stands in the step's name.
        step: Option<StepId>,
        /// The name of the secret.
        secret: SecretName,
    },
    /// Closures are used, but nobody said which build of the deployer this is.
    #[error("step `{0}` calls a function of the deployer; say which build this is with `Registry::built_as`")]
    Build(StepId),
}

impl Kinded for PlanError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Resolve { source, .. } => source.kind(),
            Self::Preview { source, .. } => source.kind(),
            _ => ErrorKind::Invalid,
        }
    }
}

fn place(step: Option<&StepId>) -> String {
    step.map_or_else(|| "the pipeline".to_owned(), |step| format!("step `{step}`"))
}

fn circle(steps: &[StepId]) -> String {
    let mut names: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
    names.extend(names.first().cloned());
    names.join(" waits for ")
}

/// Makes plans: knows the code, the grants and how to look at the world.
#[derive(Debug, Clone)]
pub struct Planner {
    registry: Arc<Registry>,
    authority: Authority,
    clock: Arc<dyn Clock>,
    secrets: Arc<Secrets>,
    author: Option<Person>,
}

impl Planner {
    /// Plans with the kinds of `registry`, within what `authority` allows.
    pub fn new(registry: Arc<Registry>, authority: Authority, clock: Arc<dyn Clock>) -> Self {
        Self { registry, authority, clock, secrets: Arc::default(), author: None }
    }

    /// The same with secrets that steps may use to look at the world. No plan holds the value of one, and no error of a look shows it.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Arc<Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same, on behalf of `author`, who may then not approve it alone.
    #[must_use]
    pub fn by(mut self, author: Person) -> Self {
        self.author = Some(author);
        self
    }

    /// Checks `draft` and looks at what it would do. Changes nothing. Time and memory grow with the number of steps and edges.
    ///
    /// A step that touches what nobody granted is not previewed: it becomes a [`Denial`] in the plan.
    ///
    /// # Errors
    /// If the draft contradicts itself, names code that is not there, or a preview fails; [`PlanError::Secret`] if the value of one of the
    /// planner's secrets stands in the draft or in what a preview shows.
    pub async fn plan(&self, draft: &Draft) -> Result<Plan, PlanError> {
        self.plan_owned(draft.clone()).await
    }

    /// The same for a draft that is needed no more: its steps become the plan's without being copied.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    pub async fn plan_owned(&self, draft: Draft) -> Result<Plan, PlanError> {
        let masker = Masker::new(self.secrets.values());
        self.refuse_secrets(&masker, None, &(&draft.name, &draft.app, &draft.inputs))?;
        for node in &draft.nodes {
            self.refuse_secrets(&masker, Some(&node.id), node)?;
        }
        if draft.name.contains(char::is_control) {
            return Err(PlanError::Name(draft.name));
        }
        let Draft { name, app, inputs, nodes } = draft;
        let order = ordered(&nodes)?;
        let is_function = |node: &&Node| node.kind.name().starts_with(Function::<(), ()>::PREFIX);
        let build = match order.iter().map(|place| &nodes[*place]).find(is_function) {
            Some(node) => Some(self.registry.build().ok_or_else(|| PlanError::Build(node.id.clone()))?),
            None => None,
        };
        let mut planned = Ordered::with_capacity(nodes.len());
        let mut denied = Vec::new();
        let mut nodes: Vec<_> = nodes.into_iter().map(Some).collect();
        for node in order.into_iter().filter_map(|place| nodes[place].take()) {
            let step = self
                .registry
                .resolve(&node.kind, &node.params)
                .map_err(|source| PlanError::Resolve { step: node.id.clone(), source })?;
            if node.each.is_none() && node.inputs.each().any(|input| matches!(input, super::Input::Item(_))) {
                return Err(PlanError::Item(node.id.clone()));
            }
            for name in node.policy.locks.iter().chain(node.policy.semaphores.keys()) {
                // As a lease it has a place before it and may have a number after it.
                let longest = flowline_core::id::Key::new(format!("lease/lock/{name}/{}", u32::MAX));
                longest.map_err(|source| PlanError::Lock { step: node.id.clone(), source })?;
            }
            let too_many = |(_, permits): &(&String, &NonZeroU32)| permits.get() > Policy::MAX_PERMITS;
            if let Some((name, permits)) = node.policy.semaphores.iter().find(too_many) {
                let (step, name, permits) = (node.id.clone(), name.clone(), permits.get());
                return Err(PlanError::Permits { step, name, permits });
            }
            if node.cache.is_some() && step.effect() != super::Effect::Pure {
                return Err(PlanError::Cache(node.id.clone()));
            }
            let mut granted = Vec::new();
            let touches = step.touches();
            self.refuse_secrets(&masker, Some(&node.id), &touches)?;
            let before = denied.len();
            for resource in &touches {
                match self.authority.grant(resource) {
                    Ok(handle) => granted.push(handle),
                    Err(refusal) => denied.push(Denial {
                        step: node.id.clone(),
                        resource: resource.clone(),
                        rule: "grant".to_owned(),
                        reason: refusal.to_string(),
                    }),
                }
            }
            let allowed = (denied.len() == before).then_some(granted);
            planned.add(self.preview(node, step, touches, allowed, &masker).boxed()).await?;
        }
        let planned = planned.finish().await?;
        let mut data = PlanData {
            name,
            app,
            author: self.author.clone(),
            build,
            inputs: inputs.into_iter().map(|(name, value)| (name, super::sorted(value))).collect(),
            grants: self.authority.patterns().to_vec(),
            fingerprints: BTreeMap::new(),
            denied,
            nodes: Vec::new(),
        };
        for node in &planned {
            for observed in node.preview.iter().flat_map(|preview| &preview.resources) {
                // Of several steps on one resource, the first in order finds what was there before the run.
                data.fingerprints.entry(observed.resource.clone()).or_insert(observed.fingerprint);
            }
        }
        data.nodes = planned;
        Ok(Plan { data })
    }

    /// A plan is printed, kept and approved; who made it may see a secret, but not everybody who sees the plan.
    fn refuse_secrets(
        &self,
        masker: &Masker,
        step: Option<&StepId>,
        part: &impl Serialize,
    ) -> Result<(), PlanError> {
        // What can't be written can't be sealed or kept either.
        let Some(value) = (!masker.is_empty()).then(|| serde_json::to_value(part).ok()).flatten() else {
            return Ok(());
        };
        match secret_in(&self.secrets, masker, &value) {
            Some(secret) => {
                let step = step.filter(|step| !masker.finds_in(step.as_str().as_bytes())).cloned();
                Err(PlanError::Secret { step, secret })
            }
            None => Ok(()),
        }
    }

    async fn preview(
        &self,
        mut node: Node,
        step: Arc<dyn BoundStep>,
        touches: Vec<ResourceId>,
        allowed: Option<Vec<Granted<ResourceId>>>,
        masker: &Masker,
    ) -> Result<PlannedNode, PlanError> {
        let preview = match allowed {
            None => None,
            Some(granted) => {
                let context = PreviewContext {
                    step: node.id.clone(),
                    granted,
                    clock: Arc::clone(&self.clock),
                    secrets: Arc::clone(&self.secrets),
                };
                let preview = step.preview(&context).await.map_err(|source| PlanError::Preview {
                    step: node.id.clone(),
                    source: source.masked(masker),
                })?;
                self.refuse_secrets(masker, Some(&node.id), &preview)?;
                let seen =
                    |resource: &&ResourceId| preview.resources.iter().any(|seen| seen.resource == **resource);
                if let Some(resource) = touches.iter().find(|resource| !seen(resource)) {
                    return Err(PlanError::Unseen { step: node.id.clone(), resource: resource.clone() });
                }
                Some(preview)
            }
        };
        node.params = super::sorted(node.params);
        Ok(PlannedNode { effect: step.effect(), undo: step.undoing(), touches, preview, node })
    }
}

/// Looking at the world waits for it, so several steps look at once; the order of answers is that of asking.
///
/// Most looks are done at once, so each is polled before it is put aside.
struct Ordered<'a> {
    done: Vec<Option<PlannedNode>>,
    pending: FuturesUnordered<BoxFuture<'a, (usize, Result<PlannedNode, PlanError>)>>,
}

impl<'a> Ordered<'a> {
    const AT_ONCE: usize = 16;

    fn with_capacity(count: usize) -> Self {
        Self { done: Vec::with_capacity(count), pending: FuturesUnordered::new() }
    }

    /// Takes one more; waits while too many are on their way.
    async fn add(
        &mut self,
        mut look: BoxFuture<'a, Result<PlannedNode, PlanError>>,
    ) -> Result<(), PlanError> {
        if let Some(node) = look.as_mut().now_or_never() {
            self.done.push(Some(node?));
            return Ok(());
        }
        let place = self.done.len();
        self.done.push(None);
        self.pending.push(look.map(move |node| (place, node)).boxed());
        while self.pending.len() >= Self::AT_ONCE {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(), PlanError> {
        if let Some((place, node)) = self.pending.next().await {
            self.done[place] = Some(node?);
        }
        Ok(())
    }

    async fn finish(mut self) -> Result<Vec<PlannedNode>, PlanError> {
        while !self.pending.is_empty() {
            self.next().await?;
        }
        // Every place is filled by now; collected like this, the nodes stay where they are.
        Ok(self.done.into_iter().collect::<Option<Vec<_>>>().unwrap_or_default())
    }
}

/// The places of the nodes in an order in which they can run.
fn ordered(nodes: &[Node]) -> Result<Vec<usize>, PlanError> {
    let mut by_id = IndexMap::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        if by_id.insert(&node.id, index).is_some() {
            return Err(PlanError::Twice(node.id.clone()));
        }
    }
    let mut edges = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        for id in node.predecessors() {
            let Some(before) = by_id.get(id) else {
                return Err(PlanError::Missing { step: node.id.clone(), missing: id.clone() });
            };
            edges.push((*before, index));
        }
    }
    // Keyed by their places, so that the order is the written one wherever it can be.
    let places = (0..nodes.len()).map(|place| (place, ()));
    match Graph::builder().nodes(places).edges(edges).finish() {
        Ok(graph) => Ok(graph.order().copied().collect()),
        Err(GraphError::Cycle { mut cycle }) => {
            // The graph says which comes before which; people ask which waits for which.
            if let Some(rest) = cycle.get_mut(1..) {
                rest.reverse();
            }
            Err(PlanError::Cycle(cycle.into_iter().map(|place| nodes[place].id.clone()).collect()))
        }
        // Every place is a node, once.
        Err(_) => Err(PlanError::Cycle(Vec::new())),
    }
}
