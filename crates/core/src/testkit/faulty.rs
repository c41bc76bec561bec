//! A store that fails or crashes at the commit that a test chooses, before it took effect or after.
//!
//! For a crash matrix: run once without a fault and ask [`FaultyStore::commits`]; then, for each commit and each [`When`], run with a
//! crash there, and again without one over the same store, and compare the end states.

use std::{
    future::{pending, poll_fn},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use async_trait::async_trait;

use super::Seeded;
use crate::{
    event::Recorded,
    id::Key,
    store::{Batch, Committed, Document, EventQuery, Position, Store, StoreCapabilities, StoreError},
};

/// On which side of the commit's effect a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum When {
    /// Nothing was written.
    Before,
    /// All was written, but the caller does not hear of it.
    After,
}

impl When {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Before, Self::After];
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// That commit answers `Unavailable`; all others work.
    Fail(When),
    /// The process dies there: that commit and every later call never return, and [`FaultyStore::crashed`] does. Drop what runs then, as
    /// a process that is killed would.
    Crash(When),
    /// From there on, every call answers `Unavailable`: a disk that went away.
    Lost(When),
}

/// A [`Store`] with one fault in it. Clones share the fault and the count.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{store::{Batch, MemoryStore, Position, Store}, testkit::{Fault, FaultyStore, When, block_on}};
/// let inner = Arc::new(MemoryStore::new());
/// let store = FaultyStore::new(inner).with(2, Fault::Fail(When::Before));
/// assert!(block_on(store.commit(Batch::new())).is_ok());
/// assert!(block_on(store.commit(Batch::new())).is_err());
/// assert_eq!(store.commits(), 2);
/// ```
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    fault: Option<(u64, Fault)>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    commits: u64,
    crashed: bool,
    lost: bool,
    waiting: Vec<Waker>,
}

impl FaultyStore {
    /// `inner` without a fault: it counts.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, fault: None, state: Arc::default() }
    }

    /// The same with `fault` at commit number `at`, counted from 1.
    #[must_use]
    pub fn with(mut self, at: u64, fault: Fault) -> Self {
        self.fault = Some((at, fault));
        self
    }

    /// `inner` with a crash that `seed` chooses among its first `commits` commits.
    pub fn seeded(inner: Arc<dyn Store>, seed: u64, commits: u64) -> Self {
        let mut seeded = Seeded::new(seed);
        let at = 1 + seeded.below(commits);
        let when = if seeded.below(2) == 0 { When::Before } else { When::After };
        Self::new(inner).with(at, Fault::Crash(when))
    }

    /// How many commits were tried so far, the one with the fault included.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// The commit with the fault, counted from 1, and the fault.
    pub fn fault(&self) -> Option<(u64, Fault)> {
        self.fault
    }

    /// The store underneath, which the next process opens.
    pub fn inner(&self) -> &Arc<dyn Store> {
        &self.inner
    }

    /// Whether it has crashed.
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Returns once it crashes.
    pub async fn crashed(&self) {
        poll_fn(|context| {
            let mut state = self.state();
            if state.crashed {
                return Poll::Ready(());
            }
            if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                state.waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Runs `work` until it is done, or until the crash: `None`, and `work` was dropped where it stood.
    pub async fn until_crash<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut crash = std::pin::pin!(self.crashed());
        poll_fn(|context| {
            // The crash first: a process that was killed does nothing more.
            if crash.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            match work.as_mut().poll(context) {
                Poll::Ready(_) if self.has_crashed() => Poll::Ready(None),
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// What a call that is not the faulty commit meets.
    async fn alive(&self) -> Result<(), StoreError> {
        let (crashed, lost) = {
            let state = self.state();
            (state.crashed, state.lost)
        };
        if crashed {
            pending::<()>().await;
        }
        if lost { Err(unavailable("read")) } else { Ok(()) }
    }

    async fn strike(&self, fault: Fault) -> Result<Committed, StoreError> {
        match fault {
            Fault::Fail(_) => Err(unavailable("write")),
            Fault::Lost(_) => {
                self.state().lost = true;
                Err(unavailable("write"))
            }
            Fault::Crash(_) => {
                let waiting = {
                    let mut state = self.state();
                    state.crashed = true;
                    std::mem::take(&mut state.waiting)
                };
                for waker in waiting {
                    waker.wake();
                }
                pending().await
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for FaultyStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.alive().await?;
        let number = {
            let mut state = self.state();
            state.commits += 1;
            state.commits
        };
        let fault = self.fault.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
        match fault {
            None => self.inner.commit(batch).await,
            Some(
                fault @ (Fault::Fail(When::Before) | Fault::Crash(When::Before) | Fault::Lost(When::Before)),
            ) => self.strike(fault).await,
            Some(fault) => {
                self.inner.commit(batch).await?;
                self.strike(fault).await
            }
        }
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.alive().await?;
        self.inner.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.alive().await?;
        self.inner.list(prefix).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.alive().await?;
        self.inner.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.alive().await?;
        self.inner.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.alive().await?;
        self.inner.changed(after).await
    }
}

fn unavailable(doing: &'static str) -> StoreError {
    StoreError::Unavailable {
        doing,
        place: "a test".to_owned(),
        help: "this failure was asked for".to_owned(),
        source: "a fault that was put in".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::MemoryStore, testkit::block_on};

    fn put(n: u64) -> Batch {
        Batch::new().put(Key::new("n").unwrap(), n.into())
    }

    async fn work(store: &FaultyStore) -> Result<(), StoreError> {
        for n in 1..=3 {
            store.commit(put(n)).await?;
        }
        Ok(())
    }

    #[test]
    fn each_fault_leaves_exactly_what_it_says() {
        for when in When::BOTH {
            for at in 1..=3 {
                let left = if when == When::Before { at - 1 } else { at };
                let found = |inner: &MemoryStore| {
                    let found = block_on(inner.read(&Key::new("n").unwrap())).unwrap();
                    found.map_or(0, |document| document.value.as_u64().unwrap())
                };

                let inner = MemoryStore::new();
                let store = FaultyStore::new(Arc::new(inner.clone())).with(at, Fault::Crash(when));
                assert!(block_on(store.until_crash(work(&store))).is_none());
                assert_eq!((found(&inner), store.commits()), (left, at));

                let inner = MemoryStore::new();
                let store = FaultyStore::new(Arc::new(inner.clone())).with(at, Fault::Lost(when));
                assert!(block_on(work(&store)).is_err());
                assert!(block_on(store.head()).is_err());
                assert_eq!(found(&inner), left);

                let store = FaultyStore::new(Arc::new(MemoryStore::new())).with(at, Fault::Fail(when));
                assert!(block_on(work(&store)).is_err());
                assert!(block_on(store.head()).is_ok());
            }
        }
        let store = FaultyStore::new(Arc::new(MemoryStore::new()));
        assert!(block_on(store.until_crash(work(&store))).unwrap().is_ok());
    }
}
