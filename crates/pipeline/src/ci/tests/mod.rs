//! Each system's files are in a module of their own; here is what holds for all of them.

mod azure;
mod declarative;
mod github;
mod gitlab;
mod jenkins;
mod reporting;

use std::collections::BTreeSet;

use super::*;

fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

fn variable(text: &str) -> Variable {
    Variable::new(text).unwrap()
}

fn constant(text: &str) -> Constant {
    Constant::new(text).unwrap()
}

/// Everything that a wrapper can say and `kind` doesn't refuse.
pub(super) fn full(kind: CiKind) -> Wrapper {
    let jenkins = kind == CiKind::Jenkins;
    let mut preview = Job::new(
        label("preview"),
        words(["deployer", "preview", "--note", "it's ${{ new }} for $(you)"]).unwrap(),
    );
    preview.environment = Some(Environment {
        name: "preview".parse().unwrap(),
        per_change: true,
        url: Some(Url::Output(variable("url"))),
        stop: Some(Stop { call: words(["deployer", "close"]).unwrap(), after_hours: Some(72) }),
    });
    preview.outputs = [variable("url")].into();
    preview.concurrency = (!jenkins).then(|| Concurrency {
        group: label("preview"),
        per_change: true,
        policy: Later::CancelRunning,
    });
    preview.permissions.insert(Scope::PullRequests, Access::Write);
    preview.clean_up = words(["deployer", "clean-up"]).unwrap();
    preview.timeout_minutes = 20;

    let mut deploy = Job::new(
        label("deploy-all"),
        words(["cargo", "run", "--locked", "--", "apply", "storefront"]).unwrap(),
    );
    deploy.needs = vec![label("preview")];
    deploy.environment = Some(Environment {
        url: Some(Url::Fixed(constant("https://awesome.com/"))),
        ..Environment::lasting("production".parse().unwrap())
    });
    deploy.concurrency =
        Some(Concurrency { group: label("production"), per_change: false, policy: Later::Queue });
    if !jenkins {
        deploy.identity = Some(Identity { audience: constant("https://vault.awesome.com") });
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

pub(super) fn targets() -> [Box<dyn CiTarget>; 4] {
    [
        Box::new(GitHub::default()),
        Box::new(GitLab::default()),
        Box::new(Azure::default()),
        Box::new(Jenkins::default()),
    ]
}

fn shown(target: &dyn CiTarget, wrapper: &Wrapper) -> String {
    let rendered = target.render(wrapper).unwrap();
    let (path, text) = rendered.files.first_key_value().unwrap();
    let notes: Vec<_> = rendered.notes.iter().map(|note| format!("note: {note}\n")).collect();
    format!("--- {path}\n{text}---\n{}", notes.concat())
}

#[test]
fn the_same_wrapper_gives_the_same_bytes() {
    for target in targets() {
        let wrapper = full(target.kind());
        assert_eq!(target.render(&wrapper).unwrap(), target.render(&wrapper).unwrap());
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
    for target in targets() {
        let wrapper = full(target.kind());
        let rendered = target.render(&wrapper).unwrap();
        let text = rendered.files.values().next().unwrap();
        let stops = matches!(target.kind(), CiKind::GitHub | CiKind::GitLab);
        let exec = if target.kind() == CiKind::GitHub { "exec " } else { "" };
        let expected: Vec<String> = wrapper
            .jobs
            .iter()
            .flat_map(|job| {
                let stopping = job.stopping().filter(|_| stops).map(|stopping| stopping.call);
                [Some(job.call.clone()), Some(job.clean_up.clone()), stopping].into_iter().flatten()
            })
            .filter(|words| !words.is_empty())
            .map(|words| format!("{exec}{}", shell::line(&words)))
            .collect();
        assert_eq!(commands(text), expected, "{}", target.kind());
        for command in commands(text) {
            assert!(!command.contains("${{") && !command.contains("$("), "{command}");
        }
    }
}

#[test]
fn what_weakens_a_job_is_refused() {
    let jenkins = |change: &dyn Fn(&mut Wrapper)| {
        let mut wrapper = full(CiKind::Jenkins);
        change(&mut wrapper);
        Jenkins::default().render(&wrapper).unwrap_err().to_string()
    };
    let error = jenkins(&|wrapper| {
        wrapper.jobs[1].identity = Some(Identity { audience: constant("https://vault.awesome.com") });
    });
    insta::assert_snapshot!(error, @"cannot render job `deploy-all` for Jenkins: it cannot say an identity; name a credential among `secrets`");
    let mut wrapper = full(CiKind::GitLab);
    wrapper.jobs[0].env.insert(variable("PRICE"), constant("$5"));
    let error = jenkins(&|jenkins| jenkins.jobs[0].env = wrapper.jobs[0].env.clone());
    insta::assert_snapshot!(error, @"cannot render job `preview` for Jenkins: it cannot say `$` in the value of `PRICE`; let the deployer read the value from a file");
    // What waits in a queue must not be aborted because something else is cancelled.
    let error = jenkins(&|wrapper| {
        let group = Concurrency { group: label("preview"), per_change: true, policy: Later::CancelRunning };
        wrapper.jobs[0].concurrency = Some(group);
    });
    insta::assert_snapshot!(error, @"cannot render job `deploy-all` for Jenkins: it cannot say that it goes on when another job is cancelled by a newer build; a newer build aborts all of the older one: put the jobs that cancel into a wrapper of their own");
    let gitlab = GitLab::default().render(&wrapper).unwrap();
    assert!(gitlab.files[".gitlab-ci.yml"].contains("PRICE:\n      value: $5\n      expand: false\n"));
}

#[test]
fn a_changed_file_is_shown_as_a_small_difference() {
    let rendered = GitHub::default().render(&full(CiKind::GitHub)).unwrap();
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
    @@ -20,5 +20,5 @@
         if: github.event_name == 'push' || github.event_name == 'pull_request' && github.event.action != 'closed' || github.event_name == 'schedule' || github.event_name == 'workflow_dispatch'
         runs-on: ubuntu-latest
    -    timeout-minutes: 90
    +    timeout-minutes: 20
         permissions:
           contents: read
    @@ -52,5 +52,5 @@
         if: github.event_name == 'pull_request' && github.event.action == 'closed'
         runs-on: ubuntu-latest
    -    timeout-minutes: 90
    +    timeout-minutes: 20
         permissions:
           contents: read
    ");
}

/// The lines of the job `name` in a rendered file, without its environment variables.
fn about(text: &str, name: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.contains(name)).map(|line| line.trim().to_owned());
    lines.collect()
}

#[test]
fn no_system_starts_a_lasting_environment_for_a_pull_request() {
    for target in targets() {
        let mut wrapper = full(target.kind());
        // Alone, so that nothing in the file but its own condition can hold it back.
        let deploy = wrapper.jobs.pop().unwrap();
        wrapper.jobs = vec![Job { needs: Vec::new(), inputs: BTreeMap::new(), ..deploy }];
        wrapper.triggers.push.truncate(1);
        wrapper.triggers.schedule.clear();
        let rendered = target.render(&wrapper).unwrap();
        let text = rendered.files.values().next().unwrap();
        let lines = about(text, if target.kind() == CiKind::Azure { "deploy_all" } else { "deploy-all" });
        let expected: &[&str] = match target.kind() {
            CiKind::GitHub => {
                &["if: github.event_name == 'push' || github.event_name == 'workflow_dispatch'"]
            }
            CiKind::GitLab => &[
                "rules:",
                r#"- if: $CI_PIPELINE_SOURCE == "push" && $CI_COMMIT_BRANCH == "main""#,
                r#"- if: $CI_PIPELINE_SOURCE == "web""#,
            ],
            CiKind::Azure => &[
                "condition: \"and(succeeded(), in(variables['Build.Reason'], 'IndividualCI', 'BatchedCI', 'Manual'))\"",
            ],
            _ => &[
                "beforeAgent true",
                "not { changeRequest() }",
                "anyOf {",
                "allOf {",
                "branch 'main'",
                "not { triggeredBy 'TimerTrigger' }",
                "}",
                "triggeredBy cause: 'UserIdCause'",
                "}",
            ],
        };
        assert!(lines.windows(expected.len()).any(|some| some == expected), "{text}");
        // Said aloud, it is refused before anything is rendered.
        wrapper.jobs[0].on = Some(wrapper.triggers.all());
        assert!(matches!(target.render(&wrapper), Err(RenderError::Wrapper(WrapperError::Exposed { .. }))));
    }
}
