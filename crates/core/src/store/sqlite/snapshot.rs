//! Copies to recover from: verified snapshots of the file, and exports that any later version can read.

use std::{
    fs::{self, File},
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    sync::{
        PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    SqliteStore,
    schema::{self, RowError, document_checksum, event_checksum},
};
use crate::{
    digest::Digest,
    store::{
        Position, StoreError,
        export::{self, Exporter, Line},
        flush::flush_folder,
        place::Place,
    },
};

/// How many automatically named snapshots are kept.
const KEPT: usize = 3;

/// A copy of a store that was verified after it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where it is.
    pub path: PathBuf,
    /// The position of its last event.
    pub position: Position,
}

impl SqliteStore {
    /// Writes a snapshot to `snapshots/` in the store's folder, named by the position of its last event, and removes all but the newest
    /// three there. [`restore`](Self::restore) and the help of [`StoreError::Corrupt`] look there.
    ///
    /// Writers go on meanwhile. Blocks its thread until the copy is written, verified (structure, indexes, each row's checksum, no event
    /// missing) and on the disk.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if it can't be written, [`StoreError::Corrupt`] if the store turns out to be damaged: no snapshot is
    /// left then.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let place = &self.shared.place;
        let folder = place.snapshots();
        fs::create_dir_all(&folder).map_err(|error| place.io_problem("snapshot", error))?;
        let snapshot = self.copy(&folder, |position| folder.join(format!("{:020}.db", position.0)))?;
        for old in all(&folder).into_iter().skip(KEPT) {
            // One that cannot be removed is only in the way.
            let _kept = fs::remove_file(old.path);
        }
        Ok(snapshot)
    }

    /// Writes a snapshot to `path`, replacing what is there.
    ///
    /// # Errors
    /// As [`snapshot`](Self::snapshot).
    pub fn snapshot_to(&self, path: impl AsRef<Path>) -> Result<Snapshot, StoreError> {
        let path = path.as_ref();
        let folder = path.parent().unwrap_or(Path::new(""));
        self.copy(folder, |_| path.to_owned())
    }

    /// Copies into a file of another name, verifies it, then gives it its name.
    fn copy(&self, folder: &Path, name: impl Fn(Position) -> PathBuf) -> Result<Snapshot, StoreError> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        let place = &self.shared.place;
        let failed = |error| place.io_problem("snapshot", error);
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let part = folder.join(format!("part-{}-{number}", std::process::id()));
        let written = (|| {
            self.vacuum_into(&part)?;
            let position = verify(place, &part)?;
            let path = name(position);
            File::options().write(true).open(&part).and_then(|file| file.sync_all()).map_err(failed)?;
            fs::rename(&part, &path).map_err(failed)?;
            flush_folder(folder).map_err(failed)?;
            Ok(Snapshot { path, position })
        })();
        if written.is_err() {
            let _kept = fs::remove_file(&part);
        }
        written
    }

    fn vacuum_into(&self, part: &Path) -> Result<(), StoreError> {
        let place = &self.shared.place;
        let Some(path) = part.to_str() else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "the path is not UTF-8");
            return Err(place.io_problem("snapshot", error));
        };
        // A connection of its own: one of the pool only reads, and this takes long.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let vacuum = || {
            let connection = Connection::open_with_flags(place.file(), flags)?;
            connection.busy_timeout(self.shared.options.busy_limit)?;
            connection.execute("VACUUM INTO ?1", params![path])
        };
        vacuum().map(|_| ()).map_err(|error| place.problem("snapshot", error))
    }

    /// Puts the newest sound snapshot of `folder` in the place of its store, whose files move to `damaged-1` (or the next free number).
    ///
    /// Nobody may have the store open. Done again after a crash, it goes on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if there is no sound snapshot; [`StoreError::Unavailable`].
    pub fn restore(folder: impl AsRef<Path>) -> Result<Snapshot, StoreError> {
        let place = Place::new(folder.as_ref());
        let failed = |error| place.io_problem("restore", error);
        let sound = all(&place.snapshots()).into_iter().find(|it| verify(&place, &it.path).is_ok());
        let Some(snapshot) = sound else {
            let help = format!(
                "there is no sound snapshot in {}; import an export into an empty folder",
                place.snapshots().display()
            );
            let source = "no snapshot passed its verification".into();
            return Err(StoreError::Corrupt { place: place.to_string(), help, source });
        };
        let part = place.folder.join("flowline.db.part");
        fs::copy(&snapshot.path, &part).and_then(|_| File::open(&part)?.sync_all()).map_err(failed)?;
        let damaged = (1..=u32::MAX)
            .map(|number| place.folder.join(format!("damaged-{number}")))
            .find(|folder| !folder.exists())
            .unwrap_or_else(|| place.folder.join("damaged"));
        fs::create_dir(&damaged).map_err(failed)?;
        // The log first: it must never meet the restored file. The file itself is replaced in one step, so that it is never missing.
        for name in ["flowline.db-wal", "flowline.db-shm"] {
            move_away(&place.folder.join(name), &damaged.join(name)).map_err(failed)?;
        }
        if place.file().exists() {
            let kept = damaged.join("flowline.db");
            fs::hard_link(place.file(), &kept)
                .or_else(|_| fs::copy(place.file(), &kept).map(|_| ()))
                .map_err(failed)?;
        }
        fs::rename(&part, place.file()).map_err(failed)?;
        flush_folder(&place.folder).map_err(failed)?;
        Ok(snapshot)
    }

    /// Writes everything as JSON lines: documents, events, a closing digest, as they were at one instant. Same state, same bytes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if `out` can't be written, [`StoreError::Corrupt`] at the first damaged row.
    pub fn export(&self, out: impl Write) -> Result<Digest, StoreError> {
        enum Problem {
            Row(RowError),
            Out(io::Error),
        }
        impl From<RowError> for Problem {
            fn from(error: RowError) -> Self {
                Self::Row(error)
            }
        }
        let place = &self.shared.place;
        let run = |connection: &Connection| -> Result<Digest, Problem> {
            // One read transaction, so one instant.
            let transaction = connection.unchecked_transaction().map_err(RowError::from)?;
            let mut exporter = Exporter::start(out).map_err(Problem::Out)?;
            schema::each_document(&transaction, |key, revision, document| {
                let value = document.map(|document| document.value);
                exporter.document(key, revision, value).map_err(Problem::Out)
            })?;
            schema::each_event(&transaction, |recorded| exporter.event(recorded).map_err(Problem::Out))?;
            exporter.end().map_err(Problem::Out)
        };
        let connection = schema::reader(place, &self.shared.options)?;
        run(&connection).map_err(|problem| match problem {
            Problem::Row(error) => place.row_problem("export", error),
            Problem::Out(error) => place.io_problem("export", error),
        })
    }

    /// Opens a store in `folder`, which must hold none or an empty one, and fills it from an export: all of it or nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the line if the export was cut or altered; [`StoreError::Batch`] if the store is not empty; else as
    /// [`open`](Self::open).
    pub fn import(folder: impl AsRef<Path>, input: impl BufRead) -> Result<Self, StoreError> {
        let store = Self::open(folder)?;
        {
            let place = &store.shared.place;
            let failed = |error| place.problem("import into", error);
            let mut connection = store.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            let empty: bool = transaction
                .query_row(
                    "SELECT NOT EXISTS (SELECT 1 FROM documents) AND NOT EXISTS (SELECT 1 FROM events)",
                    [],
                    |row| row.get(0),
                )
                .map_err(failed)?;
            if !empty {
                return Err(StoreError::Batch(format!(
                    "the store at {place} is not empty; import into an empty folder"
                )));
            }
            export::import(input, |line| insert(place, &transaction, line))?;
            transaction.commit().map_err(failed)?;
            store.shared.flusher.flush_now().map_err(|error| place.flush_problem(error))?;
        }
        Ok(store)
    }
}

/// The newest snapshot in `folder`, by name.
pub(super) fn newest(folder: &Path) -> Option<Snapshot> {
    all(folder).into_iter().next()
}

/// The automatically named snapshots in `folder`, the newest first.
fn all(folder: &Path) -> Vec<Snapshot> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<Snapshot> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.strip_suffix(".db")?.parse().ok()?;
            Some(Snapshot { path, position: Position(number) })
        })
        .collect();
    found.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.position));
    found
}

fn verify(place: &Place, path: &Path) -> Result<Position, StoreError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(|error| place.problem("verify", error))?;
    schema::verify(place, &connection)
}

fn insert(place: &Place, connection: &Connection, line: Line) -> Result<(), StoreError> {
    let put = |line: Line| -> Result<(), RowError> {
        let damaged = |error: serde_json::Error| RowError::Damaged(error.to_string());
        match line {
            Line::Document { key, revision, value } => {
                let value =
                    value.map(|value| serde_json::to_string(&value.is)).transpose().map_err(damaged)?;
                let revision = revision.0.cast_signed();
                let checksum = document_checksum(key.as_str(), revision, value.as_deref());
                connection
                    .prepare_cached(
                        "INSERT INTO documents (key, revision, value, checksum) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute(params![key.as_str(), revision, value, checksum])?;
            }
            Line::Event(recorded) => {
                let body = serde_json::to_string(&recorded.event).map_err(damaged)?;
                let (position, sequence) =
                    (recorded.position.0.cast_signed(), recorded.sequence.cast_signed());
                let (stream, id) = (recorded.stream.as_str(), recorded.event.id.as_str());
                let checksum = event_checksum(position, stream, sequence, id, &body);
                connection
                    .prepare_cached(
                        "INSERT INTO events (position, stream, sequence, id, body, checksum) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    )?
                    .execute(params![position, stream, sequence, id, body, checksum])?;
            }
            Line::FlowlineExport { .. } | Line::End { .. } => {}
        }
        Ok(())
    };
    put(line).map_err(|error| place.row_problem("import into", error))
}

fn move_away(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
