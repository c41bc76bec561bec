//! Does a step give the same on a laptop, in a container and over SSH? `cargo run --features container,ssh --example 08_portable`.
//!
//! The container runs on Podman and the other host is an sshd on loopback, both started here and gone afterwards. Where one of them is
//! missing, the example says so and goes on without it.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{path::Path, sync::Arc};

use flowline::{
    core::{
        clock::{Clock, SystemClock},
        grant,
    },
    pipeline::{
        Pipeline,
        exec::{Executor, LocalExecutor},
        plan::Planner,
        portability::{Side, check},
        run::Cancel,
        step::{Effect, Registry, Secrets},
        steps::{self, RunCommand},
    },
};

#[path = "../crates/pipeline/tests/it/places.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "what the tests start, borrowed"
)]
mod places;

/// The deployer's steps, with commands running through `executor`.
fn side(name: &str, executor: impl Executor + 'static) -> Result<Side, Box<dyn std::error::Error>> {
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(executor))?;
    Ok(Side::new(name, Arc::new(registry)))
}

/// A pure step: what it reads and writes is declared, so it finds the same wherever it runs.
fn bundle(dir: &Path) -> Result<Pipeline, Box<dyn std::error::Error>> {
    let script = "sort words.txt | tr a-z A-Z >dist/words.txt && echo bundled";
    let bundle = RunCommand::new("/bin/sh", dir, Effect::Pure)
        .args(["-c", script])
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C")
        .reads("words.txt")
        .writes("dist");
    let mut pipeline = Pipeline::new("build", "storefront".parse()?);
    pipeline.step("bundle", bundle);
    Ok(pipeline)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("words.txt"), "promotion\nartifact\nenvironment\n")?;

    let (podman, sshd) = (places::Podman::start(), places::Sshd::start());
    let laptop = side("laptop", LocalExecutor::new(Arc::clone(&clock)))?;
    let mut others = Vec::new();
    if let Some(podman) = &podman {
        others.push(side("container", podman.executor().await)?);
    }
    if let Some(sshd) = &sshd {
        others.push(side("other host", sshd.executor())?);
    }
    if others.is_empty() {
        others.push(Side { name: "laptop again".to_owned(), ..laptop.clone() });
    }

    let authority = grant::Authority::new("storefront".parse()?, &grant::Grants::default());
    let planner = Planner::new(Arc::clone(&laptop.registry), authority, Arc::clone(&clock));
    let plan = planner.plan(&bundle(dir.path())?.draft()?).await?.seal()?;
    for other in others {
        let sides = [laptop.clone(), other];
        let report = check(&plan, &sides, Arc::clone(&clock), Arc::new(Secrets::new()), &Cancel::new()).await;
        print!("{report}");
        if !report.is_portable() {
            return Err("the step gives something else there".into());
        }
    }
    print!("{}", std::fs::read_to_string(dir.path().join("dist/words.txt"))?);
    Ok(())
}
