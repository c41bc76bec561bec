//! How flags are changed: each change is one commit of the document and the fact.

use flowline_core::{
    event::Event,
    id::Key,
    store::{Batch, Revision, StoreError},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use super::{
    Author, FlagChanged, Flags, FlagsError, Place, Subject, TRIES,
    record::{event_id, stream},
    releases,
    stale::usage_key,
};
use crate::format::flowline::{Definition, FlagKey, Percent, State};

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
        self.change(flag, &Subject::Definition, by, |_: Option<Definition>| None).await?;
        let mut rest = Batch::new().remove(usage_key(flag)?);
        for (key, _) in self.shared.store.list(&releases::all()).await? {
            if releases::named(&key).is_some_and(|(_, released)| released == *flag) {
                rest = rest.remove(key);
            }
        }
        self.shared.store.commit(rest).await?;
        Ok(())
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

    pub(super) fn known(&self, flag: &FlagKey) -> Result<(), FlagsError> {
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
    pub(super) async fn commit(
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
}

pub(super) fn json<T: Serialize>(value: &T, key: &Key) -> Result<Json, FlagsError> {
    serde_json::to_value(value)
        .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() }.into())
}
