//! Starting, resuming, undoing and looking at runs: the [`Runner`].

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use flowline_core::{
    SignedDuration,
    clock::Clock,
    grant::Authority,
    id::RunId,
    journal::Journal,
    lease::{Claim, Lease, LeaseError, Leases, StoreLeases},
    store::{Batch, Durability, Store, StoreExt},
};
use serde_json::Value;

use super::{
    Cause, End, Ended, OnFailure, Progress, Report, Reporter, RunError, RunState, SilentReporter,
    fresh::{not_needed, unneeded},
    front::Stop,
    outcome::irreversible,
    record::{Names, RunStarted},
    walk::Walk,
};
use crate::{
    cancel::Cancel,
    exec::Masker,
    plan::{Plan, Sealed},
    step::{Registry, Secrets, secret_in},
};

/// Walks sealed plans. Cheap to clone; one runner may walk many runs at once.
///
/// *Guarantees*
/// 1. At most one walk of a run has effects on the journal: each holds the run's lease, and every commit carries its fence.
/// 2. A step whose completion was recorded never runs again in that run (D1); one that was started is handled by its declared effect (D2).
/// 3. Every touched resource is asked of the authority when the plan is made, when the run starts, and before each effect.
/// 4. A fresh run whose plan touches something that moved is refused before any effect, and the refusal names what moved.
/// 5. No value of [`secrets`](Self::secrets) reaches the journal, a report or another step: a plan, an output or a signal that holds one is
///    refused, reasons and lines are masked. Only what a step itself does with it outside is its own affair.
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
    pub(super) limit: Option<SignedDuration>,
    pub(super) on_failure: OnFailure,
    pub(super) any_build: bool,
    pub(super) cache: bool,
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
            limit: None,
            on_failure: OnFailure::default(),
            any_build: false,
            cache: true,
        }
    }

    /// The same, telling `reporter` what happens.
    #[must_use]
    pub fn reporter(mut self, reporter: Arc<dyn Reporter>) -> Self {
        self.reporter = reporter;
        self
    }

    /// The same with secrets that steps may ask for by name ([`Context::secret`](crate::step::Context::secret)). They never reach the
    /// journal: a step whose output holds one has failed, with [`HoldsSecret`](crate::step::HoldsSecret) as the cause.
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

    /// The same, for runs that take this long at most, from their first start to their last step, waiting at gates included and over all
    /// processes. A run that takes longer is stopped as by a cancel, with [`Cause::TimedOut`], and undone; undoing has no limit. A run that
    /// waits is due ([`Ended::Waiting`]) when its time is over. By default there is no limit.
    #[must_use]
    pub fn limit(mut self, limit: SignedDuration) -> Self {
        self.limit = Some(limit);
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

    /// The same, computing every pure step anew. What they give is kept as ever.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.cache = false;
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
                Some(_) if state.end().is_none() && state.undoing().is_none() => {
                    self.check_fresh(plan.plan(), &state).await?;
                }
                Some(_) => {}
            }
            self.walk(run, Some((names, lease)), plan, state, cancel, None).await
        })
        .await
    }

    /// Walks `plan` in memory: the same interpreter with the same steps, undo and locks, but nothing is recorded, so nobody can go on with
    /// it, and no lease keeps another walk from it. For what is cheaper to repeat than to remember.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_unrecorded(
        &self,
        run: &RunId,
        plan: &Sealed<Plan>,
        cancel: &Cancel,
    ) -> Result<Report, RunError> {
        self.check_build(plan.plan())?;
        let mut state = RunState::default();
        self.check_fresh(plan.plan(), &state).await?;
        let now = self.clock.now();
        state.begin(plan.digest(), now);
        for (node, output) in unneeded(plan.plan()) {
            state.finish(not_needed(node.id(), output, now), now);
        }
        self.walk(run, None, plan, state, cancel, None).await
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
            self.walk(run, Some((names, lease)), &plan, state, &Cancel::new(), Some(Cause::RolledBack)).await
        })
        .await
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

    pub(super) fn names(&self, run: &RunId) -> Result<Names, RunError> {
        Names::of(run, &self.actor).map_err(|error| RunError::Name(error.to_string()))
    }

    pub(super) async fn fold(&self, names: &Names) -> Result<RunState, RunError> {
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
    pub(super) async fn held<T>(
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
        let holder = self.holder.clone().unwrap_or_else(|| format!("{}/{}", self.actor, unique()));
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
        let mut state = RunState::default();
        self.check_fresh(plan.plan(), &state).await?;
        let now = self.clock.now();
        let started = RunStarted { plan: plan.digest(), steps: plan.plan().nodes().len() };
        let broken = |error: &dyn std::error::Error| RunError::Broken(error.to_string());
        // The plan is kept for long and shown to many.
        let masker = Masker::new(self.secrets.values());
        if !masker.is_empty() {
            let shown = plan.to_value().map_err(|error| broken(&error))?;
            if let Some(secret) = secret_in(&self.secrets, &masker, &shown) {
                return Err(RunError::Secret(secret));
            }
        }
        // As text: a value of a large plan takes several times its memory.
        let written = plan.to_text().map_err(|error| broken(&error))?;
        let mut batch = Batch::new()
            .durably(Durability::Synced)
            .fenced(lease.fence())
            .put(names.plan.clone(), Value::String(written))
            .append(names.stream.clone(), names.event(&started, "started", None, now)?);
        state.begin(plan.digest(), now);
        for (node, output) in unneeded(plan.plan()) {
            let fact = not_needed(node.id(), output, now);
            self.reporter.report(&Progress::Skipped { step: node.id(), reason: &fact.why.to_string() });
            let event = names.event(&fact, "finished", Some(node.id()), now)?;
            batch.append.push((names.stream.clone(), event));
            state.finish(fact, now);
        }
        self.store.commit(batch).await?;
        Ok(state)
    }

    async fn walk(
        &self,
        run: &RunId,
        held: Option<(&Names, &Lease)>,
        plan: &Sealed<Plan>,
        state: RunState,
        cancel: &Cancel,
        undo: Option<Cause>,
    ) -> Result<Report, RunError> {
        let report = |ended: Ended, state| {
            self.reporter.report(&Progress::Ended { outcome: ended.name() });
            Report { run: run.clone(), ended, state }
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
            run,
            plan: plan.digest(),
            steps: plan.plan().nodes().len(),
            done: state.done(),
        });
        let cause = undo.or_else(|| state.undoing().cloned());
        let mut walk = Walk::new(self, run, plan, state, held)?;
        let cause = match cause {
            Some(cause) => cause,
            // Boxed, as it is large and whoever waits for a run should not be.
            None => match Box::pin(walk.forward(cancel)).await? {
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
                Stop::Cause(cause) => cause,
            },
        };
        Box::pin(walk.backward(&cause)).await?;
        if walk.table.undo_failed_somewhere() {
            let state = walk.into_state();
            let failures = state.undo_failures();
            return Ok(report(Ended::UndoIncomplete { cause, failures }, state));
        }
        walk.end(End::Undone).await?;
        let state = walk.into_state();
        let irreversible = irreversible(plan.plan(), &state);
        Ok(report(Ended::Undone { cause, irreversible }, state))
    }
}

/// A name that no other walk has, in whatever process, container or host: a process's number alone is the same in many containers.
pub(super) fn unique() -> String {
    static PROCESS: OnceLock<u64> = OnceLock::new();
    static WALKS: AtomicU64 = AtomicU64::new(0);
    // The system's randomness, which the standard library gives only as the seed of a hash.
    let process = PROCESS.get_or_init(|| RandomState::new().hash_one(std::process::id()));
    format!("{}-{process:016x}-{}", std::process::id(), WALKS.fetch_add(1, Ordering::Relaxed))
}
