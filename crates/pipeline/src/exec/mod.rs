//! How a command runs: an [`Executor`] takes a [`Command`] that says everything it may see, and passes on what it prints.
//!
//! | executor | runs commands | keeps away |
//! | --- | --- | --- |
//! | `LocalExecutor` (feature `process`) | as processes of this host | the environment |
//! | `ContainerExecutor` (feature `container`) | in containers of one image | the environment, files, the network, memory beyond a limit |
//! | `SshExecutor` (feature `ssh`) | on another host | the environment; this host's files |

mod command;
#[cfg(all(feature = "container", unix))]
pub mod container;
mod error;
mod lines;
#[cfg(all(feature = "process", unix))]
pub mod local;
#[cfg(all(feature = "process", unix))]
mod marked;
#[cfg_attr(
    not(all(feature = "process", unix)),
    expect(dead_code, reason = "only what runs programs masks piece by piece")
)]
mod mask;
#[cfg(all(feature = "process", unix))]
mod output;
#[cfg(all(feature = "process", unix))]
mod prepare;
#[cfg(all(feature = "ssh", unix))]
pub mod ssh;

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

#[cfg(all(feature = "container", unix))]
pub use self::container::{ContainerExecutor, Engine, Image};

#[cfg(all(feature = "process", unix))]
pub use self::local::LocalExecutor;
#[cfg(all(feature = "ssh", unix))]
pub use self::ssh::{SshExecutor, SshHost};
pub use self::{command::Command, error::ExecError, lines::LineSplitter, mask::Masker};
use crate::cancel::Cancel;

/// The one variable that a command may find in its environment although nobody declared it: the value is another for every command, and
/// whoever inherits it belongs to the command and ends with it (see [`LocalExecutor`]). So a result should not depend on it, and nobody
/// else may set it. A container has none: it ends with all that is in it.
pub const MARK: &str = "FLOWLINE_MARK";

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line that a command printed, without its newline, secrets masked. The bytes are as they were, valid UTF-8 or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It was too long for one piece; the next line of the same stream continues it.
    pub cut: bool,
}

impl Line {
    /// The bytes as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Takes lines as they come. Called in order for each stream.
pub trait Lines: Send {
    /// Takes one line.
    fn line(&mut self, line: Line);
}

impl<F: FnMut(Line) + Send> Lines for F {
    fn line(&mut self, line: Line) {
        self(line);
    }
}

/// A command ended well, with exit code 0.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exited {
    /// The last [`Command::keep`] bytes of its standard output, secrets masked.
    pub stdout: Vec<u8>,
    /// How many bytes of standard output came before those.
    pub dropped: u64,
    /// How many processes it left behind, which were killed. Always 0 where the executor can't tell
    /// ([`tells_strays`](ExecutorCapabilities::tells_strays)).
    pub strays: u32,
}

/// What an executor can do, as data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a separate fact")]
#[non_exhaustive]
pub struct ExecutorCapabilities {
    /// Only declared files can be seen, besides those that belong to where it runs (an image's); what is declared as read can't be changed,
    /// and a file that is not declared can't be made in the working directory.
    pub hermetic_files: bool,
    /// The network is closed unless it was declared.
    pub hermetic_network: bool,
    /// It runs on this host, and sees its files: paths mean the same inside.
    pub local: bool,
    /// It runs on this host, and what a command reads and writes of its declared files is this host's own, not a copy. What is not declared
    /// may be kept away from it.
    pub own_files: bool,
    /// A signal that ended the command is told from an exit code of 128 and its number; otherwise such a code counts as the signal.
    pub exact_signals: bool,
    /// A cancel asks every process of the command to stop; otherwise only the first, and the others are killed with its end.
    pub asks_all: bool,
    /// It limits memory and processes.
    pub limits: bool,
    /// It tells how many processes a command left behind.
    pub tells_strays: bool,
}

impl ExecutorCapabilities {
    /// An executor that can do nothing of it: where one of your own starts from.
    ///
    /// ```
    /// use flowline_pipeline::exec::ExecutorCapabilities;
    /// let mut capabilities = ExecutorCapabilities::NONE;
    /// capabilities.hermetic_network = true;
    /// ```
    pub const NONE: Self = Self {
        hermetic_files: false,
        hermetic_network: false,
        local: false,
        own_files: false,
        exact_signals: false,
        asks_all: false,
        limits: false,
        tells_strays: false,
    };
}

/// Runs commands somewhere.
///
/// *Shape*: called from many tasks at once; `run` lasts as long as the command.
///
/// *Guarantees*
/// 1. The command sees exactly the declared environment, working directory and arguments, and an empty standard input. An executor may add
///    one variable, [`MARK`]. Declared inputs are where it expects them, and declared outputs are on this host once it ended well.
/// 2. Lines arrive as they are printed, in order for each stream, with secrets masked however they were split over reads; memory stays bounded
///    whatever the command prints, also without newline.
/// 3. `run` returns once the command itself ended: not earlier, even if it closed its outputs; and not much later, even if a process that it
///    left behind holds them open. Nothing that it started is left behind, whatever process group or session it made for itself.
/// 4. On cancel, and after its [limit](field@Command::limit), the command is asked to stop (SIGTERM), and killed after the grace with all that it started.
///    On drop the same happens without waiting.
///
/// *Errors by kind*: `Invalid` (a command that can't be run anywhere), `NotFound` (no such program, directory, input or image), `Denied` (not
/// executable, a refused login), `Failed` (exit code, signal, out of memory; with the last lines), `TimedOut`, `Cancelled`, `Unavailable` (the
/// host is out of processes, or can't be reached: [`ExecError::is_unknown`] says whether the command may have taken effect), `Unsupported`
/// (this platform).
///
/// *Assumptions on the implementer*: `run` may be called from many tasks at once, and its future dropped at any await.
///
/// *Where backends differ*: [`capabilities`](Self::capabilities). The suite is `testkit::executor`.
#[async_trait]
pub trait Executor: Debug + Send + Sync {
    /// What this executor can do.
    fn capabilities(&self) -> ExecutorCapabilities;

    /// Runs `command` to its end, passing its lines to `lines`.
    async fn run(
        &self,
        command: &Command,
        lines: &mut dyn Lines,
        cancel: &Cancel,
    ) -> Result<Exited, ExecError>;
}
