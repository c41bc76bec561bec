//! How a source tree becomes an artifact: once, found again by the tree's digest.

use async_trait::async_trait;
use flowline_core::{
    Version,
    artifact::Artifact,
    change::CommitId,
    digest::Digest,
    error::ErrorKind,
    name::ComponentName,
    store::{Batch, StoreExt},
};
use flowline_pipeline::step::{Context, Effect, Preview, PreviewContext, Spec, Step, StepError};
use serde::{Deserialize, Serialize};

use super::{Acting, name};
use crate::delivery::record;

/// Makes one component's artifact from its source tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::delivery) struct Build {
    pub(in crate::delivery) component: ComponentName,
    pub(in crate::delivery) commit: CommitId,
    pub(in crate::delivery) path: String,
    pub(in crate::delivery) source: Digest,
}

impl Spec for Build {
    const KIND: &'static str = "flowline/build";
    type Input = ();
    type Output = Artifact;
}

/// The code of [`Build`].
#[derive(Debug, Clone)]
pub(in crate::delivery) struct Building(pub(in crate::delivery) Acting);

#[async_trait]
impl Step for Building {
    type Spec = Build;

    fn effect(&self, spec: &Build) -> Effect {
        Effect::Idempotent { key: spec.source.hex() }
    }

    async fn preview(&self, spec: &Build, _context: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run(format!(
            "build `{}` from `{}` at {}",
            spec.component,
            spec.path,
            spec.commit.short()
        )))
    }

    async fn run(&self, spec: &Build, (): (), context: &Context) -> Result<Artifact, StepError> {
        let delivery = self.0.delivery();
        let key = record::artifact_key(&spec.component, &spec.source).map_err(name)?;
        let known = delivery.store().get::<Artifact>(&key).await.map_err(StepError::of)?;
        if let Some((_, artifact)) = known.filter(|_| !delivery.anew)
            && delivery.provisioner().artifacts().contains(artifact.content)
        {
            context.say(format!("`{}` was built before: {}", spec.component, artifact.content.short()));
            return Ok(artifact);
        }
        let work =
            delivery.state_directory().join("build").join(format!("{}-{}", context.run(), spec.component));
        clear(&work).await?;
        delivery.source().export(&spec.commit, &spec.path, &work).await.map_err(StepError::of)?;
        let version = version(&work).await?;
        let content = delivery.provisioner().import(work.clone()).await.map_err(StepError::of)?;
        clear(&work).await?;
        let artifact = Artifact { component: spec.component.clone(), content, source: spec.source, version };
        let value = serde_json::to_value(&artifact)
            .map_err(|error| StepError::failed("cannot record the artifact").because(error))?;
        delivery
            .store()
            .commit(Batch::new().put(key, value).fenced(context.fence().clone()))
            .await
            .map_err(StepError::of)?;
        context.say(format!("built `{}` {}: {}", spec.component, artifact.version, artifact.content.short()));
        Ok(artifact)
    }
}

/// The version that a component's own `VERSION` file gives it; 0.0.0 without one.
async fn version(directory: &std::path::Path) -> Result<Version, StepError> {
    let file = directory.join("VERSION");
    let text = match tokio::fs::read_to_string(&file).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Version::new(0, 0, 0)),
        Err(error) => return Err(StepError::failed("cannot read the file `VERSION`").because(error)),
    };
    text.trim().parse().map_err(|error| {
        let message =
            format!("the file `VERSION` says `{}`, which is no semantic version such as 1.2.3", text.trim());
        StepError::new(ErrorKind::Invalid, message).because(error)
    })
}

async fn clear(directory: &std::path::Path) -> Result<(), StepError> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StepError::new(ErrorKind::Unavailable, format!("cannot clear {}", directory.display()))
                .because(error))
        }
        _ => Ok(()),
    }
}
