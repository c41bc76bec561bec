//! Terraform (or OpenTofu) inside a pipeline: planned to a file, shown as part of our plan, and applied from exactly that file or not at all.
//!
//! Planning needs the stack's files, its state and its secrets, so the deployer does it before it writes the pipeline:
//! [`TerraformStack::plan`] runs `init` and `plan`, reads the result with `show -json`, and gives the [`TerraformApply`] that becomes a step.
//! That step is data about one plan file, by digest, and about the state that it was made from; whoever approves the sealed plan approves
//! just that.

mod program;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use flowline_core::{
    digest::Digest,
    error::{BoxError, ErrorKind, Kinded},
    id::ResourceId,
    secret::SecretName,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::program::Program;
pub use self::show::ResourceChange;
use crate::{
    cancel::Cancel,
    exec::{ExecError, Executor},
    step::{
        Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Secrets, Spec,
        Step, StepError, Undo,
    },
};

/// A root module, and how it is run.
///
/// ```no_run
/// # use std::{path::Path, sync::Arc};
/// use flowline_pipeline::{Cancel, Pipeline, exec::Executor, step::Secrets, steps::TerraformStack};
/// # async fn example(executor: Arc<dyn Executor>) -> Result<(), Box<dyn std::error::Error>> {
/// let network = TerraformStack::new("terraform:production/network".parse()?, "/infra/network")
///     .env("PATH", "/usr/local/bin:/usr/bin:/bin")
///     .var("region", "eu-central");
/// let apply = network.plan(&*executor, Path::new("/var/plans/network.tfplan"), &Secrets::new(), &Cancel::new()).await?;
/// let mut pipeline = Pipeline::new("infra", "storefront".parse()?);
/// let network = pipeline.step("network", apply);
/// let address = network.part::<String>("/values/address");
/// # let _ = address; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerraformStack {
    /// What it is to grants. Its resources are named below it: `terraform:production/network/aws_vpc.main`.
    pub resource: ResourceId,
    /// The program: a path, or a name that is looked up in the declared `PATH`.
    pub program: String,
    /// The directory with the module's files.
    pub dir: PathBuf,
    /// The environment, whole. What asks nobody and calls home to nobody is set besides.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Variables of the environment that get the value of a secret of the run, such as a provider's token.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_env: BTreeMap<String, SecretName>,
    /// The module's variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
    /// How long to wait for the state's lock, in seconds.
    pub lock_timeout: u32,
    /// Whether undoing destroys everything, if there was nothing before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroy_on_undo: bool,
}

impl TerraformStack {
    /// The module in `dir`, run by `terraform`, waiting 30 s for the lock.
    pub fn new(resource: ResourceId, dir: impl Into<PathBuf>) -> Self {
        Self {
            resource,
            program: "terraform".to_owned(),
            dir: dir.into(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            vars: BTreeMap::new(),
            lock_timeout: 30,
            destroy_on_undo: false,
        }
    }

    /// The same, run by another program, such as `tofu`.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.program = program.into();
        self
    }

    /// The same with a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same with a variable of the environment that gets the value of the secret `secret`. `TF_VAR_name` gives it to the module.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, secret: impl Into<SecretName>) -> Self {
        self.secret_env.insert(name.into(), secret.into());
        self
    }

    /// The same with a variable of the module.
    #[must_use]
    pub fn var(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The same, destroyed by undo: only if the plan was made while it held nothing, so that nothing but what the run made can go.
    #[must_use]
    pub fn destroyed_by_undo(mut self) -> Self {
        self.destroy_on_undo = true;
        self
    }

    /// Initialises the module, plans it into `file`, and says what applying that file would do. Changes nothing but `.terraform` and `file`,
    /// which may hold secrets and is readable by its owner only.
    ///
    /// # Errors
    /// [`TerraformError`]: the program failed, or the plan is not complete.
    pub async fn plan(
        &self,
        executor: &dyn Executor,
        file: &Path,
        secrets: &Secrets,
        cancel: &Cancel,
    ) -> Result<TerraformApply, TerraformError> {
        if !executor.capabilities().local {
            return Err(TerraformError::Elsewhere);
        }
        let program = Program { executor, stack: self, secrets, cancel };
        program.init().await?;
        let state = program.state().await?;
        program.plan(file).await?;
        let digest = program::digest(file)?;
        let shown = show::read(&program.show(file).await?)?;
        if !shown.complete {
            return Err(TerraformError::Incomplete { dir: self.dir.clone() });
        }
        Ok(TerraformApply {
            stack: self.clone(),
            file: file.to_owned(),
            digest,
            before: state.mark,
            was_empty: state.empty && !shown.imports,
            applyable: shown.applyable,
            changes: shown.changes,
            outputs: shown.outputs,
        })
    }
}

/// Which state a plan was made from, in Terraform's own terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateMark {
    /// The state's identity.
    pub lineage: String,
    /// Its version.
    pub serial: u64,
}

/// One plan file, to be applied exactly. Made by [`TerraformStack::plan`].
///
/// *Effect*: probed. After a crash the state tells: unmoved, it did not happen; moved, a new plan tells whether everything did. Applied in
/// part, a person decides, as the file can't be applied any more.
///
/// *Undo*: irreversible, unless the stack says [`destroyed_by_undo`](TerraformStack::destroyed_by_undo) and held nothing before.
///
/// *Touches* the stack's resource, and below it each resource that changes, by its address. A grant for `terraform:production/network/*` and
/// the stack itself covers all; a narrower one lets the plan change only what it names.
///
/// *Staleness*: the state's lineage and serial are the fingerprint of all of them, so a plan is refused once anybody applied anything to the
/// stack: Terraform's own rule, checked before any effect. The plan file is taken only with its digest.
///
/// *Outputs*: those that are not sensitive, by name, as JSON. *Errors by kind*: `Conflict` (the state moved, the file is another one), `Failed`
/// (with Terraform's last lines), `NotFound`, `Unsupported` (the executor runs elsewhere), `Cancelled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TerraformApply {
    /// The stack.
    pub stack: TerraformStack,
    /// The plan file.
    pub file: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// The state that it was made from; `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<StateMark>,
    /// Whether that state held no resource, and the plan takes none into it that is there already: all that it will hold, the run made.
    pub was_empty: bool,
    /// Whether Terraform says that there is something to apply; not all of that needs be among the changes and outputs.
    #[serde(default)]
    pub applyable: bool,
    /// What it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ResourceChange>,
    /// The outputs that change.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outputs: BTreeSet<String>,
}

impl TerraformApply {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        !self.applyable && self.changes.is_empty() && self.outputs.is_empty()
    }

    fn touched(&self) -> Result<Vec<(ResourceId, &ResourceChange)>, TerraformError> {
        self.changes.iter().map(|change| Ok((change.resource(&self.stack.resource)?, change))).collect()
    }
}

/// What a stack gives.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TerraformOutputs {
    /// The outputs that are not sensitive.
    pub values: BTreeMap<String, Value>,
    /// The names of the others. Their values stay in the state.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sensitive: BTreeSet<String>,
}

impl Spec for TerraformApply {
    const KIND: &'static str = "terraform/apply";
    type Input = ();
    type Output = TerraformOutputs;
}

/// Why a stack could not be planned or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TerraformError {
    /// A command failed.
    #[error("`{command}` failed in {}", .dir.display())]
    Command {
        /// Which.
        command: &'static str,
        /// Where.
        dir: PathBuf,
        /// How.
        source: ExecError,
    },
    /// The plan file can't be read.
    #[error("cannot read the plan file {}; plan again", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The plan file is not the one that was planned.
    #[error("the plan file {} is {}, not {}; plan again", .file.display(), .found.short(), .expected.short())]
    OtherFile {
        /// Which.
        file: PathBuf,
        /// What was planned.
        expected: Digest,
        /// What is there.
        found: Digest,
    },
    /// The state is not the one that was planned with.
    #[error("the state of {} moved since it was planned ({} then, {} now); plan again", .dir.display(), mark(.planned.as_ref()), mark(.found.as_ref()))]
    Stale {
        /// The stack's directory.
        dir: PathBuf,
        /// Then.
        planned: Option<StateMark>,
        /// Now.
        found: Option<StateMark>,
    },
    /// Some of the plan is only known after applying the rest.
    #[error("the plan of {} is not complete; take what is deferred out of it", .dir.display())]
    Incomplete {
        /// The stack's directory.
        dir: PathBuf,
    },
    /// It said something else than was expected.
    #[error("cannot understand what `{command}` printed; is this Terraform 1.1 or newer?")]
    Shape {
        /// Which command.
        command: &'static str,
        /// What is wrong with it.
        source: BoxError,
    },
    /// A resource's address can't be named in a grant.
    #[error("`{address}` cannot be named in a grant; give it a shorter address")]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        source: BoxError,
    },
    /// A secret was not given.
    #[error("the secret `{0}` was not given; add it to the secrets")]
    NoSecret(SecretName),
    /// Plan files are read by this process.
    #[error(
        "this executor runs on another host, where the plan file cannot be checked; use one that runs here"
    )]
    Elsewhere,
}

fn mark(mark: Option<&StateMark>) -> String {
    mark.map_or_else(|| "none".to_owned(), |mark| format!("serial {} of {}", mark.serial, mark.lineage))
}

impl Kinded for TerraformError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Command { source, .. } => source.kind(),
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::File { .. } => ErrorKind::Other,
            Self::OtherFile { .. } | Self::Stale { .. } => ErrorKind::Conflict,
            Self::Incomplete { .. } | Self::Address { .. } => ErrorKind::Invalid,
            Self::Shape { .. } | Self::Elsewhere => ErrorKind::Unsupported,
            Self::NoSecret(_) => ErrorKind::NotFound,
        }
    }

    fn retry(&self) -> flowline_core::error::Retry {
        match self {
            Self::Command { source, .. } => source.retry(),
            // The same file stays stale.
            _ => flowline_core::error::Retry::Never,
        }
    }
}

/// The code of [`TerraformApply`].
#[derive(Debug, Clone)]
pub struct TerraformStep {
    executor: Arc<dyn Executor>,
}

impl TerraformStep {
    /// Runs Terraform through `executor`, which must run on this host.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor }
    }

    fn program<'a>(&'a self, spec: &'a TerraformApply, context: &'a Context) -> Program<'a> {
        Program {
            executor: &*self.executor,
            stack: &spec.stack,
            secrets: context.secrets(),
            cancel: context.cancel(),
        }
    }
}

#[async_trait]
impl Step for TerraformStep {
    type Spec = TerraformApply;

    fn effect(&self, _: &TerraformApply) -> Effect {
        Effect::Probed
    }

    fn undoing(&self, spec: &TerraformApply) -> Undo {
        match (spec.is_empty(), spec.stack.destroy_on_undo && spec.was_empty) {
            (true, _) => Undo::None,
            (false, true) => Undo::Compensate,
            (false, false) => Undo::Irreversible,
        }
    }

    fn touches(&self, spec: &TerraformApply) -> Vec<ResourceId> {
        let changed = spec.touched().unwrap_or_default().into_iter().map(|(resource, _)| resource);
        std::iter::once(spec.stack.resource.clone()).chain(changed).collect()
    }

    async fn preview(&self, spec: &TerraformApply, context: &PreviewContext) -> Result<Preview, StepError> {
        let cancel = Cancel::new();
        let (executor, secrets) = (&*self.executor, &*context.secrets);
        let program = Program { executor, stack: &spec.stack, secrets, cancel: &cancel };
        program::check_file(&spec.file, spec.digest).map_err(StepError::of)?;
        let state = program.state().await.map_err(StepError::of)?;
        let json = |error: serde_json::Error| StepError::failed("a state's mark is no JSON").because(error);
        let fingerprint = match &state.mark {
            Some(mark) => Fingerprint::of(mark).map_err(json)?,
            None => Fingerprint::absent(),
        };
        let stack = Observed {
            resource: spec.stack.resource.clone(),
            action: if spec.is_empty() { Action::Keep } else { Action::Update },
            fingerprint,
            details: if spec.changes.is_empty() && spec.outputs.is_empty() && spec.applyable {
                vec!["only what the state says of it".to_owned()]
            } else {
                spec.outputs.iter().map(|name| format!("output {name}")).collect()
            },
        };
        let changes = spec.touched().map_err(StepError::of)?.into_iter().map(|(resource, change)| Observed {
            resource,
            action: change.action,
            fingerprint,
            details: change.details.clone(),
        });
        let mut seen: Vec<_> = std::iter::once(stack).chain(changes).collect();
        if state.mark != spec.before && spec.is_empty() {
            // What was to be kept may have moved: the run must look.
            for seen in &mut seen {
                seen.action = Action::Update;
            }
        }
        let summary = format!("applies the plan {} of {}", spec.digest.short(), spec.stack.dir.display());
        let preview = Preview::of(summary, seen);
        if preview.action == Action::Keep {
            let outputs = program.outputs().await.map_err(StepError::of)?;
            return Ok(preview.knowing(serde_json::to_value(outputs).map_err(json)?));
        }
        Ok(preview)
    }

    async fn run(
        &self,
        spec: &TerraformApply,
        (): (),
        context: &Context,
    ) -> Result<TerraformOutputs, StepError> {
        for resource in self.touches(spec) {
            context.granted(&resource)?;
        }
        // Said again here, as an address that can't be granted is no resource that nobody asked about.
        spec.touched().map_err(StepError::of)?;
        let program = self.program(spec, context);
        let found = program.state().await.map_err(StepError::of)?.mark;
        if found != spec.before {
            let (dir, planned) = (spec.stack.dir.clone(), spec.before.clone());
            return Err(StepError::of(TerraformError::Stale { dir, planned, found }));
        }
        if !spec.is_empty() {
            program::check_file(&spec.file, spec.digest).map_err(StepError::of)?;
            program.apply(&spec.file, context).await.map_err(StepError::of)?;
        }
        program.outputs().await.map_err(StepError::of)
    }

    async fn probe(
        &self,
        spec: &TerraformApply,
        (): (),
        context: &Context,
    ) -> Result<Happened<TerraformOutputs>, StepError> {
        let program = self.program(spec, context);
        let found = program.state().await.map_err(StepError::of)?.mark;
        if found == spec.before && !spec.is_empty() {
            return Ok(Happened::No);
        }
        if program.has_changes().await.map_err(StepError::of)? {
            let said = "the state moved and there is still something to change: it was applied in part, or somebody applied something else";
            return Ok(Happened::Unknown(said.to_owned()));
        }
        Ok(Happened::Yes(program.outputs().await.map_err(StepError::of)?))
    }

    async fn undo(
        &self,
        spec: &TerraformApply,
        _: Option<TerraformOutputs>,
        context: &Context,
    ) -> Result<(), StepError> {
        for resource in self.touches(spec) {
            context.granted(&resource)?;
        }
        let program = self.program(spec, context);
        let state = program.state().await.map_err(StepError::of)?;
        if state.empty {
            return Ok(());
        }
        program.destroy(context).await.map_err(StepError::of)
    }
}
