//! Where documents come from: [`FlagSource`], and the [`Feed`] that keeps a [`Toggles`](crate::Toggles) handle up to date from one.
//!
//! | source | what it is |
//! | --- | --- |
//! | [`FileSource`] | a file, watched; atomically replaced or edited in place |
//! | [`HttpSource`] | a document behind a URL, with entity tags; [`HttpSource::unleash`] for a server of Unleash's client API |
//! | [`UnleashDelta`] | the same server's delta API, put together to whole documents |
//! | [`StoreSource`] | the flags that [`Flags`](crate::flags::Flags) keeps in a [`Store`](flowline_core::store::Store), in one scope |
//! | [`OfrepSource`] | a server that evaluates itself (OpenFeature Remote Evaluation Protocol), for one context at a time; [`Ofrep`] asks it for each evaluation |
//!
//! A program that changes flags itself needs none of these: [`Flags`](crate::flags::Flags) follows the store and hands out handles.
//!
//! When to load, how long to wait after failures and what to tell is decided in [`schedule`], purely. Requests go through [`Fetch`]; the
//! crate brings one over plain HTTP/1.1 (feature `http`), and takes any other, for instance one with TLS.

mod changed;
mod delta;
mod feed;
mod fetch;
mod file;
mod http;
#[cfg(feature = "http")]
mod hyper;
mod ofrep;
mod ofrep_flags;
pub(crate) mod race;
pub mod schedule;
mod store;
#[cfg(test)]
#[cfg(feature = "http")]
mod tests;
mod unleash;

use std::fmt::Debug;

use async_trait::async_trait;
use flowline_core::{
    SignedDuration,
    error::{BoxError, ErrorKind, Kinded},
};

pub use delta::UnleashDelta;
pub use feed::Feed;
pub use fetch::{Fetch, Method, Request, Response};
pub use file::FileSource;
pub use http::HttpSource;
#[cfg(feature = "http")]
pub use hyper::PlainHttp;
pub use ofrep::{Bulk, Ofrep};
pub use ofrep_flags::{OfrepFlags, OfrepSource};
pub use store::StoreSource;
pub use unleash::UnleashClient;

/// What marks one version of a document: an entity tag, a digest. Opaque.
pub type Tag = String;

/// What a source answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The document is still the one with the tag that was given.
    Same,
    /// A document, whole.
    New {
        /// Its text.
        text: String,
        /// What to give next time.
        tag: Option<Tag>,
    },
}

/// A place that documents come from.
///
/// *Shape*: one task at a time loads; the future may be dropped at any point (a limit of time), and loading then starts anew.
///
/// *Assumptions on the implementer*
/// 1. A text is handed out whole or not at all: what is cut off or still being written is an error.
/// 2. Memory is bounded: what is larger than a limit of the source's is an error, noticed before it is read to the end.
/// 3. `load` with the tag of the present document is cheap and answers [`Loaded::Same`].
///
/// *Errors by kind*: [`SourceError`]. The suite is `testkit::source`.
#[async_trait]
pub trait FlagSource: Debug + Send + Sync {
    /// Where it is, for messages. Without secrets.
    fn place(&self) -> String;

    /// Loads the document if it is not the one that `known` marks.
    async fn load(&self, known: Option<&Tag>) -> Result<Loaded, SourceError>;

    /// Returns when loading may be worth while before its time; by default never. May be dropped. A change that came since the last load,
    /// also one that failed, must not be missed; what was there then already must not be told again.
    async fn watch(&self) {
        std::future::pending::<()>().await;
    }
}

/// Why a document was not loaded. The last good one stays in service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It can't be reached, or broke off.
    #[error(
        "cannot load flags from {place}: it cannot be reached, or broke off; the last good document stays in service"
    )]
    Unavailable {
        /// Where.
        place: String,
        /// Why.
        source: BoxError,
    },
    /// It took too long.
    #[error(
        "cannot load flags from {place}: no answer within {limit}; the last good document stays in service"
    )]
    TimedOut {
        /// Where.
        place: String,
        /// The limit, in words.
        limit: String,
    },
    /// The server wants other credentials.
    #[error("cannot load flags from {place}: refused with status {status}; check the credentials")]
    Refused {
        /// Where.
        place: String,
        /// The status.
        status: u16,
    },
    /// The server answers with a status that is no document.
    #[error(
        "cannot load flags from {place}: it answered with status {status}{}",
        .retry_after.map(|wait| format!(", and asks to be left alone for {wait:#}")).unwrap_or_default()
    )]
    Status {
        /// Where.
        place: String,
        /// The status.
        status: u16,
        /// How long it asks to be left alone; see [`Response::retry_after`].
        retry_after: Option<SignedDuration>,
    },
    /// It is larger than the limit.
    #[error(
        "cannot load flags from {place}: it is larger than {limit} bytes; raise the limit if that is right"
    )]
    TooLarge {
        /// Where.
        place: String,
        /// The limit in bytes.
        limit: usize,
    },
    /// What came is no document.
    #[error("cannot use what came from {place} (the last good document stays in service): {problem}")]
    Unusable {
        /// Where.
        place: String,
        /// What is wrong.
        problem: String,
        /// The parser's error.
        source: Option<BoxError>,
    },
}

impl Kinded for SourceError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable { .. } | Self::Status { .. } => ErrorKind::Unavailable,
            Self::TimedOut { .. } => ErrorKind::TimedOut,
            Self::Refused { .. } => ErrorKind::Denied,
            Self::TooLarge { .. } | Self::Unusable { .. } => ErrorKind::Invalid,
        }
    }
}
