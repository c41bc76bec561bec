//! Letting time pass.

use async_trait::async_trait;
use flowline_core::{SignedDuration, Timestamp, error::ErrorKind};
use futures_util::future::{Either, select};
use serde::{Deserialize, Serialize};

use crate::step::{Context, Effect, Preview, PreviewContext, Spec, Step, StepError};

/// Waits until a time that the plan fixes. A crash in between costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitUntil {
    /// Until when.
    pub time: Timestamp,
}

impl Spec for WaitUntil {
    const KIND: &'static str = "wait";
    type Input = ();
    type Output = ();
}

/// The code of [`WaitUntil`].
#[derive(Debug, Clone, Copy, Default)]
pub struct WaitStep;

#[async_trait]
impl Step for WaitStep {
    type Spec = WaitUntil;

    fn effect(&self, _: &WaitUntil) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, spec: &WaitUntil, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!("waits until {}", spec.time)))
    }

    async fn run(&self, spec: &WaitUntil, (): (), context: &Context) -> Result<(), StepError> {
        wait(spec.time, context).await
    }
}

/// Waits for a length of time from when it starts. After a crash it begins anew; where that matters, use [`WaitUntil`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For how long, in milliseconds.
    pub ms: u64,
}

impl Spec for Pause {
    const KIND: &'static str = "pause";
    type Input = ();
    type Output = ();
}

/// The code of [`Pause`].
#[derive(Debug, Clone, Copy, Default)]
pub struct PauseStep;

#[async_trait]
impl Step for PauseStep {
    type Spec = Pause;

    fn effect(&self, _: &Pause) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, spec: &Pause, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!("waits for {} ms", spec.ms)))
    }

    async fn run(&self, spec: &Pause, (): (), context: &Context) -> Result<(), StepError> {
        let length = SignedDuration::from_millis(i64::try_from(spec.ms).unwrap_or(i64::MAX));
        wait(context.clock().now().checked_add(length).unwrap_or(Timestamp::MAX), context).await
    }
}

async fn wait(until: Timestamp, context: &Context) -> Result<(), StepError> {
    let (cancelled, over) = (std::pin::pin!(context.cancelled()), context.clock().sleep_until(until));
    match select(over, cancelled).await {
        Either::Left(_) => Ok(()),
        Either::Right(_) => Err(StepError::new(ErrorKind::Cancelled, "the waiting was cancelled")),
    }
}
