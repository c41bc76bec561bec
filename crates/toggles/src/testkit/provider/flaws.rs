//! Each sentence of the suite can fail; and our own providers keep all of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use flowline_core::{clock::ManualClock, id::ScopeId, store::MemoryStore};

use super::*;
use crate::{
    Toggles,
    client::EventDetails,
    flags::{Author, Flags},
    format::flowline::{Definition, FlagKey, Flowline},
    provider::{
        LifeCycle, Memory, MemoryFlag, NoProvider, ProviderMetadata, Resolution, Start, TogglesProvider,
    },
};

fn memory() -> Memory {
    let flag = |value: Value| MemoryFlag::new().variant("it", value).default_variant("it");
    Memory::new()
        .flag("yes", flag(true.into()))
        .flag("text", flag("hello".into()))
        .flag("whole", flag(7.into()))
        .flag("half", flag(0.5.into()))
        .flag("shape", flag(shape()))
        .flag("dark", flag(true.into()).disabled())
}

const OURS: &str = r#"{"flags": {
    "yes": {"state": {"on": true}},
    "text": {"variants": {"it": "hello"}, "serve": "it", "state": {"on": true}},
    "whole": {"variants": {"it": 7}, "serve": "it", "state": {"on": true}},
    "half": {"variants": {"it": 0.5}, "serve": "it", "state": {"on": true}},
    "shape": {"variants": {"it": {"a": 1}}, "serve": "it", "state": {"on": true}},
    "dark": {"variants": {"it": true}, "serve": "it", "state": {"on": false}}
}}"#;

#[tokio::test]
async fn our_own_keep_the_contract() {
    check(|| Arc::new(memory())).await.verdict().unwrap();
    let ruleset = || Flowline::default().ruleset(OURS).unwrap();
    check(|| Arc::new(TogglesProvider::new(Toggles::new(ruleset())))).await.verdict().unwrap();
    let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(ManualClock::default())).await.unwrap();
    let document = crate::format::flowline::Document::from_json(OURS).unwrap();
    for (key, definition) in document.flags {
        let (key, definition): (FlagKey, Definition) = (key, definition);
        flags.define(&key, definition, &Author::new("ada", "because")).await.unwrap();
    }
    let scopes = AtomicUsize::new(0);
    check(|| {
        let scope = ScopeId::new(format!("pr-{}", scopes.fetch_add(1, Ordering::AcqRel))).unwrap();
        flags.provider(&scope) as Arc<dyn Provider>
    })
    .await
    .verdict()
    .unwrap();
}

/// What is wrong with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    GivesDefaults,
    GivesNoReason,
    NeedsNoType,
    RoundsDown,
    FailsWhenDisabled,
    PanicsAtKeys,
    Mixes,
    IsRenamed,
    StartsStale,
    SaysReadyTwice,
    StartsOnce,
    PanicsWhenStopped,
    TellsMore,
}

#[derive(Debug)]
struct Flawed {
    flaw: Flaw,
    memory: Memory,
    asked: AtomicUsize,
    started: AtomicBool,
}

impl Flawed {
    fn changed<T>(&self, key: &str, default: T, answer: Resolved<T>) -> Resolved<T> {
        self.asked.fetch_add(1, Ordering::AcqRel);
        match (self.flaw, answer) {
            (Flaw::GivesDefaults, Err(error)) if error.code == ErrorCode::FlagNotFound => {
                Ok(Resolution::new(default))
            }
            (Flaw::NeedsNoType, Err(error)) if error.code == ErrorCode::TypeMismatch => {
                Ok(Resolution::new(default))
            }
            (Flaw::GivesNoReason, Ok(resolution)) => Ok(Resolution { reason: None, ..resolution }),
            (Flaw::FailsWhenDisabled, Ok(resolution)) if resolution.reason == Some(Reason::Disabled) => {
                Err(EvaluationError::new(ErrorCode::General, "it is off"))
            }
            (Flaw::PanicsAtKeys, _) if key.is_empty() => panic!("an empty key"),
            (Flaw::Mixes, Ok(_)) if self.asked.load(Ordering::Acquire) > 100 => Ok(Resolution::new(default)),
            (_, answer) => answer,
        }
    }
}

impl Provider for Flawed {
    fn metadata(&self) -> ProviderMetadata {
        let asked = self.asked.load(Ordering::Acquire);
        ProviderMetadata::new(if self.flaw == Flaw::IsRenamed {
            format!("asked {asked}")
        } else {
            "flawed".into()
        })
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.changed(key, default, self.memory.resolve_bool(key, default, context))
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.changed(key, default.to_owned(), self.memory.resolve_text(key, default, context))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        let answer = self.memory.resolve_integer(key, default, context);
        if self.flaw == Flaw::RoundsDown && key == "half" {
            return Ok(Resolution::new(0));
        }
        self.changed(key, default, answer)
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.changed(key, default, self.memory.resolve_float(key, default, context))
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.changed(key, default.clone(), self.memory.resolve_structure(key, default, context))
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        Some(self)
    }
}

#[async_trait]
impl LifeCycle for Flawed {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        if self.started.swap(true, Ordering::AcqRel) && self.flaw == Flaw::StartsOnce {
            return Err(EvaluationError::new(ErrorCode::General, "it has started before"));
        }
        match self.flaw {
            Flaw::StartsStale => start.events.emit(Event::Stale, EventDetails::new()),
            Flaw::SaysReadyTwice => start.events.emit(Event::Ready, EventDetails::new()),
            _ => {}
        }
        start.events.emit(Event::Ready, EventDetails::new());
        if self.flaw == Flaw::TellsMore {
            start.events.emit(Event::ConfigurationChanged, EventDetails::new());
        }
        Ok(())
    }

    fn shutdown(&self) {
        assert!(
            self.flaw != Flaw::PanicsWhenStopped || self.started.load(Ordering::Acquire),
            "it has not started"
        );
    }
}

#[tokio::test]
async fn each_sentence_can_fail() {
    for (flaw, sentence) in [
        (Flaw::GivesDefaults, UNKNOWN),
        (Flaw::GivesNoReason, VALUES),
        (Flaw::NeedsNoType, TYPES),
        (Flaw::RoundsDown, NUMBERS),
        (Flaw::FailsWhenDisabled, DISABLED),
        (Flaw::PanicsAtKeys, HOSTILE),
        (Flaw::Mixes, THREADS),
        (Flaw::IsRenamed, NAME),
        (Flaw::StartsStale, READY),
        (Flaw::SaysReadyTwice, READY),
        (Flaw::StartsOnce, AGAIN),
        (Flaw::PanicsWhenStopped, TWICE),
        (Flaw::TellsMore, READY),
    ] {
        let open = || {
            Arc::new(Flawed {
                flaw,
                memory: memory(),
                asked: AtomicUsize::new(0),
                started: AtomicBool::new(false),
            }) as Arc<dyn Provider>
        };
        let report = check(open).await;
        assert!(
            report.broken().any(|broken| broken == sentence),
            "{flaw:?} does not break `{sentence}`: {report}"
        );
    }
    let report = check(|| Arc::new(NoProvider)).await;
    assert!(report.broken().count() > 3, "{report}");
}
