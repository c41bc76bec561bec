//! The formats: each turns its documents into the [model](crate::model), and says what of them can't be honoured.
//!
//! A format is a folder of its own with the same inner names: `document` (the document's shape, as serde types), `compile` (document to
//! [`FlagSet`]), and where the format has operators of its own, `operators`. Reading never fails for one flag: errors are for
//! text that is no document at all.

pub mod flagd;
pub mod flowline;
pub mod growthbook;
#[cfg(test)]
mod hostile;
mod import;
#[cfg(test)]
mod import_tests;
pub mod launchdarkly;
mod loss;
mod reading;
pub mod ufc;
pub mod unleash;

use flowline_core::error::{BoxError, ErrorKind, Kinded};

pub use import::{Import, import};
pub use loss::{Loss, LossKind};

pub(crate) use self::flowline::moment;
use crate::model::FlagSet;

/// Turns documents into the model.
pub trait Format {
    /// Its name, in lower case.
    fn name(&self) -> &'static str;

    /// Reads a document. What can't be honoured in it is among the set's warnings.
    ///
    /// # Errors
    /// If the text is no document of this format at all.
    fn read(&self, text: &str) -> Result<FlagSet, FormatError>;

    /// Reads a document that came from `place` (a path, a URL), whose end says which syntax it is, of formats that have several; errors
    /// name the place if they can. By default it is [read](Self::read) as it is.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_from(&self, _place: &str, text: &str) -> Result<FlagSet, FormatError> {
        self.read(text)
    }

    /// Reads a document of bytes, as they come from a file or a network. A byte order mark is dropped.
    ///
    /// # Errors
    /// If they are not UTF-8, with line and column, or no document of this format.
    fn read_bytes(&self, bytes: &[u8]) -> Result<FlagSet, FormatError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.read(text.strip_prefix('\u{feff}').unwrap_or(text)),
            Err(error) => {
                let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
                let place = flowline_core::diagnostic::Place::of(self.name(), &good, good.len());
                let problem = format!("it is not UTF-8 from line {} column {} on", place.line, place.column);
                Err(FormatError { source: Some(error.into()), ..FormatError::new(self.name(), problem) })
            }
        }
    }
}

/// A text is no document of a format.
#[derive(Debug, thiserror::Error)]
#[error("the text is no {format} document: {problem}")]
pub struct FormatError {
    /// The format.
    pub format: &'static str,
    /// What is wrong, with line and column where they are known.
    pub problem: String,
    /// The parser's error.
    #[source]
    pub source: Option<BoxError>,
}

impl FormatError {
    /// An error of `format`.
    pub fn new(format: &'static str, problem: impl Into<String>) -> Self {
        Self { format, problem: problem.into(), source: None }
    }

    /// The error of a JSON reader.
    pub fn json(format: &'static str, error: serde_json::Error) -> Self {
        Self { format, problem: error.to_string(), source: Some(error.into()) }
    }
}

impl Kinded for FormatError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}
