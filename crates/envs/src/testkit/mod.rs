//! Behaviour suites for implementers of this crate's traits: each checks exactly what the trait's documentation promises.
//!
//! A suite runs named cases against a subject and answers a [`Report`]; each case is named by the sentence that it checks.

pub mod provision;
#[cfg(feature = "router")]
pub mod router;

use std::fmt;

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
