//! What a step costs besides its own work: `cargo run --release -p flowline-pipeline --example run_cost -- [STEPS] [WORKERS]`.
//!
//! Steps that do nothing, in three shapes; microseconds a step, the best of several walks, planning and sealing aside (they have a column
//! of their own): not recorded, recorded in memory, recorded durably.

use std::{io::Write, num::NonZeroUsize, sync::Arc, time::Instant};

use flowline_core::{
    clock::{Clock, SystemClock},
    digest::Digest,
    grant::{Authority, Grants},
    id::RunId,
    store::{MemoryStore, SqliteStore, Store},
};
use flowline_pipeline::{
    Cancel, Draft, Registry, Runner, Sealed,
    plan::{Node, Plan, Planner, StepId},
    step::{FnStep, Function},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The steps that step `at` of `count` waits for.
type Shape = fn(usize, usize) -> Vec<usize>;

const SHAPES: [(&str, Shape); 3] = [("wide", wide), ("layered", layered), ("chain", chain)];

fn wide(_: usize, _: usize) -> Vec<usize> {
    Vec::new()
}

/// Fifty steps in each layer, each with three before it in the layer before.
fn layered(at: usize, _: usize) -> Vec<usize> {
    const WIDTH: usize = 50;
    let (layer, place) = (at / WIDTH, at % WIDTH);
    if layer == 0 {
        return Vec::new();
    }
    [0, 7, 19].map(|by| (layer - 1) * WIDTH + (place + by) % WIDTH).to_vec()
}

fn chain(at: usize, _: usize) -> Vec<usize> {
    at.checked_sub(1).into_iter().collect()
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let count = arguments.next().map_or(Ok(10_000), |count| count.parse())?;
    let workers = arguments.next().map_or(Ok(NonZeroUsize::MIN.saturating_add(1)), |count| count.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(measure(count, workers))
}

async fn measure(count: usize, workers: NonZeroUsize) -> Result<(), Failure> {
    const TIMES: usize = 9;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let nothing = Function::<(), ()>::new("nothing", 1)?;
    let mut registry = Registry::new();
    registry.function(&nothing, FnStep::idempotent(|(): (), _| std::future::ready(Ok(()))));
    registry.built_as(Digest::of("measured"));
    let registry = Arc::new(registry);
    let authority = Authority::new("measured".parse()?, &Grants::default());
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{count} steps, {workers} workers, us a step    plan+seal  unrecorded   in memory     durable"
    )?;
    for (name, shape) in SHAPES {
        let ids: Vec<StepId> =
            (0..count).map(|at| StepId::new(format!("s{at}"))).collect::<Result<_, _>>()?;
        let nodes = (0..count).map(|at| {
            let mut node = Node::new(ids[at].clone(), nothing.kind().clone());
            node.after = shape(at, count).into_iter().map(|before| ids[before].clone()).collect();
            node
        });
        let draft = Draft {
            name: "measured".to_owned(),
            app: "measured".parse()?,
            inputs: std::collections::BTreeMap::new(),
            nodes: nodes.collect(),
        };
        let mut columns = [f64::INFINITY; 4];
        for _ in 0..TIMES {
            let began = now();
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
            let plan: Sealed<Plan> = planner.plan(&draft).await?.seal()?;
            columns[0] = columns[0].min(micros(began, count));
            for (column, recorded) in [false, true, true].into_iter().enumerate() {
                let folder = tempfile::tempdir()?;
                let store: Arc<dyn Store> = match column {
                    2 => Arc::new(SqliteStore::open(folder.path())?),
                    _ => Arc::new(MemoryStore::new()),
                };
                let runner = Runner::new(store, Arc::clone(&registry), authority.clone(), Arc::clone(&clock))
                    .workers(workers);
                let (run, cancel) = (RunId::new("measured")?, Cancel::new());
                let began = now();
                let report = if recorded {
                    runner.run(&run, &plan, &cancel).await?
                } else {
                    runner.run_unrecorded(&run, &plan, &cancel).await?
                };
                columns[column + 1] = columns[column + 1].min(micros(began, count));
                if !report.succeeded() || report.state.done() != count {
                    return Err(format!("{:?}", report.ended).into());
                }
            }
        }
        let [plan, unrecorded, memory, durable] = columns;
        writeln!(out, "{name:<36} {plan:>12.2} {unrecorded:>11.3} {memory:>11.2} {durable:>11.2}")?;
    }
    Ok(())
}

fn micros(since: Instant, steps: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number of steps is far below 2^52")]
    let steps = steps as f64;
    since.elapsed().as_secs_f64() * 1e6 / steps
}

#[expect(clippy::disallowed_methods, reason = "the example measures how long it took")]
fn now() -> Instant {
    Instant::now()
}
