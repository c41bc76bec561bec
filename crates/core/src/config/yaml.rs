//! YAML 1.2, with bounds on what a small file may blow up to, and the place of every key and value.
//!
//! Only `true` and `false` are booleans, so that the country `NO` stays a text. Keys that stand twice are refused. Anchors, aliases and merge
//! keys work within bounds: what a file repeats by alias is limited in all, however deeply aliases are nested.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::{
    DefaultMessageFormatter, Error, Location, MessageFormatter, Options, Spanned, budget::BudgetBreach,
};

use super::Problem;

/// How deep lists and mappings may nest. A level takes some 20 kB of stack in a debug build.
const DEPTH: usize = 48;

/// How many nodes a file may repeat by alias, all in all.
const REPEATED: usize = 100_000;

/// How many nodes a file may have: a document of 10,000 flags has some 500,000.
const NODES: usize = 20_000_000;

fn options() -> Options {
    let mut options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_events: 2 * NODES,
            max_nodes: NODES,
            max_documents: 1,
            // One anchor for many flags is what anchors are for; the limit on repetition is what counts.
            enforce_alias_anchor_ratio: false,
        },
        strict_booleans: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = REPEATED;
    options
}

pub(super) fn read<T: DeserializeOwned>(text: &str) -> (Option<T>, Option<Problem>) {
    match serde_saphyr::from_str_with_options(text, options()) {
        Ok(value) => (Some(value), None),
        Err(error) => {
            let error = error.without_snippet();
            let offset = error.location().and_then(|location| offset(text, location));
            (None, Some(Problem { message: message(error), offset }))
        }
    }
}

/// What is wrong, in the words that the other syntaxes use, without the library's advice on its own settings.
fn message(error: &Error) -> String {
    let said = match error {
        Error::AliasError { .. } => error.to_string(),
        Error::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate key `{key}`"),
        Error::DuplicateMappingKey { .. } => "duplicate key".to_owned(),
        Error::MultipleDocuments { .. } | Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            "a second document begins here; a file holds one".to_owned()
        }
        Error::SerdeUnknownField { field, expected, .. } => {
            format!("unknown field `{field}`, expected one of {}", quoted(expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            format!("unknown variant `{variant}`, expected one of {}", quoted(expected))
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("lists and mappings nest more than {DEPTH} deep here")
        }
        Error::Budget { breach, .. } => format!("the file is larger than is read: {breach:?}"),
        Error::AliasReplayLimitExceeded { .. } => {
            format!("aliases repeat more than {REPEATED} values; write fewer of them")
        }
        other => DefaultMessageFormatter.format_message(other).into_owned(),
    };
    said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn offset(text: &str, location: Location) -> Option<usize> {
    if let Some(bytes) = location.span().byte_offset() {
        return usize::try_from(bytes).ok();
    }
    // Line and column count from 1; 0 is nowhere.
    let line = usize::try_from(location.line()).ok()?.checked_sub(1)?;
    let column = usize::try_from(location.column()).ok()?.saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let within = text.get(start..)?.char_indices().nth(column).map_or(0, |(at, _)| at);
    Some(start + within)
}

pub(super) fn find(text: &str, keys: &[&str]) -> Option<usize> {
    let root: Node = serde_saphyr::from_str_with_options(text, options()).ok()?;
    let mut at = None;
    let mut node = &root;
    for key in keys {
        let next = match node {
            Node::Map(entries) => entries
                .iter()
                .find(|(name, _)| name.value == **key)
                .map(|(name, value)| (name.referenced, &value.value)),
            Node::List(list) => key
                .parse::<usize>()
                .ok()
                .and_then(|index| list.get(index))
                .map(|element| (element.referenced, &element.value)),
            Node::Scalar => None,
        };
        let Some((location, found)) = next else { break };
        at = offset(text, location);
        node = found;
    }
    at
}

/// A value of which only the places are kept.
enum Node {
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Scalar,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNode;
        impl<'de> Visitor<'de> for AnyNode {
            type Value = Node;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
                Ok(Node::Scalar)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(Node::List(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    entries.push((key, map.next_value()?));
                }
                Ok(Node::Map(entries))
            }
        }
        deserializer.deserialize_any(AnyNode)
    }
}
