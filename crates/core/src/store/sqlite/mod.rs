//! The embedded store: one SQLite file in a folder, used by several processes at once.
//!
//! How it keeps the contract of [`Store`]:
//! - *Atomic*: a batch is one `IMMEDIATE` transaction; everything is checked before anything is written. SQLite's write-ahead log is cut
//!   back to its last whole commit when a crash tore it, wherever that was ("Write-Ahead Logging", sqlite.org/wal.html).
//! - *Durable*: `Written` is in the log file when `commit` returns, which survives SIGKILL. `Synced` has the log flushed with fdatasync
//!   after the commit, outside of the write lock: writers that commit while a flush runs share the next one (group commit), and a flush
//!   makes everything durable that the log held before.
//! - *Sound*: each row carries a checksum that is verified when it is read, the file's structure is checked when it is opened.

mod problem;
mod schema;
mod snapshot;
mod watch;
mod write;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, params};

pub use self::snapshot::Snapshot;
use self::watch::Watch;
use super::{
    Batch, Committed, Document, Durability, EventQuery, Position, Store, StoreCapabilities, StoreError,
    flush::Flusher, place::Place, waiters::Waiters,
};
use crate::{event::Recorded, id::Key};

/// How a [`SqliteStore`] is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SqliteOptions {
    /// How long a write waits for another process to finish its own before it fails as `Busy`. 5 s.
    pub busy_limit: Duration,
    /// Whether opening checks the structure of the whole file, which takes about 1 ms for each MB. Yes.
    pub check: bool,
    /// The size of a page of a file that is made, in bytes: a power of two from 512 to 65,536. 2,048: a commit writes
    /// whole pages, and most events and documents are small.
    pub page_size: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { busy_limit: Duration::from_secs(5), check: true, page_size: 2_048 }
    }
}

/// A [`Store`] in a folder, for several processes at once. Clones share the connections.
///
/// The folder holds `flowline.db` with SQLite's two companions, and `snapshots/` (see [`snapshot`](Self::snapshot)). It must be on a
/// local file system: SQLite's locks and shared memory do not work over a network.
///
/// A commit runs on the caller's thread and blocks it for some 20 µs, or while another process writes (at most
/// [`busy_limit`](SqliteOptions::busy_limit)). A `Synced` one then waits for the disk: one of the waiting tasks blocks its thread for
/// that, the others wait asynchronously.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use flowline_core::{id::Key, store::{Batch, Durability, SqliteStore, Store}};
/// let folder = tempfile::tempdir()?;
/// let store = SqliteStore::open(folder.path())?;
/// store.commit(Batch::new().put(Key::new("a")?, 1.into()).durably(Durability::Synced)).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    options: SqliteOptions,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    flusher: Flusher,
    waiters: Waiters,
    watch: Watch,
}

impl SqliteStore {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the folder or file can't be made or written, or belongs to another program, another kind of store or a newer version;
    /// [`StoreError::Corrupt`] if the file is damaged, with the way to recover; [`StoreError::Busy`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(folder, SqliteOptions::default())
    }

    /// The same, with other options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(folder: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let place = Place::new(folder.as_ref());
        place.make()?;
        if !place.file().exists() && place.folder.join("flowline.log").exists() {
            return Err(StoreError::Unavailable {
                doing: "open",
                place: place.to_string(),
                help: "the folder holds a log; open it with `LogStore`, import its export elsewhere, or choose another folder".to_owned(),
                source: "it has a file `flowline.log`".into(),
            });
        }
        let writer = schema::open(&place, &options)?;
        Ok(Self {
            shared: Arc::new(Shared {
                flusher: Flusher::new(place.log()),
                place,
                options,
                writer: Mutex::new(writer),
                readers: Mutex::default(),
                waiters: Waiters::default(),
                watch: Watch::default(),
            }),
        })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.place.folder
    }

    /// The file in the folder.
    pub fn file(&self) -> PathBuf {
        self.shared.place.file()
    }

    /// How often this store flushed the disk for `Synced` commits: less often than it had such commits, if they came at once.
    pub fn flushes(&self) -> u64 {
        self.shared.flusher.flushes()
    }
}

impl Shared {
    /// Answers a question in one read transaction, with a connection of the pool.
    fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T, schema::RowError>) -> Result<T, StoreError> {
        const KEPT: usize = 8;
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => schema::reader(&self.place, &self.options)?,
        };
        let answer = ask(&connection).map_err(|error| self.place.row_problem("read", error))?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < KEPT {
            readers.push(connection);
        }
        Ok(answer)
    }

    fn head(&self) -> Result<Position, StoreError> {
        self.read(|connection| Ok(schema::head(connection)?))
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::NONE.surviving_restart().for_several_processes().surviving_power_loss()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let shared = &*self.shared;
        let durability = batch.durability;
        let committed = shared.write(&batch)?;
        if committed.appended > 0 {
            shared.waiters.wake(committed.position);
        }
        if durability == Durability::Synced {
            shared.flusher.flush().await.map_err(|error| shared.place.flush_problem(error))?;
        }
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.shared.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT key, revision, value, checksum FROM documents WHERE key = ?1")?;
            let row =
                statement.query_row(params![key.as_str()], |row| Ok(schema::document(row))).optional()?;
            Ok(row.transpose()?.and_then(|(_, document)| document))
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.shared.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT key, revision, value, checksum FROM documents WHERE key >= ?1 ORDER BY key",
            )?;
            let mut rows = statement.query(params![prefix])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                let (key, document) = schema::document(row)?;
                if !key.as_str().starts_with(prefix) {
                    break;
                }
                found.extend(document.map(|document| (key, document)));
            }
            Ok(found)
        })
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        // SQLite's integers end at 2^63 - 1, which no position reaches.
        let after = i64::try_from(query.after.0).unwrap_or(i64::MAX);
        let limit = query.limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(-1));
        self.shared.read(|connection| {
            let mut statement = connection.prepare_cached(match query.stream {
                None => {
                    "SELECT position, stream, sequence, id, body, checksum FROM events
                     WHERE position > ?1 ORDER BY position LIMIT ?2"
                }
                Some(_) => {
                    "SELECT position, stream, sequence, id, body, checksum FROM events
                     WHERE stream = ?3 AND position > ?1 ORDER BY sequence LIMIT ?2"
                }
            })?;
            let mut rows = match &query.stream {
                None => statement.query(params![after, limit])?,
                Some(stream) => statement.query(params![after, limit, stream.as_str()])?,
            };
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push(schema::recorded(row)?);
            }
            Ok(found)
        })
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.shared.head()
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        let head = || {
            watch::ensure(&self.shared)?;
            self.shared.head()
        };
        self.shared.waiters.wait(after, head).await
    }
}

#[cfg(test)]
mod tests;
