//! What would a deployment change? Look before anything happens: `cargo run --example 03_plan`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::sync::Arc;

use flowline::{
    core::{clock::SystemClock, digest::Digest, grant},
    pipeline::{
        Pipeline,
        plan::Planner,
        step::{FnStep, Function, Registry},
    },
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let version = Function::<(), String>::new("version", 1)?;
    let publish = Function::<String, String>::new("publish", 1)?;
    let mut registry = Registry::new();
    registry.function(&version, FnStep::pure(|(), _| async { Ok("1.2.3".to_owned()) }));
    registry.function(
        &publish,
        FnStep::pure(|version: String, _| async move { Ok(format!("published {version}")) }),
    );
    registry.built_as(Digest::of("this build of the deployer"));

    // Data flow is the graph: publishing takes the version, so it comes after it.
    let mut pipeline = Pipeline::new("release", "storefront".parse()?);
    let number = pipeline.call("version", &version, ());
    pipeline.call("publish", &publish, &number);

    let authority = grant::Authority::new("storefront".parse()?, &grant::Grants::default());
    let plan =
        Planner::new(Arc::new(registry), authority, Arc::new(SystemClock)).plan(&pipeline.draft()?).await?;
    println!("{plan}\n\n{}", plan.to_mermaid());
    println!("sealed: {}", plan.seal()?.digest());
    Ok(())
}
