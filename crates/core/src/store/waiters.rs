//! Who waits for events, and that a commit wakes exactly those it concerns.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use super::{Position, StoreError};

/// The tasks that wait for an event after some position.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    waiting: BTreeMap<u64, (Position, Waker)>,
}

impl Waiters {
    /// Waits until `head` answers a position after `after`; `head` is asked once for each wake-up.
    ///
    /// The task is entered before `head` is asked, so that a commit between the two can't be missed.
    pub(super) async fn wait(
        &self,
        after: Position,
        mut head: impl FnMut() -> Result<Position, StoreError>,
    ) -> Result<Position, StoreError> {
        let mut place = Place { waiters: self, id: None };
        poll_fn(|context| {
            place.take(after, context.waker());
            match head() {
                Ok(head) if head > after => Poll::Ready(Ok(head)),
                Ok(_) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }

    /// Wakes those that wait for an event at or before `head`.
    pub(super) fn wake(&self, head: Position) {
        let due: Vec<Waker> = {
            let slots = self.lock();
            slots
                .waiting
                .values()
                .filter(|(after, _)| *after < head)
                .map(|(_, waker)| waker.clone())
                .collect()
        };
        for waker in due {
            waker.wake();
        }
    }

    /// Whether nobody waits.
    #[cfg(feature = "sqlite")]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One task's place; gives it up when dropped.
struct Place<'a> {
    waiters: &'a Waiters,
    id: Option<u64>,
}

impl Place<'_> {
    fn take(&mut self, after: Position, waker: &Waker) {
        let mut slots = self.waiters.lock();
        let id = *self.id.get_or_insert_with(|| {
            slots.next += 1;
            slots.next
        });
        slots.waiting.insert(id, (after, waker.clone()));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.waiters.lock().waiting.remove(&id);
        }
    }
}
