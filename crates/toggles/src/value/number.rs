//! Numbers: floats, with whole numbers kept exact.

use std::{cmp::Ordering, fmt};

/// A number as documents and contexts have it: a float, or a whole number of up to 64 bits that a float could not keep.
///
/// Compared by value: `1` equals `1.0`. NaN equals nothing.
#[derive(Debug, Clone, Copy)]
pub struct Number(Inner);

#[derive(Debug, Clone, Copy)]
enum Inner {
    Float(f64),
    Whole(i64),
    /// Above `i64::MAX` only.
    Wide(u64),
}

impl Number {
    /// The nearest float.
    #[inline]
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn as_f64(self) -> f64 {
        match self.0 {
            Inner::Float(float) => float,
            Inner::Whole(whole) => whole as f64,
            Inner::Wide(wide) => wide as f64,
        }
    }

    /// The whole number that it is exactly, if it is one and fits.
    #[inline]
    pub fn as_i64(self) -> Option<i64> {
        match self.0 {
            Inner::Whole(whole) => Some(whole),
            Inner::Float(float) => exact(float),
            Inner::Wide(_) => None,
        }
    }

    /// The non-negative whole number that it is exactly, if it is one and fits.
    pub fn as_u64(self) -> Option<u64> {
        match self.0 {
            Inner::Wide(wide) => Some(wide),
            Inner::Whole(whole) => u64::try_from(whole).ok(),
            Inner::Float(float) => exact(float).and_then(|whole| u64::try_from(whole).ok()).or_else(|| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "in range, whole"
                )]
                let wide = (float.fract() == 0.0 && (0.0..18_446_744_073_709_551_616.0).contains(&float))
                    .then_some(float as u64);
                wide
            }),
        }
    }

    /// Whether it has no fraction. Infinities and NaN are not whole.
    pub fn is_whole(self) -> bool {
        match self.0 {
            Inner::Whole(_) | Inner::Wide(_) => true,
            Inner::Float(float) => float.is_finite() && float.fract() == 0.0,
        }
    }

    pub(crate) fn from_json(number: &serde_json::Number) -> Self {
        if let Some(whole) = number.as_i64() {
            whole.into()
        } else if let Some(wide) = number.as_u64() {
            wide.into()
        } else {
            number.as_f64().unwrap_or(f64::NAN).into()
        }
    }

    pub(crate) fn to_json(self) -> Option<serde_json::Number> {
        match self.0 {
            Inner::Whole(whole) => Some(whole.into()),
            Inner::Wide(wide) => Some(wide.into()),
            Inner::Float(float) => serde_json::Number::from_f64(float),
        }
    }
}

/// The whole number that `float` is, within the range in which floats are exact neighbours of whole numbers.
#[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
fn exact(float: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    (float.fract() == 0.0 && (-LIMIT..LIMIT).contains(&float)).then_some(float as i64)
}

impl From<f64> for Number {
    fn from(float: f64) -> Self {
        Self(Inner::Float(float))
    }
}

impl From<i64> for Number {
    fn from(whole: i64) -> Self {
        Self(Inner::Whole(whole))
    }
}

impl From<u64> for Number {
    fn from(wide: u64) -> Self {
        Self(i64::try_from(wide).map_or(Inner::Wide(wide), Inner::Whole))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self.as_i64(), other.as_i64()) {
            (Some(a), Some(b)) => a == b,
            (None, None) => match (self.0, other.0) {
                (Inner::Wide(a), Inner::Wide(b)) => a == b,
                _ => self.as_f64() == other.as_f64(),
            },
            _ => false,
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match (self.0, other.0) {
            (Inner::Whole(a), Inner::Whole(b)) => Some(a.cmp(&b)),
            (Inner::Wide(a), Inner::Wide(b)) => Some(a.cmp(&b)),
            _ => self.as_f64().partial_cmp(&other.as_f64()),
        }
    }
}

/// Whole numbers without a decimal point or exponent, others in the shortest form that reads back.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Inner::Whole(whole) => write!(f, "{whole}"),
            Inner::Wide(wide) => write!(f, "{wide}"),
            // `-0.0` prints as `0`, as everywhere in JSON's home.
            Inner::Float(float) => write!(f, "{}", if float == 0.0 { 0.0 } else { float }),
        }
    }
}
