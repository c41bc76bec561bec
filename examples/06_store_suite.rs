//! You wrote a store? Three lines say whether it keeps the contract: `cargo run --example 06_store_suite`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use flowline::core::{store::MemoryStore, testkit};

fn main() {
    let report = testkit::store::check("memory", MemoryStore::new);
    for sentence in &report.passed {
        println!("holds: {sentence}");
    }
    for sentence in &report.skipped {
        println!("does not apply: {sentence}");
    }
    report.assert();
}
