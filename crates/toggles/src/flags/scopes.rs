//! How scopes become known, inherit, and go with everything that was said for them.

use flowline_core::{
    event::Event,
    id::ScopeId,
    store::{Batch, Revision, StoreError, StoreExt},
};

use super::{
    Author, Flags, FlagsError, Place, ScopeChanged, TRIES,
    change::json,
    record::{ScopeRecord, event_id, scopes_stream},
    releases,
};

impl Flags {
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

    /// Forgets `scope` and everything that is said for it; releases that are under way there are over. Scopes that inherit from it inherit from its base no more.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn close_scope(&self, scope: &ScopeId, by: &Author) -> Result<(), FlagsError> {
        let key = ScopeRecord::key(scope)?;
        for _ in 0..TRIES {
            let place = Place::Scope(scope.clone());
            let mut documents = self.shared.store.list(&place.prefix()).await?;
            documents.extend(self.shared.store.list(&releases::prefix(&place)).await?);
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
        self.announce();
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
}
