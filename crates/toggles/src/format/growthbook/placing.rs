//! Where GrowthBook's hashes place people, and what lies there.

use super::coercion;
use crate::{
    context::Context,
    hash::{Fnv1a, fnv1a},
    value::{Name, Number, Value},
};

/// The attribute by which people are told apart.
#[derive(Debug, Clone)]
pub(super) struct Attribute {
    name: Name,
    pub(super) text: Box<str>,
}

impl Attribute {
    pub(super) fn new(text: &str) -> Self {
        Self { name: Name::new(text), text: text.into() }
    }

    /// The attribute that a document names; `id` if it names none.
    pub(super) fn or_id(text: Option<&str>) -> Self {
        Self::new(text.filter(|text| !text.is_empty()).unwrap_or(ID))
    }

    /// Its value, unless that is missing or what JavaScript takes for false.
    #[inline]
    pub(super) fn value<'c>(&self, context: &'c Context) -> Option<&'c Value> {
        let value = match context.first().find(&self.name) {
            Some(prepared) => &prepared.value,
            None if *self.text == *ID => context.first().key()?,
            None => return None,
        };
        coercion::truthy(value).then_some(value)
    }
}

/// The attribute for which the context's key stands in.
pub(super) const ID: &str = "id";

/// A hash with its seed.
#[derive(Debug, Clone)]
pub(super) enum Placing {
    /// Version 1.
    One(Box<str>),
    /// Version 2: the hash has taken the seed already.
    Two(Fnv1a),
    /// Any other: nobody has a place.
    Nowhere,
}

impl Placing {
    pub(super) fn new(seed: &str, version: f64) -> Self {
        match Number::from(version).as_i64() {
            Some(1) => Self::One(seed.into()),
            Some(2) => {
                let mut hash = Fnv1a::default();
                hash.update(seed);
                Self::Two(hash)
            }
            _ => Self::Nowhere,
        }
    }

    /// The place of `value`, from 0 up to but not including 1.
    #[inline]
    pub(super) fn of(&self, value: &Value) -> Option<f64> {
        match value {
            Value::Text(text) => self.of_text(text),
            other => self.of_text(&coercion::text(other)),
        }
    }

    #[inline]
    pub(super) fn of_text(&self, value: &str) -> Option<f64> {
        match self {
            Self::One(seed) => {
                let mut hash = Fnv1a::default();
                hash.update(value);
                hash.update(seed);
                Some(f64::from(hash.finish() % 1_000) / 1_000.0)
            }
            Self::Two(seeded) => {
                let mut hash = seeded.clone();
                hash.update(value);
                let mut scratch = crate::engine::Scratch::default();
                Some(f64::from(fnv1a(scratch.show(hash.finish())) % 10_000) / 10_000.0)
            }
            Self::Nowhere => None,
        }
    }
}

/// From a point (included) to another (not included).
pub(crate) type Range = (f64, f64);

pub(super) fn within(point: f64, (from, to): Range) -> bool {
    point >= from && point < to
}

/// The index of the first range in which `point` lies.
pub(crate) fn choose(point: f64, ranges: &[Range]) -> Option<usize> {
    ranges.iter().position(|range| within(point, *range))
}

/// The same weight for each of `count`.
pub(crate) fn equal_weights(count: usize) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a count of variations")]
    let weight = 1.0 / count as f64;
    vec![weight; count]
}

/// The ranges of `count` variations: gaps between them where `coverage` is below 1, so that raising it never moves anyone.
pub(crate) fn ranges(count: usize, coverage: f64, weights: Option<&[f64]>) -> Vec<Range> {
    let coverage = if coverage.is_nan() { 0.0 } else { coverage.clamp(0.0, 1.0) };
    let fits = |weights: &&[f64]| {
        let sum: f64 = weights.iter().sum();
        weights.len() == count && (0.99..=1.01).contains(&sum)
    };
    let weights = weights.filter(fits).map_or_else(|| equal_weights(count), <[f64]>::to_vec);
    let mut start = 0.0;
    weights
        .into_iter()
        .map(|weight| {
            let range = (start, start + coverage * weight);
            start += weight;
            range
        })
        .collect()
}

/// The hash of `value`; `None` for an unknown version.
#[cfg(feature = "testkit")]
pub(crate) fn hash(seed: &str, value: &str, version: f64) -> Option<f64> {
    Placing::new(seed, version).of_text(value)
}

/// A part of a line that experiments share.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    placing: Placing,
    range: Range,
}

impl Namespace {
    pub(crate) fn new(id: &str, from: f64, to: f64) -> Self {
        Self { placing: Placing::new(&format!("__{id}"), 1.0), range: (from, to) }
    }

    pub(crate) fn contains(&self, value: &Value) -> bool {
        self.placing.of(value).is_some_and(|point| within(point, self.range))
    }
}

/// Keeps out who is in none of its ranges.
#[derive(Debug, Clone)]
pub(super) struct Filter {
    pub(super) attribute: Attribute,
    pub(super) placing: Placing,
    pub(super) ranges: Vec<Range>,
}

impl Filter {
    pub(super) fn lets(&self, context: &Context) -> bool {
        let point = self.attribute.value(context).and_then(|value| self.placing.of(value));
        point.is_some_and(|point| choose(point, &self.ranges).is_some())
    }
}
