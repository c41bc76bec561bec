//! The guide: a tutorial from an empty folder, how-tos by question, a glossary, and what every diagnostic means.
//!
//! Its snippets of Rust are compiled, and the commands that it shows are run by a test, which compares what they print.

/// From an empty folder to a deployer that previews, promotes and rolls back.
#[doc = include_str!("../docs/guide/tutorial.md")]
pub mod tutorial {}

/// How do I …?
#[doc = include_str!("../docs/guide/how_to.md")]
pub mod how_to {}

/// The words that flowline uses.
#[doc = include_str!("../docs/guide/glossary.md")]
pub mod glossary {}

/// What a message means, why it comes, and what to do.
#[doc = include_str!("../docs/guide/diagnostics.md")]
pub mod diagnostics {}
