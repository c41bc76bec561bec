//! The steps that ship, against the real system.

use std::sync::Arc;

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    id::RunId,
    secret::Secret,
    store::{EventQuery, MemoryStore, Position, Store},
};
use flowline_pipeline::{
    Cancel, Output, Pipeline, Registry, Runner,
    exec::LocalExecutor,
    pipeline::Named,
    plan::Planner,
    run::{CollectingReporter, Ended, Report},
    step::{Effect, Secrets},
    steps::{self, CommandOutput, RunCommand},
};

use crate::world::authority;

async fn run(
    write: impl FnOnce(&mut Pipeline),
    secrets: Secrets,
) -> (Report, Arc<dyn Store>, CollectingReporter) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    let executor = LocalExecutor::new(Arc::clone(&clock)).with_grace(SignedDuration::from_millis(300));
    steps::register(&mut registry, Arc::new(executor)).unwrap();
    let registry = Arc::new(registry);
    let mut pipeline = Pipeline::new("commands", "storefront".parse().unwrap());
    write(&mut pipeline);
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let (store, reporter): (Arc<dyn Store>, _) = (Arc::new(MemoryStore::new()), CollectingReporter::new());
    let runner = Runner::new(Arc::clone(&store), registry, authority(), clock)
        .secrets(Arc::new(secrets))
        .reporter(Arc::new(reporter.clone()));
    let report = runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap();
    (report, store, reporter)
}

fn sh(script: &str, dir: &std::path::Path) -> RunCommand {
    RunCommand::new("/bin/sh", dir, Effect::idempotent()).args(["-c", script]).env("PATH", "/usr/bin:/bin")
}

#[tokio::test]
async fn outputs_of_commands_become_variables_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut said: Option<Output<CommandOutput>> = None;
    let write = |pipeline: &mut Pipeline| {
        let version = pipeline.step("version", sh("echo 1.2.3", dir.path()));
        let named = Named::new().field("VERSION", version.part::<String>("/stdout"));
        said = Some(pipeline.feed("publish", sh("echo \"published $VERSION\"", dir.path()), named));
    };
    let (report, ..) = run(write, Secrets::new()).await;
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(report.state.output(&said.unwrap()).unwrap().unwrap().stdout, "published 1.2.3");
}

#[tokio::test]
async fn a_planted_secret_reaches_nothing_that_is_kept_or_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secrets = Secrets::from([("KEY".to_owned(), Secret::new("correct-horse-battery"))]);
    let write = |pipeline: &mut Pipeline| {
        let leak = "echo \"key is $KEY\"; printf %s \"$KEY\" | base64; echo \"$KEY\" >&2";
        let told = pipeline.step("told", sh(leak, dir.path()).secret_env("KEY", "KEY"));
        let named = Named::new().field("OTHER", told.part::<String>("/stdout"));
        pipeline.feed("fails", sh("echo \"$KEY\"; exit 7", dir.path()).secret_env("KEY", "KEY"), named);
    };
    let (report, store, reporter) = run(write, secrets).await;
    assert!(matches!(report.ended, Ended::Undone { .. }), "{report:?}");
    let events = store.events(EventQuery::after(Position::START)).await.unwrap();
    let documents = store.list("").await.unwrap();
    let everything = format!("{events:?}{documents:?}{report:?}{:?}", reporter.lines());
    assert!(everything.contains("key is ***"));
    for form in ["correct-horse", "Y29ycmVjdC1ob3JzZS"] {
        assert!(!everything.contains(form), "{everything}");
    }
}

#[tokio::test]
async fn commands_are_undone_by_their_own_commands_in_reverse() {
    let dir = tempfile::tempdir().unwrap();
    let undone = |name: &str| {
        sh(&format!("echo {name} >>did"), dir.path())
            .undone_by("/bin/sh", ["-c".to_owned(), format!("echo {name} >>undone")])
    };
    let write = |pipeline: &mut Pipeline| {
        let one = pipeline.step("one", undone("one"));
        let two = pipeline.step("two", undone("two"));
        let fails = pipeline.step("fails", sh("echo broken >&2; exit 3", dir.path()));
        pipeline.after(&two, &one).after(&fails, &two);
    };
    let (report, _, reporter) = run(write, Secrets::new()).await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `fails` failed: `/bin/sh` ended with exit code 3; its last lines: broken");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!((read("did").as_str(), read("undone").as_str()), ("one\ntwo\n", "two\none\n"));
    assert!(reporter.lines().contains(&"fails | broken".to_owned()), "{:?}", reporter.lines());
}
