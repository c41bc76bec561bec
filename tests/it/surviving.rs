//! Killed with SIGKILL anywhere, started again with the same directory: the same end, nothing twice, nothing left.

use std::time::Duration;

use super::support::{
    assert_end, assert_nothing_ran_twice, assert_nothing_runs, last_line, said, told_in, wait,
};

const LIMIT: Duration = Duration::from_secs(120);

/// The quickstart's store kills its own process once before and once after each new event is committed; each start goes on with the
/// next boundary, until there is none left.
#[test]
fn killed_at_every_journal_boundary_it_comes_to_the_same_end() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let ledger_argument = ledger.display().to_string();
    let mut kills = 0;
    loop {
        let child = told_in(dir.path(), &["--crash-ledger", &ledger_argument]).spawn().unwrap();
        let output = wait(child, LIMIT);
        if output.status.success() {
            assert_end(&last_line(&output));
            break;
        }
        kills += 1;
        assert_eq!(output.status.code(), None, "only the kill ends it: {}", said(&output));
        let done = std::fs::read_to_string(&ledger).unwrap();
        assert_eq!(done.lines().count(), kills, "each start reaches a new boundary: {}", said(&output));
    }
    assert!(kills > 100, "there are more boundaries than {kills}");
    assert_nothing_ran_twice(dir.path());
    assert_nothing_runs(dir.path());
}

#[test]
fn killed_at_random_moments_it_comes_to_the_same_end() {
    #[expect(clippy::disallowed_methods, reason = "a developer may say which moments")]
    let given = std::env::var("FLOWLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| std::process::id().into());
    println!("seed {seed}; FLOWLINE_SEED={seed} takes the same again");
    killed_at_random_moments(seed, 20);
}

fn killed_at_random_moments(seed: u64, kills: u32) {
    let mut random = flowline::core::testkit::Seeded::new(seed);
    let mut killed = 0;
    while killed < kills {
        let dir = tempfile::tempdir().unwrap();
        let output = loop {
            let mut child = told_in(dir.path(), &[]).spawn().unwrap();
            if killed < kills {
                #[expect(clippy::disallowed_methods, reason = "a random moment is what is tested")]
                std::thread::sleep(Duration::from_millis(random.below(1_500)));
                child.kill().unwrap();
                killed += 1;
            }
            let output = wait(child, LIMIT);
            if output.status.success() {
                break output;
            }
            assert_eq!(output.status.code(), None, "seed {seed}: {}", said(&output));
        };
        assert_end(&last_line(&output));
        assert_nothing_ran_twice(dir.path());
        assert_nothing_runs(dir.path());
    }
}
