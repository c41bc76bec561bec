//! The way of a change: `receive`, `preview`, `verify`, `promote`, `release`, `close`.

use std::{fs, io::Read, path::Path};

use flowline_core::{error::BoxError, verdict::Outcome};

use super::{deploy, host::Routed};
use crate::cli::answer::add;
use crate::{
    cli::{Answer, CliError, Exit, Session, names},
    delivery::Received,
};

pub(super) async fn receive(session: &Session, file: &Path) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let failed =
        |source| CliError::File { doing: "read the payload", file: file.display().to_string(), source };
    let payload = if file == Path::new("-") {
        let mut payload = Vec::new();
        std::io::stdin().lock().read_to_end(&mut payload).map_err(failed)?;
        payload
    } else {
        fs::read(file).map_err(failed)?
    };
    told(&delivery.receive(&payload).await?)
}

pub(super) async fn propose(
    session: &Session,
    number: u64,
    branch: &str,
    title: &str,
) -> Result<Answer, BoxError> {
    let title = if title.is_empty() { branch } else { title };
    told(&session.delivery()?.propose(number, branch, title).await?)
}

pub(super) async fn merged(
    session: &Session,
    change: &str,
    revision: Option<&str>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let change = names::change(&delivery, change).await?;
    let revision = revision.unwrap_or(&delivery.topology().branch).to_owned();
    told(&delivery.merged(&change, &revision).await?)
}

/// What became known of a change.
fn told(received: &Received) -> Result<Answer, BoxError> {
    let change = &received.change;
    let state = serde_json::to_value(change.state)?;
    let news = if received.news { "" } else { ", as was known" };
    let text = format!("{} is {}{news}: {}\n", change.id, state.as_str().unwrap_or_default(), change.title);
    Ok(Answer::text(text)
        .with("change", change)
        .with("news", received.news)
        .output("change", change.id.to_string()))
}

pub(super) async fn preview(session: &Session, change: &str) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let change = names::change(&delivery, change).await?;
    let routed = Routed::ensure(session, &delivery).await?;
    let preview = routed.over(delivery.preview(&change).await).await?;
    let mut text = format!("{}\n", session.paint().strong(&preview.environment));
    for (component, url) in preview.components.iter().zip(&preview.urls) {
        add!(text, "  {component}\n    {url}\n");
    }
    let url = preview.urls.first().cloned().unwrap_or_default();
    Ok(Answer::text(text).with("preview", &preview).output("url", url))
}

pub(super) async fn verify(session: &Session, environment: &str) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let environment = names::environment(&delivery, environment).await?;
    let routed = Routed::ensure(session, &delivery).await?;
    let verdict = routed.over(delivery.verify(&environment).await).await?;
    let passed = verdict.outcome == Outcome::Pass;
    let paint = session.paint();
    let word = if passed { paint.good(verdict.outcome) } else { paint.bad(verdict.outcome) };
    let mut text = format!("{environment}: {word}\n");
    for evidence in &verdict.evidence {
        add!(text, "  {}: {} ({})\n", evidence.outcome, evidence.subject, evidence.seen);
    }
    Ok(Answer::text(text).with("environment", &environment).with("verdict", &verdict).exit(if passed {
        Exit::Done
    } else {
        Exit::Failed
    }))
}

pub(super) async fn promote(
    session: &Session,
    change: &str,
    environment: Option<&str>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let change = names::change(&delivery, change).await?;
    let environment = names::lasting(&delivery, environment)?;
    let routed = Routed::ensure(session, &delivery).await?;
    let deployed = routed.over(delivery.promote(&change, &environment).await).await?;
    deploy::answer(session, &delivery, &deployed, "is at").await
}

pub(super) async fn release(
    session: &Session,
    flag: &str,
    percent: f64,
    environment: Option<&str>,
    change: Option<&str>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let flag = names::flag(&delivery, flag)?.to_owned();
    let environment = match environment {
        Some(name) => names::environment(&delivery, name).await?,
        None => names::lasting(&delivery, None)?,
    };
    let change = match change {
        Some(change) => Some(names::change(&delivery, change).await?),
        None => None,
    };
    let released = delivery.release(&flag, &environment, percent, change.as_ref()).await?;
    let text = format!("{flag} is on for {} % of its audience in {environment}\n", released.percent);
    Ok(Answer::text(text).with("released", &released))
}

pub(super) async fn close(session: &Session, change: &str) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let change = names::change(&delivery, change).await?;
    delivery.close(&change).await?;
    Ok(Answer::text(format!("the preview of {change} is gone\n")).with("closed", &change))
}
