//! What an evaluation came to, in OpenFeature's form: value, variant, reason, error and metadata.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{model, value::Value};

/// The kinds of error that OpenFeature knows.
pub use crate::model::FaultCode as ErrorCode;

/// Why a flag came to its value: OpenFeature's words, or a provider's own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The flag has no rules.
    Static,
    /// No rule applied.
    Default,
    /// A rule applied.
    TargetingMatch,
    /// A hash decided.
    Split,
    /// It comes from a cache.
    Cached,
    /// The flag is switched off.
    Disabled,
    /// It is not known.
    Unknown,
    /// It comes from data that may be out of date.
    Stale,
    /// It could not be evaluated.
    Error,
    /// A provider's own word.
    Other(Arc<str>),
}

impl Reason {
    /// OpenFeature's text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Cached => "CACHED",
            Self::Disabled => "DISABLED",
            Self::Unknown => "UNKNOWN",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
            Self::Other(text) => text,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<model::Reason> for Reason {
    fn from(reason: model::Reason) -> Self {
        Self::from(reason.as_str())
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Self {
        match text {
            "STATIC" => Self::Static,
            "DEFAULT" => Self::Default,
            "TARGETING_MATCH" => Self::TargetingMatch,
            "SPLIT" => Self::Split,
            "CACHED" => Self::Cached,
            "DISABLED" => Self::Disabled,
            "UNKNOWN" => Self::Unknown,
            "STALE" => Self::Stale,
            "ERROR" => Self::Error,
            other => Self::Other(other.into()),
        }
    }
}

/// One value of flag metadata.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MetadataValue {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(Arc<str>),
}

impl From<bool> for MetadataValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for MetadataValue {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for MetadataValue {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for MetadataValue {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

/// What a provider says of a flag beyond its value. Immutable once made, cheap to clone, possibly empty.
#[derive(Clone, PartialEq, Default)]
pub struct FlagMetadata(Option<Arc<BTreeMap<String, MetadataValue>>>);

impl FlagMetadata {
    /// Nothing.
    pub const EMPTY: Self = Self(None);

    /// The texts, numbers and bools among `values`; other shapes can't be metadata and are left out.
    pub fn of_values<'a>(values: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Self {
        values
            .into_iter()
            .filter_map(|(name, value)| {
                let value = match value {
                    Value::Bool(yes) => MetadataValue::Bool(*yes),
                    Value::Number(number) => number
                        .as_i64()
                        .map_or_else(|| MetadataValue::Float(number.as_f64()), MetadataValue::Integer),
                    Value::Text(text) => MetadataValue::Text(Arc::clone(text)),
                    Value::Null | Value::List(_) | Value::Object(_) => return None,
                };
                Some((name, value))
            })
            .collect()
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&MetadataValue> {
        self.0.as_ref()?.get(name)
    }

    /// All entries, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.0.iter().flat_map(|entries| entries.iter().map(|(name, value)| (name.as_str(), value)))
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|entries| entries.is_empty())
    }
}

impl<K: Into<String>, V: Into<MetadataValue>> FromIterator<(K, V)> for FlagMetadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries: BTreeMap<_, _> =
            entries.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        Self((!entries.is_empty()).then(|| Arc::new(entries)))
    }
}

impl fmt::Debug for FlagMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Why a flag could not be evaluated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{code}{}", message_suffix(.message.as_deref()))]
pub struct EvaluationError {
    /// What kind of error it is.
    pub code: ErrorCode,
    /// What is wrong, for people.
    pub message: Option<Arc<str>>,
    /// What the provider says of the flag even so.
    pub metadata: FlagMetadata,
}

impl EvaluationError {
    /// An error without metadata.
    pub fn new(code: ErrorCode, message: impl Into<Arc<str>>) -> Self {
        Self { code, message: Some(message.into()), metadata: FlagMetadata::EMPTY }
    }
}

impl flowline_core::error::Kinded for EvaluationError {
    fn kind(&self) -> flowline_core::error::ErrorKind {
        use flowline_core::error::ErrorKind;
        match self.code {
            ErrorCode::ProviderNotReady => ErrorKind::Unavailable,
            ErrorCode::FlagNotFound => ErrorKind::NotFound,
            ErrorCode::ParseError
            | ErrorCode::TypeMismatch
            | ErrorCode::TargetingKeyMissing
            | ErrorCode::InvalidContext => ErrorKind::Invalid,
            ErrorCode::ProviderFatal => ErrorKind::Failed,
            _ => ErrorKind::Other,
        }
    }
}

fn message_suffix(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(": {message}"))
}

/// What an evaluation came to, for the caller. There is always a value: on an error it is the caller's default.
#[derive(Debug, Clone, PartialEq)]
pub struct Details<T> {
    /// The flag's key, as it was asked for.
    pub key: Arc<str>,
    /// The value.
    pub value: T,
    /// The variant, if the provider named one.
    pub variant: Option<Arc<str>>,
    /// Why, if the provider said so; [`Reason::Error`] with an error.
    pub reason: Option<Reason>,
    /// What went wrong: code and message.
    pub error: Option<EvaluationError>,
    /// What the provider says of the flag; empty if nothing.
    pub metadata: FlagMetadata,
}

impl<T> Details<T> {
    /// The default with an error.
    pub(crate) fn failed(key: Arc<str>, default: T, error: EvaluationError) -> Self {
        let metadata = error.metadata.clone();
        Self { key, value: default, variant: None, reason: Some(Reason::Error), error: Some(error), metadata }
    }

    /// The kind of error, if there was one.
    pub fn error_code(&self) -> Option<ErrorCode> {
        self.error.as_ref().map(|error| error.code)
    }

    /// What went wrong, for people.
    pub fn error_message(&self) -> Option<&str> {
        self.error.as_ref()?.message.as_deref()
    }

    /// The same with another value.
    pub(super) fn map<U>(self, map: impl FnOnce(T) -> U) -> Details<U> {
        let Self { key, value, variant, reason, error, metadata } = self;
        Details { key, value: map(value), variant, reason, error, metadata }
    }

    /// The value, or the error.
    ///
    /// # Errors
    /// What went wrong; the value was the default then.
    pub fn into_result(self) -> Result<T, EvaluationError> {
        self.error.map_or(Ok(self.value), Err)
    }
}
