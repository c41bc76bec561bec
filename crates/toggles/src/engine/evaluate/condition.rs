//! Whether a condition holds: attributes, shares, segments, other flags, time.

use super::{Frame, Walk, describe, test::Seen};
use crate::{
    engine::{
        Ask, MAX_DEPTH, Observer,
        custom::Situation,
        node::{CheckNode, FlagNode, Node, SegmentNode, ShareNode},
        observe::Part,
    },
    model::{Switch, Truth},
    value::Value,
};

impl<'a> Walk<'a> {
    #[expect(clippy::inline_always, reason = "the path that every evaluation takes")]
    #[inline(always)]
    pub(super) fn condition<O: Observer>(
        &mut self,
        node: &'a Node,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        if observer.recording() {
            return self.watched(node, frame, observer);
        }
        match node {
            Node::Test(test) => self.test(test),
            _ => self.truth(node, frame, observer),
        }
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
                Seen::Prepared(prepared) => observer.saw(Some(&prepared.value)),
                Seen::Value(value) => observer.saw(Some(value)),
                Seen::Made(value) => observer.saw(Some(&value)),
            }
        }
        let truth = self.truth(node, frame, observer);
        observer.close(truth.into());
        truth
    }

    #[inline(never)]
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
    pub(crate) fn segment<O: Observer>(
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
        if !segment.asks {
            return self.condition(&segment.when, up, observer);
        }
        let id = std::ptr::from_ref(segment).addr();
        if let Some(known) = self.memo.segment(id) {
            return known;
        }
        if self.depth >= MAX_DEPTH || Frame::holds(up, id) || self.memo.is_spent() {
            self.memo.circles += 1;
            return Truth::Broken;
        }
        let circles = self.memo.circles;
        self.depth += 1;
        let truth = self.condition(&segment.when, Some(&Frame { id, up }), observer);
        self.depth -= 1;
        if circles == self.memo.circles {
            self.memo.keep_segment(id, truth);
        }
        truth
    }

    /// A prerequisite, told to the observer.
    #[inline]
    pub(super) fn check<O: Observer>(
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

    #[inline]
    fn looked_up<O: Observer>(
        &mut self,
        node: &'a CheckNode,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        let Some(flag) = self.ruleset.flags.get_hashed(node.hash, &node.check.flag) else {
            return node.check.unknown;
        };
        if node.only_on
            && let (Some(settled), Some(on), None) = (flag.settled, node.check.on, &flag.fault)
            && !observer.recording()
        {
            return (settled == on).into();
        }
        self.asked(node, flag, frame, observer)
    }

    /// What a flag that has to be evaluated comes to for whoever asks.
    #[inline(never)]
    fn asked<O: Observer>(
        &mut self,
        node: &'a CheckNode,
        flag: &'a FlagNode,
        frame: Option<&Frame<'_>>,
        observer: &mut O,
    ) -> Truth {
        let check = &node.check;
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

    #[inline]
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
}
