//! What an attribute or a variant holds: [`Value`], JSON's shapes with the order of keys kept and whole numbers exact.

mod number;
mod serial;
mod word;

use std::{fmt, sync::Arc};

use indexmap::IndexMap;

pub use number::Number;
pub use word::{Name, Word};

/// An object's entries, in the order in which the document has them. Of a key that stands twice the last value counts.
pub type Entries = IndexMap<Box<str>, Value>;

/// JSON's shapes. Cloning is cheap: texts, lists and objects are shared.
///
/// Equality is by meaning: `1` equals `1.0`, and the order of an object's keys does not count. (GrowthBook's equality, in which it
/// does, is that format's own.)
///
/// ```
/// use flowline_toggles::value::Value;
/// let value: Value = serde_json::from_str(r#"{"b": [1, "x"], "a": null}"#)?;
/// assert_eq!(value.get("b").and_then(|b| b.as_list()).map(<[_]>::len), Some(2));
/// assert_eq!(serde_json::to_string(&value)?, r#"{"b":[1,"x"],"a":null}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub enum Value {
    /// Nothing there.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(Arc<str>),
    /// A list.
    List(Arc<[Value]>),
    /// An object.
    Object(Arc<Entries>),
}

impl Value {
    /// Whether there is nothing.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The bool, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(yes) = self { Some(*yes) } else { None }
    }

    /// The number as a float, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(number.as_f64()) } else { None }
    }

    /// The number as a whole one, if it is one exactly.
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Number(number) = self { number.as_i64() } else { None }
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The elements, if it is a list.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The entries, if it is an object.
    pub fn as_object(&self) -> Option<&Entries> {
        if let Self::Object(entries) = self { Some(entries) } else { None }
    }

    /// The entry under `key`, if it is an object that has one.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get(key)
    }

    /// What kind of value it is, in one word: for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::List(_) => "list",
            Self::Object(_) => "object",
        }
    }

    /// The text form in which scalars take part in hashes and text comparisons: a text as it is, whole numbers without a decimal point,
    /// `true` and `false`; lists, objects and null have none.
    pub fn scalar_text(&self) -> Option<std::borrow::Cow<'_, str>> {
        use std::borrow::Cow;
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Bool(true) => Some(Cow::Borrowed("true")),
            Self::Bool(false) => Some(Cow::Borrowed("false")),
            Self::Number(number) => Some(Cow::Owned(number.to_string())),
            Self::Null | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// A list.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Self::List(values.into_iter().collect())
    }

    /// An object.
    pub fn object<K: Into<Box<str>>>(entries: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Object(Arc::new(entries.into_iter().map(|(key, value)| (key.into(), value)).collect()))
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As JSON.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Bool(yes)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number.into())
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Number(i64::from(number).into())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number).into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Self::list(values.into_iter().map(Into::into))
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}

impl From<&serde_json::Value> for Value {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match value {
            Json::Null => Self::Null,
            Json::Bool(yes) => Self::Bool(*yes),
            Json::Number(number) => Self::Number(Number::from_json(number)),
            Json::String(text) => Self::from(text.as_str()),
            Json::Array(values) => Self::list(values.iter().map(Self::from)),
            Json::Object(entries) => {
                Self::object(entries.iter().map(|(key, value)| (key.as_str(), Self::from(value))))
            }
        }
    }
}

impl From<&Value> for serde_json::Value {
    /// Numbers that JSON does not know (NaN and the infinities) become null.
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(yes) => Self::Bool(*yes),
            Value::Number(number) => number.to_json().map_or(Self::Null, Self::Number),
            Value::Text(text) => Self::String(text.to_string()),
            Value::List(values) => Self::Array(values.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                Self::Object(entries.iter().map(|(key, value)| (key.to_string(), value.into())).collect())
            }
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        Self::from(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn order_is_kept_and_does_not_count() {
        assert_eq!(read(r#"{"b":1,"a":2}"#).to_string(), r#"{"b":1,"a":2}"#);
        assert_eq!(read(r#"{"b":1,"a":2}"#), read(r#"{"a":2.0,"b":1}"#));
    }

    #[test]
    fn of_a_key_that_stands_twice_the_last_value_counts() {
        assert_eq!(read(r#"{"a":1,"a":2}"#), read(r#"{"a":2}"#));
    }

    #[test]
    fn whole_numbers_stay_exact() {
        assert_eq!(read("9007199254740993").to_string(), "9007199254740993");
        assert_eq!(read("18446744073709551615").to_string(), "18446744073709551615");
        assert_eq!(read("1.0"), read("1"));
        assert_eq!(read("1.0").scalar_text().as_deref(), Some("1"));
        assert_eq!(read("1e21").scalar_text().as_deref(), Some("1000000000000000000000"));
        assert_eq!(read("1.5").scalar_text().as_deref(), Some("1.5"));
    }

    #[test]
    fn nesting_without_end_is_an_error_and_no_overflow() {
        let deep = "[".repeat(100_000);
        assert!(serde_json::from_str::<Value>(&deep).is_err());
    }
}
