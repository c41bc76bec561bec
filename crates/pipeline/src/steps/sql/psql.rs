//! PostgreSQL, through its own program `psql`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use flowline_core::{
    error::{BoxError, ErrorKind, Kinded},
    grant::Granted,
    id::ResourceId,
    secret::Secret,
};

use super::{Applied, Database, DatabaseError, Migration};
use crate::{
    cancel::Cancel,
    exec::{Command, ExecError, Executor, Line},
};

/// A PostgreSQL database that `psql` reaches, wherever an executor runs it.
///
/// Each migration is one transaction that first takes an advisory lock of the database, then checks the newest version on record, then runs the
/// script, and then records it; a script that ended the transaction itself is found out and not recorded. The record is the table
/// `flowline_migrations`, in the first schema of the search path. A cancel ends `psql` in the middle of a script; as nothing was committed, the
/// server takes it back once it notices that nobody is there any more.
///
/// A script is handed over as one argument and can have about 120,000 bytes. What can't run in a transaction (`CREATE INDEX CONCURRENTLY`)
/// can't be a migration here.
#[derive(Debug, Clone)]
pub struct PsqlDatabase {
    executor: Arc<dyn Executor>,
    program: String,
    dir: PathBuf,
    env: BTreeMap<String, String>,
    password: Option<Secret>,
}

/// Whose advisory lock it is: "flowline" in a number.
const LOCK: u64 = 0x666c_6f77_6c69_6e65;
/// Linux takes 131,072 bytes in one argument.
const LONGEST: usize = 120_000;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS flowline_migrations (version bigint PRIMARY KEY, name text NOT NULL, \
                     checksum text NOT NULL, applied_by text NOT NULL, applied_at text NOT NULL)";
const HISTORY: &str = "SELECT coalesce(json_agg(json_build_object('version', version, 'name', name, 'checksum', checksum, \
                       'by', applied_by, 'at', applied_at) ORDER BY version), '[]') FROM flowline_migrations";

impl PsqlDatabase {
    /// The database that `psql` reaches with this environment: `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, and a `PATH` to find it by.
    pub fn new(executor: Arc<dyn Executor>, env: BTreeMap<String, String>) -> Self {
        Self { executor, program: "psql".to_owned(), dir: PathBuf::from("/"), env, password: None }
    }

    /// The same with a password.
    #[must_use]
    pub fn password(mut self, password: Secret) -> Self {
        self.password = Some(password);
        self
    }

    /// The same with another program of this name.
    #[must_use]
    pub fn program(mut self, program: impl Into<String>) -> Self {
        self.program = program.into();
        self
    }

    fn command(&self, statements: &[&str]) -> Command {
        let quiet = ["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1"];
        let mut command = Command::new(&self.program, &self.dir).args(quiet);
        if statements.len() > 1 {
            command = command.arg("--single-transaction");
        }
        for statement in statements {
            command = command.arg("-c").arg(*statement);
        }
        command.env.clone_from(&self.env);
        command.env.entry("PGCONNECT_TIMEOUT".to_owned()).or_insert_with(|| "10".to_owned());
        let options = "-c client_min_messages=warning";
        command.env.entry("PGOPTIONS".to_owned()).or_insert_with(|| options.to_owned());
        if let Some(password) = &self.password {
            command.secret_env.insert("PGPASSWORD".to_owned(), password.clone());
        }
        command.keep = 64 * 1024 * 1024;
        command
    }

    async fn ask(&self, question: &str) -> Result<Vec<u8>, DatabaseError> {
        let command = self.command(&[question]);
        let run = self.executor.run(&command, &mut |_: Line| {}, &Cancel::new()).await;
        run.map(|exited| exited.stdout).map_err(|error| self.failed("read the record of", error))
    }

    /// Runs `script` and then `record` in one transaction, if the newest version is `after`.
    async fn migrate(
        &self,
        migration: &Migration,
        script: &str,
        after: Option<u64>,
        record: &str,
        cancel: &Cancel,
    ) -> Result<(), DatabaseError> {
        if script.len() > LONGEST || script.contains('\0') {
            let said = format!("the script has {} bytes, or a zero byte; split it in two", script.len());
            return Err(self.backend("migrate", ErrorKind::Unsupported, said));
        }
        let (lock, guard, still) = (
            format!("SELECT pg_advisory_xact_lock({LOCK})"),
            guard(migration.version, after),
            format!("{}; {record}", still(migration.version)),
        );
        let command = self.command(&[&lock, TABLE, &guard, script, &still]);
        let run = self.executor.run(&command, &mut |_: Line| {}, cancel).await;
        match run {
            Ok(_) => Ok(()),
            Err(ExecError::Code { code: code @ (1 | 3), last, program }) => {
                let said = last.join("\n");
                if let Some((_, found)) = said.split_once("flowline: at version ") {
                    let word = found.split_whitespace().next().unwrap_or_default();
                    return Err(DatabaseError::Moved { expected: after, found: word.parse().ok() });
                }
                if said.contains("flowline: the transaction was ended") {
                    return Err(DatabaseError::Transaction { migration: migration.shown() });
                }
                let source = ExecError::Code { program, code, last };
                Err(DatabaseError::Script { migration: migration.shown(), source: source.into() })
            }
            Err(error) => Err(self.failed("migrate", error)),
        }
    }

    fn failed(&self, doing: &'static str, error: ExecError) -> DatabaseError {
        let kind = match &error {
            // So psql says that it could not connect, or lost the connection.
            ExecError::Code { code: 2, .. } => ErrorKind::Unavailable,
            other => other.kind(),
        };
        self.backend(doing, kind, error)
    }

    fn backend(&self, doing: &'static str, kind: ErrorKind, source: impl Into<BoxError>) -> DatabaseError {
        let part = |name: &str| self.env.get(name).map_or("", String::as_str);
        let database = format!("database `{}` at `{}`", part("PGDATABASE"), part("PGHOST"));
        DatabaseError::Backend { doing, database, kind, source: source.into() }
    }
}

/// Refuses unless the newest version is `after`, and marks the transaction.
fn guard(version: u64, after: Option<u64>) -> String {
    let after = after.map_or_else(|| "NULL".to_owned(), |after| after.to_string());
    format!(
        "DO $flowline$ DECLARE found bigint; BEGIN SELECT max(version) INTO found FROM flowline_migrations; \
         IF found IS DISTINCT FROM {after} THEN RAISE EXCEPTION 'flowline: at version %', coalesce(found::text, 'none'); END IF; \
         PERFORM set_config('flowline.migrating', '{version}', true); END $flowline$"
    )
}

/// Refuses unless it is still the marked transaction: the mark ends with it.
fn still(version: u64) -> String {
    format!(
        "DO $flowline$ BEGIN IF current_setting('flowline.migrating', true) IS DISTINCT FROM '{version}' THEN \
         RAISE EXCEPTION 'flowline: the transaction was ended'; END IF; END $flowline$"
    )
}

/// A text as SQL writes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', "''"))
}

#[async_trait]
impl Database for PsqlDatabase {
    async fn history(&self, _: &Granted<ResourceId>) -> Result<Vec<Applied>, DatabaseError> {
        let known = self.ask("SELECT to_regclass('flowline_migrations') IS NOT NULL").await?;
        if known.trim_ascii() != b"t" {
            return Ok(Vec::new());
        }
        let answer = self.ask(HISTORY).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| self.backend("read the record of", ErrorKind::Corrupt, error))
    }

    async fn apply(
        &self,
        _: &Granted<ResourceId>,
        migration: &Migration,
        record: &Applied,
        after: Option<u64>,
        cancel: &Cancel,
    ) -> Result<(), DatabaseError> {
        let insert = format!(
            "INSERT INTO flowline_migrations VALUES ({}, {}, {}, {}, {})",
            record.version,
            quoted(&record.name),
            quoted(&record.checksum.to_string()),
            quoted(&record.by),
            quoted(&record.at.to_string()),
        );
        self.migrate(migration, &migration.up, after, &insert, cancel).await
    }

    async fn revert(
        &self,
        _: &Granted<ResourceId>,
        migration: &Migration,
        cancel: &Cancel,
    ) -> Result<(), DatabaseError> {
        let Some(down) = &migration.down else {
            return Err(DatabaseError::NoDown { migration: migration.shown() });
        };
        let delete = format!("DELETE FROM flowline_migrations WHERE version = {}", migration.version);
        self.migrate(migration, down, Some(migration.version), &delete, cancel).await
    }
}
