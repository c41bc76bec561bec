//! A run told to machines as it happens: one JSON object a line.

use std::{
    fmt::Debug,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::clock::Clock;
use serde_json::{Value, json};

use crate::run::{Progress, Reporter};

/// The version of the events' shape. Fields and kinds of events may be added within one; a reader passes over those that it doesn't know.
pub const EVENTS_VERSION: u32 = 1;

/// Writes one JSON object a line for each thing that happens. Errors of the writer are ignored.
///
/// Every object has `format_version`, `time` and `event`; those about a step have `step`. What a program printed is in `text`, with U+FFFD
/// for what is not UTF-8, and `stream` says where.
///
/// ```
/// # use std::sync::Arc;
/// # use flowline_core::clock::ManualClock;
/// # use flowline_pipeline::{report::EventReporter, run::{Progress, Reporter}};
/// let reporter = EventReporter::new(Vec::new(), Arc::new(ManualClock::default()));
/// reporter.report(&Progress::Started { step: &"web/build".parse()?, attempt: 1 });
/// let line = String::from_utf8(reporter.into_inner())?;
/// assert!(line.contains(r#""event":"step.started""#) && line.contains(r#""step":"web/build""#), "{line}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct EventReporter<W> {
    writer: Mutex<W>,
    clock: Arc<dyn Clock>,
}

impl<W: Write + Debug + Send> EventReporter<W> {
    /// Writes to `writer`, with times of `clock`.
    pub fn new(writer: W, clock: Arc<dyn Clock>) -> Self {
        Self { writer: Mutex::new(writer), clock }
    }

    /// The writer, with everything that was written.
    pub fn into_inner(self) -> W {
        self.writer.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + Debug + Send> Reporter for EventReporter<W> {
    fn report(&self, progress: &Progress<'_>) {
        let (event, mut object) = told(progress);
        object["format_version"] = EVENTS_VERSION.into();
        object["time"] = self.clock.now().to_string().into();
        object["event"] = event.into();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that can't be written must not stop a deployment.
        writeln!(writer, "{object}").and_then(|()| writer.flush()).ok();
    }
}

/// What an event is called and what it holds.
fn told(progress: &Progress<'_>) -> (&'static str, Value) {
    match progress {
        Progress::Begun { run, plan, steps, done } => {
            ("run.started", json!({ "run": run, "plan": plan, "steps": steps, "done": done }))
        }
        Progress::Started { step, attempt } => ("step.started", json!({ "step": step, "attempt": attempt })),
        Progress::Line { step, line } => (
            "step.line",
            json!({ "step": step, "stream": line.stream, "text": line.text(), "cut": line.cut }),
        ),
        Progress::Finished { step, took, why } => {
            let took_ms = milliseconds(*took);
            (
                "step.finished",
                json!({ "step": step, "took_ms": took_ms, "why": why, "reason": why.to_string() }),
            )
        }
        Progress::Skipped { step, reason } => ("step.skipped", json!({ "step": step, "reason": reason })),
        Progress::Failed { step, error, again } => {
            ("step.failed", json!({ "step": step, "error": error, "again_in_ms": again.map(milliseconds) }))
        }
        Progress::Waiting { step, reason } => ("step.waiting", json!({ "step": step, "reason": reason })),
        Progress::Undoing { reason } => ("run.undoing", json!({ "reason": reason })),
        Progress::Undone { step } => ("step.undone", json!({ "step": step })),
        Progress::UndoFailed { step, error } => ("step.undo_failed", json!({ "step": step, "error": error })),
        Progress::Ended { outcome } => ("run.ended", json!({ "outcome": outcome })),
    }
}

fn milliseconds(duration: flowline_core::SignedDuration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
