//! How a [`Delivery`](super::Delivery) is put together: which files it reads, where it keeps its state, and which backends it acts through.

use std::{path::PathBuf, sync::Arc};

use flowline_core::{
    clock::{Clock, SystemClock},
    notify::{Notifier, WriterNotifier},
    secret::{Secret, SecretName},
    store::Store,
};
use flowline_pipeline::{run::Reporter, step::Secrets};

use crate::source::Source;

/// Who is at work, if nobody said.
pub(crate) const SOMEBODY: &str = "flowline";

/// What a delivery is made of. Everything has a default but the files, the state directory and the source.
///
/// ```no_run
/// use flowline::prelude::*;
/// let setup = Setup::new("flowline.toml", "/etc/flowline/grants.toml", ".flowline").source(GitSource::new("."));
/// ```
#[derive(Debug, Clone)]
#[must_use = "a setup does nothing until `Delivery::open` takes it"]
pub struct Setup {
    pub(crate) topology: PathBuf,
    pub(crate) grants: PathBuf,
    pub(crate) state: PathBuf,
    pub(super) source: Option<Arc<dyn Source>>,
    pub(super) store: Option<Arc<dyn Store>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) notifier: Arc<dyn Notifier>,
    pub(super) reporter: Option<Arc<dyn Reporter>>,
    pub(super) deployer: Option<PathBuf>,
    pub(crate) actor: String,
    pub(super) secrets: Secrets,
}

impl Setup {
    /// The delivery that the file `topology` describes, within what the owner's file `grants` allows, with its state in the directory
    /// `state` (made if it is not there).
    pub fn new(topology: impl Into<PathBuf>, grants: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            topology: topology.into(),
            grants: grants.into(),
            state: state.into(),
            source: None,
            store: None,
            clock: Arc::new(SystemClock),
            notifier: Arc::new(WriterNotifier::new(std::io::stderr())),
            reporter: None,
            deployer: None,
            actor: SOMEBODY.to_owned(),
            secrets: Secrets::new(),
        }
    }

    /// Where the components' files come from. Without one, the directory that holds the topology is taken for a git repository.
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// Keeps state in `store` instead of SQLite in the state directory.
    pub fn store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Takes the time from `clock`.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Tells people through `notifier` instead of standard error.
    pub fn notifier(mut self, notifier: impl Notifier + 'static) -> Self {
        self.notifier = Arc::new(notifier);
        self
    }

    /// Shows the progress of runs through `reporter`. Without one, nothing is shown; the journal has it all.
    pub fn reporter(mut self, reporter: impl Reporter + 'static) -> Self {
        self.reporter = Some(Arc::new(reporter));
        self
    }

    /// What `{deployer}` stands for in commands; the program that runs now, unless told.
    pub fn deployer(mut self, program: impl Into<PathBuf>) -> Self {
        self.deployer = Some(program.into());
        self
    }

    /// Adds secrets, which steps may ask for by name; one of the same name is replaced. No plan, journal, log or report shows the value of
    /// one: a plan or an output that holds it is refused, everything else is masked. On a command line in CI the system is told to hide
    /// them, before anything else is said.
    ///
    /// ```
    /// use flowline::{core::secret::Secret, prelude::*};
    /// let setup = Setup::new("flowline.toml", "../grants.toml", ".flowline");
    /// let setup = setup.secrets([("DATABASE_PASSWORD", Secret::new("hunter2-hunter2"))]);
    /// assert!(!format!("{setup:?}").contains("hunter2"));
    /// ```
    pub fn secrets(mut self, secrets: impl IntoIterator<Item = (impl Into<SecretName>, Secret)>) -> Self {
        self.secrets.extend(secrets.into_iter().map(|(name, secret)| (name.into(), secret)));
        self
    }

    /// Who is named as the actor of everything that is done: a person's handle or a CI job's name.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }
}
