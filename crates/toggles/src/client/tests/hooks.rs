//! Section 4: hooks; and provider hooks of section 2.

use super::*;

/// Calls a closure at one stage.
struct At<F>(Stages, F);

impl<F: Fn(&mut HookContext<'_>, &HookHints) -> Option<EvaluationContext> + Send + Sync> Hook for At<F> {
    fn stages(&self) -> Stages {
        self.0
    }

    fn before(
        &self,
        context: &mut HookContext<'_>,
        hints: &HookHints,
    ) -> Result<Option<EvaluationContext>, BoxError> {
        Ok((self.1)(context, hints))
    }

    fn after(
        &self,
        context: &mut HookContext<'_>,
        _: &Details<Value>,
        hints: &HookHints,
    ) -> Result<(), BoxError> {
        (self.1)(context, hints);
        Ok(())
    }

    fn error(
        &self,
        context: &mut HookContext<'_>,
        _: &EvaluationError,
        hints: &HookHints,
    ) -> Result<(), BoxError> {
        (self.1)(context, hints);
        Ok(())
    }

    fn finally(
        &self,
        context: &mut HookContext<'_>,
        _: &Details<Value>,
        hints: &HookHints,
    ) -> Result<(), BoxError> {
        (self.1)(context, hints);
        Ok(())
    }
}

/// An API whose four levels have two hooks each; the order is the log's.
fn layered(change: impl Fn(Recorder) -> Recorder) -> (Client, Options, Log) {
    let api = isolated::api();
    let log = Log::default();
    let make = |name: &'static str| change(Recorder::new(name, &log));
    let probe = Probe { log: log.clone(), ..Probe::new("probe", Starts::Nothing) };
    *probe.hooks.lock().unwrap() = vec![make("provider-1"), make("provider-2")];
    drop(api.set_provider(Arc::new(probe)).unwrap());
    api.add_hooks([make("api-1").hook(), make("api-2").hook()]);
    let client = api.client();
    client.add_hooks([make("client-1").hook(), make("client-2").hook()]);
    let options = Options::new().hook(make("invocation-1").hook()).hook(make("invocation-2").hook());
    (client, options, log)
}

#[test]
fn req_2_3_1_and_4_4_2_hooks_run_outside_in_and_back() {
    let (client, options, log) = layered(|hook| hook);
    client.boolean("flag", false, &options);
    insta::assert_snapshot!(log.take().join("\n"), @r"
    before api-1
    before api-2
    before client-1
    before client-2
    before invocation-1
    before invocation-2
    before provider-1
    before provider-2
    resolve
    after provider-2
    after provider-1
    after invocation-2
    after invocation-1
    after client-2
    after client-1
    after api-2
    after api-1
    finally provider-2
    finally provider-1
    finally invocation-2
    finally invocation-1
    finally client-2
    finally client-1
    finally api-2
    finally api-1
    ");
}

#[test]
fn req_4_1_1_and_4_1_2_and_4_1_3_a_hook_is_told_about_the_evaluation() {
    let log = Log::default();
    let told = log.clone();
    let api = isolated::api();
    drop(api.set_domain_provider("shop", Arc::new(Probe::new("probe", Starts::Nothing))).unwrap());
    let hook = At(Stages::ALL, move |context: &mut HookContext<'_>, _: &HookHints| {
        // All of these are borrowed for reading: there is no way to change key, type, default or metadata.
        told.note(format!(
            "{} {:?} {} {:?} {:?} {} {}",
            context.key(),
            context.kind(),
            context.default(),
            context.context(),
            context.client().domain(),
            context.provider().name(),
            context.data().names().count(),
        ));
        None
    });
    let options = Options::new().context(EvaluationContext::targeting("ada")).hook(Arc::new(hook));
    api.domain_client("shop").integer("flag", 3, &options);
    let lines = log.take();
    assert_eq!(lines.len(), 3, "before, after, finally");
    assert!(lines.iter().all(|line| *line == lines[0]));
    assert_eq!(lines[0], r#"flag Integer 3 {"targetingKey": Text("ada")} Some("shop") probe 0"#);
}

/// Only `before` returns a context; what the other stages see is a shared reference to an immutable value.
#[test]
fn req_4_1_4_1_only_before_changes_the_context() {
    let (api, probe) = with_probe(Starts::Nothing);
    let seen = Log::default();
    let log = seen.clone();
    let hook = At(Stages::ALL, move |context: &mut HookContext<'_>, _: &HookHints| {
        log.note(format!("{:?}", context.context()));
        Some(context.context().clone().with("n", i64::try_from(context.context().fields().count()).unwrap()))
    });
    api.client().boolean("flag", false, &Options::new().hook(Arc::new(hook)));
    assert_eq!(seen.take(), ["{}", r#"{"n": Integer(0)}"#, r#"{"n": Integer(0)}"#]);
    assert_eq!(probe.last_context(), EvaluationContext::new().with("n", 0));
}

#[test]
fn req_4_1_5_and_4_3_2_and_4_6_1_hook_data_is_each_hooks_own_and_lives_for_one_evaluation() {
    let (api, _) = with_probe(Starts::Nothing);
    let log = Log::default();
    let make = |start: u32| {
        let log = log.clone();
        At(Stages::ALL, move |context: &mut HookContext<'_>, _: &HookHints| {
            let count = context.data().get::<u32>("count").copied().unwrap_or(start);
            context.data_mut().set("count", count + 1);
            context.data_mut().set("anything", Some(std::time::Duration::ZERO));
            *context.data_mut().get_mut::<u32>("count").unwrap() += 0;
            log.note(count.to_string());
            None
        })
    };
    let options = Options::new().hook(Arc::new(make(0))).hook(Arc::new(make(10)));
    let client = api.client();
    for _ in 0..2 {
        client.boolean("flag", false, &options);
        assert_eq!(log.take(), ["0", "10", "11", "1", "12", "2"], "own room, all stages, new each time");
    }
}

#[test]
fn req_4_2_1_and_4_2_2_1_and_4_5_1_and_4_5_2_and_4_5_3_hints_reach_every_hook_unchanged() {
    let (api, _) = with_probe(Starts::Nothing);
    let hints = HookHints::from_iter([
        ("bool", Field::from(true)),
        ("number", 7.into()),
        ("structure", Field::structure([("a", 1)])),
        ("text", "x".into()),
        ("time", flowline_core::Timestamp::UNIX_EPOCH.into()),
    ]);
    let count = Arc::new(AtomicUsize::new(0));
    let make = || {
        let (expected, count) = (hints.clone(), count.clone());
        At(Stages::ALL, move |_: &mut HookContext<'_>, hints: &HookHints| {
            // A shared reference to a type without a method that changes it.
            assert_eq!(*hints, expected);
            assert_eq!(hints.get("text").and_then(Field::as_text), Some("x"));
            assert_eq!(hints.iter().count(), 5);
            count.fetch_add(1, Ordering::Relaxed);
            None
        })
    };
    api.add_hooks([Arc::new(make()) as Arc<dyn Hook>]);
    let options = Options::new().hook(Arc::new(make())).hints(hints.clone());
    let client = api.client();
    client.boolean("flag", false, &options);
    client.boolean("panics", false, &options);
    assert_eq!(count.load(Ordering::Relaxed), 12, "two hooks, three stages, also when it fails");
}

/// [`HookContext::client`] and [`HookContext::provider`] are shared references to types without public fields or methods that change them.
#[test]
fn req_4_2_2_2_and_4_2_2_3_metadata_in_a_hook_can_not_be_changed() {
    let (api, _) = with_probe(Starts::Nothing);
    let hook = At(Stages::BEFORE, |context: &mut HookContext<'_>, _: &HookHints| {
        let (client, provider): (&ClientMetadata, &ProviderMetadata) = (context.client(), context.provider());
        assert_eq!((client.domain(), provider.name()), (None, "probe"));
        None
    });
    assert!(api.client().boolean("flag", false, &Options::new().hook(Arc::new(hook))));
}

/// [`Stages`] has no empty value: its constants have one stage or more, and all that can be done with them is to join them.
#[test]
fn req_4_3_1_a_hook_names_its_stages_and_is_called_at_no_other() {
    let (api, _) = with_probe(Starts::Nothing);
    for (stages, calls) in
        [(Stages::BEFORE, 1), (Stages::AFTER | Stages::FINALLY, 2), (Stages::ERROR, 0), (Stages::ALL, 3)]
    {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let hook = At(stages, move |_: &mut HookContext<'_>, _: &HookHints| {
            counted.fetch_add(1, Ordering::Relaxed);
            None
        });
        api.client().boolean("flag", false, &Options::new().hook(Arc::new(hook)));
        assert_eq!(count.load(Ordering::Relaxed), calls, "{stages:?}");
    }
}

#[test]
fn req_4_3_2_1_and_4_3_6_and_4_3_8_the_stages_stand_around_resolution() {
    let api = isolated::api();
    let log = Log::default();
    let probe = Probe { log: log.clone(), ..Probe::new("probe", Starts::Nothing) };
    drop(api.set_provider(Arc::new(probe)).unwrap());
    api.add_hooks([Recorder::new("hook", &log).hook()]);
    api.client().boolean("flag", false, ());
    assert_eq!(log.take(), ["before hook", "resolve", "after hook", "finally hook"]);
    api.client().boolean("panics", false, ());
    assert_eq!(log.take(), ["before hook", "error hook", "finally hook"]);
}

#[test]
fn req_4_3_4_and_4_3_5_a_returned_context_reaches_later_hooks_and_resolution() {
    let (api, probe) = with_probe(Starts::Nothing);
    let log = Log::default();
    api.add_hooks([Recorder::new("a", &log).adding("a", "1").hook()]);
    let seen = log.clone();
    let hook = At(Stages::BEFORE, move |context: &mut HookContext<'_>, _: &HookHints| {
        seen.note(format!("{:?}", context.context()));
        Some(EvaluationContext::new().with("b", 2))
    });
    let options = Options::new().context(EvaluationContext::new().with("a", 0)).hook(Arc::new(hook));
    api.client().boolean("flag", false, &options);
    assert!(log.take().contains(&r#"{"a": Text("1")}"#.to_owned()));
    assert_eq!(probe.last_context(), EvaluationContext::new().with("a", "1").with("b", 2));
}

#[test]
fn req_4_3_7_and_4_4_5_error_hooks_run_after_a_failure_anywhere() {
    for stage in ["before", "after"] {
        let (client, options, log) =
            layered(|hook| if hook.name == "client-1" { hook.failing(stage) } else { hook });
        assert!(client.boolean_details("flag", false, &options).error.is_some());
        assert_eq!(log.take().iter().filter(|line| line.starts_with("error")).count(), 8, "{stage}");
    }
    let (client, options, log) = layered(|hook| hook);
    client.boolean("panics", false, &options);
    assert_eq!(log.take().iter().filter(|line| line.starts_with("error")).count(), 8, "resolution");
}

#[test]
fn finally_hears_what_the_caller_gets() {
    struct Hears(Log);
    impl Hook for Hears {
        fn stages(&self) -> Stages {
            Stages::FINALLY
        }
        fn finally(
            &self,
            _: &mut HookContext<'_>,
            details: &Details<Value>,
            _: &HookHints,
        ) -> Result<(), BoxError> {
            self.0.note(format!("{} {} {:?}", details.key, details.value, details.error_code()));
            Ok(())
        }
    }
    let log = Log::default();
    let client = with_flags().client();
    client.add_hooks([Arc::new(Hears(log.clone())) as Arc<dyn Hook>]);
    client.text("text", "", ());
    client.text("missing", "bye", ());
    assert_eq!(log.take(), [r#"text "hi" None"#, r#"missing "bye" Some(FlagNotFound)"#]);
}

/// `finally` is no reserved word in Rust, so the stage keeps its name.
#[test]
fn req_4_3_9_1_the_last_stage_is_called_finally() {
    let log = Log::default();
    let hook = Recorder::new("hook", &log);
    let (mut data, value, context) = (HookData::default(), Value::Null, EvaluationContext::EMPTY);
    let mut told = HookContext {
        key: "flag",
        kind: crate::model::ValueType::Boolean,
        default: &value,
        context: &context,
        client: &ClientMetadata::default(),
        provider: &ProviderMetadata::new("probe"),
        data: &mut data,
    };
    let details = with_flags().client().structure_details("structure", Value::Null, ());
    hook.finally(&mut told, &details, &HookHints::EMPTY).unwrap();
    assert_eq!(log.take(), ["finally hook"]);
}

#[test]
fn req_4_4_3_and_4_4_4_errors_in_error_and_finally_stop_nothing() {
    for stage in ["error", "finally"] {
        for panics in [false, true] {
            let (client, options, log) =
                layered(|hook| if panics { hook.panicking(stage) } else { hook.failing(stage) });
            let details = client.boolean_details("panics", false, &options);
            assert!(
                details.error_message().unwrap().contains("as asked"),
                "the first error stays: {details:?}"
            );
            assert_eq!(
                log.take().iter().filter(|line| line.starts_with(stage)).count(),
                8,
                "{stage} {panics}"
            );
        }
    }
}

#[test]
fn req_4_4_6_and_4_4_7_an_error_in_before_skips_the_rest_and_gives_the_default() {
    let (client, options, log) =
        layered(|hook| if hook.name == "client-1" { hook.failing("before") } else { hook });
    let details = client.boolean_details("flag", false, &options);
    assert!(!details.value);
    assert_eq!(details.error_code(), Some(ErrorCode::General));
    insta::assert_snapshot!(details.error_message().unwrap(), @"a hook failed before `flag` was resolved: client-1 failed in before");
    let lines = log.take();
    assert_eq!(lines[..3], ["before api-1", "before api-2", "before client-1"]);
    assert_eq!(lines[3], "error provider-2", "no resolution, no after");

    let (client, options, log) =
        layered(|hook| if hook.name == "client-1" { hook.failing("after") } else { hook });
    assert!(!client.boolean("flag", false, &options), "and so does one in after");
    let after: Vec<_> = log.take().into_iter().filter(|line| line.starts_with("after")).collect();
    assert_eq!(after.last().map(String::as_str), Some("after client-1"), "those of the API are skipped");
}

#[test]
fn a_hook_keeps_the_code_of_an_evaluation_error() {
    struct Demands;
    impl Hook for Demands {
        fn stages(&self) -> Stages {
            Stages::BEFORE
        }
        fn before(
            &self,
            _: &mut HookContext<'_>,
            _: &HookHints,
        ) -> Result<Option<EvaluationContext>, BoxError> {
            Err(EvaluationError::new(ErrorCode::TargetingKeyMissing, "who asks?").into())
        }
    }
    let client = with_flags().client();
    client.add_hooks([Arc::new(Demands) as Arc<dyn Hook>]);
    assert_eq!(client.boolean_details("bool", false, ()).error_code(), Some(ErrorCode::TargetingKeyMissing));
}
