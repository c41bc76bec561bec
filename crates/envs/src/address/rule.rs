//! Which address a component has in an environment that has none of its own: a pure function of the base address and the name.
//!
//! | style | `https://app.awesome.com` in `pr-123` | `https://api.awesome.com/cool` in `pr-123` |
//! | --- | --- | --- |
//! | [`Auto`](Style::Auto) | `https://pr-123-app.awesome.com` | `https://api.awesome.com/pr-123-cool` |
//! | [`Subdomain`](Style::Subdomain) | `https://pr-123-app.awesome.com` | `https://pr-123-api.awesome.com/cool` |
//! | [`Below`](Style::Below) | `https://pr-123.app.awesome.com` | `https://pr-123.api.awesome.com/cool` |
//! | [`Path`](Style::Path) | `https://app.awesome.com/pr-123` | `https://api.awesome.com/pr-123-cool` |
//!
//! A base host that stands directly below a top-level domain (`awesome.com`), or is a single label (`localhost`), gets its previews below
//! itself: `https://pr-123.awesome.com`, as the host *beside* it would be somebody else's. Where registrations happen deeper
//! (`awesome.co.uk`) choose [`Below`](Style::Below); nothing here knows the list of such domains, but no grant covers the wrong one.
//!
//! One environment and base have one address, another pair has another one: see [`label`](super::label) for how names are shortened
//! and kept apart.

use flowline_core::{
    error::{ErrorKind, Kinded},
    name::EnvironmentName,
};
use serde::{Deserialize, Serialize};

use super::{
    Address, AddressError, HostName, MAX_HOST, MAX_LABEL, MAX_SEGMENT, PathPrefix,
    label::{NoRoom, join},
};

/// How an environment's address is made from its base address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// [`Path`](Self::Path) if the base has a path or its host is an IPv4 address, otherwise [`Subdomain`](Self::Subdomain).
    #[default]
    Auto,
    /// Another host beside the base: `pr-123-app.awesome.com`. One wildcard record and certificate (`*.awesome.com`) cover all.
    Subdomain,
    /// Another host below the base: `pr-123.app.awesome.com`. Each base needs its own wildcard.
    Below,
    /// Another path on the same host: `/pr-123-cool`. The first part of the path names the environment; the rest stays.
    Path,
}

/// Why an environment has no address at some base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A host of numbers has no other host beside or below it.
    #[error(
        "`{environment}` cannot have a host of its own beside `{host}`, which is an IPv4 address; use style `path`, or a host name"
    )]
    Ipv4 {
        /// The environment.
        environment: EnvironmentName,
        /// The base's host.
        host: HostName,
    },
    /// The base is so long that no name fits beside it.
    #[error("`{environment}` cannot have an address at `{base}`")]
    NoRoom {
        /// The environment.
        environment: EnvironmentName,
        /// The base address.
        base: Box<Address>,
        /// What does not fit.
        #[source]
        source: NoRoom,
    },
    /// The address that the rule gives is too long as a whole.
    #[error("`{environment}` cannot have an address at `{base}`")]
    TooLong {
        /// The environment.
        environment: EnvironmentName,
        /// The base address.
        base: Box<Address>,
        /// The limit that it breaks.
        #[source]
        source: AddressError,
    },
}

impl Kinded for RuleError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Address {
    /// The address of what stands here in `environment`, which has no address of its own.
    ///
    /// Scheme and port stay. The answer is always well-formed, and the same whenever and wherever it is asked for.
    ///
    /// ```
    /// use flowline_envs::address::{Address, Style};
    /// let preview = "pr-123".parse()?;
    /// let at = |base: &str| base.parse::<Address>()?.in_environment(&preview, Style::Auto).map(|address| address.to_string()).map_err(Box::from);
    /// # type Error = Box<dyn std::error::Error>;
    /// # let at = |base: &str| -> Result<String, Error> { at(base) };
    /// assert_eq!(at("https://app.awesome.com")?, "https://pr-123-app.awesome.com");
    /// assert_eq!(at("https://api.awesome.com/cool")?, "https://api.awesome.com/pr-123-cool");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If the base is a host of numbers and the style asks for another host, or so long that not even a shortened name fits.
    pub fn in_environment(&self, environment: &EnvironmentName, style: Style) -> Result<Self, RuleError> {
        let no_room = |source| RuleError::NoRoom {
            environment: environment.clone(),
            base: Box::new(self.clone()),
            source,
        };
        let too_long = |source| RuleError::TooLong {
            environment: environment.clone(),
            base: Box::new(self.clone()),
            source,
        };
        let host = self.host();
        let (beside, parent) = match self.resolved(style) {
            Style::Path => {
                let mut segments = self.path().segments();
                let first = join(environment, segments.next(), MAX_SEGMENT).map_err(no_room)?;
                let path = segments.fold(format!("/{first}"), |path, segment| format!("{path}/{segment}"));
                return Ok(self.clone().with_path(PathPrefix::new(path).map_err(too_long)?));
            }
            _ if host.is_ipv4() => {
                return Err(RuleError::Ipv4 { environment: environment.clone(), host: host.clone() });
            }
            Style::Below => (None, Some(host.clone())),
            Style::Auto | Style::Subdomain => match host.parent().filter(may_be_shared) {
                Some(parent) => (Some(host.first_label()), Some(parent)),
                None => (None, Some(host.clone())),
            },
        };
        let parent = parent.as_ref().map_or("", HostName::as_str);
        let room = MAX_LABEL.min(MAX_HOST.saturating_sub(parent.len() + 1));
        let label = join(environment, beside, room).map_err(no_room)?;
        Ok(self.clone().with_host(HostName::new(format!("{label}.{parent}")).map_err(too_long)?))
    }

    fn resolved(&self, style: Style) -> Style {
        match style {
            Style::Auto if !self.path().is_root() || self.host().is_ipv4() => Style::Path,
            Style::Auto => Style::Subdomain,
            chosen => chosen,
        }
    }
}

/// Whether all hosts directly below `parent` may be taken to have one owner: not for a top-level domain, but for `localhost`, which always
/// means this machine (RFC 6761, section 6.3).
fn may_be_shared(parent: &HostName) -> bool {
    parent.as_str() == "localhost" || parent.labels().count() > 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn derived(base: &str, environment: &str, style: Style) -> String {
        let base: Address = base.parse().unwrap();
        match base.in_environment(&environment.parse().unwrap(), style) {
            Ok(address) => address.to_string(),
            Err(error) => flowline_core::error::chain(&error),
        }
    }

    #[test]
    fn the_table_of_styles() {
        let bases = [
            "https://app.awesome.com",
            "https://api.awesome.com/cool",
            "https://api.awesome.com:8443/cool/v2",
            "http://app.localhost:8080",
            "http://localhost:8080",
            "https://awesome.com",
            "http://127.0.0.1:8080",
        ];
        let mut lines = Vec::new();
        for base in bases {
            lines.push(base.to_owned());
            for style in [Style::Auto, Style::Subdomain, Style::Below, Style::Path] {
                lines.push(format!("  {style:?}: {}", derived(base, "pr-123", style)));
            }
        }
        insta::assert_snapshot!(lines.join("\n"), @r"
            https://app.awesome.com
              Auto: https://pr-123-app.awesome.com
              Subdomain: https://pr-123-app.awesome.com
              Below: https://pr-123.app.awesome.com
              Path: https://app.awesome.com/pr-123
            https://api.awesome.com/cool
              Auto: https://api.awesome.com/pr-123-cool
              Subdomain: https://pr-123-api.awesome.com/cool
              Below: https://pr-123.api.awesome.com/cool
              Path: https://api.awesome.com/pr-123-cool
            https://api.awesome.com:8443/cool/v2
              Auto: https://api.awesome.com:8443/pr-123-cool/v2
              Subdomain: https://pr-123-api.awesome.com:8443/cool/v2
              Below: https://pr-123.api.awesome.com:8443/cool/v2
              Path: https://api.awesome.com:8443/pr-123-cool/v2
            http://app.localhost:8080
              Auto: http://pr-123-app.localhost:8080
              Subdomain: http://pr-123-app.localhost:8080
              Below: http://pr-123.app.localhost:8080
              Path: http://app.localhost:8080/pr-123
            http://localhost:8080
              Auto: http://pr-123.localhost:8080
              Subdomain: http://pr-123.localhost:8080
              Below: http://pr-123.localhost:8080
              Path: http://localhost:8080/pr-123
            https://awesome.com
              Auto: https://pr-123.awesome.com
              Subdomain: https://pr-123.awesome.com
              Below: https://pr-123.awesome.com
              Path: https://awesome.com/pr-123
            http://127.0.0.1:8080
              Auto: http://127.0.0.1:8080/pr-123
              Subdomain: `pr-123` cannot have a host of its own beside `127.0.0.1`, which is an IPv4 address; use style `path`, or a host name
              Below: `pr-123` cannot have a host of its own beside `127.0.0.1`, which is an IPv4 address; use style `path`, or a host name
              Path: http://127.0.0.1:8080/pr-123
            ");
    }

    #[test]
    fn a_base_label_of_63_characters_is_shortened_and_stays_apart_from_its_neighbour() {
        let base = |last: &str| format!("https://{}{last}.awesome.com", "a".repeat(62));
        let (one, other) =
            (derived(&base("x"), "pr-123", Style::Auto), derived(&base("y"), "pr-123", Style::Auto));
        insta::assert_snapshot!(format!("{one}\n{other}"), @r"
            https://pr-123-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-1hoz5bvn.awesome.com
            https://pr-123-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-01oesnzn.awesome.com
            ");
        assert_ne!(one, other);
    }

    #[test]
    fn a_base_of_253_characters_has_an_error_and_not_a_bad_host() {
        let long = ["a", &"b".repeat(63), &"c".repeat(63), &"d".repeat(63), &"e".repeat(59)].join(".");
        assert_eq!(long.len(), MAX_HOST);
        insta::assert_snapshot!(derived(&format!("https://{long}"), "pr-123", Style::Auto), @r"`pr-123` cannot have an address at `https://a.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb.ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.ddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd.eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee`: no label can be made for `pr-123-a`: 1 bytes are left for it, at least 10 are needed; shorten what stands around it");
    }

    proptest! {
        #[test]
        fn addresses_are_valid_distinct_and_stable(
            pairs in prop::collection::btree_set(
                ("(pr-[0-9]{1,3}|[ab](-[ab1]{1,2}){0,2}|[a-z]{50,63})", "(app|a|b-1|1-a|[a-z]{50,63})(\\.awesome)?\\.com(:80)?(/([ab1]|a-1)){0,2}"), 1..40,
            ),
            style in prop::sample::select(vec![Style::Auto, Style::Subdomain, Style::Below, Style::Path]),
        ) {
            let mut seen = BTreeMap::new();
            for (environment, base) in pairs {
                let base: Address = format!("https://{base}").parse().unwrap();
                let environment: EnvironmentName = environment.parse().unwrap();
                let address = base.in_environment(&environment, style).unwrap();
                prop_assert_eq!(address.to_string().parse::<Address>().unwrap(), address.clone());
                prop_assert_eq!(&base.in_environment(&environment, style).unwrap(), &address);
                prop_assert_ne!(&address, &base);
                prop_assert_eq!((address.scheme(), address.port()), (base.scheme(), base.port()));
                if let Some(other) = seen.insert(address.clone(), (environment.clone(), base.clone())) {
                    prop_assert!(false, "{:?} and {other:?} both give {address}", (environment, base));
                }
            }
        }
    }
}
