//! How each format says the neutral flags.

pub mod flagd;
pub mod flowline;
pub mod growthbook;
pub mod launchdarkly;
pub mod ufc;
pub mod unleash;
