//! What `releases.json` remembers, how releases are named, and what follows from both: plain data, wherever the directory is.

use std::path::{Path, PathBuf};

use flowline_core::digest::Digest;
use serde::{Deserialize, Serialize};

use super::SyncError;

/// The file `releases.json`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    /// Oldest first; the last [`REMEMBERED`].
    pub(super) switches: Vec<Switch>,
}

/// One run's switch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Switch {
    /// The step of the run.
    pub(super) key: String,
    /// The release that was current.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<String>,
    pub(super) to: String,
    /// The tree of `to`; unknown if it was only switched to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<Digest>,
    /// Whether this switch made `to`, so that undoing removes it.
    pub(super) made: bool,
}

const REMEMBERED: usize = 200;

impl Record {
    /// What the file in `root` holds, if there is one.
    pub(super) fn read(bytes: Option<&[u8]>, root: &Path) -> Result<Self, SyncError> {
        let Some(bytes) = bytes else { return Ok(Self::default()) };
        serde_json::from_slice(bytes)
            .map_err(|error| SyncError::Record { path: record_file(root), problem: error.to_string() })
    }

    /// What is written to the file in `root`.
    pub(super) fn bytes(&mut self, root: &Path) -> Result<Vec<u8>, SyncError> {
        self.format = 1;
        let old = self.switches.len().saturating_sub(REMEMBERED);
        self.switches.drain(..old);
        serde_json::to_vec_pretty(self)
            .map_err(|error| SyncError::Record { path: record_file(root), problem: error.to_string() })
    }

    pub(super) fn of(&self, key: &str) -> Option<&Switch> {
        self.switches.iter().rev().find(|switch| switch.key == key)
    }

    /// Which of the releases `names` go: all but the newest; never the current one, the one before it, or what is not ours.
    pub(super) fn outdated(&self, names: Vec<String>, current: Option<&str>, keep: usize) -> Vec<String> {
        let before = self.switches.iter().rev().find(|switch| Some(switch.to.as_str()) == current);
        let before = before.and_then(|switch| switch.from.as_deref());
        let old = names.len().saturating_sub(keep.max(1));
        let stays = |name: &String| Some(name.as_str()) == current || Some(name.as_str()) == before;
        names.into_iter().take(old).filter(|name| !stays(name)).collect()
    }
}

/// Those of `names` that these steps gave, oldest first. Nothing else in the directory is ever touched.
pub(super) fn ours(mut names: Vec<String>) -> Vec<String> {
    names.retain(|name| number(name).is_some());
    names.sort_by_key(|name| number(name));
    names
}

/// The name of a new release with the tree `digest` after those that are there.
pub(super) fn next(names: &[String], digest: Digest) -> String {
    let last = names.last().and_then(|name| number(name)).unwrap_or(0);
    format!("{:06}-{}", last + 1, digest.short())
}

/// The release `wanted` of those that are there, or without a name the newest of those before `current`.
pub(super) fn kept(
    root: &Path,
    names: Vec<String>,
    current: Option<&str>,
    wanted: Option<&str>,
) -> Result<String, SyncError> {
    let gone = |release: &str| SyncError::Gone { release: release.to_owned(), releases: releases(root) };
    if let Some(wanted) = wanted {
        return names.into_iter().find(|name| name == wanted).ok_or_else(|| gone(wanted));
    }
    let before = |name: &String| number(name) < current.and_then(number);
    names.into_iter().rev().find(before).ok_or_else(|| gone("the one before"))
}

/// The release that a link leads to, if it is one of ours.
pub(super) fn release_of(to: &Path) -> Option<String> {
    let name = to.strip_prefix("releases").ok().and_then(Path::to_str);
    name.filter(|name| number(name).is_some()).map(str::to_owned)
}

/// Where the shared path `path` of a release leads.
pub(super) fn shared_target(path: &Path) -> PathBuf {
    let up: PathBuf = path.components().skip(1).map(|_| "..").collect();
    up.join("../../shared").join(path)
}

pub(super) fn releases(root: &Path) -> PathBuf {
    root.join("releases")
}

pub(super) fn record_file(root: &Path) -> PathBuf {
    root.join("releases.json")
}

pub(super) fn switched_again(root: &Path, expected: Option<&str>, found: Option<String>) -> SyncError {
    SyncError::SwitchedAgain {
        path: root.join("current"),
        expected: expected.unwrap_or("nothing").to_owned(),
        found: found.unwrap_or_else(|| "nothing".to_owned()),
    }
}

/// The number of a release that this step made: `000017-2cf24dba5fb0`.
fn number(name: &str) -> Option<u64> {
    let (number, digest) = name.split_once('-')?;
    let plain = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let hex = digest.len() == 12 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (plain && hex).then(|| number.parse().ok()).flatten()
}
