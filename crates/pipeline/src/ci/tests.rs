use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    sync::{Arc, Mutex},
};

use flowline_core::{SignedDuration, clock::ManualClock, digest::Digest, id::RunId, secret::Secret};

use super::*;
use crate::{
    exec::{Line, Stream},
    plan::StepId,
    run::{Progress, Reporter, Why},
};

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn variable(text: &str) -> Variable {
    Variable::new(text).unwrap()
}

fn constant(text: &str) -> Constant {
    Constant::new(text).unwrap()
}

/// Everything that a wrapper can say; `identity` and inputs apart, which Jenkins refuses.
pub(super) fn full(identity: bool) -> Wrapper {
    let mut preview = Job::new(
        label("preview"),
        words(["deployer", "preview", "--note", "it's ${{ new }} for $(you)"]).unwrap(),
    );
    preview.environment = Some(Environment {
        name: "preview".parse().unwrap(),
        per_change: true,
        url: Some(Url::Output(variable("url"))),
    });
    preview.outputs = [variable("url")].into();
    preview.concurrency =
        Some(Concurrency { group: label("preview"), per_change: true, policy: Later::CancelRunning });
    preview.permissions.insert(Scope::PullRequests, Access::Write);
    preview.clean_up = words(["deployer", "clean-up"]).unwrap();
    preview.timeout_minutes = 20;

    let mut deploy = Job::new(
        label("deploy-all"),
        words(["cargo", "run", "--locked", "--", "apply", "storefront"]).unwrap(),
    );
    deploy.needs = vec![label("preview")];
    deploy.environment = Some(Environment {
        name: "production".parse().unwrap(),
        per_change: false,
        url: Some(Url::Fixed(constant("https://awesome.com/"))),
    });
    deploy.concurrency =
        Some(Concurrency { group: label("production"), per_change: false, policy: Later::Queue });
    deploy.identity = identity.then(|| Identity { audience: constant("https://vault.awesome.com") });
    if identity {
        let from = OutputOf { job: label("preview"), output: variable("url") };
        deploy.inputs = [(variable("url"), from)].into();
    }
    deploy.env = [(variable("REGION"), constant("eu: west #1"))].into();
    deploy.secrets = [variable("DATABASE_PASSWORD")].into();
    deploy.cache =
        Some(Cache { path: constant("target"), key: label("deployer"), files: vec![constant("Cargo.lock")] });
    Wrapper {
        name: label("storefront"),
        triggers: Triggers {
            push: vec![Branches::new("main").unwrap(), Branches::new("release/*").unwrap()],
            pull_request: BTreeSet::from([
                PullRequestEvent::Opened,
                PullRequestEvent::Synchronize,
                PullRequestEvent::Closed,
            ]),
            schedule: vec![Cron::new("30 4 * * 1-5").unwrap()],
            manual: true,
        },
        jobs: vec![preview, deploy],
    }
}

/// The targets, with whether each takes an identity.
pub(super) fn targets() -> [(Box<dyn CiTarget>, bool); 4] {
    [
        (Box::new(GitHub::default()), true),
        (Box::new(GitLab::default()), true),
        (Box::new(Azure::default()), true),
        (Box::new(Jenkins::default()), false),
    ]
}

fn shown(target: &dyn CiTarget, identity: bool) -> String {
    let rendered = target.render(&full(identity)).unwrap();
    let (path, text) = rendered.files.first_key_value().unwrap();
    let notes: Vec<_> = rendered.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!("--- {path}\n{text}---\n{}", notes.concat())
}

#[test]
fn github_actions_says_it_all() {
    insta::assert_snapshot!(shown(&GitHub::default(), true), @r#"
    --- .github/workflows/storefront.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    name: storefront
    on:
      push:
        branches:
          - main
          - release/*
      pull_request:
        types:
          - opened
          - synchronize
          - closed
      schedule:
        - cron: "30 4 * * 1-5"
      workflow_dispatch: {}
    permissions: {}
    jobs:
      preview:
        runs-on: ubuntu-latest
        timeout-minutes: 20
        permissions:
          contents: read
          pull-requests: write
        environment:
          name: preview-${{ github.event.pull_request.number || github.run_id }}
          url: ${{ steps.deployer.outputs.url }}
        concurrency:
          group: preview-${{ github.event.pull_request.number || github.run_id }}
          cancel-in-progress: true
        outputs:
          url: ${{ steps.deployer.outputs.url }}
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: preview
            id: deployer
            run: "exec deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
          - name: Clean up
            if: failure() || cancelled()
            run: exec deployer clean-up
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
      deploy-all:
        runs-on: ubuntu-latest
        needs:
          - preview
        timeout-minutes: 60
        permissions:
          contents: read
          id-token: write
        environment:
          name: production
          url: "https://awesome.com/"
        concurrency:
          group: production
          cancel-in-progress: false
          queue: max
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: Keep the deployer between runs
            uses: actions/cache@v5
            with:
              path: target
              key: deployer-${{ runner.os }}-${{ hashFiles('Cargo.lock') }}
          - name: deploy-all
            id: deployer
            run: exec cargo run --locked -- apply storefront
            env:
              FLOWLINE_CHANGE: ${{ github.event.pull_request.number }}
              FLOWLINE_CHANGE_TITLE: ${{ github.event.pull_request.title }}
              FLOWLINE_AUDIENCE: "https://vault.awesome.com"
              url: ${{ needs.preview.outputs.url }}
              REGION: "eu: west #1"
              DATABASE_PASSWORD: ${{ secrets.DATABASE_PASSWORD }}
    ---
    "#);
}

#[test]
fn gitlab_says_it_in_rules_and_resource_groups() {
    insta::assert_snapshot!(shown(&GitLab::default(), true), @r#"
    --- .gitlab-ci.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    workflow:
      auto_cancel:
        on_new_commit: interruptible
      rules:
        - if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main"
        - if: "$CI_PIPELINE_SOURCE == \"push\" && $CI_COMMIT_BRANCH =~ /^release\\/[^\\/]*$/"
        - if: $CI_PIPELINE_SOURCE == "merge_request_event"
        - if: $CI_PIPELINE_SOURCE == "schedule"
        - if: $CI_PIPELINE_SOURCE == "web"
    preview:
      timeout: "20 minutes"
      interruptible: true
      environment:
        name: preview-$CI_MERGE_REQUEST_IID
        url: $url
      variables:
        FLOWLINE_OUTPUT: flowline.env
      script:
        - "deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
      after_script:
        - deployer clean-up
      artifacts:
        reports:
          dotenv: flowline.env
    deploy-all:
      needs:
        - preview
      timeout: "60 minutes"
      resource_group: production
      environment:
        name: production
        url: "https://awesome.com/"
      id_tokens:
        FLOWLINE_ID_TOKEN:
          aud: "https://vault.awesome.com"
      variables:
        REGION: "eu: west #1"
      cache:
        key:
          files:
            - Cargo.lock
          prefix: deployer
        paths:
          - target
      script:
        - cargo run --locked -- apply storefront
    ---
    note: GitLab keeps schedules outside of files: add `30 4 * * 1-5` in the project
    note: GitLab starts nothing when a merge request is closed: give previews a time to live
    note: job `preview`: rights of the job token are set in the project
    note: job `deploy-all`: set `DATABASE_PASSWORD` as masked, protected variables of the project
    note: job `deploy-all`: set the process mode of its resource group to `oldest_first` through the API
    "#);
}

#[test]
fn azure_has_a_stage_for_each_job() {
    insta::assert_snapshot!(shown(&Azure::default(), true), @r#"
    --- azure-pipelines.yml
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    trigger:
      branches:
        include:
          - main
          - release/*
    pr:
      branches:
        include:
          - "*"
    schedules:
      - cron: "30 4 * * 1-5"
        displayName: at 30 4 * * 1-5
        branches:
          include:
            - main
            - release/*
        always: "true"
    pool:
      vmImage: ubuntu-latest
    stages:
      - stage: preview
        dependsOn: []
        lockBehavior: runLatest
        jobs:
          - job: preview
            timeoutInMinutes: "20"
            steps:
              - checkout: self
                persistCredentials: "false"
              - bash: "deployer preview --note 'it'\\''s $''{{ new }} for $''(you)'"
                name: deployer
                displayName: preview
              - bash: deployer clean-up
                displayName: Clean up
                condition: or(failed(), canceled())
      - stage: deploy_all
        dependsOn:
          - preview
        lockBehavior: sequential
        jobs:
          - deployment: deploy_all
            timeoutInMinutes: "60"
            environment: production
            variables:
              url: "$[ stageDependencies.preview.preview.outputs['deployer.url'] ]"
            strategy:
              runOnce:
                deploy:
                  steps:
                    - checkout: self
                      persistCredentials: "false"
                    - task: Cache@2
                      displayName: Keep the deployer between runs
                      inputs:
                        key: "\"deployer\" | \"$(Agent.OS)\" | Cargo.lock"
                        path: target
                    - bash: cargo run --locked -- apply storefront
                      name: deployer
                      displayName: deploy-all
                      env:
                        SYSTEM_ACCESSTOKEN: $(System.AccessToken)
                        FLOWLINE_AUDIENCE: "https://vault.awesome.com"
                        REGION: "eu: west #1"
                        DATABASE_PASSWORD: $(DATABASE_PASSWORD)
                        url: $(url)
    ---
    note: Azure starts nothing when a pull request is closed: give previews a time to live
    note: Azure Repos ignores `pr:`; add a build validation policy to the branch there
    note: job `preview`: `lockBehavior` acts through an exclusive lock check; add one to its environment
    note: job `preview`: Azure has no environments made at run time; it is an ordinary job, and the deployer keeps the history
    note: job `preview`: an Azure environment shows no address; read it in the summary
    note: job `preview`: rights of the job token are set in the project
    note: job `deploy-all`: `lockBehavior` acts through an exclusive lock check; add one to its environment
    note: job `deploy-all`: an Azure environment shows no address; read it in the summary
    "#);
}

#[test]
fn jenkins_has_a_declarative_file() {
    insta::assert_snapshot!(shown(&Jenkins::default(), false), @r"
    --- Jenkinsfile
    // Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    // It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    pipeline {
        agent any
        options {
            disableConcurrentBuilds(abortPrevious: true)
        }
        triggers {
            cron('TZ=Etc/UTC\n30 4 * * 1-5')
        }
        stages {
            stage('preview') {
                when {
                    beforeAgent true
                    anyOf {
                        branch 'main'
                        branch 'release/*'
                        changeRequest()
                        triggeredBy 'TimerTrigger'
                        triggeredBy cause: 'UserIdCause'
                    }
                }
                options {
                    timeout(time: 20, unit: 'MINUTES')
                }
                environment {
                    FLOWLINE_OUTPUT = 'flowline.env'
                }
                steps {
                    sh 'deployer preview --note \'it\'\\\'\'s $\'\'{{ new }} for $\'\'(you)\''
                }
                post {
                    success {
                        archiveArtifacts artifacts: 'flowline.env'
                    }
                    unsuccessful {
                        sh 'deployer clean-up'
                    }
                }
            }
            stage('deploy-all') {
                when {
                    beforeAgent true
                    anyOf {
                        branch 'main'
                        branch 'release/*'
                        changeRequest()
                        triggeredBy 'TimerTrigger'
                        triggeredBy cause: 'UserIdCause'
                    }
                }
                options {
                    timeout(time: 60, unit: 'MINUTES')
                    lock(resource: 'production')
                }
                environment {
                    REGION = 'eu: west #1'
                    DATABASE_PASSWORD = credentials('DATABASE_PASSWORD')
                }
                steps {
                    sh 'cargo run --locked -- apply storefront'
                }
            }
        }
    }
    ---
    note: Jenkins starts nothing when a change is closed: give previews a time to live
    note: which pushes and changes start a build is set in the multibranch project
    note: job `preview`: each change builds in a project of its own; its group is not split
    note: job `preview`: Jenkins has no environments; the deployer keeps the history
    note: job `preview`: rights on the forge are those of the project's credential
    note: job `deploy-all`: its lock needs the plugin Lockable Resources
    note: job `deploy-all`: Jenkins has no environments; the deployer keeps the history
    note: job `deploy-all`: nothing is cached; the agent's workspace persists by itself
    note: job `deploy-all`: rights on the forge are those of the project's credential
    ");
}

#[test]
fn the_usual_wrapper_is_short() {
    let wrapper = Wrapper::deploy("storefront", ["deployer"]).unwrap();
    let rendered = GitHub::default().render(&wrapper).unwrap();
    insta::assert_snapshot!(rendered.files[".github/workflows/storefront.yml"], @"
    # Rendered by flowline from the wrapper `storefront`. Change the wrapper, not this file.
    # It holds no logic: each job is one call of the deployer, which runs the same everywhere.
    name: storefront
    on:
      push:
        branches:
          - main
      workflow_dispatch: {}
    permissions: {}
    jobs:
      deploy:
        runs-on: ubuntu-latest
        timeout-minutes: 60
        permissions:
          contents: read
        concurrency:
          group: storefront
          cancel-in-progress: false
          queue: max
        steps:
          - name: Check out
            uses: actions/checkout@v5
            with:
              persist-credentials: false
          - name: deploy
            id: deployer
            run: exec deployer apply storefront
    ");
    assert!(Wrapper::deploy("Store Front", ["deployer"]).is_err());
}

#[test]
fn the_same_wrapper_gives_the_same_bytes() {
    for (target, identity) in targets() {
        assert_eq!(target.render(&full(identity)).unwrap(), target.render(&full(identity)).unwrap());
    }
}

/// The commands of a rendered file: what a shell would be given.
fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = text.lines().map(str::trim).peekable();
    while let Some(line) = lines.next() {
        let line = line.strip_prefix("- ").unwrap_or(line);
        if let Some(list) =
            ["script:", "after_script:"].into_iter().find(|key| line == *key).map(|_| &mut lines)
        {
            while let Some(item) = list.next_if(|line| line.starts_with("- ")) {
                commands.push(item[2..].to_owned());
            }
        } else if let Some(command) =
            ["run: ", "bash: ", "script: ", "sh "].iter().find_map(|key| line.strip_prefix(key))
        {
            commands.push(command.to_owned());
        }
    }
    let unquoted = |command: String| match command.as_bytes().first() {
        Some(b'"') => serde_json::from_str(&command).unwrap(),
        Some(b'\'') => command[1..command.len() - 1].replace("\\'", "'").replace("\\\\", "\\"),
        _ => command,
    };
    commands.into_iter().map(unquoted).collect()
}

#[test]
fn a_file_holds_calls_of_the_deployer_and_no_logic() {
    for (target, identity) in targets() {
        let wrapper = full(identity);
        let rendered = target.render(&wrapper).unwrap();
        let text = rendered.files.values().next().unwrap();
        let exec = if target.kind() == CiKind::GitHub { "exec " } else { "" };
        let expected: Vec<String> = wrapper
            .jobs
            .iter()
            .flat_map(|job| [&job.call, &job.clean_up])
            .filter(|words| !words.is_empty())
            .map(|words| format!("{exec}{}", shell::line(words)))
            .collect();
        assert_eq!(commands(text), expected, "{}", target.kind());
        for command in commands(text) {
            assert!(!command.contains("${{") && !command.contains("$("), "{command}");
        }
    }
}

#[test]
fn what_weakens_a_job_is_refused() {
    let error = Jenkins::default().render(&full(true)).unwrap_err();
    insta::assert_snapshot!(error, @"cannot render job `deploy-all` for Jenkins: it cannot say an identity; name a credential among `secrets`");
    let mut wrapper = full(false);
    wrapper.jobs[0].env.insert(variable("PRICE"), constant("$5"));
    insta::assert_snapshot!(Jenkins::default().render(&wrapper).unwrap_err(), @"cannot render job `preview` for Jenkins: it cannot say `$` in the value of `PRICE`; let the deployer read the value from a file");
    let gitlab = GitLab::default().render(&wrapper).unwrap();
    assert!(gitlab.files[".gitlab-ci.yml"].contains("PRICE:\n      value: $5\n      expand: false\n"));
}

#[test]
fn a_changed_file_is_shown_as_a_small_difference() {
    let rendered = GitHub::default().render(&full(true)).unwrap();
    let text = &rendered.files[".github/workflows/storefront.yml"];
    assert_eq!(compare(Some(text), text), Compared::Same);
    let Compared::Differs(diff) =
        compare(Some(&text.replace("timeout-minutes: 20", "timeout-minutes: 90")), text)
    else {
        panic!("it differs");
    };
    insta::assert_snapshot!(diff, @"
    --- committed
    +++ rendered
    @@ -19,5 +19,5 @@
       preview:
         runs-on: ubuntu-latest
    -    timeout-minutes: 90
    +    timeout-minutes: 20
         permissions:
           contents: read
    ");
}

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
