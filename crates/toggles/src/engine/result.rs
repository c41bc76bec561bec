//! What an evaluation comes to, by reference into the ruleset.

use crate::{
    model::{Facts, FaultCode, Reason, Switch, ValueType, Variant},
    value::Value,
};

use super::node::FlagNode;

/// How much a caller wants to know; asking for less can be faster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Only whether it is on: a split among variants that are all on (or all off) need not hash.
    Switch,
    /// Everything.
    Everything,
}

/// What a flag came to, and why. Borrows from the ruleset (and, rarely, the context); making one allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    pub(super) flag: Option<&'a FlagNode>,
    /// The variant, if one was chosen.
    pub variant: Option<&'a Variant>,
    /// Its index among the flag's variants.
    pub index: Option<usize>,
    /// The value; `None`: the caller's default.
    pub value: Option<&'a Value>,
    /// Whether the flag is on.
    pub on: bool,
    /// Why, in OpenFeature's words.
    pub reason: Reason,
    /// What decided.
    pub stage: Stage,
    /// Where a hash placed the context, if one was asked: on the scale of the format.
    pub point: Option<f64>,
    /// Whether it takes part in an experiment.
    pub experiment: bool,
    /// What went wrong.
    pub error: Option<Failure<'a>>,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// There is no such flag.
    Unknown,
    /// The flag has a fault.
    Faulty,
    /// Its kill switch.
    Killed,
    /// Its master switch.
    Off,
    /// The prerequisite of this index, which does not hold.
    Prerequisite(usize),
    /// The rule of this index.
    Rule {
        /// Among the flag's rules.
        index: usize,
        /// Among the rules of that rule's outcome, if it has some.
        inner: Option<usize>,
    },
    /// The fallback.
    Fallback,
}

/// What went wrong with an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure<'a> {
    /// What kind of error it is.
    pub code: FaultCode,
    /// What is wrong, for people.
    pub message: &'a str,
}

impl<'a> Evaluation<'a> {
    pub(super) const UNKNOWN: Self = Self {
        flag: None,
        variant: None,
        index: None,
        value: None,
        on: false,
        reason: Reason::Error,
        stage: Stage::Unknown,
        point: None,
        experiment: false,
        error: Some(Failure { code: FaultCode::FlagNotFound, message: "there is no such flag" }),
    };

    /// The key of the flag, as the ruleset has it.
    pub fn key(&self) -> Option<&'a str> {
        self.flag.map(|flag| &*flag.key)
    }

    /// What people know about the flag.
    pub fn facts(&self) -> Option<&'a Facts> {
        self.flag?.facts.as_deref()
    }

    /// The type that the flag's values have.
    pub fn value_type(&self) -> ValueType {
        self.flag.map_or(ValueType::Any, |flag| flag.value_type)
    }

    /// Whether the flag's master switch is on.
    pub fn enabled(&self) -> bool {
        self.flag.is_some_and(|flag| flag.switch == Switch::On)
    }

    /// The id of the rule that decided, where it has one.
    pub fn rule_id(&self) -> Option<&'a str> {
        let Stage::Rule { index, .. } = self.stage else { return None };
        self.flag?.rules.get(index)?.id.as_deref()
    }

    /// The key of the prerequisite that did not hold, if that decided.
    pub fn prerequisite(&self) -> Option<&'a str> {
        let Stage::Prerequisite(index) = self.stage else { return None };
        Some(&self.flag?.prerequisites.get(index)?.check.check.flag)
    }

    /// Whether the flag's first rule has a reason of its own (LaunchDarkly's targets stand in one).
    pub(crate) fn has_targets(&self) -> bool {
        self.flag.and_then(|flag| flag.rules.first.as_ref()).is_some_and(|rule| rule.reason.is_some())
    }

    /// The value as a bool.
    pub fn as_bool(&self) -> Option<bool> {
        self.value?.as_bool()
    }

    /// The value as a text.
    pub fn as_str(&self) -> Option<&'a str> {
        self.value?.as_str()
    }

    /// The value as a float.
    pub fn as_f64(&self) -> Option<f64> {
        self.value?.as_f64()
    }

    /// The value as a whole number.
    pub fn as_i64(&self) -> Option<i64> {
        self.value?.as_i64()
    }
}
