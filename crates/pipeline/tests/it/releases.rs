//! Release directories on the host of an executor: through the same shell program here and over SSH.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    sync::Arc,
};

use flowline_core::{
    clock::{Clock, SystemClock},
    error::{ErrorKind, Kinded, chain},
    id::RunId,
    store::MemoryStore,
};
use flowline_pipeline::{
    Cancel, Pipeline, Registry, Runner,
    exec::{Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines, LocalExecutor},
    plan::Planner,
    run::{Ended, Report},
    step::Action,
    steps::{self, SwitchRelease, SwitchReleaseThrough, SyncFilesThrough},
    testkit::{self, StepTrial, Trial},
};

use crate::{
    places::Sshd,
    sync::{Site, names, shown},
    world::granted_world,
};

fn local() -> Arc<dyn Executor> {
    Arc::new(LocalExecutor::new(Arc::new(SystemClock)))
}

fn site(executor: &Arc<dyn Executor>) -> Site {
    Site { through: Some(Arc::clone(executor)), ..Site::new() }
}

/// A site with a release that nobody remembers.
fn begun() -> Site {
    let site = Site::new();
    fs::create_dir_all(site.target().join("releases/000001-000000000000")).unwrap();
    fs::write(site.target().join("releases/000001-000000000000/index.html"), "before").unwrap();
    symlink("releases/000001-000000000000", site.target().join("current")).unwrap();
    site
}

fn world(site: &Site) -> impl Fn() -> String + use<> {
    let target = site.target();
    move || format!("{}\n{:?}", shown(&target.join("current")), names(&target.join("releases")))
}

#[tokio::test]
async fn the_steps_keep_every_promise() {
    for make in [Site::new, begun] {
        let report = testkit::step(async || {
            let site = make();
            StepTrial::new(SyncFilesThrough::new(local()), site.spec(), world(&site)).keeping(site)
        })
        .await;
        report.assert();
    }
    let report = testkit::step(async || {
        let site = Site::new();
        site.deploy("one", site.spec()).await;
        site.says("two").deploy("two", site.spec()).await;
        let spec = SwitchRelease::to(site.target(), &site.releases()[0]);
        StepTrial::new(SwitchReleaseThrough::new(local()), spec, world(&site)).keeping(site)
    })
    .await;
    report.assert();
}

#[tokio::test]
async fn it_survives_a_crash_anywhere_and_is_undone_as_a_whole() {
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let site = Site::new();
            let (registry, authority) = granted_world(&["dir:*"], |registry| {
                registry.add(SyncFilesThrough::new(local())).unwrap();
            });
            let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
            let synced = pipeline.step("sync", site.spec());
            if fails {
                crate::world::failing(&mut pipeline, &synced);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            Trial::new(registry, authority, plan).check(move |ended: &Ended| {
                let (current, releases) = (site.current(), site.releases());
                match ended {
                    Ended::Succeeded if current == "one" && releases.len() == 1 => Ok(()),
                    Ended::Undone { .. } if current.is_empty() && releases.is_empty() => Ok(()),
                    _ => Err(format!("{ended:?}: {current} {releases:?}")),
                }
            })
        })
        .await;
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(report.crashes > 8, "{report:?}");
    }
}

/// Here and there the same is made of the same, and each goes on with what the other left.
async fn the_same_as_here(executor: Arc<dyn Executor>) {
    let (far, here) = (site(&executor), Site::new());
    for site in [&far, &here] {
        fs::create_dir(site.source().join("empty dir")).unwrap();
        fs::create_dir(site.source().join("closed")).unwrap();
        fs::write(site.source().join("closed/it's $HOME \\ \"x\" é"), "odd").unwrap();
        fs::write(site.source().join("none"), "").unwrap();
        fs::set_permissions(site.source().join("none"), PermissionsExt::from_mode(0o604)).unwrap();
        fs::set_permissions(site.source().join("closed"), PermissionsExt::from_mode(0o550)).unwrap();
        fs::create_dir_all(site.target().join("shared/assets/uploads")).unwrap();
        let spec = || site.spec().shared("assets/uploads").revision("4fa2b1c3").keep(2);
        for number in 1..=4 {
            site.says(&number.to_string()).deploy(&format!("run-{number}"), spec()).await;
            assert_eq!(site.current(), number.to_string());
        }
        // What was deployed before is there, whole, and not copied again.
        site.says("3").deploy("again", spec()).await;
        // A failure later in the run switches back.
        let report = site.says("bad").run("bad", spec(), true).await;
        assert!(matches!(report.ended, Ended::Undone { .. }), "{report:?}");
        // One that was edited is not reused.
        fs::write(site.target().join("releases").join(&site.releases()[1]).join("index.html"), "x").unwrap();
        site.says("4").deploy("anew", spec()).await;
        fs::remove_file(site.target().join(".lock")).unwrap();
    }
    let all = |site: &Site| {
        let root = site.root().display().to_string();
        shown(&site.target()).replace(&root, "ROOT")
    };
    assert_eq!(all(&far).lines().collect::<Vec<_>>(), all(&here).lines().collect::<Vec<_>>());
    assert!(all(&far).contains("current -> releases/000005-"), "{}", all(&far));
    let mixed = Site { through: Some(executor), ..here };
    mixed.says("mixed").deploy("mixed", mixed.spec()).await;
    let here = Site { through: None, ..mixed };
    here.deploy("mixed", here.spec()).await;
    assert_eq!((here.current().as_str(), here.releases().len()), ("mixed", 4));
}

#[tokio::test]
async fn the_program_does_what_this_host_does() {
    the_same_as_here(local()).await;
}

#[tokio::test]
async fn over_ssh_it_does_what_this_host_does() {
    let Some(sshd) = Sshd::start() else { return };
    the_same_as_here(Arc::new(sshd.executor())).await;
}

/// Plans and runs a pipeline with everything that an executor registers.
struct Deployer {
    registry: Arc<Registry>,
    authority: flowline_core::grant::Authority,
    clock: Arc<dyn Clock>,
}

impl Deployer {
    fn new(executor: Arc<dyn Executor>) -> Self {
        let (registry, authority) = granted_world(&["dir:*"], |registry| {
            steps::register(registry, executor).unwrap();
        });
        Self { registry, authority, clock: Arc::new(SystemClock) }
    }

    async fn plan(
        &self,
        write: impl FnOnce(&mut Pipeline),
    ) -> Result<flowline_pipeline::plan::Plan, flowline_pipeline::plan::PlanError> {
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        write(&mut pipeline);
        let planner =
            Planner::new(Arc::clone(&self.registry), self.authority.clone(), Arc::clone(&self.clock));
        planner.plan(&pipeline.draft().unwrap()).await
    }

    async fn run(&self, run: &str, write: impl FnOnce(&mut Pipeline)) -> Report {
        let plan = self.plan(write).await.unwrap().seal().unwrap();
        self.runner().run(&RunId::new(run).unwrap(), &plan, &Cancel::new()).await.unwrap()
    }

    fn runner(&self) -> Runner {
        let store = Arc::new(MemoryStore::new());
        Runner::new(store, Arc::clone(&self.registry), self.authority.clone(), Arc::clone(&self.clock))
    }
}

#[tokio::test]
async fn one_plan_previews_deploys_and_goes_back_over_ssh() {
    let Some(sshd) = Sshd::start() else { return };
    let (site, deployer) = (Site::new(), Deployer::new(Arc::new(sshd.executor())));
    let sync = |pipeline: &mut Pipeline| drop(pipeline.step("sync", site.spec()));
    let plan = deployer.plan(sync).await.unwrap();
    assert_eq!(plan.nodes()[0].action(), Action::Create);
    assert!(!site.target().exists(), "a plan changes nothing");
    assert!(deployer.run("one", sync).await.succeeded());
    let blobs = || names(&sshd.path("remote/blob")).len();
    let before = blobs();
    assert_eq!(deployer.plan(sync).await.unwrap().nodes()[0].action(), Action::Keep);

    fs::remove_file(site.says("two").source().join("assets/home")).unwrap();
    let plan = deployer.plan(sync).await.unwrap();
    let details = plan.nodes()[0].preview.as_ref().unwrap().resources[0].details.join("\n");
    insta::assert_snapshot!(details, @r"
    - assets/home
    ~ index.html
    ");
    // Stale once somebody edited there.
    let at = site.target().join("current/index.html");
    fs::write(&at, "edited in place").unwrap();
    let (run, cancel) = (RunId::new("stale").unwrap(), Cancel::new());
    let stale = deployer.runner().run(&run, &plan.seal().unwrap(), &cancel).await;
    assert!(stale.unwrap_err().to_string().contains("the plan is stale"));
    fs::write(&at, "one").unwrap();
    assert!(deployer.run("two", sync).await.succeeded());
    assert_eq!((site.current().as_str(), site.releases().len()), ("two", 2));
    // Of the release only the changed file was sent; the rest are the lists and the record.
    assert!(blobs() - before <= 5, "{}", blobs() - before);

    let back = |pipeline: &mut Pipeline| {
        drop(pipeline.step("back", SwitchRelease::before(site.target())));
    };
    assert!(deployer.run("back", back).await.succeeded());
    assert_eq!(site.current(), "one");

    // Somebody works there, and says so.
    let lock = fs::OpenOptions::new().write(true).open(site.target().join(".lock")).unwrap();
    lock.lock().unwrap();
    fs::write(site.target().join(".lock"), "run other, step sync, process 7, since noon\n").unwrap();
    let report = deployer.run("busy", sync).await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    let said = cause.to_string().replace(&site.root().display().to_string(), "ROOT");
    insta::assert_snapshot!(said, @"step `sync` failed: ROOT/www is in use by run other, step sync, process 7, since noon; try again once that is done, or end it");
    drop(lock);
    assert_eq!(site.current(), "one");
}

#[tokio::test]
async fn what_cannot_be_done_there_is_refused_with_its_reason() {
    let (site, deployer) = (Site::new(), Deployer::new(local()));
    let mut registry = Registry::clone(&deployer.registry);
    registry.add(SyncFilesThrough::new(local())).unwrap();
    let deployer = Deployer { registry: Arc::new(registry), ..deployer };
    let refused = async |to: PathBuf| {
        let spec = steps::SyncFiles::new(site.source(), to);
        let error = deployer.plan(|pipeline| drop(pipeline.step("sync", spec))).await.unwrap_err();
        (error.kind(), chain(&error).replace(&site.root().display().to_string(), "ROOT"))
    };
    fs::create_dir(site.root().join("real")).unwrap();
    symlink("real", site.root().join("through")).unwrap();
    insta::assert_debug_snapshot!(refused(site.root().join("through/www")).await, @r#"
    (
        Invalid,
        "step `sync` cannot say what it would do: ROOT/through leads through a link to ROOT/real; name that directory instead",
    )
    "#);
    assert_eq!(refused(site.root().join("a\nb")).await.0, ErrorKind::Invalid);
    fs::create_dir_all(site.root().join("busy/current")).unwrap();
    assert_eq!(refused(site.root().join("busy")).await.0, ErrorKind::Conflict);
    fs::create_dir_all(site.root().join("damaged")).unwrap();
    fs::write(site.root().join("damaged/releases.json"), "{").unwrap();
    for (path, text) in [("damaged", "is damaged"), ("a file/www", "Not a directory")] {
        fs::write(site.root().join("a file"), "").unwrap();
        let spec = steps::SyncFiles::new(site.source(), site.root().join(path));
        let report = deployer.run("refused", |pipeline| drop(pipeline.step("sync", spec))).await;
        assert!(format!("{:?}", report.ended).contains(text), "{report:?}");
    }
    fs::write(site.source().join("two\nlines"), "").unwrap();
    let report = deployer.run("newline", |pipeline| drop(pipeline.step("sync", site.spec()))).await;
    assert!(format!("{:?}", report.ended).contains("holds a newline"), "{report:?}");
    assert_eq!(names(&site.target()), Vec::<String>::new());
}

/// Spoils what is carried over.
#[derive(Debug)]
struct Spoils(Arc<dyn Executor>);

#[async_trait::async_trait]
impl Executor for Spoils {
    fn capabilities(&self) -> ExecutorCapabilities {
        self.0.capabilities()
    }

    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError> {
        let file = command.dir.join("tree/index.html");
        if file.exists() {
            fs::remove_file(&file).unwrap();
            fs::write(&file, "another").unwrap();
        }
        self.0.run(command, lines, cancel).await
    }
}

#[tokio::test]
async fn what_arrives_as_something_else_never_becomes_current() {
    let executor: Arc<dyn Executor> = Arc::new(Spoils(local()));
    let site = site(&executor);
    let report = site.run("spoilt", site.spec(), false).await;
    assert!(format!("{:?}", report.ended).contains("changed while it was read"), "{report:?}");
    assert_eq!((site.current(), names(&site.target().join("releases"))), (String::new(), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reads_meanwhile_finds_one_release_or_the_other() {
    site(&local()).is_read_while_deploying(10).await;
}
