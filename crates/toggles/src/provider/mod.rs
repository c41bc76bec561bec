//! Who knows the flags: [`Provider`], the seam between the client and a flag system.
//!
//! [`TogglesProvider`] serves flowline's own engine, [`Memory`] flags from the process; [`NoProvider`] stands in where nothing is bound.

mod memory;
mod toggles;

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;

use crate::{
    client::{Emitter, EvaluationContext, EvaluationError, FlagMetadata, Hook, Reason, TrackingDetails},
    value::Value,
};

pub(crate) use memory::structure;
pub use memory::{Memory, MemoryFlag};
pub use toggles::TogglesProvider;
pub(crate) use toggles::resolution;

/// What a provider resolved a flag to. Of a `Result<Resolution<T>, EvaluationError>`: a resolution never carries an error.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolution<T> {
    /// The value.
    pub value: T,
    /// The variant's name.
    pub variant: Option<Arc<str>>,
    /// Why.
    pub reason: Option<Reason>,
    /// What else is known of the flag.
    pub metadata: FlagMetadata,
}

impl<T> Resolution<T> {
    /// A bare value.
    pub fn new(value: T) -> Self {
        Self { value, variant: None, reason: None, metadata: FlagMetadata::EMPTY }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The same as the variant `name`.
    #[must_use]
    pub fn variant(mut self, name: impl Into<Arc<str>>) -> Self {
        self.variant = Some(name.into());
        self
    }

    /// The same with metadata.
    #[must_use]
    pub fn with_metadata(mut self, metadata: FlagMetadata) -> Self {
        self.metadata = metadata;
        self
    }
}

/// What identifies a provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProviderMetadata {
    name: Arc<str>,
}

impl ProviderMetadata {
    /// A provider called `name`.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Resolves flags (OpenFeature specification 0.9, section 2).
///
/// *Shape*: shared by all clients that are bound to it; called from many threads at once, on the application's hot path.
///
/// *Guarantees of the caller*
/// 1. [`LifeCycle::initialize`] is called once per binding period, before any resolver; resolvers are not called while the provider is
///    not ready or has failed for good.
/// 2. [`LifeCycle::shutdown`] is called once nothing is bound to the provider any more.
/// 3. A panic in any of these is caught (where panics unwind) and becomes a `GENERAL` error for that one evaluation.
///
/// *Assumptions on the implementer*
/// 1. Resolvers don't block: they answer from memory. What has to be fetched is fetched in the background.
/// 2. A flag that is there with another type is `TYPE_MISMATCH`; one that is not there is `FLAG_NOT_FOUND`. Whole numbers are fine as
///    floats; floats without a fraction are fine as integers.
/// 3. A disabled flag is the default with [`Reason::Disabled`], without error.
///
/// *Errors by meaning*: [`ErrorCode`](crate::client::ErrorCode). The suite is `testkit::provider`.
pub trait Provider: Debug + Send + Sync {
    /// What identifies it.
    fn metadata(&self) -> ProviderMetadata;

    /// Resolves a bool.
    ///
    /// # Errors
    /// As [above](Provider).
    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool>;

    /// Resolves a text.
    ///
    /// # Errors
    /// As [above](Provider).
    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String>;

    /// Resolves a whole number.
    ///
    /// # Errors
    /// As [above](Provider).
    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64>;

    /// Resolves a number.
    ///
    /// # Errors
    /// As [above](Provider).
    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64>;

    /// Resolves a structure: an object or a list.
    ///
    /// # Errors
    /// As [above](Provider).
    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value>;

    /// How it starts and stops; `None`: it is ready from registration on.
    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        None
    }

    /// Hooks that take part in every evaluation with this provider.
    fn hooks(&self) -> Vec<Arc<dyn Hook>> {
        Vec::new()
    }

    /// Records that something happened which experiments may want to count. Must not block. By default it is ignored.
    fn track(&self, _name: &str, _context: &EvaluationContext, _details: &TrackingDetails) {}
}

/// A resolver's answer.
pub type Resolved<T> = Result<Resolution<T>, EvaluationError>;

/// How a provider starts and stops.
///
/// *Assumptions on the implementer*
/// 1. Every change of status is emitted through [`Start::events`], `initialize`'s own included: `Ready` before it returns `Ok`, `Error`
///    (with [`ErrorCode::ProviderFatal`](crate::client::ErrorCode::ProviderFatal) if trying again is pointless) before it returns `Err`.
///    The client makes up for a missing one.
/// 2. `shutdown` may be called at any time, twice, and while `initialize` runs; it returns the provider to where it was before
///    `initialize`, and `initialize` may come again.
/// 3. `initialize` may be dropped at any point.
#[async_trait]
pub trait LifeCycle: Send + Sync {
    /// Gets ready.
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError>;

    /// Stops, quickly: open work is cancelled or left to finish in the background.
    fn shutdown(&self);

    /// Whether its start goes on when nobody awaits it, because something else drives it. Dropping what binding returns is no error then:
    /// the provider is not ready until it says that it is. By default the future is the start.
    fn goes_on_unawaited(&self) -> bool {
        false
    }

    /// Whether it keeps state by domain and so may be bound to one only.
    fn domain_scoped(&self) -> bool {
        false
    }
}

/// What a provider is given when it starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// The API's context.
    pub context: EvaluationContext,
    /// The domain that it was bound to first; `None`: as the default provider.
    pub domain: Option<Arc<str>>,
    /// Where it tells what happens to it.
    pub events: Emitter,
}

/// Stands in where nothing is bound: every flag is its default.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProvider;

impl Provider for NoProvider {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new("No-op Provider")
    }

    fn resolve_bool(&self, _key: &str, default: bool, _context: &EvaluationContext) -> Resolved<bool> {
        Ok(Resolution::new(default).because(Reason::Default))
    }

    fn resolve_text(&self, _key: &str, default: &str, _context: &EvaluationContext) -> Resolved<String> {
        Ok(Resolution::new(default.to_owned()).because(Reason::Default))
    }

    fn resolve_integer(&self, _key: &str, default: i64, _context: &EvaluationContext) -> Resolved<i64> {
        Ok(Resolution::new(default).because(Reason::Default))
    }

    fn resolve_float(&self, _key: &str, default: f64, _context: &EvaluationContext) -> Resolved<f64> {
        Ok(Resolution::new(default).because(Reason::Default))
    }

    fn resolve_structure(
        &self,
        _key: &str,
        default: &Value,
        _context: &EvaluationContext,
    ) -> Resolved<Value> {
        Ok(Resolution::new(default.clone()).because(Reason::Default))
    }
}
