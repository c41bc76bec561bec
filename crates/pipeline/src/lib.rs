//! Pipelines of flowline: typed steps, sealed plans, durable runs, portable executors.
//!
//! A [`Pipeline`] is written in Rust; underneath it is a [`Draft`] of plain data. Planning looks at the
//! world, asks what the application may touch and gives a [`Plan`]; sealing it fixes its digest. A
//! [`Runner`] walks a [`Sealed`] plan as data over any store: what it finished it never does again, what
//! it was killed in it repeats, asks the world about or leaves to a person, as the step declared.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`plan`] | what a deployment is, as data: nodes, what they touch, what is denied, the seal |
//! | [`step`] | what a step promises: its effect, preview, run, probe, undo; which kinds there are |
//! | [`pipeline`] | how a plan is written in Rust, with typed outputs |
//! | [`run`] | how a sealed plan is walked, journalled, resumed and undone |
//! | [`report`] | what can be read of a run afterwards: logs, and a page that shows it |
//! | [`exec`] | how a command runs: hermetic, masked, line by line, killed as a whole |
//! | [`portability`] | whether pure steps give the same wherever they run |
//! | [`steps`] | the steps that ship |
//! | [`ci`] | what a CI file says, which holds no logic, and how a run is shown in each CI system |
//! | `testkit` | suites for implementers, and the crash matrix for anybody's own pipeline (feature `testkit`) |

mod cancel;
pub mod ci;
pub mod exec;
pub mod pipeline;
pub mod plan;
pub mod portability;
pub mod report;
pub mod run;
pub mod step;
pub mod steps;
#[cfg(feature = "testkit")]
pub mod testkit;

pub use pipeline::{Output, Pipeline};
pub use plan::{Draft, Plan, Sealed};
pub use run::{Cancel, Runner};
pub use step::{Registry, Step};
