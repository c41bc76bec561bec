//! Azure Pipelines: one stage for each job, so that each can have a lock of its own.

use super::{
    CiKind, CiTarget, RenderError, Rendered, header, shell,
    text::{Constant, Label},
    wrapper::{Access, Environment, Job, Later, PullRequestEvent, Scope, Trigger, Triggers, Wrapper},
    yaml::{Yaml, map, some_list, some_map},
};

/// Renders `azure-pipelines.yml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Azure {
    /// The file.
    pub path: String,
    /// The image of the hosted agent.
    pub image: String,
    /// The id of the service connection whose identity jobs take that ask for one. The deployer finds it in `FLOWLINE_SERVICE_CONNECTION`.
    pub service_connection: Option<Constant>,
}

impl Default for Azure {
    fn default() -> Self {
        Self {
            path: "azure-pipelines.yml".to_owned(),
            image: "ubuntu-latest".to_owned(),
            service_connection: None,
        }
    }
}

impl CiTarget for Azure {
    fn kind(&self) -> CiKind {
        CiKind::Azure
    }

    fn render(&self, wrapper: &Wrapper) -> Result<Rendered, RenderError> {
        wrapper.check()?;
        let pr = !wrapper.triggers.pull_request.is_empty();
        let document = map([
            ("trigger", Some(branches(wrapper.triggers.push.iter().map(super::text::Branches::as_str)))),
            ("pr", Some(branches(pr.then_some("*")))),
            ("schedules", some_list(schedules(&wrapper.triggers))),
            ("pool", Some(map([("vmImage", Some(self.image.as_str().into()))]))),
            ("stages", some_list(wrapper.jobs.iter().map(|job| self.stage(wrapper, job)))),
        ]);
        Ok(Rendered::new(&self.path, document.document(&header(wrapper)), self.notes(wrapper)))
    }
}

fn branches<'a>(names: impl IntoIterator<Item = &'a str>) -> Yaml {
    match some_list(names) {
        Some(names) => map([("branches", Some(map([("include", Some(names))])))]),
        None => "none".into(),
    }
}

fn schedules(triggers: &Triggers) -> Vec<Yaml> {
    let include = some_list(triggers.push.iter().map(super::text::Branches::as_str));
    let include = include.or_else(|| some_list(["main"]));
    let one = |cron: &super::text::Cron| {
        map([
            ("cron", Some(cron.as_str().into())),
            ("displayName", Some(format!("at {cron}").into())),
            ("branches", Some(map([("include", include.clone())]))),
            ("always", Some("true".into())),
        ])
    };
    triggers.schedule.iter().map(one).collect()
}

/// Names here know no hyphen.
fn name(label: &Label) -> String {
    label.as_str().replace('-', "_")
}

/// The environment that makes a job a deployment job.
fn fixed(job: &Job) -> Option<&Environment> {
    job.environment.as_ref().filter(|environment| !environment.per_change)
}

/// Outputs of other stages, as variables of the job.
fn variables(wrapper: &Wrapper, job: &Job) -> Option<Yaml> {
    some_map(job.inputs.iter().map(|(variable, from)| {
        let (source, output) = (name(&from.job), &from.output);
        let deployment = wrapper.jobs.iter().any(|job| job.id == from.job && fixed(job).is_some());
        // A deployment job's outputs have its name before them.
        let before = if deployment { format!("{source}.") } else { String::new() };
        let value = format!("$[ stageDependencies.{source}.{source}.outputs['{before}deployer.{output}'] ]");
        (variable.as_str(), value.into())
    }))
}

/// What starts the stage, if that is not everything that starts the pipeline. A condition of one's own takes the place of the usual one.
fn condition(wrapper: &Wrapper, job: &Job) -> Option<String> {
    let runs = job.runs_for(&wrapper.triggers);
    if runs == wrapper.triggers.all() {
        return None;
    }
    let reasons = runs.iter().map(|trigger| match trigger {
        Trigger::Push => "'IndividualCI', 'BatchedCI'",
        Trigger::PullRequest => "'PullRequest'",
        Trigger::Schedule => "'Schedule'",
        Trigger::Manual => "'Manual'",
    });
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    Some(format!("and(succeeded(), in(variables['Build.Reason'], {reasons}))"))
}

impl Azure {
    fn stage(&self, wrapper: &Wrapper, job: &Job) -> Yaml {
        let lock = job.concurrency.as_ref().map(|concurrency| match concurrency.policy {
            Later::Queue => "sequential",
            Later::CancelRunning => "runLatest",
        });
        // Without this, each stage would wait for the one before it.
        let needs = Yaml::List(job.needs.iter().map(|needs| name(needs).into()).collect());
        map([
            ("stage", Some(name(&job.id).into())),
            ("dependsOn", Some(needs)),
            ("condition", condition(wrapper, job).map(Yaml::from)),
            ("lockBehavior", lock.map(Yaml::from)),
            ("jobs", some_list([self.work(wrapper, job)])),
        ])
    }

    fn work(&self, wrapper: &Wrapper, job: &Job) -> Yaml {
        let variables = variables(wrapper, job);
        let steps = some_list(self.steps(job));
        // The schema takes numbers and truth values only as text.
        let timeout = Some(job.timeout_minutes.to_string().into());
        match fixed(job) {
            Some(environment) => map([
                ("deployment", Some(name(&job.id).into())),
                ("timeoutInMinutes", timeout),
                ("environment", Some(environment.name.as_str().into())),
                ("variables", variables),
                (
                    "strategy",
                    Some(map([("runOnce", Some(map([("deploy", Some(map([("steps", steps)])))])))])),
                ),
            ]),
            None => map([
                ("job", Some(name(&job.id).into())),
                ("timeoutInMinutes", timeout),
                ("variables", variables),
                ("steps", steps),
            ]),
        }
    }

    fn steps(&self, job: &Job) -> Vec<Yaml> {
        let writes = job.permissions.get(&Scope::Contents) == Some(&Access::Write);
        let checkout =
            map([("checkout", Some("self".into())), ("persistCredentials", Some(writes.to_string().into()))]);
        let cache = job.cache.as_ref().map(|cache| {
            let mut parts = vec![format!("\"{}\"", cache.key), "\"$(Agent.OS)\"".to_owned()];
            parts.extend(cache.files.iter().map(|file| file.as_str().to_owned()));
            let key = parts.join(" | ");
            let inputs = map([("key", Some(key.into())), ("path", Some(cache.path.as_str().into()))]);
            map([
                ("task", Some("Cache@2".into())),
                ("displayName", Some("Keep the deployer between runs".into())),
                ("inputs", Some(inputs)),
            ])
        });
        let call = map([
            ("bash", Some(shell::line(&job.call).into())),
            ("name", Some("deployer".into())),
            ("displayName", Some(job.id.as_str().into())),
            ("env", self.env(job)),
        ]);
        let clean_up = (!job.clean_up.is_empty()).then(|| {
            map([
                ("bash", Some(shell::line(&job.clean_up).into())),
                ("displayName", Some("Clean up".into())),
                ("condition", Some("or(failed(), canceled())".into())),
                ("env", self.env(job)),
            ])
        });
        [Some(checkout), cache, Some(call), clean_up].into_iter().flatten().collect()
    }

    fn env(&self, job: &Job) -> Option<Yaml> {
        let token = job.identity.iter().flat_map(|identity| {
            [
                // With it the deployer asks `SYSTEM_OIDCREQUESTURI` for a token of its service connection.
                ("SYSTEM_ACCESSTOKEN", "$(System.AccessToken)".into()),
                ("FLOWLINE_AUDIENCE", identity.audience.as_str().into()),
            ]
            .into_iter()
            .chain(
                self.service_connection
                    .iter()
                    .map(|connection| ("FLOWLINE_SERVICE_CONNECTION", connection.as_str().into())),
            )
        });
        some_map(
            token.chain(job.env.iter().map(|(name, value)| (name.as_str(), value.as_str().into()))).chain(
                job.secrets
                    .iter()
                    .chain(job.inputs.keys())
                    .map(|name| (name.as_str(), format!("$({name})").into())),
            ),
        )
    }

    fn notes(&self, wrapper: &Wrapper) -> Vec<String> {
        let mut notes = Vec::new();
        if wrapper.triggers.pull_request.contains(&PullRequestEvent::Closed) {
            notes.push(
                "Azure starts nothing when a pull request is closed: give previews a time to live".to_owned(),
            );
        }
        if !wrapper.triggers.pull_request.is_empty() {
            notes.push(
                "Azure Repos ignores `pr:`; add a build validation policy to the branch there".to_owned(),
            );
        }
        for job in &wrapper.jobs {
            if job.concurrency.is_some() {
                notes.push(format!(
                    "job `{}`: `lockBehavior` acts through an exclusive lock check; add one to its environment",
                    job.id
                ));
            }
            if job.environment.as_ref().is_some_and(|environment| environment.per_change) {
                notes.push(format!(
                    "job `{}`: Azure has no environments made at run time; it is an ordinary job, and the deployer keeps the history",
                    job.id
                ));
            }
            if job.environment.as_ref().is_some_and(|environment| environment.url.is_some()) {
                notes.push(format!(
                    "job `{}`: an Azure environment shows no address; read it in the summary",
                    job.id
                ));
            }
            if !job.secrets.is_empty() {
                let names: Vec<_> = job.secrets.iter().map(|name| format!("`{name}`")).collect();
                notes.push(format!(
                    "job `{}`: set {} as secret variables of the pipeline; one that is not set arrives as its own name, `$(NAME)`",
                    job.id,
                    names.join(", ")
                ));
            }
            if job.identity.is_some() && self.service_connection.is_none() {
                notes.push(format!(
                    "job `{}`: an identity is that of a service connection (workload identity federation); give its id as `service_connection`",
                    job.id
                ));
            }
            if job.stopping().is_some() {
                notes.push(format!(
                    "job `{}`: Azure stops no environments; let the deployer end them by their age",
                    job.id
                ));
            }
            if job
                .permissions
                .iter()
                .any(|(scope, access)| *scope != Scope::Contents || *access == Access::Write)
            {
                notes.push(format!("job `{}`: rights of the job token are set in the project", job.id));
            }
        }
        notes
    }
}
