//! Sources that hear of changes: a feed serves them within a moment, and what it can't use does not keep it busy. On a manual clock
//! throughout.

use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use flowline_core::{
    event::Recorded,
    store::{Committed, Document, EventQuery, Position, StoreCapabilities, StoreError},
};

use super::*;

/// Lets the clock run until `so` is; it must be within `limit`.
async fn within(clock: &ManualClock, limit: SignedDuration, so: &dyn Fn() -> bool) {
    let end = clock.now() + limit;
    loop {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        if so() {
            return;
        }
        assert!(clock.now() < end, "it did not come within {limit:#}");
        let next = clock.next_sleeper().expect("somebody waits");
        clock.set(next.min(end));
    }
}

fn running(
    source: impl FlagSource + 'static,
    clock: &ManualClock,
) -> (Arc<Feed>, tokio::task::JoinHandle<()>) {
    let feed = Arc::new(Feed::new(Arc::new(source), Flowline::default(), Arc::new(clock.clone())));
    let runs = Arc::clone(&feed);
    let task = tokio::spawn(async move {
        runs.run().await;
    });
    (feed, task)
}

fn ours(flags: &[&str]) -> String {
    let flags: BTreeMap<_, _> =
        flags.iter().map(|flag| (*flag, serde_json::json!({"state": {"on": true}}))).collect();
    serde_json::json!({ "flags": flags }).to_string()
}

fn replace(path: &Path, text: &str) {
    let new = path.with_extension("replacement");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[tokio::test]
async fn a_change_of_a_file_is_served_within_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags.json");
    let clock = ManualClock::default();
    let (feed, task) = running(FileSource::new(&path, Arc::new(clock.clone())), &clock);
    let moment = SignedDuration::from_millis(600);
    within(&clock, moment, &|| feed.trouble().is_some()).await;
    for (what, flags) in [("it is there", &["a"][..]), ("written in place", &["a", "b"]), ("again", &["c"])] {
        fs::write(&path, ours(flags)).unwrap();
        within(&clock, moment, &|| flags.iter().all(|flag| on(&feed, flag))).await;
        assert_eq!(feed.trouble(), None, "{what}");
    }
    replace(&path, &ours(&["d"]));
    within(&clock, moment, &|| on(&feed, "d")).await;
    // A bad one, and the good one after it.
    fs::write(&path, "}{").unwrap();
    within(&clock, moment, &|| feed.trouble().is_some()).await;
    assert!(on(&feed, "d"), "the last good document stays in service");
    replace(&path, &ours(&["e"]));
    within(&clock, moment, &|| on(&feed, "e")).await;
    task.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_kubernetes_swaps_are_followed_through_their_links() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, flag) in [("..v1", "a"), ("..v2", "b")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("flags.json"), ours(&[flag])).unwrap();
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/flags.json", at("flags.json")).unwrap();
    let clock = ManualClock::default();
    let (feed, task) = running(FileSource::new(at("flags.json"), Arc::new(clock.clone())), &clock);
    let moment = SignedDuration::from_millis(600);
    within(&clock, moment, &|| on(&feed, "a")).await;
    symlink("..v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..v1")).unwrap();
    within(&clock, moment, &|| on(&feed, "b")).await;
    task.abort();
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_no_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let clock = Arc::new(ManualClock::default());
    let refused = async |path: &Path| {
        let error = FileSource::new(path, Arc::<ManualClock>::clone(&clock)).load(None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    assert!(refused(folder.path()).await.ends_with("it is a directory, not a file"));
    for path in [&*socket, Path::new("/dev/zero")] {
        assert!(refused(path).await.ends_with("it is a pipe, a socket or a device, not a file"));
    }
}

#[cfg(feature = "config")]
#[tokio::test]
async fn the_end_of_the_name_says_the_syntax_and_errors_name_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::default();
    let open = |name: &str, text: &str| {
        let path = folder.path().join(name);
        replace(&path, text);
        let source = FileSource::new(&path, Arc::new(SystemClock)).settled_after(SignedDuration::ZERO);
        (Feed::new(Arc::new(source), Flowline::default(), Arc::new(clock.clone())), path)
    };
    let (feed, path) = open("flags.toml", "[flags.a]\nstate = { on = true }\n");
    feed.load().await.unwrap();
    assert!(on(&feed, "a"));
    replace(&path, "[flags.b]\nstate = { on = true }\n[flags.c\n");
    let error = feed.load().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let trouble = feed.trouble().unwrap();
    assert!(trouble.contains("flags.toml:3:9: "), "{trouble}");
    assert_eq!(trouble.matches("flags.toml:3:9").count(), 1, "{trouble}");
    assert!(on(&feed, "a"), "the last good document stays in service");
    // What can't be read of one flag harms that one alone, and is told with its place.
    replace(&path, "[flags.b]\nstate = { on = true }\n[flags.c]\nstat = 1\n");
    feed.load().await.unwrap();
    assert!(on(&feed, "b") && !on(&feed, "c"));
    let warnings = feed.toggles().ruleset().warnings().to_vec();
    assert!(warnings[0].to_string().contains("flags.toml:3:"), "{}", warnings[0]);

    let (feed, path) = open("flags.json", &ours(&["a"]));
    feed.load().await.unwrap();
    replace(&path, "{\n  \"flags\": }");
    feed.load().await.unwrap_err();
    assert!(feed.trouble().unwrap().contains("flags.json:2:12: "), "{:?}", feed.trouble());
    let (feed, _) = open("flags", &ours(&["a"]));
    feed.load().await.unwrap();
    let yaml = "flags:\n  a:\n    state: { on: true }\n";
    let (feed, path) = open("flags.yaml", yaml);
    if cfg!(feature = "yaml") {
        feed.load().await.unwrap();
        assert!(on(&feed, "a"));
        replace(&path, "flags:\n  a: [\n");
        feed.load().await.unwrap_err();
        assert!(feed.trouble().unwrap().contains("flags.yaml:"), "{:?}", feed.trouble());
    } else {
        assert!(feed.load().await.unwrap_err().to_string().contains("is YAML"));
    }
}

/// A store whose documents can't be read while that is wished, and that counts how often it is tried.
#[derive(Debug)]
struct Unreadable {
    inner: MemoryStore,
    broken: Mutex<bool>,
    lists: AtomicUsize,
}

#[async_trait]
impl Store for Unreadable {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        self.inner.commit(batch).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.inner.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.lists.fetch_add(1, Ordering::Relaxed);
        if *self.broken.lock().unwrap() {
            let key = Key::new("toggles/flag/checkout").unwrap();
            return Err(StoreError::Content { key, source: "it is no JSON".into() });
        }
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

#[tokio::test]
async fn what_the_store_holds_and_nobody_can_read_does_not_keep_a_feed_busy() {
    let store = Arc::new(Unreadable {
        inner: MemoryStore::new(),
        broken: Mutex::new(false),
        lists: AtomicUsize::new(0),
    });
    let clock = ManualClock::default();
    let flags = Flags::open(Arc::<Unreadable>::clone(&store), Arc::new(clock.clone())).await.unwrap();
    let (checkout, ada) = (FlagKey::new("checkout").unwrap(), Author::new("ada", "because"));
    flags.define(&checkout, Definition { state: State::on(), ..Definition::default() }, &ada).await.unwrap();
    *store.broken.lock().unwrap() = true;
    store.lists.store(0, Ordering::Relaxed);
    let production = ScopeId::new("production").unwrap();
    let (feed, task) =
        running(StoreSource::new(Arc::<Unreadable>::clone(&store), production.clone()), &clock);
    for _ in 0..2_000 {
        tokio::task::yield_now().await;
    }
    assert!(feed.trouble().unwrap().contains("toggles/flag/checkout"), "{:?}", feed.trouble());
    assert_eq!(store.lists.load(Ordering::Relaxed), 1, "the clock stands still and nothing changed");
    // A minute of failures backs off; what is mended is served with the next load.
    let end = clock.now() + SignedDuration::from_mins(1);
    within(&clock, SignedDuration::from_mins(2), &|| clock.now() >= end).await;
    assert!(store.lists.load(Ordering::Relaxed) < 12, "{}", store.lists.load(Ordering::Relaxed));
    *store.broken.lock().unwrap() = false;
    within(&clock, SignedDuration::from_mins(2), &|| on(&feed, "checkout")).await;
    task.abort();
}

/// A source that always has news, none of it of use.
#[derive(Debug, Default)]
struct Restless(AtomicUsize);

#[async_trait]
impl FlagSource for Restless {
    fn place(&self) -> String {
        "nowhere".to_owned()
    }

    async fn load(&self, _: Option<&Tag>) -> Result<Loaded, SourceError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Loaded::New { text: "}{".to_owned(), tag: None })
    }

    async fn watch(&self) {}
}

#[tokio::test]
async fn a_source_that_never_rests_is_not_listened_to_at_once_after_a_failure() {
    let (source, clock) = (Arc::new(Restless::default()), ManualClock::default());
    let feed = Feed::new(Arc::<Restless>::clone(&source), Flowline::default(), Arc::new(clock.clone()));
    let task = tokio::spawn(async move {
        feed.run().await;
    });
    let end = clock.now() + SignedDuration::from_secs(10);
    within(&clock, SignedDuration::from_secs(20), &|| clock.now() >= end).await;
    let loads = source.0.load(Ordering::Relaxed);
    assert!((10..=50).contains(&loads), "{loads}");
    task.abort();
}
