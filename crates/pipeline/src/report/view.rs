//! A run as it is looked at afterwards: plan, journal and logs put together, step by step.

use std::sync::Arc;

use flowline_core::{
    Timestamp,
    error::{BoxError, ErrorKind, Kinded},
    event::Recorded,
    id::RunId,
    journal::{Journal, JournalError},
    store::{Store, StoreError, StoreExt},
};
use indexmap::IndexMap;
use serde_json::Value;

use super::logs::{LogError, Logs, StepLog};
use crate::{
    plan::{OpenError, Plan, PlannedNode, Sealed, StepId},
    run::{
        Cause, End, How, Phase, RunState,
        record::{
            Names, RunEnded, RunStarted, StepFailed, StepFinished, StepResolved, StepSignalled, StepStarted,
            StepUndoFailed, StepUndone, UndoBegun,
        },
    },
};

/// A run, whole, as it stands in a store.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RunView {
    /// Its id.
    pub run: RunId,
    /// Its plan.
    pub plan: Sealed<Plan>,
    /// What became of it.
    pub state: RunState,
    /// Who started it.
    pub actor: String,
    /// When it was started.
    pub started: Timestamp,
    /// The time of its newest event: its end, if it has ended.
    pub last: Timestamp,
    /// Since when and why it is undone, if it is.
    pub undoing: Option<(Timestamp, Cause)>,
    /// Its steps, in the plan's order.
    pub steps: Vec<StepView>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every step is done.
    Succeeded,
    /// What can be undone is undone.
    Undone,
    /// Some steps could not be undone; resuming tries them again.
    UndoIncomplete,
    /// It is not at its end: it runs, waits, stopped, or its process was killed. Resuming goes on.
    Unfinished,
}

impl Outcome {
    /// One word or two.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Undone => "undone",
            Self::UndoIncomplete => "undone in part",
            Self::Unfinished => "unfinished",
        }
    }
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StepView {
    /// What was planned.
    pub planned: PlannedNode,
    /// Where it stands.
    pub phase: Phase,
    /// Its attempts, in order.
    pub attempts: Vec<Attempt>,
    /// Why it was not run, if it was not needed.
    pub skipped: Option<String>,
    /// When it was undone, if it was.
    pub undone: Option<Timestamp>,
    /// What came from outside, and when.
    pub signals: Vec<(Timestamp, Value)>,
    /// What is kept of its output.
    pub log: StepLog,
}

/// One attempt at a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its number, from 1.
    pub number: u32,
    /// When it started; of a failed attempt at a step that leaves no record of its start, unknown.
    pub started: Option<Timestamp>,
    /// When it ended; `None` if it runs, or was cut by a crash.
    pub ended: Option<Timestamp>,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// How it came to be done, if it is.
    pub how: Option<How>,
}

/// Why a run can't be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such run.
    #[error("there is no run `{0}`; `history` lists those that there are")]
    NoRun(RunId),
    /// Its plan can't be read back.
    #[error("the plan of run `{run}` cannot be read back")]
    Plan {
        /// The run.
        run: RunId,
        /// Why.
        source: OpenError,
    },
    /// Its events can't be read.
    #[error("the events of a run cannot be read")]
    Journal(#[from] JournalError),
    /// The store failed.
    #[error("a run cannot be read")]
    Store(#[from] StoreError),
    /// Its logs can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its records can't be named.
    #[error("the records of a run cannot be named")]
    Name(#[source] BoxError),
}

impl Kinded for ReadError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRun(_) => ErrorKind::NotFound,
            Self::Plan { source, .. } => source.kind(),
            Self::Journal(source) => source.kind(),
            Self::Store(source) => source.kind(),
            Self::Log(source) => source.kind(),
            Self::Name(_) => ErrorKind::Invalid,
        }
    }
}

impl RunView {
    /// Reads `run` from `store`, with what `logs` keep of it.
    ///
    /// # Errors
    /// [`ReadError::NoRun`] if it was never started; damaged records; the store's and the file system's.
    pub async fn read(store: &Arc<dyn Store>, logs: Option<&Logs>, run: &RunId) -> Result<Self, ReadError> {
        let names = Names::of(run, "flowline").map_err(|error| ReadError::Name(error.into()))?;
        let stored = store.get::<Value>(&names.plan).await?;
        let (_, value) = stored.ok_or_else(|| ReadError::NoRun(run.clone()))?;
        let plan =
            Sealed::open_value(&value).map_err(|source| ReadError::Plan { run: run.clone(), source })?;
        let events = Journal::new(Arc::clone(store)).read(&names.stream).await?;
        let mut view = Self::of(run.clone(), plan, &events)?;
        if let Some(logs) = logs {
            for step in &mut view.steps {
                step.log = logs.read(run, step.planned.id())?;
            }
        }
        Ok(view)
    }

    /// The run that `events`, those of its stream in order, tell of, without logs. Pure. Events of kinds that this version doesn't know
    /// are passed over.
    ///
    /// # Errors
    /// If an event of a known kind has another shape.
    pub fn of(run: RunId, plan: Sealed<Plan>, events: &[Recorded]) -> Result<Self, JournalError> {
        let mut state = RunState::default();
        let mut steps: IndexMap<StepId, StepView> = plan
            .plan()
            .nodes()
            .iter()
            .map(|node| (node.id().clone(), StepView::planned(node.clone())))
            .collect();
        let first = events.first().map(|recorded| &recorded.event);
        let (mut actor, mut started) =
            (String::new(), first.map_or(Timestamp::UNIX_EPOCH, |event| event.time));
        let mut last = started;
        let mut undoing = None;
        for recorded in events {
            state.apply(recorded)?;
            let event = &recorded.event;
            last = last.max(event.time);
            if event.fact::<RunStarted>()?.is_some() {
                actor.clone_from(&event.actor);
                started = event.time;
            } else if let Some(fact) = event.fact::<UndoBegun>()? {
                undoing.get_or_insert((event.time, fact.cause));
            } else if event.fact::<RunEnded>()?.is_none() {
                note(&mut steps, recorded)?;
            }
        }
        let mut steps: Vec<StepView> = steps.into_values().collect();
        for step in &mut steps {
            step.phase = state.step(step.planned.id()).map(|found| found.phase.clone()).unwrap_or_default();
        }
        Ok(Self { run, plan, state, actor, started, last, undoing, steps })
    }

    /// How it stands.
    pub fn outcome(&self) -> Outcome {
        match self.state.end() {
            Some(End::Succeeded) => Outcome::Succeeded,
            Some(End::Undone) => Outcome::Undone,
            None if !self.state.undo_failures().is_empty() => Outcome::UndoIncomplete,
            None => Outcome::Unfinished,
        }
    }
}

impl StepView {
    fn planned(planned: PlannedNode) -> Self {
        Self {
            planned,
            phase: Phase::Waiting,
            attempts: Vec::new(),
            skipped: None,
            undone: None,
            signals: Vec::new(),
            log: StepLog::default(),
        }
    }

    fn attempt(&mut self, number: u32) -> &mut Attempt {
        let at = self.attempts.iter().position(|attempt| attempt.number == number).unwrap_or_else(|| {
            self.attempts.push(Attempt { number, started: None, ended: None, error: None, how: None });
            self.attempts.len() - 1
        });
        &mut self.attempts[at]
    }
}

/// The step called `id`: one of the plan's, or an instance of one of its templates, which it stands beside. A step that the plan does
/// not know at all is nobody's.
fn at<'a>(steps: &'a mut IndexMap<StepId, StepView>, id: &StepId) -> Option<&'a mut StepView> {
    if !steps.contains_key(id) {
        let of = |known: &&StepId| {
            id.as_str().strip_prefix(known.as_str()).is_some_and(|rest| rest.starts_with('/'))
        };
        let template = steps.keys().filter(of).max_by_key(|known| known.as_str().len())?.clone();
        let mut planned = steps.get(&template)?.planned.clone();
        planned.node.id = id.clone();
        steps.insert(id.clone(), StepView::planned(planned));
    }
    steps.get_mut(id)
}

/// Adds what an event says about a step. A step that the plan doesn't have is passed over.
fn note(steps: &mut IndexMap<StepId, StepView>, recorded: &Recorded) -> Result<(), JournalError> {
    let (event, time) = (&recorded.event, recorded.event.time);
    if let Some(fact) = event.fact::<StepFinished>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        if fact.why.is_skip() || matches!(fact.how, How::Skipped | How::Cached) {
            step.skipped = Some(fact.why.to_string());
            return Ok(());
        }
        let attempt = step.attempt(fact.attempt);
        attempt.started = Some(fact.started);
        attempt.ended = Some(time);
        attempt.how = Some(fact.how);
    } else if let Some(fact) = event.fact::<StepStarted>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        step.attempt(fact.attempt).started = Some(time);
    } else if let Some(fact) = event.fact::<StepFailed>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        let attempt = step.attempt(fact.attempt);
        attempt.ended = Some(time);
        attempt.error = Some(fact.error);
    } else if let Some(fact) = event.fact::<StepResolved>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        step.signals.push((time, serde_json::json!({ "resolved": fact.happened })));
    } else if let Some(fact) = event.fact::<StepSignalled>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        step.signals.push((time, fact.signal));
    } else if let Some(fact) = event.fact::<StepUndone>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        step.undone = Some(time);
    } else if let Some(fact) = event.fact::<StepUndoFailed>()? {
        let Some(step) = at(steps, &fact.step) else { return Ok(()) };
        step.undone = None;
    }
    Ok(())
}
