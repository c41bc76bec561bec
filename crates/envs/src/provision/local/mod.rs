//! One plain host: releases as directories with an atomically switched `current` link, and processes that outlive their deployer.
//!
//! Everything lies under one root:
//!
//! ```text
//! artifacts/HEX/…                               content, by digest
//! environments/production/web.dir/current       -> releases/000003
//! environments/production/web.dir/releases/000003/…
//! environments/production/api.process/data      for what outlives a release
//! environments/production/api.process/logs/000007.log
//! environments/production/api.process/record.json
//! fences/HEX, locks/…, trash/…
//! ```
//!
//! *How a crash is survived.* Before a process is started, its mark (a text unique to this start, in its environment as
//! `FLOWLINE_INSTANCE`), its port and its release are on disk; afterwards its pid and its start time in the kernel's clock. Whoever comes
//! next finds it by these, or by its mark alone if the deployer died in between. A pid whose start time, or boot of the host, is
//! another is another process and is never signalled. Changes to one resource are made under a file lock that dies with its holder.
//!
//! *Fences* are remembered, one small file for each resource and lease, and stay when the resource is destroyed.
//!
//! *What is not promised.* A process leaves its group and its mark behind only on purpose (`setsid` with a cleared environment): such a
//! one is not found. A service manager that kills a service's whole control group kills what the service deployed (for systemd, set
//! `KillMode=process`). Sockets, shared memory and files outside the release directory are the process's own affair. There is one
//! host: the lock does not reach over a network file system.

mod apply;
mod artifacts;
mod checkpoint;
mod files;
mod lock;
mod log;
mod observe;
mod options;
mod patience;
mod process;
mod procfs;
mod readiness;
mod record;
mod start;
mod tree;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use flowline_core::{grant::Granted, id::ResourceId, store::Fence};

use self::{patience::Patience, record::Layout};
use super::{
    Observed, ProvisionCapabilities, ProvisionError, Provisioner, WorkloadChange, check_handle, place_of,
};

pub use self::{
    artifacts::{ArtifactStore, ImportError},
    checkpoint::Checkpoint,
    options::{DEFAULT_PATH, LocalOptions},
    tree::{TreeError, digest as digest_directory},
};

/// The [`Provisioner`] for this host. Clones share nothing but the root; several processes may use one root at once.
///
/// Files belong to `dir:ENVIRONMENT/COMPONENT`, processes to `process:ENVIRONMENT/COMPONENT`. Must be used within a tokio runtime:
/// all work is done on its blocking threads.
#[derive(Debug, Clone)]
pub struct LocalProvisioner {
    host: Arc<Host>,
}

/// This host, as far as the provisioner uses it.
#[derive(Debug)]
struct Host {
    layout: Layout,
    artifacts: ArtifactStore,
    options: LocalOptions,
}

impl LocalProvisioner {
    /// Uses `root`, which is created if it is not there. Blocks its thread for a moment.
    ///
    /// # Errors
    /// [`ProvisionError::Unavailable`] if `root` can't be used, [`ProvisionError::Unsupported`] on a system without `/proc`.
    pub fn open(root: &Path, options: LocalOptions) -> Result<Self, ProvisionError> {
        procfs::check().map_err(|_| ProvisionError::Unsupported {
            what: "work here: it finds processes in /proc, which Linux has",
        })?;
        files::create_dirs(root)?;
        let root = root.canonicalize().map_err(|error| files::unavailable("open", root, error))?;
        let layout = Layout { root };
        for dir in [layout.locks(), layout.fences(), layout.environments()] {
            files::create_dirs(&dir)?;
        }
        let artifacts = ArtifactStore::open(&layout.root, &layout.locks(), options.hook.clone())?;
        Ok(Self { host: Arc::new(Host { layout, artifacts, options }) })
    }

    /// Where everything lies, absolute.
    pub fn root(&self) -> &Path {
        &self.host.layout.root
    }

    /// The store that releases are made from.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.host.artifacts
    }

    /// Imports the directory `from` without blocking the caller's task. See [`ArtifactStore::import`].
    ///
    /// # Errors
    /// As [`ArtifactStore::import`].
    pub async fn import(&self, from: PathBuf) -> Result<flowline_core::digest::Digest, ImportError> {
        let artifacts = self.host.artifacts.clone();
        let place = from.clone();
        let work = tokio::task::spawn_blocking(move || artifacts.import(&from));
        work.await.unwrap_or_else(|error| Err(ImportError::Store { from: place, source: error.into() }))
    }

    /// Where the active files of a `dir:` resource are served from: the `current` link.
    ///
    /// # Errors
    /// [`ProvisionError::Resource`] if `on` is to nothing that this provisioner has.
    pub fn current(&self, on: &Granted<ResourceId>) -> Result<PathBuf, ProvisionError> {
        Ok(self.host.layout.place(on.resource())?.dir.join("current"))
    }

    /// Runs `work` on a blocking thread; if this future is dropped, the work ends at its next pause.
    async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        resource: &ResourceId,
        work: impl FnOnce(&Host, &Patience) -> Result<T, ProvisionError> + Send + 'static,
    ) -> Result<T, ProvisionError> {
        let host = Arc::clone(&self.host);
        let patience = Patience::default();
        let _interest = patience.interest();
        let result = tokio::task::spawn_blocking(move || work(&host, &patience)).await;
        result.unwrap_or_else(|error| {
            Err(ProvisionError::Backend { doing, resource: resource.clone(), source: error.into() })
        })
    }
}

#[async_trait]
impl Provisioner for LocalProvisioner {
    fn capabilities(&self) -> ProvisionCapabilities {
        ProvisionCapabilities {
            files: true,
            processes: true,
            side_by_side: true,
            survives_restart: true,
            kept: self.host.options.kept,
        }
    }

    async fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError> {
        let host = Arc::clone(&self.host);
        tokio::task::spawn_blocking(move || host.layout.inventory())
            .await
            .unwrap_or_else(|_| Err(ProvisionError::Cancelled))
    }

    async fn observe(&self, on: &Granted<ResourceId>) -> Result<Observed, ProvisionError> {
        let place = self.host.layout.place(on.resource())?;
        self.run("observe", on.resource(), move |host, _| host.observe(&place)).await
    }

    async fn apply(
        &self,
        on: &Granted<ResourceId>,
        change: &WorkloadChange,
        fence: &Fence,
    ) -> Result<Observed, ProvisionError> {
        check_handle(on, change)?;
        let place = self.host.layout.place(on.resource())?;
        let (change, fence) = (change.clone(), fence.clone());
        self.run("change", on.resource(), move |host, patience| host.apply(&place, &change, &fence, patience))
            .await
    }

    async fn destroy(
        &self,
        on: &Granted<ResourceId>,
        captured: &Observed,
        fence: &Fence,
    ) -> Result<(), ProvisionError> {
        place_of(on.resource())?;
        let place = self.host.layout.place(on.resource())?;
        let (captured, fence) = (captured.clone(), fence.clone());
        self.run("destroy", on.resource(), move |host, patience| {
            host.destroy(&place, &captured, &fence, patience)
        })
        .await
    }
}
