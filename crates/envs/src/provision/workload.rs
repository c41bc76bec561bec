//! What should run: a [`Workload`] is one component's artifact in one environment, with all that makes it run.

use std::{collections::BTreeMap, fmt};

use flowline_core::{
    SignedDuration,
    digest::{Digest, Digester},
    error::{ErrorKind, Kinded},
    id::ResourceId,
    name::{ComponentName, EnvironmentName, NameError},
};
use serde::{Deserialize, Serialize};

use super::template::Template;

/// One component in one environment, as it should be.
///
/// ```
/// use flowline_core::digest::Digest;
/// use flowline_envs::provision::{ProcessSpec, Readiness, Workload};
///
/// let api = ProcessSpec::new(["{release}/bin/api", "--port", "{port}"])?
///     .with_env("MODE", "{environment}")?
///     .with_readiness(Readiness::http("/health")?);
/// let workload = Workload::process("production".parse()?, "api".parse()?, Digest::of("built"), api);
/// assert_eq!(workload.resource()?.as_str(), "process:production/api");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The environment that it stands in.
    pub environment: EnvironmentName,
    /// The component that it is.
    pub component: ComponentName,
    /// The digest of the artifact's content.
    pub artifact: Digest,
    /// How it runs.
    pub kind: WorkloadKind,
}

/// How a workload runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// Files in a directory; somebody else serves them from the `current` release.
    Static,
    /// A process that listens on a port.
    Process(ProcessSpec),
}

/// How a process is started, asked whether it is ready, and stopped.
///
/// Texts in `command` and `env` are [`Template`]s. The environment of the process holds `env`, the backend's `PATH` and the backend's own
/// mark; nothing is inherited. Values are recorded in plain text by backends, so a secret does not belong here: give the path of a file
/// that only the process may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessSpec {
    command: CommandLine,
    #[serde(default)]
    env: BTreeMap<VariableName, Template>,
    #[serde(default)]
    port: PortChoice,
    #[serde(default)]
    readiness: Readiness,
    #[serde(default = "ready_timeout")]
    ready_timeout: SignedDuration,
    #[serde(default = "stop_grace")]
    stop_grace: SignedDuration,
}

impl Workload {
    /// A workload of files.
    pub fn files(environment: EnvironmentName, component: ComponentName, artifact: Digest) -> Self {
        Self { environment, component, artifact, kind: WorkloadKind::Static }
    }

    /// A workload that is a process.
    pub fn process(
        environment: EnvironmentName,
        component: ComponentName,
        artifact: Digest,
        spec: ProcessSpec,
    ) -> Self {
        Self { environment, component, artifact, kind: WorkloadKind::Process(spec) }
    }

    /// What a provisioner touches for it: `dir:production/web` or `process:production/api`. Grants are asked for this.
    ///
    /// # Errors
    /// None with names that are labels, which both are; the id's own rule stays the only way to make one.
    pub fn resource(&self) -> Result<ResourceId, NameError> {
        let kind = match self.kind {
            WorkloadKind::Static => "dir",
            WorkloadKind::Process(_) => "process",
        };
        ResourceId::of(kind, format_args!("{}/{}", self.environment, self.component))
    }

    /// The id of the instance that this workload asks for: equal if the artifact and all that makes it run are equal.
    ///
    /// A changed variable asks for another instance, which is staged beside the running one like a changed artifact. How long to wait
    /// ([`ProcessSpec::with_ready_timeout`], [`ProcessSpec::with_stop_grace`]) does not count.
    pub fn instance(&self) -> InstanceId {
        let mut digester = Digester::new("flowline instance 1");
        digester.part(self.artifact.as_bytes());
        match &self.kind {
            WorkloadKind::Static => {
                digester.part("static");
            }
            WorkloadKind::Process(spec) => {
                digester.part("process").part(spec.command.0.len().to_be_bytes());
                for word in &spec.command.0 {
                    digester.part(word.as_str());
                }
                for (name, value) in &spec.env {
                    digester.part(&name.0).part(value.as_str());
                }
                digester.part(format!("{:?}", spec.port)).part(format!("{:?}", spec.readiness));
            }
        }
        InstanceId(digester.finish())
    }
}

impl ProcessSpec {
    /// Starts `command`: a program and its arguments, any port, ready when the port accepts a connection, within 30 s; 10 s to stop.
    ///
    /// The program is an absolute path, a path relative to the release (if there is a `/` in it), or a name looked up in the backend's
    /// `PATH`.
    ///
    /// # Errors
    /// If there is no program, or a word has a placeholder that does not exist.
    pub fn new<W: AsRef<str>>(command: impl IntoIterator<Item = W>) -> Result<Self, WorkloadError> {
        let words =
            command.into_iter().map(|word| Template::new(word.as_ref())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            command: CommandLine::try_from(words)?,
            env: BTreeMap::new(),
            port: PortChoice::Any,
            readiness: Readiness::Tcp,
            ready_timeout: ready_timeout(),
            stop_grace: stop_grace(),
        })
    }

    /// Sets the variable `name`.
    ///
    /// # Errors
    /// If `name` is not `[A-Za-z_][A-Za-z0-9_]*` or starts with `FLOWLINE_`, or `value` has a placeholder that does not exist.
    pub fn with_env(mut self, name: &str, value: &str) -> Result<Self, WorkloadError> {
        self.env.insert(VariableName::try_from(name.to_owned())?, Template::new(value)?);
        Ok(self)
    }

    /// Chooses the port.
    #[must_use]
    pub fn with_port(mut self, port: PortChoice) -> Self {
        self.port = port;
        self
    }

    /// Says how to ask whether it is ready.
    #[must_use]
    pub fn with_readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Limits how long it may take to become ready. Less than nothing is nothing.
    #[must_use]
    pub fn with_ready_timeout(mut self, limit: SignedDuration) -> Self {
        self.ready_timeout = limit;
        self
    }

    /// Limits how long it may take to stop after it was asked (SIGTERM) before it is made to (SIGKILL). Less than nothing is nothing.
    #[must_use]
    pub fn with_stop_grace(mut self, grace: SignedDuration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// The program and its arguments; at least the program is there.
    pub fn command(&self) -> &[Template] {
        &self.command.0
    }

    /// The variables, by name.
    pub fn env(&self) -> impl Iterator<Item = (&str, &Template)> {
        self.env.iter().map(|(name, value)| (name.0.as_str(), value))
    }

    /// The choice of port.
    pub fn port(&self) -> PortChoice {
        self.port
    }

    /// How it is asked whether it is ready.
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// How long it may take to become ready.
    pub fn ready_timeout(&self) -> std::time::Duration {
        self.ready_timeout.try_into().unwrap_or_default()
    }

    /// How long it may take to stop.
    pub fn stop_grace(&self) -> std::time::Duration {
        self.stop_grace.try_into().unwrap_or_default()
    }
}

fn ready_timeout() -> SignedDuration {
    SignedDuration::from_secs(30)
}

fn stop_grace() -> SignedDuration {
    SignedDuration::from_secs(10)
}

/// Which port a process gets, on 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortChoice {
    /// A free one. Two instances can stand side by side.
    #[default]
    Any,
    /// This one. The next instance can't be staged while the last one holds it.
    Fixed(std::num::NonZeroU16),
}

/// How a process is asked whether it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// Its port accepts a connection.
    #[default]
    Tcp,
    /// A `GET` of this path answers with a status from 200 to 399.
    Http(ProbePath),
}

impl Readiness {
    /// Asks by `GET path`.
    ///
    /// # Errors
    /// If `path` does not start with `/` or has a character that can't stand in a request line.
    pub fn http(path: &str) -> Result<Self, WorkloadError> {
        ProbePath::try_from(path.to_owned()).map(Self::Http)
    }
}

/// The path of a probe: printable ASCII without space, starting with `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProbePath(String);

impl ProbePath {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ProbePath {
    type Error = WorkloadError;

    fn try_from(path: String) -> Result<Self, WorkloadError> {
        if !path.starts_with('/') || !path.chars().all(|c| c.is_ascii_graphic()) {
            return Err(WorkloadError::Path { path });
        }
        Ok(Self(path))
    }
}

/// The id of one instance of a component: the digest of its artifact and of all that makes it run. See [`Workload::instance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Digest);

impl InstanceId {
    /// The digest behind the id.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.short())
    }
}

/// A program and its arguments: never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Template>")]
struct CommandLine(Vec<Template>);

impl TryFrom<Vec<Template>> for CommandLine {
    type Error = WorkloadError;

    fn try_from(words: Vec<Template>) -> Result<Self, WorkloadError> {
        match words.first() {
            Some(program) if !program.as_str().is_empty() => Ok(Self(words)),
            _ => Err(WorkloadError::NoProgram),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct VariableName(String);

impl TryFrom<String> for VariableName {
    type Error = WorkloadError;

    fn try_from(name: String) -> Result<Self, WorkloadError> {
        let shape = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
        if !shape {
            return Err(WorkloadError::Variable {
                name,
                problem: "use letters, digits and `_`, not a digit first",
            });
        }
        if name.starts_with("FLOWLINE_") {
            return Err(WorkloadError::Variable {
                name,
                problem: "names that start with `FLOWLINE_` are flowline's own",
            });
        }
        Ok(Self(name))
    }
}

/// Why something can't be part of a workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WorkloadError {
    /// The command is empty.
    #[error("the command has no program; give at least one word")]
    NoProgram,
    /// A text with places to fill is malformed.
    #[error("`{}` cannot be filled: {problem}", .text.escape_debug())]
    Template {
        /// The text.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A variable's name is malformed or taken.
    #[error("`{}` cannot be the name of a variable: {problem}", .name.escape_debug())]
    Variable {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The path of a probe is malformed.
    #[error("`{}` cannot be a probe's path: it must start with `/` and have no space", .path.escape_debug())]
    Path {
        /// The path.
        path: String,
    },
}

impl Kinded for WorkloadError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(spec: ProcessSpec) -> Workload {
        Workload::process("production".parse().unwrap(), "api".parse().unwrap(), Digest::of("1"), spec)
    }

    #[test]
    fn messages_say_what_and_what_instead() {
        let said = [
            Template::new("{prot}").unwrap_err().to_string(),
            Template::new("a}b").unwrap_err().to_string(),
            Template::new("a\0b").unwrap_err().to_string(),
            ProcessSpec::new([""; 0]).unwrap_err().to_string(),
            ProcessSpec::new(["x"]).unwrap().with_env("1A", "").unwrap_err().to_string(),
            ProcessSpec::new(["x"]).unwrap().with_env("FLOWLINE_INSTANCE", "").unwrap_err().to_string(),
            Readiness::http("health\r\n").unwrap_err().to_string(),
        ];
        insta::assert_snapshot!(said.join("\n"), @r"
        `{prot}` cannot be filled: `{prot}` is no placeholder; there are `{release}`, `{data}`, `{port}`, `{environment}` and `{component}`
        `a}b` cannot be filled: a single brace stands in it; write `{{` or `}}` for a brace
        `a\0b` cannot be filled: it has a NUL character
        the command has no program; give at least one word
        `1A` cannot be the name of a variable: use letters, digits and `_`, not a digit first
        `FLOWLINE_INSTANCE` cannot be the name of a variable: names that start with `FLOWLINE_` are flowline's own
        `health\r\n` cannot be a probe's path: it must start with `/` and have no space
        ");
    }

    #[test]
    fn what_runs_makes_the_instance_and_waiting_does_not() {
        let spec = || ProcessSpec::new(["{release}/api"]).unwrap();
        let id = api(spec()).instance();
        assert_eq!(id, api(spec().with_stop_grace(SignedDuration::ZERO)).instance());
        assert_ne!(id, api(spec().with_env("A", "1").unwrap()).instance());
        assert_ne!(id, api(spec().with_readiness(Readiness::http("/").unwrap())).instance());
        assert_ne!(id, api(ProcessSpec::new(["{release}/api", "x"]).unwrap()).instance());
    }

    #[test]
    fn it_is_read_from_a_document_and_checked() {
        let text = r#"{"environment":"pr-1","component":"api","artifact":"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "kind":{"process":{"command":["{release}/api"],"ready_timeout":"5s","readiness":{"http":"/up"},"port":{"fixed":8080}}}}"#;
        let workload: Workload = serde_json::from_str(text).unwrap();
        let again: Workload = serde_json::from_str(&serde_json::to_string(&workload).unwrap()).unwrap();
        assert_eq!(again, workload);
        assert!(serde_json::from_str::<Workload>(&text.replace("{release}", "{realese}")).is_err());
        assert!(serde_json::from_str::<Workload>(&text.replace("[\"{release}/api\"]", "[]")).is_err());
        assert!(serde_json::from_str::<Workload>(&text.replace("\"/up\"", "\"up\"")).is_err());
    }
}
