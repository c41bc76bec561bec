//! Checks what [`Router`] promises, with real upstreams on loopback.
//!
//! The suite needs the router and a way to send a request through it: a closure that takes the `Host` field and the path.
//!
//! ```
//! use flowline_envs::{probe::Client, router::HttpRouter, testkit::router::suite};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let router = HttpRouter::bind(([127, 0, 0, 1], 0).into()).await?;
//! let (client, address) = (Client::new(), router.address());
//! let send = async |host: String, path: String| client.get(address, &host, &path, Duration::from_secs(10)).await;
//! suite(&router, send).await.verdict()?;
//! # Ok(()) }
//! ```

mod cases;
#[cfg(test)]
mod flaws;
mod stage;

use std::{fmt, future::Future, pin::Pin};

use super::{CaseOutcome, CaseReport, Report};
use crate::{
    probe::HttpResponse,
    router::{MemoryRouter, Router, Target},
};

use self::stage::play;

/// Runs every case, one after the other, each beginning with an empty table. Needs a tokio runtime with time and network.
///
/// `send` sends `GET path` with the `Host` field `host` through the router and waits for the whole response; an error is a request that
/// was lost.
pub async fn suite<R, F, E>(router: &R, send: F) -> Report
where
    R: Router,
    F: AsyncFn(String, String) -> Result<HttpResponse, E>,
    E: fmt::Display,
{
    let send = |host: &str, path: &str| -> Sending<'_> {
        let sent = send(host.to_owned(), path.to_owned());
        Box::pin(async move { sent.await.map_err(|error| error.to_string()) })
    };
    let mut reports = Vec::new();
    for (sentence, case) in cases::CASES {
        let outcome = match stage::Stage::new(router, &send).await {
            Ok(stage) => case(&stage).await,
            Err(seen) => Err(seen),
        };
        let outcome = match outcome {
            Ok(()) => CaseOutcome::Held,
            Err(Seen::Broken(seen)) => CaseOutcome::Broken(seen),
            Err(Seen::Skipped(needs)) => CaseOutcome::Skipped(needs),
        };
        reports.push(CaseReport { sentence, outcome });
    }
    Report { suite: "router", cases: reports }
}

/// A request on its way.
type Sending<'a> = Pin<Box<dyn Future<Output = Result<HttpResponse, String>> + 'a>>;

/// Why a case did not end well.
enum Seen {
    Broken(String),
    Skipped(&'static str),
}

impl From<String> for Seen {
    fn from(seen: String) -> Self {
        Self::Broken(seen)
    }
}

/// Sends a request through a [`MemoryRouter`], which has no socket of its own: to the upstream that it chooses, with the response
/// saying who answered.
///
/// # Errors
/// What went wrong, if the upstream did not answer.
pub async fn send_through(router: &MemoryRouter, host: &str, path: &str) -> Result<HttpResponse, String> {
    let Some(passage) = router.enter(host, path) else { return Ok(play(404, "", "")) };
    let route = passage.route();
    match &route.target {
        Target::Upstream(address) => {
            let mut response = stage::ask(*address, host, passage.target_path()).await?;
            response.headers.push(("x-flowline-environment".to_owned(), route.served_by().to_string()));
            Ok(response)
        }
        Target::Directory(root) => {
            let file = root.join(passage.target_path().trim_start_matches('/'));
            let file = if passage.target_path().ends_with('/') { file.join("index.html") } else { file };
            Ok(match std::fs::read_to_string(file) {
                Ok(text) => play(200, &text, route.served_by().as_str()),
                Err(_) => play(404, "", route.served_by().as_str()),
            })
        }
        Target::Unavailable(because) => Ok(play(503, because, route.served_by().as_str())),
    }
}
