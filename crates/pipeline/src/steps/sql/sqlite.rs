//! SQLite, in a file on this host.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use flowline_core::{
    Timestamp,
    error::{BoxError, ErrorKind},
    grant::Granted,
    id::ResourceId,
};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{Applied, Database, DatabaseError, Migration};
use crate::cancel::Cancel;

/// A database in a SQLite file. The lock of its write transaction is what keeps other processes out; who waits longer than two seconds for
/// it hears `Busy`.
///
/// The record is the table `flowline_migrations`. A script runs with foreign keys as the file has them; pragmas that can't change within a
/// transaction have no effect in it.
#[derive(Debug, Clone)]
pub struct SqliteDatabase {
    path: PathBuf,
}

const PATIENCE: Duration = Duration::from_secs(2);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS flowline_migrations (
    version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_by TEXT NOT NULL, applied_at TEXT NOT NULL
) STRICT";

impl SqliteDatabase {
    /// The database in the file `path`, which is made by the first migration if it is not there.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> DatabaseError {
        let database = self.path.display().to_string();
        move |error| DatabaseError::Backend {
            doing,
            database: database.clone(),
            kind: kind(&error),
            source: error.into(),
        }
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection, DatabaseError> {
        let failed = self.failed("open");
        let connection = Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(&failed)?;
        connection.busy_timeout(PATIENCE).map_err(&failed)?;
        Ok(connection)
    }

    fn write<T>(
        &self,
        migration: &Migration,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let mut connection = self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
        let failed = self.failed("migrate");
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(&failed)?;
        transaction.execute_batch(TABLE).map_err(&failed)?;
        let done = work(&transaction)?;
        if transaction.is_autocommit() {
            return Err(DatabaseError::Transaction { migration: migration.shown() });
        }
        transaction.commit().map_err(&failed)?;
        Ok(done)
    }

    fn run(
        &self,
        transaction: &Transaction<'_>,
        script: &str,
        migration: &Migration,
    ) -> Result<(), DatabaseError> {
        transaction.execute_batch(script).map_err(|error| match kind(&error) {
            ErrorKind::Failed => DatabaseError::Script { migration: migration.shown(), source: error.into() },
            _ => self.failed("migrate")(error),
        })
    }

    fn newest(&self, transaction: &Transaction<'_>) -> Result<Option<u64>, DatabaseError> {
        let sql = "SELECT max(version) FROM flowline_migrations";
        let newest: Option<i64> =
            transaction.query_row(sql, [], |row| row.get(0)).map_err(self.failed("read the record of"))?;
        Ok(newest.and_then(|version| u64::try_from(version).ok()))
    }

    fn damaged(&self, source: impl Into<BoxError>) -> DatabaseError {
        DatabaseError::Backend {
            doing: "read the record of",
            database: self.path.display().to_string(),
            kind: ErrorKind::Corrupt,
            source: source.into(),
        }
    }
}

fn kind(error: &rusqlite::Error) -> ErrorKind {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ErrorKind::Busy,
        Some(ErrorCode::DiskFull) => ErrorKind::Unavailable,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => ErrorKind::Denied,
        Some(ErrorCode::CannotOpen) => ErrorKind::NotFound,
        _ => ErrorKind::Failed,
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn history(&self, _: &Granted<ResourceId>) -> Result<Vec<Applied>, DatabaseError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let (connection, failed) =
            (self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)?, self.failed("read the record of"));
        if !connection.table_exists(None, "flowline_migrations").map_err(&failed)? {
            return Ok(Vec::new());
        }
        let sql = "SELECT version, name, checksum, applied_by, applied_at FROM flowline_migrations ORDER BY version";
        let mut statement = connection.prepare(sql).map_err(&failed)?;
        let mut rows = statement.query([]).map_err(&failed)?;
        let mut history = Vec::new();
        while let Some(row) = rows.next().map_err(&failed)? {
            let text = |index| row.get::<_, String>(index).map_err(&failed);
            let version: i64 = row.get(0).map_err(&failed)?;
            history.push(Applied {
                version: u64::try_from(version).map_err(|error| self.damaged(error))?,
                name: text(1)?,
                checksum: text(2)?
                    .parse()
                    .map_err(|error: flowline_core::name::NameError| self.damaged(error))?,
                by: text(3)?,
                at: text(4)?.parse::<Timestamp>().map_err(|error| self.damaged(error))?,
            });
        }
        Ok(history)
    }

    async fn apply(
        &self,
        _: &Granted<ResourceId>,
        migration: &Migration,
        record: &Applied,
        after: Option<u64>,
        _: &Cancel,
    ) -> Result<(), DatabaseError> {
        self.write(migration, |transaction| {
            let found = self.newest(transaction)?;
            if found != after {
                return Err(DatabaseError::Moved { expected: after, found });
            }
            self.run(transaction, &migration.up, migration)?;
            let sql = "INSERT INTO flowline_migrations VALUES (?1, ?2, ?3, ?4, ?5)";
            let version = i64::try_from(record.version).map_err(|error| self.damaged(error))?;
            let row =
                params![version, record.name, record.checksum.to_string(), record.by, record.at.to_string()];
            transaction.execute(sql, row).map_err(self.failed("migrate"))?;
            Ok(())
        })
    }

    async fn revert(
        &self,
        _: &Granted<ResourceId>,
        migration: &Migration,
        _: &Cancel,
    ) -> Result<(), DatabaseError> {
        let Some(down) = &migration.down else {
            return Err(DatabaseError::NoDown { migration: migration.shown() });
        };
        self.write(migration, |transaction| {
            let (found, expected) = (self.newest(transaction)?, Some(migration.version));
            if found != expected {
                return Err(DatabaseError::Moved { expected, found });
            }
            self.run(transaction, down, migration)?;
            let version = i64::try_from(migration.version).map_err(|error| self.damaged(error))?;
            let sql = "DELETE FROM flowline_migrations WHERE version = ?1";
            transaction.execute(sql, [version]).map_err(self.failed("migrate"))?;
            Ok(())
        })
    }
}
