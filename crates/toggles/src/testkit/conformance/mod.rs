//! Running the vendors' own cases: one suite for each format, with one shape of result.
//!
//! A format's suite is a function `fn(&Path) -> Option<Report>` that looks for its folder below a directory, and is listed in
//! [`SUITES`]. The format's own tests and `examples/toggles_conformance.rs` both run it.

mod flagd;
mod gherkin;
mod growthbook;
mod launchdarkly;
mod openfeature;
mod ufc;
mod unleash;

use std::{fmt, fs, path::Path};

use serde_json::Value as Json;

pub use self::{
    flagd::flagd,
    growthbook::growthbook,
    launchdarkly::launchdarkly,
    openfeature::openfeature,
    ufc::{eppo, ffe},
    unleash::unleash,
};

/// What came of one suite.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// How many cases gave what was expected.
    pub passed: usize,
    /// The ones that did not.
    pub failed: Vec<Failed>,
    /// The ones that were not tried, and why.
    pub skipped: Vec<Skipped>,
}

/// A case that did not give what was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// Its name: file, test, row.
    pub name: String,
    /// What the suite expects.
    pub expected: String,
    /// What came.
    pub got: String,
}

/// A case that was not tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

impl Report {
    /// Counts a case: passed if both are the same.
    pub fn check<T: PartialEq + fmt::Debug>(&mut self, name: impl Into<String>, expected: &T, got: &T) {
        if expected == got {
            self.passed += 1;
        } else {
            self.fail(name, format!("{expected:?}"), format!("{got:?}"));
        }
    }

    /// Counts a case that failed.
    pub fn fail(&mut self, name: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) {
        self.failed.push(Failed { name: name.into(), expected: expected.into(), got: got.into() });
    }

    /// Counts a case that was not tried.
    pub fn skip(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.skipped.push(Skipped { name: name.into(), why: why.into() });
    }

    /// Adds another report's cases.
    pub fn absorb(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

/// The JSON files of a folder by name, in the order of their names; `None` if there is no such folder. A file that is not to be read counts as a
/// failed case.
pub fn json_files(folder: &Path, report: &mut Report) -> Option<Vec<(String, Json)>> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"))
        .collect();
    names.sort_unstable();
    let mut files = Vec::new();
    for name in names {
        match read_json(&folder.join(&name)) {
            Ok(json) => files.push((name, json)),
            Err(problem) => report.fail(&name, "a JSON document", problem),
        }
    }
    Some(files)
}

/// The JSON document in a file.
///
/// # Errors
/// What is wrong, in words.
pub fn read_json(file: &Path) -> Result<Json, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))
}

/// A suite: its name, and what runs it on a directory (`None`: its folder is not there).
pub struct Suite {
    /// Its name.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&Path) -> Option<Report>,
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All suites, in the order in which they are run. A format adds its own here.
pub const SUITES: &[Suite] = &[
    Suite { name: "openfeature", run: openfeature },
    Suite { name: "unleash", run: unleash },
    Suite { name: "eppo", run: eppo },
    Suite { name: "ffe", run: ffe },
    Suite { name: "flagd", run: flagd },
    Suite { name: "launchdarkly", run: launchdarkly },
    Suite { name: "growthbook", run: growthbook },
];

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The suites lie in the directory `FLOWLINE_CONFORMANCE`, else beside the workspace.
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the suites are")]
    pub(crate) fn directory() -> std::path::PathBuf {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
        std::env::var_os("FLOWLINE_CONFORMANCE").map_or(beside, Into::into)
    }

    #[test]
    fn every_visible_case_passes() {
        let directory = directory();
        for suite in SUITES {
            let Some(report) = (suite.run)(&directory) else {
                println!("{suite:?}: not in {}", directory.display());
                continue;
            };
            println!("{suite:?}: {} passed, {} skipped", report.passed, report.skipped.len());
            assert!(report.failed.is_empty(), "{suite:?}: {:#?}", report.failed);
            assert!(report.passed > 0, "{suite:?} has no cases");
        }
    }
}
