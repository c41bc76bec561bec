//! Dumb pipes: the CI file that starts a deployer holds no logic, and the deployer speaks the language of the CI that it runs in.
//!
//! * **Before:** a [`Wrapper`] says when which call of the deployer is made, and what the system must give it. A [`CiTarget`] renders it
//!   for [GitHub Actions](GitHub), [GitLab CI](GitLab), [Azure Pipelines](Azure) or [Jenkins]; [`compare`] tells whether the committed
//!   file is what would be rendered now.
//! * **Then:** [`CiKind::detect`] tells from the environment where the deployer runs, [`Facts::read`] what it runs for, and a
//!   [`CiReporter`] shows a run there: groups, annotations, masks, outputs and a summary.
//!
//! Whatever comes from outside (a branch, a title) reaches the deployer through its environment. No renderer writes it into a shell
//! text, so a pull request called `"; rm -rf /` is only a strange title.

mod azure;
mod facts;
mod files;
mod findings;
mod fit;
mod github;
mod gitlab;
mod jenkins;
mod kept;
mod reporter;
mod shell;
mod speech;
mod text;
mod wrapper;
mod yaml;

#[cfg(test)]
mod external;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt::Debug};

use flowline_core::error::{ErrorKind, Kinded};

pub use self::{
    azure::Azure,
    facts::{CiKind, Facts},
    files::{CiError, CiFiles},
    fit::WrapperError,
    github::GitHub,
    gitlab::GitLab,
    jenkins::Jenkins,
    reporter::CiReporter,
    speech::{Annotation, Level},
    text::{Branches, Constant, Cron, Label, TextError, Variable, Word},
    wrapper::{
        Access, Cache, Concurrency, Environment, Identity, Job, Later, OutputOf, PullRequestEvent, Scope,
        Stop, Trigger, Triggers, Url, Wrapper, words,
    },
};

/// A CI system that a [`Wrapper`] can be rendered for.
///
/// *Shape*: pure; no file is read or written. *Guarantees*: (1) the same wrapper gives the same bytes; (2) the only commands in a file are
/// the calls, clean-ups and stops of the wrapper's jobs, each as one line whose words the shell gives to the program as they are; (3) no value
/// from outside stands in a command; (4) a job is started only by what [`Job::runs_for`] gives; (5) what the system can't
/// say is refused when leaving it out would weaken the job's safety, otherwise it is among [`Rendered::notes`].
pub trait CiTarget: Debug + Send + Sync {
    /// The system.
    fn kind(&self) -> CiKind;

    /// The files for `wrapper`.
    ///
    /// # Errors
    /// [`RenderError::Wrapper`] if it doesn't fit together, [`RenderError::NotExpressible`] if the system has no safe way to say it.
    fn render(&self, wrapper: &Wrapper) -> Result<Rendered, RenderError>;
}

/// What a wrapper became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rendered {
    /// The files: path from the root of the repository, and text.
    pub files: BTreeMap<String, String>,
    /// What the system can't say in a file, and what a person must therefore set up or know.
    pub notes: Vec<String>,
}

impl Rendered {
    fn new(path: &str, text: String, notes: Vec<String>) -> Self {
        Self { files: BTreeMap::from([(path.to_owned(), text)]), notes }
    }
}

/// Why a wrapper was not rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RenderError {
    /// It doesn't fit together.
    #[error(transparent)]
    Wrapper(#[from] WrapperError),
    /// The system has no safe way to say it.
    #[error("cannot render job `{job}` for {system}: it cannot say {what}; {instead}")]
    NotExpressible {
        /// The system.
        system: CiKind,
        /// The job.
        job: Label,
        /// What it can't say.
        what: String,
        /// What to do about it.
        instead: &'static str,
    },
}

impl Kinded for RenderError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Wrapper(error) => error.kind(),
            Self::NotExpressible { .. } => ErrorKind::Unsupported,
        }
    }
}

/// How a committed file stands to what would be rendered now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compared {
    /// It is the same, byte by byte.
    Same,
    /// There is no such file.
    Missing,
    /// It is another; the difference as a unified diff, from the committed to the rendered text.
    Differs(String),
}

/// Compares a committed file, if there is one, with what would be rendered now.
///
/// ```
/// use flowline_pipeline::ci::{Compared, compare};
/// assert_eq!(compare(Some("on: push\n"), "on: push\n"), Compared::Same);
/// assert_eq!(compare(None, "on: push\n"), Compared::Missing);
/// let Compared::Differs(diff) = compare(Some("on: pull\n"), "on: push\n") else { panic!() };
/// assert!(diff.contains("-on: pull\n+on: push\n"));
/// ```
pub fn compare(committed: Option<&str>, rendered: &str) -> Compared {
    match committed {
        None => Compared::Missing,
        Some(committed) if committed == rendered => Compared::Same,
        Some(committed) => {
            let diff = similar::TextDiff::from_lines(committed, rendered);
            Compared::Differs(
                diff.unified_diff().context_radius(2).header("committed", "rendered").to_string(),
            )
        }
    }
}

/// The lines at the top of each file.
fn header(wrapper: &Wrapper) -> Vec<String> {
    vec![
        format!(
            "Rendered by flowline from the wrapper `{}`. Change the wrapper, not this file.",
            wrapper.name
        ),
        "It holds no logic: each job is one call of the deployer, which runs the same everywhere.".to_owned(),
    ]
}
