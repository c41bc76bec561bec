//! Unleash's delta API: what changed since, put together to whole documents again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{FlagSource, HttpSource, Loaded, SourceError, Tag};

/// The features of an Unleash server through its delta API: only what changed comes over the wire, whole documents come out.
///
/// A first answer, and one after any trouble, is asked for without a tag, so that the server sends everything. What can't be applied whole is not
/// applied at all.
#[derive(Debug)]
pub struct UnleashDelta {
    http: HttpSource,
    held: Mutex<Option<Held>>,
}

/// What the server's events came to so far.
#[derive(Debug, Clone, Default)]
struct Held {
    /// The server's tag for just this state; without one, nothing can be added to it.
    tag: Option<Tag>,
    features: BTreeMap<String, Arc<RawValue>>,
    segments: BTreeMap<String, Arc<RawValue>>,
}

#[derive(Deserialize)]
struct Delta {
    events: Vec<Event>,
}

/// An event; which fields are there depends on its type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    features: Vec<Arc<RawValue>>,
    #[serde(default)]
    segments: Vec<Arc<RawValue>>,
    feature: Option<Arc<RawValue>>,
    feature_name: Option<String>,
    segment: Option<Arc<RawValue>>,
    segment_id: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct Numbered {
    id: serde_json::Value,
}

impl UnleashDelta {
    /// The events behind `http`, a source of `…/client/delta`: see [`UnleashClient::delta`](super::UnleashClient::delta).
    pub(super) fn new(http: HttpSource) -> Self {
        Self { http, held: Mutex::default() }
    }

    /// The same for answers of at most `bytes`; by default 16 MiB.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.http = self.http.at_most(bytes);
        self
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// What `event` makes of it; what is wrong with the event otherwise.
    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event.kind.as_str() {
            "hydration" => {
                (self.features, self.segments) = (BTreeMap::new(), BTreeMap::new());
                for feature in event.features {
                    self.features.insert(name(&feature)?, feature);
                }
                for segment in event.segments {
                    self.segments.insert(id(&segment)?, segment);
                }
            }
            "feature-updated" => {
                let feature = event.feature.ok_or("an updated feature is missing")?;
                self.features.insert(name(&feature)?, feature);
            }
            "feature-removed" => {
                self.features.remove(&event.feature_name.ok_or("a removed feature has no name")?);
            }
            "segment-updated" => {
                let segment = event.segment.ok_or("an updated segment is missing")?;
                self.segments.insert(id(&segment)?, segment);
            }
            "segment-removed" => {
                self.segments.remove(&event.segment_id.ok_or("a removed segment has no id")?.to_string());
            }
            // What a newer server tells besides.
            _ => {}
        }
        Ok(())
    }

    fn document(&self) -> String {
        let list = |values: &BTreeMap<String, Arc<RawValue>>| {
            values.values().map(|value| value.get()).collect::<Vec<_>>().join(",")
        };
        let (features, segments) = (list(&self.features), list(&self.segments));
        format!("{{\"version\":2,\"features\":[{features}],\"segments\":[{segments}]}}")
    }
}

fn name(feature: &RawValue) -> Result<String, String> {
    let named = serde_json::from_str::<Named>(feature.get());
    named.map(|it| it.name).map_err(|error| format!("a feature has no name: {error}"))
}

fn id(segment: &RawValue) -> Result<String, String> {
    let numbered = serde_json::from_str::<Numbered>(segment.get());
    numbered.map(|it| it.id.to_string()).map_err(|error| format!("a segment has no id: {error}"))
}

#[async_trait]
impl FlagSource for UnleashDelta {
    fn place(&self) -> String {
        self.http.place()
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        // Whoever holds another document than this source put together last gets everything anew. Taken out: whatever goes wrong, the next load begins anew.
        let held = self.held().take().filter(|held| known.is_some() && held.tag.as_ref() == known);
        let (text, tag) = match self.http.load(held.as_ref().and_then(|held| held.tag.as_ref())).await? {
            Loaded::Same => {
                *self.held() = held;
                return Ok(Loaded::Same);
            }
            Loaded::New { text, tag } => (text, tag),
        };
        let unusable =
            |problem: String, source| SourceError::Unusable { place: self.place(), problem, source };
        let delta: Delta =
            serde_json::from_str(&text).map_err(|error| unusable(error.to_string(), Some(error.into())))?;
        let mut next = match held {
            Some(held) => held,
            None if delta.events.iter().any(|event| event.kind == "hydration") => Held::default(),
            None => return Err(unusable("the events begin in the middle".to_owned(), None)),
        };
        for event in delta.events {
            next.apply(event).map_err(|problem| unusable(problem, None))?;
        }
        next.tag.clone_from(&tag);
        let text = next.document();
        *self.held() = Some(next);
        Ok(Loaded::New { text, tag })
    }
}
