//! What must not be seen: a [`Masker`] finds secrets in bytes, in every form that they are commonly printed in.

use std::{fmt, sync::Arc};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use flowline_core::secret::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands where a secret stood.
const MASK: &[u8] = b"***";
/// Shorter values are words that occur anywhere; masking them would hide output and protect nothing.
const SHORTEST: usize = 4;
/// What RFC 3986 calls unreserved stays as it is.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Replaces secrets by `***`: as they are, each of their lines, as base64 (both alphabets, also in the middle of a longer encoding),
/// URL-encoded, and as they stand in a JSON string. Values under 4 bytes are not masked. Cheap to clone.
///
/// ```
/// use flowline_core::secret::Secret;
/// use flowline_pipeline::exec::Masker;
/// let masker = Masker::new(&[Secret::new("hunter2!")]);
/// assert_eq!(masker.mask(b"password=hunter2! or aHVudGVyMiE= or hunter2%21"), b"password=*** or ***= or ***");
/// ```
#[derive(Clone, Default)]
pub struct Masker(Option<Arc<Forms>>);

struct Forms {
    secrets: Vec<Secret>,
    texts: Vec<Vec<u8>>,
    find: AhoCorasick,
    longest: usize,
}

impl Masker {
    /// Masks `secrets`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self::of(secrets.into_iter().cloned().collect())
    }

    /// Masks what this masks, and `secrets`.
    #[must_use]
    pub fn with<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let known = self.0.as_ref().map_or(&[][..], |forms| &forms.secrets);
        let mut all = known.to_vec();
        for secret in secrets {
            if !all.iter().any(|known| known.expose() == secret.expose()) {
                all.push(secret.clone());
            }
        }
        if all.len() == known.len() { self.clone() } else { Self::of(all) }
    }

    fn of(secrets: Vec<Secret>) -> Self {
        let mut forms: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| forms_of(secret.expose())).collect();
        forms.retain(|form| form.len() >= SHORTEST);
        forms.sort_unstable();
        forms.dedup();
        if forms.is_empty() {
            return Self(None);
        }
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        // Building fails only for gigabytes of patterns.
        match AhoCorasick::builder().match_kind(MatchKind::Standard).build(&forms) {
            Ok(find) => Self(Some(Arc::new(Forms { secrets, texts: forms, find, longest }))),
            Err(_) => Self(None),
        }
    }

    /// `bytes` with every secret masked.
    pub fn mask(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.stream();
        let mut out = Vec::with_capacity(bytes.len());
        stream.push(bytes, &mut out);
        stream.finish(&mut out);
        out
    }

    /// Masks a stream that comes in pieces.
    pub(crate) fn stream(&self) -> MaskStream {
        MaskStream { masker: self.clone(), held: Vec::new(), covered: 0 }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masker({} forms)", self.0.as_ref().map_or(0, |forms| forms.texts.len()))
    }
}

/// Every form in which `secret` may be printed.
fn forms_of(secret: &str) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    let lines = secret.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut plain: Vec<&str> = lines.collect();
    plain.push(secret);
    plain.push(secret.trim());
    for text in plain {
        forms.push(text.as_bytes().to_vec());
        let encoded = utf8_percent_encode(text, RESERVED).to_string();
        for encoded in [lower_escapes(&encoded), encoded] {
            forms.push(encoded.replace("%20", "+").into_bytes());
            forms.push(encoded.into_bytes());
        }
        if let Ok(json) = serde_json::to_string(text) {
            forms.push(json.as_bytes()[1..json.len() - 1].to_vec());
        }
        if text.len() >= SHORTEST {
            forms.extend((0..3).flat_map(|before| base64_inside(text.as_bytes(), before)));
        }
    }
    forms
}

/// The characters that base64 gives for `bytes` alone when `before` bytes (modulo 3) precede them: those that stay whatever follows, and
/// all of them, for when nothing does.
fn base64_inside(bytes: &[u8], before: usize) -> [Vec<u8>; 4] {
    let mut padded = vec![0; before];
    padded.extend_from_slice(bytes);
    let first = (before * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    let (standard, url_safe) = (STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded));
    let part = |text: &str, last: usize| text.as_bytes().get(first..last).unwrap_or_default().to_vec();
    [
        part(&standard, last),
        part(&standard, standard.len()),
        part(&url_safe, last),
        part(&url_safe, url_safe.len()),
    ]
}

/// `%2F` as `%2f`.
fn lower_escapes(encoded: &str) -> String {
    let mut text = String::with_capacity(encoded.len());
    let mut escape = 0;
    for character in encoded.chars() {
        escape = if character == '%' { 2 } else { escape };
        text.push(if escape > 0 { character.to_ascii_lowercase() } else { character });
        escape -= i32::from(escape > 0 && character != '%');
    }
    text
}

/// Masks a stream whose secrets may be split over any number of pieces. Holds back no more than the longest form.
#[derive(Debug)]
pub(crate) struct MaskStream {
    masker: Masker,
    /// The end of what came so far, as it may be the beginning of a secret.
    held: Vec<u8>,
    /// So many bytes of `held` belong to a secret whose mask was written already.
    covered: usize,
}

impl MaskStream {
    /// Takes `bytes` and appends to `out` what is certain.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(forms) = self.masker.0.clone() else {
            out.extend_from_slice(bytes);
            return;
        };
        self.held.extend_from_slice(bytes);
        let keep_from = forms.unfinished(&self.held);
        self.settle(&forms, keep_from, out);
    }

    /// The stream ended: what was held back was no secret.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(forms) = self.masker.0.clone() {
            let end = self.held.len();
            self.settle(&forms, end, out);
        }
    }

    /// Writes everything before `keep_from`, masked. Secrets that overlap are masked as one.
    fn settle(&mut self, forms: &Forms, keep_from: usize, out: &mut Vec<u8>) {
        let mut spans: Vec<(usize, usize)> =
            forms.find.find_overlapping_iter(&self.held).map(|found| (found.start(), found.end())).collect();
        spans.sort_unstable();
        // Everything before it is written, as it is or as a mask.
        let mut written = self.covered;
        for (start, end) in spans.into_iter().take_while(|(start, _)| *start < keep_from) {
            if start >= written {
                out.extend_from_slice(&self.held[written..start]);
                out.extend_from_slice(MASK);
            }
            written = written.max(end);
        }
        if written < keep_from {
            out.extend_from_slice(&self.held[written..keep_from]);
        }
        self.covered = written.saturating_sub(keep_from);
        self.held.drain(..keep_from);
    }
}

impl Forms {
    /// Where the longest end of `bytes` begins that is the beginning, but not all, of a form.
    fn unfinished(&self, bytes: &[u8]) -> usize {
        let earliest = bytes.len().saturating_sub(self.longest - 1);
        (earliest..bytes.len())
            .find(|start| {
                let end = &bytes[*start..];
                // The forms are in order, so those that begin with `end` stand together.
                let first = self.texts.partition_point(|form| form.as_slice() < end);
                self.texts[first..]
                    .iter()
                    .take_while(|form| form.starts_with(end))
                    .any(|form| form.len() > end.len())
            })
            .unwrap_or(bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(masker: &Masker, chunks: &[&[u8]]) -> Vec<u8> {
        let mut stream = masker.stream();
        let mut out = Vec::new();
        for chunk in chunks {
            stream.push(chunk, &mut out);
        }
        stream.finish(&mut out);
        out
    }

    #[test]
    fn every_usual_form_is_masked() {
        let masker = Masker::new(&[Secret::new("p/ss \"wörd\"\nsecond line?")]);
        let secret = "p/ss \"wörd\"\nsecond line?";
        for text in [
            secret.to_owned(),
            "second line?".to_owned(),
            base64::engine::general_purpose::STANDARD.encode(secret),
            base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}@host")),
            base64::engine::general_purpose::URL_SAFE.encode(format!("us:{secret}")),
            utf8_percent_encode("second line?", RESERVED).to_string(),
            "second+line%3f".to_owned(),
            serde_json::to_string(secret).unwrap(),
        ] {
            let out = String::from_utf8(masker.mask(format!("<{text}>").as_bytes())).unwrap();
            assert!(out.starts_with('<') && out.ends_with('>'), "{out}");
            assert!(out.contains("***"), "{text} became {out}");
            for part in ["p/ss", "wörd", "second", "c2Vjb25k"] {
                assert!(!out.contains(part), "{text} became {out}");
            }
        }
    }

    #[test]
    fn overlapping_secrets_leave_no_rest() {
        let masker = Masker::new(&[Secret::new("abcd"), Secret::new("cdefg"), Secret::new("aaaa")]);
        assert_eq!(masker.mask(b"xabcdefgx"), b"x***x");
        assert_eq!(masker.mask(b"xaaaaaaaaax"), b"x***x");
        assert_eq!(masked(&masker, &[b"xaaaaa", b"aaaa", b"x"]), b"x***x");
    }

    #[test]
    fn memory_stays_bounded_in_an_endless_secret() {
        let masker = Masker::new(&[Secret::new("aaaa")]);
        let mut stream = masker.stream();
        let mut out = Vec::new();
        for _ in 0..1_000 {
            stream.push(b"aaaaaaaaaa", &mut out);
            assert!(stream.held.len() < 16);
        }
        stream.finish(&mut out);
        assert_eq!(out, b"***");
    }

    #[test]
    fn short_values_are_words() {
        assert_eq!(Masker::new(&[Secret::new("abc")]).mask(b"abc"), b"abc");
    }

    proptest! {
        #[test]
        fn no_split_shows_a_secret(
            before in "[ab]{0,8}", secret in "[ab]{4,7}", after in "[abc]{0,8}", other in "[ab]{4,5}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)
        ) {
            let masker = Masker::new(&[Secret::new(&secret), Secret::new(&other)]);
            let text = format!("{before}{secret}{after}").into_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut at = 0;
            for cut in cuts { chunks.push(&text[at..cut]); at = cut; }
            chunks.push(&text[at..]);
            let whole = masker.mask(&text);
            prop_assert_eq!(&masked(&masker, &chunks), &whole);
            // By the definition: every byte of every occurrence is gone, every other byte stays.
            let mut secret_bytes = vec![false; text.len()];
            for needle in [secret.as_bytes(), other.as_bytes()] {
                for start in 0..text.len() {
                    if text[start..].starts_with(needle) { secret_bytes[start..start + needle.len()].fill(true); }
                }
            }
            let kept: Vec<u8> = text.iter().zip(&secret_bytes).filter(|(_, hidden)| !**hidden).map(|(byte, _)| *byte).collect();
            let shown: Vec<u8> = whole.iter().copied().filter(|byte| *byte != b'*').collect();
            prop_assert_eq!(shown, kept);
        }
    }
}
