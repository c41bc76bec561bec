//! Flags, rules and outcomes.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use serde::{Deserialize, Serialize};

use super::{Condition, FlagCheck, Split, Warning};
use crate::{
    engine::Decide,
    value::{Name, Value},
};

/// What a document says: flags, segments, and what was wrong with it.
#[derive(Debug, Clone, Default)]
pub struct FlagSet {
    /// The format that it was read from: `flowline`, `unleash` …
    pub format: &'static str,
    /// The flags. Of a key that stands twice, the last counts.
    pub flags: Vec<Flag>,
    /// The segments. Of a name that stands twice, the last counts.
    pub segments: Vec<Segment>,
    /// What could not be honoured.
    pub warnings: Vec<Warning>,
    /// Whether flags that depend on each other in a circle are errors. Otherwise each check says what a circle comes to. In both cases a warning names
    /// the way round.
    pub refuse_cycles: bool,
    /// What the document says of itself (flagd's set metadata, the generation of a hash): text by name.
    pub facts: std::collections::BTreeMap<String, Value>,
}

impl FlagSet {
    /// An empty set of `format`.
    pub fn new(format: &'static str) -> Self {
        Self { format, ..Self::default() }
    }
}

/// A named condition, shared by many flags.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its name.
    pub name: Name,
    /// When a context is in it. May ask for other segments; a cycle makes the condition broken.
    pub condition: Condition,
}

/// A flag as a format's front end gives it. The [module](super) says how it is evaluated.
#[derive(Debug, Clone)]
pub struct Flag {
    /// Its key.
    pub key: Box<str>,
    /// The type that all its values have.
    pub value_type: ValueType,
    /// Its variants; outcomes name them by index.
    pub variants: Arc<[Variant]>,
    /// The master switch.
    pub switch: Switch,
    /// What must hold before anything else is looked at.
    pub prerequisites: Vec<Prerequisite>,
    /// Looked at in order.
    pub rules: Vec<Rule>,
    /// What a rule-less or unmatched flag comes to.
    pub fallback: Outcome,
    /// The reason that goes with the fallback; by default [`Reason::Static`] if there are no rules and no prerequisites,
    /// [`Reason::Split`] if it is a split, [`Reason::Default`] otherwise.
    pub fallback_reason: Option<Reason>,
    /// What it comes to when it is switched off, killed, or a prerequisite does not hold.
    pub off: Outcome,
    /// The flag can't be evaluated: it is an error, unless a kill switch holds it off.
    pub fault: Option<Fault>,
    /// For people and tools; evaluation does not read them.
    pub facts: Option<Arc<Facts>>,
}

impl Flag {
    /// A flag with `variants` that is on, has no rules, and comes to the caller's default.
    pub fn new(key: impl Into<Box<str>>, value_type: ValueType, variants: impl Into<Arc<[Variant]>>) -> Self {
        Self {
            key: key.into(),
            value_type,
            variants: variants.into(),
            switch: Switch::On,
            prerequisites: Vec::new(),
            rules: Vec::new(),
            fallback: Outcome::Caller,
            fallback_reason: None,
            off: Outcome::Caller,
            fault: None,
            facts: None,
        }
    }

    /// A boolean flag with the variants `off` and `on` that comes to `off` unless a rule says otherwise.
    pub fn boolean(key: impl Into<Box<str>>) -> Self {
        Self {
            fallback: Outcome::Variant(0),
            off: Outcome::Variant(0),
            ..Self::new(key, ValueType::Boolean, Variant::booleans())
        }
    }

    /// The index of the first variant that is on; of a [boolean](Self::boolean) flag, that of `on`.
    pub fn on_index(&self) -> usize {
        self.variants.iter().position(|variant| variant.on).unwrap_or(0)
    }

    /// A flag that can't be evaluated.
    pub fn faulty(key: impl Into<Box<str>>, fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::new(key, ValueType::Any, []) }
    }
}

/// The master switch of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// It is evaluated.
    #[default]
    On,
    /// It comes to its off outcome.
    Off,
    /// It comes to its off outcome, by the kill switch.
    Killed,
}

/// One of the values that a flag may come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// Its name; may be empty (a format without names).
    pub name: Box<str>,
    /// Its value; null stands for "no value": the caller's default.
    pub value: Value,
    /// Whether a caller who only asks "is it on?" hears yes.
    pub on: bool,
    /// What the format says of it besides, verbatim (Unleash's payload with its type): for whoever needs the vendor's exact result.
    pub detail: Option<Arc<Value>>,
}

impl Variant {
    /// A variant that is on unless its value is `false`, null, 0 or an empty text.
    pub fn new(name: impl Into<Box<str>>, value: impl Into<Value>) -> Self {
        let value = value.into();
        let on = match &value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(number) => number.as_f64() != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Bool(true) | Value::List(_) | Value::Object(_) => true,
        };
        Self { name: name.into(), value, on, detail: None }
    }

    /// `off` and `on`, shared by all boolean flags.
    pub fn booleans() -> Arc<[Self]> {
        static BOOLEANS: LazyLock<Arc<[Variant]>> =
            LazyLock::new(|| [Variant::new("off", false), Variant::new("on", true)].into());
        Arc::clone(&BOOLEANS)
    }
}

/// The type that a flag's values have, as OpenFeature tells types apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// An object or a list.
    Object,
    /// The format does not say.
    #[default]
    Any,
}

/// What must hold before a flag's rules are looked at.
#[derive(Debug, Clone)]
pub struct Prerequisite {
    /// The other flag.
    pub check: FlagCheck,
    /// What the flag comes to if it does not hold; `None`: its off outcome.
    pub otherwise: Option<Outcome>,
}

/// When, then.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its id, where the format gives it one.
    pub id: Option<Box<str>>,
    /// When it applies.
    pub when: Condition,
    /// What it then comes to.
    pub then: Outcome,
    /// The reason that goes with it; by default [`Reason::Split`] if a hash had a part in it, else [`Reason::TargetingMatch`].
    pub reason: Option<Reason>,
    /// What to do if the condition is broken.
    pub on_broken: OnBroken,
}

impl Rule {
    /// A rule without id; broken conditions make it not apply.
    pub fn new(when: Condition, then: Outcome) -> Self {
        Self { id: None, when, then, reason: None, on_broken: OnBroken::NextRule }
    }
}

/// What to do if a rule's condition is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnBroken {
    /// As if it did not apply.
    #[default]
    NextRule,
    /// The flag comes to an error with this code.
    Fault(FaultCode),
    /// The flag comes to its off outcome.
    Off,
}

/// What a rule comes to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// The variant of this index. One that is not there makes an error [`FaultCode::ParseError`].
    Variant(usize),
    /// One of several, by a hash.
    Split(Box<Split>),
    /// Nothing: the next rule.
    GoOn,
    /// These rules in order; if none decides, the next outer rule.
    Rules(Vec<Rule>),
    /// The caller's default, without a variant and without an error.
    Caller,
    /// An error.
    Fault(Fault),
    /// What the format's own code decides.
    Custom(Arc<dyn Decide>),
}

/// Why a flag came to its value, in OpenFeature's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum Reason {
    /// It has no rules.
    Static,
    /// No rule applied.
    Default,
    /// A rule applied.
    TargetingMatch,
    /// A hash decided.
    Split,
    /// It is switched off.
    Disabled,
    /// It comes from a cache.
    Cached,
    /// It comes from a document that may be out of date.
    Stale,
    /// It is not known.
    Unknown,
    /// It could not be evaluated.
    Error,
}

impl Reason {
    /// OpenFeature's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Disabled => "DISABLED",
            Self::Cached => "CACHED",
            Self::Stale => "STALE",
            Self::Unknown => "UNKNOWN",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a flag can't be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of error it is.
    pub code: FaultCode,
    /// What is wrong, for people.
    pub message: Arc<str>,
}

impl Fault {
    /// A fault.
    pub fn new(code: FaultCode, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The kinds of error that OpenFeature knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum FaultCode {
    /// No document has been loaded yet.
    ProviderNotReady,
    /// There is no such flag.
    FlagNotFound,
    /// The flag's definition makes no sense.
    ParseError,
    /// The value has another type than was asked for.
    TypeMismatch,
    /// A rule needs a targeting key and the context has none.
    TargetingKeyMissing,
    /// The context can't be used.
    InvalidContext,
    /// The provider will never work.
    ProviderFatal,
    /// Anything else.
    General,
}

impl FaultCode {
    /// OpenFeature's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProviderNotReady => "PROVIDER_NOT_READY",
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::ParseError => "PARSE_ERROR",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::ProviderFatal => "PROVIDER_FATAL",
            Self::General => "GENERAL",
        }
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a flag is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlagKind {
    /// Hides unfinished or unreleased work; ends when everybody has it.
    #[default]
    Release,
    /// Compares variants; ends with its result.
    Experiment,
    /// Controls how the system runs; may live long.
    Ops,
    /// Decides who may; lives as long as the feature.
    Permission,
}

/// What people know about a flag.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// What it does.
    pub description: Option<String>,
    /// Who looks after it.
    pub owner: Option<String>,
    /// What it is for.
    pub kind: FlagKind,
    /// When it was made.
    pub created: Option<flowline_core::Timestamp>,
    /// When it should be gone.
    pub expected_end: Option<flowline_core::Timestamp>,
    /// Anything else (OpenFeature's flag metadata): texts, numbers and booleans by name.
    pub metadata: std::collections::BTreeMap<String, Value>,
}
