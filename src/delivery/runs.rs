//! Runs afterwards: which there were, what each did and printed, and what lets one that waits go on.

use std::sync::Arc;

use flowline_core::{SignedDuration, id::RunId, name::Person};
use flowline_pipeline::step::Spec;
use flowline_pipeline::{
    Runner,
    plan::{Approval, StepId},
    report::{Logs, RunView},
    run::Phase,
    step::Registry,
    steps::ApprovalGate,
};

use super::{Delivery, DeliveryError, serve};

impl Delivery {
    /// Every run that was ever started, by name.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn runs(&self) -> Result<Vec<RunId>, DeliveryError> {
        let found = self.store().list("run/").await.map_err(DeliveryError::store("listing the runs"))?;
        let names = found.iter().filter_map(|(key, _)| {
            let name = key.as_str().strip_prefix("run/")?.strip_suffix("/plan")?;
            RunId::new(name).ok()
        });
        Ok(names.collect())
    }

    /// A run as it stands: its plan, what became of each step, and what it printed.
    ///
    /// # Errors
    /// If it was never started, or something of it can't be read.
    pub async fn run(&self, run: &RunId) -> Result<RunView, DeliveryError> {
        Ok(RunView::read(self.store(), Some(&self.logs()), run).await?)
    }

    /// Where the lines are kept that steps print: `logs` in the state directory.
    pub fn logs(&self) -> Logs {
        Logs::new(self.state_directory().join("logs"))
    }

    /// Whether some process serves this state directory now.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn is_served(&self) -> Result<bool, DeliveryError> {
        serve::is_served(self).await
    }

    /// Says that `by` agrees with the plan of `run`, for as long as `valid`: at the gate `step`, or at every approval that it has. The run
    /// goes on with the next call of the verb that started it. Who may write to the store may say so; a name is not checked here.
    ///
    /// # Errors
    /// If there is no such run, it has no such gate, or it is over.
    pub async fn approve(
        &self,
        run: &RunId,
        step: Option<&StepId>,
        by: &Person,
        valid: SignedDuration,
    ) -> Result<Vec<StepId>, DeliveryError> {
        let view = self.run(run).await?;
        let open = |step: &&flowline_pipeline::report::StepView| {
            step.planned.node.kind.name() == ApprovalGate::KIND
                && !matches!(step.phase, Phase::Finished { .. })
        };
        let gates: Vec<StepId> =
            view.steps.iter().filter(open).map(|step| step.planned.id().clone()).collect();
        let gates: Vec<StepId> =
            gates.into_iter().filter(|gate| step.is_none_or(|step| step == gate)).collect();
        if gates.is_empty() || view.state.end().is_some() {
            return Err(DeliveryError::Unknown {
                what: "open approval in run",
                name: run.to_string(),
                help: format!("its state is `{}`; `status` names the runs that wait", view.outcome().name()),
            });
        }
        let runner = Runner::new(
            Arc::clone(self.store()),
            Arc::new(Registry::new()),
            self.authority().clone(),
            Arc::clone(self.clock()),
        )
        .actor(by.as_str());
        let at = self.clock().now();
        let until = at.checked_add(valid).unwrap_or(flowline_core::Timestamp::MAX);
        let approval = Approval { plan: view.plan.digest(), by: by.clone(), at, until };
        for gate in &gates {
            let approved = runner.approve(run, gate, &approval).await;
            approved.map_err(|error| DeliveryError::part(format!("approving run `{run}`"), error))?;
        }
        Ok(gates)
    }
}
