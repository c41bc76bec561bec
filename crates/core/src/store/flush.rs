//! When the log must be flushed, by whom, and for whom else: group commit without a thread of its own.
//!
//! Whoever needs a flush takes a ticket after its commit. If no flush runs, it runs one itself, for all tickets given out by then; if one
//! runs, it waits, and of those that its end wakes, the first one flushes for all that are left. So a lone writer pays for nothing but its
//! own flush, and sixteen share a few.

use std::{
    fs::File,
    future::poll_fn,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    thread,
};

#[derive(Debug)]
pub(super) struct Flusher {
    log: PathBuf,
    state: Mutex<State>,
    /// Opened with the first flush. The log's file stays the same one as long as the store is open.
    file: Mutex<Option<File>>,
    #[cfg(feature = "sqlite")]
    reserved: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    tickets: u64,
    flushed: u64,
    flushing: bool,
    /// How many tickets the last flush served.
    group: u64,
    /// After a flush that failed the kernel may have forgotten what it could not write, and the next flush would wrongly succeed.
    failed: Option<String>,
    waiting: Vec<Waker>,
    flushes: u64,
}

impl Flusher {
    pub(super) fn new(log: PathBuf) -> Self {
        Self {
            log,
            state: Mutex::default(),
            file: Mutex::default(),
            #[cfg(feature = "sqlite")]
            reserved: Mutex::default(),
        }
    }

    /// Returns once all that was committed before the call is on the disk. Dropping the future leaves others unharmed.
    ///
    /// # Errors
    /// What the disk said, now or once before.
    pub(super) async fn flush(&self) -> Result<(), String> {
        let ticket = {
            let mut state = self.state();
            state.tickets += 1;
            state.tickets
        };
        let mut patience = Patience::default();
        poll_fn(|context| self.poll(ticket, &mut patience, context)).await
    }

    /// Fills the log's file up to `length` with zeros, once: flushing what overwrites a file is half as dear as flushing what makes it longer.
    ///
    /// Call it while holding SQLite's write lock, under which nobody else writes to the log. SQLite takes zeros for the end of the log.
    #[cfg(feature = "sqlite")]
    pub(super) fn reserve(&self, length: u64) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reserved {
            *reserved = true;
            // A disk without that much room has none to reserve; the commit itself will say whether it is full.
            let _saved_time = fill(&self.log, length);
        }
    }

    fn poll(&self, ticket: u64, patience: &mut Patience, context: &Context<'_>) -> Poll<Result<(), String>> {
        let target = {
            let mut state = self.state();
            if let Some(message) = &state.failed {
                return Poll::Ready(Err(message.clone()));
            }
            if state.flushed >= ticket {
                return Poll::Ready(Ok(()));
            }
            if state.flushing {
                if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                    state.waiting.push(context.waker().clone());
                }
                return Poll::Pending;
            }
            if patience.waits(state.tickets - state.flushed, state.group) {
                drop(state);
                // Other threads first, then other tasks of this one.
                thread::yield_now();
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            state.flushing = true;
            state.tickets
        };
        let outcome = self.flush_file().map_err(|error| error.to_string());
        let waiting = {
            let mut state = self.state();
            state.flushing = false;
            state.flushes += 1;
            match &outcome {
                Ok(()) => {
                    state.group = target - state.flushed;
                    state.flushed = target;
                }
                Err(message) => state.failed = Some(message.clone()),
            }
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
        Poll::Ready(outcome)
    }

    /// The same, at once and alone, on the caller's thread.
    #[cfg(feature = "sqlite")]
    pub(super) fn flush_now(&self) -> Result<(), String> {
        self.flush_file().map_err(|error| {
            let message = error.to_string();
            self.state().failed = Some(message.clone());
            message
        })
    }

    fn flush_file(&self) -> io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *file {
            Some(file) => file,
            // Nothing was ever committed: there is nothing to flush.
            None if !self.log.exists() => return Ok(()),
            none => {
                let opened = File::options().read(true).write(true).open(&self.log)?;
                if let Some(folder) = self.log.parent() {
                    flush_folder(folder)?;
                }
                none.insert(opened)
            }
        };
        file.sync_data()
    }

    /// How often the disk was flushed so far.
    pub(super) fn flushes(&self) -> u64 {
        self.state().flushes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(feature = "sqlite")]
fn fill(log: &Path, length: u64) -> io::Result<()> {
    use std::io::{Read as _, Seek as _};

    let mut file = File::options().write(true).open(log)?;
    let end = file.seek(io::SeekFrom::End(0))?;
    let missing = length.saturating_sub(end);
    io::copy(&mut io::repeat(0).take(missing), &mut file)?;
    Ok(())
}

/// How long one who could flush lets others come along.
///
/// Those that the last flush served are likely to commit again, and have only just been woken. So one waits for as many as came last
/// time, as long as more keep coming; always once, for the tasks of its own thread. A lone writer waits for nobody.
#[derive(Debug, Default)]
struct Patience {
    rounds: u32,
    present: u64,
    idle: u32,
}

impl Patience {
    fn waits(&mut self, present: u64, group: u64) -> bool {
        const IDLE: u32 = 4;
        const ROUNDS: u32 = 100;
        self.rounds += 1;
        self.idle = if present > self.present { 0 } else { self.idle + 1 };
        self.present = present;
        self.rounds == 1 || (present < group && self.idle < IDLE && self.rounds < ROUNDS)
    }
}

/// Makes new names in `folder` durable.
pub(super) fn flush_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        File::open(folder)?.sync_all()
    } else {
        // Elsewhere a folder cannot be opened like a file; the file system's own journal keeps names.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_gives_up_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "x").unwrap();
        let flusher = Flusher::new(log);
        for _ in 0..3 {
            let mut given_up = Box::pin(flusher.flush());
            let polled = poll_fn(|context| Poll::Ready(given_up.as_mut().poll(context).is_ready())).await;
            assert!(!polled, "others may come along first");
            drop(given_up);
            flusher.flush().await.unwrap();
        }
        assert_eq!(flusher.flushes(), 3);
    }
}
