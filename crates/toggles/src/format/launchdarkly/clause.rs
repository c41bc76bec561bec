//! Clauses as conditions of the model: negation applies to what was compared, never to what is missing.

use super::{document, reference::Reference};
use crate::{
    context::USER,
    engine::{of_milliseconds, parse_version, rfc3339},
    format::reading::Text,
    model::{Comparison, Condition, Lists, Operator, Subject, Test, Texts, Truth, VersionDialect},
    value::{Name, Value},
};

/// The kind that a document names. An empty text names none: it says no more than an absent one.
pub(super) fn named<'t>(text: Option<&'t Text<'_>>) -> Option<&'t str> {
    text.map(Text::as_str).filter(|text| !text.is_empty())
}

/// The same of a name.
pub(super) fn given(kind: Option<Name>) -> Option<Name> {
    kind.filter(|kind| !kind.text().is_empty())
}

/// The kind that is named; by default the user.
pub(super) fn kind(named: Option<&str>) -> Name {
    Name::new(named.unwrap_or(USER))
}

/// The key of the context of `kind` is one of `values`.
pub(super) fn keys(kind: Name, values: Vec<Name>) -> Condition {
    Test::new(Subject::KeyOf { kind }, Operator::OneOf(values)).into()
}

/// The condition of a clause. Tells `warn` what can't be honoured.
pub(super) fn compile(clause: document::Clause<'_>, warn: &mut dyn FnMut(String)) -> Condition {
    let document::Clause { context_kind, attribute, op, values, negate } = clause;
    let raw = values.map_or("[]", |raw| raw.get());
    if op.as_str() == "segmentMatch" {
        let names = serde_json::from_str::<Vec<Value>>(raw).unwrap_or_default();
        let segments = names.iter().filter_map(Value::as_str).map(|name| Condition::Segment {
            name: Name::new(name),
            negate: false,
            unknown: Truth::False,
        });
        let any = Condition::Any(segments.collect());
        return if negate { Condition::Not(Box::new(any)) } else { any };
    }
    let given = named(context_kind.as_ref());
    let reference = match Reference::read(attribute.as_str(), given.is_some()) {
        Ok(reference) => reference,
        Err(invalid) => {
            warn(format!(
                "`{}` is no attribute reference: {}; who gets here makes the flag an error",
                attribute.as_str(),
                invalid.0
            ));
            return Condition::Constant(Truth::Broken);
        }
    };
    let subject = if reference.is_kind() { Some(Subject::Kinds) } else { reference.subject(&kind(given)) };
    let Some(subject) = subject else { return Condition::NEVER };
    let operators = operators(op.as_str(), raw, warn);
    // Of what is missing, a pattern or version that makes no sense does not hold, negated or not.
    let there = (negate && operators.iter().any(may_be_invalid))
        .then(|| Condition::from(Test::new(subject.clone(), Operator::Present)));
    let mut tests = operators.into_iter().map(|operator| {
        Condition::from(Test {
            subject: subject.clone(),
            operator,
            negate,
            lists: Lists::AnyElement,
            missing: Truth::False,
            mismatch: negate.into(),
            invalid: negate.into(),
        })
    });
    match (tests.len(), negate) {
        _ if there.is_some() => Condition::All(there.into_iter().chain(tests).collect()),
        (1, _) => tests.next().unwrap_or(Condition::NEVER),
        (_, false) => Condition::Any(tests.collect()),
        (_, true) => Condition::All(tests.collect()),
    }
}

/// Whether it may make no sense: of a version that can be said, of a pattern only when it is compiled.
fn may_be_invalid(operator: &Operator) -> bool {
    match operator {
        Operator::Version { with, dialect, .. } => parse_version(with, *dialect).is_none(),
        Operator::Pattern { .. } => true,
        _ => false,
    }
}

/// At least one operator; the clause holds (before negation) if any of them does.
fn operators(op: &str, raw: &str, warn: &mut dyn FnMut(String)) -> Vec<Operator> {
    let nothing = || vec![Operator::Equals { any_of: Vec::new() }];
    if op == "in"
        && let Ok(names) = serde_json::from_str::<Vec<Name>>(raw)
    {
        return vec![Operator::OneOf(names)];
    }
    let values = match serde_json::from_str::<Option<Vec<Value>>>(raw) {
        Ok(values) => values.unwrap_or_default(),
        Err(error) => {
            warn(format!("its values can't be read: {error}; none of them matches"));
            return nothing();
        }
    };
    let single: fn(&Value, &str) -> Option<Operator> = match op {
        "in" => return members(values),
        "startsWith" => return vec![texts(&values, Texts::StartsWith)],
        "endsWith" => return vec![texts(&values, Texts::EndsWith)],
        "contains" => return vec![texts(&values, Texts::Contains)],
        "matches" => |value, _| {
            let pattern = value.as_str()?.into();
            Some(Operator::Pattern { pattern, ignore_case: false, scalars: false })
        },
        "lessThan" | "lessThanOrEqual" | "greaterThan" | "greaterThanOrEqual" => {
            |value, op| Some(Operator::number(comparison(op), value.as_f64()?))
        }
        "before" | "after" => |value, op| {
            let with = moment(value)?;
            Some(Operator::Time { comparison: comparison(op), with, milliseconds: true })
        },
        "semVerEqual" | "semVerLessThan" | "semVerGreaterThan" => |value, op| {
            let with = value.as_str()?.into();
            Some(Operator::Version {
                comparison: comparison(op),
                with,
                dialect: VersionDialect::Partial,
                numbers: false,
            })
        },
        unknown => {
            warn(format!("unknown operator `{unknown}`; it matches nothing"));
            return nothing();
        }
    };
    let mut operators = Vec::with_capacity(values.len());
    for value in &values {
        match single(value, op) {
            Some(operator) => operators.push(operator),
            None => warn(format!("`{op}` can't compare with a {}; it does not match", value.kind())),
        }
    }
    if operators.is_empty() { nothing() } else { operators }
}

/// Texts in a set, whatever else there is one by one.
fn members(values: Vec<Value>) -> Vec<Operator> {
    let (texts, others): (Vec<_>, Vec<_>) = values.into_iter().partition(|value| value.as_str().is_some());
    let names: Vec<_> = texts.iter().filter_map(Value::as_str).map(Name::new).collect();
    match (names.is_empty(), others.is_empty()) {
        (true, _) => vec![Operator::Equals { any_of: others }],
        (false, true) => vec![Operator::OneOf(names)],
        (false, false) => vec![Operator::OneOf(names), Operator::Equals { any_of: others }],
    }
}

fn texts(values: &[Value], how: Texts) -> Operator {
    let any_of = values.iter().filter_map(Value::as_str).map(Into::into).collect();
    Operator::Text { any_of, how, ignore_case: false, scalars: false }
}

fn comparison(op: &str) -> Comparison {
    match op {
        "lessThan" | "before" | "semVerLessThan" => Comparison::Less,
        "lessThanOrEqual" => Comparison::LessOrEqual,
        "greaterThan" | "after" | "semVerGreaterThan" => Comparison::Greater,
        "greaterThanOrEqual" => Comparison::GreaterOrEqual,
        _ => Comparison::Equal,
    }
}

/// Milliseconds since 1970, or RFC 3339.
fn moment(value: &Value) -> Option<flowline_core::Timestamp> {
    match value {
        Value::Text(text) => rfc3339(text),
        Value::Number(number) => of_milliseconds(number.as_f64()),
        _ => None,
    }
}
