//! The API: which providers serve which domains, and what counts for all evaluations.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    BindError, Client, Emitter, EvaluationContext, EvaluationError, Event, EventDetails, HandlerId, Hook,
    Initialization, ProviderStatus, TransactionPropagator,
    binding::{Slot, claim},
    event::{Audience, Handler, Handlers, run},
};
use crate::provider::{LifeCycle, Provider, ProviderMetadata, Start};

/// Which client it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ClientMetadata {
    pub(super) domain: Option<Arc<str>>,
}

impl ClientMetadata {
    /// The domain that it was made for.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }
}

/// OpenFeature's API: binds providers, makes clients. Cheap to clone; clones are the same API.
///
/// *Concurrency*: everything may be called from any thread at any time. Readers (evaluations) take no lock; a change is seen by every
/// evaluation that starts after it returned. Handlers run on the thread that made the event, without a lock held, and may call anything.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Shared>,
}

/// What the clones of an API and its clients share.
pub(super) struct Shared {
    id: u64,
    state: ArcSwap<State>,
    /// Held by whoever makes a new `state` from the present one; taken after `handlers` where both are.
    changing: Mutex<()>,
    /// Also guards every change of a status, and of what is bound.
    handlers: Mutex<Handlers>,
}

#[derive(Clone)]
pub(super) struct State {
    default: Arc<Slot>,
    domains: BTreeMap<Arc<str>, Arc<Slot>>,
    pub(super) hooks: Arc<[Arc<dyn Hook>]>,
    pub(super) context: EvaluationContext,
    pub(super) propagator: Option<Arc<dyn TransactionPropagator>>,
}

impl State {
    fn new() -> Self {
        Self {
            default: Arc::new(Slot::placeholder()),
            domains: BTreeMap::new(),
            hooks: Arc::new([]),
            context: EvaluationContext::EMPTY,
            propagator: None,
        }
    }

    /// The slot that serves `domain`.
    pub(super) fn slot(&self, domain: Option<&str>) -> &Arc<Slot> {
        domain.and_then(|domain| self.domains.get(domain)).unwrap_or(&self.default)
    }

    fn slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        std::iter::once(&self.default).chain(self.domains.values())
    }

    fn holds(&self, slot: &Arc<Slot>) -> bool {
        self.slots().any(|one| Arc::ptr_eq(one, slot))
    }

    /// Another place than `domain` where `slot` is bound, in words.
    fn bound_besides(&self, slot: &Arc<Slot>, domain: Option<&str>) -> Option<String> {
        if Arc::ptr_eq(&self.default, slot) && domain.is_some() {
            return Some("the default".to_owned());
        }
        let elsewhere =
            |(name, one): &(&Arc<str>, &Arc<Slot>)| Arc::ptr_eq(one, slot) && Some(&***name) != domain;
        self.domains.iter().find(elsewhere).map(|(name, _)| format!("domain `{name}`"))
    }
}

impl Api {
    /// The API of this process.
    ///
    /// One for each version of this crate that is linked; programs and libraries that share the crate share it.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<Api> = OnceLock::new();
        GLOBAL.get_or_init(Self::new)
    }

    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let shared = Shared {
            id,
            state: ArcSwap::from_pointee(State::new()),
            changing: Mutex::default(),
            handlers: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Binds the default provider: it serves every client whose domain has none of its own. It is started first
    /// ([`LifeCycle::initialize`](crate::provider::LifeCycle::initialize)); the one that it replaces is shut down when nothing else is
    /// bound to it.
    ///
    /// What is returned is the start: await it if the provider needs to wait for something.
    ///
    /// # Errors
    /// The provider may not be bound here; nothing has changed then.
    pub fn set_provider(&self, provider: Arc<dyn Provider>) -> Result<Initialization, BindError> {
        self.shared.bind(None, provider)
    }

    /// Binds the provider of `domain`, in place of the one that it has.
    ///
    /// # Errors
    /// As [`set_provider`](Self::set_provider).
    pub fn set_domain_provider(
        &self,
        domain: impl Into<Arc<str>>,
        provider: Arc<dyn Provider>,
    ) -> Result<Initialization, BindError> {
        self.shared.bind(Some(domain.into()), provider)
    }

    /// Binds the default provider and waits until it is ready or has failed to start.
    ///
    /// # Errors
    /// It may not be bound ([`ErrorCode::General`](super::ErrorCode::General)), or what its start came to.
    pub async fn set_provider_and_wait(&self, provider: Arc<dyn Provider>) -> Result<(), EvaluationError> {
        waited(self.set_provider(provider)).await
    }

    /// Binds the provider of `domain` and waits until it is ready or has failed to start.
    ///
    /// # Errors
    /// As [`set_provider_and_wait`](Self::set_provider_and_wait).
    pub async fn set_domain_provider_and_wait(
        &self,
        domain: impl Into<Arc<str>> + Send,
        provider: Arc<dyn Provider>,
    ) -> Result<(), EvaluationError> {
        waited(self.set_domain_provider(domain, provider)).await
    }

    /// What identifies the default provider.
    pub fn provider_metadata(&self) -> ProviderMetadata {
        self.shared.state.load().slot(None).metadata.clone()
    }

    /// What identifies the provider that serves `domain`.
    pub fn domain_provider_metadata(&self, domain: &str) -> ProviderMetadata {
        self.shared.state.load().slot(Some(domain)).metadata.clone()
    }

    /// A client without domain. Never fails, costs two allocations.
    pub fn client(&self) -> Client {
        Client::new(Arc::clone(&self.shared), ClientMetadata::default())
    }

    /// A client for `domain`, whether or not a provider is bound to it.
    pub fn domain_client(&self, domain: impl Into<Arc<str>>) -> Client {
        Client::new(Arc::clone(&self.shared), ClientMetadata { domain: Some(domain.into()) })
    }

    /// Adds hooks to all evaluations, after those that are there.
    pub fn add_hooks(&self, hooks: impl IntoIterator<Item = Arc<dyn Hook>>) {
        let hooks: Vec<_> = hooks.into_iter().collect();
        self.shared.change(|state| state.hooks = state.hooks.iter().cloned().chain(hooks).collect());
    }

    /// Sets the context that all evaluations start from.
    pub fn set_context(&self, context: EvaluationContext) {
        self.shared.change(|state| state.context = context);
    }

    /// The context that all evaluations start from.
    pub fn context(&self) -> EvaluationContext {
        self.shared.state.load().context.clone()
    }

    /// Sets how the context of a transaction is carried.
    pub fn set_transaction_propagator(&self, propagator: Arc<dyn TransactionPropagator>) {
        self.shared.change(|state| state.propagator = Some(propagator));
    }

    /// Sets the context of the current transaction. Without a propagator this does nothing.
    pub fn set_transaction_context(&self, context: EvaluationContext) {
        if let Some(propagator) = &self.shared.state.load().propagator {
            propagator.set(context);
        }
    }

    /// Runs `handler` whenever `event` happens to any bound provider; at once for those that are in that state. It stays until it is
    /// removed or the API is shut down, whatever providers come and go.
    pub fn add_handler(
        &self,
        event: Event,
        handler: impl Fn(&EventDetails) + Send + Sync + 'static,
    ) -> HandlerId {
        self.shared.add_handler(event, Audience::Everyone, &(Arc::new(handler) as Handler))
    }

    /// Removes a handler of the API; whether it was there.
    pub fn remove_handler(&self, handler: HandlerId) -> bool {
        self.shared.handlers().remove(handler, &Audience::Everyone)
    }

    /// Shuts all providers down and forgets everything: providers, hooks, handlers, contexts, propagator. The API is as new.
    pub fn shutdown(&self) {
        self.shared.reset();
    }
}

async fn waited(bound: Result<Initialization, BindError>) -> Result<(), EvaluationError> {
    match bound {
        Ok(initialization) => initialization.await,
        Err(error) => Err(EvaluationError::new(super::ErrorCode::General, error.to_string())),
    }
}

impl Shared {
    pub(super) fn state(&self) -> arc_swap::Guard<Arc<State>> {
        self.state.load()
    }

    fn handlers(&self) -> MutexGuard<'_, Handlers> {
        self.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = State::clone(&self.state.load());
        let answer = change(&mut state);
        self.state.store(Arc::new(state));
        answer
    }

    fn bind(
        self: &Arc<Self>,
        domain: Option<Arc<str>>,
        provider: Arc<dyn Provider>,
    ) -> Result<Initialization, BindError> {
        // Asked of the provider without a lock: it may call anything.
        let known = self.state.load().slots().any(|slot| slot.serves(&provider));
        let candidate = (!known).then(|| Arc::new(Slot::new(Arc::clone(&provider))));
        let scoped = provider.life_cycle().is_some_and(LifeCycle::domain_scoped);
        let (slot, fresh, retired, context, joined) = {
            // Nobody is told of anything while this changes, so that whoever listens hears of the new provider once.
            let handlers = self.handlers();
            let before = self.state.load_full();
            let (slot, fresh, retired, context) = self.change(|state| {
                let known = state.slots().find(|slot| !slot.placeholder && slot.serves(&provider)).cloned();
                let fresh = known.is_none();
                let slot = if let Some(slot) = known {
                    if scoped && let Some(bound_to) = state.bound_besides(&slot, domain.as_deref()) {
                        return Err(BindError::DomainScoped {
                            provider: slot.metadata.name().to_owned(),
                            bound_to,
                        });
                    }
                    slot
                } else {
                    if !claim(&provider, self.id) {
                        return Err(BindError::Elsewhere { provider: provider.metadata().name().to_owned() });
                    }
                    candidate.unwrap_or_else(|| Arc::new(Slot::new(provider)))
                };
                let old = match &domain {
                    None => Some(std::mem::replace(&mut state.default, Arc::clone(&slot))),
                    Some(domain) => state.domains.insert(Arc::clone(domain), Arc::clone(&slot)),
                };
                let retired = old.filter(|old| !state.holds(old));
                Ok((slot, fresh, retired, state.context.clone()))
            })?;
            let joined = self.joined(&handlers, &before, &slot);
            (slot, fresh, retired, context, joined)
        };
        let events = Emitter::new(self, &slot);
        let initialization = if !fresh {
            run(&joined.0, &joined.1);
            Initialization::done()
        } else if slot.provider.life_cycle().is_some() {
            Initialization::start(Arc::clone(&slot), Start { context, domain, events })
        } else {
            events.emit(Event::Ready, EventDetails::new());
            Initialization::done()
        };
        if let Some(retired) = retired {
            retired.close();
        }
        Ok(initialization)
    }

    /// Who is to hear in which state `slot` is because it serves them since `before`: clients of the domain that it was bound to, or of all
    /// domains that fall back to the default.
    fn joined(&self, handlers: &Handlers, before: &State, slot: &Arc<Slot>) -> (Vec<Handler>, EventDetails) {
        let (status, state) = (slot.status(), self.state.load());
        let joined = |audience: &Audience| match audience {
            Audience::Everyone => false,
            Audience::Domain(domain) => {
                let serves = |state: &State| Arc::ptr_eq(state.slot(domain.as_deref()), slot);
                serves(&state) && !serves(before)
            }
        };
        let events = [Event::Ready, Event::Stale, Event::Error];
        let held = events.into_iter().filter(|event| status.announces(*event));
        (held.flat_map(|event| handlers.concerned(event, joined)).collect(), slot.last())
    }

    /// Changes the slot's status as the event demands, then runs the handlers that are concerned.
    pub(super) fn announce(&self, slot: &Arc<Slot>, event: Event, details: &EventDetails) {
        let concerned = {
            let handlers = self.handlers();
            let state = self.state.load();
            if !slot.note(event, details) {
                return;
            }
            handlers.concerned(event, |audience| match audience {
                Audience::Everyone => true,
                Audience::Domain(domain) => Arc::ptr_eq(state.slot(domain.as_deref()), slot),
            })
        };
        run(&concerned, details);
    }

    pub(super) fn add_handler(&self, event: Event, audience: Audience, handler: &Handler) -> HandlerId {
        let (id, due) = {
            let mut handlers = self.handlers();
            let state = self.state.load();
            let mut due: Vec<&Arc<Slot>> = Vec::new();
            let heard: Vec<&Arc<Slot>> = match &audience {
                Audience::Everyone => state.slots().collect(),
                Audience::Domain(domain) => vec![state.slot(domain.as_deref())],
            };
            for slot in heard {
                if slot.status().announces(event) && !due.iter().any(|one| Arc::ptr_eq(one, slot)) {
                    due.push(slot);
                }
            }
            let due: Vec<EventDetails> = due.into_iter().map(|slot| slot.last()).collect();
            (handlers.add(event, audience, Arc::clone(handler)), due)
        };
        for details in &due {
            run(std::slice::from_ref(handler), details);
        }
        id
    }

    pub(super) fn remove_handler(&self, id: HandlerId, audience: &Audience) -> bool {
        self.handlers().remove(id, audience)
    }

    fn reset(&self) {
        let (old, _forgotten) = {
            let mut handlers = self.handlers();
            let old = self.change(|state| std::mem::replace(state, State::new()));
            (old, handlers.take())
        };
        for slot in old.slots() {
            slot.close();
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for slot in self.state.load().slots() {
            slot.close();
        }
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.load();
        f.debug_struct("Api")
            .field("default", &state.default)
            .field("domains", &state.domains)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// The status of the provider that serves this client.
    pub fn provider_status(&self) -> ProviderStatus {
        self.shared.state.load().slot(self.metadata().domain()).status()
    }

    /// What identifies the provider that serves this client.
    pub fn provider_metadata(&self) -> ProviderMetadata {
        self.shared.state.load().slot(self.metadata().domain()).metadata.clone()
    }

    /// Runs `handler` whenever `event` happens to the provider that serves this client; at once if it is in that state. It stays until it
    /// is removed or the API is shut down, also when the client is dropped: add it once, not per request.
    pub fn add_handler(
        &self,
        event: Event,
        handler: impl Fn(&EventDetails) + Send + Sync + 'static,
    ) -> HandlerId {
        self.shared.add_handler(
            event,
            Audience::Domain(self.metadata().domain.clone()),
            &(Arc::new(handler) as Handler),
        )
    }

    /// Removes a handler of a client of this domain; whether it was there.
    pub fn remove_handler(&self, handler: HandlerId) -> bool {
        self.shared.remove_handler(handler, &Audience::Domain(self.metadata().domain.clone()))
    }
}
