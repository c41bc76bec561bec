//! Whether an attribute compares as asked for.

use std::{cmp::Ordering, net::IpAddr};

use super::Walk;
use crate::{
    context::{Prepared, Reads},
    engine::{
        node::{Affix, Deep, Op, Pick, TestNode},
        scratch::Scratch,
        time::{of_milliseconds, rfc3339},
    },
    model::{Texts, Truth},
    value::{Value, Word},
};

/// What a pick finds.
pub(super) enum Seen<'a> {
    /// Nothing, or null.
    Nothing,
    /// A value that the context has prepared.
    Prepared(&'a Prepared),
    /// Another value.
    Value(&'a Value),
    /// A value that was made for this question.
    Made(Value),
}

impl Seen<'_> {
    #[inline]
    pub(super) fn value(&self) -> Option<&Value> {
        match self {
            Self::Nothing => None,
            Self::Prepared(prepared) => Some(&prepared.value),
            Self::Value(value) => Some(value),
            Self::Made(value) => Some(value),
        }
    }
}

impl<'a> Walk<'a> {
    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    pub(super) fn test(&self, test: &'a TestNode) -> Truth {
        let prepared = match &test.pick {
            Pick::Attribute(name) => self.context.first().find_exact(*name),
            Pick::Key => self.context.first().prepared_key(),
            Pick::Deep(deep) if deep.plain => self.found(deep),
            Pick::Deep(_) | Pick::Kinds | Pick::Now | Pick::Value(_) => return self.test_far(test),
        };
        match prepared {
            Some(prepared) => tested(test, prepared),
            None => test.missing,
        }
    }

    #[inline(never)]
    fn test_far(&self, test: &'a TestNode) -> Truth {
        if let (Pick::Now, Op::Time(op)) = (&test.pick, &test.op) {
            return Truth::from(op.comparison.holds(self.now().cmp(&op.with)) != test.negate);
        }
        match self.look_far(&test.pick) {
            Seen::Prepared(prepared) => tested(test, prepared),
            Seen::Nothing => test.missing,
            Seen::Value(value) => tested_by_value(test, value, None),
            Seen::Made(value) => tested_by_value(test, &value, None),
        }
    }

    /// The value that a pick finds.
    #[inline]
    pub(super) fn look(&self, pick: &'a Pick) -> Seen<'a> {
        let prepared = match pick {
            Pick::Attribute(name) => self.context.first().find_exact(*name),
            Pick::Key => self.context.first().prepared_key(),
            Pick::Deep(deep) if deep.plain => self.found(deep),
            Pick::Deep(_) | Pick::Kinds | Pick::Now | Pick::Value(_) => return self.look_far(pick),
        };
        prepared.map_or(Seen::Nothing, Seen::Prepared)
    }

    /// What stands at a [plain](Deep::plain) place.
    #[inline]
    fn found(&self, place: &Deep) -> Option<&'a Prepared> {
        let part = self.context.part_exact(place.kind.as_ref()?.word())?;
        match &place.name {
            Some(name) => part.find_exact(name.word()),
            None => part.prepared_key(),
        }
    }

    fn look_far(&self, pick: &'a Pick) -> Seen<'a> {
        match pick {
            Pick::Deep(deep) => self.look_deep(deep).unwrap_or(Seen::Nothing),
            Pick::Value(value) if !value.is_null() => Seen::Value(value),
            Pick::Kinds => {
                let kinds = self.context.parts().map(|part| Value::from(part.kind().text()));
                Seen::Made(Value::list(kinds))
            }
            Pick::Now => Seen::Made(Value::from(self.now().to_string())),
            Pick::Attribute(_) | Pick::Key | Pick::Value(_) => Seen::Nothing,
        }
    }

    fn look_deep(&self, deep: &'a Deep) -> Option<Seen<'a>> {
        let part = match &deep.kind {
            Some(kind) => self.context.part(kind)?,
            None => self.context.first(),
        };
        let prepared = match &deep.name {
            Some(name) => part.find(name)?,
            None => part.prepared_key()?,
        };
        if deep.path.is_empty() {
            return Some(Seen::Prepared(prepared));
        }
        let mut value = &prepared.value;
        for key in &deep.path {
            value = value.get(key)?;
        }
        (!value.is_null()).then_some(Seen::Value(value))
    }
}

/// The common comparisons at once, the others through [`tested_by_value`].
#[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
#[inline(always)]
fn tested(test: &TestNode, prepared: &Prepared) -> Truth {
    let holds = match (&test.op, &prepared.value) {
        (Op::Few { words, .. }, Value::Text(_)) => words.contains(&prepared.word),
        (Op::Number { comparison, with, .. }, Value::Number(number)) => {
            number.as_f64().partial_cmp(with).is_some_and(|ordering| comparison.holds(ordering))
        }
        (Op::Plain { comparison, with, .. }, Value::Text(_)) => match prepared.reads {
            Reads::Version(version) => comparison.holds(version.cmp(with)),
            _ => return tested_by_value(test, &prepared.value, Some(prepared)),
        },
        (Op::Words(set) | Op::WordsOfScalars(set), Value::Text(text)) => set.contains(prepared.word, text),
        (Op::Number { comparison, with, parse: true }, Value::Text(_)) => match prepared.reads {
            Reads::Number(number) => {
                number.partial_cmp(with).is_some_and(|ordering| comparison.holds(ordering))
            }
            _ => return test.mismatch,
        },
        _ => return tested_by_value(test, &prepared.value, Some(prepared)),
    };
    Truth::from(holds != test.negate)
}

#[inline(never)]
fn tested_by_value(test: &TestNode, value: &Value, prepared: Option<&Prepared>) -> Truth {
    if test.any_element
        && let Value::List(elements) = value
    {
        // Null is nothing to most operators, but equals a null that is asked for.
        let counts = |element: &Value| !element.is_null() || matches!(test.op, Op::Equals(_));
        let any = elements
            .iter()
            .any(|element| counts(element) && compared(&test.op, element, None) == Some(Truth::True));
        return Truth::from(any).negated_if(test.negate);
    }
    match compared(&test.op, value, prepared) {
        Some(truth) => truth.negated_if(test.negate),
        None => test.mismatch,
    }
}

/// Whether `value` satisfies `op`; `None` if its type is wrong.
fn compared(op: &Op, value: &Value, prepared: Option<&Prepared>) -> Option<Truth> {
    let word = |text: &str| prepared.map_or_else(|| Word::of(text), |prepared| prepared.word);
    Some(match op {
        Op::Few { words, scalars } => {
            if let Value::Text(text) = value {
                return Some(words.contains(&word(text)).into());
            }
            with_text(value, *scalars, |text| words.contains(&Word::of(text)).into())?
        }
        Op::Words(set) => {
            let text = value.as_str()?;
            set.contains(word(text), text).into()
        }
        Op::WordsOfScalars(set) => {
            if let Value::Text(text) = value {
                return Some(set.contains(word(text), text).into());
            }
            with_text(value, true, |text| set.contains(Word::of(text), text).into())?
        }
        Op::Number { comparison, parse, with } => {
            let number = match value {
                Value::Number(number) => number.as_f64(),
                Value::Text(text) if *parse => number_of(text)?,
                _ => return None,
            };
            number.partial_cmp(with).is_some_and(|ordering| comparison.holds(ordering)).into()
        }
        Op::Plain { comparison, dialect, numbers, with } => {
            let ordering = version_text(value, *numbers, |text| with.compared(text, *dialect))?;
            comparison.holds(ordering).into()
        }
        Op::Version(op) => {
            let ordering = match (value, prepared.map(|prepared| prepared.reads)) {
                (Value::Text(_), Some(Reads::Version(version))) => op.with.compared_packed(version),
                _ => version_text(value, op.numbers, |text| op.with.compared(text, op.dialect))?,
            };
            op.comparison.holds(ordering).into()
        }
        Op::Affix(affix) => with_text(value, affix.scalars, |text| affixed(affix, text).into())?,
        Op::Present => Truth::True,
        Op::Equals(values) => values.contains(value).into(),
        Op::Time(op) => {
            let time = match value {
                Value::Text(text) => rfc3339(text)?,
                Value::Number(number) if op.milliseconds => of_milliseconds(number.as_f64())?,
                _ => return None,
            };
            op.comparison.holds(time.cmp(&op.with)).into()
        }
        Op::Pattern { regex, scalars } => with_text(value, *scalars, |text| regex.is_match(text).into())?,
        Op::Network(networks) => networks.contains(value.as_str()?.parse::<IpAddr>().ok()?).into(),
        Op::Custom(custom) => custom.test(value),
    })
}

/// A finite number in decimal notation, nothing around it.
#[inline]
pub(crate) fn number_of(text: &str) -> Option<f64> {
    let starts = text.bytes().next()?;
    if !(starts.is_ascii_digit() || matches!(starts, b'-' | b'+' | b'.')) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[inline]
fn with_text(value: &Value, scalars: bool, then: impl FnOnce(&str) -> Truth) -> Option<Truth> {
    match value {
        Value::Text(text) => Some(then(text)),
        Value::Number(number) if scalars => Some(then(Scratch::default().show(number))),
        Value::Bool(yes) if scalars => Some(then(if *yes { "true" } else { "false" })),
        _ => None,
    }
}

/// What `then` makes of a version's text.
#[inline]
fn version_text(
    value: &Value,
    numbers: bool,
    then: impl FnOnce(&str) -> Option<Ordering>,
) -> Option<Ordering> {
    match value {
        Value::Text(text) => then(text),
        Value::Number(number) if numbers => then(Scratch::default().show(number)),
        _ => None,
    }
}

fn affixed(affix: &Affix, text: &str) -> bool {
    if affix.ignore_case {
        if text.is_ascii() {
            return affix.texts.iter().any(|one| ascii_affixed(affix.how, text.as_bytes(), one.as_bytes()));
        }
        let lower = text.to_lowercase();
        return affix.texts.iter().any(|one| plainly_affixed(affix.how, &lower, one));
    }
    affix.texts.iter().any(|one| plainly_affixed(affix.how, text, one))
}

fn plainly_affixed(how: Texts, text: &str, one: &str) -> bool {
    match how {
        Texts::Is => text == one,
        Texts::StartsWith => text.starts_with(one),
        Texts::EndsWith => text.ends_with(one),
        Texts::Contains => text.contains(one),
    }
}

/// The same for an ASCII text of any case and an operand in lower case, without a copy.
fn ascii_affixed(how: Texts, text: &[u8], one: &[u8]) -> bool {
    let same = |part: Option<&[u8]>| part.is_some_and(|part| part.eq_ignore_ascii_case(one));
    match how {
        Texts::Is => text.eq_ignore_ascii_case(one),
        Texts::StartsWith => same(text.get(..one.len())),
        Texts::EndsWith => same(text.len().checked_sub(one.len()).and_then(|at| text.get(at..))),
        Texts::Contains => {
            one.is_empty() || text.windows(one.len()).any(|part| part.eq_ignore_ascii_case(one))
        }
    }
}
