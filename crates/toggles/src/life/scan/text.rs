//! Which flags one text names, and where: plain functions of bytes.

use std::{cmp::Reverse, collections::BTreeSet};

use aho_corasick::AhoCorasick;
use regex::bytes::Regex;

use super::ScanError;

/// The functions and methods whose first literal argument is a flag's key, in the clients of the usual systems. An argument before it (a
/// context) is skipped.
pub const CALLS: &[&str] = &[
    // ours, and what many wrappers are called
    "is_on",
    "isOn",
    "IsOn",
    "is_enabled",
    "isEnabled",
    "IsEnabled",
    "feature_enabled",
    "featureEnabled",
    "useFlag",
    "useVariant",
    "getVariant",
    "get_variant",
    "GetVariant",
    "getFeatureValue",
    "get_feature_value",
    // OpenFeature
    "getBooleanValue",
    "getStringValue",
    "getNumberValue",
    "getIntegerValue",
    "getDoubleValue",
    "getFloatValue",
    "getObjectValue",
    "getBooleanDetails",
    "getStringDetails",
    "getNumberDetails",
    "getIntegerDetails",
    "getDoubleDetails",
    "getObjectDetails",
    "get_boolean_value",
    "get_bool_value",
    "get_string_value",
    "get_integer_value",
    "get_int_value",
    "get_float_value",
    "get_object_value",
    "get_struct_value",
    "get_boolean_details",
    "get_bool_details",
    "get_string_details",
    "get_integer_details",
    "get_int_details",
    "get_float_details",
    "get_object_details",
    "GetBooleanValueAsync",
    "GetStringValueAsync",
    "GetIntegerValueAsync",
    "GetDoubleValueAsync",
    "GetObjectValueAsync",
    "BooleanValue",
    "StringValue",
    "IntValue",
    "FloatValue",
    "ObjectValue",
    "BooleanValueDetails",
    "StringValueDetails",
    "IntValueDetails",
    "FloatValueDetails",
    "ObjectValueDetails",
    "useBooleanFlagValue",
    "useStringFlagValue",
    "useNumberFlagValue",
    "useObjectFlagValue",
    "boolean_details",
    "text_details",
    "integer_details",
    "float_details",
    "structure_details",
    // LaunchDarkly
    "variation",
    "variationDetail",
    "variation_detail",
    "boolVariation",
    "boolVariationDetail",
    "stringVariation",
    "stringVariationDetail",
    "intVariation",
    "doubleVariation",
    "jsonVariation",
    "jsonValueVariation",
    "BoolVariation",
    "StringVariation",
    "IntVariation",
    "FloatVariation",
    "JSONVariation",
    "bool_variation",
    "str_variation",
    "int_variation",
    "float_variation",
    "json_variation",
    // Eppo
    "getBooleanAssignment",
    "getStringAssignment",
    "getNumericAssignment",
    "getIntegerAssignment",
    "getJSONAssignment",
    "get_boolean_assignment",
    "get_string_assignment",
    "get_numeric_assignment",
    "get_integer_assignment",
];

/// The methods of our own clients and handles that are called like many others: they count where they are methods, the key is their first argument,
/// and another one follows.
pub const METHODS: &[&str] = &["boolean", "text", "integer", "float", "structure", "value", "evaluate"];

/// A flag that a text names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The flag's key.
    pub key: String,
    /// Whether it is one of those that were looked for.
    pub known: bool,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Matcher {
    words: AhoCorasick,
    /// For each word, the key that it spells.
    keys: Vec<String>,
    calls: Vec<Regex>,
}

impl Matcher {
    pub(super) fn new(keys: &[String], calls: &[String], spellings: bool) -> Result<Self, ScanError> {
        let mut words: Vec<(String, &String)> = keys.iter().map(|key| (key.clone(), key)).collect();
        if spellings {
            words.extend(keys.iter().flat_map(|key| spelled(key).into_iter().map(move |word| (word, key))));
        }
        let failed = |source| ScanError::Keys { keys: keys.len(), source };
        let found =
            AhoCorasick::new(words.iter().map(|(word, _)| word)).map_err(|error| failed(error.into()))?;
        let names: Vec<String> = calls.iter().map(|call| regex::escape(call)).collect();
        let own = METHODS.join("|");
        let own = Regex::new(&format!(
            r#"(?-u)\.\s{{0,40}}(?:{own})(?:::<[^<>()\n]{{0,60}}>)?\s{{0,40}}\(\s{{0,80}}["'`]([A-Za-z0-9][A-Za-z0-9._-]{{0,99}})["'`]\s{{0,40}},"#
        ));
        let calls = (!names.is_empty()).then(|| {
            // A generic argument, then perhaps one plain argument before the literal; all of it on a few lines.
            let names = names.join("|");
            Regex::new(&format!(
                r#"(?-u)\b(?:{names})(?:::)?(?:<[^<>()\n]{{0,60}}>)?\s{{0,40}}\(\s{{0,80}}(?:&?[A-Za-z_][\w.]{{0,80}}(?:\(\))?\s{{0,40}},\s{{0,80}})?["'`]([A-Za-z0-9][A-Za-z0-9._-]{{0,99}})["'`]"#
            ))
        });
        let calls = calls.into_iter().chain([own]).collect::<Result<_, _>>();
        let calls = calls.map_err(|error| failed(error.into()))?;
        Ok(Self { words: found, keys: words.into_iter().map(|(_, key)| key.clone()).collect(), calls })
    }

    /// All flags that `text` names, in order.
    pub(super) fn find(&self, text: &[u8]) -> Vec<Found> {
        let mut hits: Vec<(usize, usize, &str)> = Vec::new();
        for hit in self.words.find_overlapping_iter(text) {
            let (start, end) = (hit.start(), hit.end());
            if let Some(key) = self.keys.get(hit.pattern().as_usize())
                && stands_alone(text, start, end)
            {
                hits.push((start, end, key));
            }
        }
        // Of two that overlap, the longer one is meant: `checkout.v2` names no `checkout`.
        hits.sort_unstable_by_key(|&(start, end, _)| (start, Reverse(end)));
        let mut reached = 0;
        hits.retain(|&(_, end, _)| {
            let new = end > reached;
            reached = reached.max(end);
            new
        });
        let spans: BTreeSet<(usize, usize)> = hits.iter().map(|&(start, end, _)| (start, end)).collect();
        let mut all: Vec<_> = hits.into_iter().map(|(start, _, key)| (start, key.to_owned(), true)).collect();
        for call in self.calls.iter().flat_map(|calls| calls.captures_iter(text)) {
            let Some(literal) = call.get(1) else { continue };
            let Ok(key) = std::str::from_utf8(literal.as_bytes()) else { continue };
            if !spans.contains(&(literal.start(), literal.end())) {
                all.push((literal.start(), key.to_owned(), false));
            }
        }
        all.sort_by_key(|(start, ..)| *start);
        let mut places = Places { text, at: 0, line: 1, line_start: 0 };
        all.into_iter()
            .map(|(start, key, known)| {
                let (line, column) = places.of(start);
                Found { key, known, line, column }
            })
            .collect()
    }
}

/// Turns growing offsets into lines and columns.
struct Places<'t> {
    text: &'t [u8],
    at: usize,
    line: usize,
    line_start: usize,
}

impl Places<'_> {
    fn of(&mut self, offset: usize) -> (usize, usize) {
        let passed = self.text.get(self.at..offset).unwrap_or_default();
        for (index, _) in passed.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            self.line += 1;
            self.line_start = self.at + index + 1;
        }
        self.at = offset;
        let before = self.text.get(self.line_start..offset).unwrap_or_default();
        (self.line, String::from_utf8_lossy(before).chars().count() + 1)
    }
}

/// Whether what lies from `start` to `end` is no part of a longer word or key.
fn stands_alone(text: &[u8], start: usize, end: usize) -> bool {
    let before = last_char(text.get(..start).unwrap_or_default());
    let after = first_char(text.get(end..).unwrap_or_default());
    let inner = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if inner(before) {
        // `--checkout` of a command line is a word by itself, and so is `\ncheckout` within a literal.
        return before == Some('-')
            && text.get(..start).is_some_and(|text| text.ends_with(b"--"))
            && !inner(after);
    }
    if inner(after) {
        return false;
    }
    if before != Some('.') && after != Some('.') {
        return true;
    }
    // A path such as `flags.checkout.on`, or the end of a sentence; but no part of a literal.
    let run = |bytes: &mut dyn Iterator<Item = &u8>| {
        let more =
            |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') || **byte >= 0x80;
        let mut bytes = bytes.skip_while(more);
        bytes.next().copied()
    };
    let opens = run(&mut text.get(..start).unwrap_or_default().iter().rev());
    let closes = run(&mut text.get(end..).unwrap_or_default().iter());
    !(opens == closes && matches!(opens, Some(b'"' | b'\'' | b'`')))
}

fn first_char(text: &[u8]) -> Option<char> {
    let head = text.get(..text.len().min(4)).unwrap_or_default();
    String::from_utf8_lossy(head).chars().next()
}

fn last_char(text: &[u8]) -> Option<char> {
    let tail = text.get(text.len().saturating_sub(4)..).unwrap_or_default();
    String::from_utf8_lossy(tail).chars().next_back()
}

/// How else generated code spells a key of several words.
fn spelled(key: &str) -> Vec<String> {
    let words: Vec<&str> = key.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    if words.len() < 2 {
        return Vec::new();
    }
    let capitals = |word: &&str| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
            .unwrap_or_default()
    };
    let pascal: String = words.iter().map(capitals).collect();
    let camel: String =
        words.iter().take(1).map(ToString::to_string).chain(words.iter().skip(1).map(capitals)).collect();
    let snake = words.join("_");
    let mut spelled = vec![words.join("-"), snake.to_ascii_uppercase(), snake, pascal, camel];
    spelled.retain(|word| word != key);
    spelled.dedup();
    spelled
}

/// The text in `bytes`, as UTF-8 or something close to it; `None`: it is no text. UTF-16 with a byte-order mark is turned into UTF-8.
pub(super) fn decoded(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let units = |from: fn([u8; 2]) -> u16| {
        let units = bytes.get(2..).unwrap_or_default().chunks_exact(2);
        let units = units.filter_map(|pair| <[u8; 2]>::try_from(pair).ok().map(from));
        let text: String =
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Some(text.into_bytes())
    };
    if bytes.starts_with(&[0xff, 0xfe]) {
        return units(u16::from_le_bytes);
    }
    if bytes.starts_with(&[0xfe, 0xff]) {
        return units(u16::from_be_bytes);
    }
    // As git decides it.
    let head = bytes.get(..bytes.len().min(8_000)).unwrap_or_default();
    (!head.contains(&0)).then_some(bytes)
}
