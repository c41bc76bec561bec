//! What others say about rendered files: the vendors' schemas, an actionlint, and act, which executes a workflow.
//!
//! `FLOWLINE_CI_TOOLS` names the folder that `.ci/tools` filled; without it the programs are looked for on `PATH`. A missing one passes,
//! and fails when `FLOWLINE_CI` is `1`.

#![cfg(unix)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use flowline_core::{
    clock::ManualClock,
    digest::Digest,
    grant::{Authority, Grants},
    id::RunId,
    secret::Secret,
    store::MemoryStore,
};

use super::{tests::full, *};
use crate::{
    Cancel, Pipeline, Runner,
    pipeline::Constant as Value,
    plan::Planner,
    step::{Context, FnStep, Function, Registry},
};

const SECRET: &str = "hunter2-hunter2";

#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where programs are")]
fn environment() -> BTreeMap<String, String> {
    std::env::vars().collect()
}

#[expect(clippy::disallowed_methods, reason = "these tests exist to run other programs")]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

/// The program, or nothing if it is missing and may be.
fn tool(name: &str) -> Option<PathBuf> {
    let env = environment();
    let folder = env.get("FLOWLINE_CI_TOOLS").map(|folder| PathBuf::from(folder).join("bin"));
    let path =
        env.get("PATH").map(|path| std::env::split_paths(path).collect::<Vec<_>>()).unwrap_or_default();
    let found =
        folder.into_iter().chain(path).map(|folder| folder.join(name)).find(|program| program.is_file());
    if found.is_none() {
        let note = format!("{name} is missing: run `.ci/tools DIR` and set FLOWLINE_CI_TOOLS=DIR");
        assert!(env.get("FLOWLINE_CI").is_none_or(|value| value != "1"), "{note}");
        eprintln!("passed without a check: {note}");
    }
    found
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Wrappers of several shapes, each rendered for `target` and written to a file.
fn written(target: &dyn CiTarget, folder: &Path) -> Vec<PathBuf> {
    let mut bare = Wrapper::deploy("bare", ["./deploy it", "it's", "a: b #c", "${{ x }}"]).unwrap();
    bare.triggers = Triggers::default();
    bare.jobs[0].permissions.clear();
    let mut cleaning = full(target.kind());
    cleaning.name = Label::new("cleaning").unwrap();
    cleaning.jobs[1].clean_up = words(["deployer", "clean-up", "--all"]).unwrap();
    cleaning.jobs[1]
        .env
        .insert(Variable::new("PRICE").unwrap(), Constant::new("$5 'or' \"more\": yes").unwrap());
    let wrappers = [full(target.kind()), Wrapper::deploy("usual", ["deployer"]).unwrap(), bare, cleaning];
    let files = wrappers.iter().flat_map(|wrapper| target.render(wrapper).unwrap().files);
    let paths = files.enumerate().map(|(number, (path, text))| {
        let path = folder.join(number.to_string()).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    });
    paths.collect()
}

fn valid(target: &dyn CiTarget, schema: &[&str]) {
    let Some(program) = tool("check-jsonschema") else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = written(target, folder.path());
    let check = |files: &[PathBuf]| {
        command(&program).arg("--builtin-schema").args(schema).args(files).output().unwrap()
    };
    let output = check(&files);
    assert!(output.status.success(), "{}", text(&output));
    // A file that is wrong is told apart.
    let broken =
        fs::read_to_string(&files[0]).unwrap().replace("timeout", "time-out").replace("lockBehavior", "look");
    fs::write(&files[0], broken).unwrap();
    assert!(!check(&files[..1]).status.success());
}

#[test]
fn external_schema_takes_the_github_files() {
    valid(&GitHub::default(), &["vendor.github-workflows"]);
}

#[test]
fn external_schema_takes_the_gitlab_files() {
    let target =
        GitLab { image: Some("debian:12".to_owned()), tags: vec!["deploy".to_owned()], ..GitLab::default() };
    valid(&target, &["vendor.gitlab-ci", "--data-transform", "gitlab-ci"]);
}

#[test]
fn external_schema_takes_the_azure_files() {
    valid(&Azure::default(), &["vendor.azure-pipelines", "--regex-variant", "python"]);
}

#[test]
fn external_actionlint_finds_nothing_in_the_github_files() {
    let Some(program) = tool("actionlint") else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = written(&GitHub::default(), folder.path());
    let output = command(&program).args(&files).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let broken =
        fs::read_to_string(&files[0]).unwrap().replace("steps.deployer.outputs", "steps.nobody.outputs");
    fs::write(&files[0], broken).unwrap();
    assert!(!command(&program).arg(&files[0]).current_dir(folder.path()).output().unwrap().status.success());
}

/// The deployer of the test below: this test binary, called with this test's name. It does nothing otherwise.
#[tokio::test]
async fn a_deployer_called_by_a_wrapper() {
    let env = environment();
    if !env.contains_key("FLOWLINE_TEST_DEPLOYER") {
        return;
    }
    // The test harness has begun a line.
    println!();
    let kind = CiKind::detect(&env);
    let clock = Arc::new(ManualClock::default());
    let files = CiFiles::open(kind, &env).unwrap();
    let reporter =
        Arc::new(CiReporter::new(kind, std::io::stdout(), files, Arc::clone(&clock) as _, b"seed"));
    reporter.mask(&Secret::new(&env["DATABASE_PASSWORD"]));

    let build = Function::<u64, u64>::new("build", 1).unwrap();
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    let work = |n: u64, context: Context| {
        context.say(format!("built {n} with {SECRET}"));
        context.say("::error::printed by a program");
        std::future::ready(Ok(n + 1))
    };
    registry.function(&build, FnStep::pure(work));
    let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
    let first = pipeline.call("first", &build, Value(1));
    pipeline.call("second", &build, &first);
    let (registry, authority) =
        (Arc::new(registry), Authority::new("storefront".parse().unwrap(), &Grants::default()));
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock) as _);
    let sealed = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let store = Arc::new(MemoryStore::new());
    let runner = Runner::new(store, registry, authority, clock).reporter(Arc::clone(&reporter) as _);
    let report = runner.run(&RunId::new("deploy-7").unwrap(), &sealed, &Cancel::new()).await.unwrap();
    assert!(report.succeeded());

    let mut note = Annotation::new(Level::Warning, "an old key");
    (note.file, note.line) = (Some("flowline.toml".to_owned()), Some(3));
    reporter.annotate(&note);
    reporter.output(&Variable::new("plan").unwrap(), &sealed.digest().to_string()).unwrap();
    reporter.output(&Variable::new("password").unwrap(), &env["DATABASE_PASSWORD"]).unwrap_err();
    reporter.finish().unwrap();
    let facts = Facts::read(kind, &env);
    println!("change {:?} title {:?}", facts.change, facts.title);
    let summary = env.get("GITHUB_STEP_SUMMARY").or(env.get("FLOWLINE_SUMMARY")).unwrap();
    println!("summary {}", Digest::of(fs::read(summary).unwrap()));
}

/// The last word of the line in `log` that holds `what`.
fn word_after(log: &str, what: &str) -> String {
    let line =
        log.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no `{what}` in:\n{log}"));
    line.split([' ', '=']).next_back().unwrap().to_owned()
}

/// A repository in `folder` with the rendered `wrapper`, and the call of act that runs it there for `event`.
fn calling_act(act: &Path, event: &str, wrapper: &Wrapper, folder: &Path) -> Command {
    let repository = folder.join("repository");
    // act doesn't know `queue`.
    for (path, text) in GitHub::portable().render(wrapper).unwrap().files {
        let path = repository.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    for words in [
        &["init", "--quiet", "--initial-branch", "main"][..],
        &["add", "--all"],
        &["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message", "begin"],
    ] {
        let output = command(Path::new("git")).args(words).current_dir(&repository).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let mut calling = command(act);
    calling
        .args([event, "--platform", "ubuntu-latest=-self-hosted", "--no-cache-server"])
        .args(["--artifact-server-addr", "127.0.0.1"])
        .current_dir(repository)
        .env_clear()
        .env("PATH", environment().get("PATH").unwrap())
        .env("HOME", folder)
        .env("XDG_CACHE_HOME", folder.join("xdg"))
        .env("XDG_CONFIG_HOME", folder.join("xdg"));
    calling
}

/// Somebody cancels the run while the deployer works. What GitHub's server asks of its runner, act does when it is interrupted.
#[test]
fn external_act_cleans_up_when_a_run_is_cancelled() {
    let Some(act) = tool("act") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut wrapper = Wrapper::deploy("storefront", ["unused"]).unwrap();
    let job = &mut wrapper.jobs[0];
    job.call = words(["sh", "-c", "echo at work; exec sleep 600"]).unwrap();
    job.clean_up = words(["touch", &folder.join("cleaned-up").display().to_string()]).unwrap();
    let mut later = Job::new(Label::new("later").unwrap(), words(["echo", "went on"]).unwrap());
    later.needs = vec![job.id.clone()];
    wrapper.jobs.push(later);
    let mut running = calling_act(&act, "push", &wrapper, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut log: Vec<String> = Vec::new();
    while !log.last().is_some_and(|line| line.ends_with("| at work")) {
        log.push(lines.next().unwrap_or_else(|| panic!("it ended early: {log:#?}")));
    }
    assert!(!folder.join("cleaned-up").exists());
    let process = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    log.extend(lines);
    assert!(!running.wait().unwrap().success(), "{log:#?}");
    assert!(folder.join("cleaned-up").exists(), "{log:#?}");
    assert!(!log.iter().any(|line| line.ends_with("| went on")), "{log:#?}");
}

#[test]
fn external_act_gives_the_same_plan_and_outputs_as_the_laptop() {
    let Some(act) = tool("act") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let exe = std::env::current_exe().unwrap().display().to_string();
    let call = [exe.as_str(), "--exact", "ci::external::a_deployer_called_by_a_wrapper", "--nocapture"];

    // On the laptop.
    let (outputs, summary) = (folder.join("outputs"), folder.join("summary"));
    let laptop = command(Path::new(&exe))
        .args(&call[1..])
        .env_clear()
        .env("FLOWLINE_TEST_DEPLOYER", "1")
        .env("DATABASE_PASSWORD", SECRET)
        .env("FLOWLINE_OUTPUT", &outputs)
        .env("FLOWLINE_SUMMARY", &summary)
        .output()
        .unwrap();
    assert!(laptop.status.success(), "{}", text(&laptop));
    let outputs = fs::read_to_string(outputs).unwrap();
    let laptop = text(&laptop);
    assert!(outputs.starts_with("plan=sha256:"), "{outputs}");

    // Through the rendered workflow, started by a pull request with a hostile title.
    let mut wrapper = full(CiKind::GitHub);
    wrapper.jobs.remove(0);
    let job = &mut wrapper.jobs[0];
    job.needs.clear();
    job.inputs.clear();
    // A lasting environment has no business with a pull request.
    job.environment.as_mut().unwrap().per_change = true;
    job.call = words(call).unwrap();
    job.env.insert(Variable::new("FLOWLINE_TEST_DEPLOYER").unwrap(), Constant::new("1").unwrap());
    job.outputs = [Variable::new("plan").unwrap()].into();
    job.clean_up = words(["touch", &folder.join("cleaned-up").display().to_string()]).unwrap();
    let mut later = Job::new(Label::new("later").unwrap(), words(["printenv", "PLAN_BEFORE"]).unwrap());
    later.needs = vec![job.id.clone()];
    let from = OutputOf { job: job.id.clone(), output: Variable::new("plan").unwrap() };
    later.inputs = [(Variable::new("PLAN_BEFORE").unwrap(), from)].into();
    wrapper.jobs.push(later);
    let mut failing = Job::new(Label::new("failing").unwrap(), words(["false"]).unwrap());
    failing.clean_up = words(["touch", &folder.join("failure-cleaned-up").display().to_string()]).unwrap();
    wrapper.jobs.push(failing);
    let touch = words(["touch", &folder.join("deployed").display().to_string()]).unwrap();
    let mut lasting = Job::new(Label::new("lasting").unwrap(), touch);
    lasting.environment = Some(Environment::lasting("production".parse().unwrap()));
    wrapper.jobs.push(lasting);
    let cache = folder.join("cache");
    fs::create_dir(&cache).unwrap();
    let action = "name: cache\ninputs: {path: {}, key: {}}\nruns: {using: composite, steps: [{run: 'true', shell: bash}]}\n";
    fs::write(cache.join("action.yml"), action).unwrap();
    // Jobs run in a copy of the repository, so what they touch has its place beside it.
    let pwned = folder.join("pwned").display().to_string();
    let title = format!(
        "\"; touch {pwned}; $(touch {pwned}) `touch {pwned}` ${{{{ secrets.DATABASE_PASSWORD }}}} ::error::x"
    );
    let event = serde_json::json!({
        "action": "opened",
        "pull_request": { "number": 7, "title": title, "head": { "ref": "feature" }, "base": { "ref": "main" } },
    });
    fs::write(folder.join("event.json"), event.to_string()).unwrap();
    let output = calling_act(&act, "pull_request", &wrapper, folder)
        .args(["--secret", &format!("DATABASE_PASSWORD={SECRET}")])
        .arg("--local-repository")
        .arg(format!("actions/cache@v5={}", cache.display()))
        .arg("--eventpath")
        .arg(folder.join("event.json"))
        .output()
        .unwrap();
    let log = text(&output);
    // The failing job fails the run, and the others don't care.
    assert!(!output.status.success(), "{log}");
    assert!(log.matches("Job succeeded").count() == 2, "{log}");

    let plan = word_after(&log, "::set-output:: plan=");
    assert_eq!(format!("plan={plan}\n"), outputs, "{log}");
    assert!(log.contains(&format!("| {plan}")), "{log}");
    assert_eq!(word_after(&log, "summary sha256:"), word_after(&laptop, "summary sha256:"));
    assert!(log.contains("change Some(7) title Some(\"\\\"; touch /"), "{log}");
    for secretive in [&log, &laptop, &outputs] {
        assert!(!secretive.contains(SECRET), "{secretive}");
    }
    assert!(log.contains("built 1 with ***") && log.contains("| ::error::printed by a program"), "{log}");
    let touched = |name: &str| fs::exists(folder.join(name)).unwrap();
    assert!(!touched("pwned") && !touched("cleaned-up") && touched("failure-cleaned-up"), "{log}");
    assert!(!touched("deployed"), "{log}");
}
