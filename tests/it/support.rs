//! Running the quickstart as a person would: as a program, with a directory.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The quickstart's executable, which `cargo test` builds beside this test.
pub(crate) fn quickstart() -> PathBuf {
    program("quickstart")
}

/// An example's executable.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(name);
    assert!(program.exists(), "build it first: cargo build --example {name}");
    program
}

/// The quickstart with its state in `dir`, printing JSON.
#[expect(clippy::disallowed_methods, reason = "the test starts the program that it is about")]
pub(crate) fn told_in(dir: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(quickstart());
    command
        .arg("--json")
        .arg("--dir")
        .arg(dir)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it to its end; the JSON of its last line.
pub(crate) fn told(dir: &Path, more: &[&str]) -> Value {
    let output = told_in(dir, more).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    last_line(&output)
}

/// The JSON on the last line of standard output.
pub(crate) fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_else(|| panic!("nothing was printed: {}", said(output)));
    serde_json::from_str(line).unwrap()
}

/// Everything that it said.
pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// What every telling must come to, however often it was killed.
pub(crate) fn assert_end(line: &Value) {
    let preview = line["preview_url"].as_str().unwrap();
    assert!(preview.starts_with("http://pr-123-app.localhost:"), "{line}");
    assert_eq!(line["preview_status"], 200, "{line}");
    assert_eq!(line["preview_api_fell_through"], true, "{line}");
    assert_eq!(line["production_version"], "1.1.0", "{line}");
    assert_eq!(line["requests_failed"], 0, "{line}");
    assert!(line["requests_sent"].as_u64().unwrap() >= 100, "{line}");
    let some = line["exposed_at_10_percent"].as_u64().unwrap();
    assert!((60..=140).contains(&some), "{line}");
    assert_eq!(line["exposed_is_subset"], true, "{line}");
    assert_eq!(line["exposed_at_100_percent"], 1_000, "{line}");
    assert_eq!(line["broken_release_stopped"], true, "{line}");
    assert_eq!(line["denied_in_plan"], true, "{line}");
    assert_eq!(line["rolled_back_to"], "1.0.0", "{line}");
    assert_eq!(line["preview_gone"], true, "{line}");
    assert!(line["time_to_value_ms"].as_u64().is_some(), "{line}");
    assert!(line["journal_events"].as_u64().unwrap() > 20, "{line}");
}

/// No process of the storefront in `dir` is left.
pub(crate) fn assert_nothing_runs(dir: &Path) {
    let left = running(dir);
    assert!(left.is_empty(), "these are left: {left:?}");
}

/// The command lines of processes that name `dir`, but for this test's own.
pub(crate) fn running(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().unwrap().display().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if pid != std::process::id() && line.contains(&dir) {
            found.push(line);
        }
    }
    found
}

/// What the journal in `dir` holds: `(stream, kind, id)` in order.
pub(crate) fn journal(dir: &Path) -> Vec<(String, String, String)> {
    use flowline::core::store::{EventQuery, SqliteStore, Store};
    let store = SqliteStore::open(dir.join("state")).unwrap();
    let events = flowline::core::testkit::block_on(store.events(EventQuery::default())).unwrap();
    let line = |recorded: flowline::core::event::Recorded| {
        (recorded.stream.to_string(), recorded.event.kind.clone(), recorded.event.id.to_string())
    };
    events.into_iter().map(line).collect()
}

/// No step whose completion was recorded ran again: each is recorded once in its run, and never started after.
pub(crate) fn assert_nothing_ran_twice(dir: &Path) {
    let mut finished = std::collections::BTreeSet::new();
    for (stream, kind, id) in journal(dir) {
        // A step's events are called RUN/WHICH/STEP.
        let step = id.splitn(3, '/').nth(2).unwrap_or_default();
        let key = format!("{stream} {step}");
        match kind.as_str() {
            "taskrun.started" => assert!(!finished.contains(&key), "{key} was started after it was finished"),
            "taskrun.finished" => assert!(finished.insert(key.clone()), "{key} was finished twice"),
            _ => {}
        }
    }
    assert!(!finished.is_empty());
}

/// Waits for `child`, but not for ever.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Output {
    #[expect(clippy::disallowed_methods, reason = "a bound for a hanging program, not a measure")]
    let deadline = Instant::now() + limit;
    loop {
        if child.try_wait().unwrap().is_some() {
            return child.wait_with_output().unwrap();
        }
        #[expect(clippy::disallowed_methods, reason = "a bound for a hanging program, not a measure")]
        let late = Instant::now() > deadline;
        if late {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("it did not end within {limit:?}: {}", said(&output));
        }
        #[expect(clippy::disallowed_methods, reason = "polling another process")]
        std::thread::sleep(Duration::from_millis(5));
    }
}
