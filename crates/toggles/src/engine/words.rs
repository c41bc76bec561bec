//! Sets of texts: a scan over machine words for a few, a table for many.

use std::fmt;

use crate::value::Word;

/// A set of texts.
pub(crate) struct WordSet {
    /// The words, in a table with linear probing (many) or one after the other (few).
    words: Box<[Option<Word>]>,
    /// The texts that words do not hold, sorted.
    long: Box<[Box<str>]>,
    len: usize,
}

const FEW: usize = 8;

impl WordSet {
    pub(crate) fn new(texts: impl IntoIterator<Item = Box<str>>) -> Self {
        let (mut words, mut long) = (Vec::new(), Vec::new());
        for text in texts {
            let word = Word::of(&text);
            words.push(word);
            if !word.is_exact() {
                long.push(text);
            }
        }
        long.sort_unstable();
        long.dedup();
        let len = words.len();
        if len <= FEW {
            return Self { words: words.into_iter().map(Some).collect(), long: long.into(), len };
        }
        let size = (len * 2).next_power_of_two();
        let mut table: Vec<Option<Word>> = vec![None; size];
        for word in words {
            let mut at = slot(word, size);
            while let Some(place) = table.get_mut(at) {
                match place {
                    Some(there) if *there != word => at = (at + 1) & (size - 1),
                    _ => {
                        *place = Some(word);
                        break;
                    }
                }
            }
        }
        Self { words: table.into(), long: long.into(), len }
    }

    /// Whether the text whose word is `word` is in it.
    #[inline]
    pub(crate) fn contains(&self, word: Word, text: &str) -> bool {
        let found = if self.words.len() <= FEW {
            self.words.contains(&Some(word))
        } else {
            let size = self.words.len();
            let mut at = slot(word, size);
            loop {
                match self.words.get(at) {
                    Some(Some(there)) if *there == word => break true,
                    Some(Some(_)) => at = (at + 1) & (size - 1),
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
        let short = self.words.iter().flatten().filter_map(|word| word.text());
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
            let set = WordSet::new((0..size).map(|n| text(n).into()));
            for n in 0..size * 2 + 10 {
                assert_eq!(set.contains(Word::of(&text(n)), &text(n)), n < size, "{n} of {size}");
            }
        }
    }
}
