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
    plan::{
        Declared, Draft, Each, IdError, Input, Inputs, Node, OutputRef, PlanError, Policy, StepId, StepKind,
    },
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

/// What an instance of a template is for: stands for the item in the template's input ([`Pipeline::each`]).
#[derive(Debug)]
pub struct Item<T> {
    at: String,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Item<T> {
    fn clone(&self) -> Self {
        Self { at: self.at.clone(), kind: PhantomData }
    }
}

impl<T> Item<T> {
    fn whole() -> Self {
        Self { at: String::new(), kind: PhantomData }
    }

    /// A part of it, by JSON pointer. That the part is a `U` is checked when it is read.
    #[must_use]
    pub fn part<U>(&self, pointer: &str) -> Item<U> {
        Item { at: format!("{}{pointer}", self.at), kind: PhantomData }
    }
}

impl<T> Feed<T> for Item<T> {
    fn feed(self) -> Result<Input, BoxError> {
        Ok(Input::Item(self.at))
    }
}

impl<T> Wire<T> for Item<T> {
    fn wire(self) -> Result<Inputs, BoxError> {
        Ok(Inputs::One(self.feed()?))
    }
}

/// What a step can be repeated for: a map of items by key, or a list of texts, each its own key.
pub trait Items {
    /// One item.
    type Item;
}

impl<T> Items for BTreeMap<String, T> {
    type Item = T;
}

impl Items for Vec<String> {
    type Item = String;
}

/// Outputs of steps that may not run: each becomes the output of something that may be missing.
pub trait Conditional {
    /// The same, with every `Output<T>` an `Output<Option<T>>`.
    type Maybe;

    /// Says so.
    fn maybe(self) -> Self::Maybe;
}

impl Conditional for () {
    type Maybe = ();

    fn maybe(self) {}
}

impl<T> Conditional for Output<T> {
    type Maybe = Output<Option<T>>;

    fn maybe(self) -> Self::Maybe {
        Output { from: self.from, kind: PhantomData }
    }
}

macro_rules! conditional_tuple {
    ($($part:ident $index:tt),+) => {
        impl<$($part: Conditional),+> Conditional for ($($part,)+) {
            type Maybe = ($($part::Maybe,)+);

            fn maybe(self) -> Self::Maybe {
                ($(self.$index.maybe(),)+)
            }
        }
    };
}
conditional_tuple!(A 0, B 1);
conditional_tuple!(A 0, B 1, C 2);
conditional_tuple!(A 0, B 1, C 2, D 3);

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

/// What was wired already.
struct AsWired<I>(Result<Inputs, BoxError>, PhantomData<I>);

impl<I> Wire<I> for AsWired<I> {
    fn wire(self) -> Result<Inputs, BoxError> {
        self.0
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
    conditions: Vec<OutputRef>,
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
            conditions: Vec::new(),
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

    /// Adds the steps that `write` adds, each to run only if `condition` turns out `true`. If not, they are skipped and give `null`, which is
    /// why what `write` returns comes back as what may be missing.
    ///
    /// ```
    /// use flowline_pipeline::{Output, Pipeline, step::Function};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (needed, migrate) = (Function::<(), bool>::new("needed", 1)?, Function::<(), String>::new("migrate", 1)?);
    /// let mut pipeline = Pipeline::new("release", "storefront".parse()?);
    /// let needed = pipeline.call("needed", &needed, ());
    /// let migrated: Output<Option<String>> = pipeline.when(&needed, |pipeline| pipeline.call("migrate", &migrate, ()));
    /// assert_eq!(pipeline.draft()?.nodes[1].when[0].step, *needed.step());
    /// # let _ = migrated;
    /// # Ok(()) }
    /// ```
    pub fn when<R: Conditional>(
        &mut self,
        condition: &Output<bool>,
        write: impl FnOnce(&mut Self) -> R,
    ) -> R::Maybe {
        self.conditions.push(condition.from.clone());
        let result = write(self);
        self.conditions.pop();
        result.maybe()
    }

    /// Adds a step that the run repeats for each item of `over`, at most `max` times: a template. `input` wires an instance's input from its
    /// item and from other outputs. Gives the outputs of all instances by their items' keys.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use flowline_pipeline::{Output, Pipeline, step::{Effect, Function}, steps::RunCommand};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (hosts, sync) = (Function::<(), Vec<String>>::new("hosts", 1)?, Function::<String, u64>::new("sync", 1)?);
    /// let mut pipeline = Pipeline::new("release", "storefront".parse()?);
    /// let hosts: Output<Vec<String>> = pipeline.call("hosts", &hosts, ());
    /// let synced: Output<BTreeMap<String, u64>> = pipeline.call_each("sync", &sync, &hosts, 20, |host| host);
    /// assert_eq!(pipeline.draft()?.nodes[1].each.as_ref().map(|each| each.max), Some(20));
    /// # let _ = synced;
    /// # Ok(()) }
    /// ```
    pub fn each<C: Items, S: Spec, W: Wire<S::Input>>(
        &mut self,
        id: &str,
        spec: S,
        over: &Output<C>,
        max: u32,
        input: impl FnOnce(Item<C::Item>) -> W,
    ) -> Output<BTreeMap<String, S::Output>> {
        let output = self.feed(id, spec, AsWired::<S::Input>(input(Item::whole()).wire(), PhantomData));
        self.repeated(output, over, max)
    }

    /// The same with a call of a function.
    pub fn call_each<C: Items, I, O: DeserializeOwned, W: Wire<I>>(
        &mut self,
        id: &str,
        function: &Function<I, O>,
        over: &Output<C>,
        max: u32,
        input: impl FnOnce(Item<C::Item>) -> W,
    ) -> Output<BTreeMap<String, O>> {
        let output = self.call(id, function, AsWired::<I>(input(Item::whole()).wire(), PhantomData));
        self.repeated(output, over, max)
    }

    fn repeated<C, O>(
        &mut self,
        output: Output<O>,
        over: &Output<C>,
        max: u32,
    ) -> Output<BTreeMap<String, O>> {
        if let Some(node) = self.nodes.get_mut(output.step()) {
            node.each = Some(Each { over: over.from.clone(), max });
        }
        Output { from: output.from, kind: PhantomData }
    }

    /// Says everything that a pure step's output depends on besides its parameters and input, so that it may come from the cache.
    pub fn cached<T>(&mut self, step: &Output<T>, declared: Declared) -> &mut Self {
        if let Some(node) = self.nodes.get_mut(step.step()) {
            node.cache = Some(declared);
        }
        self
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
            Ok(mut node) => {
                node.when.clone_from(&self.conditions);
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
