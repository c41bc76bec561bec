//! Who may change a resource now: one holder at a time over all processes of the host, by an advisory file lock (flock(2)).
//!
//! The lock belongs to the open file, so it dies with its holder, however that ends. A child between fork and exec still shares it: whoever
//! gets the lock after a crash therefore sees every child of the dead holder with its own environment, marks included.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::provision::ProvisionError;

use super::{
    files::unavailable,
    patience::{Patience, Pauses},
};

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _file: File,
    path: PathBuf,
}

impl Held {
    /// Takes the lock at `path` if nobody has it. The holder's process id stands in the file, for messages.
    pub(super) fn attempt(path: &Path) -> Result<Option<Self>, ProvisionError> {
        let failed = |error| unavailable("lock", path, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The last holder may have removed the file between our open and our lock: then this is a lock on nothing.
        let ours = file.metadata().map_err(failed)?;
        let same =
            fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        if !same {
            return Ok(None);
        }
        // Only a message depends on the content, so a full disk is no reason to stop: removal must work there.
        note_holder(&mut file).ok();
        Ok(Some(Self { _file: file, path: path.to_owned() }))
    }

    /// Takes the lock at `path`, waiting for it up to `limit`.
    pub(super) fn wait(
        path: &Path,
        limit: Duration,
        resource: &str,
        patience: &Patience,
    ) -> Result<Self, ProvisionError> {
        let mut pauses = Pauses::new();
        loop {
            if let Some(held) = Self::attempt(path)? {
                return Ok(held);
            }
            if !pauses.within(limit, patience)? {
                return Err(busy(path, resource));
            }
        }
    }

    /// Removes the file of the lock, then lets it go: for what is gone for good.
    pub(super) fn remove(self) {
        // If it can't be removed, an empty file stays; it locks nothing.
        fs::remove_file(&self.path).ok();
    }
}

fn note_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())
}

fn busy(path: &Path, resource: &str) -> ProvisionError {
    let mut pid = String::new();
    let holder = match File::open(path).and_then(|file| file.take(20).read_to_string(&mut pid)) {
        Ok(read) if read > 0 => format!("process {pid}"),
        _ => "another process".to_owned(),
    };
    ProvisionError::Busy { resource: resource.to_owned(), holder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_and_the_next_hears_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let wait = |limit| Held::wait(&path, limit, "dir:a/b", &Patience::default());
        let held = Held::attempt(&path).unwrap().unwrap();
        assert!(Held::attempt(&path).unwrap().is_none());
        let error = wait(Duration::from_millis(5)).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        drop(held);
        wait(Duration::from_secs(10)).unwrap().remove();
        assert!(!path.exists());
        assert!(wait(Duration::ZERO).is_ok());
    }
}
