//! Runs that wait for people, times and signals while no process lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    error::chain,
    id::RunId,
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    plan::{Approval, Plan, Planner, Policy, Sealed, StepId},
    run::{Cause, CollectingReporter, Ended},
    step::{Context, FnStep, StepError},
    steps::{ApprovalGate, ApprovalGateStep, SignalGate, SignalGateStep, TimeGate, TimeGateStep},
};

use crate::world::{Kit, authority};

#[tokio::test]
async fn a_run_waits_at_its_gates_without_a_process_and_goes_on_later() {
    let mut kit = Kit::new();
    let manual = ManualClock::default();
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let opens = manual.now() + SignedDuration::from_hours(24);
    kit.registry.add(ApprovalGateStep).unwrap().add(SignalGateStep).unwrap().add(TimeGateStep).unwrap();
    let registry = Arc::new(kit.registry.clone());

    let mut pipeline = Pipeline::new("gated", "storefront".parse().unwrap());
    let before = pipeline.call("before", &kit.once, flowline_pipeline::pipeline::Constant(1));
    let gate = ApprovalGate { quorum: 2, by: BTreeSet::new(), author_counts: false };
    let gate = pipeline.step("approval", gate);
    let time = pipeline.step("time", TimeGate { opens });
    let signal = pipeline.step("signal", SignalGate { what: "the load test".to_owned() });
    let after = pipeline.call("after", &kit.once, &before);
    pipeline.after(&gate, &before).after(&after, &gate).after(&after, &time).after(&after, &signal);
    let planner =
        Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock)).by("ann".parse().unwrap());
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();

    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let id = RunId::new("one").unwrap();
    let runner = Runner::new(store, registry, authority(), Arc::clone(&clock));
    let waits = async || match runner.run(&id, &plan, &Cancel::new()).await.unwrap().ended {
        Ended::Waiting { steps, wake } => {
            let steps: BTreeMap<String, String> =
                steps.into_iter().map(|(id, why)| (id.to_string(), why)).collect();
            (steps, wake)
        }
        other => panic!("{other:?}"),
    };
    let (steps, wake) = waits().await;
    assert_eq!(wake, Some(opens));
    insta::assert_snapshot!(steps["approval"], @"needs 2 more approvals");
    insta::assert_snapshot!(steps["signal"], @"waits for the load test");
    assert_eq!(kit.world.all(), BTreeMap::from([("before".to_owned(), 1)]));

    let approval = StepId::new("approval").unwrap();
    let by = |person: &str, hours: i64| Approval {
        plan: plan.digest(),
        by: person.parse().unwrap(),
        at: clock.now(),
        until: clock.now() + SignedDuration::from_hours(hours),
    };
    let error = runner.approve(&id, &approval, &by("ann", 48)).await.unwrap_err();
    assert!(chain(&error).contains("`ann` made the plan"), "{}", chain(&error));
    runner.approve(&id, &approval, &by("bob", 1)).await.unwrap();
    runner.approve(&id, &approval, &by("eve", 48)).await.unwrap();
    let other = Approval { plan: flowline_core::digest::Digest::of("other"), ..by("joe", 1) };
    let error = runner.approve(&id, &approval, &other).await.unwrap_err();
    assert!(chain(&error).contains("approved plan"), "{}", chain(&error));
    runner.signal(&id, &StepId::new("signal").unwrap(), "first", 42.into()).await.unwrap();
    manual.set(opens);
    // Bob's approval ran out while nobody looked.
    let (steps, _) = waits().await;
    insta::assert_snapshot!(steps["approval"], @"needs 1 more approval; `bob` does not count: has run out");
    assert_eq!(steps.len(), 1);
    runner.approve(&id, &approval, &by("joe", 1)).await.unwrap();
    let report = runner.resume(&id, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.state.output(&signal).unwrap(), Some(42.into()));
    assert_eq!(report.state.output(&gate).unwrap().unwrap().by.len(), 2);
    assert_eq!(kit.world.all(), BTreeMap::from([("after".to_owned(), 1), ("before".to_owned(), 1)]));
}

#[tokio::test]
async fn a_waiting_run_is_given_up_by_rolling_it_back() {
    let mut kit = Kit::new();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    kit.registry.add(SignalGateStep).unwrap();
    let mut pipeline = Pipeline::new("gated", "storefront".parse().unwrap());
    let before = pipeline.call("before", &kit.once, flowline_pipeline::pipeline::Constant(1));
    let gate = pipeline.step("signal", SignalGate { what: "anything".to_owned() });
    pipeline.after(&gate, &before);
    let plan = kit.sealed(&pipeline.draft().unwrap(), &clock).await;
    let id = RunId::new("one").unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = Runner::new(store, Arc::new(kit.registry.clone()), authority(), clock);
    let report = runner.run(&id, &plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
    let report = runner.rollback(&id).await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::RolledBack, irreversible: Vec::new() });
    assert!(kit.world.all().is_empty());
}

/// A pipeline with an effect and then a gate of each kind, before another effect.
struct Gated {
    kit: Kit,
    manual: ManualClock,
    store: Arc<dyn Store>,
    plan: Sealed<Plan>,
}

impl Gated {
    async fn new(gate: ApprovalGate, total_ms: Option<u64>) -> Self {
        let mut kit = Kit::new();
        let manual = ManualClock::default();
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        kit.registry.add(ApprovalGateStep).unwrap().add(SignalGateStep).unwrap();
        let mut pipeline = Pipeline::new("gated", "storefront".parse().unwrap());
        let before = pipeline.call("before", &kit.idempotent, flowline_pipeline::pipeline::Constant(1));
        let gate = pipeline.step("approval", gate);
        let after = pipeline.call("after", &kit.idempotent, &before);
        pipeline.after(&gate, &before).after(&after, &gate);
        let mut policy = Policy::default();
        policy.limits.total_ms = total_ms;
        pipeline.policy(&gate, policy);
        let planner = Planner::new(Arc::new(kit.registry.clone()), authority(), clock);
        let planner = planner.by("ann".parse().unwrap());
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        Self { kit, manual, store: Arc::new(MemoryStore::new()), plan }
    }

    fn runner(&self) -> Runner {
        let registry = Arc::new(self.kit.registry.clone());
        Runner::new(Arc::clone(&self.store), registry, authority(), Arc::new(self.manual.clone()))
    }

    fn approval(&self, by: &str) -> Approval {
        let at = self.manual.now();
        let until = at + SignedDuration::from_hours(24 * 30);
        Approval { plan: self.plan.digest(), by: by.parse().unwrap(), at, until }
    }
}

fn anybody() -> ApprovalGate {
    ApprovalGate { quorum: 1, by: BTreeSet::new(), author_counts: false }
}

#[tokio::test]
async fn a_cancel_at_a_gate_leads_into_undoing() {
    let gated = Gated::new(anybody(), None).await;
    let (runner, id) = (gated.runner(), RunId::new("one").unwrap());
    let report = runner.run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
    let cancelled = Cancel::new();
    cancelled.cancel();
    let report = runner.resume(&id, &cancelled).await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::Cancelled, irreversible: Vec::new() });
    assert!(gated.kit.world.all().is_empty());
}

#[tokio::test]
async fn what_was_cancelled_before_it_began_starts_nothing() {
    let gated = Gated::new(anybody(), None).await;
    let reporter = CollectingReporter::new();
    let runner = gated.runner().reporter(Arc::new(reporter.clone()));
    let cancelled = Cancel::new();
    cancelled.cancel();
    let report = runner.run(&RunId::new("one").unwrap(), &gated.plan, &cancelled).await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::Cancelled, irreversible: Vec::new() });
    assert!(!reporter.lines().iter().any(|line| line.contains("started")), "{:?}", reporter.lines());
}

#[tokio::test]
async fn a_gate_waits_as_long_as_it_may_over_all_processes_and_then_fails() {
    let gated = Gated::new(anybody(), Some(60_000)).await;
    let (id, gate) = (RunId::new("one").unwrap(), StepId::new("approval").unwrap());
    let began = gated.manual.now();
    for seconds in [0, 20, 39] {
        gated.manual.advance(SignedDuration::from_secs(seconds));
        let report = gated.runner().run(&id, &gated.plan, &Cancel::new()).await.unwrap();
        let Ended::Waiting { wake, .. } = report.ended else { panic!("{report:?}") };
        assert_eq!(wake, Some(began + SignedDuration::from_secs(60)));
        let step = report.state.step(&gate).unwrap();
        assert_eq!((step.waiting_since, step.attempts), (Some(began), 0));
        assert_eq!(gated.runner().state(&id).await.unwrap(), report.state);
    }
    gated.manual.advance(SignedDuration::from_secs(1));
    let late = gated.runner().approve(&id, &gate, &gated.approval("bob")).await.unwrap_err();
    assert!(chain(&late).contains("approved too late"), "{}", chain(&late));
    let report = gated.runner().run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    let Ended::Undone { cause, .. } = report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `approval` failed: it waited for 60000 ms, and needs 1 more approval");
    assert!(gated.kit.world.all().is_empty());
}

#[tokio::test]
async fn an_approval_in_time_counts_though_nobody_looked_until_it_was_late() {
    let gated = Gated::new(anybody(), Some(60_000)).await;
    let (id, gate) = (RunId::new("one").unwrap(), StepId::new("approval").unwrap());
    let report = gated.runner().run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
    gated.runner().approve(&id, &gate, &gated.approval("bob")).await.unwrap();
    gated.manual.advance(SignedDuration::from_hours(5));
    let report = gated.runner().run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(gated.runner().state(&id).await.unwrap(), report.state);
}

#[tokio::test]
async fn a_run_that_takes_longer_than_it_may_is_undone() {
    let gated = Gated::new(anybody(), None).await;
    let runner = gated.runner().limit(SignedDuration::from_mins(10));
    let id = RunId::new("one").unwrap();
    let began = gated.manual.now();
    let report = runner.run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    let Ended::Waiting { wake, .. } = report.ended else { panic!("{report:?}") };
    assert_eq!(wake, Some(began + SignedDuration::from_mins(10)), "asking again before that can't help");
    gated.manual.advance(SignedDuration::from_mins(10));
    let report = runner.resume(&id, &Cancel::new()).await.unwrap();
    assert_eq!(report.ended, Ended::Undone { cause: Cause::TimedOut, irreversible: Vec::new() });
    assert!(gated.kit.world.all().is_empty());
}

#[tokio::test]
async fn a_step_that_runs_when_the_time_of_the_run_is_over_is_asked_to_stop_and_undone() {
    let mut gated = Gated::new(anybody(), None).await;
    let world = gated.kit.world.clone();
    let gone = world.clone();
    let hangs = FnStep::idempotent(move |_: u64, context: Context| {
        world.apply(context.step().as_str(), "");
        async move {
            context.cancelled().await;
            Err::<u64, _>(StepError::failed("it was asked to stop"))
        }
    });
    let hangs = hangs.undone_by(move |_: Option<u64>, context: Context| {
        gone.undo(context.step().as_str());
        std::future::ready(Ok(()))
    });
    gated.kit.registry.function(&gated.kit.idempotent, hangs);
    let runner = gated.runner().limit(SignedDuration::from_mins(10)).lease_for(SignedDuration::from_hours(1));
    let (id, cancel) = (RunId::new("one").unwrap(), Cancel::new());
    let mut walk = std::pin::pin!(runner.run(&id, &gated.plan, &cancel));
    for minutes in [0, 9, 1] {
        gated.manual.advance(SignedDuration::from_mins(minutes));
        for _ in 0..20 {
            let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(walk.as_mut().poll(cx))).await;
            if let std::task::Poll::Ready(report) = polled {
                assert_eq!(minutes, 1, "too early");
                let ended = report.unwrap().ended;
                assert_eq!(ended, Ended::Undone { cause: Cause::TimedOut, irreversible: Vec::new() });
                assert!(gated.kit.world.all().is_empty());
                return;
            }
        }
    }
    panic!("it did not stop");
}

#[tokio::test]
async fn an_approval_that_would_not_count_is_refused_with_the_reason() {
    let josé = "josé".parse().unwrap();
    let gate = ApprovalGate { by: BTreeSet::from([josé, "ann".parse().unwrap()]), ..anybody() };
    let gated = Gated::new(gate, None).await;
    let (runner, id) = (gated.runner(), RunId::new("one").unwrap());
    let gate = StepId::new("approval").unwrap();
    let report = runner.run(&id, &gated.plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
    let refused = async |by: &str, gate: &StepId| {
        chain(&runner.approve(&id, gate, &gated.approval(by)).await.unwrap_err())
    };
    insta::assert_snapshot!(refused("ann", &gate).await, @"the approval does not count for run `one`: `ann` made the plan and cannot approve it; ask somebody else");
    insta::assert_snapshot!(refused("bob", &gate).await, @"the approval does not count for run `one`: `bob` is not asked to approve; ask `ann` or `josé`");
    let nowhere = StepId::new("nowhere").unwrap();
    insta::assert_snapshot!(refused("josé", &nowhere).await, @"step `nowhere` of run `one` does not wait for a person");
    // Whatever people are called.
    for _ in 0..2 {
        runner.approve(&id, &gate, &gated.approval("josé")).await.unwrap();
    }
    assert!(runner.resume(&id, &Cancel::new()).await.unwrap().succeeded());
    assert_eq!(runner.state(&id).await.unwrap().signals(&gate).len(), 1, "one approval is heard once");
}

#[tokio::test]
async fn a_gate_that_could_never_open_or_never_be_shut_is_refused_in_the_plan() {
    let mut kit = Kit::new();
    kit.registry.add(ApprovalGateStep).unwrap();
    let planner = Planner::new(Arc::new(kit.registry), authority(), Arc::new(ManualClock::default()));
    let bob = || BTreeSet::from(["bob".parse().unwrap()]);
    for gate in [
        ApprovalGate { quorum: 0, ..anybody() },
        ApprovalGate { quorum: 0, by: bob(), ..anybody() },
        ApprovalGate { quorum: 2, by: bob(), ..anybody() },
    ] {
        let mut pipeline = Pipeline::new("gated", "storefront".parse().unwrap());
        pipeline.step("approval", gate.clone());
        let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
        assert!(chain(&error).contains("name as many people"), "{gate:?}: {}", chain(&error));
    }
}
