//! One file for each engine: how it says the neutral document, and how it is asked.

pub mod eppo;
pub mod feature_flag;
pub mod flagd;
pub mod flowline;
pub mod growthbook;
pub mod launchdarkly;
pub mod yggdrasil;
