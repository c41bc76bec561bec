//! Small things of our documents' shapes: named entries in order, one thing or a list of them, moments.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};

/// Entries by name, in the order in which they were read (TOML is read by name). A name stands once.
///
/// The order is for people: two that have the same entries are equal, and mean the same.
#[derive(Debug, Clone)]
pub struct Named<T>(Vec<(Box<str>, T)>);

impl<T: PartialEq> PartialEq for Named<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl<T: Eq> Eq for Named<T> {}

impl<T> Named<T> {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The entry called `name`.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.iter().find(|(have, _)| *have == name).map(|(_, value)| value)
    }

    /// All entries.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Adds an entry, or replaces the one of that name.
    pub fn set(&mut self, name: impl Into<Box<str>>, value: T) {
        let name = name.into();
        match self.0.iter_mut().find(|(have, _)| *have == name) {
            Some((_, there)) => *there = value,
            None => self.0.push((name, value)),
        }
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<N: Into<Box<str>>, T> FromIterator<(N, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(entries: I) -> Self {
        let mut named = Self::default();
        for (name, value) in entries {
            named.set(name, value);
        }
        named
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
            type Value = Named<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of entries by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                named(map)
            }
        }
        deserializer.deserialize_map(Map(PhantomData))
    }
}

pub(super) fn named<'de, T: Deserialize<'de>, A: MapAccess<'de>>(mut map: A) -> Result<Named<T>, A::Error> {
    let mut entries: Vec<(Box<str>, T)> = Vec::new();
    while let Some(name) = map.next_key::<Box<str>>()? {
        if entries.iter().any(|(have, _)| *have == name) {
            return Err(serde::de::Error::custom(format!("duplicate entry `{}`", name.escape_debug())));
        }
        entries.push((name, map.next_value()?));
    }
    Ok(Named(entries))
}

/// One thing, or a list of them, as written: reads either.
pub(super) struct OneOrMany<T>(pub(super) Vec<T>);

impl<'de, T: for<'a> From<&'a str> + Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts<T>(PhantomData<T>);
        impl<'de, T: for<'a> From<&'a str> + Deserialize<'de>> Visitor<'de> for Texts<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
                Ok(OneOrMany(vec![one.into()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut many = Vec::with_capacity(list.size_hint().unwrap_or(4).min(4_096));
                while let Some(one) = list.next_element()? {
                    many.push(one);
                }
                Ok(OneOrMany(many))
            }
        }
        deserializer.deserialize_any(Texts(PhantomData))
    }
}

/// Moments written as `2026-11-25` (midnight, UTC) or `2026-11-25T08:00:00Z`.
pub(crate) mod moment {
    use std::fmt;

    use flowline_core::Timestamp;
    use serde::{Deserializer, Serialize, Serializer, de::Visitor};

    struct Moment;

    impl Visitor<'_> for Moment {
        type Value = Timestamp;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text such as \"2026-11-25\" or \"2026-11-25T08:00:00Z\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
            let midnight = || format!("{text}T00:00:00Z").parse();
            let moment: Option<Timestamp> = text.parse().or_else(|_| midnight()).ok();
            moment.ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Timestamp>, D::Error> {
        deserializer.deserialize_str(Moment).map(Some)
    }

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(crate) fn serialize<S: Serializer>(
        moment: &Option<Timestamp>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        moment.serialize(serializer)
    }

    /// The same for a moment that must be there.
    pub(crate) struct Needed(pub(crate) Timestamp);

    impl<'de> serde::Deserialize<'de> for Needed {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_str(Moment).map(Self)
        }
    }
}
