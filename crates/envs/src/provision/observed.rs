//! What is there: the instances of one component, and which of them is active.

use std::path::PathBuf;

use flowline_core::{Timestamp, digest::Digest, id::ResourceId};
use serde::{Deserialize, Serialize};

use super::{
    ProvisionError, place_of,
    workload::{InstanceId, Workload, WorkloadKind},
};

/// What a provisioner found under one resource. Empty if there is nothing.
///
/// It is plain data, so that it can be kept (an environment's record keeps it as what was *captured*) and given to
/// [`destroy`](super::Provisioner::destroy) later, when the configuration that made it may be gone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// The instances, in the order in which they were first staged.
    pub instances: Vec<Instance>,
    /// The one that traffic may go to.
    pub active: Option<InstanceId>,
}

impl Observed {
    /// The instance `id`.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.id == id)
    }

    /// The active instance.
    pub fn active(&self) -> Option<&Instance> {
        self.active.and_then(|id| self.instance(id))
    }

    /// The instance to go back to: that which was active most recently and is not now.
    pub fn previous(&self) -> Option<&Instance> {
        self.instances
            .iter()
            .filter(|instance| Some(instance.id) != self.active && instance.activated.is_some())
            .max_by_key(|instance| (instance.activated, instance.number))
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

/// One instance: a release of a component, set up once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// The digest of its artifact's content.
    pub artifact: Digest,
    /// How it was told to run.
    pub kind: WorkloadKind,
    /// Its number among the releases under the resource, from 1; not used again as long as anything is left under it.
    pub number: u64,
    /// How it is.
    pub state: InstanceState,
    /// When it was staged first.
    pub staged: Timestamp,
    /// When it became active last.
    pub activated: Option<Timestamp>,
    /// Its process, if one is running.
    pub process: Option<RunningProcess>,
    /// Where its files are, if it has some on this host.
    pub directory: Option<PathBuf>,
    /// Where its output goes, if it has some on this host.
    pub log: Option<PathBuf>,
}

impl Instance {
    /// Whether it may become active.
    pub fn is_ready(&self) -> bool {
        self.state == InstanceState::Ready
    }

    /// The workload that it is an instance of, under `resource`: stage it again to go back to it.
    ///
    /// # Errors
    /// [`ProvisionError::Resource`] if `resource` is nothing that a provisioner has.
    pub fn workload(&self, resource: &ResourceId) -> Result<Workload, ProvisionError> {
        let (environment, component) = place_of(resource)?;
        Ok(Workload { environment, component, artifact: self.artifact, kind: self.kind.clone() })
    }

    /// The port on 127.0.0.1 that its process listens on.
    pub fn port(&self) -> Option<u16> {
        self.process.as_ref().map(|process| process.port)
    }
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Being prepared, or its process does not answer (yet).
    Starting,
    /// Complete; its process answers.
    Ready,
    /// Its process ended without being told to.
    Failed {
        /// How, for people: `it exited with code 1`.
        why: String,
    },
    /// Retired. Its files are kept, so that going back is quick.
    Stopped,
}

/// A process, named so that no other can be mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningProcess {
    /// Its id, and that of its process group.
    pub pid: u32,
    /// When it started, in the kernel's clock ticks since boot: the same pid with another start is another process.
    pub started: u64,
    /// The boot of the host that `started` counts from.
    pub boot: String,
    /// The port on 127.0.0.1 that it was given.
    pub port: u16,
    /// The mark in its environment, unique to this start.
    pub token: String,
}
