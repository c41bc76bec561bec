//! When others see what was written, and that whoever waits hears of it.

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, thread};

use serde_json::{Value, json};

use super::{event, join, key, on_thread, stream};
use crate::{
    store::{Batch, Position, Store, StoreExt},
    testkit::{Outcome, Seeded, Why, block_on, fail, same, within_patience},
};

pub(super) async fn fresh(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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

pub(super) async fn follow(store: Arc<dyn Store>, mut seeded: Seeded) -> Outcome {
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

pub(super) async fn woken(store: Arc<dyn Store>, _: Seeded) -> Outcome {
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
