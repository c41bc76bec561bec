//! What runs: a [`Command`] names everything that it may see and change, so that it means the same everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Debug},
    path::PathBuf,
};

use flowline_core::{SignedDuration, secret::Secret};

use super::Masker;

/// A command with everything that it may see. What is not named here, it does not get: no inherited environment, no standard input, and,
/// where the executor can keep them away, no other files and no network.
///
/// Files are named by their path below `dir`, with `.` for all of it, so that a command finds them at the same place wherever it runs.
#[derive(Clone)]
pub struct Command {
    /// The program: a path, or a name that is looked up in the command's own `PATH`.
    pub program: String,
    /// Its arguments, passed as they are, without a shell.
    pub args: Vec<String>,
    /// Its environment, whole.
    pub env: BTreeMap<String, String>,
    /// Variables whose values must not be seen.
    pub secret_env: BTreeMap<String, Secret>,
    /// Its working directory.
    pub dir: PathBuf,
    /// Files and directories below `dir` that it reads. Each must exist.
    pub reads: BTreeSet<PathBuf>,
    /// Files and directories below `dir` that it writes, and may read. One that does not exist is made as a directory.
    pub writes: BTreeSet<PathBuf>,
    /// It needs the network.
    pub network: bool,
    /// The longest that it may take; then it is stopped like one that is cancelled.
    pub limit: Option<SignedDuration>,
    /// Who started it, for whoever looks at what runs: `run`, `step`. An executor that can attach them to what it starts does.
    pub labels: BTreeMap<String, String>,
    /// Further values to mask in its output; those of `secret_env` always are.
    pub mask: Masker,
    /// How many bytes of its standard output are kept as the result; more is cut at the front.
    pub keep: usize,
}

impl Command {
    /// `program` without arguments in `dir`, with an empty environment and no declared files.
    pub fn new(program: impl Into<String>, dir: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: BTreeMap::new(),
            secret_env: BTreeMap::new(),
            dir: dir.into(),
            reads: BTreeSet::new(),
            writes: BTreeSet::new(),
            network: false,
            limit: None,
            labels: BTreeMap::new(),
            mask: Masker::default(),
            keep: 64 * 1024,
        }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// The same with these arguments too.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The same with a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// The same with a variable whose value is masked in everything that it prints.
    #[must_use]
    pub fn secret_env(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.secret_env.insert(name.into(), value);
        self
    }

    /// The same, reading the file or directory `path` below `dir`.
    #[must_use]
    pub fn reads(mut self, path: impl Into<PathBuf>) -> Self {
        self.reads.insert(path.into());
        self
    }

    /// The same, writing the file or directory `path` below `dir`.
    #[must_use]
    pub fn writes(mut self, path: impl Into<PathBuf>) -> Self {
        self.writes.insert(path.into());
        self
    }

    /// The same, ended after `limit`.
    #[must_use]
    pub fn limit(mut self, limit: SignedDuration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// What must be masked: `mask`, and the values of `secret_env`.
    pub fn masker(&self) -> Masker {
        if self.secret_env.is_empty() {
            return self.mask.clone();
        }
        self.mask.with(self.secret_env.values())
    }
}

impl Debug for Command {
    /// The command line, with secrets masked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masker = self.masker();
        let shown = |text: &str| String::from_utf8_lossy(&masker.mask(text.as_bytes())).into_owned();
        let paths = |paths: &BTreeSet<PathBuf>| -> Vec<_> {
            paths.iter().map(|path| shown(&path.to_string_lossy())).collect()
        };
        f.debug_struct("Command")
            .field("program", &shown(&self.program))
            .field("args", &self.args.iter().map(|arg| shown(arg)).collect::<Vec<_>>())
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("secret_env", &self.secret_env.keys().collect::<Vec<_>>())
            .field("dir", &shown(&self.dir.to_string_lossy()))
            .field("reads", &paths(&self.reads))
            .field("writes", &paths(&self.writes))
            .finish_non_exhaustive()
    }
}
