//! A stream is read in three ways at once: as it is, with its escapes decoded, and with its line breaks taken out.
//!
//! The first way is the rule. The others branch off from it where an escape or a break stands, and end where they would find nothing that
//! the first does not, so that they cost nothing elsewhere. Each byte is read once in each, whatever the pieces that it comes in.

use aho_corasick::automaton::StateID;

use super::{
    escape::{self, Escape, Read},
    forms::Forms,
};

/// More spaces than this between two lines are no indentation.
const LONGEST_BREAK: usize = 80;

/// Where secrets stand, as places in the stream.
pub(super) type Span = (usize, usize);

/// Reads a stream and finds the secrets in it. Places count from the stream's beginning.
#[derive(Clone)]
pub(super) struct Reading {
    plain: StateID,
    decoded: Option<Branch>,
    /// The escape that is read now ends here.
    escaped_to: usize,
    joined: Option<Branch>,
    /// The break that is read now ends here.
    broken_to: usize,
    /// Where it begins.
    broken_from: usize,
}

/// A way of reading that differs from the stream.
#[derive(Clone)]
struct Branch {
    state: StateID,
    /// How many bytes it has read.
    read: usize,
    /// Which of them was the first of a piece that stands in the stream as it is, and where.
    pieces: Vec<(usize, usize)>,
    /// Where the next byte stands if the piece goes on.
    next: usize,
}

impl Branch {
    /// Leaves what is read plainly, at `place`.
    fn at(place: usize, state: StateID) -> Self {
        Self { state, read: place, pieces: vec![(0, 0)], next: place }
    }

    fn read(&mut self, forms: &Forms, byte: u8, place: usize) {
        if place != self.next {
            self.pieces.push((self.read, place));
        }
        (self.read, self.next) = (self.read + 1, place + 1);
        self.state = forms.next(self.state, byte);
    }

    /// Where the byte stands that was read `before` the end.
    fn place(&self, before: usize) -> usize {
        let at = self.read - before;
        let piece = self.pieces.partition_point(|(first, _)| *first <= at).saturating_sub(1);
        self.pieces.get(piece).map_or(at, |(first, place)| place + (at - first))
    }

    /// Where the form begins whose end may come yet.
    fn unfinished(&self, forms: &Forms) -> usize {
        self.place(forms.depth(self.state))
    }

    /// Forgets the pieces before the form whose end may come yet.
    fn forget(&mut self, forms: &Forms) {
        let from = self.read - forms.depth(self.state);
        let piece = self.pieces.partition_point(|(first, _)| *first <= from).saturating_sub(1);
        self.pieces.drain(..piece);
    }
}

impl Reading {
    pub(super) fn new(forms: &Forms) -> Self {
        Self {
            plain: forms.start(),
            decoded: None,
            escaped_to: 0,
            joined: None,
            broken_to: 0,
            broken_from: 0,
        }
    }

    /// Reads `bytes`, which stand at `place`, as far as can be without knowing what follows, if anything does: how many it has read. Adds
    /// what it finds to `found`.
    pub(super) fn read(
        &mut self,
        forms: &Forms,
        bytes: &[u8],
        place: usize,
        ended: bool,
        found: &mut Vec<Span>,
    ) -> usize {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            let (here, before) = (place + at, self.plain);
            if before == forms.start() && self.decoded.is_none() && self.joined.is_none() {
                let idle = forms.idle(&bytes[at..]);
                if idle > 0 {
                    at += idle;
                    continue;
                }
            }
            let mut broken = usize::from(matches!(byte, b'\n' | b'\r' | b' ' | b'\t'));
            if matches!(byte, b'%' | b'\\') && here >= self.escaped_to {
                match escape::read(&bytes[at..], ended) {
                    Read::More => return at,
                    Read::Escape(escape) => {
                        self.escaped(forms, &escape, here, found);
                        if matches!(escape.bytes(), b"\n" | b"\r") {
                            broken = escape.length;
                        }
                    }
                    Read::Literal => {}
                }
            }
            self.plain = forms.next(before, byte);
            if forms.is_match(self.plain) {
                found.extend(forms.longest(self.plain, false).map(|length| (here + 1 - length, here + 1)));
            }
            if let Some(branch) = &mut self.decoded
                && here >= self.escaped_to
            {
                branch.read(forms, byte, here);
                if forms.is_match(branch.state) {
                    let length = forms.longest(branch.state, false);
                    found.extend(length.map(|length| (branch.place(length), here + 1)));
                }
                // From here on it finds what is found plainly.
                if branch.state == self.plain || branch.state == forms.start() {
                    self.decoded = None;
                }
            }
            at += 1;
            if broken > 0 {
                self.broken(forms, before, here, broken);
            } else if here >= self.broken_to
                && let Some(branch) = &mut self.joined
            {
                branch.read(forms, byte, here);
                if forms.is_match(branch.state) {
                    let length = forms.longest(branch.state, true);
                    found.extend(length.map(|length| (branch.place(length), here + 1)));
                }
                if branch.state == self.plain || branch.state == forms.start() {
                    self.joined = None;
                }
            }
        }
        bytes.len()
    }

    /// Where the earliest secret begins whose end may come yet; `place` is where the next byte stands.
    pub(super) fn unfinished(&mut self, forms: &Forms, place: usize) -> usize {
        let plain = place - forms.depth(self.plain);
        [&mut self.decoded, &mut self.joined].into_iter().flatten().fold(plain, |earliest, branch| {
            branch.forget(forms);
            earliest.min(branch.unfinished(forms))
        })
    }

    /// Reads what `escape`, which stands `here`, stands for.
    fn escaped(&mut self, forms: &Forms, escape: &Escape, here: usize, found: &mut Vec<Span>) {
        self.escaped_to = here + escape.length;
        let branch = self.decoded.get_or_insert_with(|| Branch::at(here, self.plain));
        for byte in escape.bytes() {
            branch.read(forms, *byte, here);
            if forms.is_match(branch.state) {
                let length = forms.longest(branch.state, false);
                found.extend(length.map(|length| (branch.place(length), self.escaped_to)));
            }
        }
        if branch.state == forms.start() {
            self.decoded = None;
        }
    }

    /// A break of `length` stands `here`, or goes on; `before` is how things stood before it.
    fn broken(&mut self, forms: &Forms, before: StateID, here: usize, length: usize) {
        if here > self.broken_to || self.broken_to == 0 {
            self.broken_from = here;
        }
        self.broken_to = here + length;
        if self.broken_to - self.broken_from > LONGEST_BREAK {
            self.joined = None;
        } else if self.joined.is_none() && before != forms.start() {
            self.joined = Some(Branch::at(here, before));
        }
    }
}
