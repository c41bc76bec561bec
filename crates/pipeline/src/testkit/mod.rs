//! Suites for implementers of this crate's traits, and the crash matrix for anybody's own pipeline.
//!
//! | item | what it checks or breaks |
//! | --- | --- |
//! | [`step`](fn@step) | the suite of [`Step`](crate::step::Step): effect, preview, probe, undo, grants, secrets |
//! | [`executor`](fn@executor) | the suite of [`Executor`](crate::exec::Executor) |
//! | [`journal`](fn@journal) | runs on any [`Store`](flowline_core::store::Store): what survives, what is synced, who may walk |
//! | [`crash_matrix`] | a whole pipeline, forward and back, on a clock that jumps, killed at every point at which it matters and again in its recovery |
//! | [`durability`](fn@durability) | each record of a run, against what it must survive |
//! | [`Faults`] | any executor, step or reporter, failing or crashing at the call that a test chooses |

mod crash;
mod durability;
mod executor;
mod faults;
mod journal;
mod pace;
mod step;

use flowline_core::testkit::Report;

/// What a case found, if it did not find a promise broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Holds,
    /// By what is declared, it was not promised.
    DoesNotApply,
}

/// What a case found; what was seen instead if the promise was broken.
type Outcome = Result<Verdict, String>;

fn note(report: &mut Report, promise: &'static str, outcome: Outcome) {
    match outcome {
        Ok(Verdict::Holds) => report.holds(promise),
        Ok(Verdict::DoesNotApply) => report.skip(promise),
        Err(seen) => report.broken(promise, seen),
    }
}

pub use self::{
    crash::{Check, CrashPoint, CrashReport, Trial, Violation, WrapStore, crash_matrix},
    durability::{DurabilityReport, durability},
    executor::{Broken, executor, executor_promise, executor_promises},
    faults::{Faults, FaultyExecutor, FaultyReporter, FaultyStep},
    journal::{Open, journal, journal_promise, journal_promises},
    step::{StepTrial, step, step_promise, step_promises},
};
