//! Code that takes part in every evaluation: [`Hook`], at up to four stages.

use std::{any::Any, collections::BTreeMap, fmt, ops::BitOr, sync::Arc};

use flowline_core::error::BoxError;

use super::{ClientMetadata, Details, EvaluationContext, EvaluationError, Field};
use crate::{model::ValueType, provider::ProviderMetadata, value::Value};

/// At which stages a hook wants to be called: at least one, by construction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages(u8);

impl Stages {
    /// Before resolution.
    pub const BEFORE: Self = Self(1);
    /// After a resolution that succeeded.
    pub const AFTER: Self = Self(2);
    /// After a failure at any earlier stage.
    pub const ERROR: Self = Self(4);
    /// At the end, always.
    pub const FINALLY: Self = Self(8);
    /// All four.
    pub const ALL: Self = Self(15);

    /// Whether all of `stages` are among them.
    pub const fn contains(self, stages: Self) -> bool {
        self.0 & stages.0 == stages.0
    }
}

impl BitOr for Stages {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a hook is told about the evaluation. Everything but its own [data](Self::data_mut) is read-only, also by clever means: it is
/// borrowed.
#[derive(Debug)]
pub struct HookContext<'a> {
    pub(super) key: &'a str,
    pub(super) kind: ValueType,
    pub(super) default: &'a Value,
    pub(super) context: &'a EvaluationContext,
    pub(super) client: &'a ClientMetadata,
    pub(super) provider: &'a ProviderMetadata,
    pub(super) data: &'a mut HookData,
}

impl HookContext<'_> {
    /// The flag's key.
    pub fn key(&self) -> &str {
        self.key
    }

    /// The type that was asked for.
    pub fn kind(&self) -> ValueType {
        self.kind
    }

    /// The caller's default.
    pub fn default(&self) -> &Value {
        self.default
    }

    /// The merged context, with what earlier `before` hooks returned. To change it, return one from [`Hook::before`].
    pub fn context(&self) -> &EvaluationContext {
        self.context
    }

    /// The client that was asked.
    pub fn client(&self) -> &ClientMetadata {
        self.client
    }

    /// The provider that is asked.
    pub fn provider(&self) -> &ProviderMetadata {
        self.provider
    }

    /// What this hook has put by in this evaluation.
    pub fn data(&self) -> &HookData {
        self.data
    }

    /// Room for what this hook wants to find again at a later stage of this evaluation: a start time, a span.
    pub fn data_mut(&mut self) -> &mut HookData {
        self.data
    }
}

/// A hook's own room in one evaluation: anything, by name.
#[derive(Default)]
pub struct HookData(BTreeMap<String, Box<dyn Any + Send>>);

impl HookData {
    /// Puts `value` by as `name`, in place of what was there.
    pub fn set(&mut self, name: impl Into<String>, value: impl Any + Send) {
        self.0.insert(name.into(), Box::new(value));
    }

    /// What is there as `name`, if it is a `T`.
    pub fn get<T: Any>(&self, name: &str) -> Option<&T> {
        self.0.get(name)?.downcast_ref()
    }

    /// The same, to be changed.
    pub fn get_mut<T: Any>(&mut self, name: &str) -> Option<&mut T> {
        self.0.get_mut(name)?.downcast_mut()
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl fmt::Debug for HookData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a caller tells all hooks of one evaluation. Immutable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HookHints(Option<Arc<BTreeMap<Arc<str>, Field>>>);

impl HookHints {
    /// Nothing.
    pub const EMPTY: Self = Self(None);

    /// The hint `name`.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.0.as_ref()?.get(name)
    }

    /// All hints, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.0.iter().flat_map(|hints| hints.iter().map(|(name, field)| (&**name, field)))
    }
}

impl<K: Into<Arc<str>>, V: Into<Field>> FromIterator<(K, V)> for HookHints {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(hints: I) -> Self {
        Self(Some(Arc::new(hints.into_iter().map(|(name, hint)| (name.into(), hint.into())).collect())))
    }
}

/// Takes part in evaluations: adds to the context, checks values, measures, logs.
///
/// *Shape*: shared; called on the thread that evaluates, for several evaluations at once. Only the stages that [`stages`](Self::stages) names
/// are called.
///
/// *Guarantees*
/// 1. `before` hooks run in the order API, client, invocation, provider, each in the order of adding; the other stages in exactly the reverse.
/// 2. An error or a panic in `before` or `after` ends that stage, the caller gets the default, and the `error` hooks run; in `error` or
///    `finally` it is dropped and the next hook runs.
/// 3. [`HookContext::data_mut`] is this hook's alone, new in each evaluation, and the same at all stages of one.
pub trait Hook: Send + Sync {
    /// The stages at which it is called; asked in each evaluation.
    fn stages(&self) -> Stages;

    /// Before resolution. A context that it returns is merged over what is known, for later hooks and for resolution.
    ///
    /// # Errors
    /// Anything: it ends the evaluation with `GENERAL`. An [`EvaluationError`] keeps its code.
    fn before(
        &self,
        _context: &mut HookContext<'_>,
        _hints: &HookHints,
    ) -> Result<Option<EvaluationContext>, BoxError> {
        Ok(None)
    }

    /// After a resolution that succeeded.
    ///
    /// # Errors
    /// As in [`before`](Self::before).
    fn after(
        &self,
        _context: &mut HookContext<'_>,
        _details: &Details<Value>,
        _hints: &HookHints,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    /// After a failure.
    ///
    /// # Errors
    /// Anything; it is dropped.
    fn error(
        &self,
        _context: &mut HookContext<'_>,
        _error: &EvaluationError,
        _hints: &HookHints,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    /// At the end, with what the caller will get.
    ///
    /// # Errors
    /// Anything; it is dropped.
    fn finally(
        &self,
        _context: &mut HookContext<'_>,
        _details: &Details<Value>,
        _hints: &HookHints,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}
