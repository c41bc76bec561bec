//! The flags of one scope, as they lie in a store: for programs that take documents, and do not change flags themselves.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use flowline_core::{
    digest::Digest,
    id::ScopeId,
    journal::Fact,
    store::{Position, Store, StoreError, StoreExt},
};

use super::{FlagSource, Loaded, SourceError, Tag};
use crate::flags::{self, FlagChanged, Reading, ScopeChanged};

/// The flags that [`Flags`](crate::flags::Flags) keeps in a store, as they are in one scope, as a document of the format
/// [`Flowline`](crate::format::flowline::Flowline). Follows what any process changes.
///
/// A program that changes flags, or wants those of several scopes, holds [`Flags`](crate::flags::Flags) instead. This one is for a
/// [`Feed`](super::Feed), which brings its cache on disk and its events.
#[derive(Debug, Clone)]
pub struct StoreSource {
    store: Arc<dyn Store>,
    scope: ScopeId,
    limit: usize,
    /// How far the journal was looked at.
    seen: Arc<Mutex<Position>>,
    reading: Arc<Mutex<Reading>>,
}

impl StoreSource {
    /// The flags in `scope`, as a document of at most 16 MiB.
    pub fn new(store: Arc<dyn Store>, scope: ScopeId) -> Self {
        Self { store, scope, limit: 16 << 20, seen: Arc::default(), reading: Arc::default() }
    }

    /// The same for documents of at most `bytes`.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    fn seen(&self) -> Position {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, position: Position) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = position.max(*seen);
    }

    fn failed(&self, error: StoreError) -> SourceError {
        let place = self.place();
        match error {
            error @ StoreError::Content { .. } => {
                SourceError::Unusable { place, problem: error.to_string(), source: Some(error.into()) }
            }
            error => SourceError::Unavailable { place, source: error.into() },
        }
    }

    /// Waits until the journal says that flags changed.
    async fn hear(&self) -> Result<(), StoreError> {
        let mut subscription = self.store.subscribe(self.seen());
        loop {
            let events = subscription.next().await?;
            let kinds = [FlagChanged::KIND, ScopeChanged::KIND];
            if events.iter().any(|recorded| kinds.contains(&recorded.event.kind.as_str())) {
                // Not looked at yet: whoever drops this future has lost nothing.
                return Ok(());
            }
            self.saw(subscription.position());
        }
    }
}

#[async_trait]
impl FlagSource for StoreSource {
    fn place(&self) -> String {
        format!("the store's scope `{}`", self.scope)
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        let head = self.store.head().await.map_err(|error| self.failed(error))?;
        // Looked at from here on, also if it comes to nothing: what can't be read is no news until it changes.
        self.saw(head);
        let documents = self.store.list(flags::PREFIX).await.map_err(|error| self.failed(error))?;
        let document = {
            let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.document(&documents, &self.scope)
        };
        let text = serde_json::to_string(&document).map_err(|error| SourceError::Unusable {
            place: self.place(),
            problem: "it cannot be written as JSON".to_owned(),
            source: Some(error.into()),
        })?;
        if text.len() > self.limit {
            return Err(SourceError::TooLarge { place: self.place(), limit: self.limit });
        }
        let tag = Digest::of(text.as_bytes()).to_string();
        if known == Some(&tag) {
            return Ok(Loaded::Same);
        }
        Ok(Loaded::New { text, tag: Some(tag) })
    }

    /// Returns as soon as any flag was changed, by any process; never while the store fails (loading tells that).
    async fn watch(&self) {
        if self.hear().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
