//! LaunchDarkly's exact results: value, variation index and reason.

use serde::Serialize;

use crate::{
    context::Context,
    engine::{Ambient, Evaluation, Ruleset, Stage},
    model::{FaultCode, ValueType},
    value::Value,
};

/// What a flag came to, in LaunchDarkly's words.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detail<'a> {
    /// The value; `None`: the caller's default. A variation whose value is null is `Some(Null)`.
    pub value: Option<&'a Value>,
    /// The index of the variation; `None` with the caller's default.
    pub variation_index: Option<usize>,
    /// Why.
    pub reason: Reason<'a>,
}

/// Why a flag came to its value. As JSON, what does not apply is absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason<'a> {
    /// What decided.
    pub kind: ReasonKind,
    /// The index of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_index: Option<usize>,
    /// The id of the rule, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<&'a str>,
    /// The key of the prerequisite that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prerequisite_key: Option<&'a str>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    /// Whether the context takes part in an experiment.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub in_experiment: bool,
}

/// What decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "LaunchDarkly's names")]
pub enum ReasonKind {
    Off,
    Fallthrough,
    TargetMatch,
    RuleMatch,
    PrerequisiteFailed,
    Error,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "LaunchDarkly's names")]
pub enum ErrorKind {
    ClientNotReady,
    FlagNotFound,
    MalformedFlag,
    UserNotSpecified,
    WrongType,
    Exception,
}

impl<'a> Reason<'a> {
    fn new(kind: ReasonKind) -> Self {
        Self {
            kind,
            rule_index: None,
            rule_id: None,
            prerequisite_key: None,
            error_kind: None,
            in_experiment: false,
        }
    }

    fn error(kind: ErrorKind) -> Self {
        Self { error_kind: Some(kind), ..Self::new(ReasonKind::Error) }
    }

    fn of(evaluation: &Evaluation<'a>) -> Self {
        if let Some(failure) = &evaluation.error {
            return Self::error(match failure.code {
                FaultCode::FlagNotFound => ErrorKind::FlagNotFound,
                FaultCode::ParseError => ErrorKind::MalformedFlag,
                FaultCode::TypeMismatch => ErrorKind::WrongType,
                FaultCode::ProviderNotReady => ErrorKind::ClientNotReady,
                FaultCode::TargetingKeyMissing | FaultCode::InvalidContext => ErrorKind::UserNotSpecified,
                _ => ErrorKind::Exception,
            });
        }
        let reason = match evaluation.stage {
            Stage::Unknown => Self::error(ErrorKind::FlagNotFound),
            Stage::Faulty => Self::error(ErrorKind::MalformedFlag),
            Stage::Killed | Stage::Off => Self::new(ReasonKind::Off),
            Stage::Prerequisite(_) => Self {
                prerequisite_key: evaluation.prerequisite(),
                ..Self::new(ReasonKind::PrerequisiteFailed)
            },
            Stage::Rule { index, .. } => match index.checked_sub(usize::from(evaluation.has_targets())) {
                None => Self::new(ReasonKind::TargetMatch),
                Some(index) => Self {
                    rule_index: Some(index),
                    rule_id: evaluation.rule_id(),
                    ..Self::new(ReasonKind::RuleMatch)
                },
            },
            Stage::Fallback => Self::new(ReasonKind::Fallthrough),
        };
        Self { in_experiment: evaluation.experiment, ..reason }
    }
}

impl<'a> Detail<'a> {
    /// Evaluates `flag`, of which `wanted` is the type that the caller asks for ([`ValueType::Any`]: whatever it has). Any number will
    /// do as an integer.
    pub fn of(
        ruleset: &'a Ruleset,
        flag: &str,
        wanted: ValueType,
        context: &'a Context,
        ambient: &'a dyn Ambient,
    ) -> Self {
        Self::new(&ruleset.evaluate(flag, context, ambient), wanted)
    }

    /// What an evaluation is for a caller who asks for a type.
    pub fn new(evaluation: &Evaluation<'a>, wanted: ValueType) -> Self {
        let reason = Reason::of(evaluation);
        let value = evaluation.variant.map(|variant| &variant.value);
        let fits = value.is_none_or(|value| match wanted {
            ValueType::Boolean => matches!(value, Value::Bool(_)),
            ValueType::String => matches!(value, Value::Text(_)),
            ValueType::Integer | ValueType::Number => matches!(value, Value::Number(_)),
            ValueType::Object | ValueType::Any => true,
        });
        if !fits {
            return Self { value: None, variation_index: None, reason: Reason::error(ErrorKind::WrongType) };
        }
        Self { value, variation_index: evaluation.index, reason }
    }
}
