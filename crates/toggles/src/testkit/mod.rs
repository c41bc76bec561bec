//! Behaviour suites for implementers of this crate's traits, and the runner of the vendors' own cases.
//!
//! | module | what it checks |
//! | --- | --- |
//! | [`provider`] | what [`Provider`](crate::provider::Provider) and its life cycle promise |
//! | [`source`] | what [`FlagSource`](crate::source::FlagSource) promises |
//! | [`fetch`] | what [`Fetch`](crate::source::Fetch) promises, against a server on loopback |
//! | [`conformance`] | the vendors' own cases |
//!
//! A suite runs named cases against a subject and answers a [`Report`]; each case is named by the sentence that it checks. Nothing here needs an async
//! runtime; a subject that does is checked on one.

pub mod conformance;
pub mod fetch;
pub mod provider;
mod server;
pub mod source;

use std::{fmt, future::poll_fn, pin::pin, task::Poll};

use flowline_core::error::chain;

/// How a suite went.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a report that nobody looks at checks nothing"]
pub struct Report {
    /// The suite.
    pub suite: &'static str,
    /// The cases, in order.
    pub cases: Vec<CaseReport>,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseReport {
    /// The sentence that it checks.
    pub sentence: &'static str,
    /// How it went.
    pub outcome: CaseOutcome,
}

/// How one case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaseOutcome {
    /// The sentence holds.
    Held,
    /// The sentence does not hold; what was seen instead.
    Broken(String),
    /// The subject does not claim what the case needs; what that is.
    Skipped(&'static str),
}

impl Report {
    fn new(suite: &'static str) -> Self {
        Self { suite, cases: Vec::new() }
    }

    fn note(&mut self, sentence: &'static str, came: Came) {
        let outcome = match came {
            Ok(()) => CaseOutcome::Held,
            Err(Not::Held(seen)) => CaseOutcome::Broken(seen),
            Err(Not::Claimed(needs)) => CaseOutcome::Skipped(needs),
        };
        self.cases.push(CaseReport { sentence, outcome });
    }

    /// The report as a result, for a test to return.
    ///
    /// # Errors
    /// [`Broken`] if any sentence does not hold; it lists them.
    pub fn verdict(self) -> Result<(), Broken> {
        if self.broken().next().is_none() { Ok(()) } else { Err(Broken(self)) }
    }

    /// The sentences that do not hold.
    pub fn broken(&self) -> impl Iterator<Item = &'static str> {
        let broken = self.cases.iter().filter(|case| matches!(case.outcome, CaseOutcome::Broken(_)));
        broken.map(|case| case.sentence)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.suite)?;
        for case in &self.cases {
            match &case.outcome {
                CaseOutcome::Held => write!(f, "\n  held     {}", case.sentence)?,
                CaseOutcome::Broken(seen) => write!(f, "\n  BROKEN   {}\n           {seen}", case.sentence)?,
                CaseOutcome::Skipped(needs) => write!(f, "\n  skipped  {} (needs {needs})", case.sentence)?,
            }
        }
        Ok(())
    }
}

/// Some sentences of a contract do not hold.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the contract is broken: {0}")]
pub struct Broken(pub Report);

impl fmt::Debug for Broken {
    /// As displayed: this is what a test that returns it prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a case came to.
type Came = Result<(), Not>;

/// Why a sentence was not found to hold.
enum Not {
    /// What was seen instead.
    Held(String),
    /// The subject does not claim it; what it would need.
    Claimed(&'static str),
}

impl<E: std::error::Error + 'static> From<E> for Not {
    fn from(error: E) -> Self {
        Self::Held(chain(&error))
    }
}

fn broken(seen: impl Into<String>) -> Came {
    Err(Not::Held(seen.into()))
}

fn same<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Came {
    if found == expected { Ok(()) } else { broken(format!("{what}: found {found:?}, expected {expected:?}")) }
}

/// Polls `future` until `enough` says so, then drops it; whether it was done before.
async fn dropped_when(future: impl Future, mut enough: impl FnMut() -> bool) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| {
        if future.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        if enough() {
            return Poll::Ready(false);
        }
        // What is waited for happens elsewhere: look again.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}
