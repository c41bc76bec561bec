//! The steps that every deployment is made of: build, stage, show beside the running release, verify, switch.
//!
//! | kind | effect | undone by |
//! | --- | --- | --- |
//! | `flowline/build` | idempotent: an artifact is found by its source tree | nothing: an artifact harms nobody |
//! | `flowline/stage` | probed: the host knows what stands there | discarding the candidate |
//! | `flowline/show` | idempotent: the candidate gets addresses beside the running release | taking them away |
//! | `flowline/verify` | idempotent: asks, and records the verdict | nothing |
//! | `flowline/switch` | probed: the environment's document counts its deployments | putting back what ran before |

mod build;
mod show;
mod stage;
mod switch;
mod verify;

use std::collections::BTreeMap;

use flowline_core::name::{ComponentName, NameError};
use flowline_pipeline::step::StepError;

pub(super) use self::{
    build::{Build, Building},
    show::{Show, Showing},
    stage::{Stage, Staging},
    switch::{Becomes, Switch, Switching},
    verify::{Verify, Verifying},
};
use super::{Delivery, DeliveryError, Instance};

/// The code behind all of them: they act through one delivery.
#[derive(Debug, Clone)]
pub(super) struct Acting(pub(super) Delivery);

impl Acting {
    fn delivery(&self) -> &Delivery {
        &self.0
    }
}

fn of(error: DeliveryError) -> StepError {
    StepError::of(error)
}

fn name(error: NameError) -> StepError {
    StepError::of(error)
}

fn by_component(instances: Vec<Instance>) -> BTreeMap<ComponentName, Instance> {
    instances.into_iter().map(|instance| (instance.artifact.component.clone(), instance)).collect()
}
