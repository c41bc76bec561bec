//! The older steps under the suite of steps, and the wrappers that make things fail.

use std::{fs, sync::Arc};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, SystemClock},
    error::{ErrorKind, Kinded},
    id::RunId,
    secret::Secret,
    store::MemoryStore,
    testkit::{Fault, When},
};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    exec::{Command, Executor, LocalExecutor},
    plan::Planner,
    run::{CollectingReporter, Ended, OnFailure},
    step::Effect,
    steps::{
        CommandStep, OtherCommand, Pause, PauseStep, RunCommand, TimeGate, TimeGateStep, WaitStep, WaitUntil,
    },
    testkit::{self, Faults, FaultyExecutor, FaultyReporter, StepTrial, Trial},
};

use crate::{
    sync::shown,
    world::{failing, granted_world},
};

fn local() -> Arc<dyn Executor> {
    Arc::new(LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_millis(300)))
}

/// A command that makes a file, found by its probe and removed by its undo.
fn makes_a_file(dir: &std::path::Path, effect: Effect) -> RunCommand {
    let mut command = RunCommand::new("/bin/sh", dir, effect)
        .args(["-c", "echo made >file.new && mv file.new file"])
        .env("PATH", "/usr/bin:/bin")
        .secret_env("KEY", "KEY")
        .undone_by("/bin/rm", ["-f".to_owned(), "file".to_owned(), "file.new".to_owned()]);
    let args = vec!["-e".to_owned(), "file".to_owned()];
    command.probe = Some(OtherCommand { program: "/usr/bin/test".to_owned(), args });
    command.touches = vec!["host:app.awesome.com".parse().unwrap()];
    command
}

#[tokio::test]
async fn a_command_keeps_every_promise() {
    for effect in [Effect::idempotent(), Effect::Probed] {
        let report = testkit::step(async || {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().to_owned();
            // What lies beside its name is not there for anybody.
            let world =
                move || shown(&root).lines().filter(|line| !line.contains(".new")).collect::<String>();
            StepTrial::new(CommandStep::new(local()), makes_a_file(dir.path(), effect.clone()), world)
                .with_secret("KEY", Secret::new("hunter2-secret"))
                .keeping(dir)
        })
        .await;
        assert!(report.failures.is_empty(), "{effect:?}: {report}");
    }
}

#[tokio::test]
async fn a_command_survives_a_crash_anywhere() {
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let dir = tempfile::tempdir().unwrap();
            let (registry, authority) = granted_world(&["host:*.awesome.com"], |registry| {
                registry.add(CommandStep::new(local())).unwrap();
            });
            let mut command = makes_a_file(dir.path(), Effect::Probed);
            command.secret_env.clear();
            let mut pipeline = Pipeline::new("command", "storefront".parse().unwrap());
            let made = pipeline.step("make", command);
            if fails {
                failing(&mut pipeline, &made);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let there = dir.path().join("file").exists();
                if there == matches!(ended, Ended::Succeeded) {
                    Ok(())
                } else {
                    Err(format!("{ended:?}: {there}"))
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn waiting_keeps_every_promise() {
    let past = Timestamp::UNIX_EPOCH;
    testkit::step(async || StepTrial::new(PauseStep, Pause { ms: 1 }, || "")).await.assert();
    testkit::step(async || StepTrial::new(WaitStep, WaitUntil { time: past }, || "")).await.assert();
    testkit::step(async || StepTrial::new(TimeGateStep, TimeGate { opens: past }, || "")).await.assert();
    // A long one hears the cancel.
    let long = testkit::step_promise(
        async || StepTrial::new(PauseStep, Pause { ms: 3_600_000 }, || ""),
        "a cancelled step ends soon",
    );
    assert_eq!(long.await, None);
}

#[tokio::test]
async fn an_executor_fails_at_the_call_that_was_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let touch = Command::new("/usr/bin/touch", dir.path()).arg("file");
    for (when, there) in [(When::Before, false), (When::After, true)] {
        let faulty = FaultyExecutor::new(local(), Faults::none().with(2, Fault::Fail(when)));
        let run = async || faulty.run(&touch, &mut |_| {}, &Cancel::new()).await;
        run().await.unwrap();
        fs::remove_file(dir.path().join("file")).unwrap();
        assert_eq!(run().await.unwrap_err().kind(), ErrorKind::Other);
        assert_eq!(dir.path().join("file").exists(), there);
        run().await.unwrap();
        assert_eq!(faulty.faults().calls(), 3);
    }
    let gone = FaultyExecutor::new(local(), Faults::none().with(1, Fault::Lost(When::Before)));
    for _ in 0..2 {
        assert!(gone.run(&touch, &mut |_| {}, &Cancel::new()).await.is_err());
    }
    let dies = FaultyExecutor::new(local(), Faults::none().with(1, Fault::Crash(When::After)));
    let (faults, cancel) = (dies.faults().clone(), Cancel::new());
    let mut nobody = |_| {};
    assert!(faults.until_crash(dies.run(&touch, &mut nobody, &cancel)).await.is_none());
    assert!(faults.has_crashed());
}

#[tokio::test]
async fn a_reporter_that_hears_nothing_changes_nothing_and_a_step_that_fails_is_tried_again() {
    let (registry, authority) = granted_world(&[], |registry| {
        registry.add(PauseStep).unwrap();
    });
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut pipeline = Pipeline::new("pauses", "storefront".parse().unwrap());
    let one = pipeline.step("one", Pause { ms: 0 });
    let two = pipeline.step("two", Pause { ms: 0 });
    pipeline.after(&two, &one);
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let heard = CollectingReporter::new();
    let deaf =
        FaultyReporter::new(Arc::new(heard.clone()), Faults::none().with(3, Fault::Lost(When::Before)));
    let faults = Faults::none().with(2, Fault::Fail(When::Before));
    let runner =
        Runner::new(Arc::new(MemoryStore::new()), Arc::new(faults.registry(&registry)), authority, clock)
            .on_failure(OnFailure::Stop)
            .reporter(Arc::new(deaf));
    let run = RunId::new("one").unwrap();
    let report = runner.run(&run, &plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::Stopped { .. }), "{report:?}");
    assert!(runner.resume(&run, &Cancel::new()).await.unwrap().succeeded());
    assert_eq!((heard.lines().len(), faults.calls()), (2, 3));
    assert_eq!(Faults::seeded(11, 8).fault(), Faults::seeded(11, 8).fault());
}
