//! LaunchDarkly's evaluations: every file of `launchdarkly/server-side-eval`.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{Report, json_files};
use crate::{
    engine::{Host, Ruleset},
    format::{
        Format,
        launchdarkly::{Detail, LaunchDarkly, context},
    },
    model::ValueType,
    value::Value,
};

/// Runs the suite in the folder `launchdarkly` of `directory`: value, variation index and reason.
pub fn launchdarkly(directory: &Path) -> Option<Report> {
    let mut report = Report::default();
    let files = json_files(&directory.join("launchdarkly/server-side-eval"), &mut report)?;
    for (file, content) in &files {
        for suite in content["suites"].as_array().into_iter().flatten() {
            one(file, suite, &mut report);
        }
    }
    Some(report)
}

fn one(file: &str, suite: &Json, report: &mut Report) {
    let name = format!("{file}: {}", suite["name"].as_str().unwrap_or_default());
    let data = &suite["sdkData"];
    let set = match LaunchDarkly::new().read(&data.to_string()) {
        Ok(set) => set,
        Err(error) => return report.fail(name, "a document", error.to_string()),
    };
    let (ruleset, host) = (Ruleset::compile(set), Host::default());
    for (index, case) in suite["evaluations"].as_array().into_iter().flatten().enumerate() {
        let flag = case["flagKey"].as_str().unwrap_or_default();
        let default = case.get("default").cloned().unwrap_or_else(|| {
            let first = &data["flags"][flag]["variations"][0];
            match first {
                Json::Bool(_) => json!(false),
                Json::Number(_) => json!(0),
                Json::String(_) => json!(""),
                _ => Json::Null,
            }
        });
        let wanted = match (case["valueType"].as_str(), &default) {
            (Some("bool"), _) | (None, Json::Bool(_)) => ValueType::Boolean,
            (Some("int"), _) => ValueType::Integer,
            (Some("double"), _) | (None, Json::Number(_)) => ValueType::Number,
            (Some("string"), _) | (None, Json::String(_)) => ValueType::String,
            _ => ValueType::Any,
        };
        let context = context(&Value::from(&case["context"]));
        let detail = Detail::of(&ruleset, flag, wanted, &context, &host);
        let default = Value::from(&default);
        let got = detail.value.unwrap_or(&default);
        let got = match got.as_f64() {
            #[expect(clippy::cast_possible_truncation, reason = "what an integer getter does")]
            Some(number) if wanted == ValueType::Integer => &Value::from(number.trunc() as i64),
            _ => got,
        };
        let reason = serde_json::to_value(detail.reason).unwrap_or_default();
        let expected = &case["expect"];
        let shown = case["name"].as_str().map_or_else(|| index.to_string(), |name| format!("{index} {name}"));
        report.check(
            format!("{name}: {shown}"),
            &(
                Value::from(&expected["value"]),
                expected["variationIndex"].as_u64().and_then(|index| usize::try_from(index).ok()),
                Value::from(&expected["reason"]),
            ),
            &(got.clone(), detail.variation_index, Value::from(&reason)),
        );
    }
}
