//! A change: what one pull request wants to bring to people, and who shepherds it there.

use serde::{Deserialize, Serialize};

use crate::{
    id::ChangeId,
    name::{AppName, Person},
};

/// One change of one application on its way from a pull request to the people who use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Its id: `pr-123` for pull request 123.
    pub id: ChangeId,
    /// The application that it changes.
    pub app: AppName,
    /// The number of its pull request at the forge.
    pub number: u64,
    /// One line that says what it does.
    pub title: String,
    /// Who owns it until users have it, and hears first when it is stuck.
    pub shepherd: Person,
    /// How much it could break.
    pub risk: Risk,
    /// Where it comes from.
    pub source: ChangeSource,
    /// Where it stands at the forge.
    pub state: ChangeState,
}

/// The commits of a change: what would be merged into what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeSource {
    /// The branch's name, as the forge says it. Never used as a path or an address.
    pub branch: String,
    /// The commit at the branch's head.
    pub head: CommitId,
    /// The branch that it would be merged into.
    pub base_branch: String,
    /// The commit at that branch's head.
    pub base: CommitId,
    /// The merge's result, once merged.
    pub merged: Option<CommitId>,
}

/// Where a change stands at the forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeState {
    /// Its pull request is open.
    Open,
    /// Its pull request was merged.
    Merged,
    /// Its pull request was closed without a merge.
    Closed,
}

/// How much a change could break; it chooses the release approach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Nobody would notice a mistake.
    Low,
    /// The usual case.
    #[default]
    Normal,
    /// A mistake hurts: data changes shape, money moves, an outside system depends on it.
    High,
}

/// A git object name: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CommitId(String);

impl CommitId {
    /// Checks `text` and takes it.
    ///
    /// # Errors
    /// If it is not 40 or 64 lower-case hexadecimal digits.
    pub fn new(text: impl Into<String>) -> Result<Self, crate::name::NameError> {
        let text = text.into();
        let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex || !matches!(text.len(), 40 | 64) {
            let shape = crate::name::NameProblem::Shape("it needs 40 or 64 lower-case hexadecimal digits");
            return Err(crate::name::NameError::new("a commit's id", &text, shape));
        }
        Ok(Self(text))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 digits, for people.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for CommitId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl std::str::FromStr for CommitId {
    type Err = crate::name::NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for CommitId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_hexadecimal() {
        assert!(CommitId::new("a".repeat(40)).is_ok());
        assert!(CommitId::new("0".repeat(64)).is_ok());
        for bad in ["", "abc", &"g".repeat(40), &"A".repeat(40), "--upload-pack=touch /tmp/x"] {
            assert!(CommitId::new(bad).is_err(), "{bad}");
        }
    }
}
