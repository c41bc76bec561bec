//! Which flags have outlived their purpose, by what the journal, their use and the source code say.

use flowline_core::{
    SignedDuration, Timestamp,
    id::{Key, ScopeId},
    name::NameError,
    store::{Batch, Revision, StoreError, StoreExt},
};
use serde::{Deserialize, Serialize};

use super::{Flags, FlagsError, TRIES, record::PREFIX};
use crate::{
    format::flowline::{Definition, FlagKey},
    life::{
        scan::Scan,
        stale::{Limits, Sighting, StaleFlag, StaleReport, stale},
        usage::{Usage, Used},
    },
    model::Facts,
};

/// How exactly the last use of a flag is kept, so that a busy program does not write all the time.
const GRAIN: SignedDuration = SignedDuration::from_hours(1);

/// Longer than this nobody watched: what is known begins anew. Somebody who records uses does it far more often.
const GAP: SignedDuration = SignedDuration::from_hours(48);

/// Since when uses are recorded without a break, and until when.
#[derive(Debug, Serialize, Deserialize)]
struct Watched {
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

impl Watched {
    /// Both together, if that says something new.
    fn and(self, new: Self) -> Option<Self> {
        let (until, new_until) = (self.until.unwrap_or(self.since), new.until.unwrap_or(new.since));
        if new.since.duration_since(until) > GAP {
            return Some(new);
        }
        // Something old may come late.
        let late = self.since.duration_since(new_until) > GAP;
        let since = if late { self.since } else { self.since.min(new.since) };
        let news = since < self.since || new_until.duration_since(until) >= GRAIN;
        news.then_some(Self { since, until: Some(until.max(new_until)) })
    }
}

impl Flags {
    /// Which flags are stale now, and why. A flag that others ask for is in use. `scope` is the one that matters: production. What `scan` says of the source code counts if it is given,
    /// and use counts if anybody ever [recorded](Self::record_usage) it.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn stale(
        &self,
        scope: &ScopeId,
        limits: Limits,
        scan: Option<&Scan>,
    ) -> Result<StaleReport, FlagsError> {
        let now = self.shared.clock.now();
        let scopes = self.scope_facts().await?;
        let watched = self.shared.store.get::<Watched>(&watched_key()?).await?.map(|(_, watched)| watched);
        let definitions: Vec<_> = self.keys().iter().filter_map(|flag| self.definition(flag)).collect();
        let asked: Vec<&str> = definitions.iter().flat_map(Definition::asks).collect();
        let mut report = StaleReport::default();
        for flag in self.keys() {
            let Some(definition) = self.definition(&flag) else { continue };
            let (first, full_since) = self.full_since_by(scope, &flag, &scopes).await?;
            let used = self.shared.store.get::<Used>(&usage_key(&flag)?).await?;
            let references = scan.and_then(|scan| scan.references.get(flag.as_str()));
            let sighting = Sighting {
                full_since,
                watched_since: watched.as_ref().map(|watched| watched.since),
                watched_until: watched.as_ref().and_then(|watched| watched.until),
                asked_by: asked.iter().filter(|asked| **asked == flag.as_str()).count(),
                last_evaluated: used.map(|(_, used)| used.last),
                references: references.map(Vec::len),
            };
            let facts = facts(&definition, first);
            let why = stale(&facts, &sighting, limits, now);
            if !why.is_empty() {
                let references = references.cloned().unwrap_or_default();
                report.flags.insert(flag.to_string(), StaleFlag { owner: facts.owner, why, references });
            }
        }
        if let Some(scan) = scan {
            let unknown = scan.unknown.iter().filter(|(key, _)| !self.knows(key));
            report.unknown = unknown.map(|(key, places)| (key.clone(), places.clone())).collect();
        }
        Ok(report)
    }

    /// Adds to what is known of the use of flags, from any number of processes. Flags that nobody defined are left out.
    ///
    /// A time is kept to within an hour; that is no fact of the journal.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn record_usage(&self, usage: &Usage) -> Result<(), FlagsError> {
        let watched = Watched { since: usage.since, until: Some(usage.until) };
        self.merge(&watched_key()?, watched, Watched::and).await?;
        for (flag, used) in &usage.flags {
            let Ok(flag) = FlagKey::new(flag) else { continue };
            if self.knows(flag.as_str()) {
                let merged = |known: Used, new: Used| {
                    let both = known.and(new);
                    let news = both.first < known.first || both.last.duration_since(known.last) >= GRAIN;
                    news.then_some(both)
                };
                self.merge(&usage_key(&flag)?, *used, merged).await?;
            }
        }
        Ok(())
    }

    fn knows(&self, flag: &str) -> bool {
        FlagKey::new(flag).is_ok_and(|flag| self.definition(&flag).is_some())
    }

    /// Puts `new`, or what `merged` makes of it and what is there; nothing if that says nothing new.
    async fn merge<T: Serialize + for<'de> Deserialize<'de> + Send>(
        &self,
        key: &Key,
        new: T,
        merged: impl Fn(T, T) -> Option<T> + Send,
    ) -> Result<(), FlagsError> {
        let new = serde_json::to_value(&new)
            .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() })?;
        let read = |value: &serde_json::Value| {
            T::deserialize(value)
                .map_err(|source| StoreError::Content { key: key.clone(), source: source.into() })
        };
        for _ in 0..TRIES {
            let (revision, next) = match self.shared.store.get::<T>(key).await? {
                Some((revision, known)) => (revision, merged(known, read(&new)?)),
                None => (Revision::ABSENT, Some(read(&new)?)),
            };
            let Some(next) = next else { return Ok(()) };
            let batch = Batch::new().expect(key.clone(), revision).put_as(key.clone(), &next)?;
            match self.shared.store.commit(batch).await {
                Err(StoreError::Conflict { .. }) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
        // Others are recording just the same.
        Ok(())
    }
}

/// What people know of the flag; made when the journal first speaks of it, if it does not say.
fn facts(definition: &Definition, first: Option<Timestamp>) -> Facts {
    Facts {
        owner: definition.owner.clone(),
        kind: definition.kind,
        created: definition.created.or(first),
        expected_end: definition.expected_end,
        ..Facts::default()
    }
}

pub(super) fn usage_key(flag: &FlagKey) -> Result<Key, NameError> {
    Key::new(format!("{PREFIX}usage/{flag}"))
}

fn watched_key() -> Result<Key, NameError> {
    Key::new(format!("{PREFIX}usage-since"))
}
