//! What a command answers: text for people, JSON for machines, and an exit code for scripts.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

/// Adds formatted text to a `String`.
macro_rules! add {
    ($text:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = write!($text, $($arg)*);
    }};
}
pub(super) use add;

/// The version of the shape of what `--json` prints. Fields may be added within one.
pub const FORMAT_VERSION: u32 = 1;

/// How a command ended: the process' exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// 0: done, or nothing to do.
    Done,
    /// 1: it failed, or the call is wrong.
    Failed,
    /// 2: there is something to do (`plan`), or something differs (`ci check`).
    Changes,
    /// 3: not now; the same call goes on later.
    Later,
    /// 130: it was interrupted; the same call goes on.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Changes => 2,
            Self::Later => 3,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// What a command answers.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "an answer is shown by whoever ran the command"]
pub struct Answer {
    pub(super) text: String,
    pub(super) result: Map<String, Value>,
    pub(super) exit: Exit,
    /// Values for the surrounding CI.
    pub(super) outputs: Vec<(String, String)>,
    /// Markdown for the surrounding CI's summary.
    pub(super) summary: Option<String>,
}

impl Answer {
    /// An answer for people, with exit code 0 and an empty result for machines.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), result: Map::new(), exit: Exit::Done, outputs: Vec::new(), summary: None }
    }

    /// The same with a field for machines. What JSON can't express becomes `null`.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.result.insert(name.to_owned(), serde_json::to_value(value).unwrap_or_default());
        self
    }

    /// The same with another exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same with an output for later jobs, where a CI system surrounds the deployer.
    pub fn output(mut self, name: &str, value: impl Into<String>) -> Self {
        self.outputs.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn summary(mut self, markdown: String) -> Self {
        self.summary = Some(markdown);
        self
    }
}
