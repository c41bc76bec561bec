//! The same two steps for the host of an executor.

use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::id::ResourceId;

use super::{
    SwitchRelease, SwitchReleaseStep, SwitchedRelease, SyncFiles, SyncFilesStep, Synced, back, far::Far,
    shown, touched,
};
use crate::{
    cancel::Cancel,
    exec::Executor,
    step::{Context, Effect, Preview, PreviewContext, Step, StepError, Undo},
};

/// The code of [`SyncFiles`] for the host where an executor runs commands: `from` is on this host, `to` on that one.
///
/// It does there what [`SyncFilesStep`] does here, to the same layout and the same `releases.json`: the files are carried as the declared
/// inputs of a command, checked by SHA-256 once more where they arrived, and moved into place by a program of the POSIX shell, under the same
/// lock. What it decides, it decides here from a look at what is there; if somebody changed that before its turn under the lock, it decides
/// anew. Cut short anywhere, also by a connection that breaks, the next attempt goes on.
///
/// The other host needs a POSIX shell with `sha256sum`, `stat -c`, `find`, `xargs -0`, `readlink -f`, `mv -T` and `flock`: those of GNU and
/// util-linux, or of busybox as Alpine builds it. There is no fallback to a weaker checksum: without `sha256sum` the step is refused. Besides the errors of [`SyncFilesStep`]:
/// `Unsupported` (a tool is missing there), `Invalid` (a name holds a newline), and those of the executor.
#[derive(Debug, Clone)]
pub struct SyncFilesThrough {
    executor: Arc<dyn Executor>,
}

impl SyncFilesThrough {
    /// Releases on the host of `executor`, which must keep what a command writes outside of its declared outputs.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor }
    }
}

#[async_trait]
impl Step for SyncFilesThrough {
    type Spec = SyncFiles;

    fn effect(&self, spec: &SyncFiles) -> Effect {
        SyncFilesStep.effect(spec)
    }

    fn undoing(&self, spec: &SyncFiles) -> Undo {
        SyncFilesStep.undoing(spec)
    }

    fn touches(&self, spec: &SyncFiles) -> Vec<ResourceId> {
        SyncFilesStep.touches(spec)
    }

    async fn preview(&self, spec: &SyncFiles, _: &PreviewContext) -> Result<Preview, StepError> {
        let cancel = Cancel::new();
        let far = Far::new(&*self.executor, &spec.to, &cancel).map_err(StepError::of)?;
        shown(spec, far.compare(spec).await.map_err(StepError::of)?)
    }

    async fn run(&self, spec: &SyncFiles, (): (), context: &Context) -> Result<Synced, StepError> {
        context.granted(&touched(spec).map_err(StepError::of)?)?;
        let far = Far::of(&*self.executor, &spec.to, context).map_err(StepError::of)?;
        far.sync(spec, &context.key()).await.map_err(StepError::of)
    }

    async fn undo(&self, spec: &SyncFiles, _: Option<Synced>, context: &Context) -> Result<(), StepError> {
        context.granted(&touched(spec).map_err(StepError::of)?)?;
        let far = Far::of(&*self.executor, &spec.to, context).map_err(StepError::of)?;
        far.undo(&context.key()).await.map_err(StepError::of)
    }
}

/// The code of [`SwitchRelease`] for the host where an executor runs commands; see [`SyncFilesThrough`].
#[derive(Debug, Clone)]
pub struct SwitchReleaseThrough {
    executor: Arc<dyn Executor>,
}

impl SwitchReleaseThrough {
    /// Switches on the host of `executor`.
    pub fn new(executor: Arc<dyn Executor>) -> Self {
        Self { executor }
    }
}

#[async_trait]
impl Step for SwitchReleaseThrough {
    type Spec = SwitchRelease;

    fn effect(&self, spec: &SwitchRelease) -> Effect {
        SwitchReleaseStep.effect(spec)
    }

    fn undoing(&self, spec: &SwitchRelease) -> Undo {
        SwitchReleaseStep.undoing(spec)
    }

    fn touches(&self, spec: &SwitchRelease) -> Vec<ResourceId> {
        SwitchReleaseStep.touches(spec)
    }

    async fn preview(&self, spec: &SwitchRelease, _: &PreviewContext) -> Result<Preview, StepError> {
        let cancel = Cancel::new();
        let far = Far::new(&*self.executor, &spec.directory, &cancel).map_err(StepError::of)?;
        let (current, to) = far.choose(spec.release.as_deref()).await.map_err(StepError::of)?;
        back::shown(spec, current.as_deref(), to)
    }

    async fn run(
        &self,
        spec: &SwitchRelease,
        (): (),
        context: &Context,
    ) -> Result<SwitchedRelease, StepError> {
        context.granted(&back::touched(spec).map_err(StepError::of)?)?;
        let far = Far::of(&*self.executor, &spec.directory, context).map_err(StepError::of)?;
        let done = far.back(spec.release.as_deref(), &context.key()).await;
        Ok(SwitchedRelease { release: done.map_err(StepError::of)? })
    }

    async fn undo(
        &self,
        spec: &SwitchRelease,
        _: Option<SwitchedRelease>,
        context: &Context,
    ) -> Result<(), StepError> {
        context.granted(&back::touched(spec).map_err(StepError::of)?)?;
        let far = Far::of(&*self.executor, &spec.directory, context).map_err(StepError::of)?;
        far.undo(&context.key()).await.map_err(StepError::of)
    }
}
