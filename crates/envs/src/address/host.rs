//! Whether a text is a host name that DNS and every HTTP client read the same way.

use std::{net::Ipv4Addr, sync::Arc};

use super::error::{AddressError, AddressProblem};

/// The longest a host name may be, in bytes (RFC 1035, section 2.3.4, without the root's dot).
pub const MAX_HOST: usize = 253;

/// The longest a label of a host name may be, in bytes (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = flowline_core::name::MAX_NAME;

/// A host name such as `app.awesome.com`: labels of letters, digits and inner hyphens (RFC 1123, section 2.1), in lower case, or an IPv4
/// address.
///
/// Capitals are read and lowered, as DNS ignores case. An internationalised name is written in its ASCII form.
///
/// ```
/// use flowline_envs::address::HostName;
/// let host: HostName = "App.Awesome.com".parse()?;
/// assert_eq!(host.as_str(), "app.awesome.com");
/// assert_eq!(host.parent().map(|parent| parent.to_string()).as_deref(), Some("awesome.com"));
/// # Ok::<(), flowline_envs::address::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Arc<str>);

impl HostName {
    /// Checks `text` and takes it, in lower case.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, AddressError> {
        let text = text.as_ref();
        checked(text).map_err(|problem| AddressError::new("a host name", text, problem))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from the left: `app`, `awesome`, `com`.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// The first label.
    pub fn first_label(&self) -> &str {
        self.0.split_once('.').map_or(&*self.0, |(first, _)| first)
    }

    /// The host one label up; `None` for a single label and for an IPv4 address.
    pub fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_once('.').filter(|_| !self.is_ipv4())?;
        Some(Self(parent.into()))
    }

    /// Whether this is an IPv4 address, which can have no other host beside or below it.
    pub fn is_ipv4(&self) -> bool {
        self.0.parse::<Ipv4Addr>().is_ok()
    }
}

pub(super) fn checked(text: &str) -> Result<HostName, AddressProblem> {
    if text.is_empty() {
        return Err(AddressProblem::NoHost);
    }
    if let Some(character) = text.chars().find(|c| !c.is_ascii()) {
        return Err(AddressProblem::NotAscii { character });
    }
    if let Some(character) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '.')) {
        return Err(AddressProblem::HostCharacter { character });
    }
    if text.len() > MAX_HOST {
        return Err(AddressProblem::HostTooLong { length: text.len() });
    }
    if text.len() > 1 && text.ends_with('.') && !text.ends_with("..") {
        return Err(AddressProblem::TrailingDot);
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(AddressProblem::EmptyLabel);
        }
        if label.len() > MAX_LABEL {
            return Err(AddressProblem::LabelTooLong { label: label.to_owned() });
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(AddressProblem::LabelHyphen { label: label.to_owned() });
        }
    }
    // A host whose last label is a number (decimal, or hexadecimal after `0x`) is an IPv4 address to a browser (WHATWG URL, section 3.5).
    let host = HostName(text.to_ascii_lowercase().into());
    let last = host.labels().next_back().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    if (hexadecimal || last.bytes().all(|b| b.is_ascii_digit())) && !host.is_ipv4() {
        return Err(AddressProblem::NotIpv4);
    }
    Ok(host)
}

super::path::plain_text!(HostName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_keep_the_limits_of_dns() {
        let longest =
            [["a"; 63].concat(), ["b"; 63].concat(), ["c"; 63].concat(), ["d"; 61].concat()].join(".");
        assert_eq!(longest.len(), MAX_HOST);
        assert!(HostName::new(&longest).is_ok());
        assert!(HostName::new(format!("{longest}d")).is_err());
        for good in ["a", "localhost", "xn--bcher-kva.example", "a-b.c-d", "1and1.com", "10.0.0.1"] {
            assert!(HostName::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a.",
            ".a",
            "a..b",
            "a-.b",
            "0x7f000001",
            "127.1",
            "010.1.1.1",
            "a:80",
            "*.a",
            "a/b",
            "a@b",
            "a b",
        ] {
            assert!(HostName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_of_numbers_has_no_parent() {
        assert_eq!(HostName::new("127.0.0.1").unwrap().parent(), None);
        assert_eq!(HostName::new("localhost").unwrap().parent(), None);
    }
}
