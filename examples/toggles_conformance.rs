//! Runs the vendors' own cases against the toggles engine: `cargo run --release --example toggles_conformance -- DIR`.
//!
//! DIR has a folder for each suite; suites that are absent are skipped. Prints a line for each suite and each failure, and exits with 1 if
//! any case failed.
#![expect(clippy::print_stdout, reason = "this program's output")]

use std::{path::PathBuf, process::ExitCode};

use flowline_toggles::testkit::conformance::SUITES;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else {
        println!("usage: toggles_conformance DIR");
        return ExitCode::from(2);
    };
    let mut failed = false;
    for suite in SUITES {
        let Some(report) = (suite.run)(&directory) else {
            println!("{}: not in {}, skipped", suite.name, directory.display());
            continue;
        };
        let (passed, failures, skipped) = (report.passed, report.failed.len(), report.skipped.len());
        println!("{}: {passed} passed, {failures} failed, {skipped} skipped", suite.name);
        for case in &report.failed {
            println!("  failed {}\n    expected {}\n    got      {}", case.name, case.expected, case.got);
        }
        for case in &report.skipped {
            println!("  skipped {}: {}", case.name, case.why);
        }
        failed |= !report.failed.is_empty();
    }
    ExitCode::from(u8::from(failed))
}
