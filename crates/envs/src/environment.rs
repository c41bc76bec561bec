//! An environment as it stands: persistent and ephemeral ones are one type, and what is decided about it is pure.
//!
//! An environment that stays has no base; an ephemeral one is laid over its base, shows a change, and expires. The record says what is
//! deployed there by this environment itself, where it answers, and what was there before. Whoever keeps it replaces it as a whole by
//! one commit together with the fact, so a reader sees either the old deployment or the new one.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use flowline_core::{
    Timestamp, Version,
    artifact::{Artifact, Release},
    change::CommitId,
    digest::Digest,
    id::{ChangeId, RunId},
    name::{ComponentName, EnvironmentName},
};
use serde::{Deserialize, Serialize};

/// An environment as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRecord {
    /// Its name.
    pub name: EnvironmentName,
    /// The environment that answers for what this one does not deploy itself; none for one that stays.
    pub base: Option<EnvironmentName>,
    /// The change that it shows; none for one that stays.
    pub change: Option<ChangeId>,
    /// Counts its deployments: 0 before the first.
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
    /// When it goes away by itself; none for one that stays.
    pub expires: Option<Timestamp>,
    /// What it deploys itself.
    pub running: BTreeMap<ComponentName, Instance>,
    /// What is being verified beside it, if a deployment is under way.
    #[serde(default)]
    pub candidate: BTreeMap<ComponentName, Instance>,
    /// Its deployments, the newest last. The last one is what runs.
    pub history: Vec<Deployment>,
}

/// One component's artifact, running in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// What runs.
    pub artifact: Artifact,
    /// Where it answers.
    pub target: InstanceTarget,
}

/// Where an instance answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InstanceTarget {
    /// The router serves these files.
    Directory(PathBuf),
    /// A process listens there.
    Process(SocketAddr),
}

/// One deployment of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Its number within the environment, from 1.
    pub generation: u64,
    /// What was deployed.
    pub release: Release,
    /// The commit that it was made from.
    pub commit: CommitId,
    /// The change that asked for it, if one did.
    pub change: Option<ChangeId>,
    /// The run that did it; its journal says how.
    pub run: RunId,
    /// When it was done.
    pub time: Timestamp,
    /// Whether it brought back an earlier release.
    pub rollback: bool,
}

impl EnvironmentRecord {
    /// An environment that stays, before its first deployment.
    pub fn persistent(name: EnvironmentName, now: Timestamp) -> Self {
        Self {
            name,
            base: None,
            change: None,
            generation: 0,
            created: now,
            expires: None,
            running: BTreeMap::new(),
            candidate: BTreeMap::new(),
            history: Vec::new(),
        }
    }

    /// Whether its time is over at `now`. One that stays never expires.
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// When asking [`expired`](Self::expired) again can give another answer; never, for one that stays or is over.
    pub fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.expires.filter(|expires| *expires > now)
    }

    /// What runs, as the last deployment says.
    pub fn deployment(&self) -> Option<&Deployment> {
        self.history.last()
    }

    /// The version that people see: the release's highest.
    pub fn version(&self) -> Option<&Version> {
        self.deployment().map(|deployment| deployment.release.version())
    }

    /// The deployment that a rollback goes back to: the newest one with another release than the one that runs, skipping those that a
    /// rollback has already left behind.
    ///
    /// So rolling back twice goes back two releases, never to and fro.
    pub fn previous(&self) -> Option<&Deployment> {
        let now = self.deployment()?;
        // A deployment that brought back an earlier release stands where that release stood: what came between was left behind.
        let mut end = self.history.len() - 1;
        if now.rollback {
            end = self
                .history
                .iter()
                .position(|deployment| deployment.release.id() == now.release.id())
                .unwrap_or(end);
        }
        self.history[..end].iter().rev().find(|deployment| deployment.release.id() != now.release.id())
    }
}

/// Where an artifact for a component comes from, for one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provenance {
    /// The environment runs it already.
    Unchanged(Artifact),
    /// It was built before from the very same tree, and is deployed by digest.
    Reused(Artifact),
    /// Nobody has built this tree: it must be built, and verified anew.
    Build,
}

/// Decides where each component's artifact comes from, from the digest of its source tree alone.
///
/// `sources` are the trees of the commit to deploy; `running` is what the environment has; `built` are all artifacts that were ever
/// built from one of these trees. Merging reuses a preview's verified artifact only if the merge result's tree is the tree that was
/// verified; otherwise it is rebuilt and verified again.
pub fn provenance(
    sources: &BTreeMap<ComponentName, Digest>,
    running: &BTreeMap<ComponentName, Artifact>,
    built: &BTreeMap<ComponentName, Artifact>,
) -> BTreeMap<ComponentName, Provenance> {
    sources
        .iter()
        .map(|(component, source)| {
            let same = |artifact: &&Artifact| artifact.source == *source;
            let provenance = if let Some(artifact) = running.get(component).filter(same) {
                Provenance::Unchanged(artifact.clone())
            } else if let Some(artifact) = built.get(component).filter(same) {
                Provenance::Reused(artifact.clone())
            } else {
                Provenance::Build
            };
            (component.clone(), provenance)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(content: &str) -> Artifact {
        Artifact {
            component: "web".parse().unwrap(),
            content: Digest::of(content),
            source: Digest::of(format!("tree of {content}")),
            version: Version::new(1, 0, 0),
        }
    }

    fn record(releases: &[(&str, bool)]) -> EnvironmentRecord {
        let mut record = EnvironmentRecord::persistent("production".parse().unwrap(), Timestamp::UNIX_EPOCH);
        for (generation, (content, rollback)) in (1..).zip(releases) {
            record.history.push(Deployment {
                generation,
                release: Release::new([artifact(content)]).unwrap(),
                commit: CommitId::new("a".repeat(40)).unwrap(),
                change: None,
                run: "run".parse().unwrap(),
                time: Timestamp::UNIX_EPOCH,
                rollback: *rollback,
            });
        }
        record
    }

    #[test]
    fn only_what_has_an_end_expires() {
        let mut record = record(&[]);
        let end = Timestamp::from_second(60).unwrap();
        assert!(!record.expired(Timestamp::MAX) && record.next_wake(Timestamp::UNIX_EPOCH).is_none());
        record.expires = Some(end);
        assert!(!record.expired(Timestamp::UNIX_EPOCH) && record.expired(end));
        assert_eq!((record.next_wake(Timestamp::UNIX_EPOCH), record.next_wake(end)), (Some(end), None));
    }

    #[test]
    fn a_rollback_goes_to_the_release_before() {
        let previous = |releases: &[(&str, bool)]| record(releases).previous().map(|found| found.generation);
        assert_eq!(previous(&[]), None);
        assert_eq!(previous(&[("a", false)]), None);
        assert_eq!(previous(&[("a", false), ("b", false)]), Some(1));
        assert_eq!(
            previous(&[("a", false), ("b", false), ("b", false)]),
            Some(1),
            "the same again is no step"
        );
    }

    #[test]
    fn rolling_back_twice_goes_back_two_releases() {
        let twice = [("a", false), ("b", false), ("c", false), ("b", true)];
        assert_eq!(record(&twice).previous().map(|found| found.generation), Some(1));
        let all_the_way = [("a", false), ("b", false), ("a", true)];
        assert_eq!(record(&all_the_way).previous(), None);
    }

    #[test]
    fn only_the_same_tree_is_reused() {
        let web: ComponentName = "web".parse().unwrap();
        let decide = |source: &Artifact, running: Option<Artifact>, built: Option<Artifact>| {
            let map =
                |artifact: Option<Artifact>| artifact.into_iter().map(|a| (a.component.clone(), a)).collect();
            let sources = BTreeMap::from([(web.clone(), source.source)]);
            provenance(&sources, &map(running), &map(built)).remove(&web).unwrap()
        };
        let (one, two) = (artifact("1"), artifact("2"));
        assert_eq!(decide(&one, Some(one.clone()), None), Provenance::Unchanged(one.clone()));
        assert_eq!(decide(&two, Some(one.clone()), Some(two.clone())), Provenance::Reused(two.clone()));
        assert_eq!(decide(&two, Some(one.clone()), Some(one)), Provenance::Build);
    }
}
