//! Which kinds of steps there are: a [`Registry`] finds a node's code by `kind@version` and reads its parameters.

use std::{
    collections::BTreeMap,
    fmt::{self, Debug},
    sync::Arc,
};

use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
    id::ResourceId,
};
use futures_util::future::{BoxFuture, FutureExt};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    Context, Effect, FnStep, Function, Happened, Preview, PreviewContext, Spec, Step, StepError, Undo,
};
use crate::plan::{IdError, StepKind};

/// A step together with its parameters, with JSON going in and out: what the engine walks. Made by [`Registry::resolve`].
pub trait BoundStep: Debug + Send + Sync {
    /// As [`Step::effect`].
    fn effect(&self) -> Effect;
    /// As [`Step::undoing`].
    fn undoing(&self) -> Undo;
    /// As [`Step::touches`].
    fn touches(&self) -> Vec<ResourceId>;
    /// As [`Step::preview`].
    fn preview<'a>(&'a self, context: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, StepError>>;
    /// As [`Step::run`].
    fn run<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Result<Value, StepError>>;
    /// As [`Step::probe`].
    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>>;
    /// As [`Step::undo`].
    fn undo<'a>(
        &'a self,
        output: Option<Value>,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<(), StepError>>;
}

/// Why a node's code can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No such kind is registered.
    #[error("there is no step of kind `{kind}`{}; register it before planning", did_you_mean(.nearest.as_ref()))]
    Unknown {
        /// The kind.
        kind: StepKind,
        /// The registered kind that is written most alike.
        nearest: Option<StepKind>,
    },
    /// The parameters have another shape.
    #[error("the parameters of a `{kind}` step cannot be read: {source}")]
    Params {
        /// The kind.
        kind: StepKind,
        /// What does not fit.
        source: BoxError,
    },
}

impl Kinded for ResolveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::NotFound,
            Self::Params { .. } => ErrorKind::Invalid,
        }
    }
}

type Factory = Arc<dyn Fn(&Value) -> Result<Arc<dyn BoundStep>, BoxError> + Send + Sync>;
type Wrap = Arc<dyn Fn(Arc<dyn BoundStep>) -> Arc<dyn BoundStep> + Send + Sync>;

/// The kinds of steps that a deployer knows.
///
/// ```
/// use flowline_pipeline::step::{FnStep, Function, Registry};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let greet = Function::<String, String>::new("greet", 1)?;
/// let mut registry = Registry::new();
/// registry.function(&greet, FnStep::pure(|name: String, _| async move { Ok(format!("hello {name}")) }));
/// assert_eq!(registry.kinds().map(ToString::to_string).collect::<Vec<_>>(), ["fn/greet@1"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<StepKind, Factory>,
    build: Option<Digest>,
    wrap: Option<Wrap>,
}

impl Registry {
    /// Knows no kind.
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows `step` for every node of its kind; replaces what was there for it.
    ///
    /// # Errors
    /// If [`Spec::KIND`] is not a kind's name.
    pub fn add<S: Step>(&mut self, step: S) -> Result<&mut Self, IdError> {
        let kind = StepKind::new(S::Spec::KIND, S::Spec::VERSION)?;
        let step = Arc::new(step);
        let factory: Factory = Arc::new(move |params| {
            let spec = S::Spec::deserialize(params)?;
            Ok(Arc::new(Bound { step: Arc::clone(&step), spec }))
        });
        self.factories.insert(kind, factory);
        Ok(self)
    }

    /// Knows the closure for every node that calls `function`; replaces what was there for it.
    pub fn function<I, O>(&mut self, function: &Function<I, O>, step: FnStep<I, O>) -> &mut Self
    where
        I: DeserializeOwned + Send + 'static,
        O: Serialize + DeserializeOwned + Send + 'static,
    {
        let step: Arc<dyn BoundStep> = Arc::new(step);
        self.factories.insert(function.kind().clone(), Arc::new(move |_| Ok(Arc::clone(&step))));
        self
    }

    /// Says which build of the deployer this is, such as the digest of its executable: plans that use closures seal it.
    pub fn built_as(&mut self, build: Digest) -> &mut Self {
        self.build = Some(build);
        self
    }

    /// Which build of the deployer this is, if somebody said.
    pub fn build(&self) -> Option<Digest> {
        self.build
    }

    /// Every kind, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &StepKind> {
        self.factories.keys()
    }

    /// The code of `kind` with its parameters.
    ///
    /// # Errors
    /// If there is no such kind, or the parameters have another shape.
    pub fn resolve(&self, kind: &StepKind, params: &Value) -> Result<Arc<dyn BoundStep>, ResolveError> {
        let Some(factory) = self.factories.get(kind) else {
            let alike = |other: &&StepKind| {
                let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
                let alike = common(kind.name(), other.name());
                if alike < 2 { 0 } else { alike }
            };
            let nearest = self.kinds().max_by_key(alike).filter(|nearest| alike(nearest) > 0).cloned();
            return Err(ResolveError::Unknown { kind: kind.clone(), nearest });
        };
        let step = factory(params).map_err(|source| ResolveError::Params { kind: kind.clone(), source })?;
        Ok(match &self.wrap {
            Some(wrap) => wrap(step),
            None => step,
        })
    }

    /// The same kinds, each step wrapped by `wrap`: for counting, delaying or failing them in tests.
    #[must_use]
    pub fn wrapped(
        &self,
        wrap: impl Fn(Arc<dyn BoundStep>) -> Arc<dyn BoundStep> + Send + Sync + 'static,
    ) -> Self {
        Self { factories: self.factories.clone(), build: self.build, wrap: Some(Arc::new(wrap)) }
    }
}

impl Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.kinds()).finish()
    }
}

#[derive(Debug)]
struct Bound<S: Step> {
    step: Arc<S>,
    spec: S::Spec,
}

impl<S: Step> BoundStep for Bound<S> {
    fn effect(&self) -> Effect {
        self.step.effect(&self.spec)
    }

    fn undoing(&self) -> Undo {
        self.step.undoing(&self.spec)
    }

    fn touches(&self) -> Vec<ResourceId> {
        self.step.touches(&self.spec)
    }

    fn preview<'a>(&'a self, context: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, StepError>> {
        self.step.preview(&self.spec, context)
    }

    fn run<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Result<Value, StepError>> {
        async move { write(&self.step.run(&self.spec, read("input", input)?, context).await?) }.boxed()
    }

    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>> {
        async move {
            Ok(match self.step.probe(&self.spec, read("input", input)?, context).await? {
                Happened::Yes(output) => Happened::Yes(write(&output)?),
                Happened::No => Happened::No,
                Happened::Unknown(reason) => Happened::Unknown(reason),
            })
        }
        .boxed()
    }

    fn undo<'a>(
        &'a self,
        output: Option<Value>,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let output = output.map(|output| read("recorded output", output)).transpose()?;
            self.step.undo(&self.spec, output, context).await
        }
        .boxed()
    }
}

pub(super) fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, StepError> {
    T::deserialize(value).map_err(|error| {
        StepError::new(ErrorKind::Invalid, format!("the step's {what} has another shape: {error}"))
    })
}

pub(super) fn write<T: Serialize>(output: &T) -> Result<Value, StepError> {
    serde_json::to_value(output).map_err(|error| {
        StepError::new(ErrorKind::Invalid, format!("the step's output cannot be written as JSON: {error}"))
    })
}

fn did_you_mean(kind: Option<&StepKind>) -> String {
    kind.map_or_else(String::new, |kind| format!(" (did you mean `{kind}`?)"))
}
