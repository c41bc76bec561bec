//! What can be read of a run afterwards: what each step printed ([`Logs`]), and the run as a whole ([`RunView`]) with its page in HTML.
//!
//! * **While it runs**, [`Logs::keep`] gives a reporter that keeps the lines of each step, masked as they come, within bounds;
//!   [`EventReporter`] tells machines what happens, one JSON object a line.
//! * **Afterwards**, [`RunView::read`] puts together the plan, the journal and the logs, and [`RunView::to_html`] renders one
//!   self-contained page: the same run, the same bytes.

mod events;
mod html;
mod logs;
mod style;
mod view;

#[cfg(test)]
mod tests;

pub use self::{
    events::{EVENTS_VERSION, EventReporter},
    logs::{KeepingReporter, KeptLine, LogError, Logs, StepLog},
    view::{Attempt, Outcome, ReadError, RunView, StepView},
};
