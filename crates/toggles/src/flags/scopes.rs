//! How scopes become known, inherit, and go with everything that was said for them.

use flowline_core::{
    event::Event,
    id::ScopeId,
    store::{Batch, Document, Revision, StoreError},
};
use serde::Deserialize;

use super::{
    Author, Flags, FlagsError, PREFIX, Place, ScopeBefore, ScopeChanged, Subject, TRIES,
    board::Board,
    change::{Edit, json},
    record::{Held, ScopeRecord, event_id, scopes_stream},
    releases,
};
use crate::{
    format::flowline::{Effective, FlagKey, Percent, State},
    life::release::{Because, Fallout},
};

impl Flags {
    /// Makes `scope` known, inheriting from `base`. Doing it again changes the base.
    ///
    /// # Errors
    /// [`FlagsError::Cycle`] if `base` inherits from `scope`, [`FlagsError::ScopeContended`], and those of the store.
    pub async fn open_scope(
        &self,
        scope: &ScopeId,
        base: Option<&ScopeId>,
        by: &Author,
    ) -> Result<(), FlagsError> {
        let record = ScopeRecord { base: base.cloned(), closing: false };
        let key = ScopeRecord::key(scope)?;
        let value = json(&record, &key)?;
        for _ in 0..TRIES {
            if let Some(base) = base
                && self.board().inherits(base, scope)
            {
                return Err(FlagsError::Cycle { scope: scope.clone(), base: base.clone() });
            }
            let found = self.shared.store.read(&key).await?;
            if found.as_ref().is_some_and(|found| found.value == value) {
                return self.reread(&key).await;
            }
            if found.as_ref().and_then(read).is_some_and(|before| before.closing) {
                // Somebody began to close it and did not come to the end: what was said for it must not be found by the new one.
                self.close_scope(scope, by).await?;
                continue;
            }
            let fact = ScopeChanged {
                scope: scope.clone(),
                before: found.as_ref().map(before),
                base: base.cloned(),
                closed: false,
            };
            let batch = Batch::new().expect(key.clone(), revision(found.as_ref()));
            let batch = self.with_fact(batch.put(key.clone(), value.clone()), fact, by).await?;
            if self.commit_and_see(Vec::new(), batch, vec![key.clone()], by).await? {
                return Ok(());
            }
            self.refresh().await?;
        }
        Err(FlagsError::ScopeContended { scope: scope.clone() })
    }

    /// Forgets `scope` and everything that is said for it; releases that are under way there are over. Scopes that inherit from it inherit from its base
    /// no more. Each of that is a fact; nothing of it can be undone.
    ///
    /// # Errors
    /// [`FlagsError::ScopeContended`], and those of the store. What was begun is done when it is called again.
    pub async fn close_scope(&self, scope: &ScopeId, by: &Author) -> Result<(), FlagsError> {
        let (key, place) = (ScopeRecord::key(scope)?, Place::Scope(scope.clone()));
        for _ in 0..TRIES {
            let states = self.shared.store.list(&place.prefix()).await?;
            let releases = self.shared.store.list(&releases::prefix(&place)).await?;
            let known = self.shared.store.read(&key).await?;
            if known.is_none() && states.is_empty() && releases.is_empty() {
                let mut keys = self.board().keys_of(scope);
                keys.push(key);
                self.take(keys).await?;
                self.board().forget();
                self.announce();
                return Ok(());
            }
            let record = known.as_ref().and_then(read);
            if !record.as_ref().is_some_and(|record| record.closing) {
                // From here on nobody says anything for it, so that what is listed next is all there is.
                let closing = ScopeRecord { base: record.and_then(|record| record.base), closing: true };
                let batch = Batch::new().expect(key.clone(), revision(known.as_ref()));
                match self.shared.store.commit(batch.put(key.clone(), json(&closing, &key)?)).await {
                    Ok(_) | Err(StoreError::Conflict { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let fact = ScopeChanged {
                scope: scope.clone(),
                before: known.as_ref().map(before),
                base: None,
                closed: true,
            };
            let batch = Batch::new().expect(key.clone(), revision(known.as_ref())).remove(key.clone());
            let mut batch = self.with_fact(batch, fact, by).await?;
            for (key, document) in releases {
                let Some((place, flag)) = releases::named(&key) else {
                    batch = batch.expect(key.clone(), document.revision).remove(key);
                    continue;
                };
                let over = (Because::Closed, Fallout::Withdraw);
                batch = self.release_over(batch, &place, &flag, &key, &document, over, by).await?;
            }
            let mut edits = Vec::with_capacity(states.len());
            for (key, document) in states {
                match Held::of(&key) {
                    Some(Held::State(place, flag)) => {
                        let edit = Edit::new(&flag, Subject::State(place), Some(document), None);
                        edits.push(Edit { closed: true, ..edit });
                    }
                    _ => batch = batch.expect(key.clone(), document.revision).remove(key),
                }
            }
            if self.commit_and_see(edits, batch, vec![key.clone()], by).await? {
                self.board().forget();
                return Ok(());
            }
        }
        Err(FlagsError::ScopeContended { scope: scope.clone() })
    }

    /// Gives `to` what is said for `from` itself, at run time or by the definition, in one commit: what a promotion may do with state, by choice.
    ///
    /// Field by field: what those get who get it (`serve`) is taken over where `from` says it; a flag that is on in `from` is on in `to` for as many as
    /// there, or for as many as before if those are more. Nobody loses a flag by it, and kill switches stay as they are on both sides: one that is
    /// pulled in `to` holds, one that is pulled in `from` is not carried. What can't be read is left out.
    ///
    /// # Errors
    /// [`FlagsError::Closed`], [`FlagsError::ScopeContended`], and those of the store.
    pub async fn carry(&self, from: &ScopeId, to: &ScopeId, by: &Author) -> Result<(), FlagsError> {
        let place = Place::Scope(to.clone());
        let mut open = false;
        for _ in 0..TRIES {
            let mut batch = self.guarded(Batch::new(), &place, &mut open).await?;
            let documents = self.shared.store.list(PREFIX).await?;
            let board = Board::of(&documents, std::sync::Arc::clone(self.board().ambient()));
            let mut edits = Vec::new();
            for flag in board.keys() {
                let Some(state) = carried(&board, from, to, &flag) else { continue };
                let subject = Subject::State(place.clone());
                let key = subject.key(&flag)?;
                let found = |key| documents.iter().find(|(at, _)| *at == key).map(|(_, found)| found.clone());
                let definition = Subject::Definition.key(&flag)?;
                batch = batch.expect(definition.clone(), revision(found(definition).as_ref()));
                let after = (!state.is_empty()).then(|| json(&state, &key)).transpose()?;
                edits.push(Edit::new(&flag, subject, found(key), after));
            }
            if edits.is_empty() || self.commit(edits, batch, by).await? {
                return Ok(());
            }
        }
        Err(FlagsError::ScopeContended { scope: to.clone() })
    }

    /// `batch` with the fact that a scope changed.
    async fn with_fact(&self, batch: Batch, fact: ScopeChanged, by: &Author) -> Result<Batch, FlagsError> {
        let head = self.shared.store.head().await?;
        let stream = scopes_stream()?;
        let id = event_id(&stream, fact.scope.as_str(), head)?;
        let subject = format!("environment/{}", fact.scope);
        let mut event = Event::of(&fact, id, self.shared.clock.now(), by.actor.as_str(), subject)?;
        event.extra.insert("reason".to_owned(), by.reason.clone().into());
        Ok(batch.append(stream, event))
    }
}

/// What is said of `flag` in `to` once it was carried there; `None`: what is said now.
fn carried(board: &Board, from: &ScopeId, to: &ScopeId, flag: &FlagKey) -> Option<State> {
    let sound = |scope: &ScopeId| board.standing(scope, flag).filter(|standing| standing.fault.is_none());
    let (there, here) = (sound(from)?.state, sound(to)?.state);
    let said = board.said(&Place::Scope(from.clone()), flag);
    let declared = board.definition(flag)?.scopes.get(from).cloned().unwrap_or_default();
    let before = board.said(&Place::Scope(to.clone()), flag);
    let mut after = before.clone();
    if let Some(serve) = said.serve.or(declared.serve) {
        after.serve = Some(serve);
    }
    let speaks = [said.on.or(declared.on).is_some(), said.rollout.or(declared.rollout).is_some()];
    if speaks.contains(&true) && share(&there) > share(&here) {
        (after.on, after.rollout) = (Some(true), Some(share(&there)));
    }
    (after != before).then_some(after)
}

/// For how many percent it is on, kill switch aside.
fn share(state: &Effective) -> Percent {
    if state.on { state.rollout } else { Percent::NONE }
}

fn read(document: &Document) -> Option<ScopeRecord> {
    ScopeRecord::deserialize(&document.value).ok()
}

fn before(document: &Document) -> ScopeBefore {
    ScopeBefore { base: read(document).and_then(|record| record.base) }
}

fn revision(document: Option<&Document>) -> Revision {
    document.map_or(Revision::ABSENT, |document| document.revision)
}
