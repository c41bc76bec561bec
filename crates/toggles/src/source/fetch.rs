//! A request and its answer: the seam to whatever speaks HTTP.

use std::fmt::{self, Debug};

use async_trait::async_trait;
use flowline_core::{SignedDuration, Timestamp};
use jiff::{civil::DateTime, tz::TimeZone};

use super::SourceError;

/// What is asked of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Method {
    /// Read.
    #[default]
    Get,
    /// Write, or ask with a body.
    Post,
}

impl Method {
    /// As HTTP spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

/// A request. `Debug` shows no header values: they may hold credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub method: Method,
    /// Of whom: `http://host:port/path`.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// With a post.
    pub body: Vec<u8>,
    /// The most bytes that an answer's body may have.
    pub limit: usize,
}

impl Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} bytes)", self.method.as_str(), self.url, self.body.len())
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header field of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// How long the server asks to be left alone (`Retry-After`, RFC 9110, section 10.2.3). A date is read against the answer's own `Date`,
    /// so that nobody's clock needs to be right; without that, and if it is neither seconds nor a date, it asks for nothing.
    pub fn retry_after(&self) -> Option<SignedDuration> {
        let asked = self.header("retry-after")?.trim();
        if !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(SignedDuration::from_secs(asked.parse().unwrap_or(i64::MAX)));
        }
        let wait = http_date(asked)?.duration_since(http_date(self.header("date")?.trim())?);
        Some(wait.max(SignedDuration::ZERO))
    }
}

/// A date in any of HTTP's three forms (RFC 9110, section 5.6.7), of which servers send the first.
fn http_date(text: &str) -> Option<Timestamp> {
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let read = forms.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    TimeZone::UTC.to_timestamp(read).ok()
}

/// Speaks HTTP.
///
/// *Assumptions on the implementer*
/// 1. A body that breaks off before its announced end is [`SourceError::Unavailable`], never a short body.
/// 2. A body beyond [`Request::limit`] is [`SourceError::TooLarge`], noticed before more than that is in memory.
/// 3. Any status is an answer, not an error. Redirects are not followed: credentials go to no other host.
/// 4. The future may be dropped at any point and stops the request; limits of time are the caller's.
///
/// *Errors by kind*: [`SourceError`]. The suite is `testkit::fetch`.
#[async_trait]
pub trait Fetch: Debug + Send + Sync {
    /// Sends `request` and waits for the whole answer.
    async fn fetch(&self, request: Request) -> Result<Response, SourceError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let asked = |after: &str, date: &str| {
            let headers = [("Retry-After", after), ("date", date)];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let answer = Response { status: 503, headers: headers.into(), body: Vec::new() };
            answer.retry_after().map(|wait| wait.as_secs())
        };
        let now = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(asked("120", ""), Some(120));
        assert_eq!(asked("99999999999999999999999", now), Some(i64::MAX));
        for later in
            ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"]
        {
            assert_eq!(asked(later, now), Some(30), "{later}");
        }
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(0), "past already");
        assert_eq!(asked("Sun, 06 Nov 1994 08:50:07 GMT", ""), None, "against which clock?");
        for nonsense in ["", "-1", "1.5", "soon"] {
            assert_eq!(asked(nonsense, now), None, "{nonsense}");
        }
    }
}
