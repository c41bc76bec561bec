//! Who asks: [`Context`], the facts about a user (or a device, an organisation …) that rules look at.
//!
//! A context is built once, for a request or a session, and evaluated against many flags, by rulesets that it does not know. So
//! building does a little work per attribute (a [`Word`] of its name and of its text) that evaluation then never repeats: finding an
//! attribute is a scan over a few machine words, and comparing a text with a list of texts compares words.

use std::{any::Any, fmt, sync::Arc};

use flowline_core::Timestamp;

use crate::{
    engine::{Packed, number_of},
    value::{Name, Value, Word},
};

/// The kind of a context that was not given another.
pub const USER: &str = "user";

/// The facts that rules look at: a targeting key and attributes, for one kind of context or several.
///
/// Cheap to clone. Later values replace earlier ones of the same name; a null value counts as missing.
///
/// ```
/// use flowline_toggles::context::Context;
/// let context = Context::new("user-7").with("country", "NO").with("age", 42).with("beta", true);
/// assert_eq!(context.key(), Some("user-7"));
/// assert_eq!(context.attribute("age").and_then(|age| age.as_f64()), Some(42.0));
/// ```
#[derive(Clone, Default)]
pub struct Context {
    first: Part,
    more: Vec<Part>,
    now: Option<Timestamp>,
    extension: Option<Arc<dyn Any + Send + Sync>>,
}

/// What is known about one kind of context (`user`, `organization` …).
#[derive(Clone)]
pub struct Part {
    kind: Name,
    key: Option<Prepared>,
    /// The words of the attributes' names, apart from the values so that finding one touches little memory.
    names: Vec<Word>,
    attributes: Vec<Attribute>,
}

#[derive(Clone)]
struct Attribute {
    name: Arc<str>,
    value: Prepared,
}

/// A value with what comparisons need of its text.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) value: Value,
    /// The word of the text; meaningless for other values.
    pub(crate) word: Word,
    /// What the text reads as.
    pub(crate) reads: Reads,
}

/// What a text reads as, apart from a text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reads {
    /// Neither of the others (perhaps a less simple version).
    Nothing,
    /// A finite number.
    Number(f64),
    /// A version of three small numbers.
    Version(Packed),
}

impl Prepared {
    fn new(value: Value) -> Self {
        let text = value.as_str().unwrap_or_default();
        let (word, reads) = (Word::of(text), Reads::of(text));
        Self { value, word, reads }
    }
}

impl Reads {
    fn of(text: &str) -> Self {
        if !text.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '-' | '+' | '.')) {
            return Self::Nothing;
        }
        match Packed::parse(text) {
            Some(version) => Self::Version(version),
            None => number_of(text).map_or(Self::Nothing, Self::Number),
        }
    }
}

impl Default for Part {
    fn default() -> Self {
        Self::new(USER)
    }
}

impl Part {
    /// Nothing known about a context of `kind`.
    pub fn new(kind: impl Into<Name>) -> Self {
        Self { kind: kind.into(), key: None, names: Vec::new(), attributes: Vec::new() }
    }

    /// The same with a key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Value>) -> Self {
        let key = key.into();
        self.key = (!key.is_null()).then(|| Prepared::new(key));
        self
    }

    /// The same with an attribute.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl Into<Value>) -> Self {
        self.set(name.as_ref(), value.into());
        self
    }

    /// Sets an attribute; null removes it.
    pub fn set(&mut self, name: &str, value: Value) {
        let word = Word::of(name);
        match self.place(word, (!word.is_exact()).then_some(name)) {
            Some(at) if value.is_null() => {
                self.names.remove(at);
                self.attributes.remove(at);
            }
            Some(at) => {
                if let Some(attribute) = self.attributes.get_mut(at) {
                    attribute.value = Prepared::new(value);
                }
            }
            None if value.is_null() => {}
            None => {
                self.names.push(word);
                self.attributes.push(Attribute { name: name.into(), value: Prepared::new(value) });
            }
        }
    }

    /// Its kind.
    pub fn kind(&self) -> &Name {
        &self.kind
    }

    /// Its key.
    pub fn key(&self) -> Option<&Value> {
        self.key.as_ref().map(|key| &key.value)
    }

    /// The attribute `name`; never null.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.find(&Name::new(name)).map(|attribute| &attribute.value)
    }

    /// All attributes, in the order in which they were first set.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.attributes.iter().map(|attribute| (&*attribute.name, &attribute.value.value))
    }

    #[inline]
    pub(crate) fn prepared_key(&self) -> Option<&Prepared> {
        self.key.as_ref()
    }

    #[inline]
    pub(crate) fn find(&self, name: &Name) -> Option<&Prepared> {
        self.attributes.get(self.place(name.word(), name.long())?).map(|attribute| &attribute.value)
    }

    /// The attribute whose name its word holds.
    #[inline]
    pub(crate) fn find_exact(&self, name: Word) -> Option<&Prepared> {
        let at = self.names.iter().position(|have| *have == name)?;
        self.attributes.get(at).map(|attribute| &attribute.value)
    }

    /// Where the attribute is whose name has this word, and this text if the word does not hold it.
    #[inline]
    fn place(&self, word: Word, long: Option<&str>) -> Option<usize> {
        self.names.iter().enumerate().position(|(at, have)| {
            *have == word
                && long.is_none_or(|long| {
                    self.attributes.get(at).is_some_and(|attribute| *attribute.name == *long)
                })
        })
    }
}

impl Context {
    /// A context of kind `user` with a targeting key.
    pub fn new(key: impl Into<Value>) -> Self {
        Self { first: Part::default().with_key(key), ..Self::default() }
    }

    /// A context of kind `user` that knows nothing: everybody who asks looks the same.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A context of one or several kinds. Of no part at all, [`Context::anonymous`]. A kind that stands twice: the first counts.
    pub fn of_parts(parts: impl IntoIterator<Item = Part>) -> Self {
        let mut parts = parts.into_iter();
        Self { first: parts.next().unwrap_or_default(), more: parts.collect(), ..Self::default() }
    }

    /// The attributes of an object, its `targetingKey` as the key: the form in which OpenFeature passes contexts on.
    pub fn from_object(object: &Value) -> Self {
        let mut part = Part::default();
        for (name, value) in object.as_object().into_iter().flatten() {
            if name.as_ref() == "targetingKey" {
                part = part.with_key(value.clone());
            } else {
                part.set(name, value.clone());
            }
        }
        Self { first: part, ..Self::default() }
    }

    /// The same with an attribute (of the first kind).
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>, value: impl Into<Value>) -> Self {
        self.first.set(name.as_ref(), value.into());
        self
    }

    /// The same with a key (of the first kind).
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Value>) -> Self {
        self.first = self.first.with_key(key);
        self
    }

    /// The same, evaluated as if it were `now`.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.now = Some(now);
        self
    }

    /// The same with something that only one format's own conditions know how to read, such as GrowthBook's sticky bucket documents.
    #[must_use]
    pub fn with_extension(mut self, extension: Arc<dyn Any + Send + Sync>) -> Self {
        self.extension = Some(extension);
        self
    }

    /// The targeting key (of the first kind), if it is a text.
    pub fn key(&self) -> Option<&str> {
        self.first.key()?.as_str()
    }

    /// The attribute `name` (of the first kind); never null.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.first.attribute(name)
    }

    /// The part of the first kind.
    #[inline]
    pub fn first(&self) -> &Part {
        &self.first
    }

    /// All parts, at least one.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// The part of `kind`.
    #[inline]
    pub fn part(&self, kind: &Name) -> Option<&Part> {
        self.parts().find(|part| part.kind == *kind)
    }

    /// The part of the kind that its word holds.
    #[inline]
    pub(crate) fn part_exact(&self, kind: Word) -> Option<&Part> {
        self.parts().find(|part| part.kind.word() == kind)
    }

    /// The time that was given with [`at`](Self::at).
    pub fn now(&self) -> Option<Timestamp> {
        self.now
    }

    /// The extension of type `T`, if that is what was given.
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.extension.as_deref()?.downcast_ref()
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:?} ", self.kind, self.key().unwrap_or(&Value::Null))?;
        f.debug_map().entries(self.attributes()).finish()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.parts()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_counts_and_null_removes() {
        let context = Context::new("a").with("x", 1).with("y", "b").with("x", 2).with("y", Value::Null);
        assert_eq!(context.attribute("x"), Some(&Value::from(2)));
        assert_eq!(context.attribute("y"), None);
        assert_eq!(context.first().attributes().count(), 1);
    }

    #[test]
    fn long_names_are_told_apart() {
        let context =
            Context::anonymous().with("a-name-of-more-than-15-bytes", 1).with("another-name-that-is-long", 2);
        assert_eq!(context.attribute("another-name-that-is-long"), Some(&Value::from(2)));
        assert_eq!(context.attribute("another-name-that-is-lonh"), None);
    }

    #[test]
    fn parts_are_found_by_kind() {
        let parts =
            [Part::new("user").with_key("u"), Part::new("organization").with_key("o").with("plan", "gold")];
        let context = Context::of_parts(parts);
        let part = context.part(&Name::from("organization")).unwrap();
        assert_eq!(part.key(), Some(&Value::from("o")));
        assert!(context.part(&Name::from("device")).is_none());
    }
}
