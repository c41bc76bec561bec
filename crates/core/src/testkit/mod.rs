//! Behaviour suites for this crate's traits, and wrappers that make backends fail on purpose.
