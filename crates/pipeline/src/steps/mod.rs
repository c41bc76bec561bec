//! The steps that ship.
//!
//! | step | what it does |
//! | --- | --- |
//! | [`RunCommand`] | runs a command through an [`Executor`] |
//! | `RunContainer` | runs a command in a container of an image that the plan names (feature `container`) |
//! | [`ApprovalGate`], [`TimeGate`], [`SignalGate`] | let the run wait while no process lives |
//! | [`WaitUntil`], [`Pause`] | lets time pass |
//! | [`Function`](crate::step::Function) | calls an async closure of the deployer |

mod command;
#[cfg(all(feature = "container", unix))]
mod container;
mod gate;
mod wait;

use std::sync::Arc;

#[cfg(all(feature = "container", unix))]
pub use self::container::{ContainerStep, RunContainer};
pub use self::{
    command::{CommandOutput, CommandStep, OtherCommand, RunCommand, Variables},
    gate::{
        ApprovalGate, ApprovalGateStep, Approved, SignalGate, SignalGateStep, TimeGate, TimeGateStep,
        decide_approval,
    },
    wait::{Pause, PauseStep, WaitStep, WaitUntil},
};
use crate::{exec::Executor, plan::IdError, step::Registry};

/// Adds every step of this module to `registry`, commands running through `executor`.
///
/// # Errors
/// None in practice: the kinds' names are well-formed.
pub fn register(registry: &mut Registry, executor: Arc<dyn Executor>) -> Result<(), IdError> {
    registry.add(CommandStep::new(executor))?.add(WaitStep)?.add(PauseStep)?;
    registry.add(ApprovalGateStep)?.add(TimeGateStep)?.add(SignalGateStep)?;
    Ok(())
}
