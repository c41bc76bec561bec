//! A provisioner that only remembers: for simulations, and for tests of what is built on provisioners.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use flowline_core::{
    clock::Clock,
    digest::Digest,
    grant::Granted,
    id::{Key, ResourceId},
    store::Fence,
};

use super::{
    Instance, InstanceId, InstanceState, LogTail, Observed, ProvisionCapabilities, ProvisionError,
    Provisioner, RunningProcess, Workload, WorkloadChange, WorkloadKind, check_handle, place_of,
};

/// Keeps what a provisioner would set up as plain data. Clones share it.
///
/// Every artifact is known and becomes ready at once, but those named to [`breaks`](Self::breaks).
#[derive(Debug, Clone)]
pub struct MemoryProvisioner {
    clock: Arc<dyn Clock>,
    kept: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    resources: BTreeMap<ResourceId, Resource>,
    fences: BTreeMap<(ResourceId, Key), u64>,
    broken: BTreeSet<Digest>,
    started: u32,
}

#[derive(Debug, Default)]
struct Resource {
    observed: Observed,
    last: u64,
}

impl MemoryProvisioner {
    /// An empty one that tells time by `clock` and keeps 5 retired instances.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, kept: 5, state: Arc::default() }
    }

    /// From now on the process of `artifact` ends as soon as it is started.
    pub fn breaks(&self, artifact: Digest) {
        self.state().broken.insert(artifact);
    }

    /// Makes the running process of `instance` end by itself, as if it had crashed. Nothing happens if there is none.
    pub fn crash(&self, on: &ResourceId, instance: InstanceId) {
        let mut state = self.state();
        let found = state.resources.get_mut(on).and_then(|resource| find(&mut resource.observed, instance));
        if let Some(found) = found.filter(|found| found.process.is_some()) {
            found.process = None;
            found.state = InstanceState::Failed { why: ENDED.to_owned() };
        }
    }

    /// Changes what is there behind everybody's back: for the testkit's own flawed provisioners.
    #[cfg(all(test, feature = "testkit"))]
    pub(crate) fn edit(&self, on: &ResourceId, edit: impl FnOnce(&mut Observed)) {
        if let Some(resource) = self.state().resources.get_mut(on) {
            edit(&mut resource.observed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const ENDED: &str = "it exited with code 1";

#[async_trait]
impl Provisioner for MemoryProvisioner {
    fn capabilities(&self) -> ProvisionCapabilities {
        ProvisionCapabilities {
            files: true,
            processes: true,
            side_by_side: true,
            survives_restart: false,
            kept: self.kept,
        }
    }

    async fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError> {
        Ok(self.state().resources.keys().cloned().collect())
    }

    async fn observe(&self, on: &Granted<ResourceId>) -> Result<Observed, ProvisionError> {
        place_of(on.resource())?;
        Ok(self.state().resources.get(on.resource()).map(|found| found.observed.clone()).unwrap_or_default())
    }

    async fn apply(
        &self,
        on: &Granted<ResourceId>,
        change: &WorkloadChange,
        fence: &Fence,
    ) -> Result<Observed, ProvisionError> {
        check_handle(on, change)?;
        let mut state = self.state();
        state.pass(on.resource(), fence)?;
        match change {
            WorkloadChange::Stage(workload) => self.stage(&mut state, on.resource(), workload)?,
            WorkloadChange::Activate(id) => self.activate(&mut state, on.resource(), *id)?,
            WorkloadChange::Retire(id) => retire(&mut state, on.resource(), *id, self.kept)?,
            WorkloadChange::Discard(id) => discard(&mut state, on.resource(), *id)?,
        }
        Ok(state.resources.get(on.resource()).map(|found| found.observed.clone()).unwrap_or_default())
    }

    async fn destroy(
        &self,
        on: &Granted<ResourceId>,
        _captured: &Observed,
        fence: &Fence,
    ) -> Result<(), ProvisionError> {
        place_of(on.resource())?;
        let mut state = self.state();
        state.pass(on.resource(), fence)?;
        state.resources.remove(on.resource());
        Ok(())
    }
}

impl State {
    fn pass(&mut self, resource: &ResourceId, fence: &Fence) -> Result<(), ProvisionError> {
        let seen = self.fences.entry((resource.clone(), fence.lease.clone())).or_default();
        if fence.token < *seen {
            return Err(ProvisionError::Fenced {
                resource: resource.clone(),
                lease: fence.lease.clone(),
                token: fence.token,
                seen: *seen,
            });
        }
        *seen = fence.token;
        Ok(())
    }
}

impl MemoryProvisioner {
    fn stage(&self, state: &mut State, on: &ResourceId, workload: &Workload) -> Result<(), ProvisionError> {
        let id = workload.instance();
        let broken = state.broken.contains(&workload.artifact);
        state.started += 1;
        let started = state.started;
        let resource = state.resources.entry(on.clone()).or_default();
        if find(&mut resource.observed, id).is_none() {
            resource.last += 1;
            resource.observed.instances.push(Instance {
                id,
                artifact: workload.artifact,
                kind: workload.kind.clone(),
                number: resource.last,
                state: InstanceState::Starting,
                staged: self.clock.now(),
                activated: None,
                process: None,
                directory: None,
                log: None,
            });
        }
        let Some(instance) = find(&mut resource.observed, id) else { return Ok(()) };
        if instance.is_ready() {
            return Ok(());
        }
        match workload.kind {
            WorkloadKind::Static => instance.state = InstanceState::Ready,
            WorkloadKind::Process(_) if broken => {
                instance.state = InstanceState::Failed { why: ENDED.to_owned() };
                return Err(ProvisionError::Ended {
                    resource: on.clone(),
                    instance: id,
                    why: ENDED.to_owned(),
                    log: LogTail::default(),
                });
            }
            WorkloadKind::Process(_) => {
                instance.state = InstanceState::Ready;
                instance.process = Some(RunningProcess {
                    pid: started,
                    started: started.into(),
                    boot: "memory".to_owned(),
                    port: 10_000 + u16::try_from(started % 50_000).unwrap_or_default(),
                    token: format!("{on}/{started}"),
                });
            }
        }
        Ok(())
    }

    fn activate(&self, state: &mut State, on: &ResourceId, id: InstanceId) -> Result<(), ProvisionError> {
        let observed = &mut state.resources.entry(on.clone()).or_default().observed;
        let active = observed.active;
        let Some(instance) = find(observed, id) else { return Err(no_instance(on, id)) };
        if !instance.is_ready() {
            return Err(ProvisionError::NotReady {
                resource: on.clone(),
                instance: id,
                why: format!("it is {:?}", instance.state),
            });
        }
        if active != Some(id) {
            instance.activated = Some(self.clock.now());
            observed.active = Some(id);
        }
        Ok(())
    }
}

fn retire(state: &mut State, on: &ResourceId, id: InstanceId, kept: usize) -> Result<(), ProvisionError> {
    let Some(resource) = state.resources.get_mut(on) else { return Ok(()) };
    let observed = &mut resource.observed;
    if observed.active == Some(id) {
        return Err(ProvisionError::Active { resource: on.clone(), instance: id });
    }
    let Some(instance) = find(observed, id) else { return Ok(()) };
    instance.state = InstanceState::Stopped;
    instance.process = None;
    let stopped = observed.instances.iter().filter(|other| other.state == InstanceState::Stopped).count();
    let mut surplus = stopped.saturating_sub(kept);
    let active = observed.active;
    observed.instances.retain(|other| {
        let goes = surplus > 0 && other.state == InstanceState::Stopped && active != Some(other.id);
        surplus -= usize::from(goes);
        !goes
    });
    Ok(())
}

fn discard(state: &mut State, on: &ResourceId, id: InstanceId) -> Result<(), ProvisionError> {
    let Some(resource) = state.resources.get_mut(on) else { return Ok(()) };
    if resource.observed.active == Some(id) {
        return Err(ProvisionError::Active { resource: on.clone(), instance: id });
    }
    resource.observed.instances.retain(|instance| instance.id != id);
    Ok(())
}

fn find(observed: &mut Observed, id: InstanceId) -> Option<&mut Instance> {
    observed.instances.iter_mut().find(|instance| instance.id == id)
}

fn no_instance(on: &ResourceId, instance: InstanceId) -> ProvisionError {
    ProvisionError::NoInstance { resource: on.clone(), instance }
}

#[cfg(test)]
mod tests {
    use flowline_core::{
        clock::ManualClock,
        grant::{Authority, Grant, Grants, Pattern},
        name::AppName,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::provision::{Desired, Goal, ProcessSpec, ProvisionerExt as _};

    fn workload(number: u8) -> Workload {
        let spec = ProcessSpec::new(["api"]).unwrap();
        Workload::process("production".parse().unwrap(), "api".parse().unwrap(), Digest::of([number]), spec)
    }

    fn granted() -> Granted<ResourceId> {
        let app = AppName::new("storefront").unwrap();
        let resource = Pattern::new("process:production/*").unwrap();
        let grants = Grants { grants: vec![Grant { app: app.clone(), resource, because: String::new() }] };
        Authority::new(app, &grants).grant(&workload(0).resource().unwrap()).unwrap()
    }

    fn fence() -> Fence {
        Fence { lease: Key::new("lease/production").unwrap(), token: 1 }
    }

    fn change() -> impl Strategy<Value = WorkloadChange> {
        (0_u8..4, 0..4).prop_map(|(number, kind)| match kind {
            0 => WorkloadChange::Stage(workload(number)),
            1 => WorkloadChange::Activate(workload(number).instance()),
            2 => WorkloadChange::Retire(workload(number).instance()),
            _ => WorkloadChange::Discard(workload(number).instance()),
        })
    }

    fn goal() -> impl Strategy<Value = Goal> {
        prop_oneof![Just(Goal::Staged), Just(Goal::Active), Just(Goal::Alone)]
    }

    proptest! {
        #[test]
        fn whatever_happened_before_converging_settles(
            changes in prop::collection::vec(change(), 0..30), number in 0_u8..3, goal in goal()
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let provisioner = MemoryProvisioner::new(Arc::new(ManualClock::default()));
                // The last workload never becomes ready.
                provisioner.breaks(workload(3).artifact);
                for change in changes {
                    let before = provisioner.observe(&granted()).await.unwrap();
                    let after = provisioner.apply(&granted(), &change, &fence()).await;
                    let now = provisioner.observe(&granted()).await.unwrap();
                    // A refusal leaves the active one as it was; a success repeated changes nothing.
                    match after {
                        Err(_) => prop_assert_eq!(now.active(), before.active()),
                        Ok(after) => {
                            let again = provisioner.apply(&granted(), &change, &fence()).await.unwrap();
                            prop_assert_eq!(&again, &after);
                        }
                    }
                    prop_assert_eq!(now.active.is_some(), now.active().is_some_and(Instance::is_ready));
                }
                let desired = Desired::new(workload(number), goal);
                let observed = provisioner.converge(&granted(), &desired, &fence()).await.unwrap();
                prop_assert!(provisioner.diff(&desired, &observed).is_empty());
                Ok(())
            })?;
        }
    }

    #[tokio::test]
    async fn what_crashed_comes_back() {
        let provisioner = MemoryProvisioner::new(Arc::new(ManualClock::default()));
        let desired = Desired::new(workload(0), Goal::Alone);
        provisioner.converge(&granted(), &desired, &fence()).await.unwrap();
        provisioner.crash(granted().resource(), workload(0).instance());
        let observed = provisioner.observe(&granted()).await.unwrap();
        assert!(!observed.active().unwrap().is_ready());
        let observed = provisioner.converge(&granted(), &desired, &fence()).await.unwrap();
        assert!(observed.active().unwrap().is_ready());
    }
}
