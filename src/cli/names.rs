//! What somebody means by a name: exactly that, or an error that says what is near and what there is.

use flowline_core::{
    diagnostic::suggestion,
    error::BoxError,
    id::{ChangeId, RunId},
    name::{ComponentName, EnvironmentName},
};
use flowline_pipeline::plan::{Sealed, StepId};

use super::CliError;
use crate::Delivery;

/// At most so many names are listed.
const LISTED: usize = 12;

/// The name among `known` that `text` is.
fn one_of<'a>(what: &'static str, text: &str, known: &'a [String]) -> Result<&'a str, CliError> {
    if let Some(found) = known.iter().find(|name| *name == text) {
        return Ok(found);
    }
    Err(unknown(what, text, known))
}

/// There is no such thing; what is near, or what there is.
pub(super) fn unknown(what: &'static str, text: &str, known: &[String]) -> CliError {
    let near = suggestion(text, known.iter().map(String::as_str));
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("there is no {what} yet"),
        None => {
            let mut list: Vec<_> = known.iter().take(LISTED).map(|name| format!("`{name}`")).collect();
            if known.len() > LISTED {
                list.push(format!("and {} more", known.len() - LISTED));
            }
            format!("there is {}", list.join(", "))
        }
    };
    CliError::Unknown { what, name: text.to_owned(), help, near: near.map(str::to_owned) }
}

/// An environment that stays; the base one, if none is named.
pub(super) fn lasting(delivery: &Delivery, text: Option<&str>) -> Result<EnvironmentName, BoxError> {
    let known: Vec<String> = delivery.topology().environments.keys().map(ToString::to_string).collect();
    match (text, delivery.topology().base()) {
        (Some(text), _) => Ok(one_of("environment that stays", text, &known)?.parse()?),
        (None, Some(base)) if known.len() == 1 => Ok(base.clone()),
        (None, _) => Err(CliError::Usage {
            problem: "say which environment".to_owned(),
            help: format!("there is {}", known.join(", ")),
        }
        .into()),
    }
}

/// Any environment that is there or could be: those that stay, and previews.
pub(super) async fn environment(delivery: &Delivery, text: &str) -> Result<EnvironmentName, BoxError> {
    let known = environments(delivery).await?;
    Ok(one_of("environment", text, &known)?.parse()?)
}

pub(super) async fn environments(delivery: &Delivery) -> Result<Vec<String>, BoxError> {
    let mut known: Vec<String> = delivery.topology().environments.keys().map(ToString::to_string).collect();
    for record in delivery.environments().await? {
        let name = record.name.to_string();
        if !known.contains(&name) {
            known.push(name);
        }
    }
    Ok(known)
}

/// A change that was told of.
pub(super) async fn change(delivery: &Delivery, text: &str) -> Result<ChangeId, BoxError> {
    let known = changes(delivery).await?;
    Ok(one_of("change", text, &known)?.parse()?)
}

async fn changes(delivery: &Delivery) -> Result<Vec<String>, BoxError> {
    let found = delivery.store().list("change/").await?;
    Ok(found.iter().filter_map(|(key, _)| key.as_str().strip_prefix("change/").map(str::to_owned)).collect())
}

/// A flag of the topology.
pub(super) fn flag<'a>(delivery: &'a Delivery, text: &str) -> Result<&'a str, CliError> {
    let flags = &delivery.topology().flags;
    match flags.keys().find(|key| key.as_str() == text) {
        Some(key) => Ok(key.as_str()),
        None => Err(unknown("flag", text, &flags.keys().map(ToString::to_string).collect::<Vec<_>>())),
    }
}

/// A run: by its id, by the only beginning of one, by an environment, whose newest run is meant, or by an environment's deployment:
/// `production/3`.
pub(super) async fn run(delivery: &Delivery, text: &str) -> Result<RunId, BoxError> {
    let runs = delivery.runs().await?;
    if let Some(found) = runs.iter().find(|run| run.as_str() == text) {
        return Ok(found.clone());
    }
    if let Some((name, number)) = text.split_once('/') {
        return numbered(delivery, &environment(delivery, name).await?, number).await;
    }
    let starting: Vec<_> = runs.iter().filter(|run| run.as_str().starts_with(text)).collect();
    match starting.as_slice() {
        [] => {}
        [only] => return Ok((*only).clone()),
        several => {
            let several: Vec<_> = several.iter().take(LISTED).map(|run| format!("`{run}`")).collect();
            return Err(CliError::Usage {
                problem: format!("`{text}` is the beginning of several runs"),
                help: format!("write more of one of {}", several.join(", ")),
            }
            .into());
        }
    }
    if environments(delivery).await?.iter().any(|name| name == text) {
        return newest(delivery, &text.parse()?).await;
    }
    // The newest runs are the likeliest; an environment's name will do as well.
    let mut known = environments(delivery).await?;
    known.extend(runs.iter().rev().map(ToString::to_string));
    Err(unknown("run", text, &known).into())
}

/// Where a component is found: with the router's port, if somebody serves.
pub(super) async fn url(
    delivery: &Delivery,
    environment: &EnvironmentName,
    component: &ComponentName,
) -> Result<String, BoxError> {
    if delivery.is_served().await? {
        return Ok(delivery.url(environment, component).await?);
    }
    Ok(delivery.topology().address_in(environment, component)?.to_string())
}

/// The run of a deployment, by its number.
async fn numbered(delivery: &Delivery, environment: &EnvironmentName, text: &str) -> Result<RunId, BoxError> {
    let record = delivery.environment(environment).await?;
    let history = record.map(|record| record.history).unwrap_or_default();
    let found = history.iter().find(|deployment| deployment.generation.to_string() == text);
    found.map(|deployment| deployment.run.clone()).ok_or_else(|| {
        let known: Vec<_> =
            history.iter().rev().map(|deployment| deployment.generation.to_string()).collect();
        unknown("deployment", text, &known).into()
    })
}

/// The newest run that an environment's stream names: one that deployed, or one that was stopped.
async fn newest(delivery: &Delivery, environment: &EnvironmentName) -> Result<RunId, BoxError> {
    let plans = delivery.store().list("run/").await?;
    let mut newest: Option<(flowline_core::Timestamp, RunId)> = None;
    for (key, document) in plans {
        let Some(name) = key.as_str().strip_prefix("run/").and_then(|key| key.strip_suffix("/plan")) else {
            continue;
        };
        let named = Sealed::name_in(&document.value);
        let of = named.as_deref().and_then(|name| name.rsplit(' ').next());
        let Ok(run) = RunId::new(name) else { continue };
        if of != Some(environment.as_str()) {
            continue;
        }
        let stream = flowline_core::id::StreamId::new(format!("run/{run}"))?;
        let events = delivery.store().events(flowline_core::store::EventQuery::of(stream).at_most(1)).await?;
        if let Some(first) = events.first()
            && newest.as_ref().is_none_or(|(time, _)| first.event.time >= *time)
        {
            newest = Some((first.event.time, run));
        }
    }
    newest.map(|(_, run)| run).ok_or_else(|| {
        CliError::Unknown {
            what: "run in environment",
            name: environment.to_string(),
            help: "deploy to it first".to_owned(),
            near: None,
        }
        .into()
    })
}

/// A step of a run.
pub(super) fn step(steps: impl IntoIterator<Item = StepId>, text: &str) -> Result<StepId, BoxError> {
    let known: Vec<String> = steps.into_iter().map(|step| step.to_string()).collect();
    Ok(one_of("step", text, &known)?.parse()?)
}

/// What `why` is asked about: a stream's name, or what somebody calls a change, an environment or a run.
pub(super) async fn subject(delivery: &Delivery, text: &str) -> Result<String, BoxError> {
    if text.contains('/') {
        return Ok(text.to_owned());
    }
    let environments = environments(delivery).await?;
    let changes = changes(delivery).await?;
    let runs: Vec<String> = delivery.runs().await?.iter().map(ToString::to_string).collect();
    // A preview is called like its change, which knows more.
    for (kind, known) in [("change", &changes), ("environment", &environments), ("run", &runs)] {
        if known.iter().any(|name| name == text) {
            return Ok(format!("{kind}/{text}"));
        }
    }
    let known: Vec<String> = changes.into_iter().chain(environments).chain(runs).collect();
    Err(unknown("change, environment or run", text, &known).into())
}
