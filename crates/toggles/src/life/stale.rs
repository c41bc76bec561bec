//! Which flags have outlived their purpose.

use flowline_core::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{Facts, FlagKind};

/// What is known of a flag besides its definition. What is not known is `None`, and then says nothing against it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sighting {
    /// Since when everybody has it in the scope that matters.
    pub full_since: Option<Timestamp>,
    /// Whether it was evaluated within the time that was watched.
    pub evaluated: Option<bool>,
    /// How often the source code names it.
    pub references: Option<usize>,
}

/// When a flag counts as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// How long everybody may have a release or an experiment before the flag should be gone.
    pub full_for: SignedDuration,
}

impl Default for Limits {
    /// Two weeks.
    fn default() -> Self {
        Self { full_for: SignedDuration::from_hours(14 * 24) }
    }
}

/// Why a flag is stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stale {
    /// Its expected end has passed.
    PastEnd {
        /// The end.
        end: Timestamp,
    },
    /// Everybody has had it for longer than the limit.
    Full {
        /// Since then.
        since: Timestamp,
    },
    /// Nobody asked for it.
    NeverEvaluated,
    /// No source code names it.
    Unreferenced,
}

/// Why a flag is stale at `now`; nothing: it is not.
///
/// Flags for operation and permission may serve everybody for ever; only their expected end and their use count.
pub fn stale(facts: &Facts, sighting: &Sighting, limits: Limits, now: Timestamp) -> Vec<Stale> {
    let mut why = Vec::new();
    if let Some(end) = facts.expected_end.filter(|end| *end < now) {
        why.push(Stale::PastEnd { end });
    }
    let temporary = matches!(facts.kind, FlagKind::Release | FlagKind::Experiment);
    if let Some(since) = sighting.full_since.filter(|_| temporary)
        && now.duration_since(since) > limits.full_for
    {
        why.push(Stale::Full { since });
    }
    if sighting.evaluated == Some(false) {
        why.push(Stale::NeverEvaluated);
    }
    if sighting.references == Some(0) {
        why.push(Stale::Unreferenced);
    }
    why
}

impl std::fmt::Display for Stale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PastEnd { end } => write!(f, "it should have been gone on {}", end.strftime("%Y-%m-%d")),
            Self::Full { since } => write!(f, "everybody has had it since {}", since.strftime("%Y-%m-%d")),
            Self::NeverEvaluated => f.write_str("nobody asked for it"),
            Self::Unreferenced => f.write_str("no source code names it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_stale_for_each_reason_by_itself() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let since = now - SignedDuration::from_hours(15 * 24);
        let facts = Facts { expected_end: Some("2026-11-01T00:00:00Z".parse().unwrap()), ..Facts::default() };
        let sighting = Sighting { full_since: Some(since), evaluated: Some(false), references: Some(0) };
        let told: Vec<_> =
            stale(&facts, &sighting, Limits::default(), now).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
            it should have been gone on 2026-11-01
            everybody has had it since 2026-11-10
            nobody asked for it
            no source code names it
            ");
        assert_eq!(stale(&Facts::default(), &Sighting::default(), Limits::default(), now), []);
        let permission = Facts { kind: FlagKind::Permission, ..Facts::default() };
        let full = Sighting { full_since: Some(since), ..Sighting::default() };
        assert_eq!(stale(&permission, &full, Limits::default(), now), []);
        assert_eq!(stale(&Facts::default(), &full, Limits::default(), since), []);
    }
}
