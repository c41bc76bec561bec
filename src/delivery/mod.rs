//! [`Delivery`]: the way of a change, from a pull request to the people who use it, as one object with verbs.
//!
//! | verb | what it does |
//! | --- | --- |
//! | [`serve`](Delivery::serve) | holds the router and keeps alive what should run, on this host |
//! | [`receive`](Delivery::receive) | takes in a forge's webhook: a change opens, moves, merges, closes |
//! | [`propose`](Delivery::propose), [`merged`](Delivery::merged) | tell of a change where no forge does |
//! | [`preview`](Delivery::preview) | gives a change an environment of its own |
//! | [`verify`](Delivery::verify) | judges what runs in an environment |
//! | [`plan`](Delivery::plan) | says what a deployment would change, and what it may not touch |
//! | [`deploy`](Delivery::deploy) | brings a commit to an environment: verified beside the old release, then switched |
//! | [`promote`](Delivery::promote) | moves a merged change on, if the promotion graph allows it |
//! | [`release`](Delivery::release) | turns a feature on for a share of the people |
//! | [`rollback`](Delivery::rollback) | brings back the release before, from any host, without CI |
//! | [`close`](Delivery::close) | removes a preview |
//! | [`runs`](Delivery::runs), [`run`](Delivery::run), [`approve`](Delivery::approve), [`signal`](Delivery::signal), [`resolve`](Delivery::resolve) | shows runs with plan, journal and logs; lets one go on |
//! | [`why`](Delivery::why), [`timeline`](Delivery::timeline) | says what happened, and how far a change has got |
//!
//! Each verb decides by pure functions, seals a plan, and runs it durably: a process that is killed anywhere is started again with the
//! same call and goes on; what was recorded as done is not done again. Two processes never deploy to one environment at once.

mod deploy;
mod error;
mod feature;
mod host;
mod order;
mod preview;
mod process;
mod record;
mod routes;
mod runs;
mod serve;
mod setup;
mod steps;
mod timeline;
mod verify;
mod walk;
mod workflow;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use flowline_core::{
    clock::Clock,
    grant::{Authority, Grants},
    id::{ChangeId, EventId, RunId, StreamId},
    journal::Journal,
    lease::StoreLeases,
    name::{ComponentName, EnvironmentName},
    notify::{Notice, Notifier, Urgency},
    store::{EventQuery, Store, StoreExt},
};
use flowline_envs::{
    address::Address,
    provision::local::{LocalOptions, LocalProvisioner},
    router::HttpRouter,
    webhook::{Told, github},
};
use flowline_pipeline::{
    run::{Cancel, Reporter},
    step::Secrets,
};

pub use flowline_envs::environment::{
    Deployment, EnvironmentRecord, Instance, InstanceTarget, Provenance, provenance,
};

#[cfg(feature = "cli")]
pub(crate) use self::setup::SOMEBODY;
pub use self::{
    deploy::{Deployed, PlannedDeployment},
    error::DeliveryError,
    feature::{Exposure, Released},
    preview::{Preview, Received},
    routes::{RoutingError, candidate_of, table as route_table},
    runs::Gate,
    serve::{ServeStatus, Serving},
    setup::Setup,
    timeline::{Milestone, Timeline, kind},
    workflow::Workflow,
};
use crate::{
    source::{GitSource, Source},
    topology::Topology,
};

/// One application's delivery on this host, with the backends that it acts through. Cheap to clone; clones are the same delivery.
///
/// Several processes may open the same state directory at once: one of them [`serve`](Self::serve)s, others deploy, look, or release.
#[derive(Debug, Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
    reporter: Option<Arc<dyn Reporter>>,
    cancel: Cancel,
    /// Nothing is taken from what was built or computed before.
    anew: bool,
    /// Runs that another build of the deployer began are gone on with.
    any_build: bool,
}

#[derive(Debug)]
struct Inner {
    topology: Topology,
    authority: Authority,
    state: PathBuf,
    source: Arc<dyn Source>,
    store: Arc<dyn Store>,
    leases: StoreLeases,
    provisioner: Arc<LocalProvisioner>,
    clock: Arc<dyn Clock>,
    notifier: Arc<dyn Notifier>,
    deployer: PathBuf,
    actor: String,
    secrets: Arc<Secrets>,
    /// The router, while this process serves.
    router: RwLock<Option<Arc<HttpRouter>>>,
    /// Held while documents are read and the router's table is replaced, so that an older table never follows a newer one.
    routing: tokio::sync::Mutex<()>,
}

impl Delivery {
    /// Reads the topology and the grants, and opens (or makes) the state directory.
    ///
    /// # Errors
    /// [`DeliveryError::Config`] shows everything that is wrong with the files, each with its place; nothing is made then.
    /// [`DeliveryError::StateDirectory`] and [`DeliveryError::Store`] if the state can't be kept.
    pub fn open(setup: Setup) -> Result<Self, DeliveryError> {
        let topology = Topology::load(&setup.topology)?;
        Self::open_with(setup, topology)
    }

    /// The same with a topology that was made in Rust; the setup's file is not read.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(setup: Setup, topology: Topology) -> Result<Self, DeliveryError> {
        topology.check()?;
        let grants: Grants = flowline_core::config::load(&setup.grants)?;
        let unusable = |source: std::io::Error| DeliveryError::StateDirectory {
            directory: setup.state.clone(),
            help: state_help(&source),
            source: source.into(),
        };
        std::fs::create_dir_all(&setup.state).map_err(unusable)?;
        // Paths end up in links, processes and documents, so they must not depend on where this process stands.
        let state = setup.state.canonicalize().map_err(unusable)?;
        let store = match setup.store {
            Some(store) => store,
            None => open_store(&state)?,
        };
        let provisioner = LocalProvisioner::open(
            &state.join("host"),
            LocalOptions::default().with_clock(Arc::clone(&setup.clock)),
        )
        .map_err(|error| DeliveryError::part("opening the host's directory", error))?;
        let source = setup.source.unwrap_or_else(|| {
            let repository = setup.topology.parent().filter(|parent| !parent.as_os_str().is_empty());
            Arc::new(GitSource::new(repository.unwrap_or(Path::new("."))))
        });
        let deployer = match setup.deployer {
            Some(program) => program,
            None => this_program().map_err(unusable)?,
        };
        let inner = Inner {
            authority: Authority::new(topology.app.clone(), &grants),
            leases: StoreLeases::new(Arc::clone(&store), Arc::clone(&setup.clock)),
            provisioner: Arc::new(provisioner),
            topology,
            state,
            source,
            store,
            clock: setup.clock,
            notifier: setup.notifier,
            deployer,
            actor: setup.actor,
            secrets: Arc::new(setup.secrets),
            router: RwLock::new(None),
            routing: tokio::sync::Mutex::new(()),
        };
        Ok(Self {
            inner: Arc::new(inner),
            reporter: setup.reporter,
            cancel: Cancel::new(),
            anew: false,
            any_build: false,
        })
    }

    /// The same delivery, whose runs are shown through `reporter` from now on; other clones keep theirs.
    #[must_use]
    pub fn with_reporter(mut self, reporter: Arc<dyn Reporter>) -> Self {
        self.reporter = Some(reporter);
        self
    }

    /// The same delivery, whose runs end orderly once `cancel` is cancelled: what they did is undone. Other clones keep theirs.
    #[must_use]
    pub fn with_cancel(mut self, cancel: Cancel) -> Self {
        self.cancel = cancel;
        self
    }

    /// The same delivery, which builds anew what was built before and computes every pure step anew. What runs already is left alone all the
    /// same. Other clones keep theirs.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.anew = true;
        self
    }

    /// The same delivery, which goes on with runs whose functions were sealed by another build of the deployer; without it they are refused.
    /// Other clones keep theirs.
    #[must_use]
    pub fn allow_other_build(mut self) -> Self {
        self.any_build = true;
        self
    }

    /// Holds the router at `127.0.0.1:port` (0: any free port) and keeps alive what should run, until the answer is stopped or dropped.
    ///
    /// One process of a host serves; it follows what any other process changes. Whatever was started before is adopted.
    ///
    /// # Errors
    /// [`DeliveryError::Listen`] if the port is taken; [`DeliveryError::ServedElsewhere`] if another process serves this directory.
    pub async fn serve(&self, port: u16) -> Result<Serving, DeliveryError> {
        serve::start(self, port).await
    }

    /// Takes in GitHub's `pull_request` webhook payload: the change opens, moves on, merges or closes. Doing it again changes nothing.
    ///
    /// Closing a change does not remove its preview by itself: call [`close`](Self::close), or let its time run out.
    ///
    /// # Errors
    /// [`DeliveryError::Payload`] names what is wrong with it; [`DeliveryError::Unknown`] for an action that moves no change.
    pub async fn receive(&self, payload: &[u8]) -> Result<Received, DeliveryError> {
        match github::pull_request(payload, self.app())? {
            Told::Change(change) => self.take_in(*change).await,
            Told::Nothing { action } => Err(DeliveryError::Unknown {
                what: "change in this payload, whose action is",
                name: action,
                help: "it moves no pull request, so there is nothing to do".to_owned(),
            }),
        }
    }

    /// A durable sequence of verbs under `id`: see [`Workflow`].
    ///
    /// # Errors
    /// If `id` is no run's id.
    pub fn workflow(&self, id: &str) -> Result<Workflow<'_>, DeliveryError> {
        Workflow::new(self, RunId::new(id)?)
    }

    /// Everything that was recorded about `subject`: `change/pr-123`, `environment/production`, `run/…`; one line for each event, with the
    /// reasons that were recorded.
    ///
    /// # Errors
    /// If `subject` is not a stream's id, or the store does not answer.
    pub async fn why(&self, subject: &str) -> Result<Vec<String>, DeliveryError> {
        let events = self.events(StreamId::new(subject)?).await?;
        Ok(events.iter().map(|recorded| timeline::line(&recorded.event)).collect())
    }

    /// How far `change` has got, and when it reached what.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn timeline(&self, change: &ChangeId) -> Result<Timeline, DeliveryError> {
        let mut events = self.events(record::change_stream(change)?).await?;
        events.extend(self.first_exposures(&events).await?);
        events.sort_by_key(|recorded| recorded.position);
        Ok(Timeline::of(change.clone(), &events))
    }

    /// How many events the journal holds.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn journal_events(&self) -> Result<u64, DeliveryError> {
        Ok(self.store().head().await.map_err(DeliveryError::store("counting events"))?.0)
    }

    /// The environment `name` as it stands; `None` if it was never made, or is gone.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn environment(
        &self,
        name: &EnvironmentName,
    ) -> Result<Option<EnvironmentRecord>, DeliveryError> {
        let found = self.store().get(&record::environment_key(name)?).await;
        Ok(found
            .map_err(DeliveryError::store(format!("reading environment `{name}`")))?
            .map(|(_, record)| record))
    }

    /// Every environment that is there, by name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn environments(&self) -> Result<Vec<EnvironmentRecord>, DeliveryError> {
        let store = || DeliveryError::store("reading the environments");
        let found = self.store().list("environment/").await.map_err(store())?;
        found.into_iter().map(|(key, document)| document.decode(&key).map_err(store())).collect()
    }

    /// Where `component` is found in `environment`, with the port of the router that serves now. Known before anything is deployed.
    ///
    /// # Errors
    /// If the topology has no such component, or no address can be derived.
    pub async fn url(
        &self,
        environment: &EnvironmentName,
        component: &ComponentName,
    ) -> Result<String, DeliveryError> {
        let address = self.address(environment, component)?;
        let port = self.serve_status().await?.map(|status| status.address.port());
        Ok(with_port(&address, port))
    }

    /// What the serving process says of itself; `None` if none ever served.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn serve_status(&self) -> Result<Option<ServeStatus>, DeliveryError> {
        let found = self.store().get(&serve::status_key()?).await;
        Ok(found.map_err(DeliveryError::store("looking for the router"))?.map(|(_, status)| status))
    }

    /// The topology that it delivers.
    pub fn topology(&self) -> &Topology {
        &self.inner.topology
    }

    /// What the application may touch.
    pub fn authority(&self) -> &Authority {
        &self.inner.authority
    }

    /// The journal of everything that happened.
    pub fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.inner.store))
    }

    /// Where state is kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.store
    }

    /// The state directory, absolute.
    pub fn state_directory(&self) -> &Path {
        &self.inner.state
    }

    /// The clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Who is named as the actor.
    pub fn actor(&self) -> &str {
        &self.inner.actor
    }

    /// The secrets that its steps may ask for: also for the planner and the runner of a pipeline of your own.
    pub fn secrets(&self) -> &Arc<Secrets> {
        &self.inner.secrets
    }

    pub(crate) fn leases(&self) -> &StoreLeases {
        &self.inner.leases
    }

    pub(crate) fn source(&self) -> &Arc<dyn Source> {
        &self.inner.source
    }

    pub(crate) fn provisioner(&self) -> &Arc<LocalProvisioner> {
        &self.inner.provisioner
    }

    pub(crate) fn router(&self) -> Option<Arc<HttpRouter>> {
        self.inner.router.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_router(&self, router: Option<Arc<HttpRouter>>) {
        *self.inner.router.write().unwrap_or_else(PoisonError::into_inner) = router;
    }

    pub(crate) fn address(
        &self,
        environment: &EnvironmentName,
        component: &ComponentName,
    ) -> Result<Address, DeliveryError> {
        Ok(self.topology().address_in(environment, component)?)
    }

    async fn events(&self, stream: StreamId) -> Result<Vec<flowline_core::event::Recorded>, DeliveryError> {
        let doing = format!("reading `{stream}`");
        self.store().events(EventQuery::of(stream)).await.map_err(DeliveryError::store(doing))
    }

    /// An event's id that says the fact, so that recording it again changes nothing.
    pub(crate) fn event_id(text: String) -> Result<EventId, DeliveryError> {
        Ok(EventId::new(text)?)
    }

    /// Tells somebody. A channel that fails does not stop a delivery: the failure is written to the journal instead.
    pub(crate) async fn tell(&self, notice: Notice) -> Result<(), DeliveryError> {
        let Err(error) = self.inner.notifier.notify(&notice).await else { return Ok(()) };
        let stream = StreamId::new("notices")?;
        let id = Self::event_id(format!("notice/{}/{}", notice.time.as_millisecond(), notice.to))?;
        let data = serde_json::json!({ "notice": notice, "error": flowline_core::error::chain(&error) });
        let event = flowline_core::event::Event::new(
            id,
            "notice.failed",
            notice.time,
            self.actor(),
            notice.subject.clone(),
        )
        .with_data(data);
        let appended =
            self.journal().append(&stream, [event], flowline_core::store::Durability::Written).await;
        appended.map_err(DeliveryError::store("recording that somebody could not be told"))?;
        Ok(())
    }

    pub(crate) fn notice(
        &self,
        to: &flowline_core::name::Person,
        urgency: Urgency,
        subject: &str,
        title: String,
        body: String,
    ) -> Notice {
        Notice { to: to.clone(), urgency, subject: subject.to_owned(), title, body, time: self.clock().now() }
    }
}

/// `http://app.localhost:8080/`: the address with the router's port where that is not the scheme's own; a whole host ends in `/`.
fn with_port(address: &Address, port: Option<u16>) -> String {
    let text = match port {
        Some(port) if address.port().is_none() => address.clone().with_port(port).to_string(),
        _ => address.to_string(),
    };
    if address.path().as_str() == "/" { format!("{}/", text.trim_end_matches('/')) } else { text }
}

/// The program that runs now: the one place where a delivery asks its process for something.
fn this_program() -> std::io::Result<PathBuf> {
    std::env::current_exe()
}

#[cfg(feature = "sqlite")]
fn open_store(state: &Path) -> Result<Arc<dyn Store>, DeliveryError> {
    let store = flowline_core::store::SqliteStore::open(state);
    Ok(Arc::new(store.map_err(DeliveryError::store("opening the state directory"))?))
}

#[cfg(not(feature = "sqlite"))]
fn open_store(_state: &Path) -> Result<Arc<dyn Store>, DeliveryError> {
    Ok(Arc::new(flowline_core::store::MemoryStore::new()))
}

fn state_help(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            "make it writable for this user, or choose another with `Setup::new`".to_owned()
        }
        std::io::ErrorKind::StorageFull => "the disk is full; free some space".to_owned(),
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            "something that is not a directory stands in its way".to_owned()
        }
        _ => "see the cause below".to_owned(),
    }
}
