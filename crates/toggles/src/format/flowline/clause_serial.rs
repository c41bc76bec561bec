//! How clauses are written and read.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{
    clause::{Asks, Attribute, Clause, Compare, version},
    named::{OneOrMany, moment},
};
use crate::{
    model::{Comparison, Texts, VersionDialect},
    value::{Name, Value},
};

#[derive(Deserialize, Clone, Copy)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Attribute,
    In,
    StartsWith,
    EndsWith,
    Contains,
    IgnoreCase,
    Above,
    AtLeast,
    Below,
    AtMost,
    Version,
    After,
    Before,
    Matches,
    Network,
    Present,
    Segment,
    Flag,
    Variant,
    All,
    Any,
    Not,
    Kind,
    Coerce,
    Versions,
    Enabled,
    During,
    Share,
}

impl<'de> Deserialize<'de> for Clause {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ClauseVisitor)
    }
}

struct ClauseVisitor;

/// What was read so far.
#[derive(Default)]
struct Parts {
    attribute: Option<Attribute>,
    first: Option<Compare>,
    more: Vec<Compare>,
    asks: Option<Asks>,
    /// Whether more than one thing is asked about.
    ambiguous: bool,
    variants: Vec<Box<str>>,
    enabled: bool,
    kind: Option<Name>,
    marks: Marks,
    not: bool,
}

/// What goes for all comparisons of a clause.
#[derive(Debug, Default, Clone, Copy)]
struct Marks {
    ignore_case: bool,
    coerce: bool,
    versions: Option<VersionDialect>,
}

impl Parts {
    fn compare(&mut self, compare: Compare) {
        match self.first {
            None => self.first = Some(compare),
            Some(_) => self.more.push(compare),
        }
    }

    fn ask(&mut self, asks: Asks) {
        self.ambiguous |= self.asks.replace(asks).is_some();
    }
}

impl<'de> Visitor<'de> for ClauseVisitor {
    type Value = Clause;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a clause such as { attribute = \"country\", in = [\"NO\"] }")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Clause, A::Error> {
        let mut parts = Parts::default();
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Attribute => parts.attribute = Some(map.next_value::<AttributeText>()?.0),
                Field::In => parts.compare(map.next_value::<In>()?.0),
                Field::StartsWith => parts.compare(texts(Texts::StartsWith, map.next_value()?)),
                Field::EndsWith => parts.compare(texts(Texts::EndsWith, map.next_value()?)),
                Field::Contains => parts.compare(texts(Texts::Contains, map.next_value()?)),
                Field::IgnoreCase => parts.marks.ignore_case = map.next_value()?,
                Field::Above => parts.compare(Compare::Number(Comparison::Greater, map.next_value()?)),
                Field::AtLeast => {
                    parts.compare(Compare::Number(Comparison::GreaterOrEqual, map.next_value()?));
                }
                Field::Below => parts.compare(Compare::Number(Comparison::Less, map.next_value()?)),
                Field::AtMost => parts.compare(Compare::Number(Comparison::LessOrEqual, map.next_value()?)),
                Field::Version => parts.compare(map.next_value::<VersionText>()?.0),
                Field::After => {
                    parts.compare(Compare::Time(Comparison::Greater, map.next_value::<moment::Needed>()?.0));
                }
                Field::Before => {
                    parts.compare(Compare::Time(Comparison::Less, map.next_value::<moment::Needed>()?.0));
                }
                Field::Matches => {
                    parts.compare(Compare::Pattern { pattern: map.next_value()?, ignore_case: false });
                }
                Field::Network => parts.compare(Compare::Network(map.next_value::<OneOrMany<Box<str>>>()?.0)),
                Field::Present => parts.compare(Compare::Present(map.next_value()?)),
                Field::Segment => parts.ask(Asks::Segment(map.next_value()?)),
                Field::Flag => {
                    parts.ask(Asks::Flag { flag: map.next_value()?, variants: Vec::new(), enabled: false });
                }
                Field::Variant => parts.variants = map.next_value::<OneOrMany<Box<str>>>()?.0,
                Field::All => parts.ask(Asks::All(map.next_value()?)),
                Field::Any => parts.ask(Asks::Any(map.next_value()?)),
                Field::Not => parts.not = map.next_value()?,
                Field::Kind => parts.kind = Some(map.next_value()?),
                Field::Coerce => parts.marks.coerce = map.next_value()?,
                Field::Versions => parts.marks.versions = Some(map.next_value()?),
                Field::Enabled => parts.enabled = map.next_value()?,
                Field::During => parts.ask(Asks::During(map.next_value()?)),
                Field::Share => parts.ask(Asks::Share(map.next_value()?)),
            }
        }
        finished(&mut parts).map_err(Error::custom)
    }
}

fn finished(parts: &mut Parts) -> Result<Clause, String> {
    const SUBJECTS: &str = "`attribute`, `segment`, `flag`, `all` and `any`";
    let kind = parts.kind.take();
    if kind.is_some() && parts.attribute.is_none() {
        return Err("`kind` goes with `attribute`".to_owned());
    }
    let ambiguous = || Err(format!("the clause has more than one of {SUBJECTS}; use two clauses"));
    let mut asks = match (parts.attribute.take(), parts.asks.take()) {
        (Some(mut attribute), asks) => {
            if let Some(kind) = kind {
                attribute = attribute.of_kind(kind);
            }
            let Some(mut is) = parts.first.take() else {
                return Err(format!("the clause on `{}` compares it with nothing", attribute.text()));
            };
            if !parts.more.is_empty() {
                is = Compare::All(std::iter::once(is).chain(parts.more.drain(..)).collect());
            }
            if parts.ambiguous || asks.is_some() {
                return ambiguous();
            }
            Asks::Attribute { attribute, is: parts.marks.applied(is) }
        }
        (None, _) if parts.first.is_some() => {
            return Err("the clause compares without an `attribute`".to_owned());
        }
        (None, _) if parts.ambiguous => return ambiguous(),
        (None, Some(asks)) => asks,
        (None, None) => return Err(format!("the clause needs one of {SUBJECTS}")),
    };
    match &mut asks {
        Asks::Flag { variants, enabled, .. } => {
            (*variants, *enabled) = (std::mem::take(&mut parts.variants), parts.enabled);
        }
        _ if !parts.variants.is_empty() => return Err("`variant` goes with `flag`".to_owned()),
        _ if parts.enabled => return Err("`enabled` goes with `flag`".to_owned()),
        _ => {}
    }
    Ok(Clause { asks, not: parts.not })
}

fn texts(how: Texts, OneOrMany(any_of): OneOrMany<Box<str>>) -> Compare {
    Compare::Text { how, any_of, ignore_case: false }
}

impl Marks {
    fn applied(self, mut compare: Compare) -> Compare {
        if self.ignore_case {
            compare = without_case(compare);
        }
        if let Some(dialect) = self.versions {
            compare = with_dialect(compare, dialect);
        }
        if self.coerce { Compare::Coerced(Box::new(compare)) } else { compare }
    }

    fn and(self, other: Self) -> Self {
        Self {
            ignore_case: self.ignore_case || other.ignore_case,
            coerce: self.coerce || other.coerce,
            versions: self.versions.or(other.versions),
        }
    }
}

fn with_dialect(compare: Compare, dialect: VersionDialect) -> Compare {
    match compare {
        Compare::Version(comparison, with, _) => Compare::Version(comparison, with, dialect),
        Compare::All(all) => Compare::All(all.into_iter().map(|one| with_dialect(one, dialect)).collect()),
        other => other,
    }
}

fn without_case(compare: Compare) -> Compare {
    match compare {
        Compare::In(names) => Compare::Text {
            how: Texts::Is,
            any_of: names.iter().map(|name| name.text().into()).collect(),
            ignore_case: true,
        },
        Compare::Text { how, any_of, .. } => Compare::Text { how, any_of, ignore_case: true },
        Compare::Pattern { pattern, .. } => Compare::Pattern { pattern, ignore_case: true },
        Compare::All(all) => Compare::All(all.into_iter().map(without_case).collect()),
        other => other,
    }
}

struct AttributeText(Attribute);

impl<'de> Deserialize<'de> for AttributeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = AttributeText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an attribute's name")
            }

            fn visit_str<E>(self, text: &str) -> Result<AttributeText, E> {
                Ok(AttributeText(Attribute::new(text)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

struct VersionText(Compare);

impl<'de> Deserialize<'de> for VersionText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = VersionText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a version comparison such as \">= 2.1.0\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<VersionText, E> {
                version(text).map(VersionText).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// What stands after `in`: one value or a list; texts alone take the cheap form.
struct In(Compare);

impl<'de> Deserialize<'de> for In {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = In;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }

            fn visit_str<E>(self, one: &str) -> Result<In, E> {
                Ok(In(Compare::In(vec![Name::new(one)])))
            }

            fn visit_bool<E>(self, one: bool) -> Result<In, E> {
                Ok(In(Compare::Equals(vec![one.into()])))
            }

            fn visit_i64<E>(self, one: i64) -> Result<In, E> {
                Ok(In(Compare::Equals(vec![one.into()])))
            }

            fn visit_u64<E>(self, one: u64) -> Result<In, E> {
                Ok(In(Compare::Equals(vec![Value::Number(one.into())])))
            }

            fn visit_f64<E>(self, one: f64) -> Result<In, E> {
                Ok(In(Compare::Equals(vec![one.into()])))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<In, A::Error> {
                let mut names: Vec<Name> = Vec::with_capacity(list.size_hint().unwrap_or(4).min(4_096));
                let mut values: Vec<Value> = Vec::new();
                while let Some(one) = list.next_element::<TextOrValue>()? {
                    match one {
                        TextOrValue::Text(name) if values.is_empty() => names.push(name),
                        TextOrValue::Text(name) => values.push(name.text().into()),
                        TextOrValue::Value(value) => {
                            values.extend(names.drain(..).map(|name| Value::from(name.text())));
                            values.push(value);
                        }
                    }
                }
                Ok(In(if values.is_empty() { Compare::In(names) } else { Compare::Equals(values) }))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

enum TextOrValue {
    Text(Name),
    Value(Value),
}

impl<'de> Deserialize<'de> for TextOrValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = TextOrValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_str<E>(self, text: &str) -> Result<TextOrValue, E> {
                Ok(TextOrValue::Text(Name::new(text)))
            }

            fn visit_bool<E>(self, one: bool) -> Result<TextOrValue, E> {
                Ok(TextOrValue::Value(one.into()))
            }

            fn visit_i64<E>(self, one: i64) -> Result<TextOrValue, E> {
                Ok(TextOrValue::Value(one.into()))
            }

            fn visit_u64<E>(self, one: u64) -> Result<TextOrValue, E> {
                Ok(TextOrValue::Value(Value::Number(one.into())))
            }

            fn visit_f64<E>(self, one: f64) -> Result<TextOrValue, E> {
                Ok(TextOrValue::Value(one.into()))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, list: A) -> Result<TextOrValue, A::Error> {
                Value::deserialize(serde::de::value::SeqAccessDeserializer::new(list)).map(TextOrValue::Value)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextOrValue, A::Error> {
                Value::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(TextOrValue::Value)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Clause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.asks {
            Asks::Attribute { attribute, is } => {
                map.serialize_entry("attribute", &attribute.text())?;
                let marks = compare(&mut map, is)?;
                if marks.ignore_case {
                    map.serialize_entry("ignore_case", &true)?;
                }
                if marks.coerce {
                    map.serialize_entry("coerce", &true)?;
                }
                if let Some(versions) = marks.versions {
                    map.serialize_entry("versions", &versions)?;
                }
                if let Some(kind) = attribute.kind() {
                    map.serialize_entry("kind", kind)?;
                }
            }
            Asks::Segment(name) => map.serialize_entry("segment", name)?,
            Asks::Flag { flag, variants, enabled } => {
                map.serialize_entry("flag", flag)?;
                if !variants.is_empty() {
                    map.serialize_entry("variant", variants)?;
                }
                if *enabled {
                    map.serialize_entry("enabled", enabled)?;
                }
            }
            Asks::Share(share) => map.serialize_entry("share", share)?,
            Asks::During(period) => map.serialize_entry("during", period)?,
            Asks::All(parts) => map.serialize_entry("all", parts)?,
            Asks::Any(parts) => map.serialize_entry("any", parts)?,
        }
        if self.not {
            map.serialize_entry("not", &true)?;
        }
        map.end()
    }
}

/// Writes a comparison, and gives what has to stand beside it.
fn compare<M: SerializeMap>(map: &mut M, is: &Compare) -> Result<Marks, M::Error> {
    let case = |ignore_case| Marks { ignore_case, ..Marks::default() };
    match is {
        Compare::In(names) => map.serialize_entry("in", names)?,
        Compare::Equals(values) => map.serialize_entry("in", values)?,
        Compare::Text { how, any_of, ignore_case } => {
            let name = match how {
                Texts::Is => "in",
                Texts::StartsWith => "starts_with",
                Texts::EndsWith => "ends_with",
                Texts::Contains => "contains",
            };
            map.serialize_entry(name, any_of)?;
            return Ok(case(*ignore_case));
        }
        Compare::Number(comparison, with) => {
            let name = match comparison {
                Comparison::Greater => "above",
                Comparison::GreaterOrEqual => "at_least",
                Comparison::Less => "below",
                Comparison::LessOrEqual => "at_most",
                Comparison::Equal => "in",
                Comparison::NotEqual => {
                    return Err(serde::ser::Error::custom("`not equal` is written with `not`"));
                }
            };
            map.serialize_entry(name, with)?;
        }
        Compare::Version(comparison, with, dialect) => {
            map.serialize_entry("version", &format!("{} {with}", comparison.sign()))?;
            let versions = (*dialect != VersionDialect::Strict).then_some(*dialect);
            return Ok(Marks { versions, ..Marks::default() });
        }
        Compare::Time(comparison, with) => {
            let after = matches!(comparison, Comparison::Greater | Comparison::GreaterOrEqual);
            map.serialize_entry(if after { "after" } else { "before" }, with)?;
        }
        Compare::Pattern { pattern, ignore_case } => {
            map.serialize_entry("matches", pattern)?;
            return Ok(case(*ignore_case));
        }
        Compare::Network(blocks) => map.serialize_entry("network", blocks)?,
        Compare::Present(present) => map.serialize_entry("present", present)?,
        Compare::All(all) => {
            let mut marks = Marks::default();
            for one in all {
                marks = marks.and(compare(map, one)?);
            }
            return Ok(marks);
        }
        Compare::Coerced(inner) => return Ok(Marks { coerce: true, ..compare(map, inner)? }),
    }
    Ok(Marks::default())
}
