//! The vendors' exact results: what was assigned, and what became of each allocation.

use serde::Serialize;

use super::condition::Window;
use crate::{
    context::Context,
    engine::{Ambient, Came, Evaluation, Observer, Part, Ruleset, Stage},
    model::{FaultCode, Range, Reason, ValueType},
    value::Value,
};

/// What a flag comes to for whoever asks for a value of a type. Making one allocates nothing.
#[derive(Debug, Clone, Copy)]
pub struct Resolution<'a> {
    /// The value; `None`: the caller's default.
    pub value: Option<&'a Value>,
    /// Why, in OpenFeature's words (and Datadog's).
    pub reason: Reason,
    /// What went wrong.
    pub error: Option<FaultCode>,
    /// What the flag comes to whatever type is asked for.
    pub evaluation: Evaluation<'a>,
}

/// What is to be logged of an assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logging<'a> {
    /// The allocation that decided.
    pub allocation: &'a str,
    /// Whether it is to be logged at all.
    pub do_log: bool,
    /// What goes with the log entry: an object. Of several splits of one variation, that of the first which has some.
    pub extra: Option<&'a Value>,
}

/// Eppo's word for what a flag came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum EvaluationCode {
    /// An allocation decided.
    Match,
    /// There is no such flag, or it is disabled.
    FlagUnrecognizedOrDisabled,
    /// It has another type than was asked for.
    TypeMismatch,
    /// No allocation decided.
    DefaultAllocationNull,
    /// The variation that was assigned can't be served.
    AssignmentError,
}

impl<'a> Resolution<'a> {
    /// What `flag` comes to for whoever asks for a value of `expected` type.
    pub fn of(
        ruleset: &'a Ruleset,
        flag: &str,
        expected: ValueType,
        context: &'a Context,
        ambient: &'a dyn Ambient,
    ) -> Self {
        Self::from_evaluation(ruleset.evaluate(flag, context, ambient), expected)
    }

    fn from_evaluation(evaluation: Evaluation<'a>, expected: ValueType) -> Self {
        let actual = evaluation.value_type();
        let known = !matches!(evaluation.stage, Stage::Unknown | Stage::Off | Stage::Killed | Stage::Faulty);
        if known && actual != ValueType::Any && actual != expected {
            let error = Some(FaultCode::TypeMismatch);
            return Self { value: None, reason: Reason::Error, error, evaluation };
        }
        let Evaluation { value, reason, error, .. } = evaluation;
        Self { value, reason, error: error.map(|failure| failure.code), evaluation }
    }

    /// What is to be logged of the assignment; `None`: nothing was assigned. `ruleset` is the one that was asked.
    pub fn logging(&self, ruleset: &'a Ruleset) -> Option<Logging<'a>> {
        let (flag, allocation) = (self.evaluation.key()?, self.evaluation.rule_id()?);
        let variation = self.evaluation.variant.filter(|_| self.error.is_none())?;
        let of_flag = ruleset.facts().get(super::LOGGING).and_then(|all| all.get(flag));
        let said = of_flag.and_then(|of_flag| of_flag.get(allocation));
        let silent = of_flag.is_some_and(|of_flag| *of_flag == Value::Bool(false));
        let do_log = !silent && said.and_then(|said| said.get("doLog")?.as_bool()).unwrap_or(true);
        let extra = said.and_then(|said| said.get("extraLogging")?.get(&variation.name));
        Some(Logging { allocation, do_log, extra })
    }

    /// Eppo's word for it.
    pub fn code(&self) -> EvaluationCode {
        match (self.evaluation.stage, self.error) {
            (Stage::Unknown | Stage::Off | Stage::Killed, _) => EvaluationCode::FlagUnrecognizedOrDisabled,
            (_, Some(FaultCode::TypeMismatch)) => EvaluationCode::TypeMismatch,
            (_, Some(_)) => EvaluationCode::AssignmentError,
            (Stage::Rule { .. }, None) => EvaluationCode::Match,
            (_, None) => EvaluationCode::DefaultAllocationNull,
        }
    }
}

/// Eppo's word for what became of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum AllocationCode {
    /// It decided.
    Match,
    /// It is not open yet.
    BeforeStartTime,
    /// It is closed.
    AfterEndTime,
    /// None of its rules holds.
    FailingRule,
    /// The subject is in none of its splits.
    TrafficExposureMiss,
    /// One before it decided.
    Unevaluated,
}

/// What became of one allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Allocation {
    /// Its key.
    pub key: String,
    /// What became of it.
    pub allocation_evaluation_code: AllocationCode,
    /// Its position, from 1.
    pub order_position: usize,
}

/// Eppo's evaluation details.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The name of the environment that the document is for.
    pub environment_name: Option<String>,
    /// What the flag came to.
    pub flag_evaluation_code: EvaluationCode,
    /// The variation that was assigned.
    pub variation_key: Option<String>,
    /// Its value.
    pub variation_value: Option<Value>,
    /// The allocation that decided.
    pub matched_allocation: Option<Allocation>,
    /// Those before it.
    pub unmatched_allocations: Vec<Allocation>,
    /// Those behind it.
    pub unevaluated_allocations: Vec<Allocation>,
}

impl Details {
    /// What `flag` comes to for whoever asks for a value of `expected` type, with everything that was looked at.
    pub fn of(
        ruleset: &Ruleset,
        flag: &str,
        expected: ValueType,
        context: &Context,
        ambient: &dyn Ambient,
    ) -> Self {
        let mut log = Log::default();
        let evaluation = ruleset.observed(flag, context, ambient, &mut log);
        let resolution = Resolution::from_evaluation(evaluation, expected);
        let code = resolution.code();
        let mut details = Self {
            environment_name: ruleset.facts().get("environment").and_then(Value::as_str).map(str::to_owned),
            flag_evaluation_code: code,
            variation_key: None,
            variation_value: None,
            matched_allocation: None,
            unmatched_allocations: Vec::new(),
            unevaluated_allocations: Vec::new(),
        };
        if code == EvaluationCode::TypeMismatch {
            return details;
        }
        if code == EvaluationCode::Match {
            details.variation_key = evaluation.variant.map(|variant| variant.name.to_string());
            details.variation_value = evaluation.value.cloned();
        }
        let seen = log.allocations.len();
        for allocation in log.allocations {
            match allocation.allocation_evaluation_code {
                AllocationCode::Match => details.matched_allocation = Some(allocation),
                _ => details.unmatched_allocations.push(allocation),
            }
        }
        if details.matched_allocation.is_some() {
            let keys = ruleset.rule_ids(flag).skip(seen);
            details.unevaluated_allocations = keys
                .enumerate()
                .map(|(index, key)| Allocation {
                    key: key.unwrap_or_default().to_owned(),
                    allocation_evaluation_code: AllocationCode::Unevaluated,
                    order_position: seen + index + 1,
                })
                .collect();
        }
        details
    }
}

/// What became of each allocation, as the engine tells it.
#[derive(Debug, Default)]
struct Log {
    depth: usize,
    allocations: Vec<Allocation>,
}

/// Allocations are the rules right below the flag.
const ALLOCATION: usize = 2;

impl Observer for Log {
    fn recording(&self) -> bool {
        true
    }

    fn open(&mut self, part: Part, said: String) {
        self.depth += 1;
        if let (Part::Rule(index), ALLOCATION) = (part, self.depth) {
            self.allocations.push(Allocation {
                key: said,
                allocation_evaluation_code: AllocationCode::FailingRule,
                order_position: index + 1,
            });
        }
    }

    fn saw(&mut self, _: Option<&Value>) {}

    fn placed(&mut self, _: f64, _: Option<Range>) {}

    fn note(&mut self, name: &'static str, value: Value) {
        let Some(allocation) = self.allocations.last_mut().filter(|_| name == Window::NOTE) else { return };
        allocation.allocation_evaluation_code = match value.as_str() {
            Some(Window::BEFORE) => AllocationCode::BeforeStartTime,
            _ => AllocationCode::AfterEndTime,
        };
    }

    fn close(&mut self, came: Came) {
        if let (ALLOCATION, Some(allocation)) = (self.depth, self.allocations.last_mut()) {
            match came {
                Came::WentOn => {
                    allocation.allocation_evaluation_code = AllocationCode::TrafficExposureMiss;
                }
                Came::Decided(_) | Came::Failed(_) => {
                    allocation.allocation_evaluation_code = AllocationCode::Match;
                }
                _ => {}
            }
        }
        self.depth = self.depth.saturating_sub(1);
    }
}
