//! Unleash's client features: how its documents, full and delta, become the model, and its exact results.
//!
//! | Unleash | here |
//! | --- | --- |
//! | context `userId` | the context's key |
//! | other context fields and properties | attributes ([`context`] builds it all from Unleash's own shape) |
//! | `currentTime` | the attribute of that name, else [`Context::at`], else the present |
//! | feature | flag; off is variant 0 and on without a variant is variant 1, both without a name |
//! | strategy | rule, in order; satisfied: on |
//! | variants of a feature or strategy | a split with murmur3 and seed 86028157 |
//! | dependencies | prerequisites, one level only |
//! | segments | segments, by id |
//!
//! Where the client specification decides nothing: an inverted constraint on a missing field holds; one whose operand makes no
//! sense (or whose operator is unknown) never holds, inverted or not; an unknown segment is never met; a parent's rollout without a group
//! hashes with the parent's own name; default stickiness of variants does not look at the remote address; overrides win even if all
//! weights are 0.

mod compile;
mod constraint;
mod document;
mod strategy;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use serde::Serialize;

pub use self::strategy::{CustomParameters, Strategy};
use self::{
    compile::{Compiler, ON},
    document::{Document, Event, Named},
};
use super::{
    Format, FormatError,
    reading::{Raw, Source, told_twice},
};
use crate::{
    context::Context,
    engine::{Changes, Evaluation, Ruleset},
    model::{Fault, FaultCode, Flag, FlagSet, Segment, Warning},
    value::Value,
};

const NAME: &str = "unleash";

/// Reads Unleash's documents. Knows the custom strategies and the name of the host.
#[derive(Debug, Clone, Default)]
pub struct Unleash {
    strategies: BTreeMap<String, Arc<dyn Strategy>>,
    hostname: Option<String>,
}

impl Unleash {
    /// Without custom strategies, on a host without a name.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a custom strategy. Of one name, the last registered counts; the built-in ones can't be replaced.
    #[must_use]
    pub fn with_strategy(mut self, name: impl Into<String>, strategy: impl Strategy + 'static) -> Self {
        self.strategies.insert(name.into(), Arc::new(strategy));
        self
    }

    /// The same on the host of this name, for the strategy `applicationHostname`.
    #[must_use]
    pub fn with_hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// What `ruleset` becomes by a document: a full one replaces it, the events of a delta are applied to it in order, and compile
    /// only what they name.
    ///
    /// # Errors
    /// If the text is no document of Unleash at all; `ruleset` is as it was.
    pub fn update(&self, ruleset: &Ruleset, text: &str) -> Result<Ruleset, FormatError> {
        let state = self.state(text)?;
        if state.replaces {
            return Ok(Ruleset::compile(state.into_set()));
        }
        let mut changes = Changes { warnings: state.warnings, ..Changes::default() };
        for (name, flag) in state.flags {
            match flag {
                Some(flag) => changes.flags.push(flag),
                None => changes.removed_flags.push(name),
            }
        }
        for (id, segment) in state.segments {
            match segment {
                Some(segment) => changes.segments.push(segment),
                None => changes.removed_segments.push(id),
            }
        }
        Ok(ruleset.with(changes))
    }

    fn state(&self, text: &str) -> Result<State, FormatError> {
        let document: Document<'_> =
            serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))?;
        let reader = Reader { front: self, source: Source::new(NAME, text) };
        let mut state = State::default();
        match (document.features, document.events) {
            (_, Some(events)) => {
                for (index, event) in events.into_iter().enumerate() {
                    reader.event(event, index, &mut state);
                }
            }
            (Some(features), None) => {
                reader.replace(features, document.segments.unwrap_or_default(), &mut state);
            }
            (None, None) => return Err(FormatError::new(NAME, "it has neither `features` nor `events`")),
        }
        Ok(state)
    }
}

impl Format for Unleash {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Reads a full document, or a delta as applied to nothing.
    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        Ok(self.state(text)?.into_set())
    }
}

/// A context in Unleash's own shape: `userId`, `sessionId`, `remoteAddress`, `environment`, `appName`, `currentTime` and `properties`.
/// A property that has the name of one of the six counts for the field if that is absent; any other field counts as a property.
pub fn context(unleash: &Value) -> Context {
    const FIELDS: [&str; 6] =
        ["userId", "sessionId", "remoteAddress", "environment", "appName", "currentTime"];
    let entries = |value: Option<&'_ Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut all = entries(unleash.get("properties"));
    for (name, value) in entries(Some(unleash)) {
        if FIELDS.contains(&&*name) || value.as_str().is_some() {
            all.insert(name, value);
        }
    }
    all.into_iter().fold(Context::anonymous(), |context, (name, value)| match &*name {
        "userId" => context.with_key(value),
        _ => context.with(&*name, value),
    })
}

/// What Unleash's `getVariant` says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChosenVariant<'a> {
    /// The variant's name; `disabled` if there is none.
    pub name: &'a str,
    /// The payload as the document has it: `type` and `value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<&'a Value>,
    /// Whether there is a variant.
    pub enabled: bool,
    /// Whether the feature is on.
    pub feature_enabled: bool,
}

impl<'a> ChosenVariant<'a> {
    /// What `evaluation`, of a flag that was read from Unleash, says in Unleash's words.
    pub fn of(evaluation: &Evaluation<'a>) -> Self {
        match (evaluation.index, evaluation.variant) {
            (Some(index), Some(variant)) if index > ON => Self {
                name: &variant.name,
                payload: variant.detail.as_deref(),
                enabled: true,
                feature_enabled: true,
            },
            _ => Self { name: "disabled", payload: None, enabled: false, feature_enabled: evaluation.on },
        }
    }
}

/// What a document comes to: what is put (`Some`) and what is removed (`None`).
#[derive(Debug, Default)]
struct State {
    /// Whether nothing of what was before stays.
    replaces: bool,
    flags: IndexMap<String, Option<Flag>>,
    segments: IndexMap<String, Option<Segment>>,
    warnings: Vec<Warning>,
}

impl State {
    fn put(&mut self, name: String, flag: Option<Flag>, warnings: Vec<Warning>) {
        let stale = |warning: &Warning| warning.flag.as_deref() == Some(name.as_str());
        if self.flags.contains_key(&name) {
            self.warnings.retain(|warning| !stale(warning));
        }
        self.warnings.extend(warnings);
        self.flags.insert(name, flag);
    }

    fn into_set(self) -> FlagSet {
        FlagSet {
            flags: self.flags.into_values().flatten().collect(),
            segments: self.segments.into_values().flatten().collect(),
            warnings: self.warnings,
            ..FlagSet::new(NAME)
        }
    }
}

struct Reader<'a> {
    front: &'a Unleash,
    source: Source<'a>,
}

impl<'a> Reader<'a> {
    fn replace(&self, features: Vec<Raw<'a>>, segments: Vec<Raw<'a>>, state: &mut State) {
        *state = State { replaces: true, ..State::default() };
        state.flags.reserve(features.len());
        for (index, feature) in features.into_iter().enumerate() {
            self.feature(feature, &format!("features/{index}"), true, state);
        }
        for (index, segment) in segments.into_iter().enumerate() {
            self.segment(segment, &format!("segments/{index}"), state);
        }
    }

    fn event(&self, raw: Raw<'a>, index: usize, state: &mut State) {
        let at = format!("events/{index}");
        let event = match self.source.part::<Event<'_>>(raw) {
            Ok(event) => event,
            Err(error) => return state.warnings.push(error.warning(None, &at, "the event is skipped")),
        };
        let mut incomplete = None;
        match event.kind.as_str() {
            "hydration" => {
                self.replace(event.features.unwrap_or_default(), event.segments.unwrap_or_default(), state);
            }
            "feature-updated" => match event.feature {
                Some(feature) => self.feature(feature, &format!("{at}/feature"), false, state),
                None => incomplete = Some("it has no `feature`"),
            },
            "feature-removed" => match event.feature_name {
                Some(name) => state.put(name.0.into_owned(), None, Vec::new()),
                None => incomplete = Some("it has no `featureName`"),
            },
            "segment-updated" => match event.segment {
                Some(segment) => self.segment(segment, &format!("{at}/segment"), state),
                None => incomplete = Some("it has no `segment`"),
            },
            "segment-removed" => match event.segment_id {
                Some(id) => drop(state.segments.insert(id.0.into_owned(), None)),
                None => incomplete = Some("it has no `segmentId`"),
            },
            _ => incomplete = Some("its type is unknown"),
        }
        if let Some(problem) = incomplete {
            let message = format!("{problem}; the event is skipped");
            let place = self.source.place(raw, 0);
            state.warnings.push(Warning { place, ..Warning::general(at, message) });
        }
    }

    /// Reads a feature. Within one `list` a name stands once; an event replaces what was there.
    fn feature(&self, raw: Raw<'a>, at: &str, list: bool, state: &mut State) {
        let mut warnings = Vec::new();
        match self.source.part::<document::Feature<'_>>(raw) {
            Ok(feature) => {
                let name = feature.name.as_str().to_owned();
                if list && state.flags.contains_key(&name) {
                    warnings.push(told_twice(&name, true, ""));
                }
                let mut compiler =
                    Compiler { front: self.front, flag: &name, warnings: &mut warnings, segment: false };
                let flag = compiler.feature(feature);
                state.put(name, Some(flag), warnings);
            }
            Err(error) => match serde_json::from_str::<Named<'_>>(raw.get()) {
                Ok(Named { name }) => {
                    let fault = Fault::new(FaultCode::ParseError, error.problem.as_str());
                    let warning = error.warning(Some(name.as_str()), at, "the feature is off");
                    let flag = Flag::faulty(name.as_str(), fault);
                    state.put(name.0.into_owned(), Some(flag), vec![warning]);
                }
                Err(_) => state.warnings.push(error.warning(None, at, "the feature is skipped")),
            },
        }
    }

    fn segment(&self, raw: Raw<'a>, at: &str, state: &mut State) {
        match self.source.part::<document::Segment<'_>>(raw) {
            Ok(segment) => {
                let id = segment.id.as_str().to_owned();
                let warnings = &mut state.warnings;
                let mut compiler = Compiler { front: self.front, flag: &id, warnings, segment: true };
                let segment = compiler.segment(segment);
                state.segments.insert(id, Some(segment));
            }
            Err(error) => {
                state.warnings.push(error.warning(None, at, "the segment is skipped, as if it were unknown"));
            }
        }
    }
}
