//! Checks what [`FlagSource`] promises.
//!
//! A [`Bench`] is a place whose document the suite can change. It has two good documents, and can do what its kind of place can: be half
//! written, be gone, grow beyond the limit. What it can't is skipped.

#[cfg(test)]
mod flaws;

use std::sync::Arc;

use async_trait::async_trait;
use flowline_core::error::{ErrorKind, Kinded};

use super::{Came, Not, Report, broken, dropped_when, same};
use crate::source::{FlagSource, Loaded, SourceError, Tag};

pub(super) const WHOLE: &str = "a text is handed out whole";
pub(super) const SAME: &str = "with the tag of the present document the answer is that it is the same";
pub(super) const CHANGED: &str = "with the tag of an earlier document the present one comes";
pub(super) const FOREIGN: &str = "with a tag that it never gave the present document comes";
pub(super) const HALF: &str =
    "what is cut off or half written is an error, and the whole document comes after it";
pub(super) const GONE: &str = "what is not there is unavailable, and comes when it is back";
pub(super) const LARGE: &str =
    "what is larger than the limit is an error, and a smaller document comes after it";
pub(super) const DROPPED: &str = "a load that was dropped on its way harms none after it";
pub(super) const HEARD: &str = "watching ends after a change, and a change before it is not missed";
pub(super) const PLACE: &str = "its place says where it is, always the same";

/// What the place of a [`Bench`] is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Holds {
    /// The first of the two documents.
    First,
    /// The second.
    Second,
    /// The beginning of the second, as it is seen while it is written or sent.
    Half,
    /// Nothing; it can't be reached.
    Nothing,
    /// A document that is larger than the source's limit.
    TooMuch,
}

/// A place, and a source of it. Each case gets its own.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The source. Its limit is small enough for [`Holds::TooMuch`].
    fn source(&self) -> Arc<dyn FlagSource>;

    /// The two documents as the source hands them out.
    fn documents(&self) -> [String; 2];

    /// Makes the place hold this; `false`: it can't be made to.
    async fn hold(&self, what: Holds) -> bool;

    /// Whether [`FlagSource::watch`] hears of changes.
    fn hears(&self) -> bool {
        false
    }
}

/// Checks all sentences, each on a bench of its own.
pub async fn check<B: Bench>(open: impl AsyncFn() -> B) -> Report {
    let mut report = Report::new("source");
    report.note(WHOLE, whole(&open().await).await);
    report.note(SAME, unchanged(&open().await).await);
    report.note(CHANGED, changed(&open().await).await);
    report.note(FOREIGN, foreign(&open().await).await);
    report.note(HALF, trouble(&open().await, Holds::Half, None).await);
    report.note(GONE, trouble(&open().await, Holds::Nothing, Some(ErrorKind::Unavailable)).await);
    report.note(LARGE, trouble(&open().await, Holds::TooMuch, Some(ErrorKind::Invalid)).await);
    report.note(DROPPED, dropped(&open().await).await);
    report.note(HEARD, heard(&open().await).await);
    report.note(PLACE, place(&open().await).await);
    report
}

async fn hold(bench: &impl Bench, what: Holds) -> Came {
    if bench.hold(what).await {
        return Ok(());
    }
    Err(Not::Claimed(match what {
        Holds::Half => "a place that can be half written",
        Holds::Nothing => "a place that can be gone",
        Holds::TooMuch => "a place that can hold too much",
        _ => "a place that can hold either document",
    }))
}

/// Loads, which must give this one of the documents; with its tag.
async fn gives(bench: &impl Bench, known: Option<&Tag>, index: usize) -> Result<Option<Tag>, Not> {
    match bench.source().load(known).await? {
        Loaded::Same => Err(Not::Held("it is said to be the same".to_owned())),
        Loaded::New { text, tag } => {
            let expected = bench.documents().into_iter().nth(index).unwrap_or_default();
            same("the text", &text, &expected)?;
            Ok(tag)
        }
    }
}

async fn whole(bench: &impl Bench) -> Came {
    for (what, index) in [(Holds::First, 0), (Holds::Second, 1), (Holds::First, 0)] {
        hold(bench, what).await?;
        gives(bench, None, index).await?;
    }
    Ok(())
}

async fn unchanged(bench: &impl Bench) -> Came {
    hold(bench, Holds::First).await?;
    let Some(tag) = gives(bench, None, 0).await? else {
        return Err(Not::Claimed("a source that gives tags"));
    };
    for _ in 0..2 {
        same("with its tag", &bench.source().load(Some(&tag)).await?, &Loaded::Same)?;
    }
    Ok(())
}

async fn changed(bench: &impl Bench) -> Came {
    hold(bench, Holds::First).await?;
    let first = gives(bench, None, 0).await?;
    hold(bench, Holds::Second).await?;
    let second = gives(bench, first.as_ref(), 1).await?;
    if first.is_some() && first == second {
        return broken("both documents have the same tag");
    }
    hold(bench, Holds::First).await?;
    gives(bench, second.as_ref(), 0).await.map(drop)
}

async fn foreign(bench: &impl Bench) -> Came {
    hold(bench, Holds::First).await?;
    for tag in ["\"another's\"", "", "0"] {
        gives(bench, Some(&tag.to_owned()), 0).await?;
    }
    Ok(())
}

async fn trouble(bench: &impl Bench, what: Holds, expected: Option<ErrorKind>) -> Came {
    hold(bench, Holds::First).await?;
    let tag = gives(bench, None, 0).await?;
    hold(bench, what).await?;
    for known in [tag.as_ref(), None] {
        match bench.source().load(known).await {
            Ok(loaded) => return broken(format!("found {loaded:?}, expected an error")),
            Err(SourceError::Refused { .. }) => return broken("it is said to be refused"),
            Err(error) if expected.is_some_and(|kind| error.kind() != kind) => {
                return broken(format!("found the error `{error}`, expected another kind"));
            }
            Err(_) => {}
        }
    }
    hold(bench, Holds::Second).await?;
    gives(bench, tag.as_ref(), 1).await.map(drop)
}

async fn dropped(bench: &impl Bench) -> Came {
    hold(bench, Holds::First).await?;
    let source = bench.source();
    // Polled once, twice, three times …
    for polls in 1..20 {
        let mut left = polls;
        let done = dropped_when(source.load(None), || {
            left -= 1;
            left == 0
        });
        if done.await {
            break;
        }
    }
    let tag = gives(bench, None, 0).await?;
    hold(bench, Holds::Second).await?;
    gives(bench, tag.as_ref(), 1).await.map(drop)
}

async fn heard(bench: &impl Bench) -> Came {
    if !bench.hears() {
        return Err(Not::Claimed("a source that hears of changes"));
    }
    let source = bench.source();
    hold(bench, Holds::First).await?;
    let tag = gives(bench, None, 0).await?;
    let patience = || {
        let mut left = 50_000;
        move || {
            left -= 1;
            left == 0
        }
    };
    if dropped_when(source.watch(), {
        let mut left = 20;
        move || {
            left -= 1;
            left == 0
        }
    })
    .await
    {
        return broken("watching ends where nothing changed");
    }
    hold(bench, Holds::Second).await?;
    if !dropped_when(source.watch(), patience()).await {
        return broken("a change before it is missed");
    }
    gives(bench, tag.as_ref(), 1).await?;
    let mut watching = std::pin::pin!(source.watch());
    let mut left = 20;
    let early = dropped_when(&mut watching, || {
        left -= 1;
        left == 0
    });
    if early.await {
        return broken("watching ends where nothing changed since the last load");
    }
    hold(bench, Holds::First).await?;
    if dropped_when(watching, patience()).await { Ok(()) } else { broken("a change meanwhile is missed") }
}

async fn place(bench: &impl Bench) -> Came {
    let before = bench.source().place();
    if before.trim().is_empty() {
        return broken("it says nothing");
    }
    hold(bench, Holds::First).await?;
    gives(bench, None, 0).await?;
    same("the place", &bench.source().place(), &before)
}
