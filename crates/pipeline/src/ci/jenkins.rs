//! Jenkins: a declarative `Jenkinsfile` for a multibranch pipeline, one stage for each job.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    CiKind, CiTarget, RenderError, Rendered, header, shell,
    wrapper::{Job, Later, PullRequestEvent, Trigger, Triggers, Wrapper},
};

/// The file that carries outputs.
const OUTPUTS: &str = "flowline.env";

/// Renders `Jenkinsfile`. Stages run one after another. A queue needs the plugin Lockable Resources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jenkins {
    /// The file.
    pub path: String,
    /// The label of the agent; any without.
    pub label: Option<String>,
}

impl Default for Jenkins {
    fn default() -> Self {
        Self { path: "Jenkinsfile".to_owned(), label: None }
    }
}

impl CiTarget for Jenkins {
    fn kind(&self) -> CiKind {
        CiKind::Jenkins
    }

    fn render(&self, wrapper: &Wrapper) -> Result<Rendered, RenderError> {
        wrapper.check()?;
        let cancels = wrapper.jobs.iter().any(cancels);
        if let Some(job) = wrapper.jobs.iter().find(|job| cancels && !self::cancels(job)) {
            return Err(RenderError::NotExpressible {
                system: CiKind::Jenkins,
                job: job.id.clone(),
                what: "that it goes on when another job is cancelled by a newer build".to_owned(),
                instead: "a newer build aborts all of the older one: put the jobs that cancel into a wrapper of their own",
            });
        }
        let mut text = String::new();
        let mut block = Block { text: &mut text, indent: 0 };
        for line in header(wrapper) {
            block.line(&format!("// {line}"));
        }
        let stages: Vec<_> =
            wrapper.jobs.iter().map(|job| stage_lines(wrapper, job)).collect::<Result<_, _>>()?;
        block.nest("pipeline", |pipeline| {
            match &self.label {
                Some(label) => {
                    pipeline.nest("agent", |agent| agent.line(&format!("label {}", groovy(label))));
                }
                None => pipeline.line("agent any"),
            }
            if cancels {
                pipeline.nest("options", |options| {
                    options.line("disableConcurrentBuilds(abortPrevious: true)");
                });
            }
            if !wrapper.triggers.schedule.is_empty() {
                let zone = ["TZ=Etc/UTC"].into_iter();
                let times = zone.chain(wrapper.triggers.schedule.iter().map(super::text::Cron::as_str));
                let times = times.collect::<Vec<_>>().join("\n");
                pipeline.nest("triggers", |triggers| {
                    triggers.line(&format!("cron({})", groovy(&times)));
                });
            }
            pipeline.nest("stages", |all| stages.iter().for_each(|stage| stage.write(all)));
        });
        Ok(Rendered::new(&self.path, text, notes(wrapper)))
    }
}

/// What stands in one stage, settled before anything is written.
struct Stage<'a> {
    job: &'a Job,
    triggers: &'a Triggers,
    environment: Vec<String>,
}

fn stage_lines<'a>(wrapper: &'a Wrapper, job: &'a Job) -> Result<Stage<'a>, RenderError> {
    let refuse = |what: String, instead| {
        Err(RenderError::NotExpressible { system: CiKind::Jenkins, job: job.id.clone(), what, instead })
    };
    if job.identity.is_some() {
        return refuse("an identity".to_owned(), "name a credential among `secrets`");
    }
    if let Some(name) = job.inputs.keys().next() {
        return refuse(format!("an input (`{name}`)"), "let the deployer read it from its own records");
    }
    let mut environment = Vec::new();
    if !job.outputs.is_empty() {
        environment.push(format!("FLOWLINE_OUTPUT = {}", groovy(OUTPUTS)));
    }
    for (name, value) in &job.env {
        // Jenkins expands variables in these values, quoted or not.
        if value.as_str().contains('$') {
            return refuse(
                format!("`$` in the value of `{name}`"),
                "let the deployer read the value from a file",
            );
        }
        environment.push(format!("{name} = {}", groovy(value.as_str())));
    }
    environment
        .extend(job.secrets.iter().map(|name| format!("{name} = credentials({})", groovy(name.as_str()))));
    Ok(Stage { job, triggers: &wrapper.triggers, environment })
}

impl Stage<'_> {
    fn write(&self, stages: &mut Block<'_>) {
        let job = self.job;
        stages.nest(&format!("stage({})", groovy(job.id.as_str())), |stage| {
            let runs = job.runs_for(self.triggers);
            stage.nest("when", |when| {
                when.line("beforeAgent true");
                if !runs.contains(&Trigger::PullRequest) {
                    // A person or the time may start the build of a change, too.
                    when.line("not { changeRequest() }");
                }
                let conditions = conditions(self.triggers, &runs);
                when.nest("anyOf", |any| {
                    for lines in &conditions {
                        match lines.as_slice() {
                            [line] => any.line(line),
                            lines => any.nest("allOf", |all| lines.iter().for_each(|line| all.line(line))),
                        }
                    }
                });
            });
            stage.nest("options", |options| {
                options.line(&format!("timeout(time: {}, unit: 'MINUTES')", job.timeout_minutes));
                if let Some(queue) = job.concurrency.as_ref().filter(|group| group.policy == Later::Queue) {
                    options.line(&format!("lock(resource: {})", groovy(queue.group.as_str())));
                }
            });
            if !self.environment.is_empty() {
                stage.nest("environment", |environment| {
                    self.environment.iter().for_each(|line| environment.line(line));
                });
            }
            stage.nest("steps", |steps| steps.line(&call(&shell::line(&job.call))));
            if !job.clean_up.is_empty() || !job.outputs.is_empty() {
                stage.nest("post", |post| {
                    if !job.outputs.is_empty() {
                        post.nest("success", |success| {
                            success.line(&format!("archiveArtifacts artifacts: {}", groovy(OUTPUTS)));
                        });
                    }
                    if !job.clean_up.is_empty() {
                        post.nest("unsuccessful", |post| post.line(&call(&shell::line(&job.clean_up))));
                    }
                });
            }
        });
    }
}

fn call(line: &str) -> String {
    format!("sh {}", groovy(line))
}

fn cancels(job: &Job) -> bool {
    job.concurrency.as_ref().is_some_and(|concurrency| concurrency.policy == Later::CancelRunning)
}

/// Each is enough, if all of its lines hold. What a build is of and what started it are two things here: a build of `main` may be started
/// by a push, by the time or by a person.
fn conditions(triggers: &Triggers, runs: &BTreeSet<Trigger>) -> Vec<Vec<String>> {
    const TIME: &str = "triggeredBy 'TimerTrigger'";
    const PERSON: &str = "triggeredBy cause: 'UserIdCause'";
    let branches = triggers.push.iter().map(|branch| format!("branch {}", groovy(branch.as_str())));
    let branches: Vec<_> = branches.collect();
    let mut conditions = Vec::new();
    if runs.contains(&Trigger::Push) {
        let others = [(Trigger::Schedule, TIME), (Trigger::Manual, PERSON)];
        let others = others.iter().filter(|(trigger, _)| !runs.contains(trigger));
        let others: Vec<_> = others.map(|(_, cause)| format!("not {{ {cause} }}")).collect();
        conditions
            .extend(branches.iter().map(|branch| [std::slice::from_ref(branch), others.as_slice()].concat()));
    }
    if runs.contains(&Trigger::PullRequest) {
        conditions.push(vec!["changeRequest()".to_owned()]);
    }
    if runs.contains(&Trigger::Schedule) {
        // The time starts a build of every branch, also of those that nobody named.
        if branches.is_empty() {
            conditions.push(vec![TIME.to_owned()]);
        } else if !runs.contains(&Trigger::Push) {
            conditions.extend(branches.iter().map(|branch| vec![branch.clone(), TIME.to_owned()]));
        }
    }
    if runs.contains(&Trigger::Manual) {
        conditions.push(vec![PERSON.to_owned()]);
    }
    conditions
}

/// A Groovy string in single quotes, in which nothing is interpolated.
fn groovy(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n");
    format!("'{escaped}'")
}

struct Block<'a> {
    text: &'a mut String,
    indent: usize,
}

impl Block<'_> {
    fn line(&mut self, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{:1$}{line}", "", self.indent);
    }

    fn nest(&mut self, name: &str, write: impl FnOnce(&mut Block<'_>)) {
        self.line(&format!("{name} {{"));
        write(&mut Block { text: self.text, indent: self.indent + 4 });
        self.line("}");
    }
}

fn notes(wrapper: &Wrapper) -> Vec<String> {
    let mut notes = Vec::new();
    if wrapper.triggers.pull_request.contains(&PullRequestEvent::Closed) {
        notes.push("Jenkins starts nothing when a change is closed: give previews a time to live".to_owned());
    }
    if !wrapper.triggers.push.is_empty() || !wrapper.triggers.pull_request.is_empty() {
        notes.push("which pushes and changes start a build is set in the multibranch project".to_owned());
    }
    for job in &wrapper.jobs {
        if job.concurrency.as_ref().is_some_and(|group| group.policy == Later::Queue) {
            notes.push(format!("job `{}`: its lock needs the plugin Lockable Resources", job.id));
        }
        if job.concurrency.as_ref().is_some_and(|group| group.per_change) {
            notes.push(format!(
                "job `{}`: each change builds in a project of its own; its group is not split",
                job.id
            ));
        }
        if job.stopping().is_some() {
            notes.push(format!(
                "job `{}`: Jenkins stops no environments; let the deployer end them by their age",
                job.id
            ));
        }
        if job.environment.is_some() {
            notes.push(format!(
                "job `{}`: Jenkins has no environments; the deployer keeps the history",
                job.id
            ));
        }
        if job.cache.is_some() {
            notes.push(format!(
                "job `{}`: nothing is cached; the agent's workspace persists by itself",
                job.id
            ));
        }
        if !job.permissions.is_empty() {
            notes
                .push(format!("job `{}`: rights on the forge are those of the project's credential", job.id));
        }
    }
    notes
}
