//! Commits a batch in one transaction: everything is checked before anything is written.

use std::{collections::BTreeMap, sync::PoisonError};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Shared,
    schema::{self, RowError, document_checksum, event_checksum},
};
use crate::{
    id::Key,
    store::{Batch, Committed, Durability, Fence, Revision, StoreError, place::Place},
};

impl Shared {
    /// Commits `batch`; it then survives the process.
    pub(super) fn write(&self, batch: &Batch) -> Result<Committed, StoreError> {
        let texts = Texts::of(batch)?;
        let failed = |error| self.place.problem("write", error);
        let connection = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = Transaction::begin(&connection).map_err(failed)?;
        if batch.durability == Durability::Synced {
            self.flusher.reserve(schema::LOG.unsigned_abs());
        }
        // Dropping the transaction rolls it back.
        batch.check(
            |key| {
                Ok(present(&self.place, &connection, key)?.map_or(Revision::ABSENT, |(revision, _)| revision))
            },
            |key| Ok(present(&self.place, &connection, key)?.and_then(|(_, token)| token)),
        )?;
        let committed =
            apply(&connection, batch, &texts).map_err(|error| self.place.row_problem("write", error))?;
        transaction.commit().map_err(failed)?;
        Ok(committed)
    }
}

/// A write transaction whose begin and end are prepared once. Rolled back when dropped.
struct Transaction<'a> {
    connection: &'a Connection,
}

impl<'a> Transaction<'a> {
    fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        Ok(Self { connection })
    }

    fn commit(self) -> rusqlite::Result<()> {
        // A commit that fails leaves the transaction open, and dropping it rolls back.
        self.connection.prepare_cached("COMMIT")?.execute([]).map(|_| ())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.connection.is_autocommit() {
            // If that fails, too, the next write says why.
            let _told_later = self.connection.execute_batch("ROLLBACK");
        }
    }
}

/// The JSON of a batch, made before the lock is taken.
struct Texts {
    values: Vec<Option<String>>,
    bodies: Vec<String>,
}

impl Texts {
    fn of(batch: &Batch) -> Result<Self, StoreError> {
        let failed = |error: serde_json::Error| StoreError::Batch(format!("JSON cannot express it: {error}"));
        let values = batch.put.iter().map(|(_, value)| {
            value.as_ref().map(|value| serde_json::to_string(value).map_err(failed)).transpose()
        });
        let bodies = batch.append.iter().map(|(_, event)| serde_json::to_string(event).map_err(failed));
        Ok(Self { values: values.collect::<Result<_, _>>()?, bodies: bodies.collect::<Result<_, _>>()? })
    }
}

/// A document's revision and token, if it is there.
fn present(
    place: &Place,
    connection: &Connection,
    key: &Key,
) -> Result<Option<(Revision, Option<u64>)>, StoreError> {
    let ask = || -> Result<_, RowError> {
        let mut statement = connection
            .prepare_cached("SELECT key, revision, value, checksum FROM documents WHERE key = ?1")?;
        let row = statement.query_row(params![key.as_str()], |row| Ok(schema::document(row))).optional()?;
        let document = row.transpose()?.and_then(|(_, document)| document);
        Ok(document.map(|document| (document.revision, Fence::token_in(&document.value))))
    };
    ask().map_err(|error| place.row_problem("read", error))
}

fn apply(connection: &Connection, batch: &Batch, texts: &Texts) -> Result<Committed, RowError> {
    for ((key, _), value) in batch.put.iter().zip(&texts.values) {
        put(connection, key, value.as_deref())?;
    }
    let before = schema::head(connection)?;
    let mut position = before.0.cast_signed();
    let mut sequences = BTreeMap::new();
    for ((stream, event), body) in batch.append.iter().zip(&texts.bodies) {
        let sequence = match sequences.get(stream) {
            Some(sequence) => *sequence,
            None => last_sequence(connection, stream.as_str())?,
        };
        let (next, number) = (position + 1, sequence + 1);
        let checksum = event_checksum(next, stream.as_str(), number, event.id.as_str(), body);
        let mut insert = connection.prepare_cached(
            "INSERT INTO events (position, stream, sequence, id, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO NOTHING",
        )?;
        let new =
            insert.execute(params![next, stream.as_str(), number, event.id.as_str(), body, checksum])? == 1;
        if new {
            position = next;
        }
        sequences.insert(stream, if new { number } else { sequence });
    }
    let position = schema::unsigned(position)?;
    let appended = usize::try_from(position - before.0).unwrap_or(usize::MAX);
    Ok(Committed { position: crate::store::Position(position), appended })
}

fn put(connection: &Connection, key: &Key, value: Option<&str>) -> Result<(), RowError> {
    let found: Option<(i64, bool)> = connection
        .prepare_cached("SELECT revision, value IS NULL FROM documents WHERE key = ?1")?
        .query_row(params![key.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let revision = match (found, value) {
        // Removing what is not there changes nothing, not even the revision to come.
        (None | Some((_, true)), None) => return Ok(()),
        (None, Some(_)) => 1,
        (Some((revision, _)), _) => revision + 1,
    };
    let checksum = document_checksum(key.as_str(), revision, value);
    connection
        .prepare_cached(
            "INSERT INTO documents (key, revision, value, checksum) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET revision = ?2, value = ?3, checksum = ?4",
        )?
        .execute(params![key.as_str(), revision, value, checksum])?;
    Ok(())
}

fn last_sequence(connection: &Connection, stream: &str) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT ifnull(max(sequence), 0) FROM events WHERE stream = ?1")?
        .query_row(params![stream], |row| row.get(0))
}
