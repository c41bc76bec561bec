//! GitLab CI: one file with a job for each job.

use std::collections::BTreeSet;

use super::{
    CiKind, CiTarget, RenderError, Rendered, header, shell,
    wrapper::{
        Access, Cache, Environment, Job, Later, PullRequestEvent, Scope, Stop, Trigger, Triggers, Url,
        Wrapper,
    },
    yaml::{Yaml, map, some_list, some_map},
};

/// The file that carries outputs to other jobs.
const OUTPUTS: &str = "flowline.env";
/// The file that carries annotations to the merge request.
const FINDINGS: &str = "gl-code-quality-report.json";

/// Renders `.gitlab-ci.yml`, or another path that it includes.
///
/// GitLab gives branch, title and number of a merge request in the environment by itself; the file doesn't repeat them, because variables
/// that refer to others are expanded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitLab {
    /// The file.
    pub path: String,
    /// The image that jobs run in, if the runner needs to be told.
    pub image: Option<String>,
    /// The tags that choose a runner.
    pub tags: Vec<String>,
}

impl Default for GitLab {
    fn default() -> Self {
        Self { path: ".gitlab-ci.yml".to_owned(), image: None, tags: Vec::new() }
    }
}

impl CiTarget for GitLab {
    fn kind(&self) -> CiKind {
        CiKind::GitLab
    }

    fn render(&self, wrapper: &Wrapper) -> Result<Rendered, RenderError> {
        wrapper.check()?;
        // An output reaches the jobs that need its job as a variable of the same name.
        for job in &wrapper.jobs {
            if let Some((name, from)) = job.inputs.iter().find(|(name, from)| **name != from.output) {
                return Err(RenderError::NotExpressible {
                    system: CiKind::GitLab,
                    job: job.id.clone(),
                    what: format!("that output `{}` becomes `{name}`", from.output),
                    instead: "give the input the name of the output",
                });
            }
        }
        // Said in any case: by default GitLab cancels a pipeline on a new commit as long as none of its other jobs has begun, and one that
        // waits for its group has not.
        let cancelled = if wrapper.jobs.iter().any(cancels) { "interruptible" } else { "none" };
        let auto_cancel = map([("on_new_commit", Some(cancelled.into()))]);
        let all = rules(&wrapper.triggers, &wrapper.triggers.all(), false);
        let workflow = map([("auto_cancel", Some(auto_cancel)), ("rules", Some(all))]);
        let mut entries = vec![("workflow".to_owned(), workflow)];
        for job in &wrapper.jobs {
            entries.push((job.id.to_string(), self.job(wrapper, job)));
            entries.extend(self.stopping(wrapper, job));
        }
        let text = Yaml::Map(entries).document(&header(wrapper));
        Ok(Rendered::new(&self.path, text, notes(wrapper)))
    }
}

impl GitLab {
    /// The job that GitLab runs to end the environment of `job`. A person can start it, too.
    fn stopping(&self, wrapper: &Wrapper, job: &Job) -> Option<(String, Yaml)> {
        let mut stopping = job.stopping()?;
        let name =
            job.environment.as_ref().map(|it| per_change(wrapper, job, it.name.as_str(), it.per_change))?;
        // A new commit must not cancel what is to end.
        stopping.concurrency.take_if(|concurrency| concurrency.policy == Later::CancelRunning);
        stopping.environment = None;
        let Yaml::Map(mut pairs) = self.job(wrapper, &stopping) else { return None };
        pairs.retain(|(key, _)| key != "rules" && key != "needs");
        let environment = map([("name", Some(name.into())), ("action", Some("stop".into()))]);
        let by_hand = rules(&wrapper.triggers, &job.runs_for(&wrapper.triggers), true);
        // It waits for nothing, and nothing waits for it.
        let rest = [("needs", Yaml::List(Vec::new())), ("rules", by_hand), ("environment", environment)];
        pairs.splice(0..0, rest.map(|(key, value)| (key.to_owned(), value)));
        Some((stopping.id.to_string(), Yaml::Map(pairs)))
    }

    fn job(&self, wrapper: &Wrapper, job: &Job) -> Yaml {
        let queue = job.concurrency.as_ref().filter(|concurrency| concurrency.policy == Later::Queue);
        let group = queue.map(|it| per_change(wrapper, job, it.group.as_str(), it.per_change).into());
        let runs = job.runs_for(&wrapper.triggers);
        let fewer = runs != wrapper.triggers.all();
        let token = job.identity.as_ref().map(|identity| {
            let audience = map([("aud", Some(identity.audience.as_str().into()))]);
            map([("FLOWLINE_ID_TOKEN", Some(audience))])
        });
        let outputs = (!job.outputs.is_empty()).then(|| OUTPUTS.into());
        let reports = map([("codequality", Some(FINDINGS.into())), ("dotenv", outputs)]);
        // Also of a job that failed, which is what its annotations are about.
        let artifacts = map([("when", Some("always".into())), ("reports", Some(reports))]);
        let clean_up = (!job.clean_up.is_empty()).then(|| shell::line(&job.clean_up));
        map([
            ("image", self.image.as_deref().map(Yaml::from)),
            ("tags", some_list(self.tags.iter().map(String::as_str))),
            ("rules", fewer.then(|| rules(&wrapper.triggers, &runs, false))),
            ("needs", some_list(job.needs.iter().map(super::text::Label::as_str))),
            ("timeout", Some(format!("{} minutes", job.timeout_minutes).into())),
            ("interruptible", cancels(job).then(|| true.into())),
            ("resource_group", group),
            ("environment", job.environment.as_ref().map(|it| environment(wrapper, job, it))),
            ("id_tokens", token),
            ("variables", variables(job)),
            ("cache", job.cache.as_ref().map(cache)),
            ("script", some_list([shell::line(&job.call)])),
            ("after_script", some_list(clean_up)),
            ("artifacts", Some(artifacts)),
        ])
    }
}

fn cancels(job: &Job) -> bool {
    job.concurrency.as_ref().is_some_and(|concurrency| concurrency.policy == Later::CancelRunning)
}

/// When something runs: for those of the triggers that are `of`; `by_hand`, it waits for a person or for GitLab itself.
fn rules(triggers: &Triggers, of: &BTreeSet<Trigger>, by_hand: bool) -> Yaml {
    let source = |source: &str| format!("$CI_PIPELINE_SOURCE == \"{source}\"");
    let mut conditions = Vec::new();
    for branches in triggers.push.iter().filter(|_| of.contains(&Trigger::Push)) {
        let branch = match branches.as_str() {
            pattern if pattern.contains('*') => format!("=~ /^{}$/", expression(pattern)),
            branch => format!("== \"{branch}\""),
        };
        conditions.push(format!("{} && $CI_COMMIT_BRANCH {branch}", source("push")));
    }
    if of.contains(&Trigger::PullRequest) {
        conditions.push(source("merge_request_event"));
    }
    if of.contains(&Trigger::Schedule) {
        conditions.push(source("schedule"));
    }
    if of.contains(&Trigger::Manual) {
        conditions.push(source("web"));
    }
    let rule = |condition: String| {
        map([
            ("if", Some(condition.into())),
            ("when", by_hand.then(|| "manual".into())),
            // Otherwise the pipeline would stand until somebody starts it.
            ("allow_failure", by_hand.then(|| true.into())),
        ])
    };
    Yaml::List(conditions.into_iter().map(rule).collect())
}

/// `release/*` as a regular expression.
fn expression(pattern: &str) -> String {
    pattern.replace('.', "\\.").replace('/', "\\/").replace('*', "[^\\/]*")
}

/// The number is there in pipelines of merge requests only. Whatever also runs in others is named by its branch, which both have.
fn per_change(wrapper: &Wrapper, job: &Job, name: &str, per_change: bool) -> String {
    if !per_change {
        return name.to_owned();
    }
    let only = BTreeSet::from([Trigger::PullRequest]);
    let each =
        if job.runs_for(&wrapper.triggers) == only { "$CI_MERGE_REQUEST_IID" } else { "$CI_COMMIT_REF_SLUG" };
    format!("{name}-{each}")
}

fn environment(wrapper: &Wrapper, job: &Job, environment: &Environment) -> Yaml {
    let url = environment.url.as_ref().map(|url| match url {
        // GitLab expands variables here, so a `$` that stands for itself is doubled.
        Url::Fixed(url) => url.as_str().replace('$', "$$").into(),
        Url::Output(name) => format!("${name}").into(),
    });
    let name = per_change(wrapper, job, environment.name.as_str(), environment.per_change);
    let hours = environment.stop.as_ref().and_then(|stop: &Stop| stop.after_hours);
    map([
        ("name", Some(name.into())),
        ("url", url),
        ("on_stop", job.stopping().map(|stopping| stopping.id.as_str().into())),
        ("auto_stop_in", hours.map(|hours| format!("{hours} hours").into())),
    ])
}

fn variables(job: &Job) -> Option<Yaml> {
    let findings = ("FLOWLINE_CODE_QUALITY", FINDINGS.into());
    let outputs = (!job.outputs.is_empty()).then(|| ("FLOWLINE_OUTPUT", OUTPUTS.into()));
    let constants = job.env.iter().map(|(name, value)| {
        let text = value.as_str();
        let fixed = map([("value", Some(text.into())), ("expand", Some(false.into()))]);
        (name.as_str(), if text.contains('$') { fixed } else { text.into() })
    });
    some_map([findings].into_iter().chain(outputs).chain(constants))
}

fn cache(cache: &Cache) -> Yaml {
    let files = some_list(cache.files.iter().take(2).map(super::text::Constant::as_str));
    let key = match files {
        Some(files) => map([("files", Some(files)), ("prefix", Some(cache.key.as_str().into()))]),
        None => cache.key.as_str().into(),
    };
    map([("key", Some(key)), ("paths", some_list([cache.path.as_str()]))])
}

fn notes(wrapper: &Wrapper) -> Vec<String> {
    let mut notes = Vec::new();
    let triggers = &wrapper.triggers;
    if !triggers.schedule.is_empty() {
        let times: Vec<_> = triggers.schedule.iter().map(|cron| format!("`{cron}`")).collect();
        notes.push(format!(
            "GitLab keeps schedules outside of files: add {} in the project",
            times.join(", ")
        ));
    }
    for job in &wrapper.jobs {
        let endless = |environment: &Environment| environment.per_change && environment.stop.is_none();
        if triggers.pull_request.contains(&PullRequestEvent::Closed)
            && job.environment.as_ref().is_some_and(endless)
        {
            notes.push(format!(
                "job `{}`: when a merge request is closed GitLab runs only the stop of its environment; give it one",
                job.id
            ));
        }
        if !job.secrets.is_empty() {
            let names: Vec<_> = job.secrets.iter().map(|name| format!("`{name}`")).collect();
            let names = names.join(", ");
            notes
                .push(format!("job `{}`: set {names} as masked, protected variables of the project", job.id));
        }
        if job.permissions.iter().any(|(scope, access)| *scope != Scope::Contents || *access == Access::Write)
        {
            notes.push(format!("job `{}`: rights of the job token are set in the project", job.id));
        }
        if job.concurrency.as_ref().is_some_and(|concurrency| concurrency.policy == Later::Queue) {
            notes.push(format!(
                "job `{}`: set the process mode of its resource group to `oldest_first` through the API",
                job.id
            ));
        }
        if job.cache.as_ref().is_some_and(|cache| cache.files.len() > 2) {
            notes.push(format!("job `{}`: a cache key takes two files; the first two are used", job.id));
        }
    }
    notes
}
