//! Carrying an order out: planned, sealed, and walked durably; what happens when it is stopped on its way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::{
    digest::Digest,
    event::Event,
    id::{Key, RunId},
    name::{EnvironmentName, Person},
    notify::Urgency,
    store::{Batch, Revision, StoreExt},
};
use flowline_pipeline::{
    Draft, Plan, Runner, Sealed,
    plan::{Planner, StepId},
    run::{Cause, Ended, EveryReporter, Reporter},
    step::Registry,
    steps::ApprovalGateStep,
};

use super::{
    Delivery, DeliveryError, Deployed, Deployment, EnvironmentRecord, kind,
    order::Order,
    record,
    steps::{Acting, Becomes, Building, Showing, Staging, Switching, Verifying},
};

impl Delivery {
    /// Carries an order out, or goes on with it.
    pub(super) async fn carry_out(&self, order: Order) -> Result<Deployed, DeliveryError> {
        self.carry_out_as(order, None).await
    }

    pub(super) async fn carry_out_as(
        &self,
        order: Order,
        seal: Option<&Sealed<Plan>>,
    ) -> Result<Deployed, DeliveryError> {
        let environment = order.environment.clone();
        if !order.changes() {
            let record = self.environment(&environment).await?;
            if let Some(deployment) = record.as_ref().and_then(EnvironmentRecord::deployment) {
                return self.settled(&environment, deployment.clone()).await;
            }
        }
        let (_, _, before) = self.stopped_before(&order).await?;
        let run = order.run(before)?;
        let lease = self.alone(&environment, &run).await?;
        let result = self.walk(&run, &order, seal).await;
        let tidied = match &result {
            Ok(_) => self.tidy(&environment, &lease).await,
            Err(_) => Ok(()),
        };
        let freed = lease.free().await;
        let deployment = result?;
        tidied?;
        freed?;
        let built = order.becomes.iter().filter(|(_, becomes)| matches!(becomes, Becomes::Built(_)));
        let built = built.map(|(component, _)| component.clone()).collect();
        Ok(Deployed { environment, deployment, built, changed: true })
    }

    /// The plan for an order, checked against the world and the grants.
    pub(super) async fn planned(
        &self,
        order: &Order,
        author: Option<&Person>,
    ) -> Result<Plan, DeliveryError> {
        let asked =
            self.topology().environments.get(&order.environment).is_some_and(|own| own.approval.is_some());
        // Without a name for whoever asks, their own approval would count.
        let own = if asked && author.is_none() { Some(Person::new(self.actor())?) } else { None };
        // Whoever asks is part of the plan only where it matters, so that everybody makes the same plan elsewhere.
        let author = author.or(own.as_ref()).filter(|_| asked);
        self.planned_as(order, self.draft(order)?, author).await
    }

    pub(super) async fn planned_as(
        &self,
        order: &Order,
        draft: Draft,
        author: Option<&Person>,
    ) -> Result<Plan, DeliveryError> {
        let planner =
            Planner::new(Arc::new(self.registry()?), self.authority().clone(), Arc::clone(self.clock()))
                .with_secrets(Arc::clone(self.secrets()));
        let planner = match author {
            Some(author) => planner.by(author.clone()),
            None => planner,
        };
        let planned = planner.plan(&draft).await;
        planned.map_err(|error| DeliveryError::part(format!("planning `{}`", order.environment), error))
    }

    /// Walks the order's plan, or goes on walking it.
    async fn walk(
        &self,
        run: &RunId,
        order: &Order,
        seal: Option<&Sealed<Plan>>,
    ) -> Result<Deployment, DeliveryError> {
        let doing = || format!("deploying to `{}`", order.environment);
        let runner = self.runner(run)?;
        let other = |found: Digest| match seal.map(Sealed::digest) {
            Some(asked) if asked != found => {
                Err(DeliveryError::OtherPlan { environment: order.environment.to_string(), asked, found })
            }
            _ => Ok(()),
        };
        let known = runner.state(run).await.map_err(|error| DeliveryError::part(doing(), error))?;
        let report = if let Some(running) = known.plan() {
            other(running)?;
            runner.resume(run, &self.cancel).await
        } else {
            let sealed = self
                .planned(order, seal.and_then(|sealed| sealed.plan().author()))
                .await?
                .seal()
                .map_err(|error| DeliveryError::part(doing(), error))?;
            other(sealed.digest())?;
            runner.run(run, &sealed, &self.cancel).await
        };
        let report = report.map_err(|error| DeliveryError::part(doing(), error))?;
        match &report.ended {
            Ended::Succeeded => {}
            Ended::Undone { cause, .. } => return Err(self.stopped(run, order, cause).await?),
            Ended::NeedsPerson { steps } => {
                return Err(DeliveryError::NeedsPerson {
                    environment: order.environment.to_string(),
                    run: run.to_string(),
                    reasons: waits(steps),
                });
            }
            Ended::Waiting { steps, .. } => {
                return Err(DeliveryError::Waiting {
                    environment: order.environment.to_string(),
                    run: run.to_string(),
                    reasons: waits(steps),
                });
            }
            // What is left is said by the journal; the same call goes on with it.
            other => {
                return Err(DeliveryError::Unfinished {
                    environment: order.environment.to_string(),
                    run: run.to_string(),
                    ended: other.name(),
                });
            }
        }
        let record = self.environment(&order.environment).await?;
        let done =
            record.and_then(|record| record.history.into_iter().find(|deployment| deployment.run == *run));
        done.ok_or_else(|| DeliveryError::Unknown {
            what: "deployment",
            name: run.to_string(),
            help: format!("`{}` was deployed anew meanwhile", order.environment),
        })
    }

    /// What is asked for runs already. Whoever did that may have died before the host knew, or before it retired what ran before, so that is
    /// done here.
    pub(super) async fn settled(
        &self,
        environment: &EnvironmentName,
        deployment: Deployment,
    ) -> Result<Deployed, DeliveryError> {
        let lease = self.alone(environment, &deployment.run).await?;
        let tidied = async {
            if let Some(record) = self.environment(environment).await? {
                self.mark_active(&record, &lease.fence()).await?;
            }
            self.tidy(environment, &lease).await
        }
        .await;
        let freed = lease.free().await;
        tidied?;
        freed?;
        Ok(Deployed { environment: environment.clone(), deployment, built: BTreeSet::new(), changed: false })
    }

    /// How often this order was carried out and stopped: the document that counts it, its revision, and the number.
    async fn stopped_before(&self, order: &Order) -> Result<(Key, Revision, u64), DeliveryError> {
        let key = record::stopped_key(&order.environment, order.generation)?;
        let found = self
            .store()
            .get(&key)
            .await
            .map_err(DeliveryError::store("looking for deployments that were stopped"))?;
        let (revision, count) = found.unwrap_or((Revision::ABSENT, 0));
        Ok((key, revision, count))
    }

    /// Records that a deployment was stopped, tells the shepherd, and answers the error that says why.
    async fn stopped(
        &self,
        run: &RunId,
        order: &Order,
        cause: &Cause,
    ) -> Result<DeliveryError, DeliveryError> {
        // A verification that was cut short by a wish or a limit says nothing of the release.
        let verdict = match cause {
            Cause::Failed { .. } => self.verdict_of_run(run).await?.filter(|verdict| !verdict.passed()),
            _ => None,
        };
        let change = match &order.change {
            Some(change) => Some(self.change(change).await?),
            None => None,
        };
        let shepherd = change.as_ref().map_or(&self.topology().shepherd, |change| &change.shepherd);
        let reason = verdict
            .as_ref()
            .map_or_else(|| cause.to_string(), |verdict| format!("verification came out as {verdict}"));
        let environment = &order.environment;
        let now = self.clock().now();
        let data = serde_json::json!({ "environment": environment, "run": run, "commit": order.commit, "reason": reason });
        let id = Self::event_id(format!("{run}/stopped"))?;
        let event = Event::new(id, kind::STOPPED, now, self.actor(), format!("environment/{environment}"))
            .with_data(data.clone());
        let doing = || DeliveryError::store("recording that a deployment was stopped");
        let mut facts = Batch::new().append(record::environment_stream(environment)?, event.clone());
        if let Some(change) = &order.change {
            let id = Self::event_id(format!("{run}/stopped/change"))?;
            let of_change = Event::new(id, kind::STOPPED, now, self.actor(), format!("change/{change}"));
            facts =
                facts.append(record::change_stream(change)?, of_change.with_data(data).caused_by(event.id));
        }
        self.store().commit(facts).await.map_err(doing())?;
        let title = format!("deployment to {environment} was stopped");
        let body = format!("{reason}\nUsers were not touched. The journal says more: run/{run}");
        self.tell(self.notice(
            shepherd,
            Urgency::Critical,
            &format!("environment/{environment}"),
            title,
            body,
        ))
        .await?;
        // Only now, when somebody was told: the next deployment of the same order is another run, as this number is part of its id.
        let (key, revision, count) = self.stopped_before(order).await?;
        let batch = Batch::new().expect(key.clone(), revision).put(key, serde_json::json!(count + 1));
        self.store().commit(batch).await.map_err(doing())?;
        let what = match &change {
            Some(change) => change.id.to_string(),
            None => format!("commit {}", order.commit.short()),
        };
        Ok(match verdict {
            Some(verdict) => {
                DeliveryError::NotVerified { what, environment: environment.to_string(), verdict }
            }
            None => {
                DeliveryError::Stopped { what, environment: environment.to_string(), cause: cause.clone() }
            }
        })
    }

    fn registry(&self) -> Result<Registry, DeliveryError> {
        let acting = || Acting(self.clone());
        let mut registry = Registry::new();
        let mut add = || -> Result<(), flowline_pipeline::plan::IdError> {
            registry.add(Building(acting()))?;
            registry.add(Staging(acting()))?;
            registry.add(Showing(acting()))?;
            registry.add(Verifying(acting()))?;
            registry.add(Switching(acting()))?;
            registry.add(ApprovalGateStep)?;
            Ok(())
        };
        add().map_err(|error| DeliveryError::part("registering the steps", error))?;
        Ok(registry)
    }

    fn runner(&self, run: &RunId) -> Result<Runner, DeliveryError> {
        let registry = Arc::new(self.registry()?);
        let runner = Runner::new(
            Arc::clone(self.store()),
            registry,
            self.authority().clone(),
            Arc::clone(self.clock()),
        )
        .actor(self.actor())
        .secrets(Arc::clone(self.secrets()))
        // The lease on the environment keeps two processes from walking one run; a dead one's run is taken over at once.
        .holder("the holder of the environment");
        let runner = if self.anew { runner.without_cache() } else { runner };
        let runner = if self.any_build { runner.allow_other_build() } else { runner };
        let keeper: Arc<dyn Reporter> = Arc::new(self.logs().keep(run, Arc::clone(self.clock())));
        Ok(runner.reporter(Arc::new(EveryReporter::new([keeper].into_iter().chain(self.reporter())))))
    }
}

/// What a run waits for, for people.
fn waits(steps: &BTreeMap<StepId, String>) -> String {
    let reasons: Vec<_> = steps.iter().map(|(step, reason)| format!("`{step}` {reason}")).collect();
    reasons.join("; ")
}
