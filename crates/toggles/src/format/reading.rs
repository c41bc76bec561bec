//! Reading documents so that one bad part harms no other: parts are cut out first, then read one by one.

use std::{borrow::Cow, cell::Cell, collections::BTreeSet, fmt};

use flowline_core::diagnostic::Place;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    model::{Warning, short},
    value::{Number, Value},
};

/// A part of a document, cut out and not yet read. A part that is absent reads as `None`.
pub(crate) type Raw<'a> = &'a RawValue;

/// A document's text, for telling places in it.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// What stands for the file in places: the format's name.
    name: &'static str,
    text: &'a str,
    places: Cell<usize>,
}

/// Why a part could not be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// What is wrong, without a place.
    pub(crate) problem: String,
    /// Where in the document; told for the first hundred problems.
    pub(crate) place: Option<Place>,
}

impl Unreadable {
    /// The warning about it.
    pub(crate) fn warning(self, flag: Option<&str>, at: &str, meaning: &str) -> Warning {
        let message = short(format!("{}; {meaning}", self.problem));
        Warning { flag: flag.map(str::to_owned), at: at.to_owned(), message, place: self.place }
    }
}

impl<'a> Source<'a> {
    /// How many places are told: finding one reads the document up to there.
    const PLACES: usize = 100;

    pub(crate) fn new(name: &'static str, text: &'a str) -> Self {
        Self { name, text, places: Cell::new(0) }
    }

    /// Reads a part.
    pub(crate) fn part<T: Deserialize<'a>>(&self, raw: Raw<'a>) -> Result<T, Unreadable> {
        serde_json::from_str(raw.get()).map_err(|error| {
            let mut problem = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            if let Some(plain) = problem.strip_suffix(&place) {
                problem.truncate(plain.len());
            }
            let lines = raw.get().split_inclusive('\n').take(error.line().saturating_sub(1));
            let inside = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
            Unreadable { problem, place: self.place(raw, inside) }
        })
    }

    /// The place so many bytes into a part; told for the first hundred.
    pub(crate) fn place(&self, raw: Raw<'a>, inside: usize) -> Option<Place> {
        self.places.set(self.places.get() + 1);
        if self.places.get() > Self::PLACES {
            return None;
        }
        let offset = raw.get().as_ptr().addr().checked_sub(self.text.as_ptr().addr())? + inside;
        let mut place = Place::of(self.name, self.text, offset);
        if place.text.len() > 200 {
            // A document on one line would come along as a whole.
            place.text = place.text.chars().skip(place.column.saturating_sub(40)).take(80).collect();
        }
        Some(place)
    }
}

/// The entries of an object in the order of the document, keys that stand twice included.
#[derive(Debug)]
pub(crate) struct Pairs<'a>(pub(crate) Vec<(Cow<'a, str>, Raw<'a>)>);

impl Pairs<'_> {
    /// A warning for each key that stands twice. `flags`: the keys are those of flags; else they stand below `at`.
    pub(crate) fn twice(&self, flags: bool, at: &str) -> Vec<Warning> {
        let keys = self.0.iter().map(|(key, _)| &**key);
        twice(keys).into_iter().map(|key| told_twice(key, flags, at)).collect()
    }
}

/// The keys that stand more than once.
pub(crate) fn twice<'k>(keys: impl ExactSizeIterator<Item = &'k str>) -> BTreeSet<&'k str> {
    #[expect(clippy::disallowed_types, reason = "only asked, never walked")]
    let mut seen = std::collections::HashSet::with_capacity(keys.len());
    keys.filter(|key| !seen.insert(*key)).collect()
}

/// The warning about a key that stands more than once.
pub(crate) fn told_twice(key: &str, flag: bool, at: &str) -> Warning {
    let message = "it stands more than once; the last one counts";
    if flag { Warning::of(key, "", message) } else { Warning::general(format!("{at}/{key}"), message) }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let mut pairs = Vec::with_capacity(map.size_hint().unwrap_or(8));
                while let Some((Text(key), raw)) = map.next_entry::<Text<'de>, Raw<'de>>()? {
                    pairs.push((key, raw));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A text, borrowed from the document where it has no escapes; numbers and booleans count with their text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl Text<'_> {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn into_boxed(self) -> Box<str> {
        match self.0 {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyText;
        impl<'de> Visitor<'de> for AnyText {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E>(self, text: String) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text)))
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(if yes { "true" } else { "false" })))
            }

            fn visit_i64<E>(self, whole: i64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(whole.to_string())))
            }

            fn visit_u64<E>(self, whole: u64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(whole.to_string())))
            }

            fn visit_f64<E>(self, float: f64) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(Number::from(float).to_string())))
            }
        }
        deserializer.deserialize_any(AnyText)
    }
}

/// A JSON value that borrows its texts from the document; for what is compiled into something else at once. Of a key that stands twice, the
/// last value counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Tree<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Object(Vec<(Cow<'a, str>, Tree<'a>)>),
}

impl Tree<'_> {
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// What kind of value it is, in one word: for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "text",
            Self::List(_) => "list",
            Self::Object(_) => "object",
        }
    }
}

impl From<&Tree<'_>> for Value {
    fn from(tree: &Tree<'_>) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(yes) => Self::Bool(*yes),
            Tree::Number(number) => Self::Number(*number),
            Tree::Text(text) => Self::from(&**text),
            Tree::List(list) => Self::list(list.iter().map(Self::from)),
            Tree::Object(entries) => {
                Self::object(entries.iter().map(|(key, value)| (&**key, Self::from(value))))
            }
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Tree<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyTree;
        impl<'de> Visitor<'de> for AnyTree {
            type Value = Tree<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Tree<'de>, E> {
                Ok(Tree::Null)
            }

            fn visit_bool<E>(self, yes: bool) -> Result<Tree<'de>, E> {
                Ok(Tree::Bool(yes))
            }

            fn visit_i64<E>(self, whole: i64) -> Result<Tree<'de>, E> {
                Ok(Tree::Number(whole.into()))
            }

            fn visit_u64<E>(self, whole: u64) -> Result<Tree<'de>, E> {
                Ok(Tree::Number(whole.into()))
            }

            fn visit_f64<E>(self, float: f64) -> Result<Tree<'de>, E> {
                Ok(Tree::Number(float.into()))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Tree<'de>, E> {
                Ok(Tree::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree<'de>, E> {
                Ok(Tree::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(Tree::List(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree<'de>, A::Error> {
                const FEW: usize = 8;
                let mut entries: Vec<(Cow<'de, str>, Tree<'de>)> = Vec::with_capacity(1);
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, Tree<'de>>()? {
                    let twice = entries.iter_mut().take(FEW).find(|(there, _)| *there == key);
                    match twice {
                        Some(entry) => entry.1 = value,
                        None => entries.push((key, value)),
                    }
                }
                if entries.len() > FEW {
                    let unique: indexmap::IndexMap<_, _> = entries.into_iter().collect();
                    entries = unique.into_iter().collect();
                }
                Ok(Tree::Object(entries))
            }
        }
        deserializer.deserialize_any(AnyTree)
    }
}

/// Where in a flag something stands, told only if there is something to tell: `strategies/2/constraints/0`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct At<'o> {
    outer: Option<&'o At<'o>>,
    name: &'o str,
    index: Option<usize>,
}

impl<'o> At<'o> {
    /// At the top.
    pub(crate) fn top(name: &'o str) -> Self {
        Self { outer: None, name, index: None }
    }

    /// The element of the list `name` below the top.
    pub(crate) fn element(name: &'o str, index: usize) -> Self {
        Self { outer: None, name, index: Some(index) }
    }

    /// Below it.
    pub(crate) fn below(&'o self, name: &'o str) -> Self {
        Self { outer: Some(self), name, index: None }
    }

    /// The element of the list `name` below it.
    pub(crate) fn at(&'o self, name: &'o str, index: usize) -> Self {
        Self { outer: Some(self), name, index: Some(index) }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer.filter(|outer| !outer.name.is_empty()) {
            write!(f, "{outer}/")?;
        }
        f.write_str(self.name)?;
        self.index.map_or(Ok(()), |index| write!(f, "/{index}"))
    }
}

/// Reads null as the default.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        flags: Pairs<'a>,
    }

    #[test]
    fn a_bad_part_is_told_with_its_place_and_harms_no_other() {
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let text = format!("{{\"flags\": {{\"a\": 1,\n \"b\": [1,\n  \"ü\", x2],\n \"c\": {deep}}}}}")
            .replace("x2", "true");
        let source = Source::new("test", &text);
        let document: Document<'_> = serde_json::from_str(&text).unwrap();
        let [a, b, c] = document.flags.0.as_slice() else { panic!("{document:?}") };
        assert_eq!(source.part::<u8>(a.1).unwrap(), 1);
        let texts = source.part::<Vec<Text<'_>>>(b.1).unwrap();
        assert_eq!(texts.last().unwrap().as_str(), "true");
        let error = source.part::<Vec<u8>>(b.1).unwrap_err();
        let place = error.place.unwrap();
        assert_eq!((place.line, place.column), (3, 5));
        assert_eq!(error.problem, "invalid type: string \"ü\", expected u8");
        assert!(source.part::<Value>(c.1).unwrap_err().place.unwrap().text.len() <= 200);
    }
}
