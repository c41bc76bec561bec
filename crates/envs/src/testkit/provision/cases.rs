//! The cases, one for each sentence of the contract.

use std::pin::Pin;

use flowline_core::error::{ErrorKind, Kinded as _};

use super::{Bench, Checked, FENCE, Seen, check, fence, granted};
use crate::provision::{
    Desired, Goal, Instance, InstanceId, InstanceState, Observed, ProvisionError, WorkloadChange,
    WorkloadKind,
};

type Case = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = Checked> + 'a>>;

macro_rules! cases {
    ($($sentence:literal: $case:ident,)*) => {
        pub(super) const CASES: &[(&str, Case)] = &[$(($sentence, |bench| Box::pin($case(bench))),)*];
    };
}

cases! {
    "what was never there is observed as empty": nothing_is_empty,
    "after Stage the instance is ready and nothing is active": stage_prepares,
    "after converging, diff asks for nothing": converged_is_settled,
    "Stage applied again starts nothing and changes nothing": stage_again,
    "two Stages at once end in one instance": stage_at_once,
    "Stage leaves the active instance as it was": stage_leaves_active,
    "Discard removes the candidate and leaves the active instance as it was": discard_leaves_active,
    "Discard of what is not there succeeds": discard_again,
    "a candidate that never becomes ready is an error and leaves the active instance as it was": broken_is_refused,
    "an instance that is not ready is not activated": broken_is_not_activated,
    "an instance that is not there is not activated": absent_is_not_activated,
    "Activate moves to the candidate and keeps the former one standing": activate_keeps_former,
    "Activate applied again changes nothing": activate_again,
    "Retire stops the former one and keeps it for going back": retire_keeps,
    "Retire applied again changes nothing": retire_again,
    "the active instance is neither retired nor discarded": active_is_protected,
    "going back makes the former instance active again": going_back,
    "retired instances beyond the number that is kept are gone, the active one never": retention,
    "a change with a lower token than one seen before is refused and changes nothing": late_fence,
    "a lower token is refused after Destroy too": late_fence_after_destroy,
    "a destroy with a lower token is refused and removes nothing": late_destroy,
    "a change for another resource than the handle's is refused and changes nothing": other_handle,
    "a handle to no workload is refused": foreign_handle,
    "inventory lists what is there and nothing else": inventory,
    "two components of one environment do not touch each other": neighbours,
    "after Destroy nothing is there": destroy_leaves_nothing,
    "Destroy may be repeated": destroy_again,
    "Destroy removes what the capture does not list": destroy_uncaptured,
    "after Destroy the same workload can stand again": again_after_destroy,
}

async fn nothing_is_empty(bench: &Bench) -> Checked {
    let observed = bench.observe().await?;
    check(observed == Observed::default(), || format!("observed {observed:?}"))
}

async fn stage_prepares(bench: &Bench) -> Checked {
    let answered = bench.stage(0).await?;
    let observed = bench.observe().await?;
    let instance = instance(&observed, bench.id(0))?;
    check(instance.is_ready(), || format!("it is {:?}", instance.state))?;
    check(instance.artifact == bench.workload(0).artifact, || "it has another artifact".to_owned())?;
    check(instance.activated.is_none(), || "it says that it was active".to_owned())?;
    let has_process = matches!(bench.workload(0).kind, WorkloadKind::Process(_));
    check(instance.process.is_some() == has_process, || format!("its process is {:?}", instance.process))?;
    check(observed.active.is_none(), || "something is active".to_owned())?;
    check(answered == observed, || format!("apply answered {answered:?}, observe {observed:?}"))
}

async fn converged_is_settled(bench: &Bench) -> Checked {
    bench.stage(1).await?;
    for goal in [Goal::Staged, Goal::Active, Goal::Alone] {
        bench.converge(0, goal).await?;
        let observed = bench.observe().await?;
        let left = bench.provisioner.diff(&Desired::new(bench.workload(0), goal), &observed);
        check(left.is_empty(), || format!("for {goal:?} there is left: {left:?}"))?;
    }
    let observed = bench.observe().await?;
    check(observed.active == Some(bench.id(0)), || format!("active is {:?}", observed.active))?;
    check(observed.instances.len() == 1, || format!("there stand {:?}", observed.instances))
}

async fn stage_again(bench: &Bench) -> Checked {
    let first = bench.stage(0).await?;
    let second = bench.stage(0).await?;
    check(first == second, || format!("first {first:?}, then {second:?}"))
}

async fn stage_at_once(bench: &Bench) -> Checked {
    let (one, other) = both(bench.stage(0), bench.stage(0)).await;
    let (one, other) = (one?, other?);
    check(one.instances.len() == 1, || format!("there are {:?}", one.instances))?;
    check(one == other, || format!("one saw {one:?}, the other {other:?}"))
}

async fn stage_leaves_active(bench: &Bench) -> Checked {
    let before = bench.converge(0, Goal::Alone).await?;
    bench.stage(1).await?;
    untouched(bench, &before).await
}

async fn discard_leaves_active(bench: &Bench) -> Checked {
    let before = bench.converge(0, Goal::Alone).await?;
    bench.stage(1).await?;
    bench.apply(WorkloadChange::Discard(bench.id(1))).await?;
    untouched(bench, &before).await?;
    let observed = bench.observe().await?;
    check(observed.instance(bench.id(1)).is_none(), || "the candidate is still there".to_owned())
}

async fn discard_again(bench: &Bench) -> Checked {
    bench.apply(WorkloadChange::Discard(bench.id(0))).await?;
    bench.stage(0).await?;
    bench.apply(WorkloadChange::Discard(bench.id(0))).await?;
    let observed = bench.apply(WorkloadChange::Discard(bench.id(0))).await?;
    check(observed.is_empty(), || format!("observed {observed:?}"))
}

async fn broken_is_refused(bench: &Bench) -> Checked {
    let broken = bench.broken.clone().ok_or(Seen::Skipped("a broken workload"))?;
    let id = broken.instance();
    let before = bench.converge(0, Goal::Alone).await?;
    let staged = bench.try_apply(WorkloadChange::Stage(broken), FENCE).await?;
    refused(staged, &[ErrorKind::Failed, ErrorKind::TimedOut])?;
    untouched(bench, &before).await?;
    let observed = bench.observe().await?;
    let ready = observed.instance(id).is_some_and(Instance::is_ready);
    check(!ready, || "it is shown as ready".to_owned())?;
    let runs = observed.instance(id).is_some_and(|instance| instance.process.is_some());
    check(!runs, || "its process still runs".to_owned())
}

async fn broken_is_not_activated(bench: &Bench) -> Checked {
    let broken = bench.broken.clone().ok_or(Seen::Skipped("a broken workload"))?;
    let id = broken.instance();
    let before = bench.converge(0, Goal::Alone).await?;
    bench.try_apply(WorkloadChange::Stage(broken), FENCE).await?.err();
    let activated = bench.try_apply(WorkloadChange::Activate(id), FENCE).await?;
    refused(activated, &[ErrorKind::Conflict, ErrorKind::NotFound])?;
    untouched(bench, &before).await
}

async fn absent_is_not_activated(bench: &Bench) -> Checked {
    let activate = || bench.try_apply(WorkloadChange::Activate(bench.id(1)), FENCE);
    refused(activate().await?, &[ErrorKind::NotFound])?;
    let before = bench.converge(0, Goal::Alone).await?;
    refused(activate().await?, &[ErrorKind::NotFound])?;
    untouched(bench, &before).await
}

async fn activate_keeps_former(bench: &Bench) -> Checked {
    bench.converge(0, Goal::Alone).await?;
    let observed = bench.converge(1, Goal::Active).await?;
    check(observed.active == Some(bench.id(1)), || format!("active is {:?}", observed.active))?;
    let now = instance(&observed, bench.id(1))?;
    check(now.activated.is_some(), || "it does not say when it became active".to_owned())?;
    let former = instance(&observed, bench.id(0))?;
    check(former.is_ready(), || format!("the former one is {:?}", former.state))?;
    let previous = observed.previous().map(|instance| instance.id);
    check(previous == Some(bench.id(0)), || format!("the previous one is {previous:?}"))
}

async fn activate_again(bench: &Bench) -> Checked {
    let first = bench.converge(0, Goal::Active).await?;
    let second = bench.apply(WorkloadChange::Activate(bench.id(0))).await?;
    check(first == second, || format!("first {first:?}, then {second:?}"))
}

async fn retire_keeps(bench: &Bench) -> Checked {
    if bench.provisioner.capabilities().kept == 0 {
        return Err(Seen::Skipped("at least one kept instance"));
    }
    bench.converge(0, Goal::Alone).await?;
    let observed = bench.converge(1, Goal::Alone).await?;
    let former = instance(&observed, bench.id(0))?;
    check(former.state == InstanceState::Stopped, || format!("the former one is {:?}", former.state))?;
    check(former.process.is_none(), || "its process still runs".to_owned())
}

async fn retire_again(bench: &Bench) -> Checked {
    bench.converge(0, Goal::Alone).await?;
    let first = bench.converge(1, Goal::Alone).await?;
    let second = bench.apply(WorkloadChange::Retire(bench.id(0))).await?;
    check(first == second, || format!("first {first:?}, then {second:?}"))?;
    let third = bench.apply(WorkloadChange::Retire(bench.id(7))).await?;
    check(first == third, || format!("retiring what is not there changed {first:?} to {third:?}"))
}

async fn active_is_protected(bench: &Bench) -> Checked {
    let before = bench.converge(0, Goal::Alone).await?;
    for change in [WorkloadChange::Retire(bench.id(0)), WorkloadChange::Discard(bench.id(0))] {
        refused(bench.try_apply(change, FENCE).await?, &[ErrorKind::Conflict])?;
        untouched(bench, &before).await?;
    }
    Ok(())
}

async fn going_back(bench: &Bench) -> Checked {
    if bench.provisioner.capabilities().kept == 0 {
        return Err(Seen::Skipped("at least one kept instance"));
    }
    let first = bench.converge(0, Goal::Alone).await?;
    let number = instance(&first, bench.id(0))?.number;
    bench.converge(1, Goal::Alone).await?;
    let observed = bench.observe().await?;
    let previous = observed
        .previous()
        .ok_or_else(|| Seen::Broken(format!("there is no previous among {observed:?}")))?;
    let workload = previous.workload(bench.on()?.resource())?;
    check(workload == bench.workload(0), || format!("the previous one is {workload:?}"))?;
    let back = bench.converge(0, Goal::Alone).await?;
    check(back.active == Some(bench.id(0)), || format!("active is {:?}", back.active))?;
    let instance = instance(&back, bench.id(0))?;
    check(instance.is_ready(), || format!("it is {:?}", instance.state))?;
    check(instance.number == number, || "it was set up anew although it was kept".to_owned())
}

async fn retention(bench: &Bench) -> Checked {
    let kept = bench.provisioner.capabilities().kept;
    let Some(count) = u32::try_from(kept).ok().filter(|kept| *kept <= 8).map(|kept| kept + 3) else {
        return Err(Seen::Skipped("at most 8 kept instances"));
    };
    for number in 0..count {
        bench.converge(number, Goal::Alone).await?;
    }
    let observed = bench.observe().await?;
    let stopped: Vec<u64> = observed
        .instances
        .iter()
        .filter(|instance| instance.state == InstanceState::Stopped)
        .map(|instance| instance.number)
        .collect();
    check(stopped.len() == kept, || format!("{} are kept instead of {kept}", stopped.len()))?;
    let active = observed.active().map(|instance| instance.number);
    let newest = stopped.iter().all(|number| active.is_some_and(|active| *number + kept as u64 >= active));
    check(newest, || format!("kept are {stopped:?} beside {active:?}, not the latest"))
}

async fn late_fence(bench: &Bench) -> Checked {
    let before = bench.converge(0, Goal::Alone).await?;
    for change in [
        WorkloadChange::Stage(bench.workload(1)),
        WorkloadChange::Activate(bench.id(0)),
        WorkloadChange::Discard(bench.id(1)),
    ] {
        refused(bench.try_apply(change, FENCE - 1).await?, &[ErrorKind::Denied])?;
    }
    let observed = bench.observe().await?;
    check(observed == before, || format!("before {before:?}, after {observed:?}"))
}

async fn late_fence_after_destroy(bench: &Bench) -> Checked {
    let captured = bench.converge(0, Goal::Alone).await?;
    bench.destroy(&captured).await?;
    refused(
        bench.try_apply(WorkloadChange::Stage(bench.workload(0)), FENCE - 1).await?,
        &[ErrorKind::Denied],
    )?;
    let observed = bench.observe().await?;
    check(observed.is_empty(), || format!("observed {observed:?}"))
}

async fn late_destroy(bench: &Bench) -> Checked {
    let before = bench.converge(0, Goal::Alone).await?;
    let destroyed = bench.provisioner.destroy(&bench.on()?, &before, &fence(FENCE - 1)?).await;
    refused(destroyed, &[ErrorKind::Denied])?;
    untouched(bench, &before).await
}

async fn other_handle(bench: &Bench) -> Checked {
    let mut other = bench.workload(0);
    other.component = "other".parse().map_err(|_| Seen::Skipped("another name"))?;
    let change = WorkloadChange::Stage(bench.workload(0));
    let on_other = granted(&other)?;
    refused(bench.provisioner.apply(&on_other, &change, &fence(FENCE)?).await, &[ErrorKind::Denied])?;
    let observed = (bench.observe().await?, bench.provisioner.observe(&on_other).await?);
    check(observed.0.is_empty() && observed.1.is_empty(), || format!("observed {observed:?}"))
}

async fn foreign_handle(bench: &Bench) -> Checked {
    let host = "host:awesome.com".parse().map_err(|_| Seen::Skipped("a resource"))?;
    let on = super::granted_to(&host)?;
    refused(bench.provisioner.observe(&on).await, &[ErrorKind::Invalid])?;
    let change = WorkloadChange::Discard(bench.id(0));
    refused(bench.provisioner.apply(&on, &change, &fence(FENCE)?).await, &[ErrorKind::Invalid])?;
    refused(bench.provisioner.destroy(&on, &Observed::default(), &fence(FENCE)?).await, &[ErrorKind::Invalid])
}

async fn inventory(bench: &Bench) -> Checked {
    let list = async || Ok::<_, Seen>(bench.provisioner.inventory().await?);
    let before = list().await?;
    check(before.is_empty(), || format!("at first it lists {before:?}"))?;
    let captured = bench.stage(0).await?;
    let during = list().await?;
    check(during == [bench.on()?.resource().clone()], || format!("after Stage it lists {during:?}"))?;
    bench.destroy(&captured).await?;
    let after = list().await?;
    check(after.is_empty(), || format!("after Destroy it lists {after:?}"))
}

async fn neighbours(bench: &Bench) -> Checked {
    let mut other = bench.workload(0);
    other.component = "neighbour".parse().map_err(|_| Seen::Skipped("another name"))?;
    let on_other = granted(&other)?;
    let before = bench.converge(0, Goal::Alone).await?;
    bench.provisioner.apply(&on_other, &WorkloadChange::Stage(other.clone()), &fence(FENCE)?).await?;
    untouched(bench, &before).await?;
    bench.destroy(&before).await?;
    let left = bench.provisioner.observe(&on_other).await?;
    let ready = left.instance(other.instance()).is_some_and(Instance::is_ready);
    check(ready, || format!("of the neighbour there is left {left:?}"))
}

async fn destroy_leaves_nothing(bench: &Bench) -> Checked {
    bench.converge(0, Goal::Alone).await?;
    bench.converge(1, Goal::Active).await?;
    let captured = bench.stage(2).await?;
    bench.destroy(&captured).await?;
    nothing_is_empty(bench).await
}

async fn destroy_again(bench: &Bench) -> Checked {
    bench.destroy(&Observed::default()).await?;
    let captured = bench.converge(0, Goal::Alone).await?;
    bench.destroy(&captured).await?;
    bench.destroy(&captured).await?;
    nothing_is_empty(bench).await
}

async fn destroy_uncaptured(bench: &Bench) -> Checked {
    let captured = bench.converge(0, Goal::Alone).await?;
    bench.stage(1).await?;
    bench.destroy(&captured).await?;
    nothing_is_empty(bench).await
}

async fn again_after_destroy(bench: &Bench) -> Checked {
    let captured = bench.converge(0, Goal::Alone).await?;
    bench.destroy(&captured).await?;
    let observed = bench.converge(0, Goal::Alone).await?;
    check(observed.active == Some(bench.id(0)), || format!("observed {observed:?}"))
}

/// The active instance is the same as in `before`, down to its process.
async fn untouched(bench: &Bench, before: &Observed) -> Checked {
    let now = bench.observe().await?;
    check(now.active == before.active, || format!("active was {:?} and is {:?}", before.active, now.active))?;
    check(now.active() == before.active(), || {
        format!("the active one was {:?} and is {:?}", before.active(), now.active())
    })
}

fn instance(observed: &Observed, id: InstanceId) -> Checked<&Instance> {
    observed.instance(id).ok_or_else(|| Seen::Broken(format!("instance {id} is not among {observed:?}")))
}

fn refused<T: std::fmt::Debug>(result: Result<T, ProvisionError>, kinds: &[ErrorKind]) -> Checked {
    match result {
        Ok(done) => Err(Seen::Broken(format!("it was done: {done:?}"))),
        Err(error) if kinds.contains(&error.kind()) => Ok(()),
        Err(error) => Err(Seen::Broken(format!("the error is of kind `{}`: {error}", error.kind()))),
    }
}

/// Drives two futures at once.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (std::pin::pin!(one), std::pin::pin!(other));
    let (mut first, mut second) = (None, None);
    std::future::poll_fn(move |context| {
        if first.is_none()
            && let std::task::Poll::Ready(value) = one.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let std::task::Poll::Ready(value) = other.as_mut().poll(context)
        {
            second = Some(value);
        }
        match (first.take(), second.take()) {
            (Some(one), Some(other)) => std::task::Poll::Ready((one, other)),
            (one, other) => {
                (first, second) = (one, other);
                std::task::Poll::Pending
            }
        }
    })
    .await
}
