//! The evaluator: what a flag comes to. One walk for plain answers and for explanations.
//!
//! | part | what it decides |
//! | --- | --- |
//! | here | which rule of a flag decides, and what it serves |
//! | `condition` | whether a condition holds: segments and other flags included |
//! | `test` | whether an attribute compares as asked for |
//! | `place` | where a hash places the context |
//! | `memo` | what is not evaluated twice |
//! | `describe` | the words for it all |

mod condition;
mod describe;
mod memo;
mod place;
mod test;

use flowline_core::Timestamp;

pub(crate) use self::test::number_of;

use self::memo::Memo;
use super::{
    Ambient, Ask, Evaluation, Failure, MAX_DEPTH, Nobody, Observer, Ruleset, Stage,
    custom::{Decision, Situation},
    node::{FlagNode, RuleNode, SplitNode, Then},
    observe::{Came, Part},
};
use crate::{
    context::Context,
    model::{FaultCode, OnBroken, PastEnd, Reason, Switch, Truth, Variant},
    value::Value,
};

/// What all parts of one evaluation share.
pub(crate) struct Walk<'a> {
    pub(crate) ruleset: &'a Ruleset,
    pub(crate) context: &'a Context,
    pub(crate) ambient: &'a dyn Ambient,
    /// The flag that is being evaluated.
    pub(crate) flag: Option<&'a FlagNode>,
    /// Where the last hash placed the context; NaN: nowhere.
    pub(crate) point: f64,
    pub(crate) experiment: bool,
    /// How many flags and segments are being evaluated, one within the other.
    depth: usize,
    memo: Memo<'a>,
}

/// The flags and segments that are being evaluated, innermost first.
pub(crate) struct Frame<'f> {
    id: usize,
    up: Option<&'f Frame<'f>>,
}

impl Frame<'_> {
    fn holds(frame: Option<&Self>, id: usize) -> bool {
        let mut frame = frame;
        while let Some(one) = frame {
            if one.id == id {
                return true;
            }
            frame = one.up;
        }
        false
    }
}

/// What an outcome came to.
#[derive(Clone, Copy)]
enum Got<'a> {
    Variant(&'a Variant, usize),
    Value(&'a Value, bool),
    Caller,
    Fault(Failure<'a>),
    GoOn,
}

/// What a flag came to, before anybody asks for details.
#[derive(Clone, Copy)]
struct Decided<'a> {
    got: Got<'a>,
    stage: Stage,
    reason: Reason,
}

impl<'a> Walk<'a> {
    #[inline]
    pub(crate) fn new(ruleset: &'a Ruleset, context: &'a Context, ambient: &'a dyn Ambient) -> Self {
        let memo = Memo::default();
        Self { ruleset, context, ambient, flag: None, point: f64::NAN, experiment: false, depth: 0, memo }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.now().unwrap_or_else(|| self.ambient.now())
    }

    /// Whether `flag` is on, asked from the outside.
    #[inline]
    pub(crate) fn is_on(&mut self, flag: &'a FlagNode) -> bool {
        self.flag = Some(flag);
        match self.decide(flag, Ask::Switch, None, &mut Nobody).got {
            Got::Variant(variant, _) => variant.on,
            Got::Value(_, on) => on,
            Got::Caller | Got::Fault(_) | Got::GoOn => false,
        }
    }

    /// Evaluates `flag` from the outside.
    #[inline]
    pub(crate) fn evaluate<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        ask: Ask,
        observer: &mut O,
    ) -> Evaluation<'a> {
        self.flag(flag, ask, None, observer)
    }

    /// Evaluates `flag` from within another one; `None` if that would never end.
    pub(super) fn nested<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        ask: Ask,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Option<Evaluation<'a>> {
        let id = std::ptr::from_ref(flag).addr();
        if flag.asks {
            if let Some(known) = self.memo.flag(id, ask) {
                if observer.recording() {
                    observer.open(Part::Flag, flag.key.to_string());
                    observer.close(came(&known));
                }
                return Some(known);
            }
            if self.depth >= MAX_DEPTH || Frame::holds(frame, id) || self.memo.is_spent() {
                self.memo.circles += 1;
                return None;
            }
        }
        let circles = self.memo.circles;
        let outer = (self.flag, self.point, self.experiment);
        self.depth += 1;
        let evaluation = self.flag(flag, ask, frame, observer);
        self.depth -= 1;
        (self.flag, self.point, self.experiment) = outer;
        if flag.asks && circles == self.memo.circles {
            self.memo.keep_flag(id, ask, evaluation);
        }
        Some(evaluation)
    }

    #[inline]
    fn flag<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        ask: Ask,
        up: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Evaluation<'a> {
        self.flag = Some(flag);
        self.point = f64::NAN;
        self.experiment = false;
        if observer.recording() {
            observer.open(Part::Flag, flag.key.to_string());
        }
        let decided = self.decide(flag, ask, up, observer);
        let evaluation = self.finish(flag, decided);
        if observer.recording() {
            observer.close(came(&evaluation));
        }
        evaluation
    }

    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    fn decide<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        ask: Ask,
        up: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Decided<'a> {
        let frame = Frame { id: std::ptr::from_ref(flag).addr(), up };
        if !flag.open
            && let Some(decided) = self.before(flag, &frame, observer)
        {
            return decided;
        }
        let (mut next, mut index) = (flag.rules.first.as_ref(), 0);
        while let Some(rule) = next {
            self.point = f64::NAN;
            let (got, reason, inner) = self.rule(flag, rule, index, ask, &frame, observer);
            if !matches!(got, Got::GoOn) {
                return Decided { got, stage: Stage::Rule { index, inner }, reason };
            }
            next = flag.rules.more.get(index);
            index += 1;
        }
        self.point = f64::NAN;
        let (got, reason, _) =
            self.outcome(flag, &flag.fallback, Some(flag.fallback_reason), ask, &frame, observer);
        Decided { got, stage: Stage::Fallback, reason }
    }

    /// What stands before a flag's rules: a kill switch, a fault, the master switch, prerequisites. `None`: its rules are asked.
    fn before<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> Option<Decided<'a>> {
        if flag.switch != Switch::On || flag.fault.is_some() {
            return Some(self.closed(flag, frame, observer));
        }
        for (index, prerequisite) in flag.prerequisites.iter().enumerate() {
            match self.check(&prerequisite.check, Some(frame), observer) {
                Truth::True => {}
                Truth::False => {
                    let otherwise = prerequisite.otherwise.as_ref().unwrap_or(&flag.off);
                    let stage = Stage::Prerequisite(index);
                    return Some(self.serve(flag, otherwise, stage, Reason::Disabled, frame, observer));
                }
                Truth::Broken => {
                    let failure = Failure {
                        code: FaultCode::ParseError,
                        message: "a prerequisite can't be evaluated: it is faulty or depends on this flag",
                    };
                    let stage = Stage::Prerequisite(index);
                    return Some(Decided { got: Got::Fault(failure), stage, reason: Reason::Error });
                }
            }
        }
        None
    }

    /// A flag that is killed, faulty or off, in this order.
    #[cold]
    fn closed<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> Decided<'a> {
        // Whoever pulls a kill switch is never asked whether the flag makes sense.
        if let (Some(fault), true) = (&flag.fault, flag.switch != Switch::Killed) {
            let failure = Failure { code: fault.code, message: &fault.message };
            return Decided { got: Got::Fault(failure), stage: Stage::Faulty, reason: Reason::Error };
        }
        let stage = if flag.switch == Switch::Killed { Stage::Killed } else { Stage::Off };
        self.serve(flag, &flag.off, stage, Reason::Disabled, frame, observer)
    }

    fn serve<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        then: &'a Then,
        stage: Stage,
        reason: Reason,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> Decided<'a> {
        let (got, reason, _) = self.outcome(flag, then, Some(reason), Ask::Everything, frame, observer);
        Decided { got, stage, reason }
    }

    #[inline]
    fn finish(&self, flag: &'a FlagNode, decided: Decided<'a>) -> Evaluation<'a> {
        let Decided { got, stage, reason } = decided;
        let (variant, index, value, on, error) = match got {
            Got::Variant(variant, index) => {
                let value = if variant.value.is_null() { None } else { Some(&variant.value) };
                (Some(variant), Some(index), value, variant.on, None)
            }
            Got::Value(value, on) => (None, None, Some(value), on, None),
            Got::Caller | Got::GoOn => (None, None, None, false, None),
            Got::Fault(failure) => (None, None, None, false, Some(failure)),
        };
        Evaluation {
            flag: Some(flag),
            variant,
            index,
            value,
            on,
            reason: if error.is_some() { Reason::Error } else { reason },
            stage,
            point: if self.point.is_nan() { None } else { Some(self.point) },
            experiment: self.experiment,
            error,
        }
    }

    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    fn rule<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        rule: &'a RuleNode,
        index: usize,
        ask: Ask,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> (Got<'a>, Reason, Option<usize>) {
        if observer.recording() {
            observer.open(Part::Rule(index), rule.id.as_deref().unwrap_or_default().to_owned());
        }
        let mut truth = Truth::True;
        for node in &rule.when {
            truth = self.condition(node, Some(frame), observer);
            if truth != Truth::True {
                break;
            }
        }
        let (got, reason, inner) = match truth {
            Truth::True => self.outcome(flag, &rule.then, rule.reason, ask, frame, observer),
            Truth::False => (Got::GoOn, Reason::Default, None),
            Truth::Broken => self.broken(flag, rule, ask, frame, observer),
        };
        if observer.recording() {
            observer.close(match (&got, truth) {
                (Got::GoOn, Truth::False) => Came::False,
                (Got::GoOn, Truth::Broken) => Came::Broken,
                (Got::GoOn, Truth::True) => Came::WentOn,
                (got, _) => decided(got),
            });
        }
        (got, reason, inner)
    }

    /// A rule with a condition that makes no sense.
    #[cold]
    fn broken<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        rule: &'a RuleNode,
        ask: Ask,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> (Got<'a>, Reason, Option<usize>) {
        match rule.on_broken {
            OnBroken::NextRule => (Got::GoOn, Reason::Default, None),
            OnBroken::Fault(code) => {
                let message = "a rule's condition makes no sense";
                (Got::Fault(Failure { code, message }), Reason::Error, None)
            }
            OnBroken::Off => self.outcome(flag, &flag.off, Some(Reason::Disabled), ask, frame, observer),
        }
    }

    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    fn outcome<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        then: &'a Then,
        reason: Option<Reason>,
        ask: Ask,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> (Got<'a>, Reason, Option<usize>) {
        let got = match then {
            Then::Variant(index) => variant(flag, *index as usize),
            Then::Split(split) => self.split(flag, split, ask, observer),
            _ => return self.outcome_of_more(flag, then, reason, ask, frame, observer),
        };
        (got, self.reason(reason), None)
    }

    /// The reason that was given, or what a match means.
    #[inline]
    fn reason(&self, given: Option<Reason>) -> Reason {
        given.unwrap_or(if self.point.is_nan() { Reason::TargetingMatch } else { Reason::Split })
    }

    #[inline(never)]
    fn outcome_of_more<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        then: &'a Then,
        reason: Option<Reason>,
        ask: Ask,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> (Got<'a>, Reason, Option<usize>) {
        let got = match then {
            Then::Variant(index) => variant(flag, *index as usize),
            Then::Split(split) => self.split(flag, split, ask, observer),
            Then::GoOn => Got::GoOn,
            Then::Rules(rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    let (got, deeper, _) = self.rule(flag, rule, index, ask, frame, observer);
                    if !matches!(got, Got::GoOn) {
                        return (got, reason.unwrap_or(deeper), Some(index));
                    }
                }
                Got::GoOn
            }
            Then::Caller => Got::Caller,
            Then::Fault(fault) => Got::Fault(Failure { code: fault.code, message: &fault.message }),
            Then::Custom(custom) => {
                if observer.recording() {
                    observer.open(Part::Outcome, custom.describe());
                }
                let mut situation = Situation { walk: self, frame: Some(frame), observer };
                let (got, own) = match custom.decide(&mut situation) {
                    Decision::GoOn => (Got::GoOn, None),
                    Decision::Variant { index, reason } => (variant(flag, index), reason),
                    Decision::Value { value, on, reason } => (Got::Value(value, on), Some(reason)),
                    Decision::Caller { reason } => (Got::Caller, Some(reason)),
                    Decision::Fault(fault) => (
                        Got::Fault(Failure { code: fault.code, message: &fault.message }),
                        Some(Reason::Error),
                    ),
                };
                if observer.recording() {
                    observer.close(decided(&got));
                }
                if let Some(own) = own {
                    return (got, own, None);
                }
                got
            }
        };
        (got, self.reason(reason), None)
    }

    fn split<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        split: &'a SplitNode,
        ask: Ask,
        observer: &mut O,
    ) -> Got<'a> {
        if ask == Ask::Switch
            && let (Some(on), false) = (split.on, observer.recording())
        {
            let first = split.slices.first().filter(|_| split.past_end == PastEnd::Last);
            if let Some(slice) = first
                && let Some(variant) = flag.variants.get(slice.variant).filter(|variant| variant.on == on)
            {
                return Got::Variant(variant, slice.variant);
            }
        }
        if observer.recording() {
            observer.open(Part::Split, describe::split(split));
        }
        let (point, found) = match self.point(&split.bucket) {
            Ok(point) => {
                self.point = point;
                let found = split.slices.iter().find(|slice| slice.range.contains(point));
                (point, found.or_else(|| split.slices.last().filter(|_| split.past_end == PastEnd::Last)))
            }
            Err(Truth::Broken) => {
                let failure = Failure {
                    code: FaultCode::TargetingKeyMissing,
                    message: "a split needs a value that the context does not have",
                };
                if observer.recording() {
                    observer.close(Came::Failed(failure.message.to_owned()));
                }
                return Got::Fault(failure);
            }
            Err(_) => {
                if observer.recording() {
                    observer.close(Came::WentOn);
                }
                return Got::GoOn;
            }
        };
        let got = match (found, split.past_end) {
            (Some(slice), _) => {
                self.experiment = slice.experiment;
                variant(flag, slice.variant)
            }
            (None, PastEnd::Variant(index)) => variant(flag, index),
            (None, _) => Got::GoOn,
        };
        if observer.recording() {
            observer.placed(point, found.map(|slice| slice.range));
            observer.close(decided(&got));
        }
        got
    }
}

#[inline]
fn variant(flag: &FlagNode, index: usize) -> Got<'_> {
    match flag.variants.get(index) {
        Some(variant) => Got::Variant(variant, index),
        None => Got::Fault(Failure { code: FaultCode::ParseError, message: "the variant is not there" }),
    }
}

fn decided(got: &Got<'_>) -> Came {
    match got {
        Got::Variant(variant, index) if variant.name.is_empty() => Came::Decided(format!("variant {index}")),
        Got::Variant(variant, _) => Came::Decided(variant.name.to_string()),
        Got::Value(value, _) => Came::Decided(value.to_string()),
        Got::Caller => Came::Decided("the caller's default".to_owned()),
        Got::Fault(failure) => Came::Failed(format!("{}: {}", failure.code, failure.message)),
        Got::GoOn => Came::WentOn,
    }
}

fn came(evaluation: &Evaluation<'_>) -> Came {
    match (evaluation.error, evaluation.variant, evaluation.value) {
        (Some(failure), ..) => Came::Failed(format!("{}: {}", failure.code, failure.message)),
        (None, Some(variant), _) if !variant.name.is_empty() => Came::Decided(variant.name.to_string()),
        (None, Some(variant), _) => Came::Decided(variant.value.to_string()),
        (None, None, Some(value)) => Came::Decided(value.to_string()),
        (None, None, None) => Came::Decided("the caller's default".to_owned()),
    }
}
