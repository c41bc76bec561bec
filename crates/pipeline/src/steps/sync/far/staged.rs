//! What is sent along for the moves: a directory of this host that the executor carries over, gone when this is dropped.

use std::{collections::BTreeMap, fs, io, os::unix::ffi::OsStrExt as _, path::Path};

use crate::{
    cancel::Cancel,
    steps::{
        sync::{SyncError, SyncFiles, record::shared_target},
        tree::{self, Entry, Tree, TreeError, breathe, failed},
    },
};

pub(super) struct Staged(tempfile::TempDir);

impl Staged {
    pub(super) fn new(moves: &[String]) -> Result<Self, SyncError> {
        let dir = tempfile::Builder::new().prefix("flowline-release-").tempdir();
        let staged = Self(dir.map_err(failed("make", Path::new("a temporary directory")))?);
        staged.write("ops", (moves.join("\n") + "\n").as_bytes())?;
        Ok(staged)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SyncError> {
        let path = self.path().join(name);
        Ok(fs::write(&path, bytes).map_err(failed("write", &path))?)
    }

    /// The new release: the files below `tree`, and lists of everything else. Lists of paths end each with a zero byte, as a name may hold
    /// anything else; those that are read line by line hold none with a newline.
    pub(super) async fn release(
        &mut self,
        spec: &SyncFiles,
        source: &Tree,
        cancel: &Cancel,
    ) -> Result<(), SyncError> {
        let single = spec.from.is_file();
        let (mut dirs, mut sums, mut links) = (Vec::new(), Vec::new(), Vec::new());
        for (path, entry) in &source.entries {
            let target = if let Entry::Link { to } = entry { to } else { path };
            if [path, target].into_iter().any(|path| path.as_os_str().as_bytes().contains(&b'\n')) {
                return Err(SyncError::Name(path.clone()));
            }
            match entry {
                Entry::Directory { .. } => listed(&mut dirs, path),
                Entry::Link { to } => {
                    for path in [path, to] {
                        links.extend(path.as_os_str().as_bytes());
                        links.push(b'\n');
                    }
                }
                Entry::File { digest, .. } => {
                    breathe(cancel).await?;
                    sums.extend(format!("{}  ./", digest.hex()).as_bytes());
                    sums.extend(path.as_os_str().as_bytes());
                    sums.push(b'\n');
                    let from = if single { spec.from.clone() } else { spec.from.join(path) };
                    self.take(&from, path)?;
                }
            }
        }
        let (mut parents, mut need) = (Vec::new(), Vec::new());
        for path in &spec.shared {
            if path.as_os_str().as_bytes().contains(&b'\n') {
                return Err(SyncError::Name(path.clone()));
            }
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                listed(&mut parents, parent);
            }
            need.extend(path.as_os_str().as_bytes());
            need.push(b'\n');
            for path in [path.clone(), shared_target(path)] {
                links.extend(path.as_os_str().as_bytes());
                links.push(b'\n');
            }
        }
        let lists = [("dirs", dirs), ("sums", sums), ("links", links), ("parents", parents), ("need", need)];
        for (name, list) in lists {
            self.write(name, &list)?;
        }
        for (name, _, paths) in modes(source) {
            self.write(&name, &paths)?;
        }
        if let Some(revision) = &spec.revision {
            self.write("revision", format!("{revision}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Puts the file `from` at `path` below `tree`, without copying it where that can be. Whether it is still the one that was read is seen
    /// on the other side.
    fn take(&self, from: &Path, path: &Path) -> Result<(), TreeError> {
        let to = self.path().join("tree").join(path);
        if let Some(parent) = to.parent() {
            tree::create_directories(parent)?;
        }
        match fs::hard_link(from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                fs::copy(from, &to).map(drop).map_err(failed("copy", from))
            }
            linked => linked.map_err(failed("read", from)),
        }
    }
}

/// The moves that give everything of `tree` its permissions: files, then directories from the inside out, as one may forbid to change what is
/// in it.
pub(super) fn permissions(tree: &Tree) -> Vec<String> {
    modes(tree).into_iter().map(|(name, mode, _)| format!("chmod {mode:o} {name}")).collect()
}

/// Lists of what has the same permissions, in the order in which they are given: their names, the permissions, the paths.
fn modes(tree: &Tree) -> Vec<(String, u32, Vec<u8>)> {
    let mut files: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut all: Vec<(u32, Vec<u8>)> = Vec::new();
    for (path, entry) in tree.entries.iter().rev() {
        match entry {
            Entry::File { mode, .. } => listed(files.entry(*mode).or_default(), path),
            Entry::Directory { mode } => match all.last_mut() {
                Some((last, paths)) if last == mode => listed(paths, path),
                _ => {
                    let mut paths = Vec::new();
                    listed(&mut paths, path);
                    all.push((*mode, paths));
                }
            },
            Entry::Link { .. } => {}
        }
    }
    let all = files.into_iter().chain(all).enumerate();
    all.map(|(number, (mode, paths))| (format!("modes-{number}"), mode, paths)).collect()
}

fn listed(list: &mut Vec<u8>, path: &Path) {
    list.extend(b"./");
    list.extend(path.as_os_str().as_bytes());
    list.push(0);
}
