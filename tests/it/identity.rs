//! What was tested is what is deployed: artifacts are known by the tree that made them.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use flowline::{
    core::{error::Kinded, notify::CollectingNotifier},
    prelude::*,
};

/// A repository with one static component, and a delivery over it in `dir`.
struct Shop {
    dir: tempfile::TempDir,
}

const TOPOLOGY: &str = r#"
app = "shop"
shepherd = "ada"

[components.web]
kind = "static"
path = "web"
address = "http://app.localhost"

[environments.production]
after = ["preview"]

[previews]
base = "production"
ttl = "1h"

[verify]
probes = [{ component = "web", path = "/", contains = "good" }]
"#;

const GRANTS: &str = r#"
grants = [
    { app = "shop", resource = "host:app.localhost" },
    { app = "shop", resource = "host:*-app.localhost" },
    { app = "shop", resource = "dir:*" },
]
"#;

impl Shop {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shop = Self { dir };
        std::fs::create_dir_all(shop.path("repository/web")).unwrap();
        std::fs::write(shop.path("flowline.toml"), TOPOLOGY).unwrap();
        std::fs::write(shop.path("grants.toml"), GRANTS).unwrap();
        shop.git(&["init", "--quiet", "--initial-branch=main"]);
        shop.page("good one");
        shop
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn page(&self, text: &str) -> String {
        std::fs::write(self.path("repository/web/index.html"), text).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "-m", text]);
        self.head("HEAD")
    }

    fn head(&self, revision: &str) -> String {
        self.git(&["rev-parse", revision])
    }

    #[expect(clippy::disallowed_methods, reason = "the test plays the people at the forge")]
    fn git(&self, args: &[&str]) -> String {
        let output = Command::new("git")
            .current_dir(self.path("repository"))
            .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
            .args(args)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn open(&self, notifier: CollectingNotifier) -> Delivery {
        let setup = Setup::new(self.path("flowline.toml"), self.path("grants.toml"), self.path("state"));
        Delivery::open(setup.source(GitSource::new(self.path("repository"))).notifier(notifier)).unwrap()
    }
}

fn payload(action: &str, head: &str, merged: Option<&str>) -> Vec<u8> {
    serde_json::json!({
        "action": action,
        "number": 7,
        "pull_request": {
            "state": if merged.is_some() { "closed" } else { "open" },
            "title": "A better page", "merged": merged.is_some(), "merge_commit_sha": merged,
            "user": { "login": "grace" },
            "head": { "ref": "better", "sha": head },
            "base": { "ref": "main", "sha": head }
        }
    })
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_with_the_verified_tree_is_not_rebuilt_and_another_is() {
    let shop = Shop::new();
    let delivery = shop.open(CollectingNotifier::default());
    let serving = delivery.serve(0).await.unwrap();
    let production: EnvironmentName = "production".parse().unwrap();
    delivery.deploy(&production, "main").await.unwrap();

    shop.git(&["switch", "--quiet", "--create", "better"]);
    let head = shop.page("good two");
    let change = delivery.receive(&payload("opened", &head, None)).await.unwrap().change.id;
    let preview = delivery.preview(&change).await.unwrap();

    // Not verified, not merged: both reasons are named.
    let early = delivery.promote(&change, &production).await.unwrap_err();
    assert_eq!(
        early.to_string(),
        "pr-7 may not go to `production` now: it was not verified in `preview`; its change is not merged"
    );
    assert!(delivery.verify(&preview.environment).await.unwrap().passed());

    // The merge result has the verified tree: the artifact goes by digest.
    shop.git(&["switch", "--quiet", "main"]);
    shop.git(&["merge", "--quiet", "--no-ff", "--no-edit", "better"]);
    delivery.receive(&payload("closed", &head, Some(&shop.head("main")))).await.unwrap();
    let deployed = delivery.promote(&change, &production).await.unwrap();
    assert!(deployed.built.is_empty() && deployed.changed, "{deployed:?}");
    let again = delivery.promote(&change, &production).await.unwrap();
    assert!(!again.changed, "promoting what runs changes nothing");

    // Somebody else's work made the merge result another tree: it is built, and verified anew before users see it.
    let other = shop.page("good three");
    delivery.receive(&payload("closed", &head, Some(&other))).await.unwrap();
    let rebuilt = delivery.promote(&change, &production).await.unwrap();
    assert_eq!(rebuilt.built.iter().map(ToString::to_string).collect::<Vec<_>>(), ["web"]);
    let facts = delivery.why("environment/production").await.unwrap();
    let verified = facts.iter().filter(|line| line.contains("testsuiterun.finished")).count();
    assert_eq!(verified, 3, "each deployment was verified beside the one before: {facts:#?}");
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_change_is_told_to_its_own_shepherd() {
    let shop = Shop::new();
    let shepherds = CollectingNotifier::default();
    let delivery = shop.open(shepherds.clone());
    let serving = delivery.serve(0).await.unwrap();
    let production: EnvironmentName = "production".parse().unwrap();
    delivery.deploy(&production, "main").await.unwrap();
    shop.git(&["switch", "--quiet", "--create", "better"]);
    let head = shop.page("good two");
    let change = delivery.receive(&payload("opened", &head, None)).await.unwrap().change.id;
    let preview = delivery.preview(&change).await.unwrap();
    delivery.verify(&preview.environment).await.unwrap();
    let broken = shop.page("bad");
    delivery.receive(&payload("closed", &head, Some(&broken))).await.unwrap();
    let error = delivery.promote(&change, &production).await.unwrap_err();
    assert!(matches!(error, DeliveryError::NotVerified { .. }), "{error}");
    assert_eq!(error.kind(), flowline::core::error::ErrorKind::Failed);
    let told: Vec<_> = shepherds.notices().into_iter().map(|notice| notice.to.to_string()).collect();
    assert_eq!(told, ["grace"]);
    // Users still have what they had.
    let record = delivery.environment(&production).await.unwrap().unwrap();
    assert_eq!((record.generation, record.candidate.len()), (1, 0));
    delivery.close(&change).await.unwrap();
    assert!(delivery.environment(&preview.environment).await.unwrap().is_none());
    assert!(
        !Path::new(&shop.path("state/host/environments/pr-7")).exists(),
        "no directory of the preview is left"
    );
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_goes_away_by_itself_when_its_time_is_over() {
    use flowline::core::{SignedDuration, clock::ManualClock};
    let shop = Shop::new();
    let clock = ManualClock::default();
    let setup = Setup::new(shop.path("flowline.toml"), shop.path("grants.toml"), shop.path("state"));
    let setup = setup
        .source(GitSource::new(shop.path("repository")))
        .clock(clock.clone())
        .notifier(CollectingNotifier::default());
    let delivery = Delivery::open(setup).unwrap();
    let production: EnvironmentName = "production".parse().unwrap();
    let serving = delivery.serve(0).await.unwrap();
    delivery.deploy(&production, "main").await.unwrap();
    shop.git(&["switch", "--quiet", "--create", "better"]);
    let head = shop.page("good two");
    let change = delivery.receive(&payload("opened", &head, None)).await.unwrap().change.id;
    let preview = delivery.preview(&change).await.unwrap();
    clock.advance(SignedDuration::from_mins(59));
    assert_eq!(delivery.sweep().await.unwrap(), 0);
    clock.advance(SignedDuration::from_mins(1));
    // The serving process may be at it already; one of the two removes it.
    delivery.sweep().await.unwrap();
    for _ in 0..1_000 {
        if delivery.environment(&preview.environment).await.unwrap().is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(delivery.environment(&preview.environment).await.unwrap().is_none());
    assert!(delivery.environment(&production).await.unwrap().is_some());
    serving.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cut_deployment_left_standing_is_retired_by_the_next_call() {
    use flowline::envs::provision::{
        InstanceState, Provisioner,
        local::{LocalOptions, LocalProvisioner},
    };
    let shop = Shop::new();
    let delivery = shop.open(CollectingNotifier::default());
    let serving = delivery.serve(0).await.unwrap();
    let production: EnvironmentName = "production".parse().unwrap();
    delivery.deploy(&production, "main").await.unwrap();
    shop.page("good two");
    let switched = async {
        while delivery.environment(&production).await.unwrap().unwrap().generation < 2 {
            tokio::task::yield_now().await;
        }
    };
    // Cut as soon as it is switched, whatever was still to do.
    tokio::select! {
        biased;
        () = switched => {}
        deployed = delivery.deploy(&production, "main") => drop(deployed.unwrap()),
    }
    // The cut call gives the environment free in the background.
    for _ in 0..200 {
        match delivery.deploy(&production, "main").await {
            Err(DeliveryError::DeployedElsewhere { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            done => {
                done.unwrap();
                break;
            }
        }
    }
    let host = LocalProvisioner::open(&shop.path("state/host"), LocalOptions::default()).unwrap();
    let web = delivery.authority().grant(&"dir:production/web".parse().unwrap()).unwrap();
    let observed = host.observe(&web).await.unwrap();
    let standing = observed.instances.iter().filter(|found| found.state != InstanceState::Stopped).count();
    assert_eq!((observed.instances.len(), standing), (2, 1), "{observed:?}");
    serving.stop().await.unwrap();
}
