//! What a step promises: [`Step`] is the code behind a node, [`Spec`] the data of it.

pub(crate) mod context;
mod error;
mod function;
mod holds;
mod registry;

use std::fmt::Debug;

use async_trait::async_trait;
use flowline_core::id::ResourceId;
use serde::{Serialize, de::DeserializeOwned};

pub(crate) use self::holds::secret_in;
pub use self::{
    context::{Context, PreviewContext, Secrets},
    error::StepError,
    function::{FnStep, Function},
    holds::{HoldsSecret, Kept},
    registry::{BoundStep, Registry, ResolveError},
};
pub use crate::plan::{Action, Effect, Fingerprint, Observed, Preview, Undo};

/// The data of a step: its parameters, the kind that they belong to, and the types that go in and out.
///
/// This is all that writing a pipeline needs; the code ([`Step`]) is found in the [`Registry`] when the plan is made and run.
pub trait Spec: Serialize + DeserializeOwned + Debug + Send + Sync + 'static {
    /// The name of the kind: `command`. Rules: [`StepKind`](crate::plan::StepKind).
    const KIND: &'static str;
    /// The version of the parameters' shape and meaning. Raise it when an old plan must not be read by new code.
    const VERSION: u16 = 1;
    /// What it takes from other steps; `()` for nothing.
    type Input: DeserializeOwned + Send + 'static;
    /// What it gives to other steps, and to the journal. Never put a secret here.
    type Output: Serialize + DeserializeOwned + Send + 'static;
}

/// The code of one kind of step.
///
/// *Shape*: one object per kind, shared by all nodes of that kind and by all runs; it holds the backends. Planning calls `effect`, `undoing`,
/// `touches`, then `preview`; a run calls `run`, after a crash perhaps `probe`, and `undo` when the run is undone.
///
/// *What the engine guarantees*
/// 1. A step whose completion was recorded is never run again.
/// 2. `run` is called only after everything before it was recorded as done, and with a context that holds a granted handle for every
///    resource that `touches` named, checked at that moment.
/// 3. If the process died while `run` ran, the next one decides by `effect`: `Pure` and `Idempotent` are run again, `Probed` is asked by
///    `probe`, `Once` stops the run for a person.
/// 4. `undo` is called in reverse order of completion, also for a step that was started and never recorded as done; it is not cancelled by
///    the cancel that led to it.
///
/// *What it assumes of you*
/// 1. `effect`, `undoing` and `touches` are plain functions of the parameters; `preview` and `probe` change nothing.
/// 2. Every future may be dropped at any await; when [`Context::cancelled`] returns, stop soon.
/// 3. `undo` is harmless when the effect never happened, happened in part, or was undone before.
/// 4. Outputs carry no secrets: one that holds the value of a secret of the run, in any form that a [`Masker`](crate::exec::Masker) knows,
///    fails the step ([`HoldsSecret`]). In errors and lines they are masked.
/// 5. What JSON carries of `Output` is enough to read it back.
///
/// `testkit::crash_matrix` runs whole pipelines, with your steps in them, through every crash.
#[async_trait]
pub trait Step: Debug + Send + Sync + 'static {
    /// The data that goes with it.
    type Spec: Spec;

    /// What running it does to the world.
    fn effect(&self, spec: &Self::Spec) -> Effect;

    /// Whether it can be taken back. By default there is nothing to take back.
    fn undoing(&self, spec: &Self::Spec) -> Undo {
        let _ = spec;
        Undo::None
    }

    /// Every resource that it may touch. By default none.
    fn touches(&self, spec: &Self::Spec) -> Vec<ResourceId> {
        let _ = spec;
        Vec::new()
    }

    /// What running it now would do, without doing it: one [`Observed`] for each resource of [`touches`](Self::touches).
    async fn preview(&self, spec: &Self::Spec, context: &PreviewContext) -> Result<Preview, StepError>;

    /// Does it.
    async fn run(
        &self,
        spec: &Self::Spec,
        input: <Self::Spec as Spec>::Input,
        context: &Context,
    ) -> Result<<Self::Spec as Spec>::Output, StepError>;

    /// Asks the world whether an earlier `run`, cut short, took effect. Called only for [`Effect::Probed`].
    async fn probe(
        &self,
        spec: &Self::Spec,
        input: <Self::Spec as Spec>::Input,
        context: &Context,
    ) -> Result<Happened<<Self::Spec as Spec>::Output>, StepError> {
        drop(input);
        let (_, _) = (spec, context);
        Ok(Happened::Unknown("this step has no probe".to_owned()))
    }

    /// Takes the effect back. `output` is what `run` gave, or `None` if it was started and nobody knows how far it came. Called only for
    /// [`Undo::Compensate`].
    async fn undo(
        &self,
        spec: &Self::Spec,
        output: Option<<Self::Spec as Spec>::Output>,
        context: &Context,
    ) -> Result<(), StepError> {
        drop(output);
        let (_, _) = (spec, context);
        Ok(())
    }
}

/// What the world says about a step that was cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happened<T> {
    /// It took effect, with this output.
    Yes(T),
    /// It did not; it may be run.
    No,
    /// It can't be told, for this reason: a person has to look.
    Unknown(String),
}
