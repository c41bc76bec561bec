//! How planning and applying grow with the number of resources:
//! `cargo run --release -p flowline-pipeline --example plan_scale -- [RESOURCES …]` (1,250, 2,500 and 5,000 by default).
//!
//! Each resource is a value in an SQLite store, as `terraform_data` is one in Terraform's state. Everything is durable: the values, the
//! journal of the run, the plan.

use std::{io::Write, num::NonZeroUsize, sync::Arc, time::Instant};

use async_trait::async_trait;
use flowline_core::{
    clock::{Clock, SystemClock},
    grant::{Authority, Grant, Grants, Pattern},
    id::{Key, ResourceId, RunId},
    store::{Batch, SqliteStore, Store, StoreExt},
};
use flowline_pipeline::{
    Cancel, Pipeline, Plan, Registry, Runner, Sealed, Step,
    plan::Planner,
    step::{Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, StepError},
};
use serde::{Deserialize, Serialize};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A value that should be kept under a name.
#[derive(Debug, Serialize, Deserialize)]
struct Data {
    name: String,
    value: String,
}

impl Spec for Data {
    const KIND: &'static str = "data";
    type Input = ();
    type Output = String;
}

/// Keeps values in a store.
#[derive(Debug)]
struct Kept(Arc<dyn Store>);

impl Kept {
    async fn found(&self, name: &str) -> Result<Option<String>, StepError> {
        let found = self.0.get::<String>(&key(name)?).await.map_err(StepError::of)?;
        Ok(found.map(|(_, value)| value))
    }
}

#[async_trait]
impl Step for Kept {
    type Spec = Data;

    fn effect(&self, _: &Data) -> Effect {
        Effect::idempotent()
    }

    fn touches(&self, spec: &Data) -> Vec<ResourceId> {
        resource(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &Data, _: &PreviewContext) -> Result<Preview, StepError> {
        let found = self.found(&spec.name).await?;
        let action = match &found {
            None => Action::Create,
            Some(value) if *value == spec.value => Action::Keep,
            Some(_) => Action::Update,
        };
        let fingerprint = match &found {
            None => Fingerprint::absent(),
            Some(value) => Fingerprint::of(value).map_err(|error| StepError::failed(error.to_string()))?,
        };
        let observed =
            resource(spec).map(|resource| Observed { resource, action, fingerprint, details: Vec::new() });
        let preview = Preview::of(format!("keeps {}", spec.name), observed.into_iter().collect());
        Ok(preview.knowing(spec.value.clone().into()))
    }

    async fn run(&self, spec: &Data, (): (), context: &Context) -> Result<String, StepError> {
        let batch =
            Batch::new().fenced(context.fence().clone()).put(key(&spec.name)?, spec.value.clone().into());
        self.0.commit(batch).await.map_err(StepError::of)?;
        Ok(spec.value.clone())
    }
}

fn resource(spec: &Data) -> Option<ResourceId> {
    ResourceId::of("data", &spec.name).ok()
}

fn key(name: &str) -> Result<Key, StepError> {
    Key::new(format!("data/{name}")).map_err(|error| StepError::failed(error.to_string()))
}

fn main() -> Result<(), Failure> {
    let mut counts =
        std::env::args().skip(1).map(|count| count.parse()).collect::<Result<Vec<usize>, _>>()?;
    if counts.is_empty() {
        counts = vec![1_250, 2_500, 5_000];
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    writeln!(std::io::stdout(), "resources   first plan   first apply   plan, no change   per resource")?;
    for count in counts {
        runtime.block_on(measure(count))?;
    }
    Ok(())
}

async fn measure(count: usize) -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path())?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    registry.add(Kept(Arc::clone(&store)))?;
    let registry = Arc::new(registry);
    let app: flowline_core::name::AppName = "scale".parse()?;
    let grant = Grant { app: app.clone(), resource: Pattern::new("data:*")?, because: String::new() };
    let authority = Authority::new(app.clone(), &Grants { grants: vec![grant] });
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
    let mut pipeline = Pipeline::new("scale", app);
    for number in 0..count {
        pipeline.step(
            &format!("r{number}"),
            Data { name: format!("r{number}"), value: format!("const-{number}") },
        );
    }
    let draft = pipeline.draft()?;
    let began = now();
    let plan: Sealed<Plan> = planner.plan(&draft).await?.seal()?;
    let first_plan = began.elapsed();
    let runner = Runner::new(store, registry, authority, clock).workers(NonZeroUsize::MIN.saturating_add(1));
    let began = now();
    let report = runner.run(&RunId::new("first")?, &plan, &Cancel::new()).await?;
    let apply = began.elapsed();
    if report.state.done() != count {
        return Err(format!("{:?}", report.ended).into());
    }
    let mut unchanged = std::time::Duration::MAX;
    for _ in 0..3 {
        let began = now();
        let plan = planner.plan(&draft).await?.seal()?;
        unchanged = unchanged.min(began.elapsed());
        if plan.plan().has_changes() {
            return Err("something would change".into());
        }
    }
    writeln!(
        std::io::stdout(),
        "{count:>9} {:>9.1} ms {:>10.1} ms {:>14.1} ms {:>11.1} us",
        first_plan.as_secs_f64() * 1e3,
        apply.as_secs_f64() * 1e3,
        unchanged.as_secs_f64() * 1e3,
        unchanged.as_secs_f64() * 1e6 / f64::from(u32::try_from(count)?)
    )?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the example measures how long it took")]
fn now() -> Instant {
    Instant::now()
}
