//! What a test compares a value with.

use std::sync::Arc;

use flowline_core::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    engine::ValueTest,
    value::{Name, Value},
};

/// A comparison with operands. Compiled once per load: patterns, networks, versions, and lists of texts to sets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Operator {
    /// The value is there (a null counts as missing, so this is true whenever the test gets to see a value).
    Present,
    /// The value is a text and is one of these, exactly. The cheap form of `Text`: a short name needs no memory of its own.
    OneOf(Vec<Name>),
    /// The value's text is one of these.
    Text {
        /// The texts; none: false.
        any_of: Vec<Box<str>>,
        /// How it has to match.
        how: Texts,
        /// Whether both sides are lower-cased first.
        ignore_case: bool,
        /// Whether numbers and booleans take part with their text; otherwise they are of the wrong type.
        scalars: bool,
    },
    /// The value equals one of these in type and value: lists and objects deeply, numbers by value. No type is wrong, it is just not equal.
    Equals {
        /// The values.
        any_of: Vec<Value>,
    },
    /// The value is a number that compares so.
    Number {
        /// How.
        comparison: Comparison,
        /// With what.
        with: f64,
        /// Whether a text is parsed as a number first (white space around it is not allowed, `inf` and `nan` are no numbers).
        parse: bool,
    },
    /// The value is a moment that compares so: RFC 3339 text with an offset.
    Time {
        /// How.
        comparison: Comparison,
        /// With what.
        with: Timestamp,
        /// Whether a number is taken as milliseconds since 1970; otherwise it is of the wrong type.
        milliseconds: bool,
    },
    /// The value is a version text that compares so. Build metadata never counts.
    Version {
        /// How.
        comparison: Comparison,
        /// With what, in the same dialect; another text makes the test invalid.
        with: Box<str>,
        /// What counts as a version.
        dialect: VersionDialect,
        /// Whether numbers take part with their text; otherwise they are of the wrong type.
        numbers: bool,
    },
    /// The pattern occurs in the value's text. Rust's `regex` dialect (RE2-like).
    Pattern {
        /// The pattern. One that does not compile makes the test invalid.
        pattern: Box<str>,
        /// Whether case does not count.
        ignore_case: bool,
        /// Whether numbers and booleans take part with their text; otherwise they are of the wrong type.
        scalars: bool,
    },
    /// The value is an IP address in one of these blocks (`10.0.0.0/8`) or one of these addresses. Host bits are masked; entries that can't
    /// be read are skipped with a warning.
    Network {
        /// Addresses or CIDR blocks.
        any_of: Vec<Box<str>>,
    },
    /// What the format's own code says of the value.
    Custom(Arc<dyn ValueTest>),
}

impl Operator {
    /// The value is exactly one of these texts.
    pub fn one_of<T: Into<Name>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::OneOf(texts.into_iter().map(Into::into).collect())
    }

    /// The value is a number that compares so.
    pub fn number(comparison: Comparison, with: impl Into<f64>) -> Self {
        Self::Number { comparison, with: with.into(), parse: false }
    }

    /// The value is a strict semantic version that compares so.
    pub fn version(comparison: Comparison, with: impl Into<Box<str>>) -> Self {
        Self::Version { comparison, with: with.into(), dialect: VersionDialect::Strict, numbers: false }
    }
}

/// How a text has to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Texts {
    /// It is the same.
    Is,
    /// It starts with it.
    StartsWith,
    /// It ends with it.
    EndsWith,
    /// It occurs in it.
    Contains,
}

/// How two things compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// Whether an ordering satisfies it.
    #[inline]
    pub fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    /// Its sign: `<=`.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// What counts as a version. All follow the order of Semantic Versioning 2.0.0 and leave build metadata out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VersionDialect {
    /// `x.y.z` with optional pre-release and build (Unleash, UFC, flowline's own).
    Strict,
    /// `x`, `x.y` or `x.y.z`, each with optional pre-release and build; no `v`, no leading zeros (LaunchDarkly).
    Partial,
    /// An optional `v` or `V`, then as `Partial` (flagd).
    Prefixed,
}

/// What to do with a value that is a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lists {
    /// It is a value like any other (most operators find that its type is wrong).
    #[default]
    Whole,
    /// The test is true if any element satisfies it, and false (before negation) if none does.
    AnyElement,
}
