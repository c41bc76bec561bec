//! How providers are bound, started and stopped (1.1, 1.6, 1.7, 2.4, 2.5, 2.8).

use super::*;

fn bound(api: &Api, probe: Probe) -> Arc<Probe> {
    let probe = Arc::new(probe);
    drop(api.set_provider(probe.clone()).unwrap());
    probe
}

#[test]
fn req_1_1_2_1_and_1_1_2_2_a_provider_is_started_before_it_is_asked() {
    let (api, probe) = with_probe(Starts::Well);
    assert!(api.client().boolean("flag", false, ()));
    assert_eq!(probe.log.lines(), ["initialize probe {} None", "resolve"]);
    drop(api.set_provider(probe.clone()).unwrap());
    drop(api.set_domain_provider("shop", probe.clone()).unwrap());
    assert_eq!(probe.log.lines().len(), 2, "once");
}

#[test]
fn req_1_1_2_3_a_provider_is_shut_down_when_nothing_is_bound_to_it() {
    let (api, first) = with_probe(Starts::Well);
    drop(api.set_domain_provider("shop", first.clone()).unwrap());
    bound(&api, Probe::new("second", Starts::Well));
    assert!(!first.log.lines().contains(&"shutdown probe".to_owned()), "`shop` still uses it");
    assert_eq!(api.domain_client("shop").provider_metadata().name(), "probe");
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("third", Starts::Well))).unwrap());
    assert!(first.log.lines().contains(&"shutdown probe".to_owned()));
}

#[tokio::test]
async fn req_1_1_2_4_binding_may_wait_for_the_start() {
    let api = isolated::api();
    api.set_provider_and_wait(Arc::new(Probe::new("a", Starts::Well))).await.unwrap();
    assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
    let error = api.set_domain_provider_and_wait("shop", Arc::new(Probe::new("b", Starts::Badly))).await;
    assert_eq!(error.unwrap_err().to_string(), "GENERAL: no connection");
    assert_eq!(api.domain_client("shop").provider_status(), ProviderStatus::Error);
}

#[test]
fn req_1_1_3_a_domain_has_its_own_provider() {
    let (api, _) = with_probe(Starts::Well);
    let client = api.domain_client("shop");
    assert_eq!(client.provider_metadata().name(), "probe", "the default serves it");
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("one", Starts::Well))).unwrap());
    assert_eq!(client.provider_metadata().name(), "one");
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("two", Starts::Well))).unwrap());
    assert_eq!(client.provider_metadata().name(), "two", "overwritten");
    assert_eq!(api.client().provider_metadata().name(), "probe");
}

#[test]
fn req_1_1_8_1_and_2_4_3_and_2_4_4_a_domain_scoped_provider_is_bound_once() {
    let api = isolated::api();
    let probe = Arc::new(Probe { scoped: true, ..Probe::new("scoped", Starts::Well) });
    drop(api.set_domain_provider("shop", probe.clone()).unwrap());
    assert_eq!(probe.log.lines(), [r#"initialize scoped {} Some("shop")"#], "it is told its domain");
    let refused = api.set_domain_provider("blog", probe.clone()).unwrap_err();
    insta::assert_snapshot!(refused, @"provider `scoped` keeps state by domain and is bound to domain `shop` already; make another one for this domain");
    assert!(api.set_provider(probe.clone()).is_err());
    drop(api.set_domain_provider("shop", probe).unwrap());
    assert_eq!(api.domain_client("blog").provider_metadata().name(), "No-op Provider");
}

#[test]
fn req_1_6_1_and_2_5_1_shutdown_reaches_all_providers() {
    let (api, one) = with_probe(Starts::Well);
    let two = Arc::new(Probe::new("two", Starts::Well));
    drop(api.set_domain_provider("a", two.clone()).unwrap());
    drop(api.set_domain_provider("b", two.clone()).unwrap());
    api.shutdown();
    assert_eq!(one.log.lines().last().unwrap(), "shutdown probe");
    assert_eq!(two.log.lines().iter().filter(|line| *line == "shutdown two").count(), 1);
}

#[test]
fn req_1_6_2_after_shutdown_the_api_is_as_new() {
    let (api, _) = with_probe(Starts::Well);
    let log = Log::default();
    let heard = log.clone();
    api.add_hooks([Recorder::new("hook", &log).hook()]);
    api.add_handler(Event::Ready, move |_| heard.note("ready"));
    api.set_context(EvaluationContext::targeting("ada"));
    api.set_transaction_propagator(Arc::new(ThreadPropagator));
    log.take();
    let client = api.client();
    api.shutdown();
    assert!(!client.boolean("flag", false, ()));
    assert!(api.context().is_empty());
    api.set_transaction_context(EvaluationContext::targeting("bob"));
    assert_eq!(ThreadPropagator.current(), None, "no propagator");
    let probe = bound(&api, Probe::new("new", Starts::Well));
    assert!(client.boolean("flag", false, ()), "old clients go on");
    assert!(log.take().is_empty(), "no hook, no handler");
    assert!(probe.last_context().is_empty());
}

#[test]
fn req_1_7_1_a_client_knows_its_providers_status() {
    for (starts, status) in [
        (Starts::Nothing, ProviderStatus::Ready),
        (Starts::Never, ProviderStatus::NotReady),
        (Starts::Well, ProviderStatus::Ready),
    ] {
        let api = isolated::api();
        let starting = api.set_provider(Arc::new(Probe::new("probe", starts))).unwrap();
        assert_eq!(api.client().provider_status(), status, "{starts:?}");
        drop(starting);
    }
    let (api, probe) = with_probe(Starts::Well);
    probe.emit(Event::Stale, EventDetails::new());
    assert_eq!(api.client().provider_status().as_str(), "STALE");
}

#[test]
fn req_1_7_3_and_1_7_4_and_1_7_5_the_status_follows_from_the_start() {
    for (starts, status) in [
        (Starts::Well, ProviderStatus::Ready),
        (Starts::Silently, ProviderStatus::Ready),
        (Starts::Badly, ProviderStatus::Error),
        (Starts::Panicking, ProviderStatus::Error),
        (Starts::Fatally, ProviderStatus::Fatal),
    ] {
        let (api, _) = with_probe(starts);
        assert_eq!(api.client().provider_status(), status, "{starts:?}");
    }
}

#[test]
fn a_provider_that_is_not_ready_or_fatal_is_not_asked_and_error_hooks_run() {
    for (starts, code) in
        [(Starts::Never, ErrorCode::ProviderNotReady), (Starts::Fatally, ErrorCode::ProviderFatal)]
    {
        let api = isolated::api();
        let probe = Arc::new(Probe::new("probe", starts));
        let starting = api.set_provider(probe.clone()).unwrap();
        let log = Log::default();
        api.add_hooks([Recorder::new("hook", &log).hook()]);
        let details = api.client().boolean_details("flag", false, ());
        assert_eq!((details.value, details.error_code()), (false, Some(code)));
        assert_eq!(log.take(), ["error hook", "finally hook"]);
        assert_eq!(probe.asked.load(Ordering::Relaxed), 0);
        drop(starting);
    }
    for event in [Event::Stale, Event::Error] {
        let (api, probe) = with_probe(Starts::Well);
        probe.emit(event, EventDetails::new());
        assert!(api.client().boolean("flag", false, ()), "a {event} provider is asked");
    }
}

#[test]
fn req_1_7_6_and_2_5_2_and_2_5_3_after_shutdown_a_provider_is_where_it_began() {
    let (api, probe) = with_probe(Starts::Well);
    let client = api.client();
    let before = probe.events.lock().unwrap().clone().unwrap();
    api.shutdown();
    assert_eq!(client.provider_status(), ProviderStatus::NotReady);
    before.emit(Event::Ready, EventDetails::new());
    assert_eq!(client.provider_status(), ProviderStatus::NotReady, "its old news is not heard any more");
    api.shutdown();
    let shutdowns = probe.log.lines().iter().filter(|line| line.starts_with("shutdown")).count();
    assert_eq!(shutdowns, 1, "once, however often");
    drop(api.set_provider(probe).unwrap());
    assert_eq!(client.provider_status(), ProviderStatus::Ready, "and it may start again");
}

#[test]
fn req_2_4_1_the_start_is_given_context_and_domain() {
    let api = isolated::api();
    api.set_context(EvaluationContext::targeting("app"));
    let probe = Arc::new(Probe::new("probe", Starts::Well));
    drop(api.set_domain_provider("shop", probe.clone()).unwrap());
    assert_eq!(probe.log.lines(), [r#"initialize probe {"targetingKey": Text("app")} Some("shop")"#]);
}

#[tokio::test]
async fn req_2_4_2_1_a_failed_start_is_an_error() {
    let api = isolated::api();
    for (starts, code) in [
        (Starts::Badly, ErrorCode::General),
        (Starts::Fatally, ErrorCode::ProviderFatal),
        (Starts::Panicking, ErrorCode::General),
    ] {
        let error = api.set_provider_and_wait(Arc::new(Probe::new("probe", starts))).await.unwrap_err();
        assert_eq!(error.code, code);
    }
}

#[test]
fn req_2_8_1_and_2_8_2_and_2_8_3_a_provider_tells_each_change_itself() {
    let (api, probe) = with_probe(Starts::Well);
    let client = api.client();
    assert_eq!(client.provider_status(), ProviderStatus::Ready, "told before `initialize` returned");
    for (event, status) in [
        (Event::Stale, ProviderStatus::Stale),
        (Event::Ready, ProviderStatus::Ready),
        (Event::Error, ProviderStatus::Error),
        (Event::Ready, ProviderStatus::Ready),
    ] {
        probe.emit(event, EventDetails::new());
        assert_eq!(client.provider_status(), status);
    }
    let log = Log::default();
    let heard = log.clone();
    let api = isolated::api();
    api.add_handler(Event::Error, move |details| heard.note(format!("{:?}", details.message)));
    bound(&api, Probe::new("bad", Starts::Badly));
    assert_eq!(log.take(), [r#"Some("no connection")"#], "told once, not again by the client");
}

#[test]
fn req_2_8_5_1_without_a_start_a_provider_is_ready_at_once() {
    let api = isolated::api();
    let log = Log::default();
    let heard = log.clone();
    api.add_handler(Event::Ready, move |details| heard.note(&*details.provider));
    bound(&api, Probe::new("plain", Starts::Nothing));
    assert_eq!(log.take(), ["plain"]);
    assert_eq!(api.client().provider_status(), ProviderStatus::Ready);
}

#[test]
fn a_start_that_is_dropped_is_an_error_that_says_so() {
    let api = isolated::api();
    let log = Log::default();
    let heard = log.clone();
    api.add_handler(Event::Error, move |details| heard.note(details.message.as_deref().unwrap()));
    drop(api.set_provider(Arc::new(Probe::new("slow", Starts::Never))).unwrap());
    assert_eq!(api.client().provider_status(), ProviderStatus::Error);
    assert!(log.take()[0].contains("await what `set_provider` returns"));
}

#[test]
fn the_last_clone_shuts_down() {
    let (api, probe) = with_probe(Starts::Well);
    let client = api.client();
    drop(api);
    assert!(client.boolean("flag", false, ()));
    drop(client);
    assert_eq!(probe.log.lines().last().unwrap(), "shutdown probe");
}
