//! Runs a graph of steps durably: `cargo run --release --example run_graph -- FILE.json [--workers N] [--dir DIR] [--in-process]`.
//!
//! The file is `{"steps":[{"id":"a","run":["/bin/true"],"deps":["b"],"effect":"idempotent","env":{}}]}`; a missing `run` is `/bin/true`.
//! Started again with the same `--dir` it goes on where it was; one process at a time works in a folder. SIGINT and SIGTERM stop it in
//! order: what runs is asked to stop, then ended, and nothing is left. The last line is one JSON object. Exit codes: 0 everything is done,
//! 1 a step failed or it was stopped, 2 it could not begin.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    mem::ManuallyDrop,
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use flowline_core::{
    digest::Digest,
    error::chain,
    grant::{Authority, Grants},
    id::RunId,
    store::{LogStore, MemoryStore, Store},
};
use flowline_pipeline::{
    Cancel, Draft, Registry, Runner, TokioClock,
    exec::LocalExecutor,
    plan::{Node, Plan, Planner, Sealed, StepId, StepKind},
    run::{Ended, OnFailure, Phase},
    step::{Effect, FnStep, Function, Spec},
    steps::{self, RunCommand},
};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Graph {
    steps: Vec<GraphStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphStep {
    id: StepId,
    #[serde(default)]
    run: Vec<String>,
    #[serde(default)]
    deps: BTreeSet<StepId>,
    #[serde(default)]
    effect: GraphEffect,
    #[serde(default)]
    env: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum GraphEffect {
    Pure,
    #[default]
    Idempotent,
    Once,
}

struct Arguments {
    file: PathBuf,
    workers: NonZeroUsize,
    dir: Option<PathBuf>,
    in_process: bool,
}

const USAGE: &str = "usage: run_graph FILE.json [--workers N] [--dir DIR] [--in-process]";

fn main() -> ExitCode {
    let result = arguments().and_then(|arguments| {
        // Planning has a thread of its own, which then is gone: one that has just computed for long is put off by schedulers, and every end
        // of a process is to be answered at once, by the only thread that there is.
        let planned =
            std::thread::scope(|scope| scope.spawn(|| runtime()?.block_on(plan(&arguments))).join());
        let planned = planned.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        runtime()?.block_on(walk(&arguments, planned))
    });
    match result {
        Ok((line, code)) => {
            let _printed = writeln!(std::io::stdout(), "{line}");
            code
        }
        Err(error) => {
            let _printed = writeln!(std::io::stderr(), "run_graph: {}", chain(&*error));
            ExitCode::from(2)
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// What is to be run, and with what.
struct Planned {
    registry: Arc<Registry>,
    authority: Authority,
    clock: Arc<TokioClock>,
    /// The process ends with the run, which gives the memory back faster than dropping what is in it.
    sealed: ManuallyDrop<Sealed<Plan>>,
    count: usize,
    began: Instant,
}

async fn plan(arguments: &Arguments) -> Result<Planned, Failure> {
    let began = now();
    let text = std::fs::read(&arguments.file)
        .map_err(|error| format!("cannot read {}: {error}", arguments.file.display()))?;
    let graph: Graph = serde_json::from_slice(&text).map_err(|error| {
        format!("{}:{}:{}: {error}", arguments.file.display(), error.line(), error.column())
    })?;
    drop(text);
    let clock = Arc::new(TokioClock);
    let noop = Function::<(), ()>::new("noop", 1)?;
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(LocalExecutor::new(Arc::clone(&clock) as _)))?;
    registry.function(&noop, FnStep::idempotent(|(): (), _| std::future::ready(Ok(()))));
    registry.built_as(Digest::of(env!("CARGO_PKG_VERSION")));
    let registry = Arc::new(registry);

    let command = StepKind::new(RunCommand::KIND, RunCommand::VERSION)?;
    let count = graph.steps.len();
    let mut nodes = Vec::with_capacity(count);
    for step in graph.steps {
        let effect = match step.effect {
            GraphEffect::Pure => Effect::Pure,
            GraphEffect::Idempotent => Effect::idempotent(),
            GraphEffect::Once => Effect::Once,
        };
        let mut node =
            Node::new(step.id, if arguments.in_process { noop.kind().clone() } else { command.clone() });
        node.after = step.deps;
        if !arguments.in_process {
            let mut run = step.run.into_iter();
            let mut spec = RunCommand::new(run.next().unwrap_or_else(|| "/bin/true".to_owned()), "/", effect);
            spec.args = run.collect();
            spec.env = step.env;
            node.params = serde_json::to_value(&spec)?;
        }
        nodes.push(node);
    }
    let draft = Draft { name: "graph".to_owned(), app: "graph".parse()?, inputs: BTreeMap::new(), nodes };
    let authority = Authority::new("graph".parse()?, &Grants::default());
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock) as _);
    let sealed = ManuallyDrop::new(planner.plan_owned(draft).await?.seal()?);
    Ok(Planned { registry, authority, clock, sealed, count, began })
}

async fn walk(arguments: &Arguments, planned: Planned) -> Result<(String, ExitCode), Failure> {
    let Planned { registry, authority, clock, sealed, count, began } = planned;
    let id = RunId::new("graph")?;
    let cancel = Cancel::new();
    // Asked for before anything starts, so that no child is ever left behind.
    let asked = stopped()?;
    tokio::spawn({
        let cancel = cancel.clone();
        async move {
            asked.await;
            cancel.cancel();
        }
    });
    let runner = |store: Arc<dyn Store>| {
        Runner::new(store, Arc::clone(&registry), authority.clone(), Arc::clone(&clock) as _)
            .workers(arguments.workers)
            .holder("run_graph")
            .on_failure(OnFailure::Stop)
    };
    let walking = now();
    let (report, skipped) = match &arguments.dir {
        Some(dir) => {
            // For this process alone, however it ends: what lets a new one take over at once from a dead one, under the same holder.
            let runner = runner(Arc::new(LogStore::open(dir)?));
            let skipped = runner.state(&id).await?.done();
            (runner.run(&id, &sealed, &cancel).await?, skipped)
        }
        // Without a folder nothing is to be remembered.
        None => (runner(Arc::new(MemoryStore::new())).run_unrecorded(&id, &sealed, &cancel).await?, 0),
    };
    let report = ManuallyDrop::new(report);
    let walked = walking.elapsed();
    let failed = report.state.steps().filter(|(_, step)| matches!(step.phase, Phase::Failed { .. })).count();
    let ran = report.state.done() - skipped;
    let whole = began.elapsed();
    let mut stderr = std::io::stderr();
    let _printed = writeln!(
        stderr,
        "run_graph: reading and planning took {:.1} ms, the run {:.1} ms",
        (whole.saturating_sub(walked)).as_secs_f64() * 1e3,
        walked.as_secs_f64() * 1e3
    );
    let wall = whole.as_millis();
    let line = format!(
        "{{\"steps\":{count},\"ran\":{ran},\"skipped\":{skipped},\"failed\":{failed},\"wall_ms\":{wall}}}"
    );
    match &report.ended {
        Ended::Succeeded => Ok((line, ExitCode::SUCCESS)),
        other => {
            let _printed = writeln!(stderr, "run_graph: {other:?}");
            Ok((line, ExitCode::FAILURE))
        }
    }
}

/// What returns once somebody asked this process to stop.
#[cfg(unix)]
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

fn arguments() -> Result<Arguments, Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut file = None;
    let (mut workers, mut dir, mut in_process) = (NonZeroUsize::MIN.saturating_add(1), None, false);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--workers" => workers = arguments.next().ok_or(USAGE)?.parse()?,
            "--dir" => dir = Some(arguments.next().ok_or(USAGE)?.into()),
            "--in-process" => in_process = true,
            other if other.starts_with("--") => {
                return Err(format!("unknown option `{other}`; {USAGE}").into());
            }
            path => file = Some(path.into()),
        }
    }
    Ok(Arguments { file: file.ok_or(USAGE)?, workers, dir, in_process })
}

#[expect(clippy::disallowed_methods, reason = "the example measures how long it took")]
fn now() -> Instant {
    Instant::now()
}
