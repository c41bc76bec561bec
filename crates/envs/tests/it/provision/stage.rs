//! What the tests stand on: a root, artifacts, grants, and a look at what is left.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flowline_core::{
    digest::Digest,
    grant::{Authority, Grant, Granted, Grants, Pattern},
    id::{Key, ResourceId},
    store::Fence,
};
use flowline_envs::provision::{
    Desired, Goal, Observed, ProcessSpec, ProvisionError, Provisioner as _, ProvisionerExt as _, Workload,
    WorkloadChange,
    local::{LocalOptions, LocalProvisioner},
};

use super::server;

/// A provisioner with a root of its own. Whatever a failed test leaves is removed with it.
pub(crate) struct Stage {
    pub(crate) provisioner: LocalProvisioner,
    pub(crate) root: Root,
}

/// A directory, removed in the end if it is the test's own.
#[derive(Debug)]
pub(crate) enum Root {
    Own(tempfile::TempDir),
    Other(PathBuf),
}

impl Root {
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Own(dir) => dir.path(),
            Self::Other(path) => path,
        }
    }
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::with(LocalOptions::default())
    }

    pub(crate) fn with(options: LocalOptions) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self { provisioner: LocalProvisioner::open(root.path(), options).unwrap(), root: Root::Own(root) }
    }

    /// One with its root in memory where the host has such a place: for many short lives in which nothing is started from the root.
    pub(crate) fn quick(options: LocalOptions) -> Self {
        let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { provisioner: LocalProvisioner::open(root.path(), options).unwrap(), root: Root::Own(root) }
    }

    /// One at a root that is somebody else's; nothing is removed in the end.
    pub(crate) fn at(root: &Path, options: LocalOptions) -> Self {
        Self {
            provisioner: LocalProvisioner::open(root, options).unwrap(),
            root: Root::Other(root.to_owned()),
        }
    }

    /// The artifact of a server that behaves like this and shows this page.
    pub(crate) fn server(&self, page: &str, behaviour: &str) -> Digest {
        self.artifact(&[("page", page, false), ("behaviour", behaviour, false)])
    }

    /// The artifact with these files: path, content, whether it may be executed.
    pub(crate) fn artifact(&self, files: &[(&str, &str, bool)]) -> Digest {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        self.provisioner.artifacts().import(dir.path()).unwrap()
    }

    /// The workload of a server.
    pub(crate) fn api(&self, page: &str, behaviour: &str) -> Workload {
        api(self.server(page, behaviour), server::spec())
    }

    /// The workload of a shell script.
    pub(crate) fn script(&self, text: &str, spec: impl FnOnce(ProcessSpec) -> ProcessSpec) -> Workload {
        let artifact = self.artifact(&[("run", &format!("#!/bin/sh\n{text}"), true)]);
        api(artifact, spec(ProcessSpec::new(["./run", "{port}"]).unwrap()))
    }

    pub(crate) async fn apply(
        &self,
        workload: &Workload,
        change: WorkloadChange,
    ) -> Result<Observed, ProvisionError> {
        self.provisioner.apply(&granted(workload), &change, &fence(1)).await
    }

    pub(crate) async fn stage(&self, workload: &Workload) -> Result<Observed, ProvisionError> {
        self.apply(workload, WorkloadChange::Stage(workload.clone())).await
    }

    pub(crate) async fn converge(&self, workload: &Workload, goal: Goal) -> Observed {
        let desired = Desired::new(workload.clone(), goal);
        self.provisioner.converge(&granted(workload), &desired, &fence(1)).await.unwrap()
    }

    pub(crate) async fn observe(&self, workload: &Workload) -> Observed {
        self.provisioner.observe(&granted(workload)).await.unwrap()
    }

    pub(crate) async fn destroy(&self, workload: &Workload) {
        self.provisioner.destroy(&granted(workload), &Observed::default(), &fence(1)).await.unwrap();
    }

    /// The ids of all processes that this root's provisioners ever started, or that those started.
    pub(crate) fn processes(&self) -> Vec<u32> {
        marked(self.root.path())
    }

    /// What stands under the root but artifacts, fences and lock files.
    pub(crate) fn left(&self) -> Vec<String> {
        left(self.root.path())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Root::Own(root) = &self.root {
            kill_marked(root.path());
        }
    }
}

pub(crate) fn write(dir: &Path, files: &[(&str, &str, bool)]) {
    for (path, content, executable) in files {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if *executable {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

pub(crate) fn web(artifact: Digest) -> Workload {
    Workload::files("production".parse().unwrap(), "web".parse().unwrap(), artifact)
}

pub(crate) fn api(artifact: Digest, spec: ProcessSpec) -> Workload {
    Workload::process("production".parse().unwrap(), "api".parse().unwrap(), artifact, spec)
}

pub(crate) fn granted(workload: &Workload) -> Granted<ResourceId> {
    let resource = workload.resource().unwrap();
    let app: flowline_core::name::AppName = "storefront".parse().unwrap();
    let pattern = Pattern::new(resource.as_str()).unwrap();
    let grants =
        Grants { grants: vec![Grant { app: app.clone(), resource: pattern, because: String::new() }] };
    Authority::new(app, &grants).grant(&resource).unwrap()
}

pub(crate) fn fence(token: u64) -> Fence {
    Fence { lease: Key::new("lease/production").unwrap(), token }
}

/// The ids of the processes whose mark is of this root, that have not ended.
pub(crate) fn marked(root: &Path) -> Vec<u32> {
    let root = root.canonicalize().unwrap();
    let start = format!("FLOWLINE_INSTANCE={}/", Digest::of(root.as_os_str().as_encoded_bytes()).short());
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable.starts_with(start.as_bytes()))
        })
        .collect()
}

pub(crate) fn kill_marked(root: &Path) {
    for pid in marked(root) {
        kill(pid);
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
}

pub(crate) fn left(root: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir(root).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        match name.as_str() {
            "fences" => {}
            "artifacts" => left.extend(
                fs::read_dir(entry.path())
                    .unwrap()
                    .flatten()
                    .map(|found| found.file_name().into_string().unwrap())
                    .filter(|name| name.len() != 64),
            ),
            "locks" => left.extend(
                fs::read_dir(entry.path())
                    .unwrap()
                    .flatten()
                    .map(|found| found.file_name().into_string().unwrap())
                    .filter(|name| !matches!(name.as_str(), "artifacts" | "environments")),
            ),
            "environments" => left.extend(
                fs::read_dir(entry.path())
                    .unwrap()
                    .flatten()
                    .map(|found| found.file_name().into_string().unwrap()),
            ),
            _ => left.push(name),
        }
    }
    left.sort();
    left
}
