use std::fs;

use super::*;
use crate::{
    error::{ErrorKind, Kinded, chain},
    store::samples::{event, key, numbered, stream},
};

/// A folder whose log is `text`.
fn with(text: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("flowline.log"), text).unwrap();
    folder
}

/// The head of a store, and what its document counts.
async fn seen(store: &LogStore) -> (u64, u64) {
    let document = store.read(&key("count")).await.unwrap();
    let head = store.head().await.unwrap();
    assert_eq!(store.events(EventQuery::default()).await.unwrap().len() as u64, head.0);
    (head.0, document.and_then(|it| it.value.as_u64()).unwrap_or(0))
}

#[tokio::test]
async fn people_can_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    store.commit(numbered(1)).await.unwrap();
    store.commit(Batch::new().remove(key("count"))).await.unwrap();
    insta::assert_snapshot!(fs::read_to_string(store.file()).unwrap(), @r#"
    flowline-log 1
    d count 1 1
    e 1 run/1 1 {"id":"event/1","kind":"step.finished","version":1,"time":"2026-01-01T00:00:00Z","actor":"ann","subject":"run/1"}
    = 77814838e3cd90b2
    r count 2
    = 62c0d9f835d3dd22
    "#);
}

#[tokio::test]
async fn cut_at_any_byte_it_opens_at_the_last_whole_commit_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    let mut ends = Vec::new();
    for n in 1..=4 {
        store.commit(numbered(n)).await.unwrap();
        ends.push(fs::metadata(store.file()).unwrap().len());
    }
    let text = fs::read(store.file()).unwrap();
    for cut in 0..=text.len() {
        let whole = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        let folder = with(&text[..cut]);
        let store = LogStore::open(folder.path()).unwrap();
        assert_eq!(seen(&store).await, (whole, whole), "cut at {cut}");
        store.commit(numbered(whole + 1)).await.unwrap();
        drop(store);
        assert_eq!(seen(&LogStore::open(folder.path()).unwrap()).await, (whole + 1, whole + 1));
    }
}

#[tokio::test]
async fn any_changed_byte_is_refused_with_its_line_and_restore_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    let mut ends = vec![HEADER.len() as u64];
    for n in 1..=3 {
        store.commit(numbered(n)).await.unwrap();
        ends.push(fs::metadata(store.file()).unwrap().len());
    }
    let text = fs::read(store.file()).unwrap();
    let last = text.len() - "\n= 0123456789abcdef\n".len();
    for at in HEADER.len()..last {
        let mut damaged = text.clone();
        damaged[at] ^= 0x15;
        let folder = with(&damaged);
        let error = LogStore::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "changed at {at}: {}", chain(&error));
        let line = chain(&error).split("line ").nth(1).unwrap().split(':').next().unwrap().parse::<usize>();
        let here = text[..at].split(|byte| *byte == b'\n').count();
        assert!(
            (here..=here + 4).contains(&line.unwrap()),
            "changed at {at}, line {here}: {}",
            chain(&error)
        );
        // The sum of a commit that is not the last one may be what was changed: then both are one, and wrong.
        let whole = ends.iter().filter(|end| **end <= at as u64).count() as u64 - 1;
        assert_eq!(LogStore::restore(folder.path()).unwrap(), Position(whole), "changed at {at}");
        assert_eq!(fs::read(folder.path().join("damaged-1/flowline.log")).unwrap(), damaged);
        assert_eq!(seen(&LogStore::open(folder.path()).unwrap()).await, (whole, whole));
    }
}

#[tokio::test]
async fn what_is_none_of_ours_is_refused() {
    let refused = |folder: &tempfile::TempDir| {
        let error = LogStore::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        chain(&error).replace(&folder.path().display().to_string(), "FOLDER")
    };
    insta::assert_snapshot!(refused(&with(b"flowline-log 2\n")), @"cannot open the store at FOLDER: its file `flowline.log` is not one that this program can use; choose another folder: it has version 2; this program reads and writes version 1");
    insta::assert_snapshot!(refused(&with(b"2026-01-01 GET /\n")), @"cannot open the store at FOLDER: its file `flowline.log` is not one that this program can use; choose another folder: it does not begin like a log of flowline");
    insta::assert_snapshot!(refused(&with(b"2026")), @"cannot open the store at FOLDER: its file `flowline.log` is not one that this program can use; choose another folder: it does not begin like a log of flowline");
    let sqlite = tempfile::tempdir().unwrap();
    fs::write(sqlite.path().join("flowline.db"), "").unwrap();
    #[cfg(feature = "sqlite")]
    {
        let log = with(HEADER.as_bytes());
        let error = crate::store::SqliteStore::open(log.path()).unwrap_err();
        assert!(error.to_string().contains("the folder holds a log; open it with `LogStore`"), "{error}");
    }
    insta::assert_snapshot!(refused(&sqlite), @"cannot open the store at FOLDER: the folder holds a SQLite store; open it with `SqliteStore`, or choose another folder: it has a file `flowline.db`");
}

#[test]
fn it_is_for_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    let error = LogStore::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(chain(&error).ends_with("this process has it open, and a log is for one at a time"), "{error:?}");
    assert_eq!(LogStore::restore(folder.path()).unwrap_err().kind(), ErrorKind::Busy);
    drop(store);
    LogStore::open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    store.commit(numbered(1)).await.unwrap();
    let before = fs::read(store.file()).unwrap();
    // Only reads, so every write fails; the file cannot be cut either.
    let reads = File::open(store.file()).unwrap();
    let writes = std::mem::replace(&mut store.state().file, reads);
    let error = store.commit(numbered(2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(fs::read(store.file()).unwrap(), before);
    assert_eq!(seen(&store).await, (1, 1));
    store.state().file = writes;
    let error = store.commit(numbered(2)).await.unwrap_err();
    assert!(error.to_string().contains("open the store again"), "{error}");
    drop(store);
    let store = LogStore::open(folder.path()).unwrap();
    store.commit(numbered(2)).await.unwrap();
    assert_eq!(seen(&store).await, (2, 2));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn on_a_full_disk_nothing_half_done_is_left_and_it_goes_on_once_there_is_room() {
    use crate::store::small_disk::SmallDisk;

    for size in [8, 40, 200] {
        let Some(disk) = SmallDisk::of_kilobytes(size) else { return };
        let store = LogStore::open(disk.path()).unwrap();
        let mut written = 0;
        let error = loop {
            let batch = numbered(written + 1).put(key("large"), "x".repeat(3_000).into());
            match store.commit(batch).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 10_000, "{size} kB never filled up");
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(seen(&store).await, (written, written), "{size} kB");
        disk.grow(size + 64);
        written += 1;
        store.commit(numbered(written).durably(Durability::Synced)).await.unwrap();
        drop(store);
        let store = LogStore::open(disk.path()).unwrap();
        assert_eq!(seen(&store).await, (written, written), "{size} kB");
        drop(store);
        disk.protect();
        let error = LogStore::open(disk.path()).unwrap_err();
        assert!(error.to_string().contains("check its permissions, or choose another folder"), "{error}");
    }
}

#[tokio::test]
async fn what_was_overwritten_goes_when_it_is_most_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    store.commit(numbered(1).put(key("gone"), 1.into())).await.unwrap();
    store.commit(Batch::new().remove(key("gone"))).await.unwrap();
    for n in 0..30 {
        let large = format!("{n}{}", "x".repeat(100_000));
        store.commit(Batch::new().put(key("large"), large.into())).await.unwrap();
    }
    let mut export = Vec::new();
    let digest = store.export(&mut export).unwrap();
    assert!(fs::metadata(store.file()).unwrap().len() > 3_000_000);
    drop(store);
    let store = LogStore::open(folder.path()).unwrap();
    assert!(fs::metadata(store.file()).unwrap().len() < 200_000);
    let mut again = Vec::new();
    assert_eq!(store.export(&mut again).unwrap(), digest);
    assert_eq!(again, export);
    store
        .commit(Batch::new().expect(key("gone"), Revision::ABSENT).put(key("gone"), 2.into()))
        .await
        .unwrap();
    assert_eq!(store.read(&key("gone")).await.unwrap().unwrap().revision, Revision(3));
    drop(store);
    LogStore::open(folder.path()).unwrap();
}

#[tokio::test]
async fn synced_writers_share_flushes() {
    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path()).unwrap();
    let write = |n: u64| {
        let store = store.clone();
        async move { store.commit(Batch::new().append(stream(), event(n)).durably(Durability::Synced)).await }
    };
    let mut writers: tokio::task::JoinSet<_> = (0..40).map(write).collect();
    while let Some(done) = writers.join_next().await {
        done.unwrap().unwrap();
    }
    assert!((1..40).contains(&store.flushes()), "{}", store.flushes());
    assert_eq!(store.head().await.unwrap(), Position(40));
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_export_is_at_home_in_sqlite() {
    use crate::store::SqliteStore;

    let folder = tempfile::tempdir().unwrap();
    let store = LogStore::open(folder.path().join("log")).unwrap();
    store.commit(numbered(1)).await.unwrap();
    store.commit(Batch::new().remove(key("count"))).await.unwrap();
    store.commit(numbered(2)).await.unwrap();
    let mut export = Vec::new();
    let digest = store.export(&mut export).unwrap();
    let other = SqliteStore::import(folder.path().join("sqlite"), export.as_slice()).unwrap();
    let mut again = Vec::new();
    assert_eq!(other.export(&mut again).unwrap(), digest);
    let back = LogStore::import(folder.path().join("back"), again.as_slice()).unwrap();
    assert_eq!(back.export(io::sink()).unwrap(), digest);
    back.commit(numbered(3)).await.unwrap();
    drop(back);
    let error = LogStore::import(folder.path().join("back"), again.as_slice()).unwrap_err();
    assert!(error.to_string().contains("not empty"), "{error}");
    let cut = &again[..again.len() - 5];
    let error = LogStore::import(folder.path().join("cut"), cut).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(seen(&LogStore::open(folder.path().join("cut")).unwrap()).await, (0, 0));
}
