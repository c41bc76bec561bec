//! What may go where, and why not yet: the [`PromotionGraph`] and its one decision, [`evaluate`].
//!
//! The graph says which environments come after which. [`evaluate`] is a pure function of the graph, of recorded [`Facts`] and of a given
//! time; lists, automation, plans and command lines all ask it, so they can't disagree. What it allows is a [`Candidate`], and only a
//! candidate becomes a [`Permit`], which a deployment consumes:
//!
//! ```text
//! Facts -- evaluate --> Ready(Candidate) -- permit --> Permit -- consumed by the deployment
//!                 \--> Waiting { reasons, next_wake }      \-- record --> PermitRecord -- redeem --> Permit
//!                 \--> Blocked { reasons }
//! ```

mod graph;
mod permit;

use std::{collections::BTreeMap, fmt};

use flowline_core::{
    Timestamp,
    artifact::ReleaseId,
    name::EnvironmentName,
    verdict::{Outcome, Verdict},
};
use serde::{Deserialize, Serialize};

pub use self::{
    graph::{GraphError, PromotionGraph},
    permit::{Candidate, Permit, PermitError, PermitRecord},
};

/// What is recorded about one release on its way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// The release that all this is about. A decision can be asked for without one; a permit can't be made then, as it names the release.
    #[serde(default)]
    pub release: Option<ReleaseId>,
    /// Whether the change that it brings is merged. A release without a change counts as merged.
    pub merged: bool,
    /// The newest verdict on exactly this release in each environment that has judged it.
    pub verdicts: BTreeMap<EnvironmentName, Verdict>,
    /// When the target stops being closed to promotions, if it is closed.
    pub closed_until: Option<Timestamp>,
}

/// Whether a release may go to an environment.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It may, now.
    Ready(Candidate),
    /// Not now; it can become possible without anybody changing their mind.
    Waiting {
        /// Everything that is missing.
        reasons: Vec<Reason>,
        /// When asking again can give another answer although nothing was recorded in between.
        next_wake: Option<Timestamp>,
    },
    /// Not this release: something was found to be wrong with it, or the target is not there.
    Blocked {
        /// Everything that stands against it.
        reasons: Vec<Reason>,
    },
}

/// Why a release may not go somewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// There is no such environment in the graph.
    NoSuchEnvironment(EnvironmentName),
    /// Its change is not merged.
    NotMerged,
    /// Nobody has judged it in an environment that comes first.
    NotVerified(EnvironmentName),
    /// It was judged in an environment that comes first, and it is not well.
    Failed {
        /// Where.
        environment: EnvironmentName,
        /// How.
        verdict: Verdict,
    },
    /// It was judged, and the evidence does not decide.
    Undecided {
        /// Where.
        environment: EnvironmentName,
        /// How.
        verdict: Verdict,
    },
    /// The target is closed.
    ClosedUntil(Timestamp),
}

impl Reason {
    /// Whether this stands against the release itself, so that waiting does not help.
    pub fn blocks(&self) -> bool {
        matches!(self, Self::NoSuchEnvironment(_) | Self::Failed { .. })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchEnvironment(environment) => write!(f, "there is no environment `{environment}`"),
            Self::NotMerged => write!(f, "its change is not merged"),
            Self::NotVerified(environment) => write!(f, "it was not verified in `{environment}`"),
            Self::Failed { environment, verdict } => {
                write!(f, "verification in `{environment}` came out as {verdict}")
            }
            Self::Undecided { environment, verdict } => {
                write!(
                    f,
                    "verification in `{environment}` came out as {verdict}; verify again, or look at it"
                )
            }
            Self::ClosedUntil(time) => write!(f, "it is closed until {time}"),
        }
    }
}

/// Decides whether a release with these `facts` may go to `target` at `now`. Every reason against it is named, not just the first.
///
/// ```
/// use flowline_core::{Timestamp, verdict::{Outcome, Verdict}};
/// use flowline_envs::promotion::{Decision, Facts, PromotionGraph, evaluate};
/// let (preview, production) = ("preview".parse()?, "production".parse()?);
/// let graph = PromotionGraph::new([("production".parse()?, ["preview".parse()?].into())])?;
/// let mut facts = Facts { merged: true, ..Facts::default() };
/// let Decision::Waiting { reasons, .. } = evaluate(&graph, &production, &facts, Timestamp::UNIX_EPOCH) else { panic!() };
/// assert_eq!(reasons[0].to_string(), "it was not verified in `preview`");
/// facts.verdicts.insert(preview, Verdict::of(Outcome::Pass, "smoke", "exit code 0"));
/// assert!(matches!(evaluate(&graph, &production, &facts, Timestamp::UNIX_EPOCH), Decision::Ready(_)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn evaluate(graph: &PromotionGraph, target: &EnvironmentName, facts: &Facts, now: Timestamp) -> Decision {
    let mut reasons = Vec::new();
    match graph.before(target) {
        None => reasons.push(Reason::NoSuchEnvironment(target.clone())),
        Some(before) => {
            for environment in before {
                let environment = environment.clone();
                match facts.verdicts.get(&environment) {
                    None => reasons.push(Reason::NotVerified(environment)),
                    Some(verdict) => match verdict.outcome {
                        Outcome::Pass => {}
                        Outcome::Fail => {
                            reasons.push(Reason::Failed { environment, verdict: verdict.clone() });
                        }
                        Outcome::Inconclusive | Outcome::Error => {
                            reasons.push(Reason::Undecided { environment, verdict: verdict.clone() });
                        }
                    },
                }
            }
        }
    }
    if !facts.merged {
        reasons.push(Reason::NotMerged);
    }
    let closed = facts.closed_until.filter(|until| *until > now);
    reasons.extend(closed.map(Reason::ClosedUntil));
    if reasons.is_empty() {
        return Decision::Ready(Candidate::new(facts.release, target.clone()));
    }
    if reasons.iter().any(Reason::blocks) {
        return Decision::Blocked { reasons };
    }
    Decision::Waiting { reasons, next_wake: closed }
}

impl Decision {
    /// Everything that stands against it; nothing if it is ready.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Ready(_) => &[],
            Self::Waiting { reasons, .. } | Self::Blocked { reasons } => reasons,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "ready",
            Self::Waiting { .. } => "waiting: ",
            Self::Blocked { .. } => "blocked: ",
        })?;
        for (index, reason) in self.reasons().iter().enumerate() {
            write!(f, "{}{reason}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> EnvironmentName {
        text.parse().unwrap()
    }

    fn graph() -> PromotionGraph {
        PromotionGraph::new([
            (name("staging"), [name("preview")].into()),
            (name("production"), [name("preview"), name("staging")].into()),
        ])
        .unwrap()
    }

    fn decide(facts: &Facts) -> Decision {
        evaluate(&graph(), &name("production"), facts, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn every_reason_is_named() {
        let mut facts = Facts { closed_until: Some(Timestamp::from_second(60).unwrap()), ..Facts::default() };
        let mut said = vec![decide(&facts).to_string()];
        facts.verdicts.insert(name("preview"), Verdict::of(Outcome::Fail, "GET /", "status 500"));
        facts.verdicts.insert(name("staging"), Verdict::of(Outcome::Error, "smoke", "not found"));
        said.push(decide(&facts).to_string());
        said.push(
            evaluate(
                &graph(),
                &name("moon"),
                &Facts { merged: true, ..Facts::default() },
                Timestamp::UNIX_EPOCH,
            )
            .to_string(),
        );
        insta::assert_snapshot!(said.join("\n"), @r"
        waiting: it was not verified in `preview`; it was not verified in `staging`; its change is not merged; it is closed until 1970-01-01T00:01:00Z
        blocked: verification in `preview` came out as fail (GET /: status 500); verification in `staging` came out as error (smoke: not found); verify again, or look at it; its change is not merged; it is closed until 1970-01-01T00:01:00Z
        blocked: there is no environment `moon`
        ");
    }

    #[test]
    fn waiting_for_a_time_says_when_to_ask_again() {
        let until = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(60);
        let mut facts = Facts { merged: true, closed_until: Some(until), ..Facts::default() };
        for environment in ["preview", "staging"] {
            facts.verdicts.insert(name(environment), Verdict::of(Outcome::Pass, "", ""));
        }
        assert!(matches!(decide(&facts), Decision::Waiting { next_wake: Some(wake), .. } if wake == until));
        assert!(
            matches!(evaluate(&graph(), &name("production"), &facts, until), Decision::Ready(_)),
            "the end is not closed"
        );
    }

    proptest! {
        /// A release that is ready stays ready when more environments judge it well.
        #[test]
        fn more_passes_never_take_away(passed in proptest::collection::vec("[a-z]{1,8}", 0..5)) {
            let mut facts = Facts { merged: true, ..Facts::default() };
            for environment in ["preview", "staging"].into_iter().chain(passed.iter().map(String::as_str)) {
                facts.verdicts.insert(name(environment), Verdict::of(Outcome::Pass, "", ""));
            }
            prop_assert!(matches!(decide(&facts), Decision::Ready(_)));
        }
    }
}
