//! Time as an argument: a [`Clock`] says what time it is, so that every decision can be tested at any moment.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

/// What time it is, and waiting until it is later.
///
/// *Guarantees*: `now` never goes back by more than the host's clock does; `sleep_until` returns no earlier than its time, at once if
/// that has passed, and may be dropped at any point. Engines take a `Timestamp`, not a clock; only what waits holds one.
#[async_trait]
pub trait Clock: Debug + Send + Sync {
    /// The present time.
    fn now(&self) -> Timestamp;

    /// Waits until `time`.
    async fn sleep_until(&self, time: Timestamp);

    /// Waits for `duration`; not at all if it is negative.
    async fn sleep(&self, duration: SignedDuration) {
        let time = self.now().checked_add(duration).unwrap_or(Timestamp::MAX);
        self.sleep_until(time).await;
    }
}

/// The host's clock. Its sleep parks a helper thread for each waiter, so that it needs no runtime; whoever runs on tokio takes
/// `flowline_pipeline::TokioClock`.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter that the ban points to")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    async fn sleep_until(&self, time: Timestamp) {
        let wait = time.duration_since(self.now());
        let Ok(wait) = std::time::Duration::try_from(wait) else { return };
        if wait.is_zero() {
            return;
        }
        let alarm = Arc::new(Alarm::default());
        let rings = Arc::clone(&alarm);
        std::thread::spawn(move || {
            std::thread::park_timeout(wait);
            rings.ring();
        });
        alarm.wait().await;
    }
}

/// A clock that stands still until it is told to move: a year passes in a millisecond.
///
/// Clones share the time. Sleepers wake when [`advance`](Self::advance) or [`set`](Self::set) passes their time.
///
/// ```
/// use flowline_core::{clock::{Clock, ManualClock}, SignedDuration};
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(SignedDuration::from_hours(24));
/// assert_eq!(clock.now().duration_since(before), SignedDuration::from_hours(24));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock {
    state: Arc<Mutex<ManualState>>,
}

#[derive(Debug)]
struct ManualState {
    now: Timestamp,
    sleepers: Vec<(Timestamp, Arc<Alarm>)>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { state: Arc::new(Mutex::new(ManualState { now, sleepers: Vec::new() })) }
    }

    /// Moves on by `duration` and wakes whoever waited for less. A negative duration is ignored: this clock never goes back.
    pub fn advance(&self, duration: SignedDuration) {
        let now = self.now();
        self.set(now.checked_add(duration).unwrap_or(Timestamp::MAX));
    }

    /// Moves on to `time`; an earlier one is ignored.
    pub fn set(&self, time: Timestamp) {
        let due: Vec<Arc<Alarm>> = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.now = state.now.max(time);
            let now = state.now;
            state.sleepers.extract_if(.., |(at, _)| *at <= now).map(|(_, alarm)| alarm).collect()
        };
        for alarm in due {
            alarm.ring();
        }
    }

    /// The earliest time that somebody waits for: where a simulation jumps to next.
    pub fn next_sleeper(&self) -> Option<Timestamp> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A sleeper that was dropped holds no second reference to its alarm.
        state.sleepers.iter().filter(|(_, alarm)| Arc::strong_count(alarm) > 1).map(|(at, _)| *at).min()
    }
}

impl Default for ManualClock {
    /// Stands at 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self::new(Timestamp::constant(1_767_225_600, 0))
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    async fn sleep_until(&self, time: Timestamp) {
        let alarm = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.now >= time {
                return;
            }
            let alarm = Arc::new(Alarm::default());
            state.sleepers.push((time, Arc::clone(&alarm)));
            alarm
        };
        alarm.wait().await;
    }
}

/// Rings once; one task waits for it.
#[derive(Debug, Default)]
struct Alarm {
    state: Mutex<AlarmState>,
}

#[derive(Debug, Default)]
struct AlarmState {
    rung: bool,
    waiter: Option<Waker>,
}

impl Alarm {
    fn ring(&self) {
        let waiter = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.rung = true;
            state.waiter.take()
        };
        // Outside the lock: waking may run the waiter at once, on this thread.
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }

    async fn wait(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.rung {
                return Poll::Ready(());
            }
            match &mut state.waiter {
                Some(waiter) => waiter.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_in_time_and_not_before() {
        let clock = ManualClock::default();
        let start = clock.now();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep(SignedDuration::from_hours(1)).await }
        });
        while clock.next_sleeper().is_none() {
            tokio::task::yield_now().await;
        }
        clock.advance(SignedDuration::from_mins(59));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.set(start + SignedDuration::from_hours(1));
        sleeper.await.unwrap();
        clock.set(start);
        assert_eq!(clock.now(), start + SignedDuration::from_hours(1), "it never goes back");
    }

    #[tokio::test]
    async fn the_system_clock_sleeps_at_least_as_long() {
        let before = SystemClock.now();
        SystemClock.sleep(SignedDuration::from_millis(5)).await;
        assert!(SystemClock.now().duration_since(before) >= SignedDuration::from_millis(4));
        SystemClock.sleep(SignedDuration::from_millis(-5)).await;
    }
}
