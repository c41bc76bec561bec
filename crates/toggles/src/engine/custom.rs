//! Where a format's own code takes part in an evaluation.
//!
//! All three traits are called synchronously, from many threads at once, on the hot path: they must not block, panic or recurse
//! without end, and should not allocate. What they can see is the value or the [`Situation`]; what they say shows in an
//! explanation through [`Situation::note`].

use std::fmt::Debug;

use flowline_core::Timestamp;

use super::{
    Ask, Evaluation, Observer,
    evaluate::{Frame, Walk},
};
use crate::{
    context::Context,
    model::{Condition, Fault, Outcome, Reason, Rule, Truth},
    value::{Name, Value},
};

/// What a format's own operator says of one value.
///
/// *Guarantees of the engine*: never called with a missing or null value from a test (from a [`FlagCheck`](crate::model::FlagCheck)
/// it may see null). Its truth is negated by the test's `negate`.
pub trait ValueTest: Debug + Send + Sync {
    /// Whether `value` satisfies it.
    fn test(&self, value: &Value) -> Truth;

    /// What it asks for, for explanations: `matches JavaScript pattern /a+/`.
    fn describe(&self) -> String;
}

/// What a format's own condition says of the whole situation.
pub trait Predicate: Debug + Send + Sync {
    /// Whether it holds.
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth;

    /// What it asks for, for explanations.
    fn describe(&self) -> String;

    /// The same in the model's own words, for translations to other formats; `None`: there are no words for it. What differs is told.
    fn plain(&self, _differs: &mut Vec<String>) -> Option<Condition> {
        None
    }
}

/// What a format's own outcome comes to.
pub trait Decide: Debug + Send + Sync {
    /// Decides.
    fn decide<'a>(&'a self, situation: &mut Situation<'a, '_>) -> Decision<'a>;

    /// What it does, for explanations.
    fn describe(&self) -> String;

    /// Rules of the model that come to exactly the same, reasons included: those are walked faster and take less room. Asked once, when a
    /// flag is compiled of which this is the only rule. `None`: there are none.
    fn exactly(&self) -> Option<Exact> {
        None
    }

    /// The same for a flag of this key in the model's own words, for translations to other formats; `None`: there are no words for it. What
    /// differs is told.
    fn plain(&self, _flag: &str, _differs: &mut Vec<String>) -> Option<Outcome> {
        None
    }
}

/// What a [`Decide`] is in the model's own rules.
#[derive(Debug, Clone)]
pub struct Exact {
    /// Looked at in order; at least one.
    pub rules: Vec<Rule>,
    /// What everybody else gets, and the reason that goes with it; `None`: what the flag says, by its own reason.
    pub otherwise: Option<(Outcome, Reason)>,
}

/// What a [`Decide`] came to.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Decision<'a> {
    /// The next rule.
    GoOn,
    /// The variant of this index; it must be there.
    Variant {
        /// The index.
        index: usize,
        /// The reason; `None`: as for any rule.
        reason: Option<Reason>,
    },
    /// A value that is not one of the variants (from the context, or computed beforehand).
    Value {
        /// The value.
        value: &'a Value,
        /// Whether it counts as on.
        on: bool,
        /// The reason.
        reason: Reason,
    },
    /// The caller's default.
    Caller {
        /// The reason.
        reason: Reason,
    },
    /// An error.
    Fault(&'a Fault),
}

/// What an evaluation knows at the moment when a format's own code is asked.
pub struct Situation<'a, 's> {
    pub(super) walk: &'s mut Walk<'a>,
    pub(super) frame: Option<&'s Frame<'s>>,
    pub(super) observer: &'s mut dyn Observer,
}

impl<'a> Situation<'a, '_> {
    /// Who asks.
    pub fn context(&self) -> &'a Context {
        self.walk.context
    }

    /// The key of the flag that is being evaluated; empty within a segment that is asked for alone.
    pub fn flag(&self) -> &'a str {
        self.walk.flag.map_or("", |flag| &flag.key)
    }

    /// The time that this evaluation takes for the present.
    pub fn now(&self) -> Timestamp {
        self.walk.now()
    }

    /// A random number.
    pub fn random(&self) -> u64 {
        self.walk.ambient.random()
    }

    /// Evaluates another flag for the same context. `None` if there is no such flag.
    ///
    /// # Errors
    /// [`Cycle`] if that flag is being evaluated already, or flags ask for flags more than [`MAX_DEPTH`](super::MAX_DEPTH) deep.
    pub fn evaluate(&mut self, flag: &str) -> Result<Option<Evaluation<'a>>, Cycle> {
        let Some(flag) = self.walk.ruleset.flags.get(flag) else { return Ok(None) };
        self.walk.nested(flag, Ask::Everything, self.frame, &mut self.observer).map(Some).ok_or(Cycle)
    }

    /// Whether the context is in a segment. `None` if there is no such segment.
    pub fn segment(&mut self, name: &Name) -> Option<Truth> {
        self.walk.segment(&name.text(), self.frame, &mut self.observer)
    }

    /// Tells at which point a hash placed the context; it shows in the result.
    pub fn placed_at(&mut self, point: f64) {
        self.walk.point = point;
    }

    /// Whether this evaluation takes part in an experiment; it shows in the result.
    pub fn in_experiment(&mut self, yes: bool) {
        self.walk.experiment = yes;
    }

    /// Whether somebody listens to notes.
    pub fn recording(&self) -> bool {
        self.observer.recording()
    }

    /// Tells something to whoever wants an explanation. Guard costly values with [`recording`](Self::recording).
    pub fn note(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.observer.recording() {
            self.observer.note(name, value.into());
        }
    }
}

impl Debug for Situation<'_, '_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Situation").field("flag", &self.flag()).finish_non_exhaustive()
    }
}

/// A flag asks for itself, directly or through others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the flag depends on itself")]
pub struct Cycle;
