//! UFC's conditions as conditions of the model: whatever can't be said is false, negated or not.

use semver::Version;

use super::{Reading, document};
use crate::{
    engine::{Predicate, Situation},
    format::reading::Tree,
    model::{Comparison, Condition, Operator, Period, Subject, Test, Texts, Truth, VersionDialect},
};

/// The condition, or why it makes no sense.
pub(super) fn compile(condition: document::Condition<'_>, reading: Reading) -> Result<Condition, String> {
    let document::Condition { attribute, operator, value } = condition;
    let name = attribute.as_str();
    let (operator, negate) = match operator.as_str() {
        "IS_NULL" => {
            let Tree::Bool(missing) = value else {
                return Err(format!("IS_NULL needs a boolean, not a {}", value.kind()));
            };
            let present = looked_at(name, Operator::Present, false);
            return Ok(if missing { Condition::Not(Box::new(present)) } else { present });
        }
        "MATCHES" => (pattern(&value)?, false),
        "NOT_MATCHES" => (pattern(&value)?, true),
        "ONE_OF" => (one_of(value)?, false),
        "NOT_ONE_OF" => (one_of(value)?, true),
        "GT" => (compared(Comparison::Greater, &value)?, false),
        "GTE" => (compared(Comparison::GreaterOrEqual, &value)?, false),
        "LT" => (compared(Comparison::Less, &value)?, false),
        "LTE" => (compared(Comparison::LessOrEqual, &value)?, false),
        semver if reading == Reading::Datadog => {
            let comparison = match semver {
                "SEMVER_EQ" => Comparison::Equal,
                "SEMVER_NEQ" => Comparison::NotEqual,
                "SEMVER_GT" => Comparison::Greater,
                "SEMVER_GTE" => Comparison::GreaterOrEqual,
                "SEMVER_LT" => Comparison::Less,
                "SEMVER_LTE" => Comparison::LessOrEqual,
                unknown => return Err(format!("unknown operator `{unknown}`")),
            };
            let version = value.as_str().and_then(|text| version(comparison, text));
            (version.ok_or_else(|| "a version is needed".to_owned())?, false)
        }
        unknown => return Err(format!("unknown operator `{unknown}`")),
    };
    Ok(looked_at(name, operator, negate))
}

/// The test on an attribute; the subject's key stands in for an attribute `id` that is not given.
fn looked_at(name: &str, operator: Operator, negate: bool) -> Condition {
    let own = || Subject::attribute(name);
    let test = |subject, operator| Test { negate, ..Test::new(subject, operator) };
    if name != "id" {
        return test(own(), operator).into();
    }
    let absent = Condition::Not(Box::new(Test::new(own(), Operator::Present).into()));
    let given = test(own(), operator.clone()).into();
    Condition::Any(vec![given, Condition::All(vec![absent, test(Subject::Key, operator).into()])])
}

fn pattern(value: &Tree<'_>) -> Result<Operator, String> {
    match value.as_str() {
        Some(pattern) => Ok(Operator::Pattern { pattern: pattern.into(), ignore_case: false, scalars: true }),
        None => Err(format!("a pattern is a text, not a {}", value.kind())),
    }
}

fn one_of(value: Tree<'_>) -> Result<Operator, String> {
    let Tree::List(list) = value else {
        return Err(format!("a list of texts is needed, not a {}", value.kind()));
    };
    let mut any_of = Vec::with_capacity(list.len());
    for one in list {
        match one {
            Tree::Text(text) => any_of.push(text.into()),
            other => return Err(format!("a {} in the list is no text", other.kind())),
        }
    }
    Ok(Operator::Text { any_of, how: Texts::Is, ignore_case: false, scalars: true })
}

/// By version if the operand is one, else by number.
fn compared(comparison: Comparison, value: &Tree<'_>) -> Result<Operator, String> {
    let number = |with| Operator::Number { comparison, with, parse: true };
    match value {
        Tree::Number(with) => Ok(number(with.as_f64())),
        Tree::Text(text) => version(comparison, text)
            .or_else(|| text.parse().ok().filter(|with: &f64| with.is_finite()).map(number))
            .ok_or_else(|| format!("`{text}` is neither a version nor a number")),
        other => Err(format!("a version or a number is needed, not a {}", other.kind())),
    }
}

fn version(comparison: Comparison, text: &str) -> Option<Operator> {
    Version::parse(text).ok()?;
    Some(Operator::Version { comparison, with: text.into(), dialect: VersionDialect::Strict, numbers: false })
}

/// When an allocation is open. Tells in which direction it is not.
#[derive(Debug)]
pub(super) struct Window(pub(super) Period);

impl Window {
    /// The name of the note that it leaves when it does not hold.
    pub(super) const NOTE: &str = "allocation";
    pub(super) const BEFORE: &str = "BEFORE_START_TIME";
    pub(super) const AFTER: &str = "AFTER_END_TIME";
}

impl Predicate for Window {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        let now = situation.now();
        let closed = if self.0.from.is_some_and(|from| now < from) {
            Self::BEFORE
        } else if self.0.until.is_some_and(|until| now > until) {
            Self::AFTER
        } else {
            return Truth::True;
        };
        if situation.recording() {
            situation.note(Self::NOTE, closed);
        }
        Truth::False
    }

    fn describe(&self) -> String {
        let from = self.0.from.map(|from| format!(" from {from}"));
        let until = self.0.until.map(|until| format!(" until {until}"));
        format!("the time is{}{}", from.unwrap_or_default(), until.unwrap_or_default())
    }

    fn plain(&self, _differs: &mut Vec<String>) -> Option<Condition> {
        Some(Condition::During(self.0))
    }
}
