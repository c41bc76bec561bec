//! flowline's own flags: typed, with an owner and an expected end, and with state that is kept apart from the definition.
//!
//! A [`Definition`] says what a flag is: variants, who may see it, rules. A [`State`] says how far it is released in one place: on or
//! off, to how many percent, killed. One definition has a state in each [scope](flowline_core::id::ScopeId); [`compile`] puts both together.
//!
//! # How a flag of our own is evaluated
//! 1. Killed: its `off` variant, even if its definition makes no sense. (Then it is an error otherwise.) Not on: the same.
//! 2. Every flag in `requires` must be on, else the `off` variant.
//! 3. `rules` in order: all clauses of `when` hold, and the user is within the rule's own `rollout` if it has one: its `serve`.
//! 4. If the `audience` holds (by default everybody), and the user is within the state's rollout: `serve`. Otherwise the `off` variant.
//!
//! A user's place on the line from 0 to 100 % is the upper 32 bits of XXH3 of the targeting key, under the XXH3 of the flag's salt (by default
//! its key) as seed. It does not move, so raising a rollout never throws anybody out. Splits use another seed, so that they are
//! independent of the rollout; their variants lie on the line in the order of their names, whatever order they are written in.

mod clause;
mod clause_serial;
mod compile;
mod definition;
mod document;
mod lenient;
mod named;
#[cfg(feature = "schema")]
mod schema;
#[cfg(all(test, feature = "schema"))]
mod schema_tests;
#[cfg(test)]
mod tests;

pub use clause::{Asks, Attribute, Clause, Compare};
pub(crate) use compile::{broken, is_killed};
pub use compile::{compile, rollout_point};
pub use definition::{
    Beyond, Definition, Effective, FlagKey, FlagKeyError, Percent, PercentError, Rule, Serve, Slice, Slices,
    State,
};
pub use document::{Document, Flowline, Segment};
pub use named::Named;
pub(crate) use named::moment;
#[cfg(feature = "schema")]
pub(crate) use schema::Moment;
#[cfg(feature = "schema")]
pub use schema::flags_schema;
