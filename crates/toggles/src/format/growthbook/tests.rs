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
        (r#"{"a": {"$lt": "b"}}"#, r#"{"a": ["a"]}"#, true),
        (r#"{"a": {"$gt": 5}}"#, r#"{"a": [6]}"#, true),
        (r#"{"a": 16}"#, r#"{"a": " 0x10 "}"#, true),
        (r#"{"a": 0}"#, r#"{"a": "0x"}"#, false),
        (r#"{"a.00": 7}"#, r#"{"a": [7]}"#, false),
        (r#"{"a": {"$type": null}}"#, "{}", false),
        (r#"{"a": {"$regex": null}}"#, "{}", false),
        (r#"{"a": {"$regex": "^\\w+$"}}"#, r#"{"a": "na\u00efve"}"#, false),
        (r#"{"a": {"$regexi": "[[]X{"}}"#, r#"{"a": "[x{"}"#, true),
        (r#"{"$and": ["a"]}"#, r#"{"a": 1}"#, false),
        (r#"{"$nor": "a"}"#, r#"{"a": 1}"#, true),
        (r#"{"a": {"$elemMatch": "b"}}"#, r#"{"a": ["b"]}"#, false),
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
fn a_rule_that_serves_nothing_still_asks_its_prerequisites_and_gives_no_name() {
    let ruleset = read(
        r#"{"features": {"own": {"defaultValue": 1, "rules": [{"id": "r", "parentConditions": [{"id": "own", "condition": {}}]}]},
        "far": {"defaultValue": 1, "rules": [{"id": "r", "parentConditions": [{"id": "own", "condition": {}}], "force": 2}]},
        "fine": {"defaultValue": 1, "rules": [{"parentConditions": [{"id": "nobody", "condition": {}}]}, {"id": "r", "force": 2}]}}}"#,
    );
    let nobody = Context::anonymous();
    assert_eq!(shown(&ruleset, "own", &nobody), "null CyclicPrerequisite ");
    assert_eq!(shown(&ruleset, "far", &nobody), "null CyclicPrerequisite ");
    assert_eq!(shown(&ruleset, "fine", &nobody), "2 Force r");
}

#[test]
fn lists_that_are_empty_are_not_absent() {
    let value = |more: &str| {
        let text = format!(
            r#"{{"features": {{"f": {{"defaultValue": "d", "rules": [{{"variations": ["a", "b"], "weights": [1, 0], {more}}}]}}}}}}"#
        );
        shown(&read(&text), "f", &context(&json(r#"{"id": "1"}"#), User::default())).replace('"', "")
    };
    assert_eq!(value(r#""namespace": ["n", 0, 0]"#), "d DefaultValue ");
    assert_eq!(value(r#""namespace": ["n", 0, 0], "filters": []"#), "a Experiment ");
    assert_eq!(value(r#""groups": []"#), "d DefaultValue ");
    assert_eq!(value(r#""urlPatterns": []"#), "d DefaultValue ");
    assert_eq!(value(r#""urlPatterns": [{"type": "simple", "pattern": "/"}]"#), "a Experiment ");
    assert_eq!(value(r#""urlPatterns": [{"type": "other", "pattern": "/"}]"#), "d DefaultValue ");
}

#[test]
fn a_bandits_experiment_repeats_what_was_given() {
    let ruleset = read(
        r#"{"features": {
            "ranges": {"defaultValue": "d", "rules": [{"variations": ["a", "b"], "ranges": [[0, 0], [0, 1]], "contextualBanditRef": "b"}]},
            "plain": {"defaultValue": "d", "rules": [{"variations": ["a", "b"], "bucketVersion": 0, "contextualBanditRef": "none"}]}},
        "contextualBandits": {"b": {"contexts": [{"leafId": 1, "weights": [1, 0]}]}, "none": {}}}"#,
    );
    let one = context(&json(r#"{"id": "1"}"#), User::default());
    let result = |feature| FeatureResult::of(&ruleset, feature, &one, &Fixed::default());
    assert_eq!(result("ranges").value.as_str(), Some("b"));
    let experiment = result("plain").experiment.unwrap();
    assert_eq!(experiment.get("weights"), None);
    assert_eq!(experiment.get("bucketVersion").and_then(Value::as_i64), Some(0));
    let bandit = experiment.get("contextualBandit").unwrap();
    assert_eq!(bandit.get("variationWeights").unwrap().to_string(), "[0.5,0.5]");
}

#[test]
fn sticky_buckets_of_all_experiments_on_the_way_are_kept() {
    let ruleset = read(
        r#"{"features": {
            "parent": {"defaultValue": 0, "rules": [{"key": "p", "variations": [1, 2]}]},
            "f": {"defaultValue": 0, "rules": [
                {"parentConditions": [{"id": "parent", "condition": {"value": {"$gt": 0}}}], "key": "h", "variations": [1, 2],
                    "meta": [{"key": "in", "passthrough": true}, {"key": "out", "passthrough": true}]},
                {"key": "e", "variations": [5, 6], "hashAttribute": "device", "meta": [{"key": "0"}, {"key": "1"}]}]},
            "forced": {"defaultValue": 0, "rules": [{"force": 1, "variations": [1, 2], "hashAttribute": "company", "fallbackAttribute": "team"}]}}}"#,
    );
    let attributes = json(r#"{"id": "u", "device": "d", "company": "c", "team": "t"}"#);
    let known = context(&attributes, User::default());
    assert_eq!(sticky_keys(&ruleset, &known), ["company||c", "device||d", "id||u", "team||t"]);
    // Nothing is known of the device, but of the user.
    let stored =
        json(r#"{"attributeName": "id", "attributeValue": "u", "assignments": {"e__0": "1", "x__0": "0"}}"#);
    let known = context(&attributes, User::default().with_sticky(&stored));
    let result = FeatureResult::of(&ruleset, "f", &known, &Fixed::default());
    assert_eq!(result.value.as_i64(), Some(6));
    assert_eq!(result.exposures.len(), 3);
    let kept: Vec<_> = result
        .sticky
        .iter()
        .map(|document| {
            let keys = document.get("assignments").and_then(Value::as_object).into_iter().flatten();
            let keys: Vec<_> = keys.map(|(key, _)| key.to_string()).collect();
            format!("{}: {}", document.get("attributeName").unwrap(), keys.join(" "))
        })
        .collect();
    assert_eq!(kept, [r#""id": e__0 x__0 p__0 h__0"#, r#""device": e__0"#]);
}

#[test]
fn an_address_forces_by_the_first_pair_of_that_name() {
    let forced = |url: &str| query_override("e", url, 3);
    for (url, expected) in [
        ("http://x?e=1", Some(1)),
        ("http://x?a=0&e=2#e=1", Some(2)),
        ("http://x#?e=1", Some(1)),
        ("http://x?e=+1", Some(1)),
        ("http://x?e=-0", Some(0)),
        ("http://x?e=0x2", Some(2)),
        ("http://x?e=1.9", Some(1)),
        ("http://x?e=-1", None),
        ("http://x?e&e=1", None),
        ("http://x?e=z&e=1", None),
        ("http://x?e=3", None),
        ("http://x?y?e=1", None),
        ("http://x", None),
    ] {
        assert_eq!(forced(url), expected, "{url}");
    }
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
    let simple = |include, text: &str| UrlPattern { include, target: Target::Simple(text.into()) };
    let page = "https://shop.example.com/Sale/shoes/?size=42#top";
    for (text, expected) in [
        ("https://shop.example.com/sale/shoes", true),
        ("*.example.com/sale/*", true),
        ("/sale/shoes?size=4*", true),
        ("/sale/shoes?size=41", false),
        ("/sale#bottom", false),
        ("/sale", false),
        ("sale/*", true),
        ("shop.example.com/sale/shoes", true),
        ("example.com/sale/shoes", false),
    ] {
        assert_eq!(targeted(page, &[simple(true, text)]), expected, "{text}");
    }
    assert!(!targeted(page, &[simple(true, "/sale/*"), simple(false, "/*/shoes")]));
    assert!(targeted(page, &[simple(false, "/other")]));
    assert!(!targeted(page, &[]));
    let regex = |text: &str| UrlPattern {
        include: true,
        target: Target::Regex(pattern::pattern(text, false).unwrap()),
    };
    assert!(targeted("https://example.com", &[regex("^/$")]));
    assert!(targeted("https://example.com?a", &[regex(r"^https://example\.com/\?a$")]));
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
    let (ciphertext, key) = (&text[23..text.len() - 2], "Zvwv/+uhpFDznZ6SX28Yjg");
    assert!(decrypt(ciphertext, "Zvwv/+uhpFDznZ6SX28Yjg==").is_some());
    assert_eq!(
        decrypt(&format!(" {}.x", ciphertext.replace('=', "")), key),
        decrypt(ciphertext, &format!("{key}=="))
    );
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
