//! How flags are changed: each change is one commit of the documents and the facts.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::{
    event::Event,
    id::{EventId, Key},
    store::{Batch, Document, Revision, StoreError},
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{
    Author, FlagChanged, Flags, FlagsError, PREFIX, Place, Subject, TRIES,
    record::{Held, ScopeRecord, event_id, stream},
    releases,
    stale::usage_key,
};
use crate::{
    engine::cycles,
    format::flowline::{Definition, FlagKey, Percent, State},
    life::release::{Because, Fallout},
};

/// What becomes of one document, and of what it was read as.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    pub(super) flag: FlagKey,
    pub(super) subject: Subject,
    pub(super) found: Option<Document>,
    pub(super) after: Option<Json>,
    pub(super) undoes: Option<EventId>,
    /// Whether it goes with its scope.
    pub(super) closed: bool,
}

impl Edit {
    pub(super) fn new(
        flag: &FlagKey,
        subject: Subject,
        found: Option<Document>,
        after: Option<Json>,
    ) -> Self {
        Self { flag: flag.clone(), subject, found, after, undoes: None, closed: false }
    }

    fn before(&self) -> Option<&Json> {
        self.found.as_ref().map(|document| &document.value)
    }
}

impl Flags {
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
        self.put_definition(flag, &definition, false, by).await
    }

    /// The same, salt and bucketing included: who has the flag is decided anew for everybody.
    ///
    /// # Errors
    /// [`FlagsError::Circle`], and those of the store.
    pub async fn reshuffle(
        &self,
        flag: &FlagKey,
        definition: Definition,
        by: &Author,
    ) -> Result<(), FlagsError> {
        self.put_definition(flag, &definition, true, by).await
    }

    async fn put_definition(
        &self,
        flag: &FlagKey,
        definition: &Definition,
        reshuffle: bool,
        by: &Author,
    ) -> Result<(), FlagsError> {
        let key = Subject::Definition.key(flag)?;
        let after = json(definition, &key)?;
        for _ in 0..TRIES {
            let found = self.shared.store.read(&key).await?;
            let before = found.as_ref().map(|document| &document.value);
            if before == Some(&after) {
                return self.reread(&key).await;
            }
            if !reshuffle && before.is_some_and(|before| throws_again(flag, before, definition)) {
                return Err(FlagsError::Salt { flag: flag.clone() });
            }
            let batch = self.without_circle(Batch::new(), flag, definition).await?;
            let edit = Edit::new(flag, Subject::Definition, found, Some(after.clone()));
            if self.commit(vec![edit], batch, by).await? {
                return Ok(());
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() })
    }

    /// Removes `flag` and what is said of it everywhere, in one commit that [`undo`](Self::undo) takes back as a whole. Nobody has it any more. Its
    /// releases are over, and stay over when it is undone.
    ///
    /// # Errors
    /// [`FlagsError::Unknown`], and those of the store.
    pub async fn remove(&self, flag: &FlagKey, by: &Author) -> Result<(), FlagsError> {
        let key = Subject::Definition.key(flag)?;
        for _ in 0..TRIES {
            let Some(definition) = self.shared.store.read(&key).await? else {
                self.reread(&key).await?;
                return Err(FlagsError::Unknown { flag: flag.clone() });
            };
            let mut edits = vec![Edit::new(flag, Subject::Definition, Some(definition), None)];
            edits.extend(self.states_of(flag).await?);
            let mut batch = Batch::new().remove(usage_key(flag)?);
            for (key, document) in self.shared.store.list(&releases::all()).await? {
                let Some((place, _)) = releases::named(&key).filter(|(_, released)| released == flag) else {
                    continue;
                };
                let over = (Because::Removed, Fallout::Withdraw);
                batch = self.release_over(batch, &place, flag, &key, &document, over, by).await?;
            }
            if self.commit(edits, batch, by).await? {
                return self.sweep(flag, by).await;
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() })
    }

    /// Takes away what somebody said of `flag` between the moment when its states were listed and that in which it was removed. Nothing can be said of
    /// it any more after that.
    async fn sweep(&self, flag: &FlagKey, by: &Author) -> Result<(), FlagsError> {
        for _ in 0..TRIES {
            let edits = self.states_of(flag).await?;
            let key = Subject::Definition.key(flag)?;
            let gone = Batch::new().expect(key.clone(), Revision::ABSENT);
            if edits.is_empty()
                || self.shared.store.read(&key).await?.is_some()
                || self.commit(edits, gone, by).await?
            {
                return Ok(());
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() })
    }

    /// What takes away everything that is said of `flag`.
    async fn states_of(&self, flag: &FlagKey) -> Result<Vec<Edit>, FlagsError> {
        let states = self.shared.store.list(&format!("{PREFIX}state/")).await?;
        let states = states.into_iter().filter_map(|(key, found)| match Held::of(&key)? {
            Held::State(place, of) if of == *flag => {
                Some(Edit::new(flag, Subject::State(place), Some(found), None))
            }
            _ => None,
        });
        Ok(states.collect())
    }

    /// Changes what is said of `flag` at `place`. `edit` may be called several times.
    ///
    /// # Errors
    /// [`FlagsError::Unknown`], [`FlagsError::Closed`] if the scope is closed meanwhile, [`FlagsError::Salt`] if what is served would throw the dice
    /// again for everybody, and those of the store; [`StoreError::Content`] if what is said there can't be read.
    pub async fn set(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
        edit: impl Fn(&mut State) + Send + Sync,
    ) -> Result<(), FlagsError> {
        let place = place.into();
        let key = Subject::State(place.clone()).key(flag)?;
        self.say(place, flag, by, |found| {
            let before =
                found.map(|document| document.decode::<State>(&key)).transpose()?.unwrap_or_default();
            let mut state = before.clone();
            edit(&mut state);
            if state.throws_again(&before) {
                return Err(FlagsError::Salt { flag: flag.clone() });
            }
            (!state.is_empty()).then(|| json(&state, &key)).transpose()
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

    /// Pulls the kill switch: `flag` is off at `place` and wherever inherits from there, whatever else is said; also where what is said there can't be
    /// read.
    ///
    /// # Errors
    /// As [`set`](Self::set), but for what can't be read.
    pub async fn kill(&self, place: impl Into<Place>, flag: &FlagKey, by: &Author) -> Result<(), FlagsError> {
        let place = place.into();
        let key = Subject::State(place.clone()).key(flag)?;
        self.say(place, flag, by, |found| {
            let killed = || State { killed: true, ..State::default() };
            let Some(found) = found else { return json(&killed(), &key).map(Some) };
            if let Ok(state) = found.decode::<State>(&key) {
                return json(&State { killed: true, ..state }, &key).map(Some);
            }
            let mut value = found.value.clone();
            match &mut value {
                Json::Object(parts) => drop(parts.insert("killed".to_owned(), true.into())),
                _ => value = json(&killed(), &key)?,
            }
            Ok(Some(value))
        })
        .await
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

    pub(super) fn known(&self, flag: &FlagKey) -> Result<(), FlagsError> {
        if self.board().knows(flag) {
            return Ok(());
        }
        Err(FlagsError::Unknown { flag: flag.clone() })
    }

    /// Reads, edits, commits what is said of `flag` at `place`; again if somebody else was faster.
    async fn say(
        &self,
        place: Place,
        flag: &FlagKey,
        by: &Author,
        edit: impl Fn(Option<&Document>) -> Result<Option<Json>, FlagsError> + Send + Sync,
    ) -> Result<(), FlagsError> {
        let subject = Subject::State(place.clone());
        let (key, defined) = (subject.key(flag)?, Subject::Definition.key(flag)?);
        let mut open = false;
        for _ in 0..TRIES {
            // Nothing is said of a flag that is removed meanwhile, nor in a scope that is closed: it would be found by the next one of its name.
            let Some(definition) = self.shared.store.read(&defined).await? else {
                return Err(FlagsError::Unknown { flag: flag.clone() });
            };
            let batch = Batch::new().expect(defined.clone(), definition.revision);
            let batch = self.guarded(batch, &place, &mut open).await?;
            let found = self.shared.store.read(&key).await?;
            let after = edit(found.as_ref())?;
            if found.as_ref().map(|document| &document.value) == after.as_ref() {
                return self.reread(&key).await;
            }
            if self.commit(vec![Edit::new(flag, subject.clone(), found, after)], batch, by).await? {
                return Ok(());
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() })
    }

    /// `batch`, for as long as `place` is open (or unknown) as it is now. `open`: whether it was known when this was asked before.
    pub(super) async fn guarded(
        &self,
        batch: Batch,
        place: &Place,
        open: &mut bool,
    ) -> Result<Batch, FlagsError> {
        let Place::Scope(scope) = place else { return Ok(batch) };
        let key = ScopeRecord::key(scope)?;
        let found = self.shared.store.read(&key).await?;
        // One that can't be read is open.
        let closing = |document: &Document| {
            ScopeRecord::deserialize(&document.value).is_ok_and(|record| record.closing)
        };
        if found.as_ref().is_some_and(closing) || (*open && found.is_none()) {
            return Err(FlagsError::Closed { scope: scope.clone() });
        }
        *open = found.is_some();
        Ok(batch.expect(key, found.map_or(Revision::ABSENT, |document| document.revision)))
    }

    /// `batch`, for as long as `flag`, defined as `definition`, closes no circle: what it asks for, directly or not, must be as it is now.
    pub(super) async fn without_circle(
        &self,
        mut batch: Batch,
        flag: &FlagKey,
        definition: &Definition,
    ) -> Result<Batch, FlagsError> {
        if definition.asks().is_empty() {
            return Ok(batch);
        }
        let mut others = BTreeMap::new();
        for (key, document) in self.shared.store.list(&format!("{PREFIX}flag/")).await? {
            if let Some(Held::Definition(other)) =
                Held::of(&key).filter(|_| Subject::Definition.key(flag).ok() != Some(key))
            {
                // One that can't be read asks for nothing.
                let definition = Definition::deserialize(&document.value).unwrap_or_default();
                others.insert(other.to_string(), (document.revision, definition));
            }
        }
        let mut asks: BTreeMap<&str, Vec<&str>> =
            others.iter().map(|(key, (_, definition))| (key.as_str(), definition.asks())).collect();
        asks.insert(flag.as_str(), definition.asks());
        let circles = cycles::circles(&asks);
        if let Some(circle) = circles.iter().find(|circle| circle.contains(&flag.as_str())) {
            return Err(FlagsError::Circle { circle: cycles::shown(circle) });
        }
        let (mut open, mut seen) = (vec![flag.as_str()], BTreeSet::from([flag.as_str()]));
        while let Some(asked) = open.pop().and_then(|key| asks.get(key)) {
            for key in asked.iter().copied().filter(|key| seen.insert(*key)) {
                open.push(key);
                let Ok(named) = FlagKey::new(key) else { continue };
                let revision = others.get(key).map_or(Revision::ABSENT, |(revision, _)| *revision);
                batch = batch.expect(Subject::Definition.key(&named)?, revision);
            }
        }
        Ok(batch)
    }

    /// Commits changes of documents with their facts, together with `batch`; `false` if any of it moved.
    pub(super) async fn commit(
        &self,
        edits: Vec<Edit>,
        batch: Batch,
        by: &Author,
    ) -> Result<bool, FlagsError> {
        self.commit_and_see(edits, batch, Vec::new(), by).await
    }

    /// The same, and what else `batch` changes is seen at once with it.
    pub(super) async fn commit_and_see(
        &self,
        edits: Vec<Edit>,
        mut batch: Batch,
        mut keys: Vec<Key>,
        by: &Author,
    ) -> Result<bool, FlagsError> {
        let head = self.shared.store.head().await?;
        // What concerns one flag is one group; changes of several flags are each flag's own.
        let mut first: Option<EventId> = None;
        let grouped =
            edits.len() > 1 && edits.windows(2).all(|pair| matches!(pair, [a, b] if a.flag == b.flag));
        for edit in edits {
            let stream = stream(&edit.flag)?;
            let id = event_id(&stream, &edit.subject.place(), head)?;
            let key = edit.subject.key(&edit.flag)?;
            let fact = FlagChanged {
                before: edit.before().cloned(),
                after: edit.after.clone(),
                reason: by.reason.clone(),
                undoes: edit.undoes,
                group: grouped.then(|| first.get_or_insert_with(|| id.clone()).clone()),
                closed: edit.closed,
                flag: edit.flag,
                subject: edit.subject,
            };
            let about = format!("flag/{}", fact.flag);
            let event = Event::of(&fact, id, self.shared.clock.now(), by.actor.as_str(), about)?;
            let revision = edit.found.map_or(Revision::ABSENT, |document| document.revision);
            batch = batch.expect(key.clone(), revision).append(stream, event);
            batch = match edit.after {
                Some(after) => batch.put(key.clone(), after),
                None => batch.remove(key.clone()),
            };
            keys.push(key);
        }
        match self.shared.store.commit(batch).await {
            Ok(_) => {
                self.take(keys).await?;
                self.announce();
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether another definition decides anew who has the flag: by its salt, or by a bucketing that takes the place of another one.
fn throws_again(flag: &FlagKey, before: &Json, after: &Definition) -> bool {
    match Definition::deserialize(before) {
        Ok(before) => before.salt_of(flag) != after.salt_of(flag) || after.throws_again(&before),
        Err(_) => before.get("salt").and_then(Json::as_str).unwrap_or(flag.as_str()) != after.salt_of(flag),
    }
}

pub(super) fn json<T: Serialize>(value: &T, key: &Key) -> Result<Json, FlagsError> {
    serde_json::to_value(value)
        .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() }.into())
}
