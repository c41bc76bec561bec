//! What was decided to be allowed, as types that can't be made otherwise: [`Candidate`], then [`Permit`].

use flowline_core::{
    SignedDuration, Timestamp,
    artifact::ReleaseId,
    error::{ErrorKind, Kinded, Retry},
    name::EnvironmentName,
};
use serde::{Deserialize, Serialize};

use super::{Decision, Facts, PromotionGraph, evaluate};

/// A release may go to an environment, as of the moment of the decision. Only [`evaluate`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    environment: EnvironmentName,
}

impl Candidate {
    pub(super) fn new(environment: EnvironmentName) -> Self {
        Self { environment }
    }

    /// Where it may go.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    /// The permission to bring `release` there within `ttl` from `now`.
    pub fn permit(self, release: ReleaseId, now: Timestamp, ttl: SignedDuration) -> Permit {
        let expires = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        Permit(PermitRecord { release, environment: self.environment, expires })
    }
}

/// The permission to bring one release to one environment, until it expires. A deployment consumes it.
///
/// It can't be read from disk; what is kept there is its [`record`](Self::record), and [`redeem`](Self::redeem) asks everything again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit allows nothing until a deployment takes it"]
pub struct Permit(PermitRecord);

/// A permit as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PermitRecord {
    /// What may go.
    pub release: ReleaseId,
    /// Where.
    pub environment: EnvironmentName,
    /// Until when, not included.
    pub expires: Timestamp,
}

impl Permit {
    /// What it allows.
    pub fn record(&self) -> &PermitRecord {
        &self.0
    }

    /// Makes a kept permit valid again, if it has not expired and the facts of now still allow it.
    ///
    /// # Errors
    /// [`PermitError`].
    pub fn redeem(
        record: PermitRecord,
        graph: &PromotionGraph,
        facts: &Facts,
        now: Timestamp,
    ) -> Result<Self, PermitError> {
        if now >= record.expires {
            return Err(PermitError::Expired { environment: record.environment, expires: record.expires });
        }
        match evaluate(graph, &record.environment, facts, now) {
            Decision::Ready(_) => Ok(Self(record)),
            decision => {
                Err(PermitError::Revoked { environment: record.environment, decision: decision.to_string() })
            }
        }
    }
}

/// Why a kept permit does not count any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermitError {
    /// Its time is over.
    #[error("the permit for `{environment}` expired at {expires}; ask for a new decision")]
    Expired {
        /// Where it allowed something.
        environment: EnvironmentName,
        /// When it ended.
        expires: Timestamp,
    },
    /// What was true when it was given is not any more.
    #[error("the permit for `{environment}` does not count any more: {decision}")]
    Revoked {
        /// Where it allowed something.
        environment: EnvironmentName,
        /// The decision of now.
        decision: String,
    },
}

impl Kinded for PermitError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Denied
    }

    fn retry(&self) -> Retry {
        Retry::Refreshed
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::{
        Version,
        artifact::{Artifact, Release},
        digest::Digest,
        verdict::{Outcome, Verdict},
    };

    use super::*;

    #[test]
    fn a_kept_permit_is_asked_again() {
        let production: EnvironmentName = "production".parse().unwrap();
        let preview: EnvironmentName = "preview".parse().unwrap();
        let graph = PromotionGraph::new([(production.clone(), [preview.clone()].into())]).unwrap();
        let mut facts = Facts { merged: true, ..Facts::default() };
        facts.verdicts.insert(preview.clone(), Verdict::of(Outcome::Pass, "", ""));
        let now = Timestamp::UNIX_EPOCH;
        let artifact = Artifact {
            component: "web".parse().unwrap(),
            content: Digest::of("1"),
            source: Digest::of("2"),
            version: Version::new(1, 0, 0),
        };
        let release = Release::new([artifact]).unwrap().id();
        let Decision::Ready(candidate) = evaluate(&graph, &production, &facts, now) else { panic!() };
        let permit = candidate.permit(release, now, SignedDuration::from_mins(10));
        let kept = permit.record().clone();
        assert_eq!(Permit::redeem(kept.clone(), &graph, &facts, now).unwrap(), permit);
        let late = now + SignedDuration::from_mins(10);
        assert!(matches!(
            Permit::redeem(kept.clone(), &graph, &facts, late),
            Err(PermitError::Expired { .. })
        ));
        facts.verdicts.insert(preview, Verdict::of(Outcome::Fail, "GET /", "status 500"));
        assert!(matches!(Permit::redeem(kept, &graph, &facts, now), Err(PermitError::Revoked { .. })));
    }
}
