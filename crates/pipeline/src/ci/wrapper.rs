//! What a thin CI file says: when it starts, and for each job one call of the deployer with what the system must give it.

use std::collections::{BTreeMap, BTreeSet};

use flowline_core::name::EnvironmentName;
use serde::{Deserialize, Serialize};

use super::{
    fit::WrapperError,
    text::{Branches, Constant, Cron, Label, TextError, Variable, Word},
};

/// A thin CI file as plain data. It has no place for conditions, loops or scripts: whatever is decided is decided by the deployer. Only what
/// starts a job is said here ([`Job::on`]), because a system hands out secrets and identities before the deployer can decide anything.
///
/// ```
/// use flowline_pipeline::ci::{CiTarget, GitHub, Wrapper};
/// let wrapper = Wrapper::deploy("storefront", ["deployer"])?;
/// let rendered = GitHub::default().render(&wrapper)?;
/// assert!(rendered.files[".github/workflows/storefront.yml"].contains("run: exec deployer apply storefront"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wrapper {
    /// What it is called.
    pub name: Label,
    /// When it starts. With none, nothing starts it but a person, where the system has a way.
    pub triggers: Triggers,
    /// Its jobs, each after those that it needs.
    pub jobs: Vec<Job>,
}

/// What a system starts jobs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A push to one of the branches.
    Push,
    /// Something happened to a pull request.
    PullRequest,
    /// The time has come.
    Schedule,
    /// A person asked for it.
    Manual,
}

/// What starts a wrapper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Triggers {
    /// A push to one of these.
    pub push: Vec<Branches>,
    /// Something happened to a pull (merge) request; with none, none of them starts it.
    pub pull_request: BTreeSet<PullRequestEvent>,
    /// At these times.
    pub schedule: Vec<Cron>,
    /// A person.
    pub manual: bool,
}

/// What may happen to a pull request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestEvent {
    /// It was opened.
    Opened,
    /// It has new commits.
    Synchronize,
    /// It was opened again.
    Reopened,
    /// It was merged or closed. GitHub starts the wrapper then, and an environment's [`Stop`] instead of its job. GitLab runs the stop
    /// whether this is said or not. Azure and Jenkins start nothing; give previews a time to live there.
    Closed,
}

/// One job: one call of the deployer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Its name.
    pub id: Label,
    /// The command line: the program and its words.
    pub call: Vec<Word>,
    /// Which of the wrapper's triggers start it; without, each that is safe: a job that deploys to a lasting environment never runs for a
    /// pull request, nor, unless it says so here, one without environment that has secrets or an identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<BTreeSet<Trigger>>,
    /// The jobs that must succeed before. They stand earlier in the list and run for whatever this one runs for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Label>,
    /// The environment that it deploys to: where the system keeps its approvals and its history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// What must not run at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// What the job's token may do on the forge.
    #[serde(default = "least")]
    pub permissions: BTreeMap<Scope, Access>,
    /// A short-lived identity (OIDC) for the world outside. Only a job that asks gets one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// Constants in the environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<Variable, Constant>,
    /// Secrets of the system that the job sees, each as the environment variable of its name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<Variable>,
    /// The outputs of the deployer that the system passes on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub outputs: BTreeSet<Variable>,
    /// Outputs of jobs that it needs, each as an environment variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<Variable, OutputOf>,
    /// What is kept between runs so that the deployer is there at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What is called when the job failed or was cancelled. It must do no harm after a success: GitLab calls it then, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clean_up: Vec<Word>,
    /// The limit of time, in minutes, from 1.
    pub timeout_minutes: u32,
}

/// An output of another job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputOf {
    /// The job.
    pub job: Label,
    /// Its output.
    pub output: Variable,
}

/// Where a job deploys to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// Its name.
    pub name: EnvironmentName,
    /// Whether each pull request has one of its own: the name is followed by `-` and the request's number. A job that runs for something
    /// else, too, has one for each run there on GitHub, and one for each branch on GitLab, also of a pull request.
    #[serde(default)]
    pub per_change: bool,
    /// Where it can be seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// How it ends. Only an environment of a pull request does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
}

impl Environment {
    /// A lasting one, which a system shows without an address.
    pub fn lasting(name: EnvironmentName) -> Self {
        Self { name, per_change: false, url: None, stop: None }
    }
}

/// How the environment of a pull request ends: a job of its own called `stop-` and the job's name, with the same rights and secrets but
/// without inputs. GitHub runs it when the request is closed, if that is among the [`Triggers`]; GitLab then, when the branch is deleted, and
/// after the time; Azure and Jenkins never, so the deployer must end environments by their age as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// What is called. It must do no harm where nothing is left.
    pub call: Vec<Word>,
    /// After how many hours without a new deployment GitLab stops it by itself, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_hours: Option<u32>,
}

/// An address that a system shows beside an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Url {
    /// Always this one.
    Fixed(Constant),
    /// The deployer says it, as this output. It must be among the job's outputs.
    Output(Variable),
}

/// Jobs of one group run one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// The group.
    pub group: Label,
    /// Whether each pull request has a group of its own.
    #[serde(default)]
    pub per_change: bool,
    /// What happens to those that come later.
    pub policy: Later,
}

/// What happens to a job whose group is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Later {
    /// It waits, and none of those that wait is dropped: deployments to a lasting environment.
    Queue,
    /// It cancels the one that runs: previews, where only the newest commit matters.
    CancelRunning,
}

/// What a job's token gives access to on the forge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Check runs.
    Checks,
    /// The repository.
    Contents,
    /// Deployment records.
    Deployments,
    /// Issues.
    Issues,
    /// Packages.
    Packages,
    /// Pull requests and their comments.
    PullRequests,
    /// Commit statuses.
    Statuses,
}

/// How much access.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// A short-lived identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Whom it is shown to.
    pub audience: Constant,
}

/// A folder that is kept between runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// The folder, relative to the repository.
    pub path: Constant,
    /// The first part of the key.
    pub key: Label,
    /// Files whose content is part of the key, such as `Cargo.lock`. GitLab takes two at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Constant>,
}

fn least() -> BTreeMap<Scope, Access> {
    BTreeMap::from([(Scope::Contents, Access::Read)])
}

impl Triggers {
    /// What starts a wrapper with these: with none, a person does.
    pub fn all(&self) -> BTreeSet<Trigger> {
        let declared = [
            (Trigger::Push, !self.push.is_empty()),
            (Trigger::PullRequest, !self.pull_request.is_empty()),
            (Trigger::Schedule, !self.schedule.is_empty()),
            (Trigger::Manual, self.manual),
        ];
        let mut all: BTreeSet<_> =
            declared.into_iter().filter_map(|(trigger, declared)| declared.then_some(trigger)).collect();
        if all.is_empty() {
            all.insert(Trigger::Manual);
        }
        all
    }
}

impl Wrapper {
    /// The usual wrapper of a pipeline: each push to `main`, and a person, call `DEPLOYER apply PIPELINE`, one after the other.
    ///
    /// # Errors
    /// If the pipeline's name is no [`Label`], or a word holds control characters.
    pub fn deploy<I>(pipeline: &str, deployer: I) -> Result<Self, WrapperError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let name = Label::new(pipeline)?;
        let mut call = words(deployer)?;
        call.extend(words(["apply", pipeline])?);
        let mut job = Job::new(Label::new("deploy")?, call);
        job.concurrency = Some(Concurrency { group: name.clone(), per_change: false, policy: Later::Queue });
        let triggers = Triggers { push: vec![Branches::new("main")?], manual: true, ..Triggers::default() };
        Ok(Self { name, triggers, jobs: vec![job] })
    }
}

impl Job {
    /// A job that makes one call, with the least rights, no environment and an hour of time.
    pub fn new(id: Label, call: Vec<Word>) -> Self {
        Self {
            id,
            call,
            on: None,
            needs: Vec::new(),
            environment: None,
            concurrency: None,
            permissions: least(),
            identity: None,
            env: BTreeMap::new(),
            secrets: BTreeSet::new(),
            outputs: BTreeSet::new(),
            inputs: BTreeMap::new(),
            cache: None,
            clean_up: Vec::new(),
            timeout_minutes: 60,
        }
    }

    /// What starts the job in a wrapper with `triggers`.
    pub fn runs_for(&self, triggers: &Triggers) -> BTreeSet<Trigger> {
        let mut all = triggers.all();
        match &self.on {
            Some(on) => all.retain(|trigger| on.contains(trigger)),
            None if self.is_guarded() => drop(all.remove(&Trigger::PullRequest)),
            None => {}
        }
        all
    }

    /// Whether a pull request must not start it by default: whoever opens one writes the code that the job runs.
    fn is_guarded(&self) -> bool {
        match &self.environment {
            Some(environment) => !environment.per_change,
            None => !self.secrets.is_empty() || self.identity.is_some(),
        }
    }

    /// The job that ends the job's environment, if there is one.
    pub(super) fn stopping(&self) -> Option<Self> {
        let stop = self.environment.as_ref()?.stop.as_ref()?;
        let id = Label::new(format!("stop-{}", self.id)).ok()?;
        Some(Self {
            id,
            call: stop.call.clone(),
            // Not what is safe without an environment: it has the rights of the job that it ends.
            on: Some(self.on.clone().unwrap_or_else(|| {
                [Trigger::Push, Trigger::PullRequest, Trigger::Schedule, Trigger::Manual].into()
            })),
            needs: Vec::new(),
            outputs: BTreeSet::new(),
            inputs: BTreeMap::new(),
            clean_up: Vec::new(),
            ..self.clone()
        })
    }
}

/// The words of a command line.
///
/// # Errors
/// If one holds control characters.
pub fn words<I>(words: I) -> Result<Vec<Word>, TextError>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    words.into_iter().map(Word::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_plain_data() {
        let wrapper = Wrapper::deploy("storefront", ["cargo", "run", "--"]).unwrap();
        let json = serde_json::to_string(&wrapper).unwrap();
        assert_eq!(serde_json::from_str::<Wrapper>(&json).unwrap(), wrapper);
        assert!(serde_json::from_str::<Wrapper>(&json.replace("\"cargo\"", "\"a\\nb\"")).is_err());
    }
}
