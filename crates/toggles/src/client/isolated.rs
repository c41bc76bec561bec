//! Instances of the API beside the global one: for tests, and for several applications in one process.
//!
//! They stand in a module of their own so that they are made on purpose: most programs want [`Api::global`].

use super::Api;

/// A new API that shares nothing with any other. A provider may be bound in one API at a time.
///
/// Dropping the last clone of it and of its clients shuts its providers down.
#[must_use]
pub fn api() -> Api {
    Api::new()
}
