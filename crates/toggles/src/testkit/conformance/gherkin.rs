//! Reads what the suites use of Gherkin: features with backgrounds, scenarios and outlines, tags, steps, tables.

use std::{collections::BTreeMap, fmt::Write};

/// A scenario with its steps, the background's first; of an outline, one for each row of examples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    /// The scenario's name; of an outline, with the row.
    pub(super) name: String,
    /// Tags of the feature, the scenario and the examples, with `@`.
    pub(super) tags: Vec<String>,
    /// In order.
    pub(super) steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    /// Without its keyword.
    pub(super) text: String,
    /// The table below it, header included.
    pub(super) table: Vec<Vec<String>>,
}

/// What the lines belong to at present.
enum Part {
    Feature,
    Background,
    Scenario,
    Examples,
}

#[derive(Default)]
struct Scenario {
    name: String,
    tags: Vec<String>,
    steps: Vec<Step>,
    examples: Vec<Examples>,
}

#[derive(Default)]
struct Examples {
    tags: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// The cases of a feature file.
pub(super) fn read(text: &str) -> Result<Vec<Case>, String> {
    let (mut part, mut pending, mut feature_tags) = (Part::Feature, Vec::new(), Vec::new());
    let mut background: Vec<Step> = Vec::new();
    let mut scenarios: Vec<Scenario> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |what: &str| Err(format!("line {}: {what}: {line}", index + 1));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('@') {
            pending.extend(line.split_whitespace().map(str::to_owned));
        } else if line.starts_with("Feature:") {
            feature_tags = std::mem::take(&mut pending);
        } else if line.starts_with("Rule:") {
            return wrong("rules are not read");
        } else if line.starts_with("Background:") {
            part = Part::Background;
        } else if let Some(name) = ["Scenario:", "Scenario Outline:", "Scenario Template:", "Example:"]
            .iter()
            .find_map(|keyword| line.strip_prefix(keyword))
        {
            part = Part::Scenario;
            let tags = feature_tags.iter().cloned().chain(std::mem::take(&mut pending)).collect();
            scenarios.push(Scenario { name: name.trim().to_owned(), tags, ..Scenario::default() });
        } else if line.starts_with("Examples:") || line.starts_with("Scenarios:") {
            part = Part::Examples;
            let Some(scenario) = scenarios.last_mut() else { return wrong("examples without a scenario") };
            scenario.examples.push(Examples { tags: std::mem::take(&mut pending), rows: Vec::new() });
        } else if line.starts_with('|') {
            let row = cells(line);
            let last = scenarios.last_mut();
            let step = match (&part, last) {
                (Part::Examples, Some(scenario)) => {
                    if let Some(examples) = scenario.examples.last_mut() {
                        examples.rows.push(row);
                    }
                    continue;
                }
                (Part::Background, _) => background.last_mut(),
                (_, last) => last.and_then(|scenario| scenario.steps.last_mut()),
            };
            let Some(step) = step else { return wrong("a table without a step") };
            step.table.push(row);
        } else if let Some(text) = ["Given ", "When ", "Then ", "And ", "But ", "* "]
            .iter()
            .find_map(|keyword| line.strip_prefix(keyword))
        {
            let step = Step { text: text.trim().to_owned(), table: Vec::new() };
            match (&part, scenarios.last_mut()) {
                (Part::Background, _) => background.push(step),
                (Part::Scenario, Some(scenario)) => scenario.steps.push(step),
                _ => return wrong("a step outside of a scenario"),
            }
        } else if !matches!(part, Part::Feature) && !matches!(part, Part::Scenario) {
            return wrong("it is not understood");
        }
    }
    Ok(scenarios.iter().flat_map(|scenario| scenario.cases(&background)).collect())
}

impl Scenario {
    fn cases(&self, background: &[Step]) -> Vec<Case> {
        let steps = || background.iter().chain(&self.steps);
        if self.examples.is_empty() {
            return vec![Case {
                name: self.name.clone(),
                tags: self.tags.clone(),
                steps: steps().cloned().collect(),
            }];
        }
        let mut cases = Vec::new();
        for examples in &self.examples {
            let Some((header, rows)) = examples.rows.split_first() else { continue };
            for row in rows {
                let values: BTreeMap<&str, &str> =
                    header.iter().zip(row).map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let mut name = self.name.clone();
                for value in row {
                    // Writing to a text does not fail.
                    let _always = write!(name, " | {value}");
                }
                cases.push(Case {
                    name,
                    tags: self.tags.iter().chain(&examples.tags).cloned().collect(),
                    steps: steps().map(|step| step.filled(&values)).collect(),
                });
            }
        }
        cases
    }
}

impl Step {
    fn filled(&self, values: &BTreeMap<&str, &str>) -> Self {
        let fill = |text: &String| {
            values.iter().fold(text.clone(), |text, (name, value)| text.replace(&format!("<{name}>"), value))
        };
        Self {
            text: fill(&self.text),
            table: self.table.iter().map(|row| row.iter().map(fill).collect()).collect(),
        }
    }
}

/// The cells of a row: `\|` stands for `|`, `\\` for `\`, `\n` for a line break, and any other `\x` for itself.
fn cells(line: &str) -> Vec<String> {
    let mut cells = Vec::new();
    let mut cell = String::new();
    let mut characters = line.trim_start_matches('|').chars();
    while let Some(character) = characters.next() {
        match character {
            '|' => cells.push(std::mem::take(&mut cell).trim().to_owned()),
            '\\' => match characters.next() {
                Some('|') => cell.push('|'),
                Some('n') => cell.push('\n'),
                Some('\\') | None => cell.push('\\'),
                Some(other) => cell.extend(['\\', other]),
            },
            other => cell.push(other),
        }
    }
    cells
}

/// Whether `text` is `pattern`, in which `{}` stands for anything, as short as can be; what stood there.
pub(super) fn matched<'a>(pattern: &str, text: &'a str) -> Option<Vec<&'a str>> {
    let mut parts = pattern.split("{}");
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut found = Vec::new();
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let end = if parts.peek().is_none() {
            rest.len().checked_sub(part.len()).filter(|end| rest.get(*end..) == Some(part))?
        } else {
            rest.find(part)?
        };
        found.push(&rest[..end]);
        rest = &rest[end + part.len()..];
    }
    rest.is_empty().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_become_a_case_for_each_row() {
        let text = "@f\nFeature: x\n  Background:\n    Given a start\n\n  @s\n  Scenario Outline: sum\n    When I add <a> and <b>\n      | k | <a> |\n\n    @e\n    Examples: some\n      | a | b  |\n      | 1 | \\\"2\\\" |\n      | 3 |    |\n";
        let cases = read(text).unwrap();
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[0].tags, ["@f", "@s", "@e"]);
        assert_eq!(cases[0].steps[1].text, "I add 1 and \\\"2\\\"");
        assert_eq!(cases[0].steps[1].table, [["k", "1"]]);
        assert_eq!(cases[1].steps[1].text, "I add 3 and ");
    }

    #[test]
    fn patterns_take_what_stands_in_their_gaps() {
        assert_eq!(matched("a {} with \"{}\"", "a flag with \"k\"\""), Some(vec!["flag", "k\""]));
        assert_eq!(matched("plain", "plain"), Some(vec![]));
        assert_eq!(matched("plain", "plainer"), None);
        assert_eq!(matched("a \"{}\"", "a \"\""), Some(vec![""]));
    }
}
