//! The program's commands: what is asked, and what its answers mean.

use std::{fs, path::Path};

use flowline_core::digest::Digest;
use serde::Deserialize;
use serde_json::Value;

use super::{StateMark, TerraformError, TerraformOutputs, TerraformStack};
use crate::{
    cancel::Cancel,
    exec::{Command, ExecError, Executor, Exited, Line, Masker},
    step::{Context, Secrets},
};

/// One stack, and what runs it.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) executor: &'a dyn Executor,
    pub(super) stack: &'a TerraformStack,
    pub(super) secrets: &'a Secrets,
    pub(super) cancel: &'a Cancel,
}

/// What a state is, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) mark: Option<StateMark>,
    /// It holds no resource.
    pub(super) empty: bool,
}

/// As much of a JSON answer as anybody has.
const ANSWER: usize = 256 * 1024 * 1024;

impl Program<'_> {
    pub(super) async fn init(&self) -> Result<(), TerraformError> {
        let command = self.command(&["init", "-input=false", "-no-color"])?;
        self.quiet("terraform init", &command).await.map(drop)
    }

    /// Plans into `file`.
    pub(super) async fn plan(&self, file: &Path) -> Result<(), TerraformError> {
        let command = self.planning()?.arg(format!("-out={}", file.display()));
        match self.quiet("terraform plan", &command).await {
            Err(TerraformError::Command { source: ExecError::Code { code: 2, .. }, .. }) => {}
            other => drop(other?),
        }
        keep_to_owner(file)
    }

    /// Whether a plan of now would change anything.
    pub(super) async fn has_changes(&self) -> Result<bool, TerraformError> {
        match self.quiet("terraform plan", &self.planning()?).await {
            Ok(_) => Ok(false),
            Err(TerraformError::Command { source: ExecError::Code { code: 2, .. }, .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// What is in the plan file, as JSON.
    pub(super) async fn show(&self, file: &Path) -> Result<Vec<u8>, TerraformError> {
        let command = self.command(&["show", "-json"])?.arg(file.display().to_string());
        Ok(self.quiet("terraform show", &command).await?.stdout)
    }

    pub(super) async fn state(&self) -> Result<State, TerraformError> {
        #[derive(Deserialize)]
        struct Pulled {
            lineage: String,
            serial: u64,
            #[serde(default)]
            resources: Vec<Value>,
        }
        let command = self.command(&["state", "pull"])?;
        let answer = self.quiet("terraform state pull", &command).await?.stdout;
        if answer.iter().all(u8::is_ascii_whitespace) {
            return Ok(State { mark: None, empty: true });
        }
        let Pulled { lineage, serial, resources } = serde_json::from_slice(&answer).map_err(|error| {
            TerraformError::Shape { command: "terraform state pull", source: error.into() }
        })?;
        Ok(State { mark: Some(StateMark { lineage, serial }), empty: resources.is_empty() })
    }

    /// Applies `file`, showing what is printed.
    pub(super) async fn apply(&self, file: &Path, context: &Context) -> Result<(), TerraformError> {
        let lock = self.lock();
        let command = self.command(&["apply", "-input=false", "-no-color", &lock])?;
        self.shown("terraform apply", &command.arg(file.display().to_string()), context).await
    }

    pub(super) async fn destroy(&self, context: &Context) -> Result<(), TerraformError> {
        let lock = self.lock();
        let command = self.command(&["destroy", "-auto-approve", "-input=false", "-no-color", &lock])?;
        self.shown("terraform destroy", &self.with_vars(command), context).await
    }

    pub(super) async fn outputs(&self) -> Result<TerraformOutputs, TerraformError> {
        #[derive(Deserialize)]
        struct Output {
            #[serde(default)]
            sensitive: bool,
            value: Value,
        }
        let command = self.command(&["output", "-json", "-no-color"])?;
        let answer = self.quiet("terraform output", &command).await?.stdout;
        let all: std::collections::BTreeMap<String, Output> = serde_json::from_slice(&answer)
            .map_err(|error| TerraformError::Shape { command: "terraform output", source: error.into() })?;
        let mut outputs = TerraformOutputs::default();
        for (name, output) in all {
            if output.sensitive {
                outputs.sensitive.insert(name);
            } else {
                outputs.values.insert(name, output.value);
            }
        }
        Ok(outputs)
    }

    fn lock(&self) -> String {
        format!("-lock-timeout={}s", self.stack.lock_timeout)
    }

    fn planning(&self) -> Result<Command, TerraformError> {
        let lock = self.lock();
        let command = self.command(&["plan", "-input=false", "-no-color", "-detailed-exitcode", &lock])?;
        Ok(self.with_vars(command))
    }

    fn with_vars(&self, command: Command) -> Command {
        let vars = self.stack.vars.iter().map(|(name, value)| format!("-var={name}={value}"));
        command.args(vars)
    }

    fn command(&self, args: &[&str]) -> Result<Command, TerraformError> {
        let mut command = Command::new(&self.stack.program, &self.stack.dir).args(args.iter().copied());
        command.env.clone_from(&self.stack.env);
        for (name, value) in [("CHECKPOINT_DISABLE", "1"), ("TF_IN_AUTOMATION", "1"), ("TF_INPUT", "0")] {
            command.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        for (name, secret) in &self.stack.secret_env {
            let value = self.secrets.get(secret).ok_or_else(|| TerraformError::NoSecret(secret.clone()))?;
            command.secret_env.insert(name.clone(), value.clone());
        }
        command.mask = Masker::new(self.secrets.values());
        command.keep = ANSWER;
        Ok(command)
    }

    /// Runs a command whose output is an answer, not for people: it may hold values that are sensitive to the module.
    async fn quiet(&self, name: &'static str, command: &Command) -> Result<Exited, TerraformError> {
        let run = self.executor.run(command, &mut |_: Line| {}, self.cancel).await;
        run.map_err(|source| self.failed(name, source))
    }

    async fn shown(
        &self,
        name: &'static str,
        command: &Command,
        context: &Context,
    ) -> Result<(), TerraformError> {
        let mut pass = |line: Line| context.line(&line);
        let run = self.executor.run(command, &mut pass, self.cancel).await;
        run.map(drop).map_err(|source| self.failed(name, source))
    }

    fn failed(&self, command: &'static str, source: ExecError) -> TerraformError {
        TerraformError::Command { command, dir: self.stack.dir.clone(), source }
    }
}

pub(super) fn digest(file: &Path) -> Result<Digest, TerraformError> {
    let bytes = fs::read(file).map_err(|source| TerraformError::File { file: file.to_owned(), source })?;
    Ok(Digest::of(bytes))
}

/// That `file` is still the one with this digest.
pub(super) fn check_file(file: &Path, expected: Digest) -> Result<(), TerraformError> {
    let found = digest(file)?;
    if found == expected {
        return Ok(());
    }
    Err(TerraformError::OtherFile { file: file.to_owned(), expected, found })
}

#[cfg(unix)]
fn keep_to_owner(file: &Path) -> Result<(), TerraformError> {
    use std::os::unix::fs::PermissionsExt;
    let kept = fs::set_permissions(file, fs::Permissions::from_mode(0o600));
    kept.map_err(|source| TerraformError::File { file: file.to_owned(), source })
}

#[cfg(not(unix))]
fn keep_to_owner(_: &Path) -> Result<(), TerraformError> {
    Ok(())
}
