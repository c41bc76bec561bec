//! Plain async closures as steps: a [`Function`] is the name that a plan uses, a [`FnStep`] the code that the registry knows for it.

use std::{
    fmt::{self, Debug},
    marker::PhantomData,
    sync::Arc,
};

use flowline_core::id::ResourceId;
use futures_util::future::{BoxFuture, FutureExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    BoundStep, Context, Effect, Happened, Preview, PreviewContext, StepError, Undo,
    registry::{read, write},
};
use crate::plan::{IdError, StepKind};

/// The name, version and types of a closure. A plan that calls it seals the deployer's build, as the closure's code is not in the plan.
pub struct Function<I, O> {
    kind: StepKind,
    types: PhantomData<fn(I) -> O>,
}

impl<I, O> Function<I, O> {
    /// What kinds of closures start with.
    pub(crate) const PREFIX: &'static str = "fn/";

    /// The function called `name`; raise `version` when it starts to mean something else.
    ///
    /// # Errors
    /// If `name` does not follow the rules of [`StepKind`].
    pub fn new(name: &str, version: u16) -> Result<Self, IdError> {
        Ok(Self { kind: StepKind::new(format!("{}{name}", Self::PREFIX), version)?, types: PhantomData })
    }

    /// The kind of its nodes: `fn/NAME@VERSION`.
    pub fn kind(&self) -> &StepKind {
        &self.kind
    }
}

impl<I, O> Clone for Function<I, O> {
    fn clone(&self) -> Self {
        Self { kind: self.kind.clone(), types: PhantomData }
    }
}

impl<I, O> Debug for Function<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Function({})", self.kind)
    }
}

type Run<I, O> = Arc<dyn Fn(I, Context) -> BoxFuture<'static, Result<O, StepError>> + Send + Sync>;
type Probe<I, O> =
    Arc<dyn Fn(I, Context) -> BoxFuture<'static, Result<Happened<O>, StepError>> + Send + Sync>;
type UndoFn<O> = Arc<dyn Fn(Option<O>, Context) -> BoxFuture<'static, Result<(), StepError>> + Send + Sync>;

/// The code of a [`Function`], with the effect that it declares.
pub struct FnStep<I, O> {
    effect: Effect,
    undoing: Undo,
    touches: Vec<ResourceId>,
    run: Run<I, O>,
    probe: Option<Probe<I, O>>,
    undo: Option<UndoFn<O>>,
}

impl<I, O> FnStep<I, O> {
    fn new<F, R>(effect: Effect, run: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        let run: Run<I, O> = Arc::new(move |input, context| run(input, context).boxed());
        Self { effect, undoing: Undo::None, touches: Vec::new(), run, probe: None, undo: None }
    }

    /// Only computes: [`Effect::Pure`].
    pub fn pure<F, R>(run: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        Self::new(Effect::Pure, run)
    }

    /// May be repeated under [`Context::key`]: [`Effect::Idempotent`].
    pub fn idempotent<F, R>(run: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        Self::new(Effect::idempotent(), run)
    }

    /// Must not be repeated blindly; `probe` asks the world: [`Effect::Probed`].
    pub fn probed<F, R, P, Q>(run: F, probe: P) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, StepError>> + Send + 'static,
        P: Fn(I, Context) -> Q + Send + Sync + 'static,
        Q: Future<Output = Result<Happened<O>, StepError>> + Send + 'static,
    {
        let mut step = Self::new(Effect::Probed, run);
        step.probe = Some(Arc::new(move |input, context| probe(input, context).boxed()));
        step
    }

    /// Must not be repeated, and nobody can be asked: [`Effect::Once`].
    pub fn once<F, R>(run: F) -> Self
    where
        F: Fn(I, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<O, StepError>> + Send + 'static,
    {
        Self::new(Effect::Once, run)
    }

    /// The same, touching `resources`.
    #[must_use]
    pub fn touching(mut self, resources: impl IntoIterator<Item = ResourceId>) -> Self {
        self.touches.extend(resources);
        self
    }

    /// The same, taken back by `undo`; see [`Step::undo`](super::Step::undo).
    #[must_use]
    pub fn undone_by<F, R>(mut self, undo: F) -> Self
    where
        F: Fn(Option<O>, Context) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), StepError>> + Send + 'static,
    {
        self.undoing = Undo::Compensate;
        self.undo = Some(Arc::new(move |output, context| undo(output, context).boxed()));
        self
    }

    /// The same, saying that it can't be taken back.
    #[must_use]
    pub fn irreversible(mut self) -> Self {
        self.undoing = Undo::Irreversible;
        self.undo = None;
        self
    }
}

impl<I, O> Debug for FnStep<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnStep")
            .field("effect", &self.effect)
            .field("undoing", &self.undoing)
            .finish_non_exhaustive()
    }
}

impl<I, O> BoundStep for FnStep<I, O>
where
    I: DeserializeOwned + Send + 'static,
    O: Serialize + DeserializeOwned + Send + 'static,
{
    fn effect(&self) -> Effect {
        self.effect.clone()
    }

    fn undoing(&self) -> Undo {
        self.undoing
    }

    fn touches(&self) -> Vec<ResourceId> {
        self.touches.clone()
    }

    fn preview<'a>(&'a self, _: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, StepError>> {
        // A closure can't be asked what it finds: each resource gets one constant fingerprint, which never goes stale.
        let observed = self.touches.iter().map(|resource| super::Observed {
            resource: resource.clone(),
            action: super::Action::Run,
            fingerprint: super::Fingerprint::absent(),
            details: Vec::new(),
        });
        let preview = Preview::of("calls a function of the deployer", observed.collect());
        std::future::ready(Ok(preview)).boxed()
    }

    fn run<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Result<Value, StepError>> {
        async move { write(&(self.run)(read("input", input)?, context.clone()).await?) }.boxed()
    }

    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>> {
        async move {
            let Some(probe) = &self.probe else {
                return Ok(Happened::Unknown("this function has no probe".to_owned()));
            };
            Ok(match probe(read("input", input)?, context.clone()).await? {
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
            let Some(undo) = &self.undo else { return Ok(()) };
            let output = output.map(|output| read("recorded output", output)).transpose()?;
            undo(output, context.clone()).await
        }
        .boxed()
    }
}
