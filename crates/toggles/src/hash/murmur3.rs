//! Murmur3 x86 32-bit (Austin Appleby's public-domain `MurmurHash3`), in pieces.

const C1: u32 = 0xcc9e_2d51;
const C2: u32 = 0x1b87_3593;

/// The hash of `bytes` under `seed`.
///
/// ```
/// use flowline_toggles::hash::murmur3;
/// assert_eq!(murmur3(b"gr1:123", 0), 538_421_172);
/// assert_eq!(murmur3("na\u{ef}ve:\u{fc}".as_bytes(), 0), 39_013_327);
/// assert_eq!(murmur3(b"toggle:user-1", 86_028_157), 1_857_754_454);
/// ```
#[inline]
pub fn murmur3(bytes: &[u8], seed: u32) -> u32 {
    let mut hash = Murmur3::new(seed);
    hash.update(bytes);
    hash.finish()
}

/// Murmur3 x86 32-bit over bytes that come in pieces.
#[derive(Debug, Clone)]
pub struct Murmur3 {
    hash: u32,
    /// Bytes that do not fill a block yet, the first in the lowest place.
    tail: u32,
    pending: u32,
    length: u32,
}

impl Murmur3 {
    /// The hash under `seed`.
    #[inline]
    pub fn new(seed: u32) -> Self {
        Self { hash: seed, tail: 0, pending: 0, length: 0 }
    }

    /// Takes `bytes`.
    #[inline]
    pub fn update(&mut self, bytes: &[u8]) {
        #[expect(clippy::cast_possible_truncation, reason = "the algorithm counts modulo 2^32")]
        let length = bytes.len() as u32;
        self.length = self.length.wrapping_add(length);
        let mut bytes = bytes;
        while self.pending != 0 {
            let Some((first, rest)) = bytes.split_first() else { return };
            self.take(*first);
            bytes = rest;
        }
        let (blocks, rest) = bytes.as_chunks::<4>();
        for block in blocks {
            self.block(u32::from_le_bytes(*block));
        }
        for byte in rest {
            self.take(*byte);
        }
    }

    /// The hash of everything taken.
    #[inline]
    pub fn finish(self) -> u32 {
        let mut hash = self.hash;
        if self.pending != 0 {
            hash ^= self.tail.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
        }
        hash ^= self.length;
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(0x85eb_ca6b);
        hash ^= hash >> 13;
        hash = hash.wrapping_mul(0xc2b2_ae35);
        hash ^ (hash >> 16)
    }

    #[inline]
    fn take(&mut self, byte: u8) {
        self.tail |= u32::from(byte) << (8 * self.pending);
        self.pending += 1;
        if self.pending == 4 {
            let block = self.tail;
            self.tail = 0;
            self.pending = 0;
            self.block(block);
        }
    }

    #[inline]
    fn block(&mut self, block: u32) {
        self.hash ^= block.wrapping_mul(C1).rotate_left(15).wrapping_mul(C2);
        self.hash = self.hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_the_hash_of_the_whole() {
        let text = "fractional-flag-shorthandjon@company.com";
        assert_eq!(murmur3(text.as_bytes(), 0), 618_039_204);
        for cut in 0..text.len() {
            for second in cut..text.len() {
                let mut hash = Murmur3::new(0);
                for piece in [&text[..cut], &text[cut..second], &text[second..]] {
                    hash.update(piece.as_bytes());
                }
                assert_eq!(hash.finish(), 618_039_204, "{cut} {second}");
            }
        }
    }

    #[test]
    fn known_vectors() {
        for (text, hash) in [
            ("groupX:999", 3_843_606_124),
            ("fractional-flagjack", 2_682_799_072),
            ("ejOoVL", 0),
            ("SI7p-", 2_147_483_647),
            ("6LvT0", 2_147_483_648),
            ("ceQdGm", 4_294_967_295),
        ] {
            assert_eq!(murmur3(text.as_bytes(), 0), hash, "{text}");
        }
    }
}
