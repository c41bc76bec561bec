//! Content addresses: SHA-256 (FIPS 180-4), written `sha256:` and 64 lower-case hexadecimal digits.

use std::{
    fmt,
    io::{self, BufWriter, Write},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::name::{NameError, NameProblem};

/// The SHA-256 of some bytes: the same bytes, the same digest, on every machine.
///
/// ```
/// use flowline_core::digest::Digest;
/// let digest = Digest::of(b"hello");
/// assert_eq!(digest.short(), "2cf24dba5fb0");
/// assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// The digest of everything that `reader` gives, in bounded memory.
    ///
    /// # Errors
    /// The reader's.
    pub fn of_reader(mut reader: impl io::Read) -> io::Result<Self> {
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self(hash.finalize().into())),
                Ok(read) => hash.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits without the `sha256:` before them.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// The first 12 hexadecimal digits: for people, never for comparing.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

/// Makes a digest from parts that keep their borders: each part is preceded by its length, so `("ab", "c")` and `("a", "bc")` differ.
#[derive(Debug, Clone, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// A digester for one kind of thing. The kind goes in first, so that digests of different kinds never meet.
    pub fn new(kind: &str) -> Self {
        let mut digester = Self(Sha256::new());
        digester.part(kind);
        digester
    }

    /// Adds one part.
    pub fn part(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds the JSON of `value` as one part, without holding it: it is written twice, once for its length.
    ///
    /// # Errors
    /// If JSON can't express it; the digester is then of no use.
    pub fn json_part(&mut self, value: &impl Serialize) -> Result<&mut Self, serde_json::Error> {
        let mut length = Length(0);
        serde_json::to_writer(&mut length, value)?;
        self.0.update(length.0.to_be_bytes());
        // Many small pieces, each of which would be a call of the hash.
        let mut hashing = BufWriter::with_capacity(8 * 1024, Hashing(&mut self.0));
        serde_json::to_writer(&mut hashing, value)?;
        hashing.flush().map_err(serde_json::Error::io)?;
        drop(hashing);
        Ok(self)
    }

    /// The digest of all parts so far.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(self.0.clone().finalize().into())
    }
}

/// Counts what is written to it.
struct Length(u64);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Hashing<'a>(&'a mut Sha256);

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl From<[u8; 32]> for Digest {
    /// The digest with these bytes: for whoever hashed a stream piece by piece.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |problem| NameError::new("a digest", text, problem);
        let shape = "it needs the form `sha256:` and 64 lower-case hexadecimal digits";
        let hex = text.strip_prefix("sha256:").ok_or_else(|| refuse(NameProblem::Shape(shape)))?;
        if hex.len() != 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refuse(NameProblem::Shape(shape)));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |d: u8| if d <= b'9' { d - b'0' } else { d - b'a' + 10 };
            *byte = digit(pair[0]) << 4 | digit(pair[1]);
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_vector() {
        // FIPS 180-4 example: SHA-256 of "abc".
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_string(), expected);
        assert_eq!(Digest::of_reader(&b"abc"[..]).unwrap().to_string(), expected);
    }

    #[test]
    fn json_is_a_part_like_its_text() {
        let value = serde_json::json!({ "a": ["x".repeat(20_000), 1.5, null], "b": {} });
        let text = serde_json::to_vec(&value).unwrap();
        let mut pieces = Digester::new("kind");
        let digest = pieces.json_part(&value).unwrap().finish();
        assert_eq!(digest, Digester::new("kind").part(text).finish());
        let unspeakable = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(Digester::new("kind").json_part(&unspeakable).is_err());
    }

    #[test]
    fn parts_keep_their_borders() {
        let of = |parts: &[&str]| {
            let mut digester = Digester::new("test");
            for part in parts {
                digester.part(part);
            }
            digester.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
    }

    #[test]
    fn only_the_written_form_is_read() {
        for bad in [
            "",
            "sha256:",
            "abc",
            &format!("sha256:{}", "A".repeat(64)),
            &format!("sha512:{}", "a".repeat(64)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
