//! Routing: which address is answered by what, as plain data, and the router that makes it so.
//!
//! | module | what it decides |
//! | --- | --- |
//! | `route` | what a route and a table of routes are, and that no two claim the same address |
//! | `overlay` | what answers for an ephemeral environment that deploys only a part |
//! | `matching` | which route takes a request, and which path its target sees |
//! | [`Router`] | the contract of whatever serves a table: [`MemoryRouter`], `HttpRouter` (feature `router`) |

mod matching;
mod memory;
mod overlay;
#[cfg(feature = "router")]
mod proxy;
mod route;

use std::{fmt::Debug, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use flowline_core::error::{BoxError, ErrorKind, Kinded};
use serde::{Deserialize, Serialize};

#[cfg(feature = "router")]
pub use self::proxy::{HttpRouter, RouterLimits};
pub use self::{
    matching::Matched,
    memory::{MemoryRouter, Passage},
    overlay::{Overlay, OverlayEntry, overlay},
    route::{Ambiguity, Route, RouteDiff, RouteError, RouteTable, Target},
};

/// Makes requests reach what the table of routes says.
///
/// *Shape*: a controller computes the whole desired [`RouteTable`] and gives it to [`apply`](Self::apply), as often as it likes, from
/// one task at a time; it then retires what the table no longer names, after [`drain`](Self::drain). Requests come in all the while.
///
/// *Guarantees*
/// 1. `apply` is level-triggered and whole: afterwards exactly the given routes are served, whatever was before. Applying the same table
///    again changes nothing.
/// 2. The switch is atomic: each request is answered by the old table or by the new one, never by a mixture, and one that arrives after
///    `apply` returned by the new one.
/// 3. No request is lost by a switch: what was matched before finishes on its old target.
/// 4. A request is taken by the route with its host (case and port do not matter) and the longest path that covers it by whole segments.
/// 5. A response says who answered: `x-flowline-environment` names the environment whose deployment did, so that a fall-through to the
///    base environment can be seen.
/// 6. When `drain` returns [`Drained`], no request uses the target and none will until a table names it again.
///
/// *Assumptions on the implementer*: `apply` and `drain` may be dropped at any await; a dropped `apply` has happened or not, as a whole.
/// The table may be larger than what changes; a remote backend writes the difference.
///
/// *Errors by kind*: `Conflict` when a target to drain is still routed; `TimedOut` when requests outlive the limit (they go on);
/// `Unsupported` when the table needs what [`capabilities`](Self::capabilities) deny; `Unavailable` when the backend can't be reached.
///
/// *Where backends differ*: [`RouterCapabilities`]. *Checked by* `testkit::router` (features `testkit`, `router`).
#[async_trait]
pub trait Router: Debug + Send + Sync {
    /// Serves exactly `table` from now on, and says what that changed.
    async fn apply(&self, table: RouteTable) -> Result<RouteDiff, RouterError>;

    /// The table that is served.
    async fn current(&self) -> Result<RouteTable, RouterError>;

    /// Waits, at most `limit`, until no request uses `target`, which the table must no longer name.
    async fn drain(&self, target: &Target, limit: Duration) -> Result<Drained, RouterError>;

    /// What this backend can do.
    fn capabilities(&self) -> RouterCapabilities;
}

/// Proof that no request uses a target any more: what ran there may be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "what the target was may be stopped now"]
pub struct Drained {
    target: Target,
}

impl Drained {
    /// For implementers of [`Router::drain`]: `target` is free.
    pub fn of(target: Target) -> Self {
        Self { target }
    }

    /// The target that is free.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

/// What a router backend can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterCapabilities {
    /// It serves routes with a rewrite.
    pub rewrites: bool,
    /// It serves [`Target::Directory`].
    pub directories: bool,
    /// It knows when a target is no longer used. Without it [`Router::drain`] only waits out its limit.
    pub drains: bool,
}

/// Why a router could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// Somebody else listens on the router's address.
    #[error(
        "cannot listen on {address}: port {} is taken by another process; stop that one, or choose another port (0 lets the system choose)",
        .address.port()
    )]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// The router's address cannot be listened on.
    #[error(
        "cannot listen on {address}; choose an address of this host and a port that this user may use (above 1023)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A route leads back into the router.
    #[error(
        "the route {route} leads back into the router, which would forward it for ever; give it the address of its component"
    )]
    Loop {
        /// The route, as text.
        route: String,
    },
    /// A target to drain is still in the table.
    #[error("cannot drain {target}: {route} still leads there; apply a table without it first")]
    StillRouted {
        /// The target.
        target: Target,
        /// A route to it, as text.
        route: String,
    },
    /// Requests outlived the limit. They go on.
    #[error(
        "{target} still serves {in_flight} requests after {limit:?}; wait longer, or stop it and cut them"
    )]
    DrainTimedOut {
        /// The target.
        target: Target,
        /// How many requests use it.
        in_flight: usize,
        /// The limit that was given.
        limit: Duration,
    },
    /// The table needs what this backend cannot do.
    #[error("this router cannot serve {route}: it has no {missing}")]
    Unsupported {
        /// The route, as text.
        route: String,
        /// What is missing.
        missing: &'static str,
    },
    /// The backend failed.
    #[error("the router failed while {doing}")]
    Backend {
        /// What it was doing.
        doing: String,
        /// Whether trying again later can help.
        transient: bool,
        /// What it said.
        #[source]
        source: BoxError,
    },
}

impl Kinded for RouterError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::PortTaken { .. } | Self::StillRouted { .. } => ErrorKind::Conflict,
            Self::Listen { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                ErrorKind::Denied
            }
            Self::Listen { .. } | Self::Loop { .. } => ErrorKind::Invalid,
            Self::DrainTimedOut { .. } => ErrorKind::TimedOut,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Backend { transient: true, .. } => ErrorKind::Unavailable,
            Self::Backend { .. } => ErrorKind::Other,
        }
    }
}

/// Refuses to drain what `table` still names.
fn still_routed(table: &RouteTable, target: &Target) -> Result<(), RouterError> {
    match table.routes().find(|route| route.target == *target) {
        Some(route) => Err(RouterError::StillRouted { target: target.clone(), route: route.to_string() }),
        None => Ok(()),
    }
}
