//! The form in which a store leaves its backend: JSON lines, closed by a count and a digest, so that a cut or altered file is refused.
//!
//! Line by line: a header, all documents by key (those that were removed too, with their revision), all events by position, the end.
//! The digest is over the lines before it. Same state, same bytes.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Revision, StoreError};
use crate::{
    digest::{Digest, Digester},
    event::Recorded,
    id::Key,
};

const VERSION: u16 = 1;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    FlowlineExport {
        version: u16,
    },
    Document {
        key: Key,
        revision: Revision,
        /// Not there: the document was removed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Present>,
    },
    Event(Recorded),
    End {
        documents: u64,
        events: u64,
        digest: Digest,
    },
}

/// A value that is there, even if it is `null`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Present {
    pub(super) is: Value,
}

/// Writes an export.
pub(super) struct Exporter<W> {
    out: W,
    digester: Digester,
    documents: u64,
    events: u64,
}

impl<W: Write> Exporter<W> {
    pub(super) fn start(out: W) -> io::Result<Self> {
        let digester = Digester::new("flowline/export");
        let mut exporter = Self { out, digester, documents: 0, events: 0 };
        exporter.line(&Line::FlowlineExport { version: VERSION })?;
        Ok(exporter)
    }

    pub(super) fn document(&mut self, key: Key, revision: Revision, value: Option<Value>) -> io::Result<()> {
        self.documents += 1;
        self.line(&Line::Document { key, revision, value: value.map(|is| Present { is }) })
    }

    pub(super) fn event(&mut self, recorded: Recorded) -> io::Result<()> {
        self.events += 1;
        self.line(&Line::Event(recorded))
    }

    pub(super) fn end(mut self) -> io::Result<Digest> {
        let digest = self.digester.finish();
        self.line(&Line::End { documents: self.documents, events: self.events, digest })?;
        self.out.flush()?;
        Ok(digest)
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        self.digester.part(&text);
        text.push(b'\n');
        self.out.write_all(&text)
    }
}

/// Reads an export and hands each document and event to `each`, which may still be refused at the end: write in a transaction.
pub(super) fn import(
    input: impl BufRead,
    mut each: impl FnMut(Line) -> Result<(), StoreError>,
) -> Result<Digest, StoreError> {
    let mut digester = Digester::new("flowline/export");
    let (mut documents, mut events) = (0, 0);
    let mut number = 0_u64;
    for text in input.split(b'\n') {
        number += 1;
        let refuse = |why: String| damaged(number, why);
        let text = text.map_err(|error| refuse(error.to_string()))?;
        let line: Line = serde_json::from_slice(&text).map_err(|error| refuse(error.to_string()))?;
        match line {
            Line::FlowlineExport { version } if number == 1 => {
                if version != VERSION {
                    return Err(refuse(format!("it has version {version}, this program reads {VERSION}")));
                }
            }
            _ if number == 1 => return Err(refuse("it does not start like an export".to_owned())),
            Line::FlowlineExport { .. } => return Err(refuse("it starts a second time".to_owned())),
            Line::End { documents: had, events: held, digest } => {
                if (had, held) != (documents, events) || digest != digester.finish() {
                    return Err(refuse("count or digest do not fit what stands before it".to_owned()));
                }
                return Ok(digest);
            }
            line => {
                match &line {
                    Line::Event(recorded) => {
                        events += 1;
                        if recorded.position.0 != events {
                            return Err(refuse(format!("event {events} should stand here")));
                        }
                    }
                    _ => documents += 1,
                }
                each(line)?;
            }
        }
        digester.part(&text);
    }
    Err(damaged(number + 1, "it ends too early".to_owned()))
}

pub(super) fn damaged(line: u64, why: String) -> StoreError {
    StoreError::Corrupt {
        place: format!("line {line} of the export"),
        help: "it was cut or altered; nothing was imported, take another export".to_owned(),
        source: why.into(),
    }
}
