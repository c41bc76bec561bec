//! GrowthBook's conditions, compiled: for the engine where they look at a context, and for their own walk where they look into a value.

use std::{collections::BTreeMap, sync::Arc};

use regex::Regex;

use super::{
    coercion::{self, truthy},
    pattern::pattern,
    placing::ID,
    version::Padded,
};
use crate::{
    context::Context,
    engine::{Predicate, Situation, ValueTest, WordSet},
    model::{Comparison, Condition, Lists, Operator, Subject, Test, Truth},
    value::{Name, Value, Word},
};

/// How deep conditions may be nested; deeper ones are false.
const MAX_NESTING: usize = 24;

static NULL: Value = Value::Null;

/// A condition.
#[derive(Debug)]
pub(super) enum Cond {
    All(Vec<Cond>),
    Any(Vec<Cond>),
    Not(Box<Cond>),
    Field(Path, Op),
}

/// What a condition looks at.
#[derive(Clone, Copy)]
pub(super) enum Root<'r> {
    Context(&'r Context),
    /// An object (or anything else, in which there is nothing).
    Value(&'r Value),
    /// An object with the single entry `value`.
    Parent(&'r Value),
}

/// Where to look: an attribute and what lies in it.
#[derive(Debug)]
pub(super) struct Path {
    name: Name,
    text: Box<str>,
    rest: Vec<Box<str>>,
}

impl Path {
    fn new(text: &str) -> Self {
        let mut steps = text.split('.');
        let first = steps.next().unwrap_or_default();
        Self { name: Name::new(first), text: first.into(), rest: steps.map(Into::into).collect() }
    }

    fn find<'r>(&self, root: Root<'r>) -> &'r Value {
        let first = match root {
            Root::Context(context) => match context.first().find(&self.name) {
                Some(prepared) => Some(&prepared.value),
                None if *self.text == *ID => context.first().key(),
                None => None,
            },
            Root::Value(value) => step(value, &self.text),
            Root::Parent(value) => (*self.text == *"value").then_some(value),
        };
        self.rest.iter().try_fold(first.unwrap_or(&NULL), |value, key| step(value, key)).unwrap_or(&NULL)
    }
}

fn step<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        // An index is written one way only: `0`, not `00` or `+0`.
        Value::List(_) if key.len() > 1 && !key.starts_with(|first: char| matches!(first, '1'..='9')) => None,
        Value::List(values) => values.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    }
}

/// What a value must satisfy.
#[derive(Debug)]
pub(super) enum Op {
    Never,
    All(Vec<Op>),
    Not(Box<Op>),
    Null,
    Text { text: Box<str>, fold: bool },
    Number(f64),
    Bool(bool),
    Same(Value),
    Equal(Value),
    Compared(Comparison, Value),
    In { members: Box<Members>, negate: bool },
    Each(Vec<Op>),
    Element(Box<Op>),
    ElementObject(Box<Cond>),
    Size(Box<Op>),
    Exists(bool),
    Type(Box<str>),
    Pattern(Regex),
    Version(Comparison, Padded),
}

impl Cond {
    pub(super) fn holds(&self, root: Root<'_>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(root)),
            Self::Any(any) => any.iter().any(|one| one.holds(root)),
            Self::Not(not) => !not.holds(root),
            Self::Field(path, op) => op.holds(path.find(root)),
        }
    }

    /// The same as a condition on the context, for the engine.
    pub(super) fn into_condition(self) -> Condition {
        match self {
            Self::All(all) => Condition::All(all.into_iter().map(Self::into_condition).collect()),
            Self::Any(any) => Condition::Any(any.into_iter().map(Self::into_condition).collect()),
            Self::Not(not) => Condition::Not(Box::new(not.into_condition())),
            Self::Field(path, Op::All(all)) => {
                let fields = all.into_iter().map(|op| {
                    let path =
                        Path { name: path.name.clone(), text: path.text.clone(), rest: path.rest.clone() };
                    Self::Field(path, op).into_condition()
                });
                Condition::All(fields.collect())
            }
            Self::Field(path, op) => {
                let index = |step: &str| step.bytes().all(|byte| byte.is_ascii_digit());
                if path.rest.iter().any(|step| index(step)) {
                    return Condition::Custom(Arc::new(Whole(Self::Field(path, op))));
                }
                let is_id = *path.text == *ID && path.rest.is_empty();
                let subject = Subject::Attribute { name: path.name, path: path.rest };
                let test = op.into_test(subject.clone());
                if !is_id {
                    return test.into();
                }
                // The context's key stands in for an attribute `id` that is not there.
                let there = || Condition::from(Test::new(subject.clone(), Operator::Present));
                let by_key = Test { subject: Subject::Key, ..test.clone() };
                let absent = Condition::Not(Box::new(there()));
                Condition::Any(vec![
                    Condition::All(vec![there(), test.into()]),
                    Condition::All(vec![absent, by_key.into()]),
                ])
            }
        }
    }
}

impl Op {
    fn into_test(self, subject: Subject) -> Test {
        match self {
            Self::In { members, negate } if members.only_texts() => Test {
                negate,
                lists: Lists::AnyElement,
                missing: negate.into(),
                mismatch: negate.into(),
                ..Test::new(subject, Operator::OneOf(members.names))
            },
            Self::Equal(Value::Text(text)) => Test::new(subject, Operator::one_of([&*text])),
            mut other => {
                if let Self::In { members, .. } = &mut other {
                    members.prepare();
                }
                let missing = Truth::from(other.holds(&NULL));
                Test { missing, ..Test::new(subject, Operator::Custom(Arc::new(Own(other)))) }
            }
        }
    }

    fn holds(&self, value: &Value) -> bool {
        match self {
            Self::Never => false,
            Self::All(all) => all.iter().all(|op| op.holds(value)),
            Self::Not(op) => !op.holds(value),
            Self::Null => value.is_null(),
            Self::Text { text, fold: false } => match value {
                Value::Text(own) => **own == **text,
                other => *coercion::text(other) == **text,
            },
            Self::Text { text, fold: true } => coercion::text(value).to_lowercase() == **text,
            #[expect(clippy::float_cmp, reason = "equality is what is asked for")]
            Self::Number(number) => coercion::number(value) == *number,
            Self::Bool(yes) => !value.is_null() && truthy(value) == *yes,
            Self::Same(other) => coercion::same_text(value, other),
            Self::Equal(other) => coercion::strictly_equal(value, other),
            Self::Compared(comparison, other) => {
                coercion::compared(value, other).is_some_and(|ordering| comparison.holds(ordering))
            }
            Self::In { members, negate } => members.any(value) != *negate,
            Self::Each(ops) => value
                .as_list()
                .is_some_and(|list| ops.iter().all(|op| list.iter().any(|element| op.holds(element)))),
            Self::Element(op) => value
                .as_list()
                .is_some_and(|list| list.iter().any(|element| truthy(element) && op.holds(element))),
            Self::ElementObject(cond) => value.as_list().is_some_and(|list| {
                list.iter().any(|element| truthy(element) && cond.holds(Root::Value(element)))
            }),
            Self::Size(op) => value.as_list().is_some_and(|list| {
                let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                op.holds(&Value::from(length))
            }),
            Self::Exists(yes) => value.is_null() != *yes,
            Self::Type(name) => **name == *type_of(value),
            Self::Pattern(regex) => regex.is_match(&coercion::text(value)),
            Self::Version(comparison, version) => comparison.holds(version.compared(value)),
        }
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::Text(_) => "string",
        Value::List(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The values of a list, made ready for looking up.
#[derive(Debug)]
pub(super) struct Members {
    names: Vec<Name>,
    set: Option<WordSet>,
    /// The bits of the numbers, sorted.
    numbers: Vec<u64>,
    /// Booleans and null.
    others: Vec<Value>,
    fold: bool,
}

impl Members {
    fn new(values: &[Value], fold: bool) -> Self {
        let mut members =
            Self { names: Vec::new(), set: None, numbers: Vec::new(), others: Vec::new(), fold };
        for value in values {
            match value {
                Value::Text(text) if fold => members.names.push(Name::new(text.to_lowercase())),
                Value::Text(text) => members.names.push(Name::new(text)),
                Value::Number(number) => members.numbers.push(bits(number.as_f64())),
                Value::Null | Value::Bool(_) => members.others.push(value.clone()),
                Value::List(_) | Value::Object(_) => {}
            }
        }
        members.numbers.sort_unstable();
        members
    }

    fn only_texts(&self) -> bool {
        !self.fold && self.numbers.is_empty() && self.others.is_empty()
    }

    fn prepare(&mut self) {
        self.set = Some(WordSet::new(std::mem::take(&mut self.names)));
    }

    fn any(&self, value: &Value) -> bool {
        match value {
            Value::List(list) => list.iter().any(|element| self.contains(element)),
            other => self.contains(other),
        }
    }

    fn contains(&self, value: &Value) -> bool {
        match value {
            Value::Text(text) if self.fold => self.has(&text.to_lowercase()),
            Value::Text(text) => self.has(text),
            Value::Number(number) => self.numbers.binary_search(&bits(number.as_f64())).is_ok(),
            other => self.others.iter().any(|one| coercion::strictly_equal(one, other)),
        }
    }

    fn has(&self, text: &str) -> bool {
        let word = Word::of(text);
        match &self.set {
            Some(set) => set.contains(word, text),
            None => self
                .names
                .iter()
                .any(|name| name.word() == word && name.long().is_none_or(|long| *long == *text)),
        }
    }
}

fn bits(number: f64) -> u64 {
    if number == 0.0 { 0 } else { number.to_bits() }
}

/// An operator of GrowthBook's own, as the engine asks it.
#[derive(Debug)]
struct Own(Op);

impl ValueTest for Own {
    fn test(&self, value: &Value) -> Truth {
        self.0.holds(value).into()
    }

    fn describe(&self) -> String {
        format!("satisfies {:?}", self.0)
    }
}

/// A condition on the whole context.
#[derive(Debug)]
pub(super) struct Whole(pub(super) Cond);

impl Predicate for Whole {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        self.0.holds(Root::Context(situation.context())).into()
    }

    fn describe(&self) -> String {
        format!("satisfies {:?}", self.0)
    }
}

/// Saved groups by id.
pub(super) type Groups = BTreeMap<String, Vec<Value>>;

/// Compiles conditions; what can't be honoured is told in `problems`.
pub(super) struct Reader<'g> {
    groups: Option<&'g Groups>,
    depth: usize,
    pub(super) problems: Vec<String>,
}

impl<'g> Reader<'g> {
    /// With the saved groups, where those count.
    pub(super) fn new(groups: Option<&'g Groups>) -> Self {
        Self { groups, depth: 0, problems: Vec::new() }
    }

    /// A condition on a context or an object.
    pub(super) fn condition(&mut self, condition: &Value) -> Cond {
        if self.depth >= MAX_NESTING {
            self.problems.push(format!(
                "conditions are nested more than {MAX_NESTING} deep; the inner ones are false"
            ));
            return Cond::Any(Vec::new());
        }
        if condition.as_str().is_some_and(|text| !text.is_empty())
            || condition.as_list().is_some_and(|list| !list.is_empty())
        {
            self.problems.push(format!("a condition is a {}, not an object; it is false", condition.kind()));
            return Cond::Any(Vec::new());
        }
        self.depth += 1;
        let entries = condition.as_object().into_iter().flatten();
        let mut all: Vec<_> = entries.map(|(key, value)| self.entry(key, value)).collect();
        self.depth -= 1;
        match (all.pop(), all.is_empty()) {
            (Some(one), true) => one,
            (last, _) => {
                all.extend(last);
                Cond::All(all)
            }
        }
    }

    fn entry(&mut self, key: &str, value: &Value) -> Cond {
        let list = |reader: &mut Self| -> Vec<Cond> {
            match value {
                Value::List(list) => list.iter().map(|one| reader.condition(one)).collect(),
                Value::Text(text) if !text.is_empty() => vec![reader.condition(value)],
                _ => Vec::new(),
            }
        };
        match key {
            "$and" => Cond::All(list(self)),
            "$or" | "$nor" => {
                let any = list(self);
                let any = if any.is_empty() { Cond::All(any) } else { Cond::Any(any) };
                if key == "$nor" { Cond::Not(Box::new(any)) } else { any }
            }
            "$not" => Cond::Not(Box::new(self.condition(value))),
            _ => Cond::Field(Path::new(key), self.value(value, false)),
        }
    }

    /// What a condition's value asks for.
    fn value(&mut self, value: &Value, fold: bool) -> Op {
        match value {
            Value::Null => Op::Null,
            Value::Bool(yes) => Op::Bool(*yes),
            Value::Number(number) => Op::Number(number.as_f64()),
            Value::Text(text) if fold => Op::Text { text: text.to_lowercase().into(), fold },
            Value::Text(text) => Op::Text { text: (**text).into(), fold },
            Value::Object(entries) if is_operators(value) => {
                if self.depth >= MAX_NESTING {
                    self.problems.push(format!(
                        "conditions are nested more than {MAX_NESTING} deep; the inner ones are false"
                    ));
                    return Op::Never;
                }
                self.depth += 1;
                let mut ops: Vec<_> = entries.iter().map(|(name, with)| self.operator(name, with)).collect();
                self.depth -= 1;
                if ops.len() == 1 { ops.pop().unwrap_or(Op::Never) } else { Op::All(ops) }
            }
            Value::List(_) | Value::Object(_) => Op::Same(value.clone()),
        }
    }

    fn operator(&mut self, name: &str, with: &Value) -> Op {
        let not = |op| Op::Not(Box::new(op));
        let compared = |comparison| Op::Compared(comparison, with.clone());
        let version = |comparison| Op::Version(comparison, Padded::new(with));
        match name {
            "$eq" => Op::Equal(with.clone()),
            "$ne" => not(Op::Equal(with.clone())),
            "$lt" => compared(Comparison::Less),
            "$lte" => compared(Comparison::LessOrEqual),
            "$gt" => compared(Comparison::Greater),
            "$gte" => compared(Comparison::GreaterOrEqual),
            "$veq" => version(Comparison::Equal),
            "$vne" => version(Comparison::NotEqual),
            "$vlt" => version(Comparison::Less),
            "$vlte" => version(Comparison::LessOrEqual),
            "$vgt" => version(Comparison::Greater),
            "$vgte" => version(Comparison::GreaterOrEqual),
            "$in" | "$nin" | "$ini" | "$nini" => match with.as_list() {
                Some(list) => {
                    let members = Members::new(list, name.ends_with('i'));
                    Op::In { members: Box::new(members), negate: name.starts_with("$n") }
                }
                None => self.never(format!("`{name}` needs a list, not a {}; it is false", with.kind())),
            },
            "$inGroup" | "$notInGroup" => {
                let id = coercion::text(with);
                let group = self.groups.and_then(|groups| groups.get(&*id));
                if group.is_none() {
                    self.problems.push(format!("there is no saved group `{id}`; it counts as empty"));
                }
                let members = Members::new(group.map(Vec::as_slice).unwrap_or_default(), false);
                Op::In { members: Box::new(members), negate: name == "$notInGroup" }
            }
            "$all" | "$alli" => match with.as_list() {
                Some(list) => Op::Each(list.iter().map(|one| self.value(one, name == "$alli")).collect()),
                None => self.never(format!("`{name}` needs a list, not a {}; it is false", with.kind())),
            },
            "$elemMatch" if is_operators(with) => Op::Element(Box::new(self.value(with, false))),
            "$elemMatch" => Op::ElementObject(Box::new(self.condition(with))),
            "$size" => Op::Size(Box::new(self.value(with, false))),
            "$exists" => Op::Exists(truthy(with)),
            "$not" => not(self.value(with, false)),
            "$type" | "$regex" | "$regexi" => match (with.as_str(), name) {
                (None, _) => self.never(format!("`{name}` needs a text, not a {}; it is false", with.kind())),
                (Some(text), "$type") => Op::Type(text.into()),
                (Some(text), _) => match pattern(text, name == "$regexi") {
                    Ok(regex) => Op::Pattern(regex),
                    Err(problem) => self.never(format!("{problem}; `{name}` is false")),
                },
            },
            unknown => self.never(format!("unknown operator `{unknown}`; it is false")),
        }
    }

    fn never(&mut self, problem: String) -> Op {
        self.problems.push(problem);
        Op::Never
    }
}

fn is_operators(value: &Value) -> bool {
    let entries = value.as_object();
    entries.is_some_and(|entries| !entries.is_empty() && entries.keys().all(|key| key.starts_with('$')))
}
