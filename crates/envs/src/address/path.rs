//! Whether a text is a path that every proxy and client reads the same way, and which can't step out of itself.

use std::sync::Arc;

use super::error::{AddressError, AddressProblem};

/// The longest a path may be, in bytes.
pub const MAX_PATH: usize = 1024;

/// The longest one part of a path may be, in bytes.
pub const MAX_SEGMENT: usize = 255;

/// A path under which something answers, by whole segments: `/cool` covers `/cool/v2` and not `/coolest`. `/` covers everything.
///
/// Its parts are the characters that RFC 3986 (section 2.3) calls unreserved, so there is nothing to escape and one path has one text:
/// no `%`, no empty part, no `.` and no `..`. A `/` at the end is read and dropped.
///
/// ```
/// use flowline_envs::address::PathPrefix;
/// let path: PathPrefix = "/cool/v2/".parse()?;
/// assert_eq!(path.as_str(), "/cool/v2");
/// assert!(path.covers("/cool/v2/things") && !path.covers("/cool/v22"));
/// assert!("/../etc".parse::<PathPrefix>().is_err());
/// # Ok::<(), flowline_envs::address::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// Checks `text` and takes it, without a `/` at the end.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, AddressError> {
        let text = text.as_ref();
        checked(text).map_err(|problem| AddressError::new("a path", text, problem))
    }

    /// `/`.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Whether it is `/`.
    pub fn is_root(&self) -> bool {
        &*self.0 == "/"
    }

    /// The text: `/`, or parts each after a `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts; none for `/`.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|segment| !segment.is_empty())
    }

    /// Whether `path` is this path or below it. A request's path goes in as it came, without its query.
    pub fn covers(&self, path: &str) -> bool {
        self.is_root()
            || path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl Default for PathPrefix {
    /// `/`.
    fn default() -> Self {
        Self::root()
    }
}

pub(super) fn checked(text: &str) -> Result<PathPrefix, AddressProblem> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err(if text.is_empty() { AddressProblem::Empty } else { AddressProblem::RelativePath });
    };
    if text.len() > MAX_PATH {
        return Err(AddressProblem::PathTooLong { length: text.len() });
    }
    if rest.is_empty() {
        return Ok(PathPrefix::root());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for segment in rest.split('/') {
        match segment {
            "" => return Err(AddressProblem::EmptySegment),
            "." | ".." => return Err(AddressProblem::DotSegment),
            _ if segment.len() > MAX_SEGMENT => {
                return Err(AddressProblem::SegmentTooLong { length: segment.len() });
            }
            _ => {}
        }
        if let Some(character) =
            segment.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.' | '_' | '~'))
        {
            return Err(AddressProblem::PathCharacter { character });
        }
    }
    Ok(PathPrefix(format!("/{rest}").into()))
}

/// Parse, display, borrow and serde for a newtype over a checked text with a `new` that checks.
macro_rules! plain_text {
    ($name:ident) => {
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::address::AddressError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::address::AddressError;

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

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
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
pub(super) use plain_text;

plain_text!(PathPrefix);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_step_out() {
        for bad in [
            "",
            "cool",
            "//",
            "/a//b",
            "/.",
            "/..",
            "/../../etc",
            "/a/..",
            "/%2e",
            "/a b",
            "/a\n",
            "/ü",
            "/a;b",
            "/a\\b",
        ] {
            assert!(PathPrefix::new(bad).is_err(), "{bad}");
        }
        for good in ["/", "/cool", "/cool/", "/a/B/c_~.d", "/...", "/.well-known"] {
            assert!(PathPrefix::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let cool = PathPrefix::new("/cool").unwrap();
        assert!(cool.covers("/cool") && cool.covers("/cool/") && cool.covers("/cool/x"));
        assert!(!cool.covers("/coolest") && !cool.covers("/") && !cool.covers("/x/cool"));
        assert!(PathPrefix::root().covers("/anything"));
    }
}
