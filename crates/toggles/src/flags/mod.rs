//! The flags of an application: their definitions and their state in each scope, kept in a [`Store`] and followed while it changes.
//!
//! [`Flags`] is the whole: it changes flags, each change a fact in the journal (who, what, before, after, why), and hands out a
//! [`Toggles`] for each scope, which sees changes made by any process that uses the same store. A scope (an environment) may have a base: what is
//! not said for it is inherited. A preview based on production therefore begins with production's state, overrides what it wants, and
//! takes its own state with it when it is closed.

mod board;
mod record;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowline_core::{
    Timestamp,
    clock::Clock,
    error::{ErrorKind, Kinded, Retry},
    event::Event,
    id::{EventId, Key, ScopeId},
    journal::JournalError,
    name::NameError,
    store::{Batch, EventQuery, Revision, Store, StoreError, StoreExt},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

pub use board::WhereOn;
pub use record::{Author, FlagChanged, Place, ScopeChanged, Subject};

use crate::{
    engine::Ambient,
    format::flowline::{Definition, Effective, FlagKey, Percent, State},
    model::Warning,
    toggles::Toggles,
};
use board::Board;
use record::{ScopeRecord, event_id, scopes_stream, stream};

/// How often a change is tried again when another process changed the same thing in between.
const TRIES: usize = 16;

/// The flags of an application, kept in a store. Cheap to clone; clones share everything.
///
/// Reading (through [`toggles`](Self::toggles)) never touches the store and takes no lock. A change is one atomic commit of the document and the fact; when it
/// returns, this process sees it. Other processes see it as soon as they [follow](Self::follow).
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
}

impl Flags {
    /// Reads all flags from `store`.
    ///
    /// # Errors
    /// Those of the store; a document of another shape is [`StoreError::Content`].
    pub async fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, FlagsError> {
        let ambient: Arc<dyn Ambient> = Arc::new(ClockAmbient { clock: Arc::clone(&clock) });
        let flags =
            Self { shared: Arc::new(Shared { store, clock, board: Mutex::new(Board::new(ambient)) }) };
        flags.reload().await?;
        Ok(flags)
    }

    /// The flags as they are in `scope`: a handle that always shows the present state. The scope need not be known yet; it then has what
    /// is said for [everywhere](Place::Everywhere).
    pub fn toggles(&self, scope: &ScopeId) -> Toggles {
        self.board().toggles(scope)
    }

    /// Sees what other processes change, for ever. Run it beside the program's work; drop it to stop.
    ///
    /// # Errors
    /// Those of the store, as soon as one occurs; what was seen so far stays. Call it again to go on.
    pub async fn follow(&self) -> Result<Infallible, FlagsError> {
        loop {
            self.refresh().await?;
            let position = self.board().position();
            self.shared.store.changed(position).await?;
        }
    }

    /// Sees what other processes changed up to now, and returns.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn refresh(&self) -> Result<(), FlagsError> {
        let after = self.board().position();
        let mut subscription = self.shared.store.subscribe(after);
        let head = self.shared.store.head().await?;
        let mut touched = BTreeSet::new();
        while subscription.position() < head {
            for recorded in subscription.next().await? {
                if let Some(change) = recorded.event.fact::<FlagChanged>()? {
                    touched.insert(change.subject.key(&change.flag)?);
                } else if let Some(change) = recorded.event.fact::<ScopeChanged>()? {
                    touched.insert(ScopeRecord::key(&change.scope)?);
                    // Closing takes the scope's states with it without a fact for each of them.
                    if change.closed {
                        self.board().close(&change.scope);
                    }
                }
            }
        }
        for key in touched {
            self.reread(&key).await?;
        }
        self.board().reached(subscription.position());
        Ok(())
    }

    /// Defines `flag`, or changes its definition. Says nothing of where it is on.
    ///
    /// # Errors
    /// [`FlagsError::Circle`], [`FlagsError::Salt`] if it is known and would throw the dice again for everybody (see
    /// [`reshuffle`](Self::reshuffle)), and those of the store.
    pub async fn define(
        &self,
        flag: &FlagKey,
        definition: Definition,
        by: &Author,
    ) -> Result<(), FlagsError> {
        if let Some(before) = self.definition(flag)
            && before.salt_of(flag) != definition.salt_of(flag)
        {
            return Err(FlagsError::Salt { flag: flag.clone() });
        }
        self.reshuffle(flag, definition, by).await
    }

    /// The same, salt included: who has the flag is decided anew for everybody.
    ///
    /// # Errors
    /// [`FlagsError::Circle`], and those of the store.
    pub async fn reshuffle(
        &self,
        flag: &FlagKey,
        definition: Definition,
        by: &Author,
    ) -> Result<(), FlagsError> {
        let circle = self.board().circle(flag, &definition);
        if let Some(circle) = circle {
            return Err(FlagsError::Circle { circle });
        }
        self.change(flag, &Subject::Definition, by, |_: Option<Definition>| Some(definition.clone())).await
    }

    /// Removes `flag` and what is said of it everywhere. Nobody has it any more.
    ///
    /// # Errors
    /// [`FlagsError::Unknown`], and those of the store.
    pub async fn remove(&self, flag: &FlagKey, by: &Author) -> Result<(), FlagsError> {
        self.known(flag)?;
        let places = self.board().places_of(flag);
        for place in places {
            self.change(flag, &Subject::State(place), by, |_: Option<State>| None).await?;
        }
        self.change(flag, &Subject::Definition, by, |_: Option<Definition>| None).await
    }

    /// Changes what is said of `flag` at `place`. `edit` may be called several times.
    ///
    /// # Errors
    /// [`FlagsError::Unknown`], and those of the store.
    pub async fn set(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
        edit: impl Fn(&mut State) + Send + Sync,
    ) -> Result<(), FlagsError> {
        self.known(flag)?;
        let subject = Subject::State(place.into());
        self.change(flag, &subject, by, |state: Option<State>| {
            let mut state = state.unwrap_or_default();
            edit(&mut state);
            (!state.is_empty()).then_some(state)
        })
        .await
    }

    /// Switches `flag` on for `percent` of its audience at `place`. Raising never throws anybody out.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_rollout(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        percent: Percent,
        by: &Author,
    ) -> Result<(), FlagsError> {
        self.set(place, flag, by, |state| {
            state.on = Some(true);
            state.rollout = Some(percent);
        })
        .await
    }

    /// Switches `flag` on at `place`, to as many as before.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn switch_on(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<(), FlagsError> {
        self.set(place, flag, by, |state| state.on = Some(true)).await
    }

    /// Switches `flag` off at `place`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn switch_off(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<(), FlagsError> {
        self.set(place, flag, by, |state| state.on = Some(false)).await
    }

    /// Pulls the kill switch: `flag` is off at `place` and wherever inherits from there, whatever else is said.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn kill(&self, place: impl Into<Place>, flag: &FlagKey, by: &Author) -> Result<(), FlagsError> {
        self.set(place, flag, by, |state| state.killed = true).await
    }

    /// Takes the kill switch back; what was said before counts again.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn revive(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<(), FlagsError> {
        self.set(place, flag, by, |state| state.killed = false).await
    }

    /// Makes `scope` known, inheriting from `base`. Doing it again changes the base.
    ///
    /// # Errors
    /// [`FlagsError::Cycle`] if `base` inherits from `scope`, and those of the store.
    pub async fn open_scope(
        &self,
        scope: &ScopeId,
        base: Option<&ScopeId>,
        by: &Author,
    ) -> Result<(), FlagsError> {
        if let Some(base) = base
            && self.board().inherits(base, scope)
        {
            return Err(FlagsError::Cycle { scope: scope.clone(), base: base.clone() });
        }
        let record = ScopeRecord { base: base.cloned() };
        let key = ScopeRecord::key(scope)?;
        for _ in 0..TRIES {
            let before = self.shared.store.get::<ScopeRecord>(&key).await?;
            if before.as_ref().is_some_and(|(_, before)| *before == record) {
                break;
            }
            let revision = before.map_or(Revision::ABSENT, |(revision, _)| revision);
            let batch = Batch::new().expect(key.clone(), revision).put(key.clone(), json(&record, &key)?);
            let fact = ScopeChanged { scope: scope.clone(), base: base.cloned(), closed: false };
            if self.commit_scope(batch, fact, by).await? {
                break;
            }
        }
        self.reread(&key).await
    }

    /// Forgets `scope` and everything that is said for it. Scopes that inherit from it inherit from its base no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close_scope(&self, scope: &ScopeId, by: &Author) -> Result<(), FlagsError> {
        let key = ScopeRecord::key(scope)?;
        for _ in 0..TRIES {
            let documents = self.shared.store.list(&Place::Scope(scope.clone()).prefix()).await?;
            let known = self.shared.store.read(&key).await?;
            if known.is_none() && documents.is_empty() {
                break;
            }
            let mut batch =
                Batch::new().expect(key.clone(), known.map_or(Revision::ABSENT, |it| it.revision));
            for (document, found) in documents {
                batch = batch.expect(document.clone(), found.revision).remove(document);
            }
            let fact = ScopeChanged { scope: scope.clone(), base: None, closed: true };
            if self.commit_scope(batch.remove(key.clone()), fact, by).await? {
                break;
            }
        }
        self.board().close(scope);
        Ok(())
    }

    /// Copies what is said for `from` itself to `to`, flag by flag: what a promotion may do with state, by choice.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn carry(&self, from: &ScopeId, to: &ScopeId, by: &Author) -> Result<(), FlagsError> {
        let states = self.board().states_of(from);
        for (flag, state) in states {
            self.set(to, &flag, by, |there| *there = state.clone()).await?;
        }
        Ok(())
    }

    /// What is said of `flag` at `place` itself, without what is inherited.
    pub fn said(&self, place: impl Into<Place>, flag: &FlagKey) -> State {
        self.board().said(&place.into(), flag)
    }

    /// How far `flag` is released in `scope`, with what is inherited.
    pub fn effective(&self, scope: &ScopeId, flag: &FlagKey) -> Effective {
        self.board().effective(scope, flag)
    }

    /// Where `flag` is on: every known scope, ordered by name.
    pub fn where_on(&self, flag: &FlagKey) -> Vec<WhereOn> {
        self.board().where_on(flag)
    }

    /// The definition of `flag`.
    pub fn definition(&self, flag: &FlagKey) -> Option<Definition> {
        self.board().definition(flag)
    }

    /// All flags, ordered by key.
    pub fn keys(&self) -> Vec<FlagKey> {
        self.board().keys()
    }

    /// What does not make sense in the definitions.
    pub fn warnings(&self) -> Vec<Warning> {
        self.board().warnings()
    }

    /// What happened to `flag`, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn history(&self, flag: &FlagKey) -> Result<Vec<(Event, FlagChanged)>, FlagsError> {
        let mut history = Vec::new();
        for recorded in self.shared.store.events(EventQuery::of(stream(flag)?)).await? {
            if let Some(change) = recorded.event.fact::<FlagChanged>()? {
                history.push((recorded.event, change));
            }
        }
        Ok(history)
    }

    /// Takes back the last change of `flag` that was not taken back yet; which is itself a change in its history. `false` if there is none.
    ///
    /// # Errors
    /// [`FlagsError::Moved`] if what it changed is not as it left it any more (a scope was closed), and those of the store.
    pub async fn undo(&self, flag: &FlagKey, by: &Author) -> Result<bool, FlagsError> {
        let history = self.history(flag).await?;
        let undone: BTreeSet<&EventId> =
            history.iter().filter_map(|(_, change)| change.undoes.as_ref()).collect();
        let last = history
            .iter()
            .rev()
            .find(|(event, change)| change.undoes.is_none() && !undone.contains(&event.id));
        let Some((event, change)) = last else { return Ok(false) };
        let key = change.subject.key(flag)?;
        let found = self.shared.store.read(&key).await?;
        if found.as_ref().map(|document| &document.value) != change.after.as_ref() {
            return Err(FlagsError::Moved { flag: flag.clone(), event: event.id.clone() });
        }
        let fact = FlagChanged {
            flag: flag.clone(),
            subject: change.subject.clone(),
            before: change.after.clone(),
            after: change.before.clone(),
            reason: by.reason.clone(),
            undoes: Some(event.id.clone()),
        };
        let revision = found.map_or(Revision::ABSENT, |document| document.revision);
        if !self.commit(&key, revision, fact, by).await? {
            return Err(FlagsError::Moved { flag: flag.clone(), event: event.id.clone() });
        }
        Ok(true)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.shared.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, flag: &FlagKey) -> Result<(), FlagsError> {
        if self.board().definition(flag).is_some() {
            return Ok(());
        }
        Err(FlagsError::Unknown { flag: flag.clone() })
    }

    /// Reads, edits, commits; again if somebody else was faster.
    async fn change<T: Serialize + DeserializeOwned>(
        &self,
        flag: &FlagKey,
        subject: &Subject,
        by: &Author,
        edit: impl Fn(Option<T>) -> Option<T> + Send + Sync,
    ) -> Result<(), FlagsError> {
        let key = subject.key(flag)?;
        for _ in 0..TRIES {
            let found = self.shared.store.read(&key).await?;
            let before = found.as_ref().map(|document| document.decode::<T>(&key)).transpose()?;
            let after = edit(before).map(|after| json(&after, &key)).transpose()?;
            let before = found.as_ref().map(|document| document.value.clone());
            if before == after {
                return self.reread(&key).await;
            }
            let fact = FlagChanged {
                flag: flag.clone(),
                subject: subject.clone(),
                before,
                after,
                reason: by.reason.clone(),
                undoes: None,
            };
            let revision = found.map_or(Revision::ABSENT, |document| document.revision);
            if self.commit(&key, revision, fact, by).await? {
                return Ok(());
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() })
    }

    /// Commits a change of one document with its fact; `false` if the document moved.
    async fn commit(
        &self,
        key: &Key,
        revision: Revision,
        fact: FlagChanged,
        by: &Author,
    ) -> Result<bool, FlagsError> {
        let head = self.shared.store.head().await?;
        let stream = stream(&fact.flag)?;
        let event = Event::of(
            &fact,
            event_id(&stream, &fact.subject.place(), head)?,
            self.shared.clock.now(),
            by.actor.as_str(),
            format!("flag/{}", fact.flag),
        )?;
        let batch = Batch::new().expect(key.clone(), revision).append(stream, event);
        let batch = match fact.after {
            Some(after) => batch.put(key.clone(), after),
            None => batch.remove(key.clone()),
        };
        match self.shared.store.commit(batch).await {
            Ok(_) => {
                self.reread(key).await?;
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn commit_scope(&self, batch: Batch, fact: ScopeChanged, by: &Author) -> Result<bool, FlagsError> {
        let head = self.shared.store.head().await?;
        let stream = scopes_stream()?;
        let id = event_id(&stream, fact.scope.as_str(), head)?;
        let subject = format!("environment/{}", fact.scope);
        let mut event = Event::of(&fact, id, self.shared.clock.now(), by.actor.as_str(), subject)?;
        event.extra.insert("reason".to_owned(), by.reason.clone().into());
        match self.shared.store.commit(batch.append(stream, event)).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over a document as it is now.
    async fn reread(&self, key: &Key) -> Result<(), FlagsError> {
        let document = self.shared.store.read(key).await?;
        self.board().take(key, document.as_ref())?;
        Ok(())
    }

    async fn reload(&self) -> Result<(), FlagsError> {
        let position = self.shared.store.head().await?;
        let documents = self.shared.store.list(record::PREFIX).await?;
        let mut board = self.board();
        board.load(&documents)?;
        board.reached(position);
        Ok(())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flags").field("store", &self.shared.store).finish_non_exhaustive()
    }
}

fn json<T: Serialize>(value: &T, key: &Key) -> Result<Json, FlagsError> {
    serde_json::to_value(value)
        .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() }.into())
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

/// Why flags could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlagsError {
    /// There is no such flag.
    #[error("there is no flag `{flag}`; define it first")]
    Unknown {
        /// The flag.
        flag: FlagKey,
    },
    /// A scope can't inherit from one that inherits from it.
    #[error("scope `{scope}` cannot have `{base}` as its base: `{base}` inherits from it")]
    Cycle {
        /// The scope.
        scope: ScopeId,
        /// What should be its base.
        base: ScopeId,
    },
    /// Flags can't depend on each other in a circle.
    #[error("flags would depend on each other: {circle}; take one of these dependencies away")]
    Circle {
        /// The way round: `a -> b -> a`.
        circle: String,
    },
    /// Another salt decides anew who has the flag.
    #[error(
        "another salt for flag `{flag}` would decide anew for everybody who has it; ask for `reshuffle` if that is meant"
    )]
    Salt {
        /// The flag.
        flag: FlagKey,
    },
    /// What should be undone is not as it was left.
    #[error(
        "change `{event}` of flag `{flag}` cannot be undone: what it changed was changed again since; set it as it should be"
    )]
    Moved {
        /// The flag.
        flag: FlagKey,
        /// The change.
        event: EventId,
    },
    /// Others changed the same flag again and again.
    #[error("flag `{flag}` was changed by others at the same time, {TRIES} times in a row; try again")]
    Contended {
        /// The flag.
        flag: FlagKey,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A recorded fact can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A key became too long for the store.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Kinded for FlagsError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::NotFound,
            Self::Cycle { .. } | Self::Circle { .. } | Self::Salt { .. } => ErrorKind::Invalid,
            Self::Moved { .. } => ErrorKind::Conflict,
            Self::Contended { .. } => ErrorKind::Busy,
            Self::Store(error) => error.kind(),
            Self::Journal(error) => error.kind(),
            Self::Name(error) => error.kind(),
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Moved { .. }
            | Self::Unknown { .. }
            | Self::Cycle { .. }
            | Self::Circle { .. }
            | Self::Salt { .. } => Retry::Never,
            Self::Contended { .. } => Retry::Later,
            Self::Store(error) => error.retry(),
            Self::Journal(error) => error.retry(),
            Self::Name(error) => error.retry(),
        }
    }
}
