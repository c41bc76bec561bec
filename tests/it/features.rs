//! The Cargo features: whoever depends on the facade alone reaches everything, and each is explained where it is looked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

const CRATES: [&str; 4] = ["core", "envs", "toggles", "pipeline"];

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(folder: &str) -> toml::Table {
    text(&format!("{folder}Cargo.toml")).parse().unwrap()
}

/// What each feature turns on, but for `default`.
fn features(manifest: &toml::Table) -> BTreeMap<String, BTreeSet<String>> {
    let features = manifest["features"].as_table().unwrap().iter();
    let on = |list: &toml::Value| {
        list.as_array().unwrap().iter().map(|on| on.as_str().unwrap().to_owned()).collect()
    };
    features.filter(|(name, _)| *name != "default").map(|(name, list)| (name.clone(), on(list))).collect()
}

/// The names in the first column of a table of features.
fn explained(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(|line| line.trim_start_matches("//!").trim());
    let mut lines = lines.skip_while(|line| !line.starts_with("| feature |")).skip(2);
    let rows = lines.by_ref().map_while(|line| line.strip_prefix("| `")?.split('`').next());
    rows.map(str::to_owned).collect()
}

#[test]
fn the_facade_forwards_every_feature_of_every_crate() {
    let facade = features(&manifest(""));
    for name in CRATES {
        for feature in features(&manifest(&format!("crates/{name}/"))).keys() {
            let forwarded = format!("flowline-{name}/{feature}");
            let on = facade.get(feature).unwrap_or_else(|| panic!("`flowline` has no feature `{feature}`"));
            assert!(on.contains(&forwarded), "`{feature}` of `flowline` does not turn on `{forwarded}`");
        }
    }
}

#[test]
fn every_feature_is_explained_and_nothing_else() {
    let names = |folder: &str| features(&manifest(folder)).into_keys().collect::<BTreeSet<_>>();
    assert_eq!(explained(&text("README.md")), names(""), "README.md");
    for name in CRATES {
        let folder = format!("crates/{name}/");
        assert_eq!(explained(&text(&format!("{folder}src/lib.rs"))), names(&folder), "{name}");
    }
}

#[test]
fn the_documentation_that_is_published_shows_everything() {
    for folder in ["", "crates/core/", "crates/envs/", "crates/toggles/", "crates/pipeline/"] {
        let manifest = manifest(folder);
        let mut at = manifest["package"].get("metadata");
        for name in ["docs", "rs", "all-features"] {
            at = at.and_then(|table| table.get(name));
        }
        let all = at.and_then(toml::Value::as_bool);
        assert_eq!(all, Some(true), "{folder}Cargo.toml");
    }
}
