//! How a sealed plan is walked: journalled, resumed after any crash, undone as one scope.
//!
//! One generic interpreter walks the plan as data. What it wrote about a step is keyed by the step's id, so no code of the user is ever
//! replayed, and changed code can't meet a journal of another order.
//!
//! * **Forward.** A step starts once all before it are recorded as done. Records that become due together are one commit. The start of a
//!   step that must not be repeated blindly is `Synced` before its effect, of one that can be undone `Written`; a pure or idempotent step
//!   without undo is recorded when it is done.
//! * **Again.** After a crash, steps that were recorded as done are done. Of those that were started, pure and idempotent ones run again,
//!   probed ones are asked, `Once` stops the run for a person ([`Runner::resolve`]).
//! * **Back.** One undo scope stands around the whole walk. A step that failed for good, a cancel and a limit of time lead into it alike;
//!   the undoing of finished steps, in reverse order, is not stopped by the cancel that led to it. What can't be undone is collected, and
//!   the run can be undone again.

mod attempt;
mod error;
pub mod record;
mod reporter;
mod runner;
mod state;
mod undo;
mod walk;

pub use self::{
    error::{Moved, RunError},
    record::{Cause, End, How},
    reporter::{CollectingReporter, PlainReporter, Progress, Reporter, SilentReporter},
    runner::{Ended, OnFailure, Report, Resolution, Runner},
    state::{Phase, RunState, StepState},
};
pub use crate::cancel::Cancel;
