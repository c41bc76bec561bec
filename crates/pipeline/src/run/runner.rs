//! Starting, resuming, undoing and looking at runs: the [`Runner`].

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::Clock,
    grant::Authority,
    id::RunId,
    journal::Journal,
    lease::{Claim, Lease, LeaseError, Leases, StoreLeases},
    store::{Batch, Durability, Store, StoreExt},
};
use futures_util::{StreamExt, stream};
use serde_json::Value;

use super::{
    Cause, End, How, Moved, Progress, Reporter, RunError, RunState, SilentReporter,
    record::{Names, RunStarted, StepFinished, StepResolved, StepSignalled},
    state::Phase,
    walk::{Stop, Walk},
};
use crate::{
    cancel::Cancel,
    exec::Masker,
    plan::{Action, Approval, Effect, Plan, PlannedNode, Sealed, StepId},
    step::{PreviewContext, Registry, Secrets},
};

/// What happens when a step failed for good, or the run is cancelled. Steps that run already are let finish (or, on cancel, asked to stop);
/// nothing new starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// Everything that was done is undone, in reverse order.
    #[default]
    Undo,
    /// It stays as it is; resuming the run tries the failed step again.
    Stop,
}

/// How a walk ended.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// Every step is done.
    Succeeded,
    /// Everything that can be undone is undone.
    Undone {
        /// Why.
        cause: Cause,
        /// Steps that took effect and can't be taken back, as the plan said.
        irreversible: Vec<StepId>,
    },
    /// Some steps could not be undone. Resuming the run tries them again.
    UndoIncomplete {
        /// Why the run is undone.
        cause: Cause,
        /// Each step that is left, with why.
        failures: BTreeMap<StepId, String>,
    },
    /// A step failed or the run was cancelled, and everything stays as it is. Resuming goes on from there.
    Stopped {
        /// Why.
        cause: Cause,
    },
    /// Everything else is done, and these steps wait for something from outside. Resuming the run after [`Runner::signal`], or after `wake`,
    /// asks them again; no process need live meanwhile.
    Waiting {
        /// Each step, with what it waits for.
        steps: BTreeMap<StepId, String>,
        /// When asking again can help even if nothing was signalled.
        wake: Option<Timestamp>,
    },
    /// Nobody but a person can say whether these steps took effect; see [`Runner::resolve`].
    NeedsPerson {
        /// Each step, with why.
        steps: BTreeMap<StepId, String>,
    },
}

impl Ended {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Undone { .. } => "undone",
            Self::UndoIncomplete { .. } => "undone in part",
            Self::Stopped { .. } => "stopped",
            Self::Waiting { .. } => "is waiting",
            Self::NeedsPerson { .. } => "needs a person",
        }
    }
}

/// How a walk ended, and what became of every step.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a run that failed is no error; look how it ended"]
pub struct Report {
    /// The run.
    pub run: RunId,
    /// How the walk ended.
    pub ended: Ended,
    /// What became of every step.
    pub state: RunState,
}

impl Report {
    /// Whether every step is done.
    pub fn succeeded(&self) -> bool {
        self.ended == Ended::Succeeded
    }
}

/// What a person says about a step that nobody can ask about.
#[derive(Debug, Clone, PartialEq)]
pub enum Resolution {
    /// It took effect, and gave this.
    Happened(Value),
    /// It did not; it may run.
    DidNotHappen,
}

/// Walks sealed plans. Cheap to clone; one runner may walk many runs at once.
///
/// *Guarantees*
/// 1. At most one walk of a run has effects on the journal: each holds the run's lease, and every commit carries its fence.
/// 2. A step whose completion was recorded never runs again in that run (D1); one that was started is handled by its declared effect (D2).
/// 3. Every touched resource is asked of the authority when the plan is made, when the run starts, and before each effect.
/// 4. A fresh run whose plan touches something that moved is refused before any effect, and the refusal names what moved.
///
/// *Cancellation*: the [`Cancel`] leads to an orderly end. Dropping the future is like killing the process: what ran is dropped where it
/// stood, and the run can be resumed as soon as the lease runs out, or at once under the same [`holder`](Self::holder).
#[derive(Debug, Clone)]
pub struct Runner {
    pub(super) store: Arc<dyn Store>,
    pub(super) registry: Arc<Registry>,
    pub(super) authority: Authority,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) leases: Arc<dyn Leases>,
    pub(super) reporter: Arc<dyn Reporter>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) workers: usize,
    pub(super) actor: String,
    pub(super) holder: Option<String>,
    pub(super) ttl: SignedDuration,
    pub(super) grace: SignedDuration,
    pub(super) on_failure: OnFailure,
    pub(super) any_build: bool,
}

impl Runner {
    /// Walks with the kinds of `registry`, within what `authority` allows, and keeps everything in `store`.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        authority: Authority,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let leases = Arc::new(StoreLeases::new(Arc::clone(&store), Arc::clone(&clock)));
        Self {
            store,
            registry,
            authority,
            clock,
            leases,
            reporter: Arc::new(SilentReporter),
            secrets: Arc::default(),
            workers: 4,
            actor: "flowline".to_owned(),
            holder: None,
            ttl: SignedDuration::from_secs(15),
            grace: SignedDuration::from_secs(10),
            on_failure: OnFailure::default(),
            any_build: false,
        }
    }

    /// The same, telling `reporter` what happens.
    #[must_use]
    pub fn reporter(mut self, reporter: Arc<dyn Reporter>) -> Self {
        self.reporter = reporter;
        self
    }

    /// The same with secrets that steps may ask for by name. They never reach the journal.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same, running at most `workers` steps at once (4 by default).
    #[must_use]
    pub fn workers(mut self, workers: NonZeroUsize) -> Self {
        self.workers = workers.get();
        self
    }

    /// The same, on behalf of `actor`: who the events name.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// The same, holding runs under this name, so that a new process takes over at once from a dead one of the same name. Only for a name
    /// under which no two processes can live, such as one that a lock file guards. By default each walk has a name of its own, and a
    /// successor waits until the lease of a dead one runs out.
    #[must_use]
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }

    /// The same with leases of this length (15 s by default), renewed at a third of it.
    #[must_use]
    pub fn lease_for(mut self, ttl: SignedDuration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The same, giving steps this time to stop after a cancel or a limit (10 s by default).
    #[must_use]
    pub fn grace(mut self, grace: SignedDuration) -> Self {
        self.grace = grace;
        self
    }

    /// The same with this answer to failure.
    #[must_use]
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// The same, resuming plans whose functions were sealed with another build of the deployer.
    #[must_use]
    pub fn allow_other_build(mut self) -> Self {
        self.any_build = true;
        self
    }

    /// Runs `plan` under the id `run`, or goes on with it if it was started before. A run that reached its end is only reported.
    ///
    /// # Errors
    /// [`RunError`]: the plan is stale or not allowed any more, another plan has that id, another process walks the run, or the store fails.
    /// A failing step is no error.
    pub async fn run(&self, run: &RunId, plan: &Sealed<Plan>, cancel: &Cancel) -> Result<Report, RunError> {
        self.check_build(plan.plan())?;
        let names = self.names(run)?;
        self.held(names, "run", async |names, lease| {
            let mut state = self.fold(names).await?;
            match state.plan() {
                None => state = self.start(names, lease, plan).await?,
                Some(running) if running != plan.digest() => {
                    return Err(RunError::OtherPlan { run: run.clone(), running, asked: plan.digest() });
                }
                Some(_) => {}
            }
            self.walk(names, lease, plan, state, cancel, None).await
        })
        .await
    }

    /// Goes on with a run whose plan is in the store.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`RunError::NoRun`].
    pub async fn resume(&self, run: &RunId, cancel: &Cancel) -> Result<Report, RunError> {
        let plan = self.plan(run).await?;
        self.run(run, &plan, cancel).await
    }

    /// Undoes a run, finished or not, with the same machinery as a failure does.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub async fn rollback(&self, run: &RunId) -> Result<Report, RunError> {
        let plan = self.plan(run).await?;
        self.check_build(plan.plan())?;
        let names = self.names(run)?;
        self.held(names, "rollback", async |names, lease| {
            let state = self.fold(names).await?;
            self.walk(names, lease, &plan, state, &Cancel::new(), Some(Cause::RolledBack)).await
        })
        .await
    }

    /// Says for a person what became of a step that was cut short and can't be asked about. The run can then be resumed.
    ///
    /// # Errors
    /// [`RunError::NotWaiting`] if the step is not in that state, and as [`resume`](Self::resume).
    pub async fn resolve(&self, run: &RunId, step: &StepId, resolution: Resolution) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let names = self.names(run)?;
        self.held(names, "resolve", async |names, lease| {
            let state = self.fold(names).await?;
            let node = plan.plan().nodes().iter().find(|node| node.id() == step);
            let found = state.step(step);
            let cut_short =
                matches!(found.map(|found| &found.phase), Some(Phase::Started | Phase::Failed { .. }));
            let (Some(node), Some(found), true) = (node, found, cut_short) else {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            };
            if !node.effect.is_delicate() {
                return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
            }
            let happened = match resolution {
                Resolution::Happened(output) => Some(output),
                Resolution::DidNotHappen => None,
            };
            let fact = StepResolved { step: step.clone(), happened };
            let which = format!("resolved{}", found.attempts);
            let event = names.event(&fact, &which, Some(step), self.clock.now())?;
            let batch = Batch::new().durably(Durability::Synced).fenced(lease.fence());
            self.store.commit(batch.append(names.stream.clone(), event)).await?;
            Ok(())
        })
        .await
    }

    /// Tells a step of a run something from outside: an approval, a callback. The same `id` is heard once. The run may be walked by
    /// somebody else meanwhile; whoever walks it next hands the signal to the step ([`Context::signals`](crate::step::Context::signals)).
    ///
    /// # Errors
    /// [`RunError::NoRun`], [`RunError::NotWaiting`] if the plan has no such step, and those of the store.
    pub async fn signal(&self, run: &RunId, step: &StepId, id: &str, signal: Value) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        if !plan.plan().nodes().iter().any(|node| node.id() == step) {
            return Err(RunError::NotWaiting { run: run.clone(), step: step.clone() });
        }
        let names = self.names(run)?;
        let fact = StepSignalled { step: step.clone(), signal };
        let event = names.event(&fact, &format!("signal-{id}"), Some(step), self.clock.now())?;
        let batch = Batch::new().durably(Durability::Synced).append(names.stream.clone(), event);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Gives an approval to a gate of a run: [`signal`](Self::signal) with the approver as its id.
    ///
    /// # Errors
    /// As `signal`, and if the approval does not count for the run's plan now.
    pub async fn approve(&self, run: &RunId, gate: &StepId, approval: &Approval) -> Result<(), RunError> {
        let plan = self.plan(run).await?;
        let counts = approval.check(&plan, self.clock.now(), true);
        counts.map_err(|source| RunError::Approval { run: run.clone(), source })?;
        let value = serde_json::to_value(approval).map_err(|error| RunError::Broken(error.to_string()))?;
        let id = format!("{}-{}", approval.by, approval.at.as_second());
        self.signal(run, gate, &id, value).await
    }

    /// What became of a run so far; of one that was never started, an empty state.
    ///
    /// # Errors
    /// Those of the store, and events of another shape.
    pub async fn state(&self, run: &RunId) -> Result<RunState, RunError> {
        self.fold(&self.names(run)?).await
    }

    /// The plan of a run.
    ///
    /// # Errors
    /// [`RunError::NoRun`], or the stored plan is damaged.
    pub async fn plan(&self, run: &RunId) -> Result<Sealed<Plan>, RunError> {
        let names = self.names(run)?;
        let stored = self.store.get::<Value>(&names.plan).await?;
        let (_, value) = stored.ok_or_else(|| RunError::NoRun(run.clone()))?;
        Sealed::open_value(&value).map_err(|source| RunError::Plan { run: run.clone(), source })
    }

    fn names(&self, run: &RunId) -> Result<Names, RunError> {
        Names::of(run, &self.actor).map_err(|error| RunError::Name(error.to_string()))
    }

    async fn fold(&self, names: &Names) -> Result<RunState, RunError> {
        let journal = Journal::new(Arc::clone(&self.store));
        let folded = journal.fold(&names.stream, RunState::default(), |mut state, recorded| {
            state.apply(recorded)?;
            Ok(state)
        });
        Ok(folded.await?)
    }

    fn check_build(&self, plan: &Plan) -> Result<(), RunError> {
        match plan.build() {
            Some(sealed) if !self.any_build && self.registry.build() != Some(sealed) => {
                Err(RunError::OtherBuild { sealed, this: self.registry.build() })
            }
            _ => Ok(()),
        }
    }

    /// Does `work` while holding the run's lease, and gives it back.
    async fn held<T>(
        &self,
        names: Names,
        reason: &str,
        work: impl AsyncFnOnce(&Names, &Lease) -> Result<T, RunError>,
    ) -> Result<T, RunError> {
        let lease = self.acquire(&names, reason).await?;
        let done = work(&names, &lease).await;
        // If it can't be given back, it was lost or runs out by itself; neither changes what was done.
        self.leases.release(&lease).await.ok();
        done
    }

    /// Takes the lease; of a holder that does not renew it before it runs out, nobody will hear again.
    async fn acquire(&self, names: &Names, reason: &str) -> Result<Lease, RunError> {
        static WALKS: AtomicU64 = AtomicU64::new(0);
        let holder = self.holder.clone().unwrap_or_else(|| {
            let walk = WALKS.fetch_add(1, Ordering::Relaxed);
            format!("{}/{}-{walk}", self.actor, std::process::id())
        });
        let claim = Claim::new(names.lease.clone(), holder, self.ttl, reason);
        let busy = |source| RunError::Busy { run: names.run.clone(), source };
        match self.leases.acquire(&claim).await {
            Ok(lease) => Ok(lease),
            Err(LeaseError::Held { held, .. }) => {
                self.clock.sleep_until(held.expires).await;
                self.leases.acquire(&claim).await.map_err(|error| match error {
                    LeaseError::Held { .. } => busy(error),
                    other => other.into(),
                })
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Checks that the plan is still what it was, and records that the run begins.
    async fn start(&self, names: &Names, lease: &Lease, plan: &Sealed<Plan>) -> Result<RunState, RunError> {
        self.check_fresh(plan.plan()).await?;
        let now = self.clock.now();
        let started = RunStarted { plan: plan.digest(), steps: plan.plan().nodes().len() };
        let written = plan.to_value().map_err(|error| RunError::Broken(error.to_string()))?;
        let mut batch = Batch::new()
            .durably(Durability::Synced)
            .fenced(lease.fence())
            .put(names.plan.clone(), written)
            .append(names.stream.clone(), names.event(&started, "started", None, now)?);
        let mut state = RunState::default();
        state.begin(plan.digest());
        for (node, output) in unneeded(plan.plan()) {
            let fact = StepFinished {
                step: node.id().clone(),
                attempt: 0,
                started: now,
                how: How::Skipped,
                output,
                reason: Some("everything it would do is as it should be".to_owned()),
            };
            let event = names.event(&fact, "finished", Some(node.id()), now)?;
            batch.append.push((names.stream.clone(), event));
            state.finish(fact, now);
        }
        self.store.commit(batch).await?;
        Ok(state)
    }

    /// Looks at every touched resource again.
    async fn check_fresh(&self, plan: &Plan) -> Result<(), RunError> {
        const AT_ONCE: usize = 16;
        // Made before the stream, so that the whole future can be sent between threads.
        let mut looks = Vec::new();
        for node in plan.nodes() {
            if !node.touches.is_empty() {
                looks.push(self.look(plan, node));
            }
        }
        let mut looks = stream::iter(looks).buffered(AT_ONCE);
        let mut moved: BTreeMap<_, Moved> = BTreeMap::new();
        while let Some(found) = looks.next().await {
            for found in found? {
                moved.entry(found.resource.clone()).or_insert(found);
            }
        }
        if moved.is_empty() { Ok(()) } else { Err(RunError::Stale(moved.into_values().collect())) }
    }

    async fn look(&self, plan: &Plan, node: &PlannedNode) -> Result<Vec<Moved>, RunError> {
        let step = || node.id().clone();
        let granted: Result<Vec<_>, _> =
            node.touches.iter().map(|touch| self.authority.grant(touch)).collect();
        let context = PreviewContext {
            step: step(),
            granted: granted.map_err(|source| RunError::Denied { step: step(), source })?,
            clock: Arc::clone(&self.clock),
            secrets: Arc::clone(&self.secrets),
        };
        let bound = self
            .registry
            .resolve(&node.node.kind, &node.node.params)
            .map_err(|source| RunError::Resolve { step: step(), source })?;
        let preview =
            bound.preview(&context).await.map_err(|source| RunError::Look { step: step(), source })?;
        let moved = preview.resources.into_iter().filter_map(|observed| {
            let planned = *plan.fingerprints().get(&observed.resource)?;
            let (resource, found) = (observed.resource, observed.fingerprint);
            (planned != found).then(|| Moved { resource, step: step(), planned, found })
        });
        Ok(moved.collect())
    }

    async fn walk(
        &self,
        names: &Names,
        lease: &Lease,
        plan: &Sealed<Plan>,
        state: RunState,
        cancel: &Cancel,
        undo: Option<Cause>,
    ) -> Result<Report, RunError> {
        let report = |ended: Ended, state| {
            self.reporter.report(&Progress::Ended { outcome: ended.name() });
            Report { run: names.run.clone(), ended, state }
        };
        if state.end() == Some(End::Succeeded) && undo.is_none() {
            return Ok(report(Ended::Succeeded, state));
        }
        if let (Some(End::Undone), Some(cause)) = (state.end(), state.undoing()) {
            let ended =
                Ended::Undone { cause: cause.clone(), irreversible: irreversible(plan.plan(), &state) };
            return Ok(report(ended, state));
        }
        self.reporter.report(&Progress::Begun {
            run: &names.run,
            plan: plan.digest(),
            steps: plan.plan().nodes().len(),
            done: state.done(),
        });
        let cause = undo.or_else(|| state.undoing().cloned());
        let mut walk = Walk::new(self, names, lease, plan, state, Masker::new(self.secrets.values()));
        let cause = match cause {
            Some(cause) => Some(cause),
            None => match walk.forward(cancel).await? {
                Stop::Done => {
                    walk.end(End::Succeeded).await?;
                    return Ok(report(Ended::Succeeded, walk.into_state()));
                }
                Stop::Waiting(steps, wake) => {
                    return Ok(report(Ended::Waiting { steps, wake }, walk.into_state()));
                }
                Stop::Person(steps) => return Ok(report(Ended::NeedsPerson { steps }, walk.into_state())),
                Stop::Cause(cause) if self.on_failure == OnFailure::Stop => {
                    return Ok(report(Ended::Stopped { cause }, walk.into_state()));
                }
                Stop::Cause(cause) => Some(cause),
            },
        };
        let Some(cause) = cause else { return Err(RunError::Broken("a walk without end".to_owned())) };
        walk.backward(&cause).await?;
        let failures = walk.state().undo_failures();
        if failures.is_empty() {
            walk.end(End::Undone).await?;
            let state = walk.into_state();
            let irreversible = irreversible(plan.plan(), &state);
            return Ok(report(Ended::Undone { cause, irreversible }, state));
        }
        Ok(report(Ended::UndoIncomplete { cause, failures }, walk.into_state()))
    }
}

/// The steps that took effect, or may have, and can't be taken back.
fn irreversible(plan: &Plan, state: &RunState) -> Vec<StepId> {
    plan.irreversible()
        .filter(|node| state.step(node.id()).is_some_and(|step| step.phase != Phase::Waiting))
        .map(|node| node.id().clone())
        .collect()
}

/// The steps that found everything as it should be, whose output is known, and before which nothing of the plan changes what they touch.
fn unneeded(plan: &Plan) -> impl Iterator<Item = (&PlannedNode, Value)> {
    let changed: std::collections::BTreeSet<_> = plan
        .nodes()
        .iter()
        .filter(|node| node.action() != Action::Keep)
        .flat_map(|node| &node.touches)
        .collect();
    plan.nodes().iter().filter_map(move |node| {
        let known = node.preview.as_ref()?.known.clone()?;
        let kept = node.action() == Action::Keep
            && node.effect != Effect::Pure
            && !node.touches.is_empty()
            && node.touches.iter().all(|touch| !changed.contains(touch));
        kept.then_some((node, known))
    })
}
