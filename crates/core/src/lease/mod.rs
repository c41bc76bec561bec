//! Exclusion over processes: who may act alone, until when, and how a late actor is stopped.
//!
//! A lease is a document that names its holder, the reason, an expiry and a *fencing token*. Whoever acts under a lease puts its
//! [`Fence`] into every [`Batch`](crate::store::Batch); a holder that slept through its expiry while somebody else took over is refused there, whatever it
//! believes (Kleppmann, "How to do distributed locking", 2016). [`decide_acquire`], [`decide_renew`] and [`decide_release`] are the rules;
//! [`StoreLeases`] applies them to any [`Store`](crate::store::Store).

mod store;

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use self::store::StoreLeases;
use crate::{
    error::{ErrorKind, Kinded, Retry},
    id::Key,
    store::{Fence, StoreError},
};

/// A wish to act alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The lease's document, such as `lease/deploy/production`.
    pub lease: Key,
    /// Who wants it: one actor, such as `run/deploy-7` or `serve/host-1`. Whoever claims under the name of the present holder says that
    /// its former self is gone, and takes over at once.
    pub holder: String,
    /// For how long, from now; must be positive.
    pub ttl: SignedDuration,
    /// What for; others read it while they wait.
    pub reason: String,
}

impl Claim {
    /// A claim on `lease`.
    pub fn new(
        lease: Key,
        holder: impl Into<String>,
        ttl: SignedDuration,
        reason: impl Into<String>,
    ) -> Self {
        Self { lease, holder: holder.into(), ttl, reason: reason.into() }
    }
}

/// A lease that was given. Proof of nothing by itself: what counts is that its [`fence`](Self::fence) passes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a lease that nobody keeps cannot be released before it expires"]
pub struct Lease {
    key: Key,
    token: u64,
    holder: String,
    expires: Timestamp,
}

impl Lease {
    /// For implementers of [`Leases`]: the lease that was just recorded.
    pub fn new(key: Key, token: u64, holder: impl Into<String>, expires: Timestamp) -> Self {
        Self { key, token, holder: holder.into(), expires }
    }

    /// The lease's document.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its fencing token: greater than every token that this lease ever had.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Who holds it.
    pub fn holder(&self) -> &str {
        &self.holder
    }

    /// From when on somebody else may take it.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The demand that it is still held, for every batch that is written under it.
    pub fn fence(&self) -> Fence {
        Fence { lease: self.key.clone(), token: self.token }
    }
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Who.
    pub holder: String,
    /// What for.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// From when on somebody else may take it.
    pub expires: Timestamp,
}

impl Held {
    /// Whether somebody else may take it at `now`.
    pub fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires
    }
}

/// A lease's document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The last token that was given out, or one more after a release, so that the released one does not pass a fence.
    pub token: u64,
    /// Who holds it; nobody after a release.
    pub held: Option<Held>,
}

/// Named leases, each held by at most one at a time.
///
/// *Shape*: many tasks and (by the store's capability) processes; short calls.
///
/// *Guarantees*
/// 1. A lease is given only if nobody holds it, its holder let it expire, or the claimant is its holder (whose former self is then fenced off).
/// 2. Each lease that is given carries a token greater than all before it, also after a release.
/// 3. Once a lease was taken over, renewing and releasing it by its former holder are refused, and its fence does not pass any more.
/// 4. An expired lease that nobody took may still be renewed.
/// 5. Releasing twice is fine; only the holder can release.
/// 6. Acquire, renew and release are durable (`Synced`) when they return, each as one commit.
///
/// *Assumption*: clocks of the participants agree within a small part of the time to live. A wrong clock can take a lease early; the
/// fence keeps even then two holders from both writing.
///
/// *Errors by kind*: `Busy` while somebody else holds it, `Denied` once it was lost, `Invalid` for a time to live that is not positive,
/// and those of the store. The suite is `testkit::lease`.
#[async_trait]
pub trait Leases: Debug + Send + Sync {
    /// Takes the lease that `claim` names.
    async fn acquire(&self, claim: &Claim) -> Result<Lease, LeaseError>;

    /// Prolongs `lease` to `ttl` from now, never shortens it.
    async fn renew(&self, lease: &Lease, ttl: SignedDuration) -> Result<Lease, LeaseError>;

    /// Gives `lease` back.
    async fn release(&self, lease: &Lease) -> Result<(), LeaseError>;

    /// Who holds it, or held it last and let it expire; `None` if it is free.
    async fn holder(&self, lease: &Key) -> Result<Option<Held>, LeaseError>;
}

/// What becomes of a claim at `now`: the record to write, or who is in the way.
///
/// # Errors
/// [`LeaseError::Held`], [`LeaseError::Ttl`].
pub fn decide_acquire(
    record: Option<&LeaseRecord>,
    claim: &Claim,
    now: Timestamp,
) -> Result<LeaseRecord, LeaseError> {
    if let Some(held) = record.and_then(|record| record.held.as_ref())
        && !held.expired(now)
        && held.holder != claim.holder
    {
        return Err(LeaseError::Held { lease: claim.lease.clone(), held: held.clone() });
    }
    let held = Held {
        holder: claim.holder.clone(),
        reason: claim.reason.clone(),
        since: now,
        expires: expiry(&claim.lease, now, claim.ttl)?,
    };
    let token = record.map_or(0, |record| record.token).saturating_add(1);
    Ok(LeaseRecord { token, held: Some(held) })
}

/// What becomes of a wish to prolong `lease` at `now`.
///
/// # Errors
/// [`LeaseError::Lost`], [`LeaseError::Ttl`].
pub fn decide_renew(
    record: Option<&LeaseRecord>,
    lease: &Lease,
    ttl: SignedDuration,
    now: Timestamp,
) -> Result<LeaseRecord, LeaseError> {
    let expires = expiry(&lease.key, now, ttl)?;
    match record {
        Some(LeaseRecord { token, held: Some(held) }) if *token == lease.token => {
            let held = Held { expires: held.expires.max(expires), ..held.clone() };
            Ok(LeaseRecord { token: *token, held: Some(held) })
        }
        other => Err(lost(lease, other)),
    }
}

/// What becomes of a wish to give `lease` back: the record to write, or nothing if it was given back before.
///
/// # Errors
/// [`LeaseError::Lost`].
pub fn decide_release(
    record: Option<&LeaseRecord>,
    lease: &Lease,
) -> Result<Option<LeaseRecord>, LeaseError> {
    match record {
        Some(LeaseRecord { token, held: Some(_) }) if *token == lease.token => {
            Ok(Some(LeaseRecord { token: token.saturating_add(1), held: None }))
        }
        // Only a release of just this token leaves this.
        Some(LeaseRecord { token, held: None }) if *token == lease.token.saturating_add(1) => Ok(None),
        other => Err(lost(lease, other)),
    }
}

fn expiry(lease: &Key, now: Timestamp, ttl: SignedDuration) -> Result<Timestamp, LeaseError> {
    if ttl <= SignedDuration::ZERO {
        return Err(LeaseError::Ttl { lease: lease.clone(), ttl });
    }
    Ok(now.checked_add(ttl).unwrap_or(Timestamp::MAX))
}

fn lost(lease: &Lease, record: Option<&LeaseRecord>) -> LeaseError {
    LeaseError::Lost {
        lease: lease.key.clone(),
        token: lease.token,
        held: record.and_then(|record| record.held.clone()),
    }
}

/// Why a lease was not given, prolonged or given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error(
        "`{lease}` is held by {} since {} until {} ({}); wait until then or ask them to release it",
        .held.holder, .held.since, .held.expires, .held.reason
    )]
    Held {
        /// The lease's document.
        lease: Key,
        /// Who, what for and until when.
        held: Held,
    },
    /// It was taken over or released; stop what it protected.
    #[error("`{lease}` is not held with token {token} any more{}; stop what it protected", now_held(.held.as_ref()))]
    Lost {
        /// The lease's document.
        lease: Key,
        /// The token that is not good any more.
        token: u64,
        /// Who holds it now, if anybody.
        held: Option<Held>,
    },
    /// The time to live is not positive.
    #[error("`{lease}` cannot be held for {ttl:#}; give a time to live that is longer than nothing")]
    Ttl {
        /// The lease's document.
        lease: Key,
        /// What was asked for.
        ttl: SignedDuration,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Kinded for LeaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } => ErrorKind::Busy,
            Self::Lost { .. } => ErrorKind::Denied,
            Self::Ttl { .. } => ErrorKind::Invalid,
            Self::Store(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Held { .. } => Retry::Later,
            Self::Lost { .. } | Self::Ttl { .. } => Retry::Never,
            Self::Store(error) => error.retry(),
        }
    }
}

fn now_held(held: Option<&Held>) -> String {
    held.map_or_else(String::new, |held| format!(" ({} holds it now: {})", held.holder, held.reason))
}
