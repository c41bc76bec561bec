//! Where outputs and summaries go: the files that each CI system names in the environment.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::PathBuf,
};

use flowline_core::error::{ErrorKind, Kinded};

use super::{facts::CiKind, text::Variable};

/// Why an output or a summary was not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CiError {
    /// The value holds a secret. The system would drop it or show it to everybody.
    #[error(
        "cannot give output `{output}`: its value holds a secret; give a reference to the secret instead"
    )]
    HoldsSecret {
        /// The output.
        output: Variable,
    },
    /// The system's outputs are single lines.
    #[error(
        "cannot give output `{output}` to {system}: its value is not one line without blanks at its ends; encode it as JSON"
    )]
    NotOneLine {
        /// The output.
        output: Variable,
        /// The system.
        system: CiKind,
    },
    /// The file or the log can't be written.
    #[error(
        "cannot write {what} for {system}; check that the disk has room and that the job may write there"
    )]
    Write {
        /// What.
        what: &'static str,
        /// The system.
        system: CiKind,
        /// Why.
        source: io::Error,
    },
}

impl Kinded for CiError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::HoldsSecret { .. } => ErrorKind::Denied,
            Self::NotOneLine { .. } => ErrorKind::Invalid,
            Self::Write { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Where outputs and summary go besides the log.
#[derive(Default)]
pub struct CiFiles {
    /// Takes outputs. Without it they are lines of the log.
    pub outputs: Option<Box<dyn Write + Send>>,
    /// Takes the summary. Without it the summary stands in the log.
    pub summary: Option<Box<dyn Write + Send>>,
    /// Where the summary lies, if the system must be told.
    pub summary_path: Option<PathBuf>,
    /// Takes annotations of files as a code-quality report, a JSON array in the form of Code Climate: what is there stays, and the file is
    /// whole after each. Without it they are lines of the log alone.
    pub findings: Option<PathBuf>,
}

impl fmt::Debug for CiFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outputs, summary) = (self.outputs.is_some(), self.summary.is_some());
        write!(f, "CiFiles {{ outputs: {outputs}, summary: {summary} }}")
    }
}

impl CiFiles {
    /// Opens the files that `kind` names in `env`, for appending.
    ///
    /// # Errors
    /// [`CiError::Write`] if one can't be opened.
    pub fn open(kind: CiKind, env: &BTreeMap<String, String>) -> Result<Self, CiError> {
        let open = |name: &str, what| -> Result<Option<File>, CiError> {
            let file = kind
                .given(env, name)
                .map(|path| OpenOptions::new().create(true).append(true).open(path))
                .transpose();
            file.map_err(|source| CiError::Write { what, system: kind, source })
        };
        let boxed = |file: Option<File>| file.map(|file| Box::new(file) as Box<dyn Write + Send>);
        Ok(match kind {
            CiKind::GitHub => Self {
                outputs: boxed(open("GITHUB_OUTPUT", "the outputs")?),
                summary: boxed(open("GITHUB_STEP_SUMMARY", "the summary")?),
                ..Self::default()
            },
            CiKind::Azure => {
                let folder = kind.given(env, "AGENT_TEMPDIRECTORY");
                // One file for each process, so that two calls in a job don't show each other's summary.
                let name = format!("flowline-summary-{}.md", std::process::id());
                let path = folder.map(|folder| PathBuf::from(folder).join(name));
                let file = path.as_ref().map(|path| OpenOptions::new().create(true).append(true).open(path));
                let file = file.transpose().map_err(|source| CiError::Write {
                    what: "the summary",
                    system: kind,
                    source,
                })?;
                Self { summary: boxed(file), summary_path: path, ..Self::default() }
            }
            CiKind::GitLab | CiKind::Jenkins | CiKind::None => Self {
                outputs: boxed(open("FLOWLINE_OUTPUT", "the outputs")?),
                summary: boxed(open("FLOWLINE_SUMMARY", "the summary")?),
                findings: kind.given(env, "FLOWLINE_CODE_QUALITY").map(PathBuf::from),
                ..Self::default()
            },
        })
    }
}
