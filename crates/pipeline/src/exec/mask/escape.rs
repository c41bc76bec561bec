//! Escapes of URLs and of JSON strings, as they stand at the beginning of some bytes.

/// What stands at the beginning of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// No escape.
    Literal,
    /// More must come before that can be said.
    More,
    /// An escape.
    Escape(Escape),
}

/// An escape: what it stands for, and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Escape {
    bytes: [u8; 4],
    count: usize,
    /// So many bytes long.
    pub(super) length: usize,
}

impl Escape {
    fn byte(byte: u8, length: usize) -> Read {
        Read::Escape(Self { bytes: [byte, 0, 0, 0], count: 1, length })
    }

    fn character(character: char, length: usize) -> Read {
        let mut bytes = [0; 4];
        let count = character.encode_utf8(&mut bytes).len();
        Read::Escape(Self { bytes, count, length })
    }

    /// What it stands for.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }
}

/// Reads the escape at the beginning of `bytes`; `ended` says that nothing follows them.
pub(super) fn read(bytes: &[u8], ended: bool) -> Read {
    let short = if ended { Read::Literal } else { Read::More };
    match bytes {
        [b'%', rest @ ..] => match hex(rest, 2) {
            // Two digits are at most 255.
            Digits::All(value) => Escape::byte((value & 0xff) as u8, 3),
            Digits::Few => short,
            Digits::None => Read::Literal,
        },
        [b'\\', b'u', rest @ ..] => match hex(rest, 4) {
            Digits::All(high @ 0xd800..=0xdbff) => match &rest[4..] {
                [] | [b'\\'] => short,
                [b'\\', b'u', rest @ ..] => match hex(rest, 4) {
                    Digits::All(low @ 0xdc00..=0xdfff) => {
                        let code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        char::from_u32(code)
                            .map_or(Read::Literal, |character| Escape::character(character, 12))
                    }
                    Digits::Few => short,
                    _ => Read::Literal,
                },
                _ => Read::Literal,
            },
            Digits::All(code) => {
                char::from_u32(code).map_or(Read::Literal, |character| Escape::character(character, 6))
            }
            Digits::Few => short,
            Digits::None => Read::Literal,
        },
        [b'\\', character, ..] => match character {
            b'"' | b'\\' | b'/' => Escape::byte(*character, 2),
            b'n' => Escape::byte(b'\n', 2),
            b'r' => Escape::byte(b'\r', 2),
            b't' => Escape::byte(b'\t', 2),
            b'b' => Escape::byte(8, 2),
            b'f' => Escape::byte(12, 2),
            _ => Read::Literal,
        },
        [b'\\'] => short,
        _ => Read::Literal,
    }
}

enum Digits {
    All(u32),
    /// What is there are digits.
    Few,
    None,
}

fn hex(bytes: &[u8], count: usize) -> Digits {
    let mut value = 0;
    for place in 0..count {
        let Some(byte) = bytes.get(place) else { return Digits::Few };
        let Some(digit) = char::from(*byte).to_digit(16) else { return Digits::None };
        value = value * 16 + digit;
    }
    Digits::All(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8]) -> Option<(String, usize)> {
        match read(bytes, true) {
            Read::Escape(escape) => {
                Some((String::from_utf8_lossy(escape.bytes()).into_owned(), escape.length))
            }
            _ => None,
        }
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(text(b"%2Fx"), Some(("/".to_owned(), 3)));
        assert_eq!(text(b"%2f"), Some(("/".to_owned(), 3)));
        assert_eq!(text(br"\/x"), Some(("/".to_owned(), 2)));
        assert_eq!(text(br"\u00F6x"), Some(("ö".to_owned(), 6)));
        assert_eq!(text(br"\ud83d\ude00x"), Some(("😀".to_owned(), 12)));
        for none in [&b"%2"[..], b"%", b"%zz", br"\", br"\x", br"\u12", br"\ud83d", br"\ud83d\n", b"a", b""] {
            assert_eq!(text(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_beginning_waits_for_more() {
        for whole in [&b"%2F"[..], br"\n", br"\u00f6", br"\ud83d\ude00"] {
            for end in 1..whole.len() {
                // A high surrogate alone is no character.
                assert_eq!(read(&whole[..end], false), Read::More, "{end} of {whole:?}");
            }
        }
        assert_eq!(read(b"%x", false), Read::Literal);
        assert_eq!(read(br"\u0x", false), Read::Literal);
    }
}
