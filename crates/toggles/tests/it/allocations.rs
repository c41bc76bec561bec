//! Boolean and variant evaluation allocates nothing, whatever the format that the flags were read from.

use flowline_toggles::{
    Context, Ruleset, Toggles, Value,
    format::{
        Format,
        flagd::Flagd,
        flowline::Flowline,
        growthbook::{self, GrowthBook},
        launchdarkly::{self, LaunchDarkly},
        ufc::{self, Ufc},
        unleash::{self, Unleash},
    },
};
use serde_json::{Value as Json, json};

/// More than are compared one by one.
fn ids() -> Json {
    (0..1_000).map(|id| json!(format!("user-{id:04}"))).collect()
}

fn user() -> Json {
    json!({"country": "NO", "appVersion": "2.3.1", "age": 42, "email": "ada@example.com"})
}

fn with(mut object: Json, more: &[(&str, Json)]) -> Value {
    for (name, value) in more {
        object[*name] = value.clone();
    }
    Value::from(object)
}

/// No evaluation of any flag of the ruleset for any context allocates.
fn nothing_is_allocated(format: &str, ruleset: Ruleset, context: impl Fn(&str) -> Context) {
    assert!(ruleset.len() >= 6, "{format}");
    let faults = |it: &flowline_toggles::Evaluation<'_>| it.error.is_some();
    let keys: Vec<String> = ruleset.flags().iter().map(|flag| flag.key().to_owned()).collect();
    let toggles = Toggles::new(ruleset);
    for user in ["user-0007", "user-0815", "somebody-with-a-long-key-that-is-not-listed"] {
        let context = context(user);
        for key in &keys {
            // The first question of a thread makes room for what the thread remembers.
            assert!(!toggles.evaluate(key, &context, |it| faults(&it)), "{format} {key} is an error");
            let mut on = false;
            let counted = allocation_counter::measure(|| on = toggles.is_on(key, &context));
            assert_eq!(counted.count_total, 0, "{format}: {key} is on for {user}: {on}");
            let mut variant = 0;
            let counted = allocation_counter::measure(|| {
                variant = toggles.evaluate(key, &context, |it| it.variant.map_or(0, |it| it.name.len()));
            });
            assert_eq!(counted.count_total, 0, "{format}: the variant of {key} for {user}: {variant}");
        }
    }
}

#[test]
fn flowlines_own_flags() {
    let on = json!({"on": true});
    let document = json!({
        "segments": {"beta": {"members": ids()}},
        "flags": {
            "plain": {"state": on},
            "a-flag-with-a-name-of-more-than-thirty-bytes": {"state": on},
            "three": {"state": on, "audience": [
                {"attribute": "country", "in": ["SE", "NO"]},
                {"attribute": "appVersion", "version": ">= 2.1.0"},
                {"attribute": "age", "above": 21}]},
            "texts": {"state": on, "audience": [
                {"attribute": "email", "ends_with": "@example.com", "ignore_case": true},
                {"attribute": "email", "matches": "^a.*m$"}]},
            "half": {"state": {"on": true, "rollout": 50}},
            "listed": {"state": on, "audience": [{"segment": "beta"}]},
            "look": {"state": on, "variants": {"a": "a", "b": "b"}, "serve": {"a": 20, "b": 80}},
            "child": {"state": on, "requires": ["half", "listed"]},
            "grandchild": {"state": on, "requires": ["child", "three"]},
        },
    });
    let ruleset = Flowline::default().ruleset(&document.to_string()).unwrap();
    nothing_is_allocated("flowline", ruleset, |key| {
        Context::from_object(&with(user(), &[("targetingKey", json!(key))]))
    });
}

#[test]
fn unleashs_features() {
    let feature = |name: &str, more: Json| {
        let mut feature = json!({"name": name, "enabled": true, "strategies": [{"name": "default"}]});
        for (name, value) in more.as_object().into_iter().flatten() {
            feature[name] = value.clone();
        }
        feature
    };
    let rollout = |percent: &str| json!({"rollout": percent, "stickiness": "userId", "groupId": "g"});
    let document = json!({
        "segments": [{"id": 1, "constraints": [{"contextName": "userId", "operator": "IN", "values": ids()}]}],
        "features": [
            feature("plain", json!({})),
            feature("three", json!({"strategies": [{"name": "default", "constraints": [
                {"contextName": "country", "operator": "IN", "values": ["SE", "NO"]},
                {"contextName": "appVersion", "operator": "SEMVER_GTE", "value": "2.1.0"},
                {"contextName": "age", "operator": "NUM_GT", "value": "21"}]}]})),
            feature("half", json!({"strategies": [{"name": "flexibleRollout", "parameters": rollout("50")}]})),
            feature("listed", json!({"strategies": [{"name": "default", "segments": [1]}]})),
            feature("look", json!({"variants": [
                {"name": "a", "weight": 200, "weightType": "fix", "stickiness": "userId"},
                {"name": "b", "weight": 800, "weightType": "fix", "stickiness": "userId"}]})),
            feature("child", json!({"dependencies": [{"feature": "half"}]})),
        ],
    });
    let set = Unleash::new().read(&document.to_string()).unwrap();
    nothing_is_allocated("unleash", Ruleset::compile(set), |key| {
        let properties = json!({"country": "NO", "appVersion": "2.3.1", "age": "42"});
        unleash::context(&Value::from(json!({"userId": key, "properties": properties})))
    });
}

#[test]
fn flagds_flags() {
    let flag = |targeting: Json| {
        let variants = json!({"on": true, "off": false});
        json!({"state": "ENABLED", "variants": variants, "defaultVariant": "off", "targeting": targeting})
    };
    let bucket = json!({"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]});
    let document = json!({
        "$evaluators": {"beta": {"in": [{"var": "targetingKey"}, ids()]}},
        "flags": {
            "plain": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
            "three": flag(json!({"if": [{"and": [
                {"in": [{"var": "country"}, ["SE", "NO"]]},
                {"sem_ver": [{"var": "appVersion"}, ">=", "2.1.0"]},
                {">": [{"var": "age"}, 21]}]}, "on", "off"]})),
            "half": flag(json!({"fractional": [bucket, ["on", 50], ["off", 50]]})),
            "shorthand": flag(json!({"fractional": [["on", 50], ["off", 50]]})),
            "listed": flag(json!({"if": [{"$ref": "beta"}, "on", "off"]})),
            "texts": flag(json!({"if": [{"ends_with": [{"var": "email"}, "@example.com"]}, "on", "off"]})),
        },
    });
    let set = Flagd::default().read(&document.to_string()).unwrap();
    nothing_is_allocated("flagd", Ruleset::compile(set), |key| {
        Context::from_object(&with(user(), &[("targetingKey", json!(key))]))
    });
}

#[test]
fn growthbooks_features() {
    let forced = |rule: Json| json!({"defaultValue": false, "rules": [rule]});
    let document = json!({
        "savedGroups": {"beta": ids()},
        "features": {
            "plain": {"defaultValue": true},
            "three": forced(json!({"force": true, "condition": {
                "country": {"$in": ["SE", "NO"]}, "appVersion": {"$vgte": "2.1.0"}, "age": {"$gt": 21}}})),
            "half": forced(json!({"force": true, "coverage": 0.5, "hashAttribute": "id"})),
            "listed": forced(json!({"force": true, "condition": {"id": {"$inGroup": "beta"}}})),
            "look": {"defaultValue": "none", "rules": [
                {"key": "look", "variations": ["a", "b"], "weights": [0.2, 0.8], "hashAttribute": "id"}]},
            "child": forced(json!({"force": true, "parentConditions": [
                {"id": "half", "condition": {"value": true}, "gate": true}]})),
        },
    });
    let set = GrowthBook::new().read(&document.to_string()).unwrap();
    nothing_is_allocated("growthbook", Ruleset::compile(set), |key| {
        growthbook::context(&with(user(), &[("id", json!(key))]), growthbook::User::default())
    });
}

#[test]
fn launchdarklys_flags() {
    let flag = |key: &str, more: Json| {
        let mut flag = json!({"key": key, "on": true, "fallthrough": {"variation": 1}, "offVariation": 0,
            "variations": [false, true], "salt": "s"});
        for (name, value) in more.as_object().into_iter().flatten() {
            flag[name] = value.clone();
        }
        flag
    };
    let clause =
        |attribute: &str, op: &str, values: Json| json!({"attribute": attribute, "op": op, "values": values});
    let rules = |clauses: Json| json!({"fallthrough": {"variation": 0}, "rules": [{"id": "r", "variation": 1, "clauses": clauses}]});
    let halves = json!({"rollout": {"variations": [{"variation": 1, "weight": 50_000}, {"variation": 0, "weight": 50_000}]}});
    let document = json!({
        "segments": {"beta": {"key": "beta", "included": ids(), "salt": "s"}},
        "flags": {
            "plain": flag("plain", json!({})),
            "three": flag("three", rules(json!([
                clause("country", "in", json!(["SE", "NO"])),
                clause("appVersion", "semVerGreaterThan", json!(["2.1.0"])),
                clause("age", "greaterThan", json!([21]))]))),
            "half": flag("half", json!({"fallthrough": halves})),
            "listed": flag("listed", rules(json!([clause("key", "segmentMatch", json!(["beta"]))]))),
            "look": flag("look", json!({"variations": ["a", "b"], "fallthrough": halves})),
            "child": flag("child", json!({"prerequisites": [{"key": "half", "variation": 1}]})),
        },
    });
    let set = LaunchDarkly::new().read(&document.to_string()).unwrap();
    nothing_is_allocated("launchdarkly", Ruleset::compile(set), |key| {
        launchdarkly::context(&with(user(), &[("kind", json!("user")), ("key", json!(key))]))
    });
}

#[test]
fn universal_flag_configurations() {
    let flag = |key: &str, allocations: Json| {
        json!({"key": key, "enabled": true, "variationType": "BOOLEAN", "totalShards": 10_000,
            "variations": {"on": {"key": "on", "value": true}, "off": {"key": "off", "value": false}},
            "allocations": allocations})
    };
    let everybody = json!([{"variationKey": "on", "shards": []}]);
    let asked = |conditions: Json| json!([{"key": "a", "rules": [{"conditions": conditions}], "splits": everybody, "doLog": false}]);
    let part = |variation: &str, start: u32, end: u32| json!({"variationKey": variation, "shards": [{"salt": "s", "ranges": [{"start": start, "end": end}]}]});
    let halves =
        json!([{"key": "a", "splits": [part("on", 0, 5_000), part("off", 5_000, 10_000)], "doLog": false}]);
    let document = json!({"createdAt": "2024-04-17T19:40:53.716Z", "environment": {"name": "test"}, "flags": {
        "plain": flag("plain", json!([{"key": "a", "splits": everybody, "doLog": false}])),
        "three": flag("three", asked(json!([
            {"attribute": "country", "operator": "ONE_OF", "value": ["SE", "NO"]},
            {"attribute": "appVersion", "operator": "GTE", "value": "2.1.0"},
            {"attribute": "age", "operator": "GT", "value": 21}]))),
        "half": flag("half", halves),
        "listed": flag("listed", asked(json!([{"attribute": "id", "operator": "ONE_OF", "value": ids()}]))),
        "texts": flag("texts", asked(json!([{"attribute": "email", "operator": "MATCHES", "value": "@example"}]))),
        "numbers": flag("numbers", asked(json!([{"attribute": "age", "operator": "ONE_OF", "value": ["42"]}]))),
    }});
    for (name, ufc) in [("eppo", Ufc::eppo()), ("datadog", Ufc::datadog())] {
        let set = ufc.read(&document.to_string()).unwrap();
        nothing_is_allocated(name, Ruleset::compile(set), |key| {
            ufc::context(Some(key), &Value::from(user()))
        });
    }
}
