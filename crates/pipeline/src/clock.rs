//! The clock of whoever runs on tokio.

use std::time::Duration;

use async_trait::async_trait;
use flowline_core::{
    Timestamp,
    clock::{Clock, SystemClock},
};

/// The host's clock, whose sleeps are timers of tokio and cost no thread.
///
/// A host whose clock is set while somebody sleeps is noticed within a minute. Sleeping needs a runtime with its timers on
/// (`enable_time`, `enable_all`, `#[tokio::main]`) and panics without; elsewhere [`SystemClock`] does, with a thread for each sleeper.
///
/// ```
/// # use flowline_core::{SignedDuration, clock::Clock};
/// # use flowline_pipeline::TokioClock;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let before = TokioClock.now();
/// TokioClock.sleep(SignedDuration::from_millis(2)).await;
/// assert!(TokioClock.now().duration_since(before) >= SignedDuration::from_millis(2));
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TokioClock;

#[async_trait]
impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    async fn sleep_until(&self, time: Timestamp) {
        const LOOK: Duration = Duration::from_secs(60);
        while let Ok(left) = Duration::try_from(time.duration_since(self.now()))
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LOOK)).await;
        }
    }
}
