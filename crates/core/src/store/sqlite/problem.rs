//! What SQLite's and the file system's errors mean, and what to do about each.

use std::path::PathBuf;

use rusqlite::{Error, ErrorCode, ffi};

use super::{schema::RowError, snapshot};
use crate::{
    error::BoxError,
    store::{
        StoreError,
        place::{FAILING, FULL, Place, UNWRITABLE},
    },
};

impl Place {
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("flowline.db")
    }

    /// The write-ahead log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("flowline.db-wal")
    }

    pub(super) fn snapshots(&self) -> PathBuf {
        self.folder.join("snapshots")
    }

    /// What `error` means to somebody who was `doing` something.
    pub(super) fn problem(&self, doing: &'static str, error: Error) -> StoreError {
        let place = self.to_string();
        let (code, extended) = match &error {
            Error::SqliteFailure(failure, _) => (failure.code, failure.extended_code),
            // Rows of another shape than the one that this program writes.
            Error::FromSqlConversionFailure(..)
            | Error::InvalidColumnType(..)
            | Error::IntegralValueOutOfRange(..) => {
                return self.corrupt(error.into());
            }
            _ => return StoreError::Backend { doing, place, source: error.into() },
        };
        let unavailable = |help: &str, source| StoreError::Unavailable {
            doing,
            place: place.clone(),
            help: help.to_owned(),
            source,
        };
        match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                StoreError::Busy { place, source: error.into() }
            }
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => self.corrupt(error.into()),
            ErrorCode::DiskFull => unavailable(FULL, error.into()),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen => {
                unavailable(UNWRITABLE, error.into())
            }
            ErrorCode::SystemIoFailure => match extended {
                ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA => {
                    self.corrupt(error.into())
                }
                // The only writes that SQLite does not report as a full disk are those that make room in advance.
                ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_TRUNCATE => {
                    unavailable(FULL, error.into())
                }
                _ => unavailable(FAILING, error.into()),
            },
            _ => StoreError::Backend { doing, place, source: error.into() },
        }
    }

    /// The same for an error of a single row.
    pub(super) fn row_problem(&self, doing: &'static str, error: RowError) -> StoreError {
        match error {
            RowError::Sqlite(error) => self.problem(doing, error),
            RowError::Damaged(_) => self.corrupt(error.into()),
        }
    }

    /// Damage, with the way to recover from the newest snapshot that there is.
    pub(super) fn corrupt(&self, source: BoxError) -> StoreError {
        let snapshots = self.snapshots();
        let help = match snapshot::newest(&snapshots) {
            Some(snapshot) => format!(
                "stop what uses it, then call `SqliteStore::restore`, which keeps the damaged files and puts the last verified snapshot in \
                 their place ({}, up to event {}), or import an export into an empty folder",
                snapshot.path.display(),
                snapshot.position
            ),
            None => format!(
                "there is no snapshot in {}; move the damaged files away and import an export (`SqliteStore::import`) into an empty folder",
                snapshots.display()
            ),
        };
        StoreError::Corrupt { place: self.to_string(), help, source }
    }
}
