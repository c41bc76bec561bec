//! What stands on this host, and who may change it: leases, running instances, and the end of those that nobody needs any more.

use std::{path::Path, sync::Arc, time::Duration};

use flowline_core::{
    SignedDuration,
    artifact::Artifact,
    grant::Granted,
    id::{Key, ResourceId, RunId},
    lease::{Claim, Lease, LeaseError, Leases},
    name::EnvironmentName,
    store::{Batch, Durability, Fence, Position, StoreExt},
};
use flowline_envs::{
    provision::{self, Desired, Goal, Provisioner, ProvisionerExt, Workload, WorkloadChange, place_of},
    router::{Router, Target},
};
use flowline_pipeline::run::Reporter;

use super::{
    Delivery, DeliveryError, EnvironmentRecord, Instance, InstanceTarget, order::workload_resource, process,
    record, serve,
};

/// How long a process that deploys may be silent before another may go on in its place.
const LEASE: SignedDuration = SignedDuration::from_mins(10);
/// How long requests in flight may take before what serves them is stopped.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the serving process may take to follow a switch.
const FOLLOW: SignedDuration = SignedDuration::from_secs(30);

impl Delivery {
    /// Takes `environment` for `run` alone. What a process of this host held that is dead now is taken over at once.
    pub(super) async fn alone(
        &self,
        environment: &EnvironmentName,
        run: &RunId,
    ) -> Result<Alone, DeliveryError> {
        let key = Key::new(format!("lease/deploy/{environment}"))?;
        match self.take(key.clone(), LEASE, &format!("run {run}, for {environment}")).await {
            Err(LeaseError::Held { held, .. }) => Err(DeliveryError::DeployedElsewhere {
                environment: environment.to_string(),
                holder: format!("{} ({})", held.holder, held.reason),
                until: held.expires,
            }),
            taken => {
                let lease = taken
                    .map_err(|error| DeliveryError::part(format!("taking `{environment}` alone"), error))?;
                Ok(Alone {
                    delivery: self.clone(),
                    environment: environment.clone(),
                    key,
                    lease: Some(lease),
                })
            }
        }
    }

    /// As [`alone`](Self::alone), but waits a moment for a verb that was just dropped to give it free.
    async fn alone_soon(&self, environment: &EnvironmentName, run: &RunId) -> Result<Alone, DeliveryError> {
        for _ in 0..100 {
            match self.alone(environment, run).await {
                Err(DeliveryError::DeployedElsewhere { .. }) => {
                    self.clock().sleep(SignedDuration::from_millis(50)).await;
                }
                done => return done,
            }
        }
        self.alone(environment, run).await
    }

    /// Takes a lease for this process. Claiming under a dead holder's name says that its former self is gone, and fences it off.
    pub(super) async fn take(
        &self,
        key: Key,
        ttl: SignedDuration,
        reason: &str,
    ) -> Result<Lease, LeaseError> {
        let claim = |holder: String| Claim::new(key.clone(), holder, ttl, reason);
        match self.leases().acquire(&claim(process::name_of_this())).await {
            Err(LeaseError::Held { held, .. }) if process::is_dead(&held.holder) => {
                // Only under its holder's name is a lease given before it runs out; kept under that name it would look like a dead one's
                // to everybody else, so it is given back and taken under our own.
                let taken = self.leases().acquire(&claim(held.holder)).await?;
                self.leases().release(&taken).await?;
                self.leases().acquire(&claim(process::name_of_this())).await
            }
            taken => taken,
        }
    }

    /// The run under whose name an environment is removed.
    pub(super) fn removal(environment: &EnvironmentName) -> Result<RunId, DeliveryError> {
        let digest = flowline_core::digest::Digest::of(environment.as_str());
        Ok(RunId::new(format!("remove-{}", digest.short()))?)
    }

    pub(super) fn handle(&self, resource: &ResourceId) -> Result<Granted<ResourceId>, DeliveryError> {
        self.authority()
            .grant(resource)
            .map_err(|error| DeliveryError::part(format!("touching `{resource}`"), error))
    }

    async fn observe(&self, on: &Granted<ResourceId>) -> Result<provision::Observed, DeliveryError> {
        let observed = self.provisioner().observe(on).await;
        observed.map_err(|error| DeliveryError::part(format!("looking at `{}`", on.resource()), error))
    }

    /// Everything that stands on this host for `environment`.
    pub(super) async fn standing_in(
        &self,
        environment: &EnvironmentName,
    ) -> Result<Vec<Granted<ResourceId>>, DeliveryError> {
        let inventory = self.provisioner().inventory().await;
        let inventory =
            inventory.map_err(|error| DeliveryError::part("listing what stands on this host", error))?;
        let own = |resource: &ResourceId| place_of(resource).is_ok_and(|(of, _)| of == *environment);
        inventory.iter().filter(|resource| own(resource)).map(|resource| self.handle(resource)).collect()
    }

    /// The instance of `artifact` in `environment`, if it stands ready.
    pub(super) async fn standing(
        &self,
        environment: &EnvironmentName,
        artifact: &Artifact,
    ) -> Result<Option<Instance>, DeliveryError> {
        let Some(component) = self.topology().components.get(&artifact.component) else { return Ok(None) };
        let on = self.handle(&workload_resource(component, environment, &artifact.component)?)?;
        let observed = self.observe(&on).await?;
        let found =
            observed.instances.iter().find(|found| found.artifact == artifact.content && found.is_ready());
        Ok(found.and_then(|found| Some(Instance { artifact: artifact.clone(), target: target(found)? })))
    }

    /// Tells the host which instances are the active ones, as `record` says: `current` leads there.
    pub(super) async fn mark_active(
        &self,
        record: &EnvironmentRecord,
        fence: &Fence,
    ) -> Result<(), DeliveryError> {
        for (name, instance) in &record.running {
            let Some(component) = self.topology().components.get(name) else { continue };
            let on = self.handle(&workload_resource(component, &record.name, name)?)?;
            let observed = self.observe(&on).await?;
            let wanted = observed
                .instances
                .iter()
                .find(|found| found.artifact == instance.artifact.content && found.is_ready());
            if let Some(found) = wanted.filter(|found| observed.active != Some(found.id)) {
                let activated =
                    self.provisioner().apply(&on, &WorkloadChange::Activate(found.id), fence).await;
                activated
                    .map_err(|error| DeliveryError::part(format!("activating `{}`", on.resource()), error))?;
            }
        }
        Ok(())
    }

    /// Retires what stands in `environment` and is not needed: drained first, so that no request in flight is cut.
    pub(super) async fn tidy(
        &self,
        environment: &EnvironmentName,
        lease: &Alone,
    ) -> Result<(), DeliveryError> {
        let Some(record) = self.environment(environment).await? else { return Ok(()) };
        for on in self.standing_in(environment).await? {
            let Ok((_, component)) = place_of(on.resource()) else { continue };
            let observed = self.observe(&on).await?;
            let needed = record.running.get(&component).map(|instance| instance.artifact.content);
            for instance in &observed.instances {
                let idle = matches!(instance.state, provision::InstanceState::Stopped);
                // What users are led to is never touched, whatever the host calls it.
                let serves = Some(instance.artifact) == needed && instance.is_ready();
                // An active one that another should replace is retired once that one is active.
                let active = observed.active == Some(instance.id);
                if idle || serves || active && needed.is_some() {
                    continue;
                }
                if active {
                    // A component that this environment deploys no more: its whole resource goes.
                    self.drained(instance).await?;
                    let destroyed = self.provisioner().destroy(&on, &observed, &lease.fence()).await;
                    destroyed.map_err(|error| {
                        DeliveryError::part(format!("removing `{}`", on.resource()), error)
                    })?;
                    break;
                }
                self.drained(instance).await?;
                let change = if instance.activated.is_some() {
                    WorkloadChange::Retire(instance.id)
                } else {
                    WorkloadChange::Discard(instance.id)
                };
                let applied = self.provisioner().apply(&on, &change, &lease.fence()).await;
                applied.map_err(|error| {
                    DeliveryError::part(format!("retiring {} of `{}`", instance.id, on.resource()), error)
                })?;
            }
        }
        Ok(())
    }

    /// Waits until no request uses `instance` any more, if this process holds the router. Another process's router notices by itself that
    /// its target goes: the process that is stopped finishes the requests that it has.
    pub(super) async fn drained(&self, instance: &provision::Instance) -> Result<(), DeliveryError> {
        let (Some(router), Some(target)) = (self.router(), target(instance)) else { return Ok(()) };
        let target = match target {
            InstanceTarget::Process(address) => Target::Upstream(address),
            InstanceTarget::Directory(path) => Target::Directory(path),
        };
        match router.drain(&target, DRAIN).await {
            // Whoever takes longer than that is cut; a deployment does not wait for ever for one slow reader.
            Ok(_) | Err(flowline_envs::router::RouterError::DrainTimedOut { .. }) => Ok(()),
            Err(error) => Err(DeliveryError::part("waiting for requests in flight", error)),
        }
    }

    /// Returns once the serving process leads requests as the store said at `position`. At once if nobody serves: whoever does next will.
    pub(super) async fn await_router(&self, position: Position) -> Result<(), DeliveryError> {
        if let Some(router) = self.router() {
            return serve::apply(self, &router).await.map(|_| ());
        }
        let started = self.clock().now();
        loop {
            let Some(status) = self.serve_status().await? else { return Ok(()) };
            if status.applied >= position || !serve::is_served(self).await? {
                return match status.problem {
                    Some(problem) => Err(DeliveryError::Unroutable { problem }),
                    None => Ok(()),
                };
            }
            if self.clock().now().duration_since(started) > FOLLOW {
                let problem = "the serving process does not follow; is it stuck?".to_owned();
                return Err(DeliveryError::Unroutable { problem });
            }
            self.clock().sleep(SignedDuration::from_millis(10)).await;
        }
    }

    /// Starts again what `environment` should run and does not, and records where it answers now.
    pub(super) async fn revive(&self, environment: EnvironmentRecord) -> Result<(), DeliveryError> {
        let run = RunId::new(format!(
            "revive-{}",
            flowline_core::digest::Digest::of(environment.name.as_str()).short()
        ))?;
        let mut changed = false;
        let mut running = environment.running.clone();
        let mut lease = None;
        for (name, instance) in &mut running {
            let Some(component) = self.topology().components.get(name) else { continue };
            if self
                .standing(&environment.name, &instance.artifact)
                .await?
                .is_some_and(|standing| standing == *instance)
            {
                continue;
            }
            let held = match lease.take() {
                Some(lease) => lease,
                None => match self.alone(&environment.name, &run).await {
                    Ok(lease) => lease,
                    // Somebody deploys to it right now, and will see to it.
                    Err(DeliveryError::DeployedElsewhere { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                },
            };
            let on = self.handle(&workload_resource(component, &environment.name, name)?)?;
            let workload = Workload {
                environment: environment.name.clone(),
                component: name.clone(),
                artifact: instance.artifact.content,
                kind: self.workload(component, &environment.name)?,
            };
            let id = workload.instance();
            let converged =
                self.provisioner().converge(&on, &Desired::new(workload, Goal::Active), &held.fence()).await;
            let observed = converged
                .map_err(|error| DeliveryError::part(format!("starting `{}` again", on.resource()), error))?;
            if let Some(target) = observed.instance(id).and_then(target) {
                instance.target = target;
                changed = true;
            }
            lease = Some(held);
        }
        if changed {
            let key = record::environment_key(&environment.name)?;
            let doing = || DeliveryError::store(format!("recording where `{}` runs", environment.name));
            if let Some((revision, mut record)) =
                self.store().get::<EnvironmentRecord>(&key).await.map_err(doing())?
            {
                record.running = running;
                let value = serde_json::to_value(&record).unwrap_or_default();
                let batch =
                    Batch::new().expect(key.clone(), revision).put(key, value).durably(Durability::Written);
                self.store().commit(batch).await.map_err(doing())?;
            }
        }
        match lease {
            Some(lease) => lease.free().await,
            None => Ok(()),
        }
    }

    /// Stops every process that this delivery runs on this host. What is deployed stays recorded: the next [`serve`](Self::serve) starts it
    /// again.
    ///
    /// # Errors
    /// If somebody deploys right now, or a process can't be stopped.
    pub async fn halt(&self) -> Result<(), DeliveryError> {
        let inventory = self.provisioner().inventory().await;
        let inventory =
            inventory.map_err(|error| DeliveryError::part("listing what stands on this host", error))?;
        for resource in inventory.iter().filter(|resource| resource.kind() == "process") {
            let on = self.handle(resource)?;
            let Ok((environment, _)) = place_of(resource) else { continue };
            let run = RunId::new(format!(
                "halt-{}",
                flowline_core::digest::Digest::of(environment.as_str()).short()
            ))?;
            let lease = self.alone_soon(&environment, &run).await?;
            let observed = self.observe(&on).await?;
            let destroyed = self.provisioner().destroy(&on, &observed, &lease.fence()).await;
            destroyed.map_err(|error| DeliveryError::part(format!("stopping `{resource}`"), error))?;
            lease.free().await?;
        }
        Ok(())
    }

    pub(super) fn deployer_path(&self) -> &Path {
        &self.inner.deployer
    }

    pub(super) fn reporter(&self) -> Option<Arc<dyn Reporter>> {
        self.reporter.clone()
    }
}

/// An environment that nobody else changes meanwhile. Dropped without [`free`](Self::free), as when somebody stopped waiting for a verb, it
/// is given free as soon as the runtime comes to it.
#[derive(Debug)]
pub(super) struct Alone {
    delivery: Delivery,
    environment: EnvironmentName,
    key: Key,
    lease: Option<Lease>,
}

impl Alone {
    /// The demand that it is still so.
    pub(super) fn fence(&self) -> Fence {
        // The lease is there until `free` or `drop` takes it; a fence that nothing passes keeps this total.
        self.lease.as_ref().map_or_else(|| Fence { lease: self.key.clone(), token: 0 }, Lease::fence)
    }

    /// Gives the environment free.
    pub(super) async fn free(mut self) -> Result<(), DeliveryError> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        let released = self.delivery.leases().release(&lease).await;
        released.map_err(|error| DeliveryError::part(format!("giving `{}` free", self.environment), error))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let (Some(lease), Ok(runtime)) = (self.lease.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let delivery = self.delivery.clone();
        // If it can't be released it runs out; whoever waits is told until when.
        runtime.spawn(async move { delivery.leases().release(&lease).await.is_ok() });
    }
}

fn target(instance: &provision::Instance) -> Option<InstanceTarget> {
    match instance.port() {
        Some(port) => Some(InstanceTarget::Process(std::net::SocketAddr::from(([127, 0, 0, 1], port)))),
        None => instance.directory.clone().map(InstanceTarget::Directory),
    }
}
