//! A document behind a URL, asked for with its entity tag (RFC 9110, section 13.1.2).

use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::secret::Secret;

use super::{Fetch, FlagSource, Loaded, Method, Request, SourceError, Tag};

/// A document behind a URL.
#[derive(Debug, Clone)]
pub struct HttpSource {
    fetch: Arc<dyn Fetch>,
    url: String,
    headers: Vec<(String, Secret)>,
    limit: usize,
}

impl HttpSource {
    /// The document at `url`, of at most 16 MiB.
    pub fn new(fetch: Arc<dyn Fetch>, url: impl Into<String>) -> Self {
        Self { fetch, url: url.into(), headers: Vec::new(), limit: 16 << 20 }
    }

    /// The features of an Unleash server: `base` is the URL up to `/api`, `token` a client token, `application` the name that the server
    /// shows.
    pub fn unleash(
        fetch: Arc<dyn Fetch>,
        base: &str,
        token: Secret,
        application: &str,
        instance: &str,
    ) -> Self {
        Self::new(fetch, format!("{}/client/features", base.trim_end_matches('/')))
            .header("authorization", token)
            .header("unleash-appname", Secret::new(application))
            .header("unleash-instanceid", Secret::new(instance))
            .header("unleash-client-spec", Secret::new("5.2.2"))
    }

    /// The same at another path.
    pub(super) fn at_path(mut self, base: &str, path: &str) -> Self {
        self.url = format!("{base}{path}");
        self
    }

    /// The same with a header field; shown nowhere.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// The same for documents of at most `bytes`.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

#[async_trait]
impl FlagSource for HttpSource {
    /// The URL without its query, which may hold a key.
    fn place(&self) -> String {
        self.url.split('?').next().unwrap_or_default().to_owned()
    }

    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError> {
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        headers.push(("accept".to_owned(), "application/json, text/*;q=0.9, */*;q=0.5".to_owned()));
        if let Some(tag) = known {
            headers.push(("if-none-match".to_owned(), tag.clone()));
        }
        let request = Request {
            method: Method::Get,
            url: self.url.clone(),
            headers,
            body: Vec::new(),
            limit: self.limit,
        };
        let answer = self.fetch.fetch(request).await?;
        let (place, retry_after) = (self.place(), answer.retry_after());
        match answer.status {
            304 if known.is_some() => Ok(Loaded::Same),
            200 => {
                let tag = answer.header("etag").map(str::to_owned);
                let page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
                if page {
                    let problem = "it is a web page, not a document; is there a login or a proxy before it?";
                    return Err(SourceError::Unusable { place, problem: problem.to_owned(), source: None });
                }
                let text = String::from_utf8(answer.body).map_err(|error| SourceError::Unusable {
                    place,
                    problem: "it is no UTF-8 text".to_owned(),
                    source: Some(error.into()),
                })?;
                Ok(Loaded::New { text, tag })
            }
            status @ (401 | 403) => Err(SourceError::Refused { place, status }),
            status => Err(SourceError::Status { place, status, retry_after }),
        }
    }
}
