//! Steps that act on flags, promotion and addresses.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration, Timestamp, Version,
    artifact::{Artifact, Release, ReleaseId},
    clock::{Clock, ManualClock, SystemClock},
    digest::Digest,
    id::{RunId, ScopeId},
    name::EnvironmentName,
    store::MemoryStore,
    testkit::block_on,
    verdict::{Outcome, Verdict},
};
use flowline_envs::{
    probe::{HttpProbe, Reply, serve},
    promotion::{Facts, Permit, PromotionGraph},
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    plan::Planner,
    run::{Ended, Report},
    step::{Context, StepError},
    steps::{ChangeFlag, ChangeFlagStep, ProbeHttp, ProbeHttpStep, Promote, PromoteStep, Promotion},
    testkit::{self, StepTrial, Trial},
};
use flowline_toggles::{
    flags::{Author, Flags},
    format::flowline::{Definition, FlagKey, Percent, State},
};

use crate::world::{failing, granted_world};

fn scope() -> ScopeId {
    ScopeId::new("production").unwrap()
}

fn checkout() -> FlagKey {
    FlagKey::new("checkout").unwrap()
}

/// Flags of which `checkout` is on for 10 % in production.
async fn flags(clock: Arc<dyn Clock>) -> Flags {
    let flags = Flags::open(Arc::new(MemoryStore::new()), clock).await.unwrap();
    let ada = Author::new("ada", "first users");
    flags.define(&checkout(), Definition::default(), &ada).await.unwrap();
    let ten = Percent::new(10.0).unwrap();
    flags.set_rollout(&scope(), &checkout(), ten, &ada).await.unwrap();
    flags
}

fn everybody() -> ChangeFlag {
    ChangeFlag::new(scope(), checkout(), State::on()).because("it held for a day")
}

async fn run(
    add: impl FnOnce(&mut Registry),
    write: impl FnOnce(&mut Pipeline),
    clock: Arc<dyn Clock>,
) -> Report {
    let (registry, authority) = granted_world(&["flag:*", "environment:*"], add);
    let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
    write(&mut pipeline);
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, clock);
    runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap()
}

#[tokio::test]
async fn changing_a_flag_keeps_every_promise() {
    let report = testkit::step(async || {
        let flags = flags(Arc::new(SystemClock)).await;
        let seen = flags.clone();
        StepTrial::new(ChangeFlagStep::new(flags), everybody(), move || {
            format!("{:?}", seen.said(scope(), &checkout()))
        })
    })
    .await;
    report.assert();
}

#[tokio::test]
async fn changing_a_flag_survives_a_crash_anywhere() {
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let flags = flags(Arc::clone(&clock)).await;
            let (registry, authority) = granted_world(&["flag:production/*"], |registry| {
                registry.add(ChangeFlagStep::new(flags.clone())).unwrap();
            });
            let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
            let changed = pipeline.step("release", everybody());
            if fails {
                failing(&mut pipeline, &changed);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let before = flags.said(scope(), &checkout());
            let check = move |ended: &Ended| {
                let said = flags.said(scope(), &checkout());
                let history = block_on(flags.history(&checkout())).unwrap().len();
                match ended {
                    Ended::Succeeded if said == State::on() && history == 3 => Ok(()),
                    Ended::Undone { .. } if said == before && history <= 4 => Ok(()),
                    _ => Err(format!("{ended:?}: {said:?} {history}")),
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn a_kill_switch_that_somebody_pulled_meanwhile_is_not_taken_back() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let flags = flags(Arc::clone(&clock)).await;
    let (registry, authority) = granted_world(&["flag:*"], |registry| {
        registry.add(ChangeFlagStep::new(flags.clone())).unwrap();
    });
    let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
    drop(pipeline.step("release", everybody()));
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap();
    let details = plan.nodes()[0].preview.as_ref().unwrap().resources[0].details.join("\n");
    insta::assert_snapshot!(details, @"rollout: 10 -> 100");
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, clock);
    let run = RunId::new("one").unwrap();
    assert!(runner.run(&run, &plan.seal().unwrap(), &Cancel::new()).await.unwrap().succeeded());
    flags.kill(scope(), &checkout(), &Author::new("bo", "orders fail")).await.unwrap();
    let report = runner.rollback(&run).await.unwrap();
    let Ended::UndoIncomplete { failures, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(failures.values().next().unwrap(), @"flag `checkout` was changed in `production` again since; look at its history and set it as it should be");
    assert!(flags.said(scope(), &checkout()).killed);
}

/// One service that is promoted, in memory.
#[derive(Debug, Clone, Default)]
struct Service(Arc<Mutex<ServiceState>>);

#[derive(Debug, Default)]
struct ServiceState {
    running: Option<ReleaseId>,
    before: BTreeMap<String, Option<ReleaseId>>,
    facts: Facts,
}

fn production() -> EnvironmentName {
    "production".parse().unwrap()
}

fn release(version: u64) -> ReleaseId {
    let artifact = Artifact {
        component: "web".parse().unwrap(),
        content: Digest::of(version.to_string()),
        source: Digest::of("source"),
        version: Version::new(version, 0, 0),
    };
    Release::new([artifact]).unwrap().id()
}

impl Service {
    fn new() -> Self {
        let service = Self::default();
        {
            let mut state = service.0.lock().unwrap();
            state.running = Some(release(1));
            state.facts = Facts { release: Some(release(2)), merged: true, ..Facts::default() };
        }
        service.judged(Outcome::Pass)
    }

    fn judged(self, outcome: Outcome) -> Self {
        let verdict = Verdict::of(outcome, "smoke", "looked at");
        self.0.lock().unwrap().facts.verdicts.insert("preview".parse().unwrap(), verdict);
        self
    }
}

#[async_trait]
impl Promotion for Service {
    async fn graph(&self) -> Result<PromotionGraph, StepError> {
        Ok(PromotionGraph::new([(production(), ["preview".parse().unwrap()].into())]).unwrap())
    }

    async fn facts(&self, _: ReleaseId, _: &EnvironmentName) -> Result<Facts, StepError> {
        Ok(self.0.lock().unwrap().facts.clone())
    }

    async fn running(&self, _: &EnvironmentName) -> Result<Option<ReleaseId>, StepError> {
        Ok(self.0.lock().unwrap().running)
    }

    async fn bring(&self, permit: Permit, key: &str, _: &Context) -> Result<(), StepError> {
        tokio::task::yield_now().await;
        {
            let mut state = self.0.lock().unwrap();
            let before = state.running;
            state.before.entry(key.to_owned()).or_insert(before);
            state.running = Some(permit.record().release);
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn take_back(&self, _: &EnvironmentName, key: &str, _: &Context) -> Result<(), StepError> {
        let mut state = self.0.lock().unwrap();
        if let Some(before) = state.before.remove(key) {
            state.running = before;
        }
        Ok(())
    }
}

#[tokio::test]
async fn promoting_keeps_every_promise_and_survives_a_crash_anywhere() {
    let spec = || Promote { release: release(2), environment: production() };
    let report = testkit::step(async || {
        let service = Service::new();
        let seen = service.clone();
        let world = move || format!("{:?}", seen.0.lock().unwrap().running);
        StepTrial::new(PromoteStep::new(Arc::new(service)), spec(), world)
    })
    .await;
    report.assert();
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let service = Service::new();
            let (registry, authority) = granted_world(&["environment:production"], |registry| {
                registry.add(PromoteStep::new(Arc::new(service.clone()))).unwrap();
            });
            let mut pipeline = Pipeline::new("promote", "storefront".parse().unwrap());
            let promoted = pipeline.step("promote", spec());
            if fails {
                failing(&mut pipeline, &promoted);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let expected = if matches!(ended, Ended::Succeeded) { release(2) } else { release(1) };
                let running = service.0.lock().unwrap().running;
                if running == Some(expected) { Ok(()) } else { Err(format!("{ended:?}: {running:?}")) }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn what_the_decision_is_against_waits_or_fails_with_every_reason() {
    let ended = async |service: &Service| {
        let step = PromoteStep::new(Arc::new(service.clone()));
        let spec = Promote { release: release(2), environment: production() };
        let report = run(
            |registry| assert!(registry.add(step).is_ok()),
            |pipeline| drop(pipeline.step("promote", spec)),
            Arc::new(ManualClock::default()),
        );
        report.await.ended
    };
    let service = Service::new().judged(Outcome::Inconclusive);
    let until = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    service.0.lock().unwrap().facts.closed_until = Some(until);
    let Ended::Waiting { steps, wake: None | Some(_) } = ended(&service).await else { panic!() };
    let text = |text: &str| text.replace(&release(2).to_string(), "RELEASE");
    insta::assert_snapshot!(text(steps.values().next().unwrap()), @"`RELEASE` may not go to `production`: waiting: verification in `preview` came out as inconclusive (smoke: looked at); verify again, or look at it");
    let service = service.judged(Outcome::Fail);
    let Ended::Undone { cause, .. } = ended(&service).await else { panic!() };
    insta::assert_snapshot!(text(&cause.to_string()), @"step `promote` failed: `RELEASE` may not go to `production`: blocked: verification in `preview` came out as fail (smoke: looked at)");
}

#[tokio::test]
async fn a_probe_waits_for_a_good_answer_and_says_what_is_wrong_with_a_bad_one() {
    let server = serve("127.0.0.1:0".parse().unwrap(), |request| async move {
        match request.path.as_str() {
            "/good" => Reply::text("hello"),
            _ => Reply::text("not yet").with_status(503),
        }
    })
    .await
    .unwrap();
    let at = server.address();
    let probe = |path: &str| {
        let probe = HttpProbe::get(&format!("http://app.localhost{path}")).unwrap().connecting_to(at);
        ProbeHttp::new(probe.expecting_body("hello"))
    };
    let report = testkit::step(async || StepTrial::new(ProbeHttpStep::new(), probe("/good"), || "")).await;
    report.assert();
    let report = run(
        |registry| assert!(registry.add(ProbeHttpStep::new()).is_ok()),
        |pipeline| drop(pipeline.step("smoke", probe("/bad"))),
        Arc::new(SystemClock),
    )
    .await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `smoke` failed: fail (GET http://app.localhost/bad: status 503, expected 200; GET http://app.localhost/bad: the body does not contain `hello`, it begins with `not yet`)");
}
