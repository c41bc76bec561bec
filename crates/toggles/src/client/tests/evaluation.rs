//! Section 1: the evaluation API; and what of section 2 shows in results.

use super::*;

#[test]
fn req_1_1_1_there_is_one_global_api() {
    assert!(std::ptr::eq(Api::global(), Api::global()));
    let key = EvaluationContext::new().with("global-api-test", true);
    Api::global().clone().set_context(key.clone());
    assert_eq!(Api::global().context(), key, "clones are the same API");
    Api::global().set_context(EvaluationContext::EMPTY);
}

#[test]
fn req_1_1_4_and_1_2_1_and_4_4_1_hooks_are_added_to_those_that_are_there() {
    let (api, probe) = with_probe(Starts::Nothing);
    let log = Log::default();
    let client = api.client();
    api.add_hooks([Recorder::new("a", &log).hook()]);
    api.add_hooks([Recorder::new("b", &log).hook(), Recorder::new("c", &log).hook()]);
    client.add_hooks([Recorder::new("d", &log).hook()]);
    client.add_hooks([Recorder::new("e", &log).hook()]);
    let options = Options::new().hook(Recorder::new("f", &log).hook());
    assert!(client.boolean("flag", false, &options));
    let before: Vec<_> = log.take().into_iter().filter(|line| line.starts_with("before")).collect();
    assert_eq!(before, ["before a", "before b", "before c", "before d", "before e", "before f"]);
    assert_eq!(probe.asked.load(Ordering::Relaxed), 1);
}

#[test]
fn req_1_1_5_and_2_1_1_a_provider_is_known_by_its_name() {
    let (api, _) = with_probe(Starts::Well);
    assert_eq!(api.provider_metadata().name(), "probe");
    assert_eq!(api.domain_provider_metadata("elsewhere").name(), "probe");
    drop(api.set_domain_provider("elsewhere", Arc::new(Probe::new("other", Starts::Well))).unwrap());
    assert_eq!(api.domain_provider_metadata("elsewhere").name(), "other");
    assert_eq!(api.domain_client("elsewhere").provider_metadata().name(), "other");
}

#[test]
fn req_1_1_6_and_1_1_7_and_1_2_2_a_client_is_made_for_any_domain() {
    let api = isolated::api();
    for domain in ["", "payments", "\0", "a b"] {
        let client = api.domain_client(domain);
        assert_eq!(client.metadata().domain(), Some(domain));
        assert!(client.boolean("flag", true, ()), "nothing is bound: the default");
    }
    assert_eq!(api.client().metadata().domain(), None);
}

#[test]
fn req_1_3_1_1_and_1_3_3_1_flags_are_asked_for_by_type() {
    let client = with_flags().client();
    let context = EvaluationContext::targeting("ada");
    let options = Options::new().context(context.clone());
    assert!(client.boolean("bool", false, ()));
    assert_eq!(client.text("text", "", &context), "hi");
    assert_eq!(client.integer("integer", 0, &options), 10);
    assert!((client.float("float", 0.0, ()) - 0.5).abs() < f64::EPSILON);
    let structure = client.structure("structure", Value::Null, ());
    assert_eq!(structure.get("colour").and_then(Value::as_str), Some("green"));
    assert_eq!(client.value("integer", 0_i64, ()), 10);
}

#[test]
fn req_1_3_4_another_type_is_abnormal() {
    let client = with_flags().client();
    let details = client.integer_details("text", 3, ());
    assert_eq!((details.value, details.error_code()), (3, Some(ErrorCode::TypeMismatch)));
    let api = isolated::api();
    let careless = Probe { structure: Some(5.into()), ..Probe::new("careless", Starts::Nothing) };
    drop(api.set_provider(Arc::new(careless)).unwrap());
    let details = api.client().structure_details("flag", Value::object([("a", 2.into())]), ());
    assert_eq!(details.value, Value::object([("a", 2.into())]));
    assert_eq!(details.error_code(), Some(ErrorCode::TypeMismatch));
}

#[test]
fn req_1_4_1_1_and_1_4_3_and_1_4_4_1_and_1_4_5_details_carry_key_and_typed_value() {
    let client = with_flags().client();
    let context = EvaluationContext::targeting("ada");
    let options = Options::new().context(context.clone());
    let text: Details<String> = client.text_details("text", "", &context);
    assert_eq!((&*text.key, text.value.as_str()), ("text", "hi"));
    let bool: Details<bool> = client.boolean_details("bool", false, ());
    assert_eq!((&*bool.key, bool.value), ("bool", true));
    let integer: Details<i64> = client.integer_details("integer", 0, &options);
    assert_eq!((&*integer.key, integer.value), ("integer", 10));
    let float: Details<f64> = client.float_details("float", 0.0, ());
    assert_eq!((&*float.key, float.value.to_string().as_str()), ("float", "0.5"));
    let structure: Details<Value> = client.structure_details("structure", Value::Null, ());
    assert_eq!(structure.value.to_string(), r#"{"colour":"green","size":3}"#);
    let missing = client.boolean_details("missing", true, ());
    assert_eq!(&*missing.key, "missing", "also if it fails");
}

#[test]
fn req_1_4_6_and_1_4_7_variant_and_reason_come_from_the_provider() {
    let client = with_flags().client();
    let details = client.boolean_details("bool", false, ());
    assert_eq!(details.variant.as_deref(), Some("only"));
    assert_eq!(details.reason, Some(Reason::Static));
    let own = Resolution::new(true).because(Reason::from("BECAUSE_I_SAID_SO"));
    let api = isolated::api();
    let probe = Probe { answer: Some(Ok(own)), ..Probe::new("own", Starts::Nothing) };
    drop(api.set_provider(Arc::new(probe)).unwrap());
    let details = api.client().boolean_details("flag", false, ());
    assert_eq!(details.reason.map(|reason| reason.to_string()).as_deref(), Some("BECAUSE_I_SAID_SO"));
    assert_eq!(details.variant, None, "not set: not there");
}

#[test]
fn req_1_4_8_and_1_4_9_and_1_4_13_a_failure_has_code_reason_and_message() {
    let details = with_flags().client().boolean_details("missing", true, ());
    assert_eq!(details.error_code(), Some(ErrorCode::FlagNotFound));
    assert_eq!(details.reason, Some(Reason::Error));
    assert_eq!(details.error_message(), Some("there is no flag `missing`"));
}

#[test]
fn req_1_4_10_whatever_happens_the_default_is_returned() {
    let (api, _) = with_probe(Starts::Well);
    let details = api.client().boolean_details("panics", true, ());
    assert!(details.value);
    assert_eq!(details.error_code(), Some(ErrorCode::General));
    assert!(details.error_message().unwrap().contains("panicked"), "{details:?}");
    let log = Log::default();
    for stage in ["before", "after", "error", "finally"] {
        let (api, _) = with_probe(Starts::Well);
        let hook = Recorder::new("hook", &log).panicking(stage).hook();
        let details = api.client().boolean_details("flag", false, &Options::new().hook(hook));
        let fails = matches!(stage, "before" | "after");
        assert_eq!((details.value, details.error.is_some()), (!fails, fails), "{stage}");
    }
}

/// Nothing in the crate writes to a log: the client's sources name no logging facility and no output stream.
#[test]
fn req_1_4_11_the_client_writes_no_log() {
    let sources = [
        include_str!("../api.rs"),
        include_str!("../binding.rs"),
        include_str!("../evaluate.rs"),
        include_str!("../event.rs"),
        include_str!("../hook.rs"),
    ];
    for source in sources {
        for word in ["println!", "eprintln!", "tracing::", "log::", "stdout", "stderr"] {
            assert!(!source.contains(word), "{word}");
        }
    }
}

#[tokio::test]
async fn req_1_4_12_an_evaluation_does_not_block_a_task() {
    let client = with_flags().client();
    let evaluation = async { client.boolean("bool", false, ()) };
    let mut evaluation = std::pin::pin!(evaluation);
    let first = std::future::poll_fn(|context| std::task::Poll::Ready(evaluation.as_mut().poll(context)));
    assert_eq!(first.await, std::task::Poll::Ready(true), "done at the first poll");
}

#[test]
fn req_1_4_14_and_1_4_15_1_and_2_2_9_and_2_2_10_metadata_is_passed_on_and_can_not_be_changed() {
    let client = with_flags().client();
    let details = client.boolean_details("told", false, ());
    assert_eq!(details.metadata.get("version"), Some(&MetadataValue::from("1.0.2")));
    assert!(client.boolean_details("bool", false, ()).metadata.is_empty());
    assert!(client.boolean_details("missing", false, ()).metadata.is_empty());
    let every = FlagMetadata::from_iter([
        ("bool", MetadataValue::from(true)),
        ("float", 0.5.into()),
        ("integer", 7.into()),
        ("text", "x".into()),
    ]);
    // There is no method that changes one.
    assert_eq!(every.iter().count(), 4);
    let mismatch = client.integer_details("told", 1, ());
    assert!(!mismatch.metadata.is_empty(), "also with an error");
}

#[test]
fn req_1_5_1_an_evaluation_may_bring_hooks_along() {
    let (api, _) = with_probe(Starts::Nothing);
    let log = Log::default();
    let options = Options::new().hook(Recorder::new("a", &log).hook()).hook(Recorder::new("b", &log).hook());
    let client = api.client();
    client.boolean("flag", false, &options);
    assert_eq!(log.take(), ["before a", "before b", "after b", "after a", "finally b", "finally a"]);
    client.boolean("flag", false, ());
    assert!(log.take().is_empty(), "for that evaluation only");
}

#[test]
fn req_1_8_1_and_1_8_2_an_isolated_api_shares_nothing() {
    let (one, _) = with_probe(Starts::Well);
    let other = isolated::api();
    one.set_context(EvaluationContext::new().with("a", 1));
    let log = Log::default();
    one.add_hooks([Recorder::new("hook", &log).hook()]);
    assert_eq!(other.provider_metadata().name(), "No-op Provider");
    assert!(other.context().is_empty());
    other.client().boolean("flag", false, ());
    other.shutdown();
    assert!(log.lines().is_empty());
    assert_eq!(one.client().provider_status(), ProviderStatus::Ready);
    assert!(one.client().boolean("flag", false, ()), "and does everything that the global one does");
}

/// [`isolated::api`] is in a module of its own, apart from [`Api`], which has no public constructor.
#[test]
fn req_1_8_3_isolated_apis_are_made_on_purpose() {
    assert!(include_str!("../mod.rs").contains("pub mod isolated;"));
    assert!(include_str!("../api.rs").contains("pub(super) fn new() -> Self"));
    drop(isolated::api());
}

#[test]
fn req_1_8_4_a_provider_is_bound_in_one_api_at_a_time() {
    let (one, probe) = with_probe(Starts::Well);
    let other = isolated::api();
    let refused = other.set_provider(probe.clone()).unwrap_err();
    insta::assert_snapshot!(refused, @"provider `probe` is bound in another API already; unbind it there first, or make another one");
    one.shutdown();
    drop(other.set_provider(probe).unwrap());
    assert_eq!(other.client().provider_status(), ProviderStatus::Ready);
}

#[test]
fn req_2_2_1_and_2_2_2_1_and_2_2_8_1_a_provider_resolves_by_type() {
    let (_, probe) = with_probe(Starts::Nothing);
    let context = EvaluationContext::targeting("ada");
    let bool: Resolution<bool> = probe.resolve_bool("k", false, &context).unwrap();
    let text: Resolution<String> = probe.resolve_text("k", "", &context).unwrap();
    let integer: Resolution<i64> = probe.resolve_integer("k", 0, &context).unwrap();
    let float: Resolution<f64> = probe.resolve_float("k", 0.0, &context).unwrap();
    let structure: Resolution<Value> = probe.resolve_structure("k", &Value::Null, &context).unwrap();
    assert!(bool.value && text.value == "text" && integer.value == 7 && float.value > 0.4);
    assert_eq!(structure.value.to_string(), r#"{"a":1}"#);
}

#[test]
fn req_2_2_3_and_2_2_4_and_2_2_5_providers_fill_value_variant_and_reason() {
    let memory = Memory::new()
        .flag("flag", MemoryFlag::new().variant("on", true).variant("off", false).default_variant("off"))
        .flag("off", MemoryFlag::new().variant("on", true).default_variant("on").disabled());
    let resolution = memory.resolve_bool("flag", true, &EvaluationContext::EMPTY).unwrap();
    assert_eq!(resolution, Resolution::new(false).variant("off").because(Reason::Static));
    let off = memory.resolve_bool("off", false, &EvaluationContext::EMPTY).unwrap();
    assert_eq!(off, Resolution::new(false).because(Reason::Disabled));
}

/// A resolution has no field for an error, an error none for a value: `Result` keeps them apart.
#[test]
fn req_2_2_6_and_2_2_7_and_2_3_2_and_2_3_3_a_resolution_is_a_value_or_an_error() {
    let client = with_flags().client();
    let well = client.boolean_details("bool", false, ());
    assert_eq!((well.error_code(), well.error_message()), (None, None));
    let ill = client.boolean_details("text", false, ());
    assert_eq!(ill.error_code(), Some(ErrorCode::TypeMismatch));
    assert_eq!(ill.error_message(), Some("flag `text` is a text"));
    assert_eq!(ill.into_result().unwrap_err().to_string(), "TYPE_MISMATCH: flag `text` is a text");
}

#[test]
fn without_a_provider_every_flag_is_its_default_and_no_error() {
    let client = isolated::api().client();
    let details = client.integer_details("flag", 3, ());
    assert_eq!((details.value, details.reason, details.error), (3, Some(Reason::Default), None));
    assert_eq!(client.provider_status(), ProviderStatus::NotReady);
}

#[test]
fn whole_floats_are_integers_and_integers_are_floats() {
    let one = |value: Value| MemoryFlag::new().variant("only", value).default_variant("only");
    let api = isolated::api();
    let memory = Memory::new().flag("whole", one(1.0.into())).flag("part", one(1.5.into()));
    drop(api.set_provider(Arc::new(memory)).unwrap());
    assert_eq!(api.client().integer("whole", 0, ()), 1);
    assert_eq!(api.client().integer("part", 0, ()), 0);
    assert!(api.client().float("whole", 0.0, ()) > 0.9);
}

#[test]
fn a_disabled_flag_is_the_default_and_no_error() {
    let details = with_flags().client().boolean_details("off", false, ());
    assert_eq!((details.value, details.reason, details.variant), (false, Some(Reason::Disabled), None));
    assert_eq!(details.error, None);
}
