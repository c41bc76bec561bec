//! What no case of the specification decides, and what must not break.

use std::net::Ipv4Addr;

use super::*;
use crate::engine::Fixed;

fn read(text: &str) -> Ruleset {
    Ruleset::compile(Unleash::new().read(text).unwrap())
}

/// A feature `f` with one default strategy and these constraints.
fn constrained(constraints: &str) -> Ruleset {
    read(&format!(
        r#"{{"features": [{{"name": "f", "enabled": true, "strategies": [{{"name": "default", "constraints": [{constraints}]}}]}}]}}"#
    ))
}

fn strategy(strategy: &str) -> Ruleset {
    read(&format!(r#"{{"features": [{{"name": "f", "enabled": true, "strategies": [{strategy}]}}]}}"#))
}

fn on(ruleset: &Ruleset, context: &Context) -> bool {
    ruleset.is_on("f", context, &Fixed::default())
}

#[test]
fn an_inverted_constraint_on_a_missing_field_holds() {
    for operator in ["IN", "STR_CONTAINS", "NUM_EQ", "SEMVER_EQ", "REGEX"] {
        let ruleset = constrained(&format!(
            r#"{{"contextName": "x", "operator": "{operator}", "values": ["1"], "value": "1.0.0", "inverted": true}}"#
        ));
        let expected = operator != "NUM_EQ"; // its operand is no number
        assert_eq!(on(&ruleset, &Context::new("u")), expected, "{operator}");
    }
}

#[test]
fn an_operand_that_makes_no_sense_is_never_met_inverted_or_not() {
    for (operator, value) in [
        ("SEMVER_EQ", "v1.0.0"),
        ("NUM_EQ", "many"),
        ("NUM_EQ", "NaN"),
        ("DATE_AFTER", "yesterday"),
        ("REGEX", "("),
        ("REGEX", "a(?=b)"),
        ("NEAR", "1"),
    ] {
        for (inverted, field) in [(true, "x"), (false, "x"), (true, "currentTime"), (false, "currentTime")] {
            let ruleset = constrained(&format!(
                r#"{{"contextName": "{field}", "operator": "{operator}", "value": "{value}", "inverted": {inverted}}}"#
            ));
            let context = Context::new("u").with("x", "1.0.0");
            assert!(!on(&ruleset, &context), "{operator} {value} {field} {inverted}");
            assert!(!ruleset.warnings().is_empty());
            assert!(ruleset.warnings().iter().all(|warning| warning.flag.as_deref() == Some("f")));
        }
    }
}

#[test]
fn versions_are_strict_on_both_sides_and_follow_the_order_of_semver() {
    for (operator, value, version, expected) in [
        ("SEMVER_GT", "1.2.3", "1.2.4", true),
        ("SEMVER_GT", "1.2.3", "1.2.3-rc.1", false),
        ("SEMVER_LT", "1.2.3", "1.2.3-rc.1", true),
        ("SEMVER_EQ", "1.2.3", "1.2.3+build", true),
        ("SEMVER_GTE", "1.2.3", "1.2.3", true),
        ("SEMVER_LTE", "1.2.3", "1.3.0", false),
        ("SEMVER_EQ", "1.2.3", "1.2", false),
        ("SEMVER_EQ", "1.2.3", "v1.2.3", false),
    ] {
        let ruleset =
            constrained(&format!(r#"{{"contextName": "x", "operator": "{operator}", "value": "{value}"}}"#));
        assert_eq!(on(&ruleset, &Context::new("u").with("x", version)), expected, "{operator} {version}");
    }
}

#[test]
fn networks_work_on_any_field_and_skip_what_is_none() {
    let ruleset = constrained(
        r#"{"contextName": "ip", "operator": "IN_CIDR", "values": ["nonsense", "011.0.0.0/8", "10.1.2.3/8", "2001:db8::/32"]}"#,
    );
    assert_eq!(ruleset.warnings().len(), 2);
    for (address, expected) in
        [("10.200.0.1", true), ("11.0.0.1", false), ("2001:db8::1", true), ("x", false), ("", false)]
    {
        assert_eq!(on(&ruleset, &Context::new("u").with("ip", address)), expected, "{address}");
    }
    let ruleset =
        strategy(r#"{"name": "remoteAddress", "parameters": {"IPs": "127.0.0.1, 192.168.0.0/16"}}"#);
    assert!(on(&ruleset, &Context::new("u").with("remoteAddress", Ipv4Addr::LOCALHOST.to_string())));
    assert!(on(&ruleset, &Context::new("u").with("remoteAddress", "192.168.7.7")));
    assert!(!on(&ruleset, &Context::new("u")));
}

#[test]
fn the_time_is_the_contexts_own_text_or_the_present() {
    let ruleset = constrained(
        r#"{"contextName": "currentTime", "operator": "DATE_AFTER", "value": "2022-01-29T13:00:00.000Z"}"#,
    );
    let later = rfc("2022-01-30T00:00:00Z");
    assert!(ruleset.is_on("f", &Context::new("u"), &Fixed { now: later, random: 0 }));
    assert!(!ruleset.is_on("f", &Context::new("u"), &Fixed::default()));
    assert!(on(&ruleset, &Context::new("u").at(later)));
    assert!(on(&ruleset, &Context::new("u").with("currentTime", "2022-01-30T00:00:00+01:00")));
    let no_time = Context::new("u").at(later).with("currentTime", "soon");
    assert!(!on(&ruleset, &no_time));
}

fn rfc(text: &str) -> flowline_core::Timestamp {
    crate::engine::rfc3339(text).unwrap()
}

#[test]
fn points_are_as_the_notes_say() {
    for (group, id, point) in
        [("gr1", "123", 73), ("groupX", "999", 25), ("AB12A", "122", 23), ("naïve", "ü", 28)]
    {
        for (percent, expected) in [(point - 1, false), (point, true)] {
            let ruleset = strategy(&format!(
                r#"{{"name": "flexibleRollout", "parameters": {{"rollout": "{percent}", "groupId": "{group}", "stickiness": ""}}}}"#
            ));
            assert_eq!(on(&ruleset, &Context::new(id)), expected, "{group}:{id} at {percent}");
        }
    }
}

#[test]
fn a_rollout_sticks_to_what_it_is_told_to() {
    let rollout = |stickiness: &str, percent: u32| {
        strategy(&format!(
            r#"{{"name": "flexibleRollout", "parameters": {{"rollout": "{percent}", "stickiness": "{stickiness}"}}}}"#
        ))
    };
    let nobody = Context::anonymous();
    let random = |random: u64| Fixed { random: random << 32, ..Fixed::default() };
    let half = rollout("default", 50);
    assert!(half.is_on("f", &nobody, &random(0)));
    assert!(!half.is_on("f", &nobody, &random(50)));
    assert_eq!(on(&half, &Context::new("s")), on(&half, &nobody.clone().with("sessionId", "s")));
    assert!(!on(&rollout("tenant", 100), &nobody), "a missing field has no place, not a random one");
    assert!(on(&rollout("tenant", 100), &nobody.clone().with("tenant", "t")));
    assert!(rollout("random", 50).is_on("f", &Context::new("u"), &random(49)));
    assert!(!rollout("random", 50).is_on("f", &Context::new("u"), &random(50)));
    for no_percentage in ["", "50.5", "-1", "many"] {
        let ruleset = strategy(&format!(
            r#"{{"name": "flexibleRollout", "parameters": {{"rollout": "{no_percentage}"}}}}"#
        ));
        assert!(!on(&ruleset, &nobody));
        assert_eq!(ruleset.warnings().len(), 1);
    }
}

#[test]
fn hosts_are_compared_without_case() {
    let text = r#"{"features": [{"name": "f", "enabled": true, "strategies":
        [{"name": "applicationHostname", "parameters": {"hostNames": "a, Web-1"}}]}]}"#;
    let ruleset = Ruleset::compile(Unleash::new().with_hostname("WEB-1").read(text).unwrap());
    assert!(on(&ruleset, &Context::anonymous()));
    assert!(!on(&read(text), &Context::anonymous()));
}

#[test]
fn an_unknown_strategy_is_never_satisfied_and_the_next_one_counts() {
    let ruleset = strategy(r#"{"name": "moon-phase"}, {"name": "default"}"#);
    assert!(on(&ruleset, &Context::anonymous()));
    insta::assert_snapshot!(ruleset.warnings().first().unwrap(), @"flag `f`, strategies/0: no strategy `moon-phase` is registered; it is never satisfied");
}

#[test]
fn overrides_win_whatever_the_weights() {
    let ruleset = read(
        r#"{"features": [{"name": "f", "enabled": true, "strategies": [], "variants": [
            {"name": "a", "weight": 0, "payload": {"type": "number", "value": "1.20"}},
            {"name": "b", "weight": 0, "overrides": [{"contextName": "userId", "values": ["u"]}, {"contextName": "x", "values": ["1"]}]}]}]}"#,
    );
    let fixed = Fixed::default();
    let say = |context: &Context| {
        serde_json::to_string(&ChosenVariant::of(&ruleset.evaluate("f", context, &fixed))).unwrap()
    };
    insta::assert_snapshot!(say(&Context::new("u")), @r#"{"name":"b","enabled":true,"feature_enabled":true}"#);
    insta::assert_snapshot!(say(&Context::new("v").with("x", 1)), @r#"{"name":"b","enabled":true,"feature_enabled":true}"#);
    insta::assert_snapshot!(say(&Context::new("v")), @r#"{"name":"disabled","enabled":false,"feature_enabled":true}"#);
}

#[test]
fn payloads_are_kept_as_they_are_and_read_by_their_type() {
    let ruleset = read(
        r#"{"features": [{"name": "f", "enabled": true, "strategies": [], "variants": [
            {"name": "a", "weight": 1, "payload": {"type": "number", "value": "1.20"}}]}]}"#,
    );
    let (context, fixed) = (Context::new("u"), Fixed::default());
    let evaluation = ruleset.evaluate("f", &context, &fixed);
    assert_eq!(evaluation.as_f64(), Some(1.2));
    assert!(evaluation.on);
    insta::assert_snapshot!(serde_json::to_string(&ChosenVariant::of(&evaluation)).unwrap(), @r#"{"name":"a","payload":{"type":"number","value":"1.20"},"enabled":true,"feature_enabled":true}"#);
}

#[test]
fn a_variant_without_anything_to_stick_to_is_random() {
    let ruleset = read(
        r#"{"features": [{"name": "f", "enabled": true, "strategies": [], "variants": [
            {"name": "a", "weight": 1, "stickiness": "tenant"}, {"name": "b", "weight": 1}]}]}"#,
    );
    let names: Vec<_> = (0..2_u64)
        .map(|random| {
            let fixed = Fixed { random: random << 32, ..Fixed::default() };
            let context = Context::new("u");
            ruleset.evaluate("f", &context, &fixed).variant.map(|variant| variant.name.to_string())
        })
        .collect();
    assert_eq!(names, [Some("a".to_owned()), Some("b".to_owned())]);
}

#[test]
fn reasons_follow_what_decided() {
    let ruleset = read(
        r#"{"features": [
        {"name": "none", "enabled": true, "strategies": []},
        {"name": "bare", "enabled": true, "strategies": [{"name": "default"}]},
        {"name": "off", "enabled": false},
        {"name": "id", "enabled": true, "strategies": [{"name": "userWithId", "parameters": {"userIds": "u"}}]},
        {"name": "all", "enabled": true, "strategies": [{"name": "flexibleRollout", "parameters": {"rollout": "100"}}]},
        {"name": "miss", "enabled": true, "strategies": [{"name": "flexibleRollout", "parameters": {"rollout": "0"}}]},
        {"name": "most", "enabled": true, "strategies": [{"name": "flexibleRollout", "parameters": {"rollout": "99"}}]}]}"#,
    );
    let (context, fixed) = (Context::new("u"), Fixed::default());
    let reason = |flag: &str| {
        let evaluation = ruleset.evaluate(flag, &context, &fixed);
        format!("{flag} {} {}", evaluation.on, evaluation.reason)
    };
    let all: Vec<_> = ["none", "bare", "off", "id", "all", "miss", "most", "unheard-of"].map(reason).into();
    insta::assert_snapshot!(all.join("\n"), @r"
    none true STATIC
    bare true STATIC
    off false DISABLED
    id true TARGETING_MATCH
    all true SPLIT
    miss false DEFAULT
    most true SPLIT
    unheard-of false ERROR
    ");
}

#[test]
fn a_feature_that_can_not_be_read_harms_no_other() {
    let deep = "[".repeat(500) + &"]".repeat(500);
    let text = format!(
        r#"{{"version": 1, "features": [
  {{"name": "good", "enabled": true}},
  {{"name": "bad", "enabled": true, "strategies": [{{"name": "default", "constraints": 7}}]}},
  {{"name": "deep", "enabled": true, "variants": {deep}}},
  {{"enabled": true}},
  {{"name": "twice", "enabled": true}}, {{"name": "twice", "enabled": false}},
  {{"name": "unknown-segment", "enabled": true, "strategies": [{{"name": "default", "segments": [7]}}]}}
], "segments": [{{"id": 7, "constraints": "none"}}]}}"#
    );
    let ruleset = read(&text);
    let all: Vec<_> = ["good", "bad", "deep", "twice", "unknown-segment"]
        .iter()
        .map(|flag| format!("{flag} {}", ruleset.is_on(flag, &Context::new("u"), &Fixed::default())))
        .chain(ruleset.warnings().iter().map(ToString::to_string))
        .collect();
    insta::assert_snapshot!(all.join("\n"), @r#"
    good true
    bad false
    deep false
    twice false
    unknown-segment false
    unleash:3:86: flag `bad`, features/1: invalid type: integer `7`, expected a sequence; the feature is off
    unleash:4:51: flag `deep`, features/2: invalid type: sequence, expected a text; the feature is off
    unleash:5:19: features/3: missing field `name`; the feature is skipped
    flag `twice`: it stands more than once; the last one counts
    unleash:8:47: segments/0: invalid type: string "none", expected a sequence; the segment is skipped, as if it were unknown
    "#);
}

#[test]
fn events_are_applied_to_what_is_there() {
    let unleash = Unleash::new();
    let feature = |name: &str, extra: &str| format!(r#"{{"name": "{name}", "enabled": true{extra}}}"#);
    let first = unleash
        .update(
            &Ruleset::default(),
            &format!(
                r#"{{"events": [{{"type": "hydration", "features": [{}, {}], "segments": [{{"id": 1, "constraints": []}}]}}]}}"#,
                feature("a", r#", "strategies": [{"name": "default", "segments": [1]}]"#),
                feature("b", "")
            ),
        )
        .unwrap();
    let is_on = |ruleset: &Ruleset, flag: &str| ruleset.is_on(flag, &Context::new("u"), &Fixed::default());
    assert!(is_on(&first, "a") && is_on(&first, "b"));
    let second = unleash
        .update(
            &first,
            &format!(
                r#"{{"events": [{{"type": "feature-removed", "featureName": "b"}}, {{"type": "segment-removed", "segmentId": 1}},
                    {{"type": "feature-removed", "featureName": "c"}}, {{"type": "feature-updated", "feature": {}}}, {{"type": "party"}}, 5]}}"#,
                feature("c", "")
            ),
        )
        .unwrap();
    assert!(!is_on(&second, "a") && !is_on(&second, "b") && is_on(&second, "c"));
    assert_eq!(second.warnings().len(), 2);
    assert!(is_on(&first, "a"), "a ruleset does not change");
    let third = unleash.update(&second, r#"{"features": []}"#).unwrap();
    assert!(third.is_empty());
    assert!(unleash.update(&third, "{}").is_err());
    assert!(unleash.update(&third, "[").is_err());
}

#[test]
fn a_contexts_field_counts_before_a_property_of_its_name() {
    let read = |text| context(&serde_json::from_str(text).unwrap());
    let both = read(
        r#"{"userId": "u", "appName": "a", "other": "o", "odd": {},
            "properties": {"appName": "b", "userId": "v", "x": "1", "y": null, "other": "p"}}"#,
    );
    let attribute =
        |context: &Context, name| context.attribute(name).and_then(Value::as_str).map(str::to_owned);
    assert_eq!(both.key(), Some("u"));
    assert_eq!(attribute(&both, "appName").as_deref(), Some("a"));
    assert_eq!(attribute(&both, "x").as_deref(), Some("1"));
    assert_eq!(attribute(&both, "other").as_deref(), Some("o"));
    assert!(["y", "odd", "properties"].into_iter().all(|name| both.attribute(name).is_none()));
    let properties = read(r#"{"properties": {"appName": "b", "userId": "v"}}"#);
    assert_eq!(properties.key(), Some("v"));
    assert_eq!(attribute(&properties, "appName").as_deref(), Some("b"));
}
