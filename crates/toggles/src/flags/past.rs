//! What happened to flags, since when something holds, and taking the last change back.

use std::{collections::BTreeSet, sync::Arc};

use flowline_core::{
    Timestamp,
    event::{Event, Recorded},
    id::{EventId, ScopeId},
    store::{Document, EventQuery, Revision},
};

use super::{
    Author, FlagChanged, Flags, FlagsError, ScopeChanged,
    board::Board,
    change::json,
    record::{ScopeRecord, scopes_stream, stream},
};
use crate::{
    engine::Fixed,
    format::flowline::{FlagKey, Percent},
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
            if let Some(change) = event.fact::<FlagChanged>()? {
                let document = change.after.map(|value| Document { revision: Revision::ABSENT, value });
                board.take(&change.subject.key(flag)?, document.as_ref())?;
            } else if let Some(change) = event.fact::<ScopeChanged>()? {
                let key = ScopeRecord::key(&change.scope)?;
                let value = json(&ScopeRecord { base: change.base }, &key)?;
                if change.closed {
                    board.close(&change.scope);
                } else {
                    board.take(&key, Some(&Document { revision: Revision::ABSENT, value }))?;
                }
            }
            let state = board.effective(scope, flag);
            let full = state.on && !state.killed && state.rollout == Percent::ALL;
            since = full.then(|| since.unwrap_or(event.time));
        }
        Ok((first, since.filter(|_| board.definition(flag).is_some())))
    }
}
