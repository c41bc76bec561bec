//! The shape of LaunchDarkly's server-side data. Unknown fields are ignored.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::{
    format::reading::{Pairs, Raw, Text, or_default},
    value::{Name, Number, Value},
};

#[derive(Debug, Deserialize)]
pub(super) struct Document<'a> {
    #[serde(borrow, default)]
    pub(super) flags: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(super) segments: Option<Pairs<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flag<'a> {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) on: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) deleted: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) variations: Vec<Value>,
    #[serde(default)]
    pub(super) off_variation: Option<Whole>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) fallthrough: Served<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) targets: Vec<Target>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) context_targets: Vec<Target>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) rules: Vec<Rule<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) prerequisites: Vec<Prerequisite<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) salt: Text<'a>,
}

/// A variation or a rollout; the variation wins.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Served<'a> {
    #[serde(default)]
    pub(super) variation: Option<Whole>,
    #[serde(borrow, default)]
    pub(super) rollout: Option<Rollout<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    #[serde(default)]
    pub(super) context_kind: Option<Name>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) values: Vec<Name>,
    pub(super) variation: Whole,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rule<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) clauses: Vec<Clause<'a>>,
    #[serde(default)]
    pub(super) variation: Option<Whole>,
    #[serde(borrow, default)]
    pub(super) rollout: Option<Rollout<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Prerequisite<'a> {
    #[serde(borrow)]
    pub(super) key: Text<'a>,
    pub(super) variation: Whole,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rollout<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) context_kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) bucket_by: Option<Text<'a>>,
    #[serde(default)]
    pub(super) seed: Option<Whole>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) variations: Vec<Weighted>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Weighted {
    pub(super) variation: Whole,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) weight: f64,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) untracked: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Clause<'a> {
    #[serde(borrow, default)]
    pub(super) context_kind: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) attribute: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) op: Text<'a>,
    /// Cut out: a list of nothing but texts, however long, becomes a set without detours.
    #[serde(borrow, default)]
    pub(super) values: Option<Raw<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) negate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Segment<'a> {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) deleted: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) included: Vec<Name>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) excluded: Vec<Name>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) included_contexts: Vec<Members>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) excluded_contexts: Vec<Members>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) rules: Vec<SegmentRule<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) salt: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) unbounded: bool,
    #[serde(default)]
    pub(super) unbounded_context_kind: Option<Name>,
    #[serde(default)]
    pub(super) generation: Option<Whole>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Members {
    #[serde(default)]
    pub(super) context_kind: Option<Name>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) values: Vec<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SegmentRule<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) clauses: Vec<Clause<'a>>,
    #[serde(default)]
    pub(super) weight: Option<f64>,
    #[serde(borrow, default)]
    pub(super) bucket_by: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) rollout_context_kind: Option<Text<'a>>,
}

/// A whole number, written with or without a decimal point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;
        impl Visitor<'_> for AnyNumber {
            type Value = Whole;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, whole: i64) -> Result<Whole, E> {
                Ok(Whole(whole))
            }

            fn visit_u64<E: Error>(self, whole: u64) -> Result<Whole, E> {
                let whole = i64::try_from(whole);
                whole.map(Whole).map_err(|_| E::custom("the whole number is too large"))
            }

            fn visit_f64<E: Error>(self, float: f64) -> Result<Whole, E> {
                let whole = Number::from(float).as_i64();
                whole.map(Whole).ok_or_else(|| E::custom(format!("{float} is no whole number")))
            }
        }
        deserializer.deserialize_any(AnyNumber)
    }
}
