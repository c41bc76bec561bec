//! Running a command, with what it may see declared and what it does to the world said beforehand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, digest::Digest, error::ErrorKind, id::ResourceId, secret::SecretName};
use serde::{Deserialize, Serialize};

use crate::{
    exec::{Command, ExecError, Executor, Line},
    pipeline::Wire,
    plan::Inputs,
    step::{
        Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Spec, Step,
        StepError, Undo,
    },
};

/// A command: everything that it may see, and what it does to the world.
///
/// ```
/// use flowline_pipeline::{Pipeline, step::Effect, steps::RunCommand};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("build", "storefront".parse()?);
/// let built = pipeline.step("build", RunCommand::new("make", "/src", Effect::Pure).arg("all").env("PATH", "/usr/bin:/bin"));
/// # let _ = built; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunCommand {
    /// The program: a path, or a name that is looked up in the declared `PATH`.
    pub program: String,
    /// Its arguments, without a shell in between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its environment, whole.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Variables that get the value of a secret of the run, by the secret's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretName>,
    /// Its working directory.
    pub dir: PathBuf,
    /// Files and directories below `dir` that it reads. Where an executor can keep others away, it sees only these.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reads: BTreeSet<PathBuf>,
    /// Files and directories below `dir` that it writes. What is there afterwards is part of the output, by digest.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub writes: BTreeSet<PathBuf>,
    /// It needs the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub network: bool,
    /// The longest that it may take, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
    /// What it does to the world: nobody but you can know.
    pub effect: Effect,
    /// What it touches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub touches: Vec<ResourceId>,
    /// For [`Effect::Probed`]: exits 0 if the effect happened, 1 if not. Anything else leaves it to a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<OtherCommand>,
    /// Takes the effect back; must be harmless if it never happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<OtherCommand>,
    /// Nothing takes the effect back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub irreversible: bool,
}

/// Another command in the environment and directory of a [`RunCommand`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtherCommand {
    /// The program.
    pub program: String,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

impl RunCommand {
    /// `program` without arguments in `dir`, with an empty environment.
    pub fn new(program: impl Into<String>, dir: impl Into<PathBuf>, effect: Effect) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            dir: dir.into(),
            reads: BTreeSet::new(),
            writes: BTreeSet::new(),
            network: false,
            limit_ms: None,
            effect,
            touches: Vec::new(),
            probe: None,
            undo: None,
            irreversible: false,
        }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The same with these arguments too.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same with a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same with a variable that gets the value of the run's secret `secret`.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, secret: impl Into<SecretName>) -> Self {
        self.secret_env.insert(name.into(), secret.into());
        self
    }

    /// The same, reading the file or directory `path` below its directory.
    #[must_use]
    pub fn reads(mut self, path: impl Into<PathBuf>) -> Self {
        self.reads.insert(path.into());
        self
    }

    /// The same, writing the file or directory `path` below its directory.
    #[must_use]
    pub fn writes(mut self, path: impl Into<PathBuf>) -> Self {
        self.writes.insert(path.into());
        self
    }

    /// The same, using the network.
    #[must_use]
    pub fn with_network(mut self) -> Self {
        self.network = true;
        self
    }

    /// The same, ended after so many milliseconds.
    #[must_use]
    pub fn limit_ms(mut self, limit: u64) -> Self {
        self.limit_ms = Some(limit);
        self
    }

    /// The same, touching `resource`.
    #[must_use]
    pub fn touching(mut self, resource: ResourceId) -> Self {
        self.touches.push(resource);
        self
    }

    /// The same, asking `program` after a crash whether it happened.
    #[must_use]
    pub fn probed_by<A: Into<String>>(
        mut self,
        program: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        self.probe = Some(OtherCommand::new(program, args));
        self
    }

    /// The same, taken back by `program`.
    #[must_use]
    pub fn undone_by<A: Into<String>>(
        mut self,
        program: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        self.undo = Some(OtherCommand::new(program, args));
        self
    }

    pub(super) fn line(&self) -> String {
        let parts: Vec<_> = std::iter::once(&self.program).chain(&self.args).map(String::as_str).collect();
        parts.join(" ")
    }
}

impl OtherCommand {
    fn new<A: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect() }
    }
}

/// Variables that a command gets from other steps' outputs. Written as `()` for none, or with [`Named`](crate::pipeline::Named).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Option<BTreeMap<String, serde_json::Value>>")]
pub struct Variables(BTreeMap<String, String>);

impl From<Option<BTreeMap<String, serde_json::Value>>> for Variables {
    /// Text stays as it is, anything else becomes JSON.
    fn from(values: Option<BTreeMap<String, serde_json::Value>>) -> Self {
        let text = |value| match value {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Self(values.unwrap_or_default().into_iter().map(|(name, value)| (name, text(value))).collect())
    }
}

impl Wire<Variables> for () {
    fn wire(self) -> Result<Inputs, flowline_core::error::BoxError> {
        Ok(Inputs::None)
    }
}

/// What a command gave.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandOutput {
    /// The end of its standard output, secrets masked, with U+FFFD for what is not UTF-8, without a last newline.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// How many bytes came before that.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
    /// Every file below [`RunCommand::writes`], by its path below the directory.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Digest>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Spec for RunCommand {
    const KIND: &'static str = "command";
    type Input = Variables;
    type Output = CommandOutput;
}

/// The code of [`RunCommand`].
#[derive(Debug, Clone)]
pub struct CommandStep {
    executor: Arc<dyn Executor>,
}

impl CommandStep {
    /// Runs commands through `executor`.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor }
    }

    async fn execute(
        &self,
        spec: &RunCommand,
        (program, args): (&str, &[String]),
        variables: Variables,
        context: &Context,
    ) -> Result<Result<CommandOutput, ExecError>, StepError> {
        for resource in &spec.touches {
            context.granted(resource)?;
        }
        let mut command = Command::new(program, &spec.dir);
        command.args = args.to_vec();
        command.env.clone_from(&spec.env);
        command.env.extend(variables.0);
        command.reads.clone_from(&spec.reads);
        command.writes.clone_from(&spec.writes);
        command.network = spec.network;
        let limit = |limit: u64| SignedDuration::from_millis(i64::try_from(limit).unwrap_or(i64::MAX));
        command.limit = spec.limit_ms.map(limit);
        for (name, value) in [("run", context.run().to_string()), ("step", context.step().to_string())] {
            command.labels.insert(name.to_owned(), value);
        }
        command.mask = context.masker().clone();
        for (name, secret) in &spec.secret_env {
            command.secret_env.insert(name.clone(), context.secret(secret)?.clone());
        }
        let mut lines = |line: Line| context.line(&line);
        let exited = match self.executor.run(&command, &mut lines, context.cancel()).await {
            Ok(exited) => exited,
            Err(error) => return Ok(Err(error)),
        };
        if exited.strays > 0 {
            let processes = if exited.strays == 1 { "process" } else { "processes" };
            context.say(format!(
                "warning: `{}` ended and left {} {processes} behind, which were killed; \
                 what should outlive a step belongs to a service manager",
                String::from_utf8_lossy(&command.masker().mask(command.program.as_bytes())),
                exited.strays
            ));
        }
        let mut files = BTreeMap::new();
        for path in &spec.writes {
            written(&spec.dir, path, &mut files).map_err(|(path, source)| {
                let message = format!("cannot read `{}`, which `{}` wrote", path.display(), spec.line());
                StepError::new(ErrorKind::Other, message).because(source)
            })?;
        }
        let shown =
            |name: String| String::from_utf8_lossy(&command.masker().mask(name.as_bytes())).into_owned();
        let files = files.into_iter().map(|(name, digest)| (shown(name), digest)).collect();
        Ok(Ok(CommandOutput {
            stdout: String::from_utf8_lossy(&exited.stdout).trim_end_matches('\n').to_owned(),
            dropped: exited.dropped,
            files,
        }))
    }
}

/// The digest of every file at `path` below `dir` and in it. Links and what is no file are left out.
fn written(
    dir: &Path,
    path: &Path,
    files: &mut BTreeMap<String, Digest>,
) -> Result<(), (PathBuf, std::io::Error)> {
    let place = dir.join(path);
    let failed = |error| (place.clone(), error);
    let kind = std::fs::symlink_metadata(&place).map_err(failed)?.file_type();
    if kind.is_dir() {
        for entry in std::fs::read_dir(&place).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // `.` stands for the directory itself, not for a part of a path.
            let path = if path == Path::new(".") { PathBuf::from(name) } else { path.join(name) };
            written(dir, &path, files)?;
        }
    } else if kind.is_file() {
        let file = std::fs::File::open(&place).map_err(failed)?;
        let digest = Digest::of_reader(file).map_err(failed)?;
        files.insert(path.to_string_lossy().into_owned(), digest);
    }
    Ok(())
}

#[async_trait]
impl Step for CommandStep {
    type Spec = RunCommand;

    fn effect(&self, spec: &RunCommand) -> Effect {
        spec.effect.clone()
    }

    fn undoing(&self, spec: &RunCommand) -> Undo {
        match spec {
            RunCommand { undo: Some(_), .. } => Undo::Compensate,
            RunCommand { irreversible: true, .. } => Undo::Irreversible,
            _ => Undo::None,
        }
    }

    fn touches(&self, spec: &RunCommand) -> Vec<ResourceId> {
        spec.touches.clone()
    }

    async fn preview(&self, spec: &RunCommand, _: &PreviewContext) -> Result<Preview, StepError> {
        // What a command would find can't be told; its resources get one constant fingerprint, which never goes stale.
        let observed = spec.touches.iter().map(|resource| Observed {
            resource: resource.clone(),
            action: Action::Run,
            fingerprint: Fingerprint::absent(),
            details: Vec::new(),
        });
        Ok(Preview::of(format!("runs `{}`", spec.line()), observed.collect()))
    }

    async fn run(
        &self,
        spec: &RunCommand,
        input: Variables,
        context: &Context,
    ) -> Result<CommandOutput, StepError> {
        self.execute(spec, (&spec.program, &spec.args), input, context).await?.map_err(StepError::of)
    }

    async fn probe(
        &self,
        spec: &RunCommand,
        input: Variables,
        context: &Context,
    ) -> Result<Happened<CommandOutput>, StepError> {
        let Some(probe) = &spec.probe else {
            return Ok(Happened::Unknown("this command has no probe".to_owned()));
        };
        match self.execute(spec, (&probe.program, &probe.args), input, context).await? {
            Ok(output) => Ok(Happened::Yes(output)),
            Err(ExecError::Code { code: 1, .. }) => Ok(Happened::No),
            Err(error @ ExecError::Code { .. }) => Ok(Happened::Unknown(error.to_string())),
            Err(error) => Err(StepError::of(error)),
        }
    }

    async fn undo(
        &self,
        spec: &RunCommand,
        _: Option<CommandOutput>,
        context: &Context,
    ) -> Result<(), StepError> {
        let Some(undo) = &spec.undo else { return Ok(()) };
        let done = self.execute(spec, (&undo.program, &undo.args), Variables::default(), context).await?;
        done.map(drop).map_err(StepError::of)
    }
}
