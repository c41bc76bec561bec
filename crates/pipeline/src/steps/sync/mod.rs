//! Putting files on a host so that whoever reads them sees the old release or the new one, never a mixture.

mod back;
mod far;
mod host;
mod record;
mod through;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded, Retry},
    id::ResourceId,
};
use serde::{Deserialize, Serialize};

use super::tree::{self, TreeError};
use crate::{
    cancel::Cancel,
    exec::ExecError,
    step::{
        Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
    },
};
pub use back::{SwitchRelease, SwitchReleaseStep, SwitchedRelease};
use host::{Host, Look};
pub use through::{SwitchReleaseThrough, SyncFilesThrough};

/// Files of this host on their way into a release directory, on this host ([`SyncFilesStep`]) or on that of an executor
/// ([`SyncFilesThrough`]): which of them is the registry's matter, so that the same plan means the same on a laptop and over SSH.
///
/// The directory `to` gets this shape:
///
/// ```text
/// to/current                -> releases/000017-2cf24dba5fb0
/// to/releases/000016-…         what was before, the last few kept
/// to/releases/000017-2cf24dba5fb0
/// to/shared/uploads            linked into each release (`shared`)
/// to/releases/…/REVISION       the revision, if it was said (`revision`)
/// to/releases.json             which release each run switched from and to
/// to/.lock                     who works here: run, step, process, since when; empty when nobody does
/// ```
///
/// *Effect*: idempotent, under the run's key. A release is copied beside the others, checked by digest, brought to the disk, and then one
/// rename switches `current`. A release that is there already, and whole, is not copied again.
///
/// *Undo*: `current` leads to what it led to before, and the release that this step made is removed; what it cleaned away to keep only
/// `keep` does not come back. Refused if somebody switched again since.
///
/// *Touches* `dir:` and the path of `to`, such as `dir:/srv/www`.
///
/// *Errors by kind*: `NotFound` (no such source, or a shared path is missing), `Invalid` (a link that leads out of the tree, a device, a
/// path that is not absolute or leads through a link), `Conflict` (the source changed or is not the declared digest, somebody switched
/// again, `current` is no link), `Busy` (another process works on the same directory, and which), `Denied`, `Unavailable` (the disk is full).
///
/// *Concurrency*: one process at a time works on a directory. The lock is the operating system's, so it ends with its process and never
/// stays behind; `.lock` may be shown to people but is not the lock. [`SwitchRelease`] goes back to a release that is still there.
///
/// After Capistrano's layout, with these differences: releases are numbered instead of named by the time, so that their order depends on no
/// clock and cleaning up on no directory's time; a tree that was deployed before is not copied again; `REVISION` is written only if a revision
/// was said, and a release that holds the same tree for another one is another release; `releases.json` takes the place of `revisions.log`;
/// undoing removes the release that it leaves instead of packing it into an archive, and [`SwitchRelease`] leaves it where it is; `shared`
/// is never filled by the step; besides the current release the one before is kept, too, whatever `keep` says.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::SyncFiles};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("site", "storefront".parse()?);
/// let synced = pipeline.step("sync", SyncFiles::new("/build/site", "/srv/www").shared("uploads"));
/// # let _ = synced; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncFiles {
    /// The directory whose content, or the one file, becomes the release.
    pub from: PathBuf,
    /// The directory with `current` and `releases`: absolute, without `..`, and not through a link. It is made if it is not there.
    pub to: PathBuf,
    /// How many releases are kept, 1 or more; the current one and the one before it always are.
    #[serde(default = "five")]
    pub keep: usize,
    /// Relative paths that are links to the same path below `to/shared`, which must be there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub shared: BTreeSet<PathBuf>,
    /// What the files were made from, such as a commit: one line, written to `REVISION` in the release. The source must not bring that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The digest of the tree that is meant; another one is refused. Without it, the release is what `from` holds when the step runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

fn five() -> usize {
    5
}

impl SyncFiles {
    /// The content of `from` as the newest release in `to`, keeping 5.
    pub fn new(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            keep: five(),
            shared: BTreeSet::new(),
            revision: None,
            digest: None,
        }
    }

    /// The same, keeping `keep` releases.
    #[must_use]
    pub fn keep(mut self, keep: usize) -> Self {
        self.keep = keep;
        self
    }

    /// The same with `path` shared by all releases.
    #[must_use]
    pub fn shared(mut self, path: impl Into<PathBuf>) -> Self {
        self.shared.insert(path.into());
        self
    }

    /// The same, saying what the files were made from.
    #[must_use]
    pub fn revision(mut self, revision: impl Into<String>) -> Self {
        self.revision = Some(revision.into());
        self
    }

    /// The same, only for this tree.
    #[must_use]
    pub fn digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }
}

/// What is current after a [`SyncFiles`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// The name of the release.
    pub release: String,
    /// The digest of its tree.
    pub digest: Digest,
}

impl Spec for SyncFiles {
    const KIND: &'static str = "files/sync";
    type Input = ();
    type Output = Synced;
}

/// Why a release could not be made current, or not be taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// Files can't be read or written.
    #[error("the files of a release cannot be used")]
    Files {
        /// What that means.
        kind: ErrorKind,
        /// Which file, and why.
        source: BoxError,
    },
    /// `to` is not a plain path.
    #[error("{} leads through a link to {}; name that directory instead", .path.display(), .real.display())]
    Link {
        /// As written.
        path: PathBuf,
        /// Where it leads.
        real: PathBuf,
    },
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
    /// Something that all releases share is not there.
    #[error("{} is shared by all releases and not there; make it first", .0.display())]
    NotShared(PathBuf),
    /// The source brings along what is shared, or its own `REVISION`.
    #[error("`{}` is added to each release, and {} brings its own; leave it out of one of them", .path.display(), .from.display())]
    SharedTwice {
        /// The path.
        path: PathBuf,
        /// The source.
        from: PathBuf,
    },
    /// `current` is something else than a link to a release.
    #[error("{} is no link to a release; move it away, then try again", .0.display())]
    NotALink(PathBuf),
    /// Somebody else switched in between.
    #[error("{} now leads to `{found}`, not to `{expected}`: somebody switched in between; decide which is right and switch by hand, or plan anew", .path.display())]
    SwitchedAgain {
        /// The link.
        path: PathBuf,
        /// Where it should lead.
        expected: String,
        /// Where it leads.
        found: String,
    },
    /// The release to go back to is gone.
    #[error("the release `{release}` to go back to is not in {}; keep more releases", .releases.display())]
    Gone {
        /// Its name.
        release: String,
        /// Where it was.
        releases: PathBuf,
    },
    /// Another process works on the directory.
    #[error("{} is in use by {holder}; try again once that is done, or end it", .to.display())]
    Busy {
        /// The directory.
        to: PathBuf,
        /// Who works there, as far as they said: run, step, process, and since when.
        holder: String,
    },
    /// The revision is not one line.
    #[error("`{}` cannot stand in a REVISION file; give one line without control characters", .0.escape_debug())]
    Revision(String),
    /// The directory is on another host, and something between here and there failed.
    #[error("cannot work on the releases through the executor")]
    Executor {
        /// What the executor said.
        source: ExecError,
    },
    /// The host of the directory lacks a tool.
    #[error(
        "there is no `{0}` on the host of the releases; install it there (coreutils, findutils, util-linux)"
    )]
    Tool(String),
    /// A name cannot be told to another host.
    #[error("{} cannot be named to another host, as it is not UTF-8 or holds a newline; rename it", .0.display())]
    Name(PathBuf),
    /// The record of switches can't be read.
    #[error("{} is damaged ({problem}); move it away to begin a new one, the releases stay", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl From<TreeError> for SyncError {
    fn from(error: TreeError) -> Self {
        Self::Files { kind: error.kind(), source: error.into() }
    }
}

impl Kinded for SyncError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Files { kind, .. } => *kind,
            Self::Link { .. } | Self::SharedTwice { .. } | Self::Revision(_) | Self::Name(_) => {
                ErrorKind::Invalid
            }
            Self::OtherTree { .. } | Self::NotALink(_) | Self::SwitchedAgain { .. } => ErrorKind::Conflict,
            Self::NotShared(_) | Self::Gone { .. } => ErrorKind::NotFound,
            Self::Busy { .. } => ErrorKind::Busy,
            Self::Record { .. } => ErrorKind::Corrupt,
            Self::Executor { source } => source.kind(),
            Self::Tool(_) => ErrorKind::Unsupported,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Executor { source } => source.retry(),
            // By default as the kind does.
            _ => StepError::new(self.kind(), "").retry(),
        }
    }
}

/// The code of [`SyncFiles`] on this host; on another it is [`SyncFilesThrough`].
#[derive(Debug, Clone, Copy, Default)]
pub struct SyncFilesStep;

#[async_trait]
impl Step for SyncFilesStep {
    type Spec = SyncFiles;

    fn effect(&self, _: &SyncFiles) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &SyncFiles) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &SyncFiles) -> Vec<ResourceId> {
        touched(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &SyncFiles, _: &PreviewContext) -> Result<Preview, StepError> {
        touched(spec).map_err(StepError::of)?;
        shown(spec, host::look(spec, &Cancel::new()).await.map_err(StepError::of)?)
    }

    async fn run(&self, spec: &SyncFiles, (): (), context: &Context) -> Result<Synced, StepError> {
        let resource = touched(spec).map_err(StepError::of)?;
        context.granted(&resource)?;
        let host = Host::open(&spec.to, context).map_err(StepError::of)?;
        host.sync(spec, &context.key(), context.cancel()).await.map_err(StepError::of)
    }

    async fn undo(&self, spec: &SyncFiles, _: Option<Synced>, context: &Context) -> Result<(), StepError> {
        let resource = touched(spec).map_err(StepError::of)?;
        context.granted(&resource)?;
        undone(&spec.to, context).map_err(StepError::of)
    }
}

/// What bringing the source to the directory is, both looked at.
fn shown(spec: &SyncFiles, look: Look) -> Result<Preview, StepError> {
    let resource = touched(spec).map_err(StepError::of)?;
    let Look { current, revision, source } = look;
    let found = current.as_ref().map(|(release, tree)| (release.clone(), tree.digest()));
    let wanted = source.as_ref().map(tree::Tree::digest);
    let fingerprint = match &found {
        Some((_, digest)) => Fingerprint::of(digest).map_err(not_json)?,
        None => Fingerprint::absent(),
    };
    let (action, details) = match (&current, &source) {
        (_, None) => (Action::Run, vec![format!("{} is not there yet", spec.from.display())]),
        (None, Some(source)) => (Action::Create, source.changes_from(&tree::Tree::default())),
        (Some((_, current)), Some(source)) if current == source && revision => (Action::Keep, Vec::new()),
        (Some((_, current)), Some(source)) => {
            let of = spec.revision.iter().filter(|_| !revision).map(|of| format!("~ REVISION: {of}"));
            (Action::Update, of.chain(source.changes_from(current)).collect())
        }
    };
    let summary = format!("makes {} the current release of {}", spec.from.display(), spec.to.display());
    let preview = Preview::of(summary, vec![Observed { resource, action, fingerprint, details }]);
    match (action, found, wanted) {
        (Action::Keep, Some((release, digest)), Some(_)) => {
            let known = serde_json::to_value(Synced { release, digest }).map_err(not_json)?;
            Ok(preview.knowing(known))
        }
        _ => Ok(preview),
    }
}

/// Takes back what the step of `context` did in the directory `to`.
fn undone(to: &Path, context: &Context) -> Result<(), SyncError> {
    if !exists(to) {
        return Ok(());
    }
    match Host::open(to, context) {
        // It was refused because somebody else works here, and has done nothing.
        Err(SyncError::Busy { .. }) if !host::began(to, &context.key())? => Ok(()),
        host => host?.undo(&context.key()),
    }
}

fn touched(spec: &SyncFiles) -> Result<ResourceId, SyncError> {
    Ok(tree::resource("dir", &spec.to)?)
}

fn not_json(error: serde_json::Error) -> StepError {
    StepError::new(ErrorKind::Other, "a tree cannot be written as JSON").because(error)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
