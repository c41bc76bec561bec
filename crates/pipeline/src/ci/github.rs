//! GitHub Actions: one workflow file for each wrapper.

use super::{
    CiKind, CiTarget, RenderError, Rendered, header, shell,
    wrapper::{
        Access, Cache, Concurrency, Environment, Job, Later, PullRequestEvent, Scope, Trigger, Triggers, Url,
        Wrapper,
    },
    yaml::{Yaml, map, some_list, some_map},
};

/// Renders `.github/workflows/NAME.yml`. Forgejo, Gitea and act read the same file with [`GitHub::portable`].
///
/// The token has the least rights: nothing for the workflow, for each job what it declares. The deployer replaces the shell (`exec`), so
/// that a cancel reaches it and not only the shell. Actions are named by tag; name them by commit to pin them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHub {
    /// The label of the runner.
    pub runner: String,
    /// The action that checks the repository out.
    pub checkout: String,
    /// The action that restores and saves the cache.
    pub cache: String,
    /// Whether the server knows `queue`, with which a third run waits instead of cancelling the second. GitHub does since May 2026; act,
    /// Forgejo and older Enterprise servers refuse the word.
    pub queue: bool,
}

impl Default for GitHub {
    fn default() -> Self {
        Self {
            runner: "ubuntu-latest".to_owned(),
            checkout: "actions/checkout@v5".to_owned(),
            cache: "actions/cache@v5".to_owned(),
            queue: true,
        }
    }
}

impl GitHub {
    /// What Forgejo, Gitea, older Enterprise servers and act take, too: without `queue`, so a third run cancels one that waits.
    pub fn portable() -> Self {
        Self { queue: false, ..Self::default() }
    }
}

impl CiTarget for GitHub {
    fn kind(&self) -> CiKind {
        CiKind::GitHub
    }

    fn render(&self, wrapper: &Wrapper) -> Result<Rendered, RenderError> {
        wrapper.check()?;
        let jobs = wrapper.jobs.iter().flat_map(|job| {
            let stopping = closes(wrapper, job).then(|| job.stopping()).flatten().map(|mut stopping| {
                // Naming the environment would deploy to it once more.
                stopping.environment = None;
                (stopping.id.to_string(), self.job(wrapper, &stopping, Some(CLOSED.to_owned())))
            });
            let condition = condition(wrapper, job);
            [Some((job.id.to_string(), self.job(wrapper, job, condition))), stopping].into_iter().flatten()
        });
        let document = map([
            ("name", Some(wrapper.name.as_str().into())),
            ("on", Some(triggers(&wrapper.triggers))),
            // Whatever is not listed below is not given.
            ("permissions", Some(Yaml::Map(Vec::new()))),
            ("jobs", some_map(jobs)),
        ]);
        let path = format!(".github/workflows/{}.yml", wrapper.name);
        Ok(Rendered::new(&path, document.document(&header(wrapper)), notes(wrapper)))
    }
}

impl GitHub {
    fn job(&self, wrapper: &Wrapper, job: &Job, condition: Option<String>) -> Yaml {
        let outputs =
            job.outputs.iter().map(|name| (name, format!("${{{{ steps.deployer.outputs.{name} }}}}").into()));
        map([
            ("if", condition.map(Yaml::from)),
            ("runs-on", Some(self.runner.as_str().into())),
            ("needs", some_list(job.needs.iter().map(super::text::Label::as_str))),
            ("timeout-minutes", Some(job.timeout_minutes.into())),
            ("permissions", Some(permissions(job))),
            ("environment", job.environment.as_ref().map(environment)),
            ("concurrency", job.concurrency.as_ref().map(|concurrency| self.concurrency(concurrency))),
            ("outputs", some_map(outputs)),
            ("steps", some_list(self.steps(wrapper, job))),
        ])
    }

    fn concurrency(&self, concurrency: &Concurrency) -> Yaml {
        let queue = concurrency.policy == Later::Queue;
        map([
            ("group", Some(per_change(concurrency.group.as_str(), concurrency.per_change).into())),
            ("cancel-in-progress", Some((!queue).into())),
            ("queue", (queue && self.queue).then(|| "max".into())),
        ])
    }

    fn steps(&self, wrapper: &Wrapper, job: &Job) -> Vec<Yaml> {
        let writes = job.permissions.get(&Scope::Contents) == Some(&Access::Write);
        let credentials = map([("persist-credentials", Some(false.into()))]);
        let checkout = map([
            ("name", Some("Check out".into())),
            ("uses", Some(self.checkout.as_str().into())),
            ("with", (!writes).then_some(credentials)),
        ]);
        let cache = job.cache.as_ref().map(|cache| {
            map([
                ("name", Some("Keep the deployer between runs".into())),
                ("uses", Some(self.cache.as_str().into())),
                (
                    "with",
                    Some(map([("path", Some(cache.path.as_str().into())), ("key", Some(key(cache).into()))])),
                ),
            ])
        });
        let env = step_env(wrapper, job);
        let call = map([
            ("name", Some(job.id.as_str().into())),
            ("id", Some("deployer".into())),
            ("run", Some(format!("exec {}", shell::line(&job.call)).into())),
            ("env", env.clone()),
        ]);
        let clean_up = (!job.clean_up.is_empty()).then(|| {
            map([
                ("name", Some("Clean up".into())),
                ("if", Some("failure() || cancelled()".into())),
                ("run", Some(format!("exec {}", shell::line(&job.clean_up)).into())),
                ("env", env),
            ])
        });
        [Some(checkout), cache, Some(call), clean_up].into_iter().flatten().collect()
    }
}

const CLOSED: &str = "github.event_name == 'pull_request' && github.event.action == 'closed'";

/// Whether the end of a pull request runs the job's stop instead of the job.
fn closes(wrapper: &Wrapper, job: &Job) -> bool {
    job.stopping().is_some()
        && wrapper.triggers.pull_request.contains(&PullRequestEvent::Closed)
        && job.runs_for(&wrapper.triggers).contains(&Trigger::PullRequest)
}

/// What starts the job, if that is not everything that starts the workflow.
fn condition(wrapper: &Wrapper, job: &Job) -> Option<String> {
    let (runs, closes) = (job.runs_for(&wrapper.triggers), closes(wrapper, job));
    if runs == wrapper.triggers.all() && !closes {
        return None;
    }
    let events = runs.iter().map(|trigger| match trigger {
        Trigger::Push => "github.event_name == 'push'",
        Trigger::PullRequest if closes => {
            "github.event_name == 'pull_request' && github.event.action != 'closed'"
        }
        Trigger::PullRequest => "github.event_name == 'pull_request'",
        Trigger::Schedule => "github.event_name == 'schedule'",
        Trigger::Manual => "github.event_name == 'workflow_dispatch'",
    });
    Some(events.collect::<Vec<_>>().join(" || "))
}

fn notes(wrapper: &Wrapper) -> Vec<String> {
    let mut notes = Vec::new();
    for job in &wrapper.jobs {
        let Some(stop) = job.environment.as_ref().and_then(|environment| environment.stop.as_ref()) else {
            continue;
        };
        if !closes(wrapper, job) {
            notes.push(format!(
                "job `{}`: its stop is called when a pull request is closed; add that to the triggers",
                job.id
            ));
        }
        if stop.after_hours.is_some() {
            notes.push(format!("job `{}`: GitHub stops nothing by its age; let the deployer do it", job.id));
        }
    }
    notes
}

fn triggers(triggers: &Triggers) -> Yaml {
    let types = triggers.pull_request.iter().map(|event| match event {
        PullRequestEvent::Opened => "opened",
        PullRequestEvent::Synchronize => "synchronize",
        PullRequestEvent::Reopened => "reopened",
        PullRequestEvent::Closed => "closed",
    });
    let branches = triggers.push.iter().map(super::text::Branches::as_str);
    let crons = triggers.schedule.iter().map(|cron| map([("cron", Some(cron.as_str().into()))]));
    // A workflow must be startable by something.
    let nothing =
        triggers.push.is_empty() && triggers.pull_request.is_empty() && triggers.schedule.is_empty();
    map([
        ("push", some_list(branches).map(|branches| map([("branches", Some(branches))]))),
        ("pull_request", some_list(types).map(|types| map([("types", Some(types))]))),
        ("schedule", some_list(crons)),
        ("workflow_dispatch", (triggers.manual || nothing).then(|| Yaml::Map(Vec::new()))),
    ])
}

fn permissions(job: &Job) -> Yaml {
    let name = |scope: &Scope| match scope {
        Scope::Checks => "checks",
        Scope::Contents => "contents",
        Scope::Deployments => "deployments",
        Scope::Issues => "issues",
        Scope::Packages => "packages",
        Scope::PullRequests => "pull-requests",
        Scope::Statuses => "statuses",
    };
    let access = |access: &Access| if *access == Access::Write { "write" } else { "read" };
    let declared = job.permissions.iter().map(|(scope, level)| (name(scope), access(level).into()));
    let identity = job.identity.iter().map(|_| ("id-token", "write".into()));
    some_map(declared.chain(identity)).unwrap_or(Yaml::Map(Vec::new()))
}

/// The number is given by the forge and has only digits.
fn per_change(name: &str, per_change: bool) -> String {
    if per_change {
        format!("{name}-${{{{ github.event.pull_request.number || github.run_id }}}}")
    } else {
        name.to_owned()
    }
}

fn environment(environment: &Environment) -> Yaml {
    let url = environment.url.as_ref().map(|url| match url {
        Url::Fixed(url) => url.as_str().into(),
        Url::Output(name) => format!("${{{{ steps.deployer.outputs.{name} }}}}").into(),
    });
    let name = per_change(environment.name.as_str(), environment.per_change);
    map([("name", Some(name.into())), ("url", url)])
}

fn key(cache: &Cache) -> String {
    let key = format!("{}-${{{{ runner.os }}}}", cache.key);
    if cache.files.is_empty() {
        key
    } else {
        let files = cache.files.iter().map(|file| format!("'{}'", file.as_str().replace('\'', "''")));
        format!("{key}-${{{{ hashFiles({}) }}}}", files.collect::<Vec<_>>().join(", "))
    }
}

/// Only the deployer sees these, not the actions beside it. What the runner gives by itself (branch, commit) isn't repeated.
fn step_env(wrapper: &Wrapper, job: &Job) -> Option<Yaml> {
    let change = [
        ("FLOWLINE_CHANGE", "${{ github.event.pull_request.number }}"),
        ("FLOWLINE_CHANGE_TITLE", "${{ github.event.pull_request.title }}"),
    ];
    let asked = job.runs_for(&wrapper.triggers).contains(&Trigger::PullRequest);
    let change = change.iter().filter(|_| asked);
    let audience =
        job.identity.iter().map(|identity| ("FLOWLINE_AUDIENCE", identity.audience.as_str().into()));
    let inputs = job.inputs.iter().map(|(name, from)| {
        (name.as_str(), format!("${{{{ needs.{}.outputs.{} }}}}", from.job, from.output).into())
    });
    some_map(
        change
            .map(|(name, value)| (*name, Yaml::from(*value)))
            .chain(audience)
            .chain(inputs)
            .chain(job.env.iter().map(|(name, value)| (name.as_str(), value.as_str().into())))
            .chain(
                job.secrets.iter().map(|name| (name.as_str(), format!("${{{{ secrets.{name} }}}}").into())),
            ),
    )
}
