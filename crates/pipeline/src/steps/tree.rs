//! What a tree of files is, and its digest: names, kinds, permissions, contents and where its links lead. Times and owners don't count.
//!
//! A [`Tree`] only holds what stays inside it: a link that leads out, a device, a socket or a pipe is refused, so that whatever copies,
//! packs or publishes a tree can't be led elsewhere.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{OpenOptionsExt, PermissionsExt},
    },
    path::{Component, Path, PathBuf},
};

use flowline_core::{
    digest::{Digest, Digester},
    error::{ErrorKind, Kinded},
};
use sha2::{Digest as _, Sha256};

use crate::cancel::Cancel;

/// What is at one place of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        length: u64,
        digest: Digest,
    },
    /// Relative, and it stays in the tree.
    Link {
        to: PathBuf,
    },
}

/// A tree as it was found: every path below its root, in order. A single file is a tree with one entry, its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tree {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
}

/// Why a tree can't be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("cannot {doing} {}", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is neither a file, a directory nor a link; leave it out of the tree", .0.display())]
    Special(PathBuf),
    #[error("the link {} leads to {}, which may be out of its tree; make it relative, with `..` at its beginning only and no further up than the tree, or put a copy there", .path.display(), .to.display())]
    Escapes { path: PathBuf, to: PathBuf },
    #[error("`{}` is no path inside a tree: it must be relative, without `..`", .0.display())]
    Outside(PathBuf),
    #[error("{} changed while it was read; let its writer finish, then try again", .0.display())]
    Changed(PathBuf),
    #[error("it was cancelled")]
    Cancelled,
}

impl Kinded for TreeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ErrorKind::NotFound,
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Unavailable,
                io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
                _ => ErrorKind::Other,
            },
            Self::Special(_) | Self::Escapes { .. } | Self::Outside(_) => ErrorKind::Invalid,
            Self::Changed(_) => ErrorKind::Conflict,
            Self::Cancelled => ErrorKind::Cancelled,
        }
    }
}

/// An error of the file system.
pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TreeError {
    let path = path.to_owned();
    move |source| TreeError::Io { doing, path, source }
}

/// Files are read and written in pieces of this size, with a chance to stop between them.
const PIECE: usize = 256 * 1024;

/// Lets others run, and ends here if somebody wishes so.
pub(crate) async fn breathe(cancel: &Cancel) -> Result<(), TreeError> {
    tokio::task::yield_now().await;
    if cancel.is_cancelled() { Err(TreeError::Cancelled) } else { Ok(()) }
}

impl Tree {
    /// Reads the tree at `root`, a directory or one file, without what is at or below the relative paths `without`.
    pub(crate) async fn read(root: &Path, without: &[PathBuf], cancel: &Cancel) -> Result<Self, TreeError> {
        let found = fs::metadata(root).map_err(failed("look at", root))?;
        let mut tree = Self::default();
        if found.is_file() {
            let name = PathBuf::from(root.file_name().unwrap_or(OsStr::new("file")));
            tree.entries.insert(name, entry(root, Path::new(""), cancel).await?);
            return Ok(tree);
        }
        let mut ahead = vec![PathBuf::new()];
        while let Some(directory) = ahead.pop() {
            let at = root.join(&directory);
            for found in fs::read_dir(&at).map_err(failed("list", &at))? {
                let name = found.map_err(failed("list", &at))?.file_name();
                let path = directory.join(name);
                if without.contains(&path) {
                    continue;
                }
                let found = entry(&root.join(&path), &path, cancel).await?;
                if matches!(found, Entry::Directory { .. }) {
                    ahead.push(path.clone());
                }
                tree.entries.insert(path, found);
            }
        }
        Ok(tree)
    }

    /// The digest of everything that counts. The same tree, the same digest, wherever it lies.
    pub(crate) fn digest(&self) -> Digest {
        let mut digester = Digester::new("flowline tree 1");
        for (path, entry) in &self.entries {
            digester.part(path.as_os_str().as_bytes());
            match entry {
                Entry::Directory { mode } => digester.part("directory").part(mode.to_be_bytes()),
                Entry::File { mode, digest, .. } => {
                    digester.part("file").part(mode.to_be_bytes()).part(digest.as_bytes())
                }
                Entry::Link { to } => digester.part("link").part(to.as_os_str().as_bytes()),
            };
        }
        digester.finish()
    }

    /// How many bytes its files hold.
    #[cfg(feature = "archive")]
    pub(crate) fn bytes(&self) -> u64 {
        let length = |entry: &Entry| if let Entry::File { length, .. } = entry { *length } else { 0 };
        self.entries.values().map(length).sum()
    }

    /// What changes from `before` to this, one line each, the first few.
    pub(crate) fn changes_from(&self, before: &Self) -> Vec<String> {
        const SHOWN: usize = 20;
        let mut lines = BTreeMap::new();
        for (path, entry) in &self.entries {
            let sign = match before.entries.get(path) {
                None => "+",
                Some(other) if other != entry => "~",
                Some(_) => continue,
            };
            lines.insert(path, format!("{sign} {}", path.display()));
        }
        for path in before.entries.keys().filter(|path| !self.entries.contains_key(*path)) {
            lines.insert(path, format!("- {}", path.display()));
        }
        let more = lines.len().saturating_sub(SHOWN);
        let mut lines: Vec<_> = lines.into_values().take(SHOWN).collect();
        if more > 0 {
            lines.push(format!("… and {more} more"));
        }
        lines
    }

    /// Copies the tree from `root`, where it was read, to the new directory `to`. All of it is on the disk when this returns.
    pub(crate) async fn copy(&self, root: &Path, to: &Path, cancel: &Cancel) -> Result<(), TreeError> {
        let single = fs::metadata(root).map_err(failed("look at", root))?.is_file();
        fs::create_dir(to).map_err(failed("create", to))?;
        for (path, entry) in &self.entries {
            let target = to.join(path);
            match entry {
                Entry::Directory { .. } => fs::create_dir(&target).map_err(failed("create", &target))?,
                Entry::Link { to } => link(to, &target)?,
                Entry::File { mode, digest, .. } => {
                    let source = if single { root.to_owned() } else { root.join(path) };
                    let mut from = open(&source)?;
                    let written = write(&mut from, &target, *mode, cancel).await?;
                    if written.1 != *digest {
                        return Err(TreeError::Changed(source));
                    }
                }
            }
        }
        self.finish_directories(to)
    }

    /// Gives the directories of a tree that was just written at `to` their permissions, and brings them to the disk. Last, as a directory
    /// may forbid writing into it.
    pub(crate) fn finish_directories(&self, to: &Path) -> Result<(), TreeError> {
        for (path, entry) in self.entries.iter().rev() {
            if let Entry::Directory { mode } = entry {
                let path = to.join(path);
                sync(&path)?;
                let permissions = fs::Permissions::from_mode(*mode);
                fs::set_permissions(&path, permissions).map_err(failed("set the permissions of", &path))?;
            }
        }
        sync(to)
    }
}

async fn entry(at: &Path, path: &Path, cancel: &Cancel) -> Result<Entry, TreeError> {
    breathe(cancel).await?;
    let found = fs::symlink_metadata(at).map_err(failed("look at", at))?;
    // Neither set-user-ID nor sticky bits travel.
    let mode = found.permissions().mode() & 0o777;
    if found.is_dir() {
        return Ok(Entry::Directory { mode });
    }
    if found.is_symlink() {
        let to = fs::read_link(at).map_err(failed("read the link", at))?;
        return if stays_inside(path, &to) {
            Ok(Entry::Link { to })
        } else {
            Err(TreeError::Escapes { path: at.to_owned(), to })
        };
    }
    if !found.is_file() {
        return Err(TreeError::Special(at.to_owned()));
    }
    let (length, digest) = pour(&mut open(at)?, &mut io::sink(), at, cancel).await?;
    Ok(Entry::File { mode, length, digest })
}

/// Whether a link at `path` of a tree (relative to its root) that leads to `to` ends inside the tree, whatever the tree's other links are.
///
/// `..` may stand at the beginning only. There it goes up through the directories that hold the link, which are real ones, as nothing in
/// a tree lies below a link. Behind a name it might go up from wherever a link of that name leads: with `s -> .`, `s/../x` is out of the
/// tree. What goes only down ends inside, as each link on the way down keeps the same rule.
pub(crate) fn stays_inside(path: &Path, to: &Path) -> bool {
    let depth = path.components().count().saturating_sub(1);
    let (mut up, mut down) = (0, false);
    for component in to.components() {
        match component {
            Component::Normal(_) => down = true,
            Component::CurDir => {}
            Component::ParentDir if !down && up < depth => up += 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    !to.as_os_str().is_empty()
}

/// `path`, if it is relative and goes only down.
pub(crate) fn inside(path: &Path) -> Result<&Path, TreeError> {
    let normal = path.components().all(|component| matches!(component, Component::Normal(_)));
    if normal && !path.as_os_str().is_empty() { Ok(path) } else { Err(TreeError::Outside(path.to_owned())) }
}

/// Opens a file for reading; never follows a link that was put in its place.
pub(crate) fn open(path: &Path) -> Result<File, TreeError> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed("read", path))
}

/// Makes the file `to`, which must not be there, from what `from` holds, and brings it to the disk: its length and digest.
pub(crate) async fn write(
    from: &mut impl Read,
    to: &Path,
    mode: u32,
    cancel: &Cancel,
) -> Result<(u64, Digest), TreeError> {
    let mut file = create(to)?;
    let written = pour(from, &mut file, to, cancel).await?;
    finish(&file, to, mode)?;
    Ok(written)
}

/// As [`write`], in one go.
#[cfg(feature = "archive")]
pub(crate) fn write_now(from: &mut impl Read, to: &Path, mode: u32) -> Result<(u64, Digest), TreeError> {
    let (mut file, mut pouring) = (create(to)?, Pouring::new());
    while pouring.piece(from, &mut file, to)? {}
    finish(&file, to, mode)?;
    Ok(pouring.end())
}

fn create(to: &Path) -> Result<File, TreeError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(to).map_err(failed("create", to))
}

fn finish(file: &File, to: &Path, mode: u32) -> Result<(), TreeError> {
    // Not through the umask: permissions are kept.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed("set the permissions of", to))?;
    file.sync_all().map_err(failed("write", to))
}

/// Passes everything on in pieces: how much it was, and its digest.
pub(crate) async fn pour(
    from: &mut impl Read,
    to: &mut impl Write,
    path: &Path,
    cancel: &Cancel,
) -> Result<(u64, Digest), TreeError> {
    let mut pouring = Pouring::new();
    while pouring.piece(from, to, path)? {
        breathe(cancel).await?;
    }
    Ok(pouring.end())
}

/// Bytes on their way, hashed as they pass.
struct Pouring {
    piece: Vec<u8>,
    length: u64,
    hash: Sha256,
}

impl Pouring {
    fn new() -> Self {
        Self { piece: vec![0; PIECE], length: 0, hash: Sha256::new() }
    }

    /// Passes one piece on; `false` at the end.
    fn piece(&mut self, from: &mut impl Read, to: &mut impl Write, path: &Path) -> Result<bool, TreeError> {
        let count = loop {
            match from.read(&mut self.piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(failed("read", path))?,
            }
        };
        let bytes = self.piece.get(..count).unwrap_or_default();
        self.hash.update(bytes);
        to.write_all(bytes).map_err(failed("write", path))?;
        self.length += count as u64;
        Ok(count > 0)
    }

    fn end(self) -> (u64, Digest) {
        let hash: [u8; 32] = self.hash.finalize().into();
        (self.length, Digest::from(hash))
    }
}

/// Makes the link `at`, which must not be there.
pub(crate) fn link(to: &Path, at: &Path) -> Result<(), TreeError> {
    std::os::unix::fs::symlink(to, at).map_err(failed("create the link", at))
}

/// Brings what a directory lists to the disk.
pub(crate) fn sync(directory: &Path) -> Result<(), TreeError> {
    let opened = File::open(directory).map_err(failed("open", directory))?;
    opened.sync_all().map_err(failed("write", directory))
}

/// Removes whatever is at `path`, if anything is; never follows a link.
pub(crate) fn remove(path: &Path) -> Result<(), TreeError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    if !found.is_dir() {
        return fs::remove_file(path).map_err(failed("remove", path));
    }
    // A directory that forbids writing keeps what is in it.
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(failed("remove", path))?;
    for inner in fs::read_dir(path).map_err(failed("list", path))? {
        remove(&inner.map_err(failed("list", path))?.path())?;
    }
    fs::remove_dir(path).map_err(failed("remove", path))
}

/// Writes `bytes` to `path` in one piece: whoever reads it sees what was there or all of this.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), TreeError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    remove(&beside)?;
    let mut file =
        OpenOptions::new().write(true).create_new(true).open(&beside).map_err(failed("create", &beside))?;
    file.write_all(bytes).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("write", &beside))?;
    fs::rename(&beside, path).map_err(failed("replace", path))?;
    path.parent().map_or(Ok(()), sync)
}

/// Makes `path` and the directories above it.
pub(crate) fn create_directories(path: &Path) -> Result<(), TreeError> {
    fs::create_dir_all(path).map_err(failed("create", path))
}

/// The resource of `kind` that stands for the absolute path `path`: `dir:/srv/www`. What is no printable ASCII is percent-encoded.
pub(crate) fn resource(kind: &str, path: &Path) -> Result<flowline_core::id::ResourceId, TreeError> {
    let normal = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !normal {
        return Err(TreeError::Io {
            doing: "use",
            path: path.to_owned(),
            source: io::Error::new(io::ErrorKind::InvalidInput, "it must be absolute, without `..`"),
        });
    }
    let bytes = path.as_os_str().as_bytes();
    let mut name = percent_encoding::percent_encode(bytes, NOT_PRINTABLE).to_string();
    while name.len() > 1 && name.ends_with('/') {
        name.pop();
    }
    flowline_core::id::ResourceId::of(kind, name).map_err(|error| TreeError::Io {
        doing: "name",
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    })
}

const NOT_PRINTABLE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b' ').add(b'%');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_may_go_up_as_far_as_the_root_of_its_tree() {
        let stays = |path: &str, to: &str| stays_inside(Path::new(path), Path::new(to));
        for (path, to) in [("a", "b"), ("a/b", "../c"), ("a/b/c", "../../d"), ("a", "."), ("a/b", "./.././c")]
        {
            assert!(stays(path, to), "{path} -> {to}");
        }
        for (path, to) in
            [("a", "../b"), ("a/b", "../../c"), ("a", "/etc/passwd"), ("a", "b/../../c"), ("a", "")]
        {
            assert!(!stays(path, to), "{path} -> {to}");
        }
        // Whether these stay depends on what `s` is.
        for (path, to) in
            [("l", "s/../x"), ("a/l", "../s/../x"), ("l", "s/s/s/../../../etc/passwd"), ("l", "s/..")]
        {
            assert!(!stays(path, to), "{path} -> {to}");
        }
    }

    /// Every tree of links that keeps the rule is followed by the system itself, and never ends outside.
    #[test]
    fn no_chain_of_links_that_stay_leads_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("tree");
        let (names, targets) =
            (["s", "d/l"], [".", "..", "s", "d", "s/..", "../s", "d/l", "s/../..", "../d/../..", "l/d"]);
        for (one, two) in targets.iter().flat_map(|one| targets.iter().map(move |two| (one, two))) {
            fs::create_dir_all(root.join("d")).unwrap();
            let all = names.iter().zip([one, two]);
            let made: Vec<_> =
                all.filter(|(name, to)| stays_inside(Path::new(name), Path::new(to))).collect();
            for (name, to) in &made {
                link(Path::new(to), &root.join(name)).unwrap();
            }
            for (name, to) in &made {
                // Some lead nowhere, or in circles.
                if let Ok(end) = root.join(name).canonicalize() {
                    assert!(end.starts_with(&root), "{name} -> {to} with {made:?} ends at {}", end.display());
                }
            }
            remove(&root).unwrap();
        }
    }

    #[test]
    fn a_path_becomes_a_resource_that_grants_can_cover() {
        let of = |path: &str| resource("dir", Path::new(path)).map(|resource| resource.to_string());
        assert_eq!(of("/srv/www/").unwrap(), "dir:/srv/www");
        assert_eq!(of("/srv/my site/é").unwrap(), "dir:/srv/my%20site/%C3%A9");
        for bad in ["srv", "/srv/../etc", ""] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
