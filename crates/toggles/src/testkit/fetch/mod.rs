//! Checks what [`Fetch`] promises, against a server on loopback that speaks plain HTTP/1.1.
//!
//! ```
//! # #[cfg(feature = "http")] {
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), flowline_toggles::testkit::Broken> {
//! use flowline_toggles::{source::PlainHttp, testkit::fetch};
//! fetch::check(&PlainHttp).await.verdict()
//! # }
//! # main().unwrap(); }
//! ```

#[cfg(test)]
#[cfg(feature = "http")]
mod flaws;

use std::{io::Write, net::TcpListener, sync::atomic::Ordering, thread, time::Duration};

use flowline_core::error::{ErrorKind, Kinded};

use super::{
    Came, Report, broken, dropped_when, same,
    server::{Server, answer, wait_for_close},
};
use crate::source::{Fetch, Method, Request, Response, SourceError};

pub(super) const WHOLE: &str = "an answer comes with status, headers and whole body";
pub(super) const SENT: &str = "a request arrives with method, path, headers and body as given";
pub(super) const STATUS: &str = "any status is an answer and not an error";
pub(super) const REDIRECT: &str = "a redirect is an answer and is not followed";
pub(super) const CUT: &str =
    "a body that ends before its announced length is unavailable and never a short body";
pub(super) const CUT_CHUNKS: &str =
    "a body that breaks off between chunks is unavailable and never a short body";
pub(super) const LIMIT: &str = "a body beyond the limit is too large, before much more than that was read";
pub(super) const EXACT: &str = "a body of exactly the limit is fine";
pub(super) const NOBODY: &str = "where nobody listens it is unavailable";
pub(super) const NO_HTTP: &str = "what is no HTTP is an error";
pub(super) const DROPPED: &str = "a dropped future stops its request";

/// Checks all sentences.
pub async fn check(fetch: &dyn Fetch) -> Report {
    let mut report = Report::new("fetch");
    report.note(WHOLE, whole(fetch).await);
    report.note(SENT, sent(fetch).await);
    report.note(STATUS, status(fetch).await);
    report.note(REDIRECT, redirect(fetch).await);
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":";
    report.note(CUT, breaks_off(fetch, cut).await);
    let cut = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{\"half\":\r\n";
    report.note(CUT_CHUNKS, breaks_off(fetch, cut).await);
    report.note(LIMIT, limit(fetch).await);
    report.note(EXACT, exact(fetch).await);
    report.note(NOBODY, nobody(fetch).await);
    report.note(NO_HTTP, no_http(fetch).await);
    report.note(DROPPED, dropped(fetch).await);
    report
}

const LIMIT_BYTES: usize = 64 << 10;

fn get(server: &Server, path: &str) -> Request {
    Request {
        method: Method::Get,
        url: format!("{}{path}", server.url),
        headers: vec![("accept".to_owned(), "application/json".to_owned())],
        body: Vec::new(),
        limit: LIMIT_BYTES,
    }
}

fn kind(answer: &Result<Response, SourceError>, expected: ErrorKind) -> Came {
    match answer {
        Err(error) if error.kind() == expected => Ok(()),
        Err(error) => broken(format!("found the error `{error}`, expected one of kind `{expected}`")),
        Ok(answer) => broken(format!(
            "found status {} with {} bytes, expected an error",
            answer.status,
            answer.body.len()
        )),
    }
}

async fn whole(fetch: &dyn Fetch) -> Came {
    let server = Server::saying(answer("200 OK", "ETag: \"v1\"\r\n", "{\"flags\":{}}"))?;
    let answer = fetch.fetch(get(&server, "/f")).await?;
    same("status", &answer.status, &200)?;
    same("entity tag", &answer.header("etag"), &Some("\"v1\""))?;
    same("body", &String::from_utf8_lossy(&answer.body).into_owned(), &"{\"flags\":{}}".to_owned())
}

async fn sent(fetch: &dyn Fetch) -> Came {
    let server = Server::saying(answer("200 OK", "", ""))?;
    let post = Request {
        method: Method::Post,
        headers: vec![
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), "t0ken".to_owned()),
        ],
        body: b"{\"context\":{}}".to_vec(),
        ..get(&server, "/a%2Fb?c=d")
    };
    fetch.fetch(post).await?;
    let request = server.seen.requests().pop().unwrap_or_default();
    let (head, body) = request.split_once("\r\n\r\n").unwrap_or_default();
    let lower = head.to_ascii_lowercase();
    let fields = ["content-type: application/json", "authorization: t0ken"];
    if !head.starts_with("POST /a%2Fb?c=d HTTP/1.1") || !fields.iter().all(|field| lower.contains(field)) {
        return broken(format!("the server saw: {head}"));
    }
    same("body", &body, &"{\"context\":{}}")
}

async fn status(fetch: &dyn Fetch) -> Came {
    for (line, code) in
        [("304 Not Modified", 304), ("404 Not Found", 404), ("503 Busy", 503), ("429 Slow", 429)]
    {
        let server = Server::saying(answer(line, "retry-after: 1\r\n", ""))?;
        same("status", &fetch.fetch(get(&server, "/")).await?.status, &code)?;
    }
    Ok(())
}

async fn redirect(fetch: &dyn Fetch) -> Came {
    for line in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let elsewhere = Server::saying(answer("200 OK", "", "stolen"))?;
        let server = Server::saying(answer(line, &format!("location: {}/\r\n", elsewhere.url), ""))?;
        let status = fetch.fetch(get(&server, "/")).await?.status;
        if !(300..400).contains(&status) || elsewhere.seen.asked() {
            return broken(format!("`{line}` became {status}"));
        }
    }
    Ok(())
}

async fn breaks_off(fetch: &dyn Fetch, cut: &'static str) -> Came {
    let server = Server::saying(cut)?;
    kind(&fetch.fetch(get(&server, "/")).await, ErrorKind::Unavailable)
}

async fn limit(fetch: &dyn Fetch) -> Came {
    const MEBIBYTES: usize = 64;
    let server = Server::doing(|stream, seen| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", MEBIBYTES << 20);
        let mebibyte = vec![b'x'; 1 << 20];
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
        for _ in 0..MEBIBYTES {
            if stream.write_all(&mebibyte).is_err() {
                return;
            }
            seen.sent.fetch_add(1, Ordering::AcqRel);
        }
    })?;
    let answer = fetch.fetch(get(&server, "/")).await;
    match &answer {
        Err(SourceError::TooLarge { .. }) => {}
        other => return kind(other, ErrorKind::Invalid).and_then(|()| broken("it is another error")),
    }
    // What lies in the sockets' buffers was sent and not read.
    let sent = server.seen.sent.load(Ordering::Acquire);
    if sent < MEBIBYTES / 2 {
        Ok(())
    } else {
        broken(format!("{sent} MiB were read, where {LIMIT_BYTES} bytes are the limit"))
    }
}

async fn exact(fetch: &dyn Fetch) -> Came {
    let server = Server::saying(answer("200 OK", "", &"x".repeat(LIMIT_BYTES)))?;
    same("bytes", &fetch.fetch(get(&server, "/")).await?.body.len(), &LIMIT_BYTES)
}

async fn nobody(fetch: &dyn Fetch) -> Came {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    drop(listener);
    let request = Request {
        method: Method::Get,
        url: format!("http://{address}/"),
        headers: Vec::new(),
        body: Vec::new(),
        limit: LIMIT_BYTES,
    };
    kind(&fetch.fetch(request).await, ErrorKind::Unavailable)
}

async fn no_http(fetch: &dyn Fetch) -> Came {
    let server = Server::saying("SSH-2.0-OpenSSH_9.9\r\n\r\n")?;
    match fetch.fetch(get(&server, "/")).await {
        Err(_) => Ok(()),
        Ok(answer) => broken(format!("it is an answer of status {}", answer.status)),
    }
}

async fn dropped(fetch: &dyn Fetch) -> Came {
    let server = Server::doing(wait_for_close)?;
    let seen = &server.seen;
    if dropped_when(fetch.fetch(get(&server, "/")), || seen.asked()).await {
        return broken("it was answered before the server said anything");
    }
    // The server is told at once; the wait is for its thread.
    for _ in 0..300 {
        if seen.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        pause();
    }
    broken("the connection is still open")
}

#[expect(clippy::disallowed_methods, reason = "another thread works meanwhile, on the host's time")]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}
