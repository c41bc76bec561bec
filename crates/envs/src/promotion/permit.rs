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
    release: Option<ReleaseId>,
    environment: EnvironmentName,
}

impl Candidate {
    pub(super) fn new(release: Option<ReleaseId>, environment: EnvironmentName) -> Self {
        Self { release, environment }
    }

    /// Where it may go.
    pub fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    /// The permission to bring `release` there within `ttl` from `now`.
    ///
    /// # Errors
    /// [`PermitError::OtherRelease`] if the facts of the decision were not about this release: what was decided for one can't be used for
    /// another.
    pub fn permit(
        self,
        release: ReleaseId,
        now: Timestamp,
        ttl: SignedDuration,
    ) -> Result<Permit, PermitError> {
        if self.release != Some(release) {
            return Err(PermitError::OtherRelease { environment: self.environment, release });
        }
        let expires = now.checked_add(ttl).unwrap_or(Timestamp::MAX);
        Ok(Permit(PermitRecord { release, environment: self.environment, expires }))
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
        if facts.release != Some(record.release) {
            let PermitRecord { release, environment, .. } = record;
            return Err(PermitError::OtherRelease { environment, release });
        }
        match evaluate(graph, &record.environment, facts, now) {
            Decision::Ready(_) => Ok(Self(record)),
            decision => {
                Err(PermitError::Revoked { environment: record.environment, decision: decision.to_string() })
            }
        }
    }
}

/// Why there is no permit, or a kept one does not count any more.
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
    /// The decision was made from facts about another release, or about none.
    #[error(
        "release `{release}` may not go to `{environment}` by a decision about another one; decide with the facts of `{release}`"
    )]
    OtherRelease {
        /// Where it was to go.
        environment: EnvironmentName,
        /// What was to go.
        release: ReleaseId,
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
        let now = Timestamp::UNIX_EPOCH;
        let artifact = Artifact {
            component: "web".parse().unwrap(),
            content: Digest::of("1"),
            source: Digest::of("2"),
            version: Version::new(1, 0, 0),
        };
        let release = Release::new([artifact]).unwrap().id();
        let mut facts = Facts { release: Some(release), merged: true, ..Facts::default() };
        facts.verdicts.insert(preview.clone(), Verdict::of(Outcome::Pass, "", ""));
        let Decision::Ready(candidate) = evaluate(&graph, &production, &facts, now) else { panic!() };
        let permit = candidate.permit(release, now, SignedDuration::from_mins(10)).unwrap();
        let kept = permit.record().clone();
        assert_eq!(Permit::redeem(kept.clone(), &graph, &facts, now).unwrap(), permit);
        let late = now + SignedDuration::from_mins(10);
        assert!(matches!(
            Permit::redeem(kept.clone(), &graph, &facts, late),
            Err(PermitError::Expired { .. })
        ));
        let other = Facts { release: None, ..facts.clone() };
        assert!(matches!(
            Permit::redeem(kept.clone(), &graph, &other, now),
            Err(PermitError::OtherRelease { .. })
        ));
        let Decision::Ready(candidate) = evaluate(&graph, &production, &other, now) else { panic!() };
        let refused = candidate.permit(release, now, SignedDuration::from_mins(10));
        assert!(matches!(refused, Err(PermitError::OtherRelease { .. })));
        facts.verdicts.insert(preview, Verdict::of(Outcome::Fail, "GET /", "status 500"));
        assert!(matches!(Permit::redeem(kept, &graph, &facts, now), Err(PermitError::Revoked { .. })));
    }
}
