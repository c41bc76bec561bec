//! For tests of stores: what they are given.

use super::Batch;
use crate::{
    clock::{Clock, ManualClock},
    event::Event,
    id::{EventId, Key, StreamId},
};

pub(super) fn event(id: impl std::fmt::Display) -> Event {
    let id = EventId::new(format!("event/{id}")).unwrap();
    Event::new(id, "step.finished", ManualClock::default().now(), "ann", "run/1")
}

pub(super) fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

pub(super) fn stream() -> StreamId {
    StreamId::new("run/1").unwrap()
}

/// A batch that changes a document and appends an event, both of which say `n`.
pub(super) fn numbered(n: u64) -> Batch {
    Batch::new().put(key("count"), n.into()).append(stream(), event(n))
}
