use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use proptest::prelude::*;

use super::*;
use crate::graph::Graph;

type Key = u8;
type Result<T = ()> = std::result::Result<T, String>;

fn graph(edges: &[(Key, Key)]) -> Graph<Key> {
    Graph::builder().implied_edges(edges.iter().copied()).finish().unwrap()
}

/// Polls with a waker that does nothing, as long as something moves; the futures of these tests need no more.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
    panic!("the walk does not end");
}

/// Pending `turns` times, waking itself each time.
async fn turns(mut turns: u32) {
    std::future::poll_fn(|context| {
        if turns == 0 {
            return Poll::Ready(());
        }
        turns -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// How a walk is told of each node: after how many turns, and whether it fails.
fn plan(fails: &[Key]) -> impl Fn(Key) -> (u32, bool) {
    let fails: BTreeSet<Key> = fails.iter().copied().collect();
    move |key| (u32::from(key % 3), fails.contains(&key))
}

fn walked(edges: &[(Key, Key)], options: WalkOptions, fails: &[Key]) -> String {
    let plan = plan(fails);
    let graph = graph(edges);
    let walked = run(graph.walk(options, |node| {
        let (wait, fails) = plan(*node.key);
        async move {
            turns(wait).await;
            if fails { Err("broken") } else { Ok(()) }
        }
    }));
    let lines: Vec<String> = walked.iter().map(|(key, outcome)| format!("{key}: {outcome:?}")).collect();
    lines.join("\n")
}

const TWO_WAYS: [(Key, Key); 5] = [(1, 2), (2, 3), (4, 5), (5, 6), (6, 7)];

#[test]
fn a_failure_skips_what_waits_for_it_and_nothing_else() {
    let options = WalkOptions::new(4).policy(Policy::ContinueIndependent);
    insta::assert_snapshot!(walked(&TWO_WAYS, options, &[2]), @r#"
    1: Done(())
    2: Failed("broken")
    3: Skipped { because: 2 }
    4: Done(())
    5: Done(())
    6: Done(())
    7: Done(())
    "#);
}

#[test]
fn failing_fast_starts_nothing_new_and_lets_running_nodes_finish() {
    insta::assert_snapshot!(walked(&TWO_WAYS, WalkOptions::new(4), &[1]), @r#"
    1: Failed("broken")
    2: Skipped { because: 1 }
    3: Skipped { because: 1 }
    4: Done(())
    5: NotStarted(Failed(1))
    6: NotStarted(Failed(1))
    7: NotStarted(Failed(1))
    "#);
}

#[test]
fn failing_fast_can_drop_running_nodes() {
    let options = WalkOptions::new(4).policy(Policy::FailFast(Running::Drop));
    insta::assert_snapshot!(walked(&[(0, 3), (1, 4), (2, 5), (5, 6)], options, &[0]), @r#"
    0: Failed("broken")
    1: NotStarted(Failed(0))
    2: NotStarted(Failed(0))
    3: Skipped { because: 0 }
    4: NotStarted(Failed(0))
    5: NotStarted(Failed(0))
    6: NotStarted(Failed(0))
    "#);
    insta::assert_snapshot!(walked(&[(1, 3), (2, 5), (5, 6)], options, &[1]), @r#"
    1: Failed("broken")
    2: Interrupted(Failed(1))
    3: Skipped { because: 1 }
    5: NotStarted(Failed(1))
    6: NotStarted(Failed(1))
    "#);
}

#[test]
fn in_reverse_dependents_come_first() {
    let options = WalkOptions::new(1).order(Order::Reverse);
    let order = RefCell::new(Vec::new());
    let graph = graph(&TWO_WAYS);
    let undone = run(graph.walk(options, |node| {
        order.borrow_mut().push(*node.key);
        async { Result::Ok(()) }
    }));
    assert!(undone.all_done());
    assert_eq!(*order.borrow(), [7, 6, 5, 4, 3, 2, 1]);
    let options = options.policy(Policy::ContinueIndependent);
    insta::assert_snapshot!(walked(&TWO_WAYS, options, &[6]), @r#"
    1: Done(())
    2: Done(())
    3: Done(())
    4: Skipped { because: 6 }
    5: Skipped { because: 6 }
    6: Failed("broken")
    7: Done(())
    "#);
}

#[test]
fn priorities_choose_among_ready_nodes() {
    let order = RefCell::new(Vec::new());
    let graph = graph(&[(0, 9), (1, 9), (2, 9), (3, 8)]);
    let priority = |node: Node<'_, Key, ()>| i64::from(*node.key == 2) * 2 + i64::from(*node.key == 3);
    let walked = run(graph.walk_until(WalkOptions::new(1), std::future::pending(), priority, |node| {
        order.borrow_mut().push(*node.key);
        async { Result::Ok(()) }
    }));
    assert!(walked.all_done());
    assert_eq!(*order.borrow(), [2, 3, 0, 1, 8, 9]);
}

#[test]
fn told_to_stop_it_starts_nothing_new() {
    for (on_stop, expected) in [(Running::Finish, "Done(())"), (Running::Drop, "Interrupted(Stopped)")] {
        let started = Cell::new(0);
        let stop = std::future::poll_fn(|_| if started.get() == 2 { Poll::Ready(()) } else { Poll::Pending });
        let graph = graph(&TWO_WAYS);
        let options = WalkOptions::new(8).on_stop(on_stop);
        let walked = run(graph.walk_until(
            options,
            stop,
            |_| 0,
            |_| {
                started.set(started.get() + 1);
                async {
                    turns(3).await;
                    Result::Ok(())
                }
            },
        ));
        let of = |key: Key| format!("{:?}", walked.outcome(&key).unwrap());
        assert_eq!((of(1).as_str(), of(4).as_str()), (expected, expected));
        assert_eq!((of(2).as_str(), of(7).as_str()), ("NotStarted(Stopped)", "NotStarted(Stopped)"));
        assert_eq!(started.get(), 2);
    }
}

#[test]
fn a_node_that_wakes_itself_does_not_keep_the_thread() {
    let graph = graph(&[(1, 2)]);
    let mut walk = pin!(graph.walk(WalkOptions::new(2), |_| async {
        turns(u32::MAX).await;
        Result::Ok(())
    }));
    // Each poll of the walk returns, although the node is ready to be polled again at once.
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10 {
        assert!(walk.as_mut().poll(&mut context).is_pending());
    }
}

#[test]
fn an_empty_graph_is_done_at_once() {
    let graph = Graph::<Key>::builder().finish().unwrap();
    let walked = run(graph.walk(WalkOptions::new(0), |_| async { Result::Ok(()) }));
    assert!(walked.all_done() && walked.iter().len() == 0);
}

#[test]
fn nodes_may_wait_for_each_other_within_the_limit() {
    // Three nodes that only end once all three have been started: the limit is really used.
    let started = Rc::new(Cell::new(0));
    let graph = graph(&[(1, 9), (2, 9), (3, 9)]);
    let walked = run(graph.walk(WalkOptions::new(3), |node| {
        let started = Rc::clone(&started);
        let key = *node.key;
        async move {
            started.set(started.get() + 1);
            while key < 9 && started.get() < 3 {
                turns(1).await;
            }
            Result::Ok(())
        }
    }));
    assert!(walked.all_done());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes_from_other_threads_are_not_lost() {
    let graph = graph(&[(1, 5), (2, 5), (3, 6), (4, 6), (5, 7), (6, 7)]);
    for _ in 0..50 {
        let walked = graph
            .walk(WalkOptions::new(4), |node| {
                let key = *node.key;
                let task = tokio::spawn(async move {
                    for _ in 0..key {
                        tokio::task::yield_now().await;
                    }
                });
                async move { task.await.map_err(|error| error.to_string()) }
            })
            .await;
        assert!(walked.all_done());
    }
}

#[test]
fn the_walk_is_send_if_its_nodes_are() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let graph = graph(&[(1, 2)]);
    let walked = run(sent(graph.walk(WalkOptions::new(1), |_| async { Result::Ok(()) })));
    assert!(walked.all_done());
}

proptest! {
    #[test]
    fn every_walk_keeps_its_promises(
        edges in prop::collection::vec((0u8..15, 1u8..15), 0..40),
        fails in prop::collection::vec(0u8..30, 0..4),
        limit in 1usize..6,
        reverse in any::<bool>(),
        policy in prop::sample::select(vec![Policy::FailFast(Running::Finish), Policy::FailFast(Running::Drop), Policy::ContinueIndependent]),
    ) {
        let edges: Vec<_> = edges.into_iter().map(|(from, by)| (from, from + by)).collect();
        let graph = graph(&edges);
        let order = if reverse { Order::Reverse } else { Order::Forward };
        let options = WalkOptions::new(limit).order(order).policy(policy);
        let plan = plan(&fails);
        let (running, most, ended) = (Cell::new(0usize), Cell::new(0usize), RefCell::new(BTreeMap::new()));
        let clock = Cell::new(0u32);
        let tick = || { clock.set(clock.get() + 1); clock.get() };
        let begun = RefCell::new(BTreeMap::new());
        let walked = run(graph.walk(options, |node| {
            let key = *node.key;
            begun.borrow_mut().insert(key, tick());
            let (wait, fails) = plan(key);
            running.set(running.get() + 1);
            most.set(most.get().max(running.get()));
            let (running, ended, tick) = (&running, &ended, &tick);
            async move {
                turns(wait).await;
                running.set(running.get() - 1);
                ended.borrow_mut().insert(key, tick());
                if fails { Err(key) } else { Ok(key) }
            }
        }));
        prop_assert!(most.get() <= limit);
        let before = |key: &Key| -> BTreeSet<Key> {
            if reverse { graph.downstream(key).into_iter().copied().collect() } else { graph.upstream(key).into_iter().copied().collect() }
        };
        for (key, outcome) in walked.iter() {
            let failed_before: BTreeSet<Key> =
                walked.failures().map(|(key, _)| *key).filter(|failed| before(key).contains(failed)).collect();
            match outcome {
                Outcome::Done(_) | Outcome::Failed(_) | Outcome::Interrupted(_) => {
                    prop_assert!(failed_before.is_empty());
                    for earlier in before(key) {
                        prop_assert!(ended.borrow()[&earlier] < begun.borrow()[key], "{earlier} ends before {key} begins");
                    }
                    prop_assert_eq!(matches!(outcome, Outcome::Interrupted(_)), !ended.borrow().contains_key(key));
                    if let Outcome::Interrupted(_) = outcome {
                        prop_assert_eq!(policy, Policy::FailFast(Running::Drop));
                    }
                }
                Outcome::Skipped { because } => {
                    prop_assert!(failed_before.contains(because) && !begun.borrow().contains_key(key));
                }
                Outcome::NotStarted(halt) => {
                    prop_assert!(failed_before.is_empty() && !begun.borrow().contains_key(key));
                    prop_assert!(matches!(halt, Halt::Failed(_)) && policy != Policy::ContinueIndependent);
                }
            }
        }
    }
}
