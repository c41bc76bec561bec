//! The shape of flagd's documents. Unknown fields are ignored.

use serde::Deserialize;

use crate::{
    format::reading::{Pairs, Raw, Text, Tree},
    value::Value,
};

#[derive(Debug, Deserialize)]
pub(super) struct Document<'a> {
    /// A map, or a list of flags with keys.
    #[serde(borrow, default)]
    pub(super) flags: Option<Raw<'a>>,
    #[serde(borrow, default, rename = "$evaluators")]
    pub(super) evaluators: Option<Pairs<'a>>,
    #[serde(borrow, default)]
    pub(super) metadata: Option<Raw<'a>>,
}

/// The key of a flag in a list.
#[derive(Debug, Deserialize)]
pub(super) struct Keyed<'a> {
    #[serde(borrow)]
    pub(super) key: Text<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Flag<'a> {
    #[serde(borrow, default)]
    pub(super) state: Option<Text<'a>>,
    #[serde(default)]
    pub(super) variants: Value,
    #[serde(borrow, default)]
    pub(super) default_variant: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) targeting: Tree<'a>,
    #[serde(default)]
    pub(super) metadata: Value,
}
