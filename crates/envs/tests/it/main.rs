//! Tests of this crate through its public face.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where its world is not as it was set up"
)]

mod provision;
mod router;
