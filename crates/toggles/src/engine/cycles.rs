//! Flags and segments that depend on each other in a circle.

use std::{collections::BTreeMap, fmt};

use super::{
    asks::{self, Asked},
    node::{FlagNode, SegmentNode},
    table::Table,
};

/// The circles that can be reached from `start`: each as what lies along it, beginning with the smallest (a flag, if there is one). What only
/// leads to a circle is in none.
pub(crate) fn reachable<'f>(
    flags: &'f Table<FlagNode>,
    segments: &'f Table<SegmentNode>,
    start: impl IntoIterator<Item = Asked<'f>>,
) -> Vec<Vec<Asked<'f>>> {
    let mut asks: BTreeMap<Asked<'f>, Vec<Asked<'f>>> = BTreeMap::new();
    let mut open: Vec<Asked<'f>> = start.into_iter().collect();
    while let Some(one) = open.pop() {
        if asks.contains_key(&one) {
            continue;
        }
        let asked = match one {
            Asked::Flag(key) => flags.get(key).filter(|flag| flag.asks).map(|flag| asks::by_flag(flag)),
            Asked::Segment(name) => {
                segments.get(name).filter(|segment| segment.asks).map(|segment| asks::by_segment(segment))
            }
        };
        let asked = asked.unwrap_or_default();
        open.extend(&asked);
        asks.insert(one, asked);
    }
    circles(&asks)
}

/// The circles of a graph.
pub(crate) fn circles<T: Ord + Copy>(asks: &BTreeMap<T, Vec<T>>) -> Vec<Vec<T>> {
    // Whether one that was met is finished; otherwise it lies on the path.
    let mut finished: BTreeMap<T, bool> = BTreeMap::new();
    let mut found: Vec<Vec<T>> = Vec::new();
    for start in asks.keys().copied() {
        if finished.contains_key(&start) {
            continue;
        }
        // The path from `start`, each with the number of its neighbours that were looked at.
        let mut path: Vec<(T, usize)> = vec![(start, 0)];
        finished.insert(start, false);
        while let Some((flag, next)) = path.last_mut() {
            let Some(neighbour) = asks.get(flag).and_then(|asks| asks.get(*next)).copied() else {
                finished.insert(*flag, true);
                path.pop();
                continue;
            };
            *next += 1;
            match finished.get(&neighbour) {
                None => {
                    finished.insert(neighbour, false);
                    path.push((neighbour, 0));
                }
                Some(true) => {}
                Some(false) => {
                    let begin = path.iter().position(|(flag, _)| *flag == neighbour).unwrap_or(0);
                    let mut circle: Vec<T> = path.iter().skip(begin).map(|(flag, _)| *flag).collect();
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
pub(crate) fn shown<T: fmt::Display>(circle: &[T]) -> String {
    let closed = circle.iter().chain(circle.first());
    closed.map(ToString::to_string).collect::<Vec<_>>().join(" -> ")
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
