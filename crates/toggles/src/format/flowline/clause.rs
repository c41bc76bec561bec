//! Clauses: what a rule or an audience asks of a context.

use flowline_core::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    model::{Comparison, Condition, FlagCheck, Lists, Operator, Subject, Test, Texts, Truth, VersionDialect},
    value::{Name, Value},
};

/// One condition. Names a subject (`attribute`, `segment` or `flag`, or a group of clauses) and, for an attribute, exactly one comparison.
///
/// An attribute is called by its name; `targetingKey` is the targeting key, and a dotted name enters objects. An attribute that is
/// missing, or that the comparison can't take, makes the clause false, negated or not. Of a list, any element may satisfy the comparison.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clause {
    /// The attribute to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// It is one of these, in type and value.
    #[serde(rename = "in", skip_serializing_if = "Option::is_none")]
    pub one_of: Option<OneOrMany<Value>>,
    /// It starts with one of these texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_with: Option<OneOrMany<String>>,
    /// It ends with one of these texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_with: Option<OneOrMany<String>>,
    /// It contains one of these texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contains: Option<OneOrMany<String>>,
    /// Whether the case of letters does not count, for texts and patterns.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignore_case: bool,
    /// It is a number above this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// It is a number of at least this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least: Option<f64>,
    /// It is a number below this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
    /// It is a number of at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_most: Option<f64>,
    /// It is a semantic version that compares so: `>= 2.1.0`, `< 3.0.0`, `= 1.2.3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// It is a moment after this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
    /// It is a moment before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// It matches this pattern, anywhere in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// It is an IP address in one of these blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<OneOrMany<String>>,
    /// Whether it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// The context is in this segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// This flag is on for the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// With `flag`: it comes to one of these variants.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variant: Vec<String>,
    /// All of these hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<Clause>,
    /// Any of these holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<Clause>,
    /// The opposite.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
}

/// One thing or a list of them, as written.
#[derive(Debug, Clone, PartialEq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<T: Serialize> Serialize for OneOrMany<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany<Value> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::List(list) => Self(list.to_vec()),
            one => Self(vec![one]),
        })
    }
}

impl<'de> Deserialize<'de> for OneOrMany<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> serde::de::Visitor<'de> for Strings {
            type Value = OneOrMany<String>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![one.to_owned()]))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::new();
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany(many))
            }
        }
        deserializer.deserialize_any(Strings)
    }
}

impl Clause {
    /// A clause on an attribute, to be given a comparison.
    pub fn on(attribute: impl Into<String>) -> Self {
        Self { attribute: Some(attribute.into()), ..Self::default() }
    }

    /// The attribute is one of these.
    #[must_use]
    pub fn is_in<T: Into<Value>>(mut self, values: impl IntoIterator<Item = T>) -> Self {
        self.one_of = Some(OneOrMany(values.into_iter().map(Into::into).collect()));
        self
    }

    /// The context is in a segment.
    pub fn in_segment(segment: impl Into<String>) -> Self {
        Self { segment: Some(segment.into()), ..Self::default() }
    }

    /// The condition that it stands for.
    ///
    /// # Errors
    /// What does not make sense in it.
    pub fn condition(&self) -> Result<Condition, String> {
        let mut found: Vec<Condition> = Vec::new();
        if let Some(attribute) = &self.attribute {
            found.push(self.attribute_condition(attribute)?);
        }
        if let Some(segment) = &self.segment {
            found.push(Condition::Segment {
                name: Name::new(segment),
                negate: self.not,
                unknown: Truth::Broken,
            });
        }
        if let Some(flag) = &self.flag {
            let mut check = FlagCheck::on(flag.as_str());
            check.unknown = Truth::Broken;
            if !self.variant.is_empty() {
                check.variants = Some(self.variant.iter().map(|name| name.as_str().into()).collect());
                check.on = None;
            }
            found.push(self.negated(Condition::Flag(Box::new(check))));
        }
        for (clauses, all) in [(&self.all, true), (&self.any, false)] {
            if !clauses.is_empty() {
                let parts = clauses.iter().map(Self::condition).collect::<Result<_, _>>()?;
                found.push(self.negated(if all { Condition::All(parts) } else { Condition::Any(parts) }));
            }
        }
        let Some(condition) = found.pop() else {
            return Err("a clause needs one of `attribute`, `segment`, `flag`, `all` and `any`".to_owned());
        };
        if !found.is_empty() {
            return Err(
                "a clause has only one of `attribute`, `segment`, `flag`, `all` and `any`; use two clauses"
                    .to_owned(),
            );
        }
        Ok(condition)
    }

    fn negated(&self, condition: Condition) -> Condition {
        if self.not { Condition::Not(Box::new(condition)) } else { condition }
    }

    fn attribute_condition(&self, attribute: &str) -> Result<Condition, String> {
        let mut operators: Vec<Operator> = Vec::with_capacity(1);
        let number = |comparison, with: f64| Operator::Number { comparison, with, parse: false };
        if let Some(OneOrMany(values)) = &self.one_of {
            operators.push(self.one_of(values));
        }
        let texts = [
            (&self.starts_with, Texts::StartsWith),
            (&self.ends_with, Texts::EndsWith),
            (&self.contains, Texts::Contains),
        ];
        for (texts, how) in texts {
            if let Some(OneOrMany(texts)) = texts {
                let any_of = texts.iter().map(|text| text.as_str().into()).collect();
                operators.push(Operator::Text { any_of, how, ignore_case: self.ignore_case, scalars: false });
            }
        }
        let numbers = [
            (self.above, Comparison::Greater),
            (self.at_least, Comparison::GreaterOrEqual),
            (self.below, Comparison::Less),
            (self.at_most, Comparison::LessOrEqual),
        ];
        for (with, comparison) in numbers {
            operators.extend(with.map(|with| number(comparison, with)));
        }
        if let Some(version) = &self.version {
            operators.push(version_operator(version)?);
        }
        for (with, comparison) in [(self.after, Comparison::Greater), (self.before, Comparison::Less)] {
            operators.extend(with.map(|with| Operator::Time { comparison, with, milliseconds: false }));
        }
        if let Some(pattern) = &self.matches {
            operators.push(Operator::Pattern {
                pattern: pattern.as_str().into(),
                ignore_case: self.ignore_case,
                scalars: false,
            });
        }
        if let Some(OneOrMany(blocks)) = &self.network {
            operators.push(Operator::Network {
                any_of: blocks.iter().map(|block| block.as_str().into()).collect(),
            });
        }
        let subject = subject(attribute);
        if let Some(present) = self.present {
            if !operators.is_empty() {
                return Err(format!("the clause on `{attribute}` compares twice; use two clauses"));
            }
            let wanted = present != self.not;
            return Ok(Test {
                negate: !wanted,
                missing: (!wanted).into(),
                ..Test::new(subject, Operator::Present)
            }
            .into());
        }
        if operators.len() > 1 {
            // Two bounds make a range: both must hold. Negated, that is the opposite of both together.
            let tests = operators.into_iter().map(|operator| test(subject.clone(), operator, false).into());
            return Ok(self.negated(Condition::All(tests.collect())));
        }
        match operators.pop() {
            Some(operator) => Ok(test(subject, operator, self.not).into()),
            None => Err(format!("the clause on `{attribute}` compares it with nothing")),
        }
    }

    fn one_of(&self, values: &[Value]) -> Operator {
        let texts: Option<Vec<Box<str>>> =
            values.iter().map(|value| value.as_str().map(Into::into)).collect();
        match texts {
            Some(any_of) => {
                Operator::Text { any_of, how: Texts::Is, ignore_case: self.ignore_case, scalars: false }
            }
            None => Operator::Equals { any_of: values.to_vec() },
        }
    }
}

fn test(subject: Subject, operator: Operator, negate: bool) -> Test {
    Test { negate, lists: Lists::AnyElement, invalid: Truth::Broken, ..Test::new(subject, operator) }
}

/// What a clause calls `attribute`.
fn subject(attribute: &str) -> Subject {
    if attribute == "targetingKey" {
        return Subject::Key;
    }
    let mut parts = attribute.split('.');
    let name = Name::new(parts.next().unwrap_or_default());
    Subject::Attribute { name, path: parts.map(Into::into).collect() }
}

fn version_operator(text: &str) -> Result<Operator, String> {
    let text = text.trim();
    let signs = [
        (">=", Comparison::GreaterOrEqual),
        ("<=", Comparison::LessOrEqual),
        ("!=", Comparison::NotEqual),
        (">", Comparison::Greater),
        ("<", Comparison::Less),
        ("=", Comparison::Equal),
    ];
    let (comparison, version) = signs
        .iter()
        .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)))
        .unwrap_or((Comparison::Equal, text));
    let version = version.trim();
    if semver::Version::parse(version).is_err() {
        return Err(format!("`{text}` is no version comparison; write it as `>= 2.1.0`"));
    }
    Ok(Operator::Version { comparison, with: version.into(), dialect: VersionDialect::Strict })
}
