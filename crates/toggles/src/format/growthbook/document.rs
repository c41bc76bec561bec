//! The shape of GrowthBook's payloads. Unknown fields are ignored.

use serde::{Deserialize, Deserializer};

use crate::{
    format::reading::{Pairs, Raw, Text, or_default},
    value::Value,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    #[serde(borrow, default)]
    pub(super) features: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(super) saved_groups: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(super) contextual_bandits: Option<Pairs<'a>>,
    #[serde(default)]
    pub(super) encrypted_features: Option<String>,
    #[serde(default)]
    pub(super) encrypted_saved_groups: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Feature<'a> {
    #[serde(default)]
    pub(super) default_value: Value,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) rules: Vec<Raw<'a>>,
}

/// A rule of a feature, or an experiment of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) id: Text<'a>,
    #[serde(default)]
    pub(super) condition: Value,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) parent_conditions: Vec<Parent<'a>>,
    /// There even if it is null. In an experiment of its own, the index of a variation.
    #[serde(default, deserialize_with = "present")]
    pub(super) force: Option<Value>,
    #[serde(default)]
    pub(super) variations: Option<Vec<Value>>,
    #[serde(default)]
    pub(super) contextual_variations: Option<Vec<Value>>,
    #[serde(borrow, default)]
    pub(super) contextual_bandit_ref: Option<Text<'a>>,
    #[serde(default)]
    pub(super) coverage: Option<f64>,
    #[serde(default)]
    pub(super) weights: Option<Vec<f64>>,
    #[serde(borrow, default)]
    pub(super) hash_attribute: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) fallback_attribute: Option<Text<'a>>,
    #[serde(default)]
    pub(super) hash_version: Option<f64>,
    #[serde(borrow, default)]
    pub(super) seed: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) key: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) namespace: Option<(Text<'a>, f64, f64)>,
    #[serde(default)]
    pub(super) ranges: Option<Vec<(f64, f64)>>,
    #[serde(default)]
    pub(super) range: Option<(f64, f64)>,
    /// There even if it is empty: then the namespace does not count.
    #[serde(borrow, default)]
    pub(super) filters: Option<Vec<Filter<'a>>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) meta: Vec<Meta<'a>>,
    /// Experiments that decided elsewhere, each with its result.
    #[serde(default)]
    pub(super) tracks: Value,
    #[serde(default)]
    pub(super) bucket_version: Option<i64>,
    #[serde(default)]
    pub(super) min_bucket_version: Option<i64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) disable_sticky_bucketing: bool,
    #[serde(default)]
    pub(super) active: Option<bool>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) status: Text<'a>,
    #[serde(default)]
    pub(super) groups: Option<Vec<String>>,
    #[serde(borrow, default)]
    pub(super) url: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) url_patterns: Option<Vec<UrlPattern<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parent<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(default)]
    pub(super) condition: Value,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) gate: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter<'a> {
    #[serde(borrow, default)]
    pub(super) attribute: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) seed: Text<'a>,
    #[serde(default)]
    pub(super) hash_version: Option<f64>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) ranges: Vec<(f64, f64)>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Meta<'a> {
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) key: Text<'a>,
    #[serde(borrow, default)]
    pub(super) name: Option<Text<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) passthrough: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct UrlPattern<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "or_default")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) pattern: Text<'a>,
    #[serde(default = "yes")]
    pub(super) include: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Bandit {
    #[serde(default)]
    pub(super) bandit_version: Value,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) contexts: Vec<Leaf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Leaf {
    #[serde(rename = "leafId", default)]
    pub(super) id: Value,
    #[serde(default)]
    pub(super) condition: Value,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) weights: Vec<f64>,
}

/// A field that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}
