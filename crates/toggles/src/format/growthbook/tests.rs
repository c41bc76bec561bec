use super::*;
use crate::{engine::Fixed, model::Truth};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn read(text: &str) -> Ruleset {
    Ruleset::compile(GrowthBook::new().read(text).unwrap())
}

fn shown(ruleset: &Ruleset, feature: &str, context: &Context) -> String {
    let result = FeatureResult::of(ruleset, feature, context, &Fixed::default());
    format!("{} {:?} {}", result.value, result.source, result.rule_id)
}

fn holds(condition: &str, attributes: &str) -> bool {
    let (condition, attributes) = (json(condition), json(attributes));
    let own = satisfies(&condition, &attributes, &BTreeMap::new());
    let engine = Reader::new(None).condition(&condition).into_condition();
    let segment = crate::model::Segment { name: "s".into(), condition: engine };
    let set = FlagSet { segments: vec![segment], ..FlagSet::new(NAME) };
    let context = context(&attributes, User::default());
    let through = Ruleset::compile(set).segment(&"s".into(), &context, &Fixed::default());
    assert_eq!(through, Some(Truth::from(own)), "{condition} {attributes}");
    own
}

#[test]
fn conditions_coerce_as_javascript_does() {
    for (condition, attributes, expected) in [
        (r#"{"a": "1,2"}"#, r#"{"a": [1, 2]}"#, true),
        (r#"{"a": "null"}"#, "{}", true),
        (r#"{"a": 0}"#, "{}", true),
        (r#"{"a": {"$lt": 1}}"#, "{}", true),
        (r#"{"a": {"$lt": "b"}}"#, "{}", false),
        (r#"{"a": {"$gt": "\ue000"}}"#, r#"{"a": "\ud83e\udd84"}"#, false),
        (r#"{"a": {"b": 1, "c": 2}}"#, r#"{"a": {"c": 2, "b": 1}}"#, false),
        (r#"{"a.0": 7}"#, r#"{"a": [7]}"#, true),
        (r#"{"a": {"$elemMatch": {"$lt": 1}}}"#, r#"{"a": [0]}"#, false),
        (r#"{"$nor": []}"#, "{}", false),
        (r#"{"$or": []}"#, "{}", true),
        (r#"{"a": {"$nin": ["x"]}}"#, "{}", true),
        (r#"{"a": {"$nin": ["x"]}}"#, r#"{"a": 7}"#, true),
        (r#"{"a": {"$in": ["x"]}}"#, r#"{"a": ["y", "x"]}"#, true),
        (r#"{"a": {"$in": [1, null, "a-text-of-more-than-15-bytes"]}}"#, "{}", true),
        (
            r#"{"a": {"$in": [1, "a-text-of-more-than-15-bytes"]}}"#,
            r#"{"a": "a-text-of-more-than-15-bytes"}"#,
            true,
        ),
        (r#"{"a": {"$in": "x"}}"#, r#"{"a": "x"}"#, false),
        (r#"{"id": {"$in": ["u", "v"]}}"#, r#"{"id": "v"}"#, true),
        (r#"{"id": {"$nin": ["u"]}}"#, "{}", true),
        (r#"{"a": {"$regex": "(?=b)"}}"#, r#"{"a": "b"}"#, false),
        (r#"{"a": {"$vgt": "9999.0.0"}}"#, r#"{"a": "10000.0.0"}"#, true),
        (r#"{"a": "1e+21"}"#, r#"{"a": 1e21}"#, true),
    ] {
        assert_eq!(holds(condition, attributes), expected, "{condition} {attributes}");
    }
}

#[test]
fn the_key_of_a_context_stands_in_for_its_id() {
    let text = r#"{"features": {"f": {"defaultValue": false, "rules": [{"force": true, "condition": {"id": {"$in": ["alice", "bob"]}}}]}}}"#;
    let ruleset = read(text);
    assert!(ruleset.is_on("f", &Context::new("bob"), &Fixed::default()));
    assert!(!ruleset.is_on("f", &Context::new("eve"), &Fixed::default()));
    assert!(!ruleset.is_on("f", &Context::new("bob").with("id", "eve"), &Fixed::default()));
}

#[test]
fn gates_and_circles_end_a_feature() {
    let ruleset = read(
        r#"{"features": {"off": {"defaultValue": false}, "a": {"defaultValue": 1, "rules": [{"parentConditions":
        [{"id": "b", "condition": {"value": 1}}], "force": 2}]}, "b": {"defaultValue": 1, "rules": [{"parentConditions": [{"id": "a",
        "condition": {"value": 1}}], "force": 2}]}, "gated": {"defaultValue": 1, "rules": [{"parentConditions": [{"id": "off", "gate": true,
        "condition": {"value": true}}], "force": 2}]}, "asks": {"defaultValue": 1, "rules": [{"id": "r", "parentConditions": [{"id": "off",
        "condition": {"value": {"$exists": true}}}], "force": null}]}}}"#,
    );
    let nobody = Context::anonymous();
    assert_eq!(shown(&ruleset, "a", &nobody), "null CyclicPrerequisite ");
    assert_eq!(shown(&ruleset, "gated", &nobody), "null Prerequisite ");
    assert_eq!(shown(&ruleset, "asks", &nobody), "null Force r");
    let forced_feature_values = BTreeMap::from([("off".to_owned(), Value::from(true))]);
    let forced = context(&json("{}"), User { forced_feature_values, ..User::default() });
    assert_eq!(shown(&ruleset, "gated", &forced), "2 Force ");
    assert_eq!(shown(&ruleset, "off", &forced), "true Override ");
}

#[test]
fn coverage_of_a_forced_value_includes_its_end() {
    let ruleset = read(
        r#"{"features": {"at": {"defaultValue": 0, "rules": [{"force": 1, "coverage": 0.906, "seed": "feature"}]},
        "range": {"defaultValue": 0, "rules": [{"force": 1, "range": [0, 0.906], "seed": "feature"}]}}}"#,
    );
    let one = context(&json(r#"{"id": "1"}"#), User::default());
    let none = context(&json(r#"{"id": 0}"#), User::default());
    assert_eq!(shown(&ruleset, "at", &one), "1 Force ");
    assert_eq!(shown(&ruleset, "range", &one), "0 DefaultValue ");
    assert_eq!(shown(&ruleset, "at", &none), "0 DefaultValue ");
}

#[test]
fn pages_are_told_by_patterns() {
    use super::address::{Target, UrlPattern, targeted};
    let pattern = |include, text: &str| UrlPattern { include, target: Target::Simple(text.into()) };
    let page = "https://shop.example.com/Sale/shoes/?size=42#top";
    for (text, expected) in [
        ("https://shop.example.com/sale/shoes", true),
        ("*.example.com/sale/*", true),
        ("/sale/shoes?size=4*", true),
        ("/sale/shoes?size=41", false),
        ("/sale#bottom", false),
        ("/sale", false),
    ] {
        assert_eq!(targeted(page, &[pattern(true, text)]), expected, "{text}");
    }
    assert!(!targeted(page, &[pattern(true, "/sale/*"), pattern(false, "/*/shoes")]));
    assert!(targeted(page, &[pattern(false, "/other")]));
}

#[test]
fn a_bad_feature_is_told_and_harms_no_neighbour() {
    let deep = "[".repeat(500) + &"]".repeat(500);
    let nested = r#"{"$not":"#.repeat(60) + "{}" + &"}".repeat(60);
    let text = format!(
        r#"{{"features": {{"bad": 7, "deep": {{"defaultValue": {deep}}}, "good": {{"defaultValue": true}}, "odd": {{"defaultValue": 1, "rules":
        [{{"force": 2, "condition": {nested}}}, {{"force": 3, "condition": {{"a": {{"$near": 1}}}}}}, {{"coverage": "x"}}, {{}}]}}}},
        "savedGroups": {{"g": 7}}}}"#
    );
    let ruleset = read(&text);
    let told: Vec<_> = ruleset
        .warnings()
        .iter()
        .map(|one| format!("{} {}", one.flag.as_deref().unwrap_or("-"), one.at))
        .collect();
    insta::assert_snapshot!(told.join("; "), @"- savedGroups/g; bad ; deep ; odd rules/0/condition; odd rules/1/condition; odd rules/2; odd rules/3");
    let nobody = context(&json("null"), User::default());
    assert_eq!(shown(&ruleset, "good", &nobody), "true DefaultValue ");
    assert_eq!(shown(&ruleset, "bad", &nobody), "null UnknownFeature ");
    for text in ["", "[", "7", r#"{"features": 7}"#, &"[".repeat(100_000)] {
        assert!(GrowthBook::new().read(text).is_err());
    }
}

#[cfg(feature = "growthbook-decrypt")]
#[test]
fn an_encrypted_payload_needs_its_key() {
    let text = r#"{"encryptedFeatures": "m5ylFM6ndyOJA2OPadubkw==.Uu7ViqgKEt/dWvCyhI46q088PkAEJbnXKf3KPZjf9IEQQ+A8fojNoxw4wIbPX3aj"}"#;
    assert!(GrowthBook::new().read(text).is_err());
    assert!(GrowthBook::new().with_key("nonsense").read(text).is_err());
    let set = GrowthBook::new().with_key("Zvwv/+uhpFDznZ6SX28Yjg==").read(text).unwrap();
    assert!(Ruleset::compile(set).is_on("feature", &Context::anonymous(), &Fixed::default()));
}

const DOCUMENT: &str = r#"{"features":{"a":{"defaultValue":1,"rules":[{"id":"r","parentConditions":[{"id":"b","condition":{"value":{"$gt":0}},"gate":true}],
"filters":[{"seed":"s","ranges":[[0,0.9]],"attribute":"id"}],"force":2,"coverage":0.5,"hashAttribute":"id"},{"variations":[3,4],"weights":[0.5,0.5],"key":"e",
"hashVersion":2,"namespace":["n",0,1],"meta":[{"key":"0"},{"key":"1","passthrough":true}],"contextualBanditRef":"cb","bucketVersion":1,"minBucketVersion":1,
"fallbackAttribute":"x","urlPatterns":[{"type":"regex","pattern":"a+","include":false}]}]},"b":{"defaultValue":1,"rules":[{"condition":{"$or":[{"x.0":1},
{"x":{"$elemMatch":{"$regex":"y","$in":["a",1]}}},{"id":{"$vgt":"1.2.3","$inGroup":"g"}}],"$nor":[{"x":{"$size":{"$gt":2}}},{"x":{"$all":["y"]}}]},"force":null}]},
"c":{"defaultValue":"x","rules":[{"range":[0,0.5],"force":"y","seed":"s"},{"ranges":[[0,0.5],[0.5,1]],"variations":["p","q"],"status":"stopped"}]}},"savedGroups":
{"g":["a",1]},"contextualBandits":{"cb":{"banditVersion":7,"contexts":[{"leafId":1,"condition":{"x":1},"weights":[1,0]}]}}}"#;

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
        let Ok(set) = GrowthBook::new().read(&text) else { continue };
        read += 1;
        let ruleset = Ruleset::compile(set);
        for flag in ["a", "b", "c"] {
            for one in [
                "null",
                r#"{"key": "u", "id": "u", "x": [1, "y", null]}"#,
                r#"{"kind": "multi", "id": 1e300, "org": {"key": 7}}"#,
            ] {
                assert!(
                    !shown(
                        &ruleset,
                        flag,
                        &context(&json(one), User { sticky: Some(BTreeMap::new()), ..User::default() })
                    )
                    .is_empty()
                );
            }
        }
    }
    assert!(read > 500, "{read}");
}

#[test]
fn a_forced_rule_tells_of_the_experiments_that_it_tracks() {
    let set = GrowthBook::new()
        .read(
            r#"{"features": {"f": {"defaultValue": 0, "rules": [
                {"force": 1, "condition": {"a": 1}},
                {"force": 2, "tracks": [{"experiment": {"key": "e"}, "result": {"key": "1", "inExperiment": true}}]}]}}}"#,
        )
        .unwrap();
    let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
    let told = |attributes: &str| {
        let context = context(&serde_json::from_str(attributes).unwrap(), User::default());
        FeatureResult::of(&ruleset, "f", &context, &fixed).exposures
    };
    assert_eq!(told(r#"{"id": "1", "a": 1}"#), []);
    let told = told(r#"{"id": "1"}"#);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].get("experiment").and_then(|one| one.get("key")).and_then(Value::as_str), Some("e"));
}

#[test]
fn a_users_overrides_replace_parts_of_an_experiment() {
    let set = GrowthBook::new()
        .read(
            r#"{"features": {"f": {"defaultValue": "d", "rules": [
                {"key": "e", "variations": ["a", "b"], "weights": [1, 0], "condition": {"never": true}}]}}}"#,
        )
        .unwrap();
    let (ruleset, fixed) = (Ruleset::compile(set), Fixed::default());
    let value = |overrides: &str| {
        let user = serde_json::from_str(&format!(r#"{{"overrides": {{"e": {overrides}}}}}"#)).unwrap();
        let context = context(&serde_json::from_str(r#"{"id": "1", "group": "x"}"#).unwrap(), user);
        FeatureResult::of(&ruleset, "f", &context, &fixed).value.as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(value("{}"), "d");
    assert_eq!(value(r#"{"condition": {}}"#), "a");
    assert_eq!(value(r#"{"condition": {}, "weights": [0, 1]}"#), "b");
    assert_eq!(value(r#"{"condition": {}, "coverage": 0}"#), "d");
    assert_eq!(value(r#"{"condition": {}, "force": 1}"#), "b");
    assert_eq!(value(r#"{"condition": {}, "status": "stopped"}"#), "d");
    assert_eq!(value(r#"{"condition": {}, "active": false}"#), "d");
    assert_eq!(value(r#"{"condition": {}, "groups": ["x"]}"#), "d");
    assert_eq!(value(r#"{"condition": {}, "url": "^https"}"#), "d");
    assert_eq!(value(r#"{"condition": {}, "url": "("}"#), "a");
    assert_eq!(value(r#"{"condition": {}, "namespace": ["n", 0, 0]}"#), "d");
}
