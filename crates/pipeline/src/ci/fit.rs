//! Whether a wrapper fits together: the relations between its jobs that single values can't hold.

use std::collections::BTreeSet;

use flowline_core::error::{ErrorKind, Kinded};

use super::{
    text::{Label, TextError, Variable},
    wrapper::{Job, OutputOf, Url, Wrapper},
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
            job.check()?;
            if let Some(needs) = job.needs.iter().find(|needs| !before.contains(needs)) {
                return Err(WrapperError::Needs { job: job.id.clone(), needs: needs.clone() });
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
            if !before.insert(&job.id) {
                return Err(WrapperError::Twice { job: job.id.clone() });
            }
        }
        Ok(())
    }
}

impl Job {
    fn check(&self) -> Result<(), WrapperError> {
        let job = self.id.clone();
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
    use crate::ci::{Constant, Environment};

    fn label(text: &str) -> Label {
        Label::new(text).unwrap()
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
                w.jobs[0].environment =
                    Some(Environment { name: "production".parse().unwrap(), per_change: false, url });
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
        ");
    }
}
