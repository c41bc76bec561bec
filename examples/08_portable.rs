//! Does a step give the same on a laptop, in a container and over SSH? `cargo run --features container,ssh --example 08_portable`.
//!
//! Alone it compares this host with itself. Tell it what else there is, and it compares with that too:
//! `-- container SOCKET IMAGE@DIGEST` (the socket of Podman or Docker) and `-- ssh USER@HOST KNOWN_HOSTS`, or both in a row.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{path::Path, sync::Arc};

use flowline::{
    core::{
        clock::{Clock, SystemClock},
        grant,
    },
    pipeline::{
        Pipeline,
        exec::{ContainerExecutor, Engine, Executor, LocalExecutor, SshExecutor, SshHost},
        plan::Planner,
        portability::{Side, check},
        run::Cancel,
        step::{Effect, Registry, Secrets},
        steps::{self, RunCommand},
    },
};

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

    let laptop = side("laptop", LocalExecutor::new(Arc::clone(&clock)))?;
    let mut others = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(kind) = words.next() {
        let (Some(place), Some(detail)) = (words.next(), words.next()) else {
            return Err(format!("`{kind}` needs two words after it").into());
        };
        others.push(match &*kind {
            "container" => {
                let engine = Engine::connect(place).await?;
                side("container", ContainerExecutor::new(engine, detail.parse()?, Arc::clone(&clock)))?
            }
            "ssh" => side("other host", SshExecutor::new(SshHost::new(&place, detail)?, Arc::clone(&clock)))?,
            _ => return Err(format!("`{kind}`: `container` or `ssh`").into()),
        });
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
