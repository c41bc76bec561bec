//! Validated names: what a person calls an application, a component or an environment.
//!
//! Every name here is a DNS label (RFC 1123, section 2.1, in lower case): 1 to 63 characters of `a`–`z`, `0`–`9` and `-`, with no hyphen
//! at either end. That makes each of them usable in a host name, a path segment, a directory name and a database name without any
//! further escaping, so a branch called `../../etc` can never become one of them: it is refused here, once.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{ErrorKind, Kinded};

/// The longest a name may be, in bytes: that of a DNS label (RFC 1035, section 2.3.4).
pub const MAX_NAME: usize = 63;

/// Why a text is not a name. The message quotes the text and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {what}: {problem}", shown(.text))]
pub struct NameError {
    what: &'static str,
    text: String,
    problem: NameProblem,
}

impl NameError {
    pub(crate) fn new(what: &'static str, text: &str, problem: NameProblem) -> Self {
        Self { what, text: text.to_owned(), problem }
    }

    /// The text that was refused, whole.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &NameProblem {
        &self.problem
    }
}

impl Kinded for NameError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The rule that a text breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is longer than its kind allows.
    #[error("it has {length} bytes, {max} are allowed; shorten it")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// It holds a character that its kind does not allow.
    #[error("{character:?} at character {at} is not allowed; use {allowed}")]
    Character {
        /// The first such character.
        character: char,
        /// Its place, counted in characters from 1.
        at: usize,
        /// What may be used instead.
        allowed: &'static str,
    },
    /// A hyphen stands at one end.
    #[error("it must not start or end with `-`")]
    Hyphen,
    /// It lacks a part that its kind needs.
    #[error("{0}")]
    Shape(&'static str),
}

/// Checks the label rule. Names elsewhere in flowline that must fit into a DNS label use this one check.
///
/// # Errors
/// The rule that `text` breaks.
pub fn check_label(text: &str) -> Result<(), NameProblem> {
    if text.is_empty() {
        return Err(NameProblem::Empty);
    }
    if let Some((index, character)) =
        text.chars().enumerate().find(|(_, c)| !matches!(c, 'a'..='z' | '0'..='9' | '-'))
    {
        return Err(NameProblem::Character {
            character,
            at: index + 1,
            allowed: "lower-case letters a-z, digits and `-`",
        });
    }
    if text.len() > MAX_NAME {
        return Err(NameProblem::TooLong { length: text.len(), max: MAX_NAME });
    }
    if text.starts_with('-') || text.ends_with('-') {
        return Err(NameProblem::Hyphen);
    }
    Ok(())
}

/// A text for a message: control characters escaped, a very long one cut.
fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN: usize = 80;
    if text.chars().count() <= SHOWN && !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let cut: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    Cow::Owned(if text.chars().count() > SHOWN { format!("{cut}…") } else { cut })
}

/// Makes a newtype over a checked `String`: parse, display, order, serde (reading checks too).
///
/// `$check` is a function `fn(&str) -> Result<(), NameProblem>`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Checks `text` and takes it.
            ///
            /// # Errors
            /// The rule that `text` breaks, with the text.
            pub fn new(text: impl AsRef<str>) -> Result<Self, $crate::name::NameError> {
                let text = text.as_ref();
                $check(text).map_err(|problem| $crate::name::NameError::new($what, text, problem))?;
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::name::NameError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use checked_text;

checked_text! {
    /// An application: what one team owns and one pipeline delivers, such as `storefront`.
    AppName, "an application's name", check_label
}
checked_text! {
    /// A deployable part of an application, such as `web` or `api`.
    ComponentName, "a component's name", check_label
}
checked_text! {
    /// An environment, such as `production` or `pr-123`.
    EnvironmentName, "an environment's name", check_label
}

/// A person, by the handle that forges and chat systems know: the shepherd of a change, an approver, an actor.
///
/// Up to 100 printable characters without white space; an e-mail address is fine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Person(String);

impl Person {
    /// Checks `handle` and takes it.
    ///
    /// # Errors
    /// The rule that `handle` breaks.
    pub fn new(handle: impl Into<String>) -> Result<Self, NameError> {
        let handle = handle.into();
        let refuse = |problem| Err(NameError::new("a person's handle", &handle, problem));
        if handle.is_empty() {
            return refuse(NameProblem::Empty);
        }
        if handle.len() > 100 {
            return refuse(NameProblem::TooLong { length: handle.len(), max: 100 });
        }
        if let Some((index, character)) =
            handle.chars().enumerate().find(|(_, c)| c.is_whitespace() || c.is_control())
        {
            let allowed = "printable characters without white space";
            return refuse(NameProblem::Character { character, at: index + 1, allowed });
        }
        Ok(Self(handle))
    }

    /// The handle.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Person {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for Person {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_dns_labels() {
        for good in ["a", "web", "pr-123", "0", &"a".repeat(63)] {
            assert!(EnvironmentName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "../../etc", "naïve", "a b", "a_b", &"a".repeat(64)] {
            assert!(EnvironmentName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_say_what_and_what_instead() {
        let said = |text: &str| EnvironmentName::new(text).unwrap_err().to_string();
        insta::assert_snapshot!(
            [said("../../etc"), said(""), said("größe"), said("a-"), said(&"x".repeat(90)), said("a\nb")].join("\n"),
            @r"
        `../../etc` is not an environment's name: '.' at character 1 is not allowed; use lower-case letters a-z, digits and `-`
        `` is not an environment's name: it is empty
        `größe` is not an environment's name: 'ö' at character 3 is not allowed; use lower-case letters a-z, digits and `-`
        `a-` is not an environment's name: it must not start or end with `-`
        `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` is not an environment's name: it has 90 bytes, 63 are allowed; shorten it
        `a\nb` is not an environment's name: '\n' at character 2 is not allowed; use lower-case letters a-z, digits and `-`
        "
        );
    }

    #[test]
    fn reading_checks_too() {
        assert!(serde_json::from_str::<ComponentName>("\"web\"").is_ok());
        assert!(serde_json::from_str::<ComponentName>("\"We b\"").is_err());
        assert!(serde_json::from_str::<Person>("\"a b\"").is_err());
    }
}
