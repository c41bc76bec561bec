//! The steps that every deployment is made of: build, stage, show beside the running release, verify, switch.
//!
//! | kind | effect | undone by |
//! | --- | --- | --- |
//! | `flowline/build` | idempotent: an artifact is found by its source tree | nothing: an artifact harms nobody |
//! | `flowline/stage` | probed: the host knows what stands there | discarding the candidate |
//! | `flowline/show` | idempotent: the candidate gets addresses beside the running release | taking them away |
//! | `flowline/verify` | idempotent: asks, and records the verdict | nothing |
//! | `flowline/switch` | probed: the environment's document counts its deployments | putting back what ran before |

use std::{collections::BTreeMap, net::SocketAddr};

use async_trait::async_trait;
use flowline_core::{
    Timestamp, Version,
    artifact::{Artifact, Release},
    change::CommitId,
    digest::Digest,
    error::ErrorKind,
    event::Event,
    id::{ChangeId, ResourceId},
    name::{ComponentName, EnvironmentName, NameError},
    store::{Batch, Durability, Fence, Position, Revision, StoreExt},
    verdict::Verdict,
};
use flowline_envs::provision::{Provisioner, Workload, WorkloadChange, WorkloadKind};
use flowline_pipeline::step::{
    Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Spec, Step, StepError,
    Undo,
};
use serde::{Deserialize, Serialize};

use super::{
    Delivery, DeliveryError, kind,
    record::{self, Deployment, EnvironmentRecord, Instance, InstanceTarget},
};

/// Makes one component's artifact from its source tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Build {
    pub(super) component: ComponentName,
    pub(super) commit: CommitId,
    pub(super) path: String,
    pub(super) source: Digest,
}

impl Spec for Build {
    const KIND: &'static str = "flowline/build";
    type Input = ();
    type Output = Artifact;
}

/// Brings an artifact to stand, ready, beside whatever runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stage {
    pub(super) environment: EnvironmentName,
    pub(super) component: ComponentName,
    pub(super) resource: ResourceId,
    pub(super) kind: WorkloadKind,
}

impl Spec for Stage {
    const KIND: &'static str = "flowline/stage";
    type Input = Artifact;
    type Output = Instance;
}

/// Gives the staged instances addresses beside the running release: an overlay called `next-ENVIRONMENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Show {
    pub(super) environment: EnvironmentName,
    pub(super) routes: Vec<ResourceId>,
}

impl Spec for Show {
    const KIND: &'static str = "flowline/show";
    type Input = Vec<Instance>;
    type Output = ();
}

/// Judges what answers at the addresses of an environment, and fails unless it is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    /// Whose users the release is for.
    pub(super) environment: EnvironmentName,
    /// Where it is asked: a candidate's environment, or the environment itself.
    pub(super) at: EnvironmentName,
    pub(super) change: Option<ChangeId>,
}

impl Spec for Verify {
    const KIND: &'static str = "flowline/verify";
    type Input = Vec<Instance>;
    type Output = Verdict;
}

/// Switches an environment to the staged instances, in one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    pub(super) environment: EnvironmentName,
    pub(super) base: Option<EnvironmentName>,
    pub(super) change: Option<ChangeId>,
    pub(super) commit: CommitId,
    /// The number that this deployment gets within the environment.
    pub(super) generation: u64,
    pub(super) rollback: bool,
    pub(super) expires: Option<Timestamp>,
    /// The addresses that lead to it, by component; those that stay as they are as well.
    pub(super) routes: BTreeMap<ComponentName, ResourceId>,
    /// What each component becomes: a version where it is known already.
    pub(super) becomes: BTreeMap<ComponentName, Becomes>,
}

/// What a component becomes by a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Becomes {
    /// It stays as it is.
    Unchanged(Artifact),
    /// An artifact that exists.
    Known(Artifact),
    /// What will be built from this source tree.
    Built(Digest),
    /// The base environment answers for it.
    FallsThrough,
}

impl Spec for Switch {
    const KIND: &'static str = "flowline/switch";
    type Input = Vec<Instance>;
    type Output = Deployment;
}

/// The code behind all of them: they act through one delivery.
#[derive(Debug, Clone)]
pub(super) struct Acting(pub(super) Delivery);

fn of(error: DeliveryError) -> StepError {
    StepError::of(error)
}

fn name(error: NameError) -> StepError {
    StepError::of(error)
}

#[async_trait]
impl Step for Building {
    type Spec = Build;

    fn effect(&self, spec: &Build) -> Effect {
        Effect::Idempotent { key: spec.source.hex() }
    }

    async fn preview(&self, spec: &Build, _context: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!(
            "build `{}` from `{}` at {}",
            spec.component,
            spec.path,
            spec.commit.short()
        )))
    }

    async fn run(&self, spec: &Build, (): (), context: &Context) -> Result<Artifact, StepError> {
        let delivery = self.0.delivery();
        let key = record::artifact_key(&spec.component, &spec.source).map_err(name)?;
        let known = delivery.store().get::<Artifact>(&key).await.map_err(StepError::of)?;
        if let Some((_, artifact)) = known
            && delivery.provisioner().artifacts().contains(artifact.content)
        {
            context.say(format!("`{}` was built before: {}", spec.component, artifact.content.short()));
            return Ok(artifact);
        }
        let work =
            delivery.state_directory().join("build").join(format!("{}-{}", context.run(), spec.component));
        clear(&work).await?;
        delivery.source().export(&spec.commit, &spec.path, &work).await.map_err(StepError::of)?;
        let version = version(&work).await?;
        let content = delivery.provisioner().import(work.clone()).await.map_err(StepError::of)?;
        clear(&work).await?;
        let artifact = Artifact { component: spec.component.clone(), content, source: spec.source, version };
        let value = serde_json::to_value(&artifact)
            .map_err(|error| StepError::failed("cannot record the artifact").because(error))?;
        delivery
            .store()
            .commit(Batch::new().put(key, value).fenced(context.fence().clone()))
            .await
            .map_err(StepError::of)?;
        context.say(format!("built `{}` {}: {}", spec.component, artifact.version, artifact.content.short()));
        Ok(artifact)
    }
}

/// The code of [`Build`].
#[derive(Debug, Clone)]
pub(super) struct Building(pub(super) Acting);

/// The code of [`Stage`].
#[derive(Debug, Clone)]
pub(super) struct Staging(pub(super) Acting);

/// The code of [`Show`].
#[derive(Debug, Clone)]
pub(super) struct Showing(pub(super) Acting);

/// The code of [`Verify`].
#[derive(Debug, Clone)]
pub(super) struct Verifying(pub(super) Acting);

/// The code of [`Switch`].
#[derive(Debug, Clone)]
pub(super) struct Switching(pub(super) Acting);

/// The version that a component's own `VERSION` file gives it; 0.0.0 without one.
async fn version(directory: &std::path::Path) -> Result<Version, StepError> {
    let file = directory.join("VERSION");
    let text = match tokio::fs::read_to_string(&file).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Version::new(0, 0, 0)),
        Err(error) => return Err(StepError::failed("cannot read the file `VERSION`").because(error)),
    };
    text.trim().parse().map_err(|error| {
        let message =
            format!("the file `VERSION` says `{}`, which is no semantic version such as 1.2.3", text.trim());
        StepError::new(ErrorKind::Invalid, message).because(error)
    })
}

async fn clear(directory: &std::path::Path) -> Result<(), StepError> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StepError::new(ErrorKind::Unavailable, format!("cannot clear {}", directory.display()))
                .because(error))
        }
        _ => Ok(()),
    }
}

impl Stage {
    fn workload(&self, artifact: Digest) -> Workload {
        Workload {
            environment: self.environment.clone(),
            component: self.component.clone(),
            artifact,
            kind: self.kind.clone(),
        }
    }
}

#[async_trait]
impl Step for Staging {
    type Spec = Stage;

    fn effect(&self, _spec: &Stage) -> Effect {
        Effect::Probed
    }

    fn undoing(&self, _spec: &Stage) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &Stage) -> Vec<ResourceId> {
        vec![spec.resource.clone()]
    }

    async fn preview(&self, spec: &Stage, context: &PreviewContext) -> Result<Preview, StepError> {
        let on = context.granted(&spec.resource)?;
        let observed = self.0.delivery().provisioner().observe(on).await.map_err(StepError::of)?;
        let action = if observed.active().is_some() { Action::Update } else { Action::Create };
        // Only what is active counts: somebody else's candidate, come and gone, does not stale a plan.
        let fingerprint = match observed.active {
            Some(active) => Fingerprint::of(&active)
                .map_err(|error| StepError::failed("cannot take a fingerprint").because(error))?,
            None => Fingerprint::absent(),
        };
        let summary = format!("stage `{}` in `{}` beside what runs", spec.component, spec.environment);
        let resource = spec.resource.clone();
        Ok(Preview::of(summary, vec![Observed { resource, action, fingerprint, details: Vec::new() }]))
    }

    async fn run(&self, spec: &Stage, artifact: Artifact, context: &Context) -> Result<Instance, StepError> {
        let on = context.granted(&spec.resource)?;
        let workload = spec.workload(artifact.content);
        let change = WorkloadChange::Stage(workload.clone());
        let observed = self
            .0
            .delivery()
            .provisioner()
            .apply(on, &change, context.fence())
            .await
            .map_err(StepError::of)?;
        instance(&observed, &workload, artifact).ok_or_else(|| {
            StepError::failed(format!("`{}` was staged but does not stand ready", spec.resource))
        })
    }

    async fn probe(
        &self,
        spec: &Stage,
        artifact: Artifact,
        context: &Context,
    ) -> Result<Happened<Instance>, StepError> {
        let on = context.granted(&spec.resource)?;
        let observed = self.0.delivery().provisioner().observe(on).await.map_err(StepError::of)?;
        let workload = spec.workload(artifact.content);
        Ok(instance(&observed, &workload, artifact).map_or(Happened::No, Happened::Yes))
    }

    async fn undo(&self, spec: &Stage, output: Option<Instance>, context: &Context) -> Result<(), StepError> {
        let on = context.granted(&spec.resource)?;
        let provisioner = self.0.delivery().provisioner();
        let observed = provisioner.observe(on).await.map_err(StepError::of)?;
        // Whatever is not active and never was is a candidate of this run or of one before that died: nobody wants it any more.
        let unwanted = observed.instances.iter().filter(|instance| {
            let ours = output.as_ref().is_none_or(|output| output.artifact.content == instance.artifact);
            ours && observed.active != Some(instance.id)
        });
        for instance in unwanted {
            let change = if instance.activated.is_some() {
                WorkloadChange::Retire(instance.id)
            } else {
                WorkloadChange::Discard(instance.id)
            };
            provisioner.apply(on, &change, context.fence()).await.map_err(StepError::of)?;
        }
        Ok(())
    }
}

fn instance(
    observed: &flowline_envs::provision::Observed,
    workload: &Workload,
    artifact: Artifact,
) -> Option<Instance> {
    let found = observed.instance(workload.instance()).filter(|found| found.is_ready())?;
    let target = match found.port() {
        Some(port) => InstanceTarget::Process(SocketAddr::from(([127, 0, 0, 1], port))),
        None => InstanceTarget::Directory(found.directory.clone()?),
    };
    Some(Instance { artifact, target })
}

#[async_trait]
impl Step for Showing {
    type Spec = Show;

    fn effect(&self, _spec: &Show) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _spec: &Show) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &Show) -> Vec<ResourceId> {
        spec.routes.clone()
    }

    async fn preview(&self, spec: &Show, _context: &PreviewContext) -> Result<Preview, StepError> {
        let observed = |resource: &ResourceId| Observed {
            resource: resource.clone(),
            action: Action::Create,
            fingerprint: Fingerprint::absent(),
            details: vec!["only while it is verified".to_owned()],
        };
        Ok(Preview::of("show it beside the running release", spec.routes.iter().map(observed).collect()))
    }

    async fn run(&self, spec: &Show, instances: Vec<Instance>, context: &Context) -> Result<(), StepError> {
        let candidate = by_component(instances);
        self.0.set_candidate(&spec.environment, candidate, context).await
    }

    async fn undo(&self, spec: &Show, _output: Option<()>, context: &Context) -> Result<(), StepError> {
        self.0.set_candidate(&spec.environment, BTreeMap::new(), context).await
    }
}

impl Acting {
    fn delivery(&self) -> &Delivery {
        &self.0
    }

    /// Replaces what is shown beside `environment`, and waits until the router does so.
    async fn set_candidate(
        &self,
        environment: &EnvironmentName,
        candidate: BTreeMap<ComponentName, Instance>,
        context: &Context,
    ) -> Result<(), StepError> {
        let delivery = &self.0;
        let key = record::environment_key(environment).map_err(name)?;
        let found = delivery.store().get::<EnvironmentRecord>(&key).await.map_err(StepError::of)?;
        let (revision, mut record) = match found {
            Some((revision, record)) => (revision, record),
            None if candidate.is_empty() => return Ok(()),
            None => {
                (Revision::ABSENT, EnvironmentRecord::persistent(environment.clone(), context.clock().now()))
            }
        };
        record.candidate = candidate;
        let shown = if record.candidate.is_empty() { "hidden" } else { "shown" };
        let id = Delivery::event_id(format!("{}/{}/{shown}", context.run(), context.step())).map_err(of)?;
        let subject = format!("environment/{environment}");
        let event =
            Event::new(id, format!("candidate.{shown}"), context.clock().now(), delivery.actor(), subject)
                .with_data(serde_json::json!({ "run": context.run() }));
        let value = serde_json::to_value(&record)
            .map_err(|error| StepError::failed("cannot record the candidate").because(error))?;
        let batch = Batch::new()
            .expect(key.clone(), revision)
            .put(key, value)
            .append(record::environment_stream(environment).map_err(name)?, event)
            .fenced(context.fence().clone());
        let committed = delivery.store().commit(batch).await.map_err(StepError::of)?;
        delivery.await_router(committed.position).await.map_err(of)
    }
}

#[async_trait]
impl Step for Verifying {
    type Spec = Verify;

    fn effect(&self, _spec: &Verify) -> Effect {
        Effect::idempotent()
    }

    async fn preview(&self, spec: &Verify, _context: &PreviewContext) -> Result<Preview, StepError> {
        let verify = &self.0.delivery().topology().verify;
        let smoke = if verify.smoke.is_empty() { "" } else { " and the smoke command" };
        Ok(Preview::run(format!("verify at `{}`: {} probes{smoke}", spec.at, verify.probes.len())))
    }

    async fn run(
        &self,
        spec: &Verify,
        instances: Vec<Instance>,
        context: &Context,
    ) -> Result<Verdict, StepError> {
        let delivery = self.0.delivery();
        let verdict = delivery.judge(&spec.at).await.map_err(of)?;
        for evidence in &verdict.evidence {
            context.say(format!("{}: {} ({})", evidence.outcome, evidence.subject, evidence.seen));
        }
        let artifacts = instances.into_iter().map(|instance| instance.artifact);
        delivery.record_verdict(spec, artifacts, &verdict, context).await.map_err(of)?;
        if verdict.passed() {
            Ok(verdict)
        } else {
            Err(StepError::failed(format!("verification came out as {verdict}")))
        }
    }
}

#[async_trait]
impl Step for Switching {
    type Spec = Switch;

    fn effect(&self, _spec: &Switch) -> Effect {
        Effect::Probed
    }

    fn undoing(&self, _spec: &Switch) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &Switch) -> Vec<ResourceId> {
        let mut resources: Vec<_> = spec.routes.values().cloned().collect();
        resources.dedup();
        resources
    }

    async fn preview(&self, spec: &Switch, _context: &PreviewContext) -> Result<Preview, StepError> {
        let record = self.0.delivery().environment(&spec.environment).await.map_err(of)?;
        let mut observed: Vec<Observed> = Vec::new();
        for (component, resource) in &spec.routes {
            let running = record
                .as_ref()
                .and_then(|record| record.running.get(component))
                .map(|instance| &instance.artifact);
            let (action, detail) = change(component, running, spec.becomes.get(component));
            let fingerprint = match running {
                Some(artifact) => Fingerprint::of(&artifact.content)
                    .map_err(|error| StepError::failed("cannot take a fingerprint").because(error))?,
                None => Fingerprint::absent(),
            };
            observed.push(Observed {
                resource: resource.clone(),
                action,
                fingerprint,
                details: vec![detail],
            });
        }
        let verb = if spec.rollback { "switch back" } else { "switch" };
        Ok(Preview::of(format!("{verb} `{}` (deployment {})", spec.environment, spec.generation), observed))
    }

    async fn run(
        &self,
        spec: &Switch,
        instances: Vec<Instance>,
        context: &Context,
    ) -> Result<Deployment, StepError> {
        let delivery = self.0.delivery();
        let key = record::environment_key(&spec.environment).map_err(name)?;
        let found = delivery.store().get::<EnvironmentRecord>(&key).await.map_err(StepError::of)?;
        let now = context.clock().now();
        let (revision, mut record) = found.unwrap_or_else(|| {
            (Revision::ABSENT, EnvironmentRecord::persistent(spec.environment.clone(), now))
        });
        if record.generation + 1 != spec.generation {
            let message = format!(
                "`{}` is at deployment {} now, where {} was expected: somebody else deployed; plan anew",
                spec.environment,
                record.generation,
                spec.generation.saturating_sub(1)
            );
            return Err(StepError::new(ErrorKind::Conflict, message));
        }
        record.running.retain(|component, _| {
            !matches!(spec.becomes.get(component), None | Some(Becomes::FallsThrough))
        });
        record.running.extend(by_component(instances));
        record.candidate.clear();
        record.base.clone_from(&spec.base);
        record.change.clone_from(&spec.change);
        record.generation = spec.generation;
        record.expires = spec.expires;
        let release = Release::new(record.running.values().map(|instance| instance.artifact.clone()))
            .map_err(StepError::of)?;
        let deployment = Deployment {
            generation: spec.generation,
            release,
            commit: spec.commit.clone(),
            change: spec.change.clone(),
            run: context.run().clone(),
            time: now,
            rollback: spec.rollback,
        };
        record.history.push(deployment.clone());
        let batch = self.0.switched(spec, &record, &deployment, context)?;
        let batch =
            batch.expect(key.clone(), revision).put(key, json(&record)?).fenced(context.fence().clone());
        let committed =
            delivery.store().commit(batch.durably(Durability::Synced)).await.map_err(StepError::of)?;
        self.0.settle(&record, committed.position, context.fence()).await?;
        Ok(deployment)
    }

    async fn probe(
        &self,
        spec: &Switch,
        _instances: Vec<Instance>,
        context: &Context,
    ) -> Result<Happened<Deployment>, StepError> {
        let delivery = self.0.delivery();
        let Some(record) = delivery.environment(&spec.environment).await.map_err(of)? else {
            return Ok(Happened::No);
        };
        let done = record
            .history
            .iter()
            .find(|deployment| deployment.run == *context.run() && deployment.generation == spec.generation);
        let Some(deployment) = done.cloned() else { return Ok(Happened::No) };
        let head = delivery.store().head().await.map_err(StepError::of)?;
        self.0.settle(&record, head, context.fence()).await?;
        Ok(Happened::Yes(deployment))
    }

    async fn undo(
        &self,
        spec: &Switch,
        _output: Option<Deployment>,
        context: &Context,
    ) -> Result<(), StepError> {
        let delivery = self.0.delivery();
        let key = record::environment_key(&spec.environment).map_err(name)?;
        let Some((revision, mut record)) =
            delivery.store().get::<EnvironmentRecord>(&key).await.map_err(StepError::of)?
        else {
            return Ok(());
        };
        if record.deployment().is_none_or(|deployment| deployment.run != *context.run()) {
            return Ok(());
        }
        // What ran before is still there: it is retired only after the whole run is done.
        record.history.pop();
        record.generation = record.generation.saturating_sub(1);
        let before = record.deployment().map(|deployment| deployment.release.clone());
        let mut running = BTreeMap::new();
        for artifact in before.iter().flat_map(Release::artifacts) {
            if let Some(instance) = delivery.standing(&spec.environment, artifact).await.map_err(of)? {
                running.insert(artifact.component.clone(), instance);
            }
        }
        record.running = running;
        let id = Delivery::event_id(format!("{}/{}/undone", context.run(), context.step())).map_err(of)?;
        let subject = format!("environment/{}", spec.environment);
        let event = Event::new(id, "deployment.undone", context.clock().now(), delivery.actor(), subject);
        let batch = Batch::new()
            .expect(key.clone(), revision)
            .put(key, json(&record)?)
            .append(record::environment_stream(&spec.environment).map_err(name)?, event)
            .fenced(context.fence().clone())
            .durably(Durability::Synced);
        let committed = delivery.store().commit(batch).await.map_err(StepError::of)?;
        self.0.settle(&record, committed.position, context.fence()).await
    }
}

impl Acting {
    /// The facts of a switch: for the environment, and for the change whose way it is.
    fn switched(
        &self,
        spec: &Switch,
        record: &EnvironmentRecord,
        deployment: &Deployment,
        context: &Context,
    ) -> Result<Batch, StepError> {
        let kind = match (&record.base, spec.rollback) {
            (Some(_), _) if spec.generation == 1 => kind::PREVIEWED,
            (Some(_), _) => "environment.modified",
            (None, true) => kind::ROLLED_BACK,
            (None, false) => kind::DEPLOYED,
        };
        let data = serde_json::json!({
            "environment": spec.environment,
            "release": deployment.release.id().to_string(),
            "version": deployment.release.version(),
            "commit": spec.commit,
            "run": context.run(),
        });
        let event = |id: String, subject: String| -> Result<Event, StepError> {
            let id = Delivery::event_id(id).map_err(of)?;
            Ok(Event::new(id, kind, deployment.time, self.0.actor(), subject).with_data(data.clone()))
        };
        let environment = format!("environment/{}", spec.environment);
        let own = event(format!("{}/{}/switched", context.run(), context.step()), environment)?;
        let mut batch =
            Batch::new().append(record::environment_stream(&spec.environment).map_err(name)?, own.clone());
        if let Some(change) = &spec.change {
            let of_change = event(
                format!("{}/{}/switched/change", context.run(), context.step()),
                format!("change/{change}"),
            )?;
            batch = batch.append(record::change_stream(change).map_err(name)?, of_change.caused_by(own.id));
        }
        Ok(batch)
    }

    /// After a switch is recorded: the router leads there, and the host knows what is active.
    async fn settle(
        &self,
        record: &EnvironmentRecord,
        position: Position,
        fence: &Fence,
    ) -> Result<(), StepError> {
        self.0.await_router(position).await.map_err(of)?;
        self.0.mark_active(record, fence).await.map_err(of)
    }
}

fn by_component(instances: Vec<Instance>) -> BTreeMap<ComponentName, Instance> {
    instances.into_iter().map(|instance| (instance.artifact.component.clone(), instance)).collect()
}

fn json(record: &EnvironmentRecord) -> Result<serde_json::Value, StepError> {
    serde_json::to_value(record)
        .map_err(|error| StepError::failed("cannot record the environment").because(error))
}

/// What a deployment does to one component, for people.
fn change(
    component: &ComponentName,
    running: Option<&Artifact>,
    becomes: Option<&Becomes>,
) -> (Action, String) {
    match (running, becomes) {
        (_, Some(Becomes::Unchanged(artifact))) => {
            (Action::Keep, format!("{component}: {} ({}) stays", artifact.version, artifact.content.short()))
        }
        (_, Some(Becomes::FallsThrough)) => {
            (Action::Keep, format!("{component}: falls through to the base environment"))
        }
        (Some(now), Some(Becomes::Known(next))) => (
            Action::Update,
            format!(
                "{component}: {} ({}) -> {} ({})",
                now.version,
                now.content.short(),
                next.version,
                next.content.short()
            ),
        ),
        (None, Some(Becomes::Known(next))) => {
            (Action::Create, format!("{component}: {} ({})", next.version, next.content.short()))
        }
        (Some(now), Some(Becomes::Built(source))) => (
            Action::Update,
            format!(
                "{component}: {} ({}) -> built from tree {}",
                now.version,
                now.content.short(),
                source.short()
            ),
        ),
        (None, Some(Becomes::Built(source))) => {
            (Action::Create, format!("{component}: built from tree {}", source.short()))
        }
        (Some(now), None) => (Action::Delete, format!("{component}: {} goes away", now.version)),
        (None, None) => (Action::Keep, format!("{component}: is not there")),
    }
}
