//! Sets of texts: a scan over machine words for a few, a table for many.

use std::{fmt, sync::Arc};

use crate::value::{Name, Word};

/// A set of texts.
pub(crate) struct WordSet {
    /// The words, in a table with linear probing whose free places hold [`Word::NONE`] (many), or one after the other (few).
    words: Box<[Word]>,
    /// The texts that words do not hold, sorted.
    long: Box<[Arc<str>]>,
    len: usize,
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
            return Self { words: words.into(), long: long.into(), len };
        }
        let size = (len + len / 2).next_power_of_two();
        let mut table = vec![Word::NONE; size];
        for word in words {
            let mut at = slot(word, size);
            while let Some(place) = table.get_mut(at) {
                if *place == Word::NONE || *place == word {
                    *place = word;
                    break;
                }
                at = (at + 1) & (size - 1);
            }
        }
        Self { words: table.into(), long: long.into(), len }
    }

    /// Whether the text whose word is `word` is in it.
    #[inline]
    pub(crate) fn contains(&self, word: Word, text: &str) -> bool {
        let found = if self.words.len() <= FEW {
            self.words.contains(&word)
        } else {
            let size = self.words.len();
            let mut at = slot(word, size);
            loop {
                match self.words.get(at) {
                    Some(there) if *there == word => break true,
                    Some(there) if *there != Word::NONE => at = (at + 1) & (size - 1),
                    _ => break false,
                }
            }
        };
        found && (word.is_exact() || self.long.binary_search_by(|long| (**long).cmp(text)).is_ok())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "bits of a hash")]
#[inline]
fn slot(word: Word, size: usize) -> usize {
    word.hash() as usize & (size - 1)
}

impl fmt::Debug for WordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Up to eight texts as they are, of more their number.
impl fmt::Display for WordSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len > FEW {
            return write!(f, "{} texts", self.len);
        }
        let short = self.words.iter().filter_map(|word| word.text());
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
