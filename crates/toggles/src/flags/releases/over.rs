//! Releases that are over since what they release is gone.

use flowline_core::{
    event::Event,
    id::Key,
    store::{Batch, Document},
};

use super::{Happened, Release, ReleaseChanged};
use crate::{
    flags::{
        Author, Flags, FlagsError, Place,
        record::{event_id, stream},
    },
    format::flowline::FlagKey,
    life::release::{Because, Fallout},
};

impl Flags {
    /// `batch`, with the end of a release (also one that can't be read) and its fact.
    #[expect(
        clippy::too_many_arguments,
        reason = "a document with what its key says, and what is told of it"
    )]
    pub(in super::super) async fn release_over(
        &self,
        batch: Batch,
        place: &Place,
        flag: &FlagKey,
        key: &Key,
        document: &Document,
        (because, fallout): (Because, Fallout),
        by: &Author,
    ) -> Result<Batch, FlagsError> {
        let (stream, head) = (stream(flag)?, self.shared.store.head().await?);
        let fact = ReleaseChanged {
            flag: flag.clone(),
            place: place.clone(),
            happened: Happened::Stopped { because, fallout },
            before: document.decode::<Release>(key).ok(),
            after: None,
            verdict: None,
            reason: by.reason.clone(),
            undoes: None,
        };
        let id = event_id(&stream, &format!("release-{}", place.name()), head)?;
        let (now, about) = (self.shared.clock.now(), format!("flag/{flag}"));
        let event = Event::of(&fact, id, now, by.actor.as_str(), about)?;
        Ok(batch.expect(key.clone(), document.revision).remove(key.clone()).append(stream, event))
    }
}
