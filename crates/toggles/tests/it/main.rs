//! What holds of the crate as a whole, seen from outside.

mod allocations;
