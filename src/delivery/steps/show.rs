//! How a candidate gets addresses beside the running release, so that it is verified as a user would meet it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flowline_core::{
    event::Event,
    id::ResourceId,
    name::{ComponentName, EnvironmentName},
    store::{Batch, Revision, StoreExt},
};
use flowline_pipeline::step::{
    Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
};
use serde::{Deserialize, Serialize};

use super::{Acting, by_component, name, of};
use crate::delivery::{Delivery, EnvironmentRecord, Instance, record};

/// Gives the staged instances addresses beside the running release: an overlay called `next-ENVIRONMENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::delivery) struct Show {
    pub(in crate::delivery) environment: EnvironmentName,
    pub(in crate::delivery) routes: Vec<ResourceId>,
}

impl Spec for Show {
    const KIND: &'static str = "flowline/show";
    type Input = Vec<Instance>;
    type Output = ();
}

/// The code of [`Show`].
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Showing(pub(in crate::delivery) Acting);

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
