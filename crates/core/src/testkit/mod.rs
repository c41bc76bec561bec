//! Behaviour suites for this crate's traits, and wrappers that make a backend fail on purpose.
//!
//! | module | what it checks or breaks |
//! | --- | --- |
//! | [`store`] | the suite of [`Store`](crate::store::Store), in one process and over several |
//! | [`lease`] | the suite of [`Leases`](crate::lease::Leases) |
//! | [`faulty`] | any store, failing or crashing at the commit that a test chooses |
//!
//! A suite is a list of named cases. Each names the sentence of the contract that it checks, so a failure reads as the sentence that was
//! broken, and prints the seed that replays it. Nothing here needs an async runtime: [`block_on`] drives a future on the present thread.

pub mod faulty;
pub mod lease;
pub mod store;

use std::{
    fmt,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

pub use faulty::{Fault, FaultyStore, When};

use crate::error::chain;

/// The seed of a suite that was not given one.
pub const SEED: u64 = 0x5eed;

/// What a suite found out about a backend.
#[derive(Debug, Clone)]
#[must_use = "a report that nobody looks at checks nothing; call `assert`"]
pub struct Report {
    /// The suite: `store`, `lease`, `step`, `executor`.
    pub suite: &'static str,
    /// The backend, as it was named to the suite.
    pub backend: String,
    /// The sentences that hold.
    pub passed: Vec<&'static str>,
    /// The sentences that do not apply by the backend's capabilities.
    pub skipped: Vec<&'static str>,
    /// The sentences that were broken.
    pub failures: Vec<Failure>,
}

/// A broken sentence.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The sentence of the contract.
    pub sentence: &'static str,
    /// What was seen instead.
    pub why: String,
    /// The seed that replays it, in a suite that has one.
    pub seed: Option<u64>,
}

impl Report {
    /// What `suite` finds out about `backend`: nothing yet.
    pub fn new(suite: &'static str, backend: &str) -> Self {
        Self {
            suite,
            backend: backend.to_owned(),
            passed: Vec::new(),
            skipped: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn note(&mut self, sentence: &'static str, seed: u64, outcome: Outcome) {
        match outcome {
            Ok(()) => self.holds(sentence),
            Err(Why(why)) => self.failures.push(Failure { sentence, why, seed: Some(seed) }),
        }
    }

    /// Adds a sentence that holds.
    pub fn holds(&mut self, sentence: &'static str) {
        self.passed.push(sentence);
    }

    /// Adds a sentence that does not apply.
    pub fn skip(&mut self, sentence: &'static str) {
        self.skipped.push(sentence);
    }

    /// Adds a sentence that was broken, and what was seen instead.
    pub fn broken(&mut self, sentence: &'static str, why: impl Into<String>) {
        self.failures.push(Failure { sentence, why: why.into(), seed: None });
    }

    /// For tests of a suite itself: whether `sentence` was found broken.
    pub fn breaks(&self, sentence: &str) -> bool {
        self.failures.iter().any(|failure| failure.sentence == sentence)
    }

    /// Ends the test if a sentence was broken.
    ///
    /// # Panics
    /// If so, with the whole report.
    pub fn assert(&self) {
        assert!(self.failures.is_empty(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suite, backend) = (self.suite, &self.backend);
        writeln!(
            f,
            "{backend}, suite `{suite}`: {} hold, {} broken, {} do not apply",
            self.passed.len(),
            self.failures.len(),
            self.skipped.len()
        )?;
        for Failure { sentence, why, seed } in &self.failures {
            writeln!(f, "broken: {sentence}\n    {why}")?;
            if let Some(seed) = seed {
                writeln!(f, "    replay with `check_seeded(.., {seed}, ..)`")?;
            }
        }
        for sentence in &self.skipped {
            writeln!(f, "does not apply: {sentence}")?;
        }
        Ok(())
    }
}

/// What was seen that should not be.
#[derive(Debug)]
struct Why(String);

impl<E: std::error::Error + 'static> From<E> for Why {
    fn from(error: E) -> Self {
        Self(chain(&error))
    }
}

/// Whether a sentence holds.
type Outcome = Result<(), Why>;

fn fail(why: impl Into<String>) -> Outcome {
    Err(Why(why.into()))
}

fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Outcome {
    if found == expected { Ok(()) } else { fail(format!("{what}: found {found:?}, expected {expected:?}")) }
}

/// Runs `work` on a thread of its own and answers what it answers; an error if that takes longer than any machine should need.
fn within_patience<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Why> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let (answer, answers) = mpsc::channel();
    // One that never ends is left behind: a test must say so rather than hang.
    thread::spawn(move || answer.send(work()));
    answers.recv_timeout(PATIENCE).map_err(|_| Why(format!("{what}: nothing happened within {PATIENCE:?}")))
}

/// A source of numbers that a seed decides: the same seed, the same numbers (`SplitMix64`; Steele, Lea, Flood, 2014).
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    /// The source that `seed` decides.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of all 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        // The bias of a remainder does not matter in tests.
        self.number().checked_rem(limit).unwrap_or(0)
    }
}

/// Drives `future` on the present thread, which sleeps while it waits. For suites and tests; not inside an async runtime.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
