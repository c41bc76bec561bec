//! The words for compiled parts, for explanations.

use std::fmt::Write;

use crate::{
    engine::node::{Bucket, CheckNode, Node, Op, Pick, Piece, SplitNode, TestNode},
    model::{Hash, Range, Scale, Texts},
    value::Name,
};

pub(super) fn node(node: &Node) -> String {
    match node {
        Node::Constant(truth) => format!("always {truth:?}").to_lowercase(),
        Node::All(_) => "all of".to_owned(),
        Node::Any(_) => "any of".to_owned(),
        Node::Not(_) => "not".to_owned(),
        Node::Lenient(_) => "if it can be said".to_owned(),
        Node::Test(test) => self::test(test),
        Node::Share(share) => {
            format!(
                "{} lies {}",
                bucket(&share.bucket),
                ranges(std::iter::once(&share.first).chain(&share.more))
            )
        }
        Node::Segment(segment) if segment.negate => format!("not {}", segment.name),
        Node::Segment(segment) => segment.name.to_string(),
        Node::Flag(check) => self::check(check),
        Node::During(period) => {
            let mut said = "the time is".to_owned();
            if let Some(from) = period.from {
                let _ = write!(said, " from {from}");
            }
            if let Some(until) = period.until {
                let _ = write!(said, " until {until}");
            }
            said
        }
        Node::Custom(custom) => custom.describe(),
    }
}

pub(super) fn check(node: &CheckNode) -> String {
    let check = &node.check;
    let mut said = format!("`{}` is", check.flag);
    match check.on {
        Some(true) => said.push_str(" on"),
        Some(false) => said.push_str(" off"),
        None => {}
    }
    if check.enabled {
        said.push_str(" enabled");
    }
    if let Some(names) = &check.variants {
        let _ = write!(
            said,
            " {}",
            names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
        );
    }
    if let Some(value) = &check.value {
        let _ = write!(said, " {}", value.describe());
    }
    said
}

pub(super) fn split(split: &SplitNode) -> String {
    format!("{} in {} slices", bucket(&split.bucket), split.slices.len())
}

fn test(test: &TestNode) -> String {
    let not = if test.negate { "not " } else { "" };
    let verb = match &test.op {
        Op::Present => "there".to_owned(),
        Op::Few { words, .. } => {
            let texts: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
            format!("one of {}", texts.join(", "))
        }
        Op::Words(set) | Op::WordsOfScalars(set) => format!("one of {set}"),
        Op::Affix(affix) => {
            let how = match affix.how {
                Texts::Is => "one of",
                Texts::StartsWith => "starting with",
                Texts::EndsWith => "ending with",
                Texts::Contains => "containing",
            };
            let texts: Vec<_> = affix.texts.iter().take(8).map(|text| format!("{text:?}")).collect();
            let more = if affix.texts.len() > 8 { ", …" } else { "" };
            format!("{how} {}{more}", texts.join(", "))
        }
        Op::Equals(values) => {
            let texts: Vec<_> = values.iter().take(8).map(ToString::to_string).collect();
            let more = if values.len() > 8 { ", …" } else { "" };
            format!("equal to {}{more}", texts.join(" or "))
        }
        Op::Number { comparison, with, .. } => format!("{} {with}", comparison.sign()),
        Op::Time(op) => format!("{} {}", op.comparison.sign(), op.with),
        Op::Plain { comparison, with, .. } => format!("{} {}", comparison.sign(), with.version()),
        Op::Version(op) => format!("{} {}", op.comparison.sign(), op.with.version()),
        Op::Pattern { regex, .. } => format!("matching /{}/", regex.as_str()),
        Op::Network(networks) => format!("in one of {} networks", networks.len()),
        Op::Custom(custom) => custom.describe(),
    };
    format!("{} is {not}{verb}", pick(&test.pick))
}

fn pick(pick: &Pick) -> String {
    match pick {
        Pick::Key => "targeting key".to_owned(),
        Pick::Attribute(name) => name.text().unwrap_or_default(),
        Pick::Deep(deep) => {
            let mut said = String::new();
            if let Some(kind) = &deep.kind {
                let _ = write!(said, "{kind} ");
            }
            said.push_str(&deep.name.as_ref().map_or_else(|| "key".to_owned(), Name::text));
            for key in &deep.path {
                let _ = write!(said, "/{key}");
            }
            said
        }
        Pick::Kinds => "kind".to_owned(),
        Pick::Now => "the time".to_owned(),
        Pick::Value(value) => value.to_string(),
    }
}

fn bucket(bucket: &Bucket) -> String {
    let input: Vec<_> = bucket
        .input
        .iter()
        .map(|piece| match piece {
            Piece::Literal(text) => format!("{text:?}"),
            Piece::Of { picks, .. } => picks.iter().map(pick).collect::<Vec<_>>().join(" or "),
        })
        .collect();
    let scale = match bucket.scale {
        Scale::Modulo { of, plus: 0 } | Scale::Multiply { of } => {
            format!("0 to {}", of.saturating_sub(1))
        }
        Scale::Modulo { of, plus } => format!("{plus} to {}", u64::from(of) + u64::from(plus) - 1),
        Scale::Fraction { .. } | Scale::Unit => "0 to 1".to_owned(),
    };
    format!("the {} of {} ({scale})", hash(bucket.hash), input.join(" + "))
}

fn hash(hash: Hash) -> &'static str {
    match hash {
        Hash::Murmur3 { .. } => "murmur3",
        Hash::Fnv1a => "fnv1a",
        Hash::Fnv1aTwice => "fnv1a of the fnv1a",
        Hash::Sha1 => "sha1",
        Hash::Md5 => "md5",
        Hash::Xxh3 { .. } => "xxh3",
    }
}

fn ranges<'r>(ranges: impl Iterator<Item = &'r Range>) -> String {
    let texts: Vec<_> = ranges
        .take(8)
        .map(|range| {
            let until = if range.with_end { "up to and with" } else { "below" };
            if range.from.is_finite() {
                format!("from {} {until} {}", range.from, range.until)
            } else {
                format!("{until} {}", range.until)
            }
        })
        .collect();
    texts.join(" or ")
}
