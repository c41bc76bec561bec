//! Writes seeds for the fuzzer from documents that are already there: `cargo run --example seed -- CONFORMANCE CORPUS`.
//!
//! CONFORMANCE is laid out as the conformance runner wants it. CORPUS gets a folder for each target, and should lie outside the repository.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value as Json;

type Failure = Box<dyn Error>;

/// Documents of our own, one of everything.
const OWN: &str = include_str!("seed.toml");
const OWN_YAML: &str = include_str!("seed.yaml");
const OWN_JSON: &str = include_str!("seed.json");

fn main() -> Result<(), Failure> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [from, to] = arguments.as_slice() else {
        return Err("usage: seed CONFORMANCE CORPUS".into());
    };
    let user = Json::from("user-1");
    write(to, "flowline_toml", OWN, &user)?;
    write(to, "flowline_yaml", OWN_YAML, &user)?;
    write(to, "flowline_json", OWN_JSON, &user)?;
    for file in json_files(&from.join("flagd"))? {
        write(
            to,
            "flagd",
            &fs::read_to_string(file)?,
            &serde_json::json!({"targetingKey": "a", "email": "a@faas.com"}),
        )?;
    }
    for file in json_files(&from.join("unleash"))? {
        let spec: Json = serde_json::from_str(&fs::read_to_string(file)?)?;
        let tests = ["tests", "variantTests"].map(|name| spec[name].as_array().cloned().unwrap_or_default());
        for test in tests.iter().flatten().take(12) {
            write(to, "unleash", &spec["state"].to_string(), &test["context"])?;
        }
    }
    let cases: Json = serde_json::from_str(&fs::read_to_string(from.join("growthbook/cases.json"))?)?;
    for case in cases["feature"].as_array().into_iter().flatten() {
        write(to, "growthbook", &case[1].to_string(), &case[1]["attributes"])?;
    }
    for file in json_files(&from.join("launchdarkly"))? {
        let spec: Json = serde_json::from_str(&fs::read_to_string(file)?)?;
        for suite in spec["suites"].as_array().into_iter().flatten() {
            for case in suite["evaluations"].as_array().into_iter().flatten().take(6) {
                write(to, "launchdarkly", &suite["sdkData"].to_string(), &case["context"])?;
            }
        }
    }
    for file in ["eppo/ufc/flags-v1.json", "eppo/ufc/bandit-flags-v1.json", "ffe/ufc-config.json"] {
        let document: Json = serde_json::from_str(&fs::read_to_string(from.join(file))?)?;
        let document = document.pointer("/data/attributes").unwrap_or(&document);
        let context =
            serde_json::json!({"country": "US", "email": "a@test.com", "age": 25, "version": "1.2.0"});
        // One flag a seed: a fuzzer gets nowhere with half a megabyte.
        for (key, flag) in document["flags"].as_object().into_iter().flatten() {
            write(to, "ufc", &serde_json::json!({"flags": {key: flag}}).to_string(), &context)?;
        }
    }
    Ok(())
}

/// Writes a seed under a name that follows from its content's order, not from a hash.
fn write(to: &Path, target: &str, document: &str, context: &Json) -> Result<(), Failure> {
    let folder = to.join(target);
    fs::create_dir_all(&folder)?;
    let number = fs::read_dir(&folder)?.count();
    let seed = [document.as_bytes(), &[0xff], context.to_string().as_bytes()].concat();
    fs::write(folder.join(format!("seed-{number:04}")), seed)?;
    Ok(())
}

/// The JSON files below a folder; none if it is not there.
fn json_files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(json_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
