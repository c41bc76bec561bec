//! How things are written so that they are there whole or not at all: under another name, flushed, then renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::provision::ProvisionError;

/// The error for a system call on `path` that failed, with what to do about it.
pub(super) fn unavailable(doing: &'static str, path: &Path, source: io::Error) -> ProvisionError {
    let help = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "there is no space left; free some and try again"
        }
        io::ErrorKind::PermissionDenied => "permission was denied; let this user write there",
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only; choose another place",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "a file stands where a directory is needed; choose another place"
        }
        io::ErrorKind::NotFound => "it is not there",
        _ => "the system refused",
    };
    ProvisionError::Unavailable { doing, path: path.to_owned(), help, source: source.into() }
}

/// Creates a directory and those above it, if they are not there.
pub(super) fn create_dirs(path: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(path).map_err(|error| unavailable("create", path, error))
}

/// Writes `content` to `path`: whole, or as it was.
pub(super) fn write_json(path: &Path, content: &impl Serialize) -> Result<(), ProvisionError> {
    let failed = |error| unavailable("write", path, error);
    let mut text = serde_json::to_vec_pretty(content).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let beside = path.with_extension("new");
    let write = || -> io::Result<()> {
        // Records hold what processes are told, which is nobody else's affair.
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_parent(path)
    };
    write().map_err(|error| {
        fs::remove_file(&beside).ok();
        failed(error)
    })
}

/// Reads what [`write_json`] wrote; `None` if there is nothing.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ProvisionError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unavailable("read", path, error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| ProvisionError::Corrupt {
        path: path.to_owned(),
        problem: format!("{error}; destroy the resource and deploy it again"),
    })
}

/// Flushes the directory in which `path` stands, so that its name survives the loss of power.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// Removes a file, link or whole directory. What is not there is fine.
pub(super) fn remove(path: &Path) -> Result<(), ProvisionError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unavailable("remove", path, error)),
        _ => Ok(()),
    }
}

/// The names in a directory, in order; none if it is not there. Names that are no UTF-8 are not ours and left out.
pub(super) fn names(path: &Path) -> Result<Vec<String>, ProvisionError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unavailable("read", path, error)),
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}
