//! Where something is reached: host names and path prefixes that can be routed without further escaping.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use flowline_core::{
    error::{ErrorKind, Kinded},
    name::check_label,
};
use serde::{Deserialize, Deserializer, Serialize};

/// The longest a host name may be, in bytes (RFC 1035, section 2.3.4, without the length bytes).
const MAX_HOST: usize = 253;
/// The longest a path prefix may be, in bytes.
const MAX_PATH: usize = 1024;

/// A host: labels of lower-case letters, digits and hyphens, joined by dots, such as `app.awesome.com`. At most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostName(Arc<str>);

/// A path on a host, by whole segments: `/`, or `/cool` without a final `/`. At most 1,024 bytes.
///
/// Segments hold letters, digits and `-._~` (the unreserved characters of RFC 3986), and are never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct PathPrefix(Arc<str>);

/// Why a text is not a host or a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {problem}")]
pub struct AddressError {
    what: &'static str,
    text: String,
    problem: String,
}

impl Kinded for AddressError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl HostName {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        let refuse = |problem: String| AddressError { what: "a host name", text: text.to_owned(), problem };
        if text.len() > MAX_HOST {
            return Err(refuse(format!("it has {} bytes, {MAX_HOST} are allowed", text.len())));
        }
        for label in text.split('.') {
            check_label(label).map_err(|problem| refuse(format!("in its label `{label}`, {problem}")))?;
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PathPrefix {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        let refuse = |problem: &str| AddressError {
            what: "a path",
            text: text.to_owned(),
            problem: problem.to_owned(),
        };
        if text.len() > MAX_PATH {
            return Err(refuse("it is longer than 1024 bytes"));
        }
        let Some(segments) = text.strip_prefix('/') else {
            return Err(refuse("it must start with `/`"));
        };
        if segments.is_empty() {
            return Ok(Self(text.into()));
        }
        for segment in segments.split('/') {
            match segment {
                "" => return Err(refuse("a segment of it is empty; it must not end with `/` or hold `//`")),
                "." | ".." => return Err(refuse("`.` and `..` are not segments")),
                _ => {}
            }
            if !segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
                return Err(refuse("use letters, digits and `-._~` in segments"));
            }
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What both newtypes share.
macro_rules! text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = AddressError;

            fn from_str(text: &str) -> Result<Self, AddressError> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}
text!(HostName);
text!(PathPrefix);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_paths_need_no_escaping() {
        for good in ["localhost", "pr-7-app.awesome.com", "127.0.0.1"] {
            assert!(HostName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", "A.com", "a_b", "a..b", "größe", "a:80", &"a.".repeat(130)] {
            assert!(HostName::new(bad).is_err(), "{bad}");
        }
        for good in ["/", "/cool", "/pr-7-cool/v1.2/~x"] {
            assert!(PathPrefix::new(good).is_ok(), "{good}");
        }
        for bad in ["", "cool", "/cool/", "//", "/a//b", "/..", "/a/./b", "/a b", "/%2e", "/ö"] {
            assert!(PathPrefix::new(bad).is_err(), "{bad}");
        }
    }
}
