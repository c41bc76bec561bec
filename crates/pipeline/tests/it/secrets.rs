//! One secret, planted wherever a command can meet it, and looked for in everything that is kept or shown.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
};

use flowline_core::{
    SignedDuration,
    clock::{Clock, SystemClock},
    digest::Digest,
    error::{Kinded, chain},
    id::RunId,
    secret::Secret,
    store::{EventQuery, Position, SqliteStore, Store},
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    ci::{CiFiles, CiKind, CiReporter},
    exec::{Command, Executor, LocalExecutor},
    pipeline::Named,
    plan::{PlanError, Planner, StepId},
    report::{EventReporter, Logs, RunView},
    run::{CollectingReporter, Ended, OnFailure, PlainReporter, Progress, Reporter, Resolution, RunError},
    step::{
        Context, Effect, FnStep, Function, Happened, HoldsSecret, Kept, Preview, PreviewContext, Secrets,
        Spec, Step, StepError,
    },
    steps::{self, RunCommand},
};

use crate::{
    places::{Podman, Sshd},
    world::authority,
};

const SECRET: &str = "correct-horse/battery";
/// The secret, and what it looks like in base64 (also broken after 57 bytes, 40 of which stand before it) and in a URL.
const FORMS: [&str; 5] = [
    "correct-horse",
    "horse/battery",
    "Y29ycmVjdC1ob3JzZS9iYXR0ZXJ5",
    "cnJlY3QtaG9yc2UvYmF0",
    "correct-horse%2Fbattery",
];

/// Bytes that a test reads while somebody writes them.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everybody who could hear something.
#[derive(Debug)]
struct All(Vec<Arc<dyn Reporter>>);

impl Reporter for All {
    fn report(&self, progress: &Progress<'_>) {
        self.0.iter().for_each(|reporter| reporter.report(progress));
    }
}

fn read_all(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        bytes.extend(path.to_string_lossy().as_bytes());
        bytes.extend(if path.is_dir() { read_all(&path) } else { fs::read(&path).unwrap() });
    }
    bytes
}

/// No form of the secret stands in `everything`.
fn holds_none(everything: &[u8], name: &str) {
    let text = String::from_utf8_lossy(everything);
    for form in FORMS {
        if let Some(at) = text.find(form) {
            let around = &text.as_bytes()[at.saturating_sub(200)..(at + 100).min(text.len())];
            panic!("{name}: {form} in …{}…", String::from_utf8_lossy(around));
        }
    }
}

/// Runs a pipeline that meets the secret in every way, through `executor`; what it left and showed must not hold it.
async fn nothing_leaks(executor: Arc<dyn Executor>, name: &str) {
    let (work, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(work.path().join("key.txt"), SECRET).unwrap();
    let sh = |script: &str| {
        RunCommand::new("/bin/sh", work.path(), Effect::idempotent())
            .args(["-c", script])
            .env("PATH", "/usr/bin:/bin")
    };
    let mut pipeline = Pipeline::new("leaks", "storefront".parse().unwrap());
    // By the environment, from a file, in a name; to both outputs, in pieces and encoded, to a file with a telling name.
    let says = "echo \"key is $KEY\"; printf %s \"$KEY\" | base64; printf '%040d%s' 0 \"$KEY\" | base64; echo \"$KEY\" >&2; cat key.txt; echo; \
                printf 'correct-ho'; sleep 0.05; echo 'rse/battery'; printf %s \"$KEY\" | sed 's,/,%2F,'; echo; mkdir -p \"out/$KEY\"; cp key.txt \"out/$KEY/x\"";
    let told = pipeline.step("told", sh(says).secret_env("KEY", "KEY").reads("key.txt").writes("out"));
    // What it said is a parameter of the next, which fails with it.
    let named = Named::new().field("OTHER", told.part::<String>("/stdout"));
    let fails = sh("echo \"$KEY $OTHER\" >&2; exit 7")
        .secret_env("KEY", "KEY")
        .undone_by("/bin/sh", ["-c".to_owned(), "echo \"undone $KEY\"; exit 3".to_owned()]);
    pipeline.feed("fails", fails, named);

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::clone(&executor)).unwrap();
    let registry = Arc::new(registry);
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(kept.path().join("store")).unwrap());
    let (plain, ci) = (Log::default(), Log::default());
    let collected = CollectingReporter::new();
    let reporters: Vec<Arc<dyn Reporter>> = vec![
        Arc::new(collected.clone()),
        Arc::new(PlainReporter::new(plain.clone())),
        Arc::new(CiReporter::new(
            CiKind::GitHub,
            ci.clone(),
            CiFiles::default(),
            Arc::clone(&clock),
            b"seed",
        )),
    ];
    let secrets = Secrets::from([("KEY".to_owned(), Secret::new(SECRET))]);
    let runner = Runner::new(Arc::clone(&store), Arc::clone(&registry), authority(), clock)
        .secrets(Arc::new(secrets.clone()))
        .reporter(Arc::new(All(reporters)));
    let report = runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap();
    assert!(matches!(report.ended, Ended::UndoIncomplete { .. }), "{name}: {report:?}");

    let mut everything =
        format!("{report:?}{runner:?}{plan:?}{:?}{:?}", collected.lines(), secrets).into_bytes();
    everything.extend(
        format!("{:?}", store.events(EventQuery::after(Position::START)).await.unwrap()).into_bytes(),
    );
    everything.extend(format!("{:?}", store.list("").await.unwrap()).into_bytes());
    everything.extend(plain.0.lock().unwrap().iter());
    everything.extend(ci.0.lock().unwrap().iter());
    everything.extend(read_all(kept.path()));

    // The executor by itself: what it shows of a command, and each kind of error.
    let secret = || Secret::new(SECRET);
    let command = |program: &str| {
        Command::new(program, work.path()).env("PATH", "/usr/bin:/bin").secret_env("KEY", secret())
    };
    for command in [
        command(&format!("/no/{SECRET}")),
        command(SECRET),
        command("/bin/sh").args(["-c", "echo \"$KEY\"; kill -9 $$"]),
        command("/bin/sh").args(["-c", "echo \"$KEY\"; sleep 5"]).limit(SignedDuration::from_millis(200)),
        command("/bin/sh").arg(format!("{SECRET}\0")),
        command("/bin/sh").reads(SECRET),
        Command { dir: work.path().join(SECRET), ..command("/bin/sh") },
    ] {
        let error = executor.run(&command, &mut |_| {}, &Cancel::new()).await.unwrap_err();
        everything.extend(
            format!("{command:?}{executor:?}{error:?}{}{:?}", chain(&error), error.kind()).into_bytes(),
        );
    }

    assert!(String::from_utf8_lossy(&everything).contains("key is ***"), "{name}: nothing was said");
    holds_none(&everything, name);
    // The work itself did see it.
    let mut found = Vec::new();
    found.extend(read_all(&work.path().join("out")));
    assert!(String::from_utf8_lossy(&found).contains(SECRET), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_secret_leaks_nowhere_on_this_host() {
    let executor = LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_millis(300));
    nothing_leaks(Arc::new(executor), "local").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_secret_leaks_nowhere_from_a_container() {
    let Some(podman) = Podman::start() else { return };
    nothing_leaks(Arc::new(podman.executor().await), "container").await;
    assert_eq!(podman.containers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_secret_leaks_nowhere_from_another_host() {
    let Some(sshd) = Sshd::start() else { return };
    nothing_leaks(Arc::new(sshd.executor()), "ssh").await;
}

#[tokio::test]
async fn a_plan_that_holds_a_secret_is_not_started_and_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(LocalExecutor::new(Arc::clone(&clock)))).unwrap();
    let registry = Arc::new(registry);
    let mut pipeline = Pipeline::new("leaks", "storefront".parse().unwrap());
    pipeline.step(
        "login",
        RunCommand::new("true", dir.path(), Effect::idempotent()).arg(format!("--password={SECRET}")),
    );
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock));
    let draft = pipeline.draft().unwrap();
    let plan = planner.plan(&draft).await.unwrap().seal().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path().join("store")).unwrap());
    let secrets = Arc::new(Secrets::from([("KEY".to_owned(), Secret::new(SECRET))]));
    let runner = Runner::new(Arc::clone(&store), registry, authority(), clock).secrets(Arc::clone(&secrets));
    let refused = planner.with_secrets(Arc::clone(&secrets)).plan(&draft).await.unwrap_err();
    assert!(matches!(refused, PlanError::Secret { .. }), "{refused:?}");
    insta::assert_snapshot!(refused, @"step `login` holds the value of the secret `KEY`, and a plan is shown to many; refer to the secret by its name (`secret_env`, `Context::secret`)");
    let error = runner.run(&RunId::new("one").unwrap(), &plan, &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, RunError::Secret(_)), "{error:?}");
    insta::assert_snapshot!(error, @"the plan holds the value of the secret `KEY` and was not started; refer to the secret by its name (`secret_env`) and make the plan again");
    assert!(store.list("run/").await.unwrap().is_empty());
    assert!(!String::from_utf8_lossy(&read_all(&dir.path().join("store"))).contains("horse"));
}

/// A step whose look at the world fails with the secret.
#[derive(Debug)]
struct Looks;

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Look;

impl Spec for Look {
    type Input = ();
    type Output = ();
    const KIND: &'static str = "look";
    const VERSION: u16 = 1;
}

#[async_trait::async_trait]
impl Step for Looks {
    type Spec = Look;

    fn effect(&self, _: &Look) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, _: &Look, context: &PreviewContext) -> Result<Preview, StepError> {
        Err(StepError::failed(format!("{} is refused", context.secret("KEY")?.expose())))
    }

    async fn run(&self, _: &Look, (): (), _: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

/// Every way in which a step of the deployer's own can let a secret out, by name.
fn careless(registry: &mut Registry) -> Vec<(&'static str, Function<(), String>)> {
    let key = |context: &Context| context.secret("KEY").map(|key| format!("token {}", key.expose()));
    let fails = move |context: &Context| -> Result<String, StepError> {
        let told = key(context)?;
        let cause = std::io::Error::other(format!("{told} was refused"));
        Err(StepError::failed(told).because(cause))
    };
    let waits = move |context: &Context| Err(StepError::waiting(key(context)?, None));
    let unknown = move |context: &Context| Ok(Happened::Unknown(key(context)?));
    let steps = [
        ("gives", FnStep::idempotent(move |(), context| async move { key(&context) })),
        ("computes", FnStep::pure(move |(), context| async move { key(&context) })),
        ("fails", FnStep::idempotent(move |(), context| async move { fails(&context) })),
        ("panics", FnStep::idempotent(move |(), context| async move { panic!("{}", key(&context)?) })),
        ("waits", FnStep::idempotent(move |(), context| async move { waits(&context) })),
        (
            "probed",
            FnStep::probed(
                move |(), context| async move { fails(&context) },
                move |(), context| async move { unknown(&context) },
            ),
        ),
        (
            "found",
            FnStep::probed(
                move |(), context| async move { fails(&context) },
                move |(), context| async move { Ok(Happened::Yes(key(&context)?)) },
            ),
        ),
        (
            "stays",
            FnStep::idempotent(move |(), context: Context| async move {
                context.say(key(&context)?);
                Ok("done".to_owned())
            })
            .undone_by(move |_, context| async move { fails(&context).map(drop) }),
        ),
    ];
    let mut functions = Vec::new();
    for (name, step) in steps {
        let function = Function::new(name, 1).unwrap();
        registry.function(&function, step);
        functions.push((name, function));
    }
    functions
}

#[tokio::test]
async fn a_step_in_rust_cannot_leak_a_secret_into_what_is_kept() {
    let kept = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    registry.add(Looks).unwrap();
    let functions = careless(&mut registry);
    let registry = Arc::new(registry);
    let secrets = Arc::new(Secrets::from([("KEY".to_owned(), Secret::new(SECRET))]));
    let planner = Planner::new(Arc::clone(&registry), authority(), Arc::clone(&clock))
        .with_secrets(Arc::clone(&secrets));
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(kept.path().join("store")).unwrap());
    let (logs, events, plain) = (Logs::new(kept.path().join("logs")), Log::default(), Log::default());
    let mut everything = Vec::new();
    let mut told = |text: String| everything.extend(text.into_bytes());
    for (name, function) in &functions {
        let mut pipeline = Pipeline::new(*name, "storefront".parse().unwrap());
        pipeline.call("step", function, ());
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let (run, step) = (RunId::new(*name).unwrap(), StepId::new("step").unwrap());
        let all: Vec<Arc<dyn Reporter>> = vec![
            Arc::new(EventReporter::new(events.clone(), Arc::clone(&clock))),
            Arc::new(PlainReporter::new(plain.clone())),
            Arc::new(logs.keep(&run, Arc::clone(&clock))),
        ];
        let runner = Runner::new(Arc::clone(&store), Arc::clone(&registry), authority(), Arc::clone(&clock))
            .secrets(Arc::clone(&secrets))
            .on_failure(OnFailure::Stop)
            .reporter(Arc::new(All(all)));
        let first = runner.run(&run, &plan, &Cancel::new()).await.unwrap();
        let second = runner.resume(&run, &Cancel::new()).await.unwrap();
        let ends_well = matches!(*name, "stays");
        assert_eq!(second.succeeded(), ends_well, "{name}: {second:?}");
        if matches!(*name, "gives" | "computes" | "found") {
            let shown = format!("{:?}", second.ended);
            assert!(
                shown.contains("the output of step `step` holds the value of the secret `KEY`"),
                "{shown}"
            );
        }
        if *name == "probed" {
            let Ended::NeedsPerson { steps } = &second.ended else { panic!("{second:?}") };
            assert_eq!(steps[&step], "token ***");
            let said = runner.resolve(&run, &step, Resolution::Happened(SECRET.into())).await.unwrap_err();
            assert!(matches!(&said, RunError::Holds(HoldsSecret { kept: Kept::Resolution, .. })), "{said:?}");
            told(format!("{said:?}{}", chain(&said)));
        }
        let said = runner.signal(&run, &step, "first", serde_json::json!([SECRET])).await.unwrap_err();
        assert!(matches!(&said, RunError::Holds(HoldsSecret { kept: Kept::Signal, .. })), "{said:?}");
        let named = runner.signal(&run, &step, SECRET, 1.into()).await.unwrap_err();
        let back = runner.rollback(&run).await.unwrap();
        told(format!("{first:?}{second:?}{back:?}{said:?}{}{named:?}{runner:?}", chain(&said)));
        let view = RunView::read(&store, Some(&logs), &run).await.unwrap();
        told(format!("{view:?}{}", view.to_html()));
    }
    let mut pipeline = Pipeline::new("looks", "storefront".parse().unwrap());
    pipeline.step("look", Look);
    let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
    told(format!("{error:?}{}", chain(&error)));
    everything.extend(events.0.lock().unwrap().iter());
    everything.extend(plain.0.lock().unwrap().iter());
    everything.extend(read_all(kept.path()));
    assert!(String::from_utf8_lossy(&everything).contains("*** is refused"), "the look was not shown");
    holds_none(&everything, "steps in Rust");
}
