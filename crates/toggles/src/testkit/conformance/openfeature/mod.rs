//! OpenFeature's own cases: the Gherkin features of the specification, run against the [client](crate::client).
//!
//! The steps are defined for whatever the features say, not for the cases at hand. A step that is not known makes its case fail, not pass.

mod cast;
mod checks;
mod expression;
mod world;

use std::{fs, path::Path};

use self::{expression::Expression, world::World};
use super::{Report, gherkin, read_json};
use crate::{
    client::{FlagMetadata, ThreadPropagator},
    provider::{Memory, MemoryFlag},
    value::Value,
};

/// Runs the features in `openfeature/gherkin` below `directory`; `None`: there is no such folder.
pub fn openfeature(directory: &Path) -> Option<Report> {
    let folder = directory.join("openfeature/gherkin");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "feature"))
        .collect();
    files.sort_unstable();
    let mut report = Report::default();
    let memory = match read_json(&folder.join("test-flags.json")).and_then(|flags| memory(&flags)) {
        Ok(memory) => memory,
        Err(problem) => {
            report.fail("test-flags.json", "a flag set", problem);
            return Some(report);
        }
    };
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let read = fs::read_to_string(&file).map_err(|error| error.to_string());
        let cases = match read.and_then(|text| gherkin::read(&text)) {
            Ok(cases) => cases,
            Err(problem) => {
                report.fail(name, "a feature", problem);
                continue;
            }
        };
        for case in cases {
            let name = format!("{name}: {}", case.name);
            if case.tags.iter().any(|tag| tag.starts_with("@static-context")) {
                report.skip(name, "static-context paradigm only");
                continue;
            }
            let mut world = World::new(&memory);
            let outcome = case
                .steps
                .iter()
                .try_for_each(|step| world.step(step).map_err(|problem| (step.text.clone(), problem)));
            ThreadPropagator::clear();
            match outcome {
                Ok(()) => report.passed += 1,
                Err((step, problem)) => report.fail(name, step, problem),
            }
        }
    }
    Some(report)
}

/// The suite's flag set, served from memory.
fn memory(flags: &serde_json::Value) -> Result<Memory, String> {
    let flags = flags.as_object().ok_or("it is no object")?;
    let mut memory = Memory::new();
    for (key, flag) in flags {
        let mut made = MemoryFlag::new();
        for (name, value) in flag["variants"].as_object().into_iter().flatten() {
            made = made.variant(name, value);
        }
        if let Some(name) = flag["defaultVariant"].as_str() {
            made = made.default_variant(name);
        }
        if flag["disabled"] == true {
            made = made.disabled();
        }
        let metadata = Value::from(&flag["flagMetadata"]);
        if let Some(entries) = metadata.as_object() {
            let entries = entries.iter().map(|(name, value)| (&**name, value));
            made = made.metadata(FlagMetadata::of_values(entries));
        }
        if let Some(text) = flag["contextEvaluator"].as_str() {
            let expression = Expression::parse(text).map_err(|problem| format!("flag `{key}`: {problem}"))?;
            made = made.targeted(move |context| expression.evaluate(context).as_str().map(str::to_owned));
        }
        memory = memory.flag(key, made);
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::{
        cast::{Cached, Starts},
        *,
    };
    use crate::{
        client::{EvaluationContext, Reason},
        provider::Resolution,
    };

    #[test]
    fn every_visible_case_passes() {
        let directory = super::super::tests::directory();
        let Some(report) = openfeature(&directory) else {
            println!("skipped: openfeature is not in {}", directory.display());
            return;
        };
        assert_eq!(report.failed, []);
        assert_eq!(report.skipped, []);
        assert_eq!(report.passed, 87);
    }

    #[test]
    fn a_case_fails_when_the_client_does_something_else() {
        let folder = tempfile::tempdir().unwrap();
        let gherkin = folder.path().join("openfeature/gherkin");
        fs::create_dir_all(&gherkin).unwrap();
        fs::write(
            gherkin.join("test-flags.json"),
            r#"{"f": {"variants": {"on": true}, "defaultVariant": "on"}}"#,
        )
        .unwrap();
        let text = "Feature: x\n  Background:\n    Given a stable provider\n  Scenario: wrong\n    Given a Boolean-flag with key \"f\" and a fallback value \"false\"\n    When the flag was evaluated with details\n    Then the resolved details value should be \"false\"\n  Scenario: unknown\n    Given a moon\n  Scenario: right\n    Given a Boolean-flag with key \"f\" and a fallback value \"false\"\n    When the flag was evaluated with details\n    Then the variant should be \"on\"\n";
        fs::write(gherkin.join("x.feature"), text).unwrap();
        let report = openfeature(folder.path()).unwrap();
        assert_eq!(report.passed, 1);
        let failed: Vec<_> =
            report.failed.iter().map(|failed| format!("{} {}", failed.name, failed.got)).collect();
        assert_eq!(
            failed,
            ["x: wrong the value is `true`, not `false`", "x: unknown this step is not known"]
        );
    }

    #[test]
    fn a_resolution_from_the_cache_says_so() {
        let answer = Resolution::new(true).because(Reason::Static);
        let cached = Cached {
            memory: Memory::new(),
            starts: Starts::Ready,
            seen: Mutex::default(),
            context: Mutex::default(),
        };
        let ask =
            || cached.answer("bool", "f", &EvaluationContext::EMPTY, Ok(answer.clone())).unwrap().reason;
        assert_eq!((ask(), ask()), (Some(Reason::Static), Some(Reason::Cached)));
    }
}
