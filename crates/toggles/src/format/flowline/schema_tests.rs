//! The schema is the committed one, and says of documents what reading them says.
//!
//! `FLOWLINE_CI_TOOLS` names the folder with `check-jsonschema`; without it the program is looked for on `PATH`. If it is missing, documents are
//! not checked against the schema, and the test fails when `FLOWLINE_CI` is `1`.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use flowline_core::config;
use serde_json::{Value as Json, json};

use super::{Document, flags_schema};

const COMMITTED: &str = include_str!("../../../../../docs/schema/flags.schema.json");

#[test]
fn the_committed_schema_is_up_to_date() {
    assert!(
        COMMITTED == flags_schema(),
        "docs/schema/flags.schema.json is out of date: \
         cargo run -q -p flowline-toggles --features schema --example flags_schema > docs/schema/flags.schema.json"
    );
}

/// Documents that can be read, with one of everything.
fn good() -> Vec<Json> {
    let flag = |definition: Json| json!({"flags": {"f": definition}});
    let clause = |clause: Json| json!({"flags": {"f": {"audience": [clause]}}});
    let bucketing = json!({"input": [{"literal": "g:"}, {"of": {"first_of": ["key", {"attribute": {"name": "s"}}]}}],
        "hash": {"murmur3": {"seed": 0}}, "scale": {"modulo": {"of": 100, "plus": 1}}, "missing": "random"});
    let mut all = vec![
        json!({"$schema": "flags.schema.json", "segments": {"s": {"members": ["a"], "when": [{"segment": "t"}]}}, "flags": {}}),
        json!({}),
        flag(json!({})),
        flag(
            json!({"description": "d", "owner": "o", "kind": "ops", "created": "2026-11-01", "expected_end": "2027-01-01T00:00:00Z",
            "requires": ["g"], "salt": "s", "metadata": {"a": 1, "b": "c", "d": true}, "mixed": false}),
        ),
        flag(
            json!({"variants": {"a": 1, "b": [2], "c": {"d": null}}, "serve": {"a": 1, "b": 0}, "off": "c", "mixed": true}),
        ),
        flag(json!({"rules": [{"id": "r", "when": [], "serve": "on", "rollout": 12.5}, {"off": true}]})),
        flag(
            json!({"state": {"on": true, "rollout": 0, "serve": "on", "killed": true}, "scopes": {"preview": {"rollout": 100}}}),
        ),
        flag(
            json!({"serve": {"bucketing": bucketing, "slices": [{"variant": "a", "until": 50, "with_end": true}, {"variant": "b", "experiment": true}],
            "past_end": {"variant": "a"}}}),
        ),
    ];
    for (hash, scale, missing) in [
        (json!("fnv1a"), json!("unit"), json!("no_point")),
        (json!({"xxh3": {"seed": 5}}), json!({"fraction": {"of": 10}}), json!({"point": 0.5})),
        (json!("md5"), json!({"multiply": {"of": 7}}), json!("broken")),
    ] {
        let bucketing = json!({"input": [], "hash": hash, "scale": scale, "missing": missing});
        all.push(clause(
            json!({"share": {"bucketing": bucketing, "ranges": [{"from": 1, "until": 2.5}, {}]}}),
        ));
    }
    let clauses = [
        json!({"attribute": "country", "in": ["NO", "SE"]}),
        json!({"attribute": "x", "in": 1, "not": true, "kind": "company", "coerce": true}),
        json!({"attribute": "x", "starts_with": "a", "ends_with": ["b", "c"], "contains": "d", "ignore_case": true}),
        json!({"attribute": "x", "above": 1, "at_least": 2.5, "below": 3, "at_most": 4}),
        json!({"attribute": "x", "version": ">= 2.1.0", "versions": "partial"}),
        json!({"attribute": "x", "after": "2026-01-01", "before": "2026-01-01T08:00:00+01:00"}),
        json!({"attribute": "x", "matches": "^a", "network": "10.0.0.0/8", "present": true}),
        json!({"flag": "g", "variant": ["a"], "enabled": true}),
        json!({"during": {"from": "2026-01-01", "with_end": true}}),
        json!({"any": [{"all": []}, {"segment": "s", "not": true}]}),
    ];
    all.extend(clauses.map(clause));
    all
}

/// Documents that can't be read.
fn bad() -> Vec<Json> {
    let flag = |definition: Json| json!({"flags": {"f": definition}});
    let clause = |clause: Json| json!({"flags": {"f": {"audience": [clause]}}});
    let mut all = vec![
        json!("flags"),
        json!({"flag": {}}),
        json!({"flags": {"a b": {}}}),
        flag(json!({"ower": "ada"})),
        flag(json!({"kind": "eternal"})),
        flag(json!({"created": "yesterday"})),
        flag(json!({"state": {"rollout": 101}})),
        flag(json!({"state": {"on": "yes"}})),
        flag(json!({"serve": {"a": -1}})),
        flag(json!({"serve": {"a": 1.5}})),
        flag(json!({"serve": ["a"]})),
        flag(json!({"serve": {"bucketing": {}, "slices": []}})),
        flag(json!({"requires": "g"})),
        json!({"segments": {"s": {"members": "a"}}}),
    ];
    let clauses = [
        json!({"attribute": "x"}),
        json!({"attribute": "x", "inn": 1}),
        json!({"above": 1}),
        json!({"attribute": "x", "present": true, "segment": "s"}),
        json!({"segment": "s", "variant": "a"}),
        json!({"attribute": "x", "above": "1"}),
        json!({"attribute": "x", "version": ">= 2.1.0", "versions": "loose"}),
        json!({"share": {"ranges": []}}),
        json!({"all": {}}),
        json!({}),
        json!("x"),
    ];
    all.extend(clauses.map(clause));
    all
}

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where programs are")]
#[expect(clippy::print_stderr, reason = "a check that was not made is told")]
fn checker() -> Option<PathBuf> {
    let given = std::env::var_os("FLOWLINE_CI_TOOLS").map(|folder| PathBuf::from(folder).join("bin"));
    let path: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    let found = given
        .into_iter()
        .chain(path)
        .map(|folder| folder.join("check-jsonschema"))
        .find(|file| file.is_file());
    if found.is_none() {
        let note = "check-jsonschema is missing: run `.ci/tools DIR` and set FLOWLINE_CI_TOOLS=DIR";
        assert!(std::env::var_os("FLOWLINE_CI").is_none_or(|value| value != "1"), "{note}");
        eprintln!("passed without a check: {note}");
    }
    found
}

#[test]
fn the_schema_accepts_what_can_be_read_and_nothing_else() {
    let read = |json: &Json| config::Document::new("flags.json", json.to_string()).read::<Document>();
    let folder = tempfile::tempdir().unwrap();
    let (mut files, mut refused) = (Vec::new(), BTreeSet::new());
    for (number, (json, sound)) in good()
        .into_iter()
        .map(|json| (json, true))
        .chain(bad().into_iter().map(|json| (json, false)))
        .enumerate()
    {
        assert_eq!(
            read(&json).is_ok(),
            sound,
            "{json}: {:?}",
            read(&json).err().map(|error| error.to_string())
        );
        let name = format!("{number:02}-{}.json", if sound { "good" } else { "bad" });
        std::fs::write(folder.path().join(&name), json.to_string()).unwrap();
        if !sound {
            refused.insert(name.clone());
        }
        files.push(name);
    }
    let Some(checker) = checker() else { return };
    std::fs::write(folder.path().join("schema.json"), flags_schema()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "this test exists to run another program")]
    let mut command = Command::new(checker);
    let output = command
        .args(["--schemafile", "schema.json", "-o", "json"])
        .args(&files)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let report: Json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    let errors = report["errors"].as_array().into_iter().flatten();
    let told: BTreeSet<String> = errors
        .filter_map(|error| error["filename"].as_str())
        .map(|name| name.trim_start_matches("./").to_owned())
        .collect();
    let by = |names: Vec<&String>| {
        let text = |name: &&String| {
            format!("{name}: {}", std::fs::read_to_string(folder.path().join(name)).unwrap_or_default())
        };
        names.iter().map(text).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(by(told.difference(&refused).collect()), "", "good ones that the schema refuses: {report:#}");
    assert_eq!(by(refused.difference(&told).collect()), "", "bad ones that the schema accepts");
}
