//! One world with a step in it, and everything that the engine would do with that step.

use std::{any::Any, sync::Arc, task::Poll};

use flowline_core::{
    SignedDuration,
    clock::Clock,
    digest::Digest,
    error::chain,
    grant::{Authority, Grant, Granted, Grants, Pattern},
    id::{Key, ResourceId, RunId},
    lease::{Claim, Leases, StoreLeases},
    store::Fence,
};
use serde_json::Value;

use super::{StepTrial, World};
use crate::{
    cancel::Cancel,
    exec::Masker,
    plan::{StepId, StepKind},
    run::CollectingReporter,
    step::{
        BoundStep, Context, Happened, Preview, PreviewContext, Registry, Secrets, Spec, Step, StepError,
        context::Shared,
    },
};

type Reread = Box<dyn Fn(Value) -> Result<Value, String>>;

/// See the module.
pub(super) struct Bench {
    pub(super) registry: Registry,
    pub(super) kind: StepKind,
    pub(super) params: Value,
    pub(super) bound: Arc<dyn BoundStep>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) reporter: CollectingReporter,
    reread_spec: Reread,
    reread_output: Reread,
    world: World,
    input: Value,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    granted: Vec<Granted<ResourceId>>,
    _kept: Vec<Box<dyn Any>>,
}

fn text(error: impl std::error::Error + 'static) -> String {
    chain(&error)
}

impl Bench {
    pub(super) async fn new<S: Step>(trial: StepTrial<S>) -> Result<Self, String> {
        let StepTrial { step, spec, world, input, secrets, clock, store, kept } = trial;
        let mut registry = Registry::new();
        registry.add(step).map_err(text)?;
        let kind = StepKind::new(S::Spec::KIND, S::Spec::VERSION).map_err(text)?;
        let params = serde_json::to_value(&spec).map_err(text)?;
        let bound = registry.resolve(&kind, &params).map_err(text)?;
        let granted = granted(&bound.touches())?;
        let secrets = Arc::new(secrets);
        let reporter = CollectingReporter::new();
        let shared = Arc::new(Shared {
            run: RunId::new("trial").map_err(text)?,
            clock: Arc::clone(&clock),
            secrets: Arc::clone(&secrets),
            masker: Masker::new(secrets.values()),
            reporter: Arc::new(reporter.clone()),
            fence: fence(store, &clock).await?,
            plan: Digest::of("a trial"),
            pipeline: "a trial".to_owned(),
            build: None,
            author: None,
        });
        let reread_spec: Reread = Box::new(|params| {
            let spec: S::Spec = serde_json::from_value(params).map_err(text)?;
            serde_json::to_value(&spec).map_err(text)
        });
        let reread_output: Reread = Box::new(|output| {
            let output: <S::Spec as Spec>::Output = serde_json::from_value(output).map_err(text)?;
            serde_json::to_value(&output).map_err(text)
        });
        Ok(Self {
            registry,
            kind,
            params,
            bound,
            secrets,
            reporter,
            reread_spec,
            reread_output,
            world,
            input,
            clock,
            shared,
            granted,
            _kept: kept,
        })
    }

    /// What the world looks like.
    pub(super) fn world(&self) -> String {
        (self.world)()
    }

    pub(super) fn reread_spec(&self, params: Value) -> Result<Value, String> {
        (self.reread_spec)(params)
    }

    pub(super) fn reread_output(&self, output: Value) -> Result<Value, String> {
        (self.reread_output)(output)
    }

    pub(super) fn context(&self, attempt: u32, cancel: &Cancel) -> Context {
        self.context_granted(attempt, cancel, self.granted.clone())
    }

    pub(super) fn context_granted(
        &self,
        attempt: u32,
        cancel: &Cancel,
        granted: Vec<Granted<ResourceId>>,
    ) -> Context {
        Context::new(
            Arc::clone(&self.shared),
            step_id(),
            attempt,
            granted,
            cancel.clone(),
            Vec::new(),
            Vec::new(),
        )
    }

    pub(super) async fn preview(&self) -> Result<Preview, String> {
        let context = PreviewContext {
            step: step_id(),
            granted: self.granted.clone(),
            clock: Arc::clone(&self.clock),
            secrets: Arc::clone(&self.secrets),
        };
        self.bound.preview(&context).await.map_err(|error| format!("its preview failed: {}", text(error)))
    }

    /// Runs it as attempt `attempt`.
    pub(super) async fn try_run(&self, attempt: u32) -> Result<Value, StepError> {
        self.bound.run(self.input.clone(), &self.context(attempt, &Cancel::new())).await
    }

    /// Runs it as attempt `attempt`; it must end well.
    pub(super) async fn run(&self, attempt: u32) -> Result<Value, String> {
        self.try_run(attempt).await.map_err(|error| format!("attempt {attempt} failed: {}", text(error)))
    }

    /// Runs it under `context`.
    pub(super) async fn run_in(&self, context: &Context) -> Result<Value, StepError> {
        self.bound.run(self.input.clone(), context).await
    }

    /// Runs it and drops it after `polls` polls. Whether it ended before that.
    pub(super) async fn cut(&self, polls: usize) -> Result<bool, String> {
        let context = self.context(1, &Cancel::new());
        match polled(self.bound.run(self.input.clone(), &context), polls).await {
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(format!("attempt 1 failed: {}", text(error))),
            None => Ok(false),
        }
    }

    pub(super) async fn probe(&self) -> Result<Happened<Value>, String> {
        let context = self.context(2, &Cancel::new());
        self.bound
            .probe(self.input.clone(), &context)
            .await
            .map_err(|error| format!("its probe failed: {}", text(error)))
    }

    pub(super) async fn undo(&self, output: Option<Value>) -> Result<(), String> {
        let context = self.context(2, &Cancel::new());
        self.bound.undo(output, &context).await.map_err(|error| format!("its undo failed: {}", text(error)))
    }
}

/// Polls `work` at most `polls` times, then drops it, as a process that dies there would.
pub(in crate::testkit) async fn polled<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut left = polls;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn step_id() -> StepId {
    StepId::unknown()
}

fn granted(touches: &[ResourceId]) -> Result<Vec<Granted<ResourceId>>, String> {
    let app: flowline_core::name::AppName = "trial".parse().map_err(text)?;
    let grants = touches.iter().map(|resource| {
        let resource = Pattern::new(resource.to_string()).map_err(text)?;
        Ok(Grant { app: app.clone(), resource, because: String::new() })
    });
    let grants = Grants { grants: grants.collect::<Result<_, String>>()? };
    let authority = Authority::new(app, &grants);
    touches.iter().map(|resource| authority.grant(resource).map_err(text)).collect()
}

async fn fence(store: Arc<dyn flowline_core::store::Store>, clock: &Arc<dyn Clock>) -> Result<Fence, String> {
    let key = Key::new("lease/run/trial").map_err(text)?;
    let claim = Claim::new(key, "trial", SignedDuration::from_hours(1), "a trial");
    let lease = StoreLeases::new(store, Arc::clone(clock)).acquire(&claim).await.map_err(text)?;
    Ok(lease.fence())
}
