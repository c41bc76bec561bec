//! The compiled form: what the evaluator walks.

use std::{net::IpAddr, sync::Arc};

use flowline_core::Timestamp;
use ipnet::IpNet;
use regex::Regex;
use smallvec::SmallVec;

use super::{
    custom::{Decide, Predicate, ValueTest},
    key::Key,
    table::Keyed,
    version::{Operand, Packed},
    words::WordSet,
};
use crate::{
    hash::{Fnv1a, Murmur3},
    model::{
        Comparison, Facts, Fault, Hash, MissingInput, OnBroken, PastEnd, Period, Range, Reason, Scale, Slice,
        Switch, Texts, Truth, ValueType, Variant, VersionDialect,
    },
    value::{Name, Value, Word},
};

/// A flag. Its fields stand in the order in which a plain evaluation reads them, so that it touches few cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct FlagNode {
    pub(crate) key: Key,
    /// Nothing stands before its rules: it is on, without fault and without prerequisites.
    pub(crate) open: bool,
    /// Whether it is on, if that does not depend on the context.
    pub(crate) settled: Option<bool>,
    /// Whether it may ask for other flags or for segments that do.
    pub(crate) asks: bool,
    pub(crate) switch: Switch,
    pub(crate) value_type: ValueType,
    pub(crate) fallback_reason: Reason,
    pub(crate) rules: Rules,
    pub(crate) fallback: Then,
    pub(crate) variants: Arc<[Variant]>,
    pub(crate) off: Then,
    pub(crate) prerequisites: Box<[PrerequisiteNode]>,
    pub(crate) fault: Option<Box<Fault>>,
    pub(crate) facts: Option<Arc<Facts>>,
}

/// Rules in order. The first lies within the flag: most flags have one.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Rules {
    pub(crate) first: Option<RuleNode>,
    pub(crate) more: Box<[RuleNode]>,
}

impl Rules {
    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RuleNode> {
        self.first.iter().chain(&self.more)
    }

    pub(crate) fn get(&self, index: usize) -> Option<&RuleNode> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(more) => self.more.get(more),
        }
    }
}

impl FromIterator<RuleNode> for Rules {
    fn from_iter<I: IntoIterator<Item = RuleNode>>(rules: I) -> Self {
        let mut rules = rules.into_iter();
        Self { first: rules.next(), more: rules.collect() }
    }
}

impl Keyed for FlagNode {
    fn key(&self) -> &Key {
        &self.key
    }
}

#[derive(Debug)]
pub(crate) struct SegmentNode {
    pub(crate) name: Key,
    pub(crate) when: Node,
    /// Whether it may ask for flags or other segments.
    pub(crate) asks: bool,
}

impl Keyed for SegmentNode {
    fn key(&self) -> &Key {
        &self.name
    }
}

#[derive(Debug)]
pub(crate) struct PrerequisiteNode {
    pub(crate) check: CheckNode,
    pub(crate) otherwise: Option<Then>,
}

#[derive(Debug)]
pub(crate) struct CheckNode {
    pub(crate) hash: u64,
    /// Whether the flag's being on or off is all that is asked for.
    pub(crate) only_on: bool,
    pub(crate) check: crate::model::FlagCheck,
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct RuleNode {
    /// Within the flag, as long as there are few: a flag is then one piece of memory.
    pub(crate) when: SmallVec<[Node; 3]>,
    pub(crate) then: Then,
    pub(crate) id: Option<Box<str>>,
    pub(crate) reason: Option<Reason>,
    pub(crate) on_broken: OnBroken,
}

/// A compiled outcome.
#[derive(Debug)]
pub(crate) enum Then {
    Variant(u32),
    Split(Box<SplitNode>),
    GoOn,
    /// Boxed twice, as `Custom` is: a common outcome shall be small.
    Rules(Box<Box<[RuleNode]>>),
    Caller,
    Fault(Box<Fault>),
    Custom(Box<Arc<dyn Decide>>),
}

/// A compiled condition.
#[derive(Debug)]
pub(crate) enum Node {
    Constant(Truth),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
    Lenient(Box<Node>),
    Test(TestNode),
    Share(Box<ShareNode>),
    Segment(Box<SegmentRef>),
    Flag(Box<CheckNode>),
    During(Box<Period>),
    Custom(Arc<dyn Predicate>),
}

#[derive(Debug)]
pub(crate) struct SegmentRef {
    pub(crate) hash: u64,
    pub(crate) name: Box<str>,
    pub(crate) negate: bool,
    pub(crate) unknown: Truth,
}

#[derive(Debug)]
pub(crate) struct TestNode {
    pub(crate) pick: Pick,
    pub(crate) op: Op,
    pub(crate) negate: bool,
    pub(crate) any_element: bool,
    pub(crate) missing: Truth,
    pub(crate) mismatch: Truth,
}

/// Where to look.
#[derive(Debug)]
pub(crate) enum Pick {
    Key,
    /// An attribute of the first part whose name its word holds.
    Attribute(Word),
    Deep(Arc<Deep>),
    Kinds,
    Now,
    Value(Box<Value>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct Deep {
    /// The kind; `None`: the first part.
    pub(crate) kind: Option<Name>,
    /// The attribute; `None`: the key.
    pub(crate) name: Option<Name>,
    pub(crate) path: Box<[Box<str>]>,
    /// Whether a kind is given, its and the attribute's words hold them, and no path leads further.
    pub(crate) plain: bool,
}

/// A compiled operator.
#[derive(Debug)]
pub(crate) enum Op {
    Present,
    /// One of a few short texts.
    Few {
        words: Box<[Word]>,
        /// Whether numbers and booleans take part with their text.
        scalars: bool,
    },
    Words(Box<WordSet>),
    /// The same with the text of scalars.
    WordsOfScalars(Box<WordSet>),
    Affix(Box<Affix>),
    Equals(Box<[Value]>),
    Number {
        comparison: Comparison,
        parse: bool,
        with: f64,
    },
    Time(Box<TimeOp>),
    /// A version of three small numbers, packed.
    Plain {
        comparison: Comparison,
        dialect: VersionDialect,
        numbers: bool,
        with: Packed,
    },
    Version(Box<VersionOp>),
    Pattern {
        regex: Box<Regex>,
        scalars: bool,
    },
    Network(Box<Networks>),
    Custom(Arc<dyn ValueTest>),
}

#[derive(Debug)]
pub(crate) struct Affix {
    pub(crate) texts: Box<[Box<str>]>,
    pub(crate) how: Texts,
    pub(crate) ignore_case: bool,
    pub(crate) scalars: bool,
}

#[derive(Debug)]
pub(crate) struct TimeOp {
    pub(crate) comparison: Comparison,
    pub(crate) with: Timestamp,
    pub(crate) milliseconds: bool,
}

#[derive(Debug)]
pub(crate) struct VersionOp {
    pub(crate) comparison: Comparison,
    pub(crate) with: Operand,
    pub(crate) dialect: VersionDialect,
    pub(crate) numbers: bool,
}

/// Blocks, v4 and v6 apart, merged and sorted so that a search is by halves.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// First and last address of each block, as numbers.
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl Networks {
    pub(crate) fn new(blocks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for block in blocks {
            match block {
                IpNet::V4(block) => v4.push((block.network().into(), block.broadcast().into())),
                IpNet::V6(block) => v6.push((block.network().into(), block.broadcast().into())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => within(&self.v4, u32::from(address)),
            IpAddr::V6(address) => within(&self.v6, u128::from(address)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

fn merged<T: Ord + Copy>(mut blocks: Vec<(T, T)>) -> Box<[(T, T)]> {
    blocks.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(blocks.len());
    for block in blocks {
        match merged.last_mut() {
            Some(last) if block.0 <= last.1 => last.1 = last.1.max(block.1),
            _ => merged.push(block),
        }
    }
    merged.into()
}

fn within<T: Ord + Copy>(blocks: &[(T, T)], address: T) -> bool {
    let after = blocks.partition_point(|block| block.0 <= address);
    after.checked_sub(1).and_then(|at| blocks.get(at)).is_some_and(|block| address <= block.1)
}

#[derive(Debug)]
pub(crate) struct Bucket {
    pub(crate) input: Box<[Piece]>,
    pub(crate) hash: Hash,
    pub(crate) scale: Scale,
    pub(crate) missing: MissingInput,
    /// The input is the targeting key and nothing else.
    pub(crate) key_only: bool,
    /// How many pieces the hash has taken already: texts that are the same for everybody.
    pub(crate) taken: u8,
    pub(crate) start: Start,
}

impl Bucket {
    /// The pieces that the hash has not taken yet.
    #[inline]
    pub(crate) fn rest(&self) -> &[Piece] {
        self.input.get(usize::from(self.taken)..).unwrap_or_default()
    }
}

/// A hash that has taken what is the same for everybody, where it can be kept in little room.
#[derive(Debug)]
pub(crate) enum Start {
    Nothing,
    Murmur3(Murmur3),
    Fnv1a(Fnv1a),
}

#[derive(Debug)]
pub(crate) enum Piece {
    Literal(Box<str>),
    Of { picks: Box<[Pick]>, scalars: bool, skip_empty: bool },
}

#[derive(Debug)]
pub(crate) struct ShareNode {
    pub(crate) bucket: Bucket,
    pub(crate) first: Range,
    pub(crate) more: Box<[Range]>,
}

#[derive(Debug)]
pub(crate) struct SplitNode {
    pub(crate) bucket: Bucket,
    pub(crate) slices: Box<[Slice]>,
    pub(crate) past_end: PastEnd,
    pub(crate) on: Option<bool>,
}
