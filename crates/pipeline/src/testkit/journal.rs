//! What a run relies on in the store that it is journalled in, as cases that are named by the sentence that they check.
//!
//! A journal is any [`Store`] that can be opened again: by the process that goes on after the one that died. The store's own suite
//! (`testkit::store` of flowline-core) checks every sentence of its contract; this one runs whole pipelines on it.
//!
//! ```
//! use std::sync::Arc;
//! use flowline_core::store::{MemoryStore, Store};
//! use flowline_pipeline::testkit::{self, Open};
//! # async fn example() {
//! let broken = testkit::journal(|| {
//!     let store = MemoryStore::new();
//!     let open: Open = Box::new(move || Arc::new(store.clone()));
//!     open
//! })
//! .await;
//! assert!(broken.is_empty(), "{broken:#?}");
//! # }
//! ```

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock, SystemClock},
    digest::Digest,
    error::chain,
    event::Recorded,
    grant::{Authority, Grants},
    id::{Key, RunId, StreamId},
    store::{
        Batch, Committed, Document, Durability, EventQuery, Position, Store, StoreCapabilities, StoreError,
    },
    testkit::{Fault, FaultyStore, When},
};
use futures_util::{
    FutureExt,
    future::{Either, LocalBoxFuture, select},
};
use serde_json::Value;
use tokio::sync::watch;

use super::{Broken, crash::WrapStore, faults::Faults, step::polled};
use crate::{
    pipeline::{Constant, Pipeline},
    plan::{Plan, Planner, Sealed, StepId},
    run::{Cancel, Ended, OnFailure, Phase, Report, Runner},
    step::{Context, FnStep, Function, Happened, Registry, StepError},
    steps::{ApprovalGateStep, SignalGate, SignalGateStep},
};

/// Opens one journal, as each process of a run does.
pub type Open = Box<dyn Fn() -> Arc<dyn Store>>;

type Outcome = Result<(), String>;
type Check = for<'a> fn(&'a Bench<'a>) -> LocalBoxFuture<'a, Outcome>;

/// Nobody waits longer than this for one case.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// Runs all cases, each on a journal that `fresh` makes. Answers the promises that were broken.
pub async fn journal(fresh: impl Fn() -> Open) -> Vec<Broken> {
    let mut broken = Vec::new();
    for promise in journal_promises() {
        broken.extend(journal_promise(&fresh, promise).await);
    }
    broken
}

/// Every promise that [`journal`] checks.
pub fn journal_promises() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(promise, _)| *promise)
}

/// Checks one of [`journal_promises`]. `None` if it holds, or is none of them.
pub async fn journal_promise(fresh: impl Fn() -> Open, promise: &str) -> Option<Broken> {
    under(&fresh, promise, None).await
}

async fn under(fresh: &dyn Fn() -> Open, promise: &str, engine: Option<WrapStore>) -> Option<Broken> {
    let (promise, check) = *CASES.iter().find(|(known, _)| *known == promise)?;
    let bench = Bench { fresh, engine };
    let seen = match select(check(&bench), SystemClock.sleep(PATIENCE)).await {
        Either::Left((result, _)) => result.err(),
        Either::Right(_) => Some("it did not end".to_owned()),
    };
    seen.map(|seen| Broken { promise, seen })
}

const CASES: &[(&str, Check)] = &[
    ("a run goes on in the next process where it stood", |bench| goes_on(bench).boxed_local()),
    ("a finished step is on record before its successor starts", |bench| recorded(bench).boxed_local()),
    ("the start of a probed or once step is synced before its effect", |bench| delicate(bench).boxed_local()),
    ("a run's start, its lease and an approval are synced", |bench| synced(bench).boxed_local()),
    ("a run is walked by one process at a time", |bench| alone(bench).boxed_local()),
    ("who lost the run records nothing more", |bench| fenced(bench).boxed_local()),
    ("a signal is heard once however often it is sent", |bench| once(bench).boxed_local()),
    ("a commit that failed leaves a run that goes on", |bench| failing(bench).boxed_local()),
];

struct Bench<'a> {
    fresh: &'a dyn Fn() -> Open,
    /// Something between the engine and the record of what it asks for: for tests of this suite.
    engine: Option<WrapStore>,
}

/// What the steps did, in order, shared by all processes.
type Did = Arc<Mutex<Vec<String>>>;

/// One journal, and what acts on it.
struct World {
    open: Open,
    engine: Option<WrapStore>,
    clock: Arc<ManualClock>,
    asked: Asked,
    did: Did,
    /// Whether a step that has begun may end.
    goes: watch::Sender<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(error: impl std::error::Error + 'static) -> String {
    chain(&error)
}

fn run_id() -> Result<RunId, String> {
    RunId::new("journal-suite").map_err(text)
}

impl Bench<'_> {
    fn world(&self) -> World {
        World {
            open: (self.fresh)(),
            engine: self.engine,
            clock: Arc::default(),
            asked: Asked::default(),
            did: Did::default(),
            goes: watch::Sender::new(true),
        }
    }
}

impl World {
    /// The journal, opened anew, noting what it is asked for.
    fn opened(&self) -> Arc<dyn Store> {
        let noting: Arc<dyn Store> = Arc::new(Noting { inner: (self.open)(), asked: self.asked.clone() });
        match self.engine {
            Some(wrap) => wrap(noting),
            None => noting,
        }
    }

    fn did(&self) -> Vec<String> {
        locked(&self.did).clone()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<ManualClock>::clone(&self.clock)
    }

    /// Steps that note what they do; `before` is called as each begins.
    fn registry(
        &self,
        before: impl Fn(&Context) + Clone + Send + Sync + 'static,
    ) -> Result<Registry, String> {
        let mut registry = Registry::new();
        registry.built_as(Digest::of("the suite"));
        let work = {
            let (did, goes) = (Arc::clone(&self.did), self.goes.subscribe());
            move |input: u64, context: Context| {
                let (did, before, mut goes) = (Arc::clone(&did), before.clone(), goes.clone());
                async move {
                    before(&context);
                    locked(&did).push(format!("begin {}", context.step()));
                    // The sender lives as long as the world.
                    goes.wait_for(|goes| *goes).await.ok();
                    tokio::task::yield_now().await;
                    locked(&did).push(format!("end {}", context.step()));
                    Ok::<_, StepError>(input + 1)
                }
            }
        };
        registry.function(&function("idempotent")?, FnStep::idempotent(work.clone()));
        registry.function(&function("once")?, FnStep::once(work.clone()));
        let did = Arc::clone(&self.did);
        let probe = move |input: u64, context: Context| {
            let happened = locked(&did).contains(&format!("end {}", context.step()));
            std::future::ready(Ok(if happened { Happened::Yes(input + 1) } else { Happened::No }))
        };
        registry.function(&function("probed")?, FnStep::probed(work, probe));
        registry.add(SignalGateStep).map_err(text)?.add(ApprovalGateStep).map_err(text)?;
        Ok(registry)
    }

    async fn plan(&self, registry: &Registry, pipeline: Pipeline) -> Result<Sealed<Plan>, String> {
        let planner = Planner::new(Arc::new(registry.clone()), authority()?, self.clock());
        let plan = planner.plan(&pipeline.draft().map_err(text)?).await.map_err(text)?;
        plan.seal().map_err(text)
    }

    fn runner(&self, store: Arc<dyn Store>, registry: Registry, holder: &str) -> Result<Runner, String> {
        let runner = Runner::new(store, Arc::new(registry), authority()?, self.clock());
        Ok(runner.holder(holder).on_failure(OnFailure::Stop))
    }
}

fn authority() -> Result<Authority, String> {
    Ok(Authority::new("suite".parse().map_err(text)?, &Grants::default()))
}

fn function(name: &str) -> Result<Function<u64, u64>, String> {
    Function::new(name, 1).map_err(text)
}

/// Steps one after another, of these functions.
fn chain_of(names: &[&str]) -> Result<Pipeline, String> {
    let mut pipeline = Pipeline::new("suite", "suite".parse().map_err(text)?);
    let mut last = None;
    for (number, name) in names.iter().enumerate() {
        let (id, function) = (format!("{name}-{number}"), function(name)?);
        last = Some(match &last {
            None => pipeline.call(&id, &function, Constant(0)),
            Some(before) => pipeline.call(&id, &function, before),
        });
    }
    Ok(pipeline)
}

fn succeeded(report: &Report) -> Outcome {
    if report.succeeded() { Ok(()) } else { Err(format!("it ended as {:?}", report.ended)) }
}

async fn goes_on(bench: &Bench<'_>) -> Outcome {
    let names = ["idempotent", "probed", "idempotent"];
    for at in 1..=3 {
        for when in When::BOTH {
            let world = bench.world();
            let registry = world.registry(|_| {})?;
            let plan = world.plan(&registry, chain_of(&names)?).await?;
            let faults = Faults::none().with(at, Fault::Crash(when));
            let runner = world.runner(world.opened(), faults.registry(&registry), "one")?;
            let (run, cancel) = (run_id()?, Cancel::new());
            if faults.until_crash(runner.run(&run, &plan, &cancel)).await.is_some() {
                return Err("the first process was not killed".to_owned());
            }
            drop(runner);
            let runner = world.runner(world.opened(), registry, "one")?;
            let report = runner.resume(&run, &cancel).await.map_err(text)?;
            succeeded(&report)?;
            let did = world.did();
            for (number, name) in names.iter().enumerate() {
                let times = did.iter().filter(|did| **did == format!("end {name}-{number}")).count();
                // Only the one that was cut short may have been repeated, and only if that is harmless.
                let most = if number + 1 == usize::try_from(at).unwrap_or(0) && *name == "idempotent" {
                    2
                } else {
                    1
                };
                if times == 0 || times > most {
                    return Err(format!("killed at call {at}: `{name}-{number}` was done {times} times"));
                }
            }
        }
    }
    Ok(())
}

async fn recorded(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let missing = Arc::new(Mutex::new(None));
    let (note, reader, stream) = (Arc::clone(&missing), (world.open)(), stream()?);
    let look = move |context: &Context| {
        // Another process that looks now sees the predecessor as done.
        let events = reader.events(EventQuery::of(stream.clone())).now_or_never();
        let step = context.step().to_string();
        let done = |id: &str| match &events {
            Some(Ok(events)) => events.iter().any(|event| event.event.id.to_string().ends_with(id)),
            // A store that can't answer at once is looked at by the case that restarts.
            _ => true,
        };
        if let Some(("idempotent", number)) = step.split_once('-')
            && let Ok(number @ 1..) = number.parse::<u32>()
            && !done(&format!("finished/idempotent-{}", number - 1))
        {
            *locked(&note) = Some(format!("when `{step}` began, what came before it was not on record"));
        }
    };
    let registry = world.registry(look)?;
    let plan = world.plan(&registry, chain_of(&["idempotent"; 4])?).await?;
    let report = world.runner(world.opened(), registry, "one")?.run(&run_id()?, &plan, &Cancel::new()).await;
    succeeded(&report.map_err(text)?)?;
    let missing = locked(&missing).clone();
    missing.map_or(Ok(()), Err)
}

fn stream() -> Result<StreamId, String> {
    StreamId::new("run/journal-suite").map_err(text)
}

async fn delicate(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let early = Arc::new(Mutex::new(None));
    let (note, asked) = (Arc::clone(&early), world.asked.clone());
    let registry = world.registry(move |context| {
        let record = format!("taskrun.started {}", context.step());
        match asked.of(&record) {
            Some(Durability::Synced) => {}
            found => *locked(&note) = Some(format!("`{}` began; its start was {found:?}", context.step())),
        }
    })?;
    let plan = world.plan(&registry, chain_of(&["probed", "once"])?).await?;
    let report = world.runner(world.opened(), registry, "one")?.run(&run_id()?, &plan, &Cancel::new()).await;
    succeeded(&report.map_err(text)?)?;
    let early = locked(&early).clone();
    early.map_or(Ok(()), Err)
}

async fn synced(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let registry = world.registry(|_| {})?;
    let mut pipeline = Pipeline::new("suite", "suite".parse().map_err(text)?);
    let gate = pipeline.step("gate", SignalGate { what: "a word".to_owned() });
    let plan = world.plan(&registry, pipeline).await?;
    let runner = world.runner(world.opened(), registry, "one")?;
    let (run, cancel) = (run_id()?, Cancel::new());
    drop(runner.run(&run, &plan, &cancel).await.map_err(text)?);
    runner.signal(&run, gate.step(), "word", Value::Bool(true)).await.map_err(text)?;
    for record in ["put lease/run/journal-suite", "pipelinerun.started ", "taskrun.signalled gate"] {
        match world.asked.of(record) {
            Some(Durability::Synced) => {}
            found => return Err(format!("`{}` was asked for as {found:?}", record.trim())),
        }
    }
    Ok(())
}

async fn alone(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let registry = world.registry(|_| {})?;
    let plan = world.plan(&registry, chain_of(&["idempotent"])?).await?;
    let one = world.runner(world.opened(), registry.clone(), "one")?;
    let two = world.runner(world.opened(), registry, "two")?;
    let (run, cancel) = (run_id()?, Cancel::new());
    world.goes.send_replace(false);
    let mut first = Box::pin(one.run(&run, &plan, &cancel));
    begun(&world, &mut first).await?;
    // The second waits for the first one's lease to run out, which it does not on a clock that stands still.
    let mut second = Box::pin(two.run(&run, &plan, &cancel));
    let a_while = std::pin::pin!(async {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    });
    if let Either::Left((report, _)) = select(&mut second, a_while).await {
        return Err(format!("while the first walked it, the second ended: {report:?}"));
    }
    if world.did().len() != 1 {
        return Err(format!("while the first walked it, the second did too: {:?}", world.did()));
    }
    world.goes.send_replace(true);
    succeeded(&first.await.map_err(text)?)?;
    world.clock.advance(SignedDuration::from_mins(1));
    succeeded(&second.await.map_err(text)?)?;
    if world.did().len() == 2 { Ok(()) } else { Err(format!("it was done again: {:?}", world.did())) }
}

/// Drives `walk` until its first step has begun.
async fn begun<T>(world: &World, mut walk: impl Future<Output = T> + Unpin) -> Outcome {
    for _ in 0..100_000 {
        if polled(&mut walk, 1).await.is_some() {
            return Err("it ended before its first step began".to_owned());
        }
        if !world.did().is_empty() {
            return Ok(());
        }
        tokio::task::yield_now().await;
    }
    Err("its first step did not begin".to_owned())
}

async fn fenced(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let registry = world.registry(|_| {})?;
    let plan = world.plan(&registry, chain_of(&["idempotent", "idempotent"])?).await?;
    let one = world.runner(world.opened(), registry.clone(), "one")?;
    let two = world.runner(world.opened(), registry, "two")?;
    let (run, cancel) = (run_id()?, Cancel::new());
    world.goes.send_replace(false);
    let mut first = Box::pin(one.run(&run, &plan, &cancel));
    begun(&world, &mut first).await?;
    // The first process stands still for longer than its lease, and another one takes over.
    world.clock.advance(SignedDuration::from_mins(5));
    world.goes.send_replace(true);
    succeeded(&two.run(&run, &plan, &cancel).await.map_err(text)?)?;
    let events = async || (world.open)().events(EventQuery::of(stream()?)).await.map_err(text);
    let before = events().await?.len();
    match first.await {
        Err(_) => {}
        Ok(report) => return Err(format!("it went on as if it still held the run: {:?}", report.ended)),
    }
    let after = events().await?.len();
    if after == before { Ok(()) } else { Err(format!("it recorded {} more facts", after - before)) }
}

async fn once(bench: &Bench<'_>) -> Outcome {
    let world = bench.world();
    let registry = world.registry(|_| {})?;
    let mut pipeline = Pipeline::new("suite", "suite".parse().map_err(text)?);
    let gate = pipeline.step("gate", SignalGate { what: "a word".to_owned() });
    let plan = world.plan(&registry, pipeline).await?;
    let runner = world.runner(world.opened(), registry, "one")?;
    let (run, cancel) = (run_id()?, Cancel::new());
    let report = runner.run(&run, &plan, &cancel).await.map_err(text)?;
    if !matches!(report.ended, Ended::Waiting { .. }) {
        return Err(format!("it did not wait: {:?}", report.ended));
    }
    for word in ["first", "again"] {
        runner.signal(&run, gate.step(), "word", Value::from(word)).await.map_err(text)?;
    }
    let report = runner.run(&run, &plan, &cancel).await.map_err(text)?;
    succeeded(&report)?;
    let heard = report.state.signals(gate.step());
    if heard == [Value::from("first")] { Ok(()) } else { Err(format!("it heard {heard:?}")) }
}

async fn failing(bench: &Bench<'_>) -> Outcome {
    for at in 1..40 {
        for when in When::BOTH {
            let world = bench.world();
            let registry = world.registry(|_| {})?;
            let plan = world.plan(&registry, chain_of(&["idempotent", "probed"])?).await?;
            let store = FaultyStore::new(world.opened()).with(at, Fault::Fail(when));
            let runner = world.runner(Arc::new(store.clone()), registry.clone(), "one")?;
            let (run, cancel) = (run_id()?, Cancel::new());
            let first = runner.run(&run, &plan, &cancel).await;
            if store.commits() < at {
                return Ok(());
            }
            drop(first);
            let report = world.runner(world.opened(), registry, "one")?.run(&run, &plan, &cancel).await;
            let report =
                report.map_err(|error| format!("after a failure of commit {at}: {}", text(error)))?;
            succeeded(&report)?;
            let probed = StepId::new("probed-1").map_err(text)?;
            let times = world.did().iter().filter(|did| *did == "end probed-1").count();
            let phase = report.state.step(&probed).map(|step| &step.phase);
            if times != 1 || !matches!(phase, Some(Phase::Finished { .. })) {
                return Err(format!("after a failure of commit {at}: it was done {times} times"));
            }
        }
    }
    Ok(())
}

/// What was asked of a journal, and how durably, as far as it was confirmed.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Vec<(String, Durability)>>>);

impl Asked {
    /// How the first record that begins so was asked for.
    fn of(&self, record: &str) -> Option<Durability> {
        locked(&self.0).iter().find(|(found, _)| found.starts_with(record)).map(|(_, durability)| *durability)
    }
}

/// A store that notes what it confirmed.
#[derive(Debug)]
struct Noting {
    inner: Arc<dyn Store>,
    asked: Asked,
}

#[async_trait]
impl Store for Noting {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn commit(&self, batch: Batch) -> Result<Committed, StoreError> {
        let durability = batch.durability;
        let puts = batch.put.iter().map(|(key, _)| format!("put {key}"));
        let step = |data: &Value| data.get("step").and_then(Value::as_str).unwrap_or_default().to_owned();
        let events = batch.append.iter().map(|(_, event)| format!("{} {}", event.kind, step(&event.data)));
        let records: Vec<_> = puts.chain(events).map(|record| (record, durability)).collect();
        let committed = self.inner.commit(batch).await?;
        locked(&self.asked.0).extend(records);
        Ok(committed)
    }

    async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
        self.inner.read(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
        self.inner.list(prefix).await
    }

    async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
        self.inner.events(query).await
    }

    async fn head(&self) -> Result<Position, StoreError> {
        self.inner.head().await
    }

    async fn changed(&self, after: Position) -> Result<Position, StoreError> {
        self.inner.changed(after).await
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::store::MemoryStore;

    use super::*;

    fn memory() -> Open {
        let store = MemoryStore::new();
        Box::new(move || Arc::new(store.clone()))
    }

    #[tokio::test]
    async fn memory_keeps_every_promise() {
        let broken = journal(memory).await;
        assert!(broken.is_empty(), "{broken:#?}");
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Wrong {
        ForgetsFinished,
        NeverSyncs,
        HidesLeases,
        BelievesItself,
        HearsTwice,
    }

    /// A store, or an engine's way of asking it, with one fault.
    #[derive(Debug)]
    struct Odd(Arc<dyn Store>, Wrong, Mutex<Option<Document>>);

    #[async_trait]
    impl Store for Odd {
        fn capabilities(&self) -> StoreCapabilities {
            self.0.capabilities()
        }

        async fn commit(&self, mut batch: Batch) -> Result<Committed, StoreError> {
            match self.1 {
                Wrong::ForgetsFinished => {
                    batch.append.retain(|(_, event)| event.kind != "taskrun.finished");
                }
                Wrong::NeverSyncs => batch.durability = Durability::Written,
                Wrong::HidesLeases => {
                    batch.expect.clear();
                    batch.fence.clear();
                }
                // It takes no notice of what others did to its lease.
                Wrong::BelievesItself => {
                    batch.fence.clear();
                    if let Some((key, _)) = batch.put.first().cloned()
                        && key.to_string().starts_with("lease/")
                    {
                        batch.expect.clear();
                        let committed = self.0.commit(batch).await?;
                        let own = self.0.read(&key).await?;
                        *locked(&self.2) = own;
                        return Ok(committed);
                    }
                }
                Wrong::HearsTwice => {
                    for (_, event) in &mut batch.append {
                        if event.kind == "taskrun.signalled" {
                            let number = self.0.head().await?;
                            event.id =
                                flowline_core::id::EventId::new(format!("other-{}", number.0)).unwrap();
                        }
                    }
                }
            }
            self.0.commit(batch).await
        }

        async fn read(&self, key: &Key) -> Result<Option<Document>, StoreError> {
            if self.1 == Wrong::HidesLeases && key.to_string().starts_with("lease/") {
                return Ok(None);
            }
            let own = locked(&self.2).clone();
            if own.is_some() && key.to_string().starts_with("lease/") {
                return Ok(own);
            }
            self.0.read(key).await
        }

        async fn list(&self, prefix: &str) -> Result<Vec<(Key, Document)>, StoreError> {
            self.0.list(prefix).await
        }

        async fn events(&self, query: EventQuery) -> Result<Vec<Recorded>, StoreError> {
            self.0.events(query).await
        }

        async fn head(&self) -> Result<Position, StoreError> {
            self.0.head().await
        }

        async fn changed(&self, after: Position) -> Result<Position, StoreError> {
            self.0.changed(after).await
        }
    }

    fn odd(wrong: Wrong) -> Open {
        let store = MemoryStore::new();
        Box::new(move || Arc::new(Odd(Arc::new(store.clone()), wrong, Mutex::default())))
    }

    #[tokio::test]
    async fn each_fault_breaks_the_promise_that_it_should() {
        for (wrong, promise) in [
            (Wrong::ForgetsFinished, "a run goes on in the next process where it stood"),
            (Wrong::ForgetsFinished, "a finished step is on record before its successor starts"),
            (Wrong::HidesLeases, "a run is walked by one process at a time"),
            (Wrong::BelievesItself, "who lost the run records nothing more"),
            (Wrong::HearsTwice, "a signal is heard once however often it is sent"),
        ] {
            let broken = journal_promise(|| odd(wrong), promise).await;
            assert!(broken.is_some(), "{wrong:?} keeps: {promise}");
        }
        let forgetful = || -> Open { Box::new(|| Arc::new(MemoryStore::new())) };
        let promise = "a commit that failed leaves a run that goes on";
        assert!(journal_promise(forgetful, promise).await.is_some());
    }

    #[tokio::test]
    async fn an_engine_that_does_not_ask_for_the_disk_is_found() {
        let careless: WrapStore = |store| Arc::new(Odd(store, Wrong::NeverSyncs, Mutex::default()));
        for promise in [
            "the start of a probed or once step is synced before its effect",
            "a run's start, its lease and an approval are synced",
        ] {
            assert!(under(&memory, promise, Some(careless)).await.is_some(), "{promise}");
        }
    }
}
