#![doc = include_str!("../README.md")]
//!
//! # In this crate
//!
//! [`Delivery`](delivery::Delivery) has the verbs; [`Topology`](topology::Topology) is what a `flowline.toml` says; a
//! [`Source`](source::Source) is where components' files come from. The crates underneath are [`core`], [`envs`], [`toggles`] and
//! [`pipeline`].

#[cfg(doc)]
#[doc = include_str!("../docs/backend.md")]
pub mod backend {}
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(all(feature = "config", feature = "process", feature = "router"))]
pub mod delivery;
#[cfg(feature = "cli")]
pub mod guide;
#[cfg(all(feature = "config", feature = "process", feature = "router"))]
pub mod source;
#[cfg(feature = "config")]
pub mod topology;

pub use flowline_core as core;
pub use flowline_envs as envs;
pub use flowline_pipeline as pipeline;
pub use flowline_toggles as toggles;

#[cfg(all(feature = "config", feature = "process", feature = "router"))]
pub use delivery::{Delivery, DeliveryError, Setup};

/// The names that a deployer's `main` uses.
pub mod prelude {
    #[cfg(feature = "config")]
    pub use crate::topology::Topology;
    #[cfg(all(feature = "config", feature = "process", feature = "router"))]
    pub use crate::{
        delivery::{
            Delivery, DeliveryError, Deployed, PlannedDeployment, Preview, Serving, Setup, Timeline, Workflow,
        },
        source::{GitSource, Source},
    };
    pub use flowline_core::{
        id::ChangeId,
        name::{AppName, ComponentName, EnvironmentName, Person},
        notify::{CollectingNotifier, Notifier, WriterNotifier},
        verdict::Verdict,
    };
    pub use flowline_toggles::{Context, Toggles};
}
