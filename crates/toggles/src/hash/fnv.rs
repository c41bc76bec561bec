//! FNV-1a 32-bit over UTF-16 code units, one step for each unit: what JavaScript's `charCodeAt` makes of it.

/// The hash of `text`.
///
/// ```
/// use flowline_toggles::hash::fnv1a;
/// assert_eq!(fnv1a("\u{e9}"), 1_812_687_940);
/// assert_eq!(fnv1a("\u{1f984}"), 3_240_876_223);
/// ```
#[inline]
pub fn fnv1a(text: &str) -> u32 {
    let mut hash = Fnv1a::default();
    hash.update(text);
    hash.finish()
}

/// The hash over texts that come in pieces.
#[derive(Debug, Clone)]
pub struct Fnv1a(u32);

impl Default for Fnv1a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv1a {
    /// Takes `text`.
    #[inline]
    pub fn update(&mut self, text: &str) {
        if text.is_ascii() {
            for byte in text.bytes() {
                self.unit(u16::from(byte));
            }
        } else {
            for unit in text.encode_utf16() {
                self.unit(unit);
            }
        }
    }

    /// The hash of everything taken.
    #[inline]
    pub fn finish(self) -> u32 {
        self.0
    }

    #[inline]
    fn unit(&mut self, unit: u16) {
        self.0 = (self.0 ^ u32::from(unit)).wrapping_mul(0x0100_0193);
    }
}
