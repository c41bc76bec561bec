//! Shares and splits: who lies where on the line, as a `fractional` of the same weights.

use serde_json::{Value as Json, json};

use super::{
    Exporter, LossKind, PARTS, Unsaid,
    logic::{all, any, choose, nodes},
    variable,
};
use crate::model::{Bucketing, Hash, Input, MissingInput, PastEnd, Range, Scale, Slice, Split};

impl Exporter<'_> {
    /// That a context's point lies in one of the ranges.
    pub(super) fn share(
        &mut self,
        bucketing: &Bucketing,
        ranges: &[Range],
        at: &str,
    ) -> Result<Json, Unsaid> {
        let slices: Vec<Slice> =
            ranges.iter().map(|range| Slice { range: *range, variant: 1, experiment: false }).collect();
        let (weights, exact) = weights(&bucketing.scale, &slices, PastEnd::Variant(0))?;
        let total: u64 = weights.iter().map(|(_, weight)| weight).sum();
        let within: u64 = weights.iter().filter(|(index, _)| *index == 1).map(|(_, weight)| weight).sum();
        let placed = if within == 0 {
            Json::Bool(false)
        } else if within == total {
            Json::Bool(true)
        } else {
            self.rebucketed(bucketing, exact, &format!("{at}/when"));
            let buckets =
                weights.iter().map(|(index, weight)| json!([if *index == 1 { "in" } else { "out" }, weight]));
            json!({"===": [fractional(bucketing, buckets)?, "in"]})
        };
        self.when_missing(bucketing, placed, at, |point| {
            ranges.iter().any(|range| range.contains(point)).into()
        })
    }

    pub(super) fn split(
        &mut self,
        split: &Split,
        names: &[String],
        next: &Json,
        at: &str,
    ) -> Result<Json, Unsaid> {
        // What lies beyond all slices goes on to what follows.
        let beyond = names.len();
        let past_end = match split.past_end {
            PastEnd::GoOn => PastEnd::Variant(beyond),
            other => other,
        };
        let (weights, exact) = weights(&split.bucketing.scale, &split.slices, past_end)?;
        let served: Vec<_> = weights.iter().filter(|(_, weight)| *weight > 0).collect();
        let name = |index: usize| match names.get(index) {
            Some(name) => Ok(Json::from(name.as_str())),
            None if index == beyond => Ok(next.clone()),
            None => Err(format!("{at} serves a variant that is not there")),
        };
        let first = served.first().map_or(beyond, |(index, _)| *index);
        let placed = if served.iter().all(|(index, _)| *index == first) {
            name(first)?
        } else {
            self.rebucketed(&split.bucketing, exact, at);
            let label = |index: usize| names.get(index).cloned().unwrap_or_default();
            let buckets = weights.iter().map(|(index, weight)| json!([label(*index), weight]));
            let fractional = fractional(&split.bucketing, buckets)?;
            if served.iter().any(|(index, _)| *index == beyond) {
                let decided: Vec<Json> = served
                    .iter()
                    .filter(|(index, _)| *index != beyond)
                    .map(|(index, _)| label(*index).into())
                    .collect();
                self.grow(nodes(next))?;
                choose(json!({"in": [fractional, decided]}), fractional, next.clone())
            } else {
                fractional
            }
        };
        let otherwise = |point: f64| {
            let slice = split.slices.iter().find(|slice| slice.range.contains(point));
            match (slice, split.past_end) {
                (Some(slice), _) => name(slice.variant),
                (None, PastEnd::Last) => name(split.slices.last().map_or(beyond, |slice| slice.variant)),
                (None, PastEnd::Variant(index)) => name(index),
                (None, PastEnd::GoOn) => Ok(next.clone()),
            }
            .unwrap_or_default()
        };
        match split.bucketing.missing {
            MissingInput::NoPoint => Ok(choose(present(&split.bucketing)?, placed, next.clone())),
            _ => self.when_missing(&split.bucketing, placed, at, otherwise),
        }
    }

    /// What it comes to if the input of the hash is missing.
    pub(super) fn when_missing(
        &mut self,
        bucketing: &Bucketing,
        placed: Json,
        at: &str,
        at_point: impl Fn(f64) -> Json,
    ) -> Result<Json, Unsaid> {
        match bucketing.missing {
            MissingInput::NoPoint => Ok(all(vec![present(bucketing)?, placed])),
            MissingInput::Point(point) => Ok(choose(present(bucketing)?, placed, at_point(point))),
            MissingInput::Random => {
                self.lose(
                    at,
                    LossKind::Changed,
                    "flagd has no chance: who can't be placed gets the same every time",
                );
                Ok(placed)
            }
            MissingInput::Broken => Err("a missing key makes an error".to_owned()),
        }
    }

    pub(super) fn rebucketed(&mut self, bucketing: &Bucketing, exact: bool, at: &str) {
        let same_hash = matches!(bucketing.hash, Hash::Murmur3 { seed: 0 });
        if !(exact && same_hash && matches!(bucketing.scale, Scale::Multiply { .. })) {
            let message = "flagd places users with another hash: as many see it, but not the same ones";
            self.lose(at, LossKind::Rebucketed, message);
        }
    }
}

/// Whether what is hashed is there.
fn present(bucketing: &Bucketing) -> Result<Json, Unsaid> {
    let mut parts = Vec::new();
    for input in &bucketing.input {
        if let Input::Of { first_of, .. } = input {
            let there = first_of
                .iter()
                .map(|subject| Ok(json!({"!==": [variable(subject)?, null]})))
                .collect::<Result<Vec<_>, Unsaid>>()?;
            parts.push(any(there));
        }
    }
    Ok(all(parts))
}

/// The `fractional` over the bucketing's input.
fn fractional(bucketing: &Bucketing, buckets: impl Iterator<Item = Json>) -> Result<Json, Unsaid> {
    let mut input = Vec::new();
    if let Hash::Xxh3 { seed } = bucketing.hash {
        // What another hash takes as its seed goes in front.
        input.push(Json::from(format!("{seed:016x}:")));
    }
    for part in &bucketing.input {
        input.push(match part {
            Input::Literal(text) => Json::from(&**text),
            Input::Of { first_of, .. } => {
                let mut value = Json::from("");
                for subject in first_of.iter().rev() {
                    let variable = variable(subject)?;
                    let there = json!({"!==": [variable.clone(), null]});
                    value = if value == "" { variable } else { choose(there, variable, value) };
                }
                value
            }
        });
    }
    let operands: Vec<Json> = std::iter::once(json!({"cat": input})).chain(buckets).collect();
    Ok(json!({"fractional": operands}))
}

/// The slices as weights one behind the other, and whether they are exactly those.
fn weights(scale: &Scale, slices: &[Slice], past_end: PastEnd) -> Result<(Vec<(usize, u64)>, bool), Unsaid> {
    let (start, end, step) = match *scale {
        Scale::Modulo { of, plus } => (f64::from(plus), f64::from(plus) + f64::from(of), 1.0),
        Scale::Fraction { of } => (0.0, 1.0, 1.0 / f64::from(of.max(1))),
        Scale::Unit => (0.0, 1.0, 0.0),
        Scale::Multiply { of } => (0.0, f64::from(of), 1.0),
    };
    if end <= start {
        return Err("its hash has no points".to_owned());
    }
    let mut cuts: Vec<f64> = vec![start, end];
    for slice in slices {
        // An end that belongs to the slice is the next point's begin.
        let until = if slice.range.with_end { slice.range.until + step } else { slice.range.until };
        cuts.extend([slice.range.from, until]);
    }
    cuts.retain(|cut| *cut >= start && *cut <= end);
    cuts.sort_by(f64::total_cmp);
    cuts.dedup();
    let whole = end - start;
    let unit = matches!(scale, Scale::Multiply { .. } | Scale::Modulo { .. }) && whole <= f64::from(i32::MAX);
    let counted = if unit { whole } else { PARTS };
    let mut exact = unit;
    let mut sum = 0_u64;
    let mut weights: Vec<(usize, u64)> = Vec::new();
    for pair in cuts.windows(2) {
        let [from, until] = pair else { continue };
        // Points with a step lie on whole steps; others anywhere.
        let point = if step > 0.0 { (from / step).ceil() * step } else { (from + until) / 2.0 };
        let slice = slices.iter().find(|slice| slice.range.contains(point));
        let variant = match (slice, past_end) {
            (Some(slice), _) => slice.variant,
            (None, PastEnd::Last) => slices.last().map_or(0, |slice| slice.variant),
            (None, PastEnd::Variant(index)) => index,
            (None, PastEnd::GoOn) => return Err("it goes on past its end".to_owned()),
        };
        let upto = (until - start) / whole * counted;
        let upto = if unit { upto.ceil() } else { upto.round() };
        exact &= unit;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 2^31")]
        let upto = upto as u64;
        let weight = upto.saturating_sub(sum);
        sum += weight;
        match weights.last_mut() {
            Some((last, sum)) if *last == variant => *sum += weight,
            _ => weights.push((variant, weight)),
        }
    }
    Ok((weights, exact))
}
