//! Clauses: what a rule or an audience asks of a context.

use flowline_core::Timestamp;

use crate::{
    model::{Comparison, Condition, FlagCheck, Lists, Operator, Subject, Test, Texts, Truth, VersionDialect},
    value::{Name, Value},
};

/// One condition.
///
/// In a document it names what it asks about (`attribute`, `segment`, `flag`, or a group: `all`, `any`) and, for an attribute, how that
/// must compare:
///
/// ```toml
/// { attribute = "country", in = ["NO", "SE"] }
/// { attribute = "app.version", version = ">= 2.1.0" }
/// { attribute = "age", at_least = 18, below = 65 }
/// { attribute = "email", ends_with = "@awesome.com", ignore_case = true, not = true }
/// { segment = "beta" }
/// { flag = "new-search", variant = ["fast"] }
/// { any = [{ segment = "beta" }, { attribute = "staff", in = true }] }
/// ```
///
/// An attribute is called by its name; `targetingKey` is the targeting key, and a dotted name enters objects. An attribute that is
/// missing, or that the comparison can't take, makes the clause false, negated or not. Of a list, any element may satisfy the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// What it asks.
    pub asks: Asks,
    /// Whether it asks for the opposite.
    pub not: bool,
}

/// What a clause asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Asks {
    /// An attribute compares so.
    Attribute {
        /// The attribute.
        attribute: Attribute,
        /// How.
        is: Compare,
    },
    /// The context is in this segment.
    Segment(Name),
    /// This flag is on for the context, or comes to one of these variants.
    Flag {
        /// The flag.
        flag: Box<str>,
        /// The variants; none: it must be on.
        variants: Vec<Box<str>>,
    },
    /// All of these hold.
    All(Vec<Clause>),
    /// Any of these holds.
    Any(Vec<Clause>),
}

/// An attribute as clauses call it: a name, and the keys of objects below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    pub(super) name: Name,
    pub(super) path: Vec<Box<str>>,
}

/// How an attribute must compare.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Compare {
    /// It is one of these texts.
    In(Vec<Name>),
    /// It equals one of these values.
    Equals(Vec<Value>),
    /// It is, begins with, ends with or contains one of these texts.
    Text {
        /// How.
        how: Texts,
        /// The texts.
        any_of: Vec<Box<str>>,
        /// Whether the case of letters does not count.
        ignore_case: bool,
    },
    /// It is a number that compares so.
    Number(Comparison, f64),
    /// It is a semantic version that compares so.
    Version(Comparison, semver::Version),
    /// It is a moment that compares so.
    Time(Comparison, Timestamp),
    /// It matches this pattern, anywhere in it.
    Pattern {
        /// The pattern.
        pattern: Box<str>,
        /// Whether the case of letters does not count.
        ignore_case: bool,
    },
    /// It is an IP address in one of these blocks.
    Network(Vec<Box<str>>),
    /// It is there, or not.
    Present(bool),
    /// It compares in all of these ways.
    All(Vec<Compare>),
}

impl Clause {
    /// An attribute compares so.
    pub fn on(attribute: impl AsRef<str>, is: Compare) -> Self {
        Asks::Attribute { attribute: Attribute::new(attribute.as_ref()), is }.into()
    }

    /// An attribute is one of these texts.
    pub fn one_of<T: Into<Name>>(attribute: impl AsRef<str>, texts: impl IntoIterator<Item = T>) -> Self {
        Self::on(attribute, Compare::In(texts.into_iter().map(Into::into).collect()))
    }

    /// The context is in a segment.
    pub fn segment(name: impl Into<Name>) -> Self {
        Asks::Segment(name.into()).into()
    }

    /// A flag is on for the context.
    pub fn flag(flag: impl Into<Box<str>>) -> Self {
        Asks::Flag { flag: flag.into(), variants: Vec::new() }.into()
    }

    /// The opposite.
    #[must_use]
    pub fn negated(mut self) -> Self {
        self.not = !self.not;
        self
    }

    /// Adds the flags that it asks for.
    pub(super) fn flags<'c>(&'c self, asked: &mut Vec<&'c str>) {
        match &self.asks {
            Asks::Flag { flag, .. } => asked.push(flag),
            Asks::All(parts) | Asks::Any(parts) => parts.iter().for_each(|part| part.flags(asked)),
            Asks::Attribute { .. } | Asks::Segment(_) => {}
        }
    }

    /// The condition that it stands for.
    pub fn condition(&self) -> Condition {
        let condition = match &self.asks {
            Asks::Attribute { attribute, is } => return is.condition(attribute, self.not),
            Asks::Segment(name) => {
                return Condition::Segment { name: name.clone(), negate: self.not, unknown: Truth::Broken };
            }
            Asks::Flag { flag, variants } => {
                let mut check = FlagCheck::on(flag.clone());
                check.unknown = Truth::Broken;
                if !variants.is_empty() {
                    check.variants = Some(variants.clone());
                    check.on = None;
                }
                Condition::Flag(Box::new(check))
            }
            Asks::All(parts) => Condition::All(parts.iter().map(Self::condition).collect()),
            Asks::Any(parts) => Condition::Any(parts.iter().map(Self::condition).collect()),
        };
        if self.not { Condition::Not(Box::new(condition)) } else { condition }
    }
}

impl From<Asks> for Clause {
    fn from(asks: Asks) -> Self {
        Self { asks, not: false }
    }
}

impl Attribute {
    /// The attribute that clauses call `text`.
    pub fn new(text: &str) -> Self {
        match text.split_once('.') {
            None => Self { name: Name::new(text), path: Vec::new() },
            Some((name, path)) => {
                Self { name: Name::new(name), path: path.split('.').map(Into::into).collect() }
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let path = self.path.iter().map(|key| format!(".{key}"));
        self.name.text() + &path.collect::<String>()
    }

    fn subject(&self) -> Subject {
        if self.path.is_empty() && self.name == Name::new("targetingKey") {
            return Subject::Key;
        }
        Subject::Attribute { name: self.name.clone(), path: self.path.clone() }
    }
}

impl Compare {
    fn condition(&self, attribute: &Attribute, not: bool) -> Condition {
        let operator = match self {
            Self::In(names) => Operator::OneOf(names.clone()),
            Self::Equals(values) => Operator::Equals { any_of: values.clone() },
            Self::Text { how, any_of, ignore_case } => Operator::Text {
                any_of: any_of.clone(),
                how: *how,
                ignore_case: *ignore_case,
                scalars: false,
            },
            Self::Number(comparison, with) => Operator::number(*comparison, *with),
            Self::Version(comparison, with) => Operator::Version {
                comparison: *comparison,
                with: with.to_string().into(),
                dialect: VersionDialect::Strict,
            },
            Self::Time(comparison, with) => {
                Operator::Time { comparison: *comparison, with: *with, milliseconds: false }
            }
            Self::Pattern { pattern, ignore_case } => {
                Operator::Pattern { pattern: pattern.clone(), ignore_case: *ignore_case, scalars: false }
            }
            Self::Network(blocks) => Operator::Network { any_of: blocks.clone() },
            Self::Present(present) => {
                let absent = *present == not;
                let test = Test::new(attribute.subject(), Operator::Present);
                return Test { negate: absent, missing: absent.into(), ..test }.into();
            }
            Self::All(all) => {
                let parts = Condition::All(all.iter().map(|one| one.condition(attribute, false)).collect());
                return if not { Condition::Not(Box::new(parts)) } else { parts };
            }
        };
        let test = Test::new(attribute.subject(), operator);
        Test { negate: not, lists: Lists::AnyElement, invalid: Truth::Broken, ..test }.into()
    }
}

/// A version comparison as it is written: `>= 2.1.0`.
pub(super) fn version(text: &str) -> Result<Compare, String> {
    let text = text.trim();
    let found = SIGNS.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
    let (comparison, version) = found.unwrap_or((Comparison::Equal, text));
    match version.trim().parse() {
        Ok(version) => Ok(Compare::Version(comparison, version)),
        Err(_) => {
            Err(format!("`{}` is not a version comparison; write it as `>= 2.1.0`", text.escape_debug()))
        }
    }
}

const SIGNS: [(&str, Comparison); 6] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    ("!=", Comparison::NotEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
];
