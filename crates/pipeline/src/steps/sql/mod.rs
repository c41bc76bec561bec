//! Migrating a database: scripts with versions, each applied once, in order, in a transaction of its own that also records it.

mod decide;
mod psql;
#[cfg(feature = "sql")]
mod sqlite;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use flowline_core::{
    Timestamp,
    digest::{Digest, Digester},
    error::{BoxError, ErrorKind, Kinded},
    grant::Granted,
    id::ResourceId,
};
use serde::{Deserialize, Serialize};

#[cfg(feature = "sql")]
pub use self::sqlite::SqliteDatabase;
pub use self::{
    decide::{MigrationProblem, pending},
    psql::PsqlDatabase,
};
use crate::{
    cancel::Cancel,
    step::{
        Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
    },
};

/// One change of a database's schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// Its place: higher than all before, never given twice.
    pub version: u64,
    /// What it does, for people.
    pub name: String,
    /// The script. It must not begin or end transactions itself.
    pub up: String,
    /// The script that takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Whether programs of the version before can go on with it.
    #[serde(default, skip_serializing_if = "Stage::is_expand")]
    pub stage: Stage,
}

/// Which half of an incompatible change a migration is (expand and contract, also called parallel change).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// It only adds: what runs now goes on. Apply it before the new version is deployed.
    #[default]
    Expand,
    /// It takes something away that old versions may use. Apply it once none of them runs. The plan says so.
    Contract,
}

impl Stage {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_expand(&self) -> bool {
        *self == Self::Expand
    }
}

impl Migration {
    /// Version `version` by the script `up`, which only adds.
    pub fn new(version: u64, name: impl Into<String>, up: impl Into<String>) -> Self {
        Self { version, name: name.into(), up: up.into(), down: None, stage: Stage::Expand }
    }

    /// The same, taken back by the script `down`.
    #[must_use]
    pub fn undone_by(mut self, down: impl Into<String>) -> Self {
        self.down = Some(down.into());
        self
    }

    /// The same, saying that it takes away what older programs may use.
    #[must_use]
    pub fn contracting(mut self) -> Self {
        self.stage = Stage::Contract;
        self
    }

    /// What an applied migration is recognised by: its version and script. Another name or way back is no other migration.
    pub fn checksum(&self) -> Digest {
        let mut digester = Digester::new("flowline migration 1");
        digester.part(self.version.to_be_bytes()).part(&self.up);
        digester.finish()
    }

    fn shown(&self) -> String {
        format!("{:04} {}", self.version, self.name)
    }
}

/// Everything that a database's schema is made of; what is on record there already is not applied again. The scripts are part of the plan,
/// so an approval covers them.
///
/// *Effect*: idempotent. Each migration and its record are one transaction; a run that was cut short goes on with the next one.
///
/// *Undo*: the migrations that this step applied are taken back by their `down` scripts, newest first; if one of all has none, the plan says
/// that the step is irreversible. Data that a script threw away does not come back.
///
/// *Touches* the `database`, such as `database:production/orders`.
///
/// *Errors by kind*: `Invalid` (versions out of order), `Conflict` (an applied script was changed or is missing; somebody migrated in
/// between), `Failed` (a script failed; nothing of it was applied), `Busy`, `NotFound` (no such database), `Unavailable`.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::{Migrate, Migration}};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let orders = Migrate::new("database:production/orders".parse()?)
///     .with(Migration::new(1, "orders", "CREATE TABLE orders (id INTEGER PRIMARY KEY)").undone_by("DROP TABLE orders"))
///     .with(Migration::new(2, "status", "ALTER TABLE orders ADD COLUMN status TEXT").undone_by("ALTER TABLE orders DROP COLUMN status"));
/// let mut pipeline = Pipeline::new("migrate", "storefront".parse()?);
/// let migrated = pipeline.step("migrate", orders);
/// # let _ = migrated; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migrate {
    /// Which database.
    pub database: ResourceId,
    /// All migrations from the first, in order of their versions.
    pub migrations: Vec<Migration>,
}

impl Migrate {
    /// No migration of `database` yet.
    pub fn new(database: ResourceId) -> Self {
        Self { database, migrations: Vec::new() }
    }

    /// The same with one more.
    #[must_use]
    pub fn with(mut self, migration: Migration) -> Self {
        self.migrations.push(migration);
        self
    }

    /// The migrations in the files of `directory`: `0001_create_orders.sql`, taken back by `0001_create_orders.down.sql`. A first line
    /// `-- contract` makes it [`Stage::Contract`]. Other files are left alone.
    ///
    /// # Errors
    /// [`MigrationFileError`]: a file that can't be read, or is named like a migration and is none.
    pub fn read(database: ResourceId, directory: &Path) -> Result<Self, MigrationFileError> {
        let failed = |source| MigrationFileError::Read { path: directory.to_owned(), source };
        let mut names = Vec::new();
        for found in std::fs::read_dir(directory).map_err(failed)? {
            names.extend(found.map_err(failed)?.file_name().to_str().map(str::to_owned));
        }
        names.sort();
        let text = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| MigrationFileError::Read { path, source })
        };
        let mut migrations = Vec::new();
        for name in &names {
            let Some(stem) = name.strip_suffix(".sql").filter(|stem| stem.strip_suffix(".down").is_none())
            else {
                continue;
            };
            let parts = stem.split_once('_').and_then(|(number, what)| Some((number.parse().ok()?, what)));
            let Some((version, what)) = parts else {
                return Err(MigrationFileError::Name(directory.join(name)));
            };
            let mut migration = Migration::new(version, what.replace('_', " "), text(name)?);
            if migration.up.lines().next().is_some_and(|line| line.trim() == "-- contract") {
                migration = migration.contracting();
            }
            let down = format!("{stem}.down.sql");
            if names.contains(&down) {
                migration = migration.undone_by(text(&down)?);
            }
            migrations.push(migration);
        }
        migrations.sort_by_key(|migration| migration.version);
        Ok(Self { database, migrations })
    }
}

/// Why the migrations of a directory can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationFileError {
    /// A file or the directory can't be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file has no version.
    #[error("{} has no version in its name; call it like `0001_create_orders.sql`", .0.display())]
    Name(PathBuf),
}

impl Kinded for MigrationFileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Read { .. } => ErrorKind::Other,
            Self::Name(_) => ErrorKind::Invalid,
        }
    }
}

/// The schema after a [`Migrate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    /// The newest version; `None` if there is none at all.
    pub version: Option<u64>,
}

impl Spec for Migrate {
    const KIND: &'static str = "sql/migrate";
    type Input = ();
    type Output = Migrated;
}

/// A migration on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its version.
    pub version: u64,
    /// What it was called.
    pub name: String,
    /// What its script was.
    pub checksum: Digest,
    /// The step of the run that applied it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// A database that can be migrated.
///
/// *Guarantees*
/// 1. `apply` runs the script and records it in one transaction, alone: no other process migrates the same database meanwhile.
/// 2. Within that transaction it checks that the newest version on record is still `after`; otherwise nothing happens and it answers
///    [`DatabaseError::Moved`].
/// 3. `revert` does the same with the `down` script and the removal of the record, if `migration` is the newest.
/// 4. `history` changes nothing, and is empty for a database that nobody migrated yet.
///
/// *Cancellation*: a dropped call is whole or absent. *Errors by kind*: see [`DatabaseError`].
#[async_trait]
pub trait Database: Debug + Send + Sync {
    /// The migrations on record, oldest first.
    async fn history(&self, database: &Granted<ResourceId>) -> Result<Vec<Applied>, DatabaseError>;

    /// Applies `migration` on top of version `after`, and records `record` for it. A database that can stop in the middle of a script does so
    /// on `cancel`, and leaves nothing of it: `Cancelled`.
    async fn apply(
        &self,
        database: &Granted<ResourceId>,
        migration: &Migration,
        record: &Applied,
        after: Option<u64>,
        cancel: &Cancel,
    ) -> Result<(), DatabaseError>;

    /// Takes back `migration`, which must be the newest, by its `down` script; on `cancel` like [`apply`](Self::apply).
    async fn revert(
        &self,
        database: &Granted<ResourceId>,
        migration: &Migration,
        cancel: &Cancel,
    ) -> Result<(), DatabaseError>;
}

/// Why a database could not be looked at or migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// A script failed, and nothing of it was applied.
    #[error("migration `{migration}` failed and nothing of it was applied; mend its script")]
    Script {
        /// Which.
        migration: String,
        /// What the database said.
        source: BoxError,
    },
    /// A script ended the transaction that it runs in.
    #[error(
        "migration `{migration}` ends its transaction itself, so it may be applied and not be on record; take `BEGIN` and `COMMIT` out of it and look at what it did"
    )]
    Transaction {
        /// Which.
        migration: String,
    },
    /// Another process migrated in between.
    #[error("the database is at version {found}, not {expected}: somebody migrated it in between; plan again", found = version(*.found), expected = version(*.expected))]
    Moved {
        /// As it was expected.
        expected: Option<u64>,
        /// As it is.
        found: Option<u64>,
    },
    /// There is no way back.
    #[error("migration `{migration}` has no script that takes it back")]
    NoDown {
        /// Which.
        migration: String,
    },
    /// The database can't be used.
    #[error("cannot {doing} {database}")]
    Backend {
        /// What was being done.
        doing: &'static str,
        /// Where.
        database: String,
        /// What that means.
        kind: ErrorKind,
        /// What it said.
        source: BoxError,
    },
}

fn version(version: Option<u64>) -> String {
    version.map_or_else(|| "none".to_owned(), |version| version.to_string())
}

impl Kinded for DatabaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Script { .. } | Self::Transaction { .. } => ErrorKind::Failed,
            Self::Moved { .. } => ErrorKind::Conflict,
            Self::NoDown { .. } => ErrorKind::Unsupported,
            Self::Backend { kind, .. } => *kind,
        }
    }
}

/// The code of [`Migrate`].
#[derive(Debug, Clone, Default)]
pub struct MigrateStep {
    databases: BTreeMap<ResourceId, Arc<dyn Database>>,
}

impl MigrateStep {
    /// Knows no database yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, migrating `resource` through `database`.
    #[must_use]
    pub fn with(mut self, resource: ResourceId, database: Arc<dyn Database>) -> Self {
        self.databases.insert(resource, database);
        self
    }

    fn database(&self, spec: &Migrate) -> Result<&dyn Database, StepError> {
        self.databases.get(&spec.database).map(AsRef::as_ref).ok_or_else(|| {
            let said =
                format!("nobody said how to reach `{}`; give it to the step that migrates", spec.database);
            StepError::new(ErrorKind::NotFound, said)
        })
    }
}

fn newest(history: &[Applied]) -> Option<u64> {
    history.last().map(|applied| applied.version)
}

#[async_trait]
impl Step for MigrateStep {
    type Spec = Migrate;

    fn effect(&self, _: &Migrate) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, spec: &Migrate) -> Undo {
        if spec.migrations.iter().all(|migration| migration.down.is_some()) {
            Undo::Compensate
        } else {
            Undo::Irreversible
        }
    }

    fn touches(&self, spec: &Migrate) -> Vec<ResourceId> {
        vec![spec.database.clone()]
    }

    async fn preview(&self, spec: &Migrate, context: &PreviewContext) -> Result<Preview, StepError> {
        let granted = context.granted(&spec.database)?;
        let history = self.database(spec)?.history(granted).await.map_err(StepError::of)?;
        let pending = pending(&spec.migrations, &history).map_err(StepError::of)?;
        let details = pending.iter().map(|migration| match migration.stage {
            Stage::Expand => format!("+ {}", migration.shown()),
            Stage::Contract => {
                format!("- {} (contracts: no older version may run any more)", migration.shown())
            }
        });
        let json = |error: serde_json::Error| {
            StepError::failed("a history cannot be written as JSON").because(error)
        };
        let checksums: Vec<_> = history.iter().map(|applied| (applied.version, applied.checksum)).collect();
        let fingerprint = if checksums.is_empty() {
            Fingerprint::absent()
        } else {
            Fingerprint::of(&checksums).map_err(json)?
        };
        let action = if pending.is_empty() { Action::Keep } else { Action::Update };
        let seen =
            Observed { resource: spec.database.clone(), action, fingerprint, details: details.collect() };
        let preview = Preview::of(format!("migrates `{}`", spec.database), vec![seen]);
        if action == Action::Keep {
            let known = serde_json::to_value(Migrated { version: newest(&history) }).map_err(json)?;
            return Ok(preview.knowing(known));
        }
        Ok(preview)
    }

    async fn run(&self, spec: &Migrate, (): (), context: &Context) -> Result<Migrated, StepError> {
        let (granted, database) = (context.granted(&spec.database)?, self.database(spec)?);
        let history = database.history(granted).await.map_err(StepError::of)?;
        let pending = pending(&spec.migrations, &history).map_err(StepError::of)?;
        let mut at = newest(&history);
        for migration in pending {
            if context.cancel().is_cancelled() {
                return Err(StepError::new(
                    ErrorKind::Cancelled,
                    "the migration was cancelled between two scripts",
                ));
            }
            let record = Applied {
                version: migration.version,
                name: migration.name.clone(),
                checksum: migration.checksum(),
                by: context.key(),
                at: context.clock().now(),
            };
            let applied = database.apply(granted, migration, &record, at, context.cancel()).await;
            applied.map_err(StepError::of)?;
            context.say(format!("applied {}", migration.shown()));
            at = Some(migration.version);
            tokio::task::yield_now().await;
        }
        Ok(Migrated { version: at })
    }

    async fn undo(&self, spec: &Migrate, _: Option<Migrated>, context: &Context) -> Result<(), StepError> {
        let (granted, database) = (context.granted(&spec.database)?, self.database(spec)?);
        let (history, key) = (database.history(granted).await.map_err(StepError::of)?, context.key());
        // Refused if somebody else migrated on top: theirs may stand on ours.
        for applied in history.iter().rev().take(history.iter().filter(|applied| applied.by == key).count()) {
            let known = spec.migrations.iter().find(|migration| migration.version == applied.version);
            let (Some(migration), true) = (known, applied.by == key) else {
                let said = format!(
                    "version {} was applied on top by `{}`; decide what is right, and take that back first",
                    applied.version, applied.by
                );
                return Err(StepError::new(ErrorKind::Conflict, said));
            };
            database.revert(granted, migration, context.cancel()).await.map_err(StepError::of)?;
            context.say(format!("took back {}", migration.shown()));
        }
        Ok(())
    }
}
