//! Attribute references: where in a context a clause or a rollout looks.

use crate::{
    model::Subject,
    value::{Name, Value},
};

/// Why a reference makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Invalid(pub(super) &'static str);

/// What a reference leads to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reference {
    /// The attribute's name.
    name: String,
    /// The keys below it.
    path: Vec<Box<str>>,
}

impl Reference {
    /// Reads `text`: as a reference if it comes `with_kind`, as a plain name otherwise.
    pub(super) fn read(text: &str, with_kind: bool) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid("an attribute is needed"));
        }
        let plain = || Ok(Self { name: text.to_owned(), path: Vec::new() });
        if !with_kind {
            return plain();
        }
        let Some(rest) = text.strip_prefix('/') else { return plain() };
        let mut parts = Vec::new();
        for part in rest.split('/') {
            if part.is_empty() {
                return Err(Invalid("an empty part of a path"));
            }
            parts.push(unescaped(part).ok_or(Invalid("`~` is followed by neither 0 nor 1"))?);
        }
        let mut parts = parts.into_iter();
        let name = parts.next().ok_or(Invalid("an attribute is needed"))?;
        Ok(Self { name, path: parts.map(Into::into).collect() })
    }

    /// Whether it is the list of the context's kinds.
    pub(super) fn is_kind(&self) -> bool {
        self.name == "kind" && self.path.is_empty()
    }

    /// Where that is in the context of `kind`; `None` if nothing can be there.
    pub(super) fn subject(self, kind: &Name) -> Option<Subject> {
        match (self.name.as_str(), self.path.is_empty()) {
            ("key", true) => Some(Subject::KeyOf { kind: kind.clone() }),
            ("kind", true) => Some(Subject::Value(Value::from(kind.text()))),
            ("key" | "kind", false) => None,
            _ => {
                Some(Subject::AttributeOf { kind: kind.clone(), name: Name::new(self.name), path: self.path })
            }
        }
    }
}

/// `~1` is `/`, `~0` is `~`.
fn unescaped(part: &str) -> Option<String> {
    let mut text = String::with_capacity(part.len());
    let mut letters = part.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '~' => text.push(match letters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            other => text.push(other),
        }
    }
    Some(text)
}
