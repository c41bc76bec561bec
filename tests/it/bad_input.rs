//! Bad input: each a clear, typed error, and nothing half-done left behind.

use std::path::Path;

use flowline::{
    core::{
        config::Document,
        error::{ErrorKind, Kinded, chain},
        notify::CollectingNotifier,
    },
    prelude::*,
    topology::Topology,
};

const GOOD: &str = r#"app = "shop"
shepherd = "ada"

[components.web]
kind = "static"
path = "web"
address = "http://app.localhost"

[environments.production]
"#;

fn said(text: &str) -> String {
    Topology::read(&Document::new("flowline.toml", text)).unwrap_err().to_string()
}

fn spoiled(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    said(&GOOD.replace(from, to))
}

#[test]
fn every_problem_of_a_topology_is_shown_with_its_place() {
    assert!(Topology::read(&Document::new("flowline.toml", GOOD)).is_ok());
    let all = [
        spoiled("path = \"web\"", "paht = \"web\""),
        spoiled("path = \"web\"", "path = 7"),
        spoiled("kind = \"static\"", "kind = \"statik\""),
        spoiled("http://app.localhost", "app.localhost"),
        spoiled("http://app.localhost", "https://größe.example"),
        spoiled("path = \"web\"", "path = \"../../etc\""),
        spoiled("[components.web]", "[components.\"../../etc\"]"),
        spoiled("kind = \"static\"", "kind = \"process\""),
        said(&format!(
            "{GOOD}after = [\"staging\"]\n[environments.staging]\nafter = [\"test\"]\n[environments.test]\nafter = [\"production\"]\n"
        )),
        said(&format!("{GOOD}after = [\"prodution\", \"preview\"]\n")),
        said(&format!(
            "{GOOD}[components.api]\nkind = \"static\"\npath = \"api\"\naddress = \"http://app.localhost/\"\n"
        )),
        said(&format!("{GOOD}[verify]\nprobes = [{{ component = \"wbe\" }}]\n")),
        said("app = \"shop\"\nshepherd = \"ada\"\ncomponents = {}\nenvironments = {}\n"),
        said("app = \"Shop\"\n"),
    ];
    insta::assert_snapshot!(all.join("\n---\n"), @r#"
    flowline.toml:6:1: unknown field `paht`, expected one of `kind`, `path`, `address`, `command`, `env`, `ready`, `ready_timeout`, `stop_grace` [config.unknown-key]
      6 | paht = "web"
        | ^
      help: did you mean `path`?
    ---
    flowline.toml:6:8: invalid type: integer `7`, expected a string [config.type]
      6 | path = 7
        |        ^
    ---
    flowline.toml:5:8: unknown variant `statik`, expected `static` or `process` [config.unknown-value]
      5 | kind = "statik"
        |        ^
      help: did you mean `static`?
    ---
    flowline.toml:7:11: `app.localhost` is not an address: it has no scheme; start it with `https://` or `http://` [config.value]
      7 | address = "app.localhost"
        |           ^
    ---
    flowline.toml:7:11: `https://größe.example` is not an address: 'ö' cannot stand in a host name; write its ASCII form (punycode, `xn--…`), or go through `url::Url` (feature `url`), which converts it [config.value]
      7 | address = "https://größe.example"
        |           ^
    ---
    flowline.toml:6:1: `../../etc` is not a directory inside the repository [topology.path]
      6 | path = "../../etc"
        | ^
      help: write it relative to the repository, without `..`
    ---
    flowline.toml:4:13: `../../etc` is not a component's name: '.' at character 1 is not allowed; use lower-case letters a-z, digits and `-` [config.value]
      4 | [components."../../etc"]
        |             ^
    ---
    flowline.toml:5:1: `web` is a process without a command [topology.kind]
      5 | kind = "process"
        | ^
      help: add `command = ["PROGRAM", …]`
    ---
    flowline.toml:10:1: environments wait for each other: production -> staging -> test -> production [topology.cycle]
      10 | after = ["staging"]
         | ^
      help: let one of them come first
    ---
    flowline.toml:10:1: `production` comes after previews, but there are none [topology.unknown]
      10 | after = ["prodution", "preview"]
         | ^
      help: add `[previews]`
    flowline.toml:10:1: `production` comes after `prodution`, which is not an environment [topology.unknown]
      10 | after = ["prodution", "preview"]
         | ^
      help: did you mean `production`?
    ---
    flowline.toml:7:1: `web` in `production` has the address of `api` in `production`: http://app.localhost [topology.address]
      7 | address = "http://app.localhost"
        | ^
      help: give one of them another host or path
    ---
    flowline.toml:11:13: there is no component `wbe` [topology.unknown]
      11 | probes = [{ component = "wbe" }]
         |             ^
      help: there is `web`
    ---
    flowline.toml:3:1: there is no component [topology.empty]
      3 | components = {}
        | ^
      help: add `[components.NAME]`
    flowline.toml:4:1: there is no environment [topology.empty]
      4 | environments = {}
        | ^
      help: add `[environments.production]`
    ---
    flowline.toml:1:7: `Shop` is not an application's name: 'S' at character 1 is not allowed; use lower-case letters a-z, digits and `-` [config.value]
      1 | app = "Shop"
        |       ^
    "#);
}

#[test]
fn a_base_label_of_63_characters_still_gets_a_preview_address() {
    let label = "a".repeat(63);
    let topology = GOOD.replace("app.localhost", &format!("{label}.localhost"));
    let topology = Topology::read(&Document::new("flowline.toml", topology)).unwrap();
    let address = topology.address_in(&"pr-123".parse().unwrap(), &"web".parse().unwrap()).unwrap();
    let first = address.host().as_str().split('.').next().unwrap();
    assert!(first.len() <= 63 && first.starts_with("pr-123-"), "{address}");
}

fn setup(dir: &Path) -> Setup {
    std::fs::write(dir.join("flowline.toml"), GOOD).unwrap();
    std::fs::write(dir.join("grants.toml"), "grants = []\n").unwrap();
    Setup::new(dir.join("flowline.toml"), dir.join("grants.toml"), dir.join("state"))
        .notifier(CollectingNotifier::default())
}

#[tokio::test]
async fn wrong_files_leave_no_state_directory_behind() {
    let dir = tempfile::tempdir().unwrap();
    let setup = setup(dir.path());
    std::fs::write(dir.path().join("grants.toml"), "[[grants]]\napp = \"shop\"\nresource = \"host:*.com\"\n")
        .unwrap();
    let error = Delivery::open(setup).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let text = error.to_string().replace(&dir.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text, @r#"
    DIR/grants.toml:3:12: `host:*.com` cannot be granted: it would cover a whole top-level domain [config.value]
      3 | resource = "host:*.com"
        |            ^
    "#);
    assert!(!dir.path().join("state").exists());
}

#[tokio::test]
async fn an_occupied_port_says_which_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let delivery = Delivery::open(setup(dir.path())).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = delivery.serve(port).await.unwrap_err();
    let text = chain(&error).replace(&port.to_string(), "PORT");
    insta::assert_snapshot!(text, @"cannot listen on 127.0.0.1:PORT: cannot listen on 127.0.0.1:PORT: port PORT is taken by another process; stop that one, or choose another port (0 lets the system choose)");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn one_process_serves_and_another_is_told_who() {
    let dir = tempfile::tempdir().unwrap();
    let delivery = Delivery::open(setup(dir.path())).unwrap();
    let serving = delivery.serve(0).await.unwrap();
    let other = Delivery::open(setup(dir.path())).unwrap();
    let error = other.serve(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    serving.stop().await.unwrap();
    other.serve(0).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_state_directory_that_is_a_file_or_full_is_a_typed_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state"), "in the way").unwrap();
    let error = Delivery::open(setup(dir.path())).unwrap_err();
    assert!(matches!(error, DeliveryError::StateDirectory { .. }), "{error}");
    std::fs::remove_file(dir.path().join("state")).unwrap();

    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mounted =
        rustix::mount::mount("tmpfs", &state, "tmpfs", rustix::mount::MountFlags::empty(), Some(c"size=64k"));
    if let Err(error) = mounted {
        #[expect(
            clippy::disallowed_methods,
            reason = "whether a skip is a failure is said by the environment"
        )]
        let may_skip = std::env::var_os("FLOWLINE_CI").is_none();
        assert!(may_skip, "a small disk is needed here: {error}");
        println!("skipped: a small disk can't be mounted here: {error}");
        return;
    }
    let filled = std::fs::write(state.join("filler"), vec![0; 60 * 1024]);
    let opened = Delivery::open(setup(dir.path()));
    rustix::mount::unmount(&state, rustix::mount::UnmountFlags::DETACH).unwrap();
    filled.unwrap();
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert!(chain(&error).contains("full") || chain(&error).contains("space"), "{}", chain(&error));
}

#[tokio::test]
async fn a_missing_git_and_a_missing_repository_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let production = "production".parse().unwrap();
    let deploy = async |source: GitSource| {
        let delivery = Delivery::open(setup(dir.path()).source(source)).unwrap();
        let error = delivery.deploy(&production, "--upload-pack=touch x").await.unwrap_err();
        assert_eq!(delivery.journal_events().await.unwrap(), 0, "nothing was begun");
        chain(&error).replace(&dir.path().display().to_string(), "DIR")
    };
    let no_git = deploy(GitSource::new(dir.path()).with_program("/nowhere/git")).await;
    let no_repository = deploy(GitSource::new(dir.path())).await;
    #[expect(clippy::disallowed_methods, reason = "the test makes a repository")]
    let made = std::process::Command::new("git").arg("init").arg("--quiet").arg(dir.path()).status().unwrap();
    assert!(made.success());
    let no_revision = deploy(GitSource::new(dir.path())).await;
    insta::assert_snapshot!([no_git, no_repository, no_revision].join("\n---\n"), @r"
    cannot run `/nowhere/git`, which reads DIR: install it or set its path: No such file or directory (os error 2)
    ---
    DIR is not a git repository that can be read: fatal: not a git repository (or any of the parent directories): .git
    ---
    no commit goes by `--upload-pack=touch x` in DIR; was it fetched?
    ");
}

#[tokio::test]
async fn an_unknown_name_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let delivery = Delivery::open(setup(dir.path())).unwrap();
    let said = [
        delivery.deploy(&"prod".parse().unwrap(), "main").await.unwrap_err().to_string(),
        delivery.rollback(&"production".parse().unwrap()).await.unwrap_err().to_string(),
        delivery.preview(&"pr-9".parse().unwrap()).await.unwrap_err().to_string(),
        delivery
            .release("checkout", &"production".parse().unwrap(), 10.0, None)
            .await
            .unwrap_err()
            .to_string(),
        delivery.receive(b"{}").await.unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(said.join("\n"), @r"
    there is no environment that stays `prod`; the topology has `production`
    `production` has no earlier release to go back to
    there is no change `pr-9`; feed in its webhook with `Delivery::receive`
    there is no flag `checkout`; the topology declares 
    the payload has no `action`; is it a GitHub `pull_request` event?
    ");
    delivery.close(&"pr-9".parse().unwrap()).await.unwrap();
}
