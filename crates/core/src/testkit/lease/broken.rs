//! Broken leases, and that the case which names the broken sentence catches each.

use async_trait::async_trait;

use super::*;
use crate::{
    lease::{LeaseRecord, StoreLeases, decide_acquire, decide_release, decide_renew},
    store::{MemoryStore, Revision, StoreExt},
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    StolenBeforeExpiry,
    NeverExpires,
    TokenReused,
    TokenForgottenOnRelease,
    RenewAfterTakeover,
    LateRenewalRefused,
    RenewShortens,
    ReleaseByStranger,
    SecondReleaseRefused,
    HolderShutOut,
    ReasonHidden,
    Racy,
    NamesMeet,
    AnyTimeToLive,
    ReleasedFencePasses,
}

#[derive(Debug)]
struct Broken {
    flaw: Flaw,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl Broken {
    fn key(&self, key: &Key) -> Key {
        if self.flaw == Flaw::NamesMeet { Key::new("lease").unwrap() } else { key.clone() }
    }

    async fn record(&self, key: &Key) -> Result<(Revision, Option<LeaseRecord>), LeaseError> {
        let found = self.store.get(&self.key(key)).await?;
        Ok(found.map_or((Revision::ABSENT, None), |(revision, record)| (revision, Some(record))))
    }

    async fn write(&self, key: &Key, revision: Revision, record: &LeaseRecord) -> Result<(), LeaseError> {
        let key = self.key(key);
        let mut batch = Batch::new().put_as(key.clone(), record)?;
        if self.flaw == Flaw::Racy {
            // The others come in between.
            thread::park_timeout(std::time::Duration::from_millis(1));
        } else {
            batch = batch.expect(key, revision);
        }
        self.store.commit(batch).await?;
        Ok(())
    }
}

#[async_trait]
impl Leases for Broken {
    async fn acquire(&self, claim: &Claim) -> Result<Lease, LeaseError> {
        loop {
            let (revision, mut found) = self.record(&claim.lease).await?;
            let mut now = self.clock.now();
            match self.flaw {
                Flaw::StolenBeforeExpiry => now += SignedDuration::from_secs(5),
                Flaw::NeverExpires => now = world_start(),
                Flaw::TokenReused => found = found.map(|record| LeaseRecord { token: 0, ..record }),
                Flaw::HolderShutOut => {
                    if let Some(held) =
                        found.as_ref().and_then(|it| it.held.clone()).filter(|it| !it.expired(now))
                    {
                        return Err(LeaseError::Held { lease: claim.lease.clone(), held });
                    }
                }
                _ => {}
            }
            let mut claim = claim.clone();
            if self.flaw == Flaw::AnyTimeToLive {
                claim.ttl = claim.ttl.max(SHORT);
            }
            let record = decide_acquire(found.as_ref(), &claim, now)?;
            let lease = Lease::new(claim.lease.clone(), record.token, claim.holder.clone(), now + claim.ttl);
            match self.write(&claim.lease, revision, &record).await {
                Ok(()) => return Ok(lease),
                Err(LeaseError::Store(StoreError::Conflict { .. })) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn renew(&self, lease: &Lease, ttl: SignedDuration) -> Result<Lease, LeaseError> {
        let (revision, found) = self.record(lease.key()).await?;
        let now = self.clock.now();
        let mut meant = lease.clone();
        if let Some(found) = &found {
            if self.flaw == Flaw::RenewAfterTakeover {
                meant = Lease::new(lease.key().clone(), found.token, lease.holder(), lease.expires());
            }
            if self.flaw == Flaw::LateRenewalRefused
                && found.held.as_ref().is_some_and(|held| held.expired(now))
            {
                return Err(LeaseError::Lost {
                    lease: lease.key().clone(),
                    token: lease.token(),
                    held: None,
                });
            }
        }
        let mut record = decide_renew(found.as_ref(), &meant, ttl, now)?;
        let held = record.held.as_mut().unwrap();
        if self.flaw == Flaw::RenewShortens {
            held.expires = now + ttl;
        }
        let expires = held.expires;
        self.write(lease.key(), revision, &record).await?;
        Ok(Lease::new(lease.key().clone(), lease.token(), lease.holder(), expires))
    }

    async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        let (revision, found) = self.record(lease.key()).await?;
        let mut meant = lease.clone();
        if let (Some(found), Flaw::ReleaseByStranger) = (&found, self.flaw) {
            meant = Lease::new(lease.key().clone(), found.token, lease.holder(), lease.expires());
        }
        let Some(mut record) = decide_release(found.as_ref(), &meant)? else {
            if self.flaw == Flaw::SecondReleaseRefused {
                return Err(LeaseError::Lost {
                    lease: lease.key().clone(),
                    token: lease.token(),
                    held: None,
                });
            }
            return Ok(());
        };
        match self.flaw {
            Flaw::TokenForgottenOnRelease => record.token = 0,
            Flaw::ReleasedFencePasses => record.token -= 1,
            _ => {}
        }
        self.write(lease.key(), revision, &record).await
    }

    async fn holder(&self, lease: &Key) -> Result<Option<Held>, LeaseError> {
        let (_, found) = self.record(lease).await?;
        let mut held = found.and_then(|record| record.held);
        if let (Some(held), Flaw::ReasonHidden) = (&mut held, self.flaw) {
            held.reason.clear();
        }
        Ok(held)
    }
}

#[test]
fn each_flaw_is_caught_by_the_sentence_that_it_breaks() {
    let flaws = [
        (Flaw::StolenBeforeExpiry, EXCLUSIVE),
        (Flaw::NeverExpires, EXPIRED),
        (Flaw::TokenReused, TOKENS),
        (Flaw::TokenForgottenOnRelease, TOKENS),
        (Flaw::RenewAfterTakeover, TAKEN_OVER),
        (Flaw::LateRenewalRefused, LATE),
        (Flaw::RenewShortens, PROLONGED),
        (Flaw::ReleaseByStranger, RELEASED),
        (Flaw::SecondReleaseRefused, RELEASED),
        (Flaw::HolderShutOut, AGAIN),
        (Flaw::ReasonHidden, VISIBLE),
        (Flaw::Racy, ONE),
        (Flaw::NamesMeet, APART),
        (Flaw::AnyTimeToLive, POSITIVE),
        (Flaw::ReleasedFencePasses, FENCED),
        (Flaw::StolenBeforeExpiry, SCHEDULE),
        (Flaw::RenewAfterTakeover, SCHEDULE),
    ];
    for (flaw, sentence) in flaws {
        let report = check(&format!("{flaw:?}"), |clock| {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            (Broken { flaw, store: Arc::clone(&store), clock }, store)
        });
        assert!(report.breaks(sentence), "{flaw:?} is not caught by `{sentence}`:\n{report}");
    }
    let every: Vec<_> = flaws.iter().map(|(_, sentence)| sentence).collect();
    for (sentence, _) in CASES {
        assert!(every.contains(&sentence), "nothing shows that `{sentence}` can fail");
    }
}

#[test]
fn leases_in_memory_keep_the_contract() {
    for seed in [SEED, 1, 2, 3] {
        check_seeded("leases in memory", seed, |clock| {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            (StoreLeases::new(Arc::clone(&store), clock), store)
        })
        .assert();
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn leases_in_sqlite_keep_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU64::new(0);
    check("leases in SQLite", |clock| {
        let number = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let store = crate::store::SqliteStore::open(folder.path().join(number.to_string())).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        (StoreLeases::new(Arc::clone(&store), clock), store)
    })
    .assert();
}
