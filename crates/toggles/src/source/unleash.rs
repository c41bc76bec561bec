//! What an Unleash client tells its server beside asking for features: that it is there, and what was evaluated.

use std::{collections::BTreeMap, sync::Arc};

use flowline_core::{SignedDuration, Timestamp, secret::Secret};
use serde_json::json;

use super::{Fetch, HttpSource, Method, Request, SourceError, UnleashDelta};

/// A client of an Unleash server. Registration and metrics are a choice; asking for features needs neither.
#[derive(Debug, Clone)]
pub struct UnleashClient {
    fetch: Arc<dyn Fetch>,
    base: String,
    token: Secret,
    application: String,
    instance: String,
}

impl UnleashClient {
    /// A client of the server whose API is at `base` (the URL up to `/api`).
    pub fn new(
        fetch: Arc<dyn Fetch>,
        base: impl Into<String>,
        token: Secret,
        application: impl Into<String>,
        instance: impl Into<String>,
    ) -> Self {
        let base = base.into().trim_end_matches('/').to_owned();
        Self { fetch, base, token, application: application.into(), instance: instance.into() }
    }

    /// The source of its features, for a [`Feed`](super::Feed) with the format [`Unleash`](crate::format::unleash::Unleash).
    pub fn features(&self) -> HttpSource {
        let fetch = Arc::clone(&self.fetch);
        HttpSource::unleash(fetch, &self.base, self.token.clone(), &self.application, &self.instance)
    }

    /// The same through the server's delta API: only what changed comes over the wire.
    pub fn delta(&self) -> UnleashDelta {
        UnleashDelta::new(self.features().at_path(&self.base, "/client/delta"))
    }

    /// Registers the application, with the strategies that it knows.
    ///
    /// # Errors
    /// As [`Fetch::fetch`], and any status that is not a success.
    pub async fn register(
        &self,
        strategies: &[&str],
        started: Timestamp,
        every: SignedDuration,
    ) -> Result<(), SourceError> {
        let body = json!({
            "appName": self.application,
            "instanceId": self.instance,
            "sdkVersion": concat!("flowline-toggles:", env!("CARGO_PKG_VERSION")),
            "strategies": strategies,
            "started": started.to_string(),
            "interval": i64::try_from(every.as_millis()).unwrap_or(i64::MAX),
        });
        self.post("/client/register", &body).await
    }

    /// Tells how often each toggle was on and off between two times.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn metrics(
        &self,
        start: Timestamp,
        stop: Timestamp,
        counts: &BTreeMap<String, (u64, u64)>,
    ) -> Result<(), SourceError> {
        let toggles: BTreeMap<_, _> = counts
            .iter()
            .map(|(name, (yes, no))| (name, json!({ "yes": yes, "no": no, "variants": {} })))
            .collect();
        let body = json!({
            "appName": self.application,
            "instanceId": self.instance,
            "bucket": { "start": start.to_string(), "stop": stop.to_string(), "toggles": toggles },
        });
        self.post("/client/metrics", &body).await
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), SourceError> {
        let url = format!("{}{path}", self.base);
        let headers = [
            ("authorization", self.token.expose()),
            ("unleash-appname", &self.application),
            ("unleash-instanceid", &self.instance),
            ("content-type", "application/json"),
        ];
        let request = Request {
            method: Method::Post,
            url: url.clone(),
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: body.to_string().into_bytes(),
            limit: 1 << 16,
        };
        let answer = self.fetch.fetch(request).await?;
        match answer.status {
            200..=299 => Ok(()),
            status @ (401 | 403) => Err(SourceError::Refused { place: url, status }),
            status => Err(SourceError::Status { place: url, status, retry_after: answer.retry_after() }),
        }
    }
}
