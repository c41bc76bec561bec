//! From the model, and so from any format, to a document of our own: which clauses and rules say the same, and what none says.
//!
//! Nobody moves: hashes, scales and ranges are kept as they are (`share`, and `serve` with `bucketing`). A flag's prerequisites, rules and default become
//! `requires`, `rules` and `serve`, its switch becomes its state. What a format's own code decides is asked for
//! [its words in the model](crate::engine::Predicate::plain).

use std::collections::BTreeMap;

use super::{
    Loss, LossKind,
    flowline::{
        Asks, Attribute, Beyond, Clause, Compare, Definition, Document, FlagKey, Rule, Segment, Serve,
        Slices, State,
    },
};
use crate::{
    engine::parse_version,
    model::{
        self, Comparison, Condition, Facts, Flag, FlagCheck, FlagSet, Lists, Operator, Outcome, PastEnd,
        Period, Split, Subject, Switch, Test, Texts, Truth, ValueType,
    },
    value::{Name, Value},
};

/// A document of our own, and what it could not keep.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// The document.
    pub document: Document,
    /// What it could not keep, flag by flag.
    pub losses: Vec<Loss>,
}

/// Writes flags of any format as a document of our own.
///
/// Whoever the [losses](Import::losses) do not name sees the same value in both, whatever the context.
///
/// ```
/// use flowline_toggles::format::{Format, import, unleash::Unleash};
/// let set = Unleash::new().read(r#"{"version": 1, "features": [{"name": "checkout", "enabled": true, "strategies": [
///     {"name": "flexibleRollout", "parameters": {"rollout": "25", "stickiness": "userId", "groupId": "checkout"}}]}]}"#)?;
/// let imported = import(&set);
/// assert!(imported.losses.is_empty());
/// assert_eq!(imported.document.flags["checkout"].rules.len(), 1);
/// # Ok::<(), flowline_toggles::format::FormatError>(())
/// ```
pub fn import(set: &FlagSet) -> Import {
    let mut importer = Importer {
        flags: set.flags.iter().map(|flag| (&*flag.key, flag)).collect(),
        segments: set.segments.iter().map(|segment| segment.name.text()).collect(),
        unsaid: BTreeMap::new(),
        flag: None,
        whole_lists: false,
        losses: Vec::new(),
    };
    let mut document = Document::default();
    // A segment that can't be said takes along those that ask for it, until no more of them do.
    loop {
        let before = importer.unsaid.len();
        document.segments.clear();
        importer.losses.clear();
        for segment in &set.segments {
            let name = segment.name.text();
            match importer.condition(&segment.condition, &format!("segments/{name}")) {
                Ok(said) => drop(document.segments.insert(name, said_by(said))),
                Err(unsaid) => drop(importer.unsaid.insert(name, unsaid)),
            }
        }
        if importer.unsaid.len() == before {
            break;
        }
    }
    for (name, unsaid) in importer.unsaid.clone() {
        importer.lose(
            &format!("segments/{name}"),
            LossKind::Changed,
            format!("{unsaid}; the segment is left out"),
        );
    }
    for flag in importer.flags.values().copied().collect::<Vec<_>>() {
        importer.flag = Some(flag.key.to_string());
        match importer.flag(flag) {
            Ok((key, definition)) => drop(document.flags.insert(key, definition)),
            Err(unsaid) => importer.lose("", LossKind::Absent, unsaid),
        }
    }
    importer.drop_orphans(&mut document);
    importer.flag = None;
    if importer.whole_lists {
        let message = "our own comparisons look at the elements of an attribute that is a list";
        importer.lose("", LossKind::Changed, message);
    }
    let mut losses = importer.losses;
    losses.sort();
    losses.dedup();
    Import { document, losses }
}

/// Why something has no counterpart.
type Unsaid = String;

/// A condition, where what holds always or never is known.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    Always,
    Never,
    When(Clause),
}

impl From<bool> for Said {
    fn from(holds: bool) -> Self {
        if holds { Self::Always } else { Self::Never }
    }
}

struct Importer<'s> {
    flags: BTreeMap<&'s str, &'s Flag>,
    segments: Vec<String>,
    /// The segments that can't be said, and why.
    unsaid: BTreeMap<String, Unsaid>,
    /// The flag at hand.
    flag: Option<String>,
    /// Whether a comparison was met that takes a list as a whole.
    whole_lists: bool,
    losses: Vec<Loss>,
}

impl Importer<'_> {
    fn lose(&mut self, at: &str, kind: LossKind, message: impl Into<String>) {
        let flag = self.flag.clone();
        self.losses.push(Loss { flag, at: at.to_owned(), kind, message: message.into() });
    }

    /// Leaves out flags that ask for flags that are not in the document, until none does.
    fn drop_orphans(&mut self, document: &mut Document) {
        loop {
            let orphan = document.flags.iter().find_map(|(key, definition)| {
                let missing =
                    definition.asks().into_iter().find(|asked| !document.flags.contains_key(*asked))?;
                Some((key.clone(), missing.to_owned()))
            });
            let Some((key, missing)) = orphan else { return };
            document.flags.shift_remove(&key);
            self.flag = Some(key.to_string());
            self.lose("", LossKind::Absent, format!("it asks for flag `{missing}`, which is left out"));
        }
    }

    fn flag(&mut self, flag: &Flag) -> Result<(FlagKey, Definition), Unsaid> {
        let key = FlagKey::new(&flag.key).map_err(|error| error.to_string())?;
        if let Some(fault) = &flag.fault {
            return Err(format!("it is an error: {}", fault.message));
        }
        let names = names(flag);
        let mut definition = Definition::default();
        if let Some(facts) = flag.facts.as_deref() {
            told(facts, &mut definition);
        }
        let usual = flag.value_type == ValueType::Boolean && names == ["off", "on"];
        let usual = usual && matches!(flag.off, Outcome::Variant(0));
        if !usual {
            definition.variants = names
                .iter()
                .zip(flag.variants.iter())
                .map(|(name, one)| (name.as_str(), one.value.clone()))
                .collect();
            definition.mixed = several_types(flag);
        }
        definition.off = match &flag.off {
            Outcome::Variant(0) if usual => None,
            Outcome::Variant(index) => Some(named(&names, *index)?),
            Outcome::Caller => None,
            _ => return Err("what it is when it is switched off is no single variant".to_owned()),
        };
        if flag.variants.iter().any(|variant| variant.value.is_null()) {
            return Err("a variant has no value".to_owned());
        }
        let counts =
            |name: &str, value: &Value| value.as_bool().unwrap_or(definition.off.as_deref() != Some(name));
        let differs =
            |(name, variant): (&String, &model::Variant)| counts(name, &variant.value) != variant.on;
        if names.iter().zip(flag.variants.iter()).any(differs) {
            let message = "here a variant counts as on if it is `true` or no boolean, and not the `off` one";
            self.lose("variants", LossKind::Knowledge, message);
        }
        self.prerequisites(flag, &names, &mut definition)?;
        for (index, rule) in flag.rules.iter().enumerate() {
            self.rule(rule, flag, &names, &[], &format!("rules/{index}"), &mut definition.rules)?;
        }
        self.fallback(flag, &names, &mut definition)?;
        definition.state = State {
            on: Some(flag.switch != Switch::Off),
            killed: flag.switch == Switch::Killed,
            ..State::default()
        };
        Ok((key, definition))
    }

    fn prerequisites(
        &mut self,
        flag: &Flag,
        names: &[String],
        definition: &mut Definition,
    ) -> Result<(), Unsaid> {
        for (index, prerequisite) in flag.prerequisites.iter().enumerate() {
            let at = format!("prerequisites/{index}");
            let unmet = match self.check(&prerequisite.check)? {
                Said::Always => continue,
                Said::Never => Said::Always,
                Said::When(Clause { asks: Asks::Flag { flag, variants, enabled: false }, not: false })
                    if variants.is_empty()
                        && prerequisite.otherwise.is_none()
                        && definition.rules.is_empty() =>
                {
                    definition.requires.push(FlagKey::new(&flag).map_err(|error| error.to_string())?);
                    continue;
                }
                Said::When(clause) => Said::When(opposite(clause)),
            };
            match &prerequisite.otherwise {
                None => definition.rules.push(Rule { off: true, when: clauses(unmet), ..Rule::default() }),
                Some(outcome) => {
                    let when = clauses(unmet);
                    self.outcome(outcome, None, flag, names, when, &at, &mut definition.rules)?;
                }
            }
        }
        Ok(())
    }

    fn fallback(&mut self, flag: &Flag, names: &[String], definition: &mut Definition) -> Result<(), Unsaid> {
        let mut rules = Vec::new();
        let mut outcome = flag.fallback.clone();
        if let Outcome::Custom(own) = &outcome {
            let mut differs = Vec::new();
            let plain = own.plain(&flag.key, &mut differs);
            for message in differs {
                self.lose("fallback", LossKind::Changed, message);
            }
            outcome = plain.ok_or_else(|| format!("the format's own code decides: {}", own.describe()))?;
        }
        match &outcome {
            Outcome::Variant(index) => definition.serve = Some(Serve::Variant(named(names, *index)?)),
            Outcome::Split(split) => definition.serve = Some(slices(split, names)?),
            other => {
                self.outcome(other, None, flag, names, Vec::new(), "fallback", &mut rules)?;
                let last = rules.pop_if(|rule| rule.when.is_empty() && !rule.off && !goes_on(rule));
                definition.rules.append(&mut rules);
                if let Some(last) = last {
                    definition.serve = last.serve;
                    return Ok(());
                }
                if !matches!(flag.off, Outcome::Caller) {
                    return Err("its default is neither a variant nor what it is when it is off".to_owned());
                }
                // Nobody else gets anything: those who fall through are in no audience.
                definition.audience = vec![Asks::Any(Vec::new()).into()];
                definition.serve = names.first().map(|name| Serve::Variant(name.clone()));
            }
        }
        Ok(())
    }

    /// Adds what a rule says, below conditions that hold already.
    fn rule(
        &mut self,
        rule: &model::Rule,
        flag: &Flag,
        names: &[String],
        outer: &[Clause],
        at: &str,
        rules: &mut Vec<Rule>,
    ) -> Result<(), Unsaid> {
        let said = match self.condition(&rule.when, at) {
            Ok(said) => said,
            Err(unsaid) => {
                self.lose(
                    &format!("{at}/when"),
                    LossKind::Changed,
                    format!("{unsaid}; the rule never applies"),
                );
                Said::Never
            }
        };
        let mut when = outer.to_vec();
        match said {
            Said::Never => return Ok(()),
            Said::Always => {}
            Said::When(Clause { asks: Asks::All(parts), not: false }) => when.extend(parts),
            Said::When(clause) => when.push(clause),
        }
        self.outcome(&rule.then, rule.id.as_deref(), flag, names, when, at, rules)
    }

    #[expect(clippy::too_many_arguments, reason = "what a rule is made of")]
    fn outcome(
        &mut self,
        outcome: &Outcome,
        id: Option<&str>,
        flag: &Flag,
        names: &[String],
        when: Vec<Clause>,
        at: &str,
        rules: &mut Vec<Rule>,
    ) -> Result<(), Unsaid> {
        let rule = Rule { id: id.map(str::to_owned), when, ..Rule::default() };
        match outcome {
            Outcome::Variant(index) => {
                rules.push(Rule { serve: Some(Serve::Variant(named(names, *index)?)), ..rule });
            }
            Outcome::Split(split) => rules.push(Rule { serve: Some(slices(split, names)?), ..rule }),
            Outcome::GoOn => {}
            Outcome::Rules(inner) => {
                for (index, one) in inner.iter().enumerate() {
                    self.rule(one, flag, names, &rule.when, &format!("{at}/{index}"), rules)?;
                }
            }
            Outcome::Caller if matches!(flag.off, Outcome::Caller) => rules.push(Rule { off: true, ..rule }),
            Outcome::Caller => return Err(format!("{at} gives the caller's default")),
            Outcome::Fault(fault) => {
                let message = format!("it is an error ({}) and is left out", fault.message);
                self.lose(at, LossKind::Changed, message);
            }
            Outcome::Custom(own) => {
                let mut differs = Vec::new();
                let Some(plain) = own.plain(&flag.key, &mut differs) else {
                    let message =
                        format!("the format's own code decides ({}); it is left out", own.describe());
                    self.lose(at, LossKind::Changed, message);
                    return Ok(());
                };
                for message in differs {
                    self.lose(at, LossKind::Changed, message);
                }
                self.outcome(&plain, id, flag, names, rule.when, at, rules)?;
            }
        }
        Ok(())
    }

    fn condition(&mut self, condition: &Condition, at: &str) -> Result<Said, Unsaid> {
        match condition {
            Condition::Constant(Truth::Broken) => Err("its definition makes no sense".to_owned()),
            Condition::Constant(truth) => Ok((*truth == Truth::True).into()),
            Condition::All(parts) => {
                Ok(all(parts.iter().map(|part| self.condition(part, at)).collect::<Result<_, _>>()?))
            }
            Condition::Any(parts) => {
                Ok(any(parts.iter().map(|part| self.condition(part, at)).collect::<Result<_, _>>()?))
            }
            Condition::Not(part) => Ok(not(self.condition(part, at)?)),
            Condition::Lenient(part) => self.condition(part, at),
            Condition::Test(test) => self.test(test),
            Condition::Share(share) => Ok(Said::When(Asks::Share(Box::new(share.clone())).into())),
            Condition::Segment { name, negate, unknown } => {
                let text = name.text();
                if let Some(unsaid) = self.unsaid.get(&text) {
                    return Err(format!("segment `{text}`: {unsaid}"));
                }
                let said = if self.segments.contains(&text) {
                    Said::When(Clause::segment(name.clone()))
                } else {
                    constant(*unknown, &format!("there is no segment `{text}`"))?
                };
                Ok(if *negate { not(said) } else { said })
            }
            Condition::Flag(check) => self.check(check),
            Condition::During(period) => Ok(Said::When(Asks::During(*period).into())),
            Condition::Custom(own) => {
                let mut differs = Vec::new();
                let plain = own.plain(&mut differs);
                for message in differs {
                    self.lose(at, LossKind::Changed, message);
                }
                match plain {
                    Some(plain) => self.condition(&plain, at),
                    None => Err(format!("there are no words for: {}", own.describe())),
                }
            }
        }
    }

    fn check(&mut self, check: &FlagCheck) -> Result<Said, Unsaid> {
        let Some(flag) = self.flags.get(&*check.flag).copied() else {
            return constant(check.unknown, &format!("there is no flag `{}`", check.flag));
        };
        if let Some(fault) = &flag.fault {
            return constant(check.faulty, &format!("flag `{}` is an error: {}", check.flag, fault.message));
        }
        if check.value.is_some() {
            return Err(format!("there are no words for the value of flag `{}`", check.flag));
        }
        if check.leaf && !flag.prerequisites.is_empty() {
            return Ok(Said::Never);
        }
        let ask = |variants| -> Clause {
            Asks::Flag { flag: check.flag.clone(), variants, enabled: check.enabled }.into()
        };
        let mut parts = Vec::new();
        if let Some(on) = check.on {
            parts.push(Said::When(if on { ask(Vec::new()) } else { opposite(ask(Vec::new())) }));
        }
        if let Some(wanted) = &check.variants {
            let names = names(flag);
            let named =
                names.iter().zip(flag.variants.iter()).filter(|(_, variant)| wanted.contains(&variant.name));
            let named: Vec<Box<str>> = named.map(|(name, _)| name.as_str().into()).collect();
            parts.push(if named.is_empty() { Said::Never } else { Said::When(ask(named)) });
        }
        Ok(all(parts))
    }

    fn test(&mut self, test: &Test) -> Result<Said, Unsaid> {
        if let (Subject::Now, Operator::Time { comparison, with, .. }) = (&test.subject, &test.operator) {
            return during(*comparison, *with).map(|said| if test.negate { not(said) } else { said });
        }
        let attribute = attribute(&test.subject)?;
        let present = || Said::When(Clause::on_attribute(attribute.clone(), Compare::Present(true)));
        let compare = match compare(&test.operator)? {
            Some(Compare::Present(_)) => {
                return match (test.negate, test.missing) {
                    (false, Truth::False) => Ok(present()),
                    (true, Truth::True) => Ok(not(present())),
                    (_, truth) => constant(truth, "a missing value makes an error").map(|missing| {
                        if test.negate == (missing == Said::Always) { not(present()) } else { missing }
                    }),
                };
            }
            Some(compare) => compare,
            None => return constant(test.invalid, "its operand makes no sense"),
        };
        self.whole_lists |= test.lists == Lists::Whole && test.subject != Subject::Key;
        let simple = !matches!(compare, Compare::All(_))
            && !matches!(&compare, Compare::Coerced(inner) if matches!(**inner, Compare::All(_)));
        let base = Clause::on_attribute(attribute.clone(), compare);
        let never_wrong = matches!(test.operator, Operator::Equals { .. });
        let there = match (test.negate, test.mismatch) {
            (false, Truth::False) => Said::When(base),
            (false, _) if never_wrong => Said::When(base),
            // Negated, our own clause is false of what is missing or of a wrong type.
            (true, Truth::False) if simple => Said::When(base.negated()),
            (true, Truth::True) => all(vec![present(), not(all(vec![Said::When(base)]))]),
            (true, _) if never_wrong => Said::When(base.negated()),
            _ => return Err("there are no words for what a value of a wrong type comes to".to_owned()),
        };
        match constant(test.missing, "a missing value makes an error")? {
            Said::Always => Ok(any(vec![not(present()), there])),
            _ => Ok(there),
        }
    }
}

/// What the clauses compare with; `None`: the operand makes no sense.
fn compare(operator: &Operator) -> Result<Option<Compare>, Unsaid> {
    let coerced =
        |yes: bool, compare: Compare| if yes { Compare::Coerced(Box::new(compare)) } else { compare };
    Ok(Some(match operator {
        Operator::Present => Compare::Present(true),
        Operator::OneOf(names) => Compare::In(names.clone()),
        Operator::Equals { any_of } => match any_of.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
            Some(texts) => Compare::In(texts.into_iter().map(Name::new).collect()),
            None => Compare::Equals(any_of.clone()),
        },
        Operator::Text { any_of, how: Texts::Is, ignore_case: false, scalars } => {
            coerced(*scalars, Compare::In(any_of.iter().map(|text| Name::new(&**text)).collect()))
        }
        Operator::Text { any_of, how, ignore_case, scalars } => {
            let compare = Compare::Text { how: *how, any_of: any_of.clone(), ignore_case: *ignore_case };
            coerced(*scalars, compare)
        }
        Operator::Number { with, .. } if !with.is_finite() => {
            return Err(format!("{with} is no number to compare with"));
        }
        Operator::Number { comparison, with, parse } => coerced(
            *parse,
            match comparison {
                Comparison::Equal => Compare::All(vec![
                    Compare::Number(Comparison::GreaterOrEqual, *with),
                    Compare::Number(Comparison::LessOrEqual, *with),
                ]),
                Comparison::NotEqual => {
                    return Err("there are no words for numbers that are not equal".to_owned());
                }
                other => Compare::Number(*other, *with),
            },
        ),
        Operator::Time { comparison, with, milliseconds } => {
            if !matches!(comparison, Comparison::Greater | Comparison::Less) {
                return Err("moments are compared as after or before".to_owned());
            }
            coerced(*milliseconds, Compare::Time(*comparison, *with))
        }
        Operator::Version { comparison, with, dialect, .. } => match parse_version(with, *dialect) {
            Some(version) => Compare::Version(*comparison, version, *dialect),
            None => return Ok(None),
        },
        Operator::Pattern { pattern, ignore_case, scalars } => {
            if regex::RegexBuilder::new(pattern)
                .case_insensitive(*ignore_case)
                .size_limit(1 << 20)
                .build()
                .is_err()
            {
                return Ok(None);
            }
            coerced(*scalars, Compare::Pattern { pattern: pattern.clone(), ignore_case: *ignore_case })
        }
        Operator::Network { any_of } => Compare::Network(any_of.clone()),
        Operator::Custom(own) => return Err(format!("there are no words for: {}", own.describe())),
    }))
}

fn attribute(subject: &Subject) -> Result<Attribute, Unsaid> {
    match subject {
        Subject::Key => Ok(Attribute::new("targetingKey")),
        Subject::KeyOf { kind } => Ok(Attribute::new("targetingKey").of_kind(kind.clone())),
        Subject::Attribute { name, path } | Subject::AttributeOf { name, path, .. } => {
            if path.is_empty() && name.text() == "targetingKey" {
                return Err("an attribute is called as the targeting key is".to_owned());
            }
            let attribute = Attribute::at(name.clone(), path.iter().cloned());
            Ok(match subject {
                Subject::AttributeOf { kind, .. } => attribute.of_kind(kind.clone()),
                _ => attribute,
            })
        }
        other => Err(format!("there are no words for {other:?}")),
    }
}

fn during(comparison: Comparison, with: flowline_core::Timestamp) -> Result<Said, Unsaid> {
    let period = match comparison {
        // From the next moment on: periods begin with the moment that is given.
        Comparison::Greater => {
            Period { from: with.checked_add(std::time::Duration::from_nanos(1)).ok(), ..Period::default() }
        }
        Comparison::GreaterOrEqual => Period { from: Some(with), ..Period::default() },
        Comparison::Less => Period { until: Some(with), ..Period::default() },
        Comparison::LessOrEqual => Period { until: Some(with), with_end: true, ..Period::default() },
        _ => return Err("there are no words for a moment".to_owned()),
    };
    Ok(Said::When(Asks::During(period).into()))
}

fn slices(split: &Split, names: &[String]) -> Result<Serve, Unsaid> {
    let mut slices = Vec::with_capacity(split.slices.len());
    for slice in &split.slices {
        let bound = |end: f64| end.is_finite().then_some(end);
        slices.push(super::flowline::Slice {
            variant: named(names, slice.variant)?,
            from: bound(slice.range.from),
            until: bound(slice.range.until),
            with_end: slice.range.with_end,
            experiment: slice.experiment,
        });
    }
    let past_end = match split.past_end {
        PastEnd::Last => Beyond::Last,
        PastEnd::GoOn => Beyond::GoOn,
        PastEnd::Variant(index) => Beyond::Variant(named(names, index)?),
    };
    Ok(Serve::Slices(Box::new(Slices { bucketing: split.bucketing.clone(), slices, past_end })))
}

/// Whether some of those to whom a rule applies are looked at further.
fn goes_on(rule: &Rule) -> bool {
    match &rule.serve {
        Some(Serve::Slices(slices)) => {
            slices.past_end == Beyond::GoOn || slices.bucketing.missing == model::MissingInput::NoPoint
        }
        _ => false,
    }
}

fn named(names: &[String], index: usize) -> Result<String, Unsaid> {
    names.get(index).cloned().ok_or_else(|| "it serves a variant that is not there".to_owned())
}

/// The variants' names; those without one, or with another's, are numbered.
pub(super) fn names(flag: &Flag) -> Vec<String> {
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

fn several_types(flag: &Flag) -> bool {
    let of = |variant: &model::Variant| match variant.value {
        Value::List(_) | Value::Object(_) => "object",
        ref scalar => scalar.kind(),
    };
    let first = flag.variants.first().map(of);
    flag.variants.iter().any(|variant| Some(of(variant)) != first)
}

fn told(facts: &Facts, definition: &mut Definition) {
    definition.description.clone_from(&facts.description);
    definition.owner.clone_from(&facts.owner);
    definition.kind = facts.kind;
    definition.created = facts.created;
    definition.expected_end = facts.expected_end;
    definition.metadata.clone_from(&facts.metadata);
}

fn constant(truth: Truth, broken: &str) -> Result<Said, Unsaid> {
    match truth {
        Truth::True => Ok(Said::Always),
        Truth::False => Ok(Said::Never),
        Truth::Broken => Err(broken.to_owned()),
    }
}

fn all(parts: Vec<Said>) -> Said {
    if parts.contains(&Said::Never) {
        return Said::Never;
    }
    grouped(parts, Asks::All).map_or(Said::Always, Said::When)
}

fn any(parts: Vec<Said>) -> Said {
    if parts.contains(&Said::Always) {
        return Said::Always;
    }
    grouped(parts, Asks::Any).map_or(Said::Never, Said::When)
}

/// The clauses as one; `None` if there are none.
fn grouped(parts: Vec<Said>, group: fn(Vec<Clause>) -> Asks) -> Option<Clause> {
    let mut clauses: Vec<Clause> = parts
        .into_iter()
        .filter_map(|part| if let Said::When(clause) = part { Some(clause) } else { None })
        .collect();
    match clauses.len() {
        0 => None,
        1 => clauses.pop(),
        _ => Some(group(clauses).into()),
    }
}

fn not(said: Said) -> Said {
    match said {
        Said::Always => Said::Never,
        Said::Never => Said::Always,
        Said::When(clause) => Said::When(opposite(clause)),
    }
}

/// The opposite, also of what is missing: a negated clause on an attribute is false of that, a negated group is not.
fn opposite(clause: Clause) -> Clause {
    match &clause.asks {
        Asks::Attribute { is: Compare::Present(_), .. } => clause.negated(),
        Asks::Attribute { .. } => Clause::from(Asks::All(vec![clause])).negated(),
        _ => clause.negated(),
    }
}

/// The clauses that must all hold.
fn clauses(said: Said) -> Vec<Clause> {
    match said {
        Said::Always => Vec::new(),
        Said::Never => vec![Asks::Any(Vec::new()).into()],
        Said::When(clause) => vec![clause],
    }
}

/// A segment of nothing but its condition.
fn said_by(said: Said) -> Segment {
    let when = match said {
        Said::Always => vec![Asks::All(Vec::new()).into()],
        Said::Never => Vec::new(),
        Said::When(Clause { asks: Asks::All(parts), not: false }) => parts,
        Said::When(clause) => vec![clause],
    };
    Segment { members: Vec::new(), when }
}
