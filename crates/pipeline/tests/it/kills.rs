//! Killed at random: what was finished is not repeated, nothing is missing, and undoing is complete and goes backwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    task::Poll,
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    digest::Digest,
    id::{ResourceId, RunId},
    store::{MemoryStore, Store},
    testkit::Seeded,
};
use flowline_pipeline::{
    Cancel, Output, Pipeline, Runner,
    pipeline::Constant,
    plan::{Plan, Planner, Policy, Sealed, StepId},
    run::{Cause, Ended, Phase, Progress, Reporter, Resolution, RunState},
    step::{
        Action, Context, Effect, Fingerprint, FnStep, Function, Happened, Observed, Preview, PreviewContext,
        Registry, Spec, Step, StepError, Undo,
    },
};
use serde::{Deserialize, Serialize};

use crate::world::authority;

const STEPS: usize = 300;
const GRAPHS: usize = 10;
/// Each graph is killed so often in the midst of a walk, or until it ends.
const KILLS: usize = 16;
/// In all so often at least.
const ENOUGH: usize = 100;

/// Everything that happened to the world, over all processes of a run.
#[derive(Debug, Clone, Default)]
struct World(Arc<Mutex<Happenings>>);

#[derive(Debug, Default)]
struct Happenings {
    /// How often each step took effect, by its own count; a repetition under one key counts once.
    effects: BTreeMap<StepId, usize>,
    /// What each step would have given, since it took effect.
    gave: BTreeMap<StepId, u64>,
    /// Steps whose end was recorded.
    finished: BTreeSet<StepId>,
    undone: BTreeSet<StepId>,
    /// In which order steps were first asked to take their effect back.
    taken_back: Vec<StepId>,
    /// What was called though it was recorded as over.
    repeated: Vec<StepId>,
    /// Who runs under each lock, and whether two ever did.
    locked: BTreeMap<&'static str, StepId>,
    together: Vec<(StepId, StepId)>,
}

impl Reporter for World {
    fn report(&self, progress: &Progress<'_>) {
        let mut world = self.lock();
        match progress {
            Progress::Finished { step, .. } => drop(world.finished.insert((*step).clone())),
            Progress::Undone { step } => drop(world.undone.insert((*step).clone())),
            _ => {}
        }
    }
}

/// Holds a lock in the world's own eyes, until it is dropped.
struct Under {
    world: World,
    lock: Option<&'static str>,
}

impl Drop for Under {
    fn drop(&mut self) {
        if let Some(lock) = self.lock {
            self.world.lock().locked.remove(lock);
        }
    }
}

impl World {
    fn lock(&self) -> std::sync::MutexGuard<'_, Happenings> {
        self.0.lock().unwrap()
    }

    fn called(&self, step: &StepId) {
        let mut world = self.lock();
        if world.finished.contains(step) {
            world.repeated.push(step.clone());
        }
    }

    fn apply(&self, step: &StepId, gives: u64, by_key: bool) {
        let mut world = self.lock();
        let count = world.effects.entry(step.clone()).or_default();
        *count = if by_key { 1 } else { *count + 1 };
        world.gave.insert(step.clone(), gives);
    }

    fn take_back(&self, step: &StepId) {
        let mut world = self.lock();
        if world.undone.contains(step) {
            world.repeated.push(step.clone());
        }
        if !world.taken_back.contains(step) {
            world.taken_back.push(step.clone());
        }
        world.effects.remove(step);
    }

    /// Enters what `context`'s step holds a lock for.
    fn under(&self, context: &Context) -> Under {
        let lock = LOCKS.into_iter().find(|lock| {
            context.locks().iter().any(|fence| fence.lease.as_str() == format!("lease/lock/{lock}"))
        });
        if let Some(lock) = lock {
            let mut world = self.lock();
            if let Some(other) = world.locked.insert(lock, context.step().clone()) {
                world.together.push((other, context.step().clone()));
            }
        }
        Under { world: self.clone(), lock }
    }

    /// Does what a step does, with chances to be killed before and after its effect.
    async fn work(&self, n: u64, context: &Context, by_key: bool) -> u64 {
        self.called(context.step());
        let _under = self.under(context);
        moments(usize::try_from(n % 3).unwrap()).await;
        self.apply(context.step(), n + 1, by_key);
        moments(usize::try_from(n % 2).unwrap()).await;
        n + 1
    }
}

const LOCKS: [&str; 2] = ["disk", "proxy"];

/// Gives the walk a chance to be killed here.
async fn moments(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Changes a resource of its own, and shows in which state that is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    host: String,
}

impl Spec for Change {
    const KIND: &'static str = "change";
    type Input = u64;
    type Output = u64;
}

impl Change {
    fn resource(&self) -> ResourceId {
        ResourceId::of("host", &self.host).unwrap()
    }
}

#[derive(Debug, Clone)]
struct Changer {
    world: World,
    /// Whether it can be taken back.
    undoing: Undo,
}

#[async_trait]
impl Step for Changer {
    type Spec = Change;

    fn effect(&self, _: &Change) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &Change) -> Undo {
        self.undoing
    }

    fn touches(&self, spec: &Change) -> Vec<ResourceId> {
        vec![spec.resource()]
    }

    async fn preview(&self, spec: &Change, context: &PreviewContext) -> Result<Preview, StepError> {
        let found = self.world.lock().effects.get(context.step()).copied();
        let observed = Observed {
            resource: spec.resource(),
            action: Action::Update,
            fingerprint: Fingerprint::of(&found).unwrap(),
            details: Vec::new(),
        };
        Ok(Preview::of("changes it", vec![observed]))
    }

    async fn run(&self, _: &Change, n: u64, context: &Context) -> Result<u64, StepError> {
        Ok(self.world.work(n, context, true).await)
    }

    async fn undo(&self, _: &Change, _: Option<u64>, context: &Context) -> Result<(), StepError> {
        moments(1).await;
        self.world.take_back(context.step());
        Ok(())
    }
}

/// Steps of each effect. All that have one can be undone if the run is to be aborted; otherwise only some.
fn kinds(world: &World, abort: bool) -> (Registry, Vec<Function<u64, u64>>) {
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    let function = |name: &str| Function::<u64, u64>::new(name, 1).unwrap();
    let kinds: Vec<_> = ["pure", "idempotent", "undoable", "probed", "once"].map(function).into();
    let run = |by_key: bool| {
        let world = world.clone();
        move |n: u64, context: Context| {
            let world = world.clone();
            async move { Ok::<_, StepError>(world.work(n, &context, by_key).await) }
        }
    };
    let undo = || {
        let world = world.clone();
        move |_: Option<u64>, context: Context| {
            let world = world.clone();
            async move {
                moments(1).await;
                world.take_back(context.step());
                Ok(())
            }
        }
    };
    let asked = world.clone();
    let probe = move |n: u64, context: Context| {
        let happened = asked.lock().effects.contains_key(context.step());
        std::future::ready(Ok(if happened { Happened::Yes(n + 1) } else { Happened::No }))
    };
    let idempotent = FnStep::idempotent(run(true));
    registry.function(&kinds[0], FnStep::pure(|n: u64, _| async move { Ok(n + 1) }));
    registry.function(&kinds[1], if abort { idempotent.undone_by(undo()) } else { idempotent });
    registry.function(&kinds[2], FnStep::idempotent(run(true)).undone_by(undo()));
    registry.function(&kinds[3], FnStep::probed(run(false), probe).undone_by(undo()));
    registry.function(&kinds[4], FnStep::once(run(false)).undone_by(undo()));
    let undoing = if abort { Undo::Compensate } else { Undo::None };
    registry.add(Changer { world: world.clone(), undoing }).unwrap();
    (registry, kinds)
}

/// A random graph: each step takes the output of one before it and comes after up to two more; some hold a lock.
async fn graph(random: &mut Seeded, registry: &Registry, kinds: &[Function<u64, u64>]) -> Sealed<Plan> {
    let mut pipeline = Pipeline::new("random", "storefront".parse().unwrap());
    let mut outputs: Vec<Output<u64>> = Vec::new();
    for number in 0..STEPS {
        let id = format!("s{number}");
        let from = (!outputs.is_empty() && pick(random, 8) > 0)
            .then(|| outputs[outputs.len() - 1 - pick(random, outputs.len().min(20))].clone());
        let change = Change { host: format!("h{number}.awesome.com") };
        let output = match (kinds.get(pick(random, kinds.len() + 1)), from) {
            (Some(kind), Some(from)) => pipeline.call(&id, kind, &from),
            (Some(kind), None) => pipeline.call(&id, kind, Constant(7)),
            (None, Some(from)) => pipeline.feed(&id, change, &from),
            (None, None) => pipeline.feed(&id, change, Constant(7)),
        };
        for _ in 0..pick(random, 3).min(outputs.len()) {
            let earlier = &outputs[pick(random, outputs.len())];
            pipeline.after(&output, earlier);
        }
        if pick(random, 10) == 0 {
            let mut policy = Policy::default();
            policy.locks.insert(LOCKS[pick(random, LOCKS.len())].to_owned());
            pipeline.policy(&output, policy);
        }
        outputs.push(output);
    }
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let planner = Planner::new(Arc::new(registry.clone()), authority(), clock);
    planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
}

fn pick(random: &mut Seeded, below: usize) -> usize {
    usize::try_from(random.below(u64::try_from(below).unwrap())).unwrap()
}

/// What was finished when it was decided to abort: each step with its place in the order of finishing.
fn places(state: &RunState) -> BTreeMap<StepId, u64> {
    let finished = state.steps().filter_map(|(id, step)| match step.phase {
        Phase::Finished { place, .. } => Some((id.clone(), place)),
        _ => None,
    });
    finished.collect()
}

#[tokio::test]
async fn killed_a_hundred_times_nothing_finished_is_repeated_and_nothing_is_missing() {
    // Another one is tried with FLOWLINE_SEED; a failure names the one that it had.
    #[expect(clippy::disallowed_methods, reason = "a failure is replayed with the seed that it names")]
    let asked = std::env::var("FLOWLINE_SEED");
    let seed = asked.ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_101);
    println!("seed {seed}");
    let mut kills = 0;
    for number in 0..GRAPHS {
        kills += one_graph(seed, number).await;
    }
    assert!(kills >= ENOUGH, "killed {kills} times");
}

/// One graph, killed and started again until it ends. How often it was killed in the midst of a walk.
async fn one_graph(seed: u64, number: usize) -> usize {
    let mut random = Seeded::new(seed + u64::try_from(number).unwrap());
    // Half of the graphs are aborted after the fourth kill.
    let abort = number % 2 == 1;
    let world = World::default();
    let (registry, kinds) = kinds(&world, abort);
    let plan = graph(&mut random, &registry, &kinds).await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let manual = ManualClock::default();
    let mut runner = Runner::new(store, Arc::new(registry), authority(), Arc::new(manual.clone()))
        .workers(NonZeroUsize::new(1 + pick(&mut random, 6)).unwrap())
        .reporter(Arc::new(world.clone()));
    // Some successors take over at once; the others are new to the lease, and wait until the dead one's runs out.
    if number % 4 < 2 {
        runner = runner.holder("the one that is killed");
    }
    let run = RunId::new("killed").unwrap();
    let told = format!("seed {seed}, graph {number}");
    let (mut kills, mut finished) = (0, None);
    let ended = loop {
        let cancel = Cancel::new();
        if abort && kills >= 4 {
            if finished.is_none() {
                finished = Some(places(&runner.state(&run).await.unwrap()));
            }
            cancel.cancel();
        }
        manual.advance(SignedDuration::from_secs(16));
        let mut walk = Box::pin(runner.run(&run, &plan, &cancel));
        let polls =
            if kills < KILLS { 1 + pick(&mut random, if abort { 8 } else { 24 }) } else { usize::MAX };
        let mut ended = None;
        for _ in 0..polls {
            let polled = std::future::poll_fn(|context| Poll::Ready(walk.as_mut().poll(context))).await;
            if let Poll::Ready(report) = polled {
                ended = Some(report.unwrap().ended);
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(walk);
        check_recorded(&runner, &run, &world, &told).await;
        match ended {
            None => kills += 1,
            // A person looks what became of it.
            Some(Ended::NeedsPerson { steps }) => {
                for step in steps.keys() {
                    let gave = world.lock().gave.get(step).copied();
                    let answer =
                        gave.map_or(Resolution::DidNotHappen, |gave| Resolution::Happened(gave.into()));
                    runner.resolve(&run, step, answer).await.unwrap();
                }
            }
            Some(ended) => break ended,
        }
    };
    let state = runner.state(&run).await.unwrap();
    let world = world.lock();
    assert_eq!((&world.repeated, &world.together), (&Vec::new(), &Vec::new()), "{told}");
    if let Some(finished) = finished {
        assert_eq!(ended, Ended::Undone { cause: Cause::Cancelled, irreversible: Vec::new() }, "{told}");
        assert_eq!(world.effects, BTreeMap::new(), "{told}: undone in full");
        // Backwards; what was only begun has no place and goes before all others.
        let order: Vec<_> =
            world.taken_back.iter().map(|step| finished.get(step).copied().unwrap_or(u64::MAX)).collect();
        assert!(
            order.is_sorted_by(|first, second| first > second || *first == u64::MAX),
            "{told}: {order:?}"
        );
        assert!(!order.is_empty(), "{told}");
    } else {
        assert_eq!((ended, state.done()), (Ended::Succeeded, STEPS), "{told}");
        let effects = plan.plan().nodes().iter().filter(|node| node.node.kind != *kinds[0].kind());
        for node in effects {
            assert_eq!(world.effects.get(node.id()), Some(&1), "{told}: `{}`", node.id());
        }
    }
    kills
}

/// What was told as finished is on record.
async fn check_recorded(runner: &Runner, run: &RunId, world: &World, told: &str) {
    let before: Vec<_> = world.lock().finished.iter().cloned().collect();
    let recorded = runner.state(run).await.unwrap();
    for step in before {
        let phase = &recorded.step(&step).unwrap().phase;
        assert!(
            !matches!(phase, Phase::Waiting | Phase::Started | Phase::Failed { .. }),
            "{told}: `{step}` was said to be finished and the journal says {phase:?}"
        );
    }
}

#[cfg(unix)]
mod for_real {
    use std::{
        io::{BufRead, BufReader},
        process::{Command, Stdio},
    };

    use flowline_core::store::SqliteStore;

    use super::*;

    /// Tells the child its folder.
    const FOLDER: &str = "FLOWLINE_TEST_KILLED";
    const COUNT: usize = 40;

    /// Each step leaves a line in a file when it takes effect, then says so.
    fn plan_of(folder: &std::path::Path) -> (Registry, Pipeline) {
        let file = folder.join("effects");
        let function = Function::<u64, u64>::new("line", 1).unwrap();
        let mut registry = Registry::new();
        registry.built_as(Digest::of("build"));
        let asked = file.clone();
        let step = FnStep::probed(
            move |n: u64, context: Context| {
                use std::io::Write as _;
                let mut file = std::fs::File::options().create(true).append(true).open(&file).unwrap();
                // One write: a kill must not leave half a line.
                file.write_all(format!("{}\n", context.step()).as_bytes()).unwrap();
                // Not `println!`, which a test harness keeps back.
                std::io::stdout().write_all(format!("did {}\n", context.step()).as_bytes()).unwrap();
                std::future::ready(Ok(n + 1))
            },
            move |n: u64, context: Context| {
                let text = std::fs::read_to_string(&asked).unwrap_or_default();
                let happened = text.lines().any(|line| line == context.step().as_str());
                std::future::ready(Ok(if happened { Happened::Yes(n + 1) } else { Happened::No }))
            },
        );
        registry.function(&function, step);
        let mut pipeline = Pipeline::new("lines", "storefront".parse().unwrap());
        let mut last = pipeline.call("s0", &function, Constant(0));
        for number in 1..COUNT {
            last = match number % 3 {
                0 => pipeline.call(&format!("s{number}"), &function, Constant(0)),
                _ => pipeline.call(&format!("s{number}"), &function, &last),
            };
        }
        (registry, pipeline)
    }

    async fn walk(folder: &std::path::Path) -> Ended {
        let (registry, pipeline) = plan_of(folder);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let registry = Arc::new(registry);
        let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let store = Arc::new(SqliteStore::open(folder).unwrap());
        let runner = Runner::new(store, registry, authority(), clock).holder("the one that is killed");
        runner.run(&RunId::new("killed").unwrap(), &plan, &Cancel::new()).await.unwrap().ended
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the environment is how the parent talks to its child")]
    async fn the_process_that_is_killed() {
        if let Some(folder) = std::env::var_os(FOLDER) {
            walk(std::path::Path::new(&folder)).await;
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a process of this test's own is killed")]
    async fn a_process_killed_for_real_leaves_a_run_that_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for moment in [1, 5, 3, 8] {
            let complaints = folder.path().join("complaints");
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["kills::for_real::the_process_that_is_killed", "--exact", "--nocapture"])
                .env(FOLDER, folder.path())
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(&complaints).unwrap())
                .spawn()
                .unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let did = lines.map_while(Result::ok).filter(|line| line.contains("did s"));
            let seen = did.take(moment).count();
            child.kill().unwrap();
            child.wait().unwrap();
            let complaints = std::fs::read_to_string(complaints).unwrap();
            assert_eq!(seen, moment, "it was killed in the middle, but: {complaints}");
        }
        assert_eq!(walk(folder.path()).await, Ended::Succeeded);
        let text = std::fs::read_to_string(folder.path().join("effects")).unwrap();
        let steps: BTreeSet<_> = text.lines().collect();
        assert_eq!((text.lines().count(), steps.len()), (COUNT, COUNT), "each took effect once:\n{text}");
    }
}
