//! The release directory on this host: what is there, and each move in an order from which the next process goes on wherever this one dies.
//!
//! 1. The new release is copied to `releases/.incoming` and brought to the disk.
//! 2. `releases.json` says from which release to which this run switches: the intent, before anything that can be seen.
//! 3. `.incoming` is renamed to the release's name.
//! 4. `current` is replaced by one rename.
//! 5. Old releases are removed.
//!
//! Undoing reads the intent, so it knows what was before although the process that knew is gone.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use flowline_core::digest::Digest;

use super::{
    SyncError, SyncFiles, Synced, exists,
    record::{
        self, Record, Switch, next, ours, record_file, release_of, releases, shared_target, switched_again,
    },
};
use crate::{
    cancel::Cancel,
    step::Context,
    steps::tree::{self, Tree, breathe, failed},
};

/// What a look at both sides finds.
pub(super) struct Look {
    /// The current release's name and tree.
    pub(super) current: Option<(String, Tree)>,
    /// Whether that release is of the revision that is meant.
    pub(super) revision: bool,
    /// The source's tree, if it is there.
    pub(super) source: Option<Tree>,
}

/// A release directory, held by this process alone until this is dropped.
pub(super) struct Host {
    root: PathBuf,
    lock: File,
}

impl Drop for Host {
    fn drop(&mut self) {
        // Whoever looks finds no holder any more.
        drop(self.lock.set_len(0));
        // Closing is not enough: a process that is just being started by another thread shares the file until it runs its program.
        drop(self.lock.unlock());
    }
}

/// As much as is shown of what a lock's holder wrote, in bytes.
const LONGEST_HOLDER: u64 = 500;
pub(super) const INCOMING: &str = ".incoming";
pub(super) const REVISION: &str = "REVISION";

/// Looks at both sides and changes nothing.
pub(super) async fn look(spec: &SyncFiles, cancel: &Cancel) -> Result<Look, SyncError> {
    plain(&spec.to)?;
    let source = if exists(&spec.from) { Some(source(spec, cancel).await?) } else { None };
    let current = match current(&spec.to)? {
        Some(name) => {
            let at = releases(&spec.to).join(&name);
            let besides = besides(spec);
            let tree = if exists(&at) { Tree::read(&at, &besides, cancel).await? } else { Tree::default() };
            Some((name, tree))
        }
        None => None,
    };
    let revision =
        current.as_ref().is_some_and(|(name, _)| is_of_revision(spec, &releases(&spec.to).join(name)));
    Ok(Look { current, revision, source })
}

impl Host {
    /// Opens the release directory at `root`, making it if it is not there. The lock says for whom it is held.
    pub(super) fn open(root: &Path, context: &Context) -> Result<Self, SyncError> {
        plain(root)?;
        tree::create_directories(&releases(root))?;
        let path = root.join(".lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut said = Vec::new();
                // Its holder may be about to write, and nobody but the holder may have written it.
                let read = lock.take(LONGEST_HOLDER).read_to_end(&mut said);
                let said = read.ok().and_then(|_| String::from_utf8(said).ok()).unwrap_or_default();
                let said: String = said.trim().chars().filter(|c| !c.is_control()).collect();
                let holder = if said.is_empty() { "another process".to_owned() } else { said };
                return Err(SyncError::Busy { to: root.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error).into()),
        }
        let (run, step, process) = (context.run(), context.step(), std::process::id());
        let holder = format!("run {run}, step {step}, process {process}, since {}\n", context.clock().now());
        lock.set_len(0).map_err(failed("write", &path))?;
        lock.write_all(holder.as_bytes()).map_err(failed("write", &path))?;
        Ok(Self { root: root.to_owned(), lock })
    }

    /// Makes the source the current release, once for each `key`.
    pub(super) async fn sync(
        &self,
        spec: &SyncFiles,
        key: &str,
        cancel: &Cancel,
    ) -> Result<Synced, SyncError> {
        let mut record = self.record()?;
        let current = current(&self.root)?;
        if let Some(switch) = record.of(key).cloned() {
            if current.as_ref() == Some(&switch.to)
                && let Some(digest) = switch.digest
            {
                self.clean(spec.keep, &record)?;
                return Ok(Synced { release: switch.to, digest });
            }
            if current != switch.from {
                return Err(self.switched_again(switch.from.as_deref(), current));
            }
            // Cut short before the switch: begin again, as the source may be another one by now.
            self.forget(&mut record, key)?;
        }
        let source = source(spec, cancel).await?;
        let digest = source.digest();
        if let Some(expected) = spec.digest.filter(|expected| *expected != digest) {
            return Err(SyncError::OtherTree { from: spec.from.clone(), expected, found: digest });
        }
        if let Some(name) = &current
            && self.holds(spec, name, digest, cancel).await?
        {
            return Ok(Synced { release: name.clone(), digest });
        }
        let reused = self.whole(spec, digest, cancel).await?;
        let to = if let Some(name) = &reused {
            name.clone()
        } else {
            self.receive(spec, &source, cancel).await?;
            next(&self.names()?, digest)
        };
        let switch = Switch {
            key: key.to_owned(),
            from: current,
            to: to.clone(),
            digest: Some(digest),
            made: reused.is_none(),
        };
        record.switches.push(switch);
        self.write(&mut record)?;
        breathe(cancel).await?;
        if reused.is_none() {
            let (incoming, release) = (self.releases().join(INCOMING), self.releases().join(&to));
            fs::rename(&incoming, &release).map_err(failed("name", &release))?;
            tree::sync(&self.releases())?;
        }
        breathe(cancel).await?;
        self.switch(Some(&to))?;
        // From here on it has happened: whoever cancels now undoes it.
        tokio::task::yield_now().await;
        self.clean(spec.keep, &record)?;
        Ok(Synced { release: to, digest })
    }

    /// Makes a release that is still there the current one, once for each `key`; without a name the one before the current one. Its name.
    pub(super) async fn back(
        &self,
        to: Option<&str>,
        key: &str,
        cancel: &Cancel,
    ) -> Result<String, SyncError> {
        let mut record = self.record()?;
        let current = current(&self.root)?;
        if let Some(switch) = record.of(key).cloned() {
            if current.as_ref() == Some(&switch.to) {
                return Ok(switch.to);
            }
            if current != switch.from {
                return Err(self.switched_again(switch.from.as_deref(), current));
            }
            self.forget(&mut record, key)?;
        }
        let to = kept(&self.root, current.as_deref(), to)?;
        let switch = Switch { key: key.to_owned(), from: current, to: to.clone(), digest: None, made: false };
        record.switches.push(switch);
        self.write(&mut record)?;
        breathe(cancel).await?;
        self.switch(Some(&to))?;
        // From here on it has happened: whoever cancels now undoes it.
        tokio::task::yield_now().await;
        Ok(to)
    }

    /// Takes back what was done under `key`.
    pub(super) fn undo(&self, key: &str) -> Result<(), SyncError> {
        let mut record = self.record()?;
        let Some(switch) = record.of(key).cloned() else {
            return Ok(tree::remove(&self.releases().join(INCOMING))?);
        };
        let current = current(&self.root)?;
        if current.as_ref() == Some(&switch.to) && current != switch.from {
            if let Some(before) = &switch.from
                && !exists(&self.releases().join(before))
            {
                return Err(SyncError::Gone { release: before.clone(), releases: self.releases() });
            }
            self.switch(switch.from.as_deref())?;
        } else if current != switch.from {
            return Err(self.switched_again(Some(&switch.to), current));
        }
        self.forget(&mut record, key)
    }

    /// Removes what the switch of `key` made, which must not be current, and its entry.
    fn forget(&self, record: &mut Record, key: &str) -> Result<(), SyncError> {
        if let Some(switch) = record.of(key).filter(|switch| switch.made) {
            tree::remove(&self.releases().join(&switch.to))?;
        }
        tree::remove(&self.releases().join(INCOMING))?;
        record.switches.retain(|switch| switch.key != key);
        self.write(record)
    }

    /// Copies the source to where nobody looks yet.
    async fn receive(&self, spec: &SyncFiles, source: &Tree, cancel: &Cancel) -> Result<(), SyncError> {
        for path in &spec.shared {
            let shared = self.root.join("shared").join(path);
            if !exists(&shared) {
                return Err(SyncError::NotShared(shared));
            }
        }
        let incoming = self.releases().join(INCOMING);
        tree::remove(&incoming)?;
        source.copy(&spec.from, &incoming, cancel).await?;
        for path in &spec.shared {
            let at = incoming.join(path);
            if let Some(parent) = at.parent() {
                tree::create_directories(parent)?;
            }
            tree::link(&shared_target(path), &at)?;
        }
        if let Some(revision) = &spec.revision {
            tree::replace(&incoming.join(REVISION), format!("{revision}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Points `current` to `release`, in one move.
    fn switch(&self, release: Option<&str>) -> Result<(), SyncError> {
        let link = self.root.join("current");
        match release {
            Some(release) => {
                let beside = self.root.join(".current.new");
                tree::remove(&beside)?;
                tree::link(&Path::new("releases").join(release), &beside)?;
                fs::rename(&beside, &link).map_err(failed("switch", &link))?;
            }
            None => tree::remove(&link)?,
        }
        Ok(tree::sync(&self.root)?)
    }

    /// Removes old releases.
    fn clean(&self, keep: usize, record: &Record) -> Result<(), SyncError> {
        for name in record.outdated(self.names()?, current(&self.root)?.as_deref(), keep) {
            tree::remove(&self.releases().join(name))?;
        }
        Ok(())
    }

    /// A release that holds this tree, all of it.
    async fn whole(
        &self,
        spec: &SyncFiles,
        digest: Digest,
        cancel: &Cancel,
    ) -> Result<Option<String>, SyncError> {
        let end = format!("-{}", digest.short());
        for name in self.names()?.into_iter().rev().filter(|name| name.ends_with(&end)) {
            if self.holds(spec, &name, digest, cancel).await? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether the release `name` holds the tree `digest`, and the shared links.
    async fn holds(
        &self,
        spec: &SyncFiles,
        name: &str,
        digest: Digest,
        cancel: &Cancel,
    ) -> Result<bool, SyncError> {
        let at = self.releases().join(name);
        if !exists(&at) || !spec.shared.iter().all(|path| at.join(path).is_symlink()) {
            return Ok(false);
        }
        if !is_of_revision(spec, &at) {
            return Ok(false);
        }
        // One that was damaged, even so that it is no tree any more, is not reused.
        match Tree::read(&at, &besides(spec), cancel).await {
            Ok(tree) => Ok(tree.digest() == digest),
            Err(tree::TreeError::Cancelled) => Err(tree::TreeError::Cancelled.into()),
            Err(_) => Ok(false),
        }
    }

    fn names(&self) -> Result<Vec<String>, SyncError> {
        names(&self.root)
    }

    fn releases(&self) -> PathBuf {
        releases(&self.root)
    }

    fn record(&self) -> Result<Record, SyncError> {
        record(&self.root)
    }

    fn write(&self, record: &mut Record) -> Result<(), SyncError> {
        Ok(tree::replace(&record_file(&self.root), &record.bytes(&self.root)?)?)
    }

    fn switched_again(&self, expected: Option<&str>, found: Option<String>) -> SyncError {
        switched_again(&self.root, expected, found)
    }
}

fn record(root: &Path) -> Result<Record, SyncError> {
    let path = record_file(root);
    match fs::read(&path) {
        Ok(bytes) => Record::read(Some(&bytes), root),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(failed("read", &path)(error).into()),
    }
}

/// Whether the step with `key` began to switch. Only that step says so, which it does in one move before anything can be seen, so this
/// needs no lock.
pub(super) fn began(root: &Path, key: &str) -> Result<bool, SyncError> {
    Ok(record(root)?.of(key).is_some())
}

/// The names of the releases that these steps made, oldest first. Nothing else in the directory is ever touched.
fn names(root: &Path) -> Result<Vec<String>, SyncError> {
    let releases = releases(root);
    let mut names = Vec::new();
    for found in fs::read_dir(&releases).map_err(failed("list", &releases))? {
        let name = found.map_err(failed("list", &releases))?.file_name();
        names.extend(name.into_string());
    }
    Ok(ours(names))
}

/// The release `wanted` that is there, or without a name the newest of those before `current`.
pub(super) fn kept(root: &Path, current: Option<&str>, wanted: Option<&str>) -> Result<String, SyncError> {
    let names = if exists(&releases(root)) { names(root)? } else { Vec::new() };
    record::kept(root, names, current, wanted)
}

/// What a release holds besides the tree of its source.
pub(super) fn besides(spec: &SyncFiles) -> Vec<PathBuf> {
    let revision = spec.revision.iter().map(|_| PathBuf::from(REVISION));
    spec.shared.iter().cloned().chain(revision).collect()
}

/// Whether the release at `at` says that it is of the revision that is meant, if one is.
fn is_of_revision(spec: &SyncFiles, at: &Path) -> bool {
    match &spec.revision {
        Some(revision) => fs::read_to_string(at.join(REVISION)).is_ok_and(|said| said.trim_end() == revision),
        None => true,
    }
}

/// The tree of the source, which must leave out what is shared.
pub(super) async fn source(spec: &SyncFiles, cancel: &Cancel) -> Result<Tree, SyncError> {
    for path in &spec.shared {
        tree::inside(path)?;
    }
    if let Some(revision) =
        spec.revision.as_ref().filter(|it| it.trim().is_empty() || it.contains(char::is_control))
    {
        return Err(SyncError::Revision(revision.clone()));
    }
    let source = Tree::read(&spec.from, &[], cancel).await?;
    match besides(spec).into_iter().find(|path| source.entries.contains_key(path)) {
        Some(path) => Err(SyncError::SharedTwice { path, from: spec.from.clone() }),
        None => Ok(source),
    }
}

/// The release that `current` leads to.
pub(super) fn current(root: &Path) -> Result<Option<String>, SyncError> {
    let link = root.join("current");
    let to = match fs::read_link(&link) {
        Ok(to) => to,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Err(SyncError::NotALink(link)),
        Err(error) => return Err(failed("read the link", &link)(error).into()),
    };
    release_of(&to).map(Some).ok_or(SyncError::NotALink(link))
}

/// Refuses a path that leads through a link, as what is granted is the path.
pub(super) fn plain(root: &Path) -> Result<(), SyncError> {
    tree::resource("dir", root)?;
    let there = root.ancestors().find(|path| exists(path)).unwrap_or(Path::new("/"));
    let real = there.canonicalize().map_err(failed("look at", there))?;
    if real == there { Ok(()) } else { Err(SyncError::Link { path: there.to_owned(), real }) }
}
