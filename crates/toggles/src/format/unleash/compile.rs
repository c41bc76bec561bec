//! Unleash's features and segments as flags and segments of the model.

use std::sync::{Arc, LazyLock};

use super::{
    Unleash, constraint,
    document::{Constraint, Dependency, Feature, Segment, Strategy, Variant},
    strategy::{self, Parameters, Stickiness},
};
use crate::{
    engine::rfc3339,
    format::reading::{At, Text},
    model::{
        Condition, Facts, Flag, FlagCheck, FlagKind, MissingInput, Outcome, PastEnd, Prerequisite, Reason,
        Rule, Slice, Split, Switch, Test, Truth, ValueType, Warning,
    },
    value::{Name, Value},
};

/// Index of the variant of a feature that is off.
pub(super) const OFF: usize = 0;
/// Index of the variant of a feature that is on and has no variant.
pub(super) const ON: usize = 1;

/// The seed of the hash that chooses variants.
const VARIANT_SEED: u32 = 86_028_157;

/// What one feature or segment is compiled with.
pub(super) struct Compiler<'c> {
    pub(super) front: &'c Unleash,
    pub(super) flag: &'c str,
    pub(super) warnings: &'c mut Vec<Warning>,
    /// A segment's problems are the document's, not a flag's.
    pub(super) segment: bool,
}

impl Compiler<'_> {
    pub(super) fn warn(&mut self, at: &At<'_>, message: impl Into<String>) {
        self.warnings.push(if self.segment {
            Warning::general(format!("segments/{}/{at}", self.flag), message)
        } else {
            Warning::of(self.flag, at.to_string(), message)
        });
    }

    fn constraints(
        &mut self,
        constraints: Vec<Constraint<'_>>,
        at: &At<'_>,
        conditions: &mut Vec<Condition>,
    ) {
        for (index, constraint) in constraints.into_iter().enumerate() {
            conditions.push(constraint::compile(constraint, &at.at("constraints", index), self));
        }
    }

    /// The outcome of choosing among `variants`, which are added to `all`; `None` if there are none.
    fn choice(
        &mut self,
        variants: Vec<Variant<'_>>,
        stickiness: Option<&str>,
        group: &str,
        at: &At<'_>,
        all: &mut Vec<crate::model::Variant>,
    ) -> Option<Outcome> {
        let first = variants.first()?;
        let stickiness =
            stickiness.or(first.stickiness.as_ref().map(Text::as_str)).unwrap_or_default().to_owned();
        let start = all.len();
        let mut total = 0.0;
        let mut overrides = Vec::new();
        let mut weights = Vec::with_capacity(variants.len());
        for (index, variant) in variants.into_iter().enumerate() {
            for one in variant.overrides {
                let values = one.values.into_iter().map(Text::into_boxed);
                let test =
                    Test::new(constraint::subject(one.context_name.as_str()), constraint::one_of(values));
                overrides.push(Rule {
                    reason: Some(Reason::TargetingMatch),
                    ..Rule::new(test.into(), Outcome::Variant(start + index))
                });
            }
            let weight = if variant.weight >= 0.0 { variant.weight.floor() } else { 0.0 };
            total += weight;
            weights.push((start + index, weight));
            all.push(chosen(variant.name.as_str(), variant.payload));
        }
        if total > f64::from(u32::MAX) {
            self.warn(&at.below("variants"), "the weights are too large; none is chosen");
            total = 0.0;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
        let split = match total as u32 {
            0 => Outcome::Variant(ON),
            of => Outcome::Split(Box::new(Split {
                bucketing: Stickiness::of(Some(&stickiness)).bucketing(
                    group,
                    VARIANT_SEED,
                    of,
                    MissingInput::Random,
                ),
                slices: slices(weights),
                past_end: PastEnd::Last,
                on: Some(true),
            })),
        };
        if overrides.is_empty() {
            return Some(split);
        }
        overrides.push(Rule::new(Condition::ALWAYS, split));
        Some(Outcome::Rules(overrides))
    }

    fn strategy(
        &mut self,
        strategy: Strategy<'_>,
        index: usize,
        feature: Option<&Outcome>,
        variants: &mut Vec<crate::model::Variant>,
    ) -> Rule {
        let at = At::element("strategies", index);
        let mut parameters = Parameters::default();
        for (name, raw) in strategy.parameters.into_iter().flat_map(|pairs| pairs.0) {
            match serde_json::from_str::<Option<Text<'_>>>(raw.get()) {
                Ok(Some(text)) => parameters.0.push((name, text.0)),
                Ok(None) => {}
                Err(_) => self.warn(&at.below("parameters").below(&name), "is no text and counts as absent"),
            }
        }
        let name = strategy.name.as_str();
        let mut conditions = Vec::new();
        self.constraints(strategy.constraints, &at, &mut conditions);
        conditions.extend(strategy.segments.iter().map(|id| Condition::Segment {
            name: Name::new(id.as_str()),
            negate: false,
            unknown: Truth::False,
        }));
        let own = strategy::compile(name, &parameters, &at, self);
        let bare = conditions.is_empty() && name == "default";
        let share = name.contains("ollout");
        if !matches!(own, Condition::Constant(Truth::True)) {
            conditions.push(own);
        }
        let group = parameters.get("groupId").unwrap_or(self.flag);
        let stickiness = parameters.get("stickiness").unwrap_or_default();
        let choice = self.choice(strategy.variants, Some(stickiness), group, &at, variants);
        let then = choice.or_else(|| feature.cloned()).unwrap_or(Outcome::Variant(ON));
        let plain = matches!(then, Outcome::Variant(_));
        Rule {
            reason: match (plain, index) {
                (true, 0) if bare => Some(Reason::Static),
                (true, _) if share => Some(Reason::Split),
                _ => None,
            },
            ..Rule::new(Condition::All(conditions), then)
        }
    }

    pub(super) fn feature(&mut self, feature: Feature<'_>) -> Flag {
        let facts = facts(&feature);
        let mut variants = Vec::new();
        if !feature.variants.is_empty() || feature.strategies.iter().any(|one| !one.variants.is_empty()) {
            variants.extend_from_slice(&SWITCH);
        }
        let own = self.choice(feature.variants, None, self.flag, &At::top(""), &mut variants);
        let rules: Vec<_> = feature
            .strategies
            .into_iter()
            .enumerate()
            .map(|(index, strategy)| self.strategy(strategy, index, own.as_ref(), &mut variants))
            .collect();
        let (rules, fallback, fallback_reason) = match everybodys(&rules) {
            // Whoever asks gets it, so there is nothing to look at.
            Some((outcome, reason)) => (Vec::new(), outcome, reason),
            None if rules.is_empty() => (rules, own.unwrap_or(Outcome::Variant(ON)), None),
            None => (rules, Outcome::Variant(OFF), None),
        };
        let (value_type, variants) = if variants.is_empty() {
            (ValueType::Boolean, Arc::clone(&SWITCH))
        } else {
            (ValueType::Any, variants.into())
        };
        Flag {
            switch: if feature.enabled { Switch::On } else { Switch::Off },
            prerequisites: feature.dependencies.into_iter().map(dependency).collect(),
            rules,
            fallback,
            fallback_reason,
            off: Outcome::Variant(OFF),
            facts,
            ..Flag::new(self.flag, value_type, variants)
        }
    }

    pub(super) fn segment(&mut self, segment: Segment<'_>) -> crate::model::Segment {
        let mut conditions = Vec::new();
        self.constraints(segment.constraints, &At::top(""), &mut conditions);
        crate::model::Segment { name: Name::new(self.flag), condition: Condition::All(conditions) }
    }
}

/// The outcome of the first rule and its reason, if everybody gets it by that rule.
fn everybodys(rules: &[Rule]) -> Option<(Outcome, Option<Reason>)> {
    let Rule { when: Condition::All(parts), then, reason, .. } = rules.first()? else { return None };
    let plain = matches!(then, Outcome::Variant(_) | Outcome::Split(_));
    (parts.is_empty() && plain).then(|| (then.clone(), *reason))
}

/// The variants of a feature that has none. They have no names, so that no dependency's list of names fits them by chance.
static SWITCH: LazyLock<Arc<[crate::model::Variant]>> =
    LazyLock::new(|| [crate::model::Variant::new("", false), crate::model::Variant::new("", true)].into());

/// One behind the other; points start at 1, and each end belongs to the slice before it.
fn slices(weights: Vec<(usize, f64)>) -> Vec<Slice> {
    Split::cumulative(weights, 1.0, true, false)
}

/// A variant that counts as on, whatever its payload. Its value is the payload, read by its type; without one, true.
fn chosen(name: &str, payload: Option<Value>) -> crate::model::Variant {
    let value = match &payload {
        None | Some(Value::Null) => Value::Bool(true),
        Some(payload) => {
            let (kind, value) = (payload.get("type").and_then(Value::as_str), payload.get("value"));
            let text = value.and_then(Value::as_str);
            match (kind, text) {
                (Some("json" | "number"), Some(text)) => {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
                }
                _ => value.cloned().unwrap_or_default(),
            }
        }
    };
    let detail = payload.filter(|payload| !payload.is_null()).map(Arc::new);
    crate::model::Variant { on: true, detail, ..crate::model::Variant::new(name, value) }
}

fn dependency(dependency: Dependency<'_>) -> Prerequisite {
    let enabled = dependency.enabled.unwrap_or(true);
    let mut names: Vec<Box<str>> = dependency.variants.into_iter().map(Text::into_boxed).collect();
    if names.iter().any(|name| **name == *"disabled") {
        // What Unleash calls the variant of a feature that is on and has none.
        names.push("".into());
    }
    Prerequisite {
        check: FlagCheck {
            on: Some(enabled),
            variants: (enabled && !names.is_empty()).then_some(names),
            leaf: true,
            cyclic: Truth::False,
            ..FlagCheck::on(dependency.feature.into_boxed())
        },
        otherwise: None,
    }
}

/// What people know; `None` if it is what nearly all features have.
fn facts(feature: &Feature<'_>) -> Option<Arc<Facts>> {
    let mut facts = Facts {
        description: feature
            .description
            .as_ref()
            .map(|text| text.as_str().to_owned())
            .filter(|text| !text.is_empty()),
        kind: match feature.kind.as_ref().map(Text::as_str) {
            Some("experiment") => FlagKind::Experiment,
            Some("operational" | "kill-switch") => FlagKind::Ops,
            Some("permission") => FlagKind::Permission,
            _ => FlagKind::Release,
        },
        created: feature.created_at.as_ref().and_then(|text| rfc3339(text.as_str())),
        ..Facts::default()
    };
    if let Some(project) = feature.project.as_ref().map(Text::as_str).filter(|project| *project != "default")
    {
        facts.metadata.insert("project".to_owned(), project.into());
    }
    for (name, set) in [("stale", feature.stale), ("impressionData", feature.impression_data)] {
        if set {
            facts.metadata.insert(name.to_owned(), true.into());
        }
    }
    (facts != Facts::default()).then(|| Arc::new(facts))
}
