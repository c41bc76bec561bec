//! Which flags were evaluated, and when last: what tells a flag that nobody asks for from one that is in use.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{Timestamp, clock::Clock, error::BoxError};
use serde::{Deserialize, Serialize};

use super::exposure::{Exposure, ExposureSink};
use crate::{
    client::{Details, Hook, HookContext, HookHints, Stages},
    value::Value,
};

/// Which flags were evaluated since a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Since when somebody has watched.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The flags that were evaluated, by key.
    pub flags: BTreeMap<String, Used>,
}

/// How a flag was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// When it was evaluated first.
    pub first: Timestamp,
    /// When it was evaluated last.
    pub last: Timestamp,
}

impl Used {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}

/// Notes which flags are evaluated. A [`Hook`] for OpenFeature's clients (unknown flags count, too), and a sink of exposures.
///
/// Hand what it noted to [`Flags::record_usage`](crate::flags::Flags::record_usage) now and then: every hour is plenty. Noting takes a lock for the
/// time of a look-up.
#[derive(Debug)]
pub struct UsageLog {
    clock: Arc<dyn Clock>,
    noted: Mutex<Usage>,
}

impl UsageLog {
    /// Notes from now on.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let noted = Mutex::new(Usage { since: now, until: now, flags: BTreeMap::new() });
        Self { clock, noted }
    }

    /// Notes that `flag` was evaluated now.
    pub fn note(&self, flag: &str) {
        self.note_at(flag, self.clock.now());
    }

    /// What was noted since the last time that this was called.
    pub fn take(&self) -> Usage {
        let now = self.clock.now();
        let fresh = Usage { since: now, until: now, flags: BTreeMap::new() };
        let noted = mem::replace(&mut *self.noted.lock().unwrap_or_else(PoisonError::into_inner), fresh);
        Usage { until: now, ..noted }
    }

    fn note_at(&self, flag: &str, time: Timestamp) {
        let used = Used { first: time, last: time };
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.flags.get_mut(flag) {
            Some(known) => *known = known.and(used),
            None => drop(noted.flags.insert(flag.to_owned(), used)),
        }
    }
}

impl ExposureSink for UsageLog {
    /// That is an evaluation, which is told by itself.
    fn exposed(&self, _: Exposure) {}

    fn asked(&self, flag: &str, time: Timestamp) {
        self.note_at(flag, time);
    }
}

impl Hook for UsageLog {
    fn stages(&self) -> Stages {
        Stages::FINALLY
    }

    fn finally(&self, hook: &mut HookContext<'_>, _: &Details<Value>, _: &HookHints) -> Result<(), BoxError> {
        self.note(hook.key());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::{SignedDuration, clock::ManualClock};

    use super::*;
    use crate::{
        client::isolated,
        provider::{Memory, MemoryFlag},
    };

    #[test]
    fn each_evaluation_counts_once_it_was_noted() {
        let clock = ManualClock::default();
        let log = Arc::new(UsageLog::new(Arc::new(clock.clone())));
        let api = isolated::api();
        api.add_hooks([Arc::clone(&log) as Arc<dyn Hook>]);
        let memory = Memory::new().flag("a", MemoryFlag::new().variant("on", true).default_variant("on"));
        drop(api.set_provider(Arc::new(memory)).unwrap());
        let start = clock.now();
        api.client().boolean("a", false, ());
        clock.advance(SignedDuration::from_hours(1));
        api.client().boolean("a", false, ());
        api.client().boolean("gone", false, ());
        let usage = log.take();
        assert_eq!(usage.since, start);
        assert_eq!(usage.flags["a"], Used { first: start, last: clock.now() });
        assert_eq!(usage.flags["gone"], Used { first: clock.now(), last: clock.now() });
        assert_eq!(usage.until, clock.now());
        assert_eq!(log.take(), Usage { since: clock.now(), until: clock.now(), flags: BTreeMap::new() });
    }

    #[test]
    fn somebody_who_asks_again_and_again_is_heard_each_time() {
        let clock = ManualClock::default();
        let log = Arc::new(UsageLog::new(Arc::new(clock.clone())));
        let flags = r#"{"flags": {"f": {"state": {"on": true}}}}"#;
        let toggles =
            crate::Toggles::new(crate::format::flowline::Flowline::default().ruleset(flags).unwrap());
        let exposures =
            crate::life::exposure::Exposures::new(toggles, Arc::clone(&log) as Arc<dyn ExposureSink>);
        let start = clock.now();
        for _ in 0..3 {
            clock.advance(SignedDuration::from_hours(24 * 20));
            exposures.is_on("f", &crate::Context::new("service").at(clock.now()));
        }
        let first = start + SignedDuration::from_hours(24 * 20);
        assert_eq!(log.take().flags["f"], Used { first, last: clock.now() });
    }
}
