//! Which flags have outlived their purpose: [`stale`] for one, from what is known of it; a [`StaleReport`] for all.

use std::{collections::BTreeMap, fmt};

use flowline_core::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::scan::Reference;
use crate::model::{Facts, FlagKind};

/// What is known of a flag besides its definition. What is not known is `None`, and then says nothing against it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sighting {
    /// Since when everybody has it in the scope that matters.
    pub full_since: Option<Timestamp>,
    /// Since when somebody watches whether it is evaluated.
    pub watched_since: Option<Timestamp>,
    /// Until when somebody watched; `None`: until now. What happened after that is not known, and says nothing against a flag.
    pub watched_until: Option<Timestamp>,
    /// How many other flags ask for it. They use it, whatever else is known.
    pub asked_by: usize,
    /// When it was evaluated last, as far as that was watched.
    pub last_evaluated: Option<Timestamp>,
    /// How often the source code names it.
    pub references: Option<usize>,
}

/// When a flag counts as stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// How long everybody may have a release or an experiment before the flag should be gone.
    pub full_for: SignedDuration,
    /// How long nobody need ask for a flag.
    pub unused_for: SignedDuration,
}

impl Default for Limits {
    /// Two weeks for everybody, thirty days unused.
    fn default() -> Self {
        Self {
            full_for: SignedDuration::from_hours(14 * 24),
            unused_for: SignedDuration::from_hours(30 * 24),
        }
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
    /// Nobody asked for it as long as that was watched, which is longer than the limit.
    NeverEvaluated {
        /// Since when it was watched.
        watched_since: Timestamp,
    },
    /// Nobody has asked for it for longer than the limit.
    Unused {
        /// When somebody last did.
        last: Timestamp,
    },
    /// No source code names it.
    Unreferenced,
}

/// Why a flag is stale at `now`; nothing: it is not.
///
/// Flags for operation and permission may serve everybody for ever; only their expected end and their use count. A flag that is younger than
/// [`Limits::unused_for`] is not expected to be in use yet.
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
    if sighting.asked_by > 0 {
        return why;
    }
    if let Some(watched_since) =
        sighting.watched_since.max(facts.created.filter(|_| sighting.watched_since.is_some()))
    {
        let until = sighting.watched_until.map_or(now, |until| until.min(now));
        let idle = |since: Timestamp| until.duration_since(since.max(watched_since)) > limits.unused_for;
        match sighting.last_evaluated {
            Some(last) if idle(last) => why.push(Stale::Unused { last }),
            None if idle(watched_since) => why.push(Stale::NeverEvaluated { watched_since }),
            _ => {}
        }
    }
    if sighting.references == Some(0) {
        why.push(Stale::Unreferenced);
    }
    why
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |time: &Timestamp| time.strftime("%Y-%m-%d").to_string();
        match self {
            Self::PastEnd { end } => write!(f, "it should have been gone on {}", day(end)),
            Self::Full { since } => write!(f, "everybody has had it since {}", day(since)),
            Self::NeverEvaluated { watched_since } => {
                write!(f, "nobody has asked for it since {}, or before", day(watched_since))
            }
            Self::Unused { last } => write!(f, "nobody has asked for it since {}", day(last)),
            Self::Unreferenced => f.write_str("no source code names it"),
        }
    }
}

/// Which flags should go, and which are asked for but not there. Prints as a list for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct StaleReport {
    /// The stale flags, by key.
    pub flags: BTreeMap<String, StaleFlag>,
    /// Where source code asks for flags that nobody defined.
    pub unknown: BTreeMap<String, Vec<Reference>>,
}

/// A stale flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StaleFlag {
    /// Who looks after it, and should take it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Why it is stale; at least one reason.
    pub why: Vec<Stale>,
    /// Where source code names it: what is to be taken away with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
}

impl fmt::Display for StaleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, flag) in &self.flags {
            let why: Vec<_> = flag.why.iter().map(ToString::to_string).collect();
            let owner = flag.owner.as_ref().map(|owner| format!(" ({owner})")).unwrap_or_default();
            writeln!(f, "{key}{owner}: {}", why.join("; "))?;
            for place in &flag.references {
                writeln!(f, "    {place}")?;
            }
        }
        for (key, places) in &self.unknown {
            writeln!(f, "{key}: source code asks for it, and nobody defined it")?;
            for place in places {
                writeln!(f, "    {place}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_stale_for_each_reason_by_itself() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let day = |days: i64| now - SignedDuration::from_hours(days * 24);
        let limits = Limits::default();
        let facts = Facts { expected_end: Some("2026-11-01T00:00:00Z".parse().unwrap()), ..Facts::default() };
        let none = Sighting::default();
        let full = Sighting { full_since: Some(day(15)), ..none };
        let never = Sighting { watched_since: Some(day(31)), ..none };
        let unused = Sighting { last_evaluated: Some(day(40)), ..never };
        let nowhere = Sighting { references: Some(0), ..none };
        let told: Vec<_> = [(&facts, &none), (&Facts::default(), &full), (&Facts::default(), &never)]
            .into_iter()
            .chain([(&Facts::default(), &unused), (&Facts::default(), &nowhere)])
            .map(|(facts, sighting)| stale(facts, sighting, limits, now))
            .inspect(|why| assert_eq!(why.len(), 1, "{why:?}"))
            .map(|why| why[0].to_string())
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        it should have been gone on 2026-11-01
        everybody has had it since 2026-11-10
        nobody has asked for it since 2026-10-25, or before
        nobody has asked for it since 2026-10-16
        no source code names it
        ");
        let quiet = |facts: &Facts, sighting: &Sighting| assert_eq!(stale(facts, sighting, limits, now), []);
        quiet(&Facts::default(), &none);
        quiet(&Facts { kind: FlagKind::Permission, ..Facts::default() }, &full);
        quiet(&Facts::default(), &Sighting { full_since: Some(day(14)), ..none });
        quiet(&Facts { created: Some(day(2)), ..Facts::default() }, &never);
        quiet(&Facts::default(), &Sighting { watched_since: Some(day(3)), ..none });
        quiet(&Facts::default(), &Sighting { last_evaluated: Some(day(1)), ..never });
        quiet(&Facts { created: Some(day(60)), ..Facts::default() }, &none);
        // Others ask for it; nobody watches any more; nobody watched for a while.
        quiet(&Facts::default(), &Sighting { asked_by: 1, ..unused });
        quiet(&Facts::default(), &Sighting { asked_by: 1, ..nowhere });
        let year = Sighting { watched_since: Some(day(365)), ..none };
        quiet(
            &Facts::default(),
            &Sighting { last_evaluated: Some(day(100)), watched_until: Some(day(99)), ..year },
        );
        quiet(
            &Facts::default(),
            &Sighting { last_evaluated: Some(day(100)), watched_since: Some(day(9)), ..year },
        );
    }
}
