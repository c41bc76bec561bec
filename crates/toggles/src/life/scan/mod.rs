//! Where source code names flags, and which flags it asks for that nobody defined.
//!
//! A `Scanner` (feature `scan`) walks a tree as git sees it (`.gitignore`, `.ignore`, `.git/info/exclude`), and looks for the keys of all flags at once in
//! every text, whatever the language. It cannot see a key that is put together at run time (`format!("checkout-{n}")`); name such a flag
//! in a comment, where it counts as well.

#[cfg(test)]
#[cfg(feature = "scan")]
mod tests;
#[cfg(feature = "scan")]
mod text;
#[cfg(feature = "scan")]
mod tree;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

#[cfg(feature = "scan")]
pub use self::{
    text::{CALLS, Found, METHODS},
    tree::{ScanError, Scanner},
};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Reference {
    /// The file, below the tree's root, its parts separated by `/`.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
}

impl fmt::Display for Reference {
    /// `src/shop.rs:12:9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// What a tree says of flags.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Scan {
    /// Where each known flag is named, in the order of files and lines. A flag that nothing names is there, with no place.
    pub references: BTreeMap<String, Vec<Reference>>,
    /// Where flags are asked for that are not known.
    pub unknown: BTreeMap<String, Vec<Reference>>,
    /// How many files were read.
    pub files: usize,
    /// The files that were not read, and why.
    pub skipped: Vec<Skipped>,
}

/// A file that was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file, as in [`Reference::file`].
    pub file: String,
    /// Why.
    pub why: Why,
}

/// Why a file was not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It is no text.
    Binary,
    /// It is larger than the limit.
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It can't be read.
    Unreadable {
        /// What the host says.
        problem: String,
    },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary => f.write_str("it is no text"),
            Self::TooLarge { bytes } => write!(f, "it is too large ({bytes} bytes)"),
            Self::Unreadable { problem } => write!(f, "it cannot be read: {problem}"),
        }
    }
}
