//! Leases kept in any store: read, decide, write; decide anew if somebody else wrote in between.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::{
    Claim, Held, Lease, LeaseError, LeaseRecord, Leases, decide_acquire, decide_release, decide_renew,
};
use crate::{
    clock::Clock,
    digest::Digest,
    event::Event,
    id::{EventId, Key, StreamId},
    store::{Batch, Durability, Revision, Store, StoreError, StoreExt},
};

/// [`Leases`] kept in any [`Store`].
///
/// Taking, taking over and giving back are also events in the stream of the lease's name (`lease.acquired`, `lease.taken_over`,
/// `lease.released`), in the same commit as the document. Renewals only move the document's expiry.
#[derive(Debug, Clone)]
pub struct StoreLeases {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl StoreLeases {
    /// Leases in `store`, by the time of `clock`.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Reads, decides, writes; decides anew if somebody else wrote in between.
    async fn settle<T>(
        &self,
        key: &Key,
        decide: impl Fn(Option<&LeaseRecord>, Timestamp) -> Result<Step<T>, LeaseError> + Send + Sync,
    ) -> Result<T, LeaseError>
    where
        T: Send,
    {
        // Each conflict means that somebody else succeeded, so the limit is met only by hundreds that claim at once.
        const TRIES: usize = 1_000;
        let mut last = None;
        for _ in 0..TRIES {
            let found = self.store.get::<LeaseRecord>(key).await?;
            let (revision, record) =
                found.map_or((Revision::ABSENT, None), |(revision, record)| (revision, Some(record)));
            let step = decide(record.as_ref(), self.clock.now())?;
            let Some((record, event)) = step.write else { return Ok(step.answer) };
            let mut batch = Batch::new()
                .durably(Durability::Synced)
                .expect(key.clone(), revision)
                .put_as(key.clone(), &record)?;
            if let Some(event) = event {
                batch = batch.append(stream_of(key)?, event);
            }
            match self.store.commit(batch).await {
                Ok(_) => return Ok(step.answer),
                Err(conflict @ StoreError::Conflict { .. }) => last = Some(conflict),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Batch("a lease was not tried".to_owned())).into())
    }
}

/// What a decision leads to.
struct Step<T> {
    answer: T,
    write: Option<(LeaseRecord, Option<Event>)>,
}

#[async_trait]
impl Leases for StoreLeases {
    async fn acquire(&self, claim: &Claim) -> Result<Lease, LeaseError> {
        self.settle(&claim.lease, |before, now| {
            let record = decide_acquire(before, claim, now)?;
            let expires = record.held.as_ref().map_or(now, |held| held.expires);
            let from = before.and_then(|before| before.held.as_ref());
            let kind = if from.is_some() { "lease.taken_over" } else { "lease.acquired" };
            let mut data =
                serde_json::json!({ "token": record.token, "reason": claim.reason, "expires": expires });
            if let Some(from) = from {
                data["from"] = from.holder.clone().into();
            }
            let event = event_of(&claim.lease, record.token, kind, now, &claim.holder)?.with_data(data);
            let answer = Lease::new(claim.lease.clone(), record.token, claim.holder.clone(), expires);
            Ok(Step { answer, write: Some((record, Some(event))) })
        })
        .await
    }

    async fn renew(&self, lease: &Lease, ttl: SignedDuration) -> Result<Lease, LeaseError> {
        self.settle(&lease.key, |before, now| {
            let record = decide_renew(before, lease, ttl, now)?;
            let expires = record.held.as_ref().map_or(lease.expires, |held| held.expires);
            Ok(Step { answer: Lease { expires, ..lease.clone() }, write: Some((record, None)) })
        })
        .await
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.settle(&lease.key, |before, now| {
            let Some(record) = decide_release(before, lease)? else {
                return Ok(Step { answer: (), write: None });
            };
            let event = event_of(&lease.key, record.token, "lease.released", now, &lease.holder)?
                .with_data(serde_json::json!({ "token": lease.token }));
            Ok(Step { answer: (), write: Some((record, Some(event))) })
        })
        .await
    }

    async fn holder(&self, lease: &Key) -> Result<Option<Held>, LeaseError> {
        let found = self.store.get::<LeaseRecord>(lease).await?;
        Ok(found.and_then(|(_, record)| record.held))
    }
}

fn stream_of(lease: &Key) -> Result<StreamId, LeaseError> {
    // A stream follows the rule of a key.
    StreamId::new(lease.as_str()).map_err(|error| StoreError::Batch(error.to_string()).into())
}

fn event_of(lease: &Key, token: u64, kind: &str, now: Timestamp, holder: &str) -> Result<Event, LeaseError> {
    // A token is written once, so the id is unique; the digest keeps it short where the key is long.
    let id = EventId::new(format!("{lease}#{token}"))
        .or_else(|_| EventId::new(format!("lease/{}#{token}", Digest::of(lease.as_str()).hex())))
        .map_err(|error| StoreError::Batch(error.to_string()))?;
    Ok(Event::new(id, kind, now, holder, lease.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, journal::Journal, store::MemoryStore};

    fn claim(holder: &str) -> Claim {
        let key = Key::new("lease/deploy/production").unwrap();
        Claim::new(key, holder, SignedDuration::from_secs(60), "deploying 1.4.0")
    }

    #[tokio::test]
    async fn taking_over_and_giving_back_are_in_the_journal() {
        let (clock, store) = (ManualClock::default(), Arc::new(MemoryStore::new()));
        let leases = StoreLeases::new(Arc::<MemoryStore>::clone(&store), Arc::new(clock.clone()));
        let _first = leases.acquire(&claim("ann")).await.unwrap();
        clock.advance(SignedDuration::from_secs(60));
        let second = leases.acquire(&claim("bob")).await.unwrap();
        leases.release(&second).await.unwrap();
        leases.release(&second).await.unwrap();
        let stream = StreamId::new("lease/deploy/production").unwrap();
        let seen = Journal::new(store).read(&stream).await.unwrap();
        let line =
            |r: &crate::event::Recorded| format!("{} {} {}", r.event.kind, r.event.actor, r.event.data);
        insta::assert_snapshot!(seen.iter().map(line).collect::<Vec<_>>().join("\n"), @r#"
        lease.acquired ann {"expires":"2026-01-01T00:01:00Z","reason":"deploying 1.4.0","token":1}
        lease.taken_over bob {"expires":"2026-01-01T00:02:00Z","from":"ann","reason":"deploying 1.4.0","token":2}
        lease.released bob {"token":2}
        "#);
    }

    #[tokio::test]
    async fn messages_say_who_and_until_when() {
        let (clock, store) = (ManualClock::default(), Arc::new(MemoryStore::new()));
        let leases = StoreLeases::new(store, Arc::new(clock.clone()));
        let lease = leases.acquire(&claim("ann")).await.unwrap();
        let held = leases.acquire(&claim("bob")).await.unwrap_err();
        clock.advance(SignedDuration::from_secs(60));
        let _taken = leases.acquire(&claim("bob")).await.unwrap();
        let lost = leases.renew(&lease, SignedDuration::from_secs(1)).await.unwrap_err();
        let nothing = leases.renew(&lease, SignedDuration::ZERO).await.unwrap_err();
        insta::assert_snapshot!([held, lost, nothing].map(|error| error.to_string()).join("\n"), @r"
        `lease/deploy/production` is held by ann since 2026-01-01T00:00:00Z until 2026-01-01T00:01:00Z (deploying 1.4.0); wait until then or ask them to release it
        `lease/deploy/production` is not held with token 1 any more (bob holds it now: deploying 1.4.0); stop what it protected
        `lease/deploy/production` cannot be held for 0s; give a time to live that is longer than nothing
        ");
    }
}
