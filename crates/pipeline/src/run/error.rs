//! Why a run could not be walked. A step that fails is no such error: it is how a run ends.

use flowline_core::{
    digest::Digest,
    error::{ErrorKind, Kinded, Retry},
    grant::Denied,
    id::{ResourceId, RunId},
    journal::JournalError,
    lease::LeaseError,
    secret::SecretName,
    store::StoreError,
};

use crate::{
    plan::{ApprovalError, Fingerprint, OpenError, StepId},
    step::{HoldsSecret, ResolveError, StepError},
};

/// Why a run could not be walked, or not further. The run can be resumed once the cause is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// What the plan touches moved since it was made.
    #[error("the plan is stale: {}; make the plan again", moved_list(.0))]
    Stale(Vec<Moved>),
    /// A resource of the plan is not granted any more.
    #[error("step `{step}` may not run any more")]
    Denied {
        /// The step.
        step: StepId,
        /// Why.
        source: Denied,
    },
    /// Under this id another plan runs or ran.
    #[error("run `{run}` is of plan {running}, not of {asked}; start this plan under another run id")]
    OtherPlan {
        /// The run.
        run: RunId,
        /// Its plan.
        running: Digest,
        /// The plan that was to be run.
        asked: Digest,
    },
    /// There is no such run.
    #[error("there is no run `{0}`")]
    NoRun(RunId),
    /// The run does not have such a step, or it needs nobody.
    #[error("step `{step}` of run `{run}` does not wait for a person")]
    NotWaiting {
        /// The run.
        run: RunId,
        /// The step.
        step: StepId,
    },
    /// The plan uses functions of another build of the deployer.
    #[error("the plan was made by another build of the deployer ({}, this is {}); resume it with that build, or allow another", .sealed.short(), this_build(.this.as_ref()))]
    OtherBuild {
        /// The build that the plan is sealed with.
        sealed: Digest,
        /// This build, if somebody said.
        this: Option<Digest>,
    },
    /// Another process walks the run.
    #[error("run `{run}` is being walked by somebody else")]
    Busy {
        /// The run.
        run: RunId,
        /// Who.
        source: LeaseError,
    },
    /// An approval does not count.
    #[error("the approval does not count for run `{run}`")]
    Approval {
        /// The run.
        run: RunId,
        /// Why.
        source: ApprovalError,
    },
    /// A step's code can't be had.
    #[error("step `{step}` cannot run")]
    Resolve {
        /// The step.
        step: StepId,
        /// Why.
        source: ResolveError,
    },
    /// A resource can't be looked at before the run.
    #[error("step `{step}` cannot say whether the plan is still fresh")]
    Look {
        /// The step.
        step: StepId,
        /// Why.
        source: StepError,
    },
    /// The plan in the store is none.
    #[error("the plan of run `{run}` cannot be read back")]
    Plan {
        /// The run.
        run: RunId,
        /// Why.
        source: OpenError,
    },
    /// The lease was lost or can't be had.
    #[error("the run's lease cannot be kept")]
    Lease(#[from] LeaseError),
    /// A lock can't be had, or given back.
    #[error("the locks of step `{step}` cannot be taken")]
    Lock {
        /// The step.
        step: StepId,
        /// Why.
        source: LeaseError,
    },
    /// The store failed.
    #[error("the run cannot be recorded")]
    Store(#[from] StoreError),
    /// The run's events can't be read or written.
    #[error("the run's events cannot be used")]
    Journal(#[from] JournalError),
    /// A name that the run needs is refused.
    #[error("the run's records cannot be named: {0}")]
    Name(String),
    /// The value of a secret of the run stands in the plan, which would be kept and shown.
    #[error(
        "the plan holds the value of the secret `{0}` and was not started; refer to the secret by its name (`secret_env`) and make the plan again"
    )]
    Secret(SecretName),
    /// What was said to a run, or about it, holds a secret of the runner, and would be recorded.
    #[error(transparent)]
    Holds(#[from] HoldsSecret),
    /// The plan does not hold together; it was not made by a planner.
    #[error("the plan does not hold together: {0}")]
    Broken(String),
}

/// A resource that is not as the plan found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The resource.
    pub resource: ResourceId,
    /// The step that touches it.
    pub step: StepId,
    /// As the plan found it.
    pub planned: Fingerprint,
    /// As it is.
    pub found: Fingerprint,
}

fn moved_list(moved: &[Moved]) -> String {
    const SHOWN: usize = 5;
    let mut list: Vec<_> = moved
        .iter()
        .take(SHOWN)
        .map(|moved| {
            format!(
                "`{}` moved from {} to {} (step `{}`)",
                moved.resource, moved.planned, moved.found, moved.step
            )
        })
        .collect();
    if moved.len() > SHOWN {
        list.push(format!("and {} more", moved.len() - SHOWN));
    }
    list.join(", ")
}

fn this_build(build: Option<&Digest>) -> String {
    build.map_or_else(|| "unknown".to_owned(), Digest::short)
}

impl Kinded for RunError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Stale(_) | Self::OtherPlan { .. } | Self::OtherBuild { .. } => ErrorKind::Conflict,
            Self::Denied { .. } | Self::Approval { .. } => ErrorKind::Denied,
            Self::NoRun(_) => ErrorKind::NotFound,
            Self::NotWaiting { .. } | Self::Name(_) | Self::Secret(_) | Self::Broken(_) => ErrorKind::Invalid,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Resolve { source, .. } => source.kind(),
            Self::Look { source, .. } => source.kind(),
            Self::Plan { source, .. } => source.kind(),
            Self::Holds(source) => source.kind(),
            Self::Lease(source) | Self::Lock { source, .. } => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Journal(source) => source.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Look { source, .. } => source.retry(),
            Self::Lease(source) | Self::Lock { source, .. } => source.retry(),
            Self::Store(source) => source.retry(),
            Self::Journal(source) => source.retry(),
            Self::Busy { .. } => Retry::Later,
            // A stale plan too: making it again is another plan, the same one stays refused.
            _ => Retry::Never,
        }
    }
}
