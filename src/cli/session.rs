//! One call of the command line: what it delivers, who is told, and how its answer is shown.

use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use flowline_core::{Timestamp, error::BoxError};
use flowline_pipeline::{
    ci::{Annotation, CiKind, Variable},
    run::Cancel,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Answer, CliError, Exit, FORMAT_VERSION, Surroundings,
    args::{Call, Globals},
    failure::Failure,
    paint::Paint,
    progress::Telling,
};
use crate::delivery::{Delivery, DeliveryError, Setup};

/// What a command line delivers: a setup that is opened when it is needed, or a delivery that is open.
#[derive(Debug)]
pub struct Delivers(Source);

#[derive(Debug)]
enum Source {
    Setup(Box<Setup>),
    Open(Delivery),
    Failed(DeliveryError),
    Taken,
}

impl From<Setup> for Delivers {
    fn from(setup: Setup) -> Self {
        Self(Source::Setup(Box::new(setup)))
    }
}

impl From<Delivery> for Delivers {
    fn from(delivery: Delivery) -> Self {
        Self(Source::Open(delivery))
    }
}

impl From<Result<Delivery, DeliveryError>> for Delivers {
    fn from(opened: Result<Delivery, DeliveryError>) -> Self {
        Self(match opened {
            Ok(delivery) => Source::Open(delivery),
            Err(error) => Source::Failed(error),
        })
    }
}

/// One call of the command line, as a command's code sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    source: Mutex<Source>,
    globals: Globals,
    command: String,
    program: String,
    surroundings: Surroundings,
    telling: Telling,
    cancel: Cancel,
}

impl Session {
    pub(super) fn new(call: &Call, delivers: Delivers, surroundings: Surroundings, cancel: Cancel) -> Self {
        let telling = Telling::new(&call.globals, &surroundings);
        let inner = Inner {
            source: Mutex::new(delivers.0),
            globals: call.globals.clone(),
            command: call.name.clone(),
            program: call.program.clone(),
            surroundings,
            telling,
            cancel,
        };
        Self(Arc::new(inner))
    }

    /// The delivery, opened at the first call. Its runs are shown by this command line.
    ///
    /// # Errors
    /// [`Delivery::open`]'s.
    pub fn delivery(&self) -> Result<Delivery, BoxError> {
        let mut source = self.0.source.lock().unwrap_or_else(PoisonError::into_inner);
        let opened = match std::mem::replace(&mut *source, Source::Taken) {
            Source::Setup(setup) => Delivery::open(self.overridden(*setup))?,
            Source::Open(delivery) => delivery,
            Source::Failed(error) => return Err(error.into()),
            Source::Taken => return Err("the delivery could not be opened before".into()),
        };
        if let Some(ci) = self.0.telling.ci() {
            opened.secrets().values().for_each(|secret| ci.mask(secret));
        }
        let reporter = self.0.telling.reporter(opened.clock())?;
        let opened = match reporter {
            Some(reporter) if !matches!(*source, Source::Open(_)) => opened.with_reporter(reporter),
            _ => opened,
        };
        let opened = opened.with_cancel(self.0.cancel.clone());
        *source = Source::Open(opened.clone());
        Ok(opened)
    }

    /// The topology and grants of a setup that is not opened yet, as the call overrides them.
    fn overridden(&self, mut setup: Setup) -> Setup {
        let globals = &self.0.globals;
        if let Some(file) = &globals.topology {
            setup.topology.clone_from(file);
        }
        if let Some(file) = &globals.grants {
            setup.grants.clone_from(file);
        }
        if let Some(directory) = &globals.state {
            setup.state.clone_from(directory);
        }
        let person = globals.actor.clone().or_else(|| self.0.surroundings.person());
        if let Some(person) =
            person.filter(|_| globals.actor.is_some() || setup.actor == crate::delivery::SOMEBODY)
        {
            setup.actor = person;
        }
        setup
    }

    /// Where the topology and the grants would be read from, if that is known.
    pub(super) fn files(&self) -> Option<(PathBuf, PathBuf)> {
        match &*self.0.source.lock().unwrap_or_else(PoisonError::into_inner) {
            Source::Setup(setup) => {
                let setup = self.overridden((**setup).clone());
                Some((setup.topology, setup.grants))
            }
            _ => None,
        }
    }

    /// Whether the answer is shown as JSON.
    pub fn json(&self) -> bool {
        self.0.globals.json
    }

    /// Tells the person a line while the command is at work; on standard error, and not with `--quiet`.
    pub fn say(&self, text: impl AsRef<str>) {
        self.0.telling.say(text.as_ref());
    }

    /// Tells machines that something happened, as the events of runs are told: with `--json` on standard error, with `--events` in a file.
    pub(super) fn tell(&self, time: Timestamp, event: &str, fields: Value) -> Result<(), BoxError> {
        self.0.telling.event(time, event, fields)
    }

    /// The wish to stop: the first Ctrl-C.
    pub fn cancel(&self) -> &Cancel {
        &self.0.cancel
    }

    /// Where the command line runs.
    pub fn surroundings(&self) -> &Surroundings {
        &self.0.surroundings
    }

    /// What the program is called.
    pub fn program(&self) -> &str {
        &self.0.program
    }

    pub(super) fn telling(&self) -> &Telling {
        &self.0.telling
    }

    pub(super) fn paint(&self) -> Paint {
        let around = &self.0.surroundings;
        Paint(around.out_terminal && around.colour() && !self.json())
    }

    /// Shows what the command came to.
    pub(super) fn finish(
        &self,
        done: Result<Answer, BoxError>,
        out: &mut (dyn Write + Send),
        err: &mut (dyn Write + Send),
    ) -> Exit {
        let around = &self.0.surroundings;
        // A reader that left is no reason to fail.
        match done {
            Ok(answer) => {
                if around.ci() != CiKind::None {
                    self.tell_ci(&answer, err);
                }
                let _gone = if self.json() {
                    let object = json!({
                        "format_version": FORMAT_VERSION,
                        "command": self.0.command,
                        "exit": answer.exit.code(),
                        "result": answer.result,
                    });
                    writeln!(out, "{object}")
                } else {
                    out.write_all(answer.text.as_bytes())
                }
                .and_then(|()| out.flush());
                answer.exit
            }
            Err(error) => {
                let failure = Failure::of(&error);
                let interrupted =
                    error.downcast_ref::<CliError>().is_some_and(|e| matches!(e, CliError::Interrupted));
                if around.ci() != CiKind::None && !interrupted {
                    self.annotate(&failure, err);
                }
                let _gone = if self.json() {
                    writeln!(out, "{}", failure.json(&self.0.command))
                } else {
                    err.write_all(failure.text(Paint(around.err_terminal && around.colour())).as_bytes())
                };
                failure.exit()
            }
        }
    }

    fn tell_ci(&self, answer: &Answer, err: &mut (dyn Write + Send)) {
        let Some(reporter) = self.0.telling.ci() else { return };
        let mut problems = Vec::new();
        for (name, value) in &answer.outputs {
            if let Ok(name) = Variable::new(name.as_str()) {
                problems.extend(reporter.output(&name, value).err());
            }
        }
        if let Some(summary) = &answer.summary {
            problems.extend(reporter.summary(summary).err());
        }
        problems.extend(reporter.finish().err());
        for problem in problems {
            let _gone = writeln!(err, "warning: {problem}");
        }
        self.0.telling.drain(err);
    }

    fn annotate(&self, failure: &Failure, err: &mut (dyn Write + Send)) {
        let Some(reporter) = self.0.telling.ci() else { return };
        for diagnostic in &failure.diagnostics {
            reporter.annotate(&Annotation::from(diagnostic));
        }
        let _gone = reporter.finish();
        self.0.telling.drain(err);
    }
}

/// The wish to stop, from outside: once to end orderly, twice to leave.
#[derive(Debug)]
pub(super) struct Wish {
    cancel: Cancel,
    count: watch::Receiver<u32>,
    _kept: Option<watch::Sender<u32>>,
}

impl Wish {
    /// Nobody ever wishes so.
    pub(super) fn never() -> Self {
        let (sender, count) = watch::channel(0);
        Self { cancel: Cancel::new(), count, _kept: Some(sender) }
    }

    /// Hears Ctrl-C and SIGTERM from now on.
    pub(super) fn listen() -> Self {
        let (sender, count) = watch::channel(0);
        let cancel = Cancel::new();
        let wish = cancel.clone();
        tokio::spawn(async move {
            for number in 1.. {
                if !stopped().await {
                    break;
                }
                wish.cancel();
                sender.send_replace(number);
            }
            // Where signals can't be heard nobody wishes anything; the channel must stay open all the same.
            sender.closed().await;
        });
        Self { cancel, count, _kept: None }
    }

    pub(super) fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// Returns once somebody wished so at least `times`.
    pub(super) async fn heard(&self, times: u32) {
        let mut count = self.count.clone();
        if count.wait_for(|count| *count >= times).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(unix)]
async fn stopped() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return false;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    true
}

#[cfg(not(unix))]
async fn stopped() -> bool {
    tokio::signal::ctrl_c().await.is_ok()
}
