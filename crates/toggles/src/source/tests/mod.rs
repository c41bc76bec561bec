//! Sources against a real server on loopback that fails, stalls, breaks off, talks nonsense, and recovers.

mod feed;
mod kinds;
mod trouble;
mod watch;

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock, SystemClock},
    error::{ErrorKind, Kinded},
    id::{Key, ScopeId},
    secret::Secret,
    store::{Batch, MemoryStore, Store},
    testkit::{Fault, FaultyStore, When},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{schedule::Policy, *};
use crate::{
    client::{ErrorCode, EvaluationContext, Event, ProviderStatus, Reason, isolated},
    flags::{Author, Flags},
    format::{
        flowline::{Definition, FlagKey, Flowline, Percent, State},
        unleash::Unleash,
    },
    value::Value,
};

/// What the server does with one request.
#[derive(Debug, Clone)]
enum Does {
    /// Answers with these bytes and closes.
    Says(Vec<u8>),
    /// Answers nothing and keeps the connection.
    Stalls,
    /// Answers with the beginning and keeps the connection.
    StallsAfter(Vec<u8>),
}

#[derive(Debug)]
struct Server {
    url: String,
    script: Arc<Mutex<Vec<Does>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that does one thing for each request, in order; after the last one it closes.
    async fn doing(script: impl IntoIterator<Item = Does>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut script: Vec<_> = script.into_iter().collect();
        script.reverse();
        let script = Arc::new(Mutex::new(script));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let server = Self { url, script: Arc::clone(&script), requests: Arc::clone(&requests) };
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let request = read_request(&mut stream).await;
                requests.lock().unwrap().push(request);
                let next = script.lock().unwrap().pop();
                match next {
                    Some(Does::Says(bytes)) => {
                        // A client that has enough may be gone.
                        let _sent = stream.write_all(&bytes).await;
                    }
                    Some(Does::Stalls) => kept.push(stream),
                    Some(Does::StallsAfter(bytes)) => {
                        let _sent = stream.write_all(&bytes).await;
                        kept.push(stream);
                    }
                    None => {}
                }
            }
        });
        server
    }

    fn then(&self, does: impl IntoIterator<Item = Does>) {
        let mut script: Vec<_> = does.into_iter().collect();
        script.reverse();
        *self.script.lock().unwrap() = script;
    }

    fn last_request(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .and_then(|(_, value)| value.trim().parse::<usize>().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return text,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> Does {
    let length = body.len();
    Does::Says(format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes())
}

/// A document in which the flags named are on.
fn document(flags: &[&str]) -> String {
    let features: Vec<_> = flags
        .iter()
        .map(|name| serde_json::json!({"name": name, "enabled": true, "strategies": [{"name": "default", "parameters": {}}]}))
        .collect();
    serde_json::json!({"version": 1, "features": features}).to_string()
}

fn good(flags: &[&str], tag: &str) -> Does {
    answer("200 OK", &format!("etag: \"{tag}\"\r\ncontent-type: application/json\r\n"), &document(flags))
}

fn feed(server: &Server, clock: &ManualClock) -> Feed {
    let source = HttpSource::new(Arc::new(PlainHttp), format!("{}/flags", server.url)).at_most(100_000);
    Feed::new(Arc::new(source), Unleash::new(), Arc::new(clock.clone()))
}

fn on(feed: &Feed, flag: &str) -> bool {
    feed.toggles().is_on(flag, &crate::Context::anonymous())
}
