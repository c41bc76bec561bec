//! What a commit costs, beside what the disk itself takes: `cargo bench --bench store [-- --dir DIR]`.
//!
//! `Synced` is measured in turns with a bare append and fdatasync of as many bytes to a file in the same folder, so that both meet the
//! same moods of the disk; the figure that counts is the ratio of the medians. Run it on a real disk (`--dir DIR`; the folder for
//! temporary files otherwise): on tmpfs a flush costs nothing.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, stops at the first failure, and its counts are small"
)]

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flowline_core::{
    Timestamp,
    event::Event,
    id::{EventId, Key, StreamId},
    store::{Batch, Durability, EventQuery, LogStore, MemoryStore, Position, SqliteStore, Store},
    testkit::block_on,
};

/// Bytes of an event, envelope and all, and of the bare append.
const BYTES: usize = 256;
const ROUNDS: usize = 2_000;
const WRITERS: usize = 16;

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--dir").skip(1);
    let base = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(&base).expect("a folder for the measurement");
    println!("store, events of {BYTES} B, in {}", base.display());
    println!("{:<52} {:>10} {:>10} {:>8}", "", "median", "p99", "ratio");
    synced_beside_bare(folder.path());
    grouped(folder.path());
    for (name, store) in stores(&folder.path().join("written")) {
        println!("{name}");
        written(&*store);
        read(&*store);
    }
}

/// Each kind of store, with its name.
fn stores(folder: &Path) -> [(&'static str, Box<dyn Store>); 3] {
    let sqlite = SqliteStore::open(folder.join("sqlite")).expect("a store");
    let log = LogStore::open(folder.join("log")).expect("a store");
    [("SQLite", Box::new(sqlite)), ("log", Box::new(log)), ("memory", Box::new(MemoryStore::new()))]
}

fn synced_beside_bare(folder: &Path) {
    let store = SqliteStore::open(folder.join("synced")).expect("a store");
    let mut file = File::options().create(true).append(true).open(folder.join("bare")).expect("a file");
    let (mut bare, mut synced) = (Vec::new(), Vec::new());
    // The first rounds grow files and warm caches; both sides drop them.
    for round in 0..ROUNDS + ROUNDS / 10 {
        let batch = Batch::new().append(stream(0), event(0, round)).durably(Durability::Synced);
        let ours = time(|| block_on(store.commit(batch)).expect("a commit"));
        let theirs = time(|| {
            file.write_all(&[b'x'; BYTES]).expect("an append");
            file.sync_data().expect("a flush");
        });
        if round >= ROUNDS / 10 {
            synced.push(ours);
            bare.push(theirs);
        }
    }
    let base = line("bare append and fdatasync", &mut bare, None);
    line("Synced commit of one event, one writer", &mut synced, Some(base));
}

fn grouped(folder: &Path) {
    let store = SqliteStore::open(folder.join("grouped")).expect("a store");
    let each = ROUNDS / WRITERS;
    let before = store.flushes();
    let start = now();
    let mut all: Vec<Duration> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = store.clone();
                scope.spawn(move || {
                    (0..each)
                        .map(|round| {
                            let batch = Batch::new()
                                .append(stream(writer), event(writer, round))
                                .durably(Durability::Synced);
                            time(|| block_on(store.commit(batch)).expect("a commit"))
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    let took = start.elapsed();
    let (commits, flushes) = (WRITERS * each, store.flushes() - before);
    line("Synced commit of one event, 16 writers", &mut all, None);
    println!(
        "    {commits} commits in {flushes} flushes ({:.1} each), {:.0} commits/s",
        commits as f64 / flushes as f64,
        commits as f64 / took.as_secs_f64()
    );
}

fn written(store: &dyn Store) {
    const STEPS: usize = 16;
    let mut one: Vec<_> = (0..10 * ROUNDS)
        .map(|round| {
            let batch = Batch::new().append(stream(0), event(0, round));
            time(|| block_on(store.commit(batch)).expect("a commit"))
        })
        .collect();
    let total: Duration = one.iter().sum();
    line("  Written commit of one event", &mut one, None);
    println!("    {:.0} commits/s", (10 * ROUNDS) as f64 / total.as_secs_f64());
    let mut two: Vec<_> = (0..10 * ROUNDS)
        .map(|round| {
            let batch = Batch::new().append(stream(1), event(1, round)).append(stream(1), event(2, round));
            time(|| block_on(store.commit(batch)).expect("a commit"))
        })
        .collect();
    let total: Duration = two.iter().sum();
    line("  Written commit of a step's two events", &mut two, None);
    println!("    {:.0} steps/s", (10 * ROUNDS) as f64 / total.as_secs_f64());
    let mut many: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let batch = (0..STEPS).fold(Batch::new(), |batch, step| {
                let number = round * STEPS + step;
                batch.append(stream(2), event(3, number)).append(stream(2), event(4, number))
            });
            time(|| block_on(store.commit(batch)).expect("a commit"))
        })
        .collect();
    let total: Duration = many.iter().sum();
    line("  Written commit of 16 steps' two events each", &mut many, None);
    println!("    {:.0} steps/s", (ROUNDS * STEPS) as f64 / total.as_secs_f64());
    let mut document: Vec<_> = (0..ROUNDS)
        .map(|round| {
            let batch = Batch::new().put(key(round % 100), "x".repeat(BYTES).into());
            time(|| block_on(store.commit(batch)).expect("a commit"))
        })
        .collect();
    line("  Written commit of one document of 100", &mut document, None);
}

fn read(store: &dyn Store) {
    let mut documents: Vec<_> = (0..ROUNDS)
        .map(|round| time(|| block_on(store.read(&key(round % 100))).expect("a document")))
        .collect();
    line("  read of one document of 100", &mut documents, None);
    let mut events: Vec<_> = (0..100)
        .map(|round| {
            let query = EventQuery::after(Position(round * 100)).at_most(1_000);
            time(|| block_on(store.events(query)).expect("events"))
        })
        .collect();
    line("  read of 1,000 events", &mut events, None);
}

/// An event whose JSON has about [`BYTES`] bytes.
fn event(writer: usize, round: usize) -> Event {
    let id = EventId::new(format!("run-{writer}/step/{round}/finished")).expect("an id");
    let event = Event::new(id, "step.finished", Timestamp::UNIX_EPOCH, "flowline", "step/web");
    event.with_data("x".repeat(BYTES - 145).into())
}

fn stream(writer: usize) -> StreamId {
    StreamId::new(format!("run/{writer}")).expect("a stream")
}

fn key(number: usize) -> Key {
    Key::new(format!("document/{number:03}")).expect("a key")
}

fn time<T>(work: impl FnOnce() -> T) -> Duration {
    let start = now();
    let _done = work();
    start.elapsed()
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// Prints a line and answers the median.
fn line(what: &str, times: &mut [Duration], base: Option<Duration>) -> Duration {
    times.sort_unstable();
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let ratio =
        base.map_or_else(String::new, |base| format!("{:.2}", median.as_secs_f64() / base.as_secs_f64()));
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    println!("{what:<52} {:>10} {:>10} {ratio:>8}", micros(median), micros(late));
    median
}
