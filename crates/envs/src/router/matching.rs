//! Which route answers a request: by host without case and port, then by the longest path prefix on whole segments.

use std::borrow::Cow;

use super::{Route, RouteTable, Target};

/// A route that answers a request, and what of the request's path lies below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Matched<'a> {
    /// The route.
    pub route: &'a Route,
    /// The path after the route's own: empty, or from a `/` on.
    pub rest: &'a str,
}

impl<'a> Matched<'a> {
    /// The path that the target sees. Directories see the part below the route, upstreams the whole, either with the route's rewrite in
    /// its place.
    ///
    /// ```
    /// # use flowline_envs::router::{Route, RouteTable, Target};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let upstream = Target::Upstream("127.0.0.1:8000".parse()?);
    /// let route = Route::new("api.awesome.com".parse()?, "/pr-7-cool".parse()?, upstream, "pr-7".parse()?, "api".parse()?);
    /// let table = RouteTable::new([route.rewritten_to("/cool".parse()?)])?;
    /// let path = |path| table.find("API.awesome.com:80", path).map(|matched| matched.target_path().into_owned());
    /// assert_eq!(path("/pr-7-cool/x").as_deref(), Some("/cool/x"));
    /// assert_eq!(path("/pr-7-cool").as_deref(), Some("/cool"));
    /// assert_eq!(path("/pr-7-cooler"), None);
    /// # Ok(()) }
    /// ```
    pub fn target_path(&self) -> Cow<'a, str> {
        target_path(self.route, self.rest)
    }
}

impl RouteTable {
    /// The route that answers a request whose `Host` field is `host` and whose path is `path` (without query, percent-encoding left as it
    /// is). `None` if the host is unknown, malformed, or no route of it covers the path.
    pub fn find<'a>(&'a self, host: &str, path: &'a str) -> Option<Matched<'a>> {
        let host = host_of(host)?;
        longest(self.at_host(&host), |route| route.path.as_str(), path)
            .map(|(route, rest)| Matched { route, rest })
    }
}

/// Of `candidates`, the one with the longest prefix that covers `path`, with the rest of the path.
pub(super) fn longest<T>(
    candidates: impl Iterator<Item = T>,
    prefix: impl Fn(&T) -> &str,
    path: &str,
) -> Option<(T, &str)> {
    candidates
        .filter_map(|candidate| below(prefix(&candidate), path).map(|rest| (candidate, rest)))
        .min_by_key(|(_, rest)| rest.len())
}

/// What of `path` lies below `prefix`, if `prefix` covers it: nothing, or from a `/` on. Whole segments only: `/cool` covers `/cool/x`,
/// not `/cooler`.
pub(super) fn below<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// The path that `route`'s target sees of a request with `rest` below the route.
pub(super) fn target_path<'a>(route: &Route, rest: &'a str) -> Cow<'a, str> {
    let base = match (&route.rewrite, &route.target) {
        (Some(rewrite), _) => rewrite.as_str(),
        (None, Target::Directory(_)) => "/",
        (None, _) => route.path.as_str(),
    };
    match (base.strip_suffix('/').unwrap_or(base), rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (base, rest) => Cow::Owned(format!("{base}{rest}")),
    }
}

/// The host of a `Host` field: in lower case, without port and without the root's dot. `None` if it is none.
pub(super) fn host_of(field: &str) -> Option<Cow<'_, str>> {
    let host = match field.rsplit_once(':') {
        // An IPv6 literal without a port ends with `]`.
        Some((host, port)) if !port.ends_with(']') => {
            if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            host
        }
        _ => field,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.is_empty()
        || !host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':' | b'[' | b']')
        })
    {
        return None;
    }
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_compared_without_case_port_and_root() {
        for same in ["app.localhost", "APP.localhost:8080", "app.localhost.", "App.Localhost.:1"] {
            assert_eq!(host_of(same).as_deref(), Some("app.localhost"), "{same}");
        }
        assert_eq!(host_of("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(host_of("[::1]").as_deref(), Some("[::1]"));
        for none in ["", ":80", ".", "a b", "a/b", "user@app.localhost", "app.localhost:8o", "größe"] {
            assert_eq!(host_of(none), None, "{none}");
        }
    }

    #[test]
    fn prefixes_cover_whole_segments() {
        assert_eq!(below("/cool", "/cool"), Some(""));
        assert_eq!(below("/cool", "/cool/x"), Some("/x"));
        assert_eq!(below("/cool", "/cooler"), None);
        assert_eq!(below("/cool", "/coo"), None);
        assert_eq!(below("/", "/x"), Some("/x"));
        assert_eq!(below("/", "/"), Some("/"));
    }

    proptest::proptest! {
        /// Against the definition: of all routes whose segments the path begins with, the one with most segments.
        #[test]
        fn the_route_with_most_segments_in_common_wins(
            prefixes in proptest::collection::btree_set("(/[ab]{1,2}){0,3}", 0..8),
            path in "(/[ab]{0,2}){1,4}",
        ) {
            let routes = prefixes.iter().map(|prefix| {
                let path = if prefix.is_empty() { "/" } else { prefix };
                Route::new(
                    "a.com".parse().unwrap(),
                    path.parse().unwrap(),
                    Target::Unavailable(String::new()),
                    "production".parse().unwrap(),
                    "web".parse().unwrap(),
                )
            });
            let table = RouteTable::new(routes).unwrap();
            let segments = |path: &str| -> Vec<String> { path.split('/').skip(1).map(str::to_owned).collect() };
            let asked = segments(&path);
            let expected = prefixes
                .iter()
                .filter(|prefix| asked.starts_with(&segments(prefix)))
                .max_by_key(|prefix| segments(prefix).len());
            let found = table.find("a.com", &path);
            proptest::prop_assert_eq!(
                found.map(|matched| matched.route.path.as_str().trim_end_matches('/').to_owned()),
                expected.cloned()
            );
            if let Some(Matched { route, rest }) = found {
                proptest::prop_assert_eq!(format!("{}{rest}", route.path.as_str().trim_end_matches('/')), path);
            }
        }

        /// Whatever a client sends as a host, looking it up ends.
        #[test]
        fn any_text_may_be_a_host(host in ".*") {
            let _found = host_of(&host);
        }
    }
}
