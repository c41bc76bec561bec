//! What a proxy changes in a message's fields: hop-by-hop ones end here (RFC 9110, section 7.6.1), and each side learns of the other.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap,
    header::{
        CONNECTION, CONTENT_LOCATION, EXPECT, Entry, FORWARDED, HOST, HeaderName, HeaderValue, LOCATION,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VIA,
    },
};

use super::{super::matching::below, lanes};

/// The environment whose deployment answered.
pub(super) const ENVIRONMENT: HeaderName = HeaderName::from_static("x-flowline-environment");
/// The environment and component that answered.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-flowline-served-by");
/// To the upstream: the environment that was asked, which differs from its own on a fall-through.
pub(super) const ASKED: HeaderName = HeaderName::from_static("x-flowline-asked");

/// How this router names itself in `Via`.
const US: &str = "1.1 flowline";

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Whether a request asks to go on in another protocol, such as WebSocket.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers.get_all(CONNECTION).iter().any(|value| {
            value
                .to_str()
                .is_ok_and(|list| list.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")))
        })
}

/// Whether a request passed so many of these routers that it must be going in circles. Two in a row may be meant.
pub(super) fn has_gone_in_circles(headers: &HeaderMap) -> bool {
    headers.get_all(VIA).iter().filter(|value| *value == US).count() >= 4
}

/// Takes out what concerns one connection only. An upgrade that both sides want is put back, as this proxy passes it through.
pub(super) fn end_hop(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = if upgrade { headers.get(UPGRADE).cloned() } else { None };
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .filter_map(|word| word.trim().parse().ok())
            // Nobody may have the fields that the message itself stands on taken out.
            .filter(|name| *name != HOST && !is_ours(name))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// What the upstream learns: who asks, for which host, and the way that the request came.
///
/// Unless `trusted` (another proxy stands before this one), what the client claims of these is thrown away.
pub(super) fn forwarded(headers: &mut HeaderMap, peer: SocketAddr, trusted: bool) {
    // Hyper has answered `Expect: 100-continue` by the time that the body is read.
    headers.remove(EXPECT);
    let address = peer.ip().to_canonical();
    let host = headers.get(HOST).cloned();
    let proto = HeaderValue::from_static("http");
    if trusted {
        let mut chain = Vec::new();
        for value in headers.get_all(FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(address.to_string().as_bytes());
        if let Ok(chain) = HeaderValue::from_bytes(&chain) {
            headers.insert(FORWARDED_FOR, chain);
        }
        if let (Entry::Vacant(place), Some(host)) = (headers.entry(FORWARDED_HOST), host) {
            place.insert(host);
        }
        headers.entry(FORWARDED_PROTO).or_insert(proto);
    } else {
        headers.remove(FORWARDED);
        headers.insert(FORWARDED_FOR, address_field(address));
        if let Some(host) = host {
            headers.insert(FORWARDED_HOST, host);
        }
        headers.insert(FORWARDED_PROTO, proto);
    }
    headers.append(VIA, HeaderValue::from_static(US));
}

/// What the upstream learns of the route that the request took.
pub(super) fn routed(headers: &mut HeaderMap, entry: &lanes::Entry) {
    headers.insert(ASKED, entry.asked.clone());
    match &entry.prefix {
        Some(prefix) => headers.insert(FORWARDED_PREFIX, prefix.clone()),
        None => headers.remove(FORWARDED_PREFIX),
    };
}

/// What the client learns: who answered.
pub(super) fn answered(headers: &mut HeaderMap, entry: &lanes::Entry) {
    headers.insert(ENVIRONMENT, entry.environment.clone());
    headers.insert(SERVED_BY, entry.served_by.clone());
}

/// Where an upstream names paths of its own, they are given the route's path back, so that redirects and cookies stay in the preview.
pub(super) fn unrewrite(headers: &mut HeaderMap, entry: &lanes::Entry) {
    let Some(rewrite) = &entry.route.rewrite else { return };
    let (inner, outer) = (rewrite.as_str(), entry.route.path.as_str());
    for name in [LOCATION, CONTENT_LOCATION] {
        if let Some(moved) =
            headers.get(&name).and_then(|value| outer_path(value.to_str().ok()?, inner, outer))
        {
            headers.insert(name, moved);
        }
    }
    if headers.contains_key(SET_COOKIE) {
        let cookies: Vec<HeaderValue> = headers
            .get_all(SET_COOKIE)
            .iter()
            .map(|value| {
                value
                    .to_str()
                    .ok()
                    .and_then(|text| outer_cookie(text, inner, outer))
                    .unwrap_or_else(|| value.clone())
            })
            .collect();
        headers.remove(SET_COOKIE);
        for cookie in cookies {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("x-forwarded-") || name.starts_with("x-flowline-")
}

fn address_field(address: IpAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// `/cool/login` as `/pr-7-cool/login`; `None` if it is no path below `inner`.
fn outer_path(location: &str, inner: &str, outer: &str) -> Option<HeaderValue> {
    let path_ends = location.find(['?', '#']).unwrap_or(location.len());
    let (path, more) = location.split_at(path_ends);
    if path.starts_with("//") {
        return None;
    }
    let rest = below(inner, path)?;
    let outer = outer.strip_suffix('/').unwrap_or(outer);
    let moved =
        if outer.is_empty() && rest.is_empty() { format!("/{more}") } else { format!("{outer}{rest}{more}") };
    HeaderValue::from_str(&moved).ok()
}

/// A cookie with its `Path` attribute moved as [`outer_path`] moves paths; `None` if it has none below `inner`.
fn outer_cookie(cookie: &str, inner: &str, outer: &str) -> Option<HeaderValue> {
    let mut moved = false;
    let parts: Vec<String> = cookie
        .split(';')
        .enumerate()
        .map(|(index, part)| {
            let path = part
                .trim()
                .split_once('=')
                .filter(|(name, _)| index > 0 && name.trim().eq_ignore_ascii_case("path"));
            match path.and_then(|(_, path)| outer_path(path.trim(), inner, outer)) {
                Some(path) => {
                    moved = true;
                    format!(" Path={}", path.to_str().unwrap_or(outer))
                }
                None => part.to_owned(),
            }
        })
        .collect();
    if moved { HeaderValue::from_str(&parts.join(";")).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_upstream_get_the_preview_back() {
        let outer = |text: &str| {
            outer_path(text, "/cool", "/pr-7-cool").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(outer("/cool/login?next=/cool").as_deref(), Some("/pr-7-cool/login?next=/cool"));
        assert_eq!(outer("/cool").as_deref(), Some("/pr-7-cool"));
        for kept in ["/cooler", "https://elsewhere.com/cool", "//elsewhere.com/cool", "login", ""] {
            assert_eq!(outer(kept), None, "{kept}");
        }
    }

    #[test]
    fn cookies_stay_in_the_preview() {
        let cookie = |text: &str| {
            outer_cookie(text, "/cool", "/pr-7-cool").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(
            cookie("path=/cool; Path=/cool; Secure").as_deref(),
            Some("path=/cool; Path=/pr-7-cool; Secure")
        );
        assert_eq!(cookie("a=b; Secure"), None);
    }

    #[test]
    fn fields_named_by_connection_go_but_never_the_host() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private, host, x-forwarded-for"),
            ("x-private", "1"),
            ("host", "a"),
            ("x-forwarded-for", "1.2.3.4"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        end_hop(&mut headers, false);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host", "x-forwarded-for"]);
    }
}
