//! A walk of a run by one process: what it holds, how it writes, and how it stays the run's only walker.

use std::{sync::Arc, task::Poll};

use flowline_core::{
    Timestamp,
    error::{Kinded, Retry as Again},
    id::{Key, RunId},
    lease::{Lease, LeaseError},
    store::{Batch, Durability, Fence},
};
use futures_util::{FutureExt, future::BoxFuture};

use super::{
    End, RunError, RunState, Runner,
    front::{Front, Then},
    record::{Names, RunEnded},
    table::Table,
};
use crate::{
    exec::Masker,
    plan::{Plan, Sealed, StepId},
    step::context::Shared,
};

/// One walk. One task owns everything.
pub(super) struct Walk<'a> {
    pub(super) runner: &'a Runner,
    pub(super) run: &'a RunId,
    pub(super) shared: Arc<Shared>,
    pub(super) table: Table<'a>,
    /// What no other walk is called.
    pub(super) own: String,
    /// Where it is recorded, unless it is not.
    journal: Option<Writing<'a>>,
}

/// What a recorded walk writes with.
struct Writing<'a> {
    names: &'a Names,
    lease: Lease,
    renewing: BoxFuture<'static, Result<Lease, LeaseError>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        runner: &'a Runner,
        run: &'a RunId,
        sealed: &'a Sealed<Plan>,
        state: RunState,
        held: Option<(&'a Names, &Lease)>,
    ) -> Result<Self, RunError> {
        let name = |error: flowline_core::name::NameError| RunError::Name(error.to_string());
        let fence = match held {
            Some((_, lease)) => lease.fence(),
            // Nobody holds this, so a step that writes under it is refused.
            None => Fence { lease: Key::new(format!("lease/run/{run}")).map_err(name)?, token: 0 },
        };
        let shared = Arc::new(Shared {
            run: run.clone(),
            clock: Arc::clone(&runner.clock),
            secrets: Arc::clone(&runner.secrets),
            masker: Masker::new(runner.secrets.values()),
            reporter: Arc::clone(&runner.reporter),
            fence,
            plan: sealed.digest(),
            pipeline: sealed.plan().name().to_owned(),
            build: sealed.plan().build(),
            author: sealed.plan().author().cloned(),
        });
        let journal = held.map(|(names, lease)| Writing {
            names,
            lease: lease.clone(),
            renewing: renewal(runner, lease),
        });
        let table = Table::new(sealed.plan().nodes(), state);
        Ok(Self { runner, run, shared, table, own: super::runner::unique(), journal })
    }

    pub(super) fn into_state(self) -> RunState {
        self.table.into_state()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.runner.clock.now()
    }

    /// Whether what happens is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.journal.is_some()
    }

    /// A batch under the run's lease.
    pub(super) fn batch(&self) -> Batch {
        match &self.journal {
            Some(journal) => Batch::new().fenced(journal.lease.fence()),
            None => Batch::new(),
        }
    }

    /// Queues the record of `fact` about the step at `at`; `then` follows once it is written, or at once if nothing is recorded.
    pub(super) fn record<F: flowline_core::journal::Fact>(
        &self,
        front: &mut Front,
        at: usize,
        fact: impl FnOnce(StepId) -> F,
        which: &str,
        durability: Durability,
        then: Then,
    ) -> Result<(), RunError> {
        match &self.journal {
            Some(journal) => {
                let id = self.table.id(at);
                let event = journal.names.event(&fact(id.clone()), which, Some(id), self.now())?;
                front.queue(&journal.names.stream, event, durability, then);
            }
            None => front.due.push_back(then),
        }
        Ok(())
    }

    /// Queues the record of `fact` about the run, to which nothing leads.
    pub(super) fn record_run<F: flowline_core::journal::Fact>(
        &self,
        front: &mut Front,
        fact: &F,
        which: &str,
        durability: Durability,
    ) -> Result<(), RunError> {
        if let Some(journal) = &self.journal {
            let event = journal.names.event(fact, which, None, self.now())?;
            front.queue(&journal.names.stream, event, durability, Then::Nothing);
        }
        Ok(())
    }

    /// Writes `fact` about `step`, or about the run, now.
    pub(super) async fn write<F: flowline_core::journal::Fact>(
        &mut self,
        fact: &F,
        which: &str,
        step: Option<&StepId>,
        durability: Durability,
    ) -> Result<(), RunError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let event = journal.names.event(fact, which, step, self.now())?;
        let batch = self.batch().durably(durability).append(journal.names.stream.clone(), event);
        let store = Arc::clone(&self.runner.store);
        self.alive(async move { store.commit(batch).await }).await??;
        Ok(())
    }

    /// Records how the run ended.
    pub(super) async fn end(&mut self, outcome: End) -> Result<(), RunError> {
        let which = match outcome {
            End::Succeeded => "succeeded",
            End::Undone => "undone",
        };
        self.write(&RunEnded { outcome }, which, None, Durability::Synced).await?;
        self.table.end_as(outcome);
        Ok(())
    }

    /// Does `work`, keeping the lease alive meanwhile.
    ///
    /// # Errors
    /// If the lease is lost; `work` is dropped then.
    pub(super) async fn alive<T>(&mut self, work: impl Future<Output = T>) -> Result<T, RunError> {
        let mut work = std::pin::pin!(work);
        loop {
            let renewed = std::future::poll_fn(|context| {
                if let Poll::Ready(done) = work.as_mut().poll(context) {
                    return Poll::Ready(Ok(done));
                }
                self.poll_renewal(context).map(Err)
            })
            .await;
            match renewed {
                Ok(done) => return Ok(done),
                Err(renewed) => self.renewed(renewed)?,
            }
        }
    }

    pub(super) fn poll_renewal(
        &mut self,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Result<Lease, LeaseError>> {
        match &mut self.journal {
            Some(journal) => journal.renewing.poll_unpin(context),
            None => Poll::Pending,
        }
    }

    pub(super) fn renewed(&mut self, renewed: Result<Lease, LeaseError>) -> Result<(), RunError> {
        let now = self.now();
        let Some(journal) = &mut self.journal else { return Ok(()) };
        match renewed {
            Ok(lease) => journal.lease = lease,
            // A store that does not answer for a moment costs nothing while the lease runs; the fence decides in the end.
            Err(error) if error.retry() != Again::Never && now < journal.lease.expires() => {}
            Err(error) => return Err(error.into()),
        }
        journal.renewing = renewal(self.runner, &journal.lease);
        Ok(())
    }

    /// `text` without secrets, for the journal.
    pub(super) fn masked(&self, text: &str) -> String {
        self.shared.masker.mask_text(text)
    }
}

/// Renews the lease when a third of its time has passed.
fn renewal(runner: &Runner, lease: &Lease) -> BoxFuture<'static, Result<Lease, LeaseError>> {
    let (leases, clock, ttl, lease) =
        (Arc::clone(&runner.leases), Arc::clone(&runner.clock), runner.ttl, lease.clone());
    async move {
        clock.sleep(ttl / 3).await;
        leases.renew(&lease, ttl).await
    }
    .boxed()
}
