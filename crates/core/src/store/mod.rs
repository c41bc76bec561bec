//! Where state lives: documents that change and streams of events that only grow, written together or not at all.
//!
//! [`Store`] is the contract; [`MemoryStore`] keeps everything in the process, [`LogStore`] in a file that only grows, for one process at a
//! time, `SqliteStore` (feature `sqlite`) in one that several processes use at once. All pass `testkit::store`.

mod batch;
mod error;
mod export;
mod flush;
mod log;
mod memory;
mod place;
#[cfg(test)]
mod samples;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod small_disk;
#[cfg(feature = "sqlite")]
mod sqlite;
mod waiters;

pub use batch::{Batch, Committed, Durability, Fence};
pub use error::StoreError;
pub use log::LogStore;
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{Snapshot, SqliteOptions, SqliteStore};

use std::fmt::{self, Debug};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    event::Recorded,
    id::{Key, StreamId},
};

/// A place among all events of one store: they are numbered from 1 in the order in which they were committed. 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first event.
    pub const START: Self = Self(0);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A document's version: 1 when first put, one more with each put. 0 stands for "not there".
///
/// A document that was removed and is put again goes on counting (the removal counts as one too), so a revision never names two
/// contents of one key and an expectation can't be met by accident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The document is not there.
    pub const ABSENT: Self = Self(0);
}

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its version; give it to [`Batch::expect`] to write only if nobody else did meanwhile.
    pub revision: Revision,
    /// Its content.
    pub value: Value,
}

impl Document {
    /// The content as `T`.
    ///
    /// # Errors
    /// [`StoreError::Content`] if it has another shape.
    pub fn decode<T: DeserializeOwned>(&self, key: &Key) -> Result<T, StoreError> {
        T::deserialize(&self.value)
            .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() })
    }
}

/// Which events to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Only events after this position.
    pub after: Position,
    /// Only events of this stream.
    pub stream: Option<StreamId>,
    /// At most so many, the earliest; `None` is no limit.
    pub limit: Option<usize>,
}

impl EventQuery {
    /// All events after `after`.
    #[must_use]
    pub fn after(after: Position) -> Self {
        Self { after, ..Self::default() }
    }

    /// All events of `stream`.
    #[must_use]
    pub fn of(stream: StreamId) -> Self {
        Self { stream: Some(stream), ..Self::default() }
    }

    /// The same, at most `limit`.
    #[must_use]
    pub fn at_most(mut self, limit: usize) -> Self {
        self.limit = Some(limit);
        self
    }
}

/// What a store can do, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCapabilities {
    /// State survives this process.
    pub survives_restart: bool,
    /// Several processes may use it at once, and hear of each other's writes.
    pub several_processes: bool,
    /// `Synced` writes survive the loss of power.
    pub survives_power_loss: bool,
}

impl StoreCapabilities {
    /// All false: what a store in memory can do.
    pub const NONE: Self =
        Self { survives_restart: false, several_processes: false, survives_power_loss: false };

    /// The same, and state survives the process.
    #[must_use]
    pub const fn surviving_restart(mut self) -> Self {
        self.survives_restart = true;
        self
    }

    /// The same, and several processes may use it at once.
    #[must_use]
    pub const fn for_several_processes(mut self) -> Self {
        self.several_processes = true;
        self
    }

    /// The same, and `Synced` writes survive the loss of power.
    #[must_use]
    pub const fn surviving_power_loss(mut self) -> Self {
        self.survives_power_loss = true;
        self
    }
}

/// Documents and event streams with one atomic write.
///
/// *Shape*: called from many tasks, threads and (by capability) processes at once; every call may block its thread for the time of one
/// disk write, and while another process writes. Needs no async runtime.
///
/// *Guarantees*
/// 1. A commit is whole or absent, for every reader and after every crash, and is applied at one instant: expectations and fences are
///    checked in that instant, against everything committed before.
/// 2. When `commit` returns, the batch lives as long as its [`Durability`] says, and every read that starts later, in any process, sees it.
/// 3. Positions grow by one with each event over all streams, without gaps; sequences do the same within a stream.
/// 4. An event whose id is already there, in whatever stream, is left out; the rest of its batch is committed.
/// 5. `subscribe` misses nothing and repeats nothing after its position.
/// 6. A `Synced` commit makes everything durable that was committed before it, too.
/// 7. A commit that fails, for whatever reason but the loss of the process, wrote nothing.
///
/// *Cancellation*: a dropped `commit` is whole or absent, it is not known which; writing the same events again is harmless.
///
/// *Errors by kind*: `Denied` for a failed fence, `Conflict` for a failed expectation, `Invalid` for a batch that contradicts itself,
/// `Busy` (another process holds the store for longer than the limit), `Unavailable` (disk full, unwritable), `Corrupt`. The one
/// exception to guarantee 7: `Unavailable` with `doing` `"sync"` says that the batch was written but the disk did not confirm it.
///
/// *Where backends differ*: [`capabilities`](Self::capabilities). The suite is `testkit::store`.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// What this store can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// Commits `batch` as a whole.
    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError>;

    /// The document under `key`.
    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError>;

    /// All documents whose key starts with `prefix`, ordered by key (bytes).
    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError>;

    /// The events that `query` asks for, ordered by position.
    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError>;

    /// The position of the last event.
    async fn head(&self) -> Result<Position, StoreError>;

    /// Returns as soon as an event is there after `after`, written by any process: with the position of the last one. May be dropped.
    async fn changed(&self, after: Position) -> Result<Position, StoreError>;
}

/// The convenient forms, for every [`Store`].
#[async_trait]
pub trait StoreExt: Store {
    /// The document under `key` as `T`, with its revision.
    async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<(Revision, T)>, StoreError> {
        match self.read(key).await? {
            Some(document) => Ok(Some((document.revision, document.decode(key)?))),
            None => Ok(None),
        }
    }

    /// Everything after `after`, for ever: call [`Subscription::next`] again and again.
    fn subscribe(&self, after: Position) -> Subscription<'_, Self> {
        Subscription { store: self, after }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// Follows all streams of a store from a position on.
#[derive(Debug)]
pub struct Subscription<'a, S: Store + ?Sized> {
    store: &'a S,
    after: Position,
}

impl<S: Store + ?Sized> Subscription<'_, S> {
    /// The next events, at least one, in order; waits until there are some. Dropping the future loses nothing.
    ///
    /// # Errors
    /// As [`Store::events`]; the subscription may be used on.
    pub async fn next(&mut self) -> Result<Vec<Recorded>, StoreError> {
        const CHUNK: usize = 1_000;
        loop {
            let events = self.store.events(EventQuery::after(self.after).at_most(CHUNK)).await?;
            if let Some(last) = events.last() {
                self.after = last.position;
                return Ok(events);
            }
            self.store.changed(self.after).await?;
        }
    }

    /// The position of the last event that was handed out.
    pub fn position(&self) -> Position {
        self.after
    }
}
