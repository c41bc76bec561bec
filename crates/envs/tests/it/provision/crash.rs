//! A deployer dies at every moment that matters, and at some that don't; the next one ends where the first would have.

use std::{
    collections::BTreeSet,
    ops::Range,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use flowline_core::digest::Digest;
use flowline_envs::provision::{
    Goal, InstanceState, Observed, WorkloadChange,
    local::{Checkpoint, LocalOptions},
};

use super::{
    server::{self, behaviour},
    stage::{Stage, api, left, web},
};

/// A life of two components: every change there is, each through the moments at which a deployer can die.
#[derive(Debug, Clone, Copy)]
enum Story {
    /// One release after the other, a broken candidate between them, nothing kept.
    Deploys,
    /// The same, and everything is removed in the end.
    DeploysAndDestroys,
}

impl Story {
    fn name(self) -> &'static str {
        match self {
            Self::Deploys => "deploys",
            Self::DeploysAndDestroys => "destroys",
        }
    }

    async fn tell(self, stage: &Stage) {
        let api = |page: &str, how: &str| stage.api(page, how);
        stage.converge(&api("one", behaviour::FINE), Goal::Alone).await;
        let broken = api("broken", behaviour::EXITS);
        // A deployer that died here left it failed already; either way it is no candidate.
        assert!(stage.stage(&broken).await.is_err(), "a broken release was staged");
        stage.apply(&broken, WorkloadChange::Discard(broken.instance())).await.unwrap();
        stage.converge(&api("two", behaviour::FINE), Goal::Active).await;
        stage.converge(&api("two", behaviour::FINE), Goal::Alone).await;
        for page in ["one", "two"] {
            let page = web(stage.artifact(&[("index.html", page, false)]));
            stage.converge(&page, Goal::Alone).await;
        }
        if matches!(self, Self::DeploysAndDestroys) {
            stage.destroy(&api("two", behaviour::FINE)).await;
            stage.destroy(&web(stage.artifact(&[("index.html", "two", false)]))).await;
        }
    }

    /// What must be there in the end, and nothing else.
    async fn check(self, stage: &Stage, what: &str) {
        let api = stage.observe(&stage.api("two", behaviour::FINE)).await;
        let web = stage.observe(&web(stage.artifact(&[("index.html", "two", false)]))).await;
        match self {
            Self::Deploys => {
                assert_eq!(api.instances.len(), 1, "{what}: {api:?}");
                let active = api.active().expect(what);
                assert_eq!(active.state, InstanceState::Ready, "{what}");
                let process = active.process.as_ref().expect(what);
                assert_eq!(server::get(process.port).as_deref(), Some("two"), "{what}");
                assert_eq!(stage.processes(), [process.pid], "{what}");
                assert_eq!(web.instances.len(), 1, "{what}: {web:?}");
                let page = web.active().and_then(|active| active.directory.clone()).expect(what);
                assert_eq!(std::fs::read_to_string(page.join("index.html")).unwrap(), "two", "{what}");
                for (resource, number) in
                    [("api.process", active.number), ("web.dir", web.instances[0].number)]
                {
                    let releases =
                        stage.root.path().join("environments/production").join(resource).join("releases");
                    let names: Vec<_> = std::fs::read_dir(releases)
                        .unwrap()
                        .map(|entry| entry.unwrap().file_name())
                        .collect();
                    assert_eq!(names, [format!("{number:06}").as_str()], "{what}");
                }
                assert_eq!(
                    left(stage.root.path()),
                    ["production", "production.api.process", "production.web.dir"],
                    "{what}"
                );
            }
            Self::DeploysAndDestroys => {
                assert_eq!((api, web), (Observed::default(), Observed::default()), "{what}");
                assert_eq!(stage.processes(), [0; 0], "{what}");
                assert_eq!(left(stage.root.path()), [""; 0], "{what}");
            }
        }
    }
}

fn options() -> LocalOptions {
    LocalOptions::default().with_kept(0)
}

/// The deployer: this binary's test below, told by its environment what to do and when to die.
#[derive(Debug)]
struct Deployer {
    story: Story,
    /// At which of the checkpoints that it passes, counted from 1.
    dies_at: Option<usize>,
}

impl Deployer {
    #[expect(clippy::disallowed_methods, reason = "the deployer has to be a process that can be killed")]
    fn start(&self, root: &Path) -> Child {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "provision::crash::acts_as_a_deployer", "--nocapture"]);
        command.env("DEPLOY_ROOT", root).env("DEPLOY_STORY", self.story.name());
        if let Some(at) = self.dies_at {
            command.env("DEPLOY_DIES_AT", at.to_string());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn run(&self, root: &Path) -> ExitStatus {
        self.start(root).wait().unwrap()
    }

    #[expect(clippy::disallowed_methods, reason = "this is how the process is told to be a deployer")]
    fn told() -> Option<(std::path::PathBuf, Self)> {
        let root = std::env::var_os("DEPLOY_ROOT")?.into();
        let story = match std::env::var("DEPLOY_STORY").ok()?.as_str() {
            "deploys" => Story::Deploys,
            _ => Story::DeploysAndDestroys,
        };
        let dies_at = std::env::var("DEPLOY_DIES_AT").ok().and_then(|at| at.parse().ok());
        Some((root, Self { story, dies_at }))
    }
}

#[tokio::test]
async fn acts_as_a_deployer() {
    let Some((root, deployer)) = Deployer::told() else { return };
    let passed = Arc::new(AtomicUsize::new(0));
    let options = options().with_checkpoints(move |checkpoint: Checkpoint| {
        let passed = passed.fetch_add(1, Ordering::Relaxed) + 1;
        if deployer.dies_at == Some(passed) {
            eprintln!("dies at {passed}: {checkpoint:?}");
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    });
    deployer.story.tell(&Stage::at(&root, options)).await;
}

/// After a death: everything that runs is shown, so that nothing can leak.
async fn nothing_is_hidden(stage: &Stage, what: &str) {
    let api = stage.observe(&api(stage.server("one", behaviour::FINE), server::spec())).await;
    let shown: Vec<u32> =
        api.instances.iter().filter_map(|instance| Some(instance.process.as_ref()?.pid)).collect();
    for pid in stage.processes() {
        // It may be a child of a process that is shown, as long as it is still starting.
        assert!(shown.contains(&pid), "{what}: process {pid} is not among {shown:?} of {api:?}");
    }
}

/// The checkpoints that a story passes.
async fn passed(story: Story) -> Vec<Checkpoint> {
    let passed = Arc::new(Mutex::new(Vec::new()));
    let options = options().with_checkpoints({
        let passed = Arc::clone(&passed);
        move |checkpoint| passed.lock().unwrap().push(checkpoint)
    });
    story.tell(&Stage::quick(options)).await;
    let passed = passed.lock().unwrap();
    passed.clone()
}

async fn dies_at_each(story: Story, checkpoints: Range<usize>) {
    for at in checkpoints {
        let stage = Stage::quick(options());
        let status = Deployer { story, dies_at: Some(at + 1) }.run(stage.root.path());
        let what = format!("{story:?}, died at checkpoint {at}");
        assert_eq!(status.signal(), Some(9), "{what}: {status}");
        nothing_is_hidden(&stage, &what).await;
        story.tell(&stage).await;
        story.check(&stage, &what).await;
    }
}

#[tokio::test]
async fn the_stories_pass_every_checkpoint_there_is() {
    let passed: BTreeSet<Checkpoint> = passed(Story::DeploysAndDestroys).await.into_iter().collect();
    assert_eq!(passed, Checkpoint::ALL.into_iter().collect());
}

/// One quarter of the deployments' checkpoints: in quarters, so that they run beside each other.
async fn dies_in_quarter(quarter: usize) {
    let all = passed(Story::Deploys).await.len();
    dies_at_each(Story::Deploys, all * quarter / 4..all * (quarter + 1) / 4).await;
}

#[tokio::test]
async fn a_deployer_that_dies_at_any_checkpoint_of_the_first_quarter_is_continued() {
    dies_in_quarter(0).await;
}

#[tokio::test]
async fn a_deployer_that_dies_at_any_checkpoint_of_the_second_quarter_is_continued() {
    dies_in_quarter(1).await;
}

#[tokio::test]
async fn a_deployer_that_dies_at_any_checkpoint_of_the_third_quarter_is_continued() {
    dies_in_quarter(2).await;
}

#[tokio::test]
async fn a_deployer_that_dies_at_any_checkpoint_of_the_last_quarter_is_continued() {
    dies_in_quarter(3).await;
}

#[tokio::test]
async fn a_deployer_that_dies_at_any_checkpoint_of_a_removal_is_continued() {
    // What comes before the removal is the same as in the other story.
    let before = passed(Story::Deploys).await.len();
    let all = passed(Story::DeploysAndDestroys).await.len();
    dies_at_each(Story::DeploysAndDestroys, before..all).await;
}

/// Moments between checkpoints, from a seed that is printed: which ones they are depends on how fast the machine is.
#[tokio::test]
async fn a_deployer_that_dies_at_any_moment_is_continued() {
    #[expect(clippy::disallowed_methods, reason = "a developer may say which moments")]
    let seed = std::env::var("FLOWLINE_SEED")
        .unwrap_or_else(|_| std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap());
    println!("seed {0}; FLOWLINE_SEED={0} takes the same again", seed.trim());
    let moments = Digest::of(seed.trim());
    for (number, byte) in moments.as_bytes().iter().take(10).enumerate() {
        let story = if number % 2 == 0 { Story::Deploys } else { Story::DeploysAndDestroys };
        let stage = Stage::quick(options());
        let mut deployer = Deployer { story, dies_at: None }.start(stage.root.path());
        let moment = Duration::from_millis(u64::from(*byte) * 2);
        tokio::time::sleep(moment).await;
        deployer.kill().unwrap();
        deployer.wait().unwrap();
        let what = format!("{story:?}, died after {moment:?}");
        nothing_is_hidden(&stage, &what).await;
        story.tell(&stage).await;
        story.check(&stage, &what).await;
    }
}

/// What a deployer started lives on when the deployer is gone, and the next one adopts it without starting it again.
#[tokio::test]
async fn a_process_outlives_its_deployer_and_is_adopted() {
    let stage = Stage::quick(options());
    assert!(Deployer { story: Story::Deploys, dies_at: None }.run(stage.root.path()).success());
    let workload = stage.api("two", behaviour::FINE);
    let before = stage.observe(&workload).await;
    assert_eq!(before.active().map(|active| active.state.clone()), Some(InstanceState::Ready));
    let after = stage.converge(&workload, Goal::Alone).await;
    assert_eq!(before, after);
    stage.destroy(&workload).await;
    assert_eq!(stage.processes(), [0; 0]);
}
