//! A container from before it is made until it is removed: whatever happens in between, somebody removes it.

use std::sync::Arc;

use bollard::{
    errors::Error,
    models::ContainerCreateBody,
    query_parameters::{
        CreateContainerOptionsBuilder, KillContainerOptionsBuilder, WaitContainerOptionsBuilder,
    },
};
use flowline_core::{SignedDuration, clock::Clock};
use futures_util::{TryStreamExt, future::select};

use super::Engine;

/// A container by the name that was chosen for it. Dropped before it was removed, a task stops and removes it.
#[derive(Debug)]
pub(super) struct Container {
    engine: Engine,
    name: Option<String>,
    clock: Arc<dyn Clock>,
    grace: SignedDuration,
    /// It may run, so it is asked to stop first.
    pub(super) running: bool,
}

impl Container {
    /// Makes a container. The engine's answer is awaited by a task of its own, so that one that is made although nobody waits for it any more
    /// (this future was dropped) is removed like every other.
    pub(super) async fn make(
        engine: &Engine,
        name: String,
        body: ContainerCreateBody,
        clock: &Arc<dyn Clock>,
        grace: SignedDuration,
    ) -> Result<Self, Error> {
        let (engine, clock) = (engine.clone(), Arc::clone(clock));
        let making = tokio::spawn(async move {
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            let mut container =
                Self { engine: engine.clone(), name: Some(name), clock, grace, running: false };
            match engine.docker.create_container(Some(options), body).await {
                Ok(_) => Ok(container),
                Err(error) => {
                    // A refusal made nothing, and the name may be somebody else's. Any other error leaves open whether there is one.
                    if matches!(error, Error::DockerResponseServerError { .. }) {
                        container.name = None;
                    }
                    Err(error)
                }
            }
        });
        making.await.unwrap_or_else(|error| Err(Error::IOError { err: std::io::Error::other(error) }))
    }

    pub(super) fn name(&self) -> String {
        self.name.clone().unwrap_or_default()
    }

    pub(super) async fn remove(mut self) -> Result<(), Error> {
        let removed = self.engine.remove(&self.name()).await;
        self.name = None;
        removed
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let (Some(name), Ok(runtime)) = (self.name.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let (engine, clock, grace, running) =
            (self.engine.clone(), Arc::clone(&self.clock), self.grace, self.running);
        runtime.spawn(async move {
            if running {
                let options = KillContainerOptionsBuilder::new().signal("TERM").build();
                engine.docker.kill_container(&name, Some(options)).await.ok();
                let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
                let ended = engine.docker.wait_container(&name, Some(options)).try_collect::<Vec<_>>();
                select(ended, clock.sleep(grace)).await;
            }
            engine.remove(&name).await.ok();
        });
    }
}
