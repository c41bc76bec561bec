//! Who watches a run: a [`Reporter`] hears everything as it happens.

use std::{
    fmt::Debug,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{SignedDuration, digest::Digest, id::RunId};

use super::Why;
use crate::{exec::Line, plan::StepId};

/// Something happened in a run. Steps that ran before a resume are told as [`Progress::Skipped`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A run begins, or goes on.
    Begun {
        /// The run.
        run: &'a RunId,
        /// The plan.
        plan: Digest,
        /// How many steps the plan has.
        steps: usize,
        /// How many of them were done before.
        done: usize,
    },
    /// A step starts.
    Started {
        /// The step.
        step: &'a StepId,
        /// Which attempt this is, from 1.
        attempt: u32,
    },
    /// A step shows a line.
    Line {
        /// The step.
        step: &'a StepId,
        /// The line, secrets masked.
        line: &'a Line,
    },
    /// A step is done, and that is recorded.
    Finished {
        /// The step.
        step: &'a StepId,
        /// How long its last attempt took.
        took: SignedDuration,
        /// Why it ran.
        why: &'a Why,
    },
    /// A step did not run, for this reason.
    Skipped {
        /// The step.
        step: &'a StepId,
        /// Why not.
        reason: &'a str,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: &'a StepId,
        /// Why.
        error: &'a str,
        /// After how long it is tried again, if it is.
        again: Option<SignedDuration>,
    },
    /// A step waits for a gate.
    Waiting {
        /// The step.
        step: &'a StepId,
        /// What for.
        reason: &'a str,
    },
    /// Finished steps are now undone, in reverse order.
    Undoing {
        /// Why.
        reason: &'a str,
    },
    /// A step was undone.
    Undone {
        /// The step.
        step: &'a StepId,
    },
    /// A step could not be undone; the others go on.
    UndoFailed {
        /// The step.
        step: &'a StepId,
        /// Why.
        error: &'a str,
    },
    /// The run ended, or stopped for now.
    Ended {
        /// How: `succeeded`, `undone`, `waiting`, …
        outcome: &'a str,
    },
}

/// Hears what happens in a run.
///
/// *Shape*: called from the run's task, in order, and from steps for their lines. *Assumption*: `report` returns soon and does not fail; a
/// reporter that writes to a slow place has its own queue. Nothing that reaches it holds a secret that the run knows.
pub trait Reporter: Debug + Send + Sync {
    /// Takes one event.
    fn report(&self, progress: &Progress<'_>);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct SilentReporter;

impl Reporter for SilentReporter {
    fn report(&self, _: &Progress<'_>) {}
}

/// Writes one plain line for each event: for logs and for terminals without tricks. Errors of the writer are ignored.
///
/// ```
/// # use flowline_pipeline::run::{PlainReporter, Progress, Reporter};
/// let reporter = PlainReporter::new(Vec::new());
/// reporter.report(&Progress::Undoing { reason: "step `web` failed" });
/// assert_eq!(reporter.into_inner(), b"undoing: step `web` failed\n");
/// ```
#[derive(Debug)]
pub struct PlainReporter<W>(Mutex<W>);

impl<W: Write + Debug + Send> PlainReporter<W> {
    /// Writes to `writer`.
    pub fn new(writer: W) -> Self {
        Self(Mutex::new(writer))
    }

    /// The writer, with everything that was written.
    pub fn into_inner(self) -> W {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + Debug + Send> Reporter for PlainReporter<W> {
    fn report(&self, progress: &Progress<'_>) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that can't be written must not stop a deployment.
        write_plain(&mut *writer, progress).ok();
    }
}

fn write_plain(writer: &mut impl Write, progress: &Progress<'_>) -> std::io::Result<()> {
    match progress {
        Progress::Begun { run, plan, steps, done: 0 } => {
            writeln!(writer, "run {run}: {steps} steps of plan {}", plan.short())
        }
        Progress::Begun { run, plan, steps, done } => {
            writeln!(
                writer,
                "run {run}: goes on with plan {}, {done} of {steps} steps are done",
                plan.short()
            )
        }
        Progress::Started { step, attempt: 1 } => writeln!(writer, "{step}: started"),
        Progress::Started { step, attempt } => writeln!(writer, "{step}: started, attempt {attempt}"),
        Progress::Line { step, line } => {
            write!(writer, "{step} | ")?;
            writer.write_all(&line.bytes)?;
            writer.write_all(if line.cut { b" \\\n" } else { b"\n" })
        }
        Progress::Finished { step, took, why } => {
            writeln!(writer, "{step}: finished in {}; {why}", short(*took))
        }
        Progress::Skipped { step, reason } => writeln!(writer, "{step}: skipped, {reason}"),
        Progress::Failed { step, error, again: None } => writeln!(writer, "{step}: failed: {error}"),
        Progress::Failed { step, error, again: Some(delay) } => {
            writeln!(writer, "{step}: failed: {error}; tried again in {}", short(*delay))
        }
        Progress::Waiting { step, reason } => writeln!(writer, "{step}: waiting, {reason}"),
        Progress::Undoing { reason } => writeln!(writer, "undoing: {reason}"),
        Progress::Undone { step } => writeln!(writer, "{step}: undone"),
        Progress::UndoFailed { step, error } => writeln!(writer, "{step}: could not be undone: {error}"),
        Progress::Ended { outcome } => writeln!(writer, "run {outcome}"),
    }
}

/// A duration for people: `850 ms`, `12.3 s`, `4 min 5 s`.
pub(crate) fn short(duration: SignedDuration) -> String {
    let ms = duration.as_millis();
    match ms {
        ..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

/// Tells several reporters, one after the other.
#[derive(Debug, Clone, Default)]
pub struct EveryReporter(Vec<Arc<dyn Reporter>>);

impl EveryReporter {
    /// Tells each of `reporters`, in this order.
    pub fn new(reporters: impl IntoIterator<Item = Arc<dyn Reporter>>) -> Self {
        Self(reporters.into_iter().collect())
    }
}

impl Reporter for EveryReporter {
    fn report(&self, progress: &Progress<'_>) {
        for reporter in &self.0 {
            reporter.report(progress);
        }
    }
}

/// Keeps everything as plain lines, without durations: for tests and summaries. Clones share the lines.
#[derive(Debug, Clone, Default)]
pub struct CollectingReporter(Arc<Mutex<Vec<String>>>);

impl CollectingReporter {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything heard so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Reporter for CollectingReporter {
    fn report(&self, progress: &Progress<'_>) {
        let mut bytes = Vec::new();
        match progress {
            Progress::Finished { step, why, .. } => bytes.extend(format!("{step}: finished; {why}").bytes()),
            other => drop(write_plain(&mut bytes, other)),
        }
        let text = String::from_utf8_lossy(&bytes);
        let line = text.trim_end_matches('\n').to_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}
