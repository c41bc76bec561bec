//! Where there is no Unix there is no provisioner for one plain host: opening it is refused.

#[path = "local/checkpoint.rs"]
mod checkpoint;
#[path = "local/options.rs"]
mod options;

use std::path::Path;

use async_trait::async_trait;
use flowline_core::{grant::Granted, id::ResourceId, store::Fence};

pub use self::{
    checkpoint::Checkpoint,
    options::{DEFAULT_PATH, LocalOptions},
};
use super::{Observed, ProvisionCapabilities, ProvisionError, Provisioner, WorkloadChange};

/// The [`Provisioner`] for this host. There is none on this platform, so there is no value of it.
#[derive(Debug, Clone)]
pub enum LocalProvisioner {}

impl LocalProvisioner {
    /// Refuses.
    ///
    /// # Errors
    /// [`ProvisionError::Unsupported`], always.
    pub fn open(_root: &Path, _options: LocalOptions) -> Result<Self, ProvisionError> {
        Err(ProvisionError::Unsupported {
            what: "work here: it needs process groups and /proc, which Linux has",
        })
    }
}

#[async_trait]
impl Provisioner for LocalProvisioner {
    fn capabilities(&self) -> ProvisionCapabilities {
        match *self {}
    }

    async fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError> {
        match *self {}
    }

    async fn observe(&self, _on: &Granted<ResourceId>) -> Result<Observed, ProvisionError> {
        match *self {}
    }

    async fn apply(
        &self,
        _on: &Granted<ResourceId>,
        _change: &WorkloadChange,
        _fence: &Fence,
    ) -> Result<Observed, ProvisionError> {
        match *self {}
    }

    async fn destroy(
        &self,
        _on: &Granted<ResourceId>,
        _captured: &Observed,
        _fence: &Fence,
    ) -> Result<(), ProvisionError> {
        match *self {}
    }
}
