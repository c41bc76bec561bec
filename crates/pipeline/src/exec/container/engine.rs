//! The container engine behind the socket, and the containers that dead processes left with it.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
};
use flowline_core::{
    clock::{Clock as _, SystemClock},
    error::{BoxError, ErrorKind, Kinded},
    process::{boot, started},
};
use tokio::sync::OnceCell;

/// How long one request may take, in seconds; waiting for a container is asked again.
const REQUEST: u64 = 60;
/// Says which process a container belongs to.
pub(super) const OWNER: &str = "flowline.owner";
/// Says for how many seconds after it was made a container may be there; its process limits it to less.
pub(super) const LIFETIME: &str = "flowline.lifetime";

/// A container engine on this host that speaks the Docker API (1.41 or newer) on a unix socket: Docker, Podman. Cheap to clone.
///
/// What a process that was killed left running is removed when the next one connects to the same engine and first uses it, or calls
/// [`sweep`](Self::sweep): every container carries the identity of its process (boot, PID namespace, PID, start time), so one that belongs to
/// a living process is never touched. Whether a process of another PID namespace lives, as of a CI job that ran in a container with the
/// engine's socket mounted, can't be seen; its container is removed once its time is over, which it carries too: the limit of its command,
/// the grace, and ten minutes.
#[derive(Clone)]
pub struct Engine {
    pub(super) docker: Docker,
    socket: PathBuf,
    swept: Arc<OnceCell<()>>,
}

/// The engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the container engine at {} did not answer while {doing}; is its service running?", .socket.display())]
pub struct EngineError {
    socket: PathBuf,
    doing: &'static str,
    #[source]
    source: BoxError,
}

impl Kinded for EngineError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

impl Engine {
    /// Connects to the engine at `socket`, such as `/run/docker.sock` or `/run/podman/podman.sock`.
    ///
    /// # Errors
    /// `Unavailable` if nobody answers there.
    pub async fn connect(socket: impl Into<PathBuf>) -> Result<Self, EngineError> {
        let socket = socket.into();
        let failed = |source: Error| EngineError {
            socket: socket.clone(),
            doing: "connecting",
            source: source.into(),
        };
        let docker = Docker::connect_with_unix(&socket.to_string_lossy(), REQUEST, API_DEFAULT_VERSION)
            .map_err(failed)?
            .negotiate_version()
            .await
            .map_err(failed)?;
        Ok(Self { docker, socket, swept: Arc::new(OnceCell::new()) })
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Removes every container that a process which no longer lives left here, or whose time is over while nobody can tell whether its
    /// process lives, and answers their names.
    ///
    /// # Errors
    /// `Unavailable` if the engine does not answer.
    pub async fn sweep(&self) -> Result<Vec<String>, EngineError> {
        let failed = |source: Error| self.error("removing what dead processes left", source);
        let filters = BTreeMap::from([("label", vec![OWNER.to_owned()])]).into_iter().collect();
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        // The engine is on this host, and so is its clock.
        let now = SystemClock.now().as_second();
        let mut removed = Vec::new();
        for container in self.docker.list_containers(Some(options)).await.map_err(failed)? {
            let owner = container.labels.as_ref().and_then(|labels| labels.get(OWNER));
            let running = container.state.is_some_and(|state| state.to_string() == "running");
            let (Some(owner), Some(id)) = (owner, &container.id) else { continue };
            let lifetime = container.labels.as_ref().and_then(|labels| labels.get(LIFETIME)?.parse().ok());
            let over =
                container.created.zip(lifetime).is_some_and(|(made, lifetime)| is_over(made, lifetime, now));
            if Owner::read(owner).is_some_and(|owner| owner.fate(running).may_remove(over)) {
                self.remove(id).await.map_err(failed)?;
                let name = container.names.and_then(|names| names.into_iter().next());
                removed.push(name.map_or_else(|| id.clone(), |name| name.trim_start_matches('/').to_owned()));
            }
        }
        removed.sort();
        Ok(removed)
    }

    /// Sweeps before this engine is first used.
    pub(super) async fn sweep_once(&self) -> Result<(), EngineError> {
        self.swept.get_or_try_init(async || self.sweep().await.map(drop)).await.copied()
    }

    /// Removes a container, running or not; one that is not there is fine.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Error> {
        // Podman gives what runs its stop time before it removes it by force; a killed container is gone at once.
        let kill = bollard::query_parameters::KillContainerOptionsBuilder::new().signal("KILL").build();
        self.docker.kill_container(id, Some(kill)).await.ok();
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            other => other,
        }
    }

    fn error(&self, doing: &'static str, source: Error) -> EngineError {
        EngineError { socket: self.socket.clone(), doing, source: source.into() }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.socket.display())
    }
}

/// The process that a container belongs to. Parts that the system does not tell are empty; then nothing is ever concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    boot: String,
    namespace: String,
    pid: u32,
    started: u64,
}

impl Owner {
    /// This process.
    pub(super) fn this() -> Self {
        let pid = std::process::id();
        let namespace = fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned());
        Self {
            boot: boot(),
            namespace: namespace.unwrap_or_default(),
            pid,
            started: started(pid).unwrap_or_default(),
        }
    }

    pub(super) fn started(&self) -> u64 {
        self.started
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (boot, namespace) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        let (pid, started) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Self { boot, namespace, pid, started })
    }

    /// What became of the process. One of another boot may be one of another host, so what still runs is its business.
    fn fate(&self, running: bool) -> Fate {
        let this = Self::this();
        let blind = self.boot.is_empty() || self.namespace.is_empty() || self.started == 0;
        if blind || this.boot.is_empty() {
            Fate::Unknown
        } else if self.boot != this.boot {
            if running { Fate::Unknown } else { Fate::Gone }
        } else if self.namespace != this.namespace {
            Fate::Unknown
        } else if started(self.pid) == Some(self.started) {
            Fate::Lives
        } else {
            Fate::Gone
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Gone,
    /// It can't be seen from here.
    Unknown,
}

impl Fate {
    /// Whether its container may be removed, given whether that one's time is over.
    fn may_remove(self, over: bool) -> bool {
        match self {
            Self::Lives => false,
            Self::Gone => true,
            Self::Unknown => over,
        }
    }
}

/// Whether a container that was `made` (seconds since 1970) and may be there for `lifetime` seconds has had its time.
fn is_over(made: i64, lifetime: i64, now: i64) -> bool {
    made.saturating_add(lifetime) < now
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.boot, self.namespace, self.pid, self.started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_loses_its_containers_once_it_is_certainly_gone_or_their_time_is_over() {
        let this = Owner::this();
        assert_eq!(Owner::read(&this.to_string()), Some(this.clone()));
        let fate = |owner: Owner, running| owner.fate(running);
        assert_eq!(fate(this.clone(), true), Fate::Lives);
        assert_eq!(fate(Owner { started: this.started + 1, ..this.clone() }, true), Fate::Gone);
        assert_eq!(fate(Owner { pid: u32::MAX, ..this.clone() }, true), Fate::Gone);
        let job = Owner { pid: u32::MAX, namespace: "pid:[1]".to_owned(), ..this.clone() };
        assert_eq!(fate(job, true), Fate::Unknown);
        let other_boot = Owner { boot: "other".to_owned(), ..this.clone() };
        assert_eq!((fate(other_boot.clone(), true), fate(other_boot, false)), (Fate::Unknown, Fate::Gone));
        assert_eq!(fate(Owner { boot: String::new(), pid: u32::MAX, ..this }, false), Fate::Unknown);
        for (fate, early, late) in
            [(Fate::Lives, false, false), (Fate::Gone, true, true), (Fate::Unknown, false, true)]
        {
            assert_eq!((fate.may_remove(false), fate.may_remove(true)), (early, late), "{fate:?}");
        }
        assert!(!is_over(100, 50, 150) && is_over(100, 50, 151) && !is_over(100, i64::MAX, i64::MAX));
        assert_eq!(Owner::read("made/by hand"), None);
    }
}
