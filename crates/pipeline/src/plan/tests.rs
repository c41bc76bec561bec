use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::{
    clock::ManualClock,
    error::{Kinded, chain},
    grant::{Authority, Grant, Grants, Pattern},
    id::ResourceId,
};
use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    pipeline::Pipeline,
    step::{Context, FnStep, Function, PreviewContext, Registry, Spec, Step, StepError},
};

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Point {
    host: String,
    to: String,
}

impl Spec for Point {
    const KIND: &'static str = "point";
    type Input = String;
    type Output = ();
}

#[derive(Debug)]
struct PointStep {
    now: &'static str,
}

#[async_trait]
impl Step for PointStep {
    type Spec = Point;

    fn effect(&self, _: &Point) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, spec: &Point) -> Undo {
        if spec.to == "void" { Undo::Irreversible } else { Undo::Compensate }
    }

    fn touches(&self, spec: &Point) -> Vec<ResourceId> {
        ResourceId::of("host", &spec.host).into_iter().collect()
    }

    async fn preview(&self, spec: &Point, context: &PreviewContext) -> Result<Preview, StepError> {
        let resource = ResourceId::of("host", &spec.host).map_err(StepError::of)?;
        context.granted(&resource)?;
        let (action, details) = if self.now == spec.to {
            (Action::Keep, Vec::new())
        } else {
            (Action::Update, vec![format!("target: {} -> {}", self.now, spec.to)])
        };
        let fingerprint = Fingerprint::of(&self.now).map_err(|error| StepError::failed(error.to_string()))?;
        let observed = Observed { resource, action, fingerprint, details };
        Ok(Preview::of(format!("points {} to {}", spec.host, spec.to), vec![observed]))
    }

    async fn run(&self, _: &Point, _: String, _: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

fn planner(now: &'static str) -> Planner {
    let mut registry = Registry::new();
    registry.add(PointStep { now }).unwrap();
    registry.function(&version(), FnStep::pure(|(): (), _| async { Ok("v1".to_owned()) }));
    registry.built_as(Digest::of("build"));
    let grant = Grant {
        app: "storefront".parse().unwrap(),
        resource: Pattern::new("host:*.awesome.com").unwrap(),
        because: String::new(),
    };
    let authority = Authority::new("storefront".parse().unwrap(), &Grants { grants: vec![grant] });
    Planner::new(Arc::new(registry), authority, Arc::new(ManualClock::default()))
}

fn version() -> Function<(), String> {
    Function::new("version", 1).unwrap()
}

fn draft(hosts: &[(&str, &str)]) -> Draft {
    let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
    pipeline.input("change", "pr-123");
    let version = pipeline.call("version", &version(), ());
    for (host, to) in hosts {
        let point = Point { host: (*host).to_owned(), to: (*to).to_owned() };
        pipeline.feed(&format!("point/{host}"), point, &version);
    }
    pipeline.draft().unwrap()
}

async fn planned(hosts: &[(&str, &str)]) -> Plan {
    planner("old").plan(&draft(hosts)).await.unwrap()
}

#[tokio::test]
async fn text_says_what_changes_what_stays_and_what_cannot_be_undone() {
    let plan =
        planned(&[("a.awesome.com", "new"), ("b.awesome.com", "old"), ("c.awesome.com", "void")]).await;
    insta::assert_snapshot!(plan, @r"
    plan `release` for `storefront`: 2 to change, 1 to run, 1 unchanged, 1 irreversible
      > version (fn/version@1, pure): calls a function of the deployer
      ~ point/a.awesome.com (point@1, idempotent): points a.awesome.com to new
          ~ update host:a.awesome.com
              target: old -> new
      = point/b.awesome.com (point@1, idempotent): points b.awesome.com to old
          = keep host:b.awesome.com
      ~ point/c.awesome.com (point@1, idempotent): points c.awesome.com to void (cannot be undone)
          ~ update host:c.awesome.com
              target: old -> void
    cannot be undone: `point/c.awesome.com`
    ");
    let digest = plan.clone().seal().unwrap().digest().to_string();
    insta::assert_snapshot!(plan.to_markdown().replace(&digest, "DIGEST"), @r"
    ### plan `release` for `storefront`: 2 to change, 1 to run, 1 unchanged, 1 irreversible

    | | step | what | undo |
    | --- | --- | --- | --- |
    | `>` | `version` | calls a function of the deployer | nothing to undo |
    | `~` | `point/a.awesome.com` | points a.awesome.com to new<br>update `host:a.awesome.com`: target: old -> new | yes |
    | `=` | `point/b.awesome.com` | points b.awesome.com to old<br>keep `host:b.awesome.com` | yes |
    | `~` | `point/c.awesome.com` | points c.awesome.com to void<br>update `host:c.awesome.com`: target: old -> void | **no** |

    An approval names `DIGEST`.
    ");
    insta::assert_snapshot!(planned(&[("a.awesome.com", "new")]).await.to_mermaid(), @r#"
    flowchart TD
      n0["version<br/>fn/version@1"]
      n1["point/a.awesome.com<br/>point@1"]
      n0 --> n1
    "#);
    assert!(plan.has_changes());
    assert!(!planned(&[("b.awesome.com", "old")]).await.has_changes());
}

#[tokio::test]
async fn a_denial_is_in_the_plan_and_keeps_it_from_being_sealed() {
    let plan = planned(&[("a.awesome.com", "new"), ("fun.com", "new")]).await;
    insta::assert_snapshot!(plan, @r"
    plan `release` for `storefront`: 1 to change, 2 to run, 1 denied
      > version (fn/version@1, pure): calls a function of the deployer
      ~ point/a.awesome.com (point@1, idempotent): points a.awesome.com to new
          ~ update host:a.awesome.com
              target: old -> new
      x point/fun.com (point@1): denied
    denied:
      x point/fun.com by rule `grant`: `storefront` may not touch `host:fun.com`: it was granted only `host:*.awesome.com`; ask the owner of `host:fun.com` for a grant
    ");
    let json = plan.to_json().unwrap();
    assert_eq!(json["applyable"], false);
    insta::assert_snapshot!(plan.to_markdown(), @r"
    ### plan `release` for `storefront`: 1 to change, 2 to run, 1 denied

    | | step | what | undo |
    | --- | --- | --- | --- |
    | `>` | `version` | calls a function of the deployer | nothing to undo |
    | `~` | `point/a.awesome.com` | points a.awesome.com to new<br>update `host:a.awesome.com`: target: old -> new | yes |
    | `x` | `point/fun.com` | **denied** | yes |

    > `point/fun.com` is **denied** by rule `grant`: `storefront` may not touch `host:fun.com`: it was granted only `host:*.awesome.com`; ask the owner of `host:fun.com` for a grant
    ");
    let error = plan.seal().unwrap_err();
    assert_eq!(error.kind(), flowline_core::error::ErrorKind::Denied);
    insta::assert_snapshot!(error, @"the plan cannot be sealed, 1 of its effects are denied; first: `storefront` may not touch `host:fun.com`: it was granted only `host:*.awesome.com`; ask the owner of `host:fun.com` for a grant");
}

#[tokio::test]
async fn the_same_plan_has_the_same_bytes_and_anything_else_another_digest() {
    let sealed = async |hosts: &[(&str, &str)]| planned(hosts).await.seal().unwrap();
    let one = sealed(&[("a.awesome.com", "new")]).await;
    let again = sealed(&[("a.awesome.com", "new")]).await;
    assert_eq!(one.to_bytes().unwrap(), again.to_bytes().unwrap());
    assert_ne!(one.digest(), sealed(&[("a.awesome.com", "newer")]).await.digest(), "graph");
    let other = planner("older").plan(&draft(&[("a.awesome.com", "new")])).await.unwrap().seal().unwrap();
    assert_ne!(one.digest(), other.digest(), "fingerprints");
    let mut inputs = draft(&[("a.awesome.com", "new")]);
    inputs.inputs.insert("change".to_owned(), "pr-124".into());
    let other = planner("old").plan(&inputs).await.unwrap().seal().unwrap();
    assert_ne!(one.digest(), other.digest(), "inputs");
}

#[tokio::test]
async fn a_plan_from_disk_is_checked_again() {
    let sealed = planned(&[("a.awesome.com", "new")]).await.seal().unwrap();
    let bytes = sealed.to_bytes().unwrap();
    assert_eq!(Sealed::open(&bytes).unwrap(), sealed);
    assert_eq!(Sealed::open_as(&bytes, sealed.digest()).unwrap(), sealed);
    for document in [sealed.to_text().unwrap().into(), sealed.to_value().unwrap()] {
        assert_eq!(Sealed::open_value(&document).unwrap(), sealed);
        assert_eq!(Sealed::name_in(&document).as_deref(), Some(sealed.plan().name()));
    }
    assert_eq!(Sealed::name_in(&serde_json::json!("{")), None);
    let text = String::from_utf8(bytes).unwrap();
    let said = |text: &str| chain(&Sealed::open(text.as_bytes()).unwrap_err());
    let edited = said(&text.replace("\"to\":\"new\"", "\"to\":\"mine\""));
    assert!(
        edited.starts_with("the plan was changed after it was sealed: its content has digest sha256:"),
        "{edited}"
    );
    insta::assert_snapshot!(said(&text.replace("\"format_version\":1", "\"format_version\":7")), @"the plan has format version 7, this deployer reads up to 1; use the newer deployer or make the plan again");
    insta::assert_snapshot!(said("{\n  \"format_version\": 1,\n  oops"), @"the plan cannot be read (line 3, column 3): key must be a string; make the plan again");
    insta::assert_snapshot!(said(r#"{"format_version":1,"digest":"x","plan":{}}"#), @"the plan cannot be read (line 1, column 32): `x` is not a digest: it needs the form `sha256:` and 64 lower-case hexadecimal digits; make the plan again");
    // Cut anywhere, it is refused with an error, never taken.
    for end in (0..text.trim_end().len()).step_by(7) {
        assert!(Sealed::open(&text.as_bytes()[..end]).is_err());
    }
    let other = Sealed::open_as(text.as_bytes(), Digest::of("other")).unwrap_err();
    assert_eq!(other.kind(), flowline_core::error::ErrorKind::Conflict);
}

#[tokio::test]
async fn drafts_that_contradict_themselves_are_refused() {
    let node = |id: &str, after: &[&str]| {
        let mut node = Node::new(StepId::new(id).unwrap(), version().kind().clone());
        node.after = after.iter().map(|id| StepId::new(id).unwrap()).collect();
        node
    };
    let said = async |nodes: Vec<Node>| {
        let draft = Draft {
            name: "x".to_owned(),
            app: "storefront".parse().unwrap(),
            inputs: BTreeMap::new(),
            nodes,
        };
        chain(&planner("old").plan(&draft).await.unwrap_err())
    };
    let named = Draft {
        name: "re\nlease".to_owned(),
        app: "storefront".parse().unwrap(),
        inputs: BTreeMap::new(),
        nodes: Vec::new(),
    };
    let error = planner("old").plan(&named).await.unwrap_err();
    insta::assert_snapshot!(error, @r"`re\nlease` cannot name a pipeline: it holds a control character; leave it out");
    insta::assert_snapshot!(said(vec![node("a", &["c"]), node("b", &["a"]), node("c", &["b"])]).await, @"steps wait for each other in a circle: `a` waits for `c` waits for `b` waits for `a`; take one of these edges away");
    insta::assert_snapshot!(said(vec![node("a", &[]), node("a", &[])]).await, @"step `a` is there twice; give one of them another id");
    insta::assert_snapshot!(said(vec![node("a", &["b"])]).await, @"step `a` waits for `b`, which is not in the plan");
    let mut unknown = node("a", &[]);
    unknown.kind = "poind@1".parse().unwrap();
    insta::assert_snapshot!(said(vec![unknown.clone()]).await, @"step `a` cannot be planned: there is no step of kind `poind@1` (did you mean `point@1`?); register it before planning");
    unknown.kind = "point@1".parse().unwrap();
    unknown.params = serde_json::json!({"host": 1});
    insta::assert_snapshot!(said(vec![unknown]).await, @"step `a` cannot be planned: the parameters of a `point@1` step cannot be read: invalid type: integer `1`, expected a string");
}

#[tokio::test]
async fn an_approval_counts_for_one_plan_until_its_time_and_not_by_the_author() {
    let planner = planner("old").by("ann".parse().unwrap());
    let sealed = planner.plan(&draft(&[("a.awesome.com", "new")])).await.unwrap().seal().unwrap();
    let now = flowline_core::Timestamp::constant(1_000, 0);
    let until = flowline_core::Timestamp::constant(2_000, 0);
    let approval = Approval { plan: sealed.digest(), by: "bob".parse().unwrap(), at: now, until };
    assert_eq!(approval.check(&sealed, now, false), Ok(()));
    assert!(matches!(approval.check(&sealed, until, false), Err(ApprovalError::Expired { .. })));
    let own = Approval { by: "ann".parse().unwrap(), ..approval };
    assert!(matches!(own.check(&sealed, now, false), Err(ApprovalError::Author { .. })));
    assert_eq!(own.check(&sealed, now, true), Ok(()));
    let other = Approval { plan: Digest::of("other"), ..own };
    assert!(matches!(other.check(&sealed, now, false), Err(ApprovalError::OtherPlan { .. })));
}

#[tokio::test]
async fn a_plan_for_machines_has_a_version_and_keeps_its_shape() {
    let plan = planned(&[("a.awesome.com", "new")]).await;
    let mut json = plan.to_json().unwrap();
    // What is computed from the rest stands elsewhere.
    for pointer in ["/plan/fingerprints/host:a.awesome.com", "/plan/nodes/1/preview/resources/0/fingerprint"]
    {
        *json.pointer_mut(pointer).unwrap() = "FINGERPRINT".into();
    }
    json["plan"]["build"] = "BUILD".into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
}

#[tokio::test]
async fn templates_and_conditions_have_shapes_of_their_own() {
    let mut pipeline = Pipeline::new("release", "storefront".parse().unwrap());
    let needed = Function::<(), bool>::new("needed", 1).unwrap();
    let hosts = Function::<(), Vec<String>>::new("hosts", 1).unwrap();
    let sync = Function::<String, ()>::new("sync", 1).unwrap();
    let needed_output = pipeline.call("needed", &needed, ());
    let hosts_output = pipeline.call("hosts", &hosts, ());
    pipeline.when(&needed_output, |pipeline| {
        pipeline.call_each("sync", &sync, &hosts_output, 20, |host| host);
    });
    let mut registry = Registry::new();
    registry.built_as(Digest::of("build"));
    registry.function(&needed, FnStep::pure(|(): (), _| async { Ok(true) }));
    registry.function(&hosts, FnStep::pure(|(): (), _| async { Ok(Vec::new()) }));
    registry.function(&sync, FnStep::idempotent(|_: String, _| async { Ok(()) }));
    let authority = Authority::new("storefront".parse().unwrap(), &Grants::default());
    let planner = Planner::new(Arc::new(registry), authority, Arc::new(ManualClock::default()));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap();
    insta::assert_snapshot!(plan.to_mermaid(), @r#"
    flowchart TD
      n0["needed<br/>fn/needed@1"]
      n1["hosts<br/>fn/hosts@1"]
      n2[["sync<br/>fn/sync@1<br/>for each of hosts, at most 20<br/>when needed"]]
      n1 --> n2
      n0 --> n2
    "#);
    insta::assert_snapshot!(plan.to_dot(), @r#"
    digraph "release" {
      node [shape=box];
      n0 [label="needed\nfn/needed@1"];
      n1 [label="hosts\nfn/hosts@1"];
      n2 [label="sync\nfn/sync@1\nfor each of hosts, at most 20\nwhen needed", shape=box3d];
      n1 -> n2;
      n0 -> n2;
    }
    "#);
}
