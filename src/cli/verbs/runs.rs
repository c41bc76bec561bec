//! `logs`, `report`: a run afterwards. `approve`, `resolve`, `signal`: one that waits.

use std::{fmt::Write as _, fs, path::Path};

use flowline_core::{SignedDuration, digest::Digest, error::BoxError, name::Person};
use flowline_pipeline::{exec::Stream, run::Resolution};
use serde_json::{Value, json};

use crate::cli::{Answer, CliError, Exit, Session, names};

pub(super) async fn logs(
    session: &Session,
    run: &str,
    step: Option<&str>,
    times: bool,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let run = names::run(&delivery, run).await?;
    let view = delivery.run(&run).await?;
    let only = match step {
        Some(step) => Some(names::step(view.steps.iter().map(|step| step.planned.id().clone()), step)?),
        None => None,
    };
    let paint = session.paint();
    let mut text = String::new();
    let mut list = Vec::new();
    for step in view.steps.iter().filter(|step| only.as_ref().is_none_or(|only| only == step.planned.id())) {
        let mut lines = Vec::new();
        let mut expected = 1;
        for kept in &step.log.lines {
            // Writing to a String cannot fail.
            if kept.number > expected {
                let missing = format!("({} lines are not kept)", kept.number - expected);
                let _ = writeln!(text, "{}", paint.soft(missing));
            }
            expected = kept.number + 1;
            let line = kept.line.text();
            if only.is_none() {
                let _ = write!(text, "{} | ", paint.strong(step.planned.id()));
            }
            if times {
                let _ = write!(text, "{} ", paint.soft(kept.time));
            }
            let _ = writeln!(text, "{}", printable(&line));
            let stream = if kept.line.stream == Stream::Out { "out" } else { "err" };
            lines.push(json!({
                "number": kept.number, "time": kept.time, "attempt": kept.attempt, "stream": stream, "text": line, "cut": kept.line.cut,
            }));
        }
        list.push(json!({ "step": step.planned.id(), "lines": lines, "left_out": step.log.left_out }));
    }
    if text.is_empty() {
        text = format!("run {run}: its steps printed nothing\n");
    }
    Ok(Answer::text(text).with("run", &run).with("steps", list))
}

/// What a program printed must not move the reader's cursor; colours are let through.
fn printable(line: &str) -> String {
    let mut last = ' ';
    line.chars()
        .map(|c| {
            let colour = c == '\x1b' || (last == '\x1b' && c == '[');
            last = c;
            if c.is_control() && c != '\t' && !colour { '\u{fffd}' } else { c }
        })
        .collect()
}

pub(super) async fn report(session: &Session, run: &str, out: Option<&Path>) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let run = names::run(&delivery, run).await?;
    let page = delivery.run(&run).await?.to_html();
    match out {
        None => Ok(Answer::text(page.clone()).with("run", &run).with("html", page)),
        Some(path) => {
            fs::write(path, &page).map_err(|source| CliError::File {
                doing: "write the report to",
                file: path.display().to_string(),
                source,
            })?;
            let text = format!("wrote {}\n", path.display());
            Ok(Answer::text(text).with("run", &run).with("file", path))
        }
    }
}

pub(super) async fn approve(
    session: &Session,
    run: &str,
    step: Option<&str>,
    by: Option<&str>,
    valid: SignedDuration,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let run = names::run(&delivery, run).await?;
    let step = match step {
        Some(step) => {
            let view = delivery.run(&run).await?;
            Some(names::step(view.steps.iter().map(|step| step.planned.id().clone()), step)?)
        }
        None => None,
    };
    let by = Person::new(by.unwrap_or(delivery.actor()))?;
    let gates = delivery.approve(&run, step.as_ref(), &by, valid).await?;
    let plan = delivery.run(&run).await?.plan.digest();
    let counted: Vec<_> =
        gates.iter().filter(|gate| gate.counted).map(|gate| format!("`{}`", gate.step)).collect();
    let mut text = format!("{by} approved plan {} at {} of run {run}", plan.short(), counted.join(", "));
    let missing: Vec<_> =
        gates.iter().filter_map(|gate| Some(format!("`{}` {}", gate.step, gate.missing.as_ref()?))).collect();
    let exit = if missing.is_empty() {
        text.push_str("; it goes on when it is applied again\n");
        Exit::Done
    } else {
        let _ = writeln!(text, "; it waits still: {}", missing.join("; "));
        Exit::Later
    };
    Ok(Answer::text(text)
        .with("run", &run)
        .with("plan", plan)
        .with("by", &by)
        .with("gates", &gates)
        .with("open", missing.is_empty())
        .exit(exit))
}

/// `happened` is what the step gave, if it took effect.
pub(super) async fn resolve(
    session: &Session,
    run: &str,
    step: &str,
    happened: Option<Value>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let run = names::run(&delivery, run).await?;
    let view = delivery.run(&run).await?;
    let known = view.state.steps().map(|(step, _)| step.clone());
    let step = names::step(known.chain(view.steps.iter().map(|step| step.planned.id().clone())), step)?;
    let word = if happened.is_some() { "happened" } else { "did not happen" };
    let resolution = happened.clone().map_or(Resolution::DidNotHappen, Resolution::Happened);
    delivery.resolve(&run, &step, resolution).await?;
    let text = format!("`{step}` of run {run} {word}; it goes on when it is applied again\n");
    Ok(Answer::text(text)
        .with("run", &run)
        .with("step", &step)
        .with("happened", happened.is_some())
        .with("output", happened))
}

pub(super) async fn signal(
    session: &Session,
    run: &str,
    value: Value,
    step: Option<&str>,
    id: Option<&str>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let run = names::run(&delivery, run).await?;
    let step = match step {
        Some(step) => {
            let view = delivery.run(&run).await?;
            Some(names::step(view.steps.iter().map(|step| step.planned.id().clone()), step)?)
        }
        None => None,
    };
    let id = id.map_or_else(|| Digest::of(value.to_string()).short(), str::to_owned);
    let steps = delivery.signal(&run, step.as_ref(), &id, value.clone()).await?;
    let told: Vec<_> = steps.iter().map(|step| format!("`{step}`")).collect();
    let text = format!(
        "{} of run {run} was told; it goes on when whoever started it calls again\n",
        told.join(", ")
    );
    Ok(Answer::text(text).with("run", &run).with("steps", &steps).with("id", id).with("value", value))
}
