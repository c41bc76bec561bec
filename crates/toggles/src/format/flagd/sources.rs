//! Several sources of flags at once, and selectors: which flags of which sources belong together.

use std::str::FromStr;

use flowline_core::error::{ErrorKind, Kinded};
use indexmap::IndexMap;

use super::{Flagd, NAME};
use crate::{
    format::{Format, FormatError},
    model::{Flag, FlagSet},
    value::Value,
};

/// Which flags of several sources are meant.
///
/// ```
/// use flowline_toggles::format::flagd::Selector;
/// assert_eq!("".parse(), Ok(Selector::All));
/// assert_eq!("flags/prod.json".parse(), Ok(Selector::Source("flags/prod.json".to_owned())));
/// assert_eq!("flagSetId=checkout".parse(), Ok(Selector::FlagSet("checkout".to_owned())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Selector {
    /// The flags of all sources; of a key that stands in several, the last source counts.
    #[default]
    All,
    /// The flags of one source, by its name.
    Source(String),
    /// The flags whose metadata (their own, else their set's) has this `flagSetId`, of all sources.
    FlagSet(String),
}

/// A text is no selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no selector; write `flagSetId=ID`, `source=NAME` or a source's name", .text.escape_debug())]
pub struct SelectorError {
    text: String,
}

impl Kinded for SelectorError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    /// `flagSetId=ID`, `source=NAME`, or the name of a source alone (the older form); empty: all.
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text.split_once('=') {
            None if text.is_empty() => Ok(Self::All),
            None => Ok(Self::Source(text.to_owned())),
            Some(("flagSetId", id)) => Ok(Self::FlagSet(id.to_owned())),
            Some(("source", name)) => Ok(Self::Source(name.to_owned())),
            Some(_) => Err(SelectorError { text: text.chars().take(120).collect() }),
        }
    }
}

impl Flagd {
    /// Reads several sources, each a name and a document, and keeps what is selected. Evaluators and metadata of a set go for that source's
    /// flags alone; warnings name the source.
    ///
    /// ```
    /// use flowline_toggles::{Context, Ruleset, engine::Fixed, format::flagd::{Flagd, Selector}};
    /// let flag = |on: &str| format!(r#"{{"flags": {{"f": {{"state": "ENABLED", "variants": {{"on": true, "off": false}},
    ///     "defaultVariant": "{on}"}}}}, "metadata": {{"flagSetId": "{on}"}}}}"#);
    /// let (one, other) = (flag("off"), flag("on"));
    /// let sources = [("one.json", one.as_str()), ("other.json", other.as_str())];
    /// let is_on = |selector| -> Result<bool, flowline_toggles::format::FormatError> {
    ///     let ruleset = Ruleset::compile(Flagd::default().read_sources(&sources, &selector)?);
    ///     Ok(ruleset.is_on("f", &Context::new("user"), &Fixed::default()))
    /// };
    /// assert!(is_on(Selector::All)?, "the last source counts");
    /// assert!(!is_on(Selector::Source("one.json".to_owned()))?);
    /// assert!(!is_on(Selector::FlagSet("off".to_owned()))?);
    /// # Ok::<(), flowline_toggles::format::FormatError>(())
    /// ```
    ///
    /// # Errors
    /// If one of the selected sources is no document of flagd's, or there is no such source. A set that no flag belongs to is empty.
    pub fn read_sources(
        &self,
        sources: &[(&str, &str)],
        selector: &Selector,
    ) -> Result<FlagSet, FormatError> {
        let mut all = FlagSet::new(NAME);
        let mut flags: IndexMap<Box<str>, Flag> = IndexMap::new();
        let mut found = false;
        for (name, text) in sources {
            if matches!(selector, Selector::Source(wanted) if wanted != name) {
                continue;
            }
            found = true;
            let set = self.read(text).map_err(|error| {
                let problem = format!("source `{name}`: {}", error.problem);
                FormatError { problem, ..error }
            })?;
            for mut warning in set.warnings {
                warning.message = format!("{} (in source `{name}`)", warning.message);
                all.warnings.push(warning);
            }
            all.facts.extend(set.facts);
            for flag in set.flags {
                if belongs(&flag, selector) {
                    flags.insert(flag.key.clone(), flag);
                }
            }
        }
        if let (Selector::Source(name), false) = (selector, found) {
            return Err(FormatError::new(NAME, format!("there is no source `{name}`")));
        }
        all.flags = flags.into_values().collect();
        Ok(all)
    }
}

fn belongs(flag: &Flag, selector: &Selector) -> bool {
    let Selector::FlagSet(wanted) = selector else { return true };
    let metadata = flag.facts.as_deref().map(|facts| &facts.metadata);
    let id = metadata.and_then(|metadata| metadata.get("flagSetId")).and_then(Value::as_str);
    id == Some(wanted)
}
