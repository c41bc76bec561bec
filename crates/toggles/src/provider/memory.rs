//! Flags in the process: for tests, and for programs that decide their flags in code.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::{Provider, ProviderMetadata, Resolution, Resolved};
use crate::{
    client::{ErrorCode, EvaluationContext, EvaluationError, FlagMetadata, Reason},
    value::Value,
};

type Target = Arc<dyn Fn(&EvaluationContext) -> Option<String> + Send + Sync>;

/// A flag of [`Memory`]: named values, one of which is the default, and perhaps a function that chooses by context.
#[derive(Clone, Default)]
pub struct MemoryFlag {
    variants: BTreeMap<String, Value>,
    default: Option<String>,
    disabled: bool,
    metadata: FlagMetadata,
    target: Option<Target>,
}

impl MemoryFlag {
    /// A flag without variants.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a variant.
    #[must_use]
    pub fn variant(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.variants.insert(name.into(), value.into());
        self
    }

    /// The same with `name` as the default variant.
    #[must_use]
    pub fn default_variant(mut self, name: impl Into<String>) -> Self {
        self.default = Some(name.into());
        self
    }

    /// The same, switched off.
    #[must_use]
    pub fn disabled(mut self) -> Self {
        self.disabled = true;
        self
    }

    /// The same with metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: FlagMetadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same, targeted: `choose` names a variant, or nothing for the default one.
    #[must_use]
    pub fn targeted(
        mut self,
        choose: impl Fn(&EvaluationContext) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.target = Some(Arc::new(choose));
        self
    }
}

impl fmt::Debug for MemoryFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFlag")
            .field("variants", &self.variants)
            .field("default", &self.default)
            .field("disabled", &self.disabled)
            .field("targeted", &self.target.is_some())
            .finish_non_exhaustive()
    }
}

/// Serves flags from the process. Ready from registration on.
///
/// ```
/// use flowline_toggles::{client::isolated, provider::{Memory, MemoryFlag}};
/// let api = isolated::api();
/// let flag = MemoryFlag::new().variant("on", true).variant("off", false).default_variant("on");
/// api.set_provider(std::sync::Arc::new(Memory::new().flag("checkout", flag)))?;
/// assert!(api.client().boolean("checkout", false, ()));
/// # Ok::<(), flowline_toggles::client::BindError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Memory {
    flags: BTreeMap<String, MemoryFlag>,
}

impl Memory {
    /// No flags.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a flag.
    #[must_use]
    pub fn flag(mut self, key: impl Into<String>, flag: MemoryFlag) -> Self {
        self.flags.insert(key.into(), flag);
        self
    }

    fn resolve<T>(
        &self,
        key: &str,
        default: impl FnOnce() -> T,
        context: &EvaluationContext,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Resolved<T> {
        let flag = self.flags.get(key).ok_or_else(|| {
            EvaluationError::new(ErrorCode::FlagNotFound, format!("there is no flag `{key}`"))
        })?;
        let fail = |code, message: String| {
            Err(EvaluationError { metadata: flag.metadata.clone(), ..EvaluationError::new(code, message) })
        };
        if flag.disabled {
            let metadata = flag.metadata.clone();
            return Ok(Resolution::new(default()).because(Reason::Disabled).with_metadata(metadata));
        }
        let chosen = flag.target.as_ref().map(|choose| choose(context).filter(|name| !name.is_empty()));
        let (name, reason) = match chosen {
            Some(Some(name)) => (Some(name), Reason::TargetingMatch),
            Some(None) => (flag.default.clone(), Reason::Default),
            None => (flag.default.clone(), Reason::Static),
        };
        let Some(name) = name else {
            let metadata = flag.metadata.clone();
            return Ok(Resolution::new(default()).because(Reason::Default).with_metadata(metadata));
        };
        let Some(value) = flag.variants.get(&name) else {
            return fail(ErrorCode::General, format!("flag `{key}` has no variant `{name}`"));
        };
        let Some(read) = read(value) else {
            return fail(ErrorCode::TypeMismatch, format!("flag `{key}` is a {}", value.kind()));
        };
        Ok(Resolution::new(read).because(reason).variant(name).with_metadata(flag.metadata.clone()))
    }
}

impl Provider for Memory {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new("memory")
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.resolve(key, || default, context, Value::as_bool)
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.resolve(key, || default.to_owned(), context, |value| value.as_str().map(str::to_owned))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.resolve(key, || default, context, Value::as_i64)
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.resolve(key, || default, context, Value::as_f64)
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.resolve(key, || default.clone(), context, |value| structure(value).cloned())
    }
}

/// The value if it is a structure: an object or a list.
pub(crate) fn structure(value: &Value) -> Option<&Value> {
    matches!(value, Value::Object(_) | Value::List(_)).then_some(value)
}
