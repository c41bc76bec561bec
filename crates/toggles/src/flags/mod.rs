//! The flags of an application: their definitions and their state in each scope, kept in a [`Store`] and followed while it changes.
//!
//! [`Flags`] is the whole: it changes flags, each change a fact in the journal (who, what, before, after, why), and hands out a [`Toggles`]
//! for each scope, which sees changes made by any process that uses the same store. A scope (an environment) may have a base: what is not
//! said for it is inherited. A preview based on production therefore begins with production's state, overrides what it wants, and takes its
//! own state with it when it is closed.
//!
//! [`Releases`] raises flags in steps, by time or verdict. [`Reach`] writes when a change had its first user, and when all users have it.
//! [`Flags::stale`] says which should go, [`Flags::moved_by`] whom an edit would move.

mod board;
mod change;
mod edit;
mod error;
mod past;
mod reached;
mod record;
mod releases;
mod scopes;
mod shown;
mod stale;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use flowline_core::{
    Timestamp,
    clock::Clock,
    error::chain,
    event,
    id::{Key, ScopeId},
    store::{Document, Store, StoreExt},
};
use serde_json::Value as Json;

pub use board::WhereOn;
pub use error::FlagsError;
pub use reached::{ChangeReached, Reach, Reached};
pub use record::{Author, FlagChanged, Place, ScopeBefore, ScopeChanged, Subject};
pub use releases::{Advanced, Happened, Release, ReleaseChanged, ReleaseError, Releases};

use crate::{
    client::{Event, EventDetails},
    engine::{Ambient, Fixed},
    format::flowline::{Definition, Effective, FlagKey, State},
    model::Warning,
    provider::TogglesProvider,
    toggles::Toggles,
};
use board::Board;
pub(crate) use record::PREFIX;
use record::ScopeRecord;

/// How often a change is tried again when another process changed the same thing in between.
const TRIES: usize = 16;

/// The flags of an application, kept in a store. Cheap to clone; clones share everything.
///
/// Reading (through [`toggles`](Self::toggles)) never touches the store and takes no lock. A change is one atomic commit of the document
/// and the fact; when it returns, this process sees it. Other processes see it as soon as they [follow](Self::follow).
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{clock::ManualClock, id::ScopeId, store::MemoryStore};
/// # use flowline_toggles::{Context, flags::{Author, Flags}, format::flowline::{Definition, FlagKey, Percent}};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(ManualClock::default())).await?;
/// let (production, checkout) = (ScopeId::new("production")?, FlagKey::new("checkout")?);
/// let ada = Author::new("ada", "first users");
/// flags.define(&checkout, Definition::default(), &ada).await?;
/// let toggles = flags.toggles(&production);
/// assert!(!toggles.is_on("checkout", &Context::new("user-1")));
/// flags.set_rollout(&production, &checkout, Percent::ALL, &ada).await?;
/// assert!(toggles.is_on("checkout", &Context::new("user-1")));
/// flags.undo(&checkout, &ada).await?;
/// assert!(!toggles.is_on("checkout", &Context::new("user-1")));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Flags {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    board: Mutex<Board>,
    /// Whether following failed and nothing was heard since.
    stale: AtomicBool,
}

impl Flags {
    /// Reads all flags from `store`. One that can't be read is an error by itself, with a [warning](Self::warnings); it harms no other.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, FlagsError> {
        let ambient: Arc<dyn Ambient> = Arc::new(ClockAmbient { clock: Arc::clone(&clock) });
        let position = store.head().await?;
        let mut board = Board::of(&store.list(PREFIX).await?, ambient);
        board.reached(position);
        let (board, stale) = (Mutex::new(board), AtomicBool::new(false));
        Ok(Self { shared: Arc::new(Shared { store, clock, board, stale }) })
    }

    /// The flags as they are in `scope`: a handle that always shows the present state. The scope need not be known yet; it then has what
    /// is said for [everywhere](Place::Everywhere).
    pub fn toggles(&self, scope: &ScopeId) -> Toggles {
        self.provider(scope).toggles().clone()
    }

    /// The same as a provider for an OpenFeature API. It tells of every change that this process sees, with the flags that changed; and
    /// that it may be out of date when [`follow`](Self::follow) or [`Releases::run`] fails, until a [`refresh`](Self::refresh) succeeds.
    ///
    /// Its handlers run on the thread that sees the change, without a lock held.
    pub fn provider(&self, scope: &ScopeId) -> Arc<TogglesProvider> {
        self.board().provider(scope)
    }

    /// Sees what other processes change, for ever. Run it beside the program's work; drop it to stop.
    ///
    /// # Errors
    /// Those of the store, as soon as one occurs; what was seen so far stays. Call it again to go on.
    pub async fn follow(&self) -> Result<Infallible, FlagsError> {
        let Err(error) = self.follow_until_it_fails().await;
        self.lost(&error);
        Err(error)
    }

    /// Tells, once, that nothing is heard of the store any more.
    fn lost(&self, error: &(dyn Error + 'static)) {
        if !self.shared.stale.swap(true, Ordering::AcqRel) {
            let message = format!("flags may be out of date; {}", chain(error));
            self.tell(Event::Stale, &EventDetails::message(message));
        }
    }

    async fn follow_until_it_fails(&self) -> Result<Infallible, FlagsError> {
        loop {
            self.refresh().await?;
            let position = self.board().position();
            self.shared.store.changed(position).await?;
        }
    }

    /// Sees what other processes changed up to now, and returns. A change that can't be read (a newer version made it) leaves its flag as
    /// it was, with a [warning](Self::warnings).
    ///
    /// # Errors
    /// Those of the store.
    pub async fn refresh(&self) -> Result<(), FlagsError> {
        let after = self.board().position();
        let mut subscription = self.shared.store.subscribe(after);
        let head = self.shared.store.head().await?;
        let (mut touched, mut unread) = (BTreeSet::new(), false);
        while subscription.position() < head {
            for recorded in subscription.next().await? {
                match self.touched(&recorded.event) {
                    Ok(keys) => touched.extend(keys),
                    Err(_) => unread = true,
                }
            }
        }
        if unread {
            // Whatever that was: what it left is in the documents.
            touched.extend(self.shared.store.list(PREFIX).await?.into_iter().map(|(key, _)| key));
            touched.extend(self.board().all_keys());
        }
        self.take(touched).await?;
        {
            let mut board = self.board();
            board.forget();
            board.reached(subscription.position());
        }
        self.announce();
        if self.shared.stale.swap(false, Ordering::AcqRel) {
            self.tell(Event::Ready, &EventDetails::new());
        }
        Ok(())
    }

    /// Where an event changed something.
    fn touched(&self, event: &event::Event) -> Result<Vec<Key>, FlagsError> {
        if let Some(change) = event.fact::<FlagChanged>()? {
            return Ok(vec![change.subject.key(&change.flag)?]);
        }
        let Some(change) = event.fact::<ScopeChanged>()? else { return Ok(Vec::new()) };
        let mut keys = vec![ScopeRecord::key(&change.scope)?];
        if change.closed {
            keys.extend(self.board().keys_of(&change.scope));
        }
        Ok(keys)
    }

    /// What is said of `flag` at `place` itself, without what is inherited.
    pub fn said(&self, place: impl Into<Place>, flag: &FlagKey) -> State {
        self.board().said(&place.into(), flag)
    }

    /// How far `flag` is released in `scope`, with what is inherited.
    pub fn effective(&self, scope: &ScopeId, flag: &FlagKey) -> Effective {
        self.board().effective(scope, flag)
    }

    /// Where `flag` is on: every known scope, and every one that its definition declares a state for, ordered by name.
    pub fn where_on(&self, flag: &FlagKey) -> Vec<WhereOn> {
        self.board().where_on(flag)
    }

    /// The definition of `flag`.
    pub fn definition(&self, flag: &FlagKey) -> Option<Definition> {
        self.board().definition(flag)
    }

    /// All flags, ordered by key.
    pub fn keys(&self) -> Vec<FlagKey> {
        self.board().keys().into_iter().collect()
    }

    /// What does not make sense in the definitions, and what could not be read.
    pub fn warnings(&self) -> Vec<Warning> {
        self.board().warnings()
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.shared.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over a document as it is now, and tells.
    async fn reread(&self, key: &Key) -> Result<(), FlagsError> {
        self.take([key.clone()]).await?;
        self.announce();
        Ok(())
    }

    /// Reads documents and takes them over; again if somebody else took one of them over meanwhile.
    async fn take(&self, keys: impl IntoIterator<Item = Key> + Send) -> Result<(), FlagsError> {
        let keys: Vec<Key> = keys.into_iter().collect();
        loop {
            let mut documents = Vec::with_capacity(keys.len());
            for key in &keys {
                let ticket = self.board().ticket(key);
                documents.push((key.clone(), self.shared.store.read(key).await?, ticket));
            }
            if self.board().take(&documents) {
                return Ok(());
            }
        }
    }

    /// Tells whoever shows flags that changed. Not under the lock: a handler may ask for anything.
    fn announce(&self) {
        let untold = self.board().untold();
        for (provider, flags) in untold {
            let changed = EventDetails::changed(flags.iter().map(FlagKey::as_str));
            provider.notify(Event::ConfigurationChanged, changed);
        }
    }

    fn tell(&self, event: Event, details: &EventDetails) {
        let providers = self.board().providers();
        for provider in providers {
            provider.notify(event, details.clone());
        }
    }
}

/// The flags of a store that is read as a whole, again and again: what can't be read any more counts on as it was.
pub(crate) struct Reading(Board);

impl Reading {
    /// What `documents`, all that the store has below [`PREFIX`] now, come to in `scope`: a document of our own format.
    pub(crate) fn document(&mut self, documents: &[(Key, Document)], scope: &ScopeId) -> Json {
        let there: BTreeSet<&Key> = documents.iter().map(|(key, _)| key).collect();
        let known = self.0.all_keys();
        let gone = known.iter().filter(|key| !there.contains(key)).map(|key| (key, None));
        self.0.put(documents.iter().map(|(key, document)| (key, Some(document))).chain(gone));
        self.0.document(scope)
    }
}

impl Default for Reading {
    fn default() -> Self {
        Self(Board::new(Arc::new(Fixed::default())))
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

/// Time from a clock, and chance from a sequence over it.
#[derive(Debug)]
struct ClockAmbient {
    clock: Arc<dyn Clock>,
}

impl Ambient for ClockAmbient {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Flags of our own ask for no random number.
    fn random(&self) -> u64 {
        0
    }
}
