//! What a feed serves and tells while its server fails, stalls and comes back.

use super::*;

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
    assert_eq!(take(), [], "nothing was tried yet");
    assert_eq!(api.client().provider_status(), ProviderStatus::NotReady);
    let early = api.client().boolean_details("a", false, ());
    assert_eq!((early.value, early.error_code()), (false, Some(ErrorCode::ProviderNotReady)));
    feed.begin();
    assert_eq!(api.client().provider_status(), ProviderStatus::NotReady, "there is nothing on disk");
    feed.load().await.unwrap_err();
    assert_eq!(api.client().provider_status(), ProviderStatus::Error);
    assert_eq!(take(), [Event::Error]);
    feed.load().await.unwrap_err();
    assert_eq!(take(), [], "told once");
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
    let no = || answer("403 No", "", "");
    let clock = ManualClock::default();
    for before in [vec![no()], vec![answer("500 Oops", "", ""), no()], vec![no(), answer("500 Oops", "", "")]]
    {
        let loads = before.len();
        let server = Server::doing(before).await;
        let feed = feed(&server, &clock);
        let api = isolated::api();
        for _ in 0..loads {
            feed.load().await.unwrap_err();
        }
        drop(api.set_provider(feed.provider()).unwrap());
        assert_eq!(api.client().provider_status(), ProviderStatus::Fatal);
        server.then([good(&["a"], "1")]);
        feed.load().await.unwrap();
        assert!(api.client().boolean("a", false, ()));
    }
}

#[tokio::test]
async fn binding_may_wait_for_the_first_document() {
    let server = Server::doing([good(&["a"], "1")]).await;
    let feed = Arc::new(feed(&server, &ManualClock::default()));
    let runs = Arc::clone(&feed);
    let task = tokio::spawn(async move {
        runs.run().await;
    });
    let api = isolated::api();
    api.set_provider_and_wait(feed.provider()).await.unwrap();
    assert!(api.client().boolean("a", false, ()));
    task.abort();
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is_asked_again_no_earlier() {
    let dates = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:59:37 GMT\r\n";
    let server = Server::doing([
        answer("429 Slow down", "retry-after: 300\r\n", ""),
        answer("503 Later", dates, ""),
        answer("503 Later", "retry-after: 999999\r\n", ""),
    ])
    .await;
    let clock = ManualClock::default();
    let feed = feed(&server, &clock);
    for minutes in [5, 10, 60] {
        let error = feed.load().await.unwrap_err();
        assert!(error.to_string().contains("asks to be left alone for"), "{error}");
        assert_eq!(feed.next_load().unwrap().duration_since(clock.now()), SignedDuration::from_mins(minutes));
    }
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_stays_in_the_trouble_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("missing/too");
    let cache = directory.join("flags.json");
    // A file stands where the directory would be made.
    fs::write(folder.path().join("missing"), "").unwrap();
    let same = || answer("304 Not Modified", "", "");
    let server = Server::doing([good(&["a"], "1"), same(), answer("500 Oops", "", ""), same()]).await;
    let feed = feed(&server, &ManualClock::default()).cached_in(&cache);
    feed.load().await.unwrap();
    assert!(on(&feed, "a"));
    let told =
        || feed.trouble().is_some_and(|trouble| trouble.contains("cannot keep the last good document in"));
    assert!(told());
    feed.load().await.unwrap();
    assert!(told(), "a load that went well does not mend the disk");
    feed.load().await.unwrap_err();
    assert!(told() && feed.trouble().unwrap().contains("status 500"));
    fs::remove_file(folder.path().join("missing")).unwrap();
    feed.load().await.unwrap();
    assert_eq!(feed.trouble(), None);
    assert_eq!(
        fs::read_to_string(&cache).unwrap(),
        document(&["a"]),
        "kept, in a directory that was made for it"
    );

    // What a crash left beside it is in nobody's way.
    fs::create_dir(directory.join("flags.json.new")).unwrap();
    server.then([good(&["b"], "2")]);
    feed.load().await.unwrap();
    assert_eq!((feed.trouble(), fs::read_to_string(&cache).unwrap()), (None, document(&["b"])));
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "nothing else is left there");
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
async fn clients_hear_which_flags_changed() {
    let both = good(&["a", "b"], "2");
    let server = Server::doing([good(&["a"], "1"), both, good(&["b"], "3"), good(&["b"], "4")]).await;
    let feed = feed(&server, &ManualClock::default());
    let api = isolated::api();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    api.add_handler(Event::ConfigurationChanged, move |details| {
        tell.lock().unwrap().push(details.flags_changed.join(" "));
    });
    drop(api.set_provider(feed.provider()).unwrap());
    for _ in 0..4 {
        feed.load().await.unwrap();
    }
    assert_eq!(
        *told.lock().unwrap(),
        ["b", "a"],
        "the first document, and one with the same text, change nothing"
    );
}
