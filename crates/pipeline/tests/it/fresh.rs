//! Plans meet a world that moves on, grants that are withdrawn, and other processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    error::{ErrorKind, Kinded, chain},
    grant::{Authority, Grants},
    id::{ResourceId, RunId},
    lease::Leases,
    store::{MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Plan, Registry, Runner, Sealed, Step,
    plan::{Planner, StepId},
    run::{How, Phase, RunError},
    step::{Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, StepError},
};
use serde::{Deserialize, Serialize};

use crate::world::authority;

/// Points a host somewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Point {
    host: String,
    to: String,
}

impl Spec for Point {
    const KIND: &'static str = "point";
    type Input = ();
    type Output = String;
}

#[derive(Debug, Clone, Default)]
struct Hosts(Arc<Mutex<BTreeMap<String, String>>>);

impl Hosts {
    fn set(&self, host: &str, to: &str) {
        self.0.lock().unwrap().insert(host.to_owned(), to.to_owned());
    }

    fn get(&self, host: &str) -> Option<String> {
        self.0.lock().unwrap().get(host).cloned()
    }
}

#[async_trait]
impl Step for Hosts {
    type Spec = Point;

    fn effect(&self, _: &Point) -> Effect {
        Effect::idempotent()
    }

    fn touches(&self, spec: &Point) -> Vec<ResourceId> {
        vec![ResourceId::of("host", &spec.host).unwrap()]
    }

    async fn preview(&self, spec: &Point, _: &PreviewContext) -> Result<Preview, StepError> {
        let found = self.get(&spec.host);
        let kept = found.as_ref() == Some(&spec.to);
        let observed = Observed {
            resource: ResourceId::of("host", &spec.host).unwrap(),
            action: if kept { Action::Keep } else { Action::Update },
            fingerprint: Fingerprint::of(&found).unwrap(),
            details: Vec::new(),
        };
        let preview = Preview::of(format!("points {} to {}", spec.host, spec.to), vec![observed]);
        Ok(if kept { preview.knowing(spec.to.clone().into()) } else { preview })
    }

    async fn run(&self, spec: &Point, (): (), context: &Context) -> Result<String, StepError> {
        context.granted(&ResourceId::of("host", &spec.host).unwrap())?;
        self.set(&spec.host, &spec.to);
        Ok(spec.to.clone())
    }
}

struct Site {
    hosts: Hosts,
    registry: Arc<Registry>,
    clock: ManualClock,
    store: Arc<dyn Store>,
}

impl Site {
    fn new() -> Self {
        let hosts = Hosts::default();
        hosts.set("a.awesome.com", "old");
        hosts.set("b.awesome.com", "new");
        let mut registry = Registry::new();
        registry.add(hosts.clone()).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Self { hosts, registry: Arc::new(registry), clock: ManualClock::default(), store }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }

    async fn plan(&self) -> Sealed<Plan> {
        let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
        for host in ["a", "b"] {
            let point = Point { host: format!("{host}.awesome.com"), to: "new".to_owned() };
            pipeline.step(host, point);
        }
        let planner = Planner::new(Arc::clone(&self.registry), authority(), self.clock());
        planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
    }

    fn runner(&self) -> Runner {
        self.runner_with(authority())
    }

    fn runner_with(&self, authority: Authority) -> Runner {
        Runner::new(Arc::clone(&self.store), Arc::clone(&self.registry), authority, self.clock())
    }
}

fn run_id(id: &str) -> RunId {
    RunId::new(id).unwrap()
}

#[tokio::test]
async fn a_plan_is_refused_once_what_it_touches_moved_and_says_what() {
    let site = Site::new();
    let plan = site.plan().await;
    site.hosts.set("a.awesome.com", "elsewhere");
    let error = site.runner().run(&run_id("one"), &plan, &Cancel::new()).await.unwrap_err();
    let RunError::Stale(moved) = &error else { panic!("{error}") };
    assert_eq!(moved.len(), 1);
    assert_eq!((moved[0].resource.as_str(), moved[0].step.as_str()), ("host:a.awesome.com", "a"));
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("elsewhere"), "nothing was done");
    assert!(site.runner().state(&run_id("one")).await.unwrap().plan().is_none(), "nothing was recorded");
    let text = chain(&error);
    assert!(text.starts_with("the plan is stale: `host:a.awesome.com` moved from "), "{text}");
}

#[tokio::test]
async fn an_unrelated_change_does_not_stale_a_plan_and_applying_it_twice_does() {
    let site = Site::new();
    let (plan, again) = (site.plan().await, site.plan().await);
    assert_eq!(plan.digest(), again.digest());
    site.hosts.set("c.awesome.com", "elsewhere");
    assert!(site.runner().run(&run_id("one"), &plan, &Cancel::new()).await.unwrap().succeeded());
    // The very same plan under another run id: the world is not any more what it was made for.
    let error = site.runner().run(&run_id("two"), &again, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Stale(_)), "{error}");
}

#[tokio::test]
async fn what_is_as_it_should_be_is_skipped_with_its_output_known() {
    let site = Site::new();
    let plan = site.plan().await;
    let report = site.runner().run(&run_id("one"), &plan, &Cancel::new()).await.unwrap();
    let phase = |id: &str| report.state.step(&StepId::new(id).unwrap()).unwrap().phase.clone();
    assert!(matches!(phase("b"), Phase::Finished { how: How::Skipped, output, .. } if output == "new"));
    assert!(matches!(phase("a"), Phase::Finished { how: How::Ran, .. }));
    assert!(!site.plan().await.plan().has_changes());
}

#[tokio::test]
async fn a_withdrawn_grant_stops_the_plan_before_any_effect() {
    let site = Site::new();
    let plan = site.plan().await;
    let nothing = Authority::new("storefront".parse().unwrap(), &Grants::default());
    let error = site.runner_with(nothing).run(&run_id("one"), &plan, &Cancel::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("old"));
}

#[tokio::test]
async fn two_processes_do_not_walk_one_run_and_a_dead_one_is_succeeded() {
    let site = Site::new();
    let plan = site.plan().await;
    let lease = flowline_core::id::Key::new("lease/run/one").unwrap();
    let leases = flowline_core::lease::StoreLeases::new(Arc::clone(&site.store), site.clock());
    let claim = flowline_core::lease::Claim::new(lease, "other", SignedDuration::from_secs(60), "run");
    let other = leases.acquire(&claim).await.unwrap();
    let (runner, id, cancel) = (site.runner(), run_id("one"), Cancel::new());

    // The other process lives: it renews before its lease runs out.
    let walk = tokio::spawn({
        let (runner, id, plan, cancel) = (runner.clone(), id.clone(), plan.clone(), cancel.clone());
        async move { runner.run(&id, &plan, &cancel).await }
    });
    while site.clock.next_sleeper().is_none() {
        tokio::task::yield_now().await;
    }
    let other = leases.renew(&other, SignedDuration::from_secs(300)).await.unwrap();
    site.clock.advance(SignedDuration::from_secs(61));
    let error = walk.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", chain(&error));
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("old"));

    // The other process is dead: its lease runs out.
    drop(other);
    site.clock.advance(SignedDuration::from_secs(600));
    assert!(runner.run(&id, &plan, &cancel).await.unwrap().succeeded());
}

#[tokio::test]
async fn runs_and_plans_can_be_sent_between_threads() {
    fn sent<F: Future + Send>(future: F) -> F {
        future
    }
    let site = Site::new();
    let plan = site.plan().await;
    let (runner, id, cancel) = (site.runner(), run_id("one"), Cancel::new());
    assert!(sent(runner.run(&id, &plan, &cancel)).await.unwrap().succeeded());
    assert!(sent(runner.resume(&id, &cancel)).await.unwrap().succeeded());
    drop(sent(runner.rollback(&id)));
    let planner = Planner::new(Arc::clone(&site.registry), authority(), site.clock());
    let draft = Pipeline::new("empty", "storefront".parse().unwrap()).draft().unwrap();
    assert!(sent(planner.plan(&draft)).await.unwrap().nodes().is_empty());
}

#[tokio::test]
async fn what_moved_while_a_run_waited_is_refused_on_resuming_and_its_own_changes_are_not() {
    let site = Site::new();
    let opened = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ask = Arc::clone(&opened);
    let gate = flowline_pipeline::step::Function::<(), ()>::new("gate", 1).unwrap();
    let mut registry = Registry::new();
    registry.built_as(flowline_core::digest::Digest::of("build"));
    registry.add(site.hosts.clone()).unwrap();
    let step = flowline_pipeline::step::FnStep::pure(move |(): (), _| {
        let open = ask.load(std::sync::atomic::Ordering::SeqCst);
        std::future::ready(if open { Ok(()) } else { Err(StepError::waiting("the gate is shut", None)) })
    });
    registry.function(&gate, step);
    let site = Site { registry: Arc::new(registry), ..site };
    let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
    let point = |host: &str| Point { host: format!("{host}.awesome.com"), to: "newer".to_owned() };
    let first = pipeline.step("a", point("a"));
    let gate = pipeline.call("gate", &gate, ());
    let second = pipeline.step("b", point("b"));
    pipeline.after(&gate, &first).after(&second, &gate);
    let planner = Planner::new(Arc::clone(&site.registry), authority(), site.clock());
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let (runner, id, cancel) = (site.runner(), run_id("one"), Cancel::new());
    let report = runner.run(&id, &plan, &cancel).await.unwrap();
    assert!(matches!(report.ended, flowline_pipeline::run::Ended::Waiting { .. }), "{report:?}");
    // What the run did itself has moved rightly.
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("newer"));
    assert!(matches!(
        runner.run(&id, &plan, &cancel).await.unwrap().ended,
        flowline_pipeline::run::Ended::Waiting { .. }
    ));
    site.hosts.set("b.awesome.com", "elsewhere");
    opened.store(true, std::sync::atomic::Ordering::SeqCst);
    let RunError::Stale(moved) = runner.resume(&id, &cancel).await.unwrap_err() else { panic!("it moved") };
    assert_eq!(moved.iter().map(|moved| moved.step.as_str()).collect::<Vec<_>>(), ["b"]);
    // Put back, it goes on.
    site.hosts.set("b.awesome.com", "new");
    assert!(runner.resume(&id, &cancel).await.unwrap().succeeded());
}
