//! What every [`Step`] must do, as cases that are named by the sentence that they check.
//!
//! ```
//! use flowline_pipeline::{steps::{Pause, PauseStep}, testkit::{self, StepTrial}};
//! # async fn example() {
//! testkit::step(async || StepTrial::new(PauseStep, Pause { ms: 0 }, || "nothing to see")).await.assert();
//! # }
//! ```
//!
//! A step that is given no secrets, can't be undone, or acts once only has fewer promises to keep; the report names those that do not apply.

mod bench;
mod cases;

use std::{any::Any, fmt, sync::Arc};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    secret::Secret,
    store::{MemoryStore, Store},
    testkit::Report,
};
use futures_util::{
    FutureExt,
    future::{Either, select},
};
use serde_json::Value;

use super::{Broken, Outcome, note};
use crate::step::{Secrets, Spec as _, Step};
use bench::Bench;
pub(in crate::testkit) use bench::polled;

/// What the suite looks at: the part of the world that the step may change, as a text that is the same for the same state.
pub(super) type World = Box<dyn Fn() -> String>;

/// One fresh world with a step in it: what the suite needs for each of its cases.
pub struct StepTrial<S: Step> {
    step: S,
    spec: S::Spec,
    world: World,
    input: Value,
    secrets: Secrets,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    kept: Vec<Box<dyn Any>>,
}

impl<S: Step> StepTrial<S> {
    /// `step` with `spec`, acting on what `world` shows. `world` tells everything that the step may change and nothing else (no times, no
    /// temporary paths), so that two worlds in the same state look the same.
    pub fn new<W: fmt::Display>(step: S, spec: S::Spec, world: impl Fn() -> W + 'static) -> Self {
        Self {
            step,
            spec,
            world: Box::new(move || world().to_string()),
            input: Value::Null,
            secrets: Secrets::new(),
            clock: Arc::new(SystemClock),
            store: Arc::new(MemoryStore::new()),
            kept: Vec::new(),
        }
    }

    /// The same, given `input` (as JSON) by other steps.
    #[must_use]
    pub fn with_input(mut self, input: Value) -> Self {
        self.input = input;
        self
    }

    /// The same with a secret that must not be seen anywhere.
    #[must_use]
    pub fn with_secret(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.secrets.insert(name.into(), value);
        self
    }

    /// The same on another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same with the run's lease in `store`, for a step that writes there under the run's fence.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = store;
        self
    }

    /// The same, keeping `guard` alive as long as the world is used: a temporary directory, a server.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any) -> Self {
        self.kept.push(Box::new(guard));
        self
    }
}

impl<S: Step> fmt::Debug for StepTrial<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepTrial")
            .field("step", &self.step)
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

/// Nobody waits longer than this for one case.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// Runs all cases, each in worlds that `make` makes fresh.
pub async fn step<S: Step>(make: impl AsyncFn() -> StepTrial<S>) -> Report {
    let mut report = Report::new("step", S::Spec::KIND);
    for promise in step_promises() {
        if let Some((promise, checked)) = checked(&make, promise).await {
            note(&mut report, promise, checked);
        }
    }
    report
}

/// Every promise that [`step`] checks.
pub fn step_promises() -> impl Iterator<Item = &'static str> {
    cases::CASES.iter().map(|(promise, _)| *promise)
}

/// Checks one of [`step_promises`]. `None` if it holds, does not apply, or is none of them.
pub async fn step_promise<S: Step>(make: impl AsyncFn() -> StepTrial<S>, promise: &str) -> Option<Broken> {
    let (promise, checked) = checked(&make, promise).await?;
    checked.err().map(|seen| Broken { promise, seen })
}

async fn checked<S: Step>(
    make: &impl AsyncFn() -> StepTrial<S>,
    promise: &str,
) -> Option<(&'static str, Outcome)> {
    let (promise, check) = *cases::CASES.iter().find(|(known, _)| *known == promise)?;
    let fresh = || async { Bench::new(make().await).await }.boxed_local();
    let checked = check(&fresh);
    let outcome = match select(checked, SystemClock.sleep(PATIENCE)).await {
        Either::Left((result, _)) => result,
        Either::Right(_) => Err("it did not end".to_owned()),
    };
    Some((promise, outcome))
}
