//! Forward: the interpreter that starts steps, records what they did and starts what waited for them.
//!
//! Steps run as futures that one task polls; it learns of their end, queues the records, and writes all that are due together as one
//! commit, always with the lease's fence. Only what a commit confirmed has consequences: a successor becomes ready after the record of
//! its predecessor, a delicate step starts after the record of its start. Without a journal the consequence follows at once.

use std::{cmp::Reverse, sync::Arc, task::Poll};

use flowline_core::{
    Timestamp,
    lease::{Lease, LeaseError},
    store::{Committed, StoreError},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture};

use super::{
    Cause, Progress, RunError,
    front::{Alarm, Front, Settled, Stop, Then},
    settle::Tried,
    walk::Walk,
};
use crate::{cancel::Cancel, step::StepError};

/// So many records are written at once at most, and so many steps are taken before others get a turn.
const BATCH: usize = 256;

/// What the walk waits for.
enum Event {
    Committed(Result<Committed, StoreError>),
    Settled(Settled),
    Locked(usize, Result<Result<Vec<Lease>, super::locks::Busy>, LeaseError>),
    Awake(usize),
    Released,
    Cancelled,
    Renewed(Result<Lease, LeaseError>),
    Timer,
    GraceOver,
    Turn,
}

/// What the walk listens to besides its steps.
struct Ears {
    cancelled: Option<BoxFuture<'static, ()>>,
    grace: Option<BoxFuture<'static, ()>>,
    timer: Option<(Timestamp, BoxFuture<'static, ()>)>,
}

impl Walk<'_> {
    /// Walks until everything is done or something stops it. When it returns, nothing runs any more and everything is recorded.
    pub(super) async fn forward(&mut self, cancel: &Cancel) -> Result<Stop, RunError> {
        let mut front = Front::new(&self.table, self.batch(), cancel, self.now())?;
        let wish = cancel.clone();
        let cancelled = Some(async move { wish.cancelled().await }.boxed());
        let mut ears = Ears { cancelled, grace: None, timer: None };
        let deadline = self.deadline();
        front.timers.extend(deadline.map(|at| Reverse((at, Alarm::Run))));
        if deadline.is_some_and(|at| at <= self.now()) {
            self.wind_down(&mut front, &mut ears, Cause::TimedOut)?;
        }
        let mut turns = 0_usize;
        loop {
            let wished = |ears: &Ears| ears.cancelled.is_some() && cancel.is_cancelled();
            // Before anything starts: a wish that was there from the beginning, or came while all slept.
            if wished(&ears) {
                self.wind_down(&mut front, &mut ears, Cause::Cancelled)?;
            }
            let more = self.turn(&mut front)?;
            turns += 1;
            if front.committing.is_none() && !front.then.is_empty() {
                let batch = std::mem::replace(&mut front.batch, self.batch());
                front.committing_then = std::mem::take(&mut front.then);
                let store = Arc::clone(&self.runner.store);
                front.committing = Some(async move { store.commit(batch).await }.boxed());
            }
            if !more && front.idle(&self.table) {
                // Also where all that is left waits, a wish to stop leads into undoing.
                if wished(&ears) {
                    continue;
                }
                break;
            }
            let next = front.timers.peek().map(|Reverse((at, _))| *at);
            if next != ears.timer.as_ref().map(|(at, _)| *at) {
                let clock = Arc::clone(&self.runner.clock);
                ears.timer = next.map(|at| (at, async move { clock.sleep_until(at).await }.boxed()));
            }
            // Also where everything is ready at once, others get their turn.
            let give_way = more || turns.is_multiple_of(BATCH);
            let event = self.listen(&mut front, &mut ears, give_way).await;
            self.heed(&mut front, &mut ears, event)?;
        }
        Ok(match front.stop {
            Some(stop) => stop,
            None if self.table.all_done() => Stop::Done,
            None if !front.waits.is_empty() => {
                Stop::Waiting(front.waits, front.wake.into_iter().chain(deadline).min())
            }
            None => return Err(RunError::Broken("steps wait for each other".to_owned())),
        })
    }

    /// Does everything that can be done at once. Whether there is more of it.
    fn turn(&mut self, front: &mut Front) -> Result<bool, RunError> {
        let mut steps = 0;
        loop {
            if let Some(then) = front.due.pop_front() {
                self.follow(front, then)?;
            } else if front.stop.is_none()
                && front.busy < self.runner.workers
                && front.then.len() < BATCH
                && let Some((_, Reverse(at))) = front.ready.pop()
            {
                self.begin(front, at)?;
            } else if front.then.len() < BATCH
                && !front.running.is_empty()
                && let Some(Some(settled)) = front.running.next().now_or_never()
            {
                // Whatever is done by now is recorded together.
                self.settle(front, settled)?;
            } else {
                return Ok(false);
            }
            steps += 1;
            if steps >= BATCH {
                return Ok(true);
            }
        }
    }

    /// Waits for the next thing to happen; with `more` to do, only gives others a turn.
    async fn listen(&mut self, front: &mut Front, ears: &mut Ears, more: bool) -> Event {
        let mut gave_way = false;
        std::future::poll_fn(|context| {
            if let Some(committing) = &mut front.committing
                && let Poll::Ready(done) = committing.poll_unpin(context)
            {
                return Poll::Ready(Event::Committed(done));
            }
            if !front.running.is_empty()
                && front.then.len() < BATCH
                && let Poll::Ready(Some(settled)) = front.running.poll_next_unpin(context)
            {
                return Poll::Ready(Event::Settled(settled));
            }
            if !front.locking.is_empty()
                && let Poll::Ready(Some((at, grab))) = front.locking.poll_next_unpin(context)
            {
                return Poll::Ready(Event::Locked(at, grab));
            }
            if !front.waking.is_empty()
                && let Poll::Ready(Some(at)) = front.waking.poll_next_unpin(context)
            {
                return Poll::Ready(Event::Awake(at));
            }
            if !front.releasing.is_empty()
                && let Poll::Ready(Some(())) = front.releasing.poll_next_unpin(context)
            {
                return Poll::Ready(Event::Released);
            }
            if let Some(wish) = &mut ears.cancelled
                && wish.poll_unpin(context).is_ready()
            {
                return Poll::Ready(Event::Cancelled);
            }
            if let Some(grace) = &mut ears.grace
                && grace.poll_unpin(context).is_ready()
            {
                return Poll::Ready(Event::GraceOver);
            }
            if let Some((_, timer)) = &mut ears.timer
                && timer.poll_unpin(context).is_ready()
            {
                return Poll::Ready(Event::Timer);
            }
            if more {
                if gave_way {
                    return Poll::Ready(Event::Turn);
                }
                gave_way = true;
                context.waker().wake_by_ref();
            }
            self.poll_renewal(context).map(Event::Renewed)
        })
        .await
    }

    fn heed(&mut self, front: &mut Front, ears: &mut Ears, event: Event) -> Result<(), RunError> {
        match event {
            Event::Turn | Event::Released => {}
            Event::Committed(done) => {
                done?;
                front.committing = None;
                for then in std::mem::take(&mut front.committing_then) {
                    self.follow(front, then)?;
                }
            }
            Event::Settled(settled) => self.settle(front, settled)?,
            Event::Locked(at, grab) => self.locked(front, at, grab)?,
            Event::Awake(at) => {
                if front.parked.contains_key(&at) {
                    front.again(&self.table, at);
                }
            }
            Event::Cancelled => self.wind_down(front, ears, Cause::Cancelled)?,
            // What did not stop by itself is dropped, which ends it; its effect is undone as one that was cut short.
            Event::GraceOver => {
                ears.grace = None;
                front.busy -= front.running.len();
                front.running.clear();
                for (_, leases) in std::mem::take(&mut front.held) {
                    self.release(front, leases);
                }
            }
            Event::Renewed(renewed) => self.renewed(renewed)?,
            Event::Timer => {
                ears.timer = None;
                self.ring(front, ears)?;
            }
        }
        Ok(())
    }

    /// When the run has taken as long as it may.
    fn deadline(&self) -> Option<Timestamp> {
        let (limit, started) = (self.runner.limit?, self.table.started()?);
        Some(started.checked_add(limit).unwrap_or(Timestamp::MAX))
    }

    /// Starts nothing more, and asks what runs to stop.
    fn wind_down(&self, front: &mut Front, ears: &mut Ears, cause: Cause) -> Result<(), RunError> {
        ears.cancelled = None;
        if self.table.all_done() {
            return Ok(());
        }
        self.record_undo(front, &cause)?;
        front.halt(Stop::Cause(cause));
        front.timers.clear();
        front.cancel.cancel();
        let (clock, length) = (Arc::clone(&self.runner.clock), self.runner.grace);
        ears.grace = Some(async move { clock.sleep(length).await }.boxed());
        Ok(())
    }

    /// What a written record leads to.
    fn follow(&mut self, front: &mut Front, then: Then) -> Result<(), RunError> {
        match then {
            Then::Nothing => {}
            Then::Release(leases) => self.release(front, leases),
            Then::Launch { at, attempt, task } if front.stop.is_none() => {
                return self.launch(front, at, attempt, task);
            }
            // It was never launched: the next process asks or repeats it, and undoing it is harmless.
            Then::Launch { at, attempt, .. } => {
                front.busy -= 1;
                self.table.start(at, attempt);
                if let Some(leases) = front.held.remove(&at) {
                    self.release(front, leases);
                }
            }
            Then::Finished { at, done, now } => {
                let step = self.table.id(at);
                if done.why.is_skip() {
                    self.runner.reporter.report(&Progress::Skipped { step, reason: &done.why.to_string() });
                } else {
                    let took = now.duration_since(done.started);
                    self.runner.reporter.report(&Progress::Finished { step, took, why: &done.why });
                }
                self.table.finish(at, done, now);
                front.finished(&self.table, at, now);
            }
        }
        Ok(())
    }

    /// Timers that are due.
    fn ring(&mut self, front: &mut Front, ears: &mut Ears) -> Result<(), RunError> {
        let now = self.now();
        while let Some(Reverse((due, alarm))) = front.timers.peek().copied()
            && due <= now
        {
            front.timers.pop();
            if front.stop.is_some() {
                continue;
            }
            match alarm {
                Alarm::Again(at) => front.again(&self.table, at),
                Alarm::Run => self.wind_down(front, ears, Cause::TimedOut)?,
                // It had its turn in time.
                Alarm::Queue(at) if self.table.at(at).step.attempts > 0 => {}
                Alarm::Queue(at) | Alarm::Total(at) => {
                    if let Some(late) = front.trying.get_mut(&at) {
                        *late = true;
                    } else if front.is_queued(at) {
                        let held = front.parked.get(&at).cloned();
                        front.give_up(at);
                        self.too_late(front, at, held.as_deref())?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The step at `at` waited longer than it may; `held` says what for.
    pub(super) fn too_late(
        &mut self,
        front: &mut Front,
        at: usize,
        held: Option<&str>,
    ) -> Result<(), RunError> {
        let why = held.map(|held| format!(": {held}")).unwrap_or_default();
        let error = StepError::new(
            flowline_core::error::ErrorKind::TimedOut,
            format!("the step waited longer than it may for its turn{why}"),
        );
        self.failed(front, at, Tried::TooLate, &error)
    }
}
