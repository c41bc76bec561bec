//! Why a step ran, or did not: as data in the journal, as a sentence for people.

use std::{collections::BTreeSet, fmt};

use flowline_core::id::{ResourceId, RunId};
use serde::{Deserialize, Serialize};

use crate::plan::{Action, PlannedNode, StepId};

/// Why a step ran, or did not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It ran because it was its turn: nothing may be taken from a cache for it.
    #[default]
    Due,
    /// It ran because these resources were not as it makes them when the plan was made.
    Differs(BTreeSet<ResourceId>),
    /// It ran again: the attempt before this one failed or was cut short.
    Repeated {
        /// Which attempt it was, from 2.
        attempt: u32,
    },
    /// It did not run again: the world, or a person, said that it had happened before.
    Happened,
    /// It ran because nothing is known of it from before.
    New,
    /// It ran because these parts of what it declares differ from the last time.
    Changed(BTreeSet<String>),
    /// It ran because the cache was switched off.
    CacheOff,
    /// It did not run: nothing that it declares differs from what it gave its output for in this run.
    Unchanged {
        /// The run that it ran in.
        run: RunId,
    },
    /// It did not run: all that it touches is as the plan found it, which is as it should be.
    AsItShouldBe,
    /// It did not run: this step said no.
    ConditionFalse {
        /// The step whose output is the condition.
        step: StepId,
    },
    /// It became so many instances, and all of them are done.
    Instances {
        /// How many.
        count: usize,
    },
}

impl Why {
    /// Why an effect ran as `attempt`.
    pub(super) fn ran(node: &PlannedNode, attempt: u32) -> Self {
        if attempt > 1 {
            return Self::Repeated { attempt };
        }
        let observed = node.preview.iter().flat_map(|preview| &preview.resources);
        let differs = observed.filter(|observed| observed.action > Action::Run);
        let differs: BTreeSet<_> = differs.map(|observed| observed.resource.clone()).collect();
        if differs.is_empty() { Self::Due } else { Self::Differs(differs) }
    }

    /// Whether it says why a step did not run.
    pub fn is_skip(&self) -> bool {
        matches!(self, Self::Unchanged { .. } | Self::AsItShouldBe | Self::ConditionFalse { .. })
    }

    pub(crate) fn is_due(&self) -> bool {
        *self == Self::Due
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Due => f.write_str("it was its turn"),
            Self::Differs(resources) => {
                let names: Vec<_> = resources.iter().map(|resource| format!("`{resource}`")).collect();
                write!(f, "it changes {}", names.join(", "))
            }
            Self::Repeated { attempt } => {
                write!(f, "the attempt before its attempt {attempt} failed or was cut short")
            }
            Self::Happened => f.write_str("it had happened before"),
            Self::New => f.write_str("nothing is known of it from before"),
            Self::Changed(parts) => {
                let parts: Vec<_> = parts.iter().map(String::as_str).collect();
                write!(f, "changed since the last time: {}", parts.join(", "))
            }
            Self::CacheOff => f.write_str("the cache is switched off"),
            Self::Unchanged { run } => write!(f, "nothing that it declares changed since run `{run}`"),
            Self::AsItShouldBe => f.write_str("everything it would do is as it should be"),
            Self::ConditionFalse { step } => write!(f, "step `{step}` said no"),
            Self::Instances { count: 1 } => f.write_str("its one instance is done"),
            Self::Instances { count } => write!(f, "its {count} instances are done"),
        }
    }
}
