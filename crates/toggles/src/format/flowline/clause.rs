//! Clauses: what a rule or an audience asks of a context.

use flowline_core::Timestamp;

use crate::{
    engine::Packed,
    model::{
        Bucketing, Comparison, Condition, FlagCheck, Lists, Operator, Period, Share, Subject, Test, Texts,
        Truth, VersionDialect,
    },
    value::{Name, Value},
};

/// One condition.
///
/// In a document it names what it asks about (`attribute`, `segment`, `flag`, or a group: `all`, `any`) and, for an attribute, how that
/// must compare:
///
/// ```toml
/// { attribute = "country", in = ["NO", "SE"] }
/// { attribute = "app.version", version = ">= 2.1.0" }
/// { attribute = "age", at_least = 18, below = 65 }
/// { attribute = "email", ends_with = "@awesome.com", ignore_case = true, not = true }
/// { segment = "beta" }
/// { flag = "new-search", variant = ["fast"] }
/// { any = [{ segment = "beta" }, { attribute = "staff", in = true }] }
/// ```
///
/// An attribute is called by its name; `targetingKey` is the targeting key, and a dotted name enters objects (`/a.b/c` for names with dots in
/// them, with `~1` for `/` and `~0` for `~`). An attribute that is missing, or that the comparison can't take, makes the clause false,
/// negated or not. Of a list, any element may satisfy the comparison.
///
/// What flags from elsewhere need to keep their meaning, and others may use as well:
///
/// ```toml
/// { attribute = "plan", in = ["gold"], kind = "company" }          # of the context's part of this kind
/// { attribute = "age", at_least = 18, coerce = true }              # "18" counts as 18; numbers count as texts; milliseconds as moments
/// { attribute = "app", version = "< 2.0.0", versions = "partial" } # 1.9 is a version; with "prefixed", v1.9 too
/// { during = { from = "2026-11-25T08:00:00Z", until = "2026-12-01" } }
/// { flag = "search", variant = ["fast"], enabled = true }          # and `search` is switched on
/// { share = { bucketing = { hash = "md5", … }, ranges = [{ until = 2500 }] } }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Clause {
    /// What it asks.
    pub asks: Asks,
    /// Whether it asks for the opposite.
    pub not: bool,
}

/// What a clause asks.
#[derive(Debug, Clone, PartialEq)]
pub enum Asks {
    /// An attribute compares so.
    Attribute {
        /// The attribute.
        attribute: Attribute,
        /// How.
        is: Compare,
    },
    /// The context is in this segment.
    Segment(Name),
    /// This flag is on for the context, or comes to one of these variants.
    Flag {
        /// The flag.
        flag: Box<str>,
        /// The variants; none: it must be on.
        variants: Vec<Box<str>>,
        /// Whether it must be switched on, too.
        enabled: bool,
    },
    /// The context's point is in a share that is given outright: hash, scale and ranges.
    Share(Box<Share>),
    /// The time is within a period.
    During(Period),
    /// All of these hold.
    All(Vec<Clause>),
    /// Any of these holds.
    Any(Vec<Clause>),
}

/// An attribute as clauses call it: a name, and the keys of objects below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    name: Name,
    /// Apart, since few have it: documents of many flags move many attributes.
    further: Option<Box<Further>>,
}

/// What the name of an attribute does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Further {
    kind: Option<Name>,
    path: Vec<Box<str>>,
}

/// How an attribute must compare.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Compare {
    /// It is one of these texts.
    In(Vec<Name>),
    /// It equals one of these values.
    Equals(Vec<Value>),
    /// It is, begins with, ends with or contains one of these texts.
    Text {
        /// How.
        how: Texts,
        /// The texts.
        any_of: Vec<Box<str>>,
        /// Whether the case of letters does not count.
        ignore_case: bool,
    },
    /// It is a number that compares so.
    Number(Comparison, f64),
    /// It is a semantic version that compares so, in a dialect.
    Version(Comparison, semver::Version, VersionDialect),
    /// It is a moment that compares so.
    Time(Comparison, Timestamp),
    /// It matches this pattern, anywhere in it.
    Pattern {
        /// The pattern.
        pattern: Box<str>,
        /// Whether the case of letters does not count.
        ignore_case: bool,
    },
    /// It is an IP address in one of these blocks.
    Network(Vec<Box<str>>),
    /// It is there, or not.
    Present(bool),
    /// It compares in all of these ways.
    All(Vec<Compare>),
    /// The same where numbers and booleans are compared as texts with texts, texts as numbers with numbers, and milliseconds with moments.
    Coerced(Box<Compare>),
}

impl Clause {
    /// An attribute compares so.
    pub fn on(attribute: impl AsRef<str>, is: Compare) -> Self {
        Asks::Attribute { attribute: Attribute::new(attribute.as_ref()), is }.into()
    }

    /// The same for an attribute that is not called by a text.
    pub fn on_attribute(attribute: Attribute, is: Compare) -> Self {
        Asks::Attribute { attribute, is }.into()
    }

    /// An attribute is one of these texts.
    pub fn one_of<T: Into<Name>>(attribute: impl AsRef<str>, texts: impl IntoIterator<Item = T>) -> Self {
        Self::on(attribute, Compare::In(texts.into_iter().map(Into::into).collect()))
    }

    /// The context is in a segment.
    pub fn segment(name: impl Into<Name>) -> Self {
        Asks::Segment(name.into()).into()
    }

    /// A flag is on for the context.
    pub fn flag(flag: impl Into<Box<str>>) -> Self {
        Asks::Flag { flag: flag.into(), variants: Vec::new(), enabled: false }.into()
    }

    /// The opposite.
    #[must_use]
    pub fn negated(mut self) -> Self {
        self.not = !self.not;
        self
    }

    /// Adds the flags that it asks for.
    pub(super) fn flags<'c>(&'c self, asked: &mut Vec<&'c str>) {
        match &self.asks {
            Asks::Flag { flag, .. } => asked.push(flag),
            Asks::All(parts) | Asks::Any(parts) => parts.iter().for_each(|part| part.flags(asked)),
            Asks::Attribute { .. } | Asks::Segment(_) | Asks::Share(_) | Asks::During(_) => {}
        }
    }

    /// Adds how it places users on a line.
    pub(super) fn bucketings<'c>(&'c self, all: &mut Vec<&'c Bucketing>) {
        match &self.asks {
            Asks::Share(share) => all.push(&share.bucketing),
            Asks::All(parts) | Asks::Any(parts) => parts.iter().for_each(|part| part.bucketings(all)),
            Asks::Attribute { .. } | Asks::Segment(_) | Asks::Flag { .. } | Asks::During(_) => {}
        }
    }

    /// The condition that it stands for.
    pub fn condition(&self) -> Condition {
        self.clone().into_condition()
    }

    /// The same of a clause that is needed no longer: a long list of texts becomes the condition's as it is.
    pub fn into_condition(self) -> Condition {
        let condition = match self.asks {
            Asks::Attribute { attribute, is } => return is.condition(attribute, self.not, false),
            Asks::Segment(name) => {
                return Condition::Segment { name, negate: self.not, unknown: Truth::Broken };
            }
            Asks::Flag { flag, variants, enabled } => {
                let mut check = FlagCheck::on(flag);
                check.unknown = Truth::Broken;
                check.enabled = enabled;
                if !variants.is_empty() {
                    check.variants = Some(variants);
                    check.on = None;
                }
                Condition::Flag(Box::new(check))
            }
            Asks::Share(share) => Condition::Share(*share),
            Asks::During(period) => Condition::During(period),
            Asks::All(parts) => Condition::All(parts.into_iter().map(Self::into_condition).collect()),
            Asks::Any(parts) => Condition::Any(parts.into_iter().map(Self::into_condition).collect()),
        };
        if self.not { Condition::Not(Box::new(condition)) } else { condition }
    }
}

impl From<Asks> for Clause {
    fn from(asks: Asks) -> Self {
        Self { asks, not: false }
    }
}

impl Attribute {
    /// The attribute that clauses call `text`.
    pub fn new(text: &str) -> Self {
        if !text.contains('.') && !text.starts_with('/') {
            return Self { name: Name::new(text), further: None };
        }
        let unescaped = |part: &str| part.replace("~1", "/").replace("~0", "~");
        let parts: Vec<String> = match text.strip_prefix('/') {
            Some(pointer) => pointer.split('/').map(unescaped).collect(),
            None => text.split('.').map(str::to_owned).collect(),
        };
        let mut parts = parts.into_iter();
        let name = parts.next().unwrap_or_default();
        Self::at(name, parts.map(Into::into))
    }

    /// The attribute of this name, and what lies in it under a path of keys.
    pub fn at(name: impl Into<Name>, path: impl IntoIterator<Item = Box<str>>) -> Self {
        let path: Vec<_> = path.into_iter().collect();
        let further = (!path.is_empty()).then(|| Box::new(Further { kind: None, path }));
        Self { name: name.into(), further }
    }

    /// The same in the context's part of a kind.
    #[must_use]
    pub fn of_kind(mut self, kind: impl Into<Name>) -> Self {
        self.further.get_or_insert_default().kind = Some(kind.into());
        self
    }

    /// The kind of the context's part in which it is; nothing: the first.
    pub(super) fn kind(&self) -> Option<&Name> {
        self.further.as_ref()?.kind.as_ref()
    }

    fn path(&self) -> &[Box<str>] {
        self.further.as_ref().map_or(&[], |further| &further.path)
    }

    pub(super) fn text(&self) -> String {
        let name = self.name.text();
        let parts: Vec<&str> =
            std::iter::once(name.as_str()).chain(self.path().iter().map(|key| &**key)).collect();
        if parts.iter().all(|part| !part.contains('.')) && !name.starts_with('/') {
            return parts.join(".");
        }
        let escaped = parts.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
        escaped.fold(String::new(), |pointer, part| pointer + "/" + &part)
    }

    fn subject(self) -> Subject {
        let Self { name, further } = self;
        let Further { kind, path } = further.map(|further| *further).unwrap_or_default();
        let is_key = path.is_empty() && name == Name::new("targetingKey");
        match (kind, is_key) {
            (None, true) => Subject::Key,
            (None, false) => Subject::Attribute { name, path },
            (Some(kind), true) => Subject::KeyOf { kind },
            (Some(kind), false) => Subject::AttributeOf { kind, name, path },
        }
    }
}

impl Compare {
    fn condition(self, attribute: Attribute, not: bool, coerce: bool) -> Condition {
        let operator = match self {
            Self::In(names) if coerce => Operator::Text {
                any_of: names.iter().map(|name| name.text().into()).collect(),
                how: Texts::Is,
                ignore_case: false,
                scalars: true,
            },
            Self::In(names) => Operator::OneOf(names),
            Self::Equals(values) => Operator::Equals { any_of: values },
            Self::Text { how, any_of, ignore_case } => {
                Operator::Text { any_of, how, ignore_case, scalars: coerce }
            }
            Self::Number(comparison, with) => Operator::Number { comparison, with, parse: coerce },
            Self::Version(comparison, with, dialect) => {
                Operator::Version { comparison, with: version_text(&with), dialect, numbers: false }
            }
            Self::Time(comparison, with) => Operator::Time { comparison, with, milliseconds: coerce },
            Self::Pattern { pattern, ignore_case } => {
                Operator::Pattern { pattern, ignore_case, scalars: coerce }
            }
            Self::Network(any_of) => Operator::Network { any_of },
            Self::Present(present) => {
                let absent = present == not;
                let test = Test::new(attribute.subject(), Operator::Present);
                return Test { negate: absent, missing: absent.into(), ..test }.into();
            }
            Self::All(all) => {
                let of = |one: Self| one.condition(attribute.clone(), false, coerce);
                let parts = Condition::All(all.into_iter().map(of).collect());
                return if not { Condition::Not(Box::new(parts)) } else { parts };
            }
            Self::Coerced(compare) => return compare.condition(attribute, not, true),
        };
        let test = Test::new(attribute.subject(), operator);
        Test { negate: not, lists: Lists::AnyElement, invalid: Truth::Broken, ..test }.into()
    }
}

/// A version's text. Nearly all are three small numbers, for which the machinery of formatting costs more than reading them.
fn version_text(version: &semver::Version) -> Box<str> {
    let semver::Version { major, minor, patch, pre, build } = version;
    let numbers = [*major, *minor, *patch].map(u16::try_from);
    let ([Ok(major), Ok(minor), Ok(patch)], true, true) = (numbers, pre.is_empty(), build.is_empty()) else {
        return version.to_string().into();
    };
    let mut text = String::with_capacity(17);
    for (number, before) in [(major, ""), (minor, "."), (patch, ".")] {
        text.push_str(before);
        for unit in [10_000, 1_000, 100, 10, 1] {
            if number >= unit || unit == 1 {
                let digit = u8::try_from(number / unit % 10).unwrap_or_default();
                text.push(char::from(b'0' + digit));
            }
        }
    }
    text.into()
}

/// A version comparison as it is written: `>= 2.1.0`.
pub(super) fn version(text: &str) -> Result<Compare, String> {
    let text = text.trim();
    let found = SIGNS.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)));
    let (comparison, version) = found.unwrap_or((Comparison::Equal, text));
    let version = version.trim();
    let read = Packed::parse(version).map(Packed::version).or_else(|| version.parse().ok());
    match read {
        Some(version) => Ok(Compare::Version(comparison, version, VersionDialect::Strict)),
        None => Err(format!("`{}` is not a version comparison; write it as `>= 2.1.0`", text.escape_debug())),
    }
}

const SIGNS: [(&str, Comparison); 6] = [
    (">=", Comparison::GreaterOrEqual),
    ("<=", Comparison::LessOrEqual),
    ("!=", Comparison::NotEqual),
    (">", Comparison::Greater),
    ("<", Comparison::Less),
    ("=", Comparison::Equal),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_s_text_is_as_it_is_written() {
        for text in ["0.0.0", "1.2.3", "10.20.30", "65535.1009.100", "65536.0.1", "1.2.3-rc.1+b", "1.0.0+b"] {
            assert_eq!(&*version_text(&text.parse().unwrap()), text);
        }
    }
}
