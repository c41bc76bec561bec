//! The shape of UFC documents. Unknown fields are ignored.

use serde::Deserialize;

use crate::{
    format::reading::{Pairs, Raw, Text, Tree, or_default},
    value::Value,
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    #[serde(borrow, default)]
    pub(super) flags: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(super) created_at: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(super) environment: Option<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Environment<'a> {
    #[serde(borrow)]
    pub(super) name: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flag<'a> {
    pub(super) enabled: bool,
    #[serde(borrow)]
    pub(super) variation_type: Text<'a>,
    #[serde(borrow, default)]
    pub(super) variations: Option<Pairs<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) allocations: Vec<Allocation<'a>>,
    #[serde(default)]
    pub(super) total_shards: Option<u32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Variation {
    pub(super) value: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Allocation<'a> {
    #[serde(borrow)]
    pub(super) key: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) rules: Vec<Rule<'a>>,
    #[serde(borrow, default)]
    pub(super) start_at: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) end_at: Option<Text<'a>>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) splits: Vec<Split<'a>>,
    /// Anything but false: yes.
    #[serde(default)]
    pub(super) do_log: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rule<'a> {
    /// Cut out: one that can't be read may be no more than false.
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) conditions: Vec<Raw<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Condition<'a> {
    #[serde(borrow)]
    pub(super) attribute: Text<'a>,
    #[serde(borrow)]
    pub(super) operator: Text<'a>,
    #[serde(borrow, default)]
    pub(super) value: Tree<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Split<'a> {
    #[serde(borrow)]
    pub(super) variation_key: Text<'a>,
    #[serde(borrow, default, deserialize_with = "or_default")]
    pub(super) shards: Vec<Shard<'a>>,
    /// Only an object says anything.
    #[serde(default)]
    pub(super) extra_logging: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shard<'a> {
    #[serde(borrow)]
    pub(super) salt: Text<'a>,
    #[serde(default)]
    pub(super) total_shards: Option<u32>,
    pub(super) ranges: Vec<Range>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    pub(super) start: f64,
    pub(super) end: f64,
}
