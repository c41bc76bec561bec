//! Why a provisioner did not do what it was asked.

use std::{fmt, path::PathBuf, time::Duration};

use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
    id::{Key, ResourceId},
};

use super::workload::{InstanceId, WorkloadError};

/// Why a provisioner did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// The handle is to another resource than the change is about.
    #[error(
        "the handle is to `{handle}` but the change is about `{about}`; ask the authority for a grant to `{about}`"
    )]
    Handle {
        /// What the handle is to.
        handle: ResourceId,
        /// What the change is about.
        about: ResourceId,
    },
    /// The handle is to a kind of resource that this backend does not have.
    #[error(
        "`{resource}` is nothing that this provisioner has; it has `dir:ENVIRONMENT/COMPONENT` and `process:ENVIRONMENT/COMPONENT`"
    )]
    Resource {
        /// What the handle is to.
        resource: ResourceId,
    },
    /// Somebody with a newer fence was here; stop.
    #[error(
        "lease `{lease}` with token {token} came too late for `{resource}`: token {seen} was here; stop what it protects"
    )]
    Fenced {
        /// What should be changed.
        resource: ResourceId,
        /// The lease.
        lease: Key,
        /// The token that was shown.
        token: u64,
        /// The highest token that was here.
        seen: u64,
    },
    /// The workload is malformed.
    #[error("the workload for `{resource}` is malformed")]
    Workload {
        /// What should be changed.
        resource: ResourceId,
        /// What is wrong.
        source: WorkloadError,
    },
    /// No such artifact is stored.
    #[error("artifact {} is not in the store at {}; import it first", .artifact.short(), .store.display())]
    NoArtifact {
        /// The artifact.
        artifact: Digest,
        /// The store.
        store: PathBuf,
    },
    /// No such instance is there.
    #[error("`{resource}` has no instance {instance}; stage it first")]
    NoInstance {
        /// Where it was looked for.
        resource: ResourceId,
        /// The instance.
        instance: InstanceId,
    },
    /// The instance is active, so it can't be retired or discarded.
    #[error(
        "instance {instance} of `{resource}` is active; activate another one first, or destroy the whole"
    )]
    Active {
        /// Where it stands.
        resource: ResourceId,
        /// The instance.
        instance: InstanceId,
    },
    /// The instance is not ready, so it can't become active.
    #[error("instance {instance} of `{resource}` cannot become active: {why}; stage it first")]
    NotReady {
        /// Where it stands.
        resource: ResourceId,
        /// The instance.
        instance: InstanceId,
        /// How it is.
        why: String,
    },
    /// The program to start is not there or can't be started.
    #[error("cannot start `{program}` for `{resource}`: {problem}")]
    Start {
        /// For what.
        resource: ResourceId,
        /// The program as looked for.
        program: String,
        /// What is wrong and what to do.
        problem: String,
        /// The system's error, if it was one.
        #[source]
        source: Option<BoxError>,
    },
    /// The process ended before it was ready.
    #[error("instance {instance} of `{resource}` ended before it was ready: {why}{log}")]
    Ended {
        /// Where it was staged.
        resource: ResourceId,
        /// The instance.
        instance: InstanceId,
        /// How it ended.
        why: String,
        /// The last lines of its output.
        log: LogTail,
    },
    /// The process did not become ready in time.
    #[error(
        "instance {instance} of `{resource}` did not become ready within {within:?} on port {port}: {last}{log}"
    )]
    Unready {
        /// Where it was staged.
        resource: ResourceId,
        /// The instance.
        instance: InstanceId,
        /// The limit.
        within: Duration,
        /// The port that was asked.
        port: u16,
        /// What the last probe said.
        last: String,
        /// The last lines of its output.
        log: LogTail,
    },
    /// A port is held by somebody else.
    #[error("port {port} for `{resource}` is taken{}; free it or choose another", by(.holder.as_ref()))]
    PortTaken {
        /// For what.
        resource: ResourceId,
        /// The port.
        port: u16,
        /// The process that holds it, if it could be found.
        holder: Option<PortHolder>,
    },
    /// A process does not go away.
    #[error(
        "process {pid} of `{resource}` is still there after SIGKILL; it hangs in the kernel, look at what it waits for"
    )]
    Unstoppable {
        /// Whose process.
        resource: ResourceId,
        /// The process.
        pid: u32,
    },
    /// Somebody else is changing the same resource for longer than the limit.
    #[error("`{resource}` is being changed by {holder}; try again when that has ended")]
    Busy {
        /// What should be changed.
        resource: String,
        /// By whom, as far as known.
        holder: String,
    },
    /// The place where state is kept can't be read or written.
    #[error("cannot {doing} {}: {help}", .path.display())]
    Unavailable {
        /// What was being done, such as `write`.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What to do about it.
        help: &'static str,
        /// The system's error.
        source: BoxError,
    },
    /// What is stored is not what was stored.
    #[error("{} is damaged: {problem}", .path.display())]
    Corrupt {
        /// What.
        path: PathBuf,
        /// How, and what to do.
        problem: String,
    },
    /// This backend or platform can't do it.
    #[error("this provisioner cannot {what}")]
    Unsupported {
        /// What it can't do, and where it could.
        what: &'static str,
    },
    /// The caller lost interest; what was begun is continued by the next change.
    #[error("the change was cancelled; apply it again to continue")]
    Cancelled,
    /// Anything else that a backend says.
    #[error("cannot {doing} `{resource}`")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// To what.
        resource: ResourceId,
        /// The backend's error.
        source: BoxError,
    },
}

impl Kinded for ProvisionError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Handle { .. } | Self::Fenced { .. } => ErrorKind::Denied,
            Self::Resource { .. } | Self::Workload { .. } => ErrorKind::Invalid,
            Self::NoArtifact { .. } | Self::NoInstance { .. } => ErrorKind::NotFound,
            Self::Active { .. } | Self::NotReady { .. } => ErrorKind::Conflict,
            Self::Start { .. } | Self::Ended { .. } | Self::Unstoppable { .. } => ErrorKind::Failed,
            Self::Unready { .. } => ErrorKind::TimedOut,
            Self::PortTaken { .. } | Self::Busy { .. } => ErrorKind::Busy,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Backend { .. } => ErrorKind::Other,
        }
    }
}

/// The process that holds a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortHolder {
    /// Its id.
    pub pid: u32,
    /// Its name, as the kernel shortens it.
    pub name: String,
}

fn by(holder: Option<&PortHolder>) -> String {
    holder.map_or_else(String::new, |PortHolder { pid, name }| format!(" by process {pid} (`{name}`)"))
}

/// The last lines of a process's output, for a message: control characters escaped. Displayed as a paragraph of its own, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogTail(pub Vec<String>);

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("; it wrote nothing");
        }
        f.write_str("; the last it wrote:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  | {line}"))
    }
}
