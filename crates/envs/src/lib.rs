//! Part of [flowline](https://docs.rs/flowline).

pub mod address;
pub mod probe;
pub mod provision;
pub mod router;
#[cfg(feature = "testkit")]
pub mod testkit;
