//! Annotations as a code-quality report, which GitLab shows in a merge request: a JSON file in the form of Code Climate.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use flowline_core::digest::Digester;
use serde::{Deserialize, Serialize};

use super::speech::{Annotation, Level};

/// One finding. GitLab needs all of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Finding {
    description: String,
    check_name: String,
    fingerprint: String,
    severity: String,
    location: Location,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Location {
    path: String,
    lines: Lines,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lines {
    begin: usize,
}

/// A report that is whole after every annotation. What an earlier process of the job wrote stays.
#[derive(Debug)]
pub(super) struct Findings {
    path: PathBuf,
    all: Vec<Finding>,
    /// How often the same was said of the same file.
    again: BTreeMap<(String, String), usize>,
}

impl Findings {
    /// Those at `path`; a file that holds no report is begun anew.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let all: Vec<Finding> = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut again = BTreeMap::new();
        for finding in &all {
            *again.entry((finding.location.path.clone(), finding.description.clone())).or_default() += 1;
        }
        let findings = Self { path, all, again };
        // A job whose report is missing looks as if it had failed to upload it.
        findings.write()?;
        Ok(findings)
    }

    /// Adds what is said of a file; what is said of none has no place in such a report.
    pub(super) fn add(&mut self, annotation: &Annotation) -> io::Result<()> {
        let Some(path) = annotation.file.as_deref() else { return Ok(()) };
        let path = path.strip_prefix("./").unwrap_or(path).to_owned();
        let description = annotation.message.clone();
        let again = self.again.entry((path.clone(), description.clone())).or_default();
        // Not the line, so that a finding stays the same one when lines above it come or go.
        let digest = Digester::new("flowline finding 1")
            .part(&path)
            .part(&description)
            .part(again.to_string())
            .finish();
        *again += 1;
        self.all.push(Finding {
            check_name: code(&description).to_owned(),
            description,
            fingerprint: digest.hex(),
            severity: match annotation.level {
                Level::Notice => "info",
                Level::Warning => "minor",
                Level::Error => "major",
            }
            .to_owned(),
            location: Location { path, lines: Lines { begin: annotation.line.unwrap_or(1).max(1) } },
        });
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        fs::write(&self.path, serde_json::to_vec_pretty(&self.all)?)
    }
}

/// The code of a diagnostic, which stands in brackets at the end of its first line.
fn code(message: &str) -> &str {
    let first = message.lines().next().unwrap_or_default();
    let code = first.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')).map(|(_, code)| code);
    code.filter(|code| !code.is_empty()).unwrap_or("flowline")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(level: Level, message: &str, file: Option<&str>, line: Option<usize>) -> Annotation {
        Annotation { file: file.map(str::to_owned), line, ..Annotation::new(level, message) }
    }

    #[test]
    fn a_report_is_whole_after_every_annotation_and_goes_on_in_the_next_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        let report = || fs::read_to_string(&path).unwrap();
        let mut findings = Findings::open(path.clone()).unwrap();
        assert_eq!(report(), "[]");
        let unknown =
            |line| note(Level::Error, "unknown key [F0012]\nhelp: `to`", Some("./deploy.toml"), line);
        findings.add(&unknown(Some(3))).unwrap();
        findings.add(&note(Level::Error, "step `web` failed", None, None)).unwrap();
        let mut findings = Findings::open(path.clone()).unwrap();
        findings.add(&unknown(Some(9))).unwrap();
        findings.add(&note(Level::Notice, "old", Some("a"), None)).unwrap();
        let mut report: serde_json::Value = serde_json::from_str(&report()).unwrap();
        for finding in report.as_array_mut().unwrap() {
            let fingerprint = finding["fingerprint"].take();
            assert_eq!(fingerprint.as_str().unwrap().len(), 64);
        }
        let of = |text: &str, check: &str, severity: &str, path: &str, begin: usize| {
            serde_json::json!({
                "description": text, "check_name": check, "fingerprint": null, "severity": severity,
                "location": {"path": path, "lines": {"begin": begin}},
            })
        };
        let unknown = |begin| of("unknown key [F0012]\nhelp: `to`", "F0012", "major", "deploy.toml", begin);
        assert_eq!(
            report,
            serde_json::json!([unknown(3), unknown(9), of("old", "flowline", "info", "a", 1)])
        );
        let prints: std::collections::BTreeSet<_> =
            findings.all.iter().map(|finding| finding.fingerprint.clone()).collect();
        assert_eq!(prints.len(), 3, "each finding is one of its own");
    }
}
