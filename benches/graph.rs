//! What walking a graph costs beside the work itself: `cargo bench --bench graph`.
//!
//! 10,000 nodes that do nothing, so that all the time is the walk's own: wide (no edges), layered (50 wide, 3 parents each in the layer
//! before), a chain, and layered with nodes that are pending once. Prints the median of 41 runs in nanoseconds a node; the budget for wide
//! and layered is 1,000.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock, prints, and stops at the first failure"
)]

use std::{
    convert::Infallible,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Instant,
};

use flowline_core::graph::{Graph, WalkOptions};

const NODES: u32 = 10_000;
const WIDTH: u32 = 50;
const RUNS: usize = 41;

fn main() {
    let wide = graph(|_| Vec::new());
    let layered = graph(|node| match node.checked_sub(WIDTH) {
        Some(above) => {
            let layer = above / WIDTH * WIDTH;
            [0, 7, 23].map(|by| layer + (above + by) % WIDTH).to_vec()
        }
        None => Vec::new(),
    });
    let chain = graph(|node| node.checked_sub(1).into_iter().collect());
    for (name, graph) in [("wide", &wide), ("layered", &layered), ("chain", &chain)] {
        report(name, || {
            block_on(graph.walk(WalkOptions::new(16), |_| async { Ok::<_, Infallible>(()) })).all_done()
        });
    }
    report("layered, each node pending once", || {
        block_on(layered.walk(WalkOptions::new(16), |_| async {
            yield_once().await;
            Ok::<_, Infallible>(())
        }))
        .all_done()
    });
}

fn graph(parents: impl Fn(u32) -> Vec<u32>) -> Graph<u32> {
    let nodes = (0..NODES).map(|node| (node, ()));
    let edges = (0..NODES).flat_map(|node| parents(node).into_iter().map(move |parent| (parent, node)));
    Graph::builder().nodes(nodes).edges(edges).finish().expect("edges point forward")
}

fn report(name: &str, walk: impl Fn() -> bool) {
    let mut runs: Vec<u128> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            assert!(walk());
            start.elapsed().as_nanos()
        })
        .collect();
    runs.sort_unstable();
    let [best, median] = [runs[0], runs[RUNS / 2]].map(|nanos| nanos / u128::from(NODES));
    println!("{name:32} {median:5} ns a node (best {best})");
}

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
