//! GrowthBook's features as flags of the model.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    address::{Target, UrlPattern},
    coercion::truthy,
    condition::{Cond, Groups, Reader},
    document,
    experiment::{Bandit, Experiment, Gate, Leaf, Meta, Parent, Rollout, Status},
    pattern,
    placing::{Attribute, Filter, Namespace, Placing, ranges},
};
use crate::{
    format::reading::{Raw, Source, Text},
    model::{Condition, FaultCode, Flag, OnBroken, Outcome, Reason, Rule, ValueType, Variant, Warning},
    value::{Entries, Value},
};

/// What the features of one payload are compiled with.
pub(super) struct Compiler<'a, 'c> {
    pub(super) source: &'c Source<'a>,
    pub(super) groups: &'c Groups,
    pub(super) bandits: &'c BTreeMap<String, document::Bandit>,
    pub(super) sticky: &'c mut std::collections::BTreeSet<String>,
    /// By feature, then by the rule's index among the compiled ones.
    pub(super) tracks: &'c mut Entries,
    pub(super) warnings: &'c mut Vec<Warning>,
}

impl<'a> Compiler<'a, '_> {
    pub(super) fn feature(&mut self, key: &str, feature: document::Feature<'a>) -> Flag {
        let mut variants = vec![Variant::new("default", feature.default_value)];
        let mut rules = Vec::with_capacity(feature.rules.len());
        for (index, raw) in feature.rules.into_iter().enumerate() {
            let at = format!("rules/{index}");
            match self.source.part::<document::Rule<'_>>(raw) {
                Ok(rule) => self.rule(key, rule, raw, &at, &mut variants, &mut rules),
                Err(error) => self.warnings.push(error.warning(Some(key), &at, "the rule is skipped")),
            }
        }
        Flag {
            rules,
            fallback: Outcome::Variant(0),
            off: Outcome::Variant(0),
            ..Flag::new(key, value_type(&variants), variants)
        }
    }

    fn rule(
        &mut self,
        flag: &str,
        mut rule: document::Rule<'a>,
        raw: Raw<'a>,
        at: &str,
        variants: &mut Vec<Variant>,
        rules: &mut Vec<Rule>,
    ) {
        let mut when = Vec::new();
        for (number, parent) in std::mem::take(&mut rule.parent_conditions).into_iter().enumerate() {
            let at = format!("{at}/parentConditions/{number}");
            let parent_condition = |compiler: &mut Self, negate| {
                let condition = compiler.condition(flag, &parent.condition, &at, false);
                let feature = parent.id.as_str().into();
                Condition::Custom(Arc::new(Parent { feature, condition, negate }))
            };
            if parent.gate {
                let failed = parent_condition(self, true);
                let before = when.iter().cloned().chain([failed]).collect();
                rules.push(Rule {
                    on_broken: OnBroken::Fault(FaultCode::General),
                    ..Rule::new(Condition::All(before), Outcome::Custom(Arc::new(Gate)))
                });
            } else {
                when.push(parent_condition(self, false));
            }
        }
        let filters: Option<Vec<_>> = rule.filters.as_ref().map(|all| all.iter().map(filter).collect());
        when.extend(filters.iter().flatten().cloned().map(|filter| Condition::Custom(Arc::new(filter))));
        if rule.variations.is_some() || rule.contextual_variations.is_some() {
            self.sticks(&rule);
        }
        let id = Some(rule.id.as_str()).filter(|id| !id.is_empty()).map(Into::into);
        let then = if let Some(force) = rule.force.take() {
            if rule.tracks.as_list().is_some_and(|tracks| !tracks.is_empty()) {
                let all = self.tracks.entry(flag.into()).or_default();
                let mut by_rule = all.as_object().cloned().unwrap_or_default();
                by_rule.insert(rules.len().to_string().into(), std::mem::take(&mut rule.tracks));
                *all = Value::object(by_rule);
            }
            if truthy(&rule.condition) {
                when.push(
                    self.condition(flag, &rule.condition, &format!("{at}/condition"), true).into_condition(),
                );
            }
            if rule.range.is_some() || rule.coverage.is_some() {
                let seed = rule.seed.as_ref().map(Text::as_str).filter(|seed| !seed.is_empty());
                when.push(Condition::Custom(Arc::new(Rollout {
                    attribute: Attribute::or_id(rule.hash_attribute.as_ref().map(Text::as_str)),
                    fallback: fallback(&rule),
                    placing: Placing::new(seed.unwrap_or(flag), version(rule.hash_version, 1.0)),
                    range: rule.range,
                    coverage: rule.coverage.unwrap_or(0.0),
                })));
            }
            let same = variants.iter().position(|variant| {
                *variant.name != *"default" && super::coercion::same_text(&variant.value, &force)
            });
            let index = same.unwrap_or_else(|| {
                variants.push(Variant::new(format!("force-{}", variants.len()), force));
                variants.len() - 1
            });
            Outcome::Variant(index)
        } else {
            let plain = rule.variations.take();
            let Some(values) = rule.contextual_variations.take().or(plain) else {
                self.warnings.push(Warning::of(flag, at, "it serves nothing; the rule is skipped"));
                // Whether its prerequisites depend on this feature shows all the same.
                if !when.is_empty() {
                    rules.push(Rule {
                        on_broken: OnBroken::Fault(FaultCode::General),
                        ..Rule::new(Condition::All(when), Outcome::GoOn)
                    });
                }
                return;
            };
            let experiment = self.experiment(flag, rule, values, raw, at, filters, variants, false);
            Outcome::Custom(Arc::new(experiment))
        };
        rules.push(Rule {
            id,
            on_broken: OnBroken::Fault(FaultCode::General),
            ..Rule::new(Condition::All(when), then)
        });
    }

    /// A flag that runs an experiment of its own.
    pub(super) fn bare(&mut self, raw: Raw<'a>, mut rule: document::Rule<'a>) -> Flag {
        let key = rule.key.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default();
        self.sticks(&rule);
        let values = rule.variations.take().unwrap_or_default();
        let filters = rule.filters.as_ref().map(|all| all.iter().map(filter).collect());
        let mut variants = Vec::new();
        let experiment = self.experiment(&key, rule, values, raw, "", filters, &mut variants, true);
        if variants.is_empty() {
            variants.push(Variant::new("0", Value::Null));
        }
        Flag {
            fallback: Outcome::Custom(Arc::new(experiment)),
            fallback_reason: Some(Reason::Default),
            ..Flag::new(key, value_type(&variants), variants)
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what a rule and an experiment of its own have in common")]
    fn experiment(
        &mut self,
        flag: &str,
        rule: document::Rule<'a>,
        values: Vec<Value>,
        raw: Raw<'a>,
        at: &str,
        filters: Option<Vec<Filter>>,
        variants: &mut Vec<Variant>,
        bare: bool,
    ) -> Experiment {
        let key = rule.key.as_ref().map(Text::as_str).filter(|key| !key.is_empty()).unwrap_or(flag);
        let (first, count) = (variants.len(), values.len());
        for (index, value) in values.iter().enumerate() {
            let named = rule.meta.get(index).map(|meta| meta.key.as_str()).filter(|name| !name.is_empty());
            let name = named.map_or_else(|| index.to_string(), str::to_owned);
            variants.push(Variant::new(name, value.clone()));
        }
        let attribute = Attribute::or_id(rule.hash_attribute.as_ref().map(Text::as_str));
        let fallback = fallback(&rule);
        let coverage = rule.coverage.unwrap_or(1.0);
        let bandit = rule.contextual_bandit_ref.as_ref().and_then(|name| self.bandits.get(name.as_str()));
        let ranges =
            |weights: Option<&[f64]>| rule.ranges.clone().unwrap_or_else(|| ranges(count, coverage, weights));
        let bandit = bandit.map(|bandit| {
            let leaves = bandit.contexts.iter().enumerate().map(|(number, leaf)| Leaf {
                condition: truthy(&leaf.condition).then(|| {
                    self.condition(flag, &leaf.condition, &format!("{at}/contextualBandit/{number}"), true)
                }),
                id: leaf.id.clone(),
                ranges: ranges(Some(&leaf.weights)),
                weights: leaf.weights.clone(),
                echoed: true,
            });
            let leaves = leaves.collect();
            let weights = rule.weights.clone().unwrap_or_else(|| super::placing::equal_weights(count));
            let ranges = ranges(Some(&weights));
            let echoed = rule.weights.is_some();
            let otherwise = Leaf { condition: None, id: (-1).into(), weights, echoed, ranges };
            Bandit { version: bandit.bandit_version.clone(), leaves, otherwise }
        });
        let condition = truthy(&rule.condition)
            .then(|| self.condition(flag, &rule.condition, &format!("{at}/condition"), true));
        let mut parents = Vec::new();
        for (number, parent) in rule.parent_conditions.iter().enumerate() {
            let at = format!("{at}/parentConditions/{number}");
            let condition = self.condition(flag, &parent.condition, &at, false);
            parents.push(Parent { feature: parent.id.as_str().into(), condition, negate: false });
        }
        let warnings = &mut *self.warnings;
        let mut regex = |text: &str, at: &str, meaning: &str| match pattern::pattern(text, false) {
            Ok(regex) => Some(regex),
            Err(problem) => {
                warnings.push(Warning::of(flag, at, format!("{problem}; {meaning}")));
                None
            }
        };
        let url =
            rule.url.as_ref().and_then(|url| regex(url.as_str(), &format!("{at}/url"), "it is not asked"));
        let url_patterns = rule.url_patterns.as_ref().map(|all| {
            let all = all.iter().enumerate().map(|(number, pattern)| {
                let (at, text) = (format!("{at}/urlPatterns/{number}"), pattern.pattern.as_str());
                let target = match pattern.kind.as_str() {
                    "regex" => regex(text, &at, "it fits no page").map_or(Target::Never, Target::Regex),
                    "simple" => Target::Simple(text.into()),
                    _ => Target::Never,
                };
                UrlPattern { include: pattern.include, target }
            });
            all.collect()
        });
        let seed = rule.seed.as_ref().map(Text::as_str).filter(|seed| !seed.is_empty()).unwrap_or(key);
        Experiment {
            bare,
            first,
            count,
            placing: Placing::new(seed, version(rule.hash_version, 1.0)),
            attribute,
            remembers: fallback.clone().unwrap_or_else(|| Attribute::or_id(None)),
            fallback,
            sticky: !rule.disable_sticky_bucketing,
            bucket_version: rule.bucket_version.unwrap_or(0),
            min_bucket_version: rule.min_bucket_version.unwrap_or(0),
            ranges: ranges(rule.weights.as_deref()),
            filters,
            namespace: rule.namespace.map(|(id, from, to)| Namespace::new(id.as_str(), from, to)),
            condition,
            parents,
            groups: rule.groups,
            url,
            url_patterns,
            status: match rule.status.as_str() {
                _ if rule.active == Some(false) => Status::Draft,
                "draft" => Status::Draft,
                "stopped" => Status::Stopped,
                _ => Status::Running,
            },
            force: rule.force.as_ref().filter(|_| bare).and_then(Value::as_i64),
            meta: rule
                .meta
                .into_iter()
                .map(|meta| Meta {
                    key: meta.key.into_boxed(),
                    name: meta.name.map(Text::into_boxed).filter(|name| !name.is_empty()),
                    passthrough: meta.passthrough,
                })
                .collect(),
            bandit,
            echo: echo(raw, key, &values),
            key: key.into(),
            values,
        }
    }

    /// Keeps the attributes under which documents of sticky buckets are to be loaded for a rule.
    fn sticks(&mut self, rule: &document::Rule<'_>) {
        let texts =
            [&rule.hash_attribute, &rule.fallback_attribute].map(|text| text.as_ref().map(Text::as_str));
        self.sticky.insert(Attribute::or_id(texts[0]).text.to_string());
        self.sticky.extend(texts[1].filter(|text| !text.is_empty()).map(str::to_owned));
    }

    fn condition(&mut self, flag: &str, condition: &Value, at: &str, with_groups: bool) -> Cond {
        let mut reader = Reader::new(with_groups.then_some(self.groups));
        let cond = reader.condition(condition);
        self.warnings.extend(reader.problems.into_iter().map(|problem| Warning::of(flag, at, problem)));
        cond
    }
}

fn fallback(rule: &document::Rule<'_>) -> Option<Attribute> {
    let text = rule.fallback_attribute.as_ref().map(Text::as_str);
    text.filter(|text| !text.is_empty() && !rule.disable_sticky_bucketing).map(Attribute::new)
}

fn filter(filter: &document::Filter<'_>) -> Filter {
    Filter {
        attribute: Attribute::or_id(filter.attribute.as_ref().map(Text::as_str)),
        placing: Placing::new(filter.seed.as_str(), version(filter.hash_version, 2.0)),
        ranges: filter.ranges.clone(),
    }
}

/// The version that is given, unless it is what JavaScript takes for false.
fn version(given: Option<f64>, default: f64) -> f64 {
    given.filter(|version| *version != 0.0).unwrap_or(default)
}

/// The experiment as results repeat it: its variations and key, and what else was set.
fn echo(raw: Raw<'_>, key: &str, values: &[Value]) -> Value {
    const PRESENT: [&str; 3] = ["coverage", "bucketVersion", "minBucketVersion"];
    const REPEATED: [&str; 12] = [
        "weights",
        "hashAttribute",
        "fallbackAttribute",
        "disableStickyBucketing",
        "namespace",
        "meta",
        "ranges",
        "name",
        "phase",
        "seed",
        "hashVersion",
        "filters",
    ];
    let rule = serde_json::from_str::<Value>(raw.get()).unwrap_or_default();
    let given = |name: &str| rule.get(name).map(|value| (name.to_owned(), value.clone()));
    let set = |name: &str| given(name).filter(|(_, value)| truthy(value));
    let mut entries = vec![
        ("variations".to_owned(), Value::list(values.iter().cloned())),
        ("key".to_owned(), Value::from(key)),
    ];
    entries.extend(PRESENT.iter().filter_map(|name| given(name)));
    entries.extend(REPEATED.iter().chain(&["condition"]).filter_map(|name| set(name)));
    Value::object(entries)
}

/// The type that all values have; null has none.
fn value_type(variants: &[Variant]) -> ValueType {
    let of = |value: &Value| match value {
        Value::Bool(_) => Some(ValueType::Boolean),
        Value::Text(_) => Some(ValueType::String),
        Value::Number(_) => Some(ValueType::Number),
        Value::List(_) | Value::Object(_) => Some(ValueType::Object),
        Value::Null => None,
    };
    let mut types = variants.iter().filter_map(|variant| of(&variant.value));
    let first = types.next().unwrap_or_default();
    if types.all(|one| one == first) { first } else { ValueType::Any }
}
