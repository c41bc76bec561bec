//! What a run says in each system's language.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
};

use flowline_core::{SignedDuration, clock::ManualClock, digest::Digest, id::RunId, secret::Secret};

use super::{super::*, variable};
use crate::{
    exec::{Line, Stream},
    plan::StepId,
    run::{Progress, Reporter, Why},
};

/// A writer that can be read while it is written to.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

struct Told {
    reporter: CiReporter<Vec<u8>>,
    outputs: Shared,
    summary: Shared,
}

fn told(kind: CiKind) -> Told {
    let (outputs, summary) = (Shared::default(), Shared::default());
    let files = CiFiles {
        outputs: Some(Box::new(outputs.clone())),
        summary: Some(Box::new(summary.clone())),
        summary_path: (kind == CiKind::Azure).then(|| "/agent/summary;1.md".into()),
        findings: None,
    };
    let clock = Arc::new(ManualClock::default());
    Told { reporter: CiReporter::new(kind, Vec::new(), files, clock, b"seed"), outputs, summary }
}

fn line(text: &str) -> Line {
    Line { stream: Stream::Out, bytes: text.into(), cut: false }
}

/// Two steps beside each other; one fails.
fn tell(reporter: &impl Reporter) {
    let (web, api): (StepId, StepId) = (StepId::new("web").unwrap(), StepId::new("api").unwrap());
    let run = RunId::new("deploy-7").unwrap();
    let took = SignedDuration::from_millis(1_500);
    for progress in [
        Progress::Begun { run: &run, plan: Digest::of("plan"), steps: 2, done: 0 },
        Progress::Started { step: &web, attempt: 1 },
        Progress::Started { step: &api, attempt: 1 },
        Progress::Line { step: &web, line: &line("building") },
        Progress::Line { step: &api, line: &line("::set-output name=x::injected\r::error::x") },
        Progress::Line { step: &web, line: &line("##vso[task.complete result=Failed;] hunter2!") },
        Progress::Failed { step: &api, error: "exit code 1\n::add-mask::e", again: None },
        Progress::Line { step: &web, line: &line("built") },
        Progress::Finished { step: &web, took, why: &Why::Due },
        Progress::Ended { outcome: "failed" },
    ] {
        reporter.report(&progress);
    }
}

#[test]
fn steps_beside_each_other_have_groups_that_never_mix() {
    let shown = |kind| {
        let told = told(kind);
        told.reporter.mask(&Secret::new("hunter2!"));
        tell(&told.reporter);
        let log = String::from_utf8(told.reporter.into_inner()).unwrap();
        (log.replace('\u{1b}', "ESC").replace('\r', "CR"), told.summary.text())
    };
    let (log, summary) = shown(CiKind::GitHub);
    insta::assert_snapshot!(log, @"
    ::add-mask::hunter2!
    run deploy-7: 2 steps of plan 64879f7d6b96
    ::group::web
    building
    ##vso[task.complete result=Failed;] ***
    ::endgroup::
    ::group::api
    | ::set-output name=x::injectedCR| ::error::x
    ::endgroup::
    api: failed: exit code 1
    | ::add-mask::e
    ::error::step `api` failed: exit code 1%0A::add-mask::e
    ::group::web
    built
    ::endgroup::
    web: finished in 1.5 s; it was its turn
    run failed
    ");
    insta::assert_snapshot!(summary, @"
    ### run failed

    | step | what happened |
    | --- | --- |
    | `api` | **failed**: exit code 1 ::add-mask::e |
    | `web` | finished; it was its turn |
    ");
    insta::assert_snapshot!(shown(CiKind::GitLab).0, @"
    run deploy-7: 2 steps of plan 64879f7d6b96
    ESC[0Ksection_start:1767225600:step_1[collapsed=true]CRESC[0Kweb
    building
    ##vso[task.complete result=Failed;] ***
    ESC[0Ksection_end:1767225600:step_1CRESC[0K
    ESC[0Ksection_start:1767225600:step_2[collapsed=true]CRESC[0Kapi
    ::set-output name=x::injectedCR::error::x
    ESC[0Ksection_end:1767225600:step_2CRESC[0K
    api: failed: exit code 1
    ::add-mask::e
    ESC[0Ksection_start:1767225600:step_3[collapsed=true]CRESC[0Kweb
    built
    ESC[0Ksection_end:1767225600:step_3CRESC[0K
    web: finished in 1.5 s; it was its turn
    run failed
    ");
    insta::assert_snapshot!(shown(CiKind::Azure).0, @"
    ##vso[task.setsecret]hunter2!
    run deploy-7: 2 steps of plan 64879f7d6b96
    ##[group]web
    building
    # #vso[task.complete result=Failed;] ***
    ##[endgroup]
    ##[group]api
    ::set-output name=x::injectedCR::error::x
    ##[endgroup]
    api: failed: exit code 1
    ::add-mask::e
    ##vso[task.logissue type=error;]step `api` failed: exit code 1%0A::add-mask::e
    ##[group]web
    built
    ##[endgroup]
    web: finished in 1.5 s; it was its turn
    run failed
    ##vso[task.uploadsummary]/agent/summary%3B1.md
    ");
    insta::assert_snapshot!(shown(CiKind::None).0, @"
    run deploy-7: 2 steps of plan 64879f7d6b96
    web
    building
    ##vso[task.complete result=Failed;] ***
    api
    ::set-output name=x::injectedCR::error::x
    api: failed: exit code 1
    ::add-mask::e
    web
    built
    web: finished in 1.5 s; it was its turn
    run failed
    ");
}

#[test]
fn outputs_speak_each_systems_form_and_never_hold_a_secret() {
    let encoded = "aHVudGVyMiE=";
    for (kind, expected) in [
        (CiKind::GitLab, "url=https://a.b/?x=1\n"),
        (CiKind::Jenkins, "url=https://a.b/?x=1\n"),
        (CiKind::None, "url=https://a.b/?x=1\n"),
    ] {
        let told = told(kind);
        told.reporter.mask(&Secret::new("hunter2!"));
        told.reporter.output(&variable("url"), "https://a.b/?x=1").unwrap();
        assert_eq!(told.outputs.text(), expected);
        let error = told.reporter.output(&variable("url"), "a\nb").unwrap_err();
        assert!(matches!(error, CiError::NotOneLine { .. }), "{error}");
    }
    for kind in [CiKind::GitHub, CiKind::GitLab, CiKind::Azure, CiKind::Jenkins, CiKind::None] {
        let told = told(kind);
        told.reporter.mask(&Secret::new("hunter2!"));
        for value in ["hunter2!", "x hunter2! y", encoded, "hunter2%21"] {
            let error = told.reporter.output(&variable("password"), value).unwrap_err();
            assert!(matches!(error, CiError::HoldsSecret { .. }), "{error}");
            assert!(!error.to_string().contains(value));
        }
        assert_eq!(told.outputs.text(), "");
    }
    let github = told(CiKind::GitHub);
    github.reporter.output(&variable("plan"), "a\nb").unwrap();
    let text = github.outputs.text();
    assert!(text.starts_with("plan<<flowline_") && text.contains("\na\nb\nflowline_"), "{text}");
    let azure = told(CiKind::Azure);
    azure.reporter.output(&variable("plan"), "a;b]").unwrap();
    let log = String::from_utf8(azure.reporter.into_inner()).unwrap();
    assert_eq!(log, "##vso[task.setvariable variable=plan;isOutput=true]a%3Bb%5D\n");
}

#[test]
fn a_summary_is_cut_before_it_is_refused() {
    let told = told(CiKind::GitHub);
    for _ in 0..5 {
        told.reporter.summary(&"ä".repeat(200_000)).unwrap();
    }
    let text = told.summary.text();
    assert!(text.len() <= 1_024 * 1_024 && text.len() > 1_000_000, "{}", text.len());
    assert!(text.ends_with("(cut here: a summary holds 1 MiB)\n"));
    assert_eq!(text.matches("cut here").count(), 1);
}

#[test]
fn after_ten_annotations_the_rest_are_lines() {
    let told = told(CiKind::GitHub);
    for number in 0..12 {
        told.reporter.annotate(&Annotation::new(Level::Warning, format!("w{number}")));
    }
    told.reporter.annotate(&Annotation::new(Level::Error, "e"));
    let log = String::from_utf8(told.reporter.into_inner()).unwrap();
    assert_eq!(log.matches("::warning::").count(), 10);
    assert!(log.ends_with("warning: w10\nwarning: w11\n::error::e\n"), "{log}");
}

#[test]
fn what_is_kept_of_a_step_that_waits_is_bounded() {
    let told = told(CiKind::GitHub);
    let (web, api) = (StepId::new("web").unwrap(), StepId::new("api").unwrap());
    told.reporter.report(&Progress::Started { step: &web, attempt: 1 });
    told.reporter.report(&Progress::Started { step: &api, attempt: 1 });
    for number in 0..1_000 {
        told.reporter.report(&Progress::Line { step: &api, line: &line(&format!("line {number}")) });
    }
    told.reporter.report(&Progress::Finished { step: &api, took: SignedDuration::ZERO, why: &Why::Due });
    let log = String::from_utf8(told.reporter.into_inner()).unwrap();
    assert!(log.starts_with("::group::api\n(600 earlier lines are not shown)\nline 600\n"), "{log}");
    assert!(log.ends_with("line 999\n::endgroup::\napi: finished in 0 ms; it was its turn\n"));
}

#[test]
fn what_is_undone_has_one_group_for_all_its_lines() {
    let told = told(CiKind::GitHub);
    let web = StepId::new("web").unwrap();
    told.reporter.report(&Progress::Undoing { reason: "step `api` failed" });
    for text in ["taking back", "taken back"] {
        told.reporter.report(&Progress::Line { step: &web, line: &line(text) });
    }
    told.reporter.report(&Progress::UndoFailed { step: &web, error: "it is gone" });
    let log = String::from_utf8(told.reporter.into_inner()).unwrap();
    insta::assert_snapshot!(log, @"
    undoing: step `api` failed
    ::group::web
    taking back
    taken back
    ::endgroup::
    web: could not be undone: it is gone
    ::error::step `web` could not be undone: it is gone
    ");
}

#[test]
fn short_secrets_are_not_masked_and_that_is_said() {
    let told = told(CiKind::GitHub);
    told.reporter.mask(&Secret::new("on"));
    told.reporter.mask(&Secret::new("first line\nno\nthird line"));
    let log = String::from_utf8(told.reporter.into_inner()).unwrap();
    let expected = "warning: a secret of less than 4 bytes is not hidden; choose a longer one\n\
                    ::add-mask::first line%0Ano%0Athird line\n::add-mask::first line\n::add-mask::third line\n";
    assert_eq!(log, expected);
}

#[test]
fn files_are_opened_where_the_system_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out").display().to_string();
    let env = BTreeMap::from([("GITHUB_OUTPUT".to_owned(), path.clone())]);
    let files = CiFiles::open(CiKind::GitHub, &env).unwrap();
    assert!(files.outputs.is_some() && files.summary.is_none());
    let env = BTreeMap::from([("GITHUB_OUTPUT".to_owned(), format!("{path}/no/such"))]);
    let error = CiFiles::open(CiKind::GitHub, &env).unwrap_err();
    assert!(matches!(error, CiError::Write { .. }), "{error}");
}

#[test]
fn what_a_program_says_is_no_markup_in_the_summary() {
    let told = told(CiKind::GitHub);
    told.reporter.mask(&Secret::new("a|b!c"));
    let step = StepId::new("api").unwrap();
    let error = r"![x](https://evil.example/a|b!c) \| <img src=x> &lt; `code` **bold**";
    told.reporter.report(&Progress::Failed { step: &step, error, again: None });
    told.reporter.report(&Progress::Ended { outcome: "failed" });
    insta::assert_snapshot!(told.summary.text(), @r"
    ### run failed

    | step | what happened |
    | --- | --- |
    | `api` | **failed**: \!\[x\](https://evil.example/***) \\\| &lt;img src=x> &amp;lt; \`code\` **bold** |
    ");
}

#[test]
fn an_annotations_file_is_masked_too() {
    let told = told(CiKind::GitHub);
    told.reporter.mask(&Secret::new("hunter2!"));
    let mut note = Annotation::new(Level::Error, "cannot read hunter2!");
    note.file = Some("keys/hunter2!.toml".to_owned());
    told.reporter.annotate(&note);
    let log = String::from_utf8(told.reporter.into_inner()).unwrap();
    assert_eq!(log, "::add-mask::hunter2!\n::error file=keys/***.toml::cannot read ***\n");
}
