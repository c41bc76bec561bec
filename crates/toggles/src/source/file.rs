//! A file, looked at again and again: whole when it is handed out, whoever writes it in whatever way.

use std::{fs, io, path::PathBuf, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock, digest::Digest};

use super::{FlagSource, Loaded, SourceError, Tag};

/// A document in a file, whether it is replaced by renaming or written in place.
///
/// A text is handed out only if the file was the same (identity, size, time of change) before reading and still is a moment later, so a
/// half-written file is waited for. Reading blocks the thread as files of this size do: briefly.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    settle: SignedDuration,
    limit: u64,
}

/// How often a file that keeps changing is waited for within one load.
const PATIENCE: usize = 5;

impl FileSource {
    /// The file at `path`, of at most 16 MiB.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { path: path.into(), clock, settle: SignedDuration::from_millis(20), limit: 16 << 20 }
    }

    /// The same; a file counts as written when it did not change for `settle`.
    #[must_use]
    pub fn settled_after(mut self, settle: SignedDuration) -> Self {
        self.settle = settle;
        self
    }

    /// The same for files of at most `bytes`.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    fn look(&self) -> Result<Look, SourceError> {
        Look::at(&self.path)
            .map_err(|error| SourceError::Unavailable { place: self.place(), source: error.into() })
    }
}

/// What of a file changes when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    identity: u64,
    size: u64,
    modified: Option<SystemTime>,
}

impl Look {
    fn at(path: &PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        #[cfg(unix)]
        let identity = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let identity = 0;
        Ok(Self { identity, size: metadata.len(), modified: metadata.modified().ok() })
    }
}

#[async_trait]
impl FlagSource for FileSource {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        for _ in 0..PATIENCE {
            let before = self.look()?;
            if before.size > self.limit {
                let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
                return Err(SourceError::TooLarge { place: self.place(), limit });
            }
            let text = fs::read(&self.path)
                .map_err(|error| SourceError::Unavailable { place: self.place(), source: error.into() })?;
            let tag = Digest::of(&text).to_string();
            if known == Some(&tag) {
                return Ok(Loaded::Same);
            }
            self.clock.sleep(self.settle).await;
            if before == self.look()? && text.len() as u64 == before.size {
                let text = String::from_utf8(text).map_err(|error| SourceError::Unusable {
                    place: self.place(),
                    problem: "it is no UTF-8 text".to_owned(),
                    source: Some(error.into()),
                })?;
                return Ok(Loaded::New { text, tag: Some(tag) });
            }
        }
        let problem = "it keeps changing; is something still writing it?".to_owned();
        Err(SourceError::Unusable { place: self.place(), problem, source: None })
    }
}
