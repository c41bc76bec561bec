//! Which flags and segments may ask for others, and for which.

use std::fmt;

use super::node::{FlagNode, Node, RuleNode, SegmentNode, Then};

/// Whether the flag may ask for other flags, or for segments (which may ask for others).
pub(super) fn of_flag(flag: &FlagNode) -> bool {
    let outcomes = [&flag.fallback, &flag.off].into_iter();
    !flag.prerequisites.is_empty()
        || flag.rules.iter().any(of_rule)
        || outcomes.chain(flag.prerequisites.iter().filter_map(|one| one.otherwise.as_ref())).any(of_outcome)
}

fn of_rule(rule: &RuleNode) -> bool {
    rule.when.iter().any(of_node) || of_outcome(&rule.then)
}

fn of_outcome(then: &Then) -> bool {
    match then {
        Then::Rules(rules) => rules.iter().any(of_rule),
        Then::Custom(_) => true,
        Then::Variant(_) | Then::Split(_) | Then::GoOn | Then::Caller | Then::Fault(_) => false,
    }
}

/// Whether the condition may ask for flags or segments.
pub(super) fn of_node(node: &Node) -> bool {
    match node {
        Node::Flag(_) | Node::Segment(_) | Node::Custom(_) => true,
        Node::All(parts) | Node::Any(parts) => parts.iter().any(of_node),
        Node::Not(part) | Node::Lenient(part) => of_node(part),
        Node::Constant(_) | Node::Test(_) | Node::Share(_) | Node::During(_) => false,
    }
}

/// What may be asked for by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asked<'f> {
    Flag(&'f str),
    Segment(&'f str),
}

impl fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(key) => f.write_str(key),
            Self::Segment(name) => write!(f, "segment `{name}`"),
        }
    }
}

/// What a flag asks for by name.
pub(super) fn by_flag(flag: &FlagNode) -> Vec<Asked<'_>> {
    let mut asked = Vec::new();
    for prerequisite in &flag.prerequisites {
        asked.push(Asked::Flag(&prerequisite.check.check.flag));
        prerequisite.otherwise.iter().for_each(|then| by_outcome(then, &mut asked));
    }
    flag.rules.iter().for_each(|rule| by_rule(rule, &mut asked));
    by_outcome(&flag.fallback, &mut asked);
    by_outcome(&flag.off, &mut asked);
    asked
}

/// What a segment asks for by name.
pub(super) fn by_segment(segment: &SegmentNode) -> Vec<Asked<'_>> {
    let mut asked = Vec::new();
    by_node(&segment.when, &mut asked);
    asked
}

fn by_rule<'f>(rule: &'f RuleNode, asked: &mut Vec<Asked<'f>>) {
    rule.when.iter().for_each(|node| by_node(node, asked));
    by_outcome(&rule.then, asked);
}

fn by_outcome<'f>(then: &'f Then, asked: &mut Vec<Asked<'f>>) {
    if let Then::Rules(rules) = then {
        rules.iter().for_each(|rule| by_rule(rule, asked));
    }
}

fn by_node<'f>(node: &'f Node, asked: &mut Vec<Asked<'f>>) {
    match node {
        Node::Flag(check) => asked.push(Asked::Flag(&check.check.flag)),
        Node::Segment(segment) => asked.push(Asked::Segment(&segment.name)),
        Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| by_node(part, asked)),
        Node::Not(part) | Node::Lenient(part) => by_node(part, asked),
        Node::Constant(_) | Node::Test(_) | Node::Share(_) | Node::During(_) | Node::Custom(_) => {}
    }
}
