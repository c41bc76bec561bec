//! The suite of steps itself: a step that keeps every promise, and the same with one fault for each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use flowline_core::{SignedDuration, clock::Clock, id::ResourceId, secret::Secret};
use flowline_pipeline::{
    step::{
        Action, Context, Effect, Fingerprint, Happened, Observed, Preview, PreviewContext, Spec, Step,
        StepError, Undo,
    },
    testkit::{self, StepTrial},
};
use serde::{Deserialize, Deserializer, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    ForgetsParameter,
    ChangesItsMind,
    PreviewWrites,
    HidesResource,
    KeepsAndWrites,
    SameFingerprint,
    ForgetsOutput,
    PureWrites,
    WritesTwice,
    ProbeSaysYes,
    ProbeSaysNo,
    ProbeSaysHalfIsWhole,
    UndoDoesNothing,
    UndoTakesAnything,
    UndoNeedsOutput,
    AsksNoGrant,
    DeafToCancel,
    ShowsSecret,
}

/// Puts a value on a shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    value: String,
    effect: Effect,
    #[serde(deserialize_with = "forgets")]
    odd: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Done {
    value: String,
    #[serde(deserialize_with = "forgets")]
    odd: bool,
}

fn forgets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    bool::deserialize(deserializer).map(|_| false)
}

impl Spec for Put {
    const KIND: &'static str = "test/put";
    type Input = ();
    type Output = Done;
}

#[derive(Debug, Clone, Default)]
struct Shelf(Arc<Mutex<Things>>);

/// What lies there, and what lay there before each run's change.
type Things = (Vec<String>, BTreeMap<String, Vec<String>>);

impl Shelf {
    fn shown(&self) -> Vec<String> {
        self.0.lock().unwrap().0.clone()
    }
}

#[derive(Debug)]
struct PutStep {
    shelf: Shelf,
    fault: Fault,
    asked: AtomicU32,
    shown: Option<String>,
}

fn shelf() -> ResourceId {
    ResourceId::new("shelf:one").unwrap()
}

#[async_trait]
impl Step for PutStep {
    type Spec = Put;

    fn effect(&self, spec: &Put) -> Effect {
        if self.fault == Fault::PureWrites { Effect::Pure } else { spec.effect.clone() }
    }

    fn undoing(&self, _: &Put) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, _: &Put) -> Vec<ResourceId> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if self.fault == Fault::ChangesItsMind && asked > 1 { Vec::new() } else { vec![shelf()] }
    }

    async fn preview(&self, spec: &Put, _: &PreviewContext) -> Result<Preview, StepError> {
        if self.fault == Fault::PreviewWrites {
            self.shelf.0.lock().unwrap().0.push("looked".to_owned());
        }
        if self.fault == Fault::HidesResource {
            return Ok(Preview::run("puts something somewhere"));
        }
        let found = self.shelf.shown();
        let fingerprint = match self.fault {
            Fault::SameFingerprint => Fingerprint::absent(),
            _ => Fingerprint::of(&found).unwrap(),
        };
        let action = if found.contains(&spec.value) { Action::Keep } else { Action::Update };
        let seen = Observed { resource: shelf(), action, fingerprint, details: Vec::new() };
        Ok(Preview::of(format!("puts {}", spec.value), vec![seen]))
    }

    async fn run(&self, spec: &Put, (): (), context: &Context) -> Result<Done, StepError> {
        if self.fault != Fault::AsksNoGrant {
            context.granted(&shelf())?;
        }
        let done = |odd| Done { value: spec.value.clone(), odd };
        if self.fault == Fault::DeafToCancel {
            flowline_core::clock::SystemClock.sleep(SignedDuration::from_mins(1)).await;
        }
        tokio::task::yield_now().await;
        let key = context.key();
        {
            let mut shelf = self.shelf.0.lock().unwrap();
            let again = matches!(self.fault, Fault::WritesTwice | Fault::KeepsAndWrites);
            if shelf.0.contains(&spec.value) && !again {
                return Ok(done(false));
            }
            let before = shelf.0.clone();
            shelf.1.entry(key).or_insert(before);
        }
        tokio::task::yield_now().await;
        if self.fault == Fault::ProbeSaysHalfIsWhole {
            self.shelf.0.lock().unwrap().0.push("half".to_owned());
            tokio::task::yield_now().await;
            self.shelf.0.lock().unwrap().0.pop();
        }
        self.shelf.0.lock().unwrap().0.push(spec.value.clone());
        tokio::task::yield_now().await;
        if self.fault == Fault::ShowsSecret {
            return Err(StepError::failed(format!("refused {}", context.secret("KEY")?.expose())));
        }
        Ok(done(self.fault == Fault::ForgetsOutput))
    }

    async fn probe(&self, spec: &Put, (): (), _: &Context) -> Result<Happened<Done>, StepError> {
        let shown = self.shelf.shown();
        let there = match self.fault {
            Fault::ProbeSaysYes => true,
            Fault::ProbeSaysNo => false,
            Fault::ProbeSaysHalfIsWhole => !shown.is_empty() && shown != ["before"],
            _ => shown.contains(&spec.value),
        };
        Ok(if there { Happened::Yes(Done { value: spec.value.clone(), odd: false }) } else { Happened::No })
    }

    async fn undo(&self, _: &Put, output: Option<Done>, context: &Context) -> Result<(), StepError> {
        let mut shelf = self.shelf.0.lock().unwrap();
        match self.fault {
            Fault::UndoDoesNothing => return Ok(()),
            Fault::UndoTakesAnything => drop(shelf.0.pop()),
            Fault::UndoNeedsOutput if output.is_none() => return Ok(()),
            _ => {}
        }
        if let Some(before) = shelf.1.get(&context.key()) {
            shelf.0 = before.clone();
        }
        Ok(())
    }
}

fn trial(fault: Fault, effect: &Effect) -> StepTrial<PutStep> {
    let shelf = Shelf::default();
    shelf.0.lock().unwrap().0.push("before".to_owned());
    let step = PutStep {
        shelf: shelf.clone(),
        fault,
        asked: AtomicU32::new(0),
        shown: (fault == Fault::ShowsSecret).then(|| "hunter2-secret".to_owned()),
    };
    assert!(step.shown.as_ref().is_none_or(|shown| shown.contains("hunter2")));
    let odd = fault == Fault::ForgetsParameter;
    let spec = Put { value: "new".to_owned(), effect: effect.clone(), odd };
    StepTrial::new(step, spec, move || format!("{:?}", shelf.shown()))
        .with_secret("KEY", Secret::new("hunter2-secret"))
}

#[tokio::test]
async fn a_good_step_keeps_every_promise_whatever_its_effect() {
    for effect in [Effect::idempotent(), Effect::Probed, Effect::Once] {
        let report = testkit::step(async || trial(Fault::None, &effect)).await;
        assert!(report.failures.is_empty(), "{effect:?}: {report}");
    }
}

#[tokio::test]
async fn each_fault_breaks_the_promise_that_it_should() {
    let idempotent = Effect::idempotent();
    for (fault, effect, promise) in [
        (Fault::ForgetsParameter, &idempotent, "parameters survive being written and read"),
        (Fault::ChangesItsMind, &idempotent, "effect, undo and resources follow from the parameters alone"),
        (Fault::PreviewWrites, &idempotent, "a preview changes nothing and says the same again"),
        (Fault::HidesResource, &idempotent, "a preview shows every resource that the step touches"),
        (Fault::KeepsAndWrites, &idempotent, "a preview that keeps everything comes true"),
        (Fault::SameFingerprint, &idempotent, "what a preview says will change gets another fingerprint"),
        (Fault::ForgetsOutput, &idempotent, "an output survives being written and read"),
        (Fault::PureWrites, &idempotent, "a pure step changes nothing"),
        (Fault::WritesTwice, &idempotent, "an idempotent step done twice is done once"),
        (Fault::ProbeSaysYes, &Effect::Probed, "before the run a probe says that it did not happen"),
        (Fault::ProbeSaysNo, &Effect::Probed, "after the run a probe says that it happened, with its output"),
        (Fault::ProbeSaysHalfIsWhole, &Effect::Probed, "a step cut short anywhere comes to its end"),
        (Fault::UndoDoesNothing, &idempotent, "undo restores what was before"),
        (Fault::UndoTakesAnything, &idempotent, "undo of what never happened changes nothing"),
        (Fault::UndoNeedsOutput, &idempotent, "undo of a step cut short anywhere restores what was before"),
        (Fault::AsksNoGrant, &idempotent, "a step without its grants is denied and changes nothing"),
        (Fault::DeafToCancel, &idempotent, "a cancelled step ends soon"),
        (Fault::ShowsSecret, &idempotent, "a secret is seen nowhere"),
    ] {
        let broken = testkit::step_promise(async || trial(fault, effect), promise).await;
        assert!(broken.is_some(), "{fault:?} keeps: {promise}");
    }
}

/// Reads any parameter.
#[derive(Debug, Serialize, Deserialize)]
struct Loose {}

impl Spec for Loose {
    const KIND: &'static str = "test/loose";
    type Input = ();
    type Output = ();
}

#[derive(Debug)]
struct LooseStep;

#[async_trait]
impl Step for LooseStep {
    type Spec = Loose;

    fn effect(&self, _: &Loose) -> Effect {
        Effect::Pure
    }

    async fn preview(&self, _: &Loose, _: &PreviewContext) -> Result<Preview, StepError> {
        Ok(Preview::run("does nothing"))
    }

    async fn run(&self, _: &Loose, (): (), _: &Context) -> Result<(), StepError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_mistyped_parameter_that_is_read_is_found() {
    let report = testkit::step(async || StepTrial::new(LooseStep, Loose {}, || "")).await;
    let broken: Vec<_> = report.failures.iter().map(|failure| failure.sentence).collect();
    assert_eq!(broken, ["a parameter that nobody knows is refused"]);
    insta::assert_snapshot!(report, @r"
    test/loose, suite `step`: 9 hold, 1 broken, 9 do not apply
    broken: a parameter that nobody knows is refused
        `mistyped` was read; use `#[serde(deny_unknown_fields)]`
    does not apply: a preview that keeps everything comes true
    does not apply: an idempotent step done twice is done once
    does not apply: before the run a probe says that it did not happen
    does not apply: after the run a probe says that it happened, with its output
    does not apply: undo restores what was before
    does not apply: undo of what never happened changes nothing
    does not apply: undo of a step cut short anywhere restores what was before
    does not apply: a step without its grants is denied and changes nothing
    does not apply: a secret is seen nowhere
    ");
}

#[test]
fn every_promise_has_a_fault_that_breaks_it() {
    assert_eq!(testkit::step_promises().count(), 19);
}
