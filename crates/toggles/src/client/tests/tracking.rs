//! Section 6: tracking; and 2.7.

use super::*;

#[test]
fn req_2_7_1_and_6_1_1_1_and_6_2_1_and_6_2_2_a_client_tracks_through_its_provider() {
    let (api, probe) = with_probe(Starts::Nothing);
    let client = api.client();
    let context = EvaluationContext::targeting("ada");
    let details = TrackingDetails::of(99.77)
        .with("currency", "NOK")
        .with("items", Field::list([1, 2]))
        .with("gift", false);
    client.track("checkout", &context, &details);
    assert_eq!(details.get("currency").and_then(Field::as_text), Some("NOK"));
    client.track("visit", (), &TrackingDetails::new());
    let lines = probe.log.take();
    assert_eq!(
        lines,
        [
            r#"track checkout Some(99.77) [("currency", Text("NOK")), ("gift", Bool(false)), ("items", List([Integer(1), Integer(2)]))]"#,
            "track visit None []"
        ]
    );
}

#[test]
fn req_6_1_3_contexts_merge_as_for_an_evaluation() {
    let (api, probe) = with_probe(Starts::Nothing);
    let client = api.client();
    let log = Log::default();
    api.add_hooks([Recorder::new("hook", &log).adding("hook", "x").hook()]);
    api.set_transaction_propagator(Arc::new(ThreadPropagator));
    api.set_context(
        EvaluationContext::new().with("a", "api").with("b", "api").with("c", "api").with("d", "api"),
    );
    client.set_context(EvaluationContext::new().with("c", "client").with("d", "client"));
    let transaction = EvaluationContext::new().with("b", "transaction").with("c", "transaction");
    ThreadPropagator::scope(transaction, || {
        client.track("event", &EvaluationContext::new().with("d", "invocation"), &TrackingDetails::new());
    });
    let merged: Vec<_> = probe
        .last_context()
        .fields()
        .map(|(name, field)| format!("{name} {}", field.as_text().unwrap()))
        .collect();
    assert_eq!(merged, ["a api", "b transaction", "c client", "d invocation"]);
    assert!(log.take().is_empty(), "no hooks");
}

#[test]
fn req_6_1_4_a_provider_that_does_not_track_ignores_it() {
    let client = with_flags().client();
    client.track("event", (), &TrackingDetails::of(f64::NAN));
    isolated::api().client().track("event", (), &TrackingDetails::new());
}
