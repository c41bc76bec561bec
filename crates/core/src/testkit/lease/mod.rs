//! Checks that leases keep the contract of [`Leases`].
//!
//! ```
//! use std::sync::Arc;
//! use flowline_core::{lease::StoreLeases, store::{MemoryStore, Store}, testkit};
//! testkit::lease::check("leases in memory", |clock| {
//!     let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
//!     (StoreLeases::new(store.clone(), clock), store)
//! })
//! .assert();
//! ```

#[cfg(test)]
mod broken;

use std::{pin::Pin, sync::Arc, thread};

use super::{Outcome, Report, SEED, Seeded, Why, block_on, fail, same};
use crate::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock},
    error::{ErrorKind, Kinded},
    id::Key,
    lease::{Claim, Held, Lease, LeaseError, Leases},
    store::{Batch, Store, StoreError},
};

pub(super) const EXCLUSIVE: &str = "a held lease is given to nobody else before it expires";
pub(super) const EXPIRED: &str = "an expired lease is given to whoever asks";
pub(super) const TOKENS: &str = "each token is greater than all before it, also after a release";
pub(super) const TAKEN_OVER: &str = "after a takeover the former holder can neither renew nor release";
pub(super) const LATE: &str = "an expired lease that nobody took may still be renewed";
pub(super) const PROLONGED: &str = "renewing prolongs from now and never shortens";
pub(super) const RELEASED: &str = "only the holder releases, and releasing twice is fine";
pub(super) const AGAIN: &str = "its holder takes it again at once, and its former self has lost it";
pub(super) const VISIBLE: &str = "who holds it is visible, with reason and expiry";
pub(super) const ONE: &str = "of many that ask at once exactly one gets it";
pub(super) const APART: &str = "leases of different names do not meet";
pub(super) const POSITIVE: &str = "a time to live that is not positive is refused";
pub(super) const FENCED: &str = "a fence passes until somebody took over or it was released, and not after";
pub(super) const SCHEDULE: &str =
    "in any order of asking, renewing, releasing and waiting, at most one holds it";

/// What a case works with.
struct World {
    leases: Arc<dyn Leases>,
    /// Where fences are checked.
    store: Arc<dyn Store>,
    clock: ManualClock,
}

type Checked = Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! case {
    ($sentence:expr, $run:path) => {
        ($sentence, |world, seeded| Box::pin($run(world, seeded)))
    };
}

/// A sentence, and how it is checked.
type Case = (&'static str, fn(World, Seeded) -> Checked);

const CASES: &[Case] = &[
    case!(EXCLUSIVE, exclusive),
    case!(EXPIRED, expired),
    case!(TOKENS, tokens),
    case!(TAKEN_OVER, taken_over),
    case!(LATE, late),
    case!(PROLONGED, prolonged),
    case!(RELEASED, released),
    case!(AGAIN, again),
    case!(VISIBLE, visible),
    case!(ONE, one),
    case!(APART, apart),
    case!(POSITIVE, positive),
    case!(FENCED, fenced),
    case!(SCHEDULE, schedule),
];

/// Checks all sentences. `open` makes new leases by the time of the clock that it is given, and answers them with the store in which their
/// fences are checked.
pub fn check<L: Leases + 'static>(
    backend: &str,
    open: impl Fn(Arc<dyn Clock>) -> (L, Arc<dyn Store>),
) -> Report {
    check_seeded(backend, SEED, open)
}

/// The same with the seed that a failure named, or one of your own.
pub fn check_seeded<L: Leases + 'static>(
    backend: &str,
    seed: u64,
    open: impl Fn(Arc<dyn Clock>) -> (L, Arc<dyn Store>),
) -> Report {
    let mut report = Report::new("lease", backend);
    for (sentence, run) in CASES {
        let clock = ManualClock::default();
        let (leases, store) = open(Arc::new(clock.clone()));
        let world = World { leases: Arc::new(leases), store, clock };
        report.note(sentence, seed, block_on(run(world, Seeded::new(seed))));
    }
    report
}

const TTL: SignedDuration = SignedDuration::from_secs(60);
const SHORT: SignedDuration = SignedDuration::from_secs(1);

fn key(name: &str) -> Result<Key, Why> {
    Ok(Key::new(name)?)
}

fn claim(holder: &str) -> Result<Claim, Why> {
    Ok(Claim::new(key("lease/deploy")?, holder, TTL, format!("{holder} deploys")))
}

fn kind<T: std::fmt::Debug>(what: &str, found: &Result<T, LeaseError>, expected: ErrorKind) -> Outcome {
    match found {
        Err(error) if error.kind() == expected => Ok(()),
        other => fail(format!("{what}: found {other:?}, expected an error of kind `{expected}`")),
    }
}

async fn exclusive(world: World, _: Seeded) -> Outcome {
    let _first = world.leases.acquire(&claim("ann")?).await?;
    for _ in 0..2 {
        let second = world.leases.acquire(&claim("bob")?).await;
        kind("asking for a held lease", &second, ErrorKind::Busy)?;
        let Err(LeaseError::Held { held, .. }) = second else {
            return fail(format!("not `Held`: {second:?}"));
        };
        same("who is in the way", &held.holder, &"ann".to_owned())?;
        same("what for", &held.reason, &"ann deploys".to_owned())?;
        same("until when", &held.expires, &(world_start() + TTL))?;
        world.clock.advance(TTL - SHORT);
    }
    Ok(())
}

fn world_start() -> Timestamp {
    ManualClock::default().now()
}

async fn expired(world: World, _: Seeded) -> Outcome {
    let first = world.leases.acquire(&claim("ann")?).await?;
    same("the expiry", &first.expires(), &(world_start() + TTL))?;
    world.clock.advance(TTL);
    let second = world.leases.acquire(&claim("bob")?).await?;
    same("the new holder", &second.holder(), &"bob")?;
    kind("asking back", &world.leases.acquire(&claim("ann")?).await, ErrorKind::Busy)
}

async fn tokens(world: World, _: Seeded) -> Outcome {
    let mut last = 0;
    for round in 0..6 {
        let holder = if round % 2 == 0 { "ann" } else { "bob" };
        let lease = world.leases.acquire(&claim(holder)?).await?;
        if lease.token() <= last {
            return fail(format!("token {} follows token {last}", lease.token()));
        }
        last = lease.token();
        let renewed = world.leases.renew(&lease, TTL).await?;
        same("the token after renewing", &renewed.token(), &last)?;
        if round < 3 {
            world.leases.release(&lease).await?;
        } else {
            world.clock.advance(TTL);
        }
    }
    Ok(())
}

async fn taken_over(world: World, _: Seeded) -> Outcome {
    let first = world.leases.acquire(&claim("ann")?).await?;
    world.clock.advance(TTL);
    let second = world.leases.acquire(&claim("bob")?).await?;
    kind("renewing what was lost", &world.leases.renew(&first, TTL).await, ErrorKind::Denied)?;
    kind("releasing what was lost", &world.leases.release(&first).await, ErrorKind::Denied)?;
    let held = world.leases.holder(first.key()).await?;
    same(
        "the holder",
        &held.map(|held| (held.holder, held.expires)),
        &Some(("bob".to_owned(), second.expires())),
    )?;
    // Nor once the second has let it go, too.
    world.leases.release(&second).await?;
    kind("renewing what was lost long ago", &world.leases.renew(&first, TTL).await, ErrorKind::Denied)?;
    kind("renewing what was released", &world.leases.renew(&second, TTL).await, ErrorKind::Denied)
}

async fn late(world: World, _: Seeded) -> Outcome {
    let first = world.leases.acquire(&claim("ann")?).await?;
    world.clock.advance(TTL + TTL);
    let renewed = world.leases.renew(&first, TTL).await?;
    same("the expiry", &renewed.expires(), &(world.clock.now() + TTL))?;
    kind("asking for it", &world.leases.acquire(&claim("bob")?).await, ErrorKind::Busy)
}

async fn prolonged(world: World, _: Seeded) -> Outcome {
    let first = world.leases.acquire(&claim("ann")?).await?;
    world.clock.advance(SHORT);
    let second = world.leases.renew(&first, TTL).await?;
    same("the expiry", &second.expires(), &(world.clock.now() + TTL))?;
    let third = world.leases.renew(&second, SHORT).await?;
    same("the expiry after asking for less", &third.expires(), &second.expires())?;
    let held = world.leases.holder(first.key()).await?;
    same("the recorded expiry", &held.map(|held| held.expires), &Some(second.expires()))
}

async fn released(world: World, _: Seeded) -> Outcome {
    let first = world.leases.acquire(&claim("ann")?).await?;
    let stranger = Lease::new(first.key().clone(), first.token() + 5, "bob", first.expires());
    kind("releasing another's lease", &world.leases.release(&stranger).await, ErrorKind::Denied)?;
    let held = world.leases.holder(first.key()).await?;
    same("the holder", &held.map(|held| held.holder), &Some("ann".to_owned()))?;
    world.leases.release(&first).await?;
    world.leases.release(&first).await?;
    same("the holder after releasing", &world.leases.holder(first.key()).await?, &None)?;
    let second = world.leases.acquire(&claim("bob")?).await?;
    kind("releasing when another holds it", &world.leases.release(&first).await, ErrorKind::Denied)?;
    let held = world.leases.holder(second.key()).await?;
    same("the holder", &held.map(|held| held.holder), &Some("bob".to_owned()))
}

async fn again(world: World, _: Seeded) -> Outcome {
    let former = world.leases.acquire(&claim("ann")?).await?;
    world.clock.advance(SHORT);
    let present = world.leases.acquire(&claim("ann")?).await?;
    if present.token() <= former.token() {
        return fail(format!("token {} follows token {}", present.token(), former.token()));
    }
    kind("renewing by its former self", &world.leases.renew(&former, TTL).await, ErrorKind::Denied)?;
    same("the expiry", &world.leases.renew(&present, TTL).await?.expires(), &(world.clock.now() + TTL))
}

async fn visible(world: World, _: Seeded) -> Outcome {
    let lease = key("lease/deploy")?;
    same("the holder of a free lease", &world.leases.holder(&lease).await?, &None)?;
    world.clock.advance(SHORT);
    let since = world.clock.now();
    let first = world.leases.acquire(&claim("ann")?).await?;
    let held =
        Held { holder: "ann".to_owned(), reason: "ann deploys".to_owned(), since, expires: since + TTL };
    same("the holder", &world.leases.holder(&lease).await?, &Some(held))?;
    world.leases.release(&first).await?;
    same("the holder of a released lease", &world.leases.holder(&lease).await?, &None)
}

async fn one(world: World, _: Seeded) -> Outcome {
    const ASKING: usize = 8;
    for round in 0..10 {
        let threads: Vec<_> = (0..ASKING)
            .map(|asking| {
                let leases = Arc::clone(&world.leases);
                let claim = claim(&format!("holder/{round}/{asking}"));
                thread::spawn(move || Ok::<_, Why>(block_on(leases.acquire(&claim?))))
            })
            .collect();
        let mut given = Vec::new();
        for thread in threads {
            match thread.join().map_err(|_| Why("a thread of the test panicked".to_owned()))?? {
                Ok(lease) => given.push(lease),
                refused => kind("asking at once", &refused, ErrorKind::Busy)?,
            }
        }
        same("how many got it", &given.len(), &1)?;
        world.clock.advance(TTL);
    }
    Ok(())
}

async fn apart(world: World, _: Seeded) -> Outcome {
    let other = Claim { lease: key("lease/deploy/other")?, ..claim("bob")? };
    let first = world.leases.acquire(&claim("ann")?).await?;
    let second = world.leases.acquire(&other).await?;
    world.leases.release(&first).await?;
    let held = world.leases.holder(second.key()).await?;
    same("the holder of the other", &held.map(|held| held.holder), &Some("bob".to_owned()))
}

async fn positive(world: World, _: Seeded) -> Outcome {
    for ttl in [SignedDuration::ZERO, -SHORT] {
        let refused = world.leases.acquire(&Claim { ttl, ..claim("ann")? }).await;
        kind("asking for no time", &refused, ErrorKind::Invalid)?;
    }
    let lease = world.leases.acquire(&claim("ann")?).await?;
    kind("renewing for no time", &world.leases.renew(&lease, SignedDuration::ZERO).await, ErrorKind::Invalid)
}

async fn fenced(world: World, _: Seeded) -> Outcome {
    let write = |lease: &Lease| {
        let batch = Batch::new().fenced(lease.fence());
        let store = Arc::clone(&world.store);
        async move {
            match store.commit(batch).await {
                Ok(_) => Ok(true),
                Err(StoreError::Fenced { .. }) => Ok(false),
                Err(error) => Err(Why::from(error)),
            }
        }
    };
    let first = world.leases.acquire(&claim("ann")?).await?;
    same("the holder writes", &write(&first).await?, &true)?;
    world.clock.advance(TTL);
    same("the holder writes after its expiry, nobody having taken over", &write(&first).await?, &true)?;
    let second = world.leases.acquire(&claim("bob")?).await?;
    same("the former holder writes", &write(&first).await?, &false)?;
    same("the new holder writes", &write(&second).await?, &true)?;
    world.leases.release(&second).await?;
    same("who has released it writes", &write(&second).await?, &false)
}

/// Three holders and a clock, at random, beside a plain account of who holds it.
async fn schedule(world: World, mut seeded: Seeded) -> Outcome {
    let names = ["ann", "bob", "cid"];
    let mut leases: [Option<Lease>; 3] = [None, None, None];
    // Who was given the last token, and until when.
    let mut holder: Option<(usize, u64, Timestamp)> = None;
    let mut highest = 0;
    for step in 0..300 {
        let now = world.clock.now();
        let who = usize::try_from(seeded.below(3))?;
        let ttl = SignedDuration::from_secs(1 + seeded.below(60).cast_signed());
        let what = format!("step {step}, {}", names[who]);
        match seeded.below(5) {
            0 | 1 => {
                let free = holder.is_none_or(|(other, _, expires)| other == who || now >= expires);
                match world.leases.acquire(&Claim { ttl, ..claim(names[who])? }).await {
                    Ok(lease) if free && lease.token() > highest => {
                        highest = lease.token();
                        holder = Some((who, highest, now + ttl));
                        leases[who] = Some(lease);
                    }
                    Err(LeaseError::Held { .. }) if !free => {}
                    other => {
                        return fail(format!(
                            "{what} asks, free: {free}, highest token {highest}: {other:?}"
                        ));
                    }
                }
            }
            2 => {
                let Some(lease) = &leases[who] else { continue };
                let holds = holder.filter(|(_, token, _)| *token == lease.token());
                match (world.leases.renew(lease, ttl).await, holds) {
                    (Ok(renewed), Some((_, token, expires))) => {
                        let expires = expires.max(now + ttl);
                        same(&format!("{what} renews until"), &renewed.expires(), &expires)?;
                        holder = Some((who, token, expires));
                    }
                    (Err(LeaseError::Lost { .. }), None) => {}
                    (other, holds) => return fail(format!("{what} renews, holds: {holds:?}: {other:?}")),
                }
            }
            3 => {
                let Some(lease) = leases[who].take() else { continue };
                let holds = holder.is_some_and(|(_, token, _)| token == lease.token());
                match world.leases.release(&lease).await {
                    Ok(()) if holds => holder = None,
                    Err(LeaseError::Lost { .. }) if !holds => {}
                    other => return fail(format!("{what} releases, holds: {holds}: {other:?}")),
                }
            }
            _ => world.clock.advance(SignedDuration::from_secs(seeded.below(40).cast_signed())),
        }
    }
    Ok(())
}
