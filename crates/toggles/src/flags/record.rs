//! How flags lie in the store: documents under [`PREFIX`], and one stream of facts for each flag.
//!
//! | key | holds |
//! | --- | --- |
//! | `toggles/flag/FLAG` | a [`Definition`](crate::format::flowline::Definition) |
//! | `toggles/state/SCOPE/FLAG` | a [`State`](crate::format::flowline::State); SCOPE is `*` for everywhere |
//! | `toggles/scope/SCOPE` | the scope's base |

use flowline_core::{
    id::{EventId, Key, ScopeId, StreamId},
    journal::Fact,
    name::NameError,
    store::Position,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::format::flowline::FlagKey;

pub(crate) const PREFIX: &str = "toggles/";

/// Who changes something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// A person's handle, `flowline`, a CI job.
    pub actor: String,
    /// Why; for people.
    pub reason: String,
}

impl Author {
    /// `actor`, because of `reason`.
    pub fn new(actor: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into() }
    }
}

/// Where something is said of a flag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// For all scopes, where they (and their bases) say nothing themselves.
    Everywhere,
    /// For one scope and those that inherit from it.
    Scope(ScopeId),
}

impl Place {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Everywhere => "*",
            Self::Scope(scope) => scope.as_str(),
        }
    }

    pub(super) fn prefix(&self) -> String {
        format!("{PREFIX}state/{}/", self.name())
    }
}

impl From<ScopeId> for Place {
    fn from(scope: ScopeId) -> Self {
        Self::Scope(scope)
    }
}

impl From<&ScopeId> for Place {
    fn from(scope: &ScopeId) -> Self {
        Self::Scope(scope.clone())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Everywhere => "everywhere",
            Self::Scope(scope) => scope.as_str(),
        })
    }
}

/// What of a flag a change concerns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Its definition.
    Definition,
    /// Its state at a place.
    State(Place),
}

impl Subject {
    pub(super) fn key(&self, flag: &FlagKey) -> Result<Key, NameError> {
        Key::new(match self {
            Self::Definition => format!("{PREFIX}flag/{flag}"),
            Self::State(place) => format!("{}{flag}", place.prefix()),
        })
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::Definition => "definition".to_owned(),
            Self::State(place) => format!("at-{}", place.name()),
        }
    }
}

/// The fact that a flag was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagChanged {
    /// The flag.
    pub flag: FlagKey,
    /// What of it.
    pub subject: Subject,
    /// The document before; absent: there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Json>,
    /// The document after; absent: there is none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Json>,
    /// Why.
    pub reason: String,
    /// The change that this one takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undoes: Option<EventId>,
    /// The first of the changes that were made together with this one, and are undone together: those of a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<EventId>,
    /// Whether it went with its scope, which was closed; undoing leaves that alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub closed: bool,
}

impl Fact for FlagChanged {
    const KIND: &'static str = "flag.changed";
}

/// The fact that a scope became known, got another base, or was closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScopeChanged {
    /// The scope.
    pub scope: ScopeId,
    /// What was known of it before; absent: it was not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ScopeBefore>,
    /// Its base now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ScopeId>,
    /// Whether it was closed.
    #[serde(default)]
    pub closed: bool,
}

impl Fact for ScopeChanged {
    const KIND: &'static str = "flag.scope_changed";
}

/// What was known of a scope before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeBefore {
    /// Its base then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<ScopeId>,
}

/// The document of a scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ScopeRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) base: Option<ScopeId>,
    /// Whether it is about to go: nothing is said for it any more, so that nothing is left of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) closing: bool,
}

impl ScopeRecord {
    pub(super) fn key(scope: &ScopeId) -> Result<Key, NameError> {
        Key::new(format!("{PREFIX}scope/{scope}"))
    }
}

/// What a document's key says.
pub(super) enum Held {
    Definition(FlagKey),
    State(Place, FlagKey),
    Scope(ScopeId),
}

impl Held {
    /// `None` for documents that this version does not know.
    pub(super) fn of(key: &Key) -> Option<Self> {
        let rest = key.as_str().strip_prefix(PREFIX)?;
        let (family, rest) = rest.split_once('/')?;
        match family {
            "flag" => FlagKey::new(rest).ok().map(Self::Definition),
            "scope" => ScopeId::new(rest).ok().map(Self::Scope),
            "state" => {
                let (place, flag) = rest.split_once('/')?;
                let place =
                    if place == "*" { Place::Everywhere } else { Place::Scope(ScopeId::new(place).ok()?) };
                Some(Self::State(place, FlagKey::new(flag).ok()?))
            }
            _ => None,
        }
    }
}

pub(super) fn stream(flag: &FlagKey) -> Result<StreamId, NameError> {
    StreamId::new(format!("flag/{flag}"))
}

pub(super) fn scopes_stream() -> Result<StreamId, NameError> {
    StreamId::new("flags/scopes")
}

/// An id that no other change of the same thing can have: the store's head moves with each change, and two that saw the same head
/// can't both find the document as they expect it.
pub(super) fn event_id(stream: &StreamId, part: &str, head: Position) -> Result<EventId, NameError> {
    EventId::new(format!("{stream}/{part}/{head}"))
}
