//! flagd: how its documents become the model, JSON logic and all three generations of `fractional` included, and its exact results.
//!
//! | flagd | here |
//! | --- | --- |
//! | `targetingKey` | the context's key |
//! | other fields of the context | attributes |
//! | `targeting` | one rule that decides by itself; null goes on to the default variant. The engine compiles an `if` of plain comparisons to rules |
//! | `$evaluators` | compiled once, shared by all flags that name them |
//! | set and flag metadata | the flag's [facts](crate::model::Facts::metadata), the flag's own on top |
//!
//! The generation of `fractional` is an explicit choice ([`Generation`]), because changing it places everybody anew. It is written into
//! the set's facts (`flagd.fractional`).
//!
//! Where the suite decides nothing: what the source supplies wins over what the caller says ([`Flagd::with_supplied`]); unknown operators are
//! an error only where they are reached; `all` over an empty list is false; `^` and `~` compare only the parts that they name; a
//! variant whose value is null is a type mismatch; a targeting that is no operation is a parse error.

mod cbor;
mod coerce;
mod compile;
mod document;
mod evaluate;
mod exact;
mod export;
#[cfg(test)]
mod export_tests;
mod expression;
mod fractional;
mod plain;
mod sources;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;

use self::compile::{Shared, metadata};
pub use self::{
    export::{Export, export},
    sources::{Selector, SelectorError},
};
use super::{
    Format, FormatError,
    reading::{Pairs, Raw, Source, Tree, told_twice, twice},
};
use crate::{
    context::Context,
    engine::{Ambient, Evaluation, Ruleset},
    model::{Facts, Fault, FaultCode, Flag, FlagSet, Reason, ValueType, Variant, Warning},
    value::Value,
};

const NAME: &str = "flagd";

/// Which formula `fractional` follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Generation {
    /// The signed hash as a percentage. Decides nothing for a few hashes.
    V1,
    /// What the daemon does today: the hash times the sum of weights, over 2^32.
    #[default]
    V2,
    /// The accepted design: the key of any type in CBOR, then as before.
    V3,
}

impl Generation {
    /// Its name: `v2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// Reads flagd's documents.
///
/// ```
/// use flowline_toggles::{
///     context::Context,
///     engine::{Fixed, Ruleset},
///     format::{Format, flagd::{Flagd, Resolution}},
///     model::{Reason, ValueType},
/// };
/// let set = Flagd::default().read(r#"{"flags": {"colour": {"state": "ENABLED", "variants": {"a": "red", "b": "blue"},
///     "defaultVariant": "a", "targeting": {"if": [{"==": [{"var": "country"}, "NO"]}, "b"]}}}}"#)?;
/// let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
/// let context = Context::new("user-1").with("country", "NO");
/// let resolution = Resolution::of(&ruleset, "colour", ValueType::String, &context, &fixed);
/// assert_eq!(resolution.value.and_then(|value| value.as_str()), Some("blue"));
/// assert_eq!(resolution.reason, Reason::TargetingMatch);
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Flagd {
    /// Which formula `fractional` follows.
    pub generation: Generation,
    supplied: Option<Value>,
}

impl Flagd {
    /// With a generation of `fractional`.
    pub fn new(generation: Generation) -> Self {
        Self { generation, supplied: None }
    }

    /// The same with fields that the source of the flags supplies to every targeting; they win over the caller's of the same name.
    #[must_use]
    pub fn with_supplied(mut self, fields: Value) -> Self {
        self.supplied = Some(fields).filter(|fields| fields.as_object().is_some_and(|all| !all.is_empty()));
        self
    }
}

impl Format for Flagd {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let document: document::Document<'_> =
            serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))?;
        let mut set = FlagSet::new(NAME);
        set.facts.insert("flagd.fractional".to_owned(), self.generation.as_str().into());
        let Some(flags) = document.flags else {
            return Err(FormatError::new(NAME, "it has no `flags`"));
        };
        let source = Source::new(NAME, text);
        let warnings = &mut set.warnings;
        let own = document.metadata.map_or(Ok(Value::Null), |raw| source.part(raw));
        let own = own.unwrap_or_else(|error| {
            warnings.push(error.warning(None, "metadata", "the set has none"));
            Value::Null
        });
        let metadata = metadata(&own, None, warnings);
        set.facts.extend(metadata.clone());
        let shared = Shared {
            front: self,
            evaluators: self.evaluators(document.evaluators, &source, warnings),
            facts: (!metadata.is_empty())
                .then(|| Arc::new(Facts { metadata: metadata.clone(), ..Facts::default() })),
            metadata,
        };
        let flags = listed(flags, &source, warnings)?;
        let again = twice(flags.iter().map(|(key, _)| &**key));
        warnings.extend(again.into_iter().map(|key| told_twice(key, true, "")));
        set.flags.reserve(flags.len());
        for (key, raw) in flags {
            let flag = match source.part::<document::Flag<'_>>(raw) {
                Ok(flag) => {
                    shared.flag(&key, flag, warnings).map_err(|problem| (problem, source.place(raw, 0)))
                }
                Err(error) => Err((error.problem, error.place)),
            };
            set.flags.push(flag.unwrap_or_else(|(problem, place)| {
                let message = format!("{problem}; the flag is an error");
                warnings.push(Warning { place, ..Warning::of(&*key, "", message) });
                let fault = Fault::new(FaultCode::ParseError, problem);
                Flag { facts: shared.facts.clone(), ..Flag::faulty(&*key, fault) }
            }));
        }
        Ok(set)
    }
}

impl Flagd {
    fn evaluators<'a>(
        &self,
        evaluators: Option<Pairs<'a>>,
        source: &Source<'a>,
        warnings: &mut Vec<Warning>,
    ) -> IndexMap<String, Arc<expression::Expr>> {
        let mut compiled = IndexMap::new();
        for (name, raw) in evaluators.into_iter().flat_map(|pairs| pairs.0) {
            let at = format!("$evaluators/{name}");
            match source.part::<Tree<'_>>(raw) {
                Ok(json) => {
                    let (expression, problems) = Shared::evaluator(self, &json);
                    warnings.extend(problems.into_iter().map(|problem| Warning::general(&*at, problem)));
                    compiled.insert(name.into_owned(), Arc::new(expression));
                }
                Err(error) => {
                    warnings.push(error.warning(None, &at, "flags that name it are errors"));
                }
            }
        }
        compiled
    }
}

type Listed<'a> = Vec<(std::borrow::Cow<'a, str>, Raw<'a>)>;

/// The flags of a map, or of a list.
fn listed<'a>(
    flags: Raw<'a>,
    source: &Source<'a>,
    warnings: &mut Vec<Warning>,
) -> Result<Listed<'a>, FormatError> {
    let wrong = |error: serde_json::Error| FormatError::json(NAME, error);
    if !flags.get().starts_with('[') {
        return Ok(serde_json::from_str::<Pairs<'_>>(flags.get()).map_err(wrong)?.0);
    }
    let mut all = Listed::new();
    for (index, raw) in
        serde_json::from_str::<Vec<Raw<'_>>>(flags.get()).map_err(wrong)?.into_iter().enumerate()
    {
        match source.part::<document::Keyed<'_>>(raw) {
            Ok(document::Keyed { key }) => all.push((key.0, raw)),
            Err(error) => {
                warnings.push(error.warning(None, &format!("flags/{index}"), "the flag is skipped"));
            }
        }
    }
    Ok(all)
}

/// What a flag comes to for whoever asks for a value of a type. Making one allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Resolution<'a> {
    /// The value; `None`: the caller's default.
    pub value: Option<&'a Value>,
    /// The variant; none with an error or the caller's default.
    pub variant: Option<&'a Variant>,
    /// Why.
    pub reason: Reason,
    /// What went wrong.
    pub error: Option<FaultCode>,
    /// The set's and the flag's metadata; `None`: there is none, or no such flag.
    pub metadata: Option<&'a BTreeMap<String, Value>>,
}

impl<'a> Resolution<'a> {
    /// What `flag` comes to for whoever asks for a value of `expected` type. A whole number is both an integer and a number.
    pub fn of(
        ruleset: &'a Ruleset,
        flag: &str,
        expected: ValueType,
        context: &'a Context,
        ambient: &'a dyn Ambient,
    ) -> Self {
        let evaluation: Evaluation<'a> = ruleset.evaluate(flag, context, ambient);
        let metadata = evaluation.facts().map(|facts| &facts.metadata);
        let failed =
            |code| Self { value: None, variant: None, reason: Reason::Error, error: Some(code), metadata };
        if let Some(failure) = evaluation.error {
            return failed(failure.code);
        }
        let fits = |value: &Value| match expected {
            ValueType::Boolean => matches!(value, Value::Bool(_)),
            ValueType::String => matches!(value, Value::Text(_)),
            ValueType::Integer => matches!(value, Value::Number(number) if number.is_whole()),
            ValueType::Number => matches!(value, Value::Number(_)),
            ValueType::Object => matches!(value, Value::Object(_) | Value::List(_)),
            ValueType::Any => true,
        };
        if evaluation.value.is_some_and(|value| !fits(value)) {
            return failed(FaultCode::TypeMismatch);
        }
        let Evaluation { value, variant, reason, .. } = evaluation;
        Self { value, variant, reason, error: None, metadata }
    }
}
