//! The client: evaluates flags in the name of a domain.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use flowline_core::error::BoxError;

use super::{
    ClientMetadata, Details, ErrorCode, EvaluationContext, EvaluationError, Hook, HookContext, HookData,
    HookHints, ProviderStatus, Stages, TrackingDetails,
    api::{Shared, State},
    binding::Slot,
    contained,
};
use crate::{
    model::ValueType,
    provider::{Provider, Resolution, Resolved},
    value::Value,
};

/// Evaluates flags. Cheap to clone; clones share hooks and context.
#[derive(Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    own: Arc<Own>,
}

struct Own {
    metadata: ClientMetadata,
    hooks: ArcSwap<Vec<Arc<dyn Hook>>>,
    context: ArcSwap<EvaluationContext>,
}

/// What a single evaluation may bring along beyond a context.
#[derive(Clone, Default)]
pub struct Options {
    context: EvaluationContext,
    hooks: Vec<Arc<dyn Hook>>,
    hints: HookHints,
}

impl Options {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a context.
    #[must_use]
    pub fn context(mut self, context: EvaluationContext) -> Self {
        self.context = context;
        self
    }

    /// The same with one more hook, for this evaluation only.
    #[must_use]
    pub fn hook(mut self, hook: Arc<dyn Hook>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// The same with hints for all hooks.
    #[must_use]
    pub fn hints(mut self, hints: HookHints) -> Self {
        self.hints = hints;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("context", &self.context)
            .field("hooks", &self.hooks.len())
            .field("hints", &self.hints)
            .finish()
    }
}

/// What comes with one evaluation: `()`, a context, or [`Options`].
#[derive(Debug, Clone, Copy)]
pub struct Invocation<'a> {
    context: &'a EvaluationContext,
    options: Option<&'a Options>,
}

impl From<()> for Invocation<'_> {
    fn from((): ()) -> Self {
        Self { context: const { &EvaluationContext::EMPTY }, options: None }
    }
}

impl<'a> From<&'a EvaluationContext> for Invocation<'a> {
    fn from(context: &'a EvaluationContext) -> Self {
        Self { context, options: None }
    }
}

impl<'a> From<&'a Options> for Invocation<'a> {
    fn from(options: &'a Options) -> Self {
        Self { context: &options.context, options: Some(options) }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for bool {}
    impl Sealed for String {}
    impl Sealed for i64 {}
    impl Sealed for f64 {}
    impl Sealed for crate::value::Value {}
}

/// The types that flags can be asked for with: `bool`, `String`, `i64`, `f64` and [`Value`] for structures.
pub trait FlagType: sealed::Sealed + Clone {
    /// Its name in OpenFeature.
    const KIND: ValueType;

    /// Asks `provider`, with `self` as the default.
    #[doc(hidden)]
    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self>;

    /// As a value.
    #[doc(hidden)]
    fn to_value(&self) -> Value;
}

impl FlagType for bool {
    const KIND: ValueType = ValueType::Boolean;

    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self> {
        provider.resolve_bool(key, *self, context)
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }
}

impl FlagType for String {
    const KIND: ValueType = ValueType::String;

    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self> {
        provider.resolve_text(key, self, context)
    }

    fn to_value(&self) -> Value {
        self.as_str().into()
    }
}

impl FlagType for i64 {
    const KIND: ValueType = ValueType::Integer;

    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self> {
        provider.resolve_integer(key, *self, context)
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }
}

impl FlagType for f64 {
    const KIND: ValueType = ValueType::Number;

    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self> {
        provider.resolve_float(key, *self, context)
    }

    fn to_value(&self) -> Value {
        (*self).into()
    }
}

impl FlagType for Value {
    const KIND: ValueType = ValueType::Object;

    fn resolve(&self, provider: &dyn Provider, key: &str, context: &EvaluationContext) -> Resolved<Self> {
        let resolution = provider.resolve_structure(key, self, context)?;
        // The one type that the language does not check. The caller's own default passes, whatever it is.
        if matches!(resolution.value, Self::Object(_) | Self::List(_)) || resolution.value == *self {
            return Ok(resolution);
        }
        let message = format!("flag `{key}` is a {}, not a structure", resolution.value.kind());
        Err(EvaluationError {
            metadata: resolution.metadata,
            ..EvaluationError::new(ErrorCode::TypeMismatch, message)
        })
    }

    fn to_value(&self) -> Value {
        self.clone()
    }
}

macro_rules! getters {
    ($($(#[$doc:meta])* $value:ident, $details:ident, $type:ty, $default:ty;)*) => {
        /// The getters by type. Each returns the default if anything goes wrong; the `_details` forms say what.
        ///
        /// The last argument is `()`, a `&EvaluationContext`, or `&Options`.
        impl Client {$(
            $(#[$doc])*
            pub fn $value<'a>(&self, key: &str, default: $default, with: impl Into<Invocation<'a>>) -> $type {
                self.value::<$type>(key, default.into(), with)
            }

            $(#[$doc])*
            ///
            /// With everything that is known of how it came about.
            pub fn $details<'a>(
                &self,
                key: &str,
                default: $default,
                with: impl Into<Invocation<'a>>,
            ) -> Details<$type> {
                self.details::<$type>(key, default.into(), with)
            }
        )*}
    };
}

getters! {
    /// The flag as a bool.
    boolean, boolean_details, bool, bool;
    /// The flag as a text.
    text, text_details, String, &str;
    /// The flag as a whole number.
    integer, integer_details, i64, i64;
    /// The flag as a number.
    float, float_details, f64, f64;
    /// The flag as a structure.
    structure, structure_details, Value, Value;
}

impl Client {
    pub(super) fn new(shared: Arc<Shared>, metadata: ClientMetadata) -> Self {
        let own = Own { metadata, hooks: ArcSwap::default(), context: ArcSwap::default() };
        Self { shared, own: Arc::new(own) }
    }

    /// Which client it is.
    pub fn metadata(&self) -> &ClientMetadata {
        &self.own.metadata
    }

    /// Adds hooks to this client's evaluations, after those that are there.
    pub fn add_hooks(&self, hooks: impl IntoIterator<Item = Arc<dyn Hook>>) {
        let added: Vec<_> = hooks.into_iter().collect();
        self.own.hooks.rcu(|hooks| hooks.iter().chain(&added).cloned().collect::<Vec<_>>());
    }

    /// Sets this client's context.
    pub fn set_context(&self, context: EvaluationContext) {
        self.own.context.store(Arc::new(context));
    }

    /// This client's context.
    pub fn context(&self) -> EvaluationContext {
        EvaluationContext::clone(&self.own.context.load())
    }

    /// The flag's value as a `T`; `default` if anything goes wrong.
    pub fn value<'a, T: FlagType>(&self, key: &str, default: T, with: impl Into<Invocation<'a>>) -> T {
        match self.evaluate(key, &default, with.into()) {
            Ok(resolution) => resolution.value,
            Err(_) => default,
        }
    }

    /// The flag's value as a `T`, and everything that is known of how it came about.
    pub fn details<'a, T: FlagType>(
        &self,
        key: &str,
        default: T,
        with: impl Into<Invocation<'a>>,
    ) -> Details<T> {
        let outcome = self.evaluate(key, &default, with.into());
        detailed(key, outcome, || default)
    }

    /// Tells the provider that something happened which experiments may want to count. Contexts merge as for an evaluation, without hooks.
    /// A provider that does not track ignores it.
    pub fn track<'a>(&self, name: &str, with: impl Into<Invocation<'a>>, details: &TrackingDetails) {
        let state = self.shared.state();
        let slot = state.slot(self.own.metadata.domain());
        let context = self.merged(&state, with.into());
        // There is nobody to tell if the provider panics.
        drop(contained(|| slot.provider.track(name, &context, details)));
    }

    fn evaluate<T: FlagType>(
        &self,
        key: &str,
        default: &T,
        with: Invocation<'_>,
    ) -> Result<Resolution<T>, EvaluationError> {
        let state = self.shared.state();
        let slot = state.slot(self.own.metadata.domain());
        let context = self.merged(&state, with);
        let own = self.own.hooks.load();
        let invocation = with.options.map_or(&[][..], |options| &options.hooks);
        if state.hooks.is_empty() && own.is_empty() && invocation.is_empty() && slot.hooks.is_empty() {
            return check(slot).and_then(|()| resolve(slot, key, default, &context));
        }
        let mut taking_part: Vec<TakingPart<'_>> = state
            .hooks
            .iter()
            .chain(own.iter())
            .chain(invocation)
            .chain(&slot.hooks)
            .map(|hook| TakingPart {
                hook: &**hook,
                stages: contained(|| hook.stages()).unwrap_or(Stages::FINALLY),
                data: HookData::default(),
            })
            .collect();
        let asked = Asked {
            key,
            kind: T::KIND,
            default: &default.to_value(),
            client: &self.own.metadata,
            provider: &slot.metadata,
            hints: with.options.map_or(const { &HookHints::EMPTY }, |options| &options.hints),
        };
        hooked(slot, default, context, &mut taking_part, &asked)
    }

    /// API, transaction, client, invocation: later ones over earlier ones.
    fn merged(&self, state: &State, with: Invocation<'_>) -> EvaluationContext {
        let mut merged = state.context.clone();
        if let Some(propagator) = &state.propagator
            && let Ok(Some(transaction)) = contained(|| propagator.current())
        {
            merged = merged.merged(&transaction);
        }
        merged.merged(&self.own.context.load()).merged(with.context)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("domain", &self.own.metadata.domain()).finish_non_exhaustive()
    }
}

/// Refuses a provider that must not be asked.
fn check(slot: &Slot) -> Result<(), EvaluationError> {
    let name = slot.metadata.name();
    match slot.status() {
        ProviderStatus::NotReady if !slot.placeholder => {
            let message = format!("provider `{name}` is not ready; await its start");
            Err(EvaluationError::new(ErrorCode::ProviderNotReady, message))
        }
        ProviderStatus::Fatal => {
            let why = slot.last().message.unwrap_or_default();
            let message = format!("provider `{name}` failed for good: {why}");
            Err(EvaluationError::new(ErrorCode::ProviderFatal, message))
        }
        _ => Ok(()),
    }
}

fn resolve<T: FlagType>(
    slot: &Slot,
    key: &str,
    default: &T,
    context: &EvaluationContext,
) -> Result<Resolution<T>, EvaluationError> {
    context.check()?;
    contained(|| default.resolve(&*slot.provider, key, context)).unwrap_or_else(|panic| {
        let message = format!("provider `{}` panicked: {panic}", slot.metadata.name());
        Err(EvaluationError::new(ErrorCode::General, message))
    })
}

fn detailed<T>(
    key: &str,
    outcome: Result<Resolution<T>, EvaluationError>,
    default: impl FnOnce() -> T,
) -> Details<T> {
    match outcome {
        Ok(Resolution { value, variant, reason, metadata }) => {
            Details { key: key.into(), value, variant, reason, error: None, metadata }
        }
        Err(error) => Details::failed(key.into(), default(), error),
    }
}

/// One hook in one evaluation.
struct TakingPart<'a> {
    hook: &'a dyn Hook,
    stages: Stages,
    data: HookData,
}

/// What hooks are told at every stage.
struct Asked<'a> {
    key: &'a str,
    kind: ValueType,
    default: &'a Value,
    client: &'a ClientMetadata,
    provider: &'a crate::provider::ProviderMetadata,
    hints: &'a HookHints,
}

impl Asked<'_> {
    /// Calls one hook at one stage.
    fn call<T>(
        &self,
        part: &mut TakingPart<'_>,
        context: &EvaluationContext,
        stage: &str,
        call: impl FnOnce(&dyn Hook, &mut HookContext<'_>) -> Result<T, BoxError>,
    ) -> Result<T, EvaluationError> {
        let TakingPart { hook, data, .. } = part;
        let Self { key, kind, default, client, provider, .. } = *self;
        let mut told = HookContext { key, kind, default, context, client, provider, data };
        let failed = |text: String| {
            EvaluationError::new(
                ErrorCode::General,
                format!("a hook failed {stage} `{key}` was resolved: {text}"),
            )
        };
        match contained(|| call(*hook, &mut told)) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => match error.downcast::<EvaluationError>() {
                Ok(error) => Err(*error),
                Err(error) => Err(failed(flowline_core::error::chain(&*error))),
            },
            Err(panic) => Err(failed(panic)),
        }
    }
}

/// An evaluation with hooks around it.
fn hooked<T: FlagType>(
    slot: &Slot,
    default: &T,
    mut context: EvaluationContext,
    parts: &mut [TakingPart<'_>],
    asked: &Asked<'_>,
) -> Result<Resolution<T>, EvaluationError> {
    let mut outcome = check(slot)
        .and_then(|()| before(&mut context, parts, asked))
        .and_then(|()| resolve(slot, asked.key, default, &context));
    if outcome.is_ok() && parts.iter().any(|part| part.stages.contains(Stages::AFTER)) {
        let details = described(asked.key, &outcome, default);
        let failed =
            parts.iter_mut().rev().filter(|part| part.stages.contains(Stages::AFTER)).find_map(|part| {
                asked
                    .call(part, &context, "after", |hook, told| hook.after(told, &details, asked.hints))
                    .err()
            });
        if let Some(error) = failed {
            outcome = Err(error);
        }
    }
    if let Err(error) = &outcome {
        for part in parts.iter_mut().rev().filter(|part| part.stages.contains(Stages::ERROR)) {
            let called =
                asked.call(part, &context, "after", |hook, told| hook.error(told, error, asked.hints));
            drop(called);
        }
    }
    if parts.iter().any(|part| part.stages.contains(Stages::FINALLY)) {
        let details = described(asked.key, &outcome, default);
        for part in parts.iter_mut().rev().filter(|part| part.stages.contains(Stages::FINALLY)) {
            let called =
                asked.call(part, &context, "after", |hook, told| hook.finally(told, &details, asked.hints));
            drop(called);
        }
    }
    outcome
}

fn before(
    context: &mut EvaluationContext,
    parts: &mut [TakingPart<'_>],
    asked: &Asked<'_>,
) -> Result<(), EvaluationError> {
    for part in parts.iter_mut().filter(|part| part.stages.contains(Stages::BEFORE)) {
        let more = asked.call(part, context, "before", |hook, told| hook.before(told, asked.hints))?;
        if let Some(more) = more {
            *context = context.merged(&more);
        }
    }
    Ok(())
}

/// What the caller will get, for hooks.
fn described<T: FlagType>(
    key: &str,
    outcome: &Result<Resolution<T>, EvaluationError>,
    default: &T,
) -> Details<Value> {
    detailed(key, outcome.clone(), || default.clone()).map(|value| value.to_value())
}
