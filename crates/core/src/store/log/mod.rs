//! The plain store: one file in a folder that only grows, for one process at a time.
//!
//! How it keeps the contract of [`Store`]:
//! - *Atomic*: a batch is some lines that a sum closes; lines without it count for nothing. Everything is checked before anything is
//!   written, and a write that fails is taken back.
//! - *Durable*: `Written` is in the file when `commit` returns, which survives SIGKILL. `Synced` has the file flushed with fdatasync;
//!   writers that commit while a flush runs share the next one (group commit).
//! - *Sound*: the whole file is verified when it is opened. A commit that was cut short at the end is dropped, as it was never
//!   acknowledged; anything else that is wrong is refused, with the line.
//! - *Alone*: a lock on a file beside it, which ends with the process however that ends.

mod format;
mod rewrite;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, TryLockError},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    ops::Bound,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use async_trait::async_trait;
use serde_json::Value;

use self::format::{HEADER, ReadError, Span, Told, Whole, WriteError, Writer};
use super::{
    Batch, Committed, Document, Durability, EventQuery, Fence, Position, Revision, Store, StoreCapabilities,
    StoreError, export::Exporter, flush::Flusher, place::Place, waiters::Waiters,
};
use crate::{
    digest::Digest,
    error::BoxError,
    event::Recorded,
    id::{EventId, Key, StreamId},
};

/// A [`Store`] in one file that only grows, for one process at a time: a job of a CI, a laptop. Clones share it.
///
/// The folder holds `flowline.log`, which people and `grep` can read, and `flowline.lock`. Where several processes work at once, take
/// `SqliteStore` (feature `sqlite`); [`export`](Self::export) and its `import` are the way there.
///
/// A commit is one write to the end of the file: it blocks its thread for some 2 µs, a `Synced` one for as long as the disk takes.
/// Documents and events stay in the file; the memory holds where each one is, about 100 bytes. What was overwritten is dropped from the
/// file when it is opened, once it is most of it and more than 1 MB.
///
/// ```
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use flowline_core::{id::Key, store::{Batch, LogStore, Store}};
/// let folder = tempfile::tempdir()?;
/// let store = LogStore::open(folder.path())?;
/// store.commit(Batch::new().put(Key::new("a")?, 1.into())).await?;
/// assert!(LogStore::open(folder.path()).is_err(), "it is open already");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    state: Mutex<State>,
    flusher: Flusher,
    waiters: Waiters,
    /// Held as long as the store is open.
    _alone: Alone,
}

#[derive(Debug)]
struct State {
    /// Reads anywhere, writes at the end.
    file: File,
    /// Where the last commit ends, and with it the file.
    end: u64,
    /// Why nothing can be written any more: a failed write could not be taken back.
    stuck: Option<String>,
    index: Index,
    buffer: Vec<u8>,
}

/// Where everything stands.
#[derive(Debug, Default)]
struct Index {
    documents: BTreeMap<Key, Entry>,
    /// The line of the event at position `n` is the element `n - 1`.
    events: Vec<Span>,
    ids: BTreeSet<EventId>,
    /// For each stream the indexes of its events.
    streams: BTreeMap<StreamId, Vec<usize>>,
    /// So many bytes of the file are of no use any more.
    waste: u64,
}

/// A document: where its JSON stands, if it was not removed.
#[derive(Debug, Clone, Copy)]
struct Entry {
    revision: Revision,
    token: Option<u64>,
    json: Option<Span>,
}

impl LogStore {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is open already, in this process or another one, and is not closed within half a second;
    /// [`StoreError::Unavailable`] if the folder or file can't be made or written, or belongs to another program, another kind of store or a
    /// newer version; [`StoreError::Corrupt`] if the file is damaged, with the way to recover.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let place = Place::new(folder.as_ref());
        place.make()?;
        if place.folder.join("flowline.db").exists() {
            let help =
                "the folder holds a SQLite store; open it with `SqliteStore`, or choose another folder";
            return Err(unavailable(&place, help, "it has a file `flowline.db`".into()));
        }
        let alone = Alone::take(&place)?;
        let mut state = State::open(&place)?;
        if state.index.is_mostly_waste(state.end) {
            state.compact(&place)?;
            state = State::open(&place)?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                flusher: Flusher::new(log(&place)),
                place,
                state: Mutex::new(state),
                waiters: Waiters::default(),
                _alone: alone,
            }),
        })
    }

    /// Writes everything as JSON lines that [`import`](Self::import), `SqliteStore::import` and any later version can read: all documents, all
    /// events, a count and a digest that closes them. Same state, same bytes.
    ///
    /// Writers wait meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if `out` or the file fails, [`StoreError::Corrupt`] if the file was changed by somebody else.
    pub fn export(&self, out: impl Write) -> Result<Digest, StoreError> {
        let place = &self.shared.place;
        let failed = |error| place.io_problem("export", error);
        let state = self.state();
        let mut exporter = Exporter::start(out).map_err(failed)?;
        for (key, found) in &state.index.documents {
            let value = found.json.map(|json| state.value(place, json)).transpose()?;
            exporter.document(key.clone(), found.revision, value).map_err(failed)?;
        }
        for line in &state.index.events {
            exporter.event(state.event(place, *line)?).map_err(failed)?;
        }
        exporter.end().map_err(failed)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.shared.place.folder
    }

    /// The file in the folder.
    pub fn file(&self) -> PathBuf {
        log(&self.shared.place)
    }

    /// How often this store flushed the disk for `Synced` commits: less often than it had such commits, if they came at once.
    pub fn flushes(&self) -> u64 {
        self.shared.flusher.flushes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for LogStore {
    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::NONE.surviving_restart().surviving_power_loss()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let shared = &*self.shared;
        let committed = self.state().commit(&shared.place, &batch)?;
        if committed.appended > 0 {
            shared.waiters.wake(committed.position);
        }
        if batch.durability == Durability::Synced {
            shared.flusher.flush().await.map_err(|error| shared.place.flush_problem(error))?;
        }
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        let state = self.state();
        match state.index.documents.get(key) {
            Some(found) => state.document(&self.shared.place, found),
            None => Ok(None),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        let state = self.state();
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let found = state.index.documents.range::<str, _>(from);
        let found = found.take_while(|(key, _)| key.as_str().starts_with(prefix));
        found
            .filter_map(|(key, found)| {
                let document = state.document(&self.shared.place, found).transpose()?;
                Some(document.map(|document| (key.clone(), document)))
            })
            .collect()
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        let state = self.state();
        let (limit, place) = (query.limit.unwrap_or(usize::MAX), &self.shared.place);
        let seen = usize::try_from(query.after.0).unwrap_or(usize::MAX);
        match &query.stream {
            None => {
                let lines = state.index.events.iter().skip(seen).take(limit);
                lines.map(|line| state.event(place, *line)).collect()
            }
            Some(stream) => {
                let indexes = state.index.streams.get(stream).map_or(&[][..], Vec::as_slice);
                let first = indexes.partition_point(|index| *index < seen);
                let lines = indexes.iter().skip(first).take(limit);
                lines
                    .filter_map(|index| state.index.events.get(*index))
                    .map(|line| state.event(place, *line))
                    .collect()
            }
        }
    }

    async fn head(&self) -> Result<Position, StoreError> {
        Ok(self.state().index.head())
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.shared.waiters.wait(after, || Ok(self.state().index.head())).await
    }
}

impl State {
    /// Reads the log from its beginning, and drops what was cut short at its end.
    fn open(place: &Place) -> Result<Self, StoreError> {
        let failed = |error| place.io_problem("open", error);
        let path = log(place);
        let file = File::options().read(true).append(true).create(true).open(&path).map_err(failed)?;
        let mut index = Index::default();
        let Whole { mut end, torn } = match format::read(BufReader::new(&file), |told| index.learn(told)) {
            Ok(whole) => whole,
            Err(ReadError::Io(error)) => return Err(failed(error)),
            Err(ReadError::Foreign(why)) => return Err(unavailable(place, FOREIGN, why.into())),
            Err(damage) => {
                return Err(StoreError::Corrupt {
                    place: path.display().to_string(),
                    help: format!(
                        "stop what uses it, then call `LogStore::restore`, which keeps the damaged file and goes back to the last whole \
                         commit before the damage, at event {}",
                        index.events.len()
                    ),
                    source: damage.to_string().into(),
                });
            }
        };
        if torn {
            file.set_len(end).map_err(failed)?;
        }
        if end == 0 {
            (&file).write_all(HEADER.as_bytes()).map_err(failed)?;
            end = HEADER.len() as u64;
        }
        Ok(Self { file, end, stuck: None, index, buffer: Vec::new() })
    }

    fn commit(&mut self, place: &Place, batch: &Batch) -> Result<Committed, StoreError> {
        let there = |key: &Key| self.index.documents.get(key).filter(|found| found.json.is_some());
        batch.check(
            |key| Ok(there(key).map_or(Revision::ABSENT, |found| found.revision)),
            |key| Ok(there(key).and_then(|found| found.token)),
        )?;
        if let Some(why) = &self.stuck {
            let help = "an earlier write failed and could not be taken back; open the store again";
            return Err(unavailable(place, help, why.clone().into()));
        }
        let mut told = Vec::with_capacity(batch.put.len() + batch.append.len());
        let mut writer = Writer::begin(&self.file, &mut self.buffer, self.end);
        let written = write(&mut writer, batch, &self.index, &mut told).and_then(|()| {
            // What changes nothing leaves no trace.
            if told.is_empty() { Ok(self.end) } else { writer.end() }
        });
        match written {
            Ok(end) => self.end = end,
            Err(error) => return Err(self.take_back(place, error)),
        }
        if self.buffer.capacity() > KEPT {
            self.buffer = Vec::new();
        }
        let before = self.index.events.len();
        for told in told {
            self.index.learn(told);
        }
        Ok(Committed { position: self.index.head(), appended: self.index.events.len() - before })
    }

    /// Removes what a failed commit has written.
    fn take_back(&mut self, place: &Place, error: WriteError) -> StoreError {
        if let Err(error) = self.file.set_len(self.end) {
            self.stuck = Some(error.to_string());
        }
        match error {
            WriteError::Io(error) => place.io_problem("write", error),
            WriteError::Json(error) => StoreError::Batch(format!("JSON cannot express it: {error}")),
        }
    }

    fn document(&self, place: &Place, found: &Entry) -> Result<Option<Document>, StoreError> {
        let Some(json) = found.json else { return Ok(None) };
        Ok(Some(Document { revision: found.revision, value: self.value(place, json)? }))
    }

    fn value(&self, place: &Place, json: Span) -> Result<Value, StoreError> {
        let text = self.text(place, json)?;
        serde_json::from_slice(&text).map_err(|error| changed(place, error.into()))
    }

    fn event(&self, place: &Place, line: Span) -> Result<Recorded, StoreError> {
        let text = self.text(place, line)?;
        format::event(&text).map_err(|why| changed(place, why.into()))
    }

    fn text(&self, place: &Place, span: Span) -> Result<Vec<u8>, StoreError> {
        let mut text = vec![0; span.length];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(span.at)).and_then(|_| file.read_exact(&mut text));
        read.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(place, error.into()),
            _ => place.io_problem("read", error),
        })?;
        Ok(text)
    }
}

/// Writes what `batch` changes, and says it.
fn write(
    writer: &mut Writer<'_>,
    batch: &Batch,
    index: &Index,
    told: &mut Vec<Told>,
) -> Result<(), WriteError> {
    for (key, value) in &batch.put {
        let before = index.documents.get(key);
        let revision = Revision(before.map_or(0, |found| found.revision.0) + 1);
        let (token, json) = match value {
            Some(value) => {
                (Fence::token_in(value), Some(writer.put(key, revision, |writer| writer.json(value))?))
            }
            // Removing what is not there changes nothing, not even the revision to come.
            None if before.is_none_or(|found| found.json.is_none()) => continue,
            None => {
                writer.remove(key, revision)?;
                (None, None)
            }
        };
        told.push(Told::Document { key: key.clone(), revision, token, json });
    }
    let mut new = BTreeSet::new();
    let mut lengths: BTreeMap<&StreamId, u64> = BTreeMap::new();
    for (stream, event) in &batch.append {
        if index.ids.contains(&event.id) || !new.insert(&event.id) {
            continue;
        }
        let length = lengths
            .entry(stream)
            .or_insert_with(|| index.streams.get(stream).map_or(0, |indexes| indexes.len() as u64));
        *length += 1;
        let position = Position((index.events.len() + new.len()) as u64);
        let line = writer.event(position, stream, *length, |writer| writer.json(event))?;
        told.push(Told::Event { id: event.id.clone(), stream: stream.clone(), line });
    }
    Ok(())
}

impl Index {
    fn learn(&mut self, told: Told) {
        match told {
            Told::Document { key, revision, token, json } => {
                let before = self.documents.insert(key, Entry { revision, token, json });
                self.waste += before.and_then(|found| found.json).map_or(0, |json| json.length as u64);
            }
            Told::Event { id, stream, line } => {
                self.ids.insert(id);
                let index = self.events.len();
                match self.streams.get_mut(&stream) {
                    Some(indexes) => indexes.push(index),
                    None => drop(self.streams.insert(stream, vec![index])),
                }
                self.events.push(line);
            }
        }
    }

    fn head(&self) -> Position {
        Position(self.events.len() as u64)
    }

    fn is_mostly_waste(&self, end: u64) -> bool {
        self.waste > 1 << 20 && self.waste > end / 2
    }
}

/// The folder is this process's alone as long as this lives.
#[derive(Debug)]
struct Alone(File);

impl Alone {
    fn take(place: &Place) -> Result<Self, StoreError> {
        /// A process that was killed may leave a child which holds the lock until it has come through `exec`: so often it is looked again.
        const LOOKS: u32 = 100;
        const PAUSE: Duration = Duration::from_millis(5);
        let failed = |error| place.io_problem("open", error);
        let path = place.folder.join("flowline.lock");
        let mut file = File::options().create(true).read(true).append(true).open(path).map_err(failed)?;
        let mut looks = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if looks < LOOKS => {
                    looks += 1;
                    thread::park_timeout(PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(busy(place, &file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self(file))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Closing the file would do, but for the children that are just being started and have it open, too.
        let _closing_does = self.0.unlock();
    }
}

fn busy(place: &Place, mut lock: &File) -> StoreError {
    let mut holder = String::new();
    // Who it is only helps.
    let _unknown = lock.read_to_string(&mut holder);
    let who = match holder.trim().parse::<u32>() {
        Ok(process) if process == std::process::id() => "this process".to_owned(),
        Ok(process) => format!("process {process}"),
        Err(_) => "another process".to_owned(),
    };
    let source = format!("{who} has it open, and a log is for one at a time");
    StoreError::Busy { place: place.to_string(), source: source.into() }
}

fn log(place: &Place) -> PathBuf {
    place.folder.join("flowline.log")
}

/// More than that is not kept for the next commit.
const KEPT: usize = 256 * 1024;
const FOREIGN: &str = "its file `flowline.log` is not one that this program can use; choose another folder";

fn unavailable(place: &Place, help: &str, source: BoxError) -> StoreError {
    StoreError::Unavailable { doing: "open", place: place.to_string(), help: help.to_owned(), source }
}

/// The file is not any more what it was when it was opened.
fn changed(place: &Place, source: BoxError) -> StoreError {
    let help = "somebody else changed its file while it was open; open it again".to_owned();
    StoreError::Corrupt { place: log(place).display().to_string(), help, source }
}
