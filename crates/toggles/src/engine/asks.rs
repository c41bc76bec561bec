//! Which flags and segments may ask for others, and for which.

use super::node::{FlagNode, Node, RuleNode, Then};

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

/// The flags that a flag asks for by name.
pub(super) fn flags(flag: &FlagNode) -> Vec<&str> {
    let mut asked = Vec::new();
    asked.extend(flag.prerequisites.iter().map(|one| &*one.check.check.flag));
    flag.rules.iter().for_each(|rule| flags_of_rule(rule, &mut asked));
    asked
}

fn flags_of_rule<'f>(rule: &'f RuleNode, asked: &mut Vec<&'f str>) {
    rule.when.iter().for_each(|node| flags_of_node(node, asked));
    if let Then::Rules(rules) = &rule.then {
        rules.iter().for_each(|rule| flags_of_rule(rule, asked));
    }
}

fn flags_of_node<'f>(node: &'f Node, asked: &mut Vec<&'f str>) {
    match node {
        Node::Flag(check) => asked.push(&check.check.flag),
        Node::All(parts) | Node::Any(parts) => parts.iter().for_each(|part| flags_of_node(part, asked)),
        Node::Not(part) | Node::Lenient(part) => flags_of_node(part, asked),
        Node::Constant(_)
        | Node::Test(_)
        | Node::Share(_)
        | Node::Segment(_)
        | Node::During(_)
        | Node::Custom(_) => {}
    }
}
