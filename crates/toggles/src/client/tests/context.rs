//! Section 3: the evaluation context.

use flowline_core::Timestamp;

use super::*;

#[test]
fn req_3_1_1_and_3_1_2_and_3_1_3_a_context_has_a_key_and_fields_of_all_types() {
    let context = EvaluationContext::targeting("ada")
        .with("bool", true)
        .with("text", "x")
        .with("integer", 7)
        .with("float", 0.5)
        .with("time", Timestamp::UNIX_EPOCH)
        .with("list", Field::list([1, 2]))
        .with("structure", Field::structure([("inner", Field::structure([("deep", 1)]))]));
    assert_eq!(context.targeting_key(), Some("ada"));
    assert_eq!(context.get("integer").and_then(Field::as_f64), Some(7.0));
    assert_eq!(context.get("missing"), None);
    let names: Vec<_> = context.fields().map(|(name, _)| name).collect();
    assert_eq!(names, ["bool", "float", "integer", "list", "structure", "text", "time"]);
    let engine = context.engine();
    assert_eq!(engine.key(), Some("ada"));
    assert_eq!(engine.attribute("time").and_then(Value::as_str), Some("1970-01-01T00:00:00Z"));
    assert_eq!(engine.attribute("structure").unwrap().to_string(), r#"{"inner":{"deep":1}}"#);
}

#[test]
fn req_3_1_4_names_are_unique() {
    let context = EvaluationContext::new().with("a", 1).with("a", "two").with(TARGETING_KEY, "ada");
    assert_eq!(context.fields().count(), 1);
    assert_eq!(context.get("a").and_then(Field::as_text), Some("two"));
    assert_eq!(context.targeting_key(), Some("ada"), "not a field beside the key");
}

#[test]
fn req_3_2_1_1_contexts_come_from_api_client_and_invocation() {
    let (api, probe) = with_probe(Starts::Nothing);
    let client = api.client();
    let field = |name: &'static str| EvaluationContext::new().with(name, name);
    api.set_context(field("api"));
    client.set_context(field("client"));
    client.boolean("flag", false, &field("invocation"));
    let names: Vec<_> = probe.last_context().fields().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["api", "client", "invocation"]);
    assert_eq!((api.context(), client.context()), (field("api"), field("client")));
}

#[test]
fn req_3_2_3_later_levels_win_field_by_field() {
    let levels = ["api", "transaction", "client", "invocation", "before"];
    // Each level sets its own field and those of all later levels, and the targeting key.
    let context = |level: usize| {
        levels[level..].iter().fold(EvaluationContext::targeting(levels[level]), |context, name| {
            context.with(*name, levels[level])
        })
    };
    struct Adds(EvaluationContext);
    impl Hook for Adds {
        fn stages(&self) -> Stages {
            Stages::BEFORE
        }
        fn before(
            &self,
            _: &mut HookContext<'_>,
            _: &HookHints,
        ) -> Result<Option<EvaluationContext>, BoxError> {
            Ok(Some(self.0.clone()))
        }
    }
    let (api, probe) = with_probe(Starts::Nothing);
    api.set_transaction_propagator(Arc::new(ThreadPropagator));
    let client = api.client();
    api.set_context(context(0));
    client.set_context(context(2));
    let options = Options::new().context(context(3)).hook(Arc::new(Adds(context(4))));
    ThreadPropagator::scope(context(1), || client.boolean("flag", false, &options));
    let merged = probe.last_context();
    for level in levels {
        assert_eq!(merged.get(level).and_then(Field::as_text), Some(level));
    }
    assert_eq!(merged.targeting_key(), Some("before"));
}

#[test]
fn req_3_3_1_1_and_3_3_1_2_1_a_propagator_carries_the_transactions_context() {
    let (api, probe) = with_probe(Starts::Nothing);
    let ada = EvaluationContext::targeting("ada");
    api.set_transaction_context(ada.clone());
    api.client().boolean("flag", false, ());
    assert!(probe.last_context().is_empty(), "without a propagator it is not used");
    api.set_transaction_propagator(Arc::new(ThreadPropagator));
    api.set_transaction_context(ada.clone());
    api.client().boolean("flag", false, ());
    assert_eq!(probe.last_context(), ada);
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| ThreadPropagator.current()).join().unwrap());
    assert_eq!(elsewhere, None, "another thread is another transaction");
    ThreadPropagator::clear();
}

#[test]
fn req_3_3_1_2_2_and_3_3_1_2_3_a_propagator_sets_and_gets() {
    let ada = EvaluationContext::targeting("ada");
    let propagator: Arc<dyn TransactionPropagator> = Arc::new(ThreadPropagator);
    propagator.set(ada.clone());
    assert_eq!(propagator.current(), Some(ada.clone()));
    ThreadPropagator::scope(EvaluationContext::targeting("bob"), || {
        assert_eq!(propagator.current().unwrap().targeting_key(), Some("bob"));
    });
    assert_eq!(propagator.current(), Some(ada), "put back");
    ThreadPropagator::clear();
    assert_eq!(propagator.current(), None);
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn a_task_keeps_its_transaction_across_awaits() {
    let ada = EvaluationContext::targeting("ada");
    let inside = TaskPropagator::scope(ada.clone(), async {
        tokio::task::yield_now().await;
        let first = TaskPropagator.current();
        TaskPropagator.set(EvaluationContext::targeting("bob"));
        tokio::task::yield_now().await;
        (first, TaskPropagator.current())
    });
    assert_eq!(inside.await, (Some(ada), Some(EvaluationContext::targeting("bob"))));
    assert_eq!(TaskPropagator.current(), None);
    TaskPropagator.set(EvaluationContext::targeting("nobody"));
    assert_eq!(TaskPropagator.current(), None);
}

#[test]
fn the_engines_form_is_made_once_for_all_clones() {
    let context = EvaluationContext::targeting("ada").with("a", 1);
    let clone = EvaluationContext::EMPTY.merged(&context).merged(&EvaluationContext::EMPTY);
    assert!(std::ptr::eq(context.engine(), clone.engine()));
    let more = context.clone().with("b", Field::Null);
    assert_eq!(more.engine().attribute("b"), None);
    assert_eq!(context.get("b"), None, "the original is as it was");
}

#[test]
fn a_targeting_key_is_a_text_or_none_and_never_a_field() {
    let (api, probe) = with_probe(Starts::Well);
    api.set_context(EvaluationContext::targeting("ada"));
    let ask = |context: &EvaluationContext| api.client().boolean_details("flag", false, context);
    // Null says that there is none, over the lower level.
    let nobody = EvaluationContext::new().with(TARGETING_KEY, Field::Null).with("plan", "gold");
    assert_eq!(ask(&nobody).error, None);
    assert_eq!((probe.last_context().targeting_key(), probe.last_context().fields().count()), (None, 1));
    assert_eq!(probe.last_context().engine().key(), None);
    // What can be none is refused; the provider is not asked.
    let asked = probe.asked.load(Ordering::Relaxed);
    for field in [Field::Integer(7), Field::Float(0.5), Field::Bool(true), Field::list(["ada"])] {
        let context = EvaluationContext::new().with(TARGETING_KEY, field);
        let details = ask(&context);
        assert_eq!(
            (details.value, details.error_code()),
            (false, Some(ErrorCode::InvalidContext)),
            "{context:?}"
        );
        assert_eq!((context.targeting_key(), context.get(TARGETING_KEY)), (None, None));
        assert_ne!(context, EvaluationContext::EMPTY);
    }
    assert_eq!(probe.asked.load(Ordering::Relaxed), asked);
    let error = ask(&EvaluationContext::new().with(TARGETING_KEY, 7)).error.unwrap();
    assert_eq!(error.to_string(), "INVALID_CONTEXT: the targeting key is a number; give a text");
    // A higher level, or a later text, mends it.
    api.set_context(EvaluationContext::new().with(TARGETING_KEY, 7));
    assert_eq!(ask(&EvaluationContext::targeting("bob")).error, None);
    assert_eq!(
        EvaluationContext::new().with(TARGETING_KEY, 7).with_targeting_key("x").targeting_key(),
        Some("x")
    );
}
