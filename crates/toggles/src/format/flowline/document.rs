//! Documents of our own flags, and what they are in one scope.

use std::{fmt, marker::PhantomData};

use flowline_core::id::ScopeId;
use hashbrown::{HashTable, hash_table::Entry};
use indexmap::IndexMap;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, MapAccess, Visitor},
};

use super::{Clause, Definition, Effective, FlagKey, compile, compile::consume, lenient};
use crate::{
    engine::{Ruleset, RulesetBuilder, key_hash},
    format::{Format, FormatError, reading::Text},
    model::{self, Condition, FlagSet, Operator, Subject, Test, Warning},
    value::Name,
};

/// A document: flags and segments by name, in TOML, YAML or JSON.
///
/// ```toml
/// [segments.beta]
/// members = ["user-1", "user-2"]
///
/// [flags.checkout]
/// owner = "ada"
/// audience = [{ attribute = "country", in = ["NO", "SE"] }]
/// rules = [{ id = "testers", when = [{ segment = "beta" }] }]
/// state = { on = true, rollout = 10 }
/// scopes.preview = { rollout = 100 }
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Document {
    /// Where the document's JSON Schema is, for editors. Nothing else reads it.
    #[serde(rename = "$schema", skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Groups that clauses ask for.
    #[serde(deserialize_with = "unique", skip_serializing_if = "IndexMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "std::collections::BTreeMap<String, Segment>"))]
    pub segments: IndexMap<String, Segment>,
    /// The flags.
    #[serde(deserialize_with = "unique")]
    #[cfg_attr(feature = "schema", schemars(with = "std::collections::BTreeMap<FlagKey, Definition>"))]
    pub flags: IndexMap<FlagKey, Definition>,
}

/// Entries by name; one that stands twice is refused.
fn unique<'de, D, K, V>(deserializer: D) -> Result<IndexMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + std::hash::Hash + Eq + fmt::Display,
    V: Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);
    impl<'de, K, V> Visitor<'de> for Unique<K, V>
    where
        K: Deserialize<'de> + std::hash::Hash + Eq + fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = IndexMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of entries by name")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = IndexMap::with_capacity(map.size_hint().unwrap_or(0).min(4_096));
            while let Some(key) = map.next_key::<K>()? {
                if entries.contains_key(&key) {
                    return Err(A::Error::custom(twice(&key)));
                }
                entries.insert(key, map.next_value()?);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Unique(PhantomData))
}

fn twice(key: &impl fmt::Display) -> String {
    format!("duplicate entry `{}`", key.to_string().escape_debug())
}

/// A group of contexts: those whose targeting key is listed, and those for whom all clauses hold.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Segment {
    /// Targeting keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
    pub members: Vec<Name>,
    /// All of these hold; none at all: only the members are in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Clause>,
}

impl Document {
    /// Reads JSON.
    ///
    /// # Errors
    /// What does not fit, with line and column.
    pub fn from_json(text: &str) -> Result<Self, FormatError> {
        serde_json::from_str(text).map_err(|error| FormatError::json("flowline", error))
    }

    /// The flags as they are in a scope, by what the document declares: `line` is the scope and its bases, nearest first; empty:
    /// wherever nothing is said for a scope.
    pub fn flag_set(&self, line: &[&ScopeId]) -> FlagSet {
        let mut set = FlagSet { refuse_cycles: true, ..FlagSet::new("flowline") };
        set.flags.reserve(self.flags.len());
        for (key, definition) in &self.flags {
            let state = Effective::declared(definition, line);
            set.flags.push(compile(key.as_str(), definition, &state, &mut set.warnings));
        }
        set.segments = self.segments.iter().map(|(name, one)| one.clone().compile(name)).collect();
        set
    }
}

#[cfg(feature = "config")]
impl Document {
    /// Reads a file (`.toml`, `.json`, or with the feature `yaml` `.yaml`), and checks what can be checked of it by itself: everything that
    /// would be a warning is an error here, with its place.
    ///
    /// ```
    /// use flowline_core::config;
    /// use flowline_toggles::format::flowline::Document;
    /// let text = config::Document::new("flags.toml", "[flags.checkout]\nserve = \"blue\"\n");
    /// assert_eq!(
    ///     Document::checked(&text).unwrap_err().to_string().lines().next(),
    ///     Some("flags.toml:2:1: there is no variant `blue`; there are `off`, `on` [toggles.flag]"),
    /// );
    /// ```
    ///
    /// # Errors
    /// If it can't be read, or anything in it makes no sense.
    pub fn checked(
        file: &flowline_core::config::Document,
    ) -> Result<Self, flowline_core::config::ConfigError> {
        let document: Self = file.read()?;
        let warnings = Ruleset::compile(document.flag_set(&[])).warnings().to_vec();
        if warnings.is_empty() {
            return Ok(document);
        }
        let problems = warnings.into_iter().map(|warning| {
            let mut keys: Vec<&str> = warning.flag.iter().flat_map(|flag| ["flags", flag.as_str()]).collect();
            keys.extend(warning.at.split('/').filter(|key| !key.is_empty()));
            let message = warning.message.strip_suffix(compile::UNTIL_MENDED).unwrap_or(&warning.message);
            flowline_core::diagnostic::Diagnostic {
                code: "toggles.flag",
                message: message.to_owned(),
                place: file.place_of(&keys),
                help: None,
            }
        });
        Err(flowline_core::config::ConfigError::invalid(problems.collect()))
    }
}

impl Segment {
    pub(crate) fn compile(self, name: &str) -> model::Segment {
        let mut any: Vec<Condition> = Vec::with_capacity(2);
        if !self.members.is_empty() {
            any.push(Test::new(Subject::Key, Operator::OneOf(self.members)).into());
        }
        if !self.when.is_empty() {
            any.push(Condition::All(self.when.into_iter().map(Clause::into_condition).collect()));
        }
        model::Segment { name: Name::new(name), condition: Condition::Any(any) }
    }
}

/// Reads documents of our own flags, for one scope. What can't be read in a well-formed text harms one flag.
#[derive(Debug, Clone, Default)]
pub struct Flowline {
    /// The scope and its bases, nearest first.
    pub line: Vec<ScopeId>,
}

impl Flowline {
    /// Reads JSON straight into a ruleset: each flag is compiled as it is read, and nothing else of it is kept. A flag that can't be read
    /// is an error by itself, with a warning that says where; so is one that stands twice.
    ///
    /// # Errors
    /// If the document as a whole can't be read, with line and column.
    pub fn ruleset(&self, json: &str) -> Result<Ruleset, FormatError> {
        let mut builder = Ruleset::builder(self.name());
        builder.expect_bytes(json.len());
        if self.stream(json, &mut builder).is_err() {
            builder = Ruleset::builder(self.name());
            lenient::json(&self.line(), json, &mut builder)?;
        }
        builder.refuse_cycles();
        Ok(builder.build())
    }

    /// Reads a file (`.toml`, `.json`, or with the feature `yaml` `.yaml`) as a program does that runs by it: a flag that can't be read is
    /// an error by itself, with a warning that says where. [`Document::checked`] is for who writes the file.
    ///
    /// # Errors
    /// If it can't be read as a whole.
    #[cfg(feature = "config")]
    pub fn read_file(
        &self,
        file: &flowline_core::config::Document,
    ) -> Result<FlagSet, flowline_core::config::ConfigError> {
        match file.read::<Document>() {
            Ok(document) => Ok(document.flag_set(&self.line())),
            Err(error) => lenient::file(&self.line(), file).ok_or(error),
        }
    }

    fn line(&self) -> Vec<&ScopeId> {
        self.line.iter().collect()
    }

    fn stream(&self, json: &str, sink: &mut dyn Sink) -> Result<(), serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let streaming = Streaming { line: &self.line(), sink };
        streaming.deserialize(&mut reader).and_then(|()| reader.end())
    }
}

impl Format for Flowline {
    fn name(&self) -> &'static str {
        "flowline"
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let empty = || FlagSet { refuse_cycles: true, ..FlagSet::new(self.name()) };
        let mut set = empty();
        if self.stream(text, &mut set).is_err() {
            set = empty();
            lenient::json(&self.line(), text, &mut set)?;
        }
        Ok(set)
    }

    /// What ends in `.toml`, `.yaml` or `.yml` is read as such (features `config` and `yaml`; without them it is an error), anything else
    /// as JSON. With the feature `config` the errors of files by these names begin with file, line and column.
    fn read_from(&self, place: &str, text: &str) -> Result<FlagSet, FormatError> {
        let extension = std::path::Path::new(place).extension().and_then(|extension| extension.to_str());
        match extension {
            Some("toml" | "yaml" | "yml") => self.read_named(place, text),
            // A second time, for the place in the error.
            Some("json") if cfg!(feature = "config") => {
                self.read(text).or_else(|_| self.read_named(place, text))
            }
            _ => self.read(text),
        }
    }
}

impl Flowline {
    #[cfg(feature = "config")]
    fn read_named(&self, place: &str, text: &str) -> Result<FlagSet, FormatError> {
        let file = flowline_core::config::Document::new(place, text);
        self.read_file(&file).map_err(|error| {
            let problem = error.to_string();
            FormatError { source: Some(error.into()), ..FormatError::new(self.name(), problem) }
        })
    }

    #[cfg(not(feature = "config"))]
    fn read_named(&self, place: &str, _text: &str) -> Result<FlagSet, FormatError> {
        let problem = format!("{place} is no JSON; build with the feature `config` (TOML) or `yaml`");
        Err(FormatError::new(self.name(), problem))
    }
}

/// Where flags go while a document is read.
pub(super) trait Sink {
    fn flag(&mut self, flag: model::Flag);
    fn segment(&mut self, segment: model::Segment);
    fn warnings(&mut self) -> &mut Vec<Warning>;
}

impl Sink for RulesetBuilder {
    fn flag(&mut self, flag: model::Flag) {
        Self::flag(self, flag);
    }

    fn segment(&mut self, segment: model::Segment) {
        Self::segment(self, segment);
    }

    fn warnings(&mut self) -> &mut Vec<Warning> {
        &mut self.warnings
    }
}

impl Sink for FlagSet {
    fn flag(&mut self, flag: model::Flag) {
        self.flags.push(flag);
    }

    fn segment(&mut self, segment: model::Segment) {
        self.segments.push(segment);
    }

    fn warnings(&mut self) -> &mut Vec<Warning> {
        &mut self.warnings
    }
}

/// Compiles a document while it is read.
struct Streaming<'s> {
    line: &'s [&'s ScopeId],
    sink: &'s mut dyn Sink,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Part {
    #[serde(rename = "$schema")]
    Schema,
    Segments,
    Flags,
}

impl<'de> DeserializeSeed<'de> for Streaming<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Streaming<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document with `flags` and `segments`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut flags, mut segments, mut schema) = (false, false, false);
        while let Some(part) = map.next_key::<Part>()? {
            let (seen, name) = match part {
                Part::Segments => (&mut segments, "segments"),
                Part::Flags => (&mut flags, "flags"),
                Part::Schema => (&mut schema, "$schema"),
            };
            if std::mem::replace(seen, true) {
                return Err(A::Error::duplicate_field(name));
            }
            match part {
                Part::Schema => drop(map.next_value::<Option<String>>()?),
                Part::Segments => {
                    for (name, segment) in map.next_value_seed(Segments)? {
                        self.sink.segment(segment.compile(&name));
                    }
                }
                Part::Flags => map.next_value_seed(Flags { line: self.line, sink: self.sink })?,
            }
        }
        Ok(())
    }
}

struct Segments;

impl<'de> DeserializeSeed<'de> for Segments {
    type Value = IndexMap<String, Segment>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        unique(deserializer)
    }
}

struct Flags<'s> {
    line: &'s [&'s ScopeId],
    sink: &'s mut dyn Sink,
}

impl<'de> DeserializeSeed<'de> for Flags<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Flags<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("flags by key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        // Hashes alone: of two keys with one hash, whoever reads flag by flag sees whether they are the same.
        let mut seen: HashTable<u64> = HashTable::new();
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            let hash = key_hash(&key);
            match seen.entry(hash, |have| *have == hash, |have| *have) {
                Entry::Vacant(place) if FlagKey::is_valid(&key) => drop(place.insert(hash)),
                Entry::Vacant(_) => return Err(A::Error::custom("not a flag's key")),
                Entry::Occupied(_) => return Err(A::Error::custom(twice(&key))),
            }
            let definition: Definition = map.next_value()?;
            let state = Effective::declared(&definition, self.line);
            let flag = consume(&key, definition, &state, self.sink.warnings());
            self.sink.flag(flag);
        }
        Ok(())
    }
}
