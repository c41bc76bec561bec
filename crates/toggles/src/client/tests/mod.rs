//! The requirements of OpenFeature's specification 0.9, one by one. A test that proves a requirement carries its number in its name:
//! `req_1_4_10_…`, and `req_2_5_1_and_2_5_2_…` for several. `table` makes `docs/openfeature.md` of them.

#![expect(
    clippy::clone_on_ref_ptr,
    clippy::items_after_statements,
    clippy::unnecessary_wraps,
    reason = "tests read better so"
)]

mod context;
mod evaluation;
mod events;
mod hooks;
mod life_cycle;
mod races;
mod table;
mod tracking;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use flowline_core::error::BoxError;

use super::*;
use crate::{
    provider::{LifeCycle, Memory, MemoryFlag, Provider, ProviderMetadata, Resolution, Resolved, Start},
    value::Value,
};

/// A line of what happened, shared.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// How a [`Probe`] starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Starts {
    /// It has no life cycle.
    #[default]
    Nothing,
    /// It says that it is ready.
    Well,
    /// It says nothing and returns.
    Silently,
    /// It fails.
    Badly,
    /// It fails for good.
    Fatally,
    /// It never returns.
    Never,
    /// It panics.
    Panicking,
}

/// A provider that remembers what it was asked and does what it is told.
#[derive(Debug, Default)]
struct Probe {
    name: &'static str,
    starts: Starts,
    scoped: bool,
    log: Log,
    contexts: Mutex<Vec<EvaluationContext>>,
    events: Mutex<Option<Emitter>>,
    asked: AtomicUsize,
    structure: Option<Value>,
    answer: Option<Resolved<bool>>,
    hooks: Mutex<Vec<Recorder>>,
}

impl Probe {
    fn new(name: &'static str, starts: Starts) -> Self {
        Self { name, starts, ..Self::default() }
    }

    fn last_context(&self) -> EvaluationContext {
        self.contexts.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn emit(&self, event: Event, details: EventDetails) {
        self.events.lock().unwrap().clone().unwrap().emit(event, details);
    }

    fn saw<T>(&self, value: T, context: &EvaluationContext) -> Resolved<T> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.log.note("resolve");
        self.contexts.lock().unwrap().push(context.clone());
        Ok(Resolution::new(value).because(Reason::Static).variant("only"))
    }
}

impl Provider for Probe {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new(self.name)
    }

    fn resolve_bool(&self, key: &str, _default: bool, context: &EvaluationContext) -> Resolved<bool> {
        assert_ne!(key, "panics", "as asked");
        let answer = self.saw(true, context);
        self.answer.clone().unwrap_or(answer)
    }

    fn resolve_text(&self, _key: &str, _default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.saw("text".to_owned(), context)
    }

    fn resolve_integer(&self, _key: &str, _default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.saw(7, context)
    }

    fn resolve_float(&self, _key: &str, _default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.saw(0.5, context)
    }

    fn resolve_structure(
        &self,
        _key: &str,
        _default: &Value,
        context: &EvaluationContext,
    ) -> Resolved<Value> {
        self.saw(self.structure.clone().unwrap_or_else(|| Value::object([("a", 1.into())])), context)
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        (self.starts != Starts::Nothing).then_some(self as _)
    }

    fn hooks(&self) -> Vec<Arc<dyn Hook>> {
        self.hooks.lock().unwrap().iter().map(|hook| Arc::new(hook.clone()) as _).collect()
    }

    fn track(&self, name: &str, context: &EvaluationContext, details: &TrackingDetails) {
        self.contexts.lock().unwrap().push(context.clone());
        self.log.note(format!(
            "track {name} {:?} {:?}",
            details.value(),
            details.fields().collect::<Vec<_>>()
        ));
    }
}

#[async_trait]
impl LifeCycle for Probe {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        self.log.note(format!("initialize {} {:?} {:?}", self.name, start.context, start.domain));
        *self.events.lock().unwrap() = Some(start.events.clone());
        match self.starts {
            Starts::Nothing | Starts::Silently => Ok(()),
            Starts::Well => {
                start.events.emit(Event::Ready, EventDetails::new());
                Ok(())
            }
            Starts::Badly | Starts::Fatally => {
                let code =
                    if self.starts == Starts::Badly { ErrorCode::General } else { ErrorCode::ProviderFatal };
                start.events.emit(Event::Error, EventDetails::error(code, "no connection"));
                Err(EvaluationError::new(code, "no connection"))
            }
            Starts::Never => std::future::pending().await,
            Starts::Panicking => panic!("as asked"),
        }
    }

    fn shutdown(&self) {
        self.log.note(format!("shutdown {}", self.name));
    }

    fn domain_scoped(&self) -> bool {
        self.scoped
    }
}

/// A hook that writes down its stages, and fails where it is told to.
#[derive(Debug, Clone)]
struct Recorder {
    name: &'static str,
    log: Log,
    fails: Option<&'static str>,
    panics: bool,
    adds: Option<(&'static str, &'static str)>,
}

impl Recorder {
    fn new(name: &'static str, log: &Log) -> Self {
        Self { name, log: log.clone(), fails: None, panics: false, adds: None }
    }

    fn failing(self, stage: &'static str) -> Self {
        Self { fails: Some(stage), ..self }
    }

    fn panicking(self, stage: &'static str) -> Self {
        Self { panics: true, ..self.failing(stage) }
    }

    fn adding(self, name: &'static str, value: &'static str) -> Self {
        Self { adds: Some((name, value)), ..self }
    }

    fn hook(self) -> Arc<dyn Hook> {
        Arc::new(self)
    }

    fn at(&self, stage: &'static str) -> Result<(), BoxError> {
        self.log.note(format!("{stage} {}", self.name));
        if self.fails == Some(stage) {
            assert!(!self.panics, "{} panicked in {stage}", self.name);
            return Err(format!("{} failed in {stage}", self.name).into());
        }
        Ok(())
    }
}

impl Hook for Recorder {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn before(
        &self,
        _context: &mut HookContext<'_>,
        _hints: &HookHints,
    ) -> Result<Option<EvaluationContext>, BoxError> {
        self.at("before")?;
        Ok(self.adds.map(|(name, value)| EvaluationContext::new().with(name, value)))
    }

    fn after(&self, _: &mut HookContext<'_>, _: &Details<Value>, _: &HookHints) -> Result<(), BoxError> {
        self.at("after")
    }

    fn error(&self, _: &mut HookContext<'_>, error: &EvaluationError, _: &HookHints) -> Result<(), BoxError> {
        assert!(!error.to_string().is_empty());
        self.at("error")
    }

    fn finally(&self, _: &mut HookContext<'_>, _: &Details<Value>, _: &HookHints) -> Result<(), BoxError> {
        self.at("finally")
    }
}

/// An API with a probe as its default provider.
fn with_probe(starts: Starts) -> (Api, Arc<Probe>) {
    let api = isolated::api();
    let probe = Arc::new(Probe::new("probe", starts));
    drop(api.set_provider(probe.clone()).unwrap());
    (api, probe)
}

/// An API with one flag of each type, each at its default variant.
fn with_flags() -> Api {
    let api = isolated::api();
    let one = |value: Value| MemoryFlag::new().variant("only", value).default_variant("only");
    let structure = Value::object([("colour", Value::from("green")), ("size", Value::from(3))]);
    let memory = Memory::new()
        .flag("bool", one(true.into()))
        .flag("text", one("hi".into()))
        .flag("integer", one(10.into()))
        .flag("float", one(0.5.into()))
        .flag("structure", one(structure))
        .flag("off", one(true.into()).disabled())
        .flag("told", one(true.into()).metadata(FlagMetadata::from_iter([("version", "1.0.2")])));
    drop(api.set_provider(Arc::new(memory)).unwrap());
    api
}
