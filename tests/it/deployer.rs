//! The deployer of the examples, called as a new user would: real processes, from an empty folder.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use flowline::envs::probe::{Client, HttpUrl};
use serde_json::Value;

use super::support::{program, said, wait};

/// A folder with a deployer's project in it.
struct Project(tempfile::TempDir);

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Self(folder);
        let output = Self::called_in(project.0.path(), &["init", "shop"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        project.git(&["init", "--quiet", "--initial-branch=main"]);
        project.commit("Open");
        project
    }

    fn shop(&self) -> PathBuf {
        self.0.path().join("shop")
    }

    fn state(&self) -> PathBuf {
        self.shop().join(".flowline")
    }

    #[expect(clippy::disallowed_methods, reason = "the test starts the program that it is about")]
    fn called_in(folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program("deployer"));
        // Nothing of the surroundings is needed: neither CI, nor a home, nor a terminal.
        command
            .current_dir(folder)
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("USER", "ada")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        Self::called_in(&self.shop(), args).output().unwrap()
    }

    /// The call ends with 0; its standard output.
    fn done(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.call(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
    }

    #[expect(clippy::disallowed_methods, reason = "the test plays the developer")]
    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.shop())
            .args(["-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"])
            .args(args)
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn write(&self, version: &str, page: &str) -> String {
        std::fs::write(self.shop().join("web/VERSION"), version).unwrap();
        std::fs::write(self.shop().join("web/index.html"), page).unwrap();
        self.commit(version)
    }

    /// The router's process, and where it listens.
    fn serve(&self) -> (Serving, u16) {
        let mut child = Self::called_in(&self.shop(), &["serve", "--port", "0"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let port = first.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('/').next()).unwrap();
        let port = port.parse().unwrap();
        // Whoever writes to a closed pipe would end.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        (Serving(Some(child)), port)
    }
}

/// A serving process, which must not outlive its test.
struct Serving(Option<Child>);

impl Serving {
    fn stop(mut self) -> Output {
        let child = self.0.take().unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        wait(child, Duration::from_secs(30))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// The page at `url` (`http://shop.localhost:PORT/`), through the router.
fn page(url: &str) -> (u16, String) {
    let url = HttpUrl::new(url).unwrap();
    let router = std::net::SocketAddr::from(([127, 0, 0, 1], url.port()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::new();
    let answer = client.get(router, url.authority(), url.path(), Duration::from_secs(10));
    let answer = runtime.block_on(answer).unwrap();
    (answer.status, answer.text().into_owned())
}

#[test]
fn a_deployer_delivers_from_an_empty_folder_without_ci() {
    let project = Project::new();
    let (serving, port) = project.serve();
    let plan = project.call(&["plan"]);
    assert_eq!(plan.status.code(), Some(2), "{}", said(&plan));
    let applied = project.done(&["apply"]);
    assert!(applied.contains(&format!("web  http://shop.localhost:{port}/  (built)")), "{applied}");
    let url = format!("http://shop.localhost:{port}/");
    assert!(page(&url).1.contains("Delivered by flowline."));
    assert_eq!(project.call(&["plan"]).status.code(), Some(0));

    project.write("1.1.0", "<title>shop</title> with a cart");
    assert_eq!(project.json(&["apply"])["result"]["version"], "1.1.0");
    assert!(page(&url).1.contains("with a cart"));

    // A page that its own verification does not know is stopped before anybody sees it.
    project.write("1.2.0", "<title>oops</title>");
    let stopped = project.call(&["apply"]);
    assert_eq!(stopped.status.code(), Some(1), "{}", said(&stopped));
    assert!(said(&stopped).contains("was stopped before anybody saw it"), "{}", said(&stopped));
    assert!(page(&url).1.contains("with a cart"));

    // From the laptop: no CI, no network, one call.
    let back = project.done(&["rollback"]);
    assert!(back.starts_with("production is back at 1.0.0 (deployment 3"), "{back}");
    assert!(page(&url).1.contains("Delivered by flowline."));
    let history = project.done(&["history"]);
    let told: Vec<&str> =
        ["rolled back", "stopped", "deployed"].into_iter().filter(|word| history.contains(word)).collect();
    assert_eq!(told.len(), 3, "{history}");
    assert!(project.done(&["status"]).contains("1.0.0  deployment 3"));
    assert!(project.done(&["logs", "production/1"]).contains("web/build | built `web` 1.0.0"));
    assert!(project.done(&["why", "production"]).contains("service.rolledback"));
    assert!(project.done(&["graph", "production/1", "--format", "mermaid"]).starts_with("flowchart TD\n"));
    assert!(project.done(&["report", "deploy-3-"]).contains("What was undone, and why"));
    project.done(&["ci", "render", "--write"]);
    project.done(&["ci", "check"]);
    assert!(project.done(&["addresses", "--json"]).contains("production/web"));

    let stopped = serving.stop();
    assert!(stopped.status.success(), "{}", said(&stopped));
}

#[test]
fn a_change_is_previewed_promoted_and_released() {
    let project = Project::new();
    let (serving, port) = project.serve();
    project.done(&["apply"]);
    project.git(&["switch", "--quiet", "--create", "cart"]);
    let base = project.git(&["rev-parse", "main"]);
    let head = project.write("1.1.0", "<title>shop</title> with a cart");
    let storefront = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/storefront");
    let payload = std::fs::read_to_string(storefront.join("pull_request_opened.json")).unwrap();
    let opened = payload.replace("HEAD_SHA", &head).replace("BASE_SHA", &base);
    let file = project.0.path().join("payload.json");
    std::fs::write(&file, &opened).unwrap();
    let file = file.to_str().unwrap();
    assert!(project.done(&["receive", file]).starts_with("pr-123 is open: "));
    let preview = project.json(&["preview", "pr-123"]);
    let url = preview["result"]["preview"]["urls"][0].as_str().unwrap();
    assert_eq!(url, format!("http://pr-123-shop.localhost:{port}/"));
    assert!(page(url).1.contains("with a cart"));
    assert_eq!(project.json(&["verify", "pr-123"])["result"]["verdict"]["outcome"], "pass");
    let early = project.call(&["promote", "pr-123", "production"]);
    assert_eq!(early.status.code(), Some(3), "it is not merged yet: {}", said(&early));

    project.git(&["switch", "--quiet", "main"]);
    project.git(&["merge", "--quiet", "--no-ff", "--no-edit", "cart"]);
    let mut merged: Value = serde_json::from_str(&opened).unwrap();
    merged["action"] = "closed".into();
    merged["pull_request"]["state"] = "closed".into();
    merged["pull_request"]["merged"] = true.into();
    merged["pull_request"]["merge_commit_sha"] = project.git(&["rev-parse", "HEAD"]).into();
    std::fs::write(file, merged.to_string()).unwrap();
    assert!(project.done(&["receive", file]).starts_with("pr-123 is merged"));
    let promoted = project.json(&["promote", "pr-123", "production"]);
    assert_eq!(promoted["result"]["version"], "1.1.0", "{promoted}");
    assert_eq!(promoted["result"]["built"], Value::Array(Vec::new()), "what was verified goes by digest");
    assert!(
        project
            .done(&["release", "new-page", "100", "--change", "pr-123"])
            .starts_with("new-page is on for 100 %")
    );
    project.done(&["close", "pr-123"]);
    assert_eq!(page(url).0, 404);
    let timeline = project.done(&["timeline", "pr-123"]);
    assert!(timeline.contains("deployed to production") && timeline.contains("all users"), "{timeline}");
    assert!(serving.stop().status.success());
}

#[test]
fn an_interrupted_deployment_is_undone_and_the_same_call_does_it() {
    let project = Project::new();
    let topology = project.shop().join("flowline.toml");
    let text = std::fs::read_to_string(&topology).unwrap();
    let slow =
        text.replace("[verify]\n", "[verify]\nsmoke = [\"/bin/sh\", \"-c\", \"[ -e go ] || sleep 60\"]\n");
    std::fs::write(&topology, slow).unwrap();
    let mut child = Project::called_in(&project.shop(), &["apply"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().any(|line| line.unwrap() == "verify: started"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let rest = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    let output = wait(child, Duration::from_secs(30));
    let rest = rest.join().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest:#?}");
    assert!(rest.iter().any(|line| line == "web/stage: undone"), "{rest:#?}");
    let told = "was stopped on its way to `production`: it was cancelled";
    assert!(rest.iter().any(|line| line.starts_with("error: commit ") && line.ends_with(told)), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("help: the same call does it anew")), "{rest:#?}");
    assert!(project.done(&["status"]).contains("nothing is deployed"));
    std::fs::write(project.state().join("go"), "").unwrap();
    assert!(project.done(&["apply"]).starts_with("production is at 1.0.0"));
}
