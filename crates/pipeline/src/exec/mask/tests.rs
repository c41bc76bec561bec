//! Every form, cut anywhere.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
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

/// `text` as programs print it in base64, with lines of `length`, ended by `end` and what follows it.
fn broken(text: &str, length: usize, end: &str) -> String {
    let lines: Vec<_> = text.as_bytes().chunks(length).map(String::from_utf8_lossy).collect();
    lines.join(end)
}

/// Like a key: printable, without any repetition.
fn secret(length: usize) -> String {
    let mut state = 7_u32;
    let letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b'!' + (state >> 24) as u8 % 90)
    };
    std::iter::repeat_with(letter).take(length).collect()
}

/// Every form that a secret of any usual program's output has, with the number of characters in it that are not the secret's, and what
/// breaks its lines.
fn forms(secret: &str) -> Vec<(String, usize, &'static str)> {
    // What JavaScript's `encodeURI` and `encodeURIComponent`, Python's `quote`, RFC 3986 and forms leave as it is.
    const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'!')
        .remove(b'*')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')');
    const URI: &AsciiSet = &COMPONENT
        .remove(b';')
        .remove(b'/')
        .remove(b'?')
        .remove(b':')
        .remove(b'@')
        .remove(b'&')
        .remove(b'=')
        .remove(b'+')
        .remove(b'$')
        .remove(b',')
        .remove(b'#');
    const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    const QUOTE: &AsciiSet = &STRICT.remove(b'/');
    const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*');
    let mut forms = vec![(secret.to_owned(), 0, "")];
    for set in [COMPONENT, URI, STRICT, QUOTE, FORM, NON_ALPHANUMERIC] {
        let encoded = utf8_percent_encode(secret, set).to_string();
        forms.push((encoded.replace("%20", "+"), 0, ""));
        forms.push((
            encoded.to_lowercase().chars().zip(encoded.chars()).map(lower_escapes()).collect(),
            0,
            "",
        ));
        forms.push((encoded, 0, ""));
    }
    let json = serde_json::to_string(secret).unwrap();
    let ascii = |letter: char| {
        if letter.is_ascii() { letter.to_string() } else { format!("\\u{:04X}", u32::from(letter)) }
    };
    forms.push((json.replace('/', r"\/").replace('<', r"\u003c"), 2, ""));
    forms.push((json.chars().map(ascii).collect(), 2, ""));
    forms.push((json, 2, ""));
    for before in ["", "a", "ab"] {
        for after in ["", "@host", "\n"] {
            let text = format!("{before}{secret}{after}");
            let encoded = STANDARD.encode(&text);
            // At both ends a character holds bits of what stands beside the secret, and there may be two `=`.
            let around = (before.len() + after.len()).div_ceil(3) * 4 + 4;
            for (length, end) in
                [(64, "\n"), (76, "\r\n"), (76, "\n    "), (60, "\\n"), (64, " "), (4, "\n"), (70, "%0A")]
            {
                forms.push((broken(&encoded, length, end), around, end));
            }
            forms.push((URL_SAFE.encode(&text), around, ""));
            // The escapes of what stands around are longer.
            forms.push((utf8_percent_encode(&encoded, STRICT).to_string(), around + 4, ""));
            forms.push((encoded, around, ""));
        }
    }
    forms
}

/// The first of each pair within an escape, the second elsewhere.
fn lower_escapes() -> impl FnMut((char, char)) -> char {
    let mut left = 0;
    move |(lower, character)| {
        left = if character == '%' { 3 } else { left.max(1) - 1 };
        if left > 0 { lower } else { character }
    }
}

#[test]
fn every_usual_form_is_masked_wherever_it_is_cut() {
    let short = secret(60);
    for secret in ["p@ss!word", "p@ss/w0rd", "it's (a) ~*very* \"sec+ret\" wörd 100%", &short] {
        let masker = Masker::new(&[Secret::new(secret)]);
        for (form, around, end) in forms(secret) {
            let text = format!("key: {form}; and so on");
            let whole = String::from_utf8(masker.mask(text.as_bytes())).unwrap();
            assert!(
                whole.starts_with("key: ") && whole.ends_with("; and so on"),
                "{text:?} became {whole:?}"
            );
            let left = &whole[5..whole.len() - 11];
            let kept = left.replace("***", "").replace(if end.is_empty() { "***" } else { end }, "");
            assert!(left.contains("***") && kept.len() <= around, "{text:?} became {whole:?}");
            for cut in 0..=text.len() {
                let (one, two) = text.as_bytes().split_at(cut);
                assert_eq!(masked(&masker, &[one, two]), whole.as_bytes(), "{text:?} cut at {cut}");
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(masked(&masker, &bytes), whole.as_bytes(), "{text:?} byte by byte");
        }
    }
}

#[test]
fn a_long_secret_is_masked_wherever_it_is_cut() {
    let secret = secret(2_000);
    let masker = Masker::new(&[Secret::new(&secret)]);
    let base64 = STANDARD.encode(&secret);
    for form in [
        secret.clone(),
        broken(&base64, 76, "\n"),
        utf8_percent_encode(&secret, NON_ALPHANUMERIC).to_string(),
    ] {
        let text = format!("<{form}>");
        let whole = masker.mask(text.as_bytes());
        assert!(whole.starts_with(b"<***") && whole.len() < 12, "{}", String::from_utf8_lossy(&whole));
        for cut in 0..=text.len() {
            let (one, two) = text.as_bytes().split_at(cut);
            assert_eq!(masked(&masker, &[one, two]), whole, "cut at {cut}");
        }
    }
}

#[test]
fn lines_of_a_secret_are_masked_one_by_one() {
    let body = STANDARD.encode(secret(100));
    let pem = format!("-----BEGIN KEY-----\n{}\n-----END KEY-----\n", broken(&body, 64, "\n"));
    let masker = Masker::new(&[Secret::new(&pem)]);
    let encoded = broken(&STANDARD.encode(&pem), 76, "\n");
    for line in pem.lines().chain(encoded.lines()).filter(|line| line.len() >= 16) {
        let out = masker.mask(format!("| {line}").as_bytes());
        assert_eq!(String::from_utf8_lossy(&out).trim_end_matches('='), "| ***", "{line}");
    }
    assert_eq!(masker.mask(pem.replace('\n', "\r\n").as_bytes()), "***\r\n".repeat(5).as_bytes());
}

#[test]
fn what_is_no_secret_stays() {
    let masker = Masker::new(&[Secret::new("testing"), Secret::new("p@ss!word")]);
    for text in ["test ing", "100% \\ %2 \\u12", "p%40ss word", "C:\\new\\table%41", "dGVz.dGluZw"] {
        assert_eq!(String::from_utf8_lossy(&masker.mask(text.as_bytes())), text);
        assert!(!masker.finds_in(text.as_bytes()));
    }
    // A secret behind what looks like an escape's beginning.
    let masker = Masker::new(&[Secret::new("nabc"), Secret::new("41xyz")]);
    assert_eq!(masker.mask(b"C:\\nabc %41xyz"), b"C:\\*** %***");
    let masker = Masker::new(&[Secret::new("a%41b\\n")]);
    assert_eq!(masker.mask(b"a%41b\\n a%2541b%5cn a%41b\\\\n"), b"*** *** ***");
}

#[test]
fn a_long_indentation_is_no_break() {
    let masker = Masker::new(&[Secret::new("correct-horse")]);
    let encoded = STANDARD.encode("correct-horse");
    let apart = |spaces: usize| format!("{}{}{}", &encoded[..6], " ".repeat(spaces), &encoded[6..]);
    assert_eq!(masker.mask(apart(80).as_bytes()), b"***==");
    assert_eq!(masker.mask(apart(81).as_bytes()), apart(81).as_bytes());
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
