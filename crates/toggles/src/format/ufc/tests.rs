//! What no case decides, and what must not break.

use super::*;
use crate::engine::{Fixed, Ruleset, rfc3339};

fn document(flag: &str) -> String {
    format!(r#"{{"environment": {{"name": "Test"}}, "flags": {{"f": {flag}, "neighbour": {NEIGHBOUR}}}}}"#)
}

const NEIGHBOUR: &str = r#"{"key": "neighbour", "enabled": true, "variationType": "STRING", "totalShards": 10000,
    "variations": {"v": {"key": "v", "value": "v"}}, "allocations": [{"key": "all", "splits": [{"variationKey": "v", "shards": []}]}]}"#;

fn read(format: Ufc, flag: &str) -> Ruleset {
    Ruleset::compile(format.read(&document(flag)).unwrap())
}

/// A text flag with the variations a and b and these allocations.
fn flag(allocations: &str) -> String {
    format!(
        r#"{{"key": "f", "enabled": true, "variationType": "STRING", "totalShards": 10000, "variations":
        {{"a": {{"key": "a", "value": "a"}}, "b": {{"key": "b", "value": "b"}}}}, "allocations": [{allocations}]}}"#
    )
}

/// An allocation of `a` to whoever this condition holds for.
fn when(condition: &str) -> String {
    flag(&format!(
        r#"{{"key": "x", "rules": [{{"conditions": [{condition}]}}], "splits": [{{"variationKey": "a", "shards": []}}]}}"#
    ))
}

fn holds(ruleset: &Ruleset, context: &Context) -> bool {
    ruleset.evaluate("f", context, &Fixed::default()).value.is_some()
}

fn say(ruleset: &Ruleset, context: &Context) -> String {
    let fixed = Fixed::default();
    let got = Resolution::of(ruleset, "f", ValueType::String, context, &fixed);
    let value = got.value.map_or_else(|| "default".to_owned(), ToString::to_string);
    let error = got.error.map(|code| format!(" {code}")).unwrap_or_default();
    format!("{value} {}{error} {:?}", got.reason, got.code())
}

#[test]
fn every_operator_but_is_null_is_false_on_what_is_missing() {
    for (operator, value) in [
        ("MATCHES", r#"".*""#),
        ("NOT_MATCHES", r#""x""#),
        ("ONE_OF", r#"["a"]"#),
        ("NOT_ONE_OF", r#"["a"]"#),
        ("GTE", "0"),
    ] {
        let ruleset = read(
            Ufc::eppo(),
            &when(&format!(r#"{{"attribute": "x", "operator": "{operator}", "value": {value}}}"#)),
        );
        assert!(!holds(&ruleset, &Context::new("u")), "{operator}");
        assert!(
            !holds(&ruleset, &Context::new("u").with("x", vec!["a"])),
            "{operator} has no text of a list"
        );
    }
    for (missing, present) in [(true, false), (false, true)] {
        let ruleset = read(
            Ufc::eppo(),
            &when(&format!(r#"{{"attribute": "x", "operator": "IS_NULL", "value": {missing}}}"#)),
        );
        assert_eq!(holds(&ruleset, &Context::new("u")), missing);
        assert_eq!(holds(&ruleset, &Context::new("u").with("x", 1)), present);
    }
}

#[test]
fn the_subjects_key_is_the_attribute_id_unless_there_is_one() {
    let one_of = read(Ufc::eppo(), &when(r#"{"attribute": "id", "operator": "ONE_OF", "value": ["alice"]}"#));
    let not_one_of =
        read(Ufc::eppo(), &when(r#"{"attribute": "id", "operator": "NOT_ONE_OF", "value": ["alice"]}"#));
    let null = read(Ufc::eppo(), &when(r#"{"attribute": "id", "operator": "IS_NULL", "value": true}"#));
    for (context, is_alice, missing) in [
        (Context::new("alice"), true, false),
        (Context::new("bob"), false, false),
        (Context::new("bob").with("id", "alice"), true, false),
        (Context::new("alice").with("id", "bob"), false, false),
        (Context::anonymous(), false, true),
    ] {
        assert_eq!(holds(&one_of, &context), is_alice, "{context:?}");
        assert_eq!(holds(&not_one_of, &context), !is_alice && !missing, "{context:?}");
        assert_eq!(holds(&null, &context), missing, "{context:?}");
    }
}

#[test]
fn versions_compare_as_versions_and_numbers_as_numbers() {
    for (operator, operand, value, expected) in [
        ("GTE", r#""1.2.0""#, Value::from("1.10.0"), true),
        ("GT", r#""1.2.0""#, Value::from("1.2.0+build"), false),
        ("GTE", r#""1.2.0""#, Value::from("1.2.0-rc.1"), false),
        ("GTE", r#""1.2.0""#, Value::from("2.0"), false),
        ("GTE", r#""1.2.0""#, Value::from(3), false),
        ("LT", "10", Value::from("9"), true),
        ("LT", r#""10""#, Value::from(9.5), true),
        ("LT", "10", Value::from(true), false),
        ("LT", "10", Value::from("NaN"), false),
        ("GT", "10", Value::from("inf"), false),
    ] {
        let condition = format!(r#"{{"attribute": "x", "operator": "{operator}", "value": {operand}}}"#);
        for format in [Ufc::eppo(), Ufc::datadog()] {
            let ruleset = read(format, &when(&condition));
            let context = Context::new("u").with("x", value.clone());
            assert_eq!(holds(&ruleset, &context), expected, "{condition} {value}");
        }
    }
    let condition = r#"{"attribute": "x", "operator": "SEMVER_NEQ", "value": "1.2.0"}"#;
    assert!(holds(&read(Ufc::datadog(), &when(condition)), &Context::new("u").with("x", "1.3.0")));
    assert!(!holds(&read(Ufc::datadog(), &when(condition)), &Context::new("u").with("x", "new")));
    assert!(!holds(&read(Ufc::eppo(), &when(condition)), &Context::new("u").with("x", "1.3.0")));
}

#[test]
fn texts_of_numbers_and_booleans_are_as_json_writes_them() {
    let list = r#"{"attribute": "x", "operator": "ONE_OF", "value": ["1", "true", "1.5"]}"#;
    let ruleset = read(Ufc::eppo(), &when(list));
    for (value, expected) in [
        (Value::from(1), true),
        (Value::from(1.0), true),
        (Value::from(1.5), true),
        (Value::from(true), true),
        (Value::from("TRUE"), false),
        (Value::from(false), false),
    ] {
        assert_eq!(holds(&ruleset, &Context::new("u").with("x", value.clone())), expected, "{value}");
    }
}

#[test]
fn both_ends_belong_to_the_time_of_an_allocation() {
    let ruleset = read(
        Ufc::eppo(),
        &flag(
            r#"{"key": "x", "startAt": "2026-01-01T00:00:00Z", "endAt": "2026-02-01T00:00:00.000001Z",
            "splits": [{"variationKey": "a", "shards": []}]}"#,
        ),
    );
    for (time, expected) in [
        ("2025-12-31T23:59:59.999Z", Some("BEFORE_START_TIME")),
        ("2026-01-01T01:00:00+01:00", None),
        ("2026-02-01T00:00:00.000001Z", None),
        ("2026-02-01T00:00:00.000002Z", Some("AFTER_END_TIME")),
    ] {
        let context = Context::new("u").at(rfc3339(time).unwrap());
        let details = Details::of(&ruleset, "f", ValueType::String, &context, &Fixed::default());
        let code = details
            .unmatched_allocations
            .first()
            .map(|one| serde_json::to_value(one.allocation_evaluation_code).unwrap());
        assert_eq!(code, expected.map(Into::into), "{time}");
    }
}

#[test]
fn shards_are_as_the_notes_say() {
    for (salt, key, shard) in [
        ("some-salt", "alice", 88),
        ("some-salt", "bob", 1741),
        ("traffic-flag", "user-1", 8314),
        ("integer-flag-split", "charlie", 747),
    ] {
        for format in [Ufc::eppo(), Ufc::datadog()] {
            let split = |from: u32, until: u32| {
                read(
                    format,
                    &flag(&format!(
                        r#"{{"key": "x", "splits": [{{"variationKey": "a", "shards": [{{"salt": "{salt}", "totalShards": 10000, "ranges": [{{"start": {from}, "end": {until}}}]}}]}}]}}"#
                    )),
                )
            };
            assert!(holds(&split(shard, shard + 1), &Context::new(key)), "{salt} {key}");
            assert!(!holds(&split(shard + 1, 10_000), &Context::new(key)), "{salt} {key}");
            assert!(!holds(&split(0, shard), &Context::new(key)), "{salt} {key}");
        }
    }
}

/// Splits as they come from a console: a share of the traffic, then a share for each variation; and a catch-all.
const TRAFFIC: &str = r#"{"key": "x", "splits": [
    {"variationKey": "a", "shards": [{"salt": "t", "totalShards": 100, "ranges": [{"start": 0, "end": 60}]}, {"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 50}]}]},
    {"variationKey": "b", "shards": [{"salt": "t", "totalShards": 100, "ranges": [{"start": 0, "end": 60}]}, {"salt": "s", "totalShards": 100, "ranges": [{"start": 50, "end": 100}]}]}]}"#;

#[test]
fn shards_that_all_splits_share_are_looked_at_once_with_the_same_result() {
    let ruleset = read(Ufc::eppo(), &flag(TRAFFIC));
    let alone = |salt: &str, from: u32, until: u32| {
        read(
            Ufc::eppo(),
            &flag(&format!(
                r#"{{"key": "x", "splits": [{{"variationKey": "a", "shards": [{{"salt": "{salt}", "totalShards": 100, "ranges": [{{"start": {from}, "end": {until}}}]}}]}}]}}"#
            )),
        )
    };
    let (traffic, first) = (alone("t", 0, 60), alone("s", 0, 50));
    let mut seen = std::collections::BTreeSet::new();
    for user in 0..200 {
        let context = Context::new(format!("user-{user}"));
        let expected = match (holds(&traffic, &context), holds(&first, &context)) {
            (false, _) => None,
            (true, true) => Some("a"),
            (true, false) => Some("b"),
        };
        let fixed = Fixed::default();
        let got = ruleset.evaluate("f", &context, &fixed);
        assert_eq!(got.as_str(), expected, "{user}");
        seen.insert(expected);
    }
    assert_eq!(seen.len(), 3);
    let (_, trace) = ruleset.explain("f", &Context::new("user-1"), &Fixed::default());
    assert_eq!(trace.walk().filter(|step| step.point.is_some()).count(), 2, "{trace}");
}

#[test]
fn a_share_of_splits_before_a_catch_all_leaves_the_rest_to_it() {
    let split = r#"{"key": "x", "splits": [
        {"variationKey": "a", "shards": [{"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 50}]}]},
        {"variationKey": "b", "shards": []}, {"variationKey": "a", "shards": []}]}"#;
    for format in [Ufc::eppo(), Ufc::datadog()] {
        let ruleset = read(format, &flag(split));
        let names: std::collections::BTreeSet<_> =
            (0..50).map(|user| say(&ruleset, &Context::new(format!("u{user}")))).collect();
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["\"a\" SPLIT Match", "\"b\" SPLIT Match"]);
    }
    let nobody = Context::anonymous();
    assert_eq!(say(&read(Ufc::eppo(), &flag(split)), &nobody), "\"b\" SPLIT Match");
    assert_eq!(
        say(&read(Ufc::datadog(), &flag(split)), &nobody),
        "default ERROR TARGETING_KEY_MISSING AssignmentError"
    );
}

#[test]
fn datadog_asks_for_a_key_where_a_shard_needs_one() {
    let ruleset = read(Ufc::datadog(), &flag(TRAFFIC));
    assert_eq!(say(&ruleset, &Context::anonymous()), "default ERROR TARGETING_KEY_MISSING AssignmentError");
    assert!(!say(&ruleset, &Context::new("")).contains("ERROR"), "an empty key is a key");
    let full = flag(
        r#"{"key": "x", "splits": [{"variationKey": "a", "shards": [{"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 100}]}]}]}"#,
    );
    assert_eq!(say(&read(Ufc::datadog(), &full), &Context::anonymous()), "\"a\" SPLIT Match");
}

#[test]
fn reasons_follow_the_shape_of_the_allocation() {
    let split = |extra: &str, shards: &str| {
        flag(&format!(r#"{{"key": "x", {extra} "splits": [{{"variationKey": "a", "shards": [{shards}]}}]}}"#))
    };
    let full = r#"{"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 100}]}"#;
    let rule = r#""rules": [{"conditions": []}],"#;
    let bounded = r#""startAt": "1960-01-01T00:00:00Z","#;
    for (flag, reason) in [
        (split("", ""), "STATIC"),
        (split(rule, ""), "TARGETING_MATCH"),
        (split(rule, full), "TARGETING_MATCH"),
        (split(bounded, ""), "DEFAULT"),
        (split(bounded, full), "DEFAULT"),
        (split("", full), "SPLIT"),
    ] {
        let ruleset = read(Ufc::datadog(), &flag);
        let fixed = Fixed::default();
        let context = Context::new("u");
        assert_eq!(ruleset.evaluate("f", &context, &fixed).reason.as_str(), reason, "{flag}");
    }
}

#[test]
fn a_flag_that_makes_no_sense_harms_no_other() {
    let deep = "[".repeat(500) + &"]".repeat(500);
    let typed = |kind: &str, value: &str| {
        format!(
            r#"{{"enabled": true, "variationType": "{kind}", "totalShards": 1, "variations": {{"a": {{"value": {value}}}}},
            "allocations": [{{"key": "x", "splits": [{{"variationKey": "a"}}]}}]}}"#
        )
    };
    let flags = [
        when(r#"{"attribute": "x", "operator": "NEAR", "value": 1}"#),
        when(r#"{"attribute": "x", "operator": "ONE_OF", "value": "a"}"#),
        when("7"),
        when(r#"{"attribute": "x", "operator": "MATCHES", "value": "a(?=b)"}"#),
        flag("7"),
        flag(r#"{"key": "x", "splits": [{"variationKey": "c", "shards": []}]}"#),
        flag(r#"{"key": "x", "startAt": "tomorrow", "splits": []}"#),
        typed("INTEGER", "3.5"),
        typed("INTEGER", "3.0"),
        typed("BOOLEAN", "\"true\""),
        typed("JSON", "\"{\""),
        typed("JSON", "\"{}\""),
        typed("JSON", &deep),
        typed("COLOUR", "1"),
        deep.clone(),
        "null".to_owned(),
    ];
    let mut said = Vec::new();
    for (index, flag) in flags.iter().enumerate() {
        for format in [Ufc::eppo(), Ufc::datadog()] {
            let ruleset = read(format, flag);
            let (context, fixed) = (Context::new("u").with("x", "ab"), Fixed::default());
            assert_eq!(ruleset.evaluate("neighbour", &context, &fixed).as_str(), Some("v"), "{flag}");
            let expected = ruleset.flag("f").map_or(ValueType::String, |flag| flag.value_type());
            let got = Resolution::of(&ruleset, "f", expected, &context, &fixed);
            let warnings: Vec<_> =
                ruleset.warnings().iter().map(|one| format!("{}: {}", one.at, one.message)).collect();
            let reading = format.reading.as_str();
            said.push(format!(
                "{index} {reading} {:?} {} {:?} {}",
                got.value,
                got.reason,
                got.code(),
                warnings.join("; ")
            ));
        }
    }
    insta::assert_snapshot!(said.join("\n"), @r"
    0 eppo None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: unknown operator `NEAR`; the condition is false
    0 datadog None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: unknown operator `NEAR`; the flag is dropped, everybody gets the default
    1 eppo None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: a list of texts is needed, not a text; the condition is false
    1 datadog None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: a list of texts is needed, not a text; the flag is dropped, everybody gets the default
    2 eppo None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: invalid type: integer `7`, expected struct Condition; the condition is false
    2 datadog None DEFAULT DefaultAllocationNull allocations/0/rules/0/conditions/0: invalid type: integer `7`, expected struct Condition; the flag is dropped, everybody gets the default
    3 eppo None DEFAULT DefaultAllocationNull : pattern `a(?=b)` does not compile (look-around, including look-ahead and look-behind, is not supported); the condition counts as invalid
    3 datadog None DEFAULT DefaultAllocationNull : pattern `a(?=b)` does not compile (look-around, including look-ahead and look-behind, is not supported); the condition counts as invalid
    4 eppo None ERROR AssignmentError : invalid type: integer `7`, expected struct Allocation; the flag is an error
    4 datadog None DEFAULT DefaultAllocationNull : invalid type: integer `7`, expected struct Allocation; the flag is dropped, everybody gets the default
    5 eppo None ERROR AssignmentError allocations/0/splits/0: there is no variation `c`; whoever is assigned to it gets the default
    5 datadog None DEFAULT DefaultAllocationNull allocations/0/splits/0: there is no variation `c`; the flag is dropped, everybody gets the default
    6 eppo None ERROR AssignmentError allocations/0/startAt: `tomorrow` is not an RFC 3339 time with an offset; the flag is an error
    6 datadog None DEFAULT DefaultAllocationNull allocations/0/startAt: `tomorrow` is not an RFC 3339 time with an offset; the flag is dropped, everybody gets the default
    7 eppo None ERROR AssignmentError variations/a: 3.5 is no whole number; it can't be served; allocations/0/splits/0: variation `a`: 3.5 is no whole number; whoever is assigned to it gets the default
    7 datadog None DEFAULT DefaultAllocationNull variations/a: 3.5 is no whole number; the flag is dropped, everybody gets the default
    8 eppo Some(3.0) STATIC Match 
    8 datadog Some(3.0) STATIC Match 
    9 eppo None ERROR AssignmentError variations/a: a text is not of the flag's type; it can't be served; allocations/0/splits/0: variation `a`: a text is not of the flag's type; whoever is assigned to it gets the default
    9 datadog None DEFAULT DefaultAllocationNull variations/a: a text is not of the flag's type; the flag is dropped, everybody gets the default
    10 eppo None ERROR AssignmentError variations/a: the text is no JSON: EOF while parsing an object at line 1 column 1; it can't be served; allocations/0/splits/0: variation `a`: the text is no JSON: EOF while parsing an object at line 1 column 1; whoever is assigned to it gets the default
    10 datadog None DEFAULT DefaultAllocationNull variations/a: the text is no JSON: EOF while parsing an object at line 1 column 1; the flag is dropped, everybody gets the default
    11 eppo Some({}) STATIC Match 
    11 datadog Some({}) STATIC Match 
    12 eppo None ERROR AssignmentError variations/a: recursion limit exceeded; it can't be served; allocations/0/splits/0: variation `a`: recursion limit exceeded; whoever is assigned to it gets the default
    12 datadog None DEFAULT DefaultAllocationNull variations/a: recursion limit exceeded; the flag is dropped, everybody gets the default
    13 eppo None ERROR AssignmentError variationType: unknown type `COLOUR`; the flag is an error
    13 datadog None DEFAULT DefaultAllocationNull variationType: unknown type `COLOUR`; the flag is dropped, everybody gets the default
    14 eppo None ERROR AssignmentError : invalid type: sequence, expected a boolean; the flag is an error
    14 datadog None DEFAULT DefaultAllocationNull : invalid type: sequence, expected a boolean; the flag is dropped, everybody gets the default
    15 eppo None ERROR FlagUnrecognizedOrDisabled 
    15 datadog None ERROR FlagUnrecognizedOrDisabled
    ");
}

#[test]
fn what_is_no_document_is_an_error() {
    for text in ["", "[", "7", "{}", r#"{"flags": 7}"#, r#"{"flags": null}"#] {
        assert!(Ufc::eppo().read(text).is_err(), "{text}");
    }
    let set = Ufc::datadog().read(r#"{"flags": {}, "environment": 7}"#).unwrap();
    assert_eq!(set.facts.get("ufc.reading").and_then(Value::as_str), Some("datadog"));
}

#[test]
fn another_type_than_asked_for_is_a_mismatch_unless_the_flag_is_off() {
    let on = flag(r#"{"key": "x", "splits": [{"variationKey": "a", "shards": []}]}"#);
    let off = on.replace(r#""enabled": true"#, r#""enabled": false"#);
    let ask = |flag: &str, key: &str| {
        let ruleset = read(Ufc::datadog(), flag);
        let (context, fixed) = (Context::new("u"), Fixed::default());
        let got = Resolution::of(&ruleset, key, ValueType::Integer, &context, &fixed);
        format!("{:?} {} {:?} {:?}", got.value, got.reason, got.error, got.code())
    };
    assert_eq!(ask(&on, "f"), "None ERROR Some(TypeMismatch) TypeMismatch");
    assert_eq!(ask(&off, "f"), "None DISABLED None FlagUnrecognizedOrDisabled");
    assert_eq!(ask(&on, "g"), "None ERROR Some(FlagNotFound) FlagUnrecognizedOrDisabled");
}

#[test]
fn what_is_to_be_logged_is_told() {
    let set = Ufc::eppo()
        .read(
            r#"{"flags": {"f": {"key": "f", "enabled": true, "variationType": "STRING", "totalShards": 10,
                "variations": {"a": {"key": "a", "value": "A"}, "b": {"key": "b", "value": "B"}},
                "allocations": [
                    {"key": "quiet", "doLog": false, "rules": [{"conditions": [{"attribute": "x", "operator": "ONE_OF", "value": ["q"]}]}],
                     "splits": [{"variationKey": "a", "shards": []}]},
                    {"key": "holdout", "doLog": true, "rules": [{"conditions": [{"attribute": "x", "operator": "ONE_OF", "value": ["h"]}]}],
                     "splits": [{"variationKey": "b", "shards": [], "extraLogging": {"holdoutKey": "h1"}}]},
                    {"key": "usual", "extraLogging": 1, "splits": [{"variationKey": "a", "shards": [], "extraLogging": null}]}]},
              "silent": {"key": "silent", "enabled": true, "variationType": "STRING", "totalShards": 10,
                "variations": {"a": {"key": "a", "value": "A"}},
                "allocations": [{"key": "all", "doLog": false, "splits": [{"variationKey": "a", "shards": []}]}]}}}"#,
        )
        .unwrap();
    let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
    let told = |flag: &str, x: &str| {
        let context = Context::new("alice").with("x", x);
        let resolution = Resolution::of(&ruleset, flag, ValueType::String, &context, &fixed);
        let logging = resolution.logging(&ruleset).unwrap();
        format!("{} {} {:?}", logging.allocation, logging.do_log, logging.extra)
    };
    insta::assert_snapshot!([told("f", "q"), told("f", "h"), told("f", "z"), told("silent", "z")].join("\n"), @r#"
    quiet false None
    holdout true Some({"holdoutKey":"h1"})
    usual true None
    all false None
    "#);
    assert_eq!(
        Resolution::of(&ruleset, "g", ValueType::String, &Context::new("a"), &fixed).logging(&ruleset),
        None
    );
}
