//! The context of a transaction (a request, a job), carried along without being passed: [`TransactionPropagator`].

use std::{cell::RefCell, fmt::Debug};

use super::EvaluationContext;

/// Keeps a context for the length of a transaction, and only for it.
///
/// *Assumptions on the implementer*: `current` is called on every evaluation, so it must be quick and must not block; one transaction
/// never sees another's context.
pub trait TransactionPropagator: Debug + Send + Sync {
    /// Sets the context of the current transaction.
    fn set(&self, context: EvaluationContext);

    /// The context of the current transaction; `None`: there is none.
    fn current(&self) -> Option<EvaluationContext>;
}

thread_local! {
    static THREAD: RefCell<Option<EvaluationContext>> = const { RefCell::new(None) };
}

/// A transaction is whatever a thread does until the next one is set: for thread-per-request servers.
#[derive(Debug, Clone, Copy, Default)]
pub struct ThreadPropagator;

impl ThreadPropagator {
    /// Runs `work` with `context`, then puts back what was there before, also if `work` panics.
    pub fn scope<T>(context: EvaluationContext, work: impl FnOnce() -> T) -> T {
        struct PutBack(Option<EvaluationContext>);
        impl Drop for PutBack {
            fn drop(&mut self) {
                let before = self.0.take();
                THREAD.with(|cell| drop(cell.replace(before)));
            }
        }
        let _put_back = PutBack(THREAD.with(|cell| cell.replace(Some(context))));
        work()
    }

    /// Ends the thread's transaction.
    pub fn clear() {
        THREAD.with(|cell| drop(cell.take()));
    }
}

impl TransactionPropagator for ThreadPropagator {
    fn set(&self, context: EvaluationContext) {
        THREAD.with(|cell| drop(cell.replace(Some(context))));
    }

    fn current(&self) -> Option<EvaluationContext> {
        THREAD.with(|cell| cell.borrow().clone())
    }
}

#[cfg(feature = "tokio")]
tokio::task_local! {
    static TASK: RefCell<EvaluationContext>;
}

/// A transaction is what runs inside [`scope`](Self::scope), whichever threads it moves over: for servers on tokio.
#[cfg(feature = "tokio")]
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskPropagator;

#[cfg(feature = "tokio")]
impl TaskPropagator {
    /// Runs `work` as a transaction that starts with `context`.
    pub async fn scope<F: Future>(context: EvaluationContext, work: F) -> F::Output {
        TASK.scope(RefCell::new(context), work).await
    }
}

#[cfg(feature = "tokio")]
impl TransactionPropagator for TaskPropagator {
    /// Outside of a scope this does nothing: there is no transaction.
    fn set(&self, context: EvaluationContext) {
        // The error says just that: outside of a scope.
        let _outside = TASK.try_with(|cell| drop(cell.replace(context)));
    }

    fn current(&self) -> Option<EvaluationContext> {
        TASK.try_with(|cell| cell.borrow().clone()).ok()
    }
}
