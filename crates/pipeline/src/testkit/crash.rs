//! The crash matrix: any pipeline, killed at every journal boundary and at every call of a step, started again, killed again, and held to
//! its promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::Clock,
    error::chain,
    grant::Authority,
    id::{ResourceId, RunId},
    name::Person,
    store::{MemoryStore, Store},
    testkit::{Fault, FaultyStore, When},
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, pending, select},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::pace::{Stuck, TrialClock, paced};
use crate::{
    plan::{Approval, Plan, PlannedNode, Sealed, StepId, Undo},
    run::{Cancel, Cause, Ended, OnFailure, Phase, Progress, Report, Reporter, Resolution, RunState, Runner},
    step::{
        BoundStep, Context, Effect, Happened, Preview, PreviewContext, Registry, Secrets, Spec, StepError,
    },
    steps::{ApprovalGate, SignalGate},
};

/// Looks at a trial's world after the end; `Err` says what is wrong.
pub type Check = Box<dyn Fn(&Ended) -> Result<(), String>>;

/// Puts something around a trial's store.
pub type WrapStore = fn(Arc<dyn Store>) -> Arc<dyn Store>;

/// One fresh world with a plan for it: what the matrix needs for each of its trials.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{clock::{Clock, ManualClock}, digest::Digest, grant::{Authority, Grants}};
/// # use flowline_pipeline::{Pipeline, plan::Planner, step::{FnStep, Function, Registry}, testkit::{Trial, crash_matrix}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let greet = Function::<(), String>::new("greet", 1)?;
/// let report = crash_matrix(async |clock: Arc<dyn Clock>| {
///     let mut registry = Registry::new();
///     registry.built_as(Digest::of("build"));
///     registry.function(&greet, FnStep::idempotent(|(): (), _| async { Ok("hello".to_owned()) }));
///     let (registry, authority) = (Arc::new(registry), Authority::new("shop".parse().unwrap(), &Grants::default()));
///     let mut pipeline = Pipeline::new("greet", "shop".parse().unwrap());
///     pipeline.call("greet", &greet, ());
///     let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
///     let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
///     Trial::new(registry, authority, plan)
/// })
/// .await?;
/// assert!(report.crashes > 8);
/// # Ok(()) }
/// ```
pub struct Trial {
    pub(super) registry: Arc<Registry>,
    pub(super) authority: Authority,
    pub(super) plan: Sealed<Plan>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) wrap_store: Option<WrapStore>,
    signals: BTreeMap<StepId, Value>,
    check: Check,
}

impl Trial {
    /// The code of `registry`, which acts on the fresh world; what may be touched; and the plan, made in that world.
    pub fn new(registry: Arc<Registry>, authority: Authority, plan: Sealed<Plan>) -> Self {
        Self {
            registry,
            authority,
            plan,
            secrets: Arc::default(),
            wrap_store: None,
            signals: BTreeMap::new(),
            check: Box::new(|_| Ok(())),
        }
    }

    /// The same, looking at the world after each end: that everything happened once, or is undone. `Err` says what is wrong.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&Ended) -> Result<(), String> + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// The same with secrets that steps may ask for.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<Secrets>) -> Self {
        self.secrets = secrets;
        self
    }

    /// The same, telling `step` this when it waits. Gates that are given nothing get as many approvals as they ask for, or `null`.
    #[must_use]
    pub fn signal(mut self, step: StepId, signal: impl Into<Value>) -> Self {
        self.signals.insert(step, signal.into());
        self
    }

    /// The same with something around the store of each process, such as a broken one that the matrix should catch.
    #[must_use]
    pub fn wrap_store(mut self, wrap: WrapStore) -> Self {
        self.wrap_store = Some(wrap);
        self
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("plan", &self.plan.digest()).finish_non_exhaustive()
    }
}

/// Where a process of a trial is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CrashPoint {
    /// At this commit (from 1) of the process, before it took effect or after.
    Commit(u64, When),
    /// At this call of a step's `run`, `probe` or `undo` (from 1) of the process, before its effect or after.
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
#[error("{promise}: {}{detail}", places(.at, *.rolled_back))]
pub struct Violation {
    /// The promise, as a sentence.
    pub promise: &'static str,
    /// Where the trial's processes were killed, one after the other.
    pub at: Vec<CrashPoint>,
    /// Whether the run was to be rolled back after it had succeeded.
    pub rolled_back: bool,
    /// What was seen.
    pub detail: String,
}

fn places(at: &[CrashPoint], rolled_back: bool) -> String {
    let mut places: Vec<_> = at.iter().map(ToString::to_string).collect();
    if rolled_back {
        places.push("rolled back".to_owned());
    }
    if places.is_empty() { String::new() } else { format!("{}: ", places.join(", then ")) }
}

/// How the matrix went.
#[derive(Debug, Clone, PartialEq)]
pub struct CrashReport {
    /// How often the pipeline was killed.
    pub crashes: usize,
    /// How it ends when nobody kills it.
    pub ended: Ended,
}

/// A lease of this length is renewed so seldom that passing time costs nothing.
pub(super) const MONTH: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Nobody waits longer than so many restarts.
const RESTARTS: usize = 8;

/// Runs the pipeline of `make` once to its end, and if it succeeds once more with a rollback after it. Then once for every commit and every
/// call of a step with a crash just before and just after it; and once more for each of these with a second crash in the midst of the
/// recovery. It is started again each time, and checked:
///
/// 1. *it ends*: no process waits for what never comes;
/// 2. *it converges*: it ends as it does without a crash, with the same outputs; or it is undone, as the crashes used up the attempts that
///    the retry policy of a step allows;
/// 3. *nothing finished runs again*: once a step was told as finished, it is not called any more (and the same for undone);
/// 4. *undo is complete*: where the run is undone, every step that was called and can be undone is;
/// 5. *the world agrees*: the trial's own check.
///
/// A step that nobody but a person can answer for is answered for by what really happened, and gates are opened as soon as they wait.
/// The clock that `make` is given is the trial's: give it to everything that tells or waits for time. It stands still while anything
/// moves, then jumps to what is waited for next, so that delays, limits and waits of days cost no time; the programs that an executor starts
/// live in real time, so an executor has the system's clock.
///
/// # Errors
/// The first [`Violation`].
pub async fn crash_matrix<F>(make: impl Fn(Arc<dyn Clock>) -> F) -> Result<CrashReport, Violation>
where
    F: Future<Output = Trial>,
{
    let forward = baseline(&make, false, None).await?;
    let mut crashes = killed_everywhere(&make, &forward, 0).await?;
    if forward.report.ended == Ended::Succeeded {
        let whole = baseline(&make, true, Some(&forward)).await?;
        // Up to the rollback it is the same story.
        let both = forward.processes.first().map_or(0, |process| process.calls);
        crashes += killed_everywhere(&make, &whole, both).await?;
    }
    Ok(CrashReport { crashes, ended: forward.report.ended })
}

/// How a trial went.
struct Told {
    rollback: bool,
    report: Report,
    /// What each process did until it ended or died.
    processes: Vec<Counted>,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    commits: u64,
    calls: u64,
}

/// The story without a crash.
async fn baseline<F>(
    make: &impl Fn(Arc<dyn Clock>) -> F,
    rollback: bool,
    forward: Option<&Told>,
) -> Result<Told, Violation>
where
    F: Future<Output = Trial>,
{
    let told = one(make, &[], rollback, None).await?;
    if let (Some(forward), Ended::UndoIncomplete { failures, .. }) = (forward, &told.report.ended) {
        let detail = format!("after `{}`, {failures:?}", forward.report.ended.name());
        return Err(Violation { promise: "undo is complete", at: Vec::new(), rolled_back: true, detail });
    }
    Ok(told)
}

/// Every trial that differs from `baseline` by where it is killed, after the first `skipped` calls. How many there were.
async fn killed_everywhere<F>(
    make: &impl Fn(Arc<dyn Clock>) -> F,
    baseline: &Told,
    skipped: u64,
) -> Result<usize, Violation>
where
    F: Future<Output = Trial>,
{
    let Some(whole) = baseline.processes.first() else { return Ok(0) };
    let commits = (1..=whole.commits).map(|number| (number, true));
    let calls = (skipped + 1..=whole.calls).map(|number| (number, false));
    let mut crashes = 0;
    for (number, commit) in commits.chain(calls) {
        for when in When::BOTH {
            let point =
                if commit { CrashPoint::Commit(number, when) } else { CrashPoint::Call(number, when) };
            let told = one(make, &[point], baseline.rollback, Some(baseline)).await?;
            crashes += 1;
            // The recovery dies halfway: each time at another place, and never in the same way.
            let again = told.processes.get(1).map(|recovery| match when {
                When::Before => CrashPoint::Commit(recovery.commits.div_ceil(2), When::After),
                When::After if recovery.calls > 0 => {
                    CrashPoint::Call(recovery.calls.div_ceil(2), When::Before)
                }
                When::After => CrashPoint::Commit(recovery.commits.div_ceil(2), When::Before),
            });
            if let Some(again) = again {
                one(make, &[point, again], baseline.rollback, Some(baseline)).await?;
                crashes += 1;
            }
        }
    }
    Ok(crashes)
}

/// One trial, from the first start to the end.
async fn one<F>(
    make: &impl Fn(Arc<dyn Clock>) -> F,
    at: &[CrashPoint],
    rollback: bool,
    baseline: Option<&Told>,
) -> Result<Told, Violation>
where
    F: Future<Output = Trial>,
{
    let violation =
        |promise, detail: String| Violation { promise, at: at.to_vec(), rolled_back: rollback, detail };
    let time = TrialClock::default();
    let clock: Arc<dyn Clock> = Arc::new(time.clone());
    let log = Log::default();
    let trial = make(Arc::clone(&clock)).await;
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let mut processes = Vec::new();
    let mut report = None;
    for restart in 0..RESTARTS {
        let store = match trial.wrap_store {
            Some(wrap) => wrap(Arc::clone(&memory)),
            None => Arc::clone(&memory),
        };
        let mut store = FaultyStore::new(store);
        log.lock().calls = 0;
        let call = match at.get(restart) {
            Some(CrashPoint::Call(number, when)) => Some((*number, *when)),
            Some(CrashPoint::Commit(number, when)) => {
                store = store.with(*number, Fault::Crash(*when));
                None
            }
            None => None,
        };
        let crash = watch::Sender::new(false);
        let registry = trial.registry.wrapped({
            let (log, time, crash) = (log.clone(), time.clone(), crash.clone());
            move |step| {
                Arc::new(Logged { step, log: log.clone(), time: time.clone(), crash: crash.clone(), call })
            }
        });
        let runner = Runner::new(
            Arc::new(store.clone()),
            Arc::new(registry),
            trial.authority.clone(),
            Arc::clone(&clock),
        )
        .holder("the process under test")
        .secrets(Arc::clone(&trial.secrets))
        // The next one takes over at once, so nobody waits for a lease; renewing it seldom saves time.
        .lease_for(MONTH)
        .on_failure(OnFailure::Undo)
        .reporter(Arc::new(log.clone()));
        let mut crashed = crash.subscribe();
        let died = async {
            // The sender lives as long as this future.
            crashed.wait_for(|crashed| *crashed).await.ok();
        };
        let process = Process { runner: &runner, trial: &trial, log: &log, clock: &time };
        let story = store.until_crash(process.whole(rollback));
        let (story, died) = (std::pin::pin!(story), std::pin::pin!(died));
        let story = select(story, died);
        let ended = paced(&time.manual, || log.moves(), || log.at_work(&time), story).await;
        processes.push(Counted { commits: store.commits(), calls: log.lock().calls });
        // Whatever it was in, it is dead.
        let busy = std::mem::take(&mut log.lock().busy);
        match ended {
            Err(stuck) => return Err(violation("it ends", stuck_in(stuck, &busy))),
            Ok(Either::Left((Some(Ok(ended)), _))) => {
                report = Some(ended);
                break;
            }
            Ok(Either::Left((Some(Err(error)), _))) => return Err(violation("it converges", error)),
            Ok(Either::Left((None, _)) | Either::Right(_)) => {}
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
    if let Some(baseline) = baseline
        && (at.is_empty() || !spent(&trial.plan, &report.state))
    {
        same_end(&baseline.report, &report).map_err(|detail| violation("it converges", detail))?;
    }
    (trial.check)(&report.ended).map_err(|detail| violation("the world agrees", detail))?;
    Ok(Told { rollback, report, processes })
}

fn stuck_in(stuck: Stuck, busy: &BTreeSet<StepId>) -> String {
    let steps: Vec<_> = busy.iter().map(|step| format!("`{step}`")).collect();
    let steps = if steps.is_empty() { "no step runs".to_owned() } else { format!("in {}", steps.join(", ")) };
    format!("{stuck} ({steps})")
}

/// One process of a trial.
pub(super) struct Process<'a> {
    pub(super) runner: &'a Runner,
    pub(super) trial: &'a Trial,
    pub(super) log: &'a Log,
    pub(super) clock: &'a TrialClock,
}

impl Process<'_> {
    /// What it does: run, answer for people and for the world outside, roll back if that is asked.
    pub(super) async fn whole(&self, rollback: bool) -> Result<Report, String> {
        let run = RunId::new("crash-matrix").map_err(|error| error.to_string())?;
        let said = |error: crate::run::RunError| chain(&error);
        let plan = &self.trial.plan;
        // Each turn answers for a step, or passes the time that one waits for.
        for _ in 0..=3 * plan.plan().nodes().len() {
            let report = self.runner.run(&run, plan, &Cancel::new()).await.map_err(said)?;
            match &report.ended {
                Ended::NeedsPerson { steps } => {
                    for step in steps.keys() {
                        self.runner.resolve(&run, step, self.log.truth(step)).await.map_err(said)?;
                    }
                }
                Ended::Waiting { steps, wake } => {
                    let mut answered = false;
                    for (step, reason) in steps {
                        answered |= self.answer(&run, step, reason, &report.state).await?;
                    }
                    match wake {
                        _ if answered => {}
                        Some(wake) => self.clock.manual.set(*wake),
                        None => return Err(format!("it waits for what nobody gives: {steps:?}")),
                    }
                }
                Ended::Succeeded if rollback => return self.runner.rollback(&run).await.map_err(said),
                _ => return Ok(report),
            }
        }
        Err("somebody was asked about more steps than there are".to_owned())
    }

    /// Gives `step` what it waits for, if it was not given that before.
    async fn answer(
        &self,
        run: &RunId,
        step: &StepId,
        reason: &str,
        state: &RunState,
    ) -> Result<bool, String> {
        let said = |error: crate::run::RunError| chain(&error);
        let Some(node) = self.trial.plan.plan().node_of(step) else { return Ok(false) };
        if let Some(signal) = self.trial.signals.get(step) {
            self.runner.signal(run, step, "trial", signal.clone()).await.map_err(said)?;
        } else if node.node.kind.name() == ApprovalGate::KIND {
            let given = state.signals(step).len();
            for by in self.people(node)?.into_iter().skip(given) {
                let (at, until) = (self.clock.now(), Timestamp::MAX);
                let approval = Approval { plan: self.trial.plan.digest(), by, at, until };
                self.runner.approve(run, step, &approval).await.map_err(said)?;
            }
        } else if node.node.kind.name() == SignalGate::KIND {
            self.runner.signal(run, step, "trial", Value::Null).await.map_err(said)?;
        } else {
            return Ok(false);
        }
        // Hearing it a second time changes nothing, so a step that was told and still waits waits for ever.
        let heard = self.runner.state(run).await.map_err(said)?.signals(step).len();
        if heard == state.signals(step).len() {
            return Err(format!("step `{step}` was told what it waits for and still waits: {reason}"));
        }
        Ok(true)
    }

    /// People whose approvals open the gate that `node` is.
    fn people(&self, node: &PlannedNode) -> Result<Vec<Person>, String> {
        let gate = ApprovalGate::deserialize(&node.node.params).map_err(|error| error.to_string())?;
        let author = self.trial.plan.plan().author();
        let named = gate.by.iter().cloned();
        let invented =
            (1..=gate.quorum + 1).filter_map(|number| Person::new(format!("approver-{number}")).ok());
        let anybody = invented.filter(|_| gate.by.is_empty());
        let may = |person: &Person| gate.author_counts || author != Some(person);
        Ok(named.chain(anybody).filter(may).take(gate.quorum).collect())
    }
}

/// Whether the run is undone as one of its steps began as often as it may.
fn spent(plan: &Sealed<Plan>, state: &RunState) -> bool {
    let Some(Cause::Failed { step, .. }) = state.undoing() else { return false };
    let retry = plan.plan().node_of(step).and_then(|node| node.node.policy.retry.as_ref());
    let tries = state.step(step).map_or(0, |step| step.tries);
    retry.is_some_and(|retry| tries >= retry.attempts)
}

fn same_end(expected: &Report, found: &Report) -> Result<(), String> {
    if expected.ended.name() != found.ended.name() {
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
    for step in &log.lock().ran {
        let compensates = plan.plan().node_of(step).is_some_and(|node| node.undo == Undo::Compensate);
        let undone = matches!(state.step(step).map(|step| &step.phase), Some(Phase::Undone));
        if compensates && !undone {
            return Err(format!("step `{step}` was run and is not undone"));
        }
    }
    Ok(())
}

/// What happened over all processes of a trial, in order of happening.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<Happenings>>);

#[derive(Debug, Default)]
struct Happenings {
    /// Calls of steps by the present process.
    calls: u64,
    /// Everything that happened, so that it is seen whether anything does.
    moves: u64,
    /// Steps that are being called.
    busy: BTreeSet<StepId>,
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

    /// Counts everything that happens.
    pub(super) fn moves(&self) -> u64 {
        self.lock().moves
    }

    /// Whether a step is at work on something outside of time, such as a program.
    pub(super) fn at_work(&self, time: &TrialClock) -> bool {
        self.lock().busy.len() > time.asleep()
    }

    /// `step`, counted in this.
    pub(super) fn counting(&self, step: Arc<dyn BoundStep>, time: &TrialClock) -> Arc<dyn BoundStep> {
        let (log, time, crash) = (self.clone(), time.clone(), watch::Sender::new(false));
        Arc::new(Logged { step, log, time, crash, call: None })
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
        log.moves += 1;
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
        let mut log = self.lock();
        log.moves += 1;
        match progress {
            Progress::Finished { step, .. } => drop(log.finished.insert((*step).clone())),
            Progress::Undone { step } => drop(log.undone.insert((*step).clone())),
            _ => {}
        }
    }
}

/// A step that is being called, until that is over or dropped.
struct Busy<'a>(&'a Log, &'a StepId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut log = self.0.lock();
        log.moves += 1;
        log.busy.remove(self.1);
    }
}

/// A step that notes its calls, and dies at one of them.
#[derive(Debug)]
struct Logged {
    step: Arc<dyn BoundStep>,
    log: Log,
    time: TrialClock,
    crash: watch::Sender<bool>,
    call: Option<(u64, When)>,
}

impl Logged {
    async fn around<T>(&self, what: &'static str, context: &Context, work: impl Future<Output = T>) -> T {
        let number = self.log.called(context.step(), what);
        self.die(number, When::Before).await;
        let done = self.busy(context.step(), work).await;
        self.die(number, When::After).await;
        done
    }

    /// Does `work` of `step`, which may wait for something outside of time.
    async fn busy<T>(&self, step: &StepId, work: impl Future<Output = T>) -> T {
        self.log.lock().busy.insert(step.clone());
        let _busy = Busy(&self.log, step);
        self.time.working(work).await
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
        self.busy(context.step(), self.step.preview(context)).boxed()
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
