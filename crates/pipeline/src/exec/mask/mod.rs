//! What must not be seen: a [`Masker`] finds secrets in bytes, in every form that they are commonly printed in.

mod escape;
mod forms;
mod reading;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use flowline_core::secret::Secret;

use self::{
    forms::Forms,
    reading::{Reading, Span},
};

/// What stands where a secret stood.
const MASK: &[u8] = b"***";

/// Replaces secrets by `***`: as they are, and each of their lines; as base64 (both alphabets, also in the middle of a longer encoding, also
/// with its lines broken and indented); in a URL or a form, whichever characters are escaped; in a JSON string. Values and lines under
/// 4 bytes are not masked. Cheap to clone; making one takes about 3 µs and half a KiB for each byte of the secrets.
///
/// ```
/// use flowline_core::secret::Secret;
/// use flowline_pipeline::exec::Masker;
/// let masker = Masker::new(&[Secret::new("hunter2!")]);
/// assert_eq!(masker.mask(b"password=hunter2! or aHVudGVyMiE= or hunter2%21"), b"password=*** or ***= or ***");
/// ```
#[derive(Clone, Default)]
pub struct Masker(Option<Arc<Known>>);

struct Known {
    secrets: Vec<Secret>,
    forms: Forms,
}

impl Masker {
    /// Masks `secrets`.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        Self::of(secrets.into_iter().cloned().collect())
    }

    /// Masks what this masks, and `secrets`.
    #[must_use]
    pub fn with<'a>(&self, secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let known = self.0.as_ref().map_or(&[][..], |known| &known.secrets);
        let mut all = known.to_vec();
        for secret in secrets {
            if !all.iter().any(|known| known.expose() == secret.expose()) {
                all.push(secret.clone());
            }
        }
        if all.len() == known.len() { self.clone() } else { Self::of(all) }
    }

    fn of(secrets: Vec<Secret>) -> Self {
        let forms = Forms::of(secrets.iter().map(Secret::expose));
        Self(forms.map(|forms| Arc::new(Known { secrets, forms })))
    }

    /// `bytes` with every secret masked.
    pub fn mask(&self, bytes: &[u8]) -> Vec<u8> {
        let Some(known) = &self.0 else { return bytes.to_vec() };
        let mut found = Vec::new();
        Reading::new(&known.forms).read(&known.forms, bytes, 0, true, &mut found);
        let mut out = Vec::with_capacity(bytes.len());
        write_masked(bytes, 0, bytes.len(), &mut found, &mut 0, &mut out);
        out
    }

    /// `text` with every secret masked.
    pub(crate) fn mask_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.mask(text.as_bytes())).into_owned()
    }

    /// Whether a secret stands in `bytes`, in any form that would be masked.
    pub fn finds_in(&self, bytes: &[u8]) -> bool {
        let Some(known) = &self.0 else { return false };
        let mut found = Vec::new();
        Reading::new(&known.forms).read(&known.forms, bytes, 0, true, &mut found);
        !found.is_empty()
    }

    /// Whether it masks `secret`.
    pub(crate) fn knows(&self, secret: &Secret) -> bool {
        let mut known = self.0.iter().flat_map(|known| &known.secrets);
        known.any(|known| known.expose() == secret.expose())
    }

    /// Whether it masks nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Masks a stream that comes in pieces.
    pub(crate) fn stream(&self) -> MaskStream {
        let reading = self.0.as_ref().map(|known| (Arc::clone(known), Reading::new(&known.forms)));
        MaskStream { reading, held: Vec::new(), from: 0, read: 0, written: 0, found: Vec::new() }
    }
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Masker({} forms)", self.0.as_ref().map_or(0, |known| known.forms.len()))
    }
}

/// Masks a stream whose secrets may be split over any number of pieces. Holds back what may be the beginning of a secret, and no more.
pub(crate) struct MaskStream {
    reading: Option<(Arc<Known>, Reading)>,
    /// The end of what came so far.
    held: Vec<u8>,
    /// Where it begins in the stream. These and all other places count from the stream's beginning.
    from: usize,
    /// What stands before this was read.
    read: usize,
    /// What stands before this was written, as it is or as a mask.
    written: usize,
    /// Secrets that are not all written yet.
    found: Vec<Span>,
}

impl MaskStream {
    /// Takes `bytes` and appends to `out` what is certain.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.reading.is_none() {
            out.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        self.settle(false, out);
    }

    /// The stream ended: what was held back was no secret.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.settle(true, out);
    }

    /// Reads what is held, and writes what can be no secret's beginning.
    fn settle(&mut self, ended: bool, out: &mut Vec<u8>) {
        let Some((known, reading)) = &mut self.reading else { return };
        let fresh = &self.held[self.read - self.from..];
        self.read += reading.read(&known.forms, fresh, self.read, ended, &mut self.found);
        let until = if ended { self.read } else { reading.unfinished(&known.forms, self.read) };
        write_masked(&self.held, self.from, until, &mut self.found, &mut self.written, out);
        self.held.drain(..until - self.from);
        self.from = until;
    }
}

impl fmt::Debug for MaskStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is held may be a secret's beginning.
        f.debug_struct("MaskStream").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// Writes what stands before `until` to `out`, with what was `found` there masked; secrets that overlap are masked as one. `bytes` stand at
/// `from`; what stands before `written` was written already.
fn write_masked(
    bytes: &[u8],
    from: usize,
    until: usize,
    found: &mut Vec<Span>,
    written: &mut usize,
    out: &mut Vec<u8>,
) {
    found.sort_unstable();
    let now = found.partition_point(|(start, _)| *start < until);
    for (start, end) in found.drain(..now) {
        if start >= *written {
            out.extend_from_slice(&bytes[*written - from..start - from]);
            out.extend_from_slice(MASK);
        }
        *written = (*written).max(end);
    }
    if *written < until {
        out.extend_from_slice(&bytes[*written - from..until - from]);
        *written = until;
    }
}
