//! A story of several verbs that survives its teller: each step's result is recorded, and a step that was recorded is not done again.

use std::future::Future;

use flowline_core::{
    event::Event,
    id::{EventId, RunId, StreamId},
    store::{Batch, Durability, EventQuery},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Delivery, DeliveryError};

/// A durable sequence of steps: what a deployer's `main` does, made safe against being killed anywhere.
///
/// Started again under the same id, [`step`](Self::step) answers what was recorded for every step that finished, and runs the first one
/// that did not. The verbs of [`Delivery`] are themselves safe to repeat, so a step that was cut in the middle converges.
///
/// Steps are known by their id, not by their position: inserting one later is fine.
#[derive(Debug)]
pub struct Workflow<'a> {
    delivery: &'a Delivery,
    id: RunId,
    stream: StreamId,
}

impl<'a> Workflow<'a> {
    pub(super) fn new(delivery: &'a Delivery, id: RunId) -> Result<Self, DeliveryError> {
        let stream = StreamId::new(format!("workflow/{id}"))?;
        Ok(Self { delivery, id, stream })
    }

    /// Does `work` once: its result is recorded (`Written`) and answered, now and whenever the workflow is started again.
    ///
    /// A failure is not recorded; the step is tried anew next time.
    ///
    /// # Errors
    /// What `work` answers, or the store's, or that a recorded result has another shape than `T`.
    pub async fn step<T, E, F>(&self, id: &str, work: impl FnOnce() -> F) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<DeliveryError>,
        F: Future<Output = Result<T, E>>,
    {
        if let Some(recorded) = self.recorded(id).await? {
            return Ok(recorded);
        }
        let result = work().await?;
        self.record(id, &result).await?;
        Ok(result)
    }

    async fn recorded<T: DeserializeOwned>(&self, id: &str) -> Result<Option<T>, DeliveryError> {
        let id = self.event(id)?;
        let events = self.delivery.store().events(EventQuery::of(self.stream.clone())).await;
        let events = events
            .map_err(DeliveryError::store(format!("looking up what workflow `{}` has done", self.id)))?;
        let Some(found) = events.into_iter().find(|recorded| recorded.event.id == id) else {
            return Ok(None);
        };
        let value = T::deserialize(&found.event.data).map_err(|source| DeliveryError::Part {
            doing: format!(
                "reading the recorded result `{id}`, which another version of this program wrote,"
            ),
            kind: flowline_core::error::ErrorKind::Invalid,
            retry: flowline_core::error::Retry::Never,
            source: source.into(),
        })?;
        Ok(Some(value))
    }

    async fn record<T: Serialize>(&self, id: &str, result: &T) -> Result<(), DeliveryError> {
        let doing = format!("recording step `{id}` of workflow `{}`", self.id);
        let data = serde_json::to_value(result).map_err(|source| DeliveryError::Part {
            doing: doing.clone(),
            kind: flowline_core::error::ErrorKind::Invalid,
            retry: flowline_core::error::Retry::Never,
            source: source.into(),
        })?;
        let now = self.delivery.clock().now();
        let event = Event::new(
            self.event(id)?,
            "workflow.step.finished",
            now,
            self.delivery.actor(),
            self.stream.as_str(),
        )
        .with_data(data);
        let batch = Batch::new().append(self.stream.clone(), event).durably(Durability::Written);
        self.delivery.store().commit(batch).await.map_err(DeliveryError::store(doing))?;
        Ok(())
    }

    fn event(&self, step: &str) -> Result<EventId, DeliveryError> {
        Ok(EventId::new(format!("workflow/{}/{step}/finished", self.id))?)
    }
}
