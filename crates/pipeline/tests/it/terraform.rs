//! Terraform: against a made-up one that can be cut short anywhere, and once against the real one.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::SystemClock, id::RunId, secret::Secret, store::MemoryStore};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    exec::{Command, ExecError, Executor, ExecutorCapabilities, Exited, Line, Lines, LocalExecutor, Stream},
    plan::Planner,
    run::Ended,
    step::Secrets,
    steps::{TerraformApply, TerraformStack, TerraformStep},
    testkit::{self, StepTrial, Trial},
};
use serde_json::{Value, json};

use crate::world::{failing, granted_world};

/// Enough of Terraform: one resource whose value is the variable `name`, and two outputs.
#[derive(Debug, Clone)]
struct Made {
    state: Arc<Mutex<Value>>,
}

impl Made {
    fn new(value: &str) -> Self {
        let state = if value.is_empty() { Value::Null } else { state(1, Some(value)) };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn value(&self) -> String {
        self.state.lock().unwrap()["value"].as_str().unwrap_or_default().to_owned()
    }

    fn serial(&self) -> u64 {
        self.state.lock().unwrap()["serial"].as_u64().unwrap_or(0)
    }
}

fn state(serial: u64, value: Option<&str>) -> Value {
    let resources: Vec<_> = value.map(|value| json!({"name": value})).into_iter().collect();
    json!({"lineage": "made", "serial": serial, "resources": resources, "value": value})
}

fn shown(before: &str, after: &str) -> Value {
    let actions = if before.is_empty() { ["create"] } else { ["update"] };
    let changes = if before == after {
        json!([])
    } else {
        json!([{"address": "made.one", "mode": "managed", "change": {
            "actions": actions,
            "before": if before.is_empty() { Value::Null } else { json!({"name": before}) },
            "after": {"name": after},
        }}])
    };
    json!({"complete": true, "resource_changes": changes})
}

#[async_trait]
impl Executor for Made {
    fn capabilities(&self) -> ExecutorCapabilities {
        LocalExecutor::new(Arc::new(SystemClock)).capabilities()
    }

    async fn run(&self, command: &Command, lines: &mut dyn Lines, _: &Cancel) -> Result<Exited, ExecError> {
        tokio::task::yield_now().await;
        let args: Vec<_> = command.args.iter().map(String::as_str).collect();
        let flag = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name)).map(str::to_owned);
        let code = |code: i32, said: &str| {
            Err(ExecError::Code { program: "terraform".to_owned(), code, last: vec![said.to_owned()] })
        };
        let answer = |text: String| Ok(Exited { stdout: text.into_bytes(), ..Exited::default() });
        match args[0] {
            "init" => answer(String::new()),
            "state" => {
                let state = self.state.lock().unwrap().clone();
                answer(if state.is_null() { String::new() } else { state.to_string() })
            }
            "plan" => {
                let wanted = flag("-var=name=").unwrap_or_default();
                let (before, serial) = (self.value(), self.serial());
                if let Some(file) = flag("-out=") {
                    fs::write(file, json!([serial, before, wanted]).to_string()).unwrap();
                }
                if before == wanted { answer(String::new()) } else { code(2, "changes") }
            }
            "show" => {
                let plan: (u64, String, String) =
                    serde_json::from_str(&fs::read_to_string(args[2]).unwrap()).unwrap();
                answer(shown(&plan.1, &plan.2).to_string())
            }
            "apply" => {
                let file = args.last().unwrap();
                let plan: (u64, String, String) =
                    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
                if plan.0 != self.serial() {
                    return code(1, "Saved plan is stale");
                }
                *self.state.lock().unwrap() = state(plan.0 + 1, Some(&plan.2));
                lines.line(Line { stream: Stream::Out, bytes: b"Apply complete!".to_vec(), cut: false });
                tokio::task::yield_now().await;
                answer(String::new())
            }
            "destroy" => {
                let serial = self.serial();
                *self.state.lock().unwrap() = state(serial + 1, None);
                tokio::task::yield_now().await;
                answer(String::new())
            }
            "output" => {
                let value = self.value();
                let outputs = json!({
                    "name": {"sensitive": false, "type": "string", "value": value},
                    "token": {"sensitive": true, "type": "string", "value": "hush"},
                });
                answer(outputs.to_string())
            }
            other => code(1, other),
        }
    }
}

fn resource() -> flowline_core::id::ResourceId {
    "terraform:production/network".parse().unwrap()
}

async fn planned(made: &Made, stack: TerraformStack, dir: &Path) -> TerraformApply {
    stack.plan(made, &dir.join("plan"), &Secrets::new(), &Cancel::new()).await.unwrap()
}

#[tokio::test]
async fn applying_keeps_every_promise() {
    for before in ["", "old", "new"] {
        let report = testkit::step(async || {
            let dir = tempfile::tempdir().unwrap();
            let made = Made::new(before);
            let stack = TerraformStack::new(resource(), dir.path()).var("name", "new").destroyed_by_undo();
            let spec = planned(&made, stack, dir.path()).await;
            let seen = made.clone();
            StepTrial::new(TerraformStep::new(Arc::new(made)), spec, move || seen.value()).keeping(dir)
        })
        .await;
        assert!(report.failures.is_empty(), "from `{before}`: {report}");
    }
}

#[tokio::test]
async fn applying_survives_a_crash_anywhere_and_is_destroyed_only_when_asked() {
    for (fails, destroy) in [(false, false), (true, true), (true, false)] {
        let report = testkit::crash_matrix(async |clock| {
            let dir = tempfile::tempdir().unwrap();
            let made = Made::new("");
            let mut stack = TerraformStack::new(resource(), dir.path()).var("name", "new");
            stack.destroy_on_undo = destroy;
            let spec = planned(&made, stack, dir.path()).await;
            let patterns = ["terraform:production/network", "terraform:production/network/*"];
            let (registry, authority) = granted_world(&patterns, |registry| {
                registry.add(TerraformStep::new(Arc::new(made.clone()))).unwrap();
            });
            let mut pipeline = Pipeline::new("infra", "storefront".parse().unwrap());
            let applied = pipeline.step("network", spec);
            if fails {
                failing(&mut pipeline, &applied);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let _kept = &dir;
                // Undone, because a later step failed or because it was asked for afterwards.
                let (expected, irreversible) = match ended {
                    Ended::Undone { irreversible, .. } if destroy => ("", irreversible.is_empty()),
                    Ended::Undone { irreversible, .. } => ("new", irreversible.len() == 1),
                    _ => ("new", !fails),
                };
                if made.value() == expected && made.serial() <= 2 && irreversible {
                    Ok(())
                } else {
                    Err(format!("{ended:?}: {made:?}"))
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn a_plan_may_touch_only_the_resources_that_were_granted() {
    let dir = tempfile::tempdir().unwrap();
    let made = Made::new("old");
    let stack = TerraformStack::new(resource(), dir.path()).var("name", "new");
    let spec = planned(&made, stack, dir.path()).await;
    let patterns = ["terraform:production/network", "terraform:production/network/made.two"];
    let (registry, authority) = granted_world(&patterns, |registry| {
        registry.add(TerraformStep::new(Arc::new(made))).unwrap();
    });
    let mut pipeline = Pipeline::new("infra", "storefront".parse().unwrap());
    drop(pipeline.step("network", spec));
    let planner = Planner::new(registry, authority, Arc::new(SystemClock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap();
    let denied: Vec<_> = plan.denied().iter().map(|denial| denial.resource.to_string()).collect();
    assert_eq!(denied, ["terraform:production/network/made.one"]);
}

/// The program, or `None` with a word why the test is skipped. Under `FLOWLINE_TERRAFORM=1` it must be there.
#[expect(clippy::disallowed_methods, reason = "a test asks what this host has")]
fn terraform() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|dir| dir.join("terraform")).find(|program| program.is_file());
    if found.is_none() {
        let note = "skipped: there is no `terraform` on the PATH";
        assert!(std::env::var("FLOWLINE_TERRAFORM").is_err(), "{note}");
        println!("{note}");
    }
    found
}

const MODULE: &str = r#"
variable "name" { type = string }
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "one" { input = var.name }
resource "terraform_data" "two" { triggers_replace = var.name }
resource "terraform_data" "three" { input = var.token }
output "name" { value = terraform_data.one.output }
output "token" {
  value     = var.token
  sensitive = true
}
"#;

#[tokio::test]
async fn the_real_terraform_applies_exactly_what_was_planned() {
    let Some(program) = terraform() else { return };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("main.tf"), MODULE).unwrap();
    let executor: Arc<dyn Executor> =
        Arc::new(LocalExecutor::new(Arc::new(SystemClock)).with_grace(SignedDuration::from_secs(5)));
    let secrets = Secrets::from([("token".to_owned(), Secret::new("hunter2-token"))]);
    let plan = async |name: &str| {
        let stack = TerraformStack::new(resource(), dir.path())
            .program(program.display().to_string())
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", dir.path().display().to_string())
            .env("TF_CLI_CONFIG_FILE", "/dev/null")
            .secret_env("TF_VAR_token", "token")
            .var("name", name);
        let file = dir.path().join(format!("{name}.tfplan"));
        let spec = stack.plan(&*executor, &file, &secrets, &Cancel::new()).await;
        let (registry, authority) = granted_world(&["terraform:*"], |registry| {
            registry.add(TerraformStep::new(Arc::clone(&executor))).unwrap();
        });
        let mut pipeline = Pipeline::new("infra", "storefront".parse().unwrap());
        let applied = pipeline.step("network", spec.unwrap());
        let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock))
            .with_secrets(Arc::new(secrets.clone()));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock))
            .secrets(Arc::new(secrets.clone()));
        (plan, runner, applied)
    };
    let run = RunId::new("one").unwrap();
    let (first, runner, _) = plan("one").await;
    assert!(runner.run(&run, &first, &Cancel::new()).await.unwrap().succeeded());
    // Of two plans of one state, the second that comes is refused before any effect.
    let (two, runner_two, applied) = plan("two").await;
    let (three, runner_three, _) = plan("three").await;
    let seen = two.plan().nodes()[0].preview.as_ref().unwrap();
    let lines: Vec<_> = seen
        .resources
        .iter()
        .flat_map(|seen| {
            let head = format!("{:?} {}", seen.action, seen.resource);
            std::iter::once(head).chain(seen.details.iter().map(|line| format!("    {line}")))
        })
        .collect();
    let lines = lines.join("\n");
    let ids = regex_free_ids(&lines);
    insta::assert_snapshot!(ids, @r#"
    Update terraform:production/network
        output name
    Update terraform:production/network/terraform_data.one
        input: "one" -> "two"
        output: "one" -> (known after apply)
    Replace terraform:production/network/terraform_data.two
        id: ID -> (known after apply)
        triggers_replace: "one" -> "two"
    "#);
    let report = runner_two.run(&run, &two, &Cancel::new()).await.unwrap();
    let outputs = report.state.output(&applied).unwrap().unwrap();
    assert_eq!(outputs.values["name"], "two");
    assert!(outputs.sensitive.contains("token") && !format!("{report:?}").contains("hunter2"));
    let refused = runner_three.run(&run, &three, &Cancel::new()).await.unwrap_err();
    assert!(refused.to_string().contains("the plan is stale"), "{refused}");
    // Nothing to do is nothing done.
    let (again, runner, _) = plan("two").await;
    assert_eq!(again.plan().nodes()[0].action(), flowline_pipeline::step::Action::Keep);
    assert!(runner.run(&run, &again, &Cancel::new()).await.unwrap().succeeded());
}

/// What [`TerraformStep`] shows of `spec`, and how it ends.
async fn applied(executor: &Arc<dyn Executor>, spec: TerraformApply, patterns: &[&str]) -> (String, Ended) {
    let (registry, authority) = granted_world(patterns, |registry| {
        registry.add(TerraformStep::new(Arc::clone(executor))).unwrap();
    });
    let mut pipeline = Pipeline::new("infra", "storefront".parse().unwrap());
    drop(pipeline.step("network", spec));
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap();
    let mut lines = Vec::new();
    for seen in &plan.nodes()[0].preview.as_ref().unwrap().resources {
        lines.push(format!("{:?} {}", seen.action, seen.resource));
        lines.extend(seen.details.iter().map(|line| format!("    {line}")));
    }
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock));
    let run = RunId::new("one").unwrap();
    let report = runner.run(&run, &plan.seal().unwrap(), &Cancel::new()).await.unwrap();
    (lines.join("\n"), report.ended)
}

#[tokio::test]
async fn the_real_terraform_moves_and_imports_what_was_planned() {
    let Some(program) = terraform() else { return };
    let dir = tempfile::tempdir().unwrap();
    let executor: Arc<dyn Executor> = Arc::new(LocalExecutor::new(Arc::new(SystemClock)));
    let plan = async |module: &str| {
        fs::write(dir.path().join("main.tf"), module).unwrap();
        let mut stack = TerraformStack::new(resource(), dir.path())
            .program(program.display().to_string())
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", dir.path().display().to_string())
            .env("TF_CLI_CONFIG_FILE", "/dev/null");
        stack.destroy_on_undo = true;
        stack.plan(&*executor, &dir.path().join("plan"), &Secrets::new(), &Cancel::new()).await.unwrap()
    };
    let state = || fs::read_to_string(dir.path().join("terraform.tfstate")).unwrap();
    let spec = plan(r#"resource "terraform_data" "before" { input = "kept" }"#).await;
    assert!(spec.was_empty);
    assert_eq!(applied(&executor, spec, &["terraform:*"]).await.1, Ended::Succeeded);

    // A resource has another name by now, and nothing else is to be done.
    let moved = r#"
resource "terraform_data" "after" { input = "kept" }
moved {
  from = terraform_data.before
  to   = terraform_data.after
}
"#;
    let spec = plan(moved).await;
    assert!(!spec.is_empty() && spec.applyable, "{spec:?}");
    let (seen, ended) = applied(&executor, spec, &["terraform:*"]).await;
    insta::assert_snapshot!(seen, @"
    Update terraform:production/network
    Update terraform:production/network/terraform_data.after
        moved from terraform_data.before
    Update terraform:production/network/terraform_data.before
        moved to terraform_data.after
    ");
    assert_eq!(ended, Ended::Succeeded);
    assert!(state().contains("\"after\"") && !state().contains("\"before\""), "{}", state());
    assert!(plan(moved).await.is_empty());

    // Another one is there already and comes under management.
    fs::remove_file(dir.path().join("terraform.tfstate")).unwrap();
    let imported = r#"
resource "terraform_data" "found" {}
import {
  to = terraform_data.found
  id = "made-by-hand"
}
"#;
    let spec = plan(imported).await;
    // The run does not make it, so undoing must not destroy it.
    assert!(!spec.is_empty() && !spec.was_empty, "{spec:?}");
    let (seen, ended) = applied(&executor, spec, &["terraform:*"]).await;
    insta::assert_snapshot!(seen, @r#"
    Update terraform:production/network
    Update terraform:production/network/terraform_data.found
        imported as "made-by-hand"
    "#);
    assert_eq!(ended, Ended::Succeeded);
    assert!(state().contains("made-by-hand"), "{}", state());
}

/// The lines without what Terraform makes up: ids of 36 characters.
fn regex_free_ids(lines: &str) -> String {
    let is_id = |word: &str| word.len() == 38 && word.starts_with('"') && word.matches('-').count() == 4;
    let words = |line: &str| -> String {
        line.split(' ').map(|word| if is_id(word) { "ID" } else { word }).collect::<Vec<_>>().join(" ")
    };
    lines.lines().map(words).collect::<Vec<_>>().join("\n")
}
