//! Whether something that speaks HTTP is well: what is asked, what is expected, and the judgement as a plain function.
//!
//! [`HttpProbe`] is data and [`judge`] decides; feature `router` adds what does it: [`Client`], [`HttpProbe::run`], and a small server
//! ([`serve`]) for components that want one without a framework.

#[cfg(feature = "router")]
pub(crate) mod accept;
#[cfg(feature = "router")]
mod client;
#[cfg(feature = "router")]
pub(crate) mod connection;
#[cfg(feature = "router")]
pub(crate) mod framing;
#[cfg(feature = "router")]
mod run;
#[cfg(feature = "router")]
mod server;

use std::{borrow::Cow, net::SocketAddr};

use flowline_core::{
    SignedDuration,
    error::{ErrorKind, Kinded},
    verdict::{Evidence, Outcome, Verdict},
};
use serde::{Deserialize, Serialize};

#[cfg(feature = "router")]
pub use self::{
    accept::ServerLimits,
    client::{Client, ClientRequest, HttpError},
    server::{Reply, ServedRequest, Server, serve, serve_on},
};

/// One question to an HTTP server, and what a good answer looks like.
///
/// ```
/// use flowline_envs::probe::{HttpProbe, HttpResponse, judge};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let probe = HttpProbe::get("http://api.localhost:8080/cool")?.expecting_body("hello");
/// let response = HttpResponse { status: 500, headers: vec![], body: b"oops".to_vec(), truncated: false };
/// assert_eq!(
///     judge(&probe, &response).to_string(),
///     "fail (GET http://api.localhost:8080/cool: status 500, expected 200; \
///      GET http://api.localhost:8080/cool: the body does not contain `hello`, it begins with `oops`)"
/// );
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpProbe {
    /// What is asked for.
    pub url: HttpUrl,
    /// Where the connection goes. Without it: to 127.0.0.1 for `localhost` and names below it, otherwise to where the name leads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_to: Option<SocketAddr>,
    /// The status that is expected. 200 unless told.
    #[serde(default = "ok")]
    pub expect_status: u16,
    /// Texts that the body must contain, each of them, within its first MiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect_body: Vec<String>,
    /// Fields that the response must carry: name (any case) and exact value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect_headers: Vec<(String, String)>,
    /// Time for each attempt, more than zero. 5 seconds unless told.
    #[serde(default = "five_seconds")]
    pub timeout: SignedDuration,
    /// How often to ask until the answer is good, 1 or more. Once unless told.
    #[serde(default = "once")]
    pub attempts: u32,
    /// Time between attempts. 200 milliseconds unless told.
    #[serde(default = "moment")]
    pub pause: SignedDuration,
}

impl HttpProbe {
    /// Expects 200 from `GET url`, asked once.
    ///
    /// # Errors
    /// [`UrlError`] if `url` is not a plain `http` address.
    pub fn get(url: &str) -> Result<Self, UrlError> {
        Ok(Self {
            url: HttpUrl::new(url)?,
            connect_to: None,
            expect_status: ok(),
            expect_body: Vec::new(),
            expect_headers: Vec::new(),
            timeout: five_seconds(),
            attempts: once(),
            pause: moment(),
        })
    }

    /// With the connection going to `address` whatever the name says.
    #[must_use]
    pub fn connecting_to(mut self, address: SocketAddr) -> Self {
        self.connect_to = Some(address);
        self
    }

    /// Expecting another status.
    #[must_use]
    pub fn expecting_status(mut self, status: u16) -> Self {
        self.expect_status = status;
        self
    }

    /// Expecting `text` in the body.
    #[must_use]
    pub fn expecting_body(mut self, text: impl Into<String>) -> Self {
        self.expect_body.push(text.into());
        self
    }

    /// Expecting a field with exactly this value.
    #[must_use]
    pub fn expecting_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.expect_headers.push((name.into(), value.into()));
        self
    }

    /// With another limit for each attempt.
    #[must_use]
    pub fn within(mut self, timeout: SignedDuration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Asking up to `attempts` times, `pause` apart, until the answer is good.
    #[must_use]
    pub fn trying(mut self, attempts: u32, pause: SignedDuration) -> Self {
        self.attempts = attempts.max(1);
        self.pause = pause;
        self
    }

    /// What is asked, for a person: `GET http://app.localhost:8080/`.
    pub fn subject(&self) -> String {
        format!("GET {}", self.url)
    }
}

/// A response, its body up to a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status, such as 200.
    pub status: u16,
    /// The fields in the order in which they came, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body was longer than what was kept.
    pub truncated: bool,
}

impl HttpResponse {
    /// The first value of a field; `name` in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }
}

/// Whether `response` is what `probe` expects: a pass, or a failure with one piece of evidence for each expectation that it breaks.
pub fn judge(probe: &HttpProbe, response: &HttpResponse) -> Verdict {
    let mut objections = Vec::new();
    if response.status != probe.expect_status {
        objections.push(format!("status {}, expected {}", response.status, probe.expect_status));
    }
    for (name, expected) in &probe.expect_headers {
        match response.header(name) {
            Some(seen) if seen == expected => {}
            Some(seen) => objections.push(format!("field `{name}` is `{seen}`, expected `{expected}`")),
            None => objections.push(format!("field `{name}` is missing, expected `{expected}`")),
        }
    }
    let text = response.text();
    for expected in probe.expect_body.iter().filter(|expected| !text.contains(expected.as_str())) {
        let beginning: String = text.chars().take(60).flat_map(char::escape_debug).collect();
        objections.push(format!("the body does not contain `{expected}`, it begins with `{beginning}`"));
    }
    if objections.is_empty() {
        return Verdict::of(Outcome::Pass, probe.subject(), format!("status {}", response.status));
    }
    let evidence = objections
        .into_iter()
        .map(|seen| Evidence { subject: probe.subject(), outcome: Outcome::Fail, seen })
        .collect();
    Verdict { outcome: Outcome::Fail, evidence }
}

/// A plain `http` address: host, port, path and query.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpUrl {
    authority: String,
    /// Where the host ends in `authority`.
    host: usize,
    port: u16,
    path: String,
}

impl HttpUrl {
    /// Reads `http://HOST[:PORT][/PATH][?QUERY]`. A fragment is left out.
    ///
    /// # Errors
    /// [`UrlError`] with what is wrong.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let refuse = |problem| Err(UrlError { url: url.to_owned(), problem });
        let Some(rest) = url.strip_prefix("http://") else {
            return refuse(if url.starts_with("https://") {
                "this client does not speak TLS; probe the component behind it, with `http://`"
            } else {
                "it must start with `http://`"
            });
        };
        if rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return refuse("it may hold printable ASCII without space only; percent-encode the rest");
        }
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return refuse("it must not carry a user name");
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(port) => (host, port),
                Err(_) => return refuse("its port is not a number from 0 to 65535"),
            },
            _ => (authority, 80),
        };
        if host.is_empty() {
            return refuse("it names no host");
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { authority: authority.to_owned(), host: host.len(), port, path })
    }

    /// Host and port as they were written: what the `Host` field says.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.authority.get(..self.host).unwrap_or(&self.authority)
    }

    /// The port; 80 if none was written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Path and query.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl std::fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

impl std::str::FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::new(url)
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a text is not an address that can be probed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot probe `{url}`: {problem}")]
pub struct UrlError {
    url: String,
    problem: &'static str,
}

impl Kinded for UrlError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

fn ok() -> u16 {
    200
}

fn once() -> u32 {
    1
}

fn five_seconds() -> SignedDuration {
    SignedDuration::from_secs(5)
}

fn moment() -> SignedDuration {
    SignedDuration::from_millis(200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        let url = HttpUrl::new("http://App.localhost:8080/x?y=1#z").unwrap();
        assert_eq!((url.host(), url.port(), url.path()), ("App.localhost", 8080, "/x?y=1"));
        assert_eq!(HttpUrl::new("http://a?q").unwrap().to_string(), "http://a/?q");
        assert_eq!(HttpUrl::new("http://[::1]:9/").unwrap().host(), "[::1]");
        assert_eq!(HttpUrl::new("http://[::1]/").unwrap().port(), 80);
        let said = |text: &str| HttpUrl::new(text).unwrap_err().to_string();
        let all = ["https://a/", "a", "http:///x", "http://a:b/", "http://u@a/", "http://a b/"]
            .map(said)
            .join("\n");
        insta::assert_snapshot!(all, @r"
        cannot probe `https://a/`: this client does not speak TLS; probe the component behind it, with `http://`
        cannot probe `a`: it must start with `http://`
        cannot probe `http:///x`: it names no host
        cannot probe `http://a:b/`: its port is not a number from 0 to 65535
        cannot probe `http://u@a/`: it must not carry a user name
        cannot probe `http://a b/`: it may hold printable ASCII without space only; percent-encode the rest
        ");
    }

    #[test]
    fn a_probe_is_read_from_its_address_alone() {
        let probe: HttpProbe = serde_json::from_str(r#"{"url": "http://a.localhost/"}"#).unwrap();
        assert_eq!(probe, HttpProbe::get("http://a.localhost/").unwrap());
        let again: HttpProbe = serde_json::from_str(&serde_json::to_string(&probe).unwrap()).unwrap();
        assert_eq!(again, probe);
    }

    #[test]
    fn every_broken_expectation_is_evidence() {
        let probe = HttpProbe::get("http://a/")
            .unwrap()
            .expecting_status(201)
            .expecting_header("X-Version", "2")
            .expecting_header("X-Other", "y")
            .expecting_body("new");
        let response = HttpResponse {
            status: 200,
            headers: vec![("x-version".into(), "1".into())],
            body: b"old\n".to_vec(),
            truncated: false,
        };
        insta::assert_snapshot!(
            judge(&probe, &response).objections().map(|objection| objection.seen.as_str()).collect::<Vec<_>>().join("\n"),
            @r"
        status 200, expected 201
        field `X-Version` is `1`, expected `2`
        field `X-Other` is missing, expected `y`
        the body does not contain `new`, it begins with `old\n`
        "
        );
        let good = HttpResponse {
            status: 201,
            headers: vec![("x-version".into(), "2".into()), ("x-other".into(), "y".into())],
            body: b"anew".to_vec(),
            truncated: false,
        };
        assert!(judge(&probe, &good).passed());
    }
}
