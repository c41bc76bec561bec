use super::*;
use crate::{
    engine::{Fixed, Ruleset},
    model::ValueType,
};

fn read(text: &str) -> Ruleset {
    Ruleset::compile(LaunchDarkly::new().read(text).unwrap())
}

fn of(text: &str) -> Context {
    context(&serde_json::from_str(text).unwrap())
}

fn detail(ruleset: &Ruleset, flag: &str, context: &Context) -> String {
    let fixed = Fixed::default();
    let detail = Detail::of(ruleset, flag, ValueType::Any, context, &fixed);
    let reason = serde_json::to_string(&detail.reason).unwrap();
    format!("{:?} {:?} {reason}", detail.value, detail.variation_index)
}

#[test]
fn the_old_form_of_users_becomes_a_user() {
    let old = of(r#"{"key": "a", "name": "Ann", "custom": {"plan": "gold", "name": "no", "key": "no"}}"#);
    assert_eq!(format!("{old:?}"), r#"[user:"a" {"plan": "gold", "name": "Ann", "anonymous": false}]"#);
}

#[test]
fn a_rollout_places_as_the_vectors_say() {
    let ruleset = read(
        r#"{"flags": {"hashKey": {"on": true, "salt": "saltyA", "variations": ["x", "y"], "fallthrough": {"rollout": {"kind": "experiment",
        "variations": [{"variation": 0, "weight": 42157}, {"variation": 1, "weight": 57843, "untracked": true}]}}}}}"#,
    );
    let evaluate = |key: &str| {
        let context = of(&format!(r#"{{"kind": "user", "key": "{key}"}}"#));
        let fixed = Fixed::default();
        let point = ruleset.evaluate("hashKey", &context, &fixed).point.unwrap();
        format!("{point:.8} {}", detail(&ruleset, "hashKey", &context))
    };
    assert_eq!(evaluate("userKeyA"), r#"0.42157587 Some("y") Some(1) {"kind":"FALLTHROUGH"}"#);
    assert_eq!(
        evaluate("userKeyC"),
        r#"0.10343106 Some("x") Some(0) {"kind":"FALLTHROUGH","inExperiment":true}"#
    );
    let other = of(r#"{"kind": "org", "key": "userKeyC"}"#);
    assert_eq!(detail(&ruleset, "hashKey", &other), r#"Some("x") Some(0) {"kind":"FALLTHROUGH"}"#);
}

#[test]
fn a_missing_entry_of_a_rollout_harms_only_who_ends_up_there() {
    let ruleset = read(
        r#"{"flags": {"hashKey": {"on": true, "salt": "saltyA", "variations": ["x"], "fallthrough": {"rollout": {
        "variations": [{"variation": 7, "weight": 20000}, {"variation": 0, "weight": 80000}]}}}}}"#,
    );
    let (a, c) = (of(r#"{"key": "userKeyA"}"#), of(r#"{"key": "userKeyC"}"#));
    assert_eq!(detail(&ruleset, "hashKey", &a), r#"Some("x") Some(0) {"kind":"FALLTHROUGH"}"#);
    assert_eq!(detail(&ruleset, "hashKey", &c), r#"None None {"kind":"ERROR","errorKind":"MALFORMED_FLAG"}"#);
}

#[test]
fn a_bad_flag_is_told_and_harms_no_neighbour() {
    let set = LaunchDarkly::new()
        .read(
            r#"{"flags": {"bad": {"on": 7}, "good": {"on": true, "variations": [true], "fallthrough": {"variation": 0}},
            "odd": {"on": true, "variations": [true], "fallthrough": {"variation": 0}, "rules": [{"variation": 0, "clauses":
            [{"attribute": "a", "op": "near", "values": [1]}, {"attribute": "/~2", "contextKind": "user", "op": "in", "values": [1]}]}]}},
            "segments": {"broken": 7}}"#,
        )
        .unwrap();
    let told: Vec<_> = set.warnings.iter().map(|one| format!("{:?} {}", one.flag, one.at)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    Some("bad") 
    Some("odd") rules/0/clauses/0
    Some("odd") rules/0/clauses/1
    None segments/broken
    "#);
    let ruleset = Ruleset::compile(set);
    let user = of(r#"{"key": "u"}"#);
    assert_eq!(detail(&ruleset, "good", &user), r#"Some(true) Some(0) {"kind":"FALLTHROUGH"}"#);
    assert_eq!(detail(&ruleset, "odd", &user), r#"Some(true) Some(0) {"kind":"FALLTHROUGH"}"#);
    assert_eq!(detail(&ruleset, "bad", &user), r#"None None {"kind":"ERROR","errorKind":"MALFORMED_FLAG"}"#);
}

#[test]
fn members_of_big_segments_are_in_the_store_that_was_given() {
    #[derive(Debug)]
    struct Store;
    impl BigSegments for Store {
        fn membership(&self, reference: &str, key: &str) -> Membership {
            match (reference, key) {
                ("beta.g2", "in") => Membership::Included,
                ("beta.g2", "out") => Membership::Excluded,
                _ => Membership::Unlisted,
            }
        }
    }
    let text = r#"{"flags": {"f": {"on": true, "variations": [false, true], "fallthrough": {"variation": 0}, "rules": [{"variation": 1,
        "clauses": [{"op": "segmentMatch", "values": ["beta"]}]}]}}, "segments": {"beta": {"unbounded": true, "generation": 2, "rules": [
        {"clauses": [{"attribute": "plan", "op": "in", "values": ["gold"]}]}]}}}"#;
    let with = Ruleset::compile(LaunchDarkly::new().with_big_segments(Store).read(text).unwrap());
    let without = read(text);
    assert_eq!(without.warnings().len(), 1);
    for (key, kind, plan, expected) in [
        ("in", "user", "", true),
        ("out", "user", "gold", false),
        ("x", "user", "gold", true),
        ("x", "user", "", false),
        ("in", "org", "", false),
    ] {
        let context = of(&format!(r#"{{"kind": "{kind}", "key": "{key}", "plan": "{plan}"}}"#));
        assert_eq!(with.is_on("f", &context, &Fixed::default()), expected, "{key} {kind} {plan}");
        assert!(!without.is_on("f", &context, &Fixed::default()));
    }
}

#[test]
fn wild_documents_and_contexts_are_no_panic() {
    for text in ["", "[]", "{}", r#"{"flags": 1}"#, &"[".repeat(100_000)] {
        assert!(LaunchDarkly::new().read(text).is_err(), "{}", text.len());
    }
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let text = format!(
        r#"{{"flags": {{"f": {{"on": true, "variations": [{deep}]}}, "g": {{"on": true, "variations": [1], "prerequisites": [{{"key": "g",
        "variation": 0}}]}}, "h": {{"on": true, "variations": [1], "rules": [{{"clauses": [{{"attribute": "a", "op": "in", "values": {deep}}},
        {{"op": "segmentMatch", "values": {{}}}}], "rollout": {{"seed": 1e300, "variations": []}}}}]}}}}}}"#
    );
    let ruleset = read(&text);
    for context in
        ["null", "[]", r#"{"kind": 7}"#, r#"{"kind": "multi"}"#, r#"{"key": {"a": 1}, "a": [null, 1e308]}"#]
    {
        for flag in ["f", "g", "h"] {
            assert!(!detail(&ruleset, flag, &of(context)).is_empty());
        }
    }
    assert!(detail(&ruleset, "g", &of("{}")).contains("MALFORMED_FLAG"));
}

const DOCUMENT: &str = r#"{"flags":{"a":{"on":true,"variations":[1,"x",true],"offVariation":1,"salt":"s","targets":[{"values":["u"],"variation":2}],
"contextTargets":[{"contextKind":"org","values":["7"],"variation":1}],"prerequisites":[{"key":"b","variation":0}],"fallthrough":{"rollout":{"kind":
"experiment","seed":7,"contextKind":"org","bucketBy":"/a/b","variations":[{"variation":0,"weight":50000},{"variation":1,"weight":50000,"untracked":true}]}}},
"b":{"on":true,"variations":[false,true],"fallthrough":{"variation":0},"rules":[{"id":"r","variation":1,"clauses":[{"contextKind":"user","attribute":"/x/~1",
"op":"in","values":["y",1],"negate":true},{"op":"segmentMatch","values":["s"]}]}]},"c":{"on":true,"variations":[1],"rules":[{"clauses":[{"attribute":"x","op":
"semVerEqual","values":["1.2"]},{"attribute":"x","op":"before","values":[5]},{"attribute":"x","op":"matches","values":["a+"]}],"rollout":{"variations":[
{"variation":0,"weight":1}]}}],"fallthrough":{"variation":0}}},"segments":{"s":{"included":["v"],"excludedContexts":[{"contextKind":"org","values":["o"]}],
"rules":[{"weight":50000,"bucketBy":"x","clauses":[{"op":"segmentMatch","values":["s"]}]}]}}}"#;

/// Documents in which bytes or values are swapped for others: most stay JSON, of an odd shape.
#[test]
fn mutated_documents_and_contexts_are_no_panic() {
    let document = DOCUMENT.as_bytes();
    let mut state = 7_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap().checked_rem(below).unwrap()
    };
    let pieces = ["null", "-1", "1e308", "\"\"", "[]", "{}", "true", "\"a\"", "0.5", "[[]]"];
    let mut read = 0;
    for _ in 0..3_000 {
        let mut bytes = document.to_vec();
        let at = next(bytes.len());
        if next(3) == 0 {
            bytes[at] = document[next(document.len())];
        } else {
            // What stands between two delimiters becomes another value.
            let delimiter = |byte: &u8| b",:[]{}".contains(byte);
            let start = bytes[..at].iter().rposition(delimiter).map_or(0, |at| at + 1);
            let end = bytes[at..].iter().position(delimiter).map_or(bytes.len(), |length| at + length);
            bytes.splice(start..end.max(start), pieces[next(pieces.len())].bytes());
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let Ok(set) = LaunchDarkly::new().read(&text) else { continue };
        read += 1;
        let ruleset = Ruleset::compile(set);
        for flag in ["a", "b", "c"] {
            for one in [
                "null",
                r#"{"key": "u", "id": "u", "x": [1, "y", null]}"#,
                r#"{"kind": "multi", "id": 1e300, "org": {"key": 7}}"#,
            ] {
                assert!(!detail(&ruleset, flag, &of(one)).is_empty());
            }
        }
    }
    assert!(read > 500, "{read}");
}

#[test]
fn a_negated_pattern_that_makes_no_sense_is_false_of_what_is_missing() {
    let set = LaunchDarkly::new()
        .read(
            r#"{"flags": {"f": {"on": true, "variations": [false, true], "fallthrough": {"variation": 0}, "rules": [
                {"variation": 1, "clauses": [{"attribute": "x", "op": "matches", "values": ["("], "negate": true}]}]}}}"#,
        )
        .unwrap();
    let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
    assert!(!ruleset.is_on("f", &Context::new("u"), &fixed));
    assert!(ruleset.is_on("f", &Context::new("u").with("x", "a"), &fixed));
}

#[test]
fn an_empty_kind_is_no_kind() {
    let ruleset = read(
        r#"{"flags": {"f": {"on": true, "variations": ["fall", "rule"], "fallthrough": {"variation": 0}, "rules": [
        {"clauses": [{"attribute": "/a/b", "contextKind": "", "op": "in", "values": ["x"]}], "variation": 1},
        {"clauses": [{"op": "segmentMatch", "values": ["s"]}], "rollout": {"contextKind": "", "bucketBy": "//", "variations": [
            {"variation": 1, "weight": 100000}]}}]}},
        "segments": {"s": {"includedContexts": [{"contextKind": "", "values": ["in"]}],
            "rules": [{"clauses": [], "weight": 100000, "bucketBy": "/", "rolloutContextKind": ""}]}}}"#,
    );
    let says = |context: &str| detail(&ruleset, "f", &of(context));
    let rule = |index| format!(r#"Some("rule") Some(1) {{"kind":"RULE_MATCH","ruleIndex":{index}}}"#);
    // Without a kind an attribute is a plain name.
    assert_eq!(says(r#"{"kind": "user", "key": "u", "/a/b": "x", "a": {"b": "y"}}"#), rule(0));
    assert_eq!(says(r#"{"kind": "user", "key": "u", "a": {"b": "x"}}"#), rule(1));
    assert_eq!(says(r#"{"kind": "user", "key": "in"}"#), rule(1));
}

#[test]
fn users_are_targeted_by_targets_alone() {
    let ruleset = read(
        r#"{"flags": {"f": {"on": true, "variations": ["fall", "one", "two"], "fallthrough": {"variation": 0},
        "targets": [{"values": ["a", "b"], "variation": 2}, {"values": ["b", "c"], "variation": 1}],
        "contextTargets": [{"values": ["d"], "variation": 1}, {"contextKind": "org", "values": ["a"], "variation": 1},
            {"contextKind": "user", "values": ["c"], "variation": 2}, {"contextKind": "user", "values": ["e"], "variation": 0}]}}}"#,
    );
    let says = |kind: &str, key: &str| {
        detail(&ruleset, "f", &of(&format!(r#"{{"kind": "{kind}", "key": "{key}"}}"#)))
    };
    let target = |value, index| format!(r#"Some("{value}") Some({index}) {{"kind":"TARGET_MATCH"}}"#);
    assert_eq!(says("user", "a"), target("two", 2));
    // The order is that of the targets of contexts.
    assert_eq!(says("user", "b"), target("one", 1));
    assert_eq!(says("user", "c"), target("one", 1));
    assert_eq!(says("org", "a"), target("one", 1));
    for other in ["d", "e"] {
        assert_eq!(says("user", other), r#"Some("fall") Some(0) {"kind":"FALLTHROUGH"}"#);
    }
}

#[test]
fn values_of_clauses_may_lie_at_the_end_of_time_or_be_null() {
    let clause = |clause: &str| {
        read(&format!(
            r#"{{"flags": {{"f": {{"on": true, "variations": [false, true], "fallthrough": {{"variation": 0}},
            "rules": [{{"clauses": [{clause}], "variation": 1}}]}}}}}}"#
        ))
    };
    let holds = |ruleset: &Ruleset, value: &str| {
        let context = of(&format!(r#"{{"kind": "user", "key": "u", "a": {value}}}"#));
        detail(ruleset, "f", &context).contains("RULE_MATCH")
    };
    for end in [r#""9999-12-31T23:59:59Z""#, "253402300799000", "1e18"] {
        let before = clause(&format!(r#"{{"attribute": "a", "op": "before", "values": [{end}]}}"#));
        assert!(holds(&before, r#""2026-01-31T08:00:00Z""#) && holds(&before, "0"), "{end}");
        assert!(!holds(&before, r#""9999""#) && !holds(&before, "true"), "{end}");
    }
    let null = clause(r#"{"attribute": "a", "op": "in", "values": ["x", null]}"#);
    assert!(holds(&null, "[1, null]") && !holds(&null, "null") && !holds(&null, "[1]"));
    let other = clause(r#"{"attribute": "a", "op": "startsWith", "values": [null, ""]}"#);
    assert!(!holds(&other, "[null]"));
}
