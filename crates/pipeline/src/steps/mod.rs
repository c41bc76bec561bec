//! The steps that ship.
//!
//! | step | what it does |
//! | --- | --- |
//! | [`RunCommand`] | runs a command through an [`Executor`] |
//! | `RunContainer` | runs a command in a container of an image that the plan names (feature `container`) |
//! | [`ApprovalGate`], [`TimeGate`], [`SignalGate`] | let the run wait while no process lives |
//! | [`WaitUntil`], [`Pause`] | lets time pass |
//! | [`ChangeFlag`] | says something else of a flag in a scope |
//! | [`Promote`] | brings a release to an environment, if the decision of promotion is for it |
//! | [`Migrate`] | applies a database's migrations; PostgreSQL through `psql`, a SQLite file with feature `sql` |
//! | [`TerraformApply`] | applies exactly the plan file that was shown |
//! | `ProbeHttp` (feature `http`) | asks an address whether it is well |
//! | `PackArchive`, `UnpackArchive` (feature `archive`) | makes one file of a tree, the same for the same tree, and the tree of it |
//! | `SyncFiles` (feature `process`) | makes files the current release of a directory, in one move |
//! | `SwitchRelease` (feature `process`) | makes a release that is still there the current one |
//! | [`Function`](crate::step::Function) | calls an async closure of the deployer |

#[cfg(all(feature = "archive", unix))]
mod archive;
mod command;
#[cfg(all(feature = "container", unix))]
mod container;
#[cfg(all(feature = "archive", unix))]
mod elsewhere;
mod flag;
mod gate;
#[cfg(feature = "http")]
mod http;
mod promote;
mod sql;
#[cfg(all(feature = "process", unix))]
mod sync;
mod terraform;
#[cfg(all(feature = "process", unix))]
mod tree;
mod wait;

use std::sync::Arc;

#[cfg(all(feature = "archive", unix))]
pub use self::archive::{
    Archive, ArchiveError, PackArchive, PackArchiveStep, UnpackArchive, UnpackArchiveStep, Unpacked,
};
#[cfg(all(feature = "container", unix))]
pub use self::container::{ContainerStep, RunContainer};
#[cfg(all(feature = "archive", unix))]
pub use self::elsewhere::OnlyHere;
#[cfg(feature = "http")]
pub use self::http::{ProbeHttp, ProbeHttpStep};
#[cfg(feature = "sql")]
pub use self::sql::SqliteDatabase;
#[cfg(all(feature = "process", unix))]
pub use self::sync::{
    SwitchRelease, SwitchReleaseStep, SwitchReleaseThrough, SwitchedRelease, SyncError, SyncFiles,
    SyncFilesStep, SyncFilesThrough, Synced,
};
pub use self::{
    command::{CommandOutput, CommandStep, OtherCommand, RunCommand, Variables},
    flag::{ChangeFlag, ChangeFlagStep, FlagState},
    gate::{
        ApprovalGate, ApprovalGateStep, Approved, SignalGate, SignalGateStep, TimeGate, TimeGateStep,
        decide_approval,
    },
    promote::{Promote, PromoteStep, Promoted, Promotion},
    sql::{
        Applied, Database, DatabaseError, Migrate, MigrateStep, Migrated, Migration, MigrationFileError,
        MigrationProblem, PsqlDatabase, Stage, pending,
    },
    terraform::{
        ResourceChange, StateMark, TerraformApply, TerraformError, TerraformOutputs, TerraformStack,
        TerraformStep,
    },
    wait::{Pause, PauseStep, WaitStep, WaitUntil},
};
use crate::{exec::Executor, plan::IdError, step::Registry};

/// Adds every step of this module that needs nothing but an executor to `registry`, commands running through `executor`. Those that act on
/// something of yours ([`ChangeFlagStep`], [`PromoteStep`], [`MigrateStep`]) are added one by one.
///
/// `SyncFiles` and `SwitchRelease` work on the host where commands do: this one, with an executor that has its files
/// ([`own_files`](crate::exec::ExecutorCapabilities::own_files)), or the executor's (`SyncFilesThrough`). Steps that work on the files of this
/// host alone (`PackArchive`, `UnpackArchive`) are refused (`OnlyHere`) if `executor` works on another, as commands and files would mean two
/// hosts. Add their code again where that is what you mean.
///
/// # Errors
/// None in practice: the kinds' names are well-formed.
pub fn register(registry: &mut Registry, executor: Arc<dyn Executor>) -> Result<(), IdError> {
    #[cfg(all(feature = "process", unix))]
    let here = executor.capabilities().own_files;
    #[cfg(all(feature = "process", unix))]
    if here {
        registry.add(SyncFilesStep)?.add(SwitchReleaseStep)?;
    } else {
        registry.add(SyncFilesThrough::new(Arc::clone(&executor)))?;
        registry.add(SwitchReleaseThrough::new(Arc::clone(&executor)))?;
    }
    registry.add(TerraformStep::new(Arc::clone(&executor)))?;
    registry.add(CommandStep::new(executor))?.add(WaitStep)?.add(PauseStep)?;
    registry.add(ApprovalGateStep)?.add(TimeGateStep)?.add(SignalGateStep)?;
    #[cfg(all(feature = "archive", unix))]
    if here {
        registry.add(PackArchiveStep)?.add(UnpackArchiveStep)?;
    } else {
        registry.add(elsewhere::Elsewhere(PackArchiveStep))?.add(elsewhere::Elsewhere(UnpackArchiveStep))?;
    }
    #[cfg(feature = "http")]
    registry.add(ProbeHttpStep::new())?;
    Ok(())
}
