//! Migrations of a SQLite file.

use std::{fs, path::PathBuf, sync::Arc};

use flowline_core::{
    SignedDuration,
    clock::{Clock as _, SystemClock},
    id::RunId,
    store::MemoryStore,
};
use flowline_pipeline::{
    Cancel, Pipeline, Runner,
    exec::LocalExecutor,
    plan::Planner,
    run::{Ended, Report},
    steps::{Migrate, MigrateStep, Migration, PsqlDatabase, SqliteDatabase},
    testkit::{self, StepTrial, Trial},
};
use rusqlite::Connection;

use crate::world::{failing, granted_world};

struct File {
    dir: tempfile::TempDir,
}

impl File {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("orders.db")
    }

    fn step(&self) -> MigrateStep {
        MigrateStep::new().with(database(), Arc::new(SqliteDatabase::new(self.path())))
    }

    async fn run(&self, run: &str, spec: Migrate) -> (Report, Runner) {
        let (registry, authority) = granted_world(&["database:production/*"], |registry| {
            registry.add(self.step()).unwrap();
        });
        let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
        drop(pipeline.step("migrate", spec));
        let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock));
        (runner.run(&RunId::new(run).unwrap(), &plan, &Cancel::new()).await.unwrap(), runner)
    }
}

fn database() -> flowline_core::id::ResourceId {
    "database:production/orders".parse().unwrap()
}

fn spec() -> Migrate {
    Migrate::new(database())
        .with(
            Migration::new(1, "orders", "CREATE TABLE orders (id INTEGER PRIMARY KEY)")
                .undone_by("DROP TABLE orders"),
        )
        .with(
            Migration::new(
                2,
                "status",
                "ALTER TABLE orders ADD COLUMN status TEXT; CREATE INDEX by_status ON orders (status)",
            )
            .undone_by("DROP INDEX by_status; ALTER TABLE orders DROP COLUMN status"),
        )
        .with(
            Migration::new(3, "first", "INSERT INTO orders (status) VALUES ('new')")
                .undone_by("DELETE FROM orders"),
        )
}

/// The schema, the rows, and the versions on record.
fn shown(path: &PathBuf) -> String {
    if !path.exists() {
        return String::new();
    }
    let connection = Connection::open(path).unwrap();
    let all = |sql: &str| -> Vec<String> {
        let Ok(mut statement) = connection.prepare(sql) else { return Vec::new() };
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let mut lines = all(
        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'flowline_migrations' ORDER BY name",
    );
    lines.extend(all("SELECT status FROM orders ORDER BY id"));
    lines.extend(all("SELECT version || ' ' || name FROM flowline_migrations ORDER BY version"));
    lines.join("\n")
}

#[tokio::test]
async fn migrating_keeps_every_promise() {
    let report = testkit::step(async || {
        let file = File::new();
        let path = file.path();
        StepTrial::new(file.step(), spec(), move || shown(&path)).keeping(file)
    })
    .await;
    report.assert();
}

#[tokio::test]
async fn migrating_survives_a_crash_anywhere_and_is_taken_back_script_by_script() {
    for fails in [false, true] {
        let report = testkit::crash_matrix(async |clock| {
            let file = File::new();
            let (registry, authority) = granted_world(&["database:production/orders"], |registry| {
                registry.add(file.step()).unwrap();
            });
            let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
            let migrated = pipeline.step("migrate", spec());
            if fails {
                failing(&mut pipeline, &migrated);
            }
            let planner = Planner::new(Arc::clone(&registry), authority.clone(), clock);
            let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
            let check = move |ended: &Ended| {
                let lines = shown(&file.path()).lines().count();
                match (ended, lines) {
                    (Ended::Succeeded, 6) | (Ended::Undone { .. }, 0) => Ok(()),
                    _ => Err(format!("{ended:?}: {}", shown(&file.path()))),
                }
            };
            Trial::new(registry, authority, plan).check(check)
        })
        .await;
        report.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

#[tokio::test]
async fn a_script_that_fails_leaves_nothing_of_itself() {
    let file = File::new();
    let half = Migration::new(4, "half", "CREATE TABLE half (id INTEGER); INSERT INTO nowhere VALUES (1)");
    let (report, _) = file.run("one", spec().with(half)).await;
    let Ended::Undone { cause, irreversible } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `migrate` failed: migration `0004 half` failed and nothing of it was applied; mend its script: no such table: nowhere: Error code 1: SQL logic error");
    assert_eq!(irreversible.len(), 1, "one script has no way back, so nothing is taken back");
    insta::assert_snapshot!(shown(&file.path()), @r"
    CREATE INDEX by_status ON orders (status)
    CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT)
    new
    1 orders
    2 status
    3 first
    ");
    let cheat = Migration::new(4, "cheat", "CREATE TABLE cheat (id INTEGER); COMMIT");
    let (report, _) = file.run("two", spec().with(cheat)).await;
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(cause, @"step `migrate` failed: migration `0004 cheat` ends its transaction itself, so it may be applied and not be on record; take `BEGIN` and `COMMIT` out of it and look at what it did");
}

#[tokio::test]
async fn a_plan_says_what_contracts_and_a_changed_script_is_refused() {
    let file = File::new();
    let (report, runner) = file.run("one", spec()).await;
    assert!(report.succeeded(), "{report:?}");
    let (registry, authority) = granted_world(&["database:*"], |registry| {
        registry.add(file.step()).unwrap();
    });
    let planner = Planner::new(registry, authority, Arc::new(SystemClock));
    let plan = async |spec: Migrate| {
        let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
        drop(pipeline.step("migrate", spec));
        planner.plan(&pipeline.draft().unwrap()).await
    };
    let drops = Migration::new(7, "drop status", "ALTER TABLE orders DROP COLUMN status").contracting();
    let plan_of = plan(spec().with(drops)).await.unwrap();
    let node = &plan_of.nodes()[0];
    let details = node.preview.as_ref().unwrap().resources[0].details.join("\n");
    insta::assert_snapshot!(details, @"- 0007 drop status (contracts: no older version may run any more)");
    assert_eq!(node.undo, flowline_pipeline::step::Undo::Irreversible);
    let mut changed = spec();
    changed.migrations[0].up.push_str(" STRICT");
    insta::assert_snapshot!(flowline_core::error::chain(&plan(changed).await.unwrap_err()), @"step `migrate` cannot say what it would do: migration 1 `orders` was applied and then changed; put its script back as it was, and add a new migration");
    // Somebody else migrates on top: what stands below it can't be taken back.
    let more = Migration::new(9, "more", "CREATE TABLE more (id INTEGER)").undone_by("DROP TABLE more");
    assert!(file.run("two", spec().with(more)).await.0.succeeded());
    let report = runner.rollback(&RunId::new("one").unwrap()).await.unwrap();
    let Ended::UndoIncomplete { failures, .. } = &report.ended else { panic!("{report:?}") };
    insta::assert_snapshot!(failures.values().next().unwrap(), @"version 9 was applied on top by `two/migrate`; decide what is right, and take that back first");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_a_directory_of_scripts_is_read() {
    let file = File::new();
    fs::write(file.path(), "this is no database, and long enough to be read as one").unwrap();
    let (registry, authority) = granted_world(&["database:*"], |registry| {
        registry.add(file.step()).unwrap();
    });
    let planner = Planner::new(registry, authority, Arc::new(SystemClock));
    let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
    drop(pipeline.step("migrate", spec()));
    let error = planner.plan(&pipeline.draft().unwrap()).await.unwrap_err();
    assert_eq!(flowline_core::error::Kinded::kind(&error), flowline_core::error::ErrorKind::Corrupt);
    let scripts = file.dir.path().join("scripts");
    fs::create_dir(&scripts).unwrap();
    for (name, text) in [
        ("0001_create_orders.sql", "CREATE TABLE orders (id INTEGER)"),
        ("0001_create_orders.down.sql", "DROP TABLE orders"),
        ("0010_drop_orders.sql", "-- contract\nDROP TABLE orders"),
        ("readme.md", ""),
    ] {
        fs::write(scripts.join(name), text).unwrap();
    }
    let read = Migrate::read(database(), &scripts).unwrap();
    let expected = [
        Migration::new(1, "create orders", "CREATE TABLE orders (id INTEGER)").undone_by("DROP TABLE orders"),
        Migration::new(10, "drop orders", "-- contract\nDROP TABLE orders").contracting(),
    ];
    assert_eq!(read.migrations, expected);
    fs::write(scripts.join("first.sql"), "").unwrap();
    assert!(
        Migrate::read(database(), &scripts).unwrap_err().to_string().contains("has no version in its name")
    );
}

/// A PostgreSQL of this test's own, or `None` with a word why the test is skipped. Under `FLOWLINE_POSTGRES=1` it must be there.
struct Server {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

#[expect(clippy::disallowed_methods, reason = "a test starts a server of its own")]
mod server {
    use std::process::Command;

    use super::*;

    /// PostgreSQL refuses root: there it runs as the user that its package made.
    fn as_postgres(program: PathBuf) -> Command {
        let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
        if !root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        command
    }

    impl Server {
        pub(super) fn start() -> Option<Self> {
            let bins = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
            let bin = bins.map(|found| found.path().join("bin")).find(|bin| bin.join("initdb").is_file());
            let Some(bin) = bin else {
                let note = "skipped: there is no PostgreSQL below /usr/lib/postgresql";
                assert!(std::env::var("FLOWLINE_POSTGRES").is_err(), "{note}");
                println!("{note}");
                return None;
            };
            let dir = tempfile::tempdir().unwrap();
            let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o777);
            fs::set_permissions(dir.path(), everybody).unwrap();
            let server = Self { dir, bin };
            let data = server.data();
            let made = as_postgres(server.bin.join("initdb"))
                .current_dir("/")
                .args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"])
                .arg(&data)
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            let options = format!("-c listen_addresses= -c fsync=off -k {}", server.dir.path().display());
            let started = as_postgres(server.bin.join("pg_ctl"))
                .current_dir("/")
                .args(["-w", "-o", &options, "-l"])
                .arg(server.dir.path().join("log"))
                .arg("-D")
                .arg(&data)
                .arg("start")
                .output()
                .unwrap();
            assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
            Some(server)
        }

        fn data(&self) -> PathBuf {
            self.dir.path().join("data")
        }

        pub(super) fn env(&self) -> std::collections::BTreeMap<String, String> {
            let host = self.dir.path().display().to_string();
            [("PATH", "/usr/bin:/bin"), ("PGHOST", &host), ("PGUSER", "postgres"), ("PGDATABASE", "postgres")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into()
        }

        pub(super) fn say(&self, sql: &str) -> String {
            let mut psql = Command::new(self.bin.join("psql"));
            let out = psql.args(["-X", "-q", "-A", "-t", "-c", sql]).envs(self.env()).output().unwrap();
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let mut stop = as_postgres(self.bin.join("pg_ctl"));
            stop.current_dir("/").args(["-m", "immediate", "-w", "-D"]).arg(self.data()).arg("stop");
            drop(stop.output());
        }
    }
}

#[tokio::test]
async fn a_cancel_ends_a_long_script_and_nothing_of_it_stays() {
    let Some(server) = Server::start() else { return };
    let executor = Arc::new(LocalExecutor::new(Arc::new(SystemClock)));
    let program = server.bin.join("psql").display().to_string();
    let psql = PsqlDatabase::new(executor, server.env()).program(program);
    let (registry, authority) = granted_world(&["database:*"], |registry| {
        registry.add(MigrateStep::new().with(database(), Arc::new(psql))).unwrap();
    });
    let script = "CREATE TABLE orders (id int); SELECT pg_sleep(300)";
    let spec =
        Migrate::new(database()).with(Migration::new(1, "long", script).undone_by("DROP TABLE orders"));
    let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
    drop(pipeline.step("migrate", spec));
    let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock));
    let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
    let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock));
    let (run, cancel) = (RunId::new("one").unwrap(), Cancel::new());
    let sleeping = || server.say("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    let stop = async {
        while sleeping() != "1" {
            SystemClock.sleep(SignedDuration::from_millis(20)).await;
        }
        cancel.cancel();
    };
    let (report, ()) = futures_util::future::join(runner.run(&run, &plan, &cancel), stop).await;
    let report = report.unwrap();
    let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
    assert!(cause.to_string().contains("cancelled"), "{cause}");
    assert_eq!(server.say("SELECT to_regclass('orders') IS NULL"), "t");
}

#[tokio::test]
async fn postgresql_is_migrated_through_its_own_program() {
    let Some(server) = Server::start() else { return };
    let executor = Arc::new(LocalExecutor::new(Arc::new(SystemClock)));
    let psql =
        PsqlDatabase::new(executor, server.env()).program(server.bin.join("psql").display().to_string());
    let run = async |run: &str, spec: Migrate| {
        let (registry, authority) = granted_world(&["database:*"], |registry| {
            registry.add(MigrateStep::new().with(database(), Arc::new(psql.clone()))).unwrap();
        });
        let mut pipeline = Pipeline::new("migrate", "storefront".parse().unwrap());
        drop(pipeline.step("migrate", spec));
        let planner = Planner::new(Arc::clone(&registry), authority.clone(), Arc::new(SystemClock));
        let plan = planner.plan(&pipeline.draft().unwrap()).await.unwrap().seal().unwrap();
        let runner = Runner::new(Arc::new(MemoryStore::new()), registry, authority, Arc::new(SystemClock));
        (runner.run(&RunId::new(run).unwrap(), &plan, &Cancel::new()).await.unwrap(), runner)
    };
    let spec = || {
        Migrate::new(database())
            .with(
                Migration::new(1, "the shop's orders", "CREATE TABLE orders (id int)")
                    .undone_by("DROP TABLE orders"),
            )
            .with(
                Migration::new(
                    2,
                    "status",
                    "ALTER TABLE orders ADD status text; INSERT INTO orders VALUES (1, 'it''s new')",
                )
                .undone_by("DELETE FROM orders; ALTER TABLE orders DROP status"),
            )
    };
    let record = "SELECT string_agg(version || ' ' || name, ', ' ORDER BY version) FROM flowline_migrations";
    let (report, first) = run("one", spec()).await;
    assert!(report.succeeded(), "{report:?}");
    assert_eq!(server.say(record), "1 the shop's orders, 2 status");
    let half = Migration::new(3, "half", "CREATE TABLE half (id int); SELECT * FROM nowhere");
    let cheat = Migration::new(3, "cheat", "CREATE TABLE cheat (id int); COMMIT");
    for (name, bad, said) in [
        ("half", half, "relation \"nowhere\" does not exist"),
        ("cheat", cheat, "ends its transaction itself"),
    ] {
        let (report, _) = run(name, spec().with(bad)).await;
        let Ended::Undone { cause, .. } = &report.ended else { panic!("{report:?}") };
        assert!(cause.to_string().contains(said), "{cause}");
    }
    assert_eq!(server.say("SELECT to_regclass('half') IS NULL"), "t");
    assert_eq!(server.say(record), "1 the shop's orders, 2 status");
    // Two at once: one does it, the other finds it done or is told that the database moved; never twice.
    let more =
        || spec().with(Migration::new(4, "more", "CREATE TABLE more (id int)").undone_by("DROP TABLE more"));
    let (one, two) = futures_util::future::join(run("left", more()), run("right", more())).await;
    let ended = [one.0.succeeded(), two.0.succeeded()];
    assert!(ended.contains(&true), "{:?} {:?}", one.0.ended, two.0.ended);
    assert_eq!(server.say("SELECT count(*) FROM flowline_migrations WHERE version = 4"), "1");
    for (run, runner) in [("left", &one.1), ("right", &two.1), ("one", &first)] {
        drop(runner.rollback(&RunId::new(run).unwrap()).await.unwrap());
    }
    assert_eq!(
        server.say("SELECT to_regclass('orders') IS NULL AND count(*) = 0 FROM flowline_migrations"),
        "t"
    );
}
