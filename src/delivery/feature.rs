//! Releasing a feature to people, which is not deploying it; and noting who had it first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use flowline_core::{
    clock::Clock,
    event::{Event, Recorded},
    id::{ChangeId, EventId, ScopeId, StreamId},
    name::{EnvironmentName, NameError},
    store::{Batch, Durability, EventQuery, Store, StoreError},
};
use flowline_toggles::{
    flags::{Author, Flags},
    format::flowline::{FlagKey, Percent},
};
use serde::{Deserialize, Serialize};

use super::{Delivery, DeliveryError, kind, record};

/// What a release did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Released {
    /// The flag.
    pub flag: String,
    /// Where.
    pub environment: EnvironmentName,
    /// For how many percent of its audience it is on now.
    pub percent: f64,
}

impl Delivery {
    /// Turns `flag` on for `percent` (0 to 100) of its audience in `environment`, at once and without a deployment.
    ///
    /// Raising the share never takes the feature from anybody who has it. A preview has its base environment's state unless it is told
    /// otherwise. Named with the change that it releases, the release becomes part of that change's way: at 100 it has reached all users.
    ///
    /// # Errors
    /// If the topology does not declare `flag`, `percent` is out of range, or the store does not answer.
    pub async fn release(
        &self,
        flag: &str,
        environment: &EnvironmentName,
        percent: f64,
        change: Option<&ChangeId>,
    ) -> Result<Released, DeliveryError> {
        let unknown = || DeliveryError::Unknown {
            what: "flag",
            name: flag.to_owned(),
            help: format!(
                "the topology declares {}",
                self.topology().flags.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        let key = FlagKey::new(flag).map_err(|_| unknown())?;
        let definition = self.topology().flags.get(&key).ok_or_else(unknown)?;
        let doing = || format!("releasing `{flag}` in `{environment}`");
        let share = Percent::new(percent).map_err(|error| DeliveryError::part(doing(), error))?;
        let flags = self.flags().await?;
        let author = Author::new(
            self.actor(),
            change.map_or_else(doing, |change| format!("{} for {change}", doing())),
        );
        if flags.definition(&key).as_ref() != Some(definition) {
            flags
                .define(&key, definition.clone(), &author)
                .await
                .map_err(|error| DeliveryError::part(doing(), error))?;
        }
        let scope = ScopeId::from(environment);
        flags
            .set_rollout(&scope, &key, share, &author)
            .await
            .map_err(|error| DeliveryError::part(doing(), error))?;
        if let Some(change) = change {
            self.record_release(change, flag, environment, share).await?;
        }
        Ok(Released { flag: flag.to_owned(), environment: environment.clone(), percent })
    }

    /// The flags and their state in every scope, kept in this delivery's store.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn flags(&self) -> Result<Flags, DeliveryError> {
        let flags = Flags::open(Arc::clone(self.store()), Arc::clone(self.clock())).await;
        flags.map_err(|error| DeliveryError::part("reading the flags", error))
    }

    async fn record_release(
        &self,
        change: &ChangeId,
        flag: &str,
        environment: &EnvironmentName,
        share: Percent,
    ) -> Result<(), DeliveryError> {
        let kind = if share == Percent::ALL { kind::ALL_USERS } else { "feature.rollout" };
        let id =
            Self::event_id(format!("change/{change}/released/{flag}/{environment}/{}", share.thousandths()))?;
        let event = Event::new(id, kind, self.clock().now(), self.actor(), format!("change/{change}"))
            .with_data(
                serde_json::json!({ "flag": flag, "environment": environment, "percent": share.as_f64() }),
            );
        let appended =
            self.journal().append(&record::change_stream(change)?, [event], Durability::Written).await;
        appended.map_err(DeliveryError::store(format!("recording the release of `{flag}`")))?;
        Ok(())
    }

    /// The first exposures of the flags that `events` (a change's stream) say were released for it.
    pub(super) async fn first_exposures(&self, events: &[Recorded]) -> Result<Vec<Recorded>, DeliveryError> {
        let mut streams: Vec<StreamId> = Vec::new();
        for Recorded { event, .. } in events {
            let text = |name: &str| event.data.get(name).and_then(|value| value.as_str());
            if let (Some(flag), Some(environment)) = (text("flag"), text("environment")) {
                let stream = exposure_stream(environment, flag)?;
                if !streams.contains(&stream) {
                    streams.push(stream);
                }
            }
        }
        let mut exposures = Vec::new();
        for stream in streams {
            let found = self.store().events(EventQuery::of(stream).at_most(1)).await;
            exposures.extend(found.map_err(DeliveryError::store("looking for the first user"))?);
        }
        Ok(exposures)
    }
}

fn exposure_stream(scope: &str, flag: &str) -> Result<StreamId, NameError> {
    StreamId::new(format!("exposure/{scope}/{flag}"))
}

/// Notes in the journal, once, that a feature reached its first user: for the program that evaluates the flag.
///
/// "First user" is then a fact with a time, not an assumption. Asking costs one atomic read once the fact is written; clones share it.
#[derive(Debug, Clone)]
pub struct Exposure {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    stream: StreamId,
    id: EventId,
    noted: Arc<AtomicBool>,
}

impl Exposure {
    /// Notes the first user of `flag` in `scope`.
    ///
    /// # Errors
    /// If the two are too long for an event's id.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        scope: &ScopeId,
        flag: &str,
    ) -> Result<Self, NameError> {
        let stream = exposure_stream(scope.as_str(), flag)?;
        let id = EventId::new(format!("{stream}/first"))?;
        Ok(Self { store, clock, stream, id, noted: Arc::default() })
    }

    /// Says that `user` has the feature. Only the first one ever is written down, whichever process says it.
    ///
    /// # Errors
    /// The store's; the next call tries again.
    pub async fn note(&self, user: &str) -> Result<(), StoreError> {
        if self.noted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let event =
            Event::new(self.id.clone(), kind::FIRST_USER, self.clock.now(), "flowline", self.stream.as_str())
                .with_data(serde_json::json!({ "user": user }));
        let committed = self.store.commit(Batch::new().append(self.stream.clone(), event)).await;
        if committed.is_err() {
            self.noted.store(false, Ordering::Relaxed);
        }
        committed.map(|_| ())
    }
}
