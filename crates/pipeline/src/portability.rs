//! Whether a plan's pure steps give the same wherever they run: [`check`] runs each on two sides and compares what it gave by digest.
//!
//! The sides are two registries: with commands on this host and in a container, say. Two equal ones show whether the steps are
//! reproducible at all. Both sides of a step get the same input, so that a difference shows where it arises and nowhere else.

use std::{collections::BTreeMap, fmt, sync::Arc};

use flowline_core::{
    clock::Clock,
    digest::{Digest, Digester},
    id::{Key, RunId},
    store::Fence,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    cancel::Cancel,
    exec::Masker,
    plan::{Effect, Input, Plan, PlannedNode, Sealed, StepId, sorted},
    run::SilentReporter,
    step::{Context, Registry, Secrets, context::Shared},
};

/// So many places of a difference are named.
const PLACES: usize = 10;

/// One of the two places in which the steps run.
#[derive(Debug, Clone)]
pub struct Side {
    /// What the report calls it: `laptop`, `container`.
    pub name: String,
    /// The code of the steps, with the executor of this side in it.
    pub registry: Arc<Registry>,
}

impl Side {
    /// The side called `name`.
    pub fn new(name: impl Into<String>, registry: Arc<Registry>) -> Self {
        Self { name: name.into(), registry }
    }
}

/// What was found. As text it is the report for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Portability {
    /// The plan.
    pub plan: Digest,
    /// The names of the two sides.
    pub sides: [String; 2],
    /// Each step of the plan, in its order.
    pub steps: Vec<Checked>,
}

/// What was found about one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The step.
    pub step: StepId,
    /// What was found.
    pub found: Found,
}

/// How the outputs of the two sides compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Found {
    /// Both gave this.
    Same {
        /// The digest of the output.
        output: Digest,
    },
    /// They gave different things.
    Different {
        /// The digest of each side's output.
        outputs: [Digest; 2],
        /// Where they differ, as JSON pointers (RFC 6901); not more than ten.
        at: Vec<String>,
    },
    /// A side failed.
    Failed {
        /// Why, for each side that did; secrets masked.
        errors: [Option<String>; 2],
        /// What the step seems to use without declaring it, if one side alone failed and its words tell.
        #[serde(skip_serializing_if = "Option::is_none")]
        undeclared: Option<Undeclared>,
    },
    /// It was not run.
    Skipped {
        /// Why.
        because: String,
    },
}

/// What a step seems to use although it does not declare it: it is there on one side, and kept away from it on the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undeclared {
    /// What it is.
    pub what: Use,
    /// The line of output that tells.
    pub line: String,
}

/// Something that a step has to declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Use {
    /// A file that it reads, or a program.
    File,
    /// A file that it writes.
    Output,
    /// The network.
    Network,
    /// A variable of the environment.
    Variable,
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file or a program that it does not declare (`reads`), or that the image lacks",
            Self::Output => "a file that it writes and does not declare (`writes`)",
            Self::Network => "the network, which it does not declare (`with_network`)",
            Self::Variable => "a variable that it does not declare (`env`)",
        })
    }
}

/// What programs say when something is not there for them.
const SIGNS: [(Use, &[&str]); 4] = [
    (
        Use::Network,
        &[
            "Network is unreachable",
            "Network unreachable",
            "No route to host",
            "name resolution",
            "Name or service not known",
            "Could not resolve host",
            "bad address",
            "nodename nor servname",
            "Connection refused",
            "can't connect to remote host",
        ],
    ),
    (Use::Output, &["Read-only file system", "read-only file system"]),
    (
        Use::Variable,
        &["unbound variable", "parameter not set", "parameter null or not set", "environment variable"],
    ),
    (
        Use::File,
        &["No such file or directory", "no such file", "cannot find", "not found", "there is no program"],
    ),
];

impl Undeclared {
    /// What the words of a failed step tell: the last of its lines that shows a sign.
    fn told(error: &str) -> Option<Self> {
        let (before, lines) = error.split_once("its last lines: ").unwrap_or(("", error));
        let lines = lines.rsplit(" / ").chain([before]);
        let found = lines.filter_map(|line| {
            let shows = |signs: &[&str]| signs.iter().any(|sign| line.contains(sign));
            let (what, _) = SIGNS.iter().find(|(_, signs)| shows(signs))?;
            Some(Self { what: *what, line: line.trim().to_owned() })
        });
        found.into_iter().next()
    }
}

impl Portability {
    /// Whether every step that was run gave the same on both sides, and at least one was run.
    pub fn is_portable(&self) -> bool {
        let ran = |checked: &&Checked| !matches!(checked.found, Found::Skipped { .. });
        let mut all = self.steps.iter().filter(ran).peekable();
        all.peek().is_some() && all.all(|checked| matches!(checked.found, Found::Same { .. }))
    }
}

impl fmt::Display for Portability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &self.sides;
        let count = |same: bool| {
            let is = |checked: &&Checked| match checked.found {
                Found::Skipped { .. } => false,
                Found::Same { .. } => same,
                _ => !same,
            };
            self.steps.iter().filter(is).count()
        };
        writeln!(
            f,
            "plan {}: {first} and {second}: {} same, {} not",
            self.plan.short(),
            count(true),
            count(false)
        )?;
        for Checked { step, found } in &self.steps {
            match found {
                Found::Same { output } => writeln!(f, "  same       {step}  {}", output.short())?,
                Found::Different { outputs: [one, other], at } => {
                    let (one, other) = (one.short(), other.short());
                    writeln!(
                        f,
                        "  different  {step}  {first} {one}, {second} {other}; at {}",
                        at.join(", ")
                    )?;
                }
                Found::Failed { errors, undeclared } => {
                    let failed = self.sides.iter().zip(errors);
                    for (side, error) in failed.filter_map(|(side, error)| Some((side, error.as_ref()?))) {
                        writeln!(f, "  failed     {step}  on {side}: {error}")?;
                    }
                    if let Some(Undeclared { what, line }) = undeclared {
                        writeln!(f, "             it seems to use {what}: `{line}`")?;
                    }
                }
                Found::Skipped { because } => writeln!(f, "  not run    {step}  {because}")?,
            }
        }
        Ok(())
    }
}

/// Runs every pure step of `plan` on both `sides`, one after the other, and compares.
///
/// A side that keeps more away than the other shows what a step uses and does not declare: it fails there. Its words say what that seems to be
/// ([`Undeclared`]): a file or the network where one side is a container, a variable wherever one side passes on some of its own.
///
/// A step is not run if it has an effect or touches a resource, is a template, or takes the output of a step that was not run. Nothing is
/// journalled. What a command writes is compared by the digests in its output; give the sides directories of their own if a file that only
/// one of them writes must not be counted for both. Cancelling stops what runs; the rest is not run.
pub async fn check(
    plan: &Sealed<Plan>,
    sides: &[Side; 2],
    clock: Arc<dyn Clock>,
    secrets: Arc<Secrets>,
    cancel: &Cancel,
) -> Portability {
    let mut outputs = BTreeMap::new();
    let mut steps = Vec::new();
    for node in plan.plan().nodes() {
        let found = match input(node, &outputs) {
            _ if cancel.is_cancelled() => Found::Skipped { because: "it was cancelled before".to_owned() },
            Err(because) => Found::Skipped { because },
            Ok(input) => {
                let masker = Masker::new(secrets.values());
                let mut gave = Vec::new();
                for side in sides {
                    let context = context(plan, node, &clock, &secrets, cancel);
                    let ran = run(side, node, input.clone(), context).await;
                    gave.push(ran.map_err(|error| {
                        String::from_utf8_lossy(&masker.mask(error.as_bytes())).into_owned()
                    }));
                }
                let second = gave.pop().unwrap_or_else(|| Err(String::new()));
                let first = gave.pop().unwrap_or_else(|| Err(String::new()));
                if let (Ok(first), Ok(_)) = (&first, &second) {
                    outputs.insert(node.id().clone(), first.clone());
                }
                compare(first, second)
            }
        };
        steps.push(Checked { step: node.id().clone(), found });
    }
    Portability { plan: plan.digest(), sides: [sides[0].name.clone(), sides[1].name.clone()], steps }
}

/// What goes into a step, or why it is not run.
fn input(node: &PlannedNode, outputs: &BTreeMap<StepId, Value>) -> Result<Value, String> {
    if node.effect != Effect::Pure {
        return Err("it has an effect".to_owned());
    }
    if !node.touches.is_empty() {
        return Err("it touches a resource".to_owned());
    }
    if node.node.each.is_some() || !node.node.when.is_empty() {
        return Err("it depends on what a run finds".to_owned());
    }
    node.node.inputs.assemble(|input| match input {
        Input::Output(from) => outputs
            .get(&from.step)
            .and_then(|output| output.pointer(&from.at))
            .cloned()
            .ok_or_else(|| format!("it takes an output of `{}`, which is not known", from.step)),
        Input::Item(_) => Err("it depends on what a run finds".to_owned()),
        Input::Value(value) => Ok(value.clone()),
    })
}

fn context(
    plan: &Sealed<Plan>,
    node: &PlannedNode,
    clock: &Arc<dyn Clock>,
    secrets: &Arc<Secrets>,
    cancel: &Cancel,
) -> Option<Context> {
    let shared = Shared {
        run: RunId::new("portability").ok()?,
        clock: Arc::clone(clock),
        secrets: Arc::clone(secrets),
        masker: Masker::new(secrets.values()),
        reporter: Arc::new(SilentReporter),
        // Nobody holds this, so a step that writes under it is refused.
        fence: Fence { lease: Key::new("lease/portability").ok()?, token: 0 },
        plan: plan.digest(),
        pipeline: plan.plan().name().to_owned(),
        build: plan.plan().build(),
        author: plan.plan().author().cloned(),
    };
    let (id, cancel) = (node.id().clone(), cancel.child());
    Some(Context::new(Arc::new(shared), id, 1, Vec::new(), cancel, Vec::new(), Vec::new()))
}

async fn run(
    side: &Side,
    node: &PlannedNode,
    input: Value,
    context: Option<Context>,
) -> Result<Value, String> {
    let context = context.ok_or("its run cannot be named")?;
    let step =
        side.registry.resolve(&node.node.kind, &node.node.params).map_err(|error| error.to_string())?;
    step.run(input, &context).await.map(sorted).map_err(|error| error.to_string())
}

fn compare(first: Result<Value, String>, second: Result<Value, String>) -> Found {
    match (first, second) {
        (Ok(first), Ok(second)) if first == second => Found::Same { output: digest(&first) },
        (Ok(first), Ok(second)) => {
            let mut at = Vec::new();
            differences(&first, &second, &mut String::new(), &mut at);
            Found::Different { outputs: [digest(&first), digest(&second)], at }
        }
        (first, second) => {
            let errors = [first.err(), second.err()];
            let undeclared = match &errors {
                [Some(error), None] | [None, Some(error)] => Undeclared::told(error),
                _ => None,
            };
            Found::Failed { errors, undeclared }
        }
    }
}

fn digest(output: &Value) -> Digest {
    Digester::new("flowline output 1").part(output.to_string()).finish()
}

/// Where two values differ, as deep as they can be told apart.
fn differences(one: &Value, other: &Value, path: &mut String, at: &mut Vec<String>) {
    if one == other || at.len() == PLACES {
        return;
    }
    let length = path.len();
    let (Value::Object(one), Value::Object(other)) = (one, other) else {
        at.push(if path.is_empty() { "the whole output".to_owned() } else { path.clone() });
        return;
    };
    let mut names: Vec<_> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        path.push('/');
        path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let (one, other) = (one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null));
        differences(one, other, path, at);
        path.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_step_uses_without_declaring_it_is_told_from_its_words() {
        let told = |error: &str| Undeclared::told(error).map(|found| (found.what, found.line));
        let code = |lines: &str| format!("`sh` ended with exit code 1; its last lines: {lines}");
        for (lines, what, line) in [
            (
                "building / cat: can't open 'x': No such file or directory",
                Use::File,
                "cat: can't open 'x': No such file or directory",
            ),
            ("sh: 1: yarn: not found / gave up", Use::File, "sh: 1: yarn: not found"),
            (
                "curl: (6) Could not resolve host: example.org",
                Use::Network,
                "curl: (6) Could not resolve host: example.org",
            ),
            ("wget: bad address 'example.org'", Use::Network, "wget: bad address 'example.org'"),
            (
                "sh: can't create log: Read-only file system",
                Use::Output,
                "sh: can't create log: Read-only file system",
            ),
            ("sh: 1: HOME: parameter not set", Use::Variable, "sh: 1: HOME: parameter not set"),
        ] {
            assert_eq!(told(&code(lines)), Some((what, line.to_owned())), "{lines}");
        }
        assert_eq!(told(&code("assertion failed: 1 == 2")), None);
        // Where both fail, it is not what only one keeps away.
        let failed = |error: &str| Err(error.to_owned());
        let Found::Failed { undeclared, .. } = compare(failed("x: not found"), failed("x: not found")) else {
            panic!()
        };
        assert_eq!(undeclared, None);
    }

    #[test]
    fn a_difference_is_named_where_it_arises() {
        let one = json!({"files": {"a/b": "1", "c": "2"}, "stdout": "x"});
        let other = json!({"files": {"a/b": "3", "d": "2"}, "stdout": "x"});
        let mut at = Vec::new();
        differences(&one, &other, &mut String::new(), &mut at);
        assert_eq!(at, ["/files/a~1b", "/files/c", "/files/d"]);
        at.clear();
        differences(&json!(1), &json!(2), &mut String::new(), &mut at);
        assert_eq!(at, ["the whole output"]);
    }
}
