//! UFC, the universal flag configuration: how its documents become the model in both readings, Eppo's and Datadog's, and their exact results.
//!
//! | UFC | here |
//! | --- | --- |
//! | subject key | the context's key; also the attribute `id`, if there is none |
//! | variation | variant, by the key of the map |
//! | allocation | rule, in order, with its key as id |
//! | splits | a split with MD5; shards that all splits share are looked at once |
//! | `startAt`, `endAt` | a condition; both ends belong to the time span |
//! | `doLog`, `extraLogging` | told by [`Resolution::logging`] |
//!
//! The readings differ in what a flag that makes no sense means: at Eppo ([`Reading::Eppo`]) a condition that can't be read is false, and a
//! variation that can't be served is an error for whoever is assigned to it; at Datadog ([`Reading::Datadog`]) the flag is dropped, and
//! everybody gets the default. Datadog also asks for a subject key where a shard needs one.
//!
//! Where the cases decide nothing: versions follow the order of Semantic Versioning, without build metadata; texts that look like
//! numbers compare as numbers; `3.0` is an integer; an invalid pattern is false in both readings; a shard that everybody is in asks for no key; a
//! flag that can't be read as a whole is an error at Eppo (`ASSIGNMENT_ERROR`).

mod bandit;
mod compile;
mod condition;
mod details;
mod document;
mod split;
#[cfg(test)]
mod tests;

pub use self::bandit::{Action, Attributes, Bandits};
use self::compile::{Compiler, Refused};
pub use self::details::{Allocation, AllocationCode, Details, EvaluationCode, Logging, Resolution};
use super::{Format, FormatError, reading::Source};
use crate::{
    context::Context,
    model::{FlagSet, ValueType, Warning},
    value::{Entries, Value},
};

const NAME: &str = "ufc";

/// The fact under which a set keeps what is to be logged, where that is not the usual.
const LOGGING: &str = "ufc.logging";

/// Whose reading of UFC counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Eppo's.
    Eppo,
    /// Datadog's (FFE).
    Datadog,
}

impl Reading {
    /// Its name, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eppo => "eppo",
            Self::Datadog => "datadog",
        }
    }
}

/// Reads UFC documents.
///
/// ```
/// use flowline_toggles::{
///     context::Context,
///     engine::{Fixed, Ruleset},
///     format::{Format, ufc::{EvaluationCode, Resolution, Ufc}},
///     model::ValueType,
/// };
/// let set = Ufc::eppo().read(r#"{"flags": {"limit": {"key": "limit", "enabled": true, "variationType": "INTEGER",
///     "variations": {"low": {"key": "low", "value": 10}}, "totalShards": 10000,
///     "allocations": [{"key": "everyone", "splits": [{"variationKey": "low", "shards": []}]}]}}}"#)?;
/// let (ruleset, context, fixed) = (Ruleset::compile(set), Context::new("alice"), Fixed::default());
/// let resolution = Resolution::of(&ruleset, "limit", ValueType::Integer, &context, &fixed);
/// assert_eq!(resolution.value.and_then(|value| value.as_i64()), Some(10));
/// assert_eq!(resolution.code(), EvaluationCode::Match);
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ufc {
    /// Whose reading counts.
    pub reading: Reading,
}

impl Ufc {
    /// In Eppo's reading.
    pub fn eppo() -> Self {
        Self { reading: Reading::Eppo }
    }

    /// In Datadog's reading.
    pub fn datadog() -> Self {
        Self { reading: Reading::Datadog }
    }
}

impl Format for Ufc {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let document: document::Document<'_> =
            serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))?;
        let mut set = FlagSet { facts: compile::facts(&document, self.reading), ..FlagSet::new(NAME) };
        let Some(flags) = document.flags else {
            return Err(FormatError::new(NAME, "it has no `flags`"));
        };
        set.warnings = flags.twice(true, "");
        let source = Source::new(NAME, text);
        let mut logging = Entries::new();
        set.flags.reserve(flags.0.len());
        for (key, raw) in flags.0 {
            let compiled = match source.part::<Option<document::Flag<'_>>>(raw) {
                Ok(None) => continue,
                Ok(Some(flag)) => {
                    let warnings = &mut set.warnings;
                    let logging = &mut logging;
                    let mut compiler = Compiler { reading: self.reading, source: &source, warnings, logging };
                    compiler.flag(&key, flag).map_err(|refused| (refused, source.place(raw, 0)))
                }
                Err(error) => Err((Refused { at: String::new(), problem: error.problem }, error.place)),
            };
            let flag = compiled.unwrap_or_else(|(refused, place)| {
                let (flag, warning) = compile::refused(&key, refused, self.reading);
                set.warnings.push(Warning { place, ..warning });
                flag
            });
            set.flags.push(flag);
        }
        if !logging.is_empty() {
            set.facts.insert(LOGGING.to_owned(), Value::object(logging));
        }
        Ok(set)
    }
}

/// UFC's name of a type.
pub fn value_type(name: &str) -> Option<ValueType> {
    Some(match name {
        "STRING" => ValueType::String,
        "INTEGER" => ValueType::Integer,
        "NUMERIC" => ValueType::Number,
        "BOOLEAN" => ValueType::Boolean,
        "JSON" => ValueType::Object,
        _ => return None,
    })
}

/// A context of a subject's key and attributes. Of an attribute that is null, nothing is known.
pub fn context(key: Option<&str>, attributes: &Value) -> Context {
    let mut context = key.map_or_else(Context::anonymous, Context::new);
    for (name, value) in attributes.as_object().into_iter().flatten() {
        context = context.with(name, value.clone());
    }
    context
}
