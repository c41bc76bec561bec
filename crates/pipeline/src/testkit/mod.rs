//! Suites for implementers of this crate's traits, and the crash matrix for anybody's own pipeline.
//!
//! [`crash_matrix`] runs a pipeline on a manual clock and kills it at every point at which it matters; [`durability`] holds each of its records
//! against what it must survive.

mod crash;
mod durability;
mod executor;

pub use self::durability::{DurabilityReport, durability};
pub use self::executor::{Broken, executor, executor_promise, executor_promises};
pub use crash::{Check, CrashPoint, CrashReport, Trial, Violation, WrapStore, crash_matrix};
