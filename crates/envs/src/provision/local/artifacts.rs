//! Where built content lies, by digest: a directory goes in once, is never changed, and is checked again each time it is used.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
};

use super::{
    checkpoint::{Checkpoint, Hook},
    files::{self, create_dirs, sync_parent, unavailable},
    lock::Held,
    patience::Patience,
    tree::{self, TreeError},
};
use crate::provision::ProvisionError;

const INCOMING: &str = "incoming-";
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// A content-addressed store of directories: `artifacts/HEX/…` under the provisioner's root.
///
/// An artifact is there whole or not at all: it is copied and hashed under another name, flushed, and renamed. Several processes may
/// import at once; the same content imported twice is stored once. Calls block their thread.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    dir: PathBuf,
    lock: PathBuf,
    hook: Hook,
}

/// Why a directory was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The directory holds the store itself.
    #[error("cannot import {}: the store lies inside it; choose the directory of one build", .0.display())]
    HoldsStore(PathBuf),
    /// The directory can't be an artifact, or can't be read or copied.
    #[error("cannot import {}", .from.display())]
    Tree {
        /// The directory.
        from: PathBuf,
        /// Why.
        source: TreeError,
    },
    /// The store can't take it.
    #[error("cannot import {}", .from.display())]
    Store {
        /// The directory.
        from: PathBuf,
        /// Why.
        source: BoxError,
    },
}

impl Kinded for ImportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::HoldsStore(_) => ErrorKind::Invalid,
            Self::Tree { source, .. } => source.kind(),
            Self::Store { .. } => ErrorKind::Unavailable,
        }
    }
}

impl ArtifactStore {
    pub(super) fn open(root: &Path, locks: &Path, hook: Hook) -> Result<Self, ProvisionError> {
        let store = Self { dir: root.join("artifacts"), lock: locks.join("artifacts"), hook };
        create_dirs(&store.dir)?;
        Ok(store)
    }

    /// Copies the directory `from` into the store and answers its digest, the same as [`tree::digest`](super::digest_directory) gives.
    ///
    /// # Errors
    /// [`ImportError`]; nothing is left in the store then.
    pub fn import(&self, from: &Path) -> Result<Digest, ImportError> {
        let at_store =
            |source: ProvisionError| ImportError::Store { from: from.to_owned(), source: source.into() };
        let at_tree = |source| ImportError::Tree { from: from.to_owned(), source };
        if from.canonicalize().is_ok_and(|from| self.dir.starts_with(from)) {
            return Err(ImportError::HoldsStore(from.to_owned()));
        }
        let incoming = self.incoming().map_err(at_store)?;
        let digest = tree::copy(from, &incoming.path).map_err(at_tree)?;
        self.hook.at(Checkpoint::ArtifactCopied);
        self.keep(&incoming, digest).map_err(at_store)?;
        self.hook.at(Checkpoint::ArtifactStored);
        Ok(digest)
    }

    /// Whether the artifact is there. It may be damaged: see [`verify`](Self::verify).
    pub fn contains(&self, artifact: Digest) -> bool {
        self.path(artifact).is_dir()
    }

    /// Where the artifact's content is, or would be.
    pub fn path(&self, artifact: Digest) -> PathBuf {
        self.dir.join(artifact.hex())
    }

    /// Reads the whole artifact and compares its digest.
    ///
    /// # Errors
    /// [`ProvisionError::NoArtifact`] if it is not there, [`ProvisionError::Corrupt`] if its content is another.
    pub fn verify(&self, artifact: Digest) -> Result<(), ProvisionError> {
        self.found(artifact)?;
        let found = tree::digest(&self.path(artifact));
        self.compare(artifact, found)
    }

    /// The stored artifacts, in order of their digests.
    ///
    /// # Errors
    /// [`ProvisionError::Unavailable`] if the store can't be read.
    pub fn list(&self) -> Result<Vec<Digest>, ProvisionError> {
        let names = files::names(&self.dir)?;
        Ok(names.iter().filter_map(|name| format!("sha256:{name}").parse().ok()).collect())
    }

    /// Removes the artifact; one that is not there is fine. Releases made from it have their own copy.
    ///
    /// # Errors
    /// [`ProvisionError::Unavailable`] if it can't be removed.
    pub fn remove(&self, artifact: Digest) -> Result<(), ProvisionError> {
        let incoming = self.incoming()?;
        // Renamed first, so that a half-removed artifact can't be found under its digest.
        match fs::rename(self.path(artifact), incoming.path.join("removed")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(unavailable("remove", &self.path(artifact), error))
            }
            _ => Ok(()),
        }
    }

    /// Copies the artifact to the empty directory `to`, checking its digest on the way.
    pub(super) fn copy_to(&self, artifact: Digest, to: &Path) -> Result<(), ProvisionError> {
        self.found(artifact)?;
        let copied = tree::copy(&self.path(artifact), to);
        self.compare(artifact, copied)
    }

    fn found(&self, artifact: Digest) -> Result<(), ProvisionError> {
        if self.contains(artifact) {
            return Ok(());
        }
        Err(ProvisionError::NoArtifact { artifact, store: self.dir.clone() })
    }

    fn compare(&self, artifact: Digest, found: Result<Digest, TreeError>) -> Result<(), ProvisionError> {
        let corrupt = |problem: String| ProvisionError::Corrupt { path: self.path(artifact), problem };
        match found {
            Ok(found) if found == artifact => Ok(()),
            Ok(found) => Err(corrupt(format!(
                "its content has the digest {}; remove it and import it again",
                found.short()
            ))),
            Err(error @ TreeError::Refused { .. }) => {
                Err(corrupt(format!("{error}; remove it and import it again")))
            }
            Err(TreeError::Unavailable { doing, path, source }) => {
                Err(match source.downcast::<io::Error>() {
                    Ok(error) => unavailable(doing, &path, *error),
                    Err(source) => {
                        ProvisionError::Unavailable { doing, path, help: "the system refused", source }
                    }
                })
            }
        }
    }

    fn keep(&self, incoming: &Incoming, digest: Digest) -> Result<(), ProvisionError> {
        let path = self.path(digest);
        if self.contains(digest) && self.verify(digest).is_ok() {
            return Ok(());
        }
        let _lock = Held::wait(&self.lock, LOCK_WAIT, "artifacts", &Patience::default())?;
        // What is there under this name is damaged, or came in meanwhile; either way ours is right.
        files::remove(&path)?;
        let renamed = fs::rename(&incoming.path, &path).and_then(|()| sync_parent(&path));
        renamed.map_err(|error| unavailable("write", &path, error))
    }

    /// A new directory to work in, and first the end of those whose owners died.
    fn incoming(&self) -> Result<Incoming, ProvisionError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let _lock = Held::wait(&self.lock, LOCK_WAIT, "artifacts", &Patience::default())?;
        for name in files::names(&self.dir)?.iter().filter(|name| name.starts_with(INCOMING)) {
            let path = self.dir.join(name);
            let abandoned = File::open(&path).is_ok_and(|dir| dir.try_lock().is_ok());
            if abandoned {
                files::remove(&path)?;
            }
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{INCOMING}{}-{number}", std::process::id()));
        let failed = |error| unavailable("create", &path, error);
        fs::create_dir(&path).map_err(failed)?;
        let alive = File::open(&path).map_err(failed)?;
        alive.lock().map_err(failed)?;
        Ok(Incoming { _alive: alive, path })
    }
}

/// A directory that is locked as long as its owner lives, and removed with it.
#[derive(Debug)]
struct Incoming {
    _alive: File,
    path: PathBuf,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Renamed away if all went well; what can't be removed is removed by the next import.
        files::remove(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, ArtifactStore) {
        let root = tempfile::tempdir().unwrap();
        let locks = root.path().join("locks");
        fs::create_dir(&locks).unwrap();
        let store =
            ArtifactStore::open(&root.path().canonicalize().unwrap(), &locks, Hook::default()).unwrap();
        (root, store)
    }

    fn build(page: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("page"), page).unwrap();
        dir
    }

    #[test]
    fn the_same_content_is_stored_once() {
        let (_root, store) = store();
        let (one, other) =
            (store.import(build("x").path()).unwrap(), store.import(build("x").path()).unwrap());
        assert_eq!((one, store.list().unwrap()), (other, vec![one]));
        assert!(store.verify(one).is_ok());
        store.remove(one).unwrap();
        store.remove(one).unwrap();
        assert_eq!(files::names(&store.dir).unwrap(), [""; 0]);
        assert_eq!(store.verify(one).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_damaged_artifact_is_not_used_and_importing_mends_it() {
        let (_root, store) = store();
        let artifact = store.import(build("x").path()).unwrap();
        fs::write(store.path(artifact).join("page"), "y").unwrap();
        let to = tempfile::tempdir().unwrap();
        assert_eq!(store.copy_to(artifact, to.path()).unwrap_err().kind(), ErrorKind::Corrupt);
        let said = store.verify(artifact).unwrap_err().to_string();
        let said = said.replace(store.dir.to_str().unwrap(), "STORE");
        insta::assert_snapshot!(said, @"STORE/9ed3e9e8aad787affbc5bf112e04da382070fb0c8335a436cb4d6f36a1d3bc7c is damaged: its content has the digest b50821805329; remove it and import it again");
        assert_eq!(store.import(build("x").path()).unwrap(), artifact);
        assert!(store.verify(artifact).is_ok());
    }

    #[test]
    fn what_a_dead_importer_left_is_removed_and_what_a_living_one_has_is_not() {
        let (_root, store) = store();
        let left = store.dir.join(format!("{INCOMING}1-0"));
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "").unwrap();
        let living = store.incoming().unwrap();
        assert!(!left.exists() && living.path.exists());
        store.import(build("x").path()).unwrap();
        assert!(living.path.exists());
    }

    #[test]
    fn the_store_does_not_swallow_itself() {
        let (root, store) = store();
        let error = store.import(root.path()).unwrap_err();
        assert!(matches!(error, ImportError::HoldsStore(_)), "{error}");
        assert_eq!(store.import(&root.path().join("nothing")).unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(files::names(&store.dir).unwrap(), [""; 0]);
    }

    #[test]
    fn many_at_once_store_the_same_thing() {
        let (_root, store) = store();
        let dir = build("x");
        let digests = std::thread::scope(|scope| {
            let imports: Vec<_> = (0..8).map(|_| scope.spawn(|| store.import(dir.path()).unwrap())).collect();
            imports.into_iter().map(|import| import.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(store.list().unwrap(), [digests[0]]);
        assert_eq!(files::names(&store.dir).unwrap().len(), 1);
    }
}
