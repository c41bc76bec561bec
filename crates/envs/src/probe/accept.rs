//! Accepting HTTP/1.1 connections: limits, errors that never end the loop, and a stop that lets requests in flight finish.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flowline_core::error::BoxError;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};

use super::framing::{HeadRecord, Recorded};

/// What a server accepts before it refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// Connections at the same time, 1 or more; further ones wait in the system's queue. 4,096 unless told.
    pub connections: usize,
    /// Time for a request's head to arrive, counted from when the connection is ready for it; also how long an idle connection is kept.
    /// 30 seconds unless told.
    pub header_read: Duration,
    /// Bytes of a request's head, 8,192 or more; a longer one is answered with 431. 65,536 unless told.
    pub header_bytes: usize,
    /// Fields of a request's head. 100 unless told.
    pub header_fields: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 4096,
            header_read: Duration::from_secs(30),
            header_bytes: 64 * 1024,
            header_fields: 100,
        }
    }
}

impl ServerLimits {
    /// With at most `connections` at the same time.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// With `limit` for a request's head to arrive.
    #[must_use]
    pub fn with_header_read(mut self, limit: Duration) -> Self {
        self.header_read = limit;
        self
    }

    /// With at most `bytes` in a request's head.
    #[must_use]
    pub fn with_header_bytes(mut self, bytes: usize) -> Self {
        self.header_bytes = bytes.max(8192);
        self
    }
}

/// A running accept loop. Dropping it ends the loop and every connection at once.
#[derive(Debug)]
pub(crate) struct Accepting {
    stop: watch::Sender<Stop>,
    slots: Arc<Semaphore>,
    total: u32,
    task: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Run,
    Finish,
    Abort,
}

impl Accepting {
    /// Serves what `listener` accepts, each connection with the service that `make` gives for its peer and the
    /// record of its heads. Needs a tokio runtime.
    pub(crate) fn start<S, O>(
        listener: TcpListener,
        limits: &ServerLimits,
        make: impl Fn(SocketAddr, HeadRecord) -> S + Send + Sync + 'static,
    ) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<O>> + Send + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        O: Body<Data = Bytes> + Send + 'static,
        O::Error: Into<BoxError>,
    {
        let total = u32::try_from(limits.connections).unwrap_or(u32::MAX).max(1);
        let slots = Arc::new(Semaphore::new(total as usize));
        let (stop, stopped) = watch::channel(Stop::Run);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(limits.header_read)
            .max_buf_size(limits.header_bytes.max(8192))
            .max_headers(limits.header_fields);
        let most = limits.header_bytes.max(8192);
        let task = tokio::spawn(accept(listener, http, most, Arc::clone(&slots), stopped, make));
        Self { stop, slots, total, task: Mutex::new(Some(task)) }
    }

    /// Accepts no more, lets requests in flight finish for at most `limit`, then cuts what is left. How many were cut.
    pub(crate) async fn stop(&self, limit: Duration) -> usize {
        self.stop.send_replace(Stop::Finish);
        if let Some(accepting) = self.take_task() {
            accepting.abort();
            // Its end is what frees the port; that it was aborted is known.
            let _aborted = accepting.await;
        }
        if tokio::time::timeout(limit, self.slots.acquire_many(self.total)).await.is_ok() {
            return 0;
        }
        let cut = (self.total as usize).saturating_sub(self.slots.available_permits());
        self.stop.send_replace(Stop::Abort);
        // Cutting is dropping: it does not wait for anybody, so neither can this.
        drop(self.slots.acquire_many(self.total).await);
        cut
    }

    fn take_task(&self) -> Option<JoinHandle<()>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Accepting {
    fn drop(&mut self) {
        if let Some(accepting) = self.take_task() {
            accepting.abort();
        }
        self.stop.send_replace(Stop::Abort);
    }
}

async fn accept<S, O>(
    listener: TcpListener,
    http: http1::Builder,
    head_bytes: usize,
    slots: Arc<Semaphore>,
    stop: watch::Receiver<Stop>,
    make: impl Fn(SocketAddr, HeadRecord) -> S + Send + Sync + 'static,
) where
    S: Service<Request<Incoming>, Response = Response<O>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    O: Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // A connection that died in the queue is nobody's concern. Out of descriptors or memory: wait until some are free.
                if !is_of_the_connection(&error) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let record = HeadRecord::new(head_bytes);
        let service = make(peer, record.clone());
        tokio::spawn(connection(Recorded::new(stream, record), http.clone(), service, slot, stop.clone()));
    }
}

async fn connection<S, O>(
    stream: Recorded<TcpStream>,
    http: http1::Builder,
    service: S,
    slot: OwnedSemaphorePermit,
    mut stop: watch::Receiver<Stop>,
) where
    S: Service<Request<Incoming>, Response = Response<O>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    O: Body<Data = Bytes> + Send + 'static,
    O::Error: Into<BoxError>,
{
    let _slot = slot;
    let mut serving = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    loop {
        let change = tokio::select! {
            biased;
            // What goes wrong on a connection (a malformed request, a peer that left) was answered, or can't be.
            _over = &mut serving => return,
            change = stop.changed() => change,
        };
        let wanted = *stop.borrow_and_update();
        match (change, wanted) {
            (Ok(()), Stop::Run) => {}
            (Ok(()), Stop::Finish) => serving.as_mut().graceful_shutdown(),
            (Ok(()), Stop::Abort) | (Err(_), _) => return,
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
