//! What is to be deployed, decided purely, and the pipeline that follows from it.

use std::collections::BTreeMap;

use flowline_core::{
    Timestamp,
    artifact::Artifact,
    change::{Change, CommitId},
    digest::Digest,
    id::{ChangeId, ResourceId, RunId},
    name::{ComponentName, EnvironmentName},
    store::StoreExt,
};
use flowline_envs::provision::{ProcessSpec, Readiness, WorkloadKind};
use flowline_pipeline::{Draft, Pipeline, pipeline::Constant};

use super::{
    Delivery, DeliveryError, EnvironmentRecord, Provenance, candidate_of, provenance, record,
    steps::{Becomes, Build, Show, Stage, Switch, Verify},
};
use crate::topology::{Component, ComponentKind};

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
    pub(super) fn changes(&self) -> bool {
        self.becomes.values().any(|becomes| matches!(becomes, Becomes::Known(_) | Becomes::Built(_)))
    }

    /// The same order has the same run, so that a process that was killed goes on where it was; unless it was stopped for good `before`.
    pub(super) fn run(&self, before: u64) -> Result<RunId, DeliveryError> {
        let verb = if self.rollback { "rollback" } else { "deploy" };
        // The environment's name may take the whole length of a label by itself; its digest does not. What a component becomes is not part
        // of it: a build that is done half way turns `Built` into `Known`, and is the same order still.
        let digest = Digest::of(format!("{} {}", self.environment, self.commit));
        Ok(RunId::new(format!("{verb}-{}-{}-{before}", self.generation, &digest.short()[..8]))?)
    }
}

impl Delivery {
    /// Decides what bringing `commit` to an environment that stays means for each component.
    pub(super) async fn order(
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
            if let Some((_, artifact)) = found.filter(|_| !self.anew)
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

    /// The pipeline of an order, as data. Pure: the same order, the same draft.
    pub(super) fn draft(&self, order: &Order) -> Result<Draft, DeliveryError> {
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
    pub(super) fn empty(&self, order: &Order) -> Result<Draft, DeliveryError> {
        let mut pipeline =
            Pipeline::new(format!("deploy {}", order.environment), self.topology().app.clone());
        pipeline.input("commit", order.commit.as_str());
        pipeline.draft().map_err(|error| {
            DeliveryError::part(format!("writing the plan for `{}`", order.environment), error)
        })
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
