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

pub use self::{
    crash::{Check, CrashPoint, CrashReport, Trial, Violation, WrapStore, crash_matrix},
    durability::{DurabilityReport, durability},
    executor::{Broken, executor, executor_promise, executor_promises},
    faults::{Faults, FaultyExecutor, FaultyReporter, FaultyStep},
    journal::{Open, journal, journal_promise, journal_promises},
    step::{StepTrial, step, step_promise, step_promises},
};
