//! Flags that depend on each other in a circle.

use std::collections::BTreeMap;

use super::{asks, node::FlagNode, table::Table};

/// The circles that can be reached from the flags `start`: each as the keys along it, beginning with the smallest. A flag that only leads to
/// a circle is in none.
pub(crate) fn reachable<'f>(flags: &'f Table<FlagNode>, start: &'f [String]) -> Vec<Vec<&'f str>> {
    let mut asks: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: Vec<&str> = start.iter().map(String::as_str).collect();
    while let Some(key) = open.pop() {
        if asks.contains_key(key) {
            continue;
        }
        let asked = flags.get(key).filter(|flag| flag.asks).map(|flag| asks::flags(flag)).unwrap_or_default();
        open.extend(&asked);
        asks.insert(key, asked);
    }
    circles(&asks)
}

/// The circles of a graph.
pub(crate) fn circles<'f>(asks: &BTreeMap<&'f str, Vec<&'f str>>) -> Vec<Vec<&'f str>> {
    // Whether a flag that was met is finished; otherwise it lies on the path.
    let mut finished: BTreeMap<&str, bool> = BTreeMap::new();
    let mut found: Vec<Vec<&str>> = Vec::new();
    for start in asks.keys().copied() {
        if finished.contains_key(start) {
            continue;
        }
        // The path from `start`, each with the number of its neighbours that were looked at.
        let mut path: Vec<(&str, usize)> = vec![(start, 0)];
        finished.insert(start, false);
        while let Some((flag, next)) = path.last_mut() {
            let Some(neighbour) = asks.get(*flag).and_then(|asks| asks.get(*next)).copied() else {
                finished.insert(*flag, true);
                path.pop();
                continue;
            };
            *next += 1;
            match finished.get(neighbour) {
                None => {
                    finished.insert(neighbour, false);
                    path.push((neighbour, 0));
                }
                Some(true) => {}
                Some(false) => {
                    let begin = path.iter().position(|(flag, _)| *flag == neighbour).unwrap_or(0);
                    let mut circle: Vec<&str> = path.iter().skip(begin).map(|(flag, _)| *flag).collect();
                    let smallest =
                        circle.iter().enumerate().min_by_key(|(_, flag)| **flag).map_or(0, |(at, _)| at);
                    circle.rotate_left(smallest);
                    if !found.contains(&circle) {
                        found.push(circle);
                    }
                }
            }
        }
    }
    found
}

/// A circle for a message: `a -> b -> a`.
pub(crate) fn shown(circle: &[&str]) -> String {
    let closed = circle.iter().chain(circle.first());
    closed.copied().collect::<Vec<_>>().join(" -> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_named_in_order_and_once() {
        let asks: BTreeMap<&str, Vec<&str>> = [
            ("a", vec!["b", "unknown"]),
            ("b", vec!["c"]),
            ("c", vec!["a"]),
            ("self", vec!["self"]),
            ("leads-in", vec!["a"]),
            ("fine", vec!["leaf"]),
        ]
        .into();
        let told: Vec<_> = circles(&asks).iter().map(|circle| shown(circle)).collect();
        assert_eq!(told, ["a -> b -> c -> a", "self -> self"]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let names: Vec<String> = (0..100_000).map(|n| format!("{n:06}")).collect();
        let asks = names.windows(2).map(|pair| (pair[0].as_str(), vec![pair[1].as_str()])).collect();
        assert!(circles(&asks).is_empty());
    }
}
