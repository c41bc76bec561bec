//! The moments at which the death of this process matters, named so that a test can die at each of them.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A moment between two effects. A hook ([`LocalOptions::with_checkpoints`](super::LocalOptions::with_checkpoints)) is called at each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checkpoint {
    /// An artifact is copied under a temporary name.
    ArtifactCopied,
    /// An artifact is in the store.
    ArtifactStored,
    /// The fence was passed and is on disk.
    FenceRecorded,
    /// A release has its number; nothing else of it is there.
    ReleaseNumbered,
    /// A release's files are copied under a temporary name.
    ReleaseCopied,
    /// A release's files stand under its number.
    ReleasePlaced,
    /// What is about to be started, under which mark, is on disk.
    StartIntended,
    /// The process runs; nothing but its mark tells whose it is.
    ProcessStarted,
    /// The process's id and start are on disk.
    ProcessRecorded,
    /// The process answers.
    ProcessReady,
    /// What is about to become active is on disk.
    ActivationIntended,
    /// The new `current` link stands beside the old one.
    LinkMade,
    /// `current` points to the new release.
    LinkSwitched,
    /// A process was stopped; the record does not know yet.
    ProcessStopped,
    /// The record no longer has a release whose files are still there.
    ReleaseForgotten,
    /// All processes of a resource were stopped, to destroy it.
    AllStopped,
    /// A resource's directory was moved out of the way, to destroy it.
    DirectoryMoved,
}

impl Checkpoint {
    /// All of them, in the order in which a life passes them.
    pub const ALL: [Self; 17] = [
        Self::ArtifactCopied,
        Self::ArtifactStored,
        Self::FenceRecorded,
        Self::ReleaseNumbered,
        Self::ReleaseCopied,
        Self::ReleasePlaced,
        Self::StartIntended,
        Self::ProcessStarted,
        Self::ProcessRecorded,
        Self::ProcessReady,
        Self::ActivationIntended,
        Self::LinkMade,
        Self::LinkSwitched,
        Self::ProcessStopped,
        Self::ReleaseForgotten,
        Self::AllStopped,
        Self::DirectoryMoved,
    ];
}

/// The hook, or none.
#[derive(Clone, Default)]
pub(super) struct Hook(pub(super) Option<Arc<dyn Fn(Checkpoint) + Send + Sync>>);

impl Hook {
    #[cfg_attr(not(unix), expect(dead_code, reason = "elsewhere nothing is done at any of them"))]
    pub(super) fn at(&self, checkpoint: Checkpoint) {
        if let Some(hook) = &self.0 {
            hook(checkpoint);
        }
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Hook" } else { "no hook" })
    }
}
