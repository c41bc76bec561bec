//! Two futures at once, without a runtime.

use std::{future::poll_fn, pin::pin, task::Poll};

/// Which of two was first.
pub(crate) enum First<A, B> {
    One(A),
    Other(B),
}

/// Runs both until one is done, and drops the other.
pub(crate) async fn race<A: Future, B: Future>(one: A, other: B) -> First<A::Output, B::Output> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|context| {
        if let Poll::Ready(answer) = one.as_mut().poll(context) {
            return Poll::Ready(First::One(answer));
        }
        other.as_mut().poll(context).map(First::Other)
    })
    .await
}
