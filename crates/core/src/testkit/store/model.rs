//! What a store should answer, as plainly as it can be said, and random batches to compare with it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    super::{Outcome, Seeded, Why, fail, same},
    cases::{event, key, stream},
};
use crate::{
    event::Recorded,
    id::Key,
    store::{Batch, Committed, Document, EventQuery, Fence, Position, Revision, Store, StoreError},
};

const KEYS: [&str; 4] = ["a", "a/b", "b", "lease"];
const STREAMS: [&str; 3] = ["x", "x/y", "z"];

/// Lists instead of maps and indexes: slow, but easy to see through.
#[derive(Default)]
struct Model {
    documents: Vec<(Key, u64, Option<Value>)>,
    events: Vec<Recorded>,
}

impl Model {
    fn document(&self, key: &Key) -> Option<Document> {
        let (_, revision, value) = self.documents.iter().find(|(name, ..)| name == key)?;
        Some(Document { revision: Revision(*revision), value: value.clone()? })
    }

    /// `None`: the batch must fail.
    fn commit(&mut self, batch: &Batch) -> Option<Committed> {
        let keys: Vec<&Key> = batch.put.iter().map(|(key, _)| key).collect();
        let twice = keys.iter().enumerate().any(|(index, key)| keys[..index].contains(key));
        let fenced = batch.fence.iter().any(|fence| {
            self.document(&fence.lease).is_none_or(|document| document.value["token"] != json!(fence.token))
        });
        let conflict = batch.expect.iter().any(|(key, revision)| {
            self.document(key).map_or(Revision::ABSENT, |document| document.revision) != *revision
        });
        if twice || fenced || conflict {
            return None;
        }
        for (key, value) in &batch.put {
            match self.documents.iter_mut().find(|(name, ..)| name == key) {
                Some((_, _, None)) | None if value.is_none() => {}
                Some((_, revision, there)) => {
                    *revision += 1;
                    there.clone_from(value);
                }
                None => self.documents.push((key.clone(), 1, value.clone())),
            }
        }
        let before = self.events.len();
        for (stream, event) in &batch.append {
            if self.events.iter().all(|recorded| recorded.event.id != event.id) {
                let position = Position(self.events.len() as u64 + 1);
                let sequence =
                    self.events.iter().filter(|recorded| recorded.stream == *stream).count() as u64 + 1;
                self.events.push(Recorded {
                    position,
                    sequence,
                    stream: stream.clone(),
                    event: event.clone(),
                });
            }
        }
        Some(Committed { position: Position(self.events.len() as u64), appended: self.events.len() - before })
    }

    fn list(&self, prefix: &str) -> Vec<(Key, Document)> {
        let mut found: Vec<_> = self
            .documents
            .iter()
            .filter(|(key, ..)| key.as_str().starts_with(prefix))
            .filter_map(|(key, ..)| Some((key.clone(), self.document(key)?)))
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }

    fn events(&self, query: &EventQuery) -> Vec<Recorded> {
        let fits = |recorded: &&Recorded| {
            recorded.position > query.after
                && query.stream.as_ref().is_none_or(|stream| recorded.stream == *stream)
        };
        self.events.iter().filter(fits).take(query.limit.unwrap_or(usize::MAX)).cloned().collect()
    }
}

pub(super) async fn random_batches(store: Arc<dyn Store>, mut seeded: Seeded) -> Outcome {
    let mut model = Model::default();
    for number in 0..200 {
        let batch = batch(&model, &mut seeded)?;
        let expected = model.commit(&batch);
        let shown = format!("batch {number}, {batch:?}");
        match (store.commit(batch).await, expected) {
            (Ok(found), Some(expected)) => same(&shown, &found, &expected)?,
            (Err(StoreError::Conflict { .. } | StoreError::Fenced { .. } | StoreError::Batch(_)), None) => {}
            (Err(error), None) => return fail(format!("{shown}: an error of the wrong kind: {error}")),
            (Ok(_), None) => return fail(format!("{shown}: it was committed, but must fail")),
            (Err(error), Some(_)) => return fail(format!("{shown}: {error}")),
        }
        let mut query = EventQuery::after(Position(seeded.below(model.events.len() as u64 + 2)));
        if seeded.below(2) == 0 {
            query.stream = Some(stream(pick(&STREAMS, &mut seeded))?);
        }
        if seeded.below(2) == 0 {
            query = query.at_most(usize::try_from(seeded.below(5))?);
        }
        same(
            &format!("after {shown}: {query:?}"),
            &store.events(query.clone()).await?,
            &model.events(&query),
        )?;
        let prefix = ["", "a", "a/", "lease"][usize::try_from(seeded.below(4))?];
        same(&format!("after {shown}: below `{prefix}`"), &store.list(prefix).await?, &model.list(prefix))?;
        let read = key(pick(&KEYS, &mut seeded))?;
        same(&format!("after {shown}: {read}"), &store.read(&read).await?, &model.document(&read))?;
        same(&format!("after {shown}: head"), &store.head().await?, &Position(model.events.len() as u64))?;
    }
    Ok(())
}

/// A batch that mostly fits what is there.
fn batch(model: &Model, seeded: &mut Seeded) -> Result<Batch, Why> {
    let mut batch = Batch::new();
    for _ in 0..seeded.below(3) {
        let key = key(pick(&KEYS, seeded))?;
        let there = model.document(&key).map_or(0, |document| document.revision.0);
        batch = batch.expect(key, Revision(if seeded.below(4) == 0 { seeded.below(4) } else { there }));
    }
    if seeded.below(3) == 0 {
        let lease = key("lease")?;
        let there = model.document(&lease).and_then(|it| it.value["token"].as_u64()).unwrap_or(1);
        let token = if seeded.below(3) == 0 { seeded.below(5) } else { there };
        batch = batch.fenced(Fence { lease, token });
    }
    for _ in 0..seeded.below(3) {
        let key = key(pick(&KEYS, seeded))?;
        batch = match seeded.below(3) {
            0 => batch.remove(key),
            _ => batch.put(key, json!({ "token": seeded.below(5) })),
        };
    }
    for _ in 0..seeded.below(4) {
        let event = event(&format!("event/{}", seeded.below(120)))?;
        batch = batch.append(stream(pick(&STREAMS, seeded))?, event);
    }
    Ok(batch)
}

fn pick<'a>(names: &[&'a str], seeded: &mut Seeded) -> &'a str {
    let index = seeded.below(names.len() as u64);
    usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default()
}
