//! What is delivered: an [`Artifact`] is one component's built content by digest, a [`Release`] is a fixed set of them.

use std::collections::BTreeMap;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, Digester},
    error::{ErrorKind, Kinded},
    name::ComponentName,
};

/// One component's content, fixed by digest, and the source that it was made from.
///
/// Artifacts are found by `source`: two trees with the same digest make the same artifact, so what was verified on a branch can be
/// promoted after the merge without building it again, if and only if the merge result has the same tree for this component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The component that it is a build of.
    pub component: ComponentName,
    /// The digest of what is deployed.
    pub content: Digest,
    /// The digest of the source tree (the component's path only) that made it.
    pub source: Digest,
    /// The version that its source gives it; people see it, nothing is compared by it.
    pub version: Version,
}

/// A fixed set of artifacts, one for each component, with an id made from their content.
///
/// The same parts in any order are the same release, on every machine. Versions and sources don't count: what is deployed counts.
///
/// ```
/// use flowline_core::{artifact::{Artifact, Release}, digest::Digest, Version};
/// let artifact = |name: &str| Artifact {
///     component: name.parse().unwrap(),
///     content: Digest::of(name),
///     source: Digest::of("tree"),
///     version: Version::new(1, 0, 0),
/// };
/// let one = Release::new([artifact("web"), artifact("api")]).unwrap();
/// let other = Release::new([artifact("api"), artifact("web")]).unwrap();
/// assert_eq!(one.id(), other.id());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Artifact>", into = "Vec<Artifact>")]
pub struct Release {
    id: ReleaseId,
    artifacts: BTreeMap<ComponentName, Artifact>,
}

/// The content address of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(Digest);

impl ReleaseId {
    /// The digest behind the id.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl std::fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0.short())
    }
}

/// Why some artifacts are not a release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// There is no artifact at all.
    #[error("a release needs at least one artifact")]
    Empty,
    /// Two artifacts are of one component.
    #[error("component `{0}` is in the release twice; a release has one artifact for each component")]
    Twice(ComponentName),
}

impl Kinded for ReleaseError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Release {
    /// The release of these artifacts, in any order.
    ///
    /// # Errors
    /// If there is none, or two are of one component.
    pub fn new(artifacts: impl IntoIterator<Item = Artifact>) -> Result<Self, ReleaseError> {
        let mut by_component = BTreeMap::new();
        for artifact in artifacts {
            if let Some(twice) = by_component.insert(artifact.component.clone(), artifact) {
                return Err(ReleaseError::Twice(twice.component));
            }
        }
        if by_component.is_empty() {
            return Err(ReleaseError::Empty);
        }
        let mut digester = Digester::new("flowline release 1");
        for artifact in by_component.values() {
            digester.part(artifact.component.as_str()).part(artifact.content.as_bytes());
        }
        Ok(Self { id: ReleaseId(digester.finish()), artifacts: by_component })
    }

    /// The content address: equal if and only if the same components have the same content.
    pub fn id(&self) -> ReleaseId {
        self.id
    }

    /// The artifacts, ordered by component.
    pub fn artifacts(&self) -> impl ExactSizeIterator<Item = &Artifact> {
        self.artifacts.values()
    }

    /// The artifact of `component`, if the release has one.
    pub fn artifact(&self, component: &ComponentName) -> Option<&Artifact> {
        self.artifacts.get(component)
    }

    /// The highest version among its artifacts: what people call the release.
    pub fn version(&self) -> &Version {
        // `new` refuses an empty set; the fallback keeps this total.
        const NONE: &Version = &Version::new(0, 0, 0);
        self.artifacts().map(|artifact| &artifact.version).max().unwrap_or(NONE)
    }
}

impl TryFrom<Vec<Artifact>> for Release {
    type Error = ReleaseError;

    fn try_from(artifacts: Vec<Artifact>) -> Result<Self, ReleaseError> {
        Self::new(artifacts)
    }
}

impl From<Release> for Vec<Artifact> {
    fn from(release: Release) -> Self {
        release.artifacts.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn artifact(component: &str, content: &str) -> Artifact {
        Artifact {
            component: component.parse().unwrap(),
            content: Digest::of(content),
            source: Digest::of("source"),
            version: Version::new(1, 0, 0),
        }
    }

    #[test]
    fn empty_and_doubled_sets_are_refused() {
        assert_eq!(Release::new([]), Err(ReleaseError::Empty));
        let twice = Release::new([artifact("web", "1"), artifact("web", "2")]);
        assert_eq!(twice, Err(ReleaseError::Twice("web".parse().unwrap())));
    }

    proptest! {
        #[test]
        fn same_parts_in_any_order_same_id(
            parts in prop::collection::btree_map("[a-z]{1,8}", "[a-z]{0,8}", 1..6).prop_flat_map(|parts| {
                let parts: Vec<_> = parts.into_iter().collect();
                (Just(parts.clone()), Just(parts).prop_shuffle())
            })
        ) {
            let release = |parts: &[(String, String)]| Release::new(parts.iter().map(|(n, c)| artifact(n, c))).unwrap();
            let (one, other) = (release(&parts.0), release(&parts.1));
            prop_assert_eq!(one.id(), other.id());
            let json = serde_json::to_string(&one).unwrap();
            prop_assert_eq!(serde_json::from_str::<Release>(&json).unwrap(), one);
        }

        #[test]
        fn other_content_other_id(content in "[a-z]{1,8}") {
            let one = Release::new([artifact("web", &content)]).unwrap();
            let other = Release::new([artifact("web", &format!("{content}x"))]).unwrap();
            prop_assert_ne!(one.id(), other.id());
        }
    }
}
