//! The example `run_graph` as people run it: killed, stopped, given bad graphs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// The example's program, which `cargo test` builds.
fn program() -> PathBuf {
    let program =
        std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples").join("run_graph");
    if !program.exists() {
        #[expect(
            clippy::disallowed_methods,
            reason = "only this one test was asked for, so the example is not there yet"
        )]
        let built = Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "run_graph"]).status();
        assert!(built.unwrap().success());
    }
    program
}

/// A folder with a graph in it.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new(graph: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("graph.json"), graph).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = Command::new(program());
        command.arg(self.path("graph.json")).arg("--dir").arg(self.path("state"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self) -> (Option<i32>, Value, String) {
        said(&self.command().output().unwrap())
    }
}

/// The exit code, the last line's numbers, and what was said to people.
fn said(output: &Output) -> (Option<i32>, Value, String) {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    (output.status.code(), last, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if holds() {
            return;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is waited for")]
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} did not come");
}

/// Steps in a row, each leaving a line when it is done.
fn chain(count: usize, log: &Path) -> String {
    let step = |number: usize| {
        let script = format!("sleep 0.02; echo s{number} >> {}", log.display());
        let deps: Vec<_> = number.checked_sub(1).map(|before| format!("s{before}")).into_iter().collect();
        json!({ "id": format!("s{number}"), "run": ["/bin/sh", "-c", script], "deps": deps, "env": { "PATH": "/usr/bin:/bin" } })
    };
    json!({ "steps": (0..count).map(step).collect::<Vec<_>>() }).to_string()
}

#[test]
fn killed_it_goes_on_where_it_was_and_finished_steps_are_not_run_again() {
    const STEPS: usize = 30;
    let case = Case::new("");
    let log = case.path("log");
    fs::write(case.path("graph.json"), chain(STEPS, &log)).unwrap();
    for seen in [3, 9] {
        let mut child = case.command().spawn().unwrap();
        until("a step", || lines(&log).len() >= seen);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (code, last, said) = case.run();
    assert_eq!(code, Some(0), "{said}");
    let number = |key: &str| usize::try_from(last[key].as_u64().unwrap()).unwrap();
    assert_eq!(
        (number("steps"), number("failed"), number("ran") + number("skipped")),
        (STEPS, 0, STEPS),
        "{last}"
    );
    assert!(number("skipped") >= 7, "{last}");
    let mut log = lines(&log);
    // One step at most was cut short by each kill and ran once more.
    assert!((STEPS..=STEPS + 2).contains(&log.len()), "{log:?}");
    log.sort();
    log.dedup();
    assert_eq!(log.len(), STEPS);
    let (code, last, _) = case.run();
    assert_eq!((code, &last["ran"], &last["skipped"]), (Some(0), &json!(0), &json!(STEPS)));
}

#[test]
fn cut_anywhere_its_log_is_gone_on_with_and_damaged_it_says_how_to_recover() {
    let case = Case::new("");
    let steps: Vec<_> = (0..6).map(|number| json!({ "id": format!("s{number}") })).collect();
    fs::write(case.path("graph.json"), json!({ "steps": steps }).to_string()).unwrap();
    assert_eq!(case.run().0, Some(0));
    let log = case.path("state/flowline.log");
    let whole = fs::read(&log).unwrap();
    for part in 0..12 {
        let cut = whole.len() * part / 12;
        fs::write(&log, &whole[..cut]).unwrap();
        let (code, last, said) = case.run();
        let done = last["ran"].as_u64().unwrap_or_default() + last["skipped"].as_u64().unwrap_or_default();
        assert_eq!((code, done), (Some(0), 6), "cut at {cut}: {said}");
    }
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&log, damaged).unwrap();
    let (code, _, said) = case.run();
    assert_eq!(code, Some(2));
    assert!(said.contains("flowline.log is damaged") && said.contains("LogStore::restore"), "{said}");
    assert!(said.contains(": line "), "{said}");
}

#[test]
fn asked_to_stop_it_leaves_no_process_and_another_one_in_its_folder_is_refused() {
    let case = Case::new("");
    let up = case.path("up");
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", up.display());
    let graph = json!({ "steps": [
        { "id": "serve", "run": ["/bin/sh", "-c", script], "env": { "PATH": "/usr/bin:/bin" } },
    ] });
    fs::write(case.path("graph.json"), graph.to_string()).unwrap();
    let child = case.command().spawn().unwrap();
    until("the step", || !lines(&up).is_empty());
    let (code, _, said) = case.run();
    assert_eq!(code, Some(2));
    assert!(said.contains("has it open, and a log is for one at a time"), "{said}");
    let pid = i32::try_from(child.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    let output = child.wait_with_output().unwrap();
    let (code, last, said) = self::said(&output);
    assert_eq!((code, &last["steps"], &last["ran"]), (Some(1), &json!(1), &json!(0)), "{said}");
    let child = PathBuf::from("/proc").join(&lines(&up)[0]);
    until("the end of the step's process", || !child.exists());
}

#[test]
fn a_step_that_fails_ends_it_with_one_and_is_tried_again() {
    let case = Case::new("");
    let mended = case.path("mended");
    let script = format!("test -e {}", mended.display());
    let graph = json!({ "steps": [
        { "id": "first" },
        { "id": "second", "run": ["/bin/sh", "-c", script], "deps": ["first"], "env": { "PATH": "/usr/bin:/bin" } },
        { "id": "third", "deps": ["second"] },
    ] });
    fs::write(case.path("graph.json"), graph.to_string()).unwrap();
    let (code, last, said) = case.run();
    assert_eq!((code, &last["ran"], &last["failed"]), (Some(1), &json!(1), &json!(1)), "{said}");
    fs::write(mended, "").unwrap();
    let (code, last, said) = case.run();
    assert_eq!((code, &last["ran"], &last["skipped"]), (Some(0), &json!(2), &json!(1)), "{said}");
}

#[test]
fn a_bad_graph_is_refused_with_its_place_or_the_steps_that_are_wrong() {
    for (graph, expected) in [
        ("{\n  \"steps\": [{\"id\": \"a\",}]}", "graph.json:2:"),
        ("{\"steps\": [{\"id\": \"a\", \"dep\": []}]}", "unknown field `dep`"),
        ("{\"steps\": [{\"id\": \"a b\"}]}", "graph.json:1:"),
        ("{\"steps\": [{\"id\": \"a\", \"deps\": [\"b\"]}]}", "waits for `b`, which is not in the plan"),
        ("{\"steps\": [{\"id\": \"a\"}, {\"id\": \"a\"}]}", "step `a` is there twice"),
        (
            "{\"steps\": [{\"id\": \"a\", \"deps\": [\"b\"]}, {\"id\": \"b\", \"deps\": [\"a\"]}]}",
            "steps wait for each other in a circle",
        ),
    ] {
        let (code, _, said) = Case::new(graph).run();
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let case = Case::new("{}");
    fs::remove_file(case.path("graph.json")).unwrap();
    let (code, _, said) = case.run();
    assert!(code == Some(2) && said.contains("cannot read"), "{said}");
}
