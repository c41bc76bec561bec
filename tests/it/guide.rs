//! The guide is true: its commands are run as they stand and print what it says; its index of diagnostics is whole.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::support::program;

/// What a page holds for a new user, in its order.
#[derive(Debug)]
enum Piece {
    /// A question, or a step.
    Section,
    /// A block of TOML.
    Toml { line: usize, text: String },
    /// A command.
    Shown(Shown),
}

/// One command of the guide, how it ends, and what it prints; `None` where its block shows no output at all.
#[derive(Debug)]
struct Shown {
    line: usize,
    command: String,
    exit: i32,
    prints: Option<Vec<String>>,
}

impl Shown {
    /// Reads `command  # what it is for; ends with 2`. Without such words it ends with 0.
    fn new(line: usize, text: &str) -> Self {
        let (command, comment) = text.split_once("  #").unwrap_or((text, ""));
        let exit = comment.split("ends with ").nth(1).map_or(0, |rest| {
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or_else(|_| panic!("line {line}: how does it end? {text}"))
        });
        Self { line, command: command.trim_end().to_owned(), exit, prints: Some(Vec::new()) }
    }
}

/// The sections, the blocks of TOML and the commands of a page. A `console` block is made of commands behind `$ ` and what they print.
fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            found.extend(line.starts_with("## ").then_some(Piece::Section));
            continue;
        };
        let block: Vec<_> = lines.by_ref().take_while(|(_, line)| *line != "```").collect();
        match language {
            "toml" => {
                let lines: Vec<_> = block.iter().map(|(_, line)| *line).collect();
                let text = lines.join("\n") + "\n";
                found.push(Piece::Toml { line: number + 1, text });
            }
            "console" => found.extend(commands(&block).into_iter().map(Piece::Shown)),
            _ => {}
        }
    }
    found
}

fn commands(block: &[(usize, &str)]) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    for (number, line) in block {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push(Shown::new(number + 1, command));
        } else {
            let last =
                found.last_mut().unwrap_or_else(|| panic!("line {}: no prompt before {line}", number + 1));
            last.prints.get_or_insert_default().push((*line).to_owned());
        }
    }
    // A block of commands alone does not show what they print.
    if found.len() == block.len() {
        for shown in &mut found {
            shown.prints = None;
        }
    }
    found
}

/// Whether `line` is what `pattern` says, where `…` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether the lines are what the patterns say, where a line that is only `…` stands for any number of lines.
fn all_fit(patterns: &[String], lines: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "…" => {
            (0..=lines.len()).any(|skipped| all_fit(rest, &lines[skipped..]))
        }
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, lines)| fits(first, line) && all_fit(rest, lines))
        }
    }
}

/// A shell of a new user.
struct Shell {
    folder: tempfile::TempDir,
    at: PathBuf,
    serving: Option<Child>,
    port: Option<u16>,
}

impl Shell {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        std::fs::create_dir_all(folder.path().join("work")).unwrap();
        std::os::unix::fs::symlink(program("deployer"), folder.path().join("bin/deployer")).unwrap();
        let at = folder.path().join("work");
        Self { folder, at, serving: None, port: None }
    }

    #[expect(clippy::disallowed_methods, reason = "the test plays a new user at a shell")]
    fn command(&self, script: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .current_dir(&self.at)
            .env_clear()
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .envs([("USER", "ada"), ("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .envs([("GIT_AUTHOR_NAME", "ada"), ("GIT_AUTHOR_EMAIL", "ada@example.com")])
            .envs([("GIT_COMMITTER_NAME", "ada"), ("GIT_COMMITTER_EMAIL", "ada@example.com")])
            .stdin(Stdio::null());
        command
    }

    /// What it prints, the router's port as a new user would have it, and how it ends.
    fn run(&mut self, command: &str) -> (String, i32) {
        if let Some(background) = command.strip_suffix(" &") {
            let port = if background == "deployer serve" { " --port 0" } else { "" };
            let script = format!("exec {background}{port}");
            let child = self.command(&script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            self.serving = Some(child);
            self.port = Some(self.await_port());
            return (String::new(), 0);
        }
        let there = self.folder.path().join("there");
        let script = format!("{{ {command}\n}} 2>&1; code=$?; pwd > '{}'; exit $code", there.display());
        let output = self.command(&script).output().unwrap();
        self.at = std::fs::read_to_string(there).unwrap().trim().into();
        let text = String::from_utf8(output.stdout).unwrap();
        let text = match self.port {
            Some(port) => text.replace(&format!(":{port}/"), ":8080/"),
            None => text,
        };
        (text, output.status.code().unwrap())
    }

    /// Runs a command of `page`, which must end and print as it is said there.
    fn hold(&mut self, page: &str, shown: &Shown) {
        let (printed, exit) = self.run(&shown.command);
        let at = format!("{page}:{}: `{}`", shown.line, shown.command);
        assert_eq!(exit, shown.exit, "{at} ends with {exit} and prints\n{printed}");
        if let Some(prints) = &shown.prints {
            let lines: Vec<&str> = printed.lines().collect();
            assert!(all_fit(prints, &lines), "{at} prints\n{printed}");
        }
    }

    /// Runs what the test needs besides.
    fn prepare(&mut self, command: &str) {
        let (printed, exit) = self.run(command);
        assert_eq!(exit, 0, "`{command}`: {printed}");
    }

    fn await_port(&self) -> u16 {
        for _ in 0..200 {
            let output = self.command("deployer status --json").output().unwrap();
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            if let Some(address) = status["result"]["router"].as_str() {
                return address.rsplit(':').next().unwrap().parse().unwrap();
            }
            #[expect(clippy::disallowed_methods, reason = "waiting for another process")]
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("nobody serves");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(child) = &mut self.serving {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_tutorial_prints_what_it_says() {
    let path = "docs/guide/tutorial.md";
    let mut shell = Shell::new();
    let mut held = 0;
    for piece in pieces(&page(path)) {
        match piece {
            Piece::Section => {}
            Piece::Toml { line, text } => assert_depends(&text, &format!("{path}:{line}")),
            Piece::Shown(shown) => {
                shell.hold(path, &shown);
                held += 1;
            }
        }
    }
    assert!(held > 20, "{held}");
}

/// The dependencies of a deployer's own package: this package's features, by their names, and nothing that is not to be had.
fn assert_depends(text: &str, at: &str) {
    let told: toml::Table = text.parse().unwrap_or_else(|error| panic!("{at}: {error}"));
    let manifest: toml::Table = page("Cargo.toml").parse().unwrap();
    let flowline = told["dependencies"]["flowline"].as_table().unwrap();
    assert!(flowline.contains_key("path") || flowline.contains_key("git"), "{at}: it is not on crates.io");
    for feature in flowline["features"].as_array().unwrap() {
        assert!(manifest["features"].get(feature.as_str().unwrap()).is_some(), "{at}: {feature:?}");
    }
}

#[test]
fn the_how_tos_do_what_they_say() {
    let path = "docs/guide/how_to.md";
    let mut shell = Shell::new();
    shell
        .prepare("deployer init shop && cd shop && git init -q -b main && git add -A && git commit -qm Open");
    shell.prepare("git branch cart && deployer apply && deployer propose 123 cart");
    let file = shell.at.join("flowline.toml");
    let first = std::fs::read_to_string(&file).unwrap();
    let (mut answer, mut held) = (0, 0);
    for piece in pieces(&page(path)) {
        match piece {
            // Each question is asked by somebody who has something to deploy, and a topology without the other answers.
            Piece::Section => {
                answer += 1;
                std::fs::write(&file, &first).unwrap();
                shell.prepare(&format!("echo 1.{answer}.0 > web/VERSION && git commit -qam {answer}"));
            }
            Piece::Toml { line, text } => {
                let topology = std::fs::read_to_string(&file).unwrap();
                std::fs::write(&file, format!("{topology}\n{text}")).unwrap();
                let (printed, exit) = shell.run("deployer status");
                assert_eq!(exit, 0, "{path}:{line}: {printed}");
            }
            Piece::Shown(shown) => {
                shell.hold(path, &shown);
                held += 1;
            }
        }
    }
    assert!(held >= 10, "{held}");
}

#[test]
fn the_readme_does_what_it_says() {
    let path = "README.md";
    let mut shell = Shell::new();
    let mut held = 0;
    for piece in pieces(&page(path)) {
        let Piece::Shown(shown) = piece else { continue };
        // The build that runs this test is not started within it.
        if let Some(called) = shown.command.strip_prefix("cargo ") {
            let example = called.split("--example ").nth(1);
            assert!(
                example.is_none_or(|name| root().join(format!("examples/{name}.rs")).exists()),
                "{called}"
            );
            continue;
        }
        shell.hold(path, &shown);
        held += 1;
    }
    assert!(held >= 8, "{held}");
}

#[test]
fn a_command_is_read_with_how_it_ends() {
    let text = "## A\n```console\n$ a  # ends with 3: it waits\n$ b\nout\n```\n```toml\nx = 1\n```\n```console\n$ c && d\n```\n";
    let pieces = pieces(text);
    let [Piece::Section, Piece::Shown(a), Piece::Shown(b), Piece::Toml { line: 7, text }, Piece::Shown(c)] =
        &pieces[..]
    else {
        panic!("{pieces:?}")
    };
    assert_eq!((a.line, a.command.as_str(), a.exit, a.prints.as_deref()), (3, "a", 3, Some(&[][..])));
    assert_eq!((b.exit, b.prints.as_deref()), (0, Some(&["out".to_owned()][..])));
    assert_eq!((text.as_str(), c.command.as_str(), c.prints.as_deref()), ("x = 1\n", "c && d", None));
    let silent = std::panic::catch_unwind(|| super::guide::pieces("```console\na\n```\n"));
    assert!(silent.is_err(), "a block without a prompt is not skipped");
}

#[test]
fn a_line_that_says_something_else_does_not_fit() {
    assert!(
        fits("a … c", "a b c")
            && fits("…", "")
            && fits("run deploy-1-…: 5 steps", "run deploy-1-ab: 5 steps")
    );
    assert!(!fits("a … c", "a b d") && !fits("abc", "abcd") && !fits("abcd", "abc"));
    let patterns = ["a", "…", "z"].map(str::to_owned);
    assert!(all_fit(&patterns, &["a", "b", "c", "z"]) && all_fit(&patterns, &["a", "z"]));
    assert!(!all_fit(&patterns, &["a", "b"]) && !all_fit(&patterns[..1], &["a", "b"]));
}

/// Every text in quotes in the sources that has the form of a code of these families.
fn codes_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            codes_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for quoted in text.split('"') {
                let family = ["config.", "topology.", "toggles.", "grants."]
                    .iter()
                    .find_map(|family| quoted.strip_prefix(family));
                let code = |rest: &str| {
                    !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
                };
                if family.is_some_and(code)
                    && !["toml", "json", "yaml", "yml"].iter().any(|end| quoted.ends_with(end))
                {
                    found.insert(quoted.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_diagnostic_code_is_in_the_index_and_every_entry_exists() {
    let mut codes = BTreeSet::new();
    for folder in ["src", "crates/core/src", "crates/envs/src", "crates/toggles/src", "crates/pipeline/src"] {
        codes_in(&root().join(folder), &mut codes);
    }
    let text = std::fs::read_to_string(root().join("docs/guide/diagnostics.md")).unwrap();
    let index: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|code| code.contains('.'))
        .map(str::to_owned)
        .collect();
    assert_eq!(codes, index);
    assert!(codes.contains("config.unknown-key") && codes.contains("topology.cycle"), "{codes:?}");
}

#[test]
fn every_kind_of_error_is_in_the_index() {
    use flowline::core::error::ErrorKind;
    let text = std::fs::read_to_string(root().join("docs/guide/diagnostics.md")).unwrap();
    let kinds = [
        ErrorKind::Invalid,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::Denied,
        ErrorKind::Busy,
        ErrorKind::TimedOut,
        ErrorKind::Cancelled,
        ErrorKind::Unavailable,
        ErrorKind::Corrupt,
        ErrorKind::Unsupported,
        ErrorKind::Failed,
        ErrorKind::Other,
    ];
    for kind in kinds {
        assert!(text.contains(&format!("| `{kind}` |")), "{kind}");
    }
}
