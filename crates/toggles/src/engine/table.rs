//! Things by key, shared between versions: a change copies one small shard, not the table.

use std::{fmt, sync::Arc};

use super::key::{Key, hash};

/// Something that has a key.
pub(crate) trait Keyed {
    fn key(&self) -> &Key;
}

/// Things by key. Cloning and [changing](Table::with) share all shards that stay the same.
pub(crate) struct Table<T> {
    /// As many as a power of two.
    shards: Box<[Shard<T>]>,
    len: usize,
}

/// Open addressing with linear probing; as many slots as a power of two, at most half of them taken.
type Shard<T> = Arc<[Slot<T>]>;

struct Slot<T> {
    tag: u32,
    item: Option<Arc<T>>,
}

/// How many things a shard holds on average when it is built, at most. A change copies one shard and the list of shards.
const PER_SHARD: usize = 64;

impl<T: Keyed> Table<T> {
    /// The things, of two with one key the last.
    pub(crate) fn build(items: impl IntoIterator<Item = Arc<T>>) -> Self {
        Self::of_hashed(items.into_iter().map(|item| (hash(item.key()), item)).collect())
    }

    /// The same of things with the [hashes](hash) of their keys.
    pub(crate) fn of_hashed(items: Vec<(u64, Arc<T>)>) -> Self {
        let count = items.len().div_ceil(PER_SHARD).next_power_of_two();
        let mut sorted: Vec<Vec<(u64, Arc<T>)>> = Vec::with_capacity(count);
        sorted.resize_with(count, || Vec::with_capacity(items.len() / count * 5 / 4));
        for (hash, item) in items {
            if let Some(shard) = sorted.get_mut(shard_of(hash, count)) {
                shard.push((hash, item));
            }
        }
        let shards: Box<[Shard<T>]> = sorted.into_iter().map(shard).collect();
        let len = shards.iter().map(|shard| items_of(shard).count()).sum();
        Self { shards, len }
    }

    /// The thing under `key`.
    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.get_hashed(hash(key), key)
    }

    /// The same, if the key's hash is known.
    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    pub(crate) fn get_hashed(&self, hash: u64, key: &str) -> Option<&Arc<T>> {
        let shard = self.shards.get(shard_of(hash, self.shards.len()))?;
        let mask = shard.len().wrapping_sub(1);
        let tag = tag_of(hash);
        let mut at = start_of(hash) & mask;
        loop {
            let slot = shard.get(at)?;
            let item = slot.item.as_ref()?;
            if slot.tag == tag && item.key().is(key) {
                return Some(item);
            }
            at = (at + 1) & mask;
        }
    }

    /// The same table with some things put (or replaced) and some removed. What stays is shared.
    pub(crate) fn with(&self, put: Vec<Arc<T>>, removed: &[&str]) -> Self {
        let grown = self.len + put.len();
        if grown > self.shards.len() * PER_SHARD * 2 {
            let gone = |item: &&Arc<T>| !removed.iter().any(|key| item.key().is(key));
            return Self::build(self.iter().filter(gone).cloned().chain(put));
        }
        let mut shards = self.shards.clone();
        let mut len = self.len;
        let count = shards.len();
        let keys = removed.iter().map(|key| (hash(key), None));
        let changes = keys.chain(put.into_iter().map(|item| (hash(item.key()), Some(item))));
        for (hash, change) in changes {
            let Some(place) = shards.get_mut(shard_of(hash, count)) else { continue };
            let mut items: Vec<(u64, Arc<T>)> = Vec::with_capacity(place.len());
            let mut found = false;
            for item in items_of(place) {
                let other = self::hash(item.key());
                let same = other == hash
                    && match &change {
                        Some(change) => item.key().is(change.key()),
                        None => removed.iter().any(|key| item.key().is(key)),
                    };
                if same {
                    found = true;
                } else {
                    items.push((other, Arc::clone(item)));
                }
            }
            len -= usize::from(found);
            if let Some(item) = change {
                items.push((hash, item));
                len += 1;
            }
            *place = shard(items);
        }
        Self { shards, len }
    }

    /// All things, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards.iter().flat_map(|shard| items_of(shard))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

#[inline]
fn shard_of(hash: u64, count: usize) -> usize {
    (hash >> 40) as usize & (count.wrapping_sub(1))
}

#[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
#[inline]
fn start_of(hash: u64) -> usize {
    hash as usize
}

#[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
#[inline]
fn tag_of(hash: u64) -> u32 {
    (hash >> 8) as u32
}

fn items_of<T>(shard: &[Slot<T>]) -> impl Iterator<Item = &Arc<T>> {
    shard.iter().filter_map(|slot| slot.item.as_ref())
}

/// The shard of these things, of two with one key the last.
fn shard<T: Keyed>(items: Vec<(u64, Arc<T>)>) -> Shard<T> {
    let size = (items.len() * 2).max(1).next_power_of_two();
    let mut slots: Vec<Slot<T>> = Vec::with_capacity(size);
    slots.resize_with(size, || Slot { tag: 0, item: None });
    for (hash, item) in items {
        let mut at = start_of(hash) & (size - 1);
        let tag = tag_of(hash);
        while let Some(slot) = slots.get_mut(at) {
            match &slot.item {
                Some(have) if slot.tag == tag && have.key().is(item.key()) => break,
                Some(_) => at = (at + 1) & (size - 1),
                None => break,
            }
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = Slot { tag, item: Some(item) };
        }
    }
    slots.into()
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone(), len: self.len }
    }
}

impl<T: Keyed> Default for Table<T> {
    fn default() -> Self {
        Self::build([])
    }
}

impl<T: fmt::Debug> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table of {}", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Item(Key, usize);

    impl Keyed for Item {
        fn key(&self) -> &Key {
            &self.0
        }
    }

    fn items(range: std::ops::Range<usize>, version: usize) -> Vec<Arc<Item>> {
        range.map(|n| Arc::new(Item(Key::new(&format!("team-{}.flag-{n}", n % 7)), version))).collect()
    }

    #[test]
    fn everything_put_is_found_and_nothing_else() {
        for size in [0, 1, 2, 31, 33, 1_000] {
            let table = Table::build(items(0..size, 1));
            assert_eq!(table.len(), size);
            for n in 0..size {
                assert!(table.get(&format!("team-{}.flag-{n}", n % 7)).is_some(), "{n} of {size}");
            }
            assert!(table.get("nobody").is_none());
            assert!(table.get("").is_none());
        }
    }

    #[test]
    fn a_change_shares_what_stays() {
        let table = Table::build(items(0..1_000, 1));
        let next = table.with(items(5..6, 2), &["team-6.flag-6"]);
        assert_eq!((table.len(), next.len()), (1_000, 999));
        assert_eq!(next.get("team-5.flag-5").unwrap().1, 2);
        assert_eq!(table.get("team-5.flag-5").unwrap().1, 1);
        assert!(next.get("team-6.flag-6").is_none());
        let shared = table.shards.iter().zip(&next.shards).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= table.shards.len() - 2);
    }

    #[test]
    fn it_grows_one_by_one() {
        let mut table = Table::default();
        for item in items(0..2_000, 1) {
            table = table.with(vec![item], &[]);
        }
        assert_eq!((table.len(), table.iter().count()), (2_000, 2_000));
        assert!(table.shards.len() >= 16);
        assert!(items(0..2_000, 1).iter().all(|item| table.get(item.key()).is_some()));
    }

    #[test]
    fn of_two_with_one_key_the_last_counts() {
        let table = Table::build(items(0..3, 1).into_iter().chain(items(1..2, 9)));
        assert_eq!((table.len(), table.get("team-1.flag-1").unwrap().1), (3, 9));
    }
}
