use std::{fs, io::Cursor};

use super::*;
#[cfg(target_os = "linux")]
use crate::store::small_disk::SmallDisk;
use crate::{
    error::{ErrorKind, Kinded, chain},
    store::samples::{event, key, numbered, stream},
};

/// Opens a store whose log was left like this; answers its head and what its document counts.
async fn open_with_log(file: &[u8], log: &[u8]) -> (u64, u64) {
    let copy = quick_folder();
    fs::write(copy.path().join("flowline.db"), file).unwrap();
    fs::write(copy.path().join("flowline.db-wal"), log).unwrap();
    let opened = SqliteStore::open_with(copy.path(), small()).unwrap();
    let document = opened.read(&key("count")).await.unwrap();
    let head = opened.head().await.unwrap();
    assert_eq!(opened.events(EventQuery::default()).await.unwrap().len() as u64, head.0);
    (head.0, document.and_then(|it| it.value.as_u64()).unwrap_or(0))
}

/// In memory where there is such a place: thousands of stores that need not outlive the machine.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

fn small() -> SqliteOptions {
    SqliteOptions { page_size: 512, ..SqliteOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_cut_at_any_byte_opens_at_the_last_whole_commit() {
    const COMMITS: u64 = 3;
    const TASKS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(folder.path(), small()).unwrap();
    // The log then holds the numbered commits alone.
    Connection::open(store.file())
        .unwrap()
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .unwrap();
    let mut ends = Vec::new();
    for n in 1..=COMMITS {
        store.commit(numbered(n)).await.unwrap();
        ends.push(fs::metadata(store.shared.place.log()).unwrap().len());
    }
    let (file, log) = (fs::read(store.file()).unwrap(), fs::read(store.shared.place.log()).unwrap());
    let given = Arc::new((file, log, ends));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let given = Arc::clone(&given);
            tokio::spawn(async move {
                let (file, log, ends) = &*given;
                let whole = |byte: usize| ends.iter().filter(|end| **end <= byte as u64).count() as u64;
                for cut in (task..=log.len()).step_by(TASKS) {
                    let (head, count) = open_with_log(file, &log[..cut]).await;
                    assert_eq!((head, count), (whole(cut), whole(cut)), "cut at {cut}");
                    // A changed byte ends the log before the commit that it stands in, or is one that does not count.
                    if cut % 31 == 0 && cut < log.len() {
                        let mut damaged = log.clone();
                        damaged[cut] ^= 0x55;
                        let (head, count) = open_with_log(file, &damaged).await;
                        assert_eq!(head, count, "changed at {cut}");
                        assert!(
                            head == whole(cut) || head == COMMITS || cut < 32,
                            "changed at {cut}: {head}"
                        );
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_damaged_file_says_how_to_recover_and_restore_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open_with(folder.path(), small()).unwrap();
    for n in 1..=40 {
        store.commit(numbered(n)).await.unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    assert_eq!(snapshot.position, Position(40));
    store.commit(numbered(41)).await.unwrap();
    drop(store);
    let sound = fs::read(folder.path().join("flowline.db")).unwrap();
    let mut refused = 0;
    for page in 0..sound.len() / 512 {
        let mut damaged = sound.clone();
        damaged[page * 512..(page + 1) * 512].fill(0xA5);
        fs::write(folder.path().join("flowline.db"), damaged).unwrap();
        let error = match SqliteStore::open(folder.path()) {
            Err(error) => error,
            // A page that no structure needs: reading all of it must find the damage, or there is none.
            Ok(store) => match store.export(std::io::sink()) {
                Err(error) => error,
                Ok(_) => continue,
            },
        };
        refused += 1;
        assert_eq!(error.kind(), ErrorKind::Corrupt, "page {page}: {}", chain(&error));
        assert!(error.to_string().contains("00000000000000000040.db, up to event 40"), "{error}");
    }
    assert!(refused * 10 >= sound.len() / 512 * 9, "{refused} of {} pages", sound.len() / 512);
    assert_eq!(SqliteStore::restore(folder.path()).unwrap(), snapshot);
    assert!(folder.path().join("damaged-1/flowline.db").exists());
    let restored = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(restored.head().await.unwrap(), Position(40));
    assert_eq!(restored.commit(numbered(41)).await.unwrap().position, Position(41));
}

#[tokio::test]
async fn a_changed_byte_in_a_row_is_found_by_its_checksum() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    store.commit(Batch::new().put(key("a"), "unmistakable".into())).await.unwrap();
    drop(store);
    let file = folder.path().join("flowline.db");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(12).position(|it| it == b"unmistakable").unwrap();
    bytes[at] = b'U';
    fs::write(&file, bytes).unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let error = store.read(&key("a")).await.unwrap_err();
    let text = chain(&error).replace(&folder.path().display().to_string(), "FOLDER");
    insta::assert_snapshot!(text, @"the store at FOLDER is damaged: there is no snapshot in FOLDER/snapshots; move the damaged files away and import an export (`SqliteStore::import`) into an empty folder: document `a`: its checksum does not fit");
    assert_eq!(store.snapshot().unwrap_err().kind(), ErrorKind::Corrupt, "no snapshot of a damaged store");
    assert!(snapshot::newest(&store.shared.place.snapshots()).is_none());
}

#[tokio::test]
async fn an_export_comes_back_whole_and_a_cut_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("a")).unwrap();
    for n in 1..=3 {
        store.commit(numbered(n)).await.unwrap();
    }
    store
        .commit(Batch::new().put(key("gone"), 1.into()).put(key("null"), serde_json::Value::Null))
        .await
        .unwrap();
    store.commit(Batch::new().remove(key("gone"))).await.unwrap();
    let mut text = Vec::new();
    let digest = store.export(&mut text).unwrap();
    let copy = SqliteStore::import(folder.path().join("b"), Cursor::new(&text)).unwrap();
    let mut again = Vec::new();
    assert_eq!(copy.export(&mut again).unwrap(), digest);
    assert_eq!(text, again);
    copy.commit(Batch::new().put(key("gone"), 2.into())).await.unwrap();
    assert_eq!(
        copy.read(&key("gone")).await.unwrap().unwrap().revision.0,
        3,
        "the revision went on counting"
    );
    let error = SqliteStore::import(folder.path().join("b"), Cursor::new(&text)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    for cut in 0..text.len() - 1 {
        let error = SqliteStore::import(folder.path().join("c"), Cursor::new(&text[..cut])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "cut at {cut}");
    }
    let altered = String::from_utf8(text).unwrap().replacen("event/2", "event/9", 1);
    let error = SqliteStore::import(folder.path().join("c"), Cursor::new(altered)).unwrap_err();
    insta::assert_snapshot!(chain(&error), @"the store at line 8 of the export is damaged: it was cut or altered; nothing was imported, take another export: count or digest do not fit what stands before it");
    let nothing = SqliteStore::open(folder.path().join("c")).unwrap();
    assert_eq!(nothing.head().await.unwrap(), Position::START, "nothing half-done is left");
}

#[tokio::test]
async fn another_programs_file_and_an_unwritable_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    fs::write(folder.path().join("file"), "").unwrap();
    let not_a_folder = SqliteStore::open(folder.path().join("file/state")).unwrap_err();
    let foreign = Connection::open(folder.path().join("flowline.db")).unwrap();
    foreign.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let theirs = SqliteStore::open(folder.path()).unwrap_err();
    fs::create_dir(folder.path().join("text")).unwrap();
    fs::write(folder.path().join("text/flowline.db"), "x".repeat(5_000)).unwrap();
    let text = SqliteStore::open(folder.path().join("text")).unwrap_err();
    let said = [not_a_folder, theirs, text].map(|error| chain(&error).replace(&place, "FOLDER"));
    insta::assert_snapshot!(said.join("\n"), @r"
        cannot open the store at FOLDER/file/state: the folder or a file in it cannot be made or written; check its permissions, or choose another folder: Not a directory (os error 20)
        cannot open the store at FOLDER: its file belongs to another program; choose another folder: the file is not one of this version's
        the store at FOLDER/text is damaged: there is no snapshot in FOLDER/text/snapshots; move the damaged files away and import an export (`SqliteStore::import`) into an empty folder: file is not a database: Error code 26: file is not a database
        ");
}

#[tokio::test]
async fn a_writer_waits_for_another_process_up_to_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { busy_limit: Duration::from_millis(50), ..SqliteOptions::default() };
    let store = SqliteStore::open_with(folder.path(), options).unwrap();
    let other = Connection::open(store.file()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(numbered(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{}", chain(&error));
    assert_eq!(store.head().await.unwrap(), Position::START, "reading goes on");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.commit(numbered(1)).await.unwrap().position, Position(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_synced_writers_share_flushes() {
    const WRITERS: u64 = 16;
    const EACH: u64 = 20;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let batch =
                        Batch::new().append(stream(), event(writer * 1_000 + n)).durably(Durability::Synced);
                    store.commit(batch).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(store.head().await.unwrap(), Position(WRITERS * EACH));
    let flushes = store.flushes();
    assert!(flushes * 3 <= WRITERS * EACH, "{flushes} flushes for {} commits", WRITERS * EACH);
}

#[tokio::test]
async fn several_that_make_the_store_at_once_all_open_it() {
    for _ in 0..50 {
        let folder = tempfile::tempdir().unwrap();
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = || SqliteStore::open(folder.path().join("deep/state"));
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (n, store) in (1..).zip(opened) {
            assert_eq!(store.unwrap().commit(numbered(n)).await.unwrap().position, Position(n));
        }
    }
}

#[tokio::test]
async fn an_open_store_hears_of_other_writers() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) =
        (SqliteStore::open(folder.path()).unwrap(), SqliteStore::open(folder.path()).unwrap());
    for n in 1..=3 {
        let waiting = tokio::spawn({
            let ours = ours.clone();
            async move { ours.changed(Position(n - 1)).await.unwrap() }
        });
        tokio::task::yield_now().await;
        theirs.commit(numbered(n)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Position(n));
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_unavailable_and_nothing_half_done_is_left() {
    for size in [0, 8, 40, 64, 100, 200, 400, 1_000] {
        let Some(disk) = SmallDisk::of_kilobytes(size.max(4)) else { return };
        if size == 0 {
            fs::write(disk.path().join("ballast"), [0; 4_096]).unwrap();
        }
        let mut written = 0;
        let error = match SqliteStore::open(disk.path()) {
            Err(error) => error,
            Ok(store) => loop {
                let durability = if written % 3 == 0 { Durability::Synced } else { Durability::Written };
                let batch = numbered(written + 1).put(key("large"), "x".repeat(3_000).into());
                match store.commit(batch.durably(durability)).await {
                    Ok(_) => written += 1,
                    Err(error) => {
                        assert!(error.kind() == ErrorKind::Unavailable, "{size} kB: {}", chain(&error));
                        disk.grow(size + 64);
                        assert_eq!(store.head().await.unwrap(), Position(written), "{size} kB");
                        break error;
                    }
                }
                assert!(written < 10_000, "{size} kB never filled up");
            },
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{size} kB: {}", chain(&error));
        assert!(
            error
                .to_string()
                .ends_with("the disk is full; free some space and try again, nothing was written"),
            "{error}"
        );
        disk.grow(size + 10_000);
        let store = SqliteStore::open(disk.path()).unwrap();
        let count = store.read(&key("count")).await.unwrap().and_then(|it| it.value.as_u64()).unwrap_or(0);
        assert_eq!((store.head().await.unwrap(), count), (Position(written), written), "{size} kB");
        store.commit(numbered(written + 1).durably(Durability::Synced)).await.unwrap();
        store.snapshot().unwrap();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_read_only_is_unavailable() {
    let Some(disk) = SmallDisk::of_kilobytes(8_000) else { return };
    let store = SqliteStore::open(disk.path()).unwrap();
    store.commit(numbered(1)).await.unwrap();
    drop(store);
    disk.protect();
    let there = SqliteStore::open(disk.path()).unwrap_err();
    let new = SqliteStore::open(disk.path().join("new")).unwrap_err();
    for error in [there, new] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
        assert!(error.to_string().contains("check its permissions, or choose another folder"), "{error}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_flush_that_failed_once_is_never_taken_for_done() {
    // The kernel refuses to flush a device like this one.
    let flusher = Flusher::new("/dev/null".into());
    let error = flusher.flush().await.unwrap_err();
    assert_eq!(flusher.flush().await.unwrap_err(), error);
    let error = Place::new(Path::new("STATE")).flush_problem(error);
    insta::assert_snapshot!(chain(&error), @"cannot sync the store at STATE: the disk did not confirm what was written; check it, then open the store again: Invalid argument (os error 22)");
}
