//! How a context becomes a point, and what lies there: hashes, projections and ranges.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Subject;

/// How a context becomes a point on a line: the input of a hash, the hash, and what is made of its number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Bucketing {
    /// The hash's input: the parts, one after the other.
    pub input: Vec<Input>,
    /// The hash.
    pub hash: Hash,
    /// What is made of its number.
    pub scale: Scale,
    /// What happens if a part of the input is missing.
    pub missing: MissingInput,
}

/// A part of a hash's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// This text.
    Literal(#[cfg_attr(feature = "schema", schemars(with = "String"))] Box<str>),
    /// The text of the first of these subjects that is there.
    ///
    /// A text as it is; whole numbers as digits. Other scalars (`true`, `1.5`) only if `scalars`; with `whole_limit`, whole numbers only up
    /// to 2^53 − 1 in magnitude. Anything else counts as missing.
    Of {
        /// Where to look, in this order.
        first_of: Vec<Subject>,
        /// Whether booleans and fractions have a text too.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        scalars: bool,
        /// Whether an empty text counts as missing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        skip_empty: bool,
    },
}

impl Input {
    /// The text of `subject`: a text or a whole number.
    pub fn of(subject: Subject) -> Self {
        Self::Of { first_of: vec![subject], scalars: false, skip_empty: false }
    }
}

/// The hashes in use, over the UTF-8 bytes of the input unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hash {
    /// Murmur3 x86 32-bit, read as unsigned (Unleash, flagd).
    Murmur3 {
        /// Its seed.
        seed: u32,
    },
    /// FNV-1a 32-bit over UTF-16 code units (GrowthBook, version 1).
    Fnv1a,
    /// FNV-1a of the decimal text of the FNV-1a of the input (GrowthBook, version 2).
    Fnv1aTwice,
    /// The first 60 bits (15 hexadecimal digits) of SHA-1 (LaunchDarkly).
    Sha1,
    /// The first 4 bytes of MD5, big-endian (UFC).
    Md5,
    /// XXH3 64-bit, of which the upper 32 bits count (flowline's own).
    Xxh3 {
        /// Its seed.
        seed: u64,
    },
}

/// What is made of a hash's number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scale {
    /// The remainder by `of`, plus `plus`. A modulus of 0 gives no point.
    Modulo {
        /// The modulus.
        of: u32,
        /// Added to the remainder.
        plus: u32,
    },
    /// The remainder by `of`, divided by `of`: 0 up to but not including 1.
    Fraction {
        /// The modulus.
        of: u32,
    },
    /// The number divided by the largest that the hash can give (LaunchDarkly: 60 bits): 0 to 1.
    Unit,
    /// `number * of / 2^32` of a 32-bit number: 0 up to but not including `of`.
    Multiply {
        /// The number of buckets.
        of: u32,
    },
}

/// What happens if the input of a hash is missing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MissingInput {
    /// There is no point: a share is false, a split goes on to the next rule.
    NoPoint,
    /// A random number takes the hash's place: nothing is sticky.
    Random,
    /// The point is this one.
    Point(f64),
    /// The condition is broken, the split a [`FaultCode::TargetingKeyMissing`](super::FaultCode).
    Broken,
}

/// The points from `from` (included) up to `until`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The first point.
    pub from: f64,
    /// The end.
    pub until: f64,
    /// Whether the end belongs to it.
    pub with_end: bool,
}

impl Range {
    /// From `from` up to but not including `until`.
    pub fn new(from: f64, until: f64) -> Self {
        Self { from, until, with_end: false }
    }

    /// Everything up to and including `until`.
    pub fn up_to_and_with(until: f64) -> Self {
        Self { from: f64::NEG_INFINITY, until, with_end: true }
    }

    /// Everything below `until`.
    pub fn below(until: f64) -> Self {
        Self { from: f64::NEG_INFINITY, until, with_end: false }
    }

    /// Whether `point` is in it. NaN is in nothing.
    #[inline]
    #[expect(clippy::float_cmp, reason = "ends are exact: the formats compute them the same way")]
    pub fn contains(&self, point: f64) -> bool {
        point >= self.from && (point < self.until || (self.with_end && point == self.until))
    }
}

/// How a range is written: what is open is left out.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Range"))]
#[serde(deny_unknown_fields)]
struct Written {
    /// The first point; by default the line's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<f64>,
    /// The end; by default the line's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<f64>,
    /// Whether the end belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    with_end: bool,
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Range {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Range".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl Serialize for Range {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bound = |end: f64| end.is_finite().then_some(end);
        let Self { from, until, with_end } = *self;
        Written { from: bound(from), until: bound(until), with_end }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Range {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Written { from, until, with_end } = Written::deserialize(deserializer)?;
        Ok(Self { from: from.unwrap_or(f64::NEG_INFINITY), until: until.unwrap_or(f64::INFINITY), with_end })
    }
}

/// A share of all contexts: those whose point is in one of the ranges. As a condition it is true for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// How a context becomes a point.
    pub bucketing: Bucketing,
    /// The ranges; none: nobody.
    pub ranges: Vec<Range>,
}

/// A split of all contexts among variants.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// How a context becomes a point.
    pub bucketing: Bucketing,
    /// Looked at in order; the first that contains the point decides.
    pub slices: Vec<Slice>,
    /// What happens to a point that none contains.
    pub past_end: PastEnd,
    /// If all slices have the same on-state: it, so that whoever only asks for that need not hash, unless the input may be missing.
    pub on: Option<bool>,
}

/// A range of a split, and who is served there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// The points.
    pub range: Range,
    /// The index of the variant.
    pub variant: usize,
    /// Whether being served here counts as taking part in an experiment.
    pub experiment: bool,
}

/// What happens to a point beyond all slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PastEnd {
    /// The rule does not decide: the next one.
    GoOn,
    /// The last slice takes it.
    Last,
    /// This variant.
    Variant(usize),
}

impl Split {
    /// The slices that lie one behind the other from 0, one for each `(variant, width)`.
    ///
    /// Widths are added up before they are divided by `per`, so that ends are exact. With `with_end`, each end belongs to the slice before it.
    pub fn cumulative(
        weights: impl IntoIterator<Item = (usize, f64)>,
        per: f64,
        with_end: bool,
        experiment: bool,
    ) -> Vec<Slice> {
        let mut sum = 0.0;
        weights
            .into_iter()
            .map(|(variant, weight)| {
                sum += weight;
                let range = Range { from: f64::NEG_INFINITY, until: sum / per, with_end };
                Slice { range, variant, experiment }
            })
            .collect()
    }
}
