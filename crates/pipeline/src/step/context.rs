//! What a step may use while it is planned ([`PreviewContext`]) and while it runs ([`Context`]).

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flowline_core::{
    clock::Clock,
    digest::Digest,
    error::ErrorKind,
    grant::Granted,
    id::{ResourceId, RunId},
    name::Person,
    secret::{Secret, SecretName},
    store::Fence,
};
use serde_json::Value;

use super::StepError;
use crate::{
    cancel::Cancel,
    exec::{Line, Masker, Stream},
    plan::StepId,
    run::{Progress, Reporter},
};

/// The secrets that steps may ask for, by name.
pub type Secrets = BTreeMap<SecretName, Secret>;

/// What a step may use to look at the world.
#[derive(Debug, Clone)]
pub struct PreviewContext {
    pub(crate) step: StepId,
    pub(crate) granted: Vec<Granted<ResourceId>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) secrets: Arc<Secrets>,
}

impl PreviewContext {
    /// The step's id.
    pub fn step(&self) -> &StepId {
        &self.step
    }

    /// The handle to `resource`.
    ///
    /// # Errors
    /// `Denied` if the step did not say that it touches it.
    pub fn granted(&self, resource: &ResourceId) -> Result<&Granted<ResourceId>, StepError> {
        find(&self.granted, resource)
    }

    /// The clock: the only time that there is.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The secret called `name`.
    ///
    /// # Errors
    /// `NotFound` if nobody gave it.
    pub fn secret(&self, name: &str) -> Result<&Secret, StepError> {
        secret(&self.secrets, name)
    }
}

/// What a step may use while it runs. Cheap to clone; a clone may be moved into a task.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    step: StepId,
    attempt: u32,
    granted: Vec<Granted<ResourceId>>,
    cancel: Cancel,
    signals: Vec<Value>,
    locks: Vec<Fence>,
    beats: AtomicU64,
}

/// What all steps of a walk share.
pub(crate) struct Shared {
    pub(crate) run: RunId,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) masker: Masker,
    pub(crate) reporter: Arc<dyn Reporter>,
    pub(crate) fence: Fence,
    pub(crate) plan: Digest,
    pub(crate) pipeline: String,
    pub(crate) build: Option<Digest>,
    pub(crate) author: Option<Person>,
}

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        step: StepId,
        attempt: u32,
        granted: Vec<Granted<ResourceId>>,
        cancel: Cancel,
        signals: Vec<Value>,
        locks: Vec<Fence>,
    ) -> Self {
        let beats = AtomicU64::new(0);
        Self(Arc::new(Inner { shared, step, attempt, granted, cancel, signals, locks, beats }))
    }

    /// The run.
    pub fn run(&self) -> &RunId {
        &self.0.shared.run
    }

    /// The step's id.
    pub fn step(&self) -> &StepId {
        &self.0.step
    }

    /// Which attempt this is, from 1, over all processes of the run.
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// The digest of the plan: what approvals name.
    pub fn plan(&self) -> Digest {
        self.0.shared.plan
    }

    /// Who asked for the plan, if that is known.
    pub fn author(&self) -> Option<&Person> {
        self.0.shared.author.as_ref()
    }

    /// What reached this step from outside before this walk began, in order: see [`Runner::signal`](crate::run::Runner::signal).
    pub fn signals(&self) -> &[Value] {
        &self.0.signals
    }

    /// An idempotency key: the same for every attempt of this step in this run, another for every other step and run.
    pub fn key(&self) -> String {
        format!("{}/{}", self.run(), self.step())
    }

    /// The handle to `resource`, granted for this attempt.
    ///
    /// # Errors
    /// `Denied` if the step did not say that it touches it.
    pub fn granted(&self, resource: &ResourceId) -> Result<&Granted<ResourceId>, StepError> {
        find(&self.0.granted, resource)
    }

    /// The handles to everything that the step touches, in the order of [`Step::touches`](super::Step::touches).
    pub fn all_granted(&self) -> &[Granted<ResourceId>] {
        &self.0.granted
    }

    /// The clock: the only time that there is.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.0.shared.clock
    }

    /// The wish to stop this step.
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Returns once the step should stop.
    pub async fn cancelled(&self) {
        self.0.cancel.cancelled().await;
    }

    /// The demand that this process still holds the run, for every write that the step makes to the store. In a run that is not recorded
    /// nobody holds it, and such a write is refused.
    pub fn fence(&self) -> &Fence {
        &self.0.shared.fence
    }

    /// The demands that this attempt still holds each of its locks ([`Policy::locks`](crate::plan::Policy::locks)), beside [`fence`](Self::fence).
    pub fn locks(&self) -> &[Fence] {
        &self.0.locks
    }

    /// The secret called `name`. Whatever the step shows through this context has its value masked.
    ///
    /// # Errors
    /// `NotFound` if nobody gave it.
    pub fn secret(&self, name: &str) -> Result<&Secret, StepError> {
        secret(&self.0.shared.secrets, name)
    }

    /// All secrets of the run, so that an executor can mask them.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.0.shared.secrets
    }

    /// Shows one line to whoever watches, with secrets masked.
    pub fn say(&self, text: impl AsRef<str>) {
        let bytes = self.0.shared.masker.mask(text.as_ref().as_bytes());
        self.line(&Line { stream: Stream::Out, bytes, cut: false });
    }

    /// Passes on a line of output whose secrets are masked already, as an executor does.
    pub fn line(&self, line: &Line) {
        self.heartbeat();
        self.0.shared.reporter.report(&Progress::Line { step: self.step(), line });
    }

    /// Says that the step is alive, against [`Limits::heartbeat_ms`](crate::plan::Limits::heartbeat_ms).
    pub fn heartbeat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn beats(&self) -> u64 {
        self.0.beats.load(Ordering::Relaxed)
    }

    /// What masks the run\'s secrets: for the [`mask`](crate::exec::Command::mask) of a command.
    pub fn masker(&self) -> &Masker {
        &self.0.shared.masker
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("run", self.run())
            .field("step", self.step())
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

fn find<'a>(
    granted: &'a [Granted<ResourceId>],
    resource: &ResourceId,
) -> Result<&'a Granted<ResourceId>, StepError> {
    granted.iter().find(|granted| granted.resource() == resource).ok_or_else(|| {
        let message = format!(
            "the step asked for `{resource}` but does not say that it touches it; name it in `touches`"
        );
        StepError::new(ErrorKind::Denied, message)
    })
}

fn secret<'a>(secrets: &'a Secrets, name: &str) -> Result<&'a Secret, StepError> {
    secrets.get(name).ok_or_else(|| {
        StepError::new(
            ErrorKind::NotFound,
            format!("the secret `{name}` was not given; add it to the runner's secrets"),
        )
    })
}
