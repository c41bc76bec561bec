//! A store in memory: for tests, dry runs and whatever need not outlive the process.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;

use super::{
    Batch, Committed, Document, EventQuery, Fence, Position, Revision, Store, StoreCapabilities, StoreError,
    waiters::Waiters,
};
use crate::{
    event::Recorded,
    id::{EventId, Key, StreamId},
};

/// A [`Store`] in memory. Clones share the state.
///
/// ```
/// # use flowline_core::{id::Key, store::{Batch, MemoryStore, Revision, Store}};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MemoryStore::new();
/// let key = Key::new("environment/production")?;
/// store.commit(Batch::new().expect(key.clone(), Revision::ABSENT).put(key.clone(), "up".into())).await?;
/// assert_eq!(store.read(&key).await?.unwrap().revision, Revision(1));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    waiters: Waiters,
}

#[derive(Debug, Default)]
struct State {
    /// A document that was removed keeps its revision.
    documents: BTreeMap<Key, (Revision, Option<Value>)>,
    /// The event at position `n` is the element `n - 1`.
    events: Vec<Recorded>,
    ids: BTreeSet<EventId>,
    /// For each stream the indexes of its events.
    streams: BTreeMap<StreamId, Vec<usize>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::NONE
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let committed = self.state().commit(batch)?;
        if committed.appended > 0 {
            self.shared.waiters.wake(committed.position);
        }
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        Ok(self.state().document(key))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        let state = self.state();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        Ok(state
            .documents
            .range::<str, _>(from)
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .filter_map(|(key, _)| Some((key.clone(), state.document(key)?)))
            .collect())
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        let state = self.state();
        let limit = query.limit.unwrap_or(usize::MAX);
        let seen = usize::try_from(query.after.0).unwrap_or(usize::MAX);
        Ok(match &query.stream {
            None => state.events.iter().skip(seen).take(limit).cloned().collect(),
            Some(stream) => {
                let indexes = state.streams.get(stream).map_or(&[][..], Vec::as_slice);
                let first = indexes.partition_point(|index| *index < seen);
                let found = indexes.iter().skip(first).take(limit);
                found.filter_map(|index| state.events.get(*index)).cloned().collect()
            }
        })
    }

    async fn head(&self) -> Result<Position, StoreError> {
        Ok(self.state().head())
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.shared.waiters.wait(after, || Ok(self.state().head())).await
    }
}

impl State {
    fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        batch.check(
            |key| Ok(self.document(key).map_or(Revision::ABSENT, |document| document.revision)),
            |key| Ok(self.document(key).and_then(|document| Fence::token_in(&document.value))),
        )?;
        for (key, value) in batch.put {
            self.put(key, value);
        }
        let before = self.events.len();
        for (stream, event) in batch.append {
            if self.ids.insert(event.id.clone()) {
                let indexes = self.streams.entry(stream.clone()).or_default();
                indexes.push(self.events.len());
                let sequence = indexes.len() as u64;
                let position = Position(self.events.len() as u64 + 1);
                self.events.push(Recorded { position, stream, sequence, event });
            }
        }
        Ok(Committed { position: self.head(), appended: self.events.len() - before })
    }

    fn put(&mut self, key: Key, value: Option<Value>) {
        match self.documents.get_mut(&key) {
            // Removing what is not there changes nothing, not even the revision to come.
            Some((_, None)) | None if value.is_none() => {}
            Some((revision, place)) => {
                revision.0 += 1;
                *place = value;
            }
            None => {
                self.documents.insert(key, (Revision(1), value));
            }
        }
    }

    fn document(&self, key: &Key) -> Option<Document> {
        let (revision, value) = self.documents.get(key)?;
        Some(Document { revision: *revision, value: value.clone()? })
    }

    fn head(&self) -> Position {
        Position(self.events.len() as u64)
    }
}
