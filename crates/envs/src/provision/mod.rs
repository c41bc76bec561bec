//! How a component's artifact comes to stand in an environment, and how the next one takes its place without anybody noticing.
//!
//! [`Provisioner`] is the contract. A new release is *staged* beside the running one, verified while nobody's traffic reaches it,
//! *activated* in one step, and only then is the old one *retired*; or the candidate is *discarded* and nothing has happened.
//! Several instances of one component stand side by side, each named by its [`InstanceId`], a digest.
//!
//! ```text
//!            Stage                 Activate               Retire                 (retention)
//!   nothing -------> candidate -------------> active ... -------> stopped, kept ------------> nothing
//!                        | Discard                ^  other active     | Stage, Activate: going back
//!                        v                        +-------------------+
//!                     nothing
//! ```
//!
//! [`diff`] says which of these steps lead from what was observed to what is desired, and why. [`memory`] keeps everything in the
//! process, for simulations; `local` (feature `process`) is one plain host. Both pass `testkit::provision`.

mod diff;
mod error;
#[cfg(all(feature = "process", unix))]
pub mod local;
#[cfg(all(feature = "process", not(unix)))]
#[path = "elsewhere.rs"]
pub mod local;
pub mod memory;
mod observed;
mod template;
mod workload;

use std::fmt::Debug;

use async_trait::async_trait;
use flowline_core::{
    grant::Granted,
    id::ResourceId,
    name::{ComponentName, EnvironmentName},
    store::Fence,
};

pub use self::{
    diff::{Because, Desired, Goal, PlannedChange, WorkloadChange, diff},
    error::{LogTail, PortHolder, ProvisionError},
    observed::{Instance, InstanceState, Observed, RunningProcess},
    template::{Placeholder, Template},
    workload::{
        InstanceId, PortChoice, ProbePath, ProcessSpec, Readiness, Workload, WorkloadError, WorkloadKind,
    },
};

/// What a provisioner can do, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent answer")]
pub struct ProvisionCapabilities {
    /// It takes workloads of files (`dir:` resources).
    pub files: bool,
    /// It takes workloads that are processes (`process:` resources).
    pub processes: bool,
    /// A candidate can stand beside the active instance.
    pub side_by_side: bool,
    /// What it set up lives on without the process that set it up, and is found again by the next.
    pub survives_restart: bool,
    /// How many retired instances are kept for going back; those with the lowest numbers go first.
    pub kept: usize,
}

impl ProvisionCapabilities {
    /// Nothing: where a backend starts from.
    pub const NONE: Self =
        Self { files: false, processes: false, side_by_side: false, survives_restart: false, kept: 0 };
}

/// Sets up workloads, switches between them and removes them.
///
/// *Shape*: a driver calls `observe`, decides with `diff`, and `apply`s one change after the other; [`ProvisionerExt::converge`] is that
/// loop. Many tasks, threads and (by capability) processes may call at once; changes to one resource are made one at a time.
///
/// *Expected flow* of a deployment
/// 1. converge to [`Goal::Staged`]: the candidate is ready beside the active instance;
/// 2. verify it on its own port or in its own directory; if that fails, apply [`WorkloadChange::Discard`]: the active one was never touched;
/// 3. converge to [`Goal::Active`], then send traffic to the active instance's port (for files, `current` has already moved);
/// 4. when requests in flight have ended, converge to [`Goal::Alone`].
///
/// Going back is the same with the [workload](Instance::workload) of [`Observed::previous`].
///
/// *Guarantees*
/// 1. After a successful `apply`, `observe` shows what the change asks for, and `diff` no longer asks for it.
/// 2. `apply` and `destroy` may be repeated: after success, after an error, and after the death of the caller at any point (SIGKILL).
///    Repeating ends in the same state, starts nothing twice and leaves nothing that `observe` does not show.
/// 3. Until `Activate`, nothing about the active instance changes. `Activate` is one atomic step: every reader sees the old one or the new
///    one. A change that fails leaves the active instance as it was.
/// 4. Only a ready instance becomes active; the active one is never retired or discarded.
/// 5. A change whose [`Fence`] has a lower token than one that this resource's lease showed before is refused, and changes nothing; that
///    holds after `destroy` too.
/// 6. A change for another resource than the handle's is refused, and changes nothing.
/// 7. After `destroy`, nothing is left: no instance, process, directory or port, whether `captured` lists it or not. Destroying what is
///    not there succeeds.
/// 8. Only what the backend itself set up is ever stopped or removed.
///
/// *Assumptions on the implementer*: `observe` changes nothing that a caller could see and does not wait for a change in progress; `diff`
/// is pure. A dropped future leaves a state that the next `apply` continues from.
///
/// *Errors by kind*: `Denied` (fence, handle), `Invalid` (workload, resource), `NotFound` (artifact, instance), `Conflict` (the instance is
/// active, or not ready), `Failed` (the process ended), `TimedOut` (it never became ready), `Busy` (a port or the resource is held by
/// somebody else), `Unavailable` (full or unwritable disk), `Corrupt`, `Unsupported`.
///
/// *Where backends differ*: [`capabilities`](Self::capabilities). The suite is `testkit::provision`.
///
/// ```
/// use std::sync::Arc;
/// use flowline_core::{clock::ManualClock, digest::Digest, grant::{Authority, Grant, Grants, Pattern}, id::Key, store::Fence};
/// use flowline_envs::provision::{Desired, Goal, Provisioner, ProvisionerExt, Workload, WorkloadChange, memory::MemoryProvisioner};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web = |content: &str| Workload::files("production".parse().unwrap(), "web".parse().unwrap(), Digest::of(content));
/// let app: flowline_core::name::AppName = "storefront".parse()?;
/// let grant = Grant { app: app.clone(), resource: Pattern::new("dir:production/*")?, because: String::new() };
/// let on = Authority::new(app, &Grants { grants: vec![grant] }).grant(&web("old").resource()?)?;
/// let fence = Fence { lease: Key::new("lease/production")?, token: 1 };
///
/// let provisioner = MemoryProvisioner::new(Arc::new(ManualClock::default()));
/// provisioner.converge(&on, &Desired::new(web("old"), Goal::Alone), &fence).await?;
/// let observed = provisioner.converge(&on, &Desired::new(web("new"), Goal::Staged), &fence).await?;
/// assert_eq!(observed.active, Some(web("old").instance()), "the candidate stands beside it");
///
/// // Verification failed: the candidate goes, and nothing has happened.
/// let observed = provisioner.apply(&on, &WorkloadChange::Discard(web("new").instance()), &fence).await?;
/// assert_eq!(observed.instances.len(), 1);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait Provisioner: Debug + Send + Sync {
    /// What this provisioner can do.
    fn capabilities(&self) -> ProvisionCapabilities;

    /// Every resource under which something is there, in order: what a sweep for leftovers looks at.
    async fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError>;

    /// What is there under `on` now.
    async fn observe(&self, on: &Granted<ResourceId>) -> Result<Observed, ProvisionError>;

    /// What leads from `observed` to `desired`. Pure; the default is [`diff`](fn@diff).
    fn diff(&self, desired: &Desired, observed: &Observed) -> Vec<PlannedChange> {
        diff(desired, observed)
    }

    /// Makes one change and answers what is there then.
    async fn apply(
        &self,
        on: &Granted<ResourceId>,
        change: &WorkloadChange,
        fence: &Fence,
    ) -> Result<Observed, ProvisionError>;

    /// Removes everything under `on`: what is there, and what `captured` (an earlier observation) says was there.
    async fn destroy(
        &self,
        on: &Granted<ResourceId>,
        captured: &Observed,
        fence: &Fence,
    ) -> Result<(), ProvisionError>;
}

/// The convenient forms, for every [`Provisioner`].
#[async_trait]
pub trait ProvisionerExt: Provisioner {
    /// Observes, decides and applies until nothing is left to do; answers what is there then.
    ///
    /// # Errors
    /// The first that a step has; converging again continues from there.
    async fn converge(
        &self,
        on: &Granted<ResourceId>,
        desired: &Desired,
        fence: &Fence,
    ) -> Result<Observed, ProvisionError> {
        // Each round leaves less to do unless somebody undoes it meanwhile; three rounds are more than any single driver needs.
        const ROUNDS: usize = 3;
        let mut observed = self.observe(on).await?;
        for _ in 0..ROUNDS {
            let plan = self.diff(desired, &observed);
            if plan.is_empty() {
                return Ok(observed);
            }
            for planned in plan {
                observed = self.apply(on, &planned.change, fence).await?;
            }
        }
        let left = self.diff(desired, &observed);
        match left.first() {
            None => Ok(observed),
            Some(planned) => Err(ProvisionError::NotReady {
                resource: on.resource().clone(),
                instance: desired.workload.instance(),
                why: format!("after {ROUNDS} rounds there is still to do: {planned}"),
            }),
        }
    }
}

impl<P: Provisioner + ?Sized> ProvisionerExt for P {}

/// The environment and component that a resource id names, for backends that read `dir:ENVIRONMENT/COMPONENT` and
/// `process:ENVIRONMENT/COMPONENT`.
///
/// # Errors
/// [`ProvisionError::Resource`] if it is something else.
pub fn place_of(resource: &ResourceId) -> Result<(EnvironmentName, ComponentName), ProvisionError> {
    let parse = || {
        if !matches!(resource.kind(), "dir" | "process") {
            return None;
        }
        let (environment, component) = resource.name().split_once('/')?;
        Some((environment.parse().ok()?, component.parse().ok()?))
    };
    parse().ok_or_else(|| ProvisionError::Resource { resource: resource.clone() })
}

/// Refuses a change that is about another resource than the handle's. Every backend asks this first.
///
/// # Errors
/// [`ProvisionError::Handle`], or [`ProvisionError::Resource`] if the handle is to nothing that a provisioner has.
pub fn check_handle(on: &Granted<ResourceId>, change: &WorkloadChange) -> Result<(), ProvisionError> {
    place_of(on.resource())?;
    let WorkloadChange::Stage(workload) = change else { return Ok(()) };
    match workload.resource() {
        Ok(about) if about == *on.resource() => Ok(()),
        Ok(about) => Err(ProvisionError::Handle { handle: on.resource().clone(), about }),
        Err(_) => Err(ProvisionError::Resource { resource: on.resource().clone() }),
    }
}
