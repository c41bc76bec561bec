//! Feature toggles: one evaluation engine for everyone's flag documents, with explanation and life cycle.
//!
//! Deploying is not releasing: a [flag](model::Flag) decides who gets what has been deployed. A [mod@format] turns a document into the
//! [model], the [engine] compiles that into a [`Ruleset`], and a [`Context`] is evaluated against it.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`value`], [`context`] | what an attribute is, and who asks |
//! | [`model`] | what a document says, in one form for all formats |
//! | [`mod@format`] | how a document becomes the model |
//! | [`hash`] | where a hash places people |
//! | [`engine`] | what a flag comes to, and why |
//! | [`Toggles`] | which flags are current |
//! | [`flags`] | how far our own flags are released, where, by whom and why |
//! | [`client`], [`provider`] | how applications ask for flags (OpenFeature), and who answers |
//! | [`source`] | where documents come from, and what is served when they don't |
//! | [`life`] | what a release does next, who an edit would move, which flags are stale |
//!
//! Nothing is on by default; the crate `flowline` turns on what a deployer needs.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `config` | our own flags from TOML and JSON files, with errors that point at file, line and column |
//! | `yaml` | the same from YAML files |
//! | `schema` | the JSON Schema of our own flag documents |
//! | `tokio` | contexts of transactions that follow a task of tokio |
//! | `http` | flags over plain HTTP/1.1: polling, Unleash, OFREP |
//! | `openfeature` | a provider for the crate `open-feature` |
//! | `growthbook-decrypt` | encrypted payloads of GrowthBook |
//! | `scan` | finding flags in source trees |
//! | `testkit` | behaviour suites for implementers of the traits |

pub mod client;
pub mod context;
pub mod engine;
pub mod flags;
pub mod format;
pub mod hash;
pub mod life;
pub mod model;
#[cfg(feature = "openfeature")]
pub mod openfeature;
pub mod provider;
pub mod source;
#[cfg(feature = "testkit")]
pub mod testkit;
mod toggles;
pub mod value;

pub use context::Context;
pub use engine::{Evaluation, Ruleset};
pub use toggles::Toggles;
pub use value::Value;
