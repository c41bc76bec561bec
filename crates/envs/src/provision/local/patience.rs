//! Waiting on a blocking thread in small pauses, so that whoever lost interest is noticed soon.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::provision::ProvisionError;

/// Whether anybody still waits for the work. Asked at every pause.
#[derive(Debug, Clone, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

/// Ends the patience when dropped: the future that waits for the work holds it.
#[derive(Debug)]
pub(super) struct Interest(Patience);

impl Patience {
    pub(super) fn interest(&self) -> Interest {
        Interest(self.clone())
    }

    /// Waits for `pause`.
    pub(super) fn pause(&self, pause: Duration) -> Result<(), ProvisionError> {
        if !self.0.load(Ordering::Relaxed) {
            std::thread::park_timeout(pause);
        }
        if self.0.load(Ordering::Relaxed) { Err(ProvisionError::Cancelled) } else { Ok(()) }
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Pauses that grow from 2 ms to 100 ms, up to a limit of real time: a process does not wait for a made-up clock.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
    began: Instant,
}

impl Pauses {
    #[expect(
        clippy::disallowed_methods,
        reason = "how long a process may take is measured, nothing is dated by it"
    )]
    pub(super) fn new() -> Self {
        Self { next: Duration::from_millis(2), began: Instant::now() }
    }

    /// Waits once more; `false` if `limit` is used up, and then without waiting.
    pub(super) fn within(&mut self, limit: Duration, patience: &Patience) -> Result<bool, ProvisionError> {
        let left = limit.saturating_sub(self.began.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        patience.pause(self.next.min(left))?;
        self.next = (self.next * 2).min(Duration::from_millis(100));
        Ok(true)
    }
}
