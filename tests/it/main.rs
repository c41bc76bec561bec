//! The delivery as a whole: the quickstart told, killed at every boundary and at random moments, and given bad input.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test says so by panicking")]

mod bad_input;
mod deployer;
mod features;
mod guide;
mod identity;
#[cfg(unix)]
mod run_graph;
mod story;
mod support;
mod surviving;
