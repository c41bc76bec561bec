//! Going back to a release that is still there, without its files being at hand.

use std::path::PathBuf;

use async_trait::async_trait;
use flowline_core::id::ResourceId;
use serde::{Deserialize, Serialize};

use super::{
    SyncError,
    host::{self, Host},
    not_json, undone,
};
use crate::{
    step::{
        Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
    },
    steps::tree,
};

/// Makes a release that a [`SyncFiles`](super::SyncFiles) left in its directory the current one: a named one, or the one before.
///
/// *Effect*: idempotent, under the run's key: one rename switches `current`. Nothing is copied, removed or checked; the release that is left
/// stays. *Undo*: `current` leads to what it led to before; refused if somebody switched again since.
///
/// *Touches* `dir:` and the path of `to`. A plan is stale once another release is current.
///
/// *Errors by kind*: `NotFound` (there is no such release, or none before), `Invalid` (a path that is not absolute or leads through a link),
/// `Conflict` (`current` is no link, somebody switched again), `Busy` (another process works on the same directory), `Denied`.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::SwitchRelease};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("back", "storefront".parse()?);
/// let back = pipeline.step("back", SwitchRelease::to("/srv/www", "000016-9b74c9897bac"));
/// # let _ = back; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchRelease {
    /// The directory with `current` and `releases`: absolute, without `..`, and not through a link.
    pub directory: PathBuf,
    /// The release's name; without, the newest of those that are older than the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
}

impl SwitchRelease {
    /// Back to the release before the current one of `directory`.
    pub fn before(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), release: None }
    }

    /// Back, or forth, to the release called `release` of `directory`.
    pub fn to(directory: impl Into<PathBuf>, release: impl Into<String>) -> Self {
        Self { directory: directory.into(), release: Some(release.into()) }
    }
}

/// What is current after a [`SwitchRelease`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchedRelease {
    /// The name of the release.
    pub release: String,
}

impl Spec for SwitchRelease {
    const KIND: &'static str = "files/switch";
    type Input = ();
    type Output = SwitchedRelease;
}

/// The code of [`SwitchRelease`] on this host; on another it is [`SwitchReleaseThrough`](super::SwitchReleaseThrough).
#[derive(Debug, Clone, Copy, Default)]
pub struct SwitchReleaseStep;

#[async_trait]
impl Step for SwitchReleaseStep {
    type Spec = SwitchRelease;

    fn effect(&self, _: &SwitchRelease) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &SwitchRelease) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &SwitchRelease) -> Vec<ResourceId> {
        touched(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &SwitchRelease, _: &PreviewContext) -> Result<Preview, StepError> {
        touched(spec).map_err(StepError::of)?;
        host::plain(&spec.directory).map_err(StepError::of)?;
        let current = host::current(&spec.directory).map_err(StepError::of)?;
        let to = host::kept(&spec.directory, current.as_deref(), spec.release.as_deref())
            .map_err(StepError::of)?;
        shown(spec, current.as_deref(), to)
    }

    async fn run(
        &self,
        spec: &SwitchRelease,
        (): (),
        context: &Context,
    ) -> Result<SwitchedRelease, StepError> {
        context.granted(&touched(spec).map_err(StepError::of)?)?;
        let host = Host::open(&spec.directory, context).map_err(StepError::of)?;
        let done = host.back(spec.release.as_deref(), &context.key(), context.cancel()).await;
        Ok(SwitchedRelease { release: done.map_err(StepError::of)? })
    }

    async fn undo(
        &self,
        spec: &SwitchRelease,
        _: Option<SwitchedRelease>,
        context: &Context,
    ) -> Result<(), StepError> {
        context.granted(&touched(spec).map_err(StepError::of)?)?;
        undone(&spec.directory, context).map_err(StepError::of)
    }
}

/// What switching from `current` to `to` is.
pub(super) fn shown(spec: &SwitchRelease, current: Option<&str>, to: String) -> Result<Preview, StepError> {
    let resource = touched(spec).map_err(StepError::of)?;
    let fingerprint = match current {
        Some(name) => Fingerprint::of(&name).map_err(not_json)?,
        None => Fingerprint::absent(),
    };
    let (action, details) = match current {
        Some(current) if current == to => (Action::Keep, Vec::new()),
        Some(current) => (Action::Update, vec![format!("{current} -> {to}")]),
        None => (Action::Create, vec![to.clone()]),
    };
    let summary = format!("makes {to} the current release of {}", spec.directory.display());
    let preview = Preview::of(summary, vec![Observed { resource, action, fingerprint, details }]);
    if action == Action::Keep {
        let known = SwitchedRelease { release: to };
        return Ok(preview.knowing(serde_json::to_value(known).map_err(not_json)?));
    }
    Ok(preview)
}

pub(super) fn touched(spec: &SwitchRelease) -> Result<ResourceId, SyncError> {
    Ok(tree::resource("dir", &spec.directory)?)
}
