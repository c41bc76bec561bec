//! Whether nodes and edges are a graph: every edge's ends exist, no key stands twice, nothing waits for itself.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt,
};

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
};

use super::Graph;
use crate::error::{ErrorKind, Kinded};

/// Collects nodes and edges in any order; [`finish`](Self::finish) checks them.
#[derive(Debug, Clone)]
pub struct GraphBuilder<K, N = ()> {
    nodes: BTreeMap<K, N>,
    edges: BTreeSet<(K, K)>,
    twice: Option<K>,
}

/// Why nodes and edges are not a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GraphError<K> {
    /// Nodes wait for each other in a circle.
    Cycle {
        /// In order, each once: every one comes before the next, and the last before the first. It starts with its smallest key, and no
        /// shorter one goes through that key.
        cycle: Vec<K>,
    },
    /// An edge has an end that is no node.
    Missing {
        /// The key that is no node.
        key: K,
        /// The edge's other end.
        named_by: K,
    },
    /// Two nodes have one key.
    Twice {
        /// The key.
        key: K,
    },
}

impl<K: fmt::Display> fmt::Display for GraphError<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle { cycle } => {
                f.write_str("each waits for the one before it, in a circle: ")?;
                for key in cycle {
                    write!(f, "{key} -> ")?;
                }
                cycle.first().map_or(Ok(()), |first| write!(f, "{first}"))
            }
            Self::Missing { key, named_by } => {
                write!(
                    f,
                    "`{named_by}` is connected to `{key}`, which does not exist; add it, or remove the edge"
                )
            }
            Self::Twice { key } => write!(f, "there are two nodes `{key}`; give one of them another name"),
        }
    }
}

impl<K: fmt::Debug + fmt::Display> std::error::Error for GraphError<K> {}

impl<K: fmt::Debug + fmt::Display> Kinded for GraphError<K> {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl<K: Ord, N> Default for GraphBuilder<K, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord, N> GraphBuilder<K, N> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { nodes: BTreeMap::new(), edges: BTreeSet::new(), twice: None }
    }

    /// Adds a node.
    #[must_use]
    pub fn node(mut self, key: K, value: N) -> Self {
        match self.nodes.entry(key) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(value);
            }
            std::collections::btree_map::Entry::Occupied(entry) => {
                let (key, _) = entry.remove_entry();
                self.twice.get_or_insert(key);
            }
        }
        self
    }

    /// Says that `before` comes before `after`. Saying it again changes nothing.
    #[must_use]
    pub fn edge(mut self, before: K, after: K) -> Self {
        self.edges.insert((before, after));
        self
    }

    /// Adds many nodes.
    #[must_use]
    pub fn nodes(self, nodes: impl IntoIterator<Item = (K, N)>) -> Self {
        nodes.into_iter().fold(self, |builder, (key, value)| builder.node(key, value))
    }

    /// Adds many edges, each as (before, after).
    #[must_use]
    pub fn edges(mut self, edges: impl IntoIterator<Item = (K, K)>) -> Self {
        self.edges.extend(edges);
        self
    }

    /// Adds many edges, and their ends as nodes where these are new.
    #[must_use]
    pub fn implied_edges(mut self, edges: impl IntoIterator<Item = (K, K)>) -> Self
    where
        K: Clone,
        N: Default,
    {
        for (before, after) in edges {
            self.nodes.entry(before.clone()).or_default();
            self.nodes.entry(after.clone()).or_default();
            self.edges.insert((before, after));
        }
        self
    }

    /// The graph.
    ///
    /// # Errors
    /// [`GraphError::Twice`], [`GraphError::Missing`], then [`GraphError::Cycle`].
    pub fn finish(self) -> Result<Graph<K, N>, GraphError<K>>
    where
        K: Clone,
    {
        if let Some(key) = self.twice {
            return Err(GraphError::Twice { key });
        }
        let nodes: Vec<(K, N)> = self.nodes.into_iter().collect();
        let place = |key: &K| nodes.binary_search_by(|(other, _)| other.cmp(key)).ok();
        let mut edges = DiGraph::with_capacity(nodes.len(), self.edges.len());
        for _ in &nodes {
            edges.add_node(());
        }
        // Descending, because petgraph lists a node's newest edge first.
        for (before, after) in self.edges.into_iter().rev() {
            match (place(&before), place(&after)) {
                (Some(before), Some(after)) => {
                    edges.add_edge(NodeIndex::new(before), NodeIndex::new(after), ());
                }
                (None, _) => return Err(GraphError::Missing { key: before, named_by: after }),
                (_, None) => return Err(GraphError::Missing { key: after, named_by: before }),
            }
        }
        if let Some(order) = topological(&edges) {
            return Ok(Graph { nodes, edges, order });
        }
        let cycle = cycle(&edges).into_iter().map(|place| nodes[place].0.clone()).collect();
        Err(GraphError::Cycle { cycle })
    }
}

/// Kahn's algorithm with the smallest ready node first; `None` if there is a cycle.
fn topological(edges: &DiGraph<(), ()>) -> Option<Vec<usize>> {
    let mut waits: Vec<usize> = edges
        .node_indices()
        .map(|node| edges.neighbors_directed(node, Direction::Incoming).count())
        .collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        waits.iter().enumerate().filter(|(_, waits)| **waits == 0).map(|(place, _)| Reverse(place)).collect();
    let mut order = Vec::with_capacity(waits.len());
    while let Some(Reverse(place)) = ready.pop() {
        order.push(place);
        for after in edges.neighbors(NodeIndex::new(place)) {
            waits[after.index()] -= 1;
            if waits[after.index()] == 0 {
                ready.push(Reverse(after.index()));
            }
        }
    }
    (order.len() == waits.len()).then_some(order)
}

/// The shortest cycle through the smallest node that is on one; nothing if there is none.
fn cycle(edges: &DiGraph<(), ()>) -> Vec<usize> {
    let looped = petgraph::algo::tarjan_scc(edges).into_iter().filter(|component| {
        component.len() > 1 || component.first().is_some_and(|node| edges.contains_edge(*node, *node))
    });
    let Some(start) = looped.flatten().min() else { return Vec::new() };
    let mut reached_from: BTreeMap<NodeIndex, NodeIndex> = BTreeMap::new();
    let mut open = VecDeque::from([start]);
    while let Some(node) = open.pop_front() {
        for next in edges.neighbors(node) {
            if next == start {
                let back = std::iter::successors(Some(node), |node| reached_from.get(node).copied());
                let mut cycle: Vec<usize> = back.map(NodeIndex::index).collect();
                cycle.reverse();
                return cycle;
            }
            reached_from.entry(next).or_insert_with(|| {
                open.push_back(next);
                node
            });
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_named_in_order_from_its_smallest_key() {
        let said = |edges: &[(&'static str, &'static str)]| {
            Graph::<&str>::builder().implied_edges(edges.iter().copied()).finish().unwrap_err().to_string()
        };
        insta::assert_snapshot!(
            [
                said(&[("a", "b"), ("b", "a")]),
                said(&[("a", "a")]),
                said(&[("0", "c"), ("c", "b"), ("b", "a"), ("a", "c"), ("a", "z")]),
                said(&[("b", "c"), ("c", "d"), ("d", "b"), ("c", "b")]),
            ].join("\n"),
            @r"
        each waits for the one before it, in a circle: a -> b -> a
        each waits for the one before it, in a circle: a -> a
        each waits for the one before it, in a circle: a -> c -> b -> a
        each waits for the one before it, in a circle: b -> c -> b
        "
        );
    }

    #[test]
    fn ends_must_exist_and_keys_stand_once() {
        let missing = Graph::builder().node("web", ()).edge("api", "web").finish().unwrap_err();
        let twice = Graph::builder().node("web", ()).node("web", ()).finish().unwrap_err();
        insta::assert_snapshot!(format!("{missing}\n{twice}"), @r"
        `web` is connected to `api`, which does not exist; add it, or remove the edge
        there are two nodes `web`; give one of them another name
        ");
    }
}
