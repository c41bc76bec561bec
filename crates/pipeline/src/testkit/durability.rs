//! How long what a run writes lives: every record of any pipeline's run, held against what it must survive.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use flowline_core::{
    clock::Clock,
    event::Recorded,
    id::{Key, ResourceId},
    journal::Fact,
    store::{
        Batch, Committed, Document, Durability, EventQuery, MemoryStore, Position, Store, StoreCapabilities,
        StoreError,
    },
};
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;

use super::{
    Trial, Violation,
    crash::{Log, MONTH, Process},
    pace::{TrialClock, paced},
};
use crate::{
    plan::StepId,
    run::{
        Runner,
        record::{StepFinished, StepResolved, StepSignalled, StepStarted, UndoBegun},
    },
    step::{BoundStep, Context, Effect, Happened, Preview, PreviewContext, StepError, Undo},
};

const STARTS: &str =
    "a step that must not be repeated blindly starts after a record of it that survives the loss of power";
const BEFORE: &str = "a step starts after the records of all that it waits for";
const TRACES: &str =
    "a step that can be undone or changes a resource starts after a record of it that survives the process";
const LEASES: &str = "leases survive the loss of power";
const SIGNALS: &str = "approvals, signals and answers of people survive the loss of power";

/// Runs the pipeline of `make` once, then rolls it back if it succeeded, on a clock as [`crash_matrix`](super::crash_matrix) has, and checks
/// each of these:
///
/// 1. a step that must not be repeated blindly (`Probed`, `Once`) starts after a `Synced` record of its start;
/// 2. a step that can be undone, or touches a resource and is not pure, starts after a record of its start;
/// 3. a step starts after the records of all that it waits for were committed;
/// 4. leases are `Synced`;
/// 5. signals, answers of people and the decision to undo are `Synced`.
///
/// How often the disk is waited for is told, so that it can be kept small: a run of pure and idempotent steps waits a fixed number of times.
/// [`Trial::wrap_store`] stands between the run and the count, such as one that weakens what it is asked for.
///
/// # Errors
/// The first [`Violation`].
pub async fn durability<F>(make: impl Fn(Arc<dyn Clock>) -> F) -> Result<DurabilityReport, Violation>
where
    F: Future<Output = Trial>,
{
    let time = TrialClock::default();
    let clock: Arc<dyn Clock> = Arc::new(time.clone());
    let (trial, log) = (make(Arc::clone(&clock)).await, Log::default());
    let ledger = Ledger { store: Arc::new(MemoryStore::new()), seen: Arc::default() };
    let seen = Arc::clone(&ledger.seen);
    let store: Arc<dyn Store> = Arc::new(ledger);
    let store = trial.wrap_store.map_or_else(|| Arc::clone(&store), |wrap| wrap(Arc::clone(&store)));
    let before = trial.plan.plan().nodes().iter().map(|node| {
        let before: BTreeSet<StepId> = node.node.predecessors().cloned().collect();
        (node.id().clone(), before)
    });
    let before: Arc<std::collections::BTreeMap<_, _>> = Arc::new(before.collect());
    let registry = trial.registry.wrapped({
        let (seen, log, time) = (Arc::clone(&seen), log.clone(), time.clone());
        move |step| {
            let watched = Watched { step, seen: Arc::clone(&seen), before: Arc::clone(&before) };
            log.counting(Arc::new(watched), &time)
        }
    });
    let runner = Runner::new(store, Arc::new(registry), trial.authority.clone(), clock)
        .holder("the process under test")
        .lease_for(MONTH)
        .secrets(Arc::clone(&trial.secrets));
    let said = |promise, rolled_back, detail| Violation { promise, at: Vec::new(), rolled_back, detail };
    let process = Process { runner: &runner, trial: &trial, log: &log, clock: &time };
    let told = async |rollback| match paced(
        &time.manual,
        || log.moves(),
        || log.at_work(&time),
        process.whole(rollback),
    )
    .await
    {
        Ok(Ok(report)) => Ok(report),
        Ok(Err(detail)) => Err(said("it converges", rollback, detail)),
        Err(stuck) => Err(said("it ends", rollback, stuck.to_string())),
    };
    let report = told(false).await?;
    let (commits, synced) = {
        let seen = lock(&seen);
        (seen.commits, seen.synced)
    };
    let rollback = report.succeeded();
    if rollback {
        let _report = told(true).await?;
    }
    match &lock(&seen).broken {
        Some((promise, detail)) => Err(said(promise, rollback, detail.clone())),
        None => Ok(DurabilityReport { commits, synced, ended: report.ended }),
    }
}

/// How the check went.
#[derive(Debug, Clone, PartialEq)]
pub struct DurabilityReport {
    /// How many commits the run made, leases included and a rollback after it not.
    pub commits: usize,
    /// How many of them waited for the disk.
    pub synced: usize,
    /// How it ended.
    pub ended: crate::run::Ended,
}

/// What was written so far.
#[derive(Debug, Default)]
struct Seen {
    commits: usize,
    synced: usize,
    finished: BTreeSet<StepId>,
    started: BTreeSet<StepId>,
    started_synced: BTreeSet<StepId>,
    broken: Option<(&'static str, String)>,
}

impl Seen {
    fn must(&mut self, promise: &'static str, holds: bool, detail: impl FnOnce() -> String) {
        if !holds && self.broken.is_none() {
            self.broken = Some((promise, detail()));
        }
    }

    fn commit(&mut self, batch: &Batch) {
        let synced = batch.durability == Durability::Synced;
        self.commits += 1;
        self.synced += usize::from(synced);
        for (key, _) in batch.put.iter().filter(|(key, _)| key.as_str().starts_with("lease/")) {
            self.must(LEASES, synced, || format!("`{key}` was only written"));
        }
        for (_, event) in &batch.append {
            let lasting = [StepSignalled::KIND, StepResolved::KIND, UndoBegun::KIND];
            if lasting.contains(&event.kind.as_str()) {
                self.must(SIGNALS, synced, || format!("`{}` was only written", event.id));
            }
            if let Ok(Some(fact)) = event.fact::<StepStarted>() {
                if synced {
                    self.started_synced.insert(fact.step.clone());
                }
                self.started.insert(fact.step);
            } else if let Ok(Some(fact)) = event.fact::<StepFinished>() {
                self.finished.insert(fact.step);
            }
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A store that notes what is asked of it once that is written.
#[derive(Debug)]
struct Ledger {
    store: Arc<dyn Store>,
    seen: Arc<Mutex<Seen>>,
}

#[async_trait]
impl Store for Ledger {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let committed = self.store.commit(batch.clone()).await?;
        lock(&self.seen).commit(&batch);
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.store.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.store.list(prefix).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.store.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.store.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.store.changed(after).await
    }
}

/// A step that looks, when it is run, at what was written before.
#[derive(Debug)]
struct Watched {
    step: Arc<dyn BoundStep>,
    seen: Arc<Mutex<Seen>>,
    before: Arc<std::collections::BTreeMap<StepId, BTreeSet<StepId>>>,
}

impl BoundStep for Watched {
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
        let step = context.step();
        {
            let mut seen = lock(&self.seen);
            if matches!(self.effect(), Effect::Probed | Effect::Once) {
                let recorded = seen.started_synced.contains(step);
                seen.must(STARTS, recorded, || format!("step `{step}` ran without"));
            }
            let traces = self.effect() != Effect::Pure && !self.touches().is_empty();
            if traces || self.undoing() == Undo::Compensate {
                let recorded = seen.started.contains(step);
                seen.must(TRACES, recorded, || format!("step `{step}` ran without"));
            }
            for before in self.before.get(step).into_iter().flatten() {
                let recorded = seen.finished.contains(before);
                seen.must(BEFORE, recorded, || format!("step `{step}` ran before that of `{before}`"));
            }
        }
        self.step.run(input, context).boxed()
    }

    fn probe<'a>(
        &'a self,
        input: Value,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<Happened<Value>, StepError>> {
        self.step.probe(input, context)
    }

    fn undo<'a>(
        &'a self,
        output: Option<Value>,
        context: &'a Context,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.step.undo(output, context)
    }
}
