//! Starting a release's process and waiting until it answers, whatever an earlier attempt left.

use std::time::Duration;

use flowline_core::digest::Digester;

use super::{
    Host,
    checkpoint::Checkpoint,
    files::create_dirs,
    log,
    observe::{Look, answers, look_at_start},
    patience::{Patience, Pauses},
    process::{Launch, Victims},
    procfs, readiness,
    record::{Place, Record, Start},
};
use crate::provision::{
    PortChoice, PortHolder, ProcessSpec, ProvisionError, RunningProcess, Workload, WorkloadKind,
};

impl Host {
    /// Starts the release's process unless it runs, and waits until it answers; with another port if somebody took the first.
    pub(super) fn run_until_ready(
        &self,
        place: &Place,
        record: &mut Record,
        number: u64,
        spec: &ProcessSpec,
        adopted: Option<RunningProcess>,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        const TRIES: usize = 5;
        let Some(instance) = record.releases.get(&number).map(|release| release.instance) else {
            return Ok(());
        };
        let resource = || place.resource.clone();
        let mut adopted = adopted;
        let mut tries = 0;
        loop {
            tries += 1;
            let log_from = if adopted.is_some() { 0 } else { log::length(&place.log(number)) };
            let process = if let Some(process) = adopted.take() {
                record.started(number, &process);
                place.write(record)?;
                process
            } else {
                // An earlier one may have died and left what it started.
                self.stop(place, record, number, patience)?;
                self.start(place, record, number, spec)?
            };
            let log = || log::tail(&place.log(number), log_from);
            let (why, error) = match wait_ready(&process, spec, patience)? {
                Outcome::Ready => {
                    self.at(Checkpoint::ProcessReady);
                    return Ok(());
                }
                Outcome::Taken(holder) => {
                    let taken = port_taken(place, process.port, Some(holder));
                    ("somebody else took its port".to_owned(), taken)
                }
                Outcome::Ended(why) => {
                    let log = log();
                    (why.clone(), ProvisionError::Ended { resource: resource(), instance, why, log })
                }
                Outcome::Unready(last) => {
                    let (within, port, log) = (spec.ready_timeout(), process.port, log());
                    let error =
                        ProvisionError::Unready { resource: resource(), instance, within, port, last, log };
                    if place.active() == Some(number) {
                        // What is active and slow for a while must not be made an outage by waiting for it.
                        return Err(error);
                    }
                    ("it did not become ready in time".to_owned(), error)
                }
            };
            // Even if the process itself has ended, what it started may still be there.
            self.stop(place, record, number, patience)?;
            record.ended(number, why);
            place.write(record)?;
            let again = matches!(error, ProvisionError::PortTaken { .. }) && spec.port() == PortChoice::Any;
            if !again || tries == TRIES {
                return Err(error);
            }
        }
    }

    fn start(
        &self,
        place: &Place,
        record: &mut Record,
        number: u64,
        spec: &ProcessSpec,
    ) -> Result<RunningProcess, ProvisionError> {
        create_dirs(&place.logs())?;
        create_dirs(&place.data())?;
        log::bound(&place.log(number), self.options.log_limit).ok();
        let earlier = record.releases.get(&number).and_then(|release| release.start.as_ref());
        let port = Self::port(place, spec, earlier.map(|start| start.port))?;
        record.starts += 1;
        let token = self.token(place, record.starts);
        let Some(release) = record.releases.get_mut(&number) else { return Err(ProvisionError::Cancelled) };
        release.stopped = false;
        release.start = Some(Start { token: token.clone(), port, process: None, ended: None });
        let workload = release.workload.clone();
        place.write(record)?;
        self.at(Checkpoint::StartIntended);
        let launch = Launch {
            resource: &place.resource,
            workload: &workload,
            spec,
            release: &place.release(number),
            log: &place.log(number),
            data: &place.data(),
            path: &self.options.path,
            port,
            token: &token,
        };
        let process = match launch.start() {
            Ok(process) => process,
            Err(error) => {
                record.ended(number, "it could not be started".to_owned());
                place.write(record)?;
                return Err(error);
            }
        };
        self.at(Checkpoint::ProcessStarted);
        record.started(number, &process);
        place.write(record)?;
        self.at(Checkpoint::ProcessRecorded);
        Ok(process)
    }

    /// A mark that no other start has: the record counts starts, and time and process tell apart records that were lost and begun anew.
    fn token(&self, place: &Place, start: u64) -> String {
        let mut digester = Digester::new("flowline start 1");
        digester.part(self.options.clock.now().as_nanosecond().to_be_bytes());
        digester.part(std::process::id().to_be_bytes());
        format!("{}{start}-{}", place.mark, digester.finish().short())
    }

    /// The port to start on: that of the last start if it is free, so that routes to a restarted instance stay right.
    fn port(place: &Place, spec: &ProcessSpec, earlier: Option<u16>) -> Result<u16, ProvisionError> {
        match spec.port() {
            PortChoice::Fixed(port) if readiness::is_free(port.get()) => Ok(port.get()),
            PortChoice::Fixed(port) => Err(port_taken(place, port.get(), procfs::listener(port.get(), None))),
            PortChoice::Any => match earlier.filter(|port| readiness::is_free(*port)) {
                Some(port) => Ok(port),
                None => readiness::free_port().map_err(|source| ProvisionError::Backend {
                    doing: "find a free port for",
                    resource: place.resource.clone(),
                    source: source.into(),
                }),
            },
        }
    }

    /// Stops what a release runs, if anything.
    pub(super) fn stop(
        &self,
        place: &Place,
        record: &Record,
        number: u64,
        patience: &Patience,
    ) -> Result<(), ProvisionError> {
        let Some(release) = record.releases.get(&number) else { return Ok(()) };
        let Some(start) = &release.start else { return Ok(()) };
        let victims = Victims {
            resource: &place.resource,
            mark: &start.token,
            recorded: start.process.iter().cloned().collect(),
        };
        victims.stop(grace_of(&release.workload), patience)?;
        self.at(Checkpoint::ProcessStopped);
        Ok(())
    }
}

/// Waits until the process answers, ends, or its time is up.
fn wait_ready(
    process: &RunningProcess,
    spec: &ProcessSpec,
    patience: &Patience,
) -> Result<Outcome, ProvisionError> {
    let start = Start {
        token: process.token.clone(),
        port: process.port,
        process: Some(process.clone()),
        ended: None,
    };
    let mut pauses = Pauses::new();
    loop {
        if let Look::Ended { why, .. } = look_at_start(&start) {
            // It may have ended because somebody else took the port meanwhile.
            return Ok(foreign_listener(process).map_or(Outcome::Ended(why), Outcome::Taken));
        }
        let last = match answers(process, spec) {
            Ok(()) => return Ok(foreign_listener(process).map_or(Outcome::Ready, Outcome::Taken)),
            Err(last) => last,
        };
        if !pauses.within(spec.ready_timeout(), patience)? {
            return Ok(Outcome::Unready(last));
        }
    }
}

/// How waiting for a process ended.
enum Outcome {
    Ready,
    /// Somebody else answers at its port.
    Taken(PortHolder),
    /// How it ended.
    Ended(String),
    /// What the last probe said.
    Unready(String),
}

/// The process that listens on our process's port and is neither it nor one that it started.
fn foreign_listener(process: &RunningProcess) -> Option<PortHolder> {
    let holder = procfs::listener(process.port, Some(process.pid))?;
    let ours = procfs::process(holder.pid).is_some_and(|found| found.group == process.pid)
        || procfs::mark(holder.pid).is_some_and(|mark| mark == process.token);
    (!ours).then_some(holder)
}

pub(super) fn grace_of(workload: &Workload) -> Duration {
    match &workload.kind {
        WorkloadKind::Static => Duration::ZERO,
        WorkloadKind::Process(spec) => spec.stop_grace(),
    }
}

fn port_taken(place: &Place, port: u16, holder: Option<PortHolder>) -> ProvisionError {
    ProvisionError::PortTaken { resource: place.resource.clone(), port, holder }
}
