//! The guide is true: its commands are run as they stand and print what it says; its index of diagnostics is whole.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::support::program;

/// One command of the guide and what it prints.
#[derive(Debug)]
struct Shown {
    line: usize,
    command: String,
    prints: Vec<String>,
}

/// The commands of the `console` blocks that show a prompt.
fn shown(text: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for (number, line) in text.lines().enumerate() {
        if let Some(fence) = line.strip_prefix("```") {
            inside = fence == "console";
        } else if let (true, Some(command)) = (inside, line.strip_prefix("$ ")) {
            found.push(Shown { line: number + 1, command: command.to_owned(), prints: Vec::new() });
        } else if let (true, Some(last)) = (inside, found.last_mut()) {
            last.prints.push(line.to_owned());
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

    /// What it prints, the router's port as a new user would have it.
    fn run(&mut self, command: &str) -> String {
        if let Some(background) = command.strip_suffix(" &") {
            let port = if background == "deployer serve" { " --port 0" } else { "" };
            let script = format!("exec {background}{port}");
            let child = self.command(&script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            self.serving = Some(child);
            self.port = Some(self.await_port());
            return String::new();
        }
        let there = self.folder.path().join("there");
        let script = format!("{{ {command}\n}} 2>&1; pwd > '{}'", there.display());
        let output = self.command(&script).output().unwrap();
        self.at = std::fs::read_to_string(there).unwrap().trim().into();
        let text = String::from_utf8(output.stdout).unwrap();
        match self.port {
            Some(port) => text.replace(&format!(":{port}/"), ":8080/"),
            None => text,
        }
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

#[test]
fn the_tutorial_prints_what_it_says() {
    let text = std::fs::read_to_string(root().join("docs/guide/tutorial.md")).unwrap();
    let commands = shown(&text);
    assert!(commands.len() > 20, "{commands:#?}");
    let mut shell = Shell::new();
    for shown in commands {
        let printed = shell.run(&shown.command);
        let lines: Vec<&str> = printed.lines().collect();
        assert!(
            all_fit(&shown.prints, &lines),
            "docs/guide/tutorial.md:{}: `{}` prints\n{printed}",
            shown.line,
            shown.command
        );
    }
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
