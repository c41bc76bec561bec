//! What SQLite's and the file system's errors mean, and what to do about each.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rusqlite::{Error, ErrorCode, ffi};

use super::{schema::RowError, snapshot};
use crate::{error::BoxError, store::StoreError};

/// Where a store is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) folder: PathBuf,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.display().fmt(f)
    }
}

impl Place {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

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

    /// The same for an error of the file system.
    pub(super) fn io_problem(&self, doing: &'static str, error: std::io::Error) -> StoreError {
        use std::io::ErrorKind as Io;
        let help = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => FULL,
            Io::PermissionDenied | Io::ReadOnlyFilesystem | Io::NotADirectory | Io::AlreadyExists => {
                UNWRITABLE
            }
            _ => FAILING,
        };
        StoreError::Unavailable {
            doing,
            place: self.to_string(),
            help: help.to_owned(),
            source: error.into(),
        }
    }

    /// A flush that the disk did not confirm.
    pub(super) fn flush_problem(&self, message: String) -> StoreError {
        StoreError::Unavailable {
            doing: "sync",
            place: self.to_string(),
            help: "the disk did not confirm what was written; check it, then open the store again".to_owned(),
            source: message.into(),
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

const FULL: &str = "the disk is full; free some space and try again, nothing was written";
const UNWRITABLE: &str =
    "the folder or a file in it cannot be made or written; check its permissions, or choose another folder";
const FAILING: &str = "the disk reports an error; check it and try again";
