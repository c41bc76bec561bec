//! Running a command in a container of an image that the plan names, whatever the deployer's other commands run in.

use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::{clock::Clock, id::ResourceId};
use serde::{Deserialize, Serialize};

use super::{CommandOutput, CommandStep, RunCommand, Variables};
use crate::{
    exec::{ContainerExecutor, Engine, Image},
    step::{Context, Effect, Happened, Preview, PreviewContext, Spec, Step, StepError, Undo},
};

/// A command in a container: what it sees of this host is what it declares, and its image is part of the plan.
///
/// ```
/// use flowline_pipeline::{Pipeline, step::Effect, steps::{RunCommand, RunContainer}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let image = format!("docker.io/library/node@sha256:{}", "1".repeat(64)).parse()?;
/// let bundle = RunCommand::new("npm", "/src", Effect::Pure).args(["run", "bundle"]).reads("package.json").reads("web").writes("dist");
/// let mut pipeline = Pipeline::new("build", "storefront".parse()?);
/// let built = pipeline.step("bundle", RunContainer::new(image, bundle).with_memory(1 << 30));
/// # let _ = built; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunContainer {
    /// The image, by digest.
    pub image: Image,
    /// The command.
    pub command: RunCommand,
    /// The user and the group that it runs as; by default those of the deployer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<(u32, u32)>,
    /// How many bytes of memory it may have; by default 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// How many processes and threads it may have; by default 512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

impl RunContainer {
    /// `command` in `image`.
    pub fn new(image: Image, command: RunCommand) -> Self {
        Self { image, command, user: None, memory: None, pids: None }
    }

    /// The same as another user and group.
    #[must_use]
    pub fn with_user(mut self, user: u32, group: u32) -> Self {
        self.user = Some((user, group));
        self
    }

    /// The same with this many bytes of memory.
    #[must_use]
    pub fn with_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// The same with at most this many processes and threads.
    #[must_use]
    pub fn with_pids(mut self, pids: u32) -> Self {
        self.pids = Some(pids);
        self
    }
}

impl Spec for RunContainer {
    const KIND: &'static str = "container";
    type Input = Variables;
    type Output = CommandOutput;
}

/// The code of [`RunContainer`]. Not among what [`register`](super::register) adds, as it needs an engine.
#[derive(Debug, Clone)]
pub struct ContainerStep {
    engine: Engine,
    clock: Arc<dyn Clock>,
}

impl ContainerStep {
    /// Runs containers on `engine`.
    pub fn new(engine: Engine, clock: Arc<dyn Clock>) -> Self {
        Self { engine, clock }
    }

    /// What runs the command of `spec`.
    fn inside(&self, spec: &RunContainer) -> CommandStep {
        let clock = Arc::clone(&self.clock);
        let mut executor = ContainerExecutor::new(self.engine.clone(), spec.image.clone(), clock);
        if let Some((user, group)) = spec.user {
            executor = executor.with_user(user, group);
        }
        if let Some(memory) = spec.memory {
            executor = executor.with_memory(memory);
        }
        if let Some(pids) = spec.pids {
            executor = executor.with_pids(pids);
        }
        CommandStep::new(Arc::new(executor))
    }
}

#[async_trait]
impl Step for ContainerStep {
    type Spec = RunContainer;

    fn effect(&self, spec: &RunContainer) -> Effect {
        self.inside(spec).effect(&spec.command)
    }

    fn undoing(&self, spec: &RunContainer) -> Undo {
        self.inside(spec).undoing(&spec.command)
    }

    fn touches(&self, spec: &RunContainer) -> Vec<ResourceId> {
        self.inside(spec).touches(&spec.command)
    }

    async fn preview(&self, spec: &RunContainer, context: &PreviewContext) -> Result<Preview, StepError> {
        let mut preview = self.inside(spec).preview(&spec.command, context).await?;
        preview.summary = format!("runs `{}` in `{}`", spec.command.line(), spec.image);
        Ok(preview)
    }

    async fn run(
        &self,
        spec: &RunContainer,
        input: Variables,
        context: &Context,
    ) -> Result<CommandOutput, StepError> {
        self.inside(spec).run(&spec.command, input, context).await
    }

    async fn probe(
        &self,
        spec: &RunContainer,
        input: Variables,
        context: &Context,
    ) -> Result<Happened<CommandOutput>, StepError> {
        self.inside(spec).probe(&spec.command, input, context).await
    }

    async fn undo(
        &self,
        spec: &RunContainer,
        output: Option<CommandOutput>,
        context: &Context,
    ) -> Result<(), StepError> {
        self.inside(spec).undo(&spec.command, output, context).await
    }
}
