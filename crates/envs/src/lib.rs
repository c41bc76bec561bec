//! Part of [flowline](https://docs.rs/flowline).

pub mod provision;
#[cfg(feature = "testkit")]
pub mod testkit;
