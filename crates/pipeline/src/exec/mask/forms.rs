//! The forms in which a secret is looked for, and the automaton that finds them all at once.
//!
//! Escapes are not enumerated: whoever escapes chooses which characters, so the stream is read a second time with its escapes decoded (see
//! [`reading`](super::reading)). What can't be decoded on the way, as nobody knows where it begins, is enumerated here: base64 at each of
//! the three places that a byte may have in a group of three.

use std::{collections::BTreeMap, sync::OnceLock};

use aho_corasick::{
    Anchored, MatchKind,
    automaton::{Automaton, StateID},
    nfa::contiguous::NFA,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

/// Shorter values are words that occur anywhere; masking them would hide output and protect nothing.
pub(super) const SHORTEST: usize = 4;
/// Where `openssl base64` and PEM, and where `base64` and MIME, break lines.
const LINES: [usize; 2] = [64, 76];
/// What is shorter could be anything if it stood alone on a line, or in pieces.
const SHORTEST_PIECE: usize = 16;

/// All forms of all secrets.
pub(super) struct Forms {
    find: NFA,
    start: StateID,
    /// The bytes that begin nothing: no form, no escape.
    idle: Box<[bool; 256]>,
    /// Whether a form stays what it is if lines are broken within it, by pattern.
    breaks: Vec<bool>,
    texts: Vec<Vec<u8>>,
    depths: OnceLock<BTreeMap<StateID, usize>>,
}

impl Forms {
    /// The forms of `secrets`; `None` if there is nothing to look for.
    pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut forms: Vec<(Vec<u8>, bool)> = Vec::new();
        secrets.for_each(|secret| collect(secret, &mut forms));
        forms.retain(|(form, _)| form.len() >= SHORTEST);
        // The one that may be broken counts, if both are there.
        forms.sort_unstable_by(|one, other| (&one.0, other.1).cmp(&(&other.0, one.1)));
        forms.dedup_by(|one, other| one.0 == other.0);
        if forms.is_empty() {
            return None;
        }
        let (texts, breaks): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        // Building fails only for gigabytes of patterns.
        let find = NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(&texts).ok()?;
        let start = find.start_state(Anchored::No).ok()?;
        let mut idle = Box::new([true; 256]);
        for byte in texts.iter().filter_map(|form| form.first()).chain(b"%\\") {
            idle[usize::from(*byte)] = false;
        }
        Some(Self { find, start, idle, breaks, texts, depths: OnceLock::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The state before anything was read.
    pub(super) fn start(&self) -> StateID {
        self.start
    }

    /// How many of the first of `bytes` begin nothing.
    pub(super) fn idle(&self, bytes: &[u8]) -> usize {
        bytes.iter().position(|byte| !self.idle[usize::from(*byte)]).unwrap_or(bytes.len())
    }

    #[inline]
    pub(super) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.find.next_state(Anchored::No, state, byte)
    }

    #[inline]
    pub(super) fn is_match(&self, state: StateID) -> bool {
        self.find.is_match(state)
    }

    /// The length of the longest form that ends in this state; with `broken`, of those that may have line breaks in them.
    pub(super) fn longest(&self, state: StateID, broken: bool) -> Option<usize> {
        let ending = (0..self.find.match_len(state)).map(|index| self.find.match_pattern(state, index));
        ending
            .filter(|form| !broken || self.breaks[form.as_usize()])
            .map(|form| self.find.pattern_len(form))
            .max()
    }

    /// How many of the bytes that were read last may be the beginning of a form.
    pub(super) fn depth(&self, state: StateID) -> usize {
        if state == self.start {
            return 0;
        }
        let depths = self.depths.get_or_init(|| {
            let mut depths = BTreeMap::new();
            for form in &self.texts {
                let mut state = self.start;
                for (before, byte) in form.iter().enumerate() {
                    state = self.next(state, *byte);
                    depths.insert(state, before + 1);
                }
            }
            depths
        });
        depths.get(&state).copied().unwrap_or(0)
    }
}

/// Adds every form in which `secret` may be printed, and whether it may have line breaks in it.
fn collect(secret: &str, forms: &mut Vec<(Vec<u8>, bool)>) {
    let mut texts: Vec<&str> = secret.lines().map(str::trim).collect();
    texts.extend([secret, secret.trim()]);
    texts.retain(|text| text.len() >= SHORTEST);
    texts.sort_unstable();
    texts.dedup();
    for text in texts {
        // What is long and has no space of its own is not taken for anything else if it is broken.
        forms.push((
            text.as_bytes().to_vec(),
            text.len() >= SHORTEST_PIECE && !text.contains(char::is_whitespace),
        ));
        // As forms are sent, with all else decoded.
        forms.push((text.replace(' ', "+").into_bytes(), false));
        // Where decoding would take a part of the secret itself for an escape.
        if let Ok(json) = serde_json::to_string(text) {
            forms.push((json.as_bytes()[1..json.len() - 1].to_vec(), false));
        }
        forms.extend(
            (0..3).flat_map(|before| base64_inside(text.as_bytes(), before)).map(|form| (form, true)),
        );
    }
    // Each line of its base64, for when they come one by one.
    let whole = STANDARD_NO_PAD.encode(secret);
    for length in LINES.into_iter().filter(|length| *length < whole.len()) {
        let lines = whole.as_bytes().chunks(length).filter(|line| line.len() >= SHORTEST_PIECE);
        forms.extend(lines.map(|line| (line.to_vec(), true)));
    }
}

/// The characters that base64 gives for `bytes` alone when `before` bytes (modulo 3) precede them: those that stay whatever follows, and
/// all of them, for when nothing does. In both alphabets.
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
