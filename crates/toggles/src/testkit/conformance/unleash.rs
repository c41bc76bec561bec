//! Unleash's client specification: every file of `unleash/specifications`.

use std::path::Path;

use serde_json::Value as Json;

use super::{Report, json_files};
use crate::{
    engine::{Host, Ruleset},
    format::{
        Format,
        unleash::{ChosenVariant, Unleash, context},
    },
    value::Value,
};

/// Runs the suite in the folder `unleash` of `directory`.
pub fn unleash(directory: &Path) -> Option<Report> {
    let mut report = Report::default();
    let files = json_files(&directory.join("unleash/specifications"), &mut report)?;
    for (file, specification) in files.iter().filter(|(file, _)| file != "index.json") {
        one(file, specification, &mut report);
    }
    Some(report)
}

fn one(file: &str, specification: &Json, report: &mut Report) {
    let set = match Unleash::new().read(&specification["state"].to_string()) {
        Ok(set) => set,
        Err(error) => return report.fail(file, "a document", error.to_string()),
    };
    let (ruleset, host) = (Ruleset::compile(set), Host::default());
    let cases = |name: &str| specification[name].as_array().cloned().unwrap_or_default();
    for case in cases("tests") {
        let context = context(&Value::from(&case["context"]));
        let got = ruleset.is_on(case["toggleName"].as_str().unwrap_or_default(), &context, &host);
        report.check(name(file, &case), &case["expectedResult"], &Json::Bool(got));
    }
    for case in cases("variantTests") {
        let context = context(&Value::from(&case["context"]));
        let got = ruleset.evaluate(case["toggleName"].as_str().unwrap_or_default(), &context, &host);
        let mut got = serde_json::to_value(ChosenVariant::of(&got)).unwrap_or_default();
        let expected = &case["expectedResult"];
        if let Some(got) = got.as_object_mut().filter(|_| expected["payload"].is_null()) {
            got.remove("payload");
        }
        report.check(name(file, &case), expected, &got);
    }
}

fn name(file: &str, case: &Json) -> String {
    format!("{file}: {}", case["description"].as_str().unwrap_or_default())
}
