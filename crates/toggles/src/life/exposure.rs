//! Who was shown what: each exposure told once. The sink [`Reach`](crate::flags::Reach) makes "first user" and "all users" of a change
//! facts of it.

use std::{
    collections::{BTreeSet, VecDeque},
    fmt::{self, Debug},
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{Timestamp, error::BoxError};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    client::{Details, Hook, HookContext, HookHints, Stages},
    context::Context,
    engine::Evaluation,
    format::flowline::Percent,
    toggles::Toggles,
    value::Value,
};

/// Somebody was shown something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The flag.
    pub flag: String,
    /// The variant's name.
    pub variant: String,
    /// The targeting key.
    pub key: String,
    /// When.
    pub time: Timestamp,
}

/// Takes exposures. Called on the path of an evaluation: it must be quick and must not block; hand on to a queue.
pub trait ExposureSink: Debug + Send + Sync {
    /// Takes one.
    fn exposed(&self, exposure: Exposure);

    /// A flag was evaluated, by anybody, for the first time or again: for who wants to know which flags are in use. By default it is
    /// ignored.
    fn asked(&self, _flag: &str, _time: Timestamp) {}
}

/// Keeps exposures, for tests and small programs.
#[derive(Debug, Default)]
pub struct Collected(Mutex<Vec<Exposure>>);

impl Collected {
    /// What came so far.
    pub fn take(&self) -> Vec<Exposure> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ExposureSink for Collected {
    fn exposed(&self, exposure: Exposure) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(exposure);
    }
}

/// Evaluates flags and tells a sink who was shown what: each triple of flag, variant and key once, for as long as it is remembered.
///
/// Sampling is by key, so one person is either always or never in the sample, across flags. Contexts without a key are never told of.
///
/// Ask it in place of its [`Toggles`], or add it as a [`Hook`] to OpenFeature's clients: then everybody is told of who gets a variant of
/// any provider.
pub struct Exposures {
    toggles: Toggles,
    sink: Arc<dyn ExposureSink>,
    sample: Percent,
    remembered: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    set: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl Exposures {
    /// Tells `sink` of everybody; remembers the last 100,000 exposures.
    pub fn new(toggles: Toggles, sink: Arc<dyn ExposureSink>) -> Self {
        Self { toggles, sink, sample: Percent::ALL, remembered: 100_000, seen: Mutex::default() }
    }

    /// The same for a share of all keys.
    #[must_use]
    pub fn sampled(mut self, sample: Percent) -> Self {
        self.sample = sample;
        self
    }

    /// The same, remembering this many exposures; beyond that the oldest are forgotten, and told again.
    #[must_use]
    pub fn remembering(mut self, exposures: usize) -> Self {
        self.remembered = exposures;
        self
    }

    /// Whether `flag` is on for `context`, which is told if it is new.
    pub fn is_on(&self, flag: &str, context: &Context) -> bool {
        self.evaluate(flag, context, |it| it.on)
    }

    /// What `flag` comes to for `context`, which is told if it is new.
    pub fn evaluate<R>(&self, flag: &str, context: &Context, then: impl FnOnce(Evaluation<'_>) -> R) -> R {
        self.toggles.evaluate(flag, context, |it| {
            self.tell(flag, context, it.variant.map(|variant| &*variant.name));
            then(it)
        })
    }

    fn tell(&self, flag: &str, context: &Context, variant: Option<&str>) {
        let time = context.now().unwrap_or_else(|| self.toggles.ambient().now());
        self.sink.asked(flag, time);
        let (Some(key), Some(variant)) = (context.key(), variant) else { return };
        let place = ((xxh3_64(key.as_bytes()) >> 32) * u64::from(Percent::ALL.thousandths())) >> 32;
        if place >= u64::from(self.sample.thousandths()) {
            return;
        }
        // Separated by a byte that no text has, so that no two triples run together.
        let mark = xxh3_64(&[flag.as_bytes(), &[0xff], variant.as_bytes(), &[0xff], key.as_bytes()].concat());
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if !seen.set.insert(mark) {
                return;
            }
            seen.order.push_back(mark);
            if seen.order.len() > self.remembered
                && let Some(oldest) = seen.order.pop_front()
            {
                seen.set.remove(&oldest);
            }
        }
        self.sink.exposed(Exposure {
            flag: flag.to_owned(),
            variant: variant.to_owned(),
            key: key.to_owned(),
            time,
        });
    }
}

impl Hook for Exposures {
    fn stages(&self) -> Stages {
        Stages::FINALLY
    }

    fn finally(
        &self,
        hook: &mut HookContext<'_>,
        details: &Details<Value>,
        _: &HookHints,
    ) -> Result<(), BoxError> {
        self.tell(hook.key(), hook.context().engine(), details.variant.as_deref());
        Ok(())
    }
}

impl Debug for Exposures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposures")
            .field("sink", &self.sink)
            .field("sample", &self.sample)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{client::isolated, format::flowline::Flowline, provider::TogglesProvider};

    fn toggles() -> Toggles {
        let document = r#"{"flags": {"f": {"state": {"on": true, "rollout": 50}}}}"#;
        Toggles::new(Flowline::default().ruleset(document).unwrap())
    }

    #[test]
    fn each_exposure_is_told_once() {
        let sink = Arc::new(Collected::default());
        let exposures = Exposures::new(toggles(), Arc::clone(&sink) as Arc<dyn ExposureSink>);
        for _ in 0..3 {
            for user in 0..100 {
                exposures.is_on("f", &Context::new(format!("user-{user}")));
            }
            exposures.is_on("f", &Context::anonymous());
            exposures.is_on("unknown", &Context::new("user-1"));
        }
        let told = sink.take();
        assert_eq!(told.len(), 100);
        assert!(told.iter().any(|it| it.variant == "on") && told.iter().any(|it| it.variant == "off"));
    }

    #[test]
    fn clients_of_openfeature_tell_of_exposures_by_a_hook() {
        let sink = Arc::new(Collected::default());
        let exposures = Exposures::new(toggles(), Arc::clone(&sink) as Arc<dyn ExposureSink>);
        let api = isolated::api();
        api.add_hooks([Arc::new(exposures) as Arc<dyn Hook>]);
        drop(api.set_provider(Arc::new(TogglesProvider::new(toggles()))).unwrap());
        for user in ["ada", "grace", "ada"] {
            api.client().boolean("f", false, &crate::client::EvaluationContext::targeting(user));
        }
        api.client().boolean("unknown", false, &crate::client::EvaluationContext::targeting("ada"));
        let told: Vec<_> = sink.take().into_iter().map(|it| (it.flag, it.key)).collect();
        assert_eq!(told, [("f", "ada"), ("f", "grace")].map(|(flag, key)| (flag.to_owned(), key.to_owned())));
    }

    #[test]
    fn a_sample_is_of_people_and_not_of_questions() {
        let sink = Arc::new(Collected::default());
        let exposures = Exposures::new(toggles(), Arc::clone(&sink) as Arc<dyn ExposureSink>)
            .sampled(Percent::new(10.0).unwrap())
            .remembering(1);
        let ask = || {
            for user in 0..1_000 {
                exposures.is_on("f", &Context::new(format!("user-{user}")));
            }
            sink.take().into_iter().map(|it| it.key).collect::<BTreeSet<_>>()
        };
        let first = ask();
        assert!((60..140).contains(&first.len()), "{}", first.len());
        assert_eq!(ask(), first);
    }
}
