//! Runs that wait for people, times and signals while no process lives.

use std::{collections::BTreeMap, sync::Arc};

use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    error::chain,
    id::RunId,
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    plan::{Approval, Planner, StepId},
    run::{Cause, Ended},
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
    let gate = ApprovalGate { quorum: 2, by: std::collections::BTreeSet::new(), author_counts: false };
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
    runner.approve(&id, &approval, &by("ann", 48)).await.unwrap();
    runner.approve(&id, &approval, &by("bob", 1)).await.unwrap();
    runner.approve(&id, &approval, &by("eve", 48)).await.unwrap();
    let other = Approval { plan: flowline_core::digest::Digest::of("other"), ..by("joe", 1) };
    let error = runner.approve(&id, &approval, &other).await.unwrap_err();
    assert!(chain(&error).contains("approved plan"), "{}", chain(&error));
    runner.signal(&id, &StepId::new("signal").unwrap(), "first", 42.into()).await.unwrap();
    manual.set(opens);
    // Bob's approval ran out while nobody looked, and Ann made the plan.
    let (steps, _) = waits().await;
    insta::assert_snapshot!(steps["approval"], @"needs 1 more approval; `ann` does not count: made the plan; `bob` does not count: has run out");
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
