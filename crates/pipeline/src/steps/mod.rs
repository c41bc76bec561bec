//! The steps that ship.
