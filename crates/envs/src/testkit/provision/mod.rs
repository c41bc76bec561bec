//! Checks what [`Provisioner`] promises.
//!
//! ```
//! use std::sync::Arc;
//! use flowline_core::{clock::ManualClock, digest::Digest};
//! use flowline_envs::{provision::{Workload, memory::MemoryProvisioner}, testkit::provision::{Bench, suite}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), flowline_envs::testkit::Broken> {
//! let web = |n: u32| Workload::files("production".parse().unwrap(), "web".parse().unwrap(), Digest::of(n.to_be_bytes()));
//! let bench = || Bench::new(Arc::new(MemoryProvisioner::new(Arc::new(ManualClock::default()))), web);
//! suite(async || Ok(bench())).await.verdict()
//! # }
//! ```

mod cases;
#[cfg(test)]
mod flaws;

use std::{any::Any, fmt, sync::Arc};

use flowline_core::{
    error::{BoxError, chain},
    grant::{Authority, Grant, Granted, Grants, Pattern},
    id::{Key, ResourceId},
    name::AppName,
    store::Fence,
};

use super::{CaseOutcome, CaseReport, Report};
use crate::provision::{
    Desired, Goal, InstanceId, Observed, ProvisionError, Provisioner, ProvisionerExt as _, Workload,
    WorkloadChange,
};

/// An empty provisioner and what to give it. Each case gets its own.
pub struct Bench {
    provisioner: Arc<dyn Provisioner>,
    workload: Box<dyn Fn(u32) -> Workload + Send + Sync>,
    broken: Option<Workload>,
    alive: Vec<Box<dyn Any + Send + Sync>>,
}

impl Bench {
    /// A bench with an empty `provisioner`. `workload` gives workloads of one resource, another artifact for each number from 0; every one
    /// must become ready.
    pub fn new(
        provisioner: Arc<dyn Provisioner>,
        workload: impl Fn(u32) -> Workload + Send + Sync + 'static,
    ) -> Self {
        Self { provisioner, workload: Box::new(workload), broken: None, alive: Vec::new() }
    }

    /// Adds a workload of the same resource that never becomes ready.
    #[must_use]
    pub fn with_broken(mut self, broken: Workload) -> Self {
        self.broken = Some(broken);
        self
    }

    /// Keeps something as long as the bench, such as a temporary directory.
    #[must_use]
    pub fn keeping(mut self, alive: impl Any + Send + Sync) -> Self {
        self.alive.push(Box::new(alive));
        self
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench").field("provisioner", &self.provisioner).finish_non_exhaustive()
    }
}

/// Runs every case against a bench of its own. What a case set up it removes, if the provisioner can.
pub async fn suite<F>(bench: F) -> Report
where
    F: AsyncFn() -> Result<Bench, BoxError>,
{
    let mut reports = Vec::new();
    for (sentence, case) in cases::CASES {
        let outcome = match bench().await {
            Ok(bench) => {
                let outcome = case(&bench).await;
                bench.clear().await;
                outcome
            }
            Err(error) => Err(Seen::Broken(format!("there is no bench: {}", chain(&*error)))),
        };
        let outcome = match outcome {
            Ok(()) => CaseOutcome::Held,
            Err(Seen::Broken(seen)) => CaseOutcome::Broken(seen),
            Err(Seen::Skipped(needs)) => CaseOutcome::Skipped(needs),
        };
        reports.push(CaseReport { sentence, outcome });
    }
    Report { suite: "testkit::provision", cases: reports }
}

/// Why a case did not hold.
enum Seen {
    Broken(String),
    Skipped(&'static str),
}

impl From<ProvisionError> for Seen {
    fn from(error: ProvisionError) -> Self {
        Self::Broken(format!("an unexpected error: {}", chain(&error)))
    }
}

type Checked<T = ()> = Result<T, Seen>;

/// The words that cases are written in.
impl Bench {
    fn workload(&self, number: u32) -> Workload {
        (self.workload)(number)
    }

    fn id(&self, number: u32) -> InstanceId {
        self.workload(number).instance()
    }

    fn on(&self) -> Checked<Granted<ResourceId>> {
        granted(&self.workload(0))
    }

    async fn observe(&self) -> Checked<Observed> {
        Ok(self.provisioner.observe(&self.on()?).await?)
    }

    async fn apply(&self, change: WorkloadChange) -> Checked<Observed> {
        Ok(self.try_apply(change, FENCE).await??)
    }

    async fn try_apply(
        &self,
        change: WorkloadChange,
        token: u64,
    ) -> Checked<Result<Observed, ProvisionError>> {
        Ok(self.provisioner.apply(&self.on()?, &change, &fence(token)?).await)
    }

    async fn stage(&self, number: u32) -> Checked<Observed> {
        self.apply(WorkloadChange::Stage(self.workload(number))).await
    }

    async fn converge(&self, number: u32, goal: Goal) -> Checked<Observed> {
        let desired = Desired::new(self.workload(number), goal);
        Ok(self.provisioner.converge(&self.on()?, &desired, &fence(FENCE)?).await?)
    }

    async fn destroy(&self, captured: &Observed) -> Checked {
        Ok(self.provisioner.destroy(&self.on()?, captured, &fence(FENCE)?).await?)
    }

    async fn clear(&self) {
        let resources = self.provisioner.inventory().await.unwrap_or_default();
        for resource in resources {
            if let (Ok(on), Ok(fence)) = (granted_to(&resource), fence(u64::MAX)) {
                // What a broken provisioner can't remove stays; the case has said what is broken.
                self.provisioner.destroy(&on, &Observed::default(), &fence).await.ok();
            }
        }
    }
}

/// The token that cases use where the fence does not matter.
const FENCE: u64 = 10;

fn fence(token: u64) -> Checked<Fence> {
    let lease = Key::new("lease/testkit").map_err(|error| Seen::Broken(error.to_string()))?;
    Ok(Fence { lease, token })
}

fn granted(workload: &Workload) -> Checked<Granted<ResourceId>> {
    granted_to(&workload.resource().map_err(|error| Seen::Broken(error.to_string()))?)
}

fn granted_to(resource: &ResourceId) -> Checked<Granted<ResourceId>> {
    let broken = |error: &dyn fmt::Display| Seen::Broken(error.to_string());
    let app = AppName::new("testkit").map_err(|error| broken(&error))?;
    let pattern = Pattern::new(resource.as_str()).map_err(|error| broken(&error))?;
    let grant = Grant { app: app.clone(), resource: pattern, because: String::new() };
    let authority = Authority::new(app, &Grants { grants: vec![grant] });
    authority.grant(resource).map_err(|error| broken(&error))
}

fn check(holds: bool, seen: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Seen::Broken(seen())) }
}
