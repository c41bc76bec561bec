//! GrowthBook's features: how payloads become the model, and their exact results.
//!
//! | GrowthBook | here |
//! | --- | --- |
//! | attributes | attributes; `id` is the context's key, too ([`context`] builds it all) |
//! | the rest of what is known of a user | [`User`], an extension of the context |
//! | feature | flag; its default value is variant 0 |
//! | rule that forces a value | rule with that variant |
//! | rule with variations | rule that runs the experiment ([`FeatureResult`] has what it came to) |
//! | gating prerequisite | a rule before it, that ends in no value |
//! | saved groups | taken into the conditions that ask for them |
//!
//! Conditions coerce as JavaScript does. Patterns are rewritten for Rust's `regex`; one that it can't honour (look-around) is false, and told.
//! Where the cases decide nothing: forced features count for [`FeatureResult`] and parents, not for the engine's own answers; conditions
//! nested more than 24 deep are false.

mod address;
mod coercion;
mod compile;
mod condition;
#[cfg(feature = "growthbook-decrypt")]
mod decrypt;
mod document;
mod experiment;
mod pattern;
mod placing;
mod result;
#[cfg(test)]
mod tests;
mod user;
mod version;

use std::collections::{BTreeMap, BTreeSet};

#[cfg(feature = "growthbook-decrypt")]
pub use self::decrypt::decrypt;
#[cfg(feature = "testkit")]
pub(crate) use self::{
    address::query_override,
    placing::{Namespace, choose, equal_weights, hash, ranges},
};
use self::{
    compile::Compiler,
    condition::{Groups, Reader, Root},
};
pub use self::{
    result::{FeatureResult, Source, experiment_result},
    user::{Override, User, context},
};
use super::{Format, FormatError, reading};
use crate::{
    context::Context,
    engine::Ruleset,
    format::reading::Pairs,
    model::{Fault, FaultCode, Flag, FlagSet, Warning},
    value::{Entries, Value},
};

const NAME: &str = "growthbook";

/// The fact under which a set lists the attributes that its experiments hash.
const STICKY: &str = "growthbook.stickyAttributes";

/// The fact under which a set keeps what rules without an experiment tell of experiments that decided elsewhere: by feature, then by rule.
const TRACKS: &str = "growthbook.tracks";

/// Reads GrowthBook's payloads.
///
/// ```
/// use flowline_toggles::{
///     engine::{Fixed, Ruleset},
///     format::{Format, growthbook::{FeatureResult, GrowthBook, Source, User, context}},
/// };
/// let set = GrowthBook::new().read(r#"{"features": {"limit": {"defaultValue": 10,
///     "rules": [{"id": "gold", "condition": {"plan": "gold"}, "force": 50}]}}}"#)?;
/// let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
/// let gold = context(&serde_json::from_str(r#"{"id": "alice", "plan": "gold"}"#).unwrap(), User::default());
/// let result = FeatureResult::of(&ruleset, "limit", &gold, &fixed);
/// assert_eq!((result.value.as_i64(), result.source, result.rule_id.as_str()), (Some(50), Source::Force, "gold"));
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
#[derive(Clone, Default)]
pub struct GrowthBook {
    key: Option<String>,
}

impl std::fmt::Debug for GrowthBook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowthBook").field("decrypts", &self.key.is_some()).finish()
    }
}

impl GrowthBook {
    /// Without a key: an encrypted payload is an error.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with the key of encrypted payloads: 16 bytes in base64.
    #[cfg(feature = "growthbook-decrypt")]
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Reads a payload, and with it experiments of their own: each a flag by the experiment's key, whose result
    /// [`experiment_result`] tells. A feature of the same key is replaced.
    ///
    /// # Errors
    /// If the text is no payload. An experiment that can't be read is among the warnings.
    pub fn experiments(&self, payload: &str, experiments: &[&str]) -> Result<FlagSet, FormatError> {
        let mut set = self.read(payload)?;
        let document = document(payload)?;
        let (groups, bandits) = (groups(&document, &mut Vec::new()), bandits(&document, &mut Vec::new()));
        for (index, text) in experiments.iter().enumerate() {
            let source = reading::Source::new(NAME, text);
            let raw: reading::Raw<'_> =
                serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))?;
            match source.part::<document::Rule<'_>>(raw) {
                Ok(rule) => {
                    let mut sticky = BTreeSet::new();
                    let mut compiler = Compiler {
                        source: &source,
                        groups: &groups,
                        bandits: &bandits,
                        sticky: &mut sticky,
                        tracks: &mut Entries::new(),
                        warnings: &mut set.warnings,
                    };
                    let flag = compiler.bare(raw, rule);
                    set.flags.push(flag);
                }
                Err(error) => {
                    set.warnings.push(error.warning(None, &format!("experiments/{index}"), "it is skipped"));
                }
            }
        }
        Ok(set)
    }

    #[cfg(feature = "growthbook-decrypt")]
    fn decrypted(&self, text: Option<&String>) -> Result<Option<String>, FormatError> {
        let Some(text) = text else { return Ok(None) };
        let Some(key) = &self.key else {
            return Err(FormatError::new(NAME, "it is encrypted, and no key was given"));
        };
        match decrypt(text, key) {
            Some(text) => Ok(Some(text)),
            None => Err(FormatError::new(NAME, "it can't be decrypted with the key that was given")),
        }
    }

    #[cfg(not(feature = "growthbook-decrypt"))]
    #[expect(clippy::unused_self, reason = "with the feature, it has a key")]
    fn decrypted(&self, text: Option<&String>) -> Result<Option<String>, FormatError> {
        match text {
            None => Ok(None),
            Some(_) => {
                Err(FormatError::new(NAME, "it is encrypted; that needs the feature `growthbook-decrypt`"))
            }
        }
    }
}

impl Format for GrowthBook {
    fn name(&self) -> &'static str {
        NAME
    }

    fn read(&self, text: &str) -> Result<FlagSet, FormatError> {
        let mut document = document(text)?;
        let features = self.decrypted(document.encrypted_features.as_ref())?;
        let saved = self.decrypted(document.encrypted_saved_groups.as_ref())?;
        let pairs = |text: &'_ String| -> Result<(), FormatError> {
            serde_json::from_str::<Pairs<'_>>(text).map(drop).map_err(|error| FormatError::json(NAME, error))
        };
        features.as_ref().map_or(Ok(()), pairs)?;
        let mut set = FlagSet::new(NAME);
        if let Some(saved) = &saved {
            document.saved_groups =
                Some(serde_json::from_str(saved).map_err(|error| FormatError::json(NAME, error))?);
        }
        let source = reading::Source::new(NAME, features.as_deref().unwrap_or(text));
        if let Some(features) = &features {
            document.features =
                Some(serde_json::from_str(features).map_err(|error| FormatError::json(NAME, error))?);
        }
        let groups = groups(&document, &mut set.warnings);
        let bandits = bandits(&document, &mut set.warnings);
        let mut sticky = BTreeSet::new();
        let mut tracks = Entries::new();
        set.warnings.extend(document.features.iter().flat_map(|features| features.twice(true, "")));
        for (key, raw) in document.features.into_iter().flat_map(|features| features.0) {
            match source.part::<document::Feature<'_>>(raw) {
                Ok(feature) => {
                    let mut compiler = Compiler {
                        source: &source,
                        groups: &groups,
                        bandits: &bandits,
                        sticky: &mut sticky,
                        tracks: &mut tracks,
                        warnings: &mut set.warnings,
                    };
                    let flag = compiler.feature(&key, feature);
                    set.flags.push(flag);
                }
                Err(error) => {
                    let fault = Fault::new(FaultCode::ParseError, error.problem.as_str());
                    set.flags.push(Flag::faulty(&*key, fault));
                    set.warnings.push(error.warning(Some(&key), "", "the feature is an error"));
                }
            }
        }
        if !tracks.is_empty() {
            set.facts.insert(TRACKS.to_owned(), Value::object(tracks));
        }
        if !sticky.is_empty() {
            let attributes = sticky.into_iter().map(Value::from).collect::<Vec<_>>();
            set.facts.insert(STICKY.to_owned(), attributes.into());
        }
        Ok(set)
    }
}

fn document(text: &str) -> Result<document::Document<'_>, FormatError> {
    serde_json::from_str(text).map_err(|error| FormatError::json(NAME, error))
}

fn groups(document: &document::Document<'_>, warnings: &mut Vec<Warning>) -> Groups {
    read_all(document.saved_groups.as_ref(), "savedGroups", "it counts as empty", warnings)
}

fn bandits(
    document: &document::Document<'_>,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<String, document::Bandit> {
    let meaning = "experiments that name it are plain ones";
    read_all(document.contextual_bandits.as_ref(), "contextualBandits", meaning, warnings)
}

fn read_all<T: serde::de::DeserializeOwned>(
    pairs: Option<&Pairs<'_>>,
    place: &str,
    meaning: &str,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (key, raw) in pairs.iter().flat_map(|pairs| &pairs.0) {
        match serde_json::from_str(raw.get()) {
            Ok(one) => drop(all.insert(key.to_string(), one)),
            Err(error) => {
                warnings.push(Warning::general(format!("{place}/{key}"), format!("{error}; {meaning}")));
            }
        }
    }
    all
}

/// The keys of the documents of sticky buckets that matter for a context: one for each attribute that an experiment hashes and the
/// context has.
pub fn sticky_keys(ruleset: &Ruleset, context: &Context) -> Vec<String> {
    let attributes = ruleset.facts().get(STICKY).and_then(Value::as_list).unwrap_or_default();
    let attributes = attributes.iter().filter_map(Value::as_str).map(placing::Attribute::new);
    attributes
        .filter_map(|attribute| Some(experiment::sticky_key(&attribute, attribute.value(context)?)))
        .collect()
}

/// Whether `attributes` satisfy a condition, with saved groups by id.
pub fn satisfies(condition: &Value, attributes: &Value, groups: &BTreeMap<String, Vec<Value>>) -> bool {
    Reader::new(Some(groups)).condition(condition).holds(Root::Value(attributes))
}
