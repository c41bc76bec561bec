//! Unleash's constraints as conditions.

use super::{compile::Compiler, document::Constraint};
use crate::{
    engine::rfc3339,
    format::reading::{At, Text},
    model::{Comparison, Condition, Operator, Subject, Test, Texts, Truth, VersionDialect},
};

/// Where a context field is looked up: `userId` is the targeting key, everything else an attribute.
pub(super) fn subject(name: &str) -> Subject {
    if name == "userId" { Subject::Key } else { Subject::attribute(name) }
}

/// The value is exactly one of these; numbers and booleans count with their text.
pub(super) fn one_of(texts: impl IntoIterator<Item = Box<str>>) -> Operator {
    Operator::Text { any_of: texts.into_iter().collect(), how: Texts::Is, ignore_case: false, scalars: true }
}

pub(super) fn compile(constraint: Constraint<'_>, at: &At<'_>, compiler: &mut Compiler<'_>) -> Condition {
    let Constraint { context_name, operator, values, value, case_insensitive, inverted } = constraint;
    let name = context_name.as_str();
    let value = value.as_ref().map_or("", Text::as_str);
    let texts = |how, ignore_case, values: Vec<Text<'_>>| Operator::Text {
        any_of: values.into_iter().map(Text::into_boxed).collect(),
        how,
        ignore_case,
        scalars: true,
    };
    let negate = inverted != (operator.as_str() == "NOT_IN");
    let operator = match operator.as_str() {
        "IN" | "NOT_IN" => Ok(texts(Texts::Is, false, values)),
        "STR_STARTS_WITH" => Ok(texts(Texts::StartsWith, case_insensitive, values)),
        "STR_ENDS_WITH" => Ok(texts(Texts::EndsWith, case_insensitive, values)),
        "STR_CONTAINS" => Ok(texts(Texts::Contains, case_insensitive, values)),
        "NUM_EQ" => number(Comparison::Equal, value),
        "NUM_GT" => number(Comparison::Greater, value),
        "NUM_GTE" => number(Comparison::GreaterOrEqual, value),
        "NUM_LT" => number(Comparison::Less, value),
        "NUM_LTE" => number(Comparison::LessOrEqual, value),
        "DATE_AFTER" => time(Comparison::Greater, value),
        "DATE_BEFORE" => time(Comparison::Less, value),
        "SEMVER_EQ" => Ok(version(Comparison::Equal, value)),
        "SEMVER_GT" => Ok(version(Comparison::Greater, value)),
        "SEMVER_GTE" => Ok(version(Comparison::GreaterOrEqual, value)),
        "SEMVER_LT" => Ok(version(Comparison::Less, value)),
        "SEMVER_LTE" => Ok(version(Comparison::LessOrEqual, value)),
        "REGEX" => {
            Ok(Operator::Pattern { pattern: value.into(), ignore_case: case_insensitive, scalars: true })
        }
        "IN_CIDR" => Ok(Operator::Network { any_of: values.into_iter().map(Text::into_boxed).collect() }),
        unknown => Err(format!("unknown operator `{unknown}`")),
    };
    match operator {
        Ok(operator) => condition(name, operator, negate),
        Err(problem) => {
            compiler.warn(at, format!("{problem}; the constraint is never met, inverted or not"));
            Condition::NEVER
        }
    }
}

/// What is missing or of a wrong type does not satisfy the operator, and *then* the outcome is negated. An operand that makes no sense is
/// never satisfied, negated or not.
fn condition(name: &str, operator: Operator, negate: bool) -> Condition {
    if name == "currentTime" {
        // A context may bring its own, and its text counts even if it is no time; otherwise it is the present.
        let test = |subject, operator| Test { invalid: Truth::Broken, ..Test::new(subject, operator) };
        let own = || Subject::attribute(name);
        let absent = Condition::Not(Box::new(Test::new(own(), Operator::Present).into()));
        let present = test(Subject::Now, operator.clone()).into();
        let either =
            Condition::Any(vec![test(own(), operator).into(), Condition::All(vec![absent, present])]);
        return if negate { Condition::Not(Box::new(either)) } else { either };
    }
    let failed = Truth::False.negated_if(negate);
    let test = Test::new(subject(name), operator);
    Test { negate, missing: failed, mismatch: failed, ..test }.into()
}

fn number(comparison: Comparison, value: &str) -> Result<Operator, String> {
    match value.parse::<f64>() {
        Ok(with) if with.is_finite() => Ok(Operator::Number { comparison, with, parse: true }),
        _ => Err(format!("`{}` is not a number", shown(value))),
    }
}

fn time(comparison: Comparison, value: &str) -> Result<Operator, String> {
    match rfc3339(value) {
        Some(with) => Ok(Operator::Time { comparison, with, milliseconds: false }),
        None => Err(format!("`{}` is not an RFC 3339 time with an offset", shown(value))),
    }
}

fn version(comparison: Comparison, value: &str) -> Operator {
    Operator::Version { comparison, with: value.into(), dialect: VersionDialect::Strict, numbers: false }
}

/// The start of a text, for a message.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
