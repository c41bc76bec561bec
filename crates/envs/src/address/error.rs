//! Why a text is not an address, a host name or a path, and what to write instead.

use flowline_core::error::{ErrorKind, Kinded};

use super::{MAX_HOST, MAX_LABEL, MAX_PATH, MAX_SEGMENT};

/// A text that is not an address (or not a host name, or not a path). The message quotes it and says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {what}: {problem}", shown(.text))]
pub struct AddressError {
    what: &'static str,
    text: String,
    problem: AddressProblem,
}

impl AddressError {
    pub(super) fn new(what: &'static str, text: &str, problem: AddressProblem) -> Self {
        let text = match (&problem, text.rsplit_once('@')) {
            // What stands before the `@` may be a password, and this message ends up in logs.
            (AddressProblem::Credentials, Some((_, rest))) => format!("***@{rest}"),
            _ => text.to_owned(),
        };
        Self { what, text, problem }
    }

    /// The text that was refused, whole but for a user name and password.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is wrong with it.
    pub fn problem(&self) -> &AddressProblem {
        &self.problem
    }
}

impl Kinded for AddressError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

/// The rule that a text breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressProblem {
    /// There is nothing in it.
    #[error("it is empty; write one like `https://app.awesome.com`")]
    Empty,
    /// It does not start with `http://` or `https://`.
    #[error("{}; start it with `https://` or `http://`", scheme(.found.as_deref()))]
    Scheme {
        /// What stands before the `://`, if there is one.
        found: Option<String>,
    },
    /// It has a user name or a password.
    #[error("it must not hold a user name or password; give those as secrets")]
    Credentials,
    /// It has a query or a fragment.
    #[error("it must end with its path; remove the `{character}` and what follows")]
    QueryOrFragment {
        /// `?` or `#`.
        character: char,
    },
    /// The port is no port.
    #[error("`{found}` is not a port; use a number from 1 to 65535")]
    Port {
        /// What stands in its place.
        found: String,
    },
    /// The host is an IPv6 address.
    #[error("an IPv6 address cannot be a host here; use a host name, such as `localhost`")]
    Ipv6,
    /// The host is missing.
    #[error("it has no host; write one like `app.awesome.com`")]
    NoHost,
    /// The host is longer than DNS allows (RFC 1035, section 2.3.4).
    #[error("its host has {length} bytes, DNS allows {MAX_HOST}; shorten it")]
    HostTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The host ends with a dot.
    #[error("its host ends with a dot; remove it")]
    TrailingDot,
    /// Two dots stand side by side in the host, or one stands in front.
    #[error("its host has an empty label; put a letter or digit between the dots")]
    EmptyLabel,
    /// A label of the host is longer than DNS allows (RFC 1035, section 2.3.4).
    #[error("its label `{label}` has {} bytes, DNS allows {MAX_LABEL}; shorten it", .label.len())]
    LabelTooLong {
        /// The label.
        label: String,
    },
    /// A label of the host starts or ends with a hyphen.
    #[error("its label `{label}` must not start or end with `-`")]
    LabelHyphen {
        /// The label.
        label: String,
    },
    /// The host holds a character outside ASCII.
    #[error(
        "{character:?} cannot stand in a host name; write its ASCII form (punycode, `xn--…`), or go through `url::Url` (feature `url`), which converts it"
    )]
    NotAscii {
        /// The first such character.
        character: char,
    },
    /// The host holds another character that cannot stand there.
    #[error("{character:?} cannot stand in a host name; use letters, digits, `-` and dots")]
    HostCharacter {
        /// The first such character.
        character: char,
    },
    /// The host ends in a number but is no IPv4 address; programs disagree on what it means.
    #[error("its host ends in a number but is not an IPv4 address; write all four parts, each from 0 to 255")]
    NotIpv4,
    /// The path does not start with `/`.
    #[error("it must start with `/`")]
    RelativePath,
    /// The path is longer than allowed.
    #[error("its path has {length} bytes, {MAX_PATH} are allowed; shorten it")]
    PathTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// A part of the path is longer than allowed.
    #[error("a part of its path has {length} bytes, {MAX_SEGMENT} are allowed; shorten it")]
    SegmentTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Two slashes stand side by side.
    #[error("its path has an empty part; write one `/` between parts")]
    EmptySegment,
    /// A part of the path is `.` or `..`.
    #[error("its path must not hold `.` or `..` as a part; write where it leads instead")]
    DotSegment,
    /// The path holds a character that cannot stand there.
    #[error("{character:?} cannot stand in its path; use letters, digits, `-`, `.`, `_` and `~`")]
    PathCharacter {
        /// The first such character.
        character: char,
    },
}

fn scheme(found: Option<&str>) -> String {
    match found {
        None => "it has no scheme".to_owned(),
        Some(found) => format!("`{}` is not a scheme that is served", shown(found)),
    }
}

/// A text for a message: control characters escaped, a very long one cut.
fn shown(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut chars = text.chars();
    let mut cut: String = chars.by_ref().take(SHOWN).fold(String::new(), |mut cut, c| {
        if c.is_control() {
            cut.extend(c.escape_debug());
        } else {
            cut.push(c);
        }
        cut
    });
    if chars.next().is_some() {
        cut.push('…');
    }
    cut
}
