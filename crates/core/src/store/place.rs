//! Where a store's files are, and what the file system's errors mean there.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{StoreError, flush::flush_folder};

/// A store's folder.
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

    /// Makes the folder, durably: a synced commit is no use in a folder that a power cut takes away.
    pub(super) fn make(&self) -> Result<(), StoreError> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let failed = |error| self.io_problem("open", error);
        fs::create_dir_all(&self.folder).map_err(failed)?;
        self.folder.parent().map_or(Ok(()), flush_folder).map_err(failed)
    }

    /// What the file system's `error` means to somebody who was `doing` something.
    pub(super) fn io_problem(&self, doing: &'static str, error: io::Error) -> StoreError {
        use io::ErrorKind as Io;
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
}

pub(super) const FULL: &str = "the disk is full; free some space and try again, nothing was written";
pub(super) const UNWRITABLE: &str =
    "the folder or a file in it cannot be made or written; check its permissions, or choose another folder";
pub(super) const FAILING: &str = "the disk reports an error; check it and try again";
