//! What comes before what: a graph that has no cycle by construction, in a deterministic order, and a walk that runs it.
//!
//! Environments and pipelines both stand on it. It knows neither: keys are anything ordered, nodes are anything.
//!
//! ```
//! use flowline_core::graph::Graph;
//! let graph = Graph::builder()
//!     .node("web", ()).node("api", ()).node("database", ())
//!     .edge("database", "api").edge("api", "web")
//!     .finish()?;
//! assert_eq!(graph.order().copied().collect::<Vec<_>>(), ["database", "api", "web"]);
//!
//! let cycle = Graph::builder().node("a", ()).node("b", ()).edge("a", "b").edge("b", "a").finish();
//! assert_eq!(cycle.unwrap_err().to_string(), "each waits for the one before it, in a circle: a -> b -> a");
//! # Ok::<(), flowline_core::graph::GraphError<&str>>(())
//! ```
//!
//! An edge `a -> b` reads "`a` comes before `b`": `a` is a dependency of `b`, `b` a dependent of `a`.

mod build;
mod ready;
mod render;
mod walk;

use std::fmt;

use petgraph::{
    Direction,
    graph::{DiGraph, NodeIndex},
};

pub use self::{
    build::{GraphBuilder, GraphError},
    walk::{Halt, Order, Outcome, Policy, Running, WalkOptions, Walked},
};

/// A directed graph without cycles. Nodes are kept in the order of their keys, so equal graphs look equal, whatever order they were
/// built in.
#[derive(Clone)]
pub struct Graph<K, N = ()> {
    /// Sorted by key; a node's place here is its index in `edges`.
    nodes: Vec<(K, N)>,
    edges: DiGraph<(), ()>,
    /// Each node after its dependencies; among those that could come next, the smallest key first.
    order: Vec<usize>,
}

/// A node of a [`Graph`].
#[derive(Debug, PartialEq, Eq)]
pub struct Node<'g, K, N> {
    /// Its key.
    pub key: &'g K,
    /// What it is.
    pub value: &'g N,
}

impl<K, N> Clone for Node<'_, K, N> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, N> Copy for Node<'_, K, N> {}

impl<K: Ord, N> Graph<K, N> {
    /// Starts a graph without nodes.
    pub fn builder() -> GraphBuilder<K, N> {
        GraphBuilder::new()
    }

    /// What `key` stands for.
    pub fn get(&self, key: &K) -> Option<&N> {
        self.place(key).map(|place| &self.nodes[place].1)
    }

    /// What comes directly before `key`, by key; nothing if the graph does not have it.
    pub fn dependencies<'g>(&'g self, key: &K) -> impl Iterator<Item = &'g K> + use<'g, K, N> {
        self.beside(self.place(key), Direction::Incoming)
    }

    /// What comes directly after `key`, by key; nothing if the graph does not have it.
    pub fn dependents<'g>(&'g self, key: &K) -> impl Iterator<Item = &'g K> + use<'g, K, N> {
        self.beside(self.place(key), Direction::Outgoing)
    }

    /// Everything that must come before `key`, directly or not, in topological order.
    pub fn upstream(&self, key: &K) -> Vec<&K> {
        self.reached(key, Direction::Incoming)
    }

    /// Everything that must come after `key`, directly or not, in topological order.
    pub fn downstream(&self, key: &K) -> Vec<&K> {
        self.reached(key, Direction::Outgoing)
    }

    fn place(&self, key: &K) -> Option<usize> {
        self.nodes.binary_search_by(|(other, _)| other.cmp(key)).ok()
    }

    fn beside(&self, place: Option<usize>, direction: Direction) -> impl Iterator<Item = &K> + use<'_, K, N> {
        place.into_iter().flat_map(move |place| self.next(place, direction)).map(|place| &self.nodes[place].0)
    }

    fn reached(&self, key: &K, direction: Direction) -> Vec<&K> {
        let mut reached = vec![false; self.nodes.len()];
        let mut open: Vec<usize> = self.place(key).into_iter().collect();
        while let Some(place) = open.pop() {
            for next in self.next(place, direction) {
                if !std::mem::replace(&mut reached[next], true) {
                    open.push(next);
                }
            }
        }
        self.order.iter().filter(|place| reached[**place]).map(|place| &self.nodes[*place].0).collect()
    }
}

impl<K, N> Graph<K, N> {
    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes, by key.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = Node<'_, K, N>> {
        self.nodes.iter().map(|(key, value)| Node { key, value })
    }

    /// The keys in topological order: each after its dependencies, otherwise by key. The same for every build of the same graph.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator {
        self.order.iter().map(|place| &self.nodes[*place].0)
    }

    /// The keys by level: the first level depends on nothing, every other one on something in the level before it. By key in each.
    pub fn levels(&self) -> Vec<Vec<&K>> {
        let mut level = vec![0; self.nodes.len()];
        let mut deepest = 0;
        for place in &self.order {
            let own = self.next(*place, Direction::Incoming).map(|before| level[before] + 1).max();
            level[*place] = own.unwrap_or(0);
            deepest = deepest.max(level[*place] + 1);
        }
        let mut levels = vec![Vec::new(); deepest];
        for ((key, _), level) in self.nodes.iter().zip(level) {
            levels[level].push(key);
        }
        levels
    }

    /// The edges, each as (before, after), by key.
    pub fn edges(&self) -> impl Iterator<Item = (&K, &K)> {
        self.nodes.iter().enumerate().flat_map(move |(place, (key, _))| {
            self.next(place, Direction::Outgoing).map(move |after| (key, &self.nodes[after].0))
        })
    }

    /// Neighbours in ascending order: edges are added in descending order, and petgraph lists the newest first.
    fn next(&self, place: usize, direction: Direction) -> impl Iterator<Item = usize> {
        self.edges.neighbors_directed(NodeIndex::new(place), direction).map(NodeIndex::index)
    }
}

impl<K: fmt::Debug, N> fmt::Debug for Graph<K, N> {
    /// Its edges, and the keys that have none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (place, (key, _)) in self.nodes.iter().enumerate() {
            let mut alone = true;
            for after in self.next(place, Direction::Outgoing) {
                list.entry(&format_args!("{key:?} -> {:?}", self.nodes[after].0));
                alone = false;
            }
            if alone && self.next(place, Direction::Incoming).next().is_none() {
                list.entry(key);
            }
        }
        list.finish()
    }
}

impl<K: PartialEq, N: PartialEq> PartialEq for Graph<K, N> {
    fn eq(&self, other: &Self) -> bool {
        self.nodes == other.nodes && self.edges().eq(other.edges())
    }
}

impl<K: Eq, N: Eq> Eq for Graph<K, N> {}

impl<K, N> Default for Graph<K, N> {
    /// Without nodes.
    fn default() -> Self {
        Self { nodes: Vec::new(), edges: DiGraph::default(), order: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn diamond() -> Graph<&'static str> {
        let edges = [("base", "left"), ("base", "right"), ("left", "top"), ("right", "top")];
        Graph::builder().node("alone", ()).implied_edges(edges).finish().unwrap()
    }

    #[test]
    fn neighbours_levels_and_reach() {
        let graph = diamond();
        assert_eq!(graph.order().copied().collect::<Vec<_>>(), ["alone", "base", "left", "right", "top"]);
        assert_eq!(graph.levels(), [vec![&"alone", &"base"], vec![&"left", &"right"], vec![&"top"]]);
        assert_eq!(graph.dependencies(&"top").collect::<Vec<_>>(), [&"left", &"right"]);
        assert_eq!(graph.dependents(&"base").collect::<Vec<_>>(), [&"left", &"right"]);
        assert_eq!(graph.dependents(&"nobody").count(), 0);
        assert_eq!(graph.upstream(&"left"), [&"base"]);
        assert_eq!(graph.downstream(&"base"), [&"left", &"right", &"top"]);
        assert_eq!((graph.len(), graph.get(&"top"), graph.get(&"nobody")), (5, Some(&()), None));
        assert_eq!(
            format!("{graph:?}"),
            r#"["alone", "base" -> "left", "base" -> "right", "left" -> "top", "right" -> "top"]"#
        );
    }

    /// Edges from smaller to larger keys: never a cycle.
    fn edges() -> impl Strategy<Value = Vec<(u8, u8)>> {
        prop::collection::vec((0u8..20, 1u8..20), 0..60)
            .prop_map(|pairs| pairs.into_iter().map(|(from, by)| (from, from.saturating_add(by))).collect())
    }

    proptest! {
        #[test]
        fn every_node_comes_once_and_after_its_dependencies(edges in edges(), seed in any::<u64>()) {
            let mut shuffled = edges.clone();
            // Another order of building: rotate and reverse.
            let by = usize::try_from(seed % 61).unwrap().min(shuffled.len());
            shuffled.rotate_left(by);
            shuffled.reverse();
            let graph = Graph::<u8>::builder().implied_edges(edges.clone()).finish().unwrap();
            let same = Graph::<u8>::builder().implied_edges(shuffled).finish().unwrap();
            prop_assert_eq!(&graph, &same);
            prop_assert_eq!(graph.to_dot(), same.to_dot());
            let order: Vec<u8> = graph.order().copied().collect();
            prop_assert_eq!(&order, &same.order().copied().collect::<Vec<_>>());
            prop_assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), graph.len());
            let at = |key: u8| order.iter().position(|other| *other == key).unwrap();
            for (from, to) in &edges {
                prop_assert!(at(*from) < at(*to));
            }
            prop_assert_eq!(graph.levels().concat().len(), graph.len());
            prop_assert_eq!(graph.edges().count(), edges.iter().collect::<BTreeSet<_>>().len());
        }

        #[test]
        fn a_named_cycle_is_one(edges in prop::collection::vec((0u8..6, 0u8..6), 0..14)) {
            let given: BTreeSet<(u8, u8)> = edges.iter().copied().collect();
            match Graph::<u8>::builder().implied_edges(edges).finish() {
                Ok(graph) => prop_assert_eq!(graph.edges().count(), given.len()),
                Err(GraphError::Cycle { cycle }) => {
                    for (at, from) in cycle.iter().enumerate() {
                        let to = cycle[(at + 1) % cycle.len()];
                        prop_assert!(given.contains(&(*from, to)), "{cycle:?}");
                    }
                    prop_assert_eq!(cycle.iter().collect::<BTreeSet<_>>().len(), cycle.len());
                }
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }
}
