//! Which commands every executor refuses before it starts anything, and how errors show a command: the same everywhere.

use std::path::{Component, Path, PathBuf};

use flowline_core::{error::BoxError, secret::Secret};

use super::{Command, ExecError, MARK};

impl Command {
    /// What every executor must refuse before it starts anything, and the outputs that must exist: the same everywhere.
    ///
    /// # Errors
    /// `Invalid` for a NUL byte, a variable's name that cannot be one, a path that is not below `dir`; `NotFound` for an input or a directory
    /// that is not there.
    pub(crate) fn prepare(&self) -> Result<(), ExecError> {
        self.check_words()?;
        let declared = || self.reads.iter().chain(&self.writes);
        for path in declared() {
            let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
            if path.as_os_str().is_empty() || (path != Path::new(".") && !path.components().all(inside)) {
                let problem = format!(
                    "the declared path `{}` does not lead below the working directory; write it relative, without `..`",
                    path.display()
                );
                return Err(self.invalid(problem));
            }
        }
        if declared().next().is_some() && !self.dir.is_dir() {
            return Err(ExecError::NoDirectory { program: self.shown(), dir: self.shown_path(&self.dir) });
        }
        for path in &self.reads {
            // An output is made below, so it may be named as an input too.
            if !self.dir.join(path).exists() && !self.writes.contains(path) {
                let path = self.shown_path(&self.dir.join(path));
                return Err(ExecError::NoFile { program: self.shown(), path });
            }
        }
        for path in &self.writes {
            let path = self.dir.join(path);
            if !path.exists() {
                std::fs::create_dir_all(&path).map_err(|source| self.files(&path, source))?;
            }
        }
        Ok(())
    }

    /// The program, as errors show it.
    pub(crate) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.masker().mask(self.program.as_bytes())).into_owned()
    }

    pub(crate) fn shown_path(&self, path: &Path) -> PathBuf {
        String::from_utf8_lossy(&self.masker().mask(path.to_string_lossy().as_bytes())).into_owned().into()
    }

    pub(crate) fn files(&self, path: &Path, source: impl Into<BoxError>) -> ExecError {
        ExecError::Files { program: self.shown(), path: self.shown_path(path), source: source.into() }
    }

    pub(crate) fn invalid(&self, problem: impl Into<String>) -> ExecError {
        let problem = self.masker().mask(problem.into().as_bytes());
        ExecError::Invalid { program: self.shown(), problem: String::from_utf8_lossy(&problem).into_owned() }
    }

    fn check_words(&self) -> Result<(), ExecError> {
        for name in self.env.keys().chain(self.secret_env.keys()) {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(self.invalid(format!("`{name}` cannot be the name of a variable")));
            }
            if name == MARK {
                return Err(self.invalid(format!("`{name}` is set by the executor; do not declare it")));
            }
        }
        let secrets = self.secret_env.values().map(Secret::expose);
        let values = self.env.values().map(String::as_str).chain(secrets);
        let words = std::iter::once(&self.program).chain(&self.args).map(String::as_str).chain(values);
        if words.into_iter().any(|word| word.contains('\0')) {
            return Err(self
                .invalid("its command line or environment holds a NUL byte, which no program can be given"));
        }
        Ok(())
    }
}
