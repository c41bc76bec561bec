//! What happened, in order: appending facts once, reading them back, and folding them into state.
//!
//! A [`Journal`] is a thin, typed face of a [`Store`]'s event streams. Facts are plain serde types that say their name and version
//! ([`Fact`]); the envelope around them ([`Event`]) says who, when, about what and why. Appending is idempotent by the event's id, so a
//! writer that does not know whether it got through writes again.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{BoxError, ErrorKind, Kinded, Retry},
    event::{Event, Recorded},
    id::{EventId, StreamId},
    store::{Batch, Committed, Durability, EventQuery, Position, Store, StoreError, StoreExt, Subscription},
};

/// One kind of event, as a type.
///
/// ```
/// use flowline_core::journal::Fact;
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Deployed { version: String }
/// impl Fact for Deployed {
///     const KIND: &'static str = "service.deployed";
/// }
/// ```
pub trait Fact: Serialize + DeserializeOwned {
    /// What happened, in the past tense: [`Event::kind`].
    const KIND: &'static str;
    /// The version of the shape, from 1: [`Event::version`].
    const VERSION: u16 = 1;

    /// Reads data that was written as `version`. The default reads versions up to its own with serde, so a field that came later needs
    /// a `#[serde(default)]`; override it where a shape changed its meaning.
    ///
    /// # Errors
    /// What does not fit.
    fn read(version: u16, data: &serde_json::Value) -> Result<Self, BoxError> {
        if version > Self::VERSION {
            let known = Self::VERSION;
            return Err(format!("version {version} is newer than {known}, the newest that is known").into());
        }
        Ok(Self::deserialize(data)?)
    }
}

impl Event {
    /// The event that says `fact`, without cause.
    ///
    /// # Errors
    /// [`JournalError::Fact`] if JSON cannot express it.
    pub fn of<F: Fact>(
        fact: &F,
        id: EventId,
        time: Timestamp,
        actor: impl Into<String>,
        subject: impl Into<String>,
    ) -> Result<Self, JournalError> {
        let data = serde_json::to_value(fact).map_err(|source| JournalError::Fact {
            id: id.clone(),
            kind: F::KIND.to_owned(),
            version: F::VERSION,
            source: source.into(),
        })?;
        let mut event = Self::new(id, F::KIND, time, actor, subject).with_data(data);
        event.version = F::VERSION;
        Ok(event)
    }

    /// The fact, if this event is of its kind; `None` if it is of another.
    ///
    /// # Errors
    /// [`JournalError::Fact`] if it is of this kind but has another shape or a newer version.
    pub fn fact<F: Fact>(&self) -> Result<Option<F>, JournalError> {
        if self.kind != F::KIND {
            return Ok(None);
        }
        let fact = F::read(self.version, &self.data).map_err(|source| JournalError::Fact {
            id: self.id.clone(),
            kind: self.kind.clone(),
            version: self.version,
            source,
        })?;
        Ok(Some(fact))
    }
}

/// The event streams of a store. Cheap to clone.
///
/// *Guarantees*: those of the [`Store`]: an append is whole or absent and lives as long as its [`Durability`] says; the same id is kept
/// once; [`since`](Self::since) and [`follow`](Self::follow) give all streams in one order, without gaps.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{clock::ManualClock, clock::Clock, event::Event, id::{EventId, StreamId}, journal::Journal};
/// # use flowline_core::store::{Durability, MemoryStore, Position};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let journal = Journal::new(Arc::new(MemoryStore::new()));
/// let stream = StreamId::new("change/pr-123")?;
/// let opened = Event::new(EventId::new("pr-123/opened")?, "change.opened", ManualClock::default().now(), "ann", "change/pr-123");
/// assert_eq!(journal.append(&stream, [opened.clone()], Durability::Written).await?.appended, 1);
/// assert_eq!(journal.append(&stream, [opened], Durability::Written).await?.appended, 0, "the same id is kept once");
/// let count = journal.fold(&stream, 0, |count, _| Ok(count + 1)).await?;
/// assert_eq!(count, 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
}

impl Journal {
    /// The journal that `store` keeps.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store underneath: for a [`Batch`] that writes documents and events together.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Appends `events` to `stream`, all or none; those whose id is already in the store are left out.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn append(
        &self,
        stream: &StreamId,
        events: impl IntoIterator<Item = Event>,
        durability: Durability,
    ) -> Result<Committed, StoreError> {
        let batch = Batch::new().durably(durability);
        let batch = events.into_iter().fold(batch, |batch, event| batch.append(stream.clone(), event));
        self.store.commit(batch).await
    }

    /// All events of `stream`.
    ///
    /// # Errors
    /// As [`Store::events`].
    pub async fn read(&self, stream: &StreamId) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(EventQuery::of(stream.clone())).await
    }

    /// The events of all streams after `position`.
    ///
    /// # Errors
    /// As [`Store::events`].
    pub async fn since(&self, position: Position) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(EventQuery::after(position)).await
    }

    /// The events of all streams after `position`, as they come, for ever.
    pub fn follow(&self, position: Position) -> Subscription<'_, dyn Store> {
        self.store.subscribe(position)
    }

    /// The position of the last event.
    ///
    /// # Errors
    /// As [`Store::head`].
    pub async fn head(&self) -> Result<Position, StoreError> {
        self.store.head().await
    }

    /// Folds the events of `stream` into a state, from the first on. Holds at most 1,000 events in memory.
    ///
    /// # Errors
    /// As [`Store::events`], and what `step` answers.
    pub async fn fold<S>(
        &self,
        stream: &StreamId,
        initial: S,
        step: impl FnMut(S, &Recorded) -> Result<S, JournalError>,
    ) -> Result<S, JournalError> {
        let (state, _) = self.fold_from(Some(stream), Position::START, initial, step).await?;
        Ok(state)
    }

    /// Folds events after `after`, of `stream` or of all, into a state; also says how far it came, so that a snapshot of both lets the next
    /// fold start there.
    ///
    /// # Errors
    /// As [`Store::events`], and what `step` answers.
    pub async fn fold_from<S>(
        &self,
        stream: Option<&StreamId>,
        after: Position,
        initial: S,
        mut step: impl FnMut(S, &Recorded) -> Result<S, JournalError>,
    ) -> Result<(S, Position), JournalError> {
        const CHUNK: usize = 1_000;
        let (mut state, mut position) = (initial, after);
        loop {
            let mut query = EventQuery::after(position).at_most(CHUNK);
            query.stream = stream.cloned();
            let events = self.store.events(query).await?;
            for recorded in &events {
                state = step(state, recorded)?;
                position = recorded.position;
            }
            if events.len() < CHUNK {
                return Ok((state, position));
            }
        }
    }
}

/// Why the journal could not be read or written as facts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event is not the fact that its kind says.
    #[error(
        "event `{id}` is not a `{kind}` of version {version} as this program knows it; was it written by a newer one?"
    )]
    Fact {
        /// The event.
        id: EventId,
        /// Its kind.
        kind: String,
        /// The version of its shape.
        version: u16,
        /// What does not fit.
        source: BoxError,
    },
}

impl Kinded for JournalError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Fact { .. } => ErrorKind::Invalid,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Store(error) => error.retry(),
            Self::Fact { .. } => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        store::MemoryStore,
    };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Moved {
        to: String,
    }

    impl Fact for Moved {
        const KIND: &'static str = "release.moved";
        const VERSION: u16 = 2;
    }

    fn moved(n: usize) -> Event {
        let id = EventId::new(format!("moved/{n}")).unwrap();
        let fact = Moved { to: n.to_string() };
        Event::of(&fact, id, ManualClock::default().now(), "ann", "release/1").unwrap()
    }

    #[tokio::test]
    async fn a_long_stream_is_folded_whole_and_in_order() {
        let journal = Journal::new(Arc::new(MemoryStore::new()));
        let (ours, other) = (StreamId::new("release/1").unwrap(), StreamId::new("release/2").unwrap());
        for n in 0..2_500 {
            let stream = if n % 5 == 0 { &other } else { &ours };
            journal.append(stream, [moved(n)], Durability::Written).await.unwrap();
        }
        let seen = journal
            .fold(&ours, Vec::new(), |mut seen, recorded| {
                seen.push(recorded.event.fact::<Moved>()?.map(|moved| moved.to));
                Ok(seen)
            })
            .await
            .unwrap();
        let expected: Vec<_> = (0..2_500).filter(|n| n % 5 != 0).map(|n| Some(n.to_string())).collect();
        assert_eq!(seen, expected);
        assert_eq!(journal.since(Position(2_498)).await.unwrap().len(), 2);
        assert_eq!(journal.follow(Position(2_499)).next().await.unwrap()[0].event, moved(2_499));
    }

    #[test]
    fn a_newer_version_is_an_error_and_another_kind_is_none() {
        let mut event = moved(1);
        assert_eq!(event.fact::<Moved>().unwrap(), Some(Moved { to: "1".into() }));
        event.version = 3;
        let error = event.fact::<Moved>().unwrap_err();
        insta::assert_snapshot!(
            crate::error::chain(&error),
            @"event `moved/1` is not a `release.moved` of version 3 as this program knows it; was it written by a newer one?: version 3 is newer than 2, the newest that is known"
        );
        event.kind = "release.vanished".into();
        assert!(event.fact::<Moved>().unwrap().is_none());
    }
}
