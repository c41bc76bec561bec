//! A new executor and a new step for flowline, with nothing but its public API. `docs/backend.md` tells how they came to be.

mod message;
mod nice;

pub use message::{Message, MessageStep};
pub use nice::NiceExecutor;
