//! What the suite does not decide, and what must not break.

use super::*;
use crate::engine::Fixed;

fn document(flag: &str) -> String {
    format!(
        r#"{{"$evaluators": {{"is_u": {{"==": [{{"var": "targetingKey"}}, "u"]}}, "nested": {{"$ref": "is_u"}}}},
        "flags": {{"f": {flag}, "neighbour": {{"state": "ENABLED", "variants": {{"a": 1}}, "defaultVariant": "a"}}}}}}"#
    )
}

/// A flag with this targeting, whose variants are texts like their names.
fn targeted(targeting: &str) -> String {
    format!(
        r#"{{"state": "ENABLED", "defaultVariant": "d", "targeting": {targeting}, "variants":
        {{"d": "d", "a": "a", "b": "b", "true": "true", "false": "false", "1": "1", "1.5": "1.5", "": "empty"}}}}"#
    )
}

fn read(front: &Flagd, flag: &str) -> Ruleset {
    Ruleset::compile(front.read(&document(flag)).unwrap())
}

fn said(ruleset: &Ruleset, context: &Context) -> String {
    let fixed = Fixed::default();
    let got = Resolution::of(ruleset, "f", ValueType::Any, context, &fixed);
    let value = got.value.map_or_else(|| "default".to_owned(), ToString::to_string);
    let error = got.error.map(|code| format!(" {code}")).unwrap_or_default();
    format!("{value} {}{error}", got.reason)
}

fn say(targeting: &str) -> String {
    let user = Value::object([("name", Value::from("jon")), ("tags", Value::from(vec!["x", "y"]))]);
    let context = Context::new("u").with("user", user).with("n", 5).with("list", vec![1, 2, 3]).with("t", "");
    said(&read(&Flagd::default(), &targeted(targeting)), &context)
}

/// What an operation comes to, by way of a text that is compared with it.
#[track_caller]
fn comes_to(operation: &str, expected: &str) {
    let targeting = format!(r#"{{"if": [{{"===": [{operation}, {expected}]}}, "a", "b"]}}"#);
    assert_eq!(say(&targeting), "\"a\" TARGETING_MATCH", "{operation} is not {expected}");
}

#[test]
fn operators_come_to_what_json_logic_says() {
    for (operation, expected) in [
        (r#"{"var": "user.name"}"#, r#""jon""#),
        (r#"{"var": "user.tags.1"}"#, r#""y""#),
        (r#"{"var": ["nothing.here", 7]}"#, "7"),
        (r#"{"var": "nothing.here"}"#, "null"),
        (r#"{"var": {"cat": ["user", ".", "name"]}}"#, r#""jon""#),
        (r#"{"var": ["$flagd.flagKey"]}"#, r#""f""#),
        (r#"{"var": "$flagd.timestamp"}"#, "0"),
        (r#"{"missing": ["n", "t", "gone"]}"#, r#"["t", "gone"]"#),
        (r#"{"missing_some": [1, ["n", "gone"]]}"#, "[]"),
        (r#"{"missing_some": [2, ["n", "gone"]]}"#, r#"["gone"]"#),
        (r#"{"if": [false, 1, 0, 2, 3]}"#, "3"),
        (r#"{"if": [false, 1]}"#, "null"),
        (r#"{"if": []}"#, "null"),
        (r#"{"==": [1, "1"]}"#, "true"),
        (r#"{"==": [1, "1.0 "]}"#, "true"),
        (r#"{"==": [0, ""]}"#, "true"),
        (r#"{"==": [true, 1]}"#, "true"),
        (r#"{"==": [null, 0]}"#, "false"),
        (r#"{"==": [null, {"var": "gone"}]}"#, "true"),
        (r#"{"!=": [null, false]}"#, "true"),
        (r#"{"===": [1, 1.0]}"#, "true"),
        (r#"{"!==": [1, "1"]}"#, "true"),
        (r#"{"!": [[]]}"#, "true"),
        (r#"{"!!": {"a": 1, "b": 2}}"#, "true"),
        (r#"{"!!": "0"}"#, "true"),
        (r#"{"and": [1, "", 3]}"#, r#""""#),
        (r#"{"and": [1, 3]}"#, "3"),
        (r#"{"or": [0, false, "x", 3]}"#, r#""x""#),
        (r#"{"<": [1, 2, 3]}"#, "true"),
        (r#"{"<": [1, 3, 3]}"#, "false"),
        (r#"{"<=": [1, 3, 3]}"#, "true"),
        (r#"{"<": ["10", "9"]}"#, "true"),
        (r#"{"<": ["10", 9]}"#, "false"),
        (r#"{">": ["x", 9]}"#, "false"),
        (r#"{">=": [5, {"var": "n"}]}"#, "true"),
        (r#"{"<": [1]}"#, "false"),
        (r#"{"in": ["on", {"var": "user.name"}]}"#, "true"),
        (r#"{"in": [2, {"var": "list"}]}"#, "true"),
        (r#"{"in": ["2", {"var": "list"}]}"#, "false"),
        (r#"{"in": [{"var": "gone"}, "x"]}"#, "false"),
        (r#"{"in": [{"var": "user.name"}, ["a","b","c","d","e","f","g","h","i","jon"]]}"#, "true"),
        (r#"{"in": [{"var": "targetingKey"}, ["a", "u"]]}"#, "true"),
        (r#"{"in": [{"var": "n"}, ["5"]]}"#, "false"),
        (r#"{"in": [{"var": "gone"}, ["null", ""]]}"#, "false"),
        (r#"{"in": [{"var": "targetingKey"}, []]}"#, "false"),
        (r#"{"==": [{"var": "n"}, "5"]}"#, "true"),
        (r#"{"===": [{"var": "n"}, "5"]}"#, "false"),
        (r#"{"!=": ["5", {"var": "n"}]}"#, "false"),
        (r#"{"!==": [{"var": "n"}, "5"]}"#, "true"),
        (r#"{"!=": [{"var": "gone"}, ""]}"#, "true"),
        (r#"{"==": [{"var": "t"}, ""]}"#, "true"),
        (r#"{"==": [{"var": "list"}, "1,2,3"]}"#, "false"),
        (r#"{"==": [{"var": "targetingKey"}, "u"]}"#, "true"),
        (r#"{"in": [{"var": "n"}, ["a","b","c","d","e","f","g","h","i","5"]]}"#, "false"),
        (r#"{"cat": ["a", 1.0, 1.5, null, true, [1, [2]]]}"#, r#""a11.5true1,2""#),
        (r#"{"+": [1, "2", 3]}"#, "6"),
        (r#"{"+": "3.5"}"#, "3.5"),
        (r#"{"-": [5]}"#, "-5"),
        (r#"{"-": [5, 2]}"#, "3"),
        (r#"{"*": [2, 3, 4]}"#, "24"),
        (r#"{"/": [1, 0]}"#, "null"),
        (r#"{"%": [7, 4]}"#, "3"),
        (r#"{"+": ["x", 1]}"#, "null"),
        (r#"{"min": [3, 1, 2]}"#, "1"),
        (r#"{"max": []}"#, "null"),
        (r#"{"substr": ["jsonlogic", 4]}"#, r#""logic""#),
        (r#"{"substr": ["jsonlogic", -5]}"#, r#""logic""#),
        (r#"{"substr": ["jsonlogic", 1, 3]}"#, r#""son""#),
        (r#"{"substr": ["jsonlogic", 4, -2]}"#, r#""log""#),
        (r#"{"substr": ["üöä", 1, 1]}"#, r#""ö""#),
        (r#"{"substr": ["x", 1e300, 1e300]}"#, r#""""#),
        (r#"{"merge": [[1, 2], 3, [4]]}"#, "[1, 2, 3, 4]"),
        (r#"{"map": [{"var": "list"}, {"*": [{"var": ""}, 2]}]}"#, "[2, 4, 6]"),
        (r#"{"map": [{"var": "gone"}, 1]}"#, "[]"),
        (r#"{"filter": [{"var": "list"}, {">": [{"var": ""}, 1]}]}"#, "[2, 3]"),
        (r#"{"all": [{"var": "list"}, {">": [{"var": ""}, 0]}]}"#, "true"),
        (r#"{"all": [[], true]}"#, "false"),
        (r#"{"some": [{"var": "list"}, {">": [{"var": ""}, 2]}]}"#, "true"),
        (r#"{"none": [[], true]}"#, "true"),
        (r#"{"reduce": [{"var": "list"}, {"+": [{"var": "current"}, {"var": "accumulator"}]}, 10]}"#, "16"),
        (r#"{"reduce": [{"var": "gone"}, 1, "x"]}"#, r#""x""#),
        (r#"{"starts_with": ["abc", "ab"]}"#, "true"),
        (r#"{"ends_with": ["abc", "ab"]}"#, "false"),
        (r#"{"starts_with": ["abc"]}"#, "null"),
        (r#"{"ends_with": ["abc", 1]}"#, "null"),
        (r#"{"a": 1, "b": {"var": "n"}}"#, r#"{"a": 1, "b": {"var": "n"}}"#),
    ] {
        comes_to(operation, expected);
    }
}

#[test]
fn versions_may_be_partial_and_prefixed() {
    for (version, operator, with, expected) in [
        (r#""v1.2""#, "=", r#""1.2.0""#, "true"),
        ("1.2", ">", r#""1.1""#, "true"),
        ("1", "=", "1.0", "true"),
        (r#""1.0.0-rc.1""#, "<", r#""1.0.0""#, "true"),
        (r#""3.0.0""#, "^", r#""3.9.9""#, "true"),
        (r#""3.1.0""#, "~", r#""3.1.9""#, "true"),
        (r#""3.2.0""#, "~", r#""3.1.0""#, "false"),
        (r#""1.2.3.4""#, "=", r#""1.2.3""#, "null"),
        (r#""vv1""#, "=", r#""1""#, "null"),
        ("true", "=", r#""1""#, "null"),
        (r#""1.0.0""#, "=>", r#""1.0.0""#, "null"),
    ] {
        comes_to(&format!(r#"{{"sem_ver": [{version}, "{operator}", {with}]}}"#), expected);
        // The same with an operand that is only known later.
        let later =
            format!(r#"{{"sem_ver": [{version}, {{"cat": "{operator}"}}, {{"if": [true, {with}]}}]}}"#);
        comes_to(&later, expected);
    }
}

#[test]
fn a_result_names_a_variant_by_its_text() {
    for (targeting, expected) in [
        (r#"{"if": [true, "a"]}"#, "\"a\" TARGETING_MATCH"),
        (r#"{"if": [true, true]}"#, "\"true\" TARGETING_MATCH"),
        (r#"{"!": true}"#, "\"false\" TARGETING_MATCH"),
        (r#"{"if": [true, 1.0]}"#, "\"1\" TARGETING_MATCH"),
        (r#"{"+": [1, 0.5]}"#, "\"1.5\" TARGETING_MATCH"),
        (r#"{"if": [true, ""]}"#, "\"empty\" TARGETING_MATCH"),
        (r#"{"if": [false, "a"]}"#, "\"d\" DEFAULT"),
        (r#"{"if": [true, "c"]}"#, "default ERROR GENERAL"),
        (r#"{"merge": []}"#, "default ERROR GENERAL"),
        (r#"{"party": 1}"#, "default ERROR PARSE_ERROR"),
        (r#"{"if": [true, "a", {"party": 1}]}"#, "\"a\" TARGETING_MATCH"),
        (r#"{"$ref": "is_u"}"#, "\"true\" TARGETING_MATCH"),
        (r#"{"$ref": "nested"}"#, "default ERROR PARSE_ERROR"),
        (r#"{"if": [true, "a", {"$ref": "gone"}]}"#, "default ERROR PARSE_ERROR"),
        (r#""a""#, "default ERROR PARSE_ERROR"),
        (r#"["a"]"#, "default ERROR PARSE_ERROR"),
        ("{}", "\"d\" STATIC"),
        ("null", "\"d\" STATIC"),
    ] {
        assert_eq!(say(targeting), expected, "{targeting}");
    }
}

#[test]
fn hashes_and_buckets_are_as_the_notes_say() {
    // key, v2 bucket of 100
    for (key, bucket) in [
        ("fractional-flagjack", 62),
        ("fractional-flagqueen", 99),
        ("fractional-flag-shorthandjon@company.com", 14),
        ("ejOoVL", 0),
        ("SI7p-", 49),
        ("6LvT0", 50),
        ("ceQdGm", 99),
    ] {
        assert_bucket(Generation::V2, &format!("\"{key}\""), bucket);
    }
    for (key, bucket) in [
        ("true", 19),
        ("false", 2),
        ("123", 77),
        ("123.0", 77),
        ("1.23", 55),
        ("\"user1\"", 85),
        ("0", 31),
        ("-0.0", 31),
        ("-2", 44),
        (r#"{"b": 1, "a": 2}"#, 60),
    ] {
        assert_bucket(Generation::V3, key, bucket);
    }
}

/// That the key falls into bucket `bucket` of 100 and no other.
#[track_caller]
fn assert_bucket(generation: Generation, key: &str, bucket: u32) {
    for (below, expected) in [(bucket, "b"), (bucket + 1, "a")] {
        let key_at =
            |key: &str| format!(r#"{{"fractional": [{key}, ["a", {below}], ["b", {}]]}}"#, 100 - below);
        let ruleset = read(&Flagd::new(generation), &targeted(&key_at(key)));
        let value: Value = serde_json::from_str(key).unwrap();
        assert_eq!(said(&ruleset, &Context::anonymous()), format!("\"{expected}\" TARGETING_MATCH"), "{key}");
        // The same through the context, and with weights that are only known later.
        let ruleset = read(&Flagd::new(generation), &targeted(&key_at(r#"{"var": "k"}"#)));
        let context = Context::anonymous().with("k", value);
        assert_eq!(said(&ruleset, &context), format!("\"{expected}\" TARGETING_MATCH"), "{key}");
        let later = key_at(r#"{"var": "k"}"#)
            .replace(&format!("\"a\", {below}"), &format!(r#""a", {{"+": {below}}}"#));
        let ruleset = read(&Flagd::new(generation), &targeted(&later));
        assert_eq!(said(&ruleset, &context), format!("\"{expected}\" TARGETING_MATCH"), "{later}");
    }
}

#[test]
fn the_shorthand_hashes_the_flag_and_the_targeting_key() {
    let shorthand = r#"{"fractional": [["a", 14], ["b", 86]]}"#;
    let named = document(&targeted(shorthand)).replace("\"f\":", "\"fractional-flag-shorthand\":");
    let set = |front: &Flagd, text: &str| Ruleset::compile(front.read(text).unwrap());
    let context = Context::new("jon@company.com");
    let fixed = Fixed::default();
    let at = |ruleset: &Ruleset| {
        ruleset.evaluate("fractional-flag-shorthand", &context, &fixed).as_str().map(str::to_owned)
    };
    // Buckets 14 (v2) and 88 (v3) of 100.
    assert_eq!(at(&set(&Flagd::default(), &named)).as_deref(), Some("b"));
    let wider = named.replace("14]", "15]").replace("86]", "85]");
    assert_eq!(at(&set(&Flagd::default(), &wider)).as_deref(), Some("a"));
    let v3 =
        |below: u32| named.replace("14]", &format!("{below}]")).replace("86]", &format!("{}]", 100 - below));
    assert_eq!(at(&set(&Flagd::new(Generation::V3), &v3(88))).as_deref(), Some("b"));
    assert_eq!(at(&set(&Flagd::new(Generation::V3), &v3(89))).as_deref(), Some("a"));
    let ruleset = set(&Flagd::default(), &named);
    assert_eq!(ruleset.evaluate("fractional-flag-shorthand", &context, &fixed).point, Some(14.0));
}

#[test]
fn a_fractional_that_makes_no_sense_decides_nothing() {
    for (targeting, generations) in [
        (r#"[["a", 1.5], ["b", 1]]"#, "all"),
        (r#"[["a", "1"], ["b", 1]]"#, "all"),
        (r#"[["a", true]]"#, "all"),
        (r#"[["a", 0], ["b", -3]]"#, "all"),
        (r#"[["a", 2147483647], ["b", 1]]"#, "all"),
        (r#"[["a", 1e300]]"#, "all"),
        (r#"[["a"], "b"]"#, "all"),
        (r#"[[], ["b"]]"#, "all"),
        (r#"[[["a"], 1]]"#, "all"),
        (r#"[["a", 1, 1]]"#, "all"),
        (r#"[{"var": "three"}, ["a"]]"#, "all"),
        ("[]", "all"),
        (r#"["key"]"#, "all"),
        ("[[null, 1]]", "all"),
        (r#"[7, ["a"]]"#, "old"),
        (r#"[{"var": "n"}, ["a"]]"#, "old"),
        (r#"[null, ["a"]]"#, "new"),
        (r#"[{"var": "gone"}, ["a"]]"#, "new"),
    ] {
        for generation in [Generation::V1, Generation::V2, Generation::V3] {
            let nothing = match generations {
                "all" => true,
                "old" => generation != Generation::V3,
                _ => generation == Generation::V3,
            };
            let ruleset =
                read(&Flagd::new(generation), &targeted(&format!(r#"{{"fractional": {targeting}}}"#)));
            let three = Value::list(["a".into(), 1.into(), 1.into()]);
            let context = Context::new("u").with("n", 7).with("three", three);
            let expected = if nothing { "\"d\" DEFAULT" } else { "\"a\" TARGETING_MATCH" };
            assert_eq!(said(&ruleset, &context), expected, "{targeting} {generation:?}");
        }
    }
}

#[test]
fn a_flag_key_alone_is_never_hashed() {
    for targeting in [r#"{"fractional": [["a"]]}"#, r#"{"fractional": [null, ["a"]]}"#] {
        for generation in [Generation::V1, Generation::V2, Generation::V3] {
            let ruleset = read(&Flagd::new(generation), &targeted(targeting));
            assert_eq!(said(&ruleset, &Context::anonymous()), "\"d\" DEFAULT");
            assert_eq!(said(&ruleset, &Context::new("")), "\"d\" DEFAULT");
            assert_eq!(said(&ruleset, &Context::new(7)), "\"d\" DEFAULT");
        }
    }
}

#[test]
fn a_first_operand_that_turns_out_to_be_a_list_is_a_bucket() {
    let ruleset = read(&Flagd::default(), &targeted(r#"{"fractional": [{"var": "first"}, ["b", 0]]}"#));
    let context = Context::new("u").with("first", vec!["a"]);
    assert_eq!(said(&ruleset, &context), "\"a\" TARGETING_MATCH");
    let empty = Context::new("u").with("first", Value::list([]));
    assert_eq!(said(&ruleset, &empty), "\"d\" DEFAULT");
}

#[test]
fn the_first_generation_leaves_three_hashes_without_a_bucket() {
    for (key, bucket) in [("ejOoVL", Some("a")), ("SI7p-", None), ("6LvT0", None), ("ceQdGm", Some("a"))] {
        let targeting = format!(r#"{{"fractional": ["{key}", ["a", 50], ["b", 50]]}}"#);
        let ruleset = read(&Flagd::new(Generation::V1), &targeted(&targeting));
        let expected = bucket
            .map_or_else(|| "\"d\" DEFAULT".to_owned(), |bucket| format!("\"{bucket}\" TARGETING_MATCH"));
        assert_eq!(said(&ruleset, &Context::anonymous()), expected, "{key}");
    }
}

#[test]
fn what_the_source_supplies_wins_over_the_caller() {
    let supplied = Value::object([("tier", Value::from("gold")), ("targetingKey", Value::from("s"))]);
    let front = Flagd::default().with_supplied(supplied);
    for targeting in [
        r#"{"if": [{"==": [{"var": "tier"}, "gold"]}, "a", "b"]}"#,
        r#"{"if": [{"==": [{"var": "targetingKey"}, "s"]}, "a", "b"]}"#,
        r#"{"if": [{"==": [{"var": {"cat": "tier"}}, "gold"]}, "a", "b"]}"#,
        r#"{"if": [{"missing": ["tier"]}, "b", "a"]}"#,
    ] {
        let ruleset = read(&front, &targeted(targeting));
        let context = Context::new("u").with("tier", "silver");
        assert_eq!(said(&ruleset, &context), "\"a\" TARGETING_MATCH", "{targeting}");
    }
}

#[test]
fn default_variants_and_null_values() {
    for (flag, expected) in [
        (r#"{"state": "ENABLED", "variants": {"a": 1}}"#, "default DEFAULT"),
        (r#"{"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": null}"#, "default DEFAULT"),
        (r#"{"state": "ENABLED", "variants": {"a": 1, "": 2}, "defaultVariant": ""}"#, "default DEFAULT"),
        (r#"{"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "b"}"#, "default ERROR GENERAL"),
        (
            r#"{"state": "ENABLED", "variants": {"a": null}, "defaultVariant": "a"}"#,
            "default ERROR TYPE_MISMATCH",
        ),
        (
            r#"{"state": "ENABLED", "variants": {"a": null}, "targeting": {"if": [true, "a"]}}"#,
            "default ERROR TYPE_MISMATCH",
        ),
        (r#"{"state": "DISABLED", "variants": {"a": 1}, "defaultVariant": "b"}"#, "default DISABLED"),
        (r#"{"variants": {"a": 1}, "defaultVariant": "a"}"#, "1 STATIC"),
        (r#"{"state": "ENABLED", "variants": 7}"#, "default ERROR PARSE_ERROR"),
        ("7", "default ERROR PARSE_ERROR"),
    ] {
        let ruleset = read(&Flagd::default(), flag);
        assert_eq!(said(&ruleset, &Context::new("u")), expected, "{flag}");
        let (context, fixed) = (Context::new("u"), Fixed::default());
        assert_eq!(ruleset.evaluate("neighbour", &context, &fixed).as_i64(), Some(1), "{flag}");
    }
}

#[test]
fn types_are_those_of_values_and_whole_numbers_are_both() {
    let ruleset = read(
        &Flagd::default(),
        r#"{"state": "ENABLED", "defaultVariant": "d", "targeting": {"var": "v"},
        "variants": {"d": 1.0, "half": 1.5, "text": "1", "yes": true, "list": [], "object": {}}}"#,
    );
    let fixed = Fixed::default();
    for (variant, fitting) in [
        ("d", vec![ValueType::Integer, ValueType::Number]),
        ("half", vec![ValueType::Number]),
        ("text", vec![ValueType::String]),
        ("yes", vec![ValueType::Boolean]),
        ("list", vec![ValueType::Object]),
        ("object", vec![ValueType::Object]),
    ] {
        let context = Context::new("u").with("v", variant);
        for asked in
            [ValueType::Boolean, ValueType::String, ValueType::Integer, ValueType::Number, ValueType::Object]
        {
            let got = Resolution::of(&ruleset, "f", asked, &context, &fixed);
            let expected = (!fitting.contains(&asked)).then_some(FaultCode::TypeMismatch);
            assert_eq!(got.error, expected, "{variant} as {asked:?}");
            assert_eq!(got.variant.is_some(), expected.is_none());
        }
    }
}

#[test]
fn metadata_of_the_set_lies_under_the_flags_own_and_comes_with_errors() {
    let text = r#"{"metadata": {"a": "set", "b": 1, "c": {}}, "flags": [
        {"key": "own", "state": "ENABLED", "variants": {}, "metadata": {"b": true, "d": null}},
        {"key": "wrong", "variants": 7}, {"variants": {}},
        {"key": "aimless", "variants": {}, "targeting": "b", "metadata": {"b": true}}]}"#;
    let ruleset = Ruleset::compile(Flagd::default().read(text).unwrap());
    let (context, fixed) = (Context::new("u"), Fixed::default());
    let metadata = |flag: &str| {
        format!("{:?}", Resolution::of(&ruleset, flag, ValueType::Any, &context, &fixed).metadata)
    };
    let mut said: Vec<_> = ["own", "wrong", "aimless", "unknown"].iter().map(|flag| metadata(flag)).collect();
    said.extend(ruleset.warnings().iter().map(ToString::to_string));
    said.push(format!("{:?}", ruleset.facts()));
    insta::assert_snapshot!(said.join("\n"), @r#"
    Some({"a": "set", "b": true})
    Some({"a": "set", "b": 1})
    Some({"a": "set", "b": true})
    None
    metadata/c: it is neither text, number nor boolean and is left out
    flagd:3:57: flags/2: missing field `key`; the flag is skipped
    flag `own`, metadata/d: it is neither text, number nor boolean and is left out
    flagd:3:9: flag `wrong`: its variants are a number, not an object; the flag is an error
    flag `aimless`, targeting: it is no operation; the flag is an error
    {"a": "set", "b": 1, "flagd.fractional": "v2"}
    "#);
}

#[test]
fn an_explanation_tells_what_the_targeting_looked_at() {
    let ruleset = read(
        &Flagd::default(),
        &targeted(
            r#"{"if": [{"==": [{"var": "country"}, "NO"]}, "a", {"fractional": [["a", 1], ["b", 1]]}]}"#,
        ),
    );
    let context = Context::new("u").with("country", "SE");
    let (_, trace) = ruleset.explain("f", &context, &Fixed::default());
    insta::assert_snapshot!(trace, @r#"
    flag f: a
      rule 1: a
        targeting: if: a
          var = {"country":"SE"}
          fractional = {"hash":401514366,"point":0.0,"of":2,"bucket":0}
    "#);
}

#[test]
fn warnings_name_what_can_not_be_honoured() {
    let ruleset =
        read(&Flagd::default(), &targeted(r#"{"if": [{"party": 1}, "c", {"$ref": "gone"}, "a", "e"]}"#));
    let warnings: Vec<_> = ruleset.warnings().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r#"
    $evaluators/nested: unknown operator `$ref`; where it is reached, the flag is an error
    flag `f`, targeting: unknown operator `party`; where it is reached, the flag is an error
    flag `f`, targeting: there is no variant `"c"`; where it is chosen, the flag is an error
    flag `f`, targeting: there is no variant `"e"`; where it is chosen, the flag is an error
    flag `f`, targeting: there is no evaluator `gone`; the flag is an error
    "#);
}

#[test]
fn nothing_makes_it_panic() {
    let deep = |open: &str, close: &str, times: usize| open.repeat(times) + "1" + &close.repeat(times);
    let long = "x".repeat(1 << 20);
    let evaluators = (0..50).map(|_| r#"{"$ref": "is_u"}"#).collect::<Vec<_>>().join(",");
    for targeting in [
        deep(r#"{"!": "#, "}", 100),
        deep(r#"{"!": "#, "}", 10_000),
        deep("[", "]", 10_000),
        deep(r#"{"sem_ver": ["#, r#", "=", {"var": "x"}]}"#, 50),
        deep(r#"{"fractional": ["#, r#", ["a", {"var": "x"}]]}"#, 50),
        deep(r#"{"in": ["#, r#", ["x"]]}"#, 50),
        format!(r#"{{"cat": ["{long}", {{"var": "{long}"}}]}}"#),
        format!(r#"{{"and": [{evaluators}]}}"#),
        format!(r#"{{"{long}": 1}}"#),
        r#"{"substr": ["x", -1e308, -1e308]}"#.to_owned(),
        r#"{"var": [["x"], {"var": ""}]}"#.to_owned(),
        r#"{"reduce": [[1, 2], {"merge": [{"var": "accumulator"}, {"var": "accumulator"}]}, [1]]}"#
            .to_owned(),
        r#"{"if": [true, "a"], "if": [true, "b"]}"#.to_owned(),
    ] {
        let ruleset = read(&Flagd::default(), &targeted(&targeting));
        for context in [
            Context::anonymous(),
            Context::new(f64::NAN).with("x", f64::INFINITY),
            Context::new(long.as_str()),
        ] {
            let _said = said(&ruleset, &context);
            let fixed = Fixed::default();
            assert_eq!(ruleset.evaluate("neighbour", &context, &fixed).as_i64(), Some(1));
        }
    }
    for text in ["", "[", "7", "{}", r#"{"flags": 7}"#, r#"{"flags": null}"#] {
        assert!(Flagd::default().read(text).is_err(), "{text}");
    }
}
