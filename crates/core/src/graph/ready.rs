//! Which parked future wants to be polled again: a queue that wakers push to, from any thread.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
};

/// The slots whose futures were woken since they were polled last, and the task that polls them.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    woken: VecDeque<usize>,
    task: Option<Waker>,
}

impl ReadyQueue {
    /// Takes the slots that were woken so far, and has `task` woken when the next one is.
    ///
    /// What wakes while the taken ones are polled waits for the next turn, so that a future that wakes itself can't keep the task.
    pub(super) fn take(&self, task: &Waker) -> VecDeque<usize> {
        let mut state = self.lock();
        match &mut state.task {
            Some(waker) => waker.clone_from(task),
            none => *none = Some(task.clone()),
        }
        std::mem::take(&mut state.woken)
    }

    fn push(&self, slot: usize) {
        let task = {
            let mut state = self.lock();
            state.woken.push_back(slot);
            state.task.take()
        };
        // Outside the lock: waking may poll the task at once, on this thread.
        if let Some(task) = task {
            task.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes one slot. Lives as long as the slot, over all the futures that pass through it; waking one that is gone costs a poll at most.
#[derive(Debug)]
pub(super) struct SlotWaker {
    slot: usize,
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl SlotWaker {
    pub(super) fn new(slot: usize, queue: Arc<ReadyQueue>) -> Arc<Self> {
        Arc::new(Self { slot, queued: AtomicBool::new(false), queue })
    }

    /// To be called before the slot's future is polled: a wake from now on queues it anew.
    pub(super) fn taken(&self) {
        self.queued.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.slot);
        }
    }
}
