//! Suites for implementers of this crate's traits, and the crash matrix for anybody's own pipeline.
