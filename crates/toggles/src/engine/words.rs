//! Sets of texts: a scan over machine words for a few, a table for many.

use std::{fmt, sync::Arc};

use hashbrown::HashTable;

use crate::value::{Name, Word};

/// A set of texts.
pub(crate) struct WordSet {
    words: Words,
    /// The texts that words do not hold, sorted.
    long: Box<[Arc<str>]>,
    len: usize,
}

enum Words {
    /// One after the other.
    Few(Box<[Word]>),
    Many(HashTable<Word>),
}

const FEW: usize = 8;

impl WordSet {
    pub(crate) fn new(names: impl IntoIterator<Item = Name>) -> Self {
        let names = names.into_iter();
        let (mut words, mut long) = (Vec::with_capacity(names.size_hint().0), Vec::new());
        for name in names {
            words.push(name.word());
            long.extend(name.into_long());
        }
        long.sort_unstable();
        long.dedup();
        let len = words.len();
        if len <= FEW {
            return Self { words: Words::Few(words.into()), long: long.into(), len };
        }
        let mut table: HashTable<Word> = HashTable::with_capacity(len);
        for word in words {
            table.entry(word.hash(), |have| *have == word, |have| have.hash()).or_insert(word);
        }
        Self { words: Words::Many(table), long: long.into(), len }
    }

    /// The texts, sorted.
    pub(crate) fn texts(&self) -> Vec<String> {
        let short = |word: &Word| word.text();
        let mut texts: Vec<String> = match &self.words {
            Words::Few(words) => words.iter().filter_map(short).collect(),
            Words::Many(table) => table.iter().filter_map(short).collect(),
        };
        texts.extend(self.long.iter().map(ToString::to_string));
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// The texts as names.
    pub(crate) fn names(&self) -> Vec<Name> {
        let short = |word: &Word| Name::exact(*word);
        let long = self.long.iter().map(Name::new);
        match &self.words {
            Words::Few(words) => words.iter().filter_map(short).chain(long).collect(),
            Words::Many(table) => table.iter().filter_map(short).chain(long).collect(),
        }
    }

    /// Whether the text whose word is `word` is in it.
    #[inline]
    pub(crate) fn contains(&self, word: Word, text: &str) -> bool {
        let found = match &self.words {
            Words::Few(words) => words.contains(&word),
            Words::Many(table) => table.find(word.hash(), |have| *have == word).is_some(),
        };
        found && (word.is_exact() || self.long.binary_search_by(|long| (**long).cmp(text)).is_ok())
    }
}

impl fmt::Debug for WordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Up to eight texts as they are, of more their number.
impl fmt::Display for WordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Words::Few(words) = &self.words else { return write!(f, "{} texts", self.len) };
        let short = words.iter().filter_map(|word| word.text());
        let all: Vec<_> =
            short.chain(self.long.iter().map(ToString::to_string)).map(|text| format!("{text:?}")).collect();
        f.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_in_and_nothing_else() {
        for size in [0_usize, 1, 8, 9, 1_000] {
            let text = |n: usize| {
                if n.is_multiple_of(3) { format!("a-rather-long-text-number-{n}") } else { format!("t{n}") }
            };
            let set = WordSet::new((0..size).map(|n| Name::from(text(n))));
            for n in 0..size * 2 + 10 {
                assert_eq!(set.contains(Word::of(&text(n)), &text(n)), n < size, "{n} of {size}");
            }
        }
    }
}
