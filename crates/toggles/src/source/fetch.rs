//! A request and its answer: the seam to whatever speaks HTTP.

use std::fmt::{self, Debug};

use async_trait::async_trait;

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
