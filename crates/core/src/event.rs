//! Facts: the envelope in which everything that happened is kept.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    id::{EventId, StreamId},
    store::Position,
};

/// One fact. Written before anybody acts on it, never changed.
///
/// Fields that this version of flowline does not know survive reading and writing (`extra`), and so does a `kind` that it does not
/// know: old programs pass new facts on unharmed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Unique over the whole store; appending the same id again changes nothing.
    pub id: EventId,
    /// What happened, in the past tense: `environment.created`, `service.deployed`. CDEvents' word where it has one.
    pub kind: String,
    /// The version of `data`'s shape, from 1.
    pub version: u16,
    /// When it happened, by the writer's clock.
    pub time: Timestamp,
    /// Who or what made it happen: a person's handle, `flowline`, a CI job.
    pub actor: String,
    /// What it happened to: `environment/pr-123`.
    pub subject: String,
    /// The event that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<EventId>,
    /// What else is known, in the shape that `kind` and `version` say.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub data: Value,
    /// Fields of the envelope that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Event {
    /// A fact of version 1 without cause or data.
    pub fn new(
        id: EventId,
        kind: impl Into<String>,
        time: Timestamp,
        actor: impl Into<String>,
        subject: impl Into<String>,
    ) -> Self {
        Self {
            id,
            kind: kind.into(),
            version: 1,
            time,
            actor: actor.into(),
            subject: subject.into(),
            cause: None,
            data: Value::Null,
            extra: Map::new(),
        }
    }

    /// The same with `data`.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }

    /// The same with the event that led to it.
    #[must_use]
    pub fn caused_by(mut self, cause: EventId) -> Self {
        self.cause = Some(cause);
        self
    }
}

/// An event where it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its place among all events of the store.
    pub position: Position,
    /// The stream that it was appended to.
    pub stream: StreamId,
    /// Its number within that stream, from 1.
    pub sequence: u64,
    /// The event.
    pub event: Event,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_survives() {
        let text = r#"{"id":"e1","kind":"moon.landed","version":7,"time":"2026-01-01T00:00:00Z","actor":"a","subject":"s","data":{"x":1},"weather":"fine"}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        let again: Value = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }
}
