//! Bringing a commit, a change or an earlier release to an environment: decided purely, written as one pipeline, run durably.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use flowline_core::{
    Timestamp,
    artifact::Artifact,
    change::{Change, CommitId},
    digest::Digest,
    event::Event,
    id::{ChangeId, Key, ResourceId, RunId},
    name::{ComponentName, EnvironmentName, Person},
    notify::Urgency,
    store::{Batch, Revision, StoreExt},
};
use flowline_envs::{
    promotion::{Decision, Facts, PromotionGraph, evaluate},
    provision::{ProcessSpec, Readiness, WorkloadKind},
};
use flowline_pipeline::{
    Draft, Pipeline, Plan, Runner, Sealed,
    pipeline::Constant,
    plan::{Planner, StepId},
    run::{Ended, EveryReporter, Reporter},
    step::Registry,
    steps::ApprovalGateStep,
};
use serde::{Deserialize, Serialize};

use super::{
    Delivery, DeliveryError, Deployment, EnvironmentRecord, Provenance, candidate_of, kind, provenance,
    record,
    steps::{
        Acting, Becomes, Build, Building, Show, Showing, Stage, Staging, Switch, Switching, Verify, Verifying,
    },
};
use crate::topology::{Component, ComponentKind};

/// What a deployment did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Where.
    pub environment: EnvironmentName,
    /// The deployment that runs there now.
    pub deployment: Deployment,
    /// The components that were built for it. Empty if everything was deployed by digest.
    pub built: BTreeSet<ComponentName>,
    /// Whether anything changed; false if the environment had all of it already.
    pub changed: bool,
}

/// A deployment as it would be, before anything happens.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedDeployment {
    plan: Plan,
}

impl PlannedDeployment {
    /// The plan, as data.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What it asks for and may not touch, with the reason; empty if it may be applied.
    pub fn denials(&self) -> Vec<String> {
        self.plan.denied().iter().map(|denial| format!("{}: {}", denial.step, denial.reason)).collect()
    }

    /// Whether anything would change.
    pub fn has_changes(&self) -> bool {
        self.plan.has_changes()
    }
}

impl std::fmt::Display for PlannedDeployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.plan.fmt(f)
    }
}

/// What is to be deployed, decided; the pipeline follows from it alone.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) environment: EnvironmentName,
    pub(super) base: Option<EnvironmentName>,
    pub(super) change: Option<ChangeId>,
    pub(super) commit: CommitId,
    pub(super) generation: u64,
    pub(super) rollback: bool,
    pub(super) expires: Option<Timestamp>,
    pub(super) becomes: BTreeMap<ComponentName, Becomes>,
    /// Whether it is shown beside the running release and verified there before the switch.
    pub(super) verified: bool,
}

impl Order {
    fn changes(&self) -> bool {
        self.becomes.values().any(|becomes| matches!(becomes, Becomes::Known(_) | Becomes::Built(_)))
    }

    /// The same order has the same run, so that a process that was killed goes on where it was; unless it was stopped for good `before`.
    fn run(&self, before: u64) -> Result<RunId, DeliveryError> {
        let verb = if self.rollback { "rollback" } else { "deploy" };
        // The environment's name may take the whole length of a label by itself; its digest does not. What a component becomes is not part
        // of it: a build that is done half way turns `Built` into `Known`, and is the same order still.
        let digest = Digest::of(format!("{} {}", self.environment, self.commit));
        Ok(RunId::new(format!("{verb}-{}-{}-{before}", self.generation, &digest.short()[..8]))?)
    }
}

impl Delivery {
    /// What deploying `revision` to `environment` would change, what it would leave, and what it may not touch. Changes nothing.
    ///
    /// # Errors
    /// If `revision` or `environment` is not there, or something can't be looked at. A denial is no error: it is part of the plan.
    pub async fn plan(
        &self,
        environment: &EnvironmentName,
        revision: &str,
    ) -> Result<PlannedDeployment, DeliveryError> {
        let commit = self.source().resolve(revision).await?;
        let order = self.order(environment, &commit, None).await?;
        let record = self.environment(environment).await?;
        let mut plan = self.planned(&order, None).await?;
        // What runs already needs no steps at all, not even those that look at it; but what is asked for and denied is always said.
        let settled = !order.changes() && record.is_some_and(|record| record.deployment().is_some());
        if settled && plan.denied().is_empty() {
            plan = self.planned_as(&order, self.empty(&order)?, None).await?;
        }
        Ok(PlannedDeployment { plan })
    }

    /// As [`deploy`](Self::deploy), with the commit of `sealed`, a plan for `environment` that somebody looked at; and only if that is still
    /// exactly what would be done.
    ///
    /// # Errors
    /// [`DeliveryError::OtherPlan`] if anything that it depends on moved since: what runs, or the grants. Nothing happened then.
    pub async fn deploy_sealed(
        &self,
        environment: &EnvironmentName,
        sealed: &Sealed<Plan>,
    ) -> Result<Deployed, DeliveryError> {
        self.known(environment)?;
        let commit = sealed.plan().inputs().get("commit").and_then(|commit| commit.as_str());
        let commit = self.source().resolve(commit.unwrap_or_default()).await?;
        let order = self.order(environment, &commit, None).await?;
        self.carry_out_as(order, Some(sealed)).await
    }

    /// Brings `revision` to `environment`: what nobody built before is built, the release is staged and verified beside the one that runs,
    /// and only then are users led to it, without a failed request. What the environment has already is left alone.
    ///
    /// Safe to repeat: a deployment that was cut goes on, one that was done answers what it did.
    ///
    /// # Errors
    /// [`DeliveryError::NotVerified`] if the release was stopped; users were not touched, and the shepherd was told.
    pub async fn deploy(
        &self,
        environment: &EnvironmentName,
        revision: &str,
    ) -> Result<Deployed, DeliveryError> {
        self.known(environment)?;
        let commit = self.source().resolve(revision).await?;
        let order = self.order(environment, &commit, None).await?;
        self.carry_out(order).await
    }

    /// Moves a merged `change` on to `environment`, if the promotion graph allows it: the artifacts that were verified, by digest, if the
    /// merge result's tree is the tree that was verified; otherwise what differs is built and verified anew.
    ///
    /// # Errors
    /// [`DeliveryError::NotReady`] with every reason; [`DeliveryError::NotVerified`] as [`deploy`](Self::deploy).
    pub async fn promote(
        &self,
        change: &ChangeId,
        environment: &EnvironmentName,
    ) -> Result<Deployed, DeliveryError> {
        self.known(environment)?;
        let change = self.change(change).await?;
        self.ready(&change, environment).await?;
        let Some(commit) = &change.source.merged else {
            return Err(not_ready(&change, environment, "its pull request is not merged", true));
        };
        let order = self.order(environment, commit, Some(&change)).await?;
        self.carry_out(order).await
    }

    /// Brings back the release that `environment` had before, by digest, from any host, without CI. Nothing is built or verified: it was.
    ///
    /// Each call goes one release further back. A program that may be killed and call again uses [`rollback_from`](Self::rollback_from).
    ///
    /// # Errors
    /// [`DeliveryError::NothingToRollBack`] if there is none.
    pub async fn rollback(&self, environment: &EnvironmentName) -> Result<Deployed, DeliveryError> {
        let nothing = || DeliveryError::NothingToRollBack { environment: environment.to_string() };
        let record = self.environment(environment).await?.ok_or_else(nothing)?;
        self.back_from(record).await
    }

    /// Takes back the deployment with number `generation`, if it is the one that runs; otherwise it is done, and what runs is answered. So it
    /// may be repeated.
    ///
    /// # Errors
    /// As [`rollback`](Self::rollback).
    pub async fn rollback_from(
        &self,
        environment: &EnvironmentName,
        generation: u64,
    ) -> Result<Deployed, DeliveryError> {
        let nothing = || DeliveryError::NothingToRollBack { environment: environment.to_string() };
        let record = self.environment(environment).await?.ok_or_else(nothing)?;
        match record.deployment().cloned() {
            Some(deployment) if deployment.generation != generation => {
                self.settled(environment, deployment).await
            }
            _ => self.back_from(record).await,
        }
    }

    async fn back_from(&self, record: EnvironmentRecord) -> Result<Deployed, DeliveryError> {
        let environment = &record.name;
        let nothing = || DeliveryError::NothingToRollBack { environment: environment.to_string() };
        let back = record.previous().ok_or_else(nothing)?.clone();
        let mut becomes = BTreeMap::new();
        for artifact in back.release.artifacts() {
            let same = record
                .running
                .get(&artifact.component)
                .is_some_and(|now| now.artifact.content == artifact.content);
            let artifact = artifact.clone();
            let component = artifact.component.clone();
            becomes.insert(
                component,
                if same { Becomes::Unchanged(artifact) } else { Becomes::Known(artifact) },
            );
        }
        let order = Order {
            environment: environment.clone(),
            base: record.base.clone(),
            change: back.change.clone(),
            commit: back.commit.clone(),
            generation: record.generation + 1,
            rollback: true,
            expires: record.expires,
            becomes,
            verified: false,
        };
        self.carry_out(order).await
    }

    fn known(&self, environment: &EnvironmentName) -> Result<(), DeliveryError> {
        if self.topology().environments.contains_key(environment) {
            return Ok(());
        }
        let names: Vec<_> = self.topology().environments.keys().map(|name| format!("`{name}`")).collect();
        Err(DeliveryError::Unknown {
            what: "environment that stays",
            name: environment.to_string(),
            help: format!("the topology has {}", names.join(", ")),
        })
    }

    /// Decides what bringing `commit` to an environment that stays means for each component.
    async fn order(
        &self,
        environment: &EnvironmentName,
        commit: &CommitId,
        change: Option<&Change>,
    ) -> Result<Order, DeliveryError> {
        let record = self.environment(environment).await?;
        let sources = self.sources(commit).await?;
        let becomes = self.becomes(&sources, record.as_ref()).await?;
        Ok(Order {
            environment: environment.clone(),
            base: None,
            change: change.map(|change| change.id.clone()),
            commit: commit.clone(),
            generation: record.map_or(0, |record| record.generation) + 1,
            rollback: false,
            expires: None,
            becomes,
            verified: true,
        })
    }

    /// The source tree of each component in `commit`.
    pub(super) async fn sources(
        &self,
        commit: &CommitId,
    ) -> Result<BTreeMap<ComponentName, Digest>, DeliveryError> {
        let mut sources = BTreeMap::new();
        for (name, component) in &self.topology().components {
            let tree =
                self.source().tree(commit, &component.path).await?.ok_or_else(|| DeliveryError::Unknown {
                    what: "directory",
                    name: component.path.clone(),
                    help: format!("component `{name}` should be there in commit {}", commit.short()),
                })?;
            sources.insert(name.clone(), tree);
        }
        Ok(sources)
    }

    pub(super) async fn becomes(
        &self,
        sources: &BTreeMap<ComponentName, Digest>,
        record: Option<&EnvironmentRecord>,
    ) -> Result<BTreeMap<ComponentName, Becomes>, DeliveryError> {
        let mut built = BTreeMap::new();
        for (component, source) in sources {
            let key = record::artifact_key(component, source)?;
            let found = self.store().get::<Artifact>(&key).await;
            let found =
                found.map_err(DeliveryError::store(format!("looking for a build of `{component}`")))?;
            if let Some((_, artifact)) = found
                && self.provisioner().artifacts().contains(artifact.content)
            {
                built.insert(component.clone(), artifact);
            }
        }
        let running = record.iter().flat_map(|record| &record.running);
        let running =
            running.map(|(component, instance)| (component.clone(), instance.artifact.clone())).collect();
        let decided = provenance(sources, &running, &built).into_iter().map(|(component, from)| {
            let becomes = match from {
                Provenance::Unchanged(artifact) => Becomes::Unchanged(artifact),
                Provenance::Reused(artifact) => Becomes::Known(artifact),
                Provenance::Build => Becomes::Built(sources[&component]),
            };
            (component, becomes)
        });
        Ok(decided.collect())
    }

    /// Carries an order out, or goes on with it.
    pub(super) async fn carry_out(&self, order: Order) -> Result<Deployed, DeliveryError> {
        self.carry_out_as(order, None).await
    }

    async fn carry_out_as(
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
}

impl Delivery {
    /// Whether the promotion graph lets `change` go to `environment` now.
    async fn ready(&self, change: &Change, environment: &EnvironmentName) -> Result<(), DeliveryError> {
        let graph = self
            .topology()
            .promotion()
            .map_err(|error| DeliveryError::part("reading the promotion graph", error))?;
        let facts = self.facts(change, &graph, environment).await?;
        match evaluate(&graph, environment, &facts, self.clock().now()) {
            Decision::Ready(_) => Ok(()),
            decision => {
                let waiting = matches!(decision, Decision::Waiting { .. });
                let reasons: Vec<_> = decision.reasons().iter().map(ToString::to_string).collect();
                Err(not_ready(change, environment, &reasons.join("; "), waiting))
            }
        }
    }

    /// What is recorded about `change` in the environments that come before `target`: for its own preview and for those that stay, the
    /// verdict on what runs there, if that is what the change brings.
    async fn facts(
        &self,
        change: &Change,
        graph: &PromotionGraph,
        target: &EnvironmentName,
    ) -> Result<Facts, DeliveryError> {
        let mut facts = Facts { merged: change.source.merged.is_some(), ..Facts::default() };
        for upstream in graph.before(target).into_iter().flatten() {
            let own = upstream.as_str() == crate::topology::PREVIEW;
            let environment = if own { EnvironmentName::new(change.id.as_str())? } else { upstream.clone() };
            let Some(record) = self.environment(&environment).await? else { continue };
            let brings = own
                || record
                    .deployment()
                    .is_some_and(|deployment| deployment.change.as_ref() == Some(&change.id));
            if let (true, Some(verdict)) = (brings, self.verdict(&record).await?) {
                facts.verdicts.insert(upstream.clone(), verdict);
            }
        }
        Ok(facts)
    }

    /// The plan for an order, checked against the world and the grants.
    async fn planned(&self, order: &Order, author: Option<&Person>) -> Result<Plan, DeliveryError> {
        let asked =
            self.topology().environments.get(&order.environment).is_some_and(|own| own.approval.is_some());
        // Without a name for whoever asks, their own approval would count.
        let own = if asked && author.is_none() { Some(Person::new(self.actor())?) } else { None };
        // Whoever asks is part of the plan only where it matters, so that everybody makes the same plan elsewhere.
        let author = author.or(own.as_ref()).filter(|_| asked);
        self.planned_as(order, self.draft(order)?, author).await
    }

    async fn planned_as(
        &self,
        order: &Order,
        draft: Draft,
        author: Option<&Person>,
    ) -> Result<Plan, DeliveryError> {
        let planner =
            Planner::new(Arc::new(self.registry()?), self.authority().clone(), Arc::clone(self.clock()));
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
            Ended::Undone { cause, .. } => return Err(self.stopped(run, order, &cause.to_string()).await?),
            Ended::Waiting { steps, .. } | Ended::NeedsPerson { steps } => {
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
    async fn settled(
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
    async fn stopped(&self, run: &RunId, order: &Order, cause: &str) -> Result<DeliveryError, DeliveryError> {
        let verdict = self.verdict_of_run(run).await?.filter(|verdict| !verdict.passed());
        let change = match &order.change {
            Some(change) => Some(self.change(change).await?),
            None => None,
        };
        let shepherd = change.as_ref().map_or(&self.topology().shepherd, |change| &change.shepherd);
        let reason = verdict
            .as_ref()
            .map_or_else(|| cause.to_owned(), |verdict| format!("verification came out as {verdict}"));
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
            None => DeliveryError::Stopped { what, environment: environment.to_string(), reason },
        })
    }

    /// The pipeline of an order, as data. Pure: the same order, the same draft.
    fn draft(&self, order: &Order) -> Result<Draft, DeliveryError> {
        let topology = self.topology();
        let mut pipeline = Pipeline::new(format!("deploy {}", order.environment), topology.app.clone());
        pipeline.input("commit", order.commit.as_str()).input("deployment", order.generation);
        let mut staged = Vec::new();
        for (name, becomes) in &order.becomes {
            let Some(component) = topology.components.get(name) else {
                return Err(DeliveryError::Unknown {
                    what: "component",
                    name: name.to_string(),
                    help: "an earlier release had it, the topology does not; bring it back there first"
                        .to_owned(),
                });
            };
            let stage = Stage {
                environment: order.environment.clone(),
                component: name.clone(),
                resource: workload_resource(component, &order.environment, name)?,
                kind: self.workload(component, &order.environment)?,
            };
            match becomes {
                Becomes::Unchanged(_) | Becomes::FallsThrough => {}
                Becomes::Known(artifact) => {
                    staged.push(pipeline.feed(&format!("{name}/stage"), stage, Constant(artifact.clone())));
                }
                Becomes::Built(source) => {
                    let build = Build {
                        component: name.clone(),
                        commit: order.commit.clone(),
                        path: component.path.clone(),
                        source: *source,
                    };
                    let artifact = pipeline.step(&format!("{name}/build"), build);
                    staged.push(pipeline.feed(&format!("{name}/stage"), stage, artifact));
                }
            }
        }
        let mut routes = BTreeMap::new();
        for name in order.becomes.keys() {
            let address = self.address(&order.environment, name)?;
            routes.insert(name.clone(), address.resource()?);
        }
        let switch = Switch {
            environment: order.environment.clone(),
            base: order.base.clone(),
            change: order.change.clone(),
            commit: order.commit.clone(),
            generation: order.generation,
            rollback: order.rollback,
            expires: order.expires,
            routes,
            becomes: order.becomes.clone(),
        };
        let before = if order.verified {
            let at = candidate_of(&order.environment)?;
            let mut shown = Vec::new();
            for name in order.becomes.keys() {
                shown.push(self.address(&at, name)?.resource()?);
            }
            let show = pipeline.feed(
                "show",
                Show { environment: order.environment.clone(), routes: shown },
                staged.clone(),
            );
            let verify = Verify { environment: order.environment.clone(), at, change: order.change.clone() };
            let verified = pipeline.feed("verify", verify, staged.clone());
            pipeline.after(&verified, &show);
            Some(verified)
        } else {
            None
        };
        let switched = pipeline.feed("switch", switch, staged);
        if let Some(verified) = before {
            pipeline.after(&switched, &verified);
            // People are asked about what was found well; going back needs nobody.
            if let Some(gate) =
                topology.environments.get(&order.environment).and_then(|own| own.approval.clone())
            {
                let approved = pipeline.step("approval", gate);
                pipeline.after(&approved, &verified).after(&switched, &approved);
            }
        }
        pipeline.draft().map_err(|error| {
            DeliveryError::part(format!("writing the plan for `{}`", order.environment), error)
        })
    }

    /// The pipeline of an order that has nothing to do.
    fn empty(&self, order: &Order) -> Result<Draft, DeliveryError> {
        let mut pipeline =
            Pipeline::new(format!("deploy {}", order.environment), self.topology().app.clone());
        pipeline.input("commit", order.commit.as_str());
        pipeline.draft().map_err(|error| {
            DeliveryError::part(format!("writing the plan for `{}`", order.environment), error)
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
        // The lease on the environment keeps two processes from walking one run; a dead one's run is taken over at once.
        .holder("the holder of the environment");
        let keeper: Arc<dyn Reporter> = Arc::new(self.logs().keep(run, Arc::clone(self.clock())));
        Ok(runner.reporter(Arc::new(EveryReporter::new([keeper].into_iter().chain(self.reporter())))))
    }

    /// What runs a component, with everything filled in that this host knows.
    pub(super) fn workload(
        &self,
        component: &Component,
        environment: &EnvironmentName,
    ) -> Result<WorkloadKind, DeliveryError> {
        if component.kind == ComponentKind::Static {
            return Ok(WorkloadKind::Static);
        }
        // Braces of a path are doubled, so that they are not taken for a placeholder.
        let literal =
            |path: &std::path::Path| path.display().to_string().replace('{', "{{").replace('}', "}}");
        let fill = |text: &str| {
            text.replace("{deployer}", &literal(self.deployer_path()))
                .replace("{state}", &literal(self.state_directory()))
                .replace("{environment}", environment.as_str())
        };
        let doing = || format!("reading the command of `{}`", component.path);
        let part = |error| DeliveryError::part(doing(), error);
        let mut spec = ProcessSpec::new(component.command.iter().map(|word| fill(word))).map_err(part)?;
        for (name, value) in &component.env {
            spec = spec.with_env(name, &fill(value)).map_err(part)?;
        }
        if let Some(path) = &component.ready {
            spec = spec.with_readiness(Readiness::http(path).map_err(part)?);
        }
        Ok(WorkloadKind::Process(
            spec.with_ready_timeout(component.ready_timeout).with_stop_grace(component.stop_grace),
        ))
    }
}

/// The resource that a component stands under on this host.
pub(super) fn workload_resource(
    component: &Component,
    environment: &EnvironmentName,
    name: &ComponentName,
) -> Result<ResourceId, DeliveryError> {
    let kind = match component.kind {
        ComponentKind::Static => "dir",
        ComponentKind::Process => "process",
    };
    Ok(ResourceId::of(kind, format_args!("{environment}/{name}"))?)
}

/// What a run waits for, for people.
fn waits(steps: &BTreeMap<StepId, String>) -> String {
    let reasons: Vec<_> = steps.iter().map(|(step, reason)| format!("`{step}` {reason}")).collect();
    reasons.join("; ")
}

fn not_ready(change: &Change, environment: &EnvironmentName, reasons: &str, waiting: bool) -> DeliveryError {
    DeliveryError::NotReady {
        what: change.id.to_string(),
        environment: environment.to_string(),
        reasons: reasons.to_owned(),
        waiting,
    }
}
