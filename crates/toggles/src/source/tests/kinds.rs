//! Each kind of source by itself.

use super::*;

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
async fn a_feed_of_an_ofrep_server_is_a_provider_for_one_context() {
    let bulk = |size: u8, tag: &str| {
        let flags = serde_json::json!([
            {"key": "size", "value": size, "variant": "v", "reason": "SPLIT", "metadata": {"team": "shop"}},
            {"key": "bad", "errorCode": "TARGETING_KEY_MISSING", "errorDetails": "who?"},
            {"key": "none", "reason": "DISABLED"},
            {"value": true},
        ]);
        answer("200 OK", &format!("etag: \"{tag}\"\r\n"), &serde_json::json!({ "flags": flags }).to_string())
    };
    let server = Server::doing([bulk(1, "1"), answer("304 Not Modified", "", "")]).await;
    let ofrep = Ofrep::new(Arc::new(PlainHttp), &server.url);
    let ada = EvaluationContext::targeting("ada").with("plan", "gold");
    let source = Arc::new(OfrepSource::new(ofrep, ada.clone()));
    let feed =
        Arc::new(Feed::new(Arc::<OfrepSource>::clone(&source), OfrepFlags, Arc::new(ManualClock::default())));
    let api = isolated::api();
    drop(api.set_provider(feed.provider()).unwrap());
    assert_eq!(api.client().provider_status(), ProviderStatus::NotReady);
    feed.load().await.unwrap();
    assert!(server.last_request().contains(r#"{"context":{"plan":"gold","targetingKey":"ada"}}"#));
    let size = |context: &EvaluationContext| api.client().integer_details("size", 9, context);
    let details = size(&EvaluationContext::EMPTY);
    assert_eq!(
        (details.value, details.variant.as_deref(), details.reason),
        (1, Some("v"), Some(Reason::Split))
    );
    assert_eq!(details.metadata.iter().count(), 1);
    assert_eq!(size(&ada).value, 1);
    let bob = EvaluationContext::targeting("bob");
    assert_eq!((size(&bob).value, size(&bob).error_code()), (9, Some(ErrorCode::InvalidContext)));
    assert_eq!(api.client().text_details("size", "", ()).error_code(), Some(ErrorCode::TypeMismatch));
    let bad = api.client().boolean_details("bad", true, ());
    assert_eq!((bad.value, bad.error_code()), (true, Some(ErrorCode::TargetingKeyMissing)));
    let none = api.client().boolean_details("none", true, ());
    assert_eq!((none.value, none.reason, none.error), (true, Some(Reason::Disabled), None));
    assert_eq!(feed.toggles().ruleset().warnings().len(), 1, "one has no key");
    feed.load().await.unwrap();
    assert!(server.last_request().contains("if-none-match: \"1\""), "{}", server.last_request());

    // Another context is asked for at once, whole, though the clock stands still.
    server.then([bulk(2, "2")]);
    let runs = Arc::clone(&feed);
    let task = tokio::spawn(async move {
        runs.run().await;
    });
    source.set_context(bob.clone());
    for _ in 0..10_000 {
        if size(&bob).value != 9 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!((size(&bob).value, size(&ada).error_code()), (2, Some(ErrorCode::InvalidContext)));
    assert!(!server.last_request().contains("if-none-match"), "{}", server.last_request());
    task.abort();
    // While the server is down the last good answer counts.
    feed.load().await.unwrap_err();
    assert_eq!(size(&bob).value, 2);
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

#[tokio::test]
async fn a_feed_follows_flags_in_a_store() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
    let flags = Flags::open(Arc::clone(&store), Arc::clone(&clock)).await.unwrap();
    let (production, preview) = (ScopeId::new("production").unwrap(), ScopeId::new("pr-1").unwrap());
    let (checkout, ada) = (FlagKey::new("checkout").unwrap(), Author::new("ada", "because"));
    let definition = Definition { owner: Some("ada".to_owned()), ..Definition::default() };
    flags.define(&checkout, definition, &ada).await.unwrap();
    flags.open_scope(&preview, Some(&production), &ada).await.unwrap();
    let source = StoreSource::new(Arc::clone(&store), preview.clone());
    let feed = Arc::new(Feed::new(Arc::new(source.clone()), Flowline::default(), clock));
    let running = tokio::spawn({
        let feed = Arc::clone(&feed);
        async move { feed.run().await }
    });
    let until = async |so: &dyn Fn() -> bool| {
        for _ in 0..10_000 {
            if so() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("it did not come");
    };
    until(&|| feed.toggles().ruleset().contains("checkout")).await;
    let user = crate::Context::new("user-1");
    assert!(!feed.toggles().is_on("checkout", &user));
    // The clock stands still: only the journal tells.
    flags.set_rollout(&production, &checkout, Percent::ALL, &ada).await.unwrap();
    until(&|| feed.toggles().is_on("checkout", &user)).await;
    flags.kill(&preview, &checkout, &ada).await.unwrap();
    until(&|| !feed.toggles().is_on("checkout", &user)).await;
    running.abort();

    let users = (0..200).map(|user| crate::Context::new(format!("user-{user}")));
    flags.revive(&preview, &checkout, &ada).await.unwrap();
    flags.set_rollout(&preview, &checkout, Percent::new(40.0).unwrap(), &ada).await.unwrap();
    feed.load().await.unwrap();
    let there = flags.toggles(&preview);
    assert!(
        users
            .into_iter()
            .all(|user| there.is_on("checkout", &user) == feed.toggles().is_on("checkout", &user))
    );
    let ruleset = feed.toggles().ruleset();
    assert_eq!(ruleset.flag("checkout").unwrap().facts().unwrap().owner.as_deref(), Some("ada"));
    assert_eq!(source.at_most(10).load(None).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_comes_back() {
    let inner: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = Arc::new(ManualClock::default());
    let flags = Flags::open(Arc::clone(&inner), Arc::<ManualClock>::clone(&clock)).await.unwrap();
    let (checkout, ada) = (FlagKey::new("checkout").unwrap(), Author::new("ada", "because"));
    flags.define(&checkout, Definition { state: State::on(), ..Definition::default() }, &ada).await.unwrap();
    let faulty = FaultyStore::new(Arc::clone(&inner)).with(1, Fault::Lost(When::Before));
    let production = ScopeId::new("production").unwrap();
    let source = StoreSource::new(Arc::new(faulty.clone()), production.clone());
    let feed = Feed::new(Arc::new(source), Flowline::default(), clock);
    feed.load().await.unwrap();
    faulty.commit(Batch::new()).await.unwrap_err();
    assert_eq!(feed.load().await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(on(&feed, "checkout"), "the last good document stays in service");

    // A definition that a newer version wrote is no use: the last good one counts on, and no other flag is harmed.
    let key = Key::new("toggles/flag/checkout").unwrap();
    let clock = Arc::new(ManualClock::default());
    let source = StoreSource::new(Arc::clone(&inner), production.clone());
    let feed = Feed::new(Arc::new(source), Flowline::default(), Arc::<ManualClock>::clone(&clock));
    feed.load().await.unwrap();
    inner.commit(Batch::new().put(key, serde_json::json!({"kind": "of the future"}))).await.unwrap();
    let other = FlagKey::new("other").unwrap();
    flags.define(&other, Definition { state: State::on(), ..Definition::default() }, &ada).await.unwrap();
    feed.load().await.unwrap();
    assert!(on(&feed, "checkout") && on(&feed, "other"));
    // Whoever never saw a good one has an error, and a warning that names it.
    let feed = Feed::new(Arc::new(StoreSource::new(inner, production)), Flowline::default(), clock);
    feed.load().await.unwrap();
    assert!(!on(&feed, "checkout") && on(&feed, "other"));
    let warnings = feed.toggles().ruleset().warnings().to_vec();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].flag.as_deref(), Some("checkout"));
}
