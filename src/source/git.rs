//! A git repository, read through the `git` program: hermetic, without hooks, prompts or the user's configuration.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use async_trait::async_trait;
use flowline_core::{
    change::CommitId,
    digest::{Digest, Digester},
};

use super::{Source, SourceError};

/// A git repository on this host, bare or with a work tree.
///
/// Trees are keyed by git's own object names, so no file is read to find out that nothing changed.
#[derive(Debug, Clone)]
pub struct GitSource {
    repository: PathBuf,
    program: PathBuf,
}

impl GitSource {
    /// The repository in `repository`, read with the `git` that the search path finds.
    pub fn new(repository: impl Into<PathBuf>) -> Self {
        Self { repository: repository.into(), program: PathBuf::from("git") }
    }

    /// The same, read with `program`.
    #[must_use]
    pub fn with_program(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = program.into();
        self
    }

    /// Where the repository is.
    pub fn repository(&self) -> &Path {
        &self.repository
    }

    /// The object that `expression` names, or `None`.
    async fn object(&self, expression: &str) -> Result<Option<String>, SourceError> {
        let output =
            self.run(&["rev-parse", "--verify", "--quiet", "--end-of-options", expression], &[]).await?;
        if output.status.success() {
            return Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()));
        }
        let said = said(&output);
        if said.contains("not a git repository")
            || said.contains("dubious ownership")
            || said.contains("cannot change to")
        {
            return Err(SourceError::NotARepository { repository: self.repository.clone(), said });
        }
        Ok(None)
    }

    /// Runs git and demands success.
    async fn done(&self, doing: &str, args: &[&str], env: &[(&str, &Path)]) -> Result<Output, SourceError> {
        let output = self.run(args, env).await?;
        if output.status.success() {
            return Ok(output);
        }
        Err(SourceError::Failed {
            doing: doing.to_owned(),
            repository: self.repository.clone(),
            said: said(&output),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter through which git runs")]
    async fn run(&self, args: &[&str], env: &[(&str, &Path)]) -> Result<Output, SourceError> {
        let mut command = tokio::process::Command::new(&self.program);
        // Only what is declared here reaches git; the search path stays, so that git finds its own parts.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_OPTIONAL_LOCKS", "0")
            .env("LC_ALL", "C")
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "core.autocrlf=false",
                "-c",
                "safe.directory=*",
                "-C",
            ])
            .arg(&self.repository)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.map_err(|source| SourceError::NoProgram {
            program: self.program.clone(),
            repository: self.repository.clone(),
            source: source.into(),
        })
    }
}

#[async_trait]
impl Source for GitSource {
    async fn resolve(&self, revision: &str) -> Result<CommitId, SourceError> {
        let none =
            || SourceError::NoRevision { revision: revision.to_owned(), repository: self.repository.clone() };
        let object = self.object(&format!("{revision}^{{commit}}")).await?.ok_or_else(none)?;
        CommitId::new(object).map_err(|_| none())
    }

    async fn tree(&self, commit: &CommitId, path: &str) -> Result<Option<Digest>, SourceError> {
        let object = self.object(&format!("{commit}:{path}")).await?;
        Ok(object.map(|object| Digester::new("git object").part(object).finish()))
    }

    async fn read(&self, commit: &CommitId, path: &str) -> Result<Option<String>, SourceError> {
        let Some(object) = self.object(&format!("{commit}:{path}")).await? else { return Ok(None) };
        let output = self.done(&format!("read `{path}`"), &["cat-file", "blob", &object], &[]).await?;
        Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    async fn export(&self, commit: &CommitId, path: &str, into: &Path) -> Result<(), SourceError> {
        let write =
            |source: std::io::Error| SourceError::Write { to: into.to_owned(), source: source.into() };
        tokio::fs::create_dir_all(into).await.map_err(write)?;
        // An index of our own, beside the files, leaves the repository's untouched.
        let index = into.with_extension("index");
        let env: &[(&str, &Path)] = &[("GIT_INDEX_FILE", &index), ("GIT_WORK_TREE", into)];
        let directory = self.done("find the repository", &["rev-parse", "--absolute-git-dir"], &[]).await?;
        let directory = PathBuf::from(String::from_utf8_lossy(&directory.stdout).trim());
        let env = &[env, &[("GIT_DIR", directory.as_path())]].concat();
        let doing = format!("export `{path}` of {}", commit.short());
        let result = async {
            self.done(&doing, &["read-tree", &format!("{commit}:{path}")], env).await?;
            self.done(&doing, &["checkout-index", "--all", "--force"], env).await
        }
        .await;
        match tokio::fs::remove_file(&index).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(write(error)),
            _ => {}
        }
        result.map(|_| ())
    }
}

/// What git wrote to standard error, on one line.
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    if line.is_empty() { format!("it ended with {}", output.status) } else { line }
}
