//! What a translation from one format to another could not keep, as data.

use std::fmt;

use serde::Serialize;

/// Something of a flag that a translation could not keep as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Loss {
    /// The flag that it concerns; `None`: the document.
    pub flag: Option<String>,
    /// Where in it: `rules/2/when`, in the words of the [model](crate::model).
    pub at: String,
    /// What it means for those who are evaluated.
    pub kind: LossKind,
    /// What it is, for people.
    pub message: String,
}

/// What a [`Loss`] means for those who are evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossKind {
    /// Nothing: only people or tools read it.
    Knowledge,
    /// As many see each variant, but not the same ones: the hash is another.
    Rebucketed,
    /// Some may see another variant; the message says who.
    Changed,
    /// The flag is not in the result.
    Absent,
}

impl LossKind {
    /// Whether somebody may see something else.
    pub fn shows(self) -> bool {
        self != Self::Knowledge
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(flag) = &self.flag {
            write!(f, "flag `{flag}`")?;
        } else {
            f.write_str("the document")?;
        }
        if !self.at.is_empty() {
            write!(f, ", {}", self.at)?;
        }
        let kind = match self.kind {
            LossKind::Knowledge => "not kept",
            LossKind::Rebucketed => "re-bucketed",
            LossKind::Changed => "changed",
            LossKind::Absent => "left out",
        };
        write!(f, ": {kind}: {}", self.message)
    }
}
