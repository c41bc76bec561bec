//! Reading a document in which something makes no sense: each flag by itself, so that a bad one harms no other. A sound document never comes here.

use std::collections::BTreeMap;

use flowline_core::{diagnostic::Place, id::ScopeId};
use serde::{Deserialize, Deserializer};

use super::{
    Definition, Effective, FlagKey, Segment, State, broken, compile, compile::UNTIL_MENDED, document::Sink,
    is_killed,
};
use crate::{
    format::{
        FormatError,
        reading::{Pairs, Source, Unreadable},
    },
    model::{self, Condition, Fault, FaultCode, Truth},
    value::Name,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts<'a> {
    #[serde(rename = "$schema", default)]
    _schema: Option<String>,
    #[serde(borrow, default, deserialize_with = "there")]
    segments: Option<Pairs<'a>>,
    #[serde(borrow, default, deserialize_with = "there")]
    flags: Option<Pairs<'a>>,
}

fn there<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pairs<'a>>, D::Error> {
    Pairs::deserialize(deserializer).map(Some)
}

pub(super) fn json(line: &[&ScopeId], text: &str, sink: &mut dyn Sink) -> Result<(), FormatError> {
    let parts: Parts<'_> =
        serde_json::from_str(text).map_err(|error| FormatError::json("flowline", error))?;
    let source = Source::new("flowline", text);
    let mut reader = Reader { line, sink, seen: BTreeMap::new() };
    for (name, raw) in parts.segments.into_iter().flat_map(|pairs| pairs.0) {
        let read = source.part::<Segment>(raw);
        reader.segment(&name, read, || source.place(raw, 0));
    }
    reader.seen.clear();
    for (key, raw) in parts.flags.into_iter().flat_map(|pairs| pairs.0) {
        let read = source.part::<Definition>(raw);
        let value = || serde_json::from_str(raw.get()).unwrap_or_default();
        reader.flag(&key, read, value, || source.place(raw, 0));
    }
    Ok(())
}

/// The same of a file; `None` if it makes no sense as a whole.
#[cfg(feature = "config")]
pub(super) fn file(line: &[&ScopeId], file: &flowline_core::config::Document) -> Option<model::FlagSet> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Loose {
        #[serde(rename = "$schema", default)]
        _schema: Option<String>,
        #[serde(default)]
        segments: indexmap::IndexMap<String, serde_json::Value>,
        #[serde(default)]
        flags: indexmap::IndexMap<String, serde_json::Value>,
    }
    let loose: Loose = file.read().ok()?;
    let mut set = model::FlagSet { refuse_cycles: true, ..model::FlagSet::new("flowline") };
    let mut reader = Reader { line, sink: &mut set, seen: BTreeMap::new() };
    for (name, value) in &loose.segments {
        let place = || file.place_of(&["segments", name.as_str()]);
        reader.segment(name, read(value, place), place);
    }
    reader.seen.clear();
    for (key, value) in &loose.flags {
        let place = || file.place_of(&["flags", key.as_str()]);
        reader.flag(key, read(value, place), || value.clone(), place);
    }
    Some(set)
}

#[cfg(feature = "config")]
fn read<T: for<'de> Deserialize<'de>>(
    value: &serde_json::Value,
    place: impl Fn() -> Option<Place>,
) -> Result<T, Unreadable> {
    T::deserialize(value).map_err(|error| Unreadable { problem: error.to_string(), place: place() })
}

struct Reader<'r> {
    line: &'r [&'r ScopeId],
    sink: &'r mut dyn Sink,
    /// The names so far, and whether any of that name is killed.
    seen: BTreeMap<String, bool>,
}

impl Reader<'_> {
    fn segment(&mut self, name: &str, read: Result<Segment, Unreadable>, place: impl Fn() -> Option<Place>) {
        let twice = self.seen.insert(name.to_owned(), false).is_some();
        let unreadable = match read {
            Ok(segment) if !twice => return self.sink.segment(segment.compile(name)),
            Ok(_) => Unreadable { problem: twice_told(name), place: place() },
            Err(unreadable) => unreadable,
        };
        let meaning = "a flag that asks for it is an error until that is mended";
        let warning = unreadable.warning(None, &format!("segments/{name}"), meaning);
        self.sink.warnings().push(warning);
        let condition = Condition::Constant(Truth::Broken);
        self.sink.segment(model::Segment { name: Name::new(name), condition });
    }

    fn flag(
        &mut self,
        key: &str,
        read: Result<Definition, Unreadable>,
        value: impl Fn() -> serde_json::Value,
        place: impl Fn() -> Option<Place>,
    ) {
        let killed = self.is_killed(&value());
        let before = self.seen.get(key).copied();
        self.seen.insert(key.to_owned(), killed || before == Some(true));
        let unreadable = match (FlagKey::new(key), before, read) {
            (Ok(_), None, Ok(definition)) => {
                let state = Effective::declared(&definition, self.line);
                let flag = compile(key, &definition, &state, self.sink.warnings());
                return self.sink.flag(flag);
            }
            (Err(error), ..) => Unreadable { problem: error.to_string(), place: place() },
            (_, Some(_), _) => Unreadable { problem: twice_told(key), place: place() },
            (_, _, Err(unreadable)) => unreadable,
        };
        let meaning = UNTIL_MENDED.trim_start_matches("; ");
        let fault = Fault::new(FaultCode::ParseError, unreadable.problem.as_str());
        self.sink.warnings().push(unreadable.warning(Some(key), "", meaning));
        let killed = killed || before == Some(true);
        let state = Effective::of([&State { on: Some(true), killed, ..State::default() }]);
        let boolean = Definition::default();
        let untyped = value().get("variants").is_none();
        self.sink.flag(broken(key, untyped.then_some(&boolean), &state, fault));
    }

    /// Whether a flag that perhaps can't be read is killed where this is read for.
    fn is_killed(&self, value: &serde_json::Value) -> bool {
        let scopes = self.line.iter().filter_map(|scope| value.get("scopes")?.get(scope.as_str()));
        value.get("state").into_iter().chain(scopes).any(is_killed)
    }
}

fn twice_told(name: &str) -> String {
    format!("duplicate entry `{}`", name.escape_debug())
}
