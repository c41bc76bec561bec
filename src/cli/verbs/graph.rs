//! `graph`: the steps of a plan, and what waits for what.

use std::{collections::BTreeSet, fmt::Write as _};

use flowline_core::error::BoxError;
use flowline_pipeline::{
    Plan,
    plan::{PlannedNode, StepId},
};
use serde_json::json;

use super::revision;
use crate::{
    Delivery,
    cli::{Answer, Session, args::GraphFormat, names},
};

pub(super) async fn graph(
    session: &Session,
    what: Option<&str>,
    format: GraphFormat,
    told: Option<&str>,
) -> Result<Answer, BoxError> {
    let delivery = session.delivery()?;
    let plan = plan(session, &delivery, what, told).await?;
    let text = match format {
        GraphFormat::Mermaid => plan.to_mermaid(),
        GraphFormat::Dot => plan.to_dot(),
        GraphFormat::Text => lines(&plan),
    };
    let edges: Vec<_> = plan
        .nodes()
        .iter()
        .flat_map(|node| {
            before(node).into_iter().map(move |before| json!({ "from": before, "to": node.id() }))
        })
        .collect();
    let steps: Vec<_> =
        plan.nodes().iter().map(|node| json!({ "step": node.id(), "kind": node.node.kind })).collect();
    Ok(Answer::text(text).with("name", plan.name()).with("steps", steps).with("edges", edges))
}

/// The plan of a run; or of what would be deployed, and if that is nothing, of the newest run.
async fn plan(
    session: &Session,
    delivery: &Delivery,
    what: Option<&str>,
    told: Option<&str>,
) -> Result<Plan, BoxError> {
    let environments = names::environments(delivery).await?;
    if let Some(name) = what.filter(|name| !environments.iter().any(|known| known == name)) {
        let run = names::run(delivery, name).await?;
        return Ok(delivery.run(&run).await?.plan.plan().clone());
    }
    let environment = names::lasting(delivery, what)?;
    let planned = delivery.plan(&environment, &revision(session, delivery, told)).await?;
    if planned.plan().nodes().is_empty() {
        let run = names::run(delivery, environment.as_str()).await?;
        return Ok(delivery.run(&run).await?.plan.plan().clone());
    }
    Ok(planned.plan().clone())
}

/// What a step waits for.
fn before(node: &PlannedNode) -> BTreeSet<&StepId> {
    node.node.feeds().chain(&node.node.after).collect()
}

fn lines(plan: &Plan) -> String {
    let mut text = format!("{}\n", plan.name());
    for node in plan.nodes() {
        let before: Vec<_> = before(node).into_iter().map(ToString::to_string).collect();
        let after = if before.is_empty() { String::new() } else { format!("  after {}", before.join(", ")) };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {} ({}){after}", node.id(), node.node.kind);
    }
    text
}
