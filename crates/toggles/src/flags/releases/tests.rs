//! What holds of releases over a store, simulated on a manual clock.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock},
    error::BoxError,
    id::ScopeId,
    store::{MemoryStore, Store},
    testkit::{Fault, FaultyStore, When, block_on},
    verdict::{Outcome, Verdict},
};
use proptest::prelude::*;

use super::*;
use crate::source::race::race;
use crate::{
    context::Context,
    flags::Author,
    format::flowline::{Definition, Percent},
    life::release::{Fallout, Halt, Question, Steps},
};

const USERS: usize = 300;

fn percent(percent: f64) -> Percent {
    Percent::new(percent).unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn steps() -> Steps {
    Steps::new([(percent(1.0), hours(1)), (percent(25.0), hours(2)), (Percent::ALL, hours(4))]).unwrap()
}

fn ada() -> Author {
    Author::new("ada", "it is ready")
}

fn production() -> ScopeId {
    ScopeId::new("production").unwrap()
}

fn checkout() -> FlagKey {
    FlagKey::new("checkout").unwrap()
}

/// Says what a test wants.
#[derive(Debug, Default)]
struct Says {
    outcome: Mutex<Option<Outcome>>,
    asked: Mutex<Vec<Question>>,
}

#[async_trait]
impl Judge for Says {
    async fn judge(&self, question: &Question) -> Result<Verdict, BoxError> {
        self.asked.lock().unwrap().push(question.clone());
        match *self.outcome.lock().unwrap() {
            Some(outcome) => Ok(Verdict::of(outcome, "errors", "as the test wants it")),
            None => Err("the metrics are away".into()),
        }
    }
}

/// One process that drives releases.
struct World {
    clock: ManualClock,
    begin: Timestamp,
    releases: Releases,
}

impl World {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new()), ManualClock::default()).await
    }

    async fn over(store: Arc<dyn Store>, clock: ManualClock) -> Self {
        let flags = Flags::open(Arc::clone(&store), Arc::new(clock.clone())).await.unwrap();
        if flags.definition(&checkout()).is_none() {
            flags.define(&checkout(), Definition::default(), &ada()).await.unwrap();
        }
        Self { begin: clock.now(), clock, releases: Releases::new(flags) }
    }

    fn flags(&self) -> &Flags {
        self.releases.flags()
    }

    async fn start(&self, steps: Steps) {
        self.releases.start(&production(), &checkout(), steps, &ada()).await.unwrap();
    }

    async fn advance(&self) -> Advanced {
        self.releases.advance().await.unwrap()
    }

    /// Does what is due and jumps to what is due next, until nothing is.
    async fn run(&self) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..100 {
            let advanced = self.advance().await;
            let hour = self.clock.now().duration_since(self.begin).as_hours();
            told.extend(advanced.happened.into_iter().map(|(_, _, happened)| format!("{happened} @{hour}h")));
            match advanced.next_wake {
                Some(wake) => self.clock.set(wake),
                None => break,
            }
        }
        told
    }

    fn share(&self) -> Percent {
        let state = self.flags().effective(&production(), &checkout());
        if state.on && !state.killed { state.rollout } else { Percent::NONE }
    }

    fn who(&self) -> BTreeSet<usize> {
        let toggles = self.flags().toggles(&production());
        (0..USERS).filter(|user| toggles.is_on("checkout", &Context::new(format!("user-{user}")))).collect()
    }

    async fn told(&self) -> String {
        let history = self.releases.history(&checkout()).await.unwrap();
        let lines = history.into_iter().map(|fact| format!("{} ({})", fact.happened, fact.reason));
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test]
async fn a_release_goes_its_way_by_time_and_each_step_is_a_fact() {
    let world = World::new().await;
    world.start(steps().starting(world.begin + hours(5))).await;
    assert_eq!(world.share(), Percent::NONE);
    assert_eq!(world.run().await, ["step 1: 1 % @5h", "step 2: 25 % @6h", "step 3: 100 % @8h", "done @12h"]);
    assert_eq!((world.share(), world.releases.list().await.unwrap().len()), (Percent::ALL, 0));
    insta::assert_snapshot!(world.told().await, @r"
    started (it is ready)
    step 1: 1 % (step 1: 1 %; released by ada: it is ready)
    step 2: 25 % (step 2: 25 %; released by ada: it is ready)
    step 3: 100 % (step 3: 100 %; released by ada: it is ready)
    done (done; released by ada: it is ready)
    ");
    let history = world.flags().history(&checkout()).await.unwrap();
    let states: Vec<_> = history
        .iter()
        .filter_map(|(event, change)| {
            Some(format!(
                "{} {} {}",
                event.actor,
                event.time,
                change.after.as_ref().filter(|_| event.cause.is_some())?
            ))
        })
        .collect();
    insta::assert_snapshot!(states.join("\n"), @r#"
    flowline 2026-01-01T05:00:00Z {"on":true,"rollout":1}
    flowline 2026-01-01T06:00:00Z {"on":true,"rollout":25}
    flowline 2026-01-01T08:00:00Z {"on":true,"rollout":100}
    "#);
}

#[tokio::test]
async fn a_scheduled_end_takes_it_from_everybody() {
    let world = World::new().await;
    world.start(steps().ending(world.begin + hours(24))).await;
    assert_eq!(world.run().await, ["step 2: 25 % @1h", "step 3: 100 % @3h", "ended; nobody has it @24h"]);
    assert_eq!(world.share(), Percent::NONE);
}

#[tokio::test]
async fn whoever_had_it_before_keeps_it_and_has_it_back_when_it_is_aborted() {
    for (fallout, expected) in [(Fallout::Restore, 10.0), (Fallout::Withdraw, 0.0), (Fallout::Keep, 25.0)] {
        let world = World::new().await;
        world.flags().set_rollout(&production(), &checkout(), percent(10.0), &ada()).await.unwrap();
        let before = world.who();
        world.start(steps()).await;
        assert_eq!((world.share(), world.who()), (percent(10.0), before), "1 % is less than what is on");
        world.clock.advance(hours(1));
        world.advance().await;
        assert_eq!(world.share(), percent(25.0));
        world.releases.abort(&production(), &checkout(), fallout, &ada()).await.unwrap();
        assert_eq!(world.share(), percent(expected), "{fallout:?}");
        assert_eq!(world.advance().await, Advanced::default());
    }
}

#[tokio::test]
async fn a_paused_release_goes_on_where_it_stood() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    world.start(steps()).await;
    world.clock.advance(SignedDuration::from_mins(30));
    world.releases.pause(&here, &flag, &ada()).await.unwrap();
    world.releases.pause(&here, &flag, &ada()).await.unwrap();
    world.clock.advance(hours(48));
    assert_eq!(world.advance().await, Advanced::default(), "nothing is due by itself");
    world.releases.resume(&here, &flag, &ada()).await.unwrap();
    world.releases.resume(&here, &flag, &ada()).await.unwrap();
    let next = world.advance().await.next_wake;
    assert_eq!(next, Some(world.clock.now() + SignedDuration::from_mins(30)));
    assert_eq!(world.releases.history(&flag).await.unwrap().len(), 4, "doing it again is no fact");
}

#[tokio::test]
async fn the_kill_switch_wins_and_the_release_waits_for_a_person() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    world.start(steps()).await;
    world.flags().kill(Place::Everywhere, &flag, &ada()).await.unwrap();
    assert_eq!(world.share(), Percent::NONE);
    world.clock.advance(hours(9));
    let happened = world.advance().await.happened;
    assert_eq!(happened, [(Place::from(&here), flag.clone(), Happened::Paused(Halt::Killed))]);
    let refused = world.releases.resume(&here, &flag, &ada()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "flag `checkout` in `production` is held off by a kill switch; revive it first"
    );
    world.flags().revive(Place::Everywhere, &flag, &ada()).await.unwrap();
    assert_eq!(world.share(), percent(1.0));
    assert_eq!(world.advance().await, Advanced::default(), "it does not go on by itself");
    world.releases.resume(&here, &flag, &ada()).await.unwrap();
    assert_eq!(world.run().await.len(), 3);
    assert_eq!(world.share(), Percent::ALL);
}

#[tokio::test]
async fn what_a_hand_lowered_stays_low_until_somebody_resumes() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    world.start(steps()).await;
    world.clock.advance(hours(1));
    world.advance().await;
    world.flags().set_rollout(&here, &flag, percent(5.0), &ada()).await.unwrap();
    world.clock.advance(hours(9));
    assert_eq!(world.advance().await.happened[0].2, Happened::Paused(Halt::Lowered));
    assert_eq!(world.share(), percent(5.0));
    world.releases.resume(&here, &flag, &ada()).await.unwrap();
    assert_eq!(world.share(), percent(25.0));
}

#[tokio::test]
async fn a_verdict_lets_it_go_on_holds_it_or_takes_it_back() {
    let judge = Arc::new(Says::default());
    let says = |outcome| *judge.outcome.lock().unwrap() = outcome;
    let mut world = World::new().await;
    world.releases = world.releases.judged_by(Arc::clone(&judge) as Arc<dyn Judge>);
    world.start(steps().asking_every(SignedDuration::from_mins(10))).await;
    world.clock.advance(hours(1));
    let advanced = world.advance().await;
    assert_eq!(advanced.happened, []);
    assert_eq!(advanced.troubles, ["cannot judge the release of flag `checkout`: the metrics are away"]);
    assert_eq!(advanced.next_wake, Some(world.clock.now() + SignedDuration::from_mins(10)));
    says(Some(Outcome::Inconclusive));
    assert_eq!(world.advance().await.happened, []);
    says(Some(Outcome::Pass));
    assert_eq!(world.advance().await.happened.len(), 1);
    let asked = judge.asked.lock().unwrap().last().cloned().unwrap();
    assert_eq!((asked.step, asked.percent, asked.since), (1, percent(25.0), world.clock.now()));
    says(Some(Outcome::Fail));
    assert_eq!(world.advance().await.happened.len(), 1, "a failure does not wait for the step's end");
    assert_eq!(world.share(), Percent::NONE);
    let last = world.releases.history(&checkout()).await.unwrap().pop().unwrap();
    assert_eq!(
        last.verdict.map(|verdict| verdict.to_string()).as_deref(),
        Some("fail (errors: as the test wants it)")
    );
}

#[tokio::test]
async fn nothing_automatic_gives_back_what_a_hand_took() {
    let judge = Arc::new(Says::default());
    *judge.outcome.lock().unwrap() = Some(Outcome::Fail);
    let (here, flag) = (production(), checkout());
    let hand = async |world: &World, to: f64| match to {
        0.0 => world.flags().switch_off(&here, &flag, &ada()).await.unwrap(),
        to => world.flags().set_rollout(&here, &flag, percent(to), &ada()).await.unwrap(),
    };
    for (lowered, expected) in [(0.0, 0.0), (5.0, 5.0), (15.0, 10.0)] {
        for by_verdict in [true, false] {
            let mut world = World::new().await;
            hand(&world, 10.0).await;
            let day = world.begin + hours(24);
            let steps = if by_verdict { steps().by_verdict() } else { steps() };
            world.start(steps.ending_with(day, Fallout::Restore)).await;
            world.flags().set_rollout(&here, &flag, percent(25.0), &ada()).await.unwrap();
            hand(&world, lowered).await;
            world.clock.advance(hours(if by_verdict { 1 } else { 24 }));
            world.releases = world.releases.clone().judged_by(Arc::clone(&judge) as Arc<dyn Judge>);
            let happened = world.advance().await.happened;
            assert!(matches!(happened[..], [(_, _, Happened::Stopped { .. })]), "{happened:?}");
            assert_eq!(world.share(), percent(expected), "{lowered} {by_verdict}");
        }
    }
}

#[tokio::test]
async fn a_release_that_is_over_before_it_begins_takes_nothing_from_anybody() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    world.flags().set_rollout(&here, &flag, percent(10.0), &ada()).await.unwrap();
    world.clock.advance(hours(5));
    let refused =
        async |steps: Steps| world.releases.start(&here, &flag, steps, &ada()).await.unwrap_err().to_string();
    let told = [
        refused(steps().ending(world.begin + hours(5))).await,
        refused(steps().starting(world.begin + hours(9)).ending(world.begin + hours(9))).await,
    ];
    insta::assert_snapshot!(told.join("\n"), @r"
    the release ends at 2026-01-01T05:00:00Z, and it is 2026-01-01T05:00:00Z; let it end later, or none begins
    the release ends at 2026-01-01T09:00:00Z, and does not start before 2026-01-01T09:00:00Z; let it end later
    ");
    assert_eq!(world.share(), percent(10.0));
}

#[tokio::test]
async fn the_last_thing_that_it_did_can_be_taken_back() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    let undo = async || world.releases.undo(&here, &flag, &ada()).await;
    assert!(!undo().await.unwrap());
    world.start(steps()).await;
    world.clock.advance(hours(1));
    world.advance().await;
    assert!(undo().await.unwrap());
    assert_eq!((world.share(), world.advance().await), (percent(1.0), Advanced::default()));
    assert!(undo().await.unwrap());
    assert_eq!(world.share(), Percent::NONE);
    assert!(undo().await.unwrap());
    assert!(world.releases.get(&here, &flag).await.unwrap().is_none(), "its start was undone");
    assert!(!undo().await.unwrap());
    assert!(world.flags().undo(&flag, &ada()).await.unwrap(), "what the release did counts as undone");
    assert!(world.flags().definition(&flag).is_none());

    let world = World::new().await;
    world.start(steps()).await;
    world.releases.abort(&here, &flag, Fallout::Restore, &ada()).await.unwrap();
    assert!(world.releases.undo(&here, &flag, &ada()).await.unwrap());
    assert_eq!(world.share(), percent(1.0));
    world.flags().set_rollout(&here, &flag, percent(2.0), &ada()).await.unwrap();
    let moved = world.releases.undo(&here, &flag, &ada()).await.unwrap_err();
    assert!(matches!(moved, ReleaseError::Moved { .. }));
    world.releases.resume(&here, &flag, &ada()).await.unwrap();
    assert_eq!(world.run().await.len(), 3);
}

#[tokio::test]
async fn bad_requests_are_typed_errors() {
    let world = World::new().await;
    let (here, flag) = (production(), checkout());
    let nobody = FlagKey::new("nobody").unwrap();
    world.start(steps()).await;
    let told = [
        world.releases.start(&here, &flag, steps(), &Author::new("grace", "me too")).await.unwrap_err(),
        world.releases.start(&here, &nobody, steps(), &ada()).await.unwrap_err(),
        world.releases.pause(Place::Everywhere, &flag, &ada()).await.unwrap_err(),
    ];
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    a release of flag `checkout` in `production` is under way, started by ada; abort it first
    there is no flag `nobody`; define it first
    no release of flag `checkout` everywhere is under way
    ");
}

#[tokio::test]
async fn a_release_goes_with_its_scope_and_with_its_flag() {
    let world = World::new().await;
    world.start(steps()).await;
    world.flags().close_scope(&production(), &ada()).await.unwrap();
    assert_eq!(world.releases.list().await.unwrap().len(), 0);
    world.start(steps()).await;
    world.flags().remove(&checkout(), &ada()).await.unwrap();
    assert_eq!((world.releases.list().await.unwrap().len(), world.advance().await), (0, Advanced::default()));
    // One that another version left behind.
    let store = &world.flags().shared.store;
    let steps = serde_json::to_value(steps()).unwrap();
    let release = serde_json::json!({"steps": steps, "progress": {}, "by": "ada", "reason": "left"});
    let batch = flowline_core::store::Batch::new();
    store.commit(batch.put(record::key(&Place::Everywhere, &checkout()).unwrap(), release)).await.unwrap();
    assert_eq!((world.advance().await, world.releases.list().await.unwrap().len()), (Advanced::default(), 0));
    let told = world.told().await;
    let over: Vec<_> = told.lines().filter(|line| line.contains("over")).collect();
    insta::assert_snapshot!(over.join("\n"), @r"
    over, as its scope was closed; nobody has it (it is ready)
    over, as its flag was removed; nobody has it (it is ready)
    over, as its flag was removed; nobody has it (its flag is not defined)
    ");
}

#[test]
fn several_processes_do_each_step_once() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::default();
    let world = block_on(World::over(Arc::clone(&store), clock.clone()));
    let others: Vec<_> =
        (0..3).map(|_| block_on(World::over(Arc::clone(&store), clock.clone())).releases).collect();
    block_on(world.start(steps()));
    for _ in 0..12 {
        world.clock.advance(hours(1));
        let happened: usize = thread::scope(|scope| {
            let advance = |releases: &Releases| block_on(releases.advance()).unwrap().happened.len();
            let all: Vec<_> = others.iter().map(|releases| scope.spawn(move || advance(releases))).collect();
            all.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert!(happened <= 1, "{happened}");
    }
    let told = block_on(world.told());
    assert_eq!(told.lines().count(), 5, "{told}");
}

#[tokio::test]
async fn it_runs_by_itself() {
    let world = World::new().await;
    world.start(steps()).await;
    let running = tokio::spawn({
        let releases = world.releases.clone();
        async move { releases.run().await }
    });
    for _ in 0..10_000 {
        if let Some(wake) = world.clock.next_sleeper().filter(|wake| *wake < Timestamp::MAX) {
            world.clock.set(wake);
        }
        tokio::task::yield_now().await;
        if world.releases.list().await.unwrap().is_empty() {
            break;
        }
    }
    assert_eq!(world.told().await.lines().count(), 5);
    running.abort();
}

#[test]
fn a_crash_at_any_commit_changes_nothing_about_the_end() {
    let story = async |world: &World| {
        if world.releases.get(&production(), &checkout()).await.unwrap().is_none()
            && world.told().await.is_empty()
        {
            world.start(steps()).await;
        }
        world.run().await;
        world.told().await
    };
    let counting = FaultyStore::new(Arc::new(MemoryStore::new()));
    let expected = block_on(async {
        let world = World::over(Arc::new(counting.clone()), ManualClock::default()).await;
        story(&world).await
    });
    for at in 2..=counting.commits() {
        for when in When::BOTH {
            let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let clock = ManualClock::default();
            let faulty = FaultyStore::new(Arc::clone(&inner)).with(at, Fault::Crash(when));
            block_on(async {
                let world = World::over(Arc::new(faulty.clone()), clock.clone()).await;
                race(story(&world), faulty.crashed()).await;
            });
            let told = block_on(async { story(&World::over(inner, clock).await).await });
            assert_eq!(told, expected, "a crash {when:?} commit {at}");
        }
    }
}

/// What may happen to a release.
#[derive(Debug, Clone)]
enum Act {
    Wait(i64),
    Advance,
    Pause,
    Resume,
    Kill,
    Revive,
    Raise(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (1_i64..90).prop_map(Act::Wait),
        4 => Just(Act::Advance),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
        1 => Just(Act::Kill),
        1 => Just(Act::Revive),
        1 => (0_u8..=100).prop_map(Act::Raise),
    ];
    proptest::collection::vec(act, 1..40)
}

fn rising() -> impl Strategy<Value = Steps> {
    proptest::collection::vec((0_u32..=100_000, 0_i64..120), 1..6).prop_map(|mut steps| {
        steps.sort_unstable_by_key(|(share, _)| *share);
        let step = |(share, minutes): (u32, i64)| {
            (percent(f64::from(share) / 1_000.0), SignedDuration::from_mins(minutes))
        };
        Steps::new(steps.into_iter().map(step)).unwrap()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, in whatever order: nobody who has it loses it, but by the kill switch, and nobody has it while that is pulled.
    #[test]
    fn nobody_is_thrown_out_on_the_way(steps in rising(), acts in acts()) {
        block_on(async {
            let (world, here, flag) = (World::new().await, production(), checkout());
            world.start(steps).await;
            let (mut killed, mut most) = (false, world.who());
            for act in acts {
                match act {
                    Act::Wait(minutes) => world.clock.advance(SignedDuration::from_mins(minutes)),
                    Act::Advance => drop(world.advance().await),
                    // Refused while it is killed, or once it is over.
                    Act::Pause => drop(world.releases.pause(&here, &flag, &ada()).await),
                    Act::Resume => drop(world.releases.resume(&here, &flag, &ada()).await),
                    Act::Kill => {
                        world.flags().kill(&here, &flag, &ada()).await.unwrap();
                        killed = true;
                    }
                    Act::Revive => {
                        world.flags().revive(&here, &flag, &ada()).await.unwrap();
                        killed = false;
                    }
                    Act::Raise(to) => {
                        let share = world.flags().said(&here, &flag).rollout.unwrap_or(Percent::NONE);
                        let to = percent(f64::from(to)).max(share);
                        world.flags().set_rollout(&here, &flag, to, &ada()).await.unwrap();
                    }
                }
                let who = world.who();
                if killed {
                    prop_assert!(who.is_empty());
                } else {
                    prop_assert!(most.is_subset(&who), "{:?} lost it", most.difference(&who).next());
                    most = who;
                }
            }
            // Left alone and revived, it comes to its end.
            world.flags().revive(&here, &flag, &ada()).await.unwrap();
            drop(world.releases.resume(&here, &flag, &ada()).await);
            world.run().await;
            prop_assert!(world.releases.list().await.unwrap().is_empty());
            prop_assert!(most.is_subset(&world.who()));
            Ok(())
        })?;
    }
}
