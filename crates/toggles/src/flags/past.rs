//! What happened to flags, since when something holds, and taking the last change back.

use std::{collections::BTreeSet, sync::Arc};

use flowline_core::{
    Timestamp,
    event::{Event, Recorded},
    id::{EventId, ScopeId},
    store::{Batch, Document, EventQuery, Position, Revision},
};
use serde::Deserialize;

use super::{
    Author, FlagChanged, Flags, FlagsError, Place, ScopeChanged, Subject,
    board::Board,
    change::{Edit, json},
    record::{ScopeRecord, scopes_stream, stream},
};
use crate::{
    engine::Fixed,
    format::flowline::{Definition, FlagKey, Percent},
};

impl Flags {
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

    /// Takes back the last change of `flag` that was not taken back yet, with those that were made together with it; which is itself a change in its
    /// history. `false` if there is none.
    ///
    /// # Errors
    /// [`FlagsError::Moved`] if what it changed is not as it left it any more, or its scope was closed since; [`FlagsError::Circle`] if flags would then
    /// depend on each other in a circle; and those of the store.
    pub async fn undo(&self, flag: &FlagKey, by: &Author) -> Result<bool, FlagsError> {
        let mut history = Vec::new();
        for recorded in self.shared.store.events(EventQuery::of(stream(flag)?)).await? {
            if let Some(change) = recorded.event.fact::<FlagChanged>()? {
                history.push((recorded.position, recorded.event.id, change));
            }
        }
        let undone: BTreeSet<&EventId> =
            history.iter().filter_map(|(_, _, change)| change.undoes.as_ref()).collect();
        let counts = |id: &EventId, change: &FlagChanged| {
            change.undoes.is_none() && !change.closed && !undone.contains(id)
        };
        let Some((position, last, change)) = history.iter().rfind(|(_, id, change)| counts(id, change))
        else {
            return Ok(false);
        };
        let together = |other: &FlagChanged| change.group.is_some() && other.group == change.group;
        let all =
            history.iter().filter(|(_, id, other)| id == last || (together(other) && counts(id, other)));
        let (mut edits, mut batch) = (Vec::new(), Batch::new());
        let moved = || FlagsError::Moved { flag: flag.clone(), event: last.clone() };
        for (_, id, change) in all {
            let key = change.subject.key(flag)?;
            let found = self.shared.store.read(&key).await?;
            if found.as_ref().map(|document| &document.value) != change.after.as_ref() {
                return Err(moved());
            }
            if let (Subject::State(place @ Place::Scope(scope)), Some(_)) = (&change.subject, &change.before)
            {
                if self.closed_since(scope, *position).await? {
                    return Err(moved());
                }
                batch = self.guarded(batch, place, &mut false).await?;
            }
            if let (Subject::Definition, Some(before)) = (&change.subject, &change.before) {
                let definition = Definition::deserialize(before).unwrap_or_default();
                batch = self.without_circle(batch, flag, &definition).await?;
            }
            let edit = Edit::new(flag, change.subject.clone(), found, change.before.clone());
            edits.push(Edit { undoes: Some(id.clone()), ..edit });
        }
        if !self.commit(edits, batch, by).await? {
            return Err(moved());
        }
        Ok(true)
    }

    /// Whether `scope` was closed after `position`.
    async fn closed_since(&self, scope: &ScopeId, position: Position) -> Result<bool, FlagsError> {
        for recorded in self.scope_facts().await? {
            if recorded.position > position
                && let Some(change) = recorded.event.fact::<ScopeChanged>()?
                && change.closed
                && change.scope == *scope
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Since when everybody in `scope` has had `flag` without a break; `None`: not everybody has it now. By what the journal says: rules and
    /// audience do not count, an inherited state does.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn full_since(&self, scope: &ScopeId, flag: &FlagKey) -> Result<Option<Timestamp>, FlagsError> {
        let scopes = self.scope_facts().await?;
        self.full_since_by(scope, flag, &scopes).await.map(|(_, full)| full)
    }

    /// All facts about scopes.
    pub(super) async fn scope_facts(&self) -> Result<Vec<Recorded>, FlagsError> {
        Ok(self.shared.store.events(EventQuery::of(scopes_stream()?)).await?)
    }

    /// When the journal first speaks of `flag`, and since when everybody in `scope` has it.
    pub(super) async fn full_since_by(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        scopes: &[Recorded],
    ) -> Result<(Option<Timestamp>, Option<Timestamp>), FlagsError> {
        let mut facts = self.shared.store.events(EventQuery::of(stream(flag)?)).await?;
        let first = facts.first().map(|recorded| recorded.event.time);
        facts.extend(scopes.iter().cloned());
        facts.sort_by_key(|recorded| recorded.position);
        let mut board = Board::new(Arc::new(Fixed::default()));
        let mut since = None;
        for Recorded { event, .. } in &facts {
            match (event.fact::<FlagChanged>(), event.fact::<ScopeChanged>()) {
                (Ok(Some(change)), _) => {
                    let document = change.after.map(|value| Document { revision: Revision::ABSENT, value });
                    board.put([(&change.subject.key(flag)?, document.as_ref())]);
                }
                (_, Ok(Some(change))) => {
                    let key = ScopeRecord::key(&change.scope)?;
                    let value = json(&ScopeRecord { base: change.base, closing: false }, &key)?;
                    if change.closed {
                        board.close(&change.scope);
                    } else {
                        board.put([(&key, Some(&Document { revision: Revision::ABSENT, value }))]);
                    }
                }
                // Whatever that says: from here on it is not known whether everybody has it.
                (Err(_), _) | (_, Err(_)) => since = None,
                _ => {}
            }
            let state = board.effective(scope, flag);
            let sound = board.standing(scope, flag).is_some_and(|standing| standing.fault.is_none());
            let full = sound && state.on && !state.killed && state.rollout == Percent::ALL;
            since = full.then(|| since.unwrap_or(event.time));
        }
        Ok((first, since.filter(|_| board.definition(flag).is_some())))
    }
}
