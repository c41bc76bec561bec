//! How a CI file is written as YAML: block style, two blanks, plain scalars where no reader could mistake them, JSON strings elsewhere.

use serde_json::Value;

/// A node. Mappings keep the order in which they were written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Yaml {
    /// A text, a number or a truth value.
    Scalar(Value),
    /// A list.
    List(Vec<Yaml>),
    /// Keys and values.
    Map(Vec<(String, Yaml)>),
}

impl<T: Into<Value>> From<T> for Yaml {
    fn from(value: T) -> Self {
        Self::Scalar(value.into())
    }
}

/// A mapping from pairs; those without a value are left out.
pub(super) fn map<const N: usize>(pairs: [(&str, Option<Yaml>); N]) -> Yaml {
    Yaml::Map(
        pairs.into_iter().filter_map(|(key, value)| value.map(|value| (key.to_owned(), value))).collect(),
    )
}

/// A mapping, or nothing if it would be empty.
pub(super) fn some_map<K: ToString>(pairs: impl IntoIterator<Item = (K, Yaml)>) -> Option<Yaml> {
    let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (key.to_string(), value)).collect();
    (!pairs.is_empty()).then_some(Yaml::Map(pairs))
}

/// A list, or nothing if it would be empty.
pub(super) fn some_list<T: Into<Yaml>>(items: impl IntoIterator<Item = T>) -> Option<Yaml> {
    let items: Vec<_> = items.into_iter().map(Into::into).collect();
    (!items.is_empty()).then_some(Yaml::List(items))
}

impl Yaml {
    /// The document, with `comment` lines before it.
    pub(super) fn document(&self, comment: &[String]) -> String {
        let mut text = String::new();
        for line in comment {
            text.extend(["# ", line, "\n"]);
        }
        self.write(&mut text, 0, false);
        text
    }

    /// Writes the node at `indent`; `inline` if something stands on the line already.
    fn write(&self, text: &mut String, indent: usize, inline: bool) {
        match self {
            Self::Scalar(value) => {
                text.push_str(if inline { " " } else { "" });
                text.push_str(&scalar(value));
                text.push('\n');
            }
            Self::List(items) if items.is_empty() => text.push_str(" []\n"),
            Self::Map(pairs) if pairs.is_empty() => text.push_str(" {}\n"),
            Self::List(items) => {
                text.push_str(if inline { "\n" } else { "" });
                for item in items {
                    text.push_str(&" ".repeat(indent));
                    text.push('-');
                    match item {
                        // The first key of a mapping stands beside the dash.
                        Self::Map(pairs) if !pairs.is_empty() => {
                            text.push(' ');
                            write_pairs(pairs, text, indent + 2, true);
                        }
                        item => item.write(text, indent + 2, true),
                    }
                }
            }
            Self::Map(pairs) => {
                text.push_str(if inline { "\n" } else { "" });
                write_pairs(pairs, text, indent, false);
            }
        }
    }
}

fn write_pairs(pairs: &[(String, Yaml)], text: &mut String, indent: usize, mut begun: bool) {
    for (key, value) in pairs {
        if !begun {
            text.push_str(&" ".repeat(indent));
        }
        begun = false;
        // Every reader of CI files takes this key as the text that it is.
        text.push_str(&if key == "on" { key.clone() } else { string(key) });
        text.push(':');
        value.write(text, indent + 2, true);
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

/// A text as a plain scalar if it can't be read as anything else, under YAML 1.1 or 1.2; otherwise as a JSON string, which is YAML, too.
fn string(text: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '.' | '_' | '$');
    let inner = |c: char| c.is_ascii_alphanumeric() || " /._-+=$(){}'\"&|<>*,~;!?@".contains(c);
    let word = |word: &str| {
        !matches!(
            word.to_ascii_lowercase().as_str(),
            "true" | "false" | "yes" | "no" | "y" | "n" | "on" | "off" | "null" | ".inf" | ".nan"
        )
    };
    let plain = text.starts_with(first)
        && text.chars().all(inner)
        && !text.ends_with(' ')
        && word(text)
        && !(text.starts_with('.') && text[1..].starts_with(|c: char| c.is_ascii_digit()));
    if plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_mistaken_is_plain() {
        for plain in ["main", "release/1", "exec deployer apply --env production", "$CI_X", "${{ a.b }}"] {
            assert_eq!(string(plain), plain);
        }
        for quoted in [
            "",
            "true",
            "No",
            "on",
            "1.0",
            "- a",
            "a: b",
            "a #b",
            "a ",
            "*x",
            "null",
            "~",
            "@a",
            ".5",
            "{a}",
            "0 4 * * *",
        ] {
            assert_eq!(string(quoted), format!("{quoted:?}"));
        }
    }

    #[test]
    fn blocks_nest() {
        let document = map([
            ("on", Some(map([("push", Some(Yaml::Map(Vec::new())))]))),
            ("list", some_list([map([("a", Some(1.into())), ("b", some_list(["x", "y: z"]))])])),
            ("none", None),
        ]);
        insta::assert_snapshot!(document.document(&["hello".to_owned()]), @r#"
        # hello
        on:
          push: {}
        list:
          - a: 1
            b:
              - x
              - "y: z"
        "#);
    }
}
