//! What can be written, and what is said of what can't.

use flowline_core::config;
use proptest::prelude::*;

use super::*;
use crate::{
    context::Context,
    engine::{Fixed, Ruleset},
    model::{Comparison, Texts, VersionDialect},
    value::{Name, Value},
};

const EXAMPLE: &str = r#"
[segments.beta]
members = ["user-1", "user-2"]

[flags.checkout]
description = "The new way to pay"
owner = "ada"
kind = "release"
created = "2026-11-01"
expected_end = "2027-02-01T00:00:00Z"
audience = [
    { attribute = "country", in = ["NO", "SE"] },
    { attribute = "app.version", version = ">= 2.1.0" },
    { attribute = "age", at_least = 18, below = 65 },
    { attribute = "email", ends_with = "@Awesome.com", ignore_case = true, not = true },
]
rules = [{ id = "testers", when = [{ segment = "beta" }] }]
state = { on = true, rollout = 10 }
scopes.preview = { rollout = 100 }

[flags.colour]
variants = { red = "f00", blue = "00f" }
serve = { red = 1, blue = 3 }
off = "red"
requires = ["checkout"]
metadata = { ticket = "AB-1", weight = 2.5 }
state = { on = true }
"#;

fn read(toml: &str) -> Result<Document, config::ConfigError> {
    config::Document::new("flags.toml", toml).read()
}

#[test]
fn a_document_reads_back_as_it_was_written() {
    let document = read(EXAMPLE).unwrap();
    let json = serde_json::to_string(&document).unwrap();
    assert_eq!(Document::from_json(&json).unwrap(), document);
    assert_eq!(document.flags.len(), 2);
}

#[test]
fn yaml_says_the_same_as_toml() {
    let yaml = r#"
segments:
  beta: { members: [user-1, user-2] }
flags:
  checkout:
    description: The new way to pay
    owner: ada
    kind: release
    created: 2026-11-01
    expected_end: "2027-02-01T00:00:00Z"
    audience:
      - &nordic { attribute: country, in: [NO, SE] }
      - { attribute: app.version, version: ">= 2.1.0" }
      - { attribute: age, at_least: 18, below: 65 }
      - { attribute: email, ends_with: "@Awesome.com", ignore_case: true, not: true }
    rules: [{ id: testers, when: [{ segment: beta }] }]
    state: { on: true, rollout: 10 }
    scopes: { preview: { rollout: 100 } }
  colour:
    variants: { red: "f00", blue: "00f" }
    serve: { red: 1, blue: 3 }
    off: red
    requires: [checkout]
    metadata: { ticket: AB-1, weight: 2.5 }
    state: { on: true }
"#;
    let file = config::Document::new("flags.yaml", yaml);
    assert_eq!(Document::checked(&file).unwrap(), read(EXAMPLE).unwrap());
    let told =
        |yaml: &str| Document::checked(&config::Document::new("flags.yaml", yaml)).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            told("flags:\n  f:\n    audience:\n      - { attribute: x, inn: 1 }\n"),
            told("flags:\n  f:\n    serve: blue\n"),
            told("flags:\n  f: {}\n  f: {}\n"),
            told("flags:\n  f:\n    state: { rollout: .nan }\n"),
        ]
        .join("\n"),
        @r"
    flags.yaml:4:25: unknown field `inn`, expected one of `attribute`, `in`, `starts_with`, `ends_with`, `contains`, `ignore_case`, `above`, `at_least`, `below`, `at_most`, `version`, `after`, `before`, `matches`, `network`, `present`, `segment`, `flag`, `variant`, `all`, `any`, `not`, `kind`, `coerce`, `versions`, `enabled`, `during`, `share` [config.unknown-key]
      4 |       - { attribute: x, inn: 1 }
        |                         ^
      help: did you mean `in`?
    flags.yaml:3:5: there is no variant `blue`; there are `off`, `on` [toggles.flag]
      3 |     serve: blue
        |     ^
    flags.yaml:3:3: duplicate key `f` [config.duplicate-key]
      3 |   f: {}
        |   ^
      help: keep one of them
    flags.yaml:3:23: NaN is not a percentage; use a number from 0 to 100 [config.value]
      3 |     state: { rollout: .nan }
        |                       ^
    "
    );
}

#[test]
fn reading_flag_by_flag_gives_the_same_flags() {
    let document = read(EXAMPLE).unwrap();
    let json = serde_json::to_string(&document).unwrap();
    let preview = flowline_core::id::ScopeId::new("preview").unwrap();
    let format = Flowline { line: vec![preview.clone()] };
    let (streamed, whole) =
        (format.ruleset(&json).unwrap(), Ruleset::compile(document.flag_set(&[&preview])));
    assert_eq!((streamed.len(), streamed.warnings()), (2, whole.warnings()));
    let fixed = Fixed::default();
    for (user, country, age) in [("user-1", "DE", 3), ("a", "NO", 18), ("b", "SE", 65), ("c", "DE", 20)] {
        let app = Value::object([("version", Value::from("2.1.0"))]);
        let context = Context::new(user)
            .with("country", country)
            .with("age", age)
            .with("app", app)
            .with("email", "a@b.com");
        for flag in ["checkout", "colour"] {
            let (one, other) =
                (streamed.evaluate(flag, &context, &fixed), whole.evaluate(flag, &context, &fixed));
            assert_eq!(
                (one.value, one.reason, one.point),
                (other.value, other.reason, other.point),
                "{user} {flag}"
            );
        }
        assert_eq!(streamed.is_on("checkout", &context, &fixed), matches!(user, "user-1" | "a"), "{user}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let told = |toml: &str| read(toml).unwrap_err().to_string();
    let flag = |line: &str| told(&format!("[flags.f]\n{line}\n"));
    insta::assert_snapshot!(
        [
            flag("ower = \"ada\""),
            flag("audience = [{ attribute = \"x\" }]"),
            flag("audience = [{ attribute = \"x\", version = \"> two\" }]"),
            flag("audience = [{ attribute = \"x\", inn = 1 }]"),
            flag("audience = [{ above = 1 }]"),
            flag("audience = [{ segment = \"a\", flag = \"b\" }]"),
            flag("state = { rollout = 101 }"),
            flag("created = \"yesterday\""),
            flag("kind = \"eternal\""),
            told("[flags.\"a b\"]\n"),
        ]
        .join("\n"),
        @r#"
    flags.toml:2:1: unknown field `ower`, expected one of `description`, `owner`, `kind`, `created`, `expected_end`, `variants`, `mixed`, `serve`, `off`, `requires`, `audience`, `rules`, `salt`, `metadata`, `state`, `scopes` [config.unknown-key]
      2 | ower = "ada"
        | ^
      help: did you mean `owner`?
    flags.toml:2:13: the clause on `x` compares it with nothing [config.syntax]
      2 | audience = [{ attribute = "x" }]
        |             ^
    flags.toml:2:42: `> two` is not a version comparison; write it as `>= 2.1.0` [config.value]
      2 | audience = [{ attribute = "x", version = "> two" }]
        |                                          ^
    flags.toml:2:32: unknown field `inn`, expected one of `attribute`, `in`, `starts_with`, `ends_with`, `contains`, `ignore_case`, `above`, `at_least`, `below`, `at_most`, `version`, `after`, `before`, `matches`, `network`, `present`, `segment`, `flag`, `variant`, `all`, `any`, `not`, `kind`, `coerce`, `versions`, `enabled`, `during`, `share` [config.unknown-key]
      2 | audience = [{ attribute = "x", inn = 1 }]
        |                                ^
      help: did you mean `in`?
    flags.toml:2:13: the clause compares without an `attribute` [config.syntax]
      2 | audience = [{ above = 1 }]
        |             ^
    flags.toml:2:13: the clause has more than one of `attribute`, `segment`, `flag`, `all` and `any`; use two clauses [config.syntax]
      2 | audience = [{ segment = "a", flag = "b" }]
        |             ^
    flags.toml:2:21: 101 is not a percentage; use a number from 0 to 100 [config.value]
      2 | state = { rollout = 101 }
        |                     ^
    flags.toml:2:11: invalid value: string "yesterday", expected a text such as "2026-11-25" or "2026-11-25T08:00:00Z" [config.value]
      2 | created = "yesterday"
        |           ^
    flags.toml:2:8: unknown variant `eternal`, expected one of `release`, `experiment`, `ops`, `permission` [config.unknown-value]
      2 | kind = "eternal"
        |        ^
    flags.toml:1:8: `a b` is not a flag's key; use 1 to 100 letters a-z, digits, `.`, `_` and `-`, the first a letter or digit [config.value]
      1 | [flags."a b"]
        |        ^
    "#
    );
}

#[test]
fn flags_in_a_circle_are_refused_with_the_way_round() {
    let document = r#"{"flags": {
        "a": {"requires": ["b"], "state": {"on": true}},
        "b": {"audience": [{"any": [{"flag": "a"}]}], "state": {"on": true}},
        "leads-in": {"requires": ["a"], "state": {"on": true}},
        "fine": {"state": {"on": true}}
    }}"#;
    let format = Flowline::default();
    let whole = Ruleset::compile(Document::from_json(document).unwrap().flag_set(&[]));
    for ruleset in [format.ruleset(document).unwrap(), whole] {
        let told: Vec<_> = ruleset.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "flag `a`, requires: flags depend on each other: a -> b -> a; each of them is an error until that is mended"
            ]
        );
        let (user, fixed) = (Context::new("u"), Fixed::default());
        assert!(ruleset.evaluate("a", &user, &fixed).error.is_some());
        assert!(ruleset.evaluate("b", &user, &fixed).error.is_some());
        assert!(!ruleset.is_on("leads-in", &user, &fixed) && ruleset.is_on("fine", &user, &fixed));
    }
}

#[test]
fn the_order_of_entries_moves_nobody() {
    let split = |serve: &str| {
        let json = format!(
            r#"{{"flags": {{"f": {{"variants": {{"b": 2, "a": 1, "c": 3}}, "serve": {serve}, "state": {{"on": true}}}}}}}}"#
        );
        Flowline::default().ruleset(&json).unwrap()
    };
    let (one, other) = (split(r#"{"a": 1, "b": 1, "c": 2}"#), split(r#"{"c": 2, "b": 1, "a": 1}"#));
    for user in 0..200 {
        let (user, fixed) = (Context::new(format!("user-{user}")), Fixed::default());
        assert_eq!(one.evaluate("f", &user, &fixed).value, other.evaluate("f", &user, &fixed).value);
    }
}

fn any_clause() -> impl Strategy<Value = Clause> {
    let text = "[a-z]{0,20}";
    let compare = prop_oneof![
        prop::collection::vec(text, 1..4)
            .prop_map(|it| Compare::In(it.into_iter().map(Name::from).collect())),
        prop::collection::vec(-9..9_i32, 1..3)
            .prop_map(|it| Compare::Equals(it.into_iter().map(Value::from).collect())),
        (text, any::<bool>()).prop_map(|(text, ignore_case)| Compare::Text {
            how: Texts::Contains,
            any_of: vec![text.into()],
            ignore_case
        }),
        (-9..9_i32).prop_map(|it| Compare::Number(Comparison::GreaterOrEqual, f64::from(it))),
        (0..9_u64, 0..9_u64).prop_map(|(a, b)| Compare::Version(
            Comparison::Less,
            semver::Version::new(a, b, 0),
            VersionDialect::Partial
        )),
        any::<bool>().prop_map(Compare::Present),
    ];
    let leaf = prop_oneof![
        ("[a-z]{1,9}(\\.[a-z]{1,3})?", compare).prop_map(|(attribute, is)| Clause::on(attribute, is)),
        text.prop_map(Clause::segment),
        text.prop_map(Clause::flag),
    ];
    (leaf, any::<bool>())
        .prop_map(|(clause, not)| if not { clause.negated() } else { clause })
        .prop_recursive(3, 8, 3, |inner| {
            (prop::collection::vec(inner, 1..3), any::<bool>())
                .prop_map(|(parts, all)| if all { Asks::All(parts) } else { Asks::Any(parts) }.into())
        })
}

proptest! {
    #[test]
    fn clauses_read_back_as_they_were_written(clause in any_clause()) {
        let json = serde_json::to_string(&clause).unwrap();
        prop_assert_eq!(serde_json::from_str::<Clause>(&json).unwrap(), clause, "{}", json);
    }

    #[test]
    fn no_document_makes_reading_panic(text in ".{0,200}") {
        drop(Document::from_json(&text));
        drop(Flowline::default().ruleset(&text));
    }
}

#[test]
fn the_kill_switch_wins_in_a_circle_too() {
    let document = r#"{"flags": {
        "a": {"requires": ["b"], "state": {"on": true, "killed": true}},
        "b": {"requires": ["a"], "state": {"on": true}}
    }}"#;
    let ruleset = Flowline::default().ruleset(document).unwrap();
    let (user, fixed) = (Context::new("u"), Fixed::default());
    let (a, b) = (ruleset.evaluate("a", &user, &fixed), ruleset.evaluate("b", &user, &fixed));
    assert_eq!(
        (a.on, a.as_bool(), a.error, a.reason),
        (false, Some(false), None, crate::model::Reason::Disabled)
    );
    assert!(b.error.is_some());
    assert!(!ruleset.is_on("a", &user, &fixed));
}

#[test]
fn a_bad_flag_harms_no_other_and_a_kill_in_it_counts() {
    let json = r#"{"segments": {"bad": {"wen": []}, "good": {"members": ["u"]}}, "flags": {
        "typo": {"ower": "ada", "state": {"on": true}},
        "killed": {"ower": "ada", "scopes": {"production": {"killed": true}}},
        "text": {"variants": {"a": "x"}, "serve": "a", "state": {"rollout": 101}},
        "twice": {"state": {"killed": true}}, "twice": {"state": {"on": true}},
        "a b": {},
        "asks-bad": {"audience": [{"segment": "bad"}], "state": {"on": true}},
        "asks-good": {"audience": [{"segment": "good"}], "state": {"on": true}},
        "sound": {"state": {"on": true}}}}"#;
    let format = Flowline { line: vec![flowline_core::id::ScopeId::new("production").unwrap()] };
    let toml = r#"
        [segments.bad]
        wen = []
        [segments.good]
        members = ["u"]
        [flags.typo]
        ower = "ada"
        state = { on = true }
        [flags.killed]
        ower = "ada"
        scopes.production = { killed = true }
        [flags.text]
        variants = { a = "x" }
        serve = "a"
        state = { rollout = 101 }
        [flags."a b"]
        [flags.asks-bad]
        audience = [{ segment = "bad" }]
        state = { on = true }
        [flags.asks-good]
        audience = [{ segment = "good" }]
        state = { on = true }
        [flags.sound]
        state = { on = true }
    "#;
    let file = Ruleset::compile(format.read_file(&config::Document::new("flags.toml", toml)).unwrap());
    let (user, fixed) = (Context::new("u"), Fixed::default());
    let read = Ruleset::compile(crate::format::Format::read(&format, json).unwrap());
    for ruleset in [format.ruleset(json).unwrap(), read, file] {
        let failed = |flag: &str| ruleset.evaluate(flag, &user, &fixed).error.is_some();
        for flag in ["typo", "text", "asks-bad", "a b"] {
            assert!(failed(flag) && ruleset.contains(flag) && !ruleset.is_on(flag, &user, &fixed), "{flag}");
        }
        for flag in ["sound", "asks-good"] {
            assert!(ruleset.is_on(flag, &user, &fixed), "{flag}");
        }
        for flag in ["killed", "twice"].into_iter().filter(|flag| ruleset.contains(flag)) {
            assert_eq!(ruleset.evaluate(flag, &user, &fixed).as_bool(), Some(false), "{flag}");
            assert!(!failed(flag), "{flag}");
        }
    }
    let told = |warnings: &[crate::model::Warning]| {
        let short = |warning: String| {
            warning.replace(", expected", "\u{0}").split('\u{0}').next().unwrap().to_owned()
        };
        warnings.iter().map(|warning| short(warning.to_string())).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(told(format.ruleset(json).unwrap().warnings()), @r"
    flowline:1:27: segments/bad: unknown field `wen`
    flowline:2:23: flag `typo`: unknown field `ower`
    flowline:3:25: flag `killed`: unknown field `ower`
    flowline:4:80: flag `text`: 101 is not a percentage; use a number from 0 to 100; the flag is an error until that is mended
    flowline:5:56: flag `twice`: duplicate entry `twice`; the flag is an error until that is mended
    flowline:6:16: flag `a b`: `a b` is not a flag's key; use 1 to 100 letters a-z, digits, `.`, `_` and `-`, the first a letter or digit; the flag is an error until that is mended
    ");
    let of_file = told(&format.read_file(&config::Document::new("flags.toml", toml)).unwrap().warnings);
    let lines: Vec<_> = of_file.lines().collect();
    assert!(lines.len() == 5 && lines.iter().all(|line| line.starts_with("flags.toml:")), "{of_file}");
    assert!(of_file.contains("flag `typo`: unknown field `ower`"), "{of_file}");
    assert!(format.ruleset(r#"{"flags": {"a": {"ower": 1}}"#).is_err(), "not well-formed");
    assert!(format.ruleset(r#"{"flags": null}"#).is_err() && format.ruleset(r#"{"flagz": {}}"#).is_err());
}

#[test]
fn circles_through_segments_are_told_with_the_way_round() {
    let json = r#"{
        "segments": {"a": {"when": [{"segment": "b"}]}, "b": {"when": [{"segment": "a"}]}, "c": {"when": [{"flag": "f"}]}},
        "flags": {"f": {"audience": [{"segment": "c"}], "state": {"on": true}}, "g": {"audience": [{"segment": "a"}], "state": {"on": true}}}}"#;
    let ruleset = Flowline::default().ruleset(json).unwrap();
    let told: Vec<_> = ruleset.warnings().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    flag `f`: flags depend on each other: f -> segment `c` -> f; each of them is an error until that is mended
    segments/a: segments depend on each other: segment `a` -> segment `b` -> segment `a`; whoever asks for one of them is an error until that is mended
    ");
    let user = Context::new("u");
    assert!(ruleset.evaluate("f", &user, &Fixed::default()).error.is_some());
    let file = config::Document::new("flags.json", json);
    let refused = Document::checked(&file).unwrap_err().to_string();
    for circle in ["f -> segment `c` -> f", "segment `a` -> segment `b` -> segment `a`"] {
        assert!(refused.contains(&format!("depend on each other: {circle}")), "{refused}");
    }
    assert!(refused.starts_with("flags.json:"), "{refused}");
}

/// A context without targeting key has no point in the split, so it gets no variant, whoever asks.
#[test]
fn whoever_has_no_key_is_off_however_it_is_asked() {
    let text = r#"
        [flags.colour]
        variants = { red = "f00", blue = "00f" }
        serve = { red = 1 }
        state = { on = true }

        [flags.page]
        requires = ["colour"]
        state = { on = true }
    "#;
    let ruleset = Ruleset::compile(read(text).unwrap().flag_set(&[]));
    let fixed = Fixed::default();
    for (context, on) in [(Context::anonymous(), false), (Context::new("user-1"), true)] {
        for flag in ["colour", "page"] {
            assert_eq!(ruleset.evaluate(flag, &context, &fixed).on, on, "{flag} {context:?}");
            assert_eq!(ruleset.is_on(flag, &context, &fixed), on, "{flag} {context:?}");
            assert_eq!(ruleset.explain(flag, &context, &fixed).0.on, on, "{flag} {context:?}");
        }
    }
}
