//! The sentences of the contract, one case each.

mod content;
mod freshness;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use serde_json::json;

use super::{Case, model};
use crate::{
    Timestamp,
    event::{Event, Recorded},
    id::{EventId, Key, StreamId},
    store::{Batch, EventQuery, Fence, Position, Revision, Store, StoreError},
    testkit::{Outcome, Seeded, Why, block_on, fail, same},
};

pub(in crate::testkit::store) const WHOLE: &str =
    "a commit is whole: its documents and events are there together";
pub(in crate::testkit::store) const NOTHING: &str = "a commit that fails wrote nothing";
pub(in crate::testkit::store) const HALF: &str = "no reader sees half a commit";
pub(in crate::testkit::store) const EXPECT: &str =
    "an expectation that does not hold is a conflict that says what is there";
pub(in crate::testkit::store) const REVISIONS: &str =
    "a revision counts a document's puts and goes on across its removal";
pub(in crate::testkit::store) const ONE_WINS: &str =
    "of writers that expect the same revision exactly one wins";
pub(in crate::testkit::store) const FENCE: &str = "a fence passes only with the token that the lease carries";
pub(in crate::testkit::store) const ONCE: &str =
    "an event whose id is there is left out and the rest of its batch is kept";
pub(in crate::testkit::store) const GAPLESS: &str = "positions and sequences grow by one without gaps";
pub(in crate::testkit::store) const QUERY: &str =
    "events come in order, of a stream, after a position, up to a limit";
pub(in crate::testkit::store) const LIST: &str = "documents are listed by prefix in the order of their keys";
pub(in crate::testkit::store) const EXACT: &str =
    "documents and events come back exactly as they were written";
pub(in crate::testkit::store) const FRESH: &str = "a read that starts after a commit sees it";
pub(in crate::testkit::store) const FOLLOW: &str =
    "a subscriber misses nothing and repeats nothing while others write";
pub(in crate::testkit::store) const WOKEN: &str = "whoever waits for a change is woken by it";
pub(in crate::testkit::store) const MODEL: &str = "random batches get the answers of the model";

macro_rules! case {
    ($sentence:expr, $run:path) => {
        Case { sentence: $sentence, run: |store, seeded| Box::pin($run(store, seeded)) }
    };
}

pub(in crate::testkit::store) const CASES: &[Case] = &[
    case!(WHOLE, whole),
    case!(NOTHING, nothing_on_failure),
    case!(HALF, never_half),
    case!(EXPECT, expectations),
    case!(REVISIONS, revisions),
    case!(ONE_WINS, one_wins),
    case!(FENCE, fences),
    case!(ONCE, content::appended_once),
    case!(GAPLESS, content::gapless),
    case!(QUERY, content::queries),
    case!(LIST, content::listing),
    case!(EXACT, content::exact),
    case!(FRESH, freshness::fresh),
    case!(FOLLOW, freshness::follow),
    case!(WOKEN, freshness::woken),
    case!(MODEL, model::random_batches),
];

pub(in crate::testkit::store) fn key(name: &str) -> Result<Key, Why> {
    Ok(Key::new(name)?)
}

pub(in crate::testkit::store) fn stream(name: &str) -> Result<StreamId, Why> {
    Ok(StreamId::new(name)?)
}

pub(in crate::testkit::store) fn event(id: &str) -> Result<Event, Why> {
    let event = Event::new(EventId::new(id)?, "test.happened", Timestamp::UNIX_EPOCH, "testkit", "test/1");
    Ok(event.with_data(json!({ "id": id })))
}

async fn all(store: &dyn Store) -> Result<Vec<Recorded>, Why> {
    Ok(store.events(EventQuery::default()).await?)
}

fn ids(events: &[Recorded]) -> Vec<&str> {
    events.iter().map(|recorded| recorded.event.id.as_str()).collect()
}

/// Runs `work` on a thread, to the end.
fn on_thread(work: impl Future<Output = Outcome> + Send + 'static) -> JoinHandle<Outcome> {
    thread::spawn(move || block_on(work))
}

fn join(threads: Vec<JoinHandle<Outcome>>) -> Outcome {
    for thread in threads {
        thread.join().map_err(|_| Why("a thread of the test panicked".to_owned()))??;
    }
    Ok(())
}

async fn whole(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (a, b) = (key("a")?, key("b")?);
    store.commit(Batch::new().put(b.clone(), json!("old"))).await?;
    let batch = Batch::new()
        .put(a.clone(), json!(1))
        .remove(b.clone())
        .append(stream("x")?, event("1")?)
        .append(stream("y")?, event("2")?)
        .append(stream("x")?, event("3")?);
    let committed = store.commit(batch).await?;
    same("appended events", &committed.appended, &3)?;
    same("position after the commit", &committed.position, &Position(3))?;
    same("head", &store.head().await?, &Position(3))?;
    same("document a", &store.read(&a).await?.map(|it| it.value), &Some(json!(1)))?;
    same("document b", &store.read(&b).await?, &None)?;
    same("events", &ids(&all(&*store).await?), &vec!["1", "2", "3"])
}

async fn nothing_on_failure(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (a, b, lease) = (key("a")?, key("b")?, key("lease")?);
    store.commit(Batch::new().put(a.clone(), json!(1)).put(lease.clone(), json!({ "token": 7 }))).await?;
    let write = || -> Result<Batch, Why> {
        Ok(Batch::new().put(b.clone(), json!(2)).remove(a.clone()).append(stream("x")?, event("1")?))
    };
    let bad = [
        write()?.expect(a.clone(), Revision(1)).expect(b.clone(), Revision(9)),
        write()?.fenced(Fence { lease: lease.clone(), token: 8 }),
        write()?.put(b.clone(), json!(3)),
    ];
    for batch in bad {
        if store.commit(batch).await.is_ok() {
            return fail("a batch that must fail was committed");
        }
        same("document a", &store.read(&a).await?.map(|it| it.revision), &Some(Revision(1)))?;
        same("document b", &store.read(&b).await?, &None)?;
        same("head", &store.head().await?, &Position::START)?;
    }
    // Nor does a failure stand in the way of the next commit.
    store.commit(write()?).await?;
    same("head", &store.head().await?, &Position(1))
}

async fn never_half(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    const ROUNDS: u64 = 150;
    let writer = on_thread({
        let store = Arc::clone(&store);
        async move {
            for n in 1..=ROUNDS {
                let batch = Batch::new().put(key("pair/a")?, json!(n)).put(key("pair/b")?, json!(n));
                let batch = batch.append(stream("x")?, event(&format!("{n}/a"))?);
                store.commit(batch.append(stream("y")?, event(&format!("{n}/b"))?)).await?;
            }
            Ok(())
        }
    });
    let mut outcome = Ok(());
    while outcome.is_ok() && !writer.is_finished() {
        let pair = store.list("pair/").await?;
        let values: Vec<_> = pair.iter().map(|(_, document)| &document.value).collect();
        let events = all(&*store).await?;
        if !(values.is_empty() || values.len() == 2 && values[0] == values[1]) {
            outcome = fail(format!("a reader saw {values:?} of two documents that are always written alike"));
        } else if events.len() % 2 != 0 {
            outcome = fail("a reader saw one of two events that are always written together");
        }
    }
    join(vec![writer])?;
    outcome
}

async fn expectations(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (a, b) = (key("a")?, key("b")?);
    store.commit(Batch::new().put(a.clone(), json!(1))).await?;
    let wrong = [
        (&a, Revision::ABSENT, Revision(1)),
        (&a, Revision(2), Revision(1)),
        (&b, Revision(1), Revision::ABSENT),
    ];
    for (which, wanted, there) in wrong {
        let batch = Batch::new().expect(which.clone(), wanted).put(which.clone(), json!(2));
        match store.commit(batch).await {
            Err(StoreError::Conflict { key, expected, found }) => {
                same("the conflict", &(&key, expected, found), &(which, wanted, there))?;
            }
            other => return fail(format!("expected {wanted:?} of {which} at {there:?}: {other:?}")),
        }
    }
    let batch =
        Batch::new().expect(a.clone(), Revision(1)).expect(b, Revision::ABSENT).put(a.clone(), json!(2));
    store.commit(batch).await?;
    same("document a", &store.read(&a).await?.map(|it| it.value), &Some(json!(2)))
}

async fn revisions(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let a = key("a")?;
    store.commit(Batch::new().remove(a.clone())).await?;
    for revision in 1..=3 {
        store.commit(Batch::new().put(a.clone(), json!("same"))).await?;
        same("revision", &store.read(&a).await?.map(|it| it.revision), &Some(Revision(revision)))?;
    }
    store.commit(Batch::new().remove(a.clone())).await?;
    store.commit(Batch::new().expect(a.clone(), Revision::ABSENT).put(a.clone(), json!("new"))).await?;
    let again = store.read(&a).await?.map(|it| it.revision);
    same("revision after it was removed and put again", &again, &Some(Revision(5)))
}

async fn one_wins(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    const THREADS: u64 = 4;
    const EACH: u64 = 25;
    let counter = key("counter")?;
    let threads = (0..THREADS)
        .map(|_| {
            let (store, counter) = (Arc::clone(&store), counter.clone());
            on_thread(async move {
                let mut done = 0;
                while done < EACH {
                    let found = store.read(&counter).await?;
                    let (revision, value) = found.map_or((Revision::ABSENT, 0), |document| {
                        (document.revision, document.value.as_u64().unwrap_or(0))
                    });
                    let batch =
                        Batch::new().expect(counter.clone(), revision).put(counter.clone(), json!(value + 1));
                    match store.commit(batch).await {
                        Ok(_) => done += 1,
                        Err(StoreError::Conflict { .. }) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(())
            })
        })
        .collect();
    join(threads)?;
    let found = store.read(&counter).await?.map(|it| (it.revision, it.value));
    same("the counter", &found, &Some((Revision(THREADS * EACH), json!(THREADS * EACH))))
}

async fn fences(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (lease, plain, a) = (key("lease")?, key("plain")?, key("a")?);
    store
        .commit(
            Batch::new().put(lease.clone(), json!({ "token": 3, "held": null })).put(plain.clone(), json!(3)),
        )
        .await?;
    let wrong = [(&lease, 2, Some(3)), (&lease, 4, Some(3)), (&plain, 3, None), (&a, 0, None)];
    for (which, wanted, there) in wrong {
        let fence = Fence { lease: which.clone(), token: wanted };
        match store.commit(Batch::new().fenced(fence).put(a.clone(), json!(1))).await {
            Err(StoreError::Fenced { lease, token, found }) => {
                same("the refusal", &(&lease, token, found), &(which, wanted, there))?;
            }
            other => return fail(format!("token {wanted} on {which}, which carries {there:?}: {other:?}")),
        }
    }
    let fence = Fence { lease: lease.clone(), token: 3 };
    store.commit(Batch::new().fenced(fence.clone()).put(a.clone(), json!(1))).await?;
    // A lost lease is told before a conflict: who is fenced off must stop, not try again.
    store.commit(Batch::new().put(lease, json!({ "token": 4 }))).await?;
    match store.commit(Batch::new().fenced(fence).expect(a, Revision(9))).await {
        Err(StoreError::Fenced { .. }) => Ok(()),
        other => fail(format!("a lost lease and a conflict at once: {other:?}")),
    }
}
