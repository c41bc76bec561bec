//! All flags and states in memory, and the handles that show them: what changes when a document does.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
};

use flowline_core::{
    id::{Key, ScopeId},
    store::{Document, Position, StoreError},
};
use serde::Serialize;

use super::record::{Held, Place, ScopeRecord};
use crate::{
    engine::{Ambient, Changes, Ruleset, cycles},
    format::flowline::{self, Definition, Effective, FlagKey, State, compile},
    model::{FlagSet, Warning},
    provider::TogglesProvider,
    toggles::Toggles,
};

/// How a flag is released in one scope.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WhereOn {
    /// The scope.
    pub scope: ScopeId,
    /// Its state, with what is inherited.
    pub state: Effective,
    /// Whether the scope says anything of the flag itself.
    pub own: bool,
}

pub(super) struct Board {
    ambient: Arc<dyn Ambient>,
    definitions: BTreeMap<FlagKey, Definition>,
    everywhere: BTreeMap<FlagKey, State>,
    scopes: BTreeMap<ScopeId, Scope>,
    position: Position,
    /// Which flags changed where since somebody was told.
    untold: BTreeMap<ScopeId, BTreeSet<FlagKey>>,
}

#[derive(Default)]
struct Scope {
    /// Whether the store knows it.
    known: bool,
    base: Option<ScopeId>,
    states: BTreeMap<FlagKey, State>,
    /// Shows its flags. Made when somebody asks for it first.
    shown: Option<Arc<TogglesProvider>>,
}

/// How a flag is in each scope that is shown; `None`: there is no such flag.
type Standing = BTreeMap<ScopeId, Option<Effective>>;

impl Board {
    pub(super) fn new(ambient: Arc<dyn Ambient>) -> Self {
        Self {
            ambient,
            definitions: BTreeMap::new(),
            everywhere: BTreeMap::new(),
            scopes: BTreeMap::new(),
            position: Position::START,
            untold: BTreeMap::new(),
        }
    }

    pub(super) fn ambient(&self) -> &Arc<dyn Ambient> {
        &self.ambient
    }

    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn reached(&mut self, position: Position) {
        self.position = self.position.max(position);
    }

    pub(super) fn load(&mut self, documents: &[(Key, Document)]) -> Result<(), StoreError> {
        for (key, document) in documents {
            self.keep(key, Some(document))?;
        }
        Ok(())
    }

    /// Takes over a document as it is now (`None`: it is gone), and shows it to whoever holds a handle.
    pub(super) fn take(&mut self, key: &Key, document: Option<&Document>) -> Result<(), StoreError> {
        match Held::of(key) {
            Some(Held::Definition(flag)) => {
                let before = self.definitions.get(&flag).cloned();
                self.keep(key, document)?;
                if before.as_ref() != self.definitions.get(&flag) {
                    self.show(&flag, self.shown());
                }
            }
            Some(Held::State(_, flag)) => {
                let before = self.standing(&flag);
                self.keep(key, document)?;
                let mut after = self.standing(&flag);
                after.retain(|scope, state| before.get(scope) != Some(state));
                self.show(&flag, after.into_keys().collect());
            }
            Some(Held::Scope(scope)) => {
                let before = self.all_standing(&scope);
                self.keep(key, document)?;
                self.show_whole(before);
            }
            None => {}
        }
        Ok(())
    }

    fn keep(&mut self, key: &Key, document: Option<&Document>) -> Result<(), StoreError> {
        match Held::of(key) {
            Some(Held::Definition(flag)) => {
                let definition = document.map(|document| document.decode(key)).transpose()?;
                put(&mut self.definitions, flag, definition);
            }
            Some(Held::State(place, flag)) => {
                let state = document.map(|document| document.decode(key)).transpose()?;
                let states = match place {
                    Place::Everywhere => &mut self.everywhere,
                    Place::Scope(scope) => &mut self.scopes.entry(scope).or_default().states,
                };
                put(states, flag, state);
            }
            Some(Held::Scope(scope)) => {
                let record: Option<ScopeRecord> =
                    document.map(|document| document.decode(key)).transpose()?;
                let scope = self.scopes.entry(scope).or_default();
                scope.known = record.is_some();
                scope.base = record.and_then(|record| record.base);
            }
            None => {}
        }
        Ok(())
    }

    /// Forgets a scope and what is said for it. Handles on it stay, and show what is said for everywhere.
    pub(super) fn close(&mut self, scope: &ScopeId) {
        let before = self.all_standing(scope);
        if let Some(found) = self.scopes.get_mut(scope) {
            found.known = false;
            found.base = None;
            found.states.clear();
        }
        self.show_whole(before);
        self.scopes.retain(|_, scope| scope.known || scope.shown.is_some() || !scope.states.is_empty());
    }

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

    pub(super) fn definition(&self, flag: &FlagKey) -> Option<Definition> {
        self.definitions.get(flag).cloned()
    }

    /// The circle that `flag` would close if it were defined so.
    pub(super) fn circle(&self, flag: &FlagKey, definition: &Definition) -> Option<String> {
        let others = self.definitions.iter().filter(|(key, _)| *key != flag);
        let asks = others
            .chain([(flag, definition)])
            .map(|(key, definition)| (key.as_str(), definition.asks()))
            .collect();
        let circles = cycles::circles(&asks);
        circles.iter().find(|circle| circle.contains(&flag.as_str())).map(|circle| cycles::shown(circle))
    }

    pub(super) fn keys(&self) -> Vec<FlagKey> {
        self.definitions.keys().cloned().collect()
    }

    pub(super) fn said(&self, place: &Place, flag: &FlagKey) -> State {
        let states = match place {
            Place::Everywhere => Some(&self.everywhere),
            Place::Scope(scope) => self.scopes.get(scope).map(|scope| &scope.states),
        };
        states.and_then(|states| states.get(flag)).cloned().unwrap_or_default()
    }

    pub(super) fn states_of(&self, scope: &ScopeId) -> Vec<(FlagKey, State)> {
        let states = self.scopes.get(scope).into_iter().flat_map(|scope| &scope.states);
        states.map(|(flag, state)| (flag.clone(), state.clone())).collect()
    }

    pub(super) fn places_of(&self, flag: &FlagKey) -> Vec<Place> {
        let scopes = self.scopes.iter().filter(|(_, scope)| scope.states.contains_key(flag));
        let everywhere = self.everywhere.contains_key(flag).then_some(Place::Everywhere);
        everywhere.into_iter().chain(scopes.map(|(scope, _)| Place::Scope(scope.clone()))).collect()
    }

    pub(super) fn effective(&self, scope: &ScopeId, flag: &FlagKey) -> Effective {
        self.effective_as(scope, flag, self.definitions.get(flag))
    }

    /// The same if `flag` were defined as `definition`.
    pub(super) fn effective_as(
        &self,
        scope: &ScopeId,
        flag: &FlagKey,
        definition: Option<&Definition>,
    ) -> Effective {
        // At each place, what was said at run time counts before what the definition declares.
        let own = self.line(scope).into_iter().flat_map(|scope| {
            let said = self.scopes.get(scope).and_then(|scope| scope.states.get(flag));
            said.into_iter().chain(definition.and_then(|definition| definition.scopes.get(scope)))
        });
        let everywhere = self.everywhere.get(flag).into_iter().chain(definition.map(|it| &it.state));
        Effective::of(own.chain(everywhere))
    }

    /// The same for any place.
    pub(super) fn effective_at(&self, place: &Place, flag: &FlagKey) -> Effective {
        match place {
            Place::Scope(scope) => self.effective(scope, flag),
            Place::Everywhere => {
                let declared = self.definitions.get(flag).map(|definition| &definition.state);
                Effective::of(self.everywhere.get(flag).into_iter().chain(declared))
            }
        }
    }

    pub(super) fn where_on(&self, flag: &FlagKey) -> Vec<WhereOn> {
        let known = self.scopes.iter().filter(|(_, scope)| scope.known || !scope.states.is_empty());
        known
            .map(|(id, scope)| WhereOn {
                scope: id.clone(),
                state: self.effective(id, flag),
                own: scope.states.contains_key(flag),
            })
            .collect()
    }

    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let on = Effective::of([&State::on()]);
        for (flag, definition) in &self.definitions {
            compile(flag.as_str(), definition, &on, &mut warnings);
        }
        warnings
    }

    /// Whether `scope` is `base` or inherits from it.
    pub(super) fn inherits(&self, scope: &ScopeId, base: &ScopeId) -> bool {
        self.line(scope).contains(&base)
    }

    /// The scope and its bases, nearest first. A circle (two processes may make one) ends where it closes.
    fn line<'b>(&'b self, scope: &'b ScopeId) -> Vec<&'b ScopeId> {
        let mut line = vec![scope];
        let mut at = scope;
        while let Some(base) = self.scopes.get(at).and_then(|scope| scope.base.as_ref()) {
            if line.contains(&base) {
                break;
            }
            line.push(base);
            at = base;
        }
        line
    }

    /// The scope and all that inherit from it.
    fn heirs(&self, scope: &ScopeId) -> BTreeSet<ScopeId> {
        self.scopes.keys().filter(|id| self.inherits(id, scope)).cloned().collect()
    }

    /// The scopes that are shown.
    fn shown(&self) -> BTreeSet<ScopeId> {
        self.scopes.iter().filter(|(_, scope)| scope.shown.is_some()).map(|(id, _)| id.clone()).collect()
    }

    fn standing(&self, flag: &FlagKey) -> Standing {
        let state = |scope: &ScopeId| self.definitions.get(flag).map(|_| self.effective(scope, flag));
        self.shown().into_iter().map(|scope| (scope.clone(), state(&scope))).collect()
    }

    /// How all flags are in `scope` and those that inherit from it, where they are shown.
    fn all_standing(&self, scope: &ScopeId) -> BTreeMap<ScopeId, Vec<Effective>> {
        let shown = |id: &ScopeId| self.scopes.get(id).is_some_and(|scope| scope.shown.is_some());
        let heirs = self.heirs(scope).into_iter().filter(shown);
        heirs
            .map(|id| (id.clone(), self.definitions.keys().map(|flag| self.effective(&id, flag)).collect()))
            .collect()
    }

    /// Shows one flag as it is now in some scopes. Where it is the same, it is compiled once.
    fn show(&mut self, flag: &FlagKey, scopes: BTreeSet<ScopeId>) {
        let definition = self.definitions.get(flag);
        let mut made: Vec<(Effective, Arc<Ruleset>)> = Vec::new();
        for scope in &scopes {
            let Some(shown) = self.scopes.get(scope).and_then(|scope| scope.shown.as_ref()) else { continue };
            let state = self.effective(scope, flag);
            if let Some((_, ruleset)) = made.iter().find(|(known, _)| *known == state) {
                shown.toggles().edit(|current| current.sharing(ruleset, &[flag.as_str()]));
                continue;
            }
            let mut changes = Changes::default();
            match definition {
                Some(definition) => {
                    changes.flags.push(compile(flag.as_str(), definition, &state, &mut changes.warnings));
                }
                None => changes.removed_flags.push(flag.to_string()),
            }
            shown.toggles().update(changes);
            made.push((state, shown.toggles().ruleset()));
        }
        for scope in scopes {
            self.untold.entry(scope).or_default().insert(flag.clone());
        }
    }

    /// Shows what changed in some scopes, given how all flags were.
    fn show_whole(&mut self, before: BTreeMap<ScopeId, Vec<Effective>>) {
        let mut changed: BTreeMap<FlagKey, BTreeSet<ScopeId>> = BTreeMap::new();
        for (scope, before) in before {
            for (flag, before) in self.definitions.keys().zip(before) {
                if self.effective(&scope, flag) != before {
                    changed.entry(flag.clone()).or_default().insert(scope.clone());
                }
            }
        }
        for (flag, scopes) in changed {
            self.show(&flag, scopes);
        }
    }

    /// The flags of a scope, sharing with one that is shown what is the same there.
    pub(super) fn ruleset(&self, scope: &ScopeId) -> Ruleset {
        let shown = |id: &ScopeId| self.scopes.get(id).and_then(|scope| scope.shown.as_ref());
        let bases = self.line(scope).into_iter();
        let near = bases.chain(self.scopes.keys()).find_map(|id| Some((id, shown(id)?)));
        let Some((other, shown)) = near else { return self.whole_ruleset(scope) };
        let mut changes = Changes::default();
        for (flag, definition) in &self.definitions {
            let state = self.effective(scope, flag);
            if state != self.effective(other, flag) {
                changes.flags.push(compile(flag.as_str(), definition, &state, &mut changes.warnings));
            }
        }
        shown.toggles().ruleset().with(changes)
    }

    fn whole_ruleset(&self, scope: &ScopeId) -> Ruleset {
        let mut set = FlagSet { refuse_cycles: true, ..FlagSet::new("flowline") };
        for (flag, definition) in &self.definitions {
            let state = self.effective(scope, flag);
            let flag = compile(flag.as_str(), definition, &state, &mut set.warnings);
            set.flags.push(flag);
        }
        Ruleset::compile(set)
    }

    /// The flags of a scope as a document of our own format: what a program that does not know the store can read.
    pub(super) fn document(&self, scope: &ScopeId) -> flowline::Document {
        let state = |flag: &FlagKey| {
            let Effective { on, rollout, serve, killed } = self.effective(scope, flag);
            State { on: Some(on), rollout: Some(rollout), serve, killed }
        };
        let flags = self.definitions.iter().map(|(flag, definition)| {
            let here = Definition { state: state(flag), scopes: BTreeMap::new(), ..definition.clone() };
            (flag.clone(), here)
        });
        flowline::Document { flags: flags.collect(), ..flowline::Document::default() }
    }
}

fn put<T>(map: &mut BTreeMap<FlagKey, T>, flag: FlagKey, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(flag, value)),
        None => drop(map.remove(&flag)),
    }
}
