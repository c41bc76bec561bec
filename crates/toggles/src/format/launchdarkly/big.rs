//! Big segments, whose members are not in the document but in a store.

use std::{fmt::Debug, sync::Arc};

use crate::{
    engine::{Predicate, Situation},
    model::Truth,
    value::Name,
};

/// Whether a context is in a big segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is listed as being in it.
    Included,
    /// It is listed as not being in it.
    Excluded,
    /// It is not listed: the segment's rules decide.
    Unlisted,
}

/// Knows the members of big segments.
///
/// *Asked* synchronously while a flag is evaluated, from many threads at once: must not block or panic. An implementation that fetches
/// members from elsewhere answers from what it holds, and says [`Unlisted`](Membership::Unlisted) of what it does not know.
pub trait BigSegments: Debug + Send + Sync {
    /// Whether the context with `key` is in the segment that goes by `reference`: its key, `.g`, and its generation (`beta.g2`).
    fn membership(&self, reference: &str, key: &str) -> Membership;
}

/// A context's membership is as wanted.
#[derive(Debug)]
pub(super) struct Unbounded {
    pub(super) store: Arc<dyn BigSegments>,
    pub(super) kind: Name,
    pub(super) reference: Box<str>,
    pub(super) want: Membership,
}

impl Predicate for Unbounded {
    fn test(&self, situation: &mut Situation<'_, '_>) -> Truth {
        let key = situation.context().part(&self.kind).and_then(|part| part.key()?.as_str());
        let Some(key) = key else {
            // Without such a context nobody is in it, whatever its rules say.
            return (self.want == Membership::Excluded).into();
        };
        (self.store.membership(&self.reference, key) == self.want).into()
    }

    fn describe(&self) -> String {
        format!("is {:?} by the big segment `{}`", self.want, self.reference)
    }
}
