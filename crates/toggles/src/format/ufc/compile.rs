//! UFC's flags as flags of the model: an allocation is a rule.

use std::{borrow::Cow, sync::Arc};

use indexmap::IndexMap;

use super::{
    NAME, Reading,
    condition::{self, Window},
    document, split,
    split::{Part, Shard},
};
use crate::{
    engine::rfc3339,
    format::reading::{At, Source, Text},
    model::{
        Condition, Fault, FaultCode, Flag, Outcome, Period, Range, Reason, Rule, Switch, ValueType, Variant,
        Warning,
    },
    value::{Entries, Value},
};

/// The number of shards where an Eppo document does not say.
const TOTAL: u32 = 10_000;

/// What the flags of one document are compiled with.
pub(super) struct Compiler<'a, 'c> {
    pub(super) reading: Reading,
    pub(super) source: &'c Source<'a>,
    pub(super) warnings: &'c mut Vec<Warning>,
    /// What is to be logged, where that is not the usual: by flag, then by allocation; false: nothing at all.
    pub(super) logging: &'c mut Entries,
}

/// A flag that can't be served: which part of it, and why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) at: String,
    pub(super) problem: String,
}

impl Refused {
    fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { at: at.into(), problem: problem.into() }
    }
}

/// The variants of a flag: the index of each, or why it can't be served.
type Variations<'a> = IndexMap<Cow<'a, str>, Result<usize, String>>;

impl<'a> Compiler<'a, '_> {
    pub(super) fn flag(&mut self, key: &str, flag: document::Flag<'a>) -> Result<Flag, Refused> {
        let kind = flag.variation_type.as_str();
        let Some(value_type) = super::value_type(kind) else {
            return Err(Refused::new("variationType", format!("unknown type `{kind}`")));
        };
        let mut variants = Vec::new();
        let mut variations = Variations::new();
        for (name, raw) in flag.variations.into_iter().flat_map(|pairs| pairs.0) {
            let read = self.source.part::<document::Variation>(raw).map_err(|error| error.problem);
            let index = match read.and_then(|one| value(one.value, value_type)) {
                Ok(value) => {
                    variants.push(Variant::new(&*name, value));
                    Ok(variants.len() - 1)
                }
                Err(problem) => {
                    let at = format!("variations/{name}");
                    if self.reading == Reading::Datadog {
                        return Err(Refused::new(at, problem));
                    }
                    let message = format!("{problem}; it can't be served");
                    let place = self.source.place(raw, 0);
                    self.warnings.push(Warning { place, ..Warning::of(key, at, message) });
                    Err(problem)
                }
            };
            variations.insert(name, index);
        }
        let mut rules = Vec::with_capacity(flag.allocations.len());
        if !flag.allocations.is_empty() && flag.allocations.iter().all(is_silent) {
            self.logging.insert(key.into(), Value::Bool(false));
        } else if self.logging.get(key).is_some_and(|all| all.as_bool().is_some()) {
            // Of a key that stands twice the last counts.
            self.logging.swap_remove(key);
        }
        for (index, allocation) in flag.allocations.into_iter().enumerate() {
            let at = At::element("allocations", index);
            rules.push(self.allocation(key, allocation, &at, flag.total_shards, &variations)?);
        }
        Ok(Flag {
            switch: if flag.enabled { Switch::On } else { Switch::Off },
            rules,
            fallback_reason: Some(Reason::Default),
            ..Flag::new(key, value_type, shared(variants))
        })
    }

    fn allocation(
        &mut self,
        flag: &str,
        allocation: document::Allocation<'a>,
        at: &At<'_>,
        total: Option<u32>,
        variations: &Variations<'a>,
    ) -> Result<Rule, Refused> {
        let document::Allocation { key, rules, start_at, end_at, splits, do_log } = allocation;
        self.logging(flag, key.as_str(), &do_log, &splits);
        let mut conditions = Vec::new();
        let period = Period {
            from: time(start_at.as_ref(), at, "startAt")?,
            until: time(end_at.as_ref(), at, "endAt")?,
            with_end: true,
        };
        let bounded = period.from.is_some() || period.until.is_some();
        if bounded {
            conditions.push(Condition::Custom(Arc::new(Window(period))));
        }
        let targeted = !rules.is_empty();
        let mut alternatives = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let mut all = Vec::with_capacity(rule.conditions.len());
            for (number, raw) in rule.conditions.into_iter().enumerate() {
                let read = self.source.part::<document::Condition<'_>>(raw).map_err(|error| error.problem);
                let rule = at.at("rules", index);
                let at = rule.at("conditions", number);
                match (read.and_then(|one| condition::compile(one, self.reading)), self.reading) {
                    (Ok(condition), _) => all.push(condition),
                    (Err(problem), Reading::Datadog) => return Err(Refused::new(at.to_string(), problem)),
                    (Err(problem), Reading::Eppo) => {
                        let message = format!("{problem}; the condition is false");
                        let place = self.source.place(raw, 0);
                        self.warnings.push(Warning { place, ..Warning::of(flag, at.to_string(), message) });
                        all.push(Condition::NEVER);
                    }
                }
            }
            alternatives.push(Condition::All(all));
        }
        match alternatives.len() {
            0 => {}
            1 => {
                for alternative in alternatives {
                    let Condition::All(all) = alternative else { continue };
                    conditions.extend(all);
                }
            }
            _ => conditions.push(Condition::Any(alternatives)),
        }

        let single = splits.len() == 1;
        let listed = splits.iter().any(|split| !split.shards.is_empty());
        let mut parts = Vec::with_capacity(splits.len());
        for (index, split) in splits.into_iter().enumerate() {
            parts.push(self.part(flag, split, &at.at("splits", index), total, variations)?);
        }
        let sharded = parts.iter().any(|part| !part.shards.is_empty());
        let reason = match (targeted, bounded, single) {
            (true, ..) => Reason::TargetingMatch,
            (false, true, true) if !sharded => Reason::Default,
            (false, _, true) if !listed => Reason::Static,
            _ => Reason::Split,
        };
        Ok(Rule {
            id: Some(key.into_boxed()),
            reason: Some(reason),
            ..Rule::new(Condition::All(conditions), split::outcome(parts, self.reading))
        })
    }

    fn logging(&mut self, flag: &str, allocation: &str, do_log: &Value, splits: &[document::Split<'a>]) {
        if self.logging.get(flag).is_some_and(|all| *all == Value::Bool(false)) {
            return;
        }
        let silent = *do_log == Value::Bool(false);
        let mut extra = Entries::new();
        for split in splits {
            if has_extra(split) {
                extra
                    .entry(split.variation_key.as_str().into())
                    .or_insert_with(|| split.extra_logging.clone());
            }
        }
        if silent || !extra.is_empty() {
            let all = self.logging.entry(flag.into()).or_default();
            let mut allocations = all.as_object().cloned().unwrap_or_default();
            let entry = [("doLog", Value::Bool(!silent)), ("extraLogging", Value::object(extra))];
            allocations.insert(allocation.into(), Value::object(entry));
            *all = Value::object(allocations);
        }
    }

    fn part(
        &mut self,
        flag: &str,
        split: document::Split<'a>,
        at: &At<'_>,
        total: Option<u32>,
        variations: &Variations<'a>,
    ) -> Result<Part, Refused> {
        let name = split.variation_key.as_str();
        let problem = match variations.get(name) {
            Some(Ok(index)) => Ok(*index),
            Some(Err(problem)) => Err(format!("variation `{name}`: {problem}")),
            None => Err(format!("there is no variation `{name}`")),
        };
        let outcome = match (problem, self.reading) {
            (Ok(index), _) => Outcome::Variant(index),
            (Err(problem), Reading::Datadog) => return Err(Refused::new(at.to_string(), problem)),
            (Err(problem), Reading::Eppo) => {
                let message = format!("{problem}; whoever is assigned to it gets the default");
                self.warnings.push(Warning::of(flag, at.to_string(), message));
                Outcome::Fault(Fault::new(FaultCode::ParseError, problem))
            }
        };
        let mut shards = Vec::new();
        for shard in split.shards {
            let total = match (shard.total_shards.or(total), self.reading) {
                (Some(total), _) => total,
                (None, Reading::Eppo) => TOTAL,
                (None, Reading::Datadog) => {
                    return Err(Refused::new(at.below("shards").to_string(), "there is no `totalShards`"));
                }
            };
            let ranges = shard.ranges.iter().map(|range| Range::new(range.start, range.end)).collect();
            let shard = Shard { salt: shard.salt.0.into_owned(), total, ranges };
            if !shard.is_everybody() {
                shards.push(shard);
            }
        }
        Ok(Part { shards, outcome })
    }
}

/// Whether nothing of an allocation is to be logged.
fn is_silent(allocation: &document::Allocation<'_>) -> bool {
    allocation.do_log == Value::Bool(false) && !allocation.splits.iter().any(has_extra)
}

fn has_extra(split: &document::Split<'_>) -> bool {
    split.extra_logging.as_object().is_some_and(|entries| !entries.is_empty())
}

fn time(
    text: Option<&Text<'_>>,
    at: &At<'_>,
    name: &str,
) -> Result<Option<flowline_core::Timestamp>, Refused> {
    let Some(text) = text else { return Ok(None) };
    match rfc3339(text.as_str()) {
        Some(time) => Ok(Some(time)),
        None => Err(Refused::new(
            at.below(name).to_string(),
            format!("`{}` is not an RFC 3339 time with an offset", text.as_str()),
        )),
    }
}

/// The value as its type has it. JSON may come as a text of JSON.
fn value(value: Value, value_type: ValueType) -> Result<Value, String> {
    let wrong = |value: &Value| Err(format!("a {} is not of the flag's type", value.kind()));
    match (value_type, &value) {
        (ValueType::Object, Value::Text(text)) => {
            serde_json::from_str(text).map_err(|error| format!("the text is no JSON: {error}"))
        }
        (ValueType::Integer, Value::Number(number)) if !number.is_whole() => {
            Err(format!("{value} is no whole number"))
        }
        (ValueType::Object, Value::Null) => wrong(&value),
        (ValueType::Boolean, Value::Bool(_))
        | (ValueType::Integer | ValueType::Number, Value::Number(_))
        | (ValueType::String, Value::Text(_))
        | (ValueType::Object, _) => Ok(value),
        _ => wrong(&value),
    }
}

/// The variants; those of a boolean flag that has the usual ones are not kept once more.
fn shared(variants: Vec<Variant>) -> Arc<[Variant]> {
    let usual = Variant::booleans();
    if *usual == *variants { usual } else { variants.into() }
}

/// A flag that could not be read or served.
pub(super) fn refused(key: &str, refused: Refused, reading: Reading) -> (Flag, Warning) {
    let Refused { at, problem } = refused;
    match reading {
        Reading::Eppo => {
            let warning = Warning::of(key, at, format!("{problem}; the flag is an error"));
            (Flag::faulty(key, Fault::new(FaultCode::ParseError, problem)), warning)
        }
        Reading::Datadog => {
            let warning =
                Warning::of(key, at, format!("{problem}; the flag is dropped, everybody gets the default"));
            let dropped = Flag::new(key, ValueType::Any, []);
            (Flag { fallback_reason: Some(Reason::Default), ..dropped }, warning)
        }
    }
}

/// The set's format: the reading is part of it.
pub(super) fn facts(
    document: &document::Document<'_>,
    reading: Reading,
) -> std::collections::BTreeMap<String, Value> {
    let mut facts = std::collections::BTreeMap::new();
    facts.insert(format!("{NAME}.reading"), reading.as_str().into());
    if let Some(created) = document.created_at.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok())
        && !created.is_null()
    {
        facts.insert("createdAt".to_owned(), created);
    }
    let environment = document
        .environment
        .and_then(|raw| serde_json::from_str::<document::Environment<'_>>(raw.get()).ok());
    if let Some(environment) = environment {
        facts.insert("environment".to_owned(), environment.name.as_str().into());
    }
    facts
}
