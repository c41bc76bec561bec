//! Who plays in a case: the provider that starts as it is told and remembers, and the hook that writes down.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use flowline_core::error::BoxError;

use crate::{
    client::{
        Details, ErrorCode, EvaluationContext, EvaluationError, Event, EventDetails, Hook, HookContext,
        HookHints, Reason, Stages,
    },
    provider::{LifeCycle, Memory, Provider, ProviderMetadata, Resolved, Start},
    value::Value,
};

/// How the provider of a case starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Starts {
    Ready,
    NotReady,
    Error,
    Fatal,
    Stale,
}

/// Serves the flag set, remembers the context, and answers from a cache what it has answered before.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) memory: Memory,
    pub(super) starts: Starts,
    pub(super) seen: Mutex<BTreeSet<(&'static str, String)>>,
    pub(super) context: Mutex<EvaluationContext>,
}

impl Cached {
    pub(super) fn answer<T>(
        &self,
        kind: &'static str,
        key: &str,
        context: &EvaluationContext,
        answer: Resolved<T>,
    ) -> Resolved<T> {
        context.clone_into(&mut self.context.lock().unwrap_or_else(PoisonError::into_inner));
        let mut answer = answer?;
        // Only what does not depend on the context may come from a cache that is keyed by flag.
        if answer.reason == Some(Reason::Static) {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if !seen.insert((kind, key.to_owned())) {
                answer.reason = Some(Reason::Cached);
            }
        }
        Ok(answer)
    }
}

impl Provider for Cached {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new("the suite's provider")
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.answer("bool", key, context, self.memory.resolve_bool(key, default, context))
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.answer("text", key, context, self.memory.resolve_text(key, default, context))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.answer("integer", key, context, self.memory.resolve_integer(key, default, context))
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.answer("float", key, context, self.memory.resolve_float(key, default, context))
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.answer("structure", key, context, self.memory.resolve_structure(key, default, context))
    }

    fn life_cycle(&self) -> Option<&dyn LifeCycle> {
        Some(self)
    }
}

#[async_trait]
impl LifeCycle for Cached {
    async fn initialize(&self, start: Start) -> Result<(), EvaluationError> {
        let code = match self.starts {
            Starts::NotReady => std::future::pending().await,
            Starts::Ready | Starts::Stale => {
                start.events.emit(Event::Ready, EventDetails::new());
                if self.starts == Starts::Stale {
                    start.events.emit(Event::Stale, EventDetails::new());
                }
                return Ok(());
            }
            Starts::Error => ErrorCode::General,
            Starts::Fatal => ErrorCode::ProviderFatal,
        };
        start.events.emit(Event::Error, EventDetails::error(code, "as the case wants it"));
        Err(EvaluationError::new(code, "as the case wants it"))
    }

    fn shutdown(&self) {}
}

/// A hook that writes down its stages and what it was told; or adds a context before.
pub(super) struct Spy {
    pub(super) name: &'static str,
    pub(super) calls: Arc<Mutex<Vec<Call>>>,
    pub(super) adds: EvaluationContext,
}

/// One call of a [`Spy`].
pub(super) struct Call {
    pub(super) hook: &'static str,
    pub(super) stage: &'static str,
    pub(super) details: Option<Details<Value>>,
}

impl Spy {
    fn note(&self, stage: &'static str, details: Option<&Details<Value>>) {
        let call = Call { hook: self.name, stage, details: details.cloned() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

impl Hook for Spy {
    fn stages(&self) -> Stages {
        Stages::ALL
    }

    fn before(&self, _: &mut HookContext<'_>, _: &HookHints) -> Result<Option<EvaluationContext>, BoxError> {
        self.note("before", None);
        Ok(Some(self.adds.clone()))
    }

    fn after(
        &self,
        _: &mut HookContext<'_>,
        details: &Details<Value>,
        _: &HookHints,
    ) -> Result<(), BoxError> {
        self.note("after", Some(details));
        Ok(())
    }

    fn error(&self, _: &mut HookContext<'_>, _: &EvaluationError, _: &HookHints) -> Result<(), BoxError> {
        self.note("error", None);
        Ok(())
    }

    fn finally(
        &self,
        _: &mut HookContext<'_>,
        details: &Details<Value>,
        _: &HookHints,
    ) -> Result<(), BoxError> {
        self.note("finally", Some(details));
        Ok(())
    }
}
