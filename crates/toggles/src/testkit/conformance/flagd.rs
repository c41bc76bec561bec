//! flagd's testbed: every feature of `flagd/evaluator/gherkin` and `flagd/gherkin`.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value as Json};

use super::{
    Report,
    gherkin::{self, Case, Step, matched},
    json_files,
};
use crate::{
    context::Context,
    engine::{Host, Ruleset},
    format::{
        Format,
        flagd::{Flagd, Generation, Resolution, SelectorError},
    },
    model::{FaultCode, Reason, ValueType},
    value::Value,
};

/// Runs the suite in the folder `flagd` of `directory`.
pub fn flagd(directory: &Path) -> Option<Report> {
    let folder = directory.join("flagd");
    if !folder.is_dir() {
        return None;
    }
    let mut report = Report::default();
    for (file, _) in feature_files(&folder.join("provider-lifecycle")) {
        let why = "asks for a running daemon and its connection; upstream's files are there for reference";
        report.skip(format!("provider-lifecycle/{file}"), why);
    }
    for (features, flags) in [("evaluator/gherkin", "evaluator/flags"), ("gherkin", "flags")] {
        let documents = json_files(&folder.join(flags), &mut report).unwrap_or_default();
        for (file, text) in feature_files(&folder.join(features)) {
            let cases = match text.and_then(|text| gherkin::read(&text)) {
                Ok(cases) => cases,
                Err(problem) => {
                    report.fail(file, "a feature", problem);
                    continue;
                }
            };
            for case in cases {
                let name = format!("{features}/{file}: {}", case.name);
                if features == "provider-lifecycle" {
                    report
                        .skip(name, "asks for a running daemon and its connection; upstream's for reference");
                } else if case.tags.iter().any(|tag| tag == "@deprecated") {
                    report.skip(name, "deprecated upstream: opposes the rows tagged @no-default-variant");
                } else {
                    one(name, &case, &documents, &mut report);
                }
            }
        }
    }
    Some(report)
}

fn feature_files(folder: &Path) -> Vec<(String, Result<String, String>)> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "feature"))
        .collect();
    names.sort_unstable();
    let read = |name: String| {
        let text = fs::read_to_string(folder.join(&name)).map_err(|error| error.to_string());
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// What a case has said so far.
#[derive(Debug, Default)]
struct World {
    selector: Option<String>,
    flag: String,
    kind: String,
    default: String,
    key: Option<String>,
    fields: BTreeMap<String, Value>,
    outcome: Option<Outcome>,
}

/// What an evaluation came to, as the steps compare it.
#[derive(Debug)]
struct Outcome {
    value: Value,
    reason: Reason,
    error: Option<FaultCode>,
    variant: Option<String>,
    metadata: BTreeMap<String, Value>,
}

/// What a step came to.
enum Went {
    /// It did what it says.
    On,
    /// It asks for something else than what came.
    Wrong { expected: String, got: String },
    /// It can't be done without a daemon.
    Beyond(&'static str),
}

fn one(name: String, case: &Case, documents: &[(String, Json)], report: &mut Report) {
    let mut world = World::default();
    for step in &case.steps {
        match world.step(step, case, documents) {
            Ok(Went::On) => {}
            Ok(Went::Wrong { expected, got }) => {
                return report.fail(name, format!("{}: {expected}", step.text), got);
            }
            Ok(Went::Beyond(why)) => return report.skip(name, why),
            Err(problem) => return report.fail(name, step.text.clone(), problem),
        }
    }
    report.passed += 1;
}

impl World {
    fn step(&mut self, step: &Step, case: &Case, documents: &[(String, Json)]) -> Result<Went, String> {
        let text = step.text.as_str();
        let is = |pattern: &str| matched(pattern, text);
        if let Some([option, _, value]) = is("an option \"{}\" of type \"{}\" with value \"{}\"").as_deref() {
            if *option == "selector" {
                self.selector = Some((*value).to_owned());
            }
            return Ok(Went::On);
        }
        let flag = is("a {}-flag with key \"{}\" and a default value \"{}\"")
            .or_else(|| is("a {}-flag with key \"{}\" and a fallback value \"{}\""));
        if let Some([kind, key, default]) = flag.as_deref() {
            (self.kind, self.flag, self.default) =
                ((*kind).to_owned(), (*key).to_owned(), (*default).to_owned());
            return Ok(Went::On);
        }
        if let Some([key, kind, value]) =
            is("a context containing a key \"{}\", with type \"{}\" and with value \"{}\"").as_deref()
        {
            self.fields.insert((*key).to_owned(), typed(kind, value)?);
            return Ok(Went::On);
        }
        let nested = "a context containing a nested property with outer key \"{}\" and inner key \"{}\", with value \"{}\"";
        if let Some([outer, inner, value]) = is(nested).as_deref() {
            self.fields.insert((*outer).to_owned(), Value::object([(*inner, Value::from(*value))]));
            return Ok(Went::On);
        }
        if let Some([key]) = is("a context containing a targeting key with value \"{}\"").as_deref() {
            self.key = Some((*key).to_owned());
            return Ok(Went::On);
        }
        match text {
            "the flag was evaluated with details" => {
                self.outcome = Some(self.evaluate(case, documents)?);
                return Ok(Went::On);
            }
            // Handlers and what they wait for: the evaluator itself has no connection that could change.
            "an evaluator" | "the flag was modified" => return Ok(Went::On),
            _ if is("a {} event handler").is_some() || is("a {} event was fired").is_some() => {
                return Ok(Went::On);
            }
            _ if is("a {} flagd provider").is_some() => return Ok(Went::On),
            _ if is("the connection is lost for {}").is_some() => {
                let local = case.tags.iter().any(|tag| tag == "@in-process" || tag == "@file");
                // Whoever evaluates in the process goes on with the last document.
                return Ok(if local {
                    Went::On
                } else {
                    Went::Beyond("what a remote provider says without its daemon; nothing is remote here")
                });
            }
            _ => {}
        }
        let outcome = self.outcome.as_ref().ok_or("nothing was evaluated yet, or the step is unknown")?;
        if let Some([value]) = is("the resolved details value should be \"{}\"").as_deref() {
            return Ok(compared(&typed(&self.kind, value)?, &outcome.value));
        }
        if let Some([reason]) = is("the reason should be \"{}\"").as_deref() {
            return Ok(compared(reason, &outcome.reason.as_str()));
        }
        if let Some([code]) = is("the error-code should be \"{}\"").as_deref() {
            return Ok(compared(code, &outcome.error.map_or("", FaultCode::as_str)));
        }
        if let Some([variant]) = is("the variant should be \"{}\"").as_deref() {
            return Ok(compared(variant, &outcome.variant.as_deref().unwrap_or_default()));
        }
        if text == "the resolved metadata is empty" {
            return Ok(compared(&BTreeMap::new(), &outcome.metadata));
        }
        if text == "the resolved metadata should contain" {
            for row in step.table.iter().skip(1) {
                let [key, kind, value] = row.as_slice() else { return Err(format!("the row {row:?}")) };
                let expected = Some(typed(kind, value)?);
                if expected.as_ref() != outcome.metadata.get(key) {
                    return Ok(compared(&expected, &outcome.metadata.get(key).cloned()));
                }
            }
            return Ok(Went::On);
        }
        Err("the step is unknown".to_owned())
    }

    fn evaluate(&self, case: &Case, documents: &[(String, Json)]) -> Result<Outcome, String> {
        let mut generation = Generation::default();
        for tag in &case.tags {
            generation = match tag.as_str() {
                "@fractional-v1" => Generation::V1,
                "@fractional-v2" => Generation::V2,
                "@fractional-v3" => Generation::V3,
                _ => generation,
            };
        }
        let mut front = Flagd::new(generation);
        if case.tags.iter().any(|tag| tag == "@contextEnrichment") {
            front = front.with_supplied(Value::object([("injectedmetadata", Value::from("set"))]));
        }
        let set = match self.selector.as_deref() {
            None | Some("" | "flags/allFlags.json") => front.read(&merged(documents).to_string()),
            Some(selector) => {
                // The suite names files by their folder on its own server.
                let selector = selector.rsplit('/').next().unwrap_or(selector);
                let selector = selector.parse().map_err(|error: SelectorError| error.to_string())?;
                let texts: Vec<_> =
                    documents.iter().map(|(file, document)| (file.as_str(), document.to_string())).collect();
                let sources: Vec<_> = texts.iter().map(|(file, text)| (*file, text.as_str())).collect();
                front.read_sources(&sources, &selector)
            }
        };
        let set = set.map_err(|error| error.to_string())?;
        let (ruleset, host) = (Ruleset::compile(set), Host::default());
        let mut context = self.key.as_deref().map_or_else(Context::anonymous, Context::new);
        for (name, value) in &self.fields {
            context = context.with(name, value.clone());
        }
        let got = Resolution::of(&ruleset, &self.flag, kind(&self.kind), &context, &host);
        Ok(Outcome {
            value: got.value.cloned().map_or_else(|| typed(&self.kind, &self.default), Ok)?,
            reason: got.reason,
            error: got.error,
            variant: got.variant.map(|variant| variant.name.to_string()),
            metadata: got.metadata.cloned().unwrap_or_default(),
        })
    }
}

fn compared<T: PartialEq<U> + std::fmt::Debug + ?Sized, U: std::fmt::Debug>(expected: &T, got: &U) -> Went {
    if expected == got {
        return Went::On;
    }
    Went::Wrong { expected: format!("{expected:?}"), got: format!("{got:?}") }
}

fn kind(name: &str) -> ValueType {
    match name {
        "Boolean" => ValueType::Boolean,
        "String" => ValueType::String,
        "Integer" => ValueType::Integer,
        "Float" => ValueType::Number,
        "Object" => ValueType::Object,
        _ => ValueType::Any,
    }
}

/// A cell's text as a value of a type. Texts are as they stand; in objects `\"` is `"`.
fn typed(kind: &str, text: &str) -> Result<Value, String> {
    let wrong = || format!("`{text}` is no {kind}");
    Ok(match kind {
        "String" => text.into(),
        "Boolean" => text.to_lowercase().parse::<bool>().map_err(|_| wrong())?.into(),
        "Integer" => text.parse::<i64>().map_err(|_| wrong())?.into(),
        "Float" => text.parse::<f64>().map_err(|_| wrong())?.into(),
        _ => serde_json::from_str(&text.replace("\\\"", "\"")).map_err(|_| wrong())?,
    })
}

/// The flags and evaluators of all files together, as the suite's launcher merges them.
fn merged(documents: &[(String, Json)]) -> Json {
    let (mut flags, mut evaluators) = (Map::new(), Map::new());
    for (_, document) in documents.iter().filter(|(file, _)| !file.starts_with("selector-")) {
        let entries = |name: &str| document[name].as_object().cloned().unwrap_or_default();
        flags.extend(entries("flags"));
        evaluators.extend(entries("$evaluators"));
    }
    Json::Object(Map::from_iter([
        ("flags".to_owned(), Json::Object(flags)),
        ("$evaluators".to_owned(), Json::Object(evaluators)),
    ]))
}
