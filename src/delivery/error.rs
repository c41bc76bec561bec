//! Why a verb of [`Delivery`](super::Delivery) did not do what it was asked.

use std::net::SocketAddr;

use flowline_core::{
    error::{BoxError, ErrorKind, Kinded, Retry},
    store::StoreError,
    verdict::Verdict,
};

use flowline_pipeline::run::Cause;

use crate::source::SourceError;

/// Why a delivery's verb did not do what it was asked.
///
/// Errors of the parts below are kept as they are, under the name of the part; ask [`Kinded::kind`] what one means.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The topology or the owner's grants can't be read, or contradict themselves. The text shows each problem with its place.
    #[error(transparent)]
    Config(#[from] flowline_core::config::ConfigError),
    /// A text that is not a name.
    #[error(transparent)]
    Name(#[from] flowline_core::name::NameError),
    /// The store.
    #[error("{doing}: the store does not answer as it should")]
    Store {
        /// What was being done.
        doing: String,
        /// What the store says.
        source: StoreError,
    },
    /// The source of the components' files.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Something that was named is not there.
    #[error("there is no {what} `{name}`; {help}")]
    Unknown {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is instead, or how to make it.
        help: String,
    },
    /// The promotion graph does not allow it, for the reasons that are named.
    #[error("{what} may not go to `{environment}` now: {reasons}")]
    NotReady {
        /// The change or release.
        what: String,
        /// Where it should go.
        environment: String,
        /// Why not, for people.
        reasons: String,
        /// Whether waiting can help.
        waiting: bool,
    },
    /// The candidate was found not to be well. Users were not touched.
    #[error(
        "{what} was stopped before anybody saw it: verification in `{environment}` came out as {verdict}"
    )]
    NotVerified {
        /// The release.
        what: String,
        /// Where it was verified.
        environment: String,
        /// With all evidence.
        verdict: Verdict,
    },
    /// The deployment was stopped before the switch, for another reason than its verification. Users were not touched. If it was cancelled,
    /// the same call does it anew.
    #[error("{what} was stopped on its way to `{environment}`: {cause}")]
    Stopped {
        /// The release.
        what: String,
        /// Where it should have gone.
        environment: String,
        /// Why: a step failed, it took too long, or somebody wished to stop.
        cause: Cause,
    },
    /// A deployment could not be finished, nor wholly undone. The same call goes on with it.
    #[error(
        "the deployment to `{environment}` is not finished ({ended}); `why` of run/{run} says what is left; call again to go on"
    )]
    Unfinished {
        /// The environment.
        environment: String,
        /// The run.
        run: String,
        /// How its walk ended.
        ended: &'static str,
    },
    /// A deployment waits for something from outside, such as an approval; no process need live meanwhile. The same call goes on with it.
    #[error(
        "the deployment to `{environment}` waits: {reasons}; let run `{run}` go on with `approve`, then call again"
    )]
    Waiting {
        /// The environment.
        environment: String,
        /// The run.
        run: String,
        /// What each step waits for, for people.
        reasons: String,
    },
    /// A deployment was cut where nobody but a person can say whether a step took effect. Once [`Delivery::resolve`](super::Delivery::resolve)
    /// was told, the same call goes on with it.
    #[error(
        "the deployment to `{environment}` needs a person: {reasons}; look, say what is true with `resolve {run} STEP --happened` or `--did-not`, then call again"
    )]
    NeedsPerson {
        /// The environment.
        environment: String,
        /// The run.
        run: String,
        /// Why each step needs one, for people.
        reasons: String,
    },
    /// A run has nothing that is open for what came from outside.
    #[error("run `{run}` has no open {what}: it is {state}; `status` names the runs that wait")]
    NotOpen {
        /// What it would be.
        what: &'static str,
        /// The run.
        run: String,
        /// How it stands.
        state: &'static str,
    },
    /// An approval was not given, as it would count at no gate. Nothing was recorded.
    #[error("`{by}` can't approve run `{run}`: {reasons}")]
    NotAsked {
        /// Who would approve.
        by: String,
        /// The run.
        run: String,
        /// Why it counts at none of its gates, and who is asked.
        reasons: String,
    },
    /// What would be done is no longer what was looked at.
    #[error(
        "the plan for `{environment}` is {found} now, not {asked}: something that it depends on moved; look at the new plan"
    )]
    OtherPlan {
        /// The environment.
        environment: String,
        /// The seal of the plan that was asked for.
        asked: flowline_core::digest::Digest,
        /// The seal that it would have now.
        found: flowline_core::digest::Digest,
    },
    /// A run can't be shown.
    #[error(transparent)]
    Run(#[from] flowline_pipeline::report::ReadError),
    /// Another process deploys to the environment.
    #[error("{holder} is deploying to `{environment}`; wait for it, at most until {until}")]
    DeployedElsewhere {
        /// The environment.
        environment: String,
        /// Who.
        holder: String,
        /// When its place comes free even if it died.
        until: flowline_core::Timestamp,
    },
    /// The router can't lead requests as it should.
    #[error("the router keeps its former routes: {problem}")]
    Unroutable {
        /// Why.
        problem: String,
    },
    /// There is nothing to go back to.
    #[error("`{environment}` has no earlier release to go back to")]
    NothingToRollBack {
        /// The environment.
        environment: String,
    },
    /// The router can't listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why, and what to do.
        source: BoxError,
    },
    /// Another process serves this state directory.
    #[error("{holder} serves this directory already; stop it, or use another directory")]
    ServedElsewhere {
        /// Who.
        holder: String,
    },
    /// The state directory can't be used.
    #[error("cannot use the state directory {directory}: {help}")]
    StateDirectory {
        /// The directory.
        directory: std::path::PathBuf,
        /// What to do.
        help: String,
        /// Why.
        source: BoxError,
    },
    /// A flag, an address, or a promotion graph of the topology.
    #[error(transparent)]
    Topology(#[from] crate::topology::TopologyError),
    /// A payload of a forge.
    #[error(transparent)]
    Payload(#[from] flowline_envs::webhook::PayloadError),
    /// A part below failed.
    #[error("{doing} failed")]
    Part {
        /// What was being done.
        doing: String,
        /// What the part's error means.
        kind: ErrorKind,
        /// Whether trying again can help.
        retry: Retry,
        /// The part's error.
        source: BoxError,
    },
}

impl DeliveryError {
    /// An error of a part below, met while `doing`.
    pub(crate) fn part<E: Kinded + Send + Sync + 'static>(doing: impl Into<String>, error: E) -> Self {
        Self::Part { doing: doing.into(), kind: error.kind(), retry: error.retry(), source: Box::new(error) }
    }

    pub(crate) fn store(doing: impl Into<String>) -> impl FnOnce(StoreError) -> Self {
        let doing = doing.into();
        move |source| Self::Store { doing, source }
    }
}

impl Kinded for DeliveryError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(source) => source.kind(),
            Self::Name(_) => ErrorKind::Invalid,
            Self::Topology(source) => source.kind(),
            Self::Payload(source) => source.kind(),
            Self::Store { source, .. } => source.kind(),
            Self::Source(source) => source.kind(),
            Self::Unknown { .. } | Self::NotOpen { .. } | Self::NothingToRollBack { .. } => {
                ErrorKind::NotFound
            }
            Self::NotReady { waiting: true, .. }
            | Self::Waiting { .. }
            | Self::NeedsPerson { .. }
            | Self::ServedElsewhere { .. }
            | Self::DeployedElsewhere { .. } => ErrorKind::Busy,
            Self::NotAsked { .. } => ErrorKind::Denied,
            Self::Stopped { cause: Cause::Cancelled, .. } => ErrorKind::Cancelled,
            Self::Stopped { cause: Cause::TimedOut, .. } => ErrorKind::TimedOut,
            Self::Run(source) => source.kind(),
            Self::NotReady { .. }
            | Self::NotVerified { .. }
            | Self::Stopped { .. }
            | Self::Unfinished { .. } => ErrorKind::Failed,
            Self::Unroutable { .. } | Self::OtherPlan { .. } => ErrorKind::Conflict,
            Self::Listen { .. } | Self::StateDirectory { .. } => ErrorKind::Unavailable,
            Self::Part { kind, .. } => *kind,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Store { source, .. } => source.retry(),
            Self::Part { retry, .. } => *retry,
            Self::NotReady { waiting: true, .. }
            | Self::Waiting { .. }
            | Self::NeedsPerson { .. }
            | Self::ServedElsewhere { .. }
            | Self::DeployedElsewhere { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
