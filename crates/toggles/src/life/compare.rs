//! Two rulesets on the same contexts: who would see something else.
//!
//! The same comparison answers two questions. Before an edit: who would be moved, exactly and as a share ([`Comparison::of`]). While
//! migrating from a vendor: does the new engine say what the old one says, on real traffic ([`Shadow`]).

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::{
    context::Context,
    engine::{Ambient, Evaluation, Ruleset},
    toggles::Toggles,
    value::Value,
};

/// What one context sees in each of two rulesets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The flag.
    pub flag: String,
    /// The context's targeting key.
    pub key: Option<String>,
    /// What it sees in the first.
    pub before: Seen,
    /// What it sees in the second.
    pub after: Seen,
}

/// What a context sees of a flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// Whether it is on.
    pub on: bool,
    /// The variant's name.
    pub variant: Option<String>,
    /// The value; `None`: the caller's default.
    pub value: Option<Value>,
}

impl Seen {
    fn of(evaluation: &Evaluation<'_>) -> Self {
        Self {
            on: evaluation.on,
            variant: evaluation.variant.map(|variant| variant.name.to_string()),
            value: evaluation.value.cloned(),
        }
    }
}

/// Which of some contexts see something else of a flag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The flag.
    pub flag: String,
    /// How many contexts were looked at.
    pub looked_at: usize,
    /// Those who see something else, in the order in which they were given.
    pub moved: Vec<Difference>,
    /// How many of them had it and have it no more.
    pub thrown_out: usize,
}

impl Comparison {
    /// Compares what `contexts` see of `flag` before and after an edit. Values count, and on or off; a variant's name alone does not.
    pub fn of<'c>(
        flag: &str,
        before: &Ruleset,
        after: &Ruleset,
        contexts: impl IntoIterator<Item = &'c Context>,
        ambient: &dyn Ambient,
    ) -> Self {
        let mut comparison = Self { flag: flag.to_owned(), looked_at: 0, moved: Vec::new(), thrown_out: 0 };
        for context in contexts {
            comparison.looked_at += 1;
            if let Some(difference) = difference(flag, before, after, context, ambient) {
                comparison.thrown_out += usize::from(difference.before.on && !difference.after.on);
                comparison.moved.push(difference);
            }
        }
        comparison
    }

    /// The same for 10,000 made-up targeting keys without attributes: what share of everybody an edit would move.
    pub fn estimate(flag: &str, before: &Ruleset, after: &Ruleset, ambient: &dyn Ambient) -> Self {
        let contexts: Vec<Context> =
            (0..10_000).map(|user| Context::new(format!("made-up-user-{user}"))).collect();
        Self::of(flag, before, after, &contexts, ambient)
    }

    /// The share of those looked at who see something else, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a share of fewer than 2^53 contexts")]
    pub fn share(&self) -> f64 {
        if self.looked_at == 0 { 0.0 } else { self.moved.len() as f64 / self.looked_at as f64 }
    }
}

fn difference(
    flag: &str,
    before: &Ruleset,
    after: &Ruleset,
    context: &Context,
    ambient: &dyn Ambient,
) -> Option<Difference> {
    let (one, other) = (before.evaluate(flag, context, ambient), after.evaluate(flag, context, ambient));
    let same = one.on == other.on && one.value == other.value && one.error.is_some() == other.error.is_some();
    (!same).then(|| Difference {
        flag: flag.to_owned(),
        key: context.key().map(str::to_owned),
        before: Seen::of(&one),
        after: Seen::of(&other),
    })
}

/// Serves one set of flags and asks another in its shadow, on the same traffic.
///
/// Callers only ever get what the served one says. Differences are counted for each flag, and the first few of each kept as examples.
#[derive(Debug)]
pub struct Shadow {
    served: Toggles,
    candidate: Toggles,
    examples: usize,
    seen: Mutex<BTreeMap<String, ShadowReport>>,
}

/// How two sets of flags agreed on one flag.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ShadowReport {
    /// How often it was asked.
    pub asked: u64,
    /// How often both said something else.
    pub differed: u64,
    /// The first differences.
    pub examples: Vec<Difference>,
}

impl Shadow {
    /// Serves `served`, and asks `shadow` too; keeps up to `examples` differences of each flag.
    pub fn new(served: Toggles, shadow: Toggles, examples: usize) -> Self {
        Self { served, candidate: shadow, examples, seen: Mutex::default() }
    }

    /// What the served flags say; the comparison is recorded. Takes a lock: for the time of a migration.
    pub fn is_on(&self, flag: &str, context: &Context) -> bool {
        let (served, shadow) = (self.served.ruleset(), self.candidate.ruleset());
        let ambient = &**self.served.ambient();
        let difference = difference(flag, &served, &shadow, context, ambient);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let report = match seen.get_mut(flag) {
                Some(report) => report,
                None => seen.entry(flag.to_owned()).or_default(),
            };
            report.asked += 1;
            if let Some(difference) = difference {
                report.differed += 1;
                if report.examples.len() < self.examples {
                    report.examples.push(difference);
                }
            }
        }
        served.is_on(flag, context, ambient)
    }

    /// What was seen so far, by flag.
    pub fn report(&self) -> BTreeMap<String, ShadowReport> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{engine::Fixed, format::flowline::Flowline};

    fn ruleset(flag: &str) -> Ruleset {
        Flowline::default().ruleset(&format!(r#"{{"flags": {{"f": {flag}}}}}"#)).unwrap()
    }

    #[test]
    fn raising_a_rollout_moves_only_those_who_get_it() {
        let (ten, thirty) = (
            ruleset(r#"{"state": {"on": true, "rollout": 10}}"#),
            ruleset(r#"{"state": {"on": true, "rollout": 30}}"#),
        );
        let raised = Comparison::estimate("f", &ten, &thirty, &Fixed::default());
        assert!((0.18..0.22).contains(&raised.share()), "{}", raised.share());
        assert_eq!(raised.thrown_out, 0);
        let lowered = Comparison::estimate("f", &thirty, &ten, &Fixed::default());
        assert_eq!(lowered.thrown_out, raised.moved.len());
    }

    #[test]
    fn a_new_salt_throws_the_dice_again() {
        let (old, new) = (
            ruleset(r#"{"state": {"on": true, "rollout": 50}}"#),
            ruleset(r#"{"salt": "again", "state": {"on": true, "rollout": 50}}"#),
        );
        let moved = Comparison::estimate("f", &old, &new, &Fixed::default());
        assert!((0.45..0.55).contains(&moved.share()), "{}", moved.share());
        assert!(moved.thrown_out > 2_000);
    }

    #[test]
    fn a_shadow_never_changes_what_is_served() {
        let served = Toggles::new(ruleset(r#"{"state": {"on": true}}"#));
        let shadow = Shadow::new(served, Toggles::default(), 2);
        for user in 0..5 {
            assert!(shadow.is_on("f", &Context::new(format!("u{user}"))));
        }
        let report = &shadow.report()["f"];
        assert_eq!((report.asked, report.differed, report.examples.len()), (5, 5, 2));
        assert!(report.examples[0].before.on && !report.examples[0].after.on);
    }
}
