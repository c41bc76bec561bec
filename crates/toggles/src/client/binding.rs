//! Which provider serves whom, and in which status it is: [`Slot`], [`Initialization`].

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use flowline_core::error::{ErrorKind, Kinded};

use super::{Emitter, ErrorCode, EvaluationError, Event, EventDetails, Hook, ProviderStatus, contained};
use crate::provider::{NoProvider, Provider, ProviderMetadata, Start};

/// Why a provider was not bound.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// It keeps state by domain and is bound to another one.
    #[error(
        "provider `{provider}` keeps state by domain and is bound to {bound_to} already; make another one for this domain"
    )]
    DomainScoped {
        /// Its name.
        provider: String,
        /// Where it is bound.
        bound_to: String,
    },
    /// It is bound in another API.
    #[error(
        "provider `{provider}` is bound in another API already; unbind it there first, or make another one"
    )]
    Elsewhere {
        /// Its name.
        provider: String,
    },
}

impl Kinded for BindError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Conflict
    }
}

/// A provider as long as it is bound.
pub(super) struct Slot {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) metadata: ProviderMetadata,
    pub(super) hooks: Vec<Arc<dyn Hook>>,
    /// Nothing was bound: evaluations get their default without an error.
    pub(super) placeholder: bool,
    /// A status, or [`CLOSED`] for good. Events change it only under the lock of the handlers, so that a handler runs either at once or
    /// with the event.
    status: AtomicU8,
    /// What the last change of status said.
    last: Mutex<EventDetails>,
}

/// Not bound any more: not ready, and deaf to events.
const CLOSED: u8 = u8::MAX;

impl Slot {
    pub(super) fn new(provider: Arc<dyn Provider>) -> Self {
        let name = "a provider whose metadata panics";
        let metadata = contained(|| provider.metadata()).unwrap_or_else(|_| ProviderMetadata::new(name));
        let hooks = contained(|| provider.hooks()).unwrap_or_default();
        let last = Mutex::new(EventDetails { provider: metadata.name().into(), ..EventDetails::default() });
        let status = AtomicU8::new(ProviderStatus::NotReady as u8);
        Self { provider, metadata, hooks, placeholder: false, status, last }
    }

    /// Stands where nothing is bound.
    pub(super) fn placeholder() -> Self {
        Self { placeholder: true, ..Self::new(Arc::new(NoProvider)) }
    }

    pub(super) fn status(&self) -> ProviderStatus {
        use ProviderStatus::{Error, Fatal, NotReady, Ready, Stale};
        let code = self.status.load(Ordering::Acquire);
        [NotReady, Ready, Stale, Error, Fatal]
            .into_iter()
            .find(|status| *status as u8 == code)
            .unwrap_or(NotReady)
    }

    /// Records what an event means for the status; whether the slot is still bound. Under the lock of the handlers.
    pub(super) fn note(&self, event: Event, details: &EventDetails) -> bool {
        let Some(status) = ProviderStatus::after(event, details.error_code) else {
            return self.status.load(Ordering::Acquire) != CLOSED;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let noted = self.status.fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
            (before != CLOSED).then_some(status as u8)
        });
        if noted.is_ok() {
            details.clone_into(&mut last);
        }
        noted.is_ok()
    }

    /// What the last change of status said.
    pub(super) fn last(&self) -> EventDetails {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shuts the provider down, once. Under no lock.
    pub(super) fn close(&self) {
        if self.placeholder || self.status.swap(CLOSED, Ordering::AcqRel) == CLOSED {
            return;
        }
        if let Some(life_cycle) = self.provider.life_cycle() {
            // A provider that can't even stop is unbound all the same.
            drop(contained(|| life_cycle.shutdown()));
        }
        claims().remove(&address(&self.provider));
    }

    pub(super) fn serves(&self, provider: &Arc<dyn Provider>) -> bool {
        address(&self.provider) == address(provider)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("provider", &self.metadata.name())
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

fn address(provider: &Arc<dyn Provider>) -> usize {
    Arc::as_ptr(provider).cast::<()>() as usize
}

/// Which API each bound provider belongs to, by addresses: a provider tells its news to one API only.
static CLAIMS: Mutex<BTreeMap<usize, u64>> = Mutex::new(BTreeMap::new());

fn claims() -> std::sync::MutexGuard<'static, BTreeMap<usize, u64>> {
    CLAIMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes `provider` for the API `api`; whether nobody else has it.
pub(super) fn claim(provider: &Arc<dyn Provider>, api: u64) -> bool {
    *claims().entry(address(provider)).or_insert(api) == api
}

/// A provider's start: done already if it needs none or is quick, else a future that must be awaited, on whatever runtime the provider
/// needs.
///
/// Dropped before it is done, it takes the start with it: the provider goes to `ERROR` with a message that says so. (Unless the start
/// [goes on by itself](crate::provider::LifeCycle::goes_on_unawaited), as that of a [`Feed`](crate::source::Feed) does.)
pub struct Initialization {
    state: Starting,
}

enum Starting {
    Done(Result<(), EvaluationError>),
    Running {
        future: Pin<Box<dyn Future<Output = Result<(), EvaluationError>> + Send>>,
        slot: Arc<Slot>,
        events: Emitter,
    },
}

impl Initialization {
    /// Nothing to do.
    pub(super) fn done() -> Self {
        Self { state: Starting::Done(Ok(())) }
    }

    /// Starts `slot`'s provider; what can be done without waiting is done when this returns.
    pub(super) fn start(slot: Arc<Slot>, start: Start) -> Self {
        let events = start.events.clone();
        let starting = Arc::clone(&slot);
        let future = Box::pin(async move {
            match starting.provider.life_cycle() {
                Some(life_cycle) => life_cycle.initialize(start).await,
                None => Ok(()),
            }
        });
        let mut initialization = Self { state: Starting::Running { future, slot, events } };
        let _pending = initialization.advance(&mut Context::from_waker(Waker::noop()));
        initialization
    }

    /// What came of it so far: `None` while it runs.
    pub fn outcome(&self) -> Option<&Result<(), EvaluationError>> {
        if let Starting::Done(outcome) = &self.state { Some(outcome) } else { None }
    }

    fn advance(&mut self, context: &mut Context<'_>) -> Poll<Result<(), EvaluationError>> {
        let Starting::Running { future, slot, events } = &mut self.state else {
            return self.outcome().cloned().map_or(Poll::Pending, Poll::Ready);
        };
        let outcome = match contained(|| future.as_mut().poll(context)) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(outcome)) => outcome,
            Err(text) => Err(EvaluationError::new(
                ErrorCode::General,
                format!("the provider panicked in its start: {text}"),
            )),
        };
        // The provider should have told already; if it did not, this makes up for it.
        match &outcome {
            Ok(()) if slot.status() == ProviderStatus::NotReady => {
                events.emit(Event::Ready, EventDetails::new());
            }
            Err(error) if !matches!(slot.status(), ProviderStatus::Error | ProviderStatus::Fatal) => {
                let message = error.message.clone().unwrap_or_else(|| "it could not start".into());
                events.emit(Event::Error, EventDetails::error(error.code, message));
            }
            _ => {}
        }
        self.state = Starting::Done(outcome.clone());
        Poll::Ready(outcome)
    }
}

impl Future for Initialization {
    type Output = Result<(), EvaluationError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.advance(context)
    }
}

impl Drop for Initialization {
    fn drop(&mut self) {
        if let Starting::Running { events, slot, .. } = &self.state {
            let goes_on =
                || slot.provider.life_cycle().is_some_and(crate::provider::LifeCycle::goes_on_unawaited);
            if contained(goes_on).unwrap_or(false) {
                return;
            }
            let message =
                "the provider's start was dropped before it was done; await what `set_provider` returns";
            events.emit(Event::Error, EventDetails::error(ErrorCode::General, message));
        }
    }
}

impl fmt::Debug for Initialization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Initialization").field(&self.outcome()).finish()
    }
}
