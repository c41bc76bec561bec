//! What is written together or not at all, and what must hold for it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Position, Revision, StoreError};
use crate::{
    event::Event,
    id::{Key, StreamId},
};

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

    /// For implementers of [`Store`](super::Store): whether this batch may be written, given what is there.
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
