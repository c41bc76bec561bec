//! What happens to providers: [`Event`], the [`ProviderStatus`] that follows from it, and who is told.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use super::{ErrorCode, FlagMetadata, api::Shared, binding::Slot, contained};

/// What can happen to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Event {
    /// It is ready, for the first time or again.
    Ready,
    /// It can't do its work (and never will, with the code `PROVIDER_FATAL`).
    Error,
    /// Its flags have changed.
    ConfigurationChanged,
    /// What it knows may be out of date.
    Stale,
}

impl Event {
    /// OpenFeature's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "PROVIDER_READY",
            Self::Error => "PROVIDER_ERROR",
            Self::ConfigurationChanged => "PROVIDER_CONFIGURATION_CHANGED",
            Self::Stale => "PROVIDER_STALE",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a provider is fit for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum ProviderStatus {
    /// It has not started, or was shut down. Evaluations get their default and `PROVIDER_NOT_READY`.
    #[default]
    NotReady,
    /// It works.
    Ready,
    /// It works from what it knew; that may be out of date.
    Stale,
    /// It fails; evaluations still ask it.
    Error,
    /// It failed for good. Evaluations get their default and `PROVIDER_FATAL`.
    Fatal,
}

impl ProviderStatus {
    /// OpenFeature's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "NOT_READY",
            Self::Ready => "READY",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
            Self::Fatal => "FATAL",
        }
    }

    /// The status that `event` leads to; `None`: it stays.
    pub(super) fn after(event: Event, code: Option<ErrorCode>) -> Option<Self> {
        match event {
            Event::Ready => Some(Self::Ready),
            Event::Stale => Some(Self::Stale),
            Event::Error if code == Some(ErrorCode::ProviderFatal) => Some(Self::Fatal),
            Event::Error => Some(Self::Error),
            Event::ConfigurationChanged => None,
        }
    }

    /// Whether a handler of `event` runs at once when it is added in this status.
    pub(super) fn announces(self, event: Event) -> bool {
        match event {
            Event::Ready => self == Self::Ready,
            Event::Stale => self == Self::Stale,
            Event::Error => matches!(self, Self::Error | Self::Fatal),
            Event::ConfigurationChanged => false,
        }
    }
}

impl fmt::Display for ProviderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a provider says about an event, and what a handler hears.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EventDetails {
    /// The provider's name; filled in for handlers.
    pub provider: Arc<str>,
    /// The keys of flags that changed, if the provider knows.
    pub flags_changed: Vec<Arc<str>>,
    /// What happened, for people; there with every error.
    pub message: Option<Arc<str>>,
    /// The kind of error; there with every error.
    pub error_code: Option<ErrorCode>,
    /// What else the provider says.
    pub metadata: FlagMetadata,
}

impl EventDetails {
    /// Nothing more than that it happened.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a message.
    pub fn message(message: impl Into<Arc<str>>) -> Self {
        Self { message: Some(message.into()), ..Self::default() }
    }

    /// An error.
    pub fn error(code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { error_code: Some(code), ..Self::message(message) }
    }

    /// The flags that changed.
    pub fn changed<K: Into<Arc<str>>>(flags: impl IntoIterator<Item = K>) -> Self {
        Self { flags_changed: flags.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// Where a provider tells what happens to it. Cheap to clone, and does not keep anything alive: after the provider was unbound, or the
/// API is gone, telling does nothing.
#[derive(Clone)]
pub struct Emitter {
    shared: Weak<Shared>,
    slot: Weak<Slot>,
}

impl Emitter {
    pub(super) fn new(shared: &Arc<Shared>, slot: &Arc<Slot>) -> Self {
        Self { shared: Arc::downgrade(shared), slot: Arc::downgrade(slot) }
    }

    /// An emitter that nobody listens to, for providers that are used without a client.
    pub fn detached() -> Self {
        Self { shared: Weak::new(), slot: Weak::new() }
    }

    /// Tells that `event` happened. The status changes first, then the handlers run, on this thread. An error without message or code gets
    /// ones that say so.
    pub fn emit(&self, event: Event, mut details: EventDetails) {
        let (Some(shared), Some(slot)) = (self.shared.upgrade(), self.slot.upgrade()) else { return };
        if event == Event::Error {
            details.error_code.get_or_insert(ErrorCode::General);
            details.message.get_or_insert_with(|| "the provider did not say what is wrong".into());
        }
        details.provider = slot.metadata.name().into();
        shared.announce(&slot, event, &details);
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Emitter")
    }
}

/// Names a handler, for its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandlerId(pub(super) u64);

pub(super) type Handler = Arc<dyn Fn(&EventDetails) + Send + Sync>;

/// Who is told of what.
#[derive(Default)]
pub(super) struct Handlers {
    last_id: u64,
    entries: Vec<Entry>,
}

struct Entry {
    id: HandlerId,
    event: Event,
    audience: Audience,
    handler: Handler,
}

/// Whose handler it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Audience {
    /// The API's: every provider.
    Everyone,
    /// A client's: the provider of its domain.
    Domain(Option<Arc<str>>),
}

impl Handlers {
    pub(super) fn add(&mut self, event: Event, audience: Audience, handler: Handler) -> HandlerId {
        self.last_id += 1;
        let id = HandlerId(self.last_id);
        self.entries.push(Entry { id, event, audience, handler });
        id
    }

    /// Removes `id` if it belongs to `audience`; whether it was there.
    pub(super) fn remove(&mut self, id: HandlerId, audience: &Audience) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.id != id || entry.audience != *audience);
        self.entries.len() < before
    }

    /// Forgets all handlers. They are handed out, to be dropped where no lock is held.
    pub(super) fn take(&mut self) -> Vec<Handler> {
        std::mem::take(&mut self.entries).into_iter().map(|entry| entry.handler).collect()
    }

    pub(super) fn concerned(&self, event: Event, hears: impl Fn(&Audience) -> bool) -> Vec<Handler> {
        self.entries
            .iter()
            .filter(|entry| entry.event == event && hears(&entry.audience))
            .map(|entry| Arc::clone(&entry.handler))
            .collect()
    }
}

/// Runs handlers one after the other; one that panics does not stop the others.
pub(super) fn run(handlers: &[Handler], details: &EventDetails) {
    for handler in handlers {
        // There is nobody to tell: the caller is the provider.
        drop(contained(|| handler(details)));
    }
}
