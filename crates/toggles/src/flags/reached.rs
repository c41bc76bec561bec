//! When a change reached people: its first user and all of them, as facts in the journal.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use flowline_core::{
    Timestamp,
    digest::Digest,
    event::Event,
    id::{ChangeId, EventId, ScopeId},
    journal::Fact,
    store::Batch,
};
use serde::{Deserialize, Serialize};

use super::{Flags, FlagsError, record::stream};
use crate::{
    format::flowline::{FlagKey, compile},
    life::exposure::{Exposure, ExposureSink},
    model::{Flag, Outcome, Switch},
};

/// Whom a change reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// The first person was shown the variant.
    FirstUser,
    /// Everybody who asks is shown it.
    AllUsers,
}

/// The fact that a change reached people by a variant of a flag. It lies in the flag's stream; its time is that of the exposure, or when it
/// was seen that everybody gets the variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeReached {
    /// The change.
    pub change: ChangeId,
    /// The flag that releases it.
    pub flag: FlagKey,
    /// The variant that has it.
    pub variant: String,
    /// Where.
    pub scope: ScopeId,
    /// Whom.
    pub whom: Reached,
}

impl Fact for ChangeReached {
    const KIND: &'static str = "change.reached";
}

/// Writes when changes reached people: [`ChangeReached`] for the first user and for all users, once each for a change, flag, variant and
/// scope, however many processes write, and whatever happens afterwards (a rollout that is taken back and raised again reached them then).
///
/// It is a sink of [`Exposures`](crate::life::exposure::Exposures), which it only notes; [`write`](Self::write) writes what was noted, and
/// is called now and then (every minute is plenty). What was noted and not written when a process dies is lost: the next exposure counts in
/// its place, so that the fact is late, never false. The first user is exact among those that the exposures tell of: a sample may miss
/// them, and somebody who was told of with the same variant before the change is not told of again. A release flag has one change, and
/// neither matters.
///
/// Everybody gets a variant when the flag is on, at 100 %, without audience or prerequisites, and no rule gives anybody another one.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::{clock::ManualClock, id::{ChangeId, ScopeId}, store::MemoryStore};
/// # use flowline_toggles::{Context, flags::{Author, Flags, Reach}, format::flowline::{Definition, FlagKey, Percent}, life::exposure::Exposures};
/// # flowline_core::testkit::block_on(async {
/// # let flags = Flags::open(Arc::new(MemoryStore::new()), Arc::new(ManualClock::default())).await?;
/// # let (production, checkout, ada) = (ScopeId::new("production")?, FlagKey::new("checkout")?, Author::new("ada", "it is ready"));
/// flags.define(&checkout, Definition::default(), &ada).await?;
/// let reach = Arc::new(Reach::new(flags.clone(), production.clone()));
/// reach.watch(&ChangeId::new("pr-123")?, &checkout, "on");
/// let exposures = Exposures::new(flags.toggles(&production), reach.clone());
/// flags.set_rollout(&production, &checkout, Percent::ALL, &ada).await?;
/// exposures.is_on("checkout", &Context::new("user-1"));
/// assert_eq!(reach.write().await?.len(), 2, "the first user, and all of them");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct Reach {
    flags: Flags,
    scope: ScopeId,
    noted: Mutex<Noted>,
}

type Shown = (FlagKey, String);

#[derive(Debug, Default)]
struct Noted {
    /// The changes that a variant has, with what was written of them.
    watched: BTreeMap<Shown, BTreeMap<ChangeId, BTreeSet<Reached>>>,
    /// When a variant was shown first, since it was watched for the last change.
    first: BTreeMap<Shown, Timestamp>,
}

impl Reach {
    /// Of nothing yet, in `scope`.
    pub fn new(flags: Flags, scope: ScopeId) -> Self {
        Self { flags, scope, noted: Mutex::default() }
    }

    /// From now on `variant` of `flag` has `change`: call it when what implements the change is deployed. Again for the same does nothing.
    pub fn watch(&self, change: &ChangeId, flag: &FlagKey, variant: impl Into<String>) {
        let shown = (flag.clone(), variant.into());
        let mut noted = self.noted();
        let changes = noted.watched.entry(shown.clone()).or_default();
        if !changes.contains_key(change) {
            changes.insert(change.clone(), BTreeSet::new());
            // Who was shown it before did not see this change.
            noted.first.remove(&shown);
        }
    }

    /// Writes what was noted, and of which variants everybody gets them now: what this process found out, which others may have written
    /// before it.
    ///
    /// # Errors
    /// Those of the store. What was noted stays noted: call it again.
    pub async fn write(&self) -> Result<Vec<ChangeReached>, FlagsError> {
        let now = self.flags.shared.clock.now();
        let found = self.found(now);
        let mut batch = Batch::new();
        for (fact, time) in &found {
            let ChangeReached { change, flag, variant, scope, whom } = fact;
            // One for all processes: the journal keeps an id once.
            let parts = serde_json::json!([change, variant, scope, whom]).to_string();
            let id = EventId::new(format!("flag/{flag}/reached/{}", Digest::of(parts.as_bytes())))?;
            let event = Event::of(fact, id, *time, "flowline", format!("change/{change}"))?;
            batch = batch.append(stream(flag)?, event);
        }
        if !found.is_empty() {
            self.flags.shared.store.commit(batch).await?;
        }
        let facts: Vec<_> = found.into_iter().map(|(fact, _)| fact).collect();
        let mut noted = self.noted();
        for fact in &facts {
            let changes = noted.watched.get_mut(&(fact.flag.clone(), fact.variant.clone()));
            if let Some(written) = changes.and_then(|changes| changes.get_mut(&fact.change)) {
                written.insert(fact.whom);
            }
        }
        Ok(facts)
    }

    /// What is true now and was not written by this process.
    fn found(&self, now: Timestamp) -> Vec<(ChangeReached, Timestamp)> {
        let noted = self.noted();
        let mut found = Vec::new();
        for (shown, changes) in &noted.watched {
            let (flag, variant) = shown;
            let first = noted.first.get(shown).copied();
            let all = self.everybody_gets(flag, variant).then_some(now);
            for (change, written) in changes {
                for (whom, time) in [(Reached::FirstUser, first), (Reached::AllUsers, all)] {
                    if let Some(time) = time.filter(|_| !written.contains(&whom)) {
                        let (change, flag) = (change.clone(), flag.clone());
                        let (variant, scope) = (variant.clone(), self.scope.clone());
                        found.push((ChangeReached { change, flag, variant, scope, whom }, time));
                    }
                }
            }
        }
        found
    }

    fn everybody_gets(&self, key: &FlagKey, variant: &str) -> bool {
        let Some(definition) = self.flags.definition(key) else { return false };
        let state = self.flags.effective(&self.scope, key);
        let flag: Flag = compile(key.as_str(), &definition, &state, &mut Vec::new());
        let this = |outcome: &Outcome| match outcome {
            Outcome::Variant(index) => flag.variants.get(*index).is_some_and(|it| *it.name == *variant),
            _ => false,
        };
        flag.fault.is_none()
            && flag.switch == Switch::On
            && flag.prerequisites.is_empty()
            && this(&flag.fallback)
            && flag.rules.iter().all(|rule| this(&rule.then))
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ExposureSink for Reach {
    fn exposed(&self, exposure: Exposure) {
        let Ok(flag) = FlagKey::new(&exposure.flag) else { return };
        let shown = (flag, exposure.variant);
        let mut noted = self.noted();
        if noted.watched.contains_key(&shown) {
            let first = noted.first.entry(shown).or_insert(exposure.time);
            *first = exposure.time.min(*first);
        }
    }
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("scope", &self.scope).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use flowline_core::{
        SignedDuration,
        clock::{Clock, ManualClock},
        journal::Journal,
        store::{MemoryStore, Store},
        testkit::block_on,
    };

    use super::*;
    use crate::{
        context::Context,
        flags::Author,
        format::flowline::{Definition, Percent},
        life::exposure::Exposures,
    };

    /// A process: its own flags, exposures and reach over one store.
    async fn process(store: &Arc<dyn Store>, clock: &ManualClock) -> (Flags, Arc<Reach>, Exposures) {
        let flags = Flags::open(Arc::clone(store), Arc::new(clock.clone())).await.unwrap();
        let production = ScopeId::new("production").unwrap();
        let reach = Arc::new(Reach::new(flags.clone(), production.clone()));
        let exposures = Exposures::new(flags.toggles(&production), Arc::<Reach>::clone(&reach));
        (flags, reach, exposures)
    }

    async fn facts(store: &Arc<dyn Store>) -> Vec<(String, Reached, Timestamp)> {
        let events = Journal::new(Arc::clone(store)).read(&stream(&checkout()).unwrap()).await.unwrap();
        let facts = events.into_iter().filter_map(|recorded| {
            let fact = recorded.event.fact::<ChangeReached>().unwrap()?;
            Some((fact.change.to_string(), fact.whom, recorded.event.time))
        });
        facts.collect()
    }

    fn checkout() -> FlagKey {
        FlagKey::new("checkout").unwrap()
    }

    #[test]
    fn the_first_user_and_all_users_are_told_once_by_however_many_processes() {
        block_on(async {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            let clock = ManualClock::default();
            let (flags, one, shows) = process(&store, &clock).await;
            let ada = Author::new("ada", "it is ready");
            let production = ScopeId::new("production").unwrap();
            flags.define(&checkout(), Definition::default(), &ada).await.unwrap();
            let (others, two, shows_too) = process(&store, &clock).await;
            let change = ChangeId::new("pr-7").unwrap();
            // Shown before anybody watched, and another variant: neither is news of the change.
            shows.is_on("checkout", &Context::new("user-0"));
            for reach in [&one, &two] {
                reach.watch(&change, &checkout(), "on");
            }
            shows.is_on("checkout", &Context::new("user-1"));
            assert_eq!(one.write().await.unwrap(), []);
            flags.set_rollout(&production, &checkout(), Percent::new(50.0).unwrap(), &ada).await.unwrap();
            others.refresh().await.unwrap();
            clock.advance(SignedDuration::from_mins(1));
            let first = clock.now();
            for user in 0..50 {
                shows.is_on("checkout", &Context::new(format!("user-{user}")));
            }
            clock.advance(SignedDuration::from_mins(1));
            for user in 50..100 {
                shows_too.is_on("checkout", &Context::new(format!("user-{user}")));
            }
            assert_eq!(one.write().await.unwrap().len(), 1);
            two.write().await.unwrap();
            assert_eq!(facts(&store).await, [("pr-7".to_owned(), Reached::FirstUser, first)]);

            flags.set_rollout(&production, &checkout(), Percent::ALL, &ada).await.unwrap();
            others.refresh().await.unwrap();
            clock.advance(SignedDuration::from_mins(1));
            let all = clock.now();
            two.write().await.unwrap();
            // Taken back and raised again: it reached them then.
            flags.set_rollout(&production, &checkout(), Percent::NONE, &ada).await.unwrap();
            flags.set_rollout(&production, &checkout(), Percent::ALL, &ada).await.unwrap();
            clock.advance(SignedDuration::from_mins(1));
            one.write().await.unwrap();
            assert_eq!(one.write().await.unwrap(), [], "nothing new");
            let told = facts(&store).await;
            assert_eq!(told[1..], [("pr-7".to_owned(), Reached::AllUsers, all)]);

            // The next change of the same flag has its own.
            one.watch(&ChangeId::new("pr-8").unwrap(), &checkout(), "on");
            shows.is_on("checkout", &Context::new("user-1000"));
            assert_eq!(one.write().await.unwrap().len(), 2);
            assert_eq!(facts(&store).await.len(), 4);
            // The flag's own history is as it was.
            let history = flags.history(&checkout()).await.unwrap();
            assert_eq!(history.len(), 5);
        });
    }

    #[test]
    fn not_everybody_is_reached_past_an_audience_a_rule_or_another_flag() {
        let everybody = |definition: serde_json::Value| {
            block_on(async {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                let (flags, reach, _) = process(&store, &ManualClock::default()).await;
                let definition: Definition = serde_json::from_value(definition).unwrap();
                flags
                    .define(&FlagKey::new("other").unwrap(), Definition::default(), &Author::new("ada", ""))
                    .await
                    .unwrap();
                flags.define(&checkout(), definition, &Author::new("ada", "")).await.unwrap();
                reach.everybody_gets(&checkout(), "on")
            })
        };
        let on = serde_json::json!({"on": true});
        let plan = serde_json::json!([{"attribute": "plan", "in": ["gold"]}]);
        assert!(everybody(serde_json::json!({"state": on})));
        assert!(
            everybody(serde_json::json!({"state": on, "rules": [{"when": plan}]})),
            "the rule gives the same"
        );
        for definition in [
            serde_json::json!({}),
            serde_json::json!({"state": {"on": true, "rollout": 99.9}}),
            serde_json::json!({"state": {"on": true, "killed": true}}),
            serde_json::json!({"state": on, "audience": plan}),
            serde_json::json!({"state": on, "rules": [{"when": plan, "off": true}]}),
            serde_json::json!({"state": on, "requires": ["other"]}),
        ] {
            assert!(!everybody(definition.clone()), "{definition}");
        }
    }
}
