//! Whether what runs in an environment is well: the topology's probes and smoke command, asked over real HTTP, answered as one verdict.

use std::net::SocketAddr;

use flowline_core::{
    artifact::{Artifact, Release},
    error::chain,
    event::Event,
    id::RunId,
    name::EnvironmentName,
    store::{Batch, StoreExt},
    verdict::{Outcome, Verdict},
};
use flowline_envs::probe::{Client, HttpProbe};
use flowline_pipeline::{
    exec::{Command, ExecError, Executor, Line, local::LocalExecutor},
    step::Context,
};

use super::{Delivery, DeliveryError, EnvironmentRecord, kind, record, steps::Verify, with_port};
use crate::topology::Topology;

/// A verification as it will be made: which requests, and which command with all its placeholders filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) probes: Vec<HttpProbe>,
    pub(super) smoke: Vec<String>,
}

/// The topology's verification against `environment`, whose router listens at `router`. Pure.
pub(super) fn planned(
    topology: &Topology,
    environment: &EnvironmentName,
    router: SocketAddr,
    deployer: &str,
) -> Result<Planned, DeliveryError> {
    let url = |component| -> Result<String, DeliveryError> {
        let address = topology.address_in(environment, component)?;
        Ok(with_port(&address, Some(router.port())))
    };
    let mut probes = Vec::new();
    for probe in &topology.verify.probes {
        let base = url(&probe.component)?;
        let asked = format!("{}{}", base.trim_end_matches('/'), probe.path);
        let planned = HttpProbe::get(&asked)
            .map_err(|error| DeliveryError::part(format!("preparing the probe of {asked}"), error))?
            .connecting_to(router)
            .expecting_status(probe.status)
            .within(topology.verify.timeout);
        probes.push(match &probe.contains {
            Some(text) => planned.expecting_body(text),
            None => planned,
        });
    }
    let mut smoke = Vec::new();
    for word in &topology.verify.smoke {
        let mut word = word.replace("{deployer}", deployer);
        for component in topology.components.keys() {
            let place = format!("{{{component}}}");
            if word.contains(&place) {
                word = word.replace(&place, &url(component)?);
            }
        }
        smoke.push(word);
    }
    Ok(Planned { probes, smoke })
}

impl Delivery {
    /// Asks everything that the topology's verification asks, of what runs in `environment` now. Records nothing.
    pub(super) async fn judge(&self, environment: &EnvironmentName) -> Result<Verdict, DeliveryError> {
        let Some(status) = self.serve_status().await? else {
            return Ok(Verdict::of(
                Outcome::Error,
                "router",
                "nobody serves; run `Delivery::serve` on this host",
            ));
        };
        let planned = planned(
            self.topology(),
            environment,
            status.address,
            &self.deployer_path().display().to_string(),
        )?;
        let client = Client::new();
        let mut verdicts = Vec::new();
        for probe in &planned.probes {
            verdicts.push(probe.run(&client).await);
        }
        if !planned.smoke.is_empty() {
            verdicts.push(self.smoke(&planned.smoke).await);
        }
        if verdicts.is_empty() {
            // A topology that asks nothing is content with the readiness that staging waited for.
            return Ok(Verdict::of(
                Outcome::Pass,
                environment.to_string(),
                "it is ready; the topology asks for nothing more",
            ));
        }
        Ok(Verdict::worst_of(verdicts))
    }
}

impl Delivery {
    /// Runs the smoke command: hermetic, with nothing in its environment but a search path, killed as a whole when its time is over.
    async fn smoke(&self, words: &[String]) -> Verdict {
        let Some((program, arguments)) = words.split_first() else {
            return Verdict::of(Outcome::Pass, "smoke", "there is none");
        };
        let subject = "smoke";
        let command = Command::new(program, self.state_directory())
            .args(arguments)
            .env("PATH", flowline_envs::provision::local::DEFAULT_PATH);
        let limit = std::time::Duration::try_from(self.topology().verify.timeout).unwrap_or_default();
        let cancel = self.cancel.child();
        let mut last = String::new();
        let mut keep = |line: Line| last = line.text();
        let executor = LocalExecutor::new(std::sync::Arc::clone(self.clock()));
        let running = executor.run(&command, &mut keep, &cancel);
        let done = tokio::time::timeout(limit, running).await;
        match done {
            Ok(Ok(_)) => Verdict::of(Outcome::Pass, subject, "exit code 0"),
            Ok(Err(error @ (ExecError::Code { .. } | ExecError::Signal { .. }))) => {
                let seen = if last.is_empty() { chain(&error) } else { last };
                Verdict::of(Outcome::Fail, subject, seen)
            }
            Ok(Err(error)) => Verdict::of(Outcome::Error, subject, chain(&error)),
            Err(_) => Verdict::of(Outcome::Fail, subject, format!("it did not end within {limit:?}")),
        }
    }

    /// Records the verdict that a deployment's run came to, for the run, for the environment and for the change.
    pub(super) async fn record_verdict(
        &self,
        spec: &Verify,
        artifacts: impl Iterator<Item = Artifact>,
        verdict: &Verdict,
        context: &Context,
    ) -> Result<(), DeliveryError> {
        let doing = || DeliveryError::store("recording the verdict");
        let value = serde_json::to_value(verdict).unwrap_or_default();
        let mut batch = Batch::new()
            .put(record::run_verdict_key(context.run())?, value.clone())
            .fenced(context.fence().clone());
        if let Ok(release) = Release::new(artifacts) {
            batch = batch.put(record::verdict_key(&spec.at, &release)?, value);
        }
        let id = format!("{}/{}/{}", context.run(), context.step(), context.attempt());
        let batch = self.with_verdict_facts(batch, &id, &spec.environment, spec.change.as_ref(), verdict)?;
        self.store().commit(batch).await.map_err(doing())?;
        Ok(())
    }

    /// Records a verdict on what runs in an environment now.
    pub(super) async fn record_judgement(
        &self,
        judged: &EnvironmentRecord,
        verdict: &Verdict,
    ) -> Result<(), DeliveryError> {
        let now = self.clock().now();
        let mut batch = Batch::new();
        if let Some(deployment) = judged.deployment() {
            let value = serde_json::to_value(verdict).unwrap_or_default();
            batch = batch.put(record::verdict_key(&judged.name, &deployment.release)?, value);
        }
        let id = format!("verify/{}/{}/{}", judged.name, judged.generation, now.as_microsecond());
        let batch = self.with_verdict_facts(batch, &id, &judged.name, judged.change.as_ref(), verdict)?;
        self.store().commit(batch).await.map_err(DeliveryError::store("recording the verdict"))?;
        Ok(())
    }

    /// The newest verdict on what runs in an environment; `None` if nobody judged exactly that.
    pub(super) async fn verdict(&self, of: &EnvironmentRecord) -> Result<Option<Verdict>, DeliveryError> {
        let Some(deployment) = of.deployment() else { return Ok(None) };
        let found = self.store().get(&record::verdict_key(&of.name, &deployment.release)?).await;
        Ok(found.map_err(DeliveryError::store("reading a verdict"))?.map(|(_, verdict)| verdict))
    }

    pub(super) async fn verdict_of_run(&self, run: &RunId) -> Result<Option<Verdict>, DeliveryError> {
        let found = self.store().get(&record::run_verdict_key(run)?).await;
        Ok(found.map_err(DeliveryError::store("reading a verdict"))?.map(|(_, verdict)| verdict))
    }

    fn with_verdict_facts(
        &self,
        batch: Batch,
        id: &str,
        environment: &EnvironmentName,
        change: Option<&flowline_core::id::ChangeId>,
        verdict: &Verdict,
    ) -> Result<Batch, DeliveryError> {
        let now = self.clock().now();
        let data = serde_json::json!({ "environment": environment, "outcome": verdict.outcome, "verdict": verdict.to_string() });
        let event = |id: String, subject: String| -> Result<Event, DeliveryError> {
            Ok(Event::new(Self::event_id(id)?, kind::VERIFIED, now, self.actor(), subject)
                .with_data(data.clone()))
        };
        let own = event(id.to_owned(), format!("environment/{environment}"))?;
        let mut batch = batch.append(record::environment_stream(environment)?, own.clone());
        if let Some(change) = change {
            let of_change = event(format!("{id}/change"), format!("change/{change}"))?;
            batch = batch.append(record::change_stream(change)?, of_change.caused_by(own.id));
        }
        Ok(batch)
    }
}
