//! The log's text: what a commit's lines look like, how they are written, and how they are read again.
//!
//! ```text
//! flowline-log 1
//! d KEY REVISION JSON                 a document was put
//! r KEY REVISION                      a document was removed
//! e POSITION STREAM SEQUENCE JSON     an event was appended
//! = SUM                               the lines since the last such line are one commit, and whole
//! ```
//!
//! The sum is over the commit's lines and the place where they stand, so that no piece of the file can pass for another.

use std::{
    fmt::{self, Write as _},
    fs::File,
    io::{self, BufRead, Write},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    event::{Event, Recorded},
    id::{EventId, Key, StreamId},
    store::{Position, Revision},
};

/// The first line.
pub(super) const HEADER: &str = "flowline-log 1\n";
/// What the first line of any version begins with.
const NAME: &str = "flowline-log ";
/// So much is kept back to be written, and added to the sum, at once.
const CHUNK: usize = 64 * 1024;
const SUM: usize = 8;

/// A piece of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u64,
    pub(super) length: usize,
}

/// What one line says.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// A document was put (its JSON stands there) or removed. A lease's document has a token.
    Document { key: Key, revision: Revision, token: Option<u64>, json: Option<Span> },
    /// An event was appended; its whole line stands there.
    Event { id: EventId, stream: StreamId, line: Span },
}

/// Why a commit could not be written.
#[derive(Debug)]
pub(super) enum WriteError {
    Io(io::Error),
    Json(serde_json::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes one commit at the end of a log. Until [`end`](Self::end) what was written counts for nothing.
pub(super) struct Writer<'a> {
    file: &'a File,
    /// Not yet in the file, nor in the sum.
    buffer: &'a mut Vec<u8>,
    hash: Sha256,
    /// Where the next byte will stand.
    at: u64,
}

impl<'a> Writer<'a> {
    /// Begins a commit at the end of `file`, which is at `at`.
    pub(super) fn begin(file: &'a File, buffer: &'a mut Vec<u8>, at: u64) -> Self {
        buffer.clear();
        Self { file, buffer, hash: hash_at(at), at }
    }

    /// Says that a document was put, its JSON by `json`.
    pub(super) fn put(
        &mut self,
        key: &Key,
        revision: Revision,
        json: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<Span, WriteError> {
        write!(self, "d {key} {} ", revision.0)?;
        let at = self.at;
        json(self)?;
        let span = self.since(at);
        self.write_all(b"\n")?;
        Ok(span)
    }

    /// Says that a document was removed.
    pub(super) fn remove(&mut self, key: &Key, revision: Revision) -> Result<(), WriteError> {
        Ok(writeln!(self, "r {key} {}", revision.0)?)
    }

    /// Says that an event was appended, its JSON by `json`.
    pub(super) fn event(
        &mut self,
        position: Position,
        stream: &StreamId,
        sequence: u64,
        json: impl FnOnce(&mut Self) -> Result<(), WriteError>,
    ) -> Result<Span, WriteError> {
        let at = self.at;
        write!(self, "e {position} {stream} {sequence} ")?;
        json(self)?;
        let span = self.since(at);
        self.write_all(b"\n")?;
        Ok(span)
    }

    /// The JSON of `value`.
    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), WriteError> {
        serde_json::to_writer(self, value).map_err(|error| {
            if error.is_io() { WriteError::Io(error.into()) } else { WriteError::Json(error) }
        })
    }

    /// Ends the commit: it counts once this returns, with the place where the file ends now.
    pub(super) fn end(mut self) -> Result<u64, WriteError> {
        self.hash.update(&*self.buffer);
        let sum = hex(&self.hash.finalize_reset());
        // Without `Write`, which would add it to the sum and might pass it on alone.
        let line = format!("= {sum}\n");
        self.buffer.extend_from_slice(line.as_bytes());
        self.file.write_all(self.buffer)?;
        Ok(self.at + line.len() as u64)
    }

    fn since(&self, at: u64) -> Span {
        Span { at, length: usize::try_from(self.at - at).unwrap_or(usize::MAX) }
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        self.at += bytes.len() as u64;
        if self.buffer.len() >= CHUNK {
            self.hash.update(&*self.buffer);
            self.file.write_all(self.buffer)?;
            self.buffer.clear();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How far a log is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    /// Where the last whole commit ends; 0 if not even the first line is there.
    pub(super) end: u64,
    /// Whether something stands behind it: the beginning of a commit that was cut short.
    pub(super) torn: bool,
}

/// Why a log cannot be read to its end.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// It is no log, or one of another version.
    Foreign(String),
    /// Something is wrong before a commit's end, so it is not only cut short.
    Damaged {
        /// The line, from 1.
        line: u64,
        why: String,
        /// Where the last whole commit before it ends.
        whole: u64,
    },
}

/// Reads a log and hands what each whole commit says to `each`, in order.
pub(super) fn read(mut log: impl BufRead, mut each: impl FnMut(Told)) -> Result<Whole, ReadError> {
    let mut reading = Reading::default();
    let mut text = Vec::new();
    loop {
        text.clear();
        let length = log.read_until(b'\n', &mut text).map_err(ReadError::Io)?;
        if !text.ends_with(b"\n") {
            // Here it ends, perhaps in the middle of a line.
            return match reading.whole {
                0 if !HEADER.as_bytes().starts_with(&text) => Err(foreign(&text)),
                whole => Ok(Whole { end: whole, torn: reading.at + length as u64 > whole }),
            };
        }
        reading.line(&text, &mut each)?;
    }
}

/// The line of an event.
pub(super) fn event(line: &[u8]) -> Result<Recorded, String> {
    let mut words = Words(line);
    if words.next()? != "e" {
        return Err("it is no event's line".to_owned());
    }
    let position = Position(words.number()?);
    let stream = StreamId::new(words.next()?).map_err(|error| error.to_string())?;
    let sequence = words.number()?;
    let event: Event = serde_json::from_slice(words.0).map_err(|error| error.to_string())?;
    Ok(Recorded { position, stream, sequence, event })
}

/// Where reading stands.
#[derive(Default)]
struct Reading {
    line: u64,
    at: u64,
    whole: u64,
    events: u64,
    /// What the commit says that is being read.
    said: Vec<Told>,
    hash: Option<Sha256>,
    /// The first line that is wrong. That is damage only if a commit ends behind it.
    wrong: Option<(u64, String)>,
}

impl Reading {
    fn line(&mut self, text: &[u8], each: &mut impl FnMut(Told)) -> Result<(), ReadError> {
        self.line += 1;
        let at = self.at;
        self.at += text.len() as u64;
        if self.line == 1 {
            if text != HEADER.as_bytes() {
                return Err(foreign(text));
            }
            self.whole = self.at;
            return Ok(());
        }
        let Some(sum) = sum(text) else {
            self.hash.get_or_insert_with(|| hash_at(at)).update(text);
            if self.wrong.is_none() {
                match self.told(&text[..text.len() - 1], at) {
                    Ok(told) => self.said.push(told),
                    Err(why) => self.wrong = Some((self.line, why)),
                }
            }
            return Ok(());
        };
        let made = hex(&self.hash.take().unwrap_or_else(|| hash_at(at)).finalize());
        if let Some((line, why)) = self.wrong.take() {
            return Err(ReadError::Damaged { line, why, whole: self.whole });
        }
        if made.as_bytes() != sum {
            let why = "the lines of the commit that ends here do not fit its sum".to_owned();
            return Err(ReadError::Damaged { line: self.line, why, whole: self.whole });
        }
        self.whole = self.at;
        self.said.drain(..).for_each(each);
        Ok(())
    }

    fn told(&mut self, line: &[u8], at: u64) -> Result<Told, String> {
        /// Of an event.
        #[derive(Deserialize)]
        struct Named {
            id: EventId,
        }
        /// Of a lease's document.
        #[derive(Deserialize)]
        struct Held {
            token: u64,
        }
        let mut words = Words(line);
        let kind = words.next()?;
        match kind {
            "d" | "r" => {
                let key = Key::new(words.next()?).map_err(|error| error.to_string())?;
                let revision = Revision(if kind == "d" { words.number()? } else { words.last_number()? });
                let json = (kind == "d")
                    .then(|| Span { at: at + (line.len() - words.0.len()) as u64, length: words.0.len() });
                let token = serde_json::from_slice::<Held>(words.0).ok().map(|held| held.token);
                Ok(Told::Document { key, revision, token, json })
            }
            "e" => {
                let position = words.number()?;
                self.events += 1;
                if position != self.events {
                    return Err(format!("event {} should stand here", self.events));
                }
                let stream = StreamId::new(words.next()?).map_err(|error| error.to_string())?;
                words.number()?;
                let Named { id } = serde_json::from_slice(words.0).map_err(|error| error.to_string())?;
                Ok(Told::Event { id, stream, line: Span { at, length: line.len() } })
            }
            other => Err(format!("no line begins with `{}`", other.escape_default())),
        }
    }
}

/// The words of a line, each with the space behind it.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, String> {
        let end = self.0.iter().position(|byte| *byte == b' ').ok_or("it ends too early")?;
        let (word, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        std::str::from_utf8(word).map_err(|error| error.to_string())
    }

    fn number(&mut self) -> Result<u64, String> {
        self.next()?.parse().map_err(|error| format!("a number should stand here: {error}"))
    }

    /// The number that ends the line.
    fn last_number(&mut self) -> Result<u64, String> {
        let word = std::str::from_utf8(std::mem::take(&mut self.0)).map_err(|error| error.to_string())?;
        word.parse().map_err(|error| format!("a number should stand here: {error}"))
    }
}

/// The sum in a line that ends a commit.
fn sum(text: &[u8]) -> Option<&[u8]> {
    let sum = text.strip_prefix(b"= ")?.strip_suffix(b"\n")?;
    (sum.len() == SUM * 2 && sum.iter().all(u8::is_ascii_hexdigit)).then_some(sum)
}

fn hash_at(at: u64) -> Sha256 {
    Sha256::new_with_prefix(at.to_le_bytes())
}

fn hex(hash: &[u8]) -> String {
    hash.iter().take(SUM).fold(String::with_capacity(SUM * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn foreign(text: &[u8]) -> ReadError {
    let version = text.strip_prefix(NAME.as_bytes()).map(String::from_utf8_lossy);
    ReadError::Foreign(match version {
        Some(version) => format!(
            "it has version {}; this program reads and writes version 1",
            version.trim_end().chars().take(20).collect::<String>().escape_default()
        ),
        None => "it does not begin like a log of flowline".to_owned(),
    })
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Foreign(why) => f.write_str(why),
            Self::Damaged { line, why, .. } => write!(f, "line {line}: {why}"),
        }
    }
}
