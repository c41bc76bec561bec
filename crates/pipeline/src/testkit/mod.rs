//! Suites for implementers of this crate's traits, and the crash matrix for anybody's own pipeline.
//!
//! [`crash_matrix`] runs a pipeline on a manual clock and kills it at every point at which it matters.

mod crash;
mod executor;

pub use self::executor::{Broken, executor, executor_promise, executor_promises};
pub use crash::{Check, CrashPoint, CrashReport, Trial, Violation, WrapStore, crash_matrix};
