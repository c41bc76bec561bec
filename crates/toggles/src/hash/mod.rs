//! The hashes by which vendors place people, over a stream of text pieces, so that nothing is put together on the heap.

mod block;
mod fnv;
mod murmur3;

use xxhash_rust::xxh3::Xxh3;

use self::block::{Blocks, Md5, Sha1};

pub use fnv::{Fnv1a, fnv1a};
pub use murmur3::{Murmur3, murmur3};

/// A hash that is fed pieces of text and then gives its number.
pub(crate) trait Feed {
    /// Takes a piece.
    fn feed(&mut self, text: &str);
    /// The number.
    fn number(self) -> u64;
}

impl Feed for Murmur3 {
    #[inline]
    fn feed(&mut self, text: &str) {
        self.update(text.as_bytes());
    }

    #[inline]
    fn number(self) -> u64 {
        u64::from(self.finish())
    }
}

impl Feed for Fnv1a {
    #[inline]
    fn feed(&mut self, text: &str) {
        self.update(text);
    }

    #[inline]
    fn number(self) -> u64 {
        u64::from(self.finish())
    }
}

/// GrowthBook's second version: the hash of the decimal text of the hash.
pub(crate) struct Fnv1aTwice(pub(crate) Fnv1a);

impl Feed for Fnv1aTwice {
    fn feed(&mut self, text: &str) {
        self.0.update(text);
    }

    fn number(self) -> u64 {
        let mut text = crate::engine::Scratch::default();
        u64::from(fnv1a(text.show(self.0.finish())))
    }
}

/// The first 60 bits of SHA-1.
#[derive(Default)]
pub(crate) struct Sha1Bits(Blocks<Sha1>);

impl Feed for Sha1Bits {
    #[inline]
    fn feed(&mut self, text: &str) {
        self.0.take(text.as_bytes());
    }

    #[inline]
    fn number(self) -> u64 {
        self.0.finish().first_64() >> 4
    }
}

/// The first 4 bytes of MD5, big-endian.
#[derive(Default)]
pub(crate) struct Md5Bits(Blocks<Md5>);

impl Feed for Md5Bits {
    #[inline]
    fn feed(&mut self, text: &str) {
        self.0.take(text.as_bytes());
    }

    #[inline]
    fn number(self) -> u64 {
        u64::from(self.0.finish().first_32())
    }
}

impl Feed for Xxh3 {
    fn feed(&mut self, text: &str) {
        self.update(text.as_bytes());
    }

    fn number(self) -> u64 {
        self.digest() >> 32
    }
}
