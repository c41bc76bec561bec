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
    run::{Ended, How, Phase, RunError, Why},
    step::{
        Action, Context, Effect, Fingerprint, FnStep, Function, Observed, Preview, PreviewContext, Spec,
        StepError,
    },
    testkit::{Trial, crash_matrix},
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
    let gate = Function::<(), ()>::new("gate", 1).unwrap();
    let mut registry = Registry::new();
    registry.built_as(flowline_core::digest::Digest::of("build"));
    registry.add(site.hosts.clone()).unwrap();
    let step = FnStep::pure(move |(): (), _| {
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
    assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
    // What the run did itself has moved rightly.
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("newer"));
    assert!(matches!(runner.run(&id, &plan, &cancel).await.unwrap().ended, Ended::Waiting { .. }));
    site.hosts.set("b.awesome.com", "elsewhere");
    opened.store(true, std::sync::atomic::Ordering::SeqCst);
    let RunError::Stale(moved) = runner.resume(&id, &cancel).await.unwrap_err() else { panic!("it moved") };
    assert_eq!(moved.iter().map(|moved| moved.step.as_str()).collect::<Vec<_>>(), ["b"]);
    // Put back, it goes on.
    site.hosts.set("b.awesome.com", "new");
    assert!(runner.resume(&id, &cancel).await.unwrap().succeeded());
}

/// Has one host point where another points.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Follow {
    host: String,
    leader: String,
}

impl Spec for Follow {
    const KIND: &'static str = "follow";
    type Input = ();
    type Output = Option<String>;
}

#[derive(Debug, Clone, Default)]
struct Followers(Hosts);

#[async_trait]
impl Step for Followers {
    type Spec = Follow;

    fn effect(&self, _: &Follow) -> Effect {
        Effect::idempotent()
    }

    fn touches(&self, spec: &Follow) -> Vec<ResourceId> {
        vec![ResourceId::of("host", &spec.host).unwrap()]
    }

    async fn preview(&self, spec: &Follow, _: &PreviewContext) -> Result<Preview, StepError> {
        let (found, wanted) = (self.0.get(&spec.host), self.0.get(&spec.leader));
        let observed = Observed {
            resource: ResourceId::of("host", &spec.host).unwrap(),
            action: if found == wanted { Action::Keep } else { Action::Update },
            // Another view of the host than that of `Point`.
            fingerprint: Fingerprint::of(&("follows", &found)).unwrap(),
            details: Vec::new(),
        };
        let preview = Preview::of(format!("{} follows {}", spec.host, spec.leader), vec![observed]);
        Ok(if found == wanted { preview.knowing(serde_json::to_value(found).unwrap()) } else { preview })
    }

    async fn run(&self, spec: &Follow, (): (), context: &Context) -> Result<Option<String>, StepError> {
        context.say(format!("{} follows", spec.host));
        let leader = self.0.get(&spec.leader);
        self.0.set(&spec.host, leader.as_deref().unwrap_or_default());
        Ok(leader)
    }
}

impl Site {
    /// A site with followers, and functions that say yes and which hosts there are.
    fn following() -> Self {
        let site = Self::new();
        let mut registry = Registry::new();
        registry.built_as(flowline_core::digest::Digest::of("build"));
        registry.add(site.hosts.clone()).unwrap().add(Followers(site.hosts.clone())).unwrap();
        let yes = FnStep::pure(|(): (), _| std::future::ready(Ok(true)));
        registry.function(&Function::<(), bool>::new("yes", 1).unwrap(), yes);
        let names = FnStep::pure(|(): (), _| std::future::ready(Ok(vec!["x".to_owned(), "y".to_owned()])));
        registry.function(&Function::<(), Vec<String>>::new("names", 1).unwrap(), names);
        Self { registry: Arc::new(registry), ..site }
    }

    async fn sealed(&self, pipeline: Pipeline) -> Sealed<Plan> {
        let planner = Planner::new(Arc::clone(&self.registry), authority(), self.clock());
        planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
    }
}

fn follow(host: &str, leader: &str) -> Follow {
    Follow { host: format!("{host}.awesome.com"), leader: format!("{leader}.awesome.com") }
}

fn point(host: &str, to: &str) -> Point {
    Point { host: format!("{host}.awesome.com"), to: to.to_owned() }
}

#[tokio::test]
async fn what_a_step_before_it_makes_needed_is_done_though_the_plan_found_it_as_it_should_be() {
    let site = Site::following();
    site.hosts.set("b.awesome.com", "old");
    site.hosts.set("c.awesome.com", "old");
    let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
    let first = pipeline.step("point", point("a", "new"));
    let second = pipeline.step("follow", follow("b", "a"));
    let third = pipeline.step("idle", follow("c", "c"));
    pipeline.after(&second, &first).after(&third, &second);
    let plan = site.sealed(pipeline).await;
    assert_eq!(plan.plan().nodes()[1].action(), Action::Keep, "when it was planned both were old");
    for recorded in [true, false] {
        site.hosts.set("a.awesome.com", "old");
        site.hosts.set("b.awesome.com", "old");
        let (runner, cancel) = (site.runner(), Cancel::new());
        let report = if recorded {
            runner.run(&run_id("one"), &plan, &cancel).await.unwrap()
        } else {
            runner.run_unrecorded(&run_id("two"), &plan, &cancel).await.unwrap()
        };
        assert!(report.succeeded(), "{report:?}");
        assert_eq!(site.hosts.get("b.awesome.com").as_deref(), Some("new"), "recorded: {recorded}");
        let how = |id: &str| match &report.state.step(&StepId::new(id).unwrap()).unwrap().phase {
            Phase::Finished { how, why, output, .. } => (*how, why.to_string(), output.clone()),
            other => panic!("{other:?}"),
        };
        assert_eq!(how("follow"), (How::Ran, "it was its turn".to_owned(), "new".into()));
        // What is still as it should be when its turn comes is not run.
        assert_eq!(how("idle"), (How::Skipped, Why::AsItShouldBe.to_string(), "old".into()));
        if recorded {
            assert_eq!(how("point").1, "it changes `host:a.awesome.com`");
            assert_eq!(runner.state(&run_id("one")).await.unwrap(), report.state);
        }
    }
}

#[tokio::test]
async fn a_template_and_a_condition_are_asked_before_a_step_is_found_not_needed() {
    let site = Site::following();
    site.hosts.set("a.awesome.com", "new");
    let yes = Function::<(), bool>::new("yes", 1).unwrap();
    let names = Function::<(), Vec<String>>::new("names", 1).unwrap();
    let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
    let yes = pipeline.call("yes", &yes, ());
    let some = pipeline.when(&yes, |pipeline| pipeline.step("when", follow("b", "a")));
    let names = pipeline.call("names", &names, ());
    let each = pipeline.each("each", follow("b", "a"), &names, 5, |_| ());
    let plan = site.sealed(pipeline).await;
    let report = site.runner().run(&run_id("one"), &plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.state.output(&some).unwrap(), Some(Some(Some("new".to_owned()))));
    let outputs = report.state.output(&each).unwrap().unwrap();
    assert_eq!(outputs.keys().collect::<Vec<_>>(), ["x", "y"], "a template gives a map by key");
    let first = report.state.steps().next().unwrap().0;
    assert_ne!(first.as_str(), "when", "the condition came first");
}

#[tokio::test]
async fn two_steps_may_look_at_one_resource_in_ways_of_their_own() {
    let site = Site::following();
    let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
    let first = pipeline.step("point", point("a", "newer"));
    let second = pipeline.step("follow", follow("a", "b"));
    pipeline.after(&second, &first);
    let plan = site.sealed(pipeline).await;
    let report = site.runner().run(&run_id("one"), &plan, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(site.hosts.get("a.awesome.com").as_deref(), Some("new"));
    // Either of them notices what moved.
    let error = site.runner().run(&run_id("two"), &plan, &Cancel::new()).await.unwrap_err();
    assert!(matches!(&error, RunError::Stale(moved) if moved.len() == 1), "{error}");
}

#[tokio::test]
async fn after_a_crash_a_run_does_not_take_its_own_change_for_somebody_elses() {
    let report = crash_matrix(async |clock| {
        let site = Site::following();
        site.hosts.set("c.awesome.com", "older");
        let mut pipeline = Pipeline::new("points", "storefront".parse().unwrap());
        let first = pipeline.step("point", point("a", "newer"));
        let second = pipeline.step("follow", follow("b", "a"));
        let third = pipeline.step("again", follow("a", "c"));
        pipeline.after(&second, &first).after(&third, &second);
        let planner = Planner::new(Arc::clone(&site.registry), authority(), clock);
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let hosts = site.hosts.clone();
        let check = move |_: &Ended| {
            let found = ["a", "b"].map(|host| hosts.get(&format!("{host}.awesome.com")).unwrap());
            if found == ["older", "newer"] { Ok(()) } else { Err(format!("{found:?}")) }
        };
        Trial::new(site.registry, authority(), plan).check(check)
    })
    .await;
    report.unwrap_or_else(|violation| panic!("{violation}"));
}
