//! Whether a request told its length twice, which is how requests are smuggled past a proxy (RFC 9112, section 11.2).
//!
//! Hyper takes `Transfer-Encoding` and silently drops `Content-Length` where both are there, and closes the connection afterwards, so that
//! nothing can be smuggled on. But such a request is never an accident, and section 6.1 lets a server refuse it. As hyper's request no
//! longer shows the second length, the bytes of each head are looked at where they are read.
//!
//! The place at which the next head begins is known as long as each request had no body or one of a stated length, and no request was
//! pipelined. After that the record is lost, and what hyper does is all that is done.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use hyper::{
    Request,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The bytes of the head that is being read on a connection.
#[derive(Debug, Clone)]
pub(crate) struct HeadRecord {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Bytes of a body still to come before the next head; `None` once that is not known any more.
    skip: Option<u64>,
    head: Vec<u8>,
    most: usize,
}

impl HeadRecord {
    /// A record of heads up to `most` bytes; a longer one is refused by the server anyway.
    pub(crate) fn new(most: usize) -> Self {
        Self { state: Arc::new(Mutex::new(State { skip: Some(0), head: Vec::new(), most })) }
    }

    /// To be asked once for each request, before its body is read: whether it told its length twice.
    pub(crate) fn has_two_lengths<B>(&self, request: &Request<B>) -> bool {
        let mut state = self.state();
        let chunked = request.headers().contains_key(TRANSFER_ENCODING);
        let two = chunked && state.skip.is_some() && states_length(&state.head);
        state.skip = match request.headers().get(CONTENT_LENGTH) {
            _ if chunked || state.skip.is_none() => None,
            None => state.head.ends_with(b"\r\n\r\n").then_some(0),
            Some(length) => {
                state.body_to_come(length.to_str().ok().and_then(|length| length.trim().parse().ok()))
            }
        };
        state.head.clear();
        two
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How much of a body of `length` bytes was not read together with its head.
    fn body_to_come(&self, length: Option<u64>) -> Option<u64> {
        let head = self.head.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        length?.checked_sub(u64::try_from(self.head.len() - head).ok()?)
    }

    fn read(&mut self, bytes: &[u8]) {
        let Some(skip) = self.skip else { return };
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip = Some(skip - skipped as u64);
        let mut bytes = bytes.get(skipped..).unwrap_or_default();
        if self.head.is_empty() {
            // Empty lines before a request are ignored by hyper too.
            let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            bytes = bytes.get(start..).unwrap_or_default();
        }
        if self.head.len() + bytes.len() > self.most {
            self.skip = None;
            self.head = Vec::new();
            return;
        }
        self.head.extend_from_slice(bytes);
    }
}

/// Whether one of the lines of a head is a `Content-Length`.
fn states_length(head: &[u8]) -> bool {
    let name = CONTENT_LENGTH.as_str().as_bytes();
    head.split(|byte| *byte == b'\n')
        .take_while(|line| !matches!(line, [] | [b'\r']))
        .any(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))
}

/// A connection whose incoming heads are recorded.
#[derive(Debug)]
pub(crate) struct Recorded<T> {
    inner: T,
    record: HeadRecord,
}

impl<T> Recorded<T> {
    pub(crate) fn new(inner: T, record: HeadRecord) -> Self {
        Self { inner, record }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Recorded<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(context, buffer);
        if let Some(bytes) = buffer.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            this.record.state().read(bytes);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Recorded<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
