//! The sentences of the contract, one case each.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::Poll,
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

use super::{
    super::{Outcome, Seeded, Why, block_on, fail, same, within_patience},
    Case, model,
};
use crate::{
    Timestamp,
    event::{Event, Recorded},
    id::{EventId, Key, StreamId},
    store::{Batch, EventQuery, Fence, Position, Revision, Store, StoreError, StoreExt},
};

pub(super) const WHOLE: &str = "a commit is whole: its documents and events are there together";
pub(super) const NOTHING: &str = "a commit that fails wrote nothing";
pub(super) const HALF: &str = "no reader sees half a commit";
pub(super) const EXPECT: &str = "an expectation that does not hold is a conflict that says what is there";
pub(super) const REVISIONS: &str = "a revision counts a document's puts and goes on across its removal";
pub(super) const ONE_WINS: &str = "of writers that expect the same revision exactly one wins";
pub(super) const FENCE: &str = "a fence passes only with the token that the lease carries";
pub(super) const ONCE: &str = "an event whose id is there is left out and the rest of its batch is kept";
pub(super) const GAPLESS: &str = "positions and sequences grow by one without gaps";
pub(super) const QUERY: &str = "events come in order, of a stream, after a position, up to a limit";
pub(super) const LIST: &str = "documents are listed by prefix in the order of their keys";
pub(super) const EXACT: &str = "documents and events come back exactly as they were written";
pub(super) const FRESH: &str = "a read that starts after a commit sees it";
pub(super) const FOLLOW: &str = "a subscriber misses nothing and repeats nothing while others write";
pub(super) const WOKEN: &str = "whoever waits for a change is woken by it";
pub(super) const MODEL: &str = "random batches get the answers of the model";

macro_rules! case {
    ($sentence:expr, $run:path) => {
        Case { sentence: $sentence, run: |store, seeded| Box::pin($run(store, seeded)) }
    };
}

pub(super) const CASES: &[Case] = &[
    case!(WHOLE, whole),
    case!(NOTHING, nothing_on_failure),
    case!(HALF, never_half),
    case!(EXPECT, expectations),
    case!(REVISIONS, revisions),
    case!(ONE_WINS, one_wins),
    case!(FENCE, fences),
    case!(ONCE, appended_once),
    case!(GAPLESS, gapless),
    case!(QUERY, queries),
    case!(LIST, listing),
    case!(EXACT, exact),
    case!(FRESH, fresh),
    case!(FOLLOW, follow),
    case!(WOKEN, woken),
    case!(MODEL, model::random_batches),
];

pub(super) fn key(name: &str) -> Result<Key, Why> {
    Ok(Key::new(name)?)
}

pub(super) fn stream(name: &str) -> Result<StreamId, Why> {
    Ok(StreamId::new(name)?)
}

pub(super) fn event(id: &str) -> Result<Event, Why> {
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

async fn appended_once(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (x, y, a) = (stream("x")?, stream("y")?, key("a")?);
    let first = event("1")?;
    store.commit(Batch::new().append(x.clone(), first.clone())).await?;
    let mut altered = first.clone();
    "test.altered".clone_into(&mut altered.kind);
    let batch = Batch::new()
        .append(x.clone(), altered)
        .append(y.clone(), first.clone())
        .append(y.clone(), event("2")?)
        .append(x, event("2")?)
        .put(a.clone(), json!(1));
    let committed = store.commit(batch).await?;
    same("appended events", &committed.appended, &1)?;
    same("position after the commit", &committed.position, &Position(2))?;
    let events = all(&*store).await?;
    same("events", &ids(&events), &vec!["1", "2"])?;
    same("the first event", &events[0].event, &first)?;
    same("the second event's stream and sequence", &(&events[1].stream, events[1].sequence), &(&y, 1))?;
    same("document a", &store.read(&a).await?.map(|it| it.value), &Some(json!(1)))
}

async fn gapless(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    const THREADS: u64 = 3;
    const EACH: u64 = 30;
    let threads =
        (0..THREADS)
            .map(|thread| {
                let store = Arc::clone(&store);
                on_thread(async move {
                    for n in 0..EACH {
                        // Events that are there, and commits that fail, take no position.
                        let again = event(&format!("{thread}/{}", n.saturating_sub(1)))?;
                        let batch = Batch::new().append(stream("shared")?, again);
                        let batch = batch.append(stream("shared")?, event(&format!("{thread}/{n}"))?);
                        store
                            .commit(batch.append(
                                stream(&format!("own/{thread}"))?,
                                event(&format!("{thread}/{n}/own"))?,
                            ))
                            .await?;
                        let bad = Batch::new().expect(key("none")?, Revision(1));
                        if store
                            .commit(bad.append(stream("shared")?, event(&format!("{thread}/{n}/bad"))?))
                            .await
                            .is_ok()
                        {
                            return fail("a batch that must fail was committed");
                        }
                    }
                    Ok(())
                })
            })
            .collect();
    join(threads)?;
    let events = all(&*store).await?;
    same("how many events", &(events.len() as u64), &(THREADS * EACH * 2))?;
    let mut sequences = std::collections::BTreeMap::new();
    for (position, recorded) in (1..).zip(&events) {
        same("position", &recorded.position, &Position(position))?;
        let sequence = sequences.entry(&recorded.stream).or_insert(0);
        *sequence += 1;
        same(&format!("sequence in {}", recorded.stream), &recorded.sequence, sequence)?;
    }
    same("head", &store.head().await?, &Position(THREADS * EACH * 2))
}

async fn queries(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let (x, y) = (stream("x")?, stream("y")?);
    for n in 1..=6 {
        let stream = if n % 2 == 0 { &y } else { &x };
        store.commit(Batch::new().append(stream.clone(), event(&n.to_string())?)).await?;
    }
    let after = |position| EventQuery::after(Position(position));
    let of = |position| {
        let mut query = EventQuery::of(x.clone());
        query.after = Position(position);
        query
    };
    let asked: [(EventQuery, &[&str]); 10] = [
        (after(0), &["1", "2", "3", "4", "5", "6"]),
        (after(4), &["5", "6"]),
        (after(6), &[]),
        (after(u64::MAX), &[]),
        (after(1).at_most(2), &["2", "3"]),
        (after(0).at_most(0), &[]),
        (of(0), &["1", "3", "5"]),
        (of(1), &["3", "5"]),
        (of(2).at_most(1), &["3"]),
        (EventQuery::of(stream("nothing")?), &[]),
    ];
    for (query, expected) in asked {
        let found = store.events(query.clone()).await?;
        same(&format!("{query:?}"), &ids(&found), &expected.to_vec())?;
    }
    Ok(())
}

async fn listing(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let names = ["b", "a/2", "a", "a/10", "a0", "A/1", "a/~", "a/", "a/1"];
    for name in names {
        store.commit(Batch::new().put(key(name)?, json!(name))).await?;
    }
    store.commit(Batch::new().put(key("a/gone")?, json!(0))).await?;
    store.commit(Batch::new().remove(key("a/gone")?)).await?;
    let asked: [(&str, &[&str]); 5] = [
        ("", &["A/1", "a", "a/", "a/1", "a/10", "a/2", "a/~", "a0", "b"]),
        ("a/", &["a/", "a/1", "a/10", "a/2", "a/~"]),
        ("a/1", &["a/1", "a/10"]),
        ("A", &["A/1"]),
        ("%", &[]),
    ];
    for (prefix, expected) in asked {
        let found = store.list(prefix).await?;
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        same(&format!("documents below `{prefix}`"), &keys, &expected.to_vec())?;
        for (key, document) in &found {
            same(&format!("document {key}"), &document.value, &json!(key.as_str()))?;
        }
    }
    Ok(())
}

async fn exact(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let values = [
        json!(null),
        json!({ "π": "ü\u{0}\n\"\\", "big": u64::MAX, "small": i64::MIN, "half": 0.5, "list": [[], {}, null] }),
        json!("x".repeat(100_000)),
    ];
    let mut written = Vec::new();
    for (n, value) in values.into_iter().enumerate() {
        let mut event = event(&n.to_string())?.with_data(value.clone()).caused_by(EventId::new("cause")?);
        "moon.landed".clone_into(&mut event.kind);
        event.version = 7;
        event.time = Timestamp::new(1_767_225_600, 123_456_789)?;
        event.extra.insert("weather".to_owned(), json!({ "fine": true }));
        let key = key(&n.to_string())?;
        store
            .commit(Batch::new().put(key.clone(), value.clone()).append(stream("x")?, event.clone()))
            .await?;
        same("a document", &store.read(&key).await?.map(|it| it.value), &Some(value))?;
        written.push(event);
    }
    let read: Vec<Event> = all(&*store).await?.into_iter().map(|recorded| recorded.event).collect();
    same("the events", &read, &written)
}

async fn fresh(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    let a = key("a")?;
    same("a document before it was put", &store.read(&a).await?, &None)?;
    for n in 1..=50_u64 {
        let committed = store
            .commit(Batch::new().put(a.clone(), json!(n)).append(stream("x")?, event(&n.to_string())?))
            .await?;
        let elsewhere = on_thread({
            let (store, a) = (Arc::clone(&store), a.clone());
            async move {
                same(
                    "the document, on another thread",
                    &store.read(&a).await?.map(|it| it.value),
                    &Some(json!(n)),
                )?;
                same("the head, on another thread", &store.head().await?, &committed.position)
            }
        });
        join(vec![elsewhere])?;
        same("the document", &store.read(&a).await?.map(|it| it.value), &Some(json!(n)))?;
        same("listed", &store.list("a").await?.first().map(|(_, it)| it.value.clone()), &Some(json!(n)))?;
    }
    Ok(())
}

async fn follow(store: Arc<dyn Store>, mut seeded: Seeded) -> Outcome {
    const THREADS: u64 = 3;
    const EACH: u64 = 60;
    let start = seeded.below(5);
    for n in 0..start {
        store.commit(Batch::new().append(stream("before")?, event(&format!("before/{n}"))?)).await?;
    }
    let after = Position(seeded.below(start + 1));
    let writers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let store = Arc::clone(&store);
            on_thread(async move {
                for n in 0..EACH {
                    let batch =
                        Batch::new().append(stream(&format!("{thread}"))?, event(&format!("{thread}/{n}"))?);
                    store.commit(batch.append(stream("shared")?, event(&format!("{thread}/{n}/b"))?)).await?;
                }
                Ok(())
            })
        })
        .collect();
    let last = start + THREADS * EACH * 2;
    let followed = within_patience("following all writers to the end", {
        let store = Arc::clone(&store);
        move || {
            block_on(async move {
                let mut subscription = store.subscribe(after);
                let mut next = after.0 + 1;
                while next <= last {
                    let events = subscription.next().await?;
                    if events.is_empty() {
                        return fail("the subscription handed out nothing");
                    }
                    for recorded in events {
                        same("the next position", &recorded.position, &Position(next))?;
                        next += 1;
                    }
                }
                Ok(())
            })
        }
    });
    join(writers)?;
    followed?
}

async fn woken(store: Arc<dyn Store>, _: Seeded) -> Outcome {
    // Two that wait, and one that gives up, must all do.
    for round in 0..20_u64 {
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let store = Arc::clone(&store);
                let (ready, started) = std::sync::mpsc::channel();
                let waiting = thread::spawn(move || {
                    within_patience("waiting for a change", move || {
                        let changed = store.changed(Position(round));
                        let mut changed = pin!(changed);
                        block_on(poll_fn(|context| {
                            let polled = changed.as_mut().poll(context);
                            // The other side may be gone after the first time.
                            let _sent = ready.send(());
                            polled
                        }))
                    })
                });
                (waiting, started)
            })
            .collect();
        for (_, started) in &waiting {
            // Those that wait have looked once, so what comes now must wake them.
            let _ended = started.recv();
        }
        let mut given_up = Box::pin(store.changed(Position(round + 100)));
        let early = poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context).is_ready())).await;
        same("a change long before its time", &early, &false)?;
        drop(given_up);
        store.commit(Batch::new().append(stream("x")?, event(&round.to_string())?)).await?;
        for (waiting, _) in waiting {
            let answer = waiting.join().map_err(|_| Why("a thread of the test panicked".to_owned()))?;
            same("the position of the change", &answer??, &Position(round + 1))?;
        }
    }
    // What is there already is told at once; a document alone is no event.
    same("a change of before", &store.changed(Position(3)).await?, &Position(20))?;
    store.commit(Batch::new().put(key("a")?, Value::Null)).await?;
    let mut changed = Box::pin(store.changed(Position(20)));
    let early = poll_fn(|context| Poll::Ready(changed.as_mut().poll(context).is_ready())).await;
    same("a change without an event", &early, &false)
}
