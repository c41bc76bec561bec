//! A change's way, read from the journal: when it was opened, previewed, verified, merged, deployed, and when people had it.

use std::fmt;

use flowline_core::{
    SignedDuration, Timestamp,
    event::{Event, Recorded},
    id::ChangeId,
};
use serde::{Deserialize, Serialize};

/// The kinds of events that a change's stream holds. CDEvents' word where it has one.
pub mod kind {
    /// A pull request was opened.
    pub const OPENED: &str = "change.created";
    /// Its preview answers.
    pub const PREVIEWED: &str = "environment.created";
    /// A verification was judged.
    pub const VERIFIED: &str = "testsuiterun.finished";
    /// It was merged.
    pub const MERGED: &str = "change.merged";
    /// It was closed without a merge.
    pub const ABANDONED: &str = "change.abandoned";
    /// Its release serves an environment's users.
    pub const DEPLOYED: &str = "service.deployed";
    /// An earlier release serves an environment's users again.
    pub const ROLLED_BACK: &str = "service.rolledback";
    /// The first user was given its feature.
    pub const FIRST_USER: &str = "feature.exposed";
    /// Every user is given its feature.
    pub const ALL_USERS: &str = "feature.released";
    /// Its preview is gone.
    pub const REMOVED: &str = "environment.deleted";
    /// A deployment was stopped.
    pub const STOPPED: &str = "deployment.stopped";
}

/// A change's way so far, in the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The change.
    pub change: ChangeId,
    /// Each milestone, the first time that it was reached.
    pub milestones: Vec<Milestone>,
}

/// One thing that a change reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// What, for people: `opened`, `deployed to production`.
    pub what: String,
    /// When.
    pub time: Timestamp,
    /// The event's kind.
    pub kind: String,
}

impl Timeline {
    /// The timeline of `change`, from the events of its stream in order.
    pub fn of(change: ChangeId, events: &[Recorded]) -> Self {
        let mut milestones: Vec<Milestone> = Vec::new();
        for Recorded { event, .. } in events {
            let environment =
                event.data.get("environment").and_then(|name| name.as_str()).unwrap_or_default();
            let what = match event.kind.as_str() {
                kind::OPENED => "opened".to_owned(),
                kind::PREVIEWED => "previewed".to_owned(),
                kind::VERIFIED => {
                    let outcome =
                        event.data.get("outcome").and_then(|name| name.as_str()).unwrap_or_default();
                    format!("verified in {environment}: {outcome}")
                }
                kind::MERGED => "merged".to_owned(),
                kind::ABANDONED => "closed without a merge".to_owned(),
                kind::DEPLOYED => format!("deployed to {environment}"),
                kind::ROLLED_BACK => format!("rolled back in {environment}"),
                kind::FIRST_USER => "first user".to_owned(),
                kind::ALL_USERS => "all users".to_owned(),
                kind::REMOVED => "preview gone".to_owned(),
                kind::STOPPED => format!("stopped on its way to {environment}"),
                _ => continue,
            };
            if milestones.iter().all(|milestone| milestone.what != what) {
                milestones.push(Milestone { what, time: event.time, kind: event.kind.clone() });
            }
        }
        Self { change, milestones }
    }

    /// How long it took from opening the change until every user had it; `None` as long as they don't.
    ///
    /// Value counts when users experience it: this, not the deployment, is the end of the way.
    pub fn time_to_value(&self) -> Option<SignedDuration> {
        let at = |kind: &str| {
            self.milestones.iter().find(|milestone| milestone.kind == kind).map(|found| found.time)
        };
        Some(at(kind::ALL_USERS)?.duration_since(at(kind::OPENED)?))
    }
}

/// One event as a line for people: when, what, to what, by whom, and the reasons and numbers that were recorded with it.
pub(super) fn line(event: &Event) -> String {
    let mut line = format!("{}  {}  {}  by {}", event.time, event.kind, event.subject, event.actor);
    if let Some(data) = event.data.as_object() {
        for (name, value) in data {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Object(_) | serde_json::Value::Array(_) => continue,
                other => other.to_string(),
            };
            for part in ["  ", name, "=", &text] {
                line.push_str(part);
            }
        }
    }
    line
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.change)?;
        let Some(first) = self.milestones.first() else { return write!(f, ": nothing happened yet") };
        for milestone in &self.milestones {
            let after = milestone.time.duration_since(first.time).as_millis();
            #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
            let seconds = after as f64 / 1000.0;
            write!(f, "\n  {seconds:>8.2} s  {}", milestone.what)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::{
        event::Event,
        id::{EventId, StreamId},
        store::Position,
    };

    use super::*;

    #[test]
    fn a_way_reads_from_opened_to_all_users() {
        let event = |n: i64, kind: &str, data: serde_json::Value| Recorded {
            position: Position(n.unsigned_abs()),
            stream: StreamId::new("change/pr-1").unwrap(),
            sequence: n.unsigned_abs(),
            event: Event::new(
                EventId::new(format!("e{n}")).unwrap(),
                kind,
                Timestamp::from_second(1_000 + n * 10).unwrap(),
                "ada",
                "change/pr-1",
            )
            .with_data(data),
        };
        let production = serde_json::json!({ "environment": "production", "outcome": "pass" });
        let events = [
            event(0, kind::OPENED, serde_json::Value::Null),
            event(1, kind::PREVIEWED, serde_json::Value::Null),
            event(2, kind::VERIFIED, production.clone()),
            event(3, "weather.changed", serde_json::Value::Null),
            event(4, kind::DEPLOYED, production.clone()),
            event(5, kind::DEPLOYED, production),
            event(6, kind::FIRST_USER, serde_json::Value::Null),
        ];
        let change: ChangeId = "pr-1".parse().unwrap();
        let timeline = Timeline::of(change.clone(), &events);
        assert_eq!(timeline.time_to_value(), None);
        insta::assert_snapshot!(timeline, @r"
        pr-1
              0.00 s  opened
             10.00 s  previewed
             20.00 s  verified in production: pass
             40.00 s  deployed to production
             60.00 s  first user
        ");
        let mut events = events.to_vec();
        events.push(event(9, kind::ALL_USERS, serde_json::Value::Null));
        assert_eq!(Timeline::of(change, &events).time_to_value(), Some(SignedDuration::from_secs(90)));
    }
}
