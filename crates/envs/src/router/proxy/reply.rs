//! The body of what the router answers: a whole text, an upstream's body as it comes, or a file in pieces.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use flowline_core::error::BoxError;
use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, SizeHint};

use super::{files::FileBody, forward::RequestBody, lanes::Passage};
use crate::probe::connection::PooledBody;

/// A response's body. Its request is in flight until it is dropped.
pub(super) struct Reply {
    source: Source,
    _passage: Option<Passage>,
}

enum Source {
    Whole(Full<Bytes>),
    Upstream(PooledBody<RequestBody>),
    File(FileBody),
}

impl Reply {
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self { source: Source::Whole(Full::new(bytes)), _passage: None }
    }

    pub(super) fn upstream(body: PooledBody<RequestBody>, passage: Passage) -> Self {
        Self { source: Source::Upstream(body), _passage: Some(passage) }
    }

    pub(super) fn file(body: FileBody, passage: Passage) -> Self {
        Self { source: Source::File(body), _passage: Some(passage) }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.get_mut().source {
            Source::Whole(body) => Pin::new(body).poll_frame(context).map_err(BoxError::from),
            Source::Upstream(body) => Pin::new(body).poll_frame(context).map_err(BoxError::from),
            Source::File(body) => Pin::new(body).poll_frame(context).map_err(BoxError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(body) => body.is_end_stream(),
            Source::Upstream(body) => body.is_end_stream(),
            Source::File(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(body) => body.size_hint(),
            Source::Upstream(body) => body.size_hint(),
            Source::File(body) => body.size_hint(),
        }
    }
}
