//! What the file looks like: tables, settings, checksums, and the checks when it is opened.

use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior, config::DbConfig};

use super::SqliteOptions;
use crate::{
    error::BoxError,
    event::Recorded,
    id::{Key, StreamId},
    store::{Document, Position, Revision, StoreError, place::Place},
};

/// `flow` in ASCII; marks the file as ours.
const APPLICATION: i32 = 0x666c_6f77;
/// The version of the tables.
const VERSION: i32 = 1;

/// How long the log grows before its pages are copied back into the file and it is written from the start again, in bytes. Short enough
/// to be reserved in advance, long enough that a page that many commits change is copied back once.
pub(super) const LOG: i64 = 4 << 20;

const TABLES: &str = "
    CREATE TABLE documents (
        key TEXT PRIMARY KEY NOT NULL,
        revision INTEGER NOT NULL,
        value TEXT,  -- NULL: removed; the revision goes on counting
        checksum INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        position INTEGER PRIMARY KEY NOT NULL,
        stream TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        id TEXT NOT NULL UNIQUE,
        body TEXT NOT NULL,
        checksum INTEGER NOT NULL,
        UNIQUE (stream, sequence)
    ) STRICT;
";

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("{0}")]
    Damaged(String),
}

/// Opens the file, makes it if need be, checks it, and answers the connection that writes.
pub(super) fn open(place: &Place, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let failed = |error| place.problem("open", error);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(place.file(), flags).map_err(failed)?;
    settle(&connection, options.busy_limit).map_err(failed)?;
    if owner(place, &connection)? == Owner::Nobody {
        connection.pragma_update(None, "page_size", options.page_size).map_err(failed)?;
    }
    log_ahead(&connection).map_err(failed)?;
    if owner(place, &connection)? == Owner::Nobody {
        create(place, &mut connection)?;
    }
    if options.check {
        check(place, &connection)?;
    }
    limit_log(&connection).map_err(failed)?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn reader(place: &Place, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let connection = Connection::open_with_flags(place.file(), flags)?;
        settle(&connection, options.busy_limit)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error| place.problem("open", error))
}

/// Settings that belong to a connection, not to the file.
fn settle(connection: &Connection, busy_limit: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy_limit)?;
    // The log is flushed by `sync`, after the commit; with NORMAL, SQLite itself flushes around checkpoints, which keeps the order.
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.pragma_update(None, "temp_store", "memory")?;
    // Without this a statement is planned anew whenever a parameter that the planner looked at has another value: at every append.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Has changes written to a log first, which the file remembers. Of several that turn it on at once, each may hold what the other one
/// waits for; SQLite then says busy at once instead of waiting. So this one waits for its turn to write, and asks again: as soon as one
/// of them has turned it on, nobody needs the file alone any more.
fn log_ahead(connection: &Connection) -> rusqlite::Result<()> {
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                connection.execute_batch("BEGIN EXCLUSIVE; COMMIT")?;
            }
            done => return done,
        }
    }
}

/// Copies the log back each time it has grown to [`LOG`].
fn limit_log(connection: &Connection) -> rusqlite::Result<()> {
    const FRAME_HEADER: i64 = 24;
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", LOG / (page + FRAME_HEADER), |_| Ok(()))
}

#[derive(PartialEq)]
enum Owner {
    Nobody,
    Flowline,
}

/// Whose file it is.
fn owner(place: &Place, connection: &Connection) -> Result<Owner, StoreError> {
    let number = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
            .map_err(|error| place.problem("open", error))
    };
    // All three as of one moment: another process may be making the tables between two reads.
    let _moment = if connection.is_autocommit() {
        Some(connection.unchecked_transaction().map_err(|error| place.problem("open", error))?)
    } else {
        None
    };
    let refuse = |help: &str| StoreError::Unavailable {
        doing: "open",
        place: place.to_string(),
        help: help.to_owned(),
        source: "the file is not one of this version's".into(),
    };
    match (number("application_id")?, number("user_version")?) {
        (APPLICATION, VERSION) => Ok(Owner::Flowline),
        (APPLICATION, _) => Err(refuse("it was written by another version of flowline; use that one")),
        (0, 0) if number("schema_version")? == 0 => Ok(Owner::Nobody),
        _ => Err(refuse("its file belongs to another program; choose another folder")),
    }
}

/// Makes the tables, unless another process did meanwhile.
fn create(place: &Place, connection: &mut Connection) -> Result<(), StoreError> {
    let failed = |error| place.problem("open", error);
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    if owner(place, &transaction)? == Owner::Nobody {
        transaction.execute_batch(TABLES).map_err(failed)?;
        transaction.pragma_update(None, "application_id", APPLICATION).map_err(failed)?;
        transaction.pragma_update(None, "user_version", VERSION).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}

/// Checks the structure of the file.
fn check(place: &Place, connection: &Connection) -> Result<(), StoreError> {
    let said: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|error| place.problem("open", error))?;
    if said == "ok" { Ok(()) } else { Err(place.corrupt(said.into())) }
}

/// Checks structure, indexes and every row, and answers the position of the last event.
pub(super) fn verify(place: &Place, connection: &Connection) -> Result<Position, StoreError> {
    let failed = |error: RowError| place.row_problem("read", error);
    let read = || -> Result<(String, Position), RowError> {
        let said: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        each_document(connection, |_, _, _| Ok::<_, RowError>(()))?;
        let mut last = Position::START;
        let mut gap = None;
        each_event(connection, |recorded| {
            if recorded.position.0 != last.0 + 1 {
                gap = Some(format!("event {} is missing", last.0 + 1));
            }
            last = recorded.position;
            Ok::<_, RowError>(())
        })?;
        Ok((gap.unwrap_or(said), last))
    };
    let (said, last) = read().map_err(failed)?;
    if said == "ok" { Ok(last) } else { Err(place.corrupt(said.into())) }
}

/// Hands every document to `each`, also those that were removed.
pub(super) fn each_document<E: From<RowError>>(
    connection: &Connection,
    mut each: impl FnMut(Key, Revision, Option<Document>) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = connection
        .prepare("SELECT key, revision, value, checksum FROM documents ORDER BY key")
        .map_err(RowError::from)?;
    let mut rows = statement.query([]).map_err(RowError::from)?;
    while let Some(row) = rows.next().map_err(RowError::from)? {
        let revision = Revision(unsigned(row.get(1).map_err(RowError::from)?)?);
        let (key, document) = document(row)?;
        each(key, revision, document)?;
    }
    Ok(())
}

/// Hands every event to `each`.
pub(super) fn each_event<E: From<RowError>>(
    connection: &Connection,
    mut each: impl FnMut(Recorded) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement = connection
        .prepare("SELECT position, stream, sequence, id, body, checksum FROM events ORDER BY position")
        .map_err(RowError::from)?;
    let mut rows = statement.query([]).map_err(RowError::from)?;
    while let Some(row) = rows.next().map_err(RowError::from)? {
        each(recorded(row)?)?;
    }
    Ok(())
}

/// The position of the last event.
pub(super) fn head(connection: &Connection) -> rusqlite::Result<Position> {
    let mut statement = connection.prepare_cached("SELECT ifnull(max(position), 0) FROM events")?;
    let head: i64 = statement.query_row([], |row| row.get(0))?;
    Ok(Position(u64::try_from(head).unwrap_or(0)))
}

/// A document from the columns key, revision, value, checksum; without its content if it was removed.
pub(super) fn document(row: &Row<'_>) -> Result<(Key, Option<Document>), RowError> {
    let key = row.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?;
    let revision: i64 = row.get(1)?;
    let value = row.get_ref(2)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    let checksum: i64 = row.get(3)?;
    let damaged =
        |error: BoxError| RowError::Damaged(format!("document `{}`: {error}", key.escape_default()));
    if checksum != document_checksum(key, revision, value) {
        return Err(damaged("its checksum does not fit".into()));
    }
    let name = Key::new(key).map_err(|error| damaged(error.into()))?;
    let Some(value) = value else { return Ok((name, None)) };
    let value = serde_json::from_str(value).map_err(|error| damaged(error.into()))?;
    Ok((name, Some(Document { revision: Revision(unsigned(revision)?), value })))
}

/// An event from the columns position, stream, sequence, id, body, checksum.
pub(super) fn recorded(row: &Row<'_>) -> Result<Recorded, RowError> {
    let position: i64 = row.get(0)?;
    let stream = row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?;
    let sequence: i64 = row.get(2)?;
    let id = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    let body = row.get_ref(4)?.as_str().map_err(rusqlite::Error::from)?;
    let checksum: i64 = row.get(5)?;
    let damaged = |error: BoxError| RowError::Damaged(format!("event {position}: {error}"));
    if checksum != event_checksum(position, stream, sequence, id, body) {
        return Err(damaged("its checksum does not fit".into()));
    }
    Ok(Recorded {
        position: Position(unsigned(position)?),
        stream: StreamId::new(stream).map_err(|error| damaged(error.into()))?,
        sequence: unsigned(sequence)?,
        event: serde_json::from_str(body).map_err(|error| damaged(error.into()))?,
    })
}

pub(super) fn unsigned(number: i64) -> Result<u64, RowError> {
    u64::try_from(number).map_err(|_| RowError::Damaged(format!("the number {number} is negative")))
}

pub(super) fn document_checksum(key: &str, revision: i64, value: Option<&str>) -> i64 {
    checksum(&[
        key.as_bytes(),
        &revision.to_le_bytes(),
        value.unwrap_or("").as_bytes(),
        &[u8::from(value.is_some())],
    ])
}

pub(super) fn event_checksum(position: i64, stream: &str, sequence: i64, id: &str, body: &str) -> i64 {
    checksum(&[
        &position.to_le_bytes(),
        stream.as_bytes(),
        &sequence.to_le_bytes(),
        id.as_bytes(),
        body.as_bytes(),
    ])
}

/// FNV-1a over 64 bits: any single changed byte changes it. It is against decay, not against malice.
fn checksum(parts: &[&[u8]]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in *part {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        // No byte of a text: keeps the parts' borders.
        hash = (hash ^ 0xff).wrapping_mul(0x0100_0000_01b3);
    }
    hash.cast_signed()
}
