//! The client: OpenFeature's evaluation API (specification 0.9), in which applications ask for flags.
//!
//! An [`Api`] knows which [`Provider`](crate::provider::Provider) serves which domain; a [`Client`] asks in the name of a domain. There is
//! one [`Api::global`], and as many [`isolated`] ones as tests and embedders want. The paradigm is the dynamic-context one: the context
//! comes with each evaluation, so the state `RECONCILING` and `on context changed` of browsers don't exist here.
//!
//! Evaluating is synchronous, takes no lock of the client's own, and never fails or panics towards the caller: whatever goes wrong, the
//! caller gets the default it gave, and [`Details::error`] says why. It blocks no longer than the provider's resolver does, and those
//! [must not block](crate::provider::Provider), so it may be called from async code as it is.
//!
//! One evaluation, in order:
//!
//! 1. find the provider of the client's domain (the default provider if it has none of its own), and refuse if its
//!    [status](ProviderStatus) is not ready or fatal;
//! 2. merge the contexts: API, transaction, client, invocation;
//! 3. run the `before` hooks: API, client, invocation, provider; each may return a context, which is merged on top at once;
//! 4. resolve, and check the type;
//! 5. run the `after` hooks in reverse; after a failure anywhere, the `error` hooks in reverse instead;
//! 6. run the `finally` hooks in reverse.
//!
//! `docs/openfeature.md` lists which test proves which requirement.
//!
//! ```
//! use std::sync::Arc;
//! use flowline_toggles::{
//!     client::{EvaluationContext, Reason, isolated},
//!     provider::{Memory, MemoryFlag},
//! };
//!
//! let api = isolated::api();
//! let flag = MemoryFlag::new()
//!     .variant("old", "grey")
//!     .variant("new", "green")
//!     .default_variant("old")
//!     .targeted(|context| (context.targeting_key() == Some("ada")).then(|| "new".to_owned()));
//! api.set_provider(Arc::new(Memory::new().flag("colour", flag)))?;
//!
//! let client = api.client();
//! assert_eq!(client.text("colour", "black", ()), "grey");
//! let details = client.text_details("colour", "black", &EvaluationContext::targeting("ada"));
//! assert_eq!(details.value, "green");
//! assert_eq!(details.reason, Some(Reason::TargetingMatch));
//! assert_eq!(client.integer("colour", 7, ()), 7, "another type: the default");
//! # Ok::<(), flowline_toggles::client::BindError>(())
//! ```

mod api;
mod binding;
mod context;
mod details;
mod evaluate;
mod event;
mod hook;
pub mod isolated;
#[cfg(test)]
mod tests;
mod tracking;
mod transaction;

pub use api::{Api, ClientMetadata};
pub use binding::{BindError, Initialization};
pub use context::{EvaluationContext, Field, TARGETING_KEY};
pub use details::{Details, ErrorCode, EvaluationError, FlagMetadata, MetadataValue, Reason};
pub use evaluate::{Client, FlagType, Invocation, Options};
pub use event::{Emitter, Event, EventDetails, HandlerId, ProviderStatus};
pub use hook::{Hook, HookContext, HookData, HookHints, Stages};
pub use tracking::TrackingDetails;
#[cfg(feature = "tokio")]
pub use transaction::TaskPropagator;
pub use transaction::{ThreadPropagator, TransactionPropagator};

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs somebody else's code; a panic comes back as its text. (Where panics abort, they abort.)
fn contained<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| panic_text(&*payload))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked").to_owned()
}
