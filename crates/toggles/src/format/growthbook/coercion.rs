//! JavaScript's coercions, on which GrowthBook's conditions rest.

use std::{borrow::Cow, cmp::Ordering};

use crate::value::{Number, Value};

/// Whether JavaScript takes a value for true: lists and objects always are.
pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != 0.0 && !number.as_f64().is_nan(),
        Value::Text(text) => !text.is_empty(),
        Value::List(_) | Value::Object(_) => true,
    }
}

/// `String(value)`.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed("null"),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Number(number) => Cow::Owned(decimal(*number)),
        Value::Text(text) => Cow::Borrowed(text),
        Value::List(values) => {
            let parts: Vec<_> =
                values.iter().map(|one| if one.is_null() { Cow::Borrowed("") } else { text(one) }).collect();
            Cow::Owned(parts.join(","))
        }
        Value::Object(_) => Cow::Borrowed("[object Object]"),
    }
}

/// A number's text: with an exponent from 10^21 on and below 10^-6.
fn decimal(number: Number) -> String {
    let float = number.as_f64();
    if number.as_i64().is_some() || float == 0.0 {
        return number.to_string();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if (1e-6..1e21).contains(&float.abs()) || float.is_nan() {
        return format!("{float}");
    }
    let text = format!("{float:e}");
    if text.contains("e-") { text } else { text.replace('e', "e+") }
}

/// `Number(value)`; NaN for what is no number.
pub(super) fn number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(yes) => f64::from(u8::from(*yes)),
        Value::Number(number) => number.as_f64(),
        Value::Text(text) => parsed(text),
        Value::List(_) => parsed(&text(value)),
        Value::Object(_) => f64::NAN,
    }
}

fn parsed(text: &str) -> f64 {
    let text = text.trim_matches(|one: char| one.is_whitespace() && one != '\u{85}' || one == '\u{feff}');
    for (prefix, radix) in [("0x", 16), ("0X", 16), ("0o", 8), ("0O", 8), ("0b", 2), ("0B", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return in_radix(digits, radix);
        }
    }
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        _ if text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) => {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => f64::NAN,
    }
}

/// Digits without a sign; NaN if there is anything else, or nothing.
fn in_radix(digits: &str, radix: u32) -> f64 {
    let number = digits.chars().try_fold(0.0, |number: f64, digit| {
        Some(number.mul_add(f64::from(radix), f64::from(digit.to_digit(radix)?)))
    });
    number.filter(|_| !digits.is_empty()).unwrap_or(f64::NAN)
}

/// `===` of scalars. Lists and objects equal nothing, as different ones never do there.
pub(super) fn strictly_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(_) | Value::Object(_), _) => false,
        _ => a == b,
    }
}

/// How `<` and its like compare; `None`: none of them holds.
pub(super) fn compared(a: &Value, b: &Value) -> Option<Ordering> {
    // Lists and objects count as their texts.
    let textual = |value: &Value| matches!(value, Value::Text(_) | Value::List(_) | Value::Object(_));
    if textual(a) && textual(b) {
        return Some(by_units(&text(a), &text(b)));
    }
    number(a).partial_cmp(&number(b))
}

/// The order of UTF-16 code units.
pub(super) fn by_units(a: &str, b: &str) -> Ordering {
    if a.is_ascii() && b.is_ascii() { a.cmp(b) } else { a.encode_utf16().cmp(b.encode_utf16()) }
}

/// Whether both have the same JSON text; the order of keys counts.
pub(super) fn same_text(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| same_text(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.0 == b.0 && same_text(a.1, b.1))
        }
        (Value::List(_) | Value::Object(_), _) | (_, Value::List(_) | Value::Object(_)) => false,
        _ => a == b,
    }
}
