//! Where state lives: documents that change and streams of events that only grow, written together or not at all.
//!
//! [`Store`] is the contract; [`MemoryStore`] keeps everything in the process, `SqliteStore` (feature `sqlite`) in a file that several
//! processes use at once. Both pass `testkit::store`.

#[cfg(feature = "sqlite")]
mod export;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
mod waiters;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{Snapshot, SqliteOptions, SqliteStore};

use std::fmt::{self, Debug};

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    error::{BoxError, ErrorKind, Kinded, Retry},
    event::{Event, Recorded},
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

/// How long a write must live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It survives the death of the process (SIGKILL).
    #[default]
    Written,
    /// It survives the loss of power. Waits for the disk.
    Synced,
}

/// Some writes that happen together or not at all.
///
/// Consuming a permit, taking a lease and recording both is one batch. Fences, then expectations are checked in the same instant in
/// which the writes happen; the first that fails is reported and nothing is written.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    /// Documents that must have exactly this revision ([`Revision::ABSENT`]: must not be there).
    pub expect: Vec<(Key, Revision)>,
    /// Documents to write, or to remove (`None`). A key may stand here once.
    pub put: Vec<(Key, Option<Value>)>,
    /// Events to append. One whose id is already in the store is left out, silently.
    pub append: Vec<(StreamId, Event)>,
    /// Leases that must be held, with exactly this token.
    pub fence: Vec<Fence>,
    /// How long it must live.
    pub durability: Durability,
}

/// A demand that a lease is still held: its document exists and carries this token.
///
/// A lease that ran out but was not taken by anybody else still passes: nobody else acted meanwhile, which is all that a fence is for
/// (Kleppmann, "How to do distributed locking", 2016).
///
/// A lease's document is an object with its token in the field [`TOKEN`](Self::TOKEN); [`lease`](crate::lease) writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The lease's document.
    pub lease: Key,
    /// The token that it must carry.
    pub token: u64,
}

impl Fence {
    /// The field of a lease's document that holds its token.
    pub const TOKEN: &'static str = "token";

    /// The token in a lease's document, if it has one.
    pub fn token_in(lease: &Value) -> Option<u64> {
        lease.get(Self::TOKEN).and_then(Value::as_u64)
    }
}

impl Batch {
    /// An empty batch, `Written`.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` has `revision`.
    pub fn expect(mut self, key: Key, revision: Revision) -> Self {
        self.expect.push((key, revision));
        self
    }

    /// Writes `value` under `key`.
    pub fn put(mut self, key: Key, value: Value) -> Self {
        self.put.push((key, Some(value)));
        self
    }

    /// Writes `value` under `key`, as JSON.
    ///
    /// # Errors
    /// [`StoreError::Batch`] if JSON cannot express it (a map whose keys are not texts).
    pub fn put_as<T: Serialize + ?Sized>(self, key: Key, value: &T) -> Result<Self, StoreError> {
        match serde_json::to_value(value) {
            Ok(value) => Ok(self.put(key, value)),
            Err(error) => Err(StoreError::Batch(format!("JSON cannot express document `{key}`: {error}"))),
        }
    }

    /// Removes `key`; removing what is not there is fine.
    pub fn remove(mut self, key: Key) -> Self {
        self.put.push((key, None));
        self
    }

    /// Appends `event` to `stream`.
    pub fn append(mut self, stream: StreamId, event: Event) -> Self {
        self.append.push((stream, event));
        self
    }

    /// Demands that a lease is held.
    pub fn fenced(mut self, fence: Fence) -> Self {
        self.fence.push(fence);
        self
    }

    /// Asks for `durability`.
    pub fn durably(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Both batches as one: all demands of both, all writes of both in order, as durable as the stronger one.
    ///
    /// If both put the same document, the commit is refused.
    pub fn and(mut self, other: Self) -> Self {
        self.expect.extend(other.expect);
        self.put.extend(other.put);
        self.append.extend(other.append);
        self.fence.extend(other.fence);
        self.durability = self.durability.max(other.durability);
        self
    }

    /// For implementers of [`Store`]: whether this batch may be written, given what is there.
    ///
    /// Call it in the transaction that writes. `revision` says a document's present revision ([`Revision::ABSENT`] if it is not there),
    /// `token` the present token of a lease's document ([`Fence::token_in`]).
    ///
    /// # Errors
    /// [`StoreError::Batch`] for a key that is put twice, [`StoreError::Fenced`], [`StoreError::Conflict`], and what the two functions
    /// answer, in this order.
    pub fn check(
        &self,
        mut revision: impl FnMut(&Key) -> Result<Revision, StoreError>,
        mut token: impl FnMut(&Key) -> Result<Option<u64>, StoreError>,
    ) -> Result<(), StoreError> {
        for (index, (key, _)) in self.put.iter().enumerate() {
            if self.put.iter().take(index).any(|(earlier, _)| earlier == key) {
                return Err(StoreError::Batch(format!("document `{key}` is put twice; put it once")));
            }
        }
        for fence in &self.fence {
            let found = token(&fence.lease)?;
            if found != Some(fence.token) {
                return Err(StoreError::Fenced { lease: fence.lease.clone(), token: fence.token, found });
            }
        }
        for (key, expected) in &self.expect {
            let found = revision(key)?;
            if found != *expected {
                return Err(StoreError::Conflict { key: key.clone(), expected: *expected, found });
            }
        }
        Ok(())
    }
}

/// What a commit did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The position of the store's last event after the commit.
    pub position: Position,
    /// How many of the batch's events were new.
    pub appended: usize,
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

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A document does not have the expected revision; read it again and decide anew.
    #[error("document `{key}` is at revision {} where {} was expected; read it again and decide anew", .found.0, .expected.0)]
    Conflict {
        /// The document.
        key: Key,
        /// What the batch expected.
        expected: Revision,
        /// What is there.
        found: Revision,
    },
    /// A lease is not held any more; stop what it protects.
    #[error("lease `{lease}` is not held with token {token} any more{}; stop what it protects", held_by(.found.as_ref()))]
    Fenced {
        /// The lease's document.
        lease: Key,
        /// The token that the batch demanded.
        token: u64,
        /// The token that is there now, if any.
        found: Option<u64>,
    },
    /// The batch contradicts itself.
    #[error("the batch cannot be committed: {0}")]
    Batch(String),
    /// A document has another shape than the reader expects.
    #[error("document `{key}` has another shape than expected; was it written by a newer version?")]
    Content {
        /// The document.
        key: Key,
        /// What does not fit.
        source: BoxError,
    },
    /// Another process holds the store for longer than the limit.
    #[error("the store at {place} is busy; another process has held it too long, try again")]
    Busy {
        /// Where the store is.
        place: String,
        /// The backend's error.
        source: BoxError,
    },
    /// The store can't be reached or written: a full or read-only disk, missing permissions.
    #[error("cannot {doing} the store at {place}: {help}")]
    Unavailable {
        /// What was being done: `open`, `write`.
        doing: &'static str,
        /// Where the store is.
        place: String,
        /// What to do about it.
        help: String,
        /// The backend's error.
        source: BoxError,
    },
    /// Stored data is damaged.
    #[error("the store at {place} is damaged: {help}")]
    Corrupt {
        /// Where the store is.
        place: String,
        /// How to recover.
        help: String,
        /// The backend's error.
        source: BoxError,
    },
    /// Anything else that the backend says.
    #[error("the store at {place} failed to {doing}")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// Where the store is.
        place: String,
        /// The backend's error.
        source: BoxError,
    },
}

impl Kinded for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Fenced { .. } => ErrorKind::Denied,
            Self::Batch(_) | Self::Content { .. } => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Backend { .. } => ErrorKind::Other,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Conflict { .. } => Retry::Refreshed,
            Self::Busy { .. } | Self::Unavailable { .. } => Retry::Later,
            Self::Fenced { .. }
            | Self::Batch(_)
            | Self::Content { .. }
            | Self::Corrupt { .. }
            | Self::Backend { .. } => Retry::Never,
        }
    }
}

fn held_by(found: Option<&u64>) -> String {
    found.map_or_else(String::new, |token| format!(" (it carries {token} now)"))
}
