//! One answer to "is it well?": pass, fail, inconclusive or error, with evidence, for health checks, verification, canaries and gates.

use serde::{Deserialize, Serialize};

/// The outcome of a judgement. Ordered from best to worst, so the worst of many is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is well.
    Pass,
    /// The evidence does not decide; a person should look.
    Inconclusive,
    /// The judgement itself could not be made: the probe could not run. Says nothing about what was judged.
    Error,
    /// It is not well.
    Fail,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Inconclusive => "inconclusive",
            Self::Error => "error",
            Self::Fail => "fail",
        })
    }
}

/// An outcome with the evidence for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The outcome.
    pub outcome: Outcome,
    /// What it rests on, in the order in which it was gathered.
    pub evidence: Vec<Evidence>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// What was looked at: `GET http://app.localhost/`.
    pub subject: String,
    /// How it came out by itself.
    pub outcome: Outcome,
    /// What was seen: `status 500, expected 200`.
    pub seen: String,
}

impl Verdict {
    /// A verdict that rests on one observation.
    pub fn of(outcome: Outcome, subject: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { outcome, evidence: vec![Evidence { subject: subject.into(), outcome, seen: seen.into() }] }
    }

    /// The worst of all, with all their evidence in order. Of none: inconclusive, as nothing was looked at.
    pub fn worst_of(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts
            .into_iter()
            .reduce(|mut all, next| {
                all.outcome = all.outcome.max(next.outcome);
                all.evidence.extend(next.evidence);
                all
            })
            .unwrap_or(Self { outcome: Outcome::Inconclusive, evidence: Vec::new() })
    }

    /// Whether it is well.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }

    /// The evidence that is not a pass.
    pub fn objections(&self) -> impl Iterator<Item = &Evidence> {
        self.evidence.iter().filter(|evidence| evidence.outcome != Outcome::Pass)
    }
}

impl std::fmt::Display for Verdict {
    /// The outcome, then each objection: `fail (smoke: exit code 1)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.outcome)?;
        let mut objections = self.objections();
        if let Some(first) = objections.next() {
            write!(f, " ({}: {}", first.subject, first.seen)?;
            for objection in objections {
                write!(f, "; {}: {}", objection.subject, objection.seen)?;
            }
            write!(f, ")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_wins_and_keeps_all_evidence() {
        let verdict = Verdict::worst_of([
            Verdict::of(Outcome::Pass, "GET /", "status 200"),
            Verdict::of(Outcome::Fail, "smoke", "exit code 1"),
            Verdict::of(Outcome::Error, "GET /x", "connection refused"),
        ]);
        assert_eq!(verdict.to_string(), "fail (smoke: exit code 1; GET /x: connection refused)");
        assert_eq!(verdict.evidence.len(), 3);
    }

    #[test]
    fn nothing_looked_at_is_not_a_pass() {
        assert_eq!(Verdict::worst_of([]).outcome, Outcome::Inconclusive);
    }
}
