//! How an environment is switched to what was staged: one commit, then the router, then the host.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flowline_core::{
    Timestamp,
    artifact::{Artifact, Release},
    change::CommitId,
    digest::Digest,
    error::ErrorKind,
    event::Event,
    id::{ChangeId, ResourceId},
    name::{ComponentName, EnvironmentName},
    store::{Batch, Durability, Fence, Position, Revision, StoreExt},
};
use flowline_pipeline::step::{
    Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Spec, Step, StepError,
    Undo,
};
use serde::{Deserialize, Serialize};

use super::{Acting, by_component, name, of};
use crate::delivery::{Delivery, Deployment, EnvironmentRecord, Instance, kind, record};

/// Switches an environment to the staged instances, in one commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::delivery) struct Switch {
    pub(in crate::delivery) environment: EnvironmentName,
    pub(in crate::delivery) base: Option<EnvironmentName>,
    pub(in crate::delivery) change: Option<ChangeId>,
    pub(in crate::delivery) commit: CommitId,
    /// The number that this deployment gets within the environment.
    pub(in crate::delivery) generation: u64,
    pub(in crate::delivery) rollback: bool,
    pub(in crate::delivery) expires: Option<Timestamp>,
    /// The addresses that lead to it, by component; those that stay as they are as well.
    pub(in crate::delivery) routes: BTreeMap<ComponentName, ResourceId>,
    /// What each component becomes: a version where it is known already.
    pub(in crate::delivery) becomes: BTreeMap<ComponentName, Becomes>,
}

impl Spec for Switch {
    const KIND: &'static str = "flowline/switch";
    type Input = Vec<Instance>;
    type Output = Deployment;
}

/// What a component becomes by a deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::delivery) enum Becomes {
    /// It stays as it is.
    Unchanged(Artifact),
    /// An artifact that exists.
    Known(Artifact),
    /// What will be built from this source tree.
    Built(Digest),
    /// The base environment answers for it.
    FallsThrough,
}

/// The code of [`Switch`].
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Switching(pub(in crate::delivery) Acting);

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
