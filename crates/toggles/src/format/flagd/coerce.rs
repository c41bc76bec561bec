//! Values as JavaScript would take them, which is how JSON logic compares and adds.

use std::cmp::Ordering;

use super::expression::Literal;
use crate::{
    engine::Scratch,
    model::Comparison,
    value::{Entries, Number, Value},
};

/// What an expression came to. Borrows where it can.
#[derive(Debug)]
pub(super) enum Got<'s> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'s str),
    Ref(&'s Value),
    Owned(Value),
    Literal(&'s Literal),
}

/// A value, looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'v> {
    Null,
    Bool(bool),
    Number(Number),
    Text(&'v str),
    List(&'v [Value]),
    Object(&'v Entries),
}

impl<'v> From<&'v Value> for View<'v> {
    #[inline]
    fn from(value: &'v Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => Self::Number(*number),
            Value::Text(text) => Self::Text(text),
            Value::List(list) => Self::List(list),
            Value::Object(entries) => Self::Object(entries),
        }
    }
}

impl Got<'_> {
    #[inline]
    pub(super) fn view(&self) -> View<'_> {
        match self {
            Self::Null => View::Null,
            Self::Bool(yes) => View::Bool(*yes),
            Self::Number(number) => View::Number(*number),
            Self::Text(text) => View::Text(text),
            Self::Ref(value) => (*value).into(),
            Self::Owned(value) => value.into(),
            Self::Literal(literal) => (&literal.value).into(),
        }
    }

    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(yes) => yes.into(),
            Self::Number(number) => Value::Number(number),
            Self::Text(text) => text.into(),
            Self::Ref(value) => value.clone(),
            Self::Owned(value) => value,
            Self::Literal(literal) => literal.value.clone(),
        }
    }
}

impl View<'_> {
    /// Null, false, 0, NaN, the empty text and the empty list are not; everything else is, the empty object too.
    #[inline]
    pub(super) fn is_truthy(self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(yes) => yes,
            Self::Number(number) => {
                let number = number.as_f64();
                number != 0.0 && !number.is_nan()
            }
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Object(_) => true,
        }
    }

    /// The number that it stands for; NaN if it stands for none.
    pub(super) fn number(self) -> f64 {
        match self {
            Self::Null => 0.0,
            Self::Bool(yes) => f64::from(u8::from(yes)),
            Self::Number(number) => number.as_f64(),
            Self::Text(text) => number_of(text),
            Self::List(_) | Self::Object(_) => f64::NAN,
        }
    }

    /// Gives the text that it stands for, in pieces: null gives none, a list its elements with commas between.
    pub(super) fn pieces(self, take: &mut dyn FnMut(&str)) {
        match self {
            Self::Null => {}
            Self::Bool(yes) => take(if yes { "true" } else { "false" }),
            Self::Number(number) => take(Scratch::default().show(number)),
            Self::Text(text) => take(text),
            Self::List(list) => {
                for (index, element) in list.iter().enumerate() {
                    if index > 0 {
                        take(",");
                    }
                    View::from(element).pieces(take);
                }
            }
            Self::Object(_) => take("[object Object]"),
        }
    }
}

fn number_of(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).map_or(f64::NAN, |whole| Number::from(whole).as_f64());
    }
    match text {
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ if text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E')) =>
        {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

/// `==`: null equals only null; booleans, numbers and texts of different types by their numbers; lists and objects deeply.
#[expect(clippy::float_cmp, reason = "JavaScript compares them exactly")]
pub(super) fn loosely_equal(a: View<'_>, b: View<'_>) -> bool {
    let scalar = |view| matches!(view, View::Bool(_) | View::Number(_) | View::Text(_));
    let same = std::mem::discriminant(&a) == std::mem::discriminant(&b);
    if same || !scalar(a) || !scalar(b) { strictly_equal(a, b) } else { a.number() == b.number() }
}

/// `===`: the same type and the same value, numbers by value, lists and objects deeply.
pub(super) fn strictly_equal(a: View<'_>, b: View<'_>) -> bool {
    match (a, b) {
        (View::Null, View::Null) => true,
        (View::Bool(a), View::Bool(b)) => a == b,
        (View::Number(a), View::Number(b)) => a == b,
        (View::Text(a), View::Text(b)) => a == b,
        (View::List(a), View::List(b)) => a == b,
        (View::Object(a), View::Object(b)) => a == b,
        _ => false,
    }
}

/// `<` and its kin: two texts by their characters, everything else by its number.
pub(super) fn ordered(comparison: Comparison, a: View<'_>, b: View<'_>) -> bool {
    let ordering: Option<Ordering> = match (a, b) {
        (View::Text(a), View::Text(b)) => Some(a.cmp(b)),
        (View::Number(a), View::Number(b)) => a.partial_cmp(&b),
        _ => a.number().partial_cmp(&b.number()),
    };
    ordering.is_some_and(|ordering| comparison.holds(ordering))
}
