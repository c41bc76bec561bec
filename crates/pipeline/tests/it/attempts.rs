//! How often a step is tried and how long it may take, on a manual clock, also where processes die.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, ManualClock},
    error::ErrorKind,
    store::Store,
    testkit::{Fault, FaultyStore, When},
};
use flowline_pipeline::{
    Cancel,
    plan::{ErrorClass, Limits, Policy, Retry},
    run::{Cause, Ended, OnFailure, Phase},
    step::{Context, FnStep, Happened, StepError},
    testkit::{Trial, crash_matrix},
};

use crate::{
    run::{alone, clock, memory, once, run_id, runner, step},
    world::{Kit, authority},
};

#[tokio::test]
async fn a_failed_step_is_tried_again_after_its_delay() {
    let (mut kit, store) = (Kit::new(), memory());
    let manual = ManualClock::default();
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let step_code = FnStep::idempotent(move |n: u64, _| {
        let before = counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(if before < 2 { Err(StepError::failed("flaky")) } else { Ok(n) })
    });
    kit.registry.function(&kit.fails, step_code);
    let mut policy = Policy::default();
    policy.retry = Some(Retry { only: [ErrorClass::Failed].into(), jitter: 0.0, ..Retry::default() });
    let sealed = kit.sealed(&alone(&kit.fails, policy), &clock).await;
    let runner = runner(&kit, &store, &clock);
    let (run_id, cancel) = (run_id(), Cancel::new());
    let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
    for (seconds, tried) in [(0, 1), (1, 2), (2, 3)] {
        manual.advance(SignedDuration::from_secs(seconds));
        for _ in 0..20 {
            if let std::task::Poll::Ready(report) = once(walk.as_mut()).await {
                assert!(report.unwrap().succeeded());
                assert_eq!(tries.load(Ordering::SeqCst), 3);
                return;
            }
        }
        assert_eq!(tries.load(Ordering::SeqCst), tried);
    }
    panic!("it did not end");
}

#[tokio::test]
async fn limits_end_an_attempt_that_hangs_or_is_silent() {
    for limits in [
        Limits { attempt_ms: Some(500), ..Limits::default() },
        Limits { heartbeat_ms: Some(500), ..Limits::default() },
        Limits { total_ms: Some(500), ..Limits::default() },
    ] {
        let (mut kit, store) = (Kit::new(), memory());
        let manual = ManualClock::default();
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let hangs = FnStep::idempotent(|_: u64, _| std::future::pending::<Result<u64, StepError>>());
        kit.registry.function(&kit.fails, hangs);
        let mut policy = Policy::default();
        policy.limits = limits;
        let sealed = kit.sealed(&alone(&kit.fails, policy), &clock).await;
        let runner = runner(&kit, &store, &clock);
        let (run_id, cancel) = (run_id(), Cancel::new());
        let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
        let mut ended = None;
        for _ in 0..200 {
            if let std::task::Poll::Ready(report) = once(walk.as_mut()).await {
                ended = Some(report.unwrap().ended);
                break;
            }
            manual.advance(SignedDuration::from_millis(300));
        }
        let Some(Ended::Undone { cause: Cause::Failed { error, .. }, .. }) = ended else {
            panic!("{ended:?}")
        };
        assert!(error.contains("500 ms"), "{error}");
    }
}

/// The process dies after any of its commits. Once a failure is recorded, also of a step that was asked to stop, the run is undone.
#[tokio::test]
async fn whoever_goes_on_after_a_failure_undoes_it_and_tries_nothing_again() {
    for cancelled in [false, true] {
        let (mut at, mut after_failure) = (1, 0);
        loop {
            let (mut kit, store, clock) = (Kit::new(), memory(), clock());
            let tries = Arc::new(AtomicUsize::new(0));
            let (cancel, counted) = (Cancel::new(), Arc::clone(&tries));
            let wish = cancel.clone();
            let code = FnStep::idempotent(move |_: u64, _| {
                let stopped = counted.fetch_add(1, Ordering::SeqCst) == 0 && cancelled;
                let wish = wish.clone();
                async move {
                    if stopped {
                        wish.cancel();
                        // The walk hears of it before this attempt ends.
                        tokio::task::yield_now().await;
                    }
                    Err(StepError::failed("no"))
                }
            });
            kit.registry.function(&kit.fails, code);
            let sealed = kit.sealed(&alone(&kit.fails, Policy::default()), &clock).await;
            let faulty = FaultyStore::new(Arc::clone(&store)).with(at, Fault::Crash(When::After));
            let dies: Arc<dyn Store> = Arc::new(faulty.clone());
            let (id, first) = (run_id(), runner(&kit, &dies, &clock));
            if faulty.until_crash(first.run(&id, &sealed, &cancel)).await.is_some() {
                break;
            }
            let second = runner(&kit, &store, &clock);
            let failed = matches!(
                second.state(&id).await.unwrap().step(&step("only")).map(|step| &step.phase),
                Some(Phase::Failed { .. })
            );
            let tried = tries.load(Ordering::SeqCst);
            let report = second.run(&id, &sealed, &Cancel::new()).await.unwrap();
            let Ended::Undone { cause, .. } = &report.ended else { panic!("{at}: {report:?}") };
            if failed {
                after_failure += 1;
                assert_eq!(matches!(cause, Cause::Cancelled), cancelled, "{at}: {cause:?}");
                assert_eq!(tries.load(Ordering::SeqCst), tried, "{at}");
            }
            at += 1;
        }
        assert!(after_failure > 0);
    }
}

/// Walks what has only `step` with `policy`, time passing in steps of 100 ms, and says how it ended and when.
async fn passing_time(step: FnStep<u64, u64>, policy: Policy) -> (Ended, SignedDuration) {
    let (mut kit, store) = (Kit::new(), memory());
    let manual = ManualClock::default();
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    kit.registry.function(&kit.fails, step);
    let sealed = kit.sealed(&alone(&kit.fails, policy), &clock).await;
    let runner = runner(&kit, &store, &clock);
    let (run_id, cancel, began) = (run_id(), Cancel::new(), clock.now());
    let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
    for _ in 0..1_000 {
        for _ in 0..20 {
            if let std::task::Poll::Ready(report) = once(walk.as_mut()).await {
                return (report.unwrap().ended, clock.now().duration_since(began));
            }
        }
        manual.advance(SignedDuration::from_millis(100));
    }
    panic!("it did not end");
}

#[tokio::test]
async fn a_step_that_gives_signs_of_life_outlives_the_limit_between_them() {
    let mut policy = Policy::default();
    policy.limits.heartbeat_ms = Some(500);
    let beating = |beats: bool| {
        FnStep::idempotent(move |n: u64, context: Context| async move {
            for _ in 0..10 {
                context.clock().sleep(SignedDuration::from_millis(300)).await;
                if beats {
                    context.heartbeat();
                }
            }
            Ok(n)
        })
    };
    let (ended, took) = passing_time(beating(true), policy.clone()).await;
    assert_eq!((ended, took), (Ended::Succeeded, SignedDuration::from_secs(3)));
    let (ended, _) = passing_time(beating(false), policy).await;
    let Ended::Undone { cause, .. } = ended else { panic!("{ended:?}") };
    insta::assert_snapshot!(cause, @"step `only` failed: the step gave no sign of life for 500 ms");
}

#[tokio::test]
async fn a_step_that_is_tried_again_and_again_ends_within_its_limit_for_all_attempts() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&tries);
    let flaky = FnStep::idempotent(move |_: u64, context: Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            context.clock().sleep(SignedDuration::from_millis(100)).await;
            Err::<u64, _>(StepError::new(ErrorKind::Unavailable, "the host is away"))
        }
    });
    let mut policy = Policy::default();
    policy.limits = Limits { total_ms: Some(3_000), attempt_ms: Some(500), ..Limits::default() };
    policy.retry =
        Some(Retry { attempts: 1_000, first_ms: 400, factor: 1.0, jitter: 0.0, ..Retry::default() });
    let (ended, took) = passing_time(flaky, policy.clone()).await;
    assert!(matches!(ended, Ended::Undone { .. }), "{ended:?}");
    // An attempt and its delay are half a second.
    assert_eq!(tries.load(Ordering::SeqCst), 6);
    assert!(took <= SignedDuration::from_secs(3), "{took:?}");
    // The last attempt has only what is left.
    let hangs = FnStep::idempotent(|_: u64, _| std::future::pending::<Result<u64, StepError>>());
    policy.limits = Limits { total_ms: Some(1_200), attempt_ms: Some(500), ..Limits::default() };
    policy.retry =
        Some(Retry { attempts: 1_000, first_ms: 100, factor: 1.0, jitter: 0.0, ..Retry::default() });
    let (ended, _) = passing_time(hangs, policy).await;
    let Ended::Undone { cause: Cause::Failed { error, .. }, .. } = ended else { panic!("{ended:?}") };
    assert!(error.contains("longer than"), "{error}");
}

/// A kind of step that never ends; each call is counted.
type Hangs = fn(&Arc<AtomicUsize>) -> FnStep<u64, u64>;

fn hang(starts: &Arc<AtomicUsize>) -> impl Future<Output = Result<u64, StepError>> + Send + use<> {
    starts.fetch_add(1, Ordering::SeqCst);
    std::future::pending()
}

#[tokio::test]
async fn attempts_that_died_with_their_process_count() {
    let kinds: [(&str, Hangs); 3] = [
        ("pure", |starts| {
            let starts = Arc::clone(starts);
            FnStep::pure(move |_: u64, _| hang(&starts))
        }),
        ("idempotent", |starts| {
            let starts = Arc::clone(starts);
            FnStep::idempotent(move |_: u64, _| hang(&starts))
        }),
        ("probed", |starts| {
            let starts = Arc::clone(starts);
            FnStep::probed(move |_: u64, _| hang(&starts), |_: u64, _| async { Ok(Happened::No) })
        }),
    ];
    for (kind, code) in kinds {
        let (mut kit, store, manual) = (Kit::new(), memory(), ManualClock::default());
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let starts = Arc::new(AtomicUsize::new(0));
        kit.registry.function(&kit.fails, code(&starts));
        let mut policy = Policy::default();
        policy.retry = Some(Retry { attempts: 3, ..Retry::default() });
        let sealed = kit.sealed(&alone(&kit.fails, policy), &clock).await;
        // Each process dies in the midst of the step; the next one takes over once the lease has run out.
        let process = async || {
            let runner = runner(&kit, &store, &clock).on_failure(OnFailure::Stop);
            let (run_id, cancel) = (run_id(), Cancel::new());
            let mut walk = std::pin::pin!(runner.run(&run_id, &sealed, &cancel));
            let mut ended = None;
            for _ in 0..50 {
                if let std::task::Poll::Ready(report) = once(walk.as_mut()).await {
                    ended = Some(report.unwrap());
                    break;
                }
            }
            manual.advance(SignedDuration::from_hours(1));
            ended
        };
        for count in 1..=3 {
            assert!(process().await.is_none(), "{kind}");
            assert_eq!(starts.load(Ordering::SeqCst), count, "{kind}");
        }
        let report = process().await.unwrap();
        assert_eq!(starts.load(Ordering::SeqCst), 3, "{kind}");
        let Ended::Stopped { cause } = &report.ended else { panic!("{kind}: {report:?}") };
        assert!(cause.to_string().contains("started 3 times, as often as it may"), "{kind}: {cause}");
        let state = runner(&kit, &store, &clock).state(&run_id()).await.unwrap();
        assert_eq!(state, report.state, "{kind}");
        assert_eq!(state.step(&step("only")).unwrap().tries, 3, "{kind}");
        // Whoever goes on after that has seen it: one more.
        assert!(process().await.is_none(), "{kind}");
        assert_eq!(starts.load(Ordering::SeqCst), 4, "{kind}");
        assert!(process().await.is_some(), "{kind}");
        assert_eq!(starts.load(Ordering::SeqCst), 4, "{kind}");
    }
}

#[tokio::test]
async fn finding_that_it_has_to_wait_uses_up_no_attempt() {
    let (mut kit, store, manual) = (Kit::new(), memory(), ManualClock::default());
    let clock: Arc<dyn Clock> = Arc::new(manual.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let code = FnStep::idempotent(move |n: u64, _| {
        std::future::ready(match counted.fetch_add(1, Ordering::SeqCst) {
            0..4 => Err(StepError::waiting("the moon", None)),
            4 => Err(StepError::new(ErrorKind::Unavailable, "the host is away")),
            _ => Ok(n),
        })
    });
    kit.registry.function(&kit.fails, code);
    let mut policy = Policy::default();
    policy.retry = Some(Retry { attempts: 2, first_ms: 0, ..Retry::default() });
    let sealed = kit.sealed(&alone(&kit.fails, policy), &clock).await;
    for _ in 0..4 {
        let report = runner(&kit, &store, &clock).run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
        assert!(matches!(report.ended, Ended::Waiting { .. }), "{report:?}");
        assert_eq!(report.state.step(&step("only")).unwrap().tries, 0);
    }
    let report = runner(&kit, &store, &clock).run(&run_id(), &sealed, &Cancel::new()).await.unwrap();
    assert!(report.succeeded(), "{report:?}");
    let only = report.state.step(&step("only")).unwrap();
    assert_eq!((only.attempts, only.tries), (6, 2));
    assert_eq!(runner(&kit, &store, &clock).state(&run_id()).await.unwrap(), report.state);
}

#[tokio::test]
async fn killed_anywhere_no_step_begins_more_often_than_it_may() {
    for attempts in 1..=2 {
        let report = crash_matrix(async |clock: Arc<dyn Clock>| {
            let mut kit = Kit::new();
            let starts = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&starts);
            let code = FnStep::idempotent(move |n: u64, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Ok(n))
            });
            kit.registry.function(&kit.fails, code);
            let mut policy = Policy::default();
            policy.retry = Some(Retry { attempts, ..Retry::default() });
            let plan = kit.sealed(&alone(&kit.fails, policy), &clock).await;
            Trial::new(Arc::new(kit.registry), authority(), plan).check(move |ended| {
                let starts = starts.load(Ordering::SeqCst);
                let undone = matches!(ended, Ended::Undone { .. });
                // Killed between the record of its failure and that of undoing, it is as if somebody had resumed the run.
                let allowed = starts <= attempts as usize + 1 && (*ended == Ended::Succeeded || undone);
                if allowed { Ok(()) } else { Err(format!("{ended:?} after {starts} starts")) }
            })
        })
        .await
        .unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!(report.ended, Ended::Succeeded);
    }
}
