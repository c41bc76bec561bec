//! Packing a tree into one file that is the same for the same tree, and unpacking it only if it is the one that was meant.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use flate2::{Compression, GzBuilder, read::GzDecoder, write::GzEncoder};
use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
    id::ResourceId,
};
use serde::{Deserialize, Serialize};

use super::tree::{self, Entry, Tree, TreeError, breathe, failed};
use crate::{
    cancel::Cancel,
    step::{
        Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
    },
};

/// Packs files into an archive that is named by what is in it: `INTO/NAME-2cf24dba5fb0.tar.gz`.
///
/// The same tree gives the same bytes: entries in order of their names, permissions kept, no times, no owners, one compression level. (The
/// compressor's bytes may change with its version; the tree's digest, by which the archive is named, does not.)
///
/// *Effect*: idempotent: the tree is packed each time, into a hidden file that no other packing shares, and gets its name in one move. An
/// archive of that name that holds the same bytes is kept as it is; any other, such as a damaged one, is replaced. *Undo*: nothing, as a file
/// named by its content replaces nothing else. *Touches* `dir:` and the path of `into`.
///
/// *Concurrency*: any number may pack one tree into one directory side by side. What a process that was killed left behind is removed by the
/// next attempt of the same step.
///
/// *Errors by kind*: `NotFound`, `Invalid` (a link out of the tree, a device), `Conflict` (the tree changed while it was packed, or is not the
/// declared one), `Denied`, `Unavailable`.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::{PackArchive, UnpackArchive}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("site", "storefront".parse()?);
/// let packed = pipeline.step("pack", PackArchive::new("site", "/build/site", "/var/artifacts"));
/// let unpacked = pipeline.feed("unpack", UnpackArchive::new("/srv/site-next"), &packed);
/// # let _ = unpacked; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackArchive {
    /// What the archive is called, without directory and ending.
    pub name: String,
    /// The directory, or the one file, that is packed.
    pub from: PathBuf,
    /// The directory that the archive is put into: absolute, without `..`. It is made if it is not there.
    pub into: PathBuf,
    /// Whether it is compressed.
    #[serde(default = "yes")]
    pub gzip: bool,
    /// The digest of the tree that is meant; another one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Digest>,
}

fn yes() -> bool {
    true
}

impl PackArchive {
    /// What is in `from`, compressed.
    pub fn new(name: impl Into<String>, from: impl Into<PathBuf>, into: impl Into<PathBuf>) -> Self {
        Self { name: name.into(), from: from.into(), into: into.into(), gzip: true, tree: None }
    }
}

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Where it is.
    pub path: PathBuf,
    /// The digest of its bytes.
    pub digest: Digest,
    /// The digest of the tree in it.
    pub tree: Digest,
    /// How many bytes it has.
    pub bytes: u64,
}

impl Spec for PackArchive {
    const KIND: &'static str = "archive/pack";
    type Input = ();
    type Output = Archive;
}

/// Unpacks an archive into a directory of its own.
///
/// Its bytes are checked against the digest before anything is unpacked, and the tree after, before it gets its name: what is in `into` is
/// the whole tree or nothing.
///
/// *Effect*: idempotent. A directory that holds the tree already is kept; one that holds anything else is refused. *Undo*: the directory is
/// removed if this step made it. *Touches* `dir:` and the path of `into`.
///
/// *Errors by kind*: `NotFound`, `Corrupt` (the bytes, or the tree, are not those that were meant), `Invalid` (a path or a link in the archive
/// leads out of it, or it holds something else than files, directories and links), `Conflict` (`into` holds something else).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnpackArchive {
    /// The directory that the tree becomes: absolute, without `..`.
    pub into: PathBuf,
}

impl UnpackArchive {
    /// Unpacks into `into`.
    pub fn new(into: impl Into<PathBuf>) -> Self {
        Self { into: into.into() }
    }
}

/// An unpacked tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Where it is.
    pub path: PathBuf,
    /// Its digest.
    pub tree: Digest,
}

impl Spec for UnpackArchive {
    const KIND: &'static str = "archive/unpack";
    type Input = Archive;
    type Output = Unpacked;
}

/// Why a tree could not be packed or unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// Files can't be read or written.
    #[error("the files of an archive cannot be used")]
    Files {
        /// What that means.
        kind: ErrorKind,
        /// Which file, and why.
        source: BoxError,
    },
    /// The name would lead elsewhere.
    #[error(
        "`{0}` cannot name an archive; take letters, digits, `-`, `_` and `.`, beginning with a letter or digit"
    )]
    Name(String),
    /// The source is another tree than the one meant.
    #[error("{} holds tree {}, not {}; build it again, or plan anew", .from.display(), .found.short(), .expected.short())]
    OtherTree {
        /// The source.
        from: PathBuf,
        /// What was meant.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// The archive, or what it holds, is not what was meant.
    #[error("the {what} of {} is {}, not {}; fetch or pack it again", .path.display(), .found.short(), .expected.short())]
    Damaged {
        /// The archive.
        path: PathBuf,
        /// `bytes` or `tree`.
        what: &'static str,
        /// What was meant.
        expected: Digest,
        /// What was found.
        found: Digest,
    },
    /// The archive has an entry that no tree may have.
    #[error("{} cannot be unpacked: its entry `{entry}` {problem}", .path.display())]
    Entry {
        /// The archive.
        path: PathBuf,
        /// The entry.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The archive can't be read.
    #[error("{} is no archive that can be read", .path.display())]
    Shape {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        source: BoxError,
    },
    /// Something else is there.
    #[error("{} is there already and holds something else; move it away, or unpack elsewhere", .0.display())]
    Occupied(PathBuf),
}

impl From<TreeError> for ArchiveError {
    fn from(error: TreeError) -> Self {
        Self::Files { kind: error.kind(), source: error.into() }
    }
}

impl Kinded for ArchiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Files { kind, .. } => *kind,
            Self::Name(_) | Self::Entry { .. } => ErrorKind::Invalid,
            Self::OtherTree { .. } | Self::Occupied(_) => ErrorKind::Conflict,
            Self::Damaged { .. } | Self::Shape { .. } => ErrorKind::Corrupt,
        }
    }
}

/// The code of [`PackArchive`].
#[derive(Debug, Clone, Copy, Default)]
pub struct PackArchiveStep;

#[async_trait]
impl Step for PackArchiveStep {
    type Spec = PackArchive;

    fn effect(&self, _: &PackArchive) -> Effect {
        Effect::idempotent()
    }

    fn touches(&self, spec: &PackArchive) -> Vec<ResourceId> {
        touched(&spec.into).into_iter().collect()
    }

    async fn preview(&self, spec: &PackArchive, _: &PreviewContext) -> Result<Preview, StepError> {
        let resource = touched(&spec.into)?;
        let details = if exists(&spec.from) {
            let source = Tree::read(&spec.from, &[], &Cancel::new()).await.map_err(StepError::of)?;
            let files = format!("{} entries, {} bytes", source.entries.len(), source.bytes());
            vec![named(spec, source.digest()).map_err(StepError::of)?, files]
        } else {
            vec![format!("{} is not there yet", spec.from.display())]
        };
        // What else lies in the directory does not matter to an archive that is named by its content.
        let fingerprint = Fingerprint::absent();
        let seen = Observed { resource, action: Action::Run, fingerprint, details };
        Ok(Preview::of(format!("packs {} into {}", spec.from.display(), spec.into.display()), vec![seen]))
    }

    async fn run(&self, spec: &PackArchive, (): (), context: &Context) -> Result<Archive, StepError> {
        context.granted(&touched(&spec.into)?)?;
        pack(spec, &context.key(), context.cancel()).await.map_err(StepError::of)
    }
}

/// The code of [`UnpackArchive`].
#[derive(Debug, Clone, Copy, Default)]
pub struct UnpackArchiveStep;

#[async_trait]
impl Step for UnpackArchiveStep {
    type Spec = UnpackArchive;

    fn effect(&self, _: &UnpackArchive) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &UnpackArchive) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &UnpackArchive) -> Vec<ResourceId> {
        touched(&spec.into).into_iter().collect()
    }

    async fn preview(&self, spec: &UnpackArchive, _: &PreviewContext) -> Result<Preview, StepError> {
        let resource = touched(&spec.into)?;
        let (action, fingerprint) = if exists(&spec.into) {
            let found = Tree::read(&spec.into, &[], &Cancel::new()).await.map_err(StepError::of)?;
            let json = |error: serde_json::Error| StepError::failed("a digest is no JSON").because(error);
            (Action::Run, Fingerprint::of(&found.digest()).map_err(json)?)
        } else {
            (Action::Create, Fingerprint::absent())
        };
        let seen = Observed { resource, action, fingerprint, details: Vec::new() };
        Ok(Preview::of(format!("unpacks an archive into {}", spec.into.display()), vec![seen]))
    }

    async fn run(
        &self,
        spec: &UnpackArchive,
        archive: Archive,
        context: &Context,
    ) -> Result<Unpacked, StepError> {
        context.granted(&touched(&spec.into)?)?;
        unpack(spec, &archive, &context.key(), context.cancel()).await.map_err(StepError::of)
    }

    async fn undo(
        &self,
        spec: &UnpackArchive,
        _: Option<Unpacked>,
        context: &Context,
    ) -> Result<(), StepError> {
        context.granted(&touched(&spec.into)?)?;
        remove(&spec.into, &context.key()).map_err(StepError::of)
    }
}

fn touched(path: &Path) -> Result<ResourceId, StepError> {
    tree::resource("dir", path).map_err(StepError::of)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The archive's file name.
fn named(spec: &PackArchive, tree: Digest) -> Result<String, ArchiveError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !spec.name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !spec.name.chars().all(plain) {
        return Err(ArchiveError::Name(spec.name.clone()));
    }
    let ending = if spec.gzip { "tar.gz" } else { "tar" };
    Ok(format!("{}-{}.{ending}", spec.name, tree.short()))
}

async fn pack(spec: &PackArchive, key: &str, cancel: &Cancel) -> Result<Archive, ArchiveError> {
    let source = Tree::read(&spec.from, &[], cancel).await?;
    let found = source.digest();
    let path = spec.into.join(named(spec, found)?);
    if let Some(expected) = spec.tree.filter(|expected| *expected != found) {
        return Err(ArchiveError::OtherTree { from: spec.from.clone(), expected, found });
    }
    tree::create_directories(&spec.into)?;
    let beside = Unfinished::new(&path, key)?;
    let made = pack_into(spec, &source, &beside.path, cancel).await;
    let (bytes, digest) = match made {
        Ok(made) => made,
        Err(error) => {
            // That it failed matters more than what it left.
            drop(tree::remove(&beside.path));
            return Err(error);
        }
    };
    // Whoever holds the archive's digest goes on holding the same file.
    if is_whole(&path, digest, cancel).await? {
        tree::remove(&beside.path)?;
    } else {
        fs::rename(&beside.path, &path).map_err(failed("name", &path))?;
        tree::sync(&spec.into)?;
    }
    Ok(Archive { path, digest, tree: found, bytes })
}

/// A file beside an archive that only one packing writes.
struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// For the archive at `path`, packed by the step with `key`. Removes what earlier attempts of that step left.
    fn new(path: &Path, key: &str) -> Result<Self, ArchiveError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ours = format!(".{name}.{}-", Digest::of(key).short());
        for found in fs::read_dir(parent).map_err(failed("list", parent))? {
            let found = found.map_err(failed("list", parent))?.file_name();
            if found.to_str().is_some_and(|found| found.starts_with(&ours)) {
                tree::remove(&parent.join(found))?;
            }
        }
        // Should two processes work at one step, because one lost its lease and goes on, they still don't share a file.
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Ok(Self { path: parent.join(format!("{ours}{process}-{count}.new")) })
    }
}

/// Whether the archive at `path` is there and holds these bytes.
async fn is_whole(path: &Path, digest: Digest, cancel: &Cancel) -> Result<bool, ArchiveError> {
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Ok(false);
    }
    let (_, found) = tree::pour(&mut tree::open(path)?, &mut io::sink(), path, cancel).await?;
    Ok(found == digest)
}

/// Writes the archive of `source` to `beside`, which must not be there, and brings it to the disk: its length and digest.
async fn pack_into(
    spec: &PackArchive,
    source: &Tree,
    beside: &Path,
    cancel: &Cancel,
) -> Result<(u64, Digest), ArchiveError> {
    let file = File::create_new(beside).map_err(failed("create", beside))?;
    let file = if spec.gzip {
        // No name, no time: only the content.
        let mut gzip = GzBuilder::new().write(file, Compression::new(6));
        write_tar(source, &spec.from, &mut gzip, beside, cancel).await?;
        GzEncoder::finish(gzip).map_err(failed("write", beside))?
    } else {
        let mut file = file;
        write_tar(source, &spec.from, &mut file, beside, cancel).await?;
        file
    };
    file.sync_all().map_err(failed("write", beside))?;
    drop(file);
    Ok(tree::pour(&mut tree::open(beside)?, &mut io::sink(), beside, cancel).await?)
}

/// Writes `source`, which lies at `from`, as a tar file (POSIX ustar with GNU's long names).
async fn write_tar(
    source: &Tree,
    from: &Path,
    to: &mut (impl Write + Send),
    at: &Path,
    cancel: &Cancel,
) -> Result<(), ArchiveError> {
    let single = fs::metadata(from).map_err(failed("look at", from))?.is_file();
    let mut tar = tar::Builder::new(to);
    for (path, entry) in &source.entries {
        breathe(cancel).await?;
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match entry {
            Entry::Directory { mode } => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                tar.append_data(&mut header, path, io::empty()).map_err(failed("write", at))?;
            }
            Entry::Link { to } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                tar.append_link(&mut header, path, to).map_err(failed("write", at))?;
            }
            Entry::File { mode, length, digest } => {
                let file = if single { from.to_owned() } else { from.join(path) };
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(*mode);
                header.set_size(*length);
                let mut hashed = Hashed::new(tree::open(&file)?, *length);
                tar.append_data(&mut header, path, &mut hashed).map_err(failed("pack", &file))?;
                if hashed.digest() != Some(*digest) {
                    return Err(TreeError::Changed(file).into());
                }
            }
        }
    }
    tar.finish().map_err(failed("write", at))?;
    Ok(())
}

/// Reads exactly so many bytes and hashes them on the way, so that what was packed is what was read before.
struct Hashed<R> {
    inner: io::Take<R>,
    hash: sha2::Sha256,
}

impl<R: Read> Hashed<R> {
    fn new(inner: R, length: u64) -> Self {
        Self { inner: inner.take(length), hash: <sha2::Sha256 as sha2::Digest>::new() }
    }

    /// What was read; `None` if it was too little.
    fn digest(self) -> Option<Digest> {
        let hash: [u8; 32] = sha2::Digest::finalize(self.hash).into();
        (self.inner.limit() == 0).then(|| Digest::from(hash))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        sha2::Digest::update(&mut self.hash, buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

async fn unpack(
    spec: &UnpackArchive,
    archive: &Archive,
    key: &str,
    cancel: &Cancel,
) -> Result<Unpacked, ArchiveError> {
    let unpacked = Unpacked { path: spec.into.clone(), tree: archive.tree };
    if exists(&spec.into) {
        let found = Tree::read(&spec.into, &[], cancel).await?;
        return if found.digest() == archive.tree && spec.into.is_dir() {
            Ok(unpacked)
        } else {
            Err(ArchiveError::Occupied(spec.into.clone()))
        };
    }
    let path = &archive.path;
    let (_, found) = tree::pour(&mut tree::open(path)?, &mut io::sink(), path, cancel).await?;
    if found != archive.digest {
        let expected = archive.digest;
        return Err(ArchiveError::Damaged { path: path.clone(), what: "digest", expected, found });
    }
    let (parent, beside) = (spec.into.parent().unwrap_or(Path::new("/")), beside(&spec.into, "unpacking"));
    tree::create_directories(parent)?;
    tree::remove(&beside)?;
    fs::create_dir(&beside).map_err(failed("create", &beside))?;
    let file = BufReader::new(tree::open(path)?);
    if is_gzip(path)? {
        read_tar(GzDecoder::new(file), path, &beside, cancel)?;
    } else {
        read_tar(file, path, &beside, cancel)?;
    }
    let found = Tree::read(&beside, &[], cancel).await?;
    let (expected, digest) = (archive.tree, found.digest());
    if digest != expected {
        return Err(ArchiveError::Damaged { path: path.clone(), what: "tree", expected, found: digest });
    }
    // Who made it, before it can be seen: undoing asks.
    tree::replace(&marker(&spec.into), key.as_bytes())?;
    breathe(cancel).await?;
    fs::rename(&beside, &spec.into).map_err(failed("name", &spec.into))?;
    tree::sync(parent)?;
    tokio::task::yield_now().await;
    Ok(unpacked)
}

/// Unpacks what `from` gives into the empty directory `to`. In one go: the crate's readers can't move between threads.
fn read_tar(from: impl Read, path: &Path, to: &Path, cancel: &Cancel) -> Result<(), ArchiveError> {
    let shape = |error: io::Error| ArchiveError::Shape { path: path.to_owned(), source: error.into() };
    let mut tar = tar::Archive::new(from);
    let mut tree = Tree::default();
    let entries = tar.entries().map_err(shape)?;
    for entry in entries {
        let mut entry = entry.map_err(shape)?;
        let name = entry.path().map_err(shape)?.into_owned();
        let refuse = |problem| ArchiveError::Entry {
            path: path.to_owned(),
            entry: name.display().to_string(),
            problem,
        };
        let name = tree::inside(&name).map_err(|_| refuse("leads out of the archive"))?.to_owned();
        let mode = entry.header().mode().map_err(shape)? & 0o777;
        let at = to.join(&name);
        // Each directory on the way was made by an entry before: nothing here can be a link.
        let parent = name.parent().unwrap_or(Path::new(""));
        if !parent.as_os_str().is_empty()
            && !matches!(tree.entries.get(parent), Some(Entry::Directory { .. }))
        {
            return Err(refuse("comes before its directory, or lies in a link"));
        }
        if cancel.is_cancelled() {
            return Err(TreeError::Cancelled.into());
        }
        let made = match entry.header().entry_type() {
            tar::EntryType::Directory => {
                fs::create_dir(&at).map_err(failed("create", &at))?;
                Entry::Directory { mode }
            }
            tar::EntryType::Symlink => {
                let leads = entry.link_name().map_err(shape)?.unwrap_or_default().into_owned();
                if !tree::stays_inside(&name, &leads) {
                    return Err(refuse("is a link that may lead out of the archive"));
                }
                tree::link(&leads, &at)?;
                Entry::Link { to: leads }
            }
            tar::EntryType::Regular => {
                let (length, digest) = tree::write_now(&mut entry, &at, mode)?;
                Entry::File { mode, length, digest }
            }
            _ => return Err(refuse("is neither a file, a directory nor a link")),
        };
        if tree.entries.insert(name.clone(), made).is_some() {
            return Err(refuse("is there twice"));
        }
    }
    tree.finish_directories(to)?;
    Ok(())
}

/// Removes what the step with `key` unpacked.
fn remove(into: &Path, key: &str) -> Result<(), ArchiveError> {
    tree::remove(&beside(into, "unpacking"))?;
    let marker = marker(into);
    match fs::read(&marker) {
        Ok(made) if made == key.as_bytes() => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("read", &marker)(error).into()),
    }
    tree::remove(into)?;
    Ok(tree::remove(&marker)?)
}

/// A hidden name beside `path`, on the same file system.
fn beside(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".{name}.{what}"))
}

fn marker(into: &Path) -> PathBuf {
    beside(into, "made-by")
}

fn is_gzip(path: &Path) -> Result<bool, ArchiveError> {
    let mut magic = [0; 2];
    let count = tree::open(path)?.read(&mut magic).map_err(failed("read", path))?;
    Ok(count == 2 && magic == [0x1f, 0x8b])
}
