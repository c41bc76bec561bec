//! What machines read: `--json` of every command, and the schemas.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{Place, Said, schema::problems};
use crate::cli::{Cli, Exit, Surroundings, args, schema, session::Wish};

fn schema_of(name: &str) -> Value {
    let (.., text) = schema::ALL.iter().find(|(known, ..)| *known == name).unwrap();
    serde_json::from_str(text).unwrap()
}

/// One object on standard output that is what the schema says, and that names the exit code and the command.
fn assert_answers(args: &[&str], said: &Said) -> Value {
    let answer = said.json();
    assert_eq!(said.out.lines().count(), 1, "{args:?}: {}", said.out);
    let schema = schema_of("answer");
    assert_eq!(problems(&schema, &schema, &answer, ""), Vec::<String>::new(), "{args:?}: {answer}");
    assert_eq!(answer["exit"], said.exit.code(), "{args:?}: {answer}");
    for line in said.err.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{args:?}: {error}: {line}"));
        assert!(event["event"].is_string() && event["time"].is_string(), "{args:?}: {line}");
        assert_eq!(event["format_version"], 1, "{args:?}: {line}");
    }
    answer
}

/// Every command that can be called: `plan`, `ci render`.
fn commands() -> BTreeSet<String> {
    let root = args::command(&Cli::new(), "deployer");
    let mut found = BTreeSet::new();
    for command in root.get_subcommands() {
        let name = command.get_name();
        let below: Vec<_> =
            command.get_subcommands().map(|below| format!("{name} {}", below.get_name())).collect();
        found.extend(if below.is_empty() { vec![name.to_owned()] } else { below });
    }
    found
}

#[tokio::test]
async fn every_command_answers_machines_as_the_schema_says() {
    let place = Place::new().await;
    let file = |name: &str| place.folder.path().join(name).to_str().unwrap().to_owned();
    let (plan, page) = (file("plan.json"), file("report.html"));
    let second = file("other/second");
    place.git(&["switch", "--quiet", "--create", "cart"]);
    place.change("1.1.0", "<title>shop</title> with a cart");
    place.git(&["switch", "--quiet", "main"]);
    // In this order they tell a whole story; what is refused answers as well as what is done.
    let calls: &[(&[&str], u8)] = &[
        (&["init", &second], 0),
        (&["init", &second], 1),
        (&["schema"], 0),
        (&["schema", "flags"], 0),
        (&["completions", "fish"], 0),
        (&["ci", "check"], 2),
        (&["ci", "render", "github"], 0),
        (&["status"], 0),
        (&["history", "production"], 0),
        (&["plan", "--out", &plan], 2),
        (&["apply", "production", "--plan", &plan], 0),
        (&["apply", "--revision", "no-such"], 1),
        (&["plan", "nowhere"], 1),
        (&["logs", "production"], 0),
        (&["report", "production", "--out", &page], 0),
        (&["graph", "production"], 0),
        (&["why", "production"], 0),
        (&["verify", "production"], 0),
        (&["approve", "production"], 1),
        (&["resolve", "production", "switch", "--did-not"], 1),
        (&["signal", "production"], 1),
        (&["rollback"], 1),
        (&["propose", "7", "cart"], 0),
        (&["preview", "pr-7"], 0),
        (&["promote", "pr-7"], 3),
        (&["merged", "pr-7", "--revision", "cart"], 0),
        (&["promote", "pr-7"], 0),
        (&["release", "new-page", "10"], 0),
        (&["timeline", "pr-7"], 0),
        (&["close", "pr-7"], 0),
        (&["receive", &plan], 1),
        (&["halt"], 0),
        (&["no-such-command"], 1),
        (&[], 1),
        (&["plan", "--no-such-option"], 1),
    ];
    let mut called = BTreeSet::new();
    for (args, exit) in calls {
        let said = place.said(&[*args, &["--json"]].concat()).await;
        assert_eq!(said.exit.code(), *exit, "{args:?}: {}{}", said.out, said.err);
        let answer = assert_answers(args, &said);
        assert_eq!(answer.get("error").is_some(), matches!(exit, 1 | 3), "{args:?}: {answer}");
        called.extend(answer["command"].as_str().map(str::to_owned));
    }
    let (answer, _) = served(&place).await;
    called.extend(answer["command"].as_str().map(str::to_owned));
    assert_eq!(called, commands(), "a command is not called with --json");
}

/// What several may look at while it is written.
#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `serve --port 0 --json`, stopped once it told where it listens: its answer, and what it told.
async fn served(place: &Place) -> (Value, Value) {
    let cli = Cli::new().surroundings(Surroundings { directory: place.shop(), ..Surroundings::none() });
    let (mut out, err) = (Shared::default(), Shared::default());
    let wish = Wish::never();
    let cancel = wish.cancel();
    let args = ["deployer", "serve", "--port", "0", "--json"].map(Into::into).to_vec();
    let mut told = err.clone();
    let serving = cli.answer(args, place.setup(&[]).into(), wish, &mut out, &mut told);
    let stopping = async {
        while !err.text().ends_with('\n') {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        err.text()
    };
    let (exit, told) = tokio::join!(serving, stopping);
    let said = Said { exit, out: out.text(), err: err.text() };
    assert_eq!(exit, Exit::Done, "{}", said.err);
    (assert_answers(&["serve"], &said), serde_json::from_str(told.lines().next().unwrap()).unwrap())
}

#[tokio::test]
async fn serve_tells_machines_where_before_it_ends() {
    let place = Place::new().await;
    let (answer, told) = served(&place).await;
    assert_eq!(told["event"], "serve.listening", "{told}");
    let address = told["address"].as_str().unwrap();
    assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{told}");
    assert_eq!(answer["result"]["address"], address);
}

#[tokio::test]
async fn a_denied_plan_is_told_whole() {
    let place = Place::new().await;
    std::fs::write(place.folder.path().join("grants.toml"), "").unwrap();
    for verb in ["plan", "apply"] {
        let said = place.said(&[verb, "--json"]).await;
        assert_eq!(said.exit, Exit::Failed);
        let error = &assert_answers(&[verb], &said)["error"];
        assert_eq!(error["kind"], "denied");
        let resources: Vec<_> =
            error["denials"].as_array().unwrap().iter().map(|denial| &denial["resource"]).collect();
        assert!(resources.contains(&&"host:shop.localhost".into()), "{error}");
        assert_eq!(error["plan"]["applyable"], false);
        assert_eq!(error["plan"]["plan"]["denied"], error["denials"]);
    }
}

#[tokio::test]
async fn a_sealed_plan_is_what_its_schema_says() {
    let place = Place::new().await;
    let file = place.shop().join("flowline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n[environments.production.approval]\nquorum = 1\n")).unwrap();
    let file = place.folder.path().join("plan.json");
    let said = place.said(&["plan", "--actor", "ada", "--out", file.to_str().unwrap()]).await;
    assert_eq!(said.exit, Exit::Changes, "{}", said.err);
    let plan: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let schema = schema_of("plan");
    assert_eq!(problems(&schema, &schema, &plan, ""), Vec::<String>::new());
    let mut other = plan;
    other["plan"]["nodes"][0]["effect"] = "twice".into();
    assert!(!problems(&schema, &schema, &other, "").is_empty());
}

#[test]
fn the_schemas_know_exactly_the_keys_that_are_read() {
    use crate::topology::{Component, Persistent, Previews, Probe, Topology, Verification};
    use flowline_core::grant::{Grant, Grants};
    use flowline_pipeline::plan::{
        Declared, Denial, Each, Limits, Node, Observed, OutputRef, PlannedNode, Policy, Preview, Retry,
    };
    /// The keys that a type reads, as it says itself when it meets another.
    fn keys<T: serde::de::DeserializeOwned>() -> Vec<String> {
        let error = serde_json::from_str::<T>(r#"{"no-such-key": 1}"#).err().unwrap().to_string();
        let known = error.split_once("expected").unwrap().1;
        let mut keys: Vec<String> = known.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        keys.sort();
        keys
    }
    fn declared(schema: &Value, at: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            schema.pointer(at).unwrap().as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    }
    let topology = schema_of("topology");
    assert_eq!(declared(&topology, "/properties"), keys::<Topology>());
    assert_eq!(declared(&topology, "/$defs/component/properties"), keys::<Component>());
    assert_eq!(declared(&topology, "/$defs/environment/properties"), keys::<Persistent>());
    assert_eq!(declared(&topology, "/properties/previews/properties"), keys::<Previews>());
    assert_eq!(declared(&topology, "/$defs/verify/properties"), keys::<Verification>());
    assert_eq!(declared(&topology, "/$defs/probe/properties"), keys::<Probe>());
    let gate = "/$defs/environment/properties/approval/properties";
    assert_eq!(declared(&topology, gate), keys::<flowline_pipeline::steps::ApprovalGate>());
    let grants = schema_of("grants");
    assert_eq!(declared(&grants, "/properties"), keys::<Grants>());
    assert_eq!(declared(&grants, "/$defs/grant/properties"), keys::<Grant>());
    let plan = schema_of("plan");
    assert_eq!(declared(&plan, "/$defs/denial/properties"), keys::<Denial>());
    assert_eq!(declared(&plan, "/$defs/node/properties"), keys::<PlannedNode>());
    assert_eq!(declared(&plan, "/$defs/written/properties"), keys::<Node>());
    assert_eq!(declared(&plan, "/$defs/written/properties/each/properties"), keys::<Each>());
    assert_eq!(declared(&plan, "/$defs/written/properties/cache/properties"), keys::<Declared>());
    assert_eq!(declared(&plan, "/$defs/output/properties"), keys::<OutputRef>());
    assert_eq!(declared(&plan, "/$defs/preview/properties"), keys::<Preview>());
    assert_eq!(declared(&plan, "/$defs/preview/properties/resources/items/properties"), keys::<Observed>());
    assert_eq!(declared(&plan, "/$defs/policy/properties"), keys::<Policy>());
    assert_eq!(declared(&plan, "/$defs/policy/properties/retry/properties"), keys::<Retry>());
    assert_eq!(declared(&plan, "/$defs/policy/properties/limits/properties"), keys::<Limits>());
}
