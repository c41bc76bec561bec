//! `status`, `history`, `why`, `timeline`: what there is, and what happened.

use std::fmt::Write as _;

use flowline_core::{
    Timestamp,
    error::BoxError,
    id::{RunId, StreamId},
    name::EnvironmentName,
    store::EventQuery,
};
use flowline_pipeline::{
    report::{Outcome, RunView},
    run::Phase,
};
use serde_json::{Value, json};

use crate::{
    Delivery,
    cli::{Answer, Session, names},
    delivery::{EnvironmentRecord, kind},
};

pub(super) async fn status(session: &Session, environment: Option<&str>) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let only = match environment {
        Some(name) => Some(names::environment(&delivery, name).await?),
        None => None,
    };
    let paint = session.paint();
    let mut text = String::new();
    let mut list = Vec::new();
    let shown = names::environments(&delivery).await?;
    for name in shown.iter().filter(|name| only.as_ref().is_none_or(|only| only.as_str() == *name)) {
        let name: EnvironmentName = name.parse()?;
        let record = delivery.environment(&name).await?;
        let (line, value) = standing(&delivery, &name, record.as_ref()).await?;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}  {line}", paint.strong(&name));
        for url in value["urls"].as_array().into_iter().flatten() {
            let part = |name: &str| url[name].as_str().unwrap_or_default().to_owned();
            let _ = writeln!(text, "  {}  {}  {}", part("component"), part("url"), paint.soft(part("runs")));
        }
        list.push(value);
    }
    let waiting = waiting(&delivery).await?;
    for run in &waiting {
        let _ = writeln!(
            text,
            "run {} is {}: {} of {} steps are done; `{} why {}` says more",
            run.run,
            run.outcome().name(),
            run.state.done(),
            run.steps.len(),
            session.program(),
            run.run
        );
    }
    let served = delivery.is_served().await?;
    let address = delivery.serve_status().await?.filter(|_| served).map(|status| status.address.to_string());
    let router = match &address {
        Some(address) => format!("the router listens at http://{address}/"),
        None => format!("nobody serves this host; `{} serve` does", session.program()),
    };
    let _ = writeln!(text, "{router}");
    let unfinished: Vec<_> = waiting
        .iter()
        .map(|run| json!({ "run": run.run, "plan": run.plan.plan().name(), "outcome": run.outcome().name() }))
        .collect();
    Ok(Answer::text(text).with("environments", list).with("unfinished", unfinished).with("router", address))
}

/// One environment in a line, and as data.
async fn standing(
    delivery: &Delivery,
    name: &EnvironmentName,
    record: Option<&EnvironmentRecord>,
) -> Result<(String, Value), BoxError> {
    let deployment = record.and_then(EnvironmentRecord::deployment);
    let mut line = match deployment {
        Some(deployment) => format!(
            "{}  deployment {}, commit {}, since {}",
            deployment.release.version(),
            deployment.generation,
            deployment.commit.short(),
            moment(deployment.time)
        ),
        None => "nothing is deployed".to_owned(),
    };
    let (change, expires) = record.map_or((None, None), |record| (record.change.as_ref(), record.expires));
    if let Some(change) = change {
        let _ = write!(line, ", for {change}");
    }
    if let Some(expires) = expires {
        let _ = write!(line, ", until {}", moment(expires));
    }
    let mut urls = Vec::new();
    for component in delivery.topology().components.keys() {
        let own = record.and_then(|record| record.running.get(component));
        let runs = match (own, record.and_then(|record| record.base.as_ref())) {
            (Some(own), _) => own.artifact.version.to_string(),
            (None, Some(base)) => format!("falls through to {base}"),
            (None, None) => "nothing".to_owned(),
        };
        urls.push(json!({ "component": component, "url": names::url(delivery, name, component).await?, "runs": runs }));
    }
    let value = json!({
        "name": name,
        "version": deployment.map(|deployment| deployment.release.version().to_string()),
        "deployment": deployment,
        "change": change,
        "base": record.and_then(|record| record.base.as_ref()),
        "expires": expires,
        "urls": urls,
    });
    Ok((line, value))
}

/// Runs that are not at their end.
async fn waiting(delivery: &Delivery) -> Result<Vec<RunView>, BoxError> {
    let mut found = Vec::new();
    for run in delivery.runs().await? {
        let view = RunView::read(delivery.store(), None, &run).await?;
        if matches!(view.outcome(), Outcome::Unfinished | Outcome::UndoIncomplete) {
            found.push(view);
        }
    }
    Ok(found)
}

pub(super) async fn history(
    session: &Session,
    environment: Option<&str>,
    limit: usize,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let names = if let Some(name) = environment {
        vec![names::environment(&delivery, name).await?]
    } else {
        let known = names::environments(&delivery).await?;
        known.iter().map(|name| name.parse()).collect::<Result<_, _>>()?
    };
    let paint = session.paint();
    let mut text = String::new();
    let mut list = Vec::new();
    for name in &names {
        let mut entries = entries(&delivery, name).await?;
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.time));
        entries.truncate(limit);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", paint.strong(name));
        if entries.is_empty() {
            let _ = writeln!(text, "  nothing was deployed yet");
        }
        for entry in &entries {
            let number = entry.generation.map_or_else(|| "  -".to_owned(), |number| format!("{number:>3}"));
            let version = entry.version.clone().unwrap_or_else(|| "-".to_owned());
            let what = match entry.what {
                "stopped" => paint.bad(entry.what).to_string(),
                "rolled back" => paint.tone(crate::cli::paint::Tone::Warn, entry.what).to_string(),
                _ => paint.good(entry.what).to_string(),
            };
            let change = entry.change.as_ref().map(|change| format!("  {change}")).unwrap_or_default();
            let _ = writeln!(
                text,
                "  {number}  {version:<8}  {}  {what}  {}{change}  {}",
                entry.commit,
                moment(entry.time),
                paint.soft(&entry.run)
            );
            if let Some(reason) = &entry.reason {
                let _ = writeln!(text, "       {}", paint.soft(reason));
            }
        }
        list.push(json!({ "environment": name, "deployments": entries.iter().map(Entry::json).collect::<Vec<_>>() }));
    }
    Ok(Answer::text(text).with("environments", list))
}

/// One line of a history.
struct Entry {
    generation: Option<u64>,
    version: Option<String>,
    commit: String,
    change: Option<String>,
    what: &'static str,
    time: Timestamp,
    run: String,
    reason: Option<String>,
}

impl Entry {
    fn json(&self) -> Value {
        json!({
            "deployment": self.generation,
            "version": self.version,
            "commit": self.commit,
            "change": self.change,
            "outcome": self.what,
            "time": self.time,
            "run": self.run,
            "reason": self.reason,
        })
    }
}

async fn entries(delivery: &Delivery, name: &EnvironmentName) -> Result<Vec<Entry>, BoxError> {
    let record = delivery.environment(name).await?;
    let mut entries: Vec<Entry> = record
        .iter()
        .flat_map(|record| &record.history)
        .map(|deployment| Entry {
            generation: Some(deployment.generation),
            version: Some(deployment.release.version().to_string()),
            commit: deployment.commit.short().to_owned(),
            change: deployment.change.as_ref().map(ToString::to_string),
            what: if deployment.rollback { "rolled back" } else { "deployed" },
            time: deployment.time,
            run: deployment.run.to_string(),
            reason: None,
        })
        .collect();
    let stream = StreamId::new(format!("environment/{name}"))?;
    for recorded in delivery.store().events(EventQuery::of(stream)).await? {
        let event = recorded.event;
        if event.kind != kind::STOPPED {
            continue;
        }
        let part = |name: &str| event.data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        entries.push(Entry {
            generation: None,
            version: None,
            commit: part("commit").chars().take(7).collect(),
            change: None,
            what: "stopped",
            time: event.time,
            run: part("run"),
            reason: Some(part("reason")),
        });
    }
    Ok(entries)
}

pub(super) async fn why(session: &Session, subject: &str) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let stream = names::subject(&delivery, subject).await?;
    let lines = delivery.why(&stream).await?;
    if lines.is_empty() {
        let known = names::environments(&delivery).await?;
        return Err(names::unknown("recorded fact about", &stream, &known).into());
    }
    let events = delivery.store().events(EventQuery::of(StreamId::new(&*stream)?)).await?;
    let events: Vec<_> = events.into_iter().map(|recorded| recorded.event).collect();
    if let Some(run) = stream.strip_prefix("run/").and_then(|run| RunId::new(run).ok()) {
        let view = delivery.run(&run).await?;
        return Ok(Answer::text(reasons(&view)).with("subject", stream).with("events", events));
    }
    Ok(Answer::text(lines.join("\n") + "\n").with("subject", stream).with("events", events))
}

/// Why each step of a run stands where it does.
fn reasons(view: &RunView) -> String {
    let mut text = format!(
        "run {} by {}, {}: {}, {} of {} steps are done\n",
        view.run,
        view.actor,
        view.plan.plan().name(),
        view.outcome().name(),
        view.state.done(),
        view.steps.len()
    );
    if let Some((_, cause)) = &view.undoing {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "it was undone: {cause}");
    }
    for step in &view.steps {
        let failed = step.attempts.iter().rev().find_map(|attempt| attempt.error.as_deref());
        let reason = match (&step.phase, failed) {
            (Phase::Finished { .. }, _) if step.skipped.is_some() => {
                format!("not run, {}", step.skipped.as_deref().unwrap_or_default())
            }
            (Phase::Finished { why, .. }, None) => format!("done, {why}"),
            (Phase::Finished { why, .. }, Some(error)) => format!("done, {why}; before, {error}"),
            (Phase::Undone, Some(error)) => format!("failed, {error}"),
            (Phase::Failed { error, .. }, _) => format!("failed, {error}"),
            (Phase::Undone, None) => "undone".to_owned(),
            (Phase::UndoFailed { error, .. }, _) => format!("could not be undone, {error}"),
            (Phase::Started, _) => "started, and nothing more is known".to_owned(),
            (Phase::Waiting, _) => "not started".to_owned(),
        };
        let _ = writeln!(text, "  {}: {reason}", step.planned.id());
    }
    text
}

pub(super) async fn timeline(session: &Session, change: &str) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let change = names::change(&delivery, change).await?;
    let timeline = delivery.timeline(&change).await?;
    let value = timeline.time_to_value().map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    Ok(Answer::text(format!("{timeline}\n")).with("timeline", &timeline).with("time_to_value_ms", value))
}

/// `2026-07-01 12:00:00`, in UTC, to the second.
pub(super) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    text.split(['.', 'Z']).next().unwrap_or_default().replace('T', " ")
}
