//! GrowthBook's exact results.

use serde::Serialize;

use super::{experiment::RESULT, user::User};
use crate::{
    context::Context,
    engine::{Ambient, Came, Evaluation, Observer, Part, Ruleset, Stage},
    model::{FaultCode, Range},
    value::Value,
};

/// What a feature came to, in GrowthBook's words.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureResult {
    /// The value; null if there is none.
    pub value: Value,
    /// Whether JavaScript takes the value for true.
    pub on: bool,
    /// The opposite of `on`.
    pub off: bool,
    /// What decided.
    pub source: Source,
    /// The id of the rule that decided; empty if none did or it has none.
    pub rule_id: String,
    /// The experiment that decided, with what its rule sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment: Option<Value>,
    /// What that experiment came to: `key`, `variationId`, `inExperiment`, `hashUsed`, `hashAttribute`, `hashValue`, `bucket` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experiment_result: Option<Value>,
    /// Documents of sticky buckets to be kept, as they are now: `attributeName`, `attributeValue`, `assignments`.
    #[serde(skip)]
    pub sticky: Vec<Value>,
    /// All experiments that somebody takes part in by this evaluation, passed-through ones and those of prerequisites included:
    /// `experiment`, `result`, `sticky`; and those that decided elsewhere what a rule forces here (its `tracks`).
    #[serde(skip)]
    pub exposures: Vec<Value>,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "GrowthBook's names")]
pub enum Source {
    UnknownFeature,
    DefaultValue,
    Force,
    Experiment,
    Override,
    Prerequisite,
    CyclicPrerequisite,
}

impl FeatureResult {
    /// Evaluates `feature`.
    pub fn of(ruleset: &Ruleset, feature: &str, context: &Context, ambient: &dyn Ambient) -> Self {
        let user = context.extension::<User>();
        if let Some(value) = user.and_then(|user| user.forced_feature_values.get(feature)) {
            return Self::new(value.clone(), Source::Override);
        }
        let mut listener = Listener::default();
        let evaluation = ruleset.observed(feature, context, ambient, &mut listener);
        let mut result = Self::told(&evaluation, listener.told);
        if let (Source::Force, Stage::Rule { index, .. }) = (result.source, evaluation.stage) {
            let tracks = ruleset.facts().get(super::TRACKS).and_then(|all| all.get(feature));
            let tracks = tracks.and_then(|rules| rules.get(&index.to_string())).and_then(Value::as_list);
            result.exposures.extend(tracks.into_iter().flatten().cloned());
        }
        result
    }

    fn new(value: Value, source: Source) -> Self {
        let on = super::coercion::truthy(&value);
        Self {
            value,
            on,
            off: !on,
            source,
            rule_id: String::new(),
            experiment: None,
            experiment_result: None,
            sticky: Vec::new(),
            exposures: Vec::new(),
        }
    }

    fn told(evaluation: &Evaluation<'_>, told: Vec<Told>) -> Self {
        let value = evaluation.variant.map(|variant| variant.value.clone()).unwrap_or_default();
        let source = match (&evaluation.error, evaluation.stage) {
            (Some(failure), _) if failure.code == FaultCode::General => Source::CyclicPrerequisite,
            (Some(_), _) => Source::UnknownFeature,
            (None, Stage::Rule { .. }) if evaluation.variant.is_none() => Source::Prerequisite,
            (None, Stage::Rule { .. }) if evaluation.experiment => Source::Experiment,
            (None, Stage::Rule { .. }) => Source::Force,
            (None, _) => Source::DefaultValue,
        };
        let mut result = Self::new(value, source);
        if matches!(source, Source::Force | Source::Experiment) {
            evaluation.rule_id().unwrap_or_default().clone_into(&mut result.rule_id);
        }
        let last = told.iter().rfind(|told| told.own && told.entered());
        if let Some(last) = last.filter(|_| source == Source::Experiment) {
            result.experiment = last.value.get("experiment").cloned();
            result.experiment_result = last.value.get("result").cloned();
        }
        for told in told {
            result.remember(told.value.get("sticky"));
            // The same prerequisite may be asked more than once.
            if told.entered() && !result.exposures.contains(&told.value) {
                result.exposures.push(told.value);
            }
        }
        result
    }

    /// Takes a document of sticky buckets; what was assigned before it, under the same attribute, stays.
    fn remember(&mut self, document: Option<&Value>) {
        let Some(document) = document.filter(|document| !document.is_null()) else { return };
        let same = |kept: &&mut Value| {
            let equal = |name: &str| kept.get(name) == document.get(name);
            equal("attributeName") && equal("attributeValue")
        };
        let Some(kept) = self.sticky.iter_mut().find(same) else {
            return self.sticky.push(document.clone());
        };
        let assignments = |of: &Value| of.get("assignments").and_then(Value::as_object).cloned();
        let mut all = assignments(kept).unwrap_or_default();
        all.extend(assignments(document).unwrap_or_default());
        if let Some(mut entries) = kept.as_object().cloned() {
            entries.insert("assignments".into(), Value::object(all));
            *kept = Value::object(entries);
        }
    }
}

/// What the experiment `key` of its own ([`GrowthBook::experiments`](super::GrowthBook::experiments)) comes to: `value`, `inExperiment`,
/// `hashUsed` and so on; `None` if there is none.
pub fn experiment_result(
    ruleset: &Ruleset,
    key: &str,
    context: &Context,
    ambient: &dyn Ambient,
) -> Option<Value> {
    let mut listener = Listener::default();
    ruleset.observed(key, context, ambient, &mut listener);
    listener.told.iter().rfind(|told| told.own)?.value.get("result").cloned()
}

/// What an experiment came to.
#[derive(Debug)]
struct Told {
    value: Value,
    /// It belongs to the flag that was asked for, not to a prerequisite.
    own: bool,
}

impl Told {
    /// Whether somebody takes part in it.
    fn entered(&self) -> bool {
        let inside = self.value.get("result").and_then(|result| result.get("inExperiment"));
        inside.and_then(Value::as_bool).unwrap_or_default()
    }
}

/// Hears the experiments of the flag that was asked for and of its prerequisites.
#[derive(Debug, Default)]
struct Listener {
    /// For each open part, whether it is a flag.
    open: Vec<bool>,
    flags: usize,
    told: Vec<Told>,
}

impl Observer for Listener {
    fn recording(&self) -> bool {
        true
    }

    fn open(&mut self, part: Part, _: String) {
        let flag = part == Part::Flag;
        self.flags += usize::from(flag);
        self.open.push(flag);
    }

    fn saw(&mut self, _: Option<&Value>) {}

    fn placed(&mut self, _: f64, _: Option<Range>) {}

    fn note(&mut self, name: &'static str, value: Value) {
        if name == RESULT {
            self.told.push(Told { value, own: self.flags == 1 });
        }
    }

    fn close(&mut self, _: Came) {
        self.flags -= usize::from(self.open.pop().unwrap_or_default());
    }
}
