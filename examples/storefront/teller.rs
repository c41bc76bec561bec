//! How the story is shown: live on a terminal, plain lines elsewhere; and the small texts that the forge would send.

use std::{
    error::Error,
    fmt::Display,
    fs,
    io::{IsTerminal, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use flowline::{
    pipeline::run::{Progress, Reporter},
    topology::Topology,
};
use serde_json::Value;

type Failure = Box<dyn Error + Send + Sync>;

/// Announces a line of the story with the call that makes it and where it stands in this file.
macro_rules! told {
    ($teller:expr, $number:literal, $what:literal, $calls:literal) => {
        $teller.line($number, $what, $calls, file!(), line!())
    };
}
pub(crate) use told;

/// Shows the story.
#[derive(Clone)]
pub(crate) struct Teller {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    /// Whether a line may be written over: a terminal that understands it.
    live: bool,
    json: bool,
}

impl Teller {
    /// To standard output, or to standard error if that is kept for JSON.
    pub(crate) fn new(json: bool) -> Self {
        let (out, live): (Box<dyn Write + Send>, bool) = if json {
            (Box::new(std::io::stderr()), std::io::stderr().is_terminal())
        } else {
            (Box::new(std::io::stdout()), std::io::stdout().is_terminal())
        };
        Self { out: Arc::new(Mutex::new(out)), live, json }
    }

    /// A line of the story begins.
    pub(crate) fn line(&self, number: &str, what: &str, calls: &str, file: &str, line: u32) {
        self.write(&format!("\n{number:>3}  {what}\n     {calls}  ({file}:{line})\n"));
    }

    /// What was found; a story that is not true ends here.
    pub(crate) fn found(&self, what: &str, holds: bool) -> Result<(), Failure> {
        self.write(&format!("     {} {what}\n", if holds { "✓" } else { "✗" }));
        if holds { Ok(()) } else { Err(format!("this should hold and does not: {what}").into()) }
    }

    /// A text, indented.
    pub(crate) fn show(&self, text: &dyn Display) {
        let text = text.to_string();
        for line in text.lines() {
            self.write(&format!("     | {line}\n"));
        }
    }

    /// Shows the progress of runs.
    pub(crate) fn reporter(&self) -> TellingReporter {
        TellingReporter(self.clone())
    }

    /// Keeps production up until Ctrl-C.
    pub(crate) async fn serve(&self, urls: &[String], interrupt: &Interrupt) {
        self.write("\n     It stays up for a browser; Ctrl-C ends it:\n");
        for url in urls {
            self.write(&format!("     {url}\n"));
        }
        interrupt.wished().await;
    }

    /// The end: with `--json` its one line on standard output.
    pub(crate) fn end(&self, line: &Value) {
        if self.json {
            let mut out = std::io::stdout().lock();
            // A reader that left does not make the story untrue.
            let _gone = writeln!(out, "{line}").and_then(|()| out.flush());
        } else {
            self.write("\n     Everything above was checked over real HTTP.\n");
        }
    }

    fn write(&self, text: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let clear = if self.live { "\r\x1b[2K" } else { "" };
        let _gone = write!(out, "{clear}{text}").and_then(|()| out.flush());
    }

    /// A line that the next one replaces; nothing where that can't be.
    fn passing(&self, text: &str) {
        if self.live {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let _gone = write!(out, "\r\x1b[2K     … {text}").and_then(|()| out.flush());
        }
    }
}

/// Shows a run's steps: the one that runs as a passing line, those that are done as lines that stay.
pub(crate) struct TellingReporter(Teller);

impl std::fmt::Debug for TellingReporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TellingReporter")
    }
}

impl Reporter for TellingReporter {
    fn report(&self, progress: &Progress<'_>) {
        match progress {
            Progress::Started { step, .. } => self.0.passing(&step.to_string()),
            Progress::Line { step, line } => self.0.passing(&format!("{step}: {}", line.text())),
            Progress::Finished { step, took, .. } => {
                self.0.write(&format!("     · {step} ({} ms)\n", took.as_millis()));
            }
            Progress::Skipped { step, reason } => self.0.write(&format!("     · {step}: {reason}\n")),
            Progress::Failed { step, error, .. } => self.0.write(&format!("     ✗ {step}: {error}\n")),
            Progress::Undone { step } => self.0.write(&format!("     ↩ {step} undone\n")),
            _ => {}
        }
    }
}

/// Whether somebody wants this program to stop, by Ctrl-C or SIGTERM. Listens from now on, so that no wish is lost in between.
#[derive(Clone)]
pub(crate) struct Interrupt(tokio::sync::watch::Receiver<bool>);

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (wish, wished) = tokio::sync::watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            wish.send_replace(true);
            // The wish stands for as long as somebody asks.
            wish.closed().await;
        });
        Ok(Self(wished))
    }

    /// Returns once somebody wished so, now or before.
    pub(crate) async fn wished(&self) {
        let mut wished = self.0.clone();
        // The sender is kept until nobody asks any more, so this can only end with the wish.
        let _ended = wished.wait_for(|wished| *wished).await;
    }
}

/// An error and everything that led to it.
pub(crate) fn failed(error: &(dyn Error + 'static)) {
    let _gone = writeln!(std::io::stderr(), "\nquickstart: {}", flowline::core::error::chain(error));
}

/// GitHub's payload for the opened pull request, with this repository's commits in it.
pub(crate) fn opened(storefront: &Path, head: &str, base: &str) -> Result<Vec<u8>, Failure> {
    let payload = fs::read_to_string(storefront.join("pull_request_opened.json"))?;
    Ok(payload.replace("HEAD_SHA", head).replace("BASE_SHA", base).into_bytes())
}

/// GitHub's payload for the same pull request once it is merged.
pub(crate) fn merged(opened: &[u8], commit: &str) -> Result<Vec<u8>, Failure> {
    let mut payload: Value = serde_json::from_slice(opened)?;
    payload["action"] = "closed".into();
    payload["pull_request"]["state"] = "closed".into();
    payload["pull_request"]["merged"] = true.into();
    payload["pull_request"]["merge_commit_sha"] = commit.into();
    Ok(payload.to_string().into_bytes())
}

/// The same topology, but the web component wants an address that nobody granted.
pub(crate) fn greedy(topology: &Topology) -> Result<Topology, Failure> {
    let mut greedy = topology.clone();
    if let Some(web) = greedy.components.get_mut("web") {
        web.address = "http://fun.localhost".parse()?;
    }
    Ok(greedy)
}
