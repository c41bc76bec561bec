//! What the flags of a document have in common, kept once: ten thousand flags ask about a few dozen attributes, and most serve the same
//! two variants.

use std::sync::Arc;

use hashbrown::HashTable;

use super::{key, node::Deep};
use crate::{
    model::Variant,
    value::{Name, Value},
};

/// What was met so far.
#[derive(Debug, Default)]
pub(super) struct Common {
    places: HashTable<Arc<Deep>>,
    variants: Vec<Arc<[Variant]>>,
}

/// How many lists of variants are compared with the next one.
const LISTS: usize = 8;

impl Common {
    /// These variants: the list that was met first, if one was that is the same to the letter.
    pub(super) fn variants(&mut self, variants: Arc<[Variant]>) -> Arc<[Variant]> {
        // Equal numbers and objects may still be written differently.
        let literal = |value: &Value| matches!(value, Value::Null | Value::Bool(_) | Value::Text(_));
        if !variants.iter().all(|variant| literal(&variant.value) && variant.detail.is_none()) {
            return variants;
        }
        let known = self.variants.iter().find(|known| Arc::ptr_eq(known, &variants) || **known == variants);
        if let Some(known) = known {
            return Arc::clone(known);
        }
        if self.variants.len() < LISTS {
            self.variants.push(Arc::clone(&variants));
        }
        variants
    }

    /// The attribute `name` (nothing: the key) of the part of `kind` (nothing: the first one), or what lies in it under a path.
    pub(super) fn place(&mut self, kind: Option<Name>, name: Option<Name>, path: Vec<Box<str>>) -> Arc<Deep> {
        let is_exact = |name: &Option<Name>| name.as_ref().is_none_or(|name| name.word().is_exact());
        let plain = kind.is_some() && is_exact(&kind) && is_exact(&name) && path.is_empty();
        let place = Deep { kind, name, path: path.into(), plain };
        let entry = self.places.entry(hash(&place), |have| **have == place, |have| hash(have));
        Arc::clone(entry.or_insert_with(|| Arc::new(place)).get())
    }
}

fn hash(place: &Deep) -> u64 {
    let of = |name: &Option<Name>| name.as_ref().map_or(1, |name| name.word().hash());
    let names = of(&place.kind).rotate_left(32) ^ of(&place.name);
    place.path.iter().fold(names, |hash, step| hash.rotate_left(7) ^ key::hash(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_kept_once_and_told_from_others() {
        let mut common = Common::default();
        let long = "an-attribute-of-more-than-15-bytes";
        let mut at = |kind: Option<&str>, name: Option<&str>, path: &[&str]| {
            let path = path.iter().map(|step| (*step).into()).collect();
            common.place(kind.map(Name::new), name.map(Name::new), path)
        };
        let plain = at(Some("user"), Some("country"), &[]);
        assert!(Arc::ptr_eq(&plain, &at(Some("user"), Some("country"), &[])));
        assert!(plain.plain && at(Some("user"), None, &[]).plain);
        for other in [
            at(Some("user"), None, &[]),
            at(Some("device"), Some("country"), &[]),
            at(Some("country"), Some("user"), &[]),
            at(Some("user"), Some("country"), &["a"]),
            at(Some("user"), Some("country"), &["b"]),
            at(Some("user"), Some(long), &[]),
            at(None, Some("country"), &[]),
        ] {
            assert!(other != plain, "{other:?}");
        }
        assert!(!at(Some("user"), Some(long), &[]).plain && !at(None, Some(long), &[]).plain);
    }

    #[test]
    fn the_same_variants_are_kept_once() {
        let mut common = Common::default();
        let mut same = |a: Value, b: Value| {
            let [a, b] = [a, b].map(|value| common.variants(Arc::from([Variant::new("a", value)])));
            Arc::ptr_eq(&a, &b)
        };
        assert!(same(true.into(), true.into()) && same("x".into(), "x".into()));
        assert!(!same(true.into(), false.into()));
        assert!(!same(1.into(), 1.0.into()), "they are written differently");
    }
}
