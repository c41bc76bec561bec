//! How a plan is written in Rust: a [`Pipeline`] whose steps give typed [`Output`]s that later steps take, so data flow is the graph.

use std::{collections::BTreeMap, marker::PhantomData};

use flowline_core::{
    error::{BoxError, ErrorKind, Kinded},
    name::AppName,
};
use indexmap::IndexMap;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    plan::{Draft, IdError, Input, Inputs, Node, OutputRef, PlanError, Policy, StepId, StepKind},
    step::{Function, Spec},
};

/// What a step will give once it ran: a handle that later steps take as input.
#[derive(Debug)]
pub struct Output<T> {
    from: OutputRef,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Output<T> {
    fn clone(&self) -> Self {
        Self { from: self.from.clone(), kind: PhantomData }
    }
}

impl<T> Output<T> {
    /// The step that gives it.
    pub fn step(&self) -> &StepId {
        &self.from.step
    }

    /// Which part of the step's output it is: a JSON pointer, empty for all.
    pub fn pointer(&self) -> &str {
        &self.from.at
    }

    /// A part of it, by JSON pointer (RFC 6901): `/digest`. That the part is a `U` is checked when it is read.
    #[must_use]
    pub fn part<U>(&self, pointer: &str) -> Output<U> {
        let from = OutputRef { step: self.from.step.clone(), at: format!("{}{pointer}", self.from.at) };
        Output { from, kind: PhantomData }
    }
}

/// A value known while the pipeline is written, where an output could stand.
#[derive(Debug, Clone)]
pub struct Constant<T>(pub T);

/// One value that a step can be given: an [`Output`], or a [`Constant`].
pub trait Feed<T> {
    /// Where the value comes from.
    ///
    /// # Errors
    /// If it is a constant that JSON can't express.
    fn feed(self) -> Result<Input, BoxError>;
}

impl<T> Feed<T> for Output<T> {
    fn feed(self) -> Result<Input, BoxError> {
        Ok(Input::Output(self.from))
    }
}

impl<T: Serialize> Feed<T> for Constant<T> {
    fn feed(self) -> Result<Input, BoxError> {
        Ok(Input::Value(crate::plan::sorted(serde_json::to_value(self.0)?)))
    }
}

impl<T> Feed<T> for &Output<T> {
    fn feed(self) -> Result<Input, BoxError> {
        self.clone().feed()
    }
}

/// What fits a step's whole input: nothing for `()`, one [`Constant`] or output for a single value, a tuple of feeds for a tuple, a list of
/// outputs for a `Vec`, an output alone for its own type, or [`Named`] for a struct.
pub trait Wire<I> {
    /// Where the input comes from.
    ///
    /// # Errors
    /// If it holds a constant that JSON can't express.
    fn wire(self) -> Result<Inputs, BoxError>;
}

impl Wire<()> for () {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::None)
    }
}

impl<T> Wire<T> for Output<T> {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::One(self.feed()?))
    }
}

impl<T> Wire<T> for &Output<T> {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::One(self.feed()?))
    }
}

impl<T: Serialize> Wire<T> for Constant<T> {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::One(self.feed()?))
    }
}

impl<T> Wire<Vec<T>> for &[Output<T>] {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::List(self.iter().map(Feed::feed).collect::<Result<_, _>>()?))
    }
}

impl<T> Wire<Vec<T>> for Vec<Output<T>> {
    fn wire(self) -> Result<Inputs, BoxError> {
        self.as_slice().wire()
    }
}

macro_rules! wire_tuple {
    ($($feed:ident $value:ident $index:tt),+) => {
        impl<$($feed: Feed<$value>, $value),+> Wire<($($value,)+)> for ($($feed,)+) {
            fn wire(self) -> Result<Inputs, BoxError> {
                Ok(Inputs::List(vec![$(self.$index.feed()?),+]))
            }
        }
    };
}
wire_tuple!(F0 T0 0, F1 T1 1);
wire_tuple!(F0 T0 0, F1 T1 1, F2 T2 2);
wire_tuple!(F0 T0 0, F1 T1 1, F2 T2 2, F3 T3 3);

/// Feeds for the fields of a struct, by name. That names and types fit is checked when the step reads its input.
#[derive(Debug, Default)]
pub struct Named {
    inputs: BTreeMap<String, Input>,
    error: Option<BoxError>,
}

impl Named {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with `feed` for the field `name`.
    #[must_use]
    pub fn field<T>(mut self, name: &str, feed: impl Feed<T>) -> Self {
        match feed.feed() {
            Ok(input) => drop(self.inputs.insert(name.to_owned(), input)),
            Err(error) => self.error = self.error.or(Some(error)),
        }
        self
    }
}

impl<I> Wire<I> for Named {
    fn wire(self) -> Result<Inputs, BoxError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(Inputs::Named(self.inputs)),
        }
    }
}

/// A pipeline was written wrongly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// A step's id or kind is no such.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A step's parameters or a constant can't be written as JSON.
    #[error("step `{step}` has parameters that JSON cannot express: {source}")]
    Json {
        /// The step, as written.
        step: String,
        /// What is wrong.
        source: BoxError,
    },
    /// Two steps have one id.
    #[error("step `{0}` is there twice; give one of them another id")]
    Twice(String),
}

impl Kinded for PipelineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// Writes a [`Draft`].
///
/// Mistakes (an id that is none, one that is there twice) are kept and said by [`draft`](Self::draft), so that the writing reads without
/// interruption.
///
/// ```
/// use flowline_pipeline::{Pipeline, step::Function};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let version = Function::<(), String>::new("version", 1)?;
/// let publish = Function::<String, ()>::new("publish", 1)?;
/// let mut pipeline = Pipeline::new("release", "storefront".parse()?);
/// let number = pipeline.call("version", &version, ());
/// let published = pipeline.call("publish", &publish, &number);
/// let draft = pipeline.draft()?;
/// assert_eq!(draft.nodes[1].predecessors().next(), Some(number.step()));
/// # let _ = published;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    app: AppName,
    inputs: BTreeMap<String, Value>,
    nodes: IndexMap<StepId, Node>,
    within: Vec<String>,
    error: Option<PipelineError>,
}

impl Pipeline {
    /// An empty pipeline that delivers `app`.
    pub fn new(name: impl Into<String>, app: AppName) -> Self {
        Self {
            name: name.into(),
            app,
            inputs: BTreeMap::new(),
            nodes: IndexMap::new(),
            within: Vec::new(),
            error: None,
        }
    }

    /// Notes a value that the pipeline was made with: shown in the plan, part of its seal.
    pub fn input(&mut self, name: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// Adds a step that takes nothing from others.
    pub fn step<S: Spec>(&mut self, id: &str, spec: S) -> Output<S::Output>
    where
        (): Wire<S::Input>,
    {
        self.feed(id, spec, ())
    }

    /// Adds a step that takes outputs of others.
    pub fn feed<S: Spec>(&mut self, id: &str, spec: S, input: impl Wire<S::Input>) -> Output<S::Output> {
        let params = serde_json::to_value(spec);
        let kind = StepKind::new(S::KIND, S::VERSION);
        self.node(id, kind, params.map_err(Into::into), input.wire())
    }

    /// Adds a call of a function.
    pub fn call<I, O>(&mut self, id: &str, function: &Function<I, O>, input: impl Wire<I>) -> Output<O>
    where
        O: DeserializeOwned,
    {
        self.node(id, Ok(function.kind().clone()), Ok(Value::Null), input.wire())
    }

    /// Adds the steps that `write` adds, their ids preceded by `name/`: a pipeline within the pipeline. What it returns, usually
    /// outputs, is the way to connect it.
    pub fn sub<R>(&mut self, name: &str, write: impl FnOnce(&mut Self) -> R) -> R {
        self.within.push(name.to_owned());
        let result = write(self);
        self.within.pop();
        result
    }

    /// Has `later` wait for `earlier` without taking its output.
    pub fn after<A, B>(&mut self, later: &Output<A>, earlier: &Output<B>) -> &mut Self {
        if let Some(node) = self.nodes.get_mut(later.step()) {
            node.after.insert(earlier.step().clone());
        }
        self
    }

    /// Gives a step time and tries.
    pub fn policy<T>(&mut self, step: &Output<T>, policy: Policy) -> &mut Self {
        if let Some(node) = self.nodes.get_mut(step.step()) {
            node.policy = policy;
        }
        self
    }

    /// The pipeline as data.
    ///
    /// # Errors
    /// The first mistake that was made in writing it.
    pub fn draft(self) -> Result<Draft, PlanError> {
        if let Some(error) = self.error {
            return Err(error.into());
        }
        let nodes = self.nodes.into_values().collect();
        Ok(Draft { name: self.name, app: self.app, inputs: self.inputs, nodes })
    }

    fn node<T>(
        &mut self,
        id: &str,
        kind: Result<StepKind, IdError>,
        params: Result<Value, BoxError>,
        inputs: Result<Inputs, BoxError>,
    ) -> Output<T> {
        let id = self.within.iter().map(String::as_str).chain([id]).collect::<Vec<_>>().join("/");
        match Self::checked(&id, kind, params, inputs) {
            Ok(node) => {
                let from = OutputRef { step: node.id.clone(), at: String::new() };
                if self.nodes.insert(node.id.clone(), node).is_some() {
                    self.error.get_or_insert(PipelineError::Twice(id));
                }
                Output { from, kind: PhantomData }
            }
            Err(error) => {
                self.error.get_or_insert(error);
                Output { from: OutputRef { step: StepId::unknown(), at: String::new() }, kind: PhantomData }
            }
        }
    }

    fn checked(
        id: &str,
        kind: Result<StepKind, IdError>,
        params: Result<Value, BoxError>,
        inputs: Result<Inputs, BoxError>,
    ) -> Result<Node, PipelineError> {
        let json = |source| PipelineError::Json { step: id.to_owned(), source };
        let mut node = Node::new(StepId::new(id)?, kind?);
        node.params = crate::plan::sorted(params.map_err(json)?);
        node.inputs = inputs.map_err(json)?;
        Ok(node)
    }
}
