//! Which environment comes after which.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::{
    error::{ErrorKind, Kinded},
    name::EnvironmentName,
};

/// Which environments a release must have been verified in before it may go to another. Free of cycles by construction.
///
/// An environment that is only named as coming first, such as `preview`, stands for itself and comes after nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromotionGraph {
    before: BTreeMap<EnvironmentName, BTreeSet<EnvironmentName>>,
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
        let graph = Self { before };
        match graph.find_cycle() {
            Some(cycle) => Err(GraphError::Cycle { cycle }),
            None => Ok(graph),
        }
    }

    /// The environments that come directly before `environment`, by name; `None` if the graph does not have it.
    pub fn before(&self, environment: &EnvironmentName) -> Option<&BTreeSet<EnvironmentName>> {
        self.before.get(environment)
    }

    /// Every environment, by name.
    pub fn environments(&self) -> impl Iterator<Item = &EnvironmentName> {
        self.before.keys()
    }

    /// Walks backwards from each environment, without recursion; the first one met again on the same way closes a cycle.
    fn find_cycle(&self) -> Option<Vec<EnvironmentName>> {
        let mut done: BTreeSet<&EnvironmentName> = BTreeSet::new();
        for start in self.before.keys() {
            let mut way: Vec<(&EnvironmentName, Vec<&EnvironmentName>)> =
                vec![(start, self.before[start].iter().collect())];
            while let Some((_, next)) = way.last_mut() {
                let Some(environment) = next.pop() else {
                    done.extend(way.pop().map(|(environment, _)| environment));
                    continue;
                };
                if let Some(at) = way.iter().position(|(on_way, _)| *on_way == environment) {
                    return Some(way[at..].iter().map(|(environment, _)| (*environment).clone()).collect());
                }
                if !done.contains(environment) {
                    way.push((environment, self.before[environment].iter().collect()));
                }
            }
        }
        None
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
    }
}
