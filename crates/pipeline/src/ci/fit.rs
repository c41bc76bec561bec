//! Whether a wrapper fits together: the relations between its jobs that single values can't hold.

use std::collections::BTreeSet;

use flowline_core::error::{ErrorKind, Kinded};

use super::{
    text::{Label, TextError, Variable},
    wrapper::{Job, OutputOf, Trigger, Triggers, Url, Wrapper},
};

/// Why a wrapper doesn't fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WrapperError {
    /// A text can't stand in a CI file.
    #[error(transparent)]
    Text(#[from] TextError),
    /// There is no job.
    #[error("wrapper `{wrapper}` has no job; give it one call of the deployer")]
    Empty {
        /// The wrapper.
        wrapper: Label,
    },
    /// Two jobs have one name.
    #[error("two jobs are called `{job}`; rename one")]
    Twice {
        /// The name.
        job: Label,
    },
    /// A job needs one that doesn't stand before it.
    #[error("job `{job}` needs `{needs}`, which does not stand before it; add it there, or reorder the jobs")]
    Needs {
        /// The job.
        job: Label,
        /// What it needs.
        needs: Label,
    },
    /// A job needs one that is not started with it.
    #[error(
        "job `{job}` runs for things that its `{needs}` does not run for; let both be started by the same (`on`)"
    )]
    NeedsElsewhere {
        /// The job.
        job: Label,
        /// What it needs.
        needs: Label,
    },
    /// Nothing starts a job.
    #[error("nothing that starts the wrapper starts job `{job}`; add a trigger, or change its `on`")]
    Never {
        /// The job.
        job: Label,
    },
    /// A pull request would deploy to where it must not.
    #[error(
        "job `{job}` deploys to a lasting environment, which no pull request may; take `pull_request` out of its `on`, or make the environment `per_change`"
    )]
    Exposed {
        /// The job.
        job: Label,
    },
    /// A lasting environment would be stopped, or a stop says nothing.
    #[error(
        "job `{job}` stops an environment that lasts, or calls nothing to stop it, or at once; only one `per_change` ends, by a call, after 1 hour or more"
    )]
    Stop {
        /// The job.
        job: Label,
    },
    /// A job calls nothing.
    #[error("job `{job}` calls nothing; give it the deployer's command line")]
    NoCall {
        /// The job.
        job: Label,
    },
    /// A job has no time.
    #[error("job `{job}` has a time-out of 0 minutes; give it at least 1")]
    NoTime {
        /// The job.
        job: Label,
    },
    /// A job's address comes from an output that it doesn't declare.
    #[error(
        "job `{job}` shows the output `{output}` as its address but does not declare it; add it to `outputs`"
    )]
    UrlOutput {
        /// The job.
        job: Label,
        /// The output.
        output: Variable,
    },
    /// An input comes from an output that isn't there.
    #[error(
        "job `{job}` takes `{output}` of `{from}`; add `{from}` to its `needs` and `{output}` to the outputs there"
    )]
    Input {
        /// The job.
        job: Label,
        /// Where the input would come from.
        from: Label,
        /// The output.
        output: Variable,
    },
    /// A variable is set twice.
    #[error("job `{job}` sets `{variable}` twice, as a constant, a secret or an input; keep one")]
    SetTwice {
        /// The job.
        job: Label,
        /// The variable.
        variable: Variable,
    },
}

impl Kinded for WrapperError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Wrapper {
    /// Whether it fits together.
    ///
    /// # Errors
    /// The first thing that doesn't.
    pub fn check(&self) -> Result<(), WrapperError> {
        if self.jobs.is_empty() {
            return Err(WrapperError::Empty { wrapper: self.name.clone() });
        }
        let mut before = BTreeSet::new();
        for job in &self.jobs {
            job.check(&self.triggers)?;
            for needs in &job.needs {
                let (job_id, needs) = (job.id.clone(), needs.clone());
                let Some(needed) = self.jobs.iter().find(|job| job.id == needs && before.contains(&job.id))
                else {
                    return Err(WrapperError::Needs { job: job_id, needs });
                };
                if !job.runs_for(&self.triggers).is_subset(&needed.runs_for(&self.triggers)) {
                    return Err(WrapperError::NeedsElsewhere { job: job_id, needs });
                }
            }
            let given = |input: &&OutputOf| {
                let from = self.jobs.iter().find(|from| from.id == input.job);
                job.needs.contains(&input.job)
                    && from.is_some_and(|from| from.outputs.contains(&input.output))
            };
            if let Some(OutputOf { job: from, output }) = job.inputs.values().find(|input| !given(input)) {
                let (from, output) = (from.clone(), output.clone());
                return Err(WrapperError::Input { job: job.id.clone(), from, output });
            }
            if !before.insert(job.id.clone()) {
                return Err(WrapperError::Twice { job: job.id.clone() });
            }
        }
        match self.jobs.iter().filter_map(Job::stopping).find(|stopping| before.contains(&stopping.id)) {
            Some(stopping) => Err(WrapperError::Twice { job: stopping.id }),
            None => Ok(()),
        }
    }
}

impl Job {
    fn check(&self, triggers: &Triggers) -> Result<(), WrapperError> {
        let job = self.id.clone();
        if self.runs_for(triggers).is_empty() {
            return Err(WrapperError::Never { job });
        }
        if let Some(environment) = &self.environment {
            let asked = self.on.as_ref().is_some_and(|on| on.contains(&Trigger::PullRequest));
            if asked && !environment.per_change {
                return Err(WrapperError::Exposed { job });
            }
            let wrong = environment.stop.as_ref().is_some_and(|stop| {
                !environment.per_change || stop.call.is_empty() || stop.after_hours == Some(0)
            });
            if wrong {
                return Err(WrapperError::Stop { job });
            }
            if environment.stop.is_some() {
                // The stop's job is a job, so its name must be one.
                Label::new(format!("stop-{job}"))?;
            }
        }
        if self.call.is_empty() {
            return Err(WrapperError::NoCall { job });
        }
        if self.timeout_minutes == 0 {
            return Err(WrapperError::NoTime { job });
        }
        if let Some(Url::Output(output)) = self.environment.as_ref().and_then(|e| e.url.as_ref())
            && !self.outputs.contains(output)
        {
            return Err(WrapperError::UrlOutput { job, output: output.clone() });
        }
        let mut set = BTreeSet::new();
        let mut variables = self.env.keys().chain(&self.secrets).chain(self.inputs.keys());
        match variables.find(|variable| !set.insert(*variable)) {
            Some(variable) => Err(WrapperError::SetTwice { job, variable: variable.clone() }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::{Constant, Environment, PullRequestEvent, Stop, words};

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
    }

    fn production() -> Environment {
        Environment::lasting("production".parse().unwrap())
    }

    #[test]
    fn no_pull_request_starts_what_it_could_misuse() {
        let mut wrapper = Wrapper::deploy("storefront", ["deployer"]).unwrap();
        wrapper.triggers.pull_request.insert(PullRequestEvent::Opened);
        let runs = |change: &dyn Fn(&mut Job)| {
            let mut job = Job::new(label("job"), words(["deployer"]).unwrap());
            change(&mut job);
            job.runs_for(&wrapper.triggers).contains(&Trigger::PullRequest)
        };
        let secrets = || BTreeSet::from([Variable::new("TOKEN").unwrap()]);
        assert!(runs(&|_| {}));
        assert!(!runs(&|job| job.environment = Some(production())));
        assert!(!runs(&|job| job.secrets = secrets()));
        assert!(!runs(
            &|job| job.identity = Some(crate::ci::Identity { audience: Constant::new("a").unwrap() })
        ));
        let preview = || Some(Environment { per_change: true, ..production() });
        assert!(runs(&|job| (job.environment, job.secrets) = (preview(), secrets())));
        assert!(runs(&|job| (job.on, job.secrets) = (Some(wrapper.triggers.all()), secrets())));
        // And a wrapper that only a pull request starts says so.
        wrapper.triggers = Triggers { pull_request: wrapper.triggers.pull_request, ..Triggers::default() };
        wrapper.jobs[0].environment = Some(production());
        assert!(matches!(wrapper.check(), Err(WrapperError::Never { .. })));
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let good = Wrapper::deploy("storefront", ["deployer"]).unwrap();
        good.check().unwrap();
        let broken = |change: &dyn Fn(&mut Wrapper)| {
            let mut wrapper = good.clone();
            change(&mut wrapper);
            wrapper.check().unwrap_err().to_string()
        };
        let said = [
            broken(&|w| w.jobs.clear()),
            broken(&|w| w.jobs.push(w.jobs[0].clone())),
            broken(&|w| w.jobs[0].needs.push(label("build"))),
            broken(&|w| w.jobs[0].needs.push(label("deploy"))),
            broken(&|w| w.jobs[0].call.clear()),
            broken(&|w| w.jobs[0].timeout_minutes = 0),
            broken(&|w| {
                let url = Some(Url::Output(Variable::new("url").unwrap()));
                w.jobs[0].environment = Some(Environment { url, ..production() });
            }),
            broken(&|w| {
                let output = Variable::new("url").unwrap();
                w.jobs[0].inputs.insert(output.clone(), OutputOf { job: label("build"), output });
            }),
            broken(&|w| {
                let name = Variable::new("TOKEN").unwrap();
                w.jobs[0].env.insert(name.clone(), Constant::new("x").unwrap());
                w.jobs[0].secrets.insert(name);
            }),
            broken(&|w| w.jobs[0].on = Some(BTreeSet::from([Trigger::Schedule]))),
            broken(&|w| {
                w.jobs[0].on = Some(BTreeSet::from([Trigger::Push]));
                let mut later = Job::new(label("later"), w.jobs[0].call.clone());
                later.needs = vec![w.jobs[0].id.clone()];
                w.jobs.push(later);
            }),
            broken(&|w| {
                w.triggers.pull_request.insert(PullRequestEvent::Opened);
                w.jobs[0].on = Some(BTreeSet::from([Trigger::PullRequest]));
                w.jobs[0].environment = Some(production());
            }),
            broken(&|w| {
                let stop = Some(Stop { call: words(["stop"]).unwrap(), after_hours: None });
                w.jobs[0].environment = Some(Environment { stop, ..production() });
            }),
            broken(&|w| {
                let stop = Some(Stop { call: words(["stop"]).unwrap(), after_hours: None });
                w.jobs[0].environment = Some(Environment { stop, per_change: true, ..production() });
                w.jobs.push(Job::new(label("stop-deploy"), w.jobs[0].call.clone()));
            }),
        ];
        insta::assert_snapshot!(said.join("\n"), @"
        wrapper `storefront` has no job; give it one call of the deployer
        two jobs are called `deploy`; rename one
        job `deploy` needs `build`, which does not stand before it; add it there, or reorder the jobs
        job `deploy` needs `deploy`, which does not stand before it; add it there, or reorder the jobs
        job `deploy` calls nothing; give it the deployer's command line
        job `deploy` has a time-out of 0 minutes; give it at least 1
        job `deploy` shows the output `url` as its address but does not declare it; add it to `outputs`
        job `deploy` takes `url` of `build`; add `build` to its `needs` and `url` to the outputs there
        job `deploy` sets `TOKEN` twice, as a constant, a secret or an input; keep one
        nothing that starts the wrapper starts job `deploy`; add a trigger, or change its `on`
        job `later` runs for things that its `deploy` does not run for; let both be started by the same (`on`)
        job `deploy` deploys to a lasting environment, which no pull request may; take `pull_request` out of its `on`, or make the environment `per_change`
        job `deploy` stops an environment that lasts, or calls nothing to stop it, or at once; only one `per_change` ends, by a call, after 1 hour or more
        two jobs are called `stop-deploy`; rename one
        ");
    }
}
