//! Provisioners with one flaw each: every case of the suite must be broken by at least one of them.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use async_trait::async_trait;
use flowline_core::{
    clock::ManualClock,
    digest::Digest,
    grant::Granted,
    id::{Key, ResourceId},
    store::Fence,
};

use super::{Bench, cases::CASES, granted_to, suite};
use crate::provision::{
    Because, Desired, Goal, InstanceState, Observed, PlannedChange, ProcessSpec, ProvisionCapabilities,
    ProvisionError, Provisioner, Workload, WorkloadChange, diff, memory::MemoryProvisioner,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    Haunted,
    NeverReady,
    NeverSettled,
    Restarts,
    Doubles,
    RestartsActive,
    ActivatesOnStage,
    KeepsCandidates,
    DiscardNeedsIt,
    SwallowsBroken,
    ActivatesBroken,
    ActivatesAnything,
    DropsFormer,
    ActivatesAnew,
    ForgetsRetired,
    RetireNeedsIt,
    RetiresActive,
    NeverGoesBack,
    KeepsAll,
    NoFence,
    ForgetsFence,
    DestroysLate,
    AnyHandle,
    ForeignHandle,
    NoInventory,
    OneForAll,
    LeavesSome,
    DestroysOnce,
    OnlyCaptured,
    NeverAgain,
}

const ALL: &[Flaw] = &[
    Flaw::Haunted,
    Flaw::NeverReady,
    Flaw::NeverSettled,
    Flaw::Restarts,
    Flaw::Doubles,
    Flaw::RestartsActive,
    Flaw::ActivatesOnStage,
    Flaw::KeepsCandidates,
    Flaw::DiscardNeedsIt,
    Flaw::SwallowsBroken,
    Flaw::ActivatesBroken,
    Flaw::ActivatesAnything,
    Flaw::DropsFormer,
    Flaw::ActivatesAnew,
    Flaw::ForgetsRetired,
    Flaw::RetireNeedsIt,
    Flaw::RetiresActive,
    Flaw::NeverGoesBack,
    Flaw::KeepsAll,
    Flaw::NoFence,
    Flaw::ForgetsFence,
    Flaw::DestroysLate,
    Flaw::AnyHandle,
    Flaw::ForeignHandle,
    Flaw::NoInventory,
    Flaw::OneForAll,
    Flaw::LeavesSome,
    Flaw::DestroysOnce,
    Flaw::OnlyCaptured,
    Flaw::NeverAgain,
];

#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    inner: MemoryProvisioner,
    broken: Digest,
    destroyed: AtomicU64,
    gone: Mutex<BTreeSet<ResourceId>>,
}

impl Flawed {
    fn fence(&self, fence: &Fence) -> Fence {
        let destroyed = self.destroyed.load(std::sync::atomic::Ordering::Relaxed);
        match self.flaw {
            Flaw::NoFence => Fence { token: 1, ..fence.clone() },
            Flaw::ForgetsFence => {
                Fence { lease: Key::new(format!("{}/{destroyed}", fence.lease)).unwrap(), ..fence.clone() }
            }
            _ => fence.clone(),
        }
    }

    fn on(&self, on: &Granted<ResourceId>) -> Granted<ResourceId> {
        let one = self.flaw == Flaw::OneForAll && on.resource().kind() != "host";
        if one { granted_to(&workload(0).resource().unwrap()).ok().unwrap() } else { on.clone() }
    }

    fn change(&self, on: &Granted<ResourceId>, change: &WorkloadChange) -> WorkloadChange {
        match change {
            WorkloadChange::Stage(staged) if self.flaw == Flaw::OneForAll || self.flaw == Flaw::AnyHandle => {
                let (environment, component) = crate::provision::place_of(on.resource()).unwrap();
                WorkloadChange::Stage(Workload { environment, component, ..staged.clone() })
            }
            _ => change.clone(),
        }
    }

    /// Spoils what the change did; `before` is what was there.
    fn spoil(&self, on: &ResourceId, change: &WorkloadChange, before: &Observed) {
        let id = change.instance();
        self.inner.edit(on, |now| match (self.flaw, change) {
            (Flaw::NeverReady, WorkloadChange::Stage(_)) => {
                now.instances.iter_mut().for_each(|instance| instance.state = InstanceState::Starting);
            }
            (Flaw::Restarts, WorkloadChange::Stage(_)) if before.instance(id).is_some() => {
                now.instances.iter_mut().for_each(|instance| instance.number += 1);
            }
            (Flaw::RestartsActive, WorkloadChange::Stage(_)) => {
                let active = now.active;
                now.instances
                    .iter_mut()
                    .filter(|instance| Some(instance.id) == active)
                    .filter_map(|instance| instance.process.as_mut())
                    .for_each(|process| process.pid += 1);
            }
            (Flaw::ActivatesOnStage, WorkloadChange::Stage(_)) => now.active = Some(id),
            (Flaw::KeepsCandidates, WorkloadChange::Discard(_)) => *now = before.clone(),
            (Flaw::DropsFormer, WorkloadChange::Activate(_)) => {
                now.instances.retain(|instance| instance.id == id);
            }
            (Flaw::ActivatesAnew, WorkloadChange::Activate(_)) => {
                now.instances.iter_mut().for_each(|instance| instance.number += 1);
            }
            (Flaw::ForgetsRetired, WorkloadChange::Retire(_)) => {
                now.instances.retain(|instance| instance.id != id);
            }
            (Flaw::NeverGoesBack, WorkloadChange::Stage(_)) => {
                let stopped = |old: &&crate::provision::Instance| old.state == InstanceState::Stopped;
                if let Some(old) = before.instance(id).filter(stopped) {
                    now.instances.iter_mut().filter(|new| new.id == id).for_each(|new| *new = old.clone());
                }
            }
            _ => {}
        });
    }
}

#[async_trait]
impl Provisioner for Flawed {
    fn capabilities(&self) -> ProvisionCapabilities {
        let kept = if self.flaw == Flaw::KeepsAll { 2 } else { self.inner.capabilities().kept };
        ProvisionCapabilities { kept, ..self.inner.capabilities() }
    }

    async fn inventory(&self) -> Result<Vec<ResourceId>, ProvisionError> {
        if self.flaw == Flaw::NoInventory { Ok(Vec::new()) } else { self.inner.inventory().await }
    }

    async fn observe(&self, on: &Granted<ResourceId>) -> Result<Observed, ProvisionError> {
        if self.flaw == Flaw::ForeignHandle && on.resource().kind() == "host" {
            return Ok(Observed::default());
        }
        let mut observed = self.inner.observe(&self.on(on)).await?;
        if self.flaw == Flaw::Haunted {
            observed.active = observed.active.or(Some(workload(0).instance()));
        }
        Ok(observed)
    }

    fn diff(&self, desired: &Desired, observed: &Observed) -> Vec<PlannedChange> {
        let mut plan = diff(desired, observed);
        if self.flaw == Flaw::NeverSettled {
            let change = WorkloadChange::Retire(workload(99).instance());
            plan.push(PlannedChange { change, because: Because::NotWanted });
        }
        plan
    }

    async fn apply(
        &self,
        on: &Granted<ResourceId>,
        change: &WorkloadChange,
        fence: &Fence,
    ) -> Result<Observed, ProvisionError> {
        let (on, fence) = (self.on(on), self.fence(fence));
        let change = self.change(&on, change);
        let id = change.instance();
        let before = self.inner.observe(&on).await?;
        let no_instance = || ProvisionError::NoInstance { resource: on.resource().clone(), instance: id };
        match (self.flaw, &change) {
            (Flaw::Doubles, WorkloadChange::Stage(_)) if before.is_empty() => {
                tokio::task::yield_now().await;
                let was = self.inner.observe(&on).await?;
                let now = self.inner.apply(&on, &change, &fence).await?;
                if !was.is_empty() {
                    self.inner.edit(on.resource(), |all| all.instances.extend(now.instances));
                }
                return self.inner.observe(&on).await;
            }
            (Flaw::DiscardNeedsIt, WorkloadChange::Discard(_))
            | (Flaw::RetireNeedsIt, WorkloadChange::Retire(_))
                if before.instance(id).is_none() =>
            {
                return Err(no_instance());
            }
            (Flaw::ActivatesAnything, WorkloadChange::Activate(_)) if before.instance(id).is_none() => {
                return Ok(before);
            }
            (Flaw::SwallowsBroken, WorkloadChange::Stage(staged)) if staged.artifact == self.broken => {
                return Ok(before);
            }
            (Flaw::ActivatesBroken, WorkloadChange::Activate(_)) if before.instance(id).is_some() => {
                self.inner.edit(on.resource(), |now| now.active = Some(id));
                return self.inner.observe(&on).await;
            }
            (Flaw::RetiresActive, WorkloadChange::Retire(_)) => {
                self.inner.edit(on.resource(), |now| {
                    now.instances.iter_mut().for_each(|instance| instance.state = InstanceState::Stopped);
                });
                return self.inner.observe(&on).await;
            }
            (Flaw::NeverAgain, WorkloadChange::Stage(_))
                if self.gone.lock().unwrap().contains(on.resource()) =>
            {
                return Err(no_instance());
            }
            _ => {}
        }
        self.inner.apply(&on, &change, &fence).await?;
        self.spoil(on.resource(), &change, &before);
        self.inner.observe(&on).await
    }

    async fn destroy(
        &self,
        on: &Granted<ResourceId>,
        captured: &Observed,
        fence: &Fence,
    ) -> Result<(), ProvisionError> {
        let (on, fence) = (self.on(on), self.fence(fence));
        self.gone.lock().unwrap().insert(on.resource().clone());
        self.destroyed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let before = self.inner.observe(&on).await?;
        match self.flaw {
            Flaw::DestroysLate => {
                let other = Fence { lease: Key::new("lease/other").unwrap(), token: 1 };
                self.inner.destroy(&on, captured, &other).await
            }
            Flaw::LeavesSome if before.instances.len() > 2 => {
                self.inner.edit(on.resource(), |now| now.instances.truncate(1));
                Ok(())
            }
            Flaw::DestroysOnce if before.is_empty() => Err(ProvisionError::NoInstance {
                resource: on.resource().clone(),
                instance: workload(0).instance(),
            }),
            Flaw::OnlyCaptured => {
                self.inner.edit(on.resource(), |now| {
                    now.instances.retain(|instance| captured.instance(instance.id).is_none());
                    now.active = now.active.filter(|active| captured.instance(*active).is_none());
                });
                Ok(())
            }
            _ => self.inner.destroy(&on, captured, &fence).await,
        }
    }
}

fn workload(number: u32) -> Workload {
    let spec = ProcessSpec::new(["{release}/api"]).unwrap();
    Workload::process(
        "production".parse().unwrap(),
        "api".parse().unwrap(),
        Digest::of(number.to_be_bytes()),
        spec,
    )
}

fn bench(flaw: Flaw) -> Bench {
    let broken = workload(1_000);
    let inner = MemoryProvisioner::new(Arc::new(ManualClock::default()));
    inner.breaks(broken.artifact);
    let flawed = Flawed {
        flaw,
        inner,
        broken: broken.artifact,
        destroyed: AtomicU64::default(),
        gone: Mutex::default(),
    };
    Bench::new(Arc::new(flawed), workload).with_broken(broken)
}

#[tokio::test]
async fn the_suite_holds_for_a_provisioner_without_a_flaw() -> Result<(), crate::testkit::Broken> {
    suite(async || Ok(bench(Flaw::None))).await.verdict()
}

#[tokio::test]
async fn the_suite_catches_every_flaw_and_every_case_can_fail() {
    let mut seen = BTreeSet::new();
    for flaw in ALL {
        let report = suite(async || Ok(bench(*flaw))).await;
        assert!(report.broken().next().is_some(), "{flaw:?} passes: {report}");
        seen.extend(report.broken());
    }
    let never: Vec<_> =
        CASES.iter().map(|(sentence, _)| *sentence).filter(|case| !seen.contains(case)).collect();
    assert!(never.is_empty(), "no flaw breaks {never:#?}");
}

#[tokio::test]
async fn a_report_says_which_sentence_and_what_was_seen() {
    let report = suite(async || Ok(bench(Flaw::ActivatesOnStage))).await;
    let text = report.to_string();
    let line =
        text.lines().skip_while(|line| !line.contains("BROKEN")).take(2).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(line, @r"
    BROKEN   after Stage the instance is ready and nothing is active
             something is active
    ");
    assert!(report.verdict().is_err());
}

#[test]
fn goals_are_ordered_as_they_include_each_other() {
    assert!(Goal::Staged < Goal::Active && Goal::Active < Goal::Alone);
}
