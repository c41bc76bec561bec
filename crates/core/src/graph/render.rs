//! A graph as text for people's tools: DOT (Graphviz) and Mermaid. The same graph gives the same bytes.

use std::fmt::{Display, Write as _};

use super::{Graph, Node};

impl<K: Display, N> Graph<K, N> {
    /// The graph in the DOT language, nodes shown by their keys.
    pub fn to_dot(&self) -> String {
        self.to_dot_with(|node| node.key.to_string())
    }

    /// The graph as a Mermaid flow chart, nodes shown by their keys.
    pub fn to_mermaid(&self) -> String {
        self.to_mermaid_with(|node| node.key.to_string())
    }
}

impl<K, N> Graph<K, N> {
    /// The graph in the DOT language, each node shown as `label` says.
    pub fn to_dot_with(&self, label: impl Fn(Node<'_, K, N>) -> String) -> String {
        let mut text = "digraph {\n  rankdir=LR;\n".to_owned();
        // Writing to a String cannot fail.
        for (place, node) in self.nodes().enumerate() {
            let _ = writeln!(text, "  n{place} [label=\"{}\"];", dot(&label(node)));
        }
        for (before, after) in self.edge_places() {
            let _ = writeln!(text, "  n{before} -> n{after};");
        }
        text.push_str("}\n");
        text
    }

    /// The graph as a Mermaid flow chart, each node shown as `label` says.
    pub fn to_mermaid_with(&self, label: impl Fn(Node<'_, K, N>) -> String) -> String {
        let mut text = "flowchart LR\n".to_owned();
        for (place, node) in self.nodes().enumerate() {
            let _ = writeln!(text, "  n{place}[\"{}\"]", mermaid(&label(node)));
        }
        for (before, after) in self.edge_places() {
            let _ = writeln!(text, "  n{before} --> n{after}");
        }
        text
    }

    fn edge_places(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len()).flat_map(|before| {
            self.next(before, petgraph::Direction::Outgoing).map(move |after| (before, after))
        })
    }
}

fn dot(label: &str) -> String {
    label.chars().fold(String::new(), |mut text, character| {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            '\n' => text.push_str("\\n"),
            _ if character.is_control() => text.push(' '),
            _ => text.push(character),
        }
        text
    })
}

/// Everything that Mermaid or HTML could read as markup becomes an entity code, as Mermaid writes them.
fn mermaid(label: &str) -> String {
    label.chars().fold(String::new(), |mut text, character| {
        match character {
            '"' | '\\' | '#' | '<' | '>' | '&' | '`' | ';' => {
                let _ = write!(text, "#{};", u32::from(character));
            }
            '\n' => text.push_str("<br>"),
            _ if character.is_control() => text.push(' '),
            _ => text.push(character),
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_stable_and_labels_cannot_break_out() {
        let graph = Graph::builder()
            .node("web", "a \"quoted\"\nlabel; <b>#1</b>")
            .node("api", "\\")
            .node("db", "")
            .edge("db", "api")
            .edge("api", "web")
            .edge("db", "web")
            .finish()
            .unwrap();
        let label = |node: Node<'_, &str, &str>| format!("{} {}", node.key, node.value);
        insta::assert_snapshot!(graph.to_dot_with(label), @r#"
        digraph {
          rankdir=LR;
          n0 [label="api \\"];
          n1 [label="db "];
          n2 [label="web a \"quoted\"\nlabel; <b>#1</b>"];
          n0 -> n2;
          n1 -> n0;
          n1 -> n2;
        }
        "#);
        insta::assert_snapshot!(graph.to_mermaid_with(label), @r#"
        flowchart LR
          n0["api #92;"]
          n1["db "]
          n2["web a #34;quoted#34;<br>label#59; #60;b#62;#35;1#60;/b#62;"]
          n0 --> n2
          n1 --> n0
          n1 --> n2
        "#);
        insta::assert_snapshot!(graph.to_dot(), @r#"
        digraph {
          rankdir=LR;
          n0 [label="api"];
          n1 [label="db"];
          n2 [label="web"];
          n0 -> n2;
          n1 -> n0;
          n1 -> n2;
        }
        "#);
        insta::assert_snapshot!(graph.to_mermaid(), @r#"
        flowchart LR
          n0["api"]
          n1["db"]
          n2["web"]
          n0 --> n2
          n1 --> n0
          n1 --> n2
        "#);
    }
}
