//! Texts made ready for comparing: two machine words that decide equality of short texts exactly and of long ones nearly.

use std::{fmt, sync::Arc};

use xxhash_rust::xxh3::xxh3_64;

/// A text of up to 15 bytes as a whole, or the hash and length of a longer one.
///
/// Two equal texts have equal words. Two equal words mean equal texts if they are short ([`is_exact`](Self::is_exact)); otherwise the
/// texts themselves must be compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word([u64; 2]);

impl Word {
    /// The longest text that a word holds as a whole, in bytes.
    pub const EXACT: usize = 15;
    const LONG: u64 = 0xff << 56;

    /// The word of `text`.
    #[inline]
    pub fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        if bytes.len() <= Self::EXACT {
            let mut whole = [0; 16];
            whole[..bytes.len()].copy_from_slice(bytes);
            #[expect(clippy::cast_possible_truncation, reason = "at most 15")]
            let length = bytes.len() as u8;
            whole[15] = length;
            let whole = u128::from_le_bytes(whole);
            #[expect(clippy::cast_possible_truncation, reason = "split in halves")]
            return Self([whole as u64, (whole >> 64) as u64]);
        }
        Self([xxh3_64(bytes), Self::LONG | (bytes.len() as u64 & !Self::LONG)])
    }

    /// Whether the word holds the text as a whole.
    #[inline]
    pub fn is_exact(self) -> bool {
        self.0[1] < Self::LONG
    }

    /// A hash for tables of words.
    #[inline]
    pub(crate) fn hash(self) -> u64 {
        let product =
            u128::from(self.0[0] ^ 0x9e37_79b9_7f4a_7c15) * u128::from(self.0[1] ^ 0xd1b5_4a32_d192_ed03);
        #[expect(clippy::cast_possible_truncation, reason = "folded")]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        folded
    }

    /// The text that an exact word holds.
    pub(crate) fn text(self) -> Option<String> {
        let bytes = (u128::from(self.0[0]) | (u128::from(self.0[1]) << 64)).to_le_bytes();
        let length = usize::from(bytes[15]);
        String::from_utf8(bytes.get(..length).filter(|_| length <= Self::EXACT)?.to_vec()).ok()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{text:?}"),
            None => write!(f, "#{:016x}", self.0[0]),
        }
    }
}

/// A name with its word: of an attribute, a context kind, a segment. A short one is its word and nothing else.
#[derive(Clone, PartialEq, Eq)]
pub struct Name {
    word: Word,
    long: Option<Arc<str>>,
}

impl Name {
    /// The name `text`.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let word = Word::of(text);
        Self { word, long: (!word.is_exact()).then(|| text.into()) }
    }

    /// The name that the word holds as a whole.
    pub(crate) fn exact(word: Word) -> Option<Self> {
        word.is_exact().then_some(Self { word, long: None })
    }

    /// Its word.
    #[inline]
    pub fn word(&self) -> Word {
        self.word
    }

    /// Its text.
    pub fn text(&self) -> String {
        match &self.long {
            Some(text) => text.to_string(),
            None => self.word.text().unwrap_or_default(),
        }
    }

    /// The text, where the word does not hold it, shared.
    pub(crate) fn into_long(self) -> Option<Arc<str>> {
        self.long
    }

    /// The text, where the word does not hold it.
    #[inline]
    pub(crate) fn long(&self) -> Option<&str> {
        self.long.as_deref()
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&String> for Name {
    fn from(text: &String) -> Self {
        Self::new(text)
    }
}

impl From<Box<str>> for Name {
    fn from(text: Box<str>) -> Self {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl serde::de::Visitor<'_> for Text {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E>(self, text: &str) -> Result<Name, E> {
                Ok(Name::new(text))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_words_mean_equal_short_texts() {
        let texts = ["", "a", "a\0", "user-0123456789", "user-0123456788", "ü", "0123456789abcde"];
        for a in texts {
            assert!(Word::of(a).is_exact());
            assert_eq!(Word::of(a).text().as_deref(), Some(a));
            for b in texts {
                assert_eq!(Word::of(a) == Word::of(b), a == b, "{a:?} {b:?}");
            }
        }
        assert!(!Word::of("0123456789abcdef").is_exact());
        assert_ne!(Word::of("0123456789abcdef"), Word::of("0123456789abcdeg"));
    }
}
