//! The same steps on this host, in a container and over SSH.

use std::{path::Path, sync::Arc};

use flowline_core::clock::{Clock, SystemClock};
use flowline_pipeline::{
    Cancel, Pipeline, Plan, Registry, Sealed,
    exec::{Executor, LocalExecutor},
    pipeline::Named,
    plan::Planner,
    portability::{Checked, Found, Portability, Side, Use, check},
    step::{Effect, Secrets},
    steps::{self, ContainerStep, RunCommand, RunContainer},
};

use crate::{
    places::{Podman, Sshd},
    world::authority,
};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn side(name: &str, executor: impl Executor + 'static) -> Side {
    let mut registry = Registry::new();
    steps::register(&mut registry, Arc::new(executor)).unwrap();
    Side::new(name, Arc::new(registry))
}

async fn sealed(registry: &Arc<Registry>, pipeline: Pipeline) -> Sealed<Plan> {
    let planner = Planner::new(Arc::clone(registry), authority(), clock());
    planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap()
}

fn sh(script: &str, dir: &Path, effect: Effect) -> RunCommand {
    RunCommand::new("/bin/sh", dir, effect).args(["-c", script]).env("PATH", "/usr/bin:/bin")
}

/// What a build does, and what makes it depend on where it runs.
fn pipeline(dir: &Path) -> Pipeline {
    let mut pipeline = Pipeline::new("build", "storefront".parse().unwrap());
    let bundle = "mkdir -p out && tr a-z A-Z <src.txt >out/bundle && echo bundled";
    let bundle = sh(bundle, dir, Effect::Pure).reads("src.txt").writes("out");
    let built = pipeline.step("bundle", bundle);
    let named = Named::new().field("SAID", built.part::<String>("/stdout"));
    pipeline.feed("greet", sh("echo \"$SAID, hello\"", dir, Effect::Pure), named);
    pipeline.step("process", sh("echo $$ >out/id; echo done", dir, Effect::Pure).writes("out"));
    pipeline.step("other", sh("cat undeclared", dir, Effect::Pure));
    let pushed = pipeline.step("push", sh("true", dir, Effect::idempotent()));
    let named = Named::new().field("PUSHED", pushed.part::<String>("/stdout"));
    pipeline.feed("after", sh("true", dir, Effect::Pure), named);
    pipeline
}

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("src.txt"), "hello\n").unwrap();
    std::fs::write(dir.path().join("undeclared"), "surprise\n").unwrap();
    dir
}

async fn compared(plan: &Sealed<Plan>, sides: [&Side; 2]) -> Portability {
    let sides = sides.map(Clone::clone);
    check(plan, &sides, clock(), Arc::new(Secrets::new()), &Cancel::new()).await
}

/// The report, without what is different each time.
fn shown(report: &Portability, dir: &Path) -> String {
    let text = report.to_string().replace(&dir.display().to_string(), "DIR");
    let plain = |word: &str| {
        let digest = word.trim_end_matches([',', ';', ':']);
        if digest.len() == 12 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            word.replace(digest, "DIGEST")
        } else {
            word.to_owned()
        }
    };
    text.split_inclusive([' ', '\n'])
        .map(|word| {
            let end = word.len() - word.trim_end().len();
            plain(word.trim_end()) + &word[word.len() - end..]
        })
        .collect()
}

#[tokio::test]
async fn steps_that_are_not_reproducible_are_named_with_the_place() {
    let dir = world();
    let here = side("first", LocalExecutor::new(clock()));
    let plan = sealed(&here.registry, pipeline(dir.path())).await;
    let report = compared(&plan, [&here, &Side { name: "second".to_owned(), ..here.clone() }]).await;
    assert!(!report.is_portable());
    insta::assert_snapshot!(shown(&report, dir.path()), @r"
    plan DIGEST: first and second: 3 same, 1 not
      same       bundle  DIGEST
      same       greet  DIGEST
      different  process  first DIGEST, second DIGEST; at /files/out~1id
      same       other  DIGEST
      not run    push  it has an effect
      not run    after  it takes an output of `push`, which is not known
    ");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_and_another_host_give_what_the_laptop_gives() {
    let (Some(podman), Some(sshd)) = (Podman::start(), Sshd::start()) else { return };
    let dir = world();
    let here = side("laptop", LocalExecutor::new(clock()));
    let container = side("container", podman.executor().await);
    let far = side("web-1", sshd.executor());
    let plan = sealed(&here.registry, pipeline(dir.path())).await;
    let report = compared(&plan, [&here, &container]).await;
    insta::assert_snapshot!(shown(&report, dir.path()), @r"
    plan DIGEST: laptop and container: 2 same, 2 not
      same       bundle  DIGEST
      same       greet  DIGEST
      different  process  laptop DIGEST, container DIGEST; at /files/out~1id
      failed     other  on container: `/bin/sh` ended with exit code 1; its last lines: cat: can't open 'undeclared': No such file or directory
                 it seems to use a file or a program that it does not declare (`reads`), or that the image lacks: `cat: can't open 'undeclared': No such file or directory`
      not run    push  it has an effect
      not run    after  it takes an output of `push`, which is not known
    ");
    // What a container keeps away is told by what the step says.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || drop(listener.accept()));
    let mut uses = Pipeline::new("uses", "storefront".parse().unwrap());
    let ask = format!("/bin/busybox nc 127.0.0.1 {port} </dev/null");
    uses.step("network", sh(&ask, dir.path(), Effect::Pure));
    uses.step("output", sh("echo x >made", dir.path(), Effect::Pure));
    let plan = sealed(&here.registry, uses).await;
    let found = compared(&plan, [&here, &container]).await;
    serving.join().unwrap();
    let used = |checked: &Checked| match &checked.found {
        Found::Failed { undeclared: Some(undeclared), .. } => (undeclared.what, undeclared.line.clone()),
        other => panic!("{other:?}"),
    };
    let uses: Vec<_> = found.steps.iter().map(used).collect();
    assert_eq!(uses[0].0, Use::Network, "{found}");
    assert_eq!(uses[1].0, Use::Output, "{found}");
    assert!(uses[0].1.contains("Connection refused") && uses[1].1.contains("Read-only"), "{found}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["steps"][3]["found"]["failed"]["undeclared"]["what"], "file");
    assert_eq!(json["steps"][0]["step"], "bundle");
    assert!(json["steps"][0]["found"]["same"]["output"].as_str().unwrap().starts_with("sha256:"));

    let mut pure = Pipeline::new("build", "storefront".parse().unwrap());
    let bundle = "mkdir -p out && tr a-z A-Z <src.txt >out/bundle && echo bundled";
    pure.step("bundle", sh(bundle, dir.path(), Effect::Pure).reads("src.txt").writes("out"));
    let plan = sealed(&here.registry, pure).await;
    for sides in [[&here, &container], [&container, &far]] {
        let report = compared(&plan, sides).await;
        assert!(report.is_portable(), "{report}");
    }

    // The same as a step whose image the plan names.
    let mut registry = Registry::new();
    let engine = podman.executor().await.engine().clone();
    registry.add(ContainerStep::new(engine, clock())).unwrap();
    let named = Side::new("named", Arc::new(registry));
    let mut pipeline = Pipeline::new("build", "storefront".parse().unwrap());
    let command = sh(bundle, dir.path(), Effect::Pure).reads("src.txt").writes("out");
    pipeline.step("bundle", RunContainer::new(podman.image(), command).with_memory(64 << 20).with_pids(64));
    let plan = sealed(&named.registry, pipeline).await;
    let report = compared(&plan, [&named, &named]).await;
    assert!(report.is_portable(), "{report}");
    let preview = plan.plan().nodes()[0].preview.as_ref().unwrap();
    assert!(preview.summary.contains("in `localhost/flowline-test@sha256:"), "{}", preview.summary);
}
