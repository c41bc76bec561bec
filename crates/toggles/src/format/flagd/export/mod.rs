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

mod logic;
mod place;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use self::logic::{all, any, choose, comes_to, is_list, member, nodes, not, split_default};
use super::super::{Loss, LossKind};
use crate::{
    format::import::names,
    model::{
        Comparison, Condition, Facts, Flag, FlagCheck, FlagKind, FlagSet, Lists, Operator, Outcome, Period,
        Rule, Segment, Subject, Switch, Test, Texts, Truth, VersionDialect,
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
            Operator::Version { comparison, with, dialect, .. } => {
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
}

/// When a value satisfies an operator, and when it is of a type that the operator takes.
struct Fit {
    holds: Json,
    fits: Json,
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
