//! Asking an address whether it is well, as a step that later steps wait for.

use async_trait::async_trait;
use flowline_core::{
    error::ErrorKind,
    verdict::{Outcome, Verdict},
};
use flowline_envs::probe::{Client, HttpProbe};
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};

use crate::step::{Context, Effect, Preview, PreviewContext, Spec, Step, StepError};

/// Asks over plain HTTP until the answer is as expected, or often enough.
///
/// *Effect*: idempotent; asking again after a crash is harmless, and its output is a verdict of that moment, so it is never taken from a
/// cache. *Undo*: nothing to undo. *Touches* nothing: it only reads.
///
/// *Errors by kind*: `Failed` (the answer is not as expected, with everything that is wrong about it), `Unavailable` (it could not be asked
/// at all), `Cancelled`. The retry policy of the step and the attempts of the probe add up; use one of them.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::ProbeHttp};
/// use flowline_envs::probe::HttpProbe;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("verify", "storefront".parse()?);
/// let well = pipeline.step("smoke", ProbeHttp::new(HttpProbe::get("http://app.localhost:8080/")?.expecting_body("hello")));
/// # let _ = well; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeHttp {
    /// What is asked, and what a good answer looks like.
    pub probe: HttpProbe,
}

impl ProbeHttp {
    /// Asks `probe`.
    pub fn new(probe: HttpProbe) -> Self {
        Self { probe }
    }
}

impl Spec for ProbeHttp {
    const KIND: &'static str = "http/probe";
    type Input = ();
    type Output = Verdict;
}

/// The code of [`ProbeHttp`].
#[derive(Debug, Clone, Default)]
pub struct ProbeHttpStep {
    client: Client,
}

impl ProbeHttpStep {
    /// Asks with a connection for each question.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl Step for ProbeHttpStep {
    type Spec = ProbeHttp;

    fn effect(&self, _: &ProbeHttp) -> Effect {
        Effect::idempotent()
    }

    async fn preview(&self, spec: &ProbeHttp, _: &PreviewContext) -> Result<Preview, StepError> {
        let expected = spec.probe.expect_status;
        Ok(Preview::run(format!("asks {} and expects {expected}", spec.probe.subject())))
    }

    async fn run(&self, spec: &ProbeHttp, (): (), context: &Context) -> Result<Verdict, StepError> {
        let asked = std::pin::pin!(spec.probe.run(&self.client));
        let verdict = match select(asked, std::pin::pin!(context.cancelled())).await {
            Either::Left((verdict, _)) => verdict,
            Either::Right(_) => {
                return Err(StepError::new(ErrorKind::Cancelled, "the question was cancelled"));
            }
        };
        context.say(verdict.to_string());
        match verdict.outcome {
            Outcome::Pass => Ok(verdict),
            Outcome::Fail | Outcome::Inconclusive => Err(StepError::failed(verdict.to_string())),
            Outcome::Error => Err(StepError::new(ErrorKind::Unavailable, verdict.to_string())),
        }
    }
}
