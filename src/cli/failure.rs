//! Errors for people and machines: what was being done, where it is wrong, what to do, and which exit code that is.

use std::{error::Error, fmt::Write as _, io::Write};

use flowline_core::{
    config::ConfigError,
    diagnostic::Diagnostic,
    error::{BoxError, ErrorKind, Kinded, Retry, chain},
};
use flowline_pipeline::{
    ci::{CiError, RenderError},
    plan::{Denial, IdError, OpenError},
    report::{LogError, ReadError},
    run::RunError,
};
use serde_json::{Value, json};

use super::{
    answer::{Exit, FORMAT_VERSION},
    paint::Paint,
};
use crate::delivery::DeliveryError;

/// What is wrong with a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// Something that was named is not there.
    #[error("there is no {what} `{name}`")]
    Unknown {
        /// What it would be.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is instead.
        help: String,
        /// The name that was most likely meant.
        near: Option<String>,
    },
    /// It can't be called like that.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to write instead.
        help: String,
    },
    /// The plan asks for something that is not granted.
    #[error("the plan is denied: {}", said(.denials))]
    Denied {
        /// What is denied, each with its step, its resource and the reason.
        denials: Vec<Denial>,
        /// The plan, as [`Plan::to_json`](flowline_pipeline::Plan::to_json) writes it.
        plan: Box<Value>,
    },
    /// A file can't be read or written.
    #[error("cannot {doing} {file}")]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody wished to stop.
    #[error("it was interrupted")]
    Interrupted,
}

fn said(denials: &[Denial]) -> String {
    let said: Vec<_> = denials.iter().map(|denial| format!("{}: {}", denial.step, denial.reason)).collect();
    said.join("; ")
}

impl Kinded for CliError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::NotFound,
            Self::Usage { .. } => ErrorKind::Invalid,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::File { .. } => ErrorKind::Unavailable,
            Self::Interrupted => ErrorKind::Cancelled,
        }
    }
}

/// An error, taken apart for showing.
#[derive(Debug)]
pub(super) struct Failure {
    kind: ErrorKind,
    retry: Retry,
    message: String,
    help: Option<String>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// What is denied, and the plan that asks for it.
    denied: Option<(Vec<Denial>, Value)>,
}

impl Failure {
    pub(super) fn of(error: &BoxError) -> Self {
        let error: &(dyn Error + 'static) = &**error;
        let (kind, retry) = meaning(error);
        let (mut message, mut help) = match error.downcast_ref::<CliError>() {
            Some(CliError::Unknown { help, .. } | CliError::Usage { help, .. }) => {
                (error.to_string(), Some(help.clone()))
            }
            Some(CliError::Denied { .. }) => {
                let help =
                    "ask the owner of these resources for a grant; `plan` shows everything that is asked for";
                (chain(error), Some(help.to_owned()))
            }
            Some(CliError::Interrupted) => {
                (error.to_string(), Some("the same call goes on with it".to_owned()))
            }
            // What was done is undone by then, and nothing is left to look at.
            _ if kind == ErrorKind::Cancelled => {
                (chain(error), Some("the same call does it anew".to_owned()))
            }
            _ => (chain(error), None),
        };
        let denied = match error.downcast_ref::<CliError>() {
            Some(CliError::Denied { denials, plan }) => Some((denials.clone(), (**plan).clone())),
            _ => None,
        };
        let mut diagnostics = Vec::new();
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(ConfigError::Invalid(problems)) = config(error) {
                diagnostics = problems.as_slice().to_vec();
                let number = diagnostics.len();
                let file = diagnostics
                    .iter()
                    .find_map(|found| Some(found.place.as_ref()?.file.display().to_string()));
                message = format!(
                    "{} {} wrong with {}",
                    number,
                    if number == 1 { "thing is" } else { "things are" },
                    file.as_deref().unwrap_or("the topology")
                );
                help = None;
                break;
            }
            at = error.source();
        }
        Self { kind, retry, message, help, diagnostics, denied }
    }

    /// The exit code that scripts see.
    pub(super) fn exit(&self) -> Exit {
        match self.kind {
            ErrorKind::Busy => Exit::Later,
            ErrorKind::Cancelled => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    pub(super) fn text(&self, paint: Paint) -> String {
        let mut text = format!("{} {}\n", paint.bad("error:"), self.message);
        for diagnostic in &self.diagnostics {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "\n{diagnostic}");
        }
        if let Some(help) = &self.help {
            let _ = writeln!(text, "  {} {help}", paint.good("help:"));
        }
        if self.kind == ErrorKind::Busy || self.retry == Retry::Later {
            let _ = writeln!(text, "  {} call again later; it goes on where it is", paint.soft("note:"));
        }
        text
    }

    pub(super) fn json(&self, command: &str) -> Value {
        let again = self.retry == Retry::Later || matches!(self.kind, ErrorKind::Busy | ErrorKind::Cancelled);
        let mut object = json!({
            "format_version": FORMAT_VERSION,
            "command": command,
            "exit": self.exit().code(),
            "error": {
                "kind": self.kind.to_string(),
                "message": self.message,
                "help": self.help,
                "again": again,
                "diagnostics": self.diagnostics,
            },
        });
        if let Some((denials, plan)) = &self.denied {
            object["error"]["denials"] = json!(denials);
            object["error"]["plan"] = plan.clone();
        }
        object
    }
}

fn config<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a ConfigError> {
    match error.downcast_ref::<DeliveryError>() {
        Some(DeliveryError::Config(config)) => Some(config),
        _ => error.downcast_ref::<ConfigError>(),
    }
}

/// What an error means, by the first of its chain that can be asked.
fn meaning(error: &(dyn Error + 'static)) -> (ErrorKind, Retry) {
    fn ask<E: Kinded + 'static>(error: &(dyn Error + 'static)) -> Option<(ErrorKind, Retry)> {
        error.downcast_ref::<E>().map(|error| (error.kind(), error.retry()))
    }
    let mut at = Some(error);
    while let Some(error) = at {
        let known = ask::<CliError>(error)
            .or_else(|| ask::<DeliveryError>(error))
            .or_else(|| ask::<ConfigError>(error))
            .or_else(|| ask::<ReadError>(error))
            .or_else(|| ask::<LogError>(error))
            .or_else(|| ask::<RunError>(error))
            .or_else(|| ask::<OpenError>(error))
            .or_else(|| ask::<IdError>(error))
            .or_else(|| ask::<RenderError>(error))
            .or_else(|| ask::<CiError>(error))
            .or_else(|| ask::<flowline_core::store::StoreError>(error));
        if let Some(known) = known {
            return known;
        }
        at = error.source();
    }
    (ErrorKind::Other, Retry::Never)
}

/// A call that could not be read, or asked for help.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) error: clap::Error,
    pub(super) json: bool,
    pub(super) colour: bool,
}

impl Refused {
    pub(super) fn show(&self, out: &mut dyn Write, err: &mut dyn Write) -> Exit {
        use clap::error::ErrorKind as Kind;
        let rendered = self.error.render();
        let text = if self.colour { rendered.ansi().to_string() } else { rendered.to_string() };
        let plain = matches!(self.error.kind(), Kind::DisplayHelp | Kind::DisplayVersion);
        // A reader that left is no reason to fail.
        if plain {
            let _gone = out.write_all(text.as_bytes());
            return Exit::Done;
        }
        let _gone = if self.json {
            let message = self.error.to_string();
            let message = match self.error.kind() {
                // What it renders is the help.
                Kind::DisplayHelpOnMissingArgumentOrSubcommand => "say which command",
                _ => message.lines().next().unwrap_or_default().trim_start_matches("error: "),
            };
            let help: Vec<&str> = rendered_tips(&text);
            let object = json!({
                "format_version": FORMAT_VERSION,
                "command": Value::Null,
                "exit": Exit::Failed.code(),
                "error": {
                    "kind": ErrorKind::Invalid.to_string(),
                    "message": message,
                    "help": help.first(),
                    "again": false,
                    "diagnostics": [],
                },
            });
            writeln!(out, "{object}")
        } else {
            err.write_all(text.as_bytes())
        };
        Exit::Failed
    }
}

fn rendered_tips(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("tip: ")).collect()
}
