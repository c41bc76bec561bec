//! flowline's engine as a provider of the crate `open-feature` (feature `openfeature`), for programs that use that SDK.
//!
//! [`client`](crate::client) is flowline's own surface of the same specification, and closer to it. What differs here, because of that
//! crate's version 0.3:
//!
//! - its resolvers are not given the caller's default, so "the caller's default, without an error" (a flag that is switched off, or has no
//!   value for this context) is an error whose code is `General` with the reason as its text (`DISABLED`, `DEFAULT` …); callers of
//!   `unwrap_or` get their default by it;
//! - it has no code `PROVIDER_FATAL`: that is `General("PROVIDER_FATAL")`;
//! - it has no events and no reason `STALE`: the reason is `Other("STALE")`;
//! - its structures are typed by the program: of those, `open_feature::StructValue`, `serde_json::Value` and flowline's
//!   [`Value`] reach the rules; others are left out.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use flowline_core::Timestamp;
use open_feature::{
    EvaluationContext as TheirContext, EvaluationContextFieldValue, EvaluationError as TheirError,
    EvaluationErrorCode, EvaluationReason, EvaluationResult, FlagMetadata as TheirMetadata,
    FlagMetadataValue, StructValue, Value as TheirValue,
    provider::{FeatureProvider, ProviderMetadata, ProviderStatus, ResolutionDetails},
};

use crate::{
    Toggles,
    client::{
        Client, ErrorCode, EvaluationContext, EvaluationError, Field, MetadataValue,
        ProviderStatus as OurStatus, Reason, isolated,
    },
    provider::{LifeCycle, Provider, Resolution, Resolved, TogglesProvider},
    value::Value,
};

/// Serves the flags of a [`Toggles`] handle to the crate `open-feature`.
///
/// ```
/// use flowline_toggles::{Ruleset, Toggles, model::{Flag, FlagSet, Outcome}, openfeature::OpenFeatureProvider};
/// use open_feature::{EvaluationContext, provider::FeatureProvider};
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut flag = Flag::boolean("checkout");
/// flag.fallback = Outcome::Variant(flag.on_index());
/// let toggles = Toggles::new(Ruleset::compile(FlagSet { flags: vec![flag], ..FlagSet::new("example") }));
/// let provider = OpenFeatureProvider::new(toggles);
/// let context = EvaluationContext::default().with_targeting_key("ada");
/// assert!(provider.resolve_bool_value("checkout", &context).await.unwrap().value);
/// # }
/// ```
pub struct OpenFeatureProvider {
    provider: Arc<dyn Provider>,
    metadata: ProviderMetadata,
    /// A client of an API of its own, which runs the provider's life cycle and goes with it.
    bound: Option<Client>,
}

impl OpenFeatureProvider {
    /// Serves `toggles`.
    pub fn new(toggles: Toggles) -> Self {
        Self::over(Arc::new(TogglesProvider::new(toggles)))
    }

    /// Serves what another [`Provider`] resolves, such as that of a [`Feed`](crate::source::Feed).
    ///
    /// It is started when that crate initializes this one, with its global context, and shut down when this one is dropped, which is how
    /// that crate shuts providers down. Its status is this one's (fatal is `Error`); while it is not ready or fatal it is not asked. A
    /// start that [goes on by itself](crate::provider::LifeCycle::goes_on_unawaited), as a feed's does, is not waited for: that crate can't
    /// bind without waiting. A provider that one of our own APIs has bound is started and stopped by that one.
    pub fn over(provider: Arc<dyn Provider>) -> Self {
        let metadata = ProviderMetadata::new(provider.metadata().name());
        Self { provider, metadata, bound: None }
    }

    /// Refuses what our own client would.
    fn check(&self) -> EvaluationResult<()> {
        let refused = |code: ErrorCode| {
            let message = format!("provider `{}` is not fit to be asked", self.metadata.name);
            Err(error(EvaluationError::new(code, message)))
        };
        match self.bound.as_ref().map(Client::provider_status) {
            Some(OurStatus::NotReady) => refused(ErrorCode::ProviderNotReady),
            Some(OurStatus::Fatal) => refused(ErrorCode::ProviderFatal),
            _ => Ok(()),
        }
    }

    /// `apart` are two defaults: what comes out as whichever of them was put in is no value of the flag's.
    fn resolve<T: PartialEq, U>(
        &self,
        key: &str,
        context: &TheirContext,
        apart: &[T; 2],
        ask: impl Fn(&dyn Provider, &T, &EvaluationContext) -> Resolved<T>,
        convert: impl FnOnce(T) -> Option<U>,
    ) -> EvaluationResult<ResolutionDetails<U>> {
        self.check()?;
        let (context, [one, other]) = (context_from(context), apart);
        context.check().map_err(error)?;
        let Resolution { value, variant, reason, metadata } =
            ask(&*self.provider, one, &context).map_err(error)?;
        let made_up = variant.is_none()
            && value == *one
            && ask(&*self.provider, other, &context).is_ok_and(|again| again.value == *other);
        if made_up {
            let reason = reason.as_ref().map_or("DEFAULT", Reason::as_str);
            let message = format!("flag `{key}` has no value here; use your default");
            return Err(their_error(EvaluationErrorCode::General(reason.to_owned()), message));
        }
        let Some(value) = convert(value) else {
            return Err(their_error(
                EvaluationErrorCode::TypeMismatch,
                format!("flag `{key}` has another type"),
            ));
        };
        let mut details = ResolutionDetails::new(value);
        details.variant = variant.map(|variant| variant.to_string());
        details.reason = reason.map(their_reason);
        details.flag_metadata = (!metadata.is_empty()).then(|| {
            metadata.iter().fold(TheirMetadata::default(), |all, (name, value)| {
                all.with_value(
                    name,
                    match value {
                        MetadataValue::Bool(yes) => FlagMetadataValue::Bool(*yes),
                        MetadataValue::Integer(number) => FlagMetadataValue::Int(*number),
                        MetadataValue::Float(number) => FlagMetadataValue::Float(*number),
                        MetadataValue::Text(text) => FlagMetadataValue::String(text.to_string()),
                    },
                )
            })
        });
        Ok(details)
    }
}

impl fmt::Debug for OpenFeatureProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OpenFeatureProvider").field(&self.provider).finish()
    }
}

#[async_trait]
impl FeatureProvider for OpenFeatureProvider {
    async fn initialize(&mut self, context: &TheirContext) {
        let api = isolated::api();
        api.set_context(context_from(context));
        // Bound elsewhere already: who did that runs it.
        let Ok(starting) = api.set_provider(Arc::clone(&self.provider)) else { return };
        self.bound = Some(api.client());
        if !self.provider.life_cycle().is_some_and(LifeCycle::goes_on_unawaited) {
            // How it ended is in its status.
            let _ended = starting.await;
        }
    }

    fn status(&self) -> ProviderStatus {
        match self.bound.as_ref().map(Client::provider_status) {
            Some(OurStatus::NotReady) => ProviderStatus::NotReady,
            Some(OurStatus::Stale) => ProviderStatus::STALE,
            Some(OurStatus::Error | OurStatus::Fatal) => ProviderStatus::Error,
            Some(OurStatus::Ready) | None => ProviderStatus::Ready,
        }
    }

    fn metadata(&self) -> &ProviderMetadata {
        &self.metadata
    }

    async fn resolve_bool_value(
        &self,
        key: &str,
        context: &TheirContext,
    ) -> EvaluationResult<ResolutionDetails<bool>> {
        let ask = |provider: &dyn Provider, default: &bool, context: &EvaluationContext| {
            provider.resolve_bool(key, *default, context)
        };
        self.resolve(key, context, &[false, true], ask, Some)
    }

    async fn resolve_int_value(
        &self,
        key: &str,
        context: &TheirContext,
    ) -> EvaluationResult<ResolutionDetails<i64>> {
        let ask = |provider: &dyn Provider, default: &i64, context: &EvaluationContext| {
            provider.resolve_integer(key, *default, context)
        };
        self.resolve(key, context, &[0, 1], ask, Some)
    }

    async fn resolve_float_value(
        &self,
        key: &str,
        context: &TheirContext,
    ) -> EvaluationResult<ResolutionDetails<f64>> {
        let ask = |provider: &dyn Provider, default: &f64, context: &EvaluationContext| {
            provider.resolve_float(key, *default, context)
        };
        self.resolve(key, context, &[0.0, 1.0], ask, Some)
    }

    async fn resolve_string_value(
        &self,
        key: &str,
        context: &TheirContext,
    ) -> EvaluationResult<ResolutionDetails<String>> {
        let ask = |provider: &dyn Provider, default: &String, context: &EvaluationContext| {
            provider.resolve_text(key, default, context)
        };
        self.resolve(key, context, &[String::new(), "-".to_owned()], ask, Some)
    }

    async fn resolve_struct_value(
        &self,
        key: &str,
        context: &TheirContext,
    ) -> EvaluationResult<ResolutionDetails<StructValue>> {
        let ask = |provider: &dyn Provider, default: &Value, context: &EvaluationContext| {
            provider.resolve_structure(key, default, context)
        };
        // Their structure is an object; a list is none.
        self.resolve(key, context, &[Value::Null, Value::from(false)], ask, |value| {
            match their_value(&value)? {
                TheirValue::Struct(structure) => Some(structure),
                _ => None,
            }
        })
    }
}

fn their_error(code: EvaluationErrorCode, message: String) -> TheirError {
    TheirError { code, message: Some(message) }
}

fn error(error: EvaluationError) -> TheirError {
    let code = match error.code {
        ErrorCode::ProviderNotReady => EvaluationErrorCode::ProviderNotReady,
        ErrorCode::FlagNotFound => EvaluationErrorCode::FlagNotFound,
        ErrorCode::ParseError => EvaluationErrorCode::ParseError,
        ErrorCode::TypeMismatch => EvaluationErrorCode::TypeMismatch,
        ErrorCode::TargetingKeyMissing => EvaluationErrorCode::TargetingKeyMissing,
        ErrorCode::InvalidContext => EvaluationErrorCode::InvalidContext,
        other => EvaluationErrorCode::General(other.as_str().to_owned()),
    };
    TheirError { code, message: error.message.map(|message| message.to_string()) }
}

fn their_reason(reason: Reason) -> EvaluationReason {
    match reason {
        Reason::Static => EvaluationReason::Static,
        Reason::Default => EvaluationReason::Default,
        Reason::TargetingMatch => EvaluationReason::TargetingMatch,
        Reason::Split => EvaluationReason::Split,
        Reason::Cached => EvaluationReason::Cached,
        Reason::Disabled => EvaluationReason::Disabled,
        Reason::Unknown => EvaluationReason::Unknown,
        Reason::Error => EvaluationReason::Error,
        other => EvaluationReason::Other(other.as_str().to_owned()),
    }
}

fn context_from(theirs: &TheirContext) -> EvaluationContext {
    let context =
        theirs.targeting_key.as_deref().map_or(EvaluationContext::EMPTY, EvaluationContext::targeting);
    theirs.custom_fields.iter().fold(context, |context, (name, field)| match field_from(field) {
        Some(field) => context.with(name.as_str(), field),
        None => context,
    })
}

fn field_from(field: &EvaluationContextFieldValue) -> Option<Field> {
    Some(match field {
        EvaluationContextFieldValue::Bool(yes) => (*yes).into(),
        EvaluationContextFieldValue::Int(number) => (*number).into(),
        EvaluationContextFieldValue::Float(number) => (*number).into(),
        EvaluationContextFieldValue::String(text) => text.as_str().into(),
        EvaluationContextFieldValue::DateTime(time) => {
            Timestamp::from_nanosecond(time.unix_timestamp_nanos()).ok()?.into()
        }
        EvaluationContextFieldValue::Struct(any) => {
            if let Some(value) = any.downcast_ref::<Value>() {
                Field::from(value)
            } else if let Some(value) = any.downcast_ref::<serde_json::Value>() {
                Field::from(&Value::from(value))
            } else {
                Field::from(&our_value(&TheirValue::Struct(any.downcast_ref::<StructValue>()?.clone())))
            }
        }
    })
}

fn our_value(theirs: &TheirValue) -> Value {
    match theirs {
        TheirValue::Bool(yes) => (*yes).into(),
        TheirValue::Int(number) => (*number).into(),
        TheirValue::Float(number) => (*number).into(),
        TheirValue::String(text) => text.as_str().into(),
        TheirValue::Array(values) => Value::list(values.iter().map(our_value)),
        TheirValue::Struct(structure) => {
            // Their fields have no order; ours get that of their names.
            let mut fields: Vec<_> = structure.fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            Value::object(fields.into_iter().map(|(name, value)| (name.as_str(), our_value(value))))
        }
    }
}

/// `None` for null, which their values don't have; as a field or an element it is left out.
fn their_value(ours: &Value) -> Option<TheirValue> {
    Some(match ours {
        Value::Null => return None,
        Value::Bool(yes) => TheirValue::Bool(*yes),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| TheirValue::Float(number.as_f64()), TheirValue::Int)
        }
        Value::Text(text) => TheirValue::String(text.to_string()),
        Value::List(values) => TheirValue::Array(values.iter().filter_map(their_value).collect()),
        Value::Object(entries) => {
            let mut structure = StructValue::default();
            for (name, value) in entries.iter() {
                if let Some(value) = their_value(value) {
                    structure.add_field(name.to_string(), value);
                }
            }
            TheirValue::Struct(structure)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Ruleset,
        model::{Facts, Flag, FlagSet, Outcome, Switch, ValueType, Variant},
    };

    fn provider() -> OpenFeatureProvider {
        let mut on = Flag::boolean("on");
        on.fallback = Outcome::Variant(on.on_index());
        on.facts = Some(Arc::new(Facts {
            metadata: [("team".to_owned(), Value::from("shop"))].into(),
            ..Facts::default()
        }));
        let mut off = Flag::boolean("off");
        (off.switch, off.off) = (Switch::Off, Outcome::Caller);
        let value = Value::object([
            ("size", Value::from(3)),
            ("none", Value::Null),
            ("list", Value::list([1.into()])),
        ]);
        let mut structure = Flag::new("structure", ValueType::Object, [Variant::new("only", value)]);
        structure.fallback = Outcome::Variant(0);
        // A format without names for variants: a value all the same.
        let mut nameless = Flag::new("nameless", ValueType::Boolean, [Variant::new("", false)]);
        (nameless.fallback, nameless.fallback_reason) =
            (Outcome::Variant(0), Some(crate::model::Reason::Default));
        let flags = vec![on, off, nameless, structure];
        OpenFeatureProvider::new(Toggles::new(Ruleset::compile(FlagSet { flags, ..FlagSet::new("test") })))
    }

    #[tokio::test]
    async fn values_reasons_and_errors_are_that_crates() {
        let (provider, nobody) = (provider(), TheirContext::default());
        assert_eq!(provider.metadata().name, "flowline");
        let on = provider.resolve_bool_value("on", &nobody).await.unwrap();
        assert_eq!(
            (on.value, on.variant.as_deref(), on.reason),
            (true, Some("on"), Some(EvaluationReason::Static))
        );
        assert_eq!(on.flag_metadata, Some(TheirMetadata::default().with_value("team", "shop")));
        let structure = provider.resolve_struct_value("structure", &nobody).await.unwrap().value;
        assert_eq!(structure.fields.len(), 2, "null is left out");
        let code = async |key: &str| provider.resolve_string_value(key, &nobody).await.unwrap_err().code;
        assert_eq!(code("on").await, EvaluationErrorCode::TypeMismatch);
        assert_eq!(code("missing").await, EvaluationErrorCode::FlagNotFound);
        let off = provider.resolve_bool_value("off", &nobody).await.unwrap_err();
        assert_eq!(off.code, EvaluationErrorCode::General("DISABLED".to_owned()));
        let nameless = provider.resolve_bool_value("nameless", &nobody).await.unwrap();
        assert_eq!((nameless.value, nameless.reason), (false, Some(EvaluationReason::Default)));
        let error = provider.resolve_struct_value("on", &nobody).await.unwrap_err();
        assert_eq!(error.code, EvaluationErrorCode::TypeMismatch);
    }

    #[tokio::test]
    async fn through_their_client_the_callers_default_is_one_unwrap_away() {
        let mut api = open_feature::OpenFeature::default();
        api.set_provider(provider()).await;
        let client = api.create_client();
        assert!(client.get_bool_value("on", None, None).await.unwrap_or(false));
        assert!(client.get_bool_value("off", None, None).await.unwrap_or(true));
    }

    #[tokio::test]
    async fn what_it_is_over_is_started_and_stopped_and_has_its_status() {
        use crate::client::{Event, EventDetails};
        let inner = Arc::new(TogglesProvider::waiting(Toggles::default()));
        let mut over = OpenFeatureProvider::over(Arc::clone(&inner) as Arc<dyn Provider>);
        let nobody = TheirContext::default();
        over.initialize(&nobody).await;
        let code =
            async |over: &OpenFeatureProvider| over.resolve_bool_value("x", &nobody).await.unwrap_err().code;
        assert_eq!(over.status(), ProviderStatus::NotReady);
        assert_eq!(code(&over).await, EvaluationErrorCode::ProviderNotReady);
        for (event, details, status, expected) in [
            (Event::Ready, EventDetails::new(), ProviderStatus::Ready, EvaluationErrorCode::FlagNotFound),
            (Event::Stale, EventDetails::new(), ProviderStatus::STALE, EvaluationErrorCode::FlagNotFound),
            (
                Event::Error,
                EventDetails::error(ErrorCode::ProviderFatal, "no"),
                ProviderStatus::Error,
                EvaluationErrorCode::General("PROVIDER_FATAL".to_owned()),
            ),
        ] {
            inner.notify(event, details);
            assert_eq!(over.status(), status);
            assert_eq!(code(&over).await, expected);
        }

        // One that has to be waited for is; dropping stops it, so that it may be bound elsewhere.
        let memory = Arc::new(Started::default());
        let mut api = open_feature::OpenFeature::default();
        api.set_provider(OpenFeatureProvider::over(Arc::clone(&memory) as Arc<dyn Provider>)).await;
        assert_eq!(*memory.0.lock().unwrap(), ["started"]);
        assert!(isolated::api().set_provider(Arc::clone(&memory) as Arc<dyn Provider>).is_err());
        api.shutdown().await;
        assert_eq!(*memory.0.lock().unwrap(), ["started", "stopped"]);
    }

    /// A provider without flags whose start takes a moment.
    #[derive(Debug, Default)]
    struct Started(std::sync::Mutex<Vec<&'static str>>);

    impl Provider for Started {
        fn metadata(&self) -> crate::provider::ProviderMetadata {
            crate::provider::ProviderMetadata::new("started")
        }

        fn resolve_bool(&self, _: &str, default: bool, _: &EvaluationContext) -> Resolved<bool> {
            Ok(Resolution::new(default))
        }

        fn resolve_text(&self, _: &str, default: &str, _: &EvaluationContext) -> Resolved<String> {
            Ok(Resolution::new(default.to_owned()))
        }

        fn resolve_integer(&self, _: &str, default: i64, _: &EvaluationContext) -> Resolved<i64> {
            Ok(Resolution::new(default))
        }

        fn resolve_float(&self, _: &str, default: f64, _: &EvaluationContext) -> Resolved<f64> {
            Ok(Resolution::new(default))
        }

        fn resolve_structure(&self, _: &str, default: &Value, _: &EvaluationContext) -> Resolved<Value> {
            Ok(Resolution::new(default.clone()))
        }

        fn life_cycle(&self) -> Option<&dyn LifeCycle> {
            Some(self)
        }
    }

    #[async_trait]
    impl LifeCycle for Started {
        async fn initialize(&self, _: crate::provider::Start) -> Result<(), EvaluationError> {
            tokio::task::yield_now().await;
            self.0.lock().unwrap().push("started");
            Ok(())
        }

        fn shutdown(&self) {
            self.0.lock().unwrap().push("stopped");
        }
    }

    #[test]
    fn contexts_come_over_whole() {
        let structure = StructValue::default().with_field("deep", 1);
        let theirs = TheirContext::default()
            .with_targeting_key("ada")
            .with_custom_field("bool", true)
            .with_custom_field("number", 0.5)
            .with_custom_field("text", "x")
            .with_custom_field("structure", EvaluationContextFieldValue::new_struct(structure))
            .with_custom_field("json", EvaluationContextFieldValue::new_struct(serde_json::json!({"a": [1]})))
            .with_custom_field("unknown", EvaluationContextFieldValue::new_struct(7_u8));
        assert_eq!(
            format!("{:?}", context_from(&theirs)),
            r#"{"targetingKey": Text("ada"), "bool": Bool(true), "json": Structure({"a": List([Integer(1)])}), "number": Float(0.5), "structure": Structure({"deep": Integer(1)}), "text": Text("x")}"#
        );
    }
}
