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
//!
//! # What we do otherwise, and why
//!
//! Where Terraform, Temporal, Restate and Argo Workflows have a rule that we know and do not follow:
//!
//! * *One serial for the whole state makes a saved plan stale.* Ours keeps a fingerprint for each resource as each step saw it, so that only
//!   what a plan touches can make it stale. There is no lineage: a resource's name is what it is known by.
//! * *A check that fails only warns.* A step here succeeds or fails; what should warn says so in its lines and output. Exit code 2 of `plan`
//!   means changes, and what cannot be planned at all is 1, a denied effect included.
//! * *A second plan on a locked state fails at once, or waits as long as it is told.* Planning takes no lock, as it changes nothing. A second
//!   walk of one run waits until the first one's lease runs out, once, and then says who holds it; a step waits for its locks as long as
//!   [`Limits::queue_ms`](plan::Limits::queue_ms) says, and for ever without it.
//! * *After a failure, go on with what does not depend on it.* Nothing new starts after a failure; what runs is let finish, then all is undone
//!   or left ([`OnFailure`](run::OnFailure)). A half-done release that goes on is what people fear.
//! * *One of the limits of an attempt is mandatory.* None is ([`Limits`](plan::Limits)): an upload and a migration have no honest common default,
//!   and a limit that ends a migration halfway does harm. [`Runner::limit`] bounds the whole.
//! * *Who asked first for a lock gets it first.* Waiters wake together and any of them may be first: an order would be one more record for
//!   each waiter and for each that dies. Within one run the more important step ([`Policy::priority`](plan::Policy::priority)) is tried first.
//! * *A step's time-out counts while no worker lives.* It does for the whole run, and for a step that waits for something from outside; an
//!   attempt that died with its process gets its time anew, as its work is repeated anew.
//!
//! # Cargo features
//!
//! Nothing is on by default; the crate `flowline` turns on what a deployer needs.
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `process` | the local executor: hermetic processes; files into a release directory |
//! | `container` | the container executor, through the Docker API on a unix socket (Docker, Podman) |
//! | `ssh` | the executor over SSH, through the system's `ssh` |
//! | `archive` | a step that packs a directory into an archive that is the same for the same tree |
//! | `http` | a step that asks an address over plain HTTP |
//! | `sql` | a step that migrates SQLite files |
//! | `testkit` | behaviour suites for implementers of the traits, and the crash matrix |

mod cancel;
pub mod ci;
mod clock;
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

pub use clock::TokioClock;
pub use pipeline::{Output, Pipeline};
pub use plan::{Draft, Plan, Sealed};
pub use run::{Cancel, Runner};
pub use step::{Registry, Step};
