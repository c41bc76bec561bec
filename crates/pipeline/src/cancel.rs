//! Asking work to stop: a [`Cancel`] is handed to everything that takes time.

use std::{fmt, sync::Arc};

use tokio::sync::watch;

/// A wish to stop, shared by whoever may have it and whoever obeys it. Clones are the same wish.
///
/// It is only ever a wish: what runs decides how to stop, within the grace that its caller gives. Undoing has its own, so the cancel that
/// led to it does not stop it.
///
/// ```
/// use flowline_pipeline::run::Cancel;
/// let all = Cancel::new();
/// let one = all.child();
/// one.cancel();
/// assert!(one.is_cancelled() && !all.is_cancelled());
/// all.cancel();
/// assert!(all.child().is_cancelled());
/// ```
#[derive(Clone)]
pub struct Cancel(Arc<Inner>);

struct Inner {
    wished: watch::Sender<bool>,
    parent: Option<Cancel>,
}

impl Cancel {
    /// Nobody wishes to stop yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner { wished: watch::Sender::new(false), parent: None }))
    }

    /// One that is cancelled with this, or by itself.
    #[must_use]
    pub fn child(&self) -> Self {
        Self(Arc::new(Inner { wished: watch::Sender::new(false), parent: Some(self.clone()) }))
    }

    /// Wishes to stop. Doing it again changes nothing.
    pub fn cancel(&self) {
        self.0.wished.send_replace(true);
    }

    /// Whether somebody wished to stop.
    pub fn is_cancelled(&self) -> bool {
        *self.0.wished.borrow() || self.0.parent.as_ref().is_some_and(Self::is_cancelled)
    }

    /// Returns once somebody wished to stop; at once if somebody did. May be dropped.
    pub async fn cancelled(&self) {
        let mut at = Some(self);
        let mut waits: Vec<_> = Vec::with_capacity(2);
        while let Some(cancel) = at {
            let mut receiver = cancel.0.wished.subscribe();
            // The sender lives in `self`, so this ends only with the wish.
            waits.push(Box::pin(async move {
                receiver.wait_for(|wished| *wished).await.ok();
            }));
            at = cancel.0.parent.as_ref();
        }
        futures_util::future::select_all(waits).await;
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancel({})", self.is_cancelled())
    }
}
