//! The crash matrix: any pipeline, killed at every journal boundary and at every call of a step, started again, and held to its promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowline_core::{
    clock::{Clock, ManualClock},
    grant::Authority,
    id::{ResourceId, RunId},
    store::{MemoryStore, Store},
    testkit::{Fault, FaultyStore, When},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, pending, select},
};
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    plan::{Plan, Sealed, StepId, Undo},
    run::{Cancel, Ended, OnFailure, Phase, Progress, Report, Reporter, Resolution, RunState, Runner},
    step::{BoundStep, Context, Effect, Happened, Preview, PreviewContext, Registry, StepError},
};

/// Looks at a trial's world after the end; `Err` says what is wrong.
pub type Check = Box<dyn Fn(&Ended) -> Result<(), String>>;

/// Puts something around a trial's store.
pub type WrapStore = fn(Arc<dyn Store>) -> Arc<dyn Store>;

/// One fresh world with a plan for it: what the matrix needs for each of its trials.
pub struct Trial {
    /// The code; it acts on the fresh world.
    pub registry: Arc<Registry>,
    /// What may be touched.
    pub authority: Authority,
    /// The plan, made in that world.
    pub plan: Sealed<Plan>,
    /// Whether a run that succeeded is then rolled back.
    pub rollback: bool,
    /// Looks at the world after the end: that everything happened once, or is undone. `Err` says what is wrong.
    pub check: Check,
    /// What wraps the store of each process, such as a broken one that the matrix should catch.
    pub wrap_store: Option<WrapStore>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial")
            .field("plan", &self.plan.digest())
            .field("rollback", &self.rollback)
            .finish_non_exhaustive()
    }
}

/// Where a trial is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// At this commit (from 1), before it took effect or after.
    Commit(u64, When),
    /// At this call of a step's `run`, `probe` or `undo` (from 1), before its effect or after.
    Call(u64, When),
}

impl fmt::Display for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, number, when) = match self {
            Self::Commit(number, when) => ("commit", number, when),
            Self::Call(number, when) => ("call", number, when),
        };
        let when = if *when == When::Before { "before" } else { "after" };
        write!(f, "killed {when} {what} {number}")
    }
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{promise}: {}{detail}", .at.map_or_else(String::new, |at| format!("{at}, ")))]
pub struct Violation {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// Where the trial was killed; `None` if it was not.
    pub at: Option<CrashPoint>,
    /// What was seen.
    pub detail: String,
}

/// How the matrix went.
#[derive(Debug, Clone, PartialEq)]
pub struct CrashReport {
    /// How often the pipeline was killed.
    pub crashes: usize,
    /// How it ends when nobody kills it.
    pub ended: Ended,
}

/// Nobody waits longer than so many restarts.
const RESTARTS: usize = 8;

/// Runs the pipeline of `make` once to its end, then once for every commit and every call of a step with a crash just before and just
/// after it, starts it again each time, and checks:
///
/// 1. *it converges*: it ends as it does without a crash, with the same outputs;
/// 2. *nothing finished runs again*: once a step was told as finished, it is not called any more (and the same for undone);
/// 3. *undo is complete*: where the run is undone, every step that was called and can be undone is;
/// 4. *the world agrees*: the trial's own check.
///
/// A step that nobody but a person can answer for is answered for by what really happened. Time stands still except for leases.
///
/// # Errors
/// The first [`Violation`].
pub async fn crash_matrix<F>(make: impl Fn(Arc<dyn Clock>) -> F) -> Result<CrashReport, Violation>
where
    F: Future<Output = Trial>,
{
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let baseline = one(make(clock).await, None, None).await?;
    let mut crashes = 0;
    for number in 1..=baseline.commits {
        for when in When::BOTH {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
            let point = CrashPoint::Commit(number, when);
            one(make(clock).await, Some(point), Some(&baseline)).await?;
            crashes += 1;
        }
    }
    for number in 1..=baseline.calls {
        for when in When::BOTH {
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
            let point = CrashPoint::Call(number, when);
            one(make(clock).await, Some(point), Some(&baseline)).await?;
            crashes += 1;
        }
    }
    Ok(CrashReport { crashes, ended: baseline.report.ended })
}

struct Told {
    report: Report,
    commits: u64,
    calls: u64,
}

/// One trial, from the first start to the end.
async fn one(trial: Trial, at: Option<CrashPoint>, baseline: Option<&Told>) -> Result<Told, Violation> {
    let violation = |promise, detail: String| Violation { promise, at, detail };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let log = Log::default();
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut commits = 0;
    let mut report = None;
    for restart in 0..RESTARTS {
        let (fault, call) = match at {
            Some(CrashPoint::Commit(number, when)) if restart == 0 => {
                (Some((number, Fault::Crash(when))), None)
            }
            Some(CrashPoint::Call(number, when)) if restart == 0 => (None, Some((number, when))),
            _ => (None, None),
        };
        let store = match trial.wrap_store {
            Some(wrap) => wrap(Arc::clone(&memory)),
            None => Arc::clone(&memory),
        };
        let mut store = FaultyStore::new(store);
        if let Some((number, fault)) = fault {
            store = store.with(number, fault);
        }
        let crash = watch::Sender::new(false);
        let registry = trial.registry.wrapped({
            let (log, crash) = (log.clone(), crash.clone());
            move |step| Arc::new(Logged { step, log: log.clone(), crash: crash.clone(), call })
        });
        let runner = Runner::new(
            Arc::new(store.clone()),
            Arc::new(registry),
            trial.authority.clone(),
            Arc::clone(&clock),
        )
        .holder("the process under test")
        .on_failure(OnFailure::Undo)
        .reporter(Arc::new(log.clone()));
        let mut crashed = crash.subscribe();
        let died = async {
            // The sender lives as long as this future.
            crashed.wait_for(|crashed| *crashed).await.ok();
        };
        let story = store.until_crash(whole(&runner, &trial, &log));
        let ended = match select(std::pin::pin!(story), std::pin::pin!(died)).await {
            Either::Left((ended, _)) => ended,
            Either::Right(_) => None,
        };
        commits += store.commits();
        match ended {
            Some(Ok(ended)) => {
                report = Some(ended);
                break;
            }
            Some(Err(error)) => return Err(violation("it converges", error)),
            None => {}
        }
    }
    let Some(report) = report else {
        return Err(violation("it converges", format!("no end after {RESTARTS} restarts")));
    };
    log.check().map_err(|detail| violation("nothing finished runs again", detail))?;
    if matches!(report.ended, Ended::Undone { .. }) {
        undo_is_complete(&trial.plan, &report.state, &log)
            .map_err(|detail| violation("undo is complete", detail))?;
    }
    if let Some(baseline) = baseline {
        same_end(&baseline.report, &report).map_err(|detail| violation("it converges", detail))?;
    }
    (trial.check)(&report.ended).map_err(|detail| violation("the world agrees", detail))?;
    Ok(Told { report, commits, calls: log.lock().calls })
}

/// What one process does: run, answer for a person, roll back if the trial says so.
async fn whole(runner: &Runner, trial: &Trial, log: &Log) -> Result<Report, String> {
    let run = RunId::new("crash-matrix").map_err(|error| error.to_string())?;
    let said = |error: crate::run::RunError| flowline_core::error::chain(&error);
    for _ in 0..=trial.plan.plan().nodes().len() {
        let report = runner.run(&run, &trial.plan, &Cancel::new()).await.map_err(said)?;
        match &report.ended {
            Ended::NeedsPerson { steps } => {
                for step in steps.keys() {
                    runner.resolve(&run, step, log.truth(step)).await.map_err(said)?;
                }
            }
            Ended::Succeeded if trial.rollback => return runner.rollback(&run).await.map_err(said),
            _ => return Ok(report),
        }
    }
    Err("a person was asked about more steps than there are".to_owned())
}

fn same_end(expected: &Report, found: &Report) -> Result<(), String> {
    let word = |ended: &Ended| ended.name().to_owned();
    if word(&expected.ended) != word(&found.ended) {
        return Err(format!(
            "it ended as `{}` instead of `{}`: {:?}",
            found.ended.name(),
            expected.ended.name(),
            found.ended
        ));
    }
    let outputs = |state: &RunState| -> BTreeMap<StepId, Value> {
        let finished = state.steps().filter_map(|(id, step)| match &step.phase {
            Phase::Finished { output, .. } => Some((id.clone(), output.clone())),
            _ => None,
        });
        finished.collect()
    };
    let (expected, found) = (outputs(&expected.state), outputs(&found.state));
    for (step, output) in &expected {
        if found.get(step) != Some(output) {
            return Err(format!("step `{step}` gave {:?} instead of {output}", found.get(step)));
        }
    }
    Ok(())
}

fn undo_is_complete(plan: &Sealed<Plan>, state: &RunState, log: &Log) -> Result<(), String> {
    let log = log.lock();
    for node in plan.plan().nodes().iter().filter(|node| node.undo == Undo::Compensate) {
        let undone = matches!(state.step(node.id()).map(|step| &step.phase), Some(Phase::Undone));
        if log.ran.contains(node.id()) && !undone {
            return Err(format!("step `{}` was run and is not undone", node.id()));
        }
    }
    Ok(())
}

/// What happened over all processes of a trial, in order of happening.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Happenings>>);

#[derive(Debug, Default)]
struct Happenings {
    calls: u64,
    ran: BTreeSet<StepId>,
    gave: BTreeMap<StepId, Value>,
    finished: BTreeSet<StepId>,
    undone: BTreeSet<StepId>,
    broken: Option<String>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Happenings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<(), String> {
        match &self.lock().broken {
            Some(broken) => Err(broken.clone()),
            None => Ok(()),
        }
    }

    /// What really became of a step: what a person who looks would say.
    fn truth(&self, step: &StepId) -> Resolution {
        match self.lock().gave.get(step) {
            Some(output) => Resolution::Happened(output.clone()),
            None => Resolution::DidNotHappen,
        }
    }

    /// Counts a call of a step and notes whether it should not have come.
    fn called(&self, step: &StepId, what: &'static str) -> u64 {
        let mut log = self.lock();
        log.calls += 1;
        let told = match what {
            "undo" => log.undone.contains(step).then_some("undone"),
            _ => log.finished.contains(step).then_some("finished"),
        };
        if let Some(told) = told {
            log.broken.get_or_insert(format!(
                "`{what}` of step `{step}` was called after it was recorded as {told}"
            ));
        }
        if what == "run" {
            log.ran.insert(step.clone());
        }
        log.calls
    }
}

impl Reporter for Log {
    fn report(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Finished { step, .. } => drop(self.lock().finished.insert((*step).clone())),
            Progress::Undone { step } => drop(self.lock().undone.insert((*step).clone())),
            _ => {}
        }
    }
}

/// A step that notes its calls, and dies at one of them.
#[derive(Debug)]
struct Logged {
    step: Arc<dyn BoundStep>,
    log: Log,
    crash: watch::Sender<bool>,
    call: Option<(u64, When)>,
}

impl Logged {
    async fn around<T>(&self, what: &'static str, context: &Context, work: impl Future<Output = T>) -> T {
        let number = self.log.called(context.step(), what);
        self.die(number, When::Before).await;
        let done = work.await;
        self.die(number, When::After).await;
        done
    }

    async fn die(&self, number: u64, when: When) {
        if self.call == Some((number, when)) {
            self.crash.send_replace(true);
            pending::<()>().await;
        }
    }
}

impl BoundStep for Logged {
    fn effect(&self) -> Effect {
        self.step.effect()
    }

    fn undoing(&self) -> Undo {
        self.step.undoing()
    }

    fn touches(&self) -> Vec<ResourceId> {
        self.step.touches()
    }

    fn preview<'a>(&'a self, context: &'a PreviewContext) -> BoxFuture<'a, Result<Preview, StepError>> {
        self.step.preview(context)
    }

    fn run<'a>(&'a self, input: Value, context: &'a Context) -> BoxFuture<'a, Result<Value, StepError>> {
        let work = async move {
            let done = self.step.run(input, context).await;
            if let Ok(output) = &done {
                self.log.lock().gave.insert(context.step().clone(), output.clone());
            }
            done
        };
        self.around("run", context, work).boxed()
    }

    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>> {
        self.around("probe", context, self.step.probe(input, context)).boxed()
    }

    fn undo<'a>(
        &'a self,
        output: Option<Value>,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.around("undo", context, self.step.undo(output, context)).boxed()
    }
}
