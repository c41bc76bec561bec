//! Which environment comes after which.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::{
    error::{ErrorKind, Kinded},
    graph::{self, Graph},
    name::EnvironmentName,
};

/// Which environments a release must have been verified in before it may go to another. Free of cycles by construction.
///
/// An environment that is only named as coming first, such as `preview`, stands for itself and comes after nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromotionGraph {
    /// Each environment with those that come directly before it; the edges say the same.
    graph: Graph<EnvironmentName, BTreeSet<EnvironmentName>>,
}

/// Why some edges are no promotion graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Environments come after each other: each waits for the one after it, the last for the first.
    #[error("environments wait for each other: {}", around(.cycle))]
    Cycle {
        /// In order, each named once.
        cycle: Vec<EnvironmentName>,
    },
}

impl GraphError {
    /// The environments that wait for each other.
    pub fn cycle(&self) -> &[EnvironmentName] {
        match self {
            Self::Cycle { cycle } => cycle,
        }
    }
}

impl Kinded for GraphError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

fn around(cycle: &[EnvironmentName]) -> String {
    let names: Vec<&str> = cycle.iter().chain(cycle.first()).map(EnvironmentName::as_str).collect();
    names.join(" -> ")
}

impl PromotionGraph {
    /// The graph in which each environment comes after those in its set.
    ///
    /// # Errors
    /// If environments wait for each other; the message names them in order.
    pub fn new(
        after: impl IntoIterator<Item = (EnvironmentName, BTreeSet<EnvironmentName>)>,
    ) -> Result<Self, GraphError> {
        let mut before: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (environment, first) in after {
            for environment in &first {
                before.entry(environment.clone()).or_default();
            }
            before.entry(environment).or_default().extend(first);
        }
        let edges = before.iter().flat_map(|(environment, first)| {
            first.iter().map(move |earlier| (earlier.clone(), environment.clone()))
        });
        let edges: Vec<_> = edges.collect();
        match Graph::builder().nodes(before).edges(edges).finish() {
            Ok(graph) => Ok(Self { graph }),
            Err(graph::GraphError::Cycle { mut cycle }) => {
                // The graph names each before the one that waits for it; people read the other way round: who waits for whom.
                if let Some(rest) = cycle.get_mut(1..) {
                    rest.reverse();
                }
                Err(GraphError::Cycle { cycle })
            }
            // Every end of an edge was made a node above, once; the fallback keeps this total.
            Err(_) => Err(GraphError::Cycle { cycle: Vec::new() }),
        }
    }

    /// The environments that come directly before `environment`, by name; `None` if the graph does not have it.
    pub fn before(&self, environment: &EnvironmentName) -> Option<&BTreeSet<EnvironmentName>> {
        self.graph.get(environment)
    }

    /// Every environment, by name.
    pub fn environments(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.graph.nodes().map(|node| node.key)
    }

    /// Every environment after all those that come before it, otherwise by name: the order in which a release can reach them.
    pub fn order(&self) -> impl DoubleEndedIterator<Item = &EnvironmentName> + ExactSizeIterator {
        self.graph.order()
    }

    /// The graph as a Mermaid flow chart; the same graph gives the same bytes.
    pub fn to_mermaid(&self) -> String {
        self.graph.to_mermaid()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(edges: &[(&str, &[&str])]) -> Result<PromotionGraph, GraphError> {
        let name = |text: &&str| text.parse().unwrap();
        PromotionGraph::new(edges.iter().map(|(to, from)| (name(to), from.iter().map(name).collect())))
    }

    #[test]
    fn a_cycle_is_named_in_order() {
        let error = graph(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]).unwrap_err();
        assert_eq!(error.to_string(), "environments wait for each other: a -> b -> c -> a");
        assert_eq!(
            graph(&[("a", &["a"])]).unwrap_err().to_string(),
            "environments wait for each other: a -> a"
        );
    }

    #[test]
    fn two_ways_to_one_environment_are_fine() {
        let graph = graph(&[("prod", &["eu", "us"]), ("eu", &["preview"]), ("us", &["preview"])]).unwrap();
        assert_eq!(
            graph.environments().map(EnvironmentName::as_str).collect::<Vec<_>>(),
            ["eu", "preview", "prod", "us"]
        );
        assert_eq!(
            graph.order().map(EnvironmentName::as_str).collect::<Vec<_>>(),
            ["preview", "eu", "us", "prod"]
        );
    }
}
