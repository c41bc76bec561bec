//! Making one change on this host, from whatever a change before it left behind.
//!
//! Each function first looks at what is there and does what is missing, in an order in which the death of this process between any two
//! effects leaves something that the next call recognises. All of it blocks; it runs on a blocking thread.

use std::{fs, io, path::Path, time::Duration};

use flowline_core::store::Fence;

use super::{
    Host,
    checkpoint::Checkpoint,
    files::{self, create_dirs, sync_parent, unavailable},
    lock::Held,
    observe::{Look, look},
    patience::Patience,
    process::Victims,
    procfs,
    record::{Activating, Place, Record, Release, Seen},
    start::grace_of,
    tree,
};
use crate::provision::{
    InstanceId, InstanceState, Observed, ProvisionError, Workload, WorkloadChange, WorkloadKind,
};

const PLACES_WAIT: Duration = Duration::from_secs(10);

impl Host {
    /// Makes `change`, and answers what is there then.
    pub(super) fn apply(
        &self,
        place: &Place,
        change: &WorkloadChange,
        fence: &Fence,
        patience: &Patience,
    ) -> Result<Observed, ProvisionError> {
        let _lock = self.lock(place, patience)?;
        self.layout.pass(&place.resource, fence, &self.options.hook)?;
        let record = place.read()?;
        if record.is_none() && !matches!(change, WorkloadChange::Stage(_)) {
            return match change {
                WorkloadChange::Activate(id) => Err(no_instance(place, *id)),
                _ => Ok(Observed::default()),
            };
        }
        let mut record = record.unwrap_or_else(|| Record {
            resource: place.resource.clone(),
            last: 0,
            starts: 0,
            releases: std::collections::BTreeMap::new(),
            activating: None,
        });
        record.settle(place.active());
        place.sweep(&record)?;
        match change {
            WorkloadChange::Stage(workload) => self.stage(place, &mut record, workload, patience)?,
            WorkloadChange::Activate(id) => self.activate(place, &mut record, *id)?,
            WorkloadChange::Retire(id) => self.retire(place, &mut record, *id, patience)?,
            WorkloadChange::Discard(id) => self.discard(place, &mut record, *id, patience)?,
        }
        self.observe(place)
    }

    fn lock(&self, place: &Place, patience: &Patience) -> Result<Held, ProvisionError> {
        Held::wait(&place.lock, self.options.lock_wait, place.resource.as_str(), patience)
    }

    pub(super) fn at(&self, checkpoint: Checkpoint) {
        self.options.hook.at(checkpoint);
    }

    fn stage(
        &self,
        place: &Place,
        record: &mut Record,
        workload: &Workload,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        let number = self.number(place, record, workload)?;
        let Some(release) = record.releases.get_mut(&number) else { return Ok(()) };
        // How long to wait may have changed; it is no part of the instance's identity.
        release.workload = workload.clone();
        let found = look(place, number, release);
        if matches!(found, Look::Running(_) | Look::Files) {
            place.write(record)?;
        } else {
            self.place_release(place, record, number, workload)?;
        }
        match &workload.kind {
            WorkloadKind::Static => {
                if let Some(release) = record.releases.get_mut(&number)
                    && release.stopped
                {
                    release.stopped = false;
                    place.write(record)?;
                }
                Ok(())
            }
            WorkloadKind::Process(spec) => {
                let adopted = found.process().cloned();
                self.run_until_ready(place, record, number, spec, adopted, patience)
            }
        }
    }

    /// The number of the workload's release; a new one is on disk before anything else of it is.
    fn number(&self, place: &Place, record: &mut Record, workload: &Workload) -> Result<u64, ProvisionError> {
        if let Some(number) = record.number_of(workload.instance()) {
            return Ok(number);
        }
        if !self.artifacts.contains(workload.artifact) {
            return Err(ProvisionError::NoArtifact {
                artifact: workload.artifact,
                store: self.layout.root.join("artifacts"),
            });
        }
        self.create_place(place)?;
        record.last += 1;
        let release = Release {
            instance: workload.instance(),
            workload: workload.clone(),
            staged: self.options.clock.now(),
            activated: None,
            stopped: false,
            start: None,
        };
        record.releases.insert(record.last, release);
        place.write(record)?;
        self.at(Checkpoint::ReleaseNumbered);
        Ok(record.last)
    }

    fn create_place(&self, place: &Place) -> Result<(), ProvisionError> {
        let lock = self.layout.environments_lock();
        let _lock = Held::wait(&lock, PLACES_WAIT, "environments", &Patience::default())?;
        create_dirs(&place.releases())?;
        create_dirs(&place.logs())
    }

    /// Makes sure that the release's files are there and are the artifact's.
    fn place_release(
        &self,
        place: &Place,
        record: &Record,
        number: u64,
        workload: &Workload,
    ) -> Result<(), ProvisionError> {
        let release = place.release(number);
        if release.is_dir() {
            // Something may have changed it while it stood there: then it is made anew.
            if tree::digest(&release).is_ok_and(|found| found == workload.artifact) {
                return Ok(());
            }
        }
        let copying = place.releases().join(format!("copying-{number}"));
        files::remove(&copying)?;
        let copy = || {
            fs::create_dir(&copying).map_err(|error| unavailable("create", &copying, error))?;
            self.artifacts.copy_to(workload.artifact, &copying)
        };
        copy().inspect_err(|_| self.undo_copy(place, record, &copying))?;
        self.at(Checkpoint::ReleaseCopied);
        files::remove(&release)?;
        let placed = fs::rename(&copying, &release).and_then(|()| sync_parent(&release));
        placed.map_err(|error| unavailable("write", &release, error))?;
        self.at(Checkpoint::ReleasePlaced);
        Ok(())
    }

    /// After a failed copy: leaves nothing of a release that never had files, nor of a resource that has no other.
    fn undo_copy(&self, place: &Place, record: &Record, copying: &Path) {
        // The error that led here is told; what can't be cleaned up now is cleaned up by the next change.
        files::remove(copying).ok();
        let mut left = record.clone();
        left.releases.retain(|number, _| place.release(*number).is_dir());
        if left.releases.is_empty() {
            self.remove_place(place).ok();
        } else if left != *record {
            place.write(&left).ok();
        }
    }

    fn activate(&self, place: &Place, record: &mut Record, id: InstanceId) -> Result<(), ProvisionError> {
        let number = record.number_of(id).ok_or_else(|| no_instance(place, id))?;
        if place.active() == Some(number) {
            return place.write(record);
        }
        let Some(release) = record.releases.get(&number) else { return Ok(()) };
        let why = match look(place, number, release).state(&release.workload) {
            InstanceState::Ready => None,
            InstanceState::Starting => Some("it does not answer".to_owned()),
            InstanceState::Stopped => Some("it was retired".to_owned()),
            InstanceState::Failed { why } => Some(why),
        };
        if let Some(why) = why {
            return Err(ProvisionError::NotReady { resource: place.resource.clone(), instance: id, why });
        }
        record.activating = Some(Activating { number, at: self.options.clock.now() });
        place.write(record)?;
        self.at(Checkpoint::ActivationIntended);
        place.switch(number, &self.options.hook)?;
        self.at(Checkpoint::LinkSwitched);
        record.settle(Some(number));
        place.write(record)
    }

    fn retire(
        &self,
        place: &Place,
        record: &mut Record,
        id: InstanceId,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        let Some(number) = inactive(place, record, id)? else { return Ok(()) };
        self.stop(place, record, number, patience)?;
        if let Some(release) = record.releases.get_mut(&number) {
            release.stopped = true;
            release.start = None;
        }
        let active = place.active();
        let stopped: Vec<u64> = record
            .releases
            .iter()
            .filter(|(number, release)| release.stopped && active != Some(**number))
            .map(|(number, _)| *number)
            .collect();
        let surplus = stopped.len().saturating_sub(self.options.kept);
        for number in stopped.iter().take(surplus) {
            record.releases.remove(number);
        }
        place.write(record)?;
        self.at(Checkpoint::ReleaseForgotten);
        place.sweep(record)
    }

    fn discard(
        &self,
        place: &Place,
        record: &mut Record,
        id: InstanceId,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        let Some(number) = inactive(place, record, id)? else { return Ok(()) };
        self.stop(place, record, number, patience)?;
        record.releases.remove(&number);
        if record.releases.is_empty() {
            return self.remove_place(place);
        }
        place.write(record)?;
        self.at(Checkpoint::ReleaseForgotten);
        place.sweep(record)
    }

    /// Removes everything of a resource, from whatever is left of it.
    pub(super) fn destroy(
        &self,
        place: &Place,
        captured: &Observed,
        fence: &Fence,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        let lock = self.lock(place, patience)?;
        // A full disk must not keep anything from being removed: then the fence is remembered when there is room again.
        let mut unseen = self.layout.check_fence(&place.resource, fence)? == Seen::Lower;
        unseen = unseen && self.layout.record_fence(&place.resource, fence).is_err();
        self.at(Checkpoint::FenceRecorded);
        // A damaged record is no reason to keep anything: marks find the processes too.
        let record = place.read().ok().flatten();
        let releases = record.iter().flat_map(|record| record.releases.values());
        let grace = releases.clone().map(|release| grace_of(&release.workload)).max();
        let recorded = releases.filter_map(|release| release.start.as_ref()?.process.clone());
        // A capture comes from outside, so only processes that carry this resource's mark are taken from it.
        let captured = captured.instances.iter().filter_map(|instance| instance.process.clone());
        let captured = captured
            .filter(|process| procfs::mark(process.pid).is_some_and(|mark| mark.starts_with(&place.mark)));
        let victims = Victims {
            resource: &place.resource,
            mark: &place.mark,
            recorded: recorded.chain(captured).collect(),
        };
        victims.stop(grace.unwrap_or(Duration::from_secs(10)), patience)?;
        self.at(Checkpoint::AllStopped);
        self.remove_place(place)?;
        if unseen {
            self.layout.record_fence(&place.resource, fence)?;
        }
        lock.remove();
        Ok(())
    }

    /// Moves a resource's directory out of the way in one step, then removes it, and its environment's if that is empty now.
    fn remove_place(&self, place: &Place) -> Result<(), ProvisionError> {
        let trash = self.layout.trash();
        create_dirs(&trash)?;
        let name = place.mark.replace('/', ".");
        let moved = trash.join(format!("{name}{}", std::process::id()));
        {
            let lock = self.layout.environments_lock();
            let _lock = Held::wait(&lock, PLACES_WAIT, "environments", &Patience::default())?;
            files::remove(&moved)?;
            match fs::rename(&place.dir, &moved) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(unavailable("remove", &place.dir, error));
                }
                _ => {}
            }
            if let Some(environment) = place.dir.parent() {
                // Refused as long as another component stands in it, which is right.
                fs::remove_dir(environment).ok();
            }
        }
        self.at(Checkpoint::DirectoryMoved);
        // This resource's remains of earlier attempts too: its lock is ours.
        for left in files::names(&trash)?.iter().filter(|left| left.starts_with(&name)) {
            files::remove(&trash.join(left))?;
        }
        fs::remove_dir(&trash).ok();
        Ok(())
    }
}

/// The number of an instance that may go; `None` if it is not there.
fn inactive(place: &Place, record: &Record, id: InstanceId) -> Result<Option<u64>, ProvisionError> {
    let number = record.number_of(id);
    if number.is_some() && number == place.active() {
        return Err(ProvisionError::Active { resource: place.resource.clone(), instance: id });
    }
    Ok(number)
}

fn no_instance(place: &Place, instance: InstanceId) -> ProvisionError {
    ProvisionError::NoInstance { resource: place.resource.clone(), instance }
}
