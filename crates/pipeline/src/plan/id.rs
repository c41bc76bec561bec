//! How steps and kinds of steps are called.

use std::{fmt, str::FromStr, sync::Arc};

use flowline_core::error::{ErrorKind, Kinded};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest a step's id may be, in bytes: with a run's id it must fit into an event's.
pub const MAX_STEP_ID: usize = 96;

/// Names a step within its plan: `web`, `web/archive`, `hosts/a.example.com/sync`.
///
/// 1 to 96 characters of `A`–`Z`, `a`–`z`, `0`–`9`, `.`, `_`, `-` and `:`, in segments parted by `/`; no segment is empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(Arc<str>);

/// A text that is no id of a step or of a kind of step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {what}: {problem}", .text.escape_debug())]
pub struct IdError {
    what: &'static str,
    text: String,
    problem: &'static str,
}

impl Kinded for IdError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl StepId {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// The rule that `text` breaks, with the text.
    pub fn new(text: impl AsRef<str>) -> Result<Self, IdError> {
        let text = text.as_ref();
        let refuse = |problem| {
            let text = text.chars().take(MAX_STEP_ID).collect();
            Err(IdError { what: "a step's id", text, problem })
        };
        if text.len() > MAX_STEP_ID {
            return refuse("it has more than 96 bytes; shorten it");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':' | b'/')) {
            return refuse("use letters, digits, `.`, `_`, `-`, `:`, and `/` between segments");
        }
        if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return refuse("a segment is empty, `.` or `..`");
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Stands for a step whose id was refused, in a pipeline that can't be planned any more.
    pub(crate) fn unknown() -> Self {
        Self("unknown".into())
    }
}

/// A kind of step at a version of its parameters' shape and meaning: `command@1`. The registry finds its code by it.
///
/// The name follows the rules of [`StepId`] and holds no `@`; the version counts from 1.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKind {
    name: Arc<str>,
    version: u16,
}

impl StepKind {
    /// Checks `name` and takes it.
    ///
    /// # Errors
    /// The rule that `name` breaks, or a version of 0.
    pub fn new(name: impl AsRef<str>, version: u16) -> Result<Self, IdError> {
        let name = name.as_ref();
        let what = "a kind of step";
        match StepId::new(name) {
            Ok(_) if version == 0 => {
                Err(IdError { what, text: format!("{name}@0"), problem: "versions count from 1" })
            }
            Ok(id) => Ok(Self { name: id.0, version }),
            Err(error) => Err(IdError { what, ..error }),
        }
    }

    /// The name without the version.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version of its parameters' shape and meaning.
    pub fn version(&self) -> u16 {
        self.version
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.name, self.version))
    }
}

impl fmt::Debug for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepKind({self})")
    }
}

impl FromStr for StepKind {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let shape = || IdError {
            what: "a kind of step",
            text: text.chars().take(MAX_STEP_ID).collect(),
            problem: "it needs the form `name@version`, such as `command@1`",
        };
        let (name, version) = text.rsplit_once('@').ok_or_else(shape)?;
        Self::new(name, version.parse().map_err(|_| shape())?)
    }
}

impl Serialize for StepKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StepKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepId({})", &self.0)
    }
}

impl FromStr for StepId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl std::borrow::Borrow<str> for StepId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for StepId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for StepId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["a", "web/archive", "hosts/a.example.com/sync", "s_0:1", "A"] {
            assert!(StepId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "a//b", "../etc", "a/./b", "a b", "ä", "a@1", &"a".repeat(97)] {
            assert!(StepId::new(bad).is_err(), "{bad}");
        }
        insta::assert_snapshot!(StepId::new("a b").unwrap_err(), @"`a b` is not a step's id: use letters, digits, `.`, `_`, `-`, `:`, and `/` between segments");
    }

    #[test]
    fn kinds_are_read_as_they_are_written() {
        let kind: StepKind = "fn/greet@2".parse().unwrap();
        assert_eq!((kind.name(), kind.version(), kind.to_string().as_str()), ("fn/greet", 2, "fn/greet@2"));
        for bad in ["command", "command@", "command@0", "command@x", "@1", "command@70000"] {
            assert!(bad.parse::<StepKind>().is_err(), "{bad}");
        }
    }
}
