//! How a sealed plan is walked: journalled, resumed after any crash, undone as one scope.
//!
//! One generic interpreter walks the plan as data. What it wrote about a step is keyed by the step's id, so no code of the user is ever
//! replayed, and changed code can't meet a journal of another order.
//!
//! * **Forward.** A step starts once all before it are recorded as done. Records that become due together are one commit. The start of a
//!   step that must not be repeated blindly is `Synced` before its effect, of one that can be undone or touches a resource `Written`; a
//!   pure step, and an idempotent one without undo and resources, is recorded when it is done.
//! * **Alone.** Named locks and semaphores ([`Policy::locks`](crate::plan::Policy::locks)) are leases of the store: they count over all runs
//!   and processes, say who holds them, and are taken from nobody before their time ran out.
//! * **Not at all.** A pure step that declares what it reads takes its output from the cache if nothing of that changed; an effect is
//!   skipped only if the world is as the plan found it and as it should be: at the start if nothing before it runs, else by a second look
//!   when its turn comes; a condition may say no. [`Why`] says which.
//! * **Again.** After a crash, steps that were recorded as done are done. Of those that were started, pure and idempotent ones run again,
//!   probed ones are asked, `Once` stops the run for a person ([`Runner::resolve`]).
//! * **In time.** A step's limits ([`Limits`](crate::plan::Limits)) and the run's ([`Runner::limit`]) end what takes too long. The time of
//!   a gate and of the run counts over all processes.
//! * **Back.** One undo scope stands around the whole walk. A step that failed for good, a cancel and a limit of time lead into it alike;
//!   the undoing of finished steps, in reverse order, is not stopped by the cancel that led to it. What can't be undone is collected, and
//!   the run can be undone again.

mod answer;
mod attempt;
mod begin;
mod cache;
mod error;
mod forward;
mod fresh;
mod front;
mod locks;
mod outcome;
pub mod record;
pub(crate) mod reporter;
mod runner;
mod settle;
mod state;
mod table;
mod template;
mod undo;
mod walk;
mod why;

pub use self::{
    error::{Moved, RunError},
    outcome::{Ended, OnFailure, Report, Resolution},
    record::{Cause, End, How},
    reporter::{CollectingReporter, EveryReporter, PlainReporter, Progress, Reporter, SilentReporter},
    runner::Runner,
    state::{Phase, RunState, StepState},
    why::Why,
};
pub use crate::cancel::Cancel;
