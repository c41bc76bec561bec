//! The command line, called in process: what it prints, what it answers, and how it ends.

mod json;
mod outside;
mod schema;

use std::path::{Path, PathBuf};

use flowline_core::secret::Secret;
use serde_json::Value;

use super::{Answer, Cli, Exit, Surroundings, clap};
use crate::Setup;

/// A folder with a repository in it, as `init` makes it.
struct Place {
    folder: tempfile::TempDir,
}

struct Said {
    exit: Exit,
    out: String,
    err: String,
}

impl Place {
    async fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let said = place
            .said_in(
                &["init", "shop"],
                Surroundings { directory: place.folder.path().into(), ..Surroundings::none() },
            )
            .await;
        assert_eq!(said.exit, Exit::Done, "{}", said.err);
        place.git(&["init", "--quiet", "--initial-branch=main"]);
        place.commit("Open");
        place
    }

    fn shop(&self) -> PathBuf {
        self.folder.path().join("shop")
    }

    fn setup(&self, args: &[&str]) -> Setup {
        if args.contains(&"init") {
            return Setup::new("flowline.toml", "../grants.toml", ".flowline");
        }
        let shop = self.shop();
        Setup::new(shop.join("flowline.toml"), self.folder.path().join("grants.toml"), shop.join(".flowline"))
            .source(crate::source::GitSource::new(&shop))
            .deployer("/bin/true")
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", message]);
    }

    fn change(&self, version: &str, page: &str) {
        std::fs::write(self.shop().join("web/VERSION"), version).unwrap();
        std::fs::write(self.shop().join("web/index.html"), page).unwrap();
        self.commit(version);
    }

    #[expect(clippy::disallowed_methods, reason = "the test plays the developer")]
    fn git(&self, args: &[&str]) {
        let output = std::process::Command::new("git")
            .current_dir(self.shop())
            .args(["-c", "user.name=ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"])
            .args(args)
            .envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null")])
            // The same commits each time, so that what names them can be compared.
            .envs([
                ("GIT_AUTHOR_DATE", "2026-07-01T12:00:00Z"),
                ("GIT_COMMITTER_DATE", "2026-07-01T12:00:00Z"),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn said(&self, args: &[&str]) -> Said {
        self.said_in(args, Surroundings { directory: self.shop(), ..Surroundings::none() }).await
    }

    async fn said_in(&self, args: &[&str], around: Surroundings) -> Said {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let cli = Cli::new().name("deployer").surroundings(around);
        let setup = self.setup(args);
        let args = ["deployer"].iter().chain(args);
        let exit = cli.try_run(args, setup, &mut out, &mut err).await;
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.replace(&*self.folder.path().to_string_lossy(), "FOLDER")
        };
        Said { exit, out: text(out), err: text(err) }
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// Without what differs each time: times, ports, durations.
fn steady(text: &str) -> String {
    let mut steady = String::new();
    for line in text.lines() {
        let words: Vec<String> = line
            .split(' ')
            .map(|word| match word {
                word if word.starts_with("2026-") || word.starts_with("2027-") => "DATE".to_owned(),
                word if word.len() == 8 && word.as_bytes()[2] == b':' && word.as_bytes()[5] == b':' => {
                    "TIME".to_owned()
                }
                word if word.starts_with("sha256:") => "DIGEST".to_owned(),
                word if word.starts_with("127.0.0.1:") => "ROUTER".to_owned(),
                word => word.to_owned(),
            })
            .collect();
        steady.push_str(&words.join(" "));
        steady.push('\n');
    }
    steady
}

async fn refused(args: &[&str]) -> Said {
    let place = Place { folder: tempfile::tempdir().unwrap() };
    place.said(args).await
}

#[tokio::test]
async fn help_works_anywhere_and_names_commands_and_exit_codes() {
    let said = refused(&["--help"]).await;
    assert_eq!((said.exit, said.err.as_str()), (Exit::Done, ""));
    insta::assert_snapshot!(said.out, @r"
    Gets changes from a pull request to the people who use them

    Usage: deployer [OPTIONS] <COMMAND>

    Commands:
      plan         Say what a deployment would change, and what it may not touch; nothing happens
      apply        Deploy: build, stage and verify beside what runs, then switch
      status       Show what runs where, and what waits
      history      Show the deployments of an environment, the newest first, with the run of each
      logs         Show what the steps of a run printed
      report       Write a run's page in HTML: one self-contained file
      approve      Agree with the plan of a run that waits for approval
      resolve      Say what became of a step that was cut, where nobody but a person can know
      signal       Tell a run that waits something from outside
      rollback     Bring back the release before, without CI
      why          Show everything that was recorded about something, with the reasons
      graph        Draw the steps of a deployment, and what waits for what
      ci           The thin file that starts the deployer in a CI system
      schema       Print the JSON Schema of a file, for editors
      completions  Print what a shell needs to complete this command line
      preview      Give a change an environment of its own, or move it on after a push
      receive      Take in GitHub's `pull_request` webhook: a change opens, moves on, merges or closes
      propose      Say that there is a change, where no forge tells of it
      merged       Say that a change was merged, where no forge tells of it
      verify       Ask the topology's probes and smoke command of what runs in an environment
      promote      Move a merged change on: what was verified, by digest
      release      Turn a feature on for a share of its audience, without a deployment
      close        Remove a change's preview
      timeline     Show how far a change has got, and when it reached what
      serve        Hold the router and keep alive what should run, until told to stop
      halt         Stop every process that this deployer runs on this host; `serve` starts them again
      init         Write a first topology, the grants beside it, and a page to deliver

    Options:
      -h, --help  Print help

    Everywhere:
          --json             Print one JSON object on standard output; events of runs go to standard
                             error, one a line
      -q, --quiet            Show no progress
          --events <FILE>    Write the events of runs to FILE, one JSON object a line
          --topology <FILE>  Read the topology from FILE
          --grants <FILE>    Read the owner's grants from FILE
          --state <DIR>      Keep state in DIR
          --actor <NAME>     Who does it: named in the journal

    Exit codes:
        0  done, or nothing to do
        1  it failed, or the call is wrong
        2  plan: there is something to do; ci check: the file differs
        3  not now: waits for people, a time or another process; the same call goes on
      130  interrupted; the same call goes on

    COMMAND --help shows examples.
    ");
}

#[tokio::test]
async fn every_command_shows_examples() {
    let root = super::args::command(&Cli::new(), "deployer");
    for command in root.get_subcommands().flat_map(|command| {
        let below: Vec<_> = command.get_subcommands().collect();
        if below.is_empty() { vec![command] } else { below }
    }) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:\n"), "{}", command.get_name());
    }
}

#[tokio::test]
async fn the_help_of_a_command_shows_how_it_is_called() {
    let said = refused(&["plan", "--help"]).await;
    insta::assert_snapshot!(said.out, @r"
    Say what a deployment would change, and what it may not touch; nothing happens

    Usage: deployer plan [OPTIONS] [ENVIRONMENT]

    Arguments:
      [ENVIRONMENT]  The environment; may be left out if there is only one

    Options:
      -r, --revision <REV>  What to deploy: a commit, a branch or a tag [default: what CI checked out,
                            or the main branch]
          --out <FILE>      Keep the sealed plan in FILE
          --markdown        Write Markdown
          --no-cache        As if nothing had been built before
      -h, --help            Print help

    Everywhere:
          --json             Print one JSON object on standard output; events of runs go to standard
                             error, one a line
      -q, --quiet            Show no progress
          --events <FILE>    Write the events of runs to FILE, one JSON object a line
          --topology <FILE>  Read the topology from FILE
          --grants <FILE>    Read the owner's grants from FILE
          --state <DIR>      Keep state in DIR
          --actor <NAME>     Who does it: named in the journal

    Examples:
      plan production                   what the newest commit of the main branch would change
      plan production --revision v1.2   the same for a tag, a branch or a commit
      plan production --out plan.json   keep the sealed plan, for `apply --plan`
      plan production --markdown        a comment for a pull request

    Ends with 0 if there is nothing to do, 2 if there is, 1 if it is denied or fails.
    ");
}

#[tokio::test]
async fn a_mistyped_command_is_recognised() {
    let said = refused(&["pln"]).await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Failed, ""));
    insta::assert_snapshot!(said.err, @r"
    error: unrecognized subcommand 'pln'

      tip: a similar subcommand exists: 'plan'

    Usage: deployer [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
    let said = refused(&["pln", "--json"]).await;
    assert_eq!((said.exit, said.err.as_str()), (Exit::Failed, ""));
    let error = &said.json()["error"];
    assert_eq!(error["message"], "unrecognized subcommand 'pln'");
    assert_eq!(error["help"], "a similar subcommand exists: 'plan'");
}

#[tokio::test]
async fn a_broken_topology_is_shown_with_its_place() {
    let place = Place::new().await;
    let file = place.shop().join("flowline.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("kind = \"static\"", "kind = \"statik\"")).unwrap();
    let said = place.said(&["status"]).await;
    assert_eq!((said.exit, said.out.as_str()), (Exit::Failed, ""));
    insta::assert_snapshot!(said.err, @r#"
    error: 1 thing is wrong with FOLDER/shop/flowline.toml

    FOLDER/shop/flowline.toml:8:8: unknown variant `statik`, expected `static` or `process` [config.unknown-value]
      8 | kind = "statik"
        |        ^
      help: did you mean `static`?
    "#);
    let json = place.said(&["status", "--json"]).await;
    let diagnostic = &json.json()["error"]["diagnostics"][0];
    assert_eq!(
        (&diagnostic["code"], &diagnostic["place"]["line"]),
        (&"config.unknown-value".into(), &8.into())
    );
    let around = Surroundings {
        env: [("GITHUB_ACTIONS".to_owned(), "true".to_owned())].into(),
        ..Surroundings::none()
    };
    let said = place.said_in(&["status"], around).await;
    assert!(
        said.err.starts_with("::error file=FOLDER/shop/flowline.toml,line=8,col=8::unknown variant"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn mistyped_names_are_recognised() {
    let place = Place::new().await;
    for (args, expected) in [
        (&["status", "productoin"][..], "there is no environment `productoin`|did you mean `production`?"),
        (
            &["plan", "produktion"],
            "there is no environment that stays `produktion`|did you mean `production`?",
        ),
        (&["release", "new-pgae", "10"], "there is no flag `new-pgae`|did you mean `new-page`?"),
        (&["preview", "pr-1"], "there is no change `pr-1`|there is no change yet"),
        (&["logs", "productio"], "there is no run `productio`|did you mean `production`?"),
        (&["logs", "production"], "there is no run in environment `production`|deploy to it first"),
        (&["schema", "topolgy"], "there is no schema `topolgy`|did you mean `topology`?"),
    ] {
        let said = place.said(args).await;
        let (message, help) = expected.split_once('|').unwrap();
        assert_eq!(said.exit, Exit::Failed, "{args:?}");
        assert_eq!(said.err, format!("error: {message}\n  help: {help}\n"), "{args:?}");
    }
}

#[tokio::test]
async fn a_deployment_is_planned_applied_looked_at_and_taken_back() {
    let place = Place::new().await;
    let plan = place.said(&["plan"]).await;
    assert_eq!(plan.exit, Exit::Changes, "{}", plan.err);
    insta::assert_snapshot!(steady(&plan.out), @r"
    plan `deploy production` for `shop`: 3 to change, 2 to run
      > web/build (flowline/build@1, idempotent): build `web` from `web` at 4dc5658a
      + web/stage (flowline/stage@1, probed): stage `web` in `production` beside what runs
          + create dir:production/web
      + show (flowline/show@1, idempotent): show it beside the running release
          + create host:next-production-shop.localhost
              only while it is verified
      > verify (flowline/verify@1, idempotent): verify at `next-production`: 1 probe
      + switch (flowline/switch@1, probed): switch `production` (deployment 1)
          + create host:shop.localhost
              web: built from tree 6cc27d919007
    sealed as DIGEST
    to do it: deployer apply production
    ");

    let applied = place.said(&["apply"]).await;
    assert_eq!(applied.exit, Exit::Done, "{}", applied.err);
    insta::assert_snapshot!(applied.out, @r"
    production is at 1.0.0 (deployment 1, commit 4dc5658a)
      web  http://shop.localhost  (built)
    run deploy-1-e4f520ea-0
    ");
    assert!(applied.err.contains("web/build: finished in "), "{}", applied.err);
    assert_eq!(place.said(&["plan"]).await.exit, Exit::Done, "nothing is left to do");
    let again = place.said(&["apply", "--json"]).await;
    assert_eq!((again.exit, &again.json()["result"]["changed"]), (Exit::Done, &false.into()));

    place.change("1.1.0", "<title>shop</title> new");
    let second = place.said(&["apply", "--json"]).await;
    assert_eq!(second.json()["result"]["version"], "1.1.0", "{}", second.err);
    for line in second.err.lines().filter(|line| line.starts_with('{')) {
        let event: Value = serde_json::from_str(line).unwrap();
        assert!(event["event"].is_string() && event["format_version"] == 1, "{line}");
    }
    assert!(second.err.contains(r#""event":"run.ended""#), "{}", second.err);

    let back = place.said(&["rollback"]).await;
    assert_eq!(back.exit, Exit::Done, "{}", back.err);
    insta::assert_snapshot!(back.out, @r"
    production is back at 1.0.0 (deployment 3, commit 4dc5658a)
      web  http://shop.localhost  (as it was)
    run rollback-3-e4f520ea-0
    ");
    let history = place.said(&["history"]).await;
    insta::assert_snapshot!(steady(&history.out), @r"
    production
        3  1.0.0     4dc5658a  rolled back  DATE TIME  rollback-3-e4f520ea-0
        2  1.1.0     4ae3ea91  deployed  DATE TIME  deploy-2-b564fcd8-0
        1  1.0.0     4dc5658a  deployed  DATE TIME  deploy-1-e4f520ea-0
    ");
    let status = place.said(&["status"]).await;
    insta::assert_snapshot!(steady(&status.out), @r"
    production  1.0.0  deployment 3, commit 4dc5658a, since DATE TIME
      web  http://shop.localhost  1.0.0
    nobody serves this host; `deployer serve` does
    ");
    let logs = place.said(&["logs", "deploy-1"]).await;
    assert!(logs.out.starts_with("web/build | built `web` 1.0.0: "), "{}", logs.out);
    let logs = place.said(&["logs", "deploy-1", "web/build", "--json"]).await;
    assert_eq!(logs.json()["result"]["steps"][0]["step"], "web/build");
    let why = place.said(&["why", "production"]).await;
    assert!(
        why.out.lines().last().unwrap().contains("service.rolledback  environment/production"),
        "{}",
        why.out
    );
    let why = place.said(&["why", "deploy-1-e4f520ea-0"]).await;
    insta::assert_snapshot!(why.out, @r"
    run deploy-1-e4f520ea-0 by flowline, deploy production: succeeded, 5 of 5 steps are done
      web/build: done, it was its turn
      web/stage: done, it changes `dir:production/web`
      show: done, it changes `host:next-production-shop.localhost`
      verify: done, it was its turn
      switch: done, it changes `host:shop.localhost`
    ");
    let graph = place.said(&["graph", "deploy-1"]).await;
    insta::assert_snapshot!(graph.out, @r"
    deploy production
      web/build (flowline/build@1)
      web/stage (flowline/stage@1)  after web/build
      show (flowline/show@1)  after web/stage
      verify (flowline/verify@1)  after show, web/stage
      switch (flowline/switch@1)  after verify, web/stage
    ");
    let report = place.said(&["report", "deploy-1"]).await;
    assert!(report.out.starts_with("<!doctype html>"), "{}", report.out);
}

#[tokio::test]
async fn a_plan_that_was_looked_at_is_applied_as_it_was_or_not_at_all() {
    let place = Place::new().await;
    let file = place.folder.path().join("plan.json");
    let file = file.to_str().unwrap();
    assert_eq!(place.said(&["plan", "--out", file]).await.exit, Exit::Changes);
    // What was looked at does not move with the branch.
    place.change("1.1.0", "<title>shop</title> new");
    let applied = place.said(&["apply", "--plan", file]).await;
    assert!(
        applied.out.starts_with("production is at 1.0.0 (deployment 1"),
        "{}{}",
        applied.out,
        applied.err
    );
    assert_eq!(place.said(&["plan", "--out", file]).await.exit, Exit::Changes);
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Done);
    assert_eq!(place.said(&["rollback"]).await.exit, Exit::Done);
    let stale = place.said(&["apply", "--plan", file]).await;
    assert_eq!(stale.exit, Exit::Failed);
    assert!(stale.err.contains("something that it depends on moved"), "{}", stale.err);
    let edited = std::fs::read_to_string(file).unwrap().replace("1.1.0", "6.6.6").replace("update", "keep");
    std::fs::write(file, edited).unwrap();
    let edited = place.said(&["apply", "--plan", file]).await;
    assert!(edited.err.contains("was changed after it was sealed"), "{}", edited.err);
}

#[tokio::test]
async fn what_is_denied_is_refused_before_anything_happens() {
    let place = Place::new().await;
    std::fs::write(place.folder.path().join("grants.toml"), "").unwrap();
    for verb in ["plan", "apply"] {
        let said = place.said(&[verb]).await;
        assert_eq!(said.exit, Exit::Failed);
        assert!(
            said.err.contains("error: the plan is denied: ") && said.err.contains("help: ask the owner"),
            "{}",
            said.err
        );
    }
    let json = place.said(&["apply", "--json"]).await;
    assert_eq!(json.json()["error"]["kind"], "denied");
}

#[tokio::test]
async fn a_program_is_called_as_its_file_is() {
    let place = Place::new().await;
    let cli = Cli::new().surroundings(Surroundings { directory: place.shop(), ..Surroundings::none() });
    for (args, expected) in [
        (&["plan"][..], "to do it: shipit apply production\n"),
        (&["status"], "nobody serves this host; `shipit serve` does\n"),
        (&["ci", "render"], "run: exec shipit apply production\n"),
        (&["completions", "bash"], "complete -F _shipit -o nosort"),
        (&["completions", "--help"], "> ~/.zfunc/_shipit\n"),
        (&["--help"], "Usage: shipit [OPTIONS] <COMMAND>\n"),
    ] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["/usr/local/bin/shipit"].iter().chain(args);
        let _exit = cli.try_run(args, place.setup(&[]), &mut out, &mut err).await;
        let said = String::from_utf8([out, err].concat()).unwrap();
        assert!(said.contains(expected), "{said}");
        for other in ["deployer apply", "`deployer ", "_deployer", "Usage: deployer"] {
            assert!(!said.contains(other), "{said}");
        }
    }
}

#[tokio::test]
async fn what_was_built_before_is_built_anew_if_asked() {
    let place = Place::new().await;
    let page = std::fs::read_to_string(place.shop().join("web/index.html")).unwrap();
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Done);
    place.change("1.1.0", "<title>shop</title> new");
    assert_eq!(place.said(&["apply"]).await.exit, Exit::Done);
    place.change("1.0.0\n", &page);
    let reused = place.said(&["plan"]).await;
    assert!(!reused.out.contains("web/build"), "{}", reused.out);
    let anew = place.said(&["plan", "--no-cache"]).await;
    assert!(anew.out.contains("> web/build"), "{}", anew.out);
    assert!(anew.out.ends_with("to do it: deployer apply production --no-cache\n"), "{}", anew.out);
    let applied = place.said(&["apply", "--no-cache", "--allow-other-build", "--json"]).await;
    assert_eq!(applied.json()["result"]["built"], serde_json::json!(["web"]), "{}", applied.out);
    let logs = place.said(&["logs", "production", "web/build"]).await;
    assert!(logs.out.starts_with("built `web` 1.0.0: "), "{}", logs.out);
}

#[tokio::test]
async fn the_file_for_ci_is_rendered_written_and_checked() {
    let place = Place::new().await;
    assert_eq!(place.said(&["ci", "check"]).await.exit, Exit::Changes);
    assert_eq!(place.said(&["ci", "render", "github", "--write"]).await.exit, Exit::Done);
    assert_eq!(place.said(&["ci", "check", "github"]).await.exit, Exit::Done);
    let file = place.shop().join(".github/workflows/shop.yml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("run: exec deployer apply production"), "{text}");
    std::fs::write(&file, text.replace("contents: read", "contents: write")).unwrap();
    let differs = place.said(&["ci", "check"]).await;
    assert_eq!(differs.exit, Exit::Changes);
    assert!(differs.out.contains("-      contents: write\n+      contents: read\n"), "{}", differs.out);
}

#[tokio::test]
async fn the_file_for_ci_is_rendered_as_the_deployer_says() {
    let place = Place::new().await;
    let surroundings = Surroundings { directory: place.shop(), ..Surroundings::none() };
    let cli = Cli::new().surroundings(surroundings);
    let rendered = async |cli: &Cli, system: &str| {
        let args = ["deployer", "ci", "render", system];
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = cli.try_run(args, place.setup(&args), &mut out, &mut err).await;
        assert_eq!(exit, Exit::Done, "{}", String::from_utf8_lossy(&err));
        String::from_utf8(out).unwrap()
    };
    let usual = rendered(&cli, "github").await;
    assert!(usual.contains("queue: max\n") && usual.contains("uses: actions/checkout@v5\n"), "{usual}");
    let gitlab = rendered(&cli, "gitlab").await;
    let checkout = "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8".to_owned();
    let target = flowline_pipeline::ci::GitHub { checkout, ..flowline_pipeline::ci::GitHub::portable() };
    let cli = cli.ci_target(target);
    let own = rendered(&cli, "github").await;
    assert!(!own.contains("queue") && own.contains("checkout@08c6903cd8c0"), "{own}");
    assert_eq!(rendered(&cli, "gitlab").await, gitlab);
}

#[tokio::test]
async fn in_ci_a_run_speaks_its_language() {
    let place = Place::new().await;
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let env = [
        ("GITHUB_ACTIONS", "true".to_owned()),
        ("GITHUB_OUTPUT", path("output")),
        ("GITHUB_STEP_SUMMARY", path("summary")),
        ("GITHUB_ACTOR", "octocat".to_owned()),
    ];
    for name in ["output", "summary"] {
        std::fs::write(path(name), "").unwrap();
    }
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let around = Surroundings { env, directory: place.shop(), ..Surroundings::none() };
    let said = place.said_in(&["apply"], around.clone()).await;
    assert_eq!(said.exit, Exit::Done, "{}", said.err);
    assert!(said.err.contains("::group::web/build\n"), "{}", said.err);
    let output = std::fs::read_to_string(path("output")).unwrap();
    assert!(output.contains("version<<") && output.contains("\n1.0.0\n"), "{output}");
    place.change("1.1.0", "<title>shop</title> new");
    assert_eq!(place.said_in(&["plan"], around.clone()).await.exit, Exit::Changes);
    let (here, there) =
        (place.said(&["plan", "--json"]).await, place.said_in(&["plan", "--json"], around).await);
    assert_eq!(
        here.json()["result"]["digest"],
        there.json()["result"]["digest"],
        "the same plan as on a laptop"
    );
    let summary = std::fs::read_to_string(path("summary")).unwrap();
    assert!(summary.contains("### plan `deploy production` for `shop`"), "{summary}");
    let why = place.said(&["why", "production", "--json"]).await;
    assert_eq!(why.json()["result"]["events"][0]["actor"], "octocat");
}

#[tokio::test]
async fn on_a_terminal_a_run_is_drawn_and_stays() {
    let place = Place::new().await;
    let around = Surroundings {
        out_terminal: true,
        err_terminal: true,
        directory: place.shop(),
        ..Surroundings::none()
    };
    let said = place.said_in(&["apply"], around.clone()).await;
    assert!(said.err.contains("\x1b[J") && said.err.contains("✓"), "{:?}", said.err);
    let last = said.err.rsplit("\x1b[J").next().unwrap();
    assert!(last.contains("succeeded") && last.contains("switch"), "{last:?}");
    assert!(said.out.contains("\x1b["), "{:?}", said.out);
    let env = [("NO_COLOR".to_owned(), "1".to_owned())].into();
    let said = place.said_in(&["status"], Surroundings { env, ..around }).await;
    assert!(!said.out.contains('\x1b'), "{:?}", said.out);
}

#[tokio::test]
async fn a_shell_can_complete_commands_of_the_deployers_own() {
    let own = clap::Command::new("greet").about("Says hello");
    let cli = Cli::new().name("deployer").command(own, async |_, _| Ok(Answer::text("hello\n")));
    let setup = || Setup::new("flowline.toml", "grants.toml", ".flowline");
    for shell in ["bash", "zsh", "fish"] {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = cli.try_run(["deployer", "completions", shell], setup(), &mut out, &mut err).await;
        assert_eq!(exit, Exit::Done);
        let script = String::from_utf8(out).unwrap();
        assert!(script.contains("greet") && script.contains("rollback"), "{shell}");
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(cli.try_run(["deployer", "greet", "--json"], setup(), &mut out, &mut err).await, Exit::Done);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"command\":\"greet\",\"exit\":0,\"format_version\":1,\"result\":{}}\n"
    );
}

#[test]
fn the_first_project_is_what_its_readers_expect() {
    let topology = include_str!("first/flowline.toml").replace("{app}", "shop").replace("{shepherd}", "ada");
    let document = flowline_core::config::Document::new(Path::new("flowline.toml"), topology);
    assert_eq!(crate::topology::Topology::read(&document).unwrap().problems(), []);
}

#[tokio::test]
async fn secrets_are_hidden_in_ci_before_anything_is_said_and_refused_in_a_plan() {
    let place = Place::new().await;
    let env = [("GITHUB_ACTIONS".to_owned(), "true".to_owned())].into();
    let around = Surroundings { env, directory: place.shop(), ..Surroundings::none() };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let cli = Cli::new().name("deployer").surroundings(around);
    // A word of every plan for production.
    let setup = place.setup(&[]).secrets([("WORD", Secret::new("production"))]);
    cli.try_run(["deployer", "plan", "production"], setup, &mut out, &mut err).await;
    let err = String::from_utf8(err).unwrap();
    assert!(err.starts_with("::add-mask::production\n"), "{err}");
    assert!(err.contains("holds the value of the secret `WORD`"), "{err}");
}
