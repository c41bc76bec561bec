//! Keeps flags up to date from a source: loads, reads, serves, remembers on disk, and tells the clients.

use std::{
    convert::Infallible,
    fmt, fs, io, mem,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{Timestamp, clock::Clock, digest::Digest, error::chain};

use super::{
    FlagSource, Loaded, SourceError, Tag,
    changed::Prints,
    race::{First, race},
    schedule::{Action, Happened, Policy, State, decide},
};
use crate::{
    Ruleset, Toggles,
    client::{ErrorCode, Event, EventDetails},
    format::{Format, FormatError},
    provider::TogglesProvider,
};

/// A source, a format, and the handle and provider that they feed.
///
/// [`begin`](Self::begin) serves the last good document from disk if there is one; [`run`](Self::run) drives the rest for as long as it is polled,
/// on any runtime that the source's [`Fetch`](super::Fetch) works on. Dropping `run` stops the feed and leaves the flags as they are; it may be run again.
///
/// *Guarantees*
/// 1. What is served was read whole and without error; whatever else comes, the last good document stays in service.
/// 2. The file on disk holds a whole good document or is not there, after a crash at any point. It is read once, by `begin`.
/// 3. Clients hear of it when flags are ready, changed (and which), stale, and ready again.
pub struct Feed {
    source: Arc<dyn FlagSource>,
    format: Box<dyn Format + Send + Sync>,
    provider: Arc<TogglesProvider>,
    clock: Arc<dyn Clock>,
    policy: Policy,
    cache: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    tag: Option<Tag>,
    /// Of the text in service.
    digest: Option<Digest>,
    /// Of the flags in service.
    prints: Prints,
    /// The flags that the last document changed, until that was told.
    changed: Vec<Arc<str>>,
    due: Option<Timestamp>,
    /// Why the last load failed.
    trouble: Option<String>,
}

impl Feed {
    /// Documents of `format` from `source`.
    pub fn new(
        source: Arc<dyn FlagSource>,
        format: impl Format + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let provider = Arc::new(TogglesProvider::new(Toggles::default()));
        provider.notify(
            Event::Error,
            EventDetails::error(ErrorCode::ProviderNotReady, "no flags were loaded yet"),
        );
        Self {
            source,
            format: Box::new(format),
            provider,
            clock,
            policy: Policy::default(),
            cache: None,
            inner: Mutex::default(),
        }
    }

    /// The same by another policy.
    #[must_use]
    pub fn by(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// The same, with the last good document kept in the file `path`.
    #[must_use]
    pub fn cached_in(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// The flags.
    pub fn toggles(&self) -> &Toggles {
        self.provider.toggles()
    }

    /// The provider to bind to an API. It may be bound at any time.
    pub fn provider(&self) -> Arc<TogglesProvider> {
        Arc::clone(&self.provider)
    }

    /// Why the last load failed; `None` if it did not.
    pub fn trouble(&self) -> Option<String> {
        self.inner().trouble.clone()
    }

    /// When the source is asked next; `None` before [`begin`](Self::begin).
    pub fn next_load(&self) -> Option<Timestamp> {
        self.inner().due
    }

    /// Serves what the disk has, if there is something usable. Once; `run` does it if nobody did.
    pub fn begin(&self) {
        if self.inner().due.is_some() {
            return;
        }
        let cached = self.cache.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let cached = cached.is_some_and(|text| self.serve(&text).is_ok());
        self.happened(Happened::Began { cached });
    }

    /// Loads once, now, and serves what comes.
    ///
    /// # Errors
    /// Why nothing came, or what came is no use. The last good document stays in service, and the clients were told what they must know.
    pub async fn load(&self) -> Result<(), SourceError> {
        self.begin();
        let known = self.inner().tag.clone();
        let limit = self.policy.limit;
        let loaded = match race(self.source.load(known.as_ref()), self.clock.sleep(limit)).await {
            First::One(loaded) => loaded,
            First::Other(()) => {
                Err(SourceError::TimedOut { place: self.source.place(), limit: format!("{limit:#}") })
            }
        };
        let outcome = loaded.and_then(|loaded| match loaded {
            Loaded::Same => Ok(false),
            Loaded::New { text, tag } => {
                let changed = self.serve(&text).map_err(|error| SourceError::Unusable {
                    place: self.source.place(),
                    problem: error.to_string(),
                    source: Some(error.into()),
                })?;
                self.inner().tag = tag;
                if changed {
                    self.remember(&text);
                }
                Ok(changed)
            }
        });
        match outcome {
            Ok(changed) => {
                self.inner().trouble = None;
                self.happened(Happened::Loaded { changed });
                Ok(())
            }
            Err(error) => {
                self.inner().trouble = Some(chain(&error));
                self.happened(Happened::Failed { refused: matches!(error, SourceError::Refused { .. }) });
                Err(error)
            }
        }
    }

    /// Loads again and again, by the policy, and sooner when the source says so.
    pub async fn run(&self) -> Infallible {
        self.begin();
        loop {
            let due = self.inner().due.unwrap_or(Timestamp::MIN);
            let _either = race(self.clock.sleep_until(due), self.source.watch()).await;
            // What failed was told, and is in `trouble`.
            let _told = self.load().await;
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads and serves a document; whether it is another one than before.
    fn serve(&self, text: &str) -> Result<bool, FormatError> {
        let digest = Digest::of(text.as_bytes());
        if self.inner().digest == Some(digest) {
            return Ok(false);
        }
        let set = self.format.read(text)?;
        let prints = Prints::of(&set);
        self.toggles().replace(Ruleset::compile(set));
        let mut inner = self.inner();
        inner.changed = prints.changed(&inner.prints);
        inner.prints = prints;
        inner.digest = Some(digest);
        Ok(true)
    }

    /// Writes the document to disk. A disk that can't be written costs the start from it, nothing more: it shows in [`trouble`](Self::trouble).
    fn remember(&self, text: &str) {
        if let Some(path) = &self.cache
            && let Err(error) = write_whole(path, text)
        {
            let trouble = format!("cannot keep the last good document in {}: {error}", path.display());
            self.inner().trouble = Some(trouble);
        }
    }

    fn happened(&self, happened: Happened) {
        let (actions, trouble, changed) = {
            let mut inner = self.inner();
            let (state, actions) = decide(&inner.state, happened, self.clock.now(), &self.policy);
            inner.state = state;
            if let Some(Action::LoadAt(due)) = actions.last() {
                inner.due = Some(*due);
            }
            (actions, inner.trouble.clone().unwrap_or_default(), mem::take(&mut inner.changed))
        };
        for action in actions {
            match action {
                Action::LoadAt(_) => {}
                Action::Tell(Event::Error) => {
                    self.provider
                        .notify(Event::Error, EventDetails::error(ErrorCode::General, trouble.as_str()));
                }
                Action::TellFatal => {
                    let details = EventDetails::error(ErrorCode::ProviderFatal, trouble.as_str());
                    self.provider.notify(Event::Error, details);
                }
                Action::Tell(Event::Stale) => {
                    let message = format!("flags from {} may be out of date; {trouble}", self.source.place());
                    self.provider.notify(Event::Stale, EventDetails::message(message));
                }
                Action::Tell(Event::ConfigurationChanged) => {
                    self.provider.notify(Event::ConfigurationChanged, EventDetails::changed(changed.clone()));
                }
                Action::Tell(event) => self.provider.notify(event, EventDetails::new()),
            }
        }
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed")
            .field("source", &self.source)
            .field("state", &self.inner().state)
            .finish_non_exhaustive()
    }
}

/// Writes beside the file, then renames over it: readers and crashes find the old one or the new one.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let file = fs::File::create(&beside)?;
    io::Write::write_all(&mut &file, text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
