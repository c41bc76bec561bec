//! What happens between the read and the write of another.

use std::{
    fmt,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use flowline_core::{
    event::Recorded,
    store::{Committed, EventQuery, Position, Revision, StoreCapabilities, StoreError},
};

use super::*;

type Act = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A store in which something happens right after a key was read and before whoever read it sees it, once; and that goes away on demand.
#[derive(Clone)]
pub(super) struct Between {
    inner: Arc<dyn Store>,
    act: Arc<Mutex<Option<(String, Act)>>>,
    away: Arc<AtomicBool>,
}

impl Between {
    pub(super) fn over(inner: &Arc<dyn Store>) -> Self {
        Self { inner: Arc::clone(inner), act: Arc::default(), away: Arc::default() }
    }

    fn then(&self, key: &str, act: impl Future<Output = ()> + Send + 'static) {
        *self.act.lock().unwrap() = Some((key.to_owned(), Box::pin(act)));
    }

    pub(super) fn go_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn happened(&self) -> bool {
        self.act.lock().unwrap().is_none()
    }

    async fn was_read(&self, key: &str) {
        let due = self.act.lock().unwrap().take_if(|(awaited, _)| awaited == key);
        if let Some((_, act)) = due {
            act.await;
        }
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between")
    }
}

#[async_trait]
impl Store for Between {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.inner.commit(batch).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let found = self.inner.read(key).await;
        self.was_read(key.as_str()).await;
        found
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        let found = self.inner.list(prefix).await;
        self.was_read(prefix).await;
        found
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.inner.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable {
                doing: "read",
                place: "the net".to_owned(),
                help: "wait".to_owned(),
                source: "it is away".into(),
            });
        }
        self.inner.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.inner.changed(after).await
    }
}

/// Flags over a store, and the store with what happens in between.
async fn between(inner: &Arc<dyn Store>) -> (Between, Flags) {
    let store = Between::over(inner);
    let flags = open(&(Arc::new(store.clone()) as Arc<dyn Store>)).await;
    (store, flags)
}

#[tokio::test]
async fn what_was_read_before_never_covers_what_was_read_later() {
    let (inner, other) = flags().await;
    let (production, checkout) = (scope("production"), key("checkout"));
    let (store, mine) = between(&inner).await;
    other.switch_on(&production, &checkout, &ada()).await.unwrap();
    let (toggles, seen) = (mine.toggles(&production), Arc::new(Mutex::new(Vec::new())));
    // While a refresh has read "on" and not shown it yet, somebody kills the flag here.
    store.then("toggles/state/production/checkout", {
        let mine = mine.clone();
        async move { mine.kill(scope("production"), &key("checkout"), &ada()).await.unwrap() }
    });
    let api = isolated::api();
    api.add_handler(Event::ConfigurationChanged, {
        let (seen, mine) = (Arc::clone(&seen), mine.clone());
        move |_| seen.lock().unwrap().push(mine.effective(&scope("production"), &key("checkout")).killed)
    });
    drop(api.set_provider(mine.provider(&production)).unwrap());
    mine.refresh().await.unwrap();
    assert!(store.happened() && who_is_in(&toggles).is_empty());
    assert_eq!(*seen.lock().unwrap(), [true], "killed, and never shown as anything else");
}

#[tokio::test]
async fn what_is_said_while_a_scope_is_closed_is_not_found_by_the_next_of_its_name() {
    let preview = scope("pr-123");
    // Before the closing looked what there is, and after.
    for read in ["toggles/state/pr-123/", "toggles/release/pr-123/"] {
        let (inner, other) = flags().await;
        other.open_scope(&preview, None, &ada()).await.unwrap();
        let (store, mine) = between(&inner).await;
        store.then(read, async move {
            other.kill(scope("pr-123"), &key("checkout"), &ada()).await.unwrap();
        });
        mine.close_scope(&preview, &ada()).await.unwrap();
        assert!(store.happened());
        assert_eq!(inner.list("toggles/state/").await.unwrap(), [], "{read}");
    }
    let (inner, other) = flags().await;
    other.open_scope(&preview, None, &ada()).await.unwrap();
    let (store, mine) = between(&inner).await;
    store.then("toggles/state/pr-123/checkout", async move {
        other.close_scope(&scope("pr-123"), &ada()).await.unwrap();
    });
    let refused = mine.kill(&preview, &key("checkout"), &ada()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "scope `pr-123` was closed; nothing is said for it any more, unless it is opened again"
    );
    assert_eq!(inner.list("toggles/state/").await.unwrap(), []);
}

#[tokio::test]
async fn a_closing_that_was_cut_off_is_brought_to_its_end() {
    let (store, flags) = flags().await;
    let preview = scope("pr-123");
    flags.open_scope(&preview, None, &ada()).await.unwrap();
    flags.switch_on(&preview, &key("checkout"), &ada()).await.unwrap();
    let closing = ScopeRecord { base: None, closing: true };
    let batch = Batch::new().put(ScopeRecord::key(&preview).unwrap(), serde_json::to_value(closing).unwrap());
    store.commit(batch).await.unwrap();
    let refused = flags.kill(&preview, &key("checkout"), &ada()).await.unwrap_err();
    assert!(matches!(refused, FlagsError::Closed { .. }));
    flags.open_scope(&preview, None, &ada()).await.unwrap();
    assert!(!flags.effective(&preview, &key("checkout")).on);
    flags.switch_on(&preview, &key("checkout"), &ada()).await.unwrap();
}

#[tokio::test]
async fn a_scope_that_is_closed_and_opened_again_is_never_empty_for_a_moment() {
    let (store, flags) = flags().await;
    let (production, preview, checkout) = (scope("production"), scope("pr-123"), key("checkout"));
    flags.switch_on(&production, &checkout, &ada()).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    let other = open(&store).await;
    let told = Arc::new(Mutex::new(0));
    let api = isolated::api();
    api.add_handler(Event::ConfigurationChanged, {
        let told = Arc::clone(&told);
        move |_| *told.lock().unwrap() += 1
    });
    drop(api.set_provider(other.provider(&preview)).unwrap());
    flags.close_scope(&preview, &ada()).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada()).await.unwrap();
    other.refresh().await.unwrap();
    assert_eq!((*told.lock().unwrap(), who_is_in(&other.toggles(&preview)).len()), (0, 1_000));
}

#[tokio::test]
async fn circles_and_salts_are_looked_for_where_the_flag_is_written() {
    let requires = |flag: &str| Definition { requires: vec![key(flag)], ..Definition::default() };
    let salted = |salt: &str| Definition { salt: Some(salt.to_owned()), ..Definition::default() };
    let (inner, other) = flags().await;
    let (store, mine) = between(&inner).await;
    // Two close a circle at the same time, each without the other's half.
    store.then("toggles/flag/", {
        let other = other.clone();
        async move { other.define(&key("a"), requires("b"), &ada()).await.unwrap() }
    });
    let refused = mine.define(&key("b"), requires("a"), &ada()).await.unwrap_err();
    assert!(store.happened() && matches!(refused, FlagsError::Circle { .. }), "{refused}");
    // A salt that this process has not heard of.
    other.reshuffle(&key("checkout"), salted("new"), &ada()).await.unwrap();
    let refused = mine.define(&key("checkout"), Definition::default(), &ada()).await.unwrap_err();
    assert!(matches!(refused, FlagsError::Salt { .. }), "{refused}");
    mine.define(&key("checkout"), salted("new"), &ada()).await.unwrap();
    // An undoing that would close one.
    other.define(&key("a"), Definition::default(), &ada()).await.unwrap();
    other.define(&key("b"), requires("a"), &ada()).await.unwrap();
    let refused = other.undo(&key("a"), &ada()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "flags would depend on each other: a -> b -> a; take one of these dependencies away"
    );
}

#[tokio::test]
async fn what_is_said_while_a_flag_is_removed_goes_with_it() {
    let (inner, other) = flags().await;
    let (store, mine) = between(&inner).await;
    store.then("toggles/state/", async move {
        other.kill(scope("production"), &key("checkout"), &ada()).await.unwrap();
    });
    mine.remove(&key("checkout"), &ada()).await.unwrap();
    assert!(store.happened());
    assert_eq!(inner.list("toggles/").await.unwrap(), []);
}

/// Busy neighbours: whatever they do, a change is made or an error.
#[tokio::test]
async fn a_scope_that_others_change_all_the_time_is_an_error() {
    #[derive(Debug)]
    struct Contended(Arc<dyn Store>);
    #[async_trait]
    impl Store for Contended {
        fn capabilities(&self) -> StoreCapabilities {
            self.0.capabilities()
        }
        async fn commit(&self, _: Batch) -> Result<Committed, StoreError> {
            let key = Key::new("toggles/scope/pr-123").unwrap();
            self.0.commit(Batch::new().expect(key, Revision(99))).await
        }
        async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
            self.0.read(key).await
        }
        async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
            self.0.list(prefix).await
        }
        async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
            self.0.events(query).await
        }
        async fn head(&self) -> Result<Position, StoreError> {
            self.0.head().await
        }
        async fn changed(&self, after: Position) -> Result<Position, StoreError> {
            self.0.changed(after).await
        }
    }
    let (inner, _) = flags().await;
    let flags = open(&(Arc::new(Contended(inner)) as Arc<dyn Store>)).await;
    let refused = flags.open_scope(&scope("pr-123"), None, &ada()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "scope `pr-123` was changed by others at the same time, 16 times in a row; try again"
    );
}
