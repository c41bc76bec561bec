//! Checks that a store keeps the contract of [`Store`].
//!
//! ```
//! use flowline_core::{store::MemoryStore, testkit};
//! testkit::store::check("memory", MemoryStore::new).assert();
//! ```
//!
//! [`check`] runs in one process and drives the store on threads of its own; [`check_processes`] kills and races child processes.

mod cases;
mod model;
mod processes;

#[cfg(test)]
mod broken;

use std::{future::Future, pin::Pin, sync::Arc};

pub use self::processes::{check_processes, check_processes_seeded, child};
use super::{Outcome, Report, SEED, Seeded, block_on};
use crate::store::Store;

type Checked = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A case: the sentence that it checks, and how.
struct Case {
    sentence: &'static str,
    run: fn(Arc<dyn Store>, Seeded) -> Checked,
}

/// Checks all sentences of the contract that one process can see. `open` makes a new, empty store for each.
///
/// The store's futures are driven on threads without an async runtime; a backend that needs one enters it in its own methods. Takes a
/// second or two.
pub fn check<S: Store + 'static>(backend: &str, open: impl Fn() -> S) -> Report {
    check_seeded(backend, SEED, open)
}

/// The same with the seed that a failure named, or one of your own.
pub fn check_seeded<S: Store + 'static>(backend: &str, seed: u64, open: impl Fn() -> S) -> Report {
    let mut report = Report::new("store", backend);
    for case in cases::CASES {
        let store: Arc<dyn Store> = Arc::new(open());
        report.note(case.sentence, seed, block_on((case.run)(store, Seeded::new(seed))));
    }
    report
}
