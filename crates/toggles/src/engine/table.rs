//! Things by key, shared between versions: a change copies one small shard, not the table.

use std::{fmt, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

/// Something that has a key.
pub(crate) trait Keyed {
    fn key(&self) -> &Arc<str>;
}

/// Things by key. Cloning and [changing](Table::with) share all shards that stay the same.
pub(crate) struct Table<T> {
    /// As many as a power of two, each with [`PER_GROUP`] shards.
    groups: Box<[Group<T>]>,
    len: usize,
}

/// Shards next to each other: so that a change copies one group and one shard, each of a few dozen pointers.
type Group<T> = Arc<[Shard<T>; PER_GROUP]>;

const PER_GROUP: usize = 16;

/// Open addressing with linear probing; as many slots as a power of two, at most half of them taken.
type Shard<T> = Arc<[Slot<T>]>;

struct Slot<T> {
    tag: u32,
    /// The key stands beside the thing, so that comparing it and looking into the thing need not wait for each other.
    item: Option<(Arc<str>, Arc<T>)>,
}

/// How many things a shard holds on average when it is built, at most.
const PER_SHARD: usize = 16;

impl<T: Keyed> Table<T> {
    /// The things, of two with one key the last.
    pub(crate) fn build(items: impl IntoIterator<Item = Arc<T>>) -> Self {
        let items: Vec<_> = items.into_iter().map(|item| (hash(item.key()), item)).collect();
        let count = items.len().div_ceil(PER_SHARD * PER_GROUP).next_power_of_two();
        let mut sorted: Vec<Vec<(u64, Arc<T>)>> = Vec::with_capacity(count * PER_GROUP);
        sorted.resize_with(count * PER_GROUP, Vec::new);
        for (hash, item) in items {
            if let Some(shard) = sorted.get_mut(group_of(hash, count) * PER_GROUP + shard_of(hash)) {
                shard.push((hash, item));
            }
        }
        let mut shards = sorted.into_iter().map(shard);
        let groups: Box<[Group<T>]> = (0..count)
            .map(|_| Arc::new(std::array::from_fn(|_| shards.next().unwrap_or_else(|| shard(Vec::new())))))
            .collect();
        let len = groups.iter().flat_map(|group| group.iter()).map(|shard| items_of(shard).count()).sum();
        Self { groups, len }
    }

    /// The thing under `key`.
    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.get_hashed(hash(key), key)
    }

    /// The same, if the key's hash is known.
    #[inline]
    pub(crate) fn get_hashed(&self, hash: u64, key: &str) -> Option<&Arc<T>> {
        let shard = self.groups.get(group_of(hash, self.groups.len()))?.get(shard_of(hash))?;
        let mask = shard.len().wrapping_sub(1);
        let tag = tag_of(hash);
        let mut at = start_of(hash) & mask;
        loop {
            let slot = shard.get(at)?;
            let (have, item) = slot.item.as_ref()?;
            if slot.tag == tag && **have == *key {
                return Some(item);
            }
            at = (at + 1) & mask;
        }
    }

    /// The same table with some things put (or replaced) and some removed. What stays is shared.
    pub(crate) fn with(&self, put: Vec<Arc<T>>, removed: &[&str]) -> Self {
        let grown = self.len + put.len();
        if grown > self.groups.len() * PER_GROUP * PER_SHARD * 4 {
            let gone = |item: &&Arc<T>| !removed.contains(&&**item.key());
            return Self::build(self.iter().filter(gone).cloned().chain(put));
        }
        let mut groups = self.groups.clone();
        let mut len = self.len;
        let count = groups.len();
        let keys = removed.iter().map(|key| (hash(key), None));
        let changes = keys.chain(put.into_iter().map(|item| (hash(item.key()), Some(item))));
        for (hash, change) in changes {
            let Some(group) = groups.get_mut(group_of(hash, count)) else { continue };
            let Some(place) = Arc::make_mut(group).get_mut(shard_of(hash)) else { continue };
            let key_of_change = change.as_ref().map(|item| Arc::clone(item.key()));
            let mut items: Vec<(u64, Arc<T>)> = Vec::with_capacity(place.len());
            let mut found = false;
            for item in items_of(place) {
                let other = self::hash(item.key());
                let same = other == hash
                    && match &key_of_change {
                        Some(key) => item.key() == key,
                        None => removed.contains(&&**item.key()),
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
        Self { groups, len }
    }

    /// All things, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.groups.iter().flat_map(|group| group.iter()).flat_map(|shard| items_of(shard))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// A key's hash, for [`Table::get_hashed`].
#[inline]
pub(crate) fn hash(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

#[inline]
fn group_of(hash: u64, count: usize) -> usize {
    (hash >> 44) as usize & (count.wrapping_sub(1))
}

#[inline]
fn shard_of(hash: u64) -> usize {
    (hash >> 40) as usize & (PER_GROUP - 1)
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
    shard.iter().filter_map(|slot| slot.item.as_ref().map(|(_, item)| item))
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
                Some((have, _)) if slot.tag == tag && have == item.key() => break,
                Some(_) => at = (at + 1) & (size - 1),
                None => break,
            }
        }
        if let Some(slot) = slots.get_mut(at) {
            *slot = Slot { tag, item: Some((Arc::clone(item.key()), item)) };
        }
    }
    slots.into()
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { groups: self.groups.clone(), len: self.len }
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

    #[derive(Debug, PartialEq)]
    struct Item(Arc<str>, usize);

    impl Keyed for Item {
        fn key(&self) -> &Arc<str> {
            &self.0
        }
    }

    fn items(range: std::ops::Range<usize>, version: usize) -> Vec<Arc<Item>> {
        range.map(|n| Arc::new(Item(format!("team-{}.flag-{n}", n % 7).into(), version))).collect()
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
        let shared = table.groups.iter().zip(&next.groups).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!(shared >= table.groups.len() - 2);
    }

    #[test]
    fn it_grows_one_by_one() {
        let mut table = Table::default();
        for item in items(0..2_000, 1) {
            table = table.with(vec![item], &[]);
        }
        assert_eq!((table.len(), table.iter().count()), (2_000, 2_000));
        assert!(table.groups.len() >= 2);
        assert!(items(0..2_000, 1).iter().all(|item| table.get(item.key()).is_some()));
    }

    #[test]
    fn of_two_with_one_key_the_last_counts() {
        let table = Table::build(items(0..3, 1).into_iter().chain(items(1..2, 9)));
        assert_eq!((table.len(), table.get("team-1.flag-1").unwrap().1), (3, 9));
    }
}
