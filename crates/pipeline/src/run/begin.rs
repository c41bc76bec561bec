//! How one step is begun on the way forward: found not to be needed, made into its instances, given its locks, launched.

use std::sync::Arc;

use flowline_core::{
    SignedDuration,
    error::ErrorKind,
    lease::{Lease, LeaseError},
    store::Durability,
};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, select},
};
use serde_json::{Map, Value};

use super::{
    How, Phase, Progress, RunError, Why,
    attempt::{Task, attempt, millis},
    cache::Recipe,
    fresh::may_be_kept,
    front::{self, Asked, Front, Settled, Then},
    locks::{self, Busy, Lock},
    record::StepStarted,
    settle::Tried,
    table::Done,
    walk::Walk,
};
use crate::{
    plan::{Effect, PlannedNode, Undo},
    step::{BoundStep, Context, StepError},
};

/// Whether the start of a step is recorded before its effect: where it must not be repeated blindly, can be undone, has its attempts
/// counted, or changes what a later process would otherwise take for somebody else's change.
pub(super) fn records_start(node: &PlannedNode) -> bool {
    let traces = node.effect != Effect::Pure && !node.touches.is_empty();
    traces || node.effect.is_delicate() || node.undo != Undo::None || node.node.policy.retry.is_some()
}

impl Walk<'_> {
    /// Begins a step that is ready: finds that it is not needed, becomes its instances, takes its locks, or starts it.
    pub(super) fn begin(&mut self, front: &mut Front, at: usize) -> Result<(), RunError> {
        front.parked.remove(&at);
        let node = self.table.node(at);
        if !node.node.is_plain() && !self.table.is_done(at) {
            match front::condition(&self.table, at) {
                Ok(None) => {}
                Ok(Some(step)) => {
                    let done = Done {
                        attempt: 0,
                        started: self.now(),
                        how: How::Skipped,
                        output: Value::Null,
                        why: Why::ConditionFalse { step },
                    };
                    return self.finished(front, at, done);
                }
                Err(error) => return self.failed(front, at, Tried::Never, &error),
            }
        }
        if node.node.each.is_some() && self.table.at(at).item.is_none() {
            return self.fan_out(front, at);
        }
        if node.node.policy.needs_locks() && !front.held.contains_key(&at) {
            return self.lock(front, at);
        }
        self.prepare(front, at)
    }

    /// A template becomes its instances, and is done when they are.
    fn fan_out(&mut self, front: &mut Front, at: usize) -> Result<(), RunError> {
        if self.table.is_done(at) || front.gathered.contains(&at) {
            return Ok(());
        }
        if let Err(error) = self.table.expand(at) {
            return self.failed(front, at, Tried::Never, &error);
        }
        front.expanded(&self.table, at, self.now());
        let instances = self.table.instances(at).unwrap_or_default();
        let mut outputs = Map::new();
        for instance in instances {
            let place = self.table.at(*instance);
            let (Some(output), Some((item, _))) = (place.output(), place.item.as_deref()) else {
                return Ok(());
            };
            outputs.insert(item.key.clone(), output.clone());
        }
        front.gathered.insert(at);
        let why = Why::Instances { count: instances.len() };
        let output = crate::plan::sorted(Value::Object(outputs));
        let done = Done { attempt: 0, started: self.now(), how: How::Ran, output, why };
        self.finished(front, at, done)
    }

    /// Tries to take the locks of a step, all or none.
    fn lock(&mut self, front: &mut Front, at: usize) -> Result<(), RunError> {
        let (claims, taking) = match self.claims(at) {
            Ok(claims) => claims,
            Err(error) => return self.failed(front, at, Tried::Never, &error),
        };
        front.busy += 1;
        front.trying.insert(at, false);
        let (store, leases) = (Arc::clone(&self.runner.store), Arc::clone(&self.runner.leases));
        let clock = Arc::clone(&self.runner.clock);
        front.locking.push(
            async move { (at, locks::take(&*store, &*leases, &*clock, &claims, &taking).await) }.boxed(),
        );
        Ok(())
    }

    /// What the step at `at` must hold, and in whose name.
    pub(super) fn claims(&self, at: usize) -> Result<(Vec<Lock>, locks::Taking), StepError> {
        let claims = locks::wanted(&self.table.node(at).node.policy)?;
        let id = self.table.id(at);
        let mut holder = format!("run/{}/{id}", self.run);
        if !self.is_recorded() {
            // Nobody goes on with an unrecorded run, so nobody may take over from it.
            holder = format!("{holder}@{}", self.own);
        }
        let reason = format!("step `{id}` of run `{}`", self.run);
        Ok((claims, locks::Taking { holder, reason, ttl: self.runner.ttl }))
    }

    /// The locks of a step were tried.
    pub(super) fn locked(
        &mut self,
        front: &mut Front,
        at: usize,
        grab: Result<Result<Vec<Lease>, Busy>, LeaseError>,
    ) -> Result<(), RunError> {
        front.busy -= 1;
        let late = front.trying.remove(&at).unwrap_or_default();
        let lost = |source| RunError::Lock { step: self.table.id(at).clone(), source };
        match grab.map_err(lost)? {
            Ok(leases) if front.stop.is_some() => self.release(front, leases),
            Ok(leases) => {
                front.held.insert(at, leases);
                return self.prepare(front, at);
            }
            Err(_) if front.stop.is_some() => {}
            Err(busy) => {
                let reason = busy.to_string();
                if late {
                    return self.too_late(front, at, Some(&reason));
                }
                if front.told.get(&at) != Some(&reason) {
                    let step = self.table.id(at);
                    self.runner.reporter.report(&Progress::Waiting { step, reason: &reason });
                    front.told.insert(at, reason.clone());
                }
                front.parked.insert(at, reason);
                let (store, clock) = (Arc::clone(&self.runner.store), Arc::clone(&self.runner.clock));
                front.waking.push(
                    async move {
                        locks::wait(&*store, &*clock, &busy).await;
                        at
                    }
                    .boxed(),
                );
            }
        }
        Ok(())
    }

    /// Gives locks back, in the background of the walk.
    pub(super) fn release(&self, front: &mut Front, held: Vec<Lease>) {
        let leases = Arc::clone(&self.runner.leases);
        front.releasing.push(async move { locks::release(&*leases, held).await }.boxed());
    }

    /// Starts a step, or queues the record that must come before.
    pub(super) fn prepare(&mut self, front: &mut Front, at: usize) -> Result<(), RunError> {
        let place = self.table.at(at);
        let (node, attempt) = (place.node, place.step.attempts + 1);
        let untouched = place.step.attempts == 0 && place.step.phase == Phase::Waiting;
        let probe = place.step.was_cut_short() && node.effect == Effect::Probed;
        if untouched && may_be_kept(node) && front.looked.insert(at) {
            front.busy += 1;
            return self.launch(front, at, attempt, Task::Look);
        }
        if !probe && let Some(error) = self.spent(at) {
            return self.failed(front, at, Tried::TooLate, &error);
        }
        let input = match front::input(&self.table, at) {
            Ok(input) => input,
            Err(error) => return self.failed(front, at, Tried::Never, &error),
        };
        let task = if probe { Task::Probe(input) } else { Task::Run(input) };
        front.busy += 1;
        if probe || !self.is_recorded() || !records_start(node) {
            return self.launch(front, at, attempt, task);
        }
        let durability = if node.effect.is_delicate() { Durability::Synced } else { Durability::Written };
        let fact = |step| StepStarted { step, attempt };
        let then = Then::Launch { at, attempt, task };
        self.record(front, at, fact, &format!("started{attempt}"), durability, then)
    }

    /// Why the step at `at` may not be started again by itself: as often as it may, it was started by processes of which none told its end.
    /// Whoever resumes a run that was left as it was ([`OnFailure::Stop`](super::OnFailure::Stop)) gives it one more attempt.
    pub(super) fn spent(&self, at: usize) -> Option<StepError> {
        let place = self.table.at(at);
        let retry = place.node.node.policy.retry.as_ref()?;
        let tries = place.step.tries;
        (place.step.phase == Phase::Started && tries >= retry.attempts.max(1)).then(|| {
            let problem = format!(
                "it was started {tries} times, as often as it may, and the process ended before the last attempt did; find out what ends it, then resume the run"
            );
            StepError::new(ErrorKind::Failed, problem)
        })
    }

    /// Runs an attempt whose start is recorded, or need not be.
    pub(super) fn launch(
        &mut self,
        front: &mut Front,
        at: usize,
        number: u32,
        task: Task,
    ) -> Result<(), RunError> {
        let node = self.table.node(at);
        let bound = self.bound(front, at)?;
        let asked = match task {
            Task::Look => Asked::Look,
            Task::Probe(_) => Asked::Probe,
            _ => Asked::Run,
        };
        let tried = if asked == Asked::Look { Tried::Never } else { Tried::Attempt(number) };
        let mut granted = Vec::with_capacity(node.touches.len());
        for touch in &node.touches {
            match self.runner.authority.grant(touch) {
                Ok(handle) => granted.push(handle),
                Err(denied) => {
                    front.busy -= 1;
                    return self.failed(front, at, tried, &StepError::of(denied));
                }
            }
        }
        let limits = node.node.policy.limits;
        let held = front.held.get(&at).cloned().unwrap_or_default();
        let own_cancel = !limits.is_none() || !held.is_empty();
        let cancel = if own_cancel { front.cancel.child() } else { front.cancel.clone() };
        let started = self.now();
        let left = limits
            .total_ms
            .zip(front.ready_at(at))
            .map(|(total, ready)| (millis(total) - started.duration_since(ready)).max(SignedDuration::ZERO));
        let limit = limits.attempt_ms.map(millis).into_iter().chain(left).min();
        let context = Context::new(
            Arc::clone(&self.shared),
            self.table.id(at).clone(),
            number,
            granted,
            cancel.clone(),
            self.table.signals(at).to_vec(),
            held.iter().map(Lease::fence).collect(),
        );
        if asked != Asked::Look {
            self.runner.reporter.report(&Progress::Started { step: self.table.id(at), attempt: number });
        }
        // Asking about an attempt is none.
        if asked == Asked::Run {
            self.table.start(at, number);
        }
        let grace = self.runner.grace;
        let recipe = self.recipe(at, &task);
        if recipe.is_none() && held.is_empty() {
            let work = async move {
                let result = attempt(bound, task, context, limits, limit, grace).await;
                Settled { at, attempt: number, asked, started, result, entry: None }
            };
            return self.try_now(front, work.boxed());
        }
        let (store, leases) = (Arc::clone(&self.runner.store), Arc::clone(&self.runner.leases));
        let (clock, ttl) = (Arc::clone(&self.runner.clock), self.runner.ttl);
        let work = async move {
            let work = attempt(bound, task, context, limits, limit, grace);
            let (result, entry) = if let Some(recipe) = recipe {
                recipe.apply(&*store, work).await
            } else {
                let keep = std::pin::pin!(locks::keep(&*leases, held, ttl, &*clock));
                match select(std::pin::pin!(work), keep).await {
                    Either::Left((result, _)) => (result, None),
                    Either::Right((lost, work)) => {
                        // It may clean up, but must not go on as if it were alone.
                        cancel.cancel();
                        select(work, clock.sleep(grace)).await;
                        (Err(lost), None)
                    }
                }
            };
            Settled { at, attempt: number, asked, started, result, entry }
        };
        self.try_now(front, work.boxed())
    }

    /// Most short steps are done at once; only the others are kept.
    fn try_now(&mut self, front: &mut Front, mut work: BoxFuture<'static, Settled>) -> Result<(), RunError> {
        if let Some(settled) = work.as_mut().now_or_never() {
            return self.settle(front, settled);
        }
        front.running.push(work);
        Ok(())
    }

    /// How the step at `at` is looked up in the cache, if it may be.
    fn recipe(&self, at: usize, task: &Task) -> Option<Recipe> {
        let node = self.table.node(at);
        let (Some(declared), Task::Run(input), Effect::Pure) = (&node.node.cache, task, &node.effect) else {
            return None;
        };
        Some(Recipe {
            declared: declared.clone(),
            kind: node.node.kind.clone(),
            params: node.node.params.clone(),
            input: input.clone(),
            build: self.shared.build,
            name: format!("{}/{}", self.shared.pipeline, self.table.id(at)),
            run: self.run.clone(),
            off: !self.runner.cache,
        })
    }

    fn bound(&self, front: &mut Front, at: usize) -> Result<Arc<dyn BoundStep>, RunError> {
        let node = self.table.node(at);
        // Kept only where it may be needed again: for a retry, or for the other instances.
        if node.node.policy.retry.is_none() && node.node.each.is_none() {
            return self.resolve(node);
        }
        let key = self.table.at(at).item.as_deref().map_or(at, |(_, template)| *template);
        if let Some(bound) = front.bound.get(&key) {
            return Ok(Arc::clone(bound));
        }
        let bound = self.resolve(node)?;
        front.bound.insert(key, Arc::clone(&bound));
        Ok(bound)
    }

    pub(super) fn resolve(&self, node: &PlannedNode) -> Result<Arc<dyn BoundStep>, RunError> {
        self.runner
            .registry
            .resolve(&node.node.kind, &node.node.params)
            .map_err(|source| RunError::Resolve { step: node.id().clone(), source })
    }
}
