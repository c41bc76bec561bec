//! What a flag of our own is, and how far it is released.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flowline_core::{
    Timestamp,
    error::{ErrorKind, Kinded},
    id::ScopeId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Clause, Named, named::moment};
use crate::{
    model::{Bucketing, FlagKind},
    value::Value,
};

/// A flag's key: 1 to 100 characters of `a`–`z`, `A`–`Z`, `0`–`9`, `.`, `_` and `-`, the first a letter or a digit.
///
/// (Flags of other formats are called by any text; this is the rule for our own.)
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FlagKey(Arc<str>);

impl FlagKey {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: impl AsRef<str>) -> Result<Self, FlagKeyError> {
        let text = text.as_ref();
        if Self::is_valid(text) {
            Ok(Self(text.into()))
        } else {
            Err(FlagKeyError { text: text.chars().take(120).collect() })
        }
    }

    /// Whether `text` may be one.
    pub(super) fn is_valid(text: &str) -> bool {
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        first && text.len() <= 100 && text.bytes().all(rest)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text is not a flag's key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not a flag's key; use 1 to 100 letters a-z, digits, `.`, `_` and `-`, the first a letter or digit",
    .text.escape_debug()
)]
pub struct FlagKeyError {
    text: String,
}

impl Kinded for FlagKeyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for FlagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for FlagKey {
    type Err = FlagKeyError;

    fn from_str(text: &str) -> Result<Self, FlagKeyError> {
        Self::new(text)
    }
}

impl AsRef<str> for FlagKey {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for FlagKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for FlagKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = FlagKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a flag's key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FlagKey, E> {
                FlagKey::new(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A percentage from 0 to 100, exact to a thousandth.
///
/// ```
/// use flowline_toggles::format::flowline::Percent;
/// assert_eq!(Percent::new(12.5)?.to_string(), "12.5");
/// assert!(Percent::new(101.0).is_err());
/// # Ok::<(), flowline_toggles::format::flowline::PercentError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(u32);

impl Percent {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// Everybody.
    pub const ALL: Self = Self(100_000);

    /// `percent`, rounded to a thousandth.
    ///
    /// # Errors
    /// If it is not within 0 to 100.
    pub fn new(percent: f64) -> Result<Self, PercentError> {
        if !(0.0..=100.0).contains(&percent) {
            return Err(PercentError { percent: percent.to_string() });
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100,000")]
        Ok(Self((percent * 1_000.0).round() as u32))
    }

    /// Thousandths of a percent, 0 to 100,000.
    pub fn thousandths(self) -> u32 {
        self.0
    }

    /// The number, 0 to 100.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}

/// A number is no percentage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{percent} is not a percentage; use a number from 0 to 100")]
pub struct PercentError {
    percent: String,
}

impl Kinded for PercentError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1_000) {
            serializer.serialize_u32(self.0 / 1_000)
        } else {
            serializer.serialize_f64(self.as_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// What a flag is, wherever it is released.
///
/// The default is a boolean flag for everybody without rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Definition {
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who looks after it: its shepherd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is for.
    pub kind: FlagKind,
    /// When it was made.
    #[serde(with = "moment", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Moment>"))]
    pub created: Option<Timestamp>,
    /// When it should be gone.
    #[serde(with = "moment", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<super::schema::Moment>"))]
    pub expected_end: Option<Timestamp>,
    /// Its values by name, all of one type unless it is `mixed`. None: a boolean flag with `on` and `off`.
    #[serde(skip_serializing_if = "Named::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub variants: Named<Value>,
    /// Whether its values may be of several types, as those of a flag that comes from elsewhere may be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub mixed: bool,
    /// What those get who get it; of a boolean flag by default `on`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// The variant that the others get; of a boolean flag by default `off`, of another the caller's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// Flags that must be on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<FlagKey>,
    /// Who may get it at all; all clauses must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audience: Vec<Clause>,
    /// Exceptions, looked at in order before audience and rollout.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// What places users on the line; by default the flag's key. Changing it throws the dice again for everybody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Texts, numbers and booleans by name, handed on to whoever evaluates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, super::schema::Plain>"))]
    pub metadata: BTreeMap<String, Value>,
    /// How far it is released, declared as code: what counts until somebody says otherwise at run time.
    #[serde(skip_serializing_if = "State::is_empty")]
    pub state: State,
    /// The same for single scopes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "schema", schemars(with = "BTreeMap<String, State>"))]
    pub scopes: BTreeMap<ScopeId, State>,
}

impl Definition {
    /// The flags that it asks for.
    pub fn asks(&self) -> Vec<&str> {
        let clauses = self.audience.iter().chain(self.rules.iter().flat_map(|rule| &rule.when));
        let mut asked: Vec<&str> = self.requires.iter().map(FlagKey::as_str).collect();
        clauses.for_each(|clause| clause.flags(&mut asked));
        asked
    }

    /// Whether this in place of `before` decides anew who gets what, by a bucketing that takes the place of another one: in a split that is given
    /// outright, or a `share`. Adding one, and taking one away, does not.
    pub fn throws_again(&self, before: &Self) -> bool {
        replaces(&before.bucketings(), &self.bucketings())
    }

    /// How users are placed, besides by the salt.
    fn bucketings(&self) -> Vec<&Bucketing> {
        let served = self.serve.iter().chain(self.rules.iter().filter_map(|rule| rule.serve.as_ref()));
        let states = [&self.state].into_iter().chain(self.scopes.values());
        let served = served.chain(states.filter_map(|state| state.serve.as_ref()));
        let mut all: Vec<&Bucketing> = served.filter_map(Serve::bucketing).collect();
        let clauses = self.audience.iter().chain(self.rules.iter().flat_map(|rule| &rule.when));
        clauses.for_each(|clause| clause.bucketings(&mut all));
        all
    }

    /// What places users on the line: changing it throws the dice again for everybody.
    pub fn salt_of<'s>(&'s self, key: &'s FlagKey) -> &'s str {
        self.salt.as_deref().unwrap_or(key.as_str())
    }
}

/// An exception: who gets what, whatever the rollout says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Its name, for explanations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// When it applies; all clauses must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub when: Vec<Clause>,
    /// What they get; by default what the flag serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// To how many percent of them; the others are looked at further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Percent>,
    /// They get what those get who don't get it: the flag's `off`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub off: bool,
}

/// A variant, or several with weights.
#[derive(Debug, Clone, PartialEq)]
pub enum Serve {
    /// This variant.
    Variant(String),
    /// These variants, each by its weight among all.
    Split(Named<u32>),
    /// These variants, each where it lies on a line that is given outright: hash, scale and ranges.
    Slices(Box<Slices>),
}

/// A split that is given outright. In a document: `{ bucketing = { … }, slices = [{ variant = "a", until = 50 }, { variant = "b" }] }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slices {
    /// How a context becomes a point.
    pub bucketing: Bucketing,
    /// Looked at in order; the first that contains the point decides.
    pub slices: Vec<Slice>,
    /// What happens to a point that none contains.
    #[serde(default)]
    pub past_end: Beyond,
}

/// A slice of a line, and who is served there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The variant.
    pub variant: String,
    /// The first point; by default the line's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    /// The end; by default the line's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<f64>,
    /// Whether the end belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub with_end: bool,
    /// Whether being served here counts as taking part in an experiment.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub experiment: bool,
}

/// What happens to a point beyond all slices.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Beyond {
    /// The last slice takes it.
    #[default]
    Last,
    /// It is looked at further, as if the rule did not apply; where nothing follows, it gets `off`.
    GoOn,
    /// This variant.
    Variant(String),
}

impl Serve {
    fn bucketing(&self) -> Option<&Bucketing> {
        match self {
            Self::Slices(slices) => Some(&slices.bucketing),
            Self::Variant(_) | Self::Split(_) => None,
        }
    }
}

/// Whether some bucketing went, and another came in its place.
fn replaces(before: &[&Bucketing], after: &[&Bucketing]) -> bool {
    let more = |some: &[&Bucketing], others: &[&Bucketing]| some.iter().any(|one| !others.contains(one));
    more(before, after) && more(after, before)
}

impl From<&str> for Serve {
    fn from(name: &str) -> Self {
        Self::Variant(name.to_owned())
    }
}

impl Serialize for Serve {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Variant(name) => serializer.serialize_str(name),
            Self::Split(weights) => weights.serialize(serializer),
            Self::Slices(slices) => slices.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Serve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = Serve;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a variant's name, or weights by name such as { a = 1, b = 1 }")
            }

            fn visit_str<E>(self, name: &str) -> Result<Serve, E> {
                Ok(Serve::Variant(name.to_owned()))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Serve, A::Error> {
                // A variant may be called like a part of a split that is given outright; its weight is a number.
                let (mut weights, mut bucketing, mut slices, mut past_end) =
                    (Named::default(), None, None, None);
                while let Some(name) = map.next_key::<Box<str>>()? {
                    let twice = weights.get(&name).is_some();
                    match (&*name, map.next_value::<Part>()?) {
                        _ if twice => {
                            return Err(serde::de::Error::custom(format!(
                                "duplicate entry `{}`",
                                name.escape_debug()
                            )));
                        }
                        (_, Part::Weight(weight)) => weights.set(name, weight),
                        ("bucketing", Part::Bucketing(part)) if bucketing.is_none() => bucketing = Some(part),
                        ("slices", Part::Slices(part)) if slices.is_none() => slices = Some(part),
                        ("past_end", Part::Beyond(part)) if past_end.is_none() => past_end = Some(part),
                        _ => {
                            let name = name.escape_debug();
                            return Err(serde::de::Error::custom(format!(
                                "`{name}` cannot be this; a weight is a whole number"
                            )));
                        }
                    }
                }
                match (bucketing, slices, weights.is_empty()) {
                    (None, None, _) if past_end.is_none() => Ok(Serve::Split(weights)),
                    (Some(bucketing), Some(slices), true) => {
                        let past_end = past_end.unwrap_or_default();
                        Ok(Serve::Slices(Box::new(Slices { bucketing: *bucketing, slices, past_end })))
                    }
                    _ => Err(serde::de::Error::custom(
                        "a split that is given outright has `bucketing` and `slices`, and no weights",
                    )),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// What stands behind a name in `serve`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "a weight (a whole number), or a part of a split that is given outright")]
enum Part {
    Weight(u32),
    Slices(Vec<Slice>),
    Bucketing(Box<Bucketing>),
    Beyond(Beyond),
}

/// How far a flag is released in one place. What is absent is inherited from the place below it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Whether it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// To how many percent of its audience.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Percent>,
    /// What those get who get it, in place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// The kill switch: off here and in every place that inherits from here, whatever else is said.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
}

impl State {
    /// On for everybody.
    pub fn on() -> Self {
        Self { on: Some(true), rollout: Some(Percent::ALL), ..Self::default() }
    }

    /// Off.
    pub fn off() -> Self {
        Self { on: Some(false), ..Self::default() }
    }

    /// On for a share.
    pub fn rollout(percent: Percent) -> Self {
        Self { on: Some(true), rollout: Some(percent), ..Self::default() }
    }

    /// Whether this in place of `before` decides anew who gets what, by another bucketing in what is served.
    pub fn throws_again(&self, before: &Self) -> bool {
        let of = |state: &Self| state.serve.as_ref().and_then(Serve::bucketing).cloned();
        matches!((of(before), of(self)), (Some(before), Some(after)) if before != after)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A state in which nothing is open any more.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effective {
    /// Whether it is on.
    pub on: bool,
    /// To how many percent of its audience.
    pub rollout: Percent,
    /// What those get who get it, in place of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serve: Option<Serve>,
    /// Whether a kill switch holds it off.
    pub killed: bool,
}

impl Effective {
    /// What `definition` declares for a scope: `line` is the scope and its bases, nearest first.
    pub fn declared(definition: &Definition, line: &[&ScopeId]) -> Self {
        let scopes = line.iter().filter_map(|scope| definition.scopes.get(*scope));
        Self::of(scopes.chain([&definition.state]))
    }

    /// What `states` come to, from the nearest place to the farthest. Nothing said: off, and once on, for everybody.
    pub fn of<'s>(states: impl IntoIterator<Item = &'s State>) -> Self {
        let (mut on, mut rollout, mut serve, mut killed) = (None, None, None, false);
        for state in states {
            on = on.or(state.on);
            rollout = rollout.or(state.rollout);
            serve = serve.or_else(|| state.serve.clone());
            killed |= state.killed;
        }
        Self { on: on.unwrap_or(false), rollout: rollout.unwrap_or(Percent::ALL), serve, killed }
    }
}
