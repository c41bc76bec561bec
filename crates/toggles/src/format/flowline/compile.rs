//! From definition and state to the model.

use std::{mem, sync::Arc};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{Beyond, Clause, Definition, Effective, Percent, Rule, Serve, Slices};
use crate::{
    model::{
        Bucketing, Condition, Facts, Fault, FaultCode, Flag, FlagCheck, Hash, Input, MissingInput, OnBroken,
        Outcome, PastEnd, Prerequisite, Range, Reason, Scale, Share, Slice, Split, Subject, Switch,
        ValueType, Variant, Warning,
    },
    value::Value,
};

/// What follows a problem for which a flag is an error.
pub(super) const UNTIL_MENDED: &str = "; the flag is an error until that is mended";

/// Points lie from 0 up to but not including this: thousandths of a percent.
const POINTS: u32 = 100_000;

/// The flag that `definition` is in a place whose state is `state`, and what does not make sense in it.
///
/// A definition that does not make sense gives a flag with a fault, and says so in a warning; other flags are not harmed.
pub fn compile(key: &str, definition: &Definition, state: &Effective, warnings: &mut Vec<Warning>) -> Flag {
    consume(key, definition.clone(), state, warnings)
}

/// The same of a definition that is needed no longer: what may be long becomes the flag's as it is.
pub(super) fn consume(
    key: &str,
    mut definition: Definition,
    state: &Effective,
    warnings: &mut Vec<Warning>,
) -> Flag {
    let (audience, rules) = (mem::take(&mut definition.audience), mem::take(&mut definition.rules));
    match Compiler::new(key, &definition).and_then(|compiler| compiler.flag(audience, rules, state)) {
        Ok(flag) => flag,
        Err((at, problem)) => {
            let fault = Fault::new(FaultCode::ParseError, problem.as_str());
            warnings.push(Warning::of(key, at, problem + UNTIL_MENDED));
            broken(key, Some(&definition), state, fault)
        }
    }
}

/// The flag that stands for one that makes no sense. `definition`: as far as it could be read; it says what the flag comes to when it is killed.
pub(crate) fn broken(key: &str, definition: Option<&Definition>, state: &Effective, fault: Fault) -> Flag {
    let compiler = definition.and_then(|definition| Compiler::new(key, definition).ok());
    let sound = compiler.and_then(|it| Some((it.off().ok()?, it.value_type, it.variants)));
    let flag = match sound {
        Some((off, value_type, variants)) => {
            Flag { off, fault: Some(fault), ..Flag::new(key, value_type, variants) }
        }
        None => Flag::faulty(key, fault),
    };
    Flag { facts: definition.and_then(facts), switch: switch(state), ..flag }
}

/// Whether a state that perhaps can't be read pulls the kill switch.
pub(crate) fn is_killed(state: &serde_json::Value) -> bool {
    state.get("killed").and_then(serde_json::Value::as_bool) == Some(true)
}

fn switch(state: &Effective) -> Switch {
    match state {
        Effective { killed: true, .. } => Switch::Killed,
        Effective { on: false, .. } => Switch::Off,
        _ => Switch::On,
    }
}

/// Where a rollout places a targeting key on the line from 0 to 100 %, in thousandths of a percent. In at any rollout above that.
pub fn rollout_point(salt: &str, targeting_key: &str) -> u32 {
    let hash = xxh3_64_with_seed(targeting_key.as_bytes(), xxh3_64(salt.as_bytes())) >> 32;
    u32::try_from((hash * u64::from(POINTS)) >> 32).unwrap_or(POINTS)
}

type Problem = (String, String);

struct Compiler<'d> {
    key: &'d str,
    /// Without its audience and rules.
    definition: &'d Definition,
    variants: Arc<[Variant]>,
    value_type: ValueType,
    salt: &'d str,
}

impl<'d> Compiler<'d> {
    fn new(key: &'d str, definition: &'d Definition) -> Result<Self, Problem> {
        let salt = definition.salt.as_deref().unwrap_or(key);
        if definition.variants.is_empty() {
            let variants = Variant::booleans();
            return Ok(Self { key, definition, variants, value_type: ValueType::Boolean, salt });
        }
        let mut value_type: Option<ValueType> = None;
        for (name, value) in definition.variants.iter() {
            let Some(own) = type_of(value) else {
                return Err((format!("variants/{name}"), format!("variant `{name}` is null")));
            };
            match value_type.replace(own) {
                Some(before) if before != own && definition.mixed => value_type = Some(ValueType::Any),
                Some(before) if before != own && before != ValueType::Any => {
                    let problem = format!("variant `{name}` is a {} among others", value.kind());
                    return Err((format!("variants/{name}"), problem));
                }
                Some(ValueType::Any) => value_type = Some(ValueType::Any),
                _ => {}
            }
        }
        let off = definition.off.as_deref();
        let variants = definition.variants.iter().map(|(name, value)| {
            let variant = Variant::new(name, value.clone());
            // Whoever gets the variant that stands for "off" does not have the feature, whatever its value.
            let on = if value.as_bool().is_some() { variant.on } else { off != Some(name) };
            Variant { on, ..variant }
        });
        let variants = variants.collect();
        Ok(Self { key, definition, variants, value_type: value_type.unwrap_or_default(), salt })
    }

    fn flag(&self, audience: Vec<Clause>, rules: Vec<Rule>, state: &Effective) -> Result<Flag, Problem> {
        let definition = self.definition;
        let mut flag = Flag::new(self.key, self.value_type, Arc::clone(&self.variants));
        flag.facts = facts(definition);
        flag.switch = switch(state);
        flag.off = self.off()?;
        flag.fallback = flag.off.clone();
        flag.prerequisites = definition
            .requires
            .iter()
            .map(|key| Prerequisite { check: FlagCheck::on(key.as_str()), otherwise: None })
            .collect();
        flag.rules.reserve_exact(rules.len() + 1);
        for (index, rule) in rules.into_iter().enumerate() {
            flag.rules.push(self.rule(index, rule)?);
        }
        let serve = self.serve("serve", state.serve.as_ref().or(definition.serve.as_ref()))?;
        // A split that may go on is a rule, so that `off` comes behind it.
        let goes_on = matches!(&serve, Outcome::Split(split) if split.past_end == PastEnd::GoOn);
        let everybody = audience.is_empty() && state.rollout == Percent::ALL && !goes_on;
        if everybody {
            flag.fallback_reason =
                (flag.rules.is_empty() && flag.prerequisites.is_empty()).then_some(Reason::Static);
            if matches!(serve, Outcome::Split(_)) {
                flag.fallback_reason = None;
            }
            flag.fallback = serve;
        } else {
            let when = conditions(audience, self.within(state.rollout));
            flag.rules.push(crate::model::Rule {
                id: None,
                when: Condition::All(when),
                then: serve,
                reason: None,
                on_broken: OnBroken::Fault(FaultCode::ParseError),
            });
        }
        Ok(flag)
    }

    fn off(&self) -> Result<Outcome, Problem> {
        match &self.definition.off {
            Some(name) => self.variant("off", name).map(Outcome::Variant),
            None if self.definition.variants.is_empty() => Ok(Outcome::Variant(0)),
            None => Ok(Outcome::Caller),
        }
    }

    fn rule(&self, index: usize, rule: Rule) -> Result<crate::model::Rule, Problem> {
        let at = format!("rules/{index}/serve");
        let when = conditions(rule.when, rule.rollout.and_then(|percent| self.within(percent)));
        Ok(crate::model::Rule {
            id: rule.id.map(Into::into),
            when: Condition::All(when),
            then: match (rule.off, &rule.serve) {
                (true, None) => self.off()?,
                (true, Some(_)) => {
                    return Err((at, "a rule that gives `off` does not `serve` anything else".to_owned()));
                }
                (false, serve) => self.serve(&at, serve.as_ref().or(self.definition.serve.as_ref()))?,
            },
            reason: None,
            on_broken: OnBroken::Fault(FaultCode::ParseError),
        })
    }

    /// The condition that a user is within a rollout; none if everybody is.
    fn within(&self, percent: Percent) -> Option<Condition> {
        (percent != Percent::ALL).then(|| {
            Condition::Share(Share {
                bucketing: bucketing(self.salt),
                ranges: vec![Range::below(f64::from(percent.thousandths()))],
            })
        })
    }

    fn serve(&self, at: &str, serve: Option<&Serve>) -> Result<Outcome, Problem> {
        match serve {
            None if self.definition.variants.is_empty() => Ok(Outcome::Variant(1)),
            None => {
                Err((at.to_owned(), "the flag has variants but does not say which to `serve`".to_owned()))
            }
            Some(Serve::Variant(name)) => self.variant(at, name).map(Outcome::Variant),
            Some(Serve::Slices(slices)) => self.slices(at, slices),
            Some(Serve::Split(weights)) => {
                let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
                if total == 0 {
                    return Err((at.to_owned(), "the weights of `serve` add up to nothing".to_owned()));
                }
                // By name, since not every syntax and store keeps the order of a table's entries, and nobody may move for that.
                let mut weights: Vec<_> = weights.iter().collect();
                weights.sort_unstable_by_key(|(name, _)| *name);
                let mut slices = Vec::with_capacity(weights.len());
                let mut sum = 0;
                for (name, weight) in weights {
                    sum += u64::from(*weight);
                    #[expect(clippy::cast_precision_loss, reason = "points are below 100,000")]
                    let until = (sum * u64::from(POINTS)) as f64 / total as f64;
                    let variant = self.variant(at, name)?;
                    slices.push(Slice { range: Range::below(until), variant, experiment: false });
                }
                let on = |slice: &Slice| self.variants.get(slice.variant).map(|variant| variant.on);
                let first = slices.first().and_then(on);
                Ok(Outcome::Split(Box::new(Split {
                    // Not the rollout's seed: among the first 10 %, the variants shall be spread as among all.
                    bucketing: bucketing(&format!("{}/variants", self.salt)),
                    on: first.filter(|_| slices.iter().all(|slice| on(slice) == first)),
                    slices,
                    past_end: PastEnd::Last,
                })))
            }
        }
    }

    /// A split that is given outright.
    fn slices(&self, at: &str, given: &Slices) -> Result<Outcome, Problem> {
        let mut slices = Vec::with_capacity(given.slices.len());
        for (index, slice) in given.slices.iter().enumerate() {
            let variant = self.variant(&format!("{at}/slices/{index}/variant"), &slice.variant)?;
            let range = Range {
                from: slice.from.unwrap_or(f64::NEG_INFINITY),
                until: slice.until.unwrap_or(f64::INFINITY),
                with_end: slice.with_end,
            };
            slices.push(Slice { range, variant, experiment: slice.experiment });
        }
        if slices.is_empty() {
            return Err((format!("{at}/slices"), "there are no slices".to_owned()));
        }
        let past_end = match &given.past_end {
            Beyond::Last => PastEnd::Last,
            Beyond::GoOn => PastEnd::GoOn,
            Beyond::Variant(name) => PastEnd::Variant(self.variant(&format!("{at}/past_end"), name)?),
        };
        let bucketing = given.bucketing.clone();
        Ok(Outcome::Split(Box::new(Split { bucketing, slices, past_end, on: None })))
    }

    fn variant(&self, at: &str, name: &str) -> Result<usize, Problem> {
        self.variants.iter().position(|variant| *variant.name == *name).ok_or_else(|| {
            let names: Vec<_> = self.variants.iter().map(|variant| format!("`{}`", variant.name)).collect();
            (at.to_owned(), format!("there is no variant `{name}`; there are {}", names.join(", ")))
        })
    }
}

fn conditions(clauses: Vec<Clause>, last: Option<Condition>) -> Vec<Condition> {
    let mut conditions = Vec::with_capacity(clauses.len() + usize::from(last.is_some()));
    conditions.extend(clauses.into_iter().map(Clause::into_condition).chain(last));
    conditions
}

fn bucketing(salt: &str) -> Bucketing {
    Bucketing {
        input: vec![Input::Of { first_of: vec![Subject::Key], scalars: false, skip_empty: false }],
        hash: Hash::Xxh3 { seed: xxh3_64(salt.as_bytes()) },
        scale: Scale::Multiply { of: POINTS },
        missing: MissingInput::NoPoint,
    }
}

fn type_of(value: &Value) -> Option<ValueType> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(_) => ValueType::Boolean,
        Value::Number(_) => ValueType::Number,
        Value::Text(_) => ValueType::String,
        Value::List(_) | Value::Object(_) => ValueType::Object,
    })
}

/// What people know about the flag; nothing is kept of a definition that says nothing.
fn facts(definition: &Definition) -> Option<Arc<Facts>> {
    let facts = Facts {
        description: definition.description.clone(),
        owner: definition.owner.clone(),
        kind: definition.kind,
        created: definition.created,
        expected_end: definition.expected_end,
        metadata: definition.metadata.clone(),
    };
    (facts != Facts::default()).then(|| Arc::new(facts))
}
