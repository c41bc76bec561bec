//! What the backend remembers of one resource, and where on disk everything stands.
//!
//! Records are small JSON files beside what they describe, not documents of a `Store`: whoever has the directory can adopt what runs from
//! it, with no other service at hand, and record, files and lock live and die with the same disk and host.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use flowline_core::{
    Timestamp,
    digest::Digest,
    id::{Key, ResourceId},
    store::Fence,
};
use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Checkpoint, Hook},
    files::{self, read_json, sync_parent, unavailable, write_json},
};
use crate::provision::{InstanceId, ProvisionError, RunningProcess, Workload, place_of};

/// What is remembered of one resource: `record.json` in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of which resource.
    pub(super) resource: ResourceId,
    /// The last number given to a release.
    pub(super) last: u64,
    /// The last number given to a start.
    pub(super) starts: u64,
    /// The releases, by number. One that is not here does not exist, whatever files there are.
    pub(super) releases: BTreeMap<u64, Release>,
    /// A switch that was begun: true if and only if `current` points there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) activating: Option<Activating>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Release {
    pub(super) instance: InstanceId,
    pub(super) workload: Workload,
    pub(super) staged: Timestamp,
    pub(super) activated: Option<Timestamp>,
    pub(super) stopped: bool,
    pub(super) start: Option<Start>,
}

/// A start of a process: written before it happens, so that a process can be found by its mark if nothing more could be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) token: String,
    pub(super) port: u16,
    pub(super) process: Option<RunningProcess>,
    /// How it ended, if it was seen to end.
    pub(super) ended: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Activating {
    pub(super) number: u64,
    pub(super) at: Timestamp,
}

impl Record {
    pub(super) fn number_of(&self, instance: InstanceId) -> Option<u64> {
        self.releases.iter().find(|(_, release)| release.instance == instance).map(|(number, _)| *number)
    }

    /// The release's last start made this process.
    pub(super) fn started(&mut self, number: u64, process: &RunningProcess) {
        if let Some(start) = self.releases.get_mut(&number).and_then(|release| release.start.as_mut()) {
            start.process = Some(process.clone());
        }
    }

    /// The release's last start is over, in this way.
    pub(super) fn ended(&mut self, number: u64, why: String) {
        if let Some(start) = self.releases.get_mut(&number).and_then(|release| release.start.as_mut()) {
            start.process = None;
            start.ended = Some(why);
        }
    }

    /// Settles a switch that was begun: it happened if `active` says so.
    pub(super) fn settle(&mut self, active: Option<u64>) {
        if let Some(begun) = self.activating.take()
            && active == Some(begun.number)
            && let Some(release) = self.releases.get_mut(&begun.number)
        {
            release.activated = Some(begun.at);
        }
    }
}

/// Where everything stands under the root.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Absolute, without links.
    pub(super) root: PathBuf,
}

impl Layout {
    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    pub(super) fn fences(&self) -> PathBuf {
        self.root.join("fences")
    }

    pub(super) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    pub(super) fn environments(&self) -> PathBuf {
        self.root.join("environments")
    }

    /// The lock under which environment directories come and go.
    pub(super) fn environments_lock(&self) -> PathBuf {
        self.locks().join("environments")
    }

    /// What starts every mark of this root's processes.
    pub(super) fn mark(&self) -> String {
        format!("{}/", Digest::of(self.root.as_os_str().as_encoded_bytes()).short())
    }

    pub(super) fn place(&self, resource: &ResourceId) -> Result<Place, ProvisionError> {
        let (environment, component) = place_of(resource)?;
        let kind = resource.kind();
        Ok(Place {
            resource: resource.clone(),
            dir: self.environments().join(environment.as_str()).join(format!("{component}.{kind}")),
            lock: self.locks().join(format!("{environment}.{component}.{kind}")),
            mark: format!("{}{kind}/{environment}/{component}/", self.mark()),
        })
    }

    /// The resources that have a directory.
    pub(super) fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError> {
        let mut found = Vec::new();
        for environment in files::names(&self.environments())? {
            for name in files::names(&self.environments().join(&environment))? {
                let resource = name.rsplit_once('.').and_then(|(component, kind)| {
                    ResourceId::of(kind, format_args!("{environment}/{component}")).ok()
                });
                found.extend(resource.filter(|resource| place_of(resource).is_ok()));
            }
        }
        found.sort();
        Ok(found)
    }

    /// Refuses a fence that comes too late and remembers the highest. It outlives what it protects: a late one must not bring it back.
    pub(super) fn pass(
        &self,
        resource: &ResourceId,
        fence: &Fence,
        hook: &Hook,
    ) -> Result<(), ProvisionError> {
        if self.check_fence(resource, fence)? == Seen::Lower {
            self.record_fence(resource, fence)?;
        }
        hook.at(Checkpoint::FenceRecorded);
        Ok(())
    }

    /// Refuses a fence that comes too late; says whether it has to be remembered.
    pub(super) fn check_fence(&self, resource: &ResourceId, fence: &Fence) -> Result<Seen, ProvisionError> {
        let seen: Option<SeenFence> = read_json(&self.fence(resource, fence))?;
        let seen = seen.map_or(0, |seen| seen.token);
        match fence.token.cmp(&seen) {
            Ordering::Less => Err(ProvisionError::Fenced {
                resource: resource.clone(),
                lease: fence.lease.clone(),
                token: fence.token,
                seen,
            }),
            Ordering::Equal => Ok(Seen::Same),
            Ordering::Greater => Ok(Seen::Lower),
        }
    }

    pub(super) fn record_fence(&self, resource: &ResourceId, fence: &Fence) -> Result<(), ProvisionError> {
        let seen = SeenFence { resource: resource.clone(), lease: fence.lease.clone(), token: fence.token };
        write_json(&self.fence(resource, fence), &seen)
    }

    fn fence(&self, resource: &ResourceId, fence: &Fence) -> PathBuf {
        self.fences().join(Digest::of(format!("{resource} {}", fence.lease)).hex())
    }
}

/// What was seen of a lease before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// This very token.
    Same,
    /// A lower token, or none.
    Lower,
}

#[derive(Debug, Serialize, Deserialize)]
struct SeenFence {
    resource: ResourceId,
    lease: Key,
    token: u64,
}

/// Where one resource stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) resource: ResourceId,
    pub(super) dir: PathBuf,
    pub(super) lock: PathBuf,
    /// What starts the marks of this resource's processes.
    pub(super) mark: String,
}

impl Place {
    fn record(&self) -> PathBuf {
        self.dir.join("record.json")
    }

    pub(super) fn releases(&self) -> PathBuf {
        self.dir.join("releases")
    }

    pub(super) fn release(&self, number: u64) -> PathBuf {
        self.releases().join(release_name(number))
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(super) fn log(&self, number: u64) -> PathBuf {
        self.logs().join(format!("{}.log", release_name(number)))
    }

    /// Where the component's processes keep what outlives a release.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn current(&self) -> PathBuf {
        self.dir.join("current")
    }

    pub(super) fn read(&self) -> Result<Option<Record>, ProvisionError> {
        read_json(&self.record())
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), ProvisionError> {
        write_json(&self.record(), record)
    }

    /// The number that `current` points to. The link alone says what is active, so no second record can disagree.
    pub(super) fn active(&self) -> Option<u64> {
        let target = fs::read_link(self.current()).ok()?;
        target.file_name()?.to_str()?.parse().ok()
    }

    /// Points `current` to another release: made under another name, then renamed over, so that every reader finds one or the other.
    pub(super) fn switch(&self, number: u64, hook: &Hook) -> Result<(), ProvisionError> {
        let current = self.current();
        let failed = |error| unavailable("switch", &current, error);
        let beside = self.dir.join("current.new");
        files::remove(&beside)?;
        symlink(Path::new("releases").join(release_name(number)), &beside).map_err(failed)?;
        hook.at(Checkpoint::LinkMade);
        fs::rename(&beside, &current).and_then(|()| sync_parent(&current)).map_err(failed)
    }

    /// Removes what the record does not know: half-copied, discarded or surplus releases and their logs.
    pub(super) fn sweep(&self, record: &Record) -> Result<(), ProvisionError> {
        let known = |name: &str| {
            let number = name.split('.').next().and_then(|number| number.parse().ok());
            number.is_some_and(|number| record.releases.contains_key(&number))
        };
        for dir in [self.releases(), self.logs()] {
            for name in files::names(&dir)?.iter().filter(|name| !known(name)) {
                files::remove(&dir.join(name))?;
            }
        }
        Ok(())
    }
}

/// Padded, so that a person's listing is in order; read back as a number, so that the padding is no limit.
fn release_name(number: u64) -> String {
    format!("{number:06}")
}
