//! LaunchDarkly's server-side data: how flags and segments become the model, and its exact results.
//!
//! | LaunchDarkly | here |
//! | --- | --- |
//! | context | a part for each kind ([`context`] reads single, multi and the old user form) |
//! | variation | variant, named by its index |
//! | targets | the first rule, if there are any, with a rule inside for each |
//! | rule | rule, in order; a matched one decides |
//! | rollout, experiment | a split with SHA-1 |
//! | prerequisites | prerequisites, compared by the variant |
//! | segments | segments; members of big ones are in a store of [`BigSegments`] |
//!
//! A clause whose attribute reference makes no sense, a circle of segments or prerequisites, and a variation that is not there make an error
//! ([`ErrorKind::MalformedFlag`]) of an evaluation that gets there, and of no other. Where the cases decide nothing: a negated clause on a kind that the
//! context lacks is false; a point on a boundary belongs to the next entry; a segment rule with a weight for a kind that is not there has point 0; a
//! segment that can't be read makes an error of whoever asks for it.

mod big;
mod clause;
mod compile;
mod detail;
mod document;
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::compile::Compiler;
pub use self::{
    big::{BigSegments, Membership},
    detail::{Detail, ErrorKind, Reason, ReasonKind},
};
use super::{Format, FormatError, reading::Source};
use crate::{
    context::{Context, Part, USER},
    model::{Condition, Fault, FaultCode, Flag, FlagSet, Segment, Truth},
    value::{Entries, Name, Value},
};

const NAME: &str = "launchdarkly";

/// Reads LaunchDarkly's server-side data.
///
/// ```
/// use flowline_toggles::{
///     engine::{Fixed, Ruleset},
///     format::{Format, launchdarkly::{Detail, LaunchDarkly, ReasonKind, context}},
///     model::ValueType,
/// };
/// let set = LaunchDarkly::new().read(r#"{"flags": {"beta": {"on": true, "variations": [false, true],
///     "fallthrough": {"variation": 0}, "targets": [{"values": ["alice"], "variation": 1}]}}}"#)?;
/// let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
/// let alice = context(&serde_json::from_str(r#"{"kind": "user", "key": "alice"}"#).unwrap());
/// let detail = Detail::of(&ruleset, "beta", ValueType::Boolean, &alice, &fixed);
/// assert_eq!((detail.variation_index, detail.reason.kind), (Some(1), ReasonKind::TargetMatch));
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LaunchDarkly {
    big: Option<Arc<dyn BigSegments>>,
}

impl LaunchDarkly {
    /// Without a store of big segments: nobody is in those.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a store of big segments.
    #[must_use]
    pub fn with_big_segments(mut self, store: impl BigSegments + 'static) -> Self {
        self.big = Some(Arc::new(store));
        self
    }
}

impl Format for LaunchDarkly {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let document: document::Document<'_> =
            serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))?;
        if document.flags.is_none() && document.segments.is_none() {
            return Err(FormatError::new(NAME, "it has neither `flags` nor `segments`"));
        }
        let source = Source::new(NAME, text);
        let mut set = FlagSet::new(NAME);
        set.warnings.extend(document.flags.iter().flat_map(|flags| flags.twice(true, "")));
        set.warnings.extend(document.segments.iter().flat_map(|segments| segments.twice(false, "segments")));
        for (key, raw) in document.flags.into_iter().flat_map(|flags| flags.0) {
            match source.part::<Option<document::Flag<'_>>>(raw) {
                Ok(Some(flag)) if !flag.deleted => {
                    let warnings = &mut set.warnings;
                    let mut compiler =
                        Compiler { key: &key, segment: false, big: self.big.as_ref(), warnings };
                    let flag = compiler.flag(flag);
                    set.flags.push(flag);
                }
                Ok(_) => {}
                Err(error) => {
                    let fault = Fault::new(FaultCode::ParseError, error.problem.as_str());
                    set.flags.push(Flag::faulty(&*key, fault));
                    set.warnings.push(error.warning(Some(&key), "", "the flag is an error"));
                }
            }
        }
        for (key, raw) in document.segments.into_iter().flat_map(|segments| segments.0) {
            match source.part::<Option<document::Segment<'_>>>(raw) {
                Ok(Some(segment)) if !segment.deleted => {
                    let warnings = &mut set.warnings;
                    let mut compiler =
                        Compiler { key: &key, segment: true, big: self.big.as_ref(), warnings };
                    let segment = compiler.segment(segment);
                    set.segments.push(segment);
                }
                Ok(_) => {}
                Err(error) => {
                    let condition = Condition::Constant(Truth::Broken);
                    set.segments.push(Segment { name: Name::new(&key), condition });
                    let meaning = "whoever asks for the segment makes an error of the flag";
                    set.warnings.push(error.warning(None, &format!("segments/{key}"), meaning));
                }
            }
        }
        Ok(set)
    }
}

/// The context that a LaunchDarkly context stands for: of a single kind, of several (`kind` is `multi`), or in the old form of users (no `kind`;
/// entries of `custom` count as attributes, unless there is a built-in one of that name).
pub fn context(context: &Value) -> Context {
    let Some(entries) = context.as_object() else { return Context::anonymous() };
    match entries.get("kind").and_then(Value::as_str) {
        Some("multi") => {
            let kinds = entries.iter().filter(|(kind, _)| kind.as_ref() != "kind");
            Context::of_parts(kinds.filter_map(|(kind, entries)| Some(part(kind, entries.as_object()?))))
        }
        Some(kind) => Context::of_parts([part(kind, entries)]),
        None => {
            let mut user = Part::new(USER);
            for (name, value) in entries.get("custom").and_then(Value::as_object).into_iter().flatten() {
                if !matches!(name.as_ref(), "key" | "kind" | "_meta") {
                    user.set(name, value.clone());
                }
            }
            let own = entries
                .iter()
                .filter(|(name, _)| !matches!(name.as_ref(), "custom" | "privateAttributeNames"));
            Context::of_parts([filled(user, own)])
        }
    }
}

fn part(kind: &str, entries: &Entries) -> Part {
    filled(Part::new(kind), entries.iter())
}

fn filled<'e>(mut part: Part, entries: impl Iterator<Item = (&'e Box<str>, &'e Value)>) -> Part {
    for (name, value) in entries {
        match name.as_ref() {
            "key" => part = part.with_key(value.clone()),
            "kind" | "_meta" => {}
            _ if value.is_null() => {}
            _ => part.set(name, value.clone()),
        }
    }
    if part.attribute("anonymous").is_none() {
        part.set("anonymous", false.into());
    }
    part
}
