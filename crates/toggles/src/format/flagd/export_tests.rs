//! What is written for flagd means there what it means here, and what does not is named.

use flowline_core::id::ScopeId;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::{Flagd, Generation, export};
use crate::{
    context::Context,
    engine::{Fixed, Ruleset},
    format::{Format, LossKind, flowline::Document},
    value::Value,
};

fn exported(document: &Json) -> (Ruleset, Ruleset, super::Export) {
    let set = Document::from_json(&document.to_string()).unwrap().flag_set(&[]);
    let export = export(&set);
    let theirs = Flagd::new(Generation::V2).read(&export.text()).unwrap();
    (Ruleset::compile(set), Ruleset::compile(theirs), export)
}

#[test]
fn a_document_for_flagd_says_the_same() {
    let document = json!({
        "segments": {"beta": {"members": ["user-1"], "when": [{"attribute": "staff", "in": true}]}},
        "flags": {
            "checkout": {
                "owner": "ada", "kind": "ops", "created": "2026-11-01", "metadata": {"ticket": "AB-1"},
                "audience": [{"attribute": "country", "in": ["NO", "SE"]}],
                "rules": [{"when": [{"segment": "beta"}]}],
                "state": {"on": true, "rollout": 12.5},
            },
            "colour": {
                "variants": {"red": "f00", "blue": "00f"}, "serve": "blue", "off": "red", "requires": ["checkout"],
                "rules": [{"when": [{"attribute": "email", "ends_with": "@b.com", "ignore_case": true}], "serve": "red"}],
                "state": {"on": true},
            },
            "limit": {"variants": {"low": 1, "high": 9}, "serve": "high", "state": {"on": false}},
        },
    });
    let (_, _, export) = exported(&document);
    let flags = export.document["flags"].as_object().into_iter().flatten();
    let evaluators = export.document["$evaluators"].as_object().into_iter().flatten();
    let lines: Vec<_> = evaluators.chain(flags).map(|(key, json)| format!("{key}: {json}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    segment-beta: {"or":[{"in":[{"var":"targetingKey"},["user-1"]]},{"or":[{"in":[{"var":"staff"},[true]]},{"some":[{"var":"staff"},{"in":[{"var":""},[true]]}]}]}]}
    checkout: {"defaultVariant":"off","metadata":{"created":"2026-11-01T00:00:00Z","kind":"ops","owner":"ada","ticket":"AB-1"},"state":"ENABLED","targeting":{"if":[{"$ref":"segment-beta"},"on",{"and":[{"or":[{"in":[{"var":"country"},["NO","SE"]]},{"some":[{"var":"country"},{"in":[{"var":""},["NO","SE"]]}]}]},{"and":[{"!==":[{"var":"targetingKey"},null]},{"===":[{"fractional":[{"cat":["c9597d5de43833cc:",{"var":"targetingKey"}]},["in",12500],["out",87500]]},"in"]}]}]},"on"]},"variants":{"off":false,"on":true}}
    colour: {"defaultVariant":"red","state":"ENABLED","targeting":{"if":[{"in":[{"if":[{"$ref":"segment-beta"},"on",{"and":[{"or":[{"in":[{"var":"country"},["NO","SE"]]},{"some":[{"var":"country"},{"in":[{"var":""},["NO","SE"]]}]}]},{"and":[{"!==":[{"var":"targetingKey"},null]},{"===":[{"fractional":[{"cat":["c9597d5de43833cc:",{"var":"targetingKey"}]},["in",12500],["out",87500]]},"in"]}]}]},"on","off"]},["on"]]},"blue"]},"variants":{"blue":"00f","red":"f00"}}
    limit: {"defaultVariant":null,"state":"ENABLED","variants":{"high":9,"low":1}}
    "#);
    let losses: Vec<_> = export.losses.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(losses.join("\n"), @r"
    flag `checkout`, rules/1/when: re-bucketed: flagd places users with another hash: as many see it, but not the same ones
    flag `colour`, prerequisites/0/checkout/rules/1/when: re-bucketed: flagd places users with another hash: as many see it, but not the same ones
    flag `colour`, rules/0/when: changed: flagd can't ignore the case of letters; the rule never applies
    ");
}

#[test]
fn a_rollout_keeps_its_share() {
    let document = json!({"flags": {
        "f": {"state": {"on": true, "rollout": 30}},
        "v": {"variants": {"a": 1, "b": 2, "c": 3}, "serve": {"a": 1, "b": 2, "c": 1}, "state": {"on": true}},
    }});
    let (ours, theirs, export) = exported(&document);
    assert!(export.losses.iter().all(|loss| loss.kind == LossKind::Rebucketed));
    let fixed = Fixed::default();
    for (flag, variant) in [("f", "on"), ("v", "a"), ("v", "b"), ("v", "c")] {
        let share = |ruleset: &Ruleset| {
            let users = (0..4_000).map(|user| Context::new(format!("user-{user}")));
            let named = |context: &Context| {
                ruleset.evaluate(flag, context, &fixed).variant.is_some_and(|one| *one.name == *variant)
            };
            users.filter(named).count()
        };
        assert!(
            share(&ours).abs_diff(share(&theirs)) < 150,
            "{flag} {variant}: {} {}",
            share(&ours),
            share(&theirs)
        );
    }
    assert_eq!(theirs.evaluate("f", &Context::anonymous(), &fixed).as_bool(), Some(false));
}

#[test]
fn a_split_that_flagd_knows_stays_where_it_is() {
    use crate::model::*;
    let mut set = FlagSet::new("test");
    let variants: Vec<Variant> = ["a", "b", "c"].map(|name| Variant::new(name, name)).into();
    let bucketing = Bucketing {
        input: vec![Input::Literal("salt-".into()), Input::of(Subject::Key)],
        hash: Hash::Murmur3 { seed: 0 },
        scale: Scale::Multiply { of: 10 },
        missing: MissingInput::NoPoint,
    };
    let slices = Split::cumulative([(0, 3.0), (2, 5.0)], 1.0, false, false);
    let split = Split { bucketing, slices, past_end: PastEnd::GoOn, on: None };
    let mut flag = Flag::new("f", ValueType::String, variants);
    flag.rules.push(Rule::new(Condition::ALWAYS, Outcome::Split(Box::new(split))));
    flag.fallback = Outcome::Variant(1);
    set.flags.push(flag);
    let export = export(&set);
    assert!(export.losses.is_empty(), "{:?}", export.losses);
    let theirs = Ruleset::compile(Flagd::default().read(&export.text()).unwrap());
    let ours = Ruleset::compile(set);
    for user in 0..500 {
        let (context, fixed) = (Context::new(format!("user-{user}")), Fixed::default());
        assert_eq!(ours.evaluate("f", &context, &fixed).value, theirs.evaluate("f", &context, &fixed).value);
    }
}

#[test]
fn flags_in_a_circle_and_faulty_flags_are_left_out() {
    let document = json!({"flags": {
        "a": {"requires": ["b"], "state": {"on": true}}, "b": {"requires": ["a"], "state": {"on": true}},
        "bad": {"serve": "blue"}, "fine": {"state": {"on": true}},
    }});
    let (_, theirs, export) = exported(&document);
    let absent: Vec<_> = export
        .losses
        .iter()
        .filter(|loss| loss.kind == LossKind::Absent)
        .filter_map(|loss| loss.flag.as_deref())
        .collect();
    assert_eq!(absent, ["a", "b", "bad"]);
    assert!(theirs.is_on("fine", &Context::new("u"), &Fixed::default()) && theirs.len() == 1);
}

fn any_comparison() -> impl Strategy<Value = Json> {
    let texts = || prop::collection::vec(prop::sample::select(vec!["NO", "1", "", "a", "abc"]), 0..3);
    prop_oneof![
        texts().prop_map(|texts| json!({"in": texts})),
        prop::collection::vec(-2..3_i32, 1..3).prop_map(|numbers| json!({"in": numbers})),
        any::<bool>().prop_map(|yes| json!({"in": [yes, "a", 1.5]})),
        texts().prop_map(|texts| json!({"starts_with": texts})),
        texts().prop_map(|texts| json!({"contains": texts})),
        Just(json!({"ends_with": "c", "ignore_case": true})),
        (-2..3_i32).prop_map(|number| json!({"at_least": number, "below": 2})),
        (-2..3_i32).prop_map(|number| json!({"above": number})),
        any::<bool>().prop_map(|yes| json!({"present": yes})),
        Just(json!({"version": ">= 1.2.0"})),
        Just(json!({"matches": "^a"})),
        Just(json!({"after": "2026-01-01"})),
    ]
}

/// A clause that asks only for flags before `flag`.
fn any_clause(flag: usize) -> impl Strategy<Value = Json> {
    let attribute = prop::sample::select(vec!["x", "y", "o.x", "targetingKey"]);
    let compare = (attribute, any_comparison(), any::<bool>()).prop_map(|(attribute, mut clause, not)| {
        clause["attribute"] = attribute.into();
        if not {
            clause["not"] = true.into();
        }
        clause
    });
    let asks = (0..3_usize, any::<bool>(), any::<bool>()).prop_map(move |(index, not, variant)| {
        let mut clause =
            if index < flag { json!({"flag": format!("f{index}")}) } else { json!({"segment": "s0"}) };
        if variant && index < flag {
            clause["variant"] = json!(["on", "a"]);
        }
        clause["not"] = not.into();
        clause
    });
    let leaf = prop_oneof![4 => compare, 1 => asks];
    leaf.prop_recursive(2, 6, 3, |inner| {
        (prop::sample::select(vec!["all", "any"]), prop::collection::vec(inner, 0..3), any::<bool>())
            .prop_map(|(group, parts, not)| json!({group: parts, "not": not}))
    })
}

fn any_flag(index: usize) -> impl Strategy<Value = Json> {
    let rollout = prop::sample::select(vec![100, 100, 100, 0, 37]);
    let clauses = || prop::collection::vec(any_clause(index), 0..3);
    let rule = (clauses(), any::<bool>(), rollout.clone()).prop_map(|(when, other, rollout)| {
        let mut rule = json!({"when": when});
        if other {
            rule["serve"] = "a".into();
        }
        if rollout < 100 {
            rule["rollout"] = rollout.into();
        }
        rule
    });
    (prop::bool::weighted(0.8), rollout, clauses(), prop::collection::vec(rule, 0..3), any::<[bool; 4]>())
        .prop_map(move |(on, rollout, audience, mut rules, [boolean, off, requires, split])| {
            let mut flag = json!({"audience": audience, "state": {"on": on, "rollout": rollout}});
            if boolean {
                for rule in &mut rules {
                    if let Some(rule) = rule.as_object_mut() {
                        rule.remove("serve");
                    }
                }
            } else {
                flag["variants"] = json!({"a": 1, "b": 2, "c": 0});
                flag["serve"] = if split { json!({"a": 1, "b": 1}) } else { json!("b") };
                if off {
                    flag["off"] = "c".into();
                }
            }
            if requires && index > 0 {
                flag["requires"] = json!([format!("f{}", index - 1)]);
            }
            flag["rules"] = rules.into();
            flag
        })
}

fn any_value() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-2..3_i32).prop_map(Json::from),
        Just(json!(1.5)),
        prop::sample::select(vec!["", "NO", "1", "a", "abc", "1.2.0", "v1.3", "2026-06-01T00:00:00Z"])
            .prop_map(Json::from),
    ];
    prop_oneof![3 => leaf.clone(), 1 => prop::collection::vec(leaf.clone(), 0..3).prop_map(Json::from), 1 => leaf.prop_map(|one| json!({"x": one}))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whom_the_losses_do_not_name_flagd_serves_the_same(
        flags in (any_flag(0), any_flag(1), any_flag(2)),
        segment in prop::collection::vec(any_clause(0), 0..2),
        contexts in prop::collection::vec((any_value(), any_value(), any_value(), prop::option::of("[a-c]{0,2}")), 8),
    ) {
        let segment: Vec<Json> = segment.into_iter().filter(|clause| !clause.to_string().contains("s0")).collect();
        let document = json!({
            "segments": {"s0": {"members": ["a", "ab"], "when": segment}},
            "flags": {"f0": flags.0, "f1": flags.1, "f2": flags.2},
        });
        let (ours, theirs, export) = exported(&document);
        let fixed = Fixed::default();
        for (x, y, inner, key) in contexts {
            let mut context = Context::anonymous()
                .with("x", Value::from(&x)).with("y", Value::from(&y)).with("o", Value::from(&json!({"x": inner})));
            if let Some(key) = &key {
                context = context.with_key(key.as_str());
            }
            for flag in ["f0", "f1", "f2"] {
                if export.losses.iter().any(|loss| loss.flag.as_deref() == Some(flag) && loss.kind.shows()) {
                    continue;
                }
                let (one, other) = (ours.evaluate(flag, &context, &fixed), theirs.evaluate(flag, &context, &fixed));
                prop_assert_eq!(
                    (one.variant.map(|variant| &*variant.name), one.value, one.error.is_some()),
                    (other.variant.map(|variant| &*variant.name), other.value, other.error.is_some()),
                    "{} for {} {} {:?} in {:#}\n{:#}", flag, x, y, key, document, export.document
                );
            }
        }
    }
}

#[test]
fn scopes_are_exported_apart() {
    let json = r#"{"flags": {"f": {"state": {"on": false}, "scopes": {"preview": {"on": true}}}}}"#;
    let document = Document::from_json(json).unwrap();
    let preview = ScopeId::new("preview").unwrap();
    let default =
        |line: &[&ScopeId]| export(&document.flag_set(line)).document["flags"]["f"]["defaultVariant"].clone();
    assert_eq!((default(&[]), default(&[&preview])), (json!("off"), json!("on")));
}
