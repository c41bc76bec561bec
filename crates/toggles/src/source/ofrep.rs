//! A server that evaluates itself: the OpenFeature Remote Evaluation Protocol, one flag or all.

use std::{fmt::Write, sync::Arc};

use flowline_core::secret::Secret;
use serde_json::{Value as Json, json};

use super::{Fetch, Method, Request, Response, SourceError, Tag};
use crate::{
    client::{Details, ErrorCode, EvaluationContext, EvaluationError, FlagMetadata, Reason, TARGETING_KEY},
    value::Value,
};

/// A client of an OFREP server. Each call is a request: this is for jobs and for filling caches. On a hot path, for one context at a time,
/// serve what an [`OfrepSource`](super::OfrepSource) holds.
#[derive(Debug, Clone)]
pub struct Ofrep {
    fetch: Arc<dyn Fetch>,
    base: String,
    headers: Vec<(String, Secret)>,
    limit: usize,
}

/// All flags of a server for one context.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    /// Each flag; one that could not be evaluated has a null value and an error.
    pub flags: Vec<Details<Value>>,
    /// What to give next time.
    pub tag: Option<Tag>,
}

impl Ofrep {
    /// The server at `base`, below which `/ofrep/v1` lies.
    pub fn new(fetch: Arc<dyn Fetch>, base: impl Into<String>) -> Self {
        Self {
            fetch,
            base: base.into().trim_end_matches('/').to_owned(),
            headers: Vec::new(),
            limit: 16 << 20,
        }
    }

    /// The same with a header field, such as `authorization`; shown nowhere.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.headers.push((name.into(), value));
        self
    }

    /// The same for answers of at most `bytes`; by default 16 MiB.
    #[must_use]
    pub fn at_most(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// One flag for `context`; `default` if anything goes wrong, with what it was. An answer without a value is the default, too.
    pub async fn evaluate(&self, key: &str, default: Value, context: &EvaluationContext) -> Details<Value> {
        let outcome = self.ask(&format!("/{}", escaped(key)), context, None).await;
        let failed = |code, message: String| {
            Details::failed(key.into(), default.clone(), EvaluationError::new(code, message))
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(error) => return failed(ErrorCode::General, flowline_core::error::chain(&error)),
        };
        let body: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
        match answer.status {
            200 => details(key, &body, default.clone())
                .unwrap_or_else(|error| Details::failed(key.into(), default, error)),
            400 | 404 if body["errorCode"].is_string() => Details::failed(key.into(), default, stated(&body)),
            404 => failed(ErrorCode::FlagNotFound, format!("there is no flag `{key}`")),
            status @ (401 | 403) => {
                failed(ErrorCode::General, format!("refused with status {status}; check the credentials"))
            }
            429 => {
                let wait = answer.header("retry-after").unwrap_or("a while");
                failed(ErrorCode::General, format!("asked too often; try again after {wait}"))
            }
            status => failed(ErrorCode::General, format!("the server answered with status {status}")),
        }
    }

    /// All flags for `context`; `None`: they are those that `known` marks.
    ///
    /// # Errors
    /// As [`Fetch::fetch`], and any answer that is not a list of flags.
    pub async fn evaluate_all(
        &self,
        context: &EvaluationContext,
        known: Option<&Tag>,
    ) -> Result<Option<Bulk>, SourceError> {
        let Some((flags, tag)) = self.bulk(context, known).await? else { return Ok(None) };
        let flags = flags
            .iter()
            .filter_map(|flag| {
                let key = flag["key"].as_str()?;
                Some(
                    details(key, flag, Value::Null)
                        .unwrap_or_else(|error| Details::failed(key.into(), Value::Null, error)),
                )
            })
            .collect();
        Ok(Some(Bulk { flags, tag }))
    }

    /// The flags as the server wrote them.
    pub(super) async fn bulk(
        &self,
        context: &EvaluationContext,
        known: Option<&Tag>,
    ) -> Result<Option<(Vec<Json>, Option<Tag>)>, SourceError> {
        let answer = self.ask("", context, known).await?;
        let (place, retry_after) = (self.place(""), answer.retry_after());
        match answer.status {
            304 if known.is_some() => Ok(None),
            200 => {
                let mut body: Json = serde_json::from_slice(&answer.body).unwrap_or_default();
                if let Some(Json::Array(flags)) = body.get_mut("flags").map(Json::take) {
                    return Ok(Some((flags, answer.header("etag").map(str::to_owned))));
                }
                let problem = "it is no JSON object with a list `flags`".to_owned();
                Err(SourceError::Unusable { place, problem, source: None })
            }
            status @ (401 | 403) => Err(SourceError::Refused { place, status }),
            status => Err(SourceError::Status { place, status, retry_after }),
        }
    }

    pub(super) fn place(&self, path: &str) -> String {
        format!("{}/ofrep/v1/evaluate/flags{path}", self.base)
    }

    async fn ask(
        &self,
        path: &str,
        context: &EvaluationContext,
        known: Option<&Tag>,
    ) -> Result<Response, SourceError> {
        let mut fields = serde_json::Map::new();
        for (name, field) in context.fields() {
            fields.insert(name.to_owned(), field.to_value().into());
        }
        if let Some(key) = context.targeting_key() {
            fields.insert(TARGETING_KEY.to_owned(), key.into());
        }
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
        headers.push(("content-type".to_owned(), "application/json".to_owned()));
        headers.extend(known.map(|tag| ("if-none-match".to_owned(), tag.clone())));
        let body = json!({ "context": fields }).to_string().into_bytes();
        let request =
            Request { method: Method::Post, url: self.place(path), headers, body, limit: self.limit };
        self.fetch.fetch(request).await
    }
}

/// A success or a flag of a bulk answer.
fn details(key: &str, body: &Json, default: Value) -> Result<Details<Value>, EvaluationError> {
    if body["errorCode"].is_string() {
        return Err(stated(body));
    }
    if !body.is_object() {
        return Err(EvaluationError::new(ErrorCode::ParseError, "the server's answer is no JSON object"));
    }
    let metadata = Value::from(&body["metadata"]);
    let entries = metadata.as_object().into_iter().flatten();
    Ok(Details {
        key: key.into(),
        value: body.get("value").filter(|value| !value.is_null()).map_or(default, Value::from),
        variant: body["variant"].as_str().map(Into::into),
        reason: body["reason"].as_str().map(Reason::from),
        error: None,
        metadata: FlagMetadata::of_values(entries.map(|(name, value)| (&**name, value))),
    })
}

/// The error that a server states.
pub(super) fn stated(body: &Json) -> EvaluationError {
    let code = match body["errorCode"].as_str().unwrap_or_default() {
        "PARSE_ERROR" => ErrorCode::ParseError,
        "TARGETING_KEY_MISSING" => ErrorCode::TargetingKeyMissing,
        "INVALID_CONTEXT" => ErrorCode::InvalidContext,
        "FLAG_NOT_FOUND" => ErrorCode::FlagNotFound,
        "TYPE_MISMATCH" => ErrorCode::TypeMismatch,
        _ => ErrorCode::General,
    };
    let message = body["errorDetails"].as_str().unwrap_or("the server did not say what is wrong");
    EvaluationError::new(code, message)
}

/// A flag's key as one segment of a path (RFC 3986: everything but the unreserved characters is encoded).
fn escaped(key: &str) -> String {
    let mut escaped = String::new();
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _always = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
