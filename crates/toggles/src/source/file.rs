//! A file, looked at again and again: whole when it is handed out, whoever writes it in whatever way.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock, digest::Digest};

use super::{FlagSource, Loaded, SourceError, Tag};

/// A document in a file, whether it is replaced by renaming, through links (as Kubernetes does for its volumes), or written in place.
///
/// A text is handed out only if the file was the same (identity, size, time of change) before reading and still is a moment later, so a
/// half-written file is waited for. Reading blocks the thread as files of this size do: briefly. What is no ordinary file (a directory, a
/// pipe, a device) is refused unopened.
///
/// [`watch`](FlagSource::watch) looks at the file's metadata every 250 ms, so a [`Feed`](super::Feed) that runs serves a change within a
/// moment. That needs no support of the system's and works on every file system; a change that keeps identity, size and time is noticed by
/// the next load.
#[derive(Debug, Clone)]
pub struct FileSource {
    path: PathBuf,
    clock: Arc<dyn Clock>,
    settle: SignedDuration,
    look_every: SignedDuration,
    limit: u64,
    /// What was there at the last load.
    seen: Arc<Mutex<Seen>>,
}

/// How often a file that keeps changing is waited for within one load.
const PATIENCE: usize = 5;

impl FileSource {
    /// The file at `path`, of at most 16 MiB.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            path: path.into(),
            clock,
            settle: SignedDuration::from_millis(20),
            look_every: SignedDuration::from_millis(250),
            limit: 16 << 20,
            seen: Arc::default(),
        }
    }

    /// The same; a file counts as written when it did not change for `settle`.
    #[must_use]
    pub fn settled_after(mut self, settle: SignedDuration) -> Self {
        self.settle = settle;
        self
    }

    /// The same, watched by a look at the file's metadata every `interval` (at least a millisecond) in place of 250 ms.
    #[must_use]
    pub fn looked_at_every(mut self, interval: SignedDuration) -> Self {
        self.look_every = interval.max(SignedDuration::from_millis(1));
        self
    }

    /// The same for files of at most `bytes`.
    #[must_use]
    pub fn at_most(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Looks, for a load.
    fn look(&self) -> Result<Look, SourceError> {
        let looked = Look::at(&self.path);
        *self.seen() = looked.as_ref().map_or(Seen::Nothing, |look| Seen::File(look.clone()));
        let look = looked.map_err(|error| self.unavailable(error))?;
        match look.what {
            None => Ok(look),
            Some(what) => {
                let problem = format!("it is {what}, not a file");
                Err(SourceError::Unusable { place: self.place(), problem, source: None })
            }
        }
    }

    fn unavailable(&self, error: io::Error) -> SourceError {
        SourceError::Unavailable { place: self.place(), source: error.into() }
    }

    /// Reads no more than the limit, however the file grows meanwhile.
    fn read(&self) -> Result<Vec<u8>, SourceError> {
        let mut text = Vec::new();
        let file = fs::File::open(&self.path).map_err(|error| self.unavailable(error))?;
        let most = self.limit.saturating_add(1);
        file.take(most).read_to_end(&mut text).map_err(|error| self.unavailable(error))?;
        if text.len() as u64 > self.limit {
            return Err(self.too_large());
        }
        Ok(text)
    }

    fn too_large(&self) -> SourceError {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        SourceError::TooLarge { place: self.place(), limit }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found at the last look of a load.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Seen {
    /// There was none yet.
    #[default]
    Unseen,
    /// There was no file, or none that may be looked at.
    Nothing,
    /// This.
    File(Look),
}

/// What of a file changes when it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    /// What it is if it is no file.
    what: Option<&'static str>,
    identity: [u64; 2],
    size: u64,
    modified: Option<SystemTime>,
}

impl Look {
    /// Looks through links at what they lead to.
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let what = match metadata.file_type() {
            kind if kind.is_file() => None,
            kind if kind.is_dir() => Some("a directory"),
            _ => Some("a pipe, a socket or a device"),
        };
        #[cfg(unix)]
        let identity = {
            use std::os::unix::fs::MetadataExt;
            [metadata.dev(), metadata.ino()]
        };
        #[cfg(not(unix))]
        let identity = [0, 0];
        Ok(Self { what, identity, size: metadata.len(), modified: metadata.modified().ok() })
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
                return Err(self.too_large());
            }
            let text = self.read()?;
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

    /// Returns as soon as the file is another than at the last load: changed, replaced, there again, or gone.
    async fn watch(&self) {
        loop {
            let now = Look::at(&self.path).map_or(Seen::Nothing, Seen::File);
            {
                let mut seen = self.seen();
                match &*seen {
                    Seen::Unseen => *seen = now,
                    seen if *seen != now => return,
                    _ => {}
                }
            }
            self.clock.sleep(self.look_every).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::clock::ManualClock;

    use super::*;

    #[test]
    fn what_grew_since_it_was_looked_at_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flags.json");
        let source = FileSource::new(&path, Arc::new(ManualClock::default())).at_most(10);
        fs::write(&path, "0123456789").unwrap();
        assert_eq!(source.read().unwrap().len(), 10);
        fs::write(&path, "0123456789+").unwrap();
        assert!(matches!(source.read(), Err(SourceError::TooLarge { limit: 10, .. })));
        // Without an end at all.
        let endless = FileSource { path: "/dev/zero".into(), ..source };
        if cfg!(target_os = "linux") {
            assert!(matches!(endless.read(), Err(SourceError::TooLarge { limit: 10, .. })));
        }
    }
}
