use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    error::{ErrorKind, Kinded, chain},
    id::RunId,
    journal::Journal,
    secret::Secret,
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    pipeline::Constant,
    plan::{Limits, Planner, Policy, Retry, StepId},
    run::{Cause, CollectingReporter, Ended, OnFailure, Phase, Resolution, RunError},
    step::{Context, FnStep, Function, Secrets, StepError},
    steps::{
        ApprovalGate, ApprovalGateStep, Pause, PauseStep, SignalGate, SignalGateStep, TimeGate, TimeGateStep,
    },
    testkit::{CrashPoint, Trial, WrapStore, crash_matrix, durability},
};

use crate::world::{Kit, authority};

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::default())
}

pub(crate) fn run_id() -> RunId {
    RunId::new("deploy-7").unwrap()
}

pub(crate) fn step(id: &str) -> StepId {
    StepId::new(id).unwrap()
}

pub(crate) fn runner(kit: &Kit, store: &Arc<dyn Store>, clock: &Arc<dyn Clock>) -> Runner {
    let registry = Arc::new(kit.registry.clone());
    Runner::new(Arc::clone(store), registry, authority(), Arc::clone(clock)).holder("test")
}

pub(crate) fn alone(function: &Function<u64, u64>, policy: Policy) -> flowline_pipeline::Draft {
    let mut pipeline = Pipeline::new("alone", "storefront".parse().unwrap());
    let only = pipeline.call("only", function, Constant(1));
    pipeline.policy(&only, policy);
    pipeline.draft().unwrap()
}

/// Polls `future` one time.
pub(crate) async fn once<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await
}

pub(crate) fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

#[tokio::test]
async fn every_step_runs_once_and_outputs_flow() {
    let (kit, clock, store, reporter) = (Kit::new(), clock(), memory(), CollectingReporter::new());
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let runner = runner(&kit, &store, &clock).reporter(Arc::new(reporter.clone()));
    let report = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    let output = |id: &str| match &report.state.step(&step(id)).unwrap().phase {
        Phase::Finished { output, .. } => output.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((output("a"), output("b"), output("d")), (2.into(), 3.into(), 4.into()));
    insta::assert_snapshot!(reporter.lines().join("\n").replace(&sealed.digest().short(), "PLAN"), @r"
    run deploy-7: 4 steps of plan PLAN
    a: started
    a: finished; it was its turn
    b: started
    c: started
    b: finished; it was its turn
    c: finished; it was its turn
    d: started
    d: finished; it was its turn
    run succeeded
    ");
    // The state is what the journal says.
    assert_eq!(runner.state(&run_id()).await.unwrap(), report.state);
    // Starting again under the same id does nothing.
    let again = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    assert_eq!(again.state, report.state);
    assert_eq!(kit.world.all(), BTreeMap::from(["b", "c", "d"].map(|id| (id.to_owned(), 1))));
    let kinds: Vec<_> = Journal::new(store)
        .read(&flowline_core::id::StreamId::new("run/deploy-7").unwrap())
        .await
        .unwrap()
        .into_iter()
        .map(|recorded| recorded.event.id.to_string())
        .collect();
    insta::assert_snapshot!(kinds.join("\n"), @r"
    deploy-7/started
    deploy-7/finished/a
    deploy-7/started1/b
    deploy-7/started1/c
    deploy-7/finished/b
    deploy-7/finished/c
    deploy-7/started1/d
    deploy-7/finished/d
    deploy-7/succeeded
    ");
}

#[tokio::test]
async fn a_failure_undoes_everything_in_reverse_order() {
    let (kit, clock, store, reporter) = (Kit::new(), clock(), memory(), CollectingReporter::new());
    let sealed = kit.sealed(&kit.draft(true), &clock).await;
    let runner = runner(&kit, &store, &clock).reporter(Arc::new(reporter.clone()));
    let report = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    let cause = Cause::Failed { step: step("e"), error: "the smoke test failed".to_owned() };
    assert_eq!(report.ended, Ended::Undone { cause, irreversible: Vec::new() });
    let undone: Vec<_> = reporter.lines().into_iter().filter(|line| line.ends_with(": undone")).collect();
    assert_eq!(undone, ["e: undone", "d: undone", "c: undone", "b: undone"]);
    assert!(kit.world.all().is_empty());
    assert_eq!(runner.state(&run_id()).await.unwrap(), report.state);
    let again = runner.resume(&run_id(), &Cancel::new()).await.unwrap();
    assert_eq!(again.ended, report.ended, "an undone run stays undone");
}

#[tokio::test]
async fn a_finished_run_is_rolled_back_by_the_same_machinery() {
    let (kit, clock, store) = (Kit::new(), clock(), memory());
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let runner = runner(&kit, &store, &clock);
    assert!(runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap().succeeded());
    let report = runner.rollback(&run_id()).await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::RolledBack, irreversible: Vec::new() });
    assert!(kit.world.all().is_empty());
    let missing = runner.rollback(&RunId::new("other").unwrap()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn killed_anywhere_it_converges_and_nothing_finished_runs_again() {
    for failing in [false, true] {
        let report = crash_matrix(async |clock: Arc<dyn Clock>| {
            let kit = Kit::new();
            let plan = kit.sealed(&kit.draft(failing), &clock).await;
            let world = kit.world.clone();
            Trial::new(Arc::new(kit.registry), authority(), plan).check(move |ended| {
                let expected = match ended {
                    Ended::Succeeded => BTreeMap::from(["b", "c", "d"].map(|id| (id.to_owned(), 1))),
                    _ => BTreeMap::new(),
                };
                if world.all() == expected { Ok(()) } else { Err(format!("{ended:?}: {:?}", world.all())) }
            })
        })
        .await
        .unwrap_or_else(|violation| panic!("{violation}"));
        assert!(report.crashes > 50, "{report:?}");
        assert_eq!(report.ended == Ended::Succeeded, !failing);
    }
}

#[tokio::test]
async fn the_matrix_catches_a_step_that_claims_to_be_idempotent() {
    let found = crash_matrix(async |clock: Arc<dyn Clock>| {
        let mut kit = Kit::new();
        let world = kit.world.clone();
        let step = FnStep::idempotent(move |n: u64, context: Context| {
            world.apply_again(context.step().as_str());
            std::future::ready(Ok(n + 1))
        });
        kit.registry.function(&kit.idempotent, step);
        let plan = kit.sealed(&kit.draft(false), &clock).await;
        let world = kit.world.clone();
        Trial::new(Arc::new(kit.registry), authority(), plan).check(move |_| {
            if world.count("b") == 1 { Ok(()) } else { Err(format!("b: {}", world.count("b"))) }
        })
    })
    .await
    .unwrap_err();
    assert_eq!((found.promise, found.detail.as_str()), ("the world agrees", "b: 2"));
    assert!(matches!(found.at[..], [CrashPoint::Commit(..)]), "{found}");
}

#[tokio::test]
async fn the_matrix_catches_an_undo_that_needs_its_effect_and_a_store_that_forgets() {
    let found = crash_matrix(async |clock: Arc<dyn Clock>| {
        let mut kit = Kit::new();
        let (world, gone) = (kit.world.clone(), kit.world.clone());
        let step = FnStep::idempotent(move |n: u64, context: Context| {
            world.apply(context.step().as_str(), "once");
            std::future::ready(Ok(n + 1))
        })
        .undone_by(move |_, context: Context| {
            let there = gone.count(context.step().as_str()) > 0;
            gone.undo(context.step().as_str());
            std::future::ready(if there {
                Ok(())
            } else {
                Err(StepError::failed("there is nothing to undo"))
            })
        });
        kit.registry.function(&kit.idempotent, step);
        let plan = kit.sealed(&kit.draft(true), &clock).await;
        Trial::new(Arc::new(kit.registry), authority(), plan)
    })
    .await
    .unwrap_err();
    assert_eq!(found.promise, "it converges", "{found}");

    let found = crash_matrix(async |clock: Arc<dyn Clock>| {
        let kit = Kit::new();
        let plan = kit.sealed(&kit.draft(false), &clock).await;
        let trial = Trial::new(Arc::new(kit.registry), authority(), plan);
        trial.wrap_store(|store| Arc::new(Forgetful(store)))
    })
    .await
    .unwrap_err();
    assert_eq!(found.promise, "nothing finished runs again", "{found}");
}

#[tokio::test]
async fn records_live_as_long_as_they_must_and_the_disk_is_waited_for_no_more_than_that() {
    let trial = |failing: bool, wrap_store: Option<WrapStore>| {
        move |clock: Arc<dyn Clock>| async move {
            let kit = Kit::new();
            let plan = kit.sealed(&kit.draft(failing), &clock).await;
            let trial = Trial::new(Arc::new(kit.registry), authority(), plan);
            match wrap_store {
                Some(wrap) => trial.wrap_store(wrap),
                None => trial,
            }
        }
    };
    durability(trial(true, None)).await.unwrap();
    let report = durability(trial(false, None)).await.unwrap();
    // The lease twice, the beginning, the starts of `c` (with `b`'s) and `d`, the end.
    assert_eq!(report.synced, 6, "{report:?}");
    let weak = durability(trial(false, Some(|store| Arc::new(Weak(store))))).await.unwrap_err();
    assert_eq!(weak.promise, "leases survive the loss of power", "{weak}");
    let forgetful = durability(trial(false, Some(|store| Arc::new(Forgetful(store))))).await.unwrap_err();
    assert_eq!(forgetful.promise, "a step starts after the records of all that it waits for", "{forgetful}");
}

/// Never waits for the disk.
#[derive(Debug)]
struct Weak(Arc<dyn Store>);

/// Says that it wrote what was finished, and did not.
#[derive(Debug)]
struct Forgetful(Arc<dyn Store>);

#[async_trait::async_trait]
impl Store for Forgetful {
    fn capabilities(&self) -> flowline_core::store::StoreCapabilities {
        self.0.capabilities()
    }
    async fn commit(
        &self,
        mut batch: flowline_core::store::Batch,
    ) -> Result<flowline_core::store::Committed, flowline_core::store::StoreError> {
        batch.append.retain(|(_, event)| !event.id.as_str().ends_with("finished/a"));
        self.0.commit(batch).await
    }
    async fn read(
        &self,
        key: &flowline_core::id::Key,
    ) -> Result<Option<flowline_core::store::Document>, flowline_core::store::StoreError> {
        self.0.read(key).await
    }
    async fn list(
        &self,
        prefix: &str,
    ) -> Result<Vec<(flowline_core::id::Key, flowline_core::store::Document)>, flowline_core::store::StoreError>
    {
        self.0.list(prefix).await
    }
    async fn events(
        &self,
        query: flowline_core::store::EventQuery,
    ) -> Result<Vec<flowline_core::event::Recorded>, flowline_core::store::StoreError> {
        self.0.events(query).await
    }
    async fn head(&self) -> Result<flowline_core::store::Position, flowline_core::store::StoreError> {
        self.0.head().await
    }
    async fn changed(
        &self,
        after: flowline_core::store::Position,
    ) -> Result<flowline_core::store::Position, flowline_core::store::StoreError> {
        self.0.changed(after).await
    }
}

#[async_trait::async_trait]
impl Store for Weak {
    fn capabilities(&self) -> flowline_core::store::StoreCapabilities {
        self.0.capabilities()
    }
    async fn commit(
        &self,
        mut batch: flowline_core::store::Batch,
    ) -> Result<flowline_core::store::Committed, flowline_core::store::StoreError> {
        batch.durability = flowline_core::store::Durability::Written;
        self.0.commit(batch).await
    }
    async fn read(
        &self,
        key: &flowline_core::id::Key,
    ) -> Result<Option<flowline_core::store::Document>, flowline_core::store::StoreError> {
        self.0.read(key).await
    }
    async fn list(
        &self,
        prefix: &str,
    ) -> Result<Vec<(flowline_core::id::Key, flowline_core::store::Document)>, flowline_core::store::StoreError>
    {
        self.0.list(prefix).await
    }
    async fn events(
        &self,
        query: flowline_core::store::EventQuery,
    ) -> Result<Vec<flowline_core::event::Recorded>, flowline_core::store::StoreError> {
        self.0.events(query).await
    }
    async fn head(&self) -> Result<flowline_core::store::Position, flowline_core::store::StoreError> {
        self.0.head().await
    }
    async fn changed(
        &self,
        after: flowline_core::store::Position,
    ) -> Result<flowline_core::store::Position, flowline_core::store::StoreError> {
        self.0.changed(after).await
    }
}

#[tokio::test]
async fn a_step_that_must_not_happen_twice_stops_for_a_person() {
    let (mut kit, clock, store) = (Kit::new(), clock(), memory());
    let world = kit.world.clone();
    let step_code = FnStep::once(move |n: u64, context: Context| {
        let world = world.clone();
        async move {
            world.apply_again(context.step().as_str());
            std::future::pending::<()>().await;
            Ok(n)
        }
    });
    kit.registry.function(&kit.once, step_code);
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let runner = runner(&kit, &store, &clock);
    {
        let run_id = run_id();
        let cancel = Cancel::new();
        let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
        while kit.world.count("d") == 0 {
            assert!(once(walk.as_mut()).await.is_pending());
        }
    }
    let report = runner.resume(&run_id(), &Cancel::new()).await.unwrap();
    let Ended::NeedsPerson { steps } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(steps[&step("d")], @"it was cut short, must not happen twice, and cannot be asked");
    let wrong = runner.resolve(&run_id(), &step("b"), Resolution::DidNotHappen).await.unwrap_err();
    assert!(matches!(wrong, RunError::NotWaiting { .. }));
    runner.resolve(&run_id(), &step("d"), Resolution::Happened(9.into())).await.unwrap();
    let report = runner.resume(&run_id(), &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(kit.world.count("d"), 1);
}

#[tokio::test]
async fn a_cancel_stops_steps_and_undoes_without_being_stopped_itself() {
    let (mut kit, clock, store) = (Kit::new(), clock(), memory());
    let undone = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&undone);
    let step_code = FnStep::idempotent(|_: u64, context: Context| async move {
        context.cancelled().await;
        Err::<u64, _>(StepError::new(ErrorKind::Cancelled, "stopped as asked"))
    })
    .undone_by(move |output, context: Context| {
        noted.store(output.is_none() && !context.cancel().is_cancelled(), Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    kit.registry.function(&kit.once, step_code);
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let runner = runner(&kit, &store, &clock);
    let cancel = Cancel::new();
    let run_id = run_id();
    let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
    for _ in 0..100 {
        assert!(once(walk.as_mut()).await.is_pending());
    }
    cancel.cancel();
    let report = walk.await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::Cancelled, irreversible: Vec::new() });
    assert!(undone.load(Ordering::SeqCst), "it was undone, without output and without a cancel");
    assert!(kit.world.all().is_empty());
}

#[tokio::test]
async fn a_step_that_ignores_the_cancel_is_dropped_after_the_grace() {
    let (mut kit, store) = (Kit::new(), memory());
    let manual = ManualClock::default();
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let stuck = FnStep::idempotent(|_: u64, _| std::future::pending::<Result<u64, StepError>>());
    kit.registry.function(&kit.once, stuck);
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let runner = runner(&kit, &store, &clock);
    let cancel = Cancel::new();
    cancel.cancel();
    let run_id = run_id();
    let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
    for _ in 0..100 {
        if let std::task::Poll::Ready(report) = once(walk.as_mut()).await {
            // It may be that the cancel came before anything started.
            assert!(matches!(report.unwrap().ended, Ended::Undone { cause: Cause::Cancelled, .. }));
            return;
        }
    }
    manual.advance(SignedDuration::from_secs(11));
    let report = walk.await.unwrap();
    assert!(matches!(report.ended, Ended::Undone { cause: Cause::Cancelled, .. }));
}

#[tokio::test]
async fn left_as_it_is_a_failed_run_goes_on_after_the_fix() {
    let (mut kit, clock, store) = (Kit::new(), clock(), memory());
    let fixed = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&fixed);
    let step_code = FnStep::idempotent(move |n: u64, _| {
        let fixed = ask.load(Ordering::SeqCst);
        std::future::ready(if fixed { Ok(n) } else { Err(StepError::failed("not yet")) })
    });
    kit.registry.function(&kit.fails, step_code);
    let sealed = kit.sealed(&kit.draft(true), &clock).await;
    let runner = runner(&kit, &store, &clock).on_failure(OnFailure::Stop);
    let report = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    let cause = Cause::Failed { step: step("e"), error: "not yet".to_owned() };
    assert_eq!(report.ended, Ended::Stopped { cause });
    fixed.store(true, Ordering::SeqCst);
    let report = runner.resume(&run_id(), &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(report.state.step(&step("e")).unwrap().attempts, 2);
    assert_eq!(kit.world.all(), BTreeMap::from(["b", "c", "d"].map(|id| (id.to_owned(), 1))));
}

#[tokio::test]
async fn what_cannot_be_undone_is_collected_and_tried_again() {
    let (mut kit, clock, store) = (Kit::new(), clock(), memory());
    let broken = Arc::new(AtomicBool::new(true));
    let (ask, world, gone) = (Arc::clone(&broken), kit.world.clone(), kit.world.clone());
    let step_code = FnStep::idempotent(move |n: u64, context: Context| {
        world.apply(context.step().as_str(), &context.key());
        std::future::ready(Ok(n + 1))
    })
    .undone_by(move |_, context: Context| {
        let broken = ask.load(Ordering::SeqCst);
        if !broken {
            gone.undo(context.step().as_str());
        }
        std::future::ready(if broken { Err(StepError::failed("the proxy is away")) } else { Ok(()) })
    });
    kit.registry.function(&kit.idempotent, step_code);
    let sealed = kit.sealed(&kit.draft(true), &clock).await;
    let runner = runner(&kit, &store, &clock);
    let report = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    let Ended::UndoIncomplete { failures, .. } = &report.ended else { panic!("{report:?}") };
    assert_eq!(*failures, BTreeMap::from([(step("b"), "the proxy is away".to_owned())]));
    assert_eq!(kit.world.all(), BTreeMap::from([("b".to_owned(), 1)]), "the others are undone");
    broken.store(false, Ordering::SeqCst);
    let report = runner.resume(&run_id(), &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Undone { .. }), "{report:?}");
    assert!(kit.world.all().is_empty());
}

#[tokio::test]
async fn a_panic_is_a_failure_like_any_other() {
    let (mut kit, clock, store) = (Kit::new(), clock(), memory());
    let step_code = FnStep::idempotent(|n: u64, _| async move {
        assert!(n > 1, "n was {n}");
        Ok(n)
    });
    kit.registry.function(&kit.fails, step_code);
    let sealed = kit.sealed(&alone(&kit.fails, Policy::default()), &clock).await;
    let report = runner(&kit, &store, &clock).run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `only` failed: the step panicked: n was 1");
}

#[tokio::test]
async fn another_plan_or_build_under_the_same_id_is_refused() {
    let (kit, clock, store) = (Kit::new(), clock(), memory());
    let sealed = kit.sealed(&kit.draft(false), &clock).await;
    let first = runner(&kit, &store, &clock);
    assert!(first.run(&run_id(), &sealed, &Cancel::new()).await.unwrap().succeeded());
    let other = kit.sealed(&kit.draft(true), &clock).await;
    let error = first.run(&run_id(), &other, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, RunError::OtherPlan { .. }), "{}", chain(&error));
    let mut rebuilt = Kit::new();
    rebuilt.registry.built_as(flowline_core::digest::Digest::of("another build"));
    let second = runner(&rebuilt, &store, &clock);
    let error = second.resume(&run_id(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, RunError::OtherBuild { .. }), "{}", chain(&error));
    assert!(second.allow_other_build().resume(&run_id(), &Cancel::new()).await.unwrap().succeeded());
}

#[tokio::test]
async fn ten_thousand_steps_in_layers_run_with_many_workers() {
    let (kit, clock, store) = (Kit::new(), clock(), memory());
    let mut pipeline = Pipeline::new("layers", "storefront".parse().unwrap());
    let mut before = Vec::new();
    for layer in 0..100 {
        let here: Vec<_> = (0..100)
            .map(|at| match before.get(at) {
                Some(output) => pipeline.call(&format!("s{layer}-{at}"), &kit.pure, output),
                None => pipeline.call(&format!("s{layer}-{at}"), &kit.pure, Constant(0)),
            })
            .collect();
        before = here;
    }
    let sealed = kit.sealed(&pipeline.draft().unwrap(), &clock).await;
    let runner = runner(&kit, &store, &clock).workers(NonZeroUsize::new(8).unwrap());
    let report = runner.run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(report.state.output(&before[99]).unwrap(), Some(100));
}

/// Waits, is told, fails once and is tried again, with limits, a gate of each kind, a lock and a secret: what people's pipelines have.
async fn ordinary(clock: Arc<dyn Clock>) -> Trial {
    let mut kit = Kit::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let flaky = FnStep::idempotent(move |n: u64, context: Context| {
        let before = tries.fetch_add(1, Ordering::SeqCst);
        async move {
            context.secret("token")?;
            context.clock().sleep(SignedDuration::from_mins(30)).await;
            if before == 0 { Err(StepError::new(ErrorKind::Unavailable, "the host is away")) } else { Ok(n) }
        }
    });
    kit.registry.function(&kit.fails, flaky);
    let gates = kit.registry.add(ApprovalGateStep).unwrap().add(SignalGateStep).unwrap();
    gates.add(TimeGateStep).unwrap().add(PauseStep).unwrap();
    let mut pipeline = Pipeline::new("ordinary", "storefront".parse().unwrap());
    let first = pipeline.call("first", &kit.idempotent, Constant(1));
    let soak = pipeline.step("soak", Pause { ms: 7_200_000 });
    let flaky = pipeline.call("flaky", &kit.fails, &first);
    let by = ["ann", "bob", "eve"].map(|name| name.parse().unwrap()).into();
    let approval = pipeline.step("approval", ApprovalGate { quorum: 2, by, author_counts: false });
    let signal = pipeline.step("signal", SignalGate { what: "the load test".to_owned() });
    let time = pipeline.step("time", TimeGate { opens: clock.now() + SignedDuration::from_hours(48) });
    let last = pipeline.call("last", &kit.probed, &flaky);
    pipeline.after(&soak, &first).after(&approval, &soak).after(&last, &approval);
    pipeline.after(&last, &signal).after(&last, &time);
    let mut policy = Policy::default();
    policy.retry = Some(Retry::default());
    policy.locks.insert("production".to_owned());
    policy.limits = Limits { attempt_ms: Some(3_600_000), ..Limits::default() };
    pipeline.policy(&flaky, policy);
    let planner = Planner::new(Arc::new(kit.registry.clone()), authority(), Arc::clone(&clock));
    let planner = planner.by("ann".parse().unwrap());
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let secrets = Secrets::from([("token".parse().unwrap(), Secret::new("hunter2"))]);
    let world = kit.world.clone();
    Trial::new(Arc::new(kit.registry), authority(), plan)
        .secrets(Arc::new(secrets))
        .signal(step("signal"), 42)
        .check(move |ended| {
            let expected = if *ended == Ended::Succeeded { 2 } else { 0 };
            if world.all().len() == expected { Ok(()) } else { Err(format!("{ended:?}: {:?}", world.all())) }
        })
}

#[tokio::test]
async fn the_matrix_runs_what_waits_is_told_and_is_tried_again() {
    let report = crash_matrix(ordinary).await.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.ended, Ended::Succeeded);
    assert!(report.crashes > 50, "{report:?}");
    let report = durability(ordinary).await.unwrap_or_else(|violation| panic!("{violation}"));
    assert_eq!(report.ended, Ended::Succeeded);
}

#[tokio::test]
async fn the_matrix_gives_up_on_what_waits_for_ever() {
    let found = crash_matrix(async |clock: Arc<dyn Clock>| {
        let mut kit = Kit::new();
        let sleeps = FnStep::idempotent(|n: u64, context: Context| async move {
            loop {
                context.clock().sleep(SignedDuration::from_hours(24)).await;
                if n > 10 {
                    return Ok(n);
                }
            }
        });
        kit.registry.function(&kit.idempotent, sleeps);
        let plan = kit.sealed(&kit.draft(false), &clock).await;
        Trial::new(Arc::new(kit.registry), authority(), plan)
    })
    .await
    .unwrap_err();
    insta::assert_snapshot!(found, @"it ends: time passes and nothing comes of it (in `b`)");
    let found = crash_matrix(async |clock: Arc<dyn Clock>| {
        let mut kit = Kit::new();
        let waits =
            FnStep::idempotent(|_: u64, _| async { Err::<u64, _>(StepError::waiting("the moon", None)) });
        kit.registry.function(&kit.idempotent, waits);
        let plan = kit.sealed(&kit.draft(false), &clock).await;
        Trial::new(Arc::new(kit.registry), authority(), plan)
    })
    .await
    .unwrap_err();
    assert_eq!(found.promise, "it converges");
    assert!(
        found.detail.contains("waits for what nobody gives") && found.detail.contains("the moon"),
        "{found}"
    );
}
