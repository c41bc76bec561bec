//! When a rule applies: conditions with three outcomes.

use std::sync::Arc;

use flowline_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Lists, Operator, Share};
use crate::{
    engine::{Predicate, ValueTest},
    value::{Name, Value},
};

/// What a condition comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Truth {
    /// It does not hold.
    False,
    /// It holds.
    True,
    /// It can't be said: its definition makes no sense.
    Broken,
}

impl Truth {
    /// True and false swapped; broken stays.
    #[inline]
    #[must_use]
    pub fn negated(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::True => Self::False,
            Self::Broken => Self::Broken,
        }
    }

    /// Negated if `yes`.
    #[inline]
    #[must_use]
    pub fn negated_if(self, yes: bool) -> Self {
        if yes { self.negated() } else { self }
    }
}

impl From<bool> for Truth {
    #[inline]
    fn from(yes: bool) -> Self {
        if yes { Self::True } else { Self::False }
    }
}

/// When something applies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Condition {
    /// Always so. `Constant(Truth::Broken)` is how a format says that a definition makes no sense.
    Constant(Truth),
    /// All of them hold. Stops at the first that is not true, whose truth it takes; of none, true.
    All(Vec<Condition>),
    /// Any of them holds. Stops at the first that is not false, whose truth it takes; of none, false.
    Any(Vec<Condition>),
    /// It does not hold; broken stays broken.
    Not(Box<Condition>),
    /// The same with broken as false.
    Lenient(Box<Condition>),
    /// One value of the context compares so.
    Test(Box<Test>),
    /// The context's point is in a share.
    Share(Share),
    /// The segment of this name holds (negated if `negate`).
    Segment {
        /// Its name.
        name: Name,
        /// Whether it must not hold.
        negate: bool,
        /// What it comes to if there is no such segment.
        unknown: Truth,
    },
    /// Another flag's outcome is so.
    Flag(Box<FlagCheck>),
    /// The time is within a period.
    During(Period),
    /// What the format's own code says.
    Custom(Arc<dyn Predicate>),
}

impl Condition {
    /// Always true.
    pub const ALWAYS: Self = Self::Constant(Truth::True);
    /// Always false.
    pub const NEVER: Self = Self::Constant(Truth::False);
}

impl From<Test> for Condition {
    fn from(test: Test) -> Self {
        Self::Test(Box::new(test))
    }
}

/// A time span; open where a side is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Period {
    /// From here on, this moment included.
    #[serde(with = "crate::format::moment", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::format::flowline::Moment>"))]
    pub from: Option<Timestamp>,
    /// Up to here.
    #[serde(with = "crate::format::moment", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<crate::format::flowline::Moment>"))]
    pub until: Option<Timestamp>,
    /// Whether `until` itself belongs to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub with_end: bool,
}

/// Where in a context to look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Subject {
    /// The targeting key of the first part.
    Key,
    /// An attribute of the first part, or what lies in it under a path of keys (objects only, never lists).
    Attribute {
        /// Its name.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        name: Name,
        /// The keys below it, outermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
        path: Vec<Box<str>>,
    },
    /// The key of the part of a kind.
    KeyOf {
        /// The kind.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        kind: Name,
    },
    /// An attribute of the part of a kind. `key` is an attribute like any other here: the format decides.
    AttributeOf {
        /// The kind.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        kind: Name,
        /// Its name.
        #[cfg_attr(feature = "schema", schemars(with = "String"))]
        name: Name,
        /// The keys below it, outermost first.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[cfg_attr(feature = "schema", schemars(with = "Vec<String>"))]
        path: Vec<Box<str>>,
    },
    /// The list of the kinds that the context has, as texts.
    Kinds,
    /// The present time, as RFC 3339 text.
    Now,
    /// Always this value.
    Value(#[cfg_attr(feature = "schema", schemars(with = "serde_json::Value"))] Value),
}

impl Subject {
    /// The attribute `name` of the first part.
    pub fn attribute(name: impl Into<Name>) -> Self {
        Self::Attribute { name: name.into(), path: Vec::new() }
    }
}

/// One value of the context, compared.
#[derive(Debug, Clone)]
pub struct Test {
    /// Where to look.
    pub subject: Subject,
    /// What to compare with.
    pub operator: Operator,
    /// Whether the comparison's outcome is negated.
    pub negate: bool,
    /// What to do with lists.
    pub lists: Lists,
    /// What it comes to if the subject is missing (or null, or its kind is missing). Not negated any more.
    pub missing: Truth,
    /// What it comes to if the operator can't take the value's type, or the text is no number, version, address or time. Not negated
    /// any more; with [`Lists::AnyElement`] such an element just does not satisfy it.
    pub mismatch: Truth,
    /// What it comes to if the operand makes no sense (a pattern that does not compile). Not negated any more.
    pub invalid: Truth,
}

impl Test {
    /// A test without negation, false whenever it can't be said.
    pub fn new(subject: Subject, operator: Operator) -> Self {
        Self {
            subject,
            operator,
            negate: false,
            lists: Lists::Whole,
            missing: Truth::False,
            mismatch: Truth::False,
            invalid: Truth::False,
        }
    }

    /// Its opposite: negated, and still false if the value is missing, of a wrong type, or the operand makes no sense.
    #[must_use]
    pub fn negated(mut self) -> Self {
        self.negate = true;
        self
    }
}

/// What another flag has to come to, for the same context.
#[derive(Debug, Clone)]
pub struct FlagCheck {
    /// The other flag.
    pub flag: Box<str>,
    /// It must be switched on (its master switch), whatever it evaluates to.
    pub enabled: bool,
    /// Its outcome must be on (true) or off (false).
    pub on: Option<bool>,
    /// Its variant must be one of these, by name.
    pub variants: Option<Vec<Box<str>>>,
    /// Its value must satisfy this.
    pub value: Option<Arc<dyn ValueTest>>,
    /// It must not have prerequisites of its own.
    pub leaf: bool,
    /// What the check comes to if there is no such flag.
    pub unknown: Truth,
    /// What it comes to if the other flag depends on this one.
    pub cyclic: Truth,
    /// What it comes to if the other flag evaluates to an error.
    pub faulty: Truth,
}

impl FlagCheck {
    /// `flag` must be on. Unknown or faulty: false; cyclic: broken.
    pub fn on(flag: impl Into<Box<str>>) -> Self {
        Self {
            flag: flag.into(),
            enabled: false,
            on: Some(true),
            variants: None,
            value: None,
            leaf: false,
            unknown: Truth::False,
            cyclic: Truth::Broken,
            faulty: Truth::False,
        }
    }
}
