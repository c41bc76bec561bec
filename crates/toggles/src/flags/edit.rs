//! What an edit of a definition would do, before it is made.

use std::sync::Arc;

use flowline_core::id::ScopeId;

use super::{Flags, Place, board::Standing};
use crate::{
    context::Context,
    engine::{Ambient, Changes, Ruleset},
    format::flowline::{Definition, FlagKey, State, compile},
    life::compare::Comparison,
};

impl Flags {
    /// Which of `contexts` would see something else of `flag` in `scope` if it were defined as `definition`: exact, for a list of real users.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use flowline_core::{clock::ManualClock, id::ScopeId, store::MemoryStore};
    /// # use flowline_toggles::{Context, flags::{Author, Flags}, format::flowline::{Definition, FlagKey, Percent}};
    /// # flowline_core::testkit::block_on(async {
    /// # let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(ManualClock::default())).await?;
    /// # let (production, checkout, ada) = (ScopeId::new("production")?, FlagKey::new("checkout")?, Author::new("ada", "first users"));
    /// flags.define(&checkout, Definition::default(), &ada).await?;
    /// flags.set_rollout(&production, &checkout, Percent::new(50.0)?, &ada).await?;
    /// let edit = Definition { salt: Some("again".to_owned()), ..Definition::default() };
    /// let users = [Context::new("user-1"), Context::new("user-2"), Context::new("user-3")];
    /// let moved = flags.moved_by(&production, &checkout, &edit, &users);
    /// assert_eq!((moved.looked_at, moved.moved.len()), (3, 2));
    /// let share = flags.share_moved_by(&production, &checkout, &edit).share();
    /// assert!((0.45..0.55).contains(&share), "half of everybody is on one side of the line");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn moved_by<'c>(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        definition: &Definition,
        contexts: impl IntoIterator<Item = &'c Context>,
    ) -> Comparison {
        let (before, after, ambient) = self.around(scope, flag, definition);
        Comparison::of(flag.as_str(), &before, &after, contexts, &*ambient)
    }

    /// The same for 10,000 made-up users without attributes: what share of everybody would see something else. Of a flag with an audience, or with rules
    /// by attributes, that says nothing, as no such user is in it: ask for users [like](Self::share_moved_among) some that are.
    pub fn share_moved_by(&self, scope: &ScopeId, flag: &FlagKey, definition: &Definition) -> Comparison {
        let (before, after, ambient) = self.around(scope, flag, definition);
        Comparison::estimate(flag.as_str(), &before, &after, &*ambient)
    }

    /// The same for 10,000 made-up users that have the attributes of `samples`, taken in turn: what share of people like these would see something
    /// else.
    pub fn share_moved_among(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        definition: &Definition,
        samples: &[Context],
    ) -> Comparison {
        let (before, after, ambient) = self.around(scope, flag, definition);
        Comparison::estimate_among(flag.as_str(), &before, &after, samples, &*ambient)
    }

    /// Which of `contexts` would see something else of `flag` in `scope` if `edit` were made to what is said of it at `place` (the scope itself, one
    /// that it inherits from, or [everywhere](Place::Everywhere)): a rollout raised or lowered, another variant served, a kill.
    pub fn moved_by_state<'c>(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        place: impl Into<Place>,
        edit: impl FnOnce(&mut State),
        contexts: impl IntoIterator<Item = &'c Context>,
    ) -> Comparison {
        let place = place.into();
        let (before, after, ambient) = {
            let board = self.board();
            let before = board.ruleset(scope);
            let mut said = board.said(&place, flag);
            edit(&mut said);
            let mut changes = Changes::default();
            if let Some(standing) = board.standing(scope, flag) {
                let state = board.effective_if(&Place::from(scope), flag, &place, &said);
                let standing = Standing { state, ..standing };
                changes.flags.push(board.compiled(flag, &standing, &mut changes.warnings));
            }
            let after = before.with(changes);
            (before, after, Arc::clone(board.ambient()))
        };
        Comparison::of(flag.as_str(), &before, &after, contexts, &*ambient)
    }

    /// The flags of a scope as they are, and as they would be.
    fn around(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        definition: &Definition,
    ) -> (Ruleset, Ruleset, Arc<dyn Ambient>) {
        let board = self.board();
        let before = board.ruleset(scope);
        let state = board.effective_as(scope, flag, Some(definition));
        let mut changes = Changes::default();
        changes.flags.push(compile(flag.as_str(), definition, &state, &mut changes.warnings));
        let after = before.with(changes);
        (before, after, Arc::clone(board.ambient()))
    }
}
