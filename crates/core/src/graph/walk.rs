//! How a graph is run: bounded and concurrent, each node after its dependencies, with an explicit policy for failures and for stopping.
//!
//! It brings no runtime: the walk is one future that polls the nodes' futures, on whichever executor polls it. A node's future is polled as
//! soon as it is made, so one that is done at once costs neither a task nor an allocation; only pending ones are parked. Futures need not be
//! `Send`; the walk is, if they are.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    num::NonZeroUsize,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use petgraph::Direction;

use super::{
    Graph, Node,
    ready::{ReadyQueue, SlotWaker},
};

/// How a graph is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WalkOptions {
    /// How many nodes may run at once.
    pub limit: NonZeroUsize,
    /// In which direction.
    pub order: Order,
    /// What a failed node means for others.
    pub policy: Policy,
    /// What becomes of running nodes when the walk is told to stop.
    pub on_stop: Running,
}

/// The direction of a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Each node after its dependencies: to make.
    #[default]
    Forward,
    /// Each node after its dependents: to undo, to destroy.
    Reverse,
}

/// What a failed node means for others. What waits for it is never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Nothing new is started; running nodes are treated as said.
    FailFast(Running),
    /// Only what waits for it, directly or not, is skipped.
    ContinueIndependent,
}

/// What becomes of running nodes when no more are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Running {
    /// They run to their end.
    #[default]
    Finish,
    /// Their futures are dropped where they stand.
    Drop,
}

impl WalkOptions {
    /// At most `limit` nodes at once (0 counts as 1), forward; a failure starts nothing new and lets running nodes finish, and so does
    /// being told to stop.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN),
            order: Order::Forward,
            policy: Policy::FailFast(Running::Finish),
            on_stop: Running::Finish,
        }
    }

    /// In another direction.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// With another policy for failures.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// With another end for running nodes when the walk is told to stop.
    #[must_use]
    pub fn on_stop(mut self, running: Running) -> Self {
        self.on_stop = running;
        self
    }
}

/// What became of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<K, T, E> {
    /// It ran, with this result.
    Done(T),
    /// It ran, and failed.
    Failed(E),
    /// It waits for a node that failed, directly or not, so it was not started.
    Skipped {
        /// The node that failed; if several did, the first.
        because: K,
    },
    /// It did not wait for a failed node, but the walk ended before its turn.
    NotStarted(Halt<K>),
    /// It had been started, and was dropped before its end.
    Interrupted(Halt<K>),
}

impl<K, T, E> Outcome<K, T, E> {
    /// Whether it ran well.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Why a walk started nothing more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt<K> {
    /// It was told to stop.
    Stopped,
    /// This node failed, and the policy is [`Policy::FailFast`].
    Failed(K),
}

/// What became of every node.
#[must_use]
pub struct Walked<'g, K, N, T, E> {
    graph: &'g Graph<K, N>,
    outcomes: Vec<Outcome<K, T, E>>,
}

impl<'g, K, N, T, E> Walked<'g, K, N, T, E> {
    /// Every node with its outcome, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'g K, &Outcome<K, T, E>)> {
        self.graph.nodes.iter().map(|(key, _)| key).zip(&self.outcomes)
    }

    /// The outcome of `key`; `None` if the graph does not have it.
    pub fn outcome(&self, key: &K) -> Option<&Outcome<K, T, E>>
    where
        K: Ord,
    {
        self.graph.place(key).map(|place| &self.outcomes[place])
    }

    /// Whether every node ran well.
    pub fn all_done(&self) -> bool {
        self.outcomes.iter().all(Outcome::is_done)
    }

    /// The nodes that failed, with their errors, by key.
    pub fn failures(&self) -> impl Iterator<Item = (&'g K, &E)> {
        self.iter().filter_map(|(key, outcome)| match outcome {
            Outcome::Failed(error) => Some((key, error)),
            _ => None,
        })
    }
}

impl<'g, K, N, T, E> IntoIterator for Walked<'g, K, N, T, E> {
    type Item = (&'g K, Outcome<K, T, E>);
    type IntoIter = std::iter::Zip<Keys<'g, K, N>, std::vec::IntoIter<Outcome<K, T, E>>>;

    fn into_iter(self) -> Self::IntoIter {
        let key: fn(&'g (K, N)) -> &'g K = |(key, _)| key;
        self.graph.nodes.iter().map(key).zip(self.outcomes)
    }
}

/// The keys of a graph, in order.
type Keys<'g, K, N> = std::iter::Map<std::slice::Iter<'g, (K, N)>, fn(&'g (K, N)) -> &'g K>;

impl<K: fmt::Debug, N, T: fmt::Debug, E: fmt::Debug> fmt::Debug for Walked<'_, K, N, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K: Clone, N> Graph<K, N> {
    /// Runs `work` for every node, each after those it waits for, at most `limit` at once.
    ///
    /// Among nodes that are ready, those come first that stand first in [`Graph::order`] (last, in reverse). Dropping the walk drops the
    /// running nodes' futures.
    ///
    /// ```
    /// use flowline_core::graph::{Graph, Outcome, Policy, WalkOptions};
    /// # fn block_on<F: Future>(future: F) -> F::Output {
    /// #     let mut future = std::pin::pin!(future);
    /// #     let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    /// #     loop { if let std::task::Poll::Ready(ready) = future.as_mut().poll(&mut context) { return ready; } }
    /// # }
    /// let graph = Graph::<&str>::builder().implied_edges([("database", "api"), ("api", "web")]).node("docs", ()).finish()?;
    /// let options = WalkOptions::new(2).policy(Policy::ContinueIndependent);
    /// let walked = block_on(graph.walk(options, |node| {
    ///     let key = *node.key;
    ///     async move { if key == "api" { Err("no space left") } else { Ok(()) } }
    /// }));
    /// assert_eq!(walked.outcome(&"docs"), Some(&Outcome::Done(())));
    /// assert_eq!(walked.outcome(&"web"), Some(&Outcome::Skipped { because: "api" }));
    /// # Ok::<(), flowline_core::graph::GraphError<&str>>(())
    /// ```
    pub async fn walk<'g, T, E, F>(
        &'g self,
        options: WalkOptions,
        work: impl FnMut(Node<'g, K, N>) -> F,
    ) -> Walked<'g, K, N, T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.walk_until(options, std::future::pending(), |_| 0, work).await
    }

    /// The same, until `stop` is done: then nothing new is started, and running nodes end as [`WalkOptions::on_stop`] says. Among nodes that
    /// are ready, those with the greatest `priority` come first.
    pub async fn walk_until<'g, T, E, F>(
        &'g self,
        options: WalkOptions,
        stop: impl Future<Output = ()>,
        priority: impl Fn(Node<'g, K, N>) -> i64,
        mut work: impl FnMut(Node<'g, K, N>) -> F,
    ) -> Walked<'g, K, N, T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut walk = Walk::new(self, options, priority);
        let mut stop = pin!(stop);
        std::future::poll_fn(|context| walk.poll(context, stop.as_mut(), &mut work)).await;
        walk.finish()
    }
}

/// A walk on its way.
struct Walk<'g, K, N, T, E, F> {
    graph: &'g Graph<K, N>,
    options: WalkOptions,
    /// How many nodes each node still waits for.
    waits: Vec<usize>,
    /// The place in the order of starting, by node; and the node, by place.
    rank: Vec<usize>,
    ranked: Vec<usize>,
    /// The ranks of the nodes that wait for nothing any more.
    ready: BinaryHeap<Reverse<usize>>,
    outcomes: Vec<Option<Outcome<K, T, E>>>,
    slots: Vec<Slot<F>>,
    free: Vec<usize>,
    queue: Arc<ReadyQueue>,
    halt: Option<Halt<K>>,
    stopped: bool,
}

/// A place for a running future, used again and again.
struct Slot<F> {
    future: Pin<Box<Option<F>>>,
    node: usize,
    wakes: Arc<SlotWaker>,
    waker: Waker,
}

impl<'g, K: Clone, N, T, E, F> Walk<'g, K, N, T, E, F>
where
    F: Future<Output = Result<T, E>>,
{
    fn new(graph: &'g Graph<K, N>, options: WalkOptions, priority: impl Fn(Node<'g, K, N>) -> i64) -> Self {
        let count = graph.len();
        let before = match options.order {
            Order::Forward => Direction::Incoming,
            Order::Reverse => Direction::Outgoing,
        };
        let mut ranked = graph.order.clone();
        if options.order == Order::Reverse {
            ranked.reverse();
        }
        ranked.sort_by_cached_key(|place| {
            let (key, value) = &graph.nodes[*place];
            Reverse(priority(Node { key, value }))
        });
        let mut rank = vec![0; count];
        for (at, place) in ranked.iter().enumerate() {
            rank[*place] = at;
        }
        let waits: Vec<usize> = (0..count).map(|place| graph.next(place, before).count()).collect();
        let ready =
            ranked.iter().enumerate().filter(|(_, place)| waits[**place] == 0).map(|(at, _)| Reverse(at));
        Self {
            ready: ready.collect(),
            graph,
            options,
            waits,
            rank,
            ranked,
            outcomes: std::iter::repeat_with(|| None).take(count).collect(),
            slots: Vec::new(),
            free: Vec::new(),
            queue: Arc::default(),
            halt: None,
            stopped: false,
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
        work: &mut impl FnMut(Node<'g, K, N>) -> F,
    ) -> Poll<()> {
        for slot in self.queue.take(context.waker()) {
            self.slots[slot].wakes.taken();
            self.poll_slot(slot);
        }
        loop {
            if !self.stopped && stop.as_mut().poll(context).is_ready() {
                self.stopped = true;
                self.halt(Halt::Stopped, self.options.on_stop);
            }
            let running = self.slots.len() - self.free.len();
            if self.halt.is_some() || running >= self.options.limit.get() {
                break;
            }
            let Some(Reverse(rank)) = self.ready.pop() else { break };
            self.start(self.ranked[rank], work);
        }
        if self.slots.len() == self.free.len() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn start(&mut self, node: usize, work: &mut impl FnMut(Node<'g, K, N>) -> F) {
        let (key, value) = &self.graph.nodes[node];
        let future = work(Node { key, value });
        let slot = self.free.pop().unwrap_or_else(|| {
            let wakes = SlotWaker::new(self.slots.len(), Arc::clone(&self.queue));
            let waker = Waker::from(Arc::clone(&wakes));
            self.slots.push(Slot { future: Box::pin(None), node, wakes, waker });
            self.slots.len() - 1
        });
        self.slots[slot].node = node;
        self.slots[slot].future.set(Some(future));
        self.poll_slot(slot);
    }

    fn poll_slot(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        // A waker may outlive its future; then nobody is here.
        let Some(future) = slot.future.as_mut().as_pin_mut() else { return };
        let Poll::Ready(result) = future.poll(&mut Context::from_waker(&slot.waker)) else { return };
        slot.future.set(None);
        let node = slot.node;
        self.free.push(at);
        match result {
            Ok(value) => {
                self.outcomes[node] = Some(Outcome::Done(value));
                for next in self.graph.next(node, self.after()) {
                    self.waits[next] -= 1;
                    if self.waits[next] == 0 && self.outcomes[next].is_none() {
                        self.ready.push(Reverse(self.rank[next]));
                    }
                }
            }
            Err(error) => {
                self.outcomes[node] = Some(Outcome::Failed(error));
                self.skip_after(node);
                if let Policy::FailFast(running) = self.options.policy {
                    self.halt(Halt::Failed(self.graph.nodes[node].0.clone()), running);
                }
            }
        }
    }

    /// What waits for `failed` can't have been started; all of it is skipped, unless an earlier failure did that.
    fn skip_after(&mut self, failed: usize) {
        let mut open = vec![failed];
        while let Some(node) = open.pop() {
            for next in self.graph.next(node, self.after()) {
                if self.outcomes[next].is_none() {
                    let because = self.graph.nodes[failed].0.clone();
                    self.outcomes[next] = Some(Outcome::Skipped { because });
                    open.push(next);
                }
            }
        }
    }

    /// Starts nothing more. The first reason is kept.
    fn halt(&mut self, reason: Halt<K>, running: Running) {
        if running == Running::Drop {
            for (at, slot) in self.slots.iter_mut().enumerate() {
                if slot.future.is_some() {
                    slot.future.set(None);
                    self.outcomes[slot.node] = Some(Outcome::Interrupted(reason.clone()));
                    self.free.push(at);
                }
            }
        }
        self.halt.get_or_insert(reason);
    }

    fn after(&self) -> Direction {
        match self.options.order {
            Order::Forward => Direction::Outgoing,
            Order::Reverse => Direction::Incoming,
        }
    }

    fn finish(self) -> Walked<'g, K, N, T, E> {
        // Without a halt every node was started or skipped; the fallback keeps this total.
        let halt = self.halt.unwrap_or(Halt::Stopped);
        let outcomes = self.outcomes.into_iter();
        let outcomes = outcomes.map(|outcome| outcome.unwrap_or_else(|| Outcome::NotStarted(halt.clone())));
        Walked { graph: self.graph, outcomes: outcomes.collect() }
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
