//! What is imported means here what it meant there, and what does not is named.

use flowline_core::config;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{
    Format, LossKind, flagd::Flagd, flowline::Document, growthbook::GrowthBook, import, launchdarkly,
    ufc::Ufc, unleash::Unleash,
};
use crate::{
    context::Context,
    engine::{Fixed, Ruleset},
    model::FlagSet,
    value::Value,
};

/// The set as it was read, as imported, and what the import told. The imported document goes through its text.
fn imported(set: FlagSet) -> (Ruleset, Ruleset, super::Import) {
    let import = import(&set);
    let json = serde_json::to_string(&import.document).unwrap();
    let back = Document::from_json(&json).unwrap_or_else(|error| panic!("{error}\n{json}"));
    assert_eq!(back, import.document, "{json}");
    // JSON is YAML, too.
    let yaml = config::Document::new("flags.yaml", json).read::<Document>().unwrap();
    assert_eq!(yaml, import.document);
    let ours = Ruleset::compile(back.flag_set(&[]));
    assert_eq!(ours.warnings(), [], "{:#?}", import.document);
    (Ruleset::compile(set), ours, import)
}

fn same(flag: &str, theirs: &Ruleset, ours: &Ruleset, context: &Context) -> Result<(), TestCaseError> {
    let fixed = Fixed { now: "2026-06-01T00:00:00Z".parse().unwrap(), random: 77 << 40 };
    let (one, other) = (theirs.evaluate(flag, context, &fixed), ours.evaluate(flag, context, &fixed));
    prop_assert_eq!(
        (one.value, one.error.is_some(), one.experiment),
        (other.value, other.error.is_some(), other.experiment),
        "{} for {:?}\n{:#?}",
        flag,
        context,
        ours.explain(flag, context, &fixed).1
    );
    Ok(())
}

fn unleash() -> FlagSet {
    let rollout = |stickiness: &str, percent: &str| json!({"rollout": percent, "stickiness": stickiness, "groupId": "g"});
    let constraint = |name: &str, operator: &str, value: Json, inverted: bool| {
        let mut constraint = json!({"contextName": name, "operator": operator, "inverted": inverted});
        let place = if value.is_array() { "values" } else { "value" };
        constraint[place] = value;
        json!({"name": "default", "constraints": [constraint]})
    };
    let mut features = vec![
        json!({"name": "rollout", "enabled": true, "strategies": [
            {"name": "flexibleRollout", "parameters": rollout("default", "50"), "segments": [1]},
            {"name": "userWithId", "parameters": {"userIds": "a, b"}}]}),
        json!({"name": "variants", "enabled": true, "strategies": [
            {"name": "flexibleRollout", "parameters": rollout("userId", "70"), "constraints": [],
             "variants": [{"name": "v", "weight": 1, "payload": {"type": "string", "value": "x"}}, {"name": "w", "weight": 3, "payload": {"type": "json", "value": "{}"}}]},
            {"name": "default"}],
            "variants": [{"name": "plain", "weight": 1, "stickiness": "x", "overrides": [{"contextName": "x", "values": ["a"]}]}, {"name": "other", "weight": 1}]}),
        json!({"name": "child", "enabled": true, "strategies": [], "dependencies": [{"feature": "rollout"}, {"feature": "variants", "variants": ["v"]}]}),
        json!({"name": "not-child", "enabled": true, "strategies": [], "dependencies": [{"feature": "rollout", "enabled": false}]}),
        json!({"name": "grandchild", "enabled": true, "strategies": [], "dependencies": [{"feature": "child"}]}),
        json!({"name": "address", "enabled": true, "strategies": [{"name": "remoteAddress", "parameters": {"IPs": "10.0.0.0/8, ::1"}}]}),
        json!({"name": "disabled", "enabled": false, "strategies": [{"name": "default"}]}),
        json!({"name": "plain", "enabled": true, "strategies": [{"name": "default"}]}),
    ];
    let operators = [
        ("IN", json!(["1", "a"])),
        ("NOT_IN", json!(["1", "a"])),
        ("STR_CONTAINS", json!(["a"])),
        ("STR_ENDS_WITH", json!(["c", "0"])),
        ("NUM_EQ", json!("1")),
        ("NUM_GT", json!("0.5")),
        ("NUM_LTE", json!("2")),
        ("NUM_GT", json!("x")),
        ("SEMVER_GT", json!("1.1.0")),
        ("SEMVER_LT", json!("v2")),
        ("DATE_AFTER", json!("2026-05-01T00:00:00Z")),
        ("REGEX", json!("^a")),
        ("REGEX", json!("(")),
        ("NEAR", json!("1")),
        ("IN_CIDR", json!(["10.0.0.0/8"])),
    ];
    for (index, (operator, value)) in operators.into_iter().enumerate() {
        for name in ["x", "currentTime"] {
            for inverted in [false, true] {
                if name == "currentTime" && !operator.starts_with("DATE") {
                    continue;
                }
                let strategy = constraint(name, operator, value.clone(), inverted);
                features.push(json!({"name": format!("c{index}-{name}-{inverted}"), "enabled": true, "strategies": [strategy]}));
            }
        }
    }
    let segment =
        json!({"id": 1, "constraints": [{"contextName": "x", "operator": "NOT_IN", "values": ["b"]}]});
    let document = json!({"version": 1, "features": features, "segments": [segment]});
    Unleash::new().read(&document.to_string()).unwrap()
}

fn launchdarkly() -> FlagSet {
    let mut flags = json!({
        "rollout": {"on": true, "variations": ["a", "b", "c"], "offVariation": 2, "salt": "s",
            "targets": [{"values": ["t"], "variation": 1}],
            "rules": [
                {"id": "r", "clauses": [{"attribute": "x", "op": "in", "values": ["a", 1]}, {"attribute": "", "op": "segmentMatch", "values": ["seg"], "negate": true}], "variation": 0},
                {"clauses": [{"contextKind": "company", "attribute": "/plan/name", "op": "startsWith", "values": ["go"]}],
                 "rollout": {"contextKind": "company", "bucketBy": "key", "variations": [{"variation": 0, "weight": 30000}, {"variation": 1, "weight": 70000}]}}],
            "fallthrough": {"rollout": {"kind": "experiment", "seed": 61, "variations": [{"variation": 0, "weight": 50000}, {"variation": 1, "weight": 50000, "untracked": true}]}}},
        "child": {"on": true, "variations": [true, false], "offVariation": 1, "fallthrough": {"variation": 0},
            "prerequisites": [{"key": "rollout", "variation": 1}]},
        "of-off": {"on": true, "variations": [true, false], "offVariation": 1, "fallthrough": {"variation": 0}, "prerequisites": [{"key": "off", "variation": 0}]},
        "off": {"on": false, "variations": [1, 2], "offVariation": 0, "fallthrough": {"variation": 1}},
        "no-off": {"on": false, "variations": [1, 2], "fallthrough": {"variation": 1}},
        "contexts": {"on": true, "variations": [1, 2], "fallthrough": {"variation": 1},
            "contextTargets": [{"contextKind": "company", "values": ["acme"], "variation": 0}, {"contextKind": "user", "values": [], "variation": 1}]},
    });
    let operators = [
        ("in", json!(["a", 1, true])),
        ("startsWith", json!(["a"])),
        ("matches", json!(["^a", "("])),
        ("lessThan", json!([2])),
        ("greaterThanOrEqual", json!([1, "x"])),
        ("before", json!(["2026-07-01T00:00:00Z", 5])),
        ("semVerGreaterThan", json!(["1.1"])),
        ("near", json!(["a"])),
        ("contains", json!(["b", "c"])),
    ];
    for (index, (op, values)) in operators.into_iter().enumerate() {
        for negate in [false, true] {
            let clause = json!({"attribute": "x", "op": op, "values": values, "negate": negate});
            flags[format!("c{index}-{negate}")] = json!({"on": true, "variations": [false, true], "fallthrough": {"variation": 0}, "rules": [{"clauses": [clause], "variation": 1}]});
        }
    }
    let segments = json!({"seg": {"included": ["in"], "excluded": ["out"], "salt": "q", "rules": [
        {"clauses": [{"attribute": "x", "op": "in", "values": ["b"]}], "weight": 50000, "bucketBy": "key"}]}});
    launchdarkly::LaunchDarkly::new()
        .read(&json!({"flags": flags, "segments": segments}).to_string())
        .unwrap()
}

fn ufc(format: Ufc) -> FlagSet {
    let mut flags = json!({
        "split": {"key": "split", "enabled": true, "variationType": "STRING", "totalShards": 100,
            "variations": {"a": {"key": "a", "value": "A"}, "b": {"key": "b", "value": "B"}},
            "allocations": [
                {"key": "window", "startAt": "2026-01-01T00:00:00Z", "endAt": "2026-03-01T00:00:00Z", "splits": [{"variationKey": "a", "shards": []}]},
                {"key": "part", "rules": [{"conditions": [{"attribute": "id", "operator": "NOT_MATCHES", "value": "^b"}]}], "splits": [
                    {"variationKey": "a", "shards": [{"salt": "t", "totalShards": 100, "ranges": [{"start": 0, "end": 60}]}, {"salt": "s", "totalShards": 100, "ranges": [{"start": 0, "end": 50}]}]},
                    {"variationKey": "b", "shards": [{"salt": "t", "totalShards": 100, "ranges": [{"start": 0, "end": 60}]}, {"salt": "s", "totalShards": 100, "ranges": [{"start": 50, "end": 100}]}]}]},
                {"key": "rest", "startAt": "2026-05-01T00:00:00Z", "splits": [{"variationKey": "b", "shards": []}]}]},
        "off": {"key": "off", "enabled": false, "variationType": "BOOLEAN", "variations": {"on": {"key": "on", "value": true}}, "allocations": []},
    });
    let operators = [
        ("ONE_OF", json!(["1", "a", "true"])),
        ("NOT_ONE_OF", json!(["1", "a"])),
        ("MATCHES", json!("^a")),
        ("NOT_MATCHES", json!("^a")),
        ("GTE", json!(1)),
        ("LT", json!("1.1.0")),
        ("GT", json!("0.5")),
        ("IS_NULL", json!(true)),
        ("IS_NULL", json!(false)),
    ];
    for (index, (operator, value)) in operators.into_iter().enumerate() {
        let rules = json!([{"conditions": [{"attribute": "x", "operator": operator, "value": value}]}]);
        flags[format!("c{index}")] = json!({"key": "c", "enabled": true, "variationType": "BOOLEAN",
            "variations": {"on": {"key": "on", "value": true}, "off": {"key": "off", "value": false}},
            "allocations": [{"key": "one", "rules": rules, "splits": [{"variationKey": "on", "shards": []}]}, {"key": "all", "splits": [{"variationKey": "off", "shards": []}]}]});
    }
    format.read(&json!({"flags": flags}).to_string()).unwrap()
}

fn told(import: &super::Import) -> String {
    import.losses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_an_import_loses_is_told() {
    let [unleash, launchdarkly, eppo] =
        [unleash(), launchdarkly(), ufc(Ufc::eppo())].map(|set| told(&import(&set)));
    insta::assert_snapshot!(unleash, @"the document: changed: our own comparisons look at the elements of an attribute that is a list");
    insta::assert_snapshot!(launchdarkly, @r"
    the document: changed: our own comparisons look at the elements of an attribute that is a list
    flag `off`, variants: not kept: here a variant counts as on if it is `true` or no boolean, and not the `off` one
    flag `rollout`, variants: not kept: here a variant counts as on if it is `true` or no boolean, and not the `off` one
    ");
    insta::assert_snapshot!(eppo, @"the document: changed: our own comparisons look at the elements of an attribute that is a list");
}

#[test]
fn an_imported_rollout_is_readable() {
    let set = Unleash::new()
        .read(&json!({"version": 1, "features": [{"name": "checkout", "enabled": true, "description": "New", "strategies": [
            {"name": "flexibleRollout", "parameters": {"rollout": "25", "stickiness": "userId", "groupId": "checkout"},
             "constraints": [{"contextName": "country", "operator": "IN", "values": ["NO"]}]}]}]}).to_string())
        .unwrap();
    let document = import(&set).document;
    insta::assert_snapshot!(serde_json::to_string_pretty(&document).unwrap(), @r#"
    {
      "flags": {
        "checkout": {
          "description": "New",
          "kind": "release",
          "serve": "off",
          "rules": [
            {
              "when": [
                {
                  "attribute": "country",
                  "in": [
                    "NO"
                  ],
                  "coerce": true
                },
                {
                  "share": {
                    "bucketing": {
                      "input": [
                        {
                          "literal": "checkout:"
                        },
                        {
                          "of": {
                            "first_of": [
                              "key"
                            ],
                            "scalars": true
                          }
                        }
                      ],
                      "hash": {
                        "murmur3": {
                          "seed": 0
                        }
                      },
                      "scale": {
                        "modulo": {
                          "of": 100,
                          "plus": 1
                        }
                      },
                      "missing": "no_point"
                    },
                    "ranges": [
                      {
                        "until": 25.0,
                        "with_end": true
                      }
                    ]
                  }
                }
              ],
              "serve": "on"
            }
          ],
          "state": {
            "on": true
          }
        }
      }
    }
    "#);
}

fn any_value() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-2..3_i32).prop_map(Json::from),
        Just(json!(1.5)),
        prop::sample::select(vec![
            "",
            "a",
            "b",
            "abc",
            "1",
            "true",
            "1.2.0",
            "1.2",
            "2026-06-01T00:00:00Z",
            "2026-04-01T00:00:00Z",
            "10.1.2.3",
        ])
        .prop_map(Json::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whom_the_losses_do_not_name_an_import_serves_the_same(
        users in prop::collection::vec((any_value(), prop::option::of("[a-c]{0,3}|t|in|out|acme"), any::<[bool; 3]>()), 24),
    ) {
        for set in [unleash(), launchdarkly(), ufc(Ufc::eppo()), ufc(Ufc::datadog())] {
            let format = set.format;
            let (theirs, ours, import) = imported(set);
            for (value, key, [company, session, time]) in &users {
                let value = Value::from(value);
                let mut user = crate::context::Part::new("user").with("x", value.clone());
                if let Some(key) = key {
                    user = user.with_key(key.as_str());
                }
                if *session {
                    user = user.with("sessionId", "s-1");
                }
                if *time {
                    user = user.with("currentTime", value.clone());
                }
                let plan = Value::from(&json!({"name": "gold"}));
                let firm = crate::context::Part::new("company").with_key("acme").with("plan", plan);
                let context = match (format, company) {
                    ("launchdarkly", true) => Context::of_parts([user, firm]),
                    _ => Context::of_parts([user]),
                };
                for flag in theirs.flags() {
                    let shows = |loss: &&super::Loss| loss.flag.as_deref() == Some(flag.key()) && loss.kind.shows();
                    if !import.losses.iter().any(|loss| shows(&loss)) {
                        same(flag.key(), &theirs, &ours, &context)?;
                    }
                }
            }
        }
    }
}

#[test]
fn a_flag_that_asks_for_one_that_is_left_out_is_left_out() {
    let document = json!({"version": 1, "features": [
        {"name": "with space", "enabled": true}, {"name": "fine", "enabled": true},
        {"name": "child", "enabled": true, "dependencies": [{"feature": "with space"}]},
    ]});
    let (_, ours, import) = imported(Unleash::new().read(&document.to_string()).unwrap());
    assert_eq!(ours.len(), 1);
    assert!(import.losses.iter().all(|loss| loss.kind == LossKind::Absent) && import.losses.len() == 2);
}

#[test]
fn json_logic_and_javascript_are_imported_where_there_are_words() {
    let flagd = Flagd::default()
        .read(r#"{"flags": {"f": {"state": "ENABLED", "variants": {"a": 1}, "defaultVariant": "a"}}}"#);
    let growthbook = GrowthBook::new().read(r#"{"features": {"f": {"defaultValue": 1}}}"#);
    for set in [flagd.unwrap(), growthbook.unwrap()] {
        let (theirs, ours, import) = imported(set);
        assert!(import.losses.iter().all(|loss| !loss.kind.shows()), "{:?}", import.losses);
        same("f", &theirs, &ours, &Context::new("u")).unwrap();
    }
}

#[test]
fn a_targeting_becomes_rules() {
    let flag = |targeting: Json| json!({"state": "ENABLED", "variants": {"a": "A", "b": "B", "c": "C"}, "defaultVariant": "a", "targeting": targeting});
    let document = json!({"$evaluators": {"staff": {"ends_with": [{"var": "x"}, "c"]}}, "flags": {
        "chain": flag(json!({"if": [{"in": [{"var": "x"}, ["a", "b"]]}, "b", {"and": [{"$ref": "staff"}, {"!": {"==": [{"var": "o.y"}, "no"]}}]}, "c"]})),
        "split": flag(json!({"fractional": [["a", 1], ["b", 2], ["c", 1]]})),
        "within": flag(json!({"if": [{"in": ["b", {"var": "x"}]}, {"fractional": [["b", 50], ["c", 50]]}]})),
        "strict": flag(json!({"if": [{"===": [{"var": "x"}, 1]}, "b", {"!==": [{"var": "x"}, null]}, "c"]})),
        "order": flag(json!({"if": [{"<=": [1, {"var": "x"}, 2]}, "b"]})),
        "strange": flag(json!({"if": [{"missing": ["x"]}, "b"]})),
        "off": {"state": "DISABLED", "variants": {"a": "A"}, "defaultVariant": "a"},
    }});
    let (theirs, ours, import) = imported(Flagd::default().read(&document.to_string()).unwrap());
    let values = [
        json!(null),
        json!(1),
        json!(1.5),
        json!(true),
        json!(""),
        json!("a"),
        json!("b"),
        json!("abc"),
        json!("abb"),
    ];
    for flag in ["chain", "split", "within", "strict", "off"] {
        assert!(
            !import.losses.iter().any(|loss| loss.flag.as_deref() == Some(flag) && loss.kind.shows()),
            "{}",
            told(&import)
        );
        for value in &values {
            for key in [None, Some("u1"), Some("u2"), Some("u3"), Some("u4"), Some("")] {
                let mut context = Context::anonymous().with("x", Value::from(value));
                if let Some(key) = key {
                    context = context.with_key(key);
                }
                same(flag, &theirs, &ours, &context).unwrap();
            }
        }
    }
    let shown: Vec<_> =
        import.losses.iter().filter(|loss| loss.kind.shows()).map(ToString::to_string).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    the document: changed: our own comparisons look at the elements of an attribute that is a list
    flag `order`, rules/0: changed: flagd takes missing values and texts for numbers where it compares numbers
    flag `strange`, rules/0: changed: the format's own code decides (targeting: if); it is left out
    ");
}
