//! A plan for people and machines: text, JSON, Markdown, Mermaid. The same plan gives the same bytes.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::{Action, FORMAT_VERSION, Inputs, Plan, PlannedNode, Sealed, Undo};

impl fmt::Display for Plan {
    /// What changes, what stays, what can't be undone and what is denied, one line for each step.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", headline(self))?;
        for node in self.nodes() {
            step_line(f, node)?;
        }
        let irreversible: Vec<_> = self.irreversible().map(|node| format!("`{}`", node.id())).collect();
        if !irreversible.is_empty() {
            writeln!(f, "cannot be undone: {}", irreversible.join(", "))?;
        }
        if !self.denied().is_empty() {
            writeln!(f, "denied:")?;
            for denial in self.denied() {
                writeln!(f, "  x {} by rule `{}`: {}", denial.step, denial.rule, denial.reason)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Sealed<Plan> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}sealed as {}", self.plan(), self.digest())
    }
}

fn headline(plan: &Plan) -> String {
    let count = |action: fn(Action) -> bool| plan.nodes().iter().filter(|node| action(node.action())).count();
    let (change, keep) = (count(|action| action > Action::Run), count(|action| action == Action::Keep));
    let mut parts = Vec::new();
    for (number, what) in [
        (change, "to change"),
        (count(|action| action == Action::Run), "to run"),
        (keep, "unchanged"),
        (plan.irreversible().count(), "irreversible"),
        (plan.denied().len(), "denied"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    let what = if parts.is_empty() { "nothing to do".to_owned() } else { parts.join(", ") };
    format!("plan `{}` for `{}`: {what}", plan.name(), plan.app())
}

fn step_line(f: &mut fmt::Formatter<'_>, node: &PlannedNode) -> fmt::Result {
    let Some(preview) = &node.preview else {
        return writeln!(f, "  x {} ({}): denied", node.id(), node.node.kind);
    };
    let undo = match node.undo {
        Undo::Irreversible => " (cannot be undone)",
        Undo::None | Undo::Compensate => "",
    };
    writeln!(
        f,
        "  {} {} ({}, {}): {}{undo}",
        preview.action.sign(),
        node.id(),
        node.node.kind,
        node.effect.name(),
        preview.summary
    )?;
    for observed in &preview.resources {
        writeln!(f, "      {} {} {}", observed.action.sign(), observed.action.word(), observed.resource)?;
        for detail in &observed.details {
            writeln!(f, "          {detail}")?;
        }
    }
    Ok(())
}

impl Plan {
    /// The plan for machines. `format_version` counts incompatible changes; `changes` is what an exit code of 2 says.
    ///
    /// # Errors
    /// If JSON can't express it.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        Ok(json!({
            "format_version": FORMAT_VERSION,
            "changes": self.has_changes(),
            "applyable": self.denied().is_empty(),
            "plan": serde_json::to_value(&self.data)?,
        }))
    }

    /// The plan for a comment on a pull request.
    pub fn to_markdown(&self) -> String {
        let mut text =
            format!("### {}\n\n| | step | what | undo |\n| --- | --- | --- | --- |\n", headline(self));
        for node in self.nodes() {
            let (sign, what) = match &node.preview {
                Some(preview) => (preview.action.sign(), preview.summary.as_str()),
                None => ("x", "**denied**"),
            };
            let undo = match node.undo {
                Undo::None => "nothing to undo",
                Undo::Compensate => "yes",
                Undo::Irreversible => "**no**",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| `{sign}` | `{}` | {} | {undo} |", node.id(), cell(what));
        }
        for denial in self.denied() {
            let _ = writeln!(
                text,
                "\n> `{}` is **denied** by rule `{}`: {}",
                denial.step,
                denial.rule,
                cell(&denial.reason)
            );
        }
        text
    }

    /// The graph of the steps as a Mermaid flow chart: solid edges carry outputs, dotted ones only order.
    pub fn to_mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        let place: std::collections::BTreeMap<_, _> =
            self.nodes().iter().enumerate().map(|(index, node)| (node.id(), index)).collect();
        for (index, node) in self.nodes().iter().enumerate() {
            let _ = writeln!(text, "  n{index}[\"{}<br/>{}\"]", node.id(), node.node.kind);
        }
        for (index, node) in self.nodes().iter().enumerate() {
            for (inputs, arrow) in [(true, "-->"), (false, "-.->")] {
                let before: std::collections::BTreeSet<_> = if inputs {
                    Inputs::steps(&node.node.inputs).collect()
                } else {
                    node.node.after.iter().collect()
                };
                for before in before {
                    if let Some(before) = place.get(before) {
                        let _ = writeln!(text, "  n{before} {arrow} n{index}");
                    }
                }
            }
        }
        text
    }
}

/// Text for one cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\r', '\n'], " ").replace('<', "&lt;")
}
