//! Documents in which any part is something else: none may panic, and the flags beside the damaged one stay as they are.

use proptest::{prelude::*, sample::Index};
use serde_json::{Value as Json, json};

use super::{
    Format,
    flagd::{Flagd, Generation},
    flowline::{Document, Flowline},
    growthbook::GrowthBook,
    launchdarkly::LaunchDarkly,
    ufc::Ufc,
    unleash::Unleash,
};
use crate::{
    context::Context,
    engine::{Fixed, Ruleset},
    value::Value,
};

/// A document with one of everything, and where its flags lie.
struct Sample {
    format: Box<dyn Format>,
    document: Json,
    /// The path to the flag that is damaged; the flag `sound` is not.
    damaged: &'static str,
}

fn unleash() -> Sample {
    let feature = json!({"name": "damaged", "enabled": true, "type": "release", "createdAt": "2026-01-01T00:00:00Z",
        "strategies": [
            {"name": "userWithId", "parameters": {"userIds": "a, b"}},
            {"name": "remoteAddress", "parameters": {"IPs": "10.0.0.0/8, ::1"}},
            {"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "tenant", "groupId": "g"}, "segments": [1],
                "variants": [{"name": "v", "weight": 1, "stickiness": "random", "payload": {"type": "json", "value": "{}"}}],
                "constraints": [
                    {"contextName": "x", "operator": "NUM_GT", "value": "1"},
                    {"contextName": "currentTime", "operator": "DATE_AFTER", "value": "2026-01-01T00:00:00Z", "inverted": true},
                    {"contextName": "x", "operator": "REGEX", "value": "a+", "caseInsensitive": true},
                    {"contextName": "x", "operator": "SEMVER_LT", "value": "1.0.0"},
                    {"contextName": "x", "operator": "STR_CONTAINS", "values": ["a", "é"], "caseInsensitive": true}]}],
        "variants": [{"name": "w", "weight": 7, "overrides": [{"contextName": "userId", "values": ["a"]}]}],
        "dependencies": [{"feature": "sound", "enabled": true, "variants": ["disabled"]}]});
    let document = json!({"version": 1, "features": [feature, {"name": "sound", "enabled": true}],
        "segments": [{"id": 1, "constraints": [{"contextName": "x", "operator": "NOT_IN", "values": ["1"]}]}]});
    Sample { format: Box::new(Unleash::new()), document, damaged: "/features/0" }
}

fn ufc(format: Ufc) -> Sample {
    let flag = json!({"key": "damaged", "enabled": true, "variationType": "JSON", "totalShards": 100,
        "variations": {"a": {"key": "a", "value": "{\"b\": 1}"}, "c": {"key": "c", "value": [1]}},
        "allocations": [{"key": "x", "startAt": "2020-01-01T00:00:00Z", "endAt": "2030-01-01T00:00:00.5+01:00", "doLog": true,
            "rules": [{"conditions": [
                {"attribute": "x", "operator": "ONE_OF", "value": ["1", "a"]}, {"attribute": "id", "operator": "NOT_MATCHES", "value": "b"},
                {"attribute": "x", "operator": "GTE", "value": "1.0.0"}, {"attribute": "y", "operator": "IS_NULL", "value": true}]}, {"conditions": []}],
            "splits": [
                {"variationKey": "a", "shards": [{"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 50}]}]},
                {"variationKey": "c", "shards": [{"salt": "s", "totalShards": 100, "ranges": [{"start": 50, "end": 99}]}]}]}]});
    let sound = json!({"key": "sound", "enabled": true, "variationType": "BOOLEAN", "variations": {"on": {"key": "on", "value": true}},
        "allocations": [{"key": "all", "splits": [{"variationKey": "on", "shards": []}]}]});
    let document = json!({"createdAt": "2026-01-01", "environment": {"name": "e"}, "flags": {"damaged": flag, "sound": sound}});
    Sample { format: Box::new(format), document, damaged: "/flags/damaged" }
}

fn flagd(generation: Generation) -> Sample {
    let flag = json!({"state": "ENABLED", "defaultVariant": "a", "variants": {"a": {"x": 1}, "b": {}, "true": [1]}, "metadata": {"m": 1},
        "targeting": {"if": [
            {"and": [{"==": [{"var": "x"}, "1"]}, {"in": [{"var": "y"}, ["a", "b"]]}, {"$ref": "e"}, {"<": [0, {"var": "z.0"}, 5]}]},
            {"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["a", 50], ["b", {"+": [1, {"var": "z.1"}]}]]},
            {"or": [{"sem_ver": [{"var": "x"}, ">=", "1.2"]}, {"starts_with": [{"var": "x"}, "a"]}, {"missing_some": [1, ["x", "q"]]}]},
            {"if": [{"some": [{"var": "z"}, {">": [{"%": [{"var": ""}, 2]}, 0]}]}, {"substr": ["xax", 1, -1]}]},
            {"reduce": [{"filter": [{"merge": [{"var": "z"}, [1, 2]]}, {"!": {"var": ""}}]}, {"max": [{"var": "current"}, {"var": "accumulator"}]}, null]}]}});
    let sound = json!({"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on"});
    let document = json!({"flags": {"damaged": flag, "sound": sound}, "$evaluators": {"e": {"!!": [{"var": ["q", 1]}]}}, "metadata": {"s": "t"}});
    Sample { format: Box::new(Flagd::new(generation)), document, damaged: "/flags/damaged" }
}

fn growthbook() -> Sample {
    let feature = json!({"defaultValue": 0, "rules": [
        {"id": "r", "condition": {"x": {"$regex": "a+", "$in": ["a"], "$not": {"$gt": 1}}, "$or": [{"y.z": {"$elemMatch": {"$eq": 1}}}, {"v": {"$vgt": "1.0.0"}}]},
         "force": 1, "coverage": 0.5, "hashAttribute": "id", "hashVersion": 2, "tracks": [{"experiment": {}, "result": {}}]},
        {"parentConditions": [{"id": "sound", "condition": {"value": true}, "gate": true}], "force": 2, "range": [0, 0.5]},
        {"key": "e", "variations": ["a", "b", {}], "weights": [0.3, 0.3, 0.4], "namespace": ["n", 0, 1], "meta": [{"key": "0"}, {"key": "1", "passthrough": true}],
         "filters": [{"seed": "s", "ranges": [[0, 1]], "attribute": "id"}], "urlPatterns": [{"type": "regex", "pattern": ".*", "include": true}],
         "condition": {"g": {"$inGroup": "g1"}}, "bucketVersion": 1, "minBucketVersion": 0},
        {"variations": [1, 2], "ranges": [[0, 0.5], [0.5, 1]], "contextualBanditRef": "b"}]});
    let document = json!({"features": {"damaged": feature, "sound": {"defaultValue": true}}, "savedGroups": {"g1": [1, "a"]},
        "contextualBandits": {"b": {"contexts": [{"condition": {}, "leafId": 1, "weights": [0.5, 0.5]}]}}});
    Sample { format: Box::new(GrowthBook::new()), document, damaged: "/features/damaged" }
}

fn launchdarkly() -> Sample {
    let flag = json!({"on": true, "variations": [1, "a", {}], "offVariation": 0, "salt": "s", "targets": [{"values": ["a"], "variation": 1}],
        "contextTargets": [{"contextKind": "org", "values": ["b"], "variation": 2}, {"contextKind": "user", "values": [], "variation": 1}],
        "prerequisites": [{"key": "sound", "variation": 0}],
        "rules": [
            {"id": "r", "variation": 1, "clauses": [{"attribute": "x", "op": "in", "values": [1, "a"], "negate": true}, {"attribute": "x", "op": "matches", "values": ["a+"]}]},
            {"clauses": [{"op": "segmentMatch", "values": ["seg"]}, {"contextKind": "org", "attribute": "/a~1b/c", "op": "semVerEqual", "values": ["1.0"]},
                {"attribute": "when", "op": "before", "values": ["2026-01-01T00:00:00Z", 1.5]}],
             "rollout": {"kind": "experiment", "contextKind": "user", "seed": 1, "bucketBy": "x", "variations": [{"variation": 0, "weight": 50000}, {"variation": 1, "weight": 50000, "untracked": true}]}}],
        "fallthrough": {"rollout": {"variations": [{"variation": 0, "weight": 100_000}]}}});
    let sound = json!({"on": true, "variations": [true], "fallthrough": {"variation": 0}});
    let segment = json!({"included": ["a"], "excluded": ["b"], "rules": [{"clauses": [], "weight": 1, "bucketBy": "x"}], "salt": "q"});
    Sample {
        format: Box::new(LaunchDarkly::new()),
        document: json!({"flags": {"damaged": flag, "sound": sound}, "segments": {"seg": segment}}),
        damaged: "/flags/damaged",
    }
}

/// How many samples there are.
const SAMPLES: usize = 8;

fn samples() -> Vec<Sample> {
    let mut samples = vec![unleash(), ufc(Ufc::eppo()), ufc(Ufc::datadog()), growthbook(), launchdarkly()];
    samples.extend([Generation::V1, Generation::V2, Generation::V3].map(flagd));
    samples
}

/// Anything that JSON can say, with a liking for what formats give a meaning to.
fn anything() -> impl Strategy<Value = Json> {
    let known = [
        "",
        "var",
        "if",
        "fractional",
        "cat",
        "map",
        "reduce",
        "sem_ver",
        "$ref",
        "e",
        "x",
        "a",
        "disabled",
        "random",
        "REGEX",
        "(((a*)*)*)*$",
        "1e309",
        "-1",
        "NaN",
        "2026-01-01T00:00:00Z",
        "::/0",
        "99999999999999999999.0.0",
        "é",
    ];
    let text = prop_oneof![prop::sample::select(known.to_vec()).prop_map(str::to_owned), ".{0,6}"];
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-3_i64..200).prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        text.clone().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::hash_map(text.clone(), inner, 0..3)
                .prop_map(|entries| Json::Object(entries.into_iter().collect())),
        ]
    })
}

/// The node of this number, outer ones first.
fn nth<'j>(json: &'j mut Json, count: &mut usize) -> Option<&'j mut Json> {
    if *count == 0 {
        return Some(json);
    }
    *count -= 1;
    match json {
        Json::Array(elements) => elements.iter_mut().find_map(|element| nth(element, count)),
        Json::Object(entries) => entries.values_mut().find_map(|entry| nth(entry, count)),
        _ => None,
    }
}

fn size(json: &Json) -> usize {
    1 + match json {
        Json::Array(elements) => elements.iter().map(size).sum(),
        Json::Object(entries) => entries.values().map(size).sum(),
        _ => 0,
    }
}

fn evaluate(ruleset: &Ruleset, value: &Json) {
    let fixed = Fixed { now: "2026-06-01T00:00:00Z".parse().unwrap_or_default(), random: 77 };
    let value = Value::from(value);
    for context in [
        Context::anonymous(),
        Context::new("a").with("x", "1").with("y", "a").with("z", vec![1, 2]).with("tenant", "t"),
        Context::new(value.clone())
            .with("x", value.clone())
            .with("z", value.clone())
            .with("currentTime", value),
    ] {
        for flag in ruleset.flags() {
            let plain = ruleset.evaluate(flag.key(), &context, &fixed);
            let (explained, _) = ruleset.explain(flag.key(), &context, &fixed);
            assert_eq!(plain.value, explained.value);
            assert_eq!(plain.on, explained.on);
            let _switch = ruleset.is_on(flag.key(), &context, &fixed);
        }
    }
}

proptest! {
    #[test]
    fn a_damaged_flag_harms_no_other(kind in 0..SAMPLES, at in any::<Index>(), value in anything(), more in any::<Index>(), other in anything()) {
        let Some(Sample { format, mut document, damaged }) = samples().into_iter().nth(kind) else { return Ok(()) };
        for (at, value) in [(at, &value), (more, &other)] {
            let flag = document.pointer_mut(damaged).unwrap();
            let mut count = at.index(size(flag));
            if let Some(node) = nth(flag, &mut count) {
                *node = value.clone();
            }
        }
        let ruleset = Ruleset::compile(format.read(&document.to_string()).unwrap());
        evaluate(&ruleset, &value);
        let sound = ruleset.is_on("sound", &Context::new("u"), &Fixed::default());
        // The damage may be a flag of the same name.
        prop_assert!(sound || document.pointer(damaged).and_then(|flag| flag.get("name")) == Some(&json!("sound")));
    }

    #[test]
    fn a_damaged_document_is_an_error_or_a_ruleset(kind in 0..SAMPLES, at in any::<Index>(), value in anything()) {
        let Some(Sample { format, mut document, .. }) = samples().into_iter().nth(kind) else { return Ok(()) };
        let mut count = at.index(size(&document));
        if let Some(node) = nth(&mut document, &mut count) {
            *node = value.clone();
        }
        if let Ok(set) = format.read(&document.to_string()) {
            evaluate(&Ruleset::compile(set), &value);
        }
    }

    #[test]
    fn a_truncated_document_is_an_error(kind in 0..SAMPLES, at in any::<Index>()) {
        let Some(Sample { format, document, .. }) = samples().into_iter().nth(kind) else { return Ok(()) };
        let text = document.to_string();
        prop_assert!(format.read(text.get(..at.index(text.len())).unwrap_or_default()).is_err());
    }
}

/// Puts text in place of a mark within a sample's damaged flag, so that it need not be JSON.
fn with_text(sample: &Sample, at: &str, text: &str) -> String {
    const MARK: &str = "put it here";
    let mut document = sample.document.clone();
    *document.pointer_mut(sample.damaged).and_then(|flag| flag.pointer_mut(at)).unwrap() = MARK.into();
    document.to_string().replace(&format!("\"{MARK}\""), text)
}

/// A place in each sample's damaged flag where any value may stand, one for a number, one for a pattern, and one for a text.
fn places() -> Vec<(Sample, &'static str, &'static str, &'static str, &'static str)> {
    vec![
        (
            unleash(),
            "/strategies",
            "/variants/0/weight",
            "/strategies/2/constraints/2/value",
            "/strategies/0/parameters/userIds",
        ),
        (
            ufc(Ufc::eppo()),
            "/allocations",
            "/allocations/0/splits/0/shards/0/ranges/0/end",
            "/allocations/0/rules/0/conditions/1/value",
            "/allocations/0/key",
        ),
        (
            ufc(Ufc::datadog()),
            "/allocations",
            "/allocations/0/splits/0/shards/0/ranges/0/end",
            "/allocations/0/rules/0/conditions/1/value",
            "/allocations/0/key",
        ),
        (
            growthbook(),
            "/rules/0/condition",
            "/rules/0/coverage",
            "/rules/0/condition/x/$regex",
            "/rules/2/key",
        ),
        (
            launchdarkly(),
            "/rules",
            "/rules/1/rollout/variations/0/weight",
            "/rules/0/clauses/1/values/0",
            "/salt",
        ),
        (
            flagd(Generation::V2),
            "/targeting",
            "/targeting/if/1/fractional/1/1",
            "/defaultVariant",
            "/defaultVariant",
        ),
    ]
}

/// Reads a document that harms one flag: that flag is named in a warning, and the other works.
fn harmed(sample: &Sample, text: &str) -> Ruleset {
    let ruleset = Ruleset::compile(sample.format.read(text).unwrap());
    let named = ruleset.warnings().iter().any(|warning| warning.flag.as_deref() == Some("damaged"));
    assert!(named, "{}: {:?}", sample.format.name(), ruleset.warnings());
    assert!(ruleset.is_on("sound", &Context::new("u"), &Fixed::default()), "{}", sample.format.name());
    ruleset
}

#[test]
fn deep_nesting_harms_the_flag_in_which_it_is() {
    for (sample, anything, ..) in places() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"!\":", "}"), ("{\"$not\":", "}")] {
            let deep = open.repeat(20_000) + "1" + &close.repeat(20_000);
            harmed(&sample, &with_text(&sample, anything, &deep));
        }
    }
}

#[test]
fn numbers_that_are_none_harm_the_flag_in_which_they_are() {
    for (sample, _, number, ..) in places() {
        harmed(&sample, &with_text(&sample, number, "1e999"));
        // These are no JSON at all.
        for text in ["NaN", "Infinity", "-Infinity", "nan", "01"] {
            let error = sample.format.read(&with_text(&sample, number, text)).unwrap_err();
            assert!(error.to_string().contains("line 1 column "), "{error}");
        }
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX] {
        for sample in samples() {
            let ruleset = Ruleset::compile(sample.format.read(&sample.document.to_string()).unwrap());
            for context in [Context::new("a").with("x", number), Context::new(number).with("when", number)] {
                let _came = ruleset.explain("damaged", &context, &Fixed::default());
            }
        }
    }
}

#[test]
fn long_texts_are_only_long() {
    let long = "a".repeat(1 << 20);
    for (sample, _, _, pattern, text) in places() {
        // Patterns take longer to compile; one format shows it for all.
        let pattern = Some((pattern, 1 << 16)).filter(|_| sample.format.name() == "unleash");
        for (at, length) in pattern.into_iter().chain([(text, long.len())]) {
            let document = with_text(&sample, at, &format!("\"{}\"", &long[..length]));
            let ruleset = Ruleset::compile(sample.format.read(&document).unwrap());
            for warning in ruleset.warnings() {
                assert!(warning.message.len() < 2_000, "{}: {}", sample.format.name(), warning.message.len());
            }
            let context = Context::new(long.as_str()).with("x", long.as_str());
            let _came = ruleset.explain("damaged", &context, &Fixed::default());
            assert!(ruleset.is_on("sound", &context, &Fixed::default()));
        }
    }
}

#[test]
fn patterns_that_explode_are_refused_by_name() {
    for (sample, _, _, pattern, _) in places() {
        if sample.format.name() == "flagd" {
            continue; // It has none.
        }
        for explosive in ["((a{1000}){1000}){1000}", "(?=a)", "("] {
            harmed(&sample, &with_text(&sample, pattern, &format!("\"{explosive}\"")));
        }
        // These would explode elsewhere; here matching takes linear time.
        let document = with_text(&sample, pattern, "\"^(a+)+$\"");
        let ruleset = Ruleset::compile(sample.format.read(&document).unwrap());
        let context =
            Context::new("u").with("x", "a".repeat(100_000) + "b").with("id", "a".repeat(100_000) + "b");
        let _came = ruleset.evaluate("damaged", &context, &Fixed::default());
    }
}

#[test]
fn a_flag_that_stands_twice_is_told() {
    for sample in samples() {
        let mut document = sample.document.clone();
        let text = if let Some(features) = document["features"].as_array_mut() {
            features.push(json!({"name": "damaged", "enabled": true}));
            document.to_string()
        } else {
            document.to_string().replacen("\"damaged\":", "\"damaged\":{},\"damaged\":", 1)
        };
        let ruleset = harmed(&sample, &text);
        let told = ruleset.warnings().iter().any(|warning| warning.message.contains("more than once"));
        assert!(told, "{}: {:?}", sample.format.name(), ruleset.warnings());
    }
    let twice = r#"{"flags": {"f": {}, "g": {}, "f": {}}}"#;
    assert_eq!(Document::from_json(twice).unwrap_err().problem, "duplicate entry `f` at line 1 column 32");
    let told = |text: &str| {
        let set = Flowline::default().read(text).unwrap();
        set.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(
        told(twice),
        "flowline:1:35: flag `f`: duplicate entry `f`; the flag is an error until that is mended"
    );
    let twice = r#"{"segments": {"s": {}, "s": {}}, "flags": {}}"#;
    assert!(Document::from_json(twice).is_err());
    assert_eq!(
        told(twice),
        "flowline:1:29: segments/s: duplicate entry `s`; a flag that asks for it is an error until that is mended"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    for sample in samples() {
        let mut bytes = sample.document.to_string().into_bytes();
        bytes[1] = 0xff;
        let error = sample.format.read_bytes(&bytes).unwrap_err();
        assert_eq!(error.problem, "it is not UTF-8 from line 1 column 2 on");
        let marked = [&b"\xef\xbb\xbf"[..], sample.document.to_string().as_bytes()].concat();
        assert!(sample.format.read_bytes(&marked).is_ok());
        // Half a pair of surrogates is no text either.
        let lone = sample.document.to_string().replacen("\"damaged\"", "\"damaged\\ud800\"", 1);
        assert!(
            sample.format.read(&lone).is_err()
                || Ruleset::compile(sample.format.read(&lone).unwrap()).is_on(
                    "sound",
                    &Context::new("u"),
                    &Fixed::default()
                )
        );
    }
}

#[test]
fn circles_end() {
    let on = Fixed::default();
    let user = Context::new("u");
    let unleash = r#"{"version": 1, "features": [
        {"name": "a", "enabled": true, "dependencies": [{"feature": "b"}]}, {"name": "b", "enabled": true, "dependencies": [{"feature": "a"}]},
        {"name": "sound", "enabled": true}]}"#;
    let growthbook = r#"{"features": {
        "a": {"defaultValue": true, "rules": [{"parentConditions": [{"id": "b", "condition": {"value": true}}], "force": true}]},
        "b": {"defaultValue": true, "rules": [{"parentConditions": [{"id": "a", "condition": {"value": true}, "gate": true}], "force": true}]},
        "sound": {"defaultValue": true}}}"#;
    let launchdarkly = r#"{"flags": {
        "a": {"on": true, "variations": [true], "fallthrough": {"variation": 0}, "prerequisites": [{"key": "b", "variation": 0}]},
        "b": {"on": true, "variations": [true], "fallthrough": {"variation": 0}, "rules": [{"clauses": [{"op": "segmentMatch", "values": ["s"]}], "variation": 0}],
              "prerequisites": [{"key": "a", "variation": 0}]},
        "c": {"on": true, "variations": [true], "fallthrough": {"variation": 0}, "rules": [{"clauses": [{"op": "segmentMatch", "values": ["s"]}], "variation": 0}]},
        "sound": {"on": true, "variations": [true], "fallthrough": {"variation": 0}}},
        "segments": {"s": {"rules": [{"clauses": [{"op": "segmentMatch", "values": ["t"]}]}]}, "t": {"rules": [{"clauses": [{"op": "segmentMatch", "values": ["s"]}]}]}}}"#;
    let own = r#"{"segments": {"s": {"when": [{"segment": "t"}]}, "t": {"when": [{"segment": "s"}]}}, "flags": {
        "a": {"requires": ["b"], "state": {"on": true}}, "b": {"requires": ["a"], "state": {"on": true}},
        "c": {"audience": [{"segment": "s"}], "state": {"on": true}}, "sound": {"state": {"on": true}}}}"#;
    let formats: [(Box<dyn Format>, &str, &[&str]); 4] = [
        (Box::new(Unleash::new()), unleash, &["a", "b"]),
        (Box::new(GrowthBook::new()), growthbook, &[]),
        (Box::new(LaunchDarkly::new()), launchdarkly, &["a", "b", "c"]),
        (Box::new(Flowline::default()), own, &["a", "b", "c"]),
    ];
    for (format, text, off) in formats {
        let ruleset = Ruleset::compile(format.read(text).unwrap());
        for flag in ruleset.flags() {
            let _came = ruleset.explain(flag.key(), &user, &on);
        }
        for flag in off {
            assert!(!ruleset.is_on(flag, &user, &on), "{} {flag}", format.name());
        }
        assert!(ruleset.is_on("sound", &user, &on), "{}", format.name());
    }
}

#[test]
fn a_long_chain_of_flags_ends() {
    let flags: serde_json::Map<String, Json> = (0..500)
        .map(|flag| {
            (format!("f{flag}"), json!({"requires": [format!("f{}", flag + 1)], "state": {"on": true}}))
        })
        .chain([
            ("f500".to_owned(), json!({"state": {"on": true}})),
            ("sound".to_owned(), json!({"state": {"on": true}})),
        ])
        .collect();
    let ruleset = Ruleset::compile(Flowline::default().read(&json!({"flags": flags}).to_string()).unwrap());
    let (user, fixed) = (Context::new("u"), Fixed::default());
    assert!(!ruleset.is_on("f0", &user, &fixed), "deeper than the engine follows");
    assert!(ruleset.is_on("f499", &user, &fixed) && ruleset.is_on("sound", &user, &fixed));
}
