//! Sources against a real server on loopback that fails, stalls, breaks off, talks nonsense, and recovers.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock, SystemClock},
    error::{ErrorKind, Kinded},
    secret::Secret,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{schedule::Policy, *};
use crate::{
    client::{ErrorCode, EvaluationContext, Event, ProviderStatus, Reason, isolated},
    format::unleash::Unleash,
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

#[tokio::test]
async fn whatever_the_server_does_the_last_good_document_stays_in_service() {
    let server = Server::doing([good(&["a"], "1")]).await;
    let clock = ManualClock::default();
    let feed = feed(&server, &clock);
    feed.load().await.unwrap();
    assert!(on(&feed, "a"));
    let whole = document(&["b"]);
    let half = &whole[..whole.len() / 2];
    let html = answer("200 OK", "content-type: text/html\r\n", "<html>log in</html>");
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", whole.len());
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n", half.len());
    let unannounced = format!("HTTP/1.1 200 OK\r\n\r\n{half}");
    let huge = "x".repeat(200_000);
    let cases = [
        ("closes", None, ErrorKind::Unavailable),
        ("is no HTTP", Some(Does::Says(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())), ErrorKind::Unavailable),
        ("breaks off", Some(Does::Says(cut.into_bytes())), ErrorKind::Unavailable),
        ("breaks off in chunks", Some(Does::Says(chunked.into_bytes())), ErrorKind::Unavailable),
        ("breaks off unannounced", Some(Does::Says(unannounced.into_bytes())), ErrorKind::Invalid),
        ("fails", Some(answer("500 Oops", "", "no")), ErrorKind::Unavailable),
        (
            "is elsewhere",
            Some(answer("302 Found", "location: http://127.0.0.1:1/\r\n", "")),
            ErrorKind::Unavailable,
        ),
        ("refuses", Some(answer("401 No", "", "")), ErrorKind::Denied),
        ("says same to no question", Some(answer("304 Not Modified", "", "")), ErrorKind::Unavailable),
        ("talks nonsense", Some(answer("200 OK", "", "}{")), ErrorKind::Invalid),
        (
            "sends bytes",
            Some(Does::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec())),
            ErrorKind::Invalid,
        ),
        ("sends a list", Some(answer("200 OK", "", "[1, 2]")), ErrorKind::Invalid),
        ("sends a page", Some(html), ErrorKind::Invalid),
        ("floods", Some(answer("200 OK", "", &huge)), ErrorKind::Invalid),
    ];
    for (what, does, kind) in cases {
        // Only a tag makes `304` an answer.
        if what == "says same to no question" {
            server.then([answer("200 OK", "", &document(&["a"]))]);
            feed.load().await.unwrap();
        }
        server.then(does);
        let error = feed.load().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(on(&feed, "a") && !on(&feed, "b"), "{what}");
        assert!(feed.trouble().unwrap().contains("127.0.0.1"), "{what}");
    }
    server.then([good(&["b"], "2")]);
    feed.load().await.unwrap();
    assert!(on(&feed, "b") && !on(&feed, "a"), "it recovers");
    assert_eq!(feed.trouble(), None);
}

#[tokio::test]
async fn a_stall_is_ended_by_the_limit() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"version\"".to_vec();
    for does in [Does::Stalls, Does::StallsAfter(half)] {
        let server = Server::doing([does]).await;
        let clock = ManualClock::default();
        let feed = Arc::new(feed(&server, &clock));
        let loading = tokio::spawn({
            let feed = Arc::clone(&feed);
            async move { feed.load().await }
        });
        while clock.next_sleeper().is_none() || server.last_request().is_empty() {
            tokio::task::yield_now().await;
        }
        clock.advance(Policy::default().limit);
        let error = loading.await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        server.then([good(&["a"], "1")]);
        feed.load().await.unwrap();
        assert!(on(&feed, "a"));
    }
}

#[tokio::test]
async fn an_unchanged_document_is_asked_for_by_its_tag() {
    let server = Server::doing([good(&["a"], "v1"), answer("304 Not Modified", "", "")]).await;
    let clock = ManualClock::default();
    let feed = feed(&server, &clock);
    feed.load().await.unwrap();
    assert!(!server.last_request().contains("if-none-match"));
    let before = feed.toggles().ruleset();
    feed.load().await.unwrap();
    assert!(server.last_request().contains("if-none-match: \"v1\""), "{}", server.last_request());
    assert!(Arc::ptr_eq(&before, &feed.toggles().ruleset()), "nothing was compiled again");
}

#[tokio::test]
async fn clients_hear_of_ready_change_stale_and_recovery() {
    let server = Server::doing([]).await;
    let clock = ManualClock::default();
    let feed = feed(&server, &clock);
    let api = isolated::api();
    let told = Arc::new(Mutex::new(Vec::new()));
    for event in [Event::Ready, Event::ConfigurationChanged, Event::Stale, Event::Error] {
        let told = Arc::clone(&told);
        api.add_handler(event, move |_| told.lock().unwrap().push(event));
    }
    drop(api.set_provider(feed.provider()).unwrap());
    let take = || std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(take(), [Event::Error], "nothing was loaded yet");
    feed.load().await.unwrap_err();
    assert_eq!(api.client().provider_status(), ProviderStatus::Error);
    take();
    server.then([good(&["a"], "1"), good(&["b"], "2")]);
    feed.load().await.unwrap();
    assert_eq!(take(), [Event::Ready]);
    feed.load().await.unwrap();
    assert_eq!(take(), [Event::ConfigurationChanged]);
    feed.load().await.unwrap_err();
    assert_eq!(take(), [], "not stale yet");
    clock.advance(SignedDuration::from_mins(2));
    feed.load().await.unwrap_err();
    assert_eq!(take(), [Event::Stale]);
    assert_eq!(api.client().provider_status(), ProviderStatus::Stale);
    assert!(api.client().boolean("b", false, ()), "served all the same");
    server.then([good(&["b"], "2")]);
    feed.load().await.unwrap();
    assert_eq!(take(), [Event::Ready]);
}

#[tokio::test]
async fn credentials_that_are_refused_from_the_start_are_fatal_until_they_work() {
    let server = Server::doing([answer("403 No", "", ""), good(&["a"], "1")]).await;
    let clock = ManualClock::default();
    let feed = feed(&server, &clock);
    let api = isolated::api();
    feed.load().await.unwrap_err();
    drop(api.set_provider(feed.provider()).unwrap());
    assert_eq!(api.client().provider_status(), ProviderStatus::Fatal);
    feed.load().await.unwrap();
    assert!(api.client().boolean("a", false, ()));
}

#[tokio::test]
async fn a_start_without_the_source_serves_the_last_good_document_as_stale() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("flags.json");
    let clock = ManualClock::default();
    let server = Server::doing([good(&["a"], "1"), answer("200 OK", "", "}{")]).await;
    let first = feed(&server, &clock).cached_in(&cache);
    first.load().await.unwrap();
    first.load().await.unwrap_err();
    assert_eq!(fs::read_to_string(&cache).unwrap(), document(&["a"]), "only what was good is kept");

    let nobody = Server::doing([]).await;
    let second = feed(&nobody, &clock).cached_in(&cache);
    let api = isolated::api();
    drop(api.set_provider(second.provider()).unwrap());
    second.begin();
    assert_eq!(api.client().provider_status(), ProviderStatus::Stale);
    assert!(api.client().boolean("a", false, ()));
    second.load().await.unwrap_err();
    assert_eq!(api.client().provider_status(), ProviderStatus::Stale);
    nobody.then([good(&["a"], "1")]);
    second.load().await.unwrap();
    assert_eq!(api.client().provider_status(), ProviderStatus::Ready);

    fs::write(&cache, "{\"version\": 1, \"feat").unwrap();
    let third = feed(&nobody, &clock).cached_in(&cache);
    third.begin();
    assert!(third.toggles().ruleset().is_empty(), "a damaged file is as good as none");
}

#[tokio::test]
async fn a_feed_runs_by_itself_and_backs_off() {
    let server = Server::doing([good(&["a"], "1")]).await;
    let clock = ManualClock::default();
    let feed = Arc::new(feed(&server, &clock));
    let running = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { feed.run().await }
    });
    let wait = async |until: &dyn Fn() -> bool| {
        while !until() {
            tokio::task::yield_now().await;
        }
    };
    let start = clock.now();
    wait(&|| on(&feed, "a") && feed.next_load() > Some(start)).await;
    assert_eq!(feed.next_load(), Some(start + SignedDuration::from_secs(15)));
    clock.set(start + SignedDuration::from_secs(15));
    wait(&|| feed.trouble().is_some() && feed.next_load() > Some(clock.now())).await;
    let wait_for = feed.next_load().unwrap().duration_since(clock.now());
    assert!((500..=1000).contains(&wait_for.as_millis()), "{wait_for:?}");
    server.then([good(&["b"], "2")]);
    clock.set(feed.next_load().unwrap());
    wait(&|| on(&feed, "b")).await;
    running.abort();
}

#[tokio::test]
async fn a_file_is_served_whole_however_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flags.json");
    let clock = ManualClock::default();
    let source = FileSource::new(&path, Arc::new(clock.clone()));
    assert_eq!(source.load(None).await.unwrap_err().kind(), ErrorKind::Unavailable);

    // Written in place, in two parts: the load waits for the second.
    let whole = document(&["a"]);
    let (one, two) = whole.split_at(whole.len() / 2);
    fs::write(&path, one).unwrap();
    let loading = tokio::spawn({
        let source = source.clone();
        async move { source.load(None).await }
    });
    while clock.next_sleeper().is_none() {
        tokio::task::yield_now().await;
    }
    fs::write(&path, format!("{one}{two}")).unwrap();
    while !loading.is_finished() {
        clock.advance(SignedDuration::from_millis(20));
        tokio::task::yield_now().await;
    }
    let Loaded::New { text, tag } = loading.await.unwrap().unwrap() else { panic!("it is new") };
    assert_eq!(text, whole);
    assert_eq!(source.load(tag.as_ref()).await.unwrap(), Loaded::Same);

    // Replaced by another one of the same size.
    let other = document(&["b"]);
    fs::write(folder.path().join("new"), &other).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    let source = FileSource::new(&path, Arc::new(SystemClock)).settled_after(SignedDuration::from_millis(1));
    assert!(matches!(source.load(tag.as_ref()).await.unwrap(), Loaded::New { text, .. } if text == other));
    assert_eq!(source.clone().at_most(10).load(None).await.unwrap_err().kind(), ErrorKind::Invalid);
    fs::write(&path, b"\xff").unwrap();
    assert_eq!(source.load(None).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_unleash_server_hears_what_it_expects() {
    let ok = || answer("202 Accepted", "", "");
    let server = Server::doing([good(&["a"], "1"), ok(), ok(), answer("401 No", "", "")]).await;
    let base = format!("{}/api/", server.url);
    let client = UnleashClient::new(Arc::new(PlainHttp), base, Secret::new("t0ken"), "shop", "pod-1");
    assert!(!format!("{client:?} {:?}", client.features()).contains("t0ken"));
    let feed = Feed::new(Arc::new(client.features()), Unleash::new(), Arc::new(ManualClock::default()));
    feed.load().await.unwrap();
    assert!(on(&feed, "a"));
    let request = server.last_request();
    assert!(request.starts_with("GET /api/client/features HTTP/1.1"), "{request}");
    for header in ["authorization: t0ken", "unleash-appname: shop", "unleash-instanceid: pod-1"] {
        assert!(request.contains(header), "{request}");
    }
    let start = Timestamp::UNIX_EPOCH;
    client.register(&["default"], start, SignedDuration::from_secs(15)).await.unwrap();
    assert!(server.last_request().starts_with("POST /api/client/register"));
    assert!(server.last_request().contains(r#""interval":15000"#));
    let counts = BTreeMap::from([("a".to_owned(), (3, 1))]);
    client.metrics(start, start + SignedDuration::from_mins(1), &counts).await.unwrap();
    assert!(server.last_request().contains(r#""a":{"no":1,"variants":{},"yes":3}"#));
    assert_eq!(client.metrics(start, start, &counts).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn an_ofrep_server_evaluates_one_flag_or_all() {
    let flag =
        r#"{"key":"a/b","value":7,"variant":"seven","reason":"TARGETING_MATCH","metadata":{"team":"shop"}}"#;
    let missing = r#"{"key":"x","errorCode":"FLAG_NOT_FOUND","errorDetails":"no x"}"#;
    let server = Server::doing([
        answer("200 OK", "", flag),
        answer("404 Not Found", "", missing),
        answer("400 Bad Request", "", r#"{"key":"x","errorCode":"TARGETING_KEY_MISSING"}"#),
        answer("429 Slow down", "retry-after: 30\r\n", ""),
        answer("200 OK", "", "}{"),
        answer("200 OK", "etag: \"e\"\r\n", &format!(r#"{{"flags":[{flag},{missing}]}}"#)),
        answer("304 Not Modified", "", ""),
        answer("401 No", "", ""),
    ])
    .await;
    let ofrep = Ofrep::new(Arc::new(PlainHttp), &server.url).header("authorization", Secret::new("Bearer x"));
    let ada = EvaluationContext::targeting("ada").with("plan", "gold");
    let details = ofrep.evaluate("a/b", Value::Null, &ada).await;
    assert_eq!((details.value, details.reason), (7.into(), Some(Reason::TargetingMatch)));
    let request = server.last_request();
    assert!(request.starts_with("POST /ofrep/v1/evaluate/flags/a%2Fb"), "{request}");
    assert!(request.contains(r#"{"context":{"plan":"gold","targetingKey":"ada"}}"#), "{request}");
    assert!(request.contains("authorization: Bearer x"));
    for code in
        [ErrorCode::FlagNotFound, ErrorCode::TargetingKeyMissing, ErrorCode::General, ErrorCode::ParseError]
    {
        let details = ofrep.evaluate("x", true.into(), &ada).await;
        assert_eq!((details.value.clone(), details.error_code()), (true.into(), Some(code)), "{details:?}");
    }
    let bulk = ofrep.evaluate_all(&ada, None).await.unwrap().unwrap();
    assert_eq!(bulk.flags.len(), 2);
    assert_eq!(bulk.flags[1].error_code(), Some(ErrorCode::FlagNotFound));
    assert_eq!(ofrep.evaluate_all(&ada, bulk.tag.as_ref()).await.unwrap(), None);
    assert!(server.last_request().contains("if-none-match: \"e\""));
    assert_eq!(ofrep.evaluate_all(&ada, None).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn only_plain_http_is_spoken() {
    for url in ["https://example.com/", "ftp://x/", "not a url", "/path"] {
        let request = Request {
            method: Method::Get,
            url: url.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            limit: 1,
        };
        assert_eq!(PlainHttp.fetch(request).await.unwrap_err().kind(), ErrorKind::Invalid, "{url}");
    }
}
