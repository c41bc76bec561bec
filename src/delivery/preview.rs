//! A pull request's own environment: opened by a webhook, deployed with what the change touches, gone when the change is.

use flowline_core::{
    change::{Change, ChangeSource, ChangeState, Risk},
    event::Event,
    grant::Granted,
    id::{ChangeId, ResourceId, ScopeId},
    name::{AppName, EnvironmentName, Person},
    store::{Batch, Durability, Revision, StoreExt},
    verdict::Verdict,
};
use flowline_envs::provision::Provisioner;
use flowline_toggles::flags::Author;
use serde::{Deserialize, Serialize};

use super::{
    Delivery, DeliveryError, EnvironmentRecord, host::Alone, kind, order::Order, record, steps::Becomes,
};

/// What a webhook came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Received {
    /// The change as it stands now.
    pub change: Change,
    /// Whether this delivery of the webhook was the first to say so.
    pub news: bool,
}

/// A preview as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Its environment, called like the change: `pr-123`.
    pub environment: EnvironmentName,
    /// What it deploys itself and what falls through to its base, for people, with the reason.
    pub components: Vec<String>,
    /// Where it is found: one URL for each component, in the topology's order.
    pub urls: Vec<String>,
}

impl Delivery {
    /// Records `change` as a forge's webhook told it: opened, moved on, merged or closed. Doing it again changes nothing.
    ///
    /// # Errors
    /// If the store does not answer.
    pub(super) async fn take_in(&self, mut change: Change) -> Result<Received, DeliveryError> {
        let key = record::change_key(&change.id)?;
        let doing = || DeliveryError::store(format!("recording `{}`", change.id));
        let known = self.store().get::<Change>(&key).await.map_err(doing())?;
        let (revision, before) =
            known.map_or((Revision::ABSENT, None), |(revision, before)| (revision, Some(before)));
        if let Some(before) = &before {
            // A late delivery of an older payload does not take back a merge.
            if before.state == ChangeState::Merged && change.state == ChangeState::Open {
                return Ok(Received { change: before.clone(), news: false });
            }
            change.risk = before.risk;
            if *before == change {
                return Ok(Received { change, news: false });
            }
        }
        let kind = match change.state {
            ChangeState::Open if before.is_none() => kind::OPENED,
            ChangeState::Open => "change.updated",
            ChangeState::Merged => kind::MERGED,
            ChangeState::Closed => kind::ABANDONED,
        };
        let commit = change.source.merged.as_ref().unwrap_or(&change.source.head);
        let id = Self::event_id(format!("change/{}/{kind}/{commit}", change.id))?;
        let event = Event::new(
            id,
            kind,
            self.clock().now(),
            change.shepherd.as_str(),
            format!("change/{}", change.id),
        )
        .with_data(
            serde_json::json!({ "title": change.title, "branch": change.source.branch, "commit": commit }),
        );
        let value = serde_json::to_value(&change).unwrap_or_default();
        let batch = Batch::new()
            .expect(key.clone(), revision)
            .put(key, value)
            .append(record::change_stream(&change.id)?, event);
        self.store().commit(batch).await.map_err(doing())?;
        Ok(Received { change, news: true })
    }

    /// Says that there is a change, where no forge does: `branch` as number `number`, to be merged into the topology's branch. Its shepherd is
    /// the delivery's actor, or the topology's. Doing it again after a commit moves the change on.
    ///
    /// # Errors
    /// If there is no such branch, or the store does not answer.
    pub async fn propose(&self, number: u64, branch: &str, title: &str) -> Result<Received, DeliveryError> {
        let base_branch = self.topology().branch.clone();
        let source = ChangeSource {
            branch: branch.to_owned(),
            head: self.source().resolve(branch).await?,
            base: self.source().resolve(&base_branch).await?,
            base_branch,
            merged: None,
        };
        let change = Change {
            id: ChangeId::new(format!("pr-{number}"))?,
            app: self.app().clone(),
            number,
            title: title.to_owned(),
            shepherd: Person::new(self.actor()).unwrap_or_else(|_| self.topology().shepherd.clone()),
            risk: Risk::default(),
            source,
            state: ChangeState::Open,
        };
        self.take_in(change).await
    }

    /// Says that `change` was merged, where no forge does, and that `revision` is what came out.
    ///
    /// # Errors
    /// If there is no such change or revision, or the store does not answer.
    pub async fn merged(&self, change: &ChangeId, revision: &str) -> Result<Received, DeliveryError> {
        let mut change = self.change(change).await?;
        change.source.merged = Some(self.source().resolve(revision).await?);
        change.state = ChangeState::Merged;
        self.take_in(change).await
    }

    /// The change `id`, as the last webhook told it.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`] if no webhook ever told of it.
    pub async fn change(&self, id: &ChangeId) -> Result<Change, DeliveryError> {
        let found = self
            .store()
            .get(&record::change_key(id)?)
            .await
            .map_err(DeliveryError::store(format!("reading `{id}`")))?;
        found.map(|(_, change)| change).ok_or_else(|| DeliveryError::Unknown {
            what: "change",
            name: id.to_string(),
            help: "feed in its webhook with `Delivery::receive`".to_owned(),
        })
    }

    /// Gives `change` an environment of its own, with its branch's head: what its source trees change is deployed there, everything else
    /// falls through to the base environment. Called again after a push, it moves the preview on; it lives anew from then.
    ///
    /// # Errors
    /// [`DeliveryError::Unknown`] if the topology has no previews; what staging says if the branch does not start.
    pub async fn preview(&self, change: &ChangeId) -> Result<Preview, DeliveryError> {
        let change = self.change(change).await?;
        let environment = EnvironmentName::new(change.id.as_str())?;
        let previews = self.topology().previews.as_ref().ok_or_else(|| DeliveryError::Unknown {
            what: "preview",
            name: change.id.to_string(),
            help: "the topology has no `[previews]`".to_owned(),
        })?;
        let base = self.environment(&previews.base).await?.ok_or_else(|| DeliveryError::Unknown {
            what: "environment",
            name: previews.base.to_string(),
            help: "deploy it first: a preview is laid over it".to_owned(),
        })?;
        let record = self.environment(&environment).await?;
        let sources = self.sources(&change.source.head).await?;
        let mut becomes = self.becomes(&sources, record.as_ref()).await?;
        let mut components = Vec::new();
        for (component, becomes) in &mut becomes {
            let below = base.running.get(component).map(|instance| &instance.artifact);
            if below.is_some_and(|artifact| artifact.source == sources[component]) {
                *becomes = Becomes::FallsThrough;
                components.push(format!(
                    "{component}: falls through to {}, which has the same source tree",
                    base.name
                ));
            } else {
                components.push(format!("{component}: its own, as the change touches it"));
            }
        }
        let scope = ScopeId::from(&environment);
        let author = Author::new(self.actor(), format!("preview of {}", change.id));
        let opened = self.flags().await?.open_scope(&scope, Some(&ScopeId::from(&base.name)), &author).await;
        opened
            .map_err(|error| DeliveryError::part(format!("letting `{environment}` inherit flags"), error))?;
        let order = Order {
            environment: environment.clone(),
            base: Some(base.name.clone()),
            change: Some(change.id.clone()),
            commit: change.source.head.clone(),
            generation: record.map_or(0, |record| record.generation) + 1,
            rollback: false,
            expires: Some(
                self.clock().now().checked_add(previews.ttl).unwrap_or(flowline_core::Timestamp::MAX),
            ),
            becomes,
            verified: false,
        };
        self.carry_out(order).await?;
        let mut urls = Vec::new();
        for component in self.topology().components.keys() {
            urls.push(self.url(&environment, component).await?);
        }
        Ok(Preview { environment, components, urls })
    }

    /// Asks what the topology's verification asks of `environment`, and records the verdict for whatever runs there.
    ///
    /// # Errors
    /// If the environment is not there. A bad verdict is an answer, not an error.
    pub async fn verify(&self, environment: &EnvironmentName) -> Result<Verdict, DeliveryError> {
        let record = self.environment(environment).await?.ok_or_else(|| DeliveryError::Unknown {
            what: "environment",
            name: environment.to_string(),
            help: "deploy or preview it first".to_owned(),
        })?;
        let verdict = self.judge(environment).await?;
        self.record_judgement(&record, &verdict).await?;
        Ok(verdict)
    }

    /// Removes the preview of `change`: no process, directory, route or flag state of it is left. Doing it again is fine.
    ///
    /// # Errors
    /// If something can't be removed; what is left is removed by the next call.
    pub async fn close(&self, change: &ChangeId) -> Result<(), DeliveryError> {
        let environment = EnvironmentName::new(change.as_str())?;
        self.remove(&environment, "its change was closed").await
    }

    /// Removes every preview whose time is over at the clock's now; how many there were. The serving process calls it by itself.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub async fn sweep(&self) -> Result<usize, DeliveryError> {
        let now = self.clock().now();
        let expired = |record: &EnvironmentRecord| record.expired(now);
        let mut removed = 0;
        for record in self.environments().await?.into_iter().filter(expired) {
            match self.remove(&record.name, "its time was over").await {
                Ok(()) => removed += 1,
                // Somebody is at it right now: another sweep removes it, or a new deployment lets it live on.
                Err(DeliveryError::DeployedElsewhere { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }

    async fn remove(&self, environment: &EnvironmentName, because: &str) -> Result<(), DeliveryError> {
        let run = Self::removal(environment)?;
        let lease = self.alone(environment, &run).await?;
        let removed = self.remove_alone(environment, because, &lease).await;
        let freed = lease.free().await;
        removed?;
        freed
    }

    /// First the routes go, then what they led to, then what is known of it: whoever comes in between still finds what is left.
    async fn remove_alone(
        &self,
        environment: &EnvironmentName,
        because: &str,
        lease: &Alone,
    ) -> Result<(), DeliveryError> {
        let doing = || DeliveryError::store(format!("removing `{environment}`"));
        let key = record::environment_key(environment)?;
        let found = self.store().get::<EnvironmentRecord>(&key).await.map_err(doing())?;
        if let Some((revision, record)) = found {
            let subject = format!("environment/{environment}");
            let id = Self::event_id(format!(
                "environment/{environment}/deleted/{}",
                record.created.as_microsecond()
            ))?;
            let data = serde_json::json!({ "environment": environment, "because": because });
            let event = Event::new(id, kind::REMOVED, self.clock().now(), self.actor(), subject)
                .with_data(data.clone());
            let mut batch = Batch::new()
                .expect(key.clone(), revision)
                .remove(key)
                .fenced(lease.fence())
                .durably(Durability::Written)
                .append(record::environment_stream(environment)?, event.clone());
            if let Some(change) = &record.change {
                let id = Self::event_id(format!("{}/change", event.id))?;
                let of_change =
                    Event::new(id, kind::REMOVED, event.time, self.actor(), format!("change/{change}"));
                batch = batch
                    .append(record::change_stream(change)?, of_change.with_data(data).caused_by(event.id));
            }
            let committed = self.store().commit(batch).await.map_err(doing())?;
            self.await_router(committed.position).await?;
        }
        for handle in self.standing_in(environment).await? {
            self.destroy(&handle, lease).await?;
        }
        let author = Author::new(self.actor(), because);
        let closed = self.flags().await?.close_scope(&ScopeId::from(environment), &author).await;
        closed.map_err(|error| DeliveryError::part(format!("forgetting the flags of `{environment}`"), error))
    }

    async fn destroy(&self, on: &Granted<ResourceId>, lease: &Alone) -> Result<(), DeliveryError> {
        let doing = || format!("removing `{}`", on.resource());
        let observed =
            self.provisioner().observe(on).await.map_err(|error| DeliveryError::part(doing(), error))?;
        for instance in &observed.instances {
            self.drained(instance).await?;
        }
        let destroyed = self.provisioner().destroy(on, &observed, &lease.fence()).await;
        destroyed.map_err(|error| DeliveryError::part(doing(), error))
    }

    /// The application that webhooks are taken for.
    pub(super) fn app(&self) -> &AppName {
        &self.topology().app
    }
}
