//! Telling people: a [`Notifier`] takes a [`Notice`] to whoever should hear it, the shepherd first.

use std::{
    fmt::Debug,
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    error::{BoxError, ErrorKind, Kinded},
    name::Person,
};

/// How soon somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Urgency {
    /// Good to know.
    Info,
    /// Look today.
    Warning,
    /// Look now.
    Critical,
}

/// One message to one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Who should hear it.
    pub to: Person,
    /// How soon.
    pub urgency: Urgency,
    /// What it is about: `change/pr-123`. A later notice with the same subject and title replaces an earlier one where the channel can.
    pub subject: String,
    /// One line.
    pub title: String,
    /// What happened and what to do; may have several lines.
    pub body: String,
    /// When it happened.
    pub time: Timestamp,
}

/// Takes notices to people.
///
/// *Assumptions on the implementer*: the same notice may come twice after a crash; deliver it once if you can. Being slow is fine, the
/// caller does not hold up a delivery for it.
///
/// *Errors by kind*: `Unavailable` if the channel can't be reached; the caller records the failure and goes on.
#[async_trait]
pub trait Notifier: Debug + Send + Sync {
    /// Delivers `notice`.
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError>;
}

/// A notice could not be delivered.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell {to} \"{title}\" through {channel}")]
pub struct NotifyError {
    /// Who should have heard.
    pub to: Person,
    /// The notice's title.
    pub title: String,
    /// The channel that failed.
    pub channel: String,
    /// Why.
    pub source: BoxError,
}

impl Kinded for NotifyError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

/// Writes notices as lines of text, to a terminal or any other writer.
pub struct WriterNotifier<W> {
    writer: Mutex<W>,
}

impl<W> Debug for WriterNotifier<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WriterNotifier")
    }
}

impl<W: Write + Send> WriterNotifier<W> {
    /// Writes to `writer`: [`std::io::stderr`] for a terminal.
    pub fn new(writer: W) -> Self {
        Self { writer: Mutex::new(writer) }
    }
}

#[async_trait]
impl<W: Write + Send> Notifier for WriterNotifier<W> {
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        let urgency = match notice.urgency {
            Urgency::Info => "info",
            Urgency::Warning => "warning",
            Urgency::Critical => "critical",
        };
        let mut text = format!("[{urgency}] to {}: {} ({})\n", notice.to, notice.title, notice.subject);
        for line in notice.body.lines() {
            text.push_str("    ");
            text.push_str(line);
            text.push('\n');
        }
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes()).map_err(
            |source| NotifyError {
                to: notice.to.clone(),
                title: notice.title.clone(),
                channel: "the terminal".to_owned(),
                source: source.into(),
            },
        )
    }
}

/// Keeps notices, for tests and for programs that show them themselves. Clones share what they keep.
#[derive(Debug, Clone, Default)]
pub struct CollectingNotifier(Arc<Mutex<Vec<Notice>>>);

impl CollectingNotifier {
    /// Everything so far, in order.
    pub fn notices(&self) -> Vec<Notice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Notifier for CollectingNotifier {
    async fn notify(&self, notice: &Notice) -> Result<(), NotifyError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(notice.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_notice_reads_well() {
        let notice = Notice {
            to: "ada".parse().unwrap(),
            urgency: Urgency::Critical,
            subject: "change/pr-7".to_owned(),
            title: "verification failed".to_owned(),
            body: "GET / gave 500\nusers are not affected".to_owned(),
            time: Timestamp::UNIX_EPOCH,
        };
        let notifier = WriterNotifier::new(Vec::new());
        notifier.notify(&notice).await.unwrap();
        let text = String::from_utf8(notifier.writer.into_inner().unwrap()).unwrap();
        insta::assert_snapshot!(text, @r"
        [critical] to ada: verification failed (change/pr-7)
            GET / gave 500
            users are not affected
        ");
    }
}
