//! What one step of a plan is, as data: a [`Node`] as it was written, and what planning learnt about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    path::PathBuf,
};

use flowline_core::{
    digest::{Digest, Digester},
    id::ResourceId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{StepId, StepKind};

/// One step as it was written: which code, with which parameters, fed by which outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name within the plan.
    pub id: StepId,
    /// The code that runs it.
    pub kind: StepKind,
    /// Its parameters, with object keys in order.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Where its input comes from.
    #[serde(default, skip_serializing_if = "Inputs::is_none")]
    pub inputs: Inputs,
    /// Steps that must be done before, besides those whose outputs it takes.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<StepId>,
    /// Outputs that must all be `true`, or the step is skipped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<OutputRef>,
    /// It is a template: the run makes an instance of it for each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<Each>,
    /// For [`Effect::Pure`]: everything else that its output depends on. With it, the output may come from the cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Declared>,
    /// What kinds of trouble it is given time and tries for.
    #[serde(default, skip_serializing_if = "Policy::is_default")]
    pub policy: Policy,
}

impl Node {
    /// A step without parameters, inputs and predecessors.
    pub fn new(id: StepId, kind: StepKind) -> Self {
        Self {
            id,
            kind,
            params: Value::Null,
            inputs: Inputs::None,
            after: BTreeSet::new(),
            when: Vec::new(),
            each: None,
            cache: None,
            policy: Policy::default(),
        }
    }

    /// Every step that it waits for: those whose outputs it takes, that say whether or for what it runs, then those it only comes after;
    /// one may come twice.
    pub fn predecessors(&self) -> impl Iterator<Item = &StepId> {
        self.feeds().chain(&self.after)
    }

    /// Every step whose output matters to it.
    pub fn feeds(&self) -> impl Iterator<Item = &StepId> {
        let deciding = self.when.iter().chain(self.each.as_ref().map(|each| &each.over));
        self.inputs.steps().chain(deciding.map(|output| &output.step))
    }

    /// Whether it has no condition.
    pub(crate) fn is_plain(&self) -> bool {
        self.when.is_empty()
    }
}

/// A step that is repeated for each item of an output that is known only during the run.
///
/// The plan seals the template: code, parameters, what it touches and how many instances there may be. An instance's id is the template's,
/// `/` and the item's key. The template's own output is an object of the instances' outputs by key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Each {
    /// The items: an object, each entry an item with its key, or a list of texts, each its own key.
    pub over: OutputRef,
    /// So many items at most; a run with more stops with an error.
    pub max: u32,
}

/// What a pure step reads besides its parameters and input. All of it, together with the step's code, is what its output is kept under.
///
/// ```
/// use flowline_pipeline::plan::Declared;
/// let declared = Declared::new().file("/src/main.rs").tool("rustc", "1.95.0");
/// # let _ = declared;
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// Files, by their content when the step would run.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub files: BTreeSet<PathBuf>,
    /// Tools, by their version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tools: BTreeMap<String, String>,
}

impl Declared {
    /// It reads nothing but its parameters and input.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, reading the file at `path` too.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.insert(path.into());
        self
    }

    /// The same, using `tool` in this version.
    #[must_use]
    pub fn tool(mut self, tool: impl Into<String>, version: impl Into<String>) -> Self {
        self.tools.insert(tool.into(), version.into());
        self
    }
}

/// Where a step's input comes from, and which shape it has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// There is none: `null`.
    #[default]
    None,
    /// One value.
    One(Input),
    /// A JSON array of values.
    List(Vec<Input>),
    /// A JSON object of values.
    Named(BTreeMap<String, Input>),
}

/// One value that a step is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// The output of another step, or a part of it.
    Output(OutputRef),
    /// What this instance of a template is for, or the part of it at this JSON pointer.
    Item(String),
    /// A value known when the plan was made.
    Value(Value),
}

/// Refers to the output of a step, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputRef {
    /// The step.
    pub step: StepId,
    /// Which part of its output: a JSON pointer (RFC 6901), empty for all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
}

impl Inputs {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Every value, in order.
    pub fn each(&self) -> impl Iterator<Item = &Input> {
        let (one, list, named) = match self {
            Self::None => (None, None, None),
            Self::One(input) => (Some(input), None, None),
            Self::List(list) => (None, Some(list), None),
            Self::Named(named) => (None, None, Some(named)),
        };
        one.into_iter().chain(list.into_iter().flatten()).chain(named.into_iter().flat_map(BTreeMap::values))
    }

    /// The steps whose outputs are taken.
    pub fn steps(&self) -> impl Iterator<Item = &StepId> {
        self.each().filter_map(|input| match input {
            Input::Output(output) => Some(&output.step),
            Input::Item(_) | Input::Value(_) => None,
        })
    }

    /// The input as one JSON value, with `value` answering for each part.
    ///
    /// # Errors
    /// The first error that `value` answers.
    pub fn assemble<E>(&self, mut one: impl FnMut(&Input) -> Result<Value, E>) -> Result<Value, E> {
        Ok(match self {
            Self::None => Value::Null,
            Self::One(input) => one(input)?,
            Self::List(list) => Value::Array(list.iter().map(one).collect::<Result<_, _>>()?),
            Self::Named(named) => Value::Object(
                named
                    .iter()
                    .map(|(name, input)| Ok((name.clone(), one(input)?)))
                    .collect::<Result<_, E>>()?,
            ),
        })
    }
}

/// What running a step does to the world, which decides what happens with it after a crash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// None: it computes its output from its input. It is repeated.
    Pure,
    /// Doing it twice under one key is doing it once. It is repeated, with the same key.
    Idempotent {
        /// What the other side recognises the repetition by; [`Context::key`](crate::step::Context::key) gives it, made unique for the run.
        /// Empty: the step's own id.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        key: String,
    },
    /// The world can be asked whether it happened. It is asked, then repeated or taken as done.
    Probed,
    /// It must not happen twice and the world cannot be asked. The run stops for a person.
    Once,
}

impl Effect {
    /// Idempotent under the step's own id.
    pub fn idempotent() -> Self {
        Self::Idempotent { key: String::new() }
    }

    /// Whether its start must survive the loss of power before it may begin.
    pub(crate) fn is_delicate(&self) -> bool {
        matches!(self, Self::Probed | Self::Once)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Idempotent { .. } => "idempotent",
            Self::Probed => "probed",
            Self::Once => "once",
        }
    }
}

/// What becomes of a step's effect when the run is undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Undo {
    /// There is nothing to undo.
    None,
    /// Its `undo` takes the effect back.
    Compensate,
    /// It can't be taken back. The plan says so beforehand.
    Irreversible,
}

/// What kind of change a step makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It finds everything as it should be.
    Keep,
    /// It does its work; there is nothing to compare.
    Run,
    /// Something comes to be.
    Create,
    /// Something is changed where it stands.
    Update,
    /// Something is removed and made anew.
    Replace,
    /// Something is removed.
    Delete,
}

impl Action {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Keep => "=",
            Self::Run => ">",
            Self::Create => "+",
            Self::Update => "~",
            Self::Replace => "±",
            Self::Delete => "-",
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Run => "run",
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }
}

/// What a step would do, seen without doing it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preview {
    /// The kind of change as a whole.
    pub action: Action,
    /// One line for people.
    pub summary: String,
    /// Each resource that it touches, as it was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Observed>,
    /// The output that it would give, if that is known already. A step that keeps everything as it is and whose output is known is not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Value>,
}

/// A touched resource as it was found when the plan was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// The resource.
    pub resource: ResourceId,
    /// What the step does to it.
    pub action: Action,
    /// The state in which it was found. A plan is refused once this has moved.
    pub fingerprint: Fingerprint,
    /// What changes about it, one line each: `version: 1.0.0 -> 1.1.0`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

impl Preview {
    /// A preview of a step that does its work and has nothing to compare.
    pub fn run(summary: impl Into<String>) -> Self {
        Self { action: Action::Run, summary: summary.into(), resources: Vec::new(), known: None }
    }

    /// A preview of a step that acts on resources; its action is the strongest of theirs.
    pub fn of(summary: impl Into<String>, resources: Vec<Observed>) -> Self {
        let action = resources.iter().map(|observed| observed.action).max().unwrap_or(Action::Run);
        Self { action, summary: summary.into(), resources, known: None }
    }

    /// The same, knowing already what the step would give: if it keeps everything as it is, it need not run.
    #[must_use]
    pub fn knowing(mut self, output: Value) -> Self {
        self.known = Some(output);
        self
    }
}

/// The state of a resource at one moment, as a digest of whatever matters about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Digest);

impl Fingerprint {
    /// The fingerprint of `state`, whatever order its JSON objects have.
    ///
    /// # Errors
    /// If JSON cannot express `state`, such as a map with keys that are no text.
    pub fn of(state: &impl Serialize) -> Result<Self, serde_json::Error> {
        let value = super::canonical::sorted(serde_json::to_value(state)?);
        let mut digester = Digester::new("flowline fingerprint 1");
        digester.part(serde_json::to_vec(&value)?);
        Ok(Self(digester.finish()))
    }

    /// The fingerprint of something that is not there.
    pub fn absent() -> Self {
        Self(Digester::new("flowline fingerprint absent").finish())
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Self::absent() { f.pad("absent") } else { f.pad(&self.0.short()) }
    }
}

/// How long a step may take and how often it is tried.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Policy {
    /// When a failed attempt is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<super::policy::Retry>,
    /// How long it may take.
    #[serde(skip_serializing_if = "super::policy::Limits::is_none")]
    pub limits: super::policy::Limits,
    /// Named locks that are held while it runs and while it is undone, over all runs on the same store. Taken together or not at all.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub locks: BTreeSet<String>,
    /// Named semaphores of which it holds one permit meanwhile, with how many permits there are: the same
    /// number wherever one is named, and [`MAX_PERMITS`](Self::MAX_PERMITS) at most.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub semaphores: BTreeMap<String, NonZeroU32>,
    /// Of several ready steps, the higher number starts first.
    #[serde(skip_serializing_if = "is_zero")]
    pub priority: i32,
}

impl Policy {
    /// A semaphore has so many permits at most: whoever waits for one looks at them all.
    pub const MAX_PERMITS: u32 = 1_000;

    /// Whether it asks for nothing.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether something must be held while the step runs.
    pub(crate) fn needs_locks(&self) -> bool {
        !self.locks.is_empty() || !self.semaphores.is_empty()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// A node of a plan: what was written, and what planning learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedNode {
    /// What was written.
    pub node: Node,
    /// What running it does to the world.
    pub effect: Effect,
    /// Whether it can be taken back.
    pub undo: Undo,
    /// Every resource that it may touch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<ResourceId>,
    /// What it would do. Absent if it is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}

/// A step that may not do what it asks for. Part of the plan, before any effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// The step.
    pub step: StepId,
    /// The resource that it asked for.
    pub resource: ResourceId,
    /// The rule that says no: `grant`.
    pub rule: String,
    /// Why, and whom to ask.
    pub reason: String,
}
