//! From the model to flagd's documents: which JSON logic says the same, and what no JSON logic says.
//!
//! The whole of a flag (switch, prerequisites, rules, rollouts) becomes one targeting. Other flags that a flag asks for are written out
//! where they are asked for, because flagd's flags know nothing of each other; segments become `$evaluators`. A switched-off flag becomes an
//! enabled one whose default is its off variant, because flagd's `DISABLED` knows no variant.
//!
//! | here | flagd |
//! | --- | --- |
//! | text, number and version comparisons, presence, groups | JSON logic that takes care of missing values, types and lists |
//! | a split with murmur3 that `fractional` can express | the same `fractional`: nobody moves |
//! | any other share or split | a `fractional` of the same weights: [`LossKind::Rebucketed`] |
//! | patterns, networks, times, comparisons that ignore case | nothing: the rule never applies, [`LossKind::Changed`] |

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::super::{Loss, LossKind};
use crate::{
    model::{
        Bucketing, Comparison, Condition, Facts, Flag, FlagCheck, FlagKind, FlagSet, Hash, Input, Lists,
        MissingInput, Operator, Outcome, PastEnd, Period, Range, Rule, Scale, Segment, Slice, Split, Subject,
        Switch, Test, Texts, Truth, VersionDialect,
    },
    value::Value,
};

/// How large one flag's targeting may become: flags that ask for flags are written out.
const SIZE: usize = 20_000;

/// What shares without a counterpart are counted in.
const PARTS: f64 = 100_000.0;

/// A document for flagd, and what it could not keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// The document: `flags`, and `$evaluators` if there are segments.
    pub document: Json,
    /// What it could not keep, flag by flag.
    pub losses: Vec<Loss>,
}

impl Export {
    /// The document's text, the same for the same flags.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.document)
    }
}

/// Writes flags of any format as a document of flagd's.
///
/// Whoever the [losses](Export::losses) do not name sees the same variant in both, whatever the context.
///
/// ```
/// use flowline_toggles::format::{LossKind, flagd, flowline::Document};
/// let document = Document::from_json(r#"{"flags": {"checkout": {
///     "audience": [{"attribute": "country", "in": ["NO"]}], "state": {"on": true, "rollout": 20}}}}"#)?;
/// let export = flagd::export(&document.flag_set(&[]));
/// assert_eq!(export.document["flags"]["checkout"]["defaultVariant"], "off");
/// // flagd hashes with murmur3, our own rollouts with XXH3.
/// assert_eq!(export.losses[0].kind, LossKind::Rebucketed);
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
pub fn export(set: &FlagSet) -> Export {
    let mut exporter = Exporter {
        flags: set.flags.iter().map(|flag| (&*flag.key, flag)).collect(),
        segments: set.segments.iter().map(|segment| (segment.name.text(), segment)).collect(),
        evaluators: BTreeMap::new(),
        stack: Vec::new(),
        size: 0,
        flag: "",
        losses: Vec::new(),
    };
    let flags: Vec<&Flag> = exporter.flags.values().copied().collect();
    let mut written = Map::new();
    for flag in flags {
        if let Some(json) = exporter.flag(flag) {
            written.insert(flag.key.to_string(), json);
        }
    }
    let mut document = Map::new();
    let evaluators: Map<_, _> = exporter
        .evaluators
        .into_iter()
        .filter_map(|(name, json)| Some((evaluator(&name), json.0.ok()?)))
        .collect();
    if !evaluators.is_empty() {
        document.insert("$evaluators".to_owned(), evaluators.into());
    }
    document.insert("flags".to_owned(), written.into());
    let mut losses = exporter.losses;
    losses.sort();
    losses.dedup();
    Export { document: document.into(), losses }
}

/// Why something has no counterpart.
type Unsaid = String;

struct Exporter<'s> {
    flags: BTreeMap<&'s str, &'s Flag>,
    segments: BTreeMap<String, &'s Segment>,
    /// The segments that were asked for (or why they can't be said), and what each of them loses for whoever asks.
    evaluators: BTreeMap<String, (Result<Json, Unsaid>, Vec<Loss>)>,
    /// The flags and segments that are being written out.
    stack: Vec<String>,
    size: usize,
    /// The flag at hand.
    flag: &'s str,
    losses: Vec<Loss>,
}

impl<'s> Exporter<'s> {
    fn lose(&mut self, at: &str, kind: LossKind, message: impl Into<String>) {
        let flag = Some(self.flag.to_owned());
        self.losses.push(Loss { flag, at: at.to_owned(), kind, message: message.into() });
    }

    fn flag(&mut self, flag: &'s Flag) -> Option<Json> {
        self.flag = &flag.key;
        (self.size, self.stack) = (0, vec![format!("flag {}", flag.key)]);
        if let Some(fault) = &flag.fault {
            self.lose("", LossKind::Absent, format!("it is an error: {}", fault.message));
            return None;
        }
        let names = names(flag);
        let targeting = match self.decide(flag, &names, "") {
            Ok(targeting) => targeting,
            Err(unsaid) => {
                self.lose("", LossKind::Absent, unsaid);
                return None;
            }
        };
        let variants: Map<String, Json> = names
            .iter()
            .zip(flag.variants.iter())
            .map(|(name, variant)| (name.clone(), Json::from(&variant.value)))
            .collect();
        if flag.variants.iter().any(|variant| variant.value.is_null()) {
            self.lose("variants", LossKind::Changed, "a variant without a value is an error in flagd");
        }
        let mut json = Map::new();
        json.insert("state".to_owned(), "ENABLED".into());
        json.insert("variants".to_owned(), variants.into());
        let (default, targeting) = split_default(targeting);
        json.insert("defaultVariant".to_owned(), default);
        if !targeting.is_null() {
            json.insert("targeting".to_owned(), targeting);
        }
        if let Some(metadata) = flag.facts.as_deref().map(metadata).filter(|all| !all.is_empty()) {
            json.insert("metadata".to_owned(), metadata.into());
        }
        Some(json.into())
    }

    /// The name of the variant that a flag comes to, as an expression; null: the caller's default.
    fn decide(&mut self, flag: &Flag, names: &[String], at: &str) -> Result<Json, Unsaid> {
        let off = self.outcome(&flag.off, names, Json::Null, &format!("{at}off"))?;
        if flag.switch != Switch::On {
            return Ok(off);
        }
        let mut body = self.outcome(&flag.fallback, names, Json::Null, &format!("{at}fallback"))?;
        for (index, rule) in flag.rules.iter().enumerate().rev() {
            body = self.rule(rule, names, body, &format!("{at}rules/{index}"))?;
        }
        for (index, prerequisite) in flag.prerequisites.iter().enumerate().rev() {
            let at = format!("{at}prerequisites/{index}");
            let otherwise = match &prerequisite.otherwise {
                Some(outcome) => self.outcome(outcome, names, Json::Null, &at)?,
                None => off.clone(),
            };
            let met = self.check(&prerequisite.check, &at)?;
            body = choose(met, body, otherwise);
        }
        Ok(body)
    }

    fn rule(&mut self, rule: &Rule, names: &[String], next: Json, at: &str) -> Result<Json, Unsaid> {
        let when = match self.condition(&rule.when, at) {
            Ok(when) => when,
            Err(unsaid) => {
                self.lose(
                    &format!("{at}/when"),
                    LossKind::Changed,
                    format!("{unsaid}; the rule never applies"),
                );
                Json::Bool(false)
            }
        };
        if when == Json::Bool(false) {
            return Ok(next);
        }
        let then = self.outcome(&rule.then, names, next.clone(), &format!("{at}/then"))?;
        Ok(choose(when, then, next))
    }

    fn outcome(&mut self, outcome: &Outcome, names: &[String], next: Json, at: &str) -> Result<Json, Unsaid> {
        self.grow(1)?;
        match outcome {
            Outcome::Variant(index) => {
                let name = names.get(*index).ok_or("it serves a variant that is not there")?;
                Ok(name.as_str().into())
            }
            Outcome::Split(split) => self.split(split, names, &next, at),
            Outcome::GoOn => Ok(next),
            Outcome::Caller => Ok(Json::Null),
            Outcome::Rules(rules) => {
                let mut body = next;
                for (index, rule) in rules.iter().enumerate().rev() {
                    body = self.rule(rule, names, body, &format!("{at}/{index}"))?;
                }
                Ok(body)
            }
            Outcome::Fault(fault) => Err(format!("{at} is an error: {}", fault.message)),
            Outcome::Custom(own) => {
                let mut differs = Vec::new();
                let Some(plain) = own.plain(self.flag, &mut differs) else {
                    return Err(format!("{at} is decided by the format's own code: {}", own.describe()));
                };
                for message in differs {
                    self.lose(at, LossKind::Changed, message);
                }
                self.outcome(&plain, names, next, at)
            }
        }
    }

    /// Counts what is written for the flag at hand.
    fn grow(&mut self, nodes: usize) -> Result<(), Unsaid> {
        self.size += nodes;
        if self.size > SIZE {
            return Err("with the flags that it asks for, it is too large to be written out".to_owned());
        }
        Ok(())
    }

    fn condition(&mut self, condition: &Condition, at: &str) -> Result<Json, Unsaid> {
        self.grow(1)?;
        match condition {
            Condition::Constant(Truth::Broken) => Err("its definition makes no sense".to_owned()),
            Condition::Constant(truth) => Ok((*truth == Truth::True).into()),
            Condition::All(parts) => {
                let parts =
                    parts.iter().map(|part| self.condition(part, at)).collect::<Result<Vec<_>, _>>()?;
                Ok(all(parts))
            }
            Condition::Any(parts) => {
                let parts =
                    parts.iter().map(|part| self.condition(part, at)).collect::<Result<Vec<_>, _>>()?;
                Ok(any(parts))
            }
            Condition::Not(part) => Ok(not(self.condition(part, at)?)),
            Condition::Lenient(part) => self.condition(part, at),
            Condition::Test(test) => self.test(test, at),
            Condition::Share(share) => self.share(&share.bucketing, &share.ranges, at),
            Condition::Segment { name, negate, unknown } => {
                let name = name.text();
                let holds = match self.segment(&name)? {
                    Some(holds) => holds,
                    None => truth(*unknown, &format!("there is no segment `{name}`"))?,
                };
                Ok(if *negate { not(holds) } else { holds })
            }
            Condition::Flag(check) => self.check(check, at),
            Condition::During(period) => Ok(self.during(*period, at)),
            Condition::Custom(own) => {
                let mut differs = Vec::new();
                match own.plain(&mut differs) {
                    Some(plain) => {
                        let written = self.condition(&plain, at);
                        for message in differs {
                            self.lose(at, LossKind::Changed, message);
                        }
                        written
                    }
                    None => Err(format!("flagd can't ask: {}", own.describe())),
                }
            }
        }
    }

    /// Asks for a segment; within another segment, what it asks is written out (flagd's evaluators can't name each other).
    fn segment(&mut self, name: &str) -> Result<Option<Json>, Unsaid> {
        let Some(segment) = self.segments.get(name).copied() else { return Ok(None) };
        let nested = self.stack.iter().any(|on| on.starts_with("segment "));
        if !nested && let Some((known, losses)) = self.evaluators.get(name) {
            let here = losses.iter().map(|loss| Loss { flag: Some(self.flag.to_owned()), ..loss.clone() });
            self.losses.extend(here);
            return known.clone().map(|_| Some(json!({"$ref": evaluator(name)})));
        }
        let entry = format!("segment {name}");
        if self.stack.contains(&entry) {
            return Err(format!("segment `{name}` depends on itself"));
        }
        self.stack.push(entry);
        let before = self.losses.len();
        let written = self.condition(&segment.condition, &format!("segments/{name}"));
        self.stack.pop();
        if nested {
            return written.map(Some);
        }
        if matches!(written, Ok(Json::Bool(_))) {
            return written.map(Some);
        }
        let losses = self.losses.get(before..).unwrap_or_default().to_vec();
        self.evaluators.insert(name.to_owned(), (written.clone(), losses));
        written.map(|_| Some(json!({"$ref": evaluator(name)})))
    }

    /// What another flag comes to, written out.
    fn check(&mut self, check: &FlagCheck, at: &str) -> Result<Json, Unsaid> {
        let key = &*check.flag;
        let Some(flag) = self.flags.get(key).copied() else {
            return truth(check.unknown, &format!("there is no flag `{key}`"));
        };
        let entry = format!("flag {key}");
        if self.stack.contains(&entry) {
            return truth(check.cyclic, &format!("flag `{key}` depends on itself"));
        }
        if let Some(fault) = &flag.fault {
            return truth(check.faulty, &format!("flag `{key}` is an error: {}", fault.message));
        }
        if check.value.is_some() {
            return Err(format!("flagd can't ask for the value of flag `{key}`"));
        }
        if (check.leaf && !flag.prerequisites.is_empty()) || (check.enabled && flag.switch != Switch::On) {
            return Ok(Json::Bool(false));
        }
        self.stack.push(entry);
        let names = names(flag);
        let decided = self.decide(flag, &names, &format!("{at}/{key}/"));
        self.stack.pop();
        let decided = decided?;
        self.grow(nodes(&decided))?;
        let mut met = Vec::new();
        if let Some(on) = check.on {
            let wanted = names.iter().zip(flag.variants.iter()).filter(|(_, variant)| variant.on == on);
            let wanted: Vec<&str> = wanted.map(|(name, _)| name.as_str()).collect();
            // The caller's default counts as off.
            met.push(comes_to(&decided, &wanted, !on));
        }
        if let Some(variants) = &check.variants {
            let wanted: Vec<&str> = names
                .iter()
                .zip(flag.variants.iter())
                .filter(|(_, variant)| variants.contains(&variant.name))
                .map(|(name, _)| name.as_str())
                .collect();
            met.push(comes_to(&decided, &wanted, false));
        }
        Ok(all(met))
    }

    fn during(&mut self, period: Period, at: &str) -> Json {
        let now = json!({"var": "$flagd.timestamp"});
        let ends = [period.from, period.until];
        if period.with_end || ends.iter().flatten().any(|end| end.subsec_nanosecond() != 0) {
            self.lose(
                at,
                LossKind::Changed,
                "flagd's time has whole seconds: for less than one, it may differ",
            );
        }
        let from = period.from.map(|from| json!({">=": [now.clone(), from.as_second()]}));
        let sign = if period.with_end { "<=" } else { "<" };
        let until = period.until.map(|until| json!({sign: [now.clone(), until.as_second()]}));
        all(from.into_iter().chain(until).collect())
    }

    fn test(&mut self, test: &Test, at: &str) -> Result<Json, Unsaid> {
        let value = variable(&test.subject)?;
        let Fit { holds, fits } = self.operator(&test.operator, &value, at)?;
        let of_elements = match (test.lists, &test.operator) {
            (Lists::Whole, _) | (_, Operator::Present) => None,
            (Lists::AnyElement, operator) => {
                let element = json!({"var": ""});
                let Fit { holds, .. } = self.operator(operator, &element, at)?;
                Some(json!({"some": [value.clone(), holds]}))
            }
        };
        let there = json!({"!==": [value.clone(), null]});
        let scalar = match (test.negate, test.mismatch) {
            (false, Truth::False) => holds,
            (false, Truth::True) => any(vec![holds, not(fits)]),
            (true, Truth::False) => all(vec![fits, not(holds)]),
            (true, Truth::True) => not(holds),
            (_, Truth::Broken) => return Err("a value of a wrong type makes an error".to_owned()),
        };
        let whole = match (of_elements, test.negate, test.mismatch) {
            (None, ..) => scalar,
            (Some(of_elements), false, Truth::False) => any(vec![scalar, of_elements]),
            (Some(of_elements), true, Truth::True) => all(vec![scalar, not(of_elements)]),
            (Some(of_elements), negate, _) => {
                let of_elements = if negate { not(of_elements) } else { of_elements };
                choose(is_list(&value), of_elements, scalar)
            }
        };
        match test.missing {
            Truth::True => Ok(any(vec![not(there), whole])),
            Truth::False if !test.negate && test.mismatch == Truth::False && refuses_null(&test.operator) => {
                Ok(whole)
            }
            Truth::False => Ok(all(vec![there, whole])),
            Truth::Broken => Err("a missing value makes an error".to_owned()),
        }
    }

    /// When `value` satisfies an operator (false for what it can't take), and when it is of a type that the operator can take.
    fn operator(&mut self, operator: &Operator, value: &Json, at: &str) -> Result<Fit, Unsaid> {
        let is_text = || json!({"in": ["", value]});
        match operator {
            Operator::Present => Ok(Fit { holds: Json::Bool(true), fits: Json::Bool(true) }),
            Operator::OneOf(names) => {
                self.grow(names.len())?;
                let texts: Vec<String> = names.iter().map(crate::value::Name::text).collect();
                Ok(Fit {
                    holds: member(value, texts.iter().map(|text| text.as_str().into())),
                    fits: is_text(),
                })
            }
            Operator::Equals { any_of } => {
                self.grow(any_of.len())?;
                if any_of.iter().any(|one| matches!(one, Value::List(_) | Value::Object(_))) {
                    return Err("flagd can't compare with lists and objects".to_owned());
                }
                Ok(Fit { holds: member(value, any_of.iter().map(Json::from)), fits: Json::Bool(true) })
            }
            Operator::Text { any_of, how, ignore_case, scalars } => {
                self.grow(any_of.len())?;
                if *ignore_case {
                    return Err("flagd can't ignore the case of letters".to_owned());
                }
                if *scalars {
                    return Err("flagd can't compare the text of numbers and booleans".to_owned());
                }
                let part =
                    |name: &str| any(any_of.iter().map(|text| json!({name: [value, &**text]})).collect());
                let holds = match how {
                    Texts::Is => member(value, any_of.iter().map(|text| Json::from(&**text))),
                    Texts::StartsWith => part("starts_with"),
                    Texts::EndsWith => part("ends_with"),
                    Texts::Contains => {
                        any(any_of.iter().map(|text| json!({"in": [&**text, value]})).collect())
                    }
                };
                Ok(Fit { holds, fits: is_text() })
            }
            Operator::Number { comparison, with, parse } => {
                if *parse {
                    return Err("flagd can't compare texts as numbers strictly".to_owned());
                }
                let with = number(*with)?;
                let is_number = json!({"===": [{"+": [value, 0]}, value]});
                let sign = match comparison {
                    Comparison::Equal => "===",
                    Comparison::NotEqual => "!==",
                    other => other.sign(),
                };
                let compared = json!({sign: [value, with]});
                Ok(Fit { holds: all(vec![is_number.clone(), compared]), fits: is_number })
            }
            Operator::Version { comparison, with, dialect } => {
                if *dialect != VersionDialect::Prefixed {
                    let message = "flagd takes numbers and texts such as `v1` and `1.2` for versions, too";
                    self.lose(&format!("{at}/when"), LossKind::Changed, message);
                }
                let compared = |sign: &str| json!({"sem_ver": [value, sign, &**with]});
                let fits = json!({"!==": [compared("="), null]});
                Ok(Fit { holds: compared(comparison.sign()), fits })
            }
            Operator::Time { .. } => Err("flagd can't compare times".to_owned()),
            Operator::Pattern { .. } => Err("flagd has no patterns".to_owned()),
            Operator::Network { .. } => Err("flagd has no networks".to_owned()),
            Operator::Custom(own) => Err(format!("flagd can't ask: {}", own.describe())),
        }
    }

    /// That a context's point lies in one of the ranges.
    fn share(&mut self, bucketing: &Bucketing, ranges: &[Range], at: &str) -> Result<Json, Unsaid> {
        let slices: Vec<Slice> =
            ranges.iter().map(|range| Slice { range: *range, variant: 1, experiment: false }).collect();
        let (weights, exact) = weights(&bucketing.scale, &slices, PastEnd::Variant(0))?;
        let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let within: u64 = weights.iter().filter(|(index, _)| *index == 1).map(|(_, weight)| weight).sum();
        let placed = if within == 0 {
            Json::Bool(false)
        } else if within == total {
            Json::Bool(true)
        } else {
            self.rebucketed(bucketing, exact, &format!("{at}/when"));
            let buckets =
                weights.iter().map(|(index, weight)| json!([if *index == 1 { "in" } else { "out" }, weight]));
            json!({"===": [fractional(bucketing, buckets)?, "in"]})
        };
        self.when_missing(bucketing, placed, at, |point| {
            ranges.iter().any(|range| range.contains(point)).into()
        })
    }

    fn split(&mut self, split: &Split, names: &[String], next: &Json, at: &str) -> Result<Json, Unsaid> {
        // What lies beyond all slices goes on to what follows.
        let beyond = names.len();
        let past_end = match split.past_end {
            PastEnd::GoOn => PastEnd::Variant(beyond),
            other => other,
        };
        let (weights, exact) = weights(&split.bucketing.scale, &split.slices, past_end)?;
        let served: Vec<_> = weights.iter().filter(|(_, weight)| *weight > 0).collect();
        let name = |index: usize| match names.get(index) {
            Some(name) => Ok(Json::from(name.as_str())),
            None if index == beyond => Ok(next.clone()),
            None => Err(format!("{at} serves a variant that is not there")),
        };
        let first = served.first().map_or(beyond, |(index, _)| *index);
        let placed = if served.iter().all(|(index, _)| *index == first) {
            name(first)?
        } else {
            self.rebucketed(&split.bucketing, exact, at);
            let label = |index: usize| names.get(index).cloned().unwrap_or_default();
            let buckets = weights.iter().map(|(index, weight)| json!([label(*index), weight]));
            let fractional = fractional(&split.bucketing, buckets)?;
            if served.iter().any(|(index, _)| *index == beyond) {
                let decided: Vec<Json> = served
                    .iter()
                    .filter(|(index, _)| *index != beyond)
                    .map(|(index, _)| label(*index).into())
                    .collect();
                self.grow(nodes(next))?;
                choose(json!({"in": [fractional, decided]}), fractional, next.clone())
            } else {
                fractional
            }
        };
        let otherwise = |point: f64| {
            let slice = split.slices.iter().find(|slice| slice.range.contains(point));
            match (slice, split.past_end) {
                (Some(slice), _) => name(slice.variant),
                (None, PastEnd::Last) => name(split.slices.last().map_or(beyond, |slice| slice.variant)),
                (None, PastEnd::Variant(index)) => name(index),
                (None, PastEnd::GoOn) => Ok(next.clone()),
            }
            .unwrap_or_default()
        };
        match split.bucketing.missing {
            MissingInput::NoPoint => Ok(choose(present(&split.bucketing)?, placed, next.clone())),
            _ => self.when_missing(&split.bucketing, placed, at, otherwise),
        }
    }

    /// What it comes to if the input of the hash is missing.
    fn when_missing(
        &mut self,
        bucketing: &Bucketing,
        placed: Json,
        at: &str,
        at_point: impl Fn(f64) -> Json,
    ) -> Result<Json, Unsaid> {
        match bucketing.missing {
            MissingInput::NoPoint => Ok(all(vec![present(bucketing)?, placed])),
            MissingInput::Point(point) => Ok(choose(present(bucketing)?, placed, at_point(point))),
            MissingInput::Random => {
                self.lose(
                    at,
                    LossKind::Changed,
                    "flagd has no chance: who can't be placed gets the same every time",
                );
                Ok(placed)
            }
            MissingInput::Broken => Err("a missing key makes an error".to_owned()),
        }
    }

    fn rebucketed(&mut self, bucketing: &Bucketing, exact: bool, at: &str) {
        let same_hash = matches!(bucketing.hash, Hash::Murmur3 { seed: 0 });
        if !(exact && same_hash && matches!(bucketing.scale, Scale::Multiply { .. })) {
            let message = "flagd places users with another hash: as many see it, but not the same ones";
            self.lose(at, LossKind::Rebucketed, message);
        }
    }
}

/// When a value satisfies an operator, and when it is of a type that the operator takes.
struct Fit {
    holds: Json,
    fits: Json,
}

/// The variants' names; those without one, or with another's, are numbered.
fn names(flag: &Flag) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(flag.variants.len());
    for (index, variant) in flag.variants.iter().enumerate() {
        let name = match (&*variant.name, &variant.value) {
            ("", Value::Bool(yes)) => (if *yes { "on" } else { "off" }).to_owned(),
            ("", _) => index.to_string(),
            (name, _) => name.to_owned(),
        };
        let taken = names.contains(&name);
        names.push(if taken { format!("{name}-{index}") } else { name });
    }
    names
}

fn evaluator(segment: &str) -> String {
    format!("segment-{segment}")
}

fn truth(truth: Truth, broken: &str) -> Result<Json, Unsaid> {
    match truth {
        Truth::True => Ok(Json::Bool(true)),
        Truth::False => Ok(Json::Bool(false)),
        Truth::Broken => Err(broken.to_owned()),
    }
}

fn metadata(facts: &Facts) -> Map<String, Json> {
    let text = |text: &Option<String>| text.clone().map(Json::from);
    let time = |time: Option<flowline_core::Timestamp>| time.map(|time| Json::from(time.to_string()));
    let kind = match facts.kind {
        FlagKind::Release => None,
        other => serde_json::to_value(other).ok(),
    };
    let known = [
        ("description", text(&facts.description)),
        ("owner", text(&facts.owner)),
        ("kind", kind),
        ("created", time(facts.created)),
        ("expected_end", time(facts.expected_end)),
    ];
    let known = known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    known.chain(facts.metadata.iter().map(|(name, value)| (name.clone(), value.into()))).collect()
}

fn variable(subject: &Subject) -> Result<Json, Unsaid> {
    match subject {
        Subject::Key => Ok(json!({"var": "targetingKey"})),
        Subject::Attribute { name, path } => {
            let name = name.text();
            let parts: Vec<&str> =
                std::iter::once(name.as_str()).chain(path.iter().map(|key| &**key)).collect();
            let odd = |part: &&str| part.is_empty() || part.contains('.');
            if parts.iter().any(odd) || name == "$flagd" || name == "targetingKey" {
                return Err(format!("flagd can't name the attribute `{name}`"));
            }
            if path.iter().any(|key| key.bytes().all(|byte| byte.is_ascii_digit())) {
                return Err(format!("in flagd, numbers in `{}` enter lists, too", parts.join(".")));
            }
            Ok(json!({"var": parts.join(".")}))
        }
        other => Err(format!("flagd's contexts have no {other:?}")),
    }
}

/// A finite number; JSON has no other.
fn number(number: f64) -> Result<Json, Unsaid> {
    match serde_json::Number::from_f64(number) {
        Some(_) => Ok(Json::from(&Value::from(number))),
        None => Err(format!("JSON has no {number}")),
    }
}

/// Whether what is written for an operator is false of null anyway.
fn refuses_null(operator: &Operator) -> bool {
    match operator {
        Operator::Present => false,
        Operator::Equals { any_of } => !any_of.contains(&Value::Null),
        _ => true,
    }
}

fn member(value: &Json, of: impl Iterator<Item = Json>) -> Json {
    let of: Vec<Json> = of.collect();
    if of.is_empty() { Json::Bool(false) } else { json!({"in": [value, of]}) }
}

/// Whether a value is a list. JSON logic can't ask, but only lists have elements, and only the empty one is neither true nor any scalar.
fn is_list(value: &Json) -> Json {
    let elements = json!({"some": [value, {"==": [1, 1]}]});
    let empty = json!({"and": [{"!": [value]}, {"!==": [value, null]}, {"!==": [value, false]}, {"!==": [value, 0]}, {"!==": [value, ""]}]});
    any(vec![elements, empty])
}

/// Whether what is hashed is there.
fn present(bucketing: &Bucketing) -> Result<Json, Unsaid> {
    let mut parts = Vec::new();
    for input in &bucketing.input {
        if let Input::Of { first_of, .. } = input {
            let there = first_of
                .iter()
                .map(|subject| Ok(json!({"!==": [variable(subject)?, null]})))
                .collect::<Result<Vec<_>, Unsaid>>()?;
            parts.push(any(there));
        }
    }
    Ok(all(parts))
}

/// The `fractional` over the bucketing's input.
fn fractional(bucketing: &Bucketing, buckets: impl Iterator<Item = Json>) -> Result<Json, Unsaid> {
    let mut input = Vec::new();
    if let Hash::Xxh3 { seed } = bucketing.hash {
        // What another hash takes as its seed goes in front.
        input.push(Json::from(format!("{seed:016x}:")));
    }
    for part in &bucketing.input {
        input.push(match part {
            Input::Literal(text) => Json::from(&**text),
            Input::Of { first_of, .. } => {
                let mut value = Json::from("");
                for subject in first_of.iter().rev() {
                    let variable = variable(subject)?;
                    let there = json!({"!==": [variable.clone(), null]});
                    value = if value == "" { variable } else { choose(there, variable, value) };
                }
                value
            }
        });
    }
    let operands: Vec<Json> = std::iter::once(json!({"cat": input})).chain(buckets).collect();
    Ok(json!({"fractional": operands}))
}

/// The slices as weights one behind the other, and whether they are exactly those.
fn weights(scale: &Scale, slices: &[Slice], past_end: PastEnd) -> Result<(Vec<(usize, u64)>, bool), Unsaid> {
    let (start, end, step) = match *scale {
        Scale::Modulo { of, plus } => (f64::from(plus), f64::from(plus) + f64::from(of), 1.0),
        Scale::Fraction { of } => (0.0, 1.0, 1.0 / f64::from(of.max(1))),
        Scale::Unit => (0.0, 1.0, 0.0),
        Scale::Multiply { of } => (0.0, f64::from(of), 1.0),
    };
    if end <= start {
        return Err("its hash has no points".to_owned());
    }
    let mut cuts: Vec<f64> = vec![start, end];
    for slice in slices {
        // An end that belongs to the slice is the next point's begin.
        let until = if slice.range.with_end { slice.range.until + step } else { slice.range.until };
        cuts.extend([slice.range.from, until]);
    }
    cuts.retain(|cut| *cut >= start && *cut <= end);
    cuts.sort_by(f64::total_cmp);
    cuts.dedup();
    let whole = end - start;
    let unit = matches!(scale, Scale::Multiply { .. } | Scale::Modulo { .. }) && whole <= f64::from(i32::MAX);
    let counted = if unit { whole } else { PARTS };
    let mut exact = unit;
    let mut sum = 0_u64;
    let mut weights: Vec<(usize, u64)> = Vec::new();
    for pair in cuts.windows(2) {
        let [from, until] = pair else { continue };
        // Points with a step lie on whole steps; others anywhere.
        let point = if step > 0.0 { (from / step).ceil() * step } else { (from + until) / 2.0 };
        let slice = slices.iter().find(|slice| slice.range.contains(point));
        let variant = match (slice, past_end) {
            (Some(slice), _) => slice.variant,
            (None, PastEnd::Last) => slices.last().map_or(0, |slice| slice.variant),
            (None, PastEnd::Variant(index)) => index,
            (None, PastEnd::GoOn) => return Err("it goes on past its end".to_owned()),
        };
        let upto = (until - start) / whole * counted;
        let upto = if unit { upto.ceil() } else { upto.round() };
        exact &= unit;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^31")]
        let upto = upto as u64;
        let weight = upto.saturating_sub(sum);
        sum += weight;
        match weights.last_mut() {
            Some((last, sum)) if *last == variant => *sum += weight,
            _ => weights.push((variant, weight)),
        }
    }
    Ok((weights, exact))
}

/// Whether an expression comes to one of some names; `or_none`: or to the caller's default.
fn comes_to(decided: &Json, wanted: &[&str], or_none: bool) -> Json {
    match decided {
        Json::Null => or_none.into(),
        Json::String(name) => wanted.contains(&name.as_str()).into(),
        expression => {
            let named = (!wanted.is_empty()).then(|| json!({"in": [expression, wanted]}));
            let none = (or_none && has_none(expression)).then(|| json!({"===": [expression, null]}));
            any(named.into_iter().chain(none).collect())
        }
    }
}

/// The branches of an `if`.
fn branches(expression: &Json) -> Option<&[Json]> {
    expression.get("if")?.as_array().map(Vec::as_slice)
}

/// Whether an expression may come to the caller's default.
fn has_none(expression: &Json) -> bool {
    if expression.is_null() {
        return true;
    }
    let Some(parts) = branches(expression) else { return false };
    let odd = parts.len() % 2 == 1;
    parts.iter().skip(1).step_by(2).any(has_none) || !odd || parts.last().is_some_and(has_none)
}

/// The default variant and what is left of the targeting.
fn split_default(expression: Json) -> (Json, Json) {
    if expression.is_null() || expression.is_string() {
        return (expression, Json::Null);
    }
    if has_none(&expression) {
        return (Json::Null, expression);
    }
    let Json::Object(mut operation) = expression else { return (Json::Null, expression) };
    let default = match operation.get_mut("if") {
        Some(Json::Array(parts)) if parts.last().is_some_and(Json::is_string) => parts.pop(),
        _ => None,
    };
    (default.unwrap_or_default(), operation.into())
}

fn nodes(json: &Json) -> usize {
    1 + match json {
        Json::Array(list) => list.iter().map(nodes).sum(),
        Json::Object(entries) => entries.values().map(nodes).sum(),
        _ => 0,
    }
}

fn all(parts: Vec<Json>) -> Json {
    group("and", parts, false)
}

fn any(parts: Vec<Json>) -> Json {
    group("or", parts, true)
}

/// A group, without what decides nothing; `until` is what decides it alone.
fn group(name: &str, parts: Vec<Json>, until: bool) -> Json {
    if parts.contains(&Json::Bool(until)) {
        return Json::Bool(until);
    }
    let mut parts: Vec<Json> = parts.into_iter().filter(|part| *part != Json::Bool(!until)).collect();
    match parts.len() {
        0 => Json::Bool(!until),
        1 => parts.remove(0),
        _ => json!({name: parts}),
    }
}

fn not(part: Json) -> Json {
    match part {
        Json::Bool(yes) => Json::Bool(!yes),
        other => json!({"!": [other]}),
    }
}

/// `if`, without branches that are never taken; chains are one `if`.
fn choose(when: Json, then: Json, otherwise: Json) -> Json {
    match when {
        Json::Bool(true) => return then,
        Json::Bool(false) => return otherwise,
        _ if then == otherwise => return then,
        _ => {}
    }
    let mut parts = vec![when, then];
    match branches(&otherwise) {
        Some(more) => parts.extend(more.iter().cloned()),
        None => parts.push(otherwise),
    }
    json!({"if": parts})
}
