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
    client::EvaluationContext,
    context::Context,
    engine::{Ambient, Evaluation, Ruleset},
    provider::{Provider, ProviderMetadata, Resolved, resolution, structure},
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

    /// The same for 10,000 made-up targeting keys without attributes: what share of everybody an edit would move. It says nothing of a flag that asks
    /// for attributes, see [`estimate_among`](Self::estimate_among).
    pub fn estimate(flag: &str, before: &Ruleset, after: &Ruleset, ambient: &dyn Ambient) -> Self {
        let contexts: Vec<Context> =
            (0..10_000).map(|user| Context::new(format!("made-up-user-{user}"))).collect();
        Self::of(flag, before, after, &contexts, ambient)
    }

    /// The same for 10,000 made-up targeting keys that have the attributes of `samples`, taken in turn; without any sample, none.
    pub fn estimate_among(
        flag: &str,
        before: &Ruleset,
        after: &Ruleset,
        samples: &[Context],
        ambient: &dyn Ambient,
    ) -> Self {
        let contexts: Vec<Context> = samples
            .iter()
            .cycle()
            .take(10_000)
            .enumerate()
            .map(|(user, sample)| sample.clone().with_key(format!("made-up-user-{user}")))
            .collect();
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
        self.evaluate(flag, context, |it| it.on)
    }

    /// The value that the served flags give; `None`: the caller's default. Recorded as [`is_on`](Self::is_on) is.
    pub fn value(&self, flag: &str, context: &Context) -> Option<Value> {
        self.evaluate(flag, context, |it| it.value.cloned())
    }

    /// What `flag` comes to in the served flags: variant, value, reason. Recorded as [`is_on`](Self::is_on) is.
    pub fn evaluate<R>(&self, flag: &str, context: &Context, then: impl FnOnce(Evaluation<'_>) -> R) -> R {
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
        then(served.evaluate(flag, context, ambient))
    }

    fn resolve<T>(
        &self,
        key: &str,
        default: impl FnOnce() -> T,
        context: &EvaluationContext,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Resolved<T> {
        self.evaluate(key, context.engine(), |evaluation| resolution(key, &evaluation, default, read))
    }

    /// What was seen so far, by flag.
    pub fn report(&self) -> BTreeMap<String, ShadowReport> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The served flags, as [`TogglesProvider`](crate::provider::TogglesProvider) gives them.
impl Provider for Shadow {
    fn metadata(&self) -> ProviderMetadata {
        ProviderMetadata::new("flowline shadow")
    }

    fn resolve_bool(&self, key: &str, default: bool, context: &EvaluationContext) -> Resolved<bool> {
        self.resolve(key, || default, context, Value::as_bool)
    }

    fn resolve_text(&self, key: &str, default: &str, context: &EvaluationContext) -> Resolved<String> {
        self.resolve(key, || default.to_owned(), context, |value| value.as_str().map(str::to_owned))
    }

    fn resolve_integer(&self, key: &str, default: i64, context: &EvaluationContext) -> Resolved<i64> {
        self.resolve(key, || default, context, Value::as_i64)
    }

    fn resolve_float(&self, key: &str, default: f64, context: &EvaluationContext) -> Resolved<f64> {
        self.resolve(key, || default, context, Value::as_f64)
    }

    fn resolve_structure(&self, key: &str, default: &Value, context: &EvaluationContext) -> Resolved<Value> {
        self.resolve(key, || default.clone(), context, |value| structure(value).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{client::isolated, engine::Fixed, format::flowline::Flowline};

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

    #[test]
    fn a_shadow_serves_and_compares_texts_and_variants_too() {
        let text = |serve: &str| {
            let flag = r#"{"variants": {"a": "x", "b": "y"}, "serve": "S", "state": {"on": true}}"#;
            Toggles::new(ruleset(&flag.replace('S', serve)))
        };
        let shadow = Arc::new(Shadow::new(text("a"), text("b"), 1));
        let user = Context::new("u");
        assert_eq!(shadow.value("f", &user), Some("x".into()));
        assert_eq!(shadow.evaluate("f", &user, |it| it.variant.map(|it| it.name.to_string())).unwrap(), "a");
        let api = isolated::api();
        drop(api.set_provider(Arc::clone(&shadow) as Arc<dyn Provider>).unwrap());
        assert_eq!(api.client().text("f", "none", ()), "x");
        let report = &shadow.report()["f"];
        assert_eq!((report.asked, report.differed), (3, 3));
        assert_eq!(report.examples[0].after.value, Some("y".into()));
    }

    #[test]
    fn a_share_is_of_people_like_those_who_are_meant() {
        let (some, all) = (
            ruleset(
                r#"{"audience": [{"attribute": "country", "in": ["NO"]}], "state": {"on": true, "rollout": 50}}"#,
            ),
            ruleset(r#"{"audience": [{"attribute": "country", "in": ["NO"]}], "state": {"on": true}}"#),
        );
        let fixed = Fixed::default();
        assert!(Comparison::estimate("f", &some, &all, &fixed).moved.is_empty(), "nobody is in the audience");
        let samples =
            [Context::new("ada").with("country", "NO"), Context::new("grace").with("country", "SE")];
        let share = Comparison::estimate_among("f", &some, &all, &samples, &fixed).share();
        assert!((0.23..0.27).contains(&share), "{share}");
        assert_eq!(Comparison::estimate_among("f", &some, &all, &[], &fixed).looked_at, 0);
    }
}
