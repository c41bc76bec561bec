//! Eppo's contextual bandits: which action whoever was assigned to a bandit gets.
//!
//! A text flag's variation may stand for a bandit. A model scores the actions that the caller offers; the better the score, the larger the
//! action's share of the subjects, and a hash of flag and subject decides where in these shares the subject lies. Learning is not done here: the
//! model's coefficients come from a document.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use md5::{Digest, Md5};
use serde::Deserialize;

use super::{NAME, context};
use crate::{context::Context, format::FormatError, value::Value};

/// Shares of subjects and the order of actions are told in this many shards.
const SHARDS: u32 = 10_000;

/// Models by bandit, and which variations stand for which bandit.
///
/// ```
/// use flowline_toggles::format::ufc::{Action, Attributes, Bandits};
/// let flags = r#"{"bandits": {"b": [{"flagKey": "f", "variationValue": "b"}]}}"#;
/// let models = r#"{"bandits": {"b": {"modelData": {"gamma": 1, "defaultActionScore": 0, "actionProbabilityFloor": 0,
///     "coefficients": {"nike": {"intercept": 1000}}}}}}"#;
/// let bandits = Bandits::read(flags, models)?;
/// let actions = [Action::new("adidas"), Action::new("nike")];
/// let subject = Attributes::default();
/// assert_eq!(bandits.choose("f", "b", "alice", &subject, &actions).map(|action| &*action.key), Some("nike"));
/// assert_eq!(bandits.choose("f", "another", "alice", &subject, &actions), None);
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Bandits {
    /// The bandit's key by flag and value.
    variations: IndexMap<(String, String), String>,
    models: IndexMap<String, Model>,
}

/// What is known about a subject or an action.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes {
    /// Numbers by name.
    pub numeric: BTreeMap<String, f64>,
    /// Texts by name.
    pub categorical: BTreeMap<String, String>,
}

/// Something that can be done for a subject.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Action {
    /// Its key.
    pub key: String,
    /// What is known about it.
    pub attributes: Attributes,
}

impl Action {
    /// An action of which nothing is known.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), attributes: Attributes::default() }
    }
}

impl Attributes {
    /// The attributes in `numericAttributes` and `categoricalAttributes`; without these groups, every attribute by its type.
    ///
    /// In the numeric group only numbers count; in the other one, numbers and booleans count with their text.
    pub fn from_object(object: &Value) -> Self {
        let mut attributes = Self::default();
        let (numeric, categorical) = (object.get("numericAttributes"), object.get("categoricalAttributes"));
        if numeric.is_none() && categorical.is_none() {
            for (name, value) in object.as_object().into_iter().flatten() {
                match value {
                    Value::Number(_) => attributes.set_number(name, value),
                    _ => attributes.set_text(name, value),
                }
            }
            return attributes;
        }
        for (name, value) in numeric.and_then(Value::as_object).into_iter().flatten() {
            attributes.set_number(name, value);
        }
        for (name, value) in categorical.and_then(Value::as_object).into_iter().flatten() {
            attributes.set_text(name, value);
        }
        attributes
    }

    fn set_number(&mut self, name: &str, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.numeric.insert(name.to_owned(), number);
        }
    }

    fn set_text(&mut self, name: &str, value: &Value) {
        if let Some(text) = value.scalar_text() {
            self.categorical.insert(name.to_owned(), text.into_owned());
        }
    }

    /// A context of these attributes, for the flag that comes before the bandit.
    pub fn context(&self, subject: &str) -> Context {
        let numbers = self.numeric.iter().map(|(name, number)| (name.as_str(), Value::from(*number)));
        let texts = self.categorical.iter().map(|(name, text)| (name.as_str(), Value::from(text.as_str())));
        context(Some(subject), &Value::object(numbers.chain(texts)))
    }
}

impl Bandits {
    /// Reads the document that has the flags (its `bandits`), and the one that has the models.
    ///
    /// # Errors
    /// If one of them is no such document. A model that can't be read as a whole is an error too: half a model would choose other actions.
    pub fn read(flags: &str, models: &str) -> Result<Self, FormatError> {
        let wrong = |error| FormatError::json(NAME, error);
        let flags: Flags = serde_json::from_str(flags).map_err(wrong)?;
        let models: Models = serde_json::from_str(models).map_err(wrong)?;
        let variations = flags
            .bandits
            .into_iter()
            .flat_map(|(bandit, variations)| {
                variations.into_iter().map(move |one| ((one.flag_key, one.variation_value), bandit.clone()))
            })
            .collect();
        let models = models.bandits.into_iter().map(|(bandit, one)| (bandit, one.model_data)).collect();
        Ok(Self { variations, models })
    }

    /// The action for a subject that `flag` assigned `value` to. `None` if that stands for no bandit, or no actions are offered.
    pub fn choose<'a>(
        &self,
        flag: &str,
        value: &str,
        subject: &str,
        attributes: &Attributes,
        actions: &'a [Action],
    ) -> Option<&'a Action> {
        let bandit = self.variations.get(&(flag.to_owned(), value.to_owned()))?;
        let weighed = self.models.get(bandit)?.weigh(flag, subject, attributes, actions);
        let point = f64::from(shard(&format!("{flag}-{subject}"))) / f64::from(SHARDS);
        let mut sum = 0.0;
        let found = weighed.iter().find(|(_, weight)| {
            sum += weight;
            sum > point
        });
        found.or(weighed.last()).map(|(action, _)| *action)
    }
}

impl Model {
    /// The actions with their shares, in the subject's own order.
    #[expect(clippy::cast_precision_loss, reason = "a number of actions")]
    fn weigh<'a>(
        &self,
        flag: &str,
        subject: &str,
        attributes: &Attributes,
        actions: &'a [Action],
    ) -> Vec<(&'a Action, f64)> {
        let score = |action: &Action| match self.coefficients.get(&action.key) {
            Some(coefficients) => coefficients.score(attributes, &action.attributes),
            None => self.default_action_score,
        };
        let mut scored: Vec<_> = actions.iter().map(|action| (action, score(action))).collect();
        scored.sort_by_cached_key(|(action, _)| {
            (shard(&format!("{flag}-{subject}-{}", action.key)), action.key.clone())
        });
        let better =
            |a: &(usize, f64, &str), b: &(usize, f64, &str)| a.1.total_cmp(&b.1).then_with(|| b.2.cmp(a.2));
        let best =
            scored.iter().enumerate().map(|(index, (action, score))| (index, *score, action.key.as_str()));
        let Some((best, best_score, _)) = best.max_by(better) else { return Vec::new() };
        let count = scored.len() as f64;
        let floor = self.action_probability_floor / count;
        let mut rest = 1.0;
        let mut weighed: Vec<_> = scored
            .into_iter()
            .enumerate()
            .map(|(index, (action, score))| {
                if index == best {
                    return (action, 0.0);
                }
                let weight = (1.0 / (count + self.gamma * (best_score - score))).max(floor);
                rest -= weight;
                (action, weight)
            })
            .collect();
        if let Some(best) = weighed.get_mut(best) {
            best.1 = rest.max(0.0);
        }
        weighed
    }
}

impl ActionModel {
    fn score(&self, subject: &Attributes, action: &Attributes) -> f64 {
        let numeric = |terms: &[Numeric], attributes: &Attributes| -> f64 {
            terms.iter().map(|term| term.score(attributes.numeric.get(&term.attribute_key))).sum()
        };
        let categorical = |terms: &[Categorical], attributes: &Attributes| -> f64 {
            terms.iter().map(|term| term.score(attributes.categorical.get(&term.attribute_key))).sum()
        };
        self.intercept
            + numeric(&self.action_numeric_coefficients, action)
            + categorical(&self.action_categorical_coefficients, action)
            + numeric(&self.subject_numeric_coefficients, subject)
            + categorical(&self.subject_categorical_coefficients, subject)
    }
}

impl Numeric {
    fn score(&self, value: Option<&f64>) -> f64 {
        match value {
            Some(value) if value.is_finite() => value * self.coefficient,
            _ => self.missing_value_coefficient,
        }
    }
}

impl Categorical {
    fn score(&self, value: Option<&String>) -> f64 {
        value
            .and_then(|value| self.value_coefficients.get(value))
            .copied()
            .unwrap_or(self.missing_value_coefficient)
    }
}

/// The first 4 bytes of MD5, modulo the number of shards.
fn shard(input: &str) -> u32 {
    let digest = Md5::digest(input.as_bytes());
    digest.iter().take(4).fold(0, |bits: u32, byte| (bits << 8) | u32::from(*byte)) % SHARDS
}

#[derive(Debug, Deserialize)]
struct Flags {
    #[serde(default)]
    bandits: IndexMap<String, Vec<Variation>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Variation {
    flag_key: String,
    variation_value: String,
}

#[derive(Debug, Deserialize)]
struct Models {
    bandits: IndexMap<String, Bandit>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bandit {
    model_data: Model,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    gamma: f64,
    default_action_score: f64,
    action_probability_floor: f64,
    #[serde(default)]
    coefficients: BTreeMap<String, ActionModel>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ActionModel {
    intercept: f64,
    #[serde(default)]
    action_numeric_coefficients: Vec<Numeric>,
    #[serde(default)]
    action_categorical_coefficients: Vec<Categorical>,
    #[serde(default)]
    subject_numeric_coefficients: Vec<Numeric>,
    #[serde(default)]
    subject_categorical_coefficients: Vec<Categorical>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Numeric {
    attribute_key: String,
    coefficient: f64,
    missing_value_coefficient: f64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Categorical {
    attribute_key: String,
    #[serde(default)]
    value_coefficients: BTreeMap<String, f64>,
    missing_value_coefficient: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_as_the_notes_say() {
        for (input, expected) in [
            ("banner_bandit_flag-alice", 8310),
            ("banner_bandit_flag-alice-nike", 5395),
            ("banner_bandit_flag-alice-adidas", 3180),
            ("banner_bandit_flag-alice-reebok", 8434),
        ] {
            assert_eq!(shard(input), expected, "{input}");
        }
    }

    fn model(floor: f64) -> Model {
        Model {
            gamma: 1.0,
            default_action_score: 0.0,
            action_probability_floor: floor,
            coefficients: BTreeMap::new(),
        }
    }

    #[test]
    fn shares_add_up_and_the_floor_is_kept() {
        let actions: Vec<_> = ["a", "b", "c", "d"].map(Action::new).into();
        for floor in [0.0, 0.4, 1.0] {
            let weighed = model(floor).weigh("f", "s", &Attributes::default(), &actions);
            let sum: f64 = weighed.iter().map(|(_, weight)| weight).sum();
            assert!((sum - 1.0).abs() < 1e-9, "{floor}");
            assert!(weighed.iter().all(|(_, weight)| *weight >= floor / 4.0 - 1e-9), "{floor}");
        }
        assert!(model(0.0).weigh("f", "s", &Attributes::default(), &[]).is_empty());
    }

    #[test]
    fn numbers_that_are_none_count_as_missing() {
        let term =
            Numeric { attribute_key: "x".to_owned(), coefficient: 2.0, missing_value_coefficient: -1.0 };
        for (value, expected) in
            [(Some(3.0), 6.0), (Some(f64::NAN), -1.0), (Some(f64::INFINITY), -1.0), (None, -1.0)]
        {
            assert!((term.score(value.as_ref()) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn attributes_are_sorted_by_group_or_by_type() {
        let read = |text: &str| Attributes::from_object(&serde_json::from_str(text).unwrap());
        let grouped = read(
            r#"{"numericAttributes": {"a": 1, "b": "2", "c": null}, "categoricalAttributes": {"d": 3, "e": true, "f": null, "g": "x"}}"#,
        );
        assert_eq!(grouped.numeric.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(
            grouped.categorical.iter().map(|(name, text)| format!("{name}{text}")).collect::<Vec<_>>(),
            ["d3", "etrue", "gx"]
        );
        let loose = read(r#"{"a": 1, "b": "2", "c": true, "d": [1]}"#);
        assert_eq!((loose.numeric.len(), loose.categorical.len()), (1, 2));
    }
}
