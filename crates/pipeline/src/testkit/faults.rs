//! Wrappers that make an implementation of this crate's traits fail or crash at the call that a test chooses, before its effect or after.
//!
//! All follow `FaultyStore` of flowline-core: `new` counts, `with` puts one fault at one call, `seeded` lets a seed choose; clones share
//! the count. Run once without a fault and ask for the number of calls, then once for each call and each [`When`].
//!
//! | wrapper | what counts as a call | what a failure is |
//! | --- | --- | --- |
//! | [`FaultyExecutor`] | a command | `ExecError::Lost` |
//! | [`FaultyStep`], [`Faults::registry`] | `run`, `probe`, `undo` of any step; looking is not counted | an error of kind `Unavailable` |
//! | [`FaultyReporter`] | an event | it is not heard |

use std::{
    fmt::Debug,
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;
use flowline_core::{
    error::ErrorKind,
    id::ResourceId,
    testkit::{Fault, Seeded, When},
};
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::Value;

use crate::{
    cancel::Cancel,
    exec::{Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines},
    run::{Progress, Reporter},
    step::{BoundStep, Context, Effect, Happened, Preview, PreviewContext, Registry, StepError, Undo},
};

/// One fault and the count of calls, shared by every wrapper that is made with it. Clones are the same.
///
/// ```
/// use flowline_core::testkit::{Fault, When};
/// use flowline_pipeline::testkit::Faults;
/// let faults = Faults::none().with(3, Fault::Crash(When::After));
/// assert_eq!(faults.fault(), Some((3, Fault::Crash(When::After))));
/// assert_eq!(Faults::seeded(7, 10).fault(), Faults::seeded(7, 10).fault());
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    fault: Option<(u64, Fault)>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    calls: u64,
    crashed: bool,
    lost: bool,
    waiting: Vec<Waker>,
}

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Fails(When),
    Dies(When),
}

impl Faults {
    /// No fault: it counts.
    pub fn none() -> Self {
        Self { fault: None, state: Arc::default() }
    }

    /// The same with `fault` at call number `at`, counted from 1.
    #[must_use]
    pub fn with(mut self, at: u64, fault: Fault) -> Self {
        self.fault = Some((at, fault));
        self
    }

    /// A crash that `seed` chooses among the first `calls` calls.
    pub fn seeded(seed: u64, calls: u64) -> Self {
        let mut seeded = Seeded::new(seed);
        let at = 1 + seeded.below(calls);
        let when = if seeded.below(2) == 0 { When::Before } else { When::After };
        Self::none().with(at, Fault::Crash(when))
    }

    /// How many calls were tried so far, the one with the fault included.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// The call with the fault, counted from 1, and the fault.
    pub fn fault(&self) -> Option<(u64, Fault)> {
        self.fault
    }

    /// Whether it has crashed.
    pub fn has_crashed(&self) -> bool {
        self.lock().crashed
    }

    /// Returns once it crashes.
    pub async fn crashed(&self) {
        poll_fn(|context| {
            let mut state = self.lock();
            if state.crashed {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs `work` until it is done, or until the crash: `None`, and `work` was dropped where it stood.
    pub async fn until_crash<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, mut crash) = (std::pin::pin!(work), std::pin::pin!(self.crashed()));
        poll_fn(|context| {
            if crash.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            match work.as_mut().poll(context) {
                Poll::Ready(_) if self.has_crashed() => Poll::Ready(None),
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// `registry` with every step counted, and one of their calls at fault.
    pub fn registry(&self, registry: &Registry) -> Registry {
        let faults = self.clone();
        registry.wrapped(move |step| Arc::new(FaultyStep { inner: step, faults: faults.clone() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call and says what becomes of it.
    fn call(&self) -> Fate {
        let mut state = self.lock();
        if state.crashed {
            return Fate::Dies(When::Before);
        }
        state.calls += 1;
        if state.lost {
            return Fate::Fails(When::Before);
        }
        match self.fault {
            Some((at, fault)) if at == state.calls => match fault {
                Fault::Fail(when) => Fate::Fails(when),
                Fault::Crash(when) => Fate::Dies(when),
                Fault::Lost(when) => {
                    state.lost = true;
                    Fate::Fails(when)
                }
            },
            _ => Fate::Lives,
        }
    }

    fn crash(&self) {
        let waiting = {
            let mut state = self.lock();
            state.crashed = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    async fn around<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
        failure: impl FnOnce() -> E,
    ) -> Result<T, E> {
        match self.call() {
            Fate::Lives => work.await,
            Fate::Fails(When::Before) => Err(failure()),
            Fate::Fails(When::After) => {
                work.await?;
                Err(failure())
            }
            Fate::Dies(when) => {
                if when == When::After {
                    // Whatever it answers, nobody hears it any more.
                    drop(work.await);
                }
                self.crash();
                pending().await
            }
        }
    }
}

/// An [`Executor`] with one fault in it.
#[derive(Debug, Clone)]
pub struct FaultyExecutor {
    inner: Arc<dyn Executor>,
    faults: Faults,
}

impl FaultyExecutor {
    /// `inner` with the fault of `faults`.
    pub fn new(inner: Arc<dyn Executor>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    /// Its fault and count.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

#[async_trait]
impl Executor for FaultyExecutor {
    fn capabilities(&self) -> ExecutorCapabilities {
        self.inner.capabilities()
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let lost =
            || ExecError::Lost { program: command.program.clone(), source: "a fault that was put in".into() };
        self.faults.around(self.inner.run(command, lines, cancel), lost).await
    }
}

/// A step with one fault in it; [`Faults::registry`] wraps all steps of a registry.
#[derive(Debug, Clone)]
pub struct FaultyStep {
    inner: Arc<dyn BoundStep>,
    faults: Faults,
}

impl FaultyStep {
    /// `inner` with the fault of `faults`.
    pub fn new(inner: Arc<dyn BoundStep>, faults: Faults) -> Self {
        Self { inner, faults }
    }

    fn asked<'a, T>(
        &'a self,
        work: BoxFuture<'a, Result<T, StepError>>,
    ) -> BoxFuture<'a, Result<T, StepError>>
    where
        T: Send + 'a,
    {
        let failure =
            || StepError::new(ErrorKind::Unavailable, "this failure was asked for: a fault that was put in");
        self.faults.around(work, failure).boxed()
    }
}

impl BoundStep for FaultyStep {
    fn effect(&self) -> Effect {
        self.inner.effect()
    }

    fn undoing(&self) -> Undo {
        self.inner.undoing()
    }

    fn touches(&self) -> Vec<ResourceId> {
        self.inner.touches()
    }

    fn preview<'a>(&'a self, context: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, StepError>> {
        self.inner.preview(context)
    }

    fn run<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Result<Value, StepError>> {
        self.asked(self.inner.run(input, context))
    }

    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>> {
        self.asked(self.inner.probe(input, context))
    }

    fn undo<'a>(
        &'a self,
        output: Option<Value>,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.asked(self.inner.undo(output, context))
    }
}

/// A [`Reporter`] that does not hear one event, or none from one on. A crash is told through [`Faults::crashed`].
#[derive(Debug, Clone)]
pub struct FaultyReporter {
    inner: Arc<dyn Reporter>,
    faults: Faults,
}

impl FaultyReporter {
    /// `inner` with the fault of `faults`.
    pub fn new(inner: Arc<dyn Reporter>, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

impl Reporter for FaultyReporter {
    fn report(&self, progress: &Progress<'_>) {
        let fate = self.faults.call();
        if !matches!(fate, Fate::Fails(When::Before) | Fate::Dies(When::Before)) {
            self.inner.report(progress);
        }
        if matches!(fate, Fate::Dies(_)) {
            self.faults.crash();
        }
    }
}
