//! What has to change: [`diff`] compares what is desired with what was observed and answers typed changes, each with its reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    observed::{InstanceState, Observed},
    workload::{InstanceId, Workload},
};

/// What is desired of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The workload.
    pub workload: Workload,
    /// How far it should get.
    pub goal: Goal,
}

impl Desired {
    /// `workload` up to `goal`.
    pub fn new(workload: Workload, goal: Goal) -> Self {
        Self { workload, goal }
    }
}

/// How far a workload should get. Each includes what comes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// It stands ready beside whatever is active. Nobody's traffic reaches it.
    Staged,
    /// It is the active one. Others still stand, so that requests in flight end well.
    Active,
    /// No other runs any more. Former active ones are kept for going back; candidates that never were active are gone.
    Alone,
}

/// One change to what stands under a resource.
///
/// Each may be repeated: applied again after it succeeded, or after a crash in the middle, it ends in the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadChange {
    /// Prepares the workload's instance and waits until it is ready; the active one is not touched. Starts a retired or failed instance again.
    Stage(Workload),
    /// Makes a ready instance the active one, in one atomic step.
    Activate(InstanceId),
    /// Stops an instance that is not active and keeps its files. One that is not there is fine.
    Retire(InstanceId),
    /// Removes an instance that is not active, with its process, files and log: how a candidate is aborted. One that is not there is fine.
    Discard(InstanceId),
}

impl WorkloadChange {
    /// The instance that it is about.
    pub fn instance(&self) -> InstanceId {
        match self {
            Self::Stage(workload) => workload.instance(),
            Self::Activate(id) | Self::Retire(id) | Self::Discard(id) => *id,
        }
    }
}

impl fmt::Display for WorkloadChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Stage(_) => "stage",
            Self::Activate(_) => "activate",
            Self::Retire(_) => "retire",
            Self::Discard(_) => "discard",
        };
        write!(f, "{verb} {}", self.instance())
    }
}

/// A change and why it is needed. Displayed as `stage 4f…: it is not there`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// What to do.
    pub change: WorkloadChange,
    /// Why.
    pub because: Because,
}

impl fmt::Display for PlannedChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.change, self.because)
    }
}

/// Why a change is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Because {
    /// The instance is not there.
    Absent,
    /// The instance is there but does not answer (yet).
    NotReady,
    /// The instance was retired.
    Retired,
    /// The instance's process ended.
    Failed {
        /// How.
        why: String,
    },
    /// Nothing is active.
    NothingActive,
    /// Another instance is active.
    Replaces(InstanceId),
    /// Another instance took its place.
    ReplacedBy(InstanceId),
    /// It is a candidate that nobody wants any more.
    NotWanted,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("it is not there"),
            Self::NotReady => f.write_str("it does not answer"),
            Self::Retired => f.write_str("it was retired"),
            Self::Failed { why } => f.write_str(why),
            Self::NothingActive => f.write_str("nothing is active"),
            Self::Replaces(id) => write!(f, "it replaces {id}"),
            Self::ReplacedBy(id) => write!(f, "{id} took its place"),
            Self::NotWanted => f.write_str("it never became active and nobody wants it"),
        }
    }
}

/// What leads from `observed` to `desired`, in the order in which to do it. Empty if and only if nothing is left to do.
///
/// A failed or silent instance is staged again even if it is the active one: that is how what died comes back.
pub fn diff(desired: &Desired, observed: &Observed) -> Vec<PlannedChange> {
    let id = desired.workload.instance();
    let mut plan = Vec::new();
    let stage = match observed.instance(id).map(|instance| &instance.state) {
        None => Some(Because::Absent),
        Some(InstanceState::Starting) => Some(Because::NotReady),
        Some(InstanceState::Stopped) => Some(Because::Retired),
        Some(InstanceState::Failed { why }) => Some(Because::Failed { why: why.clone() }),
        Some(InstanceState::Ready) => None,
    };
    if let Some(because) = stage {
        plan.push(PlannedChange { change: WorkloadChange::Stage(desired.workload.clone()), because });
    }
    if desired.goal >= Goal::Active && observed.active != Some(id) {
        let because = observed.active.map_or(Because::NothingActive, Because::Replaces);
        plan.push(PlannedChange { change: WorkloadChange::Activate(id), because });
    }
    if desired.goal >= Goal::Alone {
        let others = observed.instances.iter().filter(|instance| instance.id != id);
        plan.extend(others.filter_map(|other| {
            let was_active = other.activated.is_some() || observed.active == Some(other.id);
            match (was_active, &other.state) {
                (false, _) => Some(PlannedChange {
                    change: WorkloadChange::Discard(other.id),
                    because: Because::NotWanted,
                }),
                (true, InstanceState::Stopped) => None,
                (true, _) => Some(PlannedChange {
                    change: WorkloadChange::Retire(other.id),
                    because: Because::ReplacedBy(id),
                }),
            }
        }));
    }
    plan
}

#[cfg(test)]
mod tests {
    use flowline_core::{Timestamp, digest::Digest};

    use super::*;
    use crate::provision::observed::Instance;

    fn web(content: &str) -> Workload {
        Workload::files("production".parse().unwrap(), "web".parse().unwrap(), Digest::of(content))
    }

    fn instance(content: &str, number: u64, state: InstanceState, activated: bool) -> Instance {
        Instance {
            id: web(content).instance(),
            artifact: Digest::of(content),
            kind: web(content).kind,
            number,
            state,
            staged: Timestamp::UNIX_EPOCH,
            activated: activated.then_some(Timestamp::UNIX_EPOCH),
            process: None,
            directory: None,
            log: None,
        }
    }

    fn said(content: &str, goal: Goal, observed: &Observed) -> String {
        let plan = diff(&Desired::new(web(content), goal), observed);
        plan.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn each_goal_asks_for_what_it_needs_and_says_why() {
        let observed = Observed {
            instances: vec![
                instance("one", 1, InstanceState::Stopped, true),
                instance("two", 2, InstanceState::Ready, true),
                instance("half", 3, InstanceState::Starting, false),
                instance("dead", 4, InstanceState::Failed { why: "it exited with code 1".into() }, false),
            ],
            active: Some(web("two").instance()),
        };
        let mut all = Vec::new();
        for (content, goal) in [
            ("new", Goal::Staged),
            ("new", Goal::Active),
            ("one", Goal::Alone),
            ("two", Goal::Staged),
            ("dead", Goal::Active),
        ] {
            all.push(format!("{content}, {goal:?}:\n{}", said(content, goal, &observed)));
        }
        all.push(format!("nothing there:\n{}", said("new", Goal::Alone, &Observed::default())));
        insta::assert_snapshot!(all.join("\n"), @r"
        new, Staged:
        stage 0733d45469b9: it is not there
        new, Active:
        stage 0733d45469b9: it is not there
        activate 0733d45469b9: it replaces a074afe3b13f
        one, Alone:
        stage f4a4151e4174: it was retired
        activate f4a4151e4174: it replaces a074afe3b13f
        retire a074afe3b13f: f4a4151e4174 took its place
        discard 870a8e601680: it never became active and nobody wants it
        discard baeeb00c5c95: it never became active and nobody wants it
        two, Staged:

        dead, Active:
        stage baeeb00c5c95: it exited with code 1
        activate baeeb00c5c95: it replaces a074afe3b13f
        nothing there:
        stage 0733d45469b9: it is not there
        activate 0733d45469b9: nothing is active
        ");
    }
}
