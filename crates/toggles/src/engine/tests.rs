//! What the evaluator promises, whatever the format.

use proptest::prelude::*;

use super::*;
use crate::{
    context::{Context, Part as ContextPart},
    model::*,
    value::{Name, Value},
};

fn ruleset(flags: impl IntoIterator<Item = Flag>) -> Ruleset {
    Ruleset::compile(FlagSet { flags: flags.into_iter().collect(), ..FlagSet::new("test") })
}

fn rule(when: impl Into<Condition>) -> Rule {
    Rule::new(when.into(), Outcome::Variant(1))
}

fn on(key: &str, rules: impl IntoIterator<Item = Rule>) -> Flag {
    Flag { rules: rules.into_iter().collect(), ..Flag::boolean(key) }
}

fn percent(salt: &str, up_to: f64) -> Share {
    Share {
        bucketing: Bucketing {
            input: vec![Input::Literal(salt.into()), Input::of(Subject::Key)],
            hash: Hash::Murmur3 { seed: 0 },
            scale: Scale::Modulo { of: 100, plus: 1 },
            missing: MissingInput::NoPoint,
        },
        ranges: vec![Range::up_to_and_with(up_to)],
    }
}

fn is_on(test: Test, context: &Context) -> bool {
    ruleset([on("flag", [rule(test)])]).is_on("flag", context, &Fixed::default())
}

#[test]
fn the_first_rule_that_decides_decides() {
    let flag = on(
        "flag",
        [
            Rule::new(Condition::NEVER, Outcome::Variant(0)),
            Rule::new(Condition::ALWAYS, Outcome::GoOn),
            Rule { id: Some("third".into()), ..rule(Condition::ALWAYS) },
            Rule::new(Condition::ALWAYS, Outcome::Variant(0)),
        ],
    );
    let set = ruleset([flag]);
    let (context, fixed) = (Context::anonymous(), Fixed::default());
    let evaluation = set.evaluate("flag", &context, &fixed);
    assert!(evaluation.on);
    assert_eq!(evaluation.stage, Stage::Rule { index: 2, inner: None });
    assert_eq!((evaluation.rule_id(), evaluation.reason), (Some("third"), Reason::TargetingMatch));
}

#[test]
fn a_switched_off_or_killed_flag_asks_no_rule() {
    for (switch, stage) in [(Switch::Off, Stage::Off), (Switch::Killed, Stage::Killed)] {
        let set = ruleset([Flag { switch, ..on("flag", [rule(Condition::ALWAYS)]) }]);
        let context = Context::anonymous();
        let fixed = Fixed::default();
        let evaluation = set.evaluate("flag", &context, &fixed);
        assert_eq!((evaluation.on, evaluation.stage, evaluation.reason), (false, stage, Reason::Disabled));
    }
}

#[test]
fn missing_and_mistyped_values_come_to_what_the_test_says() {
    use Truth::{False, True};
    let test = |missing, mismatch, negate| Test {
        negate,
        missing,
        mismatch,
        ..Test::new(Subject::attribute("age"), Operator::number(Comparison::Greater, 20))
    };
    let (none, text, young) =
        (Context::anonymous(), Context::anonymous().with("age", "x"), Context::anonymous().with("age", 3));
    assert!(is_on(test(True, False, false), &none) && !is_on(test(False, True, true), &none));
    assert!(is_on(test(False, True, false), &text) && !is_on(test(True, False, true), &text));
    assert!(is_on(test(False, False, true), &young) && !is_on(test(True, True, false), &young));
}

#[test]
fn broken_stops_all_and_any_and_survives_not() {
    use Condition::{All, Any, Constant, Lenient, Not};
    let broken = || Constant(Truth::Broken);
    for (condition, fails) in [
        (All(vec![Condition::NEVER, broken()]), false),
        (All(vec![broken(), Condition::NEVER]), true),
        (Any(vec![Condition::ALWAYS, broken()]), false),
        (Any(vec![broken(), Condition::ALWAYS]), true),
        (Not(Box::new(broken())), true),
        (Not(Box::new(Lenient(Box::new(broken())))), false),
    ] {
        let said = format!("{condition:?}");
        let strict = Rule { on_broken: OnBroken::Fault(FaultCode::ParseError), ..rule(condition) };
        let set = ruleset([on("flag", [strict])]);
        let (context, fixed) = (Context::anonymous(), Fixed::default());
        assert_eq!(set.evaluate("flag", &context, &fixed).error.is_some(), fails, "{said}");
    }
}

#[test]
fn flags_that_depend_on_themselves_end() {
    let on_flag = |key: &str| on(key, [rule(Condition::ALWAYS)]);
    let depends = |key: &str, on: &str| Flag {
        prerequisites: vec![Prerequisite { check: FlagCheck::on(on), otherwise: None }],
        ..on_flag(key)
    };
    let mut flags = vec![depends("a", "b"), depends("b", "a"), depends("self", "self"), on_flag("fine")];
    flags.extend((0..200).map(|n| depends(&format!("chain-{n}"), &format!("chain-{}", n + 1))));
    flags.push(on_flag("chain-200"));
    let set = ruleset(flags);
    let (context, fixed) = (Context::anonymous(), Fixed::default());
    for flag in ["a", "b", "self", "chain-0"] {
        assert!(!set.is_on(flag, &context, &fixed), "{flag}");
    }
    assert!(set.evaluate("self", &context, &fixed).error.is_some());
    assert!(set.is_on("fine", &context, &fixed) && set.is_on("chain-150", &context, &fixed));
}

#[test]
fn segments_that_contain_themselves_end() {
    let within =
        |name: &str| Condition::Segment { name: Name::from(name), negate: false, unknown: Truth::False };
    let set = Ruleset::compile(FlagSet {
        flags: vec![on("flag", [rule(within("a"))]), on("other", [rule(within("c"))])],
        segments: vec![
            Segment { name: "a".into(), condition: within("b") },
            Segment { name: "b".into(), condition: within("a") },
            Segment { name: "c".into(), condition: Test::new(Subject::Key, Operator::one_of(["u"])).into() },
        ],
        ..FlagSet::new("test")
    });
    let context = Context::new("u");
    assert!(!set.is_on("flag", &context, &Fixed::default()));
    assert!(set.is_on("other", &context, &Fixed::default()));
    assert_eq!(set.segment(&Name::from("a"), &context, &Fixed::default()), Some(Truth::Broken));
}

#[test]
fn conditions_nested_without_end_are_broken_with_a_warning() {
    let mut condition = Condition::ALWAYS;
    for _ in 0..500 {
        condition = Condition::Not(Box::new(condition));
    }
    let set = ruleset([on("deep", [rule(condition)]), on("neighbour", [rule(Condition::ALWAYS)])]);
    assert!(!set.is_on("deep", &Context::anonymous(), &Fixed::default()));
    assert!(set.is_on("neighbour", &Context::anonymous(), &Fixed::default()));
    assert_eq!(set.warnings().len(), 1);
    assert_eq!(set.warnings()[0].flag.as_deref(), Some("deep"));
}

#[test]
fn operands_that_make_no_sense_are_warnings_and_harm_nobody_else() {
    let test = |operator| Test::new(Subject::attribute("a"), operator);
    let pattern = |text: &str| Operator::Pattern { pattern: text.into(), ignore_case: false, scalars: false };
    let set = ruleset([
        on("pattern", [rule(test(pattern("(?=a)")))]),
        on("explodes", [rule(test(pattern("((a{1000}){1000}){1000}")))]),
        on("version", [rule(test(Operator::version(Comparison::Equal, "v1")))]),
        on("network", [rule(test(Operator::Network { any_of: vec!["10.0.0.0/8".into(), "ten".into()] }))]),
        Flag { fallback: Outcome::Variant(7), ..Flag::boolean("index") },
        on("fine", [rule(Condition::ALWAYS)]),
    ]);
    let told: Vec<_> = set.warnings().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
        flag `pattern`: pattern `(?=a)` does not compile (look-around, including look-ahead and look-behind, is not supported); the condition counts as invalid
        flag `explodes`: pattern `((a{1000}){1000}){1000}` does not compile (Compiled regex exceeds size limit of 1048576 bytes.); the condition counts as invalid
        flag `version`: `v1` is not a version; the condition counts as invalid
        flag `network`: `ten` is neither an address nor a block of addresses; it is skipped
        flag `index`: variant 7 is not there; the flag has 2; where it is served, the flag is an error
        ");
    let context = Context::anonymous().with("a", "10.1.2.3");
    assert!(
        set.is_on("network", &context, &Fixed::default()) && set.is_on("fine", &context, &Fixed::default())
    );
    let fixed = Fixed::default();
    assert_eq!(
        set.evaluate("index", &context, &fixed).error.map(|error| error.code),
        Some(FaultCode::ParseError)
    );
}

#[test]
fn operators_compare_as_their_docs_say() {
    let attribute = |value: Value| Context::anonymous().with("a", value);
    let text = |how, any_of: &[&str], ignore_case, scalars| Operator::Text {
        any_of: any_of.iter().map(|text| (*text).into()).collect(),
        how,
        ignore_case,
        scalars,
    };
    let check = |operator: Operator, value: Value, expected: bool| {
        let said = format!("{operator:?} on {value}");
        assert_eq!(
            is_on(Test::new(Subject::attribute("a"), operator), &attribute(value)),
            expected,
            "{said}"
        );
    };
    check(text(Texts::StartsWith, &["ab"], false, false), "abc".into(), true);
    check(text(Texts::StartsWith, &["AB"], true, false), "aBc".into(), true);
    check(text(Texts::StartsWith, &["Ä"], true, false), "äbc".into(), true);
    check(text(Texts::EndsWith, &["BC"], true, false), "abc".into(), true);
    check(text(Texts::EndsWith, &["abcd"], true, false), "abc".into(), false);
    check(text(Texts::Contains, &["x", "B"], true, false), "abc".into(), true);
    check(text(Texts::Contains, &[], false, false), "abc".into(), false);
    check(text(Texts::Is, &["1"], false, true), Value::from(1.0), true);
    check(text(Texts::Is, &["true"], false, true), Value::from(true), true);
    check(text(Texts::Is, &["1"], false, false), Value::from(1), false);
    check(Operator::Equals { any_of: vec![Value::from(vec![1, 2])] }, Value::from(vec![1.0, 2.0]), true);
    check(Operator::Number { comparison: Comparison::Equal, with: 5.0, parse: true }, "5.0".into(), true);
    check(Operator::Number { comparison: Comparison::Equal, with: 5.0, parse: true }, " 5".into(), false);
    check(Operator::number(Comparison::NotEqual, 5), f64::NAN.into(), false);
    check(Operator::version(Comparison::GreaterOrEqual, "2.1.0"), "2.10.0-rc.1".into(), true);
    check(Operator::version(Comparison::Less, "2.1.0"), "2.1.0-rc.1+x".into(), true);
    let noon = "2026-06-01T12:00:00Z".parse().unwrap();
    let after = |milliseconds| Operator::Time { comparison: Comparison::Greater, with: noon, milliseconds };
    check(after(false), "2026-06-01T14:00:00.1+02:00".into(), true);
    check(after(false), "2026-06-01T14:00:00+02:00".into(), false);
    check(after(true), Value::from(noon.as_millisecond() + 1), true);
    check(after(false), Value::from(noon.as_millisecond() + 1), false);
    check(Operator::Network { any_of: vec!["2001:db8::/32".into()] }, "2001:db8::1".into(), true);
    check(
        Operator::Network { any_of: vec!["10.9.8.7/8".into(), "10.1.0.0/16".into()] },
        "10.200.0.1".into(),
        true,
    );
}

#[test]
fn any_element_of_a_list_may_satisfy_a_test() {
    let test = |negate| Test {
        lists: Lists::AnyElement,
        negate,
        ..Test::new(Subject::attribute("groups"), Operator::one_of(["beta", "staff"]))
    };
    let context = |groups: &[&str]| Context::anonymous().with("groups", groups.to_vec());
    assert!(is_on(test(false), &context(&["x", "staff"])) && !is_on(test(true), &context(&["x", "staff"])));
    assert!(!is_on(test(false), &context(&[])) && is_on(test(true), &context(&[])));
}

#[test]
fn paths_enter_objects_of_any_kind() {
    let subject =
        Subject::AttributeOf { kind: "org".into(), name: "address".into(), path: vec!["city".into()] };
    let city = serde_json::from_str::<Value>(r#"{"city": "Oslo"}"#).unwrap();
    let context =
        Context::of_parts([ContextPart::new("user"), ContextPart::new("org").with("address", city)]);
    assert!(is_on(Test::new(subject.clone(), Operator::one_of(["Oslo"])), &context));
    assert!(!is_on(Test::new(subject, Operator::Present), &Context::new("u")));
}

#[test]
fn a_missing_key_comes_to_what_the_bucketing_says() {
    let share = |missing| {
        Condition::Share(Share {
            bucketing: Bucketing { missing, ..percent("s", 50.0).bucketing },
            ranges: vec![Range::up_to_and_with(50.0)],
        })
    };
    let at = |missing, random| {
        let set = ruleset([on(
            "flag",
            [Rule { on_broken: OnBroken::Fault(FaultCode::TargetingKeyMissing), ..rule(share(missing)) }],
        )]);
        let (context, fixed) = (Context::anonymous(), Fixed { random, ..Fixed::default() });
        let evaluation = set.evaluate("flag", &context, &fixed);
        (evaluation.on, evaluation.error.map(|error| error.code))
    };
    assert_eq!(at(MissingInput::NoPoint, 0), (false, None));
    assert_eq!(at(MissingInput::Point(50.0), 0), (true, None));
    assert_eq!(at(MissingInput::Broken, 0), (false, Some(FaultCode::TargetingKeyMissing)));
    assert_eq!(at(MissingInput::Random, 10 << 32), (true, None));
    assert_eq!(at(MissingInput::Random, 90 << 32), (false, None));
}

#[test]
fn an_explanation_shows_what_was_looked_at() {
    let country = Test::new(Subject::attribute("country"), Operator::one_of(["SE", "DK"]));
    let flag = on(
        "checkout",
        [
            Rule { id: Some("nordic".into()), ..rule(country) },
            rule(Condition::All(vec![
                Test::new(Subject::attribute("age"), Operator::number(Comparison::Greater, 21)).into(),
                Condition::Share(percent("checkout:", 50.0)),
            ])),
        ],
    );
    let set = ruleset([flag]);
    let context = Context::new("user-2").with("country", "NO").with("age", 42);
    let fixed = Fixed::default();
    let (_, trace) = set.explain("checkout", &context, &fixed);
    insta::assert_snapshot!(trace, @r#"
        flag checkout: on
          rule 1 (nordic): no
            country is one of "SE", "DK", saw "NO": no
          rule 2: on
            age is > 21, saw 42: yes
            the murmur3 of "checkout:" + targeting key (1 to 100) lies up to and with 50, at point 11 in up to 50: yes
        "#);
}

prop_compose! {
    fn any_condition()(kind in 0..9_usize, attribute in 0..4_usize, number in -2..4_i32, up_to in 0.0..100.0_f64) -> Condition {
        let subject = || Subject::attribute(["a", "b", "a-name-longer-than-fifteen", "missing"][attribute]);
        match kind {
            0 => Condition::Constant([Truth::True, Truth::False, Truth::Broken][attribute % 3]),
            1 => Test::new(subject(), Operator::one_of([format!("t{number}"), "x".repeat(20)])).into(),
            2 => Test::new(subject(), Operator::number(Comparison::LessOrEqual, number)).negated().into(),
            3 => Condition::Share(percent("salt", up_to)),
            4 => Condition::Segment { name: ["s", "none"][attribute % 2].into(), negate: number > 0, unknown: Truth::Broken },
            5 => Condition::Flag(Box::new(FlagCheck::on(["other", "none", "flag"][attribute % 3]))),
            6 => Test { missing: Truth::True, ..Test::new(subject(), Operator::Present) }.into(),
            7 => Test::new(subject(), Operator::Equals { any_of: vec![number.into()] }).into(),
            _ => Condition::During(Period { from: Some(Timestamp::UNIX_EPOCH), ..Period::default() }),
        }
    }
}

fn tree() -> impl Strategy<Value = Condition> {
    any_condition().prop_recursive(3, 12, 3, |inner| {
        (0..3_usize, prop::collection::vec(inner, 0..3)).prop_map(|(kind, parts)| match kind {
            0 => Condition::All(parts),
            1 => Condition::Any(parts),
            _ => Condition::Not(Box::new(Condition::All(parts))),
        })
    })
}

proptest! {
    #[test]
    fn an_explanation_never_disagrees_with_the_evaluation(
        conditions in prop::collection::vec(tree(), 0..4),
        key in "[a-z]{0,20}",
        a in prop_oneof![Just(Value::Null), (-3..4_i32).prop_map(Value::from), (-3..4_i32).prop_map(|n| format!("t{n}").into())],
        strict in any::<bool>(),
    ) {
        let on_broken = if strict { OnBroken::Fault(FaultCode::ParseError) } else { OnBroken::NextRule };
        let flag = on("flag", conditions.into_iter().map(|condition| Rule { on_broken, ..rule(condition) }));
        let mut set = FlagSet { flags: vec![flag, on("other", [rule(Condition::Share(percent("o", 50.0)))])], ..FlagSet::new("test") };
        set.segments.push(Segment { name: "s".into(), condition: Condition::Share(percent("s", 30.0)) });
        let set = Ruleset::compile(set);
        let context = Context::new(key).with("a", a).with("a-name-longer-than-fifteen", "x".repeat(20));
        let fixed = Fixed::default();
        let plain = set.evaluate("flag", &context, &fixed);
        let (explained, trace) = set.explain("flag", &context, &fixed);
        prop_assert_eq!((plain.on, plain.index, plain.reason, plain.stage, plain.point, plain.error), (explained.on, explained.index, explained.reason, explained.stage, explained.point, explained.error));
        prop_assert_eq!(set.is_on("flag", &context, &fixed), plain.on);
        prop_assert_eq!(trace.steps.len(), 1);
    }

    #[test]
    fn nobody_who_was_in_is_thrown_out_by_raising_a_share(key in ".{1,20}", low in 0..=100_i32, more in 0..=100_i32) {
        let context = Context::new(key);
        let at = |percentage: i32| {
            let set = ruleset([on("flag", [rule(Condition::Share(percent("salt", f64::from(percentage))))])]);
            set.is_on("flag", &context, &Fixed::default())
        };
        prop_assert!(!at(low) || at((low + more).min(100)));
        prop_assert!(!at(0) && at(100));
    }
}

/// A flag that is on if the other flags are.
fn asks(key: &str, others: &[String]) -> Flag {
    let prerequisites = others
        .iter()
        .map(|other| Prerequisite { check: FlagCheck::on(other.as_str()), otherwise: None })
        .collect();
    Flag { prerequisites, ..on(key, [rule(Test::new(Subject::attribute("beta"), Operator::Present))]) }
}

#[test]
fn a_graph_of_flags_costs_its_size_and_not_its_paths() {
    const LAYERS: usize = 30;
    let name = |layer: usize, n: usize| format!("{layer}-{n}");
    // Each flag of a layer asks for all four of the one below: 4^30 paths.
    let flags = (0..LAYERS).flat_map(|layer| {
        (0..4).map(move |n| {
            let below: Vec<_> = (0..4).filter(|_| layer > 0).map(|n| name(layer - 1, n)).collect();
            asks(&name(layer, n), &below)
        })
    });
    let set = ruleset(flags);
    let fixed = Fixed::default();
    for (context, expected) in
        [(Context::anonymous().with("beta", true), true), (Context::anonymous(), false)]
    {
        assert_eq!(set.is_on("29-0", &context, &fixed), expected);
        assert_eq!(set.evaluate("29-0", &context, &fixed).on, expected);
        let (explained, trace) = set.explain("29-0", &context, &fixed);
        assert_eq!(explained.on, expected);
        assert!(trace.walk().count() < 4_000);
    }
}

#[test]
fn a_graph_of_circles_ends() {
    // Everybody asks for everybody: each way through ends where it meets itself.
    let names: Vec<String> = (0..12).map(|n| format!("f{n}")).collect();
    let any = Condition::Any(
        names
            .iter()
            .map(|name| {
                Condition::Flag(Box::new(FlagCheck { cyclic: Truth::False, ..FlagCheck::on(name.as_str()) }))
            })
            .collect(),
    );
    let set = ruleset(names.iter().map(|name| on(name, [rule(any.clone())])));
    assert!(!set.is_on("f0", &Context::anonymous(), &Fixed::default()));
}

#[test]
fn a_graph_of_segments_costs_its_size_and_not_its_paths() {
    let name = |layer: usize, n: usize| Name::new(format!("{layer}-{n}"));
    let within = |layer, n| Condition::Segment { name: name(layer, n), negate: false, unknown: Truth::False };
    let segments = (0..30)
        .flat_map(|layer| (0..3).map(move |n| (layer, n)))
        .map(|(layer, n)| Segment {
            name: name(layer, n),
            condition: match layer {
                0 => Condition::ALWAYS,
                _ => Condition::All((0..3).map(|n| within(layer - 1, n)).collect()),
            },
        })
        .collect();
    let flags = vec![on("flag", [rule(within(29, 0))])];
    let set = Ruleset::compile(FlagSet { flags, segments, ..FlagSet::new("test") });
    assert!(set.is_on("flag", &Context::anonymous(), &Fixed::default()));
}

fn refusing(flags: impl IntoIterator<Item = Flag>) -> Ruleset {
    let flags = flags.into_iter().collect();
    Ruleset::compile(FlagSet { flags, refuse_cycles: true, ..FlagSet::new("test") })
}

fn told(set: &Ruleset) -> Vec<&str> {
    set.warnings().iter().filter_map(|warning| warning.message.split(';').next()).collect()
}

#[test]
fn a_circle_that_a_change_closes_is_refused_until_it_is_opened() {
    let needs = |key: &str, others: &[&str]| {
        let others: Vec<String> = others.iter().map(ToString::to_string).collect();
        Flag { rules: vec![rule(Condition::ALWAYS)], ..asks(key, &others) }
    };
    let put = |flag: Flag| Changes { flags: vec![flag], ..Changes::default() };
    let (context, fixed) = (Context::anonymous(), Fixed::default());
    let errors = |set: &Ruleset| {
        ["a", "b", "c", "d", "e"].map(|key| set.evaluate(key, &context, &fixed).stage == Stage::Faulty)
    };
    let set = refusing([
        needs("a", &["b"]),
        needs("b", &["c"]),
        needs("c", &[]),
        needs("d", &["a"]),
        needs("e", &["d"]),
    ]);
    assert!(set.warnings().is_empty() && set.is_on("e", &context, &fixed));

    let closed = set.with(put(needs("c", &["a"])));
    assert_eq!(told(&closed), ["flags depend on each other: a -> b -> c -> a"]);
    assert_eq!(errors(&closed), [true, true, true, false, false]);

    // Another change leaves it as it is, and a second circle is told beside it.
    let other = closed.with(put(needs("e", &["e"])));
    assert_eq!(told(&other).len(), 2);
    assert_eq!(errors(&other), [true, true, true, false, true]);

    // Opened elsewhere than where it was closed.
    let opened = other.with(put(needs("b", &[])));
    assert_eq!(told(&opened), ["flags depend on each other: e -> e"]);
    assert_eq!(errors(&opened), [false, false, false, false, true]);
    assert!(opened.is_on("d", &context, &fixed) && opened.is_on("c", &context, &fixed));

    let removed = opened.with(Changes { removed_flags: vec!["e".to_owned()], ..Changes::default() });
    assert!(removed.warnings().is_empty() && !removed.contains("e"));
    // What a change says wins over what was there before the circle.
    let replaced = closed.with(Changes {
        flags: vec![needs("a", &[]), Flag { switch: Switch::Off, ..needs("c", &[]) }],
        ..Changes::default()
    });
    assert_eq!(errors(&replaced), [false; 5]);
    assert!(!replaced.is_on("c", &context, &fixed) && replaced.is_on("a", &context, &fixed));
}
