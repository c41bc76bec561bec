//! How a candidate is judged before anybody is led to it.

use async_trait::async_trait;
use flowline_core::{id::ChangeId, name::EnvironmentName, verdict::Verdict};
use flowline_pipeline::step::{Context, Effect, Preview, PreviewContext, Spec, Step, StepError};
use serde::{Deserialize, Serialize};

use super::{Acting, of};
use crate::delivery::Instance;

/// Judges what answers at the addresses of an environment, and fails unless it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::delivery) struct Verify {
    /// Whose users the release is for.
    pub(in crate::delivery) environment: EnvironmentName,
    /// Where it is asked: a candidate's environment, or the environment itself.
    pub(in crate::delivery) at: EnvironmentName,
    pub(in crate::delivery) change: Option<ChangeId>,
}

impl Spec for Verify {
    const KIND: &'static str = "flowline/verify";
    type Input = Vec<Instance>;
    type Output = Verdict;
}

/// The code of [`Verify`].
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Verifying(pub(in crate::delivery) Acting);

#[async_trait]
impl Step for Verifying {
    type Spec = Verify;

    fn effect(&self, _spec: &Verify) -> Effect {
        Effect::idempotent()
    }

    async fn preview(&self, spec: &Verify, _context: &PreviewContext) -> Result<Preview, StepError> {
        let verify = &self.0.delivery().topology().verify;
        let smoke = if verify.smoke.is_empty() { "" } else { " and the smoke command" };
        let probes = match verify.probes.len() {
            1 => "1 probe".to_owned(),
            count => format!("{count} probes"),
        };
        Ok(Preview::run(format!("verify at `{}`: {probes}{smoke}", spec.at)))
    }

    async fn run(
        &self,
        spec: &Verify,
        instances: Vec<Instance>,
        context: &Context,
    ) -> Result<Verdict, StepError> {
        let delivery = self.0.delivery();
        let verdict = delivery.judge(&spec.at).await.map_err(of)?;
        for evidence in &verdict.evidence {
            context.say(format!("{}: {} ({})", evidence.outcome, evidence.subject, evidence.seen));
        }
        let artifacts = instances.into_iter().map(|instance| instance.artifact);
        delivery.record_verdict(spec, artifacts, &verdict, context).await.map_err(of)?;
        if verdict.passed() {
            Ok(verdict)
        } else {
            Err(StepError::failed(format!("verification came out as {verdict}")))
        }
    }
}
