//! When a log is written anew: without what is of no use any more, from an export, or only up to some damage.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    Alone, FOREIGN, LogStore, State, changed,
    format::{self, HEADER, ReadError, Told, WriteError, Writer},
    log, unavailable,
};
use crate::store::{
    Position, StoreError,
    export::{self, Line},
    flush::flush_folder,
    place::Place,
};

/// So many lines are one commit.
const LINES: usize = 1_000;

impl LogStore {
    /// Goes back to the last whole commit before the damage that made [`open`](Self::open) fail, and answers the position of its last
    /// event. What was there is kept, in the first free one of `damaged-1`, `damaged-2` ….
    ///
    /// # Errors
    /// [`StoreError::Busy`] if it is open; [`StoreError::Unavailable`] if files can't be moved or written.
    pub fn restore(folder: impl AsRef<Path>) -> Result<Position, StoreError> {
        let place = Place::new(folder.as_ref());
        let failed = |error| place.io_problem("restore", error);
        let _alone = Alone::take(&place)?;
        let mut events = 0;
        let mut file = File::open(log(&place)).map_err(failed)?;
        let count = |told| events += u64::from(matches!(told, Told::Event { .. }));
        let whole = match format::read(BufReader::new(&file), count) {
            Ok(whole) => whole.end,
            Err(ReadError::Damaged { whole, .. }) => whole,
            Err(ReadError::Io(error)) => return Err(failed(error)),
            Err(ReadError::Foreign(why)) => return Err(unavailable(&place, FOREIGN, why.into())),
        };
        let write = || {
            let kept = (1_u32..).map(|number| place.folder.join(format!("damaged-{number}")));
            let kept = kept.into_iter().find(|kept| !kept.exists()).unwrap_or_default();
            fs::create_dir(&kept)?;
            let mut copy = File::create(part(&place))?;
            file.rewind()?;
            io::copy(&mut file.take(whole), &mut copy)?;
            copy.sync_all()?;
            // At no time is there no log, which the next one who opens it would take for an empty store.
            let kept = kept.join("flowline.log");
            fs::hard_link(log(&place), &kept).or_else(|_| fs::copy(log(&place), &kept).map(drop))?;
            fs::rename(part(&place), log(&place))?;
            flush_folder(&place.folder)
        };
        write().map_err(failed)?;
        Ok(Position(events))
    }

    /// Opens a store in `folder`, which must hold none or an empty one, and fills it from an export of any kind of store: all of it or
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with the line if the export was cut or altered; [`StoreError::Batch`] if the store is not empty; else as
    /// [`open`](Self::open).
    pub fn import(folder: impl AsRef<Path>, input: impl BufRead) -> Result<Self, StoreError> {
        let store = Self::open(folder)?;
        let place = &store.shared.place;
        if store.state().end > HEADER.len() as u64 {
            let problem = format!("the store at {place} is not empty; import into an empty folder");
            return Err(StoreError::Batch(problem));
        }
        let failed = |error| match error {
            WriteError::Io(error) => place.io_problem("import into", error),
            WriteError::Json(error) => StoreError::Batch(format!("JSON cannot express it: {error}")),
        };
        let mut anew = Anew::begin(place).map_err(|error| place.io_problem("import into", error))?;
        let mut some = Vec::new();
        export::import(input, |line| {
            some.push(line);
            if some.len() < LINES { Ok(()) } else { anew.import(&mut some).map_err(failed) }
        })?;
        anew.import(&mut some).and_then(|()| Ok(anew.end(place)?)).map_err(failed)?;
        let filled = State::open(place)?;
        *store.state() = filled;
        Ok(store)
    }
}

impl State {
    /// Writes the log anew without what is of no use any more. The store is to be opened again then.
    pub(super) fn compact(&self, place: &Place) -> Result<(), StoreError> {
        let failed = |error| place.io_problem("compact", error);
        let problem = |error| match error {
            WriteError::Io(error) => failed(error),
            WriteError::Json(error) => changed(place, error.into()),
        };
        let mut anew = Anew::begin(place).map_err(failed)?;
        let documents: Vec<_> = self.index.documents.iter().collect();
        for some in documents.chunks(LINES) {
            let mut writer = anew.commit();
            for (key, found) in some {
                let said = match found.json {
                    Some(json) => {
                        let text = self.text(place, json)?;
                        writer.put(key, found.revision, |writer| Ok(writer.write_all(&text)?)).map(drop)
                    }
                    None => writer.remove(key, found.revision),
                };
                said.map_err(problem)?;
            }
            anew.end = writer.end().map_err(problem)?;
        }
        for some in self.index.events.chunks(LINES) {
            let mut writer = anew.commit();
            for line in some {
                let mut text = self.text(place, *line)?;
                text.push(b'\n');
                writer.write_all(&text).map_err(failed)?;
            }
            anew.end = writer.end().map_err(problem)?;
        }
        anew.end(place).map_err(failed)
    }
}

/// A log beside the one that it will replace.
struct Anew {
    file: File,
    end: u64,
    buffer: Vec<u8>,
}

impl Anew {
    fn begin(place: &Place) -> io::Result<Self> {
        let mut file = File::create(part(place))?;
        file.write_all(HEADER.as_bytes())?;
        Ok(Self { file, end: HEADER.len() as u64, buffer: Vec::new() })
    }

    /// A commit. Its end is the new [`end`](Self::end).
    fn commit(&mut self) -> Writer<'_> {
        Writer::begin(&self.file, &mut self.buffer, self.end)
    }

    /// Writes `lines` as one commit and takes them.
    fn import(&mut self, lines: &mut Vec<Line>) -> Result<(), WriteError> {
        let mut writer = self.commit();
        for line in lines.drain(..) {
            match line {
                Line::Document { key, revision, value: Some(value) } => {
                    writer.put(&key, revision, |writer| writer.json(&value.is))?;
                }
                Line::Document { key, revision, value: None } => writer.remove(&key, revision)?,
                Line::Event(it) => {
                    writer.event(it.position, &it.stream, it.sequence, |writer| writer.json(&it.event))?;
                }
                Line::FlowlineExport { .. } | Line::End { .. } => {}
            }
        }
        self.end = writer.end()?;
        Ok(())
    }

    /// Puts it in the other one's place, durably.
    fn end(&self, place: &Place) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(part(place), log(place))?;
        flush_folder(&place.folder)
    }
}

fn part(place: &Place) -> PathBuf {
    place.folder.join("flowline.log.new")
}
