//! The moving parts of a walk forward: what waits for what, what is ready, what runs, what is to be written.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    sync::Arc,
};

use flowline_core::{
    Timestamp,
    event::Event,
    lease::{Lease, LeaseError},
    store::{Batch, Committed, Durability, StoreError},
};
use futures_util::{future::BoxFuture, stream::FuturesUnordered};
use serde_json::Value;

use super::{
    Cause, RunError,
    attempt::{Came, Task, millis},
    cache::Entry,
    locks::Busy,
    table::{Done, Table},
};
use crate::{
    cancel::Cancel,
    plan::{Effect, Input, StepId},
    step::{BoundStep, StepError},
};

/// Why the walk forward ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// Every step is done.
    Done,
    /// What was done should be undone, or left.
    Cause(Cause),
    /// Only a person can say whether these happened.
    Person(BTreeMap<StepId, String>),
    /// All that is left waits for these.
    Waiting(BTreeMap<StepId, String>, Option<Timestamp>),
}

/// What follows once a record is written, or at once if nothing is recorded.
pub(super) enum Then {
    Launch { at: usize, attempt: u32, task: Task },
    Finished { at: usize, done: Done, now: Timestamp },
    Release(Vec<Lease>),
    Nothing,
}

/// What a step was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether it is needed.
    Look,
    /// Whether it happened.
    Probe,
    /// To do its work.
    Run,
}

/// An attempt that ended.
pub(super) struct Settled {
    pub(super) at: usize,
    pub(super) attempt: u32,
    pub(super) asked: Asked,
    pub(super) started: Timestamp,
    pub(super) result: Result<Came, StepError>,
    pub(super) entry: Option<Entry>,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alarm {
    Again(usize),
    Queue(usize),
    Total(usize),
    /// The whole run took as long as it may.
    Run,
}

type Grab = (usize, Result<Result<Vec<Lease>, Busy>, LeaseError>);

pub(super) struct Front {
    edges: Edges,
    waiting: Vec<usize>,
    pub(super) ready: BinaryHeap<(i32, Reverse<usize>)>,
    ready_at: BTreeMap<usize, Timestamp>,
    /// Steps that run or are about to.
    pub(super) busy: usize,
    pub(super) bound: BTreeMap<usize, Arc<dyn BoundStep>>,
    pub(super) running: FuturesUnordered<BoxFuture<'static, Settled>>,
    pub(super) timers: BinaryHeap<Reverse<(Timestamp, Alarm)>>,
    /// Claims on locks that are being tried.
    pub(super) locking: FuturesUnordered<BoxFuture<'static, Grab>>,
    /// Steps whose locks somebody else holds, and what wakes each to try again.
    pub(super) parked: BTreeMap<usize, String>,
    pub(super) waking: FuturesUnordered<BoxFuture<'static, usize>>,
    /// Steps whose locks are being tried, and whether their time to queue has run out meanwhile.
    pub(super) trying: BTreeMap<usize, bool>,
    pub(super) held: BTreeMap<usize, Vec<Lease>>,
    /// What was last said about each step that waits for its locks.
    pub(super) told: BTreeMap<usize, String>,
    /// The templates whose outputs are on their way into the journal.
    pub(super) gathered: BTreeSet<usize>,
    /// The steps that were asked again whether they are needed.
    pub(super) looked: BTreeSet<usize>,
    pub(super) releasing: FuturesUnordered<BoxFuture<'static, ()>>,
    pub(super) batch: Batch,
    pub(super) then: Vec<Then>,
    pub(super) due: VecDeque<Then>,
    pub(super) committing: Option<BoxFuture<'static, Result<Committed, StoreError>>>,
    pub(super) committing_then: Vec<Then>,
    pub(super) stop: Option<Stop>,
    pub(super) waits: BTreeMap<StepId, String>,
    pub(super) wake: Option<Timestamp>,
    pub(super) cancel: Cancel,
}

impl Front {
    /// Where the walk stands, from the plan and what was recorded.
    pub(super) fn new(
        table: &Table<'_>,
        batch: Batch,
        cancel: &Cancel,
        now: Timestamp,
    ) -> Result<Self, RunError> {
        let count = table.len();
        let mut front = Self {
            edges: Edges::new(count),
            waiting: vec![0; count],
            ready: BinaryHeap::with_capacity(count),
            ready_at: BTreeMap::new(),
            busy: 0,
            bound: BTreeMap::new(),
            running: FuturesUnordered::new(),
            timers: BinaryHeap::new(),
            locking: FuturesUnordered::new(),
            parked: BTreeMap::new(),
            waking: FuturesUnordered::new(),
            trying: BTreeMap::new(),
            looked: BTreeSet::new(),
            held: BTreeMap::new(),
            told: BTreeMap::new(),
            gathered: BTreeSet::new(),
            releasing: FuturesUnordered::new(),
            batch,
            then: Vec::new(),
            due: VecDeque::new(),
            committing: None,
            committing_then: Vec::new(),
            stop: None,
            waits: BTreeMap::new(),
            wake: None,
            cancel: cancel.child(),
        };
        for at in 0..count {
            if table.is_done(at) {
                continue;
            }
            if table.node(at).effect == Effect::Once && table.at(at).step.was_cut_short() {
                let reason = "it was cut short, must not happen twice, and cannot be asked";
                front.needs_person(table.id(at), reason.to_owned());
            }
            // An instance waits for nothing: its template has become some.
            if table.at(at).item.is_none() {
                for id in table.node(at).node.predecessors() {
                    let Some(before) = table.place(id) else {
                        let step = table.id(at);
                        return Err(RunError::Broken(format!(
                            "step `{step}` waits for `{id}`, which is not in it"
                        )));
                    };
                    if !table.is_done(before) {
                        front.waiting[at] += 1;
                        front.edges.add(before, at);
                    }
                }
            }
            if front.waiting[at] == 0 {
                front.make_ready(table, at, now);
            }
        }
        Ok(front)
    }

    /// The instances of a template have come to be: they are ready, and the template waits for those that are not done.
    pub(super) fn expanded(&mut self, table: &Table<'_>, template: usize, now: Timestamp) {
        for at in table.instances(template).unwrap_or_default().to_vec() {
            if at >= self.waiting.len() {
                self.waiting.resize(at + 1, 0);
                if !table.is_done(at) {
                    self.make_ready(table, at, now);
                }
            }
        }
    }

    fn make_ready(&mut self, table: &Table<'_>, at: usize, now: Timestamp) {
        let place = table.at(at);
        self.ready.push((place.priority, Reverse(at)));
        // The limits of a template are those of each of its instances.
        if place.timed && (place.node.node.each.is_none() || place.item.is_some()) {
            let limits = &place.node.node.policy.limits;
            let waiting = place.step.waiting_since;
            self.ready_at.insert(at, waiting.unwrap_or(now));
            // What waits for something from outside is asked once more, however late it is: it may be there.
            if waiting.is_none() {
                let after = |ms: u64| now.checked_add(millis(ms)).unwrap_or(Timestamp::MAX);
                let queue = limits.queue_ms.map(|ms| (after(ms), Alarm::Queue(at)));
                let total = limits.total_ms.map(|ms| (after(ms), Alarm::Total(at)));
                self.timers.extend(queue.into_iter().chain(total).map(Reverse));
            }
        }
    }

    /// Tries a step again, with its place in the queue.
    pub(super) fn again(&mut self, table: &Table<'_>, at: usize) {
        self.ready.push((table.at(at).priority, Reverse(at)));
    }

    /// Since when a step with limits is ready.
    pub(super) fn ready_at(&self, at: usize) -> Option<Timestamp> {
        self.ready_at.get(&at).copied()
    }

    /// Whether a step waits for its turn or for its locks.
    pub(super) fn is_queued(&self, at: usize) -> bool {
        self.parked.contains_key(&at) || self.ready.iter().any(|(_, ready)| ready.0 == at)
    }

    /// Takes a step out of the queue.
    pub(super) fn give_up(&mut self, at: usize) {
        self.parked.remove(&at);
        self.ready.retain(|(_, ready)| ready.0 != at);
    }

    /// A step is done and that is recorded: whatever waited for nothing else is ready.
    pub(super) fn finished(&mut self, table: &Table<'_>, at: usize, now: Timestamp) {
        let mut edge = self.edges.first(at);
        while let Some((after, next)) = self.edges.at(edge) {
            self.waiting[after] -= 1;
            if self.waiting[after] == 0 {
                self.make_ready(table, after, now);
            }
            edge = next;
        }
        // The last instance to be done wakes its template.
        if let Some((_, template)) = table.at(at).item.as_deref()
            && table.instances(*template).unwrap_or_default().iter().all(|at| table.is_done(*at))
        {
            self.again(table, *template);
        }
    }

    /// Queues a record and what follows it.
    pub(super) fn queue(
        &mut self,
        stream: &flowline_core::id::StreamId,
        event: Event,
        durability: Durability,
        then: Then,
    ) {
        self.batch.append.push((stream.clone(), event));
        self.batch.durability = self.batch.durability.max(durability);
        self.then.push(then);
    }

    /// Starts nothing more. The first reason counts, except that a person is asked only if nothing else stops the run.
    pub(super) fn halt(&mut self, stop: Stop) {
        if !self.is_stopped_for_a_cause() {
            self.stop = Some(stop);
        }
        self.parked.clear();
    }

    /// Whether it is known why what was done should be undone, or left.
    pub(super) fn is_stopped_for_a_cause(&self) -> bool {
        matches!(self.stop, Some(Stop::Cause(_)))
    }

    pub(super) fn needs_person(&mut self, id: &StepId, reason: String) {
        match &mut self.stop {
            Some(Stop::Person(steps)) => drop(steps.insert(id.clone(), reason)),
            Some(_) => {}
            none => *none = Some(Stop::Person(BTreeMap::from([(id.clone(), reason)]))),
        }
    }

    /// Whether nothing runs, nothing is to be written and nothing will become ready.
    pub(super) fn idle(&self, table: &Table<'_>) -> bool {
        let quiet = self.running.is_empty()
            && self.committing.is_none()
            && self.then.is_empty()
            && self.due.is_empty()
            && self.locking.is_empty()
            && self.releasing.is_empty();
        let more = !self.ready.is_empty()
            || !self.parked.is_empty()
            || self.timers.iter().any(|Reverse((_, alarm))| matches!(alarm, Alarm::Again(_)));
        quiet && (self.stop.is_some() || table.all_done() || !more)
    }
}

/// Which steps wait for which: lists in one piece of memory.
#[derive(Debug)]
struct Edges {
    first: Vec<usize>,
    list: Vec<(usize, usize)>,
}

impl Edges {
    const NONE: usize = usize::MAX;

    fn new(count: usize) -> Self {
        Self { first: vec![Self::NONE; count], list: Vec::with_capacity(count) }
    }

    fn add(&mut self, before: usize, after: usize) {
        self.list.push((after, self.first[before]));
        self.first[before] = self.list.len() - 1;
    }

    fn first(&self, at: usize) -> usize {
        self.first.get(at).copied().unwrap_or(Self::NONE)
    }

    fn at(&self, edge: usize) -> Option<(usize, usize)> {
        self.list.get(edge).copied()
    }
}

/// The input of the step at `at`, from what others gave and what the instance is for.
pub(super) fn input(table: &Table<'_>, at: usize) -> Result<Value, StepError> {
    let missing = |problem: String| StepError::new(flowline_core::error::ErrorKind::Invalid, problem);
    table.node(at).node.inputs.assemble(|input| match input {
        Input::Output(from) => table
            .output(&from.step)
            .ok_or_else(|| missing(format!("step `{}` is not done", from.step)))?
            .pointer(&from.at)
            .cloned()
            .ok_or_else(|| missing(format!("step `{}` gave nothing at `{}`", from.step, from.at))),
        Input::Item(pointer) => {
            let item = table.at(at).item.as_deref().map(|(item, _)| &item.value);
            let part = item.and_then(|item| item.pointer(pointer)).cloned();
            part.ok_or_else(|| missing(format!("the item has nothing at `{pointer}`")))
        }
        Input::Value(value) => Ok(value.clone()),
    })
}

/// The first condition of the step at `at` that does not hold.
pub(super) fn condition(table: &Table<'_>, at: usize) -> Result<Option<StepId>, StepError> {
    for condition in &table.node(at).node.when {
        let value = table.output(&condition.step).and_then(|output| output.pointer(&condition.at));
        match value {
            Some(Value::Bool(true)) => {}
            // A condition that was skipped itself does not hold.
            Some(Value::Bool(false) | Value::Null) => return Ok(Some(condition.step.clone())),
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                let problem =
                    format!("its condition, step `{}`, gave {found} instead of yes or no", condition.step);
                return Err(StepError::new(flowline_core::error::ErrorKind::Invalid, problem));
            }
        }
    }
    Ok(None)
}
