//! How a sealed plan is walked: journalled, resumed after any crash, undone as one scope.

mod reporter;

pub use self::reporter::{CollectingReporter, PlainReporter, Progress, Reporter, SilentReporter};
pub use crate::cancel::Cancel;
