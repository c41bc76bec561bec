//! What reaches a run from outside: approvals, signals, and what a person knows.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use flowline_core::id::RunId;
use flowline_pipeline::{
    Pipeline, Registry, Runner, Step,
    plan::Planner,
    run::{Cancel, Ended},
    step::{Context, Effect, Preview, PreviewContext, Spec, StepError},
    steps::{SignalGate, SignalGateStep},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Place, Said};
use crate::{
    Delivery,
    cli::{Exit, failure::Failure},
    delivery::DeliveryError,
};

impl Place {
    /// A deployment to production needs `gate`.
    fn guard(&self, gate: &str) {
        let file = self.shop().join("flowline.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n[environments.production.approval]\n{gate}\n")).unwrap();
    }

    async fn approve(&self, by: &str) -> Said {
        self.said(&["approve", "production", "--by", by]).await
    }
}

#[tokio::test]
async fn a_deployment_waits_for_approval_and_goes_on() {
    let place = Place::new().await;
    place.guard("quorum = 1\nby = [\"grace\"]");
    let waits = place.said(&["apply"]).await;
    assert_eq!(waits.exit, Exit::Later, "{}", waits.err);
    let last = waits.err.split("error: ").last().unwrap();
    insta::assert_snapshot!(last, @r"
    the deployment to `production` waits: `approval` needs 1 more approval, by one of `grace`; let run `deploy-1-e4f520ea-0` go on with `approve`, then call again
      note: call again later; it goes on where it is
    ");
    let status = place.said(&["status", "--json"]).await;
    assert_eq!(status.json()["result"]["unfinished"][0]["outcome"], "unfinished");
    let wrong = place.approve("ada").await;
    assert_eq!((wrong.exit, wrong.out.as_str()), (Exit::Failed, ""));
    insta::assert_snapshot!(wrong.err, @"error: `ada` can't approve run `deploy-1-e4f520ea-0`: `approval` needs 1 more approval, by one of `grace`; `ada` does not count: is not asked");
    let why = place.said(&["why", "deploy-1-e4f520ea-0", "--json"]).await;
    assert!(!why.out.contains("taskrun.signalled"), "what does not count is not recorded: {}", why.out);
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Later);
    let approved = place.approve("grace").await;
    assert_eq!(approved.exit, Exit::Done, "{}", approved.err);
    assert!(approved.out.ends_with("run deploy-1-e4f520ea-0; it goes on when it is applied again\n"));
    let applied = place.said(&["apply"]).await;
    assert!(applied.out.starts_with("production is at 1.0.0"), "{}{}", applied.out, applied.err);
    let none = place.approve("grace").await;
    assert_eq!(none.exit, Exit::Failed);
    insta::assert_snapshot!(none.err, @"error: run `deploy-1-e4f520ea-0` has no open approval: it is succeeded; `status` names the runs that wait");
}

#[tokio::test]
async fn the_first_of_two_is_told_that_another_is_missing() {
    let place = Place::new().await;
    place.guard("quorum = 2\nby = [\"ada\", \"grace\", \"joan\"]");
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Later);
    let first = place.approve("grace").await;
    assert_eq!(first.exit, Exit::Later, "{}", first.err);
    let said = first.out.split(" of run ").nth(1).unwrap();
    insta::assert_snapshot!(said, @"deploy-1-e4f520ea-0; it waits still: `approval` needs 1 more approval, by one of `ada`, `joan`");
    let again = place.approve("grace").await;
    assert_eq!(again.exit, Exit::Later, "one person counts once");
    let second = place.said(&["approve", "production", "--by", "joan", "--json"]).await;
    let told = second.json();
    assert_eq!((second.exit, &told["result"]["open"]), (Exit::Done, &true.into()));
    assert_eq!(
        told["result"]["gates"],
        json!([{ "step": "approval", "counted": true, "by": ["grace", "joan"], "missing": null }])
    );
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Done);
}

#[tokio::test]
async fn the_author_is_told_that_somebody_else_must() {
    let place = Place::new().await;
    place.guard("quorum = 1");
    assert_eq!(place.said(&["apply", "--actor", "ada"]).await.exit, Exit::Later);
    let own = place.approve("ada").await;
    assert_eq!(own.exit, Exit::Failed);
    assert!(own.err.contains("`ada` does not count: made the plan"), "{}", own.err);
    assert_eq!(place.approve("grace").await.exit, Exit::Done);
}

/// Happens once, and nobody can be asked whether it did.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Migrate;

impl Spec for Migrate {
    const KIND: &'static str = "test/migrate";
    type Input = ();
    type Output = u32;
}

/// Says that it began, and comes to no end.
#[derive(Debug)]
struct Migrating(Arc<AtomicBool>);

#[async_trait]
impl Step for Migrating {
    type Spec = Migrate;

    fn effect(&self, _: &Migrate) -> Effect {
        Effect::Once
    }

    async fn preview(&self, _: &Migrate, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run("migrates"))
    }

    async fn run(&self, _: &Migrate, (): (), _: &Context) -> Result<u32, StepError> {
        self.0.store(true, Ordering::SeqCst);
        std::future::pending().await
    }
}

/// A run of a pipeline that is not the deployer's own, in its store.
struct Own {
    runner: Runner,
    run: RunId,
    began: Arc<AtomicBool>,
}

impl Own {
    async fn begin(place: &Place, pipeline: impl FnOnce(&mut Pipeline)) -> Self {
        let delivery = Delivery::open(place.setup(&[])).unwrap();
        let mut written = Pipeline::new("nightly", delivery.topology().app.clone());
        pipeline(&mut written);
        let began = Arc::new(AtomicBool::new(false));
        let mut registry = Registry::new();
        registry.add(Migrating(Arc::clone(&began))).unwrap().add(SignalGateStep).unwrap();
        let (registry, clock) = (Arc::new(registry), Arc::clone(delivery.clock()));
        let planner = Planner::new(Arc::clone(&registry), delivery.authority().clone(), Arc::clone(&clock));
        let sealed = planner.plan(&written.draft().unwrap()).await.unwrap().seal().unwrap();
        let store = Arc::clone(delivery.store());
        let runner = Runner::new(store, registry, delivery.authority().clone(), clock).holder("the test");
        let own = Self { runner, run: "nightly-3".parse().unwrap(), began };
        let cancel = Cancel::new();
        // Whoever walks it dies once the step began that has no end.
        tokio::select! {
            report = own.runner.run(&own.run, &sealed, &cancel) => drop(report.unwrap()),
            () = own.began() => {}
        }
        own
    }

    async fn began(&self) {
        while !self.began.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
    }

    async fn resume(&self) -> Ended {
        self.runner.resume(&self.run, &Cancel::new()).await.unwrap().ended
    }
}

#[tokio::test]
async fn a_person_says_what_became_of_a_step_that_was_cut() {
    let place = Place::new().await;
    let own = Own::begin(&place, |pipeline| drop(pipeline.step("migrate", Migrate))).await;
    assert!(matches!(own.resume().await, Ended::NeedsPerson { .. }));
    for args in [
        &["resolve", "nightly-3", "migrate"][..],
        &["resolve", "nightly-3", "migrate", "--did-not", "--output", "7"],
    ] {
        let said = place.said(args).await;
        assert_eq!(said.exit, Exit::Failed, "{args:?}: {}", said.out);
    }
    let mistyped = place.said(&["resolve", "nightly-3", "migrat", "--did-not"]).await;
    assert!(mistyped.err.contains("did you mean `migrate`?"), "{}", mistyped.err);
    let text = place.said(&["resolve", "nightly-3", "migrate", "--happened", "--output", "seven"]).await;
    assert!(text.err.contains("a text needs quotes of its own: '\"seven\"'"), "{}", text.err);
    let said = place.said(&["resolve", "nightly-3", "migrate", "--happened", "--output", "7"]).await;
    assert_eq!(
        said.out, "`migrate` of run nightly-3 happened; it goes on when it is applied again\n",
        "{}",
        said.err
    );
    assert_eq!(own.resume().await, Ended::Succeeded);
    let again = place.said(&["resolve", "nightly-3", "migrate", "--did-not"]).await;
    assert_eq!(again.exit, Exit::Failed);
    assert!(again.err.contains("does not wait for a person"), "{}", again.err);
}

#[test]
fn a_deployment_that_needs_a_person_is_not_sent_to_an_approval() {
    let error = DeliveryError::NeedsPerson {
        environment: "production".to_owned(),
        run: "deploy-7-4fa2b1c3-0".to_owned(),
        reasons: "`switch` was cut short".to_owned(),
    };
    let failure = Failure::of(&error.into());
    assert_eq!(failure.exit(), Exit::Later);
    insta::assert_snapshot!(failure.text(crate::cli::paint::Paint(false)), @r"
    error: the deployment to `production` needs a person: `switch` was cut short; look, say what is true with `resolve deploy-7-4fa2b1c3-0 STEP --happened` or `--did-not`, then call again
      note: call again later; it goes on where it is
    ");
}

#[tokio::test]
async fn a_run_hears_a_signal_once() {
    let place = Place::new().await;
    let wait = |pipeline: &mut Pipeline| {
        drop(pipeline.step("load-test", SignalGate { what: "the load test".to_owned() }));
    };
    let own = Own::begin(&place, wait).await;
    assert!(matches!(own.resume().await, Ended::Waiting { .. }));
    let said = place.said(&["signal", "nightly-3", "{\"passed\": true}"]).await;
    assert_eq!(
        said.out, "`load-test` of run nightly-3 was told; it goes on when whoever started it calls again\n",
        "{}",
        said.err
    );
    let again = place.said(&["signal", "nightly-3", "{\"passed\": true}", "--step", "load-test"]).await;
    assert_eq!(again.exit, Exit::Done, "{}", again.err);
    let why = place.said(&["why", "run/nightly-3", "--json"]).await;
    assert_eq!(why.out.matches("taskrun.signalled").count(), 1, "{}", why.out);
    assert_eq!(own.resume().await, Ended::Succeeded);
    let late = place.said(&["signal", "nightly-3"]).await;
    assert_eq!(late.exit, Exit::Failed);
    assert!(late.err.contains("has no open gate for a signal: it is succeeded"), "{}", late.err);
}

#[tokio::test]
async fn a_signal_is_no_approval() {
    let place = Place::new().await;
    place.guard("quorum = 1\nby = [\"grace\"]");
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Later);
    for args in [&["signal", "production"][..], &["signal", "production", "--step", "approval"]] {
        let said = place.said(args).await;
        assert_eq!(said.exit, Exit::Failed, "{args:?}");
        assert!(said.err.contains("has no open gate for a signal"), "{}", said.err);
    }
}
