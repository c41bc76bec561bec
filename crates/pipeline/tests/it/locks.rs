//! Named locks, semaphores, priority, and how long a step may queue.

use std::{
    collections::BTreeMap,
    num::{NonZeroU32, NonZeroUsize},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    digest::Digest,
    event::Recorded,
    id::{Key, RunId},
    lease::{Claim, Leases, StoreLeases},
    store::{
        Batch, Committed, Document, EventQuery, MemoryStore, Position, Store, StoreCapabilities, StoreError,
    },
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    plan::{Limits, Plan, Planner, Policy, Sealed},
    run::{Cause, CollectingReporter, Ended, OnFailure, Phase},
    step::{Context, FnStep, Function, StepError},
};

use crate::world::authority;

/// A clock, a store, and a function that notes who runs beside whom.
struct Bench {
    manual: ManualClock,
    clock: Arc<dyn Clock>,
    store: Arc<dyn Store>,
    registry: Registry,
    work: Function<(), ()>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    order: Arc<Mutex<Vec<String>>>,
}

impl Bench {
    fn new() -> Self {
        let manual = ManualClock::default();
        let work = Function::new("work", 1).unwrap();
        let mut registry = Registry::new();
        registry.built_as(Digest::of("build"));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let order = Arc::new(Mutex::new(Vec::new()));
        let (running, greatest, noted) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&order));
        let step = FnStep::idempotent(move |(): (), context: Context| {
            let (running, greatest, noted) =
                (Arc::clone(&running), Arc::clone(&greatest), Arc::clone(&noted));
            async move {
                noted.lock().unwrap().push(context.step().to_string());
                let count = running.fetch_add(1, Ordering::SeqCst) + 1;
                greatest.fetch_max(count, Ordering::SeqCst);
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        });
        registry.function(&work, step);
        Self {
            clock: Arc::new(manual.clone()),
            manual,
            store: Arc::new(MemoryStore::new()),
            registry,
            work,
            now,
            most,
            order,
        }
    }

    async fn plan(&self, steps: &[(&str, Policy)]) -> Sealed<Plan> {
        let mut pipeline = Pipeline::new("locked", "storefront".parse().unwrap());
        for (id, policy) in steps {
            let output = pipeline.call(id, &self.work, ());
            pipeline.policy(&output, policy.clone());
        }
        let planner = Planner::new(Arc::new(self.registry.clone()), authority(), Arc::clone(&self.clock));
        planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
    }

    fn runner(&self) -> Runner {
        let registry = Arc::new(self.registry.clone());
        Runner::new(Arc::clone(&self.store), registry, authority(), Arc::clone(&self.clock))
            .workers(NonZeroUsize::new(8).unwrap())
    }

    fn leases(&self) -> StoreLeases {
        StoreLeases::new(Arc::clone(&self.store), Arc::clone(&self.clock))
    }
}

fn locking(locks: &[&str]) -> Policy {
    let mut policy = Policy::default();
    policy.locks = locks.iter().map(ToString::to_string).collect();
    policy
}

fn permits(name: &str, count: u32) -> Policy {
    let mut policy = Policy::default();
    policy.semaphores = BTreeMap::from([(name.to_owned(), NonZeroU32::new(count).unwrap())]);
    policy
}

fn id(run: &str) -> RunId {
    RunId::new(run).unwrap()
}

fn lock(name: &str) -> Key {
    Key::new(format!("lease/lock/{name}")).unwrap()
}

#[tokio::test]
async fn steps_of_different_runs_that_name_one_lock_never_run_at_once() {
    let bench = Bench::new();
    // Opposite orders in writing: taken together, they can't wait for each other.
    let plan =
        bench.plan(&[("a", locking(&["x", "y"])), ("b", locking(&["y", "x"])), ("c", locking(&["y"]))]).await;
    let (first, second) = (bench.runner(), bench.runner());
    let (one, two) = (id("one"), id("two"));
    let (cancel, other) = (Cancel::new(), Cancel::new());
    let (one, two) = tokio::join!(first.run(&one, &plan, &cancel), second.run(&two, &plan, &other));
    assert!(one.unwrap().succeeded() && two.unwrap().succeeded());
    assert_eq!((bench.most.load(Ordering::SeqCst), bench.now.load(Ordering::SeqCst)), (1, 0));
    for name in ["x", "y"] {
        assert_eq!(bench.leases().holder(&lock(name)).await.unwrap(), None, "`{name}` was given back");
    }
}

#[tokio::test]
async fn a_semaphore_lets_as_many_through_as_it_has_permits() {
    let bench = Bench::new();
    let steps: Vec<String> = (0..9).map(|n| format!("s{n}")).collect();
    let steps: Vec<_> = steps.iter().map(|id| (id.as_str(), permits("uploads", 3))).collect();
    let plan = bench.plan(&steps).await;
    let report = bench.runner().run(&id("one"), &plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(bench.most.load(Ordering::SeqCst), 3);
}

/// Polls `future` so often.
async fn some<F: Future>(mut future: std::pin::Pin<&mut F>, polls: usize) -> Poll<F::Output> {
    for _ in 0..polls {
        let polled = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if polled.is_ready() {
            return polled;
        }
        tokio::task::yield_now().await;
    }
    Poll::Pending
}

#[tokio::test]
async fn a_lock_says_who_holds_it_and_is_taken_only_when_its_time_ran_out() {
    let bench = Bench::new();
    let plan = bench.plan(&[("deploy", locking(&["production"]))]).await;
    let claim = Claim::new(lock("production"), "ann", SignedDuration::from_secs(60), "a repair by hand");
    let _held = bench.leases().acquire(&claim).await.unwrap();
    let reporter = CollectingReporter::new();
    let runner = bench.runner().reporter(Arc::new(reporter.clone()));
    let (run, cancel) = (id("one"), Cancel::new());
    let mut walk = pin!(runner.run(&run, &plan, &cancel));
    assert!(some(walk.as_mut(), 50).await.is_pending());
    insta::assert_snapshot!(reporter.lines()[1], @"deploy: waiting, lock `production` is held by ann since 2026-01-01T00:00:00Z (a repair by hand)");
    // The run's own lease is kept meanwhile.
    for _ in 0..59 {
        bench.manual.advance(SignedDuration::from_secs(1));
        assert!(some(walk.as_mut(), 20).await.is_pending());
    }
    assert_eq!(bench.order.lock().unwrap().len(), 0);
    bench.manual.advance(SignedDuration::from_secs(1));
    assert!(walk.await.unwrap().succeeded());
}

#[tokio::test]
async fn a_lock_that_is_given_back_is_taken_at_once() {
    let bench = Bench::new();
    let plan = bench.plan(&[("deploy", locking(&["production"]))]).await;
    let claim = Claim::new(lock("production"), "ann", SignedDuration::from_secs(60), "a repair by hand");
    let held = bench.leases().acquire(&claim).await.unwrap();
    let runner = bench.runner();
    let (run, cancel) = (id("one"), Cancel::new());
    let mut walk = pin!(runner.run(&run, &plan, &cancel));
    assert!(some(walk.as_mut(), 50).await.is_pending());
    bench.leases().release(&held).await.unwrap();
    assert!(walk.await.unwrap().succeeded());
}

#[tokio::test]
async fn a_cancelled_run_leaves_no_lock() {
    let mut bench = Bench::new();
    let hangs = FnStep::idempotent(|(): (), context: Context| async move {
        assert_eq!(context.locks().len(), 1);
        context.cancelled().await;
        Err::<(), _>(StepError::failed("stopped as asked"))
    });
    bench.registry.function(&bench.work, hangs);
    let plan = bench.plan(&[("deploy", locking(&["production"])), ("next", locking(&["production"]))]).await;
    let runner = bench.runner();
    let (run, cancel) = (id("one"), Cancel::new());
    let mut walk = pin!(runner.run(&run, &plan, &cancel));
    assert!(some(walk.as_mut(), 50).await.is_pending());
    let held = bench.leases().holder(&lock("production")).await.unwrap().unwrap();
    assert_eq!(
        (held.holder.as_str(), held.reason.as_str()),
        ("run/one/deploy", "step `deploy` of run `one`")
    );
    cancel.cancel();
    let report = walk.await.unwrap();
    assert!(matches!(report.ended, Ended::Undone { cause: Cause::Cancelled, .. }), "{report:?}");
    assert_eq!(bench.leases().holder(&lock("production")).await.unwrap(), None);
}

#[tokio::test]
async fn a_step_that_queues_too_long_fails_and_says_for_what() {
    let bench = Bench::new();
    let mut policy = locking(&["production"]);
    policy.limits = Limits { queue_ms: Some(5_000), ..Limits::default() };
    let plan = bench.plan(&[("deploy", policy)]).await;
    let claim = Claim::new(lock("production"), "ann", SignedDuration::from_secs(60), "a repair by hand");
    let _held = bench.leases().acquire(&claim).await.unwrap();
    let runner = bench.runner();
    let (run, cancel) = (id("one"), Cancel::new());
    let mut walk = pin!(runner.run(&run, &plan, &cancel));
    for _ in 0..4 {
        assert!(some(walk.as_mut(), 20).await.is_pending());
        bench.manual.advance(SignedDuration::from_secs(1));
    }
    assert!(some(walk.as_mut(), 20).await.is_pending());
    bench.manual.advance(SignedDuration::from_secs(1));
    let Ended::Undone { cause, .. } = walk.await.unwrap().ended else { panic!("it is undone") };
    insta::assert_snapshot!(cause, @"step `deploy` failed: the step waited longer than it may for its turn: lock `production` is held by ann since 2026-01-01T00:00:00Z (a repair by hand)");
}

#[tokio::test]
async fn of_several_ready_steps_the_more_important_one_starts_first() {
    let bench = Bench::new();
    let important = |priority| {
        let mut policy = Policy::default();
        policy.priority = priority;
        policy
    };
    let plan = bench
        .plan(&[("a", important(0)), ("b", important(5)), ("c", important(-1)), ("d", important(5))])
        .await;
    let runner = bench.runner().workers(NonZeroUsize::MIN);
    assert!(runner.run(&id("one"), &plan, &Cancel::new()).await.unwrap().succeeded());
    assert_eq!(*bench.order.lock().unwrap(), ["b", "d", "a", "c"]);
}

#[tokio::test]
async fn a_lock_that_was_lost_fails_its_step_and_the_new_holder_keeps_it() {
    let mut bench = Bench::new();
    let hangs = FnStep::idempotent(|(): (), context: Context| async move {
        context.cancelled().await;
        Ok(())
    });
    bench.registry.function(&bench.work, hangs);
    let plan = bench.plan(&[("deploy", locking(&["production"]))]).await;
    // Locks are renewed after five seconds; somebody with a wrong clock takes it before.
    let runner = bench.runner().lease_for(SignedDuration::from_secs(15));
    let (run, cancel) = (id("one"), Cancel::new());
    let mut walk = pin!(runner.run(&run, &plan, &cancel));
    assert!(some(walk.as_mut(), 50).await.is_pending());
    let ahead = ManualClock::default();
    ahead.advance(SignedDuration::from_hours(1));
    let thief = StoreLeases::new(Arc::clone(&bench.store), Arc::new(ahead));
    let claim = Claim::new(lock("production"), "bob", SignedDuration::from_hours(1), "a wrong clock");
    let stolen = thief.acquire(&claim).await.unwrap();
    bench.manual.advance(SignedDuration::from_secs(5));
    let Ended::Undone { cause: Cause::Failed { error, .. }, .. } = walk.await.unwrap().ended else {
        panic!("it is undone")
    };
    assert!(error.contains("lost a lock") && error.contains("bob"), "{error}");
    assert_eq!(bench.leases().holder(stolen.key()).await.unwrap().unwrap().holder, "bob");
}

/// `policy` with this time to queue and the default tries.
fn queueing(mut policy: Policy, ms: u64) -> Policy {
    policy.limits = Limits { queue_ms: Some(ms), ..Limits::default() };
    policy.retry = Some(flowline_pipeline::plan::Retry::default());
    policy
}

#[tokio::test]
async fn a_step_that_queued_for_too_long_is_not_tried_again_and_was_never_started() {
    let mut bench = Bench::new();
    let once = FnStep::once(|(): (), _| std::future::ready(Ok(())));
    bench.registry.function(&bench.work, once);
    let plan = bench.plan(&[("deploy", queueing(locking(&["production"]), 5_000))]).await;
    let claim = Claim::new(lock("production"), "ann", SignedDuration::from_secs(60), "a repair by hand");
    let held = bench.leases().acquire(&claim).await.unwrap();
    let runner = bench.runner().on_failure(OnFailure::Stop);
    let (run, cancel) = (id("one"), Cancel::new());
    for refused in 1..=2 {
        let mut walk = pin!(runner.run(&run, &plan, &cancel));
        for _ in 0..5 {
            assert!(some(walk.as_mut(), 20).await.is_pending());
            bench.manual.advance(SignedDuration::from_secs(1));
        }
        let Poll::Ready(report) = some(walk.as_mut(), 100).await else { panic!("it waits for ever") };
        let report = report.unwrap();
        let Ended::Stopped { cause } = &report.ended else { panic!("{report:?}") };
        assert!(cause.to_string().contains("waited longer than it may"), "{cause}");
        let (_, step) = report.state.steps().next().unwrap();
        assert_eq!((step.attempts, step.refused), (0, refused));
        assert!(matches!(step.phase, Phase::Failed { started: false, .. }), "{step:?}");
        assert_eq!(runner.state(&run).await.unwrap(), report.state);
    }
    // Nobody need be asked about what never started.
    bench.leases().release(&held).await.unwrap();
    assert!(runner.resume(&run, &cancel).await.unwrap().succeeded());
}

/// A store that says who holds a lock only when it is let.
#[derive(Debug)]
struct Slow {
    store: Arc<dyn Store>,
    lets: Arc<tokio::sync::Semaphore>,
}

#[async_trait::async_trait]
impl Store for Slow {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.store.commit(batch).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        if key.as_str().starts_with("lease/lock/") {
            self.lets.acquire().await.unwrap().forget();
        }
        self.store.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.store.list(prefix).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.store.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.store.changed(after).await
    }
}

#[tokio::test]
async fn a_limit_that_runs_out_while_a_lock_is_being_tried_counts() {
    let mut bench = Bench::new();
    let claim = Claim::new(lock("production"), "ann", SignedDuration::from_secs(60), "a repair by hand");
    let _held = bench.leases().acquire(&claim).await.unwrap();
    let lets = Arc::new(tokio::sync::Semaphore::new(0));
    bench.store = Arc::new(Slow { store: Arc::clone(&bench.store), lets: Arc::clone(&lets) });
    for limits in [
        Limits { queue_ms: Some(5_000), ..Limits::default() },
        Limits { total_ms: Some(5_000), ..Limits::default() },
    ] {
        let mut policy = locking(&["production"]);
        policy.limits = limits;
        let plan = bench.plan(&[("deploy", policy)]).await;
        let (runner, run, cancel) =
            (bench.runner(), id(&format!("run-{}", limits.queue_ms.is_some())), Cancel::new());
        let mut walk = pin!(runner.run(&run, &plan, &cancel));
        assert!(some(walk.as_mut(), 20).await.is_pending());
        bench.manual.advance(SignedDuration::from_secs(5));
        assert!(some(walk.as_mut(), 20).await.is_pending(), "nobody has said yet whether it is free");
        lets.add_permits(1);
        let Poll::Ready(report) = some(walk.as_mut(), 100).await else { panic!("it waits for ever") };
        let Ended::Undone { cause, .. } = report.unwrap().ended else { panic!("it is undone") };
        assert!(cause.to_string().contains("waited longer than it may"), "{cause}");
    }
}

#[tokio::test]
async fn a_semaphore_has_a_sane_number_of_permits() {
    let bench = Bench::new();
    let planner = Planner::new(Arc::new(bench.registry.clone()), authority(), Arc::clone(&bench.clock));
    let draft = |count| {
        let mut pipeline = Pipeline::new("locked", "storefront".parse().unwrap());
        let output = pipeline.call("a", &bench.work, ());
        pipeline.policy(&output, permits("uploads", count));
        pipeline.draft().unwrap()
    };
    assert!(planner.plan(&draft(Policy::MAX_PERMITS)).await.is_ok());
    let error = planner.plan(&draft(u32::MAX)).await.unwrap_err();
    insta::assert_snapshot!(error, @"step `a` shares the 4294967295 permits of `uploads`, and a semaphore has 1000 at most; each permit is a lease that is looked at");
}

#[tokio::test]
async fn two_walks_that_are_not_recorded_do_not_share_their_locks() {
    let bench = Bench::new();
    let plan = bench.plan(&[("a", locking(&["x"])), ("b", locking(&["x"]))]).await;
    let (first, second) = (bench.runner(), bench.runner());
    let (run, cancel) = (id("one"), Cancel::new());
    let (one, two) =
        tokio::join!(first.run_unrecorded(&run, &plan, &cancel), second.run_unrecorded(&run, &plan, &cancel));
    assert!(one.unwrap().succeeded() && two.unwrap().succeeded());
    assert_eq!((bench.most.load(Ordering::SeqCst), bench.now.load(Ordering::SeqCst)), (1, 0));
}
