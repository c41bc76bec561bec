//! Which migrations are still to be applied, as a plain function of the scripts and of what is on record.

use flowline_core::error::{ErrorKind, Kinded};

use super::{Applied, Migration};

/// Why scripts and record don't go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationProblem {
    /// Versions don't grow.
    #[error(
        "migration `{name}` has version {version}, which is not higher than the one before; give it a higher one"
    )]
    Order {
        /// Its version.
        version: u64,
        /// Its name.
        name: String,
    },
    /// An applied script is another one now.
    #[error(
        "migration {version} `{name}` was applied and then changed; put its script back as it was, and add a new migration"
    )]
    Changed {
        /// Its version.
        version: u64,
        /// Its name.
        name: String,
    },
    /// Something is on record that the scripts don't know.
    #[error(
        "the database has migration {version} `{name}`, which is not among these scripts; deploy a version that knows it"
    )]
    Unknown {
        /// Its version.
        version: u64,
        /// Its name on record.
        name: String,
    },
    /// A script came too late.
    #[error(
        "migration {version} `{name}` is older than version {newest}, which the database has already; give it a higher version"
    )]
    Late {
        /// Its version.
        version: u64,
        /// Its name.
        name: String,
        /// The newest on record.
        newest: u64,
    },
}

impl Kinded for MigrationProblem {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Order { .. } => ErrorKind::Invalid,
            Self::Changed { .. } | Self::Unknown { .. } | Self::Late { .. } => ErrorKind::Conflict,
        }
    }

    fn retry(&self) -> flowline_core::error::Retry {
        flowline_core::error::Retry::Never
    }
}

/// The `migrations` that are not in `history` yet, in order.
///
/// ```
/// use flowline_pipeline::steps::{Migration, pending};
/// let migrations = [Migration::new(1, "orders", "CREATE TABLE orders (id INTEGER)"), Migration::new(2, "status", "…")];
/// assert_eq!(pending(&migrations, &[])?.len(), 2);
/// # Ok::<(), flowline_pipeline::steps::MigrationProblem>(())
/// ```
///
/// # Errors
/// [`MigrationProblem`]: whatever would make the schema depend on the order of deployments.
pub fn pending<'a>(
    migrations: &'a [Migration],
    history: &[Applied],
) -> Result<Vec<&'a Migration>, MigrationProblem> {
    let named = |migration: &Migration| (migration.version, migration.name.clone());
    for pair in migrations.windows(2) {
        if let [before, after] = pair
            && after.version <= before.version
        {
            let (version, name) = named(after);
            return Err(MigrationProblem::Order { version, name });
        }
    }
    for applied in history {
        let (version, name) = (applied.version, applied.name.clone());
        match migrations.iter().find(|migration| migration.version == version) {
            None => return Err(MigrationProblem::Unknown { version, name }),
            Some(migration) if migration.checksum() != applied.checksum => {
                return Err(MigrationProblem::Changed { version, name });
            }
            Some(_) => {}
        }
    }
    let is_new = |migration: &&Migration| !history.iter().any(|applied| applied.version == migration.version);
    let pending: Vec<_> = migrations.iter().filter(is_new).collect();
    let newest = history.iter().map(|applied| applied.version).max();
    match (pending.first(), newest) {
        (Some(first), Some(newest)) if first.version < newest => {
            let (version, name) = named(first);
            Err(MigrationProblem::Late { version, name, newest })
        }
        _ => Ok(pending),
    }
}

#[cfg(test)]
mod tests {
    use flowline_core::Timestamp;

    use super::*;

    fn script(version: u64, up: &str) -> Migration {
        Migration::new(version, format!("step {version}"), up)
    }

    fn applied(migration: &Migration) -> Applied {
        Applied {
            version: migration.version,
            name: migration.name.clone(),
            checksum: migration.checksum(),
            by: "run/step".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_is_on_record_is_not_applied_again() {
        let scripts = [script(1, "a"), script(3, "b"), script(7, "c")];
        let history = [applied(&scripts[0])];
        let versions: Vec<_> = pending(&scripts, &history).unwrap().iter().map(|m| m.version).collect();
        assert_eq!(versions, [3, 7]);
        // Another name or way back is no other script.
        let renamed = [Migration { name: "other".to_owned(), ..script(1, "a") }.undone_by("z")];
        assert!(pending(&renamed, &history).unwrap().is_empty());
    }

    #[test]
    fn what_would_depend_on_the_order_of_deployments_is_refused() {
        let (one, two, three) = (script(1, "a"), script(2, "b"), script(3, "c"));
        let said = |scripts: &[Migration], history: &[&Migration]| {
            let history: Vec<_> = history.iter().map(|migration| applied(migration)).collect();
            pending(scripts, &history).unwrap_err().to_string()
        };
        let all = [
            said(&[two.clone(), one.clone()], &[]),
            said(&[one.clone(), script(1, "b")], &[]),
            said(&[script(1, "changed"), two.clone()], &[&one]),
            said(std::slice::from_ref(&one), &[&one, &two]),
            said(&[one.clone(), two.clone(), three.clone()], &[&one, &three]),
        ]
        .join("\n");
        insta::assert_snapshot!(all, @r"
        migration `step 1` has version 1, which is not higher than the one before; give it a higher one
        migration `step 1` has version 1, which is not higher than the one before; give it a higher one
        migration 1 `step 1` was applied and then changed; put its script back as it was, and add a new migration
        the database has migration 2 `step 2`, which is not among these scripts; deploy a version that knows it
        migration 2 `step 2` is older than version 3, which the database has already; give it a higher version
        ");
    }
}
