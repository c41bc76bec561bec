//! The handles that show flags: what they show changes when a document does.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use flowline_core::id::ScopeId;

use super::board::{Board, Standing};
use crate::{
    engine::{Changes, Ruleset},
    format::flowline::FlagKey,
    model::FlagSet,
    provider::TogglesProvider,
    toggles::Toggles,
};

impl Board {
    pub(super) fn provider(&mut self, scope: &ScopeId) -> Arc<TogglesProvider> {
        if let Some(provider) = self.scopes.get(scope).and_then(|scope| scope.shown.as_ref()) {
            return Arc::clone(provider);
        }
        let toggles = Toggles::with_ambient(self.ruleset(scope), Arc::clone(&self.ambient));
        let provider = Arc::new(TogglesProvider::new(toggles));
        self.scopes.entry(scope.clone()).or_default().shown = Some(Arc::clone(&provider));
        provider
    }

    /// All providers.
    pub(super) fn providers(&self) -> Vec<Arc<TogglesProvider>> {
        self.scopes.values().filter_map(|scope| scope.shown.clone()).collect()
    }

    /// Whom to tell of what changed since this was asked last.
    pub(super) fn untold(&mut self) -> Vec<(Arc<TogglesProvider>, BTreeSet<FlagKey>)> {
        let untold = mem::take(&mut self.untold).into_iter();
        untold.filter_map(|(scope, flags)| Some((self.scopes.get(&scope)?.shown.clone()?, flags))).collect()
    }

    /// The scopes that are shown.
    pub(super) fn shown(&self) -> BTreeSet<ScopeId> {
        self.scopes.iter().filter(|(_, scope)| scope.shown.is_some()).map(|(id, _)| id.clone()).collect()
    }

    /// How `flags` are in all scopes that are shown, and all flags in those of `scopes` that are.
    pub(super) fn standings(
        &self,
        flags: &BTreeSet<FlagKey>,
        scopes: &BTreeSet<ScopeId>,
    ) -> BTreeMap<(FlagKey, ScopeId), Option<Standing>> {
        let shown = self.shown();
        let all = if scopes.is_empty() { BTreeSet::new() } else { self.keys() };
        let named = flags.iter().flat_map(|flag| shown.iter().map(move |scope| (flag, scope)));
        let whole = shown.intersection(scopes).flat_map(|scope| all.iter().map(move |flag| (flag, scope)));
        let standing =
            |(flag, scope): (&FlagKey, &ScopeId)| ((flag.clone(), scope.clone()), self.standing(scope, flag));
        named.chain(whole).map(standing).collect()
    }

    /// Shows one flag as it is now in some scopes. Where it is the same, it is compiled once.
    pub(super) fn show(&mut self, flag: &FlagKey, scopes: BTreeSet<ScopeId>) {
        let mut made: Vec<(Standing, Arc<Ruleset>)> = Vec::new();
        for scope in &scopes {
            let Some(shown) = self.scopes.get(scope).and_then(|scope| scope.shown.as_ref()) else { continue };
            let mut changes = Changes::default();
            let Some(standing) = self.standing(scope, flag) else {
                changes.removed_flags.push(flag.to_string());
                shown.toggles().update(changes);
                continue;
            };
            if let Some((_, ruleset)) = made.iter().find(|(known, _)| *known == standing) {
                shown.toggles().edit(|current| current.sharing(ruleset, &[flag.as_str()]));
                continue;
            }
            changes.flags.push(self.compiled(flag, &standing, &mut changes.warnings));
            shown.toggles().update(changes);
            made.push((standing, shown.toggles().ruleset()));
        }
        for scope in scopes {
            self.untold.entry(scope).or_default().insert(flag.clone());
        }
    }

    /// The flags of a scope, sharing with one that is shown what is the same there.
    pub(super) fn ruleset(&self, scope: &ScopeId) -> Ruleset {
        let shown = |id: &ScopeId| self.scopes.get(id).and_then(|scope| scope.shown.as_ref());
        let bases = self.line(scope).into_iter();
        let near = bases.chain(self.scopes.keys()).find_map(|id| Some((id, shown(id)?)));
        let Some((other, shown)) = near else { return self.whole_ruleset(scope) };
        let mut changes = Changes::default();
        for flag in self.keys() {
            let Some(standing) = self.standing(scope, &flag) else { continue };
            if Some(&standing) != self.standing(other, &flag).as_ref() {
                changes.flags.push(self.compiled(&flag, &standing, &mut changes.warnings));
            }
        }
        shown.toggles().ruleset().with(changes)
    }

    fn whole_ruleset(&self, scope: &ScopeId) -> Ruleset {
        let mut set = FlagSet { refuse_cycles: true, ..FlagSet::new("flowline") };
        for flag in self.keys() {
            let Some(standing) = self.standing(scope, &flag) else { continue };
            let flag = self.compiled(&flag, &standing, &mut set.warnings);
            set.flags.push(flag);
        }
        Ruleset::compile(set)
    }
}
