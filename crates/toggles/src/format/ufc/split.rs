//! An allocation's splits as one outcome that hashes as little as possible.

use super::Reading;
use crate::model::{
    Bucketing, Condition, FaultCode, Hash, Input, MissingInput, OnBroken, Outcome, PastEnd, Range, Rule,
    Scale, Share, Slice, Split, Subject,
};

/// A share of all subjects by one salt.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shard {
    pub(super) salt: String,
    pub(super) total: u32,
    pub(super) ranges: Vec<Range>,
}

impl Shard {
    /// Whether everybody is in it, with a key or without.
    pub(super) fn is_everybody(&self) -> bool {
        self.ranges.iter().any(|range| range.from <= 0.0 && range.until >= f64::from(self.total))
    }

    fn same_line(&self, other: &Self) -> bool {
        self.salt == other.salt && self.total == other.total
    }
}

/// Who gets what: the outcome for those that are in all the shards.
#[derive(Debug)]
pub(super) struct Part {
    /// Without those that everybody is in.
    pub(super) shards: Vec<Shard>,
    pub(super) outcome: Outcome,
}

/// The first part whose shards all hold decides; past all of them, it goes on.
pub(super) fn outcome(mut parts: Vec<Part>, reading: Reading) -> Outcome {
    if let Some(last) = parts.iter().position(|part| part.shards.is_empty()) {
        // Nothing behind it is ever reached.
        parts.truncate(last + 1);
        let everybody = parts.pop().map_or(Outcome::GoOn, |part| part.outcome);
        if parts.is_empty() {
            return everybody;
        }
        let before = rule(Vec::new(), outcome(parts, reading), reading);
        return Outcome::Rules(vec![before, Rule::new(Condition::ALWAYS, everybody)]);
    }
    let Some(first) = parts.first() else { return Outcome::GoOn };
    let mut common: Vec<_> = first
        .shards
        .iter()
        .filter(|shard| parts.iter().all(|part| part.shards.contains(shard)))
        .cloned()
        .collect();
    if parts.iter().any(|part| part.shards.len() <= common.len()) {
        common.pop();
    }
    if !common.is_empty() {
        for part in &mut parts {
            part.shards.retain(|shard| !common.contains(shard));
        }
        return Outcome::Rules(vec![rule(common, outcome(parts, reading), reading)]);
    }
    if let Some(split) = one_line(&parts, reading) {
        return split;
    }
    Outcome::Rules(parts.into_iter().map(|part| rule(part.shards, part.outcome, reading)).collect())
}

/// All parts on one line: one hash decides among all variants.
fn one_line(parts: &[Part], reading: Reading) -> Option<Outcome> {
    let [line] = parts.first()?.shards.as_slice() else { return None };
    let mut slices = Vec::new();
    for part in parts {
        let ([shard], Outcome::Variant(variant)) = (part.shards.as_slice(), &part.outcome) else {
            return None;
        };
        if !shard.same_line(line) {
            return None;
        }
        slices.extend(shard.ranges.iter().map(|range| Slice {
            range: *range,
            variant: *variant,
            experiment: false,
        }));
    }
    let bucketing = bucketing(line, reading);
    Some(Outcome::Split(Box::new(Split { bucketing, slices, past_end: PastEnd::GoOn, on: None })))
}

fn rule(shards: Vec<Shard>, then: Outcome, reading: Reading) -> Rule {
    let shares = shards.into_iter().map(|shard| {
        let bucketing = bucketing(&shard, reading);
        Condition::Share(Share { bucketing, ranges: shard.ranges })
    });
    Rule {
        on_broken: OnBroken::Fault(FaultCode::TargetingKeyMissing),
        ..Rule::new(Condition::All(shares.collect()), then)
    }
}

fn bucketing(shard: &Shard, reading: Reading) -> Bucketing {
    Bucketing {
        input: vec![
            Input::Literal(format!("{}-", shard.salt).into()),
            Input::Of { first_of: vec![Subject::Key], scalars: true, skip_empty: false },
        ],
        hash: Hash::Md5,
        scale: Scale::Modulo { of: shard.total, plus: 0 },
        missing: match reading {
            Reading::Eppo => MissingInput::NoPoint,
            Reading::Datadog => MissingInput::Broken,
        },
    }
}
