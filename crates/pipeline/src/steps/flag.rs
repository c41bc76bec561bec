//! Changing a flag as a step of a deployment: releasing a feature after what it needs was deployed, and taking that back together.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use flowline_core::{
    error::{ErrorKind, Kinded},
    id::{ResourceId, ScopeId},
};
use flowline_toggles::{
    flags::{Author, FlagChanged, Flags, Place, Subject},
    format::flowline::{FlagKey, State},
};
use serde::{Deserialize, Serialize};

use crate::step::{
    Action, Context, Effect, Fingerprint, Observed, Preview, PreviewContext, Spec, Step, StepError, Undo,
};

/// What is to be said of a flag in a scope.
///
/// *Effect*: idempotent: the change is recorded in the flag's history with the run's key in its reason, and one that is recorded is not made
/// again, also if somebody else changed the flag since.
///
/// *Undo*: what was said before is said again, if nobody changed the flag in that scope since; otherwise it is refused (`Conflict`) and a
/// person decides. A kill switch that somebody pulled is thus never taken back by a rollback.
///
/// *Touches* `flag:SCOPE/FLAG`, so `flag:production/*` grants all flags of production.
///
/// *Errors by kind*: `NotFound` (no such flag), `Conflict`, those of the store.
///
/// ```
/// use flowline_pipeline::{Pipeline, steps::ChangeFlag};
/// use flowline_toggles::format::flowline::{Percent, State};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut pipeline = Pipeline::new("release", "storefront".parse()?);
/// let released = ChangeFlag::new("production".parse()?, "checkout".parse()?, State::rollout(Percent::ALL)).because("it held for a day");
/// let released = pipeline.step("release", released);
/// # let _ = released; Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeFlag {
    /// Where.
    pub scope: ScopeId,
    /// Which.
    pub flag: FlagKey,
    /// What is said from then on, in place of everything that was said there.
    pub state: State,
    /// Why, for the flag's history.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
}

impl ChangeFlag {
    /// `state` for `flag` in `scope`.
    pub fn new(scope: ScopeId, flag: FlagKey, state: State) -> Self {
        Self { scope, flag, state, because: String::new() }
    }

    /// The same with a reason for the flag's history.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.because = reason.into();
        self
    }
}

/// What is said of the flag after a [`ChangeFlag`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlagState {
    /// What the step said.
    pub state: State,
}

impl Spec for ChangeFlag {
    const KIND: &'static str = "flag/change";
    type Input = ();
    type Output = FlagState;
}

/// The code of [`ChangeFlag`].
#[derive(Debug, Clone)]
pub struct ChangeFlagStep {
    flags: Flags,
}

impl ChangeFlagStep {
    /// Changes flags of `flags`.
    pub fn new(flags: Flags) -> Self {
        Self { flags }
    }

    /// The change that this step of this run made, and whether it was taken back.
    async fn made(&self, spec: &ChangeFlag, key: &str) -> Result<Option<(FlagChanged, bool)>, StepError> {
        let subject = Subject::State(Place::from(&spec.scope));
        let history = self.flags.history(&spec.flag).await.map_err(StepError::of)?;
        let of = |reason: &str| {
            let mut changes = history.iter().filter(|(_, change)| change.subject == subject);
            changes.find(|(_, change)| change.reason == reason).map(|(_, change)| change.clone())
        };
        let undone = of(&undoing(key)).is_some();
        Ok(of(&reason(spec, key)).map(|made| (made, undone)))
    }
}

fn reason(spec: &ChangeFlag, key: &str) -> String {
    if spec.because.is_empty() { format!("step {key}") } else { format!("{} (step {key})", spec.because) }
}

fn undoing(key: &str) -> String {
    format!("step {key} is undone")
}

fn touched(spec: &ChangeFlag) -> Result<ResourceId, StepError> {
    ResourceId::of("flag", format!("{}/{}", spec.scope, spec.flag)).map_err(|error| {
        StepError::new(ErrorKind::Invalid, format!("flag `{}` cannot be granted", spec.flag)).because(error)
    })
}

/// What differs, one line each.
fn details(before: &State, after: &State) -> Vec<String> {
    let text = |state: &State| -> [(&str, String); 4] {
        let or = |text: Option<String>| text.unwrap_or_else(|| "inherited".to_owned());
        let serve = state.serve.as_ref().and_then(|serve| serde_json::to_string(serve).ok());
        [
            ("on", or(state.on.map(|on| on.to_string()))),
            ("rollout", or(state.rollout.map(|percent| percent.to_string()))),
            ("serve", or(serve)),
            ("killed", state.killed.to_string()),
        ]
    };
    let pairs = text(before).into_iter().zip(text(after)).filter(|(before, after)| before != after);
    pairs.map(|((what, before), (_, after))| format!("{what}: {before} -> {after}")).collect()
}

#[async_trait]
impl Step for ChangeFlagStep {
    type Spec = ChangeFlag;

    fn effect(&self, _: &ChangeFlag) -> Effect {
        Effect::idempotent()
    }

    fn undoing(&self, _: &ChangeFlag) -> Undo {
        Undo::Compensate
    }

    fn touches(&self, spec: &ChangeFlag) -> Vec<ResourceId> {
        touched(spec).into_iter().collect()
    }

    async fn preview(&self, spec: &ChangeFlag, _: &PreviewContext) -> Result<Preview, StepError> {
        let resource = touched(spec)?;
        self.flags.refresh().await.map_err(StepError::of)?;
        let known = self.flags.definition(&spec.flag).is_some();
        let found = self.flags.said(&spec.scope, &spec.flag);
        let json =
            |error: serde_json::Error| StepError::failed("a flag cannot be written as JSON").because(error);
        let fingerprint = Fingerprint::of(&found).map_err(json)?;
        let details = if known {
            details(&found, &spec.state)
        } else {
            vec![format!("there is no flag `{}` yet; it must be defined before", spec.flag)]
        };
        let action = if known && found == spec.state { Action::Keep } else { Action::Update };
        let summary = format!("changes flag `{}` in `{}`", spec.flag, spec.scope);
        let preview = Preview::of(summary, vec![Observed { resource, action, fingerprint, details }]);
        if action == Action::Keep {
            return Ok(preview.knowing(serde_json::to_value(FlagState { state: found }).map_err(json)?));
        }
        Ok(preview)
    }

    async fn run(&self, spec: &ChangeFlag, (): (), context: &Context) -> Result<FlagState, StepError> {
        context.granted(&touched(spec)?)?;
        let done = FlagState { state: spec.state.clone() };
        if self.made(spec, &context.key()).await?.is_some() {
            return Ok(done);
        }
        self.flags.refresh().await.map_err(StepError::of)?;
        let by = Author::new("flowline", reason(spec, &context.key()));
        let set = self.flags.set(&spec.scope, &spec.flag, &by, |state| state.clone_from(&spec.state));
        set.await.map_err(StepError::of)?;
        Ok(done)
    }

    async fn undo(
        &self,
        spec: &ChangeFlag,
        _: Option<FlagState>,
        context: &Context,
    ) -> Result<(), StepError> {
        context.granted(&touched(spec)?)?;
        // Without a change of its own it found the flag as it should be.
        let Some((made, false)) = self.made(spec, &context.key()).await? else { return Ok(()) };
        let state = |json: Option<serde_json::Value>| match json {
            Some(json) => State::deserialize(json).map_err(|error| {
                StepError::new(ErrorKind::Corrupt, "a change of a flag cannot be read back").because(error)
            }),
            None => Ok(State::default()),
        };
        let (before, after) = (state(made.before)?, state(made.after)?);
        let moved = Arc::new(Mutex::new(false));
        let by = Author::new("flowline", undoing(&context.key()));
        let note = Arc::clone(&moved);
        // The flag is looked at in the same commit that changes it.
        let set = self.flags.set(&spec.scope, &spec.flag, &by, move |state| {
            let is_ours = *state == after || *state == before;
            *note.lock().unwrap_or_else(PoisonError::into_inner) = !is_ours;
            if is_ours {
                state.clone_from(&before);
            }
        });
        match set.await {
            Ok(()) => {}
            // A flag that was removed since has no state to restore.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StepError::of(error)),
        }
        if *moved.lock().unwrap_or_else(PoisonError::into_inner) {
            let said = format!(
                "flag `{}` was changed in `{}` again since; look at its history and set it as it should be",
                spec.flag, spec.scope
            );
            return Err(StepError::new(ErrorKind::Conflict, said));
        }
        Ok(())
    }
}
