//! Part of [flowline](https://docs.rs/flowline).
