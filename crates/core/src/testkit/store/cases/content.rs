//! What is kept, in which order, and how it is found again.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;

use super::{all, event, ids, join, key, on_thread, stream};
use crate::{
    Timestamp,
    event::Event,
    id::EventId,
    store::{Batch, EventQuery, Position, Revision, Store},
    testkit::{Outcome, Seeded, fail, same},
};

pub(super) async fn appended_once(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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

pub(super) async fn gapless(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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
    let mut sequences = BTreeMap::new();
    for (position, recorded) in (1..).zip(&events) {
        same("position", &recorded.position, &Position(position))?;
        let sequence = sequences.entry(&recorded.stream).or_insert(0);
        *sequence += 1;
        same(&format!("sequence in {}", recorded.stream), &recorded.sequence, sequence)?;
    }
    same("head", &store.head().await?, &Position(THREADS * EACH * 2))
}

pub(super) async fn queries(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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

pub(super) async fn listing(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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

pub(super) async fn exact(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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
