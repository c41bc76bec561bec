//! What need not run: from the cache, by a condition, and once for each item.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use flowline_core::{
    clock::{Clock, ManualClock},
    digest::Digest,
    error::chain,
    id::RunId,
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Output, Pipeline, Registry, Runner,
    pipeline::Constant,
    plan::{Declared, Draft, Plan, PlanError, Planner, Sealed, StepId},
    run::{Ended, How, Phase, Report, Why},
    step::{Context, FnStep, Function, StepError},
};

use crate::world::authority;

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::default())
}

fn function<I, O>(name: &str) -> Function<I, O> {
    Function::new(name, 1).unwrap()
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    registry
}

fn pipeline() -> Pipeline {
    Pipeline::new("skips", "storefront".parse().unwrap())
}

async fn sealed(registry: &Registry, pipeline: Pipeline) -> Sealed<Plan> {
    let planner = Planner::new(Arc::new(registry.clone()), authority(), clock());
    planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
}

fn runner(registry: &Registry, store: &Arc<dyn Store>) -> Runner {
    Runner::new(Arc::clone(store), Arc::new(registry.clone()), authority(), clock()).holder("test")
}

async fn run(runner: &Runner, id: &str, plan: &Sealed<Plan>) -> Report {
    runner.run(&RunId::new(id).unwrap(), plan, &Cancel::new()).await.unwrap()
}

fn why(report: &Report, step: &str) -> (How, String) {
    match &report.state.step(&StepId::new(step).unwrap()).unwrap().phase {
        Phase::Finished { how, why, .. } => (*how, why.to_string()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pure_step_comes_from_the_cache_until_something_that_it_declares_changes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("main.rs");
    std::fs::write(&file, "fn main() {}").unwrap();
    let (build, calls) = (function::<u64, u64>("build"), Arc::new(AtomicUsize::new(0)));
    let mut registry = registry();
    let counted = Arc::clone(&calls);
    registry.function(
        &build,
        FnStep::pure(move |n: u64, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Ok(n * 2))
        }),
    );
    let plan = async |n: u64, version: &str| {
        let mut pipeline = pipeline();
        let built = pipeline.call("build", &build, Constant(n));
        pipeline.cached(&built, Declared::new().file(&file).tool("rustc", version));
        (sealed(&registry, pipeline).await, built)
    };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store);
    let (first, _) = plan(1, "1.95").await;
    let report = run(&runner, "r1", &first).await;
    assert_eq!(why(&report, "build"), (How::Ran, "nothing is known of it from before".to_owned()));
    let report = run(&runner, "r2", &first).await;
    let unchanged = "nothing that it declares changed since run `r1`".to_owned();
    assert_eq!(why(&report, "build"), (How::Cached, unchanged.clone()));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // What the journal says is what the walk said.
    assert_eq!(runner.state(&RunId::new("r2").unwrap()).await.unwrap(), report.state);
    let (other, _) = plan(2, "1.96").await;
    let report = run(&runner, "r3", &other).await;
    assert_eq!(why(&report, "build").1, "changed since the last time: input, tool rustc");
    std::fs::write(&file, "fn main() { }").unwrap();
    let report = run(&runner, "r4", &other).await;
    assert_eq!(why(&report, "build").1, format!("changed since the last time: file {}", file.display()));
    let report = run(&runner.clone().without_cache(), "r5", &other).await;
    assert_eq!(why(&report, "build"), (How::Ran, "the cache is switched off".to_owned()));
    std::fs::write(&file, "fn main() {}").unwrap();
    let (first, built) = plan(1, "1.95").await;
    let report = run(&runner, "r6", &first).await;
    assert_eq!(
        (why(&report, "build"), report.state.output(&built).unwrap()),
        ((How::Cached, unchanged), Some(2))
    );
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    std::fs::remove_file(&file).unwrap();
    let report = run(&runner, "r7", &first).await;
    let Ended::Undone { cause, .. } = report.ended else { panic!("{report:?}") };
    assert!(cause.to_string().contains("the declared file"), "{cause}");
}

#[tokio::test]
async fn only_a_pure_step_may_come_from_the_cache() {
    let push = function::<(), ()>("push");
    let mut registry = registry();
    registry.function(&push, FnStep::idempotent(|(): (), _| std::future::ready(Ok(()))));
    let mut pipeline = pipeline();
    let pushed = pipeline.call("push", &push, ());
    pipeline.cached(&pushed, Declared::new());
    let planner = Planner::new(Arc::new(registry), authority(), clock());
    let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
    assert!(matches!(error, PlanError::Cache(_)));
    insta::assert_snapshot!(chain(&error), @"step `push` has an effect, so its output cannot come from a cache; only a pure step's can");
}

#[tokio::test]
async fn a_condition_skips_its_steps_and_others_get_nothing_from_them() {
    let (answer, work, count) = (
        function::<bool, bool>("answer"),
        function::<(), u64>("work"),
        function::<Option<u64>, u64>("count"),
    );
    let mut registry = registry();
    registry.function(&answer, FnStep::pure(|yes: bool, _| std::future::ready(Ok(yes))));
    registry.function(&work, FnStep::idempotent(|(): (), _| std::future::ready(Ok(5))));
    registry.function(&count, FnStep::pure(|n: Option<u64>, _| std::future::ready(Ok(n.unwrap_or(0)))));
    for yes in [true, false] {
        let mut pipeline = pipeline();
        let needed = pipeline.call("needed", &answer, Constant(yes));
        let worked: Output<Option<u64>> = pipeline.when(&needed, |pipeline| {
            let first = pipeline.call("work", &work, ());
            let second = pipeline.call("again", &work, ());
            pipeline.after(&second, &first);
            second
        });
        let counted = pipeline.call("count", &count, &worked);
        let plan = sealed(&registry, pipeline).await;
        if yes {
            insta::assert_snapshot!(plan.plan().to_dot(), @r#"
            digraph "skips" {
              node [shape=box];
              n0 [label="needed\nfn/answer@1"];
              n1 [label="work\nfn/work@1\nwhen needed"];
              n2 [label="again\nfn/work@1\nwhen needed"];
              n3 [label="count\nfn/count@1"];
              n0 -> n1;
              n0 -> n2;
              n1 -> n2 [style=dashed];
              n2 -> n3;
            }
            "#);
            insta::assert_snapshot!(plan.plan().to_mermaid(), @r#"
            flowchart TD
              n0["needed<br/>fn/answer@1"]
              n1["work<br/>fn/work@1<br/>when needed"]
              n2["again<br/>fn/work@1<br/>when needed"]
              n3["count<br/>fn/count@1"]
              n0 --> n1
              n0 --> n2
              n1 -.-> n2
              n2 --> n3
            "#);
        }
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let runner = runner(&registry, &store);
        let report = run(&runner, "r1", &plan).await;
        assert!(report.succeeded());
        assert_eq!(report.state.output(&counted).unwrap(), Some(if yes { 5 } else { 0 }));
        let said = if yes {
            (How::Ran, "it was its turn".to_owned())
        } else {
            (How::Skipped, "step `needed` said no".to_owned())
        };
        assert_eq!((why(&report, "work"), why(&report, "again")), (said.clone(), said));
        assert_eq!(runner.state(&report.run).await.unwrap(), report.state);
    }
}

/// Hosts are known during the run; each gets a step, and their answers are put together.
fn hosts(
    failing: Option<&'static str>,
) -> (Registry, Draft, Output<BTreeMap<String, String>>, Arc<AtomicUsize>) {
    let (list, sync, sum) = (
        function::<(), Vec<String>>("hosts"),
        function::<(String, u64), String>("sync"),
        function::<BTreeMap<String, String>, usize>("sum"),
    );
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut registry = registry();
    registry.function(
        &list,
        FnStep::pure(|(): (), _| {
            std::future::ready(Ok(vec!["web-2".to_owned(), "web-1".to_owned(), "db".to_owned()]))
        }),
    );
    registry.function(
        &sync,
        FnStep::idempotent(move |(host, n): (String, u64), context: Context| {
            counted.fetch_add(1, Ordering::SeqCst);
            let fails = failing == Some(host.as_str()) && context.attempt() == 1;
            let said = format!("{host} has {n} as {}", context.step());
            std::future::ready(if fails { Err(StepError::failed("the disk is full")) } else { Ok(said) })
        }),
    );
    registry
        .function(&sum, FnStep::pure(|all: BTreeMap<String, String>, _| std::future::ready(Ok(all.len()))));
    let mut pipeline = pipeline();
    let list = pipeline.call("hosts", &list, ());
    let synced = pipeline.call_each("sync", &sync, &list, 3, |host| (host, Constant(7_u64)));
    pipeline.call("sum", &sum, &synced);
    (registry, pipeline.draft().unwrap(), synced, calls)
}

async fn seal(registry: &Registry, draft: &Draft) -> Sealed<Plan> {
    let planner = Planner::new(Arc::new(registry.clone()), authority(), clock());
    planner.plan(draft).await.unwrap().seal().unwrap()
}

#[tokio::test]
async fn a_template_becomes_one_instance_for_each_item_named_by_its_key() {
    let (registry, draft, synced, _) = hosts(None);
    let plan = seal(&registry, &draft).await;
    insta::assert_snapshot!(plan.plan(), @r"
    plan `skips` for `storefront`: 3 to run
      > hosts (fn/hosts@1, pure): calls a function of the deployer
      > sync (fn/sync@1, idempotent): calls a function of the deployer
          for each of hosts, at most 3
      > sum (fn/sum@1, pure): calls a function of the deployer
    ");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store);
    let report = run(&runner, "r1", &plan).await;
    assert!(report.succeeded());
    let outputs = report.state.output(&synced).unwrap().unwrap();
    insta::assert_snapshot!(outputs.into_values().collect::<Vec<_>>().join("\n"), @r"
    db has 7 as sync/db
    web-1 has 7 as sync/web-1
    web-2 has 7 as sync/web-2
    ");
    assert_eq!(why(&report, "sync").1, "its 3 instances are done");
    assert_eq!(runner.state(&report.run).await.unwrap(), report.state);
    // The template is part of what was sealed.
    let mut fewer = draft.clone();
    fewer.nodes[1].each.as_mut().unwrap().max = 2;
    let fewer = seal(&registry, &fewer).await;
    assert_ne!(fewer.digest(), plan.digest());
    let report = run(&runner, "r2", &fewer).await;
    let Ended::Undone { cause, .. } = report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `sync` failed: step `hosts` gave 3 items, and the plan allows 2; plan it again with a higher maximum");
}

#[tokio::test]
async fn a_failed_instance_is_tried_again_on_resuming_and_the_others_are_not() {
    let (registry, draft, synced, calls) = hosts(Some("web-1"));
    let plan = seal(&registry, &draft).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store)
        .workers(std::num::NonZeroUsize::MIN)
        .on_failure(flowline_pipeline::run::OnFailure::Stop);
    let report = run(&runner, "r1", &plan).await;
    let Ended::Stopped { cause } = report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `sync/web-1` failed: the disk is full");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    let report = runner.resume(&RunId::new("r1").unwrap(), &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(calls.load(Ordering::SeqCst), 4);
    assert_eq!(report.state.output(&synced).unwrap().unwrap().len(), 3);
    assert_eq!(runner.state(&report.run).await.unwrap(), report.state);
}

#[tokio::test]
async fn an_instance_that_was_cut_short_is_answered_for_under_its_own_id() {
    let (mut registry, mut draft, synced, _) = hosts(None);
    let sync = function::<(String, u64), String>("sync");
    let hangs = FnStep::once(|_: (String, u64), _| std::future::pending::<Result<String, StepError>>());
    registry.function(&sync, hangs);
    draft.nodes[1].each.as_mut().unwrap().max = 5;
    let plan = seal(&registry, &draft).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store);
    let (id, cancel) = (RunId::new("r1").unwrap(), Cancel::new());
    {
        let mut walk = std::pin::pin!(runner.run(&id, &plan, &cancel));
        for _ in 0..50 {
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(walk.as_mut().poll(context)));
            assert!(polled.await.is_pending());
        }
    }
    let Ended::NeedsPerson { steps } = runner.resume(&id, &cancel).await.unwrap().ended else {
        panic!("a person is needed")
    };
    let waiting: Vec<_> = steps.keys().map(StepId::as_str).collect();
    assert_eq!(waiting, ["sync/db", "sync/web-1", "sync/web-2"]);
    for step in steps.keys() {
        let answer = flowline_pipeline::run::Resolution::Happened("done by hand".into());
        runner.resolve(&id, step, answer).await.unwrap();
    }
    let report = runner.resume(&id, &cancel).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.state.output(&synced).unwrap().unwrap()["db"], "done by hand");
}

#[tokio::test]
async fn a_lock_that_cannot_be_is_refused_in_the_plan() {
    let (registry, mut draft, ..) = hosts(None);
    draft.nodes[0].policy.locks.insert("two words".to_owned());
    let planner = Planner::new(Arc::new(registry), authority(), clock());
    let error = planner.plan(&draft).await.unwrap_err();
    assert!(matches!(error, PlanError::Lock { .. }), "{error}");
    assert!(chain(&error).contains("step `hosts` names a lock"), "{}", chain(&error));
}

#[tokio::test]
async fn an_item_is_only_there_for_a_template() {
    let (registry, mut draft, ..) = hosts(None);
    draft.nodes[1].each = None;
    let planner = Planner::new(Arc::new(registry), authority(), clock());
    let error = planner.plan(&draft).await.unwrap_err();
    insta::assert_snapshot!(chain(&error), @"step `sync` takes an item as input, but is not repeated for any; write it with `Pipeline::each`");
}

#[tokio::test]
async fn unrecorded_a_plan_is_walked_the_same_way_and_leaves_nothing() {
    let (registry, draft, synced, _) = hosts(None);
    let plan = seal(&registry, &draft).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store);
    let run = RunId::new("r1").unwrap();
    let report = runner.run_unrecorded(&run, &plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded());
    assert_eq!(report.state.output(&synced).unwrap().unwrap().len(), 3);
    assert_eq!(store.head().await.unwrap().0, 0);
    assert_eq!(why(&report, "sum"), (How::Ran, Why::Due.to_string()));
    // A failure undoes what was done here, too.
    let (registry, draft, ..) = hosts(Some("db"));
    let plan = seal(&registry, &draft).await;
    let report = self::runner(&registry, &store).run_unrecorded(&run, &plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Undone { .. }), "{report:?}");
}

#[tokio::test]
async fn a_condition_that_says_neither_yes_nor_no_is_asked_again_and_nothing_was_started() {
    let (asks, step) = (function::<(), serde_json::Value>("asks"), function::<(), ()>("step"));
    let (mut registry, calls) = (registry(), Arc::new(AtomicUsize::new(0)));
    registry.function(&asks, FnStep::pure(|(): (), _| std::future::ready(Ok("yes".into()))));
    let counted = Arc::clone(&calls);
    let once = FnStep::once(move |(): (), _| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok(()))
    });
    registry.function(&step, once);
    let mut pipeline = pipeline();
    let asked = pipeline.call("asks", &asks, ());
    pipeline.when(&asked.part(""), |pipeline| pipeline.call("step", &step, ()));
    let plan = sealed(&registry, pipeline).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let runner = runner(&registry, &store).on_failure(flowline_pipeline::run::OnFailure::Stop);
    for refused in 1..=3 {
        let report = run(&runner, "r1", &plan).await;
        let Ended::Stopped { cause } = &report.ended else { panic!("{report:?}") };
        insta::allow_duplicates! {
            insta::assert_snapshot!(cause, @r#"step `step` failed: its condition, step `asks`, gave "yes" instead of yes or no"#);
        }
        let step = report.state.step(&StepId::new("step").unwrap()).unwrap();
        assert_eq!((step.attempts, step.refused), (0, refused));
        assert_eq!(runner.state(&report.run).await.unwrap(), report.state);
    }
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}
