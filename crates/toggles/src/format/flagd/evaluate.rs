//! JSON logic, evaluated. Nothing throws: what makes no sense is null, false or NaN, as the operator has it.

use std::cell::{Cell, RefCell};

use super::{
    coerce::{Got, View, loosely_equal, ordered, strictly_equal},
    expression::{Arithmetic, Each, Expr, Root, TextTest, VERSIONS, Var, VersionOperator},
};
use crate::{
    context::Context,
    engine::{Operand, Scratch, parse_version},
    model::{Comparison, Fault},
    value::{Number, Value, Word},
};

/// What all expressions of one evaluation can see.
#[derive(Debug)]
pub(super) struct Env<'s> {
    pub(super) context: &'s Context,
    pub(super) flag: &'s str,
    /// Seconds since 1970.
    pub(super) timestamp: i64,
    pub(super) supplied: Option<&'s Value>,
    /// The bucket of the last fractional; NaN: there was none.
    pub(super) point: &'s Cell<f64>,
    /// What there is to tell, if somebody listens.
    pub(super) notes: Option<&'s RefCell<Vec<(&'static str, Value)>>>,
}

impl<'s> Env<'s> {
    pub(super) fn note(&self, name: &'static str, value: impl FnOnce() -> Value) {
        if let Some(notes) = self.notes
            && let Ok(mut notes) = notes.try_borrow_mut()
        {
            notes.push((name, value()));
        }
    }

    /// The targeting key, if it is a text that is not empty.
    pub(super) fn targeting_key(&self) -> Option<&'s str> {
        let supplied = self.supplied.and_then(|supplied| supplied.get("targetingKey"));
        let key = match supplied {
            Some(supplied) => supplied.as_str(),
            None => self.context.key(),
        };
        key.filter(|key| !key.is_empty())
    }

    fn flagd(&self) -> Value {
        Value::object([("flagKey", Value::from(self.flag)), ("timestamp", Value::from(self.timestamp))])
    }

    fn whole(&self) -> Value {
        let part = self.context.first();
        let mut entries: crate::value::Entries =
            part.attributes().map(|(name, value)| (name.into(), value.clone())).collect();
        if let Some(key) = part.key() {
            entries.insert("targetingKey".into(), key.clone());
        }
        for (name, value) in self.supplied.and_then(Value::as_object).into_iter().flatten() {
            entries.insert(name.clone(), value.clone());
        }
        entries.insert("$flagd".into(), self.flagd());
        Value::Object(entries.into())
    }
}

impl Expr {
    /// What it comes to. `element`: the element that `map` and its kin look at.
    ///
    /// # Errors
    /// If something was reached that can't be evaluated.
    pub(super) fn evaluate<'e: 's, 's>(
        &'e self,
        env: &Env<'s>,
        element: Option<&'s Value>,
    ) -> Result<Got<'s>, &'e Fault> {
        Ok(match self {
            Self::Literal(literal) => Got::Literal(literal),
            Self::Var(var) => return var.evaluate(env, element),
            Self::If(parts) => {
                let (pairs, rest) = parts.as_chunks::<2>();
                for [condition, then] in pairs {
                    if condition.holds(env, element)? {
                        return then.evaluate(env, element);
                    }
                }
                match rest {
                    [otherwise] => return otherwise.evaluate(env, element),
                    _ => Got::Null,
                }
            }
            Self::And(parts) => return deciding(parts, false, env, element),
            Self::Or(parts) => return deciding(parts, true, env, element),
            Self::Fractional(fractional) => return fractional.evaluate(env, element),
            Self::Shared(evaluator) => return evaluator.evaluate(env, element),
            Self::Broken(fault) => return Err(fault),
            other => match other.question(env, element) {
                Some(answer) => answer?.map_or(Got::Null, Got::Bool),
                None => return other.rarely(env, element),
            },
        })
    }

    /// Whether it is truthy, without making its value where that can be helped.
    #[inline]
    fn holds<'e: 's, 's>(&'e self, env: &Env<'s>, element: Option<&'s Value>) -> Result<bool, &'e Fault> {
        match self {
            Self::And(parts) => {
                for part in parts {
                    if !part.holds(env, element)? {
                        return Ok(false);
                    }
                }
                Ok(!parts.is_empty())
            }
            Self::Or(parts) => {
                for part in parts {
                    if part.holds(env, element)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Shared(evaluator) => evaluator.holds(env, element),
            other => match other.question(env, element) {
                Some(answer) => Ok(answer? == Some(true)),
                #[expect(
                    clippy::redundant_closure_for_method_calls,
                    reason = "the path has one lifetime only"
                )]
                None => other.viewed(env, element, |view| view.is_truthy()),
            },
        }
    }

    /// The answer of an operator that says yes, no or null; `None` if it is another one.
    #[inline]
    fn question<'e: 's, 's>(
        &'e self,
        env: &Env<'s>,
        element: Option<&'s Value>,
    ) -> Option<Result<Option<bool>, &'e Fault>> {
        let yes = |answer: Result<bool, &'e Fault>| Some(answer.map(Some));
        match self {
            Self::Not(part) => yes(part.holds(env, element).map(|holds| !holds)),
            Self::Truthy(part) => yes(part.holds(env, element)),
            Self::Equal { sides, strict, negate } => {
                let equal = if *strict { strictly_equal } else { loosely_equal };
                yes(both(sides, env, element, |a, b| equal(a, b) != *negate))
            }
            Self::Order { comparison, parts } => yes(order(*comparison, parts, env, element)),
            Self::In(sides) => yes(both(sides, env, element, within)),
            Self::TextIs(test) => Some(Ok(Some(test.holds(env)))),
            Self::InSet(set) => yes(set.0.viewed(env, element, |needle| match needle {
                View::Text(text) => set.1.contains(Word::of(text), text),
                _ => false,
            })),
            Self::Affix { end, parts } => Some(match &**parts {
                [text, part] => text
                    .viewed(env, element, |text| {
                        part.viewed(env, element, |part| match (text, part) {
                            (View::Text(text), View::Text(part)) if *end => Some(text.ends_with(part)),
                            (View::Text(text), View::Text(part)) => Some(text.starts_with(part)),
                            _ => None,
                        })
                    })
                    .flatten(),
                _ => Ok(None),
            }),
            Self::VersionIs(test) => Some(test.version.viewed(env, element, |version| {
                version_text(version, |text| compared(text, test.operator, &test.with))
            })),
            Self::Version(parts) => Some(version(parts, env, element)),
            _ => None,
        }
    }

    /// What `then` makes of its value. Plain values and variables are looked at where they are.
    #[inline]
    pub(super) fn viewed<'e: 's, 's, T>(
        &'e self,
        env: &Env<'s>,
        element: Option<&'s Value>,
        then: impl FnOnce(View<'_>) -> T,
    ) -> Result<T, &'e Fault> {
        match self {
            Self::Literal(literal) => Ok(then((&literal.value).into())),
            Self::Var(var) if var.default.is_none() && env.notes.is_none() => match var.look(env, element) {
                Some(Got::Ref(value)) => Ok(then(value.into())),
                Some(got) => Ok(then(got.view())),
                None => Ok(then(View::Null)),
            },
            _ => Ok(then(self.evaluate(env, element)?.view())),
        }
    }

    /// The operators that make new values.
    fn rarely<'e: 's, 's>(&'e self, env: &Env<'s>, element: Option<&'s Value>) -> Result<Got<'s>, &'e Fault> {
        Ok(match self {
            Self::List(parts) => Got::Owned(Value::from(values(parts, env, element)?)),
            Self::VarAt(parts) => {
                let values = values(parts, env, element)?;
                let path = values.first().map(|path| text_of(path.into())).unwrap_or_default();
                match at_path(&data(env, element), &path) {
                    Some(value) => Got::Owned(value.clone()),
                    None => Got::Owned(values.get(1).cloned().unwrap_or_default()),
                }
            }
            Self::Missing(parts) => {
                let values = values(parts, env, element)?;
                let keys = match values.first() {
                    Some(Value::List(keys)) => keys.to_vec(),
                    _ => values,
                };
                Got::Owned(Value::from(missing(&keys, &data(env, element))))
            }
            Self::MissingSome(parts) => {
                let values = values(parts, env, element)?;
                let needed = values.first().map_or(0.0, |needed| View::from(needed).number());
                let keys = values.get(1).and_then(Value::as_list).unwrap_or_default();
                let missing = missing(keys, &data(env, element));
                #[expect(clippy::cast_precision_loss, reason = "a few")]
                let there = (keys.len() - missing.len()) as f64;
                Got::Owned(Value::from(if there >= needed { Vec::new() } else { missing }))
            }
            Self::Cat(parts) => {
                let mut text = String::new();
                for part in parts {
                    part.evaluate(env, element)?.view().pieces(&mut |piece| text.push_str(piece));
                }
                Got::Owned(text.into())
            }
            Self::Arithmetic(operation, parts) => {
                let mut numbers = Vec::with_capacity(parts.len());
                for part in parts {
                    numbers.push(part.evaluate(env, element)?.view().number());
                }
                number(computed(*operation, &numbers))
            }
            Self::Substr(parts) => {
                let values = values(parts, env, element)?;
                let at = |index: usize| values.get(index).map(|value| View::from(value).number());
                let text = values.first().map(|text| text_of(text.into())).unwrap_or_default();
                Got::Owned(substr(&text, at(1).unwrap_or(0.0), at(2)).into())
            }
            Self::Merge(parts) => {
                let mut merged = Vec::new();
                for value in values(parts, env, element)? {
                    match value {
                        Value::List(list) => merged.extend(list.iter().cloned()),
                        other => merged.push(other),
                    }
                }
                Got::Owned(Value::from(merged))
            }
            Self::Each(each, parts) => self::each(*each, parts, env, element)?,
            Self::Reduce(parts) => {
                let list = parts[0].evaluate(env, element)?;
                let mut sum = parts[2].evaluate(env, element)?.into_value();
                let View::List(list) = list.view() else { return Ok(Got::Owned(sum)) };
                for current in list {
                    let scope = Value::object([("current", current.clone()), ("accumulator", sum)]);
                    sum = parts[1].evaluate(env, Some(&scope))?.into_value();
                }
                Got::Owned(sum)
            }
            _ => Got::Null,
        })
    }
}

/// What `then` makes of two values.
#[inline]
fn both<'e: 's, 's, T>(
    sides: &'e [Expr; 2],
    env: &Env<'s>,
    element: Option<&'s Value>,
    then: impl FnOnce(View<'_>, View<'_>) -> T,
) -> Result<T, &'e Fault> {
    let [a, b] = sides;
    a.viewed(env, element, |a| b.viewed(env, element, |b| then(a, b))).flatten()
}

impl TextTest {
    #[inline]
    fn holds(&self, env: &Env<'_>) -> bool {
        let part = env.context.first();
        let found = match &self.var.root {
            Root::Attribute(name) => part.find(name),
            _ => part.prepared_key(),
        };
        if env.notes.is_some() {
            let value = found.map_or(Value::Null, |found| found.value.clone());
            env.note("var", || Value::object([(self.var.said(), value)]));
        }
        let equal = match found {
            Some(found) => match (&found.value, &self.loosely) {
                (Value::Text(text), _) => self.texts.contains(found.word, text),
                (other, Some(with)) => loosely_equal(other.into(), with.into()),
                (_, None) => false,
            },
            None => false,
        };
        equal != self.negate
    }
}

impl Var {
    /// What lies there; null counts too.
    #[inline]
    fn look<'s>(&'s self, env: &Env<'s>, element: Option<&'s Value>) -> Option<Got<'s>> {
        match &self.root {
            Root::Attribute(name) => {
                env.context.first().find(name).and_then(|found| below(&found.value, &self.path)).map(Got::Ref)
            }
            Root::TargetingKey => {
                env.context.first().key().and_then(|key| below(key, &self.path)).map(Got::Ref)
            }
            Root::Element => element.and_then(|element| below(element, &self.path)).map(Got::Ref),
            Root::FlagKey => Some(Got::Text(env.flag)),
            Root::Timestamp => Some(Got::Number(env.timestamp.into())),
            Root::Supplied(value) => below(value, &self.path).map(Got::Ref),
            Root::Flagd => below(&env.flagd(), &self.path).cloned().map(Got::Owned),
            Root::Whole => Some(Got::Owned(env.whole())),
        }
    }

    fn evaluate<'e: 's, 's>(
        &'e self,
        env: &Env<'s>,
        element: Option<&'s Value>,
    ) -> Result<Got<'s>, &'e Fault> {
        let found = self.look(env, element);
        let found = found.filter(|found| !matches!(found.view(), View::Null));
        if env.notes.is_some() {
            let value = found.as_ref().map_or(Value::Null, |found| owned(found.view()));
            env.note("var", || Value::object([(self.said(), value)]));
        }
        match (found, &self.default) {
            (Some(found), _) => Ok(found),
            (None, Some(default)) => default.evaluate(env, element),
            (None, None) => Ok(Got::Null),
        }
    }
}

fn owned(view: View<'_>) -> Value {
    match view {
        View::Null => Value::Null,
        View::Bool(yes) => yes.into(),
        View::Number(number) => Value::Number(number),
        View::Text(text) => text.into(),
        View::List(list) => Value::list(list.iter().cloned()),
        View::Object(entries) => Value::Object(entries.clone().into()),
    }
}

/// What lies below a value.
fn below<'v>(value: &'v Value, path: &[Box<str>]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, key| step(value, key))
}

fn step<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    match value {
        Value::Object(entries) => entries.get(key),
        Value::List(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

fn at_path<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    let found = if path.is_empty() { Some(value) } else { path.split('.').try_fold(value, step) };
    found.filter(|found| !found.is_null())
}

/// Everything that `var` can see.
fn data(env: &Env<'_>, element: Option<&Value>) -> Value {
    element.cloned().unwrap_or_else(|| env.whole())
}

fn text_of(view: View<'_>) -> String {
    let mut text = String::new();
    view.pieces(&mut |piece| text.push_str(piece));
    text
}

pub(super) fn values<'e: 's, 's>(
    parts: &'e [Expr],
    env: &Env<'s>,
    element: Option<&'s Value>,
) -> Result<Vec<Value>, &'e Fault> {
    parts.iter().map(|part| Ok(part.evaluate(env, element)?.into_value())).collect()
}

/// The first operand whose truth is `until`, else the last one.
fn deciding<'e: 's, 's>(
    parts: &'e [Expr],
    until: bool,
    env: &Env<'s>,
    element: Option<&'s Value>,
) -> Result<Got<'s>, &'e Fault> {
    let mut last = Got::Null;
    for part in parts {
        last = part.evaluate(env, element)?;
        if last.view().is_truthy() == until {
            break;
        }
    }
    Ok(last)
}

fn order<'e: 's, 's>(
    comparison: Comparison,
    parts: &'e [Expr],
    env: &Env<'s>,
    element: Option<&'s Value>,
) -> Result<bool, &'e Fault> {
    if let [a, b] = parts {
        let sides = |a: View<'_>| b.viewed(env, element, |b| ordered(comparison, a, b));
        return a.viewed(env, element, sides).flatten();
    }
    let [a, b, more @ ..] = parts else { return Ok(false) };
    let (a, b) = (a.evaluate(env, element)?, b.evaluate(env, element)?);
    if !ordered(comparison, a.view(), b.view()) {
        return Ok(false);
    }
    match (comparison, more.first()) {
        (Comparison::Less | Comparison::LessOrEqual, Some(c)) => {
            Ok(ordered(comparison, b.view(), c.evaluate(env, element)?.view()))
        }
        _ => Ok(true),
    }
}

fn within(needle: View<'_>, hay: View<'_>) -> bool {
    match hay {
        View::List(list) => list.iter().any(|element| strictly_equal(needle, element.into())),
        View::Text(hay) => match needle {
            View::Text(needle) => hay.contains(needle),
            View::Number(number) => hay.contains(Scratch::default().show(number)),
            View::Bool(yes) => hay.contains(if yes { "true" } else { "false" }),
            _ => false,
        },
        _ => false,
    }
}

fn version<'e: 's, 's>(
    parts: &'e [Expr],
    env: &Env<'s>,
    element: Option<&'s Value>,
) -> Result<Option<bool>, &'e Fault> {
    let [version, operator, with] = parts else { return Ok(None) };
    let version = version.evaluate(env, element)?;
    let (operator, with) = (operator.evaluate(env, element)?, with.evaluate(env, element)?);
    let View::Text(sign) = operator.view() else { return Ok(None) };
    Ok(VersionOperator::of(sign).and_then(|operator| {
        let with = version_text(with.view(), |text| Operand::parse(text, VERSIONS))?;
        version_text(version.view(), |text| compared(text, operator, &with))
    }))
}

/// A version is a text; numbers are printed first.
fn version_text<T>(view: View<'_>, then: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    match view {
        View::Text(text) => then(text),
        View::Number(number) => then(Scratch::default().show(number)),
        _ => None,
    }
}

fn compared(text: &str, operator: VersionOperator, with: &Operand) -> Option<bool> {
    let wanted = with.version();
    match operator {
        VersionOperator::Compared(comparison) => Some(comparison.holds(with.compared(text, VERSIONS)?)),
        VersionOperator::SameMajor => Some(parse_version(text, VERSIONS)?.major == wanted.major),
        VersionOperator::SameMinor => {
            let version = parse_version(text, VERSIONS)?;
            Some((version.major, version.minor) == (wanted.major, wanted.minor))
        }
    }
}

/// Those of the keys under which there is nothing, or an empty text.
fn missing(keys: &[Value], data: &Value) -> Vec<Value> {
    let there =
        |key: &Value| at_path(data, &text_of(key.into())).is_some_and(|value| value.as_str() != Some(""));
    keys.iter().filter(|key| !there(key)).cloned().collect()
}

/// Null for what is no number, as JSON has it.
fn number(number: f64) -> Got<'static> {
    if number.is_finite() { Got::Number(Number::from(number)) } else { Got::Null }
}

fn computed(operation: Arithmetic, numbers: &[f64]) -> f64 {
    let pair = |then: fn(f64, f64) -> f64| match numbers {
        [a, b, ..] => then(*a, *b),
        _ => f64::NAN,
    };
    let picked = |better: fn(f64, f64) -> bool| {
        let pick = |best: f64, next: &f64| {
            if best.is_nan() || next.is_nan() {
                f64::NAN
            } else if better(*next, best) {
                *next
            } else {
                best
            }
        };
        numbers.split_first().map_or(f64::NAN, |(first, rest)| rest.iter().fold(*first, pick))
    };
    match operation {
        Arithmetic::Add => numbers.iter().sum(),
        Arithmetic::Multiply => numbers.iter().product(),
        Arithmetic::Subtract => match numbers {
            [one] => -one,
            _ => pair(|a, b| a - b),
        },
        Arithmetic::Divide => pair(|a, b| a / b),
        Arithmetic::Remainder => pair(|a, b| a % b),
        Arithmetic::Min => picked(|next, best| next < best),
        Arithmetic::Max => picked(|next, best| next > best),
    }
}

/// From a character on (from the end if negative), so many of them (that many less if negative).
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the text's length")]
#[expect(clippy::cast_precision_loss, reason = "the length of a text")]
fn substr(text: &str, start: f64, length: Option<f64>) -> String {
    let count = text.chars().count();
    let whole = |number: f64| if number.is_nan() { 0.0 } else { number.trunc() };
    let from_end = |number: f64| if number < 0.0 { (count as f64 + number).max(0.0) } else { number };
    let start = from_end(whole(start)).min(count as f64);
    let end = match length.map(whole) {
        None => count as f64,
        Some(length) if length < 0.0 => count as f64 + length,
        Some(length) => start + length,
    };
    let taken = (end.min(count as f64) - start).max(0.0);
    text.chars().skip(start as usize).take(taken as usize).collect()
}

fn each<'e: 's, 's>(
    each: Each,
    parts: &'e [Expr; 2],
    env: &Env<'s>,
    element: Option<&'s Value>,
) -> Result<Got<'s>, &'e Fault> {
    let [list, body] = parts;
    let list = list.evaluate(env, element)?;
    let list = match list.view() {
        View::List(list) => list,
        _ => &[],
    };
    let holds =
        |element| -> Result<bool, &'e Fault> { Ok(body.evaluate(env, Some(element))?.view().is_truthy()) };
    Ok(match each {
        Each::Map => {
            let mut mapped = Vec::with_capacity(list.len());
            for element in list {
                mapped.push(body.evaluate(env, Some(element))?.into_value());
            }
            Got::Owned(Value::from(mapped))
        }
        Each::Filter => {
            let mut kept = Vec::new();
            for element in list {
                if holds(element)? {
                    kept.push(element.clone());
                }
            }
            Got::Owned(Value::from(kept))
        }
        // Over an empty list, `all` is false.
        Each::All => {
            for element in list {
                if !holds(element)? {
                    return Ok(Got::Bool(false));
                }
            }
            Got::Bool(!list.is_empty())
        }
        Each::Some | Each::None => {
            for element in list {
                if holds(element)? {
                    return Ok(Got::Bool(each == Each::Some));
                }
            }
            Got::Bool(each == Each::None)
        }
    })
}
