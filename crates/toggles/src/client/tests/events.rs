//! Section 5: events.

use super::*;

fn listen(api: &Api, event: Event) -> (Log, HandlerId) {
    let log = Log::default();
    let heard = log.clone();
    let id = api.add_handler(event, move |details| {
        heard.note(format!("{event} {} {}", details.provider, details.message.as_deref().unwrap_or("-")));
    });
    (log, id)
}

fn listen_client(client: &Client, event: Event) -> (Log, HandlerId) {
    let log = Log::default();
    let heard = log.clone();
    let id = client.add_handler(event, move |details| {
        heard.note(format!("{event} {} {}", details.provider, details.message.as_deref().unwrap_or("-")));
    });
    (log, id)
}

#[test]
fn req_5_1_1_and_5_1_2_and_5_2_1_and_5_2_2_handlers_of_api_and_client_run() {
    for event in [Event::Ready, Event::Error, Event::ConfigurationChanged, Event::Stale] {
        let (api, probe) = with_probe(Starts::Well);
        let (of_api, _) = listen(&api, event);
        let (of_client, _) = listen_client(&api.client(), event);
        of_api.take();
        of_client.take();
        probe.emit(event, EventDetails::message("it happened"));
        assert_eq!(of_api.take(), [format!("{event} probe it happened")]);
        assert_eq!(of_client.take(), [format!("{event} probe it happened")]);
    }
}

#[test]
fn req_5_1_3_clients_of_other_providers_hear_nothing() {
    let (api, default) = with_probe(Starts::Well);
    let shop = Arc::new(Probe::new("shop", Starts::Well));
    drop(api.set_domain_provider("shop", shop.clone()).unwrap());
    let (of_shop, _) = listen_client(&api.domain_client("shop"), Event::Stale);
    let (of_blog, _) = listen_client(&api.domain_client("blog"), Event::Stale);
    default.emit(Event::Stale, EventDetails::new());
    assert!(of_shop.take().is_empty());
    assert_eq!(of_blog.take(), ["PROVIDER_STALE probe -"], "`blog` is served by the default");
    shop.emit(Event::Stale, EventDetails::new());
    assert_eq!(of_shop.take(), ["PROVIDER_STALE shop -"]);
    assert!(of_blog.take().is_empty());
}

#[test]
fn req_5_1_4_and_5_1_5_an_error_has_message_and_code() {
    let (api, probe) = with_probe(Starts::Well);
    let log = Log::default();
    let heard = log.clone();
    api.add_handler(Event::Error, move |details| {
        heard.note(format!("{:?} {:?}", details.error_code, details.message));
    });
    probe.emit(Event::Error, EventDetails::error(ErrorCode::ParseError, "half a document"));
    probe.emit(Event::Error, EventDetails::new());
    assert_eq!(
        log.take(),
        [
            r#"Some(ParseError) Some("half a document")"#,
            r#"Some(General) Some("the provider did not say what is wrong")"#
        ]
    );
}

#[test]
fn req_5_2_3_and_5_2_4_a_handler_is_told_who_and_what() {
    let (api, probe) = with_probe(Starts::Well);
    let seen = Arc::new(Mutex::new(None));
    let keep = seen.clone();
    api.add_handler(Event::ConfigurationChanged, move |details| {
        *keep.lock().unwrap() = Some(details.clone());
    });
    let metadata = FlagMetadata::from_iter([("revision", 7_i64)]);
    probe.emit(
        Event::ConfigurationChanged,
        EventDetails { metadata: metadata.clone(), ..EventDetails::changed(["a", "b"]) },
    );
    let details = seen.lock().unwrap().take().unwrap();
    assert_eq!(&*details.provider, "probe");
    assert_eq!(details.flags_changed, ["a".into(), "b".into()] as [Arc<str>; 2]);
    assert_eq!(details.metadata, metadata);
}

#[test]
fn req_5_2_5_a_handler_that_panics_does_not_stop_others() {
    let (api, probe) = with_probe(Starts::Well);
    api.add_handler(Event::Stale, |_| panic!("as asked"));
    let (log, _) = listen(&api, Event::Stale);
    probe.emit(Event::Stale, EventDetails::new());
    assert_eq!(log.take().len(), 1);
}

#[test]
fn req_5_2_6_handlers_outlive_providers() {
    let api = isolated::api();
    let (of_api, _) = listen(&api, Event::Ready);
    let (of_client, _) = listen_client(&api.client(), Event::Ready);
    for name in ["one", "two"] {
        drop(api.set_provider(Arc::new(Probe::new(name, Starts::Well))).unwrap());
        assert_eq!(of_api.take(), [format!("PROVIDER_READY {name} -")]);
        assert_eq!(of_client.take(), [format!("PROVIDER_READY {name} -")]);
    }
}

#[test]
fn req_5_2_7_handlers_can_be_removed() {
    let (api, probe) = with_probe(Starts::Well);
    let client = api.client();
    let (of_api, api_id) = listen(&api, Event::Stale);
    let (of_client, client_id) = listen_client(&client, Event::Stale);
    assert!(!client.remove_handler(api_id), "it is the API's");
    assert!(api.remove_handler(api_id) && client.remove_handler(client_id));
    assert!(!api.remove_handler(api_id), "gone");
    probe.emit(Event::Stale, EventDetails::new());
    assert!(of_api.take().is_empty() && of_client.take().is_empty());
}

#[test]
fn req_5_3_1_a_start_that_went_well_runs_ready_handlers() {
    for starts in [Starts::Well, Starts::Silently] {
        let api = isolated::api();
        let (log, _) = listen(&api, Event::Ready);
        drop(api.set_provider(Arc::new(Probe::new("probe", starts))).unwrap());
        assert_eq!(log.take(), ["PROVIDER_READY probe -"], "{starts:?}");
    }
}

#[test]
fn req_5_3_2_a_start_that_failed_runs_error_handlers() {
    for starts in [Starts::Badly, Starts::Fatally, Starts::Panicking] {
        let api = isolated::api();
        let (log, _) = listen(&api, Event::Error);
        drop(api.set_provider(Arc::new(Probe::new("probe", starts))).unwrap());
        assert_eq!(log.take().len(), 1, "{starts:?}");
    }
}

#[test]
fn req_5_3_3_a_handler_that_comes_late_runs_at_once() {
    let (api, probe) = with_probe(Starts::Well);
    let client = api.client();
    assert_eq!(listen(&api, Event::Ready).0.take(), ["PROVIDER_READY probe -"]);
    assert_eq!(listen_client(&client, Event::Ready).0.take(), ["PROVIDER_READY probe -"]);
    assert!(listen(&api, Event::ConfigurationChanged).0.take().is_empty(), "no state");
    probe.emit(Event::Stale, EventDetails::message("old"));
    assert!(listen(&api, Event::Ready).0.take().is_empty());
    assert_eq!(listen_client(&client, Event::Stale).0.take(), ["PROVIDER_STALE probe old"]);
    probe.emit(Event::Error, EventDetails::error(ErrorCode::ProviderFatal, "bad key"));
    assert_eq!(listen(&api, Event::Error).0.take(), ["PROVIDER_ERROR probe bad key"]);
}

#[test]
fn req_5_3_5_the_status_changes_before_handlers_run() {
    let (api, probe) = with_probe(Starts::Well);
    let log = Log::default();
    let (client, heard) = (api.client(), log.clone());
    for event in [Event::Stale, Event::Error, Event::ConfigurationChanged] {
        let (client, heard) = (client.clone(), heard.clone());
        api.add_handler(event, move |_| heard.note(client.provider_status().as_str()));
    }
    probe.emit(Event::Stale, EventDetails::new());
    probe.emit(Event::ConfigurationChanged, EventDetails::changed(["a"]));
    probe.emit(Event::Error, EventDetails::new());
    probe.emit(Event::Error, EventDetails::error(ErrorCode::ProviderFatal, "no"));
    assert_eq!(log.take(), ["STALE", "STALE", "ERROR", "FATAL"]);
}

#[test]
fn a_handler_may_call_anything() {
    let (api, probe) = with_probe(Starts::Well);
    let inner = api.clone();
    let log = Log::default();
    let heard = log.clone();
    api.add_handler(Event::Stale, move |_| {
        let id = inner.add_handler(Event::Ready, |_| {});
        inner.remove_handler(id);
        inner.set_context(EvaluationContext::targeting("ada"));
        heard.note(inner.client().boolean("flag", false, ()).to_string());
        inner.shutdown();
    });
    probe.emit(Event::Stale, EventDetails::new());
    assert_eq!(log.take(), ["true"]);
}

#[test]
fn clients_of_a_domain_that_joins_a_running_provider_hear_of_it() {
    let (api, probe) = with_probe(Starts::Well);
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("other", Starts::Well))).unwrap());
    let (of_shop, _) = listen_client(&api.domain_client("shop"), Event::Ready);
    of_shop.take();
    drop(api.set_domain_provider("shop", probe).unwrap());
    assert_eq!(of_shop.take(), ["PROVIDER_READY probe -"]);
}
