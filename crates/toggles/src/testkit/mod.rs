//! Suites for whoever implements a format or a source, and the runner of the vendors' own cases.

pub mod conformance;
