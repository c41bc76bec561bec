//! Whether the executor and the step keep the promises of flowline's traits.

use std::{fs, sync::Arc};

use backend::{Message, MessageStep, NiceExecutor};
use flowline_core::{SignedDuration, clock::SystemClock};
use flowline_pipeline::{
    exec::LocalExecutor,
    testkit::{self, StepTrial},
};

#[tokio::test]
async fn the_executor_keeps_every_promise() {
    let (dir, executor) = (tempfile::tempdir().unwrap(), Arc::new(nice()));
    testkit::executor(executor, dir.path()).await.assert();
}

#[tokio::test]
async fn the_step_keeps_every_promise() {
    testkit::step(async || trial(None)).await.assert();
}

#[tokio::test]
async fn the_step_keeps_every_promise_where_there_was_a_message_before() {
    testkit::step(async || trial(Some("closed on Sundays"))).await.assert();
}

#[test]
fn a_name_that_leads_out_of_the_directory_is_refused() {
    for name in ["../motd", "a/b", "..", "a.b", ""] {
        let spec = Message { name: name.to_owned(), text: String::new() };
        assert!(MessageStep::new("/srv").file(&spec).is_err(), "{name}");
    }
}

fn nice() -> NiceExecutor {
    let local = LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_millis(300));
    NiceExecutor::new(Arc::new(local), 10)
}

/// One fresh world: a directory, perhaps with a message in it.
fn trial(before: Option<&str>) -> StepTrial<MessageStep> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("opening-hours");
    if let Some(before) = before {
        fs::write(&file, before).unwrap();
    }
    let spec = Message { name: "opening-hours".to_owned(), text: "open on Sundays".to_owned() };
    let world = move || format!("{:?}", fs::read_to_string(&file).ok());
    StepTrial::new(MessageStep::new(dir.path()), spec, world).keeping(dir)
}
