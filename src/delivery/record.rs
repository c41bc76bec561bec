//! How what is kept about environments, releases and changes is called in the store.
//!
//! Each environment is one document, `environment/NAME`, an [`EnvironmentRecord`](flowline_envs::environment::EnvironmentRecord). The
//! router follows these documents, so a commit that replaces one switches it in one step.

use flowline_core::{
    artifact::Release,
    digest::Digest,
    id::{ChangeId, Key, RunId, StreamId},
    name::{ComponentName, EnvironmentName, NameError},
};

/// The document of environment `name`.
///
/// # Errors
/// Never for a checked name; the key's rule is wider.
pub(super) fn environment_key(name: &EnvironmentName) -> Result<Key, NameError> {
    Key::new(format!("environment/{name}"))
}

/// The stream of environment `name`.
///
/// # Errors
/// Never for a checked name.
pub(super) fn environment_stream(name: &EnvironmentName) -> Result<StreamId, NameError> {
    StreamId::new(format!("environment/{name}"))
}

/// The document of change `id`.
///
/// # Errors
/// Never for a checked id.
pub(super) fn change_key(id: &ChangeId) -> Result<Key, NameError> {
    Key::new(format!("change/{id}"))
}

/// The stream of change `id`: its way, from opened to all users.
///
/// # Errors
/// Never for a checked id.
pub(super) fn change_stream(id: &ChangeId) -> Result<StreamId, NameError> {
    StreamId::new(format!("change/{id}"))
}

/// The document of the artifact of `component` that the source tree `source` makes.
///
/// # Errors
/// Never for a checked name.
pub(super) fn artifact_key(component: &ComponentName, source: &Digest) -> Result<Key, NameError> {
    Key::new(format!("artifact/{component}/{}", source.hex()))
}

/// The document of the newest verdict on `release` in `environment`.
///
/// # Errors
/// Never for a checked name.
pub(super) fn verdict_key(environment: &EnvironmentName, release: &Release) -> Result<Key, NameError> {
    Key::new(format!("verdict/{environment}/{}", release.id().digest().hex()))
}

/// The document of the verdict that a run came to.
///
/// # Errors
/// Never for a checked id.
pub(super) fn run_verdict_key(run: &RunId) -> Result<Key, NameError> {
    Key::new(format!("verdict-of-run/{run}"))
}

/// The document that counts how often a deployment of `environment` that would have had this number was stopped.
///
/// # Errors
/// Never for a checked name.
pub(super) fn stopped_key(environment: &EnvironmentName, generation: u64) -> Result<Key, NameError> {
    Key::new(format!("stopped/{environment}/{generation}"))
}
