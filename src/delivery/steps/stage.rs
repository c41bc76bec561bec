//! How an artifact comes to stand, ready, beside whatever runs.

use std::net::SocketAddr;

use async_trait::async_trait;
use flowline_core::{
    artifact::Artifact,
    digest::Digest,
    id::ResourceId,
    name::{ComponentName, EnvironmentName},
};
use flowline_envs::provision::{Provisioner, Workload, WorkloadChange, WorkloadKind};
use flowline_pipeline::step::{
    Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Spec, Step, StepError,
    Undo,
};
use serde::{Deserialize, Serialize};

use super::Acting;
use crate::delivery::{Instance, InstanceTarget};

/// Brings an artifact to stand, ready, beside whatever runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::delivery) struct Stage {
    pub(in crate::delivery) environment: EnvironmentName,
    pub(in crate::delivery) component: ComponentName,
    pub(in crate::delivery) resource: ResourceId,
    pub(in crate::delivery) kind: WorkloadKind,
}

impl Spec for Stage {
    const KIND: &'static str = "flowline/stage";
    type Input = Artifact;
    type Output = Instance;
}

/// The code of [`Stage`].
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Staging(pub(in crate::delivery) Acting);

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
