//! The vocabulary and the contracts that every part of flowline shares.
//!
//! `flowline-core` holds plain data (names, artifacts, releases, changes, grants, verdicts, events), the pure
//! graph, and the traits behind which every effect happens ([`Clock`](clock::Clock),
//! [`Store`](store::Store), [`Notifier`](notify::Notifier), …) with their in-memory and SQLite implementations. It brings no async
//! runtime, no configuration parser (feature `config`) and no network.
//!
//! Modules stand in the order of reading: data first, then the traits, then what is built on them.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`name`], [`id`], [`digest`] | how things are called, and that a call is well-formed |
//! | [`artifact`], [`change`] | what is delivered, and who shepherds it |
//! | [`verdict`], [`grant`], [`secret`] | whether it is well, whether it is allowed, what may not be seen |
//! | [`graph`] | what comes before what, and how that is run |
//! | [`error`], [`diagnostic`], `config` | what went wrong, where, and what to do |
//! | [`process`] | which process of this host is meant |
//! | [`clock`], [`event`], [`store`], [`journal`], [`lease`], [`notify`] | time, facts, state, exclusion, messages |
//!
//! Nothing is on by default; the crate `flowline` turns on what a deployer needs.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `config` | configuration files (TOML and JSON) with errors that point at file, line and column |
//! | `yaml` | the same for YAML |
//! | `sqlite` | the embedded store: SQLite in a folder, several processes at once |
//! | `testkit` | behaviour suites for implementers of the traits |

pub mod artifact;
pub mod change;
pub mod clock;
#[cfg(feature = "config")]
pub mod config;
pub mod diagnostic;
pub mod digest;
pub mod error;
pub mod event;
pub mod grant;
pub mod graph;
pub mod id;
pub mod journal;
pub mod lease;
pub mod name;
pub mod notify;
pub mod process;
pub mod secret;
pub mod store;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod verdict;

pub use jiff::{SignedDuration, Timestamp};
pub use semver::Version;
