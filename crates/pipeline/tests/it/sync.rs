//! Files into a release directory, on the real file system.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use flowline_core::{clock::Clock, error::Kinded, id::RunId, store::MemoryStore};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    exec::Executor,
    plan::Planner,
    run::{Ended, Report},
    steps::{SwitchRelease, SwitchReleaseStep, SyncFiles, SyncFilesStep, SyncFilesThrough, Synced},
    testkit::{self, StepTrial, Trial},
};

use crate::world::granted_world;

/// A source and a release directory, which is worked on here or through an executor.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) through: Option<Arc<dyn Executor>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let site = Self { dir, through: None };
        fs::create_dir_all(site.source().join("assets")).unwrap();
        fs::write(site.source().join("index.html"), "one").unwrap();
        fs::write(site.source().join("assets/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(site.source().join("assets/run.sh"), PermissionsExt::from_mode(0o750)).unwrap();
        symlink("../index.html", site.source().join("assets/home")).unwrap();
        site
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().canonicalize().unwrap()
    }

    pub(crate) fn source(&self) -> PathBuf {
        self.root().join("source")
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.root().join("www")
    }

    pub(crate) fn spec(&self) -> SyncFiles {
        SyncFiles::new(self.source(), self.target())
    }

    pub(crate) fn says(&self, text: &str) -> &Self {
        fs::write(self.source().join("index.html"), text).unwrap();
        self
    }

    pub(crate) fn current(&self) -> String {
        fs::read_to_string(self.target().join("current/index.html")).unwrap_or_default()
    }

    pub(crate) fn releases(&self) -> Vec<String> {
        names(&self.target().join("releases"))
    }

    pub(crate) async fn run(&self, run: &str, spec: SyncFiles, fails: bool) -> Report {
        let store = Arc::new(MemoryStore::new());
        self.run_on(store, run, spec, fails).await.0
    }

    /// Runs it, which must end well.
    pub(crate) async fn deploy(&self, run: &str, spec: SyncFiles) {
        let report = self.run(run, spec, false).await;
        assert!(report.succeeded(), "{report:?}");
    }

    pub(crate) async fn run_on(
        &self,
        store: Arc<MemoryStore>,
        run: &str,
        spec: SyncFiles,
        fails: bool,
    ) -> (Report, Runner) {
        let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
        let (registry, authority) = granted_world(&["dir:*"], |registry| {
            match &self.through {
                None => registry.add(SyncFilesStep).unwrap(),
                Some(executor) => registry.add(SyncFilesThrough::new(Arc::clone(executor))).unwrap(),
            };
        });
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        let synced = pipeline.step("sync", spec);
        if fails {
            crate::world::failing(&mut pipeline, &synced);
        }
        let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let runner = Runner::new(store, registry, authority, clock);
        (runner.run(&RunId::new(run).unwrap(), &plan, &Cancel::new()).await.unwrap(), runner)
    }

    /// Deploys so many releases while somebody reads: every read finds one release or the other.
    pub(crate) async fn is_read_while_deploying(&self, releases: usize) {
        self.deploy("zero", self.spec()).await;
        let reading = Arc::new(AtomicBool::new(true));
        let (flag, path) = (Arc::clone(&reading), self.target().join("current/index.html"));
        let reader = std::thread::spawn(move || {
            let (mut reads, mut missed) = (0, 0);
            while flag.load(Ordering::Relaxed) {
                reads += 1;
                missed += usize::from(fs::read_to_string(&path).is_err());
            }
            (reads, missed)
        });
        for number in 0..releases {
            self.says(&number.to_string()).deploy(&format!("run-{number}"), self.spec()).await;
        }
        reading.store(false, Ordering::Relaxed);
        let (reads, missed) = reader.join().unwrap();
        assert!(reads > 0 && missed == 0, "{missed} of {reads} reads missed");
    }
}

pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(found) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> = found.map(|found| found.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The tree at `root`, with what counts about it.
pub(crate) fn shown(root: &Path) -> String {
    let mut lines = Vec::new();
    let mut ahead = vec![root.to_owned()];
    while let Some(dir) = ahead.pop() {
        let Ok(found) = fs::read_dir(&dir) else { continue };
        for found in found {
            let path = found.unwrap().path();
            let (at, meta) = (path.strip_prefix(root).unwrap().to_owned(), path.symlink_metadata().unwrap());
            let mode = meta.permissions().mode() & 0o7777;
            lines.push(if meta.is_symlink() {
                format!("{} -> {}", at.display(), fs::read_link(&path).unwrap().display())
            } else if meta.is_dir() {
                ahead.push(path);
                format!("{}/ {mode:o}", at.display())
            } else {
                format!("{} {mode:o} {:?}", at.display(), fs::read_to_string(&path).unwrap())
            });
        }
    }
    lines.sort();
    lines.join("\n")
}

fn trial() -> StepTrial<SyncFilesStep> {
    let site = Site::new();
    fs::create_dir_all(site.target().join("releases/000001-000000000000")).unwrap();
    fs::write(site.target().join("releases/000001-000000000000/index.html"), "before").unwrap();
    symlink("releases/000001-000000000000", site.target().join("current")).unwrap();
    let target = site.target();
    let world =
        move || format!("{}\n{}", shown(&target.join("current")), names(&target.join("releases")).len());
    StepTrial::new(SyncFilesStep, site.spec(), world).keeping(site)
}

#[tokio::test]
async fn the_step_keeps_every_promise() {
    let report = testkit::step(async || trial()).await;
    report.assert();
}

#[tokio::test]
async fn a_first_release_can_be_undone_to_nothing() {
    let fresh = async || {
        let site = Site::new();
        let target = site.target();
        let world =
            move || format!("{} {:?}", shown(&target.join("current")), names(&target.join("releases")));
        StepTrial::new(SyncFilesStep, site.spec(), world).keeping(site)
    };
    let report = testkit::step(fresh).await;
    report.assert();
}

#[tokio::test]
async fn it_survives_a_crash_anywhere_and_is_undone_as_a_whole() {
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let site = Site::new();
            let (registry, authority) = granted_world(&["dir:*"], |registry| {
                registry.add(SyncFilesStep).unwrap();
            });
            let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
            let synced = pipeline.step("sync", site.spec());
            if fails {
                crate::world::failing(&mut pipeline, &synced);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let (current, releases) = (site.current(), site.releases());
                match ended {
                    Ended::Succeeded if current == "one" && releases.len() == 1 => Ok(()),
                    Ended::Undone { .. } if current.is_empty() && releases.is_empty() => Ok(()),
                    _ => Err(format!("{ended:?}: {current} {releases:?}")),
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        let report = report.unwrap_or_else(|violation| panic!("{violation}"));
        assert!(report.crashes > 8, "{report:?}");
    }
}

#[tokio::test]
async fn releases_are_numbered_kept_and_cleaned() {
    let site = Site::new();
    for number in 1..=5 {
        site.says(&number.to_string()).deploy(&format!("run-{number}"), site.spec().keep(3)).await;
        assert_eq!(site.current(), number.to_string());
    }
    let numbers: Vec<_> = site.releases().iter().map(|name| name[..6].to_owned()).collect();
    assert_eq!(numbers, ["000003", "000004", "000005"]);
    // What was deployed before is there, whole, and not copied again.
    site.says("4").deploy("back", site.spec().keep(3)).await;
    assert_eq!((site.current().as_str(), site.releases().len()), ("4", 3));
    // A foreign directory is nobody's to clean.
    fs::create_dir(site.target().join("releases/20260101000000")).unwrap();
    site.says("6").deploy("more", site.spec().keep(1)).await;
    assert!(site.releases().contains(&"20260101000000".to_owned()));
    assert_eq!(site.releases().len(), 3, "the foreign one, the current one, the one before");
}

#[tokio::test]
async fn a_failure_later_in_the_run_switches_back() {
    let site = Site::new();
    site.deploy("good", site.spec()).await;
    let before = shown(&site.target().join("current"));
    let report = site.says("bad").run("bad", site.spec(), true).await;
    assert!(matches!(report.ended, Ended::Undone { .. }), "{report:?}");
    assert_eq!(shown(&site.target().join("current")), before);
    assert_eq!(site.releases().len(), 1);
}

#[tokio::test]
async fn undo_leaves_alone_what_somebody_deployed_since() {
    let site = Site::new();
    let store = Arc::new(MemoryStore::new());
    let (_, runner) = site.run_on(Arc::clone(&store), "first", site.spec(), false).await;
    assert!(site.says("two").run_on(store, "second", site.spec(), false).await.0.succeeded());
    let report = runner.rollback(&RunId::new("first").unwrap()).await.unwrap();
    let Ended::UndoIncomplete { failures, .. } = &report.ended else { panic!("{report:?}") };
    let said = failures.values().next().unwrap();
    assert!(said.contains("somebody switched in between"), "{said}");
    assert_eq!(site.current(), "two");
}

#[tokio::test]
async fn permissions_and_links_are_kept_and_shared_paths_linked() {
    let site = Site::new();
    let spec = site.spec().shared("assets/uploads").shared("config.toml");
    let report = site.run("without", spec.clone(), false).await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    assert!(cause.to_string().contains("shared by all releases and not there"), "{cause}");
    fs::create_dir_all(site.target().join("shared/assets/uploads")).unwrap();
    fs::write(site.target().join("shared/config.toml"), "shared").unwrap();
    let report = site.run("with", spec, false).await;
    assert!(report.succeeded(), "{report:?}");
    insta::assert_snapshot!(shown(&site.target().join("current")), @r##"
    assets/ 755
    assets/home -> ../index.html
    assets/run.sh 750 "#!/bin/sh\n"
    assets/uploads -> ../../../shared/assets/uploads
    config.toml -> ../../shared/config.toml
    index.html 644 "one"
    "##);
    assert_eq!(fs::read_to_string(site.target().join("current/config.toml")).unwrap(), "shared");
    assert!(site.target().join("current/assets/uploads").is_dir());
}

#[tokio::test]
async fn what_leads_out_of_the_tree_or_through_a_link_is_refused() {
    let refused = async |site: &Site, spec: SyncFiles| {
        let report = site.run("refused", spec, false).await;
        let Ended::Undone { cause, .. } = report.ended else { panic!("{report:?}") };
        assert_eq!(site.current(), "");
        cause.to_string().replace(&site.root().display().to_string(), "ROOT")
    };
    let site = Site::new();
    symlink("../../etc/passwd", site.source().join("leak")).unwrap();
    // A preview looks at the source already, so such a tree is refused when it is planned.
    let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
    let (registry, authority) = granted_world(&["dir:*"], |registry| {
        registry.add(SyncFilesStep).unwrap();
    });
    let planner = Planner::new(registry, authority, clock);
    let plan = async |spec: SyncFiles| {
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        let _synced: flowline_pipeline::Output<Synced> = pipeline.step("sync", spec);
        let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
        (
            error.kind(),
            flowline_core::error::chain(&error).replace(&site.root().display().to_string(), "ROOT"),
        )
    };
    insta::assert_debug_snapshot!(plan(site.spec()).await, @r#"
    (
        Invalid,
        "step `sync` cannot say what it would do: the files of a release cannot be used: the link ROOT/source/leak leads to ../../etc/passwd, which may be out of its tree; make it relative, with `..` at its beginning only and no further up than the tree, or put a copy there",
    )
    "#);
    fs::remove_file(site.source().join("leak")).unwrap();
    // Each name for itself stays inside; followed one after the other they don't.
    symlink(".", site.source().join("s")).unwrap();
    symlink("s/../outside", site.source().join("leak")).unwrap();
    fs::write(site.root().join("outside"), "of the tree").unwrap();
    assert!(site.source().join("leak").exists());
    assert!(plan(site.spec()).await.1.contains("leak leads to s/../outside, which may be out of its tree"));
    fs::remove_file(site.source().join("leak")).unwrap();
    fs::remove_file(site.source().join("s")).unwrap();
    fs::create_dir(site.root().join("real")).unwrap();
    symlink("real", site.root().join("through")).unwrap();
    let through = SyncFiles::new(site.source(), site.root().join("through/www"));
    insta::assert_debug_snapshot!(plan(through).await, @r#"
    (
        Invalid,
        "step `sync` cannot say what it would do: ROOT/through leads through a link to ROOT/real; name that directory instead",
    )
    "#);
    insta::assert_debug_snapshot!(plan(site.spec().shared("../out")).await, @r#"
    (
        Invalid,
        "step `sync` cannot say what it would do: the files of a release cannot be used: `../out` is no path inside a tree: it must be relative, without `..`",
    )
    "#);
    let other = site.spec().digest(flowline_core::digest::Digest::of("another"));
    let said = refused(&site, other).await;
    assert!(said.contains("holds tree") && said.contains("build it again"), "{said}");
    fs::create_dir_all(site.target().join("current")).unwrap();
    insta::assert_debug_snapshot!(plan(site.spec()).await, @r#"
    (
        Conflict,
        "step `sync` cannot say what it would do: ROOT/www/current is no link to a release; move it away, then try again",
    )
    "#);
}

#[tokio::test]
async fn a_plan_shows_what_changes_and_is_refused_once_somebody_edited_the_release() {
    let site = Site::new();
    site.deploy("first", site.spec()).await;
    let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
    let (registry, authority) = granted_world(&["dir:*"], |registry| {
        registry.add(SyncFilesStep).unwrap();
    });
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
    let draft = || {
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        let _synced: flowline_pipeline::Output<Synced> = pipeline.step("sync", site.spec());
        pipeline.draft().unwrap()
    };
    let plan = planner.plan(&draft()).await.unwrap();
    assert_eq!(plan.nodes()[0].action(), flowline_pipeline::step::Action::Keep);
    fs::remove_file(site.says("two").source().join("assets/home")).unwrap();
    fs::write(site.source().join("new.css"), "").unwrap();
    let plan = planner.plan(&draft()).await.unwrap();
    let details = plan.nodes()[0].preview.as_ref().unwrap().resources[0].details.join("\n");
    insta::assert_snapshot!(details, @r"
    - assets/home
    ~ index.html
    + new.css
    ");
    fs::write(site.target().join("current/index.html"), "edited in place").unwrap();
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, clock);
    let refused = runner.run(&RunId::new("stale").unwrap(), &plan.seal().unwrap(), &Cancel::new()).await;
    assert!(refused.unwrap_err().to_string().contains("the plan is stale"));
}

#[tokio::test]
async fn whoever_reads_meanwhile_finds_one_release_or_the_other() {
    Site::new().is_read_while_deploying(20).await;
}

#[tokio::test]
async fn a_release_says_what_it_was_made_from() {
    let site = Site::new();
    let revision = || fs::read_to_string(site.target().join("current/REVISION")).unwrap();
    site.deploy("one", site.spec().revision("4fa2b1c3")).await;
    assert_eq!((revision().as_str(), site.current().as_str()), ("4fa2b1c3\n", "one"));
    // The same again is nothing; the same tree from another revision is another release, and back it is the first again.
    site.deploy("again", site.spec().revision("4fa2b1c3")).await;
    assert_eq!(site.releases().len(), 1);
    site.deploy("two", site.spec().revision("77e1d02a")).await;
    assert_eq!((revision().as_str(), site.releases().len()), ("77e1d02a\n", 2));
    site.deploy("back", site.spec().revision("4fa2b1c3")).await;
    assert_eq!((revision().as_str(), site.releases().len()), ("4fa2b1c3\n", 2));
    let refused = async |spec: SyncFiles| {
        let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
        let (registry, authority) = granted_world(&["dir:*"], |registry| {
            registry.add(SyncFilesStep).unwrap();
        });
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        drop(pipeline.step("sync", spec));
        let planner = Planner::new(registry, authority, clock);
        let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
        flowline_core::error::chain(&error).replace(&site.root().display().to_string(), "ROOT")
    };
    insta::assert_snapshot!(refused(site.spec().revision("a\nb")).await, @r"step `sync` cannot say what it would do: `a\nb` cannot stand in a REVISION file; give one line without control characters");
    fs::write(site.source().join("REVISION"), "brought along").unwrap();
    insta::assert_snapshot!(refused(site.spec().revision("4fa2b1c3")).await, @"step `sync` cannot say what it would do: `REVISION` is added to each release, and ROOT/source brings its own; leave it out of one of them");
    // Nobody said a revision, so it is a file like any other.
    site.deploy("own", site.spec()).await;
    assert_eq!(revision(), "brought along");
}

fn switching(site: Site, spec: SwitchRelease) -> StepTrial<SwitchReleaseStep> {
    let target = site.target();
    let world =
        move || format!("{}\n{}", shown(&target.join("current")), names(&target.join("releases")).len());
    StepTrial::new(SwitchReleaseStep, spec, world).keeping(site)
}

#[tokio::test]
async fn going_back_keeps_every_promise() {
    let report = testkit::step(async || {
        let site = Site::new();
        site.deploy("one", site.spec()).await;
        site.says("two").deploy("two", site.spec()).await;
        // By name: a step that goes one further back each time has always something left to do.
        let spec = SwitchRelease::to(site.target(), site.releases()[0].clone());
        switching(site, spec)
    })
    .await;
    report.assert();
}

#[tokio::test]
async fn a_release_that_is_still_there_can_be_switched_to_by_name() {
    let site = Site::new();
    for number in 1..=3 {
        site.says(&number.to_string()).deploy(&format!("run-{number}"), site.spec()).await;
    }
    let switch = async |run: &str, spec: SwitchRelease| {
        let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
        let (registry, authority) = granted_world(&["dir:*"], |registry| {
            registry.add(SwitchReleaseStep).unwrap();
        });
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        drop(pipeline.step("back", spec));
        let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::clone(&clock));
        let plan = match planner.plan(&pipeline.draft().unwrap()).await {
            Ok(plan) => plan.seal().unwrap(),
            Err(error) => return flowline_core::error::chain(&error),
        };
        let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, clock);
        let report = runner.run(&RunId::new(run).unwrap(), &plan, &Cancel::new()).await.unwrap();
        assert!(report.succeeded(), "{report:?}");
        site.current()
    };
    let first = site.releases()[0].clone();
    assert_eq!(switch("a", SwitchRelease::before(site.target())).await, "2");
    assert_eq!(switch("b", SwitchRelease::before(site.target())).await, "1");
    assert!(
        switch("c", SwitchRelease::before(site.target()))
            .await
            .contains("`the one before` to go back to is not")
    );
    // Forth as well as back, and nothing is lost on the way.
    let last = site.releases()[2].clone();
    assert_eq!(switch("d", SwitchRelease::to(site.target(), last)).await, "3");
    assert_eq!(switch("e", SwitchRelease::to(site.target(), first)).await, "1");
    assert!(
        switch("f", SwitchRelease::to(site.target(), "../../etc"))
            .await
            .contains("`../../etc` to go back to is not")
    );
    assert_eq!(site.releases().len(), 3);
}

#[tokio::test]
async fn whoever_finds_a_directory_in_use_learns_by_whom() {
    let site = Site::new();
    site.says(&"x".repeat(3_000_000));
    // On one thread each goes on after a piece of the other.
    let (one, other) =
        tokio::join!(site.run("one", site.spec(), false), site.run("other", site.spec(), false));
    let (good, refused) = if one.succeeded() { (one, other) } else { (other, one) };
    assert!(good.succeeded(), "{good:?}");
    let Ended::Undone { cause, .. } = &refused.ended else { panic!("{refused:?}") };
    let (said, process) = (cause.to_string(), format!(", process {}, since 2", std::process::id()));
    let said = said.replace(&site.root().display().to_string(), "ROOT");
    assert!(said.contains("ROOT/www is in use by run ") && said.contains(&process), "{said}");
    assert!(
        said.contains(", step sync, ") && said.ends_with("; try again once that is done, or end it"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(site.target().join(".lock")).unwrap(), "");
}

#[tokio::test]
async fn files_of_this_host_are_refused_where_commands_run_on_another() {
    use flowline_pipeline::{
        exec::{Command, ExecError, Executor, ExecutorCapabilities, Exited, Lines},
        steps,
    };
    #[derive(Debug)]
    struct Far;
    #[async_trait::async_trait]
    impl Executor for Far {
        fn capabilities(&self) -> ExecutorCapabilities {
            let here =
                flowline_pipeline::exec::LocalExecutor::new(Arc::new(flowline_core::clock::SystemClock));
            let mut capabilities = here.capabilities();
            capabilities.local = false;
            capabilities.own_files = false;
            capabilities
        }

        async fn run(&self, _: &Command, _: &mut dyn Lines, _: &Cancel) -> Result<Exited, ExecError> {
            panic!("nothing runs")
        }
    }
    let site = Site::new();
    let plan = async |draft: &flowline_pipeline::plan::Draft, registry: flowline_pipeline::Registry| {
        let clock: Arc<dyn Clock> = Arc::new(flowline_core::clock::SystemClock);
        let planner = Planner::new(Arc::new(registry), crate::world::authority_of(&["dir:*"]), clock);
        planner.plan(draft).await.map_err(|error| (error.kind(), flowline_core::error::chain(&error)))
    };
    let registry = || {
        let mut registry = flowline_pipeline::Registry::new();
        steps::register(&mut registry, Arc::new(Far)).unwrap();
        registry
    };
    let pipeline = |write: &dyn Fn(&mut Pipeline)| {
        let mut pipeline = Pipeline::new("site", "storefront".parse().unwrap());
        write(&mut pipeline);
        pipeline.draft().unwrap()
    };
    let pack = pipeline(&|pipeline| {
        drop(pipeline.step("files", steps::PackArchive::new("a", site.source(), site.target())));
    });
    let (kind, said) = plan(&pack, registry()).await.unwrap_err();
    assert_eq!(kind, flowline_core::error::ErrorKind::Unsupported);
    assert!(said.contains("step works on this host, and the executor runs commands on another"), "{said}");
    assert!(!site.target().exists());
    // Unless this host is what is meant.
    let mut own = registry();
    own.add(steps::PackArchiveStep).unwrap();
    plan(&pack, own).await.unwrap();
}
