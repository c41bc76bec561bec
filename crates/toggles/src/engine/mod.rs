//! The engine: compiles a [`FlagSet`](crate::model::FlagSet) once, then evaluates flags for contexts.
//!
//! A [`Ruleset`] is immutable and shared. Evaluating is synchronous and needs no runtime; it takes no lock, never blocks or panics, and allocates
//! nothing for boolean and variant outcomes (the exceptions: comparing non-ASCII texts without regard to case, texts of the present
//! time or of the list of kinds, and whatever a format's own code does). Flags and segments may ask for each other up to [`MAX_DEPTH`] deep.

mod asks;
mod common;
mod compile;
mod custom;
pub(crate) mod cycles;
mod evaluate;
mod key;
mod node;
mod observe;
mod result;
mod ruleset;
mod scratch;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod version;
mod words;

use std::fmt::Debug;

use flowline_core::{
    Timestamp,
    clock::{Clock, SystemClock},
};

pub use custom::{Cycle, Decide, Decision, Exact, Predicate, Situation, ValueTest};
pub(crate) use evaluate::number_of;
pub(crate) use key::hash as key_hash;
pub use observe::{Came, Nobody, Observer, Part, Step, Trace};
pub use result::{Ask, Evaluation, Failure, Stage};
pub use ruleset::{Changes, FlagView, Ruleset, RulesetBuilder};
pub(crate) use scratch::Scratch;
pub(crate) use time::of_milliseconds;
pub use time::rfc3339;
pub(crate) use version::{Operand, Packed, parse as parse_version};
pub(crate) use words::WordSet;

/// How many flags and segments may be evaluated one within the other; deeper ones count as depending on themselves.
pub const MAX_DEPTH: usize = 64;

/// What an evaluation may need from outside: the time and chance. Asked only by flags that depend on either.
pub trait Ambient: Debug + Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;
    /// A random number, all 64 bits of it.
    fn random(&self) -> u64;
}

/// A time and a random number that were decided beforehand: evaluation becomes a function of its arguments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fixed {
    /// The present time.
    pub now: Timestamp,
    /// The random number.
    pub random: u64,
}

impl Ambient for Fixed {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn random(&self) -> u64 {
        self.random
    }
}

/// The host's clock, and numbers from a sequence that starts anywhere.
#[derive(Debug, Default)]
pub struct Host {
    clock: SystemClock,
    sequence: std::sync::atomic::AtomicU64,
}

impl Ambient for Host {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// `SplitMix64` (Steele, Lea and Flood, 2014) over a counter and the time.
    fn random(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let count = self.sequence.fetch_add(STEP, std::sync::atomic::Ordering::Relaxed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bits for a mixer")]
        let time = self.clock.now().as_nanosecond() as u64;
        let mut mixed = count.wrapping_add(time.wrapping_mul(STEP));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
