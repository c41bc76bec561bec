//! Where the deployer runs, and what for: read from the environment that the CI system gives, which is passed in.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// A CI system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CiKind {
    /// None: a laptop, a server.
    None,
    /// GitHub Actions, and what behaves like it (Forgejo, Gitea).
    GitHub,
    /// GitLab CI.
    GitLab,
    /// Azure Pipelines.
    Azure,
    /// Jenkins.
    Jenkins,
}

impl CiKind {
    /// Which system `env` belongs to, by the variables that each documents as its sign.
    ///
    /// ```
    /// # use flowline_pipeline::ci::CiKind;
    /// let env = [("GITLAB_CI".to_owned(), "true".to_owned())].into();
    /// assert_eq!(CiKind::detect(&env), CiKind::GitLab);
    /// ```
    pub fn detect(env: &BTreeMap<String, String>) -> Self {
        let yes = |name: &str| env.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let set = |name: &str| env.get(name).is_some_and(|value| !value.is_empty());
        match () {
            () if yes("GITHUB_ACTIONS") => Self::GitHub,
            () if yes("GITLAB_CI") => Self::GitLab,
            () if yes("TF_BUILD") => Self::Azure,
            () if set("JENKINS_URL") && set("BUILD_ID") => Self::Jenkins,
            () => Self::None,
        }
    }
}

impl CiKind {
    /// What the system gives in the variable `name`, such as a secret of a job; `None` if it is not set, or empty, which systems give for a
    /// secret that does not exist. Azure gives its reference, `$(NAME)`, as it stands: that is none, too.
    ///
    /// ```
    /// # use flowline_pipeline::ci::CiKind;
    /// let env = [("TOKEN".to_owned(), "$(TOKEN)".to_owned())].into();
    /// assert_eq!(CiKind::Azure.given(&env, "TOKEN"), None);
    /// assert_eq!(CiKind::GitLab.given(&env, "TOKEN"), Some("$(TOKEN)"));
    /// ```
    pub fn given<'a>(self, env: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
        let value = env.get(name).map(String::as_str).filter(|value| !value.is_empty())?;
        let inner = value.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')'));
        (self != Self::Azure || inner != Some(name)).then_some(value)
    }
}

impl fmt::Display for CiKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "no CI",
            Self::GitHub => "GitHub Actions",
            Self::GitLab => "GitLab CI",
            Self::Azure => "Azure Pipelines",
            Self::Jenkins => "Jenkins",
        })
    }
}

/// What a job runs for, as far as the system says it. All of it comes from outside: check it before it becomes a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// The branch; of a pull request the one to be merged.
    pub branch: Option<String>,
    /// The commit that was checked out. For a pull request GitHub checks out what a merge would give.
    pub commit: Option<String>,
    /// The number of the pull request.
    pub change: Option<u64>,
    /// The title of the pull request. Azure doesn't tell it.
    pub title: Option<String>,
    /// Where a person sees the job.
    pub url: Option<String>,
}

impl Facts {
    /// Reads what `kind` says in `env`.
    pub fn read(kind: CiKind, env: &BTreeMap<String, String>) -> Self {
        let get = |name: &str| kind.given(env, name).map(str::to_owned);
        let first = |names: &[&str]| names.iter().find_map(|name| get(name));
        let number = |names: &[&str]| first(names).and_then(|number| number.parse().ok());
        match kind {
            CiKind::None => Self::default(),
            CiKind::GitHub => Self {
                branch: first(&["GITHUB_HEAD_REF", "GITHUB_REF_NAME"]),
                commit: get("GITHUB_SHA"),
                // The runner says neither by itself; the rendered file passes them on.
                change: number(&["FLOWLINE_CHANGE"]),
                title: get("FLOWLINE_CHANGE_TITLE"),
                url: match (get("GITHUB_SERVER_URL"), get("GITHUB_REPOSITORY"), get("GITHUB_RUN_ID")) {
                    (Some(server), Some(repository), Some(run)) => {
                        Some(format!("{server}/{repository}/actions/runs/{run}"))
                    }
                    _ => None,
                },
            },
            CiKind::GitLab => Self {
                branch: first(&["CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "CI_COMMIT_REF_NAME"]),
                commit: get("CI_COMMIT_SHA"),
                change: number(&["CI_MERGE_REQUEST_IID"]),
                title: get("CI_MERGE_REQUEST_TITLE"),
                url: get("CI_JOB_URL"),
            },
            CiKind::Azure => Self {
                branch: first(&["SYSTEM_PULLREQUEST_SOURCEBRANCH", "BUILD_SOURCEBRANCH"])
                    .map(|branch| branch.strip_prefix("refs/heads/").map_or(branch.clone(), str::to_owned)),
                commit: get("BUILD_SOURCEVERSION"),
                // The number is GitHub's, the id that of Azure Repos.
                change: number(&["SYSTEM_PULLREQUEST_PULLREQUESTNUMBER", "SYSTEM_PULLREQUEST_PULLREQUESTID"]),
                title: None,
                url: None,
            },
            CiKind::Jenkins => Self {
                branch: first(&["CHANGE_BRANCH", "BRANCH_NAME"]),
                commit: get("GIT_COMMIT"),
                change: number(&["CHANGE_ID"]),
                title: get("CHANGE_TITLE"),
                url: get("BUILD_URL"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_system_is_known_by_its_sign() {
        for (pairs, kind) in [
            (&[][..], CiKind::None),
            (&[("CI", "true")], CiKind::None),
            (&[("GITHUB_ACTIONS", "true")], CiKind::GitHub),
            (&[("GITLAB_CI", "true")], CiKind::GitLab),
            (&[("TF_BUILD", "True")], CiKind::Azure),
            (&[("JENKINS_URL", "http://ci/"), ("BUILD_ID", "7")], CiKind::Jenkins),
            (&[("JENKINS_URL", "")], CiKind::None),
        ] {
            assert_eq!(CiKind::detect(&env(pairs)), kind, "{pairs:?}");
        }
    }

    #[test]
    fn a_variable_that_azure_does_not_know_is_no_fact() {
        let literal = "$(SYSTEM_PULLREQUEST_SOURCEBRANCH)";
        let env = env(&[
            ("SYSTEM_PULLREQUEST_SOURCEBRANCH", literal),
            ("BUILD_SOURCEBRANCH", "refs/heads/main"),
            ("BUILD_SOURCEVERSION", "$(BUILD_SOURCEVERSION)"),
        ]);
        let facts = Facts::read(CiKind::Azure, &env);
        assert_eq!((facts.branch.as_deref(), facts.commit), (Some("main"), None));
    }

    #[test]
    fn the_same_facts_come_from_every_system() {
        let branch = "x\"; rm -rf /";
        let systems = [
            (
                CiKind::GitHub,
                env(&[("GITHUB_HEAD_REF", branch), ("GITHUB_SHA", "abc"), ("FLOWLINE_CHANGE", "7")]),
            ),
            (
                CiKind::GitLab,
                env(&[
                    ("CI_COMMIT_REF_NAME", branch),
                    ("CI_COMMIT_SHA", "abc"),
                    ("CI_MERGE_REQUEST_IID", "7"),
                ]),
            ),
            (
                CiKind::Azure,
                env(&[
                    ("SYSTEM_PULLREQUEST_SOURCEBRANCH", &format!("refs/heads/{branch}")),
                    ("BUILD_SOURCEVERSION", "abc"),
                    ("SYSTEM_PULLREQUEST_PULLREQUESTID", "7"),
                ]),
            ),
            (CiKind::Jenkins, env(&[("CHANGE_BRANCH", branch), ("GIT_COMMIT", "abc"), ("CHANGE_ID", "7")])),
        ];
        for (kind, env) in systems {
            let facts = Facts::read(kind, &env);
            assert_eq!(facts.branch.as_deref(), Some(branch), "{kind}");
            assert_eq!((facts.commit.as_deref(), facts.change), (Some("abc"), Some(7)), "{kind}");
        }
        assert_eq!(Facts::read(CiKind::None, &env(&[("GITHUB_SHA", "abc")])), Facts::default());
    }
}
