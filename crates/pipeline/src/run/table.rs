//! What became of every step, by its place in the plan: the walk's own form of a [`RunState`], which finds a step without its name.
//!
//! The places are those of the plan's nodes, followed by the instances of its templates as they come to be.

use std::collections::BTreeMap;

use flowline_core::{Timestamp, digest::Digest};
use indexmap::IndexMap;
use serde_json::Value;

use super::{
    Cause, End, How, Phase, RunState, StepState, Why,
    template::{self, Item},
};
use crate::{
    plan::{PlannedNode, StepId},
    step::StepError,
};

/// One step of the walk.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) id: StepId,
    pub(super) node: &'a PlannedNode,
    /// What the policy says about its turn, at hand.
    pub(super) priority: i32,
    pub(super) timed: bool,
    /// What this instance of a template is for, and the template's place.
    pub(super) item: Option<Box<(Item, usize)>>,
    pub(super) step: StepState,
}

/// What became of everything.
#[derive(Debug)]
pub(super) struct Table<'a> {
    places: Vec<Place<'a>>,
    index: IndexMap<StepId, usize>,
    /// The instances of each template that has become some.
    instances: BTreeMap<usize, Vec<usize>>,
    /// What reached steps from outside.
    signals: BTreeMap<usize, Vec<Value>>,
    /// The places in the order in which they were first named.
    named: Vec<usize>,
    finished: u64,
    done: usize,
    plan: Option<Digest>,
    started: Option<Timestamp>,
    undoing: Option<Cause>,
    end: Option<End>,
    /// What is recorded about steps that are not there yet: instances of templates whose items are not known.
    rest: BTreeMap<StepId, (StepState, Vec<Value>)>,
}

impl<'a> Table<'a> {
    /// Where `state` says that the plan of `nodes` stands.
    pub(super) fn new(nodes: &'a [PlannedNode], state: RunState) -> Self {
        let RunState { plan, started, undoing, end, mut steps, finished, mut signals } = state;
        let mut table = Self {
            places: Vec::with_capacity(nodes.len()),
            index: IndexMap::with_capacity(nodes.len()),
            instances: BTreeMap::new(),
            signals: BTreeMap::new(),
            named: Vec::new(),
            finished,
            done: 0,
            plan,
            started,
            undoing,
            end,
            rest: BTreeMap::new(),
        };
        let fresh = steps.is_empty() && signals.is_empty();
        for node in nodes {
            let mut place = Place::new(node.id().clone(), node);
            let at = table.places.len();
            if !fresh {
                if let Some(heard) = signals.remove(node.id()) {
                    table.signals.insert(at, heard);
                }
                // Taken out without moving the others, whose order is kept below.
                if let Some(step) = steps.get_mut(node.id()) {
                    place.step = std::mem::take(step);
                }
            }
            table.done += usize::from(place.is_done());
            table.index.insert(place.id.clone(), at);
            table.places.push(place);
        }
        if !fresh {
            for (id, step) in steps {
                if let Some(at) = table.index.get(&id) {
                    table.named.push(*at);
                } else {
                    let heard = signals.remove(&id).unwrap_or_default();
                    table.rest.insert(id, (step, heard));
                }
            }
            for at in 0..nodes.len() {
                if table.template_is_due(at) {
                    // What can't be expanded fails when it is begun, with its reason.
                    table.expand(at).ok();
                }
            }
        }
        table
    }

    /// The same for those who tell others.
    pub(super) fn into_state(self) -> RunState {
        let Self {
            places,
            index: _,
            instances: _,
            signals: heard,
            named,
            finished,
            done: _,
            plan,
            started,
            undoing,
            end,
            rest,
        } = self;
        let heard = heard.into_iter().map(|(at, heard)| (places[at].id.clone(), heard));
        let mut signals: BTreeMap<_, _> = heard.collect();
        let mut slots: Vec<Option<(StepId, StepState)>> = Vec::with_capacity(places.len());
        for place in places {
            slots.push(Some((place.id, place.step)));
        }
        let mut steps = IndexMap::with_capacity(named.len());
        steps.extend(named.into_iter().filter_map(|at| slots.get_mut(at)?.take()));
        for (id, (step, heard)) in rest {
            if !heard.is_empty() {
                signals.insert(id.clone(), heard);
            }
            if step != StepState::default() {
                steps.insert(id, step);
            }
        }
        RunState { plan, started, undoing, end, steps, finished, signals }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn at(&self, at: usize) -> &Place<'a> {
        &self.places[at]
    }

    pub(super) fn node(&self, at: usize) -> &'a PlannedNode {
        self.places[at].node
    }

    pub(super) fn id(&self, at: usize) -> &StepId {
        &self.places[at].id
    }

    pub(super) fn place(&self, id: &StepId) -> Option<usize> {
        self.index.get(id).copied()
    }

    pub(super) fn signals(&self, at: usize) -> &[Value] {
        self.signals.get(&at).map_or(&[], Vec::as_slice)
    }

    pub(super) fn all_done(&self) -> bool {
        self.done == self.places.len()
    }

    pub(super) fn is_done(&self, at: usize) -> bool {
        self.places[at].is_done()
    }

    /// When the run started.
    pub(super) fn started(&self) -> Option<Timestamp> {
        self.started
    }

    pub(super) fn undoing(&self) -> Option<&Cause> {
        self.undoing.as_ref()
    }

    /// The output of the step called `id`, if it is done.
    pub(super) fn output(&self, id: &StepId) -> Option<&Value> {
        self.places[self.place(id)?].output()
    }

    pub(super) fn start(&mut self, at: usize, attempt: u32) {
        self.touch(at).start(attempt);
    }

    pub(super) fn finish(&mut self, at: usize, done: Done, finished: Timestamp) {
        let Done { attempt, started, how, output, why } = done;
        self.finished += 1;
        self.done += usize::from(!self.places[at].is_done());
        let place = self.finished;
        let step = self.touch(at);
        step.count(attempt);
        step.phase = Phase::Finished { output, place, how, why, started, finished };
    }

    pub(super) fn fail(&mut self, at: usize, attempt: Option<u32>, error: String, again: bool) {
        self.touch(at).fail(attempt, error, again);
    }

    /// It waits for something from outside. Of `attempt` nothing remains if its start was not recorded.
    pub(super) fn wait_outside(&mut self, at: usize, attempt: u32, recorded: bool, now: Timestamp) {
        let step = self.touch(at);
        if !recorded {
            step.tries = step.tries.saturating_sub(u32::from(step.attempts >= attempt));
            step.attempts = step.attempts.min(attempt.saturating_sub(1));
        }
        step.wait_outside(if recorded { attempt } else { 0 }, now);
    }

    /// It is as if it had not been started.
    pub(super) fn wait(&mut self, at: usize) {
        self.touch(at).phase = Phase::Waiting;
    }

    pub(super) fn undo(&mut self, cause: Cause) {
        self.undoing = Some(cause);
        self.end = None;
    }

    pub(super) fn undone(&mut self, at: usize) {
        self.touch(at).phase = Phase::Undone;
    }

    pub(super) fn undo_failed(&mut self, at: usize, attempt: u32, error: String) {
        self.touch(at).undo_failed(attempt, error);
    }

    /// Whether a step could not be undone.
    pub(super) fn undo_failed_somewhere(&self) -> bool {
        self.places.iter().any(|place| matches!(place.step.phase, Phase::UndoFailed { .. }))
    }

    pub(super) fn end_as(&mut self, end: End) {
        self.end = Some(end);
    }

    /// The instances of the template at `at`, once its items are known.
    pub(super) fn instances(&self, at: usize) -> Option<&[usize]> {
        self.instances.get(&at).map(Vec::as_slice)
    }

    /// Makes the instances of the template at `at`, one for each item; does nothing if they are there.
    ///
    /// # Errors
    /// If the items are none, too many, or no names.
    pub(super) fn expand(&mut self, at: usize) -> Result<(), StepError> {
        let Some(each) = self.node(at).node.each.as_ref().filter(|_| !self.instances.contains_key(&at))
        else {
            return Ok(());
        };
        let items = template::items(each, self.output(&each.over.step))?;
        let mut instances = Vec::with_capacity(items.len());
        for item in items {
            let id = template::instance(self.id(at), &item)?;
            if let Some(taken) = self.place(&id) {
                let problem = format!("its instance `{}` has the id of another step", self.id(taken));
                return Err(StepError::new(flowline_core::error::ErrorKind::Invalid, problem));
            }
            instances.push((id, item));
        }
        let node = self.node(at);
        let mut added = Vec::with_capacity(instances.len());
        for (id, item) in instances {
            let known = self.rest.remove(&id);
            let (step, signals) = known.unwrap_or_default();
            let place = Place { item: Some(Box::new((item, at))), step, ..Place::new(id.clone(), node) };
            let index = self.places.len();
            if !signals.is_empty() {
                self.signals.insert(index, signals);
            }
            if place.step != StepState::default() {
                self.named.push(index);
            }
            self.done += usize::from(place.is_done());
            self.index.insert(id, index);
            self.places.push(place);
            added.push(index);
        }
        self.instances.insert(at, added);
        Ok(())
    }

    fn template_is_due(&self, at: usize) -> bool {
        let each = self.node(at).node.each.as_ref();
        each.is_some_and(|each| self.output(&each.over.step).is_some())
            && !matches!(self.places[at].step.phase, Phase::Finished { how: How::Skipped, .. })
    }

    fn touch(&mut self, at: usize) -> &mut StepState {
        let place = &mut self.places[at];
        if place.step == StepState::default() {
            self.named.push(at);
        }
        &mut place.step
    }
}

impl<'a> Place<'a> {
    fn new(id: StepId, node: &'a PlannedNode) -> Self {
        let policy = &node.node.policy;
        let (priority, timed) = (policy.priority, !policy.limits.is_none());
        Self { id, node, priority, timed, item: None, step: StepState::default() }
    }

    fn is_done(&self) -> bool {
        matches!(self.step.phase, Phase::Finished { .. })
    }

    pub(super) fn output(&self) -> Option<&Value> {
        match &self.step.phase {
            Phase::Finished { output, .. } => Some(output),
            _ => None,
        }
    }
}

/// How a step came to be done, and with what.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) attempt: u32,
    pub(super) started: Timestamp,
    pub(super) how: How,
    pub(super) output: Value,
    pub(super) why: Why,
}
