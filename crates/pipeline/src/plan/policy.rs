//! When a step is tried again and how long it may take: [`Retry`] and [`Limits`], decided purely.

use std::collections::BTreeSet;

use flowline_core::{SignedDuration, digest::Digester, error::ErrorKind};
use serde::{Deserialize, Serialize};

/// When a failed attempt is tried again: after an exponentially growing, capped delay with jitter.
///
/// Only errors that say that trying again can help are retried, and among them only the classes in `only` if there are any. Defaults are
/// those of Temporal's activities (1 s, factor 2, cap 100 times the first), with a finite number of attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// How often it is tried in all, the first time included; at least 1. Attempts that were cut short because their process ended count,
    /// over all processes; what only found that it has to wait does not. A step that used them up fails, and each time somebody resumes the
    /// run after that it has one more. A step without a retry policy is begun anew after every crash.
    pub attempts: u32,
    /// The delay before the second attempt, in milliseconds.
    pub first_ms: u64,
    /// How much longer each delay is than the one before; below 1 counts as 1.
    pub factor: f64,
    /// The longest delay, in milliseconds.
    pub cap_ms: u64,
    /// The part of each delay that is left to chance, 0 to 1: at 0.2 a delay of 10 s becomes 8 to 10 s.
    pub jitter: f64,
    /// The classes of error that are tried again; empty for every one that may help.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub only: BTreeSet<ErrorClass>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 3,
            first_ms: 1_000,
            factor: 2.0,
            cap_ms: 100_000,
            jitter: 0.2,
            only: BTreeSet::new(),
        }
    }
}

/// A class of errors that a retry can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorClass {
    /// Somebody else holds what is needed.
    Busy,
    /// A limit of time was reached.
    TimedOut,
    /// The other side can't be reached.
    Unavailable,
    /// The world moved.
    Conflict,
    /// The work itself failed: a command's exit code.
    Failed,
    /// Anything else.
    Other,
}

impl ErrorClass {
    /// The class of `kind`, if errors of that kind may ever be retried.
    pub fn of(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::Busy => Some(Self::Busy),
            ErrorKind::TimedOut => Some(Self::TimedOut),
            ErrorKind::Unavailable => Some(Self::Unavailable),
            ErrorKind::Conflict => Some(Self::Conflict),
            ErrorKind::Failed => Some(Self::Failed),
            ErrorKind::Other => Some(Self::Other),
            _ => None,
        }
    }
}

impl Retry {
    /// How long to wait before the attempt after `failed` attempts, or `None` if there is none. The same seed gives the same delay.
    ///
    /// `helps` is what the error says about trying again; a class that `only` names is tried again even if the error says that it does not
    /// help, as a command's exit code does.
    ///
    /// ```
    /// use flowline_core::{SignedDuration, error::ErrorKind};
    /// use flowline_pipeline::plan::Retry;
    /// let retry = Retry { attempts: 3, jitter: 0.0, ..Retry::default() };
    /// let after = |failed| retry.delay(failed, ErrorKind::Unavailable, true, "run-1/web");
    /// assert_eq!(after(1), Some(SignedDuration::from_secs(1)));
    /// assert_eq!(after(2), Some(SignedDuration::from_secs(2)));
    /// assert_eq!(after(3), None);
    /// ```
    pub fn delay(&self, failed: u32, kind: ErrorKind, helps: bool, seed: &str) -> Option<SignedDuration> {
        let class = ErrorClass::of(kind)?;
        let wanted = if self.only.is_empty() { helps } else { self.only.contains(&class) };
        if !wanted || failed >= self.attempts.max(1) {
            return None;
        }
        let growth = self.factor.max(1.0).powi(i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX));
        #[expect(clippy::cast_precision_loss, reason = "delays are far below 2^52 ms")]
        let full = (self.first_ms as f64 * growth).min(self.cap_ms as f64);
        let chance = full * self.jitter.clamp(0.0, 1.0) * fraction(seed, failed);
        #[expect(clippy::cast_possible_truncation, reason = "it is at most cap_ms")]
        Some(SignedDuration::from_millis((full - chance).max(0.0) as i64))
    }
}

/// A number from 0 up to 1 that depends on nothing but `seed` and `count`.
fn fraction(seed: &str, count: u32) -> f64 {
    let digest = Digester::new("flowline jitter 1").part(seed).part(count.to_be_bytes()).finish();
    let number = digest.as_bytes()[..4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    f64::from(number) / (f64::from(u32::MAX) + 1.0)
}

/// How long a step may take, in milliseconds: the four separate limits of durable execution (Temporal's activity time-outs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From being ready to starting for the first time: how long it may queue. A step that queues longer fails and is not tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<u64>,
    /// One attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_ms: Option<u64>,
    /// From being ready to being done, all attempts and delays included. What waits for something from outside, such as a gate, has this time
    /// from when it first waited, over all processes: the run is due when it is over, and then fails unless it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// Between two signs of life ([`Context::heartbeat`](crate::step::Context::heartbeat), or a line of output).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,
}

impl Limits {
    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_cannot_help_is_not_tried_again() {
        let retry = Retry::default();
        assert_eq!(retry.delay(1, ErrorKind::Invalid, true, ""), None);
        assert_eq!(retry.delay(1, ErrorKind::Failed, false, ""), None);
        let only = Retry { only: [ErrorClass::Failed].into(), ..Retry::default() };
        assert!(only.delay(1, ErrorKind::Failed, false, "").is_some());
        assert_eq!(only.delay(1, ErrorKind::Unavailable, true, ""), None);
    }

    proptest! {
        #[test]
        fn delays_stay_within_their_bounds(
            failed in 1..200_u32, first_ms in 0..10_000_u64, factor in 0.0..10.0, cap_ms in 0..100_000_u64, jitter in 0.0..1.0, seed in ".{0,8}"
        ) {
            let retry = Retry { attempts: 300, first_ms, factor, cap_ms, jitter, only: BTreeSet::new() };
            let delay = retry.delay(failed, ErrorKind::Busy, true, &seed).unwrap();
            prop_assert!(delay >= SignedDuration::ZERO);
            prop_assert!(delay <= SignedDuration::from_millis(i64::try_from(cap_ms).unwrap()));
            prop_assert_eq!(Some(delay), retry.delay(failed, ErrorKind::Busy, true, &seed));
        }
    }
}
