//! Why a step failed, in a form that the journal keeps and the engine can decide by.

use flowline_core::{
    Timestamp,
    error::{BoxError, ErrorKind, Kinded, Retry, chain},
};

use crate::exec::Masker;

/// A step failed.
///
/// The kind says what that means; whether another attempt can help says [`Kinded::retry`], by default as the kind does.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    message: String,
    kind: ErrorKind,
    retry: Option<Retry>,
    waiting: Option<Wake>,
    #[source]
    source: Option<BoxError>,
}

/// Until when a waiting step surely waits, if that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wake(pub(crate) Option<Timestamp>);

impl StepError {
    /// An error of `kind`, with a lower-case message that says what was being done and what to do next.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { message: message.into(), kind, retry: None, waiting: None, source: None }
    }

    /// No failure: the step waits for something from outside, for this `reason`, and need not be asked again before `wake`. The run goes on
    /// with everything else and then ends as [`Waiting`](crate::run::Ended::Waiting); the process may exit. Resuming the run asks again.
    pub fn waiting(reason: impl Into<String>, wake: Option<Timestamp>) -> Self {
        Self { waiting: Some(Wake(wake)), ..Self::new(ErrorKind::Busy, reason) }
    }

    /// The same without secrets. What led to it becomes text if it holds one.
    pub(crate) fn masked(self, masker: &Masker) -> Self {
        let text = chain(&self);
        if !masker.finds_in(text.as_bytes()) && !masker.finds_in(format!("{self:?}").as_bytes()) {
            return self;
        }
        Self { message: masker.mask_text(&text), source: None, ..self }
    }

    /// Whether the step only waits, and until when it surely does.
    pub(crate) fn is_waiting(&self) -> Option<Wake> {
        self.waiting
    }

    /// The work itself failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// The error of a backend, with its kind and whether trying again helps.
    pub fn of(error: impl Kinded + Send + Sync + 'static) -> Self {
        let (kind, retry) = (error.kind(), error.retry());
        Self {
            message: error.to_string(),
            kind,
            retry: Some(retry),
            waiting: None,
            source: Some(error.into()),
        }
    }

    /// The same with the error that led to it.
    #[must_use]
    pub fn because(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same, saying itself whether another attempt can help.
    #[must_use]
    pub fn retried(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }
}

impl Kinded for StepError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }

    fn retry(&self) -> Retry {
        self.retry.unwrap_or(match self.kind {
            ErrorKind::Conflict => Retry::Refreshed,
            ErrorKind::Busy | ErrorKind::TimedOut | ErrorKind::Unavailable => Retry::Later,
            _ => Retry::Never,
        })
    }
}
