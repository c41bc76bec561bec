//! One HTTP/1.1 connection to a server, driven by whoever uses it, and a pool of idle ones.
//!
//! Hyper splits a client connection into a sender and a driver that is usually spawned as a task of its own. Here the task that wants the
//! response polls the driver itself, so that a request costs no hand-over between tasks; an idle connection is polled when it is taken
//! out of the pool, which is when it has to be known whether the server closed it meanwhile.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use flowline_core::error::BoxError;
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

/// An open connection that carries requests with bodies of type `B`, one at a time.
pub(crate) struct Connection<B: Body + 'static> {
    sender: SendRequest<B>,
    /// `None` once the connection is over.
    driver: Option<Driver>,
}

/// Moves the connection on when polled. Boxed, as hyper does not name the type.
pub(crate) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

impl<B> Connection<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// Connects to `address` within `limit`.
    pub(crate) async fn open(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = tokio::time::timeout(limit, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (sender, driver) =
            http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(Box::pin(driver.with_upgrades())) })
    }

    /// Sends `request` and waits for the head of its response.
    ///
    /// An error gives the request back if nothing of it was written.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, TrySendError<Request<B>>> {
        let mut response = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        poll_fn(|context| {
            drive(driver, context);
            response.as_mut().poll(context)
        })
        .await
    }

    /// Takes the driver, for a connection that was upgraded to another protocol and goes on by itself.
    pub(crate) fn into_driver(self) -> Option<Driver> {
        self.driver
    }

    /// Moves the connection on; then whether it can carry another request.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> bool {
        drive(&mut self.driver, context);
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Moves the connection on as far as it goes; what it has to say reaches whoever waits for the response or its body.
fn drive(driver: &mut Option<Driver>, context: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(context).is_ready()
    {
        *driver = None;
    }
}

/// Idle connections to one address, the most recently used on top.
pub(crate) struct Pool<B: Body + 'static> {
    idle: Mutex<Idle<B>>,
    keep: Duration,
    most: usize,
}

struct Idle<B: Body + 'static> {
    open: bool,
    connections: Vec<(Connection<B>, Instant)>,
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// A pool that keeps at most `most` connections, each for `keep` after its last use.
    pub(crate) fn new(most: usize, keep: Duration) -> Self {
        Self { idle: Mutex::new(Idle { open: true, connections: Vec::new() }), keep, most }
    }

    /// An idle connection that the server has not closed, as far as can be known, and that was used within `recently`.
    pub(crate) async fn take(&self, recently: Duration) -> Option<Connection<B>> {
        let recently = recently.min(self.keep);
        loop {
            let (mut connection, _) =
                self.idle().connections.pop_if(|(_, since)| since.elapsed() < recently)?;
            if poll_fn(|context| Poll::Ready(connection.poll_ready(context))).await {
                return Some(connection);
            }
        }
    }

    /// Puts a connection back, unless the pool is full or closed.
    fn put(&self, connection: Connection<B>) {
        let mut idle = self.idle();
        if idle.open && idle.connections.len() < self.most {
            idle.connections.push((connection, Instant::now()));
        }
    }

    /// Closes connections that were idle for too long.
    pub(crate) fn sweep(&self) {
        let old = {
            let mut idle = self.idle();
            let fresh = idle.connections.partition_point(|(_, since)| since.elapsed() >= self.keep);
            idle.connections.drain(..fresh).collect::<Vec<_>>()
        };
        drop(old);
    }

    /// Closes all idle connections; later ones are closed after use until [`open`](Self::open).
    pub(crate) fn close(&self) {
        let all = {
            let mut idle = self.idle();
            idle.open = false;
            std::mem::take(&mut idle.connections)
        };
        drop(all);
    }

    /// Keeps connections again.
    pub(crate) fn open(&self) {
        self.idle().open = true;
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle<B>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A response's body that moves its connection on while it is read, and puts it back into the pool at the end.
pub(crate) struct PooledBody<B: Body + 'static> {
    incoming: Incoming,
    rest: Option<(Connection<B>, Arc<Pool<B>>)>,
}

impl<B> PooledBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    /// The body of a response that came over `connection`.
    pub(crate) async fn new(incoming: Incoming, connection: Connection<B>, pool: Arc<Pool<B>>) -> Self {
        let mut body = Self { incoming, rest: Some((connection, pool)) };
        if body.incoming.is_end_stream() {
            poll_fn(|context| {
                body.give_back(context);
                Poll::Ready(())
            })
            .await;
        }
        body
    }

    /// At the end of the body: back into the pool if the connection is fit for another request.
    fn give_back(&mut self, context: &mut Context<'_>) {
        if let Some((mut connection, pool)) = self.rest.take()
            && connection.poll_ready(context)
        {
            pool.put(connection);
        }
    }
}

impl<B> Body for PooledBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        // The first poll takes what is there and otherwise tells the driver that more is wanted; the second takes what it then read.
        let frame = match Pin::new(&mut this.incoming).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                if let Some((connection, _)) = &mut this.rest {
                    drive(&mut connection.driver, context);
                }
                ready!(Pin::new(&mut this.incoming).poll_frame(context))
            }
        };
        match &frame {
            Some(Ok(_)) if !this.incoming.is_end_stream() => {}
            Some(Err(_)) => this.rest = None,
            Some(Ok(_)) | None => this.give_back(context),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
