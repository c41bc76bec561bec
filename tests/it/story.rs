//! The quickstart, told once from beginning to end.

use super::support::{
    assert_end, assert_nothing_ran_twice, assert_nothing_runs, journal, told, told_in, wait,
};

#[test]
fn the_story_is_true_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let line = told(dir.path(), &[]);
    assert_end(&line);
    assert_nothing_runs(dir.path());
    assert_nothing_ran_twice(dir.path());
    let stopped: Vec<_> =
        journal(dir.path()).into_iter().filter(|(_, kind, _)| kind == "deployment.stopped").collect();
    assert_eq!(stopped.len(), 1, "one release was stopped, and the journal says so: {stopped:?}");
    // Told again in the same directory, it has nothing left to do and says the same.
    let again = told(dir.path(), &[]);
    assert_end(&again);
    assert_eq!(again["exposed_at_10_percent"], line["exposed_at_10_percent"]);
}

#[test]
fn a_wish_to_stop_ends_it_cleanly() {
    use std::io::{BufRead, BufReader};
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = told_in(dir.path(), &["--serve"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap().contains("Ctrl-C ends it")), "it serves");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
        let output = wait(child, std::time::Duration::from_secs(60));
        assert!(output.status.success(), "{:?}", rest.join());
        assert_end(&super::support::last_line(&output));
        assert_nothing_runs(dir.path());
    }
}
