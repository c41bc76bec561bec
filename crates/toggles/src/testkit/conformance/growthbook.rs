//! GrowthBook's cases: every section of every JSON file in the folder `growthbook`.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value as Json, json};

use super::{Report, json_files};
use crate::{
    engine::{Host, Ruleset},
    format::{
        Format,
        growthbook::{
            self as gb, FeatureResult, GrowthBook, User, context, experiment_result, satisfies, sticky_keys,
        },
    },
    value::Value,
};

/// Runs the suite in the folder `growthbook` of `directory`.
pub fn growthbook(directory: &Path) -> Option<Report> {
    let mut report = Report::default();
    let files = json_files(&directory.join("growthbook"), &mut report)?;
    for (file, sections) in &files {
        for (section, cases) in sections.as_object().into_iter().flatten() {
            for (index, case) in cases.as_array().into_iter().flatten().enumerate() {
                let label = case[0].as_str().map_or_else(|| case.to_string(), str::to_owned);
                let name = format!("{file}: {section} {index}: {label}");
                one(section, name, case, &mut report);
            }
        }
    }
    Some(report)
}

fn one(section: &str, name: String, case: &Json, report: &mut Report) {
    let mut compare = |expected: &Json, got: &Json| {
        report.check(name.clone(), &Value::from(expected), &Value::from(got));
    };
    match section {
        "evalCondition" => {
            let groups = case[4].as_object().into_iter().flatten();
            let groups: BTreeMap<_, _> = groups
                .map(|(id, list)| {
                    (id.clone(), Value::from(list).as_list().map(<[_]>::to_vec).unwrap_or_default())
                })
                .collect();
            let (condition, attributes) = (Value::from(&case[1]), Value::from(&case[2]));
            let own = satisfies(&condition, &attributes, &groups);
            // Once more as the engine evaluates it, in a rule.
            let payload = json!({"features": {"f": {"defaultValue": false, "rules": [{"force": true, "condition": case[1]}]}},
                "savedGroups": if case[4].is_null() { json!({}) } else { case[4].clone() }});
            let through = feature(&payload, &case[2], "f").map(|result| result["value"].clone());
            report.check(name, &(case[3].as_bool(), Some(case[3].clone())), &(Some(own), through.ok()));
        }
        "hash" => {
            let got = gb::hash(text(&case[0]), text(&case[1]), case[2].as_f64().unwrap_or(f64::NAN));
            compare(&case[3], &json!(got));
        }
        "getBucketRange" => {
            let [count, coverage, weights] = [&case[1][0], &case[1][1], &case[1][2]];
            let weights: Option<Vec<f64>> = serde_json::from_value(weights.clone()).unwrap_or_default();
            let got = gb::ranges(size(count), coverage.as_f64().unwrap_or(1.0), weights.as_deref());
            compare(&floored(&case[2]), &floored(&json!(got)));
        }
        "getEqualWeights" => compare(&floored(&case[1]), &floored(&json!(gb::equal_weights(size(&case[0]))))),
        "chooseVariation" => {
            let ranges: Vec<(f64, f64)> = serde_json::from_value(case[2].clone()).unwrap_or_default();
            let got = gb::choose(case[1].as_f64().unwrap_or(f64::NAN), &ranges);
            compare(&case[3], &json!(got.map_or(-1, |index| i64::try_from(index).unwrap_or(-1))));
        }
        "getQueryStringOverride" => {
            compare(&case[4], &json!(gb::query_override(text(&case[1]), text(&case[2]), size(&case[3]))));
        }
        "inNamespace" => {
            let number = |json: &Json| json.as_f64().unwrap_or(f64::NAN);
            let namespace = gb::Namespace::new(text(&case[2][0]), number(&case[2][1]), number(&case[2][2]));
            compare(&case[3], &json!(namespace.contains(&Value::from(&case[1]))));
        }
        "feature" | "contextualBandit" => {
            let got = feature(&case[1], &case[1]["attributes"], text(&case[2]));
            compare(&case[3], &got.unwrap_or_else(|problem| json!(problem)));
        }
        "run" => {
            let got = run(&case[1], &case[2]).unwrap_or_else(|problem| json!([problem]));
            compare(&json!([case[3], case[4], case[5]]), &got);
        }
        "stickyBucket" => {
            let got = sticky(case).unwrap_or_else(|problem| json!([problem]));
            compare(&json!([case[4], case[5]]), &got);
        }
        "urlRedirect" => report.skip(name, "browser only: a page redirects itself"),
        #[cfg(feature = "growthbook-decrypt")]
        "decrypt" => compare(&case[3], &json!(gb::decrypt(text(&case[1]), text(&case[2])))),
        #[cfg(not(feature = "growthbook-decrypt"))]
        "decrypt" => report.skip(name, "needs the feature `growthbook-decrypt`"),
        _ => report.fail(name, "a section that is known", "an unknown section"),
    }
}

fn user(context: &Json) -> Result<User, String> {
    serde_json::from_value(context.clone()).map_err(|error| error.to_string())
}

fn feature(document: &Json, attributes: &Json, key: &str) -> Result<Json, String> {
    let set = GrowthBook::new().read(&document.to_string()).map_err(|error| error.to_string())?;
    let (ruleset, host) = (Ruleset::compile(set), Host::default());
    let context = context(&Value::from(attributes), user(document)?);
    let result = FeatureResult::of(&ruleset, key, &context, &host);
    serde_json::to_value(&result).map_err(|error| error.to_string())
}

fn run(document: &Json, experiment: &Json) -> Result<Json, String> {
    let set = GrowthBook::new().experiments(&document.to_string(), &[&experiment.to_string()]);
    let (ruleset, host) = (Ruleset::compile(set.map_err(|error| error.to_string())?), Host::default());
    let context = context(&Value::from(&document["attributes"]), user(document)?);
    let result = experiment_result(&ruleset, text(&experiment["key"]), &context, &host);
    let field = |name: &str| result.as_ref().and_then(|result| result.get(name)).map(Json::from);
    Ok(json!([field("value"), field("inExperiment"), field("hashUsed")]))
}

fn sticky(case: &Json) -> Result<Json, String> {
    let document = &case[1];
    let set = GrowthBook::new().read(&document.to_string()).map_err(|error| error.to_string())?;
    let (ruleset, host) = (Ruleset::compile(set), Host::default());
    let attributes = Value::from(&document["attributes"]);
    let wanted = sticky_keys(&ruleset, &context(&attributes, User::default()));
    let mut user = User { sticky: Some(BTreeMap::new()), ..user(document)? };
    let mut kept = serde_json::Map::new();
    let key =
        |stored: &Json| format!("{}||{}", text(&stored["attributeName"]), text(&stored["attributeValue"]));
    for stored in case[2].as_array().into_iter().flatten() {
        if wanted.contains(&key(stored)) {
            user = user.with_sticky(&Value::from(stored));
            kept.insert(key(stored), stored.clone());
        }
    }
    let context = context(&attributes, user);
    let result = FeatureResult::of(&ruleset, text(&case[3]), &context, &host);
    for changed in result.sticky.iter().map(Json::from) {
        kept.insert(key(&changed), changed);
    }
    let shown = result.experiment_result.as_ref().map(Json::from);
    Ok(json!([shown, kept]))
}

/// The numbers of a list, of lists, cut after eight digits.
fn floored(json: &Json) -> Json {
    match json {
        Json::Array(values) => values.iter().map(floored).collect(),
        other => json!(other.as_f64().map(|number| (number * 1e8 + 1e-4).floor() / 1e8)),
    }
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

fn size(json: &Json) -> usize {
    json.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}
