//! Keeps flags up to date from a source: loads, reads, serves, remembers on disk, and tells the clients.

use std::{
    convert::Infallible,
    fmt, fs, io, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use flowline_core::{SignedDuration, Timestamp, clock::Clock, digest::Digest, error::chain};

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

/// How long the source is not listened to after a failure: one that always has news can't keep a program busy with what it can't use.
const BREATH: SignedDuration = SignedDuration::from_millis(250);

/// A source, a format, and the handle and provider that they feed.
///
/// [`begin`](Self::begin) serves the last good document from disk if there is one; [`run`](Self::run) drives the rest for as long as it is
/// polled, on any runtime that the source's [`Fetch`](super::Fetch) works on. Dropping `run` stops the feed and leaves the flags as they
/// are; it may be run again.
///
/// *Guarantees*
/// 1. What is served was read whole and without error; whatever else comes, the last good document stays in service.
/// 2. The file on disk holds a whole good document or is not there, after a crash at any point. It is read once, by `begin`.
/// 3. Clients hear of it when flags are ready, changed (and which), stale, and ready again. Before the first document they are not ready;
///    the first load that fails without anything to serve is an error, one that is refused is fatal, and the first document ends both.
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
    /// The document in service that could not be kept on disk, and why.
    unkept: Option<(String, String)>,
}

impl Feed {
    /// Documents of `format` from `source`. Of a format that has several syntaxes, the end of the source's [place](FlagSource::place) says
    /// which it is: our own flags from `flags.toml` or `flags.yaml` are read as such (features `config`, `yaml`).
    pub fn new(
        source: Arc<dyn FlagSource>,
        format: impl Format + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let provider = Arc::new(TogglesProvider::waiting(Toggles::default()));
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

    /// The same, with the last good document kept in the file `path`. Its directory is made if it is missing. A disk that can't be written
    /// costs the start from it, nothing more: that shows in [`trouble`](Self::trouble), and each further load tries again.
    #[must_use]
    pub fn cached_in(mut self, path: impl Into<PathBuf>) -> Self {
        self.cache = Some(path.into());
        self
    }

    /// The flags.
    pub fn toggles(&self) -> &Toggles {
        self.provider.toggles()
    }

    /// The provider to bind to an API. It may be bound at any time, and is not ready before the first document: somebody must drive
    /// [`run`](Self::run) (or [`load`](Self::load)) while [`Api::set_provider_and_wait`](crate::client::Api::set_provider_and_wait) waits.
    pub fn provider(&self) -> Arc<TogglesProvider> {
        Arc::clone(&self.provider)
    }

    /// Why the last load failed, and why the last good document is not on disk; `None` if all is well.
    pub fn trouble(&self) -> Option<String> {
        let inner = self.inner();
        let unkept = inner.unkept.as_ref().map(|(_, why)| why);
        inner.trouble.iter().chain(unkept).cloned().reduce(|all, one| format!("{all}; {one}"))
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
                    self.remember(text);
                }
                Ok(changed)
            }
        });
        match outcome {
            Ok(changed) => {
                let unkept = {
                    let mut inner = self.inner();
                    inner.trouble = None;
                    if changed { None } else { inner.unkept.take() }
                };
                if let Some((text, _)) = unkept {
                    self.remember(text);
                }
                self.happened(Happened::Loaded { changed });
                Ok(())
            }
            Err(error) => {
                self.inner().trouble = Some(chain(&error));
                let retry_after = match error {
                    SourceError::Status { retry_after, .. } => retry_after,
                    _ => None,
                };
                let refused = matches!(error, SourceError::Refused { .. });
                self.happened(Happened::Failed { refused, retry_after });
                Err(error)
            }
        }
    }

    /// Loads again and again, by the policy, and sooner when the source says so (after a failure not at once, but a quarter of a second
    /// later).
    pub async fn run(&self) -> Infallible {
        self.begin();
        loop {
            let (due, failed) = {
                let inner = self.inner();
                (inner.due.unwrap_or(Timestamp::MIN), inner.state.failures > 0)
            };
            let heard = async {
                if failed {
                    self.clock.sleep(BREATH).await;
                }
                self.source.watch().await;
            };
            let _either = race(self.clock.sleep_until(due), heard).await;
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
        let set = self.format.read_from(&self.source.place(), text)?;
        let prints = Prints::of(&set);
        self.toggles().replace(Ruleset::compile(set));
        let mut inner = self.inner();
        inner.changed = prints.changed(&inner.prints);
        inner.prints = prints;
        inner.digest = Some(digest);
        Ok(true)
    }

    /// Writes the document to disk.
    fn remember(&self, text: String) {
        let Some(path) = &self.cache else { return };
        let written = write_whole(path, &text);
        self.inner().unkept = written.err().map(|error| {
            (text, format!("cannot keep the last good document in {}: {error}", path.display()))
        });
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

/// Writes beside the file, then renames over it: readers and crashes find the old one or the new one. Each writer has a file of its own for
/// that, so that several feeds, of several processes, may keep the same file.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent)?;
    }
    let process = if cfg!(target_family = "wasm") { 0 } else { std::process::id() };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{process}-{}.new", WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let beside = PathBuf::from(beside);
    let write = || {
        let file = fs::File::create(&beside)?;
        io::Write::write_all(&mut &file, text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().inspect_err(|_| {
        // What could not be written is of no use to anybody; if it can't be removed either, it harms nobody.
        let _removed = fs::remove_file(&beside);
    })
}
