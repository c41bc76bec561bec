//! UFC in both readings: every file of `eppo/ufc/tests`, `eppo/ufc/bandit-tests` and `ffe/evaluation-cases`.

use std::{fs, path::Path};

use serde_json::Value as Json;

use super::{Report, json_files};
use crate::{
    engine::{Host, Ruleset},
    format::{
        Format,
        ufc::{Action, Attributes, Bandits, Details, Resolution, Ufc, context, value_type},
    },
    model::ValueType,
    value::Value,
};

/// Runs the suite in the folder `eppo` of `directory`: assignments, evaluation details, and the actions of bandits.
pub fn eppo(directory: &Path) -> Option<Report> {
    let mut report = Report::default();
    let folder = directory.join("eppo/ufc");
    let files = json_files(&folder.join("tests"), &mut report)?;
    let Some(ruleset) = read(Ufc::eppo(), &folder.join("flags-v1.json"), &mut report) else {
        return Some(report);
    };
    for (file, test) in &files {
        for subject in list(&test["subjects"]) {
            let name = format!("{file}: {}", subject["subjectKey"]);
            assignment(name, &ruleset, test, subject, &mut report);
        }
    }
    if let Some(files) = json_files(&folder.join("bandit-tests"), &mut report) {
        bandits(&folder, &files, &mut report);
    }
    Some(report)
}

fn bandits(folder: &Path, files: &[(String, Json)], report: &mut Report) {
    let flags = folder.join("bandit-flags-v1.json");
    let Some(ruleset) = read(Ufc::eppo(), &flags, report) else { return };
    let text = |file| fs::read_to_string(file).unwrap_or_default();
    let bandits = match Bandits::read(&text(flags), &text(folder.join("bandit-models-v1.json"))) {
        Ok(bandits) => bandits,
        Err(error) => return report.fail("bandit-models-v1.json", "models", error.to_string()),
    };
    let host = Host::default();
    for (file, test) in files {
        let flag = self::text(&test["flag"]);
        for subject in list(&test["subjects"]) {
            let key = self::text(&subject["subjectKey"]);
            let attributes = Attributes::from_object(&Value::from(&subject["subjectAttributes"]));
            let actions: Vec<_> = list(&subject["actions"])
                .iter()
                .map(|action| Action {
                    key: self::text(&action["actionKey"]).to_owned(),
                    attributes: Attributes::from_object(&Value::from(action)),
                })
                .collect();
            let context = attributes.context(key);
            let got = Resolution::of(&ruleset, flag, ValueType::String, &context, &host);
            let assigned = got.value.and_then(Value::as_str);
            let action = assigned.and_then(|value| bandits.choose(flag, value, key, &attributes, &actions));
            let expected = &subject["assignment"];
            report.check(
                format!("{file}: {key}"),
                &(expected["variation"].as_str(), expected["action"].as_str()),
                &(assigned.or(test["defaultValue"].as_str()), action.map(|action| action.key.as_str())),
            );
        }
    }
}

fn assignment(name: String, ruleset: &Ruleset, test: &Json, subject: &Json, report: &mut Report) {
    let (flag, expected_type) = (text(&test["flag"]), kind(&test["variationType"]));
    let host = Host::default();
    let context = context(subject["subjectKey"].as_str(), &Value::from(&subject["subjectAttributes"]));
    let got = Resolution::of(ruleset, flag, expected_type, &context, &host);
    let default = Value::from(&test["defaultValue"]);
    let got = got.value.unwrap_or(&default);
    let details = Details::of(ruleset, flag, expected_type, &context, &host);
    let details = serde_json::to_value(&details).unwrap_or_default();
    let expected = &subject["evaluationDetails"];
    // What the suite's README names; of a match, what else we can say. Texts for people and the rule's conditions are not ours.
    let mut fields = vec!["flagEvaluationCode", "matchedAllocation", "unmatchedAllocations"];
    if expected["flagEvaluationCode"] == "MATCH" {
        fields.extend(["environmentName", "variationKey", "unevaluatedAllocations"]);
    }
    let of =
        |json: &Json| -> Vec<_> { fields.iter().map(|field| json.get(field).map(Value::from)).collect() };
    let told = expected.is_object();
    report.check(
        name,
        &(Value::from(&subject["assignment"]), if told { of(expected) } else { Vec::new() }),
        &(got.clone(), if told { of(&details) } else { Vec::new() }),
    );
}

/// Runs the suite in the folder `ffe` of `directory`: values, reasons, and error codes where given.
pub fn ffe(directory: &Path) -> Option<Report> {
    let mut report = Report::default();
    let folder = directory.join("ffe");
    let files = json_files(&folder.join("evaluation-cases"), &mut report)?;
    let Some(ruleset) = read(Ufc::datadog(), &folder.join("ufc-config.json"), &mut report) else {
        return Some(report);
    };
    let host = Host::default();
    for (file, cases) in &files {
        for (index, case) in list(cases).iter().enumerate() {
            let context = context(case["targetingKey"].as_str(), &Value::from(&case["attributes"]));
            let flag = text(&case["flag"]);
            let got = Resolution::of(&ruleset, flag, kind(&case["variationType"]), &context, &host);
            let default = Value::from(&case["defaultValue"]);
            let expected = &case["result"];
            let code = expected["errorCode"].as_str();
            report.check(
                format!("{file}: {index} {flag} {}", case["targetingKey"]),
                &(Value::from(&expected["value"]), text(&expected["reason"]), code),
                &(
                    got.value.unwrap_or(&default).clone(),
                    got.reason.as_str(),
                    got.error.map(crate::model::FaultCode::as_str).filter(|_| code.is_some()),
                ),
            );
        }
    }
    Some(report)
}

fn read(format: Ufc, file: &Path, report: &mut Report) -> Option<Ruleset> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string());
    match text.and_then(|text| format.read(&text).map_err(|error| error.to_string())) {
        Ok(set) => Some(Ruleset::compile(set)),
        Err(problem) => {
            report.fail(file.display().to_string(), "a document", problem);
            None
        }
    }
}

fn list(json: &Json) -> &[Json] {
    json.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(json: &Json) -> &str {
    json.as_str().unwrap_or_default()
}

fn kind(json: &Json) -> ValueType {
    value_type(text(json)).unwrap_or_default()
}
