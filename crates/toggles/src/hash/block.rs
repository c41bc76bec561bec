//! MD5 and SHA-1 of short texts: one block on the stack and the compression function, without the machinery for streams.

/// What a hash of 64-byte blocks is made of.
pub(crate) trait Compress {
    /// Whether the length at the end stands with its highest byte first.
    const BIG_ENDIAN: bool;
    /// Takes a block.
    fn compress(&mut self, block: &[u8; 64]);
}

/// The state of MD5 (RFC 1321).
#[derive(Debug, Clone)]
pub(crate) struct Md5([u32; 4]);

/// The state of SHA-1 (FIPS 180-4).
#[derive(Debug, Clone)]
pub(crate) struct Sha1([u32; 5]);

impl Default for Md5 {
    fn default() -> Self {
        Self([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476])
    }
}

impl Default for Sha1 {
    fn default() -> Self {
        Self([0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0])
    }
}

impl Compress for Md5 {
    const BIG_ENDIAN: bool = false;

    fn compress(&mut self, block: &[u8; 64]) {
        md5::block_api::compress(&mut self.0, std::slice::from_ref(block));
    }
}

impl Compress for Sha1 {
    const BIG_ENDIAN: bool = true;

    fn compress(&mut self, block: &[u8; 64]) {
        sha1::block_api::compress(&mut self.0, std::slice::from_ref(block));
    }
}

impl Md5 {
    /// The first 4 bytes of the digest, big-endian.
    pub(crate) fn first_32(&self) -> u32 {
        self.0[0].swap_bytes()
    }
}

impl Sha1 {
    /// The first 8 bytes of the digest, big-endian.
    pub(crate) fn first_64(&self) -> u64 {
        u64::from(self.0[0]) << 32 | u64::from(self.0[1])
    }
}

/// A text in pieces, cut into blocks.
#[derive(Debug, Clone)]
pub(crate) struct Blocks<H> {
    state: H,
    block: [u8; 64],
    /// How many bytes were taken; those of the block that is not full yet are in `block`.
    length: u64,
}

impl<H: Default> Default for Blocks<H> {
    #[inline]
    fn default() -> Self {
        Self { state: H::default(), block: [0; 64], length: 0 }
    }
}

impl<H: Compress> Blocks<H> {
    /// Takes `bytes`.
    #[inline]
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        while !bytes.is_empty() {
            let filled = usize::from(self.filled());
            let room = self.block.get_mut(filled..).unwrap_or_default();
            let (now, later) = bytes.split_at_checked(room.len()).unwrap_or((bytes, &[]));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.length += now.len() as u64;
            if self.filled() == 0 {
                self.state.compress(&self.block);
            }
            bytes = later;
        }
    }

    /// The state after everything, padding and length included.
    #[inline]
    pub(crate) fn finish(mut self) -> H {
        const LENGTH: usize = 56;
        let bits = self.length.wrapping_mul(8);
        let filled = usize::from(self.filled());
        if let Some(rest) = self.block.get_mut(filled..) {
            rest.fill(0);
        }
        if let Some(end) = self.block.get_mut(filled) {
            *end = 0x80;
        }
        if filled >= LENGTH {
            self.state.compress(&self.block);
            self.block = [0; 64];
        }
        let bits = if H::BIG_ENDIAN { bits.to_be_bytes() } else { bits.to_le_bytes() };
        if let Some(place) = self.block.last_chunk_mut() {
            *place = bits;
        }
        self.state.compress(&self.block);
        self.state
    }

    #[inline]
    fn filled(&self) -> u8 {
        (self.length % 64) as u8
    }
}

#[cfg(test)]
mod tests {
    use sha1::Digest;

    use super::*;

    #[test]
    fn they_agree_with_the_streaming_ones_at_every_length_and_cut() {
        let text: Vec<u8> = (0..200_u8).map(|n| n.wrapping_mul(37)).collect();
        for length in 0..text.len() {
            for cut in [0, length / 3, length / 2, length] {
                let (one, two) = text[..length].split_at(cut);
                let (mut ours, mut theirs) = (Blocks::<Md5>::default(), md5::Md5::new());
                for piece in [one, two] {
                    ours.take(piece);
                    theirs.update(piece);
                }
                let digest = theirs.finalize();
                assert_eq!(ours.finish().first_32(), u32::from_be_bytes(digest[..4].try_into().unwrap()));
                let (mut ours, mut theirs) = (Blocks::<Sha1>::default(), sha1::Sha1::new());
                for piece in [one, two] {
                    ours.take(piece);
                    theirs.update(piece);
                }
                let digest = theirs.finalize();
                assert_eq!(ours.finish().first_64(), u64::from_be_bytes(digest[..8].try_into().unwrap()));
            }
        }
    }
}
