//! The verbs that bring a commit, a change or an earlier release to an environment.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::{
    change::Change,
    id::ChangeId,
    name::{ComponentName, EnvironmentName},
};
use flowline_envs::promotion::{Decision, Facts, PromotionGraph, evaluate};
use flowline_pipeline::{Plan, Sealed};
use serde::{Deserialize, Serialize};

use super::{Delivery, DeliveryError, Deployment, EnvironmentRecord, order::Order, steps::Becomes};

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
}

fn not_ready(change: &Change, environment: &EnvironmentName, reasons: &str, waiting: bool) -> DeliveryError {
    DeliveryError::NotReady {
        what: change.id.to_string(),
        environment: environment.to_string(),
        reasons: reasons.to_owned(),
        waiting,
    }
}
