//! Behaviour suites for this crate's traits, and wrappers that make a backend fail on purpose.
//!
//! [`faulty`] wraps any store so that it fails or crashes at the commit that a test chooses.
//!
//! A suite is a list of named cases. Each names the sentence of the contract that it checks, so a failure reads as the sentence that was
//! broken, and prints the seed that replays it. Nothing here needs an async runtime: [`block_on`] drives a future on the present thread.

pub mod faulty;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

pub use faulty::{Fault, FaultyStore, When};

/// A source of numbers that a seed decides: the same seed, the same numbers (`SplitMix64`; Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The source that `seed` decides.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of all 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias of a remainder does not matter in tests.
        self.number().checked_rem(limit).unwrap_or(0)
    }
}

/// Drives `future` on the present thread, which sleeps while it waits. For suites and tests; not inside an async runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
