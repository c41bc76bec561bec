//! Bringing a release to an environment, decided by the one decision function of promotion at the moment when it moves.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration, Timestamp, artifact::ReleaseId, error::ErrorKind, id::ResourceId, name::EnvironmentName,
};
use flowline_envs::promotion::{Decision, Facts, Permit, PromotionGraph, evaluate};
use serde::{Deserialize, Serialize};

use crate::step::{
    Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
};

/// What promotion acts on: where the facts are, and how a release gets to an environment.
///
/// *Guarantees that the step gives*: `bring` is only called with a permit that was made from the facts of that moment, for the release and
/// environment that it names. *Assumptions on the implementer*: `bring` under one key is done once however often it is called, and records
/// under that key what ran before; `take_back` restores exactly that, changes nothing if the key brought nothing, and answers `Conflict` if
/// somebody deployed there since.
#[async_trait]
pub trait Promotion: Debug + Send + Sync {
    /// Which environment comes after which.
    async fn graph(&self) -> Result<PromotionGraph, StepError>;

    /// What is recorded about `release` on its way to `environment`.
    async fn facts(&self, release: ReleaseId, environment: &EnvironmentName) -> Result<Facts, StepError>;

    /// Which release the environment runs.
    async fn running(&self, environment: &EnvironmentName) -> Result<Option<ReleaseId>, StepError>;

    /// Brings what the permit names to where it says, once for each `key`.
    async fn bring(&self, permit: Permit, key: &str, context: &Context) -> Result<(), StepError>;

    /// Restores what ran in `environment` before `bring` was called with `key`.
    async fn take_back(
        &self,
        environment: &EnvironmentName,
        key: &str,
        context: &Context,
    ) -> Result<(), StepError>;
}

/// A release on its way to an environment.
///
/// *Effect*: idempotent under the run's key, see [`Promotion`]. What waiting can cure (a verdict that is missing, a closed environment) lets
/// the run wait while no process lives; what is wrong with the release itself fails the step.
///
/// *Undo*: what ran there before runs again, by [`Promotion::take_back`].
///
/// *Touches* `environment:NAME`.
///
/// *Errors by kind*: `Denied` (the decision is against the release, with every reason), those of the [`Promotion`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// What.
    pub release: ReleaseId,
    /// Where to.
    pub environment: EnvironmentName,
}

/// What a [`Promote`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// What runs there now.
    pub release: ReleaseId,
    /// Where.
    pub environment: EnvironmentName,
}

impl Spec for Promote {
    const KIND: &'static str = "release/promote";
    type Input = ();
    type Output = Promoted;
}

/// How long a permit counts: it is used at once.
const PERMIT: SignedDuration = SignedDuration::from_mins(5);

/// The code of [`Promote`].
#[derive(Debug, Clone)]
pub struct PromoteStep {
    promotion: Arc<dyn Promotion>,
}

impl PromoteStep {
    /// Promotes by `promotion`.
    pub fn new(promotion: Arc<dyn Promotion>) -> Self {
        Self { promotion }
    }

    async fn decide(&self, spec: &Promote, now: Timestamp) -> Result<Decision, StepError> {
        let graph = self.promotion.graph().await?;
        let mut facts = self.promotion.facts(spec.release, &spec.environment).await?;
        // The facts are about the release that was asked for, or about none.
        facts.release = facts.release.or(Some(spec.release));
        Ok(evaluate(&graph, &spec.environment, &facts, now))
    }
}

fn touched(spec: &Promote) -> Result<ResourceId, StepError> {
    ResourceId::of("environment", &spec.environment).map_err(|error| {
        StepError::new(ErrorKind::Invalid, format!("environment `{}` cannot be granted", spec.environment))
            .because(error)
    })
}

#[async_trait]
impl Step for PromoteStep {
    type Spec = Promote;

    fn effect(&self, _: &Promote) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &Promote) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &Promote) -> Vec<ResourceId> {
        touched(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &Promote, context: &PreviewContext) -> Result<Preview, StepError> {
        let resource = touched(spec)?;
        let running = self.promotion.running(&spec.environment).await?;
        let json = |error: serde_json::Error| {
            StepError::failed("a release cannot be written as JSON").because(error)
        };
        let fingerprint = match running {
            Some(running) => Fingerprint::of(&running).map_err(json)?,
            None => Fingerprint::absent(),
        };
        let summary = format!("promotes release `{}` to `{}`", spec.release, spec.environment);
        let seen = |action, details| vec![Observed { resource, action, fingerprint, details }];
        if running == Some(spec.release) {
            let promoted = Promoted { release: spec.release, environment: spec.environment.clone() };
            let known = serde_json::to_value(promoted).map_err(json)?;
            return Ok(Preview::of(summary, seen(Action::Keep, Vec::new())).knowing(known));
        }
        let action = if running.is_some() { Action::Update } else { Action::Create };
        let mut details = match running {
            Some(running) => vec![format!("release: {running} -> {}", spec.release)],
            None => vec![format!("release: {}", spec.release)],
        };
        details.push(format!("as of now: {}", self.decide(spec, context.clock().now()).await?));
        Ok(Preview::of(summary, seen(action, details)))
    }

    async fn run(&self, spec: &Promote, (): (), context: &Context) -> Result<Promoted, StepError> {
        context.granted(&touched(spec)?)?;
        let promoted = Promoted { release: spec.release, environment: spec.environment.clone() };
        if self.promotion.running(&spec.environment).await? == Some(spec.release) {
            return Ok(promoted);
        }
        let now = context.clock().now();
        match self.decide(spec, now).await? {
            Decision::Ready(candidate) => {
                let permit = candidate.permit(spec.release, now, PERMIT).map_err(StepError::of)?;
                self.promotion.bring(permit, &context.key(), context).await?;
                Ok(promoted)
            }
            decision => {
                let said = format!("`{}` may not go to `{}`: {decision}", spec.release, spec.environment);
                match decision {
                    Decision::Waiting { next_wake, .. } => Err(StepError::waiting(said, next_wake)),
                    _ => Err(StepError::new(ErrorKind::Denied, said)),
                }
            }
        }
    }

    async fn undo(&self, spec: &Promote, _: Option<Promoted>, context: &Context) -> Result<(), StepError> {
        context.granted(&touched(spec)?)?;
        self.promotion.take_back(&spec.environment, &context.key(), context).await
    }
}
