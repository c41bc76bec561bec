//! All flags and states in memory: what a document changes, and what all of them come to.
//!
//! What can't be read harms one flag: what was read of it before counts on, else it is an error. A kill switch counts in any case.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::{
    id::{Key, ScopeId},
    store::{Document, Position},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_64;

use super::record::{Held, Place, ScopeRecord, Subject};
use crate::{
    engine::Ambient,
    format::flowline::{Definition, Effective, FlagKey, State, broken, compile, is_killed},
    model::{Fault, FaultCode, Flag, Warning},
    provider::TogglesProvider,
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
    pub(super) ambient: Arc<dyn Ambient>,
    pub(super) definitions: BTreeMap<FlagKey, Definition>,
    everywhere: BTreeMap<FlagKey, State>,
    pub(super) scopes: BTreeMap<ScopeId, Scope>,
    /// What could not be read as it is now.
    unreadable: BTreeMap<Key, Unreadable>,
    position: Position,
    /// Which flags changed where since somebody was told.
    pub(super) untold: BTreeMap<ScopeId, BTreeSet<FlagKey>>,
    /// How often documents were taken over, by the place that their key has here.
    taken: [u64; TICKETS],
}

/// Keys that share a place among these only read once more than they need to.
const TICKETS: usize = 64;

/// How often the documents of a key's place had been taken over when somebody began to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

#[derive(Default)]
pub(super) struct Scope {
    /// Whether the store knows it.
    known: bool,
    base: Option<ScopeId>,
    states: BTreeMap<FlagKey, State>,
    /// Shows its flags. Made when somebody asks for it first.
    pub(super) shown: Option<Arc<TogglesProvider>>,
}

/// A document that this version can't read.
struct Unreadable {
    problem: Arc<str>,
    /// Whether an earlier content of it counts on.
    kept: bool,
    value: Json,
}

/// A document could not be read, and that is noted.
struct Unread;

/// How a flag is in one place.
#[derive(Clone, PartialEq)]
pub(super) struct Standing {
    pub(super) state: Effective,
    /// Why it is an error.
    pub(super) fault: Option<Arc<str>>,
}

impl Board {
    pub(super) fn new(ambient: Arc<dyn Ambient>) -> Self {
        Self {
            ambient,
            definitions: BTreeMap::new(),
            everywhere: BTreeMap::new(),
            scopes: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            position: Position::START,
            untold: BTreeMap::new(),
            taken: [0; TICKETS],
        }
    }

    /// What `documents`, all that a store has below [`PREFIX`](super::PREFIX), say.
    pub(super) fn of(documents: &[(Key, Document)], ambient: Arc<dyn Ambient>) -> Self {
        let mut board = Self::new(ambient);
        for (key, document) in documents {
            board.keep(key, Some(document));
        }
        board
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

    /// To be asked for before a document is read that shall be [taken over](Self::take).
    pub(super) fn ticket(&self, key: &Key) -> Ticket {
        Ticket(self.taken.get(place_of(key)).copied().unwrap_or_default())
    }

    /// Takes over documents as they were read after their tickets were given out (`None`: it is gone), at once, and shows them to whoever holds a
    /// handle. `false`, and nothing is taken: somebody else took one of them over since, who may have read it later; they must be read again, so
    /// that old never overwrites new.
    #[must_use]
    pub(super) fn take(&mut self, documents: &[(Key, Option<Document>, Ticket)]) -> bool {
        if documents.iter().any(|(key, _, ticket)| self.ticket(key) != *ticket) {
            return false;
        }
        for (key, ..) in documents {
            if let Some(taken) = self.taken.get_mut(place_of(key)) {
                *taken += 1;
            }
        }
        self.put(documents.iter().map(|(key, document, _)| (key, document.as_ref())));
        true
    }

    /// Takes over documents, whatever happened since they were read.
    pub(super) fn put<'d>(&mut self, documents: impl IntoIterator<Item = (&'d Key, Option<&'d Document>)>) {
        let documents: Vec<_> = documents.into_iter().collect();
        let (mut flags, mut heirs) = (BTreeSet::new(), BTreeSet::new());
        let mut defined: BTreeMap<FlagKey, Option<Definition>> = BTreeMap::new();
        for (key, _) in &documents {
            match Held::of(key) {
                Some(Held::Definition(flag)) => {
                    defined.insert(flag.clone(), self.definition(&flag));
                    flags.insert(flag);
                }
                Some(Held::State(_, flag)) => drop(flags.insert(flag)),
                Some(Held::Scope(scope)) => heirs.extend(self.heirs(&scope)),
                None => {}
            }
        }
        let before = self.standings(&flags, &heirs);
        for (key, document) in documents {
            self.keep(key, document);
        }
        let after = self.standings(&flags, &heirs);
        let mut changed: BTreeMap<FlagKey, BTreeSet<ScopeId>> = BTreeMap::new();
        for ((flag, scope), standing) in &after {
            if before.get(&(flag.clone(), scope.clone())) != Some(standing) {
                changed.entry(flag.clone()).or_default().insert(scope.clone());
            }
        }
        for (flag, before) in defined {
            if self.definitions.get(&flag) != before.as_ref() {
                changed.insert(flag, self.shown());
            }
        }
        for (flag, scopes) in changed {
            self.show(&flag, scopes);
        }
    }

    fn keep(&mut self, key: &Key, document: Option<&Document>) {
        match Held::of(key) {
            Some(Held::Definition(flag)) => {
                let kept = self.definitions.contains_key(&flag);
                if let Ok(definition) = self.read(key, document, kept) {
                    put(&mut self.definitions, flag, definition);
                }
            }
            Some(Held::State(place, flag)) => {
                let kept = self.states_at(&place).is_some_and(|states| states.contains_key(&flag));
                let read = self.read(key, document, kept);
                let killed = document.is_some_and(|document| is_killed(&document.value));
                let states = match place {
                    Place::Everywhere => &mut self.everywhere,
                    Place::Scope(scope) => &mut self.scopes.entry(scope).or_default().states,
                };
                match read {
                    Ok(state) => put(states, flag, state),
                    // Whatever else it says: a kill switch counts.
                    Err(Unread) => states.entry(flag).or_default().killed |= killed,
                }
            }
            Some(Held::Scope(scope)) => {
                let kept = self.scopes.get(&scope).is_some_and(|scope| scope.known);
                let read = self.read::<ScopeRecord>(key, document, kept);
                let scope = self.scopes.entry(scope).or_default();
                scope.known = document.is_some();
                if let Ok(record) = read {
                    scope.base = record.and_then(|record| record.base);
                }
            }
            None => {}
        }
    }

    /// What `document` holds; an error, which is noted: it can't be read. `kept`: what was read of it before counts on.
    fn read<T: DeserializeOwned>(
        &mut self,
        key: &Key,
        document: Option<&Document>,
        kept: bool,
    ) -> Result<Option<T>, Unread> {
        let before = self.unreadable.remove(key);
        let Some(document) = document else { return Ok(None) };
        match T::deserialize(&document.value) {
            Ok(read) => Ok(Some(read)),
            Err(error) => {
                let kept = before.map_or(kept, |before| before.kept);
                let (problem, value) = (error.to_string().into(), document.value.clone());
                self.unreadable.insert(key.clone(), Unreadable { problem, kept, value });
                Err(Unread)
            }
        }
    }

    /// Forgets a scope and what is said for it, where nobody is shown anything.
    pub(super) fn close(&mut self, scope: &ScopeId) {
        self.scopes.remove(scope);
        let gone = Place::Scope(scope.clone()).prefix();
        self.unreadable.retain(|key, _| !key.as_str().starts_with(&gone));
    }

    /// Forgets scopes of which nothing is known any more and that nobody holds.
    pub(super) fn forget(&mut self) {
        self.scopes.retain(|_, scope| scope.known || scope.shown.is_some() || !scope.states.is_empty());
    }

    /// Where what is said for `scope` lies, as far as it is known.
    pub(super) fn keys_of(&self, scope: &ScopeId) -> Vec<Key> {
        let place = Place::Scope(scope.clone());
        let flags = self.scopes.get(scope).into_iter().flat_map(|scope| scope.states.keys());
        flags.filter_map(|flag| Subject::State(place.clone()).key(flag).ok()).collect()
    }

    /// Where everything lies that is known.
    pub(super) fn all_keys(&self) -> Vec<Key> {
        let definitions = self.definitions.keys().map(|flag| Subject::Definition.key(flag));
        let everywhere = self.everywhere.keys().map(|flag| Subject::State(Place::Everywhere).key(flag));
        let scopes = self.scopes.keys().map(ScopeRecord::key);
        let mut keys: Vec<Key> = definitions.chain(everywhere).chain(scopes).filter_map(Result::ok).collect();
        keys.extend(self.scopes.keys().flat_map(|scope| self.keys_of(scope)));
        keys.extend(self.unreadable.keys().cloned());
        keys
    }

    pub(super) fn definition(&self, flag: &FlagKey) -> Option<Definition> {
        self.definitions.get(flag).cloned()
    }

    /// All flags, those included whose definition can't be read.
    pub(super) fn keys(&self) -> BTreeSet<FlagKey> {
        let unread = self.unreadable.keys().filter_map(|key| match Held::of(key) {
            Some(Held::Definition(flag)) => Some(flag),
            _ => None,
        });
        self.definitions.keys().cloned().chain(unread).collect()
    }

    pub(super) fn knows(&self, flag: &FlagKey) -> bool {
        self.definitions.contains_key(flag)
            || (!self.unreadable.is_empty()
                && Subject::Definition.key(flag).is_ok_and(|key| self.unreadable.contains_key(&key)))
    }

    fn states_at(&self, place: &Place) -> Option<&BTreeMap<FlagKey, State>> {
        match place {
            Place::Everywhere => Some(&self.everywhere),
            Place::Scope(scope) => self.scopes.get(scope).map(|scope| &scope.states),
        }
    }

    pub(super) fn said(&self, place: &Place, flag: &FlagKey) -> State {
        self.states_at(place).and_then(|states| states.get(flag)).cloned().unwrap_or_default()
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

    /// How far `flag` is released at `seen` if `said` were what is said at `place` at run time.
    pub(super) fn effective_if(
        &self,
        seen: &Place,
        flag: &FlagKey,
        place: &Place,
        said: &State,
    ) -> Effective {
        let definition = self.definitions.get(flag);
        let line = match seen {
            Place::Scope(scope) => self.line(scope),
            Place::Everywhere => Vec::new(),
        };
        let own = line.into_iter().flat_map(|scope| {
            let kept = self.scopes.get(scope).and_then(|scope| scope.states.get(flag));
            let said = if matches!(place, Place::Scope(here) if here == scope) { Some(said) } else { kept };
            said.into_iter().chain(definition.and_then(|definition| definition.scopes.get(scope)))
        });
        let everywhere = if *place == Place::Everywhere { Some(said) } else { self.everywhere.get(flag) };
        Effective::of(own.chain(everywhere).chain(definition.map(|it| &it.state)))
    }

    pub(super) fn where_on(&self, flag: &FlagKey) -> Vec<WhereOn> {
        let known = self.scopes.iter().filter(|(_, scope)| scope.known || !scope.states.is_empty());
        let declared = self.definitions.get(flag).into_iter().flat_map(|definition| definition.scopes.keys());
        let declared: BTreeSet<&ScopeId> = declared.collect();
        let all: BTreeSet<&ScopeId> = known.map(|(id, _)| id).chain(declared.iter().copied()).collect();
        let said = |id: &ScopeId| self.scopes.get(id).is_some_and(|scope| scope.states.contains_key(flag));
        all.into_iter()
            .map(|id| WhereOn {
                scope: id.clone(),
                state: self.effective(id, flag),
                own: said(id) || declared.contains(id),
            })
            .collect()
    }

    pub(super) fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let on = Effective::of([&State::on()]);
        for (flag, definition) in &self.definitions {
            compile(flag.as_str(), definition, &on, &mut warnings);
        }
        warnings.extend(self.unreadable.iter().filter_map(|(key, found)| {
            let meaning = if found.kept {
                "what was read of it before counts on"
            } else {
                "the flag is an error until that is mended"
            };
            let problem = format!("{}; {meaning}", found.problem);
            Some(match Held::of(key)? {
                Held::Definition(flag) => Warning::of(flag.as_str(), "", problem),
                Held::State(place, flag) => {
                    Warning::of(flag.as_str(), format!("state/{}", place.name()), problem)
                }
                Held::Scope(scope) => Warning::general(format!("scope `{scope}`"), found.problem.to_string()),
            })
        }));
        warnings
    }

    /// Why the document under `key` makes its flag an error.
    fn fault_at(&self, key: &Key) -> Option<Arc<str>> {
        self.unreadable.get(key).filter(|found| !found.kept).map(|found| Arc::clone(&found.problem))
    }

    /// Why `flag` is an error in `scope`, by what could not be read.
    fn fault(&self, scope: &ScopeId, flag: &FlagKey) -> Option<Arc<str>> {
        if self.unreadable.is_empty() {
            return None;
        }
        let places = self.line(scope).into_iter().map(Place::from).chain([Place::Everywhere]);
        let subjects = [Subject::Definition].into_iter().chain(places.map(Subject::State));
        subjects.filter_map(|subject| subject.key(flag).ok()).find_map(|key| self.fault_at(&key))
    }

    /// How `flag` is in `scope`; `None`: there is no such flag.
    pub(super) fn standing(&self, scope: &ScopeId, flag: &FlagKey) -> Option<Standing> {
        self.knows(flag)
            .then(|| Standing { state: self.effective(scope, flag), fault: self.fault(scope, flag) })
    }

    /// What `flag` compiles to where it stands so.
    pub(super) fn compiled(&self, flag: &FlagKey, standing: &Standing, warnings: &mut Vec<Warning>) -> Flag {
        let definition = self.definitions.get(flag);
        match (definition, &standing.fault) {
            (Some(definition), None) => compile(flag.as_str(), definition, &standing.state, warnings),
            (definition, fault) => {
                let problem = fault.clone().unwrap_or_else(|| "its definition cannot be read".into());
                let boolean = Definition::default();
                let raw = Subject::Definition.key(flag).ok().and_then(|key| self.unreadable.get(&key));
                let untyped = raw.is_some_and(|raw| raw.value.get("variants").is_none());
                let definition = definition.or(untyped.then_some(&boolean));
                let fault = Fault::new(FaultCode::ParseError, problem);
                broken(flag.as_str(), definition, &standing.state, fault)
            }
        }
    }

    /// Whether `scope` is `base` or inherits from it.
    pub(super) fn inherits(&self, scope: &ScopeId, base: &ScopeId) -> bool {
        self.line(scope).contains(&base)
    }

    /// The scope and its bases, nearest first. A circle (two processes may make one) ends where it closes.
    pub(super) fn line<'b>(&'b self, scope: &'b ScopeId) -> Vec<&'b ScopeId> {
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
    pub(super) fn heirs(&self, scope: &ScopeId) -> BTreeSet<ScopeId> {
        self.scopes.keys().filter(|id| self.inherits(id, scope)).cloned().collect()
    }

    /// The flags of a scope as a document of our own format: what a program that does not know the store can read. What can't be read stands in
    /// it as it is, so that whoever reads it says the same of it.
    pub(super) fn document(&self, scope: &ScopeId) -> Json {
        let flags = self.keys().into_iter().filter_map(|flag| {
            let Standing { state: Effective { on, rollout, serve, killed }, fault } =
                self.standing(scope, &flag)?;
            let state = State { on: Some(on), rollout: Some(rollout), serve, killed };
            let value = if let Some(definition) = self.definitions.get(&flag) {
                let here = Definition { state, scopes: BTreeMap::new(), ..definition.clone() };
                let mut value = serde_json::to_value(here).ok()?;
                if fault.is_some() {
                    *value.get_mut("state")? = self.unread_state(scope, &flag, killed)?;
                }
                value
            } else {
                let key = Subject::Definition.key(&flag).ok()?;
                let mut value = self.unreadable.get(&key)?.value.clone();
                if let Json::Object(parts) = &mut value {
                    parts.remove("scopes");
                    parts.insert("state".to_owned(), serde_json::to_value(state).ok()?);
                }
                value
            };
            Some((flag.to_string(), value))
        });
        Json::Object([("flags".to_owned(), Json::Object(flags.collect()))].into_iter().collect())
    }

    /// The nearest state of `flag` that can't be read, with the kill switch as it counts.
    fn unread_state(&self, scope: &ScopeId, flag: &FlagKey, killed: bool) -> Option<Json> {
        let mut places = self.line(scope).into_iter().map(Place::from).chain([Place::Everywhere]);
        let mut value = places.find_map(|place| {
            let key = Subject::State(place).key(flag).ok()?;
            self.unreadable.get(&key).filter(|found| !found.kept).map(|found| found.value.clone())
        })?;
        if let (Json::Object(parts), true) = (&mut value, killed) {
            parts.insert("killed".to_owned(), true.into());
        }
        Some(value)
    }
}

/// Where a key's count lies.
fn place_of(key: &Key) -> usize {
    usize::try_from(xxh3_64(key.as_str().as_bytes()) % 64).unwrap_or_default()
}

fn put<T>(map: &mut BTreeMap<FlagKey, T>, flag: FlagKey, value: Option<T>) {
    match value {
        Some(value) => drop(map.insert(flag, value)),
        None => drop(map.remove(&flag)),
    }
}
