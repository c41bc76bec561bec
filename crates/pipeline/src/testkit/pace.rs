//! Time for what is tested: it stands still while anything moves, and jumps when nothing does.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use async_trait::async_trait;
use flowline_core::{
    SignedDuration, Timestamp,
    clock::{Clock, ManualClock, SystemClock},
};
use futures_util::{
    future::select,
    task::{ArcWake, AtomicWaker, waker},
};

/// So long, in real time, something that is busy may keep still before time jumps over it.
const STILL: SignedDuration = SignedDuration::from_secs(2);

/// So often in a row others get a turn before it counts as keeping still.
const TURNS: usize = 16;

/// So often in a row time jumps without anything coming of it: many years, where a lease of a month is renewed.
const JUMPS: usize = 600;

/// So often in a row time jumps over something that is busy: two minutes of real time.
const BUSY_JUMPS: usize = 60;

/// Why a story does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stuck {
    /// Nothing moves, and nobody waits for a time.
    Still,
    /// Time passes and nothing comes of it.
    Waiting,
}

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Still => "nothing moves any more, and nobody waits for a time",
            Self::Waiting => "time passes and nothing comes of it",
        })
    }
}

/// The clock of a trial: it knows whether the work that is at hand waits for it, or for something outside of time.
#[derive(Debug, Clone, Default)]
pub(super) struct TrialClock {
    pub(super) manual: ManualClock,
    /// How much work is being polled: more than none while a step is.
    polled: Arc<AtomicUsize>,
    /// How many pieces of work wait for a time.
    asleep: Arc<AtomicUsize>,
}

impl TrialClock {
    /// Does `work`, knowing that it is work.
    pub(super) async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|context| {
            self.polled.fetch_add(1, Ordering::SeqCst);
            let polled = work.as_mut().poll(context);
            self.polled.fetch_sub(1, Ordering::SeqCst);
            polled
        })
        .await
    }

    /// How many pieces of work wait for a time.
    pub(super) fn asleep(&self) -> usize {
        self.asleep.load(Ordering::SeqCst)
    }
}

/// One more that is asleep, until it wakes or is dropped.
struct Asleep<'a>(&'a AtomicUsize);

impl<'a> Asleep<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for TrialClock {
    fn now(&self) -> Timestamp {
        self.manual.now()
    }

    async fn sleep_until(&self, time: Timestamp) {
        let _asleep = (self.polled.load(Ordering::SeqCst) > 0).then(|| Asleep::new(&self.asleep));
        self.manual.sleep_until(time).await;
    }
}

/// Whether somebody woke the story, and who waits to hear of it.
#[derive(Debug, Default)]
struct Woken {
    woken: AtomicBool,
    outer: AtomicWaker,
}

impl ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.woken.store(true, Ordering::SeqCst);
        this.outer.wake();
    }
}

impl Woken {
    /// Returns once the story was woken.
    async fn heard(&self) {
        std::future::poll_fn(|context| {
            self.outer.register(context.waker());
            if self.woken.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Tells `story`, with `clock` jumping to whatever is waited for next whenever nothing moves. `moves` counts what happens in it, `busy` says
/// whether something outside of time, such as a program, may be at work in it.
pub(super) async fn paced<T>(
    clock: &ManualClock,
    moves: impl Fn() -> u64,
    busy: impl Fn() -> bool,
    story: impl Future<Output = T>,
) -> Result<T, Stuck> {
    let mut story = pin!(story);
    let woken = Arc::new(Woken::default());
    let waker = waker(Arc::clone(&woken));
    let (mut seen, mut jumps) = (moves(), 0);
    loop {
        woken.woken.store(false, Ordering::SeqCst);
        if let Poll::Ready(told) = story.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(told);
        }
        if moves() != seen {
            (seen, jumps) = (moves(), 0);
        }
        for _ in 0..TURNS {
            if woken.woken.load(Ordering::SeqCst) {
                break;
            }
            tokio::task::yield_now().await;
        }
        if !woken.woken.load(Ordering::SeqCst) && busy() {
            select(pin!(woken.heard()), SystemClock.sleep(STILL)).await;
        }
        if woken.woken.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
            continue;
        }
        jumps += 1;
        let most = if busy() { BUSY_JUMPS } else { JUMPS };
        if jumps > most {
            return Err(Stuck::Waiting);
        }
        match clock.next_sleeper() {
            Some(next) => clock.set(next),
            None if busy() => {}
            None => return Err(Stuck::Still),
        }
    }
}
