//! Where a component is found: checked addresses, and the rule that gives each environment its own, known before anything is deployed.
//!
//! | module | what it decides |
//! | --- | --- |
//! | [`HostName`], [`PathPrefix`], [`Address`] | that an address is well-formed, so that no input can become another host or leave its path |
//! | [`rule`] | which address a component has in an ephemeral environment: `https://pr-123-app.awesome.com` for `https://app.awesome.com` |
//! | [`label`] | which environment a branch gets, and how a name that does not fit is shortened without meeting another |
//! | [`profile`] | what other systems would call it |
//!
//! Addresses are plain ASCII data. `url::Url` converts at the edge with feature `url`, and with it an internationalised host name.

mod error;
mod host;
pub mod label;
mod path;
pub mod profile;
pub mod rule;
#[cfg(feature = "url")]
mod url;

use std::{fmt, str::FromStr};

use flowline_core::{id::ResourceId, name::NameError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::{
    error::{AddressError, AddressProblem},
    host::{HostName, MAX_HOST, MAX_LABEL},
    path::{MAX_PATH, MAX_SEGMENT, PathPrefix},
    rule::Style,
};

/// Where a component is found: scheme, host, optional port, and the path under which it answers.
///
/// Written without the scheme's own port and without a `/` at the end, so that one place has one text:
///
/// ```
/// use flowline_envs::address::Address;
/// let address: Address = "HTTPS://Api.Awesome.com:443/cool/".parse()?;
/// assert_eq!(address.to_string(), "https://api.awesome.com/cool");
/// assert_eq!(address.host().as_str(), "api.awesome.com");
/// assert_eq!(address.path().as_str(), "/cool");
/// # Ok::<(), flowline_envs::address::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: HostName,
    port: Option<u16>,
    path: PathPrefix,
    scheme: Scheme,
}

/// How an address is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// HTTP without encryption: loopback and tests.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that is meant when none is written: 80 or 443 (RFC 9110, section 4.2).
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Address {
    /// The whole of `host`, at the scheme's own port.
    pub fn new(scheme: Scheme, host: HostName) -> Self {
        Self { host, port: None, path: PathPrefix::root(), scheme }
    }

    /// The same at another port; the scheme's own is dropped.
    #[must_use]
    pub fn with_port(mut self, port: u16) -> Self {
        self.port = (port != self.scheme.default_port()).then_some(port);
        self
    }

    /// The same under another path.
    #[must_use]
    pub fn with_path(mut self, path: PathPrefix) -> Self {
        self.path = path;
        self
    }

    /// The same on another host.
    #[must_use]
    pub fn with_host(mut self, host: HostName) -> Self {
        self.host = host;
        self
    }

    /// How it is spoken to.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// The port, if it is not the scheme's own.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The port that a connection goes to.
    pub fn effective_port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.default_port())
    }

    /// The path under which it answers; `/` for the whole host.
    pub fn path(&self) -> &PathPrefix {
        &self.path
    }

    /// What a grant must cover for somebody to configure this address: `host:app.awesome.com`, or `path:api.awesome.com/cool`.
    ///
    /// # Errors
    /// If the address is longer than a resource's id may be (200 bytes).
    pub fn resource(&self) -> Result<ResourceId, NameError> {
        if self.path.is_root() {
            ResourceId::of("host", &self.host)
        } else {
            ResourceId::of("path", format_args!("{}{}", self.host, self.path))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if !self.path.is_root() {
            write!(f, "{}", self.path)?;
        }
        Ok(())
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `http://HOST`, `https://HOST:PORT/PATH` and so on.
    ///
    /// # Errors
    /// The first rule that `text` breaks, and what to write instead.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).map_err(|problem| AddressError::new("an address", text, problem))
    }
}

fn parse(text: &str) -> Result<Address, AddressProblem> {
    if text.is_empty() {
        return Err(AddressProblem::Empty);
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(AddressProblem::Scheme { found: None });
    };
    let scheme = match scheme {
        _ if scheme.eq_ignore_ascii_case("http") => Scheme::Http,
        _ if scheme.eq_ignore_ascii_case("https") => Scheme::Https,
        _ => return Err(AddressProblem::Scheme { found: Some(scheme.to_owned()) }),
    };
    if let Some(part) = rest.chars().find(|c| matches!(c, '?' | '#')) {
        return Err(AddressProblem::QueryOrFragment { character: part });
    }
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    if authority.contains('@') {
        return Err(AddressProblem::Credentials);
    }
    if authority.starts_with('[') {
        return Err(AddressProblem::Ipv6);
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (authority, None),
    };
    let address = Address::new(scheme, host::checked(host)?).with_path(path::checked(path)?);
    Ok(match port {
        Some(port) => address.with_port(port),
        None => address,
    })
}

fn parse_port(text: &str) -> Result<u16, AddressProblem> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if digits => Ok(port),
        _ => Err(AddressProblem::Port { found: text.to_owned() }),
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_place_has_one_text() {
        for (written, shown) in [
            ("https://app.awesome.com", "https://app.awesome.com"),
            ("https://app.awesome.com/", "https://app.awesome.com"),
            ("HTTPS://App.Awesome.Com:443", "https://app.awesome.com"),
            ("http://api.localhost:8080/cool/v2/", "http://api.localhost:8080/cool/v2"),
            ("http://127.0.0.1:9", "http://127.0.0.1:9"),
            ("http://localhost:80/Case_Stays.~", "http://localhost/Case_Stays.~"),
        ] {
            assert_eq!(written.parse::<Address>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_an_address_says_why_and_what_instead() {
        let label = "a".repeat(64);
        let host = format!("{}.com", ["abcdefghi"; 30].join("."));
        let said: Vec<_> = [
            "",
            "app.awesome.com",
            "ftp://awesome.com",
            "https://",
            "https://:80",
            "https://größe.awesome.com",
            "https://a..b",
            "https://.awesome.com",
            "https://awesome.com.",
            "https://-a.com",
            "https://a_b.com",
            &format!("https://{label}.com"),
            &format!("https://{host}"),
            "https://1.2.3",
            "https://1.2.3.256",
            "https://[::1]/",
            "https://user:secret@awesome.com",
            "https://awesome.com:0",
            "https://awesome.com:65536",
            "https://awesome.com:+80",
            "https://awesome.com/?q",
            "https://awesome.com/#f",
            "https://awesome.com/a/../b",
            "https://awesome.com/a/./b",
            "https://awesome.com/a//b",
            "https://awesome.com/a b",
            "https://awesome.com/%2e%2e",
            "https://awesome.com\\@fun.com",
        ]
        .iter()
        .map(|bad| bad.parse::<Address>().unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(said.join("\n"), @r"
            `` is not an address: it is empty; write one like `https://app.awesome.com`
            `app.awesome.com` is not an address: it has no scheme; start it with `https://` or `http://`
            `ftp://awesome.com` is not an address: `ftp` is not a scheme that is served; start it with `https://` or `http://`
            `https://` is not an address: it has no host; write one like `app.awesome.com`
            `https://:80` is not an address: it has no host; write one like `app.awesome.com`
            `https://größe.awesome.com` is not an address: 'ö' cannot stand in a host name; write its ASCII form (punycode, `xn--…`), or go through `url::Url` (feature `url`), which converts it
            `https://a..b` is not an address: its host has an empty label; put a letter or digit between the dots
            `https://.awesome.com` is not an address: its host has an empty label; put a letter or digit between the dots
            `https://awesome.com.` is not an address: its host ends with a dot; remove it
            `https://-a.com` is not an address: its label `-a` must not start or end with `-`
            `https://a_b.com` is not an address: '_' cannot stand in a host name; use letters, digits, `-` and dots
            `https://aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.com` is not an address: its label `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa` has 64 bytes, DNS allows 63; shorten it
            `https://abcdefghi.abcdefghi.abcdefghi.abcdefghi.abcdefghi.abcdefghi.abcdefghi.ab…` is not an address: its host has 303 bytes, DNS allows 253; shorten it
            `https://1.2.3` is not an address: its host ends in a number but is not an IPv4 address; write all four parts, each from 0 to 255
            `https://1.2.3.256` is not an address: its host ends in a number but is not an IPv4 address; write all four parts, each from 0 to 255
            `https://[::1]/` is not an address: an IPv6 address cannot be a host here; use a host name, such as `localhost`
            `***@awesome.com` is not an address: it must not hold a user name or password; give those as secrets
            `https://awesome.com:0` is not an address: `0` is not a port; use a number from 1 to 65535
            `https://awesome.com:65536` is not an address: `65536` is not a port; use a number from 1 to 65535
            `https://awesome.com:+80` is not an address: `+80` is not a port; use a number from 1 to 65535
            `https://awesome.com/?q` is not an address: it must end with its path; remove the `?` and what follows
            `https://awesome.com/#f` is not an address: it must end with its path; remove the `#` and what follows
            `https://awesome.com/a/../b` is not an address: its path must not hold `.` or `..` as a part; write where it leads instead
            `https://awesome.com/a/./b` is not an address: its path must not hold `.` or `..` as a part; write where it leads instead
            `https://awesome.com/a//b` is not an address: its path has an empty part; write one `/` between parts
            `https://awesome.com/a b` is not an address: ' ' cannot stand in its path; use letters, digits, `-`, `.`, `_` and `~`
            `https://awesome.com/%2e%2e` is not an address: '%' cannot stand in its path; use letters, digits, `-`, `.`, `_` and `~`
            `***@fun.com` is not an address: it must not hold a user name or password; give those as secrets
            ");
    }

    #[test]
    fn grants_are_asked_for_the_host_or_the_path() {
        let resource = |text: &str| text.parse::<Address>().unwrap().resource().unwrap().to_string();
        assert_eq!(resource("https://app.awesome.com"), "host:app.awesome.com");
        assert_eq!(resource("https://api.awesome.com:8443/cool"), "path:api.awesome.com/cool");
    }

    #[test]
    fn serde_writes_and_checks_the_text() {
        let address: Address = serde_json::from_str("\"http://app.localhost/\"").unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"http://app.localhost\"");
        let refused = serde_json::from_str::<Address>("\"http://a/../b\"").unwrap_err().to_string();
        assert!(refused.contains("`..`"), "{refused}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_reads_again(text in "\\PC*|https?://[a-zA-Z0-9.-]{1,20}(:[0-9]{1,5})?(/[a-z.~%]{0,4}){0,3}") {
            if let Ok(address) = text.parse::<Address>() {
                let shown = address.to_string();
                prop_assert_eq!(&shown.parse::<Address>().unwrap(), &address);
                prop_assert!(shown.is_ascii() && !shown.contains("/../"));
            }
        }
    }
}
