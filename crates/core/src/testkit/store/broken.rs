//! Broken stores, and that the case which names the broken sentence catches each; and that ours are not broken.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;

use super::{cases::*, processes::*, *};
use crate::{
    event::Recorded,
    id::{EventId, Key},
    store::{
        Batch, Committed, Document, EventQuery, MemoryStore, Position, Revision, StoreCapabilities,
        StoreError,
    },
};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    LosesTheLastEvent,
    WritesBeforeItChecks,
    CommitsInTwoSteps,
    IgnoresExpectations,
    RevisionsRestart,
    ChecksAndWritesApart,
    IgnoresFences,
    AppendsTwice,
    RefusesWhatIsThere,
    GapsInPositions,
    EventsBackwards,
    IgnoresTheLimit,
    ListsBackwards,
    ListsTooMuch,
    DropsUnknownFields,
    StaleReads,
    HidesEventsForAWhile,
    LosesWakeUps,
    WakesOnDocuments,
    ForgetsRemovals,
    #[cfg_attr(not(feature = "sqlite"), expect(dead_code, reason = "only children need it"))]
    ClaimsTooMuch,
}

#[derive(Debug)]
struct Broken {
    flaw: Flaw,
    inner: MemoryStore,
    cache: Mutex<BTreeMap<Key, Option<Document>>>,
    calls: AtomicU64,
}

impl Broken {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, inner: MemoryStore::new(), cache: Mutex::default(), calls: AtomicU64::new(0) }
    }

    fn call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }
}

fn others_come_between() {
    std::thread::park_timeout(std::time::Duration::from_millis(1));
}

#[async_trait]
impl Store for Broken {
    fn capabilities(&self) -> StoreCapabilities {
        match self.flaw {
            Flaw::ClaimsTooMuch => self.inner.capabilities().surviving_restart().for_several_processes(),
            _ => self.inner.capabilities(),
        }
    }

    async fn commit(&self, mut batch: Batch) -> Result<Committed, StoreError> {
        match self.flaw {
            Flaw::LosesTheLastEvent if batch.append.len() > 2 => {
                batch.append.pop();
            }
            Flaw::WritesBeforeItChecks => {
                let puts = Batch { put: batch.put.clone(), ..Batch::new() };
                self.inner.commit(puts).await?;
                batch.put.clear();
            }
            Flaw::CommitsInTwoSteps if batch.put.len() > 1 && batch.expect.is_empty() => {
                let rest =
                    Batch { put: batch.put.split_off(1), append: batch.append.split_off(1), ..Batch::new() };
                self.inner.commit(batch).await?;
                others_come_between();
                return self.inner.commit(rest).await;
            }
            Flaw::IgnoresExpectations => batch.expect.clear(),
            Flaw::ChecksAndWritesApart => {
                for (key, expected) in std::mem::take(&mut batch.expect) {
                    let found = self.inner.read(&key).await?.map_or(Revision::ABSENT, |it| it.revision);
                    if found != expected {
                        return Err(StoreError::Conflict { key, expected, found });
                    }
                }
                others_come_between();
            }
            Flaw::IgnoresFences => batch.fence.clear(),
            Flaw::AppendsTwice => {
                let call = self.call();
                for (_, event) in &mut batch.append {
                    event.id = EventId::new(format!("{}#{call}", event.id)).unwrap();
                }
            }
            Flaw::RefusesWhatIsThere => {
                let there = self.inner.events(EventQuery::default()).await?;
                let known = |id: &EventId| there.iter().any(|recorded| recorded.event.id == *id);
                if batch.append.iter().any(|(_, event)| known(&event.id)) {
                    let position = self.inner.head().await?;
                    return Ok(Committed { position, appended: 0 });
                }
            }
            Flaw::GapsInPositions if self.call() % 5 == 4 => {
                let lost = batch.append.first().map(|(stream, event)| {
                    let mut event = event.clone();
                    event.id = EventId::new(format!("lost/{}", event.id)).unwrap();
                    Batch::new().append(stream.clone(), event)
                });
                if let Some(lost) = lost {
                    self.inner.commit(lost).await?;
                }
            }
            Flaw::DropsUnknownFields => {
                for (_, event) in &mut batch.append {
                    event.extra.clear();
                }
            }
            Flaw::WakesOnDocuments if batch.append.is_empty() => {
                self.call();
            }
            Flaw::ForgetsRemovals if !batch.expect.is_empty() => {
                batch.put.retain(|(_, value)| value.is_some());
            }
            _ => {}
        }
        self.inner.commit(batch).await
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let mut found = self.inner.read(key).await?;
        match (self.flaw, &mut found) {
            (Flaw::StaleReads, found) => {
                let mut cache = self.cache.lock().unwrap();
                return Ok(cache.entry(key.clone()).or_insert_with(|| found.clone()).clone());
            }
            (Flaw::RevisionsRestart, Some(document)) if document.revision.0 > 4 => document.revision.0 -= 4,
            _ => {}
        }
        Ok(found)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        let prefix = if self.flaw == Flaw::ListsTooMuch { prefix.trim_end_matches('/') } else { prefix };
        let mut found = self.inner.list(prefix).await?;
        if self.flaw == Flaw::ListsBackwards {
            found.reverse();
        }
        Ok(found)
    }

    async fn events(&self, mut query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        if self.flaw == Flaw::IgnoresTheLimit {
            query.limit = None;
        }
        let mut found = self.inner.events(query).await?;
        match self.flaw {
            Flaw::EventsBackwards => found.reverse(),
            Flaw::HidesEventsForAWhile if found.len() > 2 && self.call().is_multiple_of(2) => {
                found.remove(found.len() - 2);
            }
            Flaw::AppendsTwice => {
                for recorded in &mut found {
                    let id = recorded.event.id.as_str().split('#').next().unwrap();
                    recorded.event.id = EventId::new(id).unwrap();
                }
            }
            Flaw::GapsInPositions => found.retain(|it| !it.event.id.as_str().starts_with("lost/")),
            _ => {}
        }
        Ok(found)
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.inner.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        let head = self.inner.head().await?;
        match self.flaw {
            Flaw::LosesWakeUps if head <= after => std::future::pending().await,
            Flaw::WakesOnDocuments if self.calls.load(Ordering::Relaxed) > 0 => Ok(head),
            _ => self.inner.changed(after).await,
        }
    }
}

#[test]
fn each_flaw_is_caught_by_the_sentence_that_it_breaks() {
    let flaws = [
        (Flaw::LosesTheLastEvent, WHOLE),
        (Flaw::WritesBeforeItChecks, NOTHING),
        (Flaw::CommitsInTwoSteps, HALF),
        (Flaw::IgnoresExpectations, EXPECT),
        (Flaw::RevisionsRestart, REVISIONS),
        (Flaw::ChecksAndWritesApart, ONE_WINS),
        (Flaw::IgnoresFences, FENCE),
        (Flaw::AppendsTwice, ONCE),
        (Flaw::RefusesWhatIsThere, ONCE),
        (Flaw::GapsInPositions, GAPLESS),
        (Flaw::EventsBackwards, QUERY),
        (Flaw::IgnoresTheLimit, QUERY),
        (Flaw::ListsBackwards, LIST),
        (Flaw::ListsTooMuch, LIST),
        (Flaw::DropsUnknownFields, EXACT),
        (Flaw::StaleReads, FRESH),
        (Flaw::HidesEventsForAWhile, FOLLOW),
        (Flaw::LosesWakeUps, WOKEN),
        (Flaw::WakesOnDocuments, WOKEN),
        (Flaw::ForgetsRemovals, MODEL),
    ];
    for (flaw, sentence) in flaws {
        // Only the case that must catch it: others may wait long for what such a store never does.
        let case = CASES.iter().find(|case| case.sentence == sentence).unwrap();
        let mut report = Report::new("store", &format!("{flaw:?}"));
        let outcome = block_on((case.run)(Arc::new(Broken::new(flaw)), Seeded::new(SEED)));
        report.note(case.sentence, SEED, outcome);
        assert!(report.breaks(sentence), "{flaw:?} is not caught by `{sentence}`");
    }
    for case in CASES {
        let shown = flaws.iter().any(|(_, sentence)| *sentence == case.sentence);
        assert!(shown, "nothing shows that `{}` can fail", case.sentence);
    }
}

#[test]
fn a_report_names_backend_sentence_and_seed() {
    let mut report = Report::new("store", "postgres");
    report.note(FENCE, 7, Ok(()));
    report.note(ONCE, 7, super::super::fail("appended events: found 2, expected 1"));
    report.skipped.push(KILLED);
    insta::assert_snapshot!(report, @r"
        postgres, suite `store`: 1 hold, 1 broken, 1 do not apply
        broken: an event whose id is there is left out and the rest of its batch is kept
            appended events: found 2, expected 1
            replay with `check_seeded(.., 7, ..)`
        does not apply: what was committed survives SIGKILL, whole, and what was not is absent
        ");
}

#[test]
fn memory_keeps_the_contract() {
    for seed in [SEED, 1, 2] {
        check_seeded("memory", seed, MemoryStore::new).assert();
    }
}

/// The answers of the model to many more random batches.
fn compare_with_model(backend: &str, open: impl Fn(u64) -> Arc<dyn Store>) {
    for seed in 100..110 {
        let outcome = block_on(model::random_batches(open(seed), Seeded::new(seed)));
        assert!(outcome.is_ok(), "{backend}, seed {seed}: {outcome:?}");
    }
}

#[test]
fn memory_answers_like_the_model() {
    compare_with_model("memory", |_| Arc::new(MemoryStore::new()));
}

mod log {
    use std::{path::Path, process::Command};

    use super::*;
    use crate::store::LogStore;

    fn open(folder: &Path) -> LogStore {
        LogStore::open(folder).unwrap()
    }

    #[test]
    fn the_log_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let number = AtomicU64::new(0);
        for seed in [SEED, 1, 2] {
            let next = || open(&folder.path().join(number.fetch_add(1, Ordering::Relaxed).to_string()));
            check_seeded("log", seed, next).assert();
        }
    }

    #[test]
    fn the_log_answers_like_the_model() {
        let folder = tempfile::tempdir().unwrap();
        compare_with_model("log", |seed| Arc::new(open(&folder.path().join(seed.to_string()))));
    }

    #[test]
    fn the_log_survives_sigkill() {
        let folder = tempfile::tempdir().unwrap();
        let report =
            check_processes("log", folder.path(), open, || again("testkit::store::broken::log::a_child"));
        report.assert();
        assert_eq!((report.passed.len(), report.skipped.len()), (1, 2));
    }

    /// The part of a child of the test above.
    #[test]
    fn a_child() {
        child(open);
    }

    #[expect(clippy::disallowed_methods, reason = "starts this test program again")]
    pub(super) fn again(test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture"]);
        command
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::{path::Path, process::Command};

    use super::*;
    use crate::store::SqliteStore;

    fn open(folder: &Path) -> SqliteStore {
        SqliteStore::open(folder).unwrap()
    }

    #[test]
    fn sqlite_keeps_the_contract() {
        let folder = tempfile::tempdir().unwrap();
        let number = AtomicU64::new(0);
        for seed in [SEED, 1] {
            let next = || open(&folder.path().join(number.fetch_add(1, Ordering::Relaxed).to_string()));
            check_seeded("SQLite", seed, next).assert();
        }
    }

    #[test]
    fn sqlite_answers_like_the_model() {
        let folder = tempfile::tempdir().unwrap();
        compare_with_model("SQLite", |seed| Arc::new(open(&folder.path().join(seed.to_string()))));
    }

    #[test]
    fn sqlite_keeps_the_contract_over_processes() {
        let folder = tempfile::tempdir().unwrap();
        check_processes("SQLite", folder.path(), open, || again("a_child_of_sqlite")).assert();
    }

    /// The part of a child of the test above.
    #[test]
    fn a_child_of_sqlite() {
        child(open);
    }

    #[test]
    fn a_store_that_is_not_on_the_disk_is_caught() {
        let folder = tempfile::tempdir().unwrap();
        let report = check_processes(
            "forgetful",
            folder.path(),
            |_| Broken::new(Flaw::ClaimsTooMuch),
            || again("a_forgetful_child"),
        );
        for sentence in [KILLED, TOGETHER, HEARD] {
            assert!(report.breaks(sentence), "`{sentence}`:\n{report}");
        }
    }

    #[test]
    fn what_a_store_does_not_claim_is_not_asked_of_it() {
        let never = || -> Command { unreachable!("no child is needed") };
        let report = check_processes("memory", Path::new("/nowhere"), |_| MemoryStore::new(), never);
        assert_eq!((report.skipped.len(), report.passed.len(), report.failures.len()), (3, 0, 0));
    }

    #[test]
    fn a_forgetful_child() {
        child(|_| Broken::new(Flaw::ClaimsTooMuch));
    }

    fn again(test: &str) -> Command {
        log::again(&format!("testkit::store::broken::sqlite::{test}"))
    }
}
