//! Starts, changes and advances releases: each change is one commit that says what must not have changed meanwhile.

use std::{collections::BTreeMap, convert::Infallible};

use flowline_core::{
    Timestamp,
    error::chain,
    event::Event,
    id::EventId,
    store::{Batch, EventQuery, Revision, StoreError, StoreExt},
    verdict::Verdict,
};

use super::{Happened, Release, ReleaseChanged, ReleaseError, Releases, record};
use crate::{
    flags::{
        Author, FlagChanged, FlagsError, Place, Subject, TRIES,
        change::json,
        record::{event_id, stream},
    },
    format::flowline::{FlagKey, Percent, State},
    life::release::{Because, Fallout, Halt, Next, Progress, Question, Sight, Steps, decide},
    source::race::race,
};

/// What [`Releases::advance`] did.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Advanced {
    /// What happened, in order.
    pub happened: Vec<(Place, FlagKey, Happened)>,
    /// When something is due next; `None`: nothing will be by itself.
    pub next_wake: Option<Timestamp>,
    /// What a judge could not say, and why, and releases that could not be driven. It is tried again.
    pub troubles: Vec<String>,
}

/// A release and its flag's state as the store has them.
struct Found {
    release: Option<Release>,
    release_revision: Revision,
    state: State,
    state_revision: Revision,
}

/// What a change makes of them.
struct Change<'a> {
    happened: Happened,
    release: Option<Release>,
    state: State,
    verdict: Option<Verdict>,
    by: &'a Author,
    /// The release's fact and the state's fact that this takes back.
    undoes: (Option<EventId>, Option<EventId>),
}

impl<'a> Change<'a> {
    fn new(happened: Happened, release: Option<Release>, state: State, by: &'a Author) -> Self {
        Self { happened, release, state, verdict: None, by, undoes: (None, None) }
    }
}

impl Releases {
    /// Starts a release of `flag` at `place`. What is due at once is done before this returns.
    ///
    /// # Errors
    /// [`ReleaseError::Underway`], [`ReleaseError::Steps`] if its end is past or not after its start, [`FlagsError::Unknown`], and those of
    /// the store.
    pub async fn start(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        steps: Steps,
        by: &Author,
    ) -> Result<(), ReleaseError> {
        let place = place.into();
        self.flags.known(flag)?;
        steps.ends_after(self.now())?;
        self.edit(&place, flag, |found| {
            if let Some(release) = &found.release {
                let (flag, place, by) = (flag.clone(), place.clone(), release.by.clone());
                return Err(ReleaseError::Underway { flag, place, by });
            }
            let release = Release {
                steps: steps.clone(),
                progress: Progress::default(),
                before: found.state.clone(),
                by: by.actor.clone(),
                reason: by.reason.clone(),
            };
            Ok(Some(Change::new(Happened::Started, Some(release), found.state.clone(), by)))
        })
        .await?;
        self.advance_one(&place, flag, &mut Advanced::default()).await?;
        Ok(())
    }

    /// Makes the release stand still. The time that its step was held until now counts later. Doing it again does nothing.
    ///
    /// # Errors
    /// [`ReleaseError::None`], and those of the store.
    pub async fn pause(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<(), ReleaseError> {
        let (place, now) = (place.into(), self.now());
        self.edit(&place, flag, |found| {
            let mut release = underway(found, &place, flag)?;
            if release.progress.paused.is_some() {
                return Ok(None);
            }
            release.progress.pause(now, Halt::Asked);
            Ok(Some(Change::new(Happened::Paused(Halt::Asked), Some(release), found.state.clone(), by)))
        })
        .await
    }

    /// Lets the release go on. If somebody lowered the rollout by hand, that is the end of it: its step's share is given again. Doing it to
    /// one that does not stand still does nothing.
    ///
    /// # Errors
    /// [`ReleaseError::None`], [`ReleaseError::Killed`], and those of the store.
    pub async fn resume(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<(), ReleaseError> {
        let (place, now) = (place.into(), self.now());
        self.flags.refresh().await?;
        self.edit(&place, flag, |found| {
            let mut release = underway(found, &place, flag)?;
            let sight = self.sight(&place, flag, &found.state, now);
            if sight.killed {
                return Err(ReleaseError::Killed { flag: flag.clone(), place: place.clone() });
            }
            if release.progress.paused.is_none() {
                return Ok(None);
            }
            release.progress.resume(now);
            let step = release.progress.at.and_then(|(step, _)| release.steps.steps().get(step));
            let state = match step {
                Some(step) => raised(&found.state, step.percent.max(sight.share())),
                None => found.state.clone(),
            };
            Ok(Some(Change::new(Happened::Resumed, Some(release), state, by)))
        })
        .await
    }

    /// Gives the release up; `fallout` says what becomes of those who have it.
    ///
    /// # Errors
    /// [`ReleaseError::None`], and those of the store.
    pub async fn abort(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        fallout: Fallout,
        by: &Author,
    ) -> Result<(), ReleaseError> {
        let place = place.into();
        self.edit(&place, flag, |found| {
            let release = underway(found, &place, flag)?;
            let state = after(fallout, &found.state, &release.before);
            let happened = Happened::Stopped { because: Because::Aborted, fallout };
            Ok(Some(Change::new(happened, None, state, by)))
        })
        .await
    }

    /// Takes back the last thing that a release did to `flag` at `place` (its start, a step, its stop or its end) and that was not taken
    /// back yet. The release stands still then, until somebody resumes it. `false` if there is nothing to take back.
    ///
    /// # Errors
    /// [`ReleaseError::Moved`] if the release or the flag's state is not as it was left, and those of the store.
    pub async fn undo(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
        by: &Author,
    ) -> Result<bool, ReleaseError> {
        let (place, now) = (place.into(), self.now());
        self.flags.known(flag)?;
        let facts = self.facts(flag).await?;
        let undone: Vec<&EventId> = facts.iter().filter_map(|(_, fact, _)| fact.undoes.as_ref()).collect();
        let counts = |happened: Happened| {
            !matches!(happened, Happened::Paused(_) | Happened::Resumed | Happened::Undone)
        };
        let last = facts
            .iter()
            .rfind(|(id, fact, _)| fact.place == place && counts(fact.happened) && !undone.contains(&id));
        let Some((id, fact, state)) = last else { return Ok(false) };
        self.edit(&place, flag, |found| {
            let moved = || ReleaseError::Moved { flag: flag.clone(), event: id.clone() };
            let same = |one: &Release, other: &Release| {
                one.progress.at == other.progress.at && one.steps == other.steps
            };
            let unmoved = match (&found.release, &fact.after) {
                (Some(found), Some(left)) => same(found, left),
                (None, None) => true,
                _ => false,
            };
            let (before, state_fact) = match state {
                Some((id, change)) => {
                    let read = |json: &Option<serde_json::Value>| match json {
                        Some(json) => serde_json::from_value::<State>(json.clone()).map_err(|_| moved()),
                        None => Ok(State::default()),
                    };
                    if read(&change.after)? != found.state {
                        return Err(moved());
                    }
                    (read(&change.before)?, Some(id.clone()))
                }
                None => (found.state.clone(), None),
            };
            if !unmoved {
                return Err(moved());
            }
            let mut release = fact.before.clone();
            if let Some(release) = &mut release {
                release.progress.pause(now, Halt::Undone);
            }
            let change = Change::new(Happened::Undone, release, before, by);
            Ok(Some(Change { undoes: (Some(id.clone()), state_fact), ..change }))
        })
        .await?;
        Ok(true)
    }

    /// All releases that are under way, by place and flag; of one that can't be read, [`advance`](Self::advance) tells.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(&self) -> Result<BTreeMap<(Place, FlagKey), Release>, ReleaseError> {
        let mut releases = BTreeMap::new();
        for (key, document) in self.flags.shared.store.list(&record::all()).await? {
            if let (Some(named), Ok(release)) = (record::named(&key), document.decode(&key)) {
                releases.insert(named, release);
            }
        }
        Ok(releases)
    }

    /// The release of `flag` at `place`, if one is under way.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get(
        &self,
        place: impl Into<Place>,
        flag: &FlagKey,
    ) -> Result<Option<Release>, ReleaseError> {
        Ok(self.find(&place.into(), flag).await?.release)
    }

    /// What happened to releases of `flag`, oldest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn history(&self, flag: &FlagKey) -> Result<Vec<ReleaseChanged>, ReleaseError> {
        Ok(self.facts(flag).await?.into_iter().map(|(_, fact, _)| fact).collect())
    }

    /// Does everything that is due now, of all releases. One that can't be read, or that others change all the time, does not keep the
    /// others from it: that is told in [`Advanced::troubles`].
    ///
    /// # Errors
    /// The first of those of the store; what was done stays done. Call it again.
    pub async fn advance(&self) -> Result<Advanced, ReleaseError> {
        self.flags.refresh().await?;
        let mut advanced = Advanced::default();
        let mut failed = None;
        for (key, _) in self.flags.shared.store.list(&record::all()).await? {
            let Some((place, flag)) = record::named(&key) else { continue };
            match self.advance_one(&place, &flag, &mut advanced).await {
                // Of the latter, the scope is about to go, and the release with it.
                Ok(()) | Err(ReleaseError::Flags(FlagsError::Closed { .. })) => {}
                Err(error) if concerns_one(&error) => {
                    let trouble =
                        format!("cannot drive the release of flag `{flag}` {}", super::shown(&place));
                    advanced.troubles.push(format!("{trouble}: {}", chain(&error)));
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        failed.map_or(Ok(advanced), Err)
    }

    /// Drives all releases, for ever: when their time comes, and when anything in the store changes. Run it beside the program's work; drop
    /// it to stop. It also keeps the flags up to date, as [`Flags::follow`](super::super::Flags::follow) does, and tells their clients as
    /// that does when it fails.
    ///
    /// # Errors
    /// Those of the store, as soon as one occurs. Call it again to go on.
    pub async fn run(&self) -> Result<Infallible, ReleaseError> {
        let Err(error) = self.run_until_it_fails().await;
        self.flags.lost(&error);
        Err(error)
    }

    async fn run_until_it_fails(&self) -> Result<Infallible, ReleaseError> {
        let shared = &self.flags.shared;
        loop {
            let position = shared.store.head().await?;
            let advanced = self.advance().await?;
            let wake = advanced.next_wake.unwrap_or(Timestamp::MAX);
            let _either = race(shared.clock.sleep_until(wake), shared.store.changed(position)).await;
        }
    }

    fn now(&self) -> Timestamp {
        self.flags.shared.clock.now()
    }

    async fn advance_one(
        &self,
        place: &Place,
        flag: &FlagKey,
        advanced: &mut Advanced,
    ) -> Result<(), ReleaseError> {
        // Each round reaches a step or ends; rounds that others spoiled come on top.
        let mut rounds = TRIES;
        while rounds > 0 {
            rounds -= 1;
            let now = self.now();
            let found = self.find(place, flag).await?;
            let Some(release) = &found.release else { return Ok(()) };
            let store = &self.flags.shared.store;
            let defined = Subject::Definition.key(flag)?;
            if store.read(&defined).await?.is_none() {
                let key = record::key(place, flag)?;
                let Some(document) = store.read(&key).await? else { return Ok(()) };
                let by = Author::new("flowline", "its flag is not defined");
                let (over, gone) = ((Because::Removed, Fallout::Withdraw), Revision::ABSENT);
                let batch = Batch::new().expect(defined, gone);
                let batch = self.flags.release_over(batch, place, flag, &key, &document, over, &by).await?;
                if self.flags.commit(Vec::new(), batch, &by).await? {
                    return Ok(());
                }
                continue;
            }
            let mut sight = self.sight(place, flag, &found.state, now);
            let verdict = self.ask(place, flag, release, &sight, advanced).await;
            sight.verdict = verdict.as_ref().map(|verdict| verdict.outcome);
            let next = decide(&release.steps, &release.progress, &sight);
            let mut after_it = release.clone();
            let (happened, release_after, state) = match next {
                Next::Wait { until } => {
                    advanced.next_wake = [advanced.next_wake, until].into_iter().flatten().min();
                    return Ok(());
                }
                Next::Raise { step, to } => {
                    after_it.progress.raised(step, now);
                    (Happened::Raised { step, to }, Some(after_it), raised(&found.state, to))
                }
                Next::Halt(halt) => {
                    after_it.progress.pause(now, halt);
                    (Happened::Paused(halt), Some(after_it), found.state.clone())
                }
                Next::Stop { because, fallout } => {
                    // By itself it gives nobody what was taken from them by hand meanwhile.
                    let more = self.share_of(place, flag, &release.before) >= sight.share();
                    let fallout = if fallout == Fallout::Restore && more { Fallout::Keep } else { fallout };
                    let state = after(fallout, &found.state, &release.before);
                    (Happened::Stopped { because, fallout }, None, state)
                }
                Next::Done => (Happened::Done, None, found.state.clone()),
            };
            let by = Author::new(
                "flowline",
                format!("{happened}; released by {}: {}", release.by, release.reason),
            );
            let change = Change { verdict, ..Change::new(happened, release_after, state, &by) };
            if self.write(place, flag, &found, change).await? {
                advanced.happened.push((place.clone(), flag.clone(), happened));
                rounds = TRIES;
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() }.into())
    }

    /// Asks the judge, if the release goes by verdict and has begun.
    async fn ask(
        &self,
        place: &Place,
        flag: &FlagKey,
        release: &Release,
        sight: &Sight,
        advanced: &mut Advanced,
    ) -> Option<Verdict> {
        let judge = self.judge.as_ref().filter(|_| release.steps.is_judged())?;
        let (step, since) = release.progress.at?;
        let question = Question {
            flag: flag.clone(),
            place: place.clone(),
            step,
            percent: sight.share(),
            since,
            now: sight.now,
        };
        match judge.judge(&question).await {
            Ok(verdict) => Some(verdict),
            Err(error) => {
                advanced
                    .troubles
                    .push(format!("cannot judge the release of flag `{flag}`: {}", chain(&*error)));
                None
            }
        }
    }

    /// What is seen of the flag where it is released; what the place says itself is `state`.
    fn sight(&self, place: &Place, flag: &FlagKey, state: &State, now: Timestamp) -> Sight {
        let effective = self.flags.board().effective_at(place, flag);
        Sight {
            now,
            on: state.on.unwrap_or(effective.on),
            rollout: state.rollout.unwrap_or(effective.rollout),
            killed: state.killed || effective.killed,
            verdict: None,
        }
    }

    /// For how many percent the flag would be on there if `said` were what is said, kill switch aside.
    fn share_of(&self, place: &Place, flag: &FlagKey, said: &State) -> Percent {
        let effective = self.flags.board().effective_if(place, flag, place, said);
        if effective.on { effective.rollout } else { Percent::NONE }
    }

    async fn find(&self, place: &Place, flag: &FlagKey) -> Result<Found, ReleaseError> {
        let store = &self.flags.shared.store;
        let release = store.get::<Release>(&record::key(place, flag)?).await?;
        let state = store.get::<State>(&Subject::State(place.clone()).key(flag)?).await?;
        let (release_revision, release) = release.map_or((Revision::ABSENT, None), |(at, it)| (at, Some(it)));
        let (state_revision, state) = state.unwrap_or((Revision::ABSENT, State::default()));
        Ok(Found { release, release_revision, state, state_revision })
    }

    /// Reads, edits, writes; again if somebody else was faster. `edit` says nothing: nothing is written.
    async fn edit<'a>(
        &self,
        place: &Place,
        flag: &FlagKey,
        edit: impl Fn(&Found) -> Result<Option<Change<'a>>, ReleaseError> + Send + Sync,
    ) -> Result<(), ReleaseError> {
        for _ in 0..TRIES {
            let found = self.find(place, flag).await?;
            let Some(change) = edit(&found)? else { return Ok(()) };
            if self.write(place, flag, &found, change).await? {
                return Ok(());
            }
        }
        Err(FlagsError::Contended { flag: flag.clone() }.into())
    }

    /// Commits a change with its facts; `false` if something moved.
    async fn write(
        &self,
        place: &Place,
        flag: &FlagKey,
        found: &Found,
        change: Change<'_>,
    ) -> Result<bool, ReleaseError> {
        let store = &self.flags.shared.store;
        let Change { happened, release, state, verdict, by, undoes } = change;
        let (release_key, subject) = (record::key(place, flag)?, Subject::State(place.clone()));
        let (state_key, stream, head) = (subject.key(flag)?, stream(flag)?, store.head().await?);
        let fact = ReleaseChanged {
            flag: flag.clone(),
            place: place.clone(),
            happened,
            before: found.release.clone(),
            after: release.clone(),
            verdict,
            reason: by.reason.clone(),
            undoes: undoes.0,
        };
        let (now, about) = (self.now(), format!("flag/{flag}"));
        let id = event_id(&stream, &format!("release-{}", place.name()), head)?;
        let event =
            Event::of(&fact, id.clone(), now, by.actor.as_str(), about.as_str()).map_err(FlagsError::from)?;
        let mut batch = self.flags.guarded(Batch::new(), place, &mut false).await?;
        batch = batch
            .expect(release_key.clone(), found.release_revision)
            .expect(state_key.clone(), found.state_revision)
            .append(stream.clone(), event);
        batch = match &release {
            Some(release) => batch.put(release_key.clone(), json(release, &release_key)?),
            None => batch.remove(release_key),
        };
        if state != found.state {
            let shown = |state: &State| (!state.is_empty()).then(|| json(state, &state_key)).transpose();
            let (before, after) = (shown(&found.state)?, shown(&state)?);
            let fact = FlagChanged {
                flag: flag.clone(),
                subject: subject.clone(),
                before,
                after: after.clone(),
                reason: by.reason.clone(),
                undoes: undoes.1,
                group: None,
                closed: false,
            };
            let own = event_id(&stream, &subject.place(), head)?;
            let event = Event::of(&fact, own, now, by.actor.as_str(), about).map_err(FlagsError::from)?;
            batch = batch.append(stream, event.caused_by(id));
            batch = match after {
                Some(after) => batch.put(state_key.clone(), after),
                None => batch.remove(state_key.clone()),
            };
        }
        match store.commit(batch).await {
            Ok(_) => {
                self.flags.reread(&state_key).await?;
                Ok(true)
            }
            Err(StoreError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// All facts about releases of `flag`, each with the change of state that it made.
    #[expect(clippy::type_complexity, reason = "an event's id, its fact, and the same of what it caused")]
    async fn facts(
        &self,
        flag: &FlagKey,
    ) -> Result<Vec<(EventId, ReleaseChanged, Option<(EventId, FlagChanged)>)>, ReleaseError> {
        let mut facts: Vec<(EventId, ReleaseChanged, Option<(EventId, FlagChanged)>)> = Vec::new();
        for recorded in self.flags.shared.store.events(EventQuery::of(stream(flag)?)).await? {
            let event = recorded.event;
            if let Some(fact) = event.fact::<ReleaseChanged>().map_err(FlagsError::from)? {
                facts.push((event.id, fact, None));
            } else if let Some(change) = event.fact::<FlagChanged>().map_err(FlagsError::from)?
                && let Some((id, _, state)) = facts.last_mut()
                && event.cause.as_ref() == Some(id)
            {
                *state = Some((event.id, change));
            }
        }
        Ok(facts)
    }
}

/// Whether it is one release that is in trouble, and not the store.
fn concerns_one(error: &ReleaseError) -> bool {
    match error {
        ReleaseError::Flags(FlagsError::Store(error)) => matches!(error, StoreError::Content { .. }),
        ReleaseError::Flags(_)
        | ReleaseError::Underway { .. }
        | ReleaseError::None { .. }
        | ReleaseError::Killed { .. }
        | ReleaseError::Moved { .. }
        | ReleaseError::Steps(_) => true,
    }
}

fn underway(found: &Found, place: &Place, flag: &FlagKey) -> Result<Release, ReleaseError> {
    found.release.clone().ok_or_else(|| ReleaseError::None { flag: flag.clone(), place: place.clone() })
}

fn raised(state: &State, to: Percent) -> State {
    State { on: Some(true), rollout: Some(to), ..state.clone() }
}

/// What is said at a place after a release was stopped there. Kill switch and variants stay as they are.
fn after(fallout: Fallout, state: &State, before: &State) -> State {
    match fallout {
        Fallout::Restore => State { on: before.on, rollout: before.rollout, ..state.clone() },
        Fallout::Withdraw => State { on: Some(false), ..state.clone() },
        Fallout::Keep => state.clone(),
    }
}
