//! Environments of [flowline](https://docs.rs/flowline): what a component's address is, who provisions and routes it, and what may be
//! promoted where.
//!
//! ```
//! use flowline_envs::address::{Address, Style, label};
//! let preview = label::environment_of_pull_request(123)?;
//! let app: Address = "https://app.awesome.com".parse()?;
//! assert_eq!(app.in_environment(&preview, Style::Auto)?.to_string(), "https://pr-123-app.awesome.com");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Modules stand in the order of reading: plain data and pure decisions first, then the traits with their backends.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`address`] | where a component is found in each environment, known before anything is deployed |
//! | [`environment`] | what an environment is, what runs there, when it expires, what a rollback goes back to |
//! | [`webhook`] | what a forge's payload says of a change |
//! | [`promotion`] | what may go where, and why not yet |
//! | [`provision`] | what must be made or removed on a host, and making it so |
//! | [`router`] | which request is answered by what, and the HTTP proxy that does it |
//! | [`probe`] | whether something answers as expected |
//!
//! Nothing is on by default; the crate `flowline` turns on what a deployer needs.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `url` | addresses from and to `url::Url` |
//! | `router` | the HTTP reverse proxy on loopback, and the small HTTP client for probes |
//! | `process` | the provisioner for one plain host: release directories, processes, logs (Linux) |
//! | `testkit` | behaviour suites for implementers of the traits |

pub mod address;
pub mod environment;
pub mod probe;
pub mod promotion;
pub mod provision;
pub mod router;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod webhook;
