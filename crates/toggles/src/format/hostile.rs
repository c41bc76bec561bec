//! Documents in which any part is something else: none may panic, and the flags beside the damaged one stay as they are.

use proptest::{prelude::*, sample::Index};
use serde_json::{Value as Json, json};

use super::{
    Format,
    flagd::{Flagd, Generation},
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

fn samples() -> Vec<Sample> {
    let mut samples = vec![unleash(), ufc(Ufc::eppo()), ufc(Ufc::datadog())];
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
    fn a_damaged_flag_harms_no_other(kind in 0..6_usize, at in any::<Index>(), value in anything(), more in any::<Index>(), other in anything()) {
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
    fn a_damaged_document_is_an_error_or_a_ruleset(kind in 0..6_usize, at in any::<Index>(), value in anything()) {
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
    fn a_truncated_document_is_an_error(kind in 0..6_usize, at in any::<Index>()) {
        let Some(Sample { format, document, .. }) = samples().into_iter().nth(kind) else { return Ok(()) };
        let text = document.to_string();
        prop_assert!(format.read(text.get(..at.index(text.len())).unwrap_or_default()).is_err());
    }
}
