//! What a declarative pipeline of Jenkins is, as far as it is rendered: no linter of it runs without a Jenkins. Strict: whatever is not known
//! here is refused, so that something new is looked up before it is rendered.

use std::collections::BTreeSet;

use super::{super::*, full};

/// One statement: what it says, with its block if it has one.
#[derive(Debug, PartialEq, Eq)]
struct Statement {
    head: String,
    block: Option<Vec<Statement>>,
}

impl Statement {
    /// The directive or step: `stage` of `stage('web')`.
    fn name(&self) -> &str {
        self.head.split([' ', '(']).next().unwrap_or_default()
    }

    fn rest(&self) -> &str {
        self.head[self.name().len()..].trim()
    }
}

/// Cuts a Jenkinsfile into statements. Strings are in single quotes, with the escapes of Groovy that are needed, and end on their line.
fn parse(text: &str) -> Result<Vec<Statement>, String> {
    let mut open: Vec<(String, Vec<Statement>)> = vec![(String::new(), Vec::new())];
    for (number, line) in text.lines().enumerate() {
        let problem = |what: &str| format!("line {}: {what}: {line}", number + 1);
        let line = line.trim();
        if line.starts_with("//") {
            continue;
        }
        let mut head = String::new();
        let mut chars = line.chars();
        let end = |head: &mut String, open: &mut Vec<(String, Vec<Statement>)>| {
            let said = std::mem::take(head).trim().to_owned();
            if let Some((_, statements)) = open.last_mut().filter(|_| !said.is_empty()) {
                statements.push(Statement { head: said, block: None });
            }
        };
        while let Some(char) = chars.next() {
            match char {
                '{' => open.push((std::mem::take(&mut head).trim().to_owned(), Vec::new())),
                '}' => {
                    end(&mut head, &mut open);
                    let (head, block) = open.pop().ok_or_else(|| problem("too many braces"))?;
                    let (_, outer) = open.last_mut().ok_or_else(|| problem("too many braces"))?;
                    outer.push(Statement { head, block: Some(block) });
                }
                '\'' => {
                    head.push('\'');
                    loop {
                        match chars.next().ok_or_else(|| problem("a string does not end"))? {
                            '\'' => break,
                            '\\' => match chars.next() {
                                Some(escaped @ ('\\' | '\'' | 'n')) => head.extend(['\\', escaped]),
                                _ => return Err(problem("an escape that is not needed")),
                            },
                            char => head.push(char),
                        }
                    }
                    head.push('\'');
                }
                '"' | '$' | '`' | ';' | '/' => {
                    return Err(problem("something that is interpolated or more than one statement"));
                }
                char => head.push(char),
            }
        }
        end(&mut head, &mut open);
    }
    match open.pop() {
        Some((_, statements)) if open.is_empty() => Ok(statements),
        _ => Err("a block does not end".to_owned()),
    }
}

/// What may stand in the block of a directive, and what of it must.
fn allowed(place: &str) -> Option<(&'static [&'static str], &'static [&'static str])> {
    const CONDITIONS: &[&str] = &["branch", "changeRequest", "triggeredBy", "not", "anyOf", "allOf"];
    const STEPS: &[&str] = &["sh", "archiveArtifacts"];
    Some(match place {
        "file" => (&["pipeline"], &["pipeline"]),
        "pipeline" => (&["agent", "options", "triggers", "stages"], &["agent", "stages"]),
        "agent" => (&["label"], &["label"]),
        "pipeline options" => (&["disableConcurrentBuilds"], &[]),
        "triggers" => (&["cron"], &[]),
        "stages" => (&["stage"], &["stage"]),
        "stage" => (&["when", "options", "environment", "steps", "post"], &["steps"]),
        "when" => (&["beforeAgent", "branch", "changeRequest", "triggeredBy", "not", "anyOf", "allOf"], &[]),
        "not" | "anyOf" | "allOf" => (CONDITIONS, &[]),
        "stage options" => (&["timeout", "lock"], &[]),
        "post" => (&["success", "unsuccessful"], &[]),
        "steps" | "success" | "unsuccessful" => (STEPS, &[]),
        _ => return None,
    })
}

/// Whether `rest` is one string, or one behind a name with a colon: `'x'`, `cause: 'x'`.
fn is_text(rest: &str, name: Option<&str>) -> bool {
    let text = match name {
        Some(name) => rest.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")),
        None => Some(rest),
    };
    let inner = text.and_then(|text| text.strip_prefix('\'')).and_then(|text| text.strip_suffix('\''));
    // What `parse` let through is closed, so a quote inside must be escaped.
    inner.is_some_and(|inner| !inner.replace("\\\\", "").replace("\\'", "").contains('\''))
}

/// The arguments of what has no block.
fn is_call(statement: &Statement) -> bool {
    let rest = statement.rest();
    let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    match statement.name() {
        "agent" => rest == "any",
        "label" | "branch" | "sh" => is_text(rest, None),
        "beforeAgent" => rest == "true",
        "changeRequest" => rest == "()",
        "triggeredBy" => is_text(rest, None) || is_text(rest, Some("cause")),
        "archiveArtifacts" => is_text(rest, Some("artifacts")),
        "cron" => inner.is_some_and(|inner| is_text(inner, None)),
        "lock" => inner.is_some_and(|inner| is_text(inner, Some("resource"))),
        "disableConcurrentBuilds" => inner == Some("abortPrevious: true"),
        "timeout" => inner.and_then(|inner| inner.strip_prefix("time: ")).is_some_and(|inner| {
            let minutes = inner.strip_suffix(", unit: 'MINUTES'");
            minutes.is_some_and(|minutes| minutes.parse::<u32>().is_ok_and(|minutes| minutes > 0))
        }),
        _ => false,
    }
}

fn check(place: &str, statements: &[Statement]) -> Result<(), String> {
    let refuse = |what: &str| Err(format!("in `{place}`: {what}"));
    if place == "environment" {
        for statement in statements {
            let (name, value) = statement.head.split_once(" = ").unwrap_or_default();
            let credential = value.strip_prefix("credentials(").and_then(|rest| rest.strip_suffix(')'));
            let named =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !named || statement.block.is_some() || !is_text(credential.unwrap_or(value), None) {
                return refuse(&statement.head);
            }
        }
        return if statements.is_empty() { refuse("nothing") } else { Ok(()) };
    }
    let Some((may, must)) = allowed(place) else { return refuse("it has no block") };
    if statements.is_empty() || (place == "not" && statements.len() != 1) {
        return refuse("another number of statements");
    }
    let mut seen = BTreeSet::new();
    for statement in statements {
        let name = statement.name();
        if !may.contains(&name) {
            return refuse(&format!("`{name}` has no place"));
        }
        // Steps and conditions may come again; of stages, each is another.
        let again = ["sh", "archiveArtifacts", "branch", "triggeredBy", "not", "anyOf", "allOf"];
        let key = if name == "stage" { statement.head.as_str() } else { name };
        if !seen.insert(key) && !again.contains(&name) {
            return refuse(&format!("`{key}` a second time"));
        }
        match &statement.block {
            None if is_call(statement) => {}
            None => return refuse(&format!("`{}` makes no sense", statement.head)),
            Some(block) => {
                let titled = name == "stage"
                    && statement
                        .rest()
                        .strip_prefix('(')
                        .is_some_and(|rest| is_text(rest.trim_end_matches(')'), None));
                if !(titled || statement.rest().is_empty() && name != "stage") {
                    return refuse(&format!("`{}` before a block", statement.head));
                }
                let inner = if name == "options" { format!("{place} options") } else { name.to_owned() };
                check(&inner, block)?;
            }
        }
    }
    match must.iter().find(|name| !statements.iter().any(|statement| statement.name() == **name)) {
        Some(missing) => refuse(&format!("`{missing}` is missing")),
        None => Ok(()),
    }
}

fn lint(text: &str) -> Result<(), String> {
    check("file", &parse(text)?)
}

#[test]
fn every_shape_of_wrapper_is_a_declarative_pipeline() {
    let whole = full(CiKind::Jenkins);
    let mut first = whole.clone();
    first.jobs.truncate(1);
    let mut cancels = first.clone();
    let group = Label::new("preview").unwrap();
    cancels.jobs[0].concurrency = Some(Concurrency { group, per_change: true, policy: Later::CancelRunning });
    let odd = ["./deploy it", "it's", "a: b #c", "${{ x }}", "a\\b", "{", "}", "\"", "//"];
    let mut bare = Wrapper::deploy("bare", odd).unwrap();
    let usual = bare.clone();
    bare.triggers = Triggers::default();
    bare.jobs[0].permissions.clear();
    let labelled = Jenkins { label: Some("it's {a} label".to_owned()), ..Jenkins::default() };
    for wrapper in [whole, first, cancels, usual, bare] {
        for target in [&Jenkins::default(), &labelled] {
            let text = &target.render(&wrapper).unwrap().files["Jenkinsfile"];
            lint(text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
        }
    }
    for trigger in [Trigger::Push, Trigger::PullRequest, Trigger::Schedule, Trigger::Manual] {
        let mut wrapper = full(CiKind::Jenkins);
        wrapper.jobs.truncate(1);
        wrapper.jobs[0].on = Some([trigger].into());
        let text = &Jenkins::default().render(&wrapper).unwrap().files["Jenkinsfile"];
        lint(text).unwrap_or_else(|problem| panic!("{problem}\n{text}"));
    }
}

#[test]
fn what_is_none_is_refused() {
    let good = Jenkins::default().render(&full(CiKind::Jenkins)).unwrap().files["Jenkinsfile"].clone();
    for (from, to) in [
        ("agent any\n", "\n"),
        ("agent any\n", "agent none\n"),
        ("agent any\n", "agent any\nagent any\n"),
        ("stages {", "steps {"),
        ("stage('preview')", "stage(preview)"),
        ("stage('deploy-all')", "stage('preview')"),
        ("beforeAgent true", "beforeAgents true"),
        ("steps {", "step {"),
        ("unit: 'MINUTES'", "unit: 'MINUTE'"),
        ("unit: 'MINUTES'", "unit: \"MINUTES\""),
        ("changeRequest()", "changeRequest"),
        ("not { changeRequest() }", "not { changeRequest() }}"),
        ("success {", "succeeded {"),
        ("unsuccessful {\n", "unsuccessful {\nwhen { branch 'x' }\n"),
        ("branch 'main'", "branch 'main"),
        ("branch 'main'", "branch 'main' 'other'"),
        ("FLOWLINE_OUTPUT = ", "FLOWLINE-OUTPUT = "),
        ("sh 'cargo", "sh returnStatus: true, script: 'cargo"),
        ("pipeline {\n", "pipeline {\ndef x = 1\n"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert!(lint(&bad).is_err(), "{from} -> {to}");
    }
    assert!(lint(good.trim_end().trim_end_matches('}')).is_err());
}
