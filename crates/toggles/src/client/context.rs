//! What is known about who asks, in OpenFeature's form: a targeting key and fields, merged from several levels.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use flowline_core::Timestamp;

use super::{ErrorCode, EvaluationError};
use crate::{context::Context, value::Value};

/// The name under which the targeting key takes part in merging and in documents.
pub const TARGETING_KEY: &str = "targetingKey";

/// One field of a context, or of hook hints and tracking details.
///
/// Cheap to clone. Datetimes reach the engine as RFC 3339 text in UTC, which all formats' time conditions read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Field {
    /// Explicitly nothing: hides a value of a lower level, and counts as missing for rules.
    Null,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// A text.
    Text(Arc<str>),
    /// A point in time.
    Datetime(Timestamp),
    /// A list.
    List(Arc<[Field]>),
    /// Named fields.
    Structure(Arc<BTreeMap<Arc<str>, Field>>),
}

impl Field {
    /// A structure of `fields`; of a name that stands twice the last counts.
    pub fn structure<K: Into<Arc<str>>, V: Into<Self>>(fields: impl IntoIterator<Item = (K, V)>) -> Self {
        Self::Structure(Arc::new(fields.into_iter().map(|(key, value)| (key.into(), value.into())).collect()))
    }

    /// A list of `values`.
    pub fn list<V: Into<Self>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::List(values.into_iter().map(Into::into).collect())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(yes) = self { Some(*yes) } else { None }
    }

    /// The number, if it is one, whole or not.
    #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is asked for")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            _ => None,
        }
    }

    /// The form in which rules see it.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Bool(yes) => (*yes).into(),
            Self::Integer(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Text(text) => Arc::clone(text).into(),
            Self::Datetime(time) => time.to_string().into(),
            Self::List(values) => Value::list(values.iter().map(Self::to_value)),
            Self::Structure(fields) => {
                Value::object(fields.iter().map(|(name, field)| (&**name, field.to_value())))
            }
        }
    }
}

impl From<&Value> for Field {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => {
                number.as_i64().map_or_else(|| Self::Float(number.as_f64()), Self::Integer)
            }
            Value::Text(text) => Self::Text(Arc::clone(text)),
            Value::List(values) => Self::list(values.iter().map(Self::from)),
            Value::Object(entries) => {
                Self::structure(entries.iter().map(|(name, value)| (&**name, Self::from(value))))
            }
        }
    }
}

macro_rules! field_from {
    ($($from:ty => |$value:ident| $field:expr;)*) => {$(
        impl From<$from> for Field {
            fn from($value: $from) -> Self {
                $field
            }
        }
    )*};
}
field_from! {
    bool => |value| Self::Bool(value);
    i64 => |value| Self::Integer(value);
    i32 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    f64 => |value| Self::Float(value);
    &str => |value| Self::Text(value.into());
    String => |value| Self::Text(value.into());
    Arc<str> => |value| Self::Text(value);
    Timestamp => |value| Self::Datetime(value);
}

/// The evaluation context: an optional targeting key and fields with unique names.
///
/// A value: cheap to clone, and never changed behind the back of whoever holds a clone. The engine's form of it is made at most once for
/// all clones, so a context that is kept for a request costs its conversion once. Merging with an empty context is a clone.
///
/// ```
/// use flowline_toggles::client::EvaluationContext;
/// let request = EvaluationContext::targeting("user-7").with("country", "NO");
/// let merged = EvaluationContext::new().with("country", "SE").with("region", "north").merged(&request);
/// assert_eq!(merged.targeting_key(), Some("user-7"));
/// assert_eq!(merged.get("country").and_then(|field| field.as_text()), Some("NO"));
/// assert_eq!(merged.fields().count(), 2);
/// ```
#[derive(Clone, Default)]
pub struct EvaluationContext(Option<Arc<Inner>>);

/// What a context says of its subject.
#[derive(Clone, Default, PartialEq)]
enum Subject {
    /// Nothing: a lower level counts.
    #[default]
    Unsaid,
    /// That there is none, whatever a lower level says.
    Nobody,
    Key(Arc<str>),
    /// Something that can be no targeting key.
    Mistyped(Field),
}

#[derive(Default)]
struct Inner {
    subject: Subject,
    fields: BTreeMap<Arc<str>, Field>,
    engine: OnceLock<Context>,
}

impl Clone for Inner {
    fn clone(&self) -> Self {
        Self { subject: self.subject.clone(), fields: self.fields.clone(), engine: OnceLock::new() }
    }
}

impl EvaluationContext {
    /// Nothing known.
    pub const EMPTY: Self = Self(None);

    /// Nothing known yet.
    pub const fn new() -> Self {
        Self::EMPTY
    }

    /// About the subject `key`.
    pub fn targeting(key: impl Into<Arc<str>>) -> Self {
        Self::EMPTY.with_targeting_key(key)
    }

    /// The same about the subject `key`.
    #[must_use]
    pub fn with_targeting_key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.change().subject = Subject::Key(key.into());
        self
    }

    /// The same with a field; a later value replaces an earlier one of the same name.
    ///
    /// The name [`targetingKey`](TARGETING_KEY) is the targeting key and never a field beside it, so that it can't stand for two things. A
    /// text sets it; [`Field::Null`] says that there is none, also over a lower level's. Anything else can be no targeting key
    /// (OpenFeature's is a text, and `7` would be hashed in another way by each format): clients refuse to evaluate with it, with the
    /// caller's default and `INVALID_CONTEXT`, until a higher level sets a text.
    #[must_use]
    pub fn with(mut self, name: impl Into<Arc<str>>, field: impl Into<Field>) -> Self {
        self.set(name.into(), field.into());
        self
    }

    fn set(&mut self, name: Arc<str>, field: Field) {
        let inner = self.change();
        if &*name != TARGETING_KEY {
            inner.fields.insert(name, field);
            return;
        }
        inner.subject = match field {
            Field::Text(key) => Subject::Key(key),
            Field::Null => Subject::Nobody,
            field => Subject::Mistyped(field),
        };
    }

    fn change(&mut self) -> &mut Inner {
        let inner = Arc::make_mut(self.0.get_or_insert_default());
        inner.engine = OnceLock::new();
        inner
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|inner| inner.subject == Subject::Unsaid && inner.fields.is_empty())
    }

    /// The subject.
    pub fn targeting_key(&self) -> Option<&str> {
        match &self.0.as_ref()?.subject {
            Subject::Key(key) => Some(key),
            _ => None,
        }
    }

    /// Refuses a targeting key that is no text.
    pub(crate) fn check(&self) -> Result<(), EvaluationError> {
        match self.0.as_ref().map(|inner| &inner.subject) {
            Some(Subject::Mistyped(field)) => {
                let kind = field.to_value().kind();
                let message = format!("the targeting key is a {kind}; give a text");
                Err(EvaluationError::new(ErrorCode::InvalidContext, message))
            }
            _ => Ok(()),
        }
    }

    /// The field `name`.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.0.as_ref()?.fields.get(name)
    }

    /// All fields, ordered by name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.0.iter().flat_map(|inner| inner.fields.iter().map(|(name, field)| (&**name, field)))
    }

    /// This context with `over` on top: what both have, `over` decides.
    #[must_use]
    pub fn merged(&self, over: &Self) -> Self {
        if self.is_empty() {
            return over.clone();
        }
        let Some(top) = over.0.as_ref().filter(|_| !over.is_empty()) else { return self.clone() };
        let mut merged = self.clone();
        let inner = merged.change();
        if top.subject != Subject::Unsaid {
            inner.subject = top.subject.clone();
        }
        inner.fields.extend(top.fields.iter().map(|(name, field)| (Arc::clone(name), field.clone())));
        merged
    }

    /// The engine's form, made once.
    pub fn engine(&self) -> &Context {
        static ANONYMOUS: OnceLock<Context> = OnceLock::new();
        match &self.0 {
            None => ANONYMOUS.get_or_init(Context::anonymous),
            Some(inner) => inner.engine.get_or_init(|| {
                let context = match &inner.subject {
                    Subject::Key(key) => Context::new(Arc::clone(key)),
                    _ => Context::anonymous(),
                };
                inner
                    .fields
                    .iter()
                    .fold(context, |context, (name, field)| context.with(name, field.to_value()))
            }),
        }
    }
}

impl PartialEq for EvaluationContext {
    fn eq(&self, other: &Self) -> bool {
        let subject =
            |context: &Self| context.0.as_ref().map(|inner| inner.subject.clone()).unwrap_or_default();
        subject(self) == subject(other) && self.fields().eq(other.fields())
    }
}

impl fmt::Debug for EvaluationContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.0.as_ref().and_then(|inner| match &inner.subject {
            Subject::Unsaid => None,
            Subject::Nobody => Some(Field::Null),
            Subject::Key(key) => Some(Field::Text(Arc::clone(key))),
            Subject::Mistyped(field) => Some(field.clone()),
        });
        f.debug_map().entries(subject.map(|subject| (TARGETING_KEY, subject))).entries(self.fields()).finish()
    }
}
