//! The table of requirements and tests: made from the names of the tests, checked against the specification's list.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

const SOURCES: [(&str, &str); 6] = [
    ("evaluation", include_str!("evaluation.rs")),
    ("context", include_str!("context.rs")),
    ("hooks", include_str!("hooks.rs")),
    ("life_cycle", include_str!("life_cycle.rs")),
    ("events", include_str!("events.rs")),
    ("tracking", include_str!("tracking.rs")),
];

const STATIC: &str = "static-context paradigm (browsers) only";

/// Requirements that do not apply, with the reason. The conformance folder's list says which are static-context ones.
const NOT_APPLICABLE: [(&str, &str); 17] = [
    ("1.3.2.1", STATIC),
    ("1.4.2.1", STATIC),
    ("1.7.2.1", STATIC),
    ("2.6.1", STATIC),
    ("2.8.4", STATIC),
    ("3.2.2.1", STATIC),
    ("3.2.2.2", STATIC),
    ("3.2.2.3", STATIC),
    ("3.2.2.4", STATIC),
    ("3.2.4.1", STATIC),
    ("3.2.4.2", STATIC),
    ("3.3.2.1", STATIC),
    ("4.3.3.1", STATIC),
    ("5.3.4.1", STATIC),
    ("5.3.4.2", STATIC),
    ("5.3.4.3", STATIC),
    ("6.1.2.1", STATIC),
];

/// The numbers in a test's name: `req_1_4_10_and_2_1_1_whatever` proves 1.4.10 and 2.1.1.
fn numbers(name: &str) -> Vec<Vec<u32>> {
    let Some(rest) = name.strip_prefix("req_") else { return Vec::new() };
    let mut numbers = vec![Vec::new()];
    for word in rest.split('_') {
        match word.parse() {
            Ok(part) => numbers.last_mut().unwrap().push(part),
            Err(_) if word == "and" && numbers.last().is_some_and(|number| !number.is_empty()) => {
                numbers.push(Vec::new());
            }
            Err(_) => break,
        }
    }
    numbers.retain(|number| !number.is_empty());
    numbers
}

/// Tests by requirement.
fn proofs() -> BTreeMap<Vec<u32>, Vec<String>> {
    let mut proofs: BTreeMap<Vec<u32>, Vec<String>> = BTreeMap::new();
    for (module, source) in SOURCES {
        for line in source.lines() {
            let line = line.trim_start().trim_start_matches("async ");
            let Some(name) = line.strip_prefix("fn ").and_then(|rest| rest.split('(').next()) else {
                continue;
            };
            for number in numbers(name) {
                proofs.entry(number).or_default().push(format!("{module}::{name}"));
            }
        }
    }
    proofs
}

fn dotted(number: &[u32]) -> String {
    number.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

fn parsed(number: &str) -> Vec<u32> {
    number.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn document() -> String {
    let mut text = String::from(
        "# OpenFeature, requirement by requirement\n\n\
         `flowline_toggles::client` follows the OpenFeature specification 0.9 (commit 6fd4d54a) in the dynamic-context paradigm. Each requirement\n\
         that applies is proven by the test beside it, in `crates/toggles/src/client/tests/`. The table is generated: after a change, run\n\
         `UPDATE_DOCS=1 cargo test -p flowline-toggles --lib table`.\n\n\
         | requirement | test |\n| --- | --- |\n",
    );
    let mut rows: BTreeMap<Vec<u32>, String> = NOT_APPLICABLE
        .iter()
        .map(|(number, reason)| (parsed(number), format!("not applicable: {reason}")))
        .collect();
    for (number, tests) in proofs() {
        let tests: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
        rows.insert(number, tests.join(", "));
    }
    for (number, row) in rows {
        writeln!(text, "| {} | {row} |", dotted(&number)).unwrap();
    }
    text
}

#[test]
fn the_table_in_the_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openfeature.md");
    let expected = document();
    #[expect(clippy::disallowed_methods, reason = "a developer's wish to rewrite the file")]
    let update = std::env::var_os("UPDATE_DOCS").is_some();
    if update {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "run `UPDATE_DOCS=1 cargo test -p flowline-toggles --lib table` to bring docs/openfeature.md up to date"
    );
}

#[test]
fn every_requirement_is_proven_or_does_not_apply() {
    let proofs = proofs();
    for (number, _) in NOT_APPLICABLE {
        assert!(!proofs.contains_key(&parsed(number)), "{number} is proven and said not to apply");
    }
    let list = crate::testkit::conformance::tests::directory().join("openfeature/requirements.json");
    let Ok(text) = fs::read_to_string(&list) else {
        println!("skipped: there is no {}", list.display());
        return;
    };
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let requirements = list["requirements"].as_array().unwrap();
    let mut unproven = Vec::new();
    for requirement in requirements {
        let id = requirement["id"].as_str().unwrap();
        if !proofs.contains_key(&parsed(id)) && !NOT_APPLICABLE.iter().any(|(number, _)| *number == id) {
            unproven.push(id);
        }
    }
    assert!(unproven.is_empty(), "neither proven nor said not to apply: {unproven:?}");
    let known = |number: &[u32]| requirements.iter().any(|requirement| requirement["id"] == dotted(number));
    let unknown: Vec<_> =
        proofs.keys().filter(|number| !known(number)).map(|number| dotted(number)).collect();
    assert!(unknown.is_empty(), "tests name requirements that do not exist: {unknown:?}");
}

#[test]
fn numbers_are_read_from_names() {
    assert_eq!(numbers("req_1_4_10_and_2_1_whatever_and_3"), [vec![1, 4, 10], vec![2, 1]]);
    assert_eq!(numbers("other"), Vec::<Vec<u32>>::new());
}
