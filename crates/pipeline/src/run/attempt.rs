//! One attempt at a step, within its limits of time. What a step does wrong (an error, a panic, silence) comes back as an error.

use std::{panic::AssertUnwindSafe, sync::Arc};

use flowline_core::{SignedDuration, error::ErrorKind, id::RunId};
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use serde_json::Value;

use crate::{
    plan::Limits,
    step::{BoundStep, Context, Happened, Preview, PreviewContext, StepError},
};

/// What an attempt asks of a step.
#[derive(Debug, Clone)]
pub(super) enum Task {
    /// Whether it is needed at all.
    Look,
    Run(Value),
    Probe(Value),
    Undo(Option<Value>),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Came {
    Looked(Preview),
    Done(Value),
    /// Not run: this is what it gave in an earlier run.
    Cached(Value, RunId),
    Probed(Happened<Value>),
    Undone,
}

/// Has `step` do `task`. `limit` is what is left of the attempt's time.
pub(super) async fn attempt(
    step: Arc<dyn BoundStep>,
    task: Task,
    context: Context,
    limits: Limits,
    limit: Option<SignedDuration>,
    grace: SignedDuration,
) -> Result<Came, StepError> {
    if limit.is_some() || limits.heartbeat_ms.is_some() {
        // Boxed, as few steps have limits and all would have to be as large.
        return Box::pin(limited(step, task, context, limits, limit, grace)).await;
    }
    ended(AssertUnwindSafe(ask(&step, task, &context)).catch_unwind().await)
}

async fn limited(
    step: Arc<dyn BoundStep>,
    task: Task,
    context: Context,
    limits: Limits,
    limit: Option<SignedDuration>,
    grace: SignedDuration,
) -> Result<Came, StepError> {
    let work = AssertUnwindSafe(ask(&step, task, &context)).catch_unwind();
    let late = std::pin::pin!(late(&context, limits, limit));
    match select(std::pin::pin!(work), late).await {
        Either::Left((done, _)) => ended(done),
        Either::Right((error, work)) => {
            // It may clean up; then it is dropped, which ends it for good.
            context.cancel().cancel();
            let clock = Arc::clone(context.clock());
            select(work, clock.sleep(grace)).await;
            Err(error)
        }
    }
}

/// What came of it, also if that is a panic.
fn ended(done: std::thread::Result<Result<Came, StepError>>) -> Result<Came, StepError> {
    done.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(ToString::to_string);
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(StepError::new(ErrorKind::Other, format!("the step panicked: {said}")))
    })
}

async fn ask(step: &Arc<dyn BoundStep>, task: Task, context: &Context) -> Result<Came, StepError> {
    match task {
        Task::Look => {
            let look = PreviewContext {
                step: context.step().clone(),
                granted: context.all_granted().to_vec(),
                clock: Arc::clone(context.clock()),
                secrets: Arc::clone(context.secrets()),
            };
            step.preview(&look).await.map(Came::Looked)
        }
        Task::Run(input) => step.run(input, context).await.map(Came::Done),
        Task::Probe(input) => step.probe(input, context).await.map(Came::Probed),
        Task::Undo(output) => step.undo(output, context).await.map(|()| Came::Undone),
    }
}

/// Returns when the attempt took too long or was silent too long.
async fn late(context: &Context, limits: Limits, limit: Option<SignedDuration>) -> StepError {
    let clock = Arc::clone(context.clock());
    let whole = async {
        match limit {
            Some(limit) => clock.sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let silent = async {
        let Some(beat) = limits.heartbeat_ms else { return std::future::pending().await };
        loop {
            let before = context.beats();
            clock.sleep(millis(beat)).await;
            if context.beats() == before {
                return;
            }
        }
    };
    match select(std::pin::pin!(whole), std::pin::pin!(silent)).await {
        Either::Left(_) => StepError::new(
            ErrorKind::TimedOut,
            format!("the attempt took longer than {} ms", limit.unwrap_or_default().as_millis()),
        ),
        Either::Right(_) => StepError::new(
            ErrorKind::TimedOut,
            format!("the step gave no sign of life for {} ms", limits.heartbeat_ms.unwrap_or_default()),
        ),
    }
}

/// Milliseconds of a limit as a duration.
pub(super) fn millis(ms: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}
