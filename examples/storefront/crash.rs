//! For the test that kills the quickstart at every journal boundary: a store that kills its process once before and once after each new
//! event is committed. Which ones it did is kept in a file, so the next start goes on with the next boundary.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use flowline::core::{
    event::{Event, Recorded},
    id::Key,
    store::{Batch, Committed, Document, EventQuery, Position, Store, StoreCapabilities, StoreError},
};

/// A store that dies at each boundary once.
#[derive(Debug)]
pub(crate) struct CrashingStore {
    inner: Arc<dyn Store>,
    ledger: PathBuf,
    done: Mutex<BTreeSet<String>>,
}

impl CrashingStore {
    /// Wraps `inner`; `ledger` holds the boundaries that are done.
    pub(crate) fn new(inner: Arc<dyn Store>, ledger: PathBuf) -> Self {
        let done = fs::read_to_string(&ledger).unwrap_or_default().lines().map(str::to_owned).collect();
        Self { inner, ledger, done: Mutex::new(done) }
    }

    /// Kills this process unless it was killed at `boundary` before.
    fn boundary(&self, boundary: &str) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        if !done.insert(boundary.to_owned()) {
            return;
        }
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.ledger);
        if file.and_then(|mut file| writeln!(file, "{boundary}")).is_ok() {
            // SIGKILL, as from outside: no destructor runs, no buffer is written.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// What an event says, without what differs between two attempts to say it: counts of attempts, times and positions.
fn fact(event: &Event) -> String {
    let segment = |segment: &str| match segment.trim_end_matches(|c: char| c.is_ascii_digit()) {
        word @ ("" | "started" | "failed") => format!("{word}#"),
        _ => segment.to_owned(),
    };
    let id: Vec<String> = event.id.as_str().split('/').map(segment).collect();
    let rollout = event.data.pointer("/after/rollout").map(ToString::to_string).unwrap_or_default();
    format!("{}{rollout}", id.join("/"))
}

#[async_trait::async_trait]
impl Store for CrashingStore {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        // Taking a lease happens again at each start under another token; it is no boundary of the story.
        let event = batch.append.iter().find(|(stream, _)| !stream.as_str().starts_with("lease/"));
        let fact = event.map(|(_, event)| fact(event));
        if let Some(fact) = &fact {
            self.boundary(&format!("before {fact}"));
        }
        let committed = self.inner.commit(batch).await?;
        if let Some(fact) = &fact {
            self.boundary(&format!("after {fact}"));
        }
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.inner.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.inner.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.inner.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.inner.changed(after).await
    }
}
