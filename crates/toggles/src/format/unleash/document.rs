//! The shape of Unleash's documents. Unknown fields are ignored; null counts as absent.

use serde::Deserialize;

use crate::format::reading::{Pairs, Raw, Text, or_default};

/// The full form, or the delta form if there are events.
#[derive(Debug, Deserialize)]
pub(super) struct Document<'a> {
    #[serde(borrow, default)]
    pub(super) features: Option<Vec<Raw<'a>>>,
    #[serde(borrow, default)]
    pub(super) segments: Option<Vec<Raw<'a>>>,
    #[serde(borrow, default)]
    pub(super) events: Option<Vec<Raw<'a>>>,
}

/// A step of the delta form.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Text<'a>,
    #[serde(borrow, default)]
    pub(super) feature: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(super) feature_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) segment: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(super) segment_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) features: Option<Vec<Raw<'a>>>,
    #[serde(borrow, default)]
    pub(super) segments: Option<Vec<Raw<'a>>>,
}

/// The name of a feature that may be unreadable otherwise.
#[derive(Debug, Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Feature<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) enabled: bool,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) strategies: Vec<Strategy<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) variants: Vec<Variant<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) dependencies: Vec<Dependency<'a>>,
    #[serde(borrow, default)]
    pub(super) description: Option<Text<'a>>,
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) project: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) created_at: Option<Text<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) stale: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) impression_data: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Strategy<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow, default)]
    pub(super) parameters: Option<Pairs<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) constraints: Vec<Constraint<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) segments: Vec<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) variants: Vec<Variant<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Constraint<'a> {
    #[serde(borrow)]
    pub(super) context_name: Text<'a>,
    #[serde(borrow)]
    pub(super) operator: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) values: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) value: Option<Text<'a>>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) case_insensitive: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) inverted: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Segment<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) constraints: Vec<Constraint<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Variant<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) weight: f64,
    #[serde(borrow, default)]
    pub(super) stickiness: Option<Text<'a>>,
    #[serde(default)]
    pub(super) payload: Option<crate::Value>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) overrides: Vec<Override<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Override<'a> {
    #[serde(borrow)]
    pub(super) context_name: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) values: Vec<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Dependency<'a> {
    #[serde(borrow)]
    pub(super) feature: Text<'a>,
    #[serde(default)]
    pub(super) enabled: Option<bool>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) variants: Vec<Text<'a>>,
}
