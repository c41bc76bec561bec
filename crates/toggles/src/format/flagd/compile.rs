//! flagd's flags as flags of the model: the targeting is one rule that decides by itself.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use indexmap::IndexMap;

use super::{
    Flagd,
    coerce::{Got, View},
    document,
    evaluate::Env,
    expression::{Compiler, Expr, Literal, index_of},
};
use crate::{
    engine::{Decide, Decision, Exact, Scratch, Situation},
    format::reading::Tree,
    model::{
        Condition, Facts, Fault, FaultCode, Flag, Outcome, Reason, Rule, Switch, ValueType, Variant, Warning,
    },
    value::Value,
};

/// What the flags of one document share.
pub(super) struct Shared<'d> {
    pub(super) front: &'d Flagd,
    pub(super) evaluators: IndexMap<String, Arc<Expr>>,
    pub(super) metadata: BTreeMap<String, Value>,
    /// The facts of a flag without metadata of its own.
    pub(super) facts: Option<Arc<Facts>>,
}

impl Shared<'_> {
    /// The compiled form of an evaluator. What it names is no variant yet, and it names no other evaluator.
    pub(super) fn evaluator(front: &Flagd, json: &Tree<'_>) -> (Expr, Vec<String>) {
        let evaluators = IndexMap::new();
        let mut compiler = Compiler {
            generation: front.generation,
            variants: &[],
            evaluators: &evaluators,
            supplied: front.supplied.as_ref(),
            refs: false,
            unknown_evaluator: None,
            problems: Vec::new(),
            element: false,
            needs_time: false,
        };
        let expression = compiler.expression(json);
        (expression, compiler.problems)
    }

    pub(super) fn flag(
        &self,
        key: &str,
        flag: document::Flag<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Flag, String> {
        let variants: Arc<[Variant]> = match &flag.variants {
            Value::Object(variants) => {
                variants.iter().map(|(name, value)| Variant::new(name.clone(), value.clone())).collect()
            }
            other => return Err(format!("its variants are a {}, not an object", other.kind())),
        };
        let variants = if *variants == *Variant::booleans() { Variant::booleans() } else { variants };
        let facts = self.facts(key, &flag.metadata, warnings);
        let mut compiled = Flag { facts, ..Flag::new(key, value_type(&variants), Arc::clone(&variants)) };
        if flag.state.is_some_and(|state| state.as_str() == "DISABLED") {
            compiled.switch = Switch::Off;
            return Ok(compiled);
        }
        let default = flag.default_variant.as_ref().map_or("", |name| name.as_str());
        (compiled.fallback, compiled.fallback_reason) = match index_of(&variants, default) {
            // An empty name is no name, even if there is such a variant.
            _ if default.is_empty() => (Outcome::Caller, Some(Reason::Default)),
            Some(index) => (outcome(&variants, index), None),
            None => {
                let problem = format!("the default variant `{default}` is not there");
                warnings.push(Warning::of(
                    key,
                    "defaultVariant",
                    format!("{problem}; where it is served, the flag is an error"),
                ));
                (Outcome::Fault(Fault::new(FaultCode::General, problem)), None)
            }
        };
        let is_operation = match &flag.targeting {
            Tree::Null => return Ok(compiled),
            Tree::Object(entries) if entries.is_empty() => return Ok(compiled),
            Tree::Object(entries) => entries.len() == 1,
            _ => false,
        };
        if !is_operation {
            let problem = "it is no operation";
            warnings.push(Warning::of(key, "targeting", format!("{problem}; the flag is an error")));
            compiled.fault = Some(Fault::new(FaultCode::ParseError, "the targeting is no operation"));
            return Ok(compiled);
        }
        let mut compiler = Compiler {
            generation: self.front.generation,
            variants: &variants,
            evaluators: &self.evaluators,
            supplied: self.front.supplied.as_ref(),
            refs: true,
            unknown_evaluator: None,
            problems: Vec::new(),
            element: false,
            needs_time: false,
        };
        let mut root = compiler.expression(&flag.targeting);
        let needs_time = compiler.needs_time;
        let problems = std::mem::take(&mut compiler.problems);
        let nowhere = compiler.unknown_evaluator.take();
        let results = resolve(&mut root, key, &variants);
        warnings.extend(problems.into_iter().map(|problem| Warning::of(key, "targeting", problem)));
        for name in results {
            let problem = format!("there is no variant `{name}`; where it is chosen, the flag is an error");
            warnings.push(Warning::of(key, "targeting", problem));
        }
        if let Some(name) = nowhere {
            let problem = format!("there is no evaluator `{name}`");
            warnings.push(Warning::of(key, "targeting", format!("{problem}; the flag is an error")));
            compiled.fault = Some(Fault::new(FaultCode::ParseError, problem));
            return Ok(compiled);
        }
        let supplied = self.front.supplied.clone();
        let targeting = Targeting { root, variants, supplied, needs_time };
        compiled.rules = vec![Rule::new(Condition::ALWAYS, Outcome::Custom(Arc::new(targeting)))];
        Ok(compiled)
    }

    /// The set's metadata with the flag's on top.
    pub(super) fn facts(&self, key: &str, own: &Value, warnings: &mut Vec<Warning>) -> Option<Arc<Facts>> {
        let own = metadata(own, Some(key), warnings);
        if own.is_empty() {
            return self.facts.clone();
        }
        let mut all = self.metadata.clone();
        all.extend(own);
        Some(Arc::new(Facts { metadata: all, ..Facts::default() }))
    }
}

/// The texts, numbers and booleans of metadata by name.
pub(super) fn metadata(
    json: &Value,
    flag: Option<&str>,
    warnings: &mut Vec<Warning>,
) -> BTreeMap<String, Value> {
    let mut read = BTreeMap::new();
    for (name, value) in json.as_object().into_iter().flatten() {
        if matches!(value, Value::Text(_) | Value::Number(_) | Value::Bool(_)) {
            read.insert(name.to_string(), value.clone());
        } else {
            let message = "it is neither text, number nor boolean and is left out";
            let at = format!("metadata/{name}");
            warnings.push(match flag {
                Some(flag) => Warning::of(flag, at, message),
                None => Warning::general(at, message),
            });
        }
    }
    read
}

/// Looks at what may be chosen: tells known buckets their flag and variants, and gives the names that are no variants.
fn resolve(expression: &mut Expr, flag: &str, variants: &[Variant]) -> Vec<String> {
    let mut unknown = Vec::new();
    match expression {
        Expr::Literal(Literal { value: Value::Null, .. }) => {}
        Expr::Literal(Literal { value, variant: None }) => unknown.push(value.to_string()),
        Expr::If(parts) => {
            let last = parts.len().saturating_sub(1);
            for (index, part) in parts.iter_mut().enumerate() {
                if index % 2 == 1 || (index == last && index % 2 == 0) {
                    unknown.extend(resolve(part, flag, variants));
                }
            }
        }
        Expr::Fractional(fractional) => fractional.resolve(flag, &|name| index_of(variants, name)),
        _ => {}
    }
    unknown
}

/// A variant; one whose value is null can't be served.
fn outcome(variants: &[Variant], index: u32) -> Outcome {
    match variants.get(index as usize) {
        Some(variant) if variant.value.is_null() => Outcome::Fault(NULL.clone()),
        _ => Outcome::Variant(index as usize),
    }
}

static UNKNOWN: LazyLock<Fault> =
    LazyLock::new(|| Fault::new(FaultCode::General, "the targeting chose a variant that is not there"));

static NULL: LazyLock<Fault> =
    LazyLock::new(|| Fault::new(FaultCode::TypeMismatch, "the variant's value is null"));

/// The type that all values have.
fn value_type(variants: &[Variant]) -> ValueType {
    let of = |value: &Value| match value {
        Value::Null => ValueType::Any,
        Value::Bool(_) => ValueType::Boolean,
        Value::Text(_) => ValueType::String,
        Value::Number(number) if number.is_whole() => ValueType::Integer,
        Value::Number(_) => ValueType::Number,
        Value::List(_) | Value::Object(_) => ValueType::Object,
    };
    let mut types = variants.iter().map(|variant| of(&variant.value));
    let first = types.next().unwrap_or_default();
    types.fold(first, |all, one| match (all, one) {
        (all, one) if all == one => all,
        (ValueType::Integer, ValueType::Number) | (ValueType::Number, ValueType::Integer) => {
            ValueType::Number
        }
        _ => ValueType::Any,
    })
}

/// A flag's targeting.
#[derive(Debug)]
pub(super) struct Targeting {
    pub(super) root: Expr,
    pub(super) variants: Arc<[Variant]>,
    supplied: Option<Value>,
    needs_time: bool,
}

impl Decide for Targeting {
    fn decide<'a>(&'a self, situation: &mut Situation<'a, '_>) -> Decision<'a> {
        let point = Cell::new(f64::NAN);
        let notes = situation.recording().then(RefCell::default);
        let env = Env {
            context: situation.context(),
            flag: situation.flag(),
            timestamp: if self.needs_time { situation.now().as_second() } else { 0 },
            supplied: self.supplied.as_ref(),
            point: &point,
            notes: notes.as_ref(),
        };
        let decision = match self.root.evaluate(&env, None) {
            Err(fault) => Decision::Fault(fault),
            Ok(got) => self.decided(&got),
        };
        for (name, value) in notes.map(RefCell::into_inner).into_iter().flatten() {
            situation.note(name, value);
        }
        if !point.get().is_nan() {
            situation.placed_at(point.get());
        }
        decision
    }

    fn describe(&self) -> String {
        format!("targeting: {}", self.root)
    }

    fn exactly(&self) -> Option<Exact> {
        self.as_rules()
    }

    fn plain(&self, flag: &str, differs: &mut Vec<String>) -> Option<Outcome> {
        self.in_words(flag, differs)
    }
}

impl Targeting {
    #[inline]
    fn decided(&self, got: &Got<'_>) -> Decision<'static> {
        let index = match got {
            Got::Literal(Literal { variant: Some(index), .. }) => Some(*index),
            other => match other.view() {
                View::Null => return Decision::GoOn,
                View::Text(text) => index_of(&self.variants, text),
                View::Bool(yes) => index_of(&self.variants, if yes { "true" } else { "false" }),
                View::Number(number) => index_of(&self.variants, Scratch::default().show(number)),
                View::List(_) | View::Object(_) => None,
            },
        };
        let variant = index.and_then(|index| Some((index, self.variants.get(index as usize)?)));
        match variant {
            None => Decision::Fault(&UNKNOWN),
            Some((_, variant)) if variant.value.is_null() => Decision::Fault(&NULL),
            Some((index, _)) => {
                Decision::Variant { index: index as usize, reason: Some(Reason::TargetingMatch) }
            }
        }
    }
}
