//! Every source over HTTP against a server that fails in every way: the last good document stays in service, and it recovers.

use super::*;

/// Everything that may be wrong with an answer whose body should be `whole`: what the server does, and the kind of error that it is.
fn troubles(whole: &str) -> Vec<(&'static str, Option<Does>, ErrorKind)> {
    let half = &whole[..whole.len() / 2];
    let html = answer("200 OK", "content-type: text/html\r\n", "<html>log in</html>");
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{half}", whole.len());
    let chunked =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{half}\r\n", half.len());
    let unannounced = format!("HTTP/1.1 200 OK\r\n\r\n{half}");
    let elsewhere = answer("302 Found", "location: http://127.0.0.1:1/\r\n", "");
    let bytes = Does::Says(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec());
    vec![
        ("closes", None, ErrorKind::Unavailable),
        ("is no HTTP", Some(Does::Says(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec())), ErrorKind::Unavailable),
        ("breaks off", Some(Does::Says(cut.into_bytes())), ErrorKind::Unavailable),
        ("breaks off in chunks", Some(Does::Says(chunked.into_bytes())), ErrorKind::Unavailable),
        ("breaks off unannounced", Some(Does::Says(unannounced.into_bytes())), ErrorKind::Invalid),
        ("fails", Some(answer("500 Oops", "", "no")), ErrorKind::Unavailable),
        ("is elsewhere", Some(elsewhere), ErrorKind::Unavailable),
        ("refuses", Some(answer("401 No", "", "")), ErrorKind::Denied),
        ("talks nonsense", Some(answer("200 OK", "", "}{")), ErrorKind::Invalid),
        ("sends bytes", Some(bytes), ErrorKind::Invalid),
        ("sends a list", Some(answer("200 OK", "", "[1, 2]")), ErrorKind::Invalid),
        ("sends a page", Some(html), ErrorKind::Invalid),
        ("floods", Some(answer("200 OK", "", &"x".repeat(200_000))), ErrorKind::Invalid),
    ]
}

/// A document as the delta API sends it first.
fn hydration(flags: &[&str]) -> String {
    let full: serde_json::Value = serde_json::from_str(&document(flags)).unwrap();
    let event =
        serde_json::json!({"type": "hydration", "eventId": 1, "features": full["features"], "segments": []});
    serde_json::json!({ "events": [event] }).to_string()
}

fn client(server: &Server) -> UnleashClient {
    UnleashClient::new(Arc::new(PlainHttp), format!("{}/api", server.url), Secret::new("t"), "shop", "pod-1")
}

type Kind = (&'static str, fn(&Server) -> Arc<dyn FlagSource>, fn(&[&str]) -> String);

const KINDS: &[Kind] = &[
    (
        "a document",
        |server| Arc::new(HttpSource::new(Arc::new(PlainHttp), format!("{}/f", server.url)).at_most(100_000)),
        document,
    ),
    ("Unleash", |server| Arc::new(client(server).features().at_most(100_000)), document),
    ("Unleash's delta", |server| Arc::new(client(server).delta().at_most(100_000)), hydration),
];

#[tokio::test]
async fn whatever_the_server_does_the_last_good_document_stays_in_service() {
    for (kind, source, document) in KINDS {
        let tagged =
            |flags: &[&str], tag: &str| answer("200 OK", &format!("etag: \"{tag}\"\r\n"), &document(flags));
        let server = Server::doing([tagged(&["a"], "1")]).await;
        let clock = ManualClock::default();
        let feed = Feed::new(source(&server), Unleash::new(), Arc::new(clock.clone()));
        feed.load().await.unwrap();
        assert!(on(&feed, "a"), "{kind}");
        for (what, does, expected) in troubles(&document(&["b"])) {
            server.then(does);
            let error = feed.load().await.unwrap_err();
            assert_eq!(error.kind(), expected, "{kind} {what}: {error}");
            assert!(on(&feed, "a") && !on(&feed, "b"), "{kind} {what}");
            assert!(feed.trouble().unwrap().contains("127.0.0.1"), "{kind} {what}");
        }
        // Only a tag makes `304` an answer.
        server.then([answer("200 OK", "", &document(&["a"])), answer("304 Not Modified", "", "")]);
        feed.load().await.unwrap();
        assert_eq!(feed.load().await.unwrap_err().kind(), ErrorKind::Unavailable, "{kind}");
        server.then([tagged(&["b"], "2")]);
        feed.load().await.unwrap();
        assert!(on(&feed, "b") && !on(&feed, "a"), "{kind} recovers");
        assert_eq!(feed.trouble(), None);
    }
}

#[tokio::test]
async fn a_stall_is_ended_by_the_limit_and_the_next_load_works() {
    let half = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"version\"".to_vec();
    for (kind, source, document) in KINDS {
        for does in [Does::Stalls, Does::StallsAfter(half.clone())] {
            let server = Server::doing([does]).await;
            let clock = ManualClock::default();
            let feed = Arc::new(Feed::new(source(&server), Unleash::new(), Arc::new(clock.clone())));
            let loading = tokio::spawn({
                let feed = Arc::clone(&feed);
                async move { feed.load().await }
            });
            while clock.next_sleeper().is_none() || server.last_request().is_empty() {
                tokio::task::yield_now().await;
            }
            clock.advance(Policy::default().limit);
            let error = loading.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut, "{kind}: {error}");
            server.then([answer("200 OK", "etag: \"1\"\r\n", &document(&["a"]))]);
            feed.load().await.unwrap();
            assert!(on(&feed, "a"), "{kind}");
        }
    }
}

#[tokio::test]
async fn a_server_that_evaluates_never_gives_half_an_answer() {
    let whole = r#"{"flags": [{"key": "a", "value": true, "variant": "on", "reason": "STATIC"}]}"#;
    let server = Server::doing([]).await;
    let ofrep = Ofrep::new(Arc::new(PlainHttp), &server.url).at_most(100_000);
    let ada = EvaluationContext::targeting("ada");
    for (what, does, kind) in troubles(whole) {
        server.then(does.clone());
        let error = ofrep.evaluate_all(&ada, None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        server.then(does);
        let details = ofrep.evaluate("a", false.into(), &ada).await;
        assert_eq!(details.value, false.into(), "{what}");
        assert!(details.error_code().is_some(), "{what}: {details:?}");
    }
    server.then([answer("200 OK", "", whole)]);
    assert_eq!(ofrep.evaluate_all(&ada, None).await.unwrap().unwrap().flags.len(), 1);
}

#[tokio::test]
async fn deltas_add_up_to_whole_documents_and_begin_anew_after_trouble() {
    let events = |events: serde_json::Value, tag: &str| {
        answer(
            "200 OK",
            &format!("etag: \"{tag}\"\r\n"),
            &serde_json::json!({ "events": events }).to_string(),
        )
    };
    let full: serde_json::Value = serde_json::from_str(&document(&["b"])).unwrap();
    let server = Server::doing([
        answer("200 OK", "etag: \"1\"\r\n", &hydration(&["a"])),
        events(
            serde_json::json!([
                {"type": "feature-updated", "eventId": 2, "feature": full["features"][0]},
                {"type": "segment-updated", "eventId": 3, "segment": {"id": 7, "constraints": []}},
                {"type": "of-a-newer-server", "eventId": 4},
            ]),
            "4",
        ),
        answer("304 Not Modified", "", ""),
        events(
            serde_json::json!([
                {"type": "feature-removed", "eventId": 5, "featureName": "a", "project": "default"},
                {"type": "segment-removed", "eventId": 6, "segmentId": 7},
            ]),
            "6",
        ),
    ])
    .await;
    let delta = client(&server).delta();
    let text = async |known: Option<&str>| {
        let known = known.map(str::to_owned);
        delta.load(known.as_ref()).await.map(|loaded| match loaded {
            Loaded::Same => "the same".to_owned(),
            Loaded::New { text, tag } => format!("{} {text}", tag.unwrap_or_default()),
        })
    };
    let names = |text: &str| ["\"a\"", "\"b\"", "\"id\":7"].map(|name| text.contains(name));
    assert_eq!(names(&text(None).await.unwrap()), [true, false, false]);
    assert!(server.last_request().starts_with("GET /api/client/delta "), "{}", server.last_request());
    assert!(!server.last_request().contains("if-none-match"));
    assert_eq!(names(&text(Some("\"1\"")).await.unwrap()), [true, true, true]);
    assert!(server.last_request().contains("if-none-match: \"1\""));
    assert_eq!(text(Some("\"4\"")).await.unwrap(), "the same");
    let last = text(Some("\"4\"")).await.unwrap();
    assert_eq!(
        last,
        format!("\"6\" {{\"version\":2,\"features\":[{}],\"segments\":[]}}", full["features"][0])
    );

    // The reader could not use that document and asks with the tag of an older one: it gets everything anew.
    let removed = serde_json::json!([{"type": "feature-removed", "eventId": 8, "featureName": "b"}]);
    server.then([answer("200 OK", "etag: \"7\"\r\n", &hydration(&["a", "b"])), events(removed.clone(), "8")]);
    assert_eq!(names(&text(Some("\"4\"")).await.unwrap()), [true, true, false]);
    assert!(!server.last_request().contains("if-none-match"));
    assert_eq!(names(&text(Some("\"7\"")).await.unwrap()), [true, false, false]);

    // Events that can't be applied, and such that begin in the middle, are no document.
    let broken = serde_json::json!([{"type": "feature-updated", "eventId": 9}]);
    server.then([events(broken, "9"), events(removed, "9"), answer("200 OK", "", &hydration(&["a"]))]);
    for problem in ["an updated feature is missing", "the events begin in the middle"] {
        let error = text(Some("\"8\"")).await.unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert_eq!(names(&text(Some("\"8\"")).await.unwrap()), [true, false, false]);
}
