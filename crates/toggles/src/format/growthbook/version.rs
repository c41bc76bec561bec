//! GrowthBook's versions: any text, padded so that the order of texts is that of versions.

use std::{borrow::Cow, cmp::Ordering};

use super::coercion;
use crate::value::Value;

/// A version made ready for comparing.
#[derive(Debug)]
pub(super) enum Padded {
    /// The numbers of a plain `x.y.z`.
    Plain([u32; 3]),
    /// Any other text, padded.
    Text(Box<str>),
}

impl Padded {
    pub(super) fn new(value: &Value) -> Self {
        let text = source(value);
        plain(&text).map_or_else(|| Self::Text(padded(&text).into()), Self::Plain)
    }

    /// How `value` compares with it.
    pub(super) fn compared(&self, value: &Value) -> Ordering {
        let text = source(value);
        match self {
            Self::Plain(mine) => plain(&text).map_or_else(
                || {
                    let [major, minor, patch] = mine;
                    coercion::by_units(&padded(&text), &padded(&format!("{major}.{minor}.{patch}")))
                },
                |theirs| theirs.cmp(mine),
            ),
            Self::Text(mine) => coercion::by_units(&padded(&text), mine),
        }
    }
}

fn source(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Text(text) if !text.is_empty() => Cow::Borrowed(text),
        Value::Number(_) => coercion::text(value),
        _ => Cow::Borrowed("0"),
    }
}

fn padded(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.split('+').next().unwrap_or_default();
    let mut parts: Vec<_> = text.split(['-', '.']).collect();
    if parts.len() == 3 {
        parts.push("~");
    }
    let mut padded = String::with_capacity(parts.len() * 6);
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            padded.push('-');
        }
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            padded.extend(std::iter::repeat_n(' ', 5_usize.saturating_sub(part.len())));
        }
        padded.push_str(part);
    }
    padded
}

/// The numbers of a plain `x.y.z` of at most five digits each, for which the order of numbers is that of the padded texts.
fn plain(text: &str) -> Option<[u32; 3]> {
    let mut numbers = [0; 3];
    let mut parts = text.split('.');
    for number in &mut numbers {
        let part = parts.next()?;
        let short = (1..=5).contains(&part.len()) && (part.len() == 1 || !part.starts_with('0'));
        if !short || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_agrees_with_the_texts() {
        assert_eq!(padded("v1.2.3-rc.1+build"), "    1-    2-    3-rc-    1");
        let texts = ["1.2.3", "1.10.0", "0.0.0", "99999.1.1", "100000.1.1", "1.2", "01.2.3", "1.2.3-a", "x"];
        for a in texts {
            for b in texts {
                let short = Padded::new(&b.into()).compared(&a.into());
                assert_eq!(short, padded(a).cmp(&padded(b)), "{a} {b}");
            }
        }
    }
}
