//! A plan for people and machines: text, JSON, Markdown, Mermaid, DOT. The same plan gives the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
};

use serde_json::{Value, json};

use super::{Action, FORMAT_VERSION, Plan, PlannedNode, Sealed, Undo};

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
    let times = times(node, "; ");
    if let Some(times) = times.strip_prefix("; ") {
        writeln!(f, "      {times}")?;
    }
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

    /// The plan for a comment on a pull request, with every resource that is touched, and the digest that an approval names.
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
            let _ = writeln!(
                text,
                "| `{sign}` | `{}` | {}{}{} | {undo} |",
                node.id(),
                cell(what),
                cell(&times(node, "; ")),
                touched(node)
            );
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
        // What is denied can't be approved.
        if self.denied().is_empty()
            && let Ok(digest) = self.digest()
        {
            let _ = writeln!(text, "\nAn approval names `{digest}`.");
        }
        text
    }

    /// The graph of the steps as a Mermaid flow chart: solid edges carry outputs, dotted ones only order. A template is drawn as many.
    pub fn to_mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        for (index, node) in self.nodes().iter().enumerate() {
            let label = format!("{}<br/>{}{}", node.id(), node.node.kind, times(node, "<br/>"));
            let _ = match node.node.each {
                Some(_) => writeln!(text, "  n{index}[[\"{label}\"]]"),
                None => writeln!(text, "  n{index}[\"{label}\"]"),
            };
        }
        self.edges(|before, after, carries| {
            let arrow = if carries { "-->" } else { "-.->" };
            let _ = writeln!(text, "  n{before} {arrow} n{after}");
        });
        text
    }

    /// The graph of the steps in the DOT language of Graphviz: solid edges carry outputs, dashed ones only order. A template is drawn as
    /// many, what can't be undone in red.
    pub fn to_dot(&self) -> String {
        let mut text = format!("digraph \"{}\" {{\n  node [shape=box];\n", quoted(self.name()));
        for (index, node) in self.nodes().iter().enumerate() {
            let label = format!("{}\\n{}{}", node.id(), node.node.kind, times(node, "\\n"));
            let shape = if node.node.each.is_some() { ", shape=box3d" } else { "" };
            let color = if node.undo == Undo::Irreversible { ", color=red" } else { "" };
            let _ = writeln!(text, "  n{index} [label=\"{label}\"{shape}{color}];");
        }
        self.edges(|before, after, carries| {
            let style = if carries { "" } else { " [style=dashed]" };
            let _ = writeln!(text, "  n{before} -> n{after}{style};");
        });
        text.push_str("}\n");
        text
    }

    /// Every edge once, by the places of its ends, and whether it carries an output.
    fn edges(&self, mut edge: impl FnMut(usize, usize, bool)) {
        let place: BTreeMap<_, _> =
            self.nodes().iter().enumerate().map(|(index, node)| (node.id(), index)).collect();
        for (index, node) in self.nodes().iter().enumerate() {
            let feeds: BTreeSet<_> = node.node.feeds().collect();
            let order: BTreeSet<_> = node.node.after.iter().filter(|id| !feeds.contains(id)).collect();
            for (steps, carries) in [(feeds, true), (order, false)] {
                for before in steps.iter().filter_map(|before| place.get(before)) {
                    edge(*before, index, carries);
                }
            }
        }
    }
}

/// How often a template is repeated at most, and whether a step depends on a condition.
fn times(node: &PlannedNode, separator: &str) -> String {
    let mut text = String::new();
    if let Some(each) = &node.node.each {
        let _ = write!(text, "{separator}for each of {}, at most {}", each.over.step, each.max);
    }
    for condition in &node.node.when {
        let _ = write!(text, "{separator}when {}", condition.step);
    }
    text
}

/// Text within double quotes of DOT.
fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\r', '\n'], " ")
}

/// The resources that a step touches, for a cell of a Markdown table.
fn touched(node: &PlannedNode) -> String {
    let mut text = String::new();
    for observed in node.preview.iter().flat_map(|preview| &preview.resources) {
        let _ = write!(text, "<br>{} `{}`", observed.action.word(), observed.resource);
        if !observed.details.is_empty() {
            let _ = write!(text, ": {}", cell(&observed.details.join("; ")));
        }
    }
    text
}

/// Text for one cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\r', '\n'], " ").replace('<', "&lt;")
}
