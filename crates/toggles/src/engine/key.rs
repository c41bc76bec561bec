//! Keys that lie within what they are the key of: finding a flag then touches no memory apart.

use std::{fmt, ops::Deref};

/// A key. Up to 30 bytes lie within, longer ones apart.
pub(crate) struct Key(Held);

const WITHIN: usize = 30;

enum Held {
    Within { length: u8, bytes: [u8; WITHIN] },
    Apart(Box<str>),
}

impl Key {
    pub(crate) fn new(text: &str) -> Self {
        let mut bytes = [0; WITHIN];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                Self(Held::Within { length, bytes })
            }
            _ => Self(Held::Apart(text.into())),
        }
    }

    /// Whether it is `text`.
    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    pub(crate) fn is(&self, text: &str) -> bool {
        match &self.0 {
            Held::Within { length, bytes } => {
                bytes.get(..usize::from(*length)).is_some_and(|bytes| same(bytes, text.as_bytes()))
            }
            Held::Apart(long) => **long == *text,
        }
    }
}

impl Deref for Key {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Held::Within { length, bytes } => {
                let bytes = bytes.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(bytes).unwrap_or_default()
            }
            Held::Apart(long) => long,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Equality of short texts by machine words, the last of which may overlap the one before: quicker than a call.
#[inline]
fn same(a: &[u8], b: &[u8]) -> bool {
    fn words<const N: usize>(a: &[u8], b: &[u8]) -> Option<bool> {
        let (last_a, last_b) = (a.last_chunk::<N>()?, b.last_chunk::<N>()?);
        let (words_a, words_b) = (a.as_chunks::<N>().0, b.as_chunks::<N>().0);
        Some(words_a.iter().zip(words_b).all(|(a, b)| a == b) && last_a == last_b)
    }
    a.len() == b.len()
        && words::<8>(a, b)
            .or_else(|| words::<4>(a, b))
            .unwrap_or_else(|| a.iter().zip(b).all(|(a, b)| a == b))
}

/// A hash of keys, for tables within this process: the text in 16-byte steps, the last of which overlaps, each multiplied to 128 bits and
/// folded.
#[inline]
pub(crate) fn hash(key: &str) -> u64 {
    const A: u64 = 0x9e37_79b9_7f4a_7c15;
    const B: u64 = 0xd1b5_4a32_d192_ed03;
    let bytes = key.as_bytes();
    let length = bytes.len() as u64;
    let (mut a, mut b) = (A ^ length, B);
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        if let Some(end) = bytes.last_chunk::<16>() {
            let steps = bytes.as_chunks::<16>().0.iter();
            for step in steps.take((bytes.len() - 1) / 16).chain([end]) {
                let whole = u128::from_le_bytes(*step);
                #[expect(clippy::cast_possible_truncation, reason = "halves")]
                let halves = (whole as u64, (whole >> 64) as u64);
                a = folded(a ^ halves.0, b ^ halves.1);
                b = b.wrapping_add(A);
            }
            return folded(a ^ length, b);
        }
        a ^= u64::from_le_bytes(*first);
        b ^= u64::from_le_bytes(*last);
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        a ^= u64::from(u32::from_le_bytes(*first));
        b ^= u64::from(u32::from_le_bytes(*last));
    } else {
        a ^= bytes.iter().fold(0, |text, byte| text << 8 | u64::from(*byte));
    }
    folded(folded(a, b), A ^ length)
}

#[inline]
fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    #[expect(clippy::cast_possible_truncation, reason = "halves")]
    let folded = product as u64 ^ (product >> 64) as u64;
    folded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn texts() -> Vec<String> {
        let long = "team-01.service-02.flag-03, and a long name";
        let mut texts: Vec<String> = (0..=long.len()).map(|end| long[..end].to_owned()).collect();
        texts.extend((1..long.len()).map(|at| long[at..].to_owned()));
        texts.extend(["ü".to_owned(), "üü".to_owned(), "\0".to_owned(), "\0\0".to_owned()]);
        texts
    }

    #[test]
    fn a_key_is_its_text_and_no_other() {
        let texts = texts();
        for a in &texts {
            let key = Key::new(a);
            assert_eq!(&*key, a);
            for b in &texts {
                assert_eq!(key.is(b), a == b, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn hashes_of_different_keys_differ() {
        let numbered = (0..100_000).map(|n| format!("team-{}.flag-{n}", n % 37));
        let all: Vec<String> = texts().into_iter().chain(numbered).collect();
        let hashes: BTreeSet<u64> = all.iter().map(|text| hash(text)).collect();
        assert_eq!(hashes.len(), all.iter().collect::<BTreeSet<_>>().len());
        // The bits that tables use are spread, too.
        let low: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0xffff).collect();
        let high: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 48).collect();
        assert!(low.len() > 48_000 && high.len() > 48_000, "{} {}", low.len(), high.len());
    }
}
