//! How the provisioner for one host behaves: all of it has a default.

use std::{fmt, sync::Arc, time::Duration};

use flowline_core::clock::{Clock, SystemClock};

use super::checkpoint::{Checkpoint, Hook};

/// The programs that a process finds by name unless [`LocalOptions::with_path`] says otherwise.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How a [`LocalProvisioner`](super::LocalProvisioner) behaves.
#[derive(Clone)]
pub struct LocalOptions {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) path: String,
    pub(super) kept: usize,
    pub(super) log_limit: u64,
    pub(super) lock_wait: Duration,
    pub(super) hook: Hook,
}

impl Default for LocalOptions {
    /// The host's clock, [`DEFAULT_PATH`], 5 retired releases kept, logs of 10 MiB, 60 s of waiting for somebody else's change.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            path: DEFAULT_PATH.to_owned(),
            kept: 5,
            log_limit: 10 << 20,
            lock_wait: Duration::from_secs(60),
            hook: Hook::default(),
        }
    }
}

impl LocalOptions {
    /// Tells time by `clock`; it dates releases, nothing is decided by it.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Gives processes this `PATH`: directories joined by `:`.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Keeps so many retired releases of each component for going back.
    #[must_use]
    pub fn with_kept(mut self, kept: usize) -> Self {
        self.kept = kept;
        self
    }

    /// Cuts a log once it is longer than `bytes`; the last `bytes` before the cut are kept in a second file.
    #[must_use]
    pub fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }

    /// Waits at most so long while somebody else changes the same resource.
    #[must_use]
    pub fn with_lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }

    /// Calls `hook` at each [`Checkpoint`], on the thread that does the work: for tests that die there.
    #[must_use]
    pub fn with_checkpoints(mut self, hook: impl Fn(Checkpoint) + Send + Sync + 'static) -> Self {
        self.hook = Hook(Some(Arc::new(hook)));
        self
    }
}

impl fmt::Debug for LocalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalOptions")
            .field("path", &self.path)
            .field("kept", &self.kept)
            .field("log_limit", &self.log_limit)
            .field("lock_wait", &self.lock_wait)
            .field("hook", &self.hook)
            .finish_non_exhaustive()
    }
}
