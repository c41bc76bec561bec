//! What GrowthBook knows about a user besides attributes.

use std::{collections::BTreeMap, sync::Arc};

use serde::Deserialize;

use super::{coercion::truthy, placing::ID};
use crate::{
    context::{Context, Part, USER},
    value::Value,
};

/// What goes with a context besides its attributes: [`Context::with_extension`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// The address of the page.
    pub url: Option<String>,
    /// The variation of an experiment, by the experiment's key.
    pub forced_variations: BTreeMap<String, i64>,
    /// The value of a feature, by the feature's key. Counts for [`FeatureResult`](super::FeatureResult) and for parents.
    pub forced_feature_values: BTreeMap<String, Value>,
    /// Whether experiments are run at all.
    pub enabled: bool,
    /// Whether only forced variations count.
    pub qa_mode: bool,
    /// What replaces parts of an experiment for this user, by the experiment's key.
    pub overrides: BTreeMap<String, Override>,
    /// The groups that the user is in (true).
    pub groups: BTreeMap<String, bool>,
    /// The sticky buckets by `attribute||value`: of an assignment `key__version`, the key of the variation. `None`: buckets are not sticky.
    #[serde(skip)]
    pub sticky: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

/// What replaces parts of an experiment. What is absent stays as the experiment has it.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Override {
    /// Who may take part.
    pub condition: Option<Value>,
    /// The share of users that takes part, from 0 to 1.
    pub coverage: Option<f64>,
    /// The weights of the variations.
    pub weights: Option<Vec<f64>>,
    /// The namespace: its id, and the part of it from 0 to 1.
    pub namespace: Option<(String, f64, f64)>,
    /// `draft`, `running` or `stopped`.
    pub status: Option<String>,
    /// False: as a draft.
    pub active: Option<bool>,
    /// The variation that everybody gets who would take part.
    pub force: Option<i64>,
    /// The groups that may take part.
    pub groups: Option<Vec<String>>,
    /// A pattern for the page's address.
    pub url: Option<String>,
}

impl Default for User {
    fn default() -> Self {
        Self {
            url: None,
            forced_variations: BTreeMap::new(),
            forced_feature_values: BTreeMap::new(),
            enabled: true,
            qa_mode: false,
            overrides: BTreeMap::new(),
            groups: BTreeMap::new(),
            sticky: None,
        }
    }
}

impl User {
    /// Takes a stored document of sticky buckets: `attributeName`, `attributeValue`, `assignments`.
    #[must_use]
    pub fn with_sticky(mut self, document: &Value) -> Self {
        let text = |name: &str| document.get(name).map(super::coercion::text).unwrap_or_default();
        let key = format!("{}||{}", text("attributeName"), text("attributeValue"));
        let assignments = document.get("assignments").and_then(Value::as_object).into_iter().flatten();
        let assignments =
            assignments.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_owned())));
        self.sticky.get_or_insert_default().insert(key, assignments.collect());
        self
    }
}

/// A context of GrowthBook's attributes and what else is known of the user. The attribute `id` is the context's key, too.
pub fn context(attributes: &Value, user: User) -> Context {
    let mut part = Part::new(USER);
    for (name, value) in attributes.as_object().into_iter().flatten() {
        if **name == *ID && truthy(value) {
            part = part.with_key(value.clone());
        }
        part.set(name, value.clone());
    }
    let context = Context::of_parts([part]);
    if user == User::default() { context } else { context.with_extension(Arc::new(user)) }
}
