//! LaunchDarkly's flags and segments as those of the model.

use std::sync::Arc;

use super::{
    big::{BigSegments, Membership, Unbounded},
    clause, document,
    reference::Reference,
};
use crate::{
    format::reading::Text,
    model::{
        Bucketing, Condition, Fault, FaultCode, Flag, FlagCheck, Hash, Input, MissingInput, OnBroken,
        Operator, Outcome, PastEnd, Prerequisite, Range, Reason, Rule, Scale, Segment, Share, Slice, Split,
        Subject, Switch, Test, Truth, ValueType, Variant, Warning,
    },
    value::{Name, Value},
};

/// What weights add up to.
const WHOLE: f64 = 100_000.0;

/// What one flag or segment is compiled with.
pub(super) struct Compiler<'c> {
    /// What the warnings are about: the flag's key, or none for a segment.
    pub(super) key: &'c str,
    pub(super) segment: bool,
    pub(super) big: Option<&'c Arc<dyn BigSegments>>,
    pub(super) warnings: &'c mut Vec<Warning>,
}

impl Compiler<'_> {
    fn warn(&mut self, at: &str, message: impl Into<String>) {
        self.warnings.push(if self.segment {
            Warning::general(format!("segments/{}/{at}", self.key), message)
        } else {
            Warning::of(self.key, at, message)
        });
    }

    pub(super) fn flag(&mut self, flag: document::Flag<'_>) -> Flag {
        let variants = variants(flag.variations);
        let prefix = format!("{}.{}", self.key, flag.salt.as_str());
        let mut rules = Vec::with_capacity(flag.rules.len() + 1);
        let targets = self.targets(flag.targets, flag.context_targets, &variants);
        if !targets.is_empty() {
            // The one rule with a reason of its own: that is how results tell targets from rules.
            let all = Rule::new(Condition::ALWAYS, Outcome::Rules(targets));
            rules.push(Rule { reason: Some(Reason::TargetingMatch), ..all });
        }
        for (index, rule) in flag.rules.into_iter().enumerate() {
            let at = format!("rules/{index}");
            let served = document::Served { variation: rule.variation, rollout: rule.rollout };
            rules.push(Rule {
                id: Some(rule.id.into_boxed()).filter(|id| !id.is_empty()),
                on_broken: OnBroken::Fault(FaultCode::ParseError),
                ..Rule::new(
                    Condition::All(self.clauses(rule.clauses, &at)),
                    self.served(served, &at, &variants, &prefix),
                )
            });
        }
        let prerequisites = flag.prerequisites.into_iter().map(|prerequisite| Prerequisite {
            check: FlagCheck {
                enabled: true,
                on: None,
                variants: Some(vec![prerequisite.variation.0.to_string().into()]),
                faulty: Truth::Broken,
                ..FlagCheck::on(prerequisite.key.into_boxed())
            },
            otherwise: None,
        });
        let fallthrough_reason =
            if flag.fallthrough.variation.is_none() { Reason::Split } else { Reason::Default };
        Flag {
            switch: if flag.on { Switch::On } else { Switch::Off },
            prerequisites: prerequisites.collect(),
            rules,
            fallback: self.served(flag.fallthrough, "fallthrough", &variants, &prefix),
            fallback_reason: Some(fallthrough_reason),
            off: match flag.off_variation {
                Some(index) => self.variant(index, "offVariation", &variants),
                None => Outcome::Caller,
            },
            ..Flag::new(self.key, value_type(&variants), variants)
        }
    }

    fn targets(
        &mut self,
        mut targets: Vec<document::Target>,
        contexts: Vec<document::Target>,
        variants: &[Variant],
    ) -> Vec<Rule> {
        let user = clause::kind(None);
        if contexts.is_empty() {
            return targets
                .into_iter()
                .enumerate()
                .map(|(index, target)| {
                    let then = self.variant(target.variation, &format!("targets/{index}"), variants);
                    Rule::new(clause::keys(user.clone(), target.values), then)
                })
                .collect();
        }
        let mut rules = Vec::with_capacity(contexts.len());
        for (index, target) in contexts.into_iter().enumerate() {
            let kind = clause::given(target.context_kind).unwrap_or_else(|| user.clone());
            let values = if kind == user {
                // Users stand in `targets`, whatever stands here: this entry only says in which order they are asked. Of several entries for one
                // variation the first counts, and a second entry here finds nothing new.
                let same = targets.iter_mut().find(|one| one.variation == target.variation);
                let Some(same) = same else { continue };
                std::mem::take(&mut same.values)
            } else {
                target.values
            };
            let then = self.variant(target.variation, &format!("contextTargets/{index}"), variants);
            rules.push(Rule::new(clause::keys(kind, values), then));
        }
        rules
    }

    fn clauses(&mut self, clauses: Vec<document::Clause<'_>>, at: &str) -> Vec<Condition> {
        let clauses = clauses.into_iter().enumerate();
        clauses
            .map(|(number, clause)| {
                let at = format!("{at}/clauses/{number}");
                clause::compile(clause, &mut |message| self.warn(&at, message))
            })
            .collect()
    }

    fn variant(&mut self, index: document::Whole, at: &str, variants: &[Variant]) -> Outcome {
        match usize::try_from(index.0) {
            Ok(index) if index < variants.len() => Outcome::Variant(index),
            _ => self.malformed(at, format!("there is no variation {}", index.0)),
        }
    }

    fn malformed(&mut self, at: &str, problem: String) -> Outcome {
        self.warn(at, format!("{problem}; whoever gets here makes the flag an error"));
        Outcome::Fault(Fault::new(FaultCode::ParseError, problem))
    }

    fn served(
        &mut self,
        served: document::Served<'_>,
        at: &str,
        variants: &[Variant],
        prefix: &str,
    ) -> Outcome {
        match (served.variation, served.rollout) {
            (Some(index), _) => self.variant(index, at, variants),
            (None, Some(rollout)) => self.rollout(&rollout, &format!("{at}/rollout"), variants, prefix),
            (None, None) => self.malformed(at, "there is neither a variation nor a rollout".to_owned()),
        }
    }

    fn rollout(
        &mut self,
        rollout: &document::Rollout<'_>,
        at: &str,
        variants: &[Variant],
        prefix: &str,
    ) -> Outcome {
        if rollout.variations.is_empty() {
            return self.malformed(at, "the rollout has no variations".to_owned());
        }
        let experiment = rollout.kind.as_str() == "experiment";
        let given = clause::named(rollout.context_kind.as_ref());
        let kind = clause::kind(given);
        let by = rollout.bucket_by.as_ref().map(Text::as_str).filter(|_| !experiment);
        let prefix = rollout.seed.map_or_else(|| prefix.to_owned(), |seed| seed.0.to_string());
        let bucketing = match bucketing(by, given.is_some(), &kind, &prefix) {
            Ok(bucketing) => bucketing,
            Err(problem) => return self.malformed(at, problem),
        };
        let weights = rollout.variations.iter().map(|one| (0, one.weight));
        let slices = Split::cumulative(weights, WHOLE, false, experiment);
        let mut good = Vec::with_capacity(slices.len());
        let mut outcomes = Vec::new();
        for (number, (slice, weighted)) in slices.into_iter().zip(&rollout.variations).enumerate() {
            match self.variant(weighted.variation, &format!("{at}/variations/{number}"), variants) {
                Outcome::Variant(variant) => {
                    let experiment = experiment && !weighted.untracked;
                    good.push(Slice { variant, experiment, ..slice });
                }
                fault => outcomes.push((number, slice.range, fault)),
            }
        }
        let split = if outcomes.is_empty() {
            split(bucketing, good, PastEnd::Last, variants)
        } else {
            faulty(&bucketing, good, outcomes, rollout.variations.len(), variants)
        };
        if !experiment {
            return split;
        }
        // Without a context of that kind the point is 0, and nobody takes part in anything.
        let there = Test::new(Subject::KeyOf { kind }, Operator::Present);
        let otherwise = plain(split.clone());
        Outcome::Rules(vec![Rule::new(there.into(), split), Rule::new(Condition::ALWAYS, otherwise)])
    }

    pub(super) fn segment(&mut self, segment: document::Segment<'_>) -> Segment {
        let name = Name::new(self.key);
        let prefix = format!("{}.{}", self.key, segment.salt.as_str());
        let mut rules = Vec::with_capacity(segment.rules.len());
        for (index, rule) in segment.rules.into_iter().enumerate() {
            let at = format!("rules/{index}");
            let mut all = self.clauses(rule.clauses, &at);
            if let Some(weight) = rule.weight {
                let given = clause::named(rule.rollout_context_kind.as_ref());
                let kind = clause::kind(given);
                let by = rule.bucket_by.as_ref().map(Text::as_str);
                all.push(match bucketing(by, given.is_some(), &kind, &prefix) {
                    Ok(bucketing) => {
                        Condition::Share(Share { bucketing, ranges: vec![Range::below(weight / WHOLE)] })
                    }
                    Err(problem) => {
                        self.warn(&at, format!("{problem}; whoever gets here makes the flag an error"));
                        Condition::Constant(Truth::Broken)
                    }
                });
            }
            rules.push(Condition::All(all));
        }
        let (first, excluded) = if segment.unbounded {
            let kind = clause::given(segment.unbounded_context_kind).unwrap_or_else(|| clause::kind(None));
            let (Some(store), Some(generation)) = (self.big, segment.generation) else {
                self.warn(
                    "unbounded",
                    "its members are in a store that was not given (or it has no generation); nobody is in it",
                );
                return Segment { name, condition: Condition::NEVER };
            };
            let ask = |want| {
                let reference = format!("{}.g{}", self.key, generation.0).into();
                let store = Arc::clone(store);
                Condition::Custom(Arc::new(Unbounded { store, kind: kind.clone(), reference, want }))
            };
            (vec![ask(Membership::Included)], vec![ask(Membership::Excluded)])
        } else {
            let first = members(segment.included_contexts, segment.included);
            (first, members(segment.excluded_contexts, segment.excluded))
        };
        let excluded = Condition::Not(Box::new(Condition::Any(excluded)));
        let by_rules = Condition::All(vec![excluded, Condition::Any(rules)]);
        let condition = Condition::Any(first.into_iter().chain([by_rules]).collect());
        Segment { name, condition }
    }
}

fn members(contexts: Vec<document::Members>, users: Vec<Name>) -> Vec<Condition> {
    let contexts = contexts.into_iter().map(|members| {
        let kind = clause::given(members.context_kind).unwrap_or_else(|| clause::kind(None));
        clause::keys(kind, members.values)
    });
    let users = (!users.is_empty()).then(|| clause::keys(clause::kind(None), users));
    contexts.chain(users).collect()
}

fn bucketing(by: Option<&str>, with_kind: bool, kind: &Name, prefix: &str) -> Result<Bucketing, String> {
    let by = by.filter(|by| !by.is_empty()).unwrap_or("key");
    let reference = Reference::read(by, with_kind)
        .map_err(|invalid| format!("`{by}` is no attribute reference: {}", invalid.0))?;
    let subject = reference.subject(kind).unwrap_or(Subject::Value(Value::Null));
    Ok(Bucketing {
        input: vec![Input::Literal(format!("{prefix}.").into()), Input::of(subject)],
        hash: Hash::Sha1,
        scale: Scale::Unit,
        missing: MissingInput::Point(0.0),
    })
}

fn split(bucketing: Bucketing, slices: Vec<Slice>, past_end: PastEnd, variants: &[Variant]) -> Outcome {
    let mut states = slices.iter().map(|slice| variants.get(slice.variant).is_some_and(|variant| variant.on));
    let first = states.next();
    let on = first.filter(|on| past_end == PastEnd::Last && states.all(|state| state == *on));
    Outcome::Split(Box::new(Split { bucketing, slices, past_end, on }))
}

/// A rollout some of whose entries name variations that are not there: only who ends up there gets an error.
fn faulty(
    bucketing: &Bucketing,
    good: Vec<Slice>,
    faults: Vec<(usize, Range, Outcome)>,
    entries: usize,
    variants: &[Variant],
) -> Outcome {
    let mut rules = Vec::with_capacity(entries);
    let mut good = good.into_iter();
    let mut faults = faults.into_iter().peekable();
    for number in 0..entries {
        let last = number + 1 == entries;
        let rule = if let Some((_, range, fault)) = faults.next_if(|(at, ..)| *at == number) {
            let ranges = vec![if last { Range::below(f64::INFINITY) } else { range }];
            Rule::new(Condition::Share(Share { bucketing: bucketing.clone(), ranges }), fault)
        } else {
            let past_end = if last { PastEnd::Last } else { PastEnd::GoOn };
            let slice = good.next().into_iter().collect();
            Rule::new(Condition::ALWAYS, split(bucketing.clone(), slice, past_end, variants))
        };
        rules.push(rule);
    }
    Outcome::Rules(rules)
}

/// The same without taking part in an experiment.
fn plain(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Split(mut split) => {
            for slice in &mut split.slices {
                slice.experiment = false;
            }
            Outcome::Split(split)
        }
        Outcome::Rules(rules) => {
            Outcome::Rules(rules.into_iter().map(|rule| Rule { then: plain(rule.then), ..rule }).collect())
        }
        other => other,
    }
}

/// Variants without names of their own: their index is their name. Those of plain boolean flags are shared.
fn variants(values: Vec<Value>) -> Arc<[Variant]> {
    static SHARED: std::sync::LazyLock<[Arc<[Variant]>; 2]> = std::sync::LazyLock::new(|| {
        [[true, false], [false, true]].map(|values| numbered(values.map(Value::from).into()))
    });
    let shared = SHARED.iter().find(|shared| {
        shared.len() == values.len() && shared.iter().zip(&values).all(|(one, value)| one.value == *value)
    });
    shared.map_or_else(|| numbered(values), Arc::clone)
}

fn numbered(values: Vec<Value>) -> Arc<[Variant]> {
    values.into_iter().enumerate().map(|(index, value)| Variant::new(index.to_string(), value)).collect()
}

/// The type that all variations have.
fn value_type(variants: &[Variant]) -> ValueType {
    let of = |value: &Value| match value {
        Value::Bool(_) => ValueType::Boolean,
        Value::Text(_) => ValueType::String,
        Value::Number(_) => ValueType::Number,
        Value::List(_) | Value::Object(_) => ValueType::Object,
        Value::Null => ValueType::Any,
    };
    let mut types = variants.iter().map(|variant| of(&variant.value));
    let first = types.next().unwrap_or_default();
    if types.all(|one| one == first) { first } else { ValueType::Any }
}
