//! Named locks and semaphores of steps: taken together in one order, kept alive, given back.
//!
//! Each lock is a lease of the store, so it counts over all runs and processes, says who holds it and why, and is taken from nobody before
//! its time ran out. A semaphore with `n` permits is `n` such leases. All locks of a step are taken together or not at all, so no step
//! waits for one while it holds another, and no two can wait for each other.

use std::fmt;

use flowline_core::{
    SignedDuration, Timestamp,
    clock::Clock,
    error::{ErrorKind, Kinded, Retry},
    id::Key,
    lease::{Claim, Held, Lease, LeaseError, Leases},
    store::{Position, Store},
};
use futures_util::future::select;

use crate::{plan::Policy, step::StepError};

/// One lock: the leases of which one must be held.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Lock {
    name: String,
    slots: Vec<Key>,
}

/// In whose name locks are taken.
#[derive(Debug, Clone)]
pub(super) struct Taking {
    pub(super) holder: String,
    pub(super) reason: String,
    pub(super) ttl: SignedDuration,
}

/// A lock that somebody else holds.
#[derive(Debug)]
pub(super) struct Busy {
    lock: String,
    permits: usize,
    held: Held,
    /// What was in the store before it was tried.
    head: Position,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { holder, reason, since, .. } = &self.held;
        match self.permits {
            1 => write!(f, "lock `{}` is held by {holder} since {since} ({reason})", self.lock),
            n => write!(
                f,
                "all {n} permits of `{}` are held, one by {holder} since {since} ({reason})",
                self.lock
            ),
        }
    }
}

/// The locks that `policy` asks for, in the order of their names.
pub(super) fn wanted(policy: &Policy) -> Result<Vec<Lock>, StepError> {
    let locks = policy.locks.iter().map(|name| (name, 1, false));
    let semaphores = policy.semaphores.iter().map(|(name, permits)| (name, permits.get(), true));
    let mut wanted: Vec<_> = locks.chain(semaphores).collect();
    wanted.sort_unstable();
    wanted
        .into_iter()
        .map(|(name, permits, numbered)| {
            let slot = |number| {
                let key = if numbered {
                    format!("lease/lock/{name}/{number}")
                } else {
                    format!("lease/lock/{name}")
                };
                Key::new(key).map_err(|error| {
                    let problem = format!("`{}` cannot name a lock: {error}", name.escape_debug());
                    StepError::new(ErrorKind::Invalid, problem)
                })
            };
            if permits > Policy::MAX_PERMITS {
                let problem = format!("`{name}` has {permits} permits, more than {}", Policy::MAX_PERMITS);
                return Err(StepError::new(ErrorKind::Invalid, problem));
            }
            let slots = (1..=permits).map(slot).collect::<Result<_, _>>()?;
            Ok(Lock { name: name.clone(), slots })
        })
        .collect()
}

/// Takes all of `locks`, or none and says which is busy.
pub(super) async fn take(
    store: &dyn Store,
    leases: &dyn Leases,
    clock: &dyn Clock,
    locks: &[Lock],
    taking: &Taking,
) -> Result<Result<Vec<Lease>, Busy>, LeaseError> {
    loop {
        // Asked first, so that whatever is given back from here on is heard.
        let head = store.head().await?;
        let mut free = Vec::with_capacity(locks.len());
        // Looked at before any is taken: whoever waits writes nothing that wakes others who wait.
        for lock in locks {
            match free_slot(leases, lock, taking, clock.now()).await? {
                Ok(slot) => free.push(slot),
                Err(held) => {
                    let (lock, permits) = (lock.name.clone(), lock.slots.len());
                    return Ok(Err(Busy { lock, permits, held, head }));
                }
            }
        }
        let mut held = Vec::with_capacity(locks.len());
        for slot in &free {
            let claim = Claim::new((*slot).clone(), taking.holder.clone(), taking.ttl, taking.reason.clone());
            match leases.acquire(&claim).await {
                Ok(lease) => held.push(lease),
                // Somebody was faster; what they took is seen in the next round.
                Err(LeaseError::Held { .. }) => break,
                Err(error) => {
                    release(leases, held).await;
                    return Err(error);
                }
            }
        }
        if held.len() == free.len() {
            return Ok(Ok(held));
        }
        release(leases, held).await;
    }
}

/// The lease of `lock` to take: the one that a former self of this step holds, or a free one; otherwise the holder of the one that runs
/// out first.
async fn free_slot<'a>(
    leases: &dyn Leases,
    lock: &'a Lock,
    taking: &Taking,
    now: Timestamp,
) -> Result<Result<&'a Key, Held>, LeaseError> {
    let mut free = None;
    let mut first: Option<Held> = None;
    for slot in &lock.slots {
        match leases.holder(slot).await? {
            Some(held) if held.holder == taking.holder => return Ok(Ok(slot)),
            Some(held) if !held.expired(now) => {
                if first.as_ref().is_none_or(|first| held.expires < first.expires) {
                    first = Some(held);
                }
            }
            _ => free = free.or(Some(slot)),
        }
    }
    match (free, first) {
        (Some(slot), _) => Ok(Ok(slot)),
        (None, Some(held)) => Ok(Err(held)),
        // A semaphore has at least one permit.
        (None, None) => Err(LeaseError::Ttl { lease: lock.slots[0].clone(), ttl: taking.ttl }),
    }
}

/// Returns when trying again can help: something was written, or the holder's time ran out.
pub(super) async fn wait(store: &dyn Store, clock: &dyn Clock, busy: &Busy) {
    let changed = async {
        if store.changed(busy.head).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let expired = clock.sleep_until(busy.held.expires);
    select(std::pin::pin!(changed), expired).await;
}

/// Keeps `held` alive. Returns when one of them is lost.
pub(super) async fn keep(
    leases: &dyn Leases,
    mut held: Vec<Lease>,
    ttl: SignedDuration,
    clock: &dyn Clock,
) -> StepError {
    loop {
        clock.sleep(ttl / 3).await;
        for lease in &mut held {
            match leases.renew(lease, ttl).await {
                Ok(renewed) => *lease = renewed,
                Err(error) if error.retry() != Retry::Never && clock.now() < lease.expires() => {}
                Err(error) => {
                    return StepError::new(error.kind(), "the step lost a lock while it ran").because(error);
                }
            }
        }
    }
}

/// Gives locks back, the last one first.
pub(super) async fn release(leases: &dyn Leases, held: Vec<Lease>) {
    for lease in held.iter().rev() {
        // If it can't be given back, it was lost or runs out by itself.
        leases.release(lease).await.ok();
    }
}
