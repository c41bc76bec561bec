//! The evaluator: one walk for plain answers and for explanations.

use std::net::IpAddr;

use flowline_core::Timestamp;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::{
    Ambient, Ask, Evaluation, Failure, MAX_DEPTH, Observer, Ruleset, Stage,
    custom::{Decision, Situation},
    node::{
        Affix, Bucket, CheckNode, Deep, FlagNode, Node, Op, Pick, Piece, RuleNode, SegmentNode, ShareNode,
        SplitNode, TestNode, Then,
    },
    observe::{Came, Part},
    scratch::Scratch,
    time::rfc3339,
};
use crate::{
    context::Context,
    hash::{Feed, Fnv1a, Fnv1aTwice, Md5Bits, Murmur3, Sha1Bits},
    model::{
        FaultCode, Hash, MissingInput, OnBroken, PastEnd, Range, Reason, Scale, Switch, Texts, Truth, Variant,
    },
    value::{Value, Word},
};

/// What all parts of one evaluation share.
pub(crate) struct Walk<'a> {
    pub(crate) ruleset: &'a Ruleset,
    pub(crate) context: &'a Context,
    pub(crate) ambient: &'a dyn Ambient,
    /// The key of the flag that is being evaluated.
    pub(crate) flag: &'a str,
    /// Where the last hash placed the context; NaN: nowhere.
    pub(crate) point: f64,
    pub(crate) experiment: bool,
    /// How many flags and segments are being evaluated, one within the other.
    depth: usize,
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

impl<'a> Walk<'a> {
    pub(crate) fn new(ruleset: &'a Ruleset, context: &'a Context, ambient: &'a dyn Ambient) -> Self {
        Self { ruleset, context, ambient, flag: "", point: f64::NAN, experiment: false, depth: 0 }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.context.now().unwrap_or_else(|| self.ambient.now())
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
        if self.depth >= MAX_DEPTH || Frame::holds(frame, std::ptr::from_ref(flag).addr()) {
            return None;
        }
        let outer = (self.flag, self.point, self.experiment);
        self.depth += 1;
        let evaluation = self.flag(flag, ask, frame, observer);
        self.depth -= 1;
        (self.flag, self.point, self.experiment) = outer;
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
        self.flag = &flag.key;
        self.point = f64::NAN;
        self.experiment = false;
        if observer.recording() {
            observer.open(Part::Flag, flag.key.to_string());
            let evaluation = self.decide(flag, ask, up, observer);
            observer.close(came(&evaluation));
            return evaluation;
        }
        self.decide(flag, ask, up, observer)
    }

    #[inline]
    fn decide<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        ask: Ask,
        up: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Evaluation<'a> {
        let frame = Frame { id: std::ptr::from_ref(flag).addr(), up };
        if !flag.open
            && let Some(evaluation) = self.before(flag, &frame, observer)
        {
            return evaluation;
        }
        for (index, rule) in flag.rules.iter().enumerate() {
            self.point = f64::NAN;
            let (got, reason, inner) = self.rule(flag, rule, index, ask, &frame, observer);
            if !matches!(got, Got::GoOn) {
                return self.finish(flag, got, Stage::Rule { index, inner }, reason);
            }
        }
        self.point = f64::NAN;
        let (got, reason, _) =
            self.outcome(flag, &flag.fallback, Some(flag.fallback_reason), ask, &frame, observer);
        self.finish(flag, got, Stage::Fallback, reason)
    }

    /// What stands before a flag's rules: its switch, a fault, prerequisites. `None`: its rules are asked.
    fn before<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> Option<Evaluation<'a>> {
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
                    return Some(self.finish(
                        flag,
                        Got::Fault(failure),
                        Stage::Prerequisite(index),
                        Reason::Error,
                    ));
                }
            }
        }
        None
    }

    /// A flag that is off, killed or faulty.
    #[cold]
    fn closed<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> Evaluation<'a> {
        if let Some(fault) = &flag.fault {
            let failure = Failure { code: fault.code, message: &fault.message };
            return self.finish(flag, Got::Fault(failure), Stage::Faulty, Reason::Error);
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
    ) -> Evaluation<'a> {
        let (got, reason, _) = self.outcome(flag, then, Some(reason), Ask::Everything, frame, observer);
        self.finish(flag, got, stage, reason)
    }

    #[inline]
    fn finish(&self, flag: &'a FlagNode, got: Got<'a>, stage: Stage, reason: Reason) -> Evaluation<'a> {
        let mut evaluation = Evaluation {
            flag: Some(flag),
            variant: None,
            index: None,
            value: None,
            on: false,
            reason,
            stage,
            point: if self.point.is_nan() { None } else { Some(self.point) },
            experiment: self.experiment,
            error: None,
        };
        match got {
            Got::Variant(variant, index) => {
                evaluation.variant = Some(variant);
                evaluation.index = Some(index);
                evaluation.value = if variant.value.is_null() { None } else { Some(&variant.value) };
                evaluation.on = variant.on;
            }
            Got::Value(value, on) => {
                evaluation.value = Some(value);
                evaluation.on = on;
            }
            Got::Caller | Got::GoOn => {}
            Got::Fault(failure) => {
                evaluation.reason = Reason::Error;
                evaluation.error = Some(failure);
            }
        }
        evaluation
    }

    #[inline]
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
            Truth::Broken => match rule.on_broken {
                OnBroken::NextRule => (Got::GoOn, Reason::Default, None),
                OnBroken::Fault(code) => {
                    let message = "a rule's condition makes no sense";
                    (Got::Fault(Failure { code, message }), Reason::Error, None)
                }
                OnBroken::Off => self.outcome(flag, &flag.off, Some(Reason::Disabled), ask, frame, observer),
            },
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

    #[inline]
    fn outcome<O: Observer>(
        &mut self,
        flag: &'a FlagNode,
        then: &'a Then,
        reason: Option<Reason>,
        ask: Ask,
        frame: &Frame<'_>,
        observer: &mut O,
    ) -> (Got<'a>, Reason, Option<usize>) {
        let mut inner = None;
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
                let decision = custom.decide(&mut situation);
                let (got, own) = match decision {
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
                inner = None;
                got
            }
        };
        let derived = if self.point.is_nan() { Reason::TargetingMatch } else { Reason::Split };
        (got, reason.unwrap_or(derived), inner)
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

    fn condition<O: Observer>(
        &mut self,
        node: &'a Node,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        if observer.recording() {
            return self.watched(node, frame, observer);
        }
        self.truth(node, frame, observer)
    }

    /// The same truth, told to the observer.
    #[cold]
    fn watched<O: Observer>(&mut self, node: &'a Node, frame: Option<&Frame<'_>>, observer: &mut O) -> Truth {
        let part = match node {
            Node::Segment(_) => Part::Segment,
            Node::Flag(_) => Part::Prerequisite,
            _ => Part::Condition,
        };
        observer.open(part, describe::node(node));
        if let Node::Test(test) = node {
            match self.look(&test.pick) {
                Seen::Nothing => observer.saw(None),
                Seen::Value(value, _) => observer.saw(Some(value)),
                Seen::Made(value) => observer.saw(Some(&value)),
            }
        }
        let truth = self.truth(node, frame, observer);
        observer.close(truth.into());
        truth
    }

    fn truth<O: Observer>(&mut self, node: &'a Node, frame: Option<&Frame<'_>>, observer: &mut O) -> Truth {
        match node {
            Node::Test(test) => self.test(test),
            Node::Constant(truth) => *truth,
            Node::All(parts) => {
                for part in parts {
                    let truth = self.condition(part, frame, observer);
                    if truth != Truth::True {
                        return truth;
                    }
                }
                Truth::True
            }
            Node::Any(parts) => {
                for part in parts {
                    let truth = self.condition(part, frame, observer);
                    if truth != Truth::False {
                        return truth;
                    }
                }
                Truth::False
            }
            Node::Not(part) => self.condition(part, frame, observer).negated(),
            Node::Lenient(part) => match self.condition(part, frame, observer) {
                Truth::Broken => Truth::False,
                truth => truth,
            },
            Node::Share(share) => self.share(share, observer),
            Node::Segment(segment) => match self.ruleset.segments.get_hashed(segment.hash, &segment.name) {
                Some(found) => self.within(found, frame, observer),
                None => segment.unknown,
            }
            .negated_if(segment.negate),
            Node::Flag(check) => self.looked_up(check, frame, observer),
            Node::During(period) => {
                let now = self.now();
                let begun = period.from.is_none_or(|from| now >= from);
                let over =
                    period.until.is_some_and(|until| now > until || (now == until && !period.with_end));
                (begun && !over).into()
            }
            Node::Custom(custom) => custom.test(&mut Situation { walk: self, frame, observer }),
        }
    }

    /// Whether the context is in the segment `name`; `None` if there is none.
    pub(super) fn segment<O: Observer>(
        &mut self,
        name: &str,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Option<Truth> {
        let segment = self.ruleset.segments.get(name)?;
        Some(self.within(segment, frame, observer))
    }

    fn within<O: Observer>(
        &mut self,
        segment: &'a SegmentNode,
        up: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        let id = std::ptr::from_ref(segment).addr();
        if self.depth >= MAX_DEPTH || Frame::holds(up, id) {
            return Truth::Broken;
        }
        self.depth += 1;
        let truth = self.condition(&segment.when, Some(&Frame { id, up }), observer);
        self.depth -= 1;
        truth
    }

    /// A prerequisite, told to the observer.
    fn check<O: Observer>(
        &mut self,
        check: &'a CheckNode,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        if !observer.recording() {
            return self.looked_up(check, frame, observer);
        }
        observer.open(Part::Prerequisite, describe::check(check));
        let truth = self.looked_up(check, frame, observer);
        observer.close(truth.into());
        truth
    }

    fn looked_up<O: Observer>(
        &mut self,
        node: &'a CheckNode,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        let check = &node.check;
        let Some(flag) = self.ruleset.flags.get_hashed(node.hash, &check.flag) else { return check.unknown };
        if node.only_on
            && let (Some(settled), Some(on), None) = (flag.settled, check.on, &flag.fault)
            && !observer.recording()
        {
            return (settled == on).into();
        }
        let ask =
            if check.variants.is_some() || check.value.is_some() { Ask::Everything } else { Ask::Switch };
        if check.leaf && !flag.prerequisites.is_empty() {
            return Truth::False;
        }
        let Some(evaluation) = self.nested(flag, ask, frame, observer) else { return check.cyclic };
        if evaluation.error.is_some() {
            return check.faulty;
        }
        if check.enabled && flag.switch != Switch::On {
            return Truth::False;
        }
        if check.on.is_some_and(|on| on != evaluation.on) {
            return Truth::False;
        }
        if let Some(names) = &check.variants {
            let name = evaluation.variant.map(|variant| &*variant.name);
            if !name.is_some_and(|name| names.iter().any(|one| **one == *name)) {
                return Truth::False;
            }
        }
        match &check.value {
            Some(test) => test.test(evaluation.value.unwrap_or(&Value::Null)),
            None => Truth::True,
        }
    }

    fn share<O: Observer>(&mut self, share: &'a ShareNode, observer: &mut O) -> Truth {
        match self.point(&share.bucket) {
            Ok(point) => {
                self.point = point;
                if share.more.is_empty() && !observer.recording() {
                    return share.first.contains(point).into();
                }
                let found =
                    std::iter::once(&share.first).chain(&share.more).find(|range| range.contains(point));
                if observer.recording() {
                    observer.placed(point, found.copied());
                }
                found.is_some().into()
            }
            Err(truth) => truth,
        }
    }

    /// Where the context lies; without a point, what a share then comes to.
    #[inline]
    fn point(&self, bucket: &'a Bucket) -> Result<f64, Truth> {
        if bucket.key_only
            && let Hash::Xxh3 { seed } = bucket.hash
            && let Some(Value::Text(key)) = self.context.first().key()
            && let Scale::Multiply { of } = bucket.scale
            && !key.is_empty()
        {
            return Ok(multiplied(xxh3_64_with_seed(key.as_bytes(), seed) >> 32, of));
        }
        self.point_slowly(bucket)
    }

    fn point_slowly(&self, bucket: &'a Bucket) -> Result<f64, Truth> {
        let number = match bucket.hash {
            Hash::Xxh3 { seed } => match &*bucket.input {
                [Piece::Of { picks, scalars, skip_empty }] => {
                    let mut scratch = Scratch::default();
                    self.text_of(picks, *scalars, *skip_empty, &mut scratch)
                        .map(|text| xxh3_64_with_seed(text.as_bytes(), seed) >> 32)
                }
                _ => self.hashed(bucket, Xxh3::with_seed(seed)),
            },
            Hash::Murmur3 { seed } => self.hashed(bucket, Murmur3::new(seed)),
            Hash::Fnv1a => self.hashed(bucket, Fnv1a::default()),
            Hash::Fnv1aTwice => self.hashed(bucket, Fnv1aTwice(Fnv1a::default())),
            Hash::Sha1 => self.hashed(bucket, Sha1Bits(sha1::Sha1::default())),
            Hash::Md5 => self.hashed(bucket, Md5Bits(md5::Md5::default())),
        };
        let number = match (number, bucket.missing) {
            (Some(number), _) => number,
            (None, MissingInput::NoPoint) => return Err(Truth::False),
            (None, MissingInput::Broken) => return Err(Truth::Broken),
            (None, MissingInput::Point(point)) => return Ok(point),
            (None, MissingInput::Random) => {
                self.ambient.random() >> if bucket.hash == Hash::Sha1 { 4 } else { 32 }
            }
        };
        placed(number, bucket.scale).ok_or(Truth::False)
    }

    #[inline]
    fn hashed<H: Feed>(&self, bucket: &'a Bucket, mut hash: H) -> Option<u64> {
        for piece in &bucket.input {
            match piece {
                Piece::Literal(text) => hash.feed(text),
                Piece::Of { picks, scalars, skip_empty } => {
                    let mut scratch = Scratch::default();
                    hash.feed(self.text_of(picks, *scalars, *skip_empty, &mut scratch)?);
                }
            }
        }
        Some(hash.number())
    }

    /// The text of the first pick that has one.
    #[inline]
    fn text_of<'t>(
        &'t self,
        picks: &'a [Pick],
        scalars: bool,
        skip_empty: bool,
        scratch: &'t mut Scratch,
    ) -> Option<&'t str> {
        for pick in picks {
            match self.look(pick) {
                Seen::Value(Value::Text(text), _) if !(skip_empty && text.is_empty()) => return Some(text),
                Seen::Value(Value::Number(number), _) => {
                    const LIMIT: i64 = (1 << 53) - 1;
                    let whole = number.as_i64().is_some_and(|whole| (-LIMIT..=LIMIT).contains(&whole));
                    if whole || scalars {
                        return Some(scratch.show(number));
                    }
                }
                Seen::Value(Value::Bool(yes), _) if scalars => {
                    return Some(if *yes { "true" } else { "false" });
                }
                _ => {}
            }
        }
        None
    }

    /// The value that a pick finds.
    #[inline]
    fn look(&self, pick: &'a Pick) -> Seen<'a> {
        let prepared = match pick {
            Pick::Attribute(name) => self.context.first().find_exact(*name),
            Pick::Key => self.context.first().prepared_key(),
            Pick::Deep(_) | Pick::Kinds | Pick::Now | Pick::Value(_) => return self.look_far(pick),
        };
        match prepared {
            Some(prepared) => Seen::Value(&prepared.value, Some(prepared.word)),
            None => Seen::Nothing,
        }
    }

    fn look_far(&self, pick: &'a Pick) -> Seen<'a> {
        match pick {
            Pick::Deep(deep) => self.look_deep(deep).unwrap_or(Seen::Nothing),
            Pick::Value(value) if !value.is_null() => Seen::Value(value, None),
            Pick::Kinds => {
                let kinds = self.context.parts().map(|part| Value::from(part.kind().text()));
                Seen::Made(Value::list(kinds))
            }
            Pick::Now => Seen::Made(Value::from(self.now().to_string())),
            Pick::Attribute(_) | Pick::Key | Pick::Value(_) => Seen::Nothing,
        }
    }

    fn look_deep(&self, deep: &'a Deep) -> Option<Seen<'a>> {
        let part = match &deep.kind {
            Some(kind) => self.context.part(kind)?,
            None => self.context.first(),
        };
        let prepared = match &deep.name {
            Some(name) => part.find(name)?,
            None => part.prepared_key()?,
        };
        if deep.path.is_empty() {
            return Some(Seen::Value(&prepared.value, Some(prepared.word)));
        }
        let mut value = &prepared.value;
        for key in &deep.path {
            value = value.get(key)?;
        }
        (!value.is_null()).then_some(Seen::Value(value, None))
    }

    #[inline]
    fn test(&self, test: &'a TestNode) -> Truth {
        match self.look(&test.pick) {
            Seen::Value(value, word) => tested(test, value, word),
            Seen::Nothing => test.missing,
            Seen::Made(value) => match (&test.pick, &test.op) {
                (Pick::Now, Op::Time(op)) => {
                    Truth::from(op.comparison.holds(self.now().cmp(&op.with))).negated_if(test.negate)
                }
                _ => tested(test, &value, None),
            },
        }
    }
}

/// What a pick finds.
enum Seen<'a> {
    /// Nothing, or null.
    Nothing,
    /// A value, with the word of its text if that was prepared.
    Value(&'a Value, Option<Word>),
    /// A value that was made for this question.
    Made(Value),
}

#[inline]
fn tested(test: &TestNode, value: &Value, word: Option<Word>) -> Truth {
    if test.any_element
        && let Value::List(elements) = value
    {
        let any = elements
            .iter()
            .any(|element| !element.is_null() && compared(&test.op, element, None) == Some(Truth::True));
        return Truth::from(any).negated_if(test.negate);
    }
    match compared(&test.op, value, word) {
        Some(truth) => truth.negated_if(test.negate),
        None => test.mismatch,
    }
}

#[inline]
fn variant(flag: &FlagNode, index: usize) -> Got<'_> {
    match flag.variants.get(index) {
        Some(variant) => Got::Variant(variant, index),
        None => Got::Fault(Failure { code: FaultCode::ParseError, message: "the variant is not there" }),
    }
}

#[expect(clippy::cast_precision_loss, reason = "32 or 60 bits; the format's own precision")]
#[expect(clippy::cast_possible_truncation, reason = "hashes of 32 bits, except where 60 are asked for")]
#[inline]
fn placed(number: u64, scale: Scale) -> Option<f64> {
    const UNIT: f64 = 0x0fff_ffff_ffff_ffff_u64 as f64;
    Some(match scale {
        Scale::Modulo { of, plus } => f64::from((number as u32).checked_rem(of)?) + f64::from(plus),
        Scale::Fraction { of } => f64::from((number as u32).checked_rem(of)?) / f64::from(of),
        Scale::Unit => number as f64 / UNIT,
        Scale::Multiply { of } => multiplied(number, of),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "32 bits times 32 bits, halved")]
#[inline]
fn multiplied(number: u64, of: u32) -> f64 {
    f64::from(((u64::from(number as u32) * u64::from(of)) >> 32) as u32)
}

/// Whether `value` satisfies `op`; `None` if its type is wrong.
#[inline]
fn compared(op: &Op, value: &Value, word: Option<Word>) -> Option<Truth> {
    Some(match op {
        Op::Few(words) => {
            let text = value.as_str()?;
            let word = word.unwrap_or_else(|| Word::of(text));
            words.contains(&word).into()
        }
        Op::Words(set) => {
            let text = value.as_str()?;
            set.contains(word.unwrap_or_else(|| Word::of(text)), text).into()
        }
        Op::WordsOfScalars(set) => {
            if let (Some(text), Some(word)) = (value.as_str(), word) {
                return Some(set.contains(word, text).into());
            }
            with_text(value, true, |text| set.contains(Word::of(text), text).into())?
        }
        Op::Number { comparison, parse, with } => {
            let number = match value {
                Value::Number(number) => number.as_f64(),
                Value::Text(text) if *parse => parsed(text)?,
                _ => return None,
            };
            number.partial_cmp(with).is_some_and(|ordering| comparison.holds(ordering)).into()
        }
        Op::Plain { comparison, with } => comparison.holds(with.compared(value.as_str()?)?).into(),
        Op::Version(op) => op.comparison.holds(op.with.compared(value.as_str()?, op.dialect)?).into(),
        Op::Affix(affix) => with_text(value, affix.scalars, |text| affixed(affix, text).into())?,
        Op::Present => Truth::True,
        Op::Equals(values) => values.contains(value).into(),
        Op::Time(op) => {
            let time = match value {
                Value::Text(text) => rfc3339(text)?,
                Value::Number(number) if op.milliseconds => super::time::of_milliseconds(number.as_f64())?,
                _ => return None,
            };
            op.comparison.holds(time.cmp(&op.with)).into()
        }
        Op::Pattern { regex, scalars } => with_text(value, *scalars, |text| regex.is_match(text).into())?,
        Op::Network(networks) => networks.contains(value.as_str()?.parse::<IpAddr>().ok()?).into(),
        Op::Custom(custom) => custom.test(value),
    })
}

/// A finite number in decimal notation, nothing around it.
#[inline]
fn parsed(text: &str) -> Option<f64> {
    let starts = text.bytes().next()?;
    if !(starts.is_ascii_digit() || matches!(starts, b'-' | b'+' | b'.')) {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[inline]
fn with_text(value: &Value, scalars: bool, then: impl FnOnce(&str) -> Truth) -> Option<Truth> {
    match value {
        Value::Text(text) => Some(then(text)),
        Value::Number(number) if scalars => Some(then(Scratch::default().show(number))),
        Value::Bool(yes) if scalars => Some(then(if *yes { "true" } else { "false" })),
        _ => None,
    }
}

fn affixed(affix: &Affix, text: &str) -> bool {
    if affix.ignore_case {
        if text.is_ascii() {
            return affix.texts.iter().any(|one| ascii_affixed(affix.how, text.as_bytes(), one.as_bytes()));
        }
        let lower = text.to_lowercase();
        return affix.texts.iter().any(|one| plainly_affixed(affix.how, &lower, one));
    }
    affix.texts.iter().any(|one| plainly_affixed(affix.how, text, one))
}

fn plainly_affixed(how: Texts, text: &str, one: &str) -> bool {
    match how {
        Texts::Is => text == one,
        Texts::StartsWith => text.starts_with(one),
        Texts::EndsWith => text.ends_with(one),
        Texts::Contains => text.contains(one),
    }
}

/// The same for an ASCII text of any case and an operand in lower case, without a copy.
fn ascii_affixed(how: Texts, text: &[u8], one: &[u8]) -> bool {
    let same = |part: Option<&[u8]>| part.is_some_and(|part| part.eq_ignore_ascii_case(one));
    match how {
        Texts::Is => text.eq_ignore_ascii_case(one),
        Texts::StartsWith => same(text.get(..one.len())),
        Texts::EndsWith => same(text.len().checked_sub(one.len()).and_then(|at| text.get(at..))),
        Texts::Contains => {
            one.is_empty() || text.windows(one.len()).any(|part| part.eq_ignore_ascii_case(one))
        }
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

/// The words for compiled parts, for explanations.
mod describe {
    use std::fmt::Write;

    use super::{Bucket, CheckNode, Node, Op, Pick, Piece, Range, Scale, SplitNode, TestNode};
    use crate::model::Texts;

    pub(super) fn node(node: &Node) -> String {
        match node {
            Node::Constant(truth) => format!("always {truth:?}").to_lowercase(),
            Node::All(_) => "all of".to_owned(),
            Node::Any(_) => "any of".to_owned(),
            Node::Not(_) => "not".to_owned(),
            Node::Lenient(_) => "if it can be said".to_owned(),
            Node::Test(test) => self::test(test),
            Node::Share(share) => {
                format!(
                    "{} lies {}",
                    bucket(&share.bucket),
                    ranges(std::iter::once(&share.first).chain(&share.more))
                )
            }
            Node::Segment(segment) if segment.negate => format!("not {}", segment.name),
            Node::Segment(segment) => segment.name.to_string(),
            Node::Flag(check) => self::check(check),
            Node::During(period) => {
                let mut said = "the time is".to_owned();
                if let Some(from) = period.from {
                    let _ = write!(said, " from {from}");
                }
                if let Some(until) = period.until {
                    let _ = write!(said, " until {until}");
                }
                said
            }
            Node::Custom(custom) => custom.describe(),
        }
    }

    pub(super) fn check(node: &CheckNode) -> String {
        let check = &node.check;
        let mut said = format!("`{}` is", check.flag);
        match check.on {
            Some(true) => said.push_str(" on"),
            Some(false) => said.push_str(" off"),
            None => {}
        }
        if check.enabled {
            said.push_str(" enabled");
        }
        if let Some(names) = &check.variants {
            let _ = write!(
                said,
                " {}",
                names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(" or ")
            );
        }
        if let Some(value) = &check.value {
            let _ = write!(said, " {}", value.describe());
        }
        said
    }

    pub(super) fn split(split: &SplitNode) -> String {
        format!("{} in {} slices", bucket(&split.bucket), split.slices.len())
    }

    fn test(test: &TestNode) -> String {
        let not = if test.negate { "not " } else { "" };
        let verb = match &test.op {
            Op::Present => "there".to_owned(),
            Op::Few(words) => {
                let texts: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", texts.join(", "))
            }
            Op::Words(set) | Op::WordsOfScalars(set) => format!("one of {set}"),
            Op::Affix(affix) => {
                let how = match affix.how {
                    Texts::Is => "one of",
                    Texts::StartsWith => "starting with",
                    Texts::EndsWith => "ending with",
                    Texts::Contains => "containing",
                };
                let texts: Vec<_> = affix.texts.iter().take(8).map(|text| format!("{text:?}")).collect();
                let more = if affix.texts.len() > 8 { ", …" } else { "" };
                format!("{how} {}{more}", texts.join(", "))
            }
            Op::Equals(values) => {
                let texts: Vec<_> = values.iter().take(8).map(ToString::to_string).collect();
                let more = if values.len() > 8 { ", …" } else { "" };
                format!("equal to {}{more}", texts.join(" or "))
            }
            Op::Number { comparison, with, .. } => format!("{} {with}", comparison.sign()),
            Op::Time(op) => format!("{} {}", op.comparison.sign(), op.with),
            Op::Plain { comparison, with } => format!("{} {}", comparison.sign(), with.version()),
            Op::Version(op) => format!("{} {}", op.comparison.sign(), op.with.version()),
            Op::Pattern { regex, .. } => format!("matching /{}/", regex.as_str()),
            Op::Network(networks) => format!("in one of {} networks", networks.len()),
            Op::Custom(custom) => custom.describe(),
        };
        format!("{} is {not}{verb}", pick(&test.pick))
    }

    fn pick(pick: &Pick) -> String {
        match pick {
            Pick::Key => "targeting key".to_owned(),
            Pick::Attribute(name) => name.text().unwrap_or_default(),
            Pick::Deep(deep) => {
                let mut said = String::new();
                if let Some(kind) = &deep.kind {
                    let _ = write!(said, "{kind} ");
                }
                said.push_str(&deep.name.as_ref().map_or_else(|| "key".to_owned(), crate::value::Name::text));
                for key in &deep.path {
                    let _ = write!(said, "/{key}");
                }
                said
            }
            Pick::Kinds => "kind".to_owned(),
            Pick::Now => "the time".to_owned(),
            Pick::Value(value) => value.to_string(),
        }
    }

    fn bucket(bucket: &Bucket) -> String {
        let input: Vec<_> = bucket
            .input
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => format!("{text:?}"),
                Piece::Of { picks, .. } => picks.iter().map(pick).collect::<Vec<_>>().join(" or "),
            })
            .collect();
        let scale = match bucket.scale {
            Scale::Modulo { of, plus: 0 } | Scale::Multiply { of } => {
                format!("0 to {}", of.saturating_sub(1))
            }
            Scale::Modulo { of, plus } => format!("{plus} to {}", u64::from(of) + u64::from(plus) - 1),
            Scale::Fraction { .. } | Scale::Unit => "0 to 1".to_owned(),
        };
        format!("the {} of {} ({scale})", hash(bucket.hash), input.join(" + "))
    }

    fn hash(hash: crate::model::Hash) -> &'static str {
        use crate::model::Hash;
        match hash {
            Hash::Murmur3 { .. } => "murmur3",
            Hash::Fnv1a => "fnv1a",
            Hash::Fnv1aTwice => "fnv1a of the fnv1a",
            Hash::Sha1 => "sha1",
            Hash::Md5 => "md5",
            Hash::Xxh3 { .. } => "xxh3",
        }
    }

    fn ranges<'r>(ranges: impl Iterator<Item = &'r Range>) -> String {
        let texts: Vec<_> = ranges
            .take(8)
            .map(|range| {
                let until = if range.with_end { "up to and with" } else { "below" };
                if range.from.is_finite() {
                    format!("from {} {until} {}", range.from, range.until)
                } else {
                    format!("{until} {}", range.until)
                }
            })
            .collect();
        texts.join(" or ")
    }
}
