//! Steps that work on this host, where the deployer's executor works on another.

use async_trait::async_trait;
use flowline_core::{
    error::{ErrorKind, Kinded},
    id::ResourceId,
};

use crate::step::{Context, Effect, Happened, Preview, PreviewContext, Spec, Step, StepError, Undo};

/// A step acts on the files of this host, and everything else on those of another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a `{kind}` step works on this host, and the executor runs commands on another; run a command there instead, or add the step's code to the registry yourself if this host is meant"
)]
pub struct OnlyHere {
    /// The step's kind.
    pub kind: &'static str,
}

impl Kinded for OnlyHere {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unsupported
    }
}

/// Refuses what `S` would do here, when it is planned and again when it runs.
#[derive(Debug, Clone)]
pub(super) struct Elsewhere<S>(pub(super) S);

fn refused<S: Step>() -> StepError {
    StepError::of(OnlyHere { kind: S::Spec::KIND })
}

#[async_trait]
impl<S: Step> Step for Elsewhere<S> {
    type Spec = S::Spec;

    fn effect(&self, spec: &S::Spec) -> Effect {
        self.0.effect(spec)
    }

    fn undoing(&self, spec: &S::Spec) -> Undo {
        self.0.undoing(spec)
    }

    fn touches(&self, spec: &S::Spec) -> Vec<ResourceId> {
        self.0.touches(spec)
    }

    async fn preview(&self, _: &S::Spec, _: &PreviewContext) -> Result<Preview, StepError> {
        Err(refused::<S>())
    }

    async fn run(
        &self,
        _: &S::Spec,
        _: <S::Spec as Spec>::Input,
        _: &Context,
    ) -> Result<<S::Spec as Spec>::Output, StepError> {
        Err(refused::<S>())
    }

    async fn probe(
        &self,
        _: &S::Spec,
        _: <S::Spec as Spec>::Input,
        _: &Context,
    ) -> Result<Happened<<S::Spec as Spec>::Output>, StepError> {
        Err(refused::<S>())
    }

    async fn undo(
        &self,
        _: &S::Spec,
        _: Option<<S::Spec as Spec>::Output>,
        _: &Context,
    ) -> Result<(), StepError> {
        Err(refused::<S>())
    }
}
