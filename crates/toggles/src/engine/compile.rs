//! From the model to the compiled form: what can be prepared is prepared here, once per load.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use regex::RegexBuilder;
use smallvec::SmallVec;

use super::{
    asks,
    common::Common,
    custom::Exact,
    key::{Key, hash},
    node::{
        Affix, Bucket, CheckNode, FlagNode, Networks, Node, Op, Pick, Piece, PrerequisiteNode, RuleNode,
        Rules, SegmentNode, SegmentRef, ShareNode, SplitNode, Start, TestNode, Then, TimeOp, VersionOp,
    },
    version::Operand,
    words::WordSet,
};
use crate::{
    hash::{Feed, Fnv1a, Murmur3},
    model::{
        Bucketing, Condition, Fault, FaultCode, Flag, FlagCheck, Hash, Input, MissingInput, Operator,
        Outcome, PastEnd, Reason, Rule, Segment, Split, Subject, Switch, Test, Texts, Truth, Warning,
    },
    value::Name,
};

/// How deep conditions and rules may be nested; deeper ones are broken.
pub(crate) const MAX_NESTING: usize = 64;

/// How large a compiled pattern may become, in bytes; the limit stops patterns that explode.
const MAX_PATTERN: usize = 1 << 20;

/// A compiled flag, and what was wrong with it.
pub(super) fn flag(flag: Flag, common: &mut Common, warnings: &mut Vec<Warning>) -> FlagNode {
    let Flag {
        key,
        value_type,
        variants,
        switch,
        prerequisites,
        rules,
        fallback,
        fallback_reason,
        off,
        fault,
        facts,
    } = flag;
    let (rules, fallback, fallback_reason) = exactly(rules, fallback, fallback_reason);
    let reason = fallback_reason.unwrap_or(match &fallback {
        Outcome::Split(_) => Reason::Split,
        _ if rules.is_empty() && prerequisites.is_empty() => Reason::Static,
        _ => Reason::Default,
    });
    let mut compiler = Compiler { key: &key, variants: variants.len(), depth: 0, common, warnings };
    let prerequisites = prerequisites
        .into_iter()
        .map(|prerequisite| PrerequisiteNode {
            check: check(prerequisite.check),
            otherwise: prerequisite.otherwise.map(|outcome| compiler.outcome(outcome)),
        })
        .collect();
    let rules = compiler.rules(rules);
    let variants = compiler.common.variants(variants);
    let fallback = compiler.outcome(fallback);
    let off = compiler.outcome(off);
    let mut node = FlagNode {
        rules,
        variants,
        fallback,
        off,
        prerequisites,
        fault: fault.map(Box::new),
        facts,
        fallback_reason: reason,
        switch,
        value_type,
        settled: None,
        open: false,
        asks: false,
        key: Key::new(&key),
    };
    node.asks = asks::of_flag(&node);
    node.open = node.switch == Switch::On && node.fault.is_none() && node.prerequisites.is_empty();
    node.settled = settled(&node);
    node
}

/// The same rules, where the only one is a format's own code that has [rules](Exact) for what it does.
fn exactly(
    rules: Vec<Rule>,
    fallback: Outcome,
    reason: Option<Reason>,
) -> (Vec<Rule>, Outcome, Option<Reason>) {
    let exact = match rules.as_slice() {
        [Rule { when: Condition::Constant(Truth::True), then: Outcome::Custom(own), reason: None, .. }] => {
            own.exactly()
        }
        _ => None,
    };
    match exact {
        None => (rules, fallback, reason),
        Some(Exact { rules, otherwise: None }) => (rules, fallback, reason),
        Some(Exact { rules, otherwise: Some((fallback, reason)) }) => (rules, fallback, Some(reason)),
    }
}

/// What stands for a compiled flag that is refused: the same flag as an error.
pub(crate) fn refused(flag: &FlagNode, fault: Fault) -> FlagNode {
    let mut node = FlagNode {
        key: Key::new(&flag.key),
        open: false,
        settled: None,
        asks: false,
        switch: flag.switch,
        value_type: flag.value_type,
        fallback_reason: Reason::Error,
        rules: Rules::default(),
        fallback: Then::GoOn,
        variants: Arc::clone(&flag.variants),
        // For the kill switch, which wins. Formats that refuse flags have no other outcomes here.
        off: match &flag.off {
            Then::Variant(index) => Then::Variant(*index),
            _ => Then::Caller,
        },
        prerequisites: Box::default(),
        fault: Some(Box::new(fault)),
        facts: flag.facts.clone(),
    };
    node.settled = settled(&node);
    node
}

/// Whether `flag` is on, if that does not depend on the context.
fn settled(flag: &FlagNode) -> Option<bool> {
    let then = match flag.switch {
        Switch::Killed => &flag.off,
        _ if flag.fault.is_some() => return Some(false),
        Switch::Off => &flag.off,
        Switch::On if !flag.prerequisites.is_empty() => return None,
        Switch::On => match &flag.rules.first {
            None => &flag.fallback,
            Some(rule) if rule.when.is_empty() && !matches!(rule.then, Then::GoOn) => &rule.then,
            Some(_) => return None,
        },
    };
    match then {
        Then::Variant(index) => flag.variants.get(*index as usize).map(|variant| variant.on),
        Then::Caller | Then::GoOn | Then::Fault(_) => Some(false),
        Then::Split(_) | Then::Rules(_) | Then::Custom(_) => None,
    }
}

/// A compiled segment, and what was wrong with it.
pub(super) fn segment(segment: Segment, common: &mut Common, warnings: &mut Vec<Warning>) -> SegmentNode {
    let name = segment.name.text();
    let mut found = Vec::new();
    let mut compiler = Compiler { key: &name, variants: 0, depth: 0, common, warnings: &mut found };
    let when = compiler.condition(segment.condition);
    warnings.extend(found.into_iter().map(|mut warning| {
        let at = format!("segment `{name}` {}", warning.at);
        at.trim_end().clone_into(&mut warning.at);
        warning.flag = None;
        warning
    }));
    SegmentNode { name: Key::new(&name), asks: asks::of_node(&when), when }
}

fn check(check: FlagCheck) -> CheckNode {
    let only_on = check.variants.is_none() && check.value.is_none() && !check.enabled && !check.leaf;
    CheckNode { hash: hash(&check.flag), only_on, check }
}

struct Compiler<'c> {
    key: &'c str,
    variants: usize,
    depth: usize,
    common: &'c mut Common,
    warnings: &'c mut Vec<Warning>,
}

impl Compiler<'_> {
    fn warn(&mut self, message: String) {
        self.warnings.push(Warning::of(self.key, "", message));
    }

    fn rules<R: FromIterator<RuleNode>>(&mut self, rules: Vec<Rule>) -> R {
        rules
            .into_iter()
            .map(|rule| RuleNode {
                when: match rule.when {
                    Condition::Constant(Truth::True) => SmallVec::new(),
                    Condition::All(parts) => parts.into_iter().map(|part| self.condition(part)).collect(),
                    other => SmallVec::from_iter([self.condition(other)]),
                },
                then: self.outcome(rule.then),
                id: rule.id,
                reason: rule.reason,
                on_broken: rule.on_broken,
            })
            .collect()
    }

    fn outcome(&mut self, outcome: Outcome) -> Then {
        match outcome {
            Outcome::Variant(index) => self.variant(index),
            Outcome::Split(split) => self.split(*split),
            Outcome::GoOn => Then::GoOn,
            Outcome::Rules(_) if self.depth >= MAX_NESTING => {
                self.warn(format!(
                    "rules are nested more than {MAX_NESTING} deep; the inner ones make an error"
                ));
                Then::Fault(Box::new(Fault::new(FaultCode::ParseError, "rules are nested too deep")))
            }
            Outcome::Rules(rules) => {
                self.depth += 1;
                let rules = self.rules(rules);
                self.depth -= 1;
                Then::Rules(Box::new(rules))
            }
            Outcome::Caller => Then::Caller,
            Outcome::Fault(fault) => Then::Fault(Box::new(fault)),
            Outcome::Custom(custom) => Then::Custom(Box::new(custom)),
        }
    }

    fn variant(&mut self, index: usize) -> Then {
        match u32::try_from(index) {
            Ok(index) if (index as usize) < self.variants => Then::Variant(index),
            _ => {
                let message = format!("variant {index} is not there; the flag has {}", self.variants);
                self.warn(format!("{message}; where it is served, the flag is an error"));
                Then::Fault(Box::new(Fault::new(FaultCode::ParseError, message)))
            }
        }
    }

    fn split(&mut self, split: Split) -> Then {
        let past_end = match split.past_end {
            PastEnd::Variant(index) => Some(index),
            PastEnd::GoOn | PastEnd::Last => None,
        };
        let indexes = split.slices.iter().map(|slice| slice.variant).chain(past_end);
        if let Some(index) = indexes.into_iter().find(|index| *index >= self.variants) {
            return self.variant(index);
        }
        // Who asks only whether it is on is spared the hash where a context without input has a point, too; elsewhere that one is off.
        let always = matches!(split.bucketing.missing, MissingInput::Random | MissingInput::Point(_));
        Then::Split(Box::new(SplitNode {
            bucket: self.bucket(split.bucketing),
            slices: split.slices.into(),
            past_end: split.past_end,
            on: split.on.filter(|_| always),
        }))
    }

    fn condition(&mut self, condition: Condition) -> Node {
        if self.depth >= MAX_NESTING {
            self.warn(format!(
                "conditions are nested more than {MAX_NESTING} deep; the inner ones are broken"
            ));
            return Node::Constant(Truth::Broken);
        }
        self.depth += 1;
        let node = match condition {
            Condition::Constant(truth) => Node::Constant(truth),
            // All or any of one is that one.
            Condition::All(mut parts) | Condition::Any(mut parts) if parts.len() == 1 => {
                parts.pop().map_or(Node::Constant(Truth::True), |part| self.condition(part))
            }
            Condition::All(parts) => Node::All(parts.into_iter().map(|part| self.condition(part)).collect()),
            Condition::Any(parts) => Node::Any(parts.into_iter().map(|part| self.condition(part)).collect()),
            Condition::Not(part) => Node::Not(Box::new(self.condition(*part))),
            Condition::Lenient(part) => Node::Lenient(Box::new(self.condition(*part))),
            Condition::Test(test) => self.test(*test),
            Condition::Share(share) => {
                let mut ranges = share.ranges.into_iter();
                match ranges.next() {
                    Some(first) => {
                        let bucket = self.bucket(share.bucketing);
                        Node::Share(Box::new(ShareNode { bucket, first, more: ranges.collect() }))
                    }
                    None => Node::Constant(Truth::False),
                }
            }
            Condition::Segment { name, negate, unknown } => {
                let name: Box<str> = name.text().into();
                Node::Segment(Box::new(SegmentRef { hash: hash(&name), name, negate, unknown }))
            }
            Condition::Flag(flag) => Node::Flag(Box::new(check(*flag))),
            Condition::During(period) => Node::During(Box::new(period)),
            Condition::Custom(custom) => Node::Custom(custom),
        };
        self.depth -= 1;
        node
    }

    fn test(&mut self, test: Test) -> Node {
        let Test { subject, operator, negate, lists, missing, mismatch, invalid } = test;
        match self.operator(operator) {
            Some(op) => Node::Test(TestNode {
                pick: self.pick(subject),
                op,
                negate,
                any_element: lists == crate::model::Lists::AnyElement,
                missing,
                mismatch,
            }),
            None => Node::Constant(invalid),
        }
    }

    /// The compiled operator; `None`, and a warning, if its operand makes no sense.
    fn operator(&mut self, operator: Operator) -> Option<Op> {
        Some(match operator {
            Operator::Present => Op::Present,
            Operator::OneOf(names) => one_of(names, false),
            Operator::Text { any_of, how: Texts::Is, ignore_case: false, scalars } => {
                let names = any_of.into_iter().map(Name::from);
                one_of(names.collect(), scalars)
            }
            Operator::Text { any_of, how, ignore_case, scalars } => {
                let fold = |text: Box<str>| if ignore_case { text.to_lowercase().into() } else { text };
                let texts = any_of.into_iter().map(fold).collect();
                Op::Affix(Box::new(Affix { texts, how, ignore_case, scalars }))
            }
            Operator::Equals { any_of } => Op::Equals(any_of.into()),
            Operator::Number { comparison, with, parse } => Op::Number { comparison, with, parse },
            Operator::Time { comparison, with, milliseconds } => {
                Op::Time(Box::new(TimeOp { comparison, with, milliseconds }))
            }
            Operator::Version { comparison, with, dialect, numbers } => {
                let Some(operand) = Operand::parse(&with, dialect) else {
                    self.warn(format!(
                        "`{}` is not a version; the condition counts as invalid",
                        shown(&with)
                    ));
                    return None;
                };
                if let Some(packed) = operand.packed() {
                    return Some(Op::Plain { comparison, dialect, numbers, with: packed });
                }
                Op::Version(Box::new(VersionOp { comparison, with: operand, dialect, numbers }))
            }
            Operator::Pattern { pattern, ignore_case, scalars } => {
                let built = RegexBuilder::new(&pattern)
                    .case_insensitive(ignore_case)
                    .size_limit(MAX_PATTERN)
                    .dfa_size_limit(MAX_PATTERN)
                    .nest_limit(100)
                    .build();
                match built {
                    Ok(regex) => Op::Pattern { regex: Box::new(regex), scalars },
                    Err(error) => {
                        let error = error.to_string();
                        let last = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
                        self.warn(format!(
                            "pattern `{}` does not compile ({last}); the condition counts as invalid",
                            shown(&pattern)
                        ));
                        return None;
                    }
                }
            }
            Operator::Network { any_of } => {
                let mut blocks = Vec::with_capacity(any_of.len());
                for text in any_of {
                    match block(&text) {
                        Some(block) => blocks.push(block),
                        None => self.warn(format!(
                            "`{}` is neither an address nor a block of addresses; it is skipped",
                            shown(&text)
                        )),
                    }
                }
                Op::Network(Box::new(Networks::new(blocks)))
            }
            Operator::Custom(custom) => Op::Custom(custom),
        })
    }

    fn bucket(&mut self, bucketing: Bucketing) -> Bucket {
        let input = bucketing
            .input
            .into_iter()
            .map(|input| match input {
                Input::Literal(text) => Piece::Literal(text),
                Input::Of { first_of, scalars, skip_empty } => Piece::Of {
                    picks: first_of.into_iter().map(|subject| self.pick(subject)).collect(),
                    scalars,
                    skip_empty,
                },
            })
            .collect::<Box<[_]>>();
        let key_only = matches!(&input[..], [Piece::Of { picks, .. }] if matches!(&picks[..], [Pick::Key]));
        let begins: Vec<&str> = input
            .iter()
            .map_while(|piece| if let Piece::Literal(text) = piece { Some(&**text) } else { None })
            .take(usize::from(u8::MAX))
            .collect();
        let start = match bucketing.hash {
            Hash::Murmur3 { seed } => {
                let mut hash = Murmur3::new(seed);
                for text in &begins {
                    hash.feed(text);
                }
                Start::Murmur3(hash)
            }
            Hash::Fnv1a | Hash::Fnv1aTwice => {
                let mut hash = Fnv1a::default();
                for text in &begins {
                    hash.feed(text);
                }
                Start::Fnv1a(hash)
            }
            Hash::Sha1 | Hash::Md5 | Hash::Xxh3 { .. } => Start::Nothing,
        };
        let taken = if matches!(start, Start::Nothing) { 0 } else { u8::try_from(begins.len()).unwrap_or(0) };
        Bucket {
            hash: bucketing.hash,
            scale: bucketing.scale,
            missing: bucketing.missing,
            key_only,
            taken,
            start,
            input,
        }
    }

    fn pick(&mut self, subject: Subject) -> Pick {
        match subject {
            Subject::Key => Pick::Key,
            Subject::Attribute { name, path } if path.is_empty() && name.word().is_exact() => {
                Pick::Attribute(name.word())
            }
            Subject::Attribute { name, path } => Pick::Deep(self.common.place(None, Some(name), path)),
            Subject::KeyOf { kind } => Pick::Deep(self.common.place(Some(kind), None, Vec::new())),
            Subject::AttributeOf { kind, name, path } => {
                Pick::Deep(self.common.place(Some(kind), Some(name), path))
            }
            Subject::Kinds => Pick::Kinds,
            Subject::Now => Pick::Now,
            Subject::Value(value) => Pick::Value(Box::new(value)),
        }
    }
}

fn one_of(names: Vec<Name>, scalars: bool) -> Op {
    if names.len() <= 8 && names.iter().all(|name| name.word().is_exact()) {
        return Op::Few { words: names.iter().map(Name::word).collect(), scalars };
    }
    let set = Box::new(WordSet::new(names));
    if scalars { Op::WordsOfScalars(set) } else { Op::Words(set) }
}

fn block(text: &str) -> Option<IpNet> {
    // Each half is parsed on its own, so that a leading zero (octal to some) is an error in both forms.
    let address = |text: &str| text.parse::<IpAddr>().ok();
    match text.split_once('/') {
        Some((start, length)) => IpNet::new(address(start)?, length.parse().ok()?).ok(),
        None => address(text).map(IpNet::from),
    }
}

/// A text for a message: a very long one cut.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN {
        return text.escape_debug().to_string();
    }
    let cut: String = text.chars().take(SHOWN).collect();
    format!("{}…", cut.escape_debug())
}
