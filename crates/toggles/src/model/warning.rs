//! What was wrong with a document, as data.

use std::fmt;

use flowline_core::diagnostic::Place;
use serde::Serialize;

/// Something in a document that could not be honoured. The rest of the document works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// The flag (or segment) that it concerns, if it concerns one.
    pub flag: Option<String>,
    /// Where in it: `rules/2/condition/country`, in the document's own words.
    pub at: String,
    /// What is wrong and what it means: "unknown operator `NEAR`; the constraint is never met".
    pub message: String,
    /// The place in the file, where the format knows it.
    pub place: Option<Place>,
}

impl Warning {
    /// A warning about `flag`.
    pub fn of(flag: impl Into<String>, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { flag: Some(flag.into()), at: at.into(), message: short(message.into()), place: None }
    }

    /// A warning about the document.
    pub fn general(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { flag: None, at: at.into(), message: short(message.into()), place: None }
    }
}

/// The message, cut where it repeats an absurdly long part of the document.
pub(crate) fn short(mut message: String) -> String {
    const LONGEST: usize = 1_000;
    if message.len() > LONGEST {
        let tail = message.char_indices().rev().nth(LONGEST / 4).map_or(0, |(at, _)| at);
        let tail = message.split_off(tail);
        let head = message.char_indices().nth(LONGEST / 2).map_or(message.len(), |(at, _)| at);
        message.truncate(head);
        message = message + " … " + &tail;
    }
    message
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        match (&self.flag, self.at.as_str()) {
            (Some(flag), "") => write!(f, "flag `{flag}`: {}", self.message),
            (Some(flag), at) => write!(f, "flag `{flag}`, {at}: {}", self.message),
            (None, "") => f.write_str(&self.message),
            (None, at) => write!(f, "{at}: {}", self.message),
        }
    }
}
