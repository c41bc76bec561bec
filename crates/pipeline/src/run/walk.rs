//! Forward: the interpreter that starts steps, records what they did and starts what waited for them.
//!
//! One task owns everything: what is ready, what runs, what is to be written. Steps run as futures that it polls; it learns of their end,
//! queues the records, and writes all that are due together as one commit, always with the lease's fence. Only what a commit confirmed
//! has consequences: a successor becomes ready after the record of its predecessor, a delicate step starts after the record of its start.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    sync::Arc,
    task::Poll,
};

use flowline_core::{
    SignedDuration, Timestamp,
    error::{ErrorKind, Kinded, Retry as Again, chain},
    lease::{Lease, LeaseError},
    store::{Batch, Committed, Durability, StoreError},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use indexmap::IndexMap;
use serde_json::Value;

use super::{
    Cause, End, How, Progress, RunError, RunState, Runner,
    attempt::{Came, Task, attempt, millis},
    record::{Names, RunEnded, StepFailed, StepFinished, StepStarted},
    state::Phase,
};
use crate::{
    cancel::Cancel,
    exec::Masker,
    plan::{Effect, Plan, PlannedNode, Sealed, StepId, Undo},
    step::{BoundStep, Context, Happened, StepError, context::Shared},
};

/// So many records are written at once at most.
const BATCH: usize = 256;

/// Why the walk forward ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// Every step is done.
    Done,
    /// What was done should be undone, or left.
    Cause(Cause),
    /// Only a person can say whether these happened.
    Person(BTreeMap<StepId, String>),
    /// All that is left waits for these.
    Waiting(BTreeMap<StepId, String>, Option<Timestamp>),
}

/// What follows once a record is written.
enum Then {
    Launch { index: usize, attempt: u32, task: Task },
    Finished(StepFinished, Timestamp),
    Nothing,
}

/// An attempt that ended.
struct Settled {
    index: usize,
    attempt: u32,
    probing: bool,
    started: Timestamp,
    result: Result<Came, StepError>,
}

/// What the walk waits for.
enum Event {
    Committed(Result<Committed, StoreError>),
    Settled(Settled),
    Cancelled,
    Renewed(Result<Lease, LeaseError>),
    Timer,
    GraceOver,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Again(usize),
    Queue(usize),
    Total(usize),
}

pub(super) struct Walk<'a> {
    pub(super) runner: &'a Runner,
    pub(super) names: &'a Names,
    pub(super) sealed: &'a Sealed<Plan>,
    pub(super) shared: Arc<Shared>,
    state: RunState,
    lease: Lease,
    renewing: BoxFuture<'static, Result<Lease, LeaseError>>,
}

/// The moving parts of a walk forward.
struct Front<'a> {
    nodes: &'a [PlannedNode],
    index: IndexMap<&'a StepId, usize>,
    successors: Vec<Vec<usize>>,
    waiting: Vec<usize>,
    ready: BinaryHeap<(i32, Reverse<usize>)>,
    ready_at: Vec<Option<Timestamp>>,
    done: usize,
    /// Steps that run or are about to.
    busy: usize,
    bound: Vec<Option<Arc<dyn BoundStep>>>,
    running: FuturesUnordered<BoxFuture<'static, Settled>>,
    timers: BinaryHeap<Reverse<(Timestamp, Alarm)>>,
    batch: Batch,
    then: Vec<Then>,
    committing: Option<BoxFuture<'static, Result<Committed, StoreError>>>,
    committing_then: Vec<Then>,
    stop: Option<Stop>,
    waits: BTreeMap<StepId, String>,
    wake: Option<Timestamp>,
    cancel: Cancel,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        names: &'a Names,
        lease: &Lease,
        sealed: &'a Sealed<Plan>,
        state: RunState,
        masker: Masker,
    ) -> Self {
        let shared = Arc::new(Shared {
            run: names.run.clone(),
            clock: Arc::clone(&runner.clock),
            secrets: Arc::clone(&runner.secrets),
            masker,
            reporter: Arc::clone(&runner.reporter),
            fence: lease.fence(),
            plan: sealed.digest(),
            author: sealed.plan().author().cloned(),
        });
        let renewing = renewal(runner, lease);
        Self { runner, names, sealed, shared, state, lease: lease.clone(), renewing }
    }

    pub(super) fn state(&self) -> &RunState {
        &self.state
    }

    pub(super) fn state_mut(&mut self) -> &mut RunState {
        &mut self.state
    }

    pub(super) fn into_state(self) -> RunState {
        self.state
    }

    pub(super) fn now(&self) -> Timestamp {
        self.runner.clock.now()
    }

    /// A batch under the run's lease.
    pub(super) fn batch(&self) -> Batch {
        Batch::new().fenced(self.lease.fence())
    }

    /// Writes `batch`, keeping the lease alive meanwhile.
    pub(super) async fn commit(&mut self, batch: Batch) -> Result<(), RunError> {
        let store = Arc::clone(&self.runner.store);
        self.alive(async move { store.commit(batch).await }).await??;
        Ok(())
    }

    /// Does `work`, keeping the lease alive meanwhile.
    ///
    /// # Errors
    /// If the lease is lost; `work` is dropped then.
    pub(super) async fn alive<T>(&mut self, work: impl Future<Output = T>) -> Result<T, RunError> {
        let mut work = std::pin::pin!(work);
        loop {
            let renewed = std::future::poll_fn(|context| {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Ok(done));
                }
                self.renewing.poll_unpin(context).map(Err)
            })
            .await;
            match renewed {
                Ok(done) => return Ok(done),
                Err(renewed) => self.renewed(renewed)?,
            }
        }
    }

    fn renewed(&mut self, renewed: Result<Lease, LeaseError>) -> Result<(), RunError> {
        match renewed {
            Ok(lease) => self.lease = lease,
            // A store that does not answer for a moment costs nothing while the lease runs; the fence decides in the end.
            Err(error) if error.retry() != Again::Never && self.now() < self.lease.expires() => {}
            Err(error) => return Err(error.into()),
        }
        self.renewing = renewal(self.runner, &self.lease);
        Ok(())
    }

    /// `text` without secrets, for the journal.
    pub(super) fn masked(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.shared.masker.mask(text.as_bytes())).into_owned()
    }

    /// Records how the run ended.
    pub(super) async fn end(&mut self, outcome: End) -> Result<(), RunError> {
        let which = match outcome {
            End::Succeeded => "succeeded",
            End::Undone => "undone",
        };
        let event = self.names.event(&RunEnded { outcome }, which, None, self.now())?;
        let batch = self.batch().durably(Durability::Synced).append(self.names.stream.clone(), event);
        self.commit(batch).await?;
        self.state.end_as(outcome);
        Ok(())
    }

    /// Walks until everything is done or something stops it. When it returns, nothing runs any more and everything is recorded.
    pub(super) async fn forward(&mut self, cancel: &Cancel) -> Result<Stop, RunError> {
        let mut front = Front::new(self, cancel)?;
        if let Some(stop) = front.stop.take() {
            return Ok(stop);
        }
        let wish = cancel.clone();
        let mut cancelled = Some(async move { wish.cancelled().await }.boxed());
        let mut grace: Option<BoxFuture<'static, ()>> = None;
        let mut timer: Option<(Timestamp, BoxFuture<'static, ()>)> = None;
        loop {
            while front.stop.is_none() && front.busy < self.runner.workers {
                let Some((_, Reverse(index))) = front.ready.pop() else { break };
                self.begin(&mut front, index)?;
            }
            // Whatever is done by now is recorded together.
            if front.then.len() < BATCH
                && !front.running.is_empty()
                && let Some(Some(settled)) = front.running.next().now_or_never()
            {
                self.settle(&mut front, settled)?;
                continue;
            }
            if front.committing.is_none() && !front.then.is_empty() {
                let batch = std::mem::replace(&mut front.batch, self.batch());
                front.committing_then = std::mem::take(&mut front.then);
                let store = Arc::clone(&self.runner.store);
                front.committing = Some(async move { store.commit(batch).await }.boxed());
            }
            if front.idle() {
                break;
            }
            let next = front.timers.peek().map(|Reverse((at, _))| *at);
            if next != timer.as_ref().map(|(at, _)| *at) {
                let clock = Arc::clone(&self.runner.clock);
                timer = next.map(|at| (at, async move { clock.sleep_until(at).await }.boxed()));
            }
            let event = std::future::poll_fn(|context| {
                if let Some(committing) = &mut front.committing
                    && let Poll::Ready(done) = committing.poll_unpin(context)
                {
                    return Poll::Ready(Event::Committed(done));
                }
                if !front.running.is_empty()
                    && front.then.len() < BATCH
                    && let Poll::Ready(Some(settled)) = front.running.poll_next_unpin(context)
                {
                    return Poll::Ready(Event::Settled(settled));
                }
                if let Some(wish) = &mut cancelled
                    && wish.poll_unpin(context).is_ready()
                {
                    return Poll::Ready(Event::Cancelled);
                }
                if let Some(grace) = &mut grace
                    && grace.poll_unpin(context).is_ready()
                {
                    return Poll::Ready(Event::GraceOver);
                }
                if let Some((_, timer)) = &mut timer
                    && timer.poll_unpin(context).is_ready()
                {
                    return Poll::Ready(Event::Timer);
                }
                self.renewing.poll_unpin(context).map(Event::Renewed)
            })
            .await;
            match event {
                Event::Committed(done) => {
                    done?;
                    front.committing = None;
                    for then in std::mem::take(&mut front.committing_then) {
                        self.follow(&mut front, then)?;
                    }
                }
                Event::Settled(settled) => self.settle(&mut front, settled)?,
                Event::Cancelled => {
                    cancelled = None;
                    if !front.all_done() {
                        front.halt(Stop::Cause(Cause::Cancelled));
                        front.timers.clear();
                        let (clock, length) = (Arc::clone(&self.runner.clock), self.runner.grace);
                        grace = Some(async move { clock.sleep(length).await }.boxed());
                    }
                }
                // What did not stop by itself is dropped, which ends it; its effect is undone as one that was cut short.
                Event::GraceOver => {
                    grace = None;
                    front.busy -= front.running.len();
                    front.running.clear();
                }
                Event::Renewed(renewed) => self.renewed(renewed)?,
                Event::Timer => {
                    timer = None;
                    self.ring(&mut front)?;
                }
            }
        }
        Ok(match front.stop {
            Some(stop) => stop,
            None if front.all_done() => Stop::Done,
            None if !front.waits.is_empty() => Stop::Waiting(front.waits, front.wake),
            None => return Err(RunError::Broken("steps wait for each other".to_owned())),
        })
    }

    /// Starts a step, or queues the record that must come before.
    fn begin(&mut self, front: &mut Front<'a>, index: usize) -> Result<(), RunError> {
        let node = &front.nodes[index];
        let found = self.state.step(node.id());
        let attempt = found.map_or(0, |step| step.attempts) + 1;
        let cut_short = matches!(found.map(|step| &step.phase), Some(Phase::Started | Phase::Failed { .. }));
        let probe = cut_short && node.effect == Effect::Probed;
        let input = match self.input(front, index) {
            Ok(input) => input,
            Err(error) => return self.failed(front, index, attempt, &error),
        };
        let task = if probe { Task::Probe(input) } else { Task::Run(input) };
        front.busy += 1;
        if probe || (!node.effect.is_delicate() && node.undo == Undo::None) {
            return self.launch(front, index, attempt, task);
        }
        let fact = StepStarted { step: node.id().clone(), attempt };
        let event = self.names.event(&fact, &format!("started{attempt}"), Some(node.id()), self.now())?;
        let durability = if node.effect.is_delicate() { Durability::Synced } else { Durability::Written };
        front.queue(self.names, event, durability, Then::Launch { index, attempt, task });
        Ok(())
    }

    /// Runs an attempt whose start is recorded, or need not be.
    fn launch(
        &mut self,
        front: &mut Front<'a>,
        index: usize,
        attempt_number: u32,
        task: Task,
    ) -> Result<(), RunError> {
        let node = &front.nodes[index];
        let bound = self.bound(front, index)?;
        let mut granted = Vec::with_capacity(node.touches.len());
        for touch in &node.touches {
            match self.runner.authority.grant(touch) {
                Ok(handle) => granted.push(handle),
                Err(denied) => {
                    front.busy -= 1;
                    return self.failed(front, index, attempt_number, &StepError::of(denied));
                }
            }
        }
        let limits = node.node.policy.limits;
        let cancel = if limits.is_none() { front.cancel.clone() } else { front.cancel.child() };
        let started = self.now();
        let left = limits
            .total_ms
            .zip(front.ready_at[index])
            .map(|(total, ready)| (millis(total) - started.duration_since(ready)).max(SignedDuration::ZERO));
        let limit = limits.attempt_ms.map(millis).into_iter().chain(left).min();
        let signals = self.state.signals(node.id()).to_vec();
        let context = Context::new(
            Arc::clone(&self.shared),
            node.id().clone(),
            attempt_number,
            granted,
            cancel,
            signals,
        );
        self.runner.reporter.report(&Progress::Started { step: node.id(), attempt: attempt_number });
        self.state.start(node.id(), attempt_number);
        let (grace, probing) = (self.runner.grace, matches!(task, Task::Probe(_)));
        front.running.push(
            async move {
                let result = attempt(bound, task, context, limits, limit, grace).await;
                Settled { index, attempt: attempt_number, probing, started, result }
            }
            .boxed(),
        );
        Ok(())
    }

    /// An attempt ended: queues the record of it.
    fn settle(&mut self, front: &mut Front<'a>, settled: Settled) -> Result<(), RunError> {
        let Settled { index, attempt, probing, started, result } = settled;
        front.busy -= 1;
        let (output, how) = match result {
            Ok(Came::Done(output)) => (output, How::Ran),
            Ok(Came::Probed(Happened::Yes(output))) => (output, How::Probed),
            Ok(Came::Probed(Happened::No)) => {
                // Nothing happened, so it is as if it had never been started.
                self.state.resolve(front.nodes[index].id().clone(), None, started);
                if front.stop.is_none() {
                    return self.begin(front, index);
                }
                return Ok(());
            }
            Ok(Came::Probed(Happened::Unknown(reason))) => {
                front.needs_person(index, reason);
                return Ok(());
            }
            Ok(Came::Undone) => {
                return Err(RunError::Broken("a step was undone on the way forward".to_owned()));
            }
            Err(error) if error.is_waiting().is_some() => {
                let wake = error.is_waiting().and_then(|wake| wake.0);
                let id = front.nodes[index].id();
                let reason = self.masked(&error.to_string());
                self.runner.reporter.report(&Progress::Waiting { step: id, reason: &reason });
                self.state.resolve(id.clone(), None, started);
                front.wake = front.wake.into_iter().chain(wake).min();
                front.waits.insert(id.clone(), reason);
                return Ok(());
            }
            // A world that does not answer says neither yes nor no.
            Err(error) if probing && error.retry() == Again::Never => {
                front.needs_person(index, self.masked(&chain(&error)));
                return Ok(());
            }
            Err(error) => return self.failed(front, index, attempt, &error),
        };
        let (step, now) = (front.nodes[index].id().clone(), self.now());
        let fact = StepFinished { step, attempt, started, how, output, reason: None };
        let event = self.names.event(&fact, "finished", Some(&fact.step), now)?;
        front.queue(self.names, event, Durability::Written, Then::Finished(fact, now));
        Ok(())
    }

    /// An attempt failed: tries again, or stops the run.
    fn failed(
        &mut self,
        front: &mut Front<'a>,
        index: usize,
        attempt: u32,
        error: &StepError,
    ) -> Result<(), RunError> {
        let node = &front.nodes[index];
        let now = self.now();
        let helps = error.retry() != Again::Never;
        let seed = format!("{}/{}", self.names.run, node.id());
        let delay = match &node.node.policy.retry {
            // What must not happen twice is never tried again by itself.
            Some(retry)
                if node.effect != Effect::Once && front.stop.is_none() && !front.cancel.is_cancelled() =>
            {
                retry.delay(attempt, error.kind(), helps, &seed)
            }
            _ => None,
        };
        let in_time = |delay: &SignedDuration| match (node.node.policy.limits.total_ms, front.ready_at[index])
        {
            (Some(total), Some(ready)) => now.duration_since(ready) + *delay < millis(total),
            _ => true,
        };
        let delay = delay.filter(in_time);
        let text = self.masked(&chain(error));
        self.runner.reporter.report(&Progress::Failed { step: node.id(), error: &text, again: delay });
        self.state.fail(node.id(), attempt, text.clone());
        let again = delay.is_some();
        let fact = StepFailed { step: node.id().clone(), attempt, error: text.clone(), again };
        let event = self.names.event(&fact, &format!("failed{attempt}"), Some(node.id()), now)?;
        front.queue(self.names, event, Durability::Written, Then::Nothing);
        match delay {
            Some(delay) => {
                let at = now.checked_add(delay).unwrap_or(Timestamp::MAX);
                front.timers.push(Reverse((at, Alarm::Again(index))));
            }
            // A step that stopped as it was asked to did not fail.
            None if front.cancel.is_cancelled() => front.halt(Stop::Cause(Cause::Cancelled)),
            None => front.halt(Stop::Cause(Cause::Failed { step: node.id().clone(), error: text })),
        }
        Ok(())
    }

    /// What a written record leads to.
    fn follow(&mut self, front: &mut Front<'a>, then: Then) -> Result<(), RunError> {
        match then {
            Then::Nothing => {}
            Then::Launch { index, attempt, task } if front.stop.is_none() => {
                return self.launch(front, index, attempt, task);
            }
            // It was never launched: the next process asks or repeats it, and undoing it is harmless.
            Then::Launch { index, attempt, .. } => {
                front.busy -= 1;
                self.state.start(front.nodes[index].id(), attempt);
            }
            Then::Finished(fact, now) => {
                let took = now.duration_since(fact.started);
                self.runner.reporter.report(&Progress::Finished { step: &fact.step, took });
                let index = front.index.get(&fact.step).copied();
                self.state.finish(fact, now);
                if let Some(index) = index {
                    front.finished(index, now);
                }
            }
        }
        Ok(())
    }

    /// Timers that are due.
    fn ring(&mut self, front: &mut Front<'a>) -> Result<(), RunError> {
        let now = self.now();
        while let Some(Reverse((at, alarm))) = front.timers.peek().copied()
            && at <= now
        {
            front.timers.pop();
            if front.stop.is_some() {
                continue;
            }
            match alarm {
                Alarm::Again(index) => {
                    let priority = front.nodes[index].node.policy.priority;
                    front.ready.push((priority, Reverse(index)));
                }
                Alarm::Queue(index) | Alarm::Total(index) => {
                    let id = front.nodes[index].id();
                    let queued = front.ready.iter().any(|(_, ready)| ready.0 == index);
                    let tried = self.state.step(id).is_some_and(|step| step.attempts > 0);
                    if queued && (matches!(alarm, Alarm::Total(_)) || !tried) {
                        front.ready.retain(|(_, ready)| ready.0 != index);
                        let attempts = self.state.step(id).map_or(0, |step| step.attempts);
                        let error = StepError::new(
                            ErrorKind::TimedOut,
                            "the step waited longer than it may for its turn",
                        );
                        self.failed(front, index, attempts, &error)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn bound(&self, front: &mut Front<'a>, index: usize) -> Result<Arc<dyn BoundStep>, RunError> {
        if let Some(bound) = &front.bound[index] {
            return Ok(Arc::clone(bound));
        }
        let bound = self.resolve(&front.nodes[index])?;
        // Kept only where it may be needed again: for a retry.
        if front.nodes[index].node.policy.retry.is_some() {
            front.bound[index] = Some(Arc::clone(&bound));
        }
        Ok(bound)
    }

    pub(super) fn resolve(&self, node: &PlannedNode) -> Result<Arc<dyn BoundStep>, RunError> {
        self.runner
            .registry
            .resolve(&node.node.kind, &node.node.params)
            .map_err(|source| RunError::Resolve { step: node.id().clone(), source })
    }

    fn input(&self, front: &Front<'a>, index: usize) -> Result<Value, StepError> {
        front.nodes[index].node.inputs.assemble(|from| {
            let missing = |problem: String| StepError::new(ErrorKind::Invalid, problem);
            match self.state.step(&from.step).map(|step| &step.phase) {
                Some(Phase::Finished { output, .. }) => output
                    .pointer(&from.at)
                    .cloned()
                    .ok_or_else(|| missing(format!("step `{}` gave nothing at `{}`", from.step, from.at))),
                _ => Err(missing(format!("step `{}` is not done", from.step))),
            }
        })
    }
}

impl<'a> Front<'a> {
    /// Where the walk stands, from the plan and what was recorded.
    fn new(walk: &Walk<'a>, cancel: &Cancel) -> Result<Self, RunError> {
        let nodes = walk.sealed.plan().nodes();
        let index: IndexMap<&StepId, usize> =
            nodes.iter().enumerate().map(|(index, node)| (node.id(), index)).collect();
        let mut front = Self {
            nodes,
            successors: vec![Vec::new(); nodes.len()],
            waiting: vec![0; nodes.len()],
            ready: BinaryHeap::new(),
            ready_at: vec![None; nodes.len()],
            done: 0,
            busy: 0,
            bound: vec![None; nodes.len()],
            running: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            batch: walk.batch(),
            then: Vec::new(),
            committing: None,
            committing_then: Vec::new(),
            stop: None,
            waits: BTreeMap::new(),
            wake: None,
            cancel: cancel.child(),
            index,
        };
        let done =
            |id: &StepId| matches!(walk.state.step(id).map(|step| &step.phase), Some(Phase::Finished { .. }));
        let now = walk.now();
        for (at, node) in nodes.iter().enumerate() {
            if done(node.id()) {
                front.done += 1;
                continue;
            }
            if node.effect == Effect::Once
                && let Some(step) = walk.state.step(node.id())
                && matches!(step.phase, Phase::Started | Phase::Failed { .. })
            {
                front.needs_person(
                    at,
                    "it was cut short, must not happen twice, and cannot be asked".to_owned(),
                );
            }
            let mut before: Vec<usize> = Vec::new();
            for id in node.node.predecessors().filter(|id| !done(id)) {
                let Some(index) = front.index.get(id) else {
                    return Err(RunError::Broken(format!(
                        "step `{}` waits for `{id}`, which is not in it",
                        node.id()
                    )));
                };
                before.push(*index);
            }
            before.sort_unstable();
            before.dedup();
            front.waiting[at] = before.len();
            for index in before {
                front.successors[index].push(at);
            }
            if front.waiting[at] == 0 {
                front.make_ready(at, now);
            }
        }
        Ok(front)
    }

    fn make_ready(&mut self, index: usize, now: Timestamp) {
        let policy = &self.nodes[index].node.policy;
        self.ready.push((policy.priority, Reverse(index)));
        if !policy.limits.is_none() {
            self.ready_at[index] = Some(now);
            let after = |ms: u64| now.checked_add(millis(ms)).unwrap_or(Timestamp::MAX);
            let queue = policy.limits.queue_ms.map(|ms| (after(ms), Alarm::Queue(index)));
            let total = policy.limits.total_ms.map(|ms| (after(ms), Alarm::Total(index)));
            self.timers.extend(queue.into_iter().chain(total).map(Reverse));
        }
    }

    fn finished(&mut self, index: usize, now: Timestamp) {
        self.done += 1;
        for after in std::mem::take(&mut self.successors[index]) {
            self.waiting[after] -= 1;
            if self.waiting[after] == 0 {
                self.make_ready(after, now);
            }
        }
    }

    fn queue(
        &mut self,
        names: &Names,
        event: flowline_core::event::Event,
        durability: Durability,
        then: Then,
    ) {
        self.batch.append.push((names.stream.clone(), event));
        self.batch.durability = self.batch.durability.max(durability);
        self.then.push(then);
    }

    /// Starts nothing more. The first reason counts, except that a person is asked only if nothing else stops the run.
    fn halt(&mut self, stop: Stop) {
        if !matches!(self.stop, Some(Stop::Cause(_))) {
            self.stop = Some(stop);
        }
    }

    fn needs_person(&mut self, index: usize, reason: String) {
        let id = self.nodes[index].id().clone();
        match &mut self.stop {
            Some(Stop::Person(steps)) => drop(steps.insert(id, reason)),
            Some(_) => {}
            none => *none = Some(Stop::Person(BTreeMap::from([(id, reason)]))),
        }
    }

    fn all_done(&self) -> bool {
        self.done == self.nodes.len()
    }

    /// Whether nothing runs, nothing is to be written and nothing will become ready.
    fn idle(&self) -> bool {
        let quiet = self.running.is_empty() && self.committing.is_none() && self.then.is_empty();
        let more = !self.ready.is_empty()
            || self.timers.iter().any(|Reverse((_, alarm))| matches!(alarm, Alarm::Again(_)));
        quiet && (self.stop.is_some() || self.all_done() || !more)
    }
}

/// Renews the lease when a third of its time has passed.
fn renewal(runner: &Runner, lease: &Lease) -> BoxFuture<'static, Result<Lease, LeaseError>> {
    let (leases, clock, ttl, lease) =
        (Arc::clone(&runner.leases), Arc::clone(&runner.clock), runner.ttl, lease.clone());
    async move {
        clock.sleep(ttl / 3).await;
        leases.renew(&lease, ttl).await
    }
    .boxed()
}
